/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of a report, for report.c and the renderers (render_*.c) only. */
#ifndef BP_CORE_REPORT_PRIVATE_H
#define BP_CORE_REPORT_PRIVATE_H

#include "core/report.h"
#include "core/strbuf.h"

enum bp_cell_kind {
	BP_CELL_NONE,
	BP_CELL_STR, /* u = offset in the table's text, len = its bytes */
	BP_CELL_U64,
	BP_CELL_I64,
	BP_CELL_PCT,
};

struct bp_cell {
	enum bp_cell_kind kind;
	uint32_t len;
	union {
		uint64_t u;
		int64_t i;
		double pct;
	};
};

struct bp_table {
	struct bp_report *report;
	struct bp_table *next;
	char *id, *title; /* owned; title may be NULL */
	const struct bp_col *cols;
	size_t n_cols;
	struct bp_cell *cells; /* n_rows * n_cols */
	size_t n_cells, cap_cells;
	uint32_t *depths; /* of each row; NULL while all are 0 */
	size_t n_rows, cap_depths;
	struct bp_strbuf text; /* the strings of all cells */
	bool tree;             /* some column is a tree */
	bool failed;           /* out of memory: drops everything */
};

/* Lines of text: each is @len bytes at data + start of it, stored one after the other. */
struct bp_lines {
	struct bp_strbuf text;
	size_t *ends;
	size_t n, cap;
};

struct bp_scalar {
	char *id;
	int64_t value;
};

struct bp_report {
	char *view;
	enum bp_clock clock;
	struct bp_lines titles, notes;
	struct bp_scalar *scalars;
	size_t n_scalars, cap_scalars;
	struct bp_table *tables, **tables_end;
	struct bp_table spare; /* handed out when a table could not be made */
	bool instead; /* the first note is all that there is to say */
	bool failed;
};

static inline const char *bp_lines_get(const struct bp_lines *l, size_t i, size_t *len)
{
	size_t start = i ? l->ends[i - 1] : 0;

	*len = l->ends[i] - start;
	return bp_strbuf_str(&l->text) + start;
}

static inline uint32_t bp_table_depth(const struct bp_table *t, size_t row)
{
	return t->depths ? t->depths[row] : 0;
}

/* Bytes of the string in a cell of kind BP_CELL_STR; cell->len of them. */
static inline const char *bp_table_text(const struct bp_table *t, const struct bp_cell *cell)
{
	return bp_strbuf_str(&t->text) + cell->u;
}

/* A file being written through a buffer; the first failure is kept. */
struct bp_sink {
	FILE *file;
	struct bp_strbuf buf;
	int errnum;
	bool gone; /* nobody reads any more (EPIPE) */
};

/* Hand the buffer to the file when it is large, or always with @all. */
void bp_sink_drain(struct bp_sink *s, bool all);
/* Drain, flush; the error of the whole output. Frees the buffer. */
struct bp_err *bp_sink_close(struct bp_sink *s) BP_MUST_CHECK;

void bp_render_text(const struct bp_report *r, const struct bp_render *how, struct bp_sink *out);
void bp_render_json(const struct bp_report *r, struct bp_sink *out);
void bp_render_csv(const struct bp_report *r, struct bp_sink *out);

#endif
