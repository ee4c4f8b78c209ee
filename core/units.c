// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

/* How a magnitude is scaled: the first unit whose value fits below the next one is taken. */
struct unit {
	uint64_t one; /* value of one unit */
	const char *suffix;
};

static const struct unit ns_units[] = {
    {1, " ns"},
    {1000, " us"},
    {1000000, " ms"},
    {1000000000, " s"},
};

static const struct unit count_units[] = {
    {1, ""}, {1000, "k"}, {1000000, "M"}, {1000000000, "G"}, {1000000000000, "T"},
};

static const struct unit byte_units[] = {
    {1, " B"}, {1ull << 10, " KiB"}, {1ull << 20, " MiB"}, {1ull << 30, " GiB"}, {1ull << 40, " TiB"},
};

/* @v / @unit with @decimals decimals, rounded to nearest, in units of the last decimal. */
static uint64_t scale(uint64_t v, uint64_t unit, unsigned decimals)
{
	uint64_t pow = 1;

	while (decimals--)
		pow *= 10;
	return (uint64_t)(((unsigned __int128)v * pow + unit / 2) / unit);
}

/*
 * Write @v with @digits significant digits in the unit that keeps the whole part below @limit
 * (1000 or 1024). Integer arithmetic: no locale, and 999.96 becomes the next unit's 1.000.
 */
static void format_scaled(char buf[BP_UNITS_MAX], bool negative, uint64_t v, const struct unit *units,
			  size_t n_units, unsigned digits, uint64_t limit)
{
	const char *sign = negative && v ? "-" : "";

	for (size_t i = 0; i < n_units; i++) {
		const struct unit *u = &units[i];
		bool last = i + 1 == n_units;

		if (u->one == 1) {
			if (v < limit || last) {
				snprintf(buf, BP_UNITS_MAX, "%s%" PRIu64 "%s", sign, v, u->suffix);
				return;
			}
			continue;
		}
		for (unsigned decimals = digits - 1;; decimals--) {
			uint64_t max = decimals ? 10 : limit;
			uint64_t scaled = scale(v, u->one, decimals), pow = 1;

			for (unsigned k = 0; k < decimals; k++)
				pow *= 10;
			for (unsigned k = decimals; decimals && k + 1 < digits; k++)
				max *= 10;
			if (scaled / pow < max || (last && !decimals)) {
				if (decimals)
					snprintf(buf, BP_UNITS_MAX, "%s%" PRIu64 ".%0*" PRIu64 "%s", sign,
						 scaled / pow, (int)decimals, scaled % pow, u->suffix);
				else
					snprintf(buf, BP_UNITS_MAX, "%s%" PRIu64 "%s", sign, scaled,
						 u->suffix);
				return;
			}
			if (!decimals)
				break;
		}
	}
}

static uint64_t magnitude(int64_t v)
{
	return v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
}

const char *bp_units_ns(char buf[BP_UNITS_MAX], int64_t ns)
{
	format_scaled(buf, ns < 0, magnitude(ns), ns_units, sizeof(ns_units) / sizeof(*ns_units), 4, 1000);
	return buf;
}

static void format_count(char buf[BP_UNITS_MAX], bool negative, uint64_t n)
{
	if (n < 100000)
		snprintf(buf, BP_UNITS_MAX, "%s%" PRIu64, negative ? "-" : "", n);
	else
		format_scaled(buf, negative, n, count_units, sizeof(count_units) / sizeof(*count_units), 3,
			      1000);
}

const char *bp_units_count(char buf[BP_UNITS_MAX], uint64_t n)
{
	format_count(buf, false, n);
	return buf;
}

const char *bp_units_icount(char buf[BP_UNITS_MAX], int64_t n)
{
	format_count(buf, n < 0, magnitude(n));
	return buf;
}

const char *bp_units_bytes(char buf[BP_UNITS_MAX], uint64_t bytes)
{
	format_scaled(buf, false, bytes, byte_units, sizeof(byte_units) / sizeof(*byte_units), 3, 1024);
	return buf;
}

const char *bp_units_pct(char buf[BP_UNITS_MAX], double pct)
{
	int64_t tenths;

	if (!isfinite(pct) || fabs(pct) > 1e12) {
		snprintf(buf, BP_UNITS_MAX, "-");
		return buf;
	}
	tenths = (int64_t)(pct * 10 + (pct < 0 ? -0.5 : 0.5));
	snprintf(buf, BP_UNITS_MAX, "%s%" PRIu64 ".%" PRIu64 "%%", tenths < 0 ? "-" : "",
		 magnitude(tenths) / 10, magnitude(tenths) % 10);
	return buf;
}

const char *bp_units_ratio(char buf[BP_UNITS_MAX], uint64_t num, uint64_t den)
{
	uint64_t hundredths;

	if (!den) {
		snprintf(buf, BP_UNITS_MAX, "-");
		return buf;
	}
	hundredths = scale(num, den, 2);
	snprintf(buf, BP_UNITS_MAX, "%" PRIu64 ".%02" PRIu64, hundredths / 100, hundredths % 100);
	return buf;
}
