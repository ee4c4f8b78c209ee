// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

static uint64_t hash_str(uint64_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	return h;
}

static uint64_t hash_func(const struct bp_func *f)
{
	uint64_t h = 0xcbf29ce484222325ull ^ f->space;

	h = (h ^ f->sym_addr) * 0x9e3779b97f4a7c15ull;
	h = hash_str(h, f->name);
	return h ^ h >> 29;
}

static bool same_symbol(const struct bp_func *f, const struct bp_row *r)
{
	return f->space == r->space && f->sym_addr == r->addr && !strcmp(f->name, r->name) &&
	       !strcmp(f->module, r->module);
}

struct bp_err *bp_rows_init(struct bp_rows *rows, const struct bp_trace *trace)
{
	size_t n, size = 64;
	const struct bp_func *funcs = bp_trace_funcs(trace, &n);
	bp_autofree struct bp_row *list = NULL;
	bp_autofree uint32_t *row_of = NULL, *hash = NULL;
	size_t n_rows = 0;

	while (size < n * 2)
		size *= 2;
	list = malloc((n + 1) * sizeof(*list));
	row_of = malloc((n + 1) * sizeof(*row_of));
	hash = malloc(size * sizeof(*hash));
	if (!list || !row_of || !hash)
		return bp_err_nomem();
	memset(hash, 0xff, size * sizeof(*hash));
	for (size_t i = 0; i < n; i++) {
		const struct bp_func *f = &funcs[i];
		size_t h = hash_func(f) & (size - 1);

		while (hash[h] != BP_NO_ROW && !same_symbol(f, &list[hash[h]]))
			h = (h + 1) & (size - 1);
		if (hash[h] == BP_NO_ROW) {
			list[n_rows] = (struct bp_row){
			    .func = (uint32_t)i,
			    .space = f->space,
			    .addr = f->sym_addr,
			    .name = f->name,
			    .module = f->module,
			};
			hash[h] = (uint32_t)n_rows++;
		}
		row_of[i] = hash[h];
	}
	rows->rows = bp_steal(list);
	rows->row_of = bp_steal(row_of);
	rows->n = n_rows;
	rows->n_funcs = n;
	return NULL;
}

void bp_rows_deinit(struct bp_rows *rows)
{
	free(rows->rows);
	free(rows->row_of);
	memset(rows, 0, sizeof(*rows));
}

const char *bp_row_name(const struct bp_rows *rows, uint32_t row, char buf[BP_ROW_NAME_MAX])
{
	if (row >= rows->n)
		return "";
	if (*rows->rows[row].name)
		return rows->rows[row].name;
	snprintf(buf, BP_ROW_NAME_MAX, "0x%" PRIx64, rows->rows[row].addr);
	return buf;
}

const char *bp_row_module(const struct bp_rows *rows, uint32_t row)
{
	return row < rows->n ? rows->rows[row].module : "";
}

const char *bp_space_name(uint8_t space)
{
	static const char *const names[] = {
	    [BP_SPACE_PSEUDO] = "pseudo", [BP_SPACE_FIRMWARE] = "firmware", [BP_SPACE_KERNEL] = "kernel",
	    [BP_SPACE_MODULE] = "module", [BP_SPACE_USER] = "user",         [BP_SPACE_ANON] = "anon",
	};

	return space < BP_SPACE_N ? names[space] : "";
}

uint32_t bp_rows_find(const struct bp_rows *rows, const char *name)
{
	for (size_t i = 0; i < rows->n; i++) {
		const struct bp_row *r = &rows->rows[i];

		if ((r->space == BP_SPACE_KERNEL || r->space == BP_SPACE_MODULE) && !strcmp(r->name, name))
			return (uint32_t)i;
	}
	return BP_NO_ROW;
}

bool bp_row_is_halted(const struct bp_row *row)
{
	return row->space == BP_SPACE_PSEUDO && !strcmp(row->name, "[halted]");
}
