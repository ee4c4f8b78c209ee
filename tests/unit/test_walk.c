// SPDX-License-Identifier: GPL-2.0-or-later
/* The walk: what is told, in which order, with which clocks, also when parts are missing. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "analyzers/walk.h"
#include "core/strbuf.h"
#include "tests/unit/random_trace.h"

static char file[64], text[72];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static int setup(void **state)
{
	(void)state;
	snprintf(file, sizeof(file), "/tmp/bootprof-walk.%d", (int)getpid());
	snprintf(text, sizeof(text), "%s.txt", file);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(file);
	unlink(text);
	return 0;
}

/* ---- a log of everything that is told ---- */

static void log_run(void *ctx, const struct bp_walk_now *now)
{
	bp_strbuf_addf(ctx, "run t%u v%u->v%u @%u\n", now->task->id, now->task->vcpu, now->vcpu,
		       (unsigned)now->wall_ns);
}

static void log_run_end(void *ctx, const struct bp_walk_now *now)
{
	bp_strbuf_addf(ctx, "end t%u @%u\n", now->task->id, (unsigned)now->wall_ns);
}

static void log_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	bp_strbuf_addf(ctx, "enter %u @%u", f->func, (unsigned)now->wall_ns);
	if (f->syscall != BP_WALK_NO_SYSCALL)
		bp_strbuf_addf(ctx, " syscall %u", f->syscall);
	if (f[-1].func != BP_WALK_NO_FUNC)
		bp_strbuf_addf(ctx, " from %u", f[-1].func);
	bp_strbuf_addc(ctx, '\n');
}

static void log_resume(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	bp_strbuf_addf(ctx, "resume %u of %u @%u\n", f->func, (unsigned)f->wall_ns, (unsigned)now->wall_ns);
}

static void log_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		      enum bp_walk_leave how)
{
	static const char *const words[] = {"leave", "lose", "close"};

	bp_strbuf_addf(ctx, "%s %u @%u total %u/%u self %u/%u sleep %u\n", words[how], f->func,
		       (unsigned)now->wall_ns, (unsigned)bp_walk_total_ns(f, now),
		       (unsigned)bp_walk_total_insns(f, now), (unsigned)f->self_ns, (unsigned)f->self_insns,
		       (unsigned)bp_walk_sleep_ns(f, now));
}

static void log_lost(void *ctx, uint64_t records, const struct bp_walk_now *now)
{
	bp_strbuf_addf(ctx, "lost %u @%u\n", (unsigned)records, (unsigned)now->wall_ns);
}

static const struct bp_walk_ops log_ops = {
    .on_run = log_run,
    .on_run_end = log_run_end,
    .on_enter = log_enter,
    .on_resume = log_resume,
    .on_leave = log_leave,
    .on_lost = log_lost,
};

/* Walk the recording that @body makes (after five functions) and compare the log with @want. */
static void expect(const char *body, const struct bp_walk_options *opt, struct bp_walk_stats *stats,
		   const char *want)
{
	struct bp_strbuf log = BP_STRBUF_INIT;
	struct bp_trace *trace;
	struct bp_walk *w;
	FILE *out = fopen(text, "w");

	assert_non_null(out);
	fputs("bootprof-text 1\n", out);
	for (int i = 0; i < 5; i++)
		fprintf(out, "func %d kernel 0x%x \"f%d\" \"vmlinux\"\n", i, 0x1000 + i, i);
	fputs(body, out);
	fputs("end\n", out);
	assert_int_equal(fclose(out), 0);
	unlink(file);
	ok(bp_trace_text_read(text, file));
	ok(bp_trace_open(file, &trace));
	ok(bp_walk_create(trace, opt, &w));
	ok(bp_walk_run(w, &log_ops, &log));
	if (stats)
		*stats = w->stats;
	assert_string_equal(bp_strbuf_str(&log), want);
	bp_walk_destroy(w);
	bp_trace_destroy(trace);
	bp_strbuf_deinit(&log);
}

static const char two_tasks[] = "block\n"
				"run task=1 time=100\n"
				" call 0 10 1\n"
				" syscall 42 10 1\n"
				" call 1 0 0\n"
				"run task=2 time=150\n"
				" call 2 0 0\n"
				" ret 1 30 3\n"
				"run task=1 time=200 cpu_ns=20 cpu_insns=2 vcpu=1\n"
				" jump 3 5 1\n"
				" ret 2 5 1\n"
				" tick 0 7 7\n";

static void test_tasks(void **state)
{
	(void)state;
	expect(two_tasks, NULL, NULL,
	       "run t1 v0->v0 @100\n"
	       "enter 0 @110\n"
	       "enter 1 @120 syscall 42 from 0\n"
	       "end t1 @120\n"
	       "run t2 v0->v0 @150\n"
	       "enter 2 @150\n"
	       "leave 2 @180 total 30/3 self 30/3 sleep 0\n"
	       "end t2 @180\n"
	       "run t1 v0->v1 @200\n"
	       "enter 3 @205 from 1\n"
	       "leave 3 @210 total 5/1 self 5/1 sleep 0\n"
	       "leave 1 @210 total 10/2 self 5/1 sleep 80\n"
	       "end t1 @217\n"
	       "close 0 @217 total 27/10 self 17/8 sleep 80\n");
}

static void test_time_filter(void **state)
{
	struct bp_walk_options opt = {.from_ns = 115, .to_ns = 207};

	(void)state;
	expect(two_tasks, &opt, NULL,
	       "run t1 v0->v0 @115\n"
	       "resume 0 of 115 @115\n"
	       "enter 1 @120 syscall 42 from 0\n"
	       "end t1 @120\n"
	       "run t2 v0->v0 @150\n"
	       "enter 2 @150\n"
	       "leave 2 @180 total 30/3 self 30/3 sleep 0\n"
	       "end t2 @180\n"
	       "run t1 v0->v1 @200\n"
	       "enter 3 @205 from 1\n"
	       "close 3 @207 total 2/0 self 2/0 sleep 0\n"
	       "close 1 @207 total 7/1 self 5/1 sleep 80\n"
	       "close 0 @207 total 12/2 self 5/1 sleep 80\n"
	       "end t1 @207\n");
}

static void test_vcpu_filter(void **state)
{
	const uint64_t vcpus[BP_WALK_VCPUS / 64] = {2};
	struct bp_walk_options opt = {.vcpus = vcpus};

	(void)state;
	expect(two_tasks, &opt, NULL,
	       "run t1 v1->v1 @200\n"
	       "resume 0 of 200 @200\n"
	       "resume 1 of 200 @200\n"
	       "enter 3 @205 from 1\n"
	       "leave 3 @210 total 5/1 self 5/1 sleep 0\n"
	       "leave 1 @210 total 10/2 self 5/1 sleep 0\n"
	       "end t1 @217\n"
	       "close 0 @217 total 17/9 self 7/7 sleep 0\n");
}

static bool only_task_2(void *arg, uint32_t task)
{
	(void)arg;
	return task == 2;
}

static void test_task_filter(void **state)
{
	struct bp_walk_options opt = {.task_ok = only_task_2};

	(void)state;
	expect(two_tasks, &opt, NULL,
	       "run t2 v0->v0 @150\n"
	       "enter 2 @150\n"
	       "leave 2 @180 total 30/3 self 30/3 sleep 0\n"
	       "end t2 @180\n");
}

static const char nested[] = "block\n"
			     "run task=1 time=0\n"
			     " call 0\n"
			     " call 1 10 1\n"
			     " call 2 10 1\n"
			     " call 3 10 1\n"
			     " ret 1 10 1\n"
			     " ret 1 10 1\n"
			     " ret 1 10 1\n"
			     " ret 1 10 1\n";

static void test_function_filters(void **state)
{
	const uint8_t in[5] = {[1] = BP_MATCH_IN}, out[5] = {[2] = BP_MATCH_OUT};
	struct bp_walk_options opt = {.match = in, .has_in = true};

	(void)state;
	expect(nested, &opt, NULL,
	       "run t1 v0->v0 @0\n"
	       "enter 1 @10 from 0\n"
	       "enter 2 @20 from 1\n"
	       "enter 3 @30 from 2\n"
	       "leave 3 @40 total 10/1 self 10/1 sleep 0\n"
	       "leave 2 @50 total 30/3 self 20/2 sleep 0\n"
	       "leave 1 @60 total 50/5 self 20/2 sleep 0\n"
	       "end t1 @70\n");
	/* What is left out counts as its caller's own. */
	opt = (struct bp_walk_options){.match = out};
	expect(nested, &opt, NULL,
	       "run t1 v0->v0 @0\n"
	       "enter 0 @0\n"
	       "enter 1 @10 from 0\n"
	       "leave 1 @60 total 50/5 self 50/5 sleep 0\n"
	       "leave 0 @70 total 70/7 self 20/2 sleep 0\n"
	       "end t1 @70\n");
	opt = (struct bp_walk_options){.match = in, .has_in = true, .max_depth = 1};
	expect(nested, &opt, NULL,
	       "run t1 v0->v0 @0\n"
	       "enter 1 @10 from 0\n"
	       "leave 1 @60 total 50/5 self 50/5 sleep 0\n"
	       "end t1 @70\n");
}

static void test_lost(void **state)
{
	struct bp_walk_stats stats;

	(void)state;
	expect("block\n"
	       "run task=1 time=0\n"
	       " call 0\n"
	       " call 1 10 1\n"
	       " lost 500 5 5\n"
	       " call 2 5 0\n"
	       " ret 1 5 5\n",
	       NULL, &stats,
	       "run t1 v0->v0 @0\n"
	       "enter 0 @0\n"
	       "enter 1 @10 from 0\n"
	       "lose 1 @15 total 5/5 self 5/5 sleep 0\n"
	       "lose 0 @15 total 15/6 self 10/1 sleep 0\n"
	       "lost 500 @15\n"
	       "enter 2 @20\n"
	       "leave 2 @25 total 5/5 self 5/5 sleep 0\n"
	       "end t1 @25\n");
	assert_int_equal(stats.lost_records, 500);
}

/* Behind a gap the block's own stack counts. Calls that are still open go on; what ended in the gap is left.
 */
static void test_gap(void **state)
{
	struct bp_walk_stats stats;

	(void)state;
	expect("block\n"
	       "run task=1 time=0\n"
	       " call 0\n"
	       " call 1 10 1\n"
	       " tick 0 10 1\n"
	       "gap\n"
	       "block\n"
	       "run task=1 time=100000 cpu_ns=90000 cpu_insns=900\n"
	       "frame call 0 wall=0 cpu=0 insns=0\n"
	       "frame irq 3 wall=50000 cpu=40000 insns=400\n"
	       " ret 1 10 1\n"
	       " ret 1 10 1\n",
	       NULL, &stats,
	       "run t1 v0->v0 @0\n"
	       "enter 0 @0\n"
	       "enter 1 @10 from 0\n"
	       "end t1 @20\n"
	       "run t1 v0->v0 @100000\n"
	       "lose 1 @20 total 10/1 self 10/1 sleep 0\n"
	       "resume 3 of 50000 @100000\n"
	       "leave 3 @100010 total 50010/501 self 10/1 sleep 0\n"
	       "leave 0 @100020 total 90020/902 self 20/2 sleep 10000\n"
	       "end t1 @100020\n");
	assert_int_equal(stats.gaps, 1);
	assert_int_equal(stats.resyncs, 0);
}

/* Deeper than what is kept: counted, the stack is right again afterwards. */
static void test_depth(void **state)
{
	struct bp_strbuf body = BP_STRBUF_INIT;
	struct bp_walk_stats stats;
	struct bp_trace *trace;
	struct bp_walk *w;
	const struct bp_walk_ops none = {0};

	(void)state;
	bp_strbuf_adds(&body, "block\nrun task=1\n");
	for (int i = 0; i < BP_MAX_DEPTH; i++)
		bp_strbuf_addf(&body, " call %d\n", i % 5);
	for (int i = 0; i < BP_MAX_DEPTH - 1; i++)
		bp_strbuf_adds(&body, " ret\n");
	bp_strbuf_adds(&body, " ret 1 10 1\n");
	{
		FILE *out = fopen(text, "w");

		assert_non_null(out);
		fputs("bootprof-text 1\n", out);
		for (int i = 0; i < 5; i++)
			fprintf(out, "func %d kernel 0x%x \"f%d\" \"vmlinux\"\n", i, 0x1000 + i, i);
		fputs(bp_strbuf_str(&body), out);
		fputs("end\n", out);
		assert_int_equal(fclose(out), 0);
	}
	unlink(file);
	ok(bp_trace_text_read(text, file));
	ok(bp_trace_open(file, &trace));
	ok(bp_walk_create(trace, NULL, &w));
	ok(bp_walk_run(w, &none, NULL));
	stats = w->stats;
	assert_int_equal(stats.overflows, 0);
	assert_int_equal(w->tasks[0]->depth, 0);
	bp_walk_destroy(w);
	bp_trace_destroy(trace);
	bp_strbuf_deinit(&body);
}

/* ---- damage ---- */

struct balance {
	int64_t open;
	uint64_t time;
};

static void balance_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	struct balance *b = ctx;

	(void)f;
	(void)now;
	b->open++;
}

static void balance_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
			  enum bp_walk_leave how)
{
	struct balance *b = ctx;

	(void)how;
	b->open--;
	b->time += f->self_ns;
	assert_true(bp_walk_total_ns(f, now) < 1ull << 40);
	assert_true(bp_walk_total_insns(f, now) < 1ull << 40);
}

static const struct bp_walk_ops balance_ops = {
    .on_enter = balance_enter,
    .on_resume = balance_enter,
    .on_leave = balance_leave,
};

/* Whatever byte is changed: the walk ends, everything that was entered is left, and totals are sane. */
static void test_damage(void **state)
{
	struct rt *rt = rt_make(file, 12, 600, 3);
	struct stat st;
	int fd = open(file, O_RDWR);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = 64; at < st.st_size; at += 1 + st.st_size / 150) {
		struct balance b = {0, 0};
		struct bp_trace *trace;
		struct bp_walk *w;
		uint8_t byte, flipped;

		assert_int_equal(pread(fd, &byte, 1, at), 1);
		flipped = byte ^ 0x41;
		assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
		ok(bp_trace_open(file, &trace));
		for (int filtered = 0; filtered < 2; filtered++) {
			struct bp_walk_options opt = {.max_depth = filtered ? 1000 : 0,
						      .threads = filtered ? -1 : 0};

			ok(bp_walk_create(trace, &opt, &w));
			ok(bp_walk_run(w, &balance_ops, &b));
			assert_int_equal(b.open, 0);
			bp_walk_destroy(w);
		}
		bp_trace_destroy(trace);
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	close(fd);
	rt_free(rt);
}

static void stop_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		       enum bp_walk_leave how)
{
	(void)ctx;
	(void)f;
	(void)how;
	now->walk->stop = true;
}

/* Ending early ends the helpers too. */
static void test_stop(void **state)
{
	const struct bp_walk_ops ops = {.on_leave = stop_leave};
	struct rt *rt = rt_make(file, 50, 500, 5);
	struct bp_trace *trace;
	struct bp_walk *w;

	(void)state;
	ok(bp_trace_open(file, &trace));
	for (int threads = -1; threads < 4; threads++) {
		struct bp_walk_options opt = {.threads = threads};

		ok(bp_walk_create(trace, &opt, &w));
		ok(bp_walk_run(w, &ops, NULL));
		assert_int_equal(w->stats.blocks, 1);
		bp_walk_destroy(w);
	}
	bp_trace_destroy(trace);
	rt_free(rt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_tasks),
	    cmocka_unit_test(test_time_filter),
	    cmocka_unit_test(test_vcpu_filter),
	    cmocka_unit_test(test_task_filter),
	    cmocka_unit_test(test_function_filters),
	    cmocka_unit_test(test_lost),
	    cmocka_unit_test(test_gap),
	    cmocka_unit_test(test_depth),
	    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests_name("walk", tests, setup, teardown);
}
