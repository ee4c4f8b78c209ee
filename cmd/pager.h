/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shows text through $PAGER, or less where there is one. */
#ifndef BP_CMD_PAGER_H
#define BP_CMD_PAGER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

/** bp_pager_command() - the shell command that pages, or NULL for none ($PAGER is "" or "cat", or no less is
 * there) */
const char *bp_pager_command(void);

/**
 * bp_pager_show() - run @command, give it @text on its standard input, wait for its end
 * @shown: false when the pager could not be run at all
 * Errors: BP_EOS. A pager that ends before it has read everything is fine.
 */
struct bp_err *bp_pager_show(const char *command, const char *text, size_t len, bool *shown) BP_MUST_CHECK;

#endif
