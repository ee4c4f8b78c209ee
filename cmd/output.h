/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands that show something have in common: --format, --color, --no-pager, and where the output
 *goes.
 *
 *	static const struct option options[] = { ..., BP_OUTPUT_OPTIONS, { 0 } };
 *	...
 *	default:
 *		err = bp_output_option(&how, c, optarg, "text|json|csv");
 *	...
 *	return bp_output_report(&how, report);
 */
#ifndef BP_CMD_OUTPUT_H
#define BP_CMD_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include "core/err.h"
#include "core/report.h"

enum bp_color { BP_COLOR_AUTO, BP_COLOR_ALWAYS, BP_COLOR_NEVER };

/* What the options say; all zero is the default. */
struct bp_output_how {
	enum bp_format format;
	enum bp_color color;
	bool no_pager;
	size_t max_rows; /* of each table in text; 0: all. For the command to set. */
};

/* getopt_long codes of the common options, out of the way of the commands' own. */
enum { BP_OPT_FORMAT = 0x10000, BP_OPT_COLOR, BP_OPT_NO_PAGER };

/* clang-format off */
#define BP_OUTPUT_OPTIONS                                        \
	{ "format", required_argument, NULL, BP_OPT_FORMAT },    \
	{ "color", required_argument, NULL, BP_OPT_COLOR },      \
	{ "no-pager", no_argument, NULL, BP_OPT_NO_PAGER }
/* clang-format on */

/* Their lines in --help, but for --format, whose values differ between commands. */
#define BP_OUTPUT_HELP                                                                    \
	"      --color=WHEN         auto (the default: on a terminal), always or never\n" \
	"      --no-pager           do not page, also when the output is longer than the terminal\n"

/**
 * bp_output_option() - handle one of BP_OUTPUT_OPTIONS
 * @code: what getopt_long returned
 * @formats: accepted values of --format, "text|json|csv" or fewer
 * Errors: BP_EUSAGE, also for a @code that is none of the common options (getopt has printed why).
 */
struct bp_err *bp_output_option(struct bp_output_how *how, int code, const char *arg,
				const char *formats) BP_MUST_CHECK;

struct bp_output;

/**
 * bp_output_open() - prepare to write to standard output
 * Text for a terminal is kept until bp_output_close(), which pages it if it is too long. From here on SIGPIPE
 * is ignored.
 */
struct bp_err *bp_output_open(const struct bp_output_how *how, struct bp_output **ret) BP_MUST_CHECK;

/** bp_output_file() - write here; borrowed */
FILE *bp_output_file(struct bp_output *out);

/** bp_output_render() - how to render for this output: format, width, colours, UTF-8; borrowed */
const struct bp_render *bp_output_render(const struct bp_output *out);

/** bp_output_close() - write out, wait for the pager; @out is freed also on error. A reader that went away is
 * fine. */
struct bp_err *bp_output_close(struct bp_output *out) BP_MUST_CHECK;

/** bp_output_report() - open, render @report, close */
struct bp_err *bp_output_report(const struct bp_output_how *how,
				const struct bp_report *report) BP_MUST_CHECK;

/** bp_output_utf8() - whether the locale's character set is UTF-8 */
bool bp_output_utf8(void);

#endif
