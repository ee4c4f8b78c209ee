/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Binary traces of QEMU's "simple" backend, versions 2 to 4, in either byte order. Internal to the
 * collectors. */
#ifndef BP_COLLECTORS_QEMU_SIMPLETRACE_H
#define BP_COLLECTORS_QEMU_SIMPLETRACE_H

#include "collectors/import.h"

/**
 * bp_simpletrace_run() - as bp_import_simpletrace.run(), with the event declarations of the QEMU that wrote
 * the trace
 * @events_path: its trace-events-all file, or NULL: "trace-events-all" in the folder of the trace. Only
 *               versions 2 and 3 need it, whose records have numbers instead of names
 * Errors: BP_EDATA (not such a file); BP_EUNSUPPORTED (another version; version 2 or 3 without declarations);
 * those of the source and the builder.
 * Source: trace/simple.c and scripts/simpletrace.py of QEMU 1.3 to 10.2.
 */
struct bp_err *bp_simpletrace_run(struct bp_import *im, const char *events_path) BP_MUST_CHECK;

#endif
