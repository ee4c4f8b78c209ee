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

struct bp_rows;

/* How a function's own cost changed. */
enum bp_change { BP_CHANGE_NONE, BP_CHANGE_MORE, BP_CHANGE_LESS, BP_CHANGE_NEW };

/**
 * bp_compare_changes() - by row of @rows, enum bp_change; what is less than a thousandth of the boot is none
 * Begins the comparison in a thread (or at once, without @thread), and gives NULL until it is there; NULL
 * also when it failed. Borrowed from @c, the same for all calls with that clock.
 */
const uint8_t *bp_compare_changes(struct bp_compare *c, const struct bp_rows *rows, enum bp_clock clock,
				  bool thread);

/** bp_compare_busy() - whether that thread works; with @wait: not before it is done */
bool bp_compare_busy(struct bp_compare *c, bool wait);

#endif
