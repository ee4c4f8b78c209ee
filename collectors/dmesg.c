// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stacks in the kernel's log, and in copies of /proc/PID/task/TID/{status,syscall,stack}:
 *
 *   [93724.006557] CPU: 6 PID: 20948 Comm: CPU 0/KVM Not tainted 3.10.0-123.el7.x86_64 #1
 *   [93724.006559]  [<ffffffff81440f68>] dump_stack+0x64/0x84           a dump_stack() put into the scheduler
 *   [    3.486575] task:kthreadd        state:S stack:0     pid:2     ppid:0      flags:0x00004000
 *   [    3.486634]  __schedule+0x34d/0xa00                              sysrq-t
 *   --- tid 13059 comm qemu-system-x86                                 copies of /proc
 *   syscall: 202 0x55a7a91eab40 0x80 0x2 ...
 *   [<0>] futex_do_wait+0x46/0x90
 *
 * Frames marked ? are what lay on the stack, not callers, and are left out. A stack of the log without a
 * task's line is a switch when it goes through the scheduler; other stacks (warnings, NMIs) are nobody's
 * wait. Source: the kernel's dump_stack(), sched_show_task() and proc_pid_stack(), Linux 3.10 to 6.18.
 */
#define _GNU_SOURCE 1 /* memmem() */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collectors/import.h"
#include "collectors/sched.h"
#include "core/cleanup.h"

#define NO_TID UINT32_MAX

struct reader {
	struct bp_import *im;
	uint64_t time_ns; /* of the line */
	uint64_t begun_ns;
	/* The block being read. */
	uint32_t tid;
	uint16_t cpu;
	uint8_t state;
	bool task; /* it is of a task that does not run; else of whoever printed it */
	bool in_scheduler;
	uint64_t futex;
	uint32_t op;
	uint32_t frames[BP_HOST_STACK_MAX];
	size_t n;
	uint64_t stacks;
};

static const char *blanks(const char *p, const char *e)
{
	while (p < e && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

static bool number(const char **p, const char *e, unsigned base, uint64_t *ret)
{
	const char *q = *p;
	uint64_t v = 0;

	for (; q < e; q++) {
		unsigned d = *q >= '0' && *q <= '9'                 ? (unsigned)(*q - '0')
			     : base == 16 && *q >= 'a' && *q <= 'f' ? (unsigned)(*q - 'a') + 10
								    : 99;

		if (d >= base || q - *p >= 18)
			break;
		v = v * base + d;
	}
	if (q == *p)
		return false;
	*p = q;
	*ret = v;
	return true;
}

static bool hex(const char **p, const char *e, uint64_t *ret)
{
	const char *q = *p + 2;

	if (e - *p < 3 || (*p)[0] != '0' || (*p)[1] != 'x' || !number(&q, e, 16, ret))
		return false;
	*p = q;
	return true;
}

static bool starts(const char *p, const char *e, const char *with, const char **rest)
{
	size_t len = strlen(with);

	if ((size_t)(e - p) < len || memcmp(p, with, len) != 0)
		return false;
	*rest = p + len;
	return true;
}

/* The value behind "NAME" somewhere in the line. */
static bool value_of(const char *p, const char *e, const char *name, uint64_t *ret)
{
	const char *q = memmem(p, (size_t)(e - p), name, strlen(name));

	if (!q)
		return false;
	q = blanks(q + strlen(name), e);
	return number(&q, e, 10, ret);
}

/* Over "<6>", "Nov 25 04:00:00 host kernel: " and "[93724.006557] "; takes the time. */
static const char *over_prefix(struct reader *r, const char *p, const char *e)
{
	const char *q = memmem(p, (size_t)(e - p), " kernel: ", 9), *start = p;
	uint64_t s;

	if (q)
		p = q + 9;
	p = blanks(p, e);
	if (p < e && *p == '<') {
		q = p + 1;
		if (number(&q, e, 10, &s) && q < e && *q == '>')
			p = q + 1;
	}
	q = blanks(p, e);
	if (q == e || *q != '[')
		return p == blanks(start, e) ? start : p;
	q = blanks(q + 1, e);
	if (!number(&q, e, 10, &s) || q == e || *q != '.' || s >= UINT64_MAX / 2000000000)
		return p;
	q++;
	r->time_ns = s * 1000000000;
	for (unsigned scale = 100000000; q < e && *q >= '0' && *q <= '9'; q++, scale /= 10)
		r->time_ns += (uint64_t)(*q - '0') * scale;
	return q < e && *q == ']' ? q + 1 : p;
}

/*
 * " [<ffffffff81440f68>] dump_stack+0x64/0x84 [mod]", "[] f+0x1/0x2", " ? f+0x1/0x2", " f+0x1/0x2": the text
 * from the function's name on. NULL: it is none.
 */
static const char *frame_text(const char *p, const char *e, bool *guess, uint64_t *addr)
{
	const char *q, *slash;
	uint64_t v;

	*addr = 0;
	p = blanks(p, e);
	if (p < e && *p == '[') {
		q = p + 1;
		if (q < e && *q == '<') {
			q++;
			if (!number(&q, e, 16, addr) || q == e || *q++ != '>')
				return NULL;
		}
		if (q == e || *q != ']')
			return NULL;
		p = blanks(q + 1, e);
	}
	*guess = e - p > 2 && p[0] == '?' && p[1] == ' ';
	if (*guess)
		p = blanks(p + 1, e);
	for (q = p; q < e && *q != '+' && *q != ' '; q++)
		;
	if (q == p || q == e || *q != '+')
		return NULL;
	q++;
	if (!hex(&q, e, &v) || q == e || *q != '/')
		return NULL;
	slash = q + 1;
	if (!hex(&slash, e, &v) || (slash < e && *slash != ' '))
		return NULL;
	return p;
}

static void begin(struct reader *r, uint32_t tid, uint8_t state, bool task)
{
	r->tid = tid;
	r->begun_ns = r->time_ns;
	r->cpu = BP_WAIT_NO_CPU;
	r->state = state;
	r->task = task;
	r->n = 0;
	r->in_scheduler = false;
	r->futex = 0;
	r->op = 0;
}

/* The block ends: what it says becomes a record. */
static BP_MUST_CHECK struct bp_err *end(struct reader *r)
{
	struct bp_wait w = {
	    .kind = r->task ? BP_WAIT_SAMPLE : BP_WAIT_OUT,
	    .thread = r->tid,
	    .cpu = r->cpu,
	    .state = r->state,
	    .time_ns = r->begun_ns,
	    .addr = r->futex,
	    .other = r->op,
	};
	struct bp_err *err = NULL;

	/* Copies of /proc are not of one moment: a thread that ran may be in its system call a little later.
	 */
	if (r->state == 'R' && r->futex)
		w.state = 0;
	/* Who runs does not wait; the stack that prints itself is not of the scheduler. */
	if ((r->n || r->futex) && (r->task ? w.state != 'R' : r->in_scheduler)) {
		r->stacks++;
		err = bp_sched_add(r->im->sched, &w);
		if (!err)
			err = bp_sched_stack(r->im->sched, r->tid, false, r->frames, r->n);
	}
	begin(r, NO_TID, 0, false);
	return err;
}

/* "CPU: 6 PID: 20948 Comm: CPU 0/KVM Not tainted ..."; newer kernels have "UID: 0 PID:" */
static BP_MUST_CHECK struct bp_err *take_cpu_line(struct reader *r, const char *p, const char *e, bool *ok)
{
	const char *comm = memmem(p, (size_t)(e - p), " Comm: ", 7), *z;
	uint64_t tid, cpu;
	struct bp_err *err;

	*ok = comm && value_of(p, e, "CPU:", &cpu) && value_of(p, comm, " PID:", &tid) && tid < NO_TID;
	if (!*ok)
		return NULL;
	comm += 7;
	z = memmem(comm, (size_t)(e - comm), " Not tainted", 12);
	if (!z)
		z = memmem(comm, (size_t)(e - comm), " Tainted: ", 10);
	if (!z)
		z = e;
	err = end(r);
	if (err)
		return err;
	begin(r, (uint32_t)tid, 0, false);
	r->cpu = (uint16_t)(cpu < BP_WAIT_NO_CPU ? cpu : BP_WAIT_NO_CPU);
	return bp_sched_thread(r->im->sched, (uint32_t)tid, 0, comm, (size_t)(z - comm), true, r->time_ns);
}

/* "task:kthreadd        state:S stack:0     pid:2     ppid:0 ..." */
static BP_MUST_CHECK struct bp_err *take_task_line(struct reader *r, const char *p, const char *e, bool *ok)
{
	const char *state = memmem(p, (size_t)(e - p), " state:", 7), *z = state;
	uint64_t tid;
	struct bp_err *err;

	*ok = state && state + 7 < e && value_of(state, e, " pid:", &tid) && tid < NO_TID;
	if (!*ok)
		return NULL;
	while (z > p && z[-1] == ' ')
		z--;
	err = end(r);
	if (err)
		return err;
	begin(r, (uint32_t)tid, (uint8_t)state[7], true);
	return bp_sched_thread(r->im->sched, (uint32_t)tid, 0, p, (size_t)(z - p), true, r->time_ns);
}

/* "--- tid 13059 comm qemu-system-x86" */
static BP_MUST_CHECK struct bp_err *take_tid_line(struct reader *r, const char *p, const char *e, bool *ok)
{
	const char *comm = memmem(p, (size_t)(e - p), " comm ", 6), *q = p;
	uint64_t tid;
	struct bp_err *err;

	*ok = comm && number(&q, e, 10, &tid) && q == comm && tid < NO_TID;
	if (!*ok)
		return NULL;
	comm += 6;
	err = end(r);
	if (err)
		return err;
	begin(r, (uint32_t)tid, 0, true);
	return bp_sched_thread(r->im->sched, (uint32_t)tid, 0, comm, (size_t)(e - comm), true, r->time_ns);
}

/* "202 0x55a7a91eab40 0x80 ...": the system call, of x86-64, and its arguments */
static bool take_syscall(struct reader *r, const char *p, const char *e)
{
	uint64_t nr, addr, op;

	if (!number(&p, e, 10, &nr) || p == e || *p != ' ')
		return false;
	p = blanks(p, e);
	if (!hex(&p, e, &addr))
		return false;
	p = blanks(p, e);
	if (nr == 202 && hex(&p, e, &op)) {
		r->futex = addr;
		r->op = (uint32_t)op;
	}
	return true;
}

static BP_MUST_CHECK struct bp_err *take_line(void *self, const char *p, const char *e, bool *ok)
{
	struct reader *r = self;
	const char *rest, *text;
	struct bp_err *err;
	uint64_t addr;
	bool guess;

	*ok = true;
	while (e > p && (e[-1] == '\r' || e[-1] == ' '))
		e--;
	p = over_prefix(r, p, e);
	rest = blanks(p, e);
	if (rest == e)
		return end(r);
	text = frame_text(p, e, &guess, &addr);
	if (text) {
		uint32_t id = 0;

		if (guess || r->n == BP_HOST_STACK_MAX)
			return NULL;
		if (starts(text, e, "dump_stack+", &rest) || starts(text, e, "dump_stack_lvl+", &rest)) {
			/* The next one may come without a line of its own. */
			if (r->n) {
				err = end(r);
				if (err)
					return err;
			}
			return NULL;
		}
		/* Without a line of its own it begins here. */
		if (!r->n && r->tid == NO_TID)
			r->begun_ns = r->time_ns;
		r->in_scheduler |= starts(text, e, "__schedule+", &rest);
		err = bp_sched_kernel_frame(r->im->sched, addr, text, (size_t)(e - text), &id);
		if (!err && id)
			r->frames[r->n++] = id;
		return err;
	}
	if (starts(rest, e, "CPU: ", &text)) {
		err = take_cpu_line(r, rest, e, ok);
		if (err || *ok)
			return err;
	} else if (starts(rest, e, "task:", &text)) {
		err = take_task_line(r, text, e, ok);
		if (err || *ok)
			return err;
	} else if (starts(rest, e, "--- tid ", &text)) {
		err = take_tid_line(r, text, e, ok);
		if (err || *ok)
			return err;
	} else if (starts(rest, e, "=== sample ", &text)) {
		const char *t = memmem(text, (size_t)(e - text), " t=", 3);

		err = end(r);
		if (t) {
			struct reader time = {0};
			char line[48];
			int n = snprintf(line, sizeof(line), "[%.*s]", (int)(e - t - 3 < 32 ? e - t - 3 : 32),
					 t + 3);

			over_prefix(&time, line, line + n);
			r->time_ns = time.time_ns;
		}
		return err;
	} else if (r->task && starts(rest, e, "State:", &text)) {
		text = blanks(text, e);
		r->state = text < e ? (uint8_t)*text : 0;
		return NULL;
	} else if (r->task && starts(rest, e, "syscall: ", &text)) {
		take_syscall(r, text, e);
		return NULL;
	} else if (r->task && take_syscall(r, rest, e)) {
		return NULL;
	} else if (starts(rest, e, "Call Trace:", &text) || starts(rest, e, "<TASK>", &text) ||
		   starts(rest, e, "<IRQ>", &text) || starts(rest, e, "<EOI>", &text) ||
		   starts(rest, e, "stack:", &text) || starts(rest, e, "Hardware name:", &text)) {
		return NULL;
	}
	/* Whatever else: a stack is over. */
	*ok = true;
	return r->n ? end(r) : NULL;
}

static int probe(const uint8_t *head, size_t len)
{
	const char *p = (const char *)head, *stop = p + len;
	unsigned frames = 0, lines = 0;
	struct reader r = {0};

	while (p < stop && lines < 4000) {
		const char *e = memchr(p, '\n', (size_t)(stop - p)), *q;
		uint64_t addr;
		bool guess;

		if (!e)
			e = stop;
		lines++;
		q = over_prefix(&r, p, e);
		frames += frame_text(q, e, &guess, &addr) != NULL;
		p = e < stop ? e + 1 : stop;
	}
	if (frames < 3)
		return 0;
	return frames * 4 > lines ? 60 : 30;
}

static struct bp_err *run(struct bp_import *im)
{
	bp_autofree struct reader *r = calloc(1, sizeof(*r));
	struct bp_import_stats *s = im->stats;
	struct bp_fact clock = {
	    .kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = "clock_time", .s2 = "time stamps of the log"};
	struct bp_err *err;

	if (!r)
		return bp_err_nomem();
	r->im = im;
	if (!im->sched)
		return bp_err_new(BP_EUNSUPPORTED,
				  "stacks of a log are waits only, which are not wanted here");
	begin(r, NO_TID, 0, false);
	err = bp_import_lines(im, r, take_line, NULL);
	if (!err)
		err = end(r);
	s->records += r->stacks;
	snprintf(s->stacks, sizeof(s->stacks), "none");
	return err ? err : bp_builder_fact(im->builder, &clock);
}

const struct bp_importer bp_import_dmesg = {
    .name = "dmesg",
    .summary = "stacks in a kernel log (dump_stack, sysrq-t) or copied from /proc",
    .probe = probe,
    .run = run,
};
