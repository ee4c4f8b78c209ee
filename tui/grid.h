/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A screen as a grid of cells, composed without a terminal: tui/term.c shows it, tests read it as text.
 * All text goes in through bp_grid_text(), which lets nothing through that could reach a terminal as more
 * than a picture of a character: controls, bidirectional controls and invalid UTF-8 are shown as \xNN.
 */
#ifndef BP_TUI_GRID_H
#define BP_TUI_GRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/strbuf.h"

/*
 * What a cell means; colours are the terminal's business. The kinds of code have two shades each
 * (BP_STYLE_ALT), so that neighbours are told apart, and each exists as text and as a filled bar
 * (BP_STYLE_FILL).
 */
enum bp_style {
	BP_STYLE_TEXT,
	BP_STYLE_DIM,
	BP_STYLE_BOLD,
	BP_STYLE_BAR, /* the line at the top, and headings of tables */
	BP_STYLE_KEY, /* a key in a line of help */
	BP_STYLE_WARN,
	BP_STYLE_MATCH, /* what a search found */
	BP_STYLE_MARK,  /* marks, A and B */
	BP_STYLE_KERNEL,
	BP_STYLE_MODULE,
	BP_STYLE_USER,
	BP_STYLE_FIRMWARE,
	BP_STYLE_IRQ,
	BP_STYLE_SYSCALL,
	BP_STYLE_IDLE,
	BP_STYLE_OTHER,
	BP_STYLE_KINDS,
	/* may be added */
	BP_STYLE_ALT = 32,
	BP_STYLE_FILL = 64,
	BP_STYLE_CURSOR = 128, /* shown reversed */
	BP_STYLE_SELECT = 256, /* the row or the column of the cursor */
};

struct bp_grid_cell {
	uint32_t ch; /* Unicode; 0: the right half of the wide character before it */
	uint16_t style;
};

struct bp_grid {
	unsigned w, h;
	bool ascii; /* the terminal has nothing else */
	bool plain; /* no colours: what is filled must be seen by its characters */
	struct bp_grid_cell *cells;
};

/** bp_grid_resize() - an empty grid of that size (at most 2048 x 1024). Errors: BP_ENOMEM */
struct bp_err *bp_grid_resize(struct bp_grid *g, unsigned w, unsigned h) BP_MUST_CHECK;
void bp_grid_deinit(struct bp_grid *g);

static inline void bp_grid_deinitp(struct bp_grid *g)
{
	bp_grid_deinit(g);
}

void bp_grid_clear(struct bp_grid *g);

/** bp_grid_put() - one character of ours (never a guest's) of one cell; outside of the grid nothing happens
 */
void bp_grid_put(struct bp_grid *g, int x, int y, uint32_t ch, unsigned style);

/** bp_grid_fill() - @n times the same */
void bp_grid_fill(struct bp_grid *g, int x, int y, int n, uint32_t ch, unsigned style);

/**
 * bp_grid_text() - untrusted text, cut at @width cells (and at the grid's edges)
 * Text that does not fit ends in "~" ("…" with UTF-8). Returns the cells used.
 */
int bp_grid_text(struct bp_grid *g, int x, int y, int width, unsigned style, const char *s);
int bp_grid_textn(struct bp_grid *g, int x, int y, int width, unsigned style, const char *s, size_t len);

/** bp_grid_printf() - the same of a formatted text; at most 1023 bytes */
int bp_grid_printf(struct bp_grid *g, int x, int y, int width, unsigned style, const char *fmt, ...)
    BP_PRINTF(6, 7);

/** bp_grid_text_width() - cells that the text would take, if nothing was cut */
int bp_grid_text_width(const struct bp_grid *g, const char *s, size_t len);

/** bp_grid_style() - add bits to the style of @n cells */
void bp_grid_style(struct bp_grid *g, int x, int y, int n, unsigned bits);

/** bp_grid_dump() - as lines of UTF-8, blanks at their ends left out */
void bp_grid_dump(const struct bp_grid *g, struct bp_strbuf *sb);

/** bp_grid_level() - a character for @part (0 to 1) of a cell's height; never blank when @part is above 0 */
uint32_t bp_grid_level(const struct bp_grid *g, double part);

#endif
