// SPDX-License-Identifier: GPL-2.0-or-later
/* The two ways in which trace-cmd packs: one zlib stream, or one zstd frame, for each piece. */
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "collectors/ftrace/tracedat_file.h"

struct bp_td_unpacker {
	ZSTD_DCtx *zstd;
};

size_t bp_td_unpack(struct bp_td_unpacker **u, enum bp_td_packing how, const uint8_t *src, size_t n,
		    uint8_t *dst, size_t cap)
{
	uLongf got = cap;
	size_t r;

	if (how == BP_TD_ZLIB)
		return uncompress(dst, &got, src, n) == Z_OK ? got : SIZE_MAX;
	if (how != BP_TD_ZSTD)
		return SIZE_MAX;
	if (!*u)
		*u = calloc(1, sizeof(**u));
	if (!*u)
		return SIZE_MAX;
	if (!(*u)->zstd)
		(*u)->zstd = ZSTD_createDCtx();
	if (!(*u)->zstd)
		return SIZE_MAX;
	r = ZSTD_decompressDCtx((*u)->zstd, dst, cap, src, n);
	return ZSTD_isError(r) ? SIZE_MAX : r;
}

void bp_td_unpacker_destroy(struct bp_td_unpacker *u)
{
	if (!u)
		return;
	ZSTD_freeDCtx(u->zstd);
	free(u);
}

/* Room for more: at most @max in all. False when there can be no more, or no memory. */
static bool grow(uint8_t **buf, size_t *cap, size_t max, bool *no_memory)
{
	size_t want = *cap < max / 2 ? 2 * *cap : max;
	uint8_t *grown;

	if (want == *cap)
		return false;
	grown = realloc(*buf, want);
	if (!grown) {
		*no_memory = true;
		return false;
	}
	*buf = grown;
	*cap = want;
	return true;
}

static bool inflate_all(const uint8_t *src, size_t n, uint8_t **buf, size_t *cap, size_t max, size_t *len,
			bool *no_memory)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)src, .avail_in = (uInt)n};
	int r;

	if (n > UINT32_MAX || inflateInit(&z) != Z_OK)
		return false;
	do {
		if (*len == *cap && !grow(buf, cap, max, no_memory)) {
			r = Z_BUF_ERROR;
			break;
		}
		z.next_out = *buf + *len;
		z.avail_out = (uInt)(*cap - *len);
		r = inflate(&z, Z_NO_FLUSH);
		*len = *cap - z.avail_out;
	} while (r == Z_OK && (z.avail_in || !z.avail_out));
	inflateEnd(&z);
	return r == Z_STREAM_END;
}

static bool zstd_all(const uint8_t *src, size_t n, uint8_t **buf, size_t *cap, size_t max, size_t *len,
		     bool *no_memory)
{
	ZSTD_inBuffer in = {src, n, 0};
	ZSTD_DStream *z = ZSTD_createDStream();
	size_t r = 1;

	if (!z) {
		*no_memory = true;
		return false;
	}
	/* A hostile frame may not ask for a large window. */
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 27);
	for (;;) {
		ZSTD_outBuffer out;

		if (*len == *cap && !grow(buf, cap, max, no_memory))
			break;
		out = (ZSTD_outBuffer){*buf + *len, *cap - *len, 0};
		r = ZSTD_decompressStream(z, &out, &in);
		*len += out.pos;
		if (ZSTD_isError(r) || r == 0 || (in.pos == in.size && out.pos < out.size))
			break;
	}
	ZSTD_freeDStream(z);
	return r == 0;
}

struct bp_err *bp_td_unpack_alloc(enum bp_td_packing how, const uint8_t *src, size_t n, size_t max,
				  uint8_t **ret, size_t *len)
{
	size_t cap = n < max / 4 ? 4 * n + 1024 : max, got = 0;
	bool ok, no_memory = false;
	uint8_t *buf;

	*ret = NULL;
	*len = 0;
	if (cap > max)
		cap = max;
	buf = malloc(cap ? cap : 1);
	if (!buf)
		return bp_err_nomem();
	if (how == BP_TD_ZLIB)
		ok = inflate_all(src, n, &buf, &cap, max, &got, &no_memory);
	else
		ok = how == BP_TD_ZSTD && zstd_all(src, n, &buf, &cap, max, &got, &no_memory);
	if (!ok) {
		free(buf);
		return no_memory ? bp_err_nomem() : NULL;
	}
	*ret = buf;
	*len = got;
	return NULL;
}
