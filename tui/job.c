// SPDX-License-Identifier: GPL-2.0-or-later
#include "tui/job.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"
#include "tui/tui.h"

struct bp_job {
	const struct bp_trace *trace;
	const struct bp_view *view;
	const struct bp_diff_view *diff;
	struct bp_compare *compare;
	struct bp_query query;
	char from[32], to[32];
	char *filter, *function;
	bool threaded;
	pthread_t thread;
	atomic_bool cancel, done;
	struct bp_analysis *a;
	struct bp_report *report;
	struct bp_err *err;
};

/* The name, and nothing else: what is special in a pattern is in brackets. */
static struct bp_err *add_exactly(struct bp_patterns **p, const char *name)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_err *err;

	bp_strbuf_addc(&sb, '^');
	for (; *name; name++) {
		if (strchr("^$|()+\\.*?[]{}", *name))
			bp_strbuf_addc(&sb, '\\');
		bp_strbuf_addc(&sb, *name);
	}
	bp_strbuf_addc(&sb, '$');
	err = bp_strbuf_ok(&sb);
	if (!err)
		err = bp_patterns_add(p, bp_strbuf_str(&sb));
	bp_strbuf_deinit(&sb);
	return err;
}

static struct bp_err *run(struct bp_job *job)
{
	const struct bp_diff *diff;
	struct bp_err *err = NULL;

	if (job->diff) {
		err = bp_compare_get(job->compare, job->query.clock, &diff);
		return err ? err : bp_diff_report(diff, job->diff, &job->query, &job->a, &job->report);
	}
	if (job->filter)
		err = bp_tui_parse_filter(job->filter, &job->query);
	if (!err && job->function)
		err = add_exactly(&job->query.in, job->function);
	if (!err)
		err = bp_analysis_create(job->trace, &job->query, &job->a);
	if (err)
		return err;
	job->a->walk.cancel = &job->cancel;
	return bp_view_run(job->view, job->a, &job->report);
}

static void *job_main(void *arg)
{
	struct bp_job *job = arg;

	job->err = run(job);
	atomic_store(&job->done, true);
	return NULL;
}

struct bp_err *bp_job_start(const struct bp_trace *trace, const struct bp_job_request *rq, bool thread,
			    struct bp_job **ret)
{
	struct bp_job *job = calloc(1, sizeof(*job));

	if (!job)
		return bp_err_nomem();
	job->trace = trace;
	job->view = rq->view;
	job->diff = rq->diff;
	job->compare = rq->compare;
	job->query.clock = rq->clock;
	job->query.callers = rq->callers;
	job->query.min_percent = rq->min_percent;
	if (rq->ranged) {
		snprintf(job->from, sizeof(job->from), "%" PRIu64 "ns", rq->from_ns);
		snprintf(job->to, sizeof(job->to), "%" PRIu64 "ns", rq->to_ns);
		job->query.from = job->from;
		job->query.to = job->to;
	}
	job->filter = rq->filter ? strdup(rq->filter) : NULL;
	job->function = rq->function ? strdup(rq->function) : NULL;
	if ((rq->filter && !job->filter) || (rq->function && !job->function)) {
		bp_job_destroy(job);
		return bp_err_nomem();
	}
	if (thread && !pthread_create(&job->thread, NULL, job_main, job))
		job->threaded = true;
	else
		job_main(job);
	*ret = job;
	return NULL;
}

bool bp_job_done(struct bp_job *job, bool wait)
{
	if (wait && job->threaded) {
		pthread_join(job->thread, NULL);
		job->threaded = false;
	}
	return atomic_load(&job->done);
}

const struct bp_report *bp_job_report(const struct bp_job *job, const char **error)
{
	*error = job->err ? bp_err_text(job->err) : NULL;
	return job->report;
}

void bp_job_destroy(struct bp_job *job)
{
	if (!job)
		return;
	atomic_store(&job->cancel, true);
	bp_job_done(job, true);
	bp_report_destroy(job->report);
	bp_analysis_destroy(job->a);
	bp_query_deinit(&job->query);
	bp_err_free(job->err);
	free(job->filter);
	free(job->function);
	free(job);
}
