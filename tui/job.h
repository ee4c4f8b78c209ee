/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A report that is made beside the screen, in a thread of its own, and can be given up. */
#ifndef BP_TUI_JOB_H
#define BP_TUI_JOB_H

#include "analyzers/view.h"
#include "core/report.h"
#include "tui/compare.h"

struct bp_job;

struct bp_job_request {
	const struct bp_view *view;
	const struct bp_diff_view *diff; /* then of @compare, whole boots; view is not used */
	struct bp_compare *compare;
	enum bp_clock clock;
	bool ranged;
	uint64_t from_ns, to_ns;
	const char *filter;   /* as bp_tui_parse_filter(); NULL: none; copied */
	const char *function; /* only this one and what it calls, or its callers; NULL: all; copied */
	bool callers;
	double min_percent;
};

/** bp_job_start() - @thread: else the report is made at once. Errors: BP_ENOMEM */
struct bp_err *bp_job_start(const struct bp_trace *trace, const struct bp_job_request *rq, bool thread,
			    struct bp_job **ret) BP_MUST_CHECK;

/** bp_job_destroy() - ends it, too; NULL is fine */
void bp_job_destroy(struct bp_job *job);

/** bp_job_done() - with @wait: true, later */
bool bp_job_done(struct bp_job *job, bool wait);

/** bp_job_report() - of one that is done; NULL when it failed, then *error is why; borrowed */
const struct bp_report *bp_job_report(const struct bp_job *job, const char **error);

#endif
