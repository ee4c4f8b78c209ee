/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waits: what the host's scheduler did with QEMU's threads, beside (or without) what the guest executed.
 *
 * Threads are named by the host's thread id, and described by BP_FACT_THREAD. Records are small and of one
 * size; they come in blocks of their own chunk type that are read one by one, since a few seconds make a
 * million of them. Times are of the recording's host clock: ns since QEMU was started when the guest is
 * recorded as well, so that what a vCPU executed at a moment can be looked up; the trace's own clock for
 * what was imported.
 *
 * A collector calls, in this order:
 *
 *	bp_wait_log_create(writer, &log)
 *	bp_trace_writer_fact(BP_FACT_THREAD)    when a thread is first seen, again when more is known
 *	bp_trace_writer_fact(BP_FACT_HOST_MAP)  executable mappings of QEMU
 *	bp_wait_log_frame()                     id of a frame, the name "" when only its address is known
 *	bp_wait_log_stack()                     id of a stack of them, innermost first
 *	bp_wait_log_add()                       records, in time order over all CPUs
 *	bp_wait_log_flush()                     now and then: what a kill would lose otherwise
 *	bp_wait_log_name()                      at the end: names of the frames that have an address only
 *	bp_trace_writer_fact(BP_FACT_LOCK)      at the end: names of locks
 *	bp_wait_log_close(log)
 *
 * Kernel frames have their names from the start (the trace buffer knows them); user frames get them at the
 * end, when all mappings are known. A recording that ended before has addresses and the mappings.
 */
#ifndef BP_CORE_WAITS_H
#define BP_CORE_WAITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_trace;
struct bp_trace_writer;
struct bp_wait_log;
struct bp_wait_decoder;

enum bp_wait_kind {
	BP_WAIT_OUT = 1, /* `thread` leaves `cpu` in `state`; other = thread that gets it (0 idle); stacks */
	BP_WAIT_IN,      /* `thread` gets `cpu`; other = thread that left it */
	BP_WAIT_WAKE,    /* `thread` wakes `other` (sched_waking); flags BP_WAIT_IRQ */
	BP_WAIT_FUTEX,   /* futex(2) is entered: addr = uaddr, other = op, value = val; user stack if any;
			  * flags BP_WAIT_OWNED */
	BP_WAIT_FUTEX_RET, /* futex(2) returns: value = result */
	BP_WAIT_LOCK_WANT, /* a lock function is entered: addr = lock (0: the big lock), other = frame id of
			      the call site */
	BP_WAIT_LOCK_HELD, /* the lock is `thread`'s: addr as given to LOCK_WANT, or 0 for the one wanted last
			    */
	BP_WAIT_LOCK_FREE, /* `thread` releases it: addr */
	BP_WAIT_KVM_ENTRY, /* the vCPU enters the guest */
	BP_WAIT_KVM_EXIT, /* and leaves it: value = reason; flags BP_WAIT_USERSPACE when it goes on to QEMU */
	BP_WAIT_FAULT,    /* page fault of `thread`: addr = address, value = instruction */
	BP_WAIT_SAMPLE,   /* `thread` was seen off the CPU, in `state`, with these stacks: of no known
			   * beginning; in futex(2): addr, and other = op; flags BP_WAIT_OWNED. In state R it
			   * was seen to run on `cpu`: addr and other are 0 */
	BP_WAIT_LOST,     /* value records of `cpu` were lost here (at least 1), in the addr ns before; 0: not
			     known */
	BP_WAIT_KINDS
};

#define BP_WAIT_PREEMPTED 1u /* OUT: printed as R+: it would have gone on */
#define BP_WAIT_IRQ 2u       /* WAKE: by an interrupt that happened to hit `thread` */
#define BP_WAIT_USERSPACE 4u /* KVM_EXIT */

/* LOCK_FREE: from here on lock functions are not seen; who has a lock is known by OWNED only. LOST: of those
 * and of KVM, not of the scheduler or of futexes. */
#define BP_WAIT_BLIND 8u

/* FUTEX, SAMPLE: who has the mutex is known, by what it says itself: thread bp_wait_owner() */
#define BP_WAIT_OWNED 16u

#define BP_WAIT_NO_CPU UINT16_MAX

/** bp_futex_waits() - whether an operation of futex(2), with its flags, is one that waits */
bool bp_futex_waits(uint32_t op);

struct bp_wait {
	uint64_t time_ns;
	uint64_t addr;
	int64_t value;
	uint32_t thread; /* host thread id, see BP_FACT_THREAD */
	uint32_t other;
	uint32_t kstack, ustack; /* stack ids, 0 none */
	uint16_t cpu;            /* host CPU, BP_WAIT_NO_CPU unknown */
	uint8_t kind;            /* enum bp_wait_kind */
	uint8_t state;           /* the kernel's letter: R S D T t X Z I ...; 0 unknown */
	uint32_t flags;
};

/** bp_wait_set_owner() - say in @r, of kind FUTEX or SAMPLE, that thread @tid has the mutex; 0: nothing */
static inline void bp_wait_set_owner(struct bp_wait *r, uint32_t tid)
{
	if (!tid)
		return;
	r->flags |= BP_WAIT_OWNED;
	r->value = (int64_t)((uint64_t)tid << 32 | (uint32_t)r->value);
}

/** bp_wait_owner() - who had the mutex when the record was made; 0: not known */
static inline uint32_t bp_wait_owner(const struct bp_wait *r)
{
	return r->flags & BP_WAIT_OWNED ? (uint32_t)((uint64_t)r->value >> 32) : 0;
}

#define BP_WAIT_BLOCK 32768        /* records in a block, at most */
#define BP_HOST_STACK_MAX 512      /* frames in a stack; what is further out is left away */
#define BP_HOST_IDS_MAX (1u << 20) /* frames, and stacks */

enum bp_host_space {
	BP_HOST_KERNEL,
	BP_HOST_USER,
	BP_HOST_SITE, /* no code address: a call site as the program says it, "cputlb.c:1371" */
	BP_HOST_SPACES
};

struct bp_host_frame {
	uint32_t id;        /* from 1 */
	uint8_t space;      /* enum bp_host_space */
	uint64_t addr;      /* as it ran; 0 unknown */
	uint64_t offset;    /* into the function `name`; into the file when there is no name */
	const char *name;   /* "" unknown */
	const char *module; /* kernel module or file; "" unknown, or the kernel itself */
};

/* ---- writing ---- */

/** bp_wait_log_create() - waits into @w, which is borrowed and closed by the caller after bp_wait_log_close()
 */
struct bp_err *bp_wait_log_create(struct bp_trace_writer *w, struct bp_wait_log **ret) BP_MUST_CHECK;

/**
 * bp_wait_log_frame() - the id of a frame; the same for the same space, address, name, offset and module
 * @addr: 0 when only a name is known
 * @name, @module: copied; "" when unknown
 * @ret: 0 when there are too many frames already
 */
struct bp_err *bp_wait_log_frame(struct bp_wait_log *log, enum bp_host_space space, uint64_t addr,
				 const char *name, uint64_t offset, const char *module,
				 uint32_t *ret) BP_MUST_CHECK;

/** bp_wait_log_name() - a better name for the frame @id, given by any later time */
struct bp_err *bp_wait_log_name(struct bp_wait_log *log, uint32_t id, const char *name, uint64_t offset,
				const char *module) BP_MUST_CHECK;

/** bp_wait_log_n_frames() - ids run from 1 to this */
uint32_t bp_wait_log_n_frames(const struct bp_wait_log *log);

/** bp_wait_log_get_frame() - frame @id as given; its texts are borrowed until the log is closed or renames it
 */
struct bp_host_frame bp_wait_log_get_frame(const struct bp_wait_log *log, uint32_t id);

/** bp_wait_log_stack() - the id of a stack, innermost frame first; @ret 0 when @n is 0 or there are too many
 */
struct bp_err *bp_wait_log_stack(struct bp_wait_log *log, const uint32_t *frames, size_t n,
				 uint32_t *ret) BP_MUST_CHECK;

/** bp_wait_log_add() - one record; they are to come in time order */
struct bp_err *bp_wait_log_add(struct bp_wait_log *log, const struct bp_wait *rec) BP_MUST_CHECK;

/** bp_wait_log_flush() - write what was given; errors as bp_trace_writer_block() */
struct bp_err *bp_wait_log_flush(struct bp_wait_log *log) BP_MUST_CHECK;

/** bp_wait_log_close() - flush and free; freed also on error */
struct bp_err *bp_wait_log_close(struct bp_wait_log *log) BP_MUST_CHECK;

/** bp_wait_log_destroy() - free without writing; NULL is fine */
void bp_wait_log_destroy(struct bp_wait_log *log);

/* What the log is made of, for those who have ids already. A second frame with an id corrects the first. */
struct bp_err *bp_trace_writer_host_frame(struct bp_trace_writer *w,
					  const struct bp_host_frame *frame) BP_MUST_CHECK;
struct bp_err *bp_trace_writer_host_stack(struct bp_trace_writer *w, uint32_t id, const uint32_t *frames,
					  size_t n) BP_MUST_CHECK;
/** bp_trace_writer_waits() - a block of up to BP_WAIT_BLOCK records; definitions and facts given before go
 * first */
struct bp_err *bp_trace_writer_waits(struct bp_trace_writer *w, const struct bp_wait *recs,
				     size_t n) BP_MUST_CHECK;

/**
 * bp_thread_role() - what a thread of QEMU does, by the name that QEMU gives it with debug-threads=on
 * Returns "vCPU" (then *@vcpu is its index), "main loop", "iothread", "worker", "RCU" or, for others, "";
 * *@vcpu is UINT16_MAX for all but vCPUs.
 */
const char *bp_thread_role(const char *comm, uint16_t *vcpu);

/* ---- reading ---- */

/** bp_trace_n_waits() - blocks of waits, in file order */
size_t bp_trace_n_waits(const struct bp_trace *t);

/** bp_trace_n_wait_records() - records in them, as their headers say */
uint64_t bp_trace_n_wait_records(const struct bp_trace *t);

/** bp_trace_waits_range() - earliest and latest time in block @i, from its header */
void bp_trace_waits_range(const struct bp_trace *t, size_t i, uint64_t *first_ns, uint64_t *last_ns);

/** bp_trace_waits_gap() - true when something of the file was lost between block @i - 1 and block @i */
bool bp_trace_waits_gap(const struct bp_trace *t, size_t i);

struct bp_err *bp_wait_decoder_create(struct bp_wait_decoder **ret) BP_MUST_CHECK;
void bp_wait_decoder_destroy(struct bp_wait_decoder *d);

/**
 * bp_wait_decoder_read() - the records of block @i
 * @recs: borrowed from @d until its next read. Kinds are in range; thread, frame and stack ids are whatever
 * the file says. Errors: BP_EDATA (path, offset): the block is damaged; others can still be read.
 */
struct bp_err *bp_wait_decoder_read(struct bp_wait_decoder *d, const struct bp_trace *t, size_t i,
				    const struct bp_wait **recs, size_t *n) BP_MUST_CHECK;

/** bp_trace_host_frame() - frame @id, NULL when it is not defined; borrowed */
const struct bp_host_frame *bp_trace_host_frame(const struct bp_trace *t, uint32_t id);

/** bp_trace_host_stack() - frame ids of stack @id, innermost first; *n is 0 when it is not defined; borrowed
 */
const uint32_t *bp_trace_host_stack(const struct bp_trace *t, uint32_t id, size_t *n);

/** bp_trace_host_ids() - one more than the largest frame id and the largest stack id */
void bp_trace_host_ids(const struct bp_trace *t, uint32_t *frames, uint32_t *stacks);

#endif
