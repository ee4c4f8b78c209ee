/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Futex calls of threads that go to sleep in them, by a BPF program at sched_switch.
 *
 * Most futex calls do not sleep: QEMU makes up to a hundred for each that does. To trace the system call
 * costs every one of them, filtered or not. A thread that leaves the CPU inside of futex(2) still has the
 * arguments in the registers that it entered the kernel with, since the kernel leaves them alone until it
 * returns; the program reads them for the threads of one process.
 *
 * One thread. Needs Linux 5.15 with BTF, x86-64, and the right to load such programs: root or CAP_BPF and
 * CAP_PERFMON. The kernel takes everything back when the process ends, however it does.
 */
#ifndef BP_COLLECTORS_VCPU_SLEEPS_H
#define BP_COLLECTORS_VCPU_SLEEPS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

struct bp_sleeps;

/* A thread that leaves the CPU, as the program writes it: the arguments are those of futex(2) if it is in
 * that. */
struct bp_sleep {
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t addr;
	uint32_t tid;
	uint32_t op, val;
	uint32_t cpu;
	int32_t call;   /* number of the system call, or of the interrupt */
	int32_t result; /* -ENOSYS in a call */
};

/**
 * bp_sleeps_create() - the buffer, and a trial whether the kernel takes the program; nothing is recorded yet
 * @bytes: of the buffer, at most
 * Errors: BP_EUNSUPPORTED with what is missing.
 */
struct bp_err *bp_sleeps_create(size_t bytes, struct bp_sleeps **ret) BP_MUST_CHECK;

/** bp_sleeps_destroy() - NULL is fine */
void bp_sleeps_destroy(struct bp_sleeps *s);

/** bp_sleeps_follow() - from now on, all threads of process @pid (of the initial name space); to be called
 * once */
struct bp_err *bp_sleeps_follow(struct bp_sleeps *s, pid_t pid) BP_MUST_CHECK;

/**
 * bp_sleeps_read() - take what is in the buffer
 * @seen: is told, with @self, whose each record is; @lost: how many did not fit since the last time
 * Errors of @seen; BP_ENOMEM.
 */
struct bp_err *bp_sleeps_read(struct bp_sleeps *s, struct bp_err *(*seen)(void *self, uint32_t tid),
			      void *self, uint64_t *lost) BP_MUST_CHECK;

/**
 * bp_sleeps_match() - the futex call that thread @tid was in when it left @cpu at @time_ns, as the kernel's
 * event says To be asked for switches of a CPU in order; what was skipped is gone. That event has to have
 * been on before bp_sleeps_follow(). Returns NULL when it was in none; borrowed until the next read.
 */
const struct bp_sleep *bp_sleeps_match(struct bp_sleeps *s, unsigned cpu, uint32_t tid, uint64_t time_ns);

#endif
