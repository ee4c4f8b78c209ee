/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of views that the overview shows as well: each has a walk's callbacks and a table. */
#ifndef BP_ANALYZERS_PARTS_H
#define BP_ANALYZERS_PARTS_H

#include "analyzers/findings.h"
#include "analyzers/view.h"
#include "analyzers/waits.h"

/* ---- first calls ---- */

struct bp_first_call {
	uint64_t wall_ns; /* UINT64_MAX: never entered */
	uint64_t vcpu_insns;
	uint32_t vcpu, task, caller; /* caller: row */
	uint8_t kind;
};

struct bp_first_calls {
	struct bp_analysis *a;
	struct bp_first_call *first; /* by row */
};

extern const struct bp_walk_ops bp_first_calls_ops;
struct bp_err *bp_first_calls_init(struct bp_first_calls *f, struct bp_analysis *a) BP_MUST_CHECK;
void bp_first_calls_deinit(struct bp_first_calls *f);
/** bp_first_calls_table() - @keep: by row, which ones to show; NULL: all */
struct bp_err *bp_first_calls_table(struct bp_first_calls *f, struct bp_report *r, const bool *keep,
				    const char *title, bool main) BP_MUST_CHECK;

/* ---- system calls ---- */

struct bp_syscall_sum {
	uint32_t task, nr;
	uint64_t calls, wall_ns, cpu_ns, insns, max_ns, min_ns, open;
};

struct bp_syscall {
	uint64_t start_ns, wall_ns, cpu_ns, insns;
	uint32_t nr, task;
	uint16_t vcpu;
	bool returned;
};

struct bp_syscalls {
	struct bp_analysis *a;
	struct bp_syscall *list; /* when `timeline`; unsorted until the end */
	size_t n, cap;
	uint64_t seen; /* also those that are not kept in the list */
	struct bp_syscall_sum *sums;
	size_t n_sums, sums_cap;
	uint32_t *hash;
	size_t hash_size;
	bool timeline, failed;
};

extern const struct bp_walk_ops bp_syscalls_ops;
struct bp_err *bp_syscalls_init(struct bp_syscalls *s, struct bp_analysis *a, bool timeline) BP_MUST_CHECK;
void bp_syscalls_deinit(struct bp_syscalls *s);
struct bp_err *bp_syscalls_summary(struct bp_syscalls *s, struct bp_report *r, size_t limit) BP_MUST_CHECK;

/** bp_syscall_name() - "openat", or "syscall 999" in @buf */
const char *bp_syscall_name(uint32_t nr, char *buf, size_t size);

/* ---- processes ---- */

struct bp_process {
	uint32_t task;
	bool seen;
	uint64_t run_ns, insns, halted_ns, user_ns, user_insns;
	uint64_t runs, syscalls;
	uint64_t first_ns, last_ns;
	uint64_t start_cpu, start_insns; /* clocks at the start of the run */
};

struct bp_processes {
	struct bp_analysis *a;
	uint8_t *kind;           /* by row: halted, user, other */
	struct bp_process *list; /* by task index of the walk */
	size_t n, cap;
	bool failed;
};

extern const struct bp_walk_ops bp_processes_ops;
struct bp_err *bp_processes_init(struct bp_processes *p, struct bp_analysis *a) BP_MUST_CHECK;
void bp_processes_deinit(struct bp_processes *p);
struct bp_err *bp_processes_table(struct bp_processes *p, struct bp_report *r, bool main,
				  size_t limit) BP_MUST_CHECK;

/* ---- waits of the host ---- */

/** bp_vcpus_table() - @w: of all of the recording; its slices are sorted */
struct bp_err *bp_vcpus_table(struct bp_analysis *a, struct bp_waits *w, struct bp_report *r,
			      bool main) BP_MUST_CHECK;

/** bp_off_cpu_table() - times off the CPU, longest first; goes through the waits by itself */
struct bp_err *bp_off_cpu_table(struct bp_analysis *a, struct bp_report *r, size_t limit) BP_MUST_CHECK;

struct bp_locks;

/**
 * bp_locks_create() - go through the waits and sum them by lock
 * @guest: also find what the guest executed then
 */
struct bp_err *bp_locks_create(struct bp_analysis *a, bool guest, struct bp_locks **ret) BP_MUST_CHECK;
void bp_locks_destroy(struct bp_locks *x);
struct bp_waits *bp_locks_waits(struct bp_locks *x);

static inline void bp_locks_destroyp(struct bp_locks **x)
{
	bp_locks_destroy(*x);
}

/** bp_locks_table() - the contended locks; @limit as in struct bp_view_table. Borrows from @x until it is
 * added. */
struct bp_err *bp_locks_table(struct bp_locks *x, struct bp_report *r, bool main, size_t limit) BP_MUST_CHECK;

/* Of one lock: what vCPUs waited for it. */
struct bp_lock_sum {
	uint64_t addr, ns;
	uint64_t preempted_ns;   /* of all waits: while the holder was preempted */
	uint64_t all_ns;         /* of all threads */
	struct bp_lock_share {   /* who made them wait, the longest first; ns 0: no more */
		const char *who; /* "vCPUs", "main loop", or the name of a thread; borrowed from the trace */
		uint64_t ns;
	} by[4];
	uint64_t main_loop_ns;
};

/** bp_locks_sum() - of lock number @i; false when there are no more */
bool bp_locks_sum(const struct bp_locks *x, size_t i, struct bp_lock_sum *ret);

/**
 * bp_locks_open() - the waits for mutexes that were not over at the end, one with each call
 * @at: 0 at first. Returns false when there is no more.
 */
bool bp_locks_open(const struct bp_locks *x, size_t *at, const struct bp_futex_wait **ret);

/** bp_waits_find() - what vCPUs waited for most, as findings */
void bp_waits_find(struct bp_findings *f, struct bp_locks *x);

/** bp_waits_overview() - the overview of a recording that has only waits */
struct bp_err *bp_waits_overview(struct bp_analysis *a, struct bp_report *r) BP_MUST_CHECK;

#endif
