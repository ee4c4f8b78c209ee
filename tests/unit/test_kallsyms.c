// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "symbols/kallsyms.h"
#include "tests/unit/kernel_image.h"

static void expect_ok(struct bp_err *err)
{
	if (err)
		fail_msg("%s", bp_err_text(err));
}

static void expect_syms(const struct bp_kallsyms *ks, const struct ki_sym *want, size_t n)
{
	assert_int_equal(ks->count, n);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(ks->syms[i].name, want[i].name);
		assert_int_equal(ks->syms[i].addr, want[i].addr);
		assert_int_equal(ks->syms[i].type, want[i].type);
	}
}

/* Zero bytes, text and numbers around the tables, none of which may be taken for one. */
static void put_noise(struct bp_strbuf *sb)
{
	ki_put64(sb, 0);
	ki_put64(sb, 3);
	bp_strbuf_adds(sb, "0 1 2 3 4 5");
	ki_pad(sb, 8);
	for (unsigned i = 0; i < 64; i++)
		ki_put16(sb, (uint16_t)(i * 7));
	ki_put64(sb, KI_TEXT);
}

static void roundtrip(enum ki_layout layout, bool percpu_absolute)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_kallsyms ks = {0};
	size_t n;
	bp_autofree struct ki_sym *all = ki_syms(&n);
	/* Without absolute addresses there are no per-CPU symbols in front. */
	struct ki_sym *syms = percpu_absolute ? all : all + 2;

	n -= percpu_absolute ? 0 : 2;
	assert_true(n > 256);
	put_noise(&sb);
	ki_put_kallsyms(&sb, syms, n, layout, percpu_absolute);
	put_noise(&sb);
	expect_ok(bp_kallsyms_decode(sb.data, sb.len, "test", 0, &ks));
	expect_syms(&ks, syms, n);
	bp_kallsyms_deinit(&ks);
	bp_strbuf_deinit(&sb);
}

static void test_layouts(void **state)
{
	(void)state;
	roundtrip(KI_LAYOUT_OLD, true);
	roundtrip(KI_LAYOUT_OLD, false);
	roundtrip(KI_LAYOUT_NEW, true);
	roundtrip(KI_LAYOUT_NEW, false);
}

/* Names of a multiple of 256, and fewer than 256: the markers have nothing over, and only one. */
static void test_counts(void **state)
{
	static const size_t counts[] = {1, 2, 7, 255, 256, 257};
	size_t n;
	bp_autofree struct ki_sym *syms = ki_syms(&n);

	(void)state;
	for (size_t i = 0; i < 2 * BP_ARRAY_SIZE(counts); i++) {
		size_t count = counts[i / 2];
		struct bp_strbuf sb = BP_STRBUF_INIT;
		struct bp_kallsyms ks = {0};

		ki_put_kallsyms(&sb, syms + 2, count, i % 2 ? KI_LAYOUT_OLD : KI_LAYOUT_NEW, false);
		expect_ok(bp_kallsyms_decode(sb.data, sb.len, "test", 0, &ks));
		expect_syms(&ks, syms + 2, count);
		bp_kallsyms_deinit(&ks);
		bp_strbuf_deinit(&sb);
	}
}

static void test_nothing_there(void **state)
{
	struct bp_kallsyms ks = {.count = 1};
	struct bp_strbuf sb = BP_STRBUF_INIT;

	(void)state;
	expect_ok(bp_kallsyms_decode("", 0, "test", 0, &ks));
	assert_int_equal(ks.count, 0);
	for (int i = 0; i < 100; i++)
		put_noise(&sb);
	expect_ok(bp_kallsyms_decode(sb.data, sb.len, "test", 0, &ks));
	assert_int_equal(ks.count, 0);
	bp_strbuf_deinit(&sb);
}

static void test_unknown_layout(void **state)
{
	struct bp_kallsyms ks = {0};
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_err *err;
	size_t n;
	bp_autofree struct ki_sym *syms = ki_syms(&n);

	(void)state;
	ki_put_kallsyms(&sb, syms, n, KI_LAYOUT_NEW, true);
	/* Without the addresses there is a token table that leads nowhere. */
	err = bp_kallsyms_decode(sb.data, sb.len - 4 * n - 8, "test", 0x1000, &ks);
	assert_non_null(err);
	assert_int_equal(bp_err_code(err), BP_EUNSUPPORTED);
	assert_non_null(strstr(bp_err_text(err), "test"));
	bp_err_free(err);
	bp_strbuf_deinit(&sb);
}

/* Cut off anywhere, and with any bit wrong: a table that is consistent, or none. */
static void test_damage(void **state)
{
	size_t n;
	bp_autofree struct ki_sym *syms = ki_syms(&n);

	(void)state;
	for (int layout = 0; layout < 2; layout++) {
		struct bp_strbuf sb = BP_STRBUF_INIT;

		ki_put_kallsyms(&sb, syms, 20, (enum ki_layout)layout, true);
		for (size_t len = 0; len < sb.len; len++) {
			bp_autofree uint8_t *copy = malloc(len ? len : 1);
			struct bp_kallsyms ks = {0};
			struct bp_err *err;

			assert_non_null(copy);
			memcpy(copy, sb.data, len);
			err = bp_kallsyms_decode(copy, len, "test", 0, &ks);
			assert_int_equal(ks.count, 0);
			bp_err_free(err);
		}
		for (size_t bit = 0; bit < 8 * sb.len; bit++) {
			struct bp_kallsyms ks = {0};

			sb.data[bit / 8] ^= (char)(1 << bit % 8);
			bp_err_free(bp_kallsyms_decode(sb.data, sb.len, "test", 0, &ks));
			for (size_t i = 0; i < ks.count; i++) {
				assert_true(!i || ks.syms[i].addr >= ks.syms[i - 1].addr);
				assert_true(strlen(ks.syms[i].name) < 1024);
			}
			bp_kallsyms_deinit(&ks);
			sb.data[bit / 8] ^= (char)(1 << bit % 8);
		}
		bp_strbuf_deinit(&sb);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_layouts),       cmocka_unit_test(test_counts),
	    cmocka_unit_test(test_nothing_there), cmocka_unit_test(test_unknown_layout),
	    cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests_name("kallsyms", tests, NULL, NULL);
}
