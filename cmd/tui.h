/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The terminal user interface on a terminal, for the commands tui and record. */
#ifndef BP_CMD_TUI_H
#define BP_CMD_TUI_H

#include "cmd/record_run.h"
#include "tui/term.h"
#include "tui/tui.h"

/** bp_tui_options_for() - how to draw on that terminal, of @trace */
struct bp_tui_options bp_tui_options_for(const struct bp_trace *trace, const struct bp_term *term);

/** bp_tui_show_on() - draw what is new; @g: kept from call to call. Errors: BP_ENOMEM */
struct bp_err *bp_tui_show_on(struct bp_tui *tui, struct bp_term *term, struct bp_grid *g) BP_MUST_CHECK;

/**
 * bp_tui_step() - one turn: draw, wait for keys, for at most @ms (-1: until there is one), take them
 * *gone: the terminal went away. Errors: BP_ENOMEM
 */
struct bp_err *bp_tui_step(struct bp_tui *tui, struct bp_term *term, struct bp_grid *g, int ms,
			   bool *gone) BP_MUST_CHECK;

/**
 * bp_tui_live() - record as bp_record_run() does, in a process of its own, and show the recording while it
 * grows Leaving ends the recording. What the recorder says is printed at the end.
 * @status: the recorder's exit status. Errors: as bp_term_open().
 */
struct bp_err *bp_tui_live(const struct bp_record_options *opts, int *status) BP_MUST_CHECK;

#endif
