// SPDX-License-Identifier: GPL-2.0-or-later
/* Interrupts and exceptions by entry function, and the handlers that they ran. */
#include <stdlib.h>
#include <string.h>

#include "analyzers/view.h"
#include "core/cleanup.h"

struct total {
	uint64_t count, ns, insns, wall_ns, max_ns, min_ns;
};

/* Functions whose callees are handlers. */
static const struct {
	const char *caller, *kind;
} dispatchers[] = {
    {"__handle_irq_event_percpu", "device"},
    {"handle_softirqs", "softirq"},
    {"__do_softirq", "softirq"},
    {"__hrtimer_run_queues", "hrtimer"},
    {"__run_hrtimer", "hrtimer"},
    {"call_timer_fn", "timer"},
    {"tasklet_action_common", "tasklet"},
    {"__flush_smp_call_function_queue", "other vcpu"},
};

struct interrupts {
	struct bp_analysis *a;
	uint8_t *dispatcher;    /* by row: index into dispatchers[], plus one */
	struct total *entries;  /* by vCPU * rows + row (vCPU 0 only unless per_vcpu) */
	struct total *handlers; /* by row */
	uint8_t *handler_kind;  /* by row: as dispatcher */
	size_t n_rows, n_vcpus;
	bool per_vcpu, failed;
};

/* What a dispatcher calls besides handlers. */
static bool is_helper(const char *name)
{
	static const char *const prefixes[] = {
	    "_raw_",
	    "native_",
	    "pv_native_",
	    "timerqueue_",
	    "enqueue_hrtimer",
	    "ktime_get",
	    "rcu_softirq_qs",
	    "wake_up_process",
	    "__local_bh_",
	    "lock_",
	    "trace_",
	    "debug_",
	    "csd_",
	    "mix_interrupt_randomness",
	};

	for (size_t i = 0; i < BP_ARRAY_SIZE(prefixes); i++) {
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	}
	return false;
}

static void add(struct total *t, const struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	uint64_t ns = bp_walk_total_ns(f, now);

	if (!t->count || ns < t->min_ns)
		t->min_ns = ns;
	t->count++;
	t->ns += ns;
	t->insns += bp_walk_total_insns(f, now);
	t->wall_ns += now->wall_ns - f->wall_ns;
	if (ns > t->max_ns)
		t->max_ns = ns;
}

static bool reserve_vcpu(struct interrupts *x, uint32_t vcpu)
{
	struct total *t;

	if (vcpu < x->n_vcpus)
		return true;
	t = realloc(x->entries, (vcpu + 1) * x->n_rows * sizeof(*t));
	if (!t) {
		x->failed = true;
		return false;
	}
	memset(t + x->n_vcpus * x->n_rows, 0, (vcpu + 1 - x->n_vcpus) * x->n_rows * sizeof(*t));
	x->entries = t;
	x->n_vcpus = vcpu + 1;
	return true;
}

static inline void irq_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
			     enum bp_walk_leave how)
{
	struct interrupts *x = ctx;
	uint8_t d;

	(void)how;
	if (f->flags & BP_FRAME_CUT)
		return;
	if (f->kind == BP_EV_IRQ) {
		uint32_t vcpu = x->per_vcpu ? now->vcpu : 0;

		if (reserve_vcpu(x, vcpu))
			add(&x->entries[vcpu * x->n_rows + f->row], f, now);
		return;
	}
	if (f[-1].row == BP_WALK_NO_FUNC)
		return;
	d = x->dispatcher[f[-1].row];
	if (d) {
		x->handler_kind[f->row] = d;
		add(&x->handlers[f->row], f, now);
	}
}

static const struct bp_walk_ops hot_ops = {
    .on_leave = irq_leave,
};

static void deinit(struct interrupts *x)
{
	free(x->dispatcher);
	free(x->entries);
	free(x->handlers);
	free(x->handler_kind);
}

static struct bp_err *init(struct interrupts *x, struct bp_analysis *a)
{
	x->a = a;
	x->n_rows = a->rows.n;
	x->n_vcpus = 1;
	x->per_vcpu = a->query->per_vcpu;
	x->dispatcher = calloc(x->n_rows + 1, 1);
	x->handler_kind = calloc(x->n_rows + 1, 1);
	x->entries = calloc(x->n_rows + 1, sizeof(*x->entries));
	x->handlers = calloc(x->n_rows + 1, sizeof(*x->handlers));
	if (!x->dispatcher || !x->handler_kind || !x->entries || !x->handlers)
		return bp_err_nomem();
	for (size_t i = 0; i < x->n_rows; i++) {
		if (a->rows.rows[i].space != BP_SPACE_KERNEL)
			continue;
		for (size_t d = 0; d < BP_ARRAY_SIZE(dispatchers); d++) {
			if (!strcmp(a->rows.rows[i].name, dispatchers[d].caller))
				x->dispatcher[i] = (uint8_t)(d + 1);
		}
	}
	return NULL;
}

/* By the names that x86 kernels give their entry functions. */
static const char *entry_kind(const char *name)
{
	if (strstr(name, "exc_") || strstr(name, "page_fault"))
		return "exception";
	if (strstr(name, "sysvec_") || strstr(name, "apic_") || strstr(name, "_interrupt"))
		return "interrupt";
	if (strstr(name, "irq"))
		return "interrupt";
	return "";
}

enum {
	I_COUNT,
	I_TOTAL,
	I_TOTAL_PCT,
	I_AVG,
	I_MIN,
	I_MAX,
	I_INSNS,
	I_AVG_INSNS,
	I_WALL,
	I_KIND,
	I_NAME,
	I_MODULE,
	I_VCPU,
	I_LINE
};

static const struct bp_field fields[] = {
    [I_COUNT] = {"count", "COUNT", BP_COL_COUNT, false},
    [I_TOTAL] = {"total_ns", "TOTAL", BP_COL_NS, false},
    [I_TOTAL_PCT] = {"total_pct", "RUN%", BP_COL_PERCENT, false},
    [I_AVG] = {"avg_ns", "AVG", BP_COL_NS, false},
    [I_MIN] = {"min_ns", "MIN", BP_COL_NS, false},
    [I_MAX] = {"max_ns", "MAX", BP_COL_NS, false},
    [I_INSNS] = {"total_insns", "INSNS", BP_COL_INSNS, false},
    [I_AVG_INSNS] = {"avg_insns", "AVG INSNS", BP_COL_INSNS, false},
    [I_WALL] = {"duration_ns", "ELAPSED", BP_COL_NS, false},
    [I_KIND] = {"kind", "KIND", BP_COL_STR, false},
    [I_NAME] = {"name", "FUNCTION", BP_COL_STR, false},
    [I_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [I_VCPU] = {"vcpu", "VCPU", BP_COL_COUNT, false},
    [I_LINE] = {"line", "SOURCE", BP_COL_STR, false},
};

struct table {
	struct interrupts *x;
	const struct total *totals;
	size_t *index;
	bool handlers;
};

static void cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	const struct table *t = ctx;
	struct bp_analysis *a = t->x->a;
	const struct total *x = &t->totals[t->index[i]];
	uint32_t row = (uint32_t)(t->index[i] % t->x->n_rows);
	const char *line;

	switch (field) {
	case I_COUNT:
		bp_cell_int(c, x->count);
		break;
	case I_TOTAL:
		bp_cell_int(c, x->ns);
		break;
	case I_TOTAL_PCT:
		bp_cell_pct(c, (double)x->ns, (double)a->end_ns);
		break;
	case I_AVG:
		bp_cell_int(c, x->ns / x->count);
		break;
	case I_MIN:
		bp_cell_int(c, x->min_ns);
		break;
	case I_MAX:
		bp_cell_int(c, x->max_ns);
		break;
	case I_INSNS:
		bp_cell_int(c, x->insns);
		break;
	case I_AVG_INSNS:
		bp_cell_int(c, x->insns / x->count);
		break;
	case I_WALL:
		bp_cell_int(c, x->wall_ns);
		break;
	case I_KIND:
		bp_cell_str(c, t->handlers ? dispatchers[t->x->handler_kind[row] - 1].kind
					   : entry_kind(a->rows.rows[row].name));
		break;
	case I_NAME:
		bp_cell_str(c, bp_row_name(&a->rows, row, c->buf));
		break;
	case I_MODULE:
		bp_cell_str(c, bp_row_module(&a->rows, row));
		break;
	case I_VCPU:
		if (t->x->per_vcpu && !t->handlers)
			bp_cell_int(c, t->index[i] / t->x->n_rows);
		break;
	case I_LINE:
		line = bp_analysis_line(a, row);
		if (line)
			bp_cell_str(c, line);
		break;
	default:
		break;
	}
}

static struct bp_err *table(struct interrupts *x, struct bp_report *r, bool handlers)
{
	size_t n = handlers ? x->n_rows : x->n_rows * x->n_vcpus;
	bp_autofree size_t *index = malloc((n + 1) * sizeof(*index));
	struct table t = {
	    .x = x,
	    .totals = handlers ? x->handlers : x->entries,
	    .index = index,
	    .handlers = handlers,
	};
	struct bp_view_table v = {
	    .id = handlers ? "handlers" : "interrupts",
	    .title =
		handlers ? "Handlers that interrupts ran" : "Interrupts and exceptions, by entry function",
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time = x->per_vcpu && !handlers
			     ? "count,total_ns,avg_ns,max_ns,total_insns,vcpu,kind,name,module"
			     : "count,total_ns,avg_ns,max_ns,total_insns,kind,name,module",
	    .text_insns = x->per_vcpu && !handlers
			      ? "count,total_insns,avg_insns,total_ns,max_ns,vcpu,kind,name,module"
			      : "count,total_insns,avg_insns,total_ns,max_ns,kind,name,module",
	    .sort_time = "total_ns",
	    .sort_insns = "total_insns",
	    .cell = cell,
	    .ctx = &t,
	    .main = !handlers,
	};

	if (!index)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		if (handlers && is_helper(x->a->rows.rows[i].name))
			continue;
		if (t.totals[i].count && bp_row_shown(x->a, (uint32_t)(i % x->n_rows)) &&
		    t.totals[i].ns >= x->a->query->min_ns)
			index[v.n_rows++] = i;
	}
	return bp_view_add(x->a, r, &v);
}

static struct bp_err *interrupts_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(deinit) struct interrupts x = {0};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	struct bp_err *err = init(&x, a);

	if (!err)
		err = bp_analysis_walk(a, &w);
	if (!err)
		err = bp_walk_inline(w, &hot_ops, &x);
	if (err)
		return err;
	if (x.failed)
		return bp_err_nomem();
	bp_analysis_walked(a, w);
	a->folds_left_out = true;
	bp_view_title(a, r, "Interrupts");
	err = table(&x, r, false);
	if (err)
		return err;
	bp_report_note(
	    r,
	    "time of an interrupt contains that of interrupts nested in it; it is also part of the total of "
	    "the function that it interrupted");
	return table(&x, r, true);
}

const struct bp_view bp_view_interrupts = {
    .name = "interrupts",
    .summary = "interrupts and exceptions: how many, how long, and the handlers that ran",
    .run = interrupts_run,
};
