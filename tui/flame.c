// SPDX-License-Identifier: GPL-2.0-or-later
/* Screen 2: the call tree of the range as an icicle: width is total time (or instructions), depth goes down.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/units.h"
#include "tui/table.h"

static const struct bp_table_tab tabs[] = {{.title = "tree", .view = "tree", .min_percent = 0.05}};

/* A row of the tree with its place. */
struct node {
	double from, total; /* of all; the clock's unit */
	uint32_t parent;    /* UINT32_MAX: none */
	unsigned depth;
};

struct flame {
	struct bp_tables *tables;
	const struct bp_report *of;
	struct node *nodes;
	size_t n;
	size_t at;     /* selected */
	uint32_t root; /* the one that fills the width; UINT32_MAX: all */
	double whole;
	unsigned top; /* first depth that is shown */
	bool follow;
	struct bp_rect r;
};

static void flame_close(struct bp_tui *tui, void *self)
{
	struct flame *f = self;

	if (!f)
		return;
	bp_tables_close(tui, f->tables);
	free(f->nodes);
	free(f);
}

static struct bp_err *flame_open(struct bp_tui *tui, void **ret)
{
	struct flame *f = calloc(1, sizeof(*f));
	struct bp_err *err;

	if (!f)
		return bp_err_nomem();
	f->root = UINT32_MAX;
	err = bp_tables_create(tabs, 1, &f->tables);
	if (err) {
		flame_close(tui, f);
		return err;
	}
	*ret = f;
	return NULL;
}

static int total_column(const struct bp_tui *tui, const struct bp_table *t)
{
	return bp_table_column(t, tui->clock == BP_CLOCK_TIME ? "total_ns" : "total_insns");
}

/* Places: children side by side from their parent's left edge, in the order of the report. */
static struct bp_err *layout(const struct bp_tui *tui, struct flame *f, const struct bp_report *r,
			     const struct bp_table *t)
{
	size_t n = bp_table_n_rows(t), n_open = 0;
	struct node *nodes = calloc(n + 1, sizeof(*nodes));
	bp_autofree uint32_t *open = calloc(n + 1, sizeof(*open)); /* the row at each depth */
	bp_autofree double *next = calloc(n + 2, sizeof(*next)); /* where the next one at that depth begins */
	int column = total_column(tui, t);

	if (!nodes || !open || !next) {
		free(nodes);
		return bp_err_nomem();
	}
	for (size_t i = 0; i < n; i++) {
		unsigned depth = bp_table_depth_of(t, i);
		double total = 0;

		depth = depth > n_open ? (unsigned)n_open : depth;
		if (!bp_table_number(t, i, column, &total) || !(total > 0))
			total = 0;
		nodes[i] = (struct node){.from = next[depth],
					 .total = total,
					 .depth = depth,
					 .parent = depth ? open[depth - 1] : UINT32_MAX};
		open[depth] = (uint32_t)i;
		n_open = depth + 1u;
		next[depth] += total;
		next[depth + 1] = nodes[i].from;
	}
	free(f->nodes);
	f->nodes = nodes;
	f->n = n;
	f->of = r;
	f->whole = next[0] > 0 ? next[0] : 1;
	f->at = f->at < n ? f->at : 0;
	f->root = UINT32_MAX;
	return NULL;
}

static struct bp_err *ready(struct bp_tui *tui, struct flame *f, const struct bp_table **ret,
			    const char **error)
{
	const struct bp_report *r;
	struct bp_err *err = bp_tables_report(tui, f->tables, 0, &r, error);

	*ret = NULL;
	if (err || !r)
		return err;
	*ret = bp_report_find(r, NULL);
	if (*ret && f->of != r)
		err = layout(tui, f, r, *ret);
	if (!err && *ret && f->follow) {
		double best = -1;

		for (size_t i = 0; i < f->n && tui->selected != BP_NO_ROW; i++) {
			if (f->nodes[i].total > best && bp_table_function(tui, *ret, i) == tui->selected) {
				best = f->nodes[i].total;
				f->at = i;
			}
		}
	}
	f->follow = false;
	return err;
}

static bool below(const struct flame *f, size_t i, uint32_t root)
{
	while (i != root && f->nodes[i].parent != UINT32_MAX)
		i = f->nodes[i].parent;
	return i == root;
}

/* Columns of a node; false: it is outside. */
static bool extent(const struct flame *f, size_t i, int *from, int *to)
{
	double base = 0, width = f->whole, a, b;
	bool above = false;

	if (f->root != UINT32_MAX) {
		base = f->nodes[f->root].from;
		width = f->nodes[f->root].total > 0 ? f->nodes[f->root].total : 1;
		above = below(f, f->root, (uint32_t)i);
		if (!above && !below(f, i, f->root))
			return false;
	}
	a = above ? 0 : (f->nodes[i].from - base) / width * f->r.w;
	b = above ? f->r.w : a + f->nodes[i].total / width * f->r.w;
	*from = (int)(a + 0.5);
	*to = (int)(b + 0.5);
	return *to > *from;
}

static void draw_node(const struct bp_tui *tui, const struct flame *f, struct bp_grid *g,
		      const struct bp_table *t, size_t i, bool alt)
{
	int from, to, y = f->r.y + (int)f->nodes[i].depth - (int)f->top, used;
	uint32_t row = bp_table_function(tui, t, i);
	unsigned style = row == BP_NO_ROW ? (unsigned)BP_STYLE_OTHER : bp_tui_style_of(tui, row);
	char name[256];

	if (f->nodes[i].depth < f->top || y >= f->r.y + f->r.h || !extent(f, i, &from, &to))
		return;
	if (tui->search.rows && row < tui->a->rows.n && tui->search.rows[row])
		style = BP_STYLE_MATCH;
	style |= BP_STYLE_FILL | (alt ? BP_STYLE_ALT : 0) | (i == f->at ? BP_STYLE_CURSOR : 0) |
		 (row == tui->selected && row != BP_NO_ROW ? BP_STYLE_SELECT : 0);
	bp_grid_put(g, f->r.x + from, y, g->ascii ? '|' : 0x258f, style);
	bp_table_string(t, i, bp_table_column(t, "name"), name, sizeof(name));
	used = to - from >= 4 ? 1 + bp_grid_text(g, f->r.x + from + 1, y, to - from - 1, style, name) : 1;
	bp_grid_fill(g, f->r.x + from + used, y, to - from - used,
		     !g->plain  ? ' '
		     : g->ascii ? '='
				: 0x2500,
		     style);
}

static void draw_info(const struct bp_tui *tui, const struct flame *f, struct bp_grid *g,
		      const struct bp_table *t, int y)
{
	char name[256], module[128], total[BP_UNITS_MAX], self[BP_UNITS_MAX], calls[BP_UNITS_MAX],
	    pct[BP_UNITS_MAX];
	double v = 0, s = 0, c = 0;
	bool time = tui->clock == BP_CLOCK_TIME;

	bp_grid_fill(g, 0, y, (int)g->w, g->ascii ? '-' : 0x2500, BP_STYLE_DIM);
	bp_table_number(t, f->at, total_column(tui, t), &v);
	bp_table_number(t, f->at, bp_table_column(t, time ? "self_ns" : "self_insns"), &s);
	bp_table_number(t, f->at, bp_table_column(t, "calls"), &c);
	bp_table_string(t, f->at, bp_table_column(t, "name"), name, sizeof(name));
	bp_table_string(t, f->at, bp_table_column(t, "module"), module, sizeof(module));
	bp_grid_printf(g, 1, y + 1, (int)g->w - 2, BP_STYLE_BOLD, "%s  %s  total %s %s  self %s  %s calls",
		       name, module,
		       time ? bp_units_ns(total, bp_tui_i64(v)) : bp_units_icount(total, bp_tui_i64(v)),
		       bp_units_pct(pct, 100 * v / f->whole),
		       time ? bp_units_ns(self, bp_tui_i64(s)) : bp_units_icount(self, bp_tui_i64(s)),
		       bp_units_count(calls, (uint64_t)bp_tui_i64(c)));
}

static struct bp_err *flame_draw(struct bp_tui *tui, void *self, struct bp_grid *g, struct bp_rect r)
{
	struct flame *f = self;
	const struct bp_table *t;
	const char *error;
	uint64_t from, to;
	char units[BP_UNITS_MAX];
	struct bp_err *err = ready(tui, f, &t, &error);

	if (err)
		return err;
	f->r = (struct bp_rect){r.x, r.y + 1, r.w, r.h - 3};
	bp_grid_text(g, r.x + 1, r.y, r.w - 2, BP_STYLE_BOLD,
		     bp_tui_range(tui, &from, &to) ? "Call tree of A..B"
						   : "Call tree of the whole recording");
	if (bp_tui_range(tui, &from, &to))
		bp_grid_printf(g, r.x + 20, r.y, r.w - 22, BP_STYLE_TEXT, "%s",
			       bp_units_ns(units, (int64_t)(to - from)));
	if (!t || !f->n) {
		bp_grid_text(g, r.x + 2, r.y + 2, r.w - 4, error ? BP_STYLE_WARN : BP_STYLE_DIM,
			     error ? error
			     : t   ? "Nothing ran in this range."
				   : "being computed; go on, it comes when it is ready");
		return NULL;
	}
	if (f->nodes[f->at].depth < f->top)
		f->top = f->nodes[f->at].depth;
	if (f->nodes[f->at].depth >= f->top + (unsigned)f->r.h)
		f->top = f->nodes[f->at].depth - (unsigned)f->r.h + 1;
	for (size_t i = 0; i < f->n; i++)
		draw_node(tui, f, g, t, i, i & 1);
	draw_info(tui, f, g, t, r.y + r.h - 2);
	return NULL;
}

/* The nearest node at that depth that has a place: to the left or right of the selected one. */
static void move_beside(struct flame *f, int step)
{
	unsigned depth = f->nodes[f->at].depth;

	for (size_t i = f->at + (size_t)step; i < f->n; i += (size_t)step) {
		int from, to;

		if (f->nodes[i].depth == depth && extent(f, i, &from, &to)) {
			f->at = i;
			return;
		}
	}
}

static void move_down(struct flame *f)
{
	size_t best = f->at;
	double most = 0;

	for (size_t i = f->at + 1; i < f->n && f->nodes[i].depth > f->nodes[f->at].depth; i++) {
		if (f->nodes[i].parent == f->at && f->nodes[i].total > most) {
			most = f->nodes[i].total;
			best = i;
		}
	}
	f->at = best;
}

static struct bp_err *flame_key(struct bp_tui *tui, void *self, const struct bp_key *key, bool *used)
{
	struct flame *f = self;
	const struct bp_table *t;
	const char *error;
	struct bp_err *err = ready(tui, f, &t, &error);
	uint32_t row;

	if (err || !t || !f->n)
		return err;
	*used = true;
	switch (key->code) {
	case BP_KEY_LEFT:
	case 'h':
		move_beside(f, -1);
		break;
	case BP_KEY_RIGHT:
	case 'l':
		move_beside(f, 1);
		break;
	case BP_KEY_UP:
	case 'k':
	case BP_KEY_WHEEL_UP:
		if (f->nodes[f->at].parent != UINT32_MAX)
			f->at = f->nodes[f->at].parent;
		break;
	case BP_KEY_DOWN:
	case 'j':
	case BP_KEY_WHEEL_DOWN:
		move_down(f);
		break;
	case 'w':
	case '+':
	case ' ':
		f->root = (uint32_t)f->at;
		return NULL;
	case 's':
	case '-':
		if (f->root != UINT32_MAX)
			f->root = f->nodes[f->root].parent;
		return NULL;
	case 'f':
	case 'F':
		f->root = UINT32_MAX;
		return NULL;
	case BP_KEY_PRESS:
	case BP_KEY_DOUBLE:
		for (size_t i = 0; i < f->n; i++) {
			int from, to, x = key->x - f->r.x;

			if ((int)f->nodes[i].depth - (int)f->top == key->y - f->r.y &&
			    extent(f, i, &from, &to) && x >= from && x < to)
				f->at = i;
		}
		if (key->code == BP_KEY_DOUBLE)
			f->root = (uint32_t)f->at;
		break;
	case BP_KEY_ENTER:
		return bp_tui_jump_to(tui, bp_table_function(tui, t, f->at));
	default:
		*used = false;
		return NULL;
	}
	row = bp_table_function(tui, t, f->at);
	if (row != BP_NO_ROW)
		tui->selected = row;
	return NULL;
}

static void flame_sync(struct bp_tui *tui, void *self)
{
	(void)tui;
	((struct flame *)self)->follow = true;
}

static bool flame_busy(struct bp_tui *tui, void *self, bool wait)
{
	return bp_tables_busy(tui, ((struct flame *)self)->tables, wait);
}

static const struct bp_tui_help help[] = {
    {"Left Right h l", "the function beside it"},
    {"Up Down k j", "its caller, the callee with most time"},
    {"w + Space", "the selected function fills the width (double click)"},
    {"s -", "its caller does"},
    {"f", "all of it again"},
    {"Enter", "the next call of the function on the timeline"},
    {NULL, NULL},
};

const struct bp_tui_view bp_tui_flame = {
    .digit = '2',
    .name = "Flame",
    .command = "flame",
    .hints = "arrows move  w fill the width  s back out  f all  Enter show on timeline  / find  A B range  1 "
	     "timeline  "
	     ": commands  q quit",
    .help = help,
    .open = flame_open,
    .close = flame_close,
    .draw = flame_draw,
    .key = flame_key,
    .sync = flame_sync,
    .busy = flame_busy,
};
