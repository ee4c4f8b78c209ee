/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What tests of the TCG engine share: rings in memory of our own, names that are made up, and a reader that
 * goes through a recording with stacks of its own and compares them with what every block says.
 *
 * One tick of the rig's host clock is one nanosecond. One rig at a time in a thread.
 */
#ifndef BP_TESTS_ENGINE_RIG_H
#define BP_TESTS_ENGINE_RIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "collectors/tcg/engine.h"
#include "core/trace.h"

/* The made-up kernel: functions of RIG_FUNC_BYTES each. */
#define RIG_LINK 0xffffffff81000000ull
#define RIG_SLIDE 0x1c000000ull
#define RIG_FUNC_BYTES 0x100
#define RIG_FUNCS 512

struct rig {
	struct bp_ring_shm *shm;
	struct bp_site *sites;
	struct bp_trace_writer *w;
	struct bp_engine *e;
	struct bp_engine_options o;
	char path[96];
	char name[32];                /* the last one made up */
	const char *names[RIG_FUNCS]; /* NULL: "kN" */
	const char *marks[BP_MAX_HOOKS];
	uint64_t now; /* ticks of the record that comes next */
	uint64_t insns[BP_MAX_VCPUS];
};

static inline struct bp_ring_rec *rig_ring(struct rig *r, unsigned vcpu)
{
	return (struct bp_ring_rec *)(void *)((uint8_t *)r->shm + bp_shm_ring_offset(vcpu));
}

/* Names: kernel functions by number, user functions of 64 bytes in files that are not called "?". */
static inline bool rig_kernel(void *self, uint64_t link, const char **name, uint64_t *start)
{
	struct rig *r = self;
	uint64_t i = (link - RIG_LINK) / RIG_FUNC_BYTES;

	if (i >= RIG_FUNCS)
		return false;
	snprintf(r->name, sizeof(r->name), "k%u", (unsigned)i);
	*name = r->names[i] ? r->names[i] : r->name;
	*start = RIG_LINK + i * RIG_FUNC_BYTES;
	return true;
}

static inline bool rig_user(void *self, const char *path, uint64_t offset, const char **name, uint64_t *start)
{
	struct rig *r = self;

	if (strchr(path, '?'))
		return false;
	snprintf(r->name, sizeof(r->name), "u%llu", (unsigned long long)offset / 64);
	*name = r->name;
	*start = offset / 64 * 64;
	return true;
}

static inline unsigned rig_region(void *self, uint64_t linear, const char **name, const char **mark)
{
	(void)self;
	*name = linear >= 0xe0000 ? "SeaBIOS" : linear >= 0x7c00 ? "decompressor" : "setup";
	*mark = linear >= 0xe0000 ? "firmware" : linear >= 0x7c00 ? "decompressor" : NULL;
	return linear >= 0xe0000 ? 1 : linear >= 0x7c00 ? 2 : 3;
}

/* k200 to k219 are initcalls of levels 0 to 1. */
static inline int rig_initcall(void *self, uint64_t link, const char **level)
{
	uint64_t i = (link - RIG_LINK) / RIG_FUNC_BYTES;

	(void)self;
	if (i < 200 || i >= 220)
		return -1;
	*level = i < 210 ? "pure" : "core";
	return i < 210 ? 0 : 1;
}

/* Memory for the rings, mapped once; NULL when it cannot be had. */
static inline bool rig_map(struct rig *r)
{
	void *p;

	memset(r, 0, sizeof(*r));
	p = mmap(NULL, bp_shm_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return false;
	r->shm = p;
	r->sites = (struct bp_site *)(void *)((uint8_t *)p + bp_shm_sites_offset());
	snprintf(r->path, sizeof(r->path), "%s/bootprof-engine.%d",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid());
	return true;
}

static inline void rig_unmap(struct rig *r)
{
	munmap(r->shm, bp_shm_bytes());
	unlink(r->path);
}

/* A new engine on empty rings of @vcpus; sites stay. */
static inline struct bp_err *rig_start(struct rig *r, unsigned vcpus)
{
	const struct bp_names names = {
	    .self = r,
	    .kernel = rig_kernel,
	    .user = rig_user,
	    .region = rig_region,
	    .initcall_level = rig_initcall,
	};
	struct bp_err *err;

	memset(r->shm->vcpu, 0, sizeof(r->shm->vcpu));
	memset(r->insns, 0, sizeof(r->insns));
	r->shm->smp_vcpus = vcpus;
	r->shm->text_base = RIG_LINK;
	r->shm->text_bytes = RIG_FUNCS * RIG_FUNC_BYTES;
	r->shm->slide_known = 1;
	r->shm->slide = RIG_SLIDE;
	r->shm->first_exec_ticks = 1600;
	r->now = 1600;
	r->o.mark_names = r->marks;
	r->o.ns_per_tick = 1;
	unlink(r->path);
	err = bp_trace_writer_create(r->path, 4, &r->w);
	return err ? err : bp_engine_create(r->shm, r->w, &names, &r->o, &r->e);
}

/* Write the rest and close; @killed: as if the recorder had been killed, nothing is finished. */
static inline struct bp_err *rig_end(struct rig *r, bool killed)
{
	struct bp_err *err = NULL;

	if (r->e && !killed)
		err = bp_engine_finish(r->e, r->now);
	bp_engine_destroy(r->e);
	if (killed || err || !r->w)
		bp_trace_writer_destroy(r->w);
	else
		err = bp_trace_writer_close(r->w);
	r->e = NULL;
	r->w = NULL;
	return err;
}

/* A place in the code; its id. */
static inline uint32_t rig_site(struct rig *r, uint64_t pc, uint32_t flags, uint32_t n_insns)
{
	uint64_t i;

	if (pc >> 63)
		flags |= BP_SITE_KERNEL;
	for (i = 0; i < r->shm->n_sites; i++)
		if (r->sites[i].pc == pc && r->sites[i].flags == flags && r->sites[i].n_insns == n_insns)
			return (uint32_t)i + BP_CTL_N;
	r->sites[i] = (struct bp_site){.pc = pc, .flags = flags, .n_insns = n_insns};
	r->shm->n_sites++;
	return (uint32_t)i + BP_CTL_N;
}

static inline void rig_put(struct rig *r, unsigned vcpu, uint64_t a, uint64_t b)
{
	struct bp_ring_vcpu *v = &r->shm->vcpu[vcpu];

	rig_ring(r, vcpu)[v->head++ & (BP_RING_RECORDS - 1)] = (struct bp_ring_rec){a, b};
}

/* A record, stamped or not, with the vCPU's count of instructions. */
static inline void rig_rec(struct rig *r, unsigned vcpu, uint32_t id, uint32_t low, bool stamp)
{
	rig_put(r, vcpu, (stamp ? r->now >> BP_TICK_SHIFT << BP_REC_ID_BITS : 0) | id,
		r->insns[vcpu] << 32 | low);
}

/* A control record, with the full clocks before it as the plugin sends them. */
static inline void rig_ctl(struct rig *r, unsigned vcpu, uint32_t code, const void *data, size_t len)
{
	size_t n = (len + 15) / 16;

	rig_rec(r, vcpu, BP_CTL_SYNC, 1, true);
	rig_put(r, vcpu, r->now, r->insns[vcpu]);
	rig_rec(r, vcpu, code, (uint32_t)n, true);
	for (size_t i = 0; i < n; i++) {
		struct bp_ring_rec p = {0, 0};
		size_t left = len - i * 16;

		memcpy(&p, (const uint8_t *)data + i * 16, left < 16 ? left : 16);
		rig_put(r, vcpu, p.a, p.b);
	}
}

/* Totals of one function, as `report functions` has them. */
struct rig_total {
	uint64_t calls, self_ns, self_insns, total_ns, total_insns;
};

struct rig_frame {
	uint32_t func;
	uint8_t kind;
	uint64_t wall_ns, cpu_ns, insns;
};

struct rig_task {
	uint32_t n;
	uint64_t cpu_ns, cpu_insns, wall_ns;
	bool seen;
	struct rig_frame *f;
};

struct rig_reader {
	const struct bp_trace *t;
	struct rig_task *tasks;
	size_t n_tasks;
	struct rig_total *totals; /* by function id */
	char why[200];            /* what was wrong; "" while all is well */
	bool in_order;            /* also: no run of a task begins before its last one ended */
	struct {
		uint64_t ns, insns;
		bool seen;
	} v[BP_MAX_VCPUS];
	uint64_t events, folded;
};

static inline void rig_pop(struct rig_reader *rr, struct rig_task *k)
{
	const struct rig_frame *f = &k->f[--k->n];
	struct rig_total *t = &rr->totals[f->func];

	for (uint32_t i = 0; i < k->n; i++)
		if (k->f[i].func == f->func)
			return;
	t->total_ns += k->cpu_ns - f->cpu_ns;
	t->total_insns += k->cpu_insns - f->insns;
}

static inline void rig_run(struct rig_reader *rr, const struct bp_block *b, const struct bp_run *run,
			   struct rig_task **ret)
{
	struct rig_task *k;

	*ret = NULL;
	if (run->vcpu >= BP_MAX_VCPUS || run->task > 1u << 22) {
		snprintf(rr->why, sizeof(rr->why), "vCPU %u, task %u", run->vcpu, run->task);
		return;
	}
	while (run->task >= rr->n_tasks) {
		size_t n = rr->n_tasks ? rr->n_tasks * 2 : 64;

		rr->tasks = realloc(rr->tasks, n * sizeof(*rr->tasks));
		memset(rr->tasks + rr->n_tasks, 0, (n - rr->n_tasks) * sizeof(*rr->tasks));
		rr->n_tasks = n;
	}
	*ret = k = &rr->tasks[run->task];
	if (!k->f)
		k->f = malloc(BP_MAX_DEPTH * sizeof(*k->f));
	if (rr->v[run->vcpu].seen &&
	    (run->time_ns != rr->v[run->vcpu].ns || run->insns != rr->v[run->vcpu].insns))
		snprintf(rr->why, sizeof(rr->why),
			 "vCPU %u goes on at %llu ns, %llu insns; it was at %llu, %llu", run->vcpu,
			 (unsigned long long)run->time_ns, (unsigned long long)run->insns,
			 (unsigned long long)rr->v[run->vcpu].ns, (unsigned long long)rr->v[run->vcpu].insns);
	if (k->seen && (run->cpu_ns != k->cpu_ns || run->cpu_insns != k->cpu_insns))
		snprintf(rr->why, sizeof(rr->why),
			 "task %u goes on at %llu ns, %llu insns; it was at %llu, %llu", run->task,
			 (unsigned long long)run->cpu_ns, (unsigned long long)run->cpu_insns,
			 (unsigned long long)k->cpu_ns, (unsigned long long)k->cpu_insns);
	if (rr->in_order && k->seen && run->time_ns < k->wall_ns)
		snprintf(rr->why, sizeof(rr->why), "task %u runs at %llu ns, but it ran until %llu",
			 run->task, (unsigned long long)run->time_ns, (unsigned long long)k->wall_ns);
	if (run->n_frames != BP_RUN_NO_STACK) {
		if (k->seen && run->n_frames != k->n)
			snprintf(rr->why, sizeof(rr->why), "task %u has %u frames, the block says %u",
				 run->task, k->n, run->n_frames);
		for (uint32_t i = 0; i < run->n_frames; i++) {
			const struct bp_frame *f = &b->frames[run->first_frame + i];
			struct rig_frame g = {f->func, f->kind, f->wall_ns, f->cpu_ns, f->insns};

			if (k->seen && i < k->n &&
			    (g.func != k->f[i].func || g.kind != k->f[i].kind ||
			     g.wall_ns != k->f[i].wall_ns || g.cpu_ns != k->f[i].cpu_ns ||
			     g.insns != k->f[i].insns))
				snprintf(rr->why, sizeof(rr->why),
					 "task %u, frame %u: the block says something else", run->task, i);
			k->f[i] = g;
		}
		k->n = run->n_frames;
	}
	k->seen = true;
	k->cpu_ns = run->cpu_ns;
	k->cpu_insns = run->cpu_insns;
	rr->v[run->vcpu].seen = true;
	rr->v[run->vcpu].ns = run->time_ns;
	rr->v[run->vcpu].insns = run->insns;
}

/*
 * Goes through all blocks, then closes what is open and adds the folded totals. @show: called for each event
 * before it takes effect, or NULL. Returns what is wrong, "" if nothing; the reader must be freed.
 */
static inline const char *rig_read(struct rig_reader *rr, const struct bp_trace *t,
				   void (*show)(void *ctx, struct rig_reader *rr, const struct bp_block *b,
						const struct bp_event *ev),
				   void *ctx)
{
	struct bp_decoder *d = NULL;
	struct bp_err *err = bp_decoder_create(&d);
	size_t n;
	const struct bp_fold *folds = bp_trace_folds(t, &n);
	size_t n_funcs;

	bp_trace_funcs(t, &n_funcs);
	rr->t = t;
	rr->totals = calloc(n_funcs + 1, sizeof(*rr->totals));
	for (size_t i = 0; !err && !rr->why[0] && i < bp_trace_n_blocks(t); i++) {
		struct rig_task *k = NULL;
		struct bp_block b;
		uint32_t vcpu = 0;

		err = bp_decoder_read(d, t, i, &b);
		for (size_t j = 0; !err && !rr->why[0] && j < b.n_events; j++) {
			const struct bp_event *ev = &b.events[j];

			if (ev->kind == BP_EV_RUN) {
				rig_run(rr, &b, &b.runs[ev->arg], &k);
				vcpu = b.runs[ev->arg].vcpu;
			}
			if (!k)
				break;
			k->cpu_ns += ev->dt;
			k->cpu_insns += ev->di;
			rr->v[vcpu].ns += ev->dt;
			rr->v[vcpu].insns += ev->di;
			k->wall_ns = rr->v[vcpu].ns;
			if (k->n) {
				rr->totals[k->f[k->n - 1].func].self_ns += ev->dt;
				rr->totals[k->f[k->n - 1].func].self_insns += ev->di;
			}
			if (show)
				show(ctx, rr, &b, ev);
			if (ev->kind == BP_EV_CALL || ev->kind == BP_EV_JUMP || ev->kind == BP_EV_IRQ) {
				rr->totals[ev->arg].calls++;
				k->f[k->n++] = (struct rig_frame){ev->arg, (uint8_t)ev->kind, rr->v[vcpu].ns,
								  k->cpu_ns, k->cpu_insns};
			} else if (ev->kind == BP_EV_RET) {
				for (uint32_t m = 0; m < ev->arg; m++)
					rig_pop(rr, k);
			}
			rr->events++;
		}
	}
	if (err && !rr->why[0])
		snprintf(rr->why, sizeof(rr->why), "%.199s", bp_err_text(err));
	bp_err_free(err);
	bp_decoder_destroy(d);
	for (size_t i = 0; i < rr->n_tasks; i++)
		while (rr->tasks[i].n)
			rig_pop(rr, &rr->tasks[i]);
	for (size_t i = 0; i < n; i++) {
		struct rig_total *x = &rr->totals[folds[i].func];

		x->calls += folds[i].calls;
		x->self_ns += (uint64_t)folds[i].self_ns;
		x->self_insns += (uint64_t)folds[i].self_insns;
		x->total_ns += folds[i].total_ns;
		x->total_insns += folds[i].total_insns;
		rr->folded += folds[i].calls;
	}
	return rr->why;
}

static inline void rig_reader_free(struct rig_reader *rr)
{
	for (size_t i = 0; i < rr->n_tasks; i++)
		free(rr->tasks[i].f);
	free(rr->tasks);
	free(rr->totals);
}

#endif
