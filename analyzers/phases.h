/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ledger of a run: contiguous phases cut at the marks of the recording, see bootprof-report(1), "phases".
 */
#ifndef BP_ANALYZERS_PHASES_H
#define BP_ANALYZERS_PHASES_H

#include "analyzers/view.h"

#define BP_PHASE_NAME_MAX 40

struct bp_phase {
	char name[BP_PHASE_NAME_MAX];
	uint64_t start_ns, end_ns;
	uint64_t start_insns, end_insns; /* of all vCPUs */
	uint64_t halted_ns;              /* filled by the walk: summed over vCPUs */
};

/**
 * bp_phases_build() - fill a->phases, a->end_ns, a->unaccounted_ns from the facts
 * For a recording without an end the last event or fact counts as one.
 */
struct bp_err *bp_phases_build(struct bp_analysis *a) BP_MUST_CHECK;

/** bp_phases_find() - start and end of a phase (all parts of it, if there are several); false if there is
 * none */
bool bp_phases_find(const struct bp_analysis *a, const char *name, uint64_t *start_ns, uint64_t *end_ns);

/** bp_phases_mark() - time of the first mark called NAME or NAME:DETAIL */
bool bp_phases_mark(const struct bp_analysis *a, const char *name, uint64_t *ns);

/* One call made by do_one_initcall(). */
struct bp_initcall_time {
	uint32_t row;
	const char *level; /* "device"; "module" for one of a module; "" not known */
	uint64_t start_ns, ns, wall_ns, insns;
	uint32_t task;
};

/* What a walk adds to the ledger. */
struct bp_phase_walk {
	struct bp_analysis *a;
	uint32_t initcall_row; /* do_one_initcall, BP_NO_ROW if not there */
	bool *halted;          /* by row */
	struct bp_initcall_time *initcalls;
	size_t n_initcalls, cap;
	uint64_t vcpu0_end; /* end of the last run on vCPU 0 */
	bool vcpu0_seen;
	uint64_t uncovered_ns; /* vCPU 0: time between runs, told by no event */
	uint64_t halted_ns;
	bool failed;
};

extern const struct bp_walk_ops bp_phase_walk_ops;

struct bp_err *bp_phase_walk_init(struct bp_phase_walk *p, struct bp_analysis *a) BP_MUST_CHECK;
void bp_phase_walk_deinit(struct bp_phase_walk *p);

/** bp_phases_table(), bp_initcalls_table() - for the views `phases` and `overview` */
struct bp_err *bp_phases_table(struct bp_analysis *a, struct bp_report *r, const struct bp_phase_walk *p,
			       bool main) BP_MUST_CHECK;
struct bp_err *bp_initcalls_table(struct bp_analysis *a, struct bp_report *r, const struct bp_phase_walk *p,
				  size_t limit) BP_MUST_CHECK;

#endif
