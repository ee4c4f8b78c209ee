/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Samples of the threads of a process while they run: registers of user space and the top of the stack, for
 * others to unwind. Each CPU has a clock of the kernel's (perf_event_open(2), PERF_COUNT_SW_CPU_CLOCK), so
 * that the samples of a thread are in proportion to the CPU time that it takes. In a system call, they say
 * where it was called.
 *
 * Clocks of the threads themselves would sample nobody else, but are started and stopped at each switch,
 * which costs a busy QEMU a tenth of what it does. Samples of other processes are dropped unread.
 *
 * What did not fit in a CPU's buffer is lost and is not counted: samples are samples.
 *
 * One thread. x86-64 only. Needs perf_event_paranoid at most 0 or CAP_PERFMON. The kernel takes everything
 * back when we end.
 */
#ifndef BP_COLLECTORS_VCPU_RUN_STACKS_H
#define BP_COLLECTORS_VCPU_RUN_STACKS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

struct bp_run_stacks;

#define BP_RUN_REGS 17 /* as DWARF numbers them for x86-64, the last one is the instruction */

struct bp_run_sample {
	uint32_t tid, cpu;
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t regs[BP_RUN_REGS];
	const uint8_t *stack; /* from the stack pointer on */
	size_t stack_bytes;
};

/* What is told of a sample; it is gone when this returns. */
typedef struct bp_err *bp_run_seen(void *self, const struct bp_run_sample *sample);

/**
 * bp_run_stacks_create() - sample the threads of process @pid, also those to come, from now on
 * @hz: samples of each CPU in a second, at least 1; @ret: the caller's
 * CPUs above the first 256 that are online are left out, and those that come later.
 * Errors: BP_EUNSUPPORTED when the kernel does not let us, or has no such event; BP_ENOMEM.
 */
struct bp_err *bp_run_stacks_create(pid_t pid, unsigned hz, struct bp_run_stacks **ret) BP_MUST_CHECK;

/** bp_run_stacks_destroy() - NULL is fine */
void bp_run_stacks_destroy(struct bp_run_stacks *s);

/**
 * bp_run_stacks_read() - tell @seen, with @self, all samples since the last time
 * Those of one CPU are in order, CPUs come one after the other. Errors of @seen.
 */
struct bp_err *bp_run_stacks_read(struct bp_run_stacks *s, bp_run_seen *seen, void *self) BP_MUST_CHECK;

/**
 * bp_run_stacks_parse() - the samples of process @pid in a ring of records of perf_event_open(2)
 * @ring: @size bytes, a power of two; @tail, @head: what is read and what is written up to, which only grow
 * @record: room for a record, 64 KiB
 * What is no sample, or has another size than it says, is left out. Errors of @seen.
 */
struct bp_err *bp_run_stacks_parse(pid_t pid, const uint8_t *ring, uint64_t size, uint64_t tail,
				   uint64_t head, uint8_t *record, bp_run_seen *seen,
				   void *self) BP_MUST_CHECK;

#endif
