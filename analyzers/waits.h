/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Goes through the waits of a recording (core/waits.h) in order and keeps for each thread whether it runs,
 * why it left the CPU, who woke it, and which futex and lock it is at; tells an analyzer of every time off
 * the CPU and of every futex wait.
 *
 * Why a thread left the CPU is found from the state that the scheduler printed, its kernel stack, the futex
 * operation that it is in, and its user stack, in this order of weight; see wait_class.c for the rules.
 */
#ifndef BP_ANALYZERS_WAITS_H
#define BP_ANALYZERS_WAITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/err.h"
#include "core/strbuf.h"
#include "core/trace.h"
#include "core/waits.h"

struct bp_analysis;

enum bp_off_class {
	BP_OFF_PREEMPTED, /* it would have gone on: time slice over, or something more urgent */
	BP_OFF_LOCK,      /* for a mutex of user space */
	BP_OFF_HALT,      /* vCPU: the guest has nothing to do on it */
	BP_OFF_IO,        /* for a device, in the kernel */
	BP_OFF_FAULT,     /* for memory, in a page fault */
	BP_OFF_KERNEL,    /* for the kernel itself: memory slots, semaphores, mutexes of the kernel */
	BP_OFF_FUTEX,     /* other futex: condition variables, events */
	BP_OFF_POLL,      /* for file descriptors and timers, in an event loop */
	BP_OFF_OTHER,     /* no rule fits */
	BP_OFF_CLASSES,
	/* Where that is asked of a thread at any time: */
	BP_OFF_RUNNING = BP_OFF_CLASSES, /* it is on a CPU */
	BP_OFF_UNKNOWN,
};

/** bp_off_class_name() - "preempted", "lock" ..., "running", "" for unknown; static */
const char *bp_off_class_name(enum bp_off_class cls);

/* What a kernel stack alone says, in the order of precedence. */
enum bp_stack_kind {
	BP_STACK_NONE, /* there is none */
	BP_STACK_FUTEX,
	BP_STACK_KVM_HALT,
	BP_STACK_KVM_RUN, /* kvm_arch_vcpu_ioctl_run and no wait */
	BP_STACK_POLL,
	BP_STACK_IRQ,  /* an interrupt's end */
	BP_STACK_EXIT, /* the end of a system call */
	BP_STACK_OTHER
};

/* The rules, applied to the stacks of one recording. */
struct bp_off_rules;

/** bp_off_rules_create() - @t is borrowed until destroy */
struct bp_err *bp_off_rules_create(const struct bp_trace *t, struct bp_off_rules **ret) BP_MUST_CHECK;
void bp_off_rules_destroy(struct bp_off_rules *r);

/** bp_stack_kind() - of the kernel stack @id */
enum bp_stack_kind bp_stack_kind(struct bp_off_rules *r, uint32_t id);

/* What decides a class. */
struct bp_off_facts {
	uint8_t state; /* as in struct bp_wait */
	bool preempted;
	uint32_t kstack, ustack;
	bool named;  /* the thread has a name */
	bool vcpu;   /* it is a vCPU's thread */
	bool futex;  /* it is inside of futex(2), with: */
	uint32_t op; /*   its operation */
	bool shared; /*   a word that other vCPUs wait on too */
};

struct bp_off_verdict {
	enum bp_off_class cls;
	const char *frame; /* function that decided, NULL: none; borrowed from the trace */
	const char *rule;  /* why; static */
};

struct bp_off_verdict bp_off_classify(struct bp_off_rules *r, const struct bp_off_facts *f);

/* A thread, or what it was while it had one name. */
struct bp_wait_thread {
	uint32_t tid, tgid;
	const char *comm, *role; /* borrowed from the trace; "" unknown */
	uint16_t vcpu;           /* UINT16_MAX: no vCPU's */
	bool qemu;
	uint32_t pool;     /* index of the first thread of its pool (workers come and go); else its own */
	uint64_t switches; /* times that it left the CPU */
	uint64_t running_ns;
	uint64_t n[BP_OFF_CLASSES], ns[BP_OFF_CLASSES];
	uint64_t delay_ns;                   /* of all ns: woken, but not yet running */
	uint64_t stacks[BP_STACK_OTHER + 1]; /* switches by kind of kernel stack */
	uint64_t *slices;                    /* ns between getting and leaving the CPU, in order */
	size_t n_slices, cap_slices;
};

/* One time off the CPU. */
struct bp_off {
	uint32_t thread; /* index */
	struct bp_wait out;
	uint64_t in_ns;    /* it runs again; the end of the waits if not */
	uint64_t woken_ns; /* 0: not seen */
	uint32_t waker;    /* index, UINT32_MAX: not seen */
	bool open;         /* it does not run again */
	bool irq;          /* an interrupt woke it: the waker was only what was interrupted */
	struct bp_off_verdict why;
	bool futex;
	uint64_t addr; /* of the futex, see bp_waits_word() */
};

/*
 * How a holder is known, from worst to best: only that it let go of the lock, and that nobody did between
 * that and the moment before which somebody else had it, or the wait began; by what the mutex said of its
 * owner when somebody went to sleep on it; by lock events, which say when and where it took the lock.
 */
enum bp_holder_how { BP_HOLDER_UNKNOWN, BP_HOLDER_WAKER, BP_HOLDER_OWNER, BP_HOLDER_EVENTS };

/* One futex(2) call that waits. */
struct bp_futex_wait {
	uint32_t thread;
	uint64_t addr;
	uint32_t op;
	uint64_t enter_ns, exit_ns;
	bool open;   /* it does not return */
	bool before; /* it is open, and had begun before recording did: enter_ns is the beginning of that */
	uint32_t ustack, kstack;
	uint32_t site; /* frame id of the lock function's call site, 0 unknown */
	enum bp_holder_how how;
	/* Index: who had the lock for the longest part of the wait, or of an open one has it at the end. */
	uint32_t holder;
	/* Of user space, or 0: where the holder was while it had the lock, as sampled, or else where it let
	 * go of it. */
	uint32_t holder_stack;
	uint32_t holder_site; /* frame id: where it had taken the lock; or 0 */
	/* What it did most while it had the lock, of an open wait what it does at the end. */
	enum bp_off_class holder_was;
	uint64_t holder_preempted_ns; /* of the time that it had the lock; of an open wait 0 */
	const char
	    *holder_where; /* of an open wait, function of the kernel where it is off the CPU; or NULL */
};

static inline bool bp_waits_is_vcpu(const struct bp_wait_thread *t)
{
	return t->vcpu != UINT16_MAX || !strcmp(t->role, "vCPU");
}

struct bp_waits {
	const struct bp_trace *trace;
	struct bp_wait_thread *threads;
	size_t n_threads, cap_threads;
	uint64_t first_ns, last_ns, records, lost;
	uint64_t lost_ns;  /* in which events were lost, as far as that is known: it is left out */
	uint64_t unseen;   /* times that a thread got a CPU, which was not recorded */
	uint64_t damaged;  /* blocks */
	bool lock_events;  /* probes on lock functions */
	bool owners;       /* what mutexes say of their owners */
	uint64_t big_lock; /* futex that those without address wait on; 0 unknown */
	bool any_qemu;     /* a thread of QEMU was recognised */
	bool timed;        /* threads are seen to get a CPU: without that, no time is known */
	const struct bp_fact **places; /* LOCK and HOST_MAP facts, in order */
	size_t n_places;
	struct bp_waits_private *priv;
};

struct bp_waits_ops {
	void (*on_off)(void *ctx, const struct bp_waits *w, const struct bp_off *off);
	void (*on_futex)(void *ctx, const struct bp_waits *w, const struct bp_futex_wait *f);
	/* @chain: @n threads that woke each other, the last is the one woken now; @slept_ns: since it left
	 * the CPU, 0 if it had not */
	void (*on_wake)(void *ctx, const struct bp_waits *w, const uint32_t *chain, size_t n, bool irq,
			uint64_t slept_ns);
};

#define BP_WAKE_CHAIN 5

/**
 * bp_waits_run() - go through all of it
 * @from_ns, @to_ns: records outside are passed over; to_ns 0: no end
 * Errors: BP_ENOMEM, BP_EOS.
 */
struct bp_err *bp_waits_run(const struct bp_trace *t, uint64_t from_ns, uint64_t to_ns,
			    const struct bp_waits_ops *ops, void *ctx, struct bp_waits **ret) BP_MUST_CHECK;
void bp_waits_destroy(struct bp_waits *w);

static inline void bp_waits_destroyp(struct bp_waits **w)
{
	bp_waits_destroy(*w);
}

/** bp_waits_is_mutex() - whether a futex operation is that of a mutex */
bool bp_waits_is_mutex(uint32_t op);

/** bp_waits_word() - the object that a futex word belongs to: condition variables have two words */
static inline uint64_t bp_waits_word(uint64_t addr, uint32_t op)
{
	return (op & 0x7f) == 9 ? addr & ~(uint64_t)7 : addr;
}

/** bp_waits_waiter_stack() - id of the user stack of who waited for a futex last; 0: none is known */
uint32_t bp_waits_waiter_stack(const struct bp_waits *w, uint64_t addr);

/** bp_waits_lock_name() - a lock's name into @sb: what is known of the address, else the address; *@how how
 * it was found, static or borrowed from the trace */
void bp_waits_lock_name(const struct bp_waits *w, uint64_t addr, struct bp_strbuf *sb, const char **how);

/** bp_waits_thread_name() - "CPU 0/KVM", "[1234]" */
void bp_waits_thread_name(const struct bp_waits *w, uint32_t thread, struct bp_strbuf *sb);

/** bp_waits_frame_name() - "futex_wait", "[qemu-system-x86_64+0x5d565d]", "0x7f..." */
void bp_waits_frame_name(const struct bp_trace *t, uint32_t frame, struct bp_strbuf *sb);

/**
 * bp_waits_stack_text() - @n innermost frames of a stack, "f <- g <- h"; frames that say nothing are left out
 * @callers: also the innermost ones of user space that only wait or lock
 */
void bp_waits_stack_text(const struct bp_trace *t, uint32_t stack, size_t n, bool callers,
			 struct bp_strbuf *sb);

/** bp_waits_user_function() - the innermost function of a user stack that does more than to wait or to lock,
 * the nearest that has a name; nothing for stack 0 */
void bp_waits_user_function(const struct bp_trace *t, uint32_t stack, struct bp_strbuf *sb);

/** bp_waits_title() - the heading of a view of waits; _notes() - what a view of waits has to say about the
 * recording: events lost, no waits at all ...
 */
struct bp_report;
void bp_waits_title(struct bp_analysis *a, const struct bp_waits *w, struct bp_report *r, const char *what);
void bp_waits_notes(const struct bp_waits *w, struct bp_report *r);

/** bp_waits_shown() - whether a view shows the thread: those of QEMU, or all when none was recognised */
bool bp_waits_shown(const struct bp_waits *w, uint32_t thread);

/** bp_waits_listed() - the same, and the user's filters (--process by name or number, --vcpu) let it pass */
struct bp_query;
bool bp_waits_listed(const struct bp_query *q, const struct bp_waits *w, uint32_t thread);

#endif
