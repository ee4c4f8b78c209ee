/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A made-up recording for the tests of analyzers, and what its functions' figures are, worked out call by
 * call in the plainest way while it is made: every call looks through its whole stack.
 */
#ifndef BP_TESTS_RANDOM_TRACE_H
#define BP_TESTS_RANDOM_TRACE_H

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/trace.h"

#define RT_FUNCS 40
#define RT_TASKS 6
#define RT_VCPUS 3
#define RT_DEPTH 60

struct rt_figures {
	uint64_t calls, self_ns, self_insns, total_ns, total_insns, sleep_ns;
};

struct rt_frame {
	uint32_t func;
	uint8_t kind;
	uint64_t wall, cpu, insns;
};

struct rt_task {
	struct rt_frame stack[RT_DEPTH];
	uint32_t depth, vcpu;
	uint64_t wall, cpu, insns;
};

/* Fills it while the events are written. */
struct rt {
	struct rt_figures f[RT_FUNCS];
	struct rt_figures by_vcpu[RT_VCPUS][RT_FUNCS]; /* calls and self only */
	struct rt_task tasks[RT_TASKS];
	uint64_t vcpu_ns[RT_VCPUS], vcpu_insns[RT_VCPUS];
	uint64_t events, seed;
	/* the block being made */
	struct bp_event *ev;
	struct bp_run *runs;
	struct bp_frame *frames;
	size_t n_ev, n_runs, n_frames;
};

static inline uint64_t rt_random(struct rt *r)
{
	r->seed ^= r->seed << 13;
	r->seed ^= r->seed >> 7;
	r->seed ^= r->seed << 17;
	return r->seed * 2685821657736338717ull >> 11;
}

/* Function ids 2k and 2k+1 below 10 are the same symbol. */
static inline uint32_t rt_symbol(uint32_t func)
{
	return func < 10 ? func & ~1u : func;
}

static inline void rt_pop(struct rt *r, struct rt_task *t)
{
	struct rt_frame *f = &t->stack[--t->depth];
	struct rt_figures *x = &r->f[rt_symbol(f->func)];

	for (uint32_t i = 0; i < t->depth; i++) {
		if (rt_symbol(t->stack[i].func) == rt_symbol(f->func))
			return;
	}
	x->total_ns += t->cpu - f->cpu;
	x->total_insns += t->insns - f->insns;
	x->sleep_ns += t->wall - f->wall - (t->cpu - f->cpu);
}

static inline void rt_event(struct rt *r, struct rt_task *t, uint32_t kind, uint32_t arg)
{
	uint32_t dt = (uint32_t)(rt_random(r) % 300) * 16, di = (uint32_t)(rt_random(r) % 100);

	r->ev[r->n_ev++] = (struct bp_event){.kind = kind, .arg = arg, .dt = dt, .di = di};
	r->events++;
	t->wall += dt;
	t->cpu += dt;
	t->insns += di;
	r->vcpu_ns[t->vcpu] += dt;
	r->vcpu_insns[t->vcpu] += di;
	if (t->depth) {
		uint32_t top = rt_symbol(t->stack[t->depth - 1].func);

		r->f[top].self_ns += dt;
		r->f[top].self_insns += di;
		r->by_vcpu[t->vcpu][top].self_ns += dt;
		r->by_vcpu[t->vcpu][top].self_insns += di;
	}
	switch (kind) {
	case BP_EV_CALL:
	case BP_EV_JUMP:
	case BP_EV_IRQ:
		r->f[rt_symbol(arg)].calls++;
		r->by_vcpu[t->vcpu][rt_symbol(arg)].calls++;
		t->stack[t->depth++] = (struct rt_frame){arg, (uint8_t)kind, t->wall, t->cpu, t->insns};
		break;
	case BP_EV_RET:
		for (uint32_t i = 0; i < arg; i++)
			rt_pop(r, t);
		break;
	default:
		break;
	}
}

static inline void rt_run(struct rt *r, bool seen[RT_TASKS])
{
	uint32_t task = (uint32_t)(rt_random(r) % RT_TASKS), vcpu = (uint32_t)(rt_random(r) % RT_VCPUS);
	struct rt_task *t = &r->tasks[task];
	struct bp_run *run = &r->runs[r->n_runs];
	size_t n = rt_random(r) % 40;

	/* A task goes on when the vCPU is free, and not before it stopped elsewhere. */
	if (r->vcpu_ns[vcpu] < t->wall)
		r->vcpu_ns[vcpu] = t->wall;
	r->vcpu_ns[vcpu] += rt_random(r) % 50 * 16;
	t->wall = r->vcpu_ns[vcpu];
	t->vcpu = vcpu;
	*run = (struct bp_run){
	    .vcpu = vcpu,
	    .task = task,
	    .time_ns = t->wall,
	    .insns = r->vcpu_insns[vcpu],
	    .cpu_ns = t->cpu,
	    .cpu_insns = t->insns,
	    .n_frames = BP_RUN_NO_STACK,
	};
	if (!seen[task]) {
		run->n_frames = t->depth;
		run->first_frame = (uint32_t)r->n_frames;
		for (uint32_t i = 0; i < t->depth; i++)
			r->frames[r->n_frames++] = (struct bp_frame){
			    .func = t->stack[i].func,
			    .kind = t->stack[i].kind,
			    .wall_ns = t->stack[i].wall,
			    .cpu_ns = t->stack[i].cpu,
			    .insns = t->stack[i].insns,
			};
		seen[task] = true;
	}
	r->ev[r->n_ev++] = (struct bp_event){.kind = BP_EV_RUN, .arg = (uint32_t)r->n_runs++};
	for (size_t i = 0; i < n; i++) {
		uint64_t what = rt_random(r) % 100;

		if (what < 45 && t->depth < RT_DEPTH)
			rt_event(r, t,
				 what < 35   ? BP_EV_CALL
				 : what < 40 ? BP_EV_JUMP
					     : BP_EV_IRQ,
				 (uint32_t)(rt_random(r) % RT_FUNCS));
		else if (what < 95 && t->depth)
			rt_event(r, t, BP_EV_RET, what < 90 ? 1 : (uint32_t)(rt_random(r) % t->depth) + 1);
		else
			rt_event(r, t, BP_EV_TICK, 0);
	}
}

/* Write @n_blocks blocks of about @block_events events to @path. Calls open at the end are counted. */
static inline struct rt *rt_make(const char *path, size_t n_blocks, size_t block_events, uint64_t seed)
{
	struct rt *r = calloc(1, sizeof(*r));
	struct bp_trace_writer *w;
	struct bp_err *err;

	assert(r);
	r->seed = seed;
	r->ev = calloc(block_events + 100, sizeof(*r->ev));
	r->runs = calloc(block_events + 100, sizeof(*r->runs));
	r->frames = calloc(RT_TASKS * RT_DEPTH, sizeof(*r->frames));
	assert(r->ev && r->runs && r->frames);
	remove(path);
	err = bp_trace_writer_create(path, 4, &w);
	for (uint32_t i = 0; i < RT_FUNCS && !err; i++) {
		char name[16];
		struct bp_func f = {
		    .id = i,
		    .space = BP_SPACE_KERNEL,
		    .addr = 0xffffffff81000000 + i * 16,
		    .sym_addr = 0xffffffff81000000 + rt_symbol(i) * 16,
		    .name = name,
		    .module = "vmlinux",
		};

		snprintf(name, sizeof(name), "f%u", rt_symbol(i));
		err = bp_trace_writer_func(w, &f);
	}
	for (size_t b = 0; b < n_blocks && !err; b++) {
		bool seen[RT_TASKS] = {false};
		struct bp_block block;

		r->n_ev = r->n_runs = r->n_frames = 0;
		while (r->n_ev < block_events)
			rt_run(r, seen);
		block = (struct bp_block){r->ev, r->n_ev, r->runs, r->n_runs, r->frames, r->n_frames};
		err = bp_trace_writer_block(w, &block);
	}
	if (!err)
		err = bp_trace_writer_close(w);
	if (err)
		fprintf(stderr, "%s\n", bp_err_text(err));
	assert(!err);
	for (uint32_t i = 0; i < RT_TASKS; i++) {
		while (r->tasks[i].depth)
			rt_pop(r, &r->tasks[i]);
	}
	return r;
}

static inline void rt_free(struct rt *r)
{
	free(r->ev);
	free(r->runs);
	free(r->frames);
	free(r);
}

#endif
