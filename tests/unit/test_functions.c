// SPDX-License-Identifier: GPL-2.0-or-later
/* Figures of functions, against figures worked out call by call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "analyzers/functions.h"
#include "tests/unit/random_trace.h"

static char file[64];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static int setup(void **state)
{
	(void)state;
	snprintf(file, sizeof(file), "/tmp/bootprof-functions.%d", (int)getpid());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(file);
}

static void check(const struct rt *rt, bool per_vcpu, const struct bp_query *q)
{
	struct bp_trace *trace;
	struct bp_analysis *a;
	struct bp_functions f;

	ok(bp_trace_open(file, &trace));
	ok(bp_analysis_create(trace, q, &a));
	ok(bp_functions_init(&f, a, per_vcpu));
	ok(bp_functions_walk(&f));
	assert_int_equal(a->rows.n, RT_FUNCS - 5);
	for (uint32_t i = 0; i < RT_FUNCS; i++) {
		uint32_t row = a->rows.row_of[i];
		const struct rt_figures *x = &rt->f[rt_symbol(i)];

		if (per_vcpu) {
			for (size_t v = 0; v < RT_VCPUS; v++) {
				const struct bp_func_total *t = &f.totals[v * f.n_rows + row];

				x = &rt->by_vcpu[v][rt_symbol(i)];
				assert_int_equal(t->calls, x->calls);
				assert_int_equal(t->self_ns, x->self_ns);
				assert_int_equal(t->self_insns, x->self_insns);
			}
			continue;
		}
		assert_int_equal(f.totals[row].calls, x->calls);
		assert_int_equal(f.totals[row].self_ns, x->self_ns);
		assert_int_equal(f.totals[row].self_insns, x->self_insns);
		assert_int_equal(f.totals[row].total_ns, x->total_ns);
		assert_int_equal(f.totals[row].total_insns, x->total_insns);
		assert_int_equal(f.totals[row].sleep_ns, x->sleep_ns);
	}
	bp_functions_deinit(&f);
	bp_analysis_destroy(a);
	bp_trace_destroy(trace);
}

static void test_random(void **state)
{
	static const size_t sizes[][2] = {{1, 50}, {3, 200}, {40, 1000}, {12, 5000}};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct rt *rt = rt_make(file, sizes[i][0], sizes[i][1], 88172645463325252ull + i);
		struct bp_query q = {0};

		check(rt, false, &q);
		check(rt, true, &q);
		rt_free(rt);
	}
}

/* A filter that lets everything through takes the slower loop, and must give the same. */
static void test_filters_that_filter_nothing(void **state)
{
	struct rt *rt = rt_make(file, 10, 3000, 7);
	struct bp_query q = {.to = "1000s"};

	(void)state;
	check(rt, false, &q);
	check(rt, true, &q);
	q = (struct bp_query){.depth = RT_DEPTH + 1};
	check(rt, false, &q);
	q = (struct bp_query){0};
	ok(bp_query_vcpus(&q, "0-63"));
	check(rt, false, &q);
	bp_query_deinit(&q);
	q = (struct bp_query){0};
	ok(bp_patterns_add(&q.in, "f.*"));
	check(rt, false, &q);
	bp_query_deinit(&q);
	q = (struct bp_query){0};
	ok(bp_patterns_add(&q.out, "none"));
	check(rt, false, &q);
	bp_query_deinit(&q);
	rt_free(rt);
}

struct sums {
	uint64_t calls, self_ns, self_insns;
};

static struct sums sum(const struct bp_query *q)
{
	struct sums s = {0, 0, 0};
	struct bp_trace *trace;
	struct bp_analysis *a;
	struct bp_functions f;

	ok(bp_trace_open(file, &trace));
	ok(bp_analysis_create(trace, q, &a));
	ok(bp_functions_init(&f, a, false));
	ok(bp_functions_walk(&f));
	for (size_t i = 0; i < f.n_rows; i++) {
		s.calls += f.totals[i].calls;
		s.self_ns += f.totals[i].self_ns;
		s.self_insns += f.totals[i].self_insns;
		assert_true(f.totals[i].self_ns <= f.totals[i].total_ns);
	}
	bp_functions_deinit(&f);
	bp_analysis_destroy(a);
	bp_trace_destroy(trace);
	return s;
}

/* What two filters split adds up. */
static void test_filters_add_up(void **state)
{
	struct rt *rt = rt_make(file, 10, 3000, 9);
	struct bp_query all = {0}, before = {.to = "1.5ms"}, after = {.from = "1500001ns"}, v0 = {0},
			v1 = {0};
	struct sums s = sum(&all), b = sum(&before), a = sum(&after), c, d;

	(void)state;
	assert_true(b.calls && a.calls);
	assert_int_equal(a.calls + b.calls, s.calls);
	/* the nanosecond between the two, on each vCPU */
	assert_in_range(s.self_ns - a.self_ns - b.self_ns, 0, RT_VCPUS);
	/* instructions of the events that are cut are divided by time */
	assert_in_range(s.self_insns - a.self_insns - b.self_insns, 0, 2 * RT_VCPUS);
	ok(bp_query_vcpus(&v0, "0"));
	ok(bp_query_vcpus(&v1, "1,2"));
	c = sum(&v0);
	d = sum(&v1);
	assert_int_equal(c.calls + d.calls, s.calls);
	assert_int_equal(c.self_ns + d.self_ns, s.self_ns);
	assert_int_equal(c.self_insns + d.self_insns, s.self_insns);
	rt_free(rt);
}

/* Every view takes every one of these recordings, with every filter. */
static void test_views(void **state)
{
	struct rt *rt = rt_make(file, 5, 2000, 11);
	struct bp_trace *trace;

	(void)state;
	ok(bp_trace_open(file, &trace));
	for (size_t i = 0; i < bp_n_views; i++) {
		for (unsigned k = 0; k < 32; k++) {
			struct bp_query q = {
			    .clock = k & 1 ? BP_CLOCK_INSNS : BP_CLOCK_TIME,
			    .from = k & 2 ? "300us" : NULL,
			    .to = k & 4 ? "700us" : NULL,
			    .depth = k & 8 ? 3 : 0,
			    .per_vcpu = k & 1,
			};
			struct bp_analysis *a;
			struct bp_report *r;

			if (k & 16) {
				ok(bp_patterns_add(&q.in, "f1*"));
				ok(bp_patterns_add(&q.out, "f12"));
				q.callers = k & 1;
			}
			ok(bp_analysis_create(trace, &q, &a));
			ok(bp_view_run(bp_views[i], a, &r));
			bp_report_destroy(r);
			bp_analysis_destroy(a);
			bp_query_deinit(&q);
		}
	}
	bp_trace_destroy(trace);
	rt_free(rt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_random),
	    cmocka_unit_test(test_filters_that_filter_nothing),
	    cmocka_unit_test(test_filters_add_up),
	    cmocka_unit_test(test_views),
	};

	return cmocka_run_group_tests_name("functions", tests, setup, teardown);
}
