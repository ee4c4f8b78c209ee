// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/decompress.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "core/cleanup.h"

#define OUT_MIN_BYTES ((size_t)64 << 10)
#define XZ_MEMORY_BYTES ((uint64_t)192 << 20) /* kernels are packed with dictionaries of up to 128 MiB */
#define LZ4_BLOCK_BYTES ((size_t)8 << 20)     /* every block of a legacy frame but the last expands to this */
#define LZ4_MAX_EXPANSION 255
#define ZSTD_BLOCK_BYTES ((size_t)128 << 10) /* no block expands to more */
#define ZSTD_BLOCK_RATIO 1024                /* input bytes for each, to expand at once */

/* What one decompression works on; @out grows up to @max. */
struct job {
	const uint8_t *in;
	size_t in_len;
	const char *path;
	uint64_t base;
	uint64_t max; /* limit of the caller, and one: a stream may end exactly at the limit */
	uint8_t *out;
	size_t out_len, out_cap;
	size_t consumed;
};

static void job_deinit(struct job *j)
{
	free(j->out);
}

static struct bp_err *job_err(const struct job *j, size_t pos, const char *what)
{
	return bp_err_data(j->path, j->base + pos, "%s", what);
}

static struct bp_err *job_too_big(const struct job *j, size_t pos)
{
	return bp_err_data(j->path, j->base + pos, "compressed data expands to more than %llu bytes",
			   (unsigned long long)(j->max - 1));
}

/* Makes room for at least @want more bytes of output, within the limit; @pos is for the error. */
static struct bp_err *job_reserve(struct job *j, size_t want, size_t pos)
{
	uint64_t cap = j->out_cap;
	uint8_t *p;

	if (j->out_cap - j->out_len >= want)
		return NULL;
	if (want > j->max - j->out_len)
		return job_too_big(j, pos);
	cap = cap * 2 > OUT_MIN_BYTES ? cap * 2 : OUT_MIN_BYTES;
	if (cap < j->out_len + want)
		cap = j->out_len + want;
	if (cap > j->max)
		cap = j->max;
	if (cap > SIZE_MAX)
		return bp_err_nomem();
	p = realloc(j->out, cap);
	if (!p)
		return bp_err_nomem();
	j->out = p;
	j->out_cap = cap;
	return NULL;
}

static void gzip_end(z_stream *s)
{
	inflateEnd(s);
}

static struct bp_err *expand_gzip(struct job *j)
{
	bp_cleanup(gzip_end) z_stream s = {0};
	int rc;

	if (inflateInit2(&s, 15 + 16) != Z_OK)
		return bp_err_nomem();
	do {
		size_t in_left = j->in_len - j->consumed, out_left;
		struct bp_err *err;

		err = job_reserve(j, 1, j->consumed);
		if (err)
			return err;
		out_left = j->out_cap - j->out_len;
		s.next_in = (z_const Bytef *)(j->in + j->consumed);
		s.avail_in = in_left < UINT_MAX ? (uInt)in_left : UINT_MAX;
		s.next_out = j->out + j->out_len;
		s.avail_out = out_left < UINT_MAX ? (uInt)out_left : UINT_MAX;
		rc = inflate(&s, Z_NO_FLUSH);
		j->consumed = (size_t)(s.next_in - j->in);
		j->out_len = (size_t)(s.next_out - j->out);
		if (rc == Z_MEM_ERROR)
			return bp_err_nomem();
		if (rc == Z_BUF_ERROR || (rc == Z_OK && j->consumed == j->in_len && s.avail_out))
			return job_err(j, j->consumed, "gzip data ends early");
		if (rc != Z_OK && rc != Z_STREAM_END)
			return job_err(j, j->consumed, "gzip data is corrupt");
	} while (rc != Z_STREAM_END);
	return NULL;
}

static struct bp_err *expand_lzma(struct job *j, bool is_xz)
{
	bp_cleanup(lzma_end) lzma_stream s = LZMA_STREAM_INIT;
	lzma_ret rc =
	    is_xz ? lzma_stream_decoder(&s, XZ_MEMORY_BYTES, 0) : lzma_alone_decoder(&s, XZ_MEMORY_BYTES);

	if (rc != LZMA_OK)
		return bp_err_nomem();
	s.next_in = j->in;
	s.avail_in = j->in_len;
	do {
		struct bp_err *err = job_reserve(j, 1, j->consumed);

		if (err)
			return err;
		s.next_out = j->out + j->out_len;
		s.avail_out = j->out_cap - j->out_len;
		rc = lzma_code(&s, LZMA_FINISH);
		j->consumed = (size_t)(s.next_in - j->in);
		j->out_len = j->out_cap - s.avail_out;
		switch (rc) {
		case LZMA_OK:
		case LZMA_STREAM_END:
			break;
		case LZMA_MEM_ERROR:
			return bp_err_nomem();
		case LZMA_MEMLIMIT_ERROR:
			return job_err(j, j->consumed, "xz data needs too large a dictionary");
		case LZMA_OPTIONS_ERROR:
			return bp_err_new(BP_EUNSUPPORTED,
					  "%s: xz data uses a filter that liblzma does not know", j->path);
		case LZMA_BUF_ERROR:
			return job_err(j, j->consumed, "xz data ends early");
		default:
			return job_err(j, j->consumed, "xz data is corrupt");
		}
	} while (rc != LZMA_STREAM_END);
	return NULL;
}

static void zstd_free(ZSTD_DCtx **ctx)
{
	ZSTD_freeDCtx(*ctx);
}

/*
 * Walks the blocks of a zstd frame, for its length and for an upper bound of what it expands to: a stream
 * made from a pipe, as those of kernels are, has no content size. False if the frame is not whole.
 */
static bool zstd_measure(const uint8_t *in, size_t len, size_t *frame_len, uint64_t *bound)
{
	static const uint8_t dict_bytes[] = {0, 1, 2, 4}, size_bytes[] = {0, 2, 4, 8};
	bool single, last = false;
	size_t pos = 5;
	uint8_t flags;

	if (len < pos)
		return false;
	flags = in[4];
	single = flags & 0x20;
	pos += !single + dict_bytes[flags & 3];
	pos += flags >> 6 || !single ? size_bytes[flags >> 6] : 1;
	*bound = 0;
	while (!last) {
		uint32_t head, size;

		if (pos > len || len - pos < 3)
			return false;
		head = in[pos] | (uint32_t)in[pos + 1] << 8 | (uint32_t)in[pos + 2] << 16;
		pos += 3;
		last = head & 1;
		size = head >> 3;
		switch (head >> 1 & 3) {
		case 0: /* raw */
			*bound += size;
			break;
		case 1: /* one byte, repeated */
			*bound += size;
			size = 1;
			break;
		case 2: /* compressed */
			*bound += ZSTD_BLOCK_BYTES;
			break;
		default:
			return false;
		}
		if (size > len - pos)
			return false;
		pos += size;
	}
	pos += flags & 4 ? 4 : 0; /* checksum */
	*frame_len = pos;
	return pos <= len;
}

/* At once where that takes no unreasonable buffer: it saves the copy through the window of a stream. */
static struct bp_err *expand_zstd(struct job *j)
{
	bp_cleanup(zstd_free) ZSTD_DCtx *ctx = ZSTD_createDCtx();
	ZSTD_inBuffer in = {.src = j->in, .size = j->in_len};
	uint64_t bound;
	size_t rc;

	if (!ctx)
		return bp_err_nomem();
	if (zstd_measure(j->in, j->in_len, &j->consumed, &bound) && bound && bound <= j->max &&
	    bound / ZSTD_BLOCK_BYTES <= j->in_len / ZSTD_BLOCK_RATIO) {
		struct bp_err *err = job_reserve(j, (size_t)bound, 0);

		if (err)
			return err;
		rc = ZSTD_decompressDCtx(ctx, j->out, j->out_cap, j->in, j->consumed);
		if (ZSTD_isError(rc))
			return job_err(j, 0, "zstd data is corrupt");
		j->out_len = rc;
		return NULL;
	}
	do {
		struct bp_err *err = job_reserve(j, 1, in.pos);
		ZSTD_outBuffer out;

		if (err)
			return err;
		out = (ZSTD_outBuffer){.dst = j->out, .size = j->out_cap, .pos = j->out_len};
		rc = ZSTD_decompressStream(ctx, &out, &in);
		j->out_len = out.pos;
		if (ZSTD_isError(rc))
			return job_err(j, in.pos, "zstd data is corrupt");
		if (rc && in.pos == in.size && out.pos < out.size)
			return job_err(j, in.pos, "zstd data ends early");
	} while (rc);
	j->consumed = in.pos;
	return NULL;
}

static uint32_t le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/*
 * A legacy frame has no end mark: it ends with the input, with a block that expands to less than 8 MiB, or
 * where a block size cannot be one (zero padding, the next archive, the size that follows in a bzImage).
 */
static struct bp_err *expand_lz4(struct job *j)
{
	size_t pos = 4;

	while (j->in_len - pos > 4) {
		uint32_t size = le32(j->in + pos);
		uint64_t room;
		struct bp_err *err;
		int n;

		if (!size || size > (uint32_t)LZ4_COMPRESSBOUND(LZ4_BLOCK_BYTES))
			break;
		if (size > j->in_len - pos - 4)
			return job_err(j, j->in_len, "lz4 data ends early");
		room = (uint64_t)size * LZ4_MAX_EXPANSION;
		if (room > LZ4_BLOCK_BYTES)
			room = LZ4_BLOCK_BYTES;
		if (room > j->max - j->out_len)
			room = j->max - j->out_len;
		err = job_reserve(j, (size_t)room, pos);
		if (err)
			return err;
		n = LZ4_decompress_safe((const char *)j->in + pos + 4, (char *)j->out + j->out_len, (int)size,
					(int)room);
		if (n < 0 && room < LZ4_BLOCK_BYTES && room == j->max - j->out_len)
			return bp_err_data(j->path, j->base + pos,
					   "lz4 data is corrupt or expands to more than %llu bytes",
					   (unsigned long long)(j->max - 1));
		if (n < 0)
			return job_err(j, pos, "lz4 data is corrupt");
		j->out_len += (size_t)n;
		pos += 4 + (size_t)size;
		if ((size_t)n < LZ4_BLOCK_BYTES)
			break;
	}
	if (pos == 4)
		return job_err(j, j->in_len < 8 ? j->in_len : 4, "lz4 data has no block");
	j->consumed = pos;
	return NULL;
}

static struct bp_err *expand_xz(struct job *j)
{
	return expand_lzma(j, true);
}

static struct bp_err *expand_lzma_alone(struct job *j)
{
	return expand_lzma(j, false);
}

/* The magics are those of lib/decompress.c of Linux, and one that people try in vain. */
static const struct format {
	const char *name;
	uint8_t magic[6];
	uint8_t magic_len;
	struct bp_err *(*expand)(struct job *j); /* NULL: known, not read */
} formats[] = {
    {.name = "gzip", .magic = {0x1f, 0x8b}, .magic_len = 2, .expand = expand_gzip},
    {.name = "xz", .magic = {0xfd, '7', 'z', 'X', 'Z', 0}, .magic_len = 6, .expand = expand_xz},
    {.name = "zstd", .magic = {0x28, 0xb5, 0x2f, 0xfd}, .magic_len = 4, .expand = expand_zstd},
    {.name = "lz4", .magic = {0x02, 0x21, 0x4c, 0x18}, .magic_len = 4, .expand = expand_lz4},
    {.name = "lzma", .magic = {0x5d, 0, 0}, .magic_len = 3, .expand = expand_lzma_alone},
    {.name = "bzip2", .magic = {'B', 'Z', 'h'}, .magic_len = 3},
    {.name = "lzo", .magic = {0x89, 'L', 'Z', 'O', 0, 0x0d}, .magic_len = 6},
    {.name = "lz4 frame", .magic = {0x04, 0x22, 0x4d, 0x18}, .magic_len = 4},
};

static const struct format *format_find(const void *data, size_t len)
{
	for (size_t i = 0; i < BP_ARRAY_SIZE(formats); i++)
		if (len >= formats[i].magic_len && !memcmp(data, formats[i].magic, formats[i].magic_len))
			return &formats[i];
	return NULL;
}

const char *bp_decompress_name(const void *data, size_t len)
{
	const struct format *f = format_find(data, len);

	return f ? f->name : NULL;
}

struct bp_err *bp_decompress(const void *data, size_t len, const char *path, uint64_t base,
			     uint64_t max_bytes, uint8_t **out, size_t *out_len, size_t *consumed)
{
	const struct format *f = format_find(data, len);
	bp_cleanup(job_deinit) struct job j = {
	    .in = data,
	    .in_len = len,
	    .path = path,
	    .base = base,
	    .max = max_bytes < UINT64_MAX ? max_bytes + 1 : UINT64_MAX,
	};
	struct bp_err *err;
	uint8_t *fit;

	if (!f)
		return bp_err_new(BP_EUNSUPPORTED, "%s: offset %llu: not a compression that we know", path,
				  (unsigned long long)base);
	if (!f->expand)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s: offset %llu: compressed with %s, which we cannot expand", path,
				  (unsigned long long)base, f->name);
	err = f->expand(&j);
	if (err)
		return err;
	if (j.out_len > max_bytes)
		return job_too_big(&j, 0);
	fit = realloc(j.out, j.out_len ? j.out_len : 1);
	if (!fit)
		return bp_err_nomem();
	j.out = NULL;
	*out = fit;
	*out_len = j.out_len;
	*consumed = j.consumed;
	return NULL;
}
