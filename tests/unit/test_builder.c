// SPDX-License-Identifier: GPL-2.0-or-later
/* What goes into a builder comes out of the recording: stacks, runs, clocks, across blocks and CPUs. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "analyzers/walk.h"
#include "core/builder.h"
#include "core/trace.h"

static char dir[64], file[96];
static struct bp_trace_writer *w;
static struct bp_builder *b;

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static int begin(void **state)
{
	(void)state;
	unlink(file);
	ok(bp_trace_writer_create(file, 0, &w));
	ok(bp_builder_create(w, &b));
	return 0;
}

static struct bp_trace *end(void)
{
	struct bp_trace *t;

	ok(bp_builder_finish(b, "exit"));
	ok(bp_builder_finish(b, "exit"));
	bp_builder_destroy(b);
	b = NULL;
	ok(bp_trace_writer_close(w));
	w = NULL;
	ok(bp_trace_open(file, &t));
	assert_false(bp_trace_damage(t)->unfinished);
	return t;
}

static uint32_t func(const char *name)
{
	uint32_t id;

	ok(bp_builder_func(b, BP_SPACE_KERNEL, (uint64_t)name[0] << 8, (uint64_t)name[0] << 8, name,
			   "vmlinux", &id));
	return id;
}

static uint32_t task(const char *comm)
{
	uint32_t id;

	ok(bp_builder_task(b, comm[0], comm[0], comm, 0, 0, &id));
	return id;
}

/* The walk as one line of text: enough to compare with. */
struct story {
	char text[4096];
	size_t len;
	const struct bp_func *funcs;
};

static void say(struct story *s, const char *fmt, ...) BP_PRINTF(2, 3);
static void say(struct story *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (s->len < sizeof(s->text))
		s->len += (size_t)vsnprintf(s->text + s->len, sizeof(s->text) - s->len, fmt, ap);
	va_end(ap);
}

static void on_run(void *ctx, const struct bp_walk_now *now)
{
	say(ctx, "[%u:%u@%" PRIu64 " ", now->vcpu, now->task->id, now->wall_ns);
}

static void on_run_end(void *ctx, const struct bp_walk_now *now)
{
	say(ctx, "@%" PRIu64 "]", now->wall_ns);
}

static void on_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	struct story *s = ctx;

	(void)now;
	say(s, "%s(", s->funcs[f->func].name);
	if (f->syscall != BP_WALK_NO_SYSCALL)
		say(s, "#%u ", f->syscall);
}

static void on_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		     enum bp_walk_leave how)
{
	say(ctx, "%" PRIu64 "/%" PRIu64 "%s) ", f->self_ns, bp_walk_total_ns(f, now),
	    how == BP_LEAVE_RET    ? ""
	    : how == BP_LEAVE_LOST ? "?"
				   : "...");
}

static const struct bp_walk_ops story_ops = {
    .on_run = on_run, .on_run_end = on_run_end, .on_enter = on_enter, .on_leave = on_leave};

static void tells(struct bp_trace *t, const char *expect)
{
	struct story s = {.text = ""};
	struct bp_walk *walk;
	size_t n;

	s.funcs = bp_trace_funcs(t, &n);
	ok(bp_walk_create(t, NULL, &walk));
	ok(bp_walk_run(walk, &story_ops, &s));
	assert_int_equal(walk->stats.resyncs, 0);
	assert_int_equal(walk->stats.damaged_blocks, 0);
	bp_walk_destroy(walk);
	bp_trace_destroy(t);
	assert_string_equal(s.text, expect);
}

static void test_calls(void **state)
{
	uint32_t f = func("f"), g = func("g");

	(void)state;
	assert_int_equal(func("f"), f);
	ok(bp_builder_switch(b, 0, task("a"), 100, 0));
	ok(bp_builder_syscall(b, 0, 7, 100, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 110, 0));
	assert_int_equal(bp_builder_depth(b, 0), 1);
	ok(bp_builder_tick(b, 0, 115, 0));
	ok(bp_builder_enter(b, 0, BP_EV_JUMP, g, 120, 0));
	assert_int_equal(bp_builder_top(b, 0), g);
	assert_int_equal(bp_builder_frame(b, 0, 0), f);
	assert_int_equal(bp_builder_frame(b, 0, 2), UINT32_MAX);
	ok(bp_builder_leave(b, 0, 1, 150, 0));
	ok(bp_builder_leave(b, 0, 9, 200, 0));
	ok(bp_builder_leave(b, 0, 1, 210, 0));
	assert_int_equal(bp_builder_depth(b, 0), 0);
	assert_int_equal(bp_builder_calls(b), 2);
	tells(end(), "[0:0@100 f(#7 g(30/30) 60/90) @210]");
}

/* A task's stack goes along with it; its time on the CPU does not count what others took. */
static void test_switch(void **state)
{
	uint32_t f = func("f"), g = func("g"), a = task("a"), c = task("c");

	(void)state;
	ok(bp_builder_switch(b, 0, a, 0, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 10, 0));
	ok(bp_builder_switch(b, 0, c, 30, 0));
	ok(bp_builder_switch(b, 0, c, 31, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, g, 40, 0));
	ok(bp_builder_switch(b, 1, a, 45, 0));
	ok(bp_builder_leave(b, 0, 1, 50, 0));
	ok(bp_builder_leave(b, 1, 1, 65, 0));
	tells(end(), "[0:0@0 f(@30][0:1@30 g(10/10) @50][1:0@45 40/40) @65]");
}

/* A task that turns up elsewhere has left where it was. */
static void test_migration(void **state)
{
	uint32_t f = func("f"), a = task("a"), c = task("c");

	(void)state;
	ok(bp_builder_switch(b, 0, a, 0, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 10, 0));
	ok(bp_builder_tick(b, 0, 90, 0));
	ok(bp_builder_switch(b, 3, a, 50, 0));
	ok(bp_builder_leave(b, 3, 1, 60, 0));
	assert_int_equal(bp_builder_depth(b, 0), 0);
	ok(bp_builder_leave(b, 0, 1, 95, 0));
	ok(bp_builder_switch(b, 0, c, 100, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 105, 0));
	tells(end(), "[0:0@0 f(@50][3:0@50 50/50) @60][0:1@100 f(@105]0/0...) ");
}

static void test_time_back(void **state)
{
	uint32_t f = func("f");

	(void)state;
	ok(bp_builder_switch(b, 0, task("a"), 1000, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 900, 0));
	ok(bp_builder_leave(b, 0, 1, 1010, 0));
	assert_int_equal(bp_builder_clamped(b), 1);
	tells(end(), "[0:0@1000 f(10/10) @1010]");
}

/* Minutes in one event; an absurd time must not become billions of events. */
static void test_long_time(void **state)
{
	const uint64_t hour = 3600000000000ull;
	uint32_t f = func("f");
	struct bp_trace *t;
	const struct bp_fact *facts;
	size_t n;

	(void)state;
	ok(bp_builder_switch(b, 0, task("a"), 0, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 0, 0));
	ok(bp_builder_leave(b, 0, 1, hour, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, UINT64_MAX - 5, UINT64_MAX));
	t = end();
	facts = bp_trace_facts(t, &n);
	assert_int_equal(facts[n - 1].kind, BP_FACT_END);
	assert_int_equal(facts[n - 1].v[2], 2);
	assert_int_equal(facts[n - 2].kind, BP_FACT_VCPU);
	assert_true(facts[n - 2].v[2] < 2000);
	tells(t, "[0:0@0 f(3600000000000/3600000000000) @3600000000000][0:0@4611686018427387904 "
		 "f(@4611686018427387904]0/0...) ");
}

static void test_lost(void **state)
{
	uint32_t f = func("f");
	struct bp_trace *t;
	const struct bp_fact *facts;
	size_t n;

	(void)state;
	ok(bp_builder_switch(b, 0, task("a"), 0, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 5, 0));
	ok(bp_builder_lost(b, 0, UINT64_MAX, 9, "the ring was full"));
	ok(bp_builder_lost(b, 0, 7, 9, "again"));
	assert_int_equal(bp_builder_depth(b, 0), 0);
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 10, 0));
	t = end();
	facts = bp_trace_facts(t, &n);
	assert_int_equal(facts[n - 2].kind, BP_FACT_LOST);
	assert_int_equal(facts[n - 2].v[0], UINT64_MAX);
	assert_string_equal(facts[n - 2].s1, "the ring was full");
	tells(t, "[0:0@0 f(4/4?) f(@10]0/0...) ");
}

/* Deeper than is kept: counted, and the way back finds the frames below as they were. */
static void test_deep(void **state)
{
	uint32_t f = func("f"), g = func("g");

	(void)state;
	ok(bp_builder_switch(b, 0, task("a"), 0, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, g, 0, 0));
	for (int i = 0; i < 100000; i++)
		ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 1, 0));
	assert_int_equal(bp_builder_depth(b, 0), 100001);
	assert_int_equal(bp_builder_top(b, 0), UINT32_MAX);
	ok(bp_builder_leave(b, 0, 100000, 2, 0));
	assert_int_equal(bp_builder_depth(b, 0), 1);
	assert_int_equal(bp_builder_top(b, 0), g);
	bp_trace_destroy(end());
}

/* Each source has CPUs of its own; numbers that are free are kept. */
static void test_sources(void **state)
{
	uint32_t f = func("f");

	(void)state;
	ok(bp_builder_switch(b, 1, task("a"), 0, 0));
	ok(bp_builder_enter(b, 1, BP_EV_CALL, f, 10, 0));
	ok(bp_builder_tick(b, 1, 12, 0));
	ok(bp_builder_next_source(b));
	assert_int_equal(bp_builder_depth(b, 1), 0);
	ok(bp_builder_switch(b, 1, task("b"), 5, 0));
	ok(bp_builder_switch(b, 0, task("c"), 5, 0));
	ok(bp_builder_enter(b, 1, BP_EV_CALL, f, 6, 0));
	ok(bp_builder_leave(b, 1, 1, 7, 0));
	ok(bp_builder_enter(b, 0, BP_EV_CALL, f, 6, 0));
	ok(bp_builder_leave(b, 0, 1, 8, 0));
	assert_int_equal(bp_builder_clamped(b), 0);
	tells(end(), "[1:0@0 f(@12][2:1@5 f(1/1) @7][0:2@5 f(2/2) @8]2/2...) ");
}

/* Callers' mistakes that foreign data can provoke. */
static void test_odd(void **state)
{
	uint32_t f = func("f");
	struct bp_err *err = bp_builder_enter(b, BP_BUILDER_CPUS, BP_EV_CALL, f, 0, 0);

	(void)state;
	assert_int_equal(bp_err_code(err), BP_EUNSUPPORTED);
	bp_err_free(err);
	ok(bp_builder_leave(b, 5, 1, 3, 0));
	ok(bp_builder_enter(b, 5, BP_EV_CALL, f, 4, 0));
	ok(bp_builder_leave(b, 5, 1, 6, 0));
	tells(end(), "[5:0@4 f(2/2) @6]");
}

/* More functions, tasks and frames than are kept. */
static void test_bounds(void **state)
{
	uint32_t last = 0, id, first;
	char name[3000];
	struct bp_trace *t;
	size_t n;

	(void)state;
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	for (int i = 0; i < 50000; i++) {
		name[0] = (char)('a' + i % 26);
		name[1] = (char)('a' + i / 26 % 26);
		name[2] = (char)('a' + i / 676 % 26);
		name[3] = (char)('a' + i / 17576 % 26);
		ok(bp_builder_func(b, BP_SPACE_USER, (uint64_t)i, 0, name, name, &last));
	}
	assert_true(last < 20000);
	ok(bp_builder_func(b, BP_SPACE_USER, 0, 0, "other", "", &id));
	assert_int_equal(id, last);
	first = 0;
	for (int i = 0; i < 300000; i++)
		ok(bp_builder_task(b, i, i, "t", 0, 0, &id));
	assert_true(id < 1 << 18);
	for (uint32_t k = first; k < 400; k++) {
		ok(bp_builder_switch(b, 0, k, k, 0));
		for (int i = 0; i < 4000; i++)
			ok(bp_builder_enter(b, 0, BP_EV_CALL, last, k, 0));
		assert_int_equal(bp_builder_depth(b, 0), 4000);
	}
	t = end();
	bp_trace_funcs(t, &n);
	assert_int_equal(n, last + 1);
	bp_trace_destroy(t);
}

/*
 * Random work on some CPUs and tasks over many blocks, against a model: the walk must never find a stack that
 * does not agree, and totals must be the model's.
 */
#define TASKS 40
#define CPUS 4
#define FUNCS 30

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

struct sums {
	uint64_t calls[FUNCS], self[FUNCS], insns[FUNCS];
};

static void sum_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		      enum bp_walk_leave how)
{
	struct sums *s = ctx;

	(void)now;
	assert_int_not_equal(how, BP_LEAVE_LOST);
	s->calls[f->func]++;
	s->self[f->func] += f->self_ns;
	s->insns[f->func] += f->self_insns;
}

static const struct bp_walk_ops sum_ops = {.on_leave = sum_leave};

static void test_random(void **state)
{
	static struct {
		uint32_t stack[64], n;
	} model[TASKS];
	struct sums expect = {.calls = {0}}, got = {.calls = {0}};
	uint64_t now[CPUS] = {0}, insns[CPUS] = {0}, all = 0;
	uint32_t on[CPUS];
	struct bp_trace *t;
	struct bp_walk *walk;

	(void)state;
	for (uint32_t i = 0; i < FUNCS; i++) {
		uint32_t id;

		ok(bp_builder_func(b, BP_SPACE_KERNEL, i, i, "f", "vmlinux", &id));
		assert_int_equal(id, i);
	}
	for (uint32_t i = 0; i < TASKS; i++)
		assert_int_equal(task("t"), i);
	for (uint32_t i = 0; i < CPUS; i++) {
		on[i] = i;
		ok(bp_builder_switch(b, i, i, 0, 0));
	}
	for (int i = 0; i < 600000; i++) {
		uint64_t r = rnd();
		uint32_t c = r % CPUS, k = on[c];
		uint64_t dt = r >> 40 & 0xfff, di = r >> 20 & 0xff;

		/* one clock for all, so that no time goes back when a task moves */
		all += dt;
		dt = all - now[c];
		now[c] = all;
		insns[c] += di;
		if (model[k].n) {
			expect.self[model[k].stack[model[k].n - 1]] += dt;
			expect.insns[model[k].stack[model[k].n - 1]] += di;
		}
		if (r >> 8 & 127 && (r >> 15 & 3) < 2 && model[k].n < 60) {
			uint32_t f = (uint32_t)(r >> 17) % FUNCS;

			ok(bp_builder_enter(b, c, BP_EV_CALL + r % 3, f, now[c], insns[c]));
			model[k].stack[model[k].n++] = f;
			expect.calls[f]++;
		} else if (r >> 8 & 127) {
			uint32_t n = 1 + (r >> 17) % 2;

			ok(bp_builder_leave(b, c, n, now[c], insns[c]));
			model[k].n = model[k].n > n ? model[k].n - n : 0;
		} else {
			bool busy = false;

			k = (uint32_t)(r >> 30) % TASKS;
			for (uint32_t j = 0; j < CPUS; j++)
				busy = busy || on[j] == k;
			if (busy) {
				ok(bp_builder_tick(b, c, now[c], insns[c]));
				continue;
			}
			ok(bp_builder_switch(b, c, k, now[c], insns[c]));
			on[c] = k;
		}
		assert_int_equal(bp_builder_depth(b, c), model[on[c]].n);
	}
	t = end();
	assert_true(bp_trace_n_blocks(t) > 5);
	ok(bp_walk_create(t, NULL, &walk));
	ok(bp_walk_run(walk, &sum_ops, &got));
	assert_int_equal(walk->stats.resyncs, 0);
	assert_int_equal(walk->stats.damaged_blocks, 0);
	bp_walk_destroy(walk);
	bp_trace_destroy(t);
	assert_memory_equal(&got, &expect, sizeof(got));
}

static int cleanup(void **state)
{
	(void)state;
	bp_builder_destroy(b);
	bp_trace_writer_destroy(w);
	b = NULL;
	w = NULL;
	unlink(file);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_calls, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_switch, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_migration, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_time_back, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_long_time, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_lost, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_deep, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_odd, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_sources, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_bounds, begin, cleanup),
	    cmocka_unit_test_setup_teardown(test_random, begin, cleanup),
	};
	int failed;

	snprintf(dir, sizeof(dir), "%s/bootprof-builder.XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof(file), "%s/t", dir);
	failed = cmocka_run_group_tests_name("builder", tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
