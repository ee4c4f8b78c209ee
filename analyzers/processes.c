// SPDX-License-Identifier: GPL-2.0-or-later
/* Tasks: time on vCPUs, in user space and in the kernel, life. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/parts.h"
#include "core/cleanup.h"

enum { OTHER, HALTED, USER };

static struct bp_process *get(struct bp_processes *p, const struct bp_walk_now *now)
{
	uint32_t index = now->task->index;

	if (index >= p->cap) {
		size_t cap = p->cap ? p->cap : 64;
		struct bp_process *list;

		while (cap <= index)
			cap *= 2;
		list = realloc(p->list, cap * sizeof(*list));
		if (!list) {
			p->failed = true;
			return NULL;
		}
		memset(list + p->cap, 0, (cap - p->cap) * sizeof(*list));
		p->list = list;
		p->cap = cap;
	}
	if (index >= p->n)
		p->n = index + 1;
	p->list[index].task = now->task->id;
	return &p->list[index];
}

static void process_run(void *ctx, const struct bp_walk_now *now)
{
	struct bp_process *x = get(ctx, now);

	if (!x)
		return;
	if (!x->seen)
		x->first_ns = now->wall_ns;
	x->seen = true;
	x->runs++;
	x->start_cpu = now->cpu_ns;
	x->start_insns = now->insns;
}

static void process_run_end(void *ctx, const struct bp_walk_now *now)
{
	struct bp_process *x = get(ctx, now);

	if (!x || !x->seen)
		return;
	x->run_ns += now->cpu_ns - x->start_cpu;
	x->insns += now->insns - x->start_insns;
	x->last_ns = now->wall_ns;
}

static inline void process_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
				 enum bp_walk_leave how)
{
	struct bp_processes *p = ctx;
	struct bp_process *x;
	uint8_t kind = p->kind[f->row];

	(void)how;
	if (kind == OTHER && f->syscall == BP_WALK_NO_SYSCALL)
		return;
	x = get(p, now);
	if (!x)
		return;
	if (f->syscall != BP_WALK_NO_SYSCALL)
		x->syscalls++;
	if (kind == HALTED) {
		x->halted_ns += f->self_ns;
	} else if (kind == USER) {
		x->user_ns += f->self_ns;
		x->user_insns += f->self_insns;
	}
}

const struct bp_walk_ops bp_processes_ops = {
    .on_run = process_run,
    .on_run_end = process_run_end,
    .on_leave = process_leave,
};

static const struct bp_walk_ops hot_ops = {
    .on_run = process_run,
    .on_run_end = process_run_end,
    .on_leave = process_leave,
};

struct bp_err *bp_processes_init(struct bp_processes *p, struct bp_analysis *a)
{
	memset(p, 0, sizeof(*p));
	p->a = a;
	p->kind = calloc(a->rows.n + 1, 1);
	if (!p->kind)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++) {
		const struct bp_row *r = &a->rows.rows[i];

		if (bp_row_is_halted(r))
			p->kind[i] = HALTED;
		else if (r->space == BP_SPACE_USER || r->space == BP_SPACE_ANON ||
			 (r->space == BP_SPACE_PSEUDO && !strcmp(r->name, "[user]")))
			p->kind[i] = USER;
	}
	return NULL;
}

void bp_processes_deinit(struct bp_processes *p)
{
	free(p->kind);
	free(p->list);
	memset(p, 0, sizeof(*p));
}

/* ---- the table ---- */

enum {
	P_PID,
	P_PROCESS,
	P_CPU,
	P_CPU_PCT,
	P_INSNS,
	P_USER,
	P_KERNEL,
	P_USER_INSNS,
	P_HALTED,
	P_SYSCALLS,
	P_RUNS,
	P_FIRST,
	P_LAST,
	P_EXIT,
	P_PARENT,
	P_PARENT_PID,
	P_FILE,
	P_TGID,
	P_KIND,
	P_TASK,
};

static const struct bp_field fields[] = {
    [P_PID] = {"pid", "PID", BP_COL_COUNT, false},
    [P_PROCESS] = {"process", "PROCESS", BP_COL_STR, false},
    [P_CPU] = {"cpu_ns", "ON VCPU", BP_COL_NS, false},
    [P_CPU_PCT] = {"cpu_pct", "VCPU%", BP_COL_PERCENT, false},
    [P_INSNS] = {"insns", "INSNS", BP_COL_INSNS, false},
    [P_USER] = {"user_ns", "USER", BP_COL_NS, false},
    [P_KERNEL] = {"kernel_ns", "KERNEL", BP_COL_NS, false},
    [P_USER_INSNS] = {"user_insns", "USER INSNS", BP_COL_INSNS, false},
    [P_HALTED] = {"halted_ns", "HALTED", BP_COL_NS, false},
    [P_SYSCALLS] = {"syscalls", "SYSCALLS", BP_COL_COUNT, false},
    [P_RUNS] = {"runs", "RUNS", BP_COL_COUNT, false},
    [P_FIRST] = {"first_ns", "FIRST RAN", BP_COL_NS, false},
    [P_LAST] = {"last_ns", "LAST RAN", BP_COL_NS, false},
    [P_EXIT] = {"exit_code", "EXIT", BP_COL_COUNT, false},
    [P_PARENT] = {"parent", "PARENT", BP_COL_STR, false},
    [P_PARENT_PID] = {"parent_pid", "PPID", BP_COL_COUNT, false},
    [P_FILE] = {"file", "FILE", BP_COL_STR, false},
    [P_TGID] = {"tgid", "TGID", BP_COL_COUNT, false},
    [P_KIND] = {"kind", "KIND", BP_COL_STR, false},
    [P_TASK] = {"task", "TASK", BP_COL_COUNT, false},
};

struct table {
	struct bp_processes *p;
	size_t *index;
	double run_ns;
};

static void parent_cell(const struct bp_analysis *a, const struct bp_task_info *t, size_t field,
			struct bp_cell *c)
{
	const struct bp_task_info *parent = bp_analysis_task(a, t->parent);

	if (t->parent == UINT64_MAX || !parent->known)
		return;
	if (field == P_PARENT)
		bp_cell_str(c, bp_analysis_task_name(a, t->parent, c->buf));
	else if (bp_task_has_pid(parent))
		bp_cell_int(c, parent->pid);
}

static void cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct table *t = ctx;
	const struct bp_analysis *a = t->p->a;
	const struct bp_process *x = &t->p->list[t->index[row]];
	const struct bp_task_info *i = bp_analysis_task(a, x->task);
	uint64_t busy = x->run_ns > x->halted_ns ? x->run_ns - x->halted_ns : 0;
	bool boot = i->flags & BP_TASK_BOOT;

	switch (field) {
	case P_PID:
		if (bp_task_has_pid(i))
			bp_cell_int(c, i->pid);
		break;
	case P_PROCESS:
		bp_cell_str(c, bp_analysis_task_name(a, x->task, c->buf));
		break;
	case P_CPU:
		bp_cell_int(c, busy);
		break;
	case P_CPU_PCT:
		bp_cell_pct(c, (double)busy, t->run_ns);
		break;
	case P_INSNS:
		bp_cell_int(c, x->insns);
		break;
	case P_USER:
		bp_cell_int(c, x->user_ns);
		break;
	case P_KERNEL:
		bp_cell_int(c, busy > x->user_ns ? busy - x->user_ns : 0);
		break;
	case P_USER_INSNS:
		bp_cell_int(c, x->user_insns);
		break;
	case P_HALTED:
		bp_cell_int(c, x->halted_ns);
		break;
	case P_SYSCALLS:
		bp_cell_int(c, x->syscalls);
		break;
	case P_RUNS:
		bp_cell_int(c, x->runs);
		break;
	case P_FIRST:
		bp_cell_int(c, x->first_ns);
		break;
	case P_LAST:
		bp_cell_int(c, x->last_ns);
		break;
	case P_EXIT:
		if (i->ended)
			bp_cell_int(c, i->exit_code);
		break;
	case P_PARENT:
	case P_PARENT_PID:
		parent_cell(a, i, field, c);
		break;
	case P_FILE:
		if (*i->file)
			bp_cell_str(c, i->file);
		break;
	case P_TGID:
		if (i->known && !boot)
			bp_cell_int(c, i->tgid);
		break;
	case P_KIND:
		bp_cell_str(c, boot                        ? "boot"
			       : i->flags & BP_TASK_IDLE   ? "idle"
			       : i->flags & BP_TASK_KERNEL ? "kernel"
							   : "user");
		break;
	case P_TASK:
		bp_cell_int(c, x->task);
		break;
	default:
		break;
	}
}

struct bp_err *bp_processes_table(struct bp_processes *p, struct bp_report *r, bool main, size_t limit)
{
	bp_autofree size_t *index = malloc((p->n + 1) * sizeof(*index));
	struct table t = {.p = p, .index = index};
	struct bp_view_table v = {
	    .id = "processes",
	    .title = "Processes and kernel threads",
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time =
		main ? "pid,process,cpu_ns,cpu_pct,insns,user_ns,kernel_ns,halted_ns,syscalls,first_ns,last_"
		       "ns,"
		       "parent,file"
		     : "pid,process,cpu_ns,cpu_pct,insns,user_ns,kernel_ns,halted_ns,syscalls,first_ns",
	    .text_insns =
		main ? "pid,process,insns,user_insns,cpu_ns,halted_ns,syscalls,first_ns,last_ns,parent,file"
		     : "pid,process,insns,user_insns,cpu_ns,halted_ns,syscalls,first_ns",
	    .sort_time = "cpu_ns",
	    .sort_insns = "insns",
	    .cell = cell,
	    .ctx = &t,
	    .main = main,
	    .limit = limit,
	};

	if (!index)
		return bp_err_nomem();
	for (size_t i = 0; i < p->n; i++) {
		const struct bp_process *x = &p->list[i];

		if (!x->seen)
			continue;
		t.run_ns += (double)x->run_ns - (double)x->halted_ns;
		if (x->run_ns >= p->a->query->min_ns)
			index[v.n_rows++] = i;
	}
	return bp_view_add(p->a, r, &v);
}

static void deinitp(struct bp_processes *p)
{
	bp_processes_deinit(p);
}

static struct bp_err *processes_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(deinitp) struct bp_processes p = {0};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	struct bp_err *err = bp_processes_init(&p, a);

	if (!err)
		err = bp_analysis_walk(a, &w);
	if (!err)
		err = bp_walk_inline(w, &hot_ops, &p);
	if (err)
		return err;
	if (p.failed)
		return bp_err_nomem();
	bp_analysis_walked(a, w);
	bp_view_title(a, r, "Processes");
	return bp_processes_table(&p, r, true, 0);
}

const struct bp_view bp_view_processes = {
    .name = "processes",
    .summary = "time and instructions of each process and kernel thread, its life and parent",
    .run = processes_run,
};
