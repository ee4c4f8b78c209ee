// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/tally.h"

#include <stdlib.h>
#include <string.h>

static size_t hash(uint64_t v)
{
	v *= 0x9e3779b97f4a7c15ull;
	return (size_t)(v ^ v >> 31);
}

void bp_tally_deinit(struct bp_tally *t)
{
	free(t->rows);
	free(t->slots);
}

static size_t key_hash(const uint64_t key[6])
{
	uint64_t h = 0;

	for (size_t i = 0; i < 6; i++)
		h = hash(h ^ key[i]);
	return (size_t)h;
}

struct bp_tally_row *bp_tally_add(struct bp_tally *t, const uint64_t key[6], uint64_t ns)
{
	static const uint64_t rest[6] = {UINT64_MAX, UINT64_MAX, UINT64_MAX,
					 UINT64_MAX, UINT64_MAX, UINT64_MAX};
	struct bp_tally_row *row;
	size_t h;

	if (t->n * 2 >= t->n_slots) {
		size_t n = t->n_slots ? t->n_slots * 2 : 256;
		uint32_t *slots = calloc(n, sizeof(*slots));

		if (!slots) {
			t->failed = true;
			return NULL;
		}
		for (size_t i = 0; i < t->n; i++) {
			h = key_hash(t->rows[i].key) & (n - 1);
			while (slots[h])
				h = (h + 1) & (n - 1);
			slots[h] = (uint32_t)i + 1;
		}
		free(t->slots);
		t->slots = slots;
		t->n_slots = n;
	}
	for (;;) {
		for (h = key_hash(key) & (t->n_slots - 1); t->slots[h]; h = (h + 1) & (t->n_slots - 1)) {
			row = &t->rows[t->slots[h] - 1];
			if (!memcmp(row->key, key, sizeof(row->key)))
				goto found;
		}
		if (t->n < BP_TALLY_MAX || key == rest)
			break;
		key = rest;
	}
	if (t->n == t->cap) {
		size_t cap = t->cap * 2 + 64;
		struct bp_tally_row *rows = realloc(t->rows, cap * sizeof(*rows));

		if (!rows) {
			t->failed = true;
			return NULL;
		}
		t->rows = rows;
		t->cap = cap;
	}
	row = &t->rows[t->n];
	*row = (struct bp_tally_row){0};
	memcpy(row->key, key, sizeof(row->key));
	t->slots[h] = (uint32_t)++t->n;
found:
	row->n++;
	row->ns += ns;
	if (ns > row->max_ns)
		row->max_ns = ns;
	return row;
}
