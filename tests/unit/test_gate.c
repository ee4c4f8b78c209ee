// SPDX-License-Identifier: GPL-2.0-or-later
/* Verdicts on made-up boots, and budgets. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "analyzers/budget.h"
#include "analyzers/diff.h"
#include "analyzers/gate.h"

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

/* A boot of two phases and three functions, with floors; @work: of the function `work`. */
static struct bp_summary *boot(int work, const char *name, int firmware, bool floors)
{
	struct bp_summary *s;
	char text[2000];
	int kernel = 100000 + work;

	snprintf(
	    text, sizeof(text),
	    "{\"schema\":\"bootprof-summary/"
	    "1\",\"machine\":\"pc\",\"smp\":1,\"qemu\":\"7\",\"deterministic\":true,"
	    "\"ns\":1000000000,\"insns\":%d,\"kernel_ns\":900000000,\"kernel_insns\":%d,"
	    "\"phases\":[[\"firmware\",100000000,%d,0],[\"kernel-start\",400000000,100000,0],"
	    "[\"user\",500000000,%d,0]],"
	    "\"modules\":[[1,\"\"],[2,\"vmlinux\"]],"
	    "\"functions\":[[0,\"SeaBIOS\",1,%d,100000,0,0,0,0,-1],[1,\"start\",1,100000,400000,0,0,5,1,-1],"
	    "[1,\"%s\",3,%d,500000,0,0,5,2,1]],"
	    "\"paths\":[[0,-1,0,0,0],[0,0,1,%d,100000],[0,1,1,100000,400000],[2,2,3,%d,500000]],"
	    "\"kernel_modules\":[[\"virtio\",2,1,1000,100]],\"syscalls\":[[\"read\",5,1000,100,2000]]%s}",
	    firmware + kernel, kernel, firmware, work, firmware, name, work, firmware, work,
	    floors ? ",\"floor\":{\"runs\":2,\"insns\":50,\"kernel_insns\":40,\"phases\":[0,0,30],"
		     "\"functions\":[[2,60]]}"
		   : "");
	ok(bp_summary_parse("made up", text, strlen(text), &s));
	return s;
}

static const struct bp_gate_options plain = {.noise = -1, .significance = 0.01};

static struct bp_gate *judge(struct bp_summary *a, struct bp_summary *b, const struct bp_gate_options *o)
{
	struct bp_diff *d;
	struct bp_gate *g;

	ok(bp_diff_create(a, b, BP_CLOCK_INSNS, &d));
	ok(bp_gate_new("exact", &g));
	ok(bp_gate_exact(g, d, o));
	ok(bp_gate_explain(g, d, 2));
	bp_diff_destroy(d);
	return g;
}

static const struct bp_gate_metric *metric(const struct bp_gate *g, const char *name)
{
	for (size_t i = 0; i < g->n_metrics; i++) {
		if (!strcmp(g->metrics[i].name, name))
			return &g->metrics[i];
	}
	return NULL;
}

/* Judges the growth of `work` and checks that the blame adds up. */
static void grows(int by, int firmware, bool floors, const struct bp_gate_options *o,
		  enum bp_gate_verdict want)
{
	struct bp_summary *a = boot(10000, "work", 500, floors),
			  *b = boot(10000 + by, "work", firmware, false);
	struct bp_gate *g = judge(a, b, o);
	int64_t sum = 0;

	for (size_t i = 0; i < g->n_blame; i++) {
		if (!strcmp(g->blame[i].kind, "function") || !strcmp(g->blame[i].kind, "rest"))
			sum += g->blame[i].delta_insns;
	}
	if (g->verdict != want)
		print_message("%+d: %s\n", by, bp_gate_verdict_name(g->verdict));
	assert_int_equal(g->verdict, want);
	assert_int_equal(sum, by + firmware - 500);
	assert_int_equal(g->delta_insns, sum);
	if (want == BP_GATE_REGRESSION) {
		assert_string_equal(g->blame[0].name, "work");
		assert_string_equal(g->blame[0].path, "start;work");
		assert_int_equal(g->blame[0].delta_insns, by);
	}
	bp_gate_destroy(g);
	bp_summary_destroy(a);
	bp_summary_destroy(b);
}

static void test_exact(void **state)
{
	const struct bp_gate_limit limits[] = {
	    {"function", 0.001, -1}, {"phase:user", 0.01, -1}, {"insns", 0.001, -1}};
	const struct bp_gate_options loose = {.noise = 0.01, .significance = 0.01};
	const struct bp_gate_options by_metric = {
	    .noise = -1, .significance = 0.01, .limits = limits, .n_limits = 3};

	(void)state;
	grows(0, 500, false, &plain, BP_GATE_PASS);
	/* Without a floor one instruction is enough; what got faster is no regression. */
	grows(1, 500, false, &plain, BP_GATE_REGRESSION);
	grows(-1, 500, false, &plain, BP_GATE_PASS);
	/* Firmware is not judged. */
	grows(0, 900, false, &plain, BP_GATE_PASS);
	/* Within twice the floor of the total (80) and the phase (60), four times that of the function (240).
	 */
	grows(60, 500, true, &plain, BP_GATE_PASS);
	grows(61, 500, true, &plain, BP_GATE_REGRESSION);
	/* --noise: 1 % of everything; and apart: function 0.1 % of the kernel's 110000, user 1 % of 10000,
	 * insns 110 */
	grows(100, 500, false, &loose, BP_GATE_PASS);
	grows(101, 500, false, &loose, BP_GATE_REGRESSION);
	grows(100, 500, false, &by_metric, BP_GATE_PASS);
	grows(101, 500, false, &by_metric, BP_GATE_REGRESSION);
}

static void test_renamed(void **state)
{
	struct bp_summary *a = boot(10000, "do_work", 500, false),
			  *b = boot(10000, "do_work.isra.0", 500, false);
	struct bp_gate *g = judge(a, b, &plain);

	(void)state;
	assert_int_equal(g->verdict, BP_GATE_PASS);
	assert_int_equal(g->n_blame, 0);
	bp_gate_destroy(g);
	bp_summary_destroy(a);
	bp_summary_destroy(b);
}

static void test_repeats_and_floor(void **state)
{
	struct bp_summary *a = boot(10000, "work", 500, false), *b = boot(10000, "work", 700, false),
			  *c = boot(10025, "work", 500, false), *d = boot(10006, "work", 500, false);

	(void)state;
	assert_true(bp_gate_repeats(a, b));
	assert_false(bp_gate_repeats(a, c));
	ok(bp_gate_floor(a, (struct bp_summary *[]){b, c}, 2));
	assert_int_equal(a->floor_runs, 2);
	assert_int_equal(a->floor_kernel_insns, 25);
	assert_int_equal(a->floor_insns, 200);
	assert_int_equal(a->phases[2].floor, 25);
	assert_int_equal(a->funcs[2].floor, 25);
	/* One of two moved it: that may happen to any function. */
	assert_int_equal(a->floor_sudden_insns, 25);
	bp_summary_destroy(a);
	/* Both did. */
	a = boot(10000, "work", 500, false);
	ok(bp_gate_floor(a, (struct bp_summary *[]){c, d}, 2));
	assert_int_equal(a->funcs[2].floor, 25);
	assert_int_equal(a->floor_sudden_insns, 25 - 4 * 6);
	bp_summary_destroy(d);
	bp_summary_destroy(a);
	bp_summary_destroy(b);
	bp_summary_destroy(c);
}

static void test_runs(void **state)
{
	struct bp_summary *a = boot(10000, "work", 500, false), *b = boot(20000, "work", 700, false);

	(void)state;
	ok(bp_summary_add_run(a, a));
	ok(bp_summary_add_run(a, b));
	assert_int_equal(a->n_runs, 2);
	assert_int_equal(a->runs[1].insns, 120700);
	assert_int_equal(a->runs[1].ns, 1000000000);
	assert_int_equal(a->runs[0].phase_ns[2], 500000000);
	bp_summary_destroy(a);
	bp_summary_destroy(b);
}

static void test_statistical(void **state)
{
	double a[30], b[30];
	const struct bp_gate_series s = {"time", a, b, 30};
	const struct bp_gate_limit limits[] = {{"time", 0.3, -1}};
	const struct bp_gate_options noisy = {
	    .noise = -1, .significance = 0.01, .limits = limits, .n_limits = 1};
	struct bp_gate *g;

	(void)state;
	for (int i = 0; i < 30; i++) {
		a[i] = 1e9 + (i * 37 % 30) * 1e7;
		b[i] = (1e9 + (i * 11 % 30) * 1e7) * 1.2;
	}
	ok(bp_gate_new("statistical", &g));
	ok(bp_gate_statistical(g, &s, 1, 0, 1, &plain));
	assert_int_equal(g->verdict, BP_GATE_REGRESSION);
	assert_true(fabs(g->metrics[0].ratio - 1.2) < 0.05);
	assert_true(g->metrics[0].low < 1.2 && g->metrics[0].high > 1.2);
	assert_true(fabs(g->metrics[0].old_value - 1.145e9) < 1);
	bp_gate_destroy(g);
	ok(bp_gate_new("statistical", &g));
	ok(bp_gate_statistical(g, &s, 1, 0, 1, &noisy));
	assert_int_equal(g->verdict, BP_GATE_PASS);
	bp_gate_destroy(g);
}

#define B "bootprof-budget: 1\n"

static void budget(const char *text, const char *name, enum bp_gate_verdict want)
{
	struct bp_summary *a = boot(10000, "work", 500, false), *b = boot(12000, "work", 500, false);
	const struct bp_gate_metric *m;
	struct bp_budget *x;
	struct bp_gate *g;

	ok(bp_budget_parse("b.yaml", text, strlen(text), &x));
	ok(bp_gate_new("budget", &g));
	ok(bp_budget_judge(x, g, a, b));
	m = metric(g, name);
	if (!m)
		fail_msg("no metric %s", name);
	if (m->verdict != want)
		fail_msg("%s: %s", name, bp_gate_verdict_name(m->verdict));
	assert_int_equal(g->verdict, want);
	bp_gate_destroy(g);
	bp_budget_destroy(x);
	bp_summary_destroy(a);
	bp_summary_destroy(b);
}

static void test_budget(void **state)
{
	(void)state;
	budget(B "metrics: {insns: 112500}\n", "budget:metrics:insns", BP_GATE_PASS);
	budget(B "metrics: {insns: 112.4k}\n", "budget:metrics:insns", BP_GATE_REGRESSION);
	budget(B "metrics: {time: 1s}\n", "budget:metrics:time", BP_GATE_PASS);
	budget(B "metrics: {time: 999ms}\n", "budget:metrics:time", BP_GATE_REGRESSION);
	budget(B "phases:\n  user: {insns-growth: 20%}\n", "budget:phases:user:insns-growth", BP_GATE_PASS);
	budget(B "phases:\n  user: {insns-growth: 19.9%}\n", "budget:phases:user:insns-growth",
	       BP_GATE_REGRESSION);
	budget(B "phases: {gone: {insns: 0}}\n", "budget:phases:gone:insns", BP_GATE_PASS);
	budget(B "functions:\n  work: {calls: 3}\n", "budget:functions:work:calls", BP_GATE_PASS);
	budget(B "functions:\n  work: {calls: 2}\n", "budget:functions:work:calls", BP_GATE_REGRESSION);
	budget(B "functions:\n  work: {self-insns: 11999}\n", "budget:functions:work:self-insns",
	       BP_GATE_REGRESSION);
	budget(B "functions:\n  work: {not-before: user}\n", "budget:functions:work:not-before",
	       BP_GATE_PASS);
	budget(B "functions:\n  start: {not-before: user}\n", "budget:functions:start:not-before",
	       BP_GATE_REGRESSION);
	budget(B "functions:\n  start: {not-before: nowhere}\n", "budget:functions:start:not-before",
	       BP_GATE_INCONCLUSIVE);
	budget(B "modules: {virtio: {calls: 1}}\n", "budget:modules:virtio:calls", BP_GATE_REGRESSION);
	budget(B "modules: {virtio: {not-before: user}}\n", "budget:modules:virtio:not-before",
	       BP_GATE_REGRESSION);
	budget(B "syscalls: {read: {calls: 5}}\n", "budget:syscalls:read:calls", BP_GATE_PASS);
	budget(B "syscalls: {read: {calls-growth: 0%}}\n", "budget:syscalls:read:calls-growth", BP_GATE_PASS);
}

static void refused(const char *text, const char *says)
{
	struct bp_budget *b = NULL;
	struct bp_err *err = bp_budget_parse("b.yaml", text, strlen(text), &b);

	assert_non_null(err);
	if (!strstr(bp_err_text(err), says))
		fail_msg("\"%s\" does not say \"%s\"", bp_err_text(err), says);
	bp_err_free(err);
}

static void test_budget_errors(void **state)
{
	(void)state;
	refused("", "b.yaml:1: not a budget");
	refused("[1]", "b.yaml:1: not a budget");
	refused("phases: {}\n", "b.yaml:1: not a budget: \"bootprof-budget: 1\" is missing");
	refused("bootprof-budget: 2\n", "b.yaml:1: version '2'");
	refused(B "phase:\n  x: {}\n", "b.yaml:2: there is no 'phase'");
	refused(B "phases:\n  user: 5\n", "b.yaml:3: 'user' wants limits");
	refused(B "phases:\n  user: {calls: 5}\n", "b.yaml:3: phases have no limit 'calls'");
	refused(B "phases:\n  user:\n    insns: much\n", "b.yaml:4: insns: 'much' is not a number");
	refused(B "phases:\n  user:\n    time: 5\n", "b.yaml:4: time: '5' is not a time");
	refused(B "phases:\n  user:\n    time-growth: 5\n", "b.yaml:4: time-growth: '5' is not a percentage");
	refused(B "phases:\n  user: {insns: 1, insns: 2}\n", "b.yaml:3: a second limit 'insns' for 'user'");
	refused(B "phases:\n  user: {insns: [1]}\n", "b.yaml:3: insns wants one value");
	refused(B "phases:\n  user: {insns: 1\n", "b.yaml:4:");
	refused("\xff\xfe\xff", "b.yaml: offset");
}

static void test_write_budget(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_summary *s = boot(10000, "work", 500, false);
	struct bp_budget *b;
	struct bp_gate *g;

	(void)state;
	/* What it writes it reads, and the boot keeps it. */
	for (int det = 0; det < 2; det++) {
		bp_strbuf_clear(&sb);
		s->deterministic = det;
		ok(bp_budget_write(s, &sb));
		ok(bp_budget_parse("b.yaml", sb.data, sb.len, &b));
		assert_true(bp_budget_limits(b) >= 4);
		ok(bp_gate_new("budget", &g));
		ok(bp_budget_judge(b, g, NULL, s));
		assert_int_equal(g->verdict, BP_GATE_PASS);
		assert_int_equal(g->n_metrics, bp_budget_limits(b));
		bp_gate_destroy(g);
		bp_budget_destroy(b);
	}
	bp_strbuf_deinit(&sb);
	bp_summary_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_exact),
	    cmocka_unit_test(test_renamed),
	    cmocka_unit_test(test_repeats_and_floor),
	    cmocka_unit_test(test_statistical),
	    cmocka_unit_test(test_runs),
	    cmocka_unit_test(test_budget),
	    cmocka_unit_test(test_budget_errors),
	    cmocka_unit_test(test_write_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
