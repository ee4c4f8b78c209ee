// SPDX-License-Identifier: GPL-2.0-or-later
/* Screen 9: what the guest wrote to its console; the line at the cursor's time is the selected one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tui/tui.h"

struct console {
	size_t *list; /* lines that have the filter's text */
	size_t n;
	size_t at, top;
	int rows_y, rows_h;
	char filter[128];
	bool moving; /* the cursor is moved from here */
};

static void console_close(struct bp_tui *tui, void *self)
{
	struct console *c = self;

	(void)tui;
	if (!c)
		return;
	free(c->list);
	free(c);
}

static void apply_filter(const struct bp_tui *tui, struct console *c)
{
	c->n = 0;
	for (size_t i = 0; i < tui->n_console; i++) {
		if (!*c->filter || strcasestr(bp_tui_console_line(tui, i)->s1, c->filter))
			c->list[c->n++] = i;
	}
}

/* The last line by the cursor's time. */
static void console_sync(struct bp_tui *tui, void *self)
{
	struct console *c = self;

	if (c->moving)
		return;
	c->at = 0;
	for (size_t i = 0; i < c->n && bp_tui_console_line(tui, c->list[i])->time_ns <= tui->cursor_ns; i++)
		c->at = i;
}

static struct bp_err *console_open(struct bp_tui *tui, void **ret)
{
	struct console *c = calloc(1, sizeof(*c));

	if (c)
		c->list = calloc(tui->n_console + 1, sizeof(*c->list));
	if (!c || !c->list) {
		console_close(tui, c);
		return bp_err_nomem();
	}
	apply_filter(tui, c);
	*ret = c;
	return NULL;
}

static struct bp_err *console_draw(struct bp_tui *tui, void *self, struct bp_grid *g, struct bp_rect r)
{
	struct console *c = self;
	char pos[BP_POS_MAX];
	int room = r.h - 1;

	bp_grid_fill(g, r.x, r.y, r.w, ' ', BP_STYLE_BAR);
	bp_grid_printf(g, r.x + 1, r.y, r.w - 2, BP_STYLE_BAR, "%14s  %s",
		       tui->clock == BP_CLOCK_TIME ? "TIME" : "INSNS", "CONSOLE");
	if (*c->filter)
		bp_grid_printf(g, r.x + 28, r.y, r.w - 30, BP_STYLE_BAR, "/%s: %zu of %zu lines", c->filter,
			       c->n, tui->n_console);
	if (!c->n)
		bp_grid_text(g, r.x + 2, r.y + 2, r.w - 4, BP_STYLE_TEXT,
			     tui->n_console ? "No line has this text."
					    : "This recording has no console lines.");
	if (c->at >= c->n)
		c->at = c->n ? c->n - 1 : 0;
	if (c->at < c->top)
		c->top = c->at;
	if (c->at >= c->top + (size_t)room)
		c->top = c->at - (size_t)room + 1;
	c->rows_y = r.y + 1;
	c->rows_h = room;
	for (int i = 0; i < room && c->top + (size_t)i < c->n; i++) {
		const struct bp_fact *f = bp_tui_console_line(tui, c->list[c->top + (size_t)i]);

		bp_grid_printf(g, r.x + 1, r.y + 1 + i, 15, BP_STYLE_DIM, "%14s",
			       bp_tui_pos_text(tui, bp_tui_pos(tui, f->time_ns), 1e3, pos));
		bp_grid_text(g, r.x + 17, r.y + 1 + i, r.w - 18, BP_STYLE_TEXT, f->s1);
		if (c->top + (size_t)i == c->at) {
			bp_grid_style(g, r.x, r.y + 1 + i, r.w, BP_STYLE_CURSOR);
			bp_grid_put(g, r.x, r.y + 1 + i, '>', BP_STYLE_BOLD | BP_STYLE_CURSOR);
		}
	}
	return NULL;
}

static void move(struct bp_tui *tui, struct console *c, long by)
{
	if (!c->n)
		return;
	if (by < 0 && (size_t)-by > c->at)
		c->at = 0;
	else
		c->at = (size_t)((long)c->at + by);
	if (c->at >= c->n)
		c->at = c->n - 1;
	c->moving = true;
	bp_tui_look_at(tui, bp_tui_console_line(tui, c->list[c->at])->time_ns);
	bp_tui_changed(tui);
	c->moving = false;
}

static struct bp_err *console_key(struct bp_tui *tui, void *self, const struct bp_key *key, bool *used)
{
	struct console *c = self;

	*used = true;
	switch (key->code) {
	case BP_KEY_UP:
	case 'k':
		move(tui, c, -1);
		return NULL;
	case BP_KEY_DOWN:
	case 'j':
		move(tui, c, 1);
		return NULL;
	case BP_KEY_WHEEL_UP:
		move(tui, c, -3);
		return NULL;
	case BP_KEY_WHEEL_DOWN:
		move(tui, c, 3);
		return NULL;
	case BP_KEY_PAGE_UP:
		move(tui, c, -(long)c->rows_h);
		return NULL;
	case BP_KEY_PAGE_DOWN:
		move(tui, c, c->rows_h);
		return NULL;
	case BP_KEY_HOME:
		move(tui, c, -(1L << 40));
		return NULL;
	case BP_KEY_END:
		move(tui, c, 1L << 40);
		return NULL;
	case '/':
		bp_tui_ask(tui, "lines with: ", c->filter);
		return NULL;
	case BP_KEY_ESCAPE:
		c->filter[0] = 0;
		apply_filter(tui, c);
		return NULL;
	case BP_KEY_PRESS:
	case BP_KEY_DOUBLE:
		if (key->y >= c->rows_y && key->y < c->rows_y + c->rows_h)
			move(tui, c, (long)(c->top + (size_t)(key->y - c->rows_y)) - (long)c->at);
		return key->code == BP_KEY_DOUBLE ? bp_tui_show(tui, &bp_tui_timeline) : NULL;
	case BP_KEY_ENTER:
		return bp_tui_show(tui, &bp_tui_timeline);
	default:
		*used = false;
		return NULL;
	}
}

static struct bp_err *console_prompt(struct bp_tui *tui, void *self, const char *text, bool done)
{
	struct console *c = self;

	(void)done;
	snprintf(c->filter, sizeof(c->filter), "%s", text);
	apply_filter(tui, c);
	console_sync(tui, c);
	return NULL;
}

static const struct bp_tui_help help[] = {
    {"Up Down j k", "a line; the cursor goes along"},
    {"PgUp PgDn Home End", "a page, the first, the last"},
    {"/", "only lines with this text, as one types; Esc: all again"},
    {"Enter", "to the timeline at that moment"},
    {NULL, NULL},
};

const struct bp_tui_view bp_tui_console = {
    .digit = '9',
    .name = "Console",
    .command = "console",
    .hints = "arrows move  / filter  Enter show on timeline  A B range  1 timeline  : commands  q quit",
    .help = help,
    .open = console_open,
    .close = console_close,
    .draw = console_draw,
    .key = console_key,
    .prompt = console_prompt,
    .sync = console_sync,
};
