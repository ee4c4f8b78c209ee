// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "core/cleanup.h"
#include "symbols/decompress.h"

#define PLAIN_BYTES 3000
#define PACKED_BYTES 8192

static uint8_t plain[PLAIN_BYTES];

static size_t pack_gzip(uint8_t *out, size_t cap)
{
	z_stream s = {0};
	size_t n;

	if (deflateInit2(&s, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	s.next_in = plain;
	s.avail_in = sizeof(plain);
	s.next_out = out;
	s.avail_out = (uInt)cap;
	n = deflate(&s, Z_FINISH) == Z_STREAM_END ? s.total_out : 0;
	deflateEnd(&s);
	return n;
}

static size_t pack_xz(uint8_t *out, size_t cap)
{
	size_t n = 0;

	return lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, plain, sizeof(plain), out, &n, cap) ? 0 : n;
}

static size_t pack_lzma(uint8_t *out, size_t cap)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_options_lzma opt;
	size_t n;

	if (lzma_lzma_preset(&opt, 0) || lzma_alone_encoder(&s, &opt))
		return 0;
	s.next_in = plain;
	s.avail_in = sizeof(plain);
	s.next_out = out;
	s.avail_out = cap;
	n = lzma_code(&s, LZMA_FINISH) == LZMA_STREAM_END ? s.total_out : 0;
	lzma_end(&s);
	return n;
}

/* As kernels are packed: from a pipe, so without the size; and with the checksum that zstd(1) adds. */
static size_t pack_zstd(uint8_t *out, size_t cap)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	ZSTD_inBuffer in = {plain, sizeof(plain), 0};
	ZSTD_outBuffer ob = {out, cap, 0};

	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
	ZSTD_compressStream2(c, &ob, &in, ZSTD_e_flush);
	ZSTD_compressStream2(c, &ob, &in, ZSTD_e_end);
	ZSTD_freeCCtx(c);
	return ob.pos;
}

static size_t pack_zstd_sized(uint8_t *out, size_t cap)
{
	return ZSTD_compress(out, cap, plain, sizeof(plain), 3);
}

static size_t pack_lz4(uint8_t *out, size_t cap)
{
	int n = LZ4_compress_default((const char *)plain, (char *)out + 8, sizeof(plain), (int)cap - 8);
	uint32_t head[2] = {0x184c2102, (uint32_t)n};

	memcpy(out, head, sizeof(head));
	return (size_t)n + 8;
}

static const struct packer {
	const char *name;
	size_t (*pack)(uint8_t *out, size_t cap);
	bool is_checked; /* the format has a checksum: damage cannot go unnoticed */
} packers[] = {
    {"gzip", pack_gzip, true},        {"xz", pack_xz, true},
    {"lzma", pack_lzma, false},       {"zstd", pack_zstd, true},
    {"zstd", pack_zstd_sized, false}, {"lz4", pack_lz4, false},
};

static int setup(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = i % 97 < 40 ? (uint8_t)(i * i >> 3) : 'a';
	return 0;
}

static void test_roundtrip(void **state)
{
	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(packers); i++) {
		uint8_t packed[PACKED_BYTES] = {0};
		size_t n = packers[i].pack(packed, sizeof(packed) - 16);

		assert_true(n > 0);
		assert_string_equal(bp_decompress_name(packed, n), packers[i].name);
		/* Alone, and with zeros and other things behind it. */
		for (size_t tail = 0; tail <= 16; tail += 8) {
			bp_autofree uint8_t *out = NULL;
			size_t len, used;
			struct bp_err *err;

			if (tail == 16)
				memcpy(packed + n, "070701tailtail..", 16);
			err = bp_decompress(packed, n + tail, "f", 0, PLAIN_BYTES, &out, &len, &used);
			if (err)
				fail_msg("%s: %s", packers[i].name, bp_err_text(err));
			assert_int_equal(len, sizeof(plain));
			assert_memory_equal(out, plain, sizeof(plain));
			assert_int_equal(used, n);
		}
	}
}

static void test_limit(void **state)
{
	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(packers); i++) {
		uint8_t packed[PACKED_BYTES], *out;
		size_t n = packers[i].pack(packed, sizeof(packed)), len, used;

		for (uint64_t max = 0; max < PLAIN_BYTES; max += PLAIN_BYTES - 1) {
			struct bp_err *err = bp_decompress(packed, n, "f", 0, max, &out, &len, &used);

			assert_non_null(err);
			assert_int_equal(bp_err_code(err), BP_EDATA);
			assert_non_null(strstr(bp_err_text(err), "more than"));
			bp_err_free(err);
		}
	}
}

static void test_truncation(void **state)
{
	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(packers); i++) {
		uint8_t packed[PACKED_BYTES], *out;
		size_t n = packers[i].pack(packed, sizeof(packed)), len, used;

		for (size_t cut = 0; cut < n; cut++) {
			bp_autofree uint8_t *copy = malloc(cut ? cut : 1);
			struct bp_err *err;

			memcpy(copy, packed, cut);
			err = bp_decompress(copy, cut, "some-file", 100, 1 << 20, &out, &len, &used);
			if (!err)
				fail_msg("%s cut at %zu of %zu", packers[i].name, cut, n);
			assert_non_null(strstr(bp_err_text(err), "some-file: offset "));
			assert_int_equal(bp_err_code(err),
					 bp_decompress_name(copy, cut) ? BP_EDATA : BP_EUNSUPPORTED);
			bp_err_free(err);
		}
	}
}

static void test_bit_flips(void **state)
{
	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(packers); i++) {
		uint8_t packed[PACKED_BYTES];
		size_t n = packers[i].pack(packed, sizeof(packed));

		for (size_t bit = 0; bit < 8 * n; bit += 11) {
			bp_autofree uint8_t *out = NULL;
			struct bp_err *err;
			size_t len, used;

			packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
			err = bp_decompress(packed, n, "f", 0, 1 << 20, &out, &len, &used);
			if (!err && packers[i].is_checked)
				assert_memory_equal(out, plain, sizeof(plain));
			bp_err_free(err);
			packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
}

/* A legacy frame has 8 MiB to a block; another frame may follow, and is left for the next call. */
static void test_lz4_blocks(void **state)
{
	size_t size = ((size_t)8 << 20) + 1000, cap = (size_t)LZ4_compressBound(8 << 20) + 4096, pos = 4;
	bp_autofree char *in = calloc(1, size), *packed = malloc(cap);
	bp_autofree uint8_t *out = NULL;
	size_t len, used;
	struct bp_err *err;

	(void)state;
	in[size - 1] = 'x';
	memcpy(packed, "\x02\x21\x4c\x18", 4);
	for (size_t done = 0; done < size;) {
		int block = size - done < (size_t)8 << 20 ? (int)(size - done) : 8 << 20;
		int n = LZ4_compress_default(in + done, packed + pos + 4, block, (int)(cap - pos - 4));

		memcpy(packed + pos, &n, 4);
		pos += 4 + (size_t)n;
		done += (size_t)block;
	}
	memcpy(packed + pos, "\x02\x21\x4c\x18", 4);
	err = bp_decompress(packed, pos + 4, "f", 0, 16 << 20, &out, &len, &used);
	if (err)
		fail_msg("%s", bp_err_text(err));
	assert_int_equal(len, size);
	assert_int_equal(used, pos);
	assert_memory_equal(out, in, size);
}

static void test_unsupported(void **state)
{
	static const struct {
		const char *data;
		size_t len;
		const char *text;
	} inputs[] = {
	    {"", 0, "not a compression"},      {"hello", 5, "not a compression"},   {"BZh9", 4, "bzip2"},
	    {"\x89LZO\0\r\n\x1a\n", 9, "lzo"}, {"\x04\"M\x18....", 8, "lz4 frame"},
	};
	uint8_t *out;
	size_t len, used;

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(inputs); i++) {
		struct bp_err *err =
		    bp_decompress(inputs[i].data, inputs[i].len, "file", 512, 1000, &out, &len, &used);

		assert_int_equal(bp_err_code(err), BP_EUNSUPPORTED);
		assert_non_null(strstr(bp_err_text(err), inputs[i].text));
		assert_non_null(strstr(bp_err_text(err), "offset 512"));
		bp_err_free(err);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_roundtrip),  cmocka_unit_test(test_limit),
	    cmocka_unit_test(test_truncation), cmocka_unit_test(test_bit_flips),
	    cmocka_unit_test(test_lz4_blocks), cmocka_unit_test(test_unsupported),
	};

	return cmocka_run_group_tests_name("decompress", tests, setup, NULL);
}
