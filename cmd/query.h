/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The options of commands that show views: clock, order, columns, filters.
 *
 *	static const struct option options[] = { ..., BP_QUERY_OPTIONS, BP_OUTPUT_OPTIONS, { 0 } };
 *	... getopt_long(argc, argv, BP_QUERY_SHORT "i:h", options, NULL)
 *	default:
 *		if (bp_query_is_option(c))
 *			err = bp_query_option(&query, c, optarg);
 */
#ifndef BP_CMD_QUERY_H
#define BP_CMD_QUERY_H

#include <stdbool.h>

#include "analyzers/query.h"
#include "core/err.h"

/* getopt_long codes, out of the way of the commands' own. */
enum {
	BP_OPT_MODULE = 0x20000,
	BP_OPT_PROCESS,
	BP_OPT_VCPU,
	BP_OPT_FROM,
	BP_OPT_TO,
	BP_OPT_PHASE,
	BP_OPT_MIN_PERCENT,
};

#define BP_QUERY_SHORT "C:s:f:F:N:t:D:"

/* clang-format off */
#define BP_QUERY_OPTIONS                                             \
	{ "clock", required_argument, NULL, 'C' },                   \
	{ "sort", required_argument, NULL, 's' },                    \
	{ "fields", required_argument, NULL, 'f' },                  \
	{ "function", required_argument, NULL, 'F' },                \
	{ "exclude", required_argument, NULL, 'N' },                 \
	{ "module", required_argument, NULL, BP_OPT_MODULE },        \
	{ "process", required_argument, NULL, BP_OPT_PROCESS },      \
	{ "vcpu", required_argument, NULL, BP_OPT_VCPU },            \
	{ "from", required_argument, NULL, BP_OPT_FROM },            \
	{ "to", required_argument, NULL, BP_OPT_TO },                \
	{ "phase", required_argument, NULL, BP_OPT_PHASE },          \
	{ "time-filter", required_argument, NULL, 't' },             \
	{ "depth", required_argument, NULL, 'D' },                   \
	{ "min-percent", required_argument, NULL, BP_OPT_MIN_PERCENT }
/* clang-format on */

#define BP_QUERY_FILTER_HELP                                                                             \
	"Filters:\n"                                                                                     \
	"  -F, --function PATTERN   only these functions and what they call; may be repeated\n"          \
	"  -N, --exclude PATTERN    not these functions, nor what they call; may be repeated\n"          \
	"      --module PATTERN     only functions of these modules; may be repeated\n"                  \
	"      --process PATTERN    only these processes, by name or number; may be repeated\n"          \
	"      --vcpu LIST          only these vCPUs: 0,2-3\n"                                           \
	"      --from POINT         from this time (1.5s, 200ms), mark or phase on\n"                    \
	"      --to POINT           up to this time, mark, or end of a phase\n"                          \
	"      --phase NAME         the same as --from NAME --to NAME\n"                                 \
	"  -t, --time-filter TIME   leave out rows with less than this time (5us; without a unit: ns)\n" \
	"  -D, --depth N            only N levels of calls; deeper ones count as part of level N\n"

#define BP_QUERY_PATTERN_HELP                                                                             \
	"PATTERN is a name, a glob (ext4_*), or a regular expression if it has one of ^ $ | ( ) + \\ or " \
	".*\n"                                                                                            \
	"in it; NAME@MODULE also wants a module.\n"

/** bp_query_is_option() - is this getopt_long code one of BP_QUERY_OPTIONS? */
bool bp_query_is_option(int code);

/** bp_query_option() - handle it; @arg is borrowed. Errors: BP_EUSAGE */
struct bp_err *bp_query_option(struct bp_query *q, int code, const char *arg) BP_MUST_CHECK;

/** bp_query_filters() - does the query leave anything out of the boot (not only rows)? */
bool bp_query_filters(const struct bp_query *q);

/** bp_option_number() - a decimal number from 0 to @max. Errors: BP_EUSAGE */
struct bp_err *bp_option_number(const char *option, const char *text, unsigned long max,
				unsigned long *ret) BP_MUST_CHECK;

#endif
