// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdlib.h>
#include <string.h>

#include "analyzers/walk.h"
#include "cmd/export.h"
#include "core/cleanup.h"

/* Where a task's functions are being shown: task->user is the vCPU's number plus one, 0 for nowhere. */
struct track {
	struct bp_walk_task *task;
	bool seen;
	uint32_t begun; /* functions of the stack, from the outermost, whose begin was told */
	uint64_t now;   /* latest time on this vCPU; never goes back */
	uint64_t task_start;
};

struct slices {
	struct bp_export *x;
	const struct bp_slice_ops *ops;
	uint32_t only;
	struct track *tracks;
	size_t n_tracks;
	bool failed;
};

static uint64_t clock_of(const struct slices *s, const struct bp_walk_now *now)
{
	return s->x->clock == BP_CLOCK_INSNS ? now->vcpu_insns : now->wall_ns;
}

static uint64_t advance(struct track *t, uint64_t time)
{
	if (time > t->now)
		t->now = time;
	return t->now;
}

static bool wanted(const struct slices *s, size_t vcpu)
{
	return s->only == BP_SLICES_ALL || s->only == vcpu;
}

/*
 * A function ends. Begins are told late: when it is known that the function lasts long enough, and then those
 * of its callers, which last longer, go first. So short ones never show and the order of time is kept.
 */
static void leave(struct slices *s, uint32_t vcpu, const struct bp_walk_frame *f, uint32_t depth)
{
	struct track *t = &s->tracks[vcpu];
	const struct bp_walk_frame *stack = f - depth;

	if (t->begun < depth) {
		if (t->now - f->user < s->x->min) {
			s->x->dropped += wanted(s, vcpu);
			return;
		}
		for (uint32_t d = t->begun + 1; d <= depth && wanted(s, vcpu); d++)
			if (s->ops->begin)
				s->ops->begin(s->x, vcpu, stack[d].func, stack[d].user);
	}
	t->begun = depth - 1;
	if (!wanted(s, vcpu))
		return;
	s->x->slices++;
	if (s->ops->end)
		s->ops->end(s->x, vcpu, f->func, f->user, t->now);
}

/* The vCPU turns away from the task that it shows. */
static void close_track(struct slices *s, uint32_t vcpu)
{
	struct track *t = &s->tracks[vcpu];
	struct bp_walk_task *task = t->task;

	if (!task)
		return;
	for (uint32_t d = task->depth; d; d--)
		leave(s, vcpu, &task->stack[d], d);
	if (wanted(s, vcpu) && s->ops->task_end)
		s->ops->task_end(s->x, vcpu, task->id, t->task_start, t->now);
	task->user = 0;
	t->task = NULL;
	t->begun = 0;
}

static bool need_track(struct slices *s, uint32_t vcpu)
{
	if (vcpu >= s->n_tracks) {
		size_t n = (size_t)vcpu + 1;
		struct track *tracks = reallocarray(s->tracks, n, sizeof(*tracks));

		if (!tracks) {
			s->failed = true;
			return false;
		}
		memset(tracks + s->n_tracks, 0, (n - s->n_tracks) * sizeof(*tracks));
		s->tracks = tracks;
		s->n_tracks = n;
	}
	return true;
}

static void on_run(void *ctx, const struct bp_walk_now *now)
{
	struct slices *s = ctx;
	struct bp_walk_task *task = now->task;
	struct track *t;
	uint64_t start;

	if (!need_track(s, now->vcpu) || !bp_export_drain(s->x)) {
		now->walk->stop = true;
		return;
	}
	t = &s->tracks[now->vcpu];
	t->seen = true;
	if (t->task == task)
		return;
	if (task->user)
		close_track(s, (uint32_t)task->user - 1);
	close_track(s, now->vcpu);
	start = advance(t, clock_of(s, now));
	t->task = task;
	t->task_start = start;
	task->user = (uint64_t)now->vcpu + 1;
	for (uint32_t d = 1; d <= task->depth; d++)
		task->stack[d].user = start;
	if (wanted(s, now->vcpu) && s->ops->task_begin)
		s->ops->task_begin(s->x, now->vcpu, task->id, start);
}

static void on_run_end(void *ctx, const struct bp_walk_now *now)
{
	struct slices *s = ctx;

	if (now->vcpu < s->n_tracks && s->tracks[now->vcpu].task == now->task)
		advance(&s->tracks[now->vcpu], clock_of(s, now));
}

static void on_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	struct slices *s = ctx;
	const struct bp_walk_task *task = now->task;

	if (task->user)
		f->user = advance(&s->tracks[task->user - 1], clock_of(s, now));
}

static void on_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		     enum bp_walk_leave how)
{
	struct slices *s = ctx;
	const struct bp_walk_task *task = now->task;
	uint32_t vcpu;

	if (!task->user)
		return;
	vcpu = (uint32_t)task->user - 1;
	if (how != BP_LEAVE_END && vcpu == now->vcpu)
		advance(&s->tracks[vcpu], clock_of(s, now));
	leave(s, vcpu, f, (uint32_t)(f - task->stack));
	if (s->x->out.len >= 1u << 20 && !bp_export_drain(s->x))
		now->walk->stop = true;
}

static const struct bp_walk_ops slice_walk = {
    .on_run = on_run,
    .on_run_end = on_run_end,
    .on_enter = on_enter,
    .on_resume = on_enter,
    .on_leave = on_leave,
};

struct bp_err *bp_slices_run(struct bp_export *x, const struct bp_slice_ops *ops, uint32_t only, bool **seen,
			     size_t *n_seen)
{
	bp_cleanup(bp_walk_destroyp) struct bp_walk *walk = NULL;
	struct slices s = {.x = x, .ops = ops, .only = only};
	struct bp_err *err = bp_walk_create(x->trace, NULL, &walk);

	if (err)
		return err;
	err = bp_walk_run(walk, &slice_walk, &s);
	if (!err && s.failed)
		err = bp_err_nomem();
	if (!err) {
		for (size_t i = 0; i < s.n_tracks; i++)
			close_track(&s, (uint32_t)i);
		x->damaged_blocks = walk->stats.damaged_blocks;
		x->lost_records = walk->stats.lost_records;
	}
	if (!err && seen) {
		*seen = calloc(s.n_tracks ? s.n_tracks : 1, sizeof(**seen));
		if (!*seen)
			err = bp_err_nomem();
		for (size_t i = 0; *seen && i < s.n_tracks; i++)
			(*seen)[i] = s.tracks[i].seen;
		*n_seen = *seen ? s.n_tracks : 0;
	}
	free(s.tracks);
	return err;
}
