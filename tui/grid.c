// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tui/grid.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define MAX_WIDTH 2048
#define MAX_HEIGHT 1024

struct bp_err *bp_grid_resize(struct bp_grid *g, unsigned w, unsigned h)
{
	struct bp_grid_cell *cells;

	w = w > MAX_WIDTH ? MAX_WIDTH : w;
	h = h > MAX_HEIGHT ? MAX_HEIGHT : h;
	cells = calloc((size_t)w * h + 1, sizeof(*cells));
	if (!cells)
		return bp_err_nomem();
	free(g->cells);
	g->cells = cells;
	g->w = w;
	g->h = h;
	bp_grid_clear(g);
	return NULL;
}

void bp_grid_deinit(struct bp_grid *g)
{
	free(g->cells);
	memset(g, 0, sizeof(*g));
}

void bp_grid_clear(struct bp_grid *g)
{
	for (size_t i = 0; i < (size_t)g->w * g->h; i++)
		g->cells[i] = (struct bp_grid_cell){.ch = ' ', .style = BP_STYLE_TEXT};
}

static struct bp_grid_cell *at(const struct bp_grid *g, int x, int y)
{
	return x < 0 || y < 0 || x >= (int)g->w || y >= (int)g->h ? NULL
								  : &g->cells[(size_t)y * g->w + (size_t)x];
}

/* Half of a wide character that loses its other half becomes a blank. */
static void set(struct bp_grid *g, int x, int y, uint32_t ch, unsigned style)
{
	struct bp_grid_cell *c = at(g, x, y), *left, *right;

	if (!c)
		return;
	left = at(g, x - 1, y);
	right = at(g, x + 1, y);
	if (!c->ch && ch && left)
		left->ch = ' ';
	if (c->ch && right && !right->ch)
		right->ch = ' ';
	c->ch = ch;
	c->style = (uint16_t)style;
}

void bp_grid_put(struct bp_grid *g, int x, int y, uint32_t ch, unsigned style)
{
	set(g, x, y, ch, style);
}

void bp_grid_fill(struct bp_grid *g, int x, int y, int n, uint32_t ch, unsigned style)
{
	for (int i = 0; i < n && x + i < (int)g->w; i++)
		set(g, x + i, y, ch, style);
}

void bp_grid_style(struct bp_grid *g, int x, int y, int n, unsigned bits)
{
	for (int i = 0; i < n; i++) {
		struct bp_grid_cell *c = at(g, x + i, y);

		if (c)
			c->style |= (uint16_t)bits;
	}
}

/* Characters that change how text around them is shown, or that are no characters. */
static bool is_harmful(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
	       (c >= 0xd800 && c <= 0xdfff) || c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) ||
	       (c & 0xfffe) == 0xfffe || c >= 0xe0000;
}

/* The character at the start of @s and its bytes; false when it is not valid UTF-8 (then one byte). */
static bool decode(const unsigned char *s, size_t len, uint32_t *ret, size_t *bytes)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = s[0] < 0x80                   ? 1
		   : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
		   : (s[0] & 0xf0) == 0xe0       ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
						 : 0;
	uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);

	*bytes = 1;
	*ret = s[0];
	if (!n || n > len)
		return false;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return false;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (n > 1 && c < least[n])
		return false;
	*bytes = n;
	*ret = c;
	return true;
}

/* The next piece to show: a character, or an escape in @esc. Its width in cells; 0: it joins the one before,
 * skip. */
static int piece(const struct bp_grid *g, const unsigned char *s, size_t len, size_t *bytes, uint32_t *ch,
		 char esc[16])
{
	bool ok = decode(s, len, ch, bytes);
	int width;

	*esc = 0;
	if (ok && *ch >= 0x20 && *ch < 0x7f)
		return 1;
	if (ok && *ch == '\t') {
		*ch = ' ';
		return 1;
	}
	width = ok && !is_harmful(*ch) && !g->ascii ? wcwidth((wchar_t)*ch) : -1;
	if (width >= 0)
		return width;
	if (ok && *ch >= 0xa0 && !is_harmful(*ch))
		return snprintf(esc, 16, "?");
	*bytes = 1;
	return snprintf(esc, 16, "\\x%02x", s[0]);
}

int bp_grid_text_width(const struct bp_grid *g, const char *s, size_t len)
{
	int width = 0;

	for (size_t i = 0, bytes; i < len && width < 1 << 20; i += bytes) {
		uint32_t ch;
		char esc[16];

		width += piece(g, (const unsigned char *)s + i, len - i, &bytes, &ch, esc);
	}
	return width;
}

int bp_grid_textn(struct bp_grid *g, int x, int y, int width, unsigned style, const char *s, size_t len)
{
	int used = 0, room;

	if (width > (int)g->w - x)
		width = (int)g->w - x;
	if (width <= 0)
		return 0;
	/* No more than can matter is measured: a cell has at most a few bytes. */
	room = bp_grid_text_width(g, s, len > (size_t)width * 8 + 64 ? (size_t)width * 8 + 64 : len) > width
		   ? width - 1
		   : width;
	for (size_t i = 0, bytes; i < len; i += bytes) {
		uint32_t ch;
		char esc[16];
		int n = piece(g, (const unsigned char *)s + i, len - i, &bytes, &ch, esc);

		if (used + n > room) {
			set(g, x + used, y, g->ascii ? '~' : 0x2026, style);
			return used + 1;
		}
		if (*esc) {
			for (int k = 0; k < n; k++)
				set(g, x + used + k, y, (unsigned char)esc[k], style);
		} else if (n) {
			set(g, x + used, y, ch, style);
			if (n == 2)
				set(g, x + used + 1, y, 0, style);
		}
		used += n;
	}
	return used;
}

int bp_grid_text(struct bp_grid *g, int x, int y, int width, unsigned style, const char *s)
{
	return bp_grid_textn(g, x, y, width, style, s, strlen(s));
}

int bp_grid_printf(struct bp_grid *g, int x, int y, int width, unsigned style, const char *fmt, ...)
{
	char buf[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	return bp_grid_text(g, x, y, width, style, buf);
}

static void add_utf8(struct bp_strbuf *sb, uint32_t c)
{
	if (c < 0x80) {
		bp_strbuf_addc(sb, (char)c);
	} else if (c < 0x800) {
		bp_strbuf_addc(sb, (char)(0xc0 | c >> 6));
		bp_strbuf_addc(sb, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		bp_strbuf_addc(sb, (char)(0xe0 | c >> 12));
		bp_strbuf_addc(sb, (char)(0x80 | (c >> 6 & 0x3f)));
		bp_strbuf_addc(sb, (char)(0x80 | (c & 0x3f)));
	} else {
		bp_strbuf_addc(sb, (char)(0xf0 | c >> 18));
		bp_strbuf_addc(sb, (char)(0x80 | (c >> 12 & 0x3f)));
		bp_strbuf_addc(sb, (char)(0x80 | (c >> 6 & 0x3f)));
		bp_strbuf_addc(sb, (char)(0x80 | (c & 0x3f)));
	}
}

void bp_grid_dump(const struct bp_grid *g, struct bp_strbuf *sb)
{
	for (unsigned y = 0; y < g->h; y++) {
		const struct bp_grid_cell *row = g->cells + (size_t)y * g->w;
		unsigned n = g->w;

		while (n && row[n - 1].ch == ' ')
			n--;
		for (unsigned x = 0; x < n; x++) {
			if (row[x].ch)
				add_utf8(sb, row[x].ch);
		}
		bp_strbuf_addc(sb, '\n');
	}
}

uint32_t bp_grid_level(const struct bp_grid *g, double part)
{
	static const char ascii[] = ".:-=+*#@";
	int level;

	if (!(part > 0))
		return ' ';
	level = (int)(part * 8 + 0.5);
	level = level < 1 ? 1 : level > 8 ? 8 : level;
	return g->ascii ? (unsigned char)ascii[level - 1] : 0x2580u + (uint32_t)level;
}
