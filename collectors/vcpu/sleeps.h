/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the threads of a process are when they leave the CPU, by a BPF program at sched_switch: the futex
 * call that they are in, and the kernel's stack.
 *
 * Most futex calls do not sleep: QEMU makes up to a hundred for each that does. To trace the system call
 * costs every one of them, filtered or not. A thread that leaves the CPU inside of futex(2) still has the
 * arguments in the registers that it entered the kernel with, since the kernel leaves them alone until it
 * returns.
 *
 * A stack costs more than all the rest of a switch. Those of sleeps in futex(2) are all alike, so one in 16
 * is taken.
 *
 * One thread. Needs Linux 5.18 with BTF, x86-64, and the right to load such programs: root or CAP_BPF and
 * CAP_PERFMON. The kernel takes everything back when the process ends, however it does.
 */
#ifndef BP_COLLECTORS_VCPU_SLEEPS_H
#define BP_COLLECTORS_VCPU_SLEEPS_H

#include <stdbool.h>
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
	int32_t stack;  /* of the kernel, for bp_sleeps_stack(); negative: none was taken */
	uint32_t unused;
};

#define BP_SLEEPS_FRAMES 127 /* of a stack, at most */

/**
 * bp_sleeps_create() - the buffer, and a trial whether the kernel takes the program; nothing is recorded yet
 * @bytes: of the buffer, at most; @all_stacks: also of threads that could go on, and of every sleep
 * Errors: BP_EUNSUPPORTED with what is missing.
 */
struct bp_err *bp_sleeps_create(size_t bytes, bool all_stacks, struct bp_sleeps **ret) BP_MUST_CHECK;

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
 * bp_sleeps_match() - what thread @tid was doing when it left @cpu at @time_ns, as the kernel's event says
 * To be asked for switches of a CPU in order; what was skipped is gone. That event has to have been on before
 * bp_sleeps_follow().
 * Returns NULL when that is not known; borrowed until the next read.
 */
const struct bp_sleep *bp_sleeps_match(struct bp_sleeps *s, unsigned cpu, uint32_t tid, uint64_t time_ns);

/** bp_sleeps_in_futex() - whether it is in futex(2), so that the arguments are those of that */
bool bp_sleeps_in_futex(const struct bp_sleep *one);

/**
 * bp_sleeps_stack() - the frames of a stack, innermost first
 * @frames: room for BP_SLEEPS_FRAMES addresses
 * Returns how many there are; 0: none. The first ones may be those of the tracing itself.
 */
size_t bp_sleeps_stack(const struct bp_sleeps *s, int32_t stack, uint64_t *frames);

#endif
