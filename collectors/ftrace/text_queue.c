// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two threads for one text: the caller takes lines apart, the thread here keeps the stacks and talks to the
 * builder. What is between them is an array of calls for each few thousand lines.
 *
 * All that is not such a call (new names, events, switches) is done by the caller while the thread waits, see
 * bp_ftext_drain(). So everything in struct bp_ftext belongs to the caller, but for what bp_ftext_take()
 * changes while calls are on their way: stacks, clocks and counts of functions, the builder, and the error.
 */
#include "collectors/ftrace/text.h"

#include <pthread.h>
#include <stdlib.h>

#define N_BATCHES 4

struct bp_ftext_queue {
	struct bp_ftext *r;
	struct bp_ftext_batch {
		size_t n;
		struct bp_ftext_call calls[BP_FTEXT_BATCH];
	} batches[N_BATCHES];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t given, done; /* batches */
	bool stop, failed;
};

static void *queue_main(void *arg)
{
	struct bp_ftext_queue *q = arg;

	pthread_mutex_lock(&q->lock);
	for (;;) {
		struct bp_ftext_batch *b;

		while (q->given == q->done && !q->stop)
			pthread_cond_wait(&q->changed, &q->lock);
		if (q->given == q->done)
			break;
		b = &q->batches[q->done % N_BATCHES];
		pthread_mutex_unlock(&q->lock);
		bp_ftext_take(q->r, b->calls, b->n);
		pthread_mutex_lock(&q->lock);
		q->done++;
		q->failed = q->r->err;
		pthread_cond_broadcast(&q->changed);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

bool bp_ftext_queue_start(struct bp_ftext *r)
{
	struct bp_ftext_queue *q = r->queue;

	if (q && !r->calls)
		r->calls = q->batches[q->given % N_BATCHES].calls;
	if (q || r->no_queue)
		return q;
	q = calloc(1, sizeof(*q));
	r->no_queue = !q;
	if (!q)
		return false;
	q->r = r;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->changed, NULL);
	if (pthread_create(&q->thread, NULL, queue_main, q)) {
		pthread_mutex_destroy(&q->lock);
		pthread_cond_destroy(&q->changed);
		free(q);
		r->no_queue = true;
		return false;
	}
	r->queue = q;
	r->calls = q->batches[0].calls;
	return true;
}

/* Gives what there is to the thread; waits until no more than @left batches are on their way. */
static void give(struct bp_ftext *r, uint64_t left)
{
	struct bp_ftext_queue *q = r->queue;

	pthread_mutex_lock(&q->lock);
	if (r->n_calls) {
		q->batches[q->given % N_BATCHES].n = r->n_calls;
		q->given++;
		pthread_cond_broadcast(&q->changed);
	}
	while (q->given - q->done > left)
		pthread_cond_wait(&q->changed, &q->lock);
	r->calls = q->batches[q->given % N_BATCHES].calls;
	r->failed = q->failed;
	pthread_mutex_unlock(&q->lock);
	r->n_calls = 0;
}

void bp_ftext_hand_over(struct bp_ftext *r)
{
	give(r, N_BATCHES - 1);
}

void bp_ftext_drain(struct bp_ftext *r)
{
	if (r->queue)
		give(r, 0);
}

void bp_ftext_queue_stop(struct bp_ftext *r)
{
	struct bp_ftext_queue *q = r->queue;

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_broadcast(&q->changed);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->changed);
	free(q);
	r->queue = NULL;
	r->calls = NULL;
}
