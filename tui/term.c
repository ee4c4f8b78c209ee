// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _XOPEN_SOURCE_EXTENDED
#define _XOPEN_SOURCE_EXTENDED 1
#endif
#include "tui/term.h"

#include <errno.h>
#include <langinfo.h>
#include <ncursesw/curses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DOUBLE_MS 400
/* Of those that come together, curses keeps eight. */
#define MOUSE_EVENTS 8

struct bp_term {
	SCREEN *screen;
	FILE *out, *in;
	bool utf8;
	int colors;
	struct bp_grid shown; /* what the terminal shows */
	int pair_of[4][64];   /* by way of showing and colour */
	int next_pair;
	bool pressed;
	int64_t press_ms; /* the last press of the button, and where */
	int press_x, press_y;
	MEVENT mouse[MOUSE_EVENTS]; /* what the mouse did and was not handed out yet, the newest first */
	unsigned n_mouse;
};

/*
 * Colours that people with any kind of colour blindness tell apart (after Okabe and Ito): by brightness as
 * well as by hue. 256 and more colours: two shades of each; 8 and 16: the nearest.
 */
static const struct {
	short rich[2]; /* of 256 */
	short basic;   /* of 8; -1: the default */
} colors[BP_STYLE_KINDS] = {
    [BP_STYLE_TEXT] = {{-1, -1}, -1},
    [BP_STYLE_DIM] = {{245, 245}, -1},
    [BP_STYLE_BOLD] = {{-1, -1}, -1},
    [BP_STYLE_BAR] = {{252, 252}, COLOR_WHITE},
    [BP_STYLE_KEY] = {{222, 222}, COLOR_YELLOW},
    [BP_STYLE_WARN] = {{208, 208}, COLOR_RED},
    [BP_STYLE_MATCH] = {{226, 227}, COLOR_YELLOW},
    [BP_STYLE_MARK] = {{226, 226}, COLOR_YELLOW},
    [BP_STYLE_KERNEL] = {{74, 110}, COLOR_BLUE},
    [BP_STYLE_MODULE] = {{79, 115}, COLOR_CYAN},
    [BP_STYLE_USER] = {{214, 179}, COLOR_YELLOW},
    [BP_STYLE_FIRMWARE] = {{175, 139}, COLOR_MAGENTA},
    [BP_STYLE_IRQ] = {{203, 167}, COLOR_RED},
    [BP_STYLE_SYSCALL] = {{114, 150}, COLOR_GREEN},
    [BP_STYLE_IDLE] = {{240, 238}, -1},
    [BP_STYLE_OTHER] = {{250, 246}, COLOR_WHITE},
};

bool bp_term_utf8(const struct bp_term *t)
{
	return t->utf8;
}

int bp_term_colors(const struct bp_term *t)
{
	return t->colors;
}

void bp_term_size(const struct bp_term *t, unsigned *w, unsigned *h)
{
	int y, x;

	(void)t;
	getmaxyx(stdscr, y, x);
	*w = x > 0 ? (unsigned)x : 1;
	*h = y > 0 ? (unsigned)y : 1;
}

static int number_of_colors(enum bp_term_color color)
{
	const char *no = getenv("NO_COLOR");

	if (color == BP_TERM_COLOR_NO || (color == BP_TERM_COLOR_AUTO && no && *no))
		return 0;
	if (!has_colors() || start_color() == ERR)
		return 0;
	use_default_colors();
	return COLORS;
}

/* What terminals send for these keys, whatever TERM says: people have it wrong over ssh and in tmux. */
static void define_keys(void)
{
	static const struct {
		const char *sent;
		int key;
	} keys[] = {
	    {"\033[A", KEY_UP},     {"\033OA", KEY_UP},     {"\033[B", KEY_DOWN},  {"\033OB", KEY_DOWN},
	    {"\033[C", KEY_RIGHT},  {"\033OC", KEY_RIGHT},  {"\033[D", KEY_LEFT},  {"\033OD", KEY_LEFT},
	    {"\033[H", KEY_HOME},   {"\033OH", KEY_HOME},   {"\033[1~", KEY_HOME}, {"\033[7~", KEY_HOME},
	    {"\033[F", KEY_END},    {"\033OF", KEY_END},    {"\033[4~", KEY_END},  {"\033[8~", KEY_END},
	    {"\033[5~", KEY_PPAGE}, {"\033[6~", KEY_NPAGE}, {"\033[3~", KEY_DC},   {"\033[Z", KEY_BTAB},
	    {"\033OP", KEY_F(1)},   {"\033[11~", KEY_F(1)}, {"\033[[A", KEY_F(1)},
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (!key_defined(keys[i].sent))
			define_key(keys[i].sent, keys[i].key);
	}
}

static bool has_mouse_key(void)
{
	const char *s = tigetstr("kmous");

	return s && s != (const char *)-1;
}

struct bp_err *bp_term_open(enum bp_term_color color, struct bp_term **ret)
{
	const char *name = getenv("TERM");
	struct bp_term *t = calloc(1, sizeof(*t));

	if (!t)
		return bp_err_nomem();
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		free(t);
		return bp_err_new(
		    BP_EOS,
		    "standard input and output are not a terminal; --print shows a screen without one");
	}
	t->screen = newterm(NULL, stdout, stdin);
	if (!t->screen) {
		free(t);
		return bp_err_new(BP_EOS, "the terminal \"%s\" is not known here: is TERM right?",
				  name ? name : "");
	}
	t->utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	t->colors = number_of_colors(color);
	t->next_pair = 1;
	raw();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	define_keys();
	set_escdelay(50);
	curs_set(0);
	mouseinterval(0);
	/* Clicks are put together here: curses takes a press and a release that come together for one event.
	 */
	mousemask(BUTTON1_PRESSED | BUTTON1_RELEASED | BUTTON4_PRESSED | BUTTON5_PRESSED | BUTTON_CTRL |
		      REPORT_MOUSE_POSITION,
		  NULL);
	if (has_mouse_key()) {
		/* Also movement with a button held; terminals that do not know it ignore it. */
		fputs("\033[?1002h", stdout);
		fflush(stdout);
	}
	*ret = t;
	return NULL;
}

void bp_term_close(struct bp_term *t)
{
	if (!t)
		return;
	if (has_mouse_key()) {
		fputs("\033[?1002l", stdout);
		fflush(stdout);
	}
	endwin();
	delscreen(t->screen);
	bp_grid_deinit(&t->shown);
	free(t);
}

/* Terminals with direct colours count them as red, green and blue; of the 256 the first 16 stay what they
 * are. */
static int direct(int c)
{
	static const int levels[] = {0, 95, 135, 175, 215, 255};

	if (c < 16)
		return c < 8 ? c : 0;
	if (c >= 232)
		return (8 + 10 * (c - 232)) * 0x010101;
	c -= 16;
	return levels[c / 36] << 16 | levels[c / 6 % 6] << 8 | levels[c % 6];
}

/* A pair for these colours, made when it is first needed. */
static int pair(struct bp_term *t, unsigned way, unsigned kind, int fg, int bg)
{
	int *p = &t->pair_of[way][kind];

	if (!*p) {
		if (t->colors > 256) {
			fg = direct(fg);
			bg = direct(bg);
		}
		if (t->next_pair >= COLOR_PAIRS || t->next_pair >= 256 ||
		    init_extended_pair(t->next_pair, fg, bg) == ERR)
			return 0;
		*p = t->next_pair++;
	}
	return *p;
}

static void attributes(struct bp_term *t, unsigned style, attr_t *attr, int *p)
{
	unsigned kind = style & 31, alt = style & BP_STYLE_ALT ? 1 : 0;
	bool fill = style & BP_STYLE_FILL, reverse = style & BP_STYLE_CURSOR;

	kind = kind < BP_STYLE_KINDS ? kind : BP_STYLE_TEXT;
	*attr = A_NORMAL;
	*p = 0;
	if (kind == BP_STYLE_BOLD || kind == BP_STYLE_WARN || kind == BP_STYLE_MARK)
		*attr |= A_BOLD;
	if (kind == BP_STYLE_DIM && t->colors < 256)
		*attr |= A_DIM;
	if (kind == BP_STYLE_BAR && !t->colors)
		*attr |= A_REVERSE;
	if (style & BP_STYLE_SELECT)
		*attr |= A_BOLD | (fill ? A_UNDERLINE : 0);
	if (t->colors >= 256) {
		short c = colors[kind].rich[alt];

		if (kind == BP_STYLE_BAR)
			*p = pair(t, 0, kind, 255, 237);
		else if (fill)
			*p = pair(t, 2 + alt, kind, kind == BP_STYLE_IDLE ? 250 : 16, c);
		else if (c >= 0)
			*p = pair(t, alt, kind, c, -1);
	} else if (t->colors >= 8) {
		short c = colors[kind].basic;

		if (kind == BP_STYLE_BAR)
			*p = pair(t, 0, kind, COLOR_BLACK, COLOR_WHITE);
		else if (fill && c >= 0)
			*p = pair(t, 2, kind, c == COLOR_BLUE || c == COLOR_RED ? COLOR_WHITE : COLOR_BLACK,
				  c);
		else if (c >= 0)
			*p = pair(t, 0, kind, c, -1);
		if (fill && alt)
			*attr |= A_BOLD;
	} else if (kind == BP_STYLE_MATCH) {
		*attr |= A_BOLD | A_UNDERLINE;
	}
	if (reverse)
		*attr ^= A_REVERSE;
}

void bp_term_show(struct bp_term *t, const struct bp_grid *g)
{
	bool all = t->shown.w != g->w || t->shown.h != g->h || !t->shown.cells;

	if (all) {
		bp_err_ignore(bp_grid_resize(&t->shown, g->w, g->h));
		erase();
	}
	for (unsigned y = 0; y < g->h; y++) {
		const struct bp_grid_cell *row = g->cells + (size_t)y * g->w;
		struct bp_grid_cell *old = t->shown.cells ? t->shown.cells + (size_t)y * g->w : NULL;

		for (unsigned x = 0; x < g->w; x++) {
			wchar_t text[2] = {(wchar_t)row[x].ch, 0};
			attr_t attr;
			cchar_t cell;
			int p;

			if (!all && old && old[x].ch == row[x].ch && old[x].style == row[x].style)
				continue;
			if (old)
				old[x] = row[x];
			if (!row[x].ch)
				continue;
			attributes(t, row[x].style, &attr, &p);
			if (setcchar(&cell, text, attr, (short)p, NULL) == OK)
				mvadd_wch((int)y, (int)x, &cell);
		}
	}
	refresh();
}

static bool is_double(struct bp_term *t, const MEVENT *m)
{
	struct timespec now;
	int64_t ms;
	bool twice;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	twice = ms - t->press_ms < DOUBLE_MS && t->press_x == m->x && t->press_y == m->y;
	/* A third one begins anew. */
	t->press_ms = twice ? 0 : ms;
	t->press_x = m->x;
	t->press_y = m->y;
	return twice;
}

/*
 * What reaches the program together, curses reports as one KEY_MOUSE; getmouse() then gives the events from
 * the newest to the oldest (ncurses lib_mouse.c). All are taken, or a press would be lost behind its release.
 */
static void take_mouse(struct bp_term *t)
{
	while (t->n_mouse < MOUSE_EVENTS && getmouse(&t->mouse[t->n_mouse]) == OK)
		t->n_mouse++;
}

/* The oldest event of the mouse, of which there is one. */
static void mouse_key(struct bp_term *t, struct bp_key *key)
{
	MEVENT m = t->mouse[--t->n_mouse];

	key->code = BP_KEY_NONE;
	key->x = m.x;
	key->y = m.y;
	if (m.bstate & BUTTON4_PRESSED)
		key->code = m.bstate & BUTTON_CTRL ? BP_KEY_CTRL_WHEEL_UP : BP_KEY_WHEEL_UP;
	else if (m.bstate & BUTTON5_PRESSED)
		key->code = m.bstate & BUTTON_CTRL ? BP_KEY_CTRL_WHEEL_DOWN : BP_KEY_WHEEL_DOWN;
	else if (m.bstate & BUTTON1_PRESSED)
		key->code = is_double(t, &m) ? BP_KEY_DOUBLE : BP_KEY_PRESS;
	else if (m.bstate & BUTTON1_RELEASED)
		key->code = BP_KEY_RELEASE;
	else if (m.bstate & REPORT_MOUSE_POSITION && t->pressed)
		key->code = BP_KEY_DRAG;
	if (key->code == BP_KEY_PRESS || key->code == BP_KEY_DOUBLE)
		t->pressed = true;
	if (key->code == BP_KEY_RELEASE)
		t->pressed = false;
}

bool bp_term_key(struct bp_term *t, int timeout_ms, struct bp_key *key)
{
	static const struct {
		int curses;
		uint32_t code;
	} keys[] = {
	    {KEY_UP, BP_KEY_UP},
	    {KEY_DOWN, BP_KEY_DOWN},
	    {KEY_LEFT, BP_KEY_LEFT},
	    {KEY_RIGHT, BP_KEY_RIGHT},
	    {KEY_HOME, BP_KEY_HOME},
	    {KEY_END, BP_KEY_END},
	    {KEY_PPAGE, BP_KEY_PAGE_UP},
	    {KEY_NPAGE, BP_KEY_PAGE_DOWN},
	    {KEY_DC, BP_KEY_DELETE},
	    {KEY_BTAB, BP_KEY_BACKTAB},
	    {KEY_F(1), BP_KEY_F1},
	    {KEY_RESIZE, BP_KEY_RESIZE},
	    {KEY_BACKSPACE, BP_KEY_BACKSPACE},
	    {KEY_ENTER, BP_KEY_ENTER},
	};
	wint_t c;
	int what;

	*key = (struct bp_key){0};
	if (t->n_mouse) {
		mouse_key(t, key);
		return true;
	}
	timeout(timeout_ms);
	errno = 0;
	what = get_wch(&c);
	if (what == ERR) {
		/* Nothing came, or nothing will ever. */
		return errno == 0 || errno == EINTR || errno == EAGAIN;
	}
	if (what == KEY_CODE_YES) {
		if (c == KEY_MOUSE) {
			take_mouse(t);
			if (t->n_mouse)
				mouse_key(t, key);
			return true;
		}
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			if ((int)c == keys[i].curses)
				key->code = keys[i].code;
		}
		return true;
	}
	key->code = c == '\r' ? (uint32_t)BP_KEY_ENTER : c;
	if (c == 12) /* Ctrl-L: the screen is not what was written */
		clearok(curscr, TRUE);
	return true;
}
