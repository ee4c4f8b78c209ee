// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Text of `-trace exec_tb` with QEMU's log backend:
 *
 *   exec_tb tb:0x7f333c0318c0 pc=0xea65f                                     without time stamps
 *   19829@1795247622.301306:exec_tb tb:0x7f7dac0318c0 pc=0xea65f             thread, wall clock; up to 10.1
 *   2025-01-31T12:34:56.123456Z exec_tb tb:0x7f7dac0318c0 pc=0xea65f         from 10.2
 *
 * Also with nochain it lacks blocks: those that are reached through an indirect jump or a return and have run
 * before. So there are no call stacks, only what was executed when.
 */
#include <stdlib.h>
#include <string.h>

#include "collectors/qemu/blocks.h"
#include "collectors/qemu/textscan.h"
#include "core/cleanup.h"

#define LAYOUT_BYTES 112
#define MAX_THREADS 256

struct line {
	uint64_t pc, tid, sec_ns, usec;
	bool timed, has_tid;
	bool exec; /* exec_tb; else some other event */
	size_t tid_len, usec_at, pc_at;
};

/* Where the fields were, as in exec_log.c; from pc_at on the line ends with the address. */
struct layout {
	bool valid;
	size_t words, tid_len, usec_at, pc_at;
	uint64_t sec_ns;
	uint64_t text[LAYOUT_BYTES / 8], mask[LAYOUT_BYTES / 8];
};

struct trace_log {
	struct bp_import *im;
	struct bp_blocks *blocks;
	struct layout layout;
	bool timed, have_first;
	uint64_t first_ns;
	uint64_t tids[MAX_THREADS];
	uint32_t n_tids;
	uint64_t tid_text, tid_mask;
	uint32_t tid_cpu;
};

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool parse(const char *start, const char *end, struct line *l)
{
	const char *p = start, *q;
	uint64_t v;

	*l = (struct line){0};
	q = bp_scan_iso(p, end, &v);
	if (q) {
		l->timed = true;
		l->usec = v / 1000 % 1000000;
		l->sec_ns = v - l->usec * 1000;
		l->usec_at = 20;
		p = q;
	} else {
		q = bp_scan_dec(p, end, &l->tid);
		if (q && q < end && *q == '@') {
			l->has_tid = true;
			l->tid_len = (size_t)(q - p);
			p = q + 1;
			q = bp_scan_dec(p, end, &v);
			if (!q || q == end || *q != '.' || v > UINT64_MAX / 2000000000u)
				return false;
			l->sec_ns = v * 1000000000u;
			p = q + 1;
			l->usec_at = (size_t)(p - start);
			q = bp_scan_dec(p, end, &l->usec);
			if (!q || q - p != 6 || q == end || *q != ':')
				return false;
			l->timed = true;
			p = q + 1;
		}
	}
	if (!bp_scan_is(p, end, "exec_tb tb:")) {
		/* NAME, or NAME and its arguments. */
		for (q = p; q < end && is_name(*q); q++)
			;
		return q > p && !(*p >= '0' && *p <= '9') && (q == end || *q == ' ') &&
		       memchr(p, '_', (size_t)(q - p));
	}
	p = bp_scan_0x(p + 11, end, &v);
	if (!p || !bp_scan_is(p, end, " pc="))
		return false;
	p += 4;
	if (end - p > 2 && p[0] == '0' && p[1] == 'x')
		p += 2;
	l->pc_at = (size_t)(p - start);
	l->exec = true;
	return bp_scan_hex(p, end, &l->pc) == end;
}

static void learn(struct layout *y, const char *start, const struct line *l)
{
	uint8_t mask[LAYOUT_BYTES] = {0};
	char text[LAYOUT_BYTES] = {0};

	y->valid = l->pc_at <= LAYOUT_BYTES && l->tid_len <= 8;
	if (!y->valid)
		return;
	memcpy(text, start, l->pc_at);
	memset(mask, 0xff, l->pc_at);
	memset(mask, 0, l->tid_len);
	if (l->timed)
		memset(mask + l->usec_at, 0, 6);
	/* The descriptor's address: from behind "tb:0x" up to the blank. */
	for (size_t i = l->pc_at; i > 5;) {
		if (text[--i] != ' ')
			continue;
		while (--i > 0 && bp_scan_digit(text[i]) >= 0)
			mask[i] = 0;
		break;
	}
	memcpy(y->text, text, sizeof(text));
	memcpy(y->mask, mask, sizeof(mask));
	y->words = (l->pc_at + 7) / 8;
	y->tid_len = l->tid_len;
	y->usec_at = l->timed ? l->usec_at : 0;
	y->pc_at = l->pc_at;
	y->sec_ns = l->sec_ns;
}

/* Threads are vCPUs, in the order in which they turn up; NULL: there are too many. */
static uint32_t cpu_of(struct trace_log *x, uint64_t tid)
{
	for (uint32_t i = 0; i < x->n_tids; i++)
		if (x->tids[i] == tid)
			return i;
	if (x->n_tids == MAX_THREADS)
		return MAX_THREADS - 1;
	x->tids[x->n_tids] = tid;
	return x->n_tids++;
}

static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *
slow_line(struct trace_log *x, const char *start, const char *end, uint64_t offset, bool whole)
{
	struct bp_import_stats *st = x->im->stats;
	uint64_t ns;
	uint32_t cpu = 0;
	struct line l;

	if (end > start && end[-1] == '\r')
		end--;
	if (start == end)
		return NULL;
	/* An address that is cut short would be another one. */
	if (!whole) {
		st->truncated = true;
		return NULL;
	}
	if (!parse(start, end, &l)) {
		if (bp_scan_is(start, end, "Trace ") || bp_scan_is(start, end, "Linking TBs ") ||
		    bp_scan_is(start, end, "Stopped execution "))
			return NULL;
		bp_blocks_bad(st, offset, "not a line of -trace");
		return NULL;
	}
	if (x->timed && !l.timed) {
		bp_blocks_bad(st, offset, "no time stamp");
		return NULL;
	}
	st->records++;
	if (!l.exec)
		return NULL;
	learn(&x->layout, start, &l);
	if (l.has_tid) {
		cpu = cpu_of(x, l.tid);
		x->tid_mask = l.tid_len == 8 ? UINT64_MAX : (1ull << 8 * (l.tid_len & 7)) - 1;
		x->layout.valid &= end - start >= 8;
		x->tid_text = end - start >= 8 ? bp_scan_load8(start) & x->tid_mask : 0;
		x->tid_cpu = cpu;
	}
	ns = l.sec_ns + l.usec * 1000;
	if (!x->have_first) {
		x->have_first = true;
		x->first_ns = ns;
	}
	return bp_blocks_add(x->blocks, l.pc, ns > x->first_ns ? ns - x->first_ns : 0, cpu, BP_BLOCKS_RUN);
}

static BP_MUST_CHECK struct bp_err *fast_lines(struct trace_log *x, const char **pos, const char *end)
{
	const struct layout y = x->layout;
	const uint64_t base = y.sec_ns - x->first_ns; /* may wrap: what is added makes it right again */
	struct bp_blocks *b = x->blocks;
	struct bp_blocks_rec *out = b->recs + b->n, *full = b->recs + BP_BLOCKS_BATCH;
	const char *p = *pos;
	uint64_t records = 0;
	struct bp_err *err = NULL;

	for (; end - p > LAYOUT_BYTES + 24; p++) {
		uint64_t diff = 0, addr, ns = 0;
		const char *q = p + y.pc_at;
		uint32_t high, low;

		for (size_t i = 0; i < y.words; i++)
			diff |= (bp_scan_load8(p + 8 * i) ^ y.text[i]) & y.mask[i];
		if (y.tid_len)
			diff |= (bp_scan_load8(p) & x->tid_mask) ^ x->tid_text;
		if (diff)
			break;
		if (q[16] == '\n' && bp_scan_hex8(bp_scan_load8(q), &high) &&
		    bp_scan_hex8(bp_scan_load8(q + 8), &low)) {
			addr = (uint64_t)high << 32 | low;
			q += 16;
		} else {
			q = bp_scan_hex(q, q + 17, &addr);
			if (!q || *q != '\n')
				break;
		}
		if (y.usec_at) {
			const char *u = p + y.usec_at;
			uint32_t usec = 0;

			for (size_t i = 0; i < 6; i++) {
				uint32_t digit = (uint32_t)(u[i] - '0');

				diff |= digit > 9;
				usec = usec * 10 + digit;
			}
			ns = base + (uint64_t)usec * 1000;
			if (diff)
				break;
			if ((int64_t)ns < 0)
				ns = 0;
		}
		p = q;
		*out++ = (struct bp_blocks_rec){addr, ns, x->tid_cpu, BP_BLOCKS_RUN};
		records++;
		if (out == full) {
			b->n = BP_BLOCKS_BATCH;
			err = bp_blocks_hand_over(b);
			if (err) {
				p++;
				break;
			}
			out = b->recs + b->n;
			full = b->recs + BP_BLOCKS_BATCH;
		}
	}
	if (!err)
		b->n = (size_t)(out - b->recs);
	x->im->stats->records += records;
	*pos = p;
	return err;
}

static BP_MUST_CHECK struct bp_err *piece(struct trace_log *x, const char *data, size_t len, uint64_t offset)
{
	const char *p = data, *end = data + len;
	struct bp_err *err = NULL;

	while (p < end && !err) {
		const char *nl;

		if (x->layout.valid) {
			err = fast_lines(x, &p, end);
			if (err || p >= end)
				break;
		}
		nl = memchr(p, '\n', (size_t)(end - p));
		err = slow_line(x, p, nl ? nl : end, offset + (uint64_t)(p - data), nl);
		p = nl ? nl + 1 : end;
	}
	return err;
}

/* How many lines of the beginning are of this format, exec_tb or not, and whether they have time stamps. */
static int count_lines(const char *p, const char *end, int *other, bool *timed)
{
	int seen = 0;

	*other = 0;
	*timed = false;
	while (p < end && seen + *other < 1000) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		struct line l;

		if (!nl)
			break;
		if (!parse(p, nl, &l)) {
			(*other)++;
		} else if (l.exec) {
			*timed |= l.timed;
			seen++;
		}
		p = nl + 1;
	}
	return seen;
}

static void blocks_destroyp(struct bp_blocks **b)
{
	bp_blocks_destroy(*b);
}

static BP_MUST_CHECK struct bp_err *run(struct bp_import *im)
{
	bp_cleanup(blocks_destroyp) struct bp_blocks *blocks = NULL;
	bp_autofree struct trace_log *x = calloc(1, sizeof(*x));
	struct bp_blocks_options opt = {.no_stacks =
					    "none: exec_tb lacks blocks that are returned or jumped to"};
	const uint8_t *head;
	struct bp_err *err, *err2;
	size_t len;
	int other;

	if (!x)
		return bp_err_nomem();
	im->stats->first_bad_offset = UINT64_MAX;
	err = bp_source_peek(im->source, 65536, &head, &len);
	if (err)
		return err;
	count_lines((const char *)head, (const char *)head + len, &other, &x->timed);
	opt.count_clock = !x->timed;
	err = bp_blocks_create(im, &opt, &blocks);
	if (err)
		return err;
	x->im = im;
	x->blocks = blocks;
	while (!err) {
		uint64_t offset = bp_source_offset(im->source);
		const char *data;

		err = bp_source_next_lines(im->source, &data, &len);
		if (err || !len)
			break;
		err = piece(x, data, len, offset);
		if (!err && !bp_blocks_keep_going(im))
			break;
	}
	err2 = bp_blocks_finish(blocks);
	if (err) {
		bp_err_ignore(err2);
		return err;
	}
	return err2;
}

static int probe(const uint8_t *head, size_t len)
{
	const char *p = (const char *)head;
	bool timed;
	int other, seen = count_lines(p, p + len, &other, &timed);

	return !seen ? 0 : other > seen ? 20 : other ? 80 : 96;
}

const struct bp_importer bp_import_qemu_trace_log = {
    .name = "qemu-trace-log",
    .summary = "text of QEMU's -trace exec_tb (log backend)",
    .probe = probe,
    .run = run,
};
