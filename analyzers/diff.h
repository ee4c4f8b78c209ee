/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two boots compared: phases, functions, call paths, first calls, modules, initcalls, system calls.
 *
 * A function that was renamed (same callers, callees, calls and cost under another name) is one row. One that
 * was inlined is taken as part of its callers in both boots, so that what moved into the caller is not a
 * change; the same, the other way round, for one that was split off.
 *
 * What adds up: self changes of all functions, plus what no function had (outside_*), make the change of
 * the boot's instructions, and of the vCPUs' time; changes of a path's self and rest figures over all paths
 * make that of its functions; phases and unaccounted time make the change of the run.
 */
#ifndef BP_ANALYZERS_DIFF_H
#define BP_ANALYZERS_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analyzers/query.h"
#include "analyzers/summary.h"
#include "core/err.h"
#include "core/report.h"

enum bp_diff_state {
	BP_DIFF_BOTH,
	BP_DIFF_NEW,     /* only in the new boot */
	BP_DIFF_GONE,    /* only in the old one */
	BP_DIFF_RENAMED, /* in both, as `from` in the old one */
	BP_DIFF_INLINED, /* old only; its cost is counted as that of `from`, which called it */
	BP_DIFF_SPLIT,   /* new only; its cost is counted as that of `from`, of which it was a part */
};

/* [0] is the old boot, [1] the new one. Strings are borrowed from the summaries. */
struct bp_diff_func {
	const char *name, *module;
	uint8_t space;
	enum bp_diff_state state;
	const char *from;
	uint32_t id[2]; /* index in the summary, BP_SUM_NONE */
	uint64_t calls[2];
	int64_t self_ns[2], self_insns[2], total_ns[2], total_insns[2];
	uint32_t phase[2]; /* of its first call: index in bp_diff.phases, BP_SUM_NONE */
	uint32_t rank[2];  /* of its first call among the functions that both boots have, from 1; 0: none */
	uint64_t first_ns[2];
	bool moved;    /* its first call changed places with those of others */
	uint32_t node; /* path on which its self instructions (or time) changed most; 0: none known */
};

struct bp_diff_node {
	uint32_t parent, func; /* [0]: the root, func is BP_SUM_NONE */
	bool has[2];
	uint64_t calls[2];
	int64_t self_ns[2], self_insns[2], rest_ns[2], rest_insns[2];
	int64_t total_ns[2], total_insns[2];
};

struct bp_diff_phase {
	const char *name;
	bool has[2];
	int64_t ns[2], insns[2];
};

/* Modules, initcalls, system calls. */
struct bp_diff_item {
	const char *name, *kind; /* kind: an initcall's level or "" */
	bool has[2];
	uint64_t calls[2]; /* system calls; loads of modules */
	int64_t ns[2], insns[2];
	uint32_t phase[2]; /* modules: where it is loaded first */
};

struct bp_diff {
	const struct bp_summary *s[2];
	enum bp_clock clock; /* that decides what is a large change */
	struct bp_diff_func *funcs;
	size_t n_funcs;
	struct bp_diff_node *nodes;
	size_t n_nodes;
	struct bp_diff_phase
	    *phases; /* in the order of the new boot, with those that are gone where they were */
	size_t n_phases;
	struct bp_diff_item *modules, *initcalls, *syscalls;
	size_t n_modules, n_initcalls, n_syscalls;
	int64_t outside_insns[2];  /* of the boot, in no function */
	int64_t unaccounted_ns[2]; /* of the run, in no phase */
	size_t n_renamed, n_inlined, n_split;
};

/** bp_diff_create() - compare; @old_boot and @new_boot are borrowed */
struct bp_err *bp_diff_create(const struct bp_summary *old_boot, const struct bp_summary *new_boot,
			      enum bp_clock clock, struct bp_diff **ret) BP_MUST_CHECK;
void bp_diff_destroy(struct bp_diff *d);

static inline void bp_diff_destroyp(struct bp_diff **d)
{
	bp_diff_destroy(*d);
}

/** bp_diff_path() - "a;b;c": functions from the bottom of the stack to a node; the string is owned by the
 * caller */
struct bp_err *bp_diff_path(const struct bp_diff *d, uint32_t node, char **ret) BP_MUST_CHECK;

/** bp_diff_comparable() - NULL, or what differs between the machines, "machine type: pc and q35; -smp: 1 and
 * 2" (owned by the caller). Also when something is not known of one of them, but not of both. */
struct bp_err *bp_diff_comparable(const struct bp_summary *a, const struct bp_summary *b,
				  char **ret) BP_MUST_CHECK;

/* ---- views ---- */

struct bp_diff_view {
	const char *name;
	const char *summary;
};

extern const struct bp_diff_view bp_diff_views[];
extern const size_t bp_n_diff_views;

/** bp_diff_view_find() - by name, NULL if none */
const struct bp_diff_view *bp_diff_view_find(const char *name);

struct bp_analysis;

/**
 * bp_diff_report() - a view of the comparison
 * @query: clock, sort, fields, limits; the rest must have been applied to the summaries
 * @ret: owned; borrows from @keep
 * @keep: owned, for bp_analysis_destroy() after the report's end; borrows @query
 */
struct bp_err *bp_diff_report(const struct bp_diff *d, const struct bp_diff_view *view,
			      const struct bp_query *query, struct bp_analysis **keep,
			      struct bp_report **ret) BP_MUST_CHECK;

#endif
