/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the user asked of a view: clock, filters, order. Filled by the command line or by another program. */
#ifndef BP_ANALYZERS_QUERY_H
#define BP_ANALYZERS_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/report.h"

/*
 * A list of patterns; text matches when one of them does. A pattern with one of ^ $ | ( ) + \ or ".*" in it
 * is a POSIX extended regular expression that may match anywhere; else with * ? [ it is a glob for the whole
 * text; else it is the whole text. PATTERN@MODULE also wants a module.
 */
struct bp_patterns;

/** bp_patterns_add() - add one; *@p may be NULL. Errors: BP_EUSAGE for a bad regular expression */
struct bp_err *bp_patterns_add(struct bp_patterns **p, const char *text) BP_MUST_CHECK;
void bp_patterns_destroy(struct bp_patterns *p);

/** bp_patterns_match() - does @name (of @module, NULL: modules are ignored) match? NULL patterns match
 * nothing */
bool bp_patterns_match(const struct bp_patterns *p, const char *name, const char *module);

/** bp_patterns_match_module() - a module matches by its whole name or, for a path, by its last part */
bool bp_patterns_match_module(const struct bp_patterns *p, const char *module);

struct bp_query {
	enum bp_clock clock;
	struct bp_patterns *in;        /* -F: only these functions and what they call */
	struct bp_patterns *out;       /* -N: not these functions, nor what they call */
	struct bp_patterns *modules;   /* --module: only functions of these */
	struct bp_patterns *processes; /* --process: name or number */
	bool has_vcpus;
	uint64_t vcpus[64];    /* --vcpu: bit set */
	const char *from, *to; /* --from, --to: a time, a mark or a phase; NULL: none */
	uint64_t min_ns;       /* -t: rows with less time are left out */
	unsigned depth;        /* -D; 0: no limit */
	const char *sort;      /* -s; NULL: the view's own order */
	const char *fields;    /* -f; NULL: the view's own columns */
	size_t cut;            /* rows of each table that are given at all; 0: all */
	size_t listed;         /* rows that will be shown; the views may leave out work for others. 0: all */
	bool text;             /* for people: long tables beside the main one are cut short */
	bool per_vcpu;
	bool callers;        /* tree: callers instead of callees */
	double min_percent;  /* tree */
	const char *vmlinux; /* --lines: debug kernel; NULL: found by build-id */
	bool lines;
};

void bp_query_deinit(struct bp_query *q);

/** bp_query_vcpus() - parse "0,2-3" into q->vcpus. Errors: BP_EUSAGE */
struct bp_err *bp_query_vcpus(struct bp_query *q, const char *text) BP_MUST_CHECK;

/**
 * bp_parse_time() - "1.5s", "200ms", "5us", "10ns", "2m"; without a unit in @unit_ns
 * Returns false if @text is something else.
 */
bool bp_parse_time(const char *text, double unit_ns, uint64_t *ns);

#endif
