// SPDX-License-Identifier: GPL-2.0-or-later
#include "cmd/export.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/input.h"
#include "core/cleanup.h"
#include "core/units.h"

static const char help[] =
    "Usage: bootprof export --format=FORMAT [OPTION]...\n"
    "Write a recording in the form of another tool.\n"
    "\n"
    "      --format=FORMAT    folded      stacks with their own time, for flame graphs\n"
    "                         chrome      trace-event JSON, for chrome://tracing\n"
    "                         perfetto    protobuf, for ui.perfetto.dev and trace_processor\n"
    "                         speedscope  JSON, for www.speedscope.app\n"
    "  -i, --input FILE       the recording (default " BP_DEFAULT_FILE ")\n"
    "  -o, --output FILE      write to FILE, not to standard output\n"
    "      --clock=CLOCK      time (the default): host nanoseconds; insns: instructions of each vCPU, as if\n"
    "                         one took one nanosecond\n"
    "      --min-us N         leave out calls shorter than N microseconds (with --clock=insns: thousand\n"
    "                         instructions); not with folded\n"
    "      --off-cpu          folded: times that threads of QEMU were off the CPU, from the recording's "
    "waits\n" BP_FOREIGN_HELP "  -h, --help             show this help\n";

enum { OPT_FORMAT = 256, OPT_CLOCK, OPT_MIN_US, OPT_OFF_CPU };

static const struct option options[] = {
    {"format", required_argument, NULL, OPT_FORMAT},
    {"input", required_argument, NULL, 'i'},
    {"output", required_argument, NULL, 'o'},
    {"clock", required_argument, NULL, OPT_CLOCK},
    {"min-us", required_argument, NULL, OPT_MIN_US},
    {"off-cpu", no_argument, NULL, OPT_OFF_CPU},
    BP_FOREIGN_OPTIONS,
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const struct format {
	const char *name;
	struct bp_err *(*write)(struct bp_export *x);
	bool binary, slices;
} formats[] = {
    {.name = "folded", .write = bp_export_folded},
    {.name = "perfetto", .write = bp_export_perfetto, .binary = true, .slices = true},
    {.name = "chrome", .write = bp_export_chrome, .slices = true},
    {.name = "speedscope", .write = bp_export_speedscope, .slices = true},
};

static const struct format off_cpu = {.name = "folded", .write = bp_export_off_cpu};

/* Enough to make writes few; little enough to keep. */
#define DRAIN_BYTES (256u << 10)

/* More slices than viewers show with ease. */
#define MANY_SLICES 1000000

static bool drain(struct bp_export *x, size_t most)
{
	if (x->out.failed)
		return false;
	if (x->out.len > most) {
		errno = 0;
		if (!x->gone && !x->errnum && fwrite(x->out.data, 1, x->out.len, x->file) != x->out.len) {
			x->gone = errno == EPIPE;
			x->errnum = x->gone ? 0 : errno ? errno : EIO;
		}
		bp_strbuf_clear(&x->out);
	}
	return !x->gone && !x->errnum;
}

bool bp_export_drain(struct bp_export *x)
{
	return drain(x, DRAIN_BYTES);
}

static const char *base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

void bp_export_func(const struct bp_export *x, uint32_t func, struct bp_strbuf *sb)
{
	const struct bp_func *f;

	if (func >= x->n_funcs) {
		bp_strbuf_adds(sb, "[unknown]");
		return;
	}
	f = &x->funcs[func];
	switch (f->space) {
	case BP_SPACE_PSEUDO:
	case BP_SPACE_FIRMWARE:
		bp_strbuf_adds(sb, *f->name ? f->name : *f->module ? f->module : "[unknown]");
		break;
	case BP_SPACE_KERNEL:
		if (*f->name)
			bp_strbuf_adds(sb, f->name);
		else
			bp_strbuf_addf(sb, "0x%" PRIx64, f->addr);
		break;
	default:
		if (*f->name)
			bp_strbuf_adds(sb, f->name);
		if (*f->name && *f->module)
			bp_strbuf_addf(sb, " [%s]", base(f->module));
		else if (!*f->name && *f->module)
			bp_strbuf_addf(sb, "[%s+0x%" PRIx64 "]", base(f->module), f->addr);
		else if (!*f->name)
			bp_strbuf_addf(sb, "0x%" PRIx64, f->addr);
		break;
	}
}

const char *bp_export_space(const struct bp_export *x, uint32_t func)
{
	static const char *const names[BP_SPACE_N] = {
	    [BP_SPACE_PSEUDO] = "pseudo", [BP_SPACE_FIRMWARE] = "firmware", [BP_SPACE_KERNEL] = "kernel",
	    [BP_SPACE_MODULE] = "module", [BP_SPACE_USER] = "user",         [BP_SPACE_ANON] = "user",
	};

	if (func >= x->n_funcs || x->funcs[func].space >= BP_SPACE_N)
		return "pseudo";
	return names[x->funcs[func].space];
}

size_t bp_export_task_index(const struct bp_export *x, uint32_t task)
{
	size_t lo = 0, hi = x->n_tasks;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (x->tasks[mid].id < task)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < x->n_tasks && x->tasks[lo].id == task ? lo : x->n_tasks;
}

void bp_export_task(const struct bp_export *x, uint32_t task, bool pid, struct bp_strbuf *sb)
{
	size_t i = bp_export_task_index(x, task);
	const struct bp_fact *f;

	if (i == x->n_tasks) {
		bp_strbuf_adds(sb, "[task]");
		return;
	}
	f = &x->facts[x->tasks[i].fact];
	bp_strbuf_adds(sb, *f->s1 ? f->s1 : "[task]");
	if (pid && !(f->v[3] & BP_TASK_BOOT))
		bp_strbuf_addf(sb, "/%" PRIu64, f->v[1]);
}

bool bp_export_instant(const struct bp_export *x, const struct bp_fact *f, uint64_t *time,
		       struct bp_strbuf *text)
{
	if (f->kind != BP_FACT_MARK && f->kind != BP_FACT_CONSOLE)
		return false;
	/* On the clock of instructions, only what was seen on some vCPU has a place. */
	if (x->clock == BP_CLOCK_INSNS && f->vcpu == UINT16_MAX)
		return false;
	*time = x->clock == BP_CLOCK_INSNS ? f->insns : f->time_ns;
	bp_strbuf_adds(text, f->s1);
	if (f->kind == BP_FACT_MARK && *f->s2)
		bp_strbuf_addf(text, " %s", f->s2);
	return true;
}

void bp_export_json(struct bp_strbuf *sb, const struct bp_strbuf *text)
{
	bp_strbuf_addc(sb, '"');
	bp_strbuf_add_json(sb, bp_strbuf_str(text), text->len);
	bp_strbuf_addc(sb, '"');
	sb->failed |= text->failed;
}

static int compare_tasks(const void *a, const void *b)
{
	const struct bp_export_task *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return (x->fact > y->fact) - (x->fact < y->fact);
}

/* The last fact about each task. */
static BP_MUST_CHECK struct bp_err *collect_tasks(struct bp_export *x)
{
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < x->n_facts; i++)
		n += x->facts[i].kind == BP_FACT_TASK && x->facts[i].v[0] <= UINT32_MAX;
	if (!n)
		return NULL;
	x->tasks = calloc(n, sizeof(*x->tasks));
	if (!x->tasks)
		return bp_err_nomem();
	for (size_t i = 0; i < x->n_facts; i++)
		if (x->facts[i].kind == BP_FACT_TASK && x->facts[i].v[0] <= UINT32_MAX)
			x->tasks[x->n_tasks++] = (struct bp_export_task){(uint32_t)x->facts[i].v[0], i};
	qsort(x->tasks, n, sizeof(*x->tasks), compare_tasks);
	for (size_t i = 0; i < n; i++)
		if (i + 1 == n || x->tasks[i].id != x->tasks[i + 1].id)
			x->tasks[kept++] = x->tasks[i];
	x->n_tasks = kept;
	return NULL;
}

/* What the reader of the result should know. */
static void tell(const struct bp_export *x, const struct format *format)
{
	char buf[BP_UNITS_MAX];
	uint64_t folded = 0;
	size_t n;
	const struct bp_fold *folds = bp_trace_folds(x->trace, &n);

	for (size_t i = 0; i < n; i++)
		folded += folds[i].calls;
	if (x->dropped)
		fprintf(stderr,
			"bootprof export: left out %" PRIu64 " calls shorter than --min-us, wrote %" PRIu64
			"\n",
			x->dropped, x->slices);
	else if (format->slices && x->slices > MANY_SLICES && !x->gone)
		fprintf(stderr, "bootprof export: wrote %s calls; --min-us 10 would make it easier to view\n",
			bp_units_count(buf, x->slices));
	if (folded)
		fprintf(stderr,
			"bootprof export: warning: %" PRIu64
			" short calls are in the recording as totals only "
			"(--max-size); their time shows as their callers'\n",
			folded);
	if (x->merged_paths)
		fprintf(stderr,
			"bootprof export: warning: too many different stacks; %" PRIu64
			" calls count as their callers'\n",
			x->merged_paths);
	if (x->lost_records)
		fprintf(stderr, "bootprof export: warning: %" PRIu64 " records were lost while recording\n",
			x->lost_records);
	if (x->damaged_blocks)
		fprintf(stderr,
			"bootprof export: warning: %" PRIu64 " blocks of events are damaged and left out\n",
			x->damaged_blocks);
}

static BP_MUST_CHECK struct bp_err *write_all(struct bp_export *x, const struct format *format,
					      const char *name)
{
	struct bp_err *err = format->write(x);

	if (err)
		return err;
	if (x->out.failed)
		return bp_err_nomem();
	drain(x, 0);
	errno = 0;
	if (!x->gone && !x->errnum && fflush(x->file)) {
		x->gone = errno == EPIPE;
		x->errnum = x->gone ? 0 : errno;
	}
	if (x->errnum)
		return bp_err_os(x->errnum, "cannot write %s", name);
	return NULL;
}

static BP_MUST_CHECK struct bp_err *export(struct bp_export *x, const struct format *format,
					   const char *output)
{
	struct bp_err *err = collect_tasks(x);
	struct stat st;

	if (err)
		return err;
	x->file = stdout;
	if (output) {
		x->file = fopen(output, "we");
		if (!x->file)
			return bp_err_os(errno, "cannot write %s", output);
	}
	signal(SIGPIPE, SIG_IGN);
	err = write_all(x, format, output ? output : "the output");
	if (output) {
		bool regular = !fstat(fileno(x->file), &st) && S_ISREG(st.st_mode);

		if (fclose(x->file) && !err)
			err = bp_err_os(errno, "cannot write %s", output);
		/* Half a file looks like a whole one to some readers. */
		if (err && regular)
			unlink(output);
	} else {
		/* What there was to say about standard output is said. */
		clearerr(stdout);
	}
	if (!err)
		tell(x, format);
	return err;
}

static BP_MUST_CHECK struct bp_err *parse_min(const char *arg, uint64_t *ret)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(arg, &end, 10);
	if (errno || end == arg || *end || *arg == '-' || v > UINT64_MAX / 1000)
		return bp_err_new(BP_EUSAGE, "--min-us %s: not a number of microseconds", arg);
	*ret = v * 1000;
	return NULL;
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	bp_cleanup(bp_input_closep) struct bp_trace *trace = NULL;
	struct bp_export x = {.clock = BP_CLOCK_TIME};
	const struct format *format = NULL;
	const char *input = NULL, *output = NULL;
	struct bp_import_options foreign = {0};
	bool has_min = false, waits = false, taken;
	struct bp_err *err;
	int c;

	(void)status;
	while ((c = getopt_long(argc, argv, "i:o:h", options, NULL)) != -1) {
		switch (c) {
		case 'i':
			input = optarg;
			break;
		case 'o':
			output = optarg;
			break;
		case OPT_FORMAT:
			format = NULL;
			for (size_t i = 0; i < BP_ARRAY_SIZE(formats); i++)
				if (!strcmp(formats[i].name, optarg))
					format = &formats[i];
			if (!format)
				return bp_err_new(
				    BP_EUSAGE,
				    "--format=%s: must be one of folded|perfetto|chrome|speedscope", optarg);
			break;
		case OPT_CLOCK:
			if (strcmp(optarg, "time") && strcmp(optarg, "insns"))
				return bp_err_new(BP_EUSAGE, "--clock=%s: must be one of time|insns", optarg);
			x.clock = strcmp(optarg, "insns") ? BP_CLOCK_TIME : BP_CLOCK_INSNS;
			break;
		case OPT_MIN_US:
			err = parse_min(optarg, &x.min);
			if (err)
				return err;
			has_min = true;
			break;
		case OPT_OFF_CPU:
			waits = true;
			break;
		case 'h':
			fputs(help, stdout);
			return NULL;
		default:
			err = bp_foreign_option(&foreign, c, optarg, &taken);
			if (err || !taken)
				return err ? err
					   : bp_err_new(BP_EUSAGE, "wrong usage; --help lists the options");
		}
	}
	if (optind < argc)
		return bp_err_new(BP_EUSAGE, "unexpected argument \"%s\"; a recording is named with -i",
				  argv[optind]);
	if (!format)
		return bp_err_new(BP_EUSAGE, "--format=folded|perfetto|chrome|speedscope is missing");
	if (has_min && !format->slices)
		return bp_err_new(BP_EUSAGE, "--min-us has no meaning with --format=%s", format->name);
	if (waits && format != &formats[0])
		return bp_err_new(BP_EUSAGE, "--off-cpu belongs to --format=folded");
	if (waits && x.clock == BP_CLOCK_INSNS)
		return bp_err_new(BP_EUSAGE,
				  "--off-cpu has no instructions: who is off the CPU executes none");
	if (waits)
		format = &off_cpu;
	if (output && !strcmp(output, "-"))
		output = NULL;
	if (format->binary && !output && isatty(STDOUT_FILENO))
		return bp_err_new(BP_EUSAGE, "--format=%s is not for a terminal; name a file with -o",
				  format->name);
	err = bp_input_open_with(input, &foreign, &trace);
	if (err)
		return err;
	bp_input_warn("export", trace);
	x.trace = trace;
	x.funcs = bp_trace_funcs(trace, &x.n_funcs);
	x.facts = bp_trace_facts(trace, &x.n_facts);
	err = export(&x, format, output);
	bp_strbuf_deinit(&x.out);
	free(x.tasks);
	return err;
}

const struct bp_cmd bp_cmd_export = {
    .name = "export",
    .summary = "write a recording for flame graphs, Perfetto, Chrome or speedscope",
    .run = run,
};
