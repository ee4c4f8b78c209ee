// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ftrace text: lines of every kind, and every file of the corpus against totals that were counted by other
 * means, both from the reader's own counters and from the events of the recording.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "collectors/ftrace/text.h"
#include "core/cleanup.h"
#include "core/trace.h"
#include "tests/unit/json.h"

static char tmp_dir[] = "/tmp/bp-test-ftrace-XXXXXX";
static char tmp_out[64], tmp_old[64], tmp_in[64];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

/* ---- running the importer ---- */

struct result {
	struct bp_ftext r;
	struct bp_import_stats stats;
};

static void run_file(const char *path, struct result *res)
{
	struct bp_trace_writer *w;
	struct bp_source *source;
	struct bp_builder *b;
	struct bp_import im;

	*res = (struct result){.stats.first_bad_offset = UINT64_MAX};
	ok(bp_trace_writer_create(tmp_out, 0, &w));
	ok(bp_builder_create(w, &b));
	ok(bp_source_open(path, &source));
	im = (struct bp_import){.source = source, .builder = b, .stats = &res->stats};
	ok(bp_ftext_init(&res->r, &im));
	ok(bp_ftext_run(&res->r));
	ok(bp_builder_finish(b, "import"));
	bp_builder_destroy(b);
	bp_source_close(source);
	ok(bp_trace_writer_close(w));
}

static void run_text(const char *text, struct result *res)
{
	FILE *f = fopen(tmp_in, "w");

	assert_non_null(f);
	assert_int_equal(fputs(text, f) < 0, 0);
	fclose(f);
	run_file(tmp_in, res);
}

static const struct bp_ftext_func *func(const struct result *res, const char *name)
{
	for (uint32_t i = 0; i < res->r.n_funcs; i++) {
		if (!strcmp(res->r.funcs[i].name, name))
			return &res->r.funcs[i];
	}
	return NULL;
}

/* ---- the recording's events ---- */

struct seen {
	uint64_t calls, irqs, incl_ns;
};

struct stack {
	uint32_t n;
	uint32_t func[BP_MAX_DEPTH];
	uint64_t enter_ns[BP_MAX_DEPTH];
};

static void walk_block(const struct bp_block *b, struct stack **stacks, size_t n_stacks, struct seen *seen)
{
	const struct bp_run *run = NULL;
	struct stack *s = NULL;
	uint64_t now = 0;

	for (size_t i = 0; i < b->n_events; i++) {
		const struct bp_event *ev = &b->events[i];

		now += ev->dt;
		switch (ev->kind) {
		case BP_EV_RUN:
			run = &b->runs[ev->arg];
			assert_true(run->task < n_stacks);
			if (!stacks[run->task])
				stacks[run->task] = calloc(1, sizeof(**stacks));
			s = stacks[run->task];
			now = run->time_ns;
			if (run->n_frames == BP_RUN_NO_STACK)
				break;
			assert_int_equal(s->n, run->n_frames);
			break;
		case BP_EV_CALL:
		case BP_EV_JUMP:
		case BP_EV_IRQ:
			seen[ev->arg].calls++;
			seen[ev->arg].irqs += ev->kind == BP_EV_IRQ;
			s->func[s->n] = ev->arg;
			s->enter_ns[s->n++] = now;
			break;
		case BP_EV_RET:
			for (uint32_t k = 0; k < ev->arg; k++) {
				s->n--;
				seen[s->func[s->n]].incl_ns += now - s->enter_ns[s->n];
			}
			break;
		case BP_EV_LOST:
			s->n = 0;
			break;
		default:
			break;
		}
	}
}

/* Totals of each function, by the recording's ids. */
static struct seen *walk(struct bp_trace **trace)
{
	struct bp_decoder *d;
	struct bp_trace *t;
	size_t n_facts, n_funcs, n_stacks = 0;
	const struct bp_fact *facts;
	struct stack **stacks;
	struct seen *seen;

	ok(bp_trace_open(tmp_out, &t));
	assert_false(bp_trace_damage(t)->unfinished);
	bp_trace_funcs(t, &n_funcs);
	facts = bp_trace_facts(t, &n_facts);
	for (size_t i = 0; i < n_facts; i++) {
		if (facts[i].kind == BP_FACT_TASK && facts[i].v[0] >= n_stacks)
			n_stacks = facts[i].v[0] + 1;
	}
	seen = calloc(n_funcs + 1, sizeof(*seen));
	stacks = calloc(n_stacks + 1, sizeof(struct stack *));
	ok(bp_decoder_create(&d));
	for (size_t i = 0; i < bp_trace_n_blocks(t); i++) {
		struct bp_block block;

		ok(bp_decoder_read(d, t, i, &block));
		walk_block(&block, stacks, n_stacks, seen);
	}
	bp_decoder_destroy(d);
	for (size_t i = 0; i < n_stacks; i++)
		free(stacks[i]);
	free(stacks);
	*trace = t;
	return seen;
}

/* ---- the corpus ---- */

static char *corpus;
static struct json *facts_json;
static const char *current;
static unsigned wrong;

static void check(const char *what, double have, double want, double tolerance)
{
	if (fabs(have - want) <= tolerance)
		return;
	print_error("%s: %s is %.6f, not %.6f\n", current, what, have, want);
	wrong++;
}

static int setup(void **state)
{
	const char *env = getenv("BOOTPROF_CORPUS");
	char path[512];

	(void)state;
	if (!mkdtemp(tmp_dir))
		return -1;
	snprintf(tmp_out, sizeof(tmp_out), "%s/out", tmp_dir);
	snprintf(tmp_old, sizeof(tmp_old), "%s/out.old", tmp_dir);
	snprintf(tmp_in, sizeof(tmp_in), "%s/in", tmp_dir);
	corpus = strdup(env && *env ? env : "../shared/corpus");
	snprintf(path, sizeof(path), "%s/facts.json", corpus);
	facts_json = json_load(path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(tmp_out);
	unlink(tmp_old);
	unlink(tmp_in);
	rmdir(tmp_dir);
	free(corpus);
	json_free(facts_json);
	return 0;
}

static bool corpus_file(const char *name, char *path, size_t len)
{
	snprintf(path, len, "%s/%s", corpus, name);
	if (!access(path, R_OK))
		return true;
	snprintf(path, len, "%s/%s.zst", corpus, name);
	return !access(path, R_OK);
}

static void check_classes(const struct json *e, const struct bp_ftext_counts *n)
{
	static const struct {
		const char *name;
		enum bp_ftext_class cls;
	} classes[] = {
	    {"header", BP_FTEXT_HEADER},
	    {"open", BP_FTEXT_OPEN},
	    {"leaf", BP_FTEXT_LEAF},
	    {"close", BP_FTEXT_CLOSE},
	    {"comment", BP_FTEXT_COMMENT},
	    {"switch", BP_FTEXT_SWITCH},
	    {"blank", BP_FTEXT_BLANK},
	    {"lost", BP_FTEXT_LOST},
	    {"switch_ruler", BP_FTEXT_SWITCH_RULER},
	    {"other", BP_FTEXT_OTHER},
	};
	const struct json *lc = json_get(e, "line_classes");
	uint64_t sum = 0;

	for (size_t i = 0; i < BP_ARRAY_SIZE(classes); i++)
		check(classes[i].name, (double)n->of_class[classes[i].cls], json_number(lc, classes[i].name),
		      0);
	for (size_t i = 0; i < BP_FTEXT_CLASSES; i++)
		sum += n->of_class[i];
	check("sum of classes", (double)sum, (double)n->lines, 0);
	check("lines", (double)n->lines, json_number(e, "lines"), 0);
	check("close_named", (double)n->close_named, json_number(lc, "close_named"), 0);
	check("close_without_open", (double)n->close_without_open, json_number(lc, "close_without_open"), 0);
	check("open_without_close", (double)n->open_without_close, json_number(lc, "open_without_close"), 0);
	check("latency_flags", (double)n->flags, json_number(lc, "latency_flags"), 0);
	check("lost_events", (double)n->lost_events, json_number(e, "lost_events_total"), 0);
	check("max_stack", (double)n->max_stack, json_number(e, "max_stack"), 0);
	check("marks", (double)n->marks, json_number(json_get(e, "events_in_comments"), "mark"), 0);
	check("cut", n->cut, json_get(e, "ends_with_newline") && json_get(e, "other_examples"), 0);
	for (size_t i = 0; i < strlen(BP_FTEXT_MARKS); i++) {
		char mark[2] = {BP_FTEXT_MARKS[i], '\0'};

		check(mark, (double)n->overhead[i], json_number(json_get(e, "overhead_marks"), mark), 0);
	}
	if (json_get(e, "first_ts")) {
		check("first_ts", (double)n->first_ns / 1e9, json_number(e, "first_ts"), 1e-7);
		check("last_ts", (double)n->last_ns / 1e9, json_number(e, "last_ts"), 1e-7);
	} else {
		assert_true(n->first_ns == UINT64_MAX);
	}
}

struct total {
	uint64_t leaves, opens, functions, incl_ns, outer, outer_ns;
};

/* By name alone, as the facts have it. */
static struct total total_of(const struct result *res, const char *name)
{
	struct total t = {0};

	for (uint32_t i = 0; i < res->r.n_funcs; i++) {
		const struct bp_ftext_func *f = &res->r.funcs[i];

		if (strcmp(f->name, name) != 0)
			continue;
		t.leaves += f->leaves;
		t.opens += f->opens;
		t.functions += f->functions;
		t.incl_ns += f->incl_ns;
		t.outer += f->outer;
		t.outer_ns += f->outer_ns;
	}
	return t;
}

/* A task that has another name after an exec is one task for the facts. */
static void check_tasks(const struct json *e, const struct result *res)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < res->r.cap_tasks; i++) {
		bool again = false;

		if (!res->r.tasks[i])
			continue;
		for (uint32_t k = 0; k < i && !again; k++)
			again = res->r.tasks[k] && res->r.tasks[k]->pid == res->r.tasks[i]->pid;
		n += !again;
	}
	check("tasks", (double)n, json_number(e, "tasks"), 0);
}

static void check_functions(const struct json *e, const struct result *res)
{
	unsigned distinct = 0;

	for (uint32_t i = 0; i < res->r.n_funcs; i++) {
		const struct bp_ftext_func *f = &res->r.funcs[i];
		bool again = false;

		if (!f->opens && !f->leaves && !f->functions)
			continue;
		for (uint32_t k = 0; k < i && !again; k++)
			again = !strcmp(res->r.funcs[k].name, f->name) &&
				res->r.funcs[k].opens + res->r.funcs[k].leaves + res->r.funcs[k].functions;
		distinct += !again;
	}
	check("distinct_functions", distinct, json_number(e, "distinct_functions"), 0);
	for (const struct json *j = json_get(e, "top_by_calls") ? json_get(e, "top_by_calls")->child : NULL;
	     j; j = j->next) {
		struct total t = total_of(res, json_get(j, "function")->text);

		check("calls", (double)(t.leaves + t.opens), json_number(j, "calls"), 0);
		check("as_leaf", (double)t.leaves, json_number(j, "as_leaf"), 0);
		check("as_nested", (double)t.opens, json_number(j, "as_nested"), 0);
		check("incl_us", (double)t.incl_ns / 1000, json_number(j, "incl_us"), 0.0006);
	}
	for (const struct json *j =
		 json_get(e, "top_by_inclusive_us") ? json_get(e, "top_by_inclusive_us")->child : NULL;
	     j; j = j->next) {
		struct total t = total_of(res, json_get(j, "function")->text);

		check(json_get(j, "function")->text, (double)t.incl_ns / 1000, json_number(j, "incl_us"),
		      0.0006);
		check("calls of it", (double)(t.leaves + t.opens), json_number(j, "calls"), 0);
	}
	for (const struct json *j = json_get(e, "outermost_calls") ? json_get(e, "outermost_calls")->child
								   : NULL;
	     j; j = j->next) {
		struct total t = total_of(res, json_get(j, "function")->text);

		check("outermost", (double)t.outer, json_number(j, "n"), 0);
		check("outermost us", (double)t.outer_ns / 1000, json_number(j, "us"), 0.0006);
	}
	for (const struct json *j = json_get(e, "calls_by_module") ? json_get(e, "calls_by_module")->child
								   : NULL;
	     j; j = j->next) {
		uint64_t n = 0;

		for (uint32_t i = 0; i < res->r.n_funcs; i++) {
			const struct bp_ftext_func *f = &res->r.funcs[i];

			if (!strcmp(f->module, !strcmp(j->key, "kernel") ? "vmlinux" : j->key))
				n += f->opens + f->leaves;
		}
		check(j->key, (double)n, j->number, 0);
	}
	for (const struct json *j = json_get(e, "lines_per_cpu") ? json_get(e, "lines_per_cpu")->child : NULL;
	     j; j = j->next) {
		uint32_t cpu = (uint32_t)atoi(j->key);

		check("lines of a CPU", cpu < res->r.n_cpus ? (double)res->r.seen[cpu].lines : 0, j->number,
		      0);
	}
}

/*
 * The recording has every call, and the time of every call whose beginning and end are in the text, as
 * exactly as the text: time stamps are in microseconds.
 */
static void check_recording(const struct result *res)
{
	struct bp_trace *t;
	struct seen *seen = walk(&t);
	size_t n_funcs;
	const struct bp_func *funcs = bp_trace_funcs(t, &n_funcs);
	double excess = 0, worst = 0, sum = 0, differ = 0;
	const char *worst_name = "";
	unsigned compared = 0, skipped = 0;

	for (uint32_t i = 0; i < res->r.n_funcs; i++) {
		const struct bp_ftext_func *f = &res->r.funcs[i];
		uint64_t calls = f->opens + f->leaves + f->functions + f->inserted;
		double want = (double)(f->recorded_ns + f->excess_ns), have = (double)seen[f->id].incl_ns;

		assert_string_equal(funcs[f->id].name, f->name);
		assert_string_equal(funcs[f->id].module, f->module);
		if (f->name[0] == '[')
			continue;
		if (calls || seen[f->id].calls)
			check(f->name, (double)seen[f->id].calls, (double)calls, 0);
		skipped += f->uncertain > 0;
		if (f->functions || f->uncertain || !calls)
			continue;
		compared++;
		sum += want;
		differ += fabs((double)f->recorded_ns - (double)f->incl_ns);
		excess += (double)f->excess_ns;
		if ((double)f->excess_ns - (double)calls * 1000 > worst) {
			worst = (double)f->excess_ns - (double)calls * 1000;
			worst_name = f->name;
		}
		check(f->name, have / 1000, want / 1000, 0.0001);
	}
	print_message(
	    "%s: %u functions (%u not), %.3f s, other calls %.6f s, excess %.6f s, worst %.3f us in %s\n",
	    current, compared, skipped, sum / 1e9, differ / 1e9, excess / 1e9, worst / 1000, worst_name);
	free(seen);
	bp_trace_destroy(t);
}

static void test_corpus(void **state)
{
	unsigned files = 0;

	(void)state;
	if (!facts_json) {
		print_message("no corpus in %s (BOOTPROF_CORPUS)\n", corpus);
		skip();
	}
	for (const struct json *e = facts_json->child; e; e = e->next) {
		const bool graph = json_get(e, "line_classes"), function = json_get(e, "function_events");
		struct result res;
		char path[512];

		if ((!graph && !function) || !strncmp(e->key, "tracedat/", 9))
			continue;
		current = e->key;
		if (!corpus_file(e->key, path, sizeof(path))) {
			print_message("%s is missing\n", e->key);
			continue;
		}
		files++;
		run_file(path, &res);
		if (graph) {
			check_classes(e, &res.r.counts);
			check_tasks(e, &res);
		} else {
			const struct json *top = json_get(e, "top");

			check("functions", (double)res.r.counts.of_class[BP_FTEXT_FUNCTION],
			      json_number(e, "function_events"), 0);
			check("stacks", (double)res.r.counts.of_class[BP_FTEXT_STACK],
			      json_number(e, "stack_events"), 0);
			check("other", (double)res.r.counts.of_class[BP_FTEXT_OTHER], 0, 0);
			for (const struct json *j = top ? top->child : NULL; j; j = j->next)
				check(j->key, (double)total_of(&res, j->key).functions, j->number, 0);
		}
		check_functions(e, &res);
		check_recording(&res);
		bp_ftext_deinit(&res.r);
	}
	print_message("%u files\n", files);
	assert_true(files > 0);
	assert_int_equal(wrong, 0);
}

/* Traces of events: initcalls, and the lock traces of the host. */
static void test_corpus_events(void **state)
{
	unsigned files = 0;

	(void)state;
	if (!facts_json)
		skip();
	for (const struct json *e = facts_json->child; e; e = e->next) {
		const struct json *events = json_get(e, "events");
		struct result res;
		char path[512];
		double want = 0;

		if ((!events || !json_get(e, "kernel_stacks")) && !json_get(e, "initcall_start"))
			continue;
		current = e->key;
		if (!corpus_file(e->key, path, sizeof(path)))
			continue;
		files++;
		run_file(path, &res);
		for (const struct json *j = events ? events->child : NULL; j; j = j->next)
			want += j->number;
		if (json_get(e, "initcall_start")) {
			uint64_t calls = 0;

			for (uint32_t i = 0; i < res.r.n_funcs; i++)
				calls += res.r.funcs[i].id != UINT32_MAX;
			want = json_number(e, "initcall_start") + json_number(e, "initcall_finish") +
			       (double)json_get(e, "levels")->type * 0;
			for (const struct json *j = json_get(e, "levels")->child; j; j = j->next)
				want++;
			assert_true(calls > 500);
		}
		check("events", (double)res.r.counts.of_class[BP_FTEXT_EVENT], want, 0);
		check("other", (double)res.r.counts.of_class[BP_FTEXT_OTHER], 0, 0);
		check("stacks", (double)res.r.counts.of_class[BP_FTEXT_STACK],
		      json_number(e, "kernel_stacks") + json_number(e, "user_stacks"), 0);
		bp_ftext_deinit(&res.r);
	}
	print_message("%u files\n", files);
	assert_int_equal(wrong, 0);
}

static void check_line(const char *text, enum bp_ftext_class cls, const char *name, uint64_t ns)
{
	struct bp_ftext_line l;

	assert_true(bp_ftext_parse_graph(text, text + strlen(text), &l));
	assert_int_equal(l.cls, cls);
	assert_int_equal(l.duration_ns, ns);
	if (name) {
		assert_int_equal(l.name_len, strlen(name));
		assert_memory_equal(l.name, name, l.name_len);
	} else {
		assert_null(l.name);
	}
}

static void test_lines(void **state)
{
	static const char *const bad[] = {
	    "",
	    " 0)",
	    " 0)   1.493 us    |",
	    " 0)   1.493 us    |  f",
	    " 0)   1.493 us    |  f(",
	    " 0)   1.493 us    |  ();",
	    " 0)   1.493 u",
	    " 99999999)   1.493 us    |  f();",
	    "a sentence (with brackets) and so on();",
	    " 0)   1.493 us    |  } /* f",
	    " 0)   1.493 us    |  /*/",
	};
	struct bp_ftext_line l;

	(void)state;
	check_line(" 0)               |  do_sys(a=0x1, b=0) {", BP_FTEXT_OPEN, "do_sys", 0);
	check_line(" 0)   0.5 us      |    leaf(); /* = 0xffffffea */", BP_FTEXT_LEAF, "leaf", 500);
	check_line(" 0)   0.61 us     |    leaf [m](x=1); /* <-do_sys+0x10/0x20 ret=-22 */", BP_FTEXT_LEAF,
		   "leaf [m]", 610);
	check_line(" 0)   1.203 us    |    } /* ret=0x0 */", BP_FTEXT_CLOSE, NULL, 1203);
	check_line(" 0) $ 1302290 us  |  } /* f [m] ret=0 */", BP_FTEXT_CLOSE, "f [m]", 1302290000);
	check_line(" 0) @ 150718.5 us |  } /* f = 0x1 */", BP_FTEXT_CLOSE, "f", 150718500);
	check_line(" 0)               |    /* a text: of somebody */", BP_FTEXT_COMMENT,
		   "a text: of somebody", 0);
	check_line(" 0)   ==========> |", BP_FTEXT_IRQ, NULL, 0);
	check_line("   1.000001 |   0)  my task-12  | d..h. | - 3.25 us |  f();", BP_FTEXT_LEAF, "f", 3250);
	check_line("f.part.0() {", BP_FTEXT_OPEN, "f.part.0", 0);
	check_line("    }", BP_FTEXT_CLOSE, NULL, 0);
	for (size_t i = 0; i < BP_ARRAY_SIZE(bad); i++)
		assert_false(bp_ftext_parse_graph(bad[i], bad[i] + strlen(bad[i]), &l));
}

/* Interrupt marks, Windows' ends of lines, a task that the CPU loses, marks. */
static void test_small(void **state)
{
	struct result res;
	struct bp_trace *t;
	struct seen *seen;
	static const char text[] = " 0)               |  outer() {\r\n"
				   " 0)   ==========> |\r\n"
				   " 0)               |    handler() {\r\n"
				   " 0)   1.000 us    |      leaf();\r\n"
				   " 0)   2.000 us    |    }\r\n"
				   " 0)   <========== |\r\n"
				   " 0)               |    /* somebody was here */\r\n"
				   " 0)   5.000 us    |  }\r\n"
				   " 0)               |  gone() {\r\n"
				   "CPU:0 [LOST 12 EVENTS]\r\n"
				   " 0)   7.000 us    |    inner();\r\n"
				   "this is not of ftrace\r\n"
				   " 0)   1.5";

	(void)state;
	run_text(text, &res);
	assert_int_equal(res.r.counts.lines, 13);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_IRQ], 2);
	assert_int_equal(res.r.counts.marks, 1);
	assert_int_equal(res.r.counts.lost_events, 12);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_OTHER], 2);
	assert_int_equal(res.stats.skipped, 2);
	assert_int_equal(res.stats.lost, 12);
	assert_true(res.stats.truncated);
	assert_int_equal(res.stats.first_bad_offset, strstr(text, "this is") - text);
	assert_string_equal(res.stats.stacks, "from the trace");
	seen = walk(&t);
	assert_int_equal(seen[func(&res, "outer")->id].incl_ns, 5000);
	assert_int_equal(seen[func(&res, "handler")->id].irqs, 1);
	assert_int_equal(seen[func(&res, "handler")->id].incl_ns, 2000);
	assert_int_equal(seen[func(&res, "leaf")->id].irqs, 0);
	assert_int_equal(seen[func(&res, "gone")->id].calls, 1);
	assert_int_equal(seen[func(&res, "inner")->id].incl_ns, 7000);
	assert_non_null(strstr(bp_trace_info(t, "clock_time"), "durations"));
	free(seen);
	bp_trace_destroy(t);
	bp_ftext_deinit(&res.r);
}

/* A line whose columns are damaged does not spoil what comes after it. */
static void test_damaged(void **state)
{
	static const char *const bad[] = {
	    " p)   insmod-106   |   1.000 us    |  f();\n",
	    "    8.00000x |   0)   insmod-106   |   1.000 us    |  f();\n",
	    "    8.000000 |   0)   insmod,106   |   1.000 us    |  f();\n",
	    "    8.000000 |(  0)   insmod-106   |   1.000 us    |  f();\n",
	    "    8.000000 |   0)   insm\n-106   |   1.000 us    |  f();\n",
	    "    8.000000 |   0)   insmod-106   |   1.000 us    |  f() \n",
	    "            |   0)   insmod-106   |   1.000 us    |  f();\n",
	};
	static const char good[] = "    8.000001 |   0)   insmod-106   |   1.000 us    |  f();\n"
				   "    8.000003 |   0)   insmod-106   |   1.000 us    |  f();\n";

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(bad); i++) {
		char text[2048];
		struct result res;
		struct bp_ftext_task *t;

		snprintf(text, sizeof(text), "# tracer: function_graph\n%s%s%s%s%s", good, good, bad[i], good,
			 good);
		run_text(text, &res);
		t = bp_ftext_known_task(&res.r, 0, "insmod-106", 10);
		assert_non_null(t);
		assert_int_equal(t->pid, 106);
		assert_ptr_equal(res.r.cpus[0]->running, t);
		assert_in_range(func(&res, "f")->leaves, 8, 9);
		bp_ftext_deinit(&res.r);
	}
}

/* So much text that it is taken by two threads: times and durations that leap, tasks that come and go. */
static void test_much(void **state)
{
	enum { LINES = 40000 };
	FILE *f = fopen(tmp_in, "w");
	uint64_t us = 5000000, incl = 0, irqs = 0;
	struct result res;
	struct bp_trace *t;
	struct seen *seen;

	(void)state;
	assert_non_null(f);
	fprintf(f, "# tracer: function_graph\n#\n");
	for (unsigned i = 0; i < LINES; i++) {
		unsigned task = i / 50 % 5, cpu = i / 200 % 2;
		uint64_t duration = i % 1000 == 999 ? 5000000 : i % 100;

		us += i % 777 == 776 ? 5000000000 : 0;
		if (i % 3000 == 2999) {
			fprintf(f, "%5u.%06u |   %u)   ==========> |\n", (unsigned)(us / 1000000),
				(unsigned)(us % 1000000), cpu);
			irqs++;
		}
		fprintf(f, "%5u.%06u |   %u)   task%u-10%u   |%s%.3f us%s|  f%u();\n",
			(unsigned)(us / 1000000), (unsigned)(us % 1000000), cpu, task, task,
			duration > 100 ? " $ " : "   ", (double)duration, duration > 9 ? "   " : "    ",
			i % 700);
		incl += i % 700 == 7 ? duration * 1000 : 0;
		us += duration + 1;
	}
	fclose(f);
	run_file(tmp_in, &res);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_LEAF], LINES);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_IRQ], irqs);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_OTHER], 0);
	assert_int_equal(res.r.counts.tasks, 5);
	assert_int_equal(func(&res, "f7")->incl_ns, incl);
	seen = walk(&t);
	assert_int_equal(seen[func(&res, "f7")->id].incl_ns, incl);
	for (unsigned i = 0; i < res.r.n_funcs; i++) {
		assert_int_equal(seen[res.r.funcs[i].id].calls, res.r.funcs[i].leaves);
		irqs -= seen[res.r.funcs[i].id].irqs;
	}
	assert_int_equal(irqs, 0);
	free(seen);
	bp_trace_destroy(t);
	bp_ftext_deinit(&res.r);
}

/* A published excerpt: it begins in the middle of three calls. */
static void test_excerpt(void **state)
{
	static const char text[] = " 0)               |        virtqueue_kick [virtio_ring]() {\n"
				   " 0) + 30.207 us   |          virtqueue_kick_prepare [virtio_ring]();\n"
				   " 0) + 13.342 us   |          vp_notify [virtio_pci]();\n"
				   " 0) + 90.315 us   |        }\n"
				   " 0) # 61946.45 us |      }\n"
				   " 0)   1.046 us    |      mutex_unlock();\n"
				   " 0) # 102833.9 us |    }\n"
				   " 0)   2.411 us    |    vp_get_status [virtio_pci]();\n"
				   " 0)   0.826 us    |    vp_get_status [virtio_pci]();\n"
				   " 0) ! 130.773 us  |    vp_set_status [virtio_pci]();\n"
				   " 0)               |    virtio_config_enable [virtio]() {\n"
				   " 0)   0.689 us    |      _raw_spin_lock_irq();\n"
				   " 0) + 33.796 us   |    }\n"
				   " 0) # 105349.9 us |  }\n";
	struct result res;
	struct bp_trace *t;
	struct seen *seen;

	(void)state;
	assert_true(bp_ftext_probe((const uint8_t *)text, sizeof(text) - 1) > 80);
	run_text(text, &res);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_OPEN], 2);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_LEAF], 7);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_CLOSE], 5);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_OTHER], 0);
	assert_int_equal(res.r.counts.close_without_open, 3);
	assert_int_equal(res.r.counts.open_without_close, 0);
	assert_int_equal(func(&res, "vp_get_status")->incl_ns, 3237);
	assert_string_equal(func(&res, "vp_get_status")->module, "virtio_pci");
	seen = walk(&t);
	assert_int_equal(seen[func(&res, "virtqueue_kick")->id].incl_ns, 90315);
	assert_int_equal(seen[func(&res, "virtio_config_enable")->id].incl_ns, 33796);
	assert_int_equal(seen[func(&res, "vp_get_status")->id].calls, 2);
	free(seen);
	bp_trace_destroy(t);
	bp_ftext_deinit(&res.r);
}

/* The function tracer: callers make the stacks, an interrupt stands on what it interrupts. */
static void test_function(void **state)
{
	struct result res;
	struct bp_trace *t;
	struct seen *seen;

	(void)state;
	run_text("# tracer: function\n"
		 "     my task-101     [001] .....     1.000000: a <-start\n"
		 "     my task-101     [001] .....     1.000010: b <-a\n"
		 "     my task-101     [001] d.h..     1.000020: irq <-asm_irq\n"
		 "     my task-101     [001] d.h..     1.000030: irq_inner <-irq\n"
		 "     my task-101     [001] .....     1.000040: c <-b\n"
		 "     my task-101     [001] .....     1.000050: d <-a\n"
		 "     my task-101     [001] .....     1.000060: a <-start\n",
		 &res);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_FUNCTION], 7);
	assert_int_equal(res.stats.calls, 7);
	seen = walk(&t);
	assert_int_equal(seen[func(&res, "a")->id].calls, 2);
	assert_int_equal(seen[func(&res, "a")->id].incl_ns, 60000);
	assert_int_equal(seen[func(&res, "b")->id].incl_ns, 40000);
	assert_int_equal(seen[func(&res, "irq")->id].irqs, 1);
	assert_int_equal(seen[func(&res, "irq")->id].incl_ns, 20000);
	assert_int_equal(seen[func(&res, "irq_inner")->id].incl_ns, 10000);
	assert_int_equal(seen[func(&res, "c")->id].incl_ns, 10000);
	assert_int_equal(seen[func(&res, "d")->id].incl_ns, 10000);
	free(seen);
	bp_trace_destroy(t);
	bp_ftext_deinit(&res.r);
}

/* Events: system calls, interrupts, switches, initcalls. */
static void test_events(void **state)
{
	struct result res;
	struct bp_trace *t;
	struct seen *seen;
	const struct bp_fact *facts;
	size_t n, tasks = 0, marks = 0;

	(void)state;
	run_text("            init-1       [000] .....     1.000000: sys_enter: NR 257 (1, 2, 3)\n"
		 "            init-1       [000] d.h..     1.000001: irq_handler_entry: irq=28 name=virtio0\n"
		 "            init-1       [000] d.h..     1.000005: irq_handler_exit: irq=28 ret=handled\n"
		 "            init-1       [000] .....     1.000010: sys_exit: NR 257 = 3\n"
		 "            init-1       [000] d....     1.000011: sched_switch: prev_comm=init prev_pid=1 "
		 "prev_prio=120 "
		 "prev_state=S ==> next_comm=kworker/0:0 next_pid=7 next_prio=120\n"
		 "     kworker/0:0-7       [000] .....     1.000012: initcall_level: level=late\n"
		 "     kworker/0:0-7       [000] .....     1.000013: initcall_start: func=my_init+0x0/0x10\n"
		 "     kworker/0:0-7       [000] .....     1.000020: initcall_finish: func=my_init+0x0/0x10 "
		 "ret=0\n"
		 "     kworker/0:0-7       [000] .....     1.000021: tracing_mark_write: hello\n"
		 "     kworker/0:0-7       [000] .....     1.000022: sys_futex(uaddr: 1, op: 0)\n"
		 "     kworker/0:0-7       [000] .....     1.000032: sys_futex -> 0x0\n",
		 &res);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_EVENT], 11);
	assert_int_equal(res.r.counts.of_class[BP_FTEXT_OTHER], 0);
	seen = walk(&t);
	assert_int_equal(seen[func(&res, "[system call 257]")->id].incl_ns, 10000);
	assert_int_equal(seen[func(&res, "[irq 28]")->id].incl_ns, 4000);
	assert_int_equal(seen[func(&res, "my_init")->id].incl_ns, 7000);
	assert_int_equal(seen[func(&res, "sys_futex")->id].incl_ns, 10000);
	facts = bp_trace_facts(t, &n);
	for (size_t i = 0; i < n; i++) {
		tasks += facts[i].kind == BP_FACT_TASK;
		marks += facts[i].kind == BP_FACT_MARK;
	}
	assert_int_equal(tasks, 2);
	assert_int_equal(marks, 2);
	free(seen);
	bp_trace_destroy(t);
	bp_ftext_deinit(&res.r);
}

static void test_probe(void **state)
{
	static const char graph[] = " 0)   1.493 us    |  f();\n 0)   1.493 us    |  g();\n";
	static const char event[] =
	    "            init-1       [000] .....     1.000000: sys_enter: NR 257 (1, 2, 3)\n";
	static const char none[] = "int main(void)\n{\n\tputs(\"\");\n\treturn 0;\n}\n";

	(void)state;
	assert_int_equal(bp_ftext_probe((const uint8_t *)"# tracer: nop\n#\n", 16), 100);
	assert_true(bp_ftext_probe((const uint8_t *)graph, sizeof(graph) - 1) > 80);
	assert_true(bp_ftext_probe((const uint8_t *)event, sizeof(event) - 1) > 80);
	assert_int_equal(bp_ftext_probe((const uint8_t *)none, sizeof(none) - 1), 0);
	assert_int_equal(bp_ftext_probe((const uint8_t *)"", 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_lines),   cmocka_unit_test(test_small),
	    cmocka_unit_test(test_damaged), cmocka_unit_test(test_much),
	    cmocka_unit_test(test_excerpt), cmocka_unit_test(test_function),
	    cmocka_unit_test(test_events),  cmocka_unit_test(test_probe),
	    cmocka_unit_test(test_corpus),  cmocka_unit_test(test_corpus_events),
	};

	return cmocka_run_group_tests_name("ftrace_text", tests, setup, teardown);
}
