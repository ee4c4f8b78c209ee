/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What importers tell of the scheduler, futexes and locks of the traced machine, made into waits
 * (core/waits.h).
 *
 * Traces print the stack of an event behind it, so the last records are kept back until theirs may have come.
 */
#ifndef BP_COLLECTORS_SCHED_H
#define BP_COLLECTORS_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/builder.h"
#include "core/err.h"
#include "core/waits.h"

struct bp_sched;

/** bp_sched_create() - @b is borrowed; nothing is written before the first record */
struct bp_err *bp_sched_create(struct bp_builder *b, struct bp_sched **ret) BP_MUST_CHECK;
void bp_sched_destroy(struct bp_sched *s);

/** bp_sched_n() - records so far */
uint64_t bp_sched_n(const struct bp_sched *s);

/**
 * bp_sched_thread() - a thread is called @comm from @time_ns on
 * @tgid: 0 unknown
 * @sure: false: the name may be cut, and is taken only for a thread that has none
 * Threads beyond 65536 have no names.
 */
struct bp_err *bp_sched_thread(struct bp_sched *s, uint32_t tid, uint32_t tgid, const char *comm, size_t len,
			       bool sure, uint64_t time_ns) BP_MUST_CHECK;

/** bp_sched_add() - one record; times should not go back */
struct bp_err *bp_sched_add(struct bp_sched *s, const struct bp_wait *rec) BP_MUST_CHECK;

/**
 * bp_sched_lost() - the trace has lost @count events of @cpu (0: some), between the last one of it and
 * @time_ns What it lost before the first record is told with that.
 */
struct bp_err *bp_sched_lost(struct bp_sched *s, uint16_t cpu, uint64_t time_ns,
			     uint64_t count) BP_MUST_CHECK;

/**
 * bp_sched_switch() - @prev leaves @cpu, @next gets it
 * @state: as printed: "S", "R+", "D|K"
 */
struct bp_err *bp_sched_switch(struct bp_sched *s, uint16_t cpu, uint64_t time_ns, uint32_t prev,
			       const char *state, size_t state_len, uint32_t next) BP_MUST_CHECK;

/** bp_sched_frame() - id of a frame, see bp_wait_log_frame(); names need no end */
struct bp_err *bp_sched_frame(struct bp_sched *s, enum bp_host_space space, uint64_t addr, const char *name,
			      size_t name_len, uint64_t offset, const char *module, size_t module_len,
			      uint32_t *ret) BP_MUST_CHECK;

/**
 * bp_sched_kernel_frame() - a frame as the kernel prints them: "futex_wait+0x1ab/0x2b0 [kvm]", the last two
 * parts optional
 */
struct bp_err *bp_sched_kernel_frame(struct bp_sched *s, uint64_t addr, const char *text, size_t len,
				     uint32_t *ret) BP_MUST_CHECK;

/** bp_sched_stack() - the stack, innermost first, of the last record of @tid; ignored when there is none */
struct bp_err *bp_sched_stack(struct bp_sched *s, uint32_t tid, bool user, const uint32_t *frames,
			      size_t n) BP_MUST_CHECK;

/** bp_sched_words() - addresses of futexes that were waited on, each once, 0 in between; borrowed */
const uint64_t *bp_sched_words(const struct bp_sched *s, size_t *n);

/** bp_sched_n_frames(), bp_sched_get_frame(), bp_sched_name() - as those of struct bp_wait_log */
uint32_t bp_sched_n_frames(const struct bp_sched *s);
struct bp_host_frame bp_sched_get_frame(const struct bp_sched *s, uint32_t id);
struct bp_err *bp_sched_name(struct bp_sched *s, uint32_t id, const char *name, uint64_t offset,
			     const char *module) BP_MUST_CHECK;

/** bp_sched_flush() - the end of a trace: no stack comes any more */
struct bp_err *bp_sched_flush(struct bp_sched *s) BP_MUST_CHECK;

#endif
