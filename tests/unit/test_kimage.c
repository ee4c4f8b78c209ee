// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "symbols/kimage.h"
#include "symbols/lines.h"
#include "tests/unit/kernel_image.h"

static void expect_ok(struct bp_err *err)
{
	if (err)
		fail_msg("%s", bp_err_text(err));
}

static void expect_err(struct bp_err *err, enum bp_err_code code, const char *part)
{
	assert_non_null(err);
	if (bp_err_code(err) != code || !strstr(bp_err_text(err), part))
		fail_msg("code %d: %s; expected code %d with: %s", bp_err_code(err), bp_err_text(err), code,
			 part);
	bp_err_free(err);
}

static void expect_find(const struct bp_kimage *k, uint64_t addr, const char *name)
{
	const struct bp_ksym *s = bp_kimage_find(k, addr);

	if (!name)
		assert_null(s);
	else if (!s || strcmp(s->name, name) != 0)
		fail_msg("%llx: %s; expected %s", (unsigned long long)addr, s ? s->name : "nothing", name);
}

/* The test kernel, as it must look through any container. */
static void expect_test_kernel(const struct bp_kimage *k)
{
	static const uint8_t levels[KI_INITCALLS] = {
	    BP_INITCALL_EARLY, BP_INITCALL_CORE, BP_INITCALL_ROOTFS, BP_INITCALL_LATE, BP_INITCALL_LATE,
	};
	const struct bp_initcall *calls;
	const struct bp_ksym *syms;
	size_t n, want_count;
	bp_autofree struct ki_sym *want = ki_syms(&want_count);
	uint64_t start, end;
	char text[8];

	syms = bp_kimage_syms(k, &n);
	assert_int_equal(n, want_count);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(syms[i].name, want[i].name);
		assert_int_equal(syms[i].addr, want[i].addr);
	}
	assert_string_equal(bp_kimage_release(k), KI_RELEASE);
	assert_string_equal(bp_kimage_build_id(k), KI_BUILD_ID);
	assert_false(bp_kimage_is_debug(k));

	bp_kimage_text(k, &start, &end);
	assert_int_equal(start, KI_TEXT);
	assert_int_equal(end, KI_INIT_TEXT + KI_INIT_TEXT_BYTES);

	/* Aliases: real names before marks, strong ones before weak ones. */
	expect_find(k, KI_TEXT, "startup_64");
	expect_find(k, KI_TEXT + 0x3f, "startup_64");
	expect_find(k, KI_TEXT + 0x40, "helper");
	expect_find(k, KI_TEXT + 0x60, "helper.cold");
	expect_find(k, KI_TEXT + 0x80, "do_one");
	expect_find(k, KI_TEXT + 0xb8, "__pfx_entry");
	expect_find(k, KI_TEXT + 0xc0, "entry");
	expect_find(k, KI_TEXT + 0x180, KI_LONG_NAME);
	expect_find(k, KI_TEXT + KI_TEXT_BYTES - 1, KI_LONG_NAME);
	expect_find(k, KI_TEXT + KI_TEXT_BYTES, NULL);
	expect_find(k, KI_TEXT - 1, NULL);
	expect_find(k, 0, NULL);
	expect_find(k, UINT64_MAX, NULL);
	expect_find(k, KI_RODATA, NULL);
	expect_find(k, KI_INIT_TEXT + 0x1f, "second_init");
	expect_find(k, KI_INIT_TEXT + KI_INIT_TEXT_BYTES, NULL);

	assert_int_equal(bp_kimage_lookup(k, "do_one")->addr, KI_TEXT + 0x80);
	assert_int_equal(bp_kimage_lookup(k, "do_one")->type, 'T');
	assert_int_equal(bp_kimage_lookup(k, "do_one")->size, 0x30);
	assert_int_equal(bp_kimage_lookup(k, "arch_do_one")->type, 'W');
	assert_int_equal(bp_kimage_lookup(k, "cpu_info")->addr, 0x1000);
	assert_int_equal(bp_kimage_lookup(k, "filler_299")->addr, KI_RODATA + 0x2000 + 4 * 299);
	assert_null(bp_kimage_lookup(k, "do_on"));
	assert_null(bp_kimage_lookup(k, ""));

	assert_true(bp_kimage_read(k, KI_RODATA, text, 5));
	assert_memory_equal(text, "Linux", 5);
	assert_true(bp_kimage_read(k, KI_TEXT + KI_TEXT_BYTES - 8, text, 8));
	assert_false(bp_kimage_read(k, KI_TEXT + KI_TEXT_BYTES - 7, text, 8));
	assert_false(bp_kimage_read(k, KI_TEXT - 1, text, 2));
	assert_false(bp_kimage_read(k, UINT64_MAX, text, 8));

	calls = bp_kimage_initcalls(k, &n);
	assert_int_equal(n, KI_INITCALLS);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(calls[i].level, levels[i]);
	assert_int_equal(calls[1].addr, KI_INIT_TEXT + 0x10);
	assert_int_equal(calls[3].addr, KI_TEXT + 0x40);
	assert_string_equal(bp_initcall_level_name(BP_INITCALL_ROOTFS), "rootfs");

	assert_string_equal(bp_kimage_syscall_name(k, 0), "read");
	assert_string_equal(bp_kimage_syscall_name(k, 5), "fstat");
	assert_string_equal(bp_kimage_syscall_name(k, 257), "openat");
	assert_string_equal(bp_kimage_syscall_name(k, 462), "mseal");
	assert_string_equal(bp_kimage_syscall_name(k, KI_NEW_SYSCALL), "brandnew");
	assert_null(bp_kimage_syscall_name(k, 400));
	assert_null(bp_kimage_syscall_name(k, KI_NEW_SYSCALL - 1));
	assert_null(bp_kimage_syscall_name(k, KI_NEW_SYSCALL + 1));
	assert_null(bp_kimage_syscall_name(k, UINT32_MAX));

	assert_non_null(bp_kimage_btf(k));
	assert_int_equal(bp_btf_offset(bp_kimage_btf(k), "outer", "arr[1].b"), 16);
}

static void test_vmlinux(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct bp_strbuf image = BP_STRBUF_INIT;
		struct bp_kimage *k;

		ki_put_vmlinux(&image, i > 0, i == 2 ? KI_LAYOUT_NEW : KI_LAYOUT_OLD);
		expect_ok(bp_kimage_open_memory(image.data, image.len, "vmlinux", &k));
		expect_test_kernel(k);
		bp_kimage_destroy(k);
		bp_strbuf_deinit(&image);
	}
	bp_kimage_destroy(NULL);
}

static void test_bzimage(void **state)
{
	struct bp_strbuf image = BP_STRBUF_INIT, file = BP_STRBUF_INIT;
	char path[] = "/tmp/bootprof-test-XXXXXX";
	bp_autoclose int fd = mkstemp(path);
	struct bp_kimage *k;

	(void)state;
	assert_true(fd >= 0);
	ki_put_vmlinux(&image, true, KI_LAYOUT_NEW);
	ki_put_bzimage(&file, &image);
	expect_ok(bp_kimage_open_memory(file.data, file.len, "vmlinuz", &k));
	expect_test_kernel(k);
	bp_kimage_destroy(k);

	assert_int_equal(write(fd, file.data, file.len), file.len);
	expect_ok(bp_kimage_open(path, &k));
	expect_test_kernel(k);
	bp_kimage_destroy(k);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, image.data, image.len, 0), image.len);
	expect_ok(bp_kimage_open(path, &k));
	expect_test_kernel(k);
	bp_kimage_destroy(k);
	unlink(path);
	bp_strbuf_deinit(&image);
	bp_strbuf_deinit(&file);
}

static void test_errors(void **state)
{
	struct bp_strbuf image = BP_STRBUF_INIT, file = BP_STRBUF_INIT;
	struct bp_kimage *k = NULL;

	(void)state;
	expect_err(bp_kimage_open("/nowhere/vmlinuz", &k), BP_EOS, "/nowhere/vmlinuz: No such file");
	expect_err(bp_kimage_open("/", &k), BP_EOS, "/: Is a directory");
	expect_err(bp_kimage_open("/dev/null", &k), BP_EUSAGE, "not a regular file");
	expect_err(bp_kimage_open_memory("", 0, "f", &k), BP_EDATA, "neither a bzImage");
	expect_err(bp_kimage_open_memory("\x7f"
					 "ELF",
					 4, "f", &k),
		   BP_EDATA, "ELF header ends early");

	ki_put_vmlinux(&image, true, KI_LAYOUT_NEW);
	ki_put_bzimage(&file, &image);
	expect_err(bp_kimage_open_memory(file.data, 0x210, "f", &k), BP_EDATA, "header ends early");
	expect_err(bp_kimage_open_memory(file.data, file.len - 1, "f", &k), BP_EDATA, "cut off");
	file.data[file.len - 4] ^= 1;
	expect_err(bp_kimage_open_memory(file.data, file.len, "f", &k), BP_EDATA, "not the size");
	file.data[file.len - 4] ^= 1;
	memcpy(file.data + 0x410, "BZh9", 4);
	expect_err(bp_kimage_open_memory(file.data, file.len, "f", &k), BP_EUNSUPPORTED, "bzip2");
	memcpy(file.data + 0x410, "mine", 4);
	expect_err(bp_kimage_open_memory(file.data, file.len, "f", &k), BP_EUNSUPPORTED, "not a compression");
	file.data[0x206] = 7;
	expect_err(bp_kimage_open_memory(file.data, file.len, "f", &k), BP_EUNSUPPORTED,
		   "boot protocol 2.07");
	image.data[18] = (char)183; /* EM_AARCH64 */
	expect_err(bp_kimage_open_memory(image.data, image.len, "f", &k), BP_EUNSUPPORTED, "x86-64");
	assert_null(k);
	bp_strbuf_deinit(&image);
	bp_strbuf_deinit(&file);
}

static void test_no_symbols(void **state)
{
	struct ki_section text = {".text", SHT_PROGBITS,   SHF_ALLOC | SHF_EXECINSTR,
				  KI_TEXT, BP_STRBUF_INIT, 0};
	struct bp_strbuf image = BP_STRBUF_INIT;
	struct bp_kimage *k;

	(void)state;
	bp_strbuf_adds(&text.data, "code");
	ki_put_elf(&image, &text, 1);
	expect_err(bp_kimage_open_memory(image.data, image.len, "f", &k), BP_EUNSUPPORTED, "without symbols");
	bp_strbuf_deinit(&text.data);
	bp_strbuf_deinit(&image);
}

/* Asks everything that depends on data in the image. */
static void use(const struct bp_kimage *k)
{
	const struct bp_initcall *calls;
	const struct bp_ksym *syms;
	uint64_t start, end;
	char buf[64];
	size_t n;

	syms = bp_kimage_syms(k, &n);
	for (size_t i = 0; i < n; i++) {
		const struct bp_ksym *s = bp_kimage_find(k, syms[i].addr);

		assert_true(!s || s->addr <= syms[i].addr);
		assert_true(!i || syms[i].addr >= syms[i - 1].addr);
		assert_non_null(bp_kimage_lookup(k, syms[i].name));
		bp_kimage_read(k, syms[i].addr, buf, sizeof(buf));
	}
	calls = bp_kimage_initcalls(k, &n);
	for (size_t i = 0; i < n; i++)
		assert_non_null(bp_kimage_find(k, calls[i].addr));
	bp_kimage_text(k, &start, &end);
	bp_kimage_find(k, end - 1);
	bp_kimage_syscall_name(k, KI_NEW_SYSCALL);
	bp_btf_offset(bp_kimage_btf(k), "outer", "arr[1].b");
	assert_true(strlen(bp_kimage_release(k)) < 200 && strlen(bp_kimage_build_id(k)) < 200);
}

static void try_open(const char *data, size_t len)
{
	struct bp_kimage *k = NULL;

	bp_err_free(bp_kimage_open_memory(data, len, "f", &k));
	if (k)
		use(k);
	bp_kimage_destroy(k);
}

/* Cut off at each place, and wrong bits where the containers have their numbers. */
static void test_damage(void **state)
{
	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		struct bp_strbuf image = BP_STRBUF_INIT, file = BP_STRBUF_INIT;
		struct bp_strbuf *sb = kind == 2 ? &file : &image;

		ki_put_vmlinux(&image, kind > 0, KI_LAYOUT_NEW);
		if (kind == 2)
			ki_put_bzimage(&file, &image);
		for (size_t len = 0; len < sb->len; len += 1 + len / 64) {
			bp_autofree char *copy = malloc(len ? len : 1);

			assert_non_null(copy);
			memcpy(copy, sb->data, len);
			try_open(copy, len);
		}
		for (size_t bit = 0; bit < 8 * sb->len; bit++) {
			/* All of the headers at both ends, a sample in between. */
			if (bit / 8 > 0x60 && bit / 8 < sb->len - 64 * 10)
				bit += 400;
			sb->data[bit / 8] ^= (char)(1 << bit % 8);
			try_open(sb->data, sb->len);
			sb->data[bit / 8] ^= (char)(1 << bit % 8);
		}
		bp_strbuf_deinit(&image);
		bp_strbuf_deinit(&file);
	}
}

static const char *test_kernel(void)
{
	const char *path = getenv("BOOTPROF_TEST_KERNEL");

	if (!path || !*path) {
		print_message("BOOTPROF_TEST_KERNEL is not set\n");
		skip();
	}
	return path;
}

/* What people who trace the distribution's kernel rely on. */
static void test_real_kernel(void **state)
{
	static const char *const members[][2] = {
	    {"task_struct", "comm"},
	    {"task_struct", "pid"},
	    {"task_struct", "tgid"},
	    {"task_struct", "mm"},
	    {"task_struct", "real_parent"},
	    {"module", "name"},
	    {"module", "state"},
	    {"module", "kallsyms"},
	    {"linux_binprm", "filename"},
	    {"vm_area_struct", "vm_start"},
	    {"vm_area_struct", "vm_end"},
	    {"vm_area_struct", "vm_pgoff"},
	    {"vm_area_struct", "vm_file"},
	    {"vm_area_struct", "vm_flags"},
	    {"vm_area_struct", "vm_mm"},
	    {"file", "f_path.dentry"},
	    {"dentry", "d_name.name"},
	    {"dentry", "d_parent"},
	    {"mm_struct", "exe_file"},
	    {"mod_kallsyms", "symtab"},
	    {"mod_kallsyms", "num_symtab"},
	    {"mod_kallsyms", "strtab"},
	};
	static const char *const functions[] = {
	    "start_kernel",     "do_one_initcall", "schedule",   "do_syscall_64", "asm_exc_page_fault",
	    "__x64_sys_openat", "ret_from_fork",   "startup_64", "rest_init",     "kernel_init",
	};
	const char *path = test_kernel();
	struct bp_kimage *k;
	const struct bp_initcall *calls;
	const struct bp_btf *btf;
	uint64_t start, end;
	size_t n;

	(void)state;
	expect_ok(bp_kimage_open(path, &k));
	bp_kimage_syms(k, &n);
	assert_true(n > 50000);
	assert_int_equal(strlen(bp_kimage_build_id(k)), 40);
	assert_non_null(strstr(path, bp_kimage_release(k)));
	bp_kimage_text(k, &start, &end);
	for (size_t i = 0; i < BP_ARRAY_SIZE(functions); i++) {
		const struct bp_ksym *s = bp_kimage_lookup(k, functions[i]);

		if (!s)
			fail_msg("no %s", functions[i]);
		assert_true(s->addr >= start && s->addr < end);
		expect_find(k, s->addr, functions[i]);
	}
	calls = bp_kimage_initcalls(k, &n);
	assert_true(n > 300);
	assert_int_equal(calls[n - 1].level, BP_INITCALL_LATE);
	btf = bp_kimage_btf(k);
	assert_non_null(btf);
	for (size_t i = 0; i < BP_ARRAY_SIZE(members); i++)
		if (bp_btf_offset(btf, members[i][0], members[i][1]) < 0)
			fail_msg("no %s.%s", members[i][0], members[i][1]);
	/* Until 6.3 and since 6.4. */
	assert_true(bp_btf_offset(btf, "module", "core_layout.base") > 0 ||
		    bp_btf_offset(btf, "module", "mem[0].base") > 0);
	use(k);
	bp_kimage_destroy(k);
}

/* With the debug vmlinux of the same kernel at hand: every symbol and every name shown are the same. */
static void test_real_vmlinux(void **state)
{
	bp_autofree char *path = NULL;
	struct bp_kimage *k, *debug;
	const struct bp_ksym *syms, *s;
	const char *given = getenv("BOOTPROF_TEST_VMLINUX");
	size_t n;

	(void)state;
	expect_ok(bp_kimage_open(test_kernel(), &k));
	expect_ok(bp_debug_vmlinux_find(bp_kimage_build_id(k), bp_kimage_release(k), &path));
	if (!path && given)
		path = strdup(given);
	if (!path) {
		bp_kimage_destroy(k);
		fail_msg("no debug vmlinux");
	}
	expect_ok(bp_kimage_open(path, &debug));
	if (strcmp(bp_kimage_build_id(k), bp_kimage_build_id(debug)) != 0) {
		bp_kimage_destroy(debug);
		bp_kimage_destroy(k);
		fail_msg("BOOTPROF_TEST_VMLINUX is of another kernel");
	}
	assert_string_equal(bp_kimage_release(k), bp_kimage_release(debug));
	syms = bp_kimage_syms(k, &n);
	for (size_t i = 0; i < n; i++) {
		s = bp_kimage_lookup(debug, syms[i].name);
		if (!s)
			fail_msg("%s is not in the vmlinux", syms[i].name);
		s = bp_kimage_find(k, syms[i].addr);
		expect_find(debug, syms[i].addr, s ? s->name : NULL);
	}
	bp_kimage_destroy(debug);
	bp_kimage_destroy(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_vmlinux),      cmocka_unit_test(test_bzimage),
	    cmocka_unit_test(test_errors),       cmocka_unit_test(test_no_symbols),
	    cmocka_unit_test(test_damage),       cmocka_unit_test(test_real_kernel),
	};
	/* The debug vmlinux takes a download of 280 MB: `make check-truth` has it. */
	const struct CMUnitTest truth[] = {
	    cmocka_unit_test(test_real_vmlinux),
	};

	if (getenv("BOOTPROF_TEST_VMLINUX"))
		return cmocka_run_group_tests_name("kimage, debug vmlinux", truth, NULL, NULL);
	return cmocka_run_group_tests_name("kimage", tests, NULL, NULL);
}
