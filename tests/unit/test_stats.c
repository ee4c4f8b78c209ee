// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Statistics against figures from elsewhere: published tables, and sums over all signs written out here from
 * the definition; and how often the judge errs on made-up boots.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "analyzers/stats.h"

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

#define assert_near(got, want, eps)                                              \
	do {                                                                     \
		double g_ = (got), w_ = (want);                                  \
		if (!(fabs(g_ - w_) <= (eps)))                                   \
			fail_msg("line %d: %.9g is not %.9g", __LINE__, g_, w_); \
	} while (0)

/* The definition: of all 2^n ways to give signs to the sizes, how many have as high a rank sum. */
static double by_hand(const double *x, size_t n)
{
	double ranks[20], sum = 0;
	size_t m = 0, as_high = 0;
	double y[20];

	for (size_t i = 0; i < n; i++) {
		if (x[i] != 0)
			y[m++] = x[i];
	}
	for (size_t i = 0; i < m; i++) {
		double below = 0, same = 0;

		for (size_t k = 0; k < m; k++) {
			below += fabs(y[k]) < fabs(y[i]);
			same += fabs(y[k]) == fabs(y[i]);
		}
		ranks[i] = below + (same + 1) / 2;
		sum += y[i] > 0 ? ranks[i] : 0;
	}
	for (size_t signs = 0; signs < (size_t)1 << m; signs++) {
		double s = 0;

		for (size_t i = 0; i < m; i++)
			s += signs >> i & 1 ? ranks[i] : 0;
		as_high += s >= sum - 1e-9;
	}
	return (double)as_high / (double)((size_t)1 << m);
}

static uint64_t seed = 88172645463325252ull;

static double uniform(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (double)(seed >> 11) / 9007199254740992.0;
}

static double normal(void)
{
	return sqrt(-2 * log(1 - uniform())) * cos(2 * M_PI * uniform());
}

static void test_definition(void **state)
{
	(void)state;
	for (int i = 0; i < 60; i++) {
		double x[14], p;
		size_t n = (size_t)(uniform() * 14) + 1;

		/* Half of the time with ties and zeros. */
		for (size_t k = 0; k < n; k++)
			x[k] = i % 2 ? normal() + 0.4 : floor(normal() * 3 + 1);
		ok(bp_stats_signed_rank(x, n, &p));
		assert_near(p, by_hand(x, n), 1e-12);
	}
}

/*
 * Critical values of T for one-sided tests, the smaller rank sum: F. Wilcoxon and R. A. Wilcox, "Some rapid
 * approximate statistical procedures" (1964), as reprinted in textbooks: with n values, T at most this is
 * significant at .05, .025, .01, .005 (0: no such T).
 */
static const struct {
	int n, t[4];
} table[] = {
    {6, {2, 0, -1, -1}},    {8, {5, 3, 1, 0}},      {10, {10, 8, 5, 3}},     {12, {17, 13, 9, 7}},
    {15, {30, 25, 19, 15}}, {20, {60, 52, 43, 37}}, {25, {100, 89, 76, 68}}, {30, {151, 137, 120, 109}},
};

/* Values with ranks 1 to n, of which the negative ones add up to t. */
static void with_sum(double *x, int n, int t)
{
	for (int i = n; i > 0; i--) {
		x[i - 1] = i <= t ? -i : i;
		t -= i <= t ? i : 0;
	}
	assert_int_equal(t, 0);
}

static void test_table(void **state)
{
	static const double level[] = {0.05, 0.025, 0.01, 0.005};
	double x[30], p;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		for (int k = 0; k < 4; k++) {
			int t = table[i].t[k];

			if (t < 0)
				continue;
			with_sum(x, table[i].n, t);
			ok(bp_stats_signed_rank(x, (size_t)table[i].n, &p));
			/* Textbooks round: 25 values and T 100 are significant at .0479, 30 and 152 at .0502.
			 */
			assert_true(p <= level[k] + 5e-4);
			with_sum(x, table[i].n, t + 1);
			ok(bp_stats_signed_rank(x, (size_t)table[i].n, &p));
			assert_true(p > level[k] - 5e-4);
		}
	}
}

static void test_large(void **state)
{
	double x[200], exact, p, shifted[50];

	(void)state;
	/* Where the approximation begins it agrees with the exact distribution. */
	for (int i = 0; i < 20; i++) {
		for (size_t k = 0; k < 51; k++)
			x[k] = normal() + 0.25;
		for (size_t k = 0; k < 50; k++)
			shifted[k] = x[k];
		ok(bp_stats_signed_rank(shifted, 50, &exact));
		ok(bp_stats_signed_rank(x, 51, &p));
		/* One more value changes a little, too. */
		assert_near(log10(p), log10(exact), 0.9);
	}
	/* All positive: W = n(n+1)/2; z = (5050 - .5 - 2525) / sqrt(100 * 101 * 201 / 24) */
	for (size_t k = 0; k < 100; k++)
		x[k] = (double)k + 1;
	ok(bp_stats_signed_rank(x, 100, &p));
	assert_near(log10(p), log10(0.5 * erfc(2524.5 / sqrt(84587.5) / sqrt(2))), 1e-6);
	ok(bp_stats_signed_rank(x, 0, &p));
	assert_near(p, 1, 0);
	x[0] = x[1] = 0;
	ok(bp_stats_signed_rank(x, 2, &p));
	assert_near(p, 1, 0);
}

/* Values and interval of the example in M. Hollander and D. A. Wolfe, "Nonparametric Statistical Methods"
 * (1973), example 3.1 (depression scale factors): differences of nine patients, new less old. */
static void test_location(void **state)
{
	static const double x[] = {-0.952, 0.147, -1.022, -0.430, -0.620, -0.590, -0.490, 0.080, -0.010};
	double middle, low, high, p, y[9];

	(void)state;
	for (int i = 0; i < 9; i++)
		y[i] = -x[i];
	ok(bp_stats_signed_rank(y, 9, &p));
	/* T+ = 5 of 45: P = 10/512, as published .020 */
	assert_near(p, 10.0 / 512, 1e-12);
	ok(bp_stats_location(x, 9, 0.96, &middle, &low, &high));
	assert_near(middle, -0.46, 1e-9);
	/* .961: the sixth smallest and largest Walsh averages */
	assert_near(low, -0.786, 1e-9);
	assert_near(high, -0.010, 1e-9);
	ok(bp_stats_location(x, 3, 0.9, &middle, &low, &high));
	assert_true(isinf(low) && isinf(high));
}

static void test_spending(void **state)
{
	(void)state;
	assert_near(bp_stats_normal(1.959963985), 0.975, 1e-9);
	assert_near(bp_stats_spent(0.01, 1), 0.01, 0);
	assert_near(bp_stats_spent(0.01, 0), 0, 0);
	assert_near(bp_stats_spent(0.01, 0.25), 0.00125, 1e-12);
	/* Ten pairs that all say the same (p = 1/1024) are enough at the first of three looks. */
	assert_true(bp_stats_spent(0.01, 1.0 / 3) > 1.0 / 1024);
}

/* Looks after 10, 20 and 30 pairs of boots whose time varies by 20 %: as gate does it. */
static enum bp_stats_verdict series(double slower, double cv, double noise)
{
	double a[30], b[30];
	enum bp_stats_verdict v = BP_STATS_UNDECIDED;

	for (size_t n = 10; n <= 30 && v == BP_STATS_UNDECIDED; n += 10) {
		struct bp_pairs p;

		for (size_t i = n - 10; i < n; i++) {
			a[i] = exp(cv * normal());
			b[i] = slower * exp(cv * normal());
		}
		ok(bp_stats_pairs(a, b, n, &p));
		v = bp_stats_judge(&p, noise, 0.01, n == 10 ? 0 : (double)(n - 10) / 30, (double)n / 30);
	}
	return v;
}

static void test_errors(void **state)
{
	int alarms = 0, found = 0, same = 0;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		alarms += series(1, 0.2, 0.02) == BP_STATS_SLOWER;
		found += series(1.10, 0.08, 0.02) == BP_STATS_SLOWER;
		same += series(1, 0.03, 0.05) == BP_STATS_SAME;
	}
	print_message("of 2000: %d false alarms, %d found, %d same\n", alarms, found, same);
	/* 1 % of 2000, and three standard deviations of that */
	assert_in_range(alarms, 0, 20 + 13);
	assert_in_range(found, 1900, 2000);
	assert_in_range(same, 1900, 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_definition), cmocka_unit_test(test_table),    cmocka_unit_test(test_large),
	    cmocka_unit_test(test_location),   cmocka_unit_test(test_spending), cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
