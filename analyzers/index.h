/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A recording made ready for looking at any part of it at any width: a level-of-detail index over the whole
 * (analyzers/lod.h) that a thread builds while one looks, first from every 64th block; a finer one of the
 * window that is looked at; what the stack was at a moment; and the next entry of a function in time.
 *
 * Threads: all functions are called by one thread; the one inside is stopped by bp_index_destroy().
 */
#ifndef BP_ANALYZERS_INDEX_H
#define BP_ANALYZERS_INDEX_H

#include "analyzers/lod.h"
#include "analyzers/view.h"

struct bp_index;

/**
 * bp_index_create() - begin the index of @a's recording
 * @a: borrowed. @thread: build in a thread; else bp_index_step() does the work.
 */
struct bp_err *bp_index_create(const struct bp_analysis *a, bool thread, struct bp_index **ret) BP_MUST_CHECK;
void bp_index_destroy(struct bp_index *ix);

static inline void bp_index_destroyp(struct bp_index **ix)
{
	bp_index_destroy(*ix);
}

/** bp_index_progress() - blocks done and in all; the same when complete */
void bp_index_progress(const struct bp_index *ix, size_t *done, size_t *total);

/** bp_index_building() - whether blocks have not been read yet */
bool bp_index_building(const struct bp_index *ix);

/** bp_index_changes() - a number that grows whenever something new can be seen */
uint64_t bp_index_changes(const struct bp_index *ix);

/** bp_index_step() - without a thread: work on @blocks blocks. Errors: BP_ENOMEM */
struct bp_err *bp_index_step(struct bp_index *ix, size_t blocks) BP_MUST_CHECK;

/** bp_index_wait() - with a thread: until nothing is left to do. Its error, if it failed: BP_ENOMEM */
struct bp_err *bp_index_wait(struct bp_index *ix) BP_MUST_CHECK;

/**
 * bp_index_look() - what will be asked for next: @columns columns from @from_ns to @to_ns
 * A window of few blocks is read at once, else by the thread, and answers are from the coarser index until
 * then. Locks the index until bp_index_done(). Errors: BP_ENOMEM (nothing is locked)
 * @ret: ask this one; borrowed until bp_index_done()
 */
struct bp_err *bp_index_look(struct bp_index *ix, uint64_t from_ns, uint64_t to_ns, size_t columns,
			     const struct bp_lod **ret) BP_MUST_CHECK;
void bp_index_done(struct bp_index *ix);

/** bp_index_fine() - whether what bp_index_look() gave last is as fine as was asked for */
bool bp_index_fine(const struct bp_index *ix);

/** bp_index_whole() - the index of the whole recording; only between bp_index_look() and bp_index_done() */
const struct bp_lod *bp_index_whole(const struct bp_index *ix);

/* One function of a stack at a moment. */
struct bp_index_frame {
	uint32_t row;
	uint8_t kind;
	bool ended; /* end_ns is known */
	uint64_t start_ns, end_ns;
	uint64_t self_ns; /* as far as the block tells; valid when it began and ended in it */
	bool self_known;
};

struct bp_index_stack {
	bool found; /* the vCPU ran at that time, as far as the recording tells */
	uint32_t task;
	uint64_t insns; /* of the vCPU, at the last event before */
	uint32_t n;
	struct bp_index_frame *frames; /* outermost first; owned */
	uint32_t cap;
};

/** bp_index_stack_at() - what was on @vcpu at @ns; @ret is filled anew, its memory kept. Errors: BP_ENOMEM */
struct bp_err *bp_index_stack_at(struct bp_index *ix, uint32_t vcpu, uint64_t ns,
				 struct bp_index_stack *ret) BP_MUST_CHECK;
void bp_index_stack_deinit(struct bp_index_stack *s);

struct bp_index_query {
	const uint8_t *rows; /* by row: nonzero matches; NULL: any function */
	int64_t vcpu;        /* -1: any */
	uint32_t depth;      /* only functions at this depth of the stack, from 1; 0: any */
	uint64_t ns;         /* entries after this time, or before it with @back */
	bool back;
	size_t max_blocks; /* that are read; then *found stays false and *gave_up is set. 0: no limit */
};

struct bp_index_hit {
	bool found, gave_up;
	uint64_t ns, insns; /* of the vCPU */
	uint32_t vcpu, task, row, depth;
};

/** bp_index_find() - the next entry of a function in time. Errors: BP_ENOMEM */
struct bp_err *bp_index_find(struct bp_index *ix, const struct bp_index_query *q,
			     struct bp_index_hit *ret) BP_MUST_CHECK;

/**
 * bp_index_insns_at(), bp_index_ns_at() - from host time to instructions of all vCPUs by then, and back
 * As exact as a bucket of the index, or of the window that was looked at last; linear inside of one.
 */
double bp_index_insns_at(const struct bp_index *ix, uint64_t ns);
uint64_t bp_index_ns_at(const struct bp_index *ix, double insns);

/** bp_index_modes() - enum bp_mode of a row */
enum bp_mode bp_index_mode(const struct bp_index *ix, uint32_t row);

#endif
