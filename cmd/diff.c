// SPDX-License-Identifier: GPL-2.0-or-later
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/diff.h"
#include "analyzers/summary.h"
#include "analyzers/view.h"
#include "cmd/cmd.h"
#include "cmd/input.h"
#include "cmd/output.h"
#include "cmd/query.h"
#include "core/cleanup.h"
#include "core/strbuf.h"

static const char help_head[] =
    "Usage: bootprof diff [VIEW] OLD NEW [OPTION]...\n"
    "Show what differs between two boots. OLD and NEW are recordings, baseline files of\n"
    "bootprof gate --save-baseline, or any traces that bootprof import reads.\n"
    "\n"
    "Views:\n";

static const char help_options[] =
    "\n"
    "Output:\n"
    "      --format=FORMAT      text (the default), json or csv\n"
    "  -C, --clock=CLOCK        time or insns; the default is insns when both boots are deterministic\n"
    "  -s, --sort COLUMN        sort by this column; the default is the largest change, up or down\n"
    "  -n, --limit ROWS         at most so many rows of each table; 0: all\n"
    "  -f, --fields LIST        columns to show: a,b,c, or +a,b to add to the usual ones\n"
    "      --min-percent P      tree: leave out paths with less than P % of all changes (default "
    "1)\n" BP_OUTPUT_HELP "\n" BP_QUERY_FILTER_HELP "\n"
    "  -h, --help               show this help\n"
    "\n" BP_QUERY_PATTERN_HELP "Filters are applied to both boots.\n";

static const struct option options[] = {
    {"limit", required_argument, NULL, 'n'}, BP_QUERY_OPTIONS,   BP_OUTPUT_OPTIONS,
    {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
};

struct request {
	struct bp_query query;
	struct bp_output_how how;
	const struct bp_diff_view *view;
	const char *input[2];
	long limit; /* -1: not given */
	bool clock_given, help;
};

static struct bp_err *parse_arguments(struct request *rq, int argc, char **argv)
{
	size_t n = 0;

	for (; optind < argc; optind++) {
		const struct bp_diff_view *view = bp_diff_view_find(argv[optind]);

		if (view && !rq->view) {
			rq->view = view;
			continue;
		}
		if (n == 2)
			return bp_err_new(BP_EUSAGE, "two boots are compared, not also '%s'", argv[optind]);
		rq->input[n++] = argv[optind];
	}
	if (n != 2)
		return bp_err_new(BP_EUSAGE, "which boots? bootprof diff OLD NEW");
	if (!rq->view)
		rq->view = &bp_diff_views[0];
	return NULL;
}

static struct bp_err *parse(struct request *rq, int argc, char **argv)
{
	struct bp_query *q = &rq->query;
	struct bp_err *err;
	unsigned long n;
	size_t rows;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, BP_QUERY_SHORT "n:h", options, NULL)) != -1) {
		if (c == 'h') {
			rq->help = true;
			return NULL;
		}
		if (c == 'n') {
			err = bp_option_number("-n", optarg, 1000000000, &n);
			rq->limit = (long)n;
		} else if (bp_query_is_option(c)) {
			err = bp_query_option(q, c, optarg);
			rq->clock_given |= c == 'C';
		} else {
			err = bp_output_option(&rq->how, c, optarg, "text|json|csv");
		}
		if (err)
			return err;
	}
	err = parse_arguments(rq, argc, argv);
	if (err)
		return err;
	rows = rq->limit >= 0 ? (size_t)rq->limit : rq->how.format == BP_FORMAT_TEXT ? 50 : 0;
	q->text = rq->how.format == BP_FORMAT_TEXT;
	if (q->text)
		rq->how.max_rows = rows;
	else
		q->cut = rows;
	/* A ledger that is cut does not balance; the tables beside it have limits of their own. */
	if (!strcmp(rq->view->name, "phases") || !strcmp(rq->view->name, "overview"))
		rq->how.max_rows = 0;
	return NULL;
}

static void request_deinit(struct request *rq)
{
	bp_query_deinit(&rq->query);
}

static void report_destroyp(struct bp_report **r)
{
	bp_report_destroy(*r);
}

static void warn_comparable(const struct bp_summary *a, const struct bp_summary *b)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	bp_autofree char *text = NULL;
	struct bp_err *err = bp_diff_comparable(a, b, &text);

	bp_err_ignore(err);
	if (!text)
		return;
	bp_strbuf_add_term(&sb, text, strlen(text));
	fprintf(stderr, "bootprof diff: warning: the machines differ: %s\n", bp_strbuf_str(&sb));
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	bp_cleanup(request_deinit) struct request rq = {.limit = -1, .query = {.min_percent = 1}};
	bp_cleanup(bp_summary_destroyp) struct bp_summary *old_boot = NULL, *new_boot = NULL;
	bp_cleanup(bp_diff_destroyp) struct bp_diff *d = NULL;
	bp_cleanup(bp_analysis_destroyp) struct bp_analysis *a = NULL;
	bp_cleanup(report_destroyp) struct bp_report *r = NULL;
	struct bp_err *err = parse(&rq, argc, argv);

	(void)status;
	if (err)
		return err;
	if (rq.help) {
		fputs(help_head, stdout);
		for (size_t i = 0; i < bp_n_diff_views; i++)
			printf("  %-12s %s\n", bp_diff_views[i].name, bp_diff_views[i].summary);
		fputs(help_options, stdout);
		return NULL;
	}
	err = bp_input_summary("diff", rq.input[0], &rq.query, &old_boot);
	if (!err)
		err = bp_input_summary("diff", rq.input[1], &rq.query, &new_boot);
	if (err)
		return err;
	if (!rq.clock_given)
		rq.query.clock =
		    old_boot->deterministic && new_boot->deterministic ? BP_CLOCK_INSNS : BP_CLOCK_TIME;
	warn_comparable(old_boot, new_boot);
	err = bp_diff_create(old_boot, new_boot, rq.query.clock, &d);
	if (!err)
		err = bp_diff_report(d, rq.view, &rq.query, &a, &r);
	if (!err)
		err = bp_output_report(&rq.how, r);
	if (!err)
		clearerr(stdout);
	return err;
}

const struct bp_cmd bp_cmd_diff = {
    .name = "diff",
    .summary = "show what differs between two boots",
    .run = run,
};
