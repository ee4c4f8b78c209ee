/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes of a trace from a file or a pipe, expanded on the way when they are compressed (gzip, xz, zstd, by
 * their magic). Read in large pieces; a helper thread reads (and expands) ahead of the caller, but see
 * bp_source_read_here().
 */
#ifndef BP_CORE_SOURCE_H
#define BP_CORE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_source;

/* As many bytes behind a piece of bp_source_next_lines() can be read, too; what they are means nothing. */
#define BP_SOURCE_BEHIND 256

/** bp_source_open() - @path: a file, or "-" for standard input */
struct bp_err *bp_source_open(const char *path, struct bp_source **ret) BP_MUST_CHECK;
void bp_source_close(struct bp_source *s);

/**
 * bp_source_read_here() - a file that need not be expanded is read by the caller, not by a thread
 * For callers that do little else with the bytes than look at them, while another thread is at work: what
 * they read is in their processor's cache. Before anything but bp_source_peek().
 */
void bp_source_read_here(struct bp_source *s);

/** bp_source_path() - for error texts: the path, "(standard input)" */
const char *bp_source_path(const struct bp_source *s);

/** bp_source_size() - bytes of the file as stored, 0 for a pipe; for progress together with
 * bp_source_consumed() */
uint64_t bp_source_size(const struct bp_source *s);
uint64_t bp_source_consumed(const struct bp_source *s);

/**
 * bp_source_peek() - at least @want bytes from the current position on (fewer only at the end), without
 * taking them
 * @data: borrowed until the next call; @want at most 1 MiB
 */
struct bp_err *bp_source_peek(struct bp_source *s, size_t want, const uint8_t **data,
			      size_t *len) BP_MUST_CHECK;

/**
 * bp_source_next_lines() - the next piece of the text, ending with the end of a line (or of the input)
 * A line of more than 1 MiB is cut. @data: borrowed until the next call; *len 0 at the end.
 */
struct bp_err *bp_source_next_lines(struct bp_source *s, const char **data, size_t *len) BP_MUST_CHECK;

/** bp_source_read() - up to @cap bytes; *len 0 at the end */
struct bp_err *bp_source_read(struct bp_source *s, void *dst, size_t cap, size_t *len) BP_MUST_CHECK;

/** bp_source_offset() - byte offset (expanded) of what the next call will return */
uint64_t bp_source_offset(const struct bp_source *s);

/** bp_source_is_file() - true for an uncompressed regular file, whose descriptor may be used with pread() */
bool bp_source_is_file(const struct bp_source *s, int *fd);

#endif
