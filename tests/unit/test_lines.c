// SPDX-License-Identifier: GPL-2.0-or-later
/* The test program itself has debug information, and knows its lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "symbols/kimage.h"
#include "symbols/lines.h"

extern const char __executable_start[]; /* from the linker: where the program begins in memory */

static volatile int sink;

static const int marked_number = __LINE__ + 1;
static __attribute__((noinline)) int marked_line(void)
{
	return sink + 1;
}

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

static void test_own_lines(void **state)
{
	uint64_t addr = (uint64_t)((uintptr_t)marked_line - (uintptr_t)__executable_start);
	struct bp_lines *l;
	const char *file, *again;
	int line;

	(void)state;
	sink = marked_line();
	expect_ok(bp_lines_open("/proc/self/exe", NULL, &l));
	for (int i = 0; i < 2; i++) {
		if (!bp_lines_find(l, addr, &file, &line))
			fail_msg("no line for %llx", (unsigned long long)addr);
		assert_in_range(line, marked_number, marked_number + 2);
		assert_string_equal(strrchr(file, '/') ? strrchr(file, '/') + 1 : file, "test_lines.c");
		assert_true(*file != '/' && !strstr(file, ".."));
	}
	assert_true(bp_lines_find(l, addr, &again, &line));
	assert_ptr_equal(file, again);
	assert_false(bp_lines_find(l, 0, &file, &line));
	assert_false(bp_lines_find(l, UINT64_MAX, &file, &line));
	assert_false(bp_lines_find(l, (uint64_t)1 << 40, &file, &line));
	bp_lines_destroy(l);
	bp_lines_destroy(NULL);
}

static void test_errors(void **state)
{
	char path[] = "/tmp/bootprof-test-XXXXXX";
	bp_autoclose int fd = mkstemp(path);
	struct bp_lines *l = NULL;

	(void)state;
	assert_true(fd >= 0);
	expect_err(bp_lines_open("/nowhere/vmlinux", NULL, &l), BP_EOS, "/nowhere/vmlinux: No such file");
	expect_err(bp_lines_open("/", NULL, &l), BP_EOS, "directory");
	expect_err(bp_lines_open(path, NULL, &l), BP_EDATA, "not an ELF file");
	assert_int_equal(write(fd, "hello, world", 12), 12);
	expect_err(bp_lines_open(path, NULL, &l), BP_EDATA, "not an ELF file");
	expect_err(bp_lines_open("/proc/self/exe", "abcdef", &l), BP_EUSAGE, "abcdef is needed");
	assert_null(l);
	unlink(path);
}

static void make_dirs(char *path)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
}

/* Needs the build-id that compilers of distributions put into every program. */
static void test_find_vmlinux(void **state)
{
	char root[] = "/tmp/bootprof-test-XXXXXX", path[300];
	const char *id;
	struct bp_kimage *k;
	char *found = NULL;

	(void)state;
	assert_non_null(mkdtemp(root));
	if (bp_kimage_open("/proc/self/exe", &k)) {
		rmdir(root);
		fail_msg("own program");
	}
	id = bp_kimage_build_id(k);
	if (!*id) {
		bp_kimage_destroy(k);
		rmdir(root);
		print_message("the test program has no build-id\n");
		skip();
	}
	expect_ok(bp_debug_vmlinux_find_under(root, id, "1.2", &found));
	assert_null(found);
	for (int i = 0; i < 2; i++) {
		if (i)
			snprintf(path, sizeof(path), "%s/usr/lib/debug/.build-id/%.2s/%s.debug", root, id,
				 id + 2);
		else
			snprintf(path, sizeof(path), "%s/boot/vmlinux-1.2", root);
		make_dirs(path);
		assert_int_equal(symlink("/proc/self/exe", path), 0);
		expect_ok(bp_debug_vmlinux_find_under(root, id, "1.2", &found));
		assert_string_equal(found, path);
		free(found);
	}
	/* Another build is not taken, and names with a path in them do not lead anywhere. */
	expect_ok(bp_debug_vmlinux_find_under(root, "00112233", "1.2", &found));
	assert_null(found);
	expect_ok(bp_debug_vmlinux_find_under(root, "", "1.2", &found));
	assert_null(found);
	expect_ok(bp_debug_vmlinux_find_under(root, "../../", "../1.2", &found));
	assert_null(found);
	bp_kimage_destroy(k);
	/* From the leaves up; what is left behind would be an empty directory. */
	for (int i = 0; i < 2; i++) {
		if (i)
			snprintf(path, sizeof(path), "%s/boot/vmlinux-1.2", root);
		unlink(path);
		for (char *p = strrchr(path, '/'); p > path + strlen(root) - 1; p = strrchr(path, '/')) {
			*p = '\0';
			rmdir(path);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_own_lines),
	    cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_find_vmlinux),
	};

	return cmocka_run_group_tests_name("lines", tests, NULL, NULL);
}
