// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A report as JSON and CSV: exact numbers, one row a line.
 * Source: RFC 8259; RFC 4180, but for line ends, which are those of Unix.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/report_private.h"

static const char *clock_name(enum bp_clock clock)
{
	return clock == BP_CLOCK_INSNS ? "insns" : "time";
}

/* Percentages that have no number in JSON count as no value. */
static bool is_none(const struct bp_cell *cell)
{
	return cell->kind == BP_CELL_NONE ||
	       (cell->kind == BP_CELL_PCT && (!isfinite(cell->pct) || fabs(cell->pct) > 1e12));
}

/* A percentage with four decimals, without the locale's decimal comma. */
static void add_pct(struct bp_strbuf *sb, double pct)
{
	int64_t v;
	uint64_t m;

	v = (int64_t)(pct * 1e4 + (pct < 0 ? -0.5 : 0.5));
	m = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
	bp_strbuf_addf(sb, "%s%" PRIu64 ".%04" PRIu64, v < 0 ? "-" : "", m / 10000, m % 10000);
}

/* A number, the same in JSON and CSV. */
static void add_number(struct bp_strbuf *sb, const struct bp_col *col, const struct bp_cell *cell)
{
	/* Addresses do not survive a JSON reader that keeps numbers as doubles. */
	const char *quote = col->type == BP_COL_HEX ? "\"" : "";

	if (cell->kind == BP_CELL_PCT)
		add_pct(sb, cell->pct);
	else if (col->type == BP_COL_HEX)
		bp_strbuf_addf(sb, "%s0x%" PRIx64 "%s", quote, cell->u, quote);
	else if (cell->kind == BP_CELL_I64)
		bp_strbuf_addf(sb, "%" PRId64, cell->i);
	else
		bp_strbuf_addf(sb, "%" PRIu64, cell->u);
}

static void add_json_str(struct bp_strbuf *sb, const char *s, size_t len)
{
	bp_strbuf_addc(sb, '"');
	bp_strbuf_add_json(sb, s, len);
	bp_strbuf_addc(sb, '"');
}

static void add_json_lines(struct bp_strbuf *sb, const struct bp_lines *lines)
{
	bp_strbuf_addc(sb, '[');
	for (size_t i = 0; i < lines->n; i++) {
		size_t len;
		const char *s = bp_lines_get(lines, i, &len);

		bp_strbuf_adds(sb, i ? ",\n" : "\n");
		add_json_str(sb, s, len);
	}
	bp_strbuf_addc(sb, ']');
}

/* Whether the depth of the rows must be given beside the columns. */
static bool needs_depth(const struct bp_table *t)
{
	if (!t->tree)
		return false;
	for (size_t i = 0; i < t->n_cols; i++)
		if (t->cols[i].where & BP_COL_DATA && !strcmp(t->cols[i].id, "depth"))
			return false;
	return true;
}

static void add_json_rows(struct bp_sink *out, const struct bp_table *t)
{
	struct bp_strbuf *sb = &out->buf;
	bool depth = t && needs_depth(t);

	bp_strbuf_addc(sb, '[');
	for (size_t row = 0; t && row < t->n_rows; row++) {
		const struct bp_cell *cells = &t->cells[row * t->n_cols];
		const char *sep = "";

		bp_strbuf_adds(sb, row ? ",\n{" : "\n{");
		if (depth) {
			bp_strbuf_addf(sb, "\"depth\":%" PRIu32, bp_table_depth(t, row));
			sep = ",";
		}
		for (size_t i = 0; i < t->n_cols; i++) {
			const struct bp_col *col = &t->cols[i];

			if (!(col->where & BP_COL_DATA))
				continue;
			bp_strbuf_adds(sb, sep);
			sep = ",";
			add_json_str(sb, col->id, strlen(col->id));
			bp_strbuf_addc(sb, ':');
			if (is_none(&cells[i]))
				bp_strbuf_adds(sb, "null");
			else if (cells[i].kind == BP_CELL_STR)
				add_json_str(sb, bp_table_text(t, &cells[i]), cells[i].len);
			else
				add_number(sb, col, &cells[i]);
		}
		bp_strbuf_addc(sb, '}');
		bp_sink_drain(out, false);
	}
	bp_strbuf_addc(sb, ']');
}

void bp_render_json(const struct bp_report *r, struct bp_sink *out)
{
	struct bp_strbuf *sb = &out->buf;

	bp_strbuf_adds(sb, "{\"schema\":\"bootprof-report/1\",\"view\":");
	add_json_str(sb, r->view, strlen(r->view));
	bp_strbuf_addf(sb, ",\"clock\":\"%s\"", clock_name(r->clock));
	for (size_t i = 0; i < r->n_scalars; i++) {
		bp_strbuf_adds(sb, ",\n");
		add_json_str(sb, r->scalars[i].id, strlen(r->scalars[i].id));
		bp_strbuf_addf(sb, ":%" PRId64, r->scalars[i].value);
	}
	bp_strbuf_adds(sb, ",\n\"rows\":");
	add_json_rows(out, r->tables);
	if (r->tables && r->tables->next) {
		bp_strbuf_adds(sb, ",\n\"tables\":{");
		for (const struct bp_table *t = r->tables->next; t; t = t->next) {
			bp_strbuf_adds(sb, t == r->tables->next ? "\n" : ",\n");
			add_json_str(sb, t->id, strlen(t->id));
			bp_strbuf_addc(sb, ':');
			add_json_rows(out, t);
		}
		bp_strbuf_addc(sb, '}');
	}
	bp_strbuf_adds(sb, ",\n\"notes\":");
	add_json_lines(sb, &r->notes);
	bp_strbuf_adds(sb, "}\n");
}

void bp_render_csv(const struct bp_report *r, struct bp_sink *out)
{
	const struct bp_table *t = r->tables;
	struct bp_strbuf *sb = &out->buf;
	const char *sep = "";
	bool depth;

	if (!t)
		return;
	depth = needs_depth(t);
	if (depth) {
		bp_strbuf_adds(sb, "depth");
		sep = ",";
	}
	for (size_t i = 0; i < t->n_cols; i++) {
		if (!(t->cols[i].where & BP_COL_DATA))
			continue;
		bp_strbuf_addf(sb, "%s%s", sep, t->cols[i].id);
		sep = ",";
	}
	bp_strbuf_adds(sb, "\n");
	for (size_t row = 0; row < t->n_rows; row++) {
		const struct bp_cell *cells = &t->cells[row * t->n_cols];

		sep = "";
		if (depth) {
			bp_strbuf_addf(sb, "%" PRIu32, bp_table_depth(t, row));
			sep = ",";
		}
		for (size_t i = 0; i < t->n_cols; i++) {
			if (!(t->cols[i].where & BP_COL_DATA))
				continue;
			bp_strbuf_adds(sb, sep);
			sep = ",";
			if (cells[i].kind == BP_CELL_STR)
				bp_strbuf_add_csv(sb, bp_table_text(t, &cells[i]), cells[i].len);
			else if (!is_none(&cells[i]))
				add_number(sb, &t->cols[i], &cells[i]);
		}
		bp_strbuf_adds(sb, "\n");
		bp_sink_drain(out, false);
	}
}
