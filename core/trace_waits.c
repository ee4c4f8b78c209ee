// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The payload of a WAITS chunk: the fields of its records one after the other, all of the first field, then
 * all of the second. Layout: bootprof-trace(5), "Waits". Most fields are 0 in most records, and those that
 * are not repeat, so that zstd makes 4 to 7 bytes of a record of a busy QEMU.
 */
#include "core/trace_format.h"

/* Two bytes, then varints: thread, time, cpu, other, kernel stack, user stack, flags, address, value. */
#define RECORD_BYTES_MAX (2 + 5 + 10 + 3 + 5 + 5 + 5 + 5 + 10 + 10)
_Static_assert((size_t)BP_WAIT_BLOCK *RECORD_BYTES_MAX <= BP_PAYLOAD_MAX, "a block fits into a chunk");

size_t bp_waits_bound(size_t n)
{
	return n * RECORD_BYTES_MAX;
}

static uint8_t *put(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

static uint64_t zigzag(uint64_t v)
{
	return v << 1 ^ (uint64_t)((int64_t)v >> 63);
}

static uint64_t unzigzag(uint64_t v)
{
	return v >> 1 ^ -(v & 1);
}

size_t bp_waits_encode(const struct bp_wait *recs, size_t n, uint8_t *out)
{
	uint64_t time = 0;
	uint8_t *p = out;

	for (size_t i = 0; i < n; i++)
		*p++ = recs[i].kind;
	for (size_t i = 0; i < n; i++)
		*p++ = recs[i].state;
	for (size_t i = 0; i < n; i++)
		p = put(p, recs[i].thread);
	for (size_t i = 0; i < n; i++) {
		p = put(p, zigzag(recs[i].time_ns - time));
		time = recs[i].time_ns;
	}
	for (size_t i = 0; i < n; i++)
		p = put(p, (uint16_t)(recs[i].cpu + 1));
	for (size_t i = 0; i < n; i++)
		p = put(p, recs[i].other);
	for (size_t i = 0; i < n; i++)
		p = put(p, recs[i].kstack);
	for (size_t i = 0; i < n; i++)
		p = put(p, recs[i].ustack);
	for (size_t i = 0; i < n; i++)
		p = put(p, recs[i].flags);
	for (size_t i = 0; i < n; i++)
		p = put(p, recs[i].addr);
	for (size_t i = 0; i < n; i++)
		p = put(p, zigzag((uint64_t)recs[i].value));
	return (size_t)(p - out);
}

/* A number below 2^32. */
static uint32_t take_u32(struct bp_buf *b)
{
	uint64_t v = bp_buf_varint(b);

	if (v > UINT32_MAX && !b->bad) {
		b->bad = true;
		b->bad_pos = b->pos;
	}
	return (uint32_t)v;
}

struct bp_err *bp_waits_decode(struct bp_buf *b, size_t n, struct bp_wait *recs, size_t *ret_n)
{
	const uint8_t *kinds = bp_buf_take(b, n), *states = bp_buf_take(b, n);
	uint64_t time = 0;
	struct bp_err *err;
	size_t kept = 0;

	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i] = (struct bp_wait){.kind = kinds[i], .state = states[i], .thread = take_u32(b)};
	for (size_t i = 0; i < n && !b->bad; i++) {
		time += unzigzag(bp_buf_varint(b));
		recs[i].time_ns = time;
	}
	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i].cpu = (uint16_t)(take_u32(b) - 1);
	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i].other = take_u32(b);
	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i].kstack = take_u32(b);
	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i].ustack = take_u32(b);
	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i].flags = take_u32(b);
	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i].addr = bp_buf_varint(b);
	for (size_t i = 0; i < n && !b->bad; i++)
		recs[i].value = (int64_t)unzigzag(bp_buf_varint(b));
	err = bp_buf_err(b, "block of waits");
	if (err)
		return err;
	if (bp_buf_left(b))
		return bp_err_data(b->path, b->base + b->pos, "block of waits: of odd length");
	/* Kinds of later versions are left out. */
	for (size_t i = 0; i < n; i++) {
		if (recs[i].kind && recs[i].kind < BP_WAIT_KINDS)
			recs[kept++] = recs[i];
	}
	*ret_n = kept;
	return NULL;
}
