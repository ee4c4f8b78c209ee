/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One plain cpio archive in memory ("newc" and its variant with checksums, the two that the kernel unpacks),
 * read entry by entry. The input is untrusted. No state outside the struct; nothing is allocated.
 * Source: Documentation/driver-api/early-userspace/buffer-format.rst.
 */
#ifndef BP_SYMBOLS_CPIO_H
#define BP_SYMBOLS_CPIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/err.h"

struct bp_cpio {
	struct bp_buf buf;
};

struct bp_cpio_entry {
	const char
	    *name; /* NUL-terminated, as in the archive (no leading "/" as a rule); borrowed from the data */
	const uint8_t *data; /* file contents or symlink target; borrowed from the data, NULL if @len is 0 */
	size_t len;
	uint64_t offset;     /* of the entry's header in the file */
	uint32_t mode;       /* as st_mode */
	uint32_t ino, nlink; /* with @major, @minor: entries with equal ones and nlink > 1 are hard links */
	uint32_t major, minor;
};

/** bp_cpio_is() - whether the bytes start with the magic of an archive that bp_cpio_next() reads */
bool bp_cpio_is(const void *data, size_t len);

/** bp_cpio_init() - start reading at @data; @path, @base: for error texts, as in struct bp_buf */
void bp_cpio_init(struct bp_cpio *c, const void *data, size_t len, const char *path, uint64_t base);

/**
 * bp_cpio_next() - the next entry
 * @ret: filled in when *more
 * @more: false after the trailer entry, or when the data ends where an entry would start
 * c->buf.pos then stands behind the archive (behind the trailer's padding, as far as there is any).
 * Errors: BP_EDATA with path and offset; the reader must not be used any more then.
 */
struct bp_err *bp_cpio_next(struct bp_cpio *c, struct bp_cpio_entry *ret, bool *more) BP_MUST_CHECK;

#endif
