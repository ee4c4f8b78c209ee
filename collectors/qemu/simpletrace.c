// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE /* asprintf() */
/*
 * A header of three words (all ones, magic, version), then items without padding. Version 4: a word with the
 * type, 0: number, length and text of an event's name; 1: a record. Versions 2 and 3: records only. A record:
 * number of the event, time in ns, its length from the number on, the process, and a word for each argument
 * (strings: length and bytes).
 */
#include "collectors/qemu/simpletrace.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collectors/qemu/blocks.h"
#include "core/cleanup.h"

#define MAGIC 0xf2b177cb0aa429b4ull
#define ALL_ONES UINT64_MAX
#define EVENT_DROPPED (UINT64_MAX - 1)
#define HEADER_BYTES 24
#define RECORD_HEADER 24
#define EXEC_BYTES (RECORD_HEADER + 16)

/* QEMU's buffer: what was dropped would stand behind the records that filled it. */
#define RING_BYTES 262144

#define NAME_BYTES 512
#define RECORD_BYTES (1u << 20) /* a string argument has at most 512 bytes */
#define MAX_IDS (1u << 16)
#define CARRY_BYTES 4096 /* more than any item of which the contents matter */
#define EVENTS_FILE_BYTES (8u << 20)

struct simpletrace {
	struct bp_import *im;
	struct bp_blocks *blocks;
	uint64_t version;
	bool swap;
	uint64_t exec_id, nocache_id; /* UINT64_MAX: not known */
	uint8_t known[MAX_IDS / 8];   /* numbers that have a name */
	uint64_t first_ns, last_ns;
	bool have_first, lost_sync;
	uint64_t dropped;      /* not passed on yet */
	int64_t until_dropped; /* bytes of records in front of the gap */
	uint64_t skip;         /* rest of a record that does not matter */
	uint8_t carry[2 * CARRY_BYTES];
	size_t carried;
};

static inline __attribute__((always_inline)) uint64_t word(const uint8_t *p, bool swap)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return swap ? __builtin_bswap64(v) : v;
}

static inline __attribute__((always_inline)) uint32_t half(const uint8_t *p, bool swap)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return swap ? __builtin_bswap32(v) : v;
}

static bool is_known(const struct simpletrace *x, uint64_t id)
{
	return id < MAX_IDS && x->known[id / 8] >> (id & 7) & 1;
}

static bool is_name(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
		      (s[i] >= '0' && s[i] <= '9') || s[i] == '_'))
			return false;
	return n > 0;
}

static void add_name(struct simpletrace *x, uint64_t id, const char *name, size_t len)
{
	if (id < MAX_IDS)
		x->known[id / 8] |= (uint8_t)(1 << (id & 7));
	if (len == 7 && !memcmp(name, "exec_tb", 7))
		x->exec_id = id;
	else if (len == 15 && !memcmp(name, "exec_tb_nocache", 15))
		x->nocache_id = id;
}

static BP_MUST_CHECK struct bp_err *pass_dropped(struct simpletrace *x)
{
	uint64_t n = x->dropped;

	x->dropped = 0;
	x->until_dropped = INT64_MAX;
	return bp_blocks_add(x->blocks, n, x->last_ns, 0, BP_BLOCKS_LOST);
}

/* Bytes of the item at @p that are needed, 0: not a plausible item. At least 8 + RECORD_HEADER bytes are
 * there. */
static size_t plausible(const struct simpletrace *x, const uint8_t *p)
{
	size_t type_bytes = x->version == 4 ? 8 : 0;
	uint64_t id;
	uint32_t len;

	if (type_bytes && word(p, x->swap) == 0) {
		len = half(p + 16, x->swap);
		return len && len <= NAME_BYTES ? 20 + len : 0;
	}
	if (type_bytes && word(p, x->swap) != 1)
		return 0;
	p += type_bytes;
	id = word(p, x->swap);
	len = half(p + 16, x->swap);
	if (id == EVENT_DROPPED)
		return len == RECORD_HEADER + 8 ? type_bytes + len : 0;
	if (id == x->exec_id || id == x->nocache_id)
		return len == EXEC_BYTES ? type_bytes + len : 0;
	if (len < RECORD_HEADER || len > RECORD_BYTES || (x->lost_sync && !is_known(x, id)))
		return 0;
	return type_bytes + RECORD_HEADER;
}

/* An item that is not an exec_tb of the expected shape; *used: its bytes, 0: more are needed. */
static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *
other_item(struct simpletrace *x, const uint8_t *p, size_t n, uint64_t offset, size_t *used)
{
	size_t type_bytes = x->version == 4 ? 8 : 0, need;
	struct bp_import_stats *st = x->im->stats;
	struct bp_err *err = NULL;
	uint64_t id;
	uint32_t len;

	*used = 0;
	if (n < 8 + RECORD_HEADER)
		return NULL;
	need = plausible(x, p);
	if (!need) {
		/* Byte by byte to something that can be an item. */
		if (!x->lost_sync) {
			x->lost_sync = true;
			bp_blocks_bad(st, offset, "not a record");
			err = bp_blocks_add(x->blocks, 0, x->last_ns, 0, BP_BLOCKS_LOST);
		}
		*used = 1;
		return err;
	}
	if (n < need)
		return NULL;
	x->lost_sync = false;
	st->records++;
	if (type_bytes && word(p, x->swap) == 0) {
		const char *name = (const char *)p + 20;

		*used = need;
		if (is_name(name, need - 20))
			add_name(x, word(p + 8, x->swap), name, need - 20);
		return NULL;
	}
	p += type_bytes;
	id = word(p, x->swap);
	len = half(p + 16, x->swap);
	if (id == EVENT_DROPPED) {
		*used = need;
		if (x->dropped)
			err = pass_dropped(x);
		x->dropped = word(p + RECORD_HEADER, x->swap);
		x->until_dropped = RING_BYTES;
		return err;
	}
	if (x->dropped && (x->until_dropped -= len) < 0) {
		err = pass_dropped(x);
		if (err)
			return err;
	}
	if (id == x->exec_id || id == x->nocache_id) {
		*used = need;
		x->last_ns = word(p + 8, x->swap);
		if (!x->have_first) {
			x->have_first = true;
			x->first_ns = x->last_ns;
		}
		x->last_ns = x->last_ns > x->first_ns ? x->last_ns - x->first_ns : 0;
		return bp_blocks_add(x->blocks, word(p + RECORD_HEADER + 8, x->swap), x->last_ns, 0,
				     BP_BLOCKS_RUN);
	}
	/* Some other event: only its length matters. */
	*used = type_bytes + len;
	if (*used > n) {
		x->skip = *used - n;
		*used = n;
	}
	return NULL;
}

/* Records of exec_tb as long as one follows the other. */
static inline __attribute__((always_inline)) BP_MUST_CHECK struct bp_err *
exec_items(struct simpletrace *x, const uint8_t **pos, const uint8_t *end, bool swap, size_t type_bytes)
{
	struct bp_blocks *b = x->blocks;
	struct bp_blocks_rec *out = b->recs + b->n, *full = b->recs + BP_BLOCKS_BATCH;
	const uint8_t *p = *pos;
	const uint64_t exec_id = x->exec_id, first_ns = x->first_ns;
	uint64_t records = 0, last_ns = x->last_ns;
	struct bp_err *err = NULL;

	for (; (size_t)(end - p) >= type_bytes + EXEC_BYTES; p += type_bytes + EXEC_BYTES) {
		const uint8_t *r = p + type_bytes;
		uint64_t time_ns = word(r + 8, swap);

		if ((type_bytes && word(p, swap) != 1) || word(r, swap) != exec_id ||
		    half(r + 16, swap) != EXEC_BYTES)
			break;
		last_ns = time_ns > first_ns ? time_ns - first_ns : 0;
		*out++ = (struct bp_blocks_rec){word(r + RECORD_HEADER + 8, swap), last_ns, 0, BP_BLOCKS_RUN};
		records++;
		if (out == full) {
			b->n = BP_BLOCKS_BATCH;
			err = bp_blocks_hand_over(b);
			if (err)
				break;
			out = b->recs + b->n;
			full = b->recs + BP_BLOCKS_BATCH;
		}
	}
	if (!err)
		b->n = (size_t)(out - b->recs);
	x->last_ns = last_ns;
	x->im->stats->records += records;
	*pos = p;
	return err;
}

/* Items in [p, p + n); *used: what was taken. Items that begin at or behind @stop are left. */
static BP_MUST_CHECK struct bp_err *items(struct simpletrace *x, const uint8_t *data, size_t n, size_t stop,
					  uint64_t offset, size_t *used)
{
	const uint8_t *p = data, *end = data + n;
	struct bp_err *err = NULL;

	while (!err && (size_t)(p - data) < stop) {
		size_t one;

		if (x->skip) {
			one = x->skip < (size_t)(end - p) ? (size_t)x->skip : (size_t)(end - p);
			x->skip -= one;
			p += one;
			continue;
		}
		if (stop == n && x->have_first && !x->dropped && !x->lost_sync) {
			if (x->version == 4)
				err = x->swap ? exec_items(x, &p, end, true, 8)
					      : exec_items(x, &p, end, false, 8);
			else
				err = x->swap ? exec_items(x, &p, end, true, 0)
					      : exec_items(x, &p, end, false, 0);
			if (err || p == end)
				break;
		}
		err = other_item(x, p, (size_t)(end - p), offset + (uint64_t)(p - data), &one);
		if (!one)
			break;
		p += one;
	}
	*used = (size_t)(p - data);
	return err;
}

/* A piece of the file; an item may have begun in the one before. */
static BP_MUST_CHECK struct bp_err *piece(struct simpletrace *x, const uint8_t *data, size_t len,
					  uint64_t offset)
{
	struct bp_err *err;
	size_t used = 0, at = 0;

	while (x->carried) {
		size_t more = len - at < CARRY_BYTES ? len - at : CARRY_BYTES;

		memcpy(x->carry + x->carried, data + at, more);
		err = items(x, x->carry, x->carried + more, x->carried, offset + at - x->carried, &used);
		if (err)
			return err;
		if (used < x->carried) {
			/* The whole piece is smaller than what is missing. */
			memmove(x->carry, x->carry + used, x->carried + more - used);
			x->carried += more - used;
			return NULL;
		}
		at += used - x->carried;
		x->carried = 0;
	}
	err = items(x, data + at, len - at, len - at, offset + at, &used);
	if (err)
		return err;
	at += used;
	/* Less than an item of which the contents matter. */
	x->carried = len - at;
	memcpy(x->carry, data + at, x->carried);
	return NULL;
}

/* ---- declarations, for versions 2 and 3 ---- */

/* Names by line: "[PROPERTY...] NAME(ARGUMENTS) FORMAT"; all lines count, also those of disabled events. */
static void parse_events(struct simpletrace *x, const char *p, const char *end)
{
	uint64_t id = 0;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p)), *open, *name;

		if (!nl)
			nl = end;
		open = *p == '#' ? NULL : memchr(p, '(', (size_t)(nl - p));
		if (open) {
			for (name = open; name > p && name[-1] != ' ' && name[-1] != '\t'; name--)
				;
			if (is_name(name, (size_t)(open - name)))
				add_name(x, id++, name, (size_t)(open - name));
		}
		p = nl + 1;
	}
}

static BP_MUST_CHECK struct bp_err *read_events(struct simpletrace *x, const char *given)
{
	const char *trace = bp_source_path(x->im->source), *slash = strrchr(trace, '/');
	bp_autofree char *path = NULL, *text = NULL;
	bp_autoclose int fd = -1;
	size_t len = 0;

	if (given)
		path = strdup(given);
	else if (asprintf(&path, "%.*strace-events-all", slash ? (int)(slash - trace + 1) : 0, trace) < 0)
		path = NULL;
	text = malloc(EVENTS_FILE_BYTES);
	if (!path || !text)
		return bp_err_nomem();
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s: version %" PRIu64
				  " has numbers for names: the trace-events-all file of that "
				  "QEMU is needed as %s",
				  trace, x->version, path);
	while (len < EVENTS_FILE_BYTES) {
		ssize_t n = read(fd, text + len, EVENTS_FILE_BYTES - len);

		if (n <= 0)
			break;
		len += (size_t)n;
	}
	parse_events(x, text, text + len);
	if (x->exec_id == UINT64_MAX)
		return bp_err_data(path, BP_NO_OFFSET, "declares no event exec_tb");
	return NULL;
}

/* ---- the file ---- */

static bool check_header(const uint8_t *p, size_t n, bool *swap, uint64_t *version)
{
	if (n < HEADER_BYTES || word(p, false) != ALL_ONES)
		return false;
	*swap = word(p + 8, true) == MAGIC;
	*version = word(p + 16, *swap);
	return *swap || word(p + 8, false) == MAGIC;
}

static void blocks_destroyp(struct bp_blocks **b)
{
	bp_blocks_destroy(*b);
}

struct bp_err *bp_simpletrace_run(struct bp_import *im, const char *events_path)
{
	bp_autofree struct simpletrace *x = calloc(1, sizeof(*x));
	bp_cleanup(blocks_destroyp) struct bp_blocks *blocks = NULL;
	const struct bp_blocks_options opt = {
	    .no_stacks = "none: exec_tb lacks blocks that are returned or jumped to"};
	uint8_t header[HEADER_BYTES];
	const uint8_t *head;
	struct bp_err *err, *err2;
	size_t len;

	if (!x)
		return bp_err_nomem();
	im->stats->first_bad_offset = UINT64_MAX;
	*x = (struct simpletrace){
	    .im = im, .exec_id = UINT64_MAX, .nocache_id = UINT64_MAX, .until_dropped = INT64_MAX};
	err = bp_source_peek(im->source, HEADER_BYTES, &head, &len);
	if (err)
		return err;
	if (!check_header(head, len, &x->swap, &x->version))
		return bp_err_data(bp_source_path(im->source), 0, "not a trace of QEMU's simple backend");
	if (x->version < 2 || x->version > 4)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s: simpletrace version %" PRIu64 "; 2, 3 and 4 can be read",
				  bp_source_path(im->source), x->version);
	if (x->version < 4) {
		err = read_events(x, events_path);
		if (err)
			return err;
	}
	err = bp_source_read(im->source, header, HEADER_BYTES, &len);
	if (!err)
		err = bp_blocks_create(im, &opt, &blocks);
	x->blocks = blocks;
	while (!err) {
		uint64_t offset = bp_source_offset(im->source);
		const char *data;

		/* Where a piece ends does not matter here, and these need not be copied. */
		err = bp_source_next_lines(im->source, &data, &len);
		if (err || !len)
			break;
		err = piece(x, (const uint8_t *)data, len, offset);
		if (!err && !bp_blocks_keep_going(im))
			break;
	}
	if (!err && x->dropped)
		err = pass_dropped(x);
	im->stats->truncated |= x->carried || x->skip;
	if (!blocks)
		return err;
	err2 = bp_blocks_finish(blocks);
	if (err) {
		bp_err_ignore(err2);
		return err;
	}
	return err2;
}

static BP_MUST_CHECK struct bp_err *run(struct bp_import *im)
{
	return bp_simpletrace_run(im, NULL);
}

static int probe(const uint8_t *head, size_t len)
{
	uint64_t version;
	bool swap;

	return check_header(head, len, &swap, &version) ? 100 : 0;
}

const struct bp_importer bp_import_simpletrace = {
    .name = "simpletrace",
    .summary = "binary trace of QEMU's simple backend (-trace exec_tb)",
    .probe = probe,
    .run = run,
};
