/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guest executed on a vCPU at a moment of host time: many questions are collected, then answered by
 * one walk over the events.
 */
#ifndef BP_ANALYZERS_GUEST_AT_H
#define BP_ANALYZERS_GUEST_AT_H

#include <stddef.h>
#include <stdint.h>

#include "analyzers/view.h"
#include "core/err.h"

struct bp_guest_at;

struct bp_err *bp_guest_at_create(struct bp_analysis *a, struct bp_guest_at **ret) BP_MUST_CHECK;
void bp_guest_at_destroy(struct bp_guest_at *g);

/** bp_guest_at_ask() - which function runs on @vcpu at @time_ns; *@ret, not 0, is for bp_guest_at_get() */
struct bp_err *bp_guest_at_ask(struct bp_guest_at *g, uint32_t vcpu, uint64_t time_ns,
			       size_t *ret) BP_MUST_CHECK;

/** bp_guest_at_answer() - answer all that was asked; without events of a guest there is nothing to do */
struct bp_err *bp_guest_at_answer(struct bp_guest_at *g) BP_MUST_CHECK;

/**
 * bp_guest_at_get() - the function (a row of the analysis) on top of the stack at that moment, and its caller
 * @question: 0: nothing was asked
 * Both are BP_WALK_NO_FUNC when it is not known.
 */
void bp_guest_at_get(const struct bp_guest_at *g, size_t question, uint32_t *row, uint32_t *caller);

#endif
