/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers for people: scaled to a unit, at most four significant digits, independent of the locale.
 * Everything that a program reads gets the plain number instead.
 */
#ifndef BP_CORE_UNITS_H
#define BP_CORE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Enough for every result below, with the NUL. */
#define BP_UNITS_MAX 32

/** bp_units_ns() - nanoseconds as "999 ns", "1.234 us", "12.35 ms", "123.5 s"; returns @buf */
const char *bp_units_ns(char buf[BP_UNITS_MAX], int64_t ns);

/** bp_units_count() - exact up to 99999, then in thousands: "123k", "12.3M", "1.23G"; returns @buf */
const char *bp_units_count(char buf[BP_UNITS_MAX], uint64_t n);

/** bp_units_icount() - bp_units_count() of a number that may be negative */
const char *bp_units_icount(char buf[BP_UNITS_MAX], int64_t n);

/** bp_units_bytes() - exact below 1 KiB, then "12.3 KiB", "1.23 MiB"; returns @buf */
const char *bp_units_bytes(char buf[BP_UNITS_MAX], uint64_t bytes);

/** bp_units_pct() - "12.3%"; values that are not finite give "-"; returns @buf */
const char *bp_units_pct(char buf[BP_UNITS_MAX], double pct);

/** bp_units_ratio() - a quotient with two decimals, "3.14"; "-" when @den is 0; returns @buf */
const char *bp_units_ratio(char buf[BP_UNITS_MAX], uint64_t num, uint64_t den);

#endif
