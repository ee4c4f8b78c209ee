// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/strbuf.h"

static void test_growing(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_err *err;

	(void)state;
	assert_string_equal(bp_strbuf_str(&sb), "");
	bp_strbuf_add(&sb, NULL, 0);
	assert_string_equal(bp_strbuf_str(&sb), "");
	bp_strbuf_adds(&sb, "ab");
	bp_strbuf_addc(&sb, 'c');
	bp_strbuf_addf(&sb, "%d-%s", 12, "x");
	bp_strbuf_addf(&sb, "%s", "");
	assert_string_equal(bp_strbuf_str(&sb), "abc12-x");
	assert_int_equal(sb.len, 7);
	for (unsigned i = 0; i < 10000; i++)
		bp_strbuf_addf(&sb, "%u,", i);
	assert_int_equal(sb.len, 7 + 10 * 2 + 90 * 3 + 900 * 4 + 9000 * 5);
	assert_int_equal(strlen(sb.data), sb.len);
	err = bp_strbuf_ok(&sb);
	assert_null(err);
	bp_strbuf_clear(&sb);
	assert_string_equal(bp_strbuf_str(&sb), "");
	bp_strbuf_add(&sb, "a\0b", 3);
	assert_int_equal(sb.len, 3);
	assert_memory_equal(sb.data, "a\0b", 4);
	bp_strbuf_deinit(&sb);
	assert_int_equal(sb.len, 0);
	bp_strbuf_deinit(&sb);
}

/* What does not fit is dropped, and said once at the end. */
static void test_failure(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;

	(void)state;
	bp_strbuf_adds(&sb, "ab");
	bp_strbuf_add(&sb, "x", SIZE_MAX);
	bp_strbuf_adds(&sb, "cd");
	bp_strbuf_addf(&sb, "%d", 1);
	assert_string_equal(bp_strbuf_str(&sb), "ab");
	{
		struct bp_err *err = bp_strbuf_ok(&sb);

		assert_int_equal(bp_err_code(err), BP_ENOMEM);
		bp_err_free(err);
	}
	bp_strbuf_clear(&sb);
	bp_strbuf_adds(&sb, "ok");
	assert_string_equal(bp_strbuf_str(&sb), "ok");
	bp_strbuf_deinit(&sb);
}

typedef void sink_fn(struct bp_strbuf *sb, const char *s, size_t len);

static void sinks_to(sink_fn *sink, const char *in, size_t len, const char *want)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;

	sink(&sb, in, len);
	assert_string_equal(bp_strbuf_str(&sb), want);
	bp_strbuf_deinit(&sb);
}

#define TERM(in, want) sinks_to(bp_strbuf_add_term, in, sizeof(in) - 1, want)
#define JSON(in, want) sinks_to(bp_strbuf_add_json, in, sizeof(in) - 1, want)
#define CSV(in, want) sinks_to(bp_strbuf_add_csv, in, sizeof(in) - 1, want)

static void test_term(void **state)
{
	(void)state;
	TERM("", "");
	TERM("start_kernel+0x10", "start_kernel+0x10");
	TERM("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7",
	     "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7");
	TERM("a\x1b[31mb\n\t\x7f", "a\\x1b[31mb\\x0a\\x09\\x7f");
	TERM("a\0b", "a\\x00b");
	TERM("\xc2\x9b"
	     "31m",
	     "\\xc2\\x9b31m"); /* C1: CSI */
	TERM("\xe2\x80\xae"
	     "abc",
	     "\\xe2\\x80\\xaeabc");              /* right-to-left override */
	TERM("\xe2\x81\xa6", "\\xe2\\x81\\xa6"); /* isolate */
	TERM("\xef\xbb\xbf", "\\xef\\xbb\\xbf"); /* byte order mark */
	TERM("\xff\xfe", "\\xff\\xfe");
	TERM("\x80", "\\x80");
	TERM("\xc0\xaf", "\\xc0\\xaf"); /* overlong */
	TERM("\xe0\x80\xaf", "\\xe0\\x80\\xaf");
	TERM("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* surrogate */
	TERM("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* beyond U+10FFFF */
	TERM("\xe2\x82", "\\xe2\\x82");                   /* cut short */
	TERM("\xe2"
	     "A",
	     "\\xe2"
	     "A");
}

static void test_json(void **state)
{
	(void)state;
	JSON("", "");
	JSON("a\"b\\c", "a\\\"b\\\\c");
	JSON("a\n\x1b\0", "a\\u000a\\u001b\\u0000");
	JSON("\xff", "\\ufffd");
	JSON("\xe2\x82\xac", "\xe2\x82\xac");
	JSON("\xe2\x80\xa8", "\\u2028");
	JSON("\xe2\x80\xae", "\\u202e");
	JSON("\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd");
	JSON("\xf0\x9f\x90\xa7", "\xf0\x9f\x90\xa7");
}

static void test_csv(void **state)
{
	(void)state;
	CSV("", "\"\"");
	CSV("a,b", "\"a,b\"");
	CSV("say \"x\"", "\"say \"\"x\"\"\"");
	CSV("=1+1", "\"'=1+1\"");
	CSV("+1", "\"'+1\"");
	CSV("-1", "\"'-1\"");
	CSV("@x", "\"'@x\"");
	CSV("a=1", "\"a=1\"");
	CSV("a\nb", "\"a\\x0ab\"");
	CSV("\xff", "\"\\xff\"");
}

static void test_markup(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;

	(void)state;
	bp_strbuf_add_xml(&sb, "<a b='\"'>&\033\0x\xef\xbf\xbf", 16);
	assert_string_equal(bp_strbuf_str(&sb),
			    "&#60;a b=&#39;&#34;&#39;&#62;&#38;\\x1b\\x00x\\xef\\xbf\\xbf");
	bp_strbuf_clear(&sb);
	bp_strbuf_add_markdown(&sb, "a|b\n@x <i> __init", 17);
	assert_string_equal(bp_strbuf_str(&sb), "a&#124;b&#92;x0a&#64;x &#60;i&#62; &#95;&#95;init");
	bp_strbuf_deinit(&sb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_markup),
	    cmocka_unit_test(test_growing), cmocka_unit_test(test_failure), cmocka_unit_test(test_term),
	    cmocka_unit_test(test_json),    cmocka_unit_test(test_csv),
	};

	return cmocka_run_group_tests_name("strbuf", tests, NULL, NULL);
}
