/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Budgets: limits for a boot in a YAML file that is kept with the source. bootprof-budget(5) has the form.
 */
#ifndef BP_ANALYZERS_BUDGET_H
#define BP_ANALYZERS_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analyzers/gate.h"
#include "analyzers/summary.h"
#include "core/err.h"
#include "core/strbuf.h"

struct bp_budget;

/** bp_budget_read() - Errors: BP_EOS; BP_EDATA "file:line: ..."; */
struct bp_err *bp_budget_read(const char *path, struct bp_budget **ret) BP_MUST_CHECK;

/** bp_budget_parse() - the same for text in memory; @path: for errors */
struct bp_err *bp_budget_parse(const char *path, const char *text, size_t len,
			       struct bp_budget **ret) BP_MUST_CHECK;
void bp_budget_destroy(struct bp_budget *b);

static inline void bp_budget_destroyp(struct bp_budget **b)
{
	bp_budget_destroy(*b);
}

/** bp_budget_limits() - how many limits it sets */
size_t bp_budget_limits(const struct bp_budget *b);

/**
 * bp_budget_judge() - add a metric for each limit
 * @old_boot: for limits of growth; NULL: those cannot be judged, which is a note
 * A limit for something that the boot does not have is kept.
 */
struct bp_err *bp_budget_judge(const struct bp_budget *b, struct bp_gate *g,
			       const struct bp_summary *old_boot,
			       const struct bp_summary *new_boot) BP_MUST_CHECK;

/**
 * bp_budget_write() - a budget that @s keeps, as text, with room above its figures: 2 % of instructions when
 * they repeat, else 25 % of time
 */
struct bp_err *bp_budget_write(const struct bp_summary *s, struct bp_strbuf *sb) BP_MUST_CHECK;

#endif
