// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The call tree: one node for each path of functions from the bottom of the stacks. Self figures are
 * added to nodes while walking, totals are summed up at the end.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <string.h>

#include "analyzers/tree.h"
#include "analyzers/view.h"
#include "core/cleanup.h"

static uint32_t hash_of(uint32_t parent, uint32_t row)
{
	uint64_t h = ((uint64_t)parent << 32 | row) * 0x9e3779b97f4a7c15ull;

	return (uint32_t)(h >> 32);
}

static bool tree_grow(struct bp_tree *t)
{
	uint32_t cap = t->cap ? t->cap * 2 : 4096, size = cap * 2;
	struct bp_tree_node *nodes = realloc(t->nodes, cap * sizeof(*nodes));
	uint32_t *hash = nodes ? malloc(size * sizeof(*hash)) : NULL;

	if (nodes)
		t->nodes = nodes;
	if (!hash)
		return false;
	memset(hash, 0xff, size * sizeof(*hash));
	for (uint32_t i = 1; i < t->n; i++) {
		uint32_t h = hash_of(nodes[i].parent, nodes[i].row) & (size - 1);

		while (hash[h] != UINT32_MAX)
			h = (h + 1) & (size - 1);
		hash[h] = i;
	}
	free(t->hash);
	t->hash = hash;
	t->hash_size = size;
	t->cap = cap;
	return true;
}

struct bp_err *bp_tree_init(struct bp_tree *t)
{
	memset(t, 0, sizeof(*t));
	if (!tree_grow(t))
		return bp_err_nomem();
	t->nodes[0] = (struct bp_tree_node){.row = BP_NO_ROW, .parent = 0};
	t->n = 1;
	return NULL;
}

void bp_tree_deinit(struct bp_tree *t)
{
	free(t->nodes);
	free(t->hash);
	memset(t, 0, sizeof(*t));
}

uint32_t bp_tree_child(struct bp_tree *t, uint32_t parent, uint32_t row)
{
	uint32_t last = t->nodes[parent].last, h;

	if (last && t->nodes[last].row == row)
		return last;
	for (h = hash_of(parent, row) & (t->hash_size - 1); t->hash[h] != UINT32_MAX;
	     h = (h + 1) & (t->hash_size - 1)) {
		uint32_t i = t->hash[h];

		if (t->nodes[i].parent == parent && t->nodes[i].row == row) {
			t->nodes[parent].last = i;
			return i;
		}
	}
	if (t->n >= t->cap) {
		if (t->cap >= BP_TREE_MAX) {
			t->full = true;
			return parent;
		}
		if (!tree_grow(t)) {
			t->failed = true;
			return parent;
		}
		for (h = hash_of(parent, row) & (t->hash_size - 1); t->hash[h] != UINT32_MAX;)
			h = (h + 1) & (t->hash_size - 1);
	}
	t->hash[h] = t->n;
	t->nodes[t->n] = (struct bp_tree_node){.row = row, .parent = parent};
	t->nodes[parent].last = t->n;
	return t->n++;
}

/* ---- the walk ---- */

static inline void tree_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	struct bp_tree *t = ctx;
	uint32_t node = bp_tree_child(t, (uint32_t)f[-1].user, f->row);

	(void)now;
	t->nodes[node].calls += node != (uint32_t)f[-1].user;
	f->user = node;
}

static inline void tree_resume(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	(void)now;
	f->user = bp_tree_child(ctx, (uint32_t)f[-1].user, f->row);
}

static inline void tree_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
			      enum bp_walk_leave how)
{
	struct bp_tree *t = ctx;
	struct bp_tree_node *node = &t->nodes[f->user];

	(void)now;
	(void)how;
	node->self_ns += f->self_ns;
	node->self_insns += f->self_insns;
}

static const struct bp_walk_ops hot_ops = {
    .on_enter = tree_enter,
    .on_resume = tree_resume,
    .on_leave = tree_leave,
};

const struct bp_walk_ops bp_tree_ops = {
    .on_enter = tree_enter,
    .on_resume = tree_resume,
    .on_leave = tree_leave,
};

/* ---- after the walk ---- */

struct line {
	uint32_t node;
	unsigned depth;
};

struct view {
	struct bp_analysis *a;
	struct bp_tree *t;
	uint64_t *total_ns, *total_insns; /* by node */
	struct line *lines;
	size_t n_lines;
};

static struct bp_err *sum_up(struct view *v)
{
	const struct bp_tree *t = v->t;

	v->total_ns = malloc(t->n * sizeof(*v->total_ns));
	v->total_insns = malloc(t->n * sizeof(*v->total_insns));
	if (!v->total_ns || !v->total_insns)
		return bp_err_nomem();
	for (uint32_t i = 0; i < t->n; i++) {
		v->total_ns[i] = t->nodes[i].self_ns;
		v->total_insns[i] = t->nodes[i].self_insns;
	}
	for (uint32_t i = t->n - 1; i > 0; i--) {
		v->total_ns[t->nodes[i].parent] += v->total_ns[i];
		v->total_insns[t->nodes[i].parent] += v->total_insns[i];
	}
	return NULL;
}

static void view_deinit(struct view *v)
{
	free(v->total_ns);
	free(v->total_insns);
	free(v->lines);
}

static uint64_t weight(const struct view *v, uint32_t node)
{
	return v->a->query->clock == BP_CLOCK_TIME ? v->total_ns[node] : v->total_insns[node];
}

static int compare_nodes(const void *x, const void *y, void *arg)
{
	const struct view *v = arg;
	uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
	uint32_t pa = v->t->nodes[a].parent, pb = v->t->nodes[b].parent;

	if (pa != pb)
		return pa < pb ? -1 : 1;
	if (weight(v, a) != weight(v, b))
		return weight(v, a) > weight(v, b) ? -1 : 1;
	return a < b ? -1 : a > b;
}

/* List the nodes to be shown, depth first, heaviest child first. */
static struct bp_err *make_lines(struct view *v)
{
	const struct bp_query *q = v->a->query;
	const struct bp_tree *t = v->t;
	bp_autofree uint32_t *order = malloc(t->n * sizeof(*order));
	bp_autofree uint32_t *first = calloc(t->n + 1, sizeof(*first));
	bp_autofree struct line *stack = malloc(t->n * sizeof(*stack));
	double least = (double)weight(v, 0) * q->min_percent / 100;
	size_t sp = 0, n = 0;

	v->lines = malloc(t->n * sizeof(*v->lines));
	if (!order || !first || !stack || !v->lines)
		return bp_err_nomem();
	for (uint32_t i = 1; i < t->n; i++) {
		if ((double)weight(v, i) >= least && v->total_ns[i] >= q->min_ns)
			order[n++] = i;
	}
	qsort_r(order, n, sizeof(*order), compare_nodes, v);
	/* first[node]: position of its first child in order[], plus one */
	for (size_t i = n; i-- > 0;)
		first[t->nodes[order[i]].parent] = (uint32_t)i + 1;
	stack[sp++] = (struct line){0, 0};
	while (sp) {
		struct line l = stack[--sp];
		size_t begin, end;

		if (l.node)
			v->lines[v->n_lines++] = (struct line){l.node, l.depth - 1};
		if ((q->depth && l.depth >= q->depth) || !first[l.node])
			continue;
		begin = first[l.node] - 1;
		for (end = begin; end < n && t->nodes[order[end]].parent == l.node; end++)
			;
		while (end-- > begin)
			stack[sp++] = (struct line){order[end], l.depth + 1};
	}
	return NULL;
}

/*
 * Turn the tree of callees into one of callers: below each function asked for, who called it. Time is that
 * of its outermost calls; a call inside another one of the same function adds to the number of calls only.
 */
static struct bp_err *invert(const struct view *v, const uint8_t *match, struct bp_tree *out)
{
	const struct bp_tree *t = v->t;
	bp_autofree bool *inside = calloc(t->n, sizeof(*inside));
	struct bp_err *err = bp_tree_init(out);

	if (err)
		return err;
	if (!inside)
		return bp_err_nomem();
	for (uint32_t i = 1; i < t->n; i++) {
		const struct bp_tree_node *x = &t->nodes[i];
		bool wanted = match[x->row] & BP_MATCH_IN, outermost = true;
		uint32_t to = 0;

		inside[i] = inside[x->parent] || wanted;
		if (!wanted)
			continue;
		for (uint32_t p = x->parent; p && inside[p]; p = t->nodes[p].parent) {
			if (t->nodes[p].row == x->row) {
				outermost = false;
				break;
			}
		}
		for (uint32_t p = i; p; p = t->nodes[p].parent) {
			to = bp_tree_child(out, to, t->nodes[p].row);
			if (out->failed)
				return bp_err_nomem();
			out->nodes[to].calls += x->calls;
			if (outermost) {
				/* complete figures: sum_up() is not used for this tree */
				out->nodes[to].self_ns += v->total_ns[i];
				out->nodes[to].self_insns += v->total_insns[i];
			}
		}
		if (outermost) {
			out->nodes[0].self_ns += v->total_ns[i];
			out->nodes[0].self_insns += v->total_insns[i];
		}
	}
	return NULL;
}

/* ---- the table ---- */

enum {
	T_TOTAL,
	T_TOTAL_PCT,
	T_SELF,
	T_CALLS,
	T_TOTAL_INSNS,
	T_TOTAL_INSNS_PCT,
	T_SELF_INSNS,
	T_NAME,
	T_MODULE,
	T_LINE
};

static const struct bp_field fields[] = {
    [T_TOTAL] = {"total_ns", "TOTAL", BP_COL_NS, false},
    [T_TOTAL_PCT] = {"total_pct", "TOTAL%", BP_COL_PERCENT, false},
    [T_SELF] = {"self_ns", "SELF", BP_COL_NS, false},
    [T_CALLS] = {"calls", "CALLS", BP_COL_COUNT, false},
    [T_TOTAL_INSNS] = {"total_insns", "TOTAL INSNS", BP_COL_INSNS, false},
    [T_TOTAL_INSNS_PCT] = {"total_insns_pct", "TOTAL%", BP_COL_PERCENT, false},
    [T_SELF_INSNS] = {"self_insns", "SELF INSNS", BP_COL_INSNS, false},
    [T_NAME] = {"name", "FUNCTION", BP_COL_STR, true},
    [T_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [T_LINE] = {"line", "SOURCE", BP_COL_STR, false},
};

static void cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	const struct view *v = ctx;
	uint32_t node = v->lines[i].node;
	const struct bp_tree_node *x = &v->t->nodes[node];
	const char *line;

	switch (field) {
	case T_TOTAL:
		bp_cell_int(c, v->total_ns[node]);
		break;
	case T_TOTAL_PCT:
		bp_cell_pct(c, (double)v->total_ns[node], (double)v->total_ns[0]);
		break;
	case T_SELF:
		if (!v->a->query->callers)
			bp_cell_int(c, x->self_ns);
		break;
	case T_CALLS:
		bp_cell_int(c, x->calls);
		break;
	case T_TOTAL_INSNS:
		bp_cell_int(c, v->total_insns[node]);
		break;
	case T_TOTAL_INSNS_PCT:
		bp_cell_pct(c, (double)v->total_insns[node], (double)v->total_insns[0]);
		break;
	case T_SELF_INSNS:
		if (!v->a->query->callers)
			bp_cell_int(c, x->self_insns);
		break;
	case T_NAME:
		bp_cell_str(c, bp_row_name(&v->a->rows, x->row, c->buf));
		break;
	case T_MODULE:
		bp_cell_str(c, bp_row_module(&v->a->rows, x->row));
		break;
	case T_LINE:
		line = bp_analysis_line(v->a, x->row);
		if (line)
			bp_cell_str(c, line);
		break;
	default:
		break;
	}
}

static unsigned depth(void *ctx, size_t i)
{
	const struct view *v = ctx;

	return v->lines[i].depth;
}

static struct bp_err *table(struct view *v, struct bp_report *r)
{
	struct bp_analysis *a = v->a;
	bool callers = a->query->callers, lines = a->query->lines;
	struct bp_view_table t = {
	    .id = "tree",
	    .title = callers        ? "Who calls it (time of the function at the left margin)"
		     : a->query->in ? "What it calls"
				    : "What calls what",
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time = callers ? (lines ? "total_pct,total_ns,calls,total_insns,name,module,line"
					  : "total_pct,total_ns,calls,total_insns,name,module")
				 : (lines ? "total_pct,total_ns,self_ns,calls,total_insns,name,module,line"
					  : "total_pct,total_ns,self_ns,calls,total_insns,name,module"),
	    .text_insns =
		callers ? (lines ? "total_insns_pct,total_insns,calls,total_ns,name,module,line"
				 : "total_insns_pct,total_insns,calls,total_ns,name,module")
			: (lines ? "total_insns_pct,total_insns,self_insns,calls,total_ns,name,module,line"
				 : "total_insns_pct,total_insns,self_insns,calls,total_ns,name,module"),
	    .cell = cell,
	    .depth = depth,
	    .ctx = v,
	    .fixed_order = true,
	    .main = true,
	};
	struct bp_err *err = make_lines(v);

	if (err)
		return err;
	t.n_rows = v->n_lines;
	return bp_view_add(a, r, &t);
}

static struct bp_err *show_callers(struct view *v, struct bp_report *r, const uint8_t *match)
{
	bp_cleanup(bp_tree_deinit) struct bp_tree inverted = {0};
	bp_cleanup(view_deinit) struct view c = {.a = v->a, .t = &inverted};
	struct bp_err *err = invert(v, match, &inverted);

	if (err)
		return err;
	c.total_ns = malloc(inverted.n * sizeof(*c.total_ns));
	c.total_insns = malloc(inverted.n * sizeof(*c.total_insns));
	if (!c.total_ns || !c.total_insns)
		return bp_err_nomem();
	for (uint32_t i = 0; i < inverted.n; i++) {
		c.total_ns[i] = inverted.nodes[i].self_ns;
		c.total_insns[i] = inverted.nodes[i].self_insns;
	}
	return table(&c, r);
}

/* --module: as -F for all functions of the module. */
static struct bp_err *match_modules(struct bp_analysis *a, uint8_t **ret)
{
	uint8_t *match;

	*ret = NULL;
	if (!a->row_shown)
		return NULL;
	match = calloc(a->rows.n + 1, 1);
	if (!match)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++) {
		match[i] = a->walk.match ? a->walk.match[i] : 0;
		if (a->walk.has_in && !(match[i] & BP_MATCH_IN))
			continue;
		match[i] = (uint8_t)((match[i] & ~BP_MATCH_IN) | (a->row_shown[i] ? BP_MATCH_IN : 0));
	}
	*ret = match;
	a->walk.match = match;
	a->walk.has_in = true;
	return NULL;
}

static struct bp_err *tree_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(bp_tree_deinit) struct bp_tree t = {0};
	bp_cleanup(view_deinit) struct view v = {.a = a, .t = &t};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	bp_autofree uint8_t *modules = NULL;
	bool callers = a->query->callers;
	struct bp_err *err = match_modules(a, &modules);

	if (err)
		return err;
	if (callers && !a->walk.has_in)
		return bp_err_new(BP_EUSAGE,
				  "tree --callers: whose? Name a function with -F (or a --module)");
	a->walk.max_depth = 0; /* it cuts what is shown, not what is counted */
	if (callers)
		a->walk.has_in = false;
	err = bp_tree_init(&t);
	if (!err)
		err = bp_analysis_walk(a, &w);
	if (!err)
		err = bp_walk_inline(w, &hot_ops, &t);
	if (err)
		return err;
	if (t.failed)
		return bp_err_nomem();
	bp_analysis_walked(a, w);
	a->folds_left_out = true;
	bp_view_title(a, r, callers ? "Callers" : "Call tree");
	if (t.full)
		bp_report_note(
		    r, "there are more than %u call paths: the others are counted as part of their callers",
		    BP_TREE_MAX);
	err = sum_up(&v);
	if (err)
		return err;
	bp_report_scalar(r, "total_ns", (int64_t)v.total_ns[0]);
	bp_report_scalar(r, "total_insns", (int64_t)v.total_insns[0]);
	err = callers ? show_callers(&v, r, a->walk.match) : table(&v, r);
	if (!err && a->query->min_percent > 0)
		bp_report_note(r, "paths with less than %g%% are left out (--min-percent)",
			       a->query->min_percent);
	a->walk.match = NULL;
	return err;
}

const struct bp_view bp_view_tree = {
    .name = "tree",
    .summary = "the call tree; with -F what a function calls, with --callers who calls it",
    .run = tree_run,
};
