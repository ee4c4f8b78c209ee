// SPDX-License-Identifier: GPL-2.0-or-later
/* System calls: the timeline, and a summary for each process and call. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/parts.h"
#include "core/cleanup.h"
#include "symbols/syscalls.h"

const char *bp_syscall_name(uint32_t nr, char *buf, size_t size)
{
	const char *name = bp_syscall_x86_64_name(nr);

	if (name)
		return name;
	snprintf(buf, size, "syscall %" PRIu32, nr);
	return buf;
}

/* ---- the walk ---- */

static uint32_t hash_of(uint32_t task, uint32_t nr)
{
	return (task * 2654435761u ^ nr * 40503u) * 2246822519u >> 7;
}

static bool rehash(struct bp_syscalls *s)
{
	size_t size = s->hash_size ? s->hash_size * 2 : 256;
	uint32_t *hash = malloc(size * sizeof(*hash));
	struct bp_syscall_sum *sums = realloc(s->sums, size / 2 * sizeof(*sums));

	if (sums)
		s->sums = sums;
	if (!hash || !sums) {
		free(hash);
		return false;
	}
	memset(hash, 0xff, size * sizeof(*hash));
	for (size_t i = 0; i < s->n_sums; i++) {
		size_t h = hash_of(sums[i].task, sums[i].nr) & (size - 1);

		while (hash[h] != UINT32_MAX)
			h = (h + 1) & (size - 1);
		hash[h] = (uint32_t)i;
	}
	free(s->hash);
	s->hash = hash;
	s->hash_size = size;
	s->sums_cap = size / 2;
	return true;
}

static struct bp_syscall_sum *sum_of(struct bp_syscalls *s, uint32_t task, uint32_t nr)
{
	size_t h;

	if (s->n_sums >= s->sums_cap && !rehash(s))
		return NULL;
	for (h = hash_of(task, nr) & (s->hash_size - 1); s->hash[h] != UINT32_MAX;
	     h = (h + 1) & (s->hash_size - 1)) {
		struct bp_syscall_sum *x = &s->sums[s->hash[h]];

		if (x->task == task && x->nr == nr)
			return x;
	}
	s->hash[h] = (uint32_t)s->n_sums;
	s->sums[s->n_sums] = (struct bp_syscall_sum){.task = task, .nr = nr, .min_ns = UINT64_MAX};
	return &s->sums[s->n_sums++];
}

static int compare_start(const void *x, const void *y)
{
	const struct bp_syscall *a = x, *b = y;

	if (a->start_ns != b->start_ns)
		return a->start_ns < b->start_ns ? -1 : 1;
	return a->vcpu < b->vcpu ? -1 : a->vcpu > b->vcpu;
}

static void keep(struct bp_syscalls *s, const struct bp_syscall *x)
{
	size_t listed = s->a->query->sort ? 0 : s->a->query->listed;

	/* Only the first ones will be shown: now and then drop the others. */
	if (listed && s->n >= 2 * listed + 4096) {
		qsort(s->list, s->n, sizeof(*s->list), compare_start);
		s->n = listed;
	}
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 1024;
		struct bp_syscall *list = realloc(s->list, cap * sizeof(*list));

		if (!list) {
			s->failed = true;
			return;
		}
		s->list = list;
		s->cap = cap;
	}
	s->list[s->n++] = *x;
}

static inline void syscall_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
				 enum bp_walk_leave how)
{
	struct bp_syscalls *s = ctx;
	struct bp_syscall_sum *sum;
	struct bp_syscall x;

	if (f->syscall == BP_WALK_NO_SYSCALL)
		return;
	x = (struct bp_syscall){
	    .start_ns = f->wall_ns,
	    .wall_ns = now->wall_ns - f->wall_ns,
	    .cpu_ns = bp_walk_total_ns(f, now),
	    .insns = bp_walk_total_insns(f, now),
	    .nr = f->syscall,
	    .task = now->task->id,
	    .vcpu = (uint16_t)now->vcpu,
	    .returned = how == BP_LEAVE_RET,
	};
	if (x.wall_ns < s->a->query->min_ns)
		return;
	sum = sum_of(s, x.task, x.nr);
	if (!sum) {
		s->failed = true;
		return;
	}
	sum->calls++;
	sum->wall_ns += x.wall_ns;
	sum->cpu_ns += x.cpu_ns;
	sum->insns += x.insns;
	sum->open += !x.returned;
	if (x.wall_ns > sum->max_ns)
		sum->max_ns = x.wall_ns;
	if (x.wall_ns < sum->min_ns)
		sum->min_ns = x.wall_ns;
	s->seen++;
	if (s->timeline)
		keep(s, &x);
}

const struct bp_walk_ops bp_syscalls_ops = {
    .on_leave = syscall_leave,
};

static const struct bp_walk_ops hot_ops = {
    .on_leave = syscall_leave,
};

struct bp_err *bp_syscalls_init(struct bp_syscalls *s, struct bp_analysis *a, bool timeline)
{
	memset(s, 0, sizeof(*s));
	s->a = a;
	s->timeline = timeline;
	return NULL;
}

void bp_syscalls_deinit(struct bp_syscalls *s)
{
	free(s->list);
	free(s->sums);
	free(s->hash);
	memset(s, 0, sizeof(*s));
}

/* ---- tables ---- */

static void pid_cell(const struct bp_analysis *a, uint32_t task, struct bp_cell *c)
{
	const struct bp_task_info *t = bp_analysis_task(a, task);

	if (bp_task_has_pid(t))
		bp_cell_int(c, t->pid);
}

enum { S_TIME, S_DURATION, S_CPU, S_INSNS, S_NAME, S_PROCESS, S_PID, S_NR, S_VCPU, S_RETURNED };

static const struct bp_field fields[] = {
    [S_TIME] = {"time_ns", "TIME", BP_COL_NS, false},
    [S_DURATION] = {"duration_ns", "ELAPSED", BP_COL_NS, false},
    [S_CPU] = {"cpu_ns", "ON VCPU", BP_COL_NS, false},
    [S_INSNS] = {"insns", "INSNS", BP_COL_INSNS, false},
    [S_NAME] = {"name", "SYSTEM CALL", BP_COL_STR, false},
    [S_PROCESS] = {"process", "PROCESS", BP_COL_STR, false},
    [S_PID] = {"pid", "PID", BP_COL_COUNT, false},
    [S_NR] = {"nr", "NUMBER", BP_COL_COUNT, false},
    [S_VCPU] = {"vcpu", "VCPU", BP_COL_COUNT, false},
    [S_RETURNED] = {"returned", "RETURNED", BP_COL_STR, false},
};

static void cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct bp_syscalls *s = ctx;
	const struct bp_syscall *x = &s->list[row];

	switch (field) {
	case S_TIME:
		bp_cell_int(c, x->start_ns);
		break;
	case S_DURATION:
		bp_cell_int(c, x->wall_ns);
		break;
	case S_CPU:
		bp_cell_int(c, x->cpu_ns);
		break;
	case S_INSNS:
		bp_cell_int(c, x->insns);
		break;
	case S_NAME:
		bp_cell_str(c, bp_syscall_name(x->nr, c->buf, sizeof(c->buf)));
		break;
	case S_PROCESS:
		bp_cell_str(c, bp_analysis_task_name(s->a, x->task, c->buf));
		break;
	case S_PID:
		pid_cell(s->a, x->task, c);
		break;
	case S_NR:
		bp_cell_int(c, x->nr);
		break;
	case S_VCPU:
		bp_cell_int(c, x->vcpu);
		break;
	case S_RETURNED:
		bp_cell_str(c, x->returned ? "yes" : "no");
		break;
	default:
		break;
	}
}

static struct bp_err *timeline(struct bp_syscalls *s, struct bp_report *r)
{
	struct bp_analysis *a = s->a;
	struct bp_view_table v = {
	    .id = "syscalls",
	    .title = "System calls in order of time",
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time = "time_ns,duration_ns,cpu_ns,insns,vcpu,process,pid,name",
	    .text_insns = "time_ns,insns,duration_ns,cpu_ns,vcpu,process,pid,name",
	    .n_rows = s->n,
	    .cell = cell,
	    .ctx = s,
	    .main = true,
	};

	if (s->n)
		qsort(s->list, s->n, sizeof(*s->list), compare_start);
	if (s->seen > s->n)
		bp_report_note(r,
			       "the first %zu of %" PRIu64
			       " system calls are listed; the summary counts all (-n 0 "
			       "lists all)",
			       a->query->listed, s->seen);
	if (a->query->listed && !a->query->sort && v.n_rows > a->query->listed && s->seen > s->n)
		v.n_rows = a->query->listed;
	return bp_view_add(a, r, &v);
}

enum { U_CALLS, U_DURATION, U_AVG, U_MIN, U_MAX, U_CPU, U_INSNS, U_NAME, U_PROCESS, U_PID, U_NR, U_OPEN };

static const struct bp_field sum_fields[] = {
    [U_CALLS] = {"calls", "CALLS", BP_COL_COUNT, false},
    [U_DURATION] = {"duration_ns", "ELAPSED", BP_COL_NS, false},
    [U_AVG] = {"avg_ns", "AVG", BP_COL_NS, false},
    [U_MIN] = {"min_ns", "MIN", BP_COL_NS, false},
    [U_MAX] = {"max_ns", "MAX", BP_COL_NS, false},
    [U_CPU] = {"cpu_ns", "ON VCPU", BP_COL_NS, false},
    [U_INSNS] = {"insns", "INSNS", BP_COL_INSNS, false},
    [U_NAME] = {"name", "SYSTEM CALL", BP_COL_STR, false},
    [U_PROCESS] = {"process", "PROCESS", BP_COL_STR, false},
    [U_PID] = {"pid", "PID", BP_COL_COUNT, false},
    [U_NR] = {"nr", "NUMBER", BP_COL_COUNT, false},
    [U_OPEN] = {"unfinished", "OPEN", BP_COL_COUNT, false},
};

static void sum_cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct bp_syscalls *s = ctx;
	const struct bp_syscall_sum *x = &s->sums[row];

	switch (field) {
	case U_CALLS:
		bp_cell_int(c, x->calls);
		break;
	case U_DURATION:
		bp_cell_int(c, x->wall_ns);
		break;
	case U_AVG:
		bp_cell_int(c, x->wall_ns / x->calls);
		break;
	case U_MIN:
		bp_cell_int(c, x->min_ns);
		break;
	case U_MAX:
		bp_cell_int(c, x->max_ns);
		break;
	case U_CPU:
		bp_cell_int(c, x->cpu_ns);
		break;
	case U_INSNS:
		bp_cell_int(c, x->insns);
		break;
	case U_NAME:
		bp_cell_str(c, bp_syscall_name(x->nr, c->buf, sizeof(c->buf)));
		break;
	case U_PROCESS:
		bp_cell_str(c, bp_analysis_task_name(s->a, x->task, c->buf));
		break;
	case U_PID:
		pid_cell(s->a, x->task, c);
		break;
	case U_NR:
		bp_cell_int(c, x->nr);
		break;
	case U_OPEN:
		bp_cell_int(c, x->open);
		break;
	default:
		break;
	}
}

struct bp_err *bp_syscalls_summary(struct bp_syscalls *s, struct bp_report *r, size_t limit)
{
	struct bp_view_table v = {
	    .id = "summary",
	    .title = "System calls of each process (elapsed: with the time it slept)",
	    .fields = sum_fields,
	    .n_fields = BP_ARRAY_SIZE(sum_fields),
	    .text_time = "duration_ns,calls,avg_ns,max_ns,cpu_ns,insns,process,pid,name",
	    .text_insns = "insns,calls,duration_ns,avg_ns,max_ns,cpu_ns,process,pid,name",
	    .sort_time = "duration_ns",
	    .sort_insns = "insns",
	    .n_rows = s->n_sums,
	    .cell = sum_cell,
	    .ctx = s,
	    .limit = limit,
	};

	return bp_view_add(s->a, r, &v);
}

static void deinitp(struct bp_syscalls *s)
{
	bp_syscalls_deinit(s);
}

static struct bp_err *syscalls_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(deinitp) struct bp_syscalls s = {0};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	struct bp_err *err = bp_syscalls_init(&s, a, true);

	if (!err)
		err = bp_analysis_walk(a, &w);
	if (!err)
		err = bp_walk_inline(w, &hot_ops, &s);
	if (err)
		return err;
	if (s.failed)
		return bp_err_nomem();
	bp_analysis_walked(a, w);
	bp_view_title(a, r, "System calls");
	bp_report_scalar(r, "calls", (int64_t)s.seen);
	err = timeline(&s, r);
	if (err)
		return err;
	return bp_syscalls_summary(&s, r, 0);
}

const struct bp_view bp_view_syscalls = {
    .name = "syscalls",
    .summary = "system calls in time order, and summed up for each process and call",
    .run = syscalls_run,
};
