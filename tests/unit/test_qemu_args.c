// SPDX-License-Identifier: GPL-2.0-or-later
/* What is read from a QEMU command line, in the spellings that QEMU takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "collectors/tcg/qemu_args.h"

#define MIB (1ull << 20)

/* The arguments behind "qemu", separated by spaces. */
static struct bp_qemu_args parse(const char *line)
{
	static char buf[512];
	static char *argv[64];
	struct bp_qemu_args a;
	size_t n = 0;

	snprintf(buf, sizeof(buf), "qemu %s", line);
	for (char *p = strtok(buf, " "); p; p = strtok(NULL, " "))
		argv[n++] = p;
	argv[n] = NULL;
	memset(&a, 0xff, sizeof(a));
	bp_qemu_args_parse(argv, &a);
	return a;
}

static void test_defaults(void **state)
{
	struct bp_qemu_args a = parse("");
	char *none[] = {NULL};

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_null(a.kernel);
		assert_null(a.initrd);
		assert_null(a.append);
		assert_null(a.machine);
		assert_int_equal(a.ram_bytes, 128 * MIB);
		assert_int_equal(a.smp, 1);
		assert_string_equal(a.accel, "tcg");
		assert_false(a.has_icount || a.has_rtc || a.has_seed);
		assert_int_equal(a.debug_exit_port, 0);
		bp_qemu_args_parse(none, &a);
	}
}

static void test_boot(void **state)
{
	struct bp_qemu_args a = parse("-kernel vmlinuz --initrd initrd.img -append console=ttyS0 -M q35");

	(void)state;
	assert_string_equal(a.kernel, "vmlinuz");
	assert_string_equal(a.initrd, "initrd.img");
	assert_string_equal(a.append, "console=ttyS0");
	assert_string_equal(a.machine, "q35");
	/* The value of an option is no option, whatever it looks like. */
	a = parse("-append -kernel -kernel b -nographic -serial mon:stdio -drive file=x,if=virtio");
	assert_string_equal(a.append, "-kernel");
	assert_string_equal(a.kernel, "b");
	/* The last one counts. */
	a = parse("-kernel a -kernel b");
	assert_string_equal(a.kernel, "b");
	/* Nothing behind it. */
	a = parse("-nographic -kernel");
	assert_null(a.kernel);
}

static void test_ram(void **state)
{
	static const struct {
		const char *args;
		uint64_t mib;
	} cases[] = {
	    {"-m 512", 512},
	    {"-m 512M", 512},
	    {"-m 512m", 512},
	    {"-m 2G", 2048},
	    {"-m 2g", 2048},
	    {"-m 1T", 1 << 20},
	    {"-m 524288k", 512},
	    {"-m 536870912b", 512},
	    {"-m size=1G", 1024},
	    {"-m size=256", 256},
	    {"-m 1G,slots=3,maxmem=4G", 1024},
	    {"-m slots=3,size=768M,maxmem=4G", 768},
	    {"--m 64", 64},
	    {"-m 1.5G", 1536},
	    {"-m maxmem=4G,slots=2", 128},
	    {"-m 0x200", 512},
	    {"-m", 128},
	    {"-m junk", 128},
	    {"-m -5", 128},
	    {"-m 1e300T", 128},
	    {"-m nan", 128},
	    {"-m 512 -m 1G", 1024},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bp_qemu_args a = parse(cases[i].args);

		if (a.ram_bytes != cases[i].mib * MIB)
			print_message("%s\n", cases[i].args);
		assert_int_equal(a.ram_bytes, cases[i].mib * MIB);
	}
}

static void test_smp(void **state)
{
	static const struct {
		const char *args;
		unsigned n;
	} cases[] = {
	    {"-smp 4", 4},
	    {"-smp cpus=4", 4},
	    {"-smp 4,maxcpus=8", 4},
	    {"-smp maxcpus=8,cpus=2", 2},
	    {"-smp sockets=2,cores=2,threads=1", 4},
	    {"-smp cores=4", 4},
	    {"-smp 2,sockets=2,cores=1", 2},
	    {"-smp maxcpus=8", 8},
	    {"-smp 0", 1},
	    {"-smp 99999999999", 1},
	    {"-smp sockets=4000000000,cores=4000000000", 1},
	    {"-smp sockets=0", 1},
	    {"-smp x", 1},
	    {"-smp sockets=2,dies=2,cores=3,threads=2", 24},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bp_qemu_args a = parse(cases[i].args);

		if (a.smp != cases[i].n)
			print_message("%s: %u\n", cases[i].args, a.smp);
		assert_int_equal(a.smp, cases[i].n);
	}
}

static void test_accel(void **state)
{
	static const struct {
		const char *args, *accel;
	} cases[] = {
	    {"-accel tcg", "tcg"},
	    {"-accel kvm", "kvm"},
	    {"--accel kvm", "kvm"},
	    {"-accel tcg,thread=single", "tcg"},
	    {"-accel accel=kvm", "kvm"},
	    {"-enable-kvm", "kvm"},
	    {"--enable-kvm", "kvm"},
	    {"-accel kvm -accel tcg", "kvm"},
	    {"-accel tcg -accel kvm", "tcg"},
	    {"-machine pc,accel=kvm", "kvm"},
	    {"-M accel=kvm:tcg", "kvm"},
	    {"-machine q35,accel=tcg", "tcg"},
	    {"-machine type=pc,accel=kvm,usb=off", "kvm"},
	    {"-M pc", "tcg"},
	    {"-accel thread=multi,accel=tcg", "tcg"},
	    {"-kernel k -enable-kvm -m 1G", "kvm"},
	    {"-accel hvf", "hvf"},
	    {"-accel ''", "''"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bp_qemu_args a = parse(cases[i].args);

		if (strcmp(a.accel, cases[i].accel))
			print_message("%s: %s\n", cases[i].args, a.accel);
		assert_string_equal(a.accel, cases[i].accel);
	}
	/* Longer than any that there is. */
	assert_int_equal(strlen(parse("-accel aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd").accel), 31);
}

static void test_determinism(void **state)
{
	struct bp_qemu_args a = parse("-icount shift=1,sleep=off -rtc clock=vm -seed 3");

	(void)state;
	assert_true(a.has_icount && a.has_rtc && a.has_seed);
	a = parse("-rtc base=utc");
	assert_true(!a.has_icount && a.has_rtc && !a.has_seed);
}

static void test_debug_exit(void **state)
{
	(void)state;
	assert_int_equal(parse("-device isa-debug-exit,iobase=0xf4,iosize=0x04").debug_exit_port, 0xf4);
	assert_int_equal(parse("-device isa-debug-exit").debug_exit_port, 0x501);
	assert_int_equal(parse("-device iobase=244,driver=isa-debug-exit").debug_exit_port, 0xf4);
	assert_int_equal(parse("-device isa-debug-exit-other,iobase=1").debug_exit_port, 0);
	assert_int_equal(parse("-device virtio-net -device isa-debug-exit,iobase=0x600").debug_exit_port,
			 0x600);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),   cmocka_unit_test(test_boot),
	    cmocka_unit_test(test_ram),        cmocka_unit_test(test_smp),
	    cmocka_unit_test(test_accel),      cmocka_unit_test(test_determinism),
	    cmocka_unit_test(test_debug_exit),
	};

	return cmocka_run_group_tests_name("qemu_args", tests, NULL, NULL);
}
