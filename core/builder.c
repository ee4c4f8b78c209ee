// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/builder.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

/*
 * Longest time (ns) and most instructions that one event carries; the writer rounds to ticks of up to 1024
 * ns. What is longer is spread over TICK events, and what is longer than JUMP is not filled with events at
 * all: a damaged time stamp must not become billions of them.
 */
#define DELTA_MAX (UINT32_MAX - 2048)
#define JUMP ((uint64_t)1 << 42)

/* Later times are taken for this one, so that sums of times cannot overflow. */
#define TIME_MAX ((uint64_t)1 << 62)

/* Bounds of memory: what a trace with nothing but new names, tasks or calls can make us keep. */
#define FUNCS_MAX (1u << 19)
#define FUNC_TEXT_MAX (32u << 20)
#define TASKS_MAX (1u << 18)
#define FRAMES_MAX (1u << 20)
#define STRING_MAX 1024
#define NOTES_MAX (4u << 20)
#define BATCH_FUNCS (1u << 16)

#define KERNEL_HALF 0xffff800000000000ull

#define NO_BLOCK UINT64_MAX
#define TEXT_PIECE (64u << 10)
#define FIRST_FRAMES 16

struct task {
	uint32_t id;
	uint32_t flags;
	int64_t pid, tgid;
	struct bp_frame *frames;
	uint32_t n, cap;
	uint32_t over;    /* functions on the stack that are not kept */
	struct cpu *cpu;  /* where it runs, NULL: nowhere */
	uint64_t last_ns; /* newest event of it */
	uint64_t cpu_ns, cpu_insns;
	uint64_t block; /* in which its stack was given */
};

struct cpu {
	struct task *task;          /* NULL: not known */
	uint64_t now_ns, now_insns; /* newest that was told */
	uint64_t ev_ns, ev_insns;   /* up to where events were written */
	uint64_t events;
	uint32_t number; /* in the recording */
	bool started;
};

/* A function that is defined. */
struct named {
	uint64_t addr;
	uint32_t hash;
	uint32_t id;
	uint8_t space;
	const char *name, *module;
};

struct text_piece {
	struct text_piece *next;
	char data[];
};

/* A fact that waits for its block to be written; offsets into the batch's text. */
struct note {
	struct bp_fact fact;
	size_t s1, s2;
};

/* What goes to the writer in one piece. */
struct batch {
	struct bp_event *events;
	struct bp_run *runs;
	struct bp_frame *frames;
	size_t n_events, n_runs, n_frames, cap_runs, cap_frames;
	struct bp_func *funcs;
	size_t n_funcs, cap_funcs;
	struct note *notes;
	size_t n_notes, cap_notes;
	struct bp_strbuf text;
};

struct bp_builder {
	struct bp_trace_writer *w;
	struct batch *now;   /* being filled */
	struct cpu *run_cpu; /* of the run that is open */
	struct task *run_task;
	uint64_t block;

	/*
	 * By the numbers of the source that is being read; n_cpus is one more than the largest. All CPUs are
	 * in all_cpus, by the numbers in the recording.
	 */
	struct cpu *cpus[BP_BUILDER_CPUS];
	struct cpu *all_cpus[BP_BUILDER_CPUS];
	uint32_t n_cpus, n_all_cpus;
	struct task **tasks;
	uint32_t n_tasks, cap_tasks;
	size_t n_frames; /* room for frames in all tasks */

	struct named *named; /* open hash; a power of two, NULL name: free */
	uint32_t cap_named, n_funcs;
	struct text_piece *text;
	size_t text_used, text_bytes;
	uint32_t func_more; /* stands for all functions that are too many */

	uint64_t slide; /* subtracted from addresses of the kernel */
	uint64_t clamped, calls, lost;
	char lost_why[80];
	bool finished, failed;

	struct batch batches[2];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct batch *full; /* being written */
	struct bp_err *err; /* of the thread */
	bool stop, has_thread;
	bool threaded; /* and it is used */
};

/* ---- the writing thread ---- */

static struct bp_err *write_batch(struct bp_trace_writer *w, struct batch *t)
{
	struct bp_block b = {t->events, t->n_events, t->runs, t->n_runs, t->frames, t->n_frames};
	struct bp_err *err = NULL;

	for (size_t i = 0; i < t->n_funcs && !err; i++)
		err = bp_trace_writer_func(w, &t->funcs[i]);
	for (size_t i = 0; i < t->n_notes && !err; i++) {
		struct bp_fact f = t->notes[i].fact;

		f.s1 = t->text.data + t->notes[i].s1;
		f.s2 = t->text.data + t->notes[i].s2;
		err = bp_trace_writer_fact(w, &f);
	}
	if (!err && b.n_events)
		err = bp_trace_writer_block(w, &b);
	t->n_events = t->n_runs = t->n_frames = t->n_funcs = t->n_notes = 0;
	bp_strbuf_clear(&t->text);
	return err;
}

static void *writer_main(void *arg)
{
	struct bp_builder *b = arg;

	pthread_mutex_lock(&b->lock);
	for (;;) {
		struct batch *t;
		struct bp_err *err = NULL;

		while (!b->full && !b->stop)
			pthread_cond_wait(&b->changed, &b->lock);
		t = b->full;
		if (!t)
			break;
		if (!b->err) {
			pthread_mutex_unlock(&b->lock);
			err = write_batch(b->w, t);
			pthread_mutex_lock(&b->lock);
		}
		if (err)
			b->err = err;
		b->full = NULL;
		pthread_cond_broadcast(&b->changed);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* Waits until nothing is being written; the error of what was written last. Called with the lock held. */
static BP_MUST_CHECK struct bp_err *wait_idle(struct bp_builder *b)
{
	struct bp_err *err;

	while (b->full)
		pthread_cond_wait(&b->changed, &b->lock);
	err = bp_steal(b->err);
	if (err)
		b->failed = true;
	return err;
}

/* Hands the batch to the writer and begins another. */
static BP_MUST_CHECK struct bp_err *hand_over(struct bp_builder *b)
{
	struct bp_err *err;

	if (b->failed)
		return bp_err_new(BP_ESTOPPED, "writing has failed before");
	b->run_cpu = NULL;
	b->run_task = NULL;
	b->block++;
	if (!b->threaded) {
		err = write_batch(b->w, b->now);
		b->failed = err;
		return err;
	}
	pthread_mutex_lock(&b->lock);
	err = wait_idle(b);
	if (!err) {
		b->full = b->now;
		b->now = b->now == &b->batches[0] ? &b->batches[1] : &b->batches[0];
		pthread_cond_broadcast(&b->changed);
	}
	pthread_mutex_unlock(&b->lock);
	return err;
}

/* ---- creation ---- */

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

void bp_builder_destroy(struct bp_builder *b)
{
	if (!b)
		return;
	if (b->has_thread) {
		pthread_mutex_lock(&b->lock);
		b->stop = true;
		pthread_cond_broadcast(&b->changed);
		pthread_mutex_unlock(&b->lock);
		pthread_join(b->thread, NULL);
	}
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->changed);
	bp_err_free(b->err);
	for (size_t i = 0; i < BP_ARRAY_SIZE(b->batches); i++) {
		struct batch *t = &b->batches[i];

		free(t->events);
		free(t->runs);
		free(t->frames);
		free(t->funcs);
		free(t->notes);
		bp_strbuf_deinit(&t->text);
	}
	for (uint32_t i = 0; i < b->n_all_cpus; i++)
		free(b->all_cpus[i]);
	for (uint32_t i = 0; i < b->n_tasks; i++) {
		free(b->tasks[i]->frames);
		free(b->tasks[i]);
	}
	free(b->tasks);
	free(b->named);
	while (b->text) {
		struct text_piece *next = b->text->next;

		free(b->text);
		b->text = next;
	}
	free(b);
}

static void builder_destroyp(struct bp_builder **b)
{
	bp_builder_destroy(*b);
}

struct bp_err *bp_builder_create(struct bp_trace_writer *w, struct bp_builder **ret)
{
	bp_cleanup(builder_destroyp) struct bp_builder *b = calloc(1, sizeof(*b));

	if (!b)
		return bp_err_nomem();
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
	b->w = w;
	b->now = &b->batches[0];
	b->func_more = UINT32_MAX;
	b->cap_named = 1024;
	b->named = calloc(b->cap_named, sizeof(*b->named));
	if (!b->named)
		return bp_err_nomem();
	for (size_t i = 0; i < BP_ARRAY_SIZE(b->batches); i++) {
		b->batches[i].events = malloc(BP_BLOCK_EVENTS * sizeof(struct bp_event));
		if (!b->batches[i].events)
			return bp_err_nomem();
	}
	/* Without a thread everything works as well, only slower. */
	b->threaded = b->has_thread = !pthread_create(&b->thread, NULL, writer_main, b);
	*ret = bp_steal(b);
	return NULL;
}

struct bp_err *bp_builder_write_here(struct bp_builder *b, bool here)
{
	struct bp_err *err = NULL;

	if (b->threaded) {
		pthread_mutex_lock(&b->lock);
		err = wait_idle(b);
		pthread_mutex_unlock(&b->lock);
	}
	b->threaded = b->has_thread && !here;
	return err;
}

/* ---- functions ---- */

static uint32_t hash_func(enum bp_space space, uint64_t addr, const char *name, const char *module)
{
	uint64_t h = (addr + 1) * 0x9e3779b97f4a7c15ull ^ (uint64_t)space << 56;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3ull;
	for (h ^= 0xff; *module; module++)
		h = (h ^ (unsigned char)*module) * 0x100000001b3ull;
	return (uint32_t)(h ^ h >> 32);
}

static struct named *find_slot(struct bp_builder *b, uint32_t hash, enum bp_space space, uint64_t addr,
			       const char *name, const char *module)
{
	uint32_t mask = b->cap_named - 1;

	for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
		struct named *s = &b->named[i];

		if (!s->name)
			return s;
		if (s->hash == hash && s->addr == addr && s->space == space && !strcmp(s->name, name) &&
		    !strcmp(s->module, module))
			return s;
	}
}

static BP_MUST_CHECK struct bp_err *grow_named(struct bp_builder *b)
{
	uint32_t cap = b->cap_named * 2;
	struct named *old = b->named, *p = calloc(cap, sizeof(*p));

	if (!p)
		return bp_err_nomem();
	for (uint32_t i = 0; i < b->cap_named; i++) {
		uint32_t at = old[i].hash & (cap - 1);

		if (!old[i].name)
			continue;
		while (p[at].name)
			at = (at + 1) & (cap - 1);
		p[at] = old[i];
	}
	free(old);
	b->named = p;
	b->cap_named = cap;
	return NULL;
}

/* A copy that lives as long as @b; NULL: no memory. @len is less than TEXT_PIECE. */
static const char *keep_text(struct bp_builder *b, const char *s, size_t len)
{
	char *p;

	if (!b->text || b->text_used + len + 1 > TEXT_PIECE) {
		struct text_piece *t = malloc(sizeof(*t) + TEXT_PIECE);

		if (!t)
			return NULL;
		t->next = b->text;
		b->text = t;
		b->text_used = 0;
	}
	p = b->text->data + b->text_used;
	memcpy(p, s, len);
	p[len] = '\0';
	b->text_used += len + 1;
	b->text_bytes += len + 1;
	return p;
}

static BP_MUST_CHECK struct bp_err *new_func(struct bp_builder *b, struct named *s, uint32_t hash,
					     enum bp_space space, uint64_t addr, uint64_t sym_addr,
					     const char *name, const char *module)
{
	struct batch *t = b->now;
	struct bp_err *err = grow((void **)&t->funcs, &t->cap_funcs, t->n_funcs + 1, sizeof(*t->funcs));
	const char *kept = keep_text(b, name, strlen(name));
	const char *kept_module = keep_text(b, module, strlen(module));

	if (err)
		return err;
	if (!kept || !kept_module)
		return bp_err_nomem();
	*s = (struct named){.addr = addr,
			    .hash = hash,
			    .id = b->n_funcs,
			    .space = (uint8_t)space,
			    .name = kept,
			    .module = kept_module};
	t->funcs[t->n_funcs++] = (struct bp_func){.id = b->n_funcs++,
						  .space = (uint8_t)space,
						  .addr = addr,
						  .sym_addr = sym_addr,
						  .name = kept,
						  .module = kept_module};
	return NULL;
}

struct bp_err *bp_builder_func(struct bp_builder *b, enum bp_space space, uint64_t addr, uint64_t sym_addr,
			       const char *name, const char *module, uint32_t *ret)
{
	char short_name[STRING_MAX + 1], short_module[STRING_MAX + 1];
	struct named *s;
	uint32_t hash;
	struct bp_err *err;

	if (strnlen(name, STRING_MAX + 1) > STRING_MAX) {
		snprintf(short_name, sizeof(short_name), "%s", name);
		name = short_name;
	}
	if (strnlen(module, STRING_MAX + 1) > STRING_MAX) {
		snprintf(short_module, sizeof(short_module), "%s", module);
		module = short_module;
	}
	if (space == BP_SPACE_KERNEL && addr >= KERNEL_HALF) {
		addr -= b->slide;
		sym_addr -= b->slide;
	}
	hash = hash_func(space, addr, name, module);
	s = find_slot(b, hash, space, addr, name, module);
	if (s->name) {
		*ret = s->id;
		return NULL;
	}
	if (b->n_funcs >= FUNCS_MAX || b->text_bytes >= FUNC_TEXT_MAX) {
		if (b->func_more != UINT32_MAX) {
			*ret = b->func_more;
			return NULL;
		}
		space = BP_SPACE_PSEUDO;
		addr = sym_addr = UINT64_MAX;
		name = "[more functions]";
		module = "";
		hash = hash_func(space, addr, name, module);
		s = find_slot(b, hash, space, addr, name, module);
		b->func_more = b->n_funcs;
	}
	if ((uint64_t)(b->n_funcs + 1) * 2 > b->cap_named) {
		err = grow_named(b);
		if (err)
			return err;
		s = find_slot(b, hash, space, addr, name, module);
	}
	if (b->now->n_funcs >= BATCH_FUNCS) {
		err = hand_over(b);
		if (err)
			return err;
	}
	err = new_func(b, s, hash, space, addr, sym_addr, name, module);
	if (!err)
		*ret = s->id;
	return err;
}

void bp_builder_set_slide(struct bp_builder *b, uint64_t slide)
{
	b->slide = slide;
}

/* ---- facts ---- */

struct bp_err *bp_builder_fact(struct bp_builder *b, const struct bp_fact *fact)
{
	const char *s1 = fact->s1 ? fact->s1 : "", *s2 = fact->s2 ? fact->s2 : "";
	struct batch *t;
	struct bp_err *err;
	struct note *n;

	if (b->now->text.len > NOTES_MAX) {
		err = hand_over(b);
		if (err)
			return err;
	}
	t = b->now;
	err = grow((void **)&t->notes, &t->cap_notes, t->n_notes + 1, sizeof(*t->notes));
	if (err)
		return err;
	n = &t->notes[t->n_notes];
	n->fact = *fact;
	n->s1 = t->text.len;
	bp_strbuf_add(&t->text, s1, strnlen(s1, TEXT_PIECE));
	bp_strbuf_addc(&t->text, '\0');
	n->s2 = t->text.len;
	bp_strbuf_add(&t->text, s2, strnlen(s2, TEXT_PIECE));
	bp_strbuf_addc(&t->text, '\0');
	err = bp_strbuf_ok(&t->text);
	if (!err)
		t->n_notes++;
	return err;
}

static BP_MUST_CHECK struct bp_err *task_fact(struct bp_builder *b, const struct task *t, const char *comm,
					      uint64_t time_ns)
{
	struct bp_fact f = {
	    .kind = BP_FACT_TASK,
	    .vcpu = UINT16_MAX,
	    .time_ns = time_ns < TIME_MAX ? time_ns : TIME_MAX,
	    .v = {t->id, (uint64_t)t->pid, (uint64_t)t->tgid, t->flags},
	    .s1 = comm,
	};

	return bp_builder_fact(b, &f);
}

struct bp_err *bp_builder_task(struct bp_builder *b, int64_t pid, int64_t tgid, const char *comm,
			       uint32_t flags, uint64_t time_ns, uint32_t *ret)
{
	size_t cap = b->cap_tasks;
	struct task *t;
	struct bp_err *err;

	/* Bounded memory: the last task stands for all further ones. */
	if (b->n_tasks == TASKS_MAX) {
		*ret = TASKS_MAX - 1;
		return NULL;
	}
	if (b->n_tasks == TASKS_MAX - 1) {
		pid = tgid = -1;
		comm = "[more tasks]";
		flags = 0;
	}
	err = grow((void **)&b->tasks, &cap, (size_t)b->n_tasks + 1, sizeof(*b->tasks));
	if (err)
		return err;
	b->cap_tasks = (uint32_t)cap;
	t = calloc(1, sizeof(*t));
	if (!t)
		return bp_err_nomem();
	t->id = b->n_tasks;
	t->flags = flags;
	t->pid = pid;
	t->tgid = tgid;
	t->block = NO_BLOCK;
	err = task_fact(b, t, comm, time_ns);
	if (err) {
		free(t);
		return err;
	}
	b->tasks[b->n_tasks++] = t;
	*ret = t->id;
	return NULL;
}

struct bp_err *bp_builder_rename(struct bp_builder *b, uint32_t task, const char *comm, uint64_t time_ns)
{
	assert(task < b->n_tasks);
	if (task == TASKS_MAX - 1)
		return NULL;
	return task_fact(b, b->tasks[task], comm, time_ns);
}

/* ---- events ---- */

/* Begin a run of @c's task in the block; the time since the CPU's last event belongs to it. */
static BP_MUST_CHECK struct bp_err *start_run(struct bp_builder *b, struct cpu *c)
{
	struct batch *t = b->now;
	struct task *k = c->task;
	bool give = k->block != b->block;
	struct bp_err *err = grow((void **)&t->runs, &t->cap_runs, t->n_runs + 1, sizeof(*t->runs));

	if (!err && give && k->n)
		err = grow((void **)&t->frames, &t->cap_frames, t->n_frames + k->n, sizeof(*t->frames));
	if (err)
		return err;
	t->runs[t->n_runs] = (struct bp_run){
	    .vcpu = c->number,
	    .task = k->id,
	    .time_ns = c->ev_ns,
	    .insns = c->ev_insns,
	    .cpu_ns = k->cpu_ns,
	    .cpu_insns = k->cpu_insns,
	    .n_frames = give ? k->n : BP_RUN_NO_STACK,
	    .first_frame = give ? (uint32_t)t->n_frames : 0,
	};
	if (give && k->n) {
		memcpy(t->frames + t->n_frames, k->frames, k->n * sizeof(*k->frames));
		t->n_frames += k->n;
	}
	k->block = b->block;
	t->events[t->n_events++] = (struct bp_event){.kind = BP_EV_RUN, .arg = (uint32_t)t->n_runs++};
	b->run_cpu = c;
	b->run_task = k;
	return NULL;
}

static inline void append(struct bp_builder *b, struct cpu *c, enum bp_ev_kind kind, uint32_t arg,
			  uint64_t dt, uint64_t di)
{
	struct batch *t = b->now;

	t->events[t->n_events++] =
	    (struct bp_event){.kind = kind, .arg = arg, .dt = (uint32_t)dt, .di = (uint32_t)di};
	c->ev_ns += dt;
	c->ev_insns += di;
	c->task->cpu_ns += dt;
	c->task->cpu_insns += di;
	c->events++;
}

/* Room for one event in a run of the CPU's task, and little enough time before it. */
static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *prepare(struct bp_builder *b, struct cpu *c)
{
	for (;;) {
		uint64_t dt = c->now_ns - c->ev_ns, di = c->now_insns - c->ev_insns;
		struct bp_err *err = NULL;

		if (dt > JUMP || di > JUMP) {
			c->ev_ns = c->now_ns;
			c->ev_insns = c->now_insns;
			b->run_cpu = NULL;
			continue;
		}
		if (b->now->n_events + 2 > BP_BLOCK_EVENTS || b->now->n_frames + c->task->n > BP_BLOCK_FRAMES)
			err = hand_over(b);
		if (!err && (b->run_cpu != c || b->run_task != c->task))
			err = start_run(b, c);
		if (err || (dt <= DELTA_MAX && di <= DELTA_MAX))
			return err;
		append(b, c, BP_EV_TICK, 0, dt < DELTA_MAX ? dt : DELTA_MAX, di < DELTA_MAX ? di : DELTA_MAX);
	}
}

static inline BP_MUST_CHECK struct bp_err *emit(struct bp_builder *b, struct cpu *c, enum bp_ev_kind kind,
						uint32_t arg)
{
	uint64_t dt = c->now_ns - c->ev_ns, di = c->now_insns - c->ev_insns;

	if (__builtin_expect(b->run_cpu != c || b->run_task != c->task ||
				 b->now->n_events == BP_BLOCK_EVENTS || dt > DELTA_MAX || di > DELTA_MAX,
			     0)) {
		struct bp_err *err = prepare(b, c);

		if (err)
			return err;
		dt = c->now_ns - c->ev_ns;
		di = c->now_insns - c->ev_insns;
	}
	append(b, c, kind, arg, dt, di);
	return NULL;
}

/* The time up to now belongs to the task that has run. */
static BP_MUST_CHECK struct bp_err *settle(struct bp_builder *b, struct cpu *c)
{
	if (!c->task || (c->now_ns == c->ev_ns && c->now_insns == c->ev_insns))
		return NULL;
	c->task->last_ns = c->now_ns;
	return emit(b, c, BP_EV_TICK, 0);
}

static BP_MUST_CHECK struct bp_err *get_cpu(struct bp_builder *b, uint32_t cpu)
{
	uint32_t number = cpu;
	struct cpu *c;

	if (cpu >= BP_BUILDER_CPUS)
		return bp_err_new(BP_EUNSUPPORTED, "CPU %u: there can be %u", cpu, BP_BUILDER_CPUS);
	if (cpu < b->n_cpus && b->cpus[cpu])
		return NULL;
	if (number < b->n_all_cpus && b->all_cpus[number]) {
		for (number = b->n_all_cpus; number && !b->all_cpus[number - 1]; number--)
			;
		if (number == BP_BUILDER_CPUS)
			return bp_err_new(BP_EUNSUPPORTED, "more than %u CPUs in all traces together",
					  BP_BUILDER_CPUS);
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return bp_err_nomem();
	c->number = number;
	b->all_cpus[number] = c;
	if (number >= b->n_all_cpus)
		b->n_all_cpus = number + 1;
	b->cpus[cpu] = c;
	if (cpu >= b->n_cpus)
		b->n_cpus = cpu + 1;
	return NULL;
}

struct bp_err *bp_builder_next_source(struct bp_builder *b)
{
	for (uint32_t i = 0; i < b->n_all_cpus; i++) {
		struct bp_err *err = b->all_cpus[i] ? settle(b, b->all_cpus[i]) : NULL;

		if (err)
			return err;
	}
	memset(b->cpus, 0, b->n_cpus * sizeof(*b->cpus));
	b->n_cpus = 0;
	return NULL;
}

static inline void set_clocks(struct bp_builder *b, struct cpu *c, uint64_t time_ns, uint64_t insns)
{
	if (time_ns > TIME_MAX) {
		time_ns = TIME_MAX;
		b->clamped++;
	}
	if (time_ns >= c->now_ns)
		c->now_ns = time_ns;
	else
		b->clamped++;
	if (insns > c->now_insns)
		c->now_insns = insns < TIME_MAX ? insns : TIME_MAX;
}

struct bp_err *bp_builder_switch(struct bp_builder *b, uint32_t cpu, uint32_t task, uint64_t time_ns,
				 uint64_t insns)
{
	struct bp_err *err = get_cpu(b, cpu);
	struct cpu *c;
	struct task *t;

	assert(task < b->n_tasks);
	if (err)
		return err;
	c = b->cpus[cpu];
	t = b->tasks[task];
	set_clocks(b, c, time_ns, insns);
	if (c->task == t)
		return NULL;
	err = settle(b, c);
	if (err)
		return err;
	if (c->task)
		c->task->cpu = NULL;
	if (t->cpu) {
		/* It has left its former CPU without a word. */
		struct cpu *former = t->cpu;

		if (former->now_ns > c->now_ns && former->ev_ns <= c->now_ns)
			former->now_ns = c->now_ns;
		err = settle(b, former);
		if (err)
			return err;
		former->task = NULL;
	}
	/* Runs of a task are in the order of time, also when the clocks of two CPUs differ a little. */
	if (t->last_ns > c->now_ns) {
		c->now_ns = t->last_ns;
		b->clamped++;
	}
	c->started = true;
	c->task = t;
	c->ev_ns = c->now_ns;
	c->ev_insns = c->now_insns;
	t->cpu = c;
	return NULL;
}

/* The CPU with its clocks set and some task on it. */
static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *
begin_unknown(struct bp_builder *b, uint32_t cpu, uint64_t time_ns, uint64_t insns)
{
	struct bp_err *err = get_cpu(b, cpu);
	uint32_t task;

	if (!err)
		err = bp_builder_task(b, -1, -1, "", 0, time_ns, &task);
	return err ? err : bp_builder_switch(b, cpu, task, time_ns, insns);
}

static inline BP_MUST_CHECK struct bp_err *begin(struct bp_builder *b, uint32_t cpu, uint64_t time_ns,
						 uint64_t insns)
{
	if (__builtin_expect(cpu >= b->n_cpus || !b->cpus[cpu] || !b->cpus[cpu]->task, 0))
		return begin_unknown(b, cpu, time_ns, insns);
	set_clocks(b, b->cpus[cpu], time_ns, insns);
	return NULL;
}

/* Room for one more frame; false: it is not kept. */
static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *grow_stack(struct bp_builder *b, struct task *t,
									 bool *room)
{
	uint32_t cap = t->cap ? t->cap * 2 : FIRST_FRAMES;
	struct bp_frame *p;

	*room = false;
	if (cap > BP_MAX_DEPTH)
		cap = BP_MAX_DEPTH;
	if (cap == t->cap || b->n_frames + (cap - t->cap) > FRAMES_MAX)
		return NULL;
	p = realloc(t->frames, cap * sizeof(*p));
	if (!p)
		return bp_err_nomem();
	b->n_frames += cap - t->cap;
	t->frames = p;
	t->cap = cap;
	*room = true;
	return NULL;
}

struct bp_err *bp_builder_enter(struct bp_builder *b, uint32_t cpu, enum bp_ev_kind kind, uint32_t func,
				uint64_t time_ns, uint64_t insns)
{
	struct bp_err *err = begin(b, cpu, time_ns, insns);
	struct cpu *c;
	struct task *t;

	assert(func < b->n_funcs && kind >= BP_EV_CALL && kind <= BP_EV_IRQ);
	if (err)
		return err;
	c = b->cpus[cpu];
	t = c->task;
	b->calls++;
	if (__builtin_expect(t->n == t->cap || t->over, 0)) {
		bool room = false;

		if (!t->over)
			err = grow_stack(b, t, &room);
		if (err)
			return err;
		if (!room) {
			t->over++;
			return NULL;
		}
	}
	err = emit(b, c, kind, func);
	if (err)
		return err;
	t->last_ns = c->now_ns;
	t->frames[t->n++] = (struct bp_frame){.func = func,
					      .kind = (uint8_t)kind,
					      .wall_ns = c->now_ns,
					      .cpu_ns = t->cpu_ns,
					      .insns = t->cpu_insns};
	return NULL;
}

struct bp_err *bp_builder_tick(struct bp_builder *b, uint32_t cpu, uint64_t time_ns, uint64_t insns)
{
	if (cpu >= b->n_cpus || !b->cpus[cpu]) {
		struct bp_err *err = get_cpu(b, cpu);

		if (err)
			return err;
	}
	/* Written together with what happens next. */
	set_clocks(b, b->cpus[cpu], time_ns, insns);
	return NULL;
}

struct bp_err *bp_builder_leave(struct bp_builder *b, uint32_t cpu, uint32_t n, uint64_t time_ns,
				uint64_t insns)
{
	struct bp_err *err = bp_builder_tick(b, cpu, time_ns, insns);
	struct cpu *c;
	struct task *t;

	if (err)
		return err;
	c = b->cpus[cpu];
	t = c->task;
	if (!t)
		return NULL;
	if (__builtin_expect(t->over, 0)) {
		uint32_t k = n < t->over ? n : t->over;

		t->over -= k;
		n -= k;
	}
	if (n > t->n)
		n = t->n;
	if (!n)
		return NULL;
	err = emit(b, c, BP_EV_RET, n);
	if (err)
		return err;
	t->last_ns = c->now_ns;
	t->n -= n;
	return NULL;
}

struct bp_err *bp_builder_leaf(struct bp_builder *b, uint32_t cpu, enum bp_ev_kind kind, uint32_t func,
			       uint64_t time_ns, uint64_t end_ns)
{
	struct cpu *c = cpu < b->n_cpus ? b->cpus[cpu] : NULL;
	struct bp_err *err;

	/* As nearly all are: the CPU goes on with its task, in a block that has room. */
	if (__builtin_expect(c && b->run_cpu == c && b->run_task == c->task && c->task->n < c->task->cap &&
				 !c->task->over && b->now->n_events + 2 <= BP_BLOCK_EVENTS &&
				 c->now_insns == c->ev_insns && time_ns >= c->now_ns &&
				 time_ns - c->ev_ns <= DELTA_MAX && end_ns >= time_ns &&
				 end_ns - time_ns <= DELTA_MAX && end_ns <= TIME_MAX,
			     1)) {
		struct bp_event *ev = b->now->events + b->now->n_events;
		struct task *t = c->task;

		assert(func < b->n_funcs && kind >= BP_EV_CALL && kind <= BP_EV_IRQ);
		ev[0] = (struct bp_event){.kind = kind, .arg = func, .dt = (uint32_t)(time_ns - c->ev_ns)};
		ev[1] = (struct bp_event){.kind = BP_EV_RET, .arg = 1, .dt = (uint32_t)(end_ns - time_ns)};
		b->now->n_events += 2;
		b->calls++;
		t->cpu_ns += end_ns - c->ev_ns;
		t->last_ns = c->ev_ns = c->now_ns = end_ns;
		c->events += 2;
		return NULL;
	}
	err = bp_builder_enter(b, cpu, kind, func, time_ns, 0);
	return err ? err : bp_builder_leave(b, cpu, 1, end_ns, 0);
}

struct bp_err *bp_builder_syscall(struct bp_builder *b, uint32_t cpu, uint32_t nr, uint64_t time_ns,
				  uint64_t insns)
{
	struct bp_err *err = begin(b, cpu, time_ns, insns);

	if (err)
		return err;
	b->cpus[cpu]->task->last_ns = b->cpus[cpu]->now_ns;
	return emit(b, b->cpus[cpu], BP_EV_SYSCALL, nr);
}

struct bp_err *bp_builder_lost(struct bp_builder *b, uint32_t cpu, uint64_t count, uint64_t time_ns,
			       const char *why)
{
	struct bp_err *err =
	    begin(b, cpu, time_ns, cpu < b->n_cpus && b->cpus[cpu] ? b->cpus[cpu]->now_insns : 0);
	struct task *t;

	if (err)
		return err;
	t = b->cpus[cpu]->task;
	b->lost = count > UINT64_MAX - b->lost ? UINT64_MAX : b->lost + count;
	if (!b->lost_why[0])
		snprintf(b->lost_why, sizeof(b->lost_why), "%s", why);
	err = emit(b, b->cpus[cpu], BP_EV_LOST, count > UINT32_MAX ? UINT32_MAX : (uint32_t)count);
	if (err)
		return err;
	t->last_ns = b->cpus[cpu]->now_ns;
	t->n = t->over = 0;
	return NULL;
}

/* ---- asking ---- */

static inline const struct task *task_on(const struct bp_builder *b, uint32_t cpu)
{
	return cpu < b->n_cpus && b->cpus[cpu] ? b->cpus[cpu]->task : NULL;
}

uint32_t bp_builder_depth(const struct bp_builder *b, uint32_t cpu)
{
	const struct task *t = task_on(b, cpu);

	return t ? t->n + t->over : 0;
}

uint32_t bp_builder_top(const struct bp_builder *b, uint32_t cpu)
{
	const struct task *t = task_on(b, cpu);

	return t && t->n && !t->over ? t->frames[t->n - 1].func : UINT32_MAX;
}

uint32_t bp_builder_frame(const struct bp_builder *b, uint32_t cpu, uint32_t i)
{
	const struct task *t = task_on(b, cpu);

	return t && i < t->n ? t->frames[i].func : UINT32_MAX;
}

uint64_t bp_builder_clamped(const struct bp_builder *b)
{
	return b->clamped;
}

uint64_t bp_builder_calls(const struct bp_builder *b)
{
	return b->calls;
}

/* ---- the end ---- */

static BP_MUST_CHECK struct bp_err *last_facts(struct bp_builder *b, const char *how)
{
	struct bp_fact end = {.kind = BP_FACT_END, .vcpu = UINT16_MAX, .s1 = how};
	struct bp_err *err = NULL;

	for (uint32_t i = 0; i < b->n_all_cpus; i++) {
		const struct cpu *c = b->all_cpus[i];
		struct bp_fact f = {.kind = BP_FACT_VCPU, .vcpu = (uint16_t)i};

		if (!c || !c->started)
			continue;
		f.time_ns = c->now_ns;
		f.insns = f.v[0] = c->now_insns;
		f.v[2] = c->events;
		if (c->now_ns > end.time_ns)
			end.time_ns = c->now_ns;
		end.v[1] += c->now_insns;
		err = bp_builder_fact(b, &f);
		if (err)
			return err;
	}
	if (b->lost_why[0]) {
		struct bp_fact f = {.kind = BP_FACT_LOST,
				    .vcpu = UINT16_MAX,
				    .time_ns = end.time_ns,
				    .v = {b->lost},
				    .s1 = b->lost_why};

		err = bp_builder_fact(b, &f);
	}
	end.v[2] = b->calls;
	return err ? err : bp_builder_fact(b, &end);
}

struct bp_err *bp_builder_writer(struct bp_builder *b, struct bp_trace_writer **ret)
{
	struct bp_err *err = NULL;

	if (b->failed)
		return bp_err_new(BP_ESTOPPED, "writing has failed before");
	if (b->threaded) {
		pthread_mutex_lock(&b->lock);
		err = wait_idle(b);
		pthread_mutex_unlock(&b->lock);
	}
	*ret = b->w;
	return err;
}

struct bp_err *bp_builder_finish(struct bp_builder *b, const char *how)
{
	struct bp_err *err;

	if (b->finished)
		return NULL;
	err = bp_builder_next_source(b);
	if (!err)
		err = last_facts(b, how);
	if (!err)
		err = hand_over(b);
	if (!err && b->threaded) {
		pthread_mutex_lock(&b->lock);
		err = wait_idle(b);
		pthread_mutex_unlock(&b->lock);
	}
	if (!err)
		b->finished = true;
	return err;
}
