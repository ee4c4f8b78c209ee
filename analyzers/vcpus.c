// SPDX-License-Identifier: GPL-2.0-or-later
/* What QEMU's threads did with their time: running, or why not; and how even their time slices are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/parts.h"
#include "core/cleanup.h"

struct vcpus {
	struct bp_analysis *a;
	struct bp_waits *w;
	uint32_t *index; /* rows: threads, in order of the table */
	size_t n;
	struct bp_strbuf text;
};

enum {
	V_THREAD,
	V_ROLE,
	V_VCPU,
	V_TID,
	V_SWITCHES,
	V_RUNNING,
	V_PREEMPTED,
	V_LOCK,
	V_HALTED,
	V_IO,
	V_OTHER,
	V_FAULT,
	V_KERNEL,
	V_FUTEX,
	V_POLL,
	V_DELAY,
	V_PREEMPTIONS,
	V_LOCK_WAITS,
	V_SLICES,
	V_P10,
	V_P50,
	V_P90,
	V_MAX,
	V_AVG,
	V_CV
};

static const struct bp_field fields[] = {
    [V_THREAD] = {"thread", "THREAD", BP_COL_STR, false},
    [V_ROLE] = {"role", "ROLE", BP_COL_STR, false},
    [V_VCPU] = {"vcpu", "VCPU", BP_COL_COUNT, false},
    [V_TID] = {"tid", "TID", BP_COL_COUNT, false},
    [V_SWITCHES] = {"switches", "SWITCHES", BP_COL_COUNT, false},
    [V_RUNNING] = {"running_ns", "RUNNING", BP_COL_NS, false},
    [V_PREEMPTED] = {"preempted_ns", "PREEMPTED", BP_COL_NS, false},
    [V_LOCK] = {"lock_wait_ns", "LOCK WAIT", BP_COL_NS, false},
    [V_HALTED] = {"halted_ns", "HALTED", BP_COL_NS, false},
    [V_IO] = {"io_wait_ns", "IO WAIT", BP_COL_NS, false},
    [V_OTHER] = {"other_ns", "OTHER", BP_COL_NS, false},
    [V_FAULT] = {"fault_ns", "FAULT", BP_COL_NS, false},
    [V_KERNEL] = {"kernel_ns", "KERNEL", BP_COL_NS, false},
    [V_FUTEX] = {"futex_ns", "FUTEX", BP_COL_NS, false},
    [V_POLL] = {"poll_ns", "POLL", BP_COL_NS, false},
    [V_DELAY] = {"sched_delay_ns", "SCH DELAY", BP_COL_NS, false},
    [V_PREEMPTIONS] = {"preemptions", "PREEMPTIONS", BP_COL_COUNT, false},
    [V_LOCK_WAITS] = {"lock_waits", "LOCK WAITS", BP_COL_COUNT, false},
    [V_SLICES] = {"slices", "SLICES", BP_COL_COUNT, false},
    [V_P10] = {"slice_p10_ns", "SLICE P10", BP_COL_NS, false},
    [V_P50] = {"slice_p50_ns", "P50", BP_COL_NS, false},
    [V_P90] = {"slice_p90_ns", "P90", BP_COL_NS, false},
    [V_MAX] = {"slice_max_ns", "MAX", BP_COL_NS, false},
    [V_AVG] = {"slice_avg_ns", "SLICE AVG", BP_COL_NS, false},
    [V_CV] = {"slice_cv_pct", "CV%", BP_COL_PERCENT, false},
};

static int compare_ns(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* vCPUs by number, then the others as they came. */
static bool before(const struct bp_waits *w, uint32_t a, uint32_t b)
{
	const struct bp_wait_thread *x = &w->threads[a], *y = &w->threads[b];
	bool vx = x->vcpu != UINT16_MAX, vy = y->vcpu != UINT16_MAX;

	if (vx != vy)
		return vx;
	if (vx && x->vcpu != y->vcpu)
		return x->vcpu < y->vcpu;
	return a < b;
}

/* Of sorted values; the nearest rank. */
static uint64_t percentile(const struct bp_wait_thread *t, unsigned pct)
{
	size_t rank = (t->n_slices * pct + 99) / 100;

	return t->slices[rank ? rank - 1 : 0];
}

static void slices(const struct bp_wait_thread *t, size_t field, struct bp_cell *c)
{
	double sum = 0, square = 0, mean;

	if (!t->n_slices)
		return;
	switch (field) {
	case V_P10:
		bp_cell_int(c, percentile(t, 10));
		return;
	case V_P50:
		bp_cell_int(c, percentile(t, 50));
		return;
	case V_P90:
		bp_cell_int(c, percentile(t, 90));
		return;
	case V_MAX:
		bp_cell_int(c, t->slices[t->n_slices - 1]);
		return;
	default:
		break;
	}
	for (size_t i = 0; i < t->n_slices; i++)
		sum += (double)t->slices[i];
	mean = sum / (double)t->n_slices;
	if (field == V_AVG) {
		bp_cell_int(c, (uint64_t)mean);
		return;
	}
	for (size_t i = 0; i < t->n_slices; i++)
		square += ((double)t->slices[i] - mean) * ((double)t->slices[i] - mean);
	bp_cell_pct(c, sqrt(square / (double)t->n_slices), mean);
}

/* The second table. */
static const struct bp_field slice_fields[] = {
    {"thread", "THREAD", BP_COL_STR, false},   {"tid", "TID", BP_COL_COUNT, false},
    {"role", "ROLE", BP_COL_STR, false},       {"slices", "SLICES", BP_COL_COUNT, false},
    {"slice_p10_ns", "P10", BP_COL_NS, false}, {"slice_p50_ns", "P50", BP_COL_NS, false},
    {"slice_p90_ns", "P90", BP_COL_NS, false}, {"slice_max_ns", "MAX", BP_COL_NS, false},
    {"slice_avg_ns", "AVG", BP_COL_NS, false}, {"slice_cv_pct", "CV%", BP_COL_PERCENT, false},
};
static const uint8_t slice_cols[] = {V_THREAD, V_TID, V_ROLE, V_SLICES, V_P10,
				     V_P50,    V_P90, V_MAX,  V_AVG,    V_CV};

static void cell(void *ctx, size_t row, size_t field, struct bp_cell *c);

static void slice_cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	cell(ctx, row, slice_cols[field], c);
}

static void cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	static const uint8_t class_of[] = {
	    [V_PREEMPTED] = BP_OFF_PREEMPTED, [V_LOCK] = BP_OFF_LOCK,
	    [V_HALTED] = BP_OFF_HALT,         [V_IO] = BP_OFF_IO,
	    [V_FAULT] = BP_OFF_FAULT,         [V_KERNEL] = BP_OFF_KERNEL,
	    [V_FUTEX] = BP_OFF_FUTEX,         [V_POLL] = BP_OFF_POLL,
	};
	struct vcpus *x = ctx;
	const struct bp_wait_thread *t = &x->w->threads[x->index[row]];

	switch (field) {
	case V_THREAD:
		if (*t->comm || t->vcpu != UINT16_MAX) {
			bp_strbuf_clear(&x->text);
			bp_waits_thread_name(x->w, x->index[row], &x->text);
			bp_cell_str(c, bp_strbuf_str(&x->text));
		}
		break;
	case V_ROLE:
		bp_cell_str(c, t->role);
		break;
	case V_VCPU:
		if (t->vcpu != UINT16_MAX)
			bp_cell_int(c, t->vcpu);
		break;
	case V_TID:
		if (t->tid != UINT32_MAX)
			bp_cell_int(c, t->tid);
		break;
	case V_SWITCHES:
		bp_cell_int(c, t->switches);
		break;
	case V_RUNNING:
		if (x->w->timed)
			bp_cell_int(c, t->running_ns);
		break;
	case V_OTHER:
		if (x->w->timed)
			bp_cell_int(c, t->ns[BP_OFF_FAULT] + t->ns[BP_OFF_KERNEL] + t->ns[BP_OFF_FUTEX] +
					   t->ns[BP_OFF_POLL] + t->ns[BP_OFF_OTHER]);
		break;
	case V_DELAY:
		if (x->w->timed)
			bp_cell_int(c, t->delay_ns);
		break;
	case V_PREEMPTIONS:
		bp_cell_int(c, t->n[BP_OFF_PREEMPTED]);
		break;
	case V_LOCK_WAITS:
		bp_cell_int(c, t->n[BP_OFF_LOCK]);
		break;
	case V_SLICES:
		bp_cell_int(c, t->n_slices);
		break;
	case V_P10:
	case V_P50:
	case V_P90:
	case V_MAX:
	case V_AVG:
	case V_CV:
		slices(t, field, c);
		break;
	default:
		if (x->w->timed)
			bp_cell_int(c, t->ns[class_of[field]]);
		break;
	}
}

static struct bp_err *choose(struct vcpus *x)
{
	const struct bp_waits *w = x->w;

	x->index = malloc((w->n_threads + 1) * sizeof(*x->index));
	if (!x->index)
		return bp_err_nomem();
	for (uint32_t i = 0; i < w->n_threads; i++) {
		const struct bp_wait_thread *t = &w->threads[i];
		size_t at = x->n;

		uint64_t ns = t->running_ns;

		for (int k = 0; k < BP_OFF_CLASSES; k++)
			ns += t->ns[k];
		if (!bp_waits_listed(x->a->query, w, i) || (!t->switches && !ns))
			continue;
		for (; at && before(w, i, x->index[at - 1]); at--)
			x->index[at] = x->index[at - 1];
		x->index[at] = i;
		x->n++;
		if (t->n_slices)
			qsort(t->slices, t->n_slices, sizeof(*t->slices), compare_ns);
	}
	return NULL;
}

static void deinit(struct vcpus *x)
{
	free(x->index);
	bp_strbuf_deinit(&x->text);
}

static struct bp_err *table(struct vcpus *x, struct bp_report *r, bool main)
{
	struct bp_view_table v = {
	    .id = "vcpus",
	    .title = "Threads of QEMU: running, or why not",
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time =
		"thread,role,switches,running_ns,preempted_ns,lock_wait_ns,halted_ns,io_wait_ns,other_ns",
	    .cell = cell,
	    .ctx = x,
	    .main = main,
	};
	struct bp_err *err = choose(x);

	v.n_rows = x->n;
	return err ? err : bp_view_add(x->a, r, &v);
}

struct bp_err *bp_vcpus_table(struct bp_analysis *a, struct bp_waits *w, struct bp_report *r, bool main)
{
	bp_cleanup(deinit) struct vcpus x = {.a = a, .w = w};

	return table(&x, r, main);
}

static struct bp_err *vcpus_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(bp_waits_destroyp) struct bp_waits *w = NULL;
	bp_cleanup(deinit) struct vcpus x = {.a = a};
	struct bp_view_table v = {
	    .id = "slices",
	    .title = "Time slices: are they even?",
	    .fields = slice_fields,
	    .n_fields = BP_ARRAY_SIZE(slice_fields),
	    .text_time =
		"thread,tid,role,slices,slice_p10_ns,slice_p50_ns,slice_p90_ns,slice_max_ns,slice_avg_ns,"
		"slice_cv_pct",
	    .cell = slice_cell,
	    .ctx = &x,
	};
	struct bp_err *err = bp_waits_run(a->trace, a->walk.from_ns, a->walk.to_ns, NULL, NULL, &w);

	if (err)
		return err;
	x.w = w;
	bp_waits_title(a, w, r, "vCPUs");
	err = table(&x, r, true);
	v.n_rows = x.n;
	if (!err)
		err = bp_view_add(a, r, &v);
	if (err)
		return err;
	bp_waits_notes(w, r);
	bp_report_note(
	    r,
	    "a slice is the time from getting a CPU to leaving it, for whatever reason; CV%% is its standard "
	    "deviation in percent of its mean");
	return NULL;
}

const struct bp_view bp_view_vcpus = {
    .name = "vcpus",
    .summary = "vCPU and other threads of QEMU: running, preempted, waiting for what; time slices",
    .waits = true,
    .run = vcpus_run,
};
