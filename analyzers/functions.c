// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/functions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

/* ---- the walk ---- */

/* Frames of a task on which @f counts. */
static bool counted(const struct bp_walk *w, const struct bp_walk_frame *f)
{
	return !w->filtered || (f->flags & BP_FRAME_SHOWN);
}

/* @active belongs to one task's stack: change it to that of @to. */
static __attribute__((noinline)) void switch_task(struct bp_functions *f, const struct bp_walk *w,
						  struct bp_walk_task *to)
{
	struct bp_walk_task *from = f->task;

	for (uint32_t i = 1; from && i <= from->depth; i++)
		f->active[from->stack[i].row] -= counted(w, &from->stack[i]);
	for (uint32_t i = 1; i <= to->depth; i++)
		f->active[to->stack[i].row] += counted(w, &to->stack[i]);
	f->task = to;
}

/* Make room for a vCPU, and point base at it. */
static void use_vcpu(struct bp_functions *f, uint32_t vcpu)
{
	if (!f->per_vcpu || f->failed)
		return;
	if (vcpu >= f->n_vcpus) {
		struct bp_func_total *t = realloc(f->totals, (vcpu + 1) * f->n_rows * sizeof(*t));

		if (!t) {
			f->failed = true;
			return;
		}
		memset(t + f->n_vcpus * f->n_rows, 0, (vcpu + 1 - f->n_vcpus) * f->n_rows * sizeof(*t));
		for (size_t i = f->n_vcpus * f->n_rows; i < (vcpu + 1) * f->n_rows; i++)
			t[i].min_ns = UINT64_MAX;
		f->totals = t;
		f->n_vcpus = vcpu + 1;
	}
	f->base = f->totals + vcpu * f->n_rows;
}

static void func_run(void *ctx, const struct bp_walk_now *now)
{
	struct bp_functions *f = ctx;
	struct bp_walk_task *t = now->task;

	if (f->per_vcpu) {
		if (t->vcpu != now->vcpu) {
			/* It moved: what its functions did so far was done on the other vCPU. */
			use_vcpu(f, t->vcpu);
			for (uint32_t i = 1; i <= t->depth; i++) {
				struct bp_walk_frame *fr = &t->stack[i];

				if (!counted(now->walk, fr))
					continue;
				f->base[fr->row].self_ns += fr->self_ns;
				f->base[fr->row].self_insns += fr->self_insns;
				fr->self_ns = fr->self_insns = 0;
			}
		}
		use_vcpu(f, now->vcpu);
	}
	if (f->task != t)
		switch_task(f, now->walk, t);
}

static inline void func_enter(void *ctx, struct bp_walk_frame *fr, const struct bp_walk_now *now)
{
	struct bp_functions *f = ctx;

	(void)now;
	f->base[fr->row].calls++;
	f->active[fr->row]++;
}

static void func_resume(void *ctx, struct bp_walk_frame *fr, const struct bp_walk_now *now)
{
	struct bp_functions *f = ctx;

	(void)now;
	f->active[fr->row]++;
}

static inline void func_leave(void *ctx, struct bp_walk_frame *fr, const struct bp_walk_now *now,
			      enum bp_walk_leave how)
{
	struct bp_functions *f = ctx;
	struct bp_func_total *t;
	uint64_t total = bp_walk_total_ns(fr, now), wall = now->wall_ns - fr->wall_ns;

	if (bp_walk_unlikely(f->task != now->task)) {
		use_vcpu(f, now->vcpu);
		switch_task(f, now->walk, now->task);
	}
	t = &f->base[fr->row];
	t->self_ns += fr->self_ns;
	t->self_insns += fr->self_insns;
	if (--f->active[fr->row] == 0) {
		t->total_ns += total;
		t->total_insns += bp_walk_total_insns(fr, now);
		if (bp_walk_unlikely(wall > total))
			t->sleep_ns += wall - total;
	}
	if (bp_walk_unlikely(fr->flags & BP_FRAME_CUT) || how == BP_LEAVE_LOST)
		return;
	if (total > t->max_ns)
		t->max_ns = total;
	if (total < t->min_ns && how == BP_LEAVE_RET)
		t->min_ns = total;
}

static const struct bp_walk_ops hot_ops = {
    .on_run = func_run,
    .on_enter = func_enter,
    .on_resume = func_resume,
    .on_leave = func_leave,
};

const struct bp_walk_ops bp_functions_ops = {
    .on_run = func_run,
    .on_enter = func_enter,
    .on_resume = func_resume,
    .on_leave = func_leave,
};

struct bp_err *bp_functions_init(struct bp_functions *f, struct bp_analysis *a, bool per_vcpu)
{
	memset(f, 0, sizeof(*f));
	f->a = a;
	f->n_rows = a->rows.n;
	f->per_vcpu = per_vcpu;
	f->n_vcpus = 1;
	f->totals = calloc(f->n_rows + 1, sizeof(*f->totals));
	f->active = calloc(f->n_rows + 1, sizeof(*f->active));
	if (!f->totals || !f->active)
		return bp_err_nomem();
	for (size_t i = 0; i < f->n_rows; i++)
		f->totals[i].min_ns = UINT64_MAX;
	f->base = f->totals;
	return NULL;
}

void bp_functions_deinit(struct bp_functions *f)
{
	free(f->totals);
	free(f->active);
	memset(f, 0, sizeof(*f));
}

struct bp_err *bp_functions_finish(struct bp_functions *f)
{
	struct bp_analysis *a = f->a;
	const struct bp_query *q = a->query;
	size_t n;
	const struct bp_fold *folds = bp_trace_folds(a->trace, &n);

	if (f->failed)
		return bp_err_nomem();
	/* Folded calls have no task, no vCPU and no time. */
	if (f->per_vcpu || q->in || q->out || q->processes || q->has_vcpus || q->depth || a->walk.from_ns ||
	    a->walk.to_ns) {
		a->folds_left_out = true;
		return NULL;
	}
	f->folded = n != 0;
	for (size_t i = 0; i < n; i++) {
		struct bp_func_total *t;

		if (folds[i].func >= a->rows.n_funcs)
			continue;
		t = &f->totals[a->rows.row_of[folds[i].func]];
		t->calls += folds[i].calls;
		t->self_ns += (uint64_t)folds[i].self_ns;
		t->self_insns += (uint64_t)folds[i].self_insns;
		t->total_ns += folds[i].total_ns;
		t->total_insns += folds[i].total_insns;
		if (folds[i].calls && folds[i].min_ns < t->min_ns)
			t->min_ns = folds[i].min_ns;
		if (folds[i].max_ns > t->max_ns)
			t->max_ns = folds[i].max_ns;
	}
	return NULL;
}

struct bp_err *bp_functions_walk(struct bp_functions *f)
{
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	struct bp_err *err = bp_analysis_walk(f->a, &w);

	if (!err)
		err = bp_walk_inline(w, &hot_ops, f);
	if (err)
		return err;
	bp_analysis_walked(f->a, w);
	return bp_functions_finish(f);
}

/* ---- the table ---- */

enum {
	F_SELF,
	F_SELF_PCT,
	F_TOTAL,
	F_TOTAL_PCT,
	F_CALLS,
	F_AVG,
	F_MIN,
	F_MAX,
	F_SLEEP,
	F_SELF_INSNS,
	F_SELF_INSNS_PCT,
	F_TOTAL_INSNS,
	F_TOTAL_INSNS_PCT,
	F_AVG_INSNS,
	F_NAME,
	F_MODULE,
	F_SPACE,
	F_ADDR,
	F_VCPU,
	F_LINE,
};

static const struct bp_field fields[] = {
    [F_SELF] = {"self_ns", "SELF", BP_COL_NS, false},
    [F_SELF_PCT] = {"self_pct", "SELF%", BP_COL_PERCENT, false},
    [F_TOTAL] = {"total_ns", "TOTAL", BP_COL_NS, false},
    [F_TOTAL_PCT] = {"total_pct", "TOTAL%", BP_COL_PERCENT, false},
    [F_CALLS] = {"calls", "CALLS", BP_COL_COUNT, false},
    [F_AVG] = {"avg_ns", "AVG", BP_COL_NS, false},
    [F_MIN] = {"min_ns", "MIN", BP_COL_NS, false},
    [F_MAX] = {"max_ns", "MAX", BP_COL_NS, false},
    [F_SLEEP] = {"sleep_ns", "SLEEP", BP_COL_NS, false},
    [F_SELF_INSNS] = {"self_insns", "SELF INSNS", BP_COL_INSNS, false},
    [F_SELF_INSNS_PCT] = {"self_insns_pct", "SELF%", BP_COL_PERCENT, false},
    [F_TOTAL_INSNS] = {"total_insns", "TOTAL INSNS", BP_COL_INSNS, false},
    [F_TOTAL_INSNS_PCT] = {"total_insns_pct", "TOTAL%", BP_COL_PERCENT, false},
    [F_AVG_INSNS] = {"avg_insns", "AVG INSNS", BP_COL_INSNS, false},
    [F_NAME] = {"name", "FUNCTION", BP_COL_STR, false},
    [F_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [F_SPACE] = {"space", "SPACE", BP_COL_STR, false},
    [F_ADDR] = {"addr", "ADDRESS", BP_COL_HEX, false},
    [F_VCPU] = {"vcpu", "VCPU", BP_COL_COUNT, false},
    [F_LINE] = {"line", "SOURCE", BP_COL_STR, false},
};

struct table {
	struct bp_functions *f;
	size_t *index; /* rows that are shown, into f->totals */
	size_t n;
	double self_ns, self_insns;
};

static void cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	const struct table *t = ctx;
	struct bp_analysis *a = t->f->a;
	const struct bp_func_total *x = &t->f->totals[t->index[i]];
	uint32_t row = (uint32_t)(t->index[i] % t->f->n_rows);
	const char *line;

	switch (field) {
	case F_SELF:
		bp_cell_int(c, x->self_ns);
		break;
	case F_SELF_PCT:
		bp_cell_pct(c, (double)(int64_t)x->self_ns, t->self_ns);
		break;
	case F_TOTAL:
		bp_cell_int(c, x->total_ns);
		break;
	case F_TOTAL_PCT:
		bp_cell_pct(c, (double)x->total_ns, t->self_ns);
		break;
	case F_CALLS:
		bp_cell_int(c, x->calls);
		break;
	case F_AVG:
		if (x->calls)
			bp_cell_int(c, x->total_ns / x->calls);
		break;
	case F_MIN:
		if (x->min_ns != UINT64_MAX)
			bp_cell_int(c, x->min_ns);
		break;
	case F_MAX:
		if (x->min_ns != UINT64_MAX || x->max_ns)
			bp_cell_int(c, x->max_ns);
		break;
	case F_SLEEP:
		bp_cell_int(c, x->sleep_ns);
		break;
	case F_SELF_INSNS:
		bp_cell_int(c, x->self_insns);
		break;
	case F_SELF_INSNS_PCT:
		bp_cell_pct(c, (double)(int64_t)x->self_insns, t->self_insns);
		break;
	case F_TOTAL_INSNS:
		bp_cell_int(c, x->total_insns);
		break;
	case F_TOTAL_INSNS_PCT:
		bp_cell_pct(c, (double)x->total_insns, t->self_insns);
		break;
	case F_AVG_INSNS:
		if (x->calls)
			bp_cell_int(c, x->total_insns / x->calls);
		break;
	case F_NAME:
		bp_cell_str(c, bp_row_name(&a->rows, row, c->buf));
		break;
	case F_MODULE:
		bp_cell_str(c, bp_row_module(&a->rows, row));
		break;
	case F_SPACE:
		bp_cell_str(c, bp_space_name(a->rows.rows[row].space));
		break;
	case F_ADDR:
		bp_cell_int(c, a->rows.rows[row].addr);
		break;
	case F_VCPU:
		if (t->f->per_vcpu)
			bp_cell_int(c, t->index[i] / t->f->n_rows);
		break;
	case F_LINE:
		line = bp_analysis_line(a, row);
		if (line)
			bp_cell_str(c, line);
		break;
	default:
		break;
	}
}

static bool has_figures(const struct bp_func_total *x)
{
	return x->calls || x->self_ns || x->self_insns || x->total_ns || x->total_insns;
}

struct bp_err *bp_functions_table(struct bp_functions *f, struct bp_report *r, bool main, size_t limit)
{
	struct bp_analysis *a = f->a;
	const struct bp_query *q = a->query;
	size_t n = f->n_rows * f->n_vcpus;
	bp_autofree size_t *index = malloc((n + 1) * sizeof(*index));
	struct table t = {.f = f, .index = index};
	char text_time[128], text_insns[128];
	struct bp_view_table v = {
	    .id = "functions",
	    .title =
		q->clock == BP_CLOCK_TIME ? "Functions, by time on a vCPU" : "Functions, by instructions",
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time = text_time,
	    .text_insns = text_insns,
	    .sort_time = "self_ns",
	    .sort_insns = "self_insns",
	    .cell = cell,
	    .ctx = &t,
	    .main = main,
	    .limit = limit,
	};
	const char *vcpu = f->per_vcpu ? ",vcpu" : "", *line = q->lines ? ",line" : "";

	if (!index)
		return bp_err_nomem();
	snprintf(text_time, sizeof(text_time),
		 "self_ns,self_pct,total_ns,calls,avg_ns,max_ns,self_insns%s,name,module%s", vcpu, line);
	snprintf(text_insns, sizeof(text_insns),
		 "self_insns,self_insns_pct,total_insns,calls,avg_insns,self_ns%s,name,module%s", vcpu, line);
	for (size_t i = 0; i < n; i++) {
		const struct bp_func_total *x = &f->totals[i];

		if (!has_figures(x))
			continue;
		t.self_ns += (double)(int64_t)x->self_ns;
		t.self_insns += (double)(int64_t)x->self_insns;
		if (bp_row_shown(a, (uint32_t)(i % f->n_rows)) && x->total_ns >= q->min_ns)
			index[t.n++] = i;
	}
	v.n_rows = t.n;
	return bp_view_add(a, r, &v);
}

/* ---- the view ---- */

static struct bp_err *functions_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(bp_functions_deinitp) struct bp_functions f = {0};
	struct bp_err *err = bp_functions_init(&f, a, a->query->per_vcpu);
	uint64_t calls = 0;

	if (!err)
		err = bp_functions_walk(&f);
	if (err)
		return err;
	for (size_t i = 0; i < f.n_rows * f.n_vcpus; i++)
		calls += f.totals[i].calls;
	bp_view_title(a, r, "Functions");
	bp_report_scalar(r, "calls", (int64_t)calls);
	return bp_functions_table(&f, r, true, 0);
}

const struct bp_view bp_view_functions = {
    .name = "functions",
    .summary = "time and instructions of each function: self, total, calls, average, longest",
    .run = functions_run,
};
