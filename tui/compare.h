/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The recording against a baseline; made when it is first asked for, by whichever thread does. */
#ifndef BP_TUI_COMPARE_H
#define BP_TUI_COMPARE_H

#include "analyzers/diff.h"
#include "core/trace.h"

struct bp_compare;

/**
 * bp_compare_create() - @old_trace or @old_boot, the other one is NULL; all are borrowed
 */
struct bp_err *bp_compare_create(const struct bp_trace *old_trace, const struct bp_summary *old_boot,
				 const struct bp_trace *new_trace, struct bp_compare **ret) BP_MUST_CHECK;
void bp_compare_destroy(struct bp_compare *c);

/** bp_compare_get() - borrowed from @c; may take as long as reading both. Errors: as bp_summary_create() */
struct bp_err *bp_compare_get(struct bp_compare *c, enum bp_clock clock,
			      const struct bp_diff **ret) BP_MUST_CHECK;

#endif
