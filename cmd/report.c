// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analyzers/view.h"
#include "cmd/cmd.h"
#include "cmd/import.h"
#include "cmd/input.h"
#include "cmd/output.h"
#include "cmd/query.h"
#include "core/cleanup.h"
#include "core/strbuf.h"

static const char help_head[] =
    "Usage: bootprof report [VIEW] [FILE] [OPTION]...\n"
    "Show where the time of a recorded boot went. FILE is a recording, as with -i, or any trace\n"
    "that bootprof import reads.\n"
    "\n"
    "Views:\n";

static const char help_options[] =
    "\n"
    "Input and output:\n"
    "  -i, --input FILE         the recording (default " BP_DEFAULT_FILE ")\n"
    "      --maps FILE          FILE is a trace of the host: copy of QEMU's /proc/PID/maps, to name its "
    "locks\n"
    "      --qemu BINARY        QEMU's binary (default: as in --maps)\n"
    "      --format=FORMAT      text (the default), json or csv\n"
    "  -C, --clock=CLOCK        time (the default: host time) or insns (instructions)\n"
    "  -s, --sort COLUMN        sort by this column\n"
    "  -n, --limit ROWS         at most so many rows of each table; 0: all\n"
    "  -f, --fields LIST        columns to show: a,b,c, or +a,b to add to the usual ones\n"
    "      --per-vcpu           a row for each vCPU (functions, interrupts)\n"
    "      --lines              source file and line of functions, from a debug kernel\n"
    "      --vmlinux FILE       the debug kernel for --lines (default: found by its "
    "build-id); of a foreign\n"
    "                           trace: the guest's kernel, for names\n" BP_OUTPUT_HELP "\n"
    "Names in the traces of others:\n" BP_FOREIGN_HELP_BUT_VMLINUX "\n" BP_QUERY_FILTER_HELP "\n"
    "The view tree:\n"
    "      --callers            who calls the functions of -F, instead of what they call\n"
    "      --min-percent P      leave out paths with less than P % (default 1)\n"
    "\n"
    "  -h, --help               show this help\n"
    "\n" BP_QUERY_PATTERN_HELP;

enum {
	OPT_PER_VCPU = 256,
	OPT_MAPS,
	OPT_QEMU,
	OPT_LINES,
	OPT_CALLERS,
};

static const struct option options[] = {
    {"input", required_argument, NULL, 'i'},
    {"limit", required_argument, NULL, 'n'},
    {"maps", required_argument, NULL, OPT_MAPS},
    {"qemu", required_argument, NULL, OPT_QEMU},
    {"per-vcpu", no_argument, NULL, OPT_PER_VCPU},
    {"lines", no_argument, NULL, OPT_LINES},
    BP_FOREIGN_OPTIONS,
    {"callers", no_argument, NULL, OPT_CALLERS},
    BP_QUERY_OPTIONS,
    BP_OUTPUT_OPTIONS,
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct request {
	struct bp_query query;
	struct bp_output_how how;
	const char *input;
	struct bp_import_options foreign; /* should it be no recording */
	const struct bp_view *view;
	long limit; /* -1: not given */
	bool help;
};

/* Rows in text when -n is not given: as many as a person reads. */
static size_t usual_limit(const struct bp_view *view)
{
	if (view == &bp_view_functions || view == &bp_view_processes)
		return 50;
	if (view == &bp_view_syscalls || view == &bp_view_modules)
		return 100;
	if (view == &bp_view_locks || view == &bp_view_off_cpu || view == &bp_view_wakeups)
		return 30;
	return view == &bp_view_interrupts ? 40 : 0;
}

static void print_help(void)
{
	fputs(help_head, stdout);
	for (size_t i = 0; i < bp_n_views; i++)
		printf("  %-12s %s\n", bp_views[i]->name, bp_views[i]->summary);
	fputs(help_options, stdout);
}

static struct bp_err *option(struct request *rq, int c, const char *arg)
{
	struct bp_query *q = &rq->query;
	struct bp_err *err = NULL;
	unsigned long n;
	bool taken;

	switch (c) {
	case 'i':
		rq->input = arg;
		break;
	case 'n':
		err = bp_option_number("-n", arg, 1000000000, &n);
		if (!err)
			rq->limit = (long)n;
		return err;
	case OPT_MAPS:
		rq->foreign.maps = arg;
		break;
	case OPT_QEMU:
		rq->foreign.qemu = arg;
		break;
	case OPT_PER_VCPU:
		q->per_vcpu = true;
		break;
	case OPT_LINES:
		q->lines = true;
		break;
	case OPT_CALLERS:
		q->callers = true;
		break;
	case 'h':
		rq->help = true;
		break;
	default:
		err = bp_foreign_option(&rq->foreign, c, arg, &taken);
		if (err || taken)
			return err;
		if (bp_query_is_option(c))
			return bp_query_option(q, c, arg);
		return bp_output_option(&rq->how, c, arg, "text|json|csv");
	}
	return NULL;
}

static struct bp_err *no_view(const char *name)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;

	for (size_t i = 0; i < bp_n_views; i++)
		bp_strbuf_addf(&sb, "%s%s", i ? ", " : "", bp_views[i]->name);
	return bp_err_new(BP_EUSAGE, "there is no view '%s'; there are %s", name, bp_strbuf_str(&sb));
}

static struct bp_err *parse(struct request *rq, int argc, char **argv)
{
	struct bp_query *q = &rq->query;
	struct bp_err *err;
	size_t rows;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, BP_QUERY_SHORT "i:n:h", options, NULL)) != -1) {
		err = option(rq, c, optarg);
		if (err)
			return err;
		if (rq->help)
			return NULL;
	}
	rq->view = &bp_view_overview;
	for (bool viewed = false; optind < argc; optind++) {
		const struct bp_view *view = bp_view_find(argv[optind]);

		if (view && viewed)
			return bp_err_new(BP_EUSAGE, "one view at a time, not also '%s'", argv[optind]);
		if (view) {
			rq->view = view;
			viewed = true;
			continue;
		}
		/* A file, as with -i; a view goes before a file of the same name. */
		if (strcmp(argv[optind], "-") && access(argv[optind], F_OK))
			return no_view(argv[optind]);
		if (rq->input)
			return bp_err_new(BP_EUSAGE, "one recording at a time, not also '%s'", argv[optind]);
		rq->input = argv[optind];
	}
	if (rq->foreign.qemu && !rq->foreign.maps)
		return bp_err_new(BP_EUSAGE, "--qemu needs --maps: where the binary was when it was traced");
	if (q->callers && rq->view != &bp_view_tree)
		return bp_err_new(BP_EUSAGE, "--callers belongs to the view tree");
	rows = rq->limit >= 0                     ? (size_t)rq->limit
	       : rq->how.format == BP_FORMAT_TEXT ? usual_limit(rq->view)
						  : 0;
	q->text = rq->how.format == BP_FORMAT_TEXT && rq->limit < 0;
	if (rq->how.format == BP_FORMAT_TEXT)
		rq->how.max_rows = q->listed = rows;
	else
		q->cut = rows;
	/* A ledger that is cut does not balance; the tables beside it have limits of their own. */
	if (rq->view == &bp_view_phases || rq->view == &bp_view_overview)
		rq->how.max_rows = 0;
	return NULL;
}

static void query_deinitp(struct request *rq)
{
	bp_query_deinit(&rq->query);
}

static void report_destroyp(struct bp_report **r)
{
	bp_report_destroy(*r);
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	bp_cleanup(query_deinitp) struct request rq = {
	    .limit = -1, .query = {.min_percent = 1}, .foreign = {.vmlinux_for_more = true}};
	bp_cleanup(bp_input_closep) struct bp_trace *trace = NULL;
	bp_cleanup(bp_analysis_destroyp) struct bp_analysis *a = NULL;
	bp_cleanup(report_destroyp) struct bp_report *r = NULL;
	struct bp_err *err = parse(&rq, argc, argv);

	(void)status;
	if (err)
		return err;
	if (rq.help) {
		print_help();
		return NULL;
	}
	err = bp_input_open_with(rq.input, &rq.foreign, &trace);
	if (!err && rq.foreign.names.vmlinux) {
		/* Of a trace that was imported just now, the kernel is for names. */
		rq.query.lines |=
		    !rq.input || (strcmp(rq.input, "-") != 0 && bp_trace_is_recording(rq.input));
		rq.query.vmlinux = rq.foreign.names.vmlinux;
	}
	if (!err)
		err = bp_analysis_create(trace, &rq.query, &a);
	if (!err)
		err = bp_view_run(rq.view, a, &r);
	if (!err)
		err = bp_output_report(&rq.how, r);
	/* Any error is in @err; what stays set is that a reader went away, and that is fine. */
	if (!err)
		clearerr(stdout);
	return err;
}

const struct bp_cmd bp_cmd_report = {
    .name = "report",
    .summary = "show where the time of a recorded boot went",
    .run = run,
};
