// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/buf.h"

static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void test_numbers(void **state)
{
	struct bp_buf b = bp_buf_make(bytes, sizeof(bytes), "f", 0);
	struct bp_err *err;

	(void)state;
	assert_int_equal(bp_buf_u8(&b), 1);
	assert_int_equal(bp_buf_u16(&b), 0x0302);
	assert_int_equal(bp_buf_u32(&b), 0x07060504);
	assert_int_equal(bp_buf_u64(&b), 0x0f0e0d0c0b0a0908);
	assert_int_equal(bp_buf_left(&b), 0);
	err = bp_buf_err(&b, "thing");
	assert_null(err);
}

/* The first short read is what the error tells of, and everything after it is zero. */
static void test_past_the_end(void **state)
{
	struct bp_buf b = bp_buf_make(bytes, 6, "f", 100);
	struct bp_err *err;

	(void)state;
	assert_int_equal(bp_buf_u32(&b), 0x04030201);
	assert_int_equal(bp_buf_u32(&b), 0);
	assert_int_equal(bp_buf_u8(&b), 0);
	assert_null(bp_buf_take(&b, 0));
	assert_int_equal(bp_buf_varint(&b), 0);
	assert_true(b.bad);
	err = bp_buf_err(&b, "thing");
	assert_non_null(err);
	assert_int_equal(bp_err_code(err), BP_EDATA);
	assert_string_equal(bp_err_text(err), "f: offset 104: thing ends early or is corrupt");
	bp_err_free(err);
}

static void test_take(void **state)
{
	struct bp_buf b = bp_buf_make(bytes, 6, "f", 0);

	(void)state;
	assert_ptr_equal(bp_buf_take(&b, 0), bytes);
	assert_ptr_equal(bp_buf_take(&b, 6), bytes);
	assert_ptr_equal(bp_buf_take(&b, 0), bytes + 6);
	assert_false(b.bad);
	b.pos = 3;
	assert_null(bp_buf_take(&b, SIZE_MAX));
	assert_true(b.bad);
	b = bp_buf_make(NULL, 0, "f", 0);
	assert_int_equal(bp_buf_u64(&b), 0);
	assert_true(b.bad);
}

static uint64_t varint(const char *data, size_t len, size_t *used, bool *bad)
{
	struct bp_buf b = bp_buf_make(data, len, "f", 0);
	uint64_t v = bp_buf_varint(&b);

	*used = b.pos;
	*bad = b.bad;
	return v;
}

static void test_varint(void **state)
{
	size_t used;
	bool bad;

	(void)state;
	assert_int_equal(varint("\x00", 1, &used, &bad), 0);
	assert_int_equal(used, 1);
	assert_int_equal(varint("\x7f", 1, &used, &bad), 127);
	assert_int_equal(varint("\x80\x01", 2, &used, &bad), 128);
	assert_int_equal(used, 2);
	assert_int_equal(varint("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, &used, &bad), UINT64_MAX);
	assert_int_equal(used, 10);
	assert_false(bad);
	/* No end: after ten bytes, or at the end of the data. */
	varint("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11, &used, &bad);
	assert_true(bad);
	assert_int_equal(varint("\x80\x80", 2, &used, &bad), 0);
	assert_true(bad);
	varint("", 0, &used, &bad);
	assert_true(bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_numbers),
	    cmocka_unit_test(test_past_the_end),
	    cmocka_unit_test(test_take),
	    cmocka_unit_test(test_varint),
	};

	return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
