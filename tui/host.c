// SPDX-License-Identifier: GPL-2.0-or-later
#include "tui/host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

struct off {
	uint64_t from, to;
	uint8_t cls;
};

struct line {
	struct off *list;
	size_t n, cap;
	char *name;
	uint32_t vcpu;
	uint64_t total_ns;
	bool shown;
};

struct bp_host {
	const struct bp_trace *trace;
	struct line *lines; /* by thread of struct bp_waits */
	size_t n_lines;
	uint32_t *order; /* those that are shown: vCPUs first */
	uint32_t n_shown;
	size_t kept;
	bool cut, failed, threaded;
	atomic_bool done;
	pthread_t thread;
};

static void on_off(void *ctx, const struct bp_waits *w, const struct bp_off *off)
{
	struct bp_host *h = ctx;
	struct line *l;

	(void)w;
	if (h->failed || off->in_ns < off->out.time_ns)
		return;
	if (off->thread >= h->n_lines) {
		size_t n = off->thread + 64u;
		struct line *lines = realloc(h->lines, n * sizeof(*lines));

		if (!lines) {
			h->failed = true;
			return;
		}
		memset(lines + h->n_lines, 0, (n - h->n_lines) * sizeof(*lines));
		h->lines = lines;
		h->n_lines = n;
	}
	l = &h->lines[off->thread];
	if (h->kept == BP_HOST_MAX) {
		h->cut = true;
		return;
	}
	/* In order, as a thread leaves the CPU again only when it has had it. */
	if (l->n && off->out.time_ns < l->list[l->n - 1].to)
		return;
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		struct off *list = realloc(l->list, cap * sizeof(*list));

		if (!list) {
			h->failed = true;
			return;
		}
		l->list = list;
		l->cap = cap;
	}
	l->list[l->n++] = (struct off){off->out.time_ns, off->in_ns, (uint8_t)off->why.cls};
	l->total_ns += off->in_ns - off->out.time_ns;
	h->kept++;
}

static bool before(const struct bp_host *h, uint32_t a, uint32_t b)
{
	const struct line *x = &h->lines[a], *y = &h->lines[b];

	if (x->vcpu != y->vcpu)
		return x->vcpu < y->vcpu;
	return x->n != y->n ? x->n > y->n : a < b;
}

static struct bp_err *read_waits(struct bp_host *h)
{
	static const struct bp_waits_ops ops = {.on_off = on_off};
	bp_cleanup(bp_waits_destroyp) struct bp_waits *w = NULL;
	struct bp_err *err = bp_waits_run(h->trace, 0, 0, &ops, h, &w);

	if (err)
		return err;
	h->order = calloc(h->n_lines + 1, sizeof(*h->order));
	if (!h->order || h->failed)
		return bp_err_nomem();
	for (uint32_t i = 0; i < h->n_lines && i < w->n_threads; i++) {
		struct bp_strbuf sb = BP_STRBUF_INIT;
		struct line *l = &h->lines[i];
		uint32_t k;

		if (!l->n || !bp_waits_shown(w, i))
			continue;
		bp_waits_thread_name(w, i, &sb);
		l->name = sb.failed ? NULL : strdup(bp_strbuf_str(&sb));
		bp_strbuf_deinit(&sb);
		if (!l->name)
			return bp_err_nomem();
		l->vcpu = w->threads[i].vcpu == UINT16_MAX ? UINT32_MAX : w->threads[i].vcpu;
		for (k = h->n_shown++; k && before(h, i, h->order[k - 1]); k--)
			h->order[k] = h->order[k - 1];
		h->order[k] = i;
	}
	return NULL;
}

static void *thread_main(void *arg)
{
	struct bp_host *h = arg;
	struct bp_err *err = read_waits(h);

	/* Without them there are no lines; the views of waits say what is wrong. */
	if (err)
		h->n_shown = 0;
	bp_err_ignore(err);
	atomic_store(&h->done, true);
	return NULL;
}

struct bp_err *bp_host_create(const struct bp_trace *trace, bool thread, struct bp_host **ret)
{
	struct bp_host *h;

	*ret = NULL;
	if (!bp_trace_n_waits(trace))
		return NULL;
	h = calloc(1, sizeof(*h));
	if (!h)
		return bp_err_nomem();
	h->trace = trace;
	if (thread && !pthread_create(&h->thread, NULL, thread_main, h))
		h->threaded = true;
	else
		thread_main(h);
	*ret = h;
	return NULL;
}

bool bp_host_done(struct bp_host *h, bool wait)
{
	if (wait && h->threaded) {
		pthread_join(h->thread, NULL);
		h->threaded = false;
	}
	return atomic_load(&h->done);
}

void bp_host_destroy(struct bp_host *h)
{
	if (!h)
		return;
	bp_host_done(h, true);
	for (size_t i = 0; i < h->n_lines; i++) {
		free(h->lines[i].list);
		free(h->lines[i].name);
	}
	free(h->lines);
	free(h->order);
	free(h);
}

uint32_t bp_host_threads(struct bp_host *h)
{
	return bp_host_done(h, false) ? h->n_shown : 0;
}

const char *bp_host_name(struct bp_host *h, uint32_t thread, uint32_t *vcpu)
{
	*vcpu = h->lines[h->order[thread]].vcpu;
	return h->lines[h->order[thread]].name;
}

bool bp_host_cut(struct bp_host *h)
{
	return bp_host_done(h, false) && h->cut;
}

/* The first one that ends after @ns. */
static size_t first_after(const struct line *l, uint64_t ns)
{
	size_t low = 0, high = l->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (l->list[mid].to <= ns)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void column(const struct line *l, uint64_t from, uint64_t to, struct bp_lod_col *out)
{
	double ns[BP_OFF_CLASSES] = {0};

	*out = (struct bp_lod_col){.value = BP_LOD_NONE,
				   .longest_value = BP_LOD_NONE,
				   .span = to > from ? (double)(to - from) : 0,
				   .known = 1};
	for (size_t i = first_after(l, from); to > from && i < l->n && l->list[i].from < to; i++) {
		const struct off *o = &l->list[i];
		uint64_t a = o->from > from ? o->from : from, b = o->to < to ? o->to : to;
		double full = (double)(o->to - o->from);

		ns[o->cls] += (double)(b - a);
		out->busy += (double)(b - a);
		out->count += o->from >= from;
		if (full >= out->longest) {
			out->longest = full;
			out->longest_value = o->cls;
		}
		if (out->value == BP_LOD_NONE || ns[o->cls] > out->most) {
			out->value = o->cls;
			out->most = ns[o->cls];
		}
	}
}

void bp_host_columns(struct bp_host *h, uint32_t thread, const uint64_t *edges, size_t n,
		     struct bp_lod_col *out)
{
	static const struct line none;
	const struct line *l = thread < bp_host_threads(h) ? &h->lines[h->order[thread]] : &none;

	for (size_t i = 0; i < n; i++)
		column(l, edges[i], edges[i + 1], &out[i]);
}

bool bp_host_next(struct bp_host *h, uint32_t thread, uint64_t ns, bool back, uint64_t *ret)
{
	const struct line *l;
	size_t i;

	if (thread >= bp_host_threads(h))
		return false;
	l = &h->lines[h->order[thread]];
	i = first_after(l, ns);
	while (!back && i < l->n && l->list[i].from <= ns)
		i++;
	while (back && i && (i == l->n || l->list[i].from >= ns))
		i--;
	if (i >= l->n || (back && l->list[i].from >= ns))
		return false;
	*ret = l->list[i].from;
	return true;
}
