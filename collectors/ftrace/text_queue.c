// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two threads for one text: the caller reads and takes lines apart, the thread here keeps the stacks, talks
 * to the builder and writes its blocks. What is between them is an array of packed calls for each few
 * thousand lines. There are many arrays: the thread writes a block now and then, and the caller goes on
 * meanwhile.
 *
 * Bytes that go from one processor to the other are what the second thread costs, and waking it up. So calls
 * are packed, text and events stay where they are made, and nobody is woken for a single array.
 *
 * All that is not such a call (new names, events, switches) is done by the caller while the thread waits, see
 * bp_ftext_drain(). So everything in struct bp_ftext belongs to the caller, but for what bp_ftext_take()
 * changes while calls are on their way: stacks, clocks and counts of functions, the builder, and the error.
 */
#include "collectors/ftrace/text.h"

#include <pthread.h>
#include <stdlib.h>

#define N_BATCHES 32

struct bp_ftext_queue {
	struct bp_ftext *r;
	struct bp_ftext_batch {
		size_t n;
		struct bp_ftext_packed calls[BP_FTEXT_BATCH];
	} batches[N_BATCHES];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more, less; /* for the thread, for the caller */
	uint64_t given, done;      /* batches */
	uint64_t wait_left;        /* the caller waits until no more are on their way */
	bool stop, failed;
};

static void *queue_main(void *arg)
{
	struct bp_ftext_queue *q = arg;

	pthread_mutex_lock(&q->lock);
	for (;;) {
		struct bp_ftext_batch *b;

		while (q->given == q->done && !q->stop)
			pthread_cond_wait(&q->more, &q->lock);
		if (q->given == q->done)
			break;
		b = &q->batches[q->done % N_BATCHES];
		pthread_mutex_unlock(&q->lock);
		bp_ftext_take(q->r, b->calls, b->n);
		pthread_mutex_lock(&q->lock);
		q->done++;
		q->failed = q->r->err;
		if (q->given - q->done <= q->wait_left)
			pthread_cond_signal(&q->less);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static bool create(struct bp_ftext *r)
{
	struct bp_ftext_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return false;
	q->r = r;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->more, NULL);
	pthread_cond_init(&q->less, NULL);
	if (pthread_create(&q->thread, NULL, queue_main, q)) {
		pthread_mutex_destroy(&q->lock);
		pthread_cond_destroy(&q->more);
		pthread_cond_destroy(&q->less);
		free(q);
		return false;
	}
	r->queue = q;
	return true;
}

void bp_ftext_queue_start(struct bp_ftext *r)
{
	if (r->calls || r->no_queue)
		return;
	if (!r->queue && !create(r)) {
		/* Everything works without as well, only slower. */
		r->no_queue = true;
		return;
	}
	/* Its processor has the events; a third thread would have to fetch them. */
	bp_ftext_fail(r, bp_builder_write_here(r->b, true));
	r->calls = r->queue->batches[r->queue->given % N_BATCHES].calls;
}

void bp_ftext_queue_pause(struct bp_ftext *r)
{
	if (!r->calls)
		return;
	bp_ftext_drain(r);
	r->calls = NULL;
	bp_ftext_fail(r, bp_builder_write_here(r->b, false));
}

/* Gives what there is to the thread; if more than @most batches are on their way then, waits until @left are.
 */
static void give(struct bp_ftext *r, uint64_t most, uint64_t left)
{
	struct bp_ftext_queue *q = r->queue;

	pthread_mutex_lock(&q->lock);
	if (r->n_calls) {
		q->batches[q->given % N_BATCHES].n = r->n_calls;
		q->given++;
		pthread_cond_signal(&q->more);
	}
	if (q->given - q->done > most) {
		q->wait_left = left;
		while (q->given - q->done > left)
			pthread_cond_wait(&q->less, &q->lock);
	}
	r->calls = q->batches[q->given % N_BATCHES].calls;
	r->failed = q->failed;
	pthread_mutex_unlock(&q->lock);
	r->n_calls = 0;
}

void bp_ftext_hand_over(struct bp_ftext *r)
{
	/* Not woken for each batch. */
	give(r, N_BATCHES - 1, N_BATCHES / 2);
}

void bp_ftext_drain(struct bp_ftext *r)
{
	r->drains++;
	if (r->calls)
		give(r, 0, 0);
}

void bp_ftext_queue_stop(struct bp_ftext *r)
{
	struct bp_ftext_queue *q = r->queue;

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->more);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->more);
	pthread_cond_destroy(&q->less);
	free(q);
	r->queue = NULL;
	r->calls = NULL;
}
