/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * trace.dat files of trace-cmd, versions 6 and 7: where things are in the file, and the records of one CPU.
 *
 * Nothing in the file is trusted. Of a truncated or damaged file the valid part is read; what is missing is
 * said in bp_td_file.problem. One thread per file; records are borrowed until the next one of their stream.
 *
 * Sources of the format: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5); for the pages the kernel's
 * events/header_page, events/header_event and include/linux/ring_buffer.h. Two things differ from the manual
 * pages: the size in a section header of version 7 has 8 bytes, and a BUFFER option has the page size (4
 * bytes) between the clock and the number of CPUs.
 */
#ifndef BP_COLLECTORS_FTRACE_TRACEDAT_FILE_H
#define BP_COLLECTORS_FTRACE_TRACEDAT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collectors/ftrace/tep.h"
#include "core/err.h"
#include "core/source.h"

enum bp_td_packing { BP_TD_NONE, BP_TD_ZLIB, BP_TD_ZSTD, BP_TD_UNKNOWN };

/* ---- expanding (tracedat_unpack.c) ---- */

struct bp_td_unpacker;

/** bp_td_unpack() - expand @n bytes into @dst; returns the number of bytes, SIZE_MAX when they are damaged or
 * do not fit. *@u holds what is kept between calls, NULL at first. */
size_t bp_td_unpack(struct bp_td_unpacker **u, enum bp_td_packing how, const uint8_t *src, size_t n,
		    uint8_t *dst, size_t cap);
void bp_td_unpacker_destroy(struct bp_td_unpacker *u);

/**
 * bp_td_unpack_alloc() - expand into memory of its own, which grows with what really comes out
 * @max: more is an error; @ret: owned by the caller, NULL when the bytes are damaged (which is no error)
 */
struct bp_err *bp_td_unpack_alloc(enum bp_td_packing how, const uint8_t *src, size_t n, size_t max,
				  uint8_t **ret, size_t *len) BP_MUST_CHECK;

/* ---- the file (tracedat_file.c) ---- */

/* Where the pages of one CPU are. */
struct bp_td_range {
	uint32_t cpu;
	uint32_t buffer;       /* index into buffers */
	uint64_t offset, size; /* of packed ones without the number of pieces (4 bytes) in front */
};

struct bp_td_buffer {
	char *name;  /* "" for the top one */
	char *clock; /* "" when not known */
	uint32_t page_bytes;
	bool packed;
	bool text; /* latency format: text, not pages */
	uint64_t offset;
};

/* Clock of the peer (usually the host) = ((own * scaling) >> fraction) + offset from a moment on. */
struct bp_td_shift {
	uint64_t time;
	int64_t offset;
	uint64_t scaling, fraction;
};

struct bp_td_shifts {
	struct bp_td_shift *samples;
	uint32_t n;
};

struct bp_td_guest {
	char *name;
	uint64_t trace_id;
	uint32_t n_cpus;
	int32_t *pids; /* host thread of each guest CPU, -1 not known */
};

struct bp_td_file {
	char *path; /* for texts */
	int fd;
	bool owns_fd;
	uint64_t size;
	unsigned version;
	bool big_endian;
	uint32_t long_bytes, page_bytes;
	enum bp_td_packing packing;
	char packing_name[32];

	/* From header_page. */
	uint32_t commit_offset, commit_bytes, data_offset, subbuf_bytes;

	struct bp_tep tep;
	const char *kallsyms, *cmdlines, *printk; /* borrowed from `owned` */
	size_t kallsyms_len, cmdlines_len, printk_len;
	char *clock, *uname, *writer;
	uint64_t trace_id, peer_id;
	bool have_trace_id, have_shift;
	uint32_t shift_flags;        /* 1: interpolate */
	struct bp_td_shifts *shifts; /* per CPU */
	uint32_t n_shifts;
	struct bp_td_guest *guests;
	uint32_t n_guests;
	uint32_t tsc_mult, tsc_shift; /* 0: stamps are ns */
	uint64_t tsc_offset;

	struct bp_td_buffer *buffers;
	uint32_t n_buffers;
	struct bp_td_range *ranges;
	uint32_t n_ranges;
	uint64_t range_bytes; /* all together */

	uint32_t n_cpus;
	bool truncated; /* something lies behind the end of the file */
	bool recovered; /* version 7 whose index is missing: CPUs were told apart by their time stamps */
	uint64_t problem_offset; /* UINT64_MAX: none */
	char problem[120];

	void **owned;
	uint32_t n_owned, cap_owned;
};

/**
 * bp_td_open() - read all but the events
 * @src: borrowed until close when it is a plain file; otherwise read to its end into an unlinked temporary
 * file Errors: BP_EDATA when it is no trace.dat at all; BP_EUNSUPPORTED for other versions; BP_EOS.
 */
struct bp_err *bp_td_open(struct bp_source *src, struct bp_td_file **ret) BP_MUST_CHECK;

/** bp_td_open_fd() - the same for a descriptor, which is borrowed until close */
struct bp_err *bp_td_open_fd(int fd, const char *path, struct bp_td_file **ret) BP_MUST_CHECK;
void bp_td_close(struct bp_td_file *f);

/** bp_td_probe() - does it begin like one? */
bool bp_td_probe(const uint8_t *head, size_t len);

/** bp_td_read() - up to @n bytes at @offset; fewer only at the end of the file */
struct bp_err *bp_td_read(const struct bp_td_file *f, uint64_t offset, void *dst, size_t n,
			  size_t *got) BP_MUST_CHECK;

/** bp_td_problem() - remember the first thing that was wrong with the file */
void bp_td_problem(struct bp_td_file *f, uint64_t offset, const char *fmt, ...) BP_PRINTF(3, 4);

/** bp_td_peer_time() - a time stamp of @cpu on the clock of the peer, with the offsets stored in the file */
uint64_t bp_td_peer_time(const struct bp_td_file *f, uint32_t cpu, uint64_t ts);

/* ---- records (tracedat_stream.c) ---- */

struct bp_td_stats {
	uint64_t events, pages;
	uint64_t loss_pages;  /* pages that follow a loss */
	uint64_t lost_stored; /* events lost, where a page says how many */
	uint64_t bad_pages;   /* pages with something senseless in them; what is before it is read */
	uint64_t first_ts, last_ts;
};

struct bp_td_ahead;

/* Whole pages as they come from the file, and what was wrong with that. */
struct bp_td_piece {
	uint8_t *data;
	size_t cap, len;
	uint64_t offset; /* in the file: of the data, or of its first packed piece */
	struct bp_err *err;
	const char *bad; /* NULL: nothing */
	uint64_t bad_offset;
	bool truncated, loss;
};

struct bp_td_stream {
	struct bp_td_file *file;
	uint32_t cpu, buffer;

	/* The current record. */
	const uint8_t *data;
	uint32_t len;
	uint64_t ts;
	/* A loss before it. */
	bool after_loss;
	uint64_t lost; /* 0: how many is not known */

	struct bp_td_stats stats;

	/* Private. */
	const uint8_t *pos, *page_end;
	uint32_t page_bytes;
	bool packed;
	struct bp_td_piece now; /* being read */
	size_t now_pos;
	bool loss_next; /* between this piece and the next */
	/* Reading on; the helper thread's from `asked` until `there`. */
	struct bp_td_piece next;
	uint64_t offset, end; /* of the file */
	uint64_t chunks_left;
	uint8_t *raw;
	size_t raw_cap, budget;
	struct bp_td_unpacker *unpacker;
	struct bp_td_ahead *ahead;
	struct bp_td_stream *queued;
	bool asked, there; /* of `next`; `there` under the helper's lock */
};

/**
 * bp_td_ahead_create() - a thread that reads (and expands) ahead for any number of streams
 * *@ret is NULL when there can be no thread; streams then read for themselves.
 */
struct bp_err *bp_td_ahead_create(struct bp_td_ahead **ret) BP_MUST_CHECK;

/** bp_td_ahead_destroy() - after all streams that use it; NULL is fine */
void bp_td_ahead_destroy(struct bp_td_ahead *a);

/**
 * bp_td_stream_init() - @budget: bytes that it may use for its buffers; @ahead: NULL for none
 */
struct bp_err *bp_td_stream_init(struct bp_td_stream *s, struct bp_td_file *f,
				 const struct bp_td_range *range, size_t budget,
				 struct bp_td_ahead *ahead) BP_MUST_CHECK;
void bp_td_stream_deinit(struct bp_td_stream *s);

/** bp_td_stream_page() - to the first record of the next page that has one; *@more false at the end */
struct bp_err *bp_td_stream_page(struct bp_td_stream *s, bool *more) BP_MUST_CHECK;

/** bp_td_stream_step() - the next record of this page; false: there is none (the caller goes to the next
 * page) */
bool bp_td_stream_step(struct bp_td_stream *s);

/** bp_td_stream_next() - the next record; *@more false at the end */
static inline BP_MUST_CHECK struct bp_err *bp_td_stream_next(struct bp_td_stream *s, bool *more)
{
	s->after_loss = false;
	if (bp_td_stream_step(s)) {
		*more = true;
		return NULL;
	}
	return bp_td_stream_page(s, more);
}

#endif
