/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making a recording from the traces of others, for `bootprof import` and for commands that are given such a
 * trace. */
#ifndef BP_CMD_IMPORT_H
#define BP_CMD_IMPORT_H

#include <stdbool.h>

#include "core/err.h"
#include "core/trace.h"
#include "symbols/foreign.h"

struct bp_import_options {
	const char *format; /* of an importer; NULL: found out from the beginning of the file */
	struct bp_foreign_options names;
	const char *maps; /* copy of /proc/PID/maps of the QEMU that was traced; NULL: none */
	const char *qemu; /* its binary; NULL: as in the maps */
	const char *command; /* whose progress and notes go to standard error; NULL: none of them */
};

/**
 * bp_import_open() - convert a foreign trace to a recording that exists only as long as it is open
 * @path: of the trace, "-" for standard input
 * The recording has no name in the file system (it was in TMPDIR); its path in texts is that of the trace.
 * Errors: BP_EDATA when no importer knows the format or nothing could be read; otherwise what was valid is in
 * the recording, and notes say what was not.
 */
struct bp_err *bp_import_open(const char *path, const struct bp_import_options *o,
			      struct bp_trace **ret) BP_MUST_CHECK;

#endif
