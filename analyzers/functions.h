/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Time and instructions of functions.
 *
 * self:  while the function was on top of its task's stack.
 * total: from entry to return on the task's own clocks: callees and interrupts nested in it are counted, time
 *        during which the task was switched out is not. Recursion counts once, for the outermost call.
 * calls: entries, by call, jump or interrupt.
 * min, max: of the total of single calls whose entry was seen; max also of calls that are open at the end.
 * sleep: host time between entry and return during which the task was switched out; outermost calls.
 * Calls that are open at the end count up to the last event of their task.
 */
#ifndef BP_ANALYZERS_FUNCTIONS_H
#define BP_ANALYZERS_FUNCTIONS_H

#include "analyzers/view.h"

/* One cache line. */
struct bp_func_total {
	uint64_t calls;
	uint64_t self_ns, self_insns;
	uint64_t total_ns, total_insns;
	uint64_t min_ns, max_ns; /* min_ns is UINT64_MAX when there is no complete call */
	uint64_t sleep_ns;
};

struct bp_functions {
	struct bp_analysis *a;
	size_t n_rows;
	struct bp_func_total *totals; /* by row; with per_vcpu by vCPU * n_rows + row */
	struct bp_func_total *base;   /* of the vCPU that the walk is at */
	uint32_t *active;             /* by row: calls on the stack of `task` */
	struct bp_walk_task *task;
	size_t n_vcpus;
	bool per_vcpu;
	bool failed;
	bool folded; /* totals of folded calls are in */
};

/** bp_functions_init() - @per_vcpu: totals of each vCPU apart */
struct bp_err *bp_functions_init(struct bp_functions *f, struct bp_analysis *a, bool per_vcpu) BP_MUST_CHECK;
void bp_functions_deinit(struct bp_functions *f);

static inline void bp_functions_deinitp(struct bp_functions *f)
{
	bp_functions_deinit(f);
}

/* For walks that more analyzers share; then call bp_functions_finish(). */
extern const struct bp_walk_ops bp_functions_ops;

/** bp_functions_finish() - add folded calls, unless the query has filters that they cannot be put through */
struct bp_err *bp_functions_finish(struct bp_functions *f) BP_MUST_CHECK;

/** bp_functions_walk() - a whole walk, at full speed, and bp_functions_finish() */
struct bp_err *bp_functions_walk(struct bp_functions *f) BP_MUST_CHECK;

/** bp_functions_table() - the table of the views `functions` and `overview`; @limit: rows, 0: all */
struct bp_err *bp_functions_table(struct bp_functions *f, struct bp_report *r, bool main,
				  size_t limit) BP_MUST_CHECK;

#endif
