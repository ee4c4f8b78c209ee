/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The terminal: the only file that knows curses is term.c. One at a time. */
#ifndef BP_TUI_TERM_H
#define BP_TUI_TERM_H

#include <stdbool.h>

#include "core/err.h"
#include "tui/grid.h"
#include "tui/view.h"

enum bp_term_color { BP_TERM_COLOR_AUTO, BP_TERM_COLOR_NO, BP_TERM_COLOR_YES };

struct bp_term;

/**
 * bp_term_open() - take over the terminal
 * Colours are what terminfo says, none with NO_COLOR; @color overrides that.
 * Errors: BP_EOS (not a terminal, unknown TERM).
 */
struct bp_err *bp_term_open(enum bp_term_color color, struct bp_term **ret) BP_MUST_CHECK;

/** bp_term_close() - give it back as it was; NULL is fine */
void bp_term_close(struct bp_term *t);

static inline void bp_term_closep(struct bp_term **t)
{
	bp_term_close(*t);
}

/** bp_term_utf8() - whether the terminal's character set is UTF-8; bp_term_colors(): how many, 0 none */
bool bp_term_utf8(const struct bp_term *t);
int bp_term_colors(const struct bp_term *t);

void bp_term_size(const struct bp_term *t, unsigned *w, unsigned *h);

/** bp_term_show() - what is different from what was shown last */
void bp_term_show(struct bp_term *t, const struct bp_grid *g);

/** bp_term_key() - the next key, BP_KEY_NONE after @timeout_ms (-1: never); false: the terminal is gone */
bool bp_term_key(struct bp_term *t, int timeout_ms, struct bp_key *key);

#endif
