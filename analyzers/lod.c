// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/lod.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PYRAMID 16
#define OPEN_VALUES 6
#define TASK_BUCKETS_SHIFT 2 /* planes of tasks have buckets that are 4^1 as wide */

struct cell {
	uint32_t value, longest_value;
	uint32_t count;
	float busy, most, longest;
};

/* The bucket that is being filled: exact sums of its main values; goes into its cell when another one begins.
 */
struct open {
	size_t bucket; /* SIZE_MAX: none */
	unsigned n;
	uint32_t value[OPEN_VALUES];
	double ns[OPEN_VALUES], over[OPEN_VALUES]; /* at most so much of it is not its own */
	struct cell cell;
};

struct plane {
	unsigned shift; /* of the lowest level: a bucket is 2^shift ns */
	size_t n;       /* buckets of the lowest level */
	unsigned n_levels;
	size_t fills; /* buckets that were filled whole */
	struct cell *levels[MAX_PYRAMID];
	struct open open;
};

struct vcpu {
	struct plane *planes[BP_PLANES_VCPU];
	uint32_t depth;
	/* while a run is added */
	uint32_t irq_depth, syscall_depth;
	uint32_t mode;
	uint64_t mode_from;
};

struct bp_lod {
	struct bp_lod_options opt;
	unsigned shift;
	size_t n;
	uint64_t from, to;
	struct vcpu *vcpus[BP_LOD_VCPUS];
	uint32_t n_vcpus;
	struct bp_lod_task tasks[BP_LOD_TASKS];
	struct plane *task_planes[BP_LOD_TASKS];
	uint16_t task_hash[BP_LOD_TASKS * 2];
	size_t n_tasks;
	uint64_t *insns;
	uint64_t *known;        /* bits, by bucket */
	struct plane **touched; /* planes with an open bucket */
	size_t n_touched, cap_touched;
	struct bp_scan scan;
	size_t bytes;
	bool complete;
	bool failed;
	/* the run that is being added */
	struct vcpu *now;
	size_t task;
	uint64_t run_from, busy_from;
};

/* ---- planes ---- */

static void plane_destroy(struct plane *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->n_levels; i++)
		free(p->levels[i]);
	free(p);
}

static size_t level_size(const struct plane *p, unsigned level)
{
	size_t n = p->n;

	while (level--)
		n = (n + 3) / 4;
	return n;
}

static struct plane *plane_get(struct bp_lod *lod, struct plane **at, unsigned coarser)
{
	struct plane *p = *at;

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p) {
		lod->failed = true;
		return NULL;
	}
	p->shift = lod->shift + coarser;
	p->n = (lod->n + (1u << coarser) - 1) >> coarser;
	p->open.bucket = SIZE_MAX;
	for (unsigned i = 0; i < MAX_PYRAMID; i++) {
		size_t n = level_size(p, i);

		p->levels[i] = calloc(n, sizeof(struct cell));
		if (!p->levels[i]) {
			plane_destroy(p);
			lod->failed = true;
			return NULL;
		}
		p->n_levels++;
		lod->bytes += n * sizeof(struct cell);
		if (n == 1)
			break;
	}
	*at = p;
	return p;
}

static bool cell_empty(const struct cell *c)
{
	return !c->count && c->busy <= 0;
}

/* Two parts of one bucket; the value of the majority is kept as well as two sums allow. */
static void cell_add(struct cell *to, const struct cell *from)
{
	if (cell_empty(from))
		return;
	if (cell_empty(to)) {
		*to = *from;
		return;
	}
	if (to->value == from->value) {
		to->most += from->most;
	} else if (from->most > to->most) {
		to->value = from->value;
		to->most = from->most;
	}
	if (from->longest > to->longest) {
		to->longest = from->longest;
		to->longest_value = from->longest_value;
	}
	to->busy += from->busy;
	to->count = to->count + from->count < to->count ? UINT32_MAX : to->count + from->count;
}

static void open_flush(struct plane *p)
{
	struct open *o = &p->open;
	unsigned best = 0;

	if (o->bucket == SIZE_MAX)
		return;
	for (unsigned i = 1; i < o->n; i++) {
		if (o->ns[i] - o->over[i] > o->ns[best] - o->over[best])
			best = i;
	}
	if (o->n) {
		o->cell.value = o->value[best];
		o->cell.most = (float)(o->ns[best] - o->over[best]);
	}
	cell_add(&p->levels[0][o->bucket], &o->cell);
	o->bucket = SIZE_MAX;
}

static struct open *open_at(struct bp_lod *lod, struct plane *p, size_t bucket)
{
	struct open *o = &p->open;

	if (o->bucket == bucket)
		return o;
	if (o->bucket == SIZE_MAX) {
		if (lod->n_touched == lod->cap_touched) {
			size_t cap = lod->cap_touched ? lod->cap_touched * 2 : 256;
			struct plane **t = realloc(lod->touched, cap * sizeof(struct plane *));

			if (!t) {
				lod->failed = true;
				return NULL;
			}
			lod->touched = t;
			lod->cap_touched = cap;
		}
		lod->touched[lod->n_touched++] = p;
	} else {
		open_flush(p);
	}
	memset(o, 0, sizeof(*o));
	o->bucket = bucket;
	return o;
}

/*
 * Space-saving (Metwally, Agrawal, El Abbadi 2005): a new value takes the place and the time of the least
 * one, so that a value with a sixth of the time is always among those kept, and by how much it may be too
 * high is known.
 */
static void open_time(struct open *o, uint32_t value, double ns)
{
	unsigned least = 0;

	o->cell.busy += (float)ns;
	for (unsigned i = 0; i < o->n; i++) {
		if (o->value[i] == value) {
			o->ns[i] += ns;
			return;
		}
	}
	if (o->n < OPEN_VALUES) {
		least = o->n++;
		o->ns[least] = 0;
	} else {
		for (unsigned i = 1; i < OPEN_VALUES; i++) {
			if (o->ns[i] < o->ns[least])
				least = i;
		}
	}
	o->value[least] = value;
	o->over[least] = o->ns[least];
	o->ns[least] += ns;
}

static void open_longest(struct open *o, uint32_t value, uint64_t full_ns)
{
	if ((float)full_ns >= o->cell.longest) {
		o->cell.longest = (float)full_ns;
		o->cell.longest_value = value;
	}
}

/* A slice from @from to @to with length @full_ns in all, and @count beginnings at @from. */
static void plane_slice(struct bp_lod *lod, struct plane *p, uint32_t value, uint64_t from, uint64_t to,
			unsigned count, uint64_t full_ns)
{
	size_t a, b;
	struct open *o;

	if (!p || to < lod->from || from >= lod->to)
		return;
	if (from < lod->from) {
		from = lod->from;
		count = 0;
	}
	if (to > lod->to)
		to = lod->to;
	a = (from - lod->from) >> p->shift;
	b = to > from ? (to - 1 - lod->from) >> p->shift : a;
	o = open_at(lod, p, a);
	if (!o)
		return;
	if (a == b) {
		/* Also what has no length is there, but takes no other's place. */
		if (to > from || !o->n)
			open_time(o, value, (double)(to - from));
		o->cell.count += count;
		open_longest(o, value, full_ns);
		return;
	}
	open_time(o, value, (double)(((uint64_t)(a + 1) << p->shift) - (from - lod->from)));
	o->cell.count += count;
	open_longest(o, value, full_ns);
	open_flush(p);
	/* Slices of a plane do not overlap; those of a recording that makes no sense must not take for ever.
	 */
	for (size_t i = a + 1; i < b && p->fills < 4 * p->n; i++, p->fills++) {
		const float width = (float)((uint64_t)1 << p->shift);
		struct cell full = {.value = value,
				    .longest_value = value,
				    .busy = width,
				    .most = width,
				    .longest = (float)full_ns};

		cell_add(&p->levels[0][i], &full);
	}
	/* The plane stays in the list of touched ones. */
	memset(o, 0, sizeof(*o));
	o->bucket = b;
	open_time(o, value, (double)(to - lod->from - ((uint64_t)b << p->shift)));
	open_longest(o, value, full_ns);
}

/* Buckets above those of @first_ns to @last_ns anew. */
static void plane_lift(const struct bp_lod *lod, struct plane *p, uint64_t first_ns, uint64_t last_ns)
{
	size_t a, b;

	if (last_ns < lod->from || first_ns >= lod->to)
		return;
	a = first_ns > lod->from ? (first_ns - lod->from) >> p->shift : 0;
	b = (last_ns < lod->to ? last_ns - lod->from : lod->to - 1 - lod->from) >> p->shift;
	for (unsigned level = 1; level < p->n_levels; level++) {
		size_t below = level_size(p, level - 1);

		a /= 4;
		b /= 4;
		for (size_t i = a; i <= b; i++) {
			struct cell sum = {0};
			uint32_t value[4];
			float ns[4];
			unsigned n = 0, best = 0;

			for (size_t j = i * 4; j < i * 4 + 4 && j < below; j++) {
				const struct cell *c = &p->levels[level - 1][j];
				unsigned k = 0;

				if (cell_empty(c))
					continue;
				cell_add(&sum, c);
				while (k < n && value[k] != c->value)
					k++;
				if (k == n) {
					value[n] = c->value;
					ns[n++] = 0;
				}
				ns[k] += c->most;
			}
			for (unsigned k = 1; k < n; k++) {
				if (ns[k] > ns[best])
					best = k;
			}
			if (n) {
				sum.value = value[best];
				sum.most = ns[best];
			}
			p->levels[level][i] = sum;
		}
	}
}

/* ---- life ---- */

struct bp_err *bp_lod_create(const struct bp_lod_options *opt, struct bp_lod **ret)
{
	struct bp_lod *lod = calloc(1, sizeof(*lod));
	uint64_t span = opt->to_ns > opt->from_ns ? opt->to_ns - opt->from_ns : 1;

	if (!lod)
		return bp_err_nomem();
	lod->opt = *opt;
	lod->from = opt->from_ns;
	lod->to = opt->from_ns + span;
	while (lod->shift < 62 && ((span - 1) >> lod->shift) + 1 > opt->buckets)
		lod->shift++;
	lod->n = (size_t)((span - 1) >> lod->shift) + 1;
	lod->insns = calloc(lod->n, sizeof(*lod->insns));
	lod->known = calloc(lod->n / 64 + 1, sizeof(*lod->known));
	if (!lod->insns || !lod->known) {
		bp_lod_destroy(lod);
		return bp_err_nomem();
	}
	lod->bytes = sizeof(*lod) + lod->n * sizeof(*lod->insns);
	*ret = lod;
	return NULL;
}

void bp_lod_destroy(struct bp_lod *lod)
{
	if (!lod)
		return;
	for (size_t i = 0; i < BP_LOD_VCPUS; i++) {
		if (!lod->vcpus[i])
			continue;
		for (size_t k = 0; k < BP_PLANES_VCPU; k++)
			plane_destroy(lod->vcpus[i]->planes[k]);
		free(lod->vcpus[i]);
	}
	for (size_t i = 0; i < lod->n_tasks; i++)
		plane_destroy(lod->task_planes[i]);
	bp_scan_deinit(&lod->scan);
	free(lod->insns);
	free(lod->known);
	free(lod->touched);
	free(lod);
}

void bp_lod_functions(struct bp_lod *lod, const struct bp_lod_options *opt)
{
	lod->opt.row_of = opt->row_of;
	lod->opt.mode_of_row = opt->mode_of_row;
	lod->opt.n_funcs = opt->n_funcs;
	lod->opt.n_rows = opt->n_rows;
}

/* ---- adding ---- */

/* Number of the task's plane, SIZE_MAX when there are too many. */
static size_t task_get(struct bp_lod *lod, uint32_t id)
{
	const size_t mask = BP_LOD_TASKS * 2 - 1;
	size_t h = id * 2654435761u & mask;

	for (; lod->task_hash[h]; h = (h + 1) & mask) {
		if (lod->tasks[lod->task_hash[h] - 1].id == id)
			return lod->task_hash[h] - 1u;
	}
	if (lod->n_tasks == BP_LOD_TASKS)
		return SIZE_MAX;
	lod->tasks[lod->n_tasks].id = id;
	lod->task_hash[h] = (uint16_t)++lod->n_tasks;
	return lod->n_tasks - 1;
}

static inline struct plane *vcpu_plane(struct bp_lod *lod, unsigned kind)
{
	return plane_get(lod, &lod->now->planes[kind], 0);
}

static inline void stack_slice(struct bp_lod *lod, const struct bp_scan_frame *f, uint32_t depth,
			       uint64_t now)
{
	if (depth > BP_LOD_LEVELS)
		return;
	plane_slice(lod, vcpu_plane(lod, BP_PLANE_STACK + depth - 1), f->row, f->shown_ns, now, f->fresh,
		    now - f->wall_ns);
	if (depth > lod->now->depth)
		lod->now->depth = depth;
}

/* What the vCPU did until now, as long as it was in one mode. */
static void mode_slice(struct bp_lod *lod, const struct bp_scan_now *now)
{
	struct vcpu *v = lod->now;

	if (v->mode == BP_MODES || now->wall_ns <= v->mode_from)
		return;
	plane_slice(lod, vcpu_plane(lod, BP_PLANE_MODE), v->mode, v->mode_from, now->wall_ns, 1,
		    now->wall_ns - v->mode_from);
	if (v->mode != BP_MODE_IDLE) {
		uint64_t from = v->mode_from > lod->from ? v->mode_from : lod->from;
		uint64_t to = now->wall_ns < lod->to ? now->wall_ns : lod->to;

		plane_slice(lod, vcpu_plane(lod, BP_PLANE_TASK), now->task->id, v->mode_from, now->wall_ns, 0,
			    now->wall_ns - v->mode_from);
		if (lod->task != SIZE_MAX) {
			plane_slice(lod, plane_get(lod, &lod->task_planes[lod->task], TASK_BUCKETS_SHIFT),
				    now->vcpu, v->mode_from, now->wall_ns, 0, now->wall_ns - v->mode_from);
			if (to > from)
				lod->tasks[lod->task].busy += (double)(to - from);
		}
	}
	v->mode_from = now->wall_ns;
}

static inline void on_run(void *ctx, const struct bp_scan_now *now)
{
	struct bp_lod *lod = ctx;
	struct vcpu *v;

	lod->now = NULL;
	if (now->vcpu >= BP_LOD_VCPUS)
		return;
	if (!lod->vcpus[now->vcpu]) {
		lod->vcpus[now->vcpu] = calloc(1, sizeof(struct vcpu));
		if (!lod->vcpus[now->vcpu]) {
			lod->failed = true;
			return;
		}
		if (now->vcpu >= lod->n_vcpus)
			lod->n_vcpus = now->vcpu + 1;
	}
	v = lod->now = lod->vcpus[now->vcpu];
	lod->task = task_get(lod, now->task->id);
	v->irq_depth = v->syscall_depth = 0;
	for (uint32_t i = 1; i <= now->task->depth; i++) {
		const struct bp_scan_frame *f = &now->task->stack[i];

		if (f->kind == BP_EV_IRQ && !v->irq_depth)
			v->irq_depth = i;
		if (f->syscall != BP_SCAN_NO_SYSCALL && !v->syscall_depth)
			v->syscall_depth = i;
	}
	lod->run_from = now->wall_ns;
	v->mode = BP_MODES;
	v->mode_from = now->wall_ns;
	/* The beginning of the run is a slice of the task, even when it has no length. */
	plane_slice(lod, vcpu_plane(lod, BP_PLANE_TASK), now->task->id, now->wall_ns, now->wall_ns, 1, 0);
	if (lod->task != SIZE_MAX)
		plane_slice(lod, plane_get(lod, &lod->task_planes[lod->task], TASK_BUCKETS_SHIFT), now->vcpu,
			    now->wall_ns, now->wall_ns, 1, 0);
}

/* Evenly over the time in which they were executed. */
static inline void add_insns(struct bp_lod *lod, uint64_t from, uint64_t to, uint64_t di)
{
	uint64_t first, last, left = di;
	double each = to > from ? (double)di / (double)(to - from) : 0;

	if (to < lod->from || from >= lod->to)
		return;
	first = from > lod->from ? (from - lod->from) >> lod->shift : 0;
	last = to < lod->to ? (to - lod->from) >> lod->shift : lod->n - 1;
	if (first == last && from >= lod->from && to <= lod->to) {
		lod->insns[first] += di;
		return;
	}
	for (uint64_t i = first; i <= last; i++) {
		uint64_t start = lod->from + (i << lod->shift), end = start + ((uint64_t)1 << lod->shift),
			 part;

		start = start > from ? start : from;
		end = end < to ? end : to;
		part = end > start ? (uint64_t)(each * (double)(end - start)) : 0;
		/* What rounding leaves over belongs to the end. */
		if (part > left || (end == to && to <= lod->to))
			part = left;
		lod->insns[i] += part;
		left -= part;
	}
}

static inline void on_time(void *ctx, struct bp_scan_frame *top, const struct bp_scan_now *now, uint32_t dt,
			   uint32_t di)
{
	struct bp_lod *lod = ctx;
	struct vcpu *v = lod->now;
	uint32_t mode;

	if (!v)
		return;
	if (di)
		add_insns(lod, now->wall_ns - dt, now->wall_ns, di);
	if (!dt)
		return;
	mode = top->row == BP_SCAN_NO_ROW ? BP_MODE_UNKNOWN : lod->opt.mode_of_row[top->row];
	if (mode != v->mode) {
		struct bp_scan_now before = *now;

		before.wall_ns -= dt;
		mode_slice(lod, &before);
		v->mode = mode;
		v->mode_from = before.wall_ns;
	}
	if (top->row != BP_SCAN_NO_ROW && mode != BP_MODE_IDLE)
		plane_slice(lod, vcpu_plane(lod, BP_PLANE_TOP), top->row, now->wall_ns - dt, now->wall_ns, 0,
			    dt);
}

static inline void on_enter(void *ctx, struct bp_scan_frame *f, uint32_t depth, const struct bp_scan_now *now)
{
	struct bp_lod *lod = ctx;
	struct vcpu *v = lod->now;

	if (!v)
		return;
	plane_slice(lod, vcpu_plane(lod, BP_PLANE_TOP), f->row, now->wall_ns, now->wall_ns, 1, 0);
	if (f->kind == BP_EV_IRQ && !v->irq_depth)
		v->irq_depth = depth;
	if (f->syscall != BP_SCAN_NO_SYSCALL && !v->syscall_depth)
		v->syscall_depth = depth;
}

static inline void irq_slice(struct bp_lod *lod, const struct bp_scan_frame *f, uint64_t now)
{
	plane_slice(lod, vcpu_plane(lod, BP_PLANE_IRQ), f->row, f->shown_ns, now, f->fresh, now - f->wall_ns);
}

static inline void syscall_slice(struct bp_lod *lod, const struct bp_scan_frame *f, uint64_t now)
{
	plane_slice(lod, vcpu_plane(lod, BP_PLANE_SYSCALL), f->syscall, f->shown_ns, now, f->fresh,
		    now - f->wall_ns);
}

static inline void on_leave(void *ctx, struct bp_scan_frame *f, uint32_t depth, const struct bp_scan_now *now)
{
	struct bp_lod *lod = ctx;
	struct vcpu *v = lod->now;

	if (!v)
		return;
	stack_slice(lod, f, depth, now->wall_ns);
	if (depth == v->irq_depth) {
		irq_slice(lod, f, now->wall_ns);
		v->irq_depth = 0;
	}
	if (depth == v->syscall_depth) {
		syscall_slice(lod, f, now->wall_ns);
		v->syscall_depth = 0;
	}
}

static inline void on_run_end(void *ctx, const struct bp_scan_now *now)
{
	struct bp_lod *lod = ctx;
	struct vcpu *v = lod->now;
	struct bp_scan_task *t = now->task;

	if (!v)
		return;
	mode_slice(lod, now);
	for (uint32_t d = t->depth; d; d--) {
		stack_slice(lod, &t->stack[d], d, now->wall_ns);
		if (d == v->irq_depth)
			irq_slice(lod, &t->stack[d], now->wall_ns);
		if (d == v->syscall_depth)
			syscall_slice(lod, &t->stack[d], now->wall_ns);
	}
	v->irq_depth = v->syscall_depth = 0;
}

static const struct bp_scan_ops ops = {
    .on_run = on_run,
    .on_run_end = on_run_end,
    .on_enter = on_enter,
    .on_leave = on_leave,
    .on_time = on_time,
};

struct bp_err *bp_lod_add(struct bp_lod *lod, const struct bp_block *block, uint64_t first_ns,
			  uint64_t last_ns)
{
	struct bp_err *err = bp_scan_block(&lod->scan, block, lod->opt.row_of, &ops, lod);

	for (size_t i = 0; i < lod->n_touched; i++) {
		open_flush(lod->touched[i]);
		plane_lift(lod, lod->touched[i], first_ns, last_ns);
	}
	lod->n_touched = 0;
	if (last_ns >= lod->from && first_ns < lod->to) {
		size_t a = first_ns > lod->from ? (first_ns - lod->from) >> lod->shift : 0;
		size_t b = (last_ns < lod->to ? last_ns - lod->from : lod->to - 1 - lod->from) >> lod->shift;

		for (; a <= b; a++)
			lod->known[a / 64] |= (uint64_t)1 << a % 64;
	}
	if (!err && lod->failed)
		err = bp_err_nomem();
	return err;
}

bool bp_lod_next(const struct bp_lod *lod, uint32_t vcpu, unsigned kind, uint64_t ns, bool back,
		 uint64_t *from_ns, uint64_t *to_ns)
{
	const struct plane *p = vcpu < BP_LOD_VCPUS && lod->vcpus[vcpu] && kind < BP_PLANES_VCPU
				    ? lod->vcpus[vcpu]->planes[kind]
				    : NULL;
	size_t i;

	if (!p || (back ? ns <= lod->from : ns >= lod->to))
		return false;
	if (ns < lod->from)
		ns = lod->from;
	i = ns >= lod->to ? p->n - 1 : (size_t)((ns - lod->from) >> p->shift);
	while (!p->levels[0][i].count) {
		if (back ? !i : i + 1 == p->n)
			return false;
		i = back ? i - 1 : i + 1;
	}
	*from_ns = lod->from + ((uint64_t)i << p->shift);
	*to_ns = *from_ns + ((uint64_t)1 << p->shift);
	return true;
}

/* ---- asking ---- */

uint64_t bp_lod_bucket_ns(const struct bp_lod *lod)
{
	return (uint64_t)1 << lod->shift;
}

void bp_lod_range(const struct bp_lod *lod, uint64_t *from_ns, uint64_t *to_ns)
{
	*from_ns = lod->from;
	*to_ns = lod->to;
}

size_t bp_lod_bytes(const struct bp_lod *lod)
{
	return lod->bytes;
}

uint32_t bp_lod_n_vcpus(const struct bp_lod *lod)
{
	return lod->n_vcpus;
}

uint32_t bp_lod_depth(const struct bp_lod *lod, uint32_t vcpu)
{
	return vcpu < BP_LOD_VCPUS && lod->vcpus[vcpu] ? lod->vcpus[vcpu]->depth : 0;
}

const struct bp_lod_task *bp_lod_tasks(const struct bp_lod *lod, size_t *n)
{
	*n = lod->n_tasks;
	return lod->tasks;
}

const uint64_t *bp_lod_insns(const struct bp_lod *lod, size_t *n)
{
	*n = lod->n;
	return lod->insns;
}

struct sums {
	unsigned n;
	uint32_t value[8];
	double ns[8];
};

static void sums_add(struct sums *s, uint32_t value, double ns)
{
	unsigned least = 0;

	for (unsigned i = 0; i < s->n; i++) {
		if (s->value[i] == value) {
			s->ns[i] += ns;
			return;
		}
		if (s->ns[i] < s->ns[least])
			least = i;
	}
	if (s->n < 8)
		least = s->n++;
	else if (s->ns[least] >= ns)
		return;
	s->value[least] = value;
	s->ns[least] = ns;
}

/* The part of the buckets from @from to @to that blocks have been added to. */
static double known_part(const struct bp_lod *lod, uint64_t from, uint64_t to)
{
	size_t a, b, n = 0;

	if (lod->complete || to <= lod->from || from >= lod->to || to <= from)
		return 1;
	a = from > lod->from ? (from - lod->from) >> lod->shift : 0;
	b = ((to < lod->to ? to : lod->to) - 1 - lod->from) >> lod->shift;
	for (size_t i = a; i <= b;) {
		if (i % 64 == 0 && i + 63 <= b) {
			n += (size_t)__builtin_popcountll(lod->known[i / 64]);
			i += 64;
		} else {
			n += lod->known[i / 64] >> i % 64 & 1;
			i++;
		}
	}
	return (double)n / (double)(b - a + 1);
}

void bp_lod_complete(struct bp_lod *lod)
{
	lod->complete = true;
}

static void column(const struct bp_lod *lod, const struct plane *p, uint64_t from, uint64_t to,
		   struct bp_lod_col *out)
{
	struct sums sums = {0};
	unsigned level = 0;
	uint64_t first, last; /* buckets, the last one not in it */
	double scale = 1;

	*out = (struct bp_lod_col){
	    .value = BP_LOD_NONE, .longest_value = BP_LOD_NONE, .span = to > from ? (double)(to - from) : 0};
	out->known = known_part(lod, from, to);
	if (!p || to <= lod->from || from >= lod->to || to <= from)
		return;
	from = from > lod->from ? from - lod->from : 0;
	to = (to < lod->to ? to : lod->to) - lod->from;
	while (level + 1 < p->n_levels && p->shift + 2 * level < 56 &&
	       (uint64_t)8 << (p->shift + 2 * (level + 1)) <= to - from)
		level++;
	/* Buckets that begin in the column; a column narrower than a bucket shares the one around it. */
	first = (from + ((uint64_t)1 << (p->shift + 2 * level)) - 1) >> (p->shift + 2 * level);
	last = (to + ((uint64_t)1 << (p->shift + 2 * level)) - 1) >> (p->shift + 2 * level);
	if (first == last) {
		double width = (double)((uint64_t)1 << p->shift);

		first--;
		scale = (double)(to - from) / width;
	}
	for (uint64_t i = first; i < last && i < level_size(p, level); i++) {
		const struct cell *c = &p->levels[level][i];

		if (cell_empty(c))
			continue;
		out->busy += c->busy * scale;
		out->count += c->count;
		if (c->longest >= out->longest) {
			out->longest = c->longest;
			out->longest_value = c->longest_value;
		}
		sums_add(&sums, c->value, c->most * scale);
	}
	for (unsigned i = 0; i < sums.n; i++) {
		if (!i || sums.ns[i] > out->most) {
			out->most = sums.ns[i];
			out->value = sums.value[i];
		}
	}
}

void bp_lod_columns(const struct bp_lod *lod, uint32_t vcpu, unsigned kind, const uint64_t *edges, size_t n,
		    struct bp_lod_col *out)
{
	const struct plane *p = NULL;

	if (vcpu < BP_LOD_VCPUS && lod->vcpus[vcpu] && kind < BP_PLANES_VCPU)
		p = lod->vcpus[vcpu]->planes[kind];
	for (size_t i = 0; i < n; i++)
		column(lod, p, edges[i], edges[i + 1], &out[i]);
}

void bp_lod_task_columns(const struct bp_lod *lod, size_t task, const uint64_t *edges, size_t n,
			 struct bp_lod_col *out)
{
	const struct plane *p = task < lod->n_tasks ? lod->task_planes[task] : NULL;

	for (size_t i = 0; i < n; i++)
		column(lod, p, edges[i], edges[i + 1], &out[i]);
}
