// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Level of detail against a list of all slices, which the walk tells: busy time, counts, the longest slice
 * and the main value of columns of every width, in any order of blocks; stacks at a moment; the next entry of
 * a function.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "analyzers/index.h"
#include "analyzers/walk.h"
#include "tests/unit/random_trace.h"

#define BLOCKS 30
#define DEPTHS (RT_DEPTH + 1)

/* A stretch of a function (at depth 0: of the one on top) on a vCPU, not across runs. */
struct slice {
	uint32_t vcpu, depth, row;
	uint64_t from, to, entry;
	bool entered, top;
};

struct enter {
	uint64_t ns;
	uint32_t vcpu, depth, row;
};

struct model {
	struct slice *slices;
	size_t n, cap;
	struct enter *enters;
	size_t n_enters, cap_enters;
	uint64_t run_from;
};

static char file[64];
static struct rt *rt;
static struct bp_trace *trace;
static struct bp_query query;
static struct bp_analysis *a;
static struct model model;

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static void *more(void *list, size_t n, size_t *cap, size_t size)
{
	if (n == *cap) {
		*cap = *cap ? *cap * 2 : 4096;
		list = realloc(list, *cap * size);
		assert_non_null(list);
	}
	return list;
}

static void add(const struct bp_walk_now *now, uint32_t depth, const struct bp_walk_frame *f, uint64_t from,
		uint64_t to, bool top)
{
	model.slices = more(model.slices, model.n, &model.cap, sizeof(*model.slices));
	model.slices[model.n++] = (struct slice){.vcpu = now->vcpu,
						 .depth = depth,
						 .row = f->row,
						 .from = from,
						 .to = to,
						 .entry = f->wall_ns,
						 .entered = !top && f->wall_ns == from && f->user,
						 .top = top};
}

static void on_run(void *ctx, const struct bp_walk_now *now)
{
	(void)ctx;
	model.run_from = now->wall_ns;
	for (uint32_t i = 1; i <= now->task->depth; i++)
		now->task->stack[i].user = 0;
}

static void leave(const struct bp_walk_frame *f, uint32_t depth, const struct bp_walk_now *now)
{
	add(now, depth, f, f->user ? f->wall_ns : model.run_from, now->wall_ns, false);
}

static void on_run_end(void *ctx, const struct bp_walk_now *now)
{
	(void)ctx;
	for (uint32_t i = now->task->depth; i; i--)
		leave(&now->task->stack[i], i, now);
}

static void on_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	uint32_t depth = (uint32_t)(f - now->task->stack);

	(void)ctx;
	f->user = 1; /* entered in this run */
	model.enters = more(model.enters, model.n_enters, &model.cap_enters, sizeof(*model.enters));
	model.enters[model.n_enters++] = (struct enter){now->wall_ns, now->vcpu, depth, f->row};
}

static void on_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		     enum bp_walk_leave how)
{
	(void)ctx;
	if (how == BP_LEAVE_RET)
		leave(f, (uint32_t)(f - now->task->stack), now);
}

static void on_time(void *ctx, struct bp_walk_frame *top, const struct bp_walk_now *now, uint64_t dt,
		    uint64_t di)
{
	(void)ctx;
	(void)di;
	if (dt && top != now->task->stack)
		add(now, 0, top, now->wall_ns - dt, now->wall_ns, true);
}

static const struct bp_walk_ops ops = {.on_run = on_run,
				       .on_run_end = on_run_end,
				       .on_enter = on_enter,
				       .on_leave = on_leave,
				       .on_time = on_time};

static int setup(void **state)
{
	struct bp_walk *w;

	(void)state;
	snprintf(file, sizeof(file), "/tmp/bootprof-lod.%d", (int)getpid());
	rt = rt_make(file, BLOCKS, 1000, 7);
	ok(bp_trace_open(file, &trace));
	ok(bp_analysis_create(trace, &query, &a));
	ok(bp_analysis_walk(a, &w));
	ok(bp_walk_run(w, &ops, NULL));
	bp_walk_destroy(w);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bp_analysis_destroy(a);
	bp_trace_destroy(trace);
	rt_free(rt);
	free(model.slices);
	free(model.enters);
	unlink(file);
	return 0;
}

static uint64_t overlap(const struct slice *s, uint64_t from, uint64_t to)
{
	uint64_t a_ns = s->from > from ? s->from : from, b = s->to < to ? s->to : to;

	return b > a_ns ? b - a_ns : 0;
}

/* The plane of that level (0: top) against the model, column by column. */
static void compare(const struct bp_lod *lod, uint32_t vcpu, uint32_t depth, const uint64_t *edges, size_t n)
{
	struct bp_lod_col *cols = calloc(n, sizeof(*cols));
	unsigned kind = depth ? BP_PLANE_STACK + depth - 1 : BP_PLANE_TOP;

	assert_non_null(cols);
	bp_lod_columns(lod, vcpu, kind, edges, n, cols);
	for (size_t i = 0; i < n; i++) {
		uint64_t busy = 0, count = 0, of[RT_FUNCS] = {0}, most = 0;
		uint32_t best = 0;

		for (size_t k = 0; k < model.n; k++) {
			const struct slice *s = &model.slices[k];
			uint64_t ns;

			if (s->vcpu != vcpu || s->depth != depth)
				continue;
			ns = overlap(s, edges[i], edges[i + 1]);
			busy += ns;
			of[s->row] += ns;
			if (depth && s->entered && s->from >= edges[i] && s->from < edges[i + 1])
				count++;
		}
		for (size_t k = 0; !depth && k < model.n_enters; k++)
			count += model.enters[k].vcpu == vcpu && model.enters[k].ns >= edges[i] &&
				 model.enters[k].ns < edges[i + 1];
		for (uint32_t k = 0; k < RT_FUNCS; k++) {
			if (of[k] > most) {
				most = of[k];
				best = k;
			}
		}
		if (fabs(cols[i].busy - (double)busy) > (double)busy * 1e-4 + 1)
			print_message("vcpu %u depth %u column %zu: %f, not %f\n", vcpu, depth, i,
				      cols[i].busy, (double)busy);
		assert_true(fabs(cols[i].busy - (double)busy) <= (double)busy * 1e-4 + 1);
		assert_int_equal(cols[i].count, count);
		/* Nothing is invisible. */
		assert_int_equal(cols[i].value != BP_LOD_NONE || cols[i].count, busy || count);
		/* What has less is kept as well as the sums of a bucket allow. */
		if (most > busy / 10 * 8)
			assert_int_equal(cols[i].value, best);
		if (busy)
			assert_true(cols[i].most <= (double)of[cols[i].value] * 1.0001 + 1);
	}
	free(cols);
}

static void all_planes(const struct bp_lod *lod, const uint64_t *edges, size_t n)
{
	for (uint32_t vcpu = 0; vcpu < RT_VCPUS; vcpu++) {
		for (uint32_t depth = 0; depth <= 12; depth++)
			compare(lod, vcpu, depth, edges, n);
	}
}

/* Columns of so many buckets each, over the whole range. */
static void at_width(const struct bp_lod *lod, uint64_t buckets)
{
	uint64_t from, to, width = bp_lod_bucket_ns(lod) * buckets, edges[66];
	size_t n = 0;

	bp_lod_range(lod, &from, &to);
	while (n < 65 && from + n * width < to)
		edges[n] = from + n * width, n++;
	edges[n] = from + n * width < to ? from + n * width : to;
	all_planes(lod, edges, n);
}

static struct bp_lod *make(uint64_t from, uint64_t to, size_t buckets, bool backwards, size_t idle)
{
	static uint8_t modes[RT_FUNCS];
	struct bp_lod_options opt = {.row_of = a->rows.row_of,
				     .mode_of_row = modes,
				     .n_funcs = a->rows.n_funcs,
				     .n_rows = a->rows.n,
				     .from_ns = from,
				     .to_ns = to,
				     .buckets = buckets};
	struct bp_decoder *d;
	struct bp_lod *lod;

	for (size_t i = 0; i < RT_FUNCS; i++)
		modes[i] = i == idle ? BP_MODE_IDLE : i & 1 ? BP_MODE_KERNEL : BP_MODE_USER;
	ok(bp_lod_create(&opt, &lod));
	ok(bp_decoder_create(&d));
	for (size_t i = 0; i < bp_trace_n_blocks(trace); i++) {
		size_t k = backwards ? bp_trace_n_blocks(trace) - 1 - i : i;
		uint64_t first, last;
		struct bp_block block;

		bp_trace_block_range(trace, k, &first, &last);
		ok(bp_decoder_read(d, trace, k, &block));
		ok(bp_lod_add(lod, &block, first, last));
	}
	bp_decoder_destroy(d);
	return lod;
}

static uint64_t end_of_trace(void)
{
	uint64_t end = 0, first, last;

	for (size_t i = 0; i < bp_trace_n_blocks(trace); i++) {
		bp_trace_block_range(trace, i, &first, &last);
		end = last > end ? last : end;
	}
	return end + 1;
}

static void whole(void **state)
{
	struct bp_lod *lod = make(0, end_of_trace(), 1024, false, SIZE_MAX);

	(void)state;
	at_width(lod, 1);
	at_width(lod, 16);
	at_width(lod, 64);
	at_width(lod, 2048);
	assert_int_equal(bp_lod_n_vcpus(lod), RT_VCPUS);
	bp_lod_destroy(lod);
}

static void any_order(void **state)
{
	struct bp_lod *lod = make(0, end_of_trace(), 4096, true, SIZE_MAX);

	(void)state;
	at_width(lod, 64);
	bp_lod_destroy(lod);
}

static void window(void **state)
{
	uint64_t end = end_of_trace(), from = end / 3, to = end / 3 + 100000;
	struct bp_lod *lod = make(from, to, 1024, false, SIZE_MAX);

	(void)state;
	at_width(lod, 1);
	at_width(lod, 17);
	bp_lod_destroy(lod);
}

/* Instructions by bucket add up to those of all vCPUs; so does the time of the modes to that of the runs. */
static void sums(void **state)
{
	struct bp_lod *lod = make(0, end_of_trace(), 512, false, 3);
	size_t n, n_tasks;
	const uint64_t *insns = bp_lod_insns(lod, &n), all[] = {0, end_of_trace()};
	const struct bp_lod_task *tasks = bp_lod_tasks(lod, &n_tasks);
	uint64_t total = 0, wanted = 0, idle = 0, top = 0;
	double busy = 0, by_task = 0, by_task_planes = 0;

	(void)state;
	for (size_t i = 0; i < n; i++)
		total += insns[i];
	for (uint32_t v = 0; v < RT_VCPUS; v++) {
		struct bp_lod_col c;

		wanted += rt->vcpu_insns[v];
		bp_lod_columns(lod, v, BP_PLANE_TASK, all, 1, &c);
		busy += c.busy;
	}
	for (size_t i = 0; i < n_tasks; i++) {
		struct bp_lod_col c;

		bp_lod_task_columns(lod, i, all, 1, &c);
		by_task_planes += c.busy;
		by_task += tasks[i].busy;
	}
	for (size_t i = 0; i < model.n; i++) {
		if (model.slices[i].top && model.slices[i].row == 3)
			idle += model.slices[i].to - model.slices[i].from;
		if (model.slices[i].top)
			top += model.slices[i].to - model.slices[i].from;
	}
	assert_int_equal(total, wanted);
	assert_true(busy >= (double)(top - idle) * 0.999);
	assert_true(fabs(busy - by_task) < busy * 1e-3);
	assert_true(fabs(busy - by_task_planes) < busy * 1e-3);
	bp_lod_destroy(lod);
}

/* The index answers as a finer or a coarser lod would, whatever is looked at. */
static void index_windows(void **state)
{
	struct bp_index *ix;
	uint64_t end = end_of_trace();
	size_t done, total;

	(void)state;
	for (int thread = 0; thread < 2; thread++) {
		ok(bp_index_create(a, thread, &ix));
		ok(thread ? bp_index_wait(ix) : bp_index_step(ix, SIZE_MAX));
		bp_index_progress(ix, &done, &total);
		assert_int_equal(done, total);
		assert_int_equal(total, BLOCKS);
		for (uint64_t span = end; span > 100; span /= 3) {
			const struct bp_lod *lod, *same;
			uint64_t from = (end - span) / 2, edges[11], start, to, width;

			ok(bp_index_look(ix, from, from + span, 40, &lod));
			bp_index_done(ix);
			ok(bp_index_wait(ix));
			/* What was made for a window serves it from then on, also when it reaches over the
			 * end. */
			ok(bp_index_look(ix, end - span, end + span, 80, &lod));
			bp_index_done(ix);
			ok(bp_index_wait(ix));
			ok(bp_index_look(ix, end - span, end + span, 80, &lod));
			bp_index_done(ix);
			ok(bp_index_look(ix, end - span, end + span, 80, &same));
			bp_index_done(ix);
			assert_ptr_equal(same, lod);
			ok(bp_index_look(ix, from, from + span, 40, &lod));
			bp_index_done(ix);
			ok(bp_index_wait(ix));
			ok(bp_index_look(ix, from, from + span, 40, &lod));
			bp_index_done(ix);
			ok(bp_index_look(ix, from, from + span, 40, &same));
			assert_ptr_equal(same, lod);
			assert_true(bp_index_fine(ix));
			assert_true(bp_lod_bucket_ns(lod) <= span / 40 || bp_lod_bucket_ns(lod) == 1);
			/* Edges where buckets of each level end, so that the comparison is exact. */
			bp_lod_range(lod, &start, &to);
			for (width = bp_lod_bucket_ns(lod); width * 44 <= span; width *= 4)
				;
			for (size_t i = 0; i <= 10; i++)
				edges[i] = start + ((from - start) / width + i) * width;
			all_planes(lod, edges, 10);
			bp_index_done(ix);
		}
		bp_index_destroy(ix);
	}
}

static void next_entry(void **state)
{
	struct bp_index *ix;
	uint64_t end = end_of_trace();

	(void)state;
	ok(bp_index_create(a, false, &ix));
	for (unsigned i = 0; i < 600; i++) {
		uint8_t rows[RT_FUNCS + 1] = {0};
		uint32_t row = (uint32_t)(rt_random(rt) % a->rows.n);
		struct bp_index_query q = {
		    .rows = i & 2 ? rows : NULL,
		    .vcpu = i & 4 ? -1 : (int64_t)(rt_random(rt) % RT_VCPUS),
		    .depth = i & 8 ? 0 : (uint32_t)(rt_random(rt) % 10) + 1,
		    .ns = rt_random(rt) % (end + 1000),
		    .back = i & 1,
		};
		const struct enter *best = NULL;
		struct bp_index_hit hit;

		rows[row] = 1;
		/* Half of them before the index knows which functions are where. */
		if (i == 300)
			ok(bp_index_step(ix, SIZE_MAX));
		ok(bp_index_find(ix, &q, &hit));
		for (size_t k = 0; k < model.n_enters; k++) {
			const struct enter *e = &model.enters[k];

			if ((q.rows && e->row != row) || (q.vcpu >= 0 && e->vcpu != (uint64_t)q.vcpu) ||
			    (q.depth && e->depth != q.depth) || (q.back ? e->ns >= q.ns : e->ns <= q.ns))
				continue;
			if (!best || (q.back ? e->ns > best->ns : e->ns < best->ns))
				best = e;
		}
		assert_int_equal(hit.found, best != NULL);
		if (best)
			assert_int_equal(hit.ns, best->ns);
	}
	bp_index_destroy(ix);
}

static void stack_at(void **state)
{
	struct bp_index *ix;
	struct bp_index_stack s = {0};
	uint64_t end = end_of_trace();
	unsigned compared = 0;

	(void)state;
	ok(bp_index_create(a, false, &ix));
	for (unsigned i = 0; i < 300; i++) {
		uint32_t vcpu = (uint32_t)(rt_random(rt) % RT_VCPUS), depth = 0;
		uint64_t ns = rt_random(rt) % end;

		ok(bp_index_stack_at(ix, vcpu, ns, &s));
		for (size_t k = 0; k < model.n; k++) {
			const struct slice *m = &model.slices[k];

			if (m->top || m->vcpu != vcpu || m->from > ns || m->to <= ns)
				continue;
			depth = m->depth > depth ? m->depth : depth;
			assert_true(m->depth <= s.n);
			assert_int_equal(s.frames[m->depth - 1].row, m->row);
			assert_int_equal(s.frames[m->depth - 1].start_ns, m->entry);
			if (s.frames[m->depth - 1].ended)
				assert_true(s.frames[m->depth - 1].end_ns >= m->to);
			compared++;
		}
		if (depth)
			assert_int_equal(depth, s.n);
	}
	assert_true(compared > 500);
	bp_index_stack_deinit(&s);
	bp_index_destroy(ix);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(whole),         cmocka_unit_test(any_order),  cmocka_unit_test(window),
	    cmocka_unit_test(sums),          cmocka_unit_test(next_entry), cmocka_unit_test(stack_at),
	    cmocka_unit_test(index_windows),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
