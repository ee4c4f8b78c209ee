// SPDX-License-Identifier: GPL-2.0-or-later
/* What records of ftrace's text say of threads that wait: switches, wake-ups, futex calls, locks, stacks. */
#define _GNU_SOURCE 1 /* memmem(), memrchr() */
#include "collectors/ftrace/text.h"

#include <stdio.h>
#include <stdlib.h>

static bool starts(const char *p, const char *e, const char *with, const char **rest)
{
	size_t len = strlen(with);

	if ((size_t)(e - p) < len || memcmp(p, with, len) != 0)
		return false;
	*rest = p + len;
	return true;
}

/* Decimal or 0x hexadecimal, with a sign, up to the first other character. */
static bool any_number(const char *p, const char *e, uint64_t *ret)
{
	bool minus = p < e && *p == '-', found = false;
	unsigned base = 10;
	uint64_t v = 0;

	if (minus)
		p++;
	if (e - p > 2 && p[0] == '0' && p[1] == 'x') {
		base = 16;
		p += 2;
	}
	for (; p < e; p++, found = true) {
		unsigned d = *p >= '0' && *p <= '9'                 ? (unsigned)(*p - '0')
			     : base == 16 && *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a') + 10
								    : 99;

		if (d >= base)
			break;
		v = v * base + d;
	}
	*ret = minus ? -v : v;
	return found;
}

/* The value behind "NAME" in [p, e), such as "uaddr: " or "pid=". */
static bool value_of(const char *p, const char *e, const char *name, uint64_t *ret)
{
	size_t len = strlen(name);
	const char *q = memmem(p, (size_t)(e - p), name, len);

	return q && any_number(q + len, e, ret);
}

/* "WHO_comm=... WHO_pid=N" */
static bool thread_of(const char *p, const char *e, const char *comm_is, const char *pid_is,
		      const char **comm, size_t *len, uint64_t *pid)
{
	const char *q = memmem(p, (size_t)(e - p), comm_is, strlen(comm_is)), *z;

	if (!q)
		return false;
	q += strlen(comm_is);
	z = memmem(q, (size_t)(e - q), pid_is, strlen(pid_is));
	if (!z || !any_number(z + strlen(pid_is), e, pid) || *pid > UINT32_MAX)
		return false;
	*comm = q;
	*len = (size_t)(z - q);
	return true;
}

static bool irq_flags(const struct bp_ftext_record *rec)
{
	for (size_t i = 0; i < rec->flags_len; i++) {
		switch (rec->flags[i]) {
		case 'H':
		case 'h':
		case 's':
		case 'Z':
		case 'z':
			return true;
		default:
			break;
		}
	}
	return false;
}

static BP_MUST_CHECK struct bp_err *take_switch(struct bp_sched *s, const struct bp_ftext_record *rec,
						const char *args)
{
	struct bp_err *err;
	const char *e = rec->end, *comm, *next_comm, *state, *state_end;
	uint64_t prev, next;
	size_t len, next_len;

	if (!thread_of(args, e, "prev_comm=", " prev_pid=", &comm, &len, &prev) ||
	    !thread_of(comm + len, e, "next_comm=", " next_pid=", &next_comm, &next_len, &next))
		return NULL;
	state = memmem(comm + len, (size_t)(e - comm) - len, " prev_state=", 12);
	state = state && state < next_comm ? state + 12 : e;
	for (state_end = state; state_end < e && *state_end != ' '; state_end++)
		;
	err = bp_sched_thread(s, (uint32_t)prev, 0, comm, len, true, rec->time_ns);
	if (!err)
		err = bp_sched_thread(s, (uint32_t)next, 0, next_comm, next_len, true, rec->time_ns);
	if (!err)
		err = bp_sched_switch(s, (uint16_t)rec->cpu, rec->time_ns, (uint32_t)prev, state,
				      (size_t)(state_end - state), (uint32_t)next);
	return err;
}

/* "name: (0x55d8c0) args" of a probe at a function's entry, "name: (0x1 <- 0x2)" at its return */
static bool take_lock(const struct bp_ftext_record *rec, struct bp_wait *w, const char **site,
		      size_t *site_len)
{
	const char *p = rec->body, *e = rec->end, *colon = memmem(p, (size_t)(e - p), ": (", 3), *q;
	size_t len = colon ? (size_t)(colon - p) : 0;
	bool big;

	/* perf prints the address without 0x. */
	if (!colon || memchr(p, ' ', len) || colon + 3 == e || !strchr("0123456789abcdef", colon[3]))
		return false;
	if (len > 7 && !memcmp(colon - 7, "_unlock", 7))
		w->kind = BP_WAIT_LOCK_FREE;
	else if (len > 7 && !memcmp(colon - 7, "_locked", 7))
		w->kind = BP_WAIT_LOCK_HELD;
	else if (len > 5 && !memcmp(colon - 5, "_lock", 5))
		w->kind = BP_WAIT_LOCK_WANT;
	else
		return false;
	big = !memcmp(p, "bql", 3) || memmem(p, len, "iothread", 8);
	if (!value_of(colon, e, "mutex=", &w->addr) && !value_of(colon, e, "lock=", &w->addr) && !big &&
	    w->kind != BP_WAIT_LOCK_HELD)
		return false;
	*site_len = 0;
	q = memmem(colon, (size_t)(e - colon), " file=\"", 7);
	if (q) {
		q += 7;
		*site = q;
		while (q < e && *q != '"')
			q++;
		*site_len = (size_t)(q - *site);
	}
	return true;
}

struct bp_err *bp_ftext_take_wait(struct bp_sched *s, bool *waking_seen, const struct bp_ftext_record *rec)
{
	struct bp_wait w = {.cpu = (uint16_t)rec->cpu, .time_ns = rec->time_ns};
	const char *p = rec->body, *e = rec->end, *args, *comm, *site = NULL, *dash;
	struct bp_err *err = NULL;
	uint64_t v;
	int64_t pid;
	size_t len;

	if (!bp_ftext_pid(rec->task, rec->task + rec->task_len, &pid, &len))
		return NULL;
	w.thread = (uint32_t)pid;
	if (starts(p, e, "sched_switch: ", &args)) {
		return take_switch(s, rec, args);
	}
	if (starts(p, e, "sched_waking: ", &args) ||
	    (!*waking_seen &&
	     (starts(p, e, "sched_wakeup: ", &args) || starts(p, e, "sched_wakeup_new: ", &args)))) {
		*waking_seen |= p[9] == 'i';
		if (!thread_of(args, e, "comm=", " pid=", &comm, &len, &v))
			return NULL;
		err = bp_sched_thread(s, (uint32_t)v, 0, comm, len, true, rec->time_ns);
		w.kind = BP_WAIT_WAKE;
		w.other = (uint32_t)v;
		w.flags = irq_flags(rec) ? BP_WAIT_IRQ : 0;
	} else if (starts(p, e, "sys_futex(", &args) || starts(p, e, "sys_enter_futex: ", &args)) {
		w.kind = BP_WAIT_FUTEX;
		if (!value_of(args, e, "uaddr: ", &w.addr) || !value_of(args, e, "op: ", &v))
			return NULL;
		w.other = (uint32_t)v;
		if (value_of(args, e, " val: ", &v))
			w.value = (int64_t)v;
	} else if (starts(p, e, "sys_futex -> ", &args) || starts(p, e, "sys_exit_futex: ", &args)) {
		w.kind = BP_WAIT_FUTEX_RET;
		if (*args == '0' || *args == '-' || value_of(args, e, "ret=", &v))
			w.value = any_number(args, e, &v) ? (int64_t)v : 0;
	} else if (starts(p, e, "kvm_entry: ", &args)) {
		w.kind = BP_WAIT_KVM_ENTRY;
	} else if (starts(p, e, "kvm_exit: ", &args)) {
		w.kind = BP_WAIT_KVM_EXIT;
	} else if (starts(p, e, "kvm_userspace_exit: ", &args)) {
		w.kind = BP_WAIT_KVM_EXIT;
		w.flags = BP_WAIT_USERSPACE;
		if (value_of(args, e, " (", &v))
			w.value = (int64_t)v;
	} else if (starts(p, e, "page_fault_user: ", &args) || starts(p, e, "page_fault_kernel: ", &args)) {
		w.kind = BP_WAIT_FAULT;
		if (value_of(args, e, "address=", &v))
			w.addr = v;
		if (value_of(args, e, " ip=", &v))
			w.value = (int64_t)v;
	} else if (take_lock(rec, &w, &site, &len)) {
		if (site && len) {
			uint64_t line = 0;
			char text[256];
			int n;

			value_of(site + len, e, " line=", &line);
			n = snprintf(text, sizeof(text), "%.*s:%u", (int)(len < 200 ? len : 200), site,
				     (unsigned)line);
			err = bp_sched_frame(s, BP_HOST_SITE, 0, text, (size_t)n, 0, "", 0, &w.other);
		}
	} else {
		return NULL;
	}
	dash = memrchr(rec->task, '-', rec->task_len);
	if (!err)
		err = bp_sched_thread(s, w.thread, rec->tgid > 0 ? (uint32_t)rec->tgid : 0, rec->task,
				      (size_t)(dash - rec->task), false, rec->time_ns);
	return err ? err : bp_sched_add(s, &w);
}

void bp_ftext_wait(struct bp_ftext *r, const struct bp_ftext_record *rec)
{
	bp_ftext_fail(r, bp_ftext_take_wait(r->im->sched, &r->waking_seen, rec));
}

void bp_ftext_wait_lost(struct bp_ftext *r, uint32_t cpu, uint64_t count)
{
	if (r->im->sched)
		bp_ftext_fail(r, bp_sched_lost(r->im->sched, (uint16_t)cpu, r->counts.last_ns, count));
}

void bp_ftext_stack_begin(struct bp_ftext *r, const struct bp_ftext_record *rec, bool user)
{
	int64_t pid;
	size_t len;

	bp_ftext_stack_end(r);
	if (!r->im->sched || !bp_ftext_pid(rec->task, rec->task + rec->task_len, &pid, &len))
		return;
	r->in_stack = true;
	r->user_stack = user;
	r->stack_tid = (uint32_t)pid;
	r->n_stack_frames = 0;
}

/*
 * Of user space: "/usr/lib/libc.so.6[+0xd22ad]" with sym-userobj, " <00007f1c0ad50366>" without, "??" for
 * what is none. The offset is one into the mapping of the code, not into the file.
 */
static struct bp_err *user_frame(struct bp_ftext *r, const char *p, const char *e, uint32_t *ret)
{
	const char *open;
	uint64_t v = 0;

	p = bp_ftext_spaces(p, e);
	if (p < e && *p == '<') {
		char text[20];
		size_t n = (size_t)(e - p - 1) < sizeof(text) - 1 ? (size_t)(e - p - 1) : sizeof(text) - 1;

		memcpy(text, p + 1, n);
		text[n] = '\0';
		v = strtoull(text, NULL, 16);
		/* Without frame pointers the chain goes on into data. */
		if (v >> 47) {
			*ret = 0;
			return NULL;
		}
		return bp_sched_frame(r->im->sched, BP_HOST_USER, v, "", 0, 0, "", 0, ret);
	}
	open = memmem(p, (size_t)(e - p), "[+", 2);
	if (!open) {
		*ret = 0;
		return NULL;
	}
	any_number(open + 2, e, &v);
	return bp_sched_frame(r->im->sched, BP_HOST_USER, 0, "", 0, v, p, (size_t)(open - p), ret);
}

void bp_ftext_stack_frame(struct bp_ftext *r, const char *p, const char *e)
{
	static const char tracer[][24] = {"trace_event_raw_event_", "__traceiter_"};
	struct bp_err *err;
	const char *rest;
	uint32_t id;

	if (r->n_stack_frames == BP_HOST_STACK_MAX)
		return;
	/* The tracer's own. */
	for (size_t i = 0; i < sizeof(tracer) / sizeof(tracer[0]); i++) {
		if (!r->user_stack && starts(p, e, tracer[i], &rest))
			return;
	}
	err = r->user_stack ? user_frame(r, p, e, &id)
			    : bp_sched_kernel_frame(r->im->sched, 0, p, (size_t)(e - p), &id);
	bp_ftext_fail(r, err);
	if (!err && id)
		r->stack_frames[r->n_stack_frames++] = id;
}

void bp_ftext_stack_end(struct bp_ftext *r)
{
	if (!r->in_stack)
		return;
	r->in_stack = false;
	bp_ftext_fail(
	    r, bp_sched_stack(r->im->sched, r->stack_tid, r->user_stack, r->stack_frames, r->n_stack_frames));
}
