/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Futex calls of threads that go to sleep or wake others, from the registers that they entered the kernel
 * with.
 *
 * Most futex calls do neither: QEMU makes a hundred for each that sleeps. To trace the system call costs
 * every one of them, filtered or not. perf samples the user's registers at sched_switch and sched_waking
 * instead; they have the call's arguments, since the kernel leaves them alone until it returns.
 *
 * One thread. Needs the right to watch all of a CPU: root or CAP_PERFMON. x86-64.
 */
#ifndef BP_COLLECTORS_VCPU_REGS_H
#define BP_COLLECTORS_VCPU_REGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

struct bp_regs;

enum bp_regs_event { BP_REGS_SWITCH, BP_REGS_WAKING, BP_REGS_EVENTS };

/* What futex(2) was called with, if it was that: other calls look the same, of other arguments. */
struct bp_futex_args {
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t addr;    /* 0: no arguments of a futex call */
	uint32_t pid, tid;
	uint32_t op, val;
	uint64_t lost; /* no sample, but that many are missing here */
};

/**
 * bp_regs_create() - make the buffers of all CPUs; nothing is sampled yet
 * @ids: of the events sched:sched_switch and sched:sched_waking; @bytes: of a buffer, at most
 * Errors: BP_EUNSUPPORTED with what to do.
 */
struct bp_err *bp_regs_create(const uint64_t ids[BP_REGS_EVENTS], size_t bytes,
			      struct bp_regs **ret) BP_MUST_CHECK;

/** bp_regs_destroy() - NULL is fine */
void bp_regs_destroy(struct bp_regs *r);

/**
 * bp_regs_follow() - sample the threads of @pid that there are now, and all that are started later, of any
 * process: by number, which is why it has to be called again for a thread that bp_regs_covers() denies
 * Errors: BP_EUNSUPPORTED, BP_EOS.
 */
struct bp_err *bp_regs_follow(struct bp_regs *r, pid_t pid) BP_MUST_CHECK;

/** bp_regs_covers() - whether a thread is sampled */
bool bp_regs_covers(const struct bp_regs *r, uint32_t tid);

/** bp_regs_read() - take what is in the buffers; @seen is told of each sample, with @self */
struct bp_err *bp_regs_read(struct bp_regs *r,
			    struct bp_err *(*seen)(void *self, const struct bp_futex_args *a),
			    void *self) BP_MUST_CHECK;

/**
 * bp_regs_match() - the sample of what thread @tid did on @cpu at @time_ns
 * To be asked for every sleep (state S) and every wake-up of a CPU, in order; what was skipped is gone.
 * @lost: samples that were lost before it are added
 * Returns NULL when there is none; borrowed until the next read.
 */
const struct bp_futex_args *bp_regs_match(struct bp_regs *r, enum bp_regs_event event, unsigned cpu,
					  uint32_t tid, uint64_t time_ns, uint64_t *lost);

#endif
