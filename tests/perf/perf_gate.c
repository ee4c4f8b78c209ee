// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How often the statistical judge errs on pairs of measurements: perf_gate A-A A-B NOISE, where the files have a pair
 * of times a line. Looks after 10, 20 and 30 pairs, as `bootprof gate` has them.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "analyzers/stats.h"

#define MAX 1000
#define PAIRS 30

struct pairs {
	double a[MAX], b[MAX];
	size_t n;
};

static void load(const char *path, struct pairs *p)
{
	FILE *f = fopen(path, "r");

	if (!f) {
		perror(path);
		exit(1);
	}
	while (p->n < MAX && fscanf(f, "%lf %lf", &p->a[p->n], &p->b[p->n]) == 2)
		p->n++;
	fclose(f);
	if (p->n < PAIRS) {
		fprintf(stderr, "%s: only %zu pairs\n", path, p->n);
		exit(1);
	}
}

static enum bp_stats_verdict judge(const double *a, const double *b, double noise, size_t *used)
{
	enum bp_stats_verdict v = BP_STATS_UNDECIDED;

	for (size_t n = 10; n <= PAIRS && v == BP_STATS_UNDECIDED; n += 10) {
		struct bp_pairs p;
		struct bp_err *err = bp_stats_pairs(a, b, n, &p);

		if (err)
			exit(1);
		v = bp_stats_judge(&p, noise, 0.01, (double)(n - 10) / PAIRS, (double)n / PAIRS);
		*used += 10;
	}
	return v;
}

/* xorshift64: the same on each run */
static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed >> 11;
}

/* Pairs drawn at random; @swap: which of a pair is the new one, too, so that an unchanged guest is judged. */
static size_t resample(const struct pairs *p, size_t times, double noise, bool swap, size_t counts[4], size_t *used)
{
	uint64_t seed = 88172645463325252ull;

	for (size_t i = 0; i < times; i++) {
		double a[PAIRS], b[PAIRS];

		for (size_t k = 0; k < PAIRS; k++) {
			size_t from = next(&seed) % p->n;
			bool other = swap && next(&seed) % 2;

			a[k] = other ? p->b[from] : p->a[from];
			b[k] = other ? p->a[from] : p->b[from];
		}
		counts[judge(a, b, noise, used)]++;
	}
	return counts[BP_STATS_SLOWER];
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"undecided", "no slower", "slower", "faster"};
	static struct pairs aa, ab;
	size_t counts[4] = {0}, used = 0;
	double noise;

	if (argc != 4) {
		fprintf(stderr, "usage: perf_gate A-A A-B NOISE\n");
		return 1;
	}
	load(argv[1], &aa);
	load(argv[2], &ab);
	noise = atof(argv[3]);
	printf("noise %g%%, %zu pairs\n", 100 * noise, aa.n);
	printf("A/A in turn: %s\n", names[judge(aa.a, aa.b, noise, &used)]);
	used = 0;
	resample(&aa, 1000, noise, true, counts, &used);
	printf("A/A resamplings: %zu of 1000 slower, %zu no slower, %zu faster, %zu undecided, %.1f pairs each\n",
	       counts[BP_STATS_SLOWER], counts[BP_STATS_SAME], counts[BP_STATS_FASTER], counts[BP_STATS_UNDECIDED],
	       (double)used / 1000);
	for (int i = 0; i < 4; i++)
		counts[i] = 0;
	used = 0;
	resample(&ab, 10, noise, false, counts, &used);
	printf("A/B trials: %zu of 10 slower, %.1f pairs each\n", counts[BP_STATS_SLOWER], (double)used / 10);
	for (int i = 0; i < 4; i++)
		counts[i] = 0;
	resample(&ab, 1000, noise, false, counts, &used);
	printf("A/B resamplings: %zu of 1000 slower\n", counts[BP_STATS_SLOWER]);
	return 0;
}
