// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE /* memmem */
#include "core/trace_format.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

#include "core/cleanup.h"
#include "core/crc32c.h"

struct block_ref {
	uint64_t offset; /* of the chunk */
	uint64_t first_ns, last_ns;
	uint32_t stored_bytes;
	uint32_t gap;
};

struct waits_ref {
	uint64_t offset; /* of the chunk */
	uint64_t first_ns, last_ns;
	bool gap;
};

/* Frames of a stack, in the pool. */
struct host_stack {
	uint32_t first, n;
};

/* Strings of facts and functions live as long as the trace: the expanded payloads are kept whole. */
struct arena {
	struct arena *next;
	char bytes[];
};

struct bp_trace {
	char *path;
	int fd;
	uint64_t bytes;
	uint32_t file_id;
	bool file_id_known;
	unsigned tick_shift;
	struct bp_trace_damage damage;
	struct bp_fact *facts;
	size_t n_facts, facts_cap;
	struct bp_func *funcs;
	size_t n_funcs, funcs_cap;
	struct bp_fold *folds;
	size_t n_folds, folds_cap, folds_merged;
	struct block_ref *blocks;
	size_t n_blocks, blocks_cap;
	struct waits_ref *waits;
	size_t n_waits, waits_cap;
	uint64_t n_wait_records;
	struct bp_host_frame *host_frames; /* by id; id 0 where there is none */
	size_t n_host_frames, host_frames_cap;
	struct host_stack *host_stacks; /* by id */
	size_t n_host_stacks, host_stacks_cap;
	uint32_t *host_pool;
	size_t n_host_pool, host_pool_cap;
	struct arena *arena;
};

struct bp_wait_decoder {
	ZSTD_DCtx *dctx;
	struct bp_wait *recs;  /* BP_WAIT_BLOCK */
	uint8_t *stored, *raw; /* BP_PAYLOAD_MAX */
};

struct bp_decoder {
	struct bp_events_decoder *events;
	uint8_t *chunk;
	size_t chunk_cap;
};

/* State of going through the file once. */
struct scan {
	uint64_t sequence; /* next one expected */
	uint64_t bad_from; /* start of the bytes being skipped */
	bool bad;
	uint32_t n_blocks; /* EVENTS chunks expected before the next one */
	uint64_t losses;   /* damage known when the last block of waits was found */
	bool ended;
	uint64_t good; /* whole chunks seen */
	ZSTD_DCtx *dctx;
	uint8_t *window; /* SCAN_WINDOW bytes, for resynchronising */
	uint64_t window_offset;
	size_t window_len;
	uint64_t lost_funcs; /* made up so far */
};

#define SCAN_WINDOW (64u << 10)

void bp_trace_destroy(struct bp_trace *t)
{
	if (!t)
		return;
	if (t->fd >= 0)
		close(t->fd);
	while (t->arena) {
		struct arena *next = t->arena->next;

		free(t->arena);
		t->arena = next;
	}
	free(t->facts);
	free(t->funcs);
	free(t->folds);
	free(t->blocks);
	free(t->waits);
	free(t->host_frames);
	free(t->host_stacks);
	free(t->host_pool);
	free(t->path);
	free(t);
}

static void trace_destroyp(struct bp_trace **t)
{
	bp_trace_destroy(*t);
}

static void scan_deinit(struct scan *s)
{
	ZSTD_freeDCtx(s->dctx);
	free(s->window);
}

/* Makes room for one more item; grows by half so that little is wasted. */
static struct bp_err *grow(void *array, size_t *cap, size_t count, size_t item_bytes)
{
	size_t want = *cap + *cap / 2 + 16;
	void *p;

	if (count < *cap)
		return NULL;
	if (want > SIZE_MAX / item_bytes)
		return bp_err_nomem();
	p = realloc(*(void **)array, want * item_bytes);
	if (!p)
		return bp_err_nomem();
	*(void **)array = p;
	*cap = want;
	return NULL;
}

/* *ret_len is less than @len only at the end of the file. */
static struct bp_err *read_at(const struct bp_trace *t, uint64_t offset, void *data, size_t len,
			      size_t *ret_len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(t->fd, (uint8_t *)data + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bp_err_os(errno, "%s: cannot read at offset %" PRIu64, t->path, offset + done);
		if (!n)
			break;
		done += (size_t)n;
	}
	*ret_len = done;
	return NULL;
}

static bool header_is_good(const struct bp_trace *t, const struct bp_chunk_header *head)
{
	return head->magic == BP_CHUNK_MAGIC && (!t->file_id_known || head->file_id == t->file_id) &&
	       head->crc == bp_crc32c(0, head, offsetof(struct bp_chunk_header, crc));
}

static void skip_from(struct bp_trace *t, struct scan *s, uint64_t offset)
{
	if (s->bad)
		return;
	s->bad = true;
	s->bad_from = offset;
	if (!t->damage.bad_chunks)
		t->damage.first_bad_offset = offset;
	t->damage.bad_chunks++;
}

/* A good chunk (or the end of the file) at @offset ends the bytes being skipped; @lost: chunks missing before
 * it. */
static void skip_to(struct bp_trace *t, struct scan *s, uint64_t offset, uint64_t lost)
{
	if (s->bad) {
		t->damage.lost_bytes += offset - s->bad_from;
		/* The first of them was counted when its bytes turned out to be bad. */
		if (lost)
			t->damage.bad_chunks += lost - 1;
		s->bad = false;
		return;
	}
	if (lost) {
		if (!t->damage.bad_chunks && !t->damage.missing_chunks)
			t->damage.first_bad_offset = offset;
		t->damage.missing_chunks += lost;
	}
}

/*
 * Offset of the next bytes after @offset that look like the start of a chunk; t->bytes if there are none. The
 * window is kept, so that a file full of such bytes is not read again for each of them.
 */
static struct bp_err *find_magic(const struct bp_trace *t, struct scan *s, uint64_t offset, uint64_t *ret)
{
	static const uint32_t magic = BP_CHUNK_MAGIC;

	for (offset++; offset < t->bytes; offset = s->window_offset + s->window_len - (sizeof(magic) - 1)) {
		const uint8_t *hit, *from;
		struct bp_err *err;

		if (offset < s->window_offset || offset + sizeof(magic) > s->window_offset + s->window_len) {
			s->window_len = 0;
			err = read_at(t, offset, s->window, SCAN_WINDOW, &s->window_len);
			if (err)
				return err;
			s->window_offset = offset;
			if (s->window_len < sizeof(struct bp_chunk_header))
				break;
		}
		from = s->window + (offset - s->window_offset);
		hit = memmem(from, (size_t)(s->window + s->window_len - from), &magic, sizeof(magic));
		if (hit) {
			*ret = s->window_offset + (uint64_t)(hit - s->window);
			return NULL;
		}
	}
	*ret = t->bytes;
	return NULL;
}

/* A NUL-terminated string, or NULL (and b->bad). */
static const char *take_string(struct bp_buf *b)
{
	const char *s = (const char *)b->data + b->pos;
	const void *end = b->bad ? NULL : memchr(s, 0, bp_buf_left(b));

	if (!end) {
		bp_buf_take(b, bp_buf_left(b) + 1);
		return NULL;
	}
	return (const char *)bp_buf_take(b, (size_t)((const char *)end - s) + 1);
}

static int64_t unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1 ^ -(v & 1));
}

static struct bp_err *take_fact(struct bp_trace *t, struct bp_buf *r)
{
	struct bp_err *err = grow(&t->facts, &t->facts_cap, t->n_facts, sizeof(*t->facts));
	uint64_t kind = bp_buf_varint(r), vcpu = bp_buf_varint(r);
	struct bp_fact fact = {0};

	if (err)
		return err;
	if (vcpu > UINT16_MAX)
		r->bad = true;
	fact.vcpu = (uint16_t)(vcpu - 1);
	fact.time_ns = bp_buf_varint(r);
	fact.insns = bp_buf_varint(r);
	for (size_t i = 0; i < BP_ARRAY_SIZE(fact.v); i++)
		fact.v[i] = bp_buf_varint(r);
	fact.s1 = take_string(r);
	fact.s2 = take_string(r);
	/* Kinds of later versions are left out. */
	if (r->bad || !kind || kind >= BP_FACT_KINDS)
		return NULL;
	fact.kind = (uint16_t)kind;
	t->facts[t->n_facts++] = fact;
	return NULL;
}

static struct bp_err *take_func(struct bp_trace *t, struct bp_buf *r)
{
	struct bp_err *err = grow(&t->funcs, &t->funcs_cap, t->n_funcs, sizeof(*t->funcs));
	uint64_t space = bp_buf_varint(r);
	struct bp_func func = {.id = (uint32_t)t->n_funcs};

	if (err)
		return err;
	if (space >= BP_SPACE_N || t->n_funcs >= BP_FUNCS_MAX)
		r->bad = true;
	func.space = (uint8_t)space;
	func.addr = bp_buf_varint(r);
	func.sym_addr = func.addr - (uint64_t)unzigzag(bp_buf_varint(r));
	func.name = take_string(r);
	func.module = take_string(r);
	if (!r->bad)
		t->funcs[t->n_funcs++] = func;
	return NULL;
}

static struct bp_err *take_fold(struct bp_trace *t, struct bp_buf *b)
{
	struct bp_err *err = grow(&t->folds, &t->folds_cap, t->n_folds, sizeof(*t->folds));
	uint64_t func = bp_buf_varint(b);
	struct bp_fold *row;

	if (err)
		return err;
	if (func >= t->n_funcs)
		b->bad = true;
	row = &t->folds[t->n_folds];
	row->func = (uint32_t)func;
	row->calls = bp_buf_varint(b);
	row->self_ns = unzigzag(bp_buf_varint(b));
	row->self_insns = unzigzag(bp_buf_varint(b));
	row->total_ns = bp_buf_varint(b);
	row->total_insns = bp_buf_varint(b);
	row->min_ns = bp_buf_varint(b);
	row->max_ns = bp_buf_varint(b);
	if (!b->bad)
		t->n_folds++;
	return NULL;
}

/* Makes @count items of ids below @id + 1; new ones are zero. */
static struct bp_err *reach_id(void *array, size_t *cap, size_t *count, uint64_t id, size_t item_bytes)
{
	while (*count <= id) {
		struct bp_err *err = grow(array, cap, *count, item_bytes);

		if (err)
			return err;
		memset(*(uint8_t **)array + *count * item_bytes, 0, item_bytes);
		++*count;
	}
	return NULL;
}

static struct bp_err *take_host_frame(struct bp_trace *t, struct bp_buf *r)
{
	uint64_t id = bp_buf_varint(r), space = bp_buf_varint(r);
	struct bp_host_frame f = {.id = (uint32_t)id, .space = (uint8_t)space};
	struct bp_err *err;

	f.addr = bp_buf_varint(r);
	f.offset = bp_buf_varint(r);
	f.name = take_string(r);
	f.module = take_string(r);
	if (!id || id >= BP_HOST_IDS_MAX || space >= BP_HOST_SPACES)
		r->bad = true;
	if (r->bad)
		return NULL;
	err = reach_id(&t->host_frames, &t->host_frames_cap, &t->n_host_frames, id, sizeof(f));
	if (!err)
		t->host_frames[id] = f;
	return err;
}

static struct bp_err *take_host_stack(struct bp_trace *t, struct bp_buf *r)
{
	uint64_t id = bp_buf_varint(r), n = bp_buf_varint(r);
	const size_t first = t->n_host_pool;
	struct bp_err *err;

	if (!id || id >= BP_HOST_IDS_MAX || n > BP_HOST_STACK_MAX || n > bp_buf_left(r) ||
	    first + n > UINT32_MAX)
		r->bad = true;
	if (r->bad)
		return NULL;
	err = reach_id(&t->host_stacks, &t->host_stacks_cap, &t->n_host_stacks, id, sizeof(*t->host_stacks));
	for (uint64_t i = 0; i < n && !err; i++) {
		uint64_t frame = bp_buf_varint(r);

		err = grow(&t->host_pool, &t->host_pool_cap, t->n_host_pool, sizeof(*t->host_pool));
		if (!err)
			t->host_pool[t->n_host_pool++] = frame < BP_HOST_IDS_MAX ? (uint32_t)frame : 0;
	}
	if (!err && !r->bad)
		t->host_stacks[id] = (struct host_stack){(uint32_t)first, (uint32_t)n};
	return err;
}

static int compare_folds(const void *a, const void *b)
{
	const struct bp_fold *x = a, *y = b;

	return x->func < y->func ? -1 : x->func > y->func;
}

/* One row per function, in order of function id. */
static void merge_folds(struct bp_trace *t)
{
	size_t n = 0;

	if (t->n_folds)
		qsort(t->folds, t->n_folds, sizeof(*t->folds), compare_folds);
	for (size_t i = 0; i < t->n_folds; i++) {
		struct bp_fold *to = n ? &t->folds[n - 1] : NULL;
		const struct bp_fold *from = &t->folds[i];

		if (!to || to->func != from->func) {
			t->folds[n++] = *from;
			continue;
		}
		if (from->calls && (!to->calls || from->min_ns < to->min_ns))
			to->min_ns = from->min_ns;
		if (from->max_ns > to->max_ns)
			to->max_ns = from->max_ns;
		to->calls += from->calls;
		to->self_ns = (int64_t)((uint64_t)to->self_ns + (uint64_t)from->self_ns);
		to->self_insns = (int64_t)((uint64_t)to->self_insns + (uint64_t)from->self_insns);
		to->total_ns += from->total_ns;
		to->total_insns += from->total_insns;
	}
	t->n_folds = n;
	t->folds_merged = n;
}

/* The items in a payload. *ok tells whether it made sense; if not, nothing of it was kept. */
static struct bp_err *take_items(struct bp_trace *t, const struct bp_chunk_header *head, const char *payload,
				 bool *ok)
{
	const size_t n_facts = t->n_facts, n_funcs = t->n_funcs, n_folds = t->n_folds;
	struct bp_buf b = bp_buf_make(payload, head->raw_bytes, t->path, 0);
	struct bp_err *err = NULL;

	for (uint32_t i = 0; i < head->items && !err && !b.bad; i++) {
		struct bp_buf record;
		uint64_t len;

		if (head->type == BP_CHUNK_FOLDS) {
			err = take_fold(t, &b);
			continue;
		}
		len = bp_buf_varint(&b);
		if (b.bad || len > bp_buf_left(&b)) {
			b.bad = true;
			break;
		}
		record = bp_buf_make(b.data + b.pos, (size_t)len, t->path, 0);
		switch (head->type) {
		case BP_CHUNK_FACTS:
			err = take_fact(t, &record);
			break;
		case BP_CHUNK_FUNCS:
			err = take_func(t, &record);
			break;
		case BP_CHUNK_HOST_FRAMES:
			err = take_host_frame(t, &record);
			break;
		default:
			err = take_host_stack(t, &record);
			break;
		}
		b.pos += (size_t)len;
		b.bad |= record.bad;
	}
	*ok = !err && !b.bad && !bp_buf_left(&b);
	if (!*ok) {
		t->n_facts = n_facts;
		t->n_funcs = n_funcs;
		t->n_folds = n_folds;
	} else if (t->n_folds > t->folds_merged * 2 + 65536) {
		merge_folds(t);
	}
	return err;
}

/* The payload of a chunk, checked and expanded, in the arena; *ret NULL when it is damaged. */
static struct bp_err *read_payload(struct bp_trace *t, struct scan *s, uint64_t offset,
				   const struct bp_chunk_header *head, const char **ret)
{
	bp_autofree uint8_t *stored = NULL;
	bp_autofree struct arena *room = NULL;
	bool zstd = head->flags & BP_CHUNK_ZSTD;
	uint8_t *to;
	struct bp_err *err;
	size_t n;

	*ret = NULL;
	if (head->flags & ~BP_CHUNK_ZSTD || head->raw_bytes > BP_PAYLOAD_MAX ||
	    head->stored_bytes > head->raw_bytes || (!zstd && head->stored_bytes != head->raw_bytes) ||
	    head->raw_bytes > (uint64_t)head->stored_bytes * BP_RATIO_MAX)
		return NULL;
	room = malloc(sizeof(*room) + head->raw_bytes);
	if (zstd)
		stored = malloc(head->stored_bytes);
	if (!room || (zstd && !stored))
		return bp_err_nomem();
	to = zstd ? stored : (uint8_t *)room->bytes;
	err = read_at(t, offset + sizeof(*head), to, head->stored_bytes, &n);
	if (err)
		return err;
	if (n != head->stored_bytes || bp_crc32c(0, to, n) != head->payload_crc)
		return NULL;
	if (zstd) {
		n = ZSTD_decompressDCtx(s->dctx, room->bytes, head->raw_bytes, stored, head->stored_bytes);
		if (ZSTD_isError(n) || n != head->raw_bytes)
			return NULL;
	}
	room->next = t->arena;
	t->arena = bp_steal(room);
	*ret = t->arena->bytes;
	return NULL;
}

/*
 * Definitions that were lost: their ids must exist all the same, for the events that use them. False when the
 * header claims what cannot be.
 */
static struct bp_err *make_up_funcs(struct bp_trace *t, struct scan *s, uint32_t n_funcs, bool *ok)
{
	*ok = false;
	if (n_funcs < t->n_funcs)
		return NULL;
	if (n_funcs > t->n_funcs) {
		s->lost_funcs += n_funcs - t->n_funcs;
		if ((!t->damage.bad_chunks && !t->damage.missing_chunks) ||
		    s->lost_funcs > BP_LOST_FUNCS_MAX || n_funcs > BP_FUNCS_MAX) {
			s->lost_funcs -= n_funcs - t->n_funcs;
			return NULL;
		}
	}
	while (t->n_funcs < n_funcs) {
		struct bp_err *err = grow(&t->funcs, &t->funcs_cap, t->n_funcs, sizeof(*t->funcs));
		uint32_t id = (uint32_t)t->n_funcs;

		if (err)
			return err;
		t->funcs[t->n_funcs++] = (struct bp_func){
		    .id = id,
		    .space = BP_SPACE_PSEUDO,
		    .addr = id,
		    .sym_addr = id,
		    .name = "[definition lost]",
		    .module = "",
		};
	}
	*ok = true;
	return NULL;
}

static struct bp_err *take_block(struct bp_trace *t, struct scan *s, uint64_t offset,
				 const struct bp_chunk_header *head)
{
	struct bp_err *err = grow(&t->blocks, &t->blocks_cap, t->n_blocks, sizeof(*t->blocks));

	if (err)
		return err;
	t->blocks[t->n_blocks++] = (struct block_ref){
	    .offset = offset,
	    .first_ns = head->first_ns,
	    .last_ns = head->last_ns,
	    .stored_bytes = head->stored_bytes,
	    .gap = head->n_blocks != s->n_blocks,
	};
	s->n_blocks = head->n_blocks + 1;
	return NULL;
}

static struct bp_err *take_waits(struct bp_trace *t, struct scan *s, uint64_t offset,
				 const struct bp_chunk_header *head)
{
	struct bp_err *err = grow(&t->waits, &t->waits_cap, t->n_waits, sizeof(*t->waits));
	const uint64_t losses = t->damage.bad_chunks + t->damage.missing_chunks;

	if (err)
		return err;
	t->waits[t->n_waits++] = (struct waits_ref){
	    .offset = offset,
	    .first_ns = head->first_ns,
	    .last_ns = head->last_ns,
	    .gap = losses != s->losses,
	};
	s->losses = losses;
	t->n_wait_records += head->items;
	return NULL;
}

/* The chunk at @offset. *ret_len: its length with header, 0 when it is damaged. */
static struct bp_err *take_chunk(struct bp_trace *t, struct scan *s, uint64_t offset, uint64_t *ret_len)
{
	const char *payload = NULL;
	struct bp_chunk_header head;
	struct bp_err *err;
	bool simple, ok = true;
	uint64_t end, lost;
	size_t n;

	*ret_len = 0;
	err = read_at(t, offset, &head, sizeof(head), &n);
	if (err)
		return err;
	if (n != sizeof(head) || !header_is_good(t, &head) || head.sequence < s->sequence)
		return NULL;
	end = offset + sizeof(head) + head.stored_bytes;
	if (end > t->bytes ||
	    (head.type == BP_CHUNK_EVENTS && (head.stored_bytes > BP_EVENTS_PAYLOAD_MAX || head.flags)))
		return NULL;
	simple = head.type == BP_CHUNK_FACTS || head.type == BP_CHUNK_FUNCS || head.type == BP_CHUNK_FOLDS ||
		 head.type == BP_CHUNK_HOST_FRAMES || head.type == BP_CHUNK_HOST_STACKS;
	if (simple) {
		err = read_payload(t, s, offset, &head, &payload);
		if (err || !payload)
			return err;
	}

	/* From here on the chunk counts as found, so that what it says about lost ones holds. */
	lost = head.sequence - s->sequence;
	skip_to(t, s, offset, lost);
	if (!t->file_id_known) {
		t->file_id = head.file_id;
		t->file_id_known = true;
	}
	s->sequence = head.sequence + 1;
	err = make_up_funcs(t, s, head.n_funcs, &ok);
	if (!err && ok && simple)
		err = take_items(t, &head, payload, &ok);
	else if (!err && ok && head.type == BP_CHUNK_EVENTS)
		err = take_block(t, s, offset, &head);
	else if (!err && ok && head.type == BP_CHUNK_WAITS)
		err = take_waits(t, s, offset, &head);
	if (err || !ok)
		return err;
	s->ended |= head.type == BP_CHUNK_END;
	s->good++;
	*ret_len = end - offset;
	return NULL;
}

static struct bp_err *scan_file(struct bp_trace *t, struct scan *s, uint64_t offset)
{
	while (offset < t->bytes) {
		uint64_t len;
		struct bp_err *err = take_chunk(t, s, offset, &len);

		if (!err && !len) {
			skip_from(t, s, offset);
			err = find_magic(t, s, offset, &offset);
		}
		if (err)
			return err;
		offset += len;
	}
	skip_to(t, s, t->bytes, 0);
	t->damage.unfinished = !s->ended;
	return NULL;
}

/* *ret_offset: of the first chunk; 0 when the header is damaged. */
static struct bp_err *read_file_header(struct bp_trace *t, uint64_t *ret_offset)
{
	struct bp_file_header head;
	struct bp_err *err;
	size_t n;

	err = read_at(t, 0, &head, sizeof(head), &n);
	if (err)
		return err;
	if (!n)
		return bp_err_data(t->path, 0, "the file is empty, not a recording");
	if (n < sizeof(head.magic) || memcmp(head.magic, BP_TRACE_MAGIC, sizeof(head.magic)))
		return bp_err_data(t->path, 0, "not a recording of bootprof");
	if (n < sizeof(head))
		return bp_err_data(t->path, n, "the recording ends inside its header");
	*ret_offset = 0;
	if (head.crc != bp_crc32c(0, &head, offsetof(struct bp_file_header, crc)))
		return NULL;
	if (head.major > BP_TRACE_MAJOR)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s: the recording has format %u.%u, this bootprof reads up to %u.%u",
				  t->path, head.major, head.minor, BP_TRACE_MAJOR, BP_TRACE_MINOR);
	if (head.incompatible & ~BP_TRACE_INCOMPAT_KNOWN)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s: the recording (format %u.%u) has features 0x%" PRIx64
				  " that this bootprof (format %u.%u) does not know",
				  t->path, head.major, head.minor,
				  head.incompatible & ~BP_TRACE_INCOMPAT_KNOWN, BP_TRACE_MAJOR,
				  BP_TRACE_MINOR);
	if (head.header_bytes < sizeof(head) || head.tick_shift > BP_MAX_TICK_SHIFT)
		return bp_err_data(t->path, 12, "bad file header");
	t->file_id = head.file_id;
	t->file_id_known = true;
	t->tick_shift = head.tick_shift;
	*ret_offset = head.header_bytes;
	return NULL;
}

static struct bp_err *open_file(struct bp_trace *t)
{
	struct stat st;

	/* Not to wait for a writer should it be a pipe. */
	t->fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (t->fd < 0 || fstat(t->fd, &st))
		return bp_err_os(errno, "%s: cannot open", t->path);
	if (S_ISDIR(st.st_mode))
		return bp_err_os(EISDIR, "%s: cannot open", t->path);
	if (!S_ISREG(st.st_mode))
		return bp_err_data(t->path, BP_NO_OFFSET, "not a regular file, so not a recording");
	t->bytes = (uint64_t)st.st_size;
	return NULL;
}

struct bp_err *bp_trace_open(const char *path, struct bp_trace **ret)
{
	bp_cleanup(trace_destroyp) struct bp_trace *t = calloc(1, sizeof(*t));
	bp_cleanup(scan_deinit) struct scan s = {0};
	uint64_t offset;
	struct bp_err *err;

	if (!t)
		return bp_err_nomem();
	t->fd = -1;
	t->path = strdup(path);
	s.dctx = ZSTD_createDCtx();
	s.window = malloc(SCAN_WINDOW);
	if (!t->path || !s.dctx || !s.window)
		return bp_err_nomem();
	err = open_file(t);
	if (!err)
		err = read_file_header(t, &offset);
	if (err)
		return err;
	if (!offset) {
		skip_from(t, &s, 0);
		err = find_magic(t, &s, 0, &offset);
	} else if (offset > t->bytes) {
		offset = t->bytes;
	}
	if (!err)
		err = scan_file(t, &s, offset);
	if (err)
		return err;
	if (!t->file_id_known)
		return bp_err_data(t->path, 0, "the file header is damaged and no chunk is intact");
	merge_folds(t);
	*ret = bp_steal(t);
	return NULL;
}

bool bp_trace_is_recording(const char *path)
{
	char magic[sizeof(((struct bp_file_header *)NULL)->magic)];
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	return fd >= 0 && pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) &&
	       !memcmp(magic, BP_TRACE_MAGIC, sizeof(magic));
}

const char *bp_trace_path(const struct bp_trace *t)
{
	return t->path;
}

struct bp_err *bp_trace_set_path(struct bp_trace *t, const char *path)
{
	char *copy = strdup(path);

	if (!copy)
		return bp_err_nomem();
	free(t->path);
	t->path = copy;
	return NULL;
}

uint64_t bp_trace_bytes(const struct bp_trace *t)
{
	return t->bytes;
}

unsigned bp_trace_tick_shift(const struct bp_trace *t)
{
	return t->tick_shift;
}

const struct bp_trace_damage *bp_trace_damage(const struct bp_trace *t)
{
	return &t->damage;
}

const struct bp_fact *bp_trace_facts(const struct bp_trace *t, size_t *count)
{
	*count = t->n_facts;
	return t->facts;
}

const struct bp_func *bp_trace_funcs(const struct bp_trace *t, size_t *count)
{
	*count = t->n_funcs;
	return t->funcs;
}

const struct bp_fold *bp_trace_folds(const struct bp_trace *t, size_t *count)
{
	*count = t->n_folds;
	return t->folds;
}

const char *bp_trace_info(const struct bp_trace *t, const char *key)
{
	for (size_t i = t->n_facts; i-- > 0;) {
		if (t->facts[i].kind == BP_FACT_INFO && !strcmp(t->facts[i].s1, key))
			return t->facts[i].s2;
	}
	return NULL;
}

size_t bp_trace_n_blocks(const struct bp_trace *t)
{
	return t->n_blocks;
}

void bp_trace_block_range(const struct bp_trace *t, size_t i, uint64_t *first_ns, uint64_t *last_ns)
{
	assert(i < t->n_blocks);
	*first_ns = t->blocks[i].first_ns;
	*last_ns = t->blocks[i].last_ns;
}

bool bp_trace_block_gap(const struct bp_trace *t, size_t i)
{
	assert(i < t->n_blocks);
	return t->blocks[i].gap;
}

void bp_decoder_destroy(struct bp_decoder *d)
{
	if (!d)
		return;
	bp_events_decoder_destroy(d->events);
	free(d->chunk);
	free(d);
}

struct bp_err *bp_decoder_create(struct bp_decoder **ret)
{
	struct bp_decoder *d = calloc(1, sizeof(*d));
	struct bp_err *err;

	if (!d)
		return bp_err_nomem();
	err = bp_events_decoder_create(&d->events);
	if (err) {
		bp_decoder_destroy(d);
		return err;
	}
	*ret = d;
	return NULL;
}

struct bp_err *bp_decoder_read(struct bp_decoder *d, const struct bp_trace *t, size_t i,
			       struct bp_block *block)
{
	const struct block_ref *ref = &t->blocks[i];
	const size_t len = sizeof(struct bp_chunk_header) + ref->stored_bytes;
	struct bp_chunk_header head;
	struct bp_buf b;
	struct bp_err *err;
	size_t n;

	assert(i < t->n_blocks);
	if (len > d->chunk_cap) {
		uint8_t *chunk = realloc(d->chunk, len);

		if (!chunk)
			return bp_err_nomem();
		d->chunk = chunk;
		d->chunk_cap = len;
	}
	err = read_at(t, ref->offset, d->chunk, len, &n);
	if (err)
		return err;
	if (n < len)
		return bp_err_data(t->path, ref->offset + n, "event block: the file was cut short");
	memcpy(&head, d->chunk, sizeof(head));
	/* The header again: the file may have changed since it was opened. */
	if (!header_is_good(t, &head) || head.stored_bytes != ref->stored_bytes ||
	    head.payload_crc != bp_crc32c(0, d->chunk + sizeof(head), head.stored_bytes))
		return bp_err_data(t->path, ref->offset, "event block: wrong checksum");
	b = bp_buf_make(d->chunk + sizeof(head), head.stored_bytes, t->path, ref->offset + sizeof(head));
	return bp_events_decode(d->events, &b, t->n_funcs, block);
}

size_t bp_trace_n_waits(const struct bp_trace *t)
{
	return t->n_waits;
}

uint64_t bp_trace_n_wait_records(const struct bp_trace *t)
{
	return t->n_wait_records;
}

void bp_trace_waits_range(const struct bp_trace *t, size_t i, uint64_t *first_ns, uint64_t *last_ns)
{
	assert(i < t->n_waits);
	*first_ns = t->waits[i].first_ns;
	*last_ns = t->waits[i].last_ns;
}

bool bp_trace_waits_gap(const struct bp_trace *t, size_t i)
{
	assert(i < t->n_waits);
	return t->waits[i].gap;
}

const struct bp_host_frame *bp_trace_host_frame(const struct bp_trace *t, uint32_t id)
{
	return id < t->n_host_frames && t->host_frames[id].id ? &t->host_frames[id] : NULL;
}

const uint32_t *bp_trace_host_stack(const struct bp_trace *t, uint32_t id, size_t *n)
{
	*n = id < t->n_host_stacks ? t->host_stacks[id].n : 0;
	return *n ? t->host_pool + t->host_stacks[id].first : NULL;
}

void bp_trace_host_ids(const struct bp_trace *t, uint32_t *frames, uint32_t *stacks)
{
	*frames = (uint32_t)t->n_host_frames;
	*stacks = (uint32_t)t->n_host_stacks;
}

void bp_wait_decoder_destroy(struct bp_wait_decoder *d)
{
	if (!d)
		return;
	ZSTD_freeDCtx(d->dctx);
	free(d->recs);
	free(d->stored);
	free(d->raw);
	free(d);
}

struct bp_err *bp_wait_decoder_create(struct bp_wait_decoder **ret)
{
	struct bp_wait_decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return bp_err_nomem();
	d->dctx = ZSTD_createDCtx();
	d->recs = malloc(BP_WAIT_BLOCK * sizeof(*d->recs));
	d->stored = malloc(BP_PAYLOAD_MAX);
	d->raw = malloc(BP_PAYLOAD_MAX);
	if (!d->dctx || !d->recs || !d->stored || !d->raw) {
		bp_wait_decoder_destroy(d);
		return bp_err_nomem();
	}
	*ret = d;
	return NULL;
}

struct bp_err *bp_wait_decoder_read(struct bp_wait_decoder *d, const struct bp_trace *t, size_t i,
				    const struct bp_wait **recs, size_t *n)
{
	const uint64_t offset = t->waits[i].offset;
	struct bp_chunk_header head;
	const uint8_t *raw;
	struct bp_buf b;
	struct bp_err *err;
	size_t len;

	assert(i < t->n_waits);
	err = read_at(t, offset, &head, sizeof(head), &len);
	if (err)
		return err;
	if (len != sizeof(head) || !header_is_good(t, &head) || head.type != BP_CHUNK_WAITS ||
	    head.raw_bytes > BP_PAYLOAD_MAX || head.stored_bytes > head.raw_bytes ||
	    (!(head.flags & BP_CHUNK_ZSTD) && head.stored_bytes != head.raw_bytes) ||
	    head.items > BP_WAIT_BLOCK)
		return bp_err_data(t->path, offset, "block of waits: bad header");
	err = read_at(t, offset + sizeof(head), d->stored, head.stored_bytes, &len);
	if (err)
		return err;
	if (len != head.stored_bytes || bp_crc32c(0, d->stored, len) != head.payload_crc)
		return bp_err_data(t->path, offset, "block of waits: wrong checksum");
	raw = d->stored;
	if (head.flags & BP_CHUNK_ZSTD) {
		len = ZSTD_decompressDCtx(d->dctx, d->raw, head.raw_bytes, d->stored, head.stored_bytes);
		if (ZSTD_isError(len) || len != head.raw_bytes)
			return bp_err_data(t->path, offset, "block of waits: does not expand");
		raw = d->raw;
	}
	b = bp_buf_make(raw, head.raw_bytes, t->path, offset + sizeof(head));
	*recs = d->recs;
	return bp_waits_decode(&b, head.items, d->recs, n);
}
