// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/cpio.h"

#include <string.h>

#define MAGIC_BYTES 6
#define HEADER_BYTES 110
#define NAME_MAX_BYTES 4096 /* with the NUL; the kernel skips entries with longer names */

/* The 13 numbers of a header, in their order, eight hex digits each. */
enum field {
	F_INO,
	F_MODE,
	F_UID,
	F_GID,
	F_NLINK,
	F_MTIME,
	F_FILESIZE,
	F_MAJOR,
	F_MINOR,
	F_RMAJOR,
	F_RMINOR,
	F_NAMESIZE,
	F_CHECK,
	F_N
};

bool bp_cpio_is(const void *data, size_t len)
{
	return len >= MAGIC_BYTES &&
	       (!memcmp(data, "070701", MAGIC_BYTES) || !memcmp(data, "070702", MAGIC_BYTES));
}

void bp_cpio_init(struct bp_cpio *c, const void *data, size_t len, const char *path, uint64_t base)
{
	c->buf = bp_buf_make(data, len, path, base);
}

static bool parse_hex8(const uint8_t *p, uint32_t *ret)
{
	uint32_t v = 0;

	for (int i = 0; i < 8; i++) {
		unsigned d;

		if (p[i] >= '0' && p[i] <= '9')
			d = p[i] - '0';
		else if (p[i] >= 'a' && p[i] <= 'f')
			d = p[i] - 'a' + 10;
		else if (p[i] >= 'A' && p[i] <= 'F')
			d = p[i] - 'A' + 10;
		else
			return false;
		v = v << 4 | d;
	}
	*ret = v;
	return true;
}

/* Padding to a multiple of four bytes, counted from the header; less of it at the end of the data is fine. */
static void skip_padding(struct bp_buf *b, size_t start)
{
	size_t pad = -(b->pos - start) & 3;

	if (pad > bp_buf_left(b))
		pad = bp_buf_left(b);
	b->pos += pad;
}

struct bp_err *bp_cpio_next(struct bp_cpio *c, struct bp_cpio_entry *ret, bool *more)
{
	struct bp_buf *b = &c->buf;
	size_t start = b->pos;
	uint64_t offset = b->base + start;
	const uint8_t *header, *name, *data;
	uint32_t f[F_N];

	if (!bp_buf_left(b)) {
		*more = false;
		return NULL;
	}
	header = bp_buf_take(b, HEADER_BYTES);
	if (!header)
		return bp_err_data(b->path, offset, "cpio header cut off after %zu bytes", bp_buf_left(b));
	if (!bp_cpio_is(header, HEADER_BYTES))
		return bp_err_data(b->path, offset, "no cpio header (newc) where the next file should start");
	for (unsigned i = 0; i < F_N; i++) {
		if (!parse_hex8(header + MAGIC_BYTES + 8 * i, &f[i]))
			return bp_err_data(b->path, offset + MAGIC_BYTES + 8 * i,
					   "not a number in a cpio header");
	}
	if (!f[F_NAMESIZE] || f[F_NAMESIZE] > NAME_MAX_BYTES)
		return bp_err_data(b->path, offset, "cpio file name of %u bytes", f[F_NAMESIZE]);
	name = bp_buf_take(b, f[F_NAMESIZE]);
	if (!name)
		return bp_err_data(b->path, offset, "cpio file name cut off");
	if (!memchr(name, '\0', f[F_NAMESIZE]))
		return bp_err_data(b->path, offset + HEADER_BYTES, "cpio file name without end");
	skip_padding(b, start);
	data = bp_buf_take(b, f[F_FILESIZE]);
	if (!data)
		return bp_err_data(b->path, offset, "cpio entry claims %u bytes, %zu are left", f[F_FILESIZE],
				   bp_buf_left(b));
	skip_padding(b, start);
	if (!strcmp((const char *)name, "TRAILER!!!")) {
		*more = false;
		return NULL;
	}
	*ret = (struct bp_cpio_entry){
	    .name = (const char *)name,
	    .data = f[F_FILESIZE] ? data : NULL,
	    .len = f[F_FILESIZE],
	    .offset = offset,
	    .mode = f[F_MODE],
	    .ino = f[F_INO],
	    .nlink = f[F_NLINK],
	    .major = f[F_MAJOR],
	    .minor = f[F_MINOR],
	};
	*more = true;
	return NULL;
}
