// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Text of `perf script`: samples of scheduler, futex and KVM events with their call chains.
 *
 * CPU 0/KVM 13065 [000]  4104.031029: sched:sched_switch: prev_comm=CPU 0/KVM prev_pid=13065 ...
 *	ffffffff821facd8 __schedule+0x618 ([kernel.kallsyms])
 *	           fdd6b __GI___ioctl+0x3b (/usr/lib/x86_64-linux-gnu/libc.so.6)
 *
 * The number before the CPU is the thread, or process/thread; CPU, offsets and files may be left out (-F).
 *Addresses of user space are those in the file where perf knows the file. Source: perf-script(1), and output
 *of perf 6.1.
 */
#define _GNU_SOURCE 1 /* memmem(), memrchr() */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collectors/ftrace/text.h"
#include "core/cleanup.h"

struct reader {
	struct bp_import *im;
	bool waking_seen;
	bool in_sample; /* frames belong to the record of: */
	uint32_t tid;
	uint32_t kernel[BP_HOST_STACK_MAX], user[BP_HOST_STACK_MAX];
	size_t n_kernel, n_user;
	uint64_t samples, frames, skipped;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* " 4104.031029: " in a sample's first line; the time, and what stands before and behind */
static bool find_time(const char *p, const char *e, const char **before, const char **behind, uint64_t *ns)
{
	for (const char *q = p; q < e; q++) {
		const char *z = q;
		uint64_t s;

		if (!is_digit(*q) || (q > p && q[-1] != ' '))
			continue;
		if (!bp_ftext_number(&z, e, &s) || z == e || *z != '.' || s >= UINT64_MAX / 2000000000)
			continue;
		z++;
		if (z == e || !is_digit(*z))
			continue;
		*ns = s * 1000000000 + bp_ftext_fraction(&z, e, 9);
		if (z == e || *z != ':')
			continue;
		*before = q;
		*behind = z + 1;
		return true;
	}
	return false;
}

static const char *trim(const char *p, const char *e)
{
	while (e > p && (e[-1] == ' ' || e[-1] == '\t' || e[-1] == '\r'))
		e--;
	return e;
}

#define LOSS "PERF_RECORD_LOST"

/* "PERF_RECORD_LOST lost 12" and "PERF_RECORD_LOST_SAMPLES lost 12", of perf script --show-lost-events. */
static bool is_loss(const struct bp_ftext_record *rec)
{
	return (size_t)(rec->end - rec->body) > strlen(LOSS) && !memcmp(rec->body, LOSS, strlen(LOSS));
}

static BP_MUST_CHECK struct bp_err *take_loss(struct reader *r, const struct bp_ftext_record *rec)
{
	static const char before[] = " lost ";
	const char *p = memmem(rec->body, (size_t)(rec->end - rec->body), before, strlen(before));
	uint64_t n = 0;

	if (p) {
		p += strlen(before);
		bp_ftext_number(&p, rec->end, &n);
	}
	r->im->stats->lost += n + !n;
	return bp_sched_lost(r->im->sched, (uint16_t)rec->cpu, rec->time_ns, n);
}

/* The first line of a sample; @task gets "comm-tid". */
static bool parse_head(const char *p, const char *e, struct bp_ftext_record *rec, char task[64])
{
	const char *before, *q, *colon, *comm, *number;
	uint64_t tid, pid = 0;
	int n;

	*rec = (struct bp_ftext_record){.tgid = -1, .cpu = BP_WAIT_NO_CPU};
	if (!find_time(p, e, &before, &rec->body, &rec->time_ns))
		return false;
	before = trim(p, before);
	if (before > p && before[-1] == ']') {
		uint64_t cpu;

		q = memrchr(p, '[', (size_t)(before - p));
		if (!q)
			return false;
		number = q + 1;
		if (!bp_ftext_number(&number, before, &cpu) || cpu >= BP_BUILDER_CPUS)
			return false;
		rec->cpu = (uint32_t)cpu;
		before = trim(p, q);
	}
	number = before;
	while (number > p && (is_digit(number[-1]) || number[-1] == '/'))
		number--;
	if (number == before || number == p || number[-1] != ' ')
		return false;
	q = number;
	if (!bp_ftext_number(&q, before, &tid))
		return false;
	if (q < before && *q == '/') {
		q++;
		pid = tid;
		if (!bp_ftext_number(&q, before, &tid))
			return false;
		rec->tgid = (int64_t)pid;
	}
	if (q != before || tid > UINT32_MAX)
		return false;
	comm = bp_ftext_spaces(p, number);
	q = trim(comm, number);
	n = snprintf(task, 64, "%.*s-%llu", (int)(q - comm < 32 ? q - comm : 32), comm,
		     (unsigned long long)tid);
	rec->task = task;
	rec->task_len = (size_t)n;
	/* A number of events or a period may stand before the name. */
	rec->body = bp_ftext_spaces(rec->body, e);
	q = rec->body;
	if (bp_ftext_number(&q, e, &pid) && q < e && *q == ' ')
		rec->body = bp_ftext_spaces(q, e);
	rec->end = trim(rec->body, e);
	if (is_loss(rec))
		return true;
	colon = memchr(rec->body, ':', (size_t)(rec->end - rec->body));
	if (!colon)
		return false;
	/* "sched:sched_switch: ...": without the system's name */
	if (colon + 1 < rec->end && colon[1] != ' ')
		rec->body = colon + 1;
	return rec->body < rec->end;
}

static BP_MUST_CHECK struct bp_err *end_sample(struct reader *r)
{
	struct bp_err *err = NULL;

	if (r->in_sample) {
		err = bp_sched_stack(r->im->sched, r->tid, false, r->kernel, r->n_kernel);
		if (!err)
			err = bp_sched_stack(r->im->sched, r->tid, true, r->user, r->n_user);
	}
	r->in_sample = false;
	r->n_kernel = r->n_user = 0;
	return err;
}

/* "\tffffffff821facd8 __schedule+0x618 ([kernel.kallsyms])" */
static BP_MUST_CHECK struct bp_err *take_frame(struct reader *r, const char *p, const char *e, bool *ok)
{
	const char *q = p, *name, *name_end, *file = "", *plus;
	uint64_t addr = 0, offset = 0;
	size_t digits = 0, file_len = 0;
	struct bp_err *err;
	bool kernel, unknown;
	uint32_t id;

	for (; q < e; q++, digits++) {
		int d = is_digit(*q) ? *q - '0' : *q >= 'a' && *q <= 'f' ? *q - 'a' + 10 : -1;

		if (d < 0)
			break;
		addr = addr << 4 | (uint64_t)d;
	}
	*ok = digits && digits <= 16 && q < e && *q == ' ';
	if (!*ok || !r->in_sample)
		return NULL;
	r->frames++;
	name = bp_ftext_spaces(q, e);
	name_end = e = trim(name, e);
	if (e > name && e[-1] == ')') {
		const char *open = memrchr(name, '(', (size_t)(e - name));

		/* C++ has parentheses in names; files stand behind a blank. */
		if (open && open > name && open[-1] == ' ') {
			file = open + 1;
			file_len = (size_t)(e - 1 - file);
			name_end = trim(name, open);
		}
	}
	unknown = name_end - name == 9 && !memcmp(name, "[unknown]", 9);
	kernel = addr >> 63;
	/* Without frame pointers the chain goes on into data. */
	if (!kernel && addr >> 47)
		return NULL;
	if (addr == UINT64_MAX || (kernel ? r->n_kernel : r->n_user) == BP_HOST_STACK_MAX)
		return NULL;
	plus = memrchr(name, '+', (size_t)(name_end - name));
	if (plus && name_end - plus > 3 && plus[1] == '0' && plus[2] == 'x') {
		char text[20];

		snprintf(text, sizeof(text), "%.*s",
			 (int)(name_end - plus - 1 < 18 ? name_end - plus - 1 : 18), plus + 1);
		offset = strtoull(text, NULL, 16);
		name_end = plus;
	}
	if (unknown)
		name_end = name;
	if (file_len && (*file == '[' || (file_len == 7 && !memcmp(file, "inlined", 7)))) {
		/* "[kernel.kallsyms]", "[kvm]", "[unknown]" */
		if (*file == '[' && kernel && memcmp(file, "[kernel", file_len < 7 ? file_len : 7) != 0) {
			file++;
			file_len -= 2;
		} else {
			file_len = 0;
		}
	}
	if (!kernel && file_len) {
		if (name_end == name)
			offset = addr;
		addr = 0;
	}
	err = bp_sched_frame(r->im->sched, kernel ? BP_HOST_KERNEL : BP_HOST_USER, addr, name,
			     (size_t)(name_end - name), offset, file, file_len, &id);
	if (err || !id)
		return err;
	if (kernel)
		r->kernel[r->n_kernel++] = id;
	else
		r->user[r->n_user++] = id;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *take_line(void *self, const char *p, const char *e, bool *ok)
{
	struct reader *r = self;
	struct bp_ftext_record rec;
	char task[64];
	struct bp_err *err;
	const char *q = p;
	int64_t pid;
	uint64_t n;
	size_t len;

	*ok = true;
	while (q < e && (*q == ' ' || *q == '\t'))
		q++;
	e = trim(q, e);
	if (q == e)
		return end_sample(r);
	if (*q == '#')
		return NULL;
	if (q > p) {
		err = take_frame(r, q, e, ok);
		if (err || *ok)
			return err;
	}
	*ok = parse_head(p, e, &rec, task);
	if (!*ok)
		return NULL;
	err = end_sample(r);
	if (err)
		return err;
	if (is_loss(&rec))
		return take_loss(r, &rec);
	r->samples++;
	if (!bp_ftext_pid(rec.task, rec.task + rec.task_len, &pid, &len))
		return NULL;
	n = bp_sched_n(r->im->sched);
	err = bp_ftext_take_wait(r->im->sched, &r->waking_seen, &rec);
	/* Only what became a record has a stack. */
	r->in_sample = bp_sched_n(r->im->sched) != n;
	r->tid = (uint32_t)pid;
	return err;
}

static int probe(const uint8_t *head, size_t len)
{
	const char *p = (const char *)head, *end = p + len;
	unsigned heads = 0, frames = 0, lines = 0;

	while (p < end && lines < 60) {
		const char *e = memchr(p, '\n', (size_t)(end - p)), *q = p;
		struct bp_ftext_record rec;
		char task[64];

		if (!e)
			break;
		while (q < e && (*q == ' ' || *q == '\t'))
			q++;
		if (q < e && *q != '#') {
			lines++;
			if (parse_head(p, e, &rec, task)) {
				/* ftrace's own lines have "comm-pid", its names no system. */
				if (memmem(p, (size_t)(rec.body - p), ": ", 2) && rec.body[-1] == ':')
					heads++;
			} else if (q > p && (is_digit(*q) || (*q >= 'a' && *q <= 'f'))) {
				frames++;
			}
		}
		p = e + 1;
	}
	if (!heads || (heads + frames) * 4 < lines * 3)
		return 0;
	return 90;
}

static struct bp_err *run(struct bp_import *im)
{
	bp_autofree struct reader *r = calloc(1, sizeof(*r));
	struct bp_import_stats *s = im->stats;
	struct bp_fact clock = {
	    .kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = "clock_time", .s2 = "time stamps of the trace"};
	struct bp_err *err;

	if (!r)
		return bp_err_nomem();
	r->im = im;
	if (!im->sched)
		return bp_err_new(BP_EUNSUPPORTED,
				  "samples of perf have waits only, which are not wanted here");
	err = bp_import_lines(im, r, take_line, "not a line of perf script");
	s->records += r->samples;
	snprintf(s->stacks, sizeof(s->stacks), "none");
	if (!err)
		err = end_sample(r);
	return err ? err : bp_builder_fact(im->builder, &clock);
}

const struct bp_importer bp_import_perf_script = {
    .name = "perf-script",
    .summary = "text of perf script: scheduler, futex and KVM events with call chains",
    .probe = probe,
    .run = run,
};
