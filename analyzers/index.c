// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/index.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cleanup.h"

#define BUDGET_BYTES ((size_t)96 << 20) /* of the index of the whole recording, about */
#define PLANES_USED 28                  /* of a vCPU, in a usual recording */
#define CELL_BYTES 32                   /* with the levels above */
#define MIN_BUCKETS 1024
#define MAX_BUCKETS 65536
#define SYNC_COST 2.0 /* a window that costs as much as so many whole blocks is read at once */
#define BLOOM_BITS 4096
#define CACHE 8
#define COARSE_STEP 64

struct bloom {
	uint64_t bits[BLOOM_BITS / 64]; /* functions that are entered, by row */
	uint64_t vcpus;                 /* that have a run in it; by number modulo 64 */
	bool made;
};

/* Decoded blocks that were needed lately. */
struct cached {
	struct bp_decoder *decoder;
	size_t index; /* SIZE_MAX: none */
	struct bp_block block;
	uint64_t used;
};

struct bp_index {
	const struct bp_analysis *a;
	const struct bp_trace *trace;
	uint8_t *modes; /* by row */
	struct bp_lod_options opt;
	size_t n_blocks;
	size_t *order;      /* to build in */
	uint32_t *by_first; /* blocks by first_ns */
	uint64_t *max_last; /* by position in by_first: latest last_ns up to here */
	struct bloom *blooms;

	/* of the asking thread */
	struct cached cache[CACHE];
	uint64_t use;
	struct bp_scan scan;
	bool fine;
	uint64_t prefix_changes; /* `changes` when prefix[] was made, plus 1 */
	double *prefix;          /* instructions at the start of each bucket of the whole, and at the end */
	size_t n_prefix;
	double *fine_prefix;
	size_t n_fine_prefix;
	const struct bp_lod *fine_prefix_of;

	/* of both, under the lock */
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	struct bp_lod *whole;
	struct bp_lod *window;
	struct bp_lod *wanted_lod; /* being made by the thread */
	bool wanted;
	uint64_t want_from, want_to;
	size_t want_buckets;
	uint64_t want_number;
	size_t done;
	bool quit, busy;
	struct bp_err *err;

	atomic_uint_fast64_t changes;
	atomic_bool asking;
	bool threaded;
	pthread_t thread;
	struct bp_decoder *decoder; /* the thread's; without one, bp_index_step()'s */
};

/* ---- blocks by time ---- */

struct by_first {
	uint64_t first;
	uint32_t index;
};

static int compare_first(const void *a, const void *b)
{
	const struct by_first *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static struct bp_err *make_directory(struct bp_index *ix)
{
	size_t n = ix->n_blocks, k = 0;
	bp_autofree struct by_first *list = calloc(n + 1, sizeof(*list));

	ix->order = calloc(n + 1, sizeof(*ix->order));
	ix->by_first = calloc(n + 1, sizeof(*ix->by_first));
	ix->max_last = calloc(n + 1, sizeof(*ix->max_last));
	ix->blooms = calloc(n + 1, sizeof(*ix->blooms));
	if (!list || !ix->order || !ix->by_first || !ix->max_last || !ix->blooms)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		uint64_t last;

		list[i].index = (uint32_t)i;
		bp_trace_block_range(ix->trace, i, &list[i].first, &last);
	}
	qsort(list, n, sizeof(*list), compare_first);
	for (size_t i = 0; i < n; i++) {
		uint64_t first, last;

		ix->by_first[i] = list[i].index;
		bp_trace_block_range(ix->trace, list[i].index, &first, &last);
		ix->max_last[i] = i && ix->max_last[i - 1] > last ? ix->max_last[i - 1] : last;
	}
	for (size_t step = COARSE_STEP; step; step /= 2) {
		for (size_t i = 0; i < n; i += step) {
			if (step == COARSE_STEP || i % (2 * step))
				ix->order[k++] = i;
		}
	}
	return NULL;
}

/* Position in by_first[] behind the last block that begins before @ns or, with @with, at it. */
static size_t position(const struct bp_index *ix, uint64_t ns, bool with)
{
	size_t low = 0, high = ix->n_blocks;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		uint64_t first, last;

		bp_trace_block_range(ix->trace, ix->by_first[mid], &first, &last);
		if (first < ns || (with && first == ns))
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The blocks with something in [@from, @to], in no order; *@n of them, at most @max in @list (0: count).
 */
static size_t overlapping(const struct bp_index *ix, uint64_t from, uint64_t to, uint32_t *list, size_t max)
{
	size_t n = 0;

	for (size_t i = position(ix, to, true); i-- > 0 && ix->max_last[i] >= from;) {
		uint64_t first, last;

		bp_trace_block_range(ix->trace, ix->by_first[i], &first, &last);
		if (last < from)
			continue;
		if (n < max)
			list[n] = ix->by_first[i];
		n++;
	}
	return n;
}

/* What reading the window costs, in blocks: all of it is decoded, and what lies inside is added. */
static double window_cost(const struct bp_index *ix, uint64_t from, uint64_t to, double most)
{
	double cost = 0;

	for (size_t i = position(ix, to, true); i-- > 0 && ix->max_last[i] >= from && cost <= most;) {
		uint64_t first, last, a, b;

		bp_trace_block_range(ix->trace, ix->by_first[i], &first, &last);
		if (last < from)
			continue;
		a = first > from ? first : from;
		b = last < to ? last : to;
		cost += 0.2 + 0.8 * (double)(b - a + 1) / (double)(last - first + 1);
	}
	return cost;
}

/* ---- building ---- */

static void bloom_make(struct bp_index *ix, size_t i, const struct bp_block *b)
{
	struct bloom *bloom = &ix->blooms[i];

	for (size_t e = 0; e < b->n_events; e++) {
		const struct bp_event *ev = &b->events[e];

		if (ev->kind == BP_EV_CALL || ev->kind == BP_EV_JUMP || ev->kind == BP_EV_IRQ) {
			uint32_t bit = ix->a->rows.row_of[ev->arg] % BLOOM_BITS;

			bloom->bits[bit / 64] |= (uint64_t)1 << bit % 64;
		}
	}
	for (size_t r = 0; r < b->n_runs; r++)
		bloom->vcpus |= (uint64_t)1 << b->runs[r].vcpu % 64;
	bloom->made = true;
}

/* Damaged blocks are passed over: what is missing is said by the views' notes. */
static struct bp_err *read_block(const struct bp_index *ix, struct bp_decoder *d, size_t i,
				 struct bp_block *block, bool *ok)
{
	struct bp_err *err = bp_decoder_read(d, ix->trace, i, block);

	*ok = !err;
	if (err && bp_err_code(err) != BP_ENOMEM) {
		bp_err_ignore(err);
		err = NULL;
	}
	return err;
}

static void lock_politely(struct bp_index *ix)
{
	const struct timespec moment = {.tv_nsec = 50000};

	while (atomic_load(&ix->asking))
		nanosleep(&moment, NULL);
	pthread_mutex_lock(&ix->lock);
}

static void lock_asking(struct bp_index *ix)
{
	atomic_store(&ix->asking, true);
	pthread_mutex_lock(&ix->lock);
	atomic_store(&ix->asking, false);
}

/* One block of the whole. Called and returns without the lock. */
static struct bp_err *build_block(struct bp_index *ix, struct bp_decoder *d)
{
	size_t i = ix->order[ix->done];
	uint64_t first, last;
	struct bp_block block;
	struct bp_err *err;
	bool ok;

	bp_trace_block_range(ix->trace, i, &first, &last);
	err = read_block(ix, d, i, &block, &ok);
	lock_politely(ix);
	if (!err && ok) {
		bloom_make(ix, i, &block);
		err = bp_lod_add(ix->whole, &block, first, last);
	}
	if (++ix->done == ix->n_blocks)
		bp_lod_complete(ix->whole);
	/* Before anyone can see that it was the last one. */
	atomic_fetch_add(&ix->changes, 1);
	pthread_mutex_unlock(&ix->lock);
	return err;
}

static struct bp_err *build_window(struct bp_index *ix, struct bp_decoder *d, uint64_t from, uint64_t to,
				   size_t buckets, uint64_t number, struct bp_lod **ret)
{
	struct bp_lod_options opt = ix->opt;
	bp_cleanup(bp_lod_destroyp) struct bp_lod *lod = NULL;
	size_t n = overlapping(ix, from, to, NULL, 0);
	bp_autofree uint32_t *list = calloc(n + 1, sizeof(*list));
	struct bp_err *err;

	*ret = NULL;
	if (!list)
		return bp_err_nomem();
	overlapping(ix, from, to, list, n);
	opt.from_ns = from;
	opt.to_ns = to;
	opt.buckets = buckets;
	err = bp_lod_create(&opt, &lod);
	for (size_t i = 0; i < n && !err; i++) {
		uint64_t first, last;
		struct bp_block block;
		bool ok = false;

		bp_trace_block_range(ix->trace, list[i], &first, &last);
		err = read_block(ix, d, list[i], &block, &ok);
		if (!err && ok)
			err = bp_lod_add(lod, &block, first, last);
		if (number) {
			bool stale;

			pthread_mutex_lock(&ix->lock);
			stale = ix->quit || ix->want_number != number;
			pthread_mutex_unlock(&ix->lock);
			if (stale)
				return err;
		}
	}
	if (!err) {
		bp_lod_complete(lod);
		*ret = bp_steal(lod);
	}
	return err;
}

static struct bp_err *work_once(struct bp_index *ix, struct bp_decoder *d)
{
	struct bp_lod *lod = NULL, *old = NULL;
	uint64_t from, to, number;
	struct bp_err *err;
	size_t buckets;

	if (!ix->wanted) {
		pthread_mutex_unlock(&ix->lock);
		err = build_block(ix, d);
		pthread_mutex_lock(&ix->lock);
		return err;
	}
	from = ix->want_from;
	to = ix->want_to;
	buckets = ix->want_buckets;
	number = ix->want_number;
	pthread_mutex_unlock(&ix->lock);
	err = build_window(ix, d, from, to, buckets, number, &lod);
	lock_politely(ix);
	if (lod && ix->want_number == number) {
		old = ix->window;
		ix->window = lod;
		ix->wanted = false;
		lod = NULL;
		atomic_fetch_add(&ix->changes, 1);
	}
	bp_lod_destroy(old);
	bp_lod_destroy(lod);
	return err;
}

static void *thread_main(void *arg)
{
	struct bp_index *ix = arg;

	pthread_mutex_lock(&ix->lock);
	while (!ix->quit) {
		if (ix->err || (!ix->wanted && ix->done == ix->n_blocks)) {
			ix->busy = false;
			pthread_cond_broadcast(&ix->idle);
			pthread_cond_wait(&ix->work, &ix->lock);
			continue;
		}
		ix->busy = true;
		ix->err = work_once(ix, ix->decoder);
	}
	pthread_mutex_unlock(&ix->lock);
	return NULL;
}

struct bp_err *bp_index_step(struct bp_index *ix, size_t blocks)
{
	struct bp_err *err = NULL;

	pthread_mutex_lock(&ix->lock);
	while (blocks-- && !err && (ix->wanted || ix->done < ix->n_blocks))
		err = work_once(ix, ix->decoder);
	pthread_mutex_unlock(&ix->lock);
	return err;
}

struct bp_err *bp_index_wait(struct bp_index *ix)
{
	struct bp_err *err;

	if (!ix->threaded)
		return bp_index_step(ix, SIZE_MAX);
	pthread_mutex_lock(&ix->lock);
	while (!ix->err && (ix->busy || ix->wanted || ix->done < ix->n_blocks))
		pthread_cond_wait(&ix->idle, &ix->lock);
	err = ix->err;
	ix->err = NULL;
	pthread_mutex_unlock(&ix->lock);
	return err;
}

/* ---- life ---- */

static size_t vcpus_of(const struct bp_trace *trace)
{
	size_t n, vcpus = 0;
	const struct bp_fact *facts = bp_trace_facts(trace, &n);

	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind == BP_FACT_VCPU && facts[i].vcpu < BP_LOD_VCPUS && facts[i].vcpu >= vcpus)
			vcpus = facts[i].vcpu + 1u;
	}
	return vcpus ? vcpus : 4;
}

static struct bp_err *make_modes(struct bp_index *ix)
{
	static const uint8_t of_space[BP_SPACE_N] = {
	    [BP_SPACE_FIRMWARE] = BP_MODE_FIRMWARE, [BP_SPACE_KERNEL] = BP_MODE_KERNEL,
	    [BP_SPACE_MODULE] = BP_MODE_MODULE,     [BP_SPACE_USER] = BP_MODE_USER,
	    [BP_SPACE_ANON] = BP_MODE_USER,
	};
	const struct bp_rows *rows = &ix->a->rows;

	ix->modes = calloc(rows->n + 1, 1);
	if (!ix->modes)
		return bp_err_nomem();
	for (size_t i = 0; i < rows->n; i++) {
		ix->modes[i] = rows->rows[i].space < BP_SPACE_N ? of_space[rows->rows[i].space] : 0;
		if (bp_row_is_halted(&rows->rows[i]))
			ix->modes[i] = BP_MODE_IDLE;
	}
	return NULL;
}

struct bp_err *bp_index_create(const struct bp_analysis *a, bool thread, struct bp_index **ret)
{
	bp_cleanup(bp_index_destroyp) struct bp_index *ix = calloc(1, sizeof(*ix));
	size_t buckets;
	struct bp_err *err;

	if (!ix)
		return bp_err_nomem();
	pthread_mutex_init(&ix->lock, NULL);
	pthread_cond_init(&ix->work, NULL);
	pthread_cond_init(&ix->idle, NULL);
	for (size_t i = 0; i < CACHE; i++)
		ix->cache[i].index = SIZE_MAX;
	ix->a = a;
	ix->trace = a->trace;
	ix->n_blocks = bp_trace_n_blocks(a->trace);
	err = make_modes(ix);
	if (!err)
		err = make_directory(ix);
	if (!err)
		err = bp_decoder_create(&ix->decoder);
	if (err)
		return err;
	buckets = BUDGET_BYTES / CELL_BYTES / PLANES_USED / vcpus_of(a->trace);
	if (buckets < MIN_BUCKETS)
		buckets = MIN_BUCKETS;
	if (buckets > MAX_BUCKETS)
		buckets = MAX_BUCKETS;
	ix->opt = (struct bp_lod_options){
	    .row_of = a->rows.row_of,
	    .mode_of_row = ix->modes,
	    .n_funcs = a->rows.n_funcs,
	    .n_rows = a->rows.n,
	    .to_ns = ix->n_blocks ? ix->max_last[ix->n_blocks - 1] : 0,
	    .buckets = buckets,
	};
	if (ix->opt.to_ns < a->end_ns)
		ix->opt.to_ns = a->end_ns;
	ix->opt.to_ns++;
	err = bp_lod_create(&ix->opt, &ix->whole);
	if (err)
		return err;
	if (thread && !pthread_create(&ix->thread, NULL, thread_main, ix))
		ix->threaded = true;
	ix->fine = true;
	*ret = bp_steal(ix);
	return NULL;
}

void bp_index_destroy(struct bp_index *ix)
{
	if (!ix)
		return;
	if (ix->threaded) {
		pthread_mutex_lock(&ix->lock);
		ix->quit = true;
		pthread_cond_broadcast(&ix->work);
		pthread_mutex_unlock(&ix->lock);
		pthread_join(ix->thread, NULL);
	}
	for (size_t i = 0; i < CACHE; i++)
		bp_decoder_destroy(ix->cache[i].decoder);
	bp_decoder_destroy(ix->decoder);
	bp_lod_destroy(ix->whole);
	bp_lod_destroy(ix->window);
	bp_scan_deinit(&ix->scan);
	bp_err_free(ix->err);
	pthread_mutex_destroy(&ix->lock);
	pthread_cond_destroy(&ix->work);
	pthread_cond_destroy(&ix->idle);
	free(ix->modes);
	free(ix->order);
	free(ix->by_first);
	free(ix->max_last);
	free(ix->blooms);
	free(ix->prefix);
	free(ix->fine_prefix);
	free(ix);
}

void bp_index_progress(const struct bp_index *ix, size_t *done, size_t *total)
{
	struct bp_index *mutable = (struct bp_index *)ix;

	lock_asking(mutable);
	*done = ix->done;
	pthread_mutex_unlock(&mutable->lock);
	*total = ix->n_blocks;
}

bool bp_index_building(const struct bp_index *ix)
{
	size_t done, total;

	bp_index_progress(ix, &done, &total);
	return done < total;
}

uint64_t bp_index_changes(const struct bp_index *ix)
{
	return atomic_load(&((struct bp_index *)ix)->changes);
}

enum bp_mode bp_index_mode(const struct bp_index *ix, uint32_t row)
{
	return row < ix->a->rows.n ? (enum bp_mode)ix->modes[row] : BP_MODE_UNKNOWN;
}

/* ---- looking ---- */

static bool covers(const struct bp_lod *lod, uint64_t from, uint64_t to, uint64_t bucket_ns)
{
	uint64_t first, last;

	if (!lod)
		return false;
	bp_lod_range(lod, &first, &last);
	return first <= from && last >= to && bp_lod_bucket_ns(lod) <= bucket_ns;
}

static double *prefix_sums(const struct bp_lod *lod, size_t *ret_n)
{
	size_t n;
	const uint64_t *insns = bp_lod_insns(lod, &n);
	double *sums = malloc((n + 1) * sizeof(*sums)), sum = 0;

	*ret_n = sums ? n : 0;
	if (!sums)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		sums[i] = sum;
		sum += (double)insns[i];
	}
	sums[n] = sum;
	return sums;
}

static void make_prefixes(struct bp_index *ix)
{
	uint64_t changes = atomic_load(&ix->changes) + 1;

	if (ix->prefix_changes == changes && ix->fine_prefix_of == ix->window)
		return;
	if (ix->prefix_changes != changes) {
		free(ix->prefix);
		ix->prefix = prefix_sums(ix->whole, &ix->n_prefix);
	}
	free(ix->fine_prefix);
	ix->fine_prefix = NULL;
	ix->n_fine_prefix = 0;
	if (ix->window)
		ix->fine_prefix = prefix_sums(ix->window, &ix->n_fine_prefix);
	ix->fine_prefix_of = ix->window;
	ix->prefix_changes = changes;
}

struct bp_err *bp_index_look(struct bp_index *ix, uint64_t from_ns, uint64_t to_ns, size_t columns,
			     const struct bp_lod **ret)
{
	uint64_t span = to_ns > from_ns ? to_ns - from_ns : 1, bucket = span / (columns ? columns : 1) / 2;
	uint64_t start, end;
	unsigned shift = 0;
	struct bp_err *err = NULL;

	/* Buckets are powers of two long. */
	while (bucket >> shift > 1)
		shift++;
	bucket = (uint64_t)1 << shift;
	lock_asking(ix);
	ix->fine = true;
	bp_lod_range(ix->whole, &start, &end);
	if (to_ns > end)
		to_ns = end;
	if (bp_lod_bucket_ns(ix->whole) <= bucket) {
		ix->wanted = false;
		ix->want_number++;
		*ret = ix->whole;
	} else if (covers(ix->window, from_ns, to_ns, bucket)) {
		*ret = ix->window;
	} else {
		/* Half a window more on either side, so that panning has something to go on with. */
		uint64_t from = from_ns > span / 2 ? from_ns - span / 2 : 0, to = to_ns + span / 2;
		size_t buckets;

		if (to > end)
			to = end;
		buckets = to > from ? (size_t)((to - from - 1) >> shift) + 1 : 1;
		if (window_cost(ix, from, to, SYNC_COST) <= SYNC_COST) {
			struct bp_lod *lod = NULL;

			ix->wanted = false;
			ix->want_number++;
			if (!ix->cache[0].decoder)
				err = bp_decoder_create(&ix->cache[0].decoder);
			ix->cache[0].index = SIZE_MAX;
			if (!err)
				err = build_window(ix, ix->cache[0].decoder, from, to, buckets, 0, &lod);
			if (lod) {
				bp_lod_destroy(ix->window);
				ix->window = lod;
				ix->fine_prefix_of = NULL;
			}
			*ret = lod;
		} else {
			if (!ix->wanted || ix->want_from > from_ns || ix->want_to < to_ns ||
			    ix->want_buckets < buckets) {
				ix->wanted = true;
				ix->want_from = from;
				ix->want_to = to;
				ix->want_buckets = buckets;
				ix->want_number++;
				pthread_cond_signal(&ix->work);
			}
			ix->fine = false;
			*ret = covers(ix->window, from_ns, to_ns, bp_lod_bucket_ns(ix->whole)) ? ix->window
											       : ix->whole;
		}
	}
	if (err) {
		pthread_mutex_unlock(&ix->lock);
		return err;
	}
	make_prefixes(ix);
	return NULL;
}

void bp_index_done(struct bp_index *ix)
{
	pthread_mutex_unlock(&ix->lock);
}

bool bp_index_fine(const struct bp_index *ix)
{
	return ix->fine;
}

const struct bp_lod *bp_index_whole(const struct bp_index *ix)
{
	return ix->whole;
}

/* ---- instructions ---- */

/* Instructions in the window from its start to @ns. */
static double inside(const double *prefix, size_t n, uint64_t bucket, uint64_t ns)
{
	size_t i = (size_t)(ns / bucket);

	if (i >= n)
		return prefix[n];
	return prefix[i] + (prefix[i + 1] - prefix[i]) * (double)(ns % bucket) / (double)bucket;
}

static double whole_insns(const struct bp_index *ix, uint64_t ns)
{
	return ix->n_prefix ? inside(ix->prefix, ix->n_prefix, bp_lod_bucket_ns(ix->whole), ns) : 0;
}

double bp_index_insns_at(const struct bp_index *ix, uint64_t ns)
{
	uint64_t from, to;

	if (ix->n_fine_prefix && bp_lod_bucket_ns(ix->fine_prefix_of) < bp_lod_bucket_ns(ix->whole)) {
		bp_lod_range(ix->fine_prefix_of, &from, &to);
		if (ns >= from && ns <= to)
			return whole_insns(ix, from) + inside(ix->fine_prefix, ix->n_fine_prefix,
							      bp_lod_bucket_ns(ix->fine_prefix_of),
							      ns - from);
	}
	return whole_insns(ix, ns);
}

uint64_t bp_index_ns_at(const struct bp_index *ix, double insns)
{
	uint64_t low = 0, high = ix->opt.to_ns;

	while (low < high) {
		uint64_t mid = low + (high - low) / 2;

		if (bp_index_insns_at(ix, mid) < insns)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- single blocks ---- */

static struct bp_err *get_block(struct bp_index *ix, size_t i, const struct bp_block **ret)
{
	struct cached *c = &ix->cache[1];
	struct bp_err *err = NULL;
	bool ok;

	*ret = NULL;
	for (size_t k = 1; k < CACHE; k++) {
		if (ix->cache[k].index == i) {
			ix->cache[k].used = ++ix->use;
			*ret = &ix->cache[k].block;
			return NULL;
		}
		if (ix->cache[k].used < c->used)
			c = &ix->cache[k];
	}
	if (!c->decoder)
		err = bp_decoder_create(&c->decoder);
	c->index = SIZE_MAX;
	if (!err)
		err = read_block(ix, c->decoder, i, &c->block, &ok);
	if (err || !ok)
		return err;
	c->index = i;
	c->used = ++ix->use;
	*ret = &c->block;
	return NULL;
}

struct at {
	struct bp_index_stack *ret;
	uint32_t vcpu;
	uint64_t ns;
	bool failed, taken;
	uint32_t open; /* frames of ret that are still on the stack */
};

static void take(struct at *at, const struct bp_scan_now *now)
{
	struct bp_index_stack *s = at->ret;
	const struct bp_scan_task *t = now->task;

	if (t->depth > s->cap) {
		struct bp_index_frame *f = realloc(s->frames, t->depth * sizeof(*f));

		if (!f) {
			at->failed = true;
			return;
		}
		s->frames = f;
		s->cap = t->depth;
	}
	s->n = t->depth;
	for (uint32_t i = 0; i < s->n; i++) {
		const struct bp_scan_frame *f = &t->stack[i + 1];

		s->frames[i] = (struct bp_index_frame){
		    .row = f->row, .kind = f->kind, .start_ns = f->wall_ns, .self_known = f->entered};
	}
	s->found = true;
	s->task = t->id;
	s->insns = now->vcpu_insns;
	at->open = s->n;
	at->taken = true;
}

/* The stack as it was until this event: at the moment asked for, if that lies in between. */
static void at_time(void *ctx, struct bp_scan_frame *top, const struct bp_scan_now *now, uint32_t dt,
		    uint32_t di)
{
	struct at *at = ctx;

	(void)top;
	(void)di;
	if (now->vcpu == at->vcpu && now->wall_ns > at->ns && now->wall_ns - dt <= at->ns)
		take(at, now);
}

/* A vCPU that stands still, or whose next run is in another block, is where its last run left it. */
static void at_run_end(void *ctx, const struct bp_scan_now *now)
{
	struct at *at = ctx;

	if (now->vcpu == at->vcpu && now->wall_ns <= at->ns)
		take(at, now);
}

static void at_leave(void *ctx, struct bp_scan_frame *f, uint32_t depth, const struct bp_scan_now *now)
{
	struct at *at = ctx;

	if (at->taken && now->task->id == at->ret->task && depth == at->open && now->wall_ns > at->ns) {
		struct bp_index_frame *g = &at->ret->frames[depth - 1];

		g->ended = true;
		g->end_ns = now->wall_ns;
		g->self_ns = f->self_ns;
		at->open--;
	}
}

static const struct bp_scan_ops at_ops = {.on_time = at_time, .on_run_end = at_run_end, .on_leave = at_leave};

void bp_index_stack_deinit(struct bp_index_stack *s)
{
	free(s->frames);
	memset(s, 0, sizeof(*s));
}

/* Is it known that a vCPU has nothing in block @i? Under the lock. */
static bool lacks_vcpu(const struct bp_index *ix, size_t i, int64_t vcpu)
{
	return vcpu >= 0 && ix->blooms[i].made && !(ix->blooms[i].vcpus >> vcpu % 64 & 1);
}

/* The last run of the vCPU that began by @ns, in any block. */
static struct bp_err *run_at(struct bp_index *ix, uint32_t vcpu, uint64_t ns, size_t *ret, bool *found)
{
	uint64_t best = 0;

	*found = false;
	for (size_t i = position(ix, ns, true), seen = 0; i-- > 0 && seen < 64; seen++) {
		const struct bp_block *b;
		struct bp_err *err;
		uint64_t first, last;
		bool lacks;

		/* What ended before the best start cannot have a later one. */
		if (*found && ix->max_last[i] < best)
			break;
		bp_trace_block_range(ix->trace, ix->by_first[i], &first, &last);
		if (*found && last < best)
			continue;
		lock_asking(ix);
		lacks = lacks_vcpu(ix, ix->by_first[i], vcpu);
		pthread_mutex_unlock(&ix->lock);
		if (lacks)
			continue;
		err = get_block(ix, ix->by_first[i], &b);
		if (err)
			return err;
		for (size_t r = 0; b && r < b->n_runs; r++) {
			if (b->runs[r].vcpu == vcpu && b->runs[r].time_ns <= ns &&
			    (!*found || b->runs[r].time_ns >= best)) {
				best = b->runs[r].time_ns;
				*ret = ix->by_first[i];
				*found = true;
			}
		}
	}
	return NULL;
}

struct bp_err *bp_index_stack_at(struct bp_index *ix, uint32_t vcpu, uint64_t ns, struct bp_index_stack *ret)
{
	struct at at = {.ret = ret, .vcpu = vcpu, .ns = ns};
	const struct bp_block *block;
	size_t index = 0;
	bool found;
	struct bp_err *err;

	ret->found = false;
	ret->n = 0;
	err = run_at(ix, vcpu, ns, &index, &found);
	if (err || !found)
		return err;
	err = get_block(ix, index, &block);
	if (err || !block)
		return err;
	err = bp_scan_block(&ix->scan, block, ix->a->rows.row_of, &at_ops, &at);
	if (!err && at.failed)
		err = bp_err_nomem();
	for (uint32_t i = 0; i < ret->n; i++)
		ret->frames[i].self_known &= ret->frames[i].ended;
	return err;
}

/* ---- finding ---- */

struct find {
	const struct bp_index_query *q;
	struct bp_index_hit *hit;
};

static inline void find_enter(void *ctx, struct bp_scan_frame *f, uint32_t depth,
			      const struct bp_scan_now *now)
{
	struct find *s = ctx;
	const struct bp_index_query *q = s->q;
	struct bp_index_hit *h = s->hit;

	if (q->rows && !q->rows[f->row])
		return;
	if (q->vcpu >= 0 && (uint64_t)q->vcpu != now->vcpu)
		return;
	if (q->depth && q->depth != depth)
		return;
	if (q->back ? now->wall_ns >= q->ns || (h->found && now->wall_ns < h->ns)
		    : now->wall_ns <= q->ns || (h->found && now->wall_ns >= h->ns))
		return;
	*h = (struct bp_index_hit){.found = true,
				   .ns = now->wall_ns,
				   .insns = now->vcpu_insns,
				   .vcpu = now->vcpu,
				   .task = now->task->id,
				   .row = f->row,
				   .depth = depth};
}

static const struct bp_scan_ops find_ops = {.on_enter = find_enter};

static bool bloom_has(const struct bp_index *ix, size_t i, const uint64_t *wanted)
{
	for (size_t k = 0; k < BLOOM_BITS / 64; k++) {
		if (ix->blooms[i].bits[k] & wanted[k])
			return true;
	}
	return false;
}

static struct bp_err *find_between(struct bp_index *ix, const struct bp_index_query *q, uint64_t until,
				   struct bp_index_hit *ret)
{
	struct find find = {.q = q, .hit = ret};
	uint64_t wanted[BLOOM_BITS / 64] = {0};
	size_t read = 0, n = ix->n_blocks;

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; q->rows && i < ix->a->rows.n; i++) {
		if (q->rows[i])
			wanted[i % BLOOM_BITS / 64] |= (uint64_t)1 << i % 64;
	}
	for (size_t k = q->back ? position(ix, q->ns, true) : 0; q->back ? k-- > 0 : k < n; k += !q->back) {
		const struct bp_block *block;
		uint64_t first, last;
		size_t i = ix->by_first[k];
		struct bp_err *err;
		bool skip;

		bp_trace_block_range(ix->trace, i, &first, &last);
		if (q->back ? ix->max_last[k] < (ret->found ? ret->ns : until)
			    : first > (ret->found ? ret->ns : until))
			break;
		if (q->back ? last < (ret->found ? ret->ns : until) : last <= q->ns)
			continue;
		lock_asking(ix);
		skip = (q->rows && ix->blooms[i].made && !bloom_has(ix, i, wanted)) ||
		       lacks_vcpu(ix, i, q->vcpu);
		pthread_mutex_unlock(&ix->lock);
		if (skip)
			continue;
		if (q->max_blocks && read++ >= q->max_blocks) {
			ret->gave_up = !ret->found;
			break;
		}
		err = get_block(ix, i, &block);
		if (!err && block)
			err = bp_scan_block(&ix->scan, block, ix->a->rows.row_of, &find_ops, &find);
		if (err)
			return err;
	}
	return NULL;
}

/*
 * For any function at one level of one vCPU's stack: what the index knows of that level leads past the time
 * in which nothing begins there.
 */
static struct bp_err *find_level(struct bp_index *ix, const struct bp_index_query *q,
				 struct bp_index_hit *ret)
{
	struct bp_index_query part = *q;

	part.max_blocks = 0;
	memset(ret, 0, sizeof(*ret));
	for (;;) {
		uint64_t from, to, at = part.ns;
		struct bp_err *err;
		bool any;

		/* Entries at part.ns itself do not count. */
		if (q->back ? !at-- : at++ == UINT64_MAX)
			return NULL;
		lock_asking(ix);
		any = bp_lod_next(ix->whole, (uint32_t)q->vcpu, BP_PLANE_STACK + q->depth - 1, at, q->back,
				  &from, &to);
		pthread_mutex_unlock(&ix->lock);
		if (!any)
			return NULL;
		if (q->back ? part.ns > to : at < from)
			part.ns = q->back ? to : from - 1;
		err = find_between(ix, &part, q->back ? from : to, ret);
		if (err || ret->found)
			return err;
		/* What begins in that bucket is on the other side of where the search began. */
		part.ns = q->back ? from : to - 1;
	}
}

struct bp_err *bp_index_find(struct bp_index *ix, const struct bp_index_query *q, struct bp_index_hit *ret)
{
	size_t done, total;

	bp_index_progress(ix, &done, &total);
	if (done == total && !q->rows && q->vcpu >= 0 && q->vcpu < BP_LOD_VCPUS && q->depth &&
	    q->depth <= BP_LOD_LEVELS)
		return find_level(ix, q, ret);
	return find_between(ix, q, q->back ? 0 : UINT64_MAX, ret);
}
