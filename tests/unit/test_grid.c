// SPDX-License-Identifier: GPL-2.0-or-later
/* The grid: what of a guest's text may be seen, where it is cut, and that nothing is written outside. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tui/grid.h"

static void make(struct bp_grid *g, unsigned w, unsigned h)
{
	memset(g, 0, sizeof(*g));
	assert_null(bp_grid_resize(g, w, h));
}

static void shows(const struct bp_grid *g, const char *want)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;

	bp_grid_dump(g, &sb);
	assert_string_equal(bp_strbuf_str(&sb), want);
	bp_strbuf_deinit(&sb);
}

/* The one line of a grid after @text was put into it; the grid's frame must stay as it was. */
static void line(bool ascii, int width, const char *text, const char *want)
{
	struct bp_grid g;

	make(&g, 40, 3);
	g.ascii = ascii;
	bp_grid_fill(&g, 0, 0, 40, '.', BP_STYLE_TEXT);
	bp_grid_fill(&g, 0, 2, 40, '.', BP_STYLE_TEXT);
	bp_grid_put(&g, width, 1, '|', BP_STYLE_TEXT);
	assert_true(bp_grid_text(&g, 0, 1, width, BP_STYLE_TEXT, text) <= width);
	for (unsigned x = 0; x < g.w; x++) {
		assert_int_equal(g.cells[x].ch, '.');
		assert_int_equal(g.cells[2 * g.w + x].ch, '.');
	}
	assert_int_equal(g.cells[g.w + (unsigned)width].ch, '|');
	for (unsigned i = 0; i < g.w; i++)
		g.cells[i].ch = g.cells[2 * g.w + i].ch = ' ';
	g.cells[g.w + (unsigned)width].ch = ' ';
	{
		char all[256];

		snprintf(all, sizeof(all), "\n%s\n\n", want);
		shows(&g, all);
	}
	bp_grid_deinit(&g);
}

static void untrusted(void **state)
{
	(void)state;
	line(false, 30, "plain", "plain");
	line(false, 30, "\033[31mred\a\r\n", "\\x1b[31mred\\x07\\x0d\\x0a");
	line(false, 30, "a\tb", "a b");
	/* Bidirectional overrides, isolates and marks; zero width; line separators; C1. */
	line(false, 39, "x\xe2\x80\xaey", "x\\xe2\\x80\\xaey");
	line(false, 39, "x\xe2\x81\xa6y", "x\\xe2\\x81\\xa6y");
	line(false, 39, "x\xe2\x80\x8by", "x\\xe2\\x80\\x8by");
	line(false, 39, "x\xe2\x80\xa8y", "x\\xe2\\x80\\xa8y");
	line(false, 39, "x\xc2\x9by", "x\\xc2\\x9by");
	line(false, 39, "\xef\xbb\xbfx", "\\xef\\xbb\\xbfx");
	/* Not UTF-8: a lone byte, overlong, a surrogate, beyond the end, cut off. */
	line(false, 39, "\xff", "\\xff");
	line(false, 39, "\xc0\xaf", "\\xc0\\xaf");
	line(false, 39, "\xed\xa0\x80", "\\xed\\xa0\\x80");
	line(false, 39, "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
	line(false, 39, "a\xe2\x82", "a\\xe2\\x82");
	/* What a terminal cannot show is not sent to it. */
	line(true, 30, "na\xc3\xafve", "na?ve");
	line(false, 30, "na\xc3\xafve", "na\xc3\xafve");
}

static void cut(void **state)
{
	(void)state;
	line(false, 5, "12345", "12345");
	line(false, 5, "123456", "1234\xe2\x80\xa6");
	line(true, 5, "123456", "1234~");
	line(true, 1, "123456", "~");
	line(true, 0, "123456", "");
	/* Two columns wide: never half of one. */
	line(false, 4, "\xe6\xbc\xa2\xe5\xad\x97", "\xe6\xbc\xa2\xe5\xad\x97");
	line(false, 3, "\xe6\xbc\xa2\xe5\xad\x97", "\xe6\xbc\xa2\xe2\x80\xa6");
	line(false, 2, "\xe6\xbc\xa2\xe5\xad\x97", "\xe2\x80\xa6");
	/* An escape is not split either. */
	line(true, 6, "ab\x01", "ab\\x01");
	line(true, 5, "ab\x01", "ab~");
}

static void wide_halves(void **state)
{
	struct bp_grid g;

	(void)state;
	make(&g, 6, 1);
	bp_grid_text(&g, 0, 0, 6, BP_STYLE_TEXT, "\xe6\xbc\xa2\xe5\xad\x97");
	bp_grid_put(&g, 1, 0, 'x', BP_STYLE_TEXT);
	shows(&g, " x\xe5\xad\x97\n");
	bp_grid_put(&g, 2, 0, 'y', BP_STYLE_TEXT);
	shows(&g, " xy\n");
	bp_grid_deinit(&g);
}

static void outside(void **state)
{
	struct bp_grid g;

	(void)state;
	make(&g, 4, 2);
	bp_grid_put(&g, -1, 0, 'x', 0);
	bp_grid_put(&g, 4, 0, 'x', 0);
	bp_grid_put(&g, 0, 2, 'x', 0);
	bp_grid_put(&g, 0, -1, 'x', 0);
	bp_grid_fill(&g, -2, 1, 100, 'y', 0);
	bp_grid_style(&g, 2, 5, 10, BP_STYLE_CURSOR);
	bp_grid_text(&g, 3, 0, 100, 0, "long");
	bp_grid_text(&g, 9, 0, 100, 0, "long");
	bp_grid_text(&g, 0, 7, 100, 0, "long");
	g.ascii = true;
	shows(&g, "   \xe2\x80\xa6\nyyyy\n");
	assert_null(bp_grid_resize(&g, 0, 0));
	bp_grid_put(&g, 0, 0, 'x', 0);
	shows(&g, "");
	bp_grid_deinit(&g);
}

static void levels(void **state)
{
	struct bp_grid g = {0};

	(void)state;
	assert_int_equal(bp_grid_level(&g, 0), ' ');
	assert_int_equal(bp_grid_level(&g, 1e-9), 0x2581);
	assert_int_equal(bp_grid_level(&g, 1), 0x2588);
	assert_int_equal(bp_grid_level(&g, 99), 0x2588);
	g.ascii = true;
	assert_int_equal(bp_grid_level(&g, 1e-9), '.');
	assert_int_equal(bp_grid_level(&g, 1), '@');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(untrusted), cmocka_unit_test(cut),    cmocka_unit_test(wide_halves),
	    cmocka_unit_test(outside),   cmocka_unit_test(levels),
	};

	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
