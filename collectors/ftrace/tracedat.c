// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From the records of trace.dat files to the events of a recording.
 *
 * Records of all CPUs and buffers are taken in the order of time. Each carries the pid of the task that it is
 * about; which task runs on a CPU is what the last record said, or sched_switch. The stack of a task comes
 * from function_graph (entries and exits with a depth), from the function tracer (a function runs until its
 * caller, or a caller of that, calls another), or from pairs of events (system calls, interrupts, initcalls).
 * Other events become marks, as many as fit the bounds below; all are counted in ftrace_events.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "collectors/ftrace/tracedat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collectors/ftrace/tracedat_file.h"
#include "collectors/ftrace/tracedat_names.h"
#include "collectors/ftrace/tracedat_wait.h"
#include "core/cleanup.h"
#include "core/strbuf.h"

/* Bounds of what a file can make us keep. */
#define STREAM_BYTES (96u << 20) /* buffers of all streams */
#define AHEAD_BYTES (512u << 10) /* of events: read ahead */
#define TASKS_MAX (1u << 17)
#define FRAMES_MAX (1u << 20) /* on all stacks together */
#define ADDRS_MAX (1u << 19)
#define MARKS_MAX 16384
#define MARKS_PER_EVENT 256
#define STACKS_MAX 4096
#define MARK_TEXT 480
#define PROGRESS_RECORDS 65536

#define NO_FUNC UINT32_MAX
#define NO_DEPTH INT32_MIN
#define NO_SYSCALL UINT32_MAX

/* common_flags */
#define FLAG_HARDIRQ 0x08u
#define FLAG_SOFTIRQ 0x10u
#define FLAG_NMI 0x40u

enum kind {
	OTHER,
	GRAPH_ENTRY,
	GRAPH_EXIT,
	FUNCTION,
	KERNEL_STACK,
	USER_STACK,
	SWITCH,
	RAW_SYS_ENTER,
	RAW_SYS_EXIT,
	SYS_ENTER,
	SYS_EXIT,
	SPAN_ENTRY,
	SPAN_EXIT,
	INITCALL_LEVEL,
	INITCALL_START,
	INITCALL_FINISH,
	FORK,
	EXEC,
	RENAME,
	PRINT,
	PRINTK,
	KINDS
};

/* One kind of event of one file. */
struct event {
	enum kind kind;
	const struct bp_tep_event *tep;
	const struct bp_tep_field
	    *f[3]; /* what its kind needs, NULL where the description does not have it */
	/*
	 * The fields are numbers of 8, 4 and 8 bytes in this machine's byte order, and all are there in
	 * records of `whole` bytes: what is read most is read without asking again. 0: not so.
	 */
	uint32_t whole;
	const struct bp_tep_field *called; /* of GRAPH_EXIT: when the function began */
	struct bp_td_wait wait;
	uint32_t marks;
	uint64_t count;
	uint32_t func; /* the function that stands for it, NO_FUNC: none yet */
	char what[40]; /* of spans: "irq"; of system calls: the name */
};

/* A function on the stack of a task. */
struct frame {
	uint64_t addr; /* of function_graph: as the trace has it */
	uint32_t func;
	int32_t depth;    /* of function_graph, NO_DEPTH otherwise */
	uint32_t syscall; /* NO_SYSCALL: it is none */
	bool hardirq;
};

struct task {
	int32_t pid;
	uint32_t id;
	char comm[16];
	struct frame *frames;
	uint32_t n, cap;
	uint32_t syscall; /* has begun; the next function is its entry. NO_SYSCALL: none */
	uint8_t level;    /* of interrupts, for the function tracer */
	uint32_t base[3]; /* frames below each level */
};

struct addr {
	uint64_t addr; /* key; 0 free */
	uint32_t func;
	bool named;
};

/* One file. */
struct input {
	struct bp_td_file *file;
	struct bp_td_syms syms;
	struct bp_td_comms comms;
	struct event *events; /* like file->tep.events */
	struct addr *addrs;   /* open hash, a power of two */
	uint32_t cap_addrs, n_addrs;
	struct task **tasks; /* open hash by pid, a power of two; not the idle tasks */
	uint32_t cap_tasks, n_tasks;
	uint32_t first_cpu; /* number of its CPU 0 in the recording */
	uint64_t slide;
	uint32_t initcall_level;
	char initcall_name[24];
	bool to_peer; /* times are converted */
	bool from_tsc;
	bool host; /* module names say so */
	bool has_graph, has_function, has_spans;
	bool plain_head; /* the common fields are where they are in every kernel so far, little-endian */
};

struct cpu {
	struct task *task; /* that runs */
	struct task *idle;
	struct task *tail; /* was switched away from, and may still have something to say */
	uint64_t now;
};

struct stream {
	struct bp_td_stream s;
	struct input *in;
	struct cpu *cpu;
	uint32_t number; /* of the CPU in the recording */
	uint64_t key;    /* time of the current record */
	const struct event *before;
	bool opened;
};

struct importer {
	struct bp_import *im;
	struct bp_builder *b;
	struct input in[BP_TRACE_DAT_JOIN];
	uint32_t n_in;
	struct cpu *cpus;
	uint32_t n_cpus;
	struct stream *streams, **heap;
	struct bp_td_ahead *ahead;
	uint32_t n_streams, n_heap;
	uint32_t n_frames;
	uint32_t marks, stacks;
	uint64_t left_out; /* marks */
	uint64_t lone_exits, open_entries;
	uint32_t func_lost;
};

/* ---- facts ---- */

static struct bp_err *say(struct importer *m, const char *key, const char *value)
{
	struct bp_fact f = {.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = key, .s2 = value};

	return value && *value ? bp_builder_fact(m->b, &f) : NULL;
}

static struct bp_err *mark(struct importer *m, const struct stream *st, const char *what, const char *detail)
{
	struct bp_fact f = {
	    .kind = BP_FACT_MARK, .vcpu = (uint16_t)st->number, .time_ns = st->key, .s1 = what, .s2 = detail};

	if (m->marks >= MARKS_MAX) {
		m->left_out++;
		return NULL;
	}
	m->marks++;
	return bp_builder_fact(m->b, &f);
}

/* ---- functions ---- */

static uint64_t hash64(uint64_t v)
{
	v *= UINT64_C(0x9e3779b97f4a7c15);
	return v ^ v >> 32;
}

static struct bp_err *grow_addrs(struct input *in)
{
	uint32_t cap = in->cap_addrs ? 2 * in->cap_addrs : 1024;
	struct addr *grown = calloc(cap, sizeof(*grown));

	if (!grown)
		return bp_err_nomem();
	for (uint32_t i = 0; i < in->cap_addrs; i++) {
		uint32_t k = (uint32_t)hash64(in->addrs[i].addr) & (cap - 1);

		if (!in->addrs[i].addr)
			continue;
		while (grown[k].addr)
			k = (k + 1) & (cap - 1);
		grown[k] = in->addrs[i];
	}
	free(in->addrs);
	in->addrs = grown;
	in->cap_addrs = cap;
	return NULL;
}

static struct bp_err *define(struct importer *m, struct input *in, uint64_t addr, struct addr *a)
{
	const struct bp_td_sym *sym = bp_td_syms_find(&in->syms, addr);
	enum bp_space space = BP_SPACE_KERNEL;
	char name[1024], module[80] = "vmlinux";
	const char *n = "", *mod = NULL;
	uint64_t start = addr;

	a->named = true;
	if (sym) {
		start = sym->addr;
		memcpy(name, in->syms.text + sym->name, sym->name_len);
		name[sym->name_len] = '\0';
		n = name;
		if (sym->module_len) {
			space = BP_SPACE_MODULE;
			snprintf(module, sizeof(module), "%.*s", sym->module_len,
				 in->syms.text + sym->name + sym->name_len + sym->module_at);
		}
	} else if (m->im->names && m->im->names->find &&
		   m->im->names->find(m->im->names->self, addr, &n, &mod, &start) && n && *n) {
		if (mod && *mod && strcmp(mod, "vmlinux")) {
			space = BP_SPACE_MODULE;
			snprintf(module, sizeof(module), "%s", mod);
		}
	} else {
		a->named = false;
		n = "";
		start = addr;
	}
	if (in->host) {
		char kernel[80];

		memcpy(kernel, module, sizeof(kernel));
		snprintf(module, sizeof(module), "host:%.70s", kernel);
	}
	if (space == BP_SPACE_KERNEL)
		start -= in->slide;
	return bp_builder_func(m->b, space, start, start, n, module, &a->func);
}

/* The function covering an address. */
static struct bp_err *func_at(struct importer *m, struct input *in, uint64_t addr, uint32_t *ret)
{
	struct bp_import_stats *stats = m->im->stats;
	struct addr *a;
	uint32_t k;

	stats->addresses++;
	if (4 * (in->n_addrs + 1) > 3 * in->cap_addrs) {
		struct bp_err *err = grow_addrs(in);

		if (err)
			return err;
	}
	if (!addr)
		addr = UINT64_MAX; /* 0 marks what is free */
	k = (uint32_t)hash64(addr) & (in->cap_addrs - 1);
	while (in->addrs[k].addr && in->addrs[k].addr != addr)
		k = (k + 1) & (in->cap_addrs - 1);
	a = &in->addrs[k];
	if (!a->addr) {
		struct addr made = {.addr = addr};
		struct bp_err *err;

		if (in->n_addrs == ADDRS_MAX) {
			*ret = m->func_lost;
			stats->unnamed++;
			if (m->func_lost != NO_FUNC)
				return NULL;
			err = bp_builder_func(m->b, BP_SPACE_PSEUDO, 0, 0, "[too many functions]", "",
					      &m->func_lost);
			*ret = m->func_lost;
			return err;
		}
		err = define(m, in, addr, &made);
		if (err)
			return err;
		*a = made;
		in->n_addrs++;
	}
	stats->unnamed += !a->named;
	*ret = a->func;
	return NULL;
}

/* A function for something that has none: "[irq 24]" */
static struct bp_err *pseudo(struct importer *m, const char *name, uint32_t *ret)
{
	uint64_t number = 0;

	/* The same name gets the same function. */
	for (const char *p = name; *p; p++)
		number = hash64(number + (uint8_t)*p);
	return bp_builder_func(m->b, BP_SPACE_PSEUDO, number, number, name, "", ret);
}

/* ---- tasks ---- */

static struct bp_err *new_task(struct importer *m, struct input *in, int32_t pid, const char *comm,
			       uint64_t time, struct task **ret)
{
	struct task *t = calloc(1, sizeof(*t));
	struct bp_err *err;

	if (!t)
		return bp_err_nomem();
	t->pid = pid;
	t->syscall = NO_SYSCALL;
	if (comm && *comm)
		snprintf(t->comm, sizeof(t->comm), "%s", comm);
	else
		bp_td_comms_find(&in->comms, pid, t->comm);
	err = bp_builder_task(m->b, pid, -1, t->comm, pid == 2 ? BP_TASK_KERNEL : 0, time, &t->id);
	if (err) {
		free(t);
		return err;
	}
	*ret = t;
	return NULL;
}

static void free_task(struct importer *m, struct task *t)
{
	if (!t)
		return;
	m->n_frames -= t->cap;
	free(t->frames);
	free(t);
}

static struct bp_err *idle_task(struct importer *m, struct cpu *cpu, uint32_t number, uint64_t time)
{
	struct task *t = calloc(1, sizeof(*t));
	struct bp_err *err;

	if (!t)
		return bp_err_nomem();
	t->syscall = NO_SYSCALL;
	snprintf(t->comm, sizeof(t->comm), "swapper/%u", number);
	err = bp_builder_task(m->b, 0, 0, t->comm, BP_TASK_IDLE | BP_TASK_KERNEL, time, &t->id);
	if (err)
		free(t);
	else
		cpu->idle = t;
	return err;
}

static struct bp_err *grow_tasks(struct input *in)
{
	uint32_t cap = in->cap_tasks ? 2 * in->cap_tasks : 256;
	struct task **grown = calloc(cap, sizeof(struct task *));

	if (!grown)
		return bp_err_nomem();
	for (uint32_t i = 0; i < in->cap_tasks; i++) {
		uint32_t k;

		if (!in->tasks[i])
			continue;
		k = (uint32_t)hash64((uint32_t)in->tasks[i]->pid) & (cap - 1);
		while (grown[k])
			k = (k + 1) & (cap - 1);
		grown[k] = in->tasks[i];
	}
	free(in->tasks);
	in->tasks = grown;
	in->cap_tasks = cap;
	return NULL;
}

/* The task of a record; made when it is new. @comm: what the record calls it, may be NULL. NULL comes back
 * when there are too many. */
static struct bp_err *task_of(struct importer *m, const struct stream *st, int32_t pid, const char *comm,
			      struct task **ret)
{
	struct input *in = st->in;
	struct bp_err *err = NULL;
	uint32_t k;

	*ret = NULL;
	if (!pid) {
		if (!st->cpu->idle)
			err = idle_task(m, st->cpu, st->s.cpu, st->key);
		*ret = st->cpu->idle;
		return err;
	}
	if (2 * (in->n_tasks + 1) > in->cap_tasks)
		err = grow_tasks(in);
	if (err)
		return err;
	k = (uint32_t)hash64((uint32_t)pid) & (in->cap_tasks - 1);
	while (in->tasks[k] && in->tasks[k]->pid != pid)
		k = (k + 1) & (in->cap_tasks - 1);
	if (!in->tasks[k]) {
		if (in->n_tasks == TASKS_MAX)
			return NULL;
		err = new_task(m, in, pid, comm, st->key, &in->tasks[k]);
		if (err)
			return err;
		in->n_tasks++;
	}
	*ret = in->tasks[k];
	return NULL;
}

static struct bp_err *rename_task(struct importer *m, struct task *t, const char *comm, uint64_t time)
{
	if (!*comm || !t->pid || !strcmp(t->comm, comm))
		return NULL;
	snprintf(t->comm, sizeof(t->comm), "%s", comm);
	return bp_builder_rename(m->b, t->id, t->comm, time);
}

static struct bp_err *run_task(struct importer *m, struct stream *st, struct task *t)
{
	st->cpu->task = t;
	return bp_builder_switch(m->b, st->number, t->id, st->key, 0);
}

/* ---- stacks; they are those of the task on the stream's CPU ---- */

static inline struct bp_err *push(struct importer *m, struct stream *st, struct task *t, uint64_t addr,
				  uint32_t func, int32_t depth, uint32_t syscall, bool hardirq,
				  enum bp_ev_kind kind)
{
	struct bp_err *err;

	if (t->n == t->cap) {
		uint32_t cap = t->cap ? 2 * t->cap : 16;
		struct frame *grown;

		if (cap > BP_MAX_DEPTH || m->n_frames + (cap - t->cap) > FRAMES_MAX) {
			m->im->stats->skipped++;
			return NULL;
		}
		grown = realloc(t->frames, cap * sizeof(*grown));
		if (!grown)
			return bp_err_nomem();
		m->n_frames += cap - t->cap;
		t->frames = grown;
		t->cap = cap;
	}
	if (syscall == NO_SYSCALL && t->syscall != NO_SYSCALL && !t->n) {
		syscall = t->syscall;
		t->syscall = NO_SYSCALL;
	}
	if (syscall != NO_SYSCALL) {
		err = bp_builder_syscall(m->b, st->number, syscall, st->key, 0);
		if (err)
			return err;
	}
	t->frames[t->n++] = (struct frame){addr, func, depth, syscall, hardirq};
	m->im->stats->calls++;
	return bp_builder_enter(m->b, st->number, kind, func, st->key, 0);
}

/* Down to @n functions. */
static struct bp_err *leave_to(struct importer *m, struct stream *st, struct task *t, uint32_t n,
			       uint64_t time)
{
	uint32_t gone = t->n - n;

	if (t->n <= n)
		return NULL;
	t->n = n;
	while (t->level && t->base[t->level - 1] > n)
		t->base[--t->level] = 0;
	return bp_builder_leave(m->b, st->number, gone, time, 0);
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

static inline uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

static bool number(const struct stream *st, const struct bp_tep_field *f, uint64_t *ret)
{
	return bp_tep_get(&st->s.file->tep, f, st->s.data, st->s.len, ret);
}

static bool text(const struct stream *st, const struct bp_tep_field *f, char *dst, size_t cap)
{
	return bp_tep_text(&st->s.file->tep, f, st->s.data, st->s.len, dst, cap);
}

static unsigned common_flags(const struct stream *st)
{
	uint64_t v = 0;

	if (st->in->plain_head)
		return st->s.data[2];
	number(st, &st->s.file->tep.flags, &v);
	return (unsigned)v;
}

/* Function and depth of an entry or exit. */
static inline bool graph_fields(const struct stream *st, const struct event *ev, uint64_t *addr,
				uint64_t *depth)
{
	if (ev->whole && st->s.len >= ev->whole) {
		*addr = load64(st->s.data + ev->f[0]->offset);
		*depth = load32(st->s.data + ev->f[1]->offset);
		return true;
	}
	return number(st, ev->f[0], addr) && number(st, ev->f[1], depth);
}

/*
 * When a function began that calls no other: the next record is its exit, which says so. The record of the
 * entry is written later, and much later when the tracer's own code is cold.
 */
static uint64_t leaf_start(const struct stream *st, uint64_t addr, uint64_t depth)
{
	const struct bp_td_stream *s = &st->s;
	const struct bp_tep *tep = &s->file->tep;
	const struct event *ev;
	const uint8_t *p = s->pos;
	uint32_t head, index;
	uint64_t called;

	if (!st->in->plain_head || st->in->to_peer || st->in->from_tsc || s->page_end - p < 4)
		return st->key;
	head = load32(p);
	p += 4;
	/* Longer ones and those a long time later are written in another way. */
	if ((head & 31) > 28 || (head & 31) < 2 || 4 * (head & 31) > (size_t)(s->page_end - p))
		return st->key;
	index = tep->by_id[load32(p) & 0xffff];
	ev = index == BP_TEP_NO_EVENT ? NULL : &st->in->events[index];
	if (!ev || ev->kind != GRAPH_EXIT || !ev->whole || !ev->called || 4 * (head & 31) < ev->whole ||
	    (uint32_t)ev->called->offset + 8 > 4 * (head & 31) || ev->called->size != 8 ||
	    load32(p + 4) != load32(s->data + 4) || load64(p + ev->f[0]->offset) != addr ||
	    load32(p + ev->f[1]->offset) != (uint32_t)depth)
		return st->key;
	called = load64(p + ev->called->offset);
	return called > st->cpu->now && called < st->key ? called : st->key;
}

static struct bp_err *graph_entry(struct importer *m, struct stream *st, struct task *t,
				  const struct event *ev)
{
	uint64_t addr, depth;
	uint32_t func, n = t->n;
	bool hardirq = common_flags(st) & FLAG_HARDIRQ, before = false;
	const uint64_t written = st->key;
	struct bp_err *err;

	if (!graph_fields(st, ev, &addr, &depth) || (int32_t)depth < 0) {
		m->im->stats->skipped++;
		return NULL;
	}
	st->in->has_graph = true;
	err = func_at(m, st->in, addr, &func);
	/* What is at this depth or deeper has ended, and its exit is not in the trace. */
	for (uint32_t i = n; i-- && (t->frames[i].depth == NO_DEPTH || t->frames[i].depth >= (int32_t)depth);)
		if (t->frames[i].depth != NO_DEPTH) {
			m->open_entries++;
			n = i;
		}
	if (!err && n == t->n)
		st->key = leaf_start(st, addr, depth);
	else if (!err)
		err = leave_to(m, st, t, n, st->key);
	if (err)
		return err;
	for (uint32_t i = t->n; hardirq && i-- && !before;)
		before = t->frames[i].hardirq;
	err = push(m, st, t, addr, func, (int32_t)depth, NO_SYSCALL, hardirq,
		   hardirq && !before ? BP_EV_IRQ : BP_EV_CALL);
	st->key = written;
	return err;
}

static struct bp_err *graph_exit(struct importer *m, struct stream *st, struct task *t,
				 const struct event *ev)
{
	uint64_t addr, depth, ended = st->key;
	uint32_t n = UINT32_MAX;

	if (!graph_fields(st, ev, &addr, &depth)) {
		m->im->stats->skipped++;
		return NULL;
	}
	st->in->has_graph = true;
	m->im->stats->addresses++;
	for (uint32_t i = t->n; i--;) {
		const struct frame *f = &t->frames[i];

		if (f->depth == NO_DEPTH || f->depth > (int32_t)depth)
			continue;
		if (f->depth == (int32_t)depth && f->addr == addr)
			n = i;
		break;
	}
	if (n == UINT32_MAX) {
		m->lone_exits++;
		return NULL;
	}
	for (uint32_t i = t->n; --i > n;)
		m->open_entries += t->frames[i].depth != NO_DEPTH;
	/* When it returned: a little before the record was written. */
	if (!st->in->to_peer && !st->in->from_tsc) {
		if (ev->whole && ev->f[2] && st->s.len >= ev->whole)
			ended = load64(st->s.data + ev->f[2]->offset);
		else if (!number(st, ev->f[2], &ended))
			ended = st->key;
		if (ended < st->cpu->now || ended > st->key)
			ended = st->key;
	}
	return leave_to(m, st, t, n, ended);
}

static struct bp_err *function(struct importer *m, struct stream *st, struct task *t, const struct event *ev)
{
	unsigned flags = common_flags(st);
	unsigned level = flags & FLAG_NMI ? 3 : flags & FLAG_HARDIRQ ? 2 : flags & FLAG_SOFTIRQ ? 1 : 0;
	enum bp_ev_kind kind = BP_EV_CALL;
	uint32_t func, caller = NO_FUNC, i, base;
	uint64_t addr, parent;
	struct bp_err *err;

	if (!number(st, ev->f[0], &addr)) {
		m->im->stats->skipped++;
		return NULL;
	}
	st->in->has_function = true;
	err = func_at(m, st->in, addr, &func);
	if (!err && number(st, ev->f[1], &parent))
		err = func_at(m, st->in, parent, &caller);
	/* An interrupt stands on top of what it interrupts, which goes on when it is over. */
	while (!err && t->level > level) {
		uint32_t to = t->base[t->level - 1];

		t->level--;
		err = leave_to(m, st, t, to, st->key);
	}
	if (err)
		return err;
	if (t->level < level)
		kind = BP_EV_IRQ;
	while (t->level < level)
		t->base[t->level++] = t->n;
	base = level ? t->base[level - 1] : 0;
	for (i = t->n; i > base; i--)
		if (caller != NO_FUNC && t->frames[i - 1].func == caller)
			break;
	err = leave_to(m, st, t, i, st->key);
	return err ? err : push(m, st, t, 0, func, NO_DEPTH, NO_SYSCALL, level >= 2, kind);
}

static struct bp_err *sys_enter(struct importer *m, struct stream *st, struct task *t, struct event *ev)
{
	char name[40];
	uint64_t nr;
	struct bp_err *err = NULL;
	uint32_t func = ev->func;

	if (!number(st, ev->f[0], &nr) || nr >= NO_SYSCALL)
		return NULL;
	/* The function tracers show the entry function themselves. */
	if (st->in->has_graph || st->in->has_function) {
		t->syscall = (uint32_t)nr;
		return st->in->has_graph ? NULL : leave_to(m, st, t, 0, st->key);
	}
	/* Both events of one system call are in the trace. */
	if (t->n && t->frames[t->n - 1].syscall == nr && ev->kind == SYS_ENTER && st->before &&
	    st->before->kind == RAW_SYS_ENTER)
		return NULL;
	if (ev->kind == RAW_SYS_ENTER) {
		snprintf(name, sizeof(name), "[system call %u]", (unsigned)nr);
		err = pseudo(m, name, &func);
	} else if (func == NO_FUNC) {
		err = pseudo(m, ev->what, &ev->func);
		func = ev->func;
	}
	if (!err)
		err = leave_to(m, st, t, 0, st->key);
	if (err)
		return err;
	return push(m, st, t, 0, func, NO_DEPTH, (uint32_t)nr, false, BP_EV_CALL);
}

static struct bp_err *sys_exit(struct importer *m, struct stream *st, struct task *t)
{
	t->syscall = NO_SYSCALL;
	if (st->in->has_graph)
		return NULL;
	if (st->in->has_function)
		return leave_to(m, st, t, 0, st->key);
	for (uint32_t i = t->n; i--;)
		if (t->frames[i].syscall != NO_SYSCALL)
			return leave_to(m, st, t, i, st->key);
	return NULL;
}

static struct bp_err *leave_func(struct importer *m, struct stream *st, struct task *t, uint32_t func)
{
	for (uint32_t i = t->n; i--;)
		if (t->frames[i].func == func && t->frames[i].depth == NO_DEPTH)
			return leave_to(m, st, t, i, st->key);
	return NULL;
}

static struct bp_err *span(struct importer *m, struct stream *st, struct task *t, const struct event *ev,
			   bool entry)
{
	char name[64];
	uint32_t func;
	uint64_t nr = 0;
	struct bp_err *err;

	number(st, ev->f[0], &nr);
	snprintf(name, sizeof(name), "[%s %lld]", ev->what, (long long)nr);
	err = pseudo(m, name, &func);
	if (err)
		return err;
	st->in->has_spans = true;
	if (!entry)
		return leave_func(m, st, t, func);
	return push(m, st, t, 0, func, NO_DEPTH, NO_SYSCALL, true, BP_EV_IRQ);
}

static struct bp_err *initcall(struct importer *m, struct stream *st, struct task *t, const struct event *ev)
{
	struct input *in = st->in;
	uint32_t func;
	uint64_t addr;
	char level[24];
	struct bp_err *err;

	if (ev->kind == INITCALL_LEVEL) {
		if (!text(st, ev->f[0], level, sizeof(level)))
			return NULL;
		in->initcall_level++;
		memcpy(in->initcall_name, level, sizeof(level));
		return mark(m, st, "initcall-level", level);
	}
	if (!number(st, ev->f[0], &addr))
		return NULL;
	err = func_at(m, in, addr, &func);
	if (err)
		return err;
	if (ev->kind == INITCALL_START) {
		struct bp_fact f = {.kind = BP_FACT_INITCALL,
				    .vcpu = (uint16_t)st->number,
				    .time_ns = st->key,
				    .v = {addr - in->slide, in->initcall_level},
				    .s1 = in->initcall_name,
				    .s2 = ""};

		if (m->marks < MARKS_MAX) {
			m->marks++;
			err = bp_builder_fact(m->b, &f);
		}
	}
	/* With function_graph it is a function like others. */
	if (err || in->has_graph || in->has_function)
		return err;
	in->has_spans = true;
	if (ev->kind == INITCALL_FINISH)
		return leave_func(m, st, t, func);
	return push(m, st, t, 0, func, NO_DEPTH, NO_SYSCALL, false, BP_EV_CALL);
}

/* ---- events that are not about stacks ---- */

static struct bp_err *sched_switch(struct importer *m, struct stream *st, const struct event *ev)
{
	struct task *t, *prev = st->cpu->task;
	uint64_t next;
	char comm[16];
	struct bp_err *err;

	if (!number(st, ev->f[0], &next)) {
		m->im->stats->skipped++;
		return NULL;
	}
	/* What the file's list of commands says is what the task was called in the end. */
	text(st, ev->f[2], comm, sizeof(comm));
	err = prev ? rename_task(m, prev, comm, st->key) : NULL;
	if (err)
		return err;
	text(st, ev->f[1], comm, sizeof(comm));
	err = task_of(m, st, (int32_t)next, comm, &t);
	if (err || !t)
		return err;
	err = rename_task(m, t, comm, st->key);
	if (err || t == prev)
		return err;
	st->cpu->tail = prev;
	return run_task(m, st, t);
}

static struct bp_err *fork_event(struct importer *m, struct stream *st, const struct event *ev)
{
	struct input *in = st->in;
	struct task *parent, *child;
	uint64_t parent_pid, child_pid;
	char comm[16];
	struct bp_fact f = {.kind = BP_FACT_TASK_PARENT, .vcpu = UINT16_MAX, .time_ns = st->key};
	struct bp_err *err;
	uint32_t before = in->n_tasks;

	if (!number(st, ev->f[0], &parent_pid) || !number(st, ev->f[1], &child_pid) || !(int32_t)child_pid)
		return NULL;
	text(st, ev->f[2], comm, sizeof(comm));
	err = task_of(m, st, (int32_t)parent_pid, NULL, &parent);
	if (!err)
		err = task_of(m, st, (int32_t)child_pid, comm, &child);
	if (err || !parent || !child)
		return err;
	if (in->n_tasks == before && child != st->cpu->task && !child->n) {
		/* The pid was that of another task. */
		uint32_t id;

		err = bp_builder_task(m->b, child->pid, -1, comm, 0, st->key, &id);
		if (err)
			return err;
		child->id = id;
		child->syscall = NO_SYSCALL;
		snprintf(child->comm, sizeof(child->comm), "%s", comm);
	}
	f.v[0] = child->id;
	f.v[1] = parent->id;
	return bp_builder_fact(m->b, &f);
}

static struct bp_err *exec_event(struct importer *m, struct stream *st, struct task *t,
				 const struct event *ev)
{
	char file[256], comm[16];
	const char *base;

	if (!text(st, ev->f[0], file, sizeof(file)))
		return NULL;
	base = strrchr(file, '/');
	snprintf(comm, sizeof(comm), "%.15s", base ? base + 1 : file);
	return rename_task(m, t, comm, st->key);
}

static void describe(const struct stream *st, const struct event *ev, struct bp_strbuf *sb)
{
	const struct bp_tep *tep = &st->s.file->tep;

	for (uint32_t i = 0; i < ev->tep->n_fields && sb->len < MARK_TEXT; i++) {
		const struct bp_tep_field *f = &tep->fields[ev->tep->first_field + i];
		char value[128];
		uint64_t v;

		if (f->is_text && bp_tep_text(tep, f, st->s.data, st->s.len, value, sizeof(value)))
			bp_strbuf_addf(sb, "%s%.*s=%s", sb->len ? " " : "", (int)f->name_len, f->name, value);
		else if (f->kind != BP_TEP_PLAIN || !number(st, f, &v))
			continue;
		else if (!f->is_signed && v > UINT32_MAX)
			bp_strbuf_addf(sb, "%s%.*s=0x%llx", sb->len ? " " : "", (int)f->name_len, f->name,
				       (unsigned long long)v);
		else
			bp_strbuf_addf(sb, "%s%.*s=%lld", sb->len ? " " : "", (int)f->name_len, f->name,
				       (long long)v);
	}
	if (sb->len > MARK_TEXT) {
		sb->len = MARK_TEXT;
		sb->data[MARK_TEXT] = '\0';
	}
}

static struct bp_err *other(struct importer *m, struct stream *st, struct event *ev)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	char name[128];
	struct bp_err *err;

	if (ev->marks >= MARKS_PER_EVENT || m->marks >= MARKS_MAX) {
		m->left_out++;
		return NULL;
	}
	ev->marks++;
	snprintf(name, sizeof(name), "%.*s:%.*s", (int)ev->tep->system_len, ev->tep->system,
		 (int)(ev->tep->name_len < 96 ? ev->tep->name_len : 96), ev->tep->name);
	describe(st, ev, &sb);
	err = bp_strbuf_ok(&sb);
	if (!err)
		err = mark(m, st, name, bp_strbuf_str(&sb));
	bp_strbuf_deinit(&sb);
	return err;
}

static struct bp_err *print_event(struct importer *m, struct stream *st, struct event *ev)
{
	struct bp_fact f = {
	    .kind = BP_FACT_CONSOLE, .vcpu = (uint16_t)st->number, .time_ns = st->key, .s2 = "printk"};
	char line[MARK_TEXT];
	size_t n;

	if (!text(st, ev->f[0], line, sizeof(line)))
		return other(m, st, ev);
	n = strlen(line);
	while (n && (line[n - 1] == '\n' || line[n - 1] == ' '))
		line[--n] = '\0';
	if (ev->kind == PRINT)
		return mark(m, st, "trace-mark", line);
	f.s1 = line;
	return m->marks++ < MARKS_MAX ? bp_builder_fact(m->b, &f) : NULL;
}

/* "event: inner <- outer <- ...", of the event before */
static struct bp_err *kernel_stack(struct importer *m, struct stream *st, const struct event *ev)
{
	const struct bp_tep *tep = &st->s.file->tep;
	const struct bp_tep_field *f = ev->f[0];
	struct bp_strbuf sb = BP_STRBUF_INIT;
	unsigned size = st->s.file->long_bytes;
	struct bp_err *err = NULL;
	size_t at;

	if (!f || m->stacks >= STACKS_MAX) {
		m->left_out++;
		return NULL;
	}
	m->stacks++;
	if (f->elem == 4 || f->elem == 8)
		size = f->elem;
	/* The description says 8 entries; there are as many as the record is long. */
	for (at = f->offset; at + size <= st->s.len && sb.len < MARK_TEXT; at += size) {
		uint64_t addr = bp_tep_number(st->s.data + at, size, false, tep->big_endian);
		const struct bp_td_sym *sym;

		if (!addr || addr == UINT64_MAX)
			break;
		if (sb.len)
			bp_strbuf_adds(&sb, " <- ");
		sym = bp_td_syms_find(&st->in->syms, addr);
		if (sym)
			bp_strbuf_addf(&sb, "%.*s", sym->name_len < 128 ? sym->name_len : 128,
				       st->in->syms.text + sym->name);
		else
			bp_strbuf_addf(&sb, "0x%llx", (unsigned long long)addr);
	}
	if (sb.len) {
		char name[80] = "kernel-stack";

		if (st->before)
			snprintf(name, sizeof(name), "kernel-stack:%.*s",
				 (int)(st->before->tep->name_len < 60 ? st->before->tep->name_len : 60),
				 st->before->tep->name);
		err = bp_strbuf_ok(&sb);
		if (!err)
			err = mark(m, st, name, bp_strbuf_str(&sb));
	}
	bp_strbuf_deinit(&sb);
	return err;
}

/* ---- one record ---- */

/* The same for the waits: of the thread's last record. */
static struct bp_err *wait_stack(struct importer *m, struct stream *st, const struct event *ev, uint32_t pid,
				 bool user)
{
	const struct bp_tep *tep = &st->s.file->tep;
	const struct bp_tep_field *f = ev->f[0];
	unsigned size = st->s.file->long_bytes;
	uint32_t frames[BP_HOST_STACK_MAX];
	struct bp_err *err;
	size_t n = 0;

	if (!f || !st->before || !st->before->wait.what)
		return NULL;
	if (f->elem == 4 || f->elem == 8)
		size = f->elem;
	for (size_t at = f->offset; at + size <= st->s.len && n < BP_HOST_STACK_MAX; at += size) {
		uint64_t addr = bp_tep_number(st->s.data + at, size, false, tep->big_endian);
		const struct bp_td_sym *sym = NULL;

		if (!addr || addr == UINT64_MAX)
			break;
		if (!user)
			sym = bp_td_syms_find(&st->in->syms, addr);
		if (sym)
			err = bp_sched_frame(m->im->sched, BP_HOST_KERNEL, addr,
					     st->in->syms.text + sym->name, sym->name_len, addr - sym->addr,
					     st->in->syms.text + sym->name + sym->name_len + sym->module_at,
					     sym->module_len, &frames[n]);
		else
			err = bp_sched_frame(m->im->sched, user ? BP_HOST_USER : BP_HOST_KERNEL, addr, "", 0,
					     0, "", 0, &frames[n]);
		if (err)
			return err;
		n += frames[n] != 0;
	}
	return bp_sched_stack(m->im->sched, pid, user, frames, n);
}

static struct bp_err *lost(struct importer *m, struct stream *st)
{
	struct task *t = st->cpu->task;
	struct bp_err *err = NULL;

	m->im->stats->lost += st->s.lost;
	if (m->im->sched)
		err = bp_sched_lost(m->im->sched, (uint16_t)st->number, st->key, st->s.lost);
	if (err)
		return err;
	/* No task yet: what was lost was before the CPU's first record. */
	if (t) {
		err =
		    bp_builder_lost(m->b, st->number, st->s.lost, st->key, "overwritten in the ring buffer");
		t->n = t->level = 0;
		t->syscall = NO_SYSCALL;
	} else {
		struct bp_fact f = {.kind = BP_FACT_LOST,
				    .vcpu = (uint16_t)st->number,
				    .time_ns = st->key,
				    .v = {st->s.lost},
				    .s1 = "overwritten in the ring buffer before the first record",
				    .s2 = ""};

		err = bp_builder_fact(m->b, &f);
	}
	st->cpu->tail = NULL;
	return err;
}

static struct bp_err *on_stack(struct importer *m, struct stream *st, struct task *t, struct event *ev)
{
	switch (ev->kind) {
	case GRAPH_ENTRY:
		return graph_entry(m, st, t, ev);
	case GRAPH_EXIT:
		return graph_exit(m, st, t, ev);
	case FUNCTION:
		return function(m, st, t, ev);
	case SWITCH:
		return sched_switch(m, st, ev);
	case RAW_SYS_ENTER:
	case SYS_ENTER:
		return sys_enter(m, st, t, ev);
	case RAW_SYS_EXIT:
	case SYS_EXIT:
		return sys_exit(m, st, t);
	case SPAN_ENTRY:
	case SPAN_EXIT:
		return span(m, st, t, ev, ev->kind == SPAN_ENTRY);
	case INITCALL_LEVEL:
	case INITCALL_START:
	case INITCALL_FINISH:
		return initcall(m, st, t, ev);
	case FORK:
		return fork_event(m, st, ev);
	case EXEC:
		return exec_event(m, st, t, ev);
	case RENAME: {
		char comm[16];

		text(st, ev->f[0], comm, sizeof(comm));
		return rename_task(m, t, comm, st->key);
	}
	case PRINT:
	case PRINTK:
		return print_event(m, st, ev);
	default:
		return other(m, st, ev);
	}
}

static struct bp_err *record(struct importer *m, struct stream *st)
{
	const struct bp_tep *tep = &st->s.file->tep;
	struct bp_import_stats *stats = m->im->stats;
	struct cpu *cpu = st->cpu;
	struct task *t = cpu->task;
	struct event *ev = NULL;
	uint64_t type, pid;
	struct bp_err *err;

	if (st->s.after_loss) {
		err = lost(m, st);
		if (err)
			return err;
	}
	if (st->in->plain_head && st->s.len >= 8) {
		type = load32(st->s.data) & 0xffff;
		pid = load32(st->s.data + 4);
	} else if (!number(st, &tep->type, &type) || !number(st, &tep->pid, &pid)) {
		stats->skipped++;
		return NULL;
	}
	if (tep->by_id[(uint16_t)type] != BP_TEP_NO_EVENT)
		ev = &st->in->events[tep->by_id[(uint16_t)type]];
	if (!ev) {
		stats->skipped++;
		return NULL;
	}
	stats->records++;
	ev->count++;
	if (m->im->sched && ev->wait.what) {
		err = bp_td_wait_record(m->im->sched, tep, &ev->wait, st->s.data, st->s.len, (uint32_t)pid,
					(uint16_t)st->number, st->key);
		if (err)
			return err;
	}
	if (ev->kind == KERNEL_STACK) {
		err = m->im->sched ? wait_stack(m, st, ev, (uint32_t)pid, false) : NULL;
		return err ? err : kernel_stack(m, st, ev);
	}
	if (ev->kind == USER_STACK)
		return m->im->sched ? wait_stack(m, st, ev, (uint32_t)pid, true) : NULL;
	if (!t || t->pid != (int32_t)pid) {
		struct task *now = t;

		err = task_of(m, st, (int32_t)pid, NULL, &now);
		if (err)
			return err;
		if (!now) {
			stats->skipped++;
			return NULL;
		}
		if (now == cpu->tail && ev->kind != SWITCH) {
			/* It is on its way out: this is still its doing, and takes none of the other's time.
			 */
			err = run_task(m, st, now);
			if (!err)
				err = on_stack(m, st, now, ev);
			if (!err)
				err = run_task(m, st, t);
			cpu->now = st->key;
			st->before = ev;
			return err;
		}
		err = run_task(m, st, now);
		if (err)
			return err;
		t = now;
		cpu->tail = NULL;
	} else if (cpu->tail) {
		cpu->tail = NULL;
	}
	err = on_stack(m, st, t, ev);
	cpu->now = st->key;
	st->before = ev;
	return err;
}

/* ---- in the order of time ---- */

static void set_key(struct stream *st)
{
	uint64_t ts = st->s.ts;

	if (st->in->to_peer)
		ts = bp_td_peer_time(st->s.file, st->s.cpu, ts);
	if (st->in->from_tsc)
		ts = (uint64_t)(((unsigned __int128)ts * st->s.file->tsc_mult) >> st->s.file->tsc_shift);
	st->key = ts;
}

static bool before(const struct stream *a, const struct stream *b)
{
	return a->key != b->key ? a->key < b->key : a < b;
}

static void sift(struct importer *m, uint32_t i)
{
	struct stream **h = m->heap, *moved = h[i];

	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= m->n_heap)
			break;
		if (child + 1 < m->n_heap && before(h[child + 1], h[child]))
			child++;
		if (!before(h[child], moved))
			break;
		h[i] = h[child];
		i = child;
	}
	h[i] = moved;
}

static struct bp_err *merge(struct importer *m)
{
	uint64_t until_progress = PROGRESS_RECORDS;

	for (uint32_t i = m->n_heap; i--;)
		sift(m, i);
	while (m->n_heap) {
		struct stream *st = m->heap[0], *rival = NULL;
		bool more;

		if (m->n_heap > 1)
			rival = m->heap[1];
		if (m->n_heap > 2 && before(m->heap[2], rival))
			rival = m->heap[2];
		do {
			struct bp_err *err = record(m, st);

			if (!err)
				err = bp_td_stream_next(&st->s, &more);
			if (err)
				return err;
			if (!--until_progress) {
				until_progress = PROGRESS_RECORDS;
				if (m->im->progress && !m->im->progress(m->im->progress_self))
					return NULL;
			}
			if (!more)
				break;
			set_key(st);
		} while (!rival || before(st, rival));
		if (!more) {
			bp_td_stream_deinit(&st->s);
			st->opened = false;
			m->heap[0] = m->heap[--m->n_heap];
		}
		if (m->n_heap)
			sift(m, 0);
	}
	return NULL;
}

/* ---- setting up ---- */

static void classify(const struct bp_tep *tep, const struct bp_tep_event *te, struct event *ev)
{
	static const struct {
		const char *system, *name;
		enum kind kind;
		const char *fields[3];
	} known[] = {
	    {"ftrace", "funcgraph_entry", GRAPH_ENTRY, {"func", "depth"}},
	    {"ftrace", "fgraph_retaddr_entry", GRAPH_ENTRY, {"func", "depth"}},
	    {"ftrace", "funcgraph_exit", GRAPH_EXIT, {"func", "depth", "rettime"}},
	    {"ftrace", "function", FUNCTION, {"ip", "parent_ip"}},
	    {"ftrace", "kernel_stack", KERNEL_STACK, {"caller"}},
	    {"ftrace", "user_stack", USER_STACK, {"caller"}},
	    {"ftrace", "print", PRINT, {"buf"}},
	    {"sched", "sched_switch", SWITCH, {"next_pid", "next_comm", "prev_comm"}},
	    {"sched", "sched_process_fork", FORK, {"parent_pid", "child_pid", "child_comm"}},
	    {"sched", "sched_process_exec", EXEC, {"filename"}},
	    {"task", "task_rename", RENAME, {"newcomm"}},
	    {"raw_syscalls", "sys_enter", RAW_SYS_ENTER, {"id"}},
	    {"raw_syscalls", "sys_exit", RAW_SYS_EXIT, {"id"}},
	    {"irq", "irq_handler_entry", SPAN_ENTRY, {"irq"}},
	    {"irq", "irq_handler_exit", SPAN_EXIT, {"irq"}},
	    {"irq", "softirq_entry", SPAN_ENTRY, {"vec"}},
	    {"irq", "softirq_exit", SPAN_EXIT, {"vec"}},
	    {"initcall", "initcall_level", INITCALL_LEVEL, {"level"}},
	    {"initcall", "initcall_start", INITCALL_START, {"func"}},
	    {"initcall", "initcall_finish", INITCALL_FINISH, {"func"}},
	    {"printk", "console", PRINTK, {"msg"}},
	};

	*ev = (struct event){.kind = OTHER, .tep = te, .func = NO_FUNC};
	bp_td_wait_find(tep, te, &ev->wait);
	for (size_t i = 0; i < BP_ARRAY_SIZE(known); i++) {
		if (!bp_tep_is(te->system, te->system_len, known[i].system) ||
		    !bp_tep_is(te->name, te->name_len, known[i].name))
			continue;
		ev->kind = known[i].kind;
		for (size_t k = 0; k < 3 && known[i].fields[k]; k++)
			ev->f[k] = bp_tep_find(tep, te, known[i].fields[k]);
		if (ev->kind == GRAPH_EXIT)
			ev->called = bp_tep_find(tep, te, "calltime");
		if (ev->kind == SPAN_ENTRY || ev->kind == SPAN_EXIT)
			snprintf(ev->what, sizeof(ev->what), "%s",
				 known[i].name[0] == 'i' ? "irq" : "softirq");
		return;
	}
	if (bp_tep_is(te->system, te->system_len, "syscalls")) {
		bool enter = te->name_len > 10 && !memcmp(te->name, "sys_enter_", 10);

		if (!enter && !(te->name_len > 9 && !memcmp(te->name, "sys_exit_", 9)))
			return;
		ev->kind = enter ? SYS_ENTER : SYS_EXIT;
		ev->f[0] = bp_tep_find(tep, te, "__syscall_nr");
		if (!ev->f[0])
			ev->f[0] = bp_tep_find(tep, te, "nr");
		if (enter)
			snprintf(ev->what, sizeof(ev->what), "sys_%.*s", (int)te->name_len - 10,
				 te->name + 10);
	} else if (bp_tep_is(te->system, te->system_len, "irq_vectors")) {
		bool entry = te->name_len > 6 && !memcmp(te->name + te->name_len - 6, "_entry", 6);
		uint32_t cut = entry ? 6 : 5;

		if (!entry && !(te->name_len > 5 && !memcmp(te->name + te->name_len - 5, "_exit", 5)))
			return;
		ev->kind = entry ? SPAN_ENTRY : SPAN_EXIT;
		ev->f[0] = bp_tep_find(tep, te, "vector");
		snprintf(ev->what, sizeof(ev->what), "%.*s", (int)(te->name_len - cut), te->name);
		for (char *p = ev->what; *p; p++)
			if (*p == '_')
				*p = ' ';
	}
}

static bool field_is(const struct bp_tep_field *f, unsigned offset, unsigned size)
{
	return f->offset == offset && f->size == size;
}

/* What of an event can be read without looking at its description for every record. */
static uint32_t whole(const struct bp_tep *tep, const struct event *ev)
{
	static const unsigned sizes[3] = {8, 4, 8};
	uint32_t end = 0;

	if (tep->big_endian || (ev->kind != GRAPH_ENTRY && ev->kind != GRAPH_EXIT) || !ev->f[0] || !ev->f[1])
		return 0;
	for (unsigned i = 0; i < 3; i++) {
		if (!ev->f[i])
			continue;
		if (ev->f[i]->size != sizes[i])
			return 0;
		if ((uint32_t)ev->f[i]->offset + sizes[i] > end)
			end = (uint32_t)ev->f[i]->offset + sizes[i];
	}
	return end;
}

/* The image of x86-64 is linked to this address; the kernel says where it is. */
#define X86_64_LINKED UINT64_C(0xffffffff81000000)
#define X86_64_SLIDE_MAX (UINT64_C(1) << 30)

static struct bp_err *open_input(struct importer *m, struct input *in, struct bp_source *src)
{
	struct bp_td_file *f;
	struct bp_err *err = bp_td_open(src, &in->file);

	if (err)
		return err;
	f = in->file;
	err = bp_td_syms_init(&in->syms, f->kallsyms ? f->kallsyms : "", f->kallsyms_len);
	if (!err)
		err = bp_td_comms_init(&in->comms, f->cmdlines ? f->cmdlines : "", f->cmdlines_len);
	if (err)
		return err;
	in->events = calloc(f->tep.n_events + 1, sizeof(*in->events));
	if (!in->events)
		return bp_err_nomem();
	for (size_t i = 0; i < f->tep.n_events; i++) {
		classify(&f->tep, &f->tep.events[i], &in->events[i]);
		in->events[i].whole = whole(&f->tep, &in->events[i]);
	}
	in->plain_head = !f->big_endian && field_is(&f->tep.type, 0, 2) && field_is(&f->tep.flags, 2, 1) &&
			 field_is(&f->tep.pid, 4, 4);
	if (in->syms.have_text_start && in->syms.text_start >= X86_64_LINKED &&
	    in->syms.text_start - X86_64_LINKED < X86_64_SLIDE_MAX)
		in->slide = in->syms.text_start - X86_64_LINKED;
	in->from_tsc = f->tsc_mult && f->clock && !strncmp(f->clock, "x86-tsc", 7);
	in->first_cpu = m->n_cpus;
	m->n_cpus += f->n_cpus;
	return err;
}

/* Which file's clock is that of all the others. */
static struct bp_err *relate(struct importer *m)
{
	struct input *host = NULL;

	for (uint32_t i = 0; i < m->n_in && !host; i++) {
		for (uint32_t k = 0; k < m->n_in; k++)
			if (k != i && m->in[i].file->have_trace_id && m->in[k].file->have_shift &&
			    m->in[k].file->peer_id == m->in[i].file->trace_id)
				host = &m->in[i];
	}
	if (!host)
		return bp_err_new(BP_EUSAGE,
				  "%s: none of these files says how its clock relates to that of another "
				  "(they are not a guest and its host, or were not recorded together)",
				  m->in[0].file->path);
	host->host = true;
	for (uint32_t i = 0; i < m->n_in; i++) {
		struct input *in = &m->in[i];

		if (in == host)
			continue;
		if (!in->file->have_shift || in->file->peer_id != host->file->trace_id)
			return bp_err_new(BP_EUSAGE, "%s: does not say how its clock relates to that of %s",
					  in->file->path, host->file->path);
		in->to_peer = true;
	}
	return NULL;
}

static bool same_clock(const struct bp_td_file *f, const struct bp_td_buffer *b)
{
	return !*b->clock || !f->clock || !strcmp(b->clock, f->clock);
}

static struct bp_err *open_streams(struct importer *m)
{
	size_t ranges = 0, budget;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < m->n_in; i++)
		ranges += m->in[i].file->n_ranges;
	m->streams = calloc(ranges + 1, sizeof(*m->streams));
	m->heap = calloc(ranges + 1, sizeof(struct stream *));
	m->cpus = calloc(m->n_cpus + 1, sizeof(*m->cpus));
	if (!m->streams || !m->heap || !m->cpus)
		return bp_err_nomem();
	/* Not worth a thread. */
	for (uint32_t i = 0; i < m->n_in; i++)
		bytes += m->in[i].file->range_bytes;
	if (bytes > AHEAD_BYTES) {
		struct bp_err *err = bp_td_ahead_create(&m->ahead);

		if (err)
			return err;
	}
	budget = STREAM_BYTES / (ranges ? ranges : 1);
	if (budget < 8192)
		budget = 8192;
	for (uint32_t i = 0; i < m->n_in; i++) {
		struct input *in = &m->in[i];

		for (uint32_t k = 0; k < in->file->n_ranges; k++) {
			const struct bp_td_range *r = &in->file->ranges[k];
			struct stream *st = &m->streams[m->n_streams];
			struct bp_err *err;
			bool more;

			if (!same_clock(in->file, &in->file->buffers[r->buffer]) ||
			    in->first_cpu + r->cpu >= BP_BUILDER_CPUS) {
				bp_td_problem(in->file, r->offset, "instance %.40s has another clock",
					      in->file->buffers[r->buffer].name);
				continue;
			}
			m->n_streams++;
			st->in = in;
			st->number = in->first_cpu + r->cpu;
			st->cpu = &m->cpus[st->number];
			st->opened = true;
			err = bp_td_stream_init(&st->s, in->file, r, budget, m->ahead);
			if (!err)
				err = bp_td_stream_next(&st->s, &more);
			if (err)
				return err;
			if (more) {
				set_key(st);
				m->heap[m->n_heap++] = st;
			} else {
				bp_td_stream_deinit(&st->s);
				st->opened = false;
			}
		}
	}
	return NULL;
}

static struct bp_err *say_header(struct importer *m)
{
	const struct bp_td_file *f = m->in[0].file;
	char line[256];
	struct bp_err *err;

	snprintf(line, sizeof(line), "trace.dat version %u%s%s%s", f->version, *f->packing_name ? ", " : "",
		 !strcmp(f->packing_name, "none") ? "not packed" : f->packing_name,
		 f->big_endian ? ", big-endian" : "");
	err = say(m, "trace_format", line);
	snprintf(line, sizeof(line), "ftrace clock %s%s", f->clock && *f->clock ? f->clock : "local",
		 m->n_in > 1         ? " of the host"
		 : m->in[0].from_tsc ? ", converted to ns"
				     : "");
	if (!err)
		err = say(m, "clock_time", line);
	if (!err && f->writer)
		err = say(m, "trace_writer", f->writer);
	if (!err && m->in[0].slide) {
		snprintf(line, sizeof(line), "0x%llx", (unsigned long long)m->in[0].slide);
		err = say(m, "kaslr_slide", line);
	}
	if (!err && m->in[0].syms.n)
		err = say(m, "names_from", "kallsyms in the trace file");
	if (!err && f->uname) {
		/* "Linux HOST RELEASE MACHINE" */
		const char *p = strchr(f->uname, ' '), *e;

		p = p ? strchr(p + 1, ' ') : NULL;
		if (p) {
			e = strchrnul(p + 1, ' ');
			snprintf(line, sizeof(line), "%.*s", (int)(e - p - 1 < 200 ? e - p - 1 : 200), p + 1);
			err = say(m, "kernel_release", line);
		}
	}
	for (uint32_t i = 0; i < m->n_in && m->n_in > 1 && !err; i++) {
		const struct input *in = &m->in[i];
		char key[32];

		if (!in->file->n_cpus)
			continue;
		snprintf(key, sizeof(key), "joined_%u", i);
		snprintf(line, sizeof(line), "%s: CPUs %u to %u%s", in->file->path, in->first_cpu,
			 in->first_cpu + in->file->n_cpus - 1, in->host ? ", the host" : "");
		err = say(m, key, line);
	}
	return err;
}

static struct bp_err *say_totals(struct importer *m)
{
	struct bp_import_stats *stats = m->im->stats;
	struct bp_strbuf sb = BP_STRBUF_INIT;
	bool graph = false, function_tracer = false, spans = false;
	struct bp_err *err;
	char line[160];

	for (uint32_t i = 0; i < m->n_in; i++) {
		struct input *in = &m->in[i];
		const struct bp_td_file *f = in->file;

		graph |= in->has_graph;
		function_tracer |= in->has_function;
		spans |= in->has_spans;
		stats->truncated |= f->truncated;
		if (f->problem_offset != UINT64_MAX && stats->first_bad_offset == UINT64_MAX) {
			stats->first_bad_offset = f->problem_offset;
			snprintf(stats->first_bad, sizeof(stats->first_bad), "%s", f->problem);
		}
		for (size_t k = 0; k < f->tep.n_events && sb.len < 32768; k++) {
			const struct event *ev = &in->events[k];

			if (ev->count)
				bp_strbuf_addf(&sb, "%s%.*s:%.*s=%llu", sb.len ? " " : "",
					       (int)(ev->tep->system_len < 64 ? ev->tep->system_len : 64),
					       ev->tep->system,
					       (int)(ev->tep->name_len < 96 ? ev->tep->name_len : 96),
					       ev->tep->name, (unsigned long long)ev->count);
		}
	}
	snprintf(stats->stacks, sizeof(stats->stacks), "%s",
		 graph                   ? "from the trace"
		 : function_tracer       ? "from the callers in the trace; returns are guessed"
		 : spans || stats->calls ? "from pairs of events"
					 : "none");
	err = bp_strbuf_ok(&sb);
	if (!err)
		err = say(m, "ftrace_events", bp_strbuf_str(&sb));
	bp_strbuf_deinit(&sb);
	if (!err && (m->lone_exits || m->open_entries)) {
		snprintf(line, sizeof(line), "%llu exits without entry, %llu entries without exit",
			 (unsigned long long)m->lone_exits, (unsigned long long)m->open_entries);
		err = say(m, "ftrace_unpaired", line);
	}
	if (!err && m->left_out) {
		snprintf(line, sizeof(line), "%llu events were counted but not kept as marks",
			 (unsigned long long)m->left_out);
		err = say(m, "ftrace_marks", line);
	}
	for (uint32_t i = 0; i < m->n_in && !err; i++)
		if (m->in[i].file->recovered)
			err = say(m, "ftrace_recovered",
				  "the index of the file is missing; CPUs were told apart by "
				  "their time stamps");
	return err;
}

static void close_all(struct importer *m)
{
	for (uint32_t i = 0; i < m->n_streams; i++)
		if (m->streams[i].opened)
			bp_td_stream_deinit(&m->streams[i].s);
	bp_td_ahead_destroy(m->ahead);
	for (uint32_t i = 0; m->cpus && i < m->n_cpus; i++)
		free_task(m, m->cpus[i].idle);
	for (uint32_t i = 0; i < m->n_in; i++) {
		struct input *in = &m->in[i];

		for (uint32_t k = 0; k < in->cap_tasks; k++)
			free_task(m, in->tasks[k]);
		free(in->tasks);
		free(in->addrs);
		free(in->events);
		bp_td_syms_deinit(&in->syms);
		bp_td_comms_deinit(&in->comms);
		bp_td_close(in->file);
	}
	free(m->streams);
	free(m->heap);
	free(m->cpus);
}

struct bp_err *bp_trace_dat_join(struct bp_import *im, struct bp_source *const *more, size_t n)
{
	struct importer m = {.im = im, .b = im->builder, .func_lost = NO_FUNC};
	struct bp_err *err = NULL;

	if (n >= BP_TRACE_DAT_JOIN)
		return bp_err_new(BP_EUSAGE, "at most %u trace.dat files can be joined", BP_TRACE_DAT_JOIN);
	im->stats->first_bad_offset = UINT64_MAX;
	for (size_t i = 0; i <= n && !err; i++)
		err = open_input(&m, &m.in[m.n_in++], i ? more[i - 1] : im->source);
	if (!err && n)
		err = relate(&m);
	if (!err)
		err = open_streams(&m);
	if (!err)
		err = say_header(&m);
	if (!err)
		err = merge(&m);
	if (!err)
		err = say_totals(&m);
	close_all(&m);
	return err;
}

static int probe(const uint8_t *head, size_t len)
{
	return bp_td_probe(head, len) ? 100 : 0;
}

static struct bp_err *run(struct bp_import *im)
{
	return bp_trace_dat_join(im, NULL, 0);
}

const struct bp_importer bp_import_trace_dat = {
    .name = "trace.dat",
    .summary = "trace.dat of trace-cmd, versions 6 and 7",
    .probe = probe,
    .run = run,
};
