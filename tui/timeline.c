// SPDX-License-Identifier: GPL-2.0-or-later
/* Screen 1: tracks against time. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/parts.h"
#include "analyzers/phases.h"
#include "core/cleanup.h"
#include "core/units.h"
#include "tui/host.h"
#include "tui/tui.h"

#define MAX_TASK_TRACKS 12
#define MAX_PINNED 4
#define DETAIL_H 6
#define ZOOM 2.0

enum track_kind {
	TRACK_PHASES,
	TRACK_CONSOLE,
	TRACK_VCPU, /* which task */
	TRACK_MODE,
	TRACK_TOP,   /* the function on top of the stack: where the time goes */
	TRACK_DIFF,  /* with a baseline: how the own cost of that function changed */
	TRACK_STACK, /* one level of it */
	TRACK_IRQ,
	TRACK_SYSCALL,
	TRACK_TASK,
	TRACK_HOST, /* why one of QEMU's threads was off the CPU */
};

struct track {
	enum track_kind kind;
	uint32_t vcpu;
	uint32_t level; /* of a stack, from 1; task id; number of the host's thread */
};

enum fold { FOLD_AUTO, FOLD_CLOSED, FOLD_FULL };

struct timeline {
	struct bp_host *host; /* NULL: no waits were recorded */
	struct track sel;
	struct track pinned[MAX_PINNED];
	unsigned n_pinned;
	uint8_t fold[BP_LOD_VCPUS];
	uint32_t level_top[BP_LOD_VCPUS]; /* first level that is shown, less 1 */
	bool tasks_folded;
	int top;     /* first of the tracks that scroll */
	bool follow; /* scroll so that the selected track can be seen */
	bool moved;  /* the selected function becomes the one under the cursor */
	bool dragging;
	uint32_t n_vcpus;

	/* of the last drawing */
	struct track *tracks; /* the lines of the screen, from the first track on */
	int n_tracks, cap_tracks;
	int x, w; /* where the columns are */
	int y;    /* of tracks[0] */
	uint64_t *edges;
	struct bp_lod_col *cols;
	int cap_w;
	struct bp_index_stack stack;
	uint64_t stack_ns, stack_changes;
	uint32_t stack_vcpu;
	bool stack_made;
	struct bp_lod_col cell; /* under the cursor, on the selected track */
};

static bool same_track(const struct track *a, const struct track *b)
{
	return a->kind == b->kind && a->vcpu == b->vcpu && a->level == b->level;
}

/* ---- life ---- */

static void timeline_close(struct bp_tui *tui, void *self)
{
	struct timeline *t = self;

	(void)tui;
	if (!t)
		return;
	bp_host_destroy(t->host);
	free(t->tracks);
	free(t->edges);
	free(t->cols);
	bp_index_stack_deinit(&t->stack);
	free(t);
}

static struct bp_err *timeline_open(struct bp_tui *tui, void **ret)
{
	struct timeline *t = calloc(1, sizeof(*t));
	struct bp_err *err;

	if (!t)
		return bp_err_nomem();
	err = bp_host_create(tui->trace, tui->threads, &t->host);
	if (err) {
		timeline_close(tui, t);
		return err;
	}
	t->sel = (struct track){.kind = TRACK_STACK, .level = 1};
	tui->cursor_depth = 1;
	*ret = t;
	return NULL;
}

/* ---- columns and time ---- */

static double column_pos(const struct bp_tui *tui, const struct timeline *t, double column)
{
	return tui->window.from + (tui->window.to - tui->window.from) * column / (t->w > 0 ? t->w : 1);
}

static int pos_column(const struct bp_tui *tui, const struct timeline *t, double pos)
{
	double c = floor((pos - tui->window.from) / (tui->window.to - tui->window.from) * t->w);

	return c < -1 ? -1 : c > t->w ? t->w : (int)c;
}

static int ns_column(const struct bp_tui *tui, const struct timeline *t, uint64_t ns)
{
	return pos_column(tui, t, bp_tui_pos(tui, ns));
}

static void make_edges(const struct bp_tui *tui, struct timeline *t, double from, double to)
{
	for (int i = 0; i <= t->w; i++) {
		t->edges[i] = bp_tui_ns(tui, from + (to - from) * i / t->w);
		if (i && t->edges[i] < t->edges[i - 1])
			t->edges[i] = t->edges[i - 1];
	}
}

/* ---- what values are called and look like ---- */

static const char *value_name(const struct bp_tui *tui, const struct track *t, uint32_t value, char *buf,
			      size_t size)
{
	static const char *const modes[BP_MODES] = {
	    [BP_MODE_UNKNOWN] = "unknown", [BP_MODE_FIRMWARE] = "firmware", [BP_MODE_KERNEL] = "kernel",
	    [BP_MODE_MODULE] = "module",   [BP_MODE_USER] = "user",         [BP_MODE_IDLE] = "idle",
	};

	switch (t->kind) {
	case TRACK_VCPU:
		return bp_analysis_task_name(tui->a, value, buf);
	case TRACK_MODE:
		return value < BP_MODES ? modes[value] : "";
	case TRACK_SYSCALL:
		return value == BP_LOD_NONE ? "system call" : bp_syscall_name(value, buf, size);
	case TRACK_TASK:
		snprintf(buf, size, "vCPU %" PRIu32, value);
		return buf;
	case TRACK_HOST:
		return value < BP_OFF_CLASSES ? bp_off_class_name((enum bp_off_class)value) : "";
	default:
		return bp_row_name(&tui->a->rows, value, buf);
	}
}

static unsigned value_style(const struct bp_tui *tui, const struct track *t, uint32_t value)
{
	static const uint8_t modes[BP_MODES] = {
	    [BP_MODE_UNKNOWN] = BP_STYLE_OTHER, [BP_MODE_FIRMWARE] = BP_STYLE_FIRMWARE,
	    [BP_MODE_KERNEL] = BP_STYLE_KERNEL, [BP_MODE_MODULE] = BP_STYLE_MODULE,
	    [BP_MODE_USER] = BP_STYLE_USER,     [BP_MODE_IDLE] = BP_STYLE_IDLE,
	};
	static const uint8_t waits[BP_OFF_CLASSES] = {
	    [BP_OFF_PREEMPTED] = BP_STYLE_USER, [BP_OFF_LOCK] = BP_STYLE_IRQ,
	    [BP_OFF_HALT] = BP_STYLE_IDLE,      [BP_OFF_IO] = BP_STYLE_SYSCALL,
	    [BP_OFF_FAULT] = BP_STYLE_FIRMWARE, [BP_OFF_KERNEL] = BP_STYLE_KERNEL,
	    [BP_OFF_FUTEX] = BP_STYLE_MODULE,   [BP_OFF_POLL] = BP_STYLE_IDLE,
	    [BP_OFF_OTHER] = BP_STYLE_OTHER,
	};
	const struct bp_task_info *task;

	switch (t->kind) {
	case TRACK_HOST:
		return value < BP_OFF_CLASSES ? waits[value] : BP_STYLE_OTHER;
	case TRACK_VCPU:
		task = bp_analysis_task(tui->a, value);
		if (task->flags & BP_TASK_IDLE)
			return BP_STYLE_IDLE;
		return task->flags & BP_TASK_BOOT     ? BP_STYLE_FIRMWARE
		       : task->flags & BP_TASK_KERNEL ? BP_STYLE_KERNEL
						      : BP_STYLE_USER;
	case TRACK_MODE:
		return value < BP_MODES ? modes[value] : BP_STYLE_OTHER;
	case TRACK_SYSCALL:
		return BP_STYLE_SYSCALL;
	case TRACK_IRQ:
		return BP_STYLE_IRQ;
	case TRACK_TASK:
		return value & 1 ? BP_STYLE_MODULE : BP_STYLE_USER;
	default:
		return bp_tui_style_of(tui, value);
	}
}

static bool is_function_track(const struct track *t)
{
	return t->kind == TRACK_STACK || t->kind == TRACK_TOP || t->kind == TRACK_IRQ;
}

/* A filter by module or process dims the rest. */
static bool filtered_out(const struct bp_tui *tui, const struct track *t, uint32_t value)
{
	char buf[BP_TASK_NAME_MAX];

	if (is_function_track(t) && tui->filter.modules)
		return value >= tui->a->rows.n ||
		       !bp_patterns_match_module(tui->filter.modules, bp_row_module(&tui->a->rows, value));
	if (t->kind == TRACK_VCPU && tui->filter.processes)
		return !bp_patterns_match(tui->filter.processes, bp_analysis_task_name(tui->a, value, buf),
					  NULL);
	return false;
}

/* ---- one line ---- */

/* A stretch of columns filled with one thing: its left edge, its name, what is left over. */
static void draw_run(struct bp_grid *g, int x, int y, int n, unsigned style, const char *name, bool dense)
{
	uint32_t edge = g->ascii ? '|' : 0x258f, rest;
	int used;

	if (dense)
		rest = g->ascii ? ':' : 0xb7;
	else
		rest = !g->plain ? ' ' : g->ascii ? '=' : 0x2500;
	bp_grid_put(g, x, y, edge, style);
	used = n >= 4 ? 1 + bp_grid_text(g, x + 1, y, n - 1, style, name) : 1;
	bp_grid_fill(g, x + used, y, n - used, rest, style);
}

static bool begins_here(const struct bp_lod_col *c)
{
	/* One call that goes on beyond this column. */
	return c->count == 1 && c->longest >= c->span;
}

static void draw_columns(const struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y,
			 const struct track *track)
{
	const struct bp_lod_col *cols = t->cols;
	unsigned last_style = 0;
	bool alt = false;

	for (int i = 0, j; i < t->w; i = j) {
		const struct bp_lod_col *c = &cols[i];
		double busy = 0, span = 0;
		uint64_t count = 0;
		unsigned style;
		char buf[64];

		j = i + 1;
		if (c->value == BP_LOD_NONE && !c->count && c->busy <= 0) {
			if (c->known < 0.01)
				bp_grid_put(g, t->x + i, y, g->ascii ? '?' : 0x2591, BP_STYLE_DIM);
			last_style = 0;
			continue;
		}
		while (j < t->w && cols[j].value == c->value && (cols[j].busy > 0 || cols[j].count) &&
		       !begins_here(&cols[j]))
			j++;
		for (int k = i; k < j; k++) {
			busy += cols[k].busy;
			span += cols[k].span * cols[k].known;
			count += cols[k].count;
		}
		style = value_style(tui, track, c->value);
		if (is_function_track(track) && tui->search.rows && c->value < tui->a->rows.n &&
		    tui->search.rows[c->value])
			style = BP_STYLE_MATCH;
		else if (filtered_out(tui, track, c->value))
			style = BP_STYLE_DIM;
		alt = style == last_style && !alt;
		last_style = style;
		if (alt)
			style |= BP_STYLE_ALT;
		if (is_function_track(track) && c->value == tui->selected)
			style |= BP_STYLE_SELECT;
		if (j - i >= 2 && (span <= 0 || busy >= span / 2)) {
			draw_run(g, t->x + i, y, j - i, style | BP_STYLE_FILL,
				 value_name(tui, track, c->value, buf, sizeof(buf)),
				 count > (uint64_t)(j - i));
			continue;
		}
		for (int k = i; k < j; k++) {
			double read = cols[k].span * cols[k].known;
			double part = read > 0 ? cols[k].busy / read : 1;

			bp_grid_put(g, t->x + k, y, bp_grid_level(g, part > 0.01 ? part : 0.01), style);
		}
	}
}

/* What most of a column's own time is of: does it cost more or less than in the baseline, or is it new? */
static void draw_changes(struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y)
{
	static const struct {
		char sign;
		unsigned style;
	} signs[] = {
	    [BP_CHANGE_NONE] = {' ', BP_STYLE_TEXT},
	    [BP_CHANGE_MORE] = {'+', BP_STYLE_WARN},
	    [BP_CHANGE_LESS] = {'-', BP_STYLE_SYSCALL},
	    [BP_CHANGE_NEW] = {'N', BP_STYLE_MATCH},
	};
	const uint8_t *changes = bp_compare_changes(tui->compare, &tui->a->rows, tui->clock, tui->threads);

	if (!changes) {
		if (bp_compare_busy(tui->compare, false)) {
			bp_grid_text(g, t->x, y, t->w, BP_STYLE_DIM, "being compared");
			tui->pending = true;
		}
		return;
	}
	for (int i = 0; i < t->w; i++) {
		uint8_t change =
		    t->cols[i].value < tui->a->rows.n ? changes[t->cols[i].value] : BP_CHANGE_NONE;

		bp_grid_put(g, t->x + i, y, (unsigned char)signs[change].sign, signs[change].style);
	}
}

static void draw_phases(const struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y)
{
	for (size_t i = 0; i < tui->a->n_phases; i++) {
		const struct bp_phase *p = &tui->a->phases[i];
		int from = ns_column(tui, t, p->start_ns), to = ns_column(tui, t, p->end_ns);

		from = from < 0 ? 0 : from;
		to = to > t->w ? t->w : to;
		if (to > from)
			draw_run(g, t->x + from, y, to - from,
				 BP_STYLE_OTHER | BP_STYLE_FILL | (i & 1 ? BP_STYLE_ALT : 0), p->name, false);
		else if (p->end_ns > p->start_ns && from < t->w &&
			 bp_tui_pos(tui, p->start_ns) >= tui->window.from)
			bp_grid_put(g, t->x + from, y, g->ascii ? '|' : 0x258f, BP_STYLE_OTHER);
	}
}

static void draw_console(const struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y)
{
	for (int i = 0; i < t->w; i++) {
		size_t n = bp_tui_console_until(tui, t->edges[i + 1] ? t->edges[i + 1] - 1 : 0) -
			   (t->edges[i] ? bp_tui_console_until(tui, t->edges[i] - 1) : 0);

		if (n)
			bp_grid_put(g, t->x + i, y,
				    g->ascii ? (n > 9   ? '#'
						: n > 1 ? '0' + (uint32_t)n
							: 'v')
				    : n > 9  ? 0x2588
				    : n > 4  ? 0x2593
				    : n > 1  ? 0x2592
					     : 0x25be,
				    BP_STYLE_SYSCALL);
	}
}

/* "3.72s", "150k": three digits, and no room for a blank. */
static const char *short_length(const struct bp_tui *tui, double length, char buf[BP_UNITS_MAX])
{
	static const struct {
		double scale;
		const char *name[2];
	} units[] = {{1e9, {"s", "G"}}, {1e6, {"ms", "M"}}, {1e3, {"us", "k"}}, {1, {"ns", ""}}};
	size_t i = 0;

	while (i + 1 < BP_ARRAY_SIZE(units) && length < units[i].scale)
		i++;
	snprintf(buf, BP_UNITS_MAX, "%.3g%s", length / units[i].scale, units[i].name[tui->clock]);
	return buf;
}

/* The whole recording in one line, with the window in it. */
static void draw_overview(const struct bp_tui *tui, struct timeline *t, struct bp_grid *g, int y)
{
	const struct bp_lod *whole = bp_index_whole(tui->index);
	uint32_t vcpus = bp_lod_n_vcpus(whole);
	double start = bp_tui_start(tui), end = bp_tui_end(tui), scale = t->w / (end - start);
	int a = (int)floor((tui->window.from - start) * scale),
	    b = (int)ceil((tui->window.to - start) * scale);
	struct track mode = {.kind = TRACK_MODE};
	char buf[BP_UNITS_MAX];

	bp_grid_text(g, 0, y, t->x - 1, BP_STYLE_DIM, " all");
	bp_grid_text(g, 5, y, t->x - 6, BP_STYLE_DIM, short_length(tui, end - start, buf));
	make_edges(tui, t, start, end);
	for (int i = 0; i < t->w; i++) {
		double busy = 0, span = 0, most = 0;
		uint32_t value = BP_LOD_NONE;
		bool known = false;

		for (uint32_t v = 0; v < vcpus; v++) {
			struct bp_lod_col c;

			bp_lod_columns(whole, v, BP_PLANE_MODE, t->edges + i, 1, &c);
			known |= c.known >= 0.01;
			span += c.span * c.known;
			if (c.value == BP_LOD_NONE)
				continue;
			if (c.value != BP_MODE_IDLE || c.most < c.busy) {
				busy += c.value == BP_MODE_IDLE ? c.busy - c.most : c.busy;
				if (c.busy > most && c.value != BP_MODE_IDLE) {
					most = c.busy;
					value = c.value;
				}
			}
		}
		if (busy > 0 && span > 0)
			bp_grid_put(g, t->x + i, y, bp_grid_level(g, busy / span),
				    value == BP_LOD_NONE ? (unsigned)BP_STYLE_IDLE
							 : value_style(tui, &mode, value));
		else if (vcpus && !known)
			bp_grid_put(g, t->x + i, y, g->ascii ? '?' : 0x2591, BP_STYLE_DIM);
	}
	if (a <= 0 && b >= t->w)
		return;
	bp_grid_put(g, t->x + a, y, '[', BP_STYLE_MARK);
	bp_grid_put(g, t->x + (b > a + 1 ? b - 1 : b >= t->w ? t->w - 1 : a + 1), y, ']', BP_STYLE_MARK);
}

/* A step of 1, 2 or 5 times a power of ten that leaves room for the texts. */
static double axis_step(double span, int columns)
{
	double least = span * 14 / (columns > 14 ? columns : 14), p = pow(10, floor(log10(least)));

	return p >= least ? p : 2 * p >= least ? 2 * p : 5 * p >= least ? 5 * p : 10 * p;
}

static void draw_axis(const struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y)
{
	double span = tui->window.to - tui->window.from, step = axis_step(span, t->w);
	int cursor = ns_column(tui, t, tui->cursor_ns);
	char buf[BP_POS_MAX];

	bp_grid_text(g, 0, y, t->x - 1, BP_STYLE_DIM, tui->clock == BP_CLOCK_TIME ? " time" : " insns");
	for (double pos = ceil(tui->window.from / step) * step; pos < tui->window.to; pos += step) {
		int c = pos_column(tui, t, pos + span * 1e-9);

		if (c < 0 || c >= t->w)
			continue;
		bp_grid_put(g, t->x + c, y, g->ascii ? '|' : 0x2502, BP_STYLE_DIM);
		bp_grid_text(g, t->x + c + 1, y, t->w - c - 1, BP_STYLE_DIM,
			     bp_tui_pos_text(tui, pos, step, buf));
	}
	for (int i = 0; i < 28; i++) {
		uint64_t ns = i < 26 ? tui->marks[i] : i == 26 ? tui->range_a : tui->range_b;
		int c = ns == BP_TUI_NO_TIME ? -1 : ns_column(tui, t, ns);

		if (c >= 0 && c < t->w)
			bp_grid_put(g, t->x + c, y,
				    (uint32_t)(i < 26    ? 'a' + i
					       : i == 26 ? 'A'
							 : 'B'),
				    BP_STYLE_MARK);
	}
	if (cursor >= 0 && cursor < t->w)
		bp_grid_put(g, t->x + cursor, y, g->ascii ? 'V' : 0x25bc, BP_STYLE_BOLD | BP_STYLE_CURSOR);
}

/* ---- which tracks there are ---- */

static struct bp_err *add_track(struct timeline *t, struct track track)
{
	if (t->n_tracks == t->cap_tracks) {
		int cap = t->cap_tracks ? t->cap_tracks * 2 : 64;
		struct track *list = realloc(t->tracks, (size_t)cap * sizeof(*list));

		if (!list)
			return bp_err_nomem();
		t->tracks = list;
		t->cap_tracks = cap;
	}
	t->tracks[t->n_tracks++] = track;
	return NULL;
}

static bool vcpu_shown(const struct bp_tui *tui, uint32_t vcpu)
{
	return !tui->filter.vcpus[0] || (vcpu < 64 && tui->filter.vcpus[0] >> vcpu & 1);
}

static bool has_plane(const struct bp_tui *tui, uint32_t vcpu, unsigned kind)
{
	const uint64_t all[2] = {0, UINT64_MAX};
	struct bp_lod_col c;

	bp_lod_columns(bp_index_whole(tui->index), vcpu, kind, all, 1, &c);
	return c.count || c.busy > 0;
}

/* Levels of the vCPU's stack that the window has something on. */
static uint32_t window_depth(const struct timeline *t, const struct bp_lod *lod, uint32_t vcpu)
{
	const uint64_t all[2] = {t->edges[0], t->edges[t->w]};
	uint32_t depth = bp_lod_depth(lod, vcpu);
	struct bp_lod_col c;

	for (; depth > 1; depth--) {
		bp_lod_columns(lod, vcpu, BP_PLANE_STACK + depth - 1, all, 1, &c);
		if (c.count || c.busy > 0)
			break;
	}
	return depth;
}

struct busy_task {
	uint32_t id;
	double busy;
	size_t order;
};

static int by_busy(const void *a, const void *b)
{
	const struct busy_task *x = a, *y = b;

	return x->busy < y->busy ? 1 : x->busy > y->busy ? -1 : (x->order > y->order) - (x->order < y->order);
}

static int by_first(const void *a, const void *b)
{
	const struct busy_task *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

static struct bp_err *add_tasks(const struct bp_tui *tui, struct timeline *t)
{
	size_t n, k = 0;
	const struct bp_lod_task *tasks = bp_lod_tasks(bp_index_whole(tui->index), &n);
	bp_autofree struct busy_task *list = calloc(n + 1, sizeof(*list));
	struct bp_err *err = NULL;

	if (!list)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		char buf[BP_TASK_NAME_MAX];
		const struct bp_task_info *info = bp_analysis_task(tui->a, tasks[i].id);

		if (tui->filter.processes &&
		    !bp_patterns_match(tui->filter.processes, bp_analysis_task_name(tui->a, tasks[i].id, buf),
				       NULL))
			continue;
		if (!(info->flags & (BP_TASK_IDLE | BP_TASK_BOOT)) && tasks[i].busy > 0)
			list[k++] = (struct busy_task){.id = tasks[i].id,
						       .busy = tasks[i].busy,
						       .order = info->known ? info->first_ns : i};
	}
	qsort(list, k, sizeof(*list), by_busy);
	if (k > MAX_TASK_TRACKS)
		k = MAX_TASK_TRACKS;
	qsort(list, k, sizeof(*list), by_first);
	for (size_t i = 0; i < k && !err; i++)
		err = add_track(t, (struct track){.kind = TRACK_TASK, .level = list[i].id});
	return err;
}

/* Threads of the host that belong to vCPU @v; with UINT32_MAX those of none, or of one that has no events. */
static struct bp_err *add_host(const struct bp_tui *tui, struct timeline *t, uint32_t v)
{
	uint32_t n = t->host ? bp_host_threads(t->host) : 0,
		 vcpus = bp_lod_n_vcpus(bp_index_whole(tui->index));
	struct bp_err *err = NULL;

	for (uint32_t i = 0; i < n && !err; i++) {
		uint32_t vcpu;

		bp_host_name(t->host, i, &vcpu);
		if (v == UINT32_MAX ? vcpu >= vcpus : vcpu == v)
			err = add_track(
			    t,
			    (struct track){.kind = TRACK_HOST, .vcpu = v == UINT32_MAX ? 0 : v, .level = i});
	}
	return err;
}

static struct bp_err *add_vcpu(const struct bp_tui *tui, struct timeline *t, const struct bp_lod *lod,
			       uint32_t v, uint32_t levels)
{
	uint32_t depth = window_depth(t, lod, v), top = 0;
	struct bp_err *err = add_track(t, (struct track){.kind = TRACK_VCPU, .vcpu = v});

	if (err || t->fold[v] == FOLD_CLOSED)
		return err;
	if (t->fold[v] == FOLD_FULL || levels >= depth) {
		levels = depth;
	} else {
		/* The selected level must be among those shown. */
		top = t->level_top[v];
		if (t->sel.kind == TRACK_STACK && t->sel.vcpu == v) {
			if (t->sel.level <= top)
				top = t->sel.level - 1;
			if (t->sel.level > top + levels)
				top = t->sel.level - levels;
		}
		if (top + levels > depth)
			top = depth - levels;
	}
	t->level_top[v] = top;
	err = add_track(t, (struct track){.kind = TRACK_MODE, .vcpu = v});
	if (!err)
		err = add_track(t, (struct track){.kind = TRACK_TOP, .vcpu = v});
	if (!err && tui->compare)
		err = add_track(t, (struct track){.kind = TRACK_DIFF, .vcpu = v});
	for (uint32_t i = 1; i <= levels && !err; i++)
		err = add_track(t, (struct track){.kind = TRACK_STACK, .vcpu = v, .level = top + i});
	if (!err)
		err = add_host(tui, t, v);
	if (!err && has_plane(tui, v, BP_PLANE_IRQ))
		err = add_track(t, (struct track){.kind = TRACK_IRQ, .vcpu = v});
	if (!err && has_plane(tui, v, BP_PLANE_SYSCALL))
		err = add_track(t, (struct track){.kind = TRACK_SYSCALL, .vcpu = v});
	return err;
}

static struct bp_err *make_tracks(const struct bp_tui *tui, struct timeline *t, const struct bp_lod *lod,
				  int room)
{
	uint32_t vcpus = bp_lod_n_vcpus(bp_index_whole(tui->index)), open = 0, closed = 0;
	int levels;
	struct bp_err *err = NULL;

	for (uint32_t v = 0; v < vcpus; v++) {
		if (!vcpu_shown(tui, v))
			continue;
		closed += t->fold[v] == FOLD_CLOSED;
		open += t->fold[v] != FOLD_CLOSED;
	}
	/* Five lines of a vCPU are no levels of its stack. */
	levels = open ? (room - (int)closed) / (int)open - 5 - (tui->compare != NULL) : 0;
	if (levels < 4)
		levels = 4;
	t->n_tracks = 0;
	t->n_vcpus = vcpus;
	for (unsigned i = 0; i < t->n_pinned && !err; i++)
		err = add_track(t, t->pinned[i]);
	for (uint32_t v = 0; v < vcpus && !err; v++) {
		if (vcpu_shown(tui, v))
			err = add_vcpu(tui, t, lod, v, (uint32_t)levels);
	}
	if (!err)
		err = add_host(tui, t, UINT32_MAX);
	return err ? err : add_tasks(tui, t);
}

static void track_label(const struct bp_tui *tui, const struct timeline *t, const struct track *track,
			char *buf, size_t size)
{
	char name[BP_TASK_NAME_MAX];
	const struct bp_task_info *info;
	uint32_t vcpu;

	switch (track->kind) {
	case TRACK_HOST:
		snprintf(buf, size, "%s%.40s", bp_lod_n_vcpus(bp_index_whole(tui->index)) ? "  " : " ",
			 bp_host_name(t->host, track->level, &vcpu));
		break;
	case TRACK_PHASES:
		snprintf(buf, size, " phases");
		break;
	case TRACK_CONSOLE:
		snprintf(buf, size, " console");
		break;
	case TRACK_VCPU:
		snprintf(buf, size, "%cvCPU %" PRIu32, t->fold[track->vcpu] == FOLD_CLOSED ? '+' : '-',
			 track->vcpu);
		break;
	case TRACK_MODE:
		snprintf(buf, size, "  mode");
		break;
	case TRACK_TOP:
		snprintf(buf, size, "  top");
		break;
	case TRACK_DIFF:
		snprintf(buf, size, "  diff");
		break;
	case TRACK_STACK:
		if (track->level == t->level_top[track->vcpu] + 1)
			snprintf(buf, size, "  stack %2" PRIu32, track->level);
		else
			snprintf(buf, size, "        %2" PRIu32, track->level);
		break;
	case TRACK_IRQ:
		snprintf(buf, size, "  irq");
		break;
	case TRACK_SYSCALL:
		snprintf(buf, size, "  syscall");
		break;
	case TRACK_TASK:
		info = bp_analysis_task(tui->a, track->level);
		if (bp_task_has_pid(info))
			snprintf(buf, size, " %.23s %" PRIu32,
				 bp_analysis_task_name(tui->a, track->level, name), info->pid);
		else
			snprintf(buf, size, " %.23s", bp_analysis_task_name(tui->a, track->level, name));
		break;
	}
}

static void get_columns(const struct timeline *t, const struct bp_lod *lod, const struct track *track)
{
	static const uint8_t planes[] = {
	    [TRACK_DIFF] = BP_PLANE_TOP, [TRACK_VCPU] = BP_PLANE_TASK, [TRACK_MODE] = BP_PLANE_MODE,
	    [TRACK_TOP] = BP_PLANE_TOP,  [TRACK_IRQ] = BP_PLANE_IRQ,   [TRACK_SYSCALL] = BP_PLANE_SYSCALL,
	};
	const struct bp_lod_task *tasks;
	size_t n;

	if (track->kind == TRACK_HOST) {
		bp_host_columns(t->host, track->level, t->edges, (size_t)t->w, t->cols);
		return;
	}
	if (track->kind == TRACK_TASK) {
		tasks = bp_lod_tasks(lod, &n);
		for (size_t i = 0; i < n; i++) {
			if (tasks[i].id == track->level) {
				bp_lod_task_columns(lod, i, t->edges, (size_t)t->w, t->cols);
				return;
			}
		}
		bp_lod_task_columns(lod, SIZE_MAX, t->edges, (size_t)t->w, t->cols);
		return;
	}
	bp_lod_columns(lod, track->vcpu,
		       track->kind == TRACK_STACK ? BP_PLANE_STACK + track->level - 1 : planes[track->kind],
		       t->edges, (size_t)t->w, t->cols);
}

static void draw_track(struct bp_tui *tui, struct timeline *t, struct bp_grid *g, int y,
		       const struct track *track, const struct bp_lod *lod)
{
	bool selected = same_track(track, &t->sel);
	int cursor = ns_column(tui, t, tui->cursor_ns);
	char label[64];

	track_label(tui, t, track, label, sizeof(label));
	bp_grid_text(g, 0, y, t->x - 1, track->kind == TRACK_VCPU ? BP_STYLE_BOLD : BP_STYLE_TEXT, label);
	if (selected) {
		bp_grid_put(g, 0, y, '>', BP_STYLE_BOLD);
		bp_grid_style(g, 0, y, t->x - 1, BP_STYLE_CURSOR);
	}
	if (track->kind == TRACK_PHASES) {
		draw_phases(tui, t, g, y);
	} else if (track->kind == TRACK_CONSOLE) {
		draw_console(tui, t, g, y);
	} else {
		get_columns(t, lod, track);
		if (track->kind == TRACK_DIFF)
			draw_changes(tui, t, g, y);
		else
			draw_columns(tui, t, g, y, track);
		if (selected && cursor >= 0 && cursor < t->w)
			t->cell = t->cols[cursor];
	}
	if (cursor >= 0 && cursor < t->w)
		bp_grid_style(g, t->x + cursor, y, 1, selected ? BP_STYLE_CURSOR : BP_STYLE_SELECT);
}

/* ---- what is under the cursor ---- */

static struct bp_err *get_stack(struct bp_tui *tui, struct timeline *t)
{
	uint64_t changes = bp_index_changes(tui->index);
	uint32_t vcpu = (uint32_t)tui->cursor_vcpu;

	if (t->stack_made && t->stack_ns == tui->cursor_ns && t->stack_vcpu == vcpu)
		return NULL;
	t->stack_made = true;
	t->stack_ns = tui->cursor_ns;
	t->stack_vcpu = vcpu;
	t->stack_changes = changes;
	return bp_index_stack_at(tui->index, vcpu, tui->cursor_ns, &t->stack);
}

/* The frame that the selected track is about, NULL: none. */
static const struct bp_index_frame *cursor_frame(const struct timeline *t)
{
	const struct bp_index_stack *s = &t->stack;

	if (!s->found || !s->n)
		return NULL;
	if (t->sel.kind == TRACK_STACK)
		return t->sel.level <= s->n ? &s->frames[t->sel.level - 1] : NULL;
	if (t->sel.kind == TRACK_IRQ) {
		for (uint32_t i = 0; i < s->n; i++) {
			if (s->frames[i].kind == BP_EV_IRQ)
				return &s->frames[i];
		}
		return NULL;
	}
	return &s->frames[s->n - 1];
}

/* The path to the frame, cut at its left when there is too little room. */
static void draw_path(const struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y,
		      uint32_t depth)
{
	const struct bp_index_stack *s = &t->stack;
	int room = (int)g->w - 3, width = 0, x = 1;
	uint32_t first = depth;
	char buf[BP_ROW_NAME_MAX];

	while (first) {
		const char *name = bp_row_name(&tui->a->rows, s->frames[first - 1].row, buf);
		int n = bp_grid_text_width(g, name, strlen(name)) + 3;

		if (width + n > room - 4 && first < depth)
			break;
		width += n;
		first--;
	}
	if (first)
		x += bp_grid_text(g, x, y, room, BP_STYLE_DIM, g->ascii ? "... > " : "\xe2\x80\xa6 > ");
	for (uint32_t i = first; i < depth; i++) {
		const struct bp_index_frame *f = &s->frames[i];

		x += bp_grid_text(g, x, y, room - x,
				  i + 1 == depth ? BP_STYLE_BOLD : bp_tui_style_of(tui, f->row),
				  bp_row_name(&tui->a->rows, f->row, buf));
		if (i + 1 < depth)
			x += bp_grid_text(g, x, y, room - x, BP_STYLE_DIM,
					  s->frames[i + 1].kind == BP_EV_IRQ ? " ! " : " > ");
	}
}

/* Exact places: a thousandth of a unit people think in, or what the window can tell apart. */
static double fine_step(const struct bp_tui *tui, const struct timeline *t)
{
	double step = (tui->window.to - tui->window.from) / (t->w > 0 ? t->w : 1) / 10;

	return step > 1e3 ? 1e3 : step;
}

static void draw_frame(const struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y,
		       const struct bp_index_frame *f)
{
	char name[BP_ROW_NAME_MAX], start[BP_POS_MAX], total[BP_UNITS_MAX], self[BP_UNITS_MAX];
	double step = fine_step(tui, t);
	int x = 1;

	x +=
	    bp_grid_text(g, x, y, (int)g->w - 2, BP_STYLE_BOLD, bp_row_name(&tui->a->rows, f->row, name)) + 2;
	x += bp_grid_text(g, x, y, (int)g->w / 3, bp_tui_style_of(tui, f->row),
			  bp_row_module(&tui->a->rows, f->row)) +
	     2;
	x += bp_grid_printf(g, x, y, (int)g->w - x, BP_STYLE_TEXT, "from %s  ",
			    bp_tui_pos_text(tui, bp_tui_pos(tui, f->start_ns), step, start));
	if (f->ended)
		x += bp_grid_printf(g, x, y, (int)g->w - x, BP_STYLE_TEXT, "total %s  ",
				    bp_units_ns(total, (int64_t)(f->end_ns - f->start_ns)));
	else
		x += bp_grid_printf(
		    g, x, y, (int)g->w - x, BP_STYLE_TEXT, "total over %s  ",
		    bp_units_ns(total,
				(int64_t)(tui->cursor_ns > f->start_ns ? tui->cursor_ns - f->start_ns : 0)));
	if (f->self_known)
		bp_grid_printf(g, x, y, (int)g->w - x, BP_STYLE_TEXT, "self %s",
			       bp_units_ns(self, (int64_t)f->self_ns));
}

/* What the cell is made of: it may stand for thousands of calls. */
static void draw_cell(const struct bp_tui *tui, const struct timeline *t, struct bp_grid *g, int y)
{
	const struct bp_lod_col *c = &t->cell;
	char a[BP_UNITS_MAX], b[BP_UNITS_MAX], most[64], longest[64];
	int x = 1, w = (int)g->w - 2;

	if (c->value == BP_LOD_NONE && !c->count) {
		bp_grid_printf(g, x, y, w, BP_STYLE_DIM, "column of %s: nothing here",
			       bp_units_ns(a, bp_tui_i64(c->span)));
		return;
	}
	x += bp_grid_printf(g, x, y, w, BP_STYLE_TEXT, "column of %s: %s %3.0f%%",
			    bp_units_ns(a, bp_tui_i64(c->span)),
			    value_name(tui, &t->sel, c->value, most, sizeof(most)),
			    c->span <= 0        ? 0
			    : c->most < c->span ? 100 * c->most / c->span
						: 100);
	if (c->count > 1)
		x +=
		    bp_grid_printf(g, x, y, w - x, BP_STYLE_TEXT, ", %s slices", bp_units_count(b, c->count));
	if (c->longest > 0)
		bp_grid_printf(g, x, y, w - x, BP_STYLE_TEXT, ", longest %s %s",
			       value_name(tui, &t->sel, c->longest_value, longest, sizeof(longest)),
			       bp_units_ns(b, bp_tui_i64(c->longest)));
}

static void draw_detail(struct bp_tui *tui, struct timeline *t, struct bp_grid *g, int y, int h)
{
	const struct bp_index_frame *f = cursor_frame(t);
	char name[BP_TASK_NAME_MAX], pos[BP_POS_MAX];
	uint32_t depth = f ? (uint32_t)(f - t->stack.frames) + 1 : t->stack.n;
	double step = fine_step(tui, t);
	size_t until = bp_tui_console_until(tui, tui->cursor_ns);
	int x = 2;

	bp_grid_fill(g, 0, y, (int)g->w, g->ascii ? '-' : 0x2500, BP_STYLE_DIM);
	if (t->stack.found) {
		const struct bp_task_info *info = bp_analysis_task(tui->a, t->stack.task);

		x += bp_grid_printf(g, x, y, (int)g->w - 4, BP_STYLE_TEXT, " vCPU %d at %s  %s",
				    tui->cursor_vcpu,
				    bp_tui_pos_text(tui, bp_tui_pos(tui, tui->cursor_ns), step, pos),
				    bp_analysis_task_name(tui->a, t->stack.task, name));
		if (bp_task_has_pid(info))
			x +=
			    bp_grid_printf(g, x, y, (int)g->w - x - 2, BP_STYLE_TEXT, " %" PRIu32, info->pid);
		bp_grid_printf(g, x, y, (int)g->w - x - 2, BP_STYLE_TEXT,
			       "  depth %" PRIu32 " of %" PRIu32 " ", depth, t->stack.n);
	}
	if (h > 1 && f)
		draw_frame(tui, t, g, y + 1, f);
	else if (h > 1)
		bp_grid_text(g, 1, y + 1, (int)g->w - 2, BP_STYLE_DIM,
			     t->stack.found && t->stack.n ? "no function at this level here"
							  : "nothing is known of this moment");
	if (h > 2 && t->stack.found)
		draw_path(tui, t, g, y + 2, depth);
	if (h > 3)
		draw_cell(tui, t, g, y + 3);
	for (int i = 0; i + 4 < h && (size_t)i < until; i++) {
		const struct bp_fact *line = bp_tui_console_line(tui, until - 1 - (size_t)i);
		int lx = 1 + bp_grid_printf(g, 1, y + h - 1 - i, 16, BP_STYLE_DIM, "%s ",
					    bp_tui_pos_text(tui, bp_tui_pos(tui, line->time_ns), 1e6, pos));

		bp_grid_text(g, lx, y + h - 1 - i, (int)g->w - lx - 1, BP_STYLE_TEXT, line->s1);
	}
}

/* ---- the screen ---- */

static struct bp_err *reserve(struct timeline *t, int w)
{
	if (w > t->cap_w) {
		free(t->edges);
		free(t->cols);
		t->edges = calloc((size_t)w + 1, sizeof(*t->edges));
		t->cols = calloc((size_t)w + 1, sizeof(*t->cols));
		t->cap_w = t->edges && t->cols ? w : 0;
		if (!t->cap_w) {
			free(t->edges);
			free(t->cols);
			t->edges = NULL;
			t->cols = NULL;
			return bp_err_nomem();
		}
	}
	return NULL;
}

static void scroll(struct timeline *t, int room)
{
	int n = t->n_tracks - (int)t->n_pinned, at = -1;

	room -= (int)t->n_pinned;
	for (int i = (int)t->n_pinned; i < t->n_tracks; i++) {
		if (same_track(&t->tracks[i], &t->sel))
			at = i - (int)t->n_pinned;
	}
	if (t->follow && at >= 0) {
		if (at < t->top)
			t->top = at;
		if (at >= t->top + room)
			t->top = at - room + 1;
	}
	t->follow = false;
	if (t->top > n - room)
		t->top = n - room;
	if (t->top < 0)
		t->top = 0;
}

static struct bp_err *timeline_draw(struct bp_tui *tui, void *self, struct bp_grid *g, struct bp_rect r)
{
	struct timeline *t = self;
	int detail = r.h >= 19 ? DETAIL_H + (r.h >= 40) * 3 : 0, y = r.y, room;
	const struct track phases = {.kind = TRACK_PHASES}, console = {.kind = TRACK_CONSOLE};
	const struct bp_lod *lod;
	struct bp_err *err;

	t->x = r.w >= 100 ? 12 : 11;
	t->w = r.w - t->x;
	err = reserve(t, t->w);
	if (!err)
		err = get_stack(tui, t);
	if (err)
		return err;
	make_edges(tui, t, tui->window.from, tui->window.to);
	err = bp_index_look(tui->index, t->edges[0], t->edges[t->w], (size_t)t->w, &lod);
	if (err)
		return err;
	if (r.h >= 12)
		draw_overview(tui, t, g, y++);
	make_edges(tui, t, tui->window.from, tui->window.to);
	draw_axis(tui, t, g, y++);
	memset(&t->cell, 0, sizeof(t->cell));
	t->cell.value = BP_LOD_NONE;
	draw_track(tui, t, g, y++, &phases, lod);
	if (tui->n_console)
		draw_track(tui, t, g, y++, &console, lod);
	room = r.y + r.h - y - detail;
	err = make_tracks(tui, t, lod, room);
	/* Traces of the host alone have no stacks. */
	if (!err && !t->n_vcpus && t->n_tracks && t->sel.kind == TRACK_STACK)
		t->sel = t->tracks[0];
	if (!err) {
		scroll(t, room);
		t->y = y;
		for (int i = 0; i < room && i < t->n_tracks; i++) {
			int k = i < (int)t->n_pinned ? i : i + t->top;

			if (k < t->n_tracks)
				draw_track(tui, t, g, y + i, &t->tracks[k], lod);
		}
	}
	bp_index_done(tui->index);
	if (err)
		return err;
	if (!t->n_tracks)
		bp_grid_text(g, t->x, y, t->w, BP_STYLE_DIM,
			     tui->pending ? "waits of the host are being read"
					  : "no events in this recording");
	if (t->host && !bp_host_done(t->host, false))
		tui->pending = true;
	if (t->moved) {
		const struct bp_index_frame *f = cursor_frame(t);

		if (f && is_function_track(&t->sel))
			tui->selected = f->row;
		t->moved = false;
	}
	if (detail)
		draw_detail(tui, t, g, r.y + r.h - detail, detail);
	return NULL;
}

/* ---- keys ---- */

static void take_track(struct bp_tui *tui, struct timeline *t, const struct track *track)
{
	t->sel = *track;
	t->follow = t->moved = true;
	if (track->kind < TRACK_TASK && track->kind >= TRACK_VCPU)
		tui->cursor_vcpu = (int)track->vcpu;
	tui->cursor_depth = track->kind == TRACK_STACK ? track->level : 0;
}

static int track_at(const struct timeline *t)
{
	for (int i = 0; i < t->n_tracks; i++) {
		if (same_track(&t->tracks[i], &t->sel))
			return i;
	}
	return -1;
}

static void move_track(struct bp_tui *tui, struct timeline *t, int by)
{
	int at = track_at(t);
	struct track next;

	if (!t->n_tracks)
		return;
	/* Levels that the stack has and that are not shown. */
	if (t->sel.kind == TRACK_STACK && t->fold[t->sel.vcpu] == FOLD_AUTO && (by == 1 || by == -1)) {
		const struct bp_lod *lod;
		struct bp_err *err =
		    bp_index_look(tui->index, t->edges[0], t->edges[t->w], (size_t)t->w, &lod);
		uint32_t depth = 0;

		if (!err) {
			depth = window_depth(t, lod, t->sel.vcpu);
			bp_index_done(tui->index);
		}
		bp_err_ignore(err);
		if (by > 0 ? t->sel.level < depth : t->sel.level > 1) {
			next = t->sel;
			next.level += (uint32_t)by;
			take_track(tui, t, &next);
			return;
		}
	}
	at = at < 0 ? 0 : at + by;
	if (at < 0)
		at = 0;
	if (at >= t->n_tracks)
		at = t->n_tracks - 1;
	take_track(tui, t, &t->tracks[at]);
}

static void move_cursor(struct bp_tui *tui, struct timeline *t, int by)
{
	double span = tui->window.to - tui->window.from, pos = bp_tui_pos(tui, tui->cursor_ns);
	int c = pos_column(tui, t, pos) + by;

	if (c < 0 || c >= t->w) {
		double shift = span * by / t->w;

		bp_tui_set_window(tui, tui->window.from + shift, tui->window.to + shift, false);
		c = c < 0 ? 0 : t->w - 1;
	}
	/* A column narrower than a unit: the next unit. */
	pos = column_pos(tui, t, c + 0.5);
	tui->cursor_ns = bp_tui_ns(tui, pos);
	t->moved = true;
	bp_tui_changed(tui);
}

static void zoom(struct bp_tui *tui, double pos, double factor)
{
	double left = (pos - tui->window.from) * factor, right = (tui->window.to - pos) * factor;

	bp_tui_set_window(tui, pos - left, pos + right, true);
}

static void pan(struct bp_tui *tui, struct timeline *t, double part)
{
	double shift = (tui->window.to - tui->window.from) * part, from = tui->window.from;
	double pos = bp_tui_pos(tui, tui->cursor_ns);

	bp_tui_set_window(tui, from + shift, tui->window.to + shift, false);
	tui->cursor_ns = bp_tui_ns(tui, pos + tui->window.from - from);
	t->moved = true;
}

static struct bp_err *jump_end(struct bp_tui *tui, struct timeline *t, bool end)
{
	bp_tui_look_at(tui, bp_tui_ns(tui, end ? bp_tui_end(tui) - 1 : bp_tui_start(tui)));
	t->moved = true;
	bp_tui_changed(tui);
	return NULL;
}

/* Start and end of what is under the cursor on the selected track, as far as is known. */
static bool cursor_slice(struct bp_tui *tui, struct timeline *t, uint64_t *from, uint64_t *to)
{
	const struct bp_index_frame *f;

	if (t->sel.kind == TRACK_PHASES) {
		for (size_t i = 0; i < tui->a->n_phases; i++) {
			const struct bp_phase *p = &tui->a->phases[i];

			if (p->start_ns <= tui->cursor_ns && p->end_ns > tui->cursor_ns) {
				*from = p->start_ns;
				*to = p->end_ns;
				return true;
			}
		}
		return false;
	}
	f = cursor_frame(t);
	if (!f)
		return false;
	*from = f->start_ns;
	*to = f->ended ? f->end_ns : 0;
	if (!f->ended) {
		/* It ends behind the block that was read: where the same function at that level stops. */
		uint32_t depth = (uint32_t)(f - t->stack.frames) + 1;
		struct bp_index_query q = {
		    .vcpu = tui->cursor_vcpu, .depth = depth, .ns = tui->cursor_ns, .max_blocks = 64};
		struct bp_index_hit hit;
		struct bp_err *err = bp_index_find(tui->index, &q, &hit);

		*to = !err && hit.found ? hit.ns : bp_tui_ns(tui, bp_tui_end(tui));
		bp_err_ignore(err);
	}
	return *to > *from;
}

static void fit(struct bp_tui *tui, struct timeline *t)
{
	uint64_t from, to;
	double a, b, end = bp_tui_end(tui);

	if (!cursor_slice(tui, t, &from, &to)) {
		bp_tui_set_window(tui, bp_tui_start(tui), end, true);
		return;
	}
	a = bp_tui_pos(tui, from);
	b = bp_tui_pos(tui, to);
	/* Shown like this already: everything. */
	if (fabs(a - (b - a) / 20 - tui->window.from) < (b - a) / 50 &&
	    fabs(b + (b - a) / 20 - tui->window.to) < (b - a) / 50)
		bp_tui_set_window(tui, bp_tui_start(tui), end, true);
	else
		bp_tui_set_window(tui, a - (b - a) / 20, b + (b - a) / 20, true);
}

static struct bp_err *step_slice(struct bp_tui *tui, struct timeline *t, bool back)
{
	struct bp_index_query q = {
	    .vcpu = tui->cursor_vcpu, .ns = tui->cursor_ns, .back = back, .max_blocks = 256};
	struct bp_index_hit hit;
	struct bp_err *err;
	uint64_t ns;
	size_t i;

	switch (t->sel.kind) {
	case TRACK_CONSOLE:
		i = bp_tui_console_until(tui,
					 back ? (tui->cursor_ns ? tui->cursor_ns - 1 : 0) : tui->cursor_ns);
		if (back ? !i : i == tui->n_console)
			break;
		bp_tui_look_at(tui, bp_tui_console_line(tui, back ? i - 1 : i)->time_ns);
		bp_tui_changed(tui);
		return NULL;
	case TRACK_PHASES:
		for (size_t k = 0; k < tui->a->n_phases; k++) {
			const struct bp_phase *p = &tui->a->phases[back ? tui->a->n_phases - 1 - k : k];

			if (back ? p->start_ns < tui->cursor_ns : p->start_ns > tui->cursor_ns) {
				bp_tui_look_at(tui, p->start_ns);
				bp_tui_changed(tui);
				return NULL;
			}
		}
		break;
	case TRACK_HOST:
		if (!bp_host_next(t->host, t->sel.level, tui->cursor_ns, back, &ns))
			break;
		bp_tui_look_at(tui, ns);
		bp_tui_changed(tui);
		return NULL;
	default:
		if (t->sel.kind == TRACK_STACK)
			q.depth = t->sel.level;
		err = bp_index_find(tui->index, &q, &hit);
		if (err)
			return err;
		if (!hit.found)
			break;
		tui->selected = hit.row;
		if (t->sel.kind == TRACK_STACK)
			tui->cursor_depth = hit.depth;
		bp_tui_look_at(tui, hit.ns);
		bp_tui_changed(tui);
		t->moved = true;
		return NULL;
	}
	bp_tui_say(tui, back ? "no slice before this one" : "no slice after this one");
	return NULL;
}

/* The next call of a function whose own cost changed. */
static struct bp_err *next_change(struct bp_tui *tui, struct timeline *t, bool back)
{
	const uint8_t *changes =
	    tui->compare ? bp_compare_changes(tui->compare, &tui->a->rows, tui->clock, tui->threads) : NULL;
	struct bp_index_query q = {
	    .rows = changes, .vcpu = -1, .ns = tui->cursor_ns, .back = back, .max_blocks = 1024};
	struct bp_index_hit hit;
	struct bp_err *err;
	struct track track;

	if (!changes) {
		bp_tui_warn(tui,
			    !tui->compare ? "there is no --baseline to differ from" : "not compared yet");
		return NULL;
	}
	err = bp_index_find(tui->index, &q, &hit);
	if (err || !hit.found) {
		bp_tui_say(tui, back ? "no difference before this" : "no difference after this");
		return err;
	}
	track = (struct track){.kind = TRACK_STACK, .vcpu = hit.vcpu, .level = hit.depth};
	take_track(tui, t, &track);
	tui->selected = hit.row;
	bp_tui_look_at(tui, hit.ns);
	bp_tui_changed(tui);
	return NULL;
}

static void parent(struct bp_tui *tui, struct timeline *t)
{
	struct track up = t->sel;

	if (t->sel.kind != TRACK_STACK || t->sel.level < 2) {
		bp_tui_say(tui, "this function has no parent");
		return;
	}
	up.level--;
	take_track(tui, t, &up);
	if (t->stack.found && up.level <= t->stack.n)
		bp_tui_look_at(tui, t->stack.frames[up.level - 1].start_ns);
}

static struct bp_err *longest_child(struct bp_tui *tui, struct timeline *t)
{
	enum { PARTS = 256 };
	struct track down = t->sel;
	uint64_t from, to, edges[PARTS + 1];
	struct bp_lod_col cols[PARTS];
	const struct bp_lod *lod;
	struct bp_index_query q = {.vcpu = t->sel.vcpu, .max_blocks = 64};
	struct bp_index_hit hit = {0};
	bp_autofree uint8_t *rows = calloc(tui->a->rows.n + 1, 1);
	int best = -1;
	struct bp_err *err;

	if (!rows)
		return bp_err_nomem();
	if (t->sel.kind != TRACK_STACK || !cursor_slice(tui, t, &from, &to)) {
		bp_tui_say(tui, "no function here");
		return NULL;
	}
	down.level++;
	for (int i = 0; i <= PARTS; i++)
		edges[i] = from + (uint64_t)((double)(to - from) * i / PARTS);
	err = bp_index_look(tui->index, from, to, PARTS, &lod);
	if (err)
		return err;
	bp_lod_columns(lod, down.vcpu, BP_PLANE_STACK + down.level - 1, edges, PARTS, cols);
	bp_index_done(tui->index);
	for (int i = 0; i < PARTS; i++) {
		if (cols[i].count && cols[i].longest_value < tui->a->rows.n &&
		    (best < 0 || cols[i].longest > cols[best].longest))
			best = i;
	}
	if (best >= 0) {
		rows[cols[best].longest_value] = 1;
		q.rows = rows;
		q.depth = down.level;
		q.ns = edges[best] ? edges[best] - 1 : 0;
		err = bp_index_find(tui->index, &q, &hit);
		if (err)
			return err;
	}
	if (!hit.found || hit.ns > to) {
		bp_tui_say(tui, "this function calls nothing here");
		return NULL;
	}
	take_track(tui, t, &down);
	bp_tui_look_at(tui, hit.ns);
	return NULL;
}

static void pin(struct bp_tui *tui, struct timeline *t)
{
	for (unsigned i = 0; i < t->n_pinned; i++) {
		if (same_track(&t->pinned[i], &t->sel)) {
			memmove(t->pinned + i, t->pinned + i + 1,
				(t->n_pinned - i - 1) * sizeof(t->pinned[0]));
			t->n_pinned--;
			bp_tui_say(tui, "unpinned");
			return;
		}
	}
	if (t->n_pinned == MAX_PINNED || t->sel.kind < TRACK_VCPU) {
		bp_tui_say(tui, t->n_pinned == MAX_PINNED ? "four tracks are pinned already"
							  : "this one is always there");
		return;
	}
	t->pinned[t->n_pinned++] = t->sel;
	bp_tui_say(tui, "pinned at the top; p again unpins");
}

static void fold(struct timeline *t)
{
	uint8_t *f = &t->fold[t->sel.vcpu];

	if (t->sel.kind < TRACK_VCPU || t->sel.kind >= TRACK_TASK)
		return;
	*f = *f == FOLD_AUTO ? FOLD_FULL : *f == FOLD_FULL ? FOLD_CLOSED : FOLD_AUTO;
	if (*f == FOLD_CLOSED)
		t->sel = (struct track){.kind = TRACK_VCPU, .vcpu = t->sel.vcpu};
	t->follow = true;
}

/* The other vCPUs, one after the other, at the same level. */
static void next_vcpu(struct bp_tui *tui, struct timeline *t, bool back)
{
	uint32_t n = t->n_vcpus;
	struct track next = {.kind = TRACK_VCPU};

	if (!n)
		return;
	if (t->sel.kind < TRACK_TASK && t->sel.kind >= TRACK_VCPU)
		next = t->sel;
	next.vcpu = (next.vcpu + (back ? n - 1 : 1)) % n;
	if (t->fold[next.vcpu] == FOLD_CLOSED)
		next = (struct track){.kind = TRACK_VCPU, .vcpu = next.vcpu};
	take_track(tui, t, &next);
}

static void mouse(struct bp_tui *tui, struct timeline *t, const struct bp_key *key)
{
	int c = key->x - t->x, line = key->y - t->y;
	double pos = column_pos(tui, t, c + 0.5);

	switch (key->code) {
	case BP_KEY_WHEEL_UP:
		pan(tui, t, -0.1);
		return;
	case BP_KEY_WHEEL_DOWN:
		pan(tui, t, 0.1);
		return;
	case BP_KEY_CTRL_WHEEL_UP:
	case BP_KEY_CTRL_WHEEL_DOWN:
		if (c >= 0)
			zoom(tui, pos, key->code == BP_KEY_CTRL_WHEEL_UP ? 1 / ZOOM : ZOOM);
		return;
	case BP_KEY_DRAG:
		if (c < 0)
			return;
		if (!t->dragging)
			tui->range_a = tui->cursor_ns;
		t->dragging = true;
		tui->range_b = tui->cursor_ns = bp_tui_ns(tui, pos);
		bp_tui_changed(tui);
		return;
	case BP_KEY_RELEASE:
		t->dragging = false;
		return;
	default:
		break;
	}
	if (line >= 0 && line < t->n_tracks) {
		int k = line < (int)t->n_pinned ? line : line + t->top;

		if (k < t->n_tracks)
			take_track(tui, t, &t->tracks[k]);
	} else if (line == -1 && tui->n_console) {
		t->sel = (struct track){.kind = TRACK_CONSOLE};
	} else if (line == -1 - (tui->n_console > 0)) {
		t->sel = (struct track){.kind = TRACK_PHASES};
	}
	if (c >= 0) {
		tui->cursor_ns = bp_tui_ns(tui, pos);
		t->moved = true;
		bp_tui_changed(tui);
	} else if (t->sel.kind == TRACK_VCPU && key->code == BP_KEY_PRESS) {
		fold(t);
	}
}

static struct bp_err *timeline_key(struct bp_tui *tui, void *self, const struct bp_key *key, bool *used)
{
	struct timeline *t = self;
	double pos = bp_tui_pos(tui, tui->cursor_ns);
	uint64_t from, to;
	struct bp_err *err;

	*used = true;
	if (!t->edges)
		return NULL;
	err = get_stack(tui, t);
	if (err)
		return err;
	switch (key->code) {
	case 'w':
	case '+':
	case '=':
		zoom(tui, pos, 1 / ZOOM);
		return NULL;
	case 's':
	case '-':
		zoom(tui, pos, ZOOM);
		return NULL;
	case 'a':
		pan(tui, t, -0.25);
		return NULL;
	case 'd':
		pan(tui, t, 0.25);
		return NULL;
	case 'h':
	case BP_KEY_LEFT:
		move_cursor(tui, t, -1);
		return NULL;
	case 'l':
	case BP_KEY_RIGHT:
		move_cursor(tui, t, 1);
		return NULL;
	case 'k':
	case BP_KEY_UP:
		move_track(tui, t, -1);
		return NULL;
	case 'j':
	case BP_KEY_DOWN:
		move_track(tui, t, 1);
		return NULL;
	case BP_KEY_PAGE_UP:
		move_track(tui, t, -10);
		return NULL;
	case BP_KEY_PAGE_DOWN:
		move_track(tui, t, 10);
		return NULL;
	case BP_KEY_HOME:
		return jump_end(tui, t, false);
	case BP_KEY_END:
		return jump_end(tui, t, true);
	case 'f':
		fit(tui, t);
		return NULL;
	case 'F':
		bp_tui_set_window(tui, bp_tui_start(tui), bp_tui_end(tui), true);
		return NULL;
	case '[':
	case ',':
		return step_slice(tui, t, true);
	case ']':
	case '.':
		return step_slice(tui, t, false);
	case '{':
		parent(tui, t);
		return NULL;
	case '}':
		return longest_child(tui, t);
	case 'r':
		if (cursor_slice(tui, t, &from, &to)) {
			char text[BP_UNITS_MAX];

			tui->range_a = from;
			tui->range_b = to;
			bp_tui_say(tui, "A..B: %s", bp_units_ns(text, (int64_t)(to - from)));
			bp_tui_changed(tui);
		} else {
			bp_tui_say(tui, "no slice here");
		}
		return NULL;
	case 'x':
	case 'Z':
		return next_change(tui, t, key->code == 'Z');
	case 'p':
		pin(tui, t);
		return NULL;
	case ' ':
		fold(t);
		return NULL;
	case BP_KEY_TAB:
	case BP_KEY_BACKTAB:
		next_vcpu(tui, t, key->code == BP_KEY_BACKTAB);
		return NULL;
	case BP_KEY_ENTER:
		t->moved = false;
		if (is_function_track(&t->sel) && cursor_frame(t))
			tui->selected = cursor_frame(t)->row;
		return bp_tui_show(tui, tui->last_table ? bp_tui_views[tui->last_table] : &bp_tui_functions);
	case BP_KEY_PRESS:
	case BP_KEY_DRAG:
	case BP_KEY_RELEASE:
	case BP_KEY_WHEEL_UP:
	case BP_KEY_WHEEL_DOWN:
	case BP_KEY_CTRL_WHEEL_UP:
	case BP_KEY_CTRL_WHEEL_DOWN:
		mouse(tui, t, key);
		return NULL;
	case BP_KEY_DOUBLE:
		mouse(tui, t, key);
		err = get_stack(tui, t);
		if (!err)
			fit(tui, t);
		return err;
	default:
		*used = false;
		return NULL;
	}
}

/* Another view has moved the cursor: on the track of the function that it is about. */
static void timeline_sync(struct bp_tui *tui, void *self)
{
	struct timeline *t = self;

	if (tui->cursor_depth && (t->sel.kind != TRACK_STACK || t->sel.level != tui->cursor_depth ||
				  t->sel.vcpu != (uint32_t)tui->cursor_vcpu)) {
		t->sel = (struct track){
		    .kind = TRACK_STACK, .vcpu = (uint32_t)tui->cursor_vcpu, .level = tui->cursor_depth};
		if (t->sel.vcpu < BP_LOD_VCPUS && t->fold[t->sel.vcpu] == FOLD_CLOSED)
			t->fold[t->sel.vcpu] = FOLD_AUTO;
	}
	t->follow = true;
}

static void timeline_adopt(struct bp_tui *tui, void *self, void *old)
{
	struct timeline *t = self;
	const struct timeline *from = old;

	(void)tui;
	t->sel = from->sel;
	memcpy(t->pinned, from->pinned, sizeof(t->pinned));
	t->n_pinned = from->n_pinned;
	memcpy(t->fold, from->fold, sizeof(t->fold));
	memcpy(t->level_top, from->level_top, sizeof(t->level_top));
	t->top = from->top;
	/* Lines of the host are numbered anew. */
	if (t->sel.kind == TRACK_HOST)
		t->sel = (struct track){.kind = TRACK_VCPU, .vcpu = t->sel.vcpu};
	for (unsigned i = 0; i < t->n_pinned;) {
		if (t->pinned[i].kind == TRACK_HOST)
			t->pinned[i] = t->pinned[--t->n_pinned];
		else
			i++;
	}
}

static bool timeline_busy(struct bp_tui *tui, void *self, bool wait)
{
	struct timeline *t = self;
	bool busy = t->host && !bp_host_done(t->host, wait);

	return (tui->compare && bp_compare_busy(tui->compare, wait)) || busy;
}

static const struct bp_tui_help help[] = {
    {"w s", "zoom in and out at the cursor (also + -, Ctrl-wheel)"},
    {"a d", "pan (also the wheel)"},
    {"Left Right h l", "move the cursor by a column"},
    {"Up Down k j", "select the track above or below; a stack shows deeper levels as one goes down"},
    {"PgUp PgDn", "ten tracks"},
    {"Home End", "start and end of the recording"},
    {"f", "make the slice under the cursor fill the screen; again: everything"},
    {"F", "everything"},
    {"[ ] , .", "previous and next slice on this track (phase, console line)"},
    {"{ }", "the calling function; the longest call that it makes"},
    {"x Z", "next and previous difference to the baseline: a call that costs more or less"},
    {"r", "range A..B around the slice under the cursor"},
    {"Space", "of a vCPU: all levels of its stack, none, as many as there is room for"},
    {"Tab", "the next vCPU"},
    {"p", "keep this track at the top"},
    {"Enter", "to the table that one came from, at the selected function"},
    {"mouse", "click: select; drag: range; double click: fit; on a vCPU's name: fold"},
    {NULL, NULL},
};

const struct bp_tui_view bp_tui_timeline = {
    .digit = '1',
    .name = "Timeline",
    .command = "timeline",
    .hints =
	"w s zoom  a d pan  arrows move  [ ] slice  { } parent, child  f fit  / find  g go to  A B range  "
	"Enter table  : commands  q quit",
    .help = help,
    .open = timeline_open,
    .close = timeline_close,
    .draw = timeline_draw,
    .key = timeline_key,
    .sync = timeline_sync,
    .adopt = timeline_adopt,
    .busy = timeline_busy,
};
