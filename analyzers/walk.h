/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Goes through the events of a recording in file order, keeping one stack per task and the clocks of
 * tasks and vCPUs, and tells an analyzer what happens.
 *
 * There is one table of callbacks, struct bp_walk_ops, and two ways to use it:
 *
 *   bp_walk_run(w, &ops, ctx)     an indirect call per callback; for most analyzers
 *   bp_walk_inline(w, &ops, ctx)  with a `static const` table of `static inline` functions: the compiler puts
 *                                 them into a copy of the loop made for this analyzer, and leaves out what
 *                                 is NULL. For analyzers that must do 50 million events a second.
 *
 * Filters (time, vCPU, task, function, depth) are applied here, so that every analyzer has them: what is
 * filtered out is never told. Filtered walks take a slower loop.
 *
 * Blocks are decoded ahead by helper threads; all callbacks come from the thread that walks.
 */
#ifndef BP_ANALYZERS_WALK_H
#define BP_ANALYZERS_WALK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/event.h"
#include "core/trace.h"

#define BP_WALK_NO_SYSCALL UINT32_MAX
#define BP_WALK_NO_FUNC UINT32_MAX
/* Largest vCPU number (plus one) that a recording can have; blocks with larger ones count as damaged. */
#define BP_WALK_VCPUS 4096

/* Frame flags. */
enum {
	BP_FRAME_CUT = 1,   /* entered before we looked: the entry clocks are not those of a seen entry */
	BP_FRAME_SHOWN = 2, /* filtered walks: told to the analyzer */
	BP_FRAME_IN = 4,    /* filtered walks: at or below a function of the `in` filter */
	BP_FRAME_OUT = 8,   /* filtered walks: at or below a function of the `out` filter, or too deep */
};

/*
 * One function on a task's stack. Time that passes is added to self_* of the frame on top.
 * stack[0] of every task is the ground: no function (func == row == BP_WALK_NO_FUNC), so that `frame - 1` is
 * always there.
 */
struct bp_walk_frame {
	uint32_t func; /* function id */
	uint32_t row;  /* options.row_of[func] */
	uint32_t
	    syscall; /* number when this is the entry function of a system call, else BP_WALK_NO_SYSCALL */
	uint16_t shown_depth; /* filtered walks: depth among the frames that are told, from 1 */
	uint8_t kind;         /* BP_EV_CALL, BP_EV_JUMP, BP_EV_IRQ */
	uint8_t flags;
	uint64_t wall_ns; /* clocks at entry: host time, */
	uint64_t cpu_ns;  /*   the task's time on a vCPU, */
	uint64_t insns;   /*   the task's instructions */
	uint64_t self_ns; /* spent on top of the stack so far */
	uint64_t self_insns;
	uint64_t user; /* the analyzer's; 0 at entry */
};

struct bp_walk_task {
	uint32_t id;
	uint32_t index; /* 0, 1, 2 ... in order of appearance */
	uint32_t depth; /* functions on the stack: stack[1] .. stack[depth] */
	uint32_t cap;
	uint32_t over;    /* functions beyond BP_MAX_DEPTH, not kept */
	uint32_t vcpu;    /* where it ran last */
	uint32_t pending; /* number of a system call whose entry function comes next */
	uint32_t generation;
	bool skip; /* filtered out, or past the end of the time filter */
	bool seen; /* has been in the time filter */
	struct bp_walk_frame *stack;
	uint64_t wall_ns; /* clocks after its last event */
	uint64_t cpu_ns;
	uint64_t insns;
	uint64_t hid_ns; /* filtered walks: what of cpu_ns and insns was filtered out */
	uint64_t hid_insns;
	uint64_t user; /* the analyzer's; starts as 0 */
};

struct bp_walk_vcpu {
	uint64_t wall_ns; /* clocks after its last event */
	uint64_t insns;
	bool seen;
};

struct bp_walk;

/* Where we are. Borrowed until the callback returns. */
struct bp_walk_now {
	struct bp_walk *walk;
	struct bp_walk_task *task;
	uint32_t vcpu;
	uint64_t wall_ns; /* host time since QEMU was started */
	uint64_t cpu_ns;  /* the task's clocks (what a filter hides is not counted) */
	uint64_t insns;
	uint64_t vcpu_insns; /* the vCPU's instructions */
};

enum bp_walk_leave {
	BP_LEAVE_RET,  /* it was popped */
	BP_LEAVE_LOST, /* events are missing: it ended somewhere in the gap */
	BP_LEAVE_END,  /* still open at the end of the recording or of the time filter */
};

/* What an analyzer wants to be told; any may be NULL. In order of time for each task and each vCPU. */
struct bp_walk_ops {
	/* now->task goes on on now->vcpu; its former vCPU is task->vcpu (equal to now->vcpu in its first run)
	 */
	void (*on_run)(void *ctx, const struct bp_walk_now *now);
	/* ... and stops, at the last event of the run */
	void (*on_run_end)(void *ctx, const struct bp_walk_now *now);
	/* @f was pushed; f[-1] is what was on top before */
	void (*on_enter)(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now);
	/* @f is on the stack although its entry was not told (start of the time filter, gap); outermost first
	 */
	void (*on_resume)(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now);
	/* @f will be popped; self_* are complete */
	void (*on_leave)(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
			 enum bp_walk_leave how);
	/* system call @nr: its entry function is pushed next, with f->syscall set */
	void (*on_syscall)(void *ctx, uint32_t nr, const struct bp_walk_now *now);
	/* @records were lost here; the task's functions have been left with BP_LEAVE_LOST */
	void (*on_lost)(void *ctx, uint64_t records, const struct bp_walk_now *now);
	/* each event, after its time was added to the top frame's self_* and before it takes effect;
	 * for analyzers that cut time differently. @top may be the ground. */
	void (*on_time)(void *ctx, struct bp_walk_frame *top, const struct bp_walk_now *now, uint64_t dt,
			uint64_t di);
};

/* Bits of bp_walk_options.match[row]. */
enum { BP_MATCH_IN = 1, BP_MATCH_OUT = 2 };

struct bp_walk_options {
	/* function id -> row, for all functions of the trace; borrowed. NULL: row = id */
	const uint32_t *row_of;
	/* filters */
	uint64_t from_ns, to_ns;                   /* host time, both inclusive; to_ns 0: no end */
	const uint64_t *vcpus;                     /* bit set of BP_WALK_VCPUS bits, borrowed; NULL: all */
	bool (*task_ok)(void *arg, uint32_t task); /* NULL: all */
	void *arg;
	const uint8_t *match; /* by row, BP_MATCH_*, borrowed; NULL: no function filter */
	bool has_in;          /* only calls of BP_MATCH_IN rows and what they call */
	uint32_t max_depth;   /* deeper functions count as part of the one at that depth; 0: no limit */
	int threads;          /* helpers that decode; 0: as many as there are processors, less one, at most 3;
			       * -1: none */
	const atomic_bool *cancel; /* the walk ends early once it is set, between two blocks; NULL: never */
};

/* What was found on the way, after the walk. */
struct bp_walk_stats {
	uint64_t blocks, events;
	uint64_t damaged_blocks;    /* could not be decoded */
	uint64_t gaps;              /* places where stacks had to be taken from the next block */
	uint64_t lost_records;      /* as LOST events say */
	uint64_t resyncs;           /* stacks that did not agree with the block's own */
	uint64_t overflows;         /* functions deeper than BP_MAX_DEPTH */
	uint64_t first_ns, last_ns; /* host time of the first and last event */
};

struct bp_walk {
	/* The rest of the walker is private to walk.c; these are read by the inline loop and by analyzers. */
	const struct bp_trace *trace;
	struct bp_walk_options opt;
	const uint32_t *row_of;
	struct bp_walk_stats stats;
	struct bp_walk_task **tasks; /* by index */
	size_t n_tasks;
	struct bp_walk_vcpu *vcpus; /* n_vcpus, by number */
	size_t n_vcpus;
	bool filtered;
	bool stop; /* a callback sets it to end the walk early */
	struct bp_walk_private *priv;
};

/**
 * bp_walk_create() - prepare to go through @trace once
 * @opt: copied; NULL for no filters
 */
struct bp_err *bp_walk_create(const struct bp_trace *trace, const struct bp_walk_options *opt,
			      struct bp_walk **ret) BP_MUST_CHECK;
void bp_walk_destroy(struct bp_walk *w);

static inline void bp_walk_destroyp(struct bp_walk **w)
{
	bp_walk_destroy(*w);
}

/**
 * bp_walk_run() - tell @ops everything; once per walker
 * A damaged block is counted in stats and passed over.
 * Errors: BP_ENOMEM.
 */
struct bp_err *bp_walk_run(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx) BP_MUST_CHECK;

/* One analyzer of several that share a walk. frame->user and task->user belong to the first that uses them.
 */
struct bp_walk_part {
	const struct bp_walk_ops *ops;
	void *ctx;
};

/** bp_walk_run_all() - one walk for several analyzers; for each callback in the order of @parts */
struct bp_err *bp_walk_run_all(struct bp_walk *w, const struct bp_walk_part *parts, size_t n) BP_MUST_CHECK;

/** bp_walk_damage_text() - text of the first damaged block's error, NULL if none; borrowed from @w */
const char *bp_walk_damage_text(const struct bp_walk *w);

/* Time on a vCPU, instructions and switched-out time of a frame that is being left. */
static inline uint64_t bp_walk_total_ns(const struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	return now->cpu_ns - f->cpu_ns;
}

static inline uint64_t bp_walk_total_insns(const struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	return now->insns - f->insns;
}

static inline uint64_t bp_walk_sleep_ns(const struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	uint64_t wall = now->wall_ns - f->wall_ns, cpu = now->cpu_ns - f->cpu_ns;

	return wall > cpu ? wall - cpu : 0;
}

/*
 * Below: the loop. bp_walk_inline() is a macro-free template: call it with constant @ops.
 */

#define bp_walk_always_inline inline __attribute__((always_inline))
#define bp_walk_unlikely(x) __builtin_expect(!!(x), 0)

/* For the inline loop only. */
struct bp_err *bp_walk_next_block(struct bp_walk *w, struct bp_block *block, bool *more) BP_MUST_CHECK;
struct bp_err *bp_walk_begin_run(struct bp_walk *w, const struct bp_block *block, const struct bp_run *run,
				 const struct bp_walk_ops *ops, void *ctx,
				 struct bp_walk_now *now) BP_MUST_CHECK;
void bp_walk_end_run(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
		     const struct bp_walk_now *now, uint32_t depth);
struct bp_err *bp_walk_grow(struct bp_walk *w, struct bp_walk_task *task) BP_MUST_CHECK;
uint32_t bp_walk_lost(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
		      const struct bp_walk_now *now, uint32_t depth, uint64_t records);
struct bp_err *bp_walk_slow_run(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
				struct bp_walk_now *now, const struct bp_event **pos,
				const struct bp_event *end) BP_MUST_CHECK;
void bp_walk_finish(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx);

static bp_walk_always_inline BP_MUST_CHECK struct bp_err *
bp_walk_fast_run(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx, struct bp_walk_now *start,
		 const struct bp_event **pos, const struct bp_event *end)
{
	struct bp_walk_task *task = start->task;
	struct bp_walk_frame *top = task->stack + task->depth, *limit = task->stack + task->cap - 1;
	const struct bp_event *ev = *pos;
	const uint32_t *row_of = w->row_of;
	struct bp_walk_now now = *start;
	struct bp_err *err;

	for (; ev != end && ev->kind != BP_EV_RUN; ev++) {
		now.wall_ns += ev->dt;
		now.cpu_ns += ev->dt;
		now.insns += ev->di;
		now.vcpu_insns += ev->di;
		top->self_ns += ev->dt;
		top->self_insns += ev->di;
		if (ops->on_time)
			ops->on_time(ctx, top, &now, ev->dt, ev->di);
		switch (ev->kind) {
		case BP_EV_CALL:
		case BP_EV_JUMP:
		case BP_EV_IRQ:
			if (bp_walk_unlikely(top == limit)) {
				task->depth = (uint32_t)(top - task->stack);
				err = bp_walk_grow(w, task);
				if (err)
					return err;
				top = task->stack + task->depth;
				limit = task->stack + task->cap - 1;
				if (top == limit) {
					task->over++;
					task->pending = BP_WALK_NO_SYSCALL;
					break;
				}
			}
			top++;
			top->func = ev->arg;
			top->row = row_of[ev->arg];
			top->syscall = task->pending;
			top->shown_depth = 0;
			top->kind = (uint8_t)ev->kind;
			top->flags = 0;
			top->wall_ns = now.wall_ns;
			top->cpu_ns = now.cpu_ns;
			top->insns = now.insns;
			top->self_ns = 0;
			top->self_insns = 0;
			top->user = 0;
			task->pending = BP_WALK_NO_SYSCALL;
			if (ops->on_enter)
				ops->on_enter(ctx, top, &now);
			break;
		case BP_EV_RET: {
			uint32_t n = ev->arg;

			if (bp_walk_unlikely(task->over)) {
				uint32_t k = n < task->over ? n : task->over;

				task->over -= k;
				n -= k;
			}
			for (; n && bp_walk_unlikely(top == task->stack) == 0; n--) {
				if (ops->on_leave)
					ops->on_leave(ctx, top, &now, BP_LEAVE_RET);
				top--;
			}
			break;
		}
		case BP_EV_SYSCALL:
			task->pending = ev->arg;
			if (ops->on_syscall)
				ops->on_syscall(ctx, ev->arg, &now);
			break;
		case BP_EV_LOST: {
			/* A copy: handing out &now would keep the clocks in memory for the whole loop. */
			struct bp_walk_now at = now;

			top = task->stack +
			      bp_walk_lost(w, ops, ctx, &at, (uint32_t)(top - task->stack), ev->arg);
			break;
		}
		default:
			break;
		}
	}
	*pos = ev;
	task->depth = (uint32_t)(top - task->stack);
	*start = now;
	return NULL;
}

/** bp_walk_inline() - bp_walk_run() with the callbacks of a constant @ops put into the loop */
static bp_walk_always_inline BP_MUST_CHECK struct bp_err *
bp_walk_inline(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx)
{
	for (;;) {
		struct bp_block block;
		const struct bp_event *ev, *end;
		bool more;
		struct bp_err *err = bp_walk_next_block(w, &block, &more);

		if (err)
			return err;
		if (!more)
			break;
		ev = block.events;
		end = ev + block.n_events;
		while (ev != end) {
			struct bp_walk_now now;

			/* The reader has checked that a block begins with a RUN and that its index is in
			 * range. */
			err = bp_walk_begin_run(w, &block, &block.runs[ev->arg], ops, ctx, &now);
			if (err)
				return err;
			ev++;
			if (now.task->skip) {
				while (ev != end && ev->kind != BP_EV_RUN)
					ev++;
				continue;
			}
			if (w->filtered)
				err = bp_walk_slow_run(w, ops, ctx, &now, &ev, end);
			else
				err = bp_walk_fast_run(w, ops, ctx, &now, &ev, end);
			if (err)
				return err;
			bp_walk_end_run(w, ops, ctx, &now, now.task->depth);
		}
	}
	bp_walk_finish(w, ops, ctx);
	return NULL;
}

#endif
