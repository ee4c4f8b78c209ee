// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE /* memrchr() */
#include "core/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lzma.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "core/cleanup.h"

/*
 * Pieces of PIECE bytes go round between the reading thread and the caller. In front of each piece is room
 * for what the caller has not taken of the one before, so that nothing but the start of a line is ever
 * copied. Pieces small enough that all stay in a processor's cache: 256 KiB pass at 8 GB/s where 1 MiB pass
 * at 4.8.
 */
#define PIECE (256u << 10)
#define ROOM (1u << 20)
#define N_PIECES 4
#define RAW_BYTES (256u << 10)

/* What an xz or zstd file may ask for; the strongest usual settings need 65 and 128 MB. */
#define XZ_MEMORY (130u << 20)
#define ZSTD_WINDOW_LOG 27

enum packing { PLAIN, GZIP, XZ, ZSTD };

struct piece {
	uint8_t *mem; /* ROOM + PIECE + BP_SOURCE_BEHIND */
	size_t len;   /* bytes in it, from ROOM on */
	bool last;
};

struct bp_source {
	char *path;
	int fd, wake; /* wake: an eventfd that ends the waiting of the thread */
	bool regular, started, at_start;
	uint64_t size;
	enum packing packing;

	/* the thread */
	pthread_t thread;
	uint8_t *raw; /* stored bytes that are not expanded yet */
	size_t raw_pos, raw_len;
	uint64_t raw_offset; /* of raw[raw_len] in the file */
	z_stream gz;
	lzma_stream xz;
	ZSTD_DStream *zstd;
	bool in_stream; /* inside a gzip member, xz stream or zstd frame */
	bool raw_end;
	atomic_uint_least64_t consumed;

	/* between the two, under the lock */
	pthread_mutex_t lock;
	pthread_cond_t filled, emptied; /* for the caller, for the thread */
	unsigned first;                 /* piece that the thread begins with */
	unsigned n_full;
	bool stop;
	struct bp_err *err; /* comes after the last piece */

	/* the caller */
	struct piece pieces[N_PIECES];
	unsigned at;     /* piece that the caller reads */
	bool have;       /* it has one */
	bool here;       /* it reads them, too */
	size_t pos, end; /* in its memory */
	uint64_t offset;
	bool finished;
};

const char *bp_source_path(const struct bp_source *s)
{
	return s->path;
}

uint64_t bp_source_size(const struct bp_source *s)
{
	return s->size;
}

uint64_t bp_source_consumed(const struct bp_source *s)
{
	return atomic_load_explicit(&s->consumed, memory_order_relaxed);
}

uint64_t bp_source_offset(const struct bp_source *s)
{
	return s->offset;
}

bool bp_source_is_file(const struct bp_source *s, int *fd)
{
	if (!s->regular || !s->at_start || s->packing != PLAIN)
		return false;
	*fd = s->fd;
	return true;
}

/* ---- the reading thread ---- */

/* Up to @cap stored bytes; 0 at the end, or when the source is being closed. */
static BP_MUST_CHECK struct bp_err *read_some(struct bp_source *s, void *dst, size_t cap, size_t *len)
{
	for (;;) {
		ssize_t n;

		if (!s->regular) {
			struct pollfd p[2] = {{.fd = s->fd, .events = POLLIN},
					      {.fd = s->wake, .events = POLLIN}};

			if (poll(p, 2, -1) < 0 && errno != EINTR)
				return bp_err_os(errno, "%s: cannot wait", s->path);
			if (p[1].revents) {
				*len = 0;
				return NULL;
			}
			if (!p[0].revents)
				continue;
		}
		n = read(s->fd, dst, cap);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return bp_err_os(errno, "%s: cannot read at offset %" PRIu64, s->path, s->raw_offset);
		*len = (size_t)n;
		s->raw_offset += (uint64_t)n;
		atomic_store_explicit(&s->consumed, s->raw_offset, memory_order_relaxed);
		return NULL;
	}
}

/* More stored bytes behind those that are left; raw_end when there are none. */
static BP_MUST_CHECK struct bp_err *fill_raw(struct bp_source *s)
{
	struct bp_err *err;
	size_t n;

	if (s->raw_pos) {
		memmove(s->raw, s->raw + s->raw_pos, s->raw_len - s->raw_pos);
		s->raw_len -= s->raw_pos;
		s->raw_pos = 0;
	}
	if (s->raw_end || s->raw_len == RAW_BYTES)
		return NULL;
	err = read_some(s, s->raw + s->raw_len, RAW_BYTES - s->raw_len, &n);
	if (err)
		return err;
	s->raw_len += n;
	s->raw_end = !n;
	return NULL;
}

static struct bp_err *packed_err(const struct bp_source *s, const char *what)
{
	return bp_err_data(s->path, s->raw_offset - (s->raw_len - s->raw_pos), "%s", what);
}

static BP_MUST_CHECK struct bp_err *expand_gzip(struct bp_source *s, uint8_t *dst, size_t cap, size_t *len)
{
	int ret;

	s->gz.next_in = s->raw + s->raw_pos;
	s->gz.avail_in = (uInt)(s->raw_len - s->raw_pos);
	s->gz.next_out = dst;
	s->gz.avail_out = (uInt)cap;
	ret = inflate(&s->gz, Z_NO_FLUSH);
	s->raw_pos = s->raw_len - s->gz.avail_in;
	*len = cap - s->gz.avail_out;
	s->in_stream = true;
	if (ret == Z_STREAM_END) {
		s->in_stream = false;
		if (inflateReset(&s->gz) != Z_OK)
			return packed_err(s, "gzip data cannot be read");
		return NULL;
	}
	if (ret == Z_MEM_ERROR)
		return bp_err_nomem();
	if (ret != Z_OK && ret != Z_BUF_ERROR)
		return packed_err(s, "gzip data is damaged");
	return NULL;
}

static BP_MUST_CHECK struct bp_err *expand_xz(struct bp_source *s, uint8_t *dst, size_t cap, size_t *len)
{
	lzma_ret ret;

	s->xz.next_in = s->raw + s->raw_pos;
	s->xz.avail_in = s->raw_len - s->raw_pos;
	s->xz.next_out = dst;
	s->xz.avail_out = cap;
	ret = lzma_code(&s->xz, s->raw_end ? LZMA_FINISH : LZMA_RUN);
	s->raw_pos = s->raw_len - s->xz.avail_in;
	*len = cap - s->xz.avail_out;
	s->in_stream = ret != LZMA_STREAM_END;
	switch (ret) {
	case LZMA_OK:
	case LZMA_BUF_ERROR:
		return NULL;
	case LZMA_STREAM_END:
		s->raw_pos = s->raw_len;
		s->raw_end = true;
		return NULL;
	case LZMA_MEM_ERROR:
		return bp_err_nomem();
	case LZMA_MEMLIMIT_ERROR:
		return bp_err_new(BP_EUNSUPPORTED, "%s: xz data that needs more than %u MB to expand",
				  s->path, XZ_MEMORY >> 20);
	default:
		return packed_err(s, "xz data is damaged");
	}
}

static BP_MUST_CHECK struct bp_err *expand_zstd(struct bp_source *s, uint8_t *dst, size_t cap, size_t *len)
{
	ZSTD_inBuffer in = {s->raw, s->raw_len, s->raw_pos};
	ZSTD_outBuffer out = {dst, cap, 0};
	size_t ret = ZSTD_decompressStream(s->zstd, &out, &in);

	s->raw_pos = in.pos;
	*len = out.pos;
	s->in_stream = ret != 0;
	if (ZSTD_isError(ret))
		return packed_err(s, ZSTD_getErrorName(ret));
	return NULL;
}

/* Up to @cap bytes of the text; 0 at the end. */
static BP_MUST_CHECK struct bp_err *expand(struct bp_source *s, uint8_t *dst, size_t cap, size_t *len)
{
	for (;;) {
		size_t before, left;
		struct bp_err *err;

		if (s->packing == PLAIN) {
			if (s->raw_pos == s->raw_len)
				return s->raw_end ? (*len = 0, NULL) : read_some(s, dst, cap, len);
			*len = s->raw_len - s->raw_pos < cap ? s->raw_len - s->raw_pos : cap;
			memcpy(dst, s->raw + s->raw_pos, *len);
			s->raw_pos += *len;
			return NULL;
		}
		if (s->raw_pos == s->raw_len) {
			err = fill_raw(s);
			if (err)
				return err;
		}
		if (s->raw_pos == s->raw_len && !s->in_stream) {
			*len = 0;
			return NULL;
		}
		before = s->raw_pos;
		*len = 0;
		err = s->packing == GZIP ? expand_gzip(s, dst, cap, len)
		      : s->packing == XZ ? expand_xz(s, dst, cap, len)
					 : expand_zstd(s, dst, cap, len);
		if (err || *len)
			return err;
		if (s->raw_pos != before)
			continue;
		/* Nothing taken, nothing given: it wants more. */
		if (s->raw_end)
			return s->in_stream ? packed_err(s, "compressed data ends early") : NULL;
		left = s->raw_len - s->raw_pos;
		err = fill_raw(s);
		if (err)
			return err;
		if (s->raw_len == left && !s->raw_end)
			return packed_err(s, "compressed data makes no sense");
	}
}

static BP_MUST_CHECK struct bp_err *find_packing(struct bp_source *s)
{
	static const lzma_stream none = LZMA_STREAM_INIT;
	struct bp_err *err = NULL;

	while (s->raw_len < 6 && !s->raw_end) {
		err = fill_raw(s);
		if (err)
			return err;
	}
	if (s->raw_len >= 3 && !memcmp(s->raw, "\x1f\x8b\x08", 3)) {
		if (inflateInit2(&s->gz, 15 + 16) != Z_OK)
			return bp_err_nomem();
		s->packing = GZIP;
	} else if (s->raw_len >= 6 && !memcmp(s->raw,
					      "\xfd"
					      "7zXZ",
					      6)) {
		s->xz = none;
		if (lzma_stream_decoder(&s->xz, XZ_MEMORY, LZMA_CONCATENATED) != LZMA_OK)
			return bp_err_nomem();
		s->packing = XZ;
	} else if (s->raw_len >= 4 && !memcmp(s->raw, "\x28\xb5\x2f\xfd", 4)) {
		s->zstd = ZSTD_createDStream();
		if (!s->zstd)
			return bp_err_nomem();
		if (ZSTD_isError(ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG)))
			return bp_err_nomem();
		s->packing = ZSTD;
	}
	return NULL;
}

static BP_MUST_CHECK struct bp_err *fill_piece(struct bp_source *s, struct piece *p)
{
	struct bp_err *err = NULL;

	p->len = 0;
	p->last = false;
	while (p->len < PIECE && !p->last) {
		size_t n = 0;

		err = expand(s, p->mem + ROOM + p->len, PIECE - p->len, &n);
		p->len += n;
		p->last = err || !n;
	}
	return err;
}

static void *reader_main(void *arg)
{
	struct bp_source *s = arg;
	bool end = false;

	for (unsigned at = s->first; !end; at = (at + 1) % N_PIECES) {
		struct bp_err *err;
		bool stop;

		pthread_mutex_lock(&s->lock);
		/* Woken when there is more to do than one piece: not to be woken for each. */
		if (s->n_full == N_PIECES) {
			while (s->n_full > N_PIECES / 2 && !s->stop)
				pthread_cond_wait(&s->emptied, &s->lock);
		}
		stop = s->stop;
		pthread_mutex_unlock(&s->lock);
		if (stop)
			break;
		err = fill_piece(s, &s->pieces[at]);
		end = s->pieces[at].last;
		pthread_mutex_lock(&s->lock);
		s->err = err;
		s->n_full++;
		pthread_mutex_unlock(&s->lock);
		pthread_cond_signal(&s->filled);
	}
	return NULL;
}

/* ---- the caller ---- */

void bp_source_close(struct bp_source *s)
{
	if (!s)
		return;
	if (s->started) {
		uint64_t one = 1;

		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_signal(&s->emptied);
		pthread_mutex_unlock(&s->lock);
		if (write(s->wake, &one, sizeof(one)) == (ssize_t)sizeof(one))
			pthread_join(s->thread, NULL);
	}
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->filled);
	pthread_cond_destroy(&s->emptied);
	if (s->packing == GZIP)
		inflateEnd(&s->gz);
	else if (s->packing == XZ)
		lzma_end(&s->xz);
	ZSTD_freeDStream(s->zstd);
	bp_err_free(s->err);
	for (size_t i = 0; i < N_PIECES; i++)
		free(s->pieces[i].mem);
	if (s->fd > STDERR_FILENO)
		close(s->fd);
	if (s->wake >= 0)
		close(s->wake);
	free(s->raw);
	free(s->path);
	free(s);
}

static void source_closep(struct bp_source **s)
{
	bp_source_close(*s);
}

struct bp_err *bp_source_open(const char *path, struct bp_source **ret)
{
	bp_cleanup(source_closep) struct bp_source *s = calloc(1, sizeof(*s));
	bool is_stdin = !strcmp(path, "-");
	struct bp_err *err;
	struct stat st;

	if (!s)
		return bp_err_nomem();
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->filled, NULL);
	pthread_cond_init(&s->emptied, NULL);
	s->fd = s->wake = -1;
	s->path = strdup(is_stdin ? "(standard input)" : path);
	s->raw = malloc(RAW_BYTES);
	if (!s->path || !s->raw)
		return bp_err_nomem();
	for (size_t i = 0; i < N_PIECES; i++) {
		s->pieces[i].mem = calloc(1, ROOM + PIECE + BP_SOURCE_BEHIND);
		if (!s->pieces[i].mem)
			return bp_err_nomem();
	}
	s->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (s->fd < 0 || fstat(s->fd, &st))
		return bp_err_os(errno, "%s: cannot open", s->path);
	if (S_ISDIR(st.st_mode))
		return bp_err_os(EISDIR, "%s: cannot read", s->path);
	s->wake = eventfd(0, EFD_CLOEXEC);
	if (s->wake < 0)
		return bp_err_os(errno, "%s: eventfd", s->path);
	/* Files without a size (trace_pipe) may have to be waited for, as pipes. */
	s->regular = S_ISREG(st.st_mode) && st.st_size;
	if (s->regular) {
		off_t here = lseek(s->fd, 0, SEEK_CUR);

		s->at_start = here == 0;
		s->size = st.st_size > here ? (uint64_t)(st.st_size - here) : 0;
		posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
		err = find_packing(s);
		if (err)
			return err;
	}
	*ret = bp_steal(s);
	return NULL;
}

void bp_source_read_here(struct bp_source *s)
{
	s->here = true;
}

static BP_MUST_CHECK struct bp_err *start(struct bp_source *s)
{
	struct bp_err *err;
	int ret;

	/* A pipe may have nothing to say for a while: not looked at before somebody asks. */
	if (!s->regular) {
		err = find_packing(s);
		if (err)
			return err;
	}
	s->first = s->have ? (s->at + 1) % N_PIECES : 0;
	s->n_full = s->have;
	ret = pthread_create(&s->thread, NULL, reader_main, s);
	if (ret)
		return bp_err_os(ret, "%s: no thread to read with", s->path);
	s->started = true;
	return NULL;
}

/*
 * The next piece, with what is left of this one in front of it (at most ROOM bytes). Nothing changes at the
 * end, where `finished` is set; an error of reading comes once, when everything before it was taken.
 */
static BP_MUST_CHECK struct bp_err *advance(struct bp_source *s)
{
	size_t left = s->end - s->pos;
	struct piece *next;

	if (s->finished)
		return NULL;
	/* Whoever looks at the beginning has not yet said who is to read the rest. */
	if (!s->started && !(s->regular && s->packing == PLAIN && (s->here || !s->have))) {
		struct bp_err *err = start(s);

		if (err) {
			s->finished = true;
			return err;
		}
	}
	if (s->have && s->pieces[s->at].last) {
		s->finished = true;
		return NULL;
	}
	next = &s->pieces[s->have ? (s->at + 1) % N_PIECES : 0];
	if (s->started) {
		pthread_mutex_lock(&s->lock);
		while (s->n_full <= (unsigned)s->have)
			pthread_cond_wait(&s->filled, &s->lock);
		pthread_mutex_unlock(&s->lock);
	} else {
		s->err = fill_piece(s, next);
	}
	if (left)
		memcpy(next->mem + ROOM - left, s->pieces[s->at].mem + s->pos, left);
	if (s->started && s->have) {
		bool wake;

		pthread_mutex_lock(&s->lock);
		wake = --s->n_full <= N_PIECES / 2;
		pthread_mutex_unlock(&s->lock);
		if (wake)
			pthread_cond_signal(&s->emptied);
	}
	s->at = (unsigned)(next - s->pieces);
	s->have = true;
	s->pos = ROOM - left;
	s->end = ROOM + next->len;
	return NULL;
}

/* The error of the thread, once, when everything was taken. */
static BP_MUST_CHECK struct bp_err *late_error(struct bp_source *s)
{
	struct bp_err *err;

	if (!s->finished || s->pos != s->end)
		return NULL;
	pthread_mutex_lock(&s->lock);
	err = bp_steal(s->err);
	pthread_mutex_unlock(&s->lock);
	return err;
}

struct bp_err *bp_source_peek(struct bp_source *s, size_t want, const uint8_t **data, size_t *len)
{
	if (want > ROOM)
		want = ROOM;
	while (s->end - s->pos < want && !s->finished) {
		struct bp_err *err = advance(s);

		if (err)
			return err;
	}
	if (want) {
		struct bp_err *err = late_error(s);

		if (err)
			return err;
	}
	*data = s->have ? s->pieces[s->at].mem + s->pos : s->raw;
	*len = s->end - s->pos;
	return NULL;
}

struct bp_err *bp_source_next_lines(struct bp_source *s, const char **data, size_t *len)
{
	struct bp_err *err;

	for (;;) {
		const uint8_t *start = s->have ? s->pieces[s->at].mem + s->pos : NULL;
		size_t left = s->end - s->pos;
		const uint8_t *nl = left ? memrchr(start, '\n', left) : NULL;

		if (nl || (left && (s->finished || left >= ROOM))) {
			*data = (const char *)start;
			*len = nl ? (size_t)(nl + 1 - start) : left;
			s->pos += *len;
			s->offset += *len;
			return NULL;
		}
		if (s->finished)
			break;
		err = advance(s);
		if (err)
			return err;
	}
	err = late_error(s);
	if (!err) {
		*data = "";
		*len = 0;
	}
	return err;
}

struct bp_err *bp_source_read(struct bp_source *s, void *dst, size_t cap, size_t *len)
{
	size_t done = 0;

	while (done < cap) {
		size_t left = s->end - s->pos, n = left < cap - done ? left : cap - done;

		if (n) {
			memcpy((uint8_t *)dst + done, s->pieces[s->at].mem + s->pos, n);
			s->pos += n;
			s->offset += n;
			done += n;
			continue;
		}
		if (!s->finished) {
			struct bp_err *err = advance(s);

			if (err)
				return err;
			continue;
		}
		break;
	}
	if (!done && cap) {
		struct bp_err *err = late_error(s);

		if (err)
			return err;
	}
	*len = done;
	return NULL;
}
