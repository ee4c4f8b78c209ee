/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all views share: the recording with its functions grouped into rows, the user's filters made ready for
 * a walk, tables with columns that can be chosen and sorted, and the notes about what is missing.
 */
#ifndef BP_ANALYZERS_VIEW_H
#define BP_ANALYZERS_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analyzers/query.h"
#include "analyzers/rows.h"
#include "analyzers/walk.h"
#include "core/err.h"
#include "core/report.h"
#include "core/trace.h"

struct bp_analysis;

/* What is known of a task; from the recording's facts. Strings are borrowed from the trace. */
struct bp_task_info {
	bool known;
	uint32_t pid, tgid, flags;
	const char *comm, *file;
	uint64_t first_ns;
	uint64_t parent; /* task id, UINT64_MAX unknown */
	bool ended;
	uint64_t end_ns;
	uint64_t exit_code;
};

/* Does the task have a number? Imported traces do not always tell, and boot code has none. */
static inline bool bp_task_has_pid(const struct bp_task_info *t)
{
	return t->known && !(t->flags & BP_TASK_BOOT) && t->pid != UINT32_MAX;
}

/* A part of the ledger of the run: see phases.h. */
struct bp_phase;

struct bp_analysis {
	const struct bp_trace *trace;
	const struct bp_query *query;
	struct bp_rows rows;
	bool *row_shown; /* by row: passes --module; NULL: all do */
	struct bp_walk_options walk;
	uint64_t end_ns; /* when QEMU ended, as far as is known */
	uint64_t end_insns;
	struct bp_phase *phases;
	size_t n_phases;
	uint64_t unaccounted_ns;
	struct bp_task_info *tasks; /* sorted by ids[] */
	uint32_t *task_ids;
	size_t n_tasks;
	struct bp_walk_stats stats; /* of the view's walk, if it made one */
	char *damage_text;
	bool walked;
	bool folds_left_out; /* the view cannot add the totals of folded calls */
	struct bp_analysis_private *priv;
};

/**
 * bp_analysis_create() - make @trace ready for one view
 * @trace, @query: borrowed
 * Errors: BP_EUSAGE for a --from or --to that the recording does not have, a --process or function that
 * matches nothing; BP_ENOMEM.
 */
struct bp_err *bp_analysis_create(const struct bp_trace *trace, const struct bp_query *query,
				  struct bp_analysis **ret) BP_MUST_CHECK;
void bp_analysis_destroy(struct bp_analysis *a);

/** bp_analysis_create_bare() - without a recording: for bp_view_add() only */
struct bp_err *bp_analysis_create_bare(const struct bp_query *query, struct bp_analysis **ret) BP_MUST_CHECK;

static inline void bp_analysis_destroyp(struct bp_analysis **a)
{
	bp_analysis_destroy(*a);
}

/** bp_analysis_walk() - start a walk with the query's filters */
struct bp_err *bp_analysis_walk(struct bp_analysis *a, struct bp_walk **ret) BP_MUST_CHECK;

/** bp_analysis_walked() - remember what @w found, for the notes */
void bp_analysis_walked(struct bp_analysis *a, const struct bp_walk *w);

/** bp_analysis_task() - facts about a task; never NULL: `known` is false if there are none */
const struct bp_task_info *bp_analysis_task(const struct bp_analysis *a, uint64_t id);

/** bp_analysis_task_name() - "udevd", "swapper/0", "[boot]", "task 7" in @buf */
#define BP_TASK_NAME_MAX 24
const char *bp_analysis_task_name(const struct bp_analysis *a, uint64_t id, char buf[BP_TASK_NAME_MAX]);

/** bp_analysis_line() - "file:line" of a kernel function's entry with --lines, NULL if not known; borrowed */
const char *bp_analysis_line(struct bp_analysis *a, uint32_t row);

static inline bool bp_row_shown(const struct bp_analysis *a, uint32_t row)
{
	return !a->row_shown || (row < a->rows.n && a->row_shown[row]);
}

/* ---- tables ---- */

struct bp_cell {
	enum { BP_CELL_NONE, BP_CELL_STR, BP_CELL_INT, BP_CELL_PCT } kind;
	const char *str; /* borrowed until the next cell of the same row, or longer */
	int64_t i;
	double pct;
	char buf[64]; /* for strings made up here */
};

struct bp_field {
	const char *id;    /* in JSON and CSV, and for -s and -f */
	const char *title; /* in text */
	enum bp_col_type type;
	bool tree;
};

struct bp_view_table {
	const char *id, *title;
	const struct bp_field *fields;
	size_t n_fields;
	const char *text_time;  /* ids of the columns of the text form, comma-separated, with --clock=time */
	const char *text_insns; /* and with --clock=insns; NULL: the same */
	const char *sort_time;  /* default order: a field's id; NULL: as the rows come */
	const char *sort_insns;
	size_t n_rows;
	/* value of field number @field of row @row into @cell, which is BP_CELL_NONE */
	void (*cell)(void *ctx, size_t row, size_t field, struct bp_cell *cell);
	unsigned (*depth)(void *ctx, size_t row); /* indent of tree columns; NULL: none */
	void *ctx;
	size_t limit;     /* of rows, in every form; 0: none */
	bool fixed_order; /* a tree or a ledger: -s does not apply */
	bool whole;       /* -n does not apply */
	bool main;        /* -s and -f apply to this table; unknown names in them are errors */
};

/**
 * bp_view_add() - put a table into the report
 * The report borrows from @a: destroy @a after the report. -s NAME takes a field's id, or the id without _ns
 * or _insns, then of the query's clock; text sorts upwards, numbers downwards.
 * Errors: BP_EUSAGE for a column that there is not (the text lists them).
 */
struct bp_err *bp_view_add(struct bp_analysis *a, struct bp_report *r,
			   const struct bp_view_table *t) BP_MUST_CHECK;

/** bp_view_notes() - clock, filters, and everything that is missing from the recording */
void bp_view_notes(struct bp_analysis *a, struct bp_report *r);

/** bp_view_note_unaccounted() - the closing line of the ledger */
void bp_view_note_unaccounted(struct bp_analysis *a, struct bp_report *r);

/** bp_view_note_ns() - a note with a time in it */
void bp_view_note_ns(struct bp_report *r, const char *before, uint64_t ns, const char *after);

/** bp_view_title() - first line: which recording, kernel, machine */
void bp_view_title(struct bp_analysis *a, struct bp_report *r, const char *what);

static inline void bp_cell_str(struct bp_cell *c, const char *s)
{
	c->kind = BP_CELL_STR;
	c->str = s;
}

static inline void bp_cell_int(struct bp_cell *c, uint64_t v)
{
	c->kind = BP_CELL_INT;
	c->i = (int64_t)v;
}

static inline void bp_cell_pct(struct bp_cell *c, double part, double whole)
{
	c->kind = whole > 0 ? BP_CELL_PCT : BP_CELL_NONE;
	c->pct = whole > 0 ? 100 * part / whole : 0;
}

/* ---- the views ---- */

struct bp_view {
	const char *name;
	const char *summary;
	bool waits; /* reads waits of the host's threads; others have nothing to show without the guest's
		       events */
	struct bp_err *(*run)(struct bp_analysis *a, struct bp_report *r);
};

extern const struct bp_view *const bp_views[];
extern const size_t bp_n_views;

/** bp_view_waits_only() - whether a recording has waits of the host's threads, and no events of the guest */
bool bp_view_waits_only(const struct bp_analysis *a);

/** bp_view_find() - by name, NULL if none */
const struct bp_view *bp_view_find(const char *name);

/**
 * bp_view_run() - make the report of a view
 * @ret: owned; borrows from @a
 */
struct bp_err *bp_view_run(const struct bp_view *view, struct bp_analysis *a,
			   struct bp_report **ret) BP_MUST_CHECK;

extern const struct bp_view bp_view_overview, bp_view_functions, bp_view_tree, bp_view_first_calls,
    bp_view_syscalls, bp_view_phases, bp_view_modules, bp_view_processes, bp_view_interrupts, bp_view_vcpus,
    bp_view_locks, bp_view_off_cpu, bp_view_wakeups;

#endif
