// SPDX-License-Identifier: GPL-2.0-or-later
/* Stacks of a process that is blocked, against what it was programmed to do. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "symbols/host_stack.h"

static void test_parse(void **state)
{
	struct bp_blocked b;

	(void)state;
	assert_true(bp_blocked_parse("202 0x55d0 0x80 0x2 0x0 0x0 0x0 0x7ffc10 0x7f20\n", &b));
	assert_int_equal(b.nr, 202);
	assert_int_equal(b.args[0], 0x55d0);
	assert_int_equal(b.args[1], 0x80);
	assert_int_equal(b.sp, 0x7ffc10);
	assert_int_equal(b.pc, 0x7f20);
	assert_true(bp_blocked_parse("-1 0x7ffc10 0x7f20\n", &b));
	assert_int_equal(b.nr, -1);
	assert_int_equal(b.sp, 0x7ffc10);
	assert_false(bp_blocked_parse("running\n", &b));
	assert_false(bp_blocked_parse("", &b));
	assert_false(bp_blocked_parse("202", &b));
	assert_false(bp_blocked_parse("202 0x1 0x2 0x3\n", &b));
	assert_false(bp_blocked_parse("202 0x1 0x2 0x3 0x0 0x0 0x0 0x0 0x0\n", &b));
	assert_false(bp_blocked_parse("202 x 0x2 0x3 0x0 0x0 0x0 0x1 0x1\n", &b));
}

static int word;

/* Code with frame pointers, as sanitizers want it, cannot be followed: that register is not known. */
#ifdef __SANITIZE_ADDRESS__
static const bool followed = false;
#else
static const bool followed = true;
#endif

/* Each keeps something on its stack, and is no tail call. */
__attribute__((noinline)) static int bp_test_inner(volatile char *p)
{
	volatile char own[40];

	own[0] = p[0];
	/* Nobody wakes it. */
	syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	return own[0];
}

__attribute__((noinline)) static int bp_test_outer(int n)
{
	volatile char own[3000];

	own[0] = (char)n;
	return bp_test_inner(own) + own[0];
}

__attribute__((noinline)) static int bp_test_child(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return bp_test_outer((int)getpid()) + 1;
}

/* The place of @want among the functions of a stack, counted from @from; -1: not there. */
static int find(struct bp_host_stacks *s, const uint64_t *pc, size_t n, int from, const char *want)
{
	for (size_t i = (size_t)from; i < n; i++) {
		if (!strcmp(bp_host_stacks_place(s, pc[i]).function, want))
			return (int)i;
	}
	return -1;
}

static void test_blocked(void **state)
{
	uint64_t pc[BP_HOST_STACK_FRAMES];
	struct bp_host_stacks *s;
	struct bp_host_place place;
	struct bp_blocked b, other;
	int inner, outer;
	size_t n = 0;
	pid_t child;

	(void)state;
	if (access("/proc/self/syscall", R_OK)) {
		print_message("/proc/PID/syscall is not there\n");
		skip();
	}
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(bp_test_child());
	assert_null(bp_host_stacks_create(child, &s));
	for (int i = 0; i < 1000 && !n; i++) {
		usleep(10000);
		if (bp_blocked_read(child, child, &b) && b.nr == SYS_futex)
			n = bp_host_stacks_take(s, child, &b, pc);
	}
	assert_true(n > 0);
	assert_int_equal(b.args[0], (uintptr_t)&word);
	if (followed) {
		inner = find(s, pc, n, 0, "bp_test_inner");
		assert_true(inner > 0);
		outer = find(s, pc, n, inner, "bp_test_outer");
		assert_int_equal(outer, inner + 1);
		assert_int_equal(find(s, pc, n, outer, "bp_test_child"), outer + 1);
		place = bp_host_stacks_place(s, pc[inner]);
		assert_non_null(strstr(place.file, "test_host_stack"));
		assert_in_range(place.offset, 1, 200);
	}
	/* Data is no code. */
	assert_string_equal(bp_host_stacks_place(s, (uintptr_t)&word).function, "");
	assert_string_equal(bp_host_stacks_place(s, 16).file, "");
	/* A stack of another moment is none. */
	other = b;
	other.sp += 64;
	assert_int_equal(bp_host_stacks_take(s, child, &other, pc), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_false(bp_blocked_read(child, child, &b));
	assert_int_equal(bp_host_stacks_take(s, child, &other, pc), 0);
	bp_host_stacks_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_parse),
	    cmocka_unit_test(test_blocked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
