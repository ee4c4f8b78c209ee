// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wordexp.h>

#include "analyzers/budget.h"
#include "analyzers/diff.h"
#include "analyzers/gate.h"
#include "cmd/cmd.h"
#include "cmd/gate_boot.h"
#include "cmd/gate_output.h"
#include "cmd/input.h"
#include "cmd/output.h"
#include "cmd/query.h"
#include "collectors/tcg/qemu_args.h"
#include "core/cleanup.h"
#include "core/strbuf.h"

static const char help[] =
    "Usage: bootprof gate --baseline FILE|DIR [OPTION]... NEW...\n"
    "       bootprof gate [--baseline FILE] [OPTION]... -- QEMU [QEMU-OPTION]...\n"
    "Judge whether a boot became slower, and say what did it. NEW are recordings of the same boot;\n"
    "with a QEMU command line, boots are recorded as needed.\n"
    "\n"
    "What is compared:\n"
    "  -b, --baseline FILE|DIR  a baseline file, a recording, or a directory of them\n"
    "      --baseline-command LINE\n"
    "                           QEMU command line of the old boot, to be run in turn with the new one\n"
    "      --budget FILE        also check the limits in this YAML file\n"
    "      --save-baseline FILE write a baseline file of the new boot\n"
    "      --write-budget FILE  write a budget that the new boot keeps\n"
    "      --force              compare also what is not comparable, and judge what is not whole\n"
    "\n"
    "Judging:\n"
    "      --judge JUDGE        exact (instructions), statistical (time), or auto (the default)\n"
    "      --noise [METRIC=]P%  growth that is none (default: time 5%, instructions 0)\n"
    "      --significance [METRIC=]P\n"
    "                           how often an unchanged guest may be called slower (default 0.01)\n"
    "      --metric METRIC      statistical: what to judge: time (the default), kernel-time,\n"
    "                           phase:NAME; may be repeated\n"
    "      --blame N            name at most so many functions (default 15)\n"
    "\n"
    "Boots:\n"
    "      --runs N             at least so many (default: exact 2, statistical 10 pairs)\n"
    "      --max-runs N         at most so many (default: exact 6, statistical 30 pairs)\n"
    "      --floor-runs N       harmless changes to try for --save-baseline (default 8, exact only)\n"
    "      --only-time          do not record, only take the time of the command (for KVM)\n"
    "      --keep DIR           keep the recordings there\n"
    "      --bisect             for git bisect run: 125 when the guest does not boot or nothing is decided\n"
    "      --timeout, --until-console, --until-function, --until-exec, --until-port, --kernel-image,\n"
    "      --vmlinux, --guest-root, --no-user, --plugin\n"
    "                           as of bootprof record\n"
    "\n"
    "Output:\n"
    "      --format=FORMAT      text (the default), markdown, junit, json, github or "
    "benchmark\n" BP_OUTPUT_HELP "  -h, --help               show this help\n"
    "\n"
    "METRIC is time, kernel-time, insns, phase, phase:NAME, function or function:NAME.\n"
    "Exit status: 0 pass, 1 error, 2 wrong usage, 3 regression, 4 inconclusive, 5 invalid measurement.\n";

enum {
	OPT_BASELINE_COMMAND = 0x30000,
	OPT_BUDGET,
	OPT_SAVE,
	OPT_WRITE_BUDGET,
	OPT_FORCE,
	OPT_JUDGE,
	OPT_NOISE,
	OPT_SIGNIFICANCE,
	OPT_METRIC,
	OPT_BLAME,
	OPT_RUNS,
	OPT_MAX_RUNS,
	OPT_FLOOR_RUNS,
	OPT_ONLY_TIME,
	OPT_KEEP,
	OPT_BISECT,
	OPT_GATE_FORMAT,
};

static const struct option options[] = {
    {"baseline", required_argument, NULL, 'b'},
    {"baseline-command", required_argument, NULL, OPT_BASELINE_COMMAND},
    {"budget", required_argument, NULL, OPT_BUDGET},
    {"save-baseline", required_argument, NULL, OPT_SAVE},
    {"write-budget", required_argument, NULL, OPT_WRITE_BUDGET},
    {"force", no_argument, NULL, OPT_FORCE},
    {"judge", required_argument, NULL, OPT_JUDGE},
    {"noise", required_argument, NULL, OPT_NOISE},
    {"significance", required_argument, NULL, OPT_SIGNIFICANCE},
    {"metric", required_argument, NULL, OPT_METRIC},
    {"blame", required_argument, NULL, OPT_BLAME},
    {"runs", required_argument, NULL, OPT_RUNS},
    {"max-runs", required_argument, NULL, OPT_MAX_RUNS},
    {"floor-runs", required_argument, NULL, OPT_FLOOR_RUNS},
    {"only-time", no_argument, NULL, OPT_ONLY_TIME},
    {"keep", required_argument, NULL, OPT_KEEP},
    {"bisect", no_argument, NULL, OPT_BISECT},
    {"format", required_argument, NULL, OPT_GATE_FORMAT},
    {"color", required_argument, NULL, BP_OPT_COLOR},
    {"no-pager", no_argument, NULL, BP_OPT_NO_PAGER},
    {"help", no_argument, NULL, 'h'},
};

/* Options of record that make sense here. */
static const char *const record_options[] = {"timeout",    "until-console", "until-function", "until-exec",
					     "until-port", "kernel-image",  "vmlinux",        "guest-root",
					     "no-user",    "plugin"};

#define MAX_METRICS 16
#define MAX_LIMITS 64
#define MAX_RUNS 1000
#define MAX_OUTPUTS 8

enum judge { JUDGE_AUTO, JUDGE_EXACT, JUDGE_STATISTICAL };

enum {
	EXIT_PASS = 0,
	EXIT_REGRESSION = 3,
	EXIT_INCONCLUSIVE = 4,
	EXIT_INVALID = 5,
	EXIT_SKIP = 125,
	EXIT_ABORT = 255
};

/* Boots, and for the statistical judge their values. */
struct boots {
	struct bp_summary **list;
	size_t n;
};

struct samples {
	uint64_t *start;
	double *values; /* by sample, n_metrics each */
	size_t n;
};

struct request {
	const char *baseline, *baseline_command, *budget, *save, *write_budget;
	enum judge judge;
	struct {
		enum bp_gate_format format;
		const char *file; /* NULL: standard output */
	} outputs[MAX_OUTPUTS];
	size_t n_outputs;
	struct bp_output_how how;
	struct bp_boot_how boot;
	struct bp_gate_options options;
	struct bp_gate_limit limits[MAX_LIMITS];
	char *names[MAX_LIMITS]; /* of the limits; owned */
	const char *metrics[MAX_METRICS];
	size_t n_metrics;
	unsigned long runs, max_runs, floor_runs, blame;
	bool force, bisect, help;
	char **qemu;  /* NULL: NEW... */
	char **files; /* n_files */
	int n_files;
	wordexp_t words; /* of --baseline-command */
	bool has_words;

	struct boots old_boots, new_boots;
	struct samples old_samples, new_samples;
	const struct bp_summary *old_boot, *new_boot; /* that are shown and explained */
	struct bp_gate *gate;
	unsigned number; /* of recordings */
	bool failed_boot;
};

static void boots_deinit(struct boots *b)
{
	for (size_t i = 0; i < b->n; i++)
		bp_summary_destroy(b->list[i]);
	free(b->list);
}

static void request_deinit(struct request *rq)
{
	for (size_t i = 0; i < rq->options.n_limits; i++)
		free(rq->names[i]);
	if (rq->has_words)
		wordfree(&rq->words);
	boots_deinit(&rq->old_boots);
	boots_deinit(&rq->new_boots);
	free(rq->old_samples.start);
	free(rq->old_samples.values);
	free(rq->new_samples.start);
	free(rq->new_samples.values);
	bp_gate_destroy(rq->gate);
}

/* ---- the command line ---- */

/* "[METRIC=]VALUE" of --noise (a percentage) or --significance. */
static struct bp_err *parse_limit(struct request *rq, const char *arg, bool noise)
{
	const char *name = noise ? "--noise" : "--significance", *eq = strrchr(arg, '='),
		   *text = eq ? eq + 1 : arg;
	struct bp_gate_limit *l = &rq->limits[rq->options.n_limits];
	char *end;
	double v = strtod(text, &end);

	if (end == text || !isfinite(v) || v < 0 || strcmp(end, noise ? "%" : "") ||
	    (noise ? v > 1000 : v >= 0.5 || v <= 0))
		return bp_err_new(BP_EUSAGE,
				  noise ? "%s: '%s' is not a percentage such as 5%%"
					: "%s: '%s' is not a probability between 0 and 0.5",
				  name, text);
	if (noise)
		v /= 100;
	if (!eq) {
		*(noise ? &rq->options.noise : &rq->options.significance) = v;
		return NULL;
	}
	if (rq->options.n_limits == MAX_LIMITS)
		return bp_err_new(BP_EUSAGE, "%s: no more than %d limits", name, MAX_LIMITS);
	rq->names[rq->options.n_limits] = strndup(arg, (size_t)(eq - arg));
	if (!rq->names[rq->options.n_limits])
		return bp_err_nomem();
	*l = (struct bp_gate_limit){rq->names[rq->options.n_limits], noise ? v : -1, noise ? -1 : v};
	rq->options.n_limits++;
	return NULL;
}

/* "FORMAT[:FILE]" */
static struct bp_err *parse_format(struct request *rq, const char *arg)
{
	const char *colon = strchr(arg, ':');
	char name[16];

	if (rq->n_outputs == MAX_OUTPUTS)
		return bp_err_new(BP_EUSAGE, "--format: no more than %d", MAX_OUTPUTS);
	if (colon && !colon[1])
		return bp_err_new(BP_EUSAGE, "--format=%s: which file?", arg);
	snprintf(name, sizeof(name), "%.*s", (int)(colon ? colon - arg : 15), arg);
	rq->outputs[rq->n_outputs].file = colon ? colon + 1 : NULL;
	return bp_gate_format_parse(name, &rq->outputs[rq->n_outputs++].format);
}

static struct bp_err *parse_count(const char *option, const char *arg, unsigned long *ret)
{
	struct bp_err *err = bp_option_number(option, arg, MAX_RUNS, ret);

	if (!err && !*ret)
		return bp_err_new(BP_EUSAGE, "%s: at least 1", option);
	return err;
}

static struct bp_err *option(struct request *rq, int c, const char *arg)
{
	switch (c) {
	case 'b':
		rq->baseline = arg;
		return NULL;
	case OPT_BASELINE_COMMAND:
		rq->baseline_command = arg;
		return NULL;
	case OPT_BUDGET:
		rq->budget = arg;
		return NULL;
	case OPT_SAVE:
		rq->save = arg;
		return NULL;
	case OPT_WRITE_BUDGET:
		rq->write_budget = arg;
		return NULL;
	case OPT_FORCE:
		rq->force = true;
		return NULL;
	case OPT_JUDGE:
		if (strcmp(arg, "auto") && strcmp(arg, "exact") && strcmp(arg, "statistical"))
			return bp_err_new(BP_EUSAGE, "--judge %s: must be auto, exact or statistical", arg);
		rq->judge = *arg == 'a' ? JUDGE_AUTO : *arg == 'e' ? JUDGE_EXACT : JUDGE_STATISTICAL;
		return NULL;
	case OPT_NOISE:
	case OPT_SIGNIFICANCE:
		return parse_limit(rq, arg, c == OPT_NOISE);
	case OPT_METRIC:
		if (strcmp(arg, "time") && strcmp(arg, "kernel-time") && strncmp(arg, "phase:", 6))
			return bp_err_new(BP_EUSAGE, "--metric %s: must be time, kernel-time or phase:NAME",
					  arg);
		if (rq->n_metrics == MAX_METRICS)
			return bp_err_new(BP_EUSAGE, "--metric: no more than %d", MAX_METRICS);
		rq->metrics[rq->n_metrics++] = arg;
		return NULL;
	case OPT_BLAME:
		return bp_option_number("--blame", arg, 100000, &rq->blame);
	case OPT_RUNS:
		return parse_count("--runs", arg, &rq->runs);
	case OPT_MAX_RUNS:
		return parse_count("--max-runs", arg, &rq->max_runs);
	case OPT_FLOOR_RUNS:
		return bp_option_number("--floor-runs", arg, 100, &rq->floor_runs);
	case OPT_ONLY_TIME:
		rq->boot.only_time = true;
		return NULL;
	case OPT_KEEP:
		rq->boot.keep = arg;
		return NULL;
	case OPT_BISECT:
		rq->bisect = true;
		return NULL;
	case OPT_GATE_FORMAT:
		return parse_format(rq, arg);
	case BP_OPT_COLOR:
	case BP_OPT_NO_PAGER:
	case '?':
		return bp_output_option(&rq->how, c, arg, "");
	default:
		return bp_record_option(c, arg, &rq->boot.record);
	}
}

static struct bp_err *check_request(struct request *rq)
{
	if (rq->qemu && rq->n_files)
		return bp_err_new(BP_EUSAGE, "either recordings or, after --, a QEMU command line");
	if (!rq->qemu && !rq->n_files)
		return bp_err_new(BP_EUSAGE,
				  "which boot? bootprof gate --baseline FILE NEW..., or -- QEMU ...");
	if (!rq->baseline && !rq->baseline_command && !rq->budget && !rq->save && !rq->write_budget)
		return bp_err_new(BP_EUSAGE,
				  "nothing to compare with: --baseline, --budget or --save-baseline");
	if (!rq->qemu && (rq->baseline_command || rq->boot.only_time))
		return bp_err_new(BP_EUSAGE, "--baseline-command and --only-time need a QEMU command line");
	if (rq->baseline_command) {
		int rc = wordexp(rq->baseline_command, &rq->words, WRDE_NOCMD);

		if (rc || !rq->words.we_wordc)
			return bp_err_new(BP_EUSAGE, "--baseline-command: not a command line");
		rq->has_words = true;
	}
	if (!rq->n_metrics)
		rq->metrics[rq->n_metrics++] = "time";
	rq->options.limits = rq->limits;
	return NULL;
}

static struct bp_err *parse(struct request *rq, int argc, char **argv)
{
	struct option all[BP_ARRAY_SIZE(options) + BP_ARRAY_SIZE(record_options) + 1] = {0};
	size_t n = BP_ARRAY_SIZE(options);
	struct bp_err *err;
	int c;

	memcpy(all, options, sizeof(options));
	for (const struct option *o = bp_record_options_table; o->name; o++) {
		for (size_t i = 0; i < BP_ARRAY_SIZE(record_options); i++) {
			if (!strcmp(o->name, record_options[i]))
				all[n++] = *o;
		}
	}
	optind = 0;
	while ((c = getopt_long(argc, argv, "+b:h", all, NULL)) != -1) {
		if (c == 'h') {
			rq->help = true;
			return NULL;
		}
		err = option(rq, c, optarg);
		if (err)
			return err;
	}
	/* What follows "--" is a command; options may also stand behind files. */
	if (optind > 0 && optind < argc && !strcmp(argv[optind - 1], "--")) {
		rq->qemu = argv + optind;
	} else {
		rq->files = argv + optind;
		rq->n_files = argc - optind;
		for (int i = 0; i < rq->n_files; i++) {
			if (!strcmp(rq->files[i], "--"))
				return bp_err_new(BP_EUSAGE,
						  "either recordings or, after --, a QEMU command line");
			if (rq->files[i][0] == '-' && rq->files[i][1])
				return bp_err_new(BP_EUSAGE, "the option %s must stand before the recordings",
						  rq->files[i]);
		}
	}
	return check_request(rq);
}

/* ---- boots ---- */

static struct bp_err *add_boot(struct boots *b, struct bp_summary *s)
{
	struct bp_summary **list = realloc(b->list, (b->n + 1) * sizeof(struct bp_summary *));

	if (!list) {
		bp_summary_destroy(s);
		return bp_err_nomem();
	}
	b->list = list;
	b->list[b->n++] = s;
	return NULL;
}

static struct bp_err *load(struct boots *b, const char *path)
{
	struct bp_summary *s;
	struct bp_err *err = bp_input_summary("gate", path, NULL, &s);

	return err ? err : add_boot(b, s);
}

static int visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

/* A file, or all files of a directory in the order of their names. */
static struct bp_err *load_baseline(struct boots *b, const char *path)
{
	struct dirent **names;
	struct bp_err *err = NULL;
	struct stat st;
	int n;

	if (stat(path, &st))
		return bp_err_os(errno, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return load(b, path);
	n = scandir(path, &names, visible, alphasort);
	if (n < 0)
		return bp_err_os(errno, "%s", path);
	for (int i = 0; i < n; i++) {
		bp_autofree char *file = NULL;

		if (!err && asprintf(&file, "%s/%s", path, names[i]->d_name) < 0)
			err = bp_err_nomem();
		if (!err && !stat(file, &st) && S_ISREG(st.st_mode))
			err = load(b, file);
		free(names[i]);
	}
	free(names);
	if (!err && !b->n)
		return bp_err_new(BP_EOS, "%s: no baseline and no recording in it", path);
	return err;
}

static struct bp_err *boot(struct request *rq, char **argv, struct bp_summary **ret)
{
	bp_autofree char *failed = NULL;
	struct bp_err *err = bp_boot_run(&rq->boot, argv, ++rq->number, ret, &failed);

	if (err || !failed)
		return err;
	bp_summary_destroy(*ret);
	*ret = NULL;
	rq->failed_boot = true;
	return bp_err_new(BP_EDATA, "the guest did not boot: %s", failed);
}

/* ---- what cannot be judged ---- */

static void invalid(struct request *rq, const char *text)
{
	if (rq->force) {
		bp_gate_note(rq->gate, "%s; judged all the same (--force)", text);
		return;
	}
	bp_gate_note(rq->gate, "%s", text);
	bp_gate_worse(rq->gate, BP_GATE_INVALID);
}

static struct bp_err *check_whole(struct request *rq, const struct bp_summary *s)
{
	bp_autofree char *text = NULL;

	if (!s->lost && !s->damaged)
		return NULL;
	if ((s->lost ? asprintf(&text, "%s lost %llu events", s->path, (unsigned long long)s->lost)
		     : asprintf(&text, "%s is not complete (unfinished or damaged)", s->path)) < 0)
		return bp_err_nomem();
	invalid(rq, text);
	return NULL;
}

static struct bp_err *check_comparable(struct request *rq, const struct bp_summary *a,
				       const struct bp_summary *b)
{
	bp_autofree char *differ = NULL, *text = NULL;
	struct bp_err *err = bp_diff_comparable(a, b, &differ);

	if (err || !differ)
		return err;
	if (asprintf(&text, "the machines differ: %s", differ) < 0)
		return bp_err_nomem();
	invalid(rq, text);
	return NULL;
}

/* ---- the exact judge ---- */

/* Index of a boot that most of the others repeat; *same of them do, itself included. */
static size_t majority(const struct boots *b, size_t *same)
{
	size_t best = 0;

	*same = 0;
	for (size_t i = 0; i < b->n; i++) {
		size_t n = 0;

		for (size_t k = 0; k < b->n; k++)
			n += bp_gate_repeats(b->list[i], b->list[k]);
		if (n > *same) {
			*same = n;
			best = i;
		}
	}
	return best;
}

/* Do the boots repeat? One alone is believed. */
static bool repeated(const struct boots *b)
{
	size_t same;

	majority(b, &same);
	return b->n == 1 || (same >= 2 && same * 2 > b->n);
}

static struct bp_err *choose(struct request *rq, const struct boots *b, const char *which,
			     const struct bp_summary **ret)
{
	bp_autofree char *text = NULL;
	size_t same, best = majority(b, &same);

	*ret = b->list[best];
	if (!repeated(b)) {
		if (asprintf(&text, "%s: of %zu runs only %zu executed the same instructions", which, b->n,
			     same) < 0)
			return bp_err_nomem();
		invalid(rq, text);
	} else if (same != b->n) {
		bp_gate_note(
		    rq->gate,
		    "%s: %zu of %zu runs executed other instructions and were left out (a firmware that "
		    "took another course)",
		    which, b->n - same, b->n);
	} else if (b->n == 1 && !b->list[0]->baseline) {
		bp_gate_note(rq->gate, "%s: one run; that it repeats is not checked", which);
	}
	return check_whole(rq, *ret);
}

static struct bp_err *collect_exact(struct request *rq)
{
	size_t least = rq->runs ? rq->runs : 2, most = rq->max_runs ? rq->max_runs : 6;
	struct bp_err *err = NULL;

	if (most < least)
		most = least;
	rq->boot.record.deterministic = true;
	while (!err && (rq->new_boots.n < least || (!repeated(&rq->new_boots) && rq->new_boots.n < most))) {
		struct bp_summary *s = NULL;

		err = boot(rq, rq->qemu, &s);
		if (!err)
			err = add_boot(&rq->new_boots, s);
	}
	return err;
}

static struct bp_err *explain(struct request *rq, const struct bp_diff *d)
{
	return bp_gate_explain(rq->gate, d, rq->blame);
}

static struct bp_err *judge_exact(struct request *rq)
{
	bp_cleanup(bp_diff_destroyp) struct bp_diff *d = NULL;
	struct bp_err *err = NULL;

	if (rq->qemu)
		err = collect_exact(rq);
	if (!err)
		err = choose(rq, &rq->new_boots, "the new boot", &rq->new_boot);
	if (err || !rq->old_boots.n)
		return err;
	err = choose(rq, &rq->old_boots, "the baseline", &rq->old_boot);
	if (!err)
		err = check_comparable(rq, rq->old_boot, rq->new_boot);
	if (err)
		return err;
	if (!rq->new_boot->deterministic || !rq->old_boot->deterministic)
		invalid(rq, "the exact judge needs recordings made with --deterministic");
	if (rq->gate->verdict == BP_GATE_INVALID)
		return NULL;
	err = bp_diff_create(rq->old_boot, rq->new_boot, BP_CLOCK_INSNS, &d);
	if (!err)
		err = bp_gate_exact(rq->gate, d, &rq->options);
	return err ? err : explain(rq, d);
}

/* ---- the statistical judge ---- */

static struct bp_err *value_of(const struct bp_summary *s, const struct bp_sum_run *run, const char *metric,
			       double *ret)
{
	uint32_t phase;

	if (!strcmp(metric, "time")) {
		*ret = (double)(run ? run->ns : s->ns);
	} else if (!strcmp(metric, "kernel-time")) {
		*ret = (double)s->kernel_ns;
		if (run) {
			/* The kernel's phases are the last ones. */
			phase = bp_summary_phase(s, "kernel-start");
			*ret = 0;
			for (size_t i = phase == BP_SUM_NONE ? 0 : phase; i < s->n_phases; i++)
				*ret += (double)run->phase_ns[i];
		}
	} else {
		phase = bp_summary_phase(s, metric + strlen("phase:"));
		if (phase == BP_SUM_NONE)
			return bp_err_new(BP_EDATA, "%s: the boot has no phase %s", s->path,
					  metric + strlen("phase:"));
		*ret = (double)(run ? run->phase_ns[phase] : s->phases[phase].ns);
	}
	if (*ret <= 0)
		return bp_err_new(BP_EDATA, "%s: nothing was measured for %s", s->path, metric);
	return NULL;
}

static struct bp_err *add_sample(const struct request *rq, struct samples *x, const struct bp_summary *s,
				 const struct bp_sum_run *run)
{
	uint64_t *start = realloc(x->start, (x->n + 1) * sizeof(*start));
	double *values;
	struct bp_err *err = NULL;

	if (!start)
		return bp_err_nomem();
	x->start = start;
	values = realloc(x->values, (x->n + 1) * rq->n_metrics * sizeof(*values));
	if (!values)
		return bp_err_nomem();
	x->values = values;
	x->start[x->n] = run ? run->start : s->start;
	for (size_t i = 0; i < rq->n_metrics && !err; i++)
		err = value_of(s, run, rq->metrics[i], &x->values[x->n * rq->n_metrics + i]);
	x->n += !err;
	return err;
}

/* Samples of all boots; a baseline file has those of its series. */
static struct bp_err *add_samples(const struct request *rq, struct samples *x, const struct boots *b)
{
	struct bp_err *err = NULL;

	for (size_t i = 0; i < b->n && !err; i++) {
		const struct bp_summary *s = b->list[i];

		if (!s->n_runs)
			err = add_sample(rq, x, s, NULL);
		for (size_t k = 0; k < s->n_runs && !err; k++)
			err = add_sample(rq, x, s, &s->runs[k]);
	}
	return err;
}

/* Were old and new boots run in turn? Then the next boot is mostly one of the other side. */
static bool interleaved(const struct samples *a, const struct samples *b)
{
	size_t i = 0, k = 0, turns = 0, least = a->n < b->n ? a->n : b->n;
	int last = -1;

	while (i < a->n || k < b->n) {
		bool first = k >= b->n || (i < a->n && a->start[i] <= b->start[k]);

		if (!a->start[i < a->n ? i : 0] || !b->start[k < b->n ? k : 0])
			return false;
		turns += last >= 0 && last != first;
		last = first;
		i += first;
		k += !first;
	}
	return turns >= least;
}

static struct bp_err *judge_series(struct request *rq, double before, double now)
{
	struct bp_gate_series series[MAX_METRICS];
	size_t n = rq->old_samples.n < rq->new_samples.n ? rq->old_samples.n : rq->new_samples.n;
	bp_autofree double *values = malloc((2 * n * rq->n_metrics + 1) * sizeof(*values));
	struct bp_gate *fresh;
	struct bp_err *err;

	if (!values)
		return bp_err_nomem();
	/* Metrics of the last look are of no interest any more. */
	err = bp_gate_new(rq->gate->judge, &fresh);
	if (err)
		return err;
	for (size_t i = 0; i < rq->n_metrics; i++) {
		double *a = values + 2 * n * i, *b = a + n;

		for (size_t k = 0; k < n; k++) {
			a[k] = rq->old_samples.values[k * rq->n_metrics + i];
			b[k] = rq->new_samples.values[k * rq->n_metrics + i];
		}
		series[i] = (struct bp_gate_series){rq->metrics[i], a, b, n};
	}
	fresh->notes = rq->gate->notes;
	fresh->n_notes = rq->gate->n_notes;
	rq->gate->notes = NULL;
	rq->gate->n_notes = 0;
	bp_gate_destroy(rq->gate);
	rq->gate = fresh;
	return bp_gate_statistical(fresh, series, rq->n_metrics, before, now, &rq->options);
}

static struct bp_err *one_of_pair(struct request *rq, char **argv, struct boots *boots,
				  struct samples *samples)
{
	struct bp_summary *s = NULL, *first;
	struct bp_err *err = boot(rq, argv, &s);

	if (err)
		return err;
	err = add_sample(rq, samples, s, NULL);
	/* One of each is enough to say what changed; of the others only times are kept. */
	if (err || (boots->n && !boots->list[boots->n - 1]->baseline)) {
		first = err ? NULL : boots->list[boots->n - 1];
		if (first)
			err = bp_summary_add_run(first, s);
		bp_summary_destroy(s);
		return err;
	}
	err = bp_summary_add_run(s, s);
	if (err)
		bp_summary_destroy(s);
	return err ? err : add_boot(boots, s);
}

/* Boots in turn: old new, new old, old new ... until it is decided. */
static struct bp_err *collect_pairs(struct request *rq, char **old_argv)
{
	size_t step = rq->runs ? rq->runs : 10, most = rq->max_runs ? rq->max_runs : 30, looked = 0;
	struct bp_err *err = NULL;

	if (most < step)
		most = step;
	while (!err && (!looked || (rq->gate->verdict == BP_GATE_INCONCLUSIVE && looked < most))) {
		size_t upto = looked + step < most ? looked + step : most;

		while (!err && rq->new_samples.n < upto) {
			bool new_first = rq->new_samples.n % 2;

			for (int i = 0; i < 2 && !err; i++)
				err = (i == 0) == new_first
					  ? one_of_pair(rq, rq->qemu, &rq->new_boots, &rq->new_samples)
					  : one_of_pair(rq, old_argv, &rq->old_boots, &rq->old_samples);
		}
		if (!err)
			err = judge_series(rq, (double)looked / (double)most, (double)upto / (double)most);
		looked = upto;
	}
	return err;
}

/* New boots only: there is nothing to run in turn with. */
static struct bp_err *collect_alone(struct request *rq)
{
	size_t n = rq->runs ? rq->runs : 10;
	struct bp_err *err = NULL;

	while (!err && rq->new_samples.n < n)
		err = one_of_pair(rq, rq->qemu, &rq->new_boots, &rq->new_samples);
	return err;
}

/* Two sets of measurements that are there. */
static struct bp_err *judge_sets(struct request *rq)
{
	struct bp_err *err = judge_series(rq, 0, 1);

	if (err || interleaved(&rq->old_samples, &rq->new_samples))
		return err;
	if (rq->force) {
		bp_gate_note(rq->gate,
			     "the boots were not run in turn: what else the host did is in the difference");
		return NULL;
	}
	if (rq->gate->verdict != BP_GATE_PASS)
		rq->gate->verdict = BP_GATE_INCONCLUSIVE;
	for (size_t i = 0; i < rq->gate->n_metrics; i++) {
		if (rq->gate->metrics[i].verdict == BP_GATE_REGRESSION)
			rq->gate->metrics[i].verdict = BP_GATE_INCONCLUSIVE;
	}
	bp_gate_note(rq->gate,
		     "the old boots were not run in turn with the new ones, so a slower host is not told "
		     "from a slower guest: give --baseline-command, or --force");
	return NULL;
}

static char **baseline_argv(struct request *rq)
{
	if (rq->has_words)
		return rq->words.we_wordv;
	if (rq->old_boots.n && rq->old_boots.list[0]->argv && bp_boot_inputs_same(rq->old_boots.list[0]))
		return rq->old_boots.list[0]->argv;
	return NULL;
}

static struct bp_err *judge_statistical(struct request *rq)
{
	bp_cleanup(bp_diff_destroyp) struct bp_diff *d = NULL;
	bool compare = rq->old_boots.n || rq->has_words;
	struct bp_err *err = NULL;

	if (rq->qemu && compare && baseline_argv(rq)) {
		err = collect_pairs(rq, baseline_argv(rq));
	} else {
		if (rq->qemu)
			err = collect_alone(rq);
		else
			err = add_samples(rq, &rq->new_samples, &rq->new_boots);
		if (!err)
			err = add_samples(rq, &rq->old_samples, &rq->old_boots);
		if (!err && compare)
			err = judge_sets(rq);
	}
	if (err)
		return err;
	rq->new_boot = rq->new_boots.list[0];
	err = check_whole(rq, rq->new_boot);
	if (err || !rq->old_boots.n)
		return err;
	/* A boot of today rather than the baseline's, when there is one. */
	rq->old_boot = rq->old_boots.list[rq->old_boots.n - 1];
	err = check_comparable(rq, rq->old_boot, rq->new_boot);
	if (!err)
		err = bp_diff_create(rq->old_boot, rq->new_boot, BP_CLOCK_TIME, &d);
	return err ? err : explain(rq, d);
}

/* ---- what is written ---- */

static struct bp_err *measure_floor(struct request *rq, struct bp_summary *s)
{
	struct boots others = {0};
	struct bp_err *err = NULL;

	for (unsigned i = 1; i <= rq->floor_runs && !err; i++) {
		char **argv = NULL;
		bp_autofree char *copy = NULL;
		struct bp_summary *other = NULL;

		err = bp_boot_perturb(rq->qemu, i, &argv, &copy);
		if (!err && argv)
			err = boot(rq, argv, &other);
		bp_boot_free_argv(argv);
		if (copy)
			unlink(copy);
		if (!argv)
			break;
		if (!err)
			err = add_boot(&others, other);
	}
	if (!err)
		err = bp_gate_floor(s, others.list, others.n);
	boots_deinit(&others);
	return err;
}

static struct bp_err *add_runs(const struct boots *b, struct bp_summary *s)
{
	struct bp_err *err = NULL;

	for (size_t i = 0; i < b->n && !err; i++)
		err = bp_summary_add_run(s, b->list[i]);
	return err;
}

static struct bp_err *save(struct request *rq, bool exact)
{
	struct bp_summary *s = NULL;
	struct bp_err *err = NULL;

	for (size_t i = 0; i < rq->new_boots.n; i++) {
		if (rq->new_boots.list[i] == rq->new_boot)
			s = rq->new_boots.list[i];
	}
	if (!s)
		return NULL;
	if (exact && rq->qemu && rq->floor_runs)
		err = measure_floor(rq, s);
	if (!err && !exact && !s->n_runs && rq->new_boots.n > 1)
		err = add_runs(&rq->new_boots, s);
	if (!err)
		err = bp_boot_inputs(s);
	if (!err)
		err = bp_summary_prune(s, BP_SUMMARY_PATHS);
	return err ? err : bp_summary_write(s, rq->save);
}

static struct bp_err *write_budget(const struct request *rq)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_err *err = bp_budget_write(rq->new_boot, &sb);
	FILE *f;

	if (err)
		return err;
	f = fopen(rq->write_budget, "we");
	if (!f)
		return bp_err_os(errno, "%s", rq->write_budget);
	fwrite(bp_strbuf_str(&sb), 1, sb.len, f);
	if (fclose(f))
		return bp_err_os(errno, "%s", rq->write_budget);
	return NULL;
}

/* ---- all of it ---- */

/* Exact when the boots are, or when the one to be made can be. */
static bool choose_judge(const struct request *rq)
{
	const struct boots *b = rq->old_boots.n ? &rq->old_boots : &rq->new_boots;
	struct bp_qemu_args args = {0};

	if (rq->judge != JUDGE_AUTO)
		return rq->judge == JUDGE_EXACT;
	if (rq->boot.only_time || rq->has_words)
		return false;
	for (size_t i = 0; i < b->n; i++) {
		if (!b->list[i]->deterministic)
			return false;
	}
	for (size_t i = 0; i < rq->new_boots.n; i++) {
		if (!rq->new_boots.list[i]->deterministic)
			return false;
	}
	if (!rq->qemu)
		return true;
	bp_qemu_args_parse(rq->qemu, &args);
	return args.smp == 1 && !strcmp(args.accel, "tcg");
}

static struct bp_err *judge(struct request *rq)
{
	bp_cleanup(bp_budget_destroyp) struct bp_budget *budget = NULL;
	struct bp_qemu_args args = {0};
	struct bp_err *err = NULL;
	bool exact;

	if (rq->budget)
		err = bp_budget_read(rq->budget, &budget);
	if (!err && rq->baseline)
		err = load_baseline(&rq->old_boots, rq->baseline);
	for (int i = 0; i < rq->n_files && !err; i++)
		err = load(&rq->new_boots, rq->files[i]);
	if (err)
		return err;
	exact = choose_judge(rq);
	if (rq->qemu) {
		bp_qemu_args_parse(rq->qemu, &args);
		rq->boot.only_time |= !exact && strcmp(args.accel, "tcg");
	}
	err = bp_gate_new(rq->old_boots.n || rq->has_words ? (exact ? "exact" : "statistical")
			  : budget                         ? "budget"
							   : "none",
			  &rq->gate);
	if (!err)
		err = exact ? judge_exact(rq) : judge_statistical(rq);
	if (!err && budget && rq->gate->verdict != BP_GATE_INVALID)
		err = bp_budget_judge(budget, rq->gate, rq->old_boot, rq->new_boot);
	if (!err && rq->save && rq->gate->verdict != BP_GATE_INVALID)
		err = save(rq, exact);
	/* Behind it: it measures the floor, for which a budget leaves room. */
	if (!err && rq->write_budget)
		err = write_budget(rq);
	return err;
}

static struct bp_err *output(const struct request *rq)
{
	bool printed = false;
	struct bp_err *err = NULL;

	for (size_t i = 0; i < rq->n_outputs && !err; i++) {
		printed |= !rq->outputs[i].file;
		err = bp_gate_output(rq->gate, rq->outputs[i].format, rq->outputs[i].file, &rq->how,
				     rq->old_boot, rq->new_boot);
	}
	if (!err && !printed)
		err = bp_gate_output(rq->gate, BP_GATE_TEXT, NULL, &rq->how, rq->old_boot, rq->new_boot);
	return err;
}

static int exit_code(const struct request *rq)
{
	switch (rq->gate->verdict) {
	case BP_GATE_REGRESSION:
		return EXIT_REGRESSION;
	case BP_GATE_INCONCLUSIVE:
		return rq->bisect ? EXIT_SKIP : EXIT_INCONCLUSIVE;
	case BP_GATE_INVALID:
		return rq->bisect ? EXIT_SKIP : EXIT_INVALID;
	default:
		return EXIT_PASS;
	}
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	bp_cleanup(request_deinit) struct request rq = {
	    .options = {.noise = -1, .significance = 0.01},
	    .boot.record.until_port = -1,
	    .floor_runs = 8,
	    .blame = 15,
	};
	struct bp_err *err = parse(&rq, argc, argv);

	if (err)
		return err;
	if (rq.help) {
		fputs(help, stdout);
		return NULL;
	}
	err = judge(&rq);
	if (!err) {
		err = output(&rq);
		*status = exit_code(&rq);
	}
	if (err && rq.bisect) {
		/* To git, an error of ours is neither good nor bad: skip the guest that does not boot, stop
		 * else. */
		fprintf(stderr, "bootprof gate: %s\n", bp_err_text(err));
		bp_err_free(err);
		*status = rq.failed_boot ? EXIT_SKIP : EXIT_ABORT;
		return NULL;
	}
	if (!err)
		clearerr(stdout);
	return err;
}

const struct bp_cmd bp_cmd_gate = {
    .name = "gate",
    .summary = "judge whether a boot became slower, for CI",
    .run = run,
};
