/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From executed blocks to calls: what the readers of QEMU's execution traces have in common. They give (CPU,
 * block address, time) in the order of the trace; functions, entries, returns, interrupts and system calls
 * come out at the builder.
 *
 * Threads: the caller parses; from the second batch on a thread of this module's own does the rest, and is
 * the only one that uses the builder and the names until bp_blocks_finish().
 */
#ifndef BP_COLLECTORS_QEMU_BLOCKS_H
#define BP_COLLECTORS_QEMU_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "collectors/import.h"

/* Put on the address of a block that ran at user privilege, where the trace tells that. */
#define BP_BLOCKS_USER ((uint64_t)1 << 55)

enum bp_blocks_kind {
	BP_BLOCKS_RUN,   /* a block was executed */
	BP_BLOCKS_AGAIN, /* a block was executed once more from its middle on, after QEMU went back: not
			    counted */
	BP_BLOCKS_LOST,  /* `addr` records are missing here, 0: an unknown number */
	BP_BLOCKS_NAMED, /* as RUN, but the trace names the function: `addr` is an index, see bp_blocks_name()
			  */
	BP_BLOCKS_NAMED_IN, /* the same, not at its start */
};

struct bp_blocks_rec {
	uint64_t addr;
	uint64_t time_ns; /* since the start of the trace; not used with count_clock */
	uint32_t cpu;     /* below BP_BUILDER_CPUS */
	uint32_t kind;    /* enum bp_blocks_kind */
};

struct bp_blocks_options {
	bool count_clock;      /* no times in the trace: a block is the unit of both clocks */
	bool complete;         /* every block is in the trace, so that calls can be told from returns */
	bool has_mode;         /* BP_BLOCKS_USER is set on all that ran at user privilege */
	bool user_first;       /* low addresses are those of processes from the start */
	const char *no_stacks; /* why there are no call stacks, when not complete */
};

#define BP_BLOCKS_BATCH 8192
#define BP_BLOCKS_KEEP 64 /* newest records that may still be taken back */

struct bp_blocks_batch;

struct bp_blocks {
	struct bp_blocks_rec *recs; /* being filled: recs[0] to recs[n - 1] */
	size_t n;
	struct bp_import *im;
	struct bp_blocks_state *state;
};

/**
 * bp_blocks_create() - begin; options are copied
 * @im: borrowed until finish; stats->records and the like of it are for the reader of the format
 */
struct bp_err *bp_blocks_create(struct bp_import *im, const struct bp_blocks_options *opt,
				struct bp_blocks **ret) BP_MUST_CHECK;

/** bp_blocks_destroy() - waits for the thread; NULL is fine */
void bp_blocks_destroy(struct bp_blocks *b);

/** bp_blocks_hand_over() - make room in recs; keeps the newest BP_BLOCKS_KEEP records; errors of the builder
 */
struct bp_err *bp_blocks_hand_over(struct bp_blocks *b) BP_MUST_CHECK;

/** bp_blocks_finish() - all that was given is at the builder; fills the statistics */
struct bp_err *bp_blocks_finish(struct bp_blocks *b) BP_MUST_CHECK;

/** bp_blocks_put() - one more record; room must be made when it says so */
static inline bool bp_blocks_put(struct bp_blocks *b, uint64_t addr, uint64_t time_ns, uint32_t cpu,
				 enum bp_blocks_kind kind)
{
	b->recs[b->n++] = (struct bp_blocks_rec){addr, time_ns, cpu, kind};
	return b->n < BP_BLOCKS_BATCH;
}

/** bp_blocks_add() - the same, and room is made */
static inline BP_MUST_CHECK struct bp_err *bp_blocks_add(struct bp_blocks *b, uint64_t addr, uint64_t time_ns,
							 uint32_t cpu, enum bp_blocks_kind kind)
{
	return bp_blocks_put(b, addr, time_ns, cpu, kind) ? NULL : bp_blocks_hand_over(b);
}

/**
 * bp_blocks_take_back() - the newest block at @addr did not run after all
 * Looks at the newest BP_BLOCKS_KEEP records only. Returns false when there is none.
 */
bool bp_blocks_take_back(struct bp_blocks *b, uint64_t addr);

/** bp_blocks_name() - an index for a function that the trace itself names; errors: BP_ENOMEM */
struct bp_err *bp_blocks_name(struct bp_blocks *b, const char *name, size_t len, uint64_t *ret) BP_MUST_CHECK;

/* For the readers. */

/** bp_blocks_bad() - counts what was not understood and remembers the first of it */
void bp_blocks_bad(struct bp_import_stats *st, uint64_t offset, const char *why);

/** bp_blocks_info() - an INFO fact; before the first record or after finish */
struct bp_err *bp_blocks_info(struct bp_import *im, const char *key, const char *value) BP_MUST_CHECK;

/** bp_blocks_keep_going() - asks the caller of the import, now and then; false: stop */
static inline bool bp_blocks_keep_going(const struct bp_import *im)
{
	return !im->progress || im->progress(im->progress_self);
}

#endif
