// SPDX-License-Identifier: GPL-2.0-or-later
/* From raw records to events: what the engine writes for what a guest does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/engine_rig.h"

static struct rig rig;

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static int setup(void **state)
{
	(void)state;
	return rig_map(&rig) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	rig_unmap(&rig);
	return 0;
}

static uint64_t seed, time_scale = 1;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 20) % n;
}

static uint64_t kpc(unsigned func, unsigned off)
{
	return RIG_LINK + RIG_SLIDE + func * RIG_FUNC_BYTES + off;
}

/* ---- --max-size ---- */

#define STORM_TASKS 6
#define STORM_FUNCS 150

/* Entries of interrupts, of system calls, and the function after them. */
enum { K_IRQ = 190, K_SYSCALL, K_DO_SYSCALL };

struct storm_task {
	uint32_t base, slots[400], func[400], n;
};

static void storm_step(uint64_t ticks, unsigned v)
{
	rig.now += ticks * 16 * time_scale;
	rig.insns[v] += 1 + rnd(90);
}

static void storm_entry(struct storm_task *t, unsigned v, unsigned func, uint32_t slot)
{
	uint32_t id = rig_site(&rig, kpc(func, 0), BP_SITE_ENTRY, 4);

	rig_rec(&rig, v, id, slot, true);
	if (t->n < 400) {
		t->slots[t->n] = slot;
		t->func[t->n++] = func;
	}
}

/* The same calls, returns, interrupts, system calls and switches for the same @seed_value. */
static void storm(uint64_t seed_value, unsigned n_ops, unsigned vcpus)
{
	static struct storm_task tasks[STORM_TASKS];
	unsigned running[2] = { 0, 1 };
	bool stopped[STORM_TASKS] = { false };
	uint64_t n;

	seed = seed_value;
	memset(tasks, 0, sizeof(tasks));
	for (unsigned i = 0; i < STORM_TASKS; i++)
		tasks[i].base = 0x100000u * (i + 1);
	for (unsigned i = 0; i < n_ops; i++) {
		unsigned v = rnd(vcpus), what = rnd(1000), func = rnd(4) ? rnd(12) : rnd(STORM_FUNCS);
		struct storm_task *t = &tasks[running[v]];
		uint32_t sp = t->n ? t->slots[t->n - 1] : t->base;

		storm_step(rnd(20) ? rnd(6) : rnd(2000), v);
		if (what < 480 && t->n < 300) {
			/* A call; now and then to itself, or by a jump. */
			if (t->n && what < 30)
				func = t->func[t->n - 1];
			if (t->n && what >= 30 && what < 60)
				storm_entry(t, v, func, sp);
			else
				storm_entry(t, v, func, sp - 16 - 8 * rnd(4));
		} else if (what < 960 && t->n) {
			/* A return, of one or more. */
			uint32_t k = rnd(8) ? 1 : 1 + rnd(t->n), to;

			if (k > t->n)
				k = t->n;
			to = t->slots[t->n - k] + 8;
			while (t->n && t->slots[t->n - 1] < to)
				t->n--;
			rig_rec(&rig, v, rig_site(&rig, kpc(t->n ? t->func[t->n - 1] : 0, 0x40), BP_SITE_LANDING, 5), to, true);
		} else if (what < 975 && t->n && t->n < 300) {
			storm_entry(t, v, K_IRQ, sp - 64);
		} else if (what < 990) {
			unsigned to = rnd(STORM_TASKS);

			if (to != running[0] && to != running[1] && t->n < 300) {
				struct bp_ctl_switch s = {
					.prev = 0xffff888000000000ull + running[v] * 0x1000, .next = 0xffff888000000000ull + to * 0x1000,
					.pid = to + 1, .tgid = to + 1, .known = 1, .comm = "task",
				};

				/* Never two at the same time. */
				storm_step(1, v);
				rig_ctl(&rig, v, BP_CTL_SWITCH, &s, sizeof(s));
				running[v] = to;
				/* Where it was when it stopped: in the function that switches. */
				if (stopped[to] && tasks[to].n) {
					storm_step(1, v);
					rig_rec(&rig, v, rig_site(&rig, kpc(tasks[to].func[tasks[to].n - 1], 0), BP_SITE_ENTRY, 4),
						tasks[to].slots[tasks[to].n - 1], true);
				}
				for (unsigned j = 0; j < STORM_TASKS; j++)
					stopped[j] = true;
			}
		} else if (what < 995) {
			rig_ctl(&rig, v, BP_CTL_IDLE, NULL, 0);
			storm_step(rnd(3000), v);
			rig_ctl(&rig, v, BP_CTL_RESUME, NULL, 0);
		}
		if (i % 5000 == 4999)
			ok(bp_engine_drain(rig.e, &n));
	}
	ok(bp_engine_drain(rig.e, &n));
}

struct outcome {
	struct rig_total *totals;
	size_t n_funcs;
	uint64_t bytes, folded, events, fold_chunks;
	bool events_ended;
};

static struct outcome storm_outcome(uint64_t seed_value, unsigned n_ops, unsigned vcpus, uint64_t max_bytes)
{
	struct rig_reader rr = { .in_order = true };
	struct outcome o = { 0 };
	struct bp_trace *t = NULL;

	rig.o.max_bytes = max_bytes;
	ok(rig_start(&rig, vcpus));
	storm(seed_value, n_ops, vcpus);
	o.folded = bp_engine_status(rig.e)->folded_calls;
	ok(rig_end(&rig, false));
	rig.o.max_bytes = 0;
	ok(bp_trace_open(rig.path, &t));
	assert_string_equal(rig_read(&rr, t, NULL, NULL), "");
	bp_trace_funcs(t, &o.n_funcs);
	o.totals = rr.totals;
	rr.totals = NULL;
	o.bytes = bp_trace_bytes(t);
	o.events = rr.events;
	o.events_ended = bp_trace_info(t, "events_end_ns") != NULL;
	rig_reader_free(&rr);
	bp_trace_destroy(t);
	return o;
}

static void compare_totals(const struct outcome *a, const struct outcome *b)
{
	assert_int_equal(a->n_funcs, b->n_funcs);
	for (size_t i = 0; i < a->n_funcs; i++) {
		const struct rig_total *x = &a->totals[i], *y = &b->totals[i];

		if (memcmp(x, y, sizeof(*x)))
			print_message("function %zu: calls %llu %llu, self %llu %llu ns, %llu %llu insns, total %llu %llu ns, %llu %llu insns\n",
				      i, (unsigned long long)x->calls, (unsigned long long)y->calls, (unsigned long long)x->self_ns,
				      (unsigned long long)y->self_ns, (unsigned long long)x->self_insns, (unsigned long long)y->self_insns,
				      (unsigned long long)x->total_ns, (unsigned long long)y->total_ns, (unsigned long long)x->total_insns,
				      (unsigned long long)y->total_insns);
		assert_memory_equal(x, y, sizeof(*x));
	}
}

/* Whatever is left out of the events is in the totals: they are those of a recording without a bound. */
static void test_fold_totals(void **state)
{
	static const uint64_t bounds[] = { 20000, 100000, 300000, 1000000 };
	enum { OPS = 300000 };

	(void)state;
	rig.names[K_IRQ] = "asm_irq";
	for (uint64_t s = 1; s <= 3; s++) {
		unsigned vcpus = s == 1 ? 1 : 2;
		struct outcome all = storm_outcome(s * 77777, OPS, vcpus, 0);

		for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
			struct outcome o = storm_outcome(s * 77777, OPS, vcpus, bounds[i]);

			print_message("# bound %llu: %llu bytes, %llu events (of %llu), %llu folded%s\n", (unsigned long long)bounds[i],
				      (unsigned long long)o.bytes, (unsigned long long)o.events, (unsigned long long)all.events,
				      (unsigned long long)o.folded, o.events_ended ? ", events ended" : "");
			compare_totals(&all, &o);
			/* The smallest one has no room for the first block. */
			if (i)
				assert_true(o.bytes <= bounds[i] + bounds[i] / 50);
			free(o.totals);
		}
		free(all.totals);
	}
}

/* A recorder that is killed loses what came after the last chunk of totals, and adds nothing up wrongly. */
static void test_fold_killed(void **state)
{
	enum { OPS = 400000 };
	struct rig_reader rr = { .in_order = true };
	struct outcome all;
	struct bp_trace *t = NULL;
	uint64_t calls = 0, all_calls = 0;
	size_t n_funcs;

	(void)state;
	rig.names[K_IRQ] = "asm_irq";
	/* So that it takes seconds. */
	time_scale = 20;
	all = storm_outcome(4242, OPS, 2, 0);
	rig.o.max_bytes = 200000;
	ok(rig_start(&rig, 2));
	storm(4242, OPS, 2);
	time_scale = 1;
	ok(rig_end(&rig, true));
	rig.o.max_bytes = 0;
	ok(bp_trace_open(rig.path, &t));
	assert_true(bp_trace_damage(t)->unfinished);
	assert_int_equal(bp_trace_damage(t)->bad_chunks + bp_trace_damage(t)->missing_chunks, 0);
	assert_string_equal(rig_read(&rr, t, NULL, NULL), "");
	bp_trace_funcs(t, &n_funcs);
	for (size_t i = 0; i < n_funcs; i++) {
		calls += rr.totals[i].calls;
		all_calls += all.totals[i].calls;
		assert_true(rr.totals[i].calls <= all.totals[i].calls);
		assert_true((int64_t)rr.totals[i].self_ns >= 0);
		assert_true((int64_t)rr.totals[i].self_insns >= 0);
	}
	print_message("# %llu of %llu calls left\n", (unsigned long long)calls, (unsigned long long)all_calls);
	assert_true(calls > all_calls / 2);
	rig_reader_free(&rr);
	free(all.totals);
	bp_trace_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fold_totals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fold_killed, setup, teardown),
	};

	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
