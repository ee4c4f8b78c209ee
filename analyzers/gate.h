/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Has a boot become slower? Two judges: one compares instructions of deterministic boots exactly, or within
 * the floor that harmless changes of the guest were measured to have; the other compares the times of boots
 * that were run in turn, by statistics. Budgets are limits that a file sets.
 */
#ifndef BP_ANALYZERS_GATE_H
#define BP_ANALYZERS_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analyzers/diff.h"
#include "analyzers/summary.h"
#include "core/err.h"

enum bp_gate_verdict { BP_GATE_PASS, BP_GATE_REGRESSION, BP_GATE_INCONCLUSIVE, BP_GATE_INVALID };

/* "pass", "regression", "inconclusive", "invalid" */
const char *bp_gate_verdict_name(enum bp_gate_verdict v);

/* What --noise and --significance say of one metric; negative: nothing. */
struct bp_gate_limit {
	const char *metric; /* "time", "insns", "phase", "phase:NAME", "function", "function:NAME" */
	double noise, significance;
};

struct bp_gate_options {
	double noise;        /* of all; negative: 5 % of times, nothing of instructions */
	double significance; /* 0.01 */
	const struct bp_gate_limit *limits;
	size_t n_limits;
};

/** bp_gate_noise(), bp_gate_significance() - that of a metric: its own, that of its kind, or that of all */
double bp_gate_noise(const struct bp_gate_options *o, const char *metric, bool time);
double bp_gate_significance(const struct bp_gate_options *o, const char *metric);

struct bp_gate_metric {
	char *name;       /* "insns", "time", "phase:initcalls-late", "function:vfs_read", "budget:..." */
	const char *unit; /* "insns", "ns", "calls", "phase" */
	double old_value, new_value; /* NAN: not there */
	double limit;                /* exact, budgets: how high the new value may be; NAN: statistical */
	size_t pairs;                /* statistical: */
	double ratio, low, high, p;
	enum bp_gate_verdict verdict;
	char *text; /* one line for people; NULL: nothing to say */
};

struct bp_gate_blame {
	char *name; /* function, phase, module or what it sums up */
	const char *module;
	const char *kind; /* "function", "rest", "first-call", "module" */
	char *path;
	char *what; /* "new", "more calls", "earlier: a, before b" ... or "" */
	int64_t delta_insns, delta_ns;
	uint64_t calls_old, calls_new;
};

struct bp_gate {
	enum bp_gate_verdict verdict;
	const char *judge; /* "exact", "statistical", "budget" (no baseline), "none" (neither) */
	struct bp_gate_metric *metrics;
	size_t n_metrics;
	/* Rows of kind function and rest add up to the change of the whole boot, in instructions, and in time
	 * that vCPUs ran. */
	struct bp_gate_blame *blame;
	size_t n_blame;
	int64_t delta_insns, delta_ns;
	char **notes;
	size_t n_notes;
};

struct bp_err *bp_gate_new(const char *judge, struct bp_gate **ret) BP_MUST_CHECK;
void bp_gate_destroy(struct bp_gate *g);

static inline void bp_gate_destroyp(struct bp_gate **g)
{
	bp_gate_destroy(*g);
}

/** bp_gate_note() - a line for people; without memory it is left out */
void bp_gate_note(struct bp_gate *g, const char *fmt, ...) BP_PRINTF(2, 3);

/** bp_gate_worse() - the verdict becomes @v if that is worse: a regression is one also when else nothing is
 * known */
void bp_gate_worse(struct bp_gate *g, enum bp_gate_verdict v);

/** bp_gate_metric() - add one; @name is copied; NULL without memory */
struct bp_gate_metric *bp_gate_metric(struct bp_gate *g, const char *name, const char *unit);

/** bp_gate_repeats() - are the kernel's instructions of two deterministic boots the same, in total and in
 * each phase? What the firmware does before is left out. */
bool bp_gate_repeats(const struct bp_summary *a, const struct bp_summary *b);

/** bp_gate_floor() - from boots with harmless changes, what the floor of comparisons with @base is */
struct bp_err *bp_gate_floor(struct bp_summary *base, struct bp_summary *const *others,
			     size_t n) BP_MUST_CHECK;

/** bp_gate_exact() - judge instructions: from the kernel on in total, by phase, and by function */
struct bp_err *bp_gate_exact(struct bp_gate *g, const struct bp_diff *d,
			     const struct bp_gate_options *o) BP_MUST_CHECK;

/* One measured quantity of pairs of boots. */
struct bp_gate_series {
	const char *name;                      /* "time", "phase:NAME" */
	const double *old_values, *new_values; /* ns */
	size_t n;
};

/**
 * bp_gate_statistical() - judge times of boots run in turn
 * @before, @now: shares of the pairs that there may be at most, see bp_stats_judge()
 * The verdict is inconclusive while more pairs could decide, and when there are no more.
 */
struct bp_err *bp_gate_statistical(struct bp_gate *g, const struct bp_gate_series *series, size_t n,
				   double before, double now, const struct bp_gate_options *o) BP_MUST_CHECK;

/** bp_gate_explain() - fill the blame: the @max functions that changed most, first calls and modules that
 * moved */
struct bp_err *bp_gate_explain(struct bp_gate *g, const struct bp_diff *d, size_t max) BP_MUST_CHECK;

#endif
