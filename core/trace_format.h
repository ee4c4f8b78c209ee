/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the recording, shared by core/trace*.c and by nobody else. docs/bootprof-trace.5 describes the
 * same bytes for people. Everything is little-endian; this code runs on little-endian machines only.
 */
#ifndef BP_CORE_TRACE_FORMAT_H
#define BP_CORE_TRACE_FORMAT_H

#include <sys/types.h>

#include "core/buf.h"
#include "core/err.h"
#include "core/event.h"
#include "core/trace.h"
#include "core/waits.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "recordings are little-endian and are read without swapping"
#endif

#define BP_TRACE_MAGIC \
	"\x89"         \
	"bootprf"
#define BP_TRACE_MAJOR 1
#define BP_TRACE_MINOR 0
#define BP_TRACE_INCOMPAT_KNOWN ((uint64_t)0)

#define BP_MAX_TICK_SHIFT 10

/* The first 64 bytes of the file, in every version. */
struct bp_file_header {
	char magic[8];
	uint16_t major, minor; /* a reader refuses a larger major */
	uint32_t header_bytes; /* the first chunk starts here */
	uint64_t compatible;   /* features that a reader may ignore */
	uint64_t incompatible; /* features that a reader must know */
	uint32_t file_id;      /* random; every chunk repeats it, so guest data cannot pass for a chunk */
	uint32_t tick_shift;
	uint64_t reserved[2];
	uint32_t reserved2;
	uint32_t crc; /* of the bytes before it */
};

#define BP_CHUNK_MAGIC 0x9e43f7b7u

enum bp_chunk_type {
	BP_CHUNK_FACTS = 1,
	BP_CHUNK_FUNCS,
	BP_CHUNK_EVENTS,
	BP_CHUNK_FOLDS,
	BP_CHUNK_END,
	BP_CHUNK_WAITS,
	BP_CHUNK_HOST_FRAMES,
	BP_CHUNK_HOST_STACKS,
};

#define BP_CHUNK_ZSTD 1u /* the payload is one zstd frame */

struct bp_chunk_header {
	uint32_t magic;
	uint32_t file_id;
	uint16_t type, flags;
	uint32_t stored_bytes;      /* of the payload in the file */
	uint32_t raw_bytes;         /* of the payload expanded */
	uint32_t items;             /* facts, functions, events, rows in it */
	uint64_t sequence;          /* 0, 1, 2 ... through the file */
	uint64_t first_ns, last_ns; /* host times covered; 0 and 0 where there is no time */
	uint32_t n_funcs;           /* functions defined by the chunks before this one */
	uint32_t n_blocks;          /* EVENTS chunks before this one: tells whether any of them were lost */
	uint32_t payload_crc;       /* of the stored bytes */
	uint32_t crc;               /* of the header before it */
};

_Static_assert(sizeof(struct bp_file_header) == 64, "file header");
_Static_assert(sizeof(struct bp_chunk_header) == 64, "chunk header");

/* Payload limits. A reader refuses larger ones before it allocates anything. */
#define BP_PAYLOAD_MAX (4u << 20)         /* expanded, all types but EVENTS */
#define BP_EVENTS_PAYLOAD_MAX (16u << 20) /* as stored, and the sum of its expanded columns */
/* Of facts and functions, expanded over stored: bounds the memory that a small hostile file can ask for. */
#define BP_RATIO_MAX 64

/* Longest string in a fact or function; longer ones are cut by the writer. */
#define BP_STRING_MAX (1u << 20)

/* Ids are dense, so this also bounds what a gap in the definitions can make a reader allocate. */
#define BP_FUNCS_MAX (1u << 24)
#define BP_LOST_FUNCS_MAX (1u << 20)

/* ---- trace_events.c: the payload of an EVENTS chunk ---- */

struct bp_events_encoder;
struct bp_events_decoder;

struct bp_err *bp_events_encoder_create(unsigned tick_shift, struct bp_events_encoder **ret) BP_MUST_CHECK;
void bp_events_encoder_destroy(struct bp_events_encoder *enc);

/** bp_events_n_frames() - frames that the runs of @block refer to */
size_t bp_events_n_frames(const struct bp_block *block);

/** bp_events_bound() - most bytes that the payload of @block can take */
size_t bp_events_bound(const struct bp_block *block);

/**
 * bp_events_encode() - write the payload of @block to @out, which has bp_events_bound() bytes
 * @first_ns, @last_ns: earliest and latest host time in the block
 */
struct bp_err *bp_events_encode(struct bp_events_encoder *enc, const struct bp_block *block, uint8_t *out,
				size_t *ret_len, uint64_t *first_ns, uint64_t *last_ns) BP_MUST_CHECK;

struct bp_err *bp_events_decoder_create(struct bp_events_decoder **ret) BP_MUST_CHECK;
void bp_events_decoder_destroy(struct bp_events_decoder *dec);

/**
 * bp_events_decode() - the block in a payload; see bp_decoder_read()
 * @b: the payload; its path and base go into errors
 * @n_funcs: function ids must be below
 * @block: borrowed from @dec until its next use
 */
struct bp_err *bp_events_decode(struct bp_events_decoder *dec, struct bp_buf *b, uint64_t n_funcs,
				struct bp_block *block) BP_MUST_CHECK;

/* ---- trace_waits.c: the payload of a WAITS chunk ---- */

/** bp_waits_bound() - most bytes that the payload of @n records can take; below BP_PAYLOAD_MAX for a block */
size_t bp_waits_bound(size_t n);

/** bp_waits_encode() - write the payload of @recs to @out, which has bp_waits_bound() bytes; returns its length */
size_t bp_waits_encode(const struct bp_wait *recs, size_t n, uint8_t *out);

/**
 * bp_waits_decode() - the records in an expanded payload; those of unknown kinds are left out
 * @n: at most BP_WAIT_BLOCK
 * @recs: room for @n
 */
struct bp_err *bp_waits_decode(struct bp_buf *b, size_t n, struct bp_wait *recs, size_t *ret_n) BP_MUST_CHECK;

/* ---- trace_read.c, trace_write.c: for the text form ---- */

/** bp_trace_tick_shift() - from the file header (0 if that is damaged) */
unsigned bp_trace_tick_shift(const struct bp_trace *t);

/** bp_trace_writer_skip() - as if a chunk with a block was lost here */
void bp_trace_writer_skip(struct bp_trace_writer *w);

#endif
