// SPDX-License-Identifier: GPL-2.0-or-later
/* The first entry of each function, in order of time: what the guest got to when. */
#include <stdlib.h>
#include <string.h>

#include "analyzers/parts.h"
#include "core/cleanup.h"

static inline void first_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	struct bp_first_calls *c = ctx;
	struct bp_first_call *first = &c->first[f->row];

	/* vCPUs come in no order, so a later event can be an earlier call. */
	if (now->wall_ns >= first->wall_ns)
		return;
	first->wall_ns = now->wall_ns;
	first->vcpu_insns = now->vcpu_insns;
	first->vcpu = now->vcpu;
	first->task = now->task->id;
	first->caller = f[-1].row;
	first->kind = f->kind;
}

const struct bp_walk_ops bp_first_calls_ops = {
    .on_enter = first_enter,
};

static const struct bp_walk_ops hot_ops = {
    .on_enter = first_enter,
};

struct bp_err *bp_first_calls_init(struct bp_first_calls *f, struct bp_analysis *a)
{
	f->a = a;
	f->first = calloc(a->rows.n + 1, sizeof(*f->first));
	if (!f->first)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++)
		f->first[i].wall_ns = UINT64_MAX;
	return NULL;
}

void bp_first_calls_deinit(struct bp_first_calls *f)
{
	free(f->first);
	f->first = NULL;
}

enum {
	C_TIME,
	C_INSNS,
	C_VCPU,
	C_PROCESS,
	C_PID,
	C_NAME,
	C_MODULE,
	C_CALLER,
	C_HOW,
	C_SPACE,
	C_ADDR,
	C_LINE
};

static const struct bp_field fields[] = {
    [C_TIME] = {"time_ns", "TIME", BP_COL_NS, false},
    [C_INSNS] = {"insns", "VCPU INSNS", BP_COL_INSNS, false},
    [C_VCPU] = {"vcpu", "VCPU", BP_COL_COUNT, false},
    [C_PROCESS] = {"process", "PROCESS", BP_COL_STR, false},
    [C_PID] = {"pid", "PID", BP_COL_COUNT, false},
    [C_NAME] = {"name", "FUNCTION", BP_COL_STR, false},
    [C_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [C_CALLER] = {"caller", "CALLER", BP_COL_STR, false},
    [C_HOW] = {"how", "BY", BP_COL_STR, false},
    [C_SPACE] = {"space", "SPACE", BP_COL_STR, false},
    [C_ADDR] = {"addr", "ADDRESS", BP_COL_HEX, false},
    [C_LINE] = {"line", "SOURCE", BP_COL_STR, false},
};

struct table {
	struct bp_first_calls *f;
	uint32_t *rows;
};

static void cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	const struct table *t = ctx;
	struct bp_analysis *a = t->f->a;
	uint32_t row = t->rows[i];
	const struct bp_first_call *x = &t->f->first[row];
	const struct bp_task_info *task;
	const char *line;

	switch (field) {
	case C_TIME:
		bp_cell_int(c, x->wall_ns);
		break;
	case C_INSNS:
		bp_cell_int(c, x->vcpu_insns);
		break;
	case C_VCPU:
		bp_cell_int(c, x->vcpu);
		break;
	case C_PROCESS:
		bp_cell_str(c, bp_analysis_task_name(a, x->task, c->buf));
		break;
	case C_PID:
		task = bp_analysis_task(a, x->task);
		if (bp_task_has_pid(task))
			bp_cell_int(c, task->pid);
		break;
	case C_NAME:
		bp_cell_str(c, bp_row_name(&a->rows, row, c->buf));
		break;
	case C_MODULE:
		bp_cell_str(c, bp_row_module(&a->rows, row));
		break;
	case C_CALLER:
		if (x->caller != BP_NO_ROW)
			bp_cell_str(c, bp_row_name(&a->rows, x->caller, c->buf));
		break;
	case C_HOW:
		bp_cell_str(c, x->kind == BP_EV_JUMP ? "jump" : x->kind == BP_EV_IRQ ? "irq" : "call");
		break;
	case C_SPACE:
		bp_cell_str(c, bp_space_name(a->rows.rows[row].space));
		break;
	case C_ADDR:
		bp_cell_int(c, a->rows.rows[row].addr);
		break;
	case C_LINE:
		line = bp_analysis_line(a, row);
		if (line)
			bp_cell_str(c, line);
		break;
	default:
		break;
	}
}

struct bp_err *bp_first_calls_table(struct bp_first_calls *f, struct bp_report *r, const bool *keep,
				    const char *title, bool main)
{
	struct bp_analysis *a = f->a;
	bp_autofree uint32_t *rows = malloc((a->rows.n + 1) * sizeof(*rows));
	struct table t = {.f = f, .rows = rows};
	struct bp_view_table v = {
	    .id = "first_calls",
	    .title = title,
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time = a->query->lines ? "time_ns,insns,vcpu,process,name,module,caller,line"
					 : "time_ns,insns,vcpu,process,name,module,caller",
	    .text_insns = a->query->lines ? "insns,time_ns,vcpu,process,name,module,caller,line"
					  : "insns,time_ns,vcpu,process,name,module,caller",
	    .cell = cell,
	    .ctx = &t,
	    .main = main,
	};
	size_t n = 0;

	if (!rows)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++) {
		if (a->rows.rows[i].space != BP_SPACE_PSEUDO && f->first[i].wall_ns != UINT64_MAX &&
		    bp_row_shown(a, (uint32_t)i) && (!keep || keep[i]))
			rows[n++] = (uint32_t)i;
	}
	v.n_rows = n;
	/* In order of time; the generic order of numbers is the other way round. */
	for (size_t gap = n / 2; gap; gap /= 2) {
		for (size_t i = gap; i < n; i++) {
			uint32_t x = rows[i];
			size_t k = i;

			for (; k >= gap && f->first[rows[k - gap]].wall_ns > f->first[x].wall_ns; k -= gap)
				rows[k] = rows[k - gap];
			rows[k] = x;
		}
	}
	return bp_view_add(a, r, &v);
}

static void deinitp(struct bp_first_calls *f)
{
	bp_first_calls_deinit(f);
}

static struct bp_err *first_calls_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(deinitp) struct bp_first_calls f = {0};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	struct bp_err *err = bp_first_calls_init(&f, a);

	if (!err)
		err = bp_analysis_walk(a, &w);
	if (!err)
		err = bp_walk_inline(w, &hot_ops, &f);
	if (err)
		return err;
	bp_analysis_walked(a, w);
	a->folds_left_out = true;
	bp_view_title(a, r, "First calls");
	return bp_first_calls_table(&f, r, NULL, "First entry of each function, in order of time", true);
}

const struct bp_view bp_view_first_calls = {
    .name = "first-calls",
    .summary = "the first entry of each function in time order: caller, vCPU, process",
    .run = first_calls_run,
};
