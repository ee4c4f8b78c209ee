// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The terminal user interface without a terminal: two bytes of size, a line of keys, and a recording in its
 * text form. Whatever comes: every cell of the screen is one that a terminal can be given.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tui/tui.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct bp_grid *g)
{
	for (size_t i = 0; i < (size_t)g->w * g->h; i++) {
		uint32_t c = g->cells[i].ch;

		if ((c && c < 0x20) || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) ||
		    (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c > 0x10ffff ||
		    (g->ascii && c > 0x7e))
			abort();
	}
}

/* Each key is what the program would get, from a byte: characters are themselves, the others the rest. */
static void drive(struct bp_tui *tui, struct bp_grid *g, const uint8_t *keys, size_t n)
{
	struct bp_err *err = bp_tui_draw(tui, g);

	for (size_t i = 0; i < n && i < 64 && !err && !tui->quit; i++) {
		struct bp_key key = {.code = keys[i]};

		if (keys[i] >= 0x80) {
			key.code = BP_KEY_UP + (keys[i] & 0x1f);
			key.x = i + 1 < n ? keys[i + 1] : 0;
			key.y = i + 2 < n ? keys[i + 2] % 64 : 0;
		}
		err = bp_tui_key(tui, &key);
		check(g);
		if (!err)
			err = bp_tui_draw(tui, g);
	}
	bp_err_ignore(err);
	check(g);
}

static void show(const char *recording, const uint8_t *data, const uint8_t *keys, size_t n)
{
	struct bp_tui_options opt = {.ascii = data[0] & 1, .plain = data[1] & 1};
	struct bp_trace *trace = NULL;
	struct bp_tui *tui = NULL;
	struct bp_grid g = {0};
	struct bp_err *err = bp_trace_open(recording, &trace);

	if (!err)
		err = bp_grid_resize(&g, data[0], data[1] % 80);
	opt.trace = trace;
	opt.baseline = trace;
	if (!err)
		err = bp_tui_create(&opt, &tui);
	if (!err)
		drive(tui, &g, keys, n);
	bp_err_ignore(err);
	bp_tui_destroy(tui);
	bp_trace_destroy(trace);
	bp_grid_deinit(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char recording[64];
	const uint8_t *end;
	char text[64];
	int fd;

	if (!*recording) {
		setlocale(LC_CTYPE, "C.UTF-8");
		snprintf(recording, sizeof(recording), "/tmp/bootprof-fuzz-tui.%d", (int)getpid());
	}
	end = size > 2 ? memchr(data + 2, '\n', size - 2) : NULL;
	fd = end ? memfd_create("text", 0) : -1;
	if (fd < 0)
		return 0;
	if (write(fd, end + 1, size - (size_t)(end + 1 - data)) ==
	    (ssize_t)(size - (size_t)(end + 1 - data))) {
		struct bp_err *err;

		snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
		unlink(recording);
		err = bp_trace_text_read(text, recording);
		if (!err)
			show(recording, data, data + 2, (size_t)(end - data) - 2);
		bp_err_ignore(err);
		unlink(recording);
	}
	close(fd);
	return 0;
}
