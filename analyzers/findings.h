/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "What to look at next": findings, each with its share of the run and the command that shows more. */
#ifndef BP_ANALYZERS_FINDINGS_H
#define BP_ANALYZERS_FINDINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "analyzers/view.h"

struct bp_finding;

struct bp_findings {
	struct bp_analysis *a;
	struct bp_finding *list;
	size_t n;
	bool failed; /* memory was short */
};

/**
 * bp_find() - add one
 * @share: of the run, percent; negative: there is no such figure, and all others are in question
 * @command: arguments of bootprof; @word: a name that goes behind them, untrusted, NULL: none
 */
void bp_find(struct bp_findings *f, double share, const char *command, const char *word, const char *fmt, ...)
    BP_PRINTF(5, 6);
void bp_findings_deinit(struct bp_findings *f);

/** bp_findings_table() - the largest first; cells are copied */
struct bp_err *bp_findings_table(struct bp_findings *f, struct bp_report *r) BP_MUST_CHECK;

#endif
