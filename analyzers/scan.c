// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/scan.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 64

void bp_scan_deinit(struct bp_scan *s)
{
	for (size_t i = 0; i < s->cap_tasks; i++)
		free(s->tasks[i].stack);
	free(s->tasks);
	free(s->hash);
	memset(s, 0, sizeof(*s));
}

void bp_scan_reset(struct bp_scan *s)
{
	s->n_tasks = 0;
	if (s->hash)
		memset(s->hash, 0, s->hash_size * sizeof(*s->hash));
}

struct bp_err *bp_scan_grow(struct bp_scan_task *t)
{
	uint32_t cap = t->cap ? t->cap * 2 : FIRST_CAP;
	struct bp_scan_frame *stack = realloc(t->stack, cap * sizeof(*stack));

	if (!stack)
		return bp_err_nomem();
	t->stack = stack;
	t->cap = cap;
	return NULL;
}

static size_t slot(const struct bp_scan *s, uint32_t id)
{
	size_t h = id * 2654435761u & (s->hash_size - 1);

	while (s->hash[h] && s->tasks[s->hash[h] - 1].id != id)
		h = (h + 1) & (s->hash_size - 1);
	return h;
}

static struct bp_err *more_tasks(struct bp_scan *s)
{
	size_t cap = s->cap_tasks ? s->cap_tasks * 2 : 32;
	struct bp_scan_task *tasks = realloc(s->tasks, cap * sizeof(*tasks));
	uint32_t *hash;

	if (!tasks)
		return bp_err_nomem();
	memset(tasks + s->cap_tasks, 0, (cap - s->cap_tasks) * sizeof(*tasks));
	s->tasks = tasks;
	s->cap_tasks = cap;
	hash = calloc(cap * 4, sizeof(*hash));
	if (!hash)
		return bp_err_nomem();
	free(s->hash);
	s->hash = hash;
	s->hash_size = cap * 4;
	for (size_t i = 0; i < s->n_tasks; i++)
		s->hash[slot(s, s->tasks[i].id)] = (uint32_t)i + 1;
	return NULL;
}

static struct bp_err *get_task(struct bp_scan *s, uint32_t id, struct bp_scan_task **ret)
{
	struct bp_scan_task *t;
	struct bp_err *err;
	size_t h;

	if (s->n_tasks == s->cap_tasks) {
		err = more_tasks(s);
		if (err)
			return err;
	}
	h = slot(s, id);
	if (!s->hash[h]) {
		t = &s->tasks[s->n_tasks];
		if (!t->cap) {
			err = bp_scan_grow(t);
			if (err)
				return err;
		}
		t->id = id;
		t->depth = 0;
		t->pending = BP_SCAN_NO_SYSCALL;
		t->stack[0] = (struct bp_scan_frame){.row = BP_SCAN_NO_ROW, .syscall = BP_SCAN_NO_SYSCALL};
		s->hash[h] = (uint32_t)++s->n_tasks;
	}
	*ret = &s->tasks[s->hash[h] - 1];
	return NULL;
}

struct bp_err *bp_scan_begin(struct bp_scan *s, const struct bp_block *b, const struct bp_run *run,
			     const uint32_t *row_of, struct bp_scan_task **ret)
{
	struct bp_scan_task *t;
	struct bp_err *err = get_task(s, run->task, &t);

	if (err)
		return err;
	if (run->n_frames != BP_RUN_NO_STACK) {
		t->depth = 0;
		while (t->cap <= run->n_frames + 1) {
			err = bp_scan_grow(t);
			if (err)
				return err;
		}
		for (uint32_t i = 0; i < run->n_frames; i++) {
			const struct bp_frame *f = &b->frames[run->first_frame + i];

			t->stack[++t->depth] = (struct bp_scan_frame){
			    .row = row_of[f->func],
			    .syscall = BP_SCAN_NO_SYSCALL,
			    .kind = f->kind,
			    .wall_ns = f->wall_ns < run->time_ns ? f->wall_ns : run->time_ns,
			    .insns = f->insns < run->cpu_insns ? f->insns : run->cpu_insns,
			};
		}
	}
	for (uint32_t i = 1; i <= t->depth; i++) {
		t->stack[i].shown_ns = run->time_ns;
		t->stack[i].fresh = false;
	}
	*ret = t;
	return NULL;
}
