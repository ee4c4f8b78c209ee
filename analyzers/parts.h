/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of views that the overview shows as well: each has a walk's callbacks and a table. */
#ifndef BP_ANALYZERS_PARTS_H
#define BP_ANALYZERS_PARTS_H

#include "analyzers/view.h"

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

#endif
