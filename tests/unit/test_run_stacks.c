// SPDX-License-Identifier: GPL-2.0-or-later
/* Stacks of a process that runs, against what it was programmed to do; and rings of the kernel's that are
 * none. */
#define _GNU_SOURCE
#include <linux/perf_event.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "collectors/vcpu/run_stacks.h"
#include "core/cleanup.h"
#include "symbols/host_stack.h"

/* ---- a process that runs ---- */

static volatile unsigned turns;

/* Each keeps something on its stack, and is no tail call. */
__attribute__((noinline)) static unsigned bp_test_spin(volatile char *p)
{
	volatile char own[40];

	own[0] = p[0];
	for (;;) {
		own[1] = (char)turns++;
		if (turns == UINT32_MAX && own[0] == own[1])
			break;
	}
	return turns;
}

__attribute__((noinline)) static unsigned bp_test_middle(unsigned n)
{
	volatile char own[3000];

	own[0] = (char)n;
	return bp_test_spin(own) + (unsigned)own[0];
}

__attribute__((noinline)) static unsigned bp_test_outer(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return bp_test_middle((unsigned)getpid()) + 1;
}

struct counts {
	struct bp_host_stacks *stacks;
	pid_t child;
	uint64_t from_ns;
	size_t n, whole;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static struct bp_err *check_sample(void *self, const struct bp_run_sample *sample)
{
	static const char *const chain[] = {"bp_test_spin", "bp_test_middle", "bp_test_outer"};
	struct bp_running r = {.stack = sample->stack, .stack_bytes = sample->stack_bytes};
	struct counts *c = self;
	uint64_t pc[BP_HOST_STACK_FRAMES];
	size_t n, found = 0;

	assert_int_equal(sample->tid, c->child);
	assert_in_range(sample->cpu, 0, sysconf(_SC_NPROCESSORS_CONF) - 1);
	assert_in_range(sample->time_ns, c->from_ns, now_ns());
	memcpy(r.regs, sample->regs, sizeof(r.regs));
	n = bp_host_stacks_unwind(c->stacks, c->child, &r, pc);
	assert_true(n > 0);
	assert_int_equal(pc[0], sample->regs[16]);
	for (size_t i = 0; i < n && found < BP_ARRAY_SIZE(chain); i++)
		found += !strcmp(bp_host_stacks_place(c->stacks, pc[i]).function, chain[found]);
	c->n++;
	c->whole += found == BP_ARRAY_SIZE(chain);
	/* The stack now is not that of then: without the copy there is none. */
	r.stack_bytes = 0;
	assert_in_range(bp_host_stacks_unwind(c->stacks, c->child, &r, pc), 1, 1);
	return NULL;
}

static void test_running(void **state)
{
	struct bp_run_stacks *s = NULL;
	struct counts c = {.from_ns = now_ns()};
	struct bp_err *err;
	pid_t child = fork();

	(void)state;
	assert_true(child >= 0);
	if (!child)
		_exit((int)bp_test_outer());
	c.child = child;
	err = bp_run_stacks_create(child, 200, &s);
	if (err && bp_err_code(err) == BP_EUNSUPPORTED) {
		print_message("%s\n", bp_err_text(err));
		bp_err_free(err);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		skip();
	}
	assert_null(err);
	assert_null(bp_host_stacks_create(child, &c.stacks));
	/* On a machine with much else to do it may take longer. */
	for (int i = 0; i < 100 && (i < 6 || c.n < 10); i++) {
		usleep(50000);
		assert_null(bp_run_stacks_read(s, check_sample, &c));
	}
	assert_in_range(c.n, 10, 100000);
	/* The first ones may be of its start. */
	assert_true(c.whole * 4 >= c.n * 3);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	bp_run_stacks_destroy(s);
	bp_host_stacks_destroy(c.stacks);
}

/* ---- rings ---- */

#define RING 1024

struct seen {
	size_t n;
	struct bp_run_sample last;
	uint8_t stack[64];
};

static struct bp_err *note(void *self, const struct bp_run_sample *sample)
{
	struct seen *s = self;

	s->n++;
	s->last = *sample;
	assert_true(sample->stack_bytes <= sizeof(s->stack));
	memcpy(s->stack, sample->stack, sample->stack_bytes);
	return NULL;
}

/* Puts words at @at of the ring. Returns where they end. */
static uint64_t put(uint8_t *ring, uint64_t at, const uint64_t *words, size_t n)
{
	for (size_t i = 0; i < n; i++, at += 8)
		memcpy(ring + at % RING, &words[i], 8);
	return at;
}

static uint64_t head_of(uint32_t type, size_t words)
{
	return (uint64_t)(8 * words) << 48 | type;
}

/* A sample with 16 bytes of stack, of which 8 could be read. Returns how many words. */
static size_t make_sample(uint64_t w[32])
{
	size_t n = 1;

	w[n++] = UINT64_C(7) << 32 | 6; /* tid, pid */
	w[n++] = 123456789;
	w[n++] = 3;
	w[n++] = PERF_SAMPLE_REGS_ABI_64;
	for (uint64_t i = 0; i < BP_RUN_REGS; i++)
		w[n++] = 100 + i;
	w[n++] = 16;
	w[n++] = UINT64_C(0x1122334455667788);
	w[n++] = 0;
	w[n++] = 8;
	w[0] = head_of(PERF_RECORD_SAMPLE, n);
	return n;
}

static size_t parse(const uint8_t *ring, uint64_t tail, uint64_t head, struct seen *s)
{
	static uint8_t record[65536];

	*s = (struct seen){0};
	assert_null(bp_run_stacks_parse(6, ring, RING, tail, head, record, note, s));
	return s->n;
}

static void test_ring(void **state)
{
	const uint64_t lost[3] = {head_of(PERF_RECORD_LOST, 3), 1, 2};
	uint8_t ring[RING] = {0};
	uint64_t w[32], at, wrong[32];
	struct seen s;
	size_t n = make_sample(w);

	(void)state;
	/* A sample, a loss, a sample, wherever they begin. */
	for (uint64_t tail = 0; tail < 2 * RING; tail += 8) {
		at = put(ring, tail, w, n);
		at = put(ring, at, lost, 3);
		at = put(ring, at, w, n);
		assert_int_equal(parse(ring, tail, at, &s), 2);
		assert_int_equal(s.last.tid, 7);
		assert_int_equal(s.last.cpu, 3);
		assert_int_equal(s.last.time_ns, 123456789);
		assert_int_equal(s.last.regs[0], 100);  /* ax */
		assert_int_equal(s.last.regs[3], 101);  /* bx */
		assert_int_equal(s.last.regs[2], 102);  /* cx */
		assert_int_equal(s.last.regs[1], 103);  /* dx */
		assert_int_equal(s.last.regs[6], 106);  /* bp */
		assert_int_equal(s.last.regs[7], 107);  /* sp */
		assert_int_equal(s.last.regs[16], 108); /* ip */
		assert_int_equal(s.last.regs[8], 109);
		assert_int_equal(s.last.regs[15], 116);
		assert_int_equal(s.last.stack_bytes, 8);
		assert_memory_equal(s.stack, &w[n - 3], 8);
		/* Not all of it is there. */
		assert_int_equal(parse(ring, tail, at - 8, &s), 1);
		assert_int_equal(parse(ring, tail, tail, &s), 0);
		assert_int_equal(parse(ring, tail, tail + RING + 8, &s), 0);
	}
	/* Each word is a wrong size once: nothing outside of the record is looked at. */
	for (size_t i = 0; i < n; i++) {
		memcpy(wrong, w, sizeof(wrong));
		for (int bit = 0; bit < 64; bit++) {
			wrong[i] = w[i] ^ UINT64_C(1) << bit;
			at = put(ring, 512, wrong, n);
			assert_in_range(parse(ring, 512, at, &s), 0, 1);
			wrong[i] = UINT64_MAX;
			at = put(ring, 512, wrong, n);
			assert_in_range(parse(ring, 512, at, &s), 0, 1);
		}
	}
	/* Shorter than what it has to have. */
	for (size_t k = 0; k < n; k++) {
		memcpy(wrong, w, sizeof(wrong));
		wrong[0] = head_of(PERF_RECORD_SAMPLE, k);
		at = put(ring, 512, wrong, n);
		assert_int_equal(parse(ring, 512, 512 + 8 * (k ? k : n), &s), 0);
	}
	/* Of another process. */
	memcpy(wrong, w, sizeof(wrong));
	wrong[1]++;
	assert_int_equal(parse(ring, 0, put(ring, 0, wrong, n), &s), 0);
	/* No registers: it was a thread of the kernel. No stack. */
	memcpy(wrong, w, sizeof(wrong));
	wrong[4] = PERF_SAMPLE_REGS_ABI_NONE;
	assert_int_equal(parse(ring, 0, put(ring, 0, wrong, n), &s), 0);
	memcpy(wrong, w, sizeof(wrong));
	wrong[n - 4] = 0;
	wrong[0] = head_of(PERF_RECORD_SAMPLE, n - 3);
	assert_int_equal(parse(ring, 0, put(ring, 0, wrong, n - 3), &s), 1);
	assert_int_equal(s.last.stack_bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ring),
	    cmocka_unit_test(test_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
