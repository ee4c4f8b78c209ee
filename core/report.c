// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "core/report.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/report_private.h"

#define SINK_BYTES 65536

/* Make room for one more element in a growing array. */
static bool grow(void **data, size_t n, size_t *cap, size_t size)
{
	size_t want;
	void *p;

	if (n < *cap)
		return true;
	want = *cap ? *cap * 2 : 16;
	if (want > SIZE_MAX / size)
		return false;
	p = realloc(*data, want * size);
	if (!p)
		return false;
	*data = p;
	*cap = want;
	return true;
}

static void lines_deinit(struct bp_lines *l)
{
	bp_strbuf_deinit(&l->text);
	free(l->ends);
}

static bool lines_addv(struct bp_lines *l, const char *fmt, va_list ap)
{
	char *line;
	int n = vasprintf(&line, fmt, ap);

	if (n < 0)
		return false;
	if (!grow((void **)&l->ends, l->n, &l->cap, sizeof(*l->ends))) {
		free(line);
		return false;
	}
	bp_strbuf_add(&l->text, line, (size_t)n);
	free(line);
	if (l->text.failed)
		return false;
	l->ends[l->n++] = l->text.len;
	return true;
}

struct bp_err *bp_report_create(const char *view, enum bp_clock clock, struct bp_report **ret)
{
	struct bp_report *r = calloc(1, sizeof(*r));

	if (!r)
		return bp_err_nomem();
	r->view = strdup(view);
	if (!r->view) {
		free(r);
		return bp_err_nomem();
	}
	r->clock = clock;
	r->tables_end = &r->tables;
	r->spare.report = r;
	r->spare.failed = true;
	*ret = r;
	return NULL;
}

void bp_report_destroy(struct bp_report *r)
{
	if (!r)
		return;
	for (struct bp_table *t = r->tables, *next; t; t = next) {
		next = t->next;
		free(t->id);
		free(t->title);
		free(t->cells);
		free(t->depths);
		bp_strbuf_deinit(&t->text);
		free(t);
	}
	for (size_t i = 0; i < r->n_scalars; i++)
		free(r->scalars[i].id);
	free(r->scalars);
	lines_deinit(&r->titles);
	lines_deinit(&r->notes);
	free(r->view);
	free(r);
}

void bp_report_title(struct bp_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!lines_addv(&r->titles, fmt, ap))
		r->failed = true;
	va_end(ap);
}

void bp_report_note(struct bp_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!lines_addv(&r->notes, fmt, ap))
		r->failed = true;
	va_end(ap);
}

void bp_report_instead(struct bp_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!lines_addv(&r->notes, fmt, ap))
		r->failed = true;
	va_end(ap);
	r->instead = true;
}

void bp_report_scalar(struct bp_report *r, const char *id, int64_t value)
{
	char *copy = strdup(id);

	if (!copy || !grow((void **)&r->scalars, r->n_scalars, &r->cap_scalars, sizeof(*r->scalars))) {
		free(copy);
		r->failed = true;
		return;
	}
	r->scalars[r->n_scalars++] = (struct bp_scalar){.id = copy, .value = value};
}

struct bp_table *bp_report_table(struct bp_report *r, const char *id, const char *title,
				 const struct bp_col *cols, size_t n_cols)
{
	struct bp_table *t = calloc(1, sizeof(*t));

	assert(n_cols);
	if (!t)
		goto nomem;
	t->report = r;
	t->cols = cols;
	t->n_cols = n_cols;
	for (size_t i = 0; i < n_cols; i++)
		t->tree |= cols[i].tree;
	t->id = strdup(id);
	if (title)
		t->title = strdup(title);
	if (!t->id || (title && !t->title)) {
		free(t->id);
		free(t->title);
		free(t);
		goto nomem;
	}
	*r->tables_end = t;
	r->tables_end = &t->next;
	return t;

nomem:
	r->failed = true;
	return &r->spare;
}

static void table_fail(struct bp_table *t)
{
	t->failed = true;
	t->report->failed = true;
}

/* Give row @row a depth. Rows that were made before the first depth have 0. */
static void set_depth(struct bp_table *t, size_t row, unsigned depth)
{
	if (!t->depths) {
		if (!depth)
			return;
		t->cap_depths = row + 16;
		t->depths = calloc(t->cap_depths, sizeof(*t->depths));
		if (!t->depths) {
			table_fail(t);
			return;
		}
	}
	if (!grow((void **)&t->depths, row, &t->cap_depths, sizeof(*t->depths))) {
		table_fail(t);
		return;
	}
	t->depths[row] = depth;
}

/* Whether a row was begun and has no cell yet. */
static bool row_is_new(const struct bp_table *t)
{
	return t->n_rows && t->n_cells == (t->n_rows - 1) * t->n_cols;
}

void bp_table_row(struct bp_table *t)
{
	if (t->failed)
		return;
	assert(t->n_cells == t->n_rows * t->n_cols);
	set_depth(t, t->n_rows, 0);
	t->n_rows++;
}

void bp_table_row_depth(struct bp_table *t, unsigned depth)
{
	if (!t->failed && !row_is_new(t))
		bp_table_row(t);
	if (!t->failed)
		set_depth(t, t->n_rows - 1, depth);
}

/* Room for the next cell of the current row; NULL when the table has failed. */
static struct bp_cell *next_cell(struct bp_table *t)
{
	if (t->failed)
		return NULL;
	assert(t->n_cells < t->n_rows * t->n_cols);
	if (!grow((void **)&t->cells, t->n_cells, &t->cap_cells, sizeof(*t->cells))) {
		table_fail(t);
		return NULL;
	}
	return &t->cells[t->n_cells++];
}

void bp_table_str(struct bp_table *t, const char *s)
{
	struct bp_cell *cell = next_cell(t);
	size_t len;

	if (!cell)
		return;
	*cell = (struct bp_cell){.kind = BP_CELL_NONE};
	if (!s)
		return;
	len = strlen(s);
	if (len > UINT32_MAX)
		len = UINT32_MAX;
	cell->kind = BP_CELL_STR;
	cell->u = t->text.len;
	cell->len = (uint32_t)len;
	bp_strbuf_add(&t->text, s, len);
	if (t->text.failed)
		table_fail(t);
}

void bp_table_u64(struct bp_table *t, uint64_t v)
{
	struct bp_cell *cell = next_cell(t);

	if (cell)
		*cell = (struct bp_cell){.kind = BP_CELL_U64, .u = v};
}

void bp_table_i64(struct bp_table *t, int64_t v)
{
	struct bp_cell *cell = next_cell(t);

	if (cell)
		*cell = (struct bp_cell){.kind = BP_CELL_I64, .i = v};
}

void bp_table_pct(struct bp_table *t, double v)
{
	struct bp_cell *cell = next_cell(t);

	if (cell)
		*cell = (struct bp_cell){.kind = BP_CELL_PCT, .pct = v};
}

void bp_table_none(struct bp_table *t)
{
	struct bp_cell *cell = next_cell(t);

	if (cell)
		*cell = (struct bp_cell){.kind = BP_CELL_NONE};
}

const struct bp_table *bp_report_find(const struct bp_report *r, const char *id)
{
	for (const struct bp_table *t = r->tables; t; t = t->next) {
		if (!id || !strcmp(t->id, id))
			return t;
	}
	return NULL;
}

const char *bp_report_note_at(const struct bp_report *r, size_t i, size_t *len)
{
	return i < r->notes.n ? bp_lines_get(&r->notes, i, len) : NULL;
}

const struct bp_col *bp_table_cols(const struct bp_table *t, size_t *n)
{
	*n = t->n_cols;
	return t->cols;
}

unsigned bp_table_depth_of(const struct bp_table *t, size_t row)
{
	return row < t->n_rows ? bp_table_depth(t, row) : 0;
}

struct bp_value bp_table_value(const struct bp_table *t, size_t row, size_t column)
{
	struct bp_value v = {.kind = BP_VALUE_NONE};
	const struct bp_cell *c;

	if (row >= t->n_rows || column >= t->n_cols)
		return v;
	c = &t->cells[row * t->n_cols + column];
	switch (c->kind) {
	case BP_CELL_STR:
		v.kind = BP_VALUE_STR;
		v.s = bp_table_text(t, c);
		v.len = c->len;
		break;
	case BP_CELL_U64:
		v.kind = BP_VALUE_U64;
		v.u = c->u;
		break;
	case BP_CELL_I64:
		v.kind = BP_VALUE_I64;
		v.i = c->i;
		v.u = c->u;
		break;
	case BP_CELL_PCT:
		v.kind = BP_VALUE_PCT;
		v.pct = c->pct;
		break;
	default:
		break;
	}
	return v;
}

size_t bp_table_n_rows(const struct bp_table *t)
{
	return t->n_rows;
}

struct bp_err *bp_report_finish(struct bp_report *r)
{
	for (const struct bp_table *t = r->tables; t; t = t->next)
		assert(t->failed || t->n_cells == t->n_rows * t->n_cols);
	return r->failed ? bp_err_nomem() : NULL;
}

void bp_sink_drain(struct bp_sink *s, bool all)
{
	if (s->buf.len < SINK_BYTES && !all)
		return;
	if (!s->gone && !s->errnum && s->buf.len) {
		errno = 0;
		if (fwrite(s->buf.data, 1, s->buf.len, s->file) != s->buf.len) {
			s->gone = errno == EPIPE;
			if (!s->gone)
				s->errnum = errno ? errno : EIO;
		}
	}
	s->buf.len = 0;
}

struct bp_err *bp_sink_close(struct bp_sink *s)
{
	bool failed;

	bp_sink_drain(s, true);
	if (!s->gone && !s->errnum && fflush(s->file)) {
		s->gone = errno == EPIPE;
		if (!s->gone)
			s->errnum = errno;
	}
	failed = s->buf.failed;
	bp_strbuf_deinit(&s->buf);
	if (s->errnum)
		return bp_err_os(s->errnum, "cannot write the report");
	return failed ? bp_err_nomem() : NULL;
}

struct bp_err *bp_report_render(const struct bp_report *r, const struct bp_render *how, FILE *out)
{
	struct bp_sink sink = {.file = out};

	switch (how->format) {
	case BP_FORMAT_TEXT:
		bp_render_text(r, how, &sink);
		break;
	case BP_FORMAT_JSON:
		bp_render_json(r, &sink);
		break;
	case BP_FORMAT_CSV:
		bp_render_csv(r, &sink);
		break;
	}
	return bp_sink_close(&sink);
}
