// SPDX-License-Identifier: GPL-2.0-or-later
/* Two boots compared. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "analyzers/diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/tree.h"
#include "core/cleanup.h"
#include "core/strbuf.h"

enum { OLD, NEW };

/* Functions without a partner that are looked at for renames and inlining: the most expensive ones. */
#define MAX_SINGLES 1000

struct work {
	struct bp_diff *d;
	uint32_t *of[2]; /* by function of the summary: index of the diff's */
};

static void work_deinit(struct work *w)
{
	free(w->of[OLD]);
	free(w->of[NEW]);
}

/* ---- functions: the same name ---- */

static uint64_t hash_func(const struct bp_sum_func *f)
{
	uint64_t h = 0xcbf29ce484222325ull ^ f->space;

	for (const char *s = f->name; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	for (const char *s = f->module; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	return h ^ h >> 31;
}

static bool same_func(const struct bp_sum_func *a, const struct bp_sum_func *b)
{
	return a->space == b->space && !strcmp(a->name, b->name) && !strcmp(a->module, b->module);
}

static void fill(struct bp_diff_func *x, int side, const struct bp_summary *s, uint32_t i)
{
	const struct bp_sum_func *f = &s->funcs[i];

	x->id[side] = i;
	x->calls[side] = f->calls;
	x->self_ns[side] = f->self_ns;
	x->self_insns[side] = f->self_insns;
	x->total_ns[side] = f->total_ns;
	x->total_insns[side] = f->total_insns;
	x->first_ns[side] = f->first_ns;
}

static struct bp_diff_func *add_func(struct bp_diff *d, const struct bp_sum_func *f, enum bp_diff_state state)
{
	struct bp_diff_func *x = &d->funcs[d->n_funcs++];

	*x = (struct bp_diff_func){
	    .name = f->name,
	    .module = f->module,
	    .space = f->space,
	    .state = state,
	    .id = {BP_SUM_NONE, BP_SUM_NONE},
	    .phase = {BP_SUM_NONE, BP_SUM_NONE},
	};
	return x;
}

static struct bp_err *match_names(struct work *w)
{
	struct bp_diff *d = w->d;
	const struct bp_summary *o = d->s[OLD], *s = d->s[NEW];
	bp_autofree uint32_t *hash = NULL;
	size_t size = 64;

	while (size < o->n_funcs * 2)
		size *= 2;
	hash = malloc(size * sizeof(*hash));
	d->funcs = calloc(o->n_funcs + s->n_funcs + 1, sizeof(*d->funcs));
	w->of[OLD] = malloc((o->n_funcs + 1) * sizeof(uint32_t));
	w->of[NEW] = malloc((s->n_funcs + 1) * sizeof(uint32_t));
	if (!hash || !d->funcs || !w->of[OLD] || !w->of[NEW])
		return bp_err_nomem();
	memset(hash, 0xff, size * sizeof(*hash));
	for (size_t i = 0; i < o->n_funcs; i++) {
		size_t h = hash_func(&o->funcs[i]) & (size - 1);

		while (hash[h] != BP_SUM_NONE)
			h = (h + 1) & (size - 1);
		hash[h] = (uint32_t)i;
		w->of[OLD][i] = (uint32_t)d->n_funcs;
		fill(add_func(d, &o->funcs[i], BP_DIFF_GONE), OLD, o, (uint32_t)i);
	}
	for (size_t i = 0; i < s->n_funcs; i++) {
		size_t h = hash_func(&s->funcs[i]) & (size - 1);
		struct bp_diff_func *x;

		/* A file may name a function twice: each has one partner. */
		while (hash[h] != BP_SUM_NONE && (!same_func(&o->funcs[hash[h]], &s->funcs[i]) ||
						  d->funcs[w->of[OLD][hash[h]]].state == BP_DIFF_BOTH))
			h = (h + 1) & (size - 1);
		if (hash[h] != BP_SUM_NONE) {
			w->of[NEW][i] = w->of[OLD][hash[h]];
			x = &d->funcs[w->of[NEW][i]];
			x->state = BP_DIFF_BOTH;
		} else {
			w->of[NEW][i] = (uint32_t)d->n_funcs;
			x = add_func(d, &s->funcs[i], BP_DIFF_NEW);
		}
		fill(x, NEW, s, (uint32_t)i);
	}
	return NULL;
}

/* ---- functions: another name ---- */

/* What is known of a function that only one boot has. */
struct single {
	uint32_t func; /* the diff's */
	int64_t cost;
	uint32_t *callers, *callees; /* sorted, the diff's functions */
	size_t n_callers, n_callees;
};

static int64_t cost_of(const struct bp_diff *d, const struct bp_diff_func *f, int side)
{
	return d->clock == BP_CLOCK_INSNS ? f->self_insns[side] : f->self_ns[side];
}

static int64_t node_cost(const struct bp_diff *d, const struct bp_sum_node *x)
{
	return d->clock == BP_CLOCK_INSNS ? x->self_insns : x->self_ns;
}

static int compare_singles(const void *x, const void *y)
{
	const struct single *a = x, *b = y;

	if (a->cost != b->cost)
		return a->cost > b->cost ? -1 : 1;
	return a->func < b->func ? -1 : a->func > b->func;
}

static int compare_u32(const void *x, const void *y)
{
	uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;

	return a < b ? -1 : a > b;
}

static size_t unique(uint32_t *v, size_t n)
{
	size_t to = 0;

	qsort(v, n, sizeof(*v), compare_u32);
	for (size_t i = 0; i < n; i++) {
		if (!i || v[i] != v[i - 1])
			v[to++] = v[i];
	}
	return to;
}

struct singles {
	struct single *list;
	size_t n;
	uint32_t *mem; /* of the lists */
};

static void singles_deinit(struct singles *x)
{
	free(x->list);
	free(x->mem);
}

/* The functions that only boot @side has, the most expensive first, with who calls them and whom they call.
 */
static struct bp_err *find_singles(struct work *w, int side, struct singles *ret)
{
	struct bp_diff *d = w->d;
	const struct bp_summary *s = d->s[side];
	enum bp_diff_state state = side == OLD ? BP_DIFF_GONE : BP_DIFF_NEW;
	bp_autofree uint32_t *at = malloc((d->n_funcs + 1) * sizeof(*at));
	size_t n = 0, links = 0;
	uint32_t *p;

	ret->list = calloc(d->n_funcs + 1, sizeof(*ret->list));
	if (!at || !ret->list)
		return bp_err_nomem();
	for (size_t i = 0; i < d->n_funcs; i++) {
		if (d->funcs[i].state == state)
			ret->list[n++] =
			    (struct single){(uint32_t)i, cost_of(d, &d->funcs[i], side), NULL, NULL, 0, 0};
	}
	qsort(ret->list, n, sizeof(*ret->list), compare_singles);
	if (n > MAX_SINGLES)
		n = MAX_SINGLES;
	ret->n = n;
	memset(at, 0xff, (d->n_funcs + 1) * sizeof(*at));
	for (size_t i = 0; i < n; i++) {
		const struct bp_sum_func *f = &s->funcs[d->funcs[ret->list[i].func].id[side]];

		at[ret->list[i].func] = (uint32_t)i;
		ret->list[i].n_callers = f->caller != BP_SUM_NONE;
		links += ret->list[i].n_callers;
	}
	for (size_t i = 1; i < s->n_nodes; i++) {
		const struct bp_sum_node *x = &s->nodes[i], *parent = &s->nodes[x->parent];
		uint32_t f = at[w->of[side][x->func]];
		uint32_t g = parent->func == BP_SUM_NONE ? BP_SUM_NONE : at[w->of[side][parent->func]];

		if (parent->func == BP_SUM_NONE)
			continue;
		if (f != BP_SUM_NONE) {
			ret->list[f].n_callers++;
			links++;
		}
		if (g != BP_SUM_NONE) {
			ret->list[g].n_callees++;
			links++;
		}
	}
	ret->mem = malloc((links + 1) * sizeof(*ret->mem));
	if (!ret->mem)
		return bp_err_nomem();
	p = ret->mem;
	for (size_t i = 0; i < n; i++) {
		const struct bp_sum_func *f = &s->funcs[d->funcs[ret->list[i].func].id[side]];

		ret->list[i].callers = p;
		p += ret->list[i].n_callers;
		ret->list[i].callees = p;
		p += ret->list[i].n_callees;
		ret->list[i].n_callers = ret->list[i].n_callees = 0;
		if (f->caller != BP_SUM_NONE)
			ret->list[i].callers[ret->list[i].n_callers++] = w->of[side][f->caller];
	}
	for (size_t i = 1; i < s->n_nodes; i++) {
		const struct bp_sum_node *x = &s->nodes[i], *parent = &s->nodes[x->parent];
		uint32_t func, caller, f, g;

		if (parent->func == BP_SUM_NONE)
			continue;
		func = w->of[side][x->func];
		caller = w->of[side][parent->func];
		f = at[func];
		g = at[caller];
		if (f != BP_SUM_NONE)
			ret->list[f].callers[ret->list[f].n_callers++] = caller;
		if (g != BP_SUM_NONE)
			ret->list[g].callees[ret->list[g].n_callees++] = func;
	}
	for (size_t i = 0; i < n; i++) {
		ret->list[i].n_callers = unique(ret->list[i].callers, ret->list[i].n_callers);
		ret->list[i].n_callees = unique(ret->list[i].callees, ret->list[i].n_callees);
	}
	return NULL;
}

/* Shared part of two sets, 0 to 1; of functions that only one boot has nothing is said. */
static double overlap(const struct bp_diff *d, const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b)
{
	size_t i = 0, k = 0, both = 0, all = 0;

	while (i < n_a || k < n_b) {
		uint32_t x = i < n_a ? a[i] : UINT32_MAX, y = k < n_b ? b[k] : UINT32_MAX;
		uint32_t f = x < y ? x : y;
		bool counts = d->funcs[f].state == BP_DIFF_BOTH || d->funcs[f].state == BP_DIFF_RENAMED;

		both += counts && x == y;
		all += counts;
		i += x <= y;
		k += y <= x;
	}
	return all ? (double)both / (double)all : 1;
}

static double alike(double a, double b)
{
	double low = a < b ? a : b, high = a < b ? b : a;

	return high <= 0 ? 1 : low <= 0 ? 0 : low / high;
}

/* Length up to a compiler's ending: "foo.isra.0", "foo.constprop.2", "foo.part.1" are foo. */
static size_t base_len(const char *name)
{
	return *name == '.' ? strlen(name) : strcspn(name, ".");
}

static bool same_base(const char *a, const char *b)
{
	size_t n = base_len(a);

	return n == base_len(b) && !strncmp(a, b, n);
}

/* Longest common part of two names, as a share of the longer one. */
static double name_likeness(const char *a, const char *b)
{
	size_t la = base_len(a), lb = base_len(b), best = 0;
	uint8_t row[128] = {0};

	if (la >= sizeof(row) || lb >= sizeof(row) || !la || !lb)
		return 0;
	for (size_t i = 0; i < la; i++) {
		for (size_t k = lb; k > 0; k--) {
			row[k] = a[i] == b[k - 1] ? (uint8_t)(row[k - 1] + 1) : 0;
			if (row[k] > best)
				best = row[k];
		}
	}
	return (double)best / (double)(la > lb ? la : lb);
}

/* The function @gone of the old boot and @added of the new one are one. */
static void join(struct work *w, uint32_t gone, uint32_t added)
{
	struct bp_diff *d = w->d;
	struct bp_diff_func *a = &d->funcs[gone], *b = &d->funcs[added];

	a->from = strcmp(a->name, b->name) ? a->name : a->module;
	a->name = b->name;
	a->module = b->module;
	a->space = b->space;
	a->state = BP_DIFF_RENAMED;
	fill(a, NEW, d->s[NEW], b->id[NEW]);
	w->of[NEW][b->id[NEW]] = gone;
	b->state = BP_DIFF_INLINED; /* for now: taken */
	b->id[NEW] = BP_SUM_NONE;
	d->n_renamed++;
}

struct pair {
	double score;
	uint32_t a, b; /* indices of the lists */
};

static int compare_pairs(const void *x, const void *y)
{
	const struct pair *a = x, *b = y;

	if (a->score != b->score)
		return a->score > b->score ? -1 : 1;
	if (a->a != b->a)
		return a->a < b->a ? -1 : 1;
	return a->b < b->b ? -1 : a->b > b->b;
}

/* 0: not the same function. */
static double likeness(const struct bp_diff *d, const struct single *x, const struct single *y)
{
	const struct bp_diff_func *a = &d->funcs[x->func], *b = &d->funcs[y->func];
	double calls = alike((double)a->calls[OLD], (double)b->calls[NEW]);
	double cost = alike((double)x->cost, (double)y->cost);
	double callers, callees, name;

	if (a->space != b->space)
		return 0;
	if (!strcmp(a->module, b->module) && same_base(a->name, b->name))
		return 2 + cost;
	if (!strcmp(a->name, b->name))
		return 1 + cost;
	if (calls < 0.8 || cost < 0.7 || strcmp(a->module, b->module))
		return 0;
	callers = overlap(d, x->callers, x->n_callers, y->callers, y->n_callers);
	callees = overlap(d, x->callees, x->n_callees, y->callees, y->n_callees);
	if (callers < 0.5 || callees < 0.5)
		return 0;
	name = name_likeness(a->name, b->name);
	/* Small functions that are called once are alike by chance. */
	if (name < 0.4 && (x->cost < 1000 || callers + callees + calls + cost < 3.7))
		return 0;
	return 0.25 * (callers + callees + cost) + 0.1 * calls + 0.15 * name;
}

static struct bp_err *match_renames(struct work *w)
{
	struct bp_diff *d = w->d;
	bp_cleanup(singles_deinit) struct singles gone = {0}, added = {0};
	bp_autofree struct pair *pairs = NULL;
	size_t n = 0, cap = 0;
	struct bp_err *err = find_singles(w, OLD, &gone);

	if (!err)
		err = find_singles(w, NEW, &added);
	if (err)
		return err;
	for (size_t i = 0; i < gone.n; i++) {
		for (size_t k = 0; k < added.n; k++) {
			double score = likeness(d, &gone.list[i], &added.list[k]);

			if (score < 0.75)
				continue;
			if (n == cap) {
				struct pair *p = realloc(pairs, (cap ? cap * 2 : 64) * sizeof(*p));

				if (!p)
					return bp_err_nomem();
				pairs = p;
				cap = cap ? cap * 2 : 64;
			}
			pairs[n++] = (struct pair){score, (uint32_t)i, (uint32_t)k};
		}
	}
	if (n)
		qsort(pairs, n, sizeof(*pairs), compare_pairs);
	for (size_t i = 0; i < n; i++) {
		uint32_t a = gone.list[pairs[i].a].func, b = added.list[pairs[i].b].func;

		if (d->funcs[a].state == BP_DIFF_GONE && d->funcs[b].state == BP_DIFF_NEW)
			join(w, a, b);
	}
	return NULL;
}

/* ---- functions: inlined, or split off ---- */

struct caller_share {
	uint32_t func;
	int64_t cost;
};

static int compare_shares(const void *x, const void *y)
{
	const struct caller_share *a = x, *b = y;

	return a->func < b->func ? -1 : a->func > b->func;
}

/*
 * Functions that only boot @side has, and whose cost the callers have in the other one. What a caller lost
 * or gained there is compared with what the function cost below it.
 */
static struct bp_err *match_inlined(struct work *w, int side)
{
	struct bp_diff *d = w->d;
	const struct bp_summary *s = d->s[side];
	enum bp_diff_state is = side == OLD ? BP_DIFF_GONE : BP_DIFF_NEW;
	enum bp_diff_state becomes = side == OLD ? BP_DIFF_INLINED : BP_DIFF_SPLIT;
	bp_cleanup(singles_deinit) struct singles list = {0};
	bp_autofree struct caller_share *shares = malloc((s->n_nodes + 1) * sizeof(*shares));
	bp_autofree uint32_t *next = calloc(s->n_nodes + 1, sizeof(*next));
	bp_autofree uint32_t *first = calloc(s->n_funcs + 1, sizeof(*first));
	struct bp_err *err = find_singles(w, side, &list);

	if (err)
		return err;
	if (!shares || !next || !first)
		return bp_err_nomem();
	/* The nodes of each function. */
	for (size_t k = s->n_nodes; k-- > 1;) {
		next[k] = first[s->nodes[k].func];
		first[s->nodes[k].func] = (uint32_t)k;
	}
	for (size_t i = 0; i < list.n; i++) {
		struct bp_diff_func *f = &d->funcs[list.list[i].func];
		int64_t all = 0, found = 0, most = 0;
		uint32_t into = BP_SUM_NONE;
		size_t n = 0, m = 0;

		if (f->state != is || list.list[i].cost < 100)
			continue;
		for (uint32_t k = first[f->id[side]]; k; k = next[k]) {
			const struct bp_sum_node *x = &s->nodes[k];
			uint32_t parent = s->nodes[x->parent].func;

			if (parent == BP_SUM_NONE)
				continue;
			shares[n++] = (struct caller_share){w->of[side][parent], node_cost(d, x)};
			all += node_cost(d, x);
		}
		qsort(shares, n, sizeof(*shares), compare_shares);
		for (size_t k = 0; k < n; k++) {
			if (m && shares[m - 1].func == shares[k].func)
				shares[m - 1].cost += shares[k].cost;
			else
				shares[m++] = shares[k];
		}
		for (size_t k = 0; k < m; k++) {
			const struct bp_diff_func *p = &d->funcs[shares[k].func];
			int64_t moved = cost_of(d, p, !side) - cost_of(d, p, side);

			if (p->state != BP_DIFF_BOTH && p->state != BP_DIFF_RENAMED)
				continue;
			if (moved < shares[k].cost / 2 || moved > shares[k].cost * 2)
				continue;
			found += shares[k].cost;
			if (into == BP_SUM_NONE || shares[k].cost > most) {
				into = shares[k].func;
				most = shares[k].cost;
			}
		}
		if (into == BP_SUM_NONE || found < all / 10 * 7 || all < list.list[i].cost / 10 * 7)
			continue;
		f->state = becomes;
		f->from = d->funcs[into].name;
		*(side == OLD ? &d->n_inlined : &d->n_split) += 1;
	}
	return NULL;
}

static bool is_part(const struct bp_diff_func *f)
{
	return f->state == BP_DIFF_INLINED || f->state == BP_DIFF_SPLIT;
}

/* ---- call paths ---- */

/* Room for the nodes that @t has. */
static struct bp_err *grow_nodes(struct bp_diff *d, const struct bp_tree *t, size_t *cap)
{
	struct bp_diff_node *nodes;

	if (t->cap <= *cap)
		return NULL;
	nodes = realloc(d->nodes, t->cap * sizeof(*nodes));
	if (!nodes)
		return bp_err_nomem();
	memset(nodes + *cap, 0, (t->cap - *cap) * sizeof(*nodes));
	d->nodes = nodes;
	*cap = t->cap;
	return NULL;
}

static struct bp_err *add_nodes(struct work *w, int side, struct bp_tree *t, size_t *cap)
{
	struct bp_diff *d = w->d;
	const struct bp_summary *s = d->s[side];
	bp_autofree uint32_t *to = calloc(s->n_nodes + 1, sizeof(*to));
	struct bp_err *err;

	if (!to)
		return bp_err_nomem();
	for (size_t i = 0; i < s->n_nodes; i++) {
		const struct bp_sum_node *x = &s->nodes[i];
		struct bp_diff_func *f = i ? &d->funcs[w->of[side][x->func]] : NULL;
		bool part = f && is_part(f) && to[x->parent];
		struct bp_diff_node *n;

		if (i && !part)
			to[i] = bp_tree_child(t, to[x->parent], w->of[side][x->func]);
		else if (part)
			to[i] = to[x->parent];
		if (t->failed)
			return bp_err_nomem();
		err = grow_nodes(d, t, cap);
		if (err)
			return err;
		n = &d->nodes[to[i]];
		n->parent = t->nodes[to[i]].parent;
		n->func = to[i] ? t->nodes[to[i]].row : BP_SUM_NONE;
		n->has[side] = true;
		n->self_ns[side] += x->self_ns;
		n->self_insns[side] += x->self_insns;
		n->rest_ns[side] += x->rest_ns;
		n->rest_insns[side] += x->rest_insns;
		if (part) {
			/* The same for the sums of functions. */
			struct bp_diff_func *p = &d->funcs[n->func];

			f->self_ns[side] -= x->self_ns;
			f->self_insns[side] -= x->self_insns;
			p->self_ns[side] += x->self_ns;
			p->self_insns[side] += x->self_insns;
			continue;
		}
		n->calls[side] += x->calls;
	}
	return NULL;
}

static void sum_up(struct bp_diff *d)
{
	for (size_t i = 0; i < d->n_nodes; i++) {
		for (int side = OLD; side <= NEW; side++) {
			struct bp_diff_node *n = &d->nodes[i];

			n->total_ns[side] = n->self_ns[side] + n->rest_ns[side];
			n->total_insns[side] = n->self_insns[side] + n->rest_insns[side];
		}
	}
	for (size_t i = d->n_nodes; i-- > 1;) {
		const struct bp_diff_node *n = &d->nodes[i];

		for (int side = OLD; side <= NEW; side++) {
			d->nodes[n->parent].total_ns[side] += n->total_ns[side];
			d->nodes[n->parent].total_insns[side] += n->total_insns[side];
		}
	}
}

/*
 * A path that only one boot has may have been too small to be kept in the other's baseline: then it goes into
 * the rest of its caller here, too. One that is much larger than what was left out there stays.
 */
static bool too_small(const struct bp_diff *d, const struct bp_diff_node *n, int side)
{
	const struct bp_summary *other = d->s[!side];
	const struct bp_diff_node *parent = &d->nodes[n->parent];

	return other->pruned && n->has[side] && !n->has[!side] && parent->has[!side] &&
	       (parent->rest_ns[!side] || parent->rest_insns[!side]) &&
	       n->total_ns[side] <= 2 * other->least_ns && n->total_insns[side] <= 2 * other->least_insns;
}

static struct bp_err *level(struct bp_diff *d)
{
	bp_autofree uint32_t *to = malloc((d->n_nodes + 1) * sizeof(*to));
	bp_autofree bool *out = calloc(d->n_nodes + 1, sizeof(*out));
	size_t n = 1;

	if (!d->s[OLD]->pruned && !d->s[NEW]->pruned)
		return NULL;
	if (!to || !out)
		return bp_err_nomem();
	to[0] = 0;
	for (size_t i = 1; i < d->n_nodes; i++) {
		struct bp_diff_node x = d->nodes[i];

		out[i] = out[x.parent] || too_small(d, &x, OLD) || too_small(d, &x, NEW);
	}
	for (size_t i = 1; i < d->n_nodes; i++) {
		struct bp_diff_node x = d->nodes[i];

		if (out[i]) {
			to[i] = to[x.parent];
			for (int side = OLD; side <= NEW; side++) {
				d->nodes[to[i]].rest_ns[side] += x.self_ns[side] + x.rest_ns[side];
				d->nodes[to[i]].rest_insns[side] += x.self_insns[side] + x.rest_insns[side];
			}
			continue;
		}
		x.parent = to[x.parent];
		to[i] = (uint32_t)n;
		d->nodes[n++] = x;
	}
	d->n_nodes = n;
	return NULL;
}

static int64_t node_change(const struct bp_diff *d, const struct bp_diff_node *n)
{
	return d->clock == BP_CLOCK_INSNS ? n->self_insns[NEW] - n->self_insns[OLD]
					  : n->self_ns[NEW] - n->self_ns[OLD];
}

static struct bp_err *match_paths(struct work *w)
{
	struct bp_diff *d = w->d;
	bp_cleanup(bp_tree_deinit) struct bp_tree t = {0};
	size_t cap = 0;
	struct bp_err *err = bp_tree_init(&t);

	if (!err)
		err = add_nodes(w, OLD, &t, &cap);
	if (!err)
		err = add_nodes(w, NEW, &t, &cap);
	if (err)
		return err;
	d->n_nodes = t.n;
	sum_up(d);
	err = level(d);
	if (err)
		return err;
	for (size_t i = 1; i < d->n_nodes; i++) {
		struct bp_diff_func *f = &d->funcs[d->nodes[i].func];

		if (!f->node ||
		    llabs(node_change(d, &d->nodes[i])) > llabs(node_change(d, &d->nodes[f->node])))
			f->node = (uint32_t)i;
	}
	return NULL;
}

/* ---- phases, first calls, lists ---- */

static struct bp_err *match_phases(struct bp_diff *d)
{
	const struct bp_summary *o = d->s[OLD], *s = d->s[NEW];
	size_t next = 0;

	d->phases = calloc(o->n_phases + s->n_phases + 1, sizeof(*d->phases));
	if (!d->phases)
		return bp_err_nomem();
	for (size_t i = 0; i <= s->n_phases; i++) {
		uint32_t at =
		    i < s->n_phases ? bp_summary_phase(o, s->phases[i].name) : (uint32_t)o->n_phases;

		/* Those that are gone, up to the next one that both have. */
		for (; at != BP_SUM_NONE && next < at; next++) {
			if (bp_summary_phase(s, o->phases[next].name) == BP_SUM_NONE)
				d->phases[d->n_phases++].name = o->phases[next].name;
		}
		if (i < s->n_phases)
			d->phases[d->n_phases++].name = s->phases[i].name;
	}
	for (int side = OLD; side <= NEW; side++) {
		int64_t covered = 0;

		for (size_t i = 0; i < d->n_phases; i++) {
			uint32_t at = bp_summary_phase(d->s[side], d->phases[i].name);

			if (at == BP_SUM_NONE)
				continue;
			d->phases[i].has[side] = true;
			d->phases[i].ns[side] = (int64_t)d->s[side]->phases[at].ns;
			d->phases[i].insns[side] = (int64_t)d->s[side]->phases[at].insns;
			covered += d->phases[i].ns[side];
		}
		d->unaccounted_ns[side] = (int64_t)d->s[side]->ns - covered;
		d->outside_insns[side] = (int64_t)d->s[side]->insns - d->s[side]->self_insns;
	}
	return NULL;
}

static uint32_t diff_phase(const struct bp_diff *d, int side, uint32_t phase)
{
	const struct bp_summary *s = d->s[side];

	for (size_t i = 0; phase != BP_SUM_NONE && i < d->n_phases; i++) {
		if (!strcmp(d->phases[i].name, s->phases[phase].name))
			return (uint32_t)i;
	}
	return BP_SUM_NONE;
}

struct ranked {
	uint32_t order, func;
};

static int compare_ranked(const void *x, const void *y)
{
	const struct ranked *a = x, *b = y;

	return a->order < b->order ? -1 : a->order > b->order;
}

/*
 * First calls that changed places: those that are not in a longest common order of both boots.
 * Source: longest increasing subsequence by patience sorting (C. Schensted, 1961).
 */
static struct bp_err *match_first(struct bp_diff *d)
{
	bp_autofree struct ranked *list = malloc((d->n_funcs + 1) * sizeof(*list));
	bp_autofree uint32_t *top = malloc((d->n_funcs + 1) * sizeof(*top));
	bp_autofree uint32_t *before = malloc((d->n_funcs + 1) * sizeof(*before));
	size_t n = 0, piles = 0;

	if (!list || !top || !before)
		return bp_err_nomem();
	for (int side = OLD; side <= NEW; side++) {
		n = 0;
		for (size_t i = 0; i < d->n_funcs; i++) {
			struct bp_diff_func *f = &d->funcs[i];
			const struct bp_sum_func *from;

			if (f->id[side] == BP_SUM_NONE)
				continue;
			from = &d->s[side]->funcs[f->id[side]];
			f->phase[side] = diff_phase(d, side, from->phase);
			if (from->order && f->id[!side] != BP_SUM_NONE &&
			    d->s[!side]->funcs[f->id[!side]].order)
				list[n++] = (struct ranked){from->order, (uint32_t)i};
		}
		qsort(list, n, sizeof(*list), compare_ranked);
		for (size_t i = 0; i < n; i++) {
			d->funcs[list[i].func].rank[side] = (uint32_t)i + 1;
			d->funcs[list[i].func].moved = true;
		}
	}
	/* The list is in the new boot's order: the longest run of increasing old ranks did not move. */
	for (size_t i = 0; i < n; i++) {
		uint32_t rank = d->funcs[list[i].func].rank[OLD];
		size_t lo = 0, hi = piles;

		while (lo < hi) {
			size_t mid = (lo + hi) / 2;

			if (d->funcs[list[top[mid]].func].rank[OLD] < rank)
				lo = mid + 1;
			else
				hi = mid;
		}
		before[i] = lo ? top[lo - 1] : UINT32_MAX;
		top[lo] = (uint32_t)i;
		piles += lo == piles;
	}
	for (uint32_t i = piles ? top[piles - 1] : UINT32_MAX; i != UINT32_MAX; i = before[i])
		d->funcs[list[i].func].moved = false;
	return NULL;
}

static struct bp_diff_item *item(struct bp_diff_item *list, size_t *n, int side, const char *name,
				 const char *kind)
{
	struct bp_diff_item *x = NULL;

	for (size_t i = 0; i < *n && !x; i++) {
		if (!strcmp(list[i].name, name) && !strcmp(list[i].kind, kind))
			x = &list[i];
	}
	if (!x) {
		x = &list[(*n)++];
		x->name = name;
		x->kind = kind;
		x->phase[OLD] = x->phase[NEW] = BP_SUM_NONE;
	}
	x->has[side] = true;
	return x;
}

static struct bp_err *match_lists(struct bp_diff *d)
{
	const struct bp_summary *o = d->s[OLD], *s = d->s[NEW];

	d->modules = calloc(o->n_modules + s->n_modules + 1, sizeof(*d->modules));
	d->initcalls = calloc(o->n_initcalls + s->n_initcalls + 1, sizeof(*d->initcalls));
	d->syscalls = calloc(o->n_syscalls + s->n_syscalls + 1, sizeof(*d->syscalls));
	if (!d->modules || !d->initcalls || !d->syscalls)
		return bp_err_nomem();
	for (int side = OLD; side <= NEW; side++) {
		s = d->s[side];
		for (size_t i = 0; i < s->n_modules; i++) {
			const struct bp_sum_module *m = &s->modules[i];
			struct bp_diff_item *x = item(d->modules, &d->n_modules, side, m->name, "");

			x->calls[side] += m->loads;
			x->ns[side] += (int64_t)m->init_ns;
			x->insns[side] += (int64_t)m->init_insns;
			x->phase[side] = diff_phase(d, side, m->phase);
		}
		for (size_t i = 0; i < s->n_initcalls; i++) {
			const struct bp_sum_initcall *c = &s->initcalls[i];
			struct bp_diff_item *x =
			    item(d->initcalls, &d->n_initcalls, side, s->funcs[c->func].name, c->level);

			x->calls[side]++;
			x->ns[side] += (int64_t)c->ns;
			x->insns[side] += (int64_t)c->insns;
		}
		for (size_t i = 0; i < s->n_syscalls; i++) {
			const struct bp_sum_syscall *c = &s->syscalls[i];
			struct bp_diff_item *x = item(d->syscalls, &d->n_syscalls, side, c->name, "");

			x->calls[side] += c->calls;
			x->ns[side] += c->ns;
			x->insns[side] += c->insns;
		}
	}
	return NULL;
}

/* ---- life ---- */

/* The rows that joined another one, and those whose whole cost went elsewhere without a trace. */
static void drop_joined(struct work *w)
{
	struct bp_diff *d = w->d;
	size_t n = 0;
	bool drop;

	for (size_t i = 0; i < d->n_funcs; i++) {
		struct bp_diff_func f = d->funcs[i];

		drop = f.id[OLD] == BP_SUM_NONE && f.id[NEW] == BP_SUM_NONE;
		if (drop)
			continue;
		for (int side = OLD; side <= NEW; side++) {
			if (f.id[side] != BP_SUM_NONE)
				w->of[side][f.id[side]] = (uint32_t)n;
		}
		d->funcs[n++] = f;
	}
	d->n_funcs = n;
}

struct bp_err *bp_diff_create(const struct bp_summary *old_boot, const struct bp_summary *new_boot,
			      enum bp_clock clock, struct bp_diff **ret)
{
	bp_cleanup(bp_diff_destroyp) struct bp_diff *d = calloc(1, sizeof(*d));
	bp_cleanup(work_deinit) struct work w = {.d = d};
	struct bp_err *err;

	if (!d)
		return bp_err_nomem();
	d->s[OLD] = old_boot;
	d->s[NEW] = new_boot;
	d->clock = clock;
	err = match_names(&w);
	if (!err)
		err = match_renames(&w);
	if (err)
		return err;
	drop_joined(&w);
	err = match_inlined(&w, OLD);
	if (!err)
		err = match_inlined(&w, NEW);
	if (!err)
		err = match_paths(&w);
	if (!err)
		err = match_phases(d);
	if (!err)
		err = match_first(d);
	if (!err)
		err = match_lists(d);
	if (err)
		return err;
	*ret = bp_steal(d);
	return NULL;
}

void bp_diff_destroy(struct bp_diff *d)
{
	if (!d)
		return;
	free(d->funcs);
	free(d->nodes);
	free(d->phases);
	free(d->modules);
	free(d->initcalls);
	free(d->syscalls);
	free(d);
}

struct bp_err *bp_diff_path(const struct bp_diff *d, uint32_t node, char **ret)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	uint32_t stack[256];
	size_t n = 0;

	for (; node && n < BP_ARRAY_SIZE(stack); node = d->nodes[node].parent)
		stack[n++] = d->nodes[node].func;
	while (n-- > 0) {
		bp_strbuf_adds(&sb, d->funcs[stack[n]].name);
		if (n)
			bp_strbuf_addc(&sb, ';');
	}
	*ret = strdup(bp_strbuf_str(&sb));
	return sb.failed || !*ret ? bp_err_nomem() : NULL;
}

static void differ(struct bp_strbuf *sb, const char *what, const char *a, const char *b)
{
	if (!strcmp(a, b))
		return;
	bp_strbuf_addf(sb, "%s%s: %s and %s", sb->len ? "; " : "", what, *a ? a : "(not known)",
		       *b ? b : "(not known)");
}

struct bp_err *bp_diff_comparable(const struct bp_summary *a, const struct bp_summary *b, char **ret)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	char smp_a[16] = "", smp_b[16] = "";

	*ret = NULL;
	differ(&sb, "machine type", a->machine, b->machine);
	if (a->smp)
		snprintf(smp_a, sizeof(smp_a), "%u", a->smp);
	if (b->smp)
		snprintf(smp_b, sizeof(smp_b), "%u", b->smp);
	differ(&sb, "-smp", smp_a, smp_b);
	differ(&sb, "QEMU", a->qemu, b->qemu);
	differ(&sb, "CPU model", a->cpu, b->cpu);
	differ(&sb, "memory", a->memory, b->memory);
	differ(&sb, "deterministic", a->deterministic ? "yes" : "no", b->deterministic ? "yes" : "no");
	if (sb.failed || (sb.len && !(*ret = strdup(sb.data))))
		return bp_err_nomem();
	return NULL;
}
