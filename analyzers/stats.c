// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/stats.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

double bp_stats_normal(double z)
{
	return 0.5 * erfc(-z / sqrt(2));
}

/* The z with @p above it, for p up to 0.5. */
static double normal_above(double p)
{
	double lo = 0, hi = 40;

	for (int i = 0; i < 100; i++) {
		double mid = (lo + hi) / 2;

		if (bp_stats_normal(-mid) > p)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

double bp_stats_spent(double alpha, double t)
{
	return t <= 0 ? 0 : t >= 1 ? alpha : alpha * pow(t, 1.5);
}

/* ---- ranks ---- */

struct ranked {
	double size;
	int positive;
};

static int compare_sizes(const void *x, const void *y)
{
	const struct ranked *a = x, *b = y;

	return (a->size > b->size) - (a->size < b->size);
}

/*
 * Twice the ranks of what is not zero (whole numbers, also for ties), twice the sum of the positive ones, and
 * the sum of t^3 - t over the ties; the number of ranks.
 */
static size_t rank(const double *x, size_t n, struct ranked *list, uint32_t *ranks, uint64_t *positive,
		   double *ties)
{
	size_t m = 0;

	for (size_t i = 0; i < n; i++) {
		if (x[i] != 0 && !isnan(x[i]))
			list[m++] = (struct ranked){fabs(x[i]), x[i] > 0};
	}
	qsort(list, m, sizeof(*list), compare_sizes);
	*positive = 0;
	*ties = 0;
	for (size_t i = 0, end; i < m; i = end) {
		double t;

		for (end = i + 1; end < m && list[end].size == list[i].size; end++)
			;
		t = (double)(end - i);
		*ties += t * t * t - t;
		for (size_t k = i; k < end; k++) {
			ranks[k] = (uint32_t)(i + end + 1);
			*positive += list[k].positive ? ranks[k] : 0;
		}
	}
	return m;
}

/* Distribution of the sum of the doubled ranks when each is positive with probability 1/2; sum + 1 entries.
 */
static double *distribution(const uint32_t *ranks, size_t n, size_t *sum)
{
	double *p;
	size_t top = 0;

	*sum = 0;
	for (size_t i = 0; i < n; i++)
		*sum += ranks[i];
	p = calloc(*sum + 1, sizeof(*p));
	if (!p)
		return NULL;
	p[0] = 1;
	for (size_t i = 0; i < n; i++) {
		top += ranks[i];
		for (size_t s = top + 1; s-- > 0;)
			p[s] = 0.5 * p[s] + (s >= ranks[i] ? 0.5 * p[s - ranks[i]] : 0);
	}
	return p;
}

struct bp_err *bp_stats_signed_rank(const double *x, size_t n, double *p)
{
	bp_autofree struct ranked *list = malloc((n + 1) * sizeof(*list));
	bp_autofree uint32_t *ranks = malloc((n + 1) * sizeof(*ranks));
	bp_autofree double *d = NULL;
	uint64_t positive;
	double ties, m, mean, sd;
	size_t sum;

	if (!list || !ranks)
		return bp_err_nomem();
	n = rank(x, n, list, ranks, &positive, &ties);
	*p = 1;
	if (!n)
		return NULL;
	if (n <= BP_STATS_EXACT) {
		d = distribution(ranks, n, &sum);
		if (!d)
			return bp_err_nomem();
		*p = 0;
		for (size_t s = sum + 1; s-- > positive;)
			*p += d[s];
		return NULL;
	}
	m = (double)n;
	mean = m * (m + 1) / 4;
	sd = sqrt(m * (m + 1) * (2 * m + 1) / 24 - ties / 48);
	/* Half a rank for the steps of the distribution. */
	*p = bp_stats_normal(-((double)positive / 2 - 0.5 - mean) / sd);
	return NULL;
}

static int compare_doubles(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return (a > b) - (a < b);
}

/* How many of the lowest means of pairs the interval leaves out at each end. */
static struct bp_err *left_out(size_t n, double confidence, size_t *ret)
{
	bp_autofree uint32_t *ranks = malloc((n + 1) * sizeof(*ranks));
	bp_autofree double *d = NULL;
	double tail = (1 - confidence) / 2, below = 0, m = (double)n, k;
	size_t sum;

	*ret = 0;
	if (n > BP_STATS_EXACT) {
		k = m * (m + 1) / 4 - normal_above(tail) * sqrt(m * (m + 1) * (2 * m + 1) / 24);
		*ret = k > 0 ? (size_t)k : 0;
		return NULL;
	}
	if (!ranks)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++)
		ranks[i] = (uint32_t)(2 * (i + 1));
	d = distribution(ranks, n, &sum);
	if (!d)
		return bp_err_nomem();
	for (size_t s = 0; s <= sum; s += 2) {
		below += d[s];
		if (below > tail)
			break;
		*ret = s / 2 + 1;
	}
	return NULL;
}

struct bp_err *bp_stats_location(const double *x, size_t n, double confidence, double *middle, double *low,
				 double *high)
{
	bp_autofree double *means = NULL;
	size_t m = 0, out;
	struct bp_err *err;

	if (n > BP_STATS_MAX)
		n = BP_STATS_MAX;
	*middle = 0;
	*low = -INFINITY;
	*high = INFINITY;
	if (!n)
		return NULL;
	means = malloc(n * (n + 1) / 2 * sizeof(*means));
	if (!means)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		for (size_t k = i; k < n; k++)
			means[m++] = (x[i] + x[k]) / 2;
	}
	qsort(means, m, sizeof(*means), compare_doubles);
	*middle = m % 2 ? means[m / 2] : (means[m / 2 - 1] + means[m / 2]) / 2;
	err = left_out(n, confidence, &out);
	if (!err && out && out <= m) {
		*low = means[out - 1];
		*high = means[m - out];
	}
	return err;
}

struct bp_err *bp_stats_pairs(const double *old_values, const double *new_values, size_t n,
			      struct bp_pairs *ret)
{
	bp_autofree double *x = calloc(n + 1, sizeof(*x));
	struct bp_err *err;

	*ret = (struct bp_pairs){.n = n, .ratio = 1, .high = INFINITY, .p_slower = 1, .p_faster = 1};
	if (!x)
		return bp_err_nomem();
	if (n > BP_STATS_MAX)
		n = BP_STATS_MAX;
	for (size_t i = 0; i < n; i++)
		x[i] = log(new_values[i] / old_values[i]);
	err = bp_stats_signed_rank(x, n, &ret->p_slower);
	if (!err)
		err = bp_stats_location(x, n, 0.9, &ret->ratio, &ret->low, &ret->high);
	for (size_t i = 0; i < n; i++)
		x[i] = -x[i];
	if (!err)
		err = bp_stats_signed_rank(x, n, &ret->p_faster);
	ret->ratio = exp(ret->ratio);
	ret->low = exp(ret->low);
	ret->high = exp(ret->high);
	return err;
}

enum bp_stats_verdict bp_stats_judge(const struct bp_pairs *p, double noise, double alpha, double before,
				     double now)
{
	/* What this look may spend; the sum over all looks is at most alpha, whatever happened before. */
	double may = bp_stats_spent(alpha, now) - bp_stats_spent(alpha, before);

	if (p->p_slower <= may && p->ratio > 1 + noise)
		return BP_STATS_SLOWER;
	if (p->p_faster <= may && p->ratio < 1 / (1 + noise))
		return BP_STATS_FASTER;
	if (p->high <= 1 + noise)
		return BP_STATS_SAME;
	return BP_STATS_UNDECIDED;
}
