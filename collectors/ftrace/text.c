// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE 1 /* memmem() */
#include "collectors/ftrace/text.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/cleanup.h"

static bool all_of(const char *p, const char *e, char c)
{
	while (p < e && *p == c)
		p++;
	return p == e;
}

/* Ends of lines are "\n" or "\r\n". */
static inline const char *trim(const char *p, const char *e)
{
	while (e > p && e[-1] == '\r')
		e--;
	return e;
}

static bool is_ruler(const char *p, const char *e)
{
	p = bp_ftext_spaces(p, e);
	while (e > p && e[-1] == ' ')
		e--;
	return e - p >= 10 && all_of(p, e, '-');
}

/* "CPU:1 [LOST 1316 EVENTS]", or without the number */
static bool parse_lost(const char *p, const char *e, uint32_t *cpu, uint64_t *count)
{
	const char *q = bp_ftext_spaces(p, e);
	uint64_t v;

	if (e - q < 12 || memcmp(q, "CPU:", 4) != 0)
		return false;
	q += 4;
	if (!bp_ftext_number(&q, e, &v) || v >= BP_BUILDER_CPUS)
		return false;
	*cpu = (uint32_t)v;
	*count = 0;
	q = bp_ftext_spaces(q, e);
	if (e - q < 6 || memcmp(q, "[LOST ", 6) != 0)
		return false;
	q += 6;
	if (!bp_ftext_number(&q, e, count))
		*count = 0;
	q = bp_ftext_spaces(q, e);
	return e - q >= 7 && !memcmp(q, "EVENTS]", 7);
}

/* "##### CPU 1 buffer started ####" counts as well. */
static void take_header(struct bp_ftext *r, const char *p, const char *e)
{
	static const char tracer[] = "# tracer: ";
	size_t len = sizeof(tracer) - 1;

	if ((size_t)(e - p) <= len || memcmp(p, tracer, len) != 0)
		return;
	p += len;
	r->mode = (size_t)(e - p) >= 14 && !memcmp(p, "function_graph", 14) ? BP_FTEXT_MODE_GRAPH
									    : BP_FTEXT_MODE_EVENTS;
}

/* Lines of the mode are taken first; a file without header says its mode by its first line. */
static enum bp_ftext_class take_record(struct bp_ftext *r, const char *p, const char *e)
{
	struct bp_ftext_line l;
	enum bp_ftext_class cls;

	if (r->mode != BP_FTEXT_MODE_GRAPH) {
		bp_ftext_drain(r);
		cls = bp_ftext_event(r, p, e);
		if (cls != BP_FTEXT_OTHER) {
			r->mode = BP_FTEXT_MODE_EVENTS;
			r->counts.of_class[cls]++;
			return cls;
		}
	}
	if (bp_ftext_parse_graph(p, e, &l)) {
		if (l.has_cpu || l.has_duration)
			r->mode = BP_FTEXT_MODE_GRAPH;
		bp_ftext_graph(r, p, &l);
		return l.cls;
	}
	if (r->mode == BP_FTEXT_MODE_GRAPH) {
		bp_ftext_drain(r);
		cls = bp_ftext_event(r, p, e);
		if (cls != BP_FTEXT_OTHER) {
			r->counts.of_class[cls]++;
			return cls;
		}
		/* A line that was cut still says when and where. */
		if (l.has_cpu && bp_ftext_cpu(r, l.cpu))
			r->seen[l.cpu].lines++;
		if (l.has_time)
			r->counts.last_ns = l.time_ns;
	}
	return BP_FTEXT_OTHER;
}

/* Whatever touches more than the reader of lines has, waits for the other thread first: bp_ftext_drain(). */
static __attribute__((noinline)) enum bp_ftext_class slow_line(struct bp_ftext *r, const char *p,
							       const char *e)
{
	enum bp_ftext_class cls;
	uint64_t count;
	uint32_t cpu;

	if (r->in_stack) {
		bp_ftext_drain(r);
		if (e - p <= 4 || memcmp(p, " => ", 4) != 0)
			bp_ftext_stack_end(r);
	}
	if (all_of(p, e, ' ')) {
		cls = BP_FTEXT_BLANK;
	} else if (*p == '#') {
		cls = BP_FTEXT_HEADER;
		take_header(r, p, e);
	} else if (is_ruler(p, e)) {
		cls = BP_FTEXT_SWITCH_RULER;
	} else if (parse_lost(p, e, &cpu, &count)) {
		cls = BP_FTEXT_LOST;
		r->counts.lost_events += count;
		bp_ftext_drain(r);
		bp_ftext_lost(r, cpu, count);
		bp_ftext_wait_lost(r, cpu, count);
	} else if (e - p > 4 && !memcmp(p, " => ", 4)) {
		cls = BP_FTEXT_FRAME;
		if (r->in_stack)
			bp_ftext_stack_frame(r, p + 4, e);
	} else if (bp_ftext_switch(r, p, e)) {
		cls = BP_FTEXT_SWITCH;
	} else {
		return take_record(r, p, e);
	}
	r->counts.of_class[cls]++;
	return cls;
}

static __attribute__((noinline)) void skip_line(struct bp_ftext *r, uint64_t offset, const char *p,
						const char *e)
{
	struct bp_import_stats *s = r->im->stats;
	size_t n = 0;

	r->counts.of_class[BP_FTEXT_OTHER]++;
	s->skipped++;
	if (s->first_bad_offset != UINT64_MAX)
		return;
	s->first_bad_offset = offset;
	n = (size_t)snprintf(s->first_bad, sizeof(s->first_bad), "not a line of ftrace: ");
	for (; p < e && n < 80; p++)
		s->first_bad[n++] = (unsigned char)*p < ' ' || (unsigned char)*p > '~' ? '?' : *p;
	s->first_bad[n] = '\0';
}

/* One line in so many, at most, may have to wait for the second thread if that is to help. */
#define CALLS_TO_OTHERS 256
#define QUEUE_BYTES (64u << 10)

static void take_piece(struct bp_ftext *r, const char *data, size_t len, uint64_t offset)
{
	const char *p = data, *end = data + len;
	const uint64_t drains = r->drains, lines = r->counts.lines;
	const bool whole = end[-1] == '\n';

	while (p < end && !r->failed) {
		const char *e, *next = NULL;

		r->counts.lines++;
		if (r->mode == BP_FTEXT_MODE_GRAPH && whole && !r->in_stack)
			next = bp_ftext_graph_fast(r, p, end);
		if (next) {
			p = next;
			continue;
		}
		e = memchr(p, '\n', (size_t)(end - p));
		next = e ? e + 1 : end;
		if (!e) {
			e = end;
			r->counts.cut = true;
		}
		e = trim(p, e);
		if (slow_line(r, p, e) == BP_FTEXT_OTHER)
			skip_line(r, offset + (uint64_t)(p - data), p, e);
		p = next;
		if (!r->calls && r->err)
			break;
	}
	/* What the next piece is like is guessed from this one. */
	if ((r->drains - drains) * CALLS_TO_OTHERS < r->counts.lines - lines && len >= QUEUE_BYTES)
		bp_ftext_queue_start(r);
	else
		bp_ftext_queue_pause(r);
}

static void say_clock(struct bp_ftext *r)
{
	const struct bp_ftext_counts *n = &r->counts;
	struct bp_fact f = {.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = "clock_time"};
	bool durations = false;

	for (uint32_t i = 0; i < r->n_funcs && !durations; i++)
		durations = r->funcs[i].incl_ns;
	if (n->first_ns != UINT64_MAX)
		f.s2 = "time stamps of the trace";
	else if (durations)
		f.s2 = "derived from durations: the trace has no time stamps";
	else
		f.s2 = "none: the trace has neither time stamps nor durations";
	bp_ftext_fail(r, bp_builder_fact(r->b, &f));
}

/* What is still running at the end, and the sums for the report. */
static void sum_up(struct bp_ftext *r)
{
	struct bp_ftext_counts *n = &r->counts;
	struct bp_import_stats *s = r->im->stats;

	for (uint32_t i = 0; i < r->n_cpus; i++) {
		if (r->cpus[i] && r->cpus[i]->holding)
			bp_ftext_release(r, i, 0);
	}
	n->close_without_open = r->stacks.close_without_open;
	n->open_without_close = r->stacks.open_without_close;
	n->max_stack = r->stacks.max_stack;
	for (uint32_t i = 0; i < r->cap_tasks; i++)
		n->open_without_close += r->tasks[i] ? r->tasks[i]->n : 0;
	for (uint32_t i = 0; i < r->n_extra; i++) {
		if (!r->extra[i]->counter)
			n->open_without_close += r->extra[i]->n;
	}
	n->tasks = r->n_tasks;
	s->records += n->lines - n->of_class[BP_FTEXT_OTHER];
	s->calls += n->of_class[BP_FTEXT_OPEN] + n->of_class[BP_FTEXT_LEAF] + n->of_class[BP_FTEXT_FUNCTION];
	s->lost += n->lost_events;
	s->truncated = n->cut;
	if (n->of_class[BP_FTEXT_OPEN] + n->of_class[BP_FTEXT_LEAF] + n->of_class[BP_FTEXT_CLOSE])
		snprintf(s->stacks, sizeof(s->stacks), "from the trace");
	else if (n->of_class[BP_FTEXT_FUNCTION])
		snprintf(s->stacks, sizeof(s->stacks), "from the callers in the trace; returns are guessed");
	else
		snprintf(s->stacks, sizeof(s->stacks), "from pairs of events");
}

struct bp_err *bp_ftext_run(struct bp_ftext *r)
{
	struct bp_import *im = r->im;

	bp_source_read_here(im->source);
	for (;;) {
		uint64_t offset = bp_source_offset(im->source);
		const char *data;
		size_t len;
		struct bp_err *err = bp_source_next_lines(im->source, &data, &len);

		if (err) {
			bp_ftext_fail(r, err);
			break;
		}
		if (!len || (im->progress && !im->progress(im->progress_self)))
			break;
		r->counts.cut = false;
		take_piece(r, data, len, offset);
		if (r->failed || (!r->calls && r->err))
			break;
	}
	bp_ftext_queue_pause(r);
	bp_ftext_queue_stop(r);
	bp_ftext_stack_end(r);
	sum_up(r);
	say_clock(r);
	return bp_steal(r->err);
}

int bp_ftext_probe(const uint8_t *head, size_t len)
{
	const char *p = (const char *)head, *end = p + len;
	unsigned good = 0, weak = 0, lines = 0;

	if (len > 10 && !memcmp(p, "# tracer: ", 10))
		return 100;
	while (p < end && lines < 50) {
		const char *e = memchr(p, '\n', (size_t)(end - p)), *next;
		struct bp_ftext_line l;
		uint64_t count;
		uint32_t cpu;

		if (!e)
			break;
		next = e + 1;
		e = trim(p, e);
		if (all_of(p, e, ' ') || is_ruler(p, e) || (e - p > 4 && !memcmp(p, " => ", 4))) {
			p = next;
			continue;
		}
		lines++;
		if (parse_lost(p, e, &cpu, &count) || bp_ftext_is_event(p, e))
			good++;
		else if (bp_ftext_parse_graph(p, e, &l)) {
			if (l.has_cpu || l.has_duration)
				good++;
			else
				weak++;
		}
		p = next;
	}
	if (!lines || (good + weak) * 4 < lines * 3)
		return 0;
	return good > weak ? 85 : 20;
}

static struct bp_err *run(struct bp_import *im)
{
	struct bp_ftext r;
	struct bp_err *err = bp_ftext_init(&r, im);

	if (err)
		return err;
	err = bp_ftext_run(&r);
	bp_ftext_deinit(&r);
	return err;
}

const struct bp_importer bp_import_ftrace_text = {
    .name = "ftrace",
    .summary = "text of ftrace: the function_graph and function tracers, events",
    .probe = bp_ftext_probe,
    .run = run,
};
