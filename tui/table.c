// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tui/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/phases.h"
#include "core/cleanup.h"
#include "core/units.h"

#define MAX_COLUMNS 40
#define WIDTH_ROWS 400 /* rows that widths of columns are taken from */
#define CELL_MAX 256

struct job_slot {
	struct bp_job *job;
	const struct bp_view *view;
	bool callers;
	uint32_t function;
	enum bp_clock clock;
	uint64_t from, to;
	char *filter;
};

struct list {
	const struct bp_report *of; /* what order[] was made from */
	int sort;                   /* column, -1: as the rows come */
	bool up, sorted;
	char filter[128];
	uint32_t *order;
	size_t n;
	size_t at, top;
	bool follow_selected;
};

struct bp_tables {
	const struct bp_table_tab *tabs;
	unsigned n_tabs, tab;
	struct job_slot *jobs; /* by tab; tabs of the same view use the first one's */
	struct list *lists;    /* by tab */
	int rows_y, rows_h;    /* of the last drawing */
	char *before;          /* filter before the prompt */
};

/* ---- reading ---- */

int bp_table_column(const struct bp_table *t, const char *id)
{
	size_t n;
	const struct bp_col *cols = bp_table_cols(t, &n);

	for (size_t i = 0; i < n; i++) {
		if (!strcmp(cols[i].id, id))
			return (int)i;
	}
	return -1;
}

static struct bp_value value_of(const struct bp_table *t, size_t row, int column)
{
	return bp_table_value(t, row, column < 0 ? SIZE_MAX : (size_t)column);
}

bool bp_table_number(const struct bp_table *t, size_t row, int column, double *ret)
{
	struct bp_value v = value_of(t, row, column);

	switch (v.kind) {
	case BP_VALUE_U64:
		*ret = (double)v.u;
		return true;
	case BP_VALUE_I64:
		*ret = (double)v.i;
		return true;
	case BP_VALUE_PCT:
		*ret = v.pct;
		return true;
	default:
		return false;
	}
}

const char *bp_table_string(const struct bp_table *t, size_t row, int column, char *buf, size_t size)
{
	struct bp_value v = value_of(t, row, column);
	size_t n = v.kind == BP_VALUE_STR ? v.len : 0;

	n = n < size - 1 ? n : size - 1;
	if (n)
		memcpy(buf, v.s, n);
	buf[n] = 0;
	return buf;
}

uint32_t bp_table_function(const struct bp_tui *tui, const struct bp_table *t, size_t row)
{
	int name = bp_table_column(t, "name"), module = bp_table_column(t, "module"),
	    addr = bp_table_column(t, "addr");
	char n[CELL_MAX], m[CELL_MAX];
	double unused;

	/* Modules, phases and system calls have names, too. */
	if (name < 0 || module < 0 || !*bp_table_string(t, row, name, n, sizeof(n)))
		return BP_NO_ROW;
	bp_table_string(t, row, module, m, sizeof(m));
	return bp_tui_function(tui, n, m,
			       bp_table_number(t, row, addr, &unused) ? value_of(t, row, addr).u : 0);
}

/* A cell as people read it. */
static const char *cell_text(const struct bp_table *t, const struct bp_col *col, size_t row, int column,
			     char *buf, size_t size)
{
	struct bp_value v = value_of(t, row, column);
	char units[BP_UNITS_MAX];

	*buf = 0;
	switch (v.kind) {
	case BP_VALUE_STR:
		return bp_table_string(t, row, column, buf, size);
	case BP_VALUE_PCT:
		snprintf(buf, size, "%s", bp_units_pct(units, v.pct));
		return buf;
	case BP_VALUE_U64:
	case BP_VALUE_I64:
		break;
	default:
		return buf;
	}
	switch (col->type) {
	case BP_COL_NS:
		snprintf(buf, size, "%s", bp_units_ns(units, v.i));
		break;
	case BP_COL_INSNS:
		snprintf(buf, size, "%s", bp_units_icount(units, v.i));
		break;
	case BP_COL_HEX:
		snprintf(buf, size, "0x%" PRIx64, v.u);
		break;
	default:
		/* Numbers such as process ids are read as they are. */
		if (v.u < 1000000)
			snprintf(buf, size, "%" PRIu64, v.u);
		else
			snprintf(buf, size, "%s", bp_units_count(units, v.u));
		break;
	}
	return buf;
}

/* ---- life ---- */

struct bp_err *bp_tables_create(const struct bp_table_tab *tabs, unsigned n, struct bp_tables **ret)
{
	struct bp_tables *t = calloc(1, sizeof(*t));

	if (t) {
		t->tabs = tabs;
		t->n_tabs = n;
		t->jobs = calloc(n, sizeof(*t->jobs));
		t->lists = calloc(n, sizeof(*t->lists));
	}
	if (!t || !t->jobs || !t->lists) {
		bp_tables_close(NULL, t);
		return bp_err_nomem();
	}
	for (unsigned i = 0; i < n; i++)
		t->lists[i].sort = -1;
	*ret = t;
	return NULL;
}

void bp_tables_close(struct bp_tui *tui, void *self)
{
	struct bp_tables *t = self;

	(void)tui;
	if (!t)
		return;
	for (unsigned i = 0; i < t->n_tabs; i++) {
		if (t->jobs) {
			bp_job_destroy(t->jobs[i].job);
			free(t->jobs[i].filter);
		}
		if (t->lists)
			free(t->lists[i].order);
	}
	free(t->jobs);
	free(t->lists);
	free(t->before);
	free(t);
}

/* ---- reports ---- */

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

struct bp_err *bp_tables_report(struct bp_tui *tui, struct bp_tables *t, unsigned i,
				const struct bp_report **ret, const char **error)
{
	const struct bp_table_tab *tab = &t->tabs[i];
	struct bp_job_request rq = {.view = bp_view_find(tab->view),
				    .clock = tui->clock,
				    .callers = tab->callers,
				    .min_percent = tab->min_percent,
				    .filter = tui->filter_text};
	char name[BP_ROW_NAME_MAX];
	uint32_t function = tab->callers ? tui->selected : BP_NO_ROW;
	struct job_slot *s;
	struct bp_err *err;

	*ret = NULL;
	*error = NULL;
	for (unsigned k = 0; k < i; k++) {
		if (!strcmp(t->tabs[k].view, tab->view) && t->tabs[k].callers == tab->callers)
			i = k;
	}
	s = &t->jobs[i];
	if (!strncmp(tab->view, "diff:", 5)) {
		rq.diff = bp_diff_view_find(tab->view + 5);
		rq.compare = tui->compare;
		if (!rq.compare) {
			*error = "start with --baseline=FILE, an earlier recording or its baseline, to see "
				 "what changed";
			return NULL;
		}
	}
	if (!rq.view && !rq.diff) {
		*error = "nothing of this kind is recorded by this version of bootprof";
		return NULL;
	}
	if (tab->callers && function == BP_NO_ROW) {
		*error = "select a function first";
		return NULL;
	}
	if (function != BP_NO_ROW)
		rq.function = bp_row_name(&tui->a->rows, function, name);
	/* Times of one boot mean nothing in another: whole boots are compared. */
	if (!rq.diff)
		rq.ranged = bp_tui_range(tui, &rq.from_ns, &rq.to_ns);
	if (s->job && (s->clock != tui->clock || s->from != rq.from_ns || s->to != rq.to_ns ||
		       s->function != function || !same_text(s->filter, tui->filter_text))) {
		for (unsigned k = 0; k < t->n_tabs; k++) {
			if (!strcmp(t->tabs[k].view, tab->view))
				t->lists[k].of = NULL;
		}
		bp_job_destroy(s->job);
		s->job = NULL;
	}
	if (!s->job) {
		free(s->filter);
		s->filter = tui->filter_text ? strdup(tui->filter_text) : NULL;
		s->clock = tui->clock;
		s->from = rq.from_ns;
		s->to = rq.to_ns;
		s->function = function;
		err = bp_job_start(tui->trace, &rq, tui->threads, &s->job);
		if (err)
			return err;
	}
	if (!bp_job_done(s->job, false)) {
		tui->pending = true;
		return NULL;
	}
	*ret = bp_job_report(s->job, error);
	return NULL;
}

bool bp_tables_busy(struct bp_tui *tui, void *self, bool wait)
{
	struct bp_tables *t = self;
	bool busy = false;

	(void)tui;
	for (unsigned i = 0; i < t->n_tabs; i++)
		busy |= t->jobs[i].job && !bp_job_done(t->jobs[i].job, wait);
	return busy;
}

/* ---- order ---- */

static bool has_tree(const struct bp_table *t)
{
	size_t n;
	const struct bp_col *cols = bp_table_cols(t, &n);

	for (size_t i = 0; i < n; i++) {
		if (cols[i].tree)
			return true;
	}
	return false;
}

static bool row_matches(const struct bp_table *t, size_t row, const char *filter)
{
	size_t n;
	const struct bp_col *cols = bp_table_cols(t, &n);
	char buf[CELL_MAX];

	if (!*filter)
		return true;
	for (size_t c = 0; c < n; c++) {
		if (cols[c].type == BP_COL_STR &&
		    strcasestr(bp_table_string(t, row, (int)c, buf, sizeof(buf)), filter))
			return true;
	}
	return false;
}

struct sort {
	const struct bp_table *t;
	int column;
	bool up, text;
};

static int compare_rows(const void *a, const void *b, void *arg)
{
	const struct sort *s = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	int order = 0;

	if (s->text) {
		char p[CELL_MAX], q[CELL_MAX];

		order = strcmp(bp_table_string(s->t, x, s->column, p, sizeof(p)),
			       bp_table_string(s->t, y, s->column, q, sizeof(q)));
	} else {
		double p, q;
		bool has_p = bp_table_number(s->t, x, s->column, &p),
		     has_q = bp_table_number(s->t, y, s->column, &q);

		/* Without a value: at the end, either way. */
		if (has_p != has_q)
			return has_p ? -1 : 1;
		if (has_p)
			order = p < q ? -1 : p > q;
	}
	if (!s->up)
		order = -order;
	return order ? order : (x > y) - (x < y);
}

static struct bp_err *make_order(struct list *l, const struct bp_report *r, const struct bp_table *t)
{
	uint32_t keep = l->order && l->at < l->n ? l->order[l->at] : 0;
	bool same = l->of == r;
	size_t n_rows = bp_table_n_rows(t), n_cols;
	const struct bp_col *cols = bp_table_cols(t, &n_cols);
	uint32_t *order = calloc(n_rows + 1, sizeof(*order));
	struct sort sort = {.t = t, .up = l->up};

	if (!order)
		return bp_err_nomem();
	free(l->order);
	l->order = order;
	l->of = r;
	l->n = 0;
	for (size_t i = 0; i < n_rows; i++) {
		if (row_matches(t, i, l->filter))
			l->order[l->n++] = (uint32_t)i;
	}
	if (l->sort >= (int)n_cols)
		l->sort = -1;
	sort.column = l->sort;
	sort.text = l->sort >= 0 && cols[l->sort].type == BP_COL_STR;
	if (l->sort >= 0 && !has_tree(t))
		qsort_r(l->order, l->n, sizeof(*l->order), compare_rows, &sort);
	l->at = l->at < l->n ? l->at : l->n ? l->n - 1 : 0;
	/* Who looks at the first row wants to see what is first. */
	for (size_t i = 0; same && l->at && i < l->n; i++) {
		if (l->order[i] == keep)
			l->at = i;
	}
	return NULL;
}

/* Go to the row of the function that is selected elsewhere. */
static void follow(const struct bp_tui *tui, struct list *l, const struct bp_table *t)
{
	const struct bp_row *want;
	int name = bp_table_column(t, "name"), addr = bp_table_column(t, "addr");
	char buf[CELL_MAX], row_name[BP_ROW_NAME_MAX];

	if (!l->follow_selected)
		return;
	l->follow_selected = false;
	if (tui->selected >= tui->a->rows.n || name < 0 || bp_table_column(t, "module") < 0)
		return;
	want = &tui->a->rows.rows[tui->selected];
	for (size_t i = 0; i < l->n; i++) {
		struct bp_value a = value_of(t, l->order[i], addr);

		if (a.kind == BP_VALUE_U64 && a.u != want->addr)
			continue;
		if (!strcmp(bp_table_string(t, l->order[i], name, buf, sizeof(buf)),
			    bp_row_name(&tui->a->rows, tui->selected, row_name))) {
			l->at = i;
			return;
		}
	}
}

/* ---- drawing ---- */

struct layout {
	unsigned n;
	int column[MAX_COLUMNS], x[MAX_COLUMNS], w[MAX_COLUMNS];
	bool right[MAX_COLUMNS];
};

static void make_layout(const struct bp_grid *g, const struct bp_table *t, const struct list *l,
			struct bp_rect r, struct layout *out)
{
	size_t n_cols;
	const struct bp_col *cols = bp_table_cols(t, &n_cols);
	int x = r.x + 1;
	char buf[CELL_MAX];

	out->n = 0;
	for (size_t c = 0; c < n_cols && out->n < MAX_COLUMNS; c++) {
		unsigned k = out->n;
		int w;

		if (!(cols[c].where & BP_COL_TEXT))
			continue;
		w = bp_grid_text_width(g, cols[c].title, strlen(cols[c].title)) + 1;
		for (size_t i = 0; i < WIDTH_ROWS; i++) {
			size_t row = i < l->n ? i : SIZE_MAX;
			int n;

			/* The first rows, and then those that are shown. */
			if (i >= WIDTH_ROWS / 2)
				row = l->top + i - WIDTH_ROWS / 2;
			if (row >= l->n)
				continue;
			cell_text(t, &cols[c], l->order[row], (int)c, buf, sizeof(buf));
			n = bp_grid_text_width(g, buf, strlen(buf));
			if (cols[c].tree)
				n += 2 * (int)bp_table_depth_of(t, l->order[row]);
			w = n > w ? n : w;
		}
		out->column[k] = (int)c;
		out->right[k] = cols[c].type != BP_COL_STR;
		out->x[k] = x;
		out->w[k] = w;
		x += w + 2;
		out->n++;
	}
	/* Too wide: texts give way, the longest first; then figures at the right, but for the one sorted by.
	 */
	while (x - 2 > r.x + r.w - 1) {
		unsigned widest = MAX_COLUMNS, last = MAX_COLUMNS, k;
		int by = 1;

		for (k = 0; k < out->n; k++) {
			if (!out->right[k] && out->w[k] > 26 &&
			    (widest == MAX_COLUMNS || out->w[k] > out->w[widest]))
				widest = k;
			if (out->right[k] && k > 2 && out->column[k] != l->sort)
				last = k;
		}
		if (widest == MAX_COLUMNS && last == MAX_COLUMNS)
			break;
		k = widest == MAX_COLUMNS ? last : widest;
		if (widest == MAX_COLUMNS) {
			by = out->w[k] + 2;
			for (unsigned j = k; j + 1 < out->n; j++) {
				out->column[j] = out->column[j + 1];
				out->x[j] = out->x[j + 1];
				out->w[j] = out->w[j + 1];
				out->right[j] = out->right[j + 1];
			}
			out->n--;
		} else {
			out->w[k]--;
			k++;
		}
		for (; k < out->n; k++)
			out->x[k] -= by;
		x -= by;
	}
}

static void draw_cell_at(struct bp_grid *g, int x, int y, int w, bool right, unsigned style, const char *text)
{
	int n = bp_grid_text_width(g, text, strlen(text));

	if (x + w > (int)g->w - 1)
		w = (int)g->w - 1 - x;
	if (right && n < w)
		bp_grid_text(g, x + w - n, y, n, style, text);
	else
		bp_grid_text(g, x, y, w, style, text);
}

static void draw_rows(const struct bp_tui *tui, struct bp_tables *tables, struct bp_grid *g, struct bp_rect r,
		      const struct bp_table *t, struct list *l)
{
	size_t n_cols;
	const struct bp_col *cols = bp_table_cols(t, &n_cols);
	struct layout layout;
	char buf[CELL_MAX];
	int room = r.h - 1, name = bp_table_column(t, "name");

	if (l->at < l->top)
		l->top = l->at;
	if (l->at >= l->top + (size_t)room)
		l->top = l->at - (size_t)room + 1;
	if (l->n <= (size_t)room)
		l->top = 0;
	make_layout(g, t, l, r, &layout);
	bp_grid_fill(g, r.x, r.y, r.w, ' ', BP_STYLE_BAR);
	for (unsigned k = 0; k < layout.n; k++) {
		int c = layout.column[k];
		char title[64];

		snprintf(title, sizeof(title), "%.60s%s", cols[c].title,
			 c != l->sort ? ""
			 : g->ascii   ? (l->up ? "^" : "v")
			 : l->up      ? "\xe2\x96\xb2"
				      : "\xe2\x96\xbc");
		draw_cell_at(g, layout.x[k], r.y, layout.w[k], layout.right[k],
			     BP_STYLE_BAR | (c == l->sort ? BP_STYLE_SELECT : 0), title);
	}
	tables->rows_y = r.y + 1;
	tables->rows_h = room;
	for (int i = 0; i < room && l->top + (size_t)i < l->n; i++) {
		size_t row = l->order[l->top + (size_t)i];
		int y = r.y + 1 + i;
		uint32_t function = name >= 0 ? bp_table_function(tui, t, row) : BP_NO_ROW;
		unsigned style =
		    function == BP_NO_ROW ? (unsigned)BP_STYLE_TEXT : bp_tui_style_of(tui, function);

		for (unsigned k = 0; k < layout.n; k++) {
			int c = layout.column[k],
			    indent = cols[c].tree ? 2 * (int)bp_table_depth_of(t, row) : 0;

			cell_text(t, &cols[c], row, c, buf, sizeof(buf));
			indent = indent > layout.w[k] / 2 ? layout.w[k] / 2 : indent;
			draw_cell_at(g, layout.x[k] + indent, y, layout.w[k] - indent, layout.right[k],
				     c == name ? style : (unsigned)BP_STYLE_TEXT, buf);
		}
		if (l->top + (size_t)i == l->at)
			bp_grid_style(g, r.x, y, r.w, BP_STYLE_CURSOR);
		if (l->top + (size_t)i == l->at && g->plain)
			bp_grid_put(g, r.x, y, '>', BP_STYLE_BOLD | BP_STYLE_CURSOR);
	}
}

static void draw_notes(struct bp_grid *g, struct bp_rect r, const struct bp_report *report)
{
	const char *note;
	size_t len;

	for (size_t i = 0; (int)i < r.h && (note = bp_report_note_at(report, i, &len)); i++)
		bp_grid_textn(g, r.x + 2, r.y + (int)i, r.w - 4, BP_STYLE_DIM, note, len);
}

static void draw_tabs(const struct bp_tui *tui, const struct bp_tables *t, struct bp_grid *g,
		      struct bp_rect r)
{
	const struct list *l = &t->lists[t->tab];
	uint64_t from, to;
	char units[BP_UNITS_MAX], right[256];
	int x = r.x + 1;

	for (unsigned i = 0; i < t->n_tabs; i++) {
		x += bp_grid_text(g, x, r.y, r.w - x,
				  i == t->tab ? BP_STYLE_BOLD | BP_STYLE_CURSOR : BP_STYLE_DIM,
				  t->tabs[i].title);
		x += 2;
	}
	right[0] = 0;
	if (*l->filter)
		snprintf(right, sizeof(right), "/%.60s  ", l->filter);
	if (l->of)
		snprintf(right + strlen(right), sizeof(right) - strlen(right), "%zu/%zu",
			 l->n ? l->at + 1 : 0, l->n);
	if (bp_tui_range(tui, &from, &to))
		snprintf(right + strlen(right), sizeof(right) - strlen(right), "  A..B %s",
			 bp_units_ns(units, (int64_t)(to - from)));
	if (r.w - x > (int)strlen(right) + 1)
		bp_grid_text(g, r.x + r.w - 1 - bp_grid_text_width(g, right, strlen(right)), r.y, r.w,
			     BP_STYLE_TEXT, right);
}

static struct bp_err *current(struct bp_tui *tui, struct bp_tables *t, const struct bp_report **report,
			      const struct bp_table **table, const char **error)
{
	struct list *l = &t->lists[t->tab];
	struct bp_err *err = bp_tables_report(tui, t, t->tab, report, error);

	*table = NULL;
	if (err || !*report)
		return err;
	*table = bp_report_find(*report, t->tabs[t->tab].table);
	if (!*table)
		return NULL;
	if (l->of != *report) {
		err = make_order(l, *report, *table);
		if (err)
			return err;
	}
	follow(tui, l, *table);
	return NULL;
}

struct bp_err *bp_tables_draw(struct bp_tui *tui, void *self, struct bp_grid *g, struct bp_rect r)
{
	struct bp_tables *t = self;
	const struct bp_report *report;
	const struct bp_table *table;
	const char *error;
	struct bp_err *err = current(tui, t, &report, &table, &error);
	struct bp_rect body = {r.x, r.y + 1, r.w, r.h - 1};

	if (err)
		return err;
	draw_tabs(tui, t, g, r);
	if (!report) {
		bp_grid_text(g, r.x + 2, r.y + 2, r.w - 4, error ? BP_STYLE_WARN : BP_STYLE_DIM,
			     error ? error : "being computed; go on, this list comes when it is ready");
	} else if (!table || !bp_table_n_rows(table)) {
		bp_grid_text(g, r.x + 2, r.y + 2, r.w - 4, BP_STYLE_TEXT,
			     "Nothing of this kind was recorded.");
		body.y += 3;
		body.h -= 3;
		draw_notes(g, body, report);
	} else {
		draw_rows(tui, t, g, body, table, &t->lists[t->tab]);
	}
	return NULL;
}

/* ---- keys ---- */

static void move(struct bp_tui *tui, const struct bp_table *table, struct list *l, long by)
{
	uint32_t function;

	if (!l->n)
		return;
	if (by < 0 && (size_t)-by > l->at)
		l->at = 0;
	else
		l->at = (size_t)((long)l->at + by);
	if (l->at >= l->n)
		l->at = l->n - 1;
	function = bp_table_function(tui, table, l->order[l->at]);
	if (function != BP_NO_ROW)
		tui->selected = function;
}

static struct bp_err *sort_by(struct bp_tui *tui, struct list *l, const struct bp_report *r,
			      const struct bp_table *t, int step)
{
	size_t n;
	const struct bp_col *cols = bp_table_cols(t, &n);
	int c = l->sort;

	if (has_tree(t)) {
		bp_tui_say(tui, "a tree has its own order");
		return NULL;
	}
	if (!step) {
		l->up = !l->up;
		if (c < 0)
			return NULL;
	} else {
		do {
			c += step;
			if (c >= (int)n)
				c = 0;
			if (c < 0)
				c = (int)n - 1;
		} while (!(cols[c].where & BP_COL_TEXT));
		l->sort = c;
		l->up = cols[c].type == BP_COL_STR;
	}
	l->of = r;
	return make_order(l, r, t);
}

/* Columns that say when; the first that the table has. */
static bool row_time(const struct bp_table *t, size_t row, uint64_t *from, uint64_t *to)
{
	static const char *const starts[] = {"start_ns", "init_start_ns", "time_ns", "first_ns"};
	static const char *const ends[] = {"end_ns", "init_end_ns", NULL, "last_ns"};
	double v, end;

	for (size_t i = 0; i < BP_ARRAY_SIZE(starts); i++) {
		if (!bp_table_number(t, row, bp_table_column(t, starts[i]), &v) || v < 0)
			continue;
		*from = *to = (uint64_t)bp_tui_i64(v);
		if (ends[i] && bp_table_number(t, row, bp_table_column(t, ends[i]), &end))
			*to = end > v ? (uint64_t)bp_tui_i64(end) : *from;
		else if (bp_table_number(t, row, bp_table_column(t, "duration_ns"), &end))
			*to = end > 0 ? (uint64_t)bp_tui_i64(v + end) : *from;
		return true;
	}
	return false;
}

static struct bp_err *enter(struct bp_tui *tui, const struct bp_table *t, size_t row)
{
	uint32_t function = bp_table_function(tui, t, row);
	uint64_t from, to;
	double vcpu;

	if (!row_time(t, row, &from, &to)) {
		char name[CELL_MAX];

		bp_table_string(t, row, bp_table_column(t, "name"), name, sizeof(name));
		if (function != BP_NO_ROW || !bp_phases_find(tui->a, name, &from, &to))
			return bp_tui_jump_to(tui, function);
	}
	if (bp_table_number(t, row, bp_table_column(t, "vcpu"), &vcpu) && vcpu >= 0 && vcpu < BP_LOD_VCPUS)
		tui->cursor_vcpu = (int)vcpu;
	if (to > from) {
		double a = bp_tui_pos(tui, from), b = bp_tui_pos(tui, to);

		bp_tui_set_window(tui, a - (b - a) / 20, b + (b - a) / 20, true);
	}
	return bp_tui_jump_at(tui, function, from);
}

static void change_tab(struct bp_tables *t, int step)
{
	t->tab = (unsigned)((int)(t->tab + t->n_tabs) + step) % t->n_tabs;
	t->lists[t->tab].follow_selected = true;
}

struct bp_err *bp_tables_key(struct bp_tui *tui, void *self, const struct bp_key *key, bool *used)
{
	struct bp_tables *t = self;
	struct list *l;
	const struct bp_report *report;
	const struct bp_table *table;
	const char *error;
	struct bp_err *err;

	*used = true;
	if (key->code == BP_KEY_TAB || key->code == BP_KEY_BACKTAB) {
		change_tab(t, key->code == BP_KEY_TAB ? 1 : -1);
		return NULL;
	}
	*used = false;
	l = &t->lists[t->tab];
	err = current(tui, t, &report, &table, &error);
	if (err || !table)
		return err;
	*used = true;
	switch (key->code) {
	case BP_KEY_UP:
	case 'k':
		move(tui, table, l, -1);
		return NULL;
	case BP_KEY_DOWN:
	case 'j':
		move(tui, table, l, 1);
		return NULL;
	case BP_KEY_WHEEL_UP:
		move(tui, table, l, -3);
		return NULL;
	case BP_KEY_WHEEL_DOWN:
		move(tui, table, l, 3);
		return NULL;
	case BP_KEY_PAGE_UP:
		move(tui, table, l, -(long)t->rows_h);
		return NULL;
	case BP_KEY_PAGE_DOWN:
		move(tui, table, l, t->rows_h);
		return NULL;
	case BP_KEY_HOME:
		move(tui, table, l, -(1L << 40));
		return NULL;
	case BP_KEY_END:
		move(tui, table, l, 1L << 40);
		return NULL;
	case '/':
		free(t->before);
		t->before = strdup(l->filter);
		bp_tui_ask(tui, "rows with: ", l->filter);
		return NULL;
	case BP_KEY_ESCAPE:
		l->filter[0] = 0;
		return make_order(l, report, table);
	case '<':
		return sort_by(tui, l, report, table, -1);
	case '>':
		return sort_by(tui, l, report, table, 1);
	case 's':
		return sort_by(tui, l, report, table, 0);
	case BP_KEY_PRESS:
	case BP_KEY_DOUBLE:
		if (key->y >= t->rows_y && key->y < t->rows_y + t->rows_h)
			move(tui, table, l, (long)(l->top + (size_t)(key->y - t->rows_y)) - (long)l->at);
		if (key->code == BP_KEY_PRESS)
			return NULL;
		return l->n ? enter(tui, table, l->order[l->at]) : NULL;
	case BP_KEY_ENTER:
		return l->n ? enter(tui, table, l->order[l->at]) : NULL;
	default:
		*used = false;
		return NULL;
	}
}

struct bp_err *bp_tables_prompt(struct bp_tui *tui, void *self, const char *text, bool done)
{
	struct bp_tables *t = self;
	struct list *l = &t->lists[t->tab];
	const struct bp_report *report;
	const struct bp_table *table;
	const char *error;
	struct bp_err *err;

	(void)done;
	snprintf(l->filter, sizeof(l->filter), "%s", text);
	err = current(tui, t, &report, &table, &error);
	if (err || !table)
		return err;
	return make_order(l, report, table);
}

void bp_tables_sync(struct bp_tui *tui, void *self)
{
	struct bp_tables *t = self;

	(void)tui;
	t->lists[t->tab].follow_selected = true;
}

void bp_tables_adopt(struct bp_tui *tui, void *self, void *old)
{
	struct bp_tables *t = self;
	const struct bp_tables *from = old;

	(void)tui;
	t->tab = from->tab;
	for (unsigned i = 0; i < t->n_tabs; i++) {
		struct list *l = &t->lists[i];

		l->sort = from->lists[i].sort;
		l->up = from->lists[i].up;
		memcpy(l->filter, from->lists[i].filter, sizeof(l->filter));
		l->at = from->lists[i].at;
		l->top = from->lists[i].top;
	}
}

const struct bp_tui_help bp_tables_help[] = {
    {"Up Down j k", "select a row"},
    {"PgUp PgDn Home End", "a page, the first, the last"},
    {"Tab", "the next list of this screen"},
    {"/", "only rows with this text, as one types; Esc: all again"},
    {"< >", "sort by the column to the left, to the right"},
    {"s", "turn the order round"},
    {"Enter", "show the row's place on the timeline; Enter there comes back"},
    {"A B X", "the range that the figures are of: set on the timeline"},
    {NULL, NULL},
};
