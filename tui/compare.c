// SPDX-License-Identifier: GPL-2.0-or-later
#include "tui/compare.h"

#include <pthread.h>
#include <stdlib.h>

struct bp_compare {
	const struct bp_trace *traces[2];
	const struct bp_summary *old_boot;
	pthread_mutex_t lock;
	struct bp_summary *made[2];
	struct bp_diff *diffs[2]; /* by clock */
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
	for (int i = 0; i < 2; i++) {
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
