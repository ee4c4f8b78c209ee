// SPDX-License-Identifier: GPL-2.0-or-later
/* Every way to read a source gives the bytes that were put in: files, pipes, packed, cut short. */
#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include "core/source.h"

static char dir[64], file[96];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

struct bytes {
	uint8_t *data;
	size_t len;
};

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Lines of some length, repetitive enough to pack, not ending with a newline. */
static struct bytes make_text(size_t len)
{
	struct bytes b = {malloc(len + 1), len};

	for (size_t i = 0; i < len; i++)
		b.data[i] = rnd() % 60 ? (uint8_t)('a' + rnd() % 4) : '\n';
	return b;
}

static void put(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

/* All of it through bp_source_next_lines(); the error at the end, if any. */
static struct bytes by_lines(struct bp_source *s, struct bp_err **err)
{
	struct bytes got = {NULL, 0};
	volatile uint8_t behind;
	const char *data;
	size_t len;

	for (;;) {
		*err = bp_source_next_lines(s, &data, &len);
		if (*err || !len)
			break;
		assert_true(len <= (2u << 20));
		/* With the sanitizers: these are there. */
		behind = (uint8_t)data[len];
		behind = (uint8_t)data[len + BP_SOURCE_BEHIND - 1];
		(void)behind;
		got.data = realloc(got.data, got.len + len);
		memcpy(got.data + got.len, data, len);
		got.len += len;
		assert_int_equal(bp_source_offset(s), got.len);
	}
	return got;
}

static void same(struct bytes got, struct bytes expect)
{
	assert_int_equal(got.len, expect.len);
	if (got.len)
		assert_memory_equal(got.data, expect.data, got.len);
	free(got.data);
}

static void check_file(const char *path, struct bytes expect)
{
	struct bp_source *s;
	struct bytes got = {malloc(expect.len + 1), 0};
	const uint8_t *data;
	struct bp_err *err;
	size_t len;

	ok(bp_source_open(path, &s));
	same(by_lines(s, &err), expect);
	ok(err);
	ok(bp_source_next_lines(s, (const char **)&data, &len));
	assert_int_equal(len, 0);
	bp_source_close(s);

	ok(bp_source_open(path, &s));
	bp_source_read_here(s);
	same(by_lines(s, &err), expect);
	ok(err);
	bp_source_close(s);

	ok(bp_source_open(path, &s));
	if (rnd() % 2)
		bp_source_read_here(s);
	while (got.len < expect.len) {
		size_t want = rnd() % 70000 * (rnd() % 16);

		if (rnd() % 2) {
			ok(bp_source_peek(s, want, &data, &len));
			assert_true(len >= want || len == expect.len - got.len || want > 1 << 20);
			if (len)
				assert_memory_equal(data, expect.data + got.len, len);
		} else {
			ok(bp_source_read(s, got.data + got.len,
					  want < expect.len - got.len ? want : expect.len - got.len, &len));
			got.len += len;
			assert_int_equal(bp_source_offset(s), got.len);
		}
	}
	ok(bp_source_peek(s, 1, &data, &len));
	assert_int_equal(len, 0);
	ok(bp_source_read(s, &len, 1, &len));
	assert_int_equal(len, 0);
	bp_source_close(s);
	same(got, expect);
}

static const size_t sizes[] = {0, 1, 5, 70, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 7000001};

static void test_plain(void **state)
{
	struct bp_source *s;
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct bytes t = make_text(sizes[i]);

		put(file, t.data, t.len);
		check_file(file, t);
		free(t.data);
	}
	ok(bp_source_open(file, &s));
	assert_true(bp_source_is_file(s, &fd));
	assert_true(fd >= 0);
	assert_int_equal(bp_source_size(s), 7000001);
	assert_string_equal(bp_source_path(s), file);
	bp_source_close(s);
}

/* A line that does not end is cut; one that nearly does not is whole. */
static void test_long_lines(void **state)
{
	struct bytes t = make_text(9 << 20);
	struct bp_source *s;
	const char *data;
	size_t len;

	(void)state;
	for (size_t i = 0; i < t.len; i++)
		t.data[i] = 'x';
	for (size_t i = 100; i < t.len; i += (1 << 20) - 7)
		t.data[i] = '\n';
	put(file, t.data, t.len);
	check_file(file, t);
	ok(bp_source_open(file, &s));
	ok(bp_source_next_lines(s, &data, &len));
	assert_int_equal(data[len - 1], '\n');
	bp_source_close(s);
	for (size_t i = 0; i < t.len; i++)
		t.data[i] = 'x';
	put(file, t.data, t.len);
	check_file(file, t);
	free(t.data);
}

static struct bytes pack_gzip(struct bytes t)
{
	struct bytes p = {malloc(t.len + 1000), 0};
	z_stream z = {
	    .next_in = t.data, .avail_in = (uInt)t.len, .next_out = p.data, .avail_out = (uInt)t.len + 1000};

	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	p.len = z.total_out;
	deflateEnd(&z);
	return p;
}

static struct bytes pack_xz(struct bytes t)
{
	struct bytes p = {malloc(t.len + 1000), 0};

	assert_int_equal(
	    lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, t.data, t.len, p.data, &p.len, t.len + 1000),
	    LZMA_OK);
	return p;
}

static struct bytes pack_zstd(struct bytes t)
{
	struct bytes p = {malloc(t.len + 1000), 0};

	p.len = ZSTD_compress(p.data, t.len + 1000, t.data, t.len, 1);
	assert_false(ZSTD_isError(p.len));
	return p;
}

static struct bytes (*const packers[])(struct bytes) = {pack_gzip, pack_xz, pack_zstd};

static void test_packed(void **state)
{
	struct bp_source *s;
	int fd;

	(void)state;
	for (size_t k = 0; k < 3; k++) {
		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			struct bytes t = make_text(sizes[i]), p = packers[k](t);
			struct bytes t2 = {malloc(2 * t.len + 1), 2 * t.len};

			put(file, p.data, p.len);
			check_file(file, t);
			/* two in a row, as `cat a.gz b.gz` makes */
			p.data = realloc(p.data, 2 * p.len);
			memcpy(p.data + p.len, p.data, p.len);
			memcpy(t2.data, t.data, t.len);
			memcpy(t2.data + t.len, t.data, t.len);
			put(file, p.data, 2 * p.len);
			check_file(file, t2);
			free(t.data);
			free(t2.data);
			free(p.data);
		}
		ok(bp_source_open(file, &s));
		assert_false(bp_source_is_file(s, &fd));
		bp_source_close(s);
	}
}

/* What was valid comes, then the error. */
static void test_truncated(void **state)
{
	struct bytes t = make_text(300000);

	(void)state;
	for (size_t k = 0; k < 3; k++) {
		struct bytes p = packers[k](t);

		for (size_t cut = 6; cut < p.len; cut += p.len / 97 + 1) {
			struct bp_source *s;
			struct bytes got;
			struct bp_err *err;
			const char *data;
			size_t len;

			put(file, p.data, cut);
			ok(bp_source_open(file, &s));
			got = by_lines(s, &err);
			assert_non_null(err);
			assert_int_equal(bp_err_code(err), BP_EDATA);
			assert_non_null(strstr(bp_err_text(err), file));
			assert_non_null(strstr(bp_err_text(err), "offset"));
			bp_err_free(err);
			assert_true(got.len <= t.len);
			assert_memory_equal(got.data ? got.data : t.data, t.data, got.len);
			if (cut > p.len * 9 / 10 && k == 0)
				assert_true(got.len > t.len / 2);
			free(got.data);
			/* once only */
			ok(bp_source_next_lines(s, &data, &len));
			assert_int_equal(len, 0);
			bp_source_close(s);
		}
		free(p.data);
	}
	free(t.data);
}

static void test_damaged(void **state)
{
	struct bytes t = make_text(100000);

	(void)state;
	for (size_t k = 0; k < 3; k++) {
		struct bytes p = packers[k](t);

		for (int i = 0; i < 300; i++) {
			size_t at = 6 + rnd() % (p.len - 6);
			uint8_t bit = (uint8_t)(1 << rnd() % 8);
			struct bp_source *s;
			struct bp_err *err;

			p.data[at] ^= bit;
			put(file, p.data, p.len);
			err = bp_source_open(file, &s);
			if (!err) {
				free(by_lines(s, &err).data);
				bp_source_close(s);
			}
			bp_err_ignore(err);
			p.data[at] ^= bit;
		}
		free(p.data);
	}
	free(t.data);
}

static void *feed(void *arg)
{
	struct bytes *t = arg;
	FILE *f = fopen(file, "wb");
	size_t done = 0;

	while (done < t->len) {
		size_t n = 1 + rnd() % 50000;

		n = n < t->len - done ? n : t->len - done;
		fwrite(t->data + done, 1, n, f);
		fflush(f);
		done += n;
	}
	fclose(f);
	return NULL;
}

static void test_pipe(void **state)
{
	struct bytes t = make_text(3000000), p = pack_zstd(t);
	struct bytes *const inputs[] = {&t, &p};

	(void)state;
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	for (int i = 0; i < 2; i++) {
		struct bp_source *s;
		struct bp_err *err;
		pthread_t thread;
		int fd;

		assert_int_equal(pthread_create(&thread, NULL, feed, inputs[i]), 0);
		ok(bp_source_open(file, &s));
		assert_false(bp_source_is_file(s, &fd));
		assert_int_equal(bp_source_size(s), 0);
		same(by_lines(s, &err), t);
		ok(err);
		assert_int_equal(bp_source_consumed(s), inputs[i]->len);
		bp_source_close(s);
		pthread_join(thread, NULL);
	}
	free(t.data);
	free(p.data);
}

static void *feed_more(void *arg)
{
	struct bytes *t = arg;
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	for (size_t done = 0; done < t->len;) {
		ssize_t n = write(fd, t->data + done, t->len - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	close(fd);
	return NULL;
}

/* Closing does not wait for a pipe that says nothing. */
static void test_close_early(void **state)
{
	struct bytes t = make_text(9 << 20);
	struct bp_source *s;
	const uint8_t *data;
	size_t len;
	int fd;
	pthread_t thread;
	struct bytes more = {t.data, 300000};

	(void)state;
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	fd = open(file, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	ok(bp_source_open(file, &s));
	bp_source_close(s);
	/* the thread has begun and waits for more */
	assert_int_equal(write(fd, t.data, 60000), 60000);
	ok(bp_source_open(file, &s));
	assert_int_equal(pthread_create(&thread, NULL, feed_more, &more), 0);
	ok(bp_source_peek(s, 10, &data, &len));
	pthread_join(thread, NULL);
	bp_source_close(s);
	close(fd);
	unlink(file);
	put(file, t.data, t.len);
	ok(bp_source_open(file, &s));
	ok(bp_source_peek(s, 10, &data, &len));
	bp_source_close(s);
	free(t.data);
}

static void test_errors(void **state)
{
	struct bp_source *s;
	struct bp_err *err = bp_source_open("/nonexistent/x", &s);

	(void)state;
	assert_int_equal(bp_err_code(err), BP_EOS);
	assert_non_null(strstr(bp_err_text(err), "/nonexistent/x"));
	bp_err_free(err);
	err = bp_source_open(dir, &s);
	assert_int_equal(bp_err_code(err), BP_EOS);
	bp_err_free(err);
}

static int cleanup(void **state)
{
	(void)state;
	unlink(file);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_teardown(test_plain, cleanup),
	    cmocka_unit_test_teardown(test_long_lines, cleanup),
	    cmocka_unit_test_teardown(test_packed, cleanup),
	    cmocka_unit_test_teardown(test_truncated, cleanup),
	    cmocka_unit_test_teardown(test_damaged, cleanup),
	    cmocka_unit_test_teardown(test_pipe, cleanup),
	    cmocka_unit_test_teardown(test_close_early, cleanup),
	    cmocka_unit_test_teardown(test_errors, cleanup),
	};
	int failed;

	snprintf(dir, sizeof(dir), "%s/bootprof-source.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof(file), "%s/f", dir);
	failed = cmocka_run_group_tests_name("source", tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
