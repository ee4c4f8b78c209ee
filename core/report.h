/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The report: what an analyzer returns and everything that displays reads. A report is one view: a
 * title, notes, one main table and possibly more tables, each of typed columns.
 *
 * Threads: one at a time. Strings given to a report are copied.
 */
#ifndef BP_CORE_REPORT_H
#define BP_CORE_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"

enum bp_clock { BP_CLOCK_TIME, BP_CLOCK_INSNS };

enum bp_col_type {
	BP_COL_STR,      /* untrusted text */
	BP_COL_COUNT,    /* uint64 */
	BP_COL_NS,       /* int64 nanoseconds: text shows a scaled unit, JSON and CSV the number */
	BP_COL_INSNS,    /* int64 instructions */
	BP_COL_PERCENT,  /* double, 0 to 100 */
	BP_COL_HEX,      /* uint64, 0x... */
};

/* Which outputs a column appears in. */
enum { BP_COL_TEXT = 1, BP_COL_DATA = 2, BP_COL_BOTH = 3 };

struct bp_col {
	const char *id;      /* stable name in JSON and CSV: "self_ns" */
	const char *title;   /* heading in text: "SELF" */
	enum bp_col_type type;
	unsigned where;      /* BP_COL_TEXT | BP_COL_DATA */
	bool tree;           /* BP_COL_STR: the text is indented by the row's depth */
};

struct bp_report;
struct bp_table;

/** bp_report_create() - @view: "functions"; goes into JSON as it is */
struct bp_err *bp_report_create(const char *view, enum bp_clock clock,
				struct bp_report **ret) BP_MUST_CHECK;
void bp_report_destroy(struct bp_report *r);

/** bp_report_title() - a heading line of the text form; each call adds one (a newline in it is escaped) */
void bp_report_title(struct bp_report *r, const char *fmt, ...) BP_PRINTF(2, 3);
/** bp_report_note() - a line under the tables: what is not known, what to do next; JSON "notes" */
void bp_report_note(struct bp_report *r, const char *fmt, ...) BP_PRINTF(2, 3);
/** bp_report_instead() - the first note of a view that has nothing to show: text is this line alone */
void bp_report_instead(struct bp_report *r, const char *fmt, ...) BP_PRINTF(2, 3);
/** bp_report_scalar() - a number beside the rows in JSON ("unaccounted_ns"), no text */
void bp_report_scalar(struct bp_report *r, const char *id, int64_t value);

/**
 * bp_report_table() - add a table; the first one is the main one, its rows are "rows" in JSON and CSV; the
 * others are members of "tables" by @id
 * @cols: borrowed, static. Errors are kept in the report: see bp_report_finish().
 */
struct bp_table *bp_report_table(struct bp_report *r, const char *id, const char *title,
				 const struct bp_col *cols, size_t n_cols);

/** bp_table_row() - start a row; then one bp_table_* call per column, in order */
void bp_table_row(struct bp_table *t);
/** bp_table_row_depth() - start a row that deep in the tree, or say how deep the row is that was just started */
void bp_table_row_depth(struct bp_table *t, unsigned depth);
void bp_table_str(struct bp_table *t, const char *s);       /* NULL: an empty cell (null in JSON) */
void bp_table_u64(struct bp_table *t, uint64_t v);          /* COUNT, HEX */
void bp_table_i64(struct bp_table *t, int64_t v);           /* NS, INSNS */
void bp_table_pct(struct bp_table *t, double v);
void bp_table_none(struct bp_table *t);                     /* no value: "-", null, empty */

/** bp_table_n_rows() - rows so far */
size_t bp_table_n_rows(const struct bp_table *t);

/** bp_report_finish() - NULL, or the error of any call above (out of memory); each row must be complete */
struct bp_err *bp_report_finish(struct bp_report *r) BP_MUST_CHECK;

/* Reading, for programs that show a report in another way than as text. */
struct bp_value {
	enum { BP_VALUE_NONE, BP_VALUE_STR, BP_VALUE_U64, BP_VALUE_I64, BP_VALUE_PCT } kind;
	const char *s; /* BP_VALUE_STR: @len bytes, not ended by a NUL; borrowed from the report */
	size_t len;
	uint64_t u; /* BP_VALUE_U64, and the same bits of BP_VALUE_I64 */
	int64_t i;
	double pct;
};

/** bp_report_find() - the table with that id, NULL: the main one; NULL when there is none */
const struct bp_table *bp_report_find(const struct bp_report *r, const char *id);
/** bp_report_note_at() - note number @i, @len bytes; NULL when there are no more */
const char *bp_report_note_at(const struct bp_report *r, size_t i, size_t *len);
const struct bp_col *bp_table_cols(const struct bp_table *t, size_t *n);
/** bp_table_depth_of() - how deep in the tree a row is */
unsigned bp_table_depth_of(const struct bp_table *t, size_t row);
/** bp_table_value() - a cell; kind is BP_VALUE_NONE when it has no value, or the table no such row or column */
struct bp_value bp_table_value(const struct bp_table *t, size_t row, size_t column);

/* Output. */
enum bp_format { BP_FORMAT_TEXT, BP_FORMAT_JSON, BP_FORMAT_CSV };

struct bp_render {
	enum bp_format format;
	unsigned width;      /* columns of the terminal; 0: do not cut */
	bool color;
	bool utf8;           /* the terminal shows UTF-8; otherwise text is ASCII only */
	size_t max_rows;     /* of each table in text; 0: all. A cut is said ("... 1234 more rows") */
};

/**
 * bp_report_render() - write the report; every untrusted string goes through the sink of its form
 * JSON: {"schema":"bootprof-report/1","view":...,"clock":"time"|"insns","rows":[...],...}; rows of a table
 * with a tree column also have "depth". CSV: the main table only. docs/bootprof-report-schema.md has both.
 * Errors: BP_EOS (a write failed; EPIPE is success).
 */
struct bp_err *bp_report_render(const struct bp_report *r, const struct bp_render *how,
				FILE *out) BP_MUST_CHECK;

#endif
