// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/trace_format.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <zstd.h>

#include "core/cleanup.h"
#include "core/crc32c.h"
#include "core/strbuf.h"

/* Facts and functions wait until this many bytes of them have come together. */
#define PENDING_BYTES (256u << 10)

struct pending {
	enum bp_chunk_type type;
	struct bp_strbuf bytes;
	uint32_t items;
	uint64_t first_ns, last_ns;
};

struct bp_trace_writer {
	int fd;
	char *path;
	bool kept_old;  /* an earlier recording was renamed */
	uint64_t bytes; /* end of the last whole chunk */
	uint64_t sequence;
	uint32_t n_blocks; /* EVENTS chunks written */
	uint32_t file_id;
	uint64_t n_funcs;     /* given */
	uint64_t n_funcs_out; /* in chunks written */
	struct pending facts, funcs, host_frames, host_stacks;
	struct bp_events_encoder *encoder;
	ZSTD_CCtx *cctx;
	struct bp_strbuf record; /* one fact or function being put together */
	uint8_t *out;            /* chunk being put together */
	size_t out_cap;
};

void bp_trace_writer_destroy(struct bp_trace_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0)
		close(w->fd);
	bp_strbuf_deinit(&w->facts.bytes);
	bp_strbuf_deinit(&w->funcs.bytes);
	bp_strbuf_deinit(&w->host_frames.bytes);
	bp_strbuf_deinit(&w->host_stacks.bytes);
	bp_strbuf_deinit(&w->record);
	bp_events_encoder_destroy(w->encoder);
	ZSTD_freeCCtx(w->cctx);
	free(w->path);
	free(w->out);
	free(w);
}

static void writer_destroyp(struct bp_trace_writer **w)
{
	bp_trace_writer_destroy(*w);
}

static uint32_t make_file_id(void)
{
	struct timespec now;
	uint32_t id;

	if (getrandom(&id, sizeof(id), GRND_NONBLOCK) == (ssize_t)sizeof(id))
		return id;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint32_t)now.tv_nsec * 2654435761u ^ (uint32_t)now.tv_sec ^ (uint32_t)getpid() << 16;
}

/* Moves an earlier recording out of the way. Only regular files are taken for one. */
static struct bp_err *keep_old(struct bp_trace_writer *w)
{
	struct bp_strbuf old = BP_STRBUF_INIT;
	struct bp_err *err;
	struct stat st;

	if (lstat(w->path, &st))
		return NULL; /* open() says what is wrong */
	if (S_ISDIR(st.st_mode))
		return bp_err_os(EISDIR, "%s: cannot create", w->path);
	if (!S_ISREG(st.st_mode))
		return bp_err_new(BP_EOS, "%s: cannot create: it is there and is not a regular file",
				  w->path);
	bp_strbuf_addf(&old, "%s.old", w->path);
	err = bp_strbuf_ok(&old);
	if (!err && rename(w->path, bp_strbuf_str(&old)))
		err = bp_err_os(errno, "%s: cannot rename to %s.old", w->path, w->path);
	w->kept_old = !err;
	bp_strbuf_deinit(&old);
	return err;
}

/* The reverse: the new file goes, the earlier one gets its name back. */
static void put_back(const struct bp_trace_writer *w)
{
	struct bp_strbuf old = BP_STRBUF_INIT;

	struct bp_err *err;

	bp_strbuf_addf(&old, "%s.old", w->path);
	err = bp_strbuf_ok(&old);
	if (!err && !unlink(w->path) && w->kept_old && rename(bp_strbuf_str(&old), w->path))
		err = bp_err_os(errno, "%s", w->path);
	/* Should it fail, the earlier recording is still there as PATH.old. */
	bp_err_ignore(err);
	bp_strbuf_deinit(&old);
}

/* Ends the file at @bytes. Should that fail, the next write goes there all the same and readers skip the
 * rest. */
static void cut_back(struct bp_trace_writer *w, uint64_t bytes)
{
	w->bytes = bytes;
	if (ftruncate(w->fd, (off_t)bytes))
		return;
}

/* Writes at the end of the last whole chunk; on failure the file ends there again. */
static struct bp_err *write_out(struct bp_trace_writer *w, const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(w->fd, p + done, len - done, (off_t)(w->bytes + done));
		struct bp_err *err;

		if (n < 0 && errno == EINTR)
			continue;
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		err = bp_err_os(n ? errno : ENOSPC, "%s: cannot write", w->path);
		cut_back(w, w->bytes);
		return err;
	}
	w->bytes += len;
	return NULL;
}

struct bp_err *bp_trace_writer_create(const char *path, unsigned tick_shift, struct bp_trace_writer **ret)
{
	bp_cleanup(writer_destroyp) struct bp_trace_writer *w = calloc(1, sizeof(*w));
	struct bp_file_header head = {
	    .major = BP_TRACE_MAJOR,
	    .minor = BP_TRACE_MINOR,
	    .header_bytes = sizeof(head),
	    .tick_shift = tick_shift,
	};
	struct bp_err *err;

	if (!w)
		return bp_err_nomem();
	assert(tick_shift <= BP_MAX_TICK_SHIFT);
	w->fd = -1;
	w->facts.type = BP_CHUNK_FACTS;
	w->funcs.type = BP_CHUNK_FUNCS;
	w->host_frames.type = BP_CHUNK_HOST_FRAMES;
	w->host_stacks.type = BP_CHUNK_HOST_STACKS;
	w->path = strdup(path);
	w->cctx = ZSTD_createCCtx();
	if (!w->path || !w->cctx || ZSTD_isError(ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_compressionLevel, 1)))
		return bp_err_nomem();
	err = bp_events_encoder_create(tick_shift, &w->encoder);
	if (!err)
		err = keep_old(w);
	if (err)
		return err;
	w->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (w->fd < 0)
		return bp_err_os(errno, "%s: cannot create", path);
	w->file_id = make_file_id();
	memcpy(head.magic, BP_TRACE_MAGIC, sizeof(head.magic));
	head.file_id = w->file_id;
	head.crc = bp_crc32c(0, &head, offsetof(struct bp_file_header, crc));
	err = write_out(w, &head, sizeof(head));
	if (err) {
		put_back(w);
		return err;
	}
	*ret = bp_steal(w);
	return NULL;
}

static struct bp_err *reserve_out(struct bp_trace_writer *w, size_t payload_bytes)
{
	size_t want = sizeof(struct bp_chunk_header) + payload_bytes;
	uint8_t *out;

	if (want <= w->out_cap)
		return NULL;
	out = realloc(w->out, want);
	if (!out)
		return bp_err_nomem();
	w->out = out;
	w->out_cap = want;
	return NULL;
}

/* The payload is in w->out after room for the header; @head says what only the caller knows. */
static struct bp_err *write_chunk(struct bp_trace_writer *w, struct bp_chunk_header head)
{
	struct bp_err *err;

	head.magic = BP_CHUNK_MAGIC;
	head.file_id = w->file_id;
	head.sequence = w->sequence;
	head.n_funcs = (uint32_t)w->n_funcs_out;
	head.n_blocks = w->n_blocks;
	head.payload_crc = bp_crc32c(0, w->out + sizeof(head), head.stored_bytes);
	head.crc = bp_crc32c(0, &head, offsetof(struct bp_chunk_header, crc));
	memcpy(w->out, &head, sizeof(head));
	err = write_out(w, w->out, sizeof(head) + head.stored_bytes);
	if (err)
		return err;
	w->sequence++;
	w->n_blocks += head.type == BP_CHUNK_EVENTS;
	return NULL;
}

/* A chunk of anything but events: compressed as a whole. */
static struct bp_err *write_simple(struct bp_trace_writer *w, struct bp_chunk_header head, const void *raw,
				   size_t len)
{
	uint8_t *payload;
	struct bp_err *err = reserve_out(w, len);
	size_t n = 0;

	if (err)
		return err;
	payload = w->out + sizeof(head);
	head.raw_bytes = (uint32_t)len;
	head.stored_bytes = (uint32_t)len;
	if (len)
		n = ZSTD_compress2(w->cctx, payload, len, raw, len);
	if (n && !ZSTD_isError(n) && n < len && len <= n * BP_RATIO_MAX) {
		head.flags = BP_CHUNK_ZSTD;
		head.stored_bytes = (uint32_t)n;
	} else if (len) {
		memcpy(payload, raw, len);
	}
	return write_chunk(w, head);
}

static struct bp_err *write_pending(struct bp_trace_writer *w, struct pending *p)
{
	struct bp_chunk_header head = {
	    .type = (uint16_t)p->type,
	    .items = p->items,
	    .first_ns = p->first_ns,
	    .last_ns = p->last_ns,
	};
	struct bp_err *err;

	if (!p->items)
		return NULL;
	err = write_simple(w, head, p->bytes.data, p->bytes.len);
	if (err)
		return err;
	if (p->type == BP_CHUNK_FUNCS)
		w->n_funcs_out += p->items;
	bp_strbuf_clear(&p->bytes);
	p->items = 0;
	p->first_ns = p->last_ns = 0;
	return NULL;
}

struct bp_err *bp_trace_writer_flush(struct bp_trace_writer *w)
{
	struct bp_err *err = write_pending(w, &w->funcs);

	if (!err)
		err = write_pending(w, &w->facts);
	if (!err)
		err = write_pending(w, &w->host_frames);
	return err ? err : write_pending(w, &w->host_stacks);
}

static void add_varint(struct bp_strbuf *sb, uint64_t v)
{
	char tmp[10];
	size_t n = 0;

	while (v >= 0x80) {
		tmp[n++] = (char)(v | 0x80);
		v >>= 7;
	}
	tmp[n++] = (char)v;
	bp_strbuf_add(sb, tmp, n);
}

static void add_string(struct bp_strbuf *sb, const char *s)
{
	if (s)
		bp_strbuf_add(sb, s, strnlen(s, BP_STRING_MAX));
	bp_strbuf_addc(sb, '\0');
}

static uint64_t zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

/*
 * Moves w->record to the pending bytes. What is pending goes out first if it is enough; when that fails
 * nothing was added, so the caller may try again and memory stays bounded.
 */
static struct bp_err *add_record(struct bp_trace_writer *w, struct pending *p, uint64_t time_ns)
{
	struct bp_err *err = bp_strbuf_ok(&w->record);
	size_t before;

	if (!err && p->bytes.len >= PENDING_BYTES)
		err = write_pending(w, p);
	if (err)
		return err;
	before = p->bytes.len;
	add_varint(&p->bytes, w->record.len);
	bp_strbuf_add(&p->bytes, bp_strbuf_str(&w->record), w->record.len);
	if (p->bytes.failed) {
		/* A record that was cut would spoil the chunk. */
		p->bytes.len = before;
		p->bytes.failed = false;
		return bp_err_nomem();
	}
	if (!p->items || time_ns < p->first_ns)
		p->first_ns = time_ns;
	if (time_ns > p->last_ns)
		p->last_ns = time_ns;
	p->items++;
	return NULL;
}

struct bp_err *bp_trace_writer_fact(struct bp_trace_writer *w, const struct bp_fact *fact)
{
	struct bp_strbuf *r = &w->record;

	bp_strbuf_clear(r);
	add_varint(r, fact->kind);
	add_varint(r, (uint16_t)(fact->vcpu + 1));
	add_varint(r, fact->time_ns);
	add_varint(r, fact->insns);
	for (size_t i = 0; i < BP_ARRAY_SIZE(fact->v); i++)
		add_varint(r, fact->v[i]);
	add_string(r, fact->s1);
	add_string(r, fact->s2);
	return add_record(w, &w->facts, fact->time_ns);
}

struct bp_err *bp_trace_writer_func(struct bp_trace_writer *w, const struct bp_func *func)
{
	struct bp_strbuf *r = &w->record;
	struct bp_err *err;

	assert(func->id == w->n_funcs);
	if (w->n_funcs >= BP_FUNCS_MAX)
		return bp_err_new(BP_EUNSUPPORTED, "%s: more than %u functions", w->path, BP_FUNCS_MAX);
	bp_strbuf_clear(r);
	add_varint(r, func->space);
	add_varint(r, func->addr);
	add_varint(r, zigzag((int64_t)(func->addr - func->sym_addr)));
	add_string(r, func->name);
	add_string(r, func->module);
	err = add_record(w, &w->funcs, 0);
	if (err)
		return err;
	w->n_funcs++;
	return NULL;
}

struct bp_err *bp_trace_writer_block(struct bp_trace_writer *w, const struct bp_block *block)
{
	struct bp_chunk_header head = {.type = BP_CHUNK_EVENTS, .items = (uint32_t)block->n_events};
	struct bp_err *err;
	size_t len;

	if (!block->n_events)
		return NULL;
	if (bp_events_n_frames(block) > BP_BLOCK_FRAMES)
		return bp_err_new(BP_EUNSUPPORTED, "%s: a block of more than %u stack frames", w->path,
				  BP_BLOCK_FRAMES);
	err = bp_trace_writer_flush(w);
	if (!err)
		err = reserve_out(w, bp_events_bound(block));
	if (!err)
		err = bp_events_encode(w->encoder, block, w->out + sizeof(head), &len, &head.first_ns,
				       &head.last_ns);
	if (err)
		return err;
	head.stored_bytes = head.raw_bytes = (uint32_t)len;
	return write_chunk(w, head);
}

struct bp_err *bp_trace_writer_fold(struct bp_trace_writer *w, const struct bp_fold *rows, size_t n)
{
	enum { ROWS_A_CHUNK = 4096 };
	struct bp_err *err = bp_trace_writer_flush(w);
	const uint64_t bytes = w->bytes, sequence = w->sequence;

	while (!err && n) {
		size_t part = n < ROWS_A_CHUNK ? n : ROWS_A_CHUNK;
		struct bp_chunk_header head = {.type = BP_CHUNK_FOLDS, .items = (uint32_t)part};
		struct bp_strbuf *r = &w->record;

		bp_strbuf_clear(r);
		for (size_t i = 0; i < part; i++) {
			assert(rows[i].func < w->n_funcs);
			add_varint(r, rows[i].func);
			add_varint(r, rows[i].calls);
			add_varint(r, zigzag(rows[i].self_ns));
			add_varint(r, zigzag(rows[i].self_insns));
			add_varint(r, rows[i].total_ns);
			add_varint(r, rows[i].total_insns);
			add_varint(r, rows[i].min_ns);
			add_varint(r, rows[i].max_ns);
		}
		err = bp_strbuf_ok(r);
		if (!err)
			err = write_simple(w, head, r->data, r->len);
		rows += part;
		n -= part;
	}
	/* All or nothing: rows that were given again would count twice. */
	if (err && w->sequence != sequence) {
		cut_back(w, bytes);
		w->sequence = sequence;
	}
	return err;
}

struct bp_err *bp_trace_writer_host_frame(struct bp_trace_writer *w, const struct bp_host_frame *frame)
{
	struct bp_strbuf *r = &w->record;

	assert(frame->id && frame->id < BP_HOST_IDS_MAX);
	bp_strbuf_clear(r);
	add_varint(r, frame->id);
	add_varint(r, frame->space);
	add_varint(r, frame->addr);
	add_varint(r, frame->offset);
	add_string(r, frame->name);
	add_string(r, frame->module);
	return add_record(w, &w->host_frames, 0);
}

struct bp_err *bp_trace_writer_host_stack(struct bp_trace_writer *w, uint32_t id, const uint32_t *frames,
					  size_t n)
{
	struct bp_strbuf *r = &w->record;

	assert(id && id < BP_HOST_IDS_MAX && n <= BP_HOST_STACK_MAX);
	bp_strbuf_clear(r);
	add_varint(r, id);
	add_varint(r, n);
	for (size_t i = 0; i < n; i++)
		add_varint(r, frames[i]);
	return add_record(w, &w->host_stacks, 0);
}

struct bp_err *bp_trace_writer_waits(struct bp_trace_writer *w, const struct bp_wait *recs, size_t n)
{
	struct bp_chunk_header head = {.type = BP_CHUNK_WAITS, .items = (uint32_t)n};
	bp_autofree uint8_t *raw = NULL;
	struct bp_err *err;

	assert(n <= BP_WAIT_BLOCK);
	if (!n)
		return NULL;
	err = bp_trace_writer_flush(w);
	if (err)
		return err;
	raw = malloc(bp_waits_bound(n));
	if (!raw)
		return bp_err_nomem();
	head.first_ns = head.last_ns = recs[0].time_ns;
	for (size_t i = 1; i < n; i++) {
		if (recs[i].time_ns < head.first_ns)
			head.first_ns = recs[i].time_ns;
		if (recs[i].time_ns > head.last_ns)
			head.last_ns = recs[i].time_ns;
	}
	return write_simple(w, head, raw, bp_waits_encode(recs, n, raw));
}

uint64_t bp_trace_writer_bytes(const struct bp_trace_writer *w)
{
	return w->bytes;
}

void bp_trace_writer_skip(struct bp_trace_writer *w)
{
	w->sequence++;
	w->n_blocks++;
}

struct bp_err *bp_trace_writer_close(struct bp_trace_writer *w)
{
	struct bp_chunk_header head = {.type = BP_CHUNK_END};
	struct bp_err *err = bp_trace_writer_flush(w);

	if (!err)
		err = write_simple(w, head, NULL, 0);
	/* Network file systems report some failures to write only here. */
	if (close(w->fd) && !err)
		err = bp_err_os(errno, "%s: cannot close", w->path);
	w->fd = -1;
	bp_trace_writer_destroy(w);
	return err;
}

void bp_trace_writer_discard(struct bp_trace_writer *w)
{
	if (!w)
		return;
	put_back(w);
	bp_trace_writer_destroy(w);
}
