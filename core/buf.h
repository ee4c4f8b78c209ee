/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bounded little-endian reader over bytes in memory. Reading past the end sets `bad` and
 * yields zeros; check once per record with bp_buf_err(), which knows the byte offset.
 */
#ifndef BP_CORE_BUF_H
#define BP_CORE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/err.h"

struct bp_buf {
	const uint8_t *data;
	size_t len, pos;
	const char *path;    /* borrowed, for error texts */
	uint64_t base;       /* file offset of data[0] */
	bool bad;
	size_t bad_pos;      /* where the first short read was attempted */
};

static inline struct bp_buf bp_buf_make(const void *data, size_t len, const char *path, uint64_t base)
{
	return (struct bp_buf){ .data = data, .len = len, .path = path, .base = base };
}

static inline size_t bp_buf_left(const struct bp_buf *b)
{
	return b->len - b->pos;
}

/** bp_buf_take() - @n bytes, borrowed from the underlying memory, or NULL past the end */
static inline const uint8_t *bp_buf_take(struct bp_buf *b, size_t n)
{
	const uint8_t *p;

	if (b->bad || n > b->len - b->pos) {
		if (!b->bad)
			b->bad_pos = b->pos;
		b->bad = true;
		return NULL;
	}
	p = b->data + b->pos;
	b->pos += n;
	return p;
}

static inline uint8_t bp_buf_u8(struct bp_buf *b)
{
	const uint8_t *p = bp_buf_take(b, 1);

	return p ? *p : 0;
}

static inline uint16_t bp_buf_u16(struct bp_buf *b)
{
	const uint8_t *p = bp_buf_take(b, 2);
	uint16_t v = 0;

	if (p)
		memcpy(&v, p, 2);
	return v;
}

static inline uint32_t bp_buf_u32(struct bp_buf *b)
{
	const uint8_t *p = bp_buf_take(b, 4);
	uint32_t v = 0;

	if (p)
		memcpy(&v, p, 4);
	return v;
}

static inline uint64_t bp_buf_u64(struct bp_buf *b)
{
	const uint8_t *p = bp_buf_take(b, 8);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, 8);
	return v;
}

/** bp_buf_varint() - unsigned LEB128, at most 10 bytes */
static inline uint64_t bp_buf_varint(struct bp_buf *b)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 70; shift += 7) {
		const uint8_t *p = bp_buf_take(b, 1);

		if (!p)
			return 0;
		if (shift < 64)
			v |= (uint64_t)(*p & 0x7f) << shift;
		if (!(*p & 0x80))
			return v;
	}
	b->bad = true;
	b->bad_pos = b->pos;
	return 0;
}

/** bp_buf_err() - BP_EDATA with path and offset if a read ran past the end, else NULL */
static inline BP_MUST_CHECK struct bp_err *bp_buf_err(const struct bp_buf *b, const char *what)
{
	if (!b->bad)
		return NULL;
	return bp_err_data(b->path, b->base + b->bad_pos, "%s ends early or is corrupt", what);
}

#endif
