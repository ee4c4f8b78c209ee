// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a view costs: events per second of the walk and of each view, on one core and with helpers that
 * decode.
 *
 * perf_report [MILLIONS]         a made-up recording of so many events (22 million, a small boot): 8000
 *                                functions whose popularity falls with their number, 60 tasks, stacks of 5 to
 * 40 perf_report FILE.bootprof      a recording
 *
 * `make bench` builds it as build/perf/perf_report.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "analyzers/functions.h"
#include "core/trace.h"

static void must(struct bp_err *err)
{
	if (!err)
		return;
	fprintf(stderr, "perf_report: %s\n", bp_err_text(err));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static uint64_t seed = 88172645463325252ull;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed * 2685821657736338717ull >> 32) * n >> 32);
}

/* ---- the made-up recording ---- */

#define N_FUNCS 8000
#define N_TASKS 60
#define EVENTS_PER_BLOCK 65000

struct task {
	uint32_t stack[48], depth;
	struct bp_frame frames[48];
	uint64_t cpu_ns, insns;
};

static struct bp_event events[BP_BLOCK_EVENTS];
static struct bp_run runs[BP_BLOCK_EVENTS];
static struct bp_frame frames[N_TASKS * 48];
static struct task tasks[N_TASKS];

static uint32_t pick(void)
{
	/* the product of two: small numbers are much more frequent */
	return rnd(rnd(rnd(N_FUNCS) + 1) + 1);
}

static void make(const char *path, uint64_t n_events)
{
	struct bp_trace_writer *w;
	uint64_t wall = 0, insns = 0;

	must(bp_trace_writer_create(path, 4, &w));
	for (uint32_t i = 0; i < N_FUNCS; i++) {
		char name[24];
		struct bp_func f = {
		    .id = i,
		    .space = BP_SPACE_KERNEL,
		    .addr = 0xffffffff81000000 + i * 64,
		    .sym_addr = 0xffffffff81000000 + i * 64,
		    .name = name,
		    .module = "vmlinux",
		};

		snprintf(name, sizeof(name), "function_%u", i);
		must(bp_trace_writer_func(w, &f));
	}
	for (uint64_t made = 0; made < n_events;) {
		bool seen[N_TASKS] = {false};
		size_t n = 0, n_runs = 0, n_frames = 0;
		struct bp_block block;

		while (n < EVENTS_PER_BLOCK - 400) {
			uint32_t id = rnd(N_TASKS);
			struct task *t = &tasks[id];
			size_t stop = n + 50 + rnd(300);

			runs[n_runs] = (struct bp_run){
			    .task = id,
			    .time_ns = wall,
			    .insns = insns,
			    .cpu_ns = t->cpu_ns,
			    .cpu_insns = t->insns,
			    .n_frames = seen[id] ? BP_RUN_NO_STACK : t->depth,
			    .first_frame = (uint32_t)n_frames,
			};
			if (!seen[id]) {
				memcpy(&frames[n_frames], t->frames, t->depth * sizeof(*frames));
				n_frames += t->depth;
			}
			seen[id] = true;
			events[n++] = (struct bp_event){.kind = BP_EV_RUN, .arg = (uint32_t)n_runs++};
			for (; n < stop; n++) {
				struct bp_event *ev = &events[n];
				bool up = t->depth < 5 || (t->depth < 40 && rnd(2));

				*ev = (struct bp_event){.dt = rnd(12) * 16, .di = 5 + rnd(60)};
				wall += ev->dt;
				insns += ev->di;
				t->cpu_ns += ev->dt;
				t->insns += ev->di;
				if (up) {
					ev->kind = BP_EV_CALL;
					ev->arg = pick();
					t->frames[t->depth++] = (struct bp_frame){
					    ev->arg, BP_EV_CALL, wall, t->cpu_ns, t->insns,
					};
				} else {
					ev->kind = BP_EV_RET;
					ev->arg = 1;
					t->depth--;
				}
			}
		}
		made += n;
		block = (struct bp_block){events, n, runs, n_runs, frames, n_frames};
		must(bp_trace_writer_block(w, &block));
	}
	must(bp_trace_writer_close(w));
}

/* ---- measuring ---- */

static void line(const char *what, double seconds, uint64_t n)
{
	printf("%-24s %7.3f s %8.1f million events/s\n", what, seconds, (double)n / seconds / 1e6);
}

static void measure(const char *path)
{
	const struct bp_query q = {.min_percent = 1, .listed = 100};
	struct bp_decoder *d;
	struct bp_trace *trace;
	struct rusage usage;
	uint64_t n = 0;
	double start = now();

	must(bp_trace_open(path, &trace));
	printf("%-24s %7.3f s\n", "open", now() - start);
	must(bp_decoder_create(&d));
	start = now();
	for (size_t i = 0; i < bp_trace_n_blocks(trace); i++) {
		struct bp_block block;

		must(bp_decoder_read(d, trace, i, &block));
		n += block.n_events;
	}
	line("decode", now() - start, n);
	bp_decoder_destroy(d);
	for (int threads = -1; threads < 2; threads += 2) {
		struct bp_analysis *a;
		struct bp_functions f;

		must(bp_analysis_create(trace, &q, &a));
		a->walk.threads = threads;
		must(bp_functions_init(&f, a, false));
		start = now();
		must(bp_functions_walk(&f));
		line(threads < 0 ? "functions, one thread" : "functions, one helper", now() - start, n);
		bp_functions_deinit(&f);
		bp_analysis_destroy(a);
	}
	for (size_t i = 0; i < bp_n_views; i++) {
		struct bp_analysis *a;
		struct bp_report *r;

		start = now();
		must(bp_analysis_create(trace, &q, &a));
		must(bp_view_run(bp_views[i], a, &r));
		line(bp_views[i]->name, now() - start, n);
		bp_report_destroy(r);
		bp_analysis_destroy(a);
	}
	bp_trace_destroy(trace);
	getrusage(RUSAGE_SELF, &usage);
	printf("%-24s %7.1f MiB\n", "largest memory", (double)usage.ru_maxrss / 1024);
}

int main(int argc, char **argv)
{
	char *end = NULL;
	double millions = argc > 1 ? strtod(argv[1], &end) : 22;
	char path[64];

	if (argc > 1 && (*end || millions <= 0)) {
		measure(argv[1]);
		return 0;
	}
	snprintf(path, sizeof(path), "/tmp/bootprof-perf-report.%d", (int)getpid());
	make(path, (uint64_t)(millions * 1e6));
	measure(path);
	return unlink(path) ? 1 : 0;
}
