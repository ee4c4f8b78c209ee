// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "symbols/btf.h"
#include "tests/unit/kernel_image.h"

static struct bp_btf *open_ok(const struct bp_strbuf *sb)
{
	struct bp_btf *btf = NULL;
	struct bp_err *err = bp_btf_open(sb->data, sb->len, "test", 0, &btf);

	if (err)
		fail_msg("%s", bp_err_text(err));
	return btf;
}

static void test_members(void **state)
{
	static const struct {
		const char *path;
		int64_t offset;
	} members[] = {
	    {"first", 0},
	    {"arr", 4},
	    {"arr[0]", 4},
	    {"arr[2].b", 4 + 2 * 8 + 4},
	    {"x", 28},
	    {"y", 28},
	    {"z", 32},
	    {"next", 40},
	    {"flex", 56},
	    {"flex[0]", 56},
	    /* none of these is there */
	    {"", -1},
	    {".", -1},
	    {"firs", -1},
	    {"first2", -1},
	    {"first.x", -1},
	    {"first[0]", -1},
	    {"arr[3]", -1},
	    {"arr[-1]", -1},
	    {"arr[+1]", -1},
	    {"arr[ 1]", -1},
	    {"arr[]", -1},
	    {"arr[1", -1},
	    {"arr[1]b", -1},
	    {"arr[1].", -1},
	    {"arr[99999999999999999999]", -1},
	    {"arr.a", -1},
	    {"next.first", -1}, /* through a pointer */
	    {"low", -1},        /* bit-field */
	    {"flex[1]", -1},
	};
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_btf *btf;

	(void)state;
	ki_put_btf(&sb);
	btf = open_ok(&sb);
	for (size_t i = 0; i < BP_ARRAY_SIZE(members); i++)
		if (bp_btf_offset(btf, "outer", members[i].path) != members[i].offset)
			fail_msg("\"%s\": %lld", members[i].path,
				 (long long)bp_btf_offset(btf, "outer", members[i].path));
	assert_int_equal(bp_btf_offset(btf, "inner", "b"), 4);
	assert_int_equal(bp_btf_offset(btf, "inner_t", "b"), -1);
	assert_int_equal(bp_btf_offset(btf, "u32", "b"), -1);
	assert_int_equal(bp_btf_offset(btf, "nowhere", "b"), -1);
	assert_int_equal(bp_btf_sizeof(btf, "outer"), 56);
	assert_int_equal(bp_btf_sizeof(btf, "inner"), 8);
	assert_int_equal(bp_btf_sizeof(btf, "nowhere"), -1);
	assert_int_equal(bp_btf_offset(NULL, "outer", "first"), -1);
	assert_int_equal(bp_btf_sizeof(NULL, "outer"), -1);
	bp_btf_destroy(btf);
	bp_strbuf_deinit(&sb);
}

static void ask_all(const struct bp_btf *btf)
{
	bp_btf_offset(btf, "outer", "arr[2].b");
	bp_btf_offset(btf, "outer", "z");
	bp_btf_offset(btf, "outer", "flex[0]");
	bp_btf_offset(btf, "outer", "none");
	bp_btf_sizeof(btf, "inner");
}

static void test_damage(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_btf *btf;

	(void)state;
	ki_put_btf(&sb);
	for (size_t len = 0; len < sb.len; len++) {
		bp_autofree uint8_t *copy = malloc(len ? len : 1);
		struct bp_err *err;

		assert_non_null(copy);
		memcpy(copy, sb.data, len);
		err = bp_btf_open(copy, len, "test", 0, &btf);
		assert_non_null(err);
		assert_int_equal(bp_err_code(err), BP_EDATA);
		bp_err_free(err);
	}
	for (size_t bit = 0; bit < 8 * sb.len; bit++) {
		btf = NULL;
		sb.data[bit / 8] ^= (char)(1 << bit % 8);
		bp_err_free(bp_btf_open(sb.data, sb.len, "test", 0, &btf));
		if (btf)
			ask_all(btf);
		bp_btf_destroy(btf);
		sb.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	bp_strbuf_deinit(&sb);
}

/* A struct whose unnamed member is itself, and a typedef of itself. */
static void test_loops(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_btf *btf;

	(void)state;
	ki_put16(&sb, 0xeb9f);
	ki_put16(&sb, 1);
	ki_put32(&sb, 24);
	ki_put32(&sb, 0);
	ki_put32(&sb, 24 + 12 + 12);
	ki_put32(&sb, 24 + 12 + 12);
	ki_put32(&sb, 5);
	ki_put_type(&sb, 1, 4, 2, 8);
	ki_put_member(&sb, 0, 1, 0);
	ki_put_member(&sb, 3, 2, 0);
	ki_put_type(&sb, 3, 8, 0, 2);
	bp_strbuf_add(&sb, "\0s\0t\0", 5);
	btf = open_ok(&sb);
	assert_int_equal(bp_btf_offset(btf, "s", "none"), -1);
	assert_int_equal(bp_btf_offset(btf, "s", "t"), -1);
	assert_int_equal(bp_btf_sizeof(btf, "s"), 8);
	bp_btf_destroy(btf);
	bp_strbuf_deinit(&sb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_members),
	    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_loops),
	};

	return cmocka_run_group_tests_name("btf", tests, NULL, NULL);
}
