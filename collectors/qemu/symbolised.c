// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Traces whose addresses a script has already looked up, as in "Tracing QEMU guest execution":
 *
 *   11409434.8589973 prepare_exit_to_usermode in section .text
 *   11409435.5189973 retint_user + 8 in section .text
 *   11409436.4899973 7fb95ab3cd20
 *
 * A time in microseconds, and what gdb's "info symbol" says (a decimal offset), or an address without a name.
 */
#include <stdlib.h>
#include <string.h>

#include "collectors/qemu/blocks.h"
#include "collectors/qemu/textscan.h"
#include "core/cleanup.h"

#define NAME_MAX_BYTES 512

struct line {
	uint64_t time_ns, addr, offset;
	const char *name;
	size_t name_len; /* 0: an address */
};

static bool parse(const char *p, const char *end, struct line *l)
{
	uint64_t usec, digit = 100;
	const char *q, *space;

	*l = (struct line){0};
	p = bp_scan_dec(p, end, &usec);
	if (!p || usec > UINT64_MAX / 4000 || p == end || *p != '.')
		return false;
	l->time_ns = usec * 1000;
	for (q = ++p; p < end && *p >= '0' && *p <= '9'; p++, digit /= 10)
		l->time_ns += digit * (uint64_t)(*p - '0');
	if (p == q || p == end || *p != ' ')
		return false;
	p++;
	space = memchr(p, ' ', (size_t)(end - p));
	if (!space) {
		q = bp_scan_0x(p, end, &l->addr);
		return q == end;
	}
	l->name = p;
	l->name_len = (size_t)(space - p);
	p = space;
	if (bp_scan_is(p, end, " + ")) {
		p = bp_scan_dec(p + 3, end, &l->offset);
		if (!p)
			return false;
	}
	return l->name_len && l->name_len <= NAME_MAX_BYTES && bp_scan_is(p, end, " in section ") &&
	       end - p > 12;
}

static BP_MUST_CHECK struct bp_err *take_line(struct bp_import *im, struct bp_blocks *b, const char *start,
					      const char *end, uint64_t offset, bool whole)
{
	struct bp_import_stats *st = im->stats;
	uint64_t index;
	struct bp_err *err;
	struct line l;

	if (end > start && end[-1] == '\r')
		end--;
	if (start == end)
		return NULL;
	if (!whole) {
		st->truncated = true;
		return NULL;
	}
	if (!parse(start, end, &l)) {
		bp_blocks_bad(st, offset, "not a time and a symbol or an address");
		return NULL;
	}
	st->records++;
	if (!l.name_len)
		return bp_blocks_add(b, l.addr, l.time_ns, 0, BP_BLOCKS_RUN);
	err = bp_blocks_name(b, l.name, l.name_len, &index);
	return err ? err
		   : bp_blocks_add(b, index, l.time_ns, 0, l.offset ? BP_BLOCKS_NAMED_IN : BP_BLOCKS_NAMED);
}

static void blocks_destroyp(struct bp_blocks **b)
{
	bp_blocks_destroy(*b);
}

static BP_MUST_CHECK struct bp_err *run(struct bp_import *im)
{
	bp_cleanup(blocks_destroyp) struct bp_blocks *blocks = NULL;
	const struct bp_blocks_options opt = {.no_stacks = "none: the trace has names only",
					      .user_first = true};
	struct bp_err *err, *err2;

	im->stats->first_bad_offset = UINT64_MAX;
	err = bp_blocks_create(im, &opt, &blocks);
	while (!err) {
		uint64_t offset = bp_source_offset(im->source);
		const char *data, *end, *p;
		size_t len;

		err = bp_source_next_lines(im->source, &data, &len);
		if (err || !len)
			break;
		for (p = data, end = data + len; p < end && !err;) {
			const char *nl = memchr(p, '\n', (size_t)(end - p));

			err = take_line(im, blocks, p, nl ? nl : end, offset + (uint64_t)(p - data), nl);
			p = nl ? nl + 1 : end;
		}
		if (!err && !bp_blocks_keep_going(im))
			break;
	}
	if (!blocks)
		return err;
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
	int named = 0, seen = 0, other = 0;

	while (p < end && seen + other < 200) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		struct line l;

		if (!nl)
			break;
		if (parse(p, nl, &l)) {
			seen++;
			named += l.name_len != 0;
		} else if (nl != p) {
			other++;
		}
		p = nl + 1;
	}
	return other > seen || !named ? 0 : other ? 60 : 90;
}

const struct bp_importer bp_import_symbolised = {
    .name = "symbolised",
    .summary = "times and symbols (TIME SYMBOL + N in section .text)",
    .probe = probe,
    .run = run,
};
