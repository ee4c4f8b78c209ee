// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Kernel function entries between two moments of a recording:
 *
 *   window_counts RECORDING KERNEL START[,LATER]... STOP TRACER...
 *
 * The window begins at the last entry of START that a STOP follows; with further names, at the first entry of
 * the last of them after the ones before it, all in the same task. It ends at that task's next entry of STOP.
 * Bounds are exact (in instructions) on the vCPU where the task was at that moment; on the others they are
 * moments of host time.
 *
 * Output, a line for each kernel function: entries; those of them made by the tracer itself; 1 when the
 * function begins with a call of __fentry__ in the kernel image KERNEL, so that ftrace can see it, else 0;
 * address as linked; name. An entry is the tracer's own when a function named TRACER is on the stack above
 * the newest interrupt. The first line, beginning with '#', has the bounds, and how many entries on other
 * vCPUs are less than 10 us from one of them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/trace.h"
#include "symbols/kimage.h"

#define EDGE_NS 10000
#define MAX_NAMES 8

struct moment {
	uint64_t ns, insns;
	uint32_t vcpu;
	bool seen;
};

struct window {
	struct moment start, stop;
};

/* Stack of a task: what the tracer question needs of each frame. */
enum { FRAME_IRQ = 1, FRAME_TRACER = 2 };

struct stack {
	uint8_t *frames;
	uint32_t n, cap;
	size_t next; /* the mark that comes next */
	struct window open;
};

struct state {
	struct bp_trace *trace;
	struct bp_decoder *decoder;
	const struct bp_func *funcs;
	size_t n_funcs;
	uint32_t marks[MAX_NAMES]; /* function ids: the start's, in order, then the stop's */
	size_t n_marks;
	struct window found;
	uint8_t *tracer; /* per function */
	uint64_t *entries, *own;
	uint64_t at_edge;
	struct stack *stacks; /* per task */
	uint32_t n_stacks;
};

static void die(const char *text)
{
	fprintf(stderr, "window_counts: %s\n", text);
	exit(1);
}

static void *must(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

static bool is_entry(uint32_t kind)
{
	return kind == BP_EV_CALL || kind == BP_EV_JUMP || kind == BP_EV_IRQ;
}

/* Go for the marks in every task; the last window that was completed is the one. */
static void look(struct state *s, struct stack *st, const struct bp_run *run, const struct bp_event *ev,
		 uint64_t ns, uint64_t insns)
{
	struct moment now = {ns, insns, run->vcpu, true};

	if (!is_entry(ev->kind))
		return;
	if (ev->arg == s->marks[0])
		st->next = 0;
	if (ev->arg != s->marks[st->next])
		return;
	st->next++;
	if (st->next + 1 == s->n_marks)
		st->open.start = now;
	if (st->next == s->n_marks) {
		st->open.stop = now;
		s->found = st->open;
		st->next = 0;
	}
}

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

static void push(struct state *s, struct stack *st, uint32_t func, uint32_t kind)
{
	if (st->n == st->cap) {
		st->cap = st->cap ? st->cap * 2 : 64;
		st->frames = must(realloc(st->frames, st->cap));
	}
	st->frames[st->n++] =
	    (uint8_t)((kind == BP_EV_IRQ ? FRAME_IRQ : 0) | (s->tracer[func] ? FRAME_TRACER : 0));
}

static bool in_tracer(const struct stack *st)
{
	for (uint32_t i = st->n; i-- > 0;) {
		if (st->frames[i] & FRAME_TRACER)
			return true;
		if (st->frames[i] & FRAME_IRQ)
			return false;
	}
	return false;
}

static void count(struct state *s, struct stack *st, const struct bp_run *run, const struct bp_event *ev,
		  uint64_t ns, uint64_t insns)
{
	const struct window *w = &s->found;

	if (is_entry(ev->kind)) {
		bool in = true;

		if (run->vcpu == w->start.vcpu) {
			in &= insns > w->start.insns;
		} else {
			in &= ns > w->start.ns;
			s->at_edge += ns + EDGE_NS - w->start.ns < 2 * EDGE_NS;
		}
		if (run->vcpu == w->stop.vcpu) {
			in &= insns < w->stop.insns;
		} else {
			in &= ns < w->stop.ns;
			s->at_edge += ns + EDGE_NS - w->stop.ns < 2 * EDGE_NS;
		}
		if (in) {
			s->entries[ev->arg]++;
			/* A tracer function is itself called from nowhere else. */
			s->own[ev->arg] += in_tracer(st);
		}
		push(s, st, ev->arg, ev->kind);
	} else if (ev->kind == BP_EV_RET) {
		st->n = ev->arg < st->n ? st->n - ev->arg : 0;
	} else if (ev->kind == BP_EV_LOST) {
		st->n = 0;
	}
}

static void each_event(struct state *s, bool counting)
{
	for (size_t i = 0; i < bp_trace_n_blocks(s->trace); i++) {
		const struct bp_run *run = NULL;
		struct stack *st = NULL;
		uint64_t ns = 0, insns = 0;
		struct bp_block b;
		struct bp_err *err = bp_decoder_read(s->decoder, s->trace, i, &b);

		if (err)
			die(bp_err_text(err));
		for (size_t j = 0; j < b.n_events; j++) {
			const struct bp_event *ev = &b.events[j];

			if (ev->kind == BP_EV_RUN) {
				run = &b.runs[ev->arg];
				ns = run->time_ns;
				insns = run->insns;
				st = stack_of(s, run->task);
				if (run->n_frames != BP_RUN_NO_STACK) {
					st->n = 0;
					for (uint32_t k = 0; k < run->n_frames; k++)
						push(s, st, b.frames[run->first_frame + k].func,
						     b.frames[run->first_frame + k].kind);
				}
				continue;
			}
			ns += ev->dt;
			insns += ev->di;
			if (counting)
				count(s, st, run, ev, ns, insns);
			else
				look(s, st, run, ev, ns, insns);
		}
	}
}

static uint32_t find_func(const struct state *s, const char *name)
{
	for (size_t i = 0; i < s->n_funcs; i++)
		if (s->funcs[i].space == BP_SPACE_KERNEL && !strcmp(s->funcs[i].name, name))
			return (uint32_t)i;
	fprintf(stderr, "window_counts: %s was never entered\n", name);
	exit(1);
}

/* Source: gcc -pg -mfentry, the kernel's scripts: a call to __fentry__, or the 5-byte nop in its place, after
 * endbr64. */
static bool has_fentry(const struct bp_kimage *k, uint64_t addr)
{
	const struct bp_ksym *fentry = bp_kimage_lookup(k, "__fentry__");
	uint8_t b[5];
	int32_t rel;

	if (!bp_kimage_read(k, addr, b, sizeof(b)))
		return false;
	if (!memcmp(b, "\xf3\x0f\x1e\xfa", 4)) {
		addr += 4;
		if (!bp_kimage_read(k, addr, b, sizeof(b)))
			return false;
	}
	memcpy(&rel, b + 1, 4);
	return !memcmp(b, "\x0f\x1f\x44\x00\x00", 5) ||
	       (b[0] == 0xe8 && fentry && addr + 5 + (uint64_t)(int64_t)rel == fentry->addr);
}

int main(int argc, char **argv)
{
	struct state s = {0};
	struct bp_kimage *kernel = NULL;
	struct bp_err *err;
	char *name, *save = NULL;

	if (argc < 5)
		die("usage: window_counts RECORDING KERNEL START[,LATER]... STOP TRACER...");
	err = bp_trace_open(argv[1], &s.trace);
	if (!err)
		err = bp_kimage_open(argv[2], &kernel);
	if (!err)
		err = bp_decoder_create(&s.decoder);
	if (err)
		die(bp_err_text(err));
	s.funcs = bp_trace_funcs(s.trace, &s.n_funcs);
	for (name = strtok_r(argv[3], ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		if (s.n_marks + 1 == MAX_NAMES)
			die("too many names");
		s.marks[s.n_marks++] = find_func(&s, name);
	}
	s.marks[s.n_marks++] = find_func(&s, argv[4]);
	s.tracer = must(calloc(s.n_funcs, 1));
	s.entries = must(calloc(s.n_funcs, sizeof(*s.entries)));
	s.own = must(calloc(s.n_funcs, sizeof(*s.own)));
	for (size_t i = 0; i < s.n_funcs; i++)
		for (int j = 5; j < argc; j++)
			s.tracer[i] |=
			    s.funcs[i].space == BP_SPACE_KERNEL && !strcmp(s.funcs[i].name, argv[j]);
	each_event(&s, false);
	if (!s.found.stop.seen)
		die("the window is not in the recording");
	each_event(&s, true);
	printf("# window from vCPU %" PRIu32 " at %" PRIu64 " ns to vCPU %" PRIu32 " at %" PRIu64
	       " ns, %" PRIu64 " entries of other vCPUs at its edges\n",
	       s.found.start.vcpu, s.found.start.ns, s.found.stop.vcpu, s.found.stop.ns, s.at_edge);
	for (size_t i = 0; i < s.n_funcs; i++)
		if (s.entries[i] && s.funcs[i].space == BP_SPACE_KERNEL)
			printf("%" PRIu64 " %" PRIu64 " %d %016" PRIx64 " %s\n", s.entries[i], s.own[i],
			       has_fentry(kernel, s.funcs[i].addr), s.funcs[i].addr,
			       s.funcs[i].name[0] ? s.funcs[i].name : "-");
	for (uint32_t i = 0; i < s.n_stacks; i++)
		free(s.stacks[i].frames);
	free(s.stacks);
	free(s.tracer);
	free(s.entries);
	free(s.own);
	bp_kimage_destroy(kernel);
	bp_decoder_destroy(s.decoder);
	bp_trace_destroy(s.trace);
	return 0;
}
