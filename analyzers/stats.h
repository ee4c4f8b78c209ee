/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Statistics of paired measurements: old and new boots that were run in turn, so that what else the host does
 * changes both. All on logarithms of the ratio new/old: a boot that is 10 % slower is so on any host.
 *
 * Sources: F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945);
 * J. L. Hodges and E. L. Lehmann, "Estimates of location based on rank tests", Ann. Math. Stat. 34 (1963);
 * K. Kim and D. L. DeMets, "Design and analysis of group sequential tests based on the type I error spending
 * rate function", Biometrika 74 (1987).
 */
#ifndef BP_ANALYZERS_STATS_H
#define BP_ANALYZERS_STATS_H

#include <stddef.h>

#include "core/err.h"

/* More pairs than this: the normal approximation, with its correction for ties, instead of the exact
 * distribution. */
#define BP_STATS_EXACT 50
/* No more are looked at. */
#define BP_STATS_MAX 1000

/**
 * bp_stats_signed_rank() - Wilcoxon's signed-rank test, one-sided
 * @x: differences; zeros are left out, ties get their mean rank. The exact distribution is that of these
 * ranks.
 * @p: probability of ranks as high as these, or higher, if x is symmetric around 0; 1 when nothing is left
 * Errors: BP_ENOMEM.
 */
struct bp_err *bp_stats_signed_rank(const double *x, size_t n, double *p) BP_MUST_CHECK;

/**
 * bp_stats_location() - Hodges-Lehmann estimate of the middle of @x, and the interval that belongs to the
 * test
 * @confidence: of the interval, two-sided: 0.9
 * The interval is that of all middles which the test would not reject; infinite when there are too few
 * values.
 */
struct bp_err *bp_stats_location(const double *x, size_t n, double confidence, double *middle, double *low,
				 double *high) BP_MUST_CHECK;

/** bp_stats_normal() - the standard normal distribution up to @z */
double bp_stats_normal(double z);

/**
 * bp_stats_spent() - of the significance @alpha, how much may be spent by the time that the share @t (0 to 1)
 * of all measurements is there: alpha * t^1.5 of Kim and DeMets' family, between one that lets a first look
 * decide hardly anything and one that leaves little to the last
 */
double bp_stats_spent(double alpha, double t);

struct bp_pairs {
	size_t n;
	double ratio, low, high; /* middle of new/old, and its 90 % interval */
	double p_slower;         /* of the new one being no slower */
	double p_faster;
};

/**
 * bp_stats_pairs() - judge pairs of measurements
 * @old_values, @new_values: n each, positive
 */
struct bp_err *bp_stats_pairs(const double *old_values, const double *new_values, size_t n,
			      struct bp_pairs *ret) BP_MUST_CHECK;

enum bp_stats_verdict { BP_STATS_UNDECIDED, BP_STATS_SAME, BP_STATS_SLOWER, BP_STATS_FASTER };

/**
 * bp_stats_judge() - what the pairs say at one of several looks at them
 * @noise: changes up to this much are none: 0.05
 * @alpha: significance over all looks together
 * @before, @now: share of all pairs that there will be at most, at the last look (0: none yet) and at this
 * one
 *
 * Slower: significant and more than the noise. Same: the interval is within the noise. Else undecided.
 */
enum bp_stats_verdict bp_stats_judge(const struct bp_pairs *p, double noise, double alpha, double before,
				     double now);

#endif
