// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a recording costs: bytes per call on disk, events encoded and decoded per second on one core.
 *
 * perf_trace [MILLIONS]        made-up events (8 million): a call graph of 3000 functions whose popularity
 * follows Zipf's law, call sites with fixed instruction distances, lognormal times perf_trace FILE.bootprof
 * the events of a recording
 *
 * `make bench` builds it as build/perf/perf_trace.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/crc32c.h"
#include "core/trace_format.h"

static void must(struct bp_err *err)
{
	if (!err)
		return;
	fprintf(stderr, "perf_trace: %s\n", bp_err_text(err));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 2685821657736338717ull;
}

static double uniform(void)
{
	return ((double)(rnd() >> 11) + 0.5) * 0x1p-53;
}

static double normal(void)
{
	return sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform());
}

/* ---- the made-up program ---- */

#define N_FUNCS 3000
#define N_LEVELS 12
#define N_TASKS 24
#define MAX_SITES 8
#define EVENTS_A_RUN 800

struct site {
	uint32_t callee;
	uint32_t insns; /* from the last site, or the entry, to this one */
	uint8_t taken;  /* of 256 */
	uint8_t again;  /* of 256: a loop around this site */
};

struct function {
	unsigned level, n_sites;
	uint32_t insns_out; /* from the last site to the return */
	bool loops;         /* its way out takes a different number of instructions each time */
	struct site sites[MAX_SITES];
};

struct frame {
	uint32_t func;
	unsigned site;
	uint32_t insns; /* since the last event */
};

struct task {
	struct frame stack[64];
	unsigned depth;
	uint64_t cpu_ns, cpu_insns;
};

static struct function funcs[N_FUNCS];
static uint32_t by_level[N_LEVELS][N_FUNCS];
static unsigned n_level[N_LEVELS];

/* Rank r of n is chosen with a weight of 1/r. */
static uint32_t zipf(unsigned n)
{
	double r = pow((double)n + 1, uniform());

	return (uint32_t)r - 1 < n ? (uint32_t)r - 1 : n - 1;
}

static void make_program(void)
{
	for (uint32_t i = 0; i < N_FUNCS; i++) {
		/* Ids are given out in order of first call, so they say nothing about popularity. */
		unsigned level = (unsigned)(pow(uniform(), 1.6) * N_LEVELS);

		funcs[i].level = level;
		by_level[level][n_level[level]++] = i;
	}
	for (uint32_t i = 0; i < N_FUNCS; i++) {
		struct function *f = &funcs[i];

		f->insns_out = 3 + (uint32_t)exp(2.6 + 0.9 * normal());
		f->loops = uniform() < 0.12;
		if (!f->level)
			continue;
		f->n_sites = 1 + (unsigned)(rnd() % MAX_SITES);
		for (unsigned k = 0; k < f->n_sites; k++) {
			unsigned level = uniform() < 0.5 ? 0 : (unsigned)(rnd() % f->level);
			double p = uniform();

			f->sites[k] = (struct site){
			    .callee = by_level[level][zipf(n_level[level])],
			    .insns = 3 + (uint32_t)exp(2.4 + 0.9 * normal()),
			    .taken = p < 0.45   ? 255
				     : p < 0.75 ? 8
						: (uint8_t)(uniform() * 255),
			    .again = uniform() < 0.1 ? (uint8_t)(150 + rnd() % 90) : 0,
			};
		}
	}
}

static uint32_t time_of(uint32_t insns)
{
	return (uint32_t)((8 + insns * 1.2) * exp(0.35 * normal())) +
	       (rnd() % 2000 == 0 ? (uint32_t)(rnd() % 20000) : 0);
}

/* One event of a task: a call of its next taken site, or a return. */
static struct bp_event step(struct task *t)
{
	struct bp_event ev = {0};
	struct frame *f;

	if (!t->depth) {
		unsigned level = N_LEVELS - 1 - (unsigned)(rnd() % 4);

		t->stack[0] = (struct frame){.func = by_level[level][zipf(n_level[level])]};
		t->depth = 1;
		ev = (struct bp_event){.kind = BP_EV_CALL, .arg = t->stack[0].func, .di = 20};
	} else {
		const struct function *fn;

		f = &t->stack[t->depth - 1];
		fn = &funcs[f->func];
		for (; f->site < fn->n_sites; f->site++) {
			const struct site *s = &fn->sites[f->site];

			f->insns += s->insns;
			if (rnd() % 256 > s->taken)
				continue;
			ev = (struct bp_event){.kind = BP_EV_CALL, .arg = s->callee, .di = f->insns};
			f->insns = 0;
			if (rnd() % 256 >= s->again)
				f->site++;
			t->stack[t->depth++] = (struct frame){.func = s->callee};
			break;
		}
		if (!ev.kind) {
			ev = (struct bp_event){.kind = BP_EV_RET, .arg = 1, .di = f->insns + fn->insns_out};
			if (fn->loops)
				ev.di += (uint32_t)exp(4.5 + 1.3 * normal());
			t->depth--;
		}
	}
	ev.dt = time_of(ev.di);
	t->cpu_ns += ev.dt;
	t->cpu_insns += ev.di;
	return ev;
}

/* ---- blocks ---- */

struct blocks {
	struct bp_block *block;
	size_t n, cap;
	size_t events, calls;
	uint32_t n_funcs;
};

static void *copy(const void *data, size_t bytes)
{
	void *p = malloc(bytes ? bytes : 1);

	if (!p)
		must(bp_err_nomem());
	if (bytes)
		memcpy(p, data, bytes);
	return p;
}

static void add_block(struct blocks *b, const struct bp_block *from)
{
	if (b->n == b->cap) {
		b->cap = b->cap * 2 + 16;
		b->block = realloc(b->block, b->cap * sizeof(*b->block));
		if (!b->block)
			must(bp_err_nomem());
	}
	b->block[b->n++] = (struct bp_block){
	    copy(from->events, from->n_events * sizeof(*from->events)), from->n_events,
	    copy(from->runs, from->n_runs * sizeof(*from->runs)),       from->n_runs,
	    copy(from->frames, from->n_frames * sizeof(*from->frames)), from->n_frames,
	};
	b->events += from->n_events;
	for (size_t i = 0; i < from->n_events; i++)
		b->calls += from->events[i].kind == BP_EV_CALL || from->events[i].kind == BP_EV_JUMP ||
			    from->events[i].kind == BP_EV_IRQ;
}

static void make_blocks(struct blocks *out, size_t n_events)
{
	static struct bp_event events[BP_BLOCK_EVENTS];
	static struct bp_run runs[BP_BLOCK_EVENTS];
	static struct bp_frame frames[N_TASKS * 64];
	static struct task tasks[N_TASKS];
	static uint64_t entry_ns[N_TASKS][64], entry_insns[N_TASKS][64];
	uint64_t clock = 0, insns = 0;

	make_program();
	out->n_funcs = N_FUNCS;
	while (out->events < n_events) {
		struct bp_block b = {events, 0, runs, 0, frames, 0};
		bool seen[N_TASKS] = {false};
		unsigned task = 0;
		size_t left = 0;

		while (b.n_events < BP_BLOCK_EVENTS) {
			struct bp_event *ev = &events[b.n_events++];
			struct task *t;

			if (!left) {
				struct bp_run *run = &runs[b.n_runs];

				task = zipf(N_TASKS);
				t = &tasks[task];
				clock += 500;
				left = 1 + (size_t)(-log(uniform()) * EVENTS_A_RUN);
				*run = (struct bp_run){
				    .task = task,
				    .time_ns = clock,
				    .insns = insns,
				    .cpu_ns = t->cpu_ns,
				    .cpu_insns = t->cpu_insns,
				    .n_frames = BP_RUN_NO_STACK,
				    .first_frame = (uint32_t)b.n_frames,
				};
				if (!seen[task]) {
					seen[task] = true;
					run->n_frames = t->depth;
					for (unsigned k = 0; k < t->depth; k++)
						frames[b.n_frames++] = (struct bp_frame){
						    .func = t->stack[k].func,
						    .kind = BP_EV_CALL,
						    .wall_ns = entry_ns[task][k],
						    .cpu_ns = entry_ns[task][k] / 2,
						    .insns = entry_insns[task][k],
						};
				}
				*ev = (struct bp_event){.kind = BP_EV_RUN, .arg = (uint32_t)b.n_runs++};
				continue;
			}
			t = &tasks[task];
			*ev = step(t);
			clock += ev->dt;
			insns += ev->di;
			if (ev->kind == BP_EV_CALL) {
				entry_ns[task][t->depth - 1] = clock;
				entry_insns[task][t->depth - 1] = t->cpu_insns;
			}
			left--;
		}
		add_block(out, &b);
	}
}

static void load_blocks(struct blocks *out, const char *path)
{
	struct bp_decoder *d;
	struct bp_trace *t;
	size_t n;

	must(bp_trace_open(path, &t));
	must(bp_decoder_create(&d));
	bp_trace_funcs(t, &n);
	out->n_funcs = (uint32_t)n;
	for (size_t i = 0; i < bp_trace_n_blocks(t); i++) {
		struct bp_block b;

		must(bp_decoder_read(d, t, i, &b));
		add_block(out, &b);
	}
	bp_decoder_destroy(d);
	bp_trace_destroy(t);
}

/* ---- measuring ---- */

static void measure_crc(void)
{
	size_t n = 64 << 20;
	uint8_t *data = malloc(n);
	double t0;
	uint32_t crc;

	if (!data)
		must(bp_err_nomem());
	memset(data, 0x5a, n);
	t0 = now();
	crc = bp_crc32c(0, data, n);
	printf("crc32c           %8.2f GB/s (%08x)\n", (double)n / (now() - t0) / 1e9, crc);
	free(data);
}

static void measure(const struct blocks *in, unsigned tick_shift)
{
	static const char *const columns[] = {"runs",     "frames", "dict",    "token", "token_lo",
					      "token_16", "dt",     "dt_wide", "di",    "di_wide"};
	enum { N = sizeof(columns) / sizeof(columns[0]), ROUNDS = 3 };
	uint64_t sums[N] = {0}, bytes = 0, check = 0;
	double encode_best = 1e9, decode_best = 1e9;
	struct bp_events_encoder *enc;
	struct bp_events_decoder *dec;
	uint8_t **payload = calloc(in->n, sizeof(*payload));
	size_t *len = calloc(in->n, sizeof(*len)), room = 0;
	uint8_t *out;

	if (!payload || !len)
		must(bp_err_nomem());
	must(bp_events_encoder_create(tick_shift, &enc));
	must(bp_events_decoder_create(&dec));
	for (size_t i = 0; i < in->n; i++) {
		size_t bound = bp_events_bound(&in->block[i]);

		room = bound > room ? bound : room;
	}
	out = malloc(room);
	if (!out)
		must(bp_err_nomem());
	for (unsigned round = 0; round < ROUNDS; round++) {
		double spent = 0, t0;

		for (size_t i = 0; i < in->n; i++) {
			uint64_t first, last;

			t0 = now();
			must(bp_events_encode(enc, &in->block[i], out, &len[i], &first, &last));
			check += bp_crc32c(0, out, len[i]);
			spent += now() - t0;
			if (!round)
				payload[i] = copy(out, len[i]);
		}
		encode_best = spent < encode_best ? spent : encode_best;
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		double t0 = now(), spent;

		for (size_t i = 0; i < in->n; i++) {
			struct bp_buf b = bp_buf_make(payload[i], len[i], "memory", 0);
			struct bp_block block;

			check += bp_crc32c(0, payload[i], len[i]);
			must(bp_events_decode(dec, &b, in->n_funcs, &block));
			check += block.events[block.n_events - 1].dt;
		}
		spent = now() - t0;
		decode_best = spent < decode_best ? spent : decode_best;
	}
	for (size_t i = 0; i < in->n; i++) {
		bytes += len[i] + 64;
		for (unsigned k = 0; k < N; k++) {
			uint32_t v;

			memcpy(&v, payload[i] + 20 + 8 * k, 4);
			sums[k] += v;
		}
		free(payload[i]);
	}
	printf(
	    "tick %4u ns     %8.3f bytes/call   encode %6.1f M events/s   decode %6.1f M events/s (%llx)\n  ",
	    1u << tick_shift, (double)bytes / (double)in->calls, (double)in->events / encode_best / 1e6,
	    (double)in->events / decode_best / 1e6, (unsigned long long)check);
	for (unsigned k = 0; k < N; k++)
		printf(" %s %.3f", columns[k], (double)sums[k] / (double)in->calls);
	printf("\n");
	free(payload);
	free(len);
	free(out);
	bp_events_encoder_destroy(enc);
	bp_events_decoder_destroy(dec);
}

int main(int argc, char **argv)
{
	struct blocks b = {0};
	double millions = argc > 1 ? atof(argv[1]) : 8, dt = 0, di = 0;

	if (argc > 1 && millions <= 0)
		load_blocks(&b, argv[1]);
	else
		make_blocks(&b, (size_t)(millions * 1e6));
	if (!b.calls) {
		fprintf(stderr, "perf_trace: no calls\n");
		return 1;
	}
	for (size_t i = 0; i < b.n; i++) {
		for (size_t k = 0; k < b.block[i].n_events; k++) {
			dt += b.block[i].events[k].dt;
			di += b.block[i].events[k].di;
		}
	}
	printf("%zu events, %zu calls, %zu blocks, %u functions; %.0f ns and %.0f instructions an event\n",
	       b.events, b.calls, b.n, b.n_funcs, dt / (double)b.events, di / (double)b.events);
	measure_crc();
	measure(&b, 4);
	measure(&b, 0);
	for (size_t i = 0; i < b.n; i++) {
		free((void *)b.block[i].events);
		free((void *)b.block[i].runs);
		free((void *)b.block[i].frames);
	}
	free(b.block);
	return 0;
}
