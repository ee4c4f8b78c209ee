/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A view of the terminal user interface: one screen between the line at the top and the two at the bottom. To
 * add one: write a struct bp_tui_view, name it in tui/views.c. What views share (the cursor, the selected
 * function, the range, the clock) is in struct bp_tui (tui/tui.h); a view keeps only how it shows it.
 */
#ifndef BP_TUI_VIEW_H
#define BP_TUI_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "tui/grid.h"

/* Keys: a Unicode character, or one of these. Control and a letter is 1 to 26. */
enum bp_key_code {
	BP_KEY_NONE = 0,
	BP_KEY_TAB = 9,
	BP_KEY_ENTER = 10,
	BP_KEY_ESCAPE = 27,
	BP_KEY_BACKSPACE = 127,
	BP_KEY_UP = 0x110000,
	BP_KEY_DOWN,
	BP_KEY_LEFT,
	BP_KEY_RIGHT,
	BP_KEY_HOME,
	BP_KEY_END,
	BP_KEY_PAGE_UP,
	BP_KEY_PAGE_DOWN,
	BP_KEY_DELETE,
	BP_KEY_BACKTAB,
	BP_KEY_F1,
	BP_KEY_RESIZE,
	/* mouse, at x and y */
	BP_KEY_PRESS,
	BP_KEY_DRAG,
	BP_KEY_RELEASE,
	BP_KEY_DOUBLE,
	BP_KEY_WHEEL_UP,
	BP_KEY_WHEEL_DOWN,
	BP_KEY_CTRL_WHEEL_UP,
	BP_KEY_CTRL_WHEEL_DOWN,
};

struct bp_key {
	uint32_t code;
	int x, y;
};

struct bp_rect {
	int x, y, w, h;
};

struct bp_tui;

/* A line of help; @keys as they are shown: "w s". Ends with one whose keys are NULL. */
struct bp_tui_help {
	const char *keys, *text;
};

struct bp_tui_view {
	char digit;          /* '1' to '9', '0': the screen's key */
	const char *name;    /* in the list of screens: "Timeline" */
	const char *command; /* in the palette: "timeline" */
	const char
	    *hints; /* the line at the bottom: "w s zoom  a d pan": words are separated by two blanks */
	const struct bp_tui_help *help;
	/* @ret: the view's own state; called when it is shown first. May be NULL */
	struct bp_err *(*open)(struct bp_tui *tui, void **ret);
	void (*close)(struct bp_tui *tui, void *self);
	/* compose the view into @r of @g; @r is at least 20 x 4 */
	struct bp_err *(*draw)(struct bp_tui *tui, void *self, struct bp_grid *g, struct bp_rect r);
	/* @used: whether the view did something with it; else it is looked at by the frame around it */
	struct bp_err *(*key)(struct bp_tui *tui, void *self, const struct bp_key *key, bool *used);
	/* what was typed into a prompt that the view opened, at each key (@done false) and at the end */
	struct bp_err *(*prompt)(struct bp_tui *tui, void *self, const char *text, bool done);
	/* the cursor, the range, the clock or the selection were changed elsewhere, or the view is shown
	 * again */
	void (*sync)(struct bp_tui *tui, void *self);
	/* take over from the same view of an earlier look at the same recording how it is shown */
	void (*adopt)(struct bp_tui *tui, void *self, void *old);
	/* whether a thread of the view works; with @wait: not before it is done */
	bool (*busy)(struct bp_tui *tui, void *self, bool wait);
};

extern const struct bp_tui_view *const bp_tui_views[];
extern const unsigned bp_tui_n_views;

extern const struct bp_tui_view bp_tui_timeline, bp_tui_flame, bp_tui_functions, bp_tui_tree, bp_tui_phases,
    bp_tui_syscalls, bp_tui_waits, bp_tui_io, bp_tui_console, bp_tui_diff;

#endif
