// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/guest_at.h"

#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

struct question {
	uint32_t vcpu;
	uint32_t row, caller;
	uint64_t time_ns;
	size_t number;
};

struct bp_guest_at {
	struct bp_analysis *a;
	struct question *questions; /* sorted by vCPU and time once they are answered */
	size_t n, cap;
	size_t *at;                 /* by number: where it is in questions */
	size_t next[BP_WALK_VCPUS]; /* by vCPU: next to be answered */
	size_t end[BP_WALK_VCPUS];
};

struct bp_err *bp_guest_at_create(struct bp_analysis *a, struct bp_guest_at **ret)
{
	struct bp_guest_at *g = calloc(1, sizeof(*g));

	if (!g)
		return bp_err_nomem();
	g->a = a;
	*ret = g;
	return NULL;
}

void bp_guest_at_destroy(struct bp_guest_at *g)
{
	if (!g)
		return;
	free(g->questions);
	free(g->at);
	free(g);
}

struct bp_err *bp_guest_at_ask(struct bp_guest_at *g, uint32_t vcpu, uint64_t time_ns, size_t *ret)
{
	*ret = 0;
	if (vcpu >= BP_WALK_VCPUS)
		return NULL;
	if (g->n == g->cap) {
		size_t cap = g->cap * 2 + 256;
		struct question *p = realloc(g->questions, cap * sizeof(*p));

		if (!p)
			return bp_err_nomem();
		g->questions = p;
		g->cap = cap;
	}
	g->questions[g->n] = (struct question){.vcpu = vcpu,
					       .time_ns = time_ns,
					       .number = g->n,
					       .row = BP_WALK_NO_FUNC,
					       .caller = BP_WALK_NO_FUNC};
	*ret = ++g->n;
	return NULL;
}

static int compare(const void *a, const void *b)
{
	const struct question *x = a, *y = b;

	if (x->vcpu != y->vcpu)
		return x->vcpu < y->vcpu ? -1 : 1;
	return x->time_ns < y->time_ns ? -1 : x->time_ns > y->time_ns;
}

/* The vCPU runs from here on: what was asked about the time before has no answer. */
static void on_run(void *ctx, const struct bp_walk_now *now)
{
	struct bp_guest_at *g = ctx;
	size_t *next = &g->next[now->vcpu];

	while (*next < g->end[now->vcpu] && g->questions[*next].time_ns < now->wall_ns)
		++*next;
}

/* Up to now @top was on top. */
static void on_time(void *ctx, struct bp_walk_frame *top, const struct bp_walk_now *now, uint64_t dt,
		    uint64_t di)
{
	struct bp_guest_at *g = ctx;
	size_t *next = &g->next[now->vcpu];

	(void)dt;
	(void)di;
	while (*next < g->end[now->vcpu] && g->questions[*next].time_ns <= now->wall_ns) {
		struct question *q = &g->questions[(*next)++];

		q->row = top->row;
		/* stack[0] is the ground. */
		if (top->row != BP_WALK_NO_FUNC)
			q->caller = top[-1].row;
	}
}

struct bp_err *bp_guest_at_answer(struct bp_guest_at *g)
{
	static const struct bp_walk_ops ops = {.on_run = on_run, .on_time = on_time};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	struct bp_walk_options o = {.row_of = g->a->walk.row_of};
	struct bp_err *err;

	if (!g->n || !bp_trace_n_blocks(g->a->trace) || bp_trace_info(g->a->trace, "import_format"))
		return NULL;
	qsort(g->questions, g->n, sizeof(*g->questions), compare);
	g->at = malloc(g->n * sizeof(*g->at));
	if (!g->at)
		return bp_err_nomem();
	for (size_t i = 0; i < g->n; i++) {
		g->at[g->questions[i].number] = i;
		if (!i || g->questions[i].vcpu != g->questions[i - 1].vcpu)
			g->next[g->questions[i].vcpu] = i;
		g->end[g->questions[i].vcpu] = i + 1;
	}
	err = bp_walk_create(g->a->trace, &o, &w);
	return err ? err : bp_walk_run(w, &ops, g);
}

void bp_guest_at_get(const struct bp_guest_at *g, size_t question, uint32_t *row, uint32_t *caller)
{
	const struct question *q = question && g->at ? &g->questions[g->at[question - 1]] : NULL;

	*row = q ? q->row : BP_WALK_NO_FUNC;
	*caller = q ? q->caller : BP_WALK_NO_FUNC;
}
