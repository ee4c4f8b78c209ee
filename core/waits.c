// SPDX-License-Identifier: GPL-2.0-or-later
/* The log that collectors write waits to: the same frames and stacks get the same ids, records become blocks.
 */
#include "core/waits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/trace.h"

/* Open addressing from a hash to an id; 0 is free. */
struct table {
	uint32_t *ids;
	size_t cap, used; /* cap is a power of two */
};

struct frame {
	struct bp_host_frame f; /* name and module are owned */
	uint64_t hash;
};

struct stack {
	uint32_t *frames; /* owned */
	uint32_t n;
	uint64_t hash;
};

struct bp_wait_log {
	struct bp_trace_writer *w;
	struct frame *frames; /* [0] is unused */
	size_t n_frames, frames_cap;
	struct stack *stacks; /* [0] is unused */
	size_t n_stacks, stacks_cap;
	struct table frame_ids, stack_ids;
	struct bp_wait *recs; /* BP_WAIT_BLOCK */
	size_t n_recs;
};

void bp_wait_log_destroy(struct bp_wait_log *log)
{
	if (!log)
		return;
	for (size_t i = 1; i < log->n_frames; i++) {
		free((char *)log->frames[i].f.name);
		free((char *)log->frames[i].f.module);
	}
	for (size_t i = 1; i < log->n_stacks; i++)
		free(log->stacks[i].frames);
	free(log->frames);
	free(log->stacks);
	free(log->frame_ids.ids);
	free(log->stack_ids.ids);
	free(log->recs);
	free(log);
}

struct bp_err *bp_wait_log_create(struct bp_trace_writer *w, struct bp_wait_log **ret)
{
	struct bp_wait_log *log = calloc(1, sizeof(*log));

	if (!log)
		return bp_err_nomem();
	log->w = w;
	log->n_frames = log->n_stacks = 1;
	log->recs = malloc(BP_WAIT_BLOCK * sizeof(*log->recs));
	if (!log->recs) {
		bp_wait_log_destroy(log);
		return bp_err_nomem();
	}
	*ret = log;
	return NULL;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

static uint64_t mix_text(uint64_t h, const char *s)
{
	for (; *s; s++)
		h = mix(h, (unsigned char)*s);
	return mix(h, 256);
}

static struct bp_err *grow(void *array, size_t *cap, size_t count, size_t item_bytes)
{
	size_t want = *cap * 2 + 64;
	void *p;

	if (count < *cap)
		return NULL;
	p = realloc(*(void **)array, want * item_bytes);
	if (!p)
		return bp_err_nomem();
	*(void **)array = p;
	*cap = want;
	return NULL;
}

/* Where @hash goes in a table that has room. */
static void table_put(struct table *t, uint64_t hash, uint32_t id)
{
	size_t h = hash & (t->cap - 1);

	while (t->ids[h])
		h = (h + 1) & (t->cap - 1);
	t->ids[h] = id;
}

/* Makes room for one more; @hash_of_id: the hash of each id that is in it. */
static struct bp_err *table_room(struct table *t, const struct bp_wait_log *log,
				 uint64_t (*hash_of_id)(const struct bp_wait_log *log, uint32_t id))
{
	struct table bigger = {.cap = t->cap ? t->cap * 2 : 256};

	if ((t->used + 1) * 2 <= t->cap)
		return NULL;
	bigger.ids = calloc(bigger.cap, sizeof(*bigger.ids));
	if (!bigger.ids)
		return bp_err_nomem();
	for (size_t i = 0; i < t->cap; i++) {
		if (t->ids[i])
			table_put(&bigger, hash_of_id(log, t->ids[i]), t->ids[i]);
	}
	bigger.used = t->used;
	free(t->ids);
	*t = bigger;
	return NULL;
}

static uint64_t frame_hash(const struct bp_wait_log *log, uint32_t id)
{
	return log->frames[id].hash;
}

static uint64_t stack_hash(const struct bp_wait_log *log, uint32_t id)
{
	return log->stacks[id].hash;
}

struct bp_err *bp_wait_log_frame(struct bp_wait_log *log, enum bp_host_space space, uint64_t addr,
				 const char *name, uint64_t offset, const char *module, uint32_t *ret)
{
	uint64_t hash = mix_text(mix_text(mix(mix(mix(1, space), addr), offset), name), module);
	struct table *t = &log->frame_ids;
	struct bp_err *err = table_room(t, log, frame_hash);
	struct frame *f;

	*ret = 0;
	if (err)
		return err;
	/* By the hash of what was given first: a frame that got a name later is still found by its address.
	 */
	for (size_t h = hash & (t->cap - 1); t->ids[h]; h = (h + 1) & (t->cap - 1)) {
		f = &log->frames[t->ids[h]];
		if (f->hash == hash && f->f.space == space && f->f.addr == addr) {
			*ret = t->ids[h];
			return NULL;
		}
	}
	if (log->n_frames >= BP_HOST_IDS_MAX)
		return NULL;
	err = grow(&log->frames, &log->frames_cap, log->n_frames, sizeof(*log->frames));
	if (err)
		return err;
	f = &log->frames[log->n_frames];
	*f = (struct frame){
	    .hash = hash,
	    .f =
		{
		    .id = (uint32_t)log->n_frames,
		    .space = (uint8_t)space,
		    .addr = addr,
		    .offset = offset,
		    .name = strdup(name),
		    .module = strdup(module),
		},
	};
	if (!f->f.name || !f->f.module)
		err = bp_err_nomem();
	else
		err = bp_trace_writer_host_frame(log->w, &f->f);
	if (err) {
		free((char *)f->f.name);
		free((char *)f->f.module);
		return err;
	}
	*ret = f->f.id;
	log->n_frames++;
	table_put(t, hash, *ret);
	t->used++;
	return NULL;
}

struct bp_err *bp_wait_log_name(struct bp_wait_log *log, uint32_t id, const char *name, uint64_t offset,
				const char *module)
{
	struct bp_host_frame *f = &log->frames[id].f;
	char *name_copy = strdup(name), *module_copy = strdup(module);

	assert(id && id < log->n_frames);
	if (!name_copy || !module_copy) {
		free(name_copy);
		free(module_copy);
		return bp_err_nomem();
	}
	free((char *)f->name);
	free((char *)f->module);
	f->name = name_copy;
	f->module = module_copy;
	f->offset = offset;
	return bp_trace_writer_host_frame(log->w, f);
}

uint32_t bp_wait_log_n_frames(const struct bp_wait_log *log)
{
	return (uint32_t)log->n_frames - 1;
}

struct bp_host_frame bp_wait_log_get_frame(const struct bp_wait_log *log, uint32_t id)
{
	assert(id && id < log->n_frames);
	return log->frames[id].f;
}

struct bp_err *bp_wait_log_stack(struct bp_wait_log *log, const uint32_t *frames, size_t n, uint32_t *ret)
{
	struct table *t = &log->stack_ids;
	uint64_t hash = 2;
	struct bp_err *err;
	struct stack *s;

	*ret = 0;
	if (n > BP_HOST_STACK_MAX)
		n = BP_HOST_STACK_MAX;
	if (!n)
		return NULL;
	for (size_t i = 0; i < n; i++)
		hash = mix(hash, frames[i]);
	err = table_room(t, log, stack_hash);
	if (err)
		return err;
	for (size_t h = hash & (t->cap - 1); t->ids[h]; h = (h + 1) & (t->cap - 1)) {
		s = &log->stacks[t->ids[h]];
		if (s->hash == hash && s->n == n && !memcmp(s->frames, frames, n * sizeof(*frames))) {
			*ret = t->ids[h];
			return NULL;
		}
	}
	if (log->n_stacks >= BP_HOST_IDS_MAX)
		return NULL;
	err = grow(&log->stacks, &log->stacks_cap, log->n_stacks, sizeof(*log->stacks));
	if (err)
		return err;
	s = &log->stacks[log->n_stacks];
	*s = (struct stack){.frames = malloc(n * sizeof(*frames)), .n = (uint32_t)n, .hash = hash};
	if (!s->frames)
		return bp_err_nomem();
	memcpy(s->frames, frames, n * sizeof(*frames));
	err = bp_trace_writer_host_stack(log->w, (uint32_t)log->n_stacks, frames, n);
	if (err) {
		free(s->frames);
		return err;
	}
	*ret = (uint32_t)log->n_stacks++;
	table_put(t, hash, *ret);
	t->used++;
	return NULL;
}

struct bp_err *bp_wait_log_add(struct bp_wait_log *log, const struct bp_wait *rec)
{
	assert(rec->kind && rec->kind < BP_WAIT_KINDS);
	if (log->n_recs == BP_WAIT_BLOCK) {
		struct bp_err *err = bp_wait_log_flush(log);

		if (err)
			return err;
	}
	log->recs[log->n_recs++] = *rec;
	return NULL;
}

struct bp_err *bp_wait_log_flush(struct bp_wait_log *log)
{
	struct bp_err *err = bp_trace_writer_waits(log->w, log->recs, log->n_recs);

	if (err)
		return err;
	log->n_recs = 0;
	/* Also names and facts that came without records. */
	return bp_trace_writer_flush(log->w);
}

struct bp_err *bp_wait_log_close(struct bp_wait_log *log)
{
	struct bp_err *err = bp_wait_log_flush(log);

	bp_wait_log_destroy(log);
	return err;
}

const char *bp_thread_role(const char *comm, uint16_t *vcpu)
{
	unsigned n = 0;
	const char *p = comm;

	*vcpu = UINT16_MAX;
	if (!strncmp(p, "CPU ", 4) && p[4] >= '0' && p[4] <= '9') {
		for (p += 4; *p >= '0' && *p <= '9' && n < 4096; p++)
			n = n * 10 + (unsigned)(*p - '0');
		/* Older ones say "CPU 0/KVM" or nothing behind the number; with all vCPUs in one thread "ALL
		 * CPUs/TCG". */
		if (n < 4096 && (!*p || *p == '/')) {
			*vcpu = (uint16_t)n;
			return "vCPU";
		}
	}
	if (!strncmp(comm, "ALL CPUs/", 9)) {
		*vcpu = 0;
		return "vCPU";
	}
	if (!strncmp(comm, "qemu-system-", 12) || !strncmp(comm, "qemu-kvm", 8))
		return "main loop";
	if (!strncmp(comm, "IO ", 3))
		return "iothread";
	if (!strcmp(comm, "worker"))
		return "worker";
	return !strcmp(comm, "call_rcu") ? "RCU" : "";
}

bool bp_futex_waits(uint32_t op)
{
	/* Without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME. */
	switch (op & ~UINT32_C(0x180)) {
	case 0:  /* FUTEX_WAIT */
	case 6:  /* FUTEX_LOCK_PI */
	case 9:  /* FUTEX_WAIT_BITSET */
	case 11: /* FUTEX_WAIT_REQUEUE_PI */
	case 13: /* FUTEX_LOCK_PI2 */
		return true;
	default:
		return false;
	}
}
