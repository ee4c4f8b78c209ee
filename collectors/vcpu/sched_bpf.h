/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the scheduler does with the threads of one process, by BPF programs at sched_switch and sched_waking.
 *
 * A thread that leaves the CPU inside of futex(2) still has the arguments in the registers that it entered
 * the kernel with, since the kernel leaves them alone until it returns. So nothing else has to be traced to
 * know which lock it waits for; QEMU makes up to a hundred futex calls for each that sleeps.
 *
 * A stack costs more than all the rest of a switch. Those of sleeps in futex(2) are all alike, so one in 16
 * is taken; those of threads that could go on say nothing, unless they run a guest of KVM.
 *
 * One thread. Needs Linux 5.18 with BTF, x86-64, and the right to load such programs: root or CAP_BPF and
 * CAP_PERFMON. The kernel takes everything back when the process ends, however it does.
 */
#ifndef BP_COLLECTORS_VCPU_SCHED_BPF_H
#define BP_COLLECTORS_VCPU_SCHED_BPF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

struct bp_sched_bpf;

/*
 * A mutex of the GNU C library begins with the word that is waited on and has, this many bytes behind, the
 * thread id of its owner and then the number of its users (sysdeps/x86/nptl/bits/struct_mutex.h). The owner
 * is set after the mutex is taken and cleared before it is let go: who sleeps on it sees who has it.
 */
#define BP_MUTEX_OWNER 8

/* What is in a record; a switch may be of two threads of the process. */
#define BP_SCHED_OUT 1u  /* `tid` leaves the CPU; the next one is `other` */
#define BP_SCHED_IN 2u   /* `other` gets the CPU that `tid` leaves */
#define BP_SCHED_WAKE 4u /* `tid` wakes `other` */
#define BP_SCHED_IRQ 8u  /* it is an interrupt that does, which hit `tid` */

/* As the programs write it. From `addr` to `result`: of BP_SCHED_OUT and _WAKE; stack and state: of
 * BP_SCHED_OUT. */
struct bp_sched_event {
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t addr;    /* first arguments of the system call */
	uint32_t op, val;
	uint32_t mutex[2]; /* of BP_SCHED_OUT in futex(2): what is at BP_MUTEX_OWNER behind the word */
	int32_t call;      /* its number, or that of the interrupt */
	int32_t result;    /* -ENOSYS in a call */
	int32_t stack;     /* of the kernel, for bp_sched_bpf_stack(); negative: none was taken */
	uint32_t state;    /* prev_state of sched_switch; with bit 31 it was preempted */
	uint32_t tid, other;
	uint32_t cpu, what;
	char comm[16]; /* of `tid`; ended by 0 if shorter */
};

/* Records that did not fit. */
struct bp_sched_lost {
	uint64_t n;
	uint64_t first_ns, last_ns; /* of their times, CLOCK_MONOTONIC */
};

#define BP_SCHED_PREEMPTED 0x80000000u

#define BP_SCHED_FRAMES 127 /* of a stack, at most */

/**
 * bp_sched_bpf_create() - the buffers, and a trial whether the kernel takes the programs; nothing is recorded
 * yet
 * @bytes: of the buffer, at most (64 MiB are the most there is); @ret: the caller's
 * Errors: BP_EUNSUPPORTED with what is missing; BP_ENOMEM.
 */
struct bp_err *bp_sched_bpf_create(size_t bytes, struct bp_sched_bpf **ret) BP_MUST_CHECK;

/** bp_sched_bpf_destroy() - NULL is fine */
void bp_sched_bpf_destroy(struct bp_sched_bpf *s);

/**
 * bp_sched_bpf_attach() - make the programs for process @pid (of the initial name space); they run until stop
 * Errors: BP_EUNSUPPORTED, which create would have had, too.
 */
struct bp_err *bp_sched_bpf_attach(struct bp_sched_bpf *s, pid_t pid) BP_MUST_CHECK;

/** bp_sched_bpf_stop() - what is in the buffer stays */
void bp_sched_bpf_stop(struct bp_sched_bpf *s);

/**
 * bp_sched_bpf_read() - take what is in the buffer
 * @seen: is told, with @self, each record; those of one CPU are in order
 * @lost: what did not fit since the last time
 * Errors of @seen.
 */
struct bp_err *bp_sched_bpf_read(struct bp_sched_bpf *s,
				 struct bp_err *(*seen)(void *self, const struct bp_sched_event *e),
				 void *self, struct bp_sched_lost *lost) BP_MUST_CHECK;

/** bp_sched_bpf_in_futex() - whether `tid` of BP_SCHED_OUT or _WAKE is in futex(2), so that the arguments are
 * its */
bool bp_sched_bpf_in_futex(const struct bp_sched_event *e);

/**
 * bp_sched_bpf_stack() - the frames of a stack, innermost first
 * @frames: room for BP_SCHED_FRAMES addresses
 * Returns how many there are; 0: none. The first ones may be those of the tracing itself.
 */
size_t bp_sched_bpf_stack(const struct bp_sched_bpf *s, int32_t stack, uint64_t *frames);

#endif
