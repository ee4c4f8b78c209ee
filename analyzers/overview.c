// SPDX-License-Identifier: GPL-2.0-or-later
/* The first view: phases, hottest functions, landmarks, system calls, processes, and what to look at next. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/findings.h"
#include "analyzers/functions.h"
#include "analyzers/parts.h"
#include "analyzers/phases.h"
#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/units.h"
#include "core/waits.h"

/*
 * First calls that matter: of these functions, each first function of a kernel module, and each program's
 * execution. The list follows the way of a Linux boot.
 */
static const char *const landmarks[] = {
    "startup_64",
    "extract_kernel",
    "x86_64_start_kernel",
    "start_kernel",
    "setup_arch",
    "mm_core_init",
    "sched_init",
    "init_IRQ",
    "time_init",
    "console_init",
    "calibrate_delay",
    "arch_cpu_finalize_init",
    "check_bugs",
    "rest_init",
    "kernel_init_freeable",
    "smp_init",
    "start_secondary",
    "do_basic_setup",
    "driver_init",
    "do_initcalls",
    "pci_subsys_init",
    "acpi_init",
    "populate_rootfs",
    "do_populate_rootfs",
    "unpack_to_rootfs",
    "virtio_init",
    "scsi_add_host_with_dma",
    "serial8250_init",
    "prepare_namespace",
    "mount_root",
    "mount_root_generic",
    "do_mount",
    "path_mount",
    "ext4_fill_super",
    "xfs_fs_fill_super",
    "btrfs_mount",
    "run_init_process",
    "kernel_execve",
    "do_execveat_common",
    "load_module",
    "register_netdev",
    "__dev_open",
    "panic",
    "kernel_power_off",
    "kernel_restart",
    "machine_power_off",
};

/* ---- what to look at next ---- */

/* Time that the boot (its first process, and those of user space) slept in functions that wait for a timeout.
 */
struct waits {
	struct bp_analysis *a;
	uint64_t *sleep_ns; /* by row */
	bool *timeout;      /* by row: such a function */
	bool *forever;      /* by row: calls one of them without a timeout, to wait for an event */
};

struct overview {
	struct bp_analysis *a;
	struct waits waits;
	struct bp_functions functions;
	struct bp_phase_walk phases;
	struct bp_first_calls first;
	struct bp_syscalls syscalls;
	struct bp_processes processes;
	struct bp_findings findings;
	struct bp_locks *locks; /* NULL: there are no waits of the host */
};

static void overview_deinit(struct overview *o)
{
	bp_functions_deinit(&o->functions);
	bp_phase_walk_deinit(&o->phases);
	bp_first_calls_deinit(&o->first);
	bp_syscalls_deinit(&o->syscalls);
	bp_processes_deinit(&o->processes);
	free(o->waits.sleep_ns);
	free(o->waits.timeout);
	free(o->waits.forever);
	bp_findings_deinit(&o->findings);
	bp_locks_destroy(o->locks);
}

static bool waits_for_a_timeout(const struct bp_row *row)
{
	static const char *const names[] = {
	    "msleep", "msleep_interruptible", "usleep_range", "usleep_range_state", "schedule_timeout",
	};

	for (size_t i = 0; row->space == BP_SPACE_KERNEL && i < BP_ARRAY_SIZE(names); i++) {
		if (!strcmp(row->name, names[i]))
			return true;
	}
	return false;
}

static void waits_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
			enum bp_walk_leave how)
{
	struct waits *x = ctx;
	const struct bp_task_info *t;

	(void)how;
	if (!x->timeout[f->row] || (f[-1].row != BP_WALK_NO_FUNC && x->forever[f[-1].row]))
		return;
	t = bp_analysis_task(x->a, now->task->id);
	/* Kernel threads sleep when they have nothing to do. */
	if (t->known && (t->pid == 1 || !(t->flags & (BP_TASK_KERNEL | BP_TASK_IDLE))))
		x->sleep_ns[f->row] += bp_walk_sleep_ns(f, now);
}

static const struct bp_walk_ops waits_ops = {
    .on_leave = waits_leave,
};

static struct bp_err *waits_init(struct waits *x, struct bp_analysis *a)
{
	x->a = a;
	x->sleep_ns = calloc(a->rows.n + 1, sizeof(*x->sleep_ns));
	x->timeout = calloc(a->rows.n + 1, sizeof(*x->timeout));
	x->forever = calloc(a->rows.n + 1, sizeof(*x->forever));
	if (!x->sleep_ns || !x->timeout || !x->forever)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++) {
		const char *name = a->rows.rows[i].name;

		x->timeout[i] = waits_for_a_timeout(&a->rows.rows[i]);
		x->forever[i] = !strcmp(name, "__wait_for_common") || !strcmp(name, "do_wait_for_common") ||
				!strcmp(name, "__down_common") ||
				!strcmp(name, "schedule_hrtimeout_range_clock");
	}
	return NULL;
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void find_losses(struct overview *o)
{
	struct bp_analysis *a = o->a;
	const struct bp_trace_damage *d = bp_trace_damage(a->trace);
	uint64_t lost = a->stats.lost_records;
	double unaccounted = percent(a->unaccounted_ns, a->end_ns);
	double uncovered = percent(o->phases.uncovered_ns, a->end_ns);
	char t[BP_UNITS_MAX];

	if (d->unfinished || d->bad_chunks || d->missing_chunks || a->stats.damaged_blocks)
		bp_find(&o->findings, -1, "info", NULL, "the recording is not whole");
	if (lost)
		bp_find(&o->findings, -1, "info", NULL, "%" PRIu64 " events lost while recording", lost);
	if (unaccounted > 1)
		bp_find(&o->findings, unaccounted, "report phases", NULL, "%s are in no phase",
			bp_units_ns(t, (int64_t)a->unaccounted_ns));
	if (uncovered > 1)
		bp_find(&o->findings, uncovered, "report phases", NULL, "vCPU 0 tells nothing of %s",
			bp_units_ns(t, (int64_t)o->phases.uncovered_ns));
}

static void find_in_phases(struct overview *o)
{
	struct bp_analysis *a = o->a;
	bool by_time = a->query->clock == BP_CLOCK_TIME;
	uint64_t whole = by_time ? a->end_ns : a->end_insns, decompressor = 0, firmware = 0;
	char t[BP_UNITS_MAX];

	for (size_t i = 0; i < a->n_phases; i++) {
		const struct bp_phase *p = &a->phases[i];
		uint64_t size = by_time ? p->end_ns - p->start_ns : p->end_insns - p->start_insns;

		if (!strcmp(p->name, "decompressor"))
			decompressor += size;
		else if (!strcmp(p->name, "firmware") || !strcmp(p->name, "option-rom"))
			firmware += size;
	}
	if (percent(decompressor, whole) > 10)
		bp_find(&o->findings, percent(decompressor, whole), "report functions --phase decompressor",
			NULL,
			"the kernel unpacks itself: another compression, or an uncompressed kernel, would be "
			"faster");
	if (percent(firmware, whole) > 10)
		bp_find(&o->findings, percent(firmware, whole), "report functions --phase firmware", NULL,
			"firmware and option ROMs");
	for (size_t i = 0; i < o->phases.n_initcalls; i++) {
		const struct bp_initcall_time *x = &o->phases.initcalls[i];
		double share = percent(by_time ? x->ns : x->insns, whole);
		char buf[BP_ROW_NAME_MAX];
		const char *name = bp_row_name(&a->rows, x->row, buf);

		if (share > 10)
			bp_find(&o->findings, share, "report tree -F", name, "initcall %s (%s)", name,
				x->level);
	}
	if (percent(o->phases.halted_ns, a->end_ns) > 10)
		bp_find(&o->findings, percent(o->phases.halted_ns, a->end_ns),
			"report functions --sort sleep", NULL, "vCPUs were halted for %s in all",
			bp_units_ns(t, (int64_t)o->phases.halted_ns));
}

static void find_in_functions(struct overview *o)
{
	struct bp_analysis *a = o->a;
	bool by_time = a->query->clock == BP_CLOCK_TIME;
	double all = 0, nameless = 0;
	char t[BP_UNITS_MAX], buf[BP_ROW_NAME_MAX];

	for (size_t i = 0; i < a->rows.n; i++) {
		const struct bp_func_total *x = &o->functions.totals[i];
		double self = (double)(int64_t)(by_time ? x->self_ns : x->self_insns);

		if (bp_row_is_halted(&a->rows.rows[i]))
			continue;
		all += self;
		if (a->rows.rows[i].space != BP_SPACE_USER && a->rows.rows[i].space != BP_SPACE_ANON &&
		    (!*a->rows.rows[i].name || !strcmp(a->rows.rows[i].name, "[unknown]")))
			nameless += self;
	}
	for (size_t i = 0; i < a->rows.n && all > 0; i++) {
		const struct bp_row *row = &a->rows.rows[i];
		const struct bp_func_total *x = &o->functions.totals[i];
		double self = (double)(int64_t)(by_time ? x->self_ns : x->self_insns);
		const char *name = bp_row_name(&a->rows, (uint32_t)i, buf);

		if (100 * self / all > 10 && (row->space == BP_SPACE_KERNEL ||
					      row->space == BP_SPACE_MODULE || row->space == BP_SPACE_USER))
			bp_find(&o->findings, 100 * self / all, "report tree --callers -F", name,
				"%s itself, %" PRIu64 " call%s", name, x->calls, x->calls == 1 ? "" : "s");
		if (percent(o->waits.sleep_ns[i], a->end_ns) > 5)
			bp_find(&o->findings, percent(o->waits.sleep_ns[i], a->end_ns),
				"report tree --callers -F", name, "processes slept for %s in %s",
				bp_units_ns(t, (int64_t)o->waits.sleep_ns[i]), name);
	}
	if (all > 0 && 100 * nameless / all > 1)
		bp_find(&o->findings, 100 * nameless / all, "report modules", NULL,
			"kernel code without a name");
}

static void find_in_syscalls(struct overview *o)
{
	const struct bp_syscalls *s = &o->syscalls;
	struct bp_analysis *a = o->a;

	for (size_t i = 0; i < s->n_sums; i++) {
		const struct bp_syscall_sum *x = &s->sums[i];
		char name[BP_TASK_NAME_MAX], nr[32];
		double share = percent(x->cpu_ns, a->end_ns);

		if (share > 10)
			bp_find(&o->findings, share, "report syscalls --process",
				bp_analysis_task_name(a, x->task, name), "%" PRIu64 " x %s of %s", x->calls,
				bp_syscall_name(x->nr, nr, sizeof(nr)),
				bp_analysis_task_name(a, x->task, name));
	}
}

struct by_name {
	char name[BP_TASK_NAME_MAX];
	uint64_t size;
};

static int compare_names(const void *x, const void *y)
{
	return strcmp(((const struct by_name *)x)->name, ((const struct by_name *)y)->name);
}

/* Processes and kernel threads, those of one name together; not the boot, idle tasks and init. */
static void find_in_processes(struct overview *o)
{
	struct bp_analysis *a = o->a;
	bool by_time = a->query->clock == BP_CLOCK_TIME;
	uint64_t whole = by_time ? a->end_ns : a->end_insns, size = 0;
	bp_autofree struct by_name *list = malloc((o->processes.n + 1) * sizeof(*list));
	size_t n = 0, first = 0;

	if (!list) {
		o->findings.failed = true;
		return;
	}
	for (size_t i = 0; i < o->processes.n; i++) {
		const struct bp_process *x = &o->processes.list[i];
		const struct bp_task_info *t = bp_analysis_task(a, x->task);
		char buf[BP_TASK_NAME_MAX];

		if (!x->seen || !t->known || t->flags & (BP_TASK_BOOT | BP_TASK_IDLE) || t->pid == 1)
			continue;
		snprintf(list[n].name, sizeof(list[n].name), "%s", bp_analysis_task_name(a, x->task, buf));
		list[n++].size = by_time ? x->run_ns - x->halted_ns : x->insns;
	}
	qsort(list, n, sizeof(*list), compare_names);
	for (size_t i = 0; i < n; i++) {
		size += list[i].size;
		if (i + 1 < n && !compare_names(&list[i], &list[i + 1]))
			continue;
		if (percent(size, whole) > 5)
			bp_find(&o->findings, percent(size, whole), "report functions --process",
				list[i].name, "%s, %zu process%s", list[i].name, i + 1 - first,
				i == first ? "" : "es");
		size = 0;
		first = i + 1;
	}
}

/* What is always worth a look. */
static void find_largest(struct overview *o)
{
	struct bp_analysis *a = o->a;
	bool by_time = a->query->clock == BP_CLOCK_TIME;
	uint64_t whole = by_time ? a->end_ns : a->end_insns, largest = 0;
	const struct bp_phase *phase = NULL;

	for (size_t i = 0; i < a->n_phases; i++) {
		const struct bp_phase *p = &a->phases[i];
		uint64_t size = by_time ? p->end_ns - p->start_ns : p->end_insns - p->start_insns;

		if (size > largest) {
			largest = size;
			phase = p;
		}
	}
	if (phase)
		bp_find(&o->findings, percent(largest, whole), "report tree --phase", phase->name,
			"%s, the longest phase", phase->name);
}

static struct bp_err *findings_table(struct overview *o, struct bp_report *r)
{
	find_losses(o);
	find_in_phases(o);
	find_in_functions(o);
	find_in_syscalls(o);
	find_in_processes(o);
	find_largest(o);
	if (o->locks)
		bp_waits_find(&o->findings, o->locks);
	return bp_findings_table(&o->findings, r);
}

/* ---- landmarks ---- */

static struct bp_err *choose_landmarks(struct overview *o, bool **ret)
{
	const struct bp_rows *rows = &o->a->rows;
	bool *keep = calloc(rows->n + 1, sizeof(*keep));

	if (!keep)
		return bp_err_nomem();
	for (size_t i = 0; i < rows->n; i++) {
		const struct bp_row *row = &rows->rows[i];

		if (row->space == BP_SPACE_KERNEL || row->space == BP_SPACE_FIRMWARE) {
			for (size_t k = 0; k < BP_ARRAY_SIZE(landmarks) && !keep[i]; k++)
				keep[i] = !strcmp(row->name, landmarks[k]);
		} else if (row->space == BP_SPACE_MODULE && o->first.first[i].wall_ns != UINT64_MAX) {
			/* the module's earliest */
			keep[i] = true;
			for (size_t k = 0; k < rows->n && keep[i]; k++) {
				keep[i] = k == i || rows->rows[k].space != BP_SPACE_MODULE ||
					  strcmp(rows->rows[k].module, row->module) ||
					  o->first.first[k].wall_ns > o->first.first[i].wall_ns ||
					  (o->first.first[k].wall_ns == o->first.first[i].wall_ns && k > i);
			}
		}
	}
	*ret = keep;
	return NULL;
}

/* ---- the view ---- */

static struct bp_err *init(struct overview *o, struct bp_analysis *a)
{
	struct bp_err *err = bp_functions_init(&o->functions, a, false);

	o->a = o->findings.a = a;
	if (!err)
		err = bp_phase_walk_init(&o->phases, a);
	if (!err)
		err = bp_first_calls_init(&o->first, a);
	if (!err)
		err = bp_syscalls_init(&o->syscalls, a, false);
	if (!err)
		err = bp_processes_init(&o->processes, a);
	if (!err)
		err = waits_init(&o->waits, a);
	return err;
}

static struct bp_err *overview_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(overview_deinit) struct overview o = {0};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	bp_autofree bool *keep = NULL;
	const struct bp_walk_part parts[] = {
	    {&bp_functions_ops, &o.functions}, {&bp_phase_walk_ops, &o.phases},
	    {&bp_first_calls_ops, &o.first},   {&bp_syscalls_ops, &o.syscalls},
	    {&bp_processes_ops, &o.processes}, {&waits_ops, &o.waits},
	};
	struct bp_err *err;

	if (bp_view_waits_only(a))
		return bp_waits_overview(a, r);
	err = init(&o, a);
	if (!err && bp_trace_n_waits(a->trace))
		err = bp_locks_create(a, false, &o.locks);
	if (!err)
		err = bp_analysis_walk(a, &w);
	if (!err)
		err = bp_walk_run_all(w, parts, BP_ARRAY_SIZE(parts));
	if (err)
		return err;
	if (o.phases.failed || o.syscalls.failed || o.processes.failed)
		return bp_err_nomem();
	bp_analysis_walked(a, w);
	err = bp_functions_finish(&o.functions);
	if (!err)
		err = choose_landmarks(&o, &keep);
	if (err)
		return err;
	bp_view_title(a, r, "Boot");
	err = bp_phases_table(a, r, &o.phases, true);
	bp_view_note_unaccounted(a, r);
	if (bp_trace_n_waits(a->trace))
		bp_report_note(r, "the recording has waits of threads of the host: `report vcpus`, `locks`, "
				  "`off-cpu`, `wakeups`");
	if (!err)
		err = bp_functions_table(&o.functions, r, false, 15);
	if (!err)
		err = bp_initcalls_table(a, r, &o.phases, 5);
	if (!err)
		err = bp_first_calls_table(&o.first, r, keep, "First calls that matter", false);
	if (!err)
		err = bp_syscalls_summary(&o.syscalls, r, 10);
	if (!err)
		err = bp_processes_table(&o.processes, r, false, 10);
	if (!err && o.locks)
		err = bp_vcpus_table(a, bp_locks_waits(o.locks), r, false);
	if (!err && o.locks)
		err = bp_locks_table(o.locks, r, false, 5);
	if (!err)
		err = findings_table(&o, r);
	return err;
}

const struct bp_view bp_view_overview = {
    .name = "overview",
    .summary = "phases, hottest functions, first calls that matter, system calls, what to look at next",
    .waits = true,
    .run = overview_run,
};
