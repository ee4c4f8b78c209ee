// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sub-buffers ("pages") of the kernel's ring buffer.
 *
 * A page: time stamp, commit (bytes of records, and two flags about losses before it), records. A record: one
 * word with a type of 5 bits and a time delta of 27, then what the type says.
 */
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

struct bp_err *bp_td_stream_init(struct bp_td_stream *s, struct bp_td_file *f, const struct bp_td_range *range,
				 size_t budget)
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

void bp_td_stream_deinit(struct bp_td_stream *s)
{
	free(s->buf);
	free(s->raw);
	bp_td_unpacker_destroy(s->unpacker);
	memset(s, 0, sizeof(*s));
}

static struct bp_err *reserve(uint8_t **buf, size_t *cap, size_t want)
{
	uint8_t *grown;

	if (want <= *cap)
		return NULL;
	/* Contents are not kept. */
	free(*buf);
	*cap = 0;
	*buf = grown = malloc(want);
	if (!grown)
		return bp_err_nomem();
	*cap = want;
	return NULL;
}

/* The rest cannot be read: say so, once. */
static struct bp_err *give_up(struct bp_td_stream *s, uint64_t offset, const char *why)
{
	bp_td_problem(s->file, offset, "cpu %u: %s", s->cpu, why);
	s->stats.bad_pages++;
	s->offset = s->end;
	s->chunks_left = 0;
	s->buf_len = s->buf_pos = 0;
	return NULL;
}

static struct bp_err *fill_plain(struct bp_td_stream *s)
{
	size_t want = READ_BYTES;
	struct bp_err *err;

	if (want > s->budget)
		want = s->budget;
	want -= want % s->page_bytes;
	if (!want)
		want = s->page_bytes;
	if (want > s->end - s->offset)
		want = (size_t)(s->end - s->offset);
	err = reserve(&s->buf, &s->buf_cap, want);
	if (err)
		return err;
	s->buf_offset = s->offset;
	err = bp_td_read(s->file, s->offset, s->buf, want, &s->buf_len);
	if (err)
		return err;
	s->offset += s->buf_len;
	if (s->buf_len < want) {
		s->file->truncated = true;
		bp_td_problem(s->file, s->offset, "cpu %u: the file ends in its events", s->cpu);
		s->offset = s->end;
	}
	return NULL;
}

static struct bp_err *fill_packed(struct bp_td_stream *s)
{
	uint8_t head[8];
	uint64_t packed, plain, at = s->offset;
	size_t got;
	struct bp_err *err;

	if (!s->chunks_left) {
		s->offset = s->end;
		return NULL;
	}
	s->chunks_left--;
	err = bp_td_read(s->file, at, head, sizeof(head), &got);
	if (err)
		return err;
	if (got < sizeof(head) || s->end - at < sizeof(head)) {
		s->file->truncated = true;
		return give_up(s, at, "the file ends in its events");
	}
	packed = bp_tep_number(head, 4, false, s->file->big_endian);
	plain = bp_tep_number(head + 4, 4, false, s->file->big_endian);
	if (packed > s->end - at - sizeof(head))
		return give_up(s, at, "a packed piece is longer than its section");
	if (plain > CHUNK_MAX || packed > CHUNK_MAX + CHUNK_MAX / 8)
		return give_up(s, at, "a packed piece is too large");
	if (packed > s->file->size || at + sizeof(head) > s->file->size - packed) {
		s->file->truncated = true;
		return give_up(s, at, "the file ends in its events");
	}
	if (plain + packed > s->budget)
		return give_up(s, at, "packed pieces of too many CPUs are too large");
	err = reserve(&s->raw, &s->raw_cap, packed ? packed : 1);
	if (!err)
		err = bp_td_read(s->file, at + sizeof(head), s->raw, packed, &got);
	if (err)
		return err;
	if (got < packed) {
		s->file->truncated = true;
		return give_up(s, at, "the file ends in its events");
	}
	err = reserve(&s->buf, &s->buf_cap, plain ? plain : 1);
	if (err)
		return err;
	s->offset = at + sizeof(head) + packed;
	s->buf_offset = at;
	s->buf_len = bp_td_unpack(&s->unpacker, s->file->packing, s->raw, packed, s->buf, plain);
	if (s->buf_len == SIZE_MAX) {
		/* The next piece stands on its own. */
		bp_td_problem(s->file, at, "cpu %u: a packed piece is damaged", s->cpu);
		s->stats.bad_pages++;
		s->buf_len = 0;
		s->after_loss = true;
		s->lost = 0;
	}
	return NULL;
}

static struct bp_err *next_page(struct bp_td_stream *s, const uint8_t **ret, size_t *len)
{
	*ret = NULL;
	while (s->buf_pos >= s->buf_len) {
		struct bp_err *err;

		if (s->offset >= s->end)
			return NULL;
		s->buf_pos = s->buf_len = 0;
		err = s->packed ? fill_packed(s) : fill_plain(s);
		if (err)
			return err;
	}
	*ret = s->buf + s->buf_pos;
	*len = s->buf_len - s->buf_pos;
	if (*len > s->page_bytes)
		*len = s->page_bytes;
	s->buf_pos += *len;
	return NULL;
}

static void bad_page(struct bp_td_stream *s, const uint8_t *at, const char *why)
{
	uint64_t offset = s->packed ? s->buf_offset : s->buf_offset + (uint64_t)(at - s->buf);

	s->stats.bad_pages++;
	bp_td_problem(s->file, offset, "cpu %u: %s", s->cpu, why);
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
			bp_td_problem(s->file, s->packed ? s->buf_offset : s->buf_offset + (uint64_t)(page - s->buf),
				      "cpu %u: %s", s->cpu,
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
