// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/tcg/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

/* Event times are kept in units of 2^4 ns: finer than the cost of taking them. */
#define TICK_SHIFT 4
/* Most time that one event takes. */
#define DT_MAX ((UINT32_MAX - 64) >> TICK_SHIFT << TICK_SHIFT)

/* Two stack pointers this close (bytes) are on the same stack: THREAD_SIZE of x86-64. */
#define KERNEL_STACK_BYTES 0x4000
#define USER_STACK_BYTES 0x800000

/* A handler's block that ends in iret begins at most this far below the interrupted frame: pt_regs. */
#define IRET_WINDOW_BYTES 0xb0

#define KERNEL_HALF 0xffff800000000000ull
#define PF_KTHREAD 0x00200000u

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define MAX_CONSOLE_LINE 1024

/* A block that fills slowly is written after this time: a kill loses no more. */
#define BLOCK_NS 200000000u
#define NO_BLOCK UINT64_MAX

/* Functions told apart; what comes after that many shares one row for each kind of code. */
#define MAX_FUNCS (1u << 20)
/* Memory that mappings of user space may take, all tasks together. */
#define MAX_MAP_BYTES (256u << 20)
/* A clock that jumps further than this from one record to the next is no clock. */
#define MAX_JUMP_TICKS (1ull << 52)
#define MAX_JUMP_INSNS (1ull << 46)

/* --max-size: what one function takes in a chunk of folded totals, and the pause between two such chunks. */
#define FOLD_ROW_BYTES 20
#define FOLD_NS 1000000000ull
/* This part of the bound is for totals written while recording. */
#define FOLD_SHARE 8

enum {
	FUNC_IRQ = 1,     /* interrupt or exception entry */
	FUNC_SYSCALL = 2, /* system call entry */
	FUNC_KERNEL = 4,
	FUNC_SEEN = 8, /* its first call has been written */
	FUNC_HALTED = 16,
	FUNC_USER_ROOT = 32,
	FUNC_FIRMWARE = 64,
	FUNC_INITCALL = 128,
	FUNC_DO_INITCALL = 256,
};

struct func {
	uint32_t flags;
	int8_t initcall_level;
	const char *level_name;
};

/* Events of this frame may not be dropped, or something happens when it is popped. */
enum {
	FRAME_BARRIER = 1,
	FRAME_FROM_USER = 2,
	FRAME_KEEP = 4,
	FRAME_MODINIT = 8,
	FRAME_UNWRITTEN = 16, /* no event says that it was entered: entered after events ended */
};

struct frame {
	uint32_t func;
	uint32_t slot; /* low half of the stack address holding the return address */
	uint8_t kind;  /* BP_EV_CALL, BP_EV_JUMP, BP_EV_IRQ */
	uint8_t flags;
	uint64_t wall_ns, cpu_ns, insns;
	/* What follows is kept with --max-size only. */
	struct frame_fold {
		/* The push event's place, the clocks before it, what its callees took. */
		uint64_t ev_seq, prev_ns, prev_insns;
		uint64_t child_ns, child_insns, folded_ns, folded_insns;
		/* After events ended: the task's clocks up to which its total has been accounted for. */
		uint64_t from_ns, from_insns;
	} fold;
};

struct map {
	uint64_t start, end, pgoff;
	char *path;
};

/* An address space and the functions seen in it. */
struct mm {
	uint64_t addr;
	struct map *maps;
	size_t n_maps, cap_maps;
	struct pc_entry {
		uint64_t pc;
		uint32_t func;
	} * pcs; /* open hash, pc 0 is empty */
	size_t n_pcs, cap_pcs;
	struct mm *next;
};

struct ctx {
	uint64_t task_ptr;
	uint32_t id, pid, tgid;
	uint32_t task_flags; /* BP_TASK_* */
	char comm[17];
	char comm_before[17]; /* before its exec: the kernel renames the task a little later than we do */
	char *exe;            /* file it runs, NULL for kernel threads */
	int owner;            /* vCPU running it, -1 if none */
	bool resuming;        /* switched in; the next entry must be on top of its stack */
	struct mm *mm;
	struct frame *frames;
	uint32_t n, cap;
	uint32_t n_user; /* frames at the bottom that are user code */
	uint64_t cpu_ns, cpu_insns;
	uint64_t block;    /* block in which its stack was given */
	char mod_name[64]; /* module whose init runs in it */
	uint64_t mod_start_ns, mod_start_insns;
	struct ctx *next; /* hash chain */
	struct ctx *next_all;
};

struct vstate {
	struct ctx *ctx;
	uint64_t pos;   /* next record to read */
	uint64_t ticks; /* host ticks >> BP_TICK_SHIFT of the newest stamped record */
	uint64_t insns;
	/* Between two stamped records: the first one's clocks, ns per instruction, where the second one is.
	 */
	uint64_t stamp_ns, stamp_insns, pace_insns, pace_until;
	double pace;
	uint64_t now_ns;          /* of the newest record, rounded */
	uint64_t ev_ns, ev_insns; /* up to where events have been written */
	uint64_t end_insns;       /* instructions when the newest site's block has run to its end */
	uint64_t pc;              /* from BP_CTL_PC, 0: none */
	bool in_kernel, halted;
	uint64_t halted_since, halted_ns, events;
	unsigned region;
};

struct module {
	char name[64];
	uint64_t base, size, init_base, init_size;
	struct msym {
		uint64_t addr;
		char *name;
	} * syms;
	size_t n_syms;
	struct module *next;
};

struct fold_row {
	uint64_t calls, total_ns, total_insns, min_ns, max_ns;
	int64_t self_ns, self_insns;
};

#define HASH_BITS 14
#define HASH_SIZE (1u << HASH_BITS)

struct bp_engine {
	struct bp_ring_shm *shm;
	struct bp_site *sites;
	const struct bp_ring_rec *ring[BP_MAX_VCPUS];
	struct bp_trace_writer *writer;
	struct bp_names names;
	struct bp_engine_options opts;
	struct bp_engine_status status;
	uint64_t limit_ns; /* nothing later is recorded: the ready marker */

	struct vstate v[BP_MAX_VCPUS];
	unsigned n_vcpus;

	struct ctx *ctxs[HASH_SIZE];
	struct ctx *all; /* every task ever seen */
	struct mm *mms[HASH_SIZE];
	uint32_t n_tasks;
	struct module *modules;

	struct func *funcs;
	struct fold_row *folds;
	uint32_t n_funcs, cap_funcs;
	struct named {
		uint8_t space;
		uint64_t addr;
		char *module;
		uint32_t func;
		struct named *next;
	} * named[HASH_SIZE];
	struct place {
		uint32_t func; /* plus 1, 0: not known yet, or not in the kernel */
		uint16_t n_insns;
		uint8_t flags;
		uint8_t region; /* of firmware and boot code, plus 1, 0: not known yet, or none */
	} * places;             /* of each site id */
	uint64_t cap_places;
	uint32_t func_halted, func_user, func_unknown, func_rest[3];
	bool user_seen, init_seen;
	int initcall_level;

	/* The block being filled. */
	struct bp_event *events;
	struct bp_run *runs;
	struct bp_frame *bframes;
	size_t n_events, n_runs, n_bframes, cap_runs, cap_bframes;
	uint64_t block_ns;          /* host time at which the block was begun */
	uint64_t block_seq, ev_seq; /* number of blocks; events ever appended minus dropped, for folding */
	struct vstate *run_v;
	struct ctx *run_ctx;

	/* --max-size */
	size_t block_events;    /* events in a block */
	uint64_t fold_below_ns; /* calls shorter than this are folded, 0: none */
	bool want_full, full;   /* no more events, totals only */
	uint64_t fold_first_ns,
	    fold_last_ns;                /* host time of the first call folded, of the last chunk of totals */
	uint64_t fold_bytes, fold_chunk; /* taken by chunks of totals, by the last one */
	uint64_t map_bytes;

	char line[MAX_CONSOLE_LINE];
	size_t line_len;
};

/* ---- clocks ---- */

uint64_t bp_engine_ns(const struct bp_engine *e, uint64_t ticks)
{
	uint64_t d = ticks - e->opts.start_ticks;
	double ns;

	if (ticks <= e->opts.start_ticks)
		return 0;
	/* Signed numbers: the others take several instructions to convert. */
	ns = (double)(int64_t)(d < INT64_MAX ? d : INT64_MAX) * e->opts.ns_per_tick;
	return ns < 0x1p62 ? (uint64_t)(int64_t)ns : 1ull << 62;
}

#define TICKS_MASK ((1ull << (64 - BP_REC_ID_BITS)) - 1)

/* The full ticks of a stamped record, given an earlier one's; they never go back. */
static inline uint64_t full_ticks(uint64_t before, const struct bp_ring_rec *r)
{
	uint64_t d = ((r->a >> BP_REC_ID_BITS) - before) & TICKS_MASK;

	return d <= TICKS_MASK / 2 ? before + d : before;
}

/* Records are never 2^31 instructions apart without a SYNC: what looks like it went back. */
static inline uint32_t insns_since(uint64_t before, const struct bp_ring_rec *r)
{
	uint32_t d = (uint32_t)(r->b >> 32) - (uint32_t)before;

	return d <= UINT32_MAX / 2 ? d : 0;
}

/* Time for each instruction from the last stamped record up to the next one. */
static void find_pace(const struct bp_engine *e, struct vstate *v, uint64_t head)
{
	const struct bp_ring_rec *ring = e->ring[v - e->v];
	uint64_t pos = v->pos, next;
	uint32_t di;

	v->stamp_ns = bp_engine_ns(e, v->ticks << BP_TICK_SHIFT);
	v->stamp_insns = v->insns;
	v->pace = 0;
	v->pace_insns = 0;
	while (pos != head && ring[pos & (BP_RING_RECORDS - 1)].a <= BP_REC_ID_MASK)
		pos++;
	v->pace_until = pos;
	if (pos == head)
		return;
	di = insns_since(v->insns, &ring[pos & (BP_RING_RECORDS - 1)]);
	v->pace_insns = di;
	next = full_ticks(v->ticks, &ring[pos & (BP_RING_RECORDS - 1)]);
	if (di)
		v->pace = (double)(int64_t)(bp_engine_ns(e, next << BP_TICK_SHIFT) - v->stamp_ns) / di;
}

/* Take over the clocks of a record. */
static inline __attribute__((always_inline)) void clocks(struct bp_engine *e, struct vstate *v,
							 const struct bp_ring_rec *r, uint64_t head)
{
	uint64_t ns, since;

	if (r->a >> BP_REC_ID_BITS) {
		v->ticks = full_ticks(v->ticks, r);
		v->insns += insns_since(v->insns, r);
		ns = bp_engine_ns(e, v->ticks << BP_TICK_SHIFT);
	} else {
		if (v->pace_until <= v->pos)
			find_pace(e, v, head);
		v->insns += insns_since(v->insns, r);
		since = v->insns - v->stamp_insns;
		since = since < v->pace_insns ? since : v->pace_insns;
		ns = v->stamp_ns + (uint64_t)(int64_t)(v->pace * (double)(int64_t)since);
	}
	ns &= ~(((uint64_t)1 << TICK_SHIFT) - 1);
	v->now_ns = ns > v->now_ns ? ns : v->now_ns;
}

/* ---- the block ---- */

/*
 * --max-size: the nearer the bound, the longer the calls that are folded; then all of them; in the end there
 * are no events any more. Room for the totals themselves is set aside.
 */
static void set_fold_level(struct bp_engine *e)
{
	uint64_t used = bp_trace_writer_bytes(e->writer) - e->fold_bytes, max = e->opts.max_bytes;
	uint64_t reserve = max / FOLD_SHARE + (uint64_t)e->n_funcs * FOLD_ROW_BYTES + max / 64, limit,
		 below = 0;

	limit = max > reserve * 2 ? max - reserve : max / 2;
	if (used >= limit)
		e->want_full = true;
	if (used >= limit - limit / 16)
		below = UINT64_MAX;
	else if (used >= limit - limit / 8)
		below = 1000000;
	else if (used >= limit - limit / 4)
		below = 100000;
	else if (used >= limit / 8 * 5)
		below = 10000;
	else if (used >= limit / 2)
		below = 1000;
	if (below > e->fold_below_ns)
		e->fold_below_ns = below;
}

static BP_MUST_CHECK struct bp_err *flush_block(struct bp_engine *e)
{
	struct bp_block b = {e->events, e->n_events, e->runs, e->n_runs, e->bframes, e->n_bframes};
	struct bp_err *err = NULL;

	if (e->n_events)
		err = bp_trace_writer_block(e->writer, &b);
	e->n_events = e->n_runs = e->n_bframes = 0;
	e->block_seq++;
	e->run_v = NULL;
	e->run_ctx = NULL;
	if (e->opts.max_bytes)
		set_fold_level(e);
	return err;
}

static BP_MUST_CHECK struct bp_err *grow(void **array, size_t *cap, size_t want, size_t elem)
{
	size_t n = *cap ? *cap : 64;
	void *p;

	if (want <= *cap)
		return NULL;
	while (n < want)
		n *= 2;
	p = realloc(*array, n * elem);
	if (!p)
		return bp_err_nomem();
	*array = p;
	*cap = n;
	return NULL;
}

/* Begin a run of @v's task in the block; the time since the vCPU's last event belongs to it. */
static BP_MUST_CHECK struct bp_err *start_run(struct bp_engine *e, struct vstate *v)
{
	struct ctx *c = v->ctx;
	bool give = c->block != e->block_seq;
	struct bp_err *err;
	struct bp_run *r;

	err = grow((void **)&e->runs, &e->cap_runs, e->n_runs + 1, sizeof(*e->runs));
	if (!err && give)
		err = grow((void **)&e->bframes, &e->cap_bframes, e->n_bframes + c->n, sizeof(*e->bframes));
	if (err)
		return err;
	r = &e->runs[e->n_runs];
	*r = (struct bp_run){
	    .vcpu = (uint32_t)(v - e->v),
	    .task = c->id,
	    .time_ns = v->ev_ns,
	    .insns = v->ev_insns,
	    .cpu_ns = c->cpu_ns,
	    .cpu_insns = c->cpu_insns,
	    .n_frames = give ? c->n : BP_RUN_NO_STACK,
	    .first_frame = give ? (uint32_t)e->n_bframes : 0,
	};
	for (uint32_t i = 0; give && i < c->n; i++) {
		const struct frame *f = &c->frames[i];

		e->bframes[e->n_bframes++] = (struct bp_frame){
		    .func = f->func,
		    .kind = f->kind,
		    .wall_ns = f->wall_ns,
		    .cpu_ns = f->cpu_ns,
		    .insns = f->insns,
		};
	}
	c->block = e->block_seq;
	if (!e->n_events)
		e->block_ns = v->now_ns;
	e->events[e->n_events++] = (struct bp_event){.kind = BP_EV_RUN, .arg = (uint32_t)e->n_runs++};
	e->ev_seq++;
	e->run_v = v;
	e->run_ctx = c;
	return NULL;
}

/*
 * Room for an event in a run of the vCPU's task. A run that begins gives the task's stack as it is, so this
 * must be called before the stack is changed for the event.
 */
static inline BP_MUST_CHECK struct bp_err *prepare(struct bp_engine *e, struct vstate *v)
{
	if (e->n_events + 32 > e->block_events || e->n_bframes + v->ctx->n > BP_BLOCK_FRAMES) {
		struct bp_err *err = flush_block(e);

		if (err)
			return err;
	}
	return e->run_v != v || e->run_ctx != v->ctx ? start_run(e, v) : NULL;
}

/* After events ended: the time since the last one belongs to the function on top. */
static void pass_time(struct bp_engine *e, struct vstate *v)
{
	uint64_t dt = v->now_ns - v->ev_ns, di = v->insns - v->ev_insns;
	struct ctx *c = v->ctx;

	c->cpu_ns += dt;
	c->cpu_insns += di;
	v->ev_ns = v->now_ns;
	v->ev_insns = v->insns;
	if (c->n) {
		struct fold_row *row = &e->folds[c->frames[c->n - 1].func];

		row->self_ns += (int64_t)dt;
		row->self_insns += (int64_t)di;
	}
}

/* What append() cannot do at once: another block or run, more time than one event takes, no events any more.
 */
static BP_MUST_CHECK struct bp_err *emit_slow(struct bp_engine *e, struct vstate *v, enum bp_ev_kind kind,
					      uint32_t arg)
{
	struct bp_err *err;
	uint64_t dt, di;

	if (e->full) {
		pass_time(e, v);
		return NULL;
	}
	err = prepare(e, v);
	if (err)
		return err;
	dt = v->now_ns - v->ev_ns;
	di = v->insns - v->ev_insns;
	v->ctx->cpu_ns += dt;
	v->ctx->cpu_insns += di;
	v->ev_ns = v->now_ns;
	v->ev_insns = v->insns;
	while (dt > DT_MAX || di > UINT32_MAX) {
		uint32_t t = dt > DT_MAX ? DT_MAX : (uint32_t)dt;
		uint32_t n = di > UINT32_MAX ? UINT32_MAX : (uint32_t)di;

		if (e->n_events + 8 > e->block_events) {
			/* A pause of minutes in one event: spread over blocks. */
			v->ev_ns -= dt;
			v->ev_insns -= di;
			v->ctx->cpu_ns -= dt;
			v->ctx->cpu_insns -= di;
			err = flush_block(e);
			if (err)
				return err;
			return emit_slow(e, v, kind, arg);
		}
		e->events[e->n_events++] = (struct bp_event){.kind = BP_EV_TICK, .dt = t, .di = n};
		e->ev_seq++;
		dt -= t;
		di -= n;
	}
	e->events[e->n_events++] =
	    (struct bp_event){.kind = kind, .arg = arg, .dt = (uint32_t)dt, .di = (uint32_t)di};
	e->ev_seq++;
	v->events++;
	return NULL;
}

/* Append an event at the vCPU's current clocks; the task's own clocks go along. */
static inline __attribute__((always_inline)) BP_MUST_CHECK struct bp_err *
emit(struct bp_engine *e, struct vstate *v, enum bp_ev_kind kind, uint32_t arg)
{
	uint64_t dt = v->now_ns - v->ev_ns, di = v->insns - v->ev_insns;
	struct ctx *c = v->ctx;
	struct bp_event *ev;

	/* Less than prepare() asks for: after it there is room for a run and an event. */
	if (unlikely(e->n_events + 16 > e->block_events) || unlikely(e->run_v != v) ||
	    unlikely(e->run_ctx != c) || unlikely(dt > DT_MAX) || unlikely(di > UINT32_MAX) ||
	    unlikely(e->full))
		return emit_slow(e, v, kind, arg);
	c->cpu_ns += dt;
	c->cpu_insns += di;
	v->ev_ns = v->now_ns;
	v->ev_insns = v->insns;
	ev = &e->events[e->n_events++];
	ev->arg = arg;
	ev->dt = (uint32_t)dt;
	ev->di = (uint32_t)di;
	ev->kind = kind;
	e->ev_seq++;
	v->events++;
	return NULL;
}

/* ---- facts ---- */

static BP_MUST_CHECK struct bp_err *fact(struct bp_engine *e, const struct vstate *v, enum bp_fact_kind kind,
					 const char *s1, const char *s2, uint64_t v0, uint64_t v1,
					 uint64_t v2, uint64_t v3)
{
	struct bp_fact f = {
	    .kind = (uint16_t)kind,
	    .vcpu = v ? (uint16_t)(v - e->v) : UINT16_MAX,
	    .time_ns = v ? v->now_ns : e->status.now_ns,
	    .insns = v ? v->insns : 0,
	    .v = {v0, v1, v2, v3},
	    .s1 = s1 ? s1 : "",
	    .s2 = s2 ? s2 : "",
	};

	return bp_trace_writer_fact(e->writer, &f);
}

static uint64_t all_insns(const struct bp_engine *e)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < e->n_vcpus; i++)
		n += e->v[i].insns;
	return n;
}

static BP_MUST_CHECK struct bp_err *mark(struct bp_engine *e, const struct vstate *v, const char *name,
					 const char *detail)
{
	e->status.phase = name;
	return fact(e, v, BP_FACT_MARK, name, detail, all_insns(e), 0, 0, 0);
}

struct bp_err *bp_engine_mark(struct bp_engine *e, const char *name, const char *detail, uint64_t ns)
{
	struct bp_fact f = {
	    .kind = BP_FACT_MARK,
	    .vcpu = UINT16_MAX,
	    .time_ns = ns,
	    .v = {all_insns(e)},
	    .s1 = name,
	    .s2 = detail ? detail : "",
	};

	return bp_trace_writer_fact(e->writer, &f);
}

struct bp_err *bp_engine_ready(struct bp_engine *e, const char *by, uint64_t ns)
{
	if (e->status.ready)
		return NULL;
	e->status.ready = true;
	e->status.ready_ns = ns;
	e->limit_ns = ns;
	snprintf(e->status.ready_by, sizeof(e->status.ready_by), "%.159s", by);
	return bp_engine_mark(e, "ready", by, ns);
}

/* ---- functions ---- */

static size_t hash64(uint64_t x)
{
	return (size_t)(x * 0x9e3779b97f4a7c15ull >> (64 - HASH_BITS));
}

static BP_MUST_CHECK struct bp_err *new_func(struct bp_engine *e, enum bp_space space, uint64_t addr,
					     uint64_t sym_addr, const char *name, const char *module,
					     uint32_t flags, uint32_t *ret)
{
	size_t h = hash64(addr * 8 + space);
	struct bp_func bf;
	struct named *n;
	struct bp_err *err;

	if (e->n_funcs == e->cap_funcs) {
		uint32_t cap = e->cap_funcs ? e->cap_funcs * 2 : 4096;
		struct func *p = realloc(e->funcs, cap * sizeof(*p));
		struct fold_row *q;

		if (!p)
			return bp_err_nomem();
		e->funcs = p;
		q = realloc(e->folds, cap * sizeof(*q));
		if (!q)
			return bp_err_nomem();
		e->folds = q;
		memset(q + e->n_funcs, 0, (cap - e->n_funcs) * sizeof(*q));
		e->cap_funcs = cap;
	}
	n = calloc(1, sizeof(*n));
	if (n)
		n->module = strdup(module);
	if (!n || !n->module) {
		free(n);
		return bp_err_nomem();
	}
	n->space = (uint8_t)space;
	n->addr = addr;
	n->func = e->n_funcs;
	bf = (struct bp_func){
	    .id = n->func,
	    .space = (uint8_t)space,
	    .addr = addr,
	    .sym_addr = sym_addr,
	    .name = name,
	    .module = module,
	};
	err = bp_trace_writer_func(e->writer, &bf);
	if (err) {
		free(n->module);
		free(n);
		return err;
	}
	n->next = e->named[h];
	e->named[h] = n;
	e->funcs[e->n_funcs] = (struct func){.flags = flags, .initcall_level = -1};
	*ret = e->n_funcs++;
	return NULL;
}

/* The id of a function, defined in the recording when it is new. Strings are copied. */
static BP_MUST_CHECK struct bp_err *func_id(struct bp_engine *e, enum bp_space space, uint64_t addr,
					    uint64_t sym_addr, const char *name, const char *module,
					    uint32_t flags, uint32_t *ret)
{
	struct bp_err *err;

	for (const struct named *n = e->named[hash64(addr * 8 + space)]; n; n = n->next) {
		if (n->addr == addr && n->space == space && !strcmp(n->module, module)) {
			*ret = n->func;
			return NULL;
		}
	}
	if (e->n_funcs >= MAX_FUNCS) {
		uint32_t *rest = &e->func_rest[flags & FUNC_KERNEL ? 0 : flags & FUNC_FIRMWARE ? 1 : 2];

		/* Id 0 is [unknown]. */
		err = *rest
			  ? NULL
			  : new_func(e, BP_SPACE_PSEUDO, (uint64_t)(3 + (rest - e->func_rest)), 0,
				     "[too many functions]", "", flags & (FUNC_KERNEL | FUNC_FIRMWARE), rest);
		if (!err)
			*ret = *rest;
		return err;
	}
	return new_func(e, space, addr, sym_addr, name, module, flags, ret);
}

static uint32_t kernel_func_flags(const char *name)
{
	uint32_t flags = FUNC_KERNEL;

	if (!strncmp(name, "asm_exc_", 8) || !strncmp(name, "asm_sysvec_", 11) ||
	    !strcmp(name, "asm_common_interrupt") || !strcmp(name, "asm_spurious_interrupt") ||
	    !strncmp(name, "early_idt_handler", 17) || !strcmp(name, "irq_entries_start") ||
	    !strcmp(name, "spurious_entries_start"))
		flags |= FUNC_IRQ;
	if (!strcmp(name, "entry_SYSCALL_64") || !strcmp(name, "entry_SYSCALL_compat") ||
	    !strcmp(name, "entry_SYSENTER_compat") || !strcmp(name, "entry_INT80_compat"))
		flags |= FUNC_SYSCALL;
	if (!strcmp(name, "do_one_initcall"))
		flags |= FUNC_DO_INITCALL;
	return flags;
}

static const struct msym *module_sym(const struct module *m, uint64_t pc)
{
	size_t lo = 0, hi = m->n_syms;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (m->syms[mid].addr <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? &m->syms[lo - 1] : NULL;
}

static BP_MUST_CHECK struct bp_err *kernel_func(struct bp_engine *e, uint64_t pc, uint32_t *ret)
{
	uint64_t link = pc - (e->shm->slide_known ? e->shm->slide : 0), start = link;
	const char *name = "", *level = NULL;
	struct bp_err *err;
	uint32_t flags;

	for (const struct module *m = e->modules; m; m = m->next) {
		const struct msym *s;

		if (pc - m->base >= m->size && pc - m->init_base >= m->init_size)
			continue;
		s = module_sym(m, pc);
		return func_id(e, BP_SPACE_MODULE, s ? s->addr : pc, s ? s->addr : pc, s ? s->name : "",
			       m->name, FUNC_KERNEL, ret);
	}
	if (!e->shm->text_bytes || link - e->shm->text_base >= e->shm->text_bytes ||
	    !e->names.kernel(e->names.self, link, &name, &start)) {
		/* One nameless row for each page, so that a guest cannot make us keep every address. */
		if (e->shm->text_bytes)
			start = link & ~4095ull;
		return func_id(e, BP_SPACE_KERNEL, start, start, "",
			       e->shm->text_bytes ? "[kernel, no symbol]" : "vmlinux", FUNC_KERNEL, ret);
	}
	flags = kernel_func_flags(name);
	err = func_id(e, BP_SPACE_KERNEL, start, start, name, "vmlinux", flags, ret);
	if (!err && e->funcs[*ret].initcall_level < 0 && e->names.initcall_level) {
		int l = e->names.initcall_level(e->names.self, start, &level);

		if (l >= 0) {
			e->funcs[*ret].flags |= FUNC_INITCALL;
			e->funcs[*ret].initcall_level = (int8_t)l;
			e->funcs[*ret].level_name = level;
		}
	}
	return err;
}

static BP_MUST_CHECK struct bp_err *user_func(struct bp_engine *e, struct mm *mm, uint64_t pc, uint32_t *ret)
{
	const struct map *map = NULL;
	struct bp_err *err;
	size_t i;

	if (!mm)
		return func_id(e, BP_SPACE_ANON, pc & ~4095ull, pc & ~4095ull, "", "[user]", 0, ret);
	if ((mm->n_pcs + 1) * 2 > mm->cap_pcs) {
		size_t cap = mm->cap_pcs ? mm->cap_pcs * 2 : 256;
		struct pc_entry *p = calloc(cap, sizeof(*p));

		if (!p)
			return bp_err_nomem();
		for (i = 0; i < mm->cap_pcs; i++) {
			size_t j;

			if (!mm->pcs[i].pc)
				continue;
			for (j = mm->pcs[i].pc * 0x9e3779b97f4a7c15ull >> 20 & (cap - 1); p[j].pc;
			     j = (j + 1) & (cap - 1))
				;
			p[j] = mm->pcs[i];
		}
		free(mm->pcs);
		mm->pcs = p;
		mm->cap_pcs = cap;
	}
	for (i = pc * 0x9e3779b97f4a7c15ull >> 20 & (mm->cap_pcs - 1); mm->pcs[i].pc;
	     i = (i + 1) & (mm->cap_pcs - 1)) {
		if (mm->pcs[i].pc == pc) {
			*ret = mm->pcs[i].func;
			return NULL;
		}
	}
	for (size_t j = mm->n_maps; j-- > 0;) {
		if (pc >= mm->maps[j].start && pc < mm->maps[j].end) {
			map = &mm->maps[j];
			break;
		}
	}
	if (map) {
		uint64_t off = pc - map->start + map->pgoff, start = off & ~4095ull;
		const char *name = "";

		if (!e->names.user(e->names.self, map->path, off, &name, &start))
			name = "";
		err = func_id(e, BP_SPACE_USER, start, start, name, map->path, 0, ret);
	} else {
		err = func_id(e, BP_SPACE_ANON, pc & ~4095ull, pc & ~4095ull, "", "[anon]", 0, ret);
	}
	if (!err) {
		mm->pcs[i] = (struct pc_entry){.pc = pc, .func = *ret};
		mm->n_pcs++;
	}
	return err;
}

/* ---- tasks and address spaces ---- */

static BP_MUST_CHECK struct bp_err *task_fact(struct bp_engine *e, const struct vstate *v,
					      const struct ctx *c)
{
	return fact(e, v, BP_FACT_TASK, c->comm, c->exe, c->id, c->pid, c->tgid, c->task_flags);
}

static BP_MUST_CHECK struct bp_err *set_exe(struct ctx *c, const char *path)
{
	char *copy = path ? strdup(path) : NULL;

	if (path && !copy)
		return bp_err_nomem();
	free(c->exe);
	c->exe = copy;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *ctx_create(struct bp_engine *e, uint64_t task_ptr, struct ctx **ret)
{
	struct ctx *c = calloc(1, sizeof(*c));

	if (!c)
		return bp_err_nomem();
	c->task_ptr = task_ptr;
	c->owner = -1;
	c->block = NO_BLOCK;
	c->id = e->n_tasks++;
	c->next_all = e->all;
	e->all = c;
	if (task_ptr) {
		c->next = e->ctxs[hash64(task_ptr)];
		e->ctxs[hash64(task_ptr)] = c;
	}
	*ret = c;
	return NULL;
}

static struct ctx *ctx_find(struct bp_engine *e, uint64_t task_ptr)
{
	for (struct ctx *c = e->ctxs[hash64(task_ptr)]; c; c = c->next)
		if (c->task_ptr == task_ptr)
			return c;
	return NULL;
}

static bool is_recursive(const struct ctx *c, uint32_t depth)
{
	for (uint32_t i = 0; i < depth; i++)
		if (c->frames[i].func == c->frames[depth].func)
			return true;
	return false;
}

/* A call that no event tells of. */
static void count_call(struct bp_engine *e, uint32_t func, uint64_t total_ns)
{
	struct fold_row *row = &e->folds[func];

	e->status.folded_calls++;
	row->calls++;
	if (row->calls == 1 || total_ns < row->min_ns)
		row->min_ns = total_ns;
	if (total_ns > row->max_ns)
		row->max_ns = total_ns;
}

/*
 * Put into the totals what the events do not say about the frame at @depth so far: callees left out took
 * part of its own time, and after events ended its total went on.
 */
static void settle(struct bp_engine *e, struct ctx *c, uint32_t depth)
{
	struct frame *f = &c->frames[depth];
	struct fold_row *row = &e->folds[f->func];

	if (!e->opts.max_bytes)
		return;
	row->self_ns -= (int64_t)f->fold.folded_ns;
	row->self_insns -= (int64_t)f->fold.folded_insns;
	f->fold.folded_ns = f->fold.folded_insns = 0;
	if (!e->full)
		return;
	if (!is_recursive(c, depth)) {
		row->total_ns += c->cpu_ns - f->fold.from_ns;
		row->total_insns += c->cpu_insns - f->fold.from_insns;
	}
	f->fold.from_ns = c->cpu_ns;
	f->fold.from_insns = c->cpu_insns;
}

/* The frames from @from to before @to end without a return being written: their task does, or the recording.
 */
static void end_frames(struct bp_engine *e, struct ctx *c, uint32_t from, uint32_t to)
{
	for (uint32_t i = to; i-- > from;) {
		settle(e, c, i);
		if (c->frames[i].flags & FRAME_UNWRITTEN)
			count_call(e, c->frames[i].func, c->cpu_ns - c->frames[i].cpu_ns);
	}
}

/* The task_struct is used for another task now. */
static void ctx_renew(struct bp_engine *e, struct ctx *c)
{
	end_frames(e, c, 0, c->n);
	c->id = e->n_tasks++;
	c->n = c->n_user = 0;
	c->cpu_ns = c->cpu_insns = 0;
	c->block = NO_BLOCK;
	c->mod_name[0] = '\0';
	c->comm_before[0] = '\0';
	free(c->exe);
	c->exe = NULL;
	c->mm = NULL;
	if (e->run_ctx == c)
		e->run_ctx = NULL;
}

static struct mm *mm_get(struct bp_engine *e, uint64_t addr)
{
	struct mm *mm;

	if (!addr)
		return NULL;
	for (mm = e->mms[hash64(addr)]; mm; mm = mm->next)
		if (mm->addr == addr)
			return mm;
	mm = calloc(1, sizeof(*mm));
	if (!mm)
		return NULL;
	mm->addr = addr;
	mm->next = e->mms[hash64(addr)];
	e->mms[hash64(addr)] = mm;
	return mm;
}

static size_t map_cost(const char *path)
{
	return sizeof(struct map) + strlen(path) + 1;
}

static void mm_clear(struct bp_engine *e, struct mm *mm)
{
	for (size_t i = 0; i < mm->n_maps; i++) {
		e->map_bytes -= map_cost(mm->maps[i].path);
		free(mm->maps[i].path);
	}
	free(mm->maps);
	free(mm->pcs);
	mm->maps = NULL;
	mm->pcs = NULL;
	mm->n_maps = mm->cap_maps = mm->n_pcs = mm->cap_pcs = 0;
}

static BP_MUST_CHECK struct bp_err *mm_add(struct bp_engine *e, struct mm *mm, uint64_t start, uint64_t end,
					   uint64_t pgoff, const char *path)
{
	enum { MAX_MAPS = 65536 };
	struct bp_err *err;
	char *copy;

	/* A fork copies them all, so their sum is what must be bounded. */
	if (mm->n_maps >= MAX_MAPS || e->map_bytes + map_cost(path) > MAX_MAP_BYTES)
		return NULL;
	err = grow((void **)&mm->maps, &mm->cap_maps, mm->n_maps + 1, sizeof(*mm->maps));
	if (err)
		return err;
	copy = strdup(path);
	if (!copy)
		return bp_err_nomem();
	e->map_bytes += map_cost(path);
	mm->maps[mm->n_maps++] = (struct map){.start = start, .end = end, .pgoff = pgoff, .path = copy};
	/* What was known about addresses may be wrong now. */
	free(mm->pcs);
	mm->pcs = NULL;
	mm->n_pcs = mm->cap_pcs = 0;
	return NULL;
}

/* ---- the stack ---- */

static inline bool same_stack(uint32_t a, uint32_t b, uint32_t span)
{
	return a - b < span || b - a < span;
}

static BP_MUST_CHECK struct bp_err *more_frames(struct ctx *c)
{
	uint32_t cap = c->cap ? c->cap * 2 : 64;
	struct frame *p = realloc(c->frames, cap * sizeof(*p));

	if (!p)
		return bp_err_nomem();
	c->frames = p;
	c->cap = cap;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *push(struct bp_engine *e, struct vstate *v, enum bp_ev_kind kind,
					 uint32_t func, uint32_t slot, uint8_t flags)
{
	struct ctx *c = v->ctx;
	uint64_t prev_ns = v->ev_ns, prev_insns = v->ev_insns;
	uint32_t func_flags = e->funcs[func].flags;
	struct bp_err *err;
	struct frame *f;

	if (unlikely(c->n >= BP_MAX_DEPTH)) {
		e->status.too_deep++;
		return NULL;
	}
	if (unlikely(c->n == c->cap)) {
		err = more_frames(c);
		if (err)
			return err;
	}
	err = emit(e, v, kind, func);
	if (err)
		return err;
	if (unlikely(!(func_flags & FUNC_SEEN))) {
		e->funcs[func].flags |= FUNC_SEEN;
		flags |= FRAME_KEEP;
	}
	/* One by one: the compiler would clear the whole frame first, and with a loop. */
	f = &c->frames[c->n++];
	f->func = func;
	f->slot = slot;
	f->kind = (uint8_t)kind;
	f->flags = flags;
	f->wall_ns = v->now_ns;
	f->cpu_ns = c->cpu_ns;
	f->insns = c->cpu_insns;
	if (unlikely(e->opts.max_bytes)) {
		if (e->full)
			f->flags |= FRAME_UNWRITTEN;
		f->fold = (struct frame_fold){
		    .ev_seq = e->ev_seq,
		    .prev_ns = prev_ns,
		    .prev_insns = prev_insns,
		    .from_ns = c->cpu_ns,
		    .from_insns = c->cpu_insns,
		};
	}
	if (!(func_flags & (FUNC_KERNEL | FUNC_HALTED | FUNC_FIRMWARE)))
		c->n_user = c->n;
	e->status.calls++;
	return NULL;
}

/* Drop the last call from the events and keep its totals; it has nothing inside any more. */
static bool try_fold(struct bp_engine *e, struct vstate *v)
{
	struct ctx *c = v->ctx;
	const struct frame *f = &c->frames[c->n - 1];
	uint64_t total = c->cpu_ns + (v->now_ns - v->ev_ns) - f->cpu_ns;
	uint64_t insns = c->cpu_insns + (v->insns - v->ev_insns) - f->insns;
	struct fold_row *row = &e->folds[f->func];
	const struct bp_event *last;

	if (total >= e->fold_below_ns || f->flags || f->kind == BP_EV_IRQ || f->fold.ev_seq != e->ev_seq ||
	    e->run_v != v || e->run_ctx != c || !e->n_events)
		return false;
	/* Its time took more than one event. */
	last = &e->events[e->n_events - 1];
	if (last->dt != v->ev_ns - f->fold.prev_ns || last->di != v->ev_insns - f->fold.prev_insns)
		return false;
	count_call(e, f->func, total);
	row->self_ns += (int64_t)(total - f->fold.child_ns);
	row->self_insns += (int64_t)(insns - f->fold.child_insns);
	if (!is_recursive(c, c->n - 1)) {
		row->total_ns += total;
		row->total_insns += insns;
	}
	/* As if the call had not been written: clocks go back to the event before it. */
	e->n_events--;
	e->ev_seq--;
	v->events--;
	c->cpu_ns -= v->ev_ns - f->fold.prev_ns;
	c->cpu_insns -= v->ev_insns - f->fold.prev_insns;
	v->ev_ns = f->fold.prev_ns;
	v->ev_insns = f->fold.prev_insns;
	return true;
}

static BP_MUST_CHECK struct bp_err *frame_done(struct bp_engine *e, struct vstate *v, const struct frame *f)
{
	struct ctx *c = v->ctx;
	char name[sizeof(c->mod_name)];

	if (!(f->flags & FRAME_MODINIT) || !c->mod_name[0])
		return NULL;
	memcpy(name, c->mod_name, sizeof(name));
	c->mod_name[0] = '\0';
	return fact(e, v, BP_FACT_MODULE_INIT, name, "", c->mod_start_ns, v->now_ns,
		    c->cpu_insns + v->insns - v->ev_insns - c->mod_start_insns, c->id);
}

/* pop_to() with --max-size: each frame's time must be known, and some leave no trace. */
static BP_MUST_CHECK struct bp_err *pop_folding(struct bp_engine *e, struct vstate *v, uint32_t depth)
{
	struct ctx *c = v->ctx;
	struct bp_err *err = NULL;
	uint32_t n_ret = 0;

	/* Time for which one event is not enough may need another block, which shows the stack as it still
	 * is. */
	if (e->full)
		pass_time(e, v);
	else if (v->now_ns - v->ev_ns > DT_MAX || v->insns - v->ev_insns > UINT32_MAX)
		err = emit(e, v, BP_EV_TICK, 0);
	if (!err && !e->full)
		err = prepare(e, v);
	if (err)
		return err;
	while (c->n > depth) {
		struct frame *f = &c->frames[c->n - 1], *up = c->n > 1 ? f - 1 : NULL;
		uint64_t total = c->cpu_ns + (v->now_ns - v->ev_ns) - f->cpu_ns;
		uint64_t insns = c->cpu_insns + (v->insns - v->ev_insns) - f->insns;
		bool folded = false;

		if (f->flags & FRAME_MODINIT) {
			err = frame_done(e, v, f);
			if (err)
				return err;
		}
		if (e->full) {
			end_frames(e, c, c->n - 1, c->n);
			c->n--;
			continue;
		}
		if (e->fold_below_ns && !n_ret)
			folded = try_fold(e, v);
		if (up) {
			up->fold.child_ns += total;
			up->fold.child_insns += insns;
			if (folded) {
				up->fold.folded_ns += total;
				up->fold.folded_insns += insns;
			}
		}
		if (!folded) {
			settle(e, c, c->n - 1);
			n_ret++;
		}
		c->n--;
	}
	if (c->n_user > c->n)
		c->n_user = c->n;
	return n_ret ? emit(e, v, BP_EV_RET, n_ret) : NULL;
}

/* Pop down to @depth frames. */
static inline BP_MUST_CHECK struct bp_err *pop_to(struct bp_engine *e, struct vstate *v, uint32_t depth)
{
	struct ctx *c = v->ctx;
	struct bp_err *err;

	if (c->n <= depth)
		return NULL;
	if (unlikely(e->opts.max_bytes))
		return pop_folding(e, v, depth);
	/* First the event: when another run must begin for it, that shows the stack as it still is. */
	err = emit(e, v, BP_EV_RET, c->n - depth);
	while (!err && c->n > depth) {
		const struct frame *f = &c->frames[--c->n];

		if (unlikely(f->flags & FRAME_MODINIT))
			err = frame_done(e, v, f);
	}
	if (c->n_user > c->n)
		c->n_user = c->n;
	return err;
}

/*
 * How deep the stack is when the stack pointer is @sp. Frames whose slot is below @sp have
 * returned. A frame on another stack (interrupt stack, exception stack) is gone when there is a frame
 * of this stack under it; one on an unknown stack is left alone.
 */
static uint32_t depth_at(const struct ctx *c, uint32_t sp, uint32_t base, uint32_t span)
{
	uint32_t i = c->n;

	/* The common case: the top frame is on this stack. */
	while (i > base && !(c->frames[i - 1].flags & FRAME_BARRIER)) {
		const struct frame *f = &c->frames[i - 1];

		if (!same_stack(f->slot, sp, span))
			break;
		if (f->slot - sp < span)
			return i;
		i--;
	}
	/* All frames of this stack that are on top are gone; is there more of it further down? */
	for (uint32_t j = i; j > base; j--) {
		const struct frame *f = &c->frames[j - 1];

		if (f->flags & FRAME_BARRIER) {
			/* Entered from user space: nothing below belongs to this kernel stack. */
			break;
		}
		if (same_stack(f->slot, sp, span) && f->slot - sp < span)
			return j;
	}
	return i;
}

static BP_MUST_CHECK struct bp_err *user_root(struct bp_engine *e, struct vstate *v)
{
	if (v->ctx->n)
		return NULL;
	return push(e, v, BP_EV_CALL, e->func_user, 0, FRAME_BARRIER | FRAME_KEEP);
}

static BP_MUST_CHECK struct bp_err *on_initcall(struct bp_engine *e, struct vstate *v, const struct func *f)
{
	struct bp_err *err = NULL;

	if (f->initcall_level <= e->initcall_level)
		return NULL;
	if (e->initcall_level < 0)
		err = mark(e, v, "initcalls", "");
	e->initcall_level = f->initcall_level;
	if (err)
		return err;
	return mark(e, v, "initcall-level", f->level_name ? f->level_name : "");
}

/*
 * The block that began here ends with iret or sysret: what returns is the innermost interrupt or system call.
 * Its last instructions still belong to the handler.
 */
static BP_MUST_CHECK struct bp_err *kernel_iret(struct bp_engine *e, struct vstate *v, uint32_t sp)
{
	struct ctx *c = v->ctx;
	const struct frame *f;
	struct bp_err *err;
	uint32_t i = c->n;

	if (v->end_insns > v->insns)
		v->insns = v->end_insns;
	while (i > c->n_user && c->frames[i - 1].kind != BP_EV_IRQ &&
	       !(c->frames[i - 1].flags & FRAME_FROM_USER))
		i--;
	f = i ? &c->frames[i - 1] : NULL;
	if (i <= c->n_user) {
		/* A new task's first way to user space, or the kernel's own after an exec. */
		if (c->mm && c->n > c->n_user) {
			err = pop_to(e, v, c->n_user);
			return err ? err : user_root(e, v);
		}
		/* A handler that we do not know as one: it was entered right above where it returns from. */
		if (c->n > c->n_user && c->frames[c->n - 1].slot - sp < IRET_WINDOW_BYTES)
			return pop_to(e, v, c->n - 1);
		return NULL;
	}
	if (f->flags & FRAME_FROM_USER) {
		err = pop_to(e, v, c->n_user);
		return err ? err : user_root(e, v);
	}
	if (f->slot - sp < IRET_WINDOW_BYTES || sp - f->slot < 16)
		return pop_to(e, v, i - 1);
	return NULL;
}

static BP_MUST_CHECK struct bp_err *kernel_entry(struct bp_engine *e, struct vstate *v, uint32_t flags,
						 uint32_t func, uint32_t sp);

static BP_MUST_CHECK struct bp_err *kernel_site(struct bp_engine *e, struct vstate *v,
						const struct place *place, uint32_t sp)
{
	struct ctx *c = v->ctx;
	uint32_t depth, flags = place->flags, func = place->func - 1;
	struct bp_err *err = NULL;

	v->end_insns = v->insns + place->n_insns;
	if ((flags & BP_SITE_ENTRY) && (flags & BP_SITE_LANDING))
		/* A function right behind a call: a return only if that call's frame is the one that ends
		 * here. */
		flags &= c->n && c->frames[c->n - 1].slot == sp - 8 ? ~(uint32_t)BP_SITE_ENTRY
								    : ~(uint32_t)BP_SITE_LANDING;

	if (flags & BP_SITE_LANDING) {
		c->resuming = false;
		depth = depth_at(c, sp, c->n_user, KERNEL_STACK_BYTES);
		if (depth < c->n) {
			err = pop_to(e, v, depth);
			if (err)
				return err;
		}
		if (c->n <= c->n_user) {
			e->status.unmatched++;
			err = push(e, v, BP_EV_CALL, func, sp, 0);
		}
	} else if (flags & BP_SITE_ENTRY) {
		err = kernel_entry(e, v, flags, func, sp);
	}
	return !err && (flags & BP_SITE_IRET) ? kernel_iret(e, v, sp) : err;
}

static BP_MUST_CHECK struct bp_err *kernel_entry(struct bp_engine *e, struct vstate *v, uint32_t flags,
						 uint32_t func, uint32_t sp)
{
	struct ctx *c = v->ctx;
	const struct func *f = &e->funcs[func];
	struct bp_err *err;
	uint32_t depth;

	if (c->resuming) {
		/* Right after a switch: the stack must be as it was left, else the task is another one. */
		c->resuming = false;
		if (c->n > c->n_user && c->frames[c->n - 1].slot != sp) {
			err = pop_to(e, v, 0);
			if (err)
				return err;
		}
	}
	if (f->flags & FUNC_INITCALL && c->n && e->funcs[c->frames[c->n - 1].func].flags & FUNC_DO_INITCALL) {
		err = on_initcall(e, v, f);
		if (err)
			return err;
	}
	if (f->flags & FUNC_SYSCALL) {
		err = pop_to(e, v, c->n_user);
		if (!err)
			err = emit(e, v, BP_EV_SYSCALL, sp);
		if (!err)
			err = push(e, v, BP_EV_CALL, func, 0, FRAME_BARRIER | FRAME_FROM_USER | FRAME_KEEP);
		return err;
	}
	if (f->flags & FUNC_IRQ) {
		bool from_user = c->n <= c->n_user && c->mm;

		return push(e, v, BP_EV_IRQ, func, sp, from_user ? FRAME_BARRIER | FRAME_FROM_USER : 0);
	}
	depth = depth_at(c, sp, c->n_user, KERNEL_STACK_BYTES);
	if (depth && depth == c->n && c->frames[depth - 1].slot == sp && c->frames[depth - 1].func == func &&
	    c->frames[depth - 1].kind != BP_EV_IRQ) {
		/* A loop to its own first instruction, or a call whose return went unseen. */
		if (flags & BP_SITE_LOOP)
			return NULL;
		depth--;
	}
	if (depth < c->n) {
		err = pop_to(e, v, depth);
		if (err)
			return err;
	}
	return push(e, v, c->n > c->n_user && c->frames[c->n - 1].slot == sp ? BP_EV_JUMP : BP_EV_CALL, func,
		    sp, 0);
}

static BP_MUST_CHECK struct bp_err *user_site(struct bp_engine *e, struct vstate *v, const struct bp_site *s,
					      uint64_t pc, uint32_t sp)
{
	struct ctx *c = v->ctx;
	uint32_t func = 0, depth, flags = s->flags;
	struct bp_err *err;

	if (c->n > c->n_user) {
		err = pop_to(e, v, c->n_user);
		if (err)
			return err;
	}
	err = user_root(e, v);
	if (!err)
		err = user_func(e, c->mm, pc, &func);
	if (err)
		return err;
	if (!e->user_seen && c->pid == 1) {
		e->user_seen = true;
		err = mark(e, v, "user", c->comm);
		if (err)
			return err;
	}
	if ((flags & BP_SITE_ENTRY) && (flags & BP_SITE_LANDING))
		flags &= c->frames[c->n - 1].slot == sp - 8 ? ~(uint32_t)BP_SITE_ENTRY
							    : ~(uint32_t)BP_SITE_LANDING;
	depth = depth_at(c, sp, 1, USER_STACK_BYTES);
	if (flags & BP_SITE_LANDING) {
		if (depth < c->n) {
			err = pop_to(e, v, depth);
			if (err)
				return err;
		}
		if (c->n <= 1) {
			e->status.unmatched++;
			return push(e, v, BP_EV_CALL, func, sp, 0);
		}
		return NULL;
	}
	if (!(flags & BP_SITE_ENTRY))
		return NULL;
	if (depth == c->n && depth > 1 && c->frames[depth - 1].slot == sp &&
	    c->frames[depth - 1].func == func) {
		if (flags & BP_SITE_LOOP)
			return NULL;
		depth--;
	}
	if (depth < c->n) {
		err = pop_to(e, v, depth);
		if (err)
			return err;
	}
	return push(e, v, c->n > 1 && c->frames[c->n - 1].slot == sp ? BP_EV_JUMP : BP_EV_CALL, func, sp, 0);
}

static BP_MUST_CHECK struct bp_err *firmware_site(struct bp_engine *e, struct vstate *v, uint64_t pc)
{
	const char *name = "[firmware]", *phase = NULL;
	unsigned region = e->names.region(e->names.self, pc, &name, &phase);
	struct bp_err *err;
	uint32_t func;

	if (v->region == region + 1)
		return NULL;
	v->region = region + 1;
	err = func_id(e, BP_SPACE_FIRMWARE, region, region, name, "[firmware]", FUNC_FIRMWARE, &func);
	if (!err)
		err = pop_to(e, v, 0);
	if (!err && phase && v == &e->v[0] && !(e->funcs[func].flags & FUNC_SEEN))
		err = mark(e, v, phase, name);
	if (err)
		return err;
	return push(e, v, BP_EV_CALL, func, 0, FRAME_BARRIER);
}

static BP_MUST_CHECK struct bp_err *enter_kernel(struct bp_engine *e, struct vstate *v)
{
	struct bp_err *err = pop_to(e, v, 0);

	v->in_kernel = true;
	v->region = 0;
	if (err || v != &e->v[0])
		return err;
	return mark(e, v, "kernel", "");
}

/* Low code of a running kernel that can only be firmware: the machine was reset. */
static bool is_reset(uint64_t pc)
{
	return (pc >= 0xe0000 && pc < 0x100000) || (pc >= 0xffff0000u && pc <= 0xffffffffu);
}

static BP_MUST_CHECK struct bp_err *more_places(struct bp_engine *e, uint32_t id)
{
	while (id >= e->cap_places) {
		uint64_t cap = e->cap_places ? e->cap_places * 2 : 65536;
		struct place *p = realloc(e->places, cap * sizeof(*p));

		if (!p)
			return bp_err_nomem();
		memset(p + e->cap_places, 0, (cap - e->cap_places) * sizeof(*p));
		e->places = p;
		e->cap_places = cap;
	}
	return NULL;
}

static BP_MUST_CHECK struct bp_err *on_other_site(struct bp_engine *e, struct vstate *v, uint32_t id,
						  uint32_t low)
{
	struct place place;
	const struct bp_site *s;
	struct bp_err *err;
	uint64_t pc;

	if (id - BP_CTL_N >= BP_MAX_SITES)
		return bp_err_new(BP_EDATA, "the plugin named a place that cannot exist (%u)", id);
	s = &e->sites[id - BP_CTL_N];
	pc = v->pc ? v->pc : s->pc;
	if (pc < KERNEL_HALF) {
		bool known = !v->pc;

		v->pc = 0;
		if (v->in_kernel && is_reset(pc))
			v->in_kernel = false;
		if (!v->in_kernel) {
			err = firmware_site(e, v, pc);
			if (!err && known && v->region <= UINT8_MAX)
				err = more_places(e, id);
			if (!err && known && v->region <= UINT8_MAX)
				e->places[id].region = (uint8_t)v->region;
			return err;
		}
		return user_site(e, v, s, pc, low);
	}
	if (!v->in_kernel) {
		err = enter_kernel(e, v);
		if (err)
			return err;
	}
	place = (struct place){.n_insns = (uint16_t)s->n_insns, .flags = (uint8_t)s->flags};
	err = kernel_func(e, pc, &place.func);
	if (err)
		return err;
	place.func++;
	if (!v->pc) {
		err = more_places(e, id);
		if (err)
			return err;
		e->places[id] = place;
	}
	v->pc = 0;
	return kernel_site(e, v, &place, low);
}

/* A block began at a site. Nearly always it is one in the kernel that has been there before. */
static inline BP_MUST_CHECK struct bp_err *on_site(struct bp_engine *e, struct vstate *v, uint32_t id,
						   uint32_t low)
{
	if (likely(id < e->cap_places) && likely(!v->pc)) {
		const struct place *place = &e->places[id];

		if (place->func && likely(v->in_kernel))
			return kernel_site(e, v, place, low);
		/* Firmware has regions only, and this one goes on. */
		if (!v->in_kernel && v->region && place->region == v->region)
			return NULL;
	}
	return on_other_site(e, v, id, low);
}

/* ---- control records ---- */

/* Copy a payload out of the ring: @bytes of it, which the caller has checked against the record count. */
static void payload(const struct bp_engine *e, unsigned vcpu, uint64_t pos, void *dst, size_t bytes)
{
	uint8_t *d = dst;

	while (bytes) {
		size_t at = (size_t)(pos & (BP_RING_RECORDS - 1)),
		       n = (BP_RING_RECORDS - at) * sizeof(struct bp_ring_rec);

		if (n > bytes)
			n = bytes;
		memcpy(d, &e->ring[vcpu][at], n);
		d += n;
		bytes -= n;
		pos += n / sizeof(struct bp_ring_rec);
	}
}

static BP_MUST_CHECK struct bp_err *on_switch(struct bp_engine *e, struct vstate *v,
					      const struct bp_ctl_switch *s)
{
	struct ctx *prev = v->ctx, *c;
	bool renewed = false;
	struct bp_err *err;

	if (!s->next)
		return NULL;
	if (!prev->task_ptr && s->prev && !ctx_find(e, s->prev)) {
		/* The first switch of this vCPU tells who has been running since early boot: its idle task.
		 */
		prev->task_ptr = s->prev;
		prev->next = e->ctxs[hash64(s->prev)];
		e->ctxs[hash64(s->prev)] = prev;
	}
	/* Up to the end of the block that switches stacks, everything is the old task's. */
	if (v->end_insns > v->insns)
		v->insns = v->end_insns;
	err = emit(e, v, BP_EV_TICK, 0);
	if (err)
		return err;
	prev->owner = -1;
	c = ctx_find(e, s->next);
	if (!c) {
		err = ctx_create(e, s->next, &c);
		if (err)
			return err;
		renewed = true;
	} else if (s->known && (s->pid != c->pid || (!s->pid && !(c->task_flags & BP_TASK_IDLE)))) {
		ctx_renew(e, c);
		renewed = true;
	}
	if (c->owner >= 0 && e->v[c->owner].ctx == c && c->owner != (int)(v - e->v)) {
		struct vstate *from = &e->v[c->owner];

		e->status.stolen++;
		err = emit(e, from, BP_EV_TICK, 0);
		if (!err)
			err = ctx_create(e, 0, &from->ctx);
		if (err)
			return err;
	}
	if (s->known) {
		if (renewed || (strncmp(c->comm, s->comm, 16) && strncmp(c->comm_before, s->comm, 16))) {
			renewed = true;
			memcpy(c->comm, s->comm, 16);
		}
		c->pid = s->pid;
		c->tgid = s->tgid;
		c->task_flags = (s->flags & PF_KTHREAD ? BP_TASK_KERNEL : 0) | (s->pid ? 0 : BP_TASK_IDLE);
		if (s->mm)
			c->mm = mm_get(e, s->mm);
	}
	c->owner = (int)(v - e->v);
	c->resuming = true;
	v->ctx = c;
	return renewed ? task_fact(e, v, c) : NULL;
}

static BP_MUST_CHECK struct bp_err *on_exec(struct bp_engine *e, struct vstate *v, uint64_t mm,
					    const char *path)
{
	const char *base = strrchr(path, '/');
	struct ctx *c = v->ctx;
	uint32_t old = c->id, n = c->n - c->n_user;
	struct bp_err *err = emit(e, v, BP_EV_TICK, 0);

	if (err)
		return err;
	/*
	 * The same thread of execution under a new name: the user functions are gone, the kernel functions of
	 * the execve go on. They are charged to the new program from here on, to the old one until here.
	 */
	end_frames(e, c, 0, c->n_user);
	for (uint32_t i = c->n_user; i < c->n; i++)
		settle(e, c, i);
	if (n)
		memmove(c->frames, c->frames + c->n_user, n * sizeof(*c->frames));
	c->n = n;
	c->n_user = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct frame *f = &c->frames[i];

		f->cpu_ns = f->insns = 0;
		f->fold.from_ns = f->fold.from_insns = 0;
		f->fold.child_ns = f->fold.child_insns = 0;
		f->wall_ns = v->now_ns;
		f->flags |= FRAME_KEEP;
	}
	c->id = e->n_tasks++;
	c->cpu_ns = c->cpu_insns = 0;
	c->block = NO_BLOCK;
	e->run_ctx = NULL;
	c->mm = mm_get(e, mm);
	if (c->mm)
		mm_clear(e, c->mm);
	memcpy(c->comm_before, c->comm, sizeof(c->comm_before));
	/* TASK_COMM_LEN is 16 with the NUL. */
	snprintf(c->comm, sizeof(c->comm), "%.15s", base ? base + 1 : path);
	c->task_flags = 0;
	err = set_exe(c, path);
	if (!err)
		err = task_fact(e, v, c);
	if (!err)
		err = fact(e, v, BP_FACT_TASK_PARENT, "exec", "", c->id, old, 0, 0);
	if (!err && !e->init_seen && c->pid == 1) {
		e->init_seen = true;
		err = mark(e, v, "init-exec", path);
	}
	if (!err && e->opts.until_exec && !strcmp(path, e->opts.until_exec))
		err = bp_engine_ready(e, path, v->now_ns);
	return err;
}

static BP_MUST_CHECK struct bp_err *on_fork(struct bp_engine *e, struct vstate *v,
					    const struct bp_ctl_fork *f)
{
	struct ctx *c = ctx_find(e, f->task);
	struct mm *from = v->ctx->mm, *to;
	struct bp_err *err = NULL;

	if (!c) {
		err = ctx_create(e, f->task, &c);
		if (err)
			return err;
	} else if (c->pid != f->pid) {
		ctx_renew(e, c);
	}
	c->pid = f->pid;
	c->tgid = f->tgid;
	memcpy(c->comm, v->ctx->comm, sizeof(c->comm));
	c->task_flags = f->mm ? 0 : BP_TASK_KERNEL;
	err = set_exe(c, v->ctx->exe);
	if (err)
		return err;
	to = mm_get(e, f->mm);
	c->mm = to;
	if (to && from && to != from) {
		mm_clear(e, to);
		for (size_t i = 0; !err && i < from->n_maps; i++)
			err = mm_add(e, to, from->maps[i].start, from->maps[i].end, from->maps[i].pgoff,
				     from->maps[i].path);
	}
	if (!err)
		err = task_fact(e, v, c);
	if (!err)
		err = fact(e, v, BP_FACT_TASK_PARENT, "fork", "", c->id, v->ctx->id, 0, 0);
	return err;
}

static void module_destroy(struct module *m)
{
	for (size_t i = 0; i < m->n_syms; i++)
		free(m->syms[i].name);
	free(m->syms);
	free(m);
}

static int cmp_msym(const void *a, const void *b)
{
	const struct msym *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Sites in a module's range get their function anew. */
static void forget_sites(struct bp_engine *e, uint64_t base, uint64_t size)
{
	for (uint64_t id = BP_CTL_N; id < e->cap_places; id++)
		if (e->sites[id - BP_CTL_N].pc - base < size)
			e->places[id].func = 0;
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return b - a < a_size || a - b < b_size;
}

static BP_MUST_CHECK struct bp_err *on_module(struct bp_engine *e, struct vstate *v, struct bp_ctl_module *m,
					      const char *syms)
{
	struct module *mod = calloc(1, sizeof(*mod));
	size_t at = 0, cap = 0;
	struct bp_err *err;

	if (!mod)
		return bp_err_nomem();
	m->name[sizeof(m->name) - 1] = '\0';
	memcpy(mod->name, m->name, sizeof(mod->name));
	mod->base = m->base;
	mod->size = m->size;
	mod->init_base = m->init_base;
	mod->init_size = m->init_size;
	while (at + 9 <= m->syms_len) {
		size_t len = strnlen(syms + at + 8, m->syms_len - at - 8);
		struct msym *s;

		err = grow((void **)&mod->syms, &cap, mod->n_syms + 1, sizeof(*mod->syms));
		if (err) {
			module_destroy(mod);
			return err;
		}
		s = &mod->syms[mod->n_syms];
		memcpy(&s->addr, syms + at, 8);
		s->name = strndup(syms + at + 8, len);
		if (!s->name) {
			module_destroy(mod);
			return bp_err_nomem();
		}
		mod->n_syms++;
		at += 8 + len + 1;
	}
	if (mod->n_syms)
		qsort(mod->syms, mod->n_syms, sizeof(*mod->syms), cmp_msym);
	/* What was at its place is gone, whether that was seen or not. */
	for (struct module **p = &e->modules; *p;) {
		struct module *old = *p;

		if (!overlap(old->base, old->size, mod->base, mod->size)) {
			p = &old->next;
			continue;
		}
		*p = old->next;
		forget_sites(e, old->base, old->size);
		module_destroy(old);
	}
	mod->next = e->modules;
	e->modules = mod;
	forget_sites(e, mod->base, mod->size);
	forget_sites(e, mod->init_base, mod->init_size);
	if (v->ctx->n) {
		struct ctx *c = v->ctx;

		memcpy(c->mod_name, m->name, sizeof(c->mod_name));
		c->mod_start_ns = v->now_ns;
		c->mod_start_insns = c->cpu_insns + v->insns - v->ev_insns;
		c->frames[c->n - 1].flags |= FRAME_MODINIT;
	}
	return fact(e, v, BP_FACT_MODULE_LOAD, m->name, "", m->base, m->size, v->ctx->id, m->n_syms);
}

static BP_MUST_CHECK struct bp_err *on_module_free(struct bp_engine *e, struct vstate *v,
						   struct bp_ctl_module *m)
{
	m->name[sizeof(m->name) - 1] = '\0';
	for (struct module **p = &e->modules; *p; p = &(*p)->next) {
		if (!strcmp((*p)->name, m->name) && (*p)->base == m->base) {
			struct module *dead = *p;

			*p = dead->next;
			forget_sites(e, dead->base, dead->size);
			module_destroy(dead);
			break;
		}
	}
	return fact(e, v, BP_FACT_MODULE_UNLOAD, m->name, "", 0, 0, 0, 0);
}

/* Kernel console text; a guest may cut its lines anywhere. */
static BP_MUST_CHECK struct bp_err *on_console(struct bp_engine *e, struct vstate *v, const char *text,
					       size_t len)
{
	struct bp_err *err = NULL;

	for (size_t i = 0; !err && i < len; i++) {
		if (text[i] == '\r' || !text[i])
			continue;
		if (text[i] != '\n' && e->line_len + 1 < sizeof(e->line)) {
			e->line[e->line_len++] = text[i];
			continue;
		}
		e->line[e->line_len] = '\0';
		if (e->line_len) {
			snprintf(e->status.last_line, sizeof(e->status.last_line), "%.159s", e->line);
			if (strstr(e->line, "Kernel panic") && !e->status.panic_text[0])
				snprintf(e->status.panic_text, sizeof(e->status.panic_text), "%.159s",
					 e->line);
			err = fact(e, v, BP_FACT_CONSOLE, e->line, "printk", 0, 0, 0, 0);
			if (!err && e->opts.until_console && !e->status.ready &&
			    e->opts.until_console(e->opts.until_console_self, e->line))
				err = bp_engine_ready(e, e->line, v->now_ns);
		}
		e->line_len = 0;
	}
	return err;
}

static BP_MUST_CHECK struct bp_err *on_mark(struct bp_engine *e, struct vstate *v, uint64_t hook)
{
	const char *name;

	if (hook >= e->shm->n_hooks || hook >= BP_MAX_HOOKS)
		return NULL;
	if ((int)hook == e->opts.until_hook)
		return bp_engine_ready(e, e->opts.until_function ? e->opts.until_function : "function",
				       v->now_ns);
	name = e->opts.mark_names[hook];
	if (!name)
		return NULL;
	if (!strcmp(name, "panic"))
		e->status.panic = true;
	else if (!strcmp(name, "reboot"))
		e->status.reboot = true;
	else if (!strcmp(name, "poweroff"))
		e->status.poweroff = true;
	else if (!strcmp(name, "halt"))
		e->status.halt = true;
	if (e->opts.end_at_poweroff && e->status.poweroff)
		e->limit_ns = v->now_ns;
	return mark(e, v, name, "");
}

/* Controls whose order among the vCPUs matters. */
static inline bool is_ordered(uint32_t id)
{
	return id == BP_CTL_SWITCH || (id >= BP_CTL_EXEC && id <= BP_CTL_EXIT) || id == BP_CTL_MARK;
}

static BP_MUST_CHECK struct bp_err *on_ctl(struct bp_engine *e, struct vstate *v, uint32_t id, uint64_t n)
{
	unsigned vcpu = (unsigned)(v - e->v);
	size_t bytes = (size_t)n * sizeof(struct bp_ring_rec);
	uint64_t pos = v->pos + 1, pair[2] = {0, 0};
	bp_autofree char *text = NULL;
	struct bp_err *err = NULL;
	union {
		struct bp_ctl_switch sw;
		struct bp_ctl_exec exec;
		struct bp_ctl_fork fork;
		struct bp_ctl_mmap map;
		struct bp_ctl_module mod;
		uint64_t len;
	} u;

	memset(&u, 0, sizeof(u));
	switch (id) {
	case BP_CTL_SYNC:
		if (n != 1)
			break;
		payload(e, vcpu, pos, pair, sizeof(pair));
		if ((pair[0] > v->ticks << BP_TICK_SHIFT &&
		     pair[0] - (v->ticks << BP_TICK_SHIFT) > MAX_JUMP_TICKS) ||
		    (pair[1] > v->insns && pair[1] - v->insns > MAX_JUMP_INSNS))
			break;
		if (pair[0] >> BP_TICK_SHIFT > v->ticks)
			v->ticks = pair[0] >> BP_TICK_SHIFT;
		if (pair[1] > v->insns)
			v->insns = pair[1];
		return NULL;
	case BP_CTL_PC:
		if (n != 1)
			break;
		payload(e, vcpu, pos, pair, sizeof(pair));
		v->pc = pair[0];
		return NULL;
	case BP_CTL_IDLE:
		if (v->halted)
			return NULL;
		v->halted = true;
		v->halted_since = v->now_ns;
		return push(e, v, BP_EV_CALL, e->func_halted, 0, FRAME_BARRIER);
	case BP_CTL_RESUME:
		if (!v->halted)
			return NULL;
		v->halted = false;
		v->halted_ns += v->now_ns - v->halted_since;
		if (v->ctx->n && v->ctx->frames[v->ctx->n - 1].func == e->func_halted)
			return pop_to(e, v, v->ctx->n - 1);
		return NULL;
	case BP_CTL_SWITCH:
		if (bytes < sizeof(u.sw))
			break;
		payload(e, vcpu, pos, &u.sw, sizeof(u.sw));
		return on_switch(e, v, &u.sw);
	case BP_CTL_FORK:
		if (bytes < sizeof(u.fork))
			break;
		payload(e, vcpu, pos, &u.fork, sizeof(u.fork));
		return on_fork(e, v, &u.fork);
	case BP_CTL_EXIT:
		if (n != 1)
			break;
		payload(e, vcpu, pos, pair, sizeof(pair));
		return fact(e, v, BP_FACT_TASK_END, "", "", v->ctx->id, pair[0], 0, 0);
	case BP_CTL_MARK:
		if (n != 1)
			break;
		payload(e, vcpu, pos, pair, sizeof(pair));
		return on_mark(e, v, pair[0]);
	case BP_CTL_EXEC:
	case BP_CTL_MMAP:
	case BP_CTL_MODULE:
	case BP_CTL_MODULE_FREE:
	case BP_CTL_CONSOLE:
		text = malloc(bytes + 1);
		if (!text)
			return bp_err_nomem();
		payload(e, vcpu, pos, text, bytes);
		text[bytes] = '\0';
		break;
	default:
		break;
	}
	if (text && id == BP_CTL_EXEC && bytes >= sizeof(u.exec)) {
		memcpy(&u.exec, text, sizeof(u.exec));
		return on_exec(e, v, u.exec.mm, text + sizeof(u.exec));
	}
	if (text && id == BP_CTL_MMAP && bytes >= sizeof(u.map)) {
		struct mm *mm;

		memcpy(&u.map, text, sizeof(u.map));
		mm = mm_get(e, u.map.mm);
		if (mm)
			err = mm_add(e, mm, u.map.start, u.map.end, u.map.pgoff, text + sizeof(u.map));
		if (!err)
			err = fact(e, v, BP_FACT_MAP, text + sizeof(u.map), "", u.map.start, u.map.end,
				   u.map.pgoff, v->ctx->id);
		return err;
	}
	if (text && (id == BP_CTL_MODULE || id == BP_CTL_MODULE_FREE) && bytes >= sizeof(u.mod)) {
		memcpy(&u.mod, text, sizeof(u.mod));
		if (u.mod.syms_len > bytes - sizeof(u.mod))
			u.mod.syms_len = 0;
		return id == BP_CTL_MODULE ? on_module(e, v, &u.mod, text + sizeof(u.mod))
					   : on_module_free(e, v, &u.mod);
	}
	if (text && id == BP_CTL_CONSOLE && bytes >= 8) {
		memcpy(&u.len, text, 8);
		if (u.len <= bytes - 8)
			return on_console(e, v, text + 8, u.len);
	}
	return bp_err_new(BP_EDATA, "the plugin sent a record that makes no sense (%u, %llu)", id,
			  (unsigned long long)n);
}

/* ---- folded totals ---- */

/* Write what was added to the totals since the last time. */
static BP_MUST_CHECK struct bp_err *write_folds(struct bp_engine *e)
{
	uint64_t before = bp_trace_writer_bytes(e->writer);
	bp_autofree struct bp_fold *rows = NULL;
	struct bp_err *err;
	size_t n = 0;

	for (struct ctx *c = e->all; c; c = c->next_all)
		for (uint32_t i = 0; i < c->n; i++)
			settle(e, c, i);
	rows = calloc(e->n_funcs, sizeof(*rows));
	if (!rows)
		return bp_err_nomem();
	for (uint32_t i = 0; i < e->n_funcs; i++) {
		const struct fold_row *f = &e->folds[i];

		if (!f->calls && !f->self_ns && !f->self_insns && !f->total_ns && !f->total_insns)
			continue;
		rows[n++] = (struct bp_fold){
		    .func = i,
		    .calls = f->calls,
		    .self_ns = f->self_ns,
		    .self_insns = f->self_insns,
		    .total_ns = f->total_ns,
		    .total_insns = f->total_insns,
		    .min_ns = f->min_ns,
		    .max_ns = f->max_ns,
		};
	}
	if (!n)
		return NULL;
	err = bp_trace_writer_fold(e->writer, rows, n);
	if (err)
		return err;
	memset(e->folds, 0, e->n_funcs * sizeof(*e->folds));
	e->fold_last_ns = e->status.now_ns;
	e->fold_chunk = bp_trace_writer_bytes(e->writer) - before;
	e->fold_bytes += e->fold_chunk;
	return NULL;
}

/* Bring the events up to where the vCPUs are, and write them out. */
static BP_MUST_CHECK struct bp_err *write_events(struct bp_engine *e)
{
	struct bp_err *err = NULL;

	for (unsigned i = 0; i < e->n_vcpus && !err; i++) {
		struct vstate *v = &e->v[i];

		if (v->now_ns > v->ev_ns || v->insns > v->ev_insns)
			err = emit(e, v, BP_EV_TICK, 0);
	}
	return err ? err : flush_block(e);
}

/*
 * The file is as large as it may be: what happens from here on is only added up. What is on the stacks now
 * ends with the events for a reader, so the totals take over from there.
 */
static BP_MUST_CHECK struct bp_err *end_events(struct bp_engine *e)
{
	struct bp_err *err = write_events(e);
	char buf[24];

	if (err)
		return err;
	for (struct ctx *c = e->all; c; c = c->next_all) {
		for (uint32_t i = 0; i < c->n; i++) {
			c->frames[i].fold.from_ns = c->cpu_ns;
			c->frames[i].fold.from_insns = c->cpu_insns;
		}
	}
	e->full = true;
	snprintf(buf, sizeof(buf), "%llu", (unsigned long long)e->status.now_ns);
	return fact(e, NULL, BP_FACT_INFO, "events_end_ns", buf, 0, 0, 0, 0);
}

/* Now and then, so that a kill does not lose all of the totals; less often the more of the room they have
 * taken. */
static BP_MUST_CHECK struct bp_err *fold_now_and_then(struct bp_engine *e)
{
	uint64_t share = e->opts.max_bytes / FOLD_SHARE, pause;
	uint64_t chunk = e->fold_chunk ? e->fold_chunk : (uint64_t)e->n_funcs * FOLD_ROW_BYTES;
	struct bp_err *err;

	if (!e->status.folded_calls && !e->full)
		return NULL;
	if (!e->fold_first_ns)
		e->fold_first_ns = e->fold_last_ns = e->status.now_ns;
	pause =
	    (uint64_t)((double)(e->status.now_ns - e->fold_first_ns) * (double)e->fold_bytes / (double)share);
	if (pause < FOLD_NS)
		pause = FOLD_NS;
	if (e->status.now_ns - e->fold_last_ns < pause ||
	    bp_trace_writer_bytes(e->writer) + 2 * chunk > e->opts.max_bytes)
		return NULL;
	err = e->full ? NULL : write_events(e);
	return err ? err : write_folds(e);
}

/* ---- draining ---- */

static void now_is(struct bp_engine *e, const struct vstate *v)
{
	if (v->now_ns > e->status.now_ns)
		e->status.now_ns = v->now_ns;
}

/*
 * Go through vCPU @i's records up to @head, but stop in front of a control whose order matters.
 * *at_ctl: host ticks of that control plus 1, 0 when the ring is empty.
 */
static BP_MUST_CHECK struct bp_err *run_vcpu(struct bp_engine *e, unsigned i, uint64_t head, bool take_ctl,
					     uint64_t *at_ctl)
{
	struct vstate *v = &e->v[i];
	const struct bp_ring_rec *ring = e->ring[i];
	const uint64_t from = v->pos;
	struct bp_err *err = NULL;

	*at_ctl = 0;
	while (v->pos != head) {
		const struct bp_ring_rec *r = &ring[v->pos & (BP_RING_RECORDS - 1)];
		uint32_t id = (uint32_t)r->a & BP_REC_ID_MASK;
		uint64_t n = 0, insns = v->insns;

		if (unlikely(e->want_full) && !e->full) {
			now_is(e, v);
			err = end_events(e);
			if (err)
				break;
		}
		if (unlikely(id < BP_CTL_N)) {
			n = (uint32_t)r->b;
			if (n >= head - v->pos)
				return bp_err_new(BP_EDATA,
						  "a record of vCPU %u is longer than what was sent", i);
			if (is_ordered(id) && !take_ctl) {
				*at_ctl = full_ticks(v->ticks, r) + 1;
				break;
			}
			take_ctl = false;
		}
		clocks(e, v, r, head);
		if (unlikely(v->now_ns > e->limit_ns)) {
			/* After the ready marker: the vCPU's clocks stay where they were. */
			v->now_ns = e->limit_ns;
			v->insns = insns;
		} else {
			if (likely(id >= BP_CTL_N))
				err = on_site(e, v, id, (uint32_t)r->b);
			else
				err = on_ctl(e, v, id, n);
			if (err)
				break;
		}
		v->pos += 1 + n;
		if (unlikely(!(v->pos & 0xfff)))
			__atomic_store_n(&e->shm->vcpu[i].tail, v->pos, __ATOMIC_RELEASE);
	}
	now_is(e, v);
	e->status.records += v->pos - from;
	__atomic_store_n(&e->shm->vcpu[i].tail, v->pos, __ATOMIC_RELEASE);
	return err;
}

static BP_MUST_CHECK struct bp_err *first_time(struct bp_engine *e)
{
	struct bp_err *err = NULL;

	e->n_vcpus = e->shm->smp_vcpus;
	if (e->n_vcpus > BP_MAX_VCPUS)
		return bp_err_new(BP_EUNSUPPORTED, "more than %u vCPUs", BP_MAX_VCPUS);
	for (unsigned i = 0; i < e->n_vcpus && !err; i++) {
		struct vstate *v = &e->v[i];

		err = ctx_create(e, 0, &v->ctx);
		if (err)
			return err;
		snprintf(v->ctx->comm, sizeof(v->ctx->comm), "swapper/%u", i);
		v->ctx->task_flags = BP_TASK_IDLE | BP_TASK_BOOT;
		v->ctx->owner = (int)i;
		v->ticks = e->shm->first_exec_ticks >> BP_TICK_SHIFT;
		v->now_ns = v->ev_ns = bp_engine_ns(e, e->shm->first_exec_ticks) >> TICK_SHIFT << TICK_SHIFT;
		err = task_fact(e, v, v->ctx);
	}
	if (!err)
		err = mark(e, &e->v[0], "first-instruction", "");
	return err;
}

struct bp_err *bp_engine_drain(struct bp_engine *e, uint64_t *n)
{
	uint64_t head[BP_MAX_VCPUS], ctl[BP_MAX_VCPUS] = {0}, before = e->status.records;
	struct bp_err *err = NULL;

	*n = 0;
	if (!e->n_vcpus) {
		if (!__atomic_load_n(&e->shm->first_exec_ticks, __ATOMIC_ACQUIRE))
			return NULL;
		err = first_time(e);
		if (err)
			return err;
	}
	for (unsigned i = 0; i < e->n_vcpus; i++)
		head[i] = __atomic_load_n(&e->shm->vcpu[i].head, __ATOMIC_ACQUIRE);
	for (unsigned i = 0; i < e->n_vcpus && !err; i++) {
		if (head[i] - e->v[i].pos > BP_RING_RECORDS)
			return bp_err_new(BP_EDATA, "the ring of vCPU %u was overrun", i);
		err = run_vcpu(e, i, head[i], false, &ctl[i]);
	}
	/* Context switches and the like: always the earliest one of all vCPUs next. */
	while (!err) {
		unsigned best = BP_MAX_VCPUS;

		for (unsigned i = 0; i < e->n_vcpus; i++)
			if (ctl[i] && (best == BP_MAX_VCPUS || ctl[i] < ctl[best]))
				best = i;
		if (best == BP_MAX_VCPUS)
			break;
		err = run_vcpu(e, best, head[best], true, &ctl[best]);
	}
	*n = e->status.records - before;
	if (!err && e->n_events &&
	    e->status.now_ns > e->block_ns + (e->fold_below_ns ? 5 * BLOCK_NS : BLOCK_NS))
		err = flush_block(e);
	if (!err && e->opts.max_bytes)
		err = fold_now_and_then(e);
	return err;
}

struct bp_err *bp_engine_finish(struct bp_engine *e, uint64_t end_ns)
{
	struct bp_err *err = NULL;

	for (unsigned i = 0; i < e->n_vcpus && !err; i++) {
		struct vstate *v = &e->v[i];

		if (v->halted) {
			/* Halted when everything ended: that is time, too. */
			uint64_t end = (end_ns < e->limit_ns ? end_ns : e->limit_ns) >> TICK_SHIFT
											    << TICK_SHIFT;

			if (end > v->now_ns)
				v->now_ns = end;
			v->halted_ns += v->now_ns - v->halted_since;
			err = emit(e, v, BP_EV_TICK, 0);
		} else if (v->now_ns > v->ev_ns || v->insns > v->ev_insns) {
			err = emit(e, v, BP_EV_TICK, 0);
		}
		if (!err)
			err = fact(e, v, BP_FACT_VCPU, "", "", v->insns, v->halted_ns, v->events, 0);
		e->status.lost += e->shm->vcpu[i].lost;
	}
	if (!err)
		err = flush_block(e);
	for (struct ctx *c = e->all; c; c = c->next_all)
		end_frames(e, c, 0, c->n);
	if (!err)
		err = write_folds(e);
	return err;
}

const struct bp_engine_status *bp_engine_status(struct bp_engine *e)
{
	e->status.insns = all_insns(e);
	e->status.events = 0;
	for (unsigned i = 0; i < e->n_vcpus; i++)
		e->status.events += e->v[i].events;
	return &e->status;
}

struct bp_err *bp_engine_create(struct bp_ring_shm *shm, struct bp_trace_writer *writer,
				const struct bp_names *names, const struct bp_engine_options *opts,
				struct bp_engine **ret)
{
	struct bp_engine *e = calloc(1, sizeof(*e));
	uint8_t *base = (uint8_t *)shm;
	struct bp_err *err;

	if (!e)
		return bp_err_nomem();
	e->shm = shm;
	e->sites = (struct bp_site *)(void *)(base + bp_shm_sites_offset());
	for (unsigned i = 0; i < BP_MAX_VCPUS; i++)
		e->ring[i] = (const struct bp_ring_rec *)(const void *)(base + bp_shm_ring_offset(i));
	e->writer = writer;
	e->names = *names;
	e->opts = *opts;
	e->limit_ns = UINT64_MAX;
	e->block_events = BP_BLOCK_EVENTS;
	/* Small blocks for a small bound: one is about 4 bytes an event. */
	if (opts->max_bytes && opts->max_bytes / 64 / 4 < e->block_events)
		e->block_events = opts->max_bytes / 64 / 4 > 4096 ? opts->max_bytes / 64 / 4 : 4096;
	e->initcall_level = -1;
	e->status.phase = "qemu-start";
	e->events = malloc(BP_BLOCK_EVENTS * sizeof(*e->events));
	if (!e->events) {
		free(e);
		return bp_err_nomem();
	}
	err = func_id(e, BP_SPACE_PSEUDO, 0, 0, "[unknown]", "", 0, &e->func_unknown);
	if (!err)
		err = func_id(e, BP_SPACE_PSEUDO, 1, 1, "[halted]", "", FUNC_HALTED, &e->func_halted);
	if (!err)
		err = func_id(e, BP_SPACE_PSEUDO, 2, 2, "[user]", "", FUNC_USER_ROOT, &e->func_user);
	if (!err)
		err = bp_engine_mark(e, "qemu-start", "", 0);
	if (err) {
		bp_engine_destroy(e);
		return err;
	}
	*ret = e;
	return NULL;
}

static void ctx_destroy(struct ctx *c)
{
	free(c->frames);
	free(c->exe);
	free(c);
}

void bp_engine_destroy(struct bp_engine *e)
{
	if (!e)
		return;
	for (struct ctx *c = e->all, *next; c; c = next) {
		next = c->next_all;
		ctx_destroy(c);
	}
	for (unsigned i = 0; i < HASH_SIZE; i++) {
		for (struct mm *m = e->mms[i], *next; m; m = next) {
			next = m->next;
			mm_clear(e, m);
			free(m);
		}
		for (struct named *n = e->named[i], *next; n; n = next) {
			next = n->next;
			free(n->module);
			free(n);
		}
	}
	for (struct module *m = e->modules, *next; m; m = next) {
		next = m->next;
		module_destroy(m);
	}
	free(e->funcs);
	free(e->folds);
	free(e->places);
	free(e->events);
	free(e->runs);
	free(e->bframes);
	free(e);
}
