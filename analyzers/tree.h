/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The call tree: one node for each path of functions from the bottom of the stacks, with self figures and
 * calls. Totals are sums over a node and everything below it.
 */
#ifndef BP_ANALYZERS_TREE_H
#define BP_ANALYZERS_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "analyzers/walk.h"
#include "core/err.h"

/* Paths beyond this many are counted as part of the function that calls them; about 120 MB. */
#define BP_TREE_MAX (2u << 20)

struct bp_tree_node {
	uint32_t row;
	uint32_t parent;
	uint32_t last; /* child that was looked up last */
	uint64_t calls;
	uint64_t self_ns, self_insns;
};

struct bp_tree {
	struct bp_tree_node *nodes; /* [0] is the root; parents come before their children */
	uint32_t n, cap;
	uint32_t *hash; /* of (parent, row) */
	uint32_t hash_size;
	bool failed, full;
};

struct bp_err *bp_tree_init(struct bp_tree *t) BP_MUST_CHECK;
void bp_tree_deinit(struct bp_tree *t);

/** bp_tree_child() - the child of @parent for @row, made when there is none; @parent itself when there can be
 * no more nodes (t->full, or t->failed for lack of memory) */
uint32_t bp_tree_child(struct bp_tree *t, uint32_t parent, uint32_t row);

/* For walks that more analyzers share; the context is the tree. Uses frame->user. */
extern const struct bp_walk_ops bp_tree_ops;

#endif
