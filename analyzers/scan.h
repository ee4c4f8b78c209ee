/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Goes through one block of a recording alone: a block brings the stacks of its tasks along, so that any part
 * of a recording can be looked at without what is before it. For everything that looks at a window of time;
 * sums over a whole recording are the walk's (analyzers/walk.h), which knows about gaps.
 *
 * bp_scan_block() is a macro-free template like bp_walk_inline(): call it with a constant table of inline
 * functions.
 */
#ifndef BP_ANALYZERS_SCAN_H
#define BP_ANALYZERS_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/event.h"
#include "core/trace.h"

#define BP_SCAN_NO_SYSCALL UINT32_MAX
#define BP_SCAN_NO_ROW UINT32_MAX

/* A function on a task's stack. stack[0] is the ground: no function (row == BP_SCAN_NO_ROW). */
struct bp_scan_frame {
	uint32_t row;
	uint32_t
	    syscall;  /* number when this is the entry function of a system call that the block tells of */
	uint8_t kind; /* BP_EV_CALL, BP_EV_JUMP, BP_EV_IRQ */
	bool entered; /* entered in this block */
	bool fresh;   /* ... and in the current run */
	uint64_t wall_ns;  /* host time of its entry */
	uint64_t shown_ns; /* the later of its entry and the start of the current run */
	uint64_t self_ns;  /* on top of the stack, in this block */
	uint64_t insns;    /* the task's instructions at its entry */
};

struct bp_scan_task {
	uint32_t id;
	uint32_t depth, cap;
	uint32_t pending; /* number of a system call whose entry function comes next */
	struct bp_scan_frame *stack;
};

/* Room for the stacks of a block; kept from block to block. */
struct bp_scan {
	struct bp_scan_task *tasks;
	size_t n_tasks, cap_tasks; /* n_tasks: of the current block */
	uint32_t *hash;            /* position in tasks[] plus 1 */
	size_t hash_size;
};

/* Where the scan is. Borrowed until the callback returns. */
struct bp_scan_now {
	struct bp_scan_task *task;
	uint32_t vcpu;
	uint64_t wall_ns;
	uint64_t insns;      /* of the task */
	uint64_t vcpu_insns; /* of the vCPU */
};

struct bp_scan_ops {
	void (*on_run)(void *ctx, const struct bp_scan_now *now);     /* the stack is as the run begins */
	void (*on_run_end)(void *ctx, const struct bp_scan_now *now); /* its frames are still open */
	void (*on_enter)(void *ctx, struct bp_scan_frame *f, uint32_t depth, const struct bp_scan_now *now);
	void (*on_leave)(void *ctx, struct bp_scan_frame *f, uint32_t depth, const struct bp_scan_now *now);
	/* time that ends now, before the event takes effect; @top may be the ground */
	void (*on_time)(void *ctx, struct bp_scan_frame *top, const struct bp_scan_now *now, uint32_t dt,
			uint32_t di);
};

void bp_scan_deinit(struct bp_scan *s);

/* For the template only. */
struct bp_err *bp_scan_begin(struct bp_scan *s, const struct bp_block *b, const struct bp_run *run,
			     const uint32_t *row_of, struct bp_scan_task **ret) BP_MUST_CHECK;
struct bp_err *bp_scan_grow(struct bp_scan_task *t) BP_MUST_CHECK;
void bp_scan_reset(struct bp_scan *s);

/**
 * bp_scan_block() - tell constant @ops what happens in @b
 * @row_of: function id -> row, for all functions of the trace. Errors: BP_ENOMEM.
 */
static inline __attribute__((always_inline)) BP_MUST_CHECK struct bp_err *
bp_scan_block(struct bp_scan *s, const struct bp_block *b, const uint32_t *row_of,
	      const struct bp_scan_ops *ops, void *ctx)
{
	const struct bp_event *ev = b->events, *end = ev + b->n_events;

	bp_scan_reset(s);
	while (ev != end) {
		const struct bp_run *run;
		struct bp_scan_now now;
		struct bp_scan_task *t;
		struct bp_scan_frame *top;
		struct bp_err *err;

		if (ev->kind != BP_EV_RUN || ev->arg >= b->n_runs) {
			ev++;
			continue;
		}
		run = &b->runs[ev->arg];
		err = bp_scan_begin(s, b, run, row_of, &t);
		if (err)
			return err;
		now = (struct bp_scan_now){.task = t,
					   .vcpu = run->vcpu,
					   .wall_ns = run->time_ns,
					   .insns = run->cpu_insns,
					   .vcpu_insns = run->insns};
		if (ops->on_run)
			ops->on_run(ctx, &now);
		top = t->stack + t->depth;
		for (ev++; ev != end && ev->kind != BP_EV_RUN; ev++) {
			now.wall_ns += ev->dt;
			now.insns += ev->di;
			now.vcpu_insns += ev->di;
			top->self_ns += ev->dt;
			if (ops->on_time && (ev->dt || ev->di))
				ops->on_time(ctx, top, &now, ev->dt, ev->di);
			switch (ev->kind) {
			case BP_EV_CALL:
			case BP_EV_JUMP:
			case BP_EV_IRQ:
				if (__builtin_expect(t->depth + 1 >= t->cap, 0)) {
					err = bp_scan_grow(t);
					if (err)
						return err;
				}
				top = t->stack + ++t->depth;
				*top = (struct bp_scan_frame){.row = row_of[ev->arg],
							      .syscall = t->pending,
							      .kind = (uint8_t)ev->kind,
							      .entered = true,
							      .fresh = true,
							      .wall_ns = now.wall_ns,
							      .shown_ns = now.wall_ns,
							      .insns = now.insns};
				t->pending = BP_SCAN_NO_SYSCALL;
				if (ops->on_enter)
					ops->on_enter(ctx, top, t->depth, &now);
				break;
			case BP_EV_RET:
				for (uint32_t n = ev->arg; n && t->depth; n--) {
					if (ops->on_leave)
						ops->on_leave(ctx, top, t->depth, &now);
					t->depth--;
					top--;
				}
				break;
			case BP_EV_SYSCALL:
				t->pending = ev->arg;
				break;
			case BP_EV_LOST:
				for (; t->depth; t->depth--, top--) {
					if (ops->on_leave)
						ops->on_leave(ctx, top, t->depth, &now);
				}
				break;
			default:
				break;
			}
		}
		if (ops->on_run_end)
			ops->on_run_end(ctx, &now);
	}
	return NULL;
}

#endif
