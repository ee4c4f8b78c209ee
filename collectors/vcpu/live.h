/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waits of a running QEMU. What the host's scheduler does with its threads comes from BPF programs
 * (sched_bpf.h); all else from the host's tracefs, an instance of our own (never the user's buffer): the
 * events of a guest of KVM, and a uprobe on QEMU's function that takes a lock. Where BPF is not to be had,
 * or all calls of futex(2) are wanted, the events of the scheduler and of futex(2) are in that instance as
 * well.
 *
 * The instance is called bootprof_PID_START_NS after our process, its start time and its name space, so that
 * whoever comes next can tell which are left over from a process that was killed, and removes those.
 *
 * One thread. Needs the right to create instances in tracefs: root, as distributions ship it.
 */
#ifndef BP_COLLECTORS_VCPU_LIVE_H
#define BP_COLLECTORS_VCPU_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"
#include "core/trace.h"
#include "core/waits.h"

struct bp_live;
struct bp_wait;

/* Calls of futex(2): those that sleep, where the kernel can tell them, or all. */
enum bp_futex_calls { BP_FUTEX_AUTO, BP_FUTEX_SLEEPING, BP_FUTEX_ALL };

struct bp_live_options {
	enum bp_futex_calls futex; /* for bp_live_create() */
	const char *probe_file;    /* binary to put a uprobe on; NULL: none */
	uint64_t probe_offset;     /* in the file */
	bool probe_any_mutex;      /* arguments (mutex, file, line); else (file, line) */
	bool probe_always;         /* not only for windows, of which the cost is bounded */
	bool kvm; /* for bp_live_create(): a guest of KVM, with its events and stacks of each switch in it */
	uint64_t bql;        /* address of the big lock, 0 unknown */
	size_t buffer_bytes; /* of each host CPU; 0: 8 MiB, less on large machines */
	/* Text of a string in QEMU, by run-time address: source file of a call site; may be NULL. */
	bool (*text)(void *self, uint64_t addr, char *dst, size_t cap);
	void *text_self;
};

struct bp_live_stats {
	uint64_t events;       /* read from the buffer, of the kinds that are recorded */
	uint64_t lost;         /* not read before there was no room any more, as the kernel counts them */
	uint64_t lost_unknown; /* times that something was lost and the kernel did not say how much */
	uint64_t by_kind[BP_WAIT_KINDS];
	char no_bpf[160];    /* why all futex calls are recorded; "" if only those that sleep are */
	bool probes;         /* the uprobe is in place ... */
	char no_probes[160]; /* ... or why it is not */
	bool kernel_names;   /* /proc/kallsyms has addresses */
};

/**
 * bp_live_create() - remove what dead processes left, make the instance and set it up; nothing is traced yet
 * Errors: BP_EUNSUPPORTED with what to do (no permission, no tracefs, a kernel without these events); BP_EOS.
 */
struct bp_err *bp_live_create(const struct bp_live_options *opts, struct bp_live **ret) BP_MUST_CHECK;

/** bp_live_destroy() - stop and remove the instance and the uprobe; NULL is fine */
void bp_live_destroy(struct bp_live *l);

/**
 * bp_live_probe() - add the uprobe of @opts later, when the binary and its mappings are known
 * That it cannot be set is no error, see bp_live_stats.
 */
void bp_live_probe(struct bp_live *l, const struct bp_live_options *opts);

/**
 * bp_live_attach() - all threads of a process, and those that they start, are to be traced; takes tens of ms
 * @w: recording; threads are announced in it; @log: takes the records; both borrowed until destroy
 * Errors: BP_EOS when there is no such process; BP_EUNSUPPORTED, BP_ENOMEM.
 */
struct bp_err *bp_live_attach(struct bp_live *l, pid_t pid, struct bp_trace_writer *w,
			      struct bp_wait_log *log) BP_MUST_CHECK;

/** bp_live_kvm() - the process has a guest of KVM after all: its events from now on, where the kernel has
 * them. Without BPF, threads that could go on stay without stacks. Once is enough. Errors: BP_ENOMEM. */
struct bp_err *bp_live_kvm(struct bp_live *l) BP_MUST_CHECK;

/** bp_live_start() - from now on; @start_ns: CLOCK_MONOTONIC at time 0 of the recording */
struct bp_err *bp_live_start(struct bp_live *l, uint64_t start_ns) BP_MUST_CHECK;

/**
 * bp_live_drain() - read the buffers and record what is old enough to be in order over all CPUs
 * @all: also what is not; for the end, after bp_live_stop()
 * Errors of the writer; BP_EOS, BP_EDATA when the buffer makes no sense.
 */
struct bp_err *bp_live_drain(struct bp_live *l, bool all) BP_MUST_CHECK;

/**
 * bp_live_sample() - a BP_WAIT_SAMPLE record of a thread, which becomes part of the recording in its turn
 * @w: its time is of CLOCK_MONOTONIC; they may come in any order. One that comes when
 * later records are written already gets the time of the last of them.
 */
struct bp_err *bp_live_sample(struct bp_live *l, const struct bp_wait *w) BP_MUST_CHECK;

/** bp_live_stop() - no events any more; what is in the buffers stays */
void bp_live_stop(struct bp_live *l);

const struct bp_live_stats *bp_live_stats(const struct bp_live *l);
const char *bp_live_name(const struct bp_live *l); /* of the instance */

/** bp_live_addresses() - futex addresses that were waited on or woken, distinct; borrowed until the next
 * drain */
const uint64_t *bp_live_addresses(const struct bp_live *l, size_t *n);

/* A thread as it was last seen. */
struct bp_live_thread {
	uint32_t tid;
	uint32_t own_tid; /* in the PID namespace of the process, when it has another one (a container); else
			     tid */
	char comm[16];
	bool ours;       /* of the QEMU that is traced */
	bool kvm;        /* it left a guest, or entered one */
	bool guest_lock; /* it took the big lock from code that only vCPU threads run */
	/* Private to the collector. */
	/* In futex(2): its call was taken, then its switch. */
	enum { SLEEP_NONE, SLEEP_BEGINS, SLEEP_GOES_ON } sleeps;
	uint32_t futex_stack; /* of such a sleep, the last that is known */
	bool wants;       /* it has entered the lock function, and nothing says that it has got the lock */
	bool waiting;     /* meanwhile it waits in futex(2) for it */
	size_t asked;     /* record of the batch in which it last asked for it */
	uint64_t comm_ts; /* when it had that name */
};

/**
 * bp_live_role() - what a thread does, by its name; see bp_thread_role()
 * Threads that were not named all have the name of the program: only the first one is the main loop.
 */
const char *bp_live_role(const struct bp_live *l, const struct bp_live_thread *t, uint16_t *vcpu);

/**
 * bp_live_owner() - who has the mutex of the GNU C library that a thread sleeps on
 * @op, @val: of its call of futex(2); @behind: two words of memory, at BP_MUTEX_OWNER behind the futex word
 * Returns the thread id (of this namespace), one of the process that is traced; 0: nobody, or it is no such
 * mutex.
 */
uint32_t bp_live_owner(const struct bp_live *l, uint32_t op, uint32_t val, const uint32_t behind[2]);

/** bp_live_threads() - all threads seen; borrowed until the next drain */
const struct bp_live_thread *bp_live_threads(const struct bp_live *l, size_t *n);

#endif
