// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cmd/output.h"

#include <errno.h>
#include <langinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cmd/pager.h"
#include "core/cleanup.h"

struct bp_output {
	struct bp_render render;
	FILE *file; /* stdout, or the memory below */
	bool paged;
	char *text; /* of open_memstream() */
	size_t len;
	unsigned lines; /* of the terminal */
};

/* Whether @word is one of the words between '|' in @list. */
static bool listed(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; *p;) {
		size_t n = strcspn(p, "|");

		if (n == len && !strncmp(p, word, n))
			return true;
		p += n + (p[n] == '|');
	}
	return false;
}

struct bp_err *bp_output_option(struct bp_output_how *how, int code, const char *arg, const char *formats)
{
	switch (code) {
	case BP_OPT_FORMAT:
		if (!listed(formats, arg))
			return bp_err_new(BP_EUSAGE, "--format=%s: must be one of %s", arg, formats);
		how->format = !strcmp(arg, "json")  ? BP_FORMAT_JSON
			      : !strcmp(arg, "csv") ? BP_FORMAT_CSV
						    : BP_FORMAT_TEXT;
		return NULL;
	case BP_OPT_COLOR:
		if (!strcmp(arg, "auto"))
			how->color = BP_COLOR_AUTO;
		else if (!strcmp(arg, "always"))
			how->color = BP_COLOR_ALWAYS;
		else if (!strcmp(arg, "never"))
			how->color = BP_COLOR_NEVER;
		else
			return bp_err_new(BP_EUSAGE, "--color=%s: must be one of auto|always|never", arg);
		return NULL;
	case BP_OPT_NO_PAGER:
		how->no_pager = true;
		return NULL;
	default:
		return bp_err_new(BP_EUSAGE, "wrong usage; --help lists the options");
	}
}

bool bp_output_utf8(void)
{
	return !strcasecmp(nl_langinfo(CODESET), "UTF-8");
}

/* Source for NO_COLOR: no-color.org, "when present and not an empty string". */
static bool want_color(enum bp_color color, bool tty)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	if (color != BP_COLOR_AUTO)
		return color == BP_COLOR_ALWAYS;
	return tty && !(no_color && *no_color) && term && *term && strcmp(term, "dumb");
}

/* A positive number from the environment, 0 if there is none. */
static unsigned env_number(const char *name)
{
	const char *s = getenv(name);
	char *end;
	long v;

	if (!s || !*s)
		return 0;
	v = strtol(s, &end, 10);
	return *end || v < 0 || v > 100000 ? 0 : (unsigned)v;
}

struct bp_err *bp_output_open(const struct bp_output_how *how, struct bp_output **ret)
{
	bp_autofree struct bp_output *out = calloc(1, sizeof(*out));
	bool tty = isatty(STDOUT_FILENO);
	struct winsize size = {0};

	if (!out)
		return bp_err_nomem();
	signal(SIGPIPE, SIG_IGN);
	out->render.format = how->format;
	out->render.max_rows = how->max_rows;
	out->render.utf8 = bp_output_utf8();
	out->render.color = want_color(how->color, tty);
	if (tty)
		ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	out->render.width = size.ws_col ? size.ws_col : env_number("COLUMNS");
	out->lines = size.ws_row ? size.ws_row : env_number("LINES");
	out->file = stdout;
	if (tty && how->format == BP_FORMAT_TEXT && !how->no_pager && out->lines) {
		out->file = open_memstream(&out->text, &out->len);
		if (!out->file)
			return bp_err_os(errno, "cannot prepare the output");
		out->paged = true;
	}
	*ret = bp_steal(out);
	return NULL;
}

FILE *bp_output_file(struct bp_output *out)
{
	return out->file;
}

const struct bp_render *bp_output_render(const struct bp_output *out)
{
	return &out->render;
}

static bool is_long(const struct bp_output *out)
{
	size_t lines = 0;
	const char *p = out->text, *end = out->text + out->len;

	while (lines < out->lines && (p = memchr(p, '\n', (size_t)(end - p)))) {
		lines++;
		p++;
	}
	return lines >= out->lines;
}

struct bp_err *bp_output_close(struct bp_output *out)
{
	struct bp_err *err = NULL;
	bool shown = false;

	if (out->paged) {
		if (fclose(out->file)) {
			err = bp_err_nomem();
		} else {
			const char *pager = is_long(out) ? bp_pager_command() : NULL;

			if (pager)
				err = bp_pager_show(pager, out->text, out->len, &shown);
			if (!err && !shown)
				fwrite(out->text, 1, out->len, stdout);
		}
	}
	errno = 0;
	if (!err && fflush(stdout) && errno != EPIPE)
		err = bp_err_os(errno, "cannot write the output");
	free(out->text);
	free(out);
	return err;
}

struct bp_err *bp_output_report(const struct bp_output_how *how, const struct bp_report *report)
{
	struct bp_output *out;
	struct bp_err *err = bp_output_open(how, &out), *err2;

	if (err)
		return err;
	err = bp_report_render(report, &out->render, out->file);
	err2 = bp_output_close(out);
	if (err) {
		bp_err_free(err2);
		return err;
	}
	return err2;
}
