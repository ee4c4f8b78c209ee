/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The terminal user interface, without a terminal: keys go in, a grid of cells comes out. cmd/tui.c connects
 * it with tui/term.c; tests and bp_tui_keys() drive it from a text.
 */
#ifndef BP_TUI_TUI_H
#define BP_TUI_TUI_H

#include <stdbool.h>
#include <stdint.h>

#include "analyzers/index.h"
#include "analyzers/view.h"
#include "tui/compare.h"
#include "tui/view.h"

#define BP_TUI_NO_TIME UINT64_MAX
#define BP_TUI_HISTORY 64

struct bp_tui_window {
	double from, to; /* in the clock's unit: ns, or instructions of all vCPUs */
	uint64_t cursor_ns;
};

enum bp_tui_prompt {
	BP_PROMPT_NONE,
	BP_PROMPT_SEARCH,  /* / and ? */
	BP_PROMPT_GOTO,    /* g */
	BP_PROMPT_FILTER,  /* t */
	BP_PROMPT_COMMAND, /* : */
	BP_PROMPT_VIEW,    /* belongs to the view */
};

struct bp_tui_search {
	char *text;    /* as typed, NULL: none */
	uint8_t *rows; /* by row: matches */
	size_t n_rows; /* how many do */
	bool back;
};

struct bp_tui {
	const struct bp_trace *trace;
	struct bp_compare *compare; /* with a baseline; NULL: none */
	struct bp_query query;      /* of @a: no filters */
	struct bp_analysis *a;
	struct bp_index *index;
	bool ascii, plain, threads;

	size_t *console; /* numbers of facts: console lines in order of time, each once */
	size_t n_console;

	uint64_t start_ns; /* see bp_tui_start() */

	/* shared by the views */
	enum bp_clock clock;
	struct bp_tui_window window;
	uint64_t cursor_ns;    /* where one looks */
	uint64_t untouched_ns; /* where it was put to begin with; from there it follows the end of a boot that
				  runs */
	int cursor_vcpu;       /* ... on which vCPU */
	uint32_t cursor_depth; /* level of its stack, from 1; 0: none */
	uint32_t selected;     /* function (row), BP_NO_ROW: none */
	uint64_t range_a, range_b; /* A and B, BP_TUI_NO_TIME: not set */
	uint64_t marks[26];
	struct bp_tui_search search;
	struct bp_query filter; /* processes, modules, vcpus are used */
	char *filter_text;      /* NULL: none */
	struct bp_tui_window history[BP_TUI_HISTORY];
	unsigned n_history, history_at;

	/* the frame around the views */
	unsigned view;       /* index in bp_tui_views */
	unsigned last_table; /* view to go back to from the timeline, 0: none */
	void **selfs;
	bool *opened;
	unsigned w, h;
	struct bp_rect rect; /* of the view, at the last drawing */
	enum bp_tui_prompt prompt;
	const char *prompt_label;
	char input[256];
	size_t input_len;
	int palette_at;
	uint32_t prefix; /* a key that waits for another: 'm', '\'' */
	bool help;
	int help_top;
	char message[256];
	bool message_warns;
	bool quit, dirty;
	bool live;    /* the recording grows */
	bool pending; /* what was drawn last waits for a thread */
	uint64_t drawn_changes;
	uint64_t seen; /* counts changes of what is shared */
};

struct bp_tui_options {
	const struct bp_trace *trace;    /* borrowed */
	const struct bp_trace *baseline; /* one of these two, or neither; borrowed */
	const struct bp_summary *baseline_boot;
	enum bp_clock clock;
	bool ascii, plain; /* see struct bp_grid */
	bool threads;      /* index and reports are made beside; else at once, which tests want */
};

/** bp_tui_create() - @opt: copied. Errors: BP_ENOMEM */
struct bp_err *bp_tui_create(const struct bp_tui_options *opt, struct bp_tui **ret) BP_MUST_CHECK;
void bp_tui_destroy(struct bp_tui *tui);

static inline void bp_tui_destroyp(struct bp_tui **tui)
{
	bp_tui_destroy(*tui);
}

/**
 * bp_tui_adopt() - @tui, of a recording that has grown, goes on where @old is, which is destroyed next
 * A window that showed everything shows everything again. Errors: BP_ENOMEM
 */
struct bp_err *bp_tui_adopt(struct bp_tui *tui, struct bp_tui *old) BP_MUST_CHECK;

/** bp_tui_draw() - compose the screen; @g has the size. Errors: BP_ENOMEM */
struct bp_err *bp_tui_draw(struct bp_tui *tui, struct bp_grid *g) BP_MUST_CHECK;

/** bp_tui_key() - a key or the mouse; tui->quit is set when that was all. Errors: BP_ENOMEM */
struct bp_err *bp_tui_key(struct bp_tui *tui, const struct bp_key *key) BP_MUST_CHECK;

/**
 * bp_tui_keys() - keys out of a text: words separated by blanks, each a character or a name ("Enter", "Tab",
 * "Esc", "Space", "Up", "PgDn", "F1", "C-r" ...), a text in double quotes, or a count and "*" before one of
 * them ("5*d") Errors: BP_EUSAGE for a word that is none.
 */
struct bp_err *bp_tui_keys(struct bp_tui *tui, const char *text) BP_MUST_CHECK;

/** bp_tui_stale() - whether drawing again would show something new: a thread has got further */
bool bp_tui_stale(struct bp_tui *tui);

/** bp_tui_busy() - whether threads work */
bool bp_tui_busy(struct bp_tui *tui);

/** bp_tui_settle() - wait until all that was begun is done. Errors: BP_ENOMEM */
struct bp_err *bp_tui_settle(struct bp_tui *tui) BP_MUST_CHECK;

/* ---- for views ---- */

/** bp_tui_say() - a message in the line at the bottom, until the next key */
void bp_tui_say(struct bp_tui *tui, const char *fmt, ...) BP_PRINTF(2, 3);
void bp_tui_warn(struct bp_tui *tui, const char *fmt, ...) BP_PRINTF(2, 3);

/** bp_tui_ask() - open a prompt that belongs to the view; its prompt() gets what is typed */
void bp_tui_ask(struct bp_tui *tui, const char *label, const char *text);

/** bp_tui_show() - change to a view */
struct bp_err *bp_tui_show(struct bp_tui *tui, const struct bp_tui_view *view) BP_MUST_CHECK;

/** bp_tui_changed() - what is shared has changed: tell the others */
void bp_tui_changed(struct bp_tui *tui);

/** bp_tui_pos() - host time in the clock's unit; bp_tui_ns(): and back */
double bp_tui_pos(const struct bp_tui *tui, uint64_t ns);
uint64_t bp_tui_ns(const struct bp_tui *tui, double pos);
/** bp_tui_end() - of the recording, in the clock's unit */
double bp_tui_end(const struct bp_tui *tui);

/** bp_tui_start() - of what is shown as everything: 0 unless what was recorded begins late, as imported
 * traces do */
double bp_tui_start(const struct bp_tui *tui);

/** bp_tui_look_at() - put the cursor at @ns and the window around it; it is kept when @ns is inside already
 */
void bp_tui_look_at(struct bp_tui *tui, uint64_t ns);

/** bp_tui_set_window() - in the clock's unit; kept in bounds; @remember: for undo */
void bp_tui_set_window(struct bp_tui *tui, double from, double to, bool remember);

/** bp_tui_range() - A to B in host time, in order; false: whole recording (then *from 0, *to the end) */
bool bp_tui_range(const struct bp_tui *tui, uint64_t *from_ns, uint64_t *to_ns);

/** bp_tui_jump_to() - to the next entry of @row after the cursor, else its first; to the timeline */
struct bp_err *bp_tui_jump_to(struct bp_tui *tui, uint32_t row) BP_MUST_CHECK;

/** bp_tui_jump_at() - to the entry of @row at @ns, or to that time alone when @row is none; to the timeline
 */
struct bp_err *bp_tui_jump_at(struct bp_tui *tui, uint32_t row, uint64_t ns) BP_MUST_CHECK;

/** bp_tui_parse_filter() - add "init module=ext4 vcpu=0,2" to the filters of @q; words without "=" are
 * processes */
struct bp_err *bp_tui_parse_filter(const char *text, struct bp_query *q) BP_MUST_CHECK;

/** bp_tui_find() - next match of the search from the cursor */
struct bp_err *bp_tui_find(struct bp_tui *tui, bool back) BP_MUST_CHECK;

/** bp_tui_function() - the row with that name, module and address; BP_NO_ROW: none. Any but name may be NULL,
 * 0 */
uint32_t bp_tui_function(const struct bp_tui *tui, const char *name, const char *module, uint64_t addr);

/** bp_tui_style_of() - of a function's code */
unsigned bp_tui_style_of(const struct bp_tui *tui, uint32_t row);

/** bp_tui_console_line() - number @i of the console's lines; borrowed from the trace */
const struct bp_fact *bp_tui_console_line(const struct bp_tui *tui, size_t i);
/** bp_tui_console_until() - how many lines there are up to and including @ns */
size_t bp_tui_console_until(const struct bp_tui *tui, uint64_t ns);

/* A number for bp_units_*(), which may be out of an integer's range when a recording makes no sense. */
static inline int64_t bp_tui_i64(double v)
{
	return v >= 9e18 ? INT64_MAX : v > -9e18 ? (int64_t)v : INT64_MIN;
}

#define BP_POS_MAX 32
/** bp_tui_pos_text() - "1.234567 s" or "12.3M", with digits for steps of @step (clock's unit) */
const char *bp_tui_pos_text(const struct bp_tui *tui, double pos, double step, char buf[BP_POS_MAX]);

#endif
