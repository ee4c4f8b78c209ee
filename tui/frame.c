// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tui/frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/units.h"

/* Keys of the frame; each view has more of its own. */
static const struct bp_tui_help common_help[] = {
    {"1 - 9, 0", "the screens"},
    {"/ ?", "look for functions by regular expression, onward or back in time"},
    {"n N", "next match, previous match"},
    {"g", "go to a time (1.5s), a phase, a mark, or a function's first call"},
    {"A B X", "start and end of the range at the cursor; X: whole recording again"},
    {"m ' letter", "set a mark, jump to it"},
    {"c", "clock: host time or instructions"},
    {"t", "filter: process, module=NAME, vcpu=0,2; nothing: no filter"},
    {"u Ctrl-R", "undo and redo zooming and jumping"},
    {":", "all commands"},
    {"F1 H", "this help"},
    {"q", "quit"},
    {NULL, NULL},
};

/* ---- commands ---- */

struct command {
	const char *name, *text;
	const char *key; /* as for bp_tui_keys(), one key */
	uint32_t code;
};

static const struct command commands[] = {
    {"find", "look for a function, onward in time", "/", '/'},
    {"find-back", "look for a function, back in time", "?", '?'},
    {"next", "next match", "n", 'n'},
    {"previous", "previous match", "N", 'N'},
    {"goto", "go to a time, phase, mark or first call", "g", 'g'},
    {"filter", "show only some processes, modules, vCPUs", "t", 't'},
    {"clock", "host time or instructions", "c", 'c'},
    {"range-start", "range begins at the cursor (A)", "A", 'A'},
    {"range-end", "range ends at the cursor (B)", "B", 'B'},
    {"range-clear", "range is the whole recording", "X", 'X'},
    {"undo", "window before the last zoom or jump", "u", 'u'},
    {"redo", "and back", "C-r", 18},
    {"help", "keys of this screen", "F1", BP_KEY_F1},
    {"quit", "leave", "q", 'q'},
    {"zoom-in", "timeline: at the cursor", "w", 'w'},
    {"zoom-out", "timeline: at the cursor", "s", 's'},
    {"fit", "timeline: the selected slice; again: everything", "f", 'f'},
    {"next-slice", "timeline: on this track", "]", ']'},
    {"previous-slice", "timeline: on this track", "[", '['},
    {"slice-to-range", "timeline: A and B around the slice", "r", 'r'},
    {"next-difference", "timeline: of a function's own cost to the baseline", "x", 'x'},
    {"fold", "timeline: close or open a vCPU's stack", "Space", ' '},
    {"pin", "timeline: keep this track at the top", "p", 'p'},
};

#define N_COMMANDS BP_ARRAY_SIZE(commands)

/* Command @i: first the frame's own, then a screen each. */
static bool command_at(unsigned i, struct command *c)
{
	*c = (struct command){.name = ""};
	if (i < N_COMMANDS) {
		*c = commands[i];
		return true;
	}
	i -= N_COMMANDS;
	if (i >= bp_tui_n_views)
		return false;
	*c = (struct command){
	    .name = bp_tui_views[i]->command, .text = "screen", .code = (uint32_t)bp_tui_views[i]->digit};
	return true;
}

/* Numbers of the commands that have what was typed in their name. */
static unsigned matching(const struct bp_tui *tui, unsigned *list, unsigned max)
{
	struct command c;
	unsigned n = 0;

	for (unsigned i = 0; n < max && command_at(i, &c); i++) {
		if (strcasestr(c.name, tui->input))
			list[n++] = i;
	}
	return n;
}

static unsigned chosen(const struct bp_tui *tui, unsigned n)
{
	int at = n ? tui->palette_at % (int)n : 0;

	return (unsigned)(at < 0 ? at + (int)n : at);
}

bool bp_frame_command(struct bp_tui *tui, struct bp_key *key)
{
	unsigned list[64], n = matching(tui, list, 64);
	struct command c;

	if (!n) {
		bp_tui_warn(tui, "no command %s", tui->input);
		return false;
	}
	command_at(list[chosen(tui, n)], &c);
	*key = (struct bp_key){.code = c.code};
	return true;
}

static void box(struct bp_grid *g, int x, int y, int w, int h)
{
	for (int i = 0; i < h; i++) {
		bool edge = !i || i == h - 1;
		uint32_t side = g->ascii ? '|' : 0x2502;

		bp_grid_fill(g, x, y + i, w, edge ? (g->ascii ? '-' : 0x2500) : ' ',
			     edge ? BP_STYLE_DIM : BP_STYLE_TEXT);
		bp_grid_put(g, x, y + i, !edge ? side : g->ascii ? '+' : i ? 0x2514 : 0x250c, BP_STYLE_DIM);
		bp_grid_put(g, x + w - 1, y + i,
			    !edge      ? side
			    : g->ascii ? '+'
			    : i        ? 0x2518
				       : 0x2510,
			    BP_STYLE_DIM);
	}
}

static void draw_palette(struct bp_tui *tui, struct bp_grid *g)
{
	unsigned list[64], n = matching(tui, list, 64), at = chosen(tui, n);
	int w = (int)g->w - 4 < 64 ? (int)g->w - 4 : 64, h = (int)g->h - 4, x = ((int)g->w - w) / 2, top = 0;

	if (h > (int)n + 2)
		h = (int)n + 2;
	if (h < 3)
		h = 3;
	if ((int)at >= h - 2)
		top = (int)at - (h - 3);
	box(g, x, (int)g->h - 2 - h, w, h);
	for (int i = 0; i < h - 2 && top + i < (int)n; i++) {
		int y = (int)g->h - 1 - h + i;
		struct command c;
		char key[2] = {0};

		command_at(list[top + i], &c);
		key[0] = (char)c.code;
		bp_grid_text(g, x + 2, y, 18, BP_STYLE_TEXT, c.name);
		bp_grid_text(g, x + 21, y, w - 30, BP_STYLE_DIM, c.text);
		bp_grid_text(g, x + w - 8, y, 6, BP_STYLE_KEY, c.key ? c.key : key);
		if (top + i == (int)at)
			bp_grid_style(g, x + 1, y, w - 2, BP_STYLE_CURSOR);
	}
}

/* ---- help ---- */

static int help_line(struct bp_grid *g, int x, int y, int w, int top, int h, int line, const char *keys,
		     const char *text, unsigned style)
{
	if (line >= top && line < top + h) {
		if (keys)
			bp_grid_text(g, x, y + line - top, 16, BP_STYLE_KEY, keys);
		bp_grid_text(g, keys ? x + 17 : x, y + line - top, keys ? w - 17 : w, style, text);
	}
	return line + 1;
}

static void draw_help(struct bp_tui *tui, struct bp_grid *g)
{
	const struct bp_tui_view *v = bp_tui_views[tui->view];
	int w = (int)g->w - 4 < 92 ? (int)g->w - 4 : 92, h = (int)g->h - 3, x = ((int)g->w - w) / 2,
	    lines = 0;

	box(g, x, 1, w, h);
	bp_grid_text(g, x + 2, 1, w - 4, BP_STYLE_BOLD, " Keys: arrows scroll, any other key closes ");
	for (int pass = 0; pass < 2; pass++) {
		int line = 0, top = tui->help_top;

		/* The first pass only counts. */
		if (!pass)
			top = 1 << 20;
		line = help_line(g, x + 2, 2, w - 4, top, h - 2, line, NULL, v->name, BP_STYLE_BOLD);
		for (const struct bp_tui_help *p = v->help; p && p->keys; p++)
			line =
			    help_line(g, x + 2, 2, w - 4, top, h - 2, line, p->keys, p->text, BP_STYLE_TEXT);
		line = help_line(g, x + 2, 2, w - 4, top, h - 2, line, NULL, "", BP_STYLE_TEXT);
		line = help_line(g, x + 2, 2, w - 4, top, h - 2, line, NULL, "Everywhere", BP_STYLE_BOLD);
		for (const struct bp_tui_help *p = common_help; p->keys; p++)
			line =
			    help_line(g, x + 2, 2, w - 4, top, h - 2, line, p->keys, p->text, BP_STYLE_TEXT);
		lines = line;
		if (!pass) {
			int most = lines > h - 2 ? lines - (h - 2) : 0;

			if (tui->help_top > most)
				tui->help_top = most;
		}
	}
	if (lines > h - 2)
		bp_grid_printf(g, x + w - 14, h, 12, BP_STYLE_DIM, " %d-%d/%d ", tui->help_top + 1,
			       tui->help_top + h - 2 < lines ? tui->help_top + h - 2 : lines, lines);
}

bool bp_frame_help_key(struct bp_tui *tui, const struct bp_key *key)
{
	switch (key->code) {
	case BP_KEY_UP:
	case BP_KEY_WHEEL_UP:
	case 'k':
		tui->help_top -= tui->help_top > 0;
		return true;
	case BP_KEY_DOWN:
	case BP_KEY_WHEEL_DOWN:
	case 'j':
		tui->help_top++;
		return true;
	case BP_KEY_PAGE_UP:
		tui->help_top = tui->help_top > 10 ? tui->help_top - 10 : 0;
		return true;
	case BP_KEY_PAGE_DOWN:
		tui->help_top += 10;
		return true;
	default:
		return false;
	}
}

/* ---- the lines ---- */

/* Where the tab of view @i begins and what it says; with too little room only the one shown has its name. */
static int tab(const struct bp_tui *tui, unsigned i, int x, bool full, char *buf, size_t size)
{
	const struct bp_tui_view *v = bp_tui_views[i];

	snprintf(buf, size, full || i == tui->view ? "%c %s " : "%c ", v->digit, v->name);
	return x + (int)strlen(buf);
}

static bool tabs_fit(const struct bp_tui *tui)
{
	char buf[64];
	int x = 1;

	for (unsigned i = 0; i < bp_tui_n_views; i++)
		x = tab(tui, i, x, true, buf, sizeof(buf));
	return x + 9 <= (int)tui->w;
}

int bp_frame_tab_at(const struct bp_tui *tui, int at)
{
	bool full = tabs_fit(tui);
	char buf[64];
	int x = 1;

	for (unsigned i = 0; i < bp_tui_n_views; i++) {
		x = tab(tui, i, x, full, buf, sizeof(buf));
		if (at < x)
			return (int)i;
	}
	return -1;
}

static void draw_tabs(struct bp_tui *tui, struct bp_grid *g)
{
	bool full = tabs_fit(tui);
	const char *path = bp_trace_path(tui->trace), *slash = strrchr(path, '/');
	char buf[64];
	int x = 1, left;

	bp_grid_fill(g, 0, 0, (int)g->w, ' ', BP_STYLE_BAR);
	for (unsigned i = 0; i < bp_tui_n_views; i++) {
		int next = tab(tui, i, x, full, buf, sizeof(buf));

		bp_grid_text(g, x, 0, next - x, BP_STYLE_BAR, buf);
		/* Without colours the brackets are all there is. */
		if (i == tui->view) {
			bp_grid_style(g, x - 1, 0, next - x + 1, BP_STYLE_CURSOR);
			bp_grid_put(g, x - 1, 0, '[', BP_STYLE_BAR | BP_STYLE_CURSOR);
			bp_grid_put(g, next - 1, 0, ']', BP_STYLE_BAR | BP_STYLE_CURSOR);
		}
		x = next;
	}
	left = (int)g->w - x - 9;
	if (left > 4) {
		const char *name = slash ? slash + 1 : path;
		int width = bp_grid_text_width(g, name, strlen(name));

		width = width > left ? left : width;
		bp_grid_text(g, (int)g->w - 9 - width, 0, width, BP_STYLE_BAR, name);
	}
	bp_grid_text(g, (int)g->w - 8, 0, 8, BP_STYLE_BAR, "F1 help");
}

static int part(struct bp_grid *g, int x, unsigned style, const char *text)
{
	int room = (int)g->w - x;

	/* What does not fit is left out, not cut. */
	if (bp_grid_text_width(g, text, strlen(text)) + 2 > room)
		return x;
	return x + bp_grid_text(g, x, (int)g->h - 2, room, style, text) + 2;
}

static void draw_status(struct bp_tui *tui, struct bp_grid *g)
{
	const struct bp_trace_damage *d = bp_trace_damage(tui->trace);
	int x = 1, y = (int)g->h - 2;
	char buf[320], pos[BP_POS_MAX], ns[BP_UNITS_MAX];
	uint64_t from, to;
	size_t done, total;

	if (tui->prompt) {
		x += bp_grid_text(g, x, y, (int)g->w - x - 2, BP_STYLE_KEY, tui->prompt_label);
		x += bp_grid_text(g, x, y, (int)g->w - x - 1, BP_STYLE_TEXT, tui->input);
		bp_grid_put(g, x, y, ' ', BP_STYLE_TEXT | BP_STYLE_CURSOR);
		return;
	}
	if (tui->message[0]) {
		bp_grid_text(g, x, y, (int)g->w - 2, tui->message_warns ? BP_STYLE_WARN : BP_STYLE_BOLD,
			     tui->message);
		return;
	}
	if (tui->live)
		x = part(g, x, BP_STYLE_WARN, "recording");
	bp_index_progress(tui->index, &done, &total);
	if (done < total) {
		snprintf(buf, sizeof(buf), "index %zu%%", done * 100 / total);
		x = part(g, x, BP_STYLE_WARN, buf);
	}
	snprintf(buf, sizeof(buf), "%s %s", tui->clock == BP_CLOCK_TIME ? "time" : "insns",
		 bp_tui_pos_text(tui, bp_tui_pos(tui, tui->cursor_ns),
				 (tui->window.to - tui->window.from) / (tui->w ? tui->w : 1), pos));
	x = part(g, x, BP_STYLE_BOLD, buf);
	if (bp_tui_range(tui, &from, &to)) {
		snprintf(buf, sizeof(buf), "A..B %s", bp_units_ns(ns, (int64_t)(to - from)));
		x = part(g, x, BP_STYLE_MARK, buf);
	}
	if (tui->filter_text) {
		snprintf(buf, sizeof(buf), "filter %.200s", tui->filter_text);
		x = part(g, x, BP_STYLE_MATCH, buf);
	}
	if (tui->search.text) {
		snprintf(buf, sizeof(buf), "/%.200s: %zu function%s", tui->search.text, tui->search.n_rows,
			 tui->search.n_rows == 1 ? "" : "s");
		x = part(g, x, BP_STYLE_MATCH, buf);
	}
	if (tui->selected != BP_NO_ROW) {
		char name[BP_ROW_NAME_MAX];

		snprintf(buf, sizeof(buf), "selected %.200s",
			 bp_row_name(&tui->a->rows, tui->selected, name));
		x = part(g, x, BP_STYLE_TEXT, buf);
	}
	if ((d->unfinished && !tui->live) || d->bad_chunks || d->missing_chunks)
		part(g, x, BP_STYLE_WARN, "recording is not whole");
}

/* Words separated by two blanks; as many as fit. The first word of each is a key. */
static void draw_hints(struct bp_tui *tui, struct bp_grid *g)
{
	const char *p = bp_tui_views[tui->view]->hints;
	int x = 1, y = (int)g->h - 1;

	if (tui->prompt)
		p = tui->prompt == BP_PROMPT_COMMAND ? "Enter run  Up Down choose  Esc leave"
						     : "Enter take it  Ctrl-U clear  Esc leave";
	while (p && *p) {
		const char *end = strstr(p, "  "), *text;
		size_t len = end ? (size_t)(end - p) : strlen(p);

		if (x + (int)len >= (int)g->w)
			break;
		text = p + len;
		/* Keys are up to the last blank before the description, which is one or more lower-case
		 * words. */
		for (size_t i = 0; i + 2 < len; i++) {
			if (p[i] == ' ' && p[i + 2] != ' ') {
				text = p + i;
				break;
			}
		}
		x += bp_grid_textn(g, x, y, (int)g->w - x, BP_STYLE_KEY, p, (size_t)(text - p));
		x += bp_grid_textn(g, x, y, (int)g->w - x, BP_STYLE_DIM, text, (size_t)(p + len - text)) + 2;
		p = end ? end + 2 : NULL;
	}
}

void bp_frame_draw(struct bp_tui *tui, struct bp_grid *g)
{
	draw_tabs(tui, g);
	draw_status(tui, g);
	draw_hints(tui, g);
	if (tui->prompt == BP_PROMPT_COMMAND)
		draw_palette(tui, g);
	if (tui->help)
		draw_help(tui, g);
}
