/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sums of times by what they belong to. */
#ifndef BP_ANALYZERS_TALLY_H
#define BP_ANALYZERS_TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of one key: up to six numbers. */
struct bp_tally_row {
	uint64_t key[6];
	uint64_t n, ns, max_ns;
	uint64_t extra; /* whoever counts says what */
};

#define BP_TALLY_MAX (1u << 20) /* rows; what is more is summed in one whose key is all ones */

struct bp_tally {
	struct bp_tally_row *rows;
	size_t n, cap;
	uint32_t *slots; /* a power of two */
	size_t n_slots;
	bool failed;
};

/** bp_tally_add() - count @ns once for @key; the row, borrowed until the next call; NULL when memory is short
 * (t->failed) */
struct bp_tally_row *bp_tally_add(struct bp_tally *t, const uint64_t key[6], uint64_t ns);
void bp_tally_deinit(struct bp_tally *t);

#endif
