/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * record --waits: what the host did with QEMU's threads, beside the guest's calls or alone, of a QEMU that is
 * being started or of one that runs.
 */
#ifndef BP_CMD_RECORD_WAITS_H
#define BP_CMD_RECORD_WAITS_H

#include <sys/types.h>

#include "cmd/record_run.h"
#include "core/err.h"
#include "core/trace.h"

struct bp_record_waits;

/** bp_record_waits_create() - set up tracing, of nothing yet; @kvm: of a QEMU that uses KVM. Errors as
 * bp_live_create(). */
struct bp_err *bp_record_waits_create(const struct bp_record_options *opts, bool kvm,
				      struct bp_record_waits **ret) BP_MUST_CHECK;

/** bp_record_waits_attach() - get ready for a process. @writer: borrowed until destroy */
struct bp_err *bp_record_waits_attach(struct bp_record_waits *rw, pid_t pid,
				      struct bp_trace_writer *writer) BP_MUST_CHECK;

/** bp_record_waits_start() - from now on; @start_ns: CLOCK_MONOTONIC at time 0 */
struct bp_err *bp_record_waits_start(struct bp_record_waits *rw, uint64_t start_ns) BP_MUST_CHECK;

/** bp_record_waits_poll() - to be called often: records when it is time to. @ns: since time 0 */
struct bp_err *bp_record_waits_poll(struct bp_record_waits *rw, uint64_t ns) BP_MUST_CHECK;

/** bp_record_waits_finish() - record the rest, and the names of threads and locks; before the writer is
 * closed */
struct bp_err *bp_record_waits_finish(struct bp_record_waits *rw, uint64_t ns) BP_MUST_CHECK;

/** bp_record_waits_destroy() - nothing of ours stays in tracefs; NULL is fine */
void bp_record_waits_destroy(struct bp_record_waits *rw);

/** bp_record_waits_records() - records so far, and events lost */
uint64_t bp_record_waits_records(const struct bp_record_waits *rw, uint64_t *lost);

/** bp_record_waits_summary() - one line about threads, locks and losses, without its end; owned by the caller
 */
struct bp_err *bp_record_waits_summary(const struct bp_record_waits *rw, char **ret) BP_MUST_CHECK;

/** bp_record_pid() - record a process that runs already, @opts->pid, for @opts->timeout_ns or until a signal
 */
struct bp_err *bp_record_pid(const struct bp_record_options *opts, int *status) BP_MUST_CHECK;

#endif
