/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Functions as people see them: function ids of a recording that name the same symbol are one row.
 * (The same symbol can have several ids: entered at its start, seen first in its middle ...)
 */
#ifndef BP_ANALYZERS_ROWS_H
#define BP_ANALYZERS_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/event.h"
#include "core/trace.h"

#define BP_NO_ROW UINT32_MAX

/* One row; strings are borrowed from the trace. */
struct bp_row {
	uint32_t func;    /* lowest function id of this row */
	uint8_t space;    /* enum bp_space */
	uint64_t addr;    /* start of the symbol (bp_func.sym_addr) */
	const char *name; /* "" when there is no symbol */
	const char *module;
};

struct bp_rows {
	struct bp_row *rows;
	size_t n;
	uint32_t *row_of; /* function id -> row */
	size_t n_funcs;
};

/** bp_rows_init() - group the functions of @trace; rows are numbered in order of their lowest id */
struct bp_err *bp_rows_init(struct bp_rows *rows, const struct bp_trace *trace) BP_MUST_CHECK;
void bp_rows_deinit(struct bp_rows *rows);

#define BP_ROW_NAME_MAX 24

/** bp_row_name() - the row's name, or its address as "0x..." in @buf when it has none; "" for BP_NO_ROW */
const char *bp_row_name(const struct bp_rows *rows, uint32_t row, char buf[BP_ROW_NAME_MAX]);
const char *bp_row_module(const struct bp_rows *rows, uint32_t row);

/** bp_space_name() - "kernel", "module", "user" ... */
const char *bp_space_name(uint8_t space);

/** bp_rows_find() - first row in kernel or modules with that name, BP_NO_ROW if none */
uint32_t bp_rows_find(const struct bp_rows *rows, const char *name);

/** bp_row_is_halted() - true for the pseudo function that stands for a halted vCPU */
bool bp_row_is_halted(const struct bp_row *row);

#endif
