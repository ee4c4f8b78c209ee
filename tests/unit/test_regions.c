// SPDX-License-Identifier: GPL-2.0-or-later
/* Addresses here were seen executing: QEMU 7.2 and 10.0, "pc" and "q35", Linux 6.1 and 6.12. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "symbols/regions.h"

#define MIB (1ull << 20)

static void expect_ok(struct bp_err *err)
{
	if (err)
		fail_msg("%s", bp_err_text(err));
}

/* A setup header with the numbers of Debian's 6.1 kernel. */
static void make_header(uint8_t *h, size_t len)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
	} fields[] = {
	    {0x1f1, 1, 39},       {0x1f4, 4, 0xd82200 / 16}, {0x206, 2, 0x20f},     {0x211, 1, 1},
	    {0x214, 4, 0x100000}, {0x258, 8, 0x1000000},     {0x260, 4, 0x3378000},
	};

	memset(h, 0, len);
	memcpy(h + 0x202, "HdrS", 4);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		memcpy(h + fields[i].at, &fields[i].value, fields[i].bytes);
}

static void write_temp(char *path, const void *data, size_t len)
{
	int fd;

	strcpy(path, "/tmp/test_regions.XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

static void expect(const struct bp_region_map *m, uint64_t addr, enum bp_region want)
{
	enum bp_region got = bp_region_find(m, addr);

	if (got != want)
		fail_msg("%#llx: %s, expected %s", (unsigned long long)addr, bp_region_id(got),
			 bp_region_id(want));
}

static void test_direct_boot(void **state)
{
	static const struct {
		uint64_t addr;
		enum bp_region want;
	} seen[] = {
	    {0xfffffff0, BP_REGION_SEABIOS},     {0xfffeb000, BP_REGION_SEABIOS},
	    {0xfe05b, BP_REGION_SEABIOS},        {0xef000, BP_REGION_SEABIOS},
	    {0xe7000, BP_REGION_SEABIOS},        {0xd4000, BP_REGION_SEABIOS},
	    {0xdb123, BP_REGION_SEABIOS},        {0x38000, BP_REGION_SEABIOS},
	    {0xa8000, BP_REGION_SEABIOS},        {0x1effb000, BP_REGION_SEABIOS},
	    {0x1efebfff, BP_REGION_SEABIOS},     {0xc0000, BP_REGION_OPTION_ROM},
	    {0xc5fff, BP_REGION_OPTION_ROM},     {0xca000, BP_REGION_OPTION_ROM},
	    {0xcb000, BP_REGION_OPTION_ROM},     {0x10000, BP_REGION_SETUP},
	    {0x13fff, BP_REGION_SETUP},          {0x100000, BP_REGION_DECOMPRESSOR},
	    {0xe6f000, BP_REGION_DECOMPRESSOR},  {0x431a000, BP_REGION_DECOMPRESSOR},
	    {0x4323000, BP_REGION_DECOMPRESSOR}, {0x1000000, BP_REGION_KERNEL_ENTRY},
	    {0x1e01000, BP_REGION_KERNEL_ENTRY}, {0x9000000, BP_REGION_KERNEL_ENTRY},
	    {0x9e01000, BP_REGION_KERNEL_ENTRY}, {0x99000, BP_REGION_TRAMPOLINE},
	    {0x9a000, BP_REGION_TRAMPOLINE},     {0x7c00, BP_REGION_BOOT_SECTOR},
	    {0x7dff, BP_REGION_BOOT_SECTOR},     {0x7e00, BP_REGION_LOW_MEMORY},
	    {0, BP_REGION_LOW_MEMORY},           {0xffffffff81000000, BP_REGION_NONE},
	    {0x20000000, BP_REGION_NONE},        {0x7fff12345000, BP_REGION_NONE},
	    {0xff000000, BP_REGION_FIRMWARE},
	};
	uint8_t header[0x400];
	struct bp_region_map m;
	char path[64];

	(void)state;
	make_header(header, sizeof(header));
	write_temp(path, header, sizeof(header));
	expect_ok(bp_region_map_init(&m, 512 * MIB, path));
	unlink(path);
	for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
		expect(&m, seen[i].addr, seen[i].want);
}

static void test_ram_sizes(void **state)
{
	struct bp_region_map m;

	(void)state;
	expect_ok(bp_region_map_init(&m, 2048 * MIB, NULL));
	expect(&m, 0x7effb000, BP_REGION_SEABIOS);
	expect(&m, 0x7efeb000, BP_REGION_SEABIOS);
	expect(&m, 0x10000000, BP_REGION_BOOT_LOADER);
	/* RAM around the hole: q35 goes on at 2 GiB, pc at 3 GiB. */
	expect_ok(bp_region_map_init(&m, 4096 * MIB, NULL));
	expect(&m, 0x7effb000, BP_REGION_SEABIOS);
	expect(&m, 0xbeffb000, BP_REGION_SEABIOS);
	expect(&m, 0x120000000, BP_REGION_BOOT_LOADER);
	expect(&m, 0x200000000, BP_REGION_NONE);
	/* Too little of it for anything: no wrap-around. */
	expect_ok(bp_region_map_init(&m, MIB / 2, NULL));
	expect(&m, 0x200000, BP_REGION_NONE);
	expect_ok(bp_region_map_init(&m, UINT64_MAX, NULL));
	expect(&m, 0x200000, BP_REGION_BOOT_LOADER);
	expect_ok(bp_region_map_init(&m, 0, NULL));
	expect(&m, 0x200000, BP_REGION_BOOT_LOADER);
	expect(&m, 0xffffffff81000000, BP_REGION_NONE);
}

static void test_disk_boot(void **state)
{
	struct bp_region_map m;

	(void)state;
	expect_ok(bp_region_map_init(&m, 512 * MIB, NULL));
	expect(&m, 0x90200, BP_REGION_SETUP);
	expect(&m, 0x7c3e, BP_REGION_BOOT_SECTOR);
	expect(&m, 0x8200, BP_REGION_LOW_MEMORY);
	expect(&m, 0x10000, BP_REGION_LOW_MEMORY);
	expect(&m, 0x100000, BP_REGION_BOOT_LOADER);
}

static void expect_refused(const void *data, size_t len, enum bp_err_code code)
{
	struct bp_region_map m;
	struct bp_err *err;
	char path[64];

	write_temp(path, data, len);
	err = bp_region_map_init(&m, 512 * MIB, path);
	unlink(path);
	assert_non_null(err);
	assert_int_equal(bp_err_code(err), code);
	bp_err_free(err);
	assert_false(m.direct_boot);
	expect(&m, 0x1effb000, BP_REGION_SEABIOS);
}

static void test_bad_kernels(void **state)
{
	uint8_t header[0x400];
	struct bp_region_map m;
	struct bp_err *err;
	char path[64];

	(void)state;
	make_header(header, sizeof(header));
	expect_refused("", 0, BP_EUNSUPPORTED);
	expect_refused(header, 0x263, BP_EUNSUPPORTED);
	header[0x211] = 0; /* a zImage */
	expect_refused(header, sizeof(header), BP_EUNSUPPORTED);
	header[0x202] = 'x';
	expect_refused(header, sizeof(header), BP_EUNSUPPORTED);
	err = bp_region_map_init(&m, 512 * MIB, "/nonexistent/vmlinuz");
	assert_non_null(err);
	assert_int_equal(bp_err_code(err), BP_EOS);
	bp_err_free(err);

	/* Numbers that make no sense claim nothing. */
	make_header(header, sizeof(header));
	memset(header + 0x258, 0xff, 12);
	write_temp(path, header, sizeof(header));
	expect_ok(bp_region_map_init(&m, 512 * MIB, path));
	unlink(path);
	expect(&m, 0x431a000, BP_REGION_KERNEL_ENTRY);
}

static void test_real_kernel(void **state)
{
	const char *kernel = getenv("BOOTPROF_TEST_KERNEL");
	struct bp_region_map m;

	(void)state;
	if (!kernel || !*kernel) {
		print_message("BOOTPROF_TEST_KERNEL is not set\n");
		skip();
	}
	expect_ok(bp_region_map_init(&m, 512 * MIB, kernel));
	assert_true(m.direct_boot);
	expect(&m, 0x100000, BP_REGION_DECOMPRESSOR);
	/* Room for unpacking in place: the copy lies above the kernel's own start, below the end of RAM. */
	assert_true(m.decompressor_copy.start > 0x1000000);
	assert_true(m.decompressor_copy.end > m.decompressor_copy.start);
	assert_true(m.decompressor_copy.end < 512 * MIB);
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(bp_region_name(BP_REGION_SEABIOS), "SeaBIOS");
	assert_string_equal(bp_region_id(BP_REGION_SEABIOS), "seabios");
	for (int r = 0; r < BP_REGION_N; r++) {
		assert_non_null(bp_region_name(r));
		assert_non_null(bp_region_id(r));
	}
	assert_string_equal(bp_region_id(BP_REGION_N), "none");
	assert_string_equal(bp_region_id((enum bp_region) - 1), "none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_direct_boot), cmocka_unit_test(test_ram_sizes),
	    cmocka_unit_test(test_disk_boot),   cmocka_unit_test(test_bad_kernels),
	    cmocka_unit_test(test_real_kernel), cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests_name("regions", tests, NULL, NULL);
}
