/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scanning of QEMU's text logs: numbers without the C library, eight digits at a time. Internal to
 * collectors/qemu/. */
#ifndef BP_COLLECTORS_QEMU_TEXTSCAN_H
#define BP_COLLECTORS_QEMU_TEXTSCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t bp_scan_load8(const char *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

/* Eight hexadecimal digits as the eight bytes of @v, little endian; false: not all are digits. */
static inline bool bp_scan_hex8(uint64_t v, uint32_t *ret)
{
	const uint64_t ones = 0x0101010101010101ull, top = 0x80 * ones;
	uint64_t lower = v | 0x20 * ones;
	uint64_t digit = (v + (0x80 - '0') * ones) & ~(v + (0x80 - '9' - 1) * ones);
	uint64_t letter = (lower + (0x80 - 'a') * ones) & ~(lower + (0x80 - 'f' - 1) * ones);

	if ((v & top) || ((digit | letter) & top) != top)
		return false;
	v = (v & 0x0f * ones) + 9 * (v >> 6 & ones);
	v = (v << 4 | v >> 8) & 0x00ff00ff00ff00ffull;
	v = (v << 8 | v >> 16) & 0x0000ffff0000ffffull;
	*ret = (uint32_t)(v << 16 | v >> 32);
	return true;
}

/* -1: not a hexadecimal digit */
static inline int bp_scan_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Hexadecimal digits from @p on, at most 16 of them; behind them, or NULL when there is none (or more). */
static inline const char *bp_scan_hex(const char *p, const char *end, uint64_t *ret)
{
	const char *start = p;
	uint64_t v = 0;

	for (; p < end && bp_scan_digit(*p) >= 0; p++)
		v = v << 4 | (uint64_t)bp_scan_digit(*p);
	if (p == start || p - start > 16)
		return NULL;
	*ret = v;
	return p;
}

/* The same with "0x" in front or not. */
static inline const char *bp_scan_0x(const char *p, const char *end, uint64_t *ret)
{
	if (end - p > 2 && p[0] == '0' && (p[1] | 0x20) == 'x')
		p += 2;
	return bp_scan_hex(p, end, ret);
}

/* Decimal digits, at most 18; NULL as above. */
static inline const char *bp_scan_dec(const char *p, const char *end, uint64_t *ret)
{
	const char *start = p;
	uint64_t v = 0;

	for (; p < end && *p >= '0' && *p <= '9' && p - start < 19; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	if (p == start || p - start > 18)
		return NULL;
	*ret = v;
	return p;
}

static inline bool bp_scan_is(const char *p, const char *end, const char *word)
{
	size_t n = strlen(word);

	return (size_t)(end - p) >= n && !memcmp(p, word, n);
}

/** bp_scan_two() - two decimal digits, -1 if they are not */
static inline int bp_scan_two(const char *p)
{
	return p[0] >= '0' && p[0] <= '9' && p[1] >= '0' && p[1] <= '9' ? (p[0] - '0') * 10 + p[1] - '0' : -1;
}

/**
 * bp_scan_iso() - "2025-01-31T12:34:56.123456Z " as QEMU 10.2 puts in front of log lines; ns since 1970
 * Returns what is behind it, or NULL.
 */
static inline const char *bp_scan_iso(const char *p, const char *end, uint64_t *ret)
{
	int v[7];
	int64_t y, era, doy, days;
	uint64_t usec;

	if (end - p < 28 || p[4] != '-' || p[7] != '-' || p[10] != 'T' || p[13] != ':' || p[16] != ':' ||
	    p[19] != '.' || p[26] != 'Z' || p[27] != ' ')
		return NULL;
	v[0] = bp_scan_two(p);
	v[1] = bp_scan_two(p + 2);
	v[2] = bp_scan_two(p + 5);
	v[3] = bp_scan_two(p + 8);
	v[4] = bp_scan_two(p + 11);
	v[5] = bp_scan_two(p + 14);
	v[6] = bp_scan_two(p + 17);
	for (size_t i = 0; i < 7; i++)
		if (v[i] < 0)
			return NULL;
	if (bp_scan_dec(p + 20, p + 26, &usec) != p + 26 || v[0] < 19 || v[2] < 1 || v[2] > 12)
		return NULL;
	/* Days of the civil calendar, years beginning in March. */
	y = v[0] * 100 + v[1] - (v[2] <= 2);
	era = y / 400;
	doy = (153 * (v[2] + (v[2] > 2 ? -3 : 9)) + 2) / 5 + v[3] - 1;
	days =
	    era * 146097 + (y - era * 400) * 365 + (y - era * 400) / 4 - (y - era * 400) / 100 + doy - 719468;
	if (days < 0)
		return NULL;
	*ret = ((uint64_t)days * 86400 + (uint64_t)(v[4] * 3600 + v[5] * 60 + v[6])) * 1000000000ull +
	       usec * 1000;
	return p + 28;
}

#endif
