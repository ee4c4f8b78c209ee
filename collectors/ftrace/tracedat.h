/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events of trace.dat files for a recording. bp_import_trace_dat (collectors/import.h) reads one file; here
 * is what goes beyond that.
 */
#ifndef BP_COLLECTORS_FTRACE_TRACEDAT_H
#define BP_COLLECTORS_FTRACE_TRACEDAT_H

#include <stddef.h>

#include "collectors/import.h"

#define BP_TRACE_DAT_JOIN 16

/**
 * bp_trace_dat_join() - several files of one session, as trace-cmd writes them for a guest and its host
 * @im: its source is the first file, whose CPUs keep their numbers; those of the others follow
 * @more: the others, @n of them (at most BP_TRACE_DAT_JOIN - 1)
 * Times become those of the host, by the offsets that are stored in the guests' files. With @n 0 nothing is
 * converted. Errors: BP_EUSAGE when a file has nothing to do with the others, or says nothing about the
 * clocks.
 */
struct bp_err *bp_trace_dat_join(struct bp_import *im, struct bp_source *const *more, size_t n) BP_MUST_CHECK;

#endif
