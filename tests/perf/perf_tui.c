// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the terminal user interface costs, on a made-up recording or a given one: time to the first screen,
 * the index, and CPU time of the drawing thread for each step of zooming in to single calls, panning and
 * searching.
 *
 *   perf_tui [MILLIONS_OF_CALLS | FILE] [WxH]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tui/tui.h"

#define FUNCS 8000
#define VCPUS 2
#define TASKS 24

static double now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void must(struct bp_err *err)
{
	if (!err)
		return;
	fprintf(stderr, "perf_tui: %s\n", bp_err_text(err));
	_exit(1);
}

struct task {
	struct bp_frame stack[48];
	uint32_t depth;
	uint64_t cpu, insns;
};

/* Calls wander up and down between 6 and 40 deep; tasks take turns. */
static void make(const char *path, double calls)
{
	struct bp_event *ev = calloc(BP_BLOCK_EVENTS, sizeof(*ev));
	struct task *tasks = calloc(TASKS, sizeof(*tasks));
	uint64_t clock[VCPUS] = {0}, insns[VCPUS] = {0}, seed = 88172645463325252ull, made = 0;
	struct bp_trace_writer *w;

	remove(path);
	must(bp_trace_writer_create(path, 4, &w));
	for (uint32_t i = 0; i < FUNCS; i++) {
		char name[32];
		struct bp_func f = {.id = i,
				    .space = i % 10 < 7   ? BP_SPACE_KERNEL
					     : i % 10 < 8 ? BP_SPACE_MODULE
							  : BP_SPACE_USER,
				    .addr = 0xffffffff81000000 + i * 256,
				    .sym_addr = 0xffffffff81000000 + i * 256,
				    .name = name,
				    .module = i % 10 < 7   ? "vmlinux"
					      : i % 10 < 8 ? "virtio"
							   : "/bin/sh"};

		snprintf(name, sizeof(name), "function_%u", i);
		must(bp_trace_writer_func(w, &f));
	}
	for (unsigned b = 0; (double)made < calls; b++) {
		struct bp_run runs[2];
		struct bp_frame frames[96];
		struct bp_block block = {.events = ev, .runs = runs, .frames = frames};
		uint32_t v = b % VCPUS;

		for (unsigned r = 0; r < 2; r++) {
			struct task *t = &tasks[(b / VCPUS * 2 + r) % (TASKS / VCPUS) * VCPUS + v];

			runs[r] = (struct bp_run){.vcpu = v,
						  .task = (uint32_t)(t - tasks),
						  .time_ns = clock[v],
						  .insns = insns[v],
						  .cpu_ns = t->cpu,
						  .cpu_insns = t->insns,
						  .n_frames = t->depth,
						  .first_frame = (uint32_t)block.n_frames};
			memcpy(frames + block.n_frames, t->stack, t->depth * sizeof(*frames));
			block.n_frames += t->depth;
			ev[block.n_events++] = (struct bp_event){.kind = BP_EV_RUN, .arg = r};
			while (block.n_events < BP_BLOCK_EVENTS / 2 * (r + 1)) {
				struct bp_event *e = &ev[block.n_events++];

				seed ^= seed << 13;
				seed ^= seed >> 7;
				seed ^= seed << 17;
				e->dt = (uint32_t)(seed >> 20 & 7) * 16;
				e->di = (uint32_t)(seed >> 30 & 63);
				clock[v] += e->dt;
				t->cpu += e->dt;
				insns[v] += e->di;
				t->insns += e->di;
				if (t->depth < 6 || (t->depth < 40 && (seed >> 40 & 1))) {
					/* Deep ones are more varied than those near the root. */
					e->kind = BP_EV_CALL;
					e->arg = (uint32_t)((seed >> 42) %
							    (t->depth < 6 ? 10 : 1u << (t->depth / 3 + 2)) %
							    FUNCS);
					t->stack[t->depth++] =
					    (struct bp_frame){e->arg, BP_EV_CALL, clock[v], t->cpu, t->insns};
					made++;
				} else {
					e->kind = BP_EV_RET;
					e->arg = 1;
					t->depth--;
				}
			}
		}
		block.n_runs = 2;
		must(bp_trace_writer_block(w, &block));
	}
	must(bp_trace_writer_close(w));
	free(ev);
	free(tasks);
}

struct steps {
	double most, sum;
	unsigned n;
	char worst[32];
};

static void step(struct bp_tui *tui, struct bp_grid *g, const char *keys, struct steps *s)
{
	double start = now(CLOCK_THREAD_CPUTIME_ID), used;

	must(bp_tui_keys(tui, keys));
	must(bp_tui_draw(tui, g));
	used = now(CLOCK_THREAD_CPUTIME_ID) - start;
	s->sum += used;
	s->n++;
	if (used > s->most) {
		s->most = used;
		snprintf(s->worst, sizeof(s->worst), "%s", keys);
	}
}

static void print(const char *what, const struct steps *s)
{
	printf("%-34s %6.2f ms of CPU, worst %6.2f ms, %u steps\n", what, 1e3 * s->sum / s->n, 1e3 * s->most,
	       s->n);
}

int main(int argc, char **argv)
{
	double millions = argc > 1 ? atof(argv[1]) : 21, start;
	char made[64] = "";
	const char *path = argc > 1 && !millions ? argv[1] : made;
	struct bp_tui_options opt = {.threads = true};
	struct bp_trace *trace;
	struct bp_tui *tui;
	struct bp_grid g = {0};
	unsigned w = 200, h = 60;
	struct steps zoom = {0}, again = {0}, pan = {0}, move = {0}, find = {0};
	struct rusage usage;

	if (argc > 2 && sscanf(argv[2], "%ux%u", &w, &h) != 2)
		return 2;
	if (path == made) {
		const char *dir = getenv("TMPDIR");

		snprintf(made, sizeof(made), "%.40s/perf_tui.%d", dir ? dir : "/tmp", (int)getpid());
		start = now(CLOCK_MONOTONIC);
		make(made, millions * 1e6);
		printf("made %.0f million calls in %.1f s\n", millions, now(CLOCK_MONOTONIC) - start);
	}
	must(bp_grid_resize(&g, w, h));
	start = now(CLOCK_MONOTONIC);
	must(bp_trace_open(path, &trace));
	opt.trace = trace;
	must(bp_tui_create(&opt, &tui));
	must(bp_tui_draw(tui, &g));
	printf("first screen, %ux%u                %6.0f ms\n", w, h, 1e3 * (now(CLOCK_MONOTONIC) - start));
	/* In the middle of building: the thread has the lock most of the time. */
	for (int i = 0; i < 12; i++)
		step(tui, &g, i < 8 ? "w" : "d", &again);
	print("zoom and pan while it is indexed", &again);
	must(bp_tui_keys(tui, "F"));
	must(bp_tui_settle(tui));
	printf("index complete after               %6.2f s\n", now(CLOCK_MONOTONIC) - start);
	for (int i = 0; i < 32; i++)
		step(tui, &g, "w", &zoom);
	print("zoom in by 2", &zoom);
	for (int i = 0; i < 32; i++) {
		step(tui, &g, "d", &pan);
		step(tui, &g, "s", &pan);
	}
	print("pan and zoom out", &pan);
	must(bp_tui_keys(tui, "F 12*w"));
	for (int i = 0; i < 200; i++)
		step(tui, &g, i % 20 < 10 ? "Right" : i & 1 ? "Down" : "]", &move);
	print("move the cursor, next slice", &move);
	must(bp_tui_keys(tui, "/ \"_7\" Enter"));
	for (int i = 0; i < 50; i++)
		step(tui, &g, "n", &find);
	print("next match", &find);
	getrusage(RUSAGE_SELF, &usage);
	printf("memory                             %6.0f MiB\n", (double)usage.ru_maxrss / 1024);
	bp_tui_destroy(tui);
	bp_trace_destroy(trace);
	bp_grid_deinit(&g);
	if (path == made)
		unlink(made);
	return 0;
}
