// SPDX-License-Identifier: GPL-2.0-or-later
#include "tui/compare.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/rows.h"
#include "core/cleanup.h"

struct bp_compare {
	const struct bp_trace *traces[2];
	const struct bp_summary *old_boot;
	pthread_mutex_t lock;
	struct bp_summary *made[2];
	struct bp_diff *diffs[2]; /* by clock */
	struct change_job {
		struct bp_compare *c;
		const struct bp_rows *rows;
		enum bp_clock clock;
		bool begun, threaded;
		atomic_bool done;
		pthread_t thread;
		uint8_t *changes;
	} jobs[2]; /* by clock */
};

struct bp_err *bp_compare_create(const struct bp_trace *old_trace, const struct bp_summary *old_boot,
				 const struct bp_trace *new_trace, struct bp_compare **ret)
{
	struct bp_compare *c = calloc(1, sizeof(*c));

	if (!c)
		return bp_err_nomem();
	c->traces[0] = old_trace;
	c->traces[1] = new_trace;
	c->old_boot = old_boot;
	pthread_mutex_init(&c->lock, NULL);
	*ret = c;
	return NULL;
}

void bp_compare_destroy(struct bp_compare *c)
{
	if (!c)
		return;
	bp_compare_busy(c, true);
	for (int i = 0; i < 2; i++) {
		free(c->jobs[i].changes);
		bp_diff_destroy(c->diffs[i]);
		bp_summary_destroy(c->made[i]);
	}
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct bp_err *make(struct bp_compare *c, enum bp_clock clock)
{
	struct bp_err *err = NULL;

	for (int i = 0; i < 2 && !err; i++) {
		if (c->traces[i] && !c->made[i])
			err = bp_summary_create(c->traces[i], NULL, &c->made[i]);
	}
	return err ? err
		   : bp_diff_create(c->old_boot ? c->old_boot : c->made[0], c->made[1], clock,
				    &c->diffs[clock]);
}

struct bp_err *bp_compare_get(struct bp_compare *c, enum bp_clock clock, const struct bp_diff **ret)
{
	struct bp_err *err = NULL;

	pthread_mutex_lock(&c->lock);
	if (!c->diffs[clock])
		err = make(c, clock);
	*ret = c->diffs[clock];
	pthread_mutex_unlock(&c->lock);
	return err;
}

/* ---- by row ---- */

struct named {
	const char *name, *module;
	uint32_t row;
};

static int compare_names(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : strcmp(x->module, y->module);
}

/* Rows with a name, sorted by it. */
static struct named *sorted_rows(const struct bp_rows *rows, size_t *n)
{
	struct named *list = calloc(rows->n + 1, sizeof(*list));

	*n = 0;
	for (size_t i = 0; list && i < rows->n; i++) {
		if (*rows->rows[i].name)
			list[(*n)++] = (struct named){rows->rows[i].name, rows->rows[i].module, (uint32_t)i};
	}
	if (list)
		qsort(list, *n, sizeof(*list), compare_names);
	return list;
}

static uint8_t change_of(const struct bp_diff_func *f, enum bp_clock clock, int64_t least)
{
	const int64_t *self = clock == BP_CLOCK_TIME ? f->self_ns : f->self_insns;
	int64_t delta = self[1] - self[0];

	if (delta > -least && delta < least)
		return BP_CHANGE_NONE;
	if (f->state == BP_DIFF_NEW)
		return BP_CHANGE_NEW;
	/* A tenth of its own, too: times of two runs differ. */
	if (delta > 0 ? delta * 10 < self[0] : -delta * 10 < self[0])
		return BP_CHANGE_NONE;
	return delta > 0 ? BP_CHANGE_MORE : BP_CHANGE_LESS;
}

static struct bp_err *make_changes(struct change_job *job)
{
	const struct bp_diff *d;
	struct bp_err *err = bp_compare_get(job->c, job->clock, &d);
	bp_autofree struct named *names = NULL;
	int64_t whole = 0;
	uint8_t *changes;
	size_t n;

	if (err)
		return err;
	names = sorted_rows(job->rows, &n);
	changes = calloc(job->rows->n + 1, 1);
	if (!names || !changes) {
		free(changes);
		return bp_err_nomem();
	}
	for (size_t i = 0; i < d->n_funcs; i++)
		whole += job->clock == BP_CLOCK_TIME ? d->funcs[i].self_ns[1] : d->funcs[i].self_insns[1];
	for (size_t i = 0; i < d->n_funcs; i++) {
		const struct bp_diff_func *f = &d->funcs[i];
		struct named key = {f->name, f->module, 0},
			     *at = bsearch(&key, names, n, sizeof(key), compare_names);

		if (at)
			changes[at->row] = change_of(f, job->clock, whole / 1000 + 1);
	}
	job->changes = changes;
	return NULL;
}

static void *changes_main(void *arg)
{
	struct change_job *job = arg;

	/* The screen of differences says what is wrong. */
	bp_err_ignore(make_changes(job));
	atomic_store(&job->done, true);
	return NULL;
}

const uint8_t *bp_compare_changes(struct bp_compare *c, const struct bp_rows *rows, enum bp_clock clock,
				  bool thread)
{
	struct change_job *job = &c->jobs[clock];

	if (!job->begun) {
		job->begun = true;
		job->c = c;
		job->rows = rows;
		job->clock = clock;
		if (thread && !pthread_create(&job->thread, NULL, changes_main, job))
			job->threaded = true;
		else
			changes_main(job);
	}
	return atomic_load(&job->done) ? job->changes : NULL;
}

bool bp_compare_busy(struct bp_compare *c, bool wait)
{
	bool busy = false;

	for (int i = 0; i < 2; i++) {
		struct change_job *job = &c->jobs[i];

		if (wait && job->threaded) {
			pthread_join(job->thread, NULL);
			job->threaded = false;
		}
		busy |= job->begun && !atomic_load(&job->done);
	}
	return busy;
}
