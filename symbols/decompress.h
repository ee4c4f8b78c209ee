/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decompression from memory to memory, the format told by its magic: what Linux accepts for its own image and
 * for initrds. No state, so any thread may call. The input is untrusted.
 */
#ifndef BP_SYMBOLS_DECOMPRESS_H
#define BP_SYMBOLS_DECOMPRESS_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

/**
 * bp_decompress_name() - the compression whose magic the bytes start with: "gzip", "xz", "zstd", "lz4"
 * (legacy frame), "lzma", and "bzip2", "lzo", "lz4 frame", which are known but not read
 * Returns NULL when it is none of these. Static text.
 */
const char *bp_decompress_name(const void *data, size_t len);

/**
 * bp_decompress() - expand one compressed stream at the start of @data
 * @path, @base: for error texts: the file, and the file offset of @data[0]
 * @max_bytes: limit of the output; more is an error, so that an archive cannot eat all memory
 * @out: owned by the caller, free(); never NULL on success, with at least one byte allocated
 * @out_len: bytes in @out
 * @consumed: input bytes used; what follows (padding, a size, another archive) is not looked at
 *
 * One member of gzip, one stream of xz, one frame of zstd or lz4: call again for the next one.
 *
 * Errors: BP_EUNSUPPORTED when the magic is unknown, or known but not one we can expand (its name is in
 * the text); BP_EDATA with path and offset when the data is corrupt, ends early or exceeds @max_bytes.
 * Sources: RFC 1952 (gzip), RFC 8878 (zstd), "The .xz File Format", lz4_Frame_format.md ("Legacy frame").
 */
struct bp_err *bp_decompress(const void *data, size_t len, const char *path, uint64_t base,
			     uint64_t max_bytes, uint8_t **out, size_t *out_len,
			     size_t *consumed) BP_MUST_CHECK;

#endif
