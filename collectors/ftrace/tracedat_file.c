// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "collectors/ftrace/tracedat_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/builder.h"
#include "core/cleanup.h"

#define META_MAX (128u << 20) /* all descriptions together */
#define SECTION_MAX (64u << 20)
#define OPTION_MAX (16u << 20)
#define READ_SPOOL (256u << 10)
#define MAX_SECTIONS 4096
#define MAX_BUFFERS 256
#define MAX_RANGES (4u * BP_BUILDER_CPUS)
#define MAX_SHIFT_SAMPLES (1u << 20)
#define MAX_GUESTS 256
#define PAGE_MIN 512u
#define PAGE_MAX (1u << 20)

static const uint8_t magic[10] = {0x17, 0x08, 0x44, 't', 'r', 'a', 'c', 'i', 'n', 'g'};

/* Sections and the options that point to them have the same numbers. */
enum section {
	SEC_OPTIONS = 0,
	SEC_BUFFER = 3,
	SEC_STRINGS = 15,
	SEC_HEADER_INFO = 16,
	SEC_FTRACE_EVENTS = 17,
	SEC_EVENT_FORMATS = 18,
	SEC_KALLSYMS = 19,
	SEC_PRINTK = 20,
	SEC_CMDLINES = 21,
	SEC_BUFFER_TEXT = 22,
};

enum option {
	OPT_DONE = 0,
	OPT_BUFFER = 3,
	OPT_TRACECLOCK = 4,
	OPT_UNAME = 5,
	OPT_CPUCOUNT = 8,
	OPT_VERSION = 9,
	OPT_TRACEID = 11,
	OPT_TIME_SHIFT = 12,
	OPT_GUEST = 13,
	OPT_TSC2NSEC = 14,
	OPT_BUFFER_TEXT = 22,
};

bool bp_td_probe(const uint8_t *head, size_t len)
{
	return len >= sizeof(magic) && !memcmp(head, magic, sizeof(magic));
}

void bp_td_problem(struct bp_td_file *f, uint64_t offset, const char *fmt, ...)
{
	va_list ap;

	if (f->problem_offset != UINT64_MAX)
		return;
	f->problem_offset = offset;
	va_start(ap, fmt);
	vsnprintf(f->problem, sizeof(f->problem), fmt, ap);
	va_end(ap);
}

struct bp_err *bp_td_read(const struct bp_td_file *f, uint64_t offset, void *dst, size_t n, size_t *got)
{
	size_t done = 0;

	*got = 0;
	if (offset > INT64_MAX - n)
		return NULL;
	while (done < n) {
		ssize_t r = pread(f->fd, (uint8_t *)dst + done, n - done, (off_t)(offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return bp_err_os(errno, "%s", f->path);
		if (r == 0)
			break;
		done += (size_t)r;
	}
	*got = done;
	return NULL;
}

/* ---- memory that lives as long as the file ---- */

/* Takes @p also on failure. */
static struct bp_err *own(struct bp_td_file *f, void *p)
{
	if (f->n_owned == f->cap_owned) {
		uint32_t cap = f->cap_owned ? 2 * f->cap_owned : 16;
		void **grown = realloc(f->owned, cap * sizeof(*grown));

		if (!grown) {
			free(p);
			return bp_err_nomem();
		}
		f->owned = grown;
		f->cap_owned = cap;
	}
	f->owned[f->n_owned++] = p;
	return NULL;
}

static struct bp_err *copy_text(char **dst, const uint8_t *p, size_t n)
{
	char *s = strndup((const char *)p, n);

	if (!s)
		return bp_err_nomem();
	free(*dst);
	*dst = s;
	return NULL;
}

/* ---- numbers in the file's byte order ---- */

static uint16_t get16(const struct bp_td_file *f, struct bp_buf *b)
{
	uint16_t v = bp_buf_u16(b);

	return f->big_endian ? __builtin_bswap16(v) : v;
}

static uint32_t get32(const struct bp_td_file *f, struct bp_buf *b)
{
	uint32_t v = bp_buf_u32(b);

	return f->big_endian ? __builtin_bswap32(v) : v;
}

static uint64_t get64(const struct bp_td_file *f, struct bp_buf *b)
{
	uint64_t v = bp_buf_u64(b);

	return f->big_endian ? __builtin_bswap64(v) : v;
}

/* A NUL-terminated text, NULL when there is none. */
static const char *get_text(struct bp_buf *b)
{
	const uint8_t *p = b->data + b->pos;
	const uint8_t *nul = b->bad || !bp_buf_left(b) ? NULL : memchr(p, 0, bp_buf_left(b));

	if (!nul) {
		b->bad = true;
		return NULL;
	}
	b->pos += (size_t)(nul - p) + 1;
	return (const char *)p;
}

/* ---- descriptions; each stops quietly at the end of what there is and sets b->bad ---- */

static struct bp_err *header_page_field(void *self, const struct bp_tep_field *fld)
{
	struct bp_td_file *f = self;

	if (bp_tep_is(fld->name, fld->name_len, "commit") && (fld->size == 4 || fld->size == 8) &&
	    fld->offset >= 8 && fld->offset <= 64) {
		f->commit_offset = fld->offset;
		f->commit_bytes = fld->size;
	} else if (bp_tep_is(fld->name, fld->name_len, "data") && fld->offset >= 12 && fld->offset <= 256) {
		f->data_offset = fld->offset;
		f->subbuf_bytes = (uint32_t)fld->offset + fld->size;
	}
	return NULL;
}

static struct bp_err *parse_header_info(struct bp_td_file *f, struct bp_buf *b)
{
	const uint8_t *p = bp_buf_take(b, 12);
	struct bp_err *err;
	uint64_t n;

	if (!p || memcmp(p, "header_page", 12)) {
		b->bad = true;
		return NULL;
	}
	n = get64(f, b);
	p = n <= SIZE_MAX ? bp_buf_take(b, n) : NULL;
	if (!p)
		return NULL;
	err = bp_tep_parse_fields((const char *)p, n, header_page_field, f);
	if (err)
		return err;
	if (f->commit_offset + f->commit_bytes > f->data_offset)
		f->data_offset = f->commit_offset + f->commit_bytes;
	p = bp_buf_take(b, 13);
	if (!p || memcmp(p, "header_event", 13)) {
		b->bad = true;
		return NULL;
	}
	n = get64(f, b);
	bp_buf_take(b, n <= SIZE_MAX ? n : SIZE_MAX);
	return NULL;
}

static struct bp_err *parse_formats(struct bp_td_file *f, struct bp_buf *b, const char *system,
				    uint32_t count)
{
	for (uint32_t i = 0; i < count && !b->bad; i++) {
		uint64_t n = get64(f, b);
		const uint8_t *p = bp_buf_take(b, n <= SIZE_MAX ? n : SIZE_MAX);
		struct bp_err *err;
		bool taken;

		if (!p)
			break;
		err = bp_tep_add(&f->tep, system, strlen(system), (const char *)p, n, &taken);
		if (err)
			return err;
	}
	return NULL;
}

static struct bp_err *parse_ftrace_events(struct bp_td_file *f, struct bp_buf *b)
{
	return parse_formats(f, b, "ftrace", get32(f, b));
}

static struct bp_err *parse_event_formats(struct bp_td_file *f, struct bp_buf *b)
{
	uint32_t systems = get32(f, b);

	for (uint32_t i = 0; i < systems && !b->bad; i++) {
		const char *name = get_text(b);
		uint32_t count = get32(f, b);
		struct bp_err *err;

		if (b->bad)
			break;
		err = parse_formats(f, b, name, count);
		if (err)
			return err;
	}
	return NULL;
}

/* A text with its size in front, of 4 or 8 bytes; what is there of it. */
static void parse_text(struct bp_td_file *f, struct bp_buf *b, bool wide, const char **text, size_t *len)
{
	uint64_t n = wide ? get64(f, b) : get32(f, b);

	if (b->bad)
		return;
	*text = (const char *)b->data + b->pos;
	*len = n < bp_buf_left(b) ? n : bp_buf_left(b);
	bp_buf_take(b, n <= SIZE_MAX ? n : SIZE_MAX);
}

static void parse_kallsyms(struct bp_td_file *f, struct bp_buf *b)
{
	parse_text(f, b, false, &f->kallsyms, &f->kallsyms_len);
}

static void parse_printk(struct bp_td_file *f, struct bp_buf *b)
{
	parse_text(f, b, false, &f->printk, &f->printk_len);
}

static void parse_cmdlines(struct bp_td_file *f, struct bp_buf *b)
{
	parse_text(f, b, true, &f->cmdlines, &f->cmdlines_len);
}

static struct bp_err *parse_section(struct bp_td_file *f, unsigned id, struct bp_buf *b)
{
	switch (id) {
	case SEC_HEADER_INFO:
		return parse_header_info(f, b);
	case SEC_FTRACE_EVENTS:
		return parse_ftrace_events(f, b);
	case SEC_EVENT_FORMATS:
		return parse_event_formats(f, b);
	case SEC_KALLSYMS:
		parse_kallsyms(f, b);
		break;
	case SEC_PRINTK:
		parse_printk(f, b);
		break;
	case SEC_CMDLINES:
		parse_cmdlines(f, b);
		break;
	}
	return NULL;
}

/* ---- buffers and options ---- */

static struct bp_err *add_buffer(struct bp_td_file *f, const char *name, const char *clock, uint64_t offset,
				 struct bp_td_buffer **ret)
{
	struct bp_td_buffer *grown, *b;

	*ret = NULL;
	if (f->n_buffers == MAX_BUFFERS)
		return NULL;
	grown = realloc(f->buffers, (f->n_buffers + 1) * sizeof(*grown));
	if (!grown)
		return bp_err_nomem();
	f->buffers = grown;
	b = &grown[f->n_buffers];
	*b = (struct bp_td_buffer){.offset = offset, .page_bytes = f->page_bytes};
	b->name = strndup(name, 255);
	b->clock = strndup(clock, 63);
	if (!b->name || !b->clock) {
		free(b->name);
		free(b->clock);
		return bp_err_nomem();
	}
	f->n_buffers++;
	*ret = b;
	return NULL;
}

static struct bp_err *add_range(struct bp_td_file *f, uint32_t buffer, uint32_t cpu, uint64_t offset,
				uint64_t size)
{
	struct bp_td_range *grown;

	if (!size)
		return NULL;
	if (cpu >= BP_BUILDER_CPUS || f->n_ranges == MAX_RANGES || offset >= f->size) {
		if (offset >= f->size)
			f->truncated = true;
		bp_td_problem(f, offset < f->size ? offset : f->size, "the events of cpu %u are missing",
			      cpu);
		return NULL;
	}
	if (size > UINT64_MAX / 2 || size > f->size - offset) {
		f->truncated = true;
		bp_td_problem(f, f->size, "the file ends in the events of cpu %u", cpu);
		size = f->size - offset;
	}
	if (size > f->size - f->range_bytes) {
		bp_td_problem(f, offset, "the events of cpu %u lie over those of others", cpu);
		return NULL;
	}
	f->range_bytes += size;
	/* The array grows at powers of two. */
	if (!(f->n_ranges & (f->n_ranges - 1))) {
		grown = realloc(f->ranges, (f->n_ranges ? 2 * (size_t)f->n_ranges : 1) * sizeof(*grown));
		if (!grown)
			return bp_err_nomem();
		f->ranges = grown;
	}
	f->ranges[f->n_ranges++] = (struct bp_td_range){cpu, buffer, offset, size};
	if (cpu >= f->n_cpus)
		f->n_cpus = cpu + 1;
	return NULL;
}

static bool good_page_size(uint32_t n)
{
	return n >= PAGE_MIN && n <= PAGE_MAX && !(n & (n - 1));
}

static struct bp_err *option_buffer(struct bp_td_file *f, struct bp_buf *b, bool text)
{
	uint64_t offset = get64(f, b);
	const char *name = get_text(b), *clock = "";
	struct bp_td_buffer *buf;
	struct bp_err *err;
	uint32_t index, cpus;

	if (f->version >= 7)
		clock = get_text(b);
	if (b->bad)
		return NULL;
	err = add_buffer(f, name, clock, offset, &buf);
	if (err || !buf)
		return err;
	buf->text = text;
	if (f->version < 7 || text)
		return NULL;
	index = f->n_buffers - 1;
	/* The page size in front of the number of CPUs came later than version 7. */
	cpus = get32(f, b);
	if (bp_buf_left(b) != 20ull * cpus) {
		if (good_page_size(cpus))
			buf->page_bytes = cpus;
		cpus = get32(f, b);
	}
	for (uint32_t i = 0; i < cpus; i++) {
		uint32_t cpu = get32(f, b);
		uint64_t at = get64(f, b), size = get64(f, b);

		if (b->bad)
			break;
		err = add_range(f, index, cpu, at, size);
		if (err)
			return err;
	}
	return NULL;
}

static int compare_shifts(const void *a, const void *b)
{
	uint64_t x = ((const struct bp_td_shift *)a)->time, y = ((const struct bp_td_shift *)b)->time;

	return (x > y) - (x < y);
}

static struct bp_err *option_time_shift(struct bp_td_file *f, struct bp_buf *b)
{
	uint64_t peer = get64(f, b);
	uint32_t flags = get32(f, b), cpus = get32(f, b), all = 0;
	struct bp_td_shifts *shifts;

	if (b->bad || !cpus || cpus > bp_buf_left(b) / 4 || f->have_shift)
		return NULL;
	shifts = calloc(cpus, sizeof(*shifts));
	if (!shifts)
		return bp_err_nomem();
	f->shifts = shifts;
	f->n_shifts = cpus;
	for (uint32_t i = 0; i < cpus; i++) {
		uint32_t n = get32(f, b);

		if (b->bad || n > bp_buf_left(b) / 24 || (all += n) > MAX_SHIFT_SAMPLES)
			return NULL;
		if (!n)
			continue;
		shifts[i].samples = calloc(n, sizeof(*shifts[i].samples));
		if (!shifts[i].samples)
			return bp_err_nomem();
		shifts[i].n = n;
		for (uint32_t k = 0; k < n; k++)
			shifts[i].samples[k].time = get64(f, b);
		for (uint32_t k = 0; k < n; k++)
			shifts[i].samples[k].offset = (int64_t)get64(f, b);
		for (uint32_t k = 0; k < n; k++)
			shifts[i].samples[k].scaling = get64(f, b);
	}
	if (b->bad)
		return NULL;
	/* The bits of the fraction came later. */
	for (uint32_t i = 0; i < cpus && bp_buf_left(b); i++)
		for (uint32_t k = 0; k < shifts[i].n; k++)
			shifts[i].samples[k].fraction = get64(f, b);
	for (uint32_t i = 0; i < cpus; i++) {
		struct bp_td_shifts *s = &shifts[i];
		uint32_t kept = 0;

		if (s->n)
			qsort(s->samples, s->n, sizeof(*s->samples), compare_shifts);
		for (uint32_t k = 0; k < s->n; k++)
			if (!kept || s->samples[kept - 1].time != s->samples[k].time)
				s->samples[kept++] = s->samples[k];
		s->n = kept;
	}
	f->peer_id = peer;
	f->shift_flags = flags;
	f->have_shift = true;
	return NULL;
}

static struct bp_err *option_guest(struct bp_td_file *f, struct bp_buf *b)
{
	const char *name = get_text(b);
	uint64_t id = get64(f, b);
	uint32_t cpus = get32(f, b);
	struct bp_td_guest *grown, *g;

	if (b->bad || cpus > bp_buf_left(b) / 8 || cpus > BP_BUILDER_CPUS || f->n_guests == MAX_GUESTS)
		return NULL;
	grown = realloc(f->guests, (f->n_guests + 1) * sizeof(*grown));
	if (!grown)
		return bp_err_nomem();
	f->guests = grown;
	g = &grown[f->n_guests];
	*g = (struct bp_td_guest){.trace_id = id, .n_cpus = cpus};
	g->name = strndup(name, 255);
	g->pids = malloc((cpus ? cpus : 1) * sizeof(*g->pids));
	if (!g->name || !g->pids) {
		free(g->name);
		free(g->pids);
		return bp_err_nomem();
	}
	f->n_guests++;
	memset(g->pids, 0xff, cpus * sizeof(*g->pids));
	for (uint32_t i = 0; i < cpus; i++) {
		uint32_t cpu = get32(f, b), pid = get32(f, b);

		if (cpu < cpus)
			g->pids[cpu] = (int32_t)pid;
	}
	return NULL;
}

/* "local [global] counter ...": the one in brackets */
static struct bp_err *option_clock(struct bp_td_file *f, const uint8_t *p, size_t n)
{
	const uint8_t *open = memchr(p, '[', n), *end;

	if (!open)
		return NULL;
	open++;
	end = memchr(open, ']', n - (size_t)(open - p));
	return end && end - open < 64 ? copy_text(&f->clock, open, (size_t)(end - open)) : NULL;
}

static struct bp_err *take_option(struct bp_td_file *f, unsigned id, const uint8_t *p, size_t n,
				  uint64_t offset)
{
	struct bp_buf b = bp_buf_make(p, n, f->path, offset);

	switch (id) {
	case OPT_BUFFER:
	case OPT_BUFFER_TEXT:
		return option_buffer(f, &b, id == OPT_BUFFER_TEXT);
	case OPT_TRACECLOCK:
		return option_clock(f, p, n);
	case OPT_UNAME:
		return copy_text(&f->uname, p, n < 512 ? n : 512);
	case OPT_VERSION:
		return copy_text(&f->writer, p, n < 128 ? n : 128);
	case OPT_TRACEID:
		f->trace_id = get64(f, &b);
		f->have_trace_id = !b.bad;
		break;
	case OPT_TIME_SHIFT:
		return option_time_shift(f, &b);
	case OPT_GUEST:
		return option_guest(f, &b);
	case OPT_TSC2NSEC: {
		uint32_t mult = get32(f, &b), shift = get32(f, &b);
		uint64_t at = get64(f, &b);

		if (!b.bad && shift < 64) {
			f->tsc_mult = mult;
			f->tsc_shift = shift;
			f->tsc_offset = at;
		}
		break;
	}
	}
	return NULL;
}

/* ---- version 6: one thing after the other ---- */

/* What follows at @b: options, if any, and where the pages of each CPU are. */
static struct bp_err *parse_v6_buffer(struct bp_td_file *f, struct bp_buf *b, uint32_t cpus, uint32_t buffer)
{
	const uint8_t *tag = bp_buf_take(b, 10);
	struct bp_err *err;

	if (tag && !memcmp(tag, "options  ", 10)) {
		for (;;) {
			unsigned id = get16(f, b);
			const uint8_t *p;
			uint32_t n;
			uint64_t at;

			if (b->bad || id == OPT_DONE)
				break;
			n = get32(f, b);
			at = b->base + b->pos;
			p = n <= OPTION_MAX ? bp_buf_take(b, n) : NULL;
			if (!p) {
				b->bad = true;
				break;
			}
			if (id == OPT_CPUCOUNT) {
				struct bp_buf o = bp_buf_make(p, n, f->path, at);
				uint32_t count = get32(f, &o);

				if (!o.bad)
					cpus = count;
			}
			err = take_option(f, id, p, n, at);
			if (err)
				return err;
		}
		tag = bp_buf_take(b, 10);
	}
	if (!tag)
		return NULL;
	if (!memcmp(tag, "latency  ", 10)) {
		f->buffers[buffer].text = true;
		return NULL;
	}
	if (memcmp(tag, "flyrecord", 10)) {
		bp_td_problem(f, b->base + b->pos - 10, "neither options nor events where they should be");
		return NULL;
	}
	for (uint32_t cpu = 0; cpu < cpus; cpu++) {
		uint64_t at = get64(f, b), size = get64(f, b);

		if (b->bad)
			break;
		err = add_range(f, buffer, cpu, at, size);
		if (err)
			return err;
	}
	return NULL;
}

static struct bp_err *parse_v6(struct bp_td_file *f, struct bp_buf *b)
{
	struct bp_td_buffer *top;
	struct bp_err *err = add_buffer(f, "", "", 0, &top);
	uint32_t cpus, instances;

	if (!err)
		err = parse_header_info(f, b);
	if (!err)
		err = parse_ftrace_events(f, b);
	if (!err)
		err = parse_event_formats(f, b);
	if (err)
		return err;
	parse_kallsyms(f, b);
	parse_printk(f, b);
	parse_cmdlines(f, b);
	cpus = get32(f, b);
	err = parse_v6_buffer(f, b, cpus, 0);
	if (err)
		return err;
	instances = f->n_buffers;
	for (uint32_t i = 1; i < instances; i++) {
		struct bp_buf at = *b;

		if (f->buffers[i].offset < b->base || f->buffers[i].offset - b->base > b->len) {
			/* Behind the events of the buffers before. */
			uint8_t table[10 + 16 * 1024];
			size_t got;

			err = bp_td_read(f, f->buffers[i].offset, table, sizeof(table), &got);
			if (err)
				return err;
			at = bp_buf_make(table, got, f->path, f->buffers[i].offset);
			err = parse_v6_buffer(f, &at, cpus, i);
		} else {
			at.pos = (size_t)(f->buffers[i].offset - b->base);
			at.bad = false;
			err = parse_v6_buffer(f, &at, cpus, i);
		}
		if (err)
			return err;
	}
	return NULL;
}

/* What parse_v6() has found is forgotten, for another try with more of the file. */
static void forget(struct bp_td_file *f)
{
	for (uint32_t i = 0; i < f->n_buffers; i++) {
		free(f->buffers[i].name);
		free(f->buffers[i].clock);
	}
	for (uint32_t i = 0; i < f->n_guests; i++) {
		free(f->guests[i].name);
		free(f->guests[i].pids);
	}
	for (uint32_t i = 0; i < f->n_shifts; i++)
		free(f->shifts[i].samples);
	for (uint32_t i = 0; i < f->n_owned; i++)
		free(f->owned[i]);
	free(f->shifts);
	f->shifts = NULL;
	f->n_buffers = f->n_guests = f->n_shifts = f->n_ranges = f->n_owned = f->n_cpus = 0;
	f->have_shift = f->have_trace_id = f->truncated = false;
	f->kallsyms = f->cmdlines = f->printk = NULL;
	f->range_bytes = 0;
	f->kallsyms_len = f->cmdlines_len = f->printk_len = 0;
	f->problem_offset = UINT64_MAX;
	bp_tep_deinit(&f->tep);
}

static struct bp_err *start(struct bp_td_file *f)
{
	struct bp_err *err = bp_tep_init(&f->tep);

	f->commit_offset = 8;
	f->commit_bytes = f->long_bytes;
	f->data_offset = 8 + f->long_bytes;
	f->subbuf_bytes = 0;
	f->problem_offset = UINT64_MAX;
	f->tep.big_endian = f->big_endian;
	return err;
}

static struct bp_err *open_v6(struct bp_td_file *f, size_t at)
{
	size_t want = 1u << 20;

	for (;;) {
		struct bp_buf b;
		size_t got;
		uint8_t *head = malloc(want < f->size ? want : f->size ? f->size : 1);
		struct bp_err *err;

		if (!head)
			return bp_err_nomem();
		err = own(f, head);
		if (!err)
			err = bp_td_read(f, 0, head, want < f->size ? want : f->size, &got);
		if (err)
			return err;
		b = bp_buf_make(head, got, f->path, 0);
		b.pos = at < got ? at : got;
		err = parse_v6(f, &b);
		if (err || !b.bad)
			return err;
		if (want >= f->size || want >= META_MAX) {
			f->truncated = want >= f->size;
			bp_td_problem(f, b.bad_pos, "the descriptions at the front end early");
			return NULL;
		}
		want *= 4;
		forget(f);
		err = start(f);
		if (err)
			return err;
	}
}

/* ---- version 7: sections ---- */

struct section_head {
	unsigned id;
	bool packed;
	uint64_t offset, size; /* of the contents */
};

static struct bp_err *read_section_head(struct bp_td_file *f, uint64_t offset, struct section_head *s,
					bool *ok)
{
	uint8_t head[16];
	struct bp_buf b;
	size_t got;
	struct bp_err *err = bp_td_read(f, offset, head, sizeof(head), &got);

	*ok = false;
	if (err || got < sizeof(head))
		return err;
	b = bp_buf_make(head, sizeof(head), f->path, offset);
	s->id = get16(f, &b);
	s->packed = get16(f, &b) & 1;
	get32(f, &b);
	s->size = get64(f, &b);
	s->offset = offset + sizeof(head);
	*ok = true;
	return NULL;
}

/* The contents, expanded, kept with the file; *b is empty and bad when there is nothing. */
static struct bp_err *load_section(struct bp_td_file *f, const struct section_head *s, struct bp_buf *b)
{
	uint64_t size = s->size;
	uint8_t *raw, *data;
	size_t got, len;
	struct bp_err *err;

	*b = bp_buf_make("", 0, f->path, s->offset);
	b->bad = true;
	if (s->offset >= f->size) {
		f->truncated = true;
		return NULL;
	}
	if (size > f->size - s->offset) {
		f->truncated = true;
		bp_td_problem(f, f->size, "the file ends in section %u", s->id);
		size = f->size - s->offset;
	}
	if (size > SECTION_MAX) {
		bp_td_problem(f, s->offset, "section %u is too large", s->id);
		return NULL;
	}
	raw = malloc(size ? size : 1);
	if (!raw)
		return bp_err_nomem();
	err = bp_td_read(f, s->offset, raw, size, &got);
	if (err || !s->packed) {
		if (!err) {
			err = own(f, raw);
			*b = bp_buf_make(raw, got, f->path, s->offset);
		} else {
			free(raw);
		}
		return err;
	}
	if (got < 8) {
		free(raw);
		return NULL;
	}
	{
		uint64_t packed = bp_tep_number(raw, 4, false, f->big_endian);
		uint64_t plain = bp_tep_number(raw + 4, 4, false, f->big_endian);

		if (packed > got - 8)
			packed = got - 8;
		if (plain > SECTION_MAX)
			plain = SECTION_MAX;
		err = bp_td_unpack_alloc(f->packing, raw + 8, packed, plain, &data, &len);
	}
	free(raw);
	if (err)
		return err;
	if (!data) {
		bp_td_problem(f, s->offset, "section %u is damaged", s->id);
		return NULL;
	}
	*b = bp_buf_make(data, len, f->path, s->offset);
	return own(f, data);
}

struct sections {
	uint32_t seen; /* bit per section id below 32 that was read */
	uint32_t option_sections;
	size_t meta;
};

static struct bp_err *read_section(struct bp_td_file *f, struct sections *all, const struct section_head *s)
{
	struct bp_buf b;
	struct bp_err *err;

	if (s->id < SEC_HEADER_INFO || s->id > SEC_CMDLINES || (all->seen & (1u << s->id)))
		return NULL;
	all->seen |= 1u << s->id;
	err = load_section(f, s, &b);
	if (err)
		return err;
	all->meta += b.len;
	if (all->meta > META_MAX) {
		bp_td_problem(f, s->offset, "the descriptions are too large");
		return NULL;
	}
	return parse_section(f, s->id, &b);
}

/* One section of options; *next: where the next one is, 0 none. */
static struct bp_err *read_options(struct bp_td_file *f, struct sections *all, const struct section_head *s,
				   uint64_t *next)
{
	struct bp_buf b;
	struct bp_err *err = load_section(f, s, &b);

	*next = 0;
	if (err)
		return err;
	all->option_sections++;
	all->meta += b.len + sizeof(*s);
	if (all->meta > META_MAX) {
		bp_td_problem(f, s->offset, "the descriptions are too large");
		return NULL;
	}
	while (!b.bad && bp_buf_left(&b)) {
		unsigned id = get16(f, &b);
		uint32_t n = get32(f, &b);
		const uint8_t *p = n <= OPTION_MAX ? bp_buf_take(&b, n) : NULL;
		struct section_head target;
		uint64_t at;
		bool ok;

		if (!p || b.bad) {
			bp_td_problem(f, s->offset, "options end early");
			return NULL;
		}
		if (id == OPT_DONE) {
			if (n >= 8)
				*next = bp_tep_number(p, 8, false, f->big_endian);
			return NULL;
		}
		if (id < SEC_HEADER_INFO || id > SEC_CMDLINES) {
			err = take_option(f, id, p, n, s->offset);
		} else if (n >= 8) {
			at = bp_tep_number(p, 8, false, f->big_endian);
			err = read_section_head(f, at, &target, &ok);
			if (!err && ok && target.id == id)
				err = read_section(f, all, &target);
			else if (!err)
				bp_td_problem(f, at, "section %u is not where it should be", id);
		}
		if (err)
			return err;
	}
	return NULL;
}

static struct bp_err *packed_buffer(struct bp_td_file *f)
{
	for (uint32_t i = 0; i < f->n_buffers; i++) {
		struct section_head s;
		bool ok;
		struct bp_err *err = read_section_head(f, f->buffers[i].offset, &s, &ok);

		if (err)
			return err;
		f->buffers[i].packed = ok ? s.packed : f->packing != BP_TD_NONE;
	}
	return NULL;
}

/*
 * A version 7 file that was cut has lost the index of its events, which is at the end. The section of the
 * events says nothing about CPUs, but those follow one another and time goes back between them.
 */
static struct bp_err *recover_plain(struct bp_td_file *f, const struct section_head *s, uint64_t end,
				    uint32_t buffer)
{
	uint32_t page = f->buffers[buffer].page_bytes, cpu = 0;
	uint64_t first = (s->offset + page - 1) / page * page, before = 0, start_at = first;
	struct bp_err *err;

	for (uint64_t at = first; at < end; at += page) {
		uint8_t head[64] = {0};
		uint64_t ts;
		size_t got;

		err = bp_td_read(f, at, head, 16, &got);
		if (err)
			return err;
		if (got < 16)
			break;
		ts = bp_tep_number(head, 8, false, f->big_endian);
		if (ts < before) {
			err = add_range(f, buffer, cpu, start_at, at - start_at);
			if (err)
				return err;
			cpu++;
			start_at = at;
		}
		before = ts;
	}
	return end > start_at ? add_range(f, buffer, cpu, start_at, end - start_at) : NULL;
}

static struct bp_err *recover_packed(struct bp_td_file *f, const struct section_head *s, uint64_t end,
				     uint32_t buffer)
{
	uint32_t page = f->buffers[buffer].page_bytes;
	uint64_t at = s->offset;

	for (uint32_t cpu = 0; cpu < BP_BUILDER_CPUS && at < end; cpu++) {
		uint8_t head[8];
		uint64_t from, count;
		struct bp_err *err;
		size_t got;

		from = at = (at + page - 1) / page * page;
		if (at >= end)
			break;
		err = bp_td_read(f, at, head, 4, &got);
		if (err || got < 4)
			return err;
		count = bp_tep_number(head, 4, false, f->big_endian);
		at += 4;
		for (uint64_t i = 0; i < count && at < end; i++) {
			err = bp_td_read(f, at, head, 8, &got);
			if (err)
				return err;
			if (got < 8) {
				at = end;
				break;
			}
			at += 8 + bp_tep_number(head, 4, false, f->big_endian);
		}
		if (at > end)
			at = end;
		/* A CPU without events has a count of 0, and nothing else. */
		if (count) {
			err = add_range(f, buffer, cpu, from, at - from - 4);
			if (err)
				return err;
		}
	}
	return NULL;
}

static struct bp_err *recover(struct bp_td_file *f, struct sections *all, uint64_t at)
{
	struct bp_err *err;

	for (unsigned i = 0; i < MAX_SECTIONS && at < f->size; i++) {
		struct section_head s;
		uint64_t end, ignored;
		bool ok;

		err = read_section_head(f, at, &s, &ok);
		if (err || !ok)
			return err;
		end = s.size && s.size <= f->size - s.offset ? s.offset + s.size : f->size;
		if (s.id == SEC_OPTIONS && !all->option_sections) {
			err = read_options(f, all, &s, &ignored);
			/* There may be more of them. */
			all->option_sections = 0;
		} else if (s.id == SEC_BUFFER) {
			struct bp_td_buffer *b;

			err = add_buffer(f, "", f->clock ? f->clock : "", at, &b);
			if (!err && b && f->n_buffers == 1) {
				b->packed = s.packed;
				f->recovered = true;
				err = s.packed ? recover_packed(f, &s, end, 0) : recover_plain(f, &s, end, 0);
			}
		} else if (s.id >= SEC_HEADER_INFO && s.id <= SEC_CMDLINES) {
			err = read_section(f, all, &s);
		} else if (s.id != SEC_STRINGS && s.id != SEC_BUFFER_TEXT && s.id != SEC_OPTIONS) {
			bp_td_problem(f, at, "this is no section");
			return NULL;
		}
		if (err)
			return err;
		at = end;
	}
	return NULL;
}

static struct bp_err *open_v7(struct bp_td_file *f, size_t at)
{
	uint8_t head[256];
	struct sections all = {0};
	const char *name, *packing_version;
	uint64_t next, first;
	struct bp_buf b;
	size_t got;
	struct bp_err *err = bp_td_read(f, 0, head, sizeof(head), &got);

	if (err)
		return err;
	b = bp_buf_make(head, got, f->path, 0);
	b.pos = at < got ? at : got;
	name = get_text(&b);
	packing_version = get_text(&b);
	next = get64(f, &b);
	if (b.bad || !name || !packing_version) {
		f->truncated = true;
		bp_td_problem(f, got, "the header is cut");
		return NULL;
	}
	f->packing = !strcmp(name, "none")   ? BP_TD_NONE
		     : !strcmp(name, "zlib") ? BP_TD_ZLIB
		     : !strcmp(name, "zstd") ? BP_TD_ZSTD
					     : BP_TD_UNKNOWN;
	snprintf(f->packing_name, sizeof(f->packing_name), "%s", name);
	if (f->packing == BP_TD_UNKNOWN)
		return bp_err_new(BP_EUNSUPPORTED, "%s: packed with %.31s, which is not known", f->path,
				  name);
	first = b.pos;
	for (unsigned i = 0; next && i < MAX_SECTIONS; i++) {
		struct section_head s;
		bool ok;

		err = read_section_head(f, next, &s, &ok);
		if (err)
			return err;
		if (!ok || s.id != SEC_OPTIONS) {
			if (next >= f->size)
				f->truncated = true;
			bp_td_problem(f, next < f->size ? next : f->size, "the file ends before its index");
			break;
		}
		err = read_options(f, &all, &s, &next);
		if (err)
			return err;
	}
	err = packed_buffer(f);
	if (err)
		return err;
	if (!f->n_buffers) {
		bp_td_problem(f, f->size, "the index of the events is missing");
		f->truncated = true;
		err = recover(f, &all, first);
	}
	return err;
}

/* ---- opening ---- */

static struct bp_err *parse(struct bp_td_file *f)
{
	uint8_t head[64];
	struct bp_buf b;
	size_t got;
	unsigned long version = 0;
	const char *text;
	struct bp_err *err = bp_td_read(f, 0, head, sizeof(head), &got);

	if (err)
		return err;
	if (!bp_td_probe(head, got))
		return bp_err_data(f->path, 0, "this is not a trace.dat file");
	b = bp_buf_make(head, got, f->path, 0);
	b.pos = sizeof(magic);
	text = get_text(&b);
	if (text)
		version = strtoul(text, NULL, 10);
	f->big_endian = bp_buf_u8(&b) != 0;
	f->long_bytes = bp_buf_u8(&b) == 4 ? 4 : 8;
	f->page_bytes = get32(f, &b);
	if (b.bad)
		return bp_err_data(f->path, got, "the file ends in its header");
	if (version != 6 && version != 7)
		return bp_err_new(BP_EUNSUPPORTED, "%s: trace.dat version %.8s (6 and 7 can be read)",
				  f->path, text);
	f->version = (unsigned)version;
	if (!good_page_size(f->page_bytes))
		return bp_err_data(f->path, b.pos - 4, "pages of %u bytes", f->page_bytes);
	err = start(f);
	if (!err)
		err = version == 6 ? open_v6(f, b.pos) : open_v7(f, b.pos);
	if (err)
		return err;
	for (uint32_t i = 0; i < f->n_buffers; i++) {
		struct bp_td_buffer *buf = &f->buffers[i];

		/* Kernels with sub-buffers of several pages say so in header_page only. */
		if (good_page_size(f->subbuf_bytes) && f->subbuf_bytes > buf->page_bytes)
			buf->page_bytes = f->subbuf_bytes;
		if (!*buf->name && *buf->clock && !f->clock)
			err = copy_text(&f->clock, (const uint8_t *)buf->clock, strlen(buf->clock));
		if (err)
			return err;
	}
	return NULL;
}

static struct bp_err *open_at(int fd, bool owned, const char *path, struct bp_td_file **ret)
{
	struct bp_td_file *f = calloc(1, sizeof(*f));
	struct bp_err *err;
	struct stat st;

	if (!f) {
		if (owned)
			close(fd);
		return bp_err_nomem();
	}
	f->fd = fd;
	f->owns_fd = owned;
	f->problem_offset = UINT64_MAX;
	f->path = strdup(path);
	if (!f->path)
		err = bp_err_nomem();
	else if (fstat(fd, &st))
		err = bp_err_os(errno, "%s", path);
	else {
		f->size = st.st_size > 0 ? (uint64_t)st.st_size : 0;
		err = parse(f);
	}
	if (err) {
		bp_td_close(f);
		return err;
	}
	*ret = f;
	return NULL;
}

struct bp_err *bp_td_open_fd(int fd, const char *path, struct bp_td_file **ret)
{
	return open_at(fd, false, path, ret);
}

/* A nameless file in the folder for temporary files. */
static struct bp_err *spool(struct bp_source *src, int *ret)
{
	const char *dir = getenv("TMPDIR");
	bp_autofree char *name = NULL, *buf = NULL;
	bp_autoclose int fd = -1;

	if (!dir || dir[0] != '/')
		dir = "/tmp";
	if (asprintf(&name, "%s/bootprof-XXXXXX", dir) < 0) {
		name = NULL;
		return bp_err_nomem();
	}
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return bp_err_os(errno, "%s", name);
	unlink(name);
	buf = malloc(READ_SPOOL);
	if (!buf)
		return bp_err_nomem();
	for (;;) {
		size_t len, done = 0;
		struct bp_err *err = bp_source_read(src, buf, READ_SPOOL, &len);

		if (err)
			return err;
		if (!len)
			break;
		while (done < len) {
			ssize_t w = write(fd, buf + done, len - done);

			if (w < 0 && errno == EINTR)
				continue;
			if (w < 0)
				return bp_err_os(errno, "a temporary file in %s", dir);
			done += (size_t)w;
		}
	}
	*ret = fd;
	fd = -1;
	return NULL;
}

struct bp_err *bp_td_open(struct bp_source *src, struct bp_td_file **ret)
{
	struct bp_err *err;
	int fd;

	if (bp_source_is_file(src, &fd))
		return open_at(fd, false, bp_source_path(src), ret);
	err = spool(src, &fd);
	if (err)
		return bp_err_wrap(err, "%s", bp_source_path(src));
	return open_at(fd, true, bp_source_path(src), ret);
}

void bp_td_close(struct bp_td_file *f)
{
	if (!f)
		return;
	forget(f);
	if (f->owns_fd)
		close(f->fd);
	free(f->owned);
	free(f->buffers);
	free(f->ranges);
	free(f->guests);
	free(f->clock);
	free(f->uname);
	free(f->writer);
	free(f->path);
	free(f);
}

/* ---- clocks ---- */

uint64_t bp_td_peer_time(const struct bp_td_file *f, uint32_t cpu, uint64_t ts)
{
	const struct bp_td_shifts *s;
	const struct bp_td_shift *a, *b;
	uint64_t scaled = ts;
	int64_t offset;

	if (cpu >= f->n_shifts || !f->shifts[cpu].n)
		return ts;
	s = &f->shifts[cpu];
	a = b = &s->samples[0];
	if (s->n > 1) {
		uint32_t lo = 0, hi = s->n - 1; /* the last pair of samples serves what comes after it, too */

		while (lo + 1 < hi) {
			uint32_t mid = (lo + hi) / 2;

			if (s->samples[mid].time <= ts)
				lo = mid;
			else
				hi = mid;
		}
		a = &s->samples[lo];
		b = &s->samples[lo + 1];
	}
	if (a->fraction < 64 && a->scaling && s->n > 1)
		scaled = (uint64_t)(((unsigned __int128)ts * a->scaling) >> a->fraction);
	offset = a->offset;
	if ((f->shift_flags & 1) && a != b) {
		__int128 span = (__int128)b->time - a->time;
		__int128 part = ((__int128)ts - a->time) * ((__int128)b->offset - a->offset);

		offset = (int64_t)(a->offset + part / span);
	}
	return scaled + (uint64_t)offset;
}
