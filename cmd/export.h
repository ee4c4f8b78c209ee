/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of `bootprof export`, for cmd/export*.c only. Every form is written while the events are read; what
 * is kept in memory does not grow with the length of the recording.
 */
#ifndef BP_CMD_EXPORT_H
#define BP_CMD_EXPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "core/err.h"
#include "core/report.h"
#include "core/strbuf.h"
#include "core/trace.h"

struct bp_export_task {
	uint32_t id;
	size_t fact; /* its last TASK fact */
};

struct bp_export {
	const struct bp_trace *trace;
	enum bp_clock clock;
	uint64_t min; /* shortest slice that is written: ns or instructions */
	const struct bp_func *funcs;
	size_t n_funcs;
	const struct bp_fact *facts;
	size_t n_facts;
	struct bp_export_task *tasks; /* sorted by id */
	size_t n_tasks;

	FILE *file;
	struct bp_strbuf out; /* not yet given to the file */
	int errnum;           /* first failure */
	bool gone;            /* nobody reads any more */

	/* what is said on standard error at the end */
	uint64_t slices, dropped; /* written, and shorter than min */
	uint64_t damaged_blocks, lost_records;
	uint64_t merged_paths; /* folded: calls whose path was cut for lack of room */
};

/** bp_export_drain() - hand x->out to the file when it is large; false when there is no use in going on */
bool bp_export_drain(struct bp_export *x);

/** bp_export_func() - add a function's name: "vfs_read", "ext4_iget [ext4]", "[libc.so.6+0x1234]" */
void bp_export_func(const struct bp_export *x, uint32_t func, struct bp_strbuf *sb);

/** bp_export_task() - add a task's name, with its pid if @pid: "init/1" */
void bp_export_task(const struct bp_export *x, uint32_t task, bool pid, struct bp_strbuf *sb);

/** bp_export_task_index() - index of a task in x->tasks; x->n_tasks when nothing is known of it */
size_t bp_export_task_index(const struct bp_export *x, uint32_t task);

/** bp_export_space() - "kernel", "module", ...: where a function lives; static */
const char *bp_export_space(const struct bp_export *x, uint32_t func);

/** bp_export_instant() - whether a fact is shown as a moment; its time in the chosen clock and its text */
bool bp_export_instant(const struct bp_export *x, const struct bp_fact *f, uint64_t *time,
		       struct bp_strbuf *text);

/* Append a JSON string with its quotes. */
void bp_export_json(struct bp_strbuf *sb, const struct bp_strbuf *text);

/*
 * Slices: what a vCPU did as properly nested begin and end pairs, in order of time on each vCPU. When a vCPU
 * turns to another task, the functions of the former end, and those on the latter's stack begin again.
 */
struct bp_slice_ops {
	/* any may be NULL */
	void (*begin)(struct bp_export *x, uint32_t vcpu, uint32_t func, uint64_t time);
	void (*end)(struct bp_export *x, uint32_t vcpu, uint32_t func, uint64_t start, uint64_t time);
	void (*task_begin)(struct bp_export *x, uint32_t vcpu, uint32_t task, uint64_t time);
	void (*task_end)(struct bp_export *x, uint32_t vcpu, uint32_t task, uint64_t start, uint64_t time);
};

#define BP_SLICES_ALL UINT32_MAX

/**
 * bp_slices_run() - go through the recording
 * @only: this vCPU, or BP_SLICES_ALL
 * @seen: set of vCPUs that ran anything, owned by the caller; NULL: not wanted
 * @n_seen: number of entries of @seen
 */
struct bp_err *bp_slices_run(struct bp_export *x, const struct bp_slice_ops *ops, uint32_t only, bool **seen,
			     size_t *n_seen) BP_MUST_CHECK;

struct bp_err *bp_export_folded(struct bp_export *x) BP_MUST_CHECK;
/** bp_export_off_cpu() - the same of the times that threads of QEMU were off the CPU */
struct bp_err *bp_export_off_cpu(struct bp_export *x) BP_MUST_CHECK;
struct bp_err *bp_export_chrome(struct bp_export *x) BP_MUST_CHECK;
struct bp_err *bp_export_perfetto(struct bp_export *x) BP_MUST_CHECK;
struct bp_err *bp_export_speedscope(struct bp_export *x) BP_MUST_CHECK;

#endif
