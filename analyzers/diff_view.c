// SPDX-License-Identifier: GPL-2.0-or-later
/* The comparison of two boots as reports. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/diff.h"
#include "analyzers/view.h"
#include "core/cleanup.h"
#include "core/units.h"

enum { OLD, NEW };

struct ctx {
	const struct bp_diff *d;
	struct bp_analysis *a;
	struct bp_report *r;
	uint32_t *index; /* rows that are shown */
	unsigned *depth;
	size_t n;
	const struct bp_diff_item *items;
	char *path;
};

static void ctx_deinit(struct ctx *c)
{
	free(c->index);
	free(c->depth);
	free(c->path);
}

static int64_t func_change(const struct bp_diff *d, const struct bp_diff_func *f)
{
	return d->clock == BP_CLOCK_INSNS ? f->self_insns[NEW] - f->self_insns[OLD]
					  : f->self_ns[NEW] - f->self_ns[OLD];
}

struct keyed {
	int64_t key;
	uint32_t i;
};

static int compare_keys(const void *x, const void *y)
{
	const struct keyed *a = x, *b = y;

	if (a->key != b->key)
		return a->key > b->key ? -1 : 1;
	return a->i < b->i ? -1 : a->i > b->i;
}

/*
 * Rows that @keep wants, largest key first. For people, without those that only the other clock tells apart;
 * in data they must be there, as both clocks add up.
 */
static struct bp_err *choose(struct ctx *c, size_t n, bool all,
			     bool (*keep)(const struct bp_diff *, size_t, bool, int64_t *))
{
	bp_autofree struct keyed *list = malloc((n + 1) * sizeof(*list));

	free(c->index);
	c->index = malloc((n + 2) * sizeof(*c->index));
	c->n = 0;
	if (!list || !c->index)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		if (keep(c->d, i, all, &list[c->n].key))
			list[c->n++].i = (uint32_t)i;
	}
	qsort(list, c->n, sizeof(*list), compare_keys);
	for (size_t i = 0; i < c->n; i++)
		c->index[i] = list[i].i;
	return NULL;
}

/* Change as a percentage of the old figure. */
static void pct(struct bp_cell *cell, int64_t from, int64_t to)
{
	bp_cell_pct(cell, (double)(to - from), (double)from);
}

static void side(struct bp_cell *cell, bool has, int64_t v)
{
	if (has)
		bp_cell_int(cell, (uint64_t)v);
}

/* ---- phases ---- */

enum { P_NAME, P_OLD, P_NEW, P_DELTA, P_PCT, P_OLD_I, P_NEW_I, P_DELTA_I, P_PCT_I, P_WHAT };

static const struct bp_field phase_fields[] = {
    [P_NAME] = {"name", "PHASE", BP_COL_STR, false},
    [P_OLD] = {"old_ns", "OLD", BP_COL_NS, false},
    [P_NEW] = {"new_ns", "NEW", BP_COL_NS, false},
    [P_DELTA] = {"delta_ns", "CHANGE", BP_COL_NS, false},
    [P_PCT] = {"delta_pct", "%", BP_COL_PERCENT, false},
    [P_OLD_I] = {"old_insns", "OLD INSNS", BP_COL_INSNS, false},
    [P_NEW_I] = {"new_insns", "NEW INSNS", BP_COL_INSNS, false},
    [P_DELTA_I] = {"delta_insns", "CHANGE", BP_COL_INSNS, false},
    [P_PCT_I] = {"delta_insns_pct", "%", BP_COL_PERCENT, false},
    [P_WHAT] = {"what", "", BP_COL_STR, false},
};

/* Row n_phases: what is in no phase; the one after it: all. */
static void phase_cell(void *ctx, size_t i, size_t field, struct bp_cell *cell)
{
	const struct bp_diff *d = ((struct ctx *)ctx)->d;
	struct bp_diff_phase p = {0};

	if (i < d->n_phases) {
		p = d->phases[i];
	} else if (i == d->n_phases) {
		p = (struct bp_diff_phase){"(unaccounted)", {true, true}, {0, 0}, {0, 0}};
		for (int s = OLD; s <= NEW; s++) {
			p.ns[s] = d->unaccounted_ns[s];
			p.insns[s] = (int64_t)d->s[s]->insns;
			for (size_t k = 0; k < d->n_phases; k++)
				p.insns[s] -= d->phases[k].insns[s];
		}
	} else {
		p = (struct bp_diff_phase){"(all)",
					   {true, true},
					   {(int64_t)d->s[OLD]->ns, (int64_t)d->s[NEW]->ns},
					   {(int64_t)d->s[OLD]->insns, (int64_t)d->s[NEW]->insns}};
	}
	switch (field) {
	case P_NAME:
		bp_cell_str(cell, p.name);
		break;
	case P_OLD:
		side(cell, p.has[OLD], p.ns[OLD]);
		break;
	case P_NEW:
		side(cell, p.has[NEW], p.ns[NEW]);
		break;
	case P_DELTA:
		bp_cell_int(cell, (uint64_t)(p.ns[NEW] - p.ns[OLD]));
		break;
	case P_PCT:
		pct(cell, p.ns[OLD], p.ns[NEW]);
		break;
	case P_OLD_I:
		side(cell, p.has[OLD], p.insns[OLD]);
		break;
	case P_NEW_I:
		side(cell, p.has[NEW], p.insns[NEW]);
		break;
	case P_DELTA_I:
		bp_cell_int(cell, (uint64_t)(p.insns[NEW] - p.insns[OLD]));
		break;
	case P_PCT_I:
		pct(cell, p.insns[OLD], p.insns[NEW]);
		break;
	case P_WHAT:
		bp_cell_str(cell, p.has[OLD] && p.has[NEW] ? "" : p.has[NEW] ? "new" : "gone");
		break;
	default:
		break;
	}
}

static struct bp_err *add_phases(struct ctx *c, bool main)
{
	const struct bp_diff *d = c->d;
	struct bp_view_table t = {
	    .id = "phases",
	    .title = "Phases",
	    .fields = phase_fields,
	    .n_fields = BP_ARRAY_SIZE(phase_fields),
	    .text_time = "name,old_ns,new_ns,delta_ns,delta_pct,delta_insns,what",
	    .text_insns = "name,old_insns,new_insns,delta_insns,delta_insns_pct,delta_ns,what",
	    .n_rows = d->n_phases + 2,
	    .cell = phase_cell,
	    .ctx = c,
	    .main = main,
	    .whole = true,
	    .fixed_order = true,
	};

	return bp_view_add(c->a, c->r, &t);
}

/* ---- functions ---- */

enum {
	F_DELTA,
	F_DELTA_PCT,
	F_OLD,
	F_NEW,
	F_DELTA_I,
	F_DELTA_I_PCT,
	F_OLD_I,
	F_NEW_I,
	F_DELTA_TOTAL,
	F_DELTA_TOTAL_I,
	F_CALLS_OLD,
	F_CALLS_NEW,
	F_NAME,
	F_MODULE,
	F_SPACE,
	F_WHAT,
	F_FROM,
	F_PATH,
};

static const struct bp_field func_fields[] = {
    [F_DELTA] = {"delta_ns", "CHANGE", BP_COL_NS, false},
    [F_DELTA_PCT] = {"delta_pct", "%", BP_COL_PERCENT, false},
    [F_OLD] = {"old_self_ns", "OLD SELF", BP_COL_NS, false},
    [F_NEW] = {"new_self_ns", "NEW SELF", BP_COL_NS, false},
    [F_DELTA_I] = {"delta_insns", "CHANGE", BP_COL_INSNS, false},
    [F_DELTA_I_PCT] = {"delta_insns_pct", "%", BP_COL_PERCENT, false},
    [F_OLD_I] = {"old_self_insns", "OLD SELF", BP_COL_INSNS, false},
    [F_NEW_I] = {"new_self_insns", "NEW SELF", BP_COL_INSNS, false},
    [F_DELTA_TOTAL] = {"delta_total_ns", "TOTAL CHANGE", BP_COL_NS, false},
    [F_DELTA_TOTAL_I] = {"delta_total_insns", "TOTAL CHANGE", BP_COL_INSNS, false},
    [F_CALLS_OLD] = {"calls_old", "OLD CALLS", BP_COL_COUNT, false},
    [F_CALLS_NEW] = {"calls_new", "NEW CALLS", BP_COL_COUNT, false},
    [F_NAME] = {"name", "FUNCTION", BP_COL_STR, false},
    [F_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [F_SPACE] = {"space", "SPACE", BP_COL_STR, false},
    [F_WHAT] = {"what", "", BP_COL_STR, false},
    [F_FROM] = {"from", "OTHER", BP_COL_STR, false},
    [F_PATH] = {"path", "PATH", BP_COL_STR, false},
};

static const char *const what_names[] = {
    [BP_DIFF_BOTH] = "",           [BP_DIFF_NEW] = "new",         [BP_DIFF_GONE] = "gone",
    [BP_DIFF_RENAMED] = "renamed", [BP_DIFF_INLINED] = "inlined", [BP_DIFF_SPLIT] = "split off",
};

#define OUTSIDE UINT32_MAX

static const char *what_of(const struct bp_diff_func *f, char *buf, size_t size)
{
	if (!f->from)
		return what_names[f->state];
	snprintf(buf, size, "%s: %.40s", what_names[f->state], f->from);
	return buf;
}

static void func_cell(void *ctx, size_t i, size_t field, struct bp_cell *cell)
{
	struct ctx *c = ctx;
	const struct bp_diff *d = c->d;
	struct bp_diff_func outside = {
	    .name = "(in no function)",
	    .module = "",
	    .space = BP_SPACE_N,
	    .self_insns = {d->outside_insns[OLD], d->outside_insns[NEW]},
	    .id = {0, 0},
	};
	const struct bp_diff_func *f = c->index[i] == OUTSIDE ? &outside : &d->funcs[c->index[i]];
	bool has[2] = {f->id[OLD] != BP_SUM_NONE || f->self_insns[OLD] || f->self_ns[OLD],
		       f->id[NEW] != BP_SUM_NONE || f->self_insns[NEW] || f->self_ns[NEW]};

	switch (field) {
	case F_DELTA:
		bp_cell_int(cell, (uint64_t)(f->self_ns[NEW] - f->self_ns[OLD]));
		break;
	case F_DELTA_PCT:
		pct(cell, f->self_ns[OLD], f->self_ns[NEW]);
		break;
	case F_OLD:
	case F_NEW:
		side(cell, has[field == F_NEW], f->self_ns[field == F_NEW]);
		break;
	case F_DELTA_I:
		bp_cell_int(cell, (uint64_t)(f->self_insns[NEW] - f->self_insns[OLD]));
		break;
	case F_DELTA_I_PCT:
		pct(cell, f->self_insns[OLD], f->self_insns[NEW]);
		break;
	case F_OLD_I:
	case F_NEW_I:
		side(cell, has[field == F_NEW_I], f->self_insns[field == F_NEW_I]);
		break;
	case F_DELTA_TOTAL:
		bp_cell_int(cell, (uint64_t)(f->total_ns[NEW] - f->total_ns[OLD]));
		break;
	case F_DELTA_TOTAL_I:
		bp_cell_int(cell, (uint64_t)(f->total_insns[NEW] - f->total_insns[OLD]));
		break;
	case F_CALLS_OLD:
	case F_CALLS_NEW:
		if (c->index[i] != OUTSIDE)
			side(cell, has[field == F_CALLS_NEW], (int64_t)f->calls[field == F_CALLS_NEW]);
		break;
	case F_NAME:
		bp_cell_str(cell, f->name);
		break;
	case F_MODULE:
		bp_cell_str(cell, f->module);
		break;
	case F_SPACE:
		bp_cell_str(cell, bp_space_name(f->space));
		break;
	case F_WHAT:
		bp_cell_str(cell, what_of(f, cell->buf, sizeof(cell->buf)));
		break;
	case F_FROM:
		if (f->from)
			bp_cell_str(cell, f->from);
		break;
	case F_PATH:
		free(c->path);
		c->path = NULL;
		bp_err_ignore(bp_diff_path(d, f->node, &c->path));
		bp_cell_str(cell, c->path);
		break;
	default:
		break;
	}
}

static bool keep_func(const struct bp_diff *d, size_t i, bool all, int64_t *key)
{
	const struct bp_diff_func *f = &d->funcs[i];

	*key = llabs(func_change(d, f));
	return *key || f->state != BP_DIFF_BOTH || f->calls[OLD] != f->calls[NEW] ||
	       (all && (f->self_ns[OLD] != f->self_ns[NEW] || f->self_insns[OLD] != f->self_insns[NEW]));
}

static struct bp_err *add_functions(struct ctx *c, bool main, size_t limit)
{
	struct bp_view_table t = {
	    .id = "functions",
	    .title = c->d->clock == BP_CLOCK_INSNS ? "Functions, by change of their own instructions"
						   : "Functions, by change of their own time",
	    .fields = func_fields,
	    .n_fields = BP_ARRAY_SIZE(func_fields),
	    .text_time = "delta_ns,delta_pct,old_self_ns,new_self_ns,calls_old,calls_new,delta_insns,name,"
			 "module,what",
	    .text_insns = "delta_insns,delta_insns_pct,old_self_insns,new_self_insns,calls_old,calls_new,"
			  "delta_ns,name,module,what",
	    .cell = func_cell,
	    .ctx = c,
	    .main = main,
	    .limit = limit,
	};
	struct bp_err *err = choose(c, c->d->n_funcs, main && !c->a->query->text, keep_func);

	if (err)
		return err;
	if (main && !c->d->s[OLD]->filtered && c->d->outside_insns[OLD] != c->d->outside_insns[NEW])
		c->index[c->n++] = OUTSIDE;
	t.n_rows = c->n;
	return bp_view_add(c->a, c->r, &t);
}

/* ---- call paths ---- */

enum {
	T_DELTA,
	T_OLD,
	T_NEW,
	T_SELF,
	T_REST,
	T_DELTA_I,
	T_OLD_I,
	T_NEW_I,
	T_SELF_I,
	T_REST_I,
	T_CALLS_OLD,
	T_CALLS_NEW,
	T_NAME,
	T_MODULE,
	T_WHAT
};

static const struct bp_field tree_fields[] = {
    [T_DELTA] = {"delta_ns", "CHANGE", BP_COL_NS, false},
    [T_OLD] = {"old_ns", "OLD TOTAL", BP_COL_NS, false},
    [T_NEW] = {"new_ns", "NEW TOTAL", BP_COL_NS, false},
    [T_SELF] = {"delta_self_ns", "SELF CHANGE", BP_COL_NS, false},
    [T_REST] = {"delta_rest_ns", "REST CHANGE", BP_COL_NS, false},
    [T_DELTA_I] = {"delta_insns", "CHANGE", BP_COL_INSNS, false},
    [T_OLD_I] = {"old_insns", "OLD TOTAL", BP_COL_INSNS, false},
    [T_NEW_I] = {"new_insns", "NEW TOTAL", BP_COL_INSNS, false},
    [T_SELF_I] = {"delta_self_insns", "SELF CHANGE", BP_COL_INSNS, false},
    [T_REST_I] = {"delta_rest_insns", "REST CHANGE", BP_COL_INSNS, false},
    [T_CALLS_OLD] = {"calls_old", "OLD CALLS", BP_COL_COUNT, false},
    [T_CALLS_NEW] = {"calls_new", "NEW CALLS", BP_COL_COUNT, false},
    [T_NAME] = {"name", "FUNCTION", BP_COL_STR, true},
    [T_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [T_WHAT] = {"what", "", BP_COL_STR, false},
};

static void tree_cell(void *ctx, size_t i, size_t field, struct bp_cell *cell)
{
	struct ctx *c = ctx;
	const struct bp_diff_node *n = &c->d->nodes[c->index[i]];
	const struct bp_diff_func *f = &c->d->funcs[n->func];

	switch (field) {
	case T_DELTA:
		bp_cell_int(cell, (uint64_t)(n->total_ns[NEW] - n->total_ns[OLD]));
		break;
	case T_OLD:
	case T_NEW:
		side(cell, n->has[field == T_NEW], n->total_ns[field == T_NEW]);
		break;
	case T_SELF:
		bp_cell_int(cell, (uint64_t)(n->self_ns[NEW] - n->self_ns[OLD]));
		break;
	case T_REST:
		bp_cell_int(cell, (uint64_t)(n->rest_ns[NEW] - n->rest_ns[OLD]));
		break;
	case T_DELTA_I:
		bp_cell_int(cell, (uint64_t)(n->total_insns[NEW] - n->total_insns[OLD]));
		break;
	case T_OLD_I:
	case T_NEW_I:
		side(cell, n->has[field == T_NEW_I], n->total_insns[field == T_NEW_I]);
		break;
	case T_SELF_I:
		bp_cell_int(cell, (uint64_t)(n->self_insns[NEW] - n->self_insns[OLD]));
		break;
	case T_REST_I:
		bp_cell_int(cell, (uint64_t)(n->rest_insns[NEW] - n->rest_insns[OLD]));
		break;
	case T_CALLS_OLD:
	case T_CALLS_NEW:
		side(cell, n->has[field == T_CALLS_NEW], (int64_t)n->calls[field == T_CALLS_NEW]);
		break;
	case T_NAME:
		bp_cell_str(cell, f->name);
		break;
	case T_MODULE:
		bp_cell_str(cell, f->module);
		break;
	case T_WHAT:
		bp_cell_str(cell, !n->has[OLD]                  ? "new"
				  : !n->has[NEW]                ? "gone"
				  : f->state == BP_DIFF_RENAMED ? "renamed"
								: "");
		break;
	default:
		break;
	}
}

static unsigned tree_depth(void *ctx, size_t i)
{
	return ((struct ctx *)ctx)->depth[i];
}

static int64_t total_change(const struct bp_diff *d, const struct bp_diff_node *n)
{
	return d->clock == BP_CLOCK_INSNS ? n->total_insns[NEW] - n->total_insns[OLD]
					  : n->total_ns[NEW] - n->total_ns[OLD];
}

/* Sum of all changes on the path down to a node and below it, without signs: what is worth showing. */
static struct bp_err *choose_nodes(struct ctx *c)
{
	const struct bp_diff *d = c->d;
	size_t n = d->n_nodes, m = 0, sp = 0;
	bp_autofree int64_t *weight = calloc(n + 1, sizeof(*weight));
	bp_autofree struct keyed *kids = malloc((n + 1) * sizeof(*kids));
	bp_autofree uint32_t *first = calloc(n + 2, sizeof(*first)), *stack = malloc((n + 1) * 4);
	bp_autofree unsigned *depths = calloc(n + 1, sizeof(*depths));
	double least;

	free(c->index);
	free(c->depth);
	c->index = malloc((n + 1) * sizeof(*c->index));
	c->depth = malloc((n + 1) * sizeof(*c->depth));
	c->n = 0;
	if (!weight || !kids || !first || !stack || !depths || !c->index || !c->depth)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		const struct bp_diff_node *x = &d->nodes[i];

		weight[i] = d->clock == BP_CLOCK_INSNS ? llabs(x->self_insns[NEW] - x->self_insns[OLD]) +
							     llabs(x->rest_insns[NEW] - x->rest_insns[OLD])
						       : llabs(x->self_ns[NEW] - x->self_ns[OLD]) +
							     llabs(x->rest_ns[NEW] - x->rest_ns[OLD]);
	}
	for (size_t i = n; i-- > 1;)
		weight[d->nodes[i].parent] += weight[i];
	least = (double)weight[0] * c->a->query->min_percent / 100;
	/* Children by parent, the largest change first. */
	for (size_t i = 1; i < n; i++)
		first[d->nodes[i].parent + 1]++;
	for (size_t i = 0; i < n; i++)
		first[i + 1] += first[i];
	for (size_t i = 1; i < n; i++)
		kids[first[d->nodes[i].parent]++] =
		    (struct keyed){llabs(total_change(d, &d->nodes[i])), (uint32_t)i};
	stack[sp++] = 0;
	while (sp) {
		uint32_t at = stack[--sp];
		/* first[] was moved on: a node's children end where it points now. */
		size_t begin = at ? first[at - 1] : 0, end = first[at];

		if (at) {
			c->index[m] = at;
			c->depth[m++] = depths[at] - 1;
		}
		qsort(kids + begin, end - begin, sizeof(*kids), compare_keys);
		while (end-- > begin) {
			uint32_t kid = kids[end].i;

			if (!weight[kid] || (double)weight[kid] < least)
				continue;
			depths[kid] = depths[at] + 1;
			stack[sp++] = kid;
		}
	}
	c->n = m;
	return NULL;
}

static struct bp_err *add_tree(struct ctx *c)
{
	struct bp_view_table t = {
	    .id = "tree",
	    .title = "Call paths whose cost changed",
	    .fields = tree_fields,
	    .n_fields = BP_ARRAY_SIZE(tree_fields),
	    .text_time =
		"delta_ns,old_ns,new_ns,delta_self_ns,calls_old,calls_new,delta_insns,name,module,what",
	    .text_insns = "delta_insns,old_insns,new_insns,delta_self_insns,calls_old,calls_new,delta_ns,"
			  "name,module,what",
	    .cell = tree_cell,
	    .depth = tree_depth,
	    .ctx = c,
	    .main = true,
	    .fixed_order = true,
	};
	struct bp_err *err = choose_nodes(c);

	if (err)
		return err;
	t.n_rows = c->n;
	if (c->a->query->min_percent > 0)
		bp_report_note(c->r, "paths with less than %g%% of all changes are left out (--min-percent)",
			       c->a->query->min_percent);
	if (c->d->s[OLD]->pruned || c->d->s[NEW]->pruned)
		bp_report_note(c->r,
			       "a baseline keeps the %d most expensive paths; the cost of the others is "
			       "the rest of their callers",
			       BP_SUMMARY_PATHS);
	return bp_view_add(c->a, c->r, &t);
}

/* ---- first calls ---- */

enum {
	C_SHIFT,
	C_OLD,
	C_NEW,
	C_OLD_PHASE,
	C_NEW_PHASE,
	C_OLD_NS,
	C_NEW_NS,
	C_NAME,
	C_MODULE,
	C_CALLER,
	C_WHAT
};

static const struct bp_field first_fields[] = {
    [C_SHIFT] = {"shift", "PLACES", BP_COL_INSNS, false},
    [C_OLD] = {"old_rank", "OLD PLACE", BP_COL_COUNT, false},
    [C_NEW] = {"new_rank", "NEW PLACE", BP_COL_COUNT, false},
    [C_OLD_PHASE] = {"old_phase", "OLD PHASE", BP_COL_STR, false},
    [C_NEW_PHASE] = {"new_phase", "NEW PHASE", BP_COL_STR, false},
    [C_OLD_NS] = {"old_ns", "OLD TIME", BP_COL_NS, false},
    [C_NEW_NS] = {"new_ns", "NEW TIME", BP_COL_NS, false},
    [C_NAME] = {"name", "FUNCTION", BP_COL_STR, false},
    [C_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [C_CALLER] = {"caller", "CALLER", BP_COL_STR, false},
    [C_WHAT] = {"what", "", BP_COL_STR, false},
};

static const struct bp_sum_func *sum_func(const struct bp_diff *d, const struct bp_diff_func *f, int s)
{
	return f->id[s] == BP_SUM_NONE ? NULL : &d->s[s]->funcs[f->id[s]];
}

static const char *phase_name(const struct bp_diff *d, uint32_t phase)
{
	return phase == BP_SUM_NONE ? NULL : d->phases[phase].name;
}

static void first_cell(void *ctx, size_t i, size_t field, struct bp_cell *cell)
{
	struct ctx *c = ctx;
	const struct bp_diff *d = c->d;
	const struct bp_diff_func *f = &d->funcs[c->index[i]];
	const struct bp_sum_func *in[2] = {sum_func(d, f, OLD), sum_func(d, f, NEW)};
	int last = in[NEW] && in[NEW]->order ? NEW : OLD;

	switch (field) {
	case C_SHIFT:
		if (f->rank[OLD] && f->rank[NEW])
			bp_cell_int(cell, (uint64_t)((int64_t)f->rank[NEW] - (int64_t)f->rank[OLD]));
		break;
	case C_OLD:
	case C_NEW:
		side(cell, f->rank[field == C_NEW], f->rank[field == C_NEW]);
		break;
	case C_OLD_PHASE:
	case C_NEW_PHASE:
		bp_cell_str(cell, phase_name(d, f->phase[field == C_NEW_PHASE]));
		break;
	case C_OLD_NS:
	case C_NEW_NS:
		if (in[field == C_NEW_NS] && in[field == C_NEW_NS]->order)
			bp_cell_int(cell, f->first_ns[field == C_NEW_NS]);
		break;
	case C_NAME:
		bp_cell_str(cell, f->name);
		break;
	case C_MODULE:
		bp_cell_str(cell, f->module);
		break;
	case C_CALLER:
		if (in[last] && in[last]->caller != BP_SUM_NONE)
			bp_cell_str(cell, d->s[last]->funcs[in[last]->caller].name);
		break;
	case C_WHAT:
		bp_cell_str(cell, f->moved ? (f->rank[NEW] < f->rank[OLD] ? "earlier" : "later")
					   : what_of(f, cell->buf, sizeof(cell->buf)));
		break;
	default:
		break;
	}
}

/* Those that moved to another phase first, then those that are new or gone, then by how far they moved. */
static bool keep_first(const struct bp_diff *d, size_t i, bool all, int64_t *key)
{
	const struct bp_diff_func *f = &d->funcs[i];

	(void)all;
	if (f->moved) {
		*key = llabs((int64_t)f->rank[NEW] - (int64_t)f->rank[OLD]);
		if (f->phase[OLD] != f->phase[NEW])
			*key += (int64_t)2 << 40;
		return true;
	}
	*key = ((int64_t)1 << 40) + llabs(func_change(d, f)) % ((int64_t)1 << 40);
	return f->state == BP_DIFF_NEW || f->state == BP_DIFF_GONE;
}

static struct bp_err *add_first(struct ctx *c, bool main, size_t limit)
{
	struct bp_view_table t = {
	    .id = "first_calls",
	    .title = "First calls that moved, are new, or are gone",
	    .fields = first_fields,
	    .n_fields = BP_ARRAY_SIZE(first_fields),
	    .text_time = "shift,old_phase,new_phase,old_ns,new_ns,name,module,caller,what",
	    .cell = first_cell,
	    .ctx = c,
	    .main = main,
	    .limit = limit,
	};
	struct bp_err *err = choose(c, c->d->n_funcs, true, keep_first);

	if (err)
		return err;
	t.n_rows = c->n;
	return bp_view_add(c->a, c->r, &t);
}

/* ---- modules, initcalls, system calls ---- */

enum {
	I_NAME,
	I_KIND,
	I_CALLS_OLD,
	I_CALLS_NEW,
	I_OLD,
	I_NEW,
	I_DELTA,
	I_DELTA_I,
	I_OLD_I,
	I_NEW_I,
	I_OLD_P,
	I_NEW_P,
	I_WHAT
};

static const struct bp_field item_fields[] = {
    [I_NAME] = {"name", "NAME", BP_COL_STR, false},
    [I_KIND] = {"level", "LEVEL", BP_COL_STR, false},
    [I_CALLS_OLD] = {"calls_old", "OLD CALLS", BP_COL_COUNT, false},
    [I_CALLS_NEW] = {"calls_new", "NEW CALLS", BP_COL_COUNT, false},
    [I_OLD] = {"old_ns", "OLD", BP_COL_NS, false},
    [I_NEW] = {"new_ns", "NEW", BP_COL_NS, false},
    [I_DELTA] = {"delta_ns", "CHANGE", BP_COL_NS, false},
    [I_DELTA_I] = {"delta_insns", "CHANGE INSNS", BP_COL_INSNS, false},
    [I_OLD_I] = {"old_insns", "OLD INSNS", BP_COL_INSNS, false},
    [I_NEW_I] = {"new_insns", "NEW INSNS", BP_COL_INSNS, false},
    [I_OLD_P] = {"old_phase", "OLD PHASE", BP_COL_STR, false},
    [I_NEW_P] = {"new_phase", "NEW PHASE", BP_COL_STR, false},
    [I_WHAT] = {"what", "", BP_COL_STR, false},
};

static void item_cell(void *ctx, size_t i, size_t field, struct bp_cell *cell)
{
	struct ctx *c = ctx;
	const struct bp_diff_item *x = &c->items[c->index[i]];

	switch (field) {
	case I_NAME:
		bp_cell_str(cell, x->name);
		break;
	case I_KIND:
		bp_cell_str(cell, x->kind);
		break;
	case I_CALLS_OLD:
	case I_CALLS_NEW:
		side(cell, x->has[field == I_CALLS_NEW], (int64_t)x->calls[field == I_CALLS_NEW]);
		break;
	case I_OLD:
	case I_NEW:
		side(cell, x->has[field == I_NEW], x->ns[field == I_NEW]);
		break;
	case I_DELTA:
		bp_cell_int(cell, (uint64_t)(x->ns[NEW] - x->ns[OLD]));
		break;
	case I_DELTA_I:
		bp_cell_int(cell, (uint64_t)(x->insns[NEW] - x->insns[OLD]));
		break;
	case I_OLD_I:
	case I_NEW_I:
		side(cell, x->has[field == I_NEW_I], x->insns[field == I_NEW_I]);
		break;
	case I_OLD_P:
	case I_NEW_P:
		bp_cell_str(cell, phase_name(c->d, x->phase[field == I_NEW_P]));
		break;
	case I_WHAT:
		bp_cell_str(cell, !x->has[OLD]                    ? "new"
				  : !x->has[NEW]                  ? "gone"
				  : x->calls[NEW] > x->calls[OLD] ? "more often"
				  : x->calls[NEW] < x->calls[OLD] ? "less often"
				  : x->phase[OLD] != x->phase[NEW]
				      ? (x->phase[NEW] < x->phase[OLD] ? "earlier" : "later")
				      : "");
		break;
	default:
		break;
	}
}

static struct bp_err *add_items(struct ctx *c, const char *id, const char *title,
				const struct bp_diff_item *items, size_t n, bool main, size_t limit)
{
	bool modules = items == c->d->modules, initcalls = items == c->d->initcalls;
	bp_autofree struct keyed *list = malloc((n + 1) * sizeof(*list));
	struct bp_view_table t = {
	    .id = id,
	    .title = title,
	    .fields = item_fields,
	    .n_fields = BP_ARRAY_SIZE(item_fields),
	    .text_time = modules     ? "name,old_ns,new_ns,delta_ns,delta_insns,old_phase,new_phase,what"
			 : initcalls ? "name,level,old_ns,new_ns,delta_ns,delta_insns,what"
				     : "name,calls_old,calls_new,old_ns,new_ns,delta_ns,delta_insns,what",
	    .text_insns = modules ? "name,old_insns,new_insns,delta_insns,delta_ns,old_phase,new_phase,what"
			  : initcalls
			      ? "name,level,old_insns,new_insns,delta_insns,delta_ns,what"
			      : "name,calls_old,calls_new,old_insns,new_insns,delta_insns,delta_ns,what",
	    .cell = item_cell,
	    .ctx = c,
	    .main = main,
	    .limit = limit,
	};

	free(c->index);
	c->index = malloc((n + 1) * sizeof(*c->index));
	c->n = 0;
	c->items = items;
	if (!list || !c->index)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		const struct bp_diff_item *x = &items[i];
		int64_t insns = x->insns[NEW] - x->insns[OLD], ns = x->ns[NEW] - x->ns[OLD];
		bool changed = x->has[OLD] != x->has[NEW] || x->calls[OLD] != x->calls[NEW] ||
			       x->phase[OLD] != x->phase[NEW];

		int64_t change = llabs(c->d->clock == BP_CLOCK_INSNS ? insns : ns);

		if (change || changed || (main && !c->a->query->text && (insns || ns)))
			list[c->n++] = (struct keyed){change, (uint32_t)i};
	}
	qsort(list, c->n, sizeof(*list), compare_keys);
	for (size_t i = 0; i < c->n; i++)
		c->index[i] = list[i].i;
	t.n_rows = c->n;
	return bp_view_add(c->a, c->r, &t);
}

/* ---- reports ---- */

enum { V_OVERVIEW, V_PHASES, V_FUNCTIONS, V_TREE, V_FIRST, V_MODULES, V_INITCALLS, V_SYSCALLS };

const struct bp_diff_view bp_diff_views[] = {
    [V_OVERVIEW] = {"overview", "phases, functions, first calls, modules, initcalls and system calls"},
    [V_PHASES] = {"phases", "time and instructions of each phase; sums up to the change of the boot"},
    [V_FUNCTIONS] = {"functions", "functions whose own cost or number of calls changed; sums up as well"},
    [V_TREE] = {"tree", "call paths whose cost changed"},
    [V_FIRST] = {"first-calls", "functions whose first call moved, is new, or is gone"},
    [V_MODULES] = {"modules", "kernel modules loaded earlier, later, more often, or not"},
    [V_INITCALLS] = {"initcalls", "initcalls whose cost changed"},
    [V_SYSCALLS] = {"syscalls", "system calls whose cost or number changed"},
};
const size_t bp_n_diff_views = BP_ARRAY_SIZE(bp_diff_views);

const struct bp_diff_view *bp_diff_view_find(const char *name)
{
	for (size_t i = 0; i < bp_n_diff_views; i++) {
		if (!strcmp(bp_diff_views[i].name, name))
			return &bp_diff_views[i];
	}
	return NULL;
}

static void add_title(struct bp_report *r, const char *which, const struct bp_summary *s)
{
	char t[BP_UNITS_MAX], i[BP_UNITS_MAX], c[BP_UNITS_MAX];

	bp_report_title(r, "%s: %s: %s%s, %s, %s instructions, %s calls%s%s%s", which, s->path,
			*s->kernel ? "Linux " : "", *s->kernel ? s->kernel : "unknown kernel",
			bp_units_ns(t, (int64_t)s->ns), bp_units_count(i, s->insns),
			bp_units_count(c, s->calls), *s->ended ? ", ended by " : "", s->ended,
			s->deterministic ? ", deterministic" : "");
}

static void add_notes(const struct bp_diff *d, struct bp_report *r)
{
	static const char *const which[] = {"the old boot", "the new boot"};

	if (d->n_renamed)
		bp_report_note(r, "functions with another name or module that are compared as the same: %zu",
			       d->n_renamed);
	if (d->n_inlined || d->n_split)
		bp_report_note(r,
			       "functions inlined: %zu, split off: %zu; their cost is counted as their "
			       "callers' in both boots",
			       d->n_inlined, d->n_split);
	for (int s = OLD; s <= NEW; s++) {
		if (d->s[s]->lost)
			bp_report_note(r, "%s lost %" PRIu64 " events: differences may be due to that",
				       which[s], d->s[s]->lost);
		if (d->s[s]->damaged)
			bp_report_note(r,
				       "%s is not complete (unfinished or damaged): differences may be due "
				       "to that",
				       which[s]);
		if (d->s[s]->filtered)
			bp_report_note(r, "%s is filtered: figures of phases and of the run are not",
				       which[s]);
	}
	if (d->clock == BP_CLOCK_TIME)
		bp_report_note(r, "clock: host time, which differs between two runs of the same guest; "
				  "--clock=insns compares instructions");
	else if (!d->s[OLD]->deterministic || !d->s[NEW]->deterministic)
		bp_report_note(r,
			       "clock: instructions; they repeat exactly only with record --deterministic");
	else
		bp_report_note(r, "clock: instructions, repeatable in both boots");
}

struct bp_err *bp_diff_report(const struct bp_diff *d, const struct bp_diff_view *view,
			      const struct bp_query *query, struct bp_analysis **keep, struct bp_report **ret)
{
	bp_cleanup(ctx_deinit) struct ctx c = {.d = d};
	struct bp_err *err = bp_analysis_create_bare(query, &c.a);
	long v = view - bp_diff_views;

	if (!err)
		err = bp_report_create("diff", d->clock, &c.r);
	if (err)
		goto out;
	add_title(c.r, "Old", d->s[OLD]);
	add_title(c.r, "New", d->s[NEW]);
	bp_report_scalar(c.r, "delta_ns", (int64_t)(d->s[NEW]->ns - d->s[OLD]->ns));
	bp_report_scalar(c.r, "delta_insns", (int64_t)(d->s[NEW]->insns - d->s[OLD]->insns));
	bp_report_scalar(c.r, "delta_vcpu_ns", d->s[NEW]->self_ns - d->s[OLD]->self_ns);
	bp_report_scalar(c.r, "outside_insns", d->outside_insns[NEW] - d->outside_insns[OLD]);
	if (v == V_OVERVIEW || v == V_PHASES)
		err = add_phases(&c, true);
	if (!err && (v == V_OVERVIEW || v == V_FUNCTIONS))
		err = add_functions(&c, v == V_FUNCTIONS, v == V_FUNCTIONS ? 0 : 20);
	if (!err && v == V_TREE)
		err = add_tree(&c);
	if (!err && (v == V_OVERVIEW || v == V_FIRST))
		err = add_first(&c, v == V_FIRST, v == V_FIRST ? 0 : 10);
	if (!err && ((v == V_OVERVIEW && d->n_modules) || v == V_MODULES))
		err = add_items(&c, "modules", "Kernel modules", d->modules, d->n_modules, v == V_MODULES,
				v == V_MODULES ? 0 : 10);
	if (!err && ((v == V_OVERVIEW && d->n_initcalls) || v == V_INITCALLS))
		err = add_items(&c, "initcalls", "Initcalls", d->initcalls, d->n_initcalls, v == V_INITCALLS,
				v == V_INITCALLS ? 0 : 10);
	if (!err && ((v == V_OVERVIEW && d->n_syscalls) || v == V_SYSCALLS))
		err = add_items(&c, "syscalls", "System calls", d->syscalls, d->n_syscalls, v == V_SYSCALLS,
				v == V_SYSCALLS ? 0 : 10);
	if (err)
		goto out;
	add_notes(d, c.r);
	err = bp_report_finish(c.r);
out:
	if (err) {
		bp_report_destroy(c.r);
		bp_analysis_destroy(c.a);
		return err;
	}
	*keep = c.a;
	*ret = c.r;
	return NULL;
}
