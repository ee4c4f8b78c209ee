// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel's call stacks at given moments of a recording:
 *
 *   stacks_at RECORDING < STOPS
 *
 * STOPS: lines "NUMBER VCPU INSTRUCTIONS PC STUB INSNS": the vCPU had executed so many instructions, and the
 * block of code at PC was going to be the next one; STUB is 1 when that is the stub in which the interrupts
 * of a vector begin, else 0; such stubs have INSNS instructions. In order of INSTRUCTIONS for each vCPU.
 * Output, in any order: a line "NUMBER ADDRESS:NAME ..." with the functions on the stack of the task that was
 * running, innermost first.
 *
 * Only frames that a machine stack has: a function that left by a tail call is not there any more. No user
 * space, no pseudo functions.
 *
 * bootprof learns of an entry or return when the block there begins, the debugger sees it as soon as the
 * instruction pointer is there: what the block at PC itself reported belongs to the stack. When an interrupt
 * was taken first, that report comes after the interrupt's return. (Device interrupts begin in a stub
 * for each vector, which is no function.)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/trace.h"

#define MAX_VCPUS 64

static void die(const char *text)
{
	fprintf(stderr, "stacks_at: %s\n", text);
	exit(1);
}

static void *must(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

struct stop {
	uint64_t number, insns, pc;
	uint32_t vcpu, stub, stub_insns;
	bool done, waits; /* waits: for the stack of @task to be @depth deep again */
	uint32_t task, depth;
	uint64_t after; /* instructions at which it was that deep again; 0: not yet */
};

struct frame {
	uint32_t func, kind;
};

struct stack {
	struct frame *frames;
	uint32_t n, cap;
};

struct state {
	struct bp_trace *trace;
	struct bp_decoder *decoder;
	const struct bp_func *funcs;
	struct stop *stops;
	size_t n_stops, next[MAX_VCPUS];
	size_t n_waiting;
	struct stack *stacks;
	uint32_t n_stacks;
	uint32_t task[MAX_VCPUS];
};

static struct stack *stack_of(struct state *s, uint32_t task)
{
	if (task >= s->n_stacks) {
		uint32_t n = task + 1024;

		s->stacks = must(realloc(s->stacks, n * sizeof(*s->stacks)));
		memset(s->stacks + s->n_stacks, 0, (n - s->n_stacks) * sizeof(*s->stacks));
		s->n_stacks = n;
	}
	return &s->stacks[task];
}

static void push(struct stack *st, uint32_t func, uint32_t kind)
{
	if (st->n == st->cap) {
		st->cap = st->cap ? st->cap * 2 : 64;
		st->frames = must(realloc(st->frames, st->cap * sizeof(*st->frames)));
	}
	st->frames[st->n++] = (struct frame){func, kind};
}

static void print(struct state *s, struct stop *stop, const struct stack *st)
{
	uint32_t kind = BP_EV_CALL;

	stop->done = true;
	s->n_waiting -= stop->waits;
	printf("%" PRIu64, stop->number);
	for (uint32_t i = st->n; i-- > 0;) {
		const struct bp_func *f = &s->funcs[st->frames[i].func];
		bool gone = kind == BP_EV_JUMP;

		if (f->space == BP_SPACE_PSEUDO)
			continue;
		kind = st->frames[i].kind;
		if (!gone && (f->space == BP_SPACE_KERNEL || f->space == BP_SPACE_MODULE))
			printf(" %016" PRIx64 ":%s", f->addr, f->name[0] ? f->name : "-");
	}
	putchar('\n');
}

/* The next stop of a vCPU that has not been answered and does not wait. */
static struct stop *next_stop(struct state *s, uint32_t vcpu)
{
	size_t *i = &s->next[vcpu];

	while (*i < s->n_stops && (s->stops[*i].vcpu != vcpu || s->stops[*i].done || s->stops[*i].waits))
		++*i;
	return *i < s->n_stops ? &s->stops[*i] : NULL;
}

/* Stops that lie before what happens next on the vCPU, at @insns. */
static void answer(struct state *s, uint32_t vcpu, uint64_t insns)
{
	struct stop *stop;

	while ((stop = next_stop(s, vcpu)) && stop->insns < insns)
		print(s, stop, stack_of(s, s->task[vcpu]));
}

/* Stops in front of an interrupt that has returned by now: what comes at the same moment still belongs to
 * them. */
static void answer_waiting(struct state *s, uint32_t vcpu, uint64_t insns)
{
	for (size_t i = 0; s->n_waiting && i < s->n_stops && i <= s->next[vcpu]; i++) {
		struct stop *stop = &s->stops[i];

		if (stop->waits && !stop->done && stop->vcpu == vcpu && stop->after && stop->after < insns)
			print(s, stop, stack_of(s, stop->task));
	}
}

/* Was the interrupt that reports itself at @insns taken when @at instructions had been executed? */
static bool taken_at(const struct bp_func *f, uint64_t insns, uint64_t at, uint32_t stub_insns)
{
	if (!strcmp(f->name, "asm_common_interrupt") || !strcmp(f->name, "asm_spurious_interrupt"))
		return insns == at + stub_insns;
	return insns == at;
}

/* An interrupt comes: stops at the moment when it was taken wait for its return. */
static void interrupt(struct state *s, uint32_t vcpu, uint32_t task, const struct bp_func *f, uint64_t insns)
{
	struct stop *stop;

	/* A halted vCPU may have been stopped several times at the same moment. */
	while ((stop = next_stop(s, vcpu)) && !stop->stub &&
	       taken_at(f, insns, stop->insns, stop->stub_insns) && f->addr != stop->pc) {
		stop->waits = true;
		s->n_waiting++;
		stop->task = task;
		stop->depth = stack_of(s, task)->n;
	}
	for (size_t i = 0; s->n_waiting && i < s->n_stops && i <= s->next[vcpu]; i++) {
		stop = &s->stops[i];
		if (stop->waits && !stop->done && stop->vcpu == vcpu && stop->after &&
		    taken_at(f, insns, stop->after, stop->stub_insns))
			stop->after = 0;
	}
}

static void apply(struct state *s, uint32_t vcpu, uint32_t task, const struct bp_event *ev, uint64_t insns)
{
	struct stack *st = stack_of(s, task);
	struct stop *stop;

	if (ev->kind == BP_EV_IRQ)
		interrupt(s, vcpu, task, &s->funcs[ev->arg], insns);
	answer(s, vcpu, insns);
	answer_waiting(s, vcpu, insns);
	switch (ev->kind) {
	case BP_EV_CALL:
	case BP_EV_JUMP:
	case BP_EV_IRQ:
		push(st, ev->arg, ev->kind);
		break;
	case BP_EV_RET:
		st->n = ev->arg < st->n ? st->n - ev->arg : 0;
		break;
	case BP_EV_LOST:
		st->n = 0;
		break;
	default:
		break;
	}
	for (size_t i = 0; s->n_waiting && ev->kind == BP_EV_RET && i < s->n_stops && i <= s->next[vcpu];
	     i++) {
		stop = &s->stops[i];
		if (stop->waits && !stop->done && !stop->after && stop->vcpu == vcpu && stop->task == task &&
		    st->n <= stop->depth)
			stop->after = insns;
	}
}

static void read_stops(struct state *s)
{
	size_t cap = 0;
	struct stop stop;

	memset(&stop, 0, sizeof(stop));
	while (scanf("%" SCNu64 " %" SCNu32 " %" SCNu64 " %" SCNu64 " %" SCNu32 " %" SCNu32, &stop.number,
		     &stop.vcpu, &stop.insns, &stop.pc, &stop.stub, &stop.stub_insns) == 6) {
		if (stop.vcpu >= MAX_VCPUS)
			die("a vCPU that cannot be");
		if (s->n_stops == cap) {
			cap = cap ? cap * 2 : 256;
			s->stops = must(realloc(s->stops, cap * sizeof(*s->stops)));
		}
		s->stops[s->n_stops++] = stop;
	}
}

static void read_block(struct state *s, size_t i)
{
	struct bp_block b;
	struct bp_err *err = bp_decoder_read(s->decoder, s->trace, i, &b);
	const struct bp_run *run = NULL;
	uint64_t insns = 0;

	if (err)
		die(bp_err_text(err));
	for (size_t j = 0; j < b.n_events; j++) {
		const struct bp_event *ev = &b.events[j];

		if (ev->kind != BP_EV_RUN) {
			insns += ev->di;
			apply(s, run->vcpu, run->task, ev, insns);
			continue;
		}
		run = &b.runs[ev->arg];
		insns = run->insns;
		if (run->vcpu >= MAX_VCPUS)
			die("a vCPU that cannot be");
		answer(s, run->vcpu, insns);
		s->task[run->vcpu] = run->task;
		if (run->n_frames != BP_RUN_NO_STACK) {
			struct stack *st = stack_of(s, run->task);

			st->n = 0;
			for (uint32_t k = 0; k < run->n_frames; k++)
				push(st, b.frames[run->first_frame + k].func,
				     b.frames[run->first_frame + k].kind);
		}
	}
}

int main(int argc, char **argv)
{
	struct state s = {0};
	struct bp_err *err;
	size_t n;

	if (argc != 2)
		die("usage: stacks_at RECORDING < STOPS");
	read_stops(&s);
	err = bp_trace_open(argv[1], &s.trace);
	if (!err)
		err = bp_decoder_create(&s.decoder);
	if (err)
		die(bp_err_text(err));
	s.funcs = bp_trace_funcs(s.trace, &n);
	for (size_t i = 0; i < bp_trace_n_blocks(s.trace); i++)
		read_block(&s, i);
	for (uint32_t v = 0; v < MAX_VCPUS; v++) {
		answer(&s, v, UINT64_MAX);
		answer_waiting(&s, v, UINT64_MAX);
	}
	for (size_t i = 0; i < s.n_stops; i++) {
		/* The interrupt never returned: a machine that is switched off. */
		if (s.stops[i].done)
			continue;
		stack_of(&s, s.stops[i].task)->n = s.stops[i].depth;
		print(&s, &s.stops[i], stack_of(&s, s.stops[i].task));
	}
	for (uint32_t i = 0; i < s.n_stacks; i++)
		free(s.stacks[i].frames);
	free(s.stacks);
	free(s.stops);
	bp_decoder_destroy(s.decoder);
	bp_trace_destroy(s.trace);
	return 0;
}
