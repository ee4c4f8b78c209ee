/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is around every view: the line with the screens, the two at the bottom, help and the list of commands.
 */
#ifndef BP_TUI_FRAME_H
#define BP_TUI_FRAME_H

#include "tui/tui.h"

/** bp_frame_draw() - the three lines, and what lies over the view: help, the list of commands */
void bp_frame_draw(struct bp_tui *tui, struct bp_grid *g);

/** bp_frame_tab_at() - the view whose name is at column @x of the first line; -1: none */
int bp_frame_tab_at(const struct bp_tui *tui, int x);

/** bp_frame_help_key() - a key while help is shown; false: it is closed */
bool bp_frame_help_key(struct bp_tui *tui, const struct bp_key *key);

/** bp_frame_command() - the key of the command that is chosen in the palette; false: none matches */
bool bp_frame_command(struct bp_tui *tui, struct bp_key *key);

#endif
