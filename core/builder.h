/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Builds the events of a recording from what a foreign trace tells: keeps a stack for each task, cuts runs
 * and blocks, gives out function and task ids. For collectors that read traces; the TCG engine has its own.
 *
 * One thread. Times of one CPU may not go back: an earlier time is taken as the newest one seen on that
 * CPU and counted (bp_builder_clamped()).
 *
 * Memory is bounded whatever the input: of more than 2^19 functions, 2^18 tasks, or 2^20 frames in all
 * stacks, the rest is one function, one task, and calls that are counted but not kept. A task runs on one CPU
 * at a time: a switch to it takes it away from where it was.
 */
#ifndef BP_CORE_BUILDER_H
#define BP_CORE_BUILDER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/trace.h"

struct bp_builder;

#define BP_BUILDER_CPUS 4096

/**
 * bp_builder_create() - @w is borrowed until destroy
 * A thread of the builder's own writes (and compresses) the blocks: an error of it comes out of a later call.
 */
struct bp_err *bp_builder_create(struct bp_trace_writer *w, struct bp_builder **ret) BP_MUST_CHECK;
void bp_builder_destroy(struct bp_builder *b);

/**
 * bp_builder_write_here() - whether blocks are written by whoever calls the builder, or by its thread as at
 * first For a caller that is a thread with nothing else to do: what it has made stays with its processor.
 */
struct bp_err *bp_builder_write_here(struct bp_builder *b, bool here) BP_MUST_CHECK;

/**
 * bp_builder_func() - the id of a function; the same (space, addr, module, name) gives the same id
 * Strings are copied.
 */
struct bp_err *bp_builder_func(struct bp_builder *b, enum bp_space space, uint64_t addr, uint64_t sym_addr,
			       const char *name, const char *module, uint32_t *ret) BP_MUST_CHECK;

/**
 * bp_builder_set_slide() - addresses in BP_SPACE_KERNEL are given as they ran, and recorded less @slide, as
 * linked For functions defined from now on. Not for importers, which give addresses as they are in the trace.
 */
void bp_builder_set_slide(struct bp_builder *b, uint64_t slide);

/** bp_builder_task() - a new task id, announced by a TASK fact; -1 as @pid: not known */
struct bp_err *bp_builder_task(struct bp_builder *b, int64_t pid, int64_t tgid, const char *comm,
			       uint32_t flags, uint64_t time_ns, uint32_t *ret) BP_MUST_CHECK;

/** bp_builder_rename() - the task has another name from now on */
struct bp_err *bp_builder_rename(struct bp_builder *b, uint32_t task, const char *comm,
				 uint64_t time_ns) BP_MUST_CHECK;

/**
 * bp_builder_switch() - @cpu runs @task from @time_ns on; its stack is as it left it, on whatever CPU
 * The first call for a CPU starts it. @insns: instructions executed by that CPU so far, 0 throughout when not
 * known.
 */
struct bp_err *bp_builder_switch(struct bp_builder *b, uint32_t cpu, uint32_t task, uint64_t time_ns,
				 uint64_t insns) BP_MUST_CHECK;

/** bp_builder_enter() - push @func on the stack of the task on @cpu; @kind: BP_EV_CALL, _JUMP or _IRQ */
struct bp_err *bp_builder_enter(struct bp_builder *b, uint32_t cpu, enum bp_ev_kind kind, uint32_t func,
				uint64_t time_ns, uint64_t insns) BP_MUST_CHECK;

/**
 * bp_builder_leaf() - @func is entered at @time_ns and left at @end_ns, and calls nothing
 * The same as entering and leaving, for CPUs whose instructions are not counted.
 */
struct bp_err *bp_builder_leaf(struct bp_builder *b, uint32_t cpu, enum bp_ev_kind kind, uint32_t func,
			       uint64_t time_ns, uint64_t end_ns) BP_MUST_CHECK;

/** bp_builder_leave() - pop @n functions; more than there are: as many as there are */
struct bp_err *bp_builder_leave(struct bp_builder *b, uint32_t cpu, uint32_t n, uint64_t time_ns,
				uint64_t insns) BP_MUST_CHECK;

/** bp_builder_syscall() - a system call begins; its entry function is entered next */
struct bp_err *bp_builder_syscall(struct bp_builder *b, uint32_t cpu, uint32_t nr, uint64_t time_ns,
				  uint64_t insns) BP_MUST_CHECK;

/** bp_builder_tick() - time has passed on @cpu, nothing else */
struct bp_err *bp_builder_tick(struct bp_builder *b, uint32_t cpu, uint64_t time_ns,
			       uint64_t insns) BP_MUST_CHECK;

/** bp_builder_lost() - @count events of @cpu were lost (0: it is not known how many); its task's stack is
 * emptied */
struct bp_err *bp_builder_lost(struct bp_builder *b, uint32_t cpu, uint64_t count, uint64_t time_ns,
			       const char *why) BP_MUST_CHECK;

/** bp_builder_depth() - how many functions are on the stack of the task on @cpu; bp_builder_top() - the
 * innermost one, UINT32_MAX if none; bp_builder_frame() - the one at @i, 0 is the outermost */
uint32_t bp_builder_depth(const struct bp_builder *b, uint32_t cpu);
uint32_t bp_builder_top(const struct bp_builder *b, uint32_t cpu);
uint32_t bp_builder_frame(const struct bp_builder *b, uint32_t cpu, uint32_t i);

/**
 * bp_builder_next_source() - what follows is from another trace, with CPUs of its own
 * A CPU number that an earlier source used means the next free one from now on; others stay as they are.
 */
struct bp_err *bp_builder_next_source(struct bp_builder *b) BP_MUST_CHECK;

/** bp_builder_fact() - any other fact (INFO, MARK, MODULE_LOAD ...); copied. Nobody else may use the writer
 * meanwhile */
struct bp_err *bp_builder_fact(struct bp_builder *b, const struct bp_fact *fact) BP_MUST_CHECK;

/**
 * bp_builder_writer() - the recording's writer, for what the builder does not write (waits)
 * It may be used until the next call of the builder; blocks are not in order with the builder's.
 */
struct bp_err *bp_builder_writer(struct bp_builder *b, struct bp_trace_writer **ret) BP_MUST_CHECK;

/** bp_builder_clamped() - events whose time went back; bp_builder_calls() - functions entered */
uint64_t bp_builder_clamped(const struct bp_builder *b);
uint64_t bp_builder_calls(const struct bp_builder *b);

/** bp_builder_finish() - write the last block, VCPU facts and an END fact saying @how. Not for importers:
 * whoever called them does it, once */
struct bp_err *bp_builder_finish(struct bp_builder *b, const char *how) BP_MUST_CHECK;

#endif
