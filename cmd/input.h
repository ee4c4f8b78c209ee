/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening a recording on behalf of the user. */
#ifndef BP_CMD_INPUT_H
#define BP_CMD_INPUT_H

#include "analyzers/summary.h"
#include "cmd/import.h"
#include "core/err.h"
#include "core/strbuf.h"
#include "core/trace.h"

struct bp_import_options;

/**
 * bp_input_open() - bp_trace_open() with a hint when the default file is not there
 * @path: NULL: BP_DEFAULT_FILE. A file that is no recording, a pipe, or "-" is read as a foreign trace
 * (without names but those in it); what is to be said about that goes to standard error.
 */
struct bp_err *bp_input_open(const char *path, struct bp_trace **ret) BP_MUST_CHECK;

/**
 * bp_input_open_with() - the same, and how to read a foreign trace
 * @how: its `command` does not matter. Errors: also BP_EUSAGE when that is given for a recording, which has
 * names of its own.
 */
struct bp_err *bp_input_open_with(const char *path, const struct bp_import_options *how,
				  struct bp_trace **ret) BP_MUST_CHECK;

/**
 * bp_input_summary() - the summary of a baseline file, a recording or a foreign trace
 * @query: filters, NULL: none. Errors: as bp_input_open() and bp_summary_create(); BP_EUSAGE for filters that
 * a baseline file cannot be put through (it knows whole boots).
 */
struct bp_err *bp_input_summary(const char *command, const char *path, const struct bp_query *query,
				struct bp_summary **ret) BP_MUST_CHECK;

/** bp_input_damage_text() - add what damage took from the recording, as one line without newline; nothing if
 * sound */
void bp_input_damage_text(const struct bp_trace *t, struct bp_strbuf *sb);

/** bp_input_warn() - the same as a warning on standard error */
void bp_input_warn(const char *command, const struct bp_trace *t);

static inline void bp_input_closep(struct bp_trace **t)
{
	bp_trace_destroy(*t);
}

#endif
