/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The recording: one append-only file of chunks, each with its own length, sequence number
 * and checksum. docs/bootprof-trace.5 describes every byte.
 *
 * Writer: one thread. Reader: after bp_trace_open() a trace is immutable; several threads may
 * decode blocks at the same time, each with its own decoder.
 */
#ifndef BP_CORE_TRACE_H
#define BP_CORE_TRACE_H

#include "core/err.h"
#include "core/event.h"

struct bp_trace;
struct bp_trace_writer;
struct bp_decoder;

/* A writer splits nothing: blocks given to it must not be larger than this. */
#define BP_BLOCK_EVENTS 65536
#define BP_BLOCK_FRAMES 262144 /* all stacks of a block together; more is refused with BP_EUNSUPPORTED */

/**
 * bp_trace_writer_create() - start a recording
 * @path: created with O_EXCL|O_NOFOLLOW and mode 0600; an existing regular file is first renamed
 *        to PATH.old; anything else of that name is refused
 * @tick_shift: event times are stored in units of 2^tick_shift ns (0 to 10); rounding never
 *        accumulates
 * Errors: BP_EOS.
 */
struct bp_err *bp_trace_writer_create(const char *path, unsigned tick_shift,
				      struct bp_trace_writer **ret) BP_MUST_CHECK;

/** bp_trace_writer_fact() - append a fact; copied; written with the next chunk of facts */
struct bp_err *bp_trace_writer_fact(struct bp_trace_writer *w, const struct bp_fact *fact) BP_MUST_CHECK;

/** bp_trace_writer_func() - define the next function id (func->id must be the number defined so far) */
struct bp_err *bp_trace_writer_func(struct bp_trace_writer *w, const struct bp_func *func) BP_MUST_CHECK;

/**
 * bp_trace_writer_block() - write a block; the facts and functions given before it are written first
 * Errors of this and the other writing functions: BP_EOS (no space, with the path): the file ends with its
 * last whole chunk, nothing of this call was taken, and the same call may be made again later.
 */
struct bp_err *bp_trace_writer_block(struct bp_trace_writer *w, const struct bp_block *block) BP_MUST_CHECK;

/** bp_trace_writer_fold() - write totals of folded calls; rows of several chunks add up */
struct bp_err *bp_trace_writer_fold(struct bp_trace_writer *w, const struct bp_fold *rows,
				    size_t n) BP_MUST_CHECK;

/** bp_trace_writer_flush() - write out pending facts and functions; a kill then loses nothing given so far */
struct bp_err *bp_trace_writer_flush(struct bp_trace_writer *w) BP_MUST_CHECK;

/** bp_trace_writer_bytes() - size of the file so far */
uint64_t bp_trace_writer_bytes(const struct bp_trace_writer *w);

/** bp_trace_writer_close() - flush, write the end chunk, close; @w is freed also on error */
struct bp_err *bp_trace_writer_close(struct bp_trace_writer *w) BP_MUST_CHECK;

/** bp_trace_writer_destroy() - close without the end chunk, as a kill would; NULL is fine */
void bp_trace_writer_destroy(struct bp_trace_writer *w);

/**
 * bp_trace_writer_discard() - for a recording that never began: remove the file, an earlier one gets its
 * name back; @w is freed; NULL is fine
 */
void bp_trace_writer_discard(struct bp_trace_writer *w);

/* What a damaged or unfinished file lost. */
struct bp_trace_damage {
	bool unfinished;          /* no end chunk */
	uint64_t bad_chunks;      /* wrong checksum (of event blocks: of the header) or senseless */
	uint64_t missing_chunks;  /* gaps in the sequence numbers */
	uint64_t lost_bytes;      /* bytes skipped */
	uint64_t first_bad_offset;
};

/**
 * bp_trace_open() - open a recording: reads all facts, functions and folded totals, and the
 * headers of the event blocks (not their contents)
 * A truncated or damaged file opens with whatever is intact.
 * Errors: BP_EOS (no such file, a directory ...); BP_EDATA (not a recording: path, offset);
 * BP_EUNSUPPORTED (written by a newer version: both versions in the text).
 */
struct bp_err *bp_trace_open(const char *path, struct bp_trace **ret) BP_MUST_CHECK;
void bp_trace_destroy(struct bp_trace *t);

/** bp_trace_is_recording() - whether a file begins as recordings do; false also when it cannot be read */
bool bp_trace_is_recording(const char *path);

const char *bp_trace_path(const struct bp_trace *t);

/** bp_trace_set_path() - the name to use in texts from now on, where the file has none of its own; copied */
struct bp_err *bp_trace_set_path(struct bp_trace *t, const char *path) BP_MUST_CHECK;

uint64_t bp_trace_bytes(const struct bp_trace *t);
const struct bp_trace_damage *bp_trace_damage(const struct bp_trace *t);
const struct bp_fact *bp_trace_facts(const struct bp_trace *t, size_t *count);
const struct bp_func *bp_trace_funcs(const struct bp_trace *t, size_t *count); /* index = id */
const struct bp_fold *bp_trace_folds(const struct bp_trace *t, size_t *count); /* one row per function */

/** bp_trace_info() - value of the last INFO fact with that key, NULL if none; borrowed */
const char *bp_trace_info(const struct bp_trace *t, const char *key);

/** bp_trace_n_blocks() - number of event blocks in file order */
size_t bp_trace_n_blocks(const struct bp_trace *t);

/** bp_trace_block_range() - earliest and latest host time in block @i, from its header */
void bp_trace_block_range(const struct bp_trace *t, size_t i, uint64_t *first_ns, uint64_t *last_ns);

/** bp_trace_block_gap() - true when blocks were lost between block @i - 1 and block @i: a reader must then
 * start from the stacks given in block @i. The same holds when block @i - 1 itself could not be decoded:
 * damage inside a block shows only when it is read. */
bool bp_trace_block_gap(const struct bp_trace *t, size_t i);

struct bp_err *bp_decoder_create(struct bp_decoder **ret) BP_MUST_CHECK;
void bp_decoder_destroy(struct bp_decoder *d);

/**
 * bp_decoder_read() - decode block @i
 * @block: borrowed from @d until its next read. Everything in it is checked: kinds, function ids,
 *         run and frame indices are in range, RET counts are at least 1 and stay within the task's depth.
 * Errors: BP_EDATA (path, offset): the block is damaged; others can still be read.
 */
struct bp_err *bp_decoder_read(struct bp_decoder *d, const struct bp_trace *t, size_t i,
			       struct bp_block *block) BP_MUST_CHECK;

/*
 * Text form of a recording: one item a line, for tests, for people (`bootprof dump`) and for other tools.
 * docs/bootprof-trace.5 has the grammar. Reading what was written gives the same recording.
 */
struct bp_err *bp_trace_text_write(const struct bp_trace *t, int fd) BP_MUST_CHECK;
struct bp_err *bp_trace_text_read(const char *text_path, const char *out_path) BP_MUST_CHECK;

#endif
