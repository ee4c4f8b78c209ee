// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/err.h"

static void is(struct bp_err *err, enum bp_err_code code, const char *text)
{
	assert_int_equal(bp_err_code(err), code);
	assert_string_equal(bp_err_text(err), text);
	bp_err_free(err);
}

static void test_texts(void **state)
{
	(void)state;
	is(bp_err_new(BP_EUSAGE, "no such view: %s", "moon"), BP_EUSAGE, "no such view: moon");
	is(bp_err_os(ENOENT, "%s: cannot open", "a"), BP_EOS, "a: cannot open: No such file or directory");
	is(bp_err_data("f", 12, "bad %d", 3), BP_EDATA, "f: offset 12: bad 3");
	is(bp_err_data("f", UINT64_MAX - 1, "x"), BP_EDATA, "f: offset 18446744073709551614: x");
	is(bp_err_data("f", BP_NO_OFFSET, "bad"), BP_EDATA, "f: bad");
}

static void test_wrap(void **state)
{
	struct bp_err *err = bp_err_new(BP_EUNSUPPORTED, "inner");

	(void)state;
	err = bp_err_wrap(err, "middle %d", 1);
	err = bp_err_wrap(err, "outer");
	is(err, BP_EUNSUPPORTED, "outer: middle 1: inner");
}

/* File names and guest words must not reach a terminal as they are. */
static void test_printable(void **state)
{
	struct bp_err *err = bp_err_new(BP_EUSAGE, "a\nb\x1b[31m\x7f%s", "\t");

	(void)state;
	for (const char *s = bp_err_text(err); *s; s++)
		assert_true((unsigned char)*s >= 0x20 && *s != 0x7f);
	bp_err_free(err);
	err = bp_err_wrap(bp_err_new(BP_EUSAGE, "x"), "a\nb");
	assert_null(strchr(bp_err_text(err), '\n'));
	bp_err_free(err);
}

static void test_long(void **state)
{
	char *text = malloc(5000);
	struct bp_err *err;

	(void)state;
	memset(text, 'y', 4999);
	text[4999] = '\0';
	err = bp_err_new(BP_EUSAGE, "%s", text);
	assert_in_range(strlen(bp_err_text(err)), 1000, 1024);
	err = bp_err_wrap(err, "%s", text);
	assert_in_range(strlen(bp_err_text(err)), 1000, 1024);
	bp_err_free(err);
	err = bp_err_os(EIO, "%s", text);
	assert_in_range(strlen(bp_err_text(err)), 1000, 1024);
	bp_err_free(err);
	err = bp_err_data(text, 1, "%s", text);
	assert_in_range(strlen(bp_err_text(err)), 1000, 1024);
	bp_err_free(err);
	free(text);
}

static void test_no_memory(void **state)
{
	struct bp_err *err = bp_err_nomem();

	(void)state;
	assert_int_equal(bp_err_code(err), BP_ENOMEM);
	assert_string_equal(bp_err_text(err), "out of memory");
	bp_err_free(err);
	assert_ptr_equal(bp_err_wrap(err, "more"), err);
	assert_string_equal(bp_err_text(err), "out of memory");
	bp_err_ignore(err);
	bp_err_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_texts), cmocka_unit_test(test_wrap),      cmocka_unit_test(test_printable),
	    cmocka_unit_test(test_long),  cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
