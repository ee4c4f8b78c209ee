// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/walk.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"

#define MAX_HELPERS 3
#define MAX_SLOTS (MAX_HELPERS + 2)
#define FIRST_CAP 64
/* So many tasks keep what their stacks have once been. */
#define FULL_STACKS 64

/* The ground and BP_MAX_DEPTH functions. */
#define MAX_CAP (BP_MAX_DEPTH + 1)

/* A decoded block, or the place for one. */
struct slot {
	struct bp_decoder *decoder;
	struct bp_block block;
	struct bp_err *err;
	size_t holds; /* position in order[] that is decoded here, SIZE_MAX: none yet */
};

struct bp_walk_private {
	uint32_t *identity; /* row_of when the caller gave none */
	size_t *order;      /* blocks to read */
	size_t n_order;
	size_t next;         /* position in order[] of the next block to walk */
	size_t last_block;   /* block walked before, SIZE_MAX: none */
	bool gap;            /* the block before could not be read */
	uint32_t generation; /* counts gaps: stacks of an older generation are not to be trusted */
	char *damage_text;

	/* task id -> task, open addressing */
	struct bp_walk_task **hash;
	size_t hash_size;

	/* helpers */
	struct slot slots[MAX_SLOTS];
	size_t n_slots;
	pthread_t helpers[MAX_HELPERS];
	size_t n_helpers;
	pthread_mutex_t lock;
	pthread_cond_t decoded, freed;
	size_t next_decode; /* next position to be decoded */
	size_t done;        /* positions before this one are walked */
	bool quit;
};

/* ---- decoding ahead ---- */

static void decode(const struct bp_walk *w, struct slot *s, size_t pos)
{
	s->err = bp_decoder_read(s->decoder, w->trace, w->priv->order[pos], &s->block);
}

static void *helper_main(void *arg)
{
	struct bp_walk *w = arg;
	struct bp_walk_private *p = w->priv;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct slot *s;
		size_t pos;

		while (!p->quit && p->next_decode < p->n_order && p->next_decode - p->done >= p->n_slots)
			pthread_cond_wait(&p->freed, &p->lock);
		if (p->quit || p->next_decode >= p->n_order)
			break;
		pos = p->next_decode++;
		s = &p->slots[pos % p->n_slots];
		pthread_mutex_unlock(&p->lock);
		decode(w, s, pos);
		pthread_mutex_lock(&p->lock);
		s->holds = pos;
		pthread_cond_signal(&p->decoded);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void stop_helpers(struct bp_walk_private *p)
{
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	pthread_cond_broadcast(&p->freed);
	pthread_mutex_unlock(&p->lock);
	for (size_t i = 0; i < p->n_helpers; i++)
		pthread_join(p->helpers[i], NULL);
	p->n_helpers = 0;
}

/* Helpers that cannot be started are done without. */
static void start_helpers(struct bp_walk *w)
{
	struct bp_walk_private *p = w->priv;
	size_t want;

	if (w->opt.threads < 0) {
		want = 0;
	} else if (w->opt.threads > 0) {
		want = (size_t)w->opt.threads;
	} else {
		long n = sysconf(_SC_NPROCESSORS_ONLN);

		want = n > 1 ? (size_t)n - 1 : 0;
	}
	if (want > MAX_HELPERS)
		want = MAX_HELPERS;
	if (want >= p->n_order)
		want = p->n_order ? p->n_order - 1 : 0;
	if (want > p->n_slots - 1)
		want = p->n_slots - 1;
	while (p->n_helpers < want) {
		if (pthread_create(&p->helpers[p->n_helpers], NULL, helper_main, w))
			break;
		p->n_helpers++;
	}
}

/* The slot with position @pos of order[], decoded. */
static struct slot *wait_for(struct bp_walk *w, size_t pos)
{
	struct bp_walk_private *p = w->priv;
	struct slot *s = &p->slots[pos % p->n_slots];

	if (!p->n_helpers) {
		decode(w, s, pos);
		s->holds = pos;
		return s;
	}
	pthread_mutex_lock(&p->lock);
	while (s->holds != pos)
		pthread_cond_wait(&p->decoded, &p->lock);
	pthread_mutex_unlock(&p->lock);
	return s;
}

static void release(struct bp_walk_private *p, size_t pos)
{
	if (!p->n_helpers)
		return;
	pthread_mutex_lock(&p->lock);
	p->done = pos + 1;
	pthread_cond_signal(&p->freed);
	pthread_mutex_unlock(&p->lock);
}

/* Numbers that the inline loop relies on and that a reader of the file cannot know to be wrong. */
static bool block_usable(const struct bp_block *b)
{
	if (!b->n_events || b->events[0].kind != BP_EV_RUN)
		return false;
	for (size_t i = 0; i < b->n_runs; i++) {
		if (b->runs[i].vcpu >= BP_WALK_VCPUS)
			return false;
	}
	return true;
}

struct bp_err *bp_walk_next_block(struct bp_walk *w, struct bp_block *block, bool *more)
{
	struct bp_walk_private *p = w->priv;

	if (p->next)
		release(p, p->next - 1);
	else
		start_helpers(w);
	*more = false;
	if (w->opt.cancel && atomic_load_explicit(w->opt.cancel, memory_order_relaxed))
		w->stop = true;
	while (p->next < p->n_order && !w->stop) {
		size_t index = p->order[p->next];
		struct slot *s = wait_for(w, p->next);
		bool gap = p->gap || bp_trace_block_gap(w->trace, index) ||
			   (p->last_block != SIZE_MAX && p->last_block + 1 != index);
		uint64_t first, last;

		p->next++;
		if (s->err || !block_usable(&s->block)) {
			struct bp_err *err = s->err;

			s->err = NULL;
			if (err && bp_err_code(err) == BP_ENOMEM)
				return err;
			if (!p->damage_text)
				p->damage_text = strdup(err ? bp_err_text(err) : "a block makes no sense");
			bp_err_ignore(err);
			w->stats.damaged_blocks++;
			p->gap = true;
			release(p, p->next - 1);
			continue;
		}
		if (gap) {
			p->generation++;
			w->stats.gaps += p->last_block != SIZE_MAX || w->stats.damaged_blocks;
		}
		p->gap = false;
		p->last_block = index;
		w->stats.blocks++;
		w->stats.events += s->block.n_events;
		bp_trace_block_range(w->trace, index, &first, &last);
		if (w->stats.blocks == 1 || first < w->stats.first_ns)
			w->stats.first_ns = first;
		if (last > w->stats.last_ns)
			w->stats.last_ns = last;
		*block = s->block;
		*more = true;
		return NULL;
	}
	return NULL;
}

/* ---- tasks and their stacks ---- */

static void task_destroy(struct bp_walk_task *t)
{
	if (t) {
		free(t->stack);
		free(t);
	}
}

static struct bp_err *stack_reserve(struct bp_walk_task *t, size_t frames)
{
	struct bp_walk_frame *stack;
	size_t cap = t->cap ? t->cap : FIRST_CAP;

	while (cap < frames + 1)
		cap *= 2;
	if (cap > MAX_CAP)
		cap = MAX_CAP;
	if (cap <= t->cap)
		return NULL;
	stack = realloc(t->stack, cap * sizeof(*stack));
	if (!stack)
		return bp_err_nomem();
	t->stack = stack;
	t->cap = (uint32_t)cap;
	return NULL;
}

/* A recording has any number of tasks; most of them have ended, with a few functions left on their stacks. */
static void stack_trim(struct bp_walk_task *t)
{
	struct bp_walk_frame *stack;

	if (t->cap <= t->depth + 1)
		return;
	/* Not by realloc(): that leaves holes too small for the next stack. */
	stack = malloc((t->depth + 1) * sizeof(*stack));
	if (!stack)
		return;
	memcpy(stack, t->stack, (t->depth + 1) * sizeof(*stack));
	free(t->stack);
	t->stack = stack;
	t->cap = t->depth + 1;
}

struct bp_err *bp_walk_grow(struct bp_walk *w, struct bp_walk_task *task)
{
	if (task->cap >= MAX_CAP) {
		w->stats.overflows++;
		return NULL;
	}
	return stack_reserve(task, task->cap);
}

static struct bp_err *hash_grow(struct bp_walk *w)
{
	struct bp_walk_private *p = w->priv;
	size_t size = p->hash_size ? p->hash_size * 2 : 256;
	struct bp_walk_task **hash = calloc(size, sizeof(struct bp_walk_task *));
	struct bp_walk_task **tasks = realloc(w->tasks, size / 2 * sizeof(struct bp_walk_task *));

	if (tasks)
		w->tasks = tasks;
	if (!hash || !tasks) {
		free(hash);
		return bp_err_nomem();
	}
	for (size_t i = 0; i < w->n_tasks; i++) {
		size_t h = w->tasks[i]->id * 2654435761u & (size - 1);

		while (hash[h])
			h = (h + 1) & (size - 1);
		hash[h] = w->tasks[i];
	}
	free(p->hash);
	p->hash = hash;
	p->hash_size = size;
	return NULL;
}

static struct bp_err *task_get(struct bp_walk *w, uint32_t id, uint32_t vcpu, struct bp_walk_task **ret)
{
	struct bp_walk_private *p = w->priv;
	struct bp_walk_task *t;
	struct bp_err *err;
	size_t h;

	if (w->n_tasks >= p->hash_size / 2) {
		err = hash_grow(w);
		if (err)
			return err;
	}
	for (h = id * 2654435761u & (p->hash_size - 1); p->hash[h]; h = (h + 1) & (p->hash_size - 1)) {
		if (p->hash[h]->id == id) {
			*ret = p->hash[h];
			return NULL;
		}
	}
	/* One of those that came long before it; should that one run again, its stack grows again. */
	if (w->n_tasks >= FULL_STACKS)
		stack_trim(w->tasks[w->n_tasks - FULL_STACKS]);
	t = calloc(1, sizeof(*t));
	if (!t)
		return bp_err_nomem();
	err = stack_reserve(t, FIRST_CAP - 1);
	if (err) {
		free(t);
		return err;
	}
	memset(&t->stack[0], 0, sizeof(t->stack[0]));
	t->stack[0].func = BP_WALK_NO_FUNC;
	t->stack[0].row = BP_WALK_NO_FUNC;
	t->stack[0].syscall = BP_WALK_NO_SYSCALL;
	t->id = id;
	t->index = (uint32_t)w->n_tasks;
	t->vcpu = vcpu;
	t->pending = BP_WALK_NO_SYSCALL;
	t->generation = p->generation;
	t->skip = w->opt.task_ok && !w->opt.task_ok(w->opt.arg, id);
	w->tasks[w->n_tasks++] = t;
	p->hash[h] = t;
	*ret = t;
	return NULL;
}

static struct bp_err *vcpu_get(struct bp_walk *w, uint32_t vcpu)
{
	struct bp_walk_vcpu *v;

	if (vcpu < w->n_vcpus)
		return NULL;
	v = realloc(w->vcpus, (vcpu + 1) * sizeof(*v));
	if (!v)
		return bp_err_nomem();
	memset(v + w->n_vcpus, 0, (vcpu + 1 - w->n_vcpus) * sizeof(*v));
	w->vcpus = v;
	w->n_vcpus = vcpu + 1;
	return NULL;
}

/* ---- frames of filtered walks ---- */

static bool frame_muted(const struct bp_walk *w, const struct bp_walk_frame *f)
{
	return (f->flags & BP_FRAME_OUT) || (w->opt.has_in && !(f->flags & BP_FRAME_IN));
}

/* Flags that follow from the function filters and from what is below @f on the stack. */
static void filter_frame(const struct bp_walk *w, struct bp_walk_frame *f)
{
	uint8_t match = w->opt.match ? w->opt.match[f->row] : 0;

	f->flags = (uint8_t)((f->flags & BP_FRAME_CUT) | (f[-1].flags & (BP_FRAME_IN | BP_FRAME_OUT)));
	if (match & BP_MATCH_IN)
		f->flags |= BP_FRAME_IN;
	if (match & BP_MATCH_OUT)
		f->flags |= BP_FRAME_OUT;
	f->shown_depth = f[-1].shown_depth;
	if (!w->opt.has_in || (f->flags & BP_FRAME_IN))
		f->shown_depth++;
	if (w->opt.max_depth && f->shown_depth > w->opt.max_depth)
		f->flags |= BP_FRAME_OUT;
}

/* The task is visible now: tells of all frames whose entry was hidden. */
static void show_frames(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
			const struct bp_walk_now *now, uint32_t depth)
{
	struct bp_walk_task *t = now->task;

	for (uint32_t i = 1; i <= depth; i++) {
		struct bp_walk_frame *f = &t->stack[i];

		if ((f->flags & BP_FRAME_SHOWN) || frame_muted(w, f))
			continue;
		f->flags |= BP_FRAME_SHOWN | BP_FRAME_CUT;
		/* It may have slept since the time filter began. */
		f->wall_ns = w->opt.from_ns && !w->opt.vcpus ? w->opt.from_ns : now->wall_ns;
		f->cpu_ns = now->cpu_ns;
		f->insns = now->insns;
		if (ops->on_resume)
			ops->on_resume(ctx, f, now);
	}
}

/* Leave stack[depth] .. stack[keep + 1]. */
static void leave_frames(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
			 const struct bp_walk_now *now, uint32_t depth, uint32_t keep, enum bp_walk_leave how)
{
	struct bp_walk_task *t = now->task;

	for (; depth > keep; depth--) {
		struct bp_walk_frame *f = &t->stack[depth];

		if (!w->filtered || (f->flags & BP_FRAME_SHOWN)) {
			if (ops->on_leave)
				ops->on_leave(ctx, f, now, how);
		} else {
			f[-1].self_ns += f->self_ns;
			f[-1].self_insns += f->self_insns;
		}
	}
}

uint32_t bp_walk_lost(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
		      const struct bp_walk_now *now, uint32_t depth, uint64_t records)
{
	w->stats.lost_records += records;
	leave_frames(w, ops, ctx, now, depth, 0, BP_LEAVE_LOST);
	now->task->over = 0;
	now->task->pending = BP_WALK_NO_SYSCALL;
	if (ops->on_lost)
		ops->on_lost(ctx, records, now);
	return 0;
}

static bool clocks_near(uint64_t a, uint64_t b)
{
	/* Times are rounded to at most 1024 ns when stored. */
	return (a > b ? a - b : b - a) <= 2048;
}

/*
 * Make the stack of @t what the block says. Frames that are the same call stay open; calls that ended in
 * the gap are left at the task's last known clocks; calls that began in it are resumed.
 */
static struct bp_err *resync(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
			     const struct bp_frame *frames, uint32_t n, const struct bp_walk_now *now,
			     uint32_t old_vcpu)
{
	struct bp_walk_task *t = now->task;
	struct bp_walk_now before = *now;
	uint32_t same = 0;
	struct bp_err *err;

	before.wall_ns = t->wall_ns;
	before.cpu_ns = t->cpu_ns - t->hid_ns;
	before.insns = t->insns - t->hid_insns;
	before.vcpu = old_vcpu;
	while (same < n && same < t->depth && t->stack[same + 1].func == frames[same].func &&
	       (w->filtered || clocks_near(t->stack[same + 1].wall_ns, frames[same].wall_ns)))
		same++;
	leave_frames(w, ops, ctx, &before, t->depth, same, BP_LEAVE_LOST);
	t->depth = same;
	t->over = 0;
	t->pending = BP_WALK_NO_SYSCALL;
	if (n > BP_MAX_DEPTH) {
		t->over = n - BP_MAX_DEPTH;
		n = BP_MAX_DEPTH;
	}
	err = stack_reserve(t, n);
	if (err)
		return err;
	while (t->depth < n) {
		const struct bp_frame *from = &frames[t->depth];
		struct bp_walk_frame *f = &t->stack[++t->depth];

		memset(f, 0, sizeof(*f));
		f->func = from->func;
		f->row = w->row_of[from->func];
		f->syscall = BP_WALK_NO_SYSCALL;
		f->kind = from->kind;
		f->flags = BP_FRAME_CUT;
		f->wall_ns = from->wall_ns < now->wall_ns ? from->wall_ns : now->wall_ns;
		f->cpu_ns = from->cpu_ns < now->cpu_ns ? from->cpu_ns : now->cpu_ns;
		f->insns = from->insns < now->insns ? from->insns : now->insns;
		if (w->filtered)
			filter_frame(w, f);
		else if (ops->on_resume)
			ops->on_resume(ctx, f, now);
	}
	return NULL;
}

static bool stack_agrees(const struct bp_walk_task *t, const struct bp_frame *frames, uint32_t n)
{
	if (t->depth + t->over != n)
		return false;
	for (uint32_t i = 0; i < t->depth; i++) {
		if (t->stack[i + 1].func != frames[i].func)
			return false;
	}
	return true;
}

/* A task's clocks must not run backwards, or totals would be huge: entries in the future are moved to now. */
static void clamp_entries(struct bp_walk_task *t, const struct bp_walk_now *now)
{
	for (uint32_t i = 1; i <= t->depth; i++) {
		struct bp_walk_frame *f = &t->stack[i];

		if (f->wall_ns > now->wall_ns)
			f->wall_ns = now->wall_ns;
		if (f->cpu_ns > now->cpu_ns)
			f->cpu_ns = now->cpu_ns;
		if (f->insns > now->insns)
			f->insns = now->insns;
	}
}

struct bp_err *bp_walk_begin_run(struct bp_walk *w, const struct bp_block *block, const struct bp_run *run,
				 const struct bp_walk_ops *ops, void *ctx, struct bp_walk_now *now)
{
	struct bp_walk_private *p = w->priv;
	struct bp_walk_task *t = NULL;
	uint32_t old_vcpu;
	bool stale;
	struct bp_err *err;

	err = task_get(w, run->task, run->vcpu, &t);
	if (!err)
		err = vcpu_get(w, run->vcpu);
	if (err)
		return err;
	*now = (struct bp_walk_now){
	    .walk = w,
	    .task = t,
	    .vcpu = run->vcpu,
	    .wall_ns = run->time_ns,
	    .cpu_ns = run->cpu_ns - t->hid_ns,
	    .insns = run->cpu_insns - t->hid_insns,
	    .vcpu_insns = run->insns,
	};
	if (t->skip)
		return NULL;
	if (run->time_ns < t->wall_ns || run->cpu_ns < t->cpu_ns || run->cpu_insns < t->insns)
		clamp_entries(t, now);
	old_vcpu = t->vcpu;
	if (!w->filtered) {
		if (ops->on_run)
			ops->on_run(ctx, now);
		t->vcpu = run->vcpu;
	}
	stale = t->generation != p->generation;
	t->generation = p->generation;
	if (run->n_frames != BP_RUN_NO_STACK) {
		const struct bp_frame *frames = run->n_frames ? block->frames + run->first_frame : NULL;

		if (stale || !stack_agrees(t, frames, run->n_frames)) {
			/* The first run of a task may well have functions on its stack already. */
			w->stats.resyncs += !stale && t->depth + t->over;
			return resync(w, ops, ctx, frames, run->n_frames, now, old_vcpu);
		}
	} else if (stale) {
		return resync(w, ops, ctx, NULL, 0, now, old_vcpu);
	}
	return NULL;
}

void bp_walk_end_run(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
		     const struct bp_walk_now *now, uint32_t depth)
{
	struct bp_walk_task *t = now->task;
	struct bp_walk_vcpu *v = &w->vcpus[now->vcpu];

	t->depth = depth;
	t->wall_ns = now->wall_ns;
	t->cpu_ns = now->cpu_ns + t->hid_ns;
	t->insns = now->insns + t->hid_insns;
	v->wall_ns = now->wall_ns;
	v->insns = now->vcpu_insns;
	v->seen = true;
	if (!w->filtered && ops->on_run_end)
		ops->on_run_end(ctx, now);
}

/* ---- filtered runs ---- */

struct slow {
	struct bp_walk *w;
	const struct bp_walk_ops *ops;
	void *ctx;
	struct bp_walk_now *now;
	uint32_t depth;
	bool vcpu_ok;
	bool in_run; /* on_run was called */
};

/* From here on the task can be seen, if it could not before. */
static void become_visible(struct slow *s)
{
	if (s->in_run)
		return;
	s->in_run = true;
	if (!s->now->task->seen)
		s->now->task->vcpu = s->now->vcpu;
	s->now->task->seen = true;
	if (s->ops->on_run)
		s->ops->on_run(s->ctx, s->now);
	s->now->task->vcpu = s->now->vcpu;
	show_frames(s->w, s->ops, s->ctx, s->now, s->depth);
}

/* What of [start, start + dt] is in the time filter; *@lead: how much of it is before the filter. */
static uint64_t visible_part(const struct bp_walk_options *opt, uint64_t start, uint64_t dt, uint64_t *lead)
{
	uint64_t a = start, b = start + dt;

	if (a < opt->from_ns)
		a = b < opt->from_ns ? b : opt->from_ns;
	*lead = a - start;
	if (opt->to_ns && b > opt->to_ns)
		b = a > opt->to_ns ? a : opt->to_ns;
	return b - a;
}

static uint64_t scale(uint64_t n, uint64_t part, uint64_t whole)
{
	return whole ? (uint64_t)((double)n * ((double)part / (double)whole)) : 0;
}

/* Let the time of an event pass. Returns false when the end of the time filter is behind us. */
static bool pass_time(struct slow *s, uint64_t dt, uint64_t di)
{
	const struct bp_walk_options *opt = &s->w->opt;
	struct bp_walk_now *now = s->now;
	struct bp_walk_task *t = now->task;
	struct bp_walk_frame *top = &t->stack[s->depth];
	uint64_t lead = dt, seen = s->vcpu_ok ? visible_part(opt, now->wall_ns, dt, &lead) : 0;
	uint64_t lead_insns, seen_insns;
	bool at_end;

	if (!dt) {
		bool inside =
		    s->vcpu_ok && now->wall_ns >= opt->from_ns && (!opt->to_ns || now->wall_ns <= opt->to_ns);

		lead_insns = inside ? 0 : di;
		seen_insns = di - lead_insns;
	} else {
		/* Instructions are divided as time is, and none gets lost. */
		lead_insns = lead ? scale(di, lead, dt) : 0;
		seen_insns = (lead + seen == dt ? di : scale(di, lead + seen, dt)) - lead_insns;
	}
	at_end = s->vcpu_ok && opt->to_ns && now->wall_ns + dt > opt->to_ns;

	/* what is hidden before the filter */
	now->wall_ns += lead;
	now->vcpu_insns += lead_insns;
	t->hid_ns += lead;
	t->hid_insns += lead_insns;
	if (!s->vcpu_ok)
		return true;
	if (now->wall_ns < opt->from_ns)
		return true;
	if (!at_end || seen)
		become_visible(s);
	now->wall_ns += seen;
	now->cpu_ns += seen;
	now->insns += seen_insns;
	now->vcpu_insns += seen_insns;
	top->self_ns += seen;
	top->self_insns += seen_insns;
	if (s->in_run && s->ops->on_time)
		s->ops->on_time(s->ctx, top, now, seen, seen_insns);
	return !at_end;
}

static struct bp_err *slow_push(struct slow *s, const struct bp_event *ev)
{
	struct bp_walk_task *t = s->now->task;
	struct bp_walk_frame *f;

	if (s->depth + 1 >= t->cap) {
		struct bp_err *err;

		t->depth = s->depth;
		err = bp_walk_grow(s->w, t);
		if (err)
			return err;
		if (s->depth + 1 >= t->cap) {
			t->over++;
			t->pending = BP_WALK_NO_SYSCALL;
			return NULL;
		}
	}
	f = &t->stack[++s->depth];
	*f = (struct bp_walk_frame){
	    .func = ev->arg,
	    .row = s->w->row_of[ev->arg],
	    .syscall = t->pending,
	    .kind = (uint8_t)ev->kind,
	    .wall_ns = s->now->wall_ns,
	    .cpu_ns = s->now->cpu_ns,
	    .insns = s->now->insns,
	};
	t->pending = BP_WALK_NO_SYSCALL;
	filter_frame(s->w, f);
	if (s->in_run && !frame_muted(s->w, f)) {
		f->flags |= BP_FRAME_SHOWN;
		if (s->ops->on_enter)
			s->ops->on_enter(s->ctx, f, s->now);
	}
	return NULL;
}

static void slow_pop(struct slow *s, uint32_t n)
{
	struct bp_walk_task *t = s->now->task;
	uint32_t k = n < t->over ? n : t->over;

	t->over -= k;
	n -= k;
	if (n > s->depth)
		n = s->depth;
	leave_frames(s->w, s->ops, s->ctx, s->now, s->depth, s->depth - n, BP_LEAVE_RET);
	s->depth -= n;
}

struct bp_err *bp_walk_slow_run(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx,
				struct bp_walk_now *now, const struct bp_event **pos,
				const struct bp_event *end)
{
	struct bp_walk_task *t = now->task;
	struct slow s = {.w = w, .ops = ops, .ctx = ctx, .now = now, .depth = t->depth};
	const struct bp_event *ev = *pos;

	s.vcpu_ok = !w->opt.vcpus || (w->opt.vcpus[now->vcpu / 64] >> (now->vcpu % 64) & 1);
	for (; ev != end && ev->kind != BP_EV_RUN; ev++) {
		struct bp_err *err;

		if (!pass_time(&s, ev->dt, ev->di)) {
			struct bp_walk_now last = *now;

			/* The filter ended: for this task nothing more is told. */
			if (last.wall_ns > w->opt.to_ns) {
				/* it slept when the filter ended */
				last.wall_ns = w->opt.to_ns;
			}
			leave_frames(w, ops, ctx, &last, s.depth, 0, BP_LEAVE_END);
			s.depth = 0;
			t->skip = true;
			while (ev != end && ev->kind != BP_EV_RUN)
				ev++;
			break;
		}
		switch (ev->kind) {
		case BP_EV_CALL:
		case BP_EV_JUMP:
		case BP_EV_IRQ:
			err = slow_push(&s, ev);
			if (err)
				return err;
			break;
		case BP_EV_RET:
			slow_pop(&s, ev->arg);
			break;
		case BP_EV_SYSCALL:
			t->pending = ev->arg;
			if (s.in_run && ops->on_syscall && !frame_muted(w, &t->stack[s.depth]))
				ops->on_syscall(ctx, ev->arg, now);
			break;
		case BP_EV_LOST:
			s.depth = bp_walk_lost(w, ops, ctx, now, s.depth, ev->arg);
			break;
		default:
			break;
		}
	}
	*pos = ev;
	t->depth = s.depth;
	if (s.in_run && ops->on_run_end)
		ops->on_run_end(ctx, now);
	return NULL;
}

/* ---- the ends ---- */

void bp_walk_finish(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx)
{
	stop_helpers(w->priv);
	for (size_t i = 0; i < w->n_tasks; i++) {
		struct bp_walk_task *t = w->tasks[i];
		struct bp_walk_now now = {
		    .walk = w,
		    .task = t,
		    .vcpu = t->vcpu,
		    .wall_ns = t->wall_ns,
		    .cpu_ns = t->cpu_ns - t->hid_ns,
		    .insns = t->insns - t->hid_insns,
		    .vcpu_insns = t->vcpu < w->n_vcpus ? w->vcpus[t->vcpu].insns : 0,
		};

		leave_frames(w, ops, ctx, &now, t->depth, 0, BP_LEAVE_END);
		t->depth = 0;
	}
}

struct bp_err *bp_walk_create(const struct bp_trace *trace, const struct bp_walk_options *opt,
			      struct bp_walk **ret)
{
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = calloc(1, sizeof(*w));
	struct bp_walk_private *p;
	size_t n_funcs, n_blocks = bp_trace_n_blocks(trace);
	struct bp_err *err;

	if (!w)
		return bp_err_nomem();
	w->trace = trace;
	if (opt)
		w->opt = *opt;
	p = w->priv = calloc(1, sizeof(*p));
	if (!p)
		return bp_err_nomem();
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->decoded, NULL);
	pthread_cond_init(&p->freed, NULL);
	p->last_block = SIZE_MAX;
	bp_trace_funcs(trace, &n_funcs);
	w->row_of = w->opt.row_of;
	if (!w->row_of) {
		p->identity = malloc((n_funcs + 1) * sizeof(*p->identity));
		if (!p->identity)
			return bp_err_nomem();
		for (size_t i = 0; i < n_funcs; i++)
			p->identity[i] = (uint32_t)i;
		w->row_of = p->identity;
	}
	w->filtered = w->opt.from_ns || w->opt.to_ns || w->opt.vcpus || w->opt.match || w->opt.has_in ||
		      w->opt.max_depth;
	p->order = malloc((n_blocks + 1) * sizeof(*p->order));
	if (!p->order)
		return bp_err_nomem();
	for (size_t i = 0; i < n_blocks; i++) {
		uint64_t first, last;

		bp_trace_block_range(trace, i, &first, &last);
		if (last < w->opt.from_ns || (w->opt.to_ns && first > w->opt.to_ns))
			continue;
		p->order[p->n_order++] = i;
	}
	p->n_slots = MAX_SLOTS;
	for (size_t i = 0; i < p->n_slots; i++) {
		p->slots[i].holds = SIZE_MAX;
		err = bp_decoder_create(&p->slots[i].decoder);
		if (err)
			return err;
	}
	err = hash_grow(w);
	if (err)
		return err;
	*ret = bp_steal(w);
	return NULL;
}

void bp_walk_destroy(struct bp_walk *w)
{
	struct bp_walk_private *p;

	if (!w)
		return;
	p = w->priv;
	if (p) {
		stop_helpers(p);
		for (size_t i = 0; i < p->n_slots; i++) {
			bp_decoder_destroy(p->slots[i].decoder);
			bp_err_free(p->slots[i].err);
		}
		pthread_cond_destroy(&p->freed);
		pthread_cond_destroy(&p->decoded);
		pthread_mutex_destroy(&p->lock);
		free(p->identity);
		free(p->order);
		free(p->damage_text);
		free(p->hash);
		free(p);
	}
	for (size_t i = 0; i < w->n_tasks; i++)
		task_destroy(w->tasks[i]);
	free(w->tasks);
	free(w->vcpus);
	free(w);
}

const char *bp_walk_damage_text(const struct bp_walk *w)
{
	return w->priv->damage_text;
}

struct bp_err *bp_walk_run(struct bp_walk *w, const struct bp_walk_ops *ops, void *ctx)
{
	return bp_walk_inline(w, ops, ctx);
}

/* ---- several analyzers ---- */

struct all {
	const struct bp_walk_part *parts;
	size_t n;
};

#define EACH(c, op, ...)                                                               \
	do {                                                                           \
		const struct all *a_ = (c);                                            \
                                                                                       \
		for (size_t i_ = 0; i_ < a_->n; i_++) {                                \
			if (a_->parts[i_].ops->op)                                     \
				a_->parts[i_].ops->op(a_->parts[i_].ctx, __VA_ARGS__); \
		}                                                                      \
	} while (0)

static void all_run(void *ctx, const struct bp_walk_now *now)
{
	EACH(ctx, on_run, now);
}

static void all_run_end(void *ctx, const struct bp_walk_now *now)
{
	EACH(ctx, on_run_end, now);
}

static void all_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	EACH(ctx, on_enter, f, now);
}

static void all_resume(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	EACH(ctx, on_resume, f, now);
}

static void all_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		      enum bp_walk_leave how)
{
	EACH(ctx, on_leave, f, now, how);
}

static void all_syscall(void *ctx, uint32_t nr, const struct bp_walk_now *now)
{
	EACH(ctx, on_syscall, nr, now);
}

static void all_lost(void *ctx, uint64_t records, const struct bp_walk_now *now)
{
	EACH(ctx, on_lost, records, now);
}

static void all_time(void *ctx, struct bp_walk_frame *top, const struct bp_walk_now *now, uint64_t dt,
		     uint64_t di)
{
	EACH(ctx, on_time, top, now, dt, di);
}

struct bp_err *bp_walk_run_all(struct bp_walk *w, const struct bp_walk_part *parts, size_t n)
{
	struct all all = {.parts = parts, .n = n};
	struct bp_walk_ops ops = {0};

	for (size_t i = 0; i < n; i++) {
		const struct bp_walk_ops *o = parts[i].ops;

		ops.on_run = o->on_run ? all_run : ops.on_run;
		ops.on_run_end = o->on_run_end ? all_run_end : ops.on_run_end;
		ops.on_enter = o->on_enter ? all_enter : ops.on_enter;
		ops.on_resume = o->on_resume ? all_resume : ops.on_resume;
		ops.on_leave = o->on_leave ? all_leave : ops.on_leave;
		ops.on_syscall = o->on_syscall ? all_syscall : ops.on_syscall;
		ops.on_lost = o->on_lost ? all_lost : ops.on_lost;
		ops.on_time = o->on_time ? all_time : ops.on_time;
	}
	return bp_walk_inline(w, &ops, &all);
}
