// SPDX-License-Identifier: GPL-2.0-or-later
/* Summaries of recordings, baseline files, comparisons: sums that must hold, and files that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "analyzers/diff.h"
#include "analyzers/summary.h"
#include "tests/unit/random_trace.h"

static char file[64], baseline[64];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static int setup(void **state)
{
	(void)state;
	snprintf(file, sizeof(file), "/tmp/bootprof-summary.%d", (int)getpid());
	snprintf(baseline, sizeof(baseline), "/tmp/bootprof-summary.%d.json", (int)getpid());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(baseline);
	return unlink(file);
}

static struct bp_summary *summary(void)
{
	struct bp_summary *s;
	struct bp_trace *trace;

	ok(bp_trace_open(file, &trace));
	ok(bp_summary_create(trace, NULL, &s));
	bp_trace_destroy(trace);
	return s;
}

/* Paths add up to what the functions have. */
static void check_sums(const struct bp_summary *s)
{
	int64_t ns = 0, insns = 0, f_ns = 0, f_insns = 0;
	uint64_t calls = 0, f_calls = 0;

	for (size_t i = 0; i < s->n_nodes; i++) {
		ns += s->nodes[i].self_ns + s->nodes[i].rest_ns;
		insns += s->nodes[i].self_insns + s->nodes[i].rest_insns;
		calls += s->nodes[i].calls;
		assert_true(i == 0 || s->nodes[i].parent < i);
	}
	for (size_t i = 0; i < s->n_funcs; i++) {
		f_ns += s->funcs[i].self_ns;
		f_insns += s->funcs[i].self_insns;
		f_calls += s->funcs[i].calls;
	}
	assert_int_equal(f_insns, s->self_insns);
	assert_int_equal(insns, s->self_insns);
	if (s->baseline) {
		/* Times are stored in microseconds, and each list rounds on its own. */
		assert_in_range(llabs(ns - s->self_ns), 0, 2000);
	} else {
		assert_int_equal(f_ns, s->self_ns);
		assert_int_equal(ns, s->self_ns);
	}
	assert_int_equal(f_calls, s->calls);
	if (!s->pruned)
		assert_int_equal(calls, s->calls);
}

/* Made of other events for each number. */
static void random_boot(unsigned number)
{
	if (!access(file, F_OK))
		unlink(file);
	rt_free(rt_make(file, 10, 3000, 88172645463325252ull + number));
}

static void test_sums(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 5; seed++) {
		struct bp_summary *s;

		random_boot(seed);
		s = summary();
		check_sums(s);
		ok(bp_summary_prune(s, 40));
		assert_true(s->n_nodes <= 41);
		check_sums(s);
		bp_summary_destroy(s);
	}
}

static void test_baseline_file(void **state)
{
	struct bp_summary *s, *b;
	struct bp_diff *d;
	struct stat st;

	(void)state;
	random_boot(7);
	s = summary();
	s->floor_runs = 2;
	s->floor_insns = 99;
	s->funcs[1].floor = 5;
	ok(bp_summary_prune(s, 60));
	ok(bp_summary_write(s, baseline));
	assert_int_equal(stat(baseline, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
	assert_true(bp_summary_is_file(baseline));
	assert_false(bp_summary_is_file(file));
	ok(bp_summary_read(baseline, &b));
	check_sums(b);
	assert_int_equal(b->n_funcs, s->n_funcs);
	assert_int_equal(b->n_nodes, s->n_nodes);
	assert_int_equal(b->insns, s->insns);
	assert_int_equal(b->floor_insns, 99);
	assert_int_equal(b->funcs[bp_summary_find(b, s->funcs[1].name, s->funcs[1].module)].floor, 5);
	/* A boot and its baseline do not differ in instructions, calls or order. */
	ok(bp_diff_create(b, s, BP_CLOCK_INSNS, &d));
	assert_int_equal(d->n_funcs, s->n_funcs);
	for (size_t i = 0; i < d->n_funcs; i++) {
		assert_int_equal(d->funcs[i].state, BP_DIFF_BOTH);
		assert_int_equal(d->funcs[i].self_insns[0], d->funcs[i].self_insns[1]);
		assert_int_equal(d->funcs[i].calls[0], d->funcs[i].calls[1]);
		assert_int_equal(d->funcs[i].rank[0], d->funcs[i].rank[1]);
		assert_false(d->funcs[i].moved);
	}
	for (size_t i = 0; i < d->n_nodes; i++)
		assert_int_equal(d->nodes[i].total_insns[0], d->nodes[i].total_insns[1]);
	bp_diff_destroy(d);
	bp_summary_destroy(b);
	/* Against the whole boot, paths that the baseline does not have are rests. */
	b = summary();
	ok(bp_diff_create(s, b, BP_CLOCK_INSNS, &d));
	for (size_t i = 0; i < d->n_nodes; i++)
		assert_int_equal(d->nodes[i].total_insns[0], d->nodes[i].total_insns[1]);
	bp_diff_destroy(d);
	bp_summary_destroy(b);
	bp_summary_destroy(s);
}

/* Changes of functions, and of paths, make the change of the boot. */
static void test_diff_sums(void **state)
{
	(void)state;
	for (unsigned seed = 20; seed < 25; seed++) {
		struct bp_summary *s[2];
		struct bp_diff *d;
		int64_t f[2] = {0}, n[2] = {0}, t[2] = {0};

		random_boot(seed);
		s[0] = summary();
		random_boot(seed + 100);
		s[1] = summary();
		if (seed & 1)
			ok(bp_summary_prune(s[0], 30));
		ok(bp_diff_create(s[0], s[1], seed & 2 ? BP_CLOCK_INSNS : BP_CLOCK_TIME, &d));
		for (size_t i = 0; i < d->n_funcs; i++) {
			for (int k = 0; k < 2; k++) {
				f[k] += d->funcs[i].self_insns[k];
				t[k] += d->funcs[i].self_ns[k];
			}
		}
		for (size_t i = 0; i < d->n_nodes; i++) {
			for (int k = 0; k < 2; k++)
				n[k] += d->nodes[i].self_insns[k] + d->nodes[i].rest_insns[k];
		}
		for (int k = 0; k < 2; k++) {
			assert_int_equal(f[k], s[k]->self_insns);
			assert_int_equal(t[k], s[k]->self_ns);
			assert_int_equal(n[k], s[k]->self_insns);
			assert_int_equal(f[k] + d->outside_insns[k], s[k]->insns);
		}
		bp_diff_destroy(d);
		bp_summary_destroy(s[0]);
		bp_summary_destroy(s[1]);
	}
}

static void test_command(void **state)
{
	const char *const argv[] = {"qemu-system-x86_64",
				    "-machine",
				    "accel=tcg,type=q35",
				    "-smp",
				    "sockets=1,cpus=4",
				    "--cpu",
				    "max,x=y",
				    "-m",
				    "size=1G,slots=2",
				    "-append",
				    "a b",
				    NULL};
	const char *const plain[] = {"qemu", "-M", "microvm,rtc=on", "-smp", "2", "-enable-kvm", NULL};
	struct bp_summary *s;

	(void)state;
	ok(bp_summary_new("x", &s));
	ok(bp_summary_set_command(s, argv));
	assert_string_equal(s->machine, "q35");
	assert_string_equal(s->accel, "tcg");
	assert_string_equal(s->cpu, "max,x=y");
	assert_string_equal(s->memory, "1G");
	assert_string_equal(s->append, "a b");
	assert_int_equal(s->smp, 4);
	bp_summary_destroy(s);
	ok(bp_summary_new("x", &s));
	ok(bp_summary_set_command(s, plain));
	assert_string_equal(s->machine, "microvm");
	assert_string_equal(s->accel, "kvm");
	assert_int_equal(s->smp, 2);
	bp_summary_destroy(s);
}

static void refused(const char *text, enum bp_err_code code, const char *says)
{
	struct bp_summary *s = NULL;
	struct bp_err *err = bp_summary_parse("base.json", text, strlen(text), &s);

	assert_non_null(err);
	if (!strstr(bp_err_text(err), says))
		print_message("%s\n  does not say: %s\n", bp_err_text(err), says);
	assert_non_null(strstr(bp_err_text(err), says));
	assert_non_null(strstr(bp_err_text(err), "base.json"));
	assert_int_equal(bp_err_code(err), code);
	bp_err_free(err);
}

#define HEAD "{\"schema\":\"bootprof-summary/1\""
#define ONE                                                                                                  \
	"\"phases\":[[\"p\",1,1,0]],\"modules\":[[2,\"vmlinux\"]],\"functions\":[[0,\"f\",1,1,1,0,0,0,0,-1]" \
	"]"

static void test_hostile(void **state)
{
	struct bp_summary *s;

	(void)state;
	ok(bp_summary_parse("x", HEAD "," ONE ",\"paths\":[[0,-1,0,0,0],[0,0,1,1,1]]}",
			    strlen(HEAD "," ONE ",\"paths\":[[0,-1,0,0,0],[0,0,1,1,1]]}"), &s));
	assert_int_equal(s->n_funcs, 1);
	assert_int_equal(s->n_nodes, 2);
	bp_summary_destroy(s);
	refused("", BP_EDATA, "offset 0");
	refused("{\"schema\":", BP_EDATA, "offset 10: line 1");
	refused("[]", BP_EDATA, "not a baseline");
	refused("{\"schema\":\"bootprof-report/1\"}", BP_EDATA, "not a baseline");
	refused("{\"schema\":\"bootprof-summary/2\"}", BP_EUNSUPPORTED, "newer");
	refused("{\"schema\":\"bootprof-summary/x\"}", BP_EDATA, "not known");
	refused(HEAD ",\"schema\":\"bootprof-summary/1\"}", BP_EDATA, "duplicate");
	refused(HEAD ",\"smp\":-1}", BP_EDATA, "smp");
	refused(HEAD ",\"kernel\":[]}", BP_EDATA, "kernel");
	refused(HEAD ",\"phases\":{}}", BP_EDATA, "phases");
	refused(HEAD ",\"phases\":[[1,2,3,4]]}", BP_EDATA, "phases[0]");
	refused(HEAD ",\"functions\":[[0,\"f\",1,1,1,0,0,0,0,-1]]}", BP_EDATA, "functions[0][0]");
	refused(HEAD "," ONE ",\"paths\":[[0,-1,0,0,0],[1,0,1,1,1]]}", BP_EDATA, "paths[1][0]");
	refused(HEAD "," ONE ",\"paths\":[[0,-1,0,0,0],[0,1,1,1,1]]}", BP_EDATA, "paths[1][1]");
	refused(HEAD "," ONE ",\"paths\":[[0,-1,0,0,0],[0,0,1,1e300,1]]}", BP_EDATA, "paths[1][3]");
	refused(HEAD "," ONE ",\"floor\":{\"functions\":[[1,5]]}}", BP_EDATA, "floor.functions[0][0]");
	refused(HEAD "," ONE ",\"runs\":[[0,1,1,[]]]}", BP_EDATA, "runs[0]");
	refused(HEAD ",\"ns\":99999999999999999999999}", BP_EDATA, "base.json: offset");
}

static void test_comparable(void **state)
{
	const char *const a[] = {"qemu", "-M", "pc", NULL}, *const b[] = {"qemu", "-M", "q35",
									  "-smp", "2",  NULL};
	struct bp_summary *s[2];
	char *text;

	(void)state;
	for (int i = 0; i < 2; i++) {
		ok(bp_summary_new("x", &s[i]));
		ok(bp_summary_set_command(s[i], i ? b : a));
		s[i]->qemu = bp_summary_str(s[i], i ? "8" : "7");
	}
	ok(bp_diff_comparable(s[0], s[0], &text));
	assert_null(text);
	ok(bp_diff_comparable(s[0], s[1], &text));
	assert_string_equal(text, "machine type: pc and q35; -smp: 1 and 2; QEMU: 7 and 8");
	free(text);
	bp_summary_destroy(s[0]);
	bp_summary_destroy(s[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sums),      cmocka_unit_test(test_baseline_file),
	    cmocka_unit_test(test_diff_sums), cmocka_unit_test(test_command),
	    cmocka_unit_test(test_hostile),   cmocka_unit_test(test_comparable),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
