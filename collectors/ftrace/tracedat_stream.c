// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sub-buffers ("pages") of the kernel's ring buffer.
 *
 * A page: time stamp, commit (bytes of records, and two flags about losses before it), records. A record: one
 * word with a type of 5 bits and a time delta of 27, then what the type says.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "collectors/ftrace/tracedat_file.h"

#define MISSED_EVENTS (UINT64_C(1) << 31)
#define MISSED_STORED (UINT64_C(1) << 30)
#define COMMIT_MASK ((UINT64_C(1) << 27) - 1)

#define TYPE_PADDING 29
#define TYPE_TIME_EXTEND 30
#define TYPE_TIME_STAMP 31
#define DELTA_BITS 27
/* Absolute stamps have 59 bits; the upper ones are those of the stamp before. */
#define STAMP_HIGH (UINT64_C(0x1f) << 59)

#define READ_BYTES (256u << 10)
#define CHUNK_MAX (8u << 20)

struct bp_err *bp_td_stream_init(struct bp_td_stream *s, struct bp_td_file *f,
				 const struct bp_td_range *range, size_t budget, struct bp_td_ahead *ahead)
{
	const struct bp_td_buffer *b = &f->buffers[range->buffer];

	memset(s, 0, sizeof(*s));
	s->file = f;
	s->cpu = range->cpu;
	s->buffer = range->buffer;
	s->packed = b->packed;
	s->page_bytes = b->page_bytes;
	s->offset = range->offset;
	s->end = range->offset + range->size;
	s->budget = budget;
	s->ahead = ahead;
	if (s->packed && s->offset < s->end) {
		uint8_t count[4];
		size_t got;
		struct bp_err *err = bp_td_read(f, s->offset, count, sizeof(count), &got);

		if (err)
			return err;
		if (got < sizeof(count)) {
			bp_td_problem(f, s->offset, "the events of cpu %u are missing", s->cpu);
			s->offset = s->end;
			return NULL;
		}
		s->chunks_left = bp_tep_number(count, 4, false, f->big_endian);
		s->offset += 4;
		/* The size does not count the number of pieces. */
		s->end += 4;
	}
	return NULL;
}

/* ---- pieces of the file; these may run in the helper thread ---- */

static struct bp_err *reserve(uint8_t **buf, size_t *cap, size_t want)
{
	uint8_t *grown;

	if (want <= *cap)
		return NULL;
	grown = realloc(*buf, want);
	if (!grown)
		return bp_err_nomem();
	*buf = grown;
	*cap = want;
	return NULL;
}

/* The rest cannot be read. */
static void give_up(struct bp_td_stream *s, struct bp_td_piece *p, uint64_t offset, const char *why,
		    bool truncated)
{
	p->bad = why;
	p->bad_offset = offset;
	p->truncated = truncated;
	s->offset = s->end;
	s->chunks_left = 0;
}

static void fill_plain(struct bp_td_stream *s, struct bp_td_piece *p)
{
	size_t want = READ_BYTES;

	if (want > s->budget / 2)
		want = s->budget / 2;
	want -= want % s->page_bytes;
	if (!want)
		want = s->page_bytes;
	if (want > s->end - s->offset)
		want = (size_t)(s->end - s->offset);
	p->err = reserve(&p->data, &p->cap, want);
	if (!p->err)
		p->err = bp_td_read(s->file, s->offset, p->data, want, &p->len);
	if (p->err)
		return;
	s->offset += p->len;
	if (p->len < want)
		give_up(s, p, s->offset, "the file ends in its events", true);
}

/* One packed piece more; false when this is all for now. */
static bool add_chunk(struct bp_td_stream *s, struct bp_td_piece *p)
{
	uint64_t packed, plain, at = s->offset;
	uint8_t head[8];
	size_t got;

	if (!s->chunks_left) {
		s->offset = s->end;
		return false;
	}
	p->err = bp_td_read(s->file, at, head, sizeof(head), &got);
	if (p->err)
		return false;
	if (got < sizeof(head) || s->end - at < sizeof(head)) {
		give_up(s, p, at, "the file ends in its events", true);
		return false;
	}
	packed = bp_tep_number(head, 4, false, s->file->big_endian);
	plain = bp_tep_number(head + 4, 4, false, s->file->big_endian);
	if (plain > CHUNK_MAX || packed > CHUNK_MAX + CHUNK_MAX / 8) {
		give_up(s, p, at, "a packed piece is too large", false);
		return false;
	}
	if (at + sizeof(head) + packed > s->file->size) {
		give_up(s, p, at, "the file ends in its events", true);
		return false;
	}
	if (packed > s->end - at - sizeof(head)) {
		give_up(s, p, at, "a packed piece is longer than its section", false);
		return false;
	}
	/* Pages do not lie across pieces: the next piece begins with a page of its own. */
	if (p->len && (p->len % s->page_bytes || p->len + plain > READ_BYTES))
		return false;
	if (2 * (plain + packed) > s->budget) {
		give_up(s, p, at, "packed pieces of too many CPUs are too large", false);
		return false;
	}
	p->err = reserve(&s->raw, &s->raw_cap, packed ? packed : 1);
	if (!p->err)
		p->err = bp_td_read(s->file, at + sizeof(head), s->raw, packed, &got);
	if (!p->err)
		p->err = reserve(&p->data, &p->cap, p->len + (plain ? plain : 1));
	if (p->err)
		return false;
	s->chunks_left--;
	s->offset = at + sizeof(head) + packed;
	got = bp_td_unpack(&s->unpacker, s->file->packing, s->raw, got, p->data + p->len, plain);
	if (got == SIZE_MAX) {
		/* The next one stands on its own. */
		p->bad = "a packed piece is damaged";
		p->bad_offset = at;
		p->loss = true;
		return false;
	}
	p->len += got;
	return true;
}

static void fill(struct bp_td_stream *s)
{
	struct bp_td_piece *p = &s->next;

	p->len = 0;
	p->bad = NULL;
	p->err = NULL;
	p->truncated = p->loss = false;
	p->offset = s->offset;
	if (!s->packed)
		fill_plain(s, p);
	else
		while (p->len < READ_BYTES && p->len < s->budget / 4 && add_chunk(s, p))
			;
}

/* ---- reading ahead ---- */

struct bp_td_ahead {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct bp_td_stream *first, *last;
	bool stop;
};

static void *ahead_run(void *arg)
{
	struct bp_td_ahead *a = arg;

	pthread_mutex_lock(&a->lock);
	for (;;) {
		struct bp_td_stream *s = a->first;

		if (s) {
			a->first = s->queued;
			pthread_mutex_unlock(&a->lock);
			fill(s);
			pthread_mutex_lock(&a->lock);
			s->there = true;
			pthread_cond_broadcast(&a->changed);
		} else if (a->stop) {
			break;
		} else {
			pthread_cond_wait(&a->changed, &a->lock);
		}
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

struct bp_err *bp_td_ahead_create(struct bp_td_ahead **ret)
{
	struct bp_td_ahead *a = calloc(1, sizeof(*a));

	*ret = NULL;
	if (!a)
		return bp_err_nomem();
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->changed, NULL);
	if (pthread_create(&a->thread, NULL, ahead_run, a)) {
		pthread_cond_destroy(&a->changed);
		pthread_mutex_destroy(&a->lock);
		free(a);
		return NULL;
	}
	*ret = a;
	return NULL;
}

void bp_td_ahead_destroy(struct bp_td_ahead *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static void ask(struct bp_td_stream *s)
{
	struct bp_td_ahead *a = s->ahead;

	s->asked = true;
	pthread_mutex_lock(&a->lock);
	s->queued = NULL;
	s->there = false;
	if (a->first)
		a->last->queued = s;
	else
		a->first = s;
	a->last = s;
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

/* Until s->next is there, if it was asked for; false: it was not. */
static bool await(struct bp_td_stream *s)
{
	if (!s->asked)
		return false;
	pthread_mutex_lock(&s->ahead->lock);
	while (!s->there)
		pthread_cond_wait(&s->ahead->changed, &s->ahead->lock);
	pthread_mutex_unlock(&s->ahead->lock);
	s->asked = false;
	return true;
}

void bp_td_stream_deinit(struct bp_td_stream *s)
{
	await(s);
	bp_err_free(s->next.err);
	free(s->now.data);
	free(s->next.data);
	free(s->raw);
	bp_td_unpacker_destroy(s->unpacker);
	memset(s, 0, sizeof(*s));
}

/* ---- pages ---- */

static struct bp_err *next_page(struct bp_td_stream *s, const uint8_t **ret, size_t *len)
{
	*ret = NULL;
	while (s->now_pos >= s->now.len) {
		struct bp_td_piece old = s->now;

		if (!await(s)) {
			if (s->offset >= s->end)
				return NULL;
			fill(s);
		}
		s->now = s->next;
		s->next = old;
		s->now_pos = 0;
		if (s->now.err) {
			struct bp_err *err = s->now.err;

			s->now.err = NULL;
			s->now.len = 0;
			s->offset = s->end;
			return err;
		}
		s->file->truncated |= s->now.truncated;
		if (s->now.bad) {
			bp_td_problem(s->file, s->now.bad_offset, "cpu %u: %s", s->cpu, s->now.bad);
			s->stats.bad_pages++;
		}
		/* What could not be read is behind what is in this piece. */
		s->after_loss |= s->loss_next;
		s->loss_next = s->now.loss;
		if (s->ahead && s->offset < s->end)
			ask(s);
	}
	*ret = s->now.data + s->now_pos;
	*len = s->now.len - s->now_pos;
	if (*len > s->page_bytes)
		*len = s->page_bytes;
	s->now_pos += *len;
	return NULL;
}

static uint64_t offset_of(const struct bp_td_stream *s, const uint8_t *p)
{
	return s->packed ? s->now.offset : s->now.offset + (uint64_t)(p - s->now.data);
}

static void bad_page(struct bp_td_stream *s, const uint8_t *at, const char *why)
{
	s->stats.bad_pages++;
	bp_td_problem(s->file, offset_of(s, at), "cpu %u: %s", s->cpu, why);
	s->pos = s->page_end;
	/* Whatever else was on it is lost. */
	s->after_loss = true;
	s->lost = 0;
}

struct bp_err *bp_td_stream_page(struct bp_td_stream *s, bool *more)
{
	const struct bp_td_file *f = s->file;
	bool loss = s->after_loss;
	uint64_t lost = loss ? s->lost : 0;

	for (;;) {
		const uint8_t *page;
		size_t len, room;
		uint64_t commit, size;
		struct bp_err *err = next_page(s, &page, &len);

		loss |= s->after_loss;
		if (err)
			return err;
		if (!page) {
			*more = false;
			return NULL;
		}
		if (len < f->data_offset) {
			s->pos = s->page_end = page + len;
			bad_page(s, page, "half a page");
			continue;
		}
		s->stats.pages++;
		s->ts = bp_tep_number(page, 8, false, f->big_endian);
		commit = bp_tep_number(page + f->commit_offset, f->commit_bytes, false, f->big_endian);
		size = commit & COMMIT_MASK;
		room = len - f->data_offset;
		if (commit & MISSED_EVENTS) {
			uint64_t count = 0;

			s->stats.loss_pages++;
			if ((commit & MISSED_STORED) && size <= room && room - size >= f->commit_bytes)
				count = bp_tep_number(page + f->data_offset + size, f->commit_bytes, false,
						      f->big_endian);
			s->stats.lost_stored += count;
			lost = loss && !lost ? 0 : lost + count;
			loss = true;
		}
		s->pos = page + f->data_offset;
		s->page_end = s->pos + (size < room ? size : room);
		s->after_loss = false;
		if (size > room) {
			bool whole = len == s->page_bytes;

			s->stats.bad_pages++;
			bp_td_problem(s->file, offset_of(s, page), "cpu %u: %s", s->cpu,
				      whole ? "a page claims to be longer than it is" : "a page is cut");
		}
		if (bp_td_stream_step(s)) {
			s->after_loss = loss;
			s->lost = lost;
			*more = true;
			return NULL;
		}
		if (s->after_loss) {
			loss = true;
			lost = 0;
		}
	}
}

bool bp_td_stream_step(struct bp_td_stream *s)
{
	const uint8_t *p = s->pos;
	const bool be = s->file->big_endian;

	while (s->page_end - p >= 4) {
		size_t left = (size_t)(s->page_end - p);
		uint32_t head, type, extra = 0;
		uint64_t delta, length;

		memcpy(&head, p, 4);
		if (be) {
			head = __builtin_bswap32(head);
			type = head >> DELTA_BITS;
			delta = head & ((1u << DELTA_BITS) - 1);
		} else {
			type = head & 31;
			delta = head >> 5;
		}
		if (type && type < TYPE_PADDING) {
			length = 4ull * type;
			if (length > left - 4) {
				bad_page(s, p, "a record does not end on its page");
				return false;
			}
			s->ts += delta;
			s->data = p + 4;
			s->len = (uint32_t)length;
			s->pos = p + 4 + length;
			goto record;
		}
		if (left >= 8)
			extra = (uint32_t)bp_tep_number(p + 4, 4, false, be);
		else if (type != TYPE_PADDING || delta) {
			bad_page(s, p, "a record does not end on its page");
			return false;
		}
		switch (type) {
		case 0:
			length = extra;
			if (length < 4 || length > left - 4 || length % 4) {
				bad_page(s, p, "a record does not end on its page");
				return false;
			}
			s->ts += delta;
			s->data = p + 8;
			s->len = (uint32_t)length - 4;
			s->pos = p + 4 + length;
			goto record;
		case TYPE_PADDING:
			if (!delta) {
				s->pos = s->page_end;
				return false;
			}
			/* A record that was taken back. */
			length = extra;
			if (length > left - 4 || length % 4) {
				bad_page(s, p, "padding does not end on its page");
				return false;
			}
			s->ts += delta;
			p += 4 + length;
			break;
		case TYPE_TIME_EXTEND:
			s->ts += ((uint64_t)extra << DELTA_BITS) + delta;
			p += 8;
			break;
		default: {
			uint64_t ts = ((uint64_t)extra << DELTA_BITS) + delta;

			if (s->ts & STAMP_HIGH) {
				ts |= s->ts & STAMP_HIGH;
				if (ts < s->ts)
					ts += UINT64_C(1) << 59;
			}
			s->ts = ts;
			p += 8;
			break;
		}
		}
	}
	s->pos = s->page_end;
	return false;

record:
	if (!s->stats.events++)
		s->stats.first_ts = s->ts;
	s->stats.last_ts = s->ts;
	return true;
}
