// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Text of `-d exec`. One line for each block that is entered through QEMU's main loop, or, with nochain, for
 * each block at all. What was printed by which version:
 *
 *   Trace HOST [PC] SYMBOL                                     up to 2.8
 *   Trace HOST [CPU: PC] SYMBOL                                2.9 to 2.11
 *   Trace CPU: HOST [CSBASE/PC/FLAGS] SYMBOL                   2.12 to 6.1
 *   Trace CPU: HOST [CSBASE/PC/FLAGS/CFLAGS] SYMBOL            from 6.2
 *   2025-01-31T12:34:56.123456Z Trace CPU: ...                 from 10.2, with -msg timestamp=on
 *
 * PC is a linear address. FLAGS of an x86 guest has the privilege level in its two lowest bits, CFLAGS has
 * 0x200 with nochain.
 */
#include <stdlib.h>
#include <string.h>

#include "collectors/qemu/blocks.h"
#include "collectors/qemu/textscan.h"
#include "core/cleanup.h"

#define CF_NO_GOTO_TB 0x200

/* The part of a line up to the bracket that is compared with the one before. */
#define LAYOUT_BYTES 112

struct line {
	uint64_t pc, flags, cflags, time_ns;
	uint64_t cpu;
	bool has_flags, has_cflags, has_time;
	size_t cpu_at, cpu_len, pc_at, pc_len, flags_last,
	    end; /* offsets in the line; end: behind the bracket */
};

/*
 * Where the fields of the last line were. Lines look alike, so most need not be taken apart: what is
 * no digit of a number must be equal, the numbers are then where they were.
 */
struct layout {
	bool valid;
	size_t words, cpu_at, cpu_len, pc_at, flags_last, end;
	uint64_t text[LAYOUT_BYTES / 8], mask[LAYOUT_BYTES / 8];
};

struct exec_log {
	struct bp_import *im;
	struct bp_blocks *blocks;
	struct layout layout;
	uint64_t first_ns;
	bool timed, has_mode, again;
	uint64_t high_text; /* the first eight digits of the newest address ... */
	uint64_t high;      /* ... and their value */
};

/* Takes a line apart; false: not one of ours. */
static bool parse(const char *start, const char *end, struct line *l)
{
	const char *p = start, *q;
	uint64_t v;
	size_t n = 0;

	*l = (struct line){0};
	q = bp_scan_iso(p, end, &l->time_ns);
	if (q) {
		l->has_time = true;
		p = q;
	}
	if (!bp_scan_is(p, end, "Trace "))
		return false;
	p += 6;
	q = bp_scan_dec(p, end, &v);
	if (q && end - q > 1 && q[0] == ':' && q[1] == ' ') {
		l->cpu = v;
		l->cpu_at = (size_t)(p - start);
		l->cpu_len = (size_t)(q - p);
		p = q + 2;
	}
	p = bp_scan_0x(p, end, &v);
	if (!p || end - p < 2 || p[0] != ' ' || p[1] != '[')
		return false;
	p += 2;
	q = bp_scan_dec(p, end, &v);
	if (q && end - q > 1 && q[0] == ':' && q[1] == ' ') {
		l->cpu = v;
		l->cpu_at = (size_t)(p - start);
		l->cpu_len = (size_t)(q - p);
		p = q + 2;
	}
	for (;; p++) {
		q = bp_scan_0x(p, end, &v);
		if (!q || q == end || (*q != '/' && *q != ']'))
			return false;
		if (n == 0 || n == 1) {
			l->pc = v;
			l->pc_at = (size_t)(p - start);
			l->pc_len = (size_t)(q - p);
		} else if (n == 2) {
			l->flags = v;
			l->has_flags = true;
			l->flags_last = (size_t)(q - start) - 1;
		} else if (n == 3) {
			l->cflags = v;
			l->has_cflags = true;
		}
		n++;
		p = q;
		if (*p == ']')
			break;
	}
	l->end = (size_t)(p - start) + 1;
	return n == 1 || n == 3 || n == 4;
}

/* Remembers the layout of a line that was understood. */
static void learn(struct layout *y, const char *start, const struct line *l)
{
	uint8_t mask[LAYOUT_BYTES] = {0};
	char text[LAYOUT_BYTES] = {0};
	bool number = false;

	y->valid = l->pc_len == 16 && l->end <= LAYOUT_BYTES && !l->has_time;
	if (!y->valid)
		return;
	memcpy(text, start, l->end);
	for (size_t i = 0; i < l->end; i++) {
		/* Digits belong to numbers, but for those of words and of 0x. */
		number = bp_scan_digit(text[i]) >= 0 &&
			 (number || (i >= 6 && text[i] >= '0' && text[i] <= '9') || text[i - 1] == '[' ||
			  text[i - 1] == '/' || text[i - 1] == 'x');
		mask[i] = number && !(i + 1 < l->end && text[i + 1] == 'x') ? 0 : 0xff;
	}
	memcpy(y->text, text, sizeof(text));
	memcpy(y->mask, mask, sizeof(mask));
	y->words = (l->end + 7) / 8;
	y->cpu_at = l->cpu_at;
	y->cpu_len = l->cpu_len;
	y->pc_at = l->pc_at;
	y->flags_last = l->has_flags ? l->flags_last : 0;
	y->end = l->end;
}

static inline bool user_mode(char digit)
{
	/* The two lowest bits of a hexadecimal digit. */
	return (((digit & 15) + (digit >> 6 & 1) * 9) & 3) == 3;
}

/* What else `-d exec` prints, or other flags of -d that go well with it. */
static BP_MUST_CHECK struct bp_err *other_line(struct exec_log *x, const char *start, const char *end,
					       uint64_t offset, bool whole)
{
	struct bp_import_stats *st = x->im->stats;
	uint64_t time_ns, pc;
	const char *p = bp_scan_iso(start, end, &time_ns), *q;

	if (!p)
		p = start;
	if (p == end)
		return NULL;
	if (bp_scan_is(p, end, "Stopped execution of TB chain before ")) {
		q = memchr(p, '[', (size_t)(end - p));
		q = q ? bp_scan_0x(q + 1, end, &pc) : NULL;
		if (q && q < end && *q == ']') {
			/* Its line may have been printed, but it did not run. */
			bp_blocks_take_back(x->blocks, pc);
			st->records++;
			return NULL;
		}
	} else if (bp_scan_is(p, end, "cpu_io_recompile: rewound execution of TB to ")) {
		x->again = true;
		st->records++;
		return NULL;
	} else if (bp_scan_is(p, end, "Linking TBs ")) {
		st->records++;
		return NULL;
	} else if (end - p > 5 && (p[2] == '=' || p[3] == '=' || p[4] == '=')) {
		/* Registers, from -d exec,cpu. */
		return NULL;
	}
	if (whole)
		bp_blocks_bad(st, offset, "not a line of -d exec");
	else
		st->truncated = true;
	return NULL;
}

static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *
slow_line(struct exec_log *x, const char *start, const char *end, uint64_t offset, bool whole)
{
	struct line l;

	if (end > start && end[-1] == '\r')
		end--;
	if (!parse(start, end, &l))
		return other_line(x, start, end, offset, whole);
	if (l.cpu >= BP_BUILDER_CPUS || (x->timed && !l.has_time)) {
		bp_blocks_bad(x->im->stats, offset,
			      l.cpu >= BP_BUILDER_CPUS ? "CPU number out of range" : "no time stamp");
		return NULL;
	}
	learn(&x->layout, start, &l);
	x->im->stats->records++;
	if (l.has_flags && (l.flags & 3) == 3)
		l.pc |= BP_BLOCKS_USER;
	if (l.has_time && !x->first_ns)
		x->first_ns = l.time_ns;
	l.time_ns = l.time_ns > x->first_ns ? l.time_ns - x->first_ns : 0;
	return bp_blocks_add(x->blocks, l.pc, l.time_ns, (uint32_t)l.cpu,
			     x->again ? BP_BLOCKS_AGAIN : BP_BLOCKS_RUN);
}

/* Lines as long as they look like the one before; where that ends. */
static BP_MUST_CHECK struct bp_err *fast_lines(struct exec_log *x, const char **pos, const char *end)
{
	const struct layout y = x->layout;
	struct bp_blocks *b = x->blocks;
	struct bp_blocks_rec *out = b->recs + b->n, *full = b->recs + BP_BLOCKS_BATCH;
	const char *p = *pos;
	uint64_t high_text = x->high_text, high = x->high, records = 0;
	struct bp_err *err = NULL;

	for (; end - p > LAYOUT_BYTES; p++) {
		uint64_t diff = 0, text, addr;
		uint32_t cpu, low;

		for (size_t i = 0; i < y.words; i++)
			diff |= (bp_scan_load8(p + 8 * i) ^ y.text[i]) & y.mask[i];
		if (diff)
			break;
		text = bp_scan_load8(p + y.pc_at);
		if (text != high_text) {
			uint32_t v;

			if (!bp_scan_hex8(text, &v))
				break;
			high_text = text;
			high = (uint64_t)v << 32;
		}
		if (!bp_scan_hex8(bp_scan_load8(p + y.pc_at + 8), &low))
			break;
		addr = high | low;
		if (y.cpu_len <= 1) {
			cpu = y.cpu_len ? (uint32_t)(p[y.cpu_at] - '0') : 0;
			if (cpu > 9)
				break;
		} else {
			uint64_t v = 0;

			if (bp_scan_dec(p + y.cpu_at, end, &v) != p + y.cpu_at + y.cpu_len ||
			    v >= BP_BUILDER_CPUS)
				break;
			cpu = (uint32_t)v;
		}
		if (y.flags_last && user_mode(p[y.flags_last]))
			addr |= BP_BLOCKS_USER;
		p += y.end;
		if (p[0] == ' ' && p[1] == '\n') {
			p++;
		} else if (*p != '\n') {
			const char *nl = memchr(p, '\n', (size_t)(end - p));

			if (!nl) {
				p -= y.end;
				break;
			}
			p = nl;
		}
		*out++ = (struct bp_blocks_rec){addr, 0, cpu, BP_BLOCKS_RUN};
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
	x->high_text = high_text;
	x->high = high;
	x->im->stats->records += records;
	*pos = p;
	return err;
}

static BP_MUST_CHECK struct bp_err *piece(struct exec_log *x, const char *data, size_t len, uint64_t offset)
{
	const char *p = data, *end = data + len;
	struct bp_err *err = NULL;

	while (p < end && !err) {
		const char *nl;

		if (x->layout.valid && !x->again) {
			err = fast_lines(x, &p, end);
			if (err || p >= end)
				break;
		}
		nl = memchr(p, '\n', (size_t)(end - p));
		err = slow_line(x, p, nl ? nl : end, offset + (uint64_t)(p - data), nl);
		if (x->again && x->blocks->n && x->blocks->recs[x->blocks->n - 1].kind == BP_BLOCKS_AGAIN)
			x->again = false;
		p = nl ? nl + 1 : end;
	}
	return err;
}

/* What the first lines tell about the whole log. */
static struct bp_blocks_options options_of(struct exec_log *x, const char *p, const char *end)
{
	struct bp_blocks_options opt = {.count_clock = true, .complete = true};
	bool seen = false;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		uint64_t time_ns;
		const char *q;
		struct line l;

		if (!nl)
			break;
		q = bp_scan_iso(p, end, &time_ns);
		if (bp_scan_is(q ? q : p, end, "Linking TBs "))
			opt.complete = false;
		if (!seen && parse(p, nl, &l)) {
			seen = true;
			x->timed = l.has_time;
			opt.count_clock = !l.has_time;
			x->has_mode = opt.has_mode = l.has_flags;
			if (l.has_cflags && !(l.cflags & CF_NO_GOTO_TB))
				opt.complete = false;
		}
		p = nl + 1;
	}
	if (!opt.complete)
		opt.no_stacks = "none: the log was written without nochain and lacks most blocks";
	return opt;
}

static void blocks_destroyp(struct bp_blocks **b)
{
	bp_blocks_destroy(*b);
}

static BP_MUST_CHECK struct bp_err *run(struct bp_import *im)
{
	bp_cleanup(blocks_destroyp) struct bp_blocks *blocks = NULL;
	struct exec_log x = {.im = im};
	struct bp_blocks_options opt;
	const uint8_t *head;
	struct bp_err *err, *err2;
	size_t len;

	im->stats->first_bad_offset = UINT64_MAX;
	err = bp_source_peek(im->source, 65536, &head, &len);
	if (err)
		return err;
	opt = options_of(&x, (const char *)head, (const char *)head + len);
	err = bp_blocks_create(im, &opt, &blocks);
	if (err)
		return err;
	x.blocks = blocks;
	while (!err) {
		uint64_t offset = bp_source_offset(im->source);
		const char *data;

		err = bp_source_next_lines(im->source, &data, &len);
		if (err || !len)
			break;
		err = piece(&x, data, len, offset);
		if (!err && !bp_blocks_keep_going(im))
			break;
	}
	/* What was read so far is kept. */
	err2 = bp_blocks_finish(blocks);
	if (err) {
		bp_err_ignore(err2);
		return err;
	}
	return err2;
}

static int probe(const uint8_t *head, size_t len)
{
	const char *p = (const char *)head, *end = p + len;
	int seen = 0, other = 0;

	while (p < end && seen + other < 50) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		struct line l;

		if (!nl)
			break;
		if (parse(p, nl, &l))
			seen++;
		else if (!bp_scan_is(p, nl, "Linking TBs ") && !bp_scan_is(p, nl, "Stopped execution"))
			other++;
		p = nl + 1;
	}
	return !seen ? 0 : other ? 70 : 95;
}

const struct bp_importer bp_import_qemu_exec = {
    .name = "qemu-exec",
    .summary = "text of QEMU's -d exec (complete with -d exec,nochain)",
    .probe = probe,
    .run = run,
};
