/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Level of detail: what happened in a range of host time, at any width of a column.
 *
 * A plane is one line of a timeline: which task a vCPU ran, its mode, the function on top, an interrupt, a
 * system call, each level of its call stack, the vCPUs that a task ran on. Each plane has a pyramid of
 * buckets over the range, the widths of which grow by four; a bucket keeps the busy time in it, how many
 * slices began in it, the value that had most of its time and the longest slice. A column wider than a bucket
 * is answered from the pyramid, whatever the size of the recording. A narrower one is answered by another,
 * smaller bp_lod over a smaller range, made from just the blocks there (bp_lod_add() does not care which
 * blocks, in which order).
 *
 * Memory is bounded by the number of buckets and planes, not by events. Threads: one at a time.
 */
#ifndef BP_ANALYZERS_LOD_H
#define BP_ANALYZERS_LOD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analyzers/scan.h"
#include "core/err.h"
#include "core/trace.h"

#define BP_LOD_NONE UINT32_MAX
#define BP_LOD_VCPUS 256  /* vCPUs with higher numbers have no planes */
#define BP_LOD_LEVELS 64  /* of a stack; deeper functions have no planes of their own */
#define BP_LOD_TASKS 1024 /* tasks that have planes: the first ones seen */

/* Planes of a vCPU; stack level N (from 1) is BP_PLANE_STACK + N - 1. */
enum bp_plane_kind {
	BP_PLANE_TASK,    /* value: task id; halted time is not busy */
	BP_PLANE_MODE,    /* value: enum bp_mode */
	BP_PLANE_TOP,     /* value: row of the function on top of the stack; slices: its calls */
	BP_PLANE_IRQ,     /* value: row of the outermost interrupt's function */
	BP_PLANE_SYSCALL, /* value: number, BP_LOD_NONE when the block does not tell */
	BP_PLANE_STACK,
	BP_PLANES_VCPU = BP_PLANE_STACK + BP_LOD_LEVELS
};

enum bp_mode {
	BP_MODE_UNKNOWN,
	BP_MODE_FIRMWARE,
	BP_MODE_KERNEL,
	BP_MODE_MODULE,
	BP_MODE_USER,
	BP_MODE_IDLE,
	BP_MODES
};

/* What a column shows. Times in ns. */
struct bp_lod_col {
	uint32_t value;             /* with most of the time; BP_LOD_NONE: nothing here */
	uint32_t longest_value;     /* of the longest slice that began or ended here */
	uint64_t count;             /* slices that began here */
	double busy, most, longest; /* busy time; that of @value; length of the longest slice */
	double span;                /* width of the column */
	double known;               /* how much of the column is from blocks that were added, 0 to 1 */
};

struct bp_lod;

struct bp_lod_options {
	const uint32_t *row_of;     /* function id -> row, borrowed */
	const uint8_t *mode_of_row; /* enum bp_mode, borrowed */
	size_t n_funcs, n_rows;
	uint64_t from_ns, to_ns; /* the range; to_ns is not in it */
	size_t buckets;          /* at least so many, while a bucket is 1 ns or more; a power of 4 is used */
};

struct bp_err *bp_lod_create(const struct bp_lod_options *opt, struct bp_lod **ret) BP_MUST_CHECK;
void bp_lod_destroy(struct bp_lod *lod);

static inline void bp_lod_destroyp(struct bp_lod **lod)
{
	bp_lod_destroy(*lod);
}

/**
 * bp_lod_add() - add the part of @block that lies in the range
 * @first_ns, @last_ns: the block's time range, for what is above the lowest level of the pyramid
 * Each block must be added once. Errors: BP_ENOMEM.
 */
struct bp_err *bp_lod_add(struct bp_lod *lod, const struct bp_block *block, uint64_t first_ns,
			  uint64_t last_ns) BP_MUST_CHECK;

/** bp_lod_functions() - the tables of functions of @opt from now on: a recording that grows has more */
void bp_lod_functions(struct bp_lod *lod, const struct bp_lod_options *opt);

/** bp_lod_complete() - all blocks of the range have been added: where nothing is, nothing was */
void bp_lod_complete(struct bp_lod *lod);

uint64_t bp_lod_bucket_ns(const struct bp_lod *lod);
void bp_lod_range(const struct bp_lod *lod, uint64_t *from_ns, uint64_t *to_ns);
size_t bp_lod_bytes(const struct bp_lod *lod);

/** bp_lod_n_vcpus() - highest vCPU seen, plus 1 */
uint32_t bp_lod_n_vcpus(const struct bp_lod *lod);
/** bp_lod_depth() - deepest level of the vCPU's stack seen so far (with a plane) */
uint32_t bp_lod_depth(const struct bp_lod *lod, uint32_t vcpu);

/* A task that has a plane. */
struct bp_lod_task {
	uint32_t id;
	double busy; /* in the range, ns; halted time is not counted */
};

/** bp_lod_tasks() - in order of appearance; borrowed until the next change */
const struct bp_lod_task *bp_lod_tasks(const struct bp_lod *lod, size_t *n);

/**
 * bp_lod_columns() - the plane @kind of @vcpu between @edges
 * @edges: @n + 1 host times, not descending. Each slice counts in one column only.
 * @out: @n columns
 */
void bp_lod_columns(const struct bp_lod *lod, uint32_t vcpu, unsigned kind, const uint64_t *edges, size_t n,
		    struct bp_lod_col *out);

/** bp_lod_task_columns() - the same for task number @task of bp_lod_tasks(); values are vCPUs */
void bp_lod_task_columns(const struct bp_lod *lod, size_t task, const uint64_t *edges, size_t n,
			 struct bp_lod_col *out);

/**
 * bp_lod_next() - the bucket around @ns, else the next one after it (@back: before it), in which a slice
 * begins False: there is none.
 */
bool bp_lod_next(const struct bp_lod *lod, uint32_t vcpu, unsigned kind, uint64_t ns, bool back,
		 uint64_t *from_ns, uint64_t *to_ns);

/** bp_lod_insns() - instructions of all vCPUs in each bucket; *n buckets from the start of the range;
 * borrowed */
const uint64_t *bp_lod_insns(const struct bp_lod *lod, size_t *n);

#endif
