/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tables of reports as lists that can be sorted and filtered; several of them are the tabs of one screen. A
 * screen of tables is a list of struct bp_table_tab and the functions below in its struct bp_tui_view.
 */
#ifndef BP_TUI_TABLE_H
#define BP_TUI_TABLE_H

#include "core/report.h"
#include "tui/job.h"
#include "tui/tui.h"

struct bp_table_tab {
	const char *title;
	const char *view;  /* of bootprof report, or with "diff:" before it of bootprof diff */
	const char *table; /* its id; NULL: the view's main one */
	bool callers;      /* the tree of the selected function's callers */
	double min_percent;
};

struct bp_tables;

/** bp_tables_create() - @tabs: @n of them, borrowed */
struct bp_err *bp_tables_create(const struct bp_table_tab *tabs, unsigned n,
				struct bp_tables **ret) BP_MUST_CHECK;
void bp_tables_close(struct bp_tui *tui, void *self);
struct bp_err *bp_tables_draw(struct bp_tui *tui, void *self, struct bp_grid *g,
			      struct bp_rect r) BP_MUST_CHECK;
struct bp_err *bp_tables_key(struct bp_tui *tui, void *self, const struct bp_key *key,
			     bool *used) BP_MUST_CHECK;
struct bp_err *bp_tables_prompt(struct bp_tui *tui, void *self, const char *text, bool done) BP_MUST_CHECK;
void bp_tables_sync(struct bp_tui *tui, void *self);
void bp_tables_adopt(struct bp_tui *tui, void *self, void *old);
bool bp_tables_busy(struct bp_tui *tui, void *self, bool wait);
extern const struct bp_tui_help bp_tables_help[];
#define BP_TABLES_HINTS                                                                                \
	"Tab next list  / filter  < > sort by  s turn  Enter show on timeline  A B range  c clock  1 " \
	"timeline  "                                                                                   \
	": commands  q quit"

/**
 * bp_tables_report() - the report of tab @i, begun if it was not; NULL while it is being made or when it
 * failed
 * @error: why it failed, NULL: it is being made
 */
struct bp_err *bp_tables_report(struct bp_tui *tui, struct bp_tables *t, unsigned i,
				const struct bp_report **ret, const char **error) BP_MUST_CHECK;

/* ---- reading a table ---- */

/** bp_table_column() - its number, -1: there is none of that id */
int bp_table_column(const struct bp_table *t, const char *id);
/** bp_table_number() - a numeric cell; false: it has no value */
bool bp_table_number(const struct bp_table *t, size_t row, int column, double *ret);
/** bp_table_string() - a string cell in @buf, cut and always ended; "" for other cells */
const char *bp_table_string(const struct bp_table *t, size_t row, int column, char *buf, size_t size);
/** bp_table_function() - the function that a row is about, BP_NO_ROW when it is about none */
uint32_t bp_table_function(const struct bp_tui *tui, const struct bp_table *t, size_t row);

#endif
