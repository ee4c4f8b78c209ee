// SPDX-License-Identifier: GPL-2.0-or-later
/* The recording: what was written reads back, whatever happens to the file. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/crc32c.h"
#include "core/trace.h"
#include "core/trace_format.h"

static char dir[64], file[96], other[96];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

/* @err must be of @code and say @text. */
static void fails(struct bp_err *err, enum bp_err_code code, const char *text)
{
	assert_non_null(err);
	if (bp_err_code(err) != code || !strstr(bp_err_text(err), text))
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_int_equal(bp_err_code(err), code);
	assert_non_null(strstr(bp_err_text(err), text));
	bp_err_free(err);
}

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Everything that goes into a recording, kept to compare with. */
struct model {
	struct bp_block blocks[8];
	size_t n_blocks;
	unsigned n_funcs, n_facts;
};

#define N_TASKS 5

/*
 * A valid block of @n events over @n_funcs functions; times are multiples of 2^@shift ns.
 * @wild: deltas and arguments up to their limits.
 */
static struct bp_block make_block(size_t n, unsigned n_funcs, unsigned shift, bool wild)
{
	struct bp_event *ev = calloc(n, sizeof(*ev));
	struct bp_run *runs = calloc(n, sizeof(*runs));
	struct bp_frame *frames = calloc(N_TASKS * 20, sizeof(*frames));
	uint32_t depth[N_TASKS];
	size_t n_runs = 0, n_frames = 0;
	bool seen[N_TASKS] = {false};
	uint64_t now = rnd() % 1000000000;
	unsigned task = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t r = rnd();

		ev[i].dt = (uint32_t)(r & 0xff) >> shift << shift;
		ev[i].di = (uint32_t)(r >> 8) & 0x7f;
		if (wild && r >> 60 == 0) {
			ev[i].dt = (uint32_t)((UINT32_MAX >> shift) - (r >> 16 & 1)) << shift;
			ev[i].di = UINT32_MAX - (r >> 17 & 1);
		}
		if (wild && r >> 60 == 1)
			ev[i].di = (uint32_t)(r >> 20);
		if (!i || r % 97 == 0) {
			struct bp_run *run = &runs[n_runs];

			task = (unsigned)(rnd() % N_TASKS);
			now += rnd() % 10000000;
			*run = (struct bp_run){
			    .vcpu = wild ? (uint32_t)rnd() : 1,
			    .task = task * 1000003,
			    .time_ns = wild ? rnd() : now,
			    .insns = wild ? rnd() : now / 2,
			    .cpu_ns = wild ? rnd() : now / 3,
			    .cpu_insns = now / 5,
			    .n_frames = BP_RUN_NO_STACK,
			};
			if (wild)
				run->time_ns >>= 1;
			run->first_frame = (uint32_t)n_frames;
			if (!seen[task]) {
				seen[task] = true;
				run->n_frames = depth[task] = (uint32_t)(rnd() % 20);
				for (uint32_t k = 0; k < run->n_frames; k++)
					frames[n_frames++] = (struct bp_frame){
					    .func = (uint32_t)(rnd() % n_funcs),
					    .kind = (uint8_t)(BP_EV_CALL + rnd() % 3),
					    .wall_ns = wild ? rnd() : now - 1000 + k,
					    .cpu_ns = wild ? rnd() : 77 + k,
					    .insns = wild ? rnd() : 55 + k,
					};
			}
			ev[i] = (struct bp_event){.kind = BP_EV_RUN, .arg = (uint32_t)n_runs++};
			continue;
		}
		switch (r >> 32 & 7) {
		case 0:
		case 1:
		case 2:
			ev[i].kind =
			    depth[task] < BP_MAX_DEPTH ? BP_EV_CALL + (uint32_t)(r >> 40) % 3 : BP_EV_TICK;
			if (ev[i].kind == BP_EV_TICK)
				break;
			ev[i].arg = (uint32_t)(rnd() % n_funcs);
			depth[task]++;
			break;
		case 3:
			ev[i].kind = wild ? BP_EV_LOST : BP_EV_TICK;
			ev[i].arg = wild ? (uint32_t)r : 0;
			if (ev[i].kind == BP_EV_LOST)
				depth[task] = 0;
			break;
		case 4:
			ev[i].kind = BP_EV_SYSCALL;
			ev[i].arg = wild ? (uint32_t)r : (uint32_t)(r >> 50) % 300;
			break;
		default:
			ev[i].kind = depth[task] ? BP_EV_RET : BP_EV_TICK;
			if (depth[task])
				ev[i].arg = 1 + (uint32_t)(r >> 40) % (depth[task] < 3 ? depth[task] : 3);
			depth[task] -= ev[i].arg;
			break;
		}
	}
	return (struct bp_block){ev, n, runs, n_runs, frames, n_frames};
}

static void free_block(struct bp_block *b)
{
	free((void *)b->events);
	free((void *)b->runs);
	free((void *)b->frames);
}

static void same_block(const struct bp_block *a, const struct bp_block *b)
{
	assert_int_equal(a->n_events, b->n_events);
	assert_int_equal(a->n_runs, b->n_runs);
	assert_int_equal(a->n_frames, b->n_frames);
	assert_memory_equal(a->events, b->events, a->n_events * sizeof(*a->events));
	for (size_t i = 0; i < a->n_runs; i++)
		assert_memory_equal(&a->runs[i], &b->runs[i], sizeof(a->runs[i]));
	for (size_t i = 0; i < a->n_frames; i++) {
		assert_int_equal(a->frames[i].func, b->frames[i].func);
		assert_int_equal(a->frames[i].kind, b->frames[i].kind);
		assert_int_equal(a->frames[i].wall_ns, b->frames[i].wall_ns);
		assert_int_equal(a->frames[i].cpu_ns, b->frames[i].cpu_ns);
		assert_int_equal(a->frames[i].insns, b->frames[i].insns);
	}
}

static struct bp_func test_func(unsigned id)
{
	static char name[32];

	snprintf(name, sizeof(name), "function_%u", id);
	if (id % 7 == 0)
		name[0] = '\0';
	return (struct bp_func){
	    .id = id,
	    .space = (uint8_t)(id % BP_SPACE_N),
	    .addr = 0xffffffff81000000u + id * 64,
	    .sym_addr = 0xffffffff81000000u + id * 64 - id % 3,
	    .name = name,
	    .module = id % 2 ? "vmlinux" : "/usr/lib/\xff\x01 x",
	};
}

static struct bp_fact test_fact(unsigned i)
{
	static char s1[32];

	snprintf(s1, sizeof(s1), "key %u", i);
	if (i == 0)
		return (struct bp_fact){.kind = BP_FACT_END, .vcpu = UINT16_MAX, .s1 = "", .s2 = ""};
	return (struct bp_fact){
	    .kind = (uint16_t)(1 + i % BP_FACT_VCPU),
	    .vcpu = (uint16_t)(i % 3 ? i : UINT16_MAX - i % 2),
	    .time_ns = i == 1 ? UINT64_MAX : i * 1000,
	    .insns = i == 2 ? UINT64_MAX : i,
	    .v = {i, UINT64_MAX, 0, 1ull << 63},
	    .s1 = s1,
	    .s2 = i % 2 ? "\n\x1b[31m" : "value",
	};
}

static void give_funcs(struct bp_trace_writer *w, struct model *m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct bp_func f = test_func(m->n_funcs++);

		ok(bp_trace_writer_func(w, &f));
	}
}

static void give_facts(struct bp_trace_writer *w, struct model *m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct bp_fact f = test_fact(m->n_facts++);

		ok(bp_trace_writer_fact(w, &f));
	}
}

static void give_block(struct bp_trace_writer *w, struct model *m, size_t n, unsigned shift, bool wild)
{
	struct bp_block *b = &m->blocks[m->n_blocks++];

	*b = make_block(n, m->n_funcs, shift, wild);
	ok(bp_trace_writer_block(w, b));
}

static void free_model(struct model *m)
{
	for (size_t i = 0; i < m->n_blocks; i++)
		free_block(&m->blocks[i]);
}

static void same_facts(const struct bp_trace *t, const struct model *m)
{
	size_t n;
	const struct bp_fact *facts = bp_trace_facts(t, &n);

	assert_int_equal(n, m->n_facts);
	for (unsigned i = 0; i < n; i++) {
		struct bp_fact want = test_fact(i);

		assert_int_equal(facts[i].kind, want.kind);
		assert_int_equal(facts[i].vcpu, want.vcpu);
		assert_int_equal(facts[i].time_ns, want.time_ns);
		assert_int_equal(facts[i].insns, want.insns);
		assert_memory_equal(facts[i].v, want.v, sizeof(want.v));
		assert_string_equal(facts[i].s1, want.s1);
		assert_string_equal(facts[i].s2, want.s2);
	}
}

static void same_funcs(const struct bp_trace *t, const struct model *m)
{
	size_t n;
	const struct bp_func *funcs = bp_trace_funcs(t, &n);

	assert_int_equal(n, m->n_funcs);
	for (unsigned i = 0; i < n; i++) {
		struct bp_func want = test_func(i);

		assert_int_equal(funcs[i].id, i);
		assert_int_equal(funcs[i].space, want.space);
		assert_int_equal(funcs[i].addr, want.addr);
		assert_int_equal(funcs[i].sym_addr, want.sym_addr);
		assert_string_equal(funcs[i].name, want.name);
		assert_string_equal(funcs[i].module, want.module);
	}
}

static void same_blocks(const struct bp_trace *t, const struct model *m)
{
	struct bp_decoder *d;

	ok(bp_decoder_create(&d));
	assert_int_equal(bp_trace_n_blocks(t), m->n_blocks);
	for (size_t i = m->n_blocks; i-- > 0;) {
		struct bp_block b;

		ok(bp_decoder_read(d, t, i, &b));
		same_block(&m->blocks[i], &b);
	}
	bp_decoder_destroy(d);
}

static void test_round_trip(void **state)
{
	static const struct bp_fold folds[] = {
	    {.func = 3,
	     .calls = 5,
	     .self_ns = -100,
	     .self_insns = -1,
	     .total_ns = 70,
	     .total_insns = 7,
	     .min_ns = 4,
	     .max_ns = 20},
	    {.func = 1, .self_ns = INT64_MIN, .self_insns = INT64_MAX, .total_ns = UINT64_MAX},
	    {.func = 3, .calls = 1, .self_ns = 30, .total_ns = 3, .min_ns = 3, .max_ns = 3},
	    {.func = 3, .self_ns = 1},
	};
	struct bp_trace_writer *w;
	struct model m = {0};
	struct bp_trace *t;
	const struct bp_fold *rows;
	size_t n;
	struct stat st;

	(void)state;
	ok(bp_trace_writer_create(file, 4, &w));
	give_funcs(w, &m, 10);
	give_facts(w, &m, 3);
	give_block(w, &m, 1000, 4, false);
	give_block(w, &m, 1, 4, false);
	give_funcs(w, &m, 20000);
	give_block(w, &m, BP_BLOCK_EVENTS, 4, true);
	give_block(w, &m, BP_BLOCK_EVENTS, 4, false);
	give_facts(w, &m, 20000);
	ok(bp_trace_writer_fold(w, folds, 4));
	ok(bp_trace_writer_fold(w, NULL, 0));
	ok(bp_trace_writer_close(w));
	ok(bp_trace_open(file, &t));
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(bp_trace_bytes(t), st.st_size);
	assert_string_equal(bp_trace_path(t), file);
	same_funcs(t, &m);
	same_facts(t, &m);
	same_blocks(t, &m);
	assert_false(bp_trace_damage(t)->unfinished);
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 0);
	assert_int_equal(bp_trace_damage(t)->missing_chunks, 0);
	assert_int_equal(bp_trace_damage(t)->lost_bytes, 0);
	rows = bp_trace_folds(t, &n);
	assert_int_equal(n, 2);
	assert_int_equal(rows[0].func, 1);
	assert_int_equal(rows[0].self_ns, INT64_MIN);
	assert_int_equal(rows[0].total_ns, UINT64_MAX);
	assert_int_equal(rows[1].calls, 6);
	assert_int_equal(rows[1].self_ns, -69);
	assert_int_equal(rows[1].total_ns, 73);
	assert_int_equal(rows[1].min_ns, 3);
	assert_int_equal(rows[1].max_ns, 20);
	bp_trace_destroy(t);
	free_model(&m);
}

/* A short recording with every kind of chunk. */
static void small_file(struct model *m)
{
	static const struct bp_fold fold = {.func = 1, .calls = 2, .self_ns = -5, .total_ns = 9};
	struct bp_trace_writer *w;

	ok(bp_trace_writer_create(file, 4, &w));
	give_funcs(w, m, 6);
	give_facts(w, m, 4);
	give_block(w, m, 40, 4, false);
	give_funcs(w, m, 3);
	give_facts(w, m, 2);
	give_block(w, m, 40, 4, true);
	ok(bp_trace_writer_fold(w, &fold, 1));
	give_block(w, m, 10, 4, false);
	give_facts(w, m, 2);
	ok(bp_trace_writer_close(w));
}

static uint8_t *slurp(const char *path, size_t *ret_len)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	uint8_t *data;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	data = malloc((size_t)st.st_size + 1);
	assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_len = (size_t)st.st_size;
	return data;
}

static void spill(const char *path, const uint8_t *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

struct found {
	size_t facts, funcs, blocks, bad_blocks;
	bool damaged;
};

/* Whatever a damaged file gives must be a part of @m, in order, and nothing else. */
static struct found check_part(const struct bp_trace *t, struct bp_decoder *d, const struct model *m)
{
	const struct bp_trace_damage *damage = bp_trace_damage(t);
	struct found found = {.damaged = damage->unfinished || damage->bad_chunks || damage->missing_chunks};
	size_t n, at = 0;
	const struct bp_fact *facts = bp_trace_facts(t, &n);
	const struct bp_func *funcs;
	const struct bp_fold *folds;

	assert_true(damage->lost_bytes <= bp_trace_bytes(t));
	assert_true(!damage->lost_bytes == !damage->bad_chunks);
	found.facts = n;
	for (size_t i = 0; i < n; i++) {
		struct bp_fact want;

		do {
			assert_true(at < m->n_facts);
			want = test_fact((unsigned)at++);
		} while (want.kind != facts[i].kind || want.time_ns != facts[i].time_ns);
		assert_int_equal(facts[i].vcpu, want.vcpu);
		assert_memory_equal(facts[i].v, want.v, sizeof(want.v));
		assert_string_equal(facts[i].s1, want.s1);
		assert_string_equal(facts[i].s2, want.s2);
	}
	funcs = bp_trace_funcs(t, &n);
	assert_true(n <= m->n_funcs);
	for (size_t i = 0; i < n; i++) {
		struct bp_func want = test_func((unsigned)i);

		assert_int_equal(funcs[i].id, i);
		if (!strcmp(funcs[i].name, "[definition lost]"))
			continue;
		found.funcs++;
		assert_int_equal(funcs[i].addr, want.addr);
		assert_string_equal(funcs[i].name, want.name);
		assert_string_equal(funcs[i].module, want.module);
	}
	folds = bp_trace_folds(t, &n);
	assert_true(n <= 1);
	if (n) {
		assert_int_equal(folds[0].func, 1);
		assert_int_equal(folds[0].self_ns, -5);
	}
	at = 0;
	for (size_t i = 0; i < bp_trace_n_blocks(t); i++) {
		struct bp_block b;
		struct bp_err *err = bp_decoder_read(d, t, i, &b);
		size_t expected = at;

		if (err) {
			assert_int_equal(bp_err_code(err), BP_EDATA);
			assert_non_null(strstr(bp_err_text(err), "offset"));
			bp_err_free(err);
			found.bad_blocks++;
			continue;
		}
		while (at < m->n_blocks &&
		       (b.n_events != m->blocks[at].n_events ||
			memcmp(b.events, m->blocks[at].events, b.n_events * sizeof(*b.events))))
			at++;
		assert_true(at < m->n_blocks);
		same_block(&b, &m->blocks[at]);
		assert_true(bp_trace_block_gap(t, i) == (at != expected) || found.bad_blocks);
		at++;
		found.blocks++;
	}
	return found;
}

static void test_truncated_anywhere(void **state)
{
	struct model m = {0};
	struct bp_decoder *d;
	uint8_t *data;
	size_t len, blocks = 0, facts = 0;

	(void)state;
	small_file(&m);
	data = slurp(file, &len);
	ok(bp_decoder_create(&d));
	for (size_t n = 0; n < len; n++) {
		struct bp_trace *t;
		struct found found;

		spill(other, data, n);
		if (n < sizeof(struct bp_file_header)) {
			fails(bp_trace_open(other, &t), BP_EDATA, "offset");
			continue;
		}
		ok(bp_trace_open(other, &t));
		assert_true(bp_trace_damage(t)->unfinished);
		found = check_part(t, d, &m);
		assert_int_equal(found.bad_blocks, 0);
		/* More bytes never give less. */
		assert_true(found.blocks >= blocks && found.facts >= facts);
		blocks = found.blocks;
		facts = found.facts;
		bp_trace_destroy(t);
	}
	assert_int_equal(blocks, m.n_blocks);
	assert_int_equal(facts, m.n_facts);
	bp_decoder_destroy(d);
	free(data);
	free_model(&m);
}

static void test_every_bit(void **state)
{
	struct model m = {0};
	struct bp_decoder *d;
	uint8_t *data;
	size_t len;
	int fd;

	(void)state;
	small_file(&m);
	data = slurp(file, &len);
	spill(other, data, len);
	fd = open(other, O_WRONLY);
	ok(bp_decoder_create(&d));
	for (size_t bit = 0; bit < len * 8; bit++) {
		struct bp_trace *t = NULL;
		uint8_t byte = (uint8_t)(data[bit / 8] ^ 1u << bit % 8);
		struct bp_err *err;

		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
		err = bp_trace_open(other, &t);
		if (err) {
			assert_true(bit / 8 < 8);
			fails(err, BP_EDATA, "not a recording");
		} else {
			struct found found = check_part(t, d, &m);

			assert_true(found.damaged || found.bad_blocks);
			/* A flipped bit costs its chunk and nothing else. */
			assert_true(found.blocks + 1 >= m.n_blocks);
			assert_true(found.blocks == m.n_blocks || found.facts == m.n_facts);
			bp_trace_destroy(t);
		}
		assert_int_equal(pwrite(fd, &data[bit / 8], 1, (off_t)(bit / 8)), 1);
	}
	close(fd);
	bp_decoder_destroy(d);
	free(data);
	free_model(&m);
}

/* Holes, repeated and shuffled pieces. */
static void test_random_damage(void **state)
{
	struct model m = {0};
	struct bp_decoder *d;
	uint8_t *data, *bad;
	size_t len;

	(void)state;
	small_file(&m);
	data = slurp(file, &len);
	bad = malloc(len * 2);
	ok(bp_decoder_create(&d));
	for (unsigned round = 0; round < 2000; round++) {
		size_t at = rnd() % len, n = rnd() % (len - at), to = rnd() % len, bad_len = len;
		struct bp_trace *t = NULL;
		struct bp_err *err;

		memcpy(bad, data, len);
		switch (rnd() % 4) {
		case 0:
			memset(bad + at, 0, n);
			break;
		case 1: /* cut out */
			memmove(bad + at, bad + at + n, len - at - n);
			bad_len = len - n;
			break;
		case 2: /* insert a copy */
			memmove(bad + to + n, bad + to, len - to);
			memcpy(bad + to, data + at, n);
			bad_len = len + n;
			break;
		default: /* copy over */
			memmove(bad + to, data + at, n < len - to ? n : len - to);
			break;
		}
		spill(other, bad, bad_len);
		err = bp_trace_open(other, &t);
		if (err) {
			assert_int_equal(bp_err_code(err), BP_EDATA);
			bp_err_free(err);
			continue;
		}
		check_part(t, d, &m);
		bp_trace_destroy(t);
	}
	bp_decoder_destroy(d);
	free(data);
	free(bad);
	free_model(&m);
}

/* Functions whose definition is lost keep their ids, so the blocks that use them still read. */
static void test_lost_definitions(void **state)
{
	struct model m = {0};
	const struct bp_func *funcs;
	struct bp_decoder *d;
	struct bp_trace *t;
	struct found found;
	uint8_t *data;
	size_t len, n;

	(void)state;
	small_file(&m);
	data = slurp(file, &len);
	data[sizeof(struct bp_file_header) + 3] ^= 1;
	spill(other, data, len);
	ok(bp_trace_open(other, &t));
	ok(bp_decoder_create(&d));
	found = check_part(t, d, &m);
	assert_int_equal(found.blocks, m.n_blocks);
	assert_int_equal(found.funcs, 3);
	funcs = bp_trace_funcs(t, &n);
	assert_int_equal(n, 9);
	assert_int_equal(funcs[2].space, BP_SPACE_PSEUDO);
	assert_string_equal(funcs[2].module, "");
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 1);
	assert_int_equal(bp_trace_damage(t)->missing_chunks, 0);
	assert_int_equal(bp_trace_damage(t)->first_bad_offset, sizeof(struct bp_file_header));
	bp_trace_destroy(t);
	bp_decoder_destroy(d);
	free(data);
	free_model(&m);
}

/* The right checksum on a block that makes no sense. */
static void test_senseless_blocks(void **state)
{
	static const struct bp_frame frames[3] = {
	    {.func = 0, .kind = BP_EV_CALL},
	    {.func = 1, .kind = BP_EV_IRQ},
	    {.func = 9, .kind = BP_EV_CALL},
	};
	static const struct {
		const char *want;
		struct bp_event ev[6];
		size_t n_events;
		struct bp_run runs[2];
	} bad[] = {
	    {"below the stack", {{.kind = BP_EV_RUN}, {.kind = BP_EV_RET, .arg = 3}}, 2, {{.n_frames = 2}}},
	    {"return out of range", {{.kind = BP_EV_RUN}, {.kind = BP_EV_RET}}, 2, {{.n_frames = 2}}},
	    {"return out of range",
	     {{.kind = BP_EV_RUN}, {.kind = BP_EV_RET, .arg = UINT32_MAX}},
	     2,
	     {{.n_frames = 2}}},
	    {"below the stack",
	     {{.kind = BP_EV_RUN}, {.kind = BP_EV_LOST}, {.kind = BP_EV_RET, .arg = 1}},
	     3,
	     {{.n_frames = 2}}},
	    {"function id", {{.kind = BP_EV_RUN}, {.kind = BP_EV_CALL, .arg = 2}}, 2, {{.n_frames = 0}}},
	    {"bad frame", {{.kind = BP_EV_RUN}, {.kind = BP_EV_TICK}}, 2, {{.n_frames = 3}}},
	    {"stack not given", {{.kind = BP_EV_RUN}}, 1, {{.n_frames = BP_RUN_NO_STACK}}},
	    {"stack not given",
	     {{.kind = BP_EV_RUN}, {.kind = BP_EV_RUN, .arg = 1}},
	     2,
	     {{.n_frames = 0}, {.n_frames = 1}}},
	    /* The depth carries over to the task's next run. */
	    {"below the stack",
	     {{.kind = BP_EV_RUN},
	      {.kind = BP_EV_CALL},
	      {.kind = BP_EV_RUN, .arg = 1},
	      {.kind = BP_EV_RET, .arg = 2}},
	     4,
	     {{.n_frames = 0}, {.n_frames = BP_RUN_NO_STACK}}},
	    {"below the stack",
	     {{.kind = BP_EV_RUN}, {.kind = BP_EV_RET, .arg = 1}, {.kind = BP_EV_CALL}},
	     3,
	     {{.n_frames = 0}}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct bp_block b = {bad[i].ev, bad[i].n_events, bad[i].runs, 0, frames, 3}, got;
		struct bp_trace_writer *w;
		struct model m = {0};
		struct bp_decoder *d;
		struct bp_trace *t;

		for (size_t k = 0; k < b.n_events; k++)
			b.n_runs += b.events[k].kind == BP_EV_RUN;
		ok(bp_trace_writer_create(file, 0, &w));
		give_funcs(w, &m, 2);
		ok(bp_trace_writer_block(w, &b));
		ok(bp_trace_writer_close(w));
		ok(bp_trace_open(file, &t));
		ok(bp_decoder_create(&d));
		fails(bp_decoder_read(d, t, 0, &got), BP_EDATA, bad[i].want);
		bp_decoder_destroy(d);
		bp_trace_destroy(t);
	}
}

static void test_depth_limit(void **state)
{
	struct bp_event *ev = calloc(BP_MAX_DEPTH + 2, sizeof(*ev));
	struct bp_run run = {0};
	struct bp_block b = {ev, BP_MAX_DEPTH + 2, &run, 1, NULL, 0}, got;
	struct bp_trace_writer *w;
	struct model m = {0};
	struct bp_decoder *d;
	struct bp_trace *t;

	(void)state;
	ev[0].kind = BP_EV_RUN;
	for (size_t i = 1; i < b.n_events; i++)
		ev[i].kind = BP_EV_CALL;
	ok(bp_trace_writer_create(file, 0, &w));
	give_funcs(w, &m, 1);
	ok(bp_trace_writer_block(w, &b));
	b.n_events--;
	ok(bp_trace_writer_block(w, &b));
	ok(bp_trace_writer_close(w));
	ok(bp_trace_open(file, &t));
	ok(bp_decoder_create(&d));
	fails(bp_decoder_read(d, t, 0, &got), BP_EDATA, "stack");
	ok(bp_decoder_read(d, t, 1, &got));
	bp_decoder_destroy(d);
	bp_trace_destroy(t);
	free(ev);
}

static void test_too_many_frames(void **state)
{
	enum { RUNS = BP_BLOCK_FRAMES / BP_MAX_DEPTH };
	struct bp_frame *frames = calloc(BP_MAX_DEPTH, sizeof(*frames));
	struct bp_run runs[RUNS + 1] = {{0}};
	struct bp_event ev[RUNS + 1] = {{0}};
	struct bp_block b = {ev, RUNS + 1, runs, RUNS + 1, frames, BP_MAX_DEPTH}, got;
	struct bp_trace_writer *w;
	struct model m = {0};
	struct bp_decoder *d;
	struct bp_trace *t;

	(void)state;
	for (unsigned i = 0; i < BP_MAX_DEPTH; i++)
		frames[i].kind = BP_EV_CALL;
	for (unsigned i = 0; i <= RUNS; i++) {
		ev[i] = (struct bp_event){.kind = BP_EV_RUN, .arg = i};
		runs[i] = (struct bp_run){.task = i, .n_frames = BP_MAX_DEPTH};
	}
	ok(bp_trace_writer_create(file, 0, &w));
	give_funcs(w, &m, 1);
	fails(bp_trace_writer_block(w, &b), BP_EUNSUPPORTED, "stack frames");
	b.n_events = b.n_runs = RUNS;
	ok(bp_trace_writer_block(w, &b));
	ok(bp_trace_writer_close(w));
	ok(bp_trace_open(file, &t));
	ok(bp_decoder_create(&d));
	ok(bp_decoder_read(d, t, 0, &got));
	assert_int_equal(got.n_frames, BP_BLOCK_FRAMES);
	bp_decoder_destroy(d);
	bp_trace_destroy(t);
	free(frames);
}

static void test_empty_recording(void **state)
{
	struct bp_trace_writer *w;
	struct bp_trace *t;
	size_t n = 1;

	(void)state;
	ok(bp_trace_writer_create(file, 0, &w));
	ok(bp_trace_writer_flush(w));
	assert_int_equal(bp_trace_writer_bytes(w), sizeof(struct bp_file_header));
	ok(bp_trace_writer_close(w));
	ok(bp_trace_open(file, &t));
	assert_false(bp_trace_damage(t)->unfinished);
	assert_int_equal(bp_trace_n_blocks(t), 0);
	bp_trace_facts(t, &n);
	assert_int_equal(n, 0);
	bp_trace_funcs(t, &n);
	assert_int_equal(n, 0);
	bp_trace_folds(t, &n);
	assert_int_equal(n, 0);
	bp_trace_destroy(t);
}

/* Facts without strings, and strings that must be cut or do not compress. */
static void test_odd_facts(void **state)
{
	const struct bp_fact none = {.kind = BP_FACT_MARK};
	struct bp_fact big = {.kind = BP_FACT_CONSOLE};
	char *text = malloc(BP_STRING_MAX + 100);
	const struct bp_fact *facts;
	struct bp_trace_writer *w;
	struct bp_trace *t;
	size_t n;

	(void)state;
	memset(text, 'x', BP_STRING_MAX + 99);
	text[BP_STRING_MAX + 99] = '\0';
	big.s1 = big.s2 = text;
	ok(bp_trace_writer_create(file, 0, &w));
	ok(bp_trace_writer_fact(w, &none));
	for (unsigned i = 0; i < 3; i++)
		ok(bp_trace_writer_fact(w, &big));
	for (size_t i = 0; i < BP_STRING_MAX; i++)
		text[i] = (char)(rnd() | 1);
	ok(bp_trace_writer_fact(w, &big));
	ok(bp_trace_writer_close(w));
	ok(bp_trace_open(file, &t));
	facts = bp_trace_facts(t, &n);
	assert_int_equal(n, 5);
	assert_string_equal(facts[0].s1, "");
	assert_string_equal(facts[0].s2, "");
	assert_int_equal(strlen(facts[3].s2), BP_STRING_MAX);
	assert_memory_equal(facts[4].s1, text, BP_STRING_MAX);
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 0);
	bp_trace_destroy(t);
	free(text);
}

/* kill -9 at random moments: every chunk that was finished is there. */
static void test_killed(void **state)
{
	struct model m = {.n_funcs = 100};
	struct bp_decoder *d;
	int fds[2];

	(void)state;
	m.blocks[0] = make_block(5000, m.n_funcs, 4, false);
	ok(bp_decoder_create(&d));
	for (unsigned round = 0; round < 15; round++) {
		unsigned written = 0, n;
		struct bp_trace *t;
		pid_t child;

		unlink(file);
		assert_int_equal(pipe(fds), 0);
		child = fork();
		assert_true(child >= 0);
		if (!child) {
			struct bp_trace_writer *w;
			struct model mine = {0};

			alarm(20);
			close(fds[0]);
			if (bp_trace_writer_create(file, 4, &w))
				_exit(1);
			for (unsigned i = 0; i < m.n_funcs; i++) {
				struct bp_func f = test_func(i);

				if (bp_trace_writer_func(w, &f))
					_exit(1);
			}
			for (n = 1;; n++) {
				struct bp_fact f = test_fact(mine.n_facts++);

				if (bp_trace_writer_fact(w, &f) || bp_trace_writer_block(w, &m.blocks[0]) ||
				    write(fds[1], &n, sizeof(n)) != (ssize_t)sizeof(n))
					_exit(1);
			}
		}
		close(fds[1]);
		/* Wait for some blocks, then strike at no particular point. */
		for (unsigned k = rnd() % 40 + 1; k; k--)
			assert_int_equal(read(fds[0], &written, sizeof(written)), sizeof(written));
		usleep((useconds_t)(rnd() % 3000));
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, NULL, 0), child);
		while (read(fds[0], &n, sizeof(n)) == (ssize_t)sizeof(n))
			written = n;
		close(fds[0]);
		ok(bp_trace_open(file, &t));
		assert_true(bp_trace_n_blocks(t) >= written);
		assert_true(bp_trace_damage(t)->unfinished);
		assert_true(bp_trace_damage(t)->bad_chunks <= 1);
		for (size_t i = 0; i < bp_trace_n_blocks(t); i++) {
			struct bp_block b;

			ok(bp_decoder_read(d, t, i, &b));
			same_block(&m.blocks[0], &b);
		}
		bp_trace_destroy(t);
	}
	bp_decoder_destroy(d);
	free_block(&m.blocks[0]);
}

/* A full disk: an error that names the file, a valid recording, and a second chance. */
static void test_disk_full(void **state)
{
	struct rlimit limit, small;
	struct bp_trace_writer *w;
	struct model m = {0};
	struct bp_block extra;
	struct bp_err *err = NULL;
	struct bp_trace *t;
	struct stat st;
	unsigned n = 0;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = limit;
	small.rlim_cur = 50000;
	ok(bp_trace_writer_create(file, 4, &w));
	give_funcs(w, &m, 50);
	give_facts(w, &m, 10);
	extra = make_block(3000, m.n_funcs, 4, false);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	while (!err) {
		err = bp_trace_writer_block(w, &extra);
		n += !err;
	}
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_true(n > 1);
	fails(err, BP_EOS, file);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_size, bp_trace_writer_bytes(w));

	/* Facts given meanwhile are kept, as long as they are few. */
	give_facts(w, &m, 5);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	err = NULL;
	for (unsigned i = 0; !err && i < 100000; i++) {
		struct bp_fact f = test_fact(m.n_facts);

		err = bp_trace_writer_fact(w, &f);
		m.n_facts += !err;
	}
	fails(err, BP_EOS, file);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ok(bp_trace_writer_block(w, &extra));
	ok(bp_trace_writer_close(w));
	ok(bp_trace_open(file, &t));
	assert_int_equal(bp_trace_n_blocks(t), n + 1);
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 0);
	assert_int_equal(bp_trace_damage(t)->missing_chunks, 0);
	assert_false(bp_trace_damage(t)->unfinished);
	same_facts(t, &m);
	bp_trace_destroy(t);

	/* Full already at close: an error, and still a recording. */
	ok(bp_trace_writer_create(file, 4, &w));
	small.rlim_cur = 64;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	err = bp_trace_writer_close(w);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	fails(err, BP_EOS, file);
	ok(bp_trace_open(file, &t));
	assert_true(bp_trace_damage(t)->unfinished);
	bp_trace_destroy(t);
	free_block(&extra);
}

static void test_destroyed_is_unfinished(void **state)
{
	struct bp_trace_writer *w;
	struct model m = {0};
	struct bp_trace *t;

	(void)state;
	bp_trace_writer_destroy(NULL);
	bp_trace_destroy(NULL);
	bp_decoder_destroy(NULL);
	ok(bp_trace_writer_create(file, 4, &w));
	give_facts(w, &m, 5);
	ok(bp_trace_writer_flush(w));
	give_facts(w, &m, 2);
	bp_trace_writer_destroy(w);
	m.n_facts = 5;
	ok(bp_trace_open(file, &t));
	same_facts(t, &m);
	assert_true(bp_trace_damage(t)->unfinished);
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 0);
	bp_trace_destroy(t);
}

/* Cut while open: an error, not a signal. */
static void test_cut_while_open(void **state)
{
	struct model m = {0};
	struct bp_decoder *d;
	struct bp_trace *t;
	struct bp_block b;

	(void)state;
	small_file(&m);
	ok(bp_trace_open(file, &t));
	assert_int_equal(truncate(file, 200), 0);
	ok(bp_decoder_create(&d));
	fails(bp_decoder_read(d, t, 1, &b), BP_EDATA, "cut short");
	bp_decoder_destroy(d);
	bp_trace_destroy(t);
	free_model(&m);
}

static void patch_header(const char *from, size_t offset, uint64_t value, size_t bytes)
{
	uint32_t crc;
	uint8_t *data;
	size_t len;

	data = slurp(from, &len);
	memcpy(data + offset, &value, bytes);
	crc = bp_crc32c(0, data, 60);
	memcpy(data + 60, &crc, 4);
	spill(other, data, len);
	free(data);
}

static void test_versions(void **state)
{
	struct model m = {0};
	struct bp_trace *t;

	(void)state;
	small_file(&m);
	patch_header(file, offsetof(struct bp_file_header, major), 2, 2);
	fails(bp_trace_open(other, &t), BP_EUNSUPPORTED, "format 2.0, this bootprof reads up to 1.0");
	patch_header(file, offsetof(struct bp_file_header, incompatible), 1ull << 40, 8);
	fails(bp_trace_open(other, &t), BP_EUNSUPPORTED, "features 0x10000000000");
	patch_header(file, offsetof(struct bp_file_header, minor), 7, 2);
	ok(bp_trace_open(other, &t));
	same_facts(t, &m);
	same_blocks(t, &m);
	bp_trace_destroy(t);
	patch_header(file, offsetof(struct bp_file_header, compatible), UINT64_MAX, 8);
	ok(bp_trace_open(other, &t));
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 0);
	bp_trace_destroy(t);
	patch_header(file, offsetof(struct bp_file_header, tick_shift), 11, 4);
	fails(bp_trace_open(other, &t), BP_EDATA, "bad file header");
	patch_header(file, offsetof(struct bp_file_header, header_bytes), 63, 4);
	fails(bp_trace_open(other, &t), BP_EDATA, "bad file header");
	patch_header(file, offsetof(struct bp_file_header, header_bytes), UINT32_MAX, 4);
	ok(bp_trace_open(other, &t));
	assert_true(bp_trace_damage(t)->unfinished);
	bp_trace_destroy(t);
	free_model(&m);
}

static void test_not_a_recording(void **state)
{
	struct bp_trace *t = NULL;
	char name[96];

	(void)state;
	snprintf(name, sizeof(name), "%s/none", dir);
	fails(bp_trace_open(name, &t), BP_EOS, "No such file");
	fails(bp_trace_open(dir, &t), BP_EOS, "Is a directory");
	fails(bp_trace_open("/dev/null", &t), BP_EDATA, "not a regular file");
	spill(other, (const uint8_t *)"", 0);
	fails(bp_trace_open(other, &t), BP_EDATA, "empty");
	spill(other, (const uint8_t *)"#!/bin/sh\n", 10);
	fails(bp_trace_open(other, &t), BP_EDATA, "not a recording");
	spill(other, (const uint8_t *)BP_TRACE_MAGIC, 8);
	fails(bp_trace_open(other, &t), BP_EDATA, "inside its header");
	assert_int_equal(mkfifo(name, 0600), 0);
	fails(bp_trace_open(name, &t), BP_EDATA, "not a regular file");
	assert_int_equal(unlink(name), 0);
	assert_null(t);
}

static void test_create(void **state)
{
	struct bp_trace_writer *w = NULL;
	char name[96], old[110];
	struct stat st;
	uint8_t *data;
	size_t len;

	(void)state;
	fails(bp_trace_writer_create("/nonexistent/dir/x", 0, &w), BP_EOS, "/nonexistent/dir/x");
	fails(bp_trace_writer_create(dir, 0, &w), BP_EOS, dir);
	fails(bp_trace_writer_create("/dev/null", 0, &w), BP_EOS, "/dev/null");
	snprintf(name, sizeof(name), "%s/link", dir);
	assert_int_equal(symlink(other, name), 0);
	spill(other, (const uint8_t *)"keep", 4);
	fails(bp_trace_writer_create(name, 0, &w), BP_EOS, name);
	assert_null(w);
	data = slurp(other, &len);
	assert_memory_equal(data, "keep", 4);
	free(data);

	snprintf(old, sizeof(old), "%s.old", other);
	ok(bp_trace_writer_create(other, 0, &w));
	bp_trace_writer_destroy(w);
	data = slurp(old, &len);
	assert_int_equal(len, 4);
	free(data);
	assert_int_equal(stat(other, &st), 0);
	assert_int_equal(st.st_size, sizeof(struct bp_file_header));
}

/* Bytes of a guest that look like a chunk are not one, since the guest does not know the file's id. */
static void test_forged_chunk(void **state)
{
	struct bp_chunk_header forged = {.magic = BP_CHUNK_MAGIC, .type = BP_CHUNK_FACTS, .sequence = 50};
	struct model m = {0};
	struct bp_trace *t;
	uint8_t *data, *bad;
	size_t len;

	(void)state;
	small_file(&m);
	data = slurp(file, &len);
	bad = malloc(len + sizeof(forged));
	forged.crc = bp_crc32c(0, &forged, 60);
	memcpy(bad, data, 64);
	memcpy(bad + 64, &forged, sizeof(forged));
	memcpy(bad + 64 + sizeof(forged), data + 64, len - 64);
	spill(other, bad, len + sizeof(forged));
	ok(bp_trace_open(other, &t));
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 1);
	assert_int_equal(bp_trace_damage(t)->lost_bytes, sizeof(forged));
	same_facts(t, &m);
	same_blocks(t, &m);
	bp_trace_destroy(t);
	free(bad);
	free(data);
	free_model(&m);
}

/* A file of nothing but chunk magics is gone through once, not once for each of them. */
static void test_many_magics(void **state)
{
	const uint32_t magic = BP_CHUNK_MAGIC;
	struct model m = {0};
	struct bp_trace *t;
	uint8_t *data, *bad;
	size_t len, n = 400000;

	(void)state;
	small_file(&m);
	data = slurp(file, &len);
	bad = malloc(64 + n + len);
	memcpy(bad, data, 64);
	for (size_t i = 0; i < n; i += 4)
		memcpy(bad + 64 + i, &magic, 4);
	memcpy(bad + 64 + n, data + 64, len - 64);
	spill(other, bad, n + len);
	ok(bp_trace_open(other, &t));
	same_facts(t, &m);
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 1);
	assert_int_equal(bp_trace_damage(t)->lost_bytes, n);
	bp_trace_destroy(t);
	free(bad);
	free(data);
	free_model(&m);
}

static void test_crc32c(void **state)
{
	uint8_t bytes[300];

	(void)state;
	/* RFC 3720, B.4. */
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(bp_crc32c(0, bytes, 32), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(bp_crc32c(0, bytes, 32), 0x62a8ab43);
	assert_int_equal(bp_crc32c(0, "123456789", 9), 0xe3069283);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)rnd();
	for (size_t n = 0; n < sizeof(bytes); n++) {
		size_t cut = n ? rnd() % n : 0;

		assert_int_equal(bp_crc32c(0, bytes, n), bp_crc32c_portable(0, bytes, n));
		assert_int_equal(bp_crc32c(bp_crc32c(0, bytes, cut), bytes + cut, n - cut),
				 bp_crc32c(0, bytes, n));
	}
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/bootprof-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/a.bootprof", dir);
	snprintf(other, sizeof(other), "%s/b.bootprof", dir);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_empty_recording),
	    cmocka_unit_test(test_odd_facts),
	    cmocka_unit_test(test_truncated_anywhere),
	    cmocka_unit_test(test_every_bit),
	    cmocka_unit_test(test_random_damage),
	    cmocka_unit_test(test_lost_definitions),
	    cmocka_unit_test(test_senseless_blocks),
	    cmocka_unit_test(test_depth_limit),
	    cmocka_unit_test(test_too_many_frames),
	    cmocka_unit_test(test_killed),
	    cmocka_unit_test(test_disk_full),
	    cmocka_unit_test(test_destroyed_is_unfinished),
	    cmocka_unit_test(test_cut_while_open),
	    cmocka_unit_test(test_versions),
	    cmocka_unit_test(test_not_a_recording),
	    cmocka_unit_test(test_create),
	    cmocka_unit_test(test_forged_chunk),
	    cmocka_unit_test(test_many_magics),
	    cmocka_unit_test(test_crc32c),
	};

	return cmocka_run_group_tests_name("trace", tests, setup, teardown);
}
