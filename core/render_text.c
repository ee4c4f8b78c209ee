// SPDX-License-Identifier: GPL-2.0-or-later
/* A report as tables for people: numbers are never cut, text columns give way to the terminal's width. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "core/cleanup.h"
#include "core/report_private.h"
#include "core/units.h"

#define GAP 2           /* spaces between columns */
#define MIN_STR_WIDTH 8 /* a text column is not cut below this */

static const char ansi_bold[] = "\033[1m", ansi_red[] = "\033[31m", ansi_yellow[] = "\033[33m",
		  ansi_reset[] = "\033[0m";

struct text {
	const struct bp_render *how;
	struct bp_sink *out;
	struct bp_strbuf cell; /* the cell being measured or printed */
	struct bp_strbuf safe;
};

/* Code point of the valid UTF-8 at @s and its length. */
static uint32_t decode(const char *s, size_t *len)
{
	const unsigned char *p = (const unsigned char *)s;

	if (p[0] < 0x80) {
		*len = 1;
		return p[0];
	}
	if (p[0] < 0xe0) {
		*len = 2;
		return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
	}
	if (p[0] < 0xf0) {
		*len = 3;
		return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
	}
	*len = 4;
	return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 | (uint32_t)(p[2] & 0x3f) << 6 |
	       (p[3] & 0x3f);
}

static size_t char_width(uint32_t c)
{
	int w = c < 0x80 ? 1 : wcwidth((wchar_t)c);

	return w < 0 ? 1 : (size_t)w;
}

/* Columns that @len bytes of printable text take on the screen. */
static size_t text_width(const char *s, size_t len)
{
	size_t width = 0;

	for (size_t i = 0, n; i < len; i += n) {
		uint32_t c = decode(s + i, &n);

		width += char_width(c);
	}
	return width;
}

/* Append guest text, safe for this terminal. */
static void add_safe(struct text *tx, struct bp_strbuf *sb, const char *s, size_t len)
{
	if (tx->how->utf8) {
		bp_strbuf_add_term(sb, s, len);
		return;
	}
	bp_strbuf_clear(&tx->safe);
	bp_strbuf_add_term(&tx->safe, s, len);
	for (size_t i = 0; i < tx->safe.len; i++) {
		unsigned char c = (unsigned char)tx->safe.data[i];

		if (c < 0x80)
			bp_strbuf_addc(sb, (char)c);
		else
			bp_strbuf_addf(sb, "\\x%02x", c);
	}
	sb->failed |= tx->safe.failed;
}

static void add_spaces(struct bp_strbuf *sb, size_t n)
{
	static const char spaces[] = "                                ";

	while (n) {
		size_t k = n < sizeof(spaces) - 1 ? n : sizeof(spaces) - 1;

		bp_strbuf_add(sb, spaces, k);
		n -= k;
	}
}

static void add_color(struct text *tx, const char *code)
{
	if (tx->how->color)
		bp_strbuf_adds(&tx->out->buf, code);
}

/* Fill tx->cell with a cell's text, without indentation; its width. */
static size_t make_cell(struct text *tx, const struct bp_table *t, const struct bp_col *col,
			const struct bp_cell *cell)
{
	char buf[BP_UNITS_MAX];
	const char *s = "-";

	bp_strbuf_clear(&tx->cell);
	switch (cell->kind) {
	case BP_CELL_STR:
		add_safe(tx, &tx->cell, bp_table_text(t, cell), cell->len);
		return text_width(bp_strbuf_str(&tx->cell), tx->cell.len);
	case BP_CELL_U64:
		if (col->type == BP_COL_HEX) {
			snprintf(buf, sizeof(buf), "0x%" PRIx64, cell->u);
			s = buf;
		} else {
			s = bp_units_count(buf, cell->u);
		}
		break;
	case BP_CELL_I64:
		s = col->type == BP_COL_NS ? bp_units_ns(buf, cell->i) : bp_units_icount(buf, cell->i);
		break;
	case BP_CELL_PCT:
		s = bp_units_pct(buf, cell->pct);
		break;
	case BP_CELL_NONE:
		if (col->type == BP_COL_STR)
			s = "";
		break;
	}
	bp_strbuf_adds(&tx->cell, s);
	return tx->cell.len;
}

/* Print tx->cell in at most @width columns; the columns it took. A path loses its front, other text its end.
 */
static size_t print_cut(struct text *tx, size_t width, size_t full)
{
	struct bp_strbuf *sb = &tx->out->buf;
	const char *s = bp_strbuf_str(&tx->cell);
	const char *dots = tx->how->utf8 ? "\xe2\x80\xa6" : "..";
	size_t dots_width = tx->how->utf8 ? 1 : 2, len = tx->cell.len, used = dots_width, pos = 0, n;

	if (full <= width) {
		bp_strbuf_add(sb, s, len);
		return full;
	}
	if (s[0] == '/') {
		while (pos < len && full + dots_width > width) {
			full -= char_width(decode(s + pos, &n));
			pos += n;
		}
		bp_strbuf_adds(sb, dots);
		bp_strbuf_add(sb, s + pos, len - pos);
		return full + dots_width;
	}
	while (pos < len) {
		size_t w = char_width(decode(s + pos, &n));

		if (used + w > width)
			break;
		used += w;
		pos += n;
	}
	bp_strbuf_add(sb, s, pos);
	bp_strbuf_adds(sb, dots);
	return used;
}

struct layout {
	size_t *widths;
	size_t step; /* columns of indentation for each level of a tree */
	size_t rows; /* rows that are shown */
};

static bool shown(const struct bp_col *col)
{
	return col->where & BP_COL_TEXT;
}

/* Lower the widths of text columns, widest first, until the table fits. */
static void shrink(const struct text *tx, const struct bp_table *t, struct layout *lay)
{
	size_t total = 0, max = 0, cols = 0;

	for (size_t i = 0; i < t->n_cols; i++) {
		if (!shown(&t->cols[i]))
			continue;
		total += lay->widths[i];
		cols++;
		if (t->cols[i].type == BP_COL_STR && lay->widths[i] > max)
			max = lay->widths[i];
	}
	if (cols)
		total += GAP * (cols - 1);
	while (total > tx->how->width && max > MIN_STR_WIDTH) {
		bool cut = false;

		for (size_t i = 0; i < t->n_cols && total > tx->how->width; i++) {
			if (!shown(&t->cols[i]) || t->cols[i].type != BP_COL_STR || lay->widths[i] < max ||
			    lay->widths[i] <= strlen(t->cols[i].title))
				continue;
			lay->widths[i]--;
			total--;
			cut = true;
		}
		if (!cut || total > tx->how->width)
			max--;
	}
}

static void measure(struct text *tx, const struct bp_table *t, struct layout *lay)
{
	size_t deepest = 0;

	lay->rows = t->n_rows;
	if (tx->how->max_rows && lay->rows > tx->how->max_rows)
		lay->rows = tx->how->max_rows;
	for (size_t row = 0; row < lay->rows; row++)
		if (bp_table_depth(t, row) > deepest)
			deepest = bp_table_depth(t, row);
	lay->step = tx->how->width && deepest * 2 > tx->how->width / 3 ? 1 : 2;
	for (size_t i = 0; i < t->n_cols; i++) {
		const struct bp_col *col = &t->cols[i];

		if (!shown(col))
			continue;
		lay->widths[i] = strlen(col->title);
		for (size_t row = 0; row < lay->rows; row++) {
			size_t w = make_cell(tx, t, col, &t->cells[row * t->n_cols + i]);

			if (col->tree)
				w += bp_table_depth(t, row) * lay->step;
			if (w > lay->widths[i])
				lay->widths[i] = w;
		}
	}
	if (tx->how->width)
		shrink(tx, t, lay);
}

/* Indentation of a tree row; past half of the column only the depth is told, as a number. */
static size_t print_indent(struct text *tx, size_t indent, size_t width, unsigned depth)
{
	struct bp_strbuf *sb = &tx->out->buf;
	char buf[BP_UNITS_MAX];
	size_t n;

	if (indent <= width / 2) {
		add_spaces(sb, indent);
		return indent;
	}
	indent = width / 2;
	n = (size_t)snprintf(buf, sizeof(buf), "%u> ", depth);
	if (n < indent)
		add_spaces(sb, indent - n);
	bp_strbuf_adds(sb, buf);
	return n < indent ? indent : n;
}

static const char *cell_color(const struct bp_cell *cell)
{
	if (cell->kind != BP_CELL_PCT)
		return NULL;
	return cell->pct >= 10 ? ansi_red : cell->pct >= 5 ? ansi_yellow : NULL;
}

static void print_row(struct text *tx, const struct bp_table *t, const struct layout *lay, size_t row)
{
	struct bp_strbuf *sb = &tx->out->buf;
	size_t pad = 0;

	for (size_t i = 0; i < t->n_cols; i++) {
		const struct bp_col *col = &t->cols[i];
		const struct bp_cell *cell = &t->cells[row * t->n_cols + i];
		size_t width = lay->widths[i], full, used = 0;
		const char *color = cell_color(cell);

		if (!shown(col))
			continue;
		full = make_cell(tx, t, col, cell);
		if (col->type == BP_COL_STR) {
			/* Blanks wait for something to follow: no line ends in them. */
			if (!full) {
				pad += width + GAP;
				continue;
			}
			add_spaces(sb, pad);
			if (col->tree)
				used = print_indent(tx, bp_table_depth(t, row) * lay->step, width,
						    bp_table_depth(t, row));
			used += print_cut(tx, used < width ? width - used : 0, full);
			pad = (used < width ? width - used : 0) + GAP;
			continue;
		}
		add_spaces(sb, pad + (full < width ? width - full : 0));
		if (color)
			add_color(tx, color);
		bp_strbuf_add(sb, bp_strbuf_str(&tx->cell), tx->cell.len);
		if (color)
			add_color(tx, ansi_reset);
		pad = GAP;
	}
	bp_strbuf_addc(sb, '\n');
}

static void print_header(struct text *tx, const struct bp_table *t, const struct layout *lay)
{
	struct bp_strbuf *sb = &tx->out->buf;
	size_t pad = 0;

	add_color(tx, ansi_bold);
	for (size_t i = 0; i < t->n_cols; i++) {
		size_t len = strlen(t->cols[i].title), left = lay->widths[i] - len;
		bool right = t->cols[i].type != BP_COL_STR;

		if (!shown(&t->cols[i]))
			continue;
		add_spaces(sb, pad + (right ? left : 0));
		bp_strbuf_adds(sb, t->cols[i].title);
		pad = GAP + (right ? 0 : left);
	}
	add_color(tx, ansi_reset);
	bp_strbuf_addc(sb, '\n');
}

static void print_table(struct text *tx, const struct bp_table *t)
{
	struct bp_strbuf *sb = &tx->out->buf;
	struct layout lay = {0};
	bp_autofree size_t *widths = calloc(t->n_cols, sizeof(*widths));

	if (!widths) {
		sb->failed = true;
		return;
	}
	lay.widths = widths;
	if (t->title) {
		add_color(tx, ansi_bold);
		add_safe(tx, sb, t->title, strlen(t->title));
		add_color(tx, ansi_reset);
		bp_strbuf_addc(sb, '\n');
	}
	measure(tx, t, &lay);
	print_header(tx, t, &lay);
	for (size_t row = 0; row < lay.rows; row++) {
		print_row(tx, t, &lay, row);
		bp_sink_drain(tx->out, false);
	}
	if (!t->n_rows)
		bp_strbuf_adds(sb, "(nothing)\n");
	if (lay.rows < t->n_rows)
		bp_strbuf_addf(sb, "... %zu more row%s\n", t->n_rows - lay.rows,
			       t->n_rows - lay.rows == 1 ? "" : "s");
}

/* One note, broken between words to fit. */
static void print_wrapped(struct text *tx, const char *line, size_t len)
{
	struct bp_strbuf *sb = &tx->out->buf;
	size_t column = 0, pos = 0;
	const char *s;

	bp_strbuf_clear(&tx->cell);
	add_safe(tx, &tx->cell, line, len);
	s = bp_strbuf_str(&tx->cell);
	while (pos < tx->cell.len) {
		size_t end = pos, w;

		while (end < tx->cell.len && s[end] == ' ')
			end++;
		while (end < tx->cell.len && s[end] != ' ')
			end++;
		w = text_width(s + pos, end - pos);
		if (tx->how->width && column && column + w > tx->how->width) {
			while (s[pos] == ' ')
				pos++;
			w = text_width(s + pos, end - pos) + 2;
			bp_strbuf_adds(sb, "\n  ");
			column = 0;
		}
		bp_strbuf_add(sb, s + pos, end - pos);
		column += w;
		pos = end;
	}
	bp_strbuf_addc(sb, '\n');
}

void bp_render_text(const struct bp_report *r, const struct bp_render *how, struct bp_sink *out)
{
	struct text tx = {.how = how, .out = out};
	bool any = false;

	for (size_t i = 0; i < r->titles.n && !r->instead; i++) {
		size_t len;
		const char *s = bp_lines_get(&r->titles, i, &len);

		if (!i)
			add_color(&tx, ansi_bold);
		print_wrapped(&tx, s, len);
		if (!i)
			add_color(&tx, ansi_reset);
		any = true;
	}
	for (const struct bp_table *t = r->tables; t && !r->instead; t = t->next) {
		if (any)
			bp_strbuf_addc(&out->buf, '\n');
		print_table(&tx, t);
		any = true;
	}
	for (size_t i = 0; i < (r->instead ? 1 : r->notes.n); i++) {
		size_t len;
		const char *s = bp_lines_get(&r->notes, i, &len);

		if (any && !i)
			bp_strbuf_addc(&out->buf, '\n');
		print_wrapped(&tx, s, len);
	}
	out->buf.failed |= tx.cell.failed | tx.safe.failed;
	bp_strbuf_deinit(&tx.cell);
	bp_strbuf_deinit(&tx.safe);
}
