// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Records of the function tracer and of events:
 *
 *           insmod-101     [001] d.h1.     4.070118: vp_modern_probe <-virtio_pci_modern_probe
 *   insmod-102       0..... 183371us+: vp_modern_probe+0x0/0x5e2 [virtio_pci_modern_dev]
 * <-virtio_pci_modern_probe+0x1f/0x90 <idle>-0       [000] ...1.     0.370757: initcall_start:
 * func=con_init+0x0/0x22c
 *
 * The second form is latency-format's, with microseconds since the first record. The function tracer tells
 * when a function was entered and by whom, but not when it returned: a function is taken to run until its
 * caller, or a caller of that, calls another.
 */
#define _GNU_SOURCE 1 /* memmem() */
#include "collectors/ftrace/text.h"

#include <stdio.h>

static const char *word_end(const char *p, const char *e)
{
	while (p < e && *p != ' ')
		p++;
	return p;
}

/* "   4.070118: " or "183371us+: "; also whole numbers, which other clocks have */
static bool parse_time(const char *p, const char *e, struct bp_ftext_record *rec)
{
	const char *q = bp_ftext_spaces(p, e);
	uint64_t v;

	if (!bp_ftext_number(&q, e, &v) || q == e)
		return false;
	if (*q == '.') {
		if (v >= UINT64_MAX / 2000000000)
			return false;
		q++;
		rec->time_ns = v * 1000000000 + bp_ftext_fraction(&q, e, 9);
	} else if (e - q > 2 && q[0] == 'u' && q[1] == 's') {
		if (v >= UINT64_MAX / 2000)
			return false;
		rec->time_ns = v * 1000;
		q += 2;
		if (q < e && *q != ':')
			q++;
	} else {
		rec->time_ns = v;
	}
	if (q == e || *q != ':')
		return false;
	rec->body = bp_ftext_spaces(q + 1, e);
	rec->end = e;
	return rec->body < e;
}

/* From the '[' of "[001] d..1. 4.07: body" on; the task stands before it. */
static bool parse_bracket(const char *p, const char *bracket, const char *e, struct bp_ftext_record *rec)
{
	const char *q = bracket + 1, *z = bracket, *w;
	uint64_t cpu, tgid;
	size_t comm_len;
	int64_t pid;

	if (!bp_ftext_number(&q, e, &cpu) || cpu >= BP_BUILDER_CPUS || q == e || *q != ']')
		return false;
	while (z > p && z[-1] == ' ')
		z--;
	/* "comm-pid (tgid) [001]" */
	if (z > p && z[-1] == ')') {
		while (z > p && *z != '(')
			z--;
		w = bp_ftext_spaces(z + 1, bracket);
		if (bp_ftext_number(&w, bracket, &tgid))
			rec->tgid = (int64_t)tgid;
		while (z > p && z[-1] == ' ')
			z--;
	}
	p = bp_ftext_spaces(p, z);
	if (!bp_ftext_pid(p, z, &pid, &comm_len))
		return false;
	rec->task = p;
	rec->task_len = (size_t)(z - p);
	rec->cpu = (uint32_t)cpu;
	q = bp_ftext_spaces(q + 1, e);
	w = word_end(q, e);
	if (w > q && w - q <= 12 && w[-1] != ':') {
		rec->flags = q;
		rec->flags_len = (size_t)(w - q);
		q = w;
	}
	return parse_time(q, e, rec);
}

/* "  insmod-102       0..... 183371us#: body": from the '-' on */
static bool parse_latency(const char *p, const char *dash, const char *e, struct bp_ftext_record *rec)
{
	const char *q = dash + 1, *pid_end, *w;
	uint64_t v;

	if (!bp_ftext_number(&q, e, &v) || q == e || *q != ' ')
		return false;
	pid_end = q;
	q = bp_ftext_spaces(q, e);
	if (!bp_ftext_number(&q, e, &v) || v >= BP_BUILDER_CPUS)
		return false;
	w = word_end(q, e);
	if (w - q < 3 || w - q > 8)
		return false;
	p = bp_ftext_spaces(p, dash);
	rec->task = p;
	rec->task_len = (size_t)(pid_end - p);
	rec->cpu = (uint32_t)v;
	rec->flags = q;
	rec->flags_len = (size_t)(w - q);
	return parse_time(w, e, rec) && memchr(w, 'u', (size_t)(rec->body - w));
}

static bool parse_record(const char *p, const char *e, struct bp_ftext_record *rec)
{
	/* Names of tasks are up to 15 bytes of anything. */
	const char *limit = e - p > 64 ? p + 64 : e;

	*rec = (struct bp_ftext_record){.tgid = -1};
	for (const char *q = p; q < limit; q++) {
		if (*q == '[' && q > p && q[-1] == ' ' && parse_bracket(p, q, e, rec))
			return true;
		if (*q == '-' && q > p && parse_latency(p, q, e, rec))
			return true;
	}
	return false;
}

bool bp_ftext_is_event(const char *p, const char *e)
{
	struct bp_ftext_record rec;

	return parse_record(p, e, &rec);
}

/* ---- what the records do ---- */

static bool starts(const char *p, const char *e, const char *with, const char **rest)
{
	size_t len = strlen(with);

	if ((size_t)(e - p) < len || memcmp(p, with, len) != 0)
		return false;
	*rest = p + len;
	return true;
}

/* "name+0x10/0x20 [module]": the function's name as a graph would have it */
static size_t function_key(const char *p, const char *e, char key[BP_FTEXT_NAME_MAX])
{
	const char *q = p, *z;
	size_t len;

	while (q < e && *q != ' ' && *q != '+' && *q != '(')
		q++;
	len = (size_t)(q - p) < BP_FTEXT_NAME_MAX ? (size_t)(q - p) : BP_FTEXT_NAME_MAX;
	memcpy(key, p, len);
	q = word_end(q, e);
	if (e - q > 3 && q[1] == '[') {
		z = memchr(q, ']', (size_t)(e - q));
		if (z && len + (size_t)(z + 1 - q) <= BP_FTEXT_NAME_MAX) {
			memcpy(key + len, q, (size_t)(z + 1 - q));
			len += (size_t)(z + 1 - q);
		}
	}
	return len;
}

static void leave_to(struct bp_ftext *r, struct bp_ftext_task *t, uint32_t cpu, uint32_t n)
{
	if (n >= t->n)
		return;
	bp_ftext_fail(r, bp_builder_leave(r->b, cpu, t->n - n, r->cpus[cpu]->newest_ns, 0));
	t->n = n;
}

static void enter(struct bp_ftext *r, struct bp_ftext_task *t, uint32_t cpu, uint32_t func,
		  enum bp_ev_kind kind)
{
	struct bp_ftext_frame *f = func == BP_FTEXT_NONE ? NULL : bp_ftext_push(r, t);

	if (!f)
		return;
	*f = (struct bp_ftext_frame){
	    .enter_ns = r->cpus[cpu]->newest_ns, .func = func, .cpu = cpu, .live = true};
	bp_ftext_fail(r, bp_builder_enter(r->b, cpu, kind, r->funcs[func].id, f->enter_ns, 0));
}

static void leave_func(struct bp_ftext *r, struct bp_ftext_task *t, uint32_t cpu, uint32_t func)
{
	for (uint32_t i = t->n; i--;) {
		if (t->frames[i].func == func) {
			leave_to(r, t, cpu, i);
			return;
		}
	}
}

/* From the flags: 0 nothing, 1 softirq, 2 hardirq, 3 NMI */
static unsigned irq_level(const struct bp_ftext_record *rec)
{
	unsigned level = 0;

	for (size_t i = 0; i < rec->flags_len; i++) {
		switch (rec->flags[i]) {
		case 'Z':
		case 'z':
			return 3;
		case 'H':
		case 'h':
			level = 2;
			break;
		case 's':
			if (!level)
				level = 1;
			break;
		default:
			break;
		}
	}
	return level;
}

static void take_function(struct bp_ftext *r, struct bp_ftext_task *t, const struct bp_ftext_record *rec,
			  const char *arrow)
{
	char key[BP_FTEXT_NAME_MAX];
	uint32_t func = bp_ftext_intern(r, key, function_key(rec->body, arrow, key));
	uint32_t parent = bp_ftext_lookup(r, key, function_key(arrow + 3, rec->end, key));
	unsigned level = irq_level(rec);
	enum bp_ev_kind kind = BP_EV_CALL;
	uint32_t base, i;

	if (func == BP_FTEXT_NONE)
		return;
	r->funcs[func].functions++;
	/* An interrupt stands on top of what it interrupts, which goes on when it is over. */
	while (t->level > level)
		leave_to(r, t, rec->cpu, t->irq_base[--t->level]);
	if (t->level < level)
		kind = BP_EV_IRQ;
	while (t->level < level)
		t->irq_base[t->level++] = t->n;
	base = level ? t->irq_base[level - 1] : 0;
	for (i = t->n; i > base; i--) {
		if (parent != BP_FTEXT_NONE && t->frames[i - 1].func == parent)
			break;
	}
	leave_to(r, t, rec->cpu, i);
	enter(r, t, rec->cpu, func, kind);
}

static void take_initcall(struct bp_ftext *r, struct bp_ftext_task *t, const struct bp_ftext_record *rec,
			  const char *args, bool start)
{
	char key[BP_FTEXT_NAME_MAX];
	uint32_t func;

	if (!starts(bp_ftext_spaces(args, rec->end), rec->end, "func=", &args))
		return;
	func = bp_ftext_intern(r, key, function_key(args, rec->end, key));
	if (start)
		enter(r, t, rec->cpu, func, BP_EV_CALL);
	else
		leave_func(r, t, rec->cpu, func);
}

/* A pair of events around something that has no function of its own here. */
static void take_span(struct bp_ftext *r, struct bp_ftext_task *t, const struct bp_ftext_record *rec,
		      const char *what, const char *args, bool start)
{
	const char *q, *z, *e = rec->end;
	char key[80];
	uint32_t func;
	int n;

	q = memchr(args, '=', (size_t)(e - args));
	q = q ? q + 1 : args;
	z = word_end(q, e);
	n = snprintf(key, sizeof(key), "[%s %.*s]", what, (int)(z - q < 32 ? z - q : 32), q);
	func = bp_ftext_intern(r, key, (size_t)n < sizeof(key) ? (size_t)n : sizeof(key) - 1);
	if (start)
		enter(r, t, rec->cpu, func, BP_EV_IRQ);
	else
		leave_func(r, t, rec->cpu, func);
}

/* sys_enter: "NR 257 (...)": the number; sys_exit: "NR 257 = 3" */
static void take_raw_syscall(struct bp_ftext *r, struct bp_ftext_task *t, const struct bp_ftext_record *rec,
			     const char *args, bool start)
{
	const char *q;
	char key[32];
	uint64_t nr;
	int n;

	if (!starts(bp_ftext_spaces(args, rec->end), rec->end, "NR ", &q) ||
	    !bp_ftext_number(&q, rec->end, &nr) || nr > UINT32_MAX)
		return;
	n = snprintf(key, sizeof(key), "[system call %u]", (unsigned)nr);
	if (start) {
		leave_to(r, t, rec->cpu, 0);
		bp_ftext_fail(r, bp_builder_syscall(r->b, rec->cpu, (uint32_t)nr, rec->time_ns, 0));
		enter(r, t, rec->cpu, bp_ftext_intern(r, key, (size_t)n), BP_EV_CALL);
	} else {
		leave_to(r, t, rec->cpu, 0);
	}
}

/* "sys_futex(uaddr: 0x1, ...)" and "sys_futex -> 0x0" */
static bool take_syscall(struct bp_ftext *r, struct bp_ftext_task *t, const struct bp_ftext_record *rec)
{
	const char *q = rec->body;
	uint32_t func;

	while (q < rec->end && *q != '(' && *q != ' ')
		q++;
	if (rec->end - q < 2)
		return false;
	if (*q == '(') {
		leave_to(r, t, rec->cpu, 0);
		enter(r, t, rec->cpu, bp_ftext_intern(r, rec->body, (size_t)(q - rec->body)), BP_EV_CALL);
		return true;
	}
	if (memcmp(q, " -", 2) != 0)
		return false;
	func = bp_ftext_lookup(r, rec->body, (size_t)(q - rec->body));
	if (func != BP_FTEXT_NONE)
		leave_func(r, t, rec->cpu, func);
	return true;
}

static void take_switch(struct bp_ftext *r, const struct bp_ftext_record *rec, const char *args)
{
	const char *comm;
	struct bp_ftext_task *t;
	char key[64];
	size_t len;
	int64_t pid;
	int n;

	bp_ftext_comms(r, args, rec->end, rec->time_ns);
	if (!bp_ftext_next_comm(args, rec->end, &comm, &len, &pid) || len > 16)
		return;
	if (pid)
		n = snprintf(key, sizeof(key), "%.*s-%lld", (int)len, comm, (long long)pid);
	else
		n = snprintf(key, sizeof(key), "<idle>-0");
	t = bp_ftext_task_of(r, rec->cpu, key, (size_t)n);
	if (t)
		bp_ftext_run_task(r, rec->cpu, t, rec->time_ns);
}

void bp_ftext_mark(struct bp_ftext *r, uint32_t cpu, uint64_t time_ns, const char *p, const char *e)
{
	struct bp_fact f = {
	    .kind = BP_FACT_MARK, .vcpu = (uint16_t)cpu, .time_ns = time_ns, .s1 = "trace-mark"};
	char text[256];
	size_t len = (size_t)(e - p) < sizeof(text) - 1 ? (size_t)(e - p) : sizeof(text) - 1;

	r->counts.marks++;
	if (r->noted_marks >= BP_FTEXT_MARKS_MAX)
		return;
	r->noted_marks++;
	memcpy(text, p, len);
	text[len] = '\0';
	f.s2 = text;
	bp_ftext_fail(r, bp_builder_fact(r->b, &f));
}

static void take_event(struct bp_ftext *r, struct bp_ftext_task *t, const struct bp_ftext_record *rec)
{
	static const struct {
		const char *name;
		const char *what;
		bool start;
	} spans[] = {
	    {"irq_handler_entry: ", "irq", true},
	    {"irq_handler_exit: ", "irq", false},
	    {"softirq_entry: ", "softirq", true},
	    {"softirq_exit: ", "softirq", false},
	    {"local_timer_entry: ", "local timer", true},
	    {"local_timer_exit: ", "local timer", false},
	    {"reschedule_entry: ", "reschedule", true},
	    {"reschedule_exit: ", "reschedule", false},
	    {"call_function_entry: ", "call function", true},
	    {"call_function_exit: ", "call function", false},
	    {"call_function_single_entry: ", "call function single", true},
	    {"call_function_single_exit: ", "call function single", false},
	    {"irq_work_entry: ", "irq work", true},
	    {"irq_work_exit: ", "irq work", false},
	};
	const char *p = rec->body, *e = rec->end, *args;

	if (starts(p, e, "sched_switch: ", &args)) {
		take_switch(r, rec, args);
	} else if (starts(p, e, "sys_enter: ", &args)) {
		take_raw_syscall(r, t, rec, args, true);
	} else if (starts(p, e, "sys_exit: ", &args)) {
		take_raw_syscall(r, t, rec, args, false);
	} else if (starts(p, e, "sys_", &args) && take_syscall(r, t, rec)) {
		return;
	} else if (starts(p, e, "initcall_start: ", &args)) {
		take_initcall(r, t, rec, args, true);
	} else if (starts(p, e, "initcall_finish: ", &args)) {
		take_initcall(r, t, rec, args, false);
	} else if (starts(p, e, "initcall_level: level=", &args)) {
		struct bp_fact f = {.kind = BP_FACT_MARK,
				    .vcpu = (uint16_t)rec->cpu,
				    .time_ns = r->cpus[rec->cpu]->newest_ns,
				    .s1 = "initcall-level"};
		char text[64];

		snprintf(text, sizeof(text), "%.*s", (int)(e - args < 60 ? e - args : 60), args);
		f.s2 = text;
		bp_ftext_fail(r, bp_builder_fact(r->b, &f));
	} else if (starts(p, e, "tracing_mark_write: ", &args)) {
		bp_ftext_mark(r, rec->cpu, r->cpus[rec->cpu]->newest_ns, args, e);
	} else {
		for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
			if (starts(p, e, spans[i].name, &args)) {
				take_span(r, t, rec, spans[i].what, args, spans[i].start);
				return;
			}
		}
	}
}

/* Where " <-caller" begins in a record of the function tracer; NULL: it is none. */
static const char *caller(const struct bp_ftext_record *rec)
{
	const char *q = memmem(rec->body, (size_t)(rec->end - rec->body), " <-", 3);
	const char *colon = memchr(rec->body, ':', (size_t)(rec->end - rec->body));

	return q && q > rec->body && (!colon || colon > q) && rec->end - q > 3 ? q : NULL;
}

enum bp_ftext_class bp_ftext_event(struct bp_ftext *r, const char *p, const char *e)
{
	struct bp_ftext_record rec;
	struct bp_ftext_cpu *c;
	struct bp_ftext_task *t;
	const char *arrow, *rest;

	if (!parse_record(p, e, &rec))
		return BP_FTEXT_OTHER;
	c = bp_ftext_cpu(r, rec.cpu);
	if (!c)
		return BP_FTEXT_OTHER;
	r->seen[rec.cpu].lines++;
	if (r->counts.first_ns == UINT64_MAX)
		r->counts.first_ns = rec.time_ns;
	r->counts.last_ns = rec.time_ns;
	if (starts(rec.body, e, "<stack trace>", &rest) || starts(rec.body, e, "<user stack trace>", &rest)) {
		bp_ftext_stack_begin(r, &rec, rec.body[1] == 'u');
		return BP_FTEXT_STACK;
	}
	if (r->im->sched)
		bp_ftext_wait(r, &rec);
	t = c->last;
	if (!t || !t->pid || t->key_len != rec.task_len || memcmp(t->key, rec.task, rec.task_len) != 0)
		t = c->last = bp_ftext_task_of(r, rec.cpu, rec.task, rec.task_len);
	if (!t)
		return BP_FTEXT_OTHER;
	bp_ftext_run_task(r, rec.cpu, t, rec.time_ns);
	if (r->err)
		return BP_FTEXT_OTHER;
	c->used = true;
	arrow = caller(&rec);
	if (arrow) {
		take_function(r, t, &rec, arrow);
		return BP_FTEXT_FUNCTION;
	}
	take_event(r, t, &rec);
	return BP_FTEXT_EVENT;
}
