// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "analyzers/gate.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/stats.h"
#include "core/cleanup.h"
#include "core/units.h"

enum { OLD, NEW };

/* Functions that are named one by one when they grew. */
#define MAX_FUNCTIONS 20
#define TIME_NOISE 0.05
/*
 * A function may grow by so many times the most that harmless changes moved it: that is the largest of a few
 * values, and the next may be larger. What a single change did beyond so many times what the others did to
 * the same function (floor_sudden_insns) may happen to any.
 */
#define OWN_FLOOR 4
/* What few changes do not show, of some thousand functions: the total's floor, and at most this share of it
 * all. */
#define QUIET_SHARE 0.0002
/* A floor above this share of the instructions hides what people want to find. */
#define HIGH_FLOOR 0.001
#define NAMED_MOVERS 3

const char *bp_gate_verdict_name(enum bp_gate_verdict v)
{
	static const char *const names[] = {"pass", "regression", "inconclusive", "invalid"};

	return names[v];
}

struct bp_err *bp_gate_new(const char *judge, struct bp_gate **ret)
{
	struct bp_gate *g = calloc(1, sizeof(*g));

	if (!g)
		return bp_err_nomem();
	g->judge = judge;
	*ret = g;
	return NULL;
}

void bp_gate_destroy(struct bp_gate *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->n_metrics; i++) {
		free(g->metrics[i].name);
		free(g->metrics[i].text);
	}
	for (size_t i = 0; i < g->n_blame; i++) {
		free(g->blame[i].name);
		free(g->blame[i].path);
		free(g->blame[i].what);
	}
	for (size_t i = 0; i < g->n_notes; i++)
		free(g->notes[i]);
	free(g->metrics);
	free(g->blame);
	free(g->notes);
	free(g);
}

void bp_gate_note(struct bp_gate *g, const char *fmt, ...)
{
	char **notes = realloc(g->notes, (g->n_notes + 1) * sizeof(*notes));
	va_list ap;

	if (!notes)
		return;
	g->notes = notes;
	va_start(ap, fmt);
	if (vasprintf(&notes[g->n_notes], fmt, ap) >= 0)
		g->n_notes++;
	va_end(ap);
}

void bp_gate_worse(struct bp_gate *g, enum bp_gate_verdict v)
{
	/* pass, inconclusive, regression, invalid */
	static const int rank[] = {
	    [BP_GATE_PASS] = 0, [BP_GATE_INCONCLUSIVE] = 1, [BP_GATE_REGRESSION] = 2, [BP_GATE_INVALID] = 3};

	if (rank[v] > rank[g->verdict])
		g->verdict = v;
}

struct bp_gate_metric *bp_gate_metric(struct bp_gate *g, const char *name, const char *unit)
{
	struct bp_gate_metric *m = realloc(g->metrics, (g->n_metrics + 1) * sizeof(*m));
	char *copy = strdup(name);

	if (m)
		g->metrics = m;
	if (!m || !copy) {
		free(copy);
		return NULL;
	}
	m = &g->metrics[g->n_metrics++];
	*m = (struct bp_gate_metric){
	    .name = copy,
	    .unit = unit,
	    .old_value = NAN,
	    .new_value = NAN,
	    .limit = NAN,
	    .ratio = NAN,
	    .low = NAN,
	    .high = NAN,
	    .p = NAN,
	};
	return m;
}

static const struct bp_gate_limit *find_limit(const struct bp_gate_options *o, const char *metric, size_t len,
					      bool noise)
{
	/* The last one that says so. */
	for (size_t i = o->n_limits; i-- > 0;) {
		const struct bp_gate_limit *l = &o->limits[i];

		if (strlen(l->metric) == len && !strncmp(l->metric, metric, len) &&
		    (noise ? l->noise : l->significance) >= 0)
			return l;
	}
	return NULL;
}

double bp_gate_noise(const struct bp_gate_options *o, const char *metric, bool time)
{
	const struct bp_gate_limit *l = find_limit(o, metric, strlen(metric), true);

	if (!l)
		l = find_limit(o, metric, strcspn(metric, ":"), true);
	if (l)
		return l->noise;
	return o->noise >= 0 ? o->noise : time ? TIME_NOISE : 0;
}

double bp_gate_significance(const struct bp_gate_options *o, const char *metric)
{
	const struct bp_gate_limit *l = find_limit(o, metric, strlen(metric), false);

	if (!l)
		l = find_limit(o, metric, strcspn(metric, ":"), false);
	return l ? l->significance : o->significance;
}

/* ---- the exact judge ---- */

/* What is done before the kernel runs is the firmware's. */
static bool is_kernel_phase(const char *name)
{
	return strcmp(name, "qemu-setup") && strcmp(name, "firmware") && strcmp(name, "option-rom") &&
	       strcmp(name, "boot-loader") && strcmp(name, "decompressor");
}

bool bp_gate_repeats(const struct bp_summary *a, const struct bp_summary *b)
{
	if (a->kernel_insns != b->kernel_insns || a->n_phases != b->n_phases)
		return false;
	for (size_t i = 0; i < a->n_phases; i++) {
		if (strcmp(a->phases[i].name, b->phases[i].name) ||
		    (is_kernel_phase(a->phases[i].name) && a->phases[i].insns != b->phases[i].insns))
			return false;
	}
	return true;
}

static void raise(int64_t *floor, int64_t by)
{
	if (llabs(by) > *floor)
		*floor = llabs(by);
}

/* @by: how far one of the boots moved a function; the two largest are kept. */
static void raise_two(int64_t *floor, int64_t *second, int64_t by)
{
	int64_t moved = llabs(by);

	if (moved > *floor) {
		*second = *floor;
		*floor = moved;
	} else if (moved > *second) {
		*second = moved;
	}
}

struct bp_err *bp_gate_floor(struct bp_summary *base, struct bp_summary *const *others, size_t n)
{
	bp_autofree int64_t *second = calloc(base->n_funcs + 1, sizeof(*second));

	if (!second)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		bp_cleanup(bp_diff_destroyp) struct bp_diff *d = NULL;
		const struct bp_summary *o = others[i];
		struct bp_err *err = bp_diff_create(base, o, BP_CLOCK_INSNS, &d);

		if (err)
			return err;
		raise(&base->floor_insns, (int64_t)(o->insns - base->insns));
		raise(&base->floor_kernel_insns, (int64_t)(o->kernel_insns - base->kernel_insns));
		for (size_t k = 0; k < d->n_phases; k++) {
			uint32_t p = bp_summary_phase(base, d->phases[k].name);

			if (p != BP_SUM_NONE)
				raise(&base->phases[p].floor,
				      d->phases[k].insns[NEW] - d->phases[k].insns[OLD]);
		}
		for (size_t k = 0; k < d->n_funcs; k++) {
			const struct bp_diff_func *f = &d->funcs[k];
			uint32_t id = f->id[OLD];

			if (id != BP_SUM_NONE)
				raise_two(&base->funcs[id].floor, &second[id],
					  f->self_insns[NEW] - f->self_insns[OLD]);
			else if (f->space >= BP_SPACE_KERNEL)
				raise(&base->floor_sudden_insns, f->self_insns[NEW]);
		}
		base->floor_runs++;
	}
	for (size_t k = 0; k < base->n_funcs; k++) {
		int64_t beyond = base->funcs[k].floor - OWN_FLOOR * second[k];

		if (base->funcs[k].space >= BP_SPACE_KERNEL && beyond > base->floor_sudden_insns)
			base->floor_sudden_insns = beyond;
	}
	return NULL;
}

static double larger(double a, double b)
{
	return a > b ? a : b;
}

/* What a function may grow by that kept still in the boots that measured the floor. */
static double quiet_floor(const struct bp_summary *base)
{
	double share = QUIET_SHARE * (double)base->kernel_insns;
	double total = (double)base->floor_kernel_insns;

	return larger(2 * (double)base->floor_sudden_insns, total < share ? total : share);
}

/* A metric with a limit for its growth. @says: at least the growth is told when it is within the limit. */
static struct bp_err *exact_metric(struct bp_gate *g, const char *name, int64_t from, int64_t to, double grow)
{
	struct bp_gate_metric *m = bp_gate_metric(g, name, "insns");
	char a[BP_UNITS_MAX], b[BP_UNITS_MAX], ratio[48] = "there were none";

	if (!m)
		return bp_err_nomem();
	m->old_value = (double)from;
	m->new_value = (double)to;
	m->limit = (double)from + grow;
	if ((double)(to - from) <= grow)
		return NULL;
	m->verdict = BP_GATE_REGRESSION;
	bp_gate_worse(g, BP_GATE_REGRESSION);
	/* Beyond ten times as many, a percentage is only long. */
	if (from > 0 && to / from < 10)
		snprintf(ratio, sizeof(ratio), "%+.3f%%", 100 * (double)(to - from) / (double)from);
	else if (from > 0)
		snprintf(ratio, sizeof(ratio), "there were %s", bp_units_icount(b, from));
	if (asprintf(&m->text, "%s instructions more (%s), %s are allowed", bp_units_icount(a, to - from),
		     ratio, bp_units_icount(b, (int64_t)grow)) < 0)
		m->text = NULL;
	return NULL;
}

static int compare_growth(const void *x, const void *y, void *arg)
{
	const struct bp_diff *d = arg;
	const struct bp_diff_func *a = &d->funcs[*(const uint32_t *)x], *b = &d->funcs[*(const uint32_t *)y];
	int64_t ga = a->self_insns[NEW] - a->self_insns[OLD], gb = b->self_insns[NEW] - b->self_insns[OLD];

	if (ga != gb)
		return ga > gb ? -1 : 1;
	return a < b ? -1 : a > b;
}

static struct bp_err *exact_functions(struct bp_gate *g, const struct bp_diff *d,
				      const struct bp_gate_options *o)
{
	const struct bp_summary *base = d->s[OLD];
	bp_autofree uint32_t *grown = malloc((d->n_funcs + 1) * sizeof(*grown));
	size_t n = 0;

	if (!grown)
		return bp_err_nomem();
	for (size_t i = 0; i < d->n_funcs; i++) {
		if (d->funcs[i].space >= BP_SPACE_KERNEL &&
		    d->funcs[i].self_insns[NEW] > d->funcs[i].self_insns[OLD])
			grown[n++] = (uint32_t)i;
	}
	qsort_r(grown, n, sizeof(*grown), compare_growth, (void *)d);
	for (size_t i = 0, named = 0; i < n; i++) {
		const struct bp_diff_func *f = &d->funcs[grown[i]];
		int64_t floor = f->id[OLD] != BP_SUM_NONE ? base->funcs[f->id[OLD]].floor : 0;
		int64_t by = f->self_insns[NEW] - f->self_insns[OLD];
		bp_autofree char *name = NULL;
		struct bp_err *err;
		double grow;

		if (asprintf(&name, "function:%s", f->name) < 0)
			return bp_err_nomem();
		grow = larger(larger(OWN_FLOOR * (double)floor, quiet_floor(base)),
			      bp_gate_noise(o, name, false) * (double)base->kernel_insns);
		if ((double)by <= grow)
			continue;
		if (named++ == MAX_FUNCTIONS) {
			bp_gate_note(g, "more than %d functions grew; the others are not named",
				     MAX_FUNCTIONS);
			break;
		}
		err = exact_metric(g, name, f->self_insns[OLD], f->self_insns[NEW], grow);
		if (err)
			return err;
	}
	return NULL;
}

/* Which functions make the floor as high as it is. */
static void note_movers(struct bp_gate *g, const struct bp_summary *base)
{
	uint32_t most[NAMED_MOVERS];
	char buf[BP_UNITS_MAX];
	size_t n = 0;

	for (uint32_t i = 0; i < base->n_funcs; i++) {
		size_t k = n;

		if (!base->funcs[i].floor)
			continue;
		while (k > 0 && base->funcs[most[k - 1]].floor < base->funcs[i].floor)
			k--;
		if (k == NAMED_MOVERS)
			continue;
		n += n < NAMED_MOVERS;
		memmove(&most[k + 1], &most[k], (n - 1 - k) * sizeof(*most));
		most[k] = i;
	}
	bp_gate_note(
	    g,
	    "the floor is high: this guest does not do the same each time, most of all in %s%s%s%s%s; a "
	    "function that did is allowed %s",
	    n > 0 ? base->funcs[most[0]].name : "", n > 1 ? ", " : "", n > 1 ? base->funcs[most[1]].name : "",
	    n > 2 ? ", " : "", n > 2 ? base->funcs[most[2]].name : "",
	    bp_units_icount(buf, (int64_t)quiet_floor(base)));
}

struct bp_err *bp_gate_exact(struct bp_gate *g, const struct bp_diff *d, const struct bp_gate_options *o)
{
	const struct bp_summary *a = d->s[OLD], *b = d->s[NEW];
	double floor = 2 * (double)a->floor_kernel_insns;
	struct bp_err *err =
	    exact_metric(g, "insns", (int64_t)a->kernel_insns, (int64_t)b->kernel_insns,
			 larger(floor, bp_gate_noise(o, "insns", false) * (double)a->kernel_insns));
	char buf[BP_UNITS_MAX];

	for (size_t i = 0; i < d->n_phases && !err; i++) {
		const struct bp_diff_phase *p = &d->phases[i];
		uint32_t at = bp_summary_phase(a, p->name);
		char name[128];

		if (!is_kernel_phase(p->name))
			continue;
		snprintf(name, sizeof(name), "phase:%.100s", p->name);
		err = exact_metric(g, name, p->insns[OLD], p->insns[NEW],
				   larger(larger(at == BP_SUM_NONE ? 0 : 2 * (double)a->phases[at].floor,
						 (double)a->floor_kernel_insns),
					  bp_gate_noise(o, name, false) * (double)p->insns[OLD]));
	}
	if (!err)
		err = exact_functions(g, d, o);
	if (a->floor_runs)
		bp_gate_note(g,
			     "floor: %u harmless changes of the guest moved its instructions by up to %s "
			     "(%.4f%%); twice that is allowed",
			     a->floor_runs, bp_units_icount(buf, a->floor_kernel_insns),
			     a->kernel_insns ? 100 * (double)a->floor_kernel_insns / (double)a->kernel_insns
					     : 0.0);
	if (a->floor_runs && (double)a->floor_kernel_insns > HIGH_FLOOR * (double)a->kernel_insns)
		note_movers(g, a);
	if (!a->floor_runs)
		bp_gate_note(
		    g, "floor: not measured for this baseline; any growth beyond --noise is a regression");
	if (a->insns - a->kernel_insns != b->insns - b->kernel_insns)
		bp_gate_note(g,
			     "firmware, boot loader and decompressor: %+" PRId64 " instructions; not judged",
			     (int64_t)(b->insns - b->kernel_insns) - (int64_t)(a->insns - a->kernel_insns));
	return err;
}

/* ---- the statistical judge ---- */

static double median(const double *v, size_t n)
{
	double low = 0, mid;

	/* Nothing is changed in place: n is small. */
	for (size_t i = 0; i < n; i++) {
		size_t below = 0, same = 0;

		for (size_t k = 0; k < n; k++) {
			below += v[k] < v[i];
			same += v[k] == v[i];
		}
		if (below <= (n - 1) / 2 && (n - 1) / 2 < below + same)
			low = v[i];
	}
	mid = low;
	if (n % 2 == 0) {
		for (size_t i = 0; i < n; i++) {
			size_t below = 0, same = 0;

			for (size_t k = 0; k < n; k++) {
				below += v[k] < v[i];
				same += v[k] == v[i];
			}
			if (below <= n / 2 && n / 2 < below + same)
				mid = v[i];
		}
	}
	return (low + mid) / 2;
}

struct bp_err *bp_gate_statistical(struct bp_gate *g, const struct bp_gate_series *series, size_t n,
				   double before, double now, const struct bp_gate_options *o)
{
	for (size_t i = 0; i < n; i++) {
		const struct bp_gate_series *s = &series[i];
		double noise = bp_gate_noise(o, s->name, true);
		/* Each of several metrics may err: together no more often than one. */
		double alpha = bp_gate_significance(o, s->name) / (double)n;
		struct bp_gate_metric *m = bp_gate_metric(g, s->name, "ns");
		char interval[64] = "too few for an interval";
		struct bp_pairs p;
		struct bp_err *err;
		const char *says;

		if (!m)
			return bp_err_nomem();
		err = bp_stats_pairs(s->old_values, s->new_values, s->n, &p);
		if (err)
			return err;
		m->old_value = median(s->old_values, s->n);
		m->new_value = median(s->new_values, s->n);
		m->pairs = p.n;
		m->ratio = p.ratio;
		m->low = p.low;
		m->high = p.high;
		m->p = p.p_slower;
		switch (bp_stats_judge(&p, noise, alpha, before, now)) {
		case BP_STATS_SLOWER:
			m->verdict = BP_GATE_REGRESSION;
			says = "slower";
			break;
		case BP_STATS_FASTER:
			m->verdict = BP_GATE_PASS;
			says = "faster";
			break;
		case BP_STATS_SAME:
			m->verdict = BP_GATE_PASS;
			says = "no slower";
			break;
		default:
			m->verdict = BP_GATE_INCONCLUSIVE;
			says = "not decided";
			break;
		}
		bp_gate_worse(g, m->verdict);
		if (isfinite(p.high))
			snprintf(interval, sizeof(interval), "90%% interval %+.1f%% to %+.1f%%",
				 100 * (p.low - 1), 100 * (p.high - 1));
		if (asprintf(&m->text, "%s: %+.1f%% (%s), p = %.2g, %zu pairs; up to %+.1f%% is noise", says,
			     100 * (p.ratio - 1), interval, p.p_slower, p.n, 100 * noise) < 0)
			m->text = NULL;
	}
	return NULL;
}

/* ---- blame ---- */

static struct bp_gate_blame *add_blame(struct bp_gate *g, const char *name, const char *kind)
{
	struct bp_gate_blame *b = realloc(g->blame, (g->n_blame + 1) * sizeof(*b));
	char *copy = strdup(name);

	if (b)
		g->blame = b;
	if (!b || !copy) {
		free(copy);
		return NULL;
	}
	b = &g->blame[g->n_blame++];
	*b = (struct bp_gate_blame){.name = copy, .kind = kind, .module = ""};
	return b;
}

static int64_t change(const struct bp_diff *d, const struct bp_diff_func *f)
{
	return d->clock == BP_CLOCK_INSNS ? f->self_insns[NEW] - f->self_insns[OLD]
					  : f->self_ns[NEW] - f->self_ns[OLD];
}

static int compare_change(const void *x, const void *y, void *arg)
{
	const struct bp_diff *d = arg;
	const struct bp_diff_func *a = &d->funcs[*(const uint32_t *)x], *b = &d->funcs[*(const uint32_t *)y];
	int64_t ca = llabs(change(d, a)), cb = llabs(change(d, b));

	if (ca != cb)
		return ca > cb ? -1 : 1;
	return a < b ? -1 : a > b;
}

static const char *phase(const struct bp_diff *d, uint32_t p)
{
	return p == BP_SUM_NONE ? "?" : d->phases[p].name;
}

static int says(char **what, const struct bp_diff *d, const struct bp_diff_func *f)
{
	switch (f->state) {
	case BP_DIFF_NEW:
		return asprintf(what, "new");
	case BP_DIFF_GONE:
		return asprintf(what, "gone");
	case BP_DIFF_RENAMED:
		return asprintf(what, "was %s", f->from);
	case BP_DIFF_INLINED:
		return asprintf(what, "inlined into %s", f->from);
	case BP_DIFF_SPLIT:
		return asprintf(what, "split off %s", f->from);
	default:
		break;
	}
	if (f->moved && f->phase[OLD] != f->phase[NEW])
		return asprintf(what, "first called in %s, not %s", phase(d, f->phase[NEW]),
				phase(d, f->phase[OLD]));
	return asprintf(what, "%s",
			f->calls[NEW] > f->calls[OLD]   ? "more calls"
			: f->calls[NEW] < f->calls[OLD] ? "fewer calls"
							: "");
}

static struct bp_err *explain_moves(struct bp_gate *g, const struct bp_diff *d, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < d->n_modules; i++) {
		const struct bp_diff_item *m = &d->modules[i];
		struct bp_gate_blame *b;
		int r;

		if (m->has[OLD] == m->has[NEW] && m->calls[OLD] == m->calls[NEW] &&
		    m->phase[OLD] == m->phase[NEW])
			continue;
		b = add_blame(g, m->name, "module");
		if (!b)
			return bp_err_nomem();
		b->module = m->name;
		b->delta_insns = m->insns[NEW] - m->insns[OLD];
		b->delta_ns = m->ns[NEW] - m->ns[OLD];
		b->calls_old = m->calls[OLD];
		b->calls_new = m->calls[NEW];
		r = m->phase[OLD] != m->phase[NEW] && m->has[OLD] && m->has[NEW]
			? asprintf(&b->what, "loaded in %s, not %s", phase(d, m->phase[NEW]),
				   phase(d, m->phase[OLD]))
			: asprintf(&b->what, "loaded %" PRIu64 " times, not %" PRIu64, m->calls[NEW],
				   m->calls[OLD]);
		if (r < 0)
			b->what = NULL;
	}
	for (size_t i = 0; i < d->n_funcs && n < max; i++) {
		const struct bp_diff_func *f = &d->funcs[i];
		struct bp_gate_blame *b;

		if (!f->moved || f->phase[OLD] == f->phase[NEW])
			continue;
		b = add_blame(g, f->name, "first-call");
		if (!b)
			return bp_err_nomem();
		b->module = f->module;
		b->calls_old = f->calls[OLD];
		b->calls_new = f->calls[NEW];
		if (says(&b->what, d, f) < 0)
			b->what = NULL;
		n++;
	}
	return NULL;
}

struct bp_err *bp_gate_explain(struct bp_gate *g, const struct bp_diff *d, size_t max)
{
	bp_autofree uint32_t *order = malloc((d->n_funcs + 1) * sizeof(*order));
	int64_t ns = 0, insns = 0;
	size_t n = 0, rest = 0;
	struct bp_gate_blame *b;
	struct bp_err *err;

	if (!order)
		return bp_err_nomem();
	g->delta_insns = (int64_t)(d->s[NEW]->insns - d->s[OLD]->insns);
	g->delta_ns = d->s[NEW]->self_ns - d->s[OLD]->self_ns;
	for (size_t i = 0; i < d->n_funcs; i++) {
		if (change(d, &d->funcs[i]) || d->funcs[i].self_ns[OLD] != d->funcs[i].self_ns[NEW])
			order[n++] = (uint32_t)i;
	}
	qsort_r(order, n, sizeof(*order), compare_change, (void *)d);
	for (size_t i = 0; i < n; i++) {
		const struct bp_diff_func *f = &d->funcs[order[i]];
		int64_t by_insns = f->self_insns[NEW] - f->self_insns[OLD];
		int64_t by_ns = f->self_ns[NEW] - f->self_ns[OLD];

		if (i >= max || !change(d, f)) {
			insns += by_insns;
			ns += by_ns;
			rest++;
			continue;
		}
		b = add_blame(g, f->name, "function");
		if (!b)
			return bp_err_nomem();
		b->module = f->module;
		b->delta_insns = by_insns;
		b->delta_ns = by_ns;
		b->calls_old = f->calls[OLD];
		b->calls_new = f->calls[NEW];
		err = bp_diff_path(d, f->node, &b->path);
		if (err)
			return err;
		if (says(&b->what, d, f) < 0)
			b->what = NULL;
	}
	if (rest) {
		char name[64];

		snprintf(name, sizeof(name), "(%zu other functions)", rest);
		b = add_blame(g, name, "rest");
		if (!b)
			return bp_err_nomem();
		b->delta_insns = insns;
		b->delta_ns = ns;
	}
	if (d->outside_insns[OLD] != d->outside_insns[NEW]) {
		b = add_blame(g, "(in no function)", "rest");
		if (!b)
			return bp_err_nomem();
		b->delta_insns = d->outside_insns[NEW] - d->outside_insns[OLD];
	}
	return explain_moves(g, d, 10);
}
