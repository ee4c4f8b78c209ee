// SPDX-License-Identifier: GPL-2.0-or-later
/* Numbers for people, tables fitted to a width, JSON and CSV with every kind of bad text. */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "core/report.h"
#include "core/units.h"

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static void test_units(void **state)
{
	static const struct {
		int64_t ns;
		const char *text;
	} ns[] = {
	    {0, "0 ns"},
	    {999, "999 ns"},
	    {1000, "1.000 us"},
	    {99994, "99.99 us"},
	    {99995, "100.0 us"},
	    {999949, "999.9 us"},
	    {999950, "1.000 ms"},
	    {12345678, "12.35 ms"},
	    {999999999, "1.000 s"},
	    {123456789012, "123.5 s"},
	    {1234567890123, "1235 s"},
	    {-1234567, "-1.235 ms"},
	    {INT64_MAX, "9223372037 s"},
	    {INT64_MIN, "-9223372037 s"},
	};
	static const struct {
		uint64_t n;
		const char *text;
	} counts[] = {
	    {0, "0"},          {99999, "99999"},    {100000, "100k"},      {999499, "999k"},
	    {999500, "1.00M"}, {12345678, "12.3M"}, {1234567890, "1.23G"},
	};
	char buf[BP_UNITS_MAX];

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(ns); i++)
		assert_string_equal(bp_units_ns(buf, ns[i].ns), ns[i].text);
	for (size_t i = 0; i < BP_ARRAY_SIZE(counts); i++)
		assert_string_equal(bp_units_count(buf, counts[i].n), counts[i].text);
	assert_string_equal(bp_units_icount(buf, -12345678), "-12.3M");
	assert_string_equal(bp_units_bytes(buf, 1023), "1023 B");
	assert_string_equal(bp_units_bytes(buf, 1024), "1.00 KiB");
	assert_string_equal(bp_units_bytes(buf, 1048575), "1.00 MiB");
	assert_string_equal(bp_units_bytes(buf, UINT64_MAX), "16777216 TiB");
	assert_string_equal(bp_units_pct(buf, 99.96), "100.0%");
	assert_string_equal(bp_units_pct(buf, -0.26), "-0.3%");
	assert_string_equal(bp_units_pct(buf, (double)NAN), "-");
	assert_string_equal(bp_units_ratio(buf, 355, 113), "3.14");
	assert_string_equal(bp_units_ratio(buf, 1, 0), "-");
}

static const struct bp_col cols[] = {
    {"percent", "SELF%", BP_COL_PERCENT, BP_COL_TEXT, false},
    {"self_ns", "SELF", BP_COL_NS, BP_COL_BOTH, false},
    {"calls", "CALLS", BP_COL_COUNT, BP_COL_BOTH, false},
    {"name", "FUNCTION", BP_COL_STR, BP_COL_BOTH, true},
    {"module", "MODULE", BP_COL_STR, BP_COL_BOTH, false},
    {"addr", "ADDRESS", BP_COL_HEX, BP_COL_DATA, false},
};

static void add_row(struct bp_table *t, unsigned depth, double pct, int64_t ns, uint64_t calls,
		    const char *name, const char *module)
{
	/* Both ways to say how deep a row is. */
	if (depth & 1)
		bp_table_row(t);
	bp_table_row_depth(t, depth);
	bp_table_pct(t, pct);
	bp_table_i64(t, ns);
	bp_table_u64(t, calls);
	bp_table_str(t, name);
	bp_table_str(t, module);
	bp_table_u64(t, 0xffffffff81000000);
}

static struct bp_report *make(void)
{
	struct bp_report *r;
	struct bp_table *t;

	ok(bp_report_create("functions", BP_CLOCK_TIME, &r));
	bp_report_title(r, "Functions of %s", "x\033[31m\ny");
	bp_report_scalar(r, "unaccounted_ns", -5);
	t = bp_report_table(r, "functions", NULL, cols, BP_ARRAY_SIZE(cols));
	add_row(t, 0, 50, 1234567, 3, "start_kernel", NULL);
	add_row(t, 1, 12.34, -5, 12345678, "a\xff\"b\n", "/usr/lib/x86_64-linux-gnu/libc.so.6");
	add_row(t, 2, 5, 7, 0, "=cmd()", "\xc3\xa4");
	bp_table_row(t);
	for (size_t i = 0; i < BP_ARRAY_SIZE(cols); i++)
		bp_table_none(t);
	assert_int_equal(bp_table_n_rows(t), 4);
	t = bp_report_table(r, "more", "More", cols, 1);
	bp_table_row(t);
	bp_table_pct(t, (double)INFINITY);
	bp_report_note(r, "one two three four five six seven eight");
	ok(bp_report_finish(r));
	return r;
}

static char *render(const struct bp_report *r, const struct bp_render *how)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	ok(bp_report_render(r, how, f));
	assert_int_equal(fclose(f), 0);
	return text;
}

static void expect(struct bp_report *r, const struct bp_render *how, const char *want)
{
	char *text = render(r, how);

	assert_string_equal(text, want);
	free(text);
}

static void test_text(void **state)
{
	struct bp_report *r = make();

	(void)state;
	expect(r, &(struct bp_render){.utf8 = true},
	       "Functions of x\\x1b[31m\\x0ay\n"
	       "\n"
	       "SELF%      SELF  CALLS  FUNCTION       MODULE\n"
	       "50.0%  1.235 ms      3  start_kernel\n"
	       "12.3%     -5 ns  12.3M    a\\xff\"b\\x0a  /usr/lib/x86_64-linux-gnu/libc.so.6\n"
	       " 5.0%      7 ns      0      =cmd()     \xc3\xa4\n"
	       "    -         -      -\n"
	       "\n"
	       "More\n"
	       "SELF%\n"
	       "    -\n"
	       "\n"
	       "one two three four five six seven eight\n");
	/* Numbers stay, text gives way; a path keeps its end. */
	expect(r, &(struct bp_render){.width = 45, .max_rows = 2},
	       "Functions of x\\x1b[31m\\x0ay\n"
	       "\n"
	       "SELF%      SELF  CALLS  FUNCTION   MODULE\n"
	       "50.0%  1.235 ms      3  start_k..\n"
	       "12.3%     -5 ns  12.3M    a\\xff..  ..ibc.so.6\n"
	       "... 2 more rows\n"
	       "\n"
	       "More\n"
	       "SELF%\n"
	       "    -\n"
	       "\n"
	       "one two three four five six seven eight\n");
	bp_report_destroy(r);
}

static void test_width(void **state)
{
	struct bp_report *r = make();

	(void)state;
	/* Nothing but escapes of colours may make a line longer than the terminal, as long as numbers fit. */
	for (unsigned width = 46; width < 100; width++) {
		struct bp_render how = {.width = width, .utf8 = width & 1};
		char *text = render(r, &how);

		for (char *line = text, *end; *line; line = end + 1) {
			size_t n = 0;

			end = strchr(line, '\n');
			assert_non_null(end);
			for (const char *p = line; p < end; p++)
				n += (*p & 0xc0) != 0x80;
			assert_true(n <= width);
			if (!how.utf8)
				for (const char *p = line; p < end; p++)
					assert_true(*p > 0);
		}
		free(text);
	}
	bp_report_destroy(r);
}

static void test_deep(void **state)
{
	struct bp_report *r;
	struct bp_table *t;
	char *text;

	(void)state;
	ok(bp_report_create("tree", BP_CLOCK_INSNS, &r));
	t = bp_report_table(r, "tree", NULL, cols, BP_ARRAY_SIZE(cols));
	for (unsigned depth = 0; depth < 300; depth++)
		add_row(t, depth, 1, 1, 1, "some_function", "vmlinux");
	ok(bp_report_finish(r));
	text = render(r, &(struct bp_render){.width = 80});
	assert_non_null(strstr(text, " 299> some_"));
	free(text);
	bp_report_destroy(r);
}

static void test_color(void **state)
{
	struct bp_report *r = make();
	char *text = render(r, &(struct bp_render){.color = true});

	(void)state;
	assert_non_null(strstr(text, "\033[1m"));
	assert_non_null(strstr(text, "\033[31m50.0%\033[0m"));
	/* The guest's own escape is not one. */
	assert_non_null(strstr(text, "x\\x1b[31m"));
	free(text);
	bp_report_destroy(r);
}

static void test_json(void **state)
{
	struct bp_report *r = make();

	(void)state;
	expect(r, &(struct bp_render){.format = BP_FORMAT_JSON},
	       "{\"schema\":\"bootprof-report/1\",\"view\":\"functions\",\"clock\":\"time\",\n"
	       "\"unaccounted_ns\":-5,\n"
	       "\"rows\":[\n"
	       "{\"depth\":0,\"self_ns\":1234567,\"calls\":3,\"name\":\"start_kernel\",\"module\":null,"
	       "\"addr\":\"0xffffffff81000000\"},\n"
	       "{\"depth\":1,\"self_ns\":-5,\"calls\":12345678,\"name\":\"a\\ufffd\\\"b\\u000a\","
	       "\"module\":\"/usr/lib/x86_64-linux-gnu/libc.so.6\",\"addr\":\"0xffffffff81000000\"},\n"
	       "{\"depth\":2,\"self_ns\":7,\"calls\":0,\"name\":\"=cmd()\",\"module\":\"\xc3\xa4\","
	       "\"addr\":\"0xffffffff81000000\"},\n"
	       "{\"depth\":0,\"self_ns\":null,\"calls\":null,\"name\":null,\"module\":null,\"addr\":null}],\n"
	       "\"tables\":{\n"
	       "\"more\":[\n"
	       "{}]},\n"
	       "\"notes\":[\n"
	       "\"one two three four five six seven eight\"]}\n");
	bp_report_destroy(r);
}

static void test_csv(void **state)
{
	struct bp_report *r = make();

	(void)state;
	expect(r, &(struct bp_render){.format = BP_FORMAT_CSV},
	       "depth,self_ns,calls,name,module,addr\n"
	       "0,1234567,3,\"start_kernel\",,\"0xffffffff81000000\"\n"
	       "1,-5,12345678,\"a\\xff\"\"b\\x0a\",\"/usr/lib/x86_64-linux-gnu/"
	       "libc.so.6\",\"0xffffffff81000000\"\n"
	       "2,7,0,\"'=cmd()\",\"\xc3\xa4\",\"0xffffffff81000000\"\n"
	       "0,,,,,\n");
	bp_report_destroy(r);
}

static void test_empty(void **state)
{
	struct bp_report *r;

	(void)state;
	ok(bp_report_create("modules", BP_CLOCK_INSNS, &r));
	ok(bp_report_finish(r));
	expect(r, &(struct bp_render){.format = BP_FORMAT_JSON},
	       "{\"schema\":\"bootprof-report/"
	       "1\",\"view\":\"modules\",\"clock\":\"insns\",\n\"rows\":[],\n\"notes\":[]}\n");
	expect(r, &(struct bp_render){.format = BP_FORMAT_CSV}, "");
	expect(r, &(struct bp_render){.format = BP_FORMAT_TEXT}, "");
	bp_report_table(r, "modules", NULL, cols + 1, 1);
	expect(r, &(struct bp_render){.format = BP_FORMAT_TEXT}, "SELF\n(nothing)\n");
	bp_report_destroy(r);
}

static void test_full_disk(void **state)
{
	struct bp_report *r = make();
	FILE *f = fopen("/dev/full", "w");
	struct bp_err *err;

	(void)state;
	assert_non_null(f);
	err = bp_report_render(r, &(struct bp_render){.format = BP_FORMAT_JSON}, f);
	assert_non_null(err);
	assert_int_equal(bp_err_code(err), BP_EOS);
	bp_err_free(err);
	fclose(f);
	bp_report_destroy(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_units), cmocka_unit_test(test_text),  cmocka_unit_test(test_width),
	    cmocka_unit_test(test_deep),  cmocka_unit_test(test_color), cmocka_unit_test(test_json),
	    cmocka_unit_test(test_csv),   cmocka_unit_test(test_empty), cmocka_unit_test(test_full_disk),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
