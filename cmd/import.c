// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE /* memmem() */
#include "cmd/import.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/import_host.h"
#include "collectors/ftrace/tracedat.h"
#include "collectors/import.h"
#include "collectors/sched.h"
#include "core/builder.h"
#include "core/cleanup.h"
#include "core/source.h"
#include "core/strbuf.h"
#include "core/version.h"
#include "symbols/syscalls.h"

static const char help[] =
    "Usage: bootprof import FILE... [-o OUT] [OPTION]...\n"
    "Make a recording from traces of QEMU or ftrace that were made without bootprof.\n"
    "\n"
    "  -o, --output OUT         the recording to write (default " BP_DEFAULT_FILE ")\n"
    "      --format=FORMAT      auto (the default), or one of those below\n"
    "      --vmlinux FILE       kernel of the guest, for names: vmlinux or bzImage (vmlinuz)\n"
    "      --kallsyms FILE      names from a System.map or a copy of /proc/kallsyms\n"
    "      --modules FILE       where modules were: a copy of /proc/modules\n"
    "      --module-dir DIR     .ko files of these modules, as in /lib/modules/RELEASE\n"
    "      --kaslr=SLIDE        auto (the default), or by how much KASLR moved the kernel: 0x1e000000\n"
    "      --maps FILE          copy of QEMU's /proc/PID/maps, to name its locks in a trace of the host\n"
    "      --qemu BINARY        QEMU's binary (default: as in --maps)\n"
    "  -q, --quiet              no progress, no summary, no notes\n"
    "  -h, --help               show this help\n"
    "\n"
    "FILE may be packed by gzip, xz or zstd, and - is standard input. Formats:\n";

enum { OPT_FORMAT = 256, OPT_MAPS, OPT_QEMU };

static const struct option options[] = {
    {"output", required_argument, NULL, 'o'},
    {"format", required_argument, NULL, OPT_FORMAT},
    {"maps", required_argument, NULL, OPT_MAPS},
    {"qemu", required_argument, NULL, OPT_QEMU},
    BP_FOREIGN_OPTIONS,
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* How much of a trace is looked at for the KASLR slide before it is read. */
#define WINDOWS 64
#define WINDOW_BYTES (64u << 10)
#define PRESCAN_BYTES (64u << 20)

#define PROBE_BYTES (64u << 10)

/* An import under way. */
struct job {
	const struct bp_import_options *o;
	const char *out; /* created when the first file is known to be a trace */
	struct bp_trace_writer *writer;
	struct bp_builder *builder;
	struct bp_sched *sched;
	struct bp_foreign *foreign;
	struct bp_import_names names;
	bool slide_set;
	struct bp_foreign_fit fit;
	struct bp_import_stats stats; /* of all files */
	struct bp_source *source;
	const struct bp_importer *importer;
	struct bp_strbuf files, formats, notes;
	bool on_terminal, shown, stopped;
	bool apart; /* files that do not belong together */
	struct timespec begun, last_shown;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static void source_closep(struct bp_source **s)
{
	bp_source_close(*s);
}

static void job_deinit(struct job *j)
{
	bp_sched_destroy(j->sched);
	bp_builder_destroy(j->builder);
	bp_trace_writer_destroy(j->writer);
	bp_foreign_destroy(j->foreign);
	bp_source_close(j->source);
	bp_strbuf_deinit(&j->files);
	bp_strbuf_deinit(&j->formats);
	bp_strbuf_deinit(&j->notes);
}

/* ---- notes and progress ---- */

static double since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

static void clear_progress(struct job *j)
{
	if (j->shown)
		fputs("\r\033[K", stderr);
	j->shown = false;
}

static void note(struct job *j, const char *fmt, ...) BP_PRINTF(2, 3);
static void note(struct job *j, const char *fmt, ...)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf safe = BP_STRBUF_INIT;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	bp_strbuf_add_term(&safe, text, strlen(text));
	if (j->notes.len)
		bp_strbuf_adds(&j->notes, "; ");
	bp_strbuf_adds(&j->notes, bp_strbuf_str(&safe));
	clear_progress(j);
	if (j->o->command)
		fprintf(stderr, "bootprof%s%s: note: %s\n", *j->o->command ? " " : "", j->o->command,
			bp_strbuf_str(&safe));
}

static bool progress(void *self)
{
	struct job *j = self;
	uint64_t size, done;

	if (interrupted) {
		j->stopped = true;
		return false;
	}
	if (!j->on_terminal || since(&j->last_shown) < 0.2)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &j->last_shown);
	size = bp_source_size(j->source);
	done = bp_source_consumed(j->source);
	if (size)
		fprintf(stderr, "\r\033[Kimporting: %" PRIu64 " %%, %" PRIu64 " MB", done * 100 / size,
			done >> 20);
	else
		fprintf(stderr, "\r\033[Kimporting: %" PRIu64 " MB", done >> 20);
	j->shown = true;
	return true;
}

/* ---- names ---- */

static bool find_name(void *self, uint64_t addr, const char **name, const char **module, uint64_t *start)
{
	struct job *j = self;
	bool found = bp_foreign_find(j->foreign, addr, name, module, start);

	if (!j->slide_set && found) {
		uint64_t slide;

		if (bp_foreign_slide(j->foreign, &slide)) {
			bp_builder_set_slide(j->builder, slide);
			j->slide_set = true;
		}
	}
	return found;
}

static bool read_code(void *self, uint64_t addr, void *dst, size_t len)
{
	struct job *j = self;

	return bp_foreign_code(j->foreign, addr, dst, len);
}

/* Addresses written as 16 digits, as QEMU writes them. */
static void sample_text(struct bp_foreign *f, const uint8_t *data, size_t len)
{
	const uint8_t *p = data, *end = data + len;

	while (end - p >= 16 && (p = memmem(p, (size_t)(end - p), "ffffffff", 8)) && end - p >= 16) {
		uint64_t v = 0xffffffff;
		int i;

		for (i = 8; i < 16; i++) {
			int d = p[i] >= '0' && p[i] <= '9'   ? p[i] - '0'
				: p[i] >= 'a' && p[i] <= 'f' ? p[i] - 'a' + 10
							     : -1;

			if (d < 0)
				break;
			v = v << 4 | (uint64_t)d;
		}
		if (i == 16)
			bp_foreign_sample(f, &v, 1);
		p += i;
	}
}

/* Words of 8 bytes at any place. */
static void sample_binary(struct bp_foreign *f, const uint8_t *data, size_t len, bool big_endian)
{
	const uint8_t *p = data, *end = data + len;

	while (end - p >= 4 && (p = memmem(p, (size_t)(end - p), "\xff\xff\xff\xff", 4))) {
		uint64_t v = 0xffffffff;

		if (big_endian && end - p >= 8) {
			for (int i = 4; i < 8; i++)
				v = v << 8 | p[i];
			bp_foreign_sample(f, &v, 1);
		} else if (!big_endian && p - data >= 4) {
			for (int i = 1; i <= 4; i++)
				v = v << 8 | p[-i];
			bp_foreign_sample(f, &v, 1);
		}
		p += 4;
	}
}

static void sample_some(struct job *j, const uint8_t *data, size_t len, bool big_endian)
{
	if (strcmp(j->importer->name, "simpletrace") != 0)
		sample_text(j->foreign, data, len);
	else
		sample_binary(j->foreign, data, len, big_endian);
}

/* Looks for addresses of the kernel all over the file, as far as that can be done without reading all of it.
 */
static BP_MUST_CHECK struct bp_err *sample(struct job *j, const char *path)
{
	bp_cleanup(source_closep) struct bp_source *again = NULL;
	bp_autofree uint8_t *window = NULL;
	const uint8_t *data;
	bool big_endian;
	uint64_t size = bp_source_size(j->source);
	struct bp_err *err;
	size_t len;
	int fd;

	err = bp_source_peek(j->source, 1 << 20, &data, &len);
	if (err)
		return err;
	/* The magic number of simpletrace follows 8 bytes that are all ones. */
	big_endian = len >= 16 && data[8] == 0xf2;
	sample_some(j, data, len, big_endian);
	if (bp_source_is_file(j->source, &fd)) {
		window = malloc(WINDOW_BYTES);
		if (!window)
			return bp_err_nomem();
		for (uint64_t i = 1; i < WINDOWS; i++) {
			ssize_t n = pread(fd, window, WINDOW_BYTES, (off_t)(size / WINDOWS * i));

			if (n > 0)
				sample_some(j, window, (size_t)n, big_endian);
		}
	} else if (size && strcmp(path, "-") != 0) {
		/* Packed: the beginning again, further than can be peeked at. */
		err = bp_source_open(path, &again);
		while (!err && bp_source_offset(again) < PRESCAN_BYTES) {
			err = bp_source_next_lines(again, (const char **)&data, &len);
			if (err || !len)
				break;
			sample_some(j, data, len, big_endian);
		}
		/* What is wrong with it is said when it is read. */
		bp_err_ignore(err);
	}
	bp_foreign_settle(j->foreign, &j->fit);
	return NULL;
}

/* ---- one file ---- */

static void list_formats(struct bp_strbuf *sb)
{
	for (size_t i = 0; bp_importers[i]; i++)
		bp_strbuf_addf(sb, "%s%s", i ? ", " : "", bp_importers[i]->name);
}

/* What people have at hand, and which other form of it is read. */
static const char *near_miss(const char *text, size_t len)
{
	static const struct {
		const char *at_start, *inside, *say;
	} forms[] = {
	    {"PERFILE2", NULL, "a perf.data file: the text of `perf script -i FILE` is read"},
	    {"2ELIFREP", NULL, "a perf.data file: the text of `perf script -i FILE` is read"},
	    {NULL, "sch delay",
	     "a table of perf sched: the text of `perf script` of the same perf.data is read"},
	    {NULL,
	     " ms): ", "the output of perf trace: the text of `perf script` after `perf record` is read"},
	    {"# To display the perf.data header", NULL,
	     "the output of perf report: the text of `perf script` is read"},
	    {"# started on ", NULL,
	     "the output of perf stat has no events: the text of `perf script` after `perf record` is read"},
	};

	for (size_t i = 0; i < BP_ARRAY_SIZE(forms); i++) {
		const char *s = forms[i].at_start, *in = forms[i].inside;

		if (s && len >= strlen(s) && !memcmp(text, s, strlen(s)))
			return forms[i].say;
		if (in && memmem(text, len, in, strlen(in)))
			return forms[i].say;
	}
	return NULL;
}

static BP_MUST_CHECK struct bp_err *choose(struct job *j, const char *format)
{
	const uint8_t *data;
	struct bp_err *err;
	int best = 0;
	size_t len;

	j->importer = NULL;
	for (size_t i = 0; format && bp_importers[i]; i++)
		if (!strcmp(bp_importers[i]->name, format))
			j->importer = bp_importers[i];
	if (j->importer)
		return NULL;
	err = bp_source_peek(j->source, PROBE_BYTES, &data, &len);
	if (err)
		return err;
	for (size_t i = 0; bp_importers[i]; i++) {
		int sure = bp_importers[i]->probe(data, len < PROBE_BYTES ? len : PROBE_BYTES);

		if (sure > best) {
			best = sure;
			j->importer = bp_importers[i];
		}
	}
	if (!j->importer) {
		const char *miss = near_miss((const char *)data, len < PROBE_BYTES ? len : PROBE_BYTES);

		return bp_err_data(
		    bp_source_path(j->source), 0, "%s",
		    !len   ? "the file is empty, neither a recording nor a trace"
		    : miss ? miss
			   : "neither a recording of bootprof nor a trace that bootprof import reads");
	}
	return NULL;
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void add_stats(struct job *j, const struct bp_import_stats *s)
{
	struct bp_import_stats *t = &j->stats;

	t->records = add(t->records, s->records);
	t->calls = add(t->calls, s->calls);
	t->skipped = add(t->skipped, s->skipped);
	t->lost = add(t->lost, s->lost);
	t->unnamed = add(t->unnamed, s->unnamed);
	t->addresses = add(t->addresses, s->addresses);
	t->truncated |= s->truncated;
	if (s->stacks[0])
		memcpy(t->stacks, s->stacks, sizeof(t->stacks));
}

static void note_file(struct job *j, const char *path, const struct bp_import_stats *s)
{
	if (s->skipped && s->first_bad_offset != UINT64_MAX)
		note(j,
		     "%s: %" PRIu64 " of %" PRIu64
		     " records or lines were not understood, the first at offset %" PRIu64 "%s%.*s",
		     path, s->skipped, add(s->records, s->skipped), s->first_bad_offset,
		     s->first_bad[0] ? ": " : "", (int)sizeof(s->first_bad), s->first_bad);
	else if (s->skipped)
		note(j, "%s: %" PRIu64 " of %" PRIu64 " records or lines were not understood", path,
		     s->skipped, add(s->records, s->skipped));
	if (s->lost)
		note(j, "%s: the trace says that %" PRIu64 " events were lost when it was made", path,
		     s->lost);
	if (s->truncated)
		note(j, "%s: ends in the middle of something", path);
}

/* Whether the file is to be joined with others of its kind. Standard input cannot be looked at twice. */
static bool is_trace_dat(struct job *j, const char *path)
{
	bp_cleanup(source_closep) struct bp_source *s = NULL;
	const uint8_t *data;
	struct bp_err *err;
	size_t len = 0;

	if (!strcmp(path, "-") || (j->o->format && strcmp(j->o->format, bp_import_trace_dat.name) != 0))
		return false;
	err = bp_source_open(path, &s);
	if (!err)
		err = bp_source_peek(s, PROBE_BYTES, &data, &len);
	if (err) {
		/* Said when it is read. */
		bp_err_ignore(err);
		return false;
	}
	return bp_import_trace_dat.probe(data, len) > 0;
}

/* Traces of a guest and its host, on one clock; *@joined false when they do not belong together. */
static BP_MUST_CHECK struct bp_err *run_joined(struct job *j, struct bp_import *im, const char *const *more,
					       size_t n, bool *joined)
{
	struct bp_source *sources[BP_TRACE_DAT_JOIN] = {0};
	struct bp_err *err = NULL;

	*joined = true;
	for (size_t i = 0; i < n && i < BP_ARRAY_SIZE(sources) && !err; i++)
		err = bp_source_open(more[i], &sources[i]);
	if (!err)
		err = bp_trace_dat_join(im, sources, n);
	for (size_t i = 0; i < n && i < BP_ARRAY_SIZE(sources); i++)
		bp_source_close(sources[i]);
	if (err && bp_err_code(err) == BP_EUSAGE) {
		*joined = false;
		note(j, "%s; times of different files cannot be compared", bp_err_text(err));
		bp_err_free(err);
		err = NULL;
	}
	return err;
}

/* One file, or several that may belong together: *@done is how many were read. */
static BP_MUST_CHECK struct bp_err *import_some(struct job *j, const char *const *paths, size_t n,
						size_t *done)
{
	const char *path = paths[0];
	struct bp_import_stats stats = {.first_bad_offset = UINT64_MAX};
	struct bp_import im;
	struct bp_err *err = bp_source_open(path, &j->source);

	if (!err)
		err = choose(j, j->o->format);
	if (!err && j->foreign && bp_foreign_has_names(j->foreign))
		err = sample(j, path);
	if (!err && !j->writer)
		err = bp_trace_writer_create(j->out, 0, &j->writer);
	if (!err)
		err = j->builder ? bp_builder_next_source(j->builder)
				 : bp_builder_create(j->writer, &j->builder);
	if (!err && !j->sched)
		err = bp_sched_create(j->builder, &j->sched);
	if (err)
		return err;
	im = (struct bp_import){
	    .source = j->source,
	    .builder = j->builder,
	    .sched = j->sched,
	    .names = &j->names,
	    .stats = &stats,
	    .progress = progress,
	    .progress_self = j,
	};
	*done = 1;
	if (n > 1) {
		bool joined;

		err = run_joined(j, &im, paths + 1, n - 1, &joined);
		if (!err && !joined) {
			/* From its beginning again. */
			bp_source_close(j->source);
			j->source = NULL;
			err = bp_source_open(path, &j->source);
			im.source = j->source;
		}
		if (!err && joined)
			*done = n;
	}
	if (!err && *done == 1)
		err = j->importer->run(&im);
	if (!err || bp_err_code(err) == BP_EDATA || bp_err_code(err) == BP_ESTOPPED) {
		struct bp_err *rest = bp_sched_flush(j->sched);

		if (err)
			bp_err_ignore(rest);
		else
			err = rest;
	}
	clear_progress(j);
	path = bp_source_path(j->source);
	if (err && bp_err_code(err) == BP_ESTOPPED && j->stopped) {
		bp_err_ignore(err);
		err = NULL;
	}
	if (err && bp_err_code(err) == BP_EDATA && stats.records) {
		/* What came before it is valid. */
		note(j, "%s; what comes before it was taken", bp_err_text(err));
		bp_err_free(err);
		err = NULL;
	}
	if (err)
		return err;
	if (!stats.records && !stats.truncated)
		return bp_err_data(path, stats.first_bad_offset == UINT64_MAX ? 0 : stats.first_bad_offset,
				   "no record of format %s in it%s%s", j->importer->name,
				   stats.first_bad[0] ? ": " : "", stats.first_bad);
	note_file(j, path, &stats);
	add_stats(j, &stats);
	bp_strbuf_addf(&j->files, "%s%s", j->files.len ? ", " : "", path);
	for (size_t i = 1; i < *done; i++)
		bp_strbuf_addf(&j->files, ", %s", paths[i]);
	if (!strstr(bp_strbuf_str(&j->formats), j->importer->name))
		bp_strbuf_addf(&j->formats, "%s%s", j->formats.len ? ", " : "", j->importer->name);
	bp_source_close(j->source);
	j->source = NULL;
	return NULL;
}

/* ---- what is noted in the recording ---- */

static BP_MUST_CHECK struct bp_err *info(struct job *j, const char *key, const char *fmt, ...)
    BP_PRINTF(3, 4);
static struct bp_err *info(struct job *j, const char *key, const char *fmt, ...)
{
	char text[4096];
	struct bp_fact f = {.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = key, .s2 = text};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return text[0] ? bp_builder_fact(j->builder, &f) : NULL;
}

/* Why addresses have no names, the most frequent reason first. */
static void why_unnamed(const struct job *j, struct bp_strbuf *sb)
{
	const struct bp_foreign_misses *m;

	if (!j->foreign || !bp_foreign_has_names(j->foreign)) {
		bp_strbuf_adds(sb, "no kernel was given (--vmlinux or --kallsyms)");
		return;
	}
	m = bp_foreign_misses(j->foreign);
	if (!j->fit.known) {
		bp_strbuf_adds(sb, "no KASLR slide was found with which this kernel fits the trace");
		return;
	}
	if (m->modules)
		bp_strbuf_addf(sb,
			       "%s%" PRIu64 " are in modules, whose names --kallsyms gives, or --modules "
			       "and --module-dir",
			       sb->len ? ", " : "", m->modules);
	if (m->other)
		bp_strbuf_addf(sb, "%s%" PRIu64 " are in no function of the kernel", sb->len ? ", " : "",
			       m->other);
	if (m->early)
		bp_strbuf_addf(sb, "%s%" PRIu64 " came before the KASLR slide was known", sb->len ? ", " : "",
			       m->early);
	if (m->low || !sb->len)
		bp_strbuf_addf(sb, "%sthe others are in user space, firmware or early boot code",
			       sb->len ? ", " : "");
}

static void note_names(struct job *j)
{
	const struct bp_foreign_fit *fit = &j->fit;
	const struct bp_import_stats *s = &j->stats;

	if (j->foreign && bp_foreign_has_names(j->foreign) && fit->sample) {
		if (!fit->known)
			note(j,
			     "no KASLR slide fits: with the best one (0x%" PRIx64
			     ") %zu of %zu sampled addresses are "
			     "starts of functions, with the second best %zu; is this the guest's kernel?",
			     fit->slide, fit->on_start, fit->sample, fit->second_on_start);
		else if (!fit->sure)
			note(j,
			     "the KASLR slide 0x%" PRIx64
			     " is not sure: with it %zu of %zu sampled addresses are starts "
			     "of functions, with 0x%" PRIx64 " %zu",
			     fit->slide, fit->on_start, fit->sample, fit->second, fit->second_on_start);
	}
	if (j->foreign && bp_foreign_other_modules(j->foreign))
		note(j, "%" PRIu64 " modules in %s are of another kernel, and were not taken",
		     bp_foreign_other_modules(j->foreign), j->o->names.module_dir);
	if (s->addresses && s->unnamed) {
		bp_cleanup(bp_strbuf_deinit) struct bp_strbuf why = BP_STRBUF_INIT;

		why_unnamed(j, &why);
		if (s->unnamed == s->addresses)
			note(j, "no address has a name: %s", bp_strbuf_str(&why));
		else
			note(j, "%.1f %% of addresses have no name: %s",
			     100.0 * (double)s->unnamed / (double)s->addresses, bp_strbuf_str(&why));
	}
	if (bp_builder_clamped(j->builder))
		note(j, "time went back %" PRIu64 " times on a CPU; it was taken as standing still",
		     bp_builder_clamped(j->builder));
	if (j->stopped)
		note(j, "interrupted: only the beginning was read");
}

static BP_MUST_CHECK struct bp_err *write_infos(struct job *j)
{
	const struct bp_import_stats *s = &j->stats;
	struct bp_err *err = info(j, "bootprof_version", "%s", BOOTPROF_VERSION);

	if (!err)
		err = info(j, "import_files", "%s", bp_strbuf_str(&j->files));
	if (!err)
		err = info(j, "import_format", "%s", bp_strbuf_str(&j->formats));
	if (!err)
		err = info(j, "import_records", "%" PRIu64, s->records);
	if (!err && s->skipped)
		err = info(j, "import_skipped", "%" PRIu64, s->skipped);
	if (!err)
		err = info(j, "import_stacks", "%.*s", (int)sizeof(s->stacks), s->stacks);
	if (!err && s->addresses)
		err = info(j, "import_unnamed", "%" PRIu64 " of %" PRIu64, s->unnamed, s->addresses);
	if (!err && j->foreign) {
		err = info(j, "names_from", "%s", bp_foreign_names_from(j->foreign));
		if (!err)
			err = info(j, "kernel_release", "%s", bp_foreign_release(j->foreign));
		if (!err)
			err = info(j, "kernel_build_id", "%s", bp_foreign_build_id(j->foreign));
		if (!err && j->o->names.vmlinux)
			err = info(j, "kernel_image", "%s", j->o->names.vmlinux);
		if (!err && j->fit.known)
			err = info(j, "kaslr_slide", "0x%" PRIx64, j->fit.slide);
		if (!err && j->fit.sample)
			err = info(j, "kaslr_fit",
				   "%s: %zu of %zu sampled addresses are starts of functions, %zu with the "
				   "second best slide",
				   j->fit.sure ? "sure" : "not sure", j->fit.on_start, j->fit.sample,
				   j->fit.second_on_start);
	}
	if (!err)
		err = info(j, "import_notes", "%s", bp_strbuf_str(&j->notes));
	return err;
}

/* ---- all of it ---- */

static BP_MUST_CHECK struct bp_err *prepare(struct job *j)
{
	const struct bp_foreign_options *n = &j->o->names;

	clock_gettime(CLOCK_MONOTONIC, &j->begun);
	j->on_terminal = j->o->command && isatty(STDERR_FILENO);
	j->names.self = j;
	j->names.syscall = bp_syscall_x86_64_handler;
	if (n->vmlinux || n->kallsyms || n->modules || n->module_dir) {
		struct bp_err *err = bp_foreign_create(n, &j->foreign);

		if (err)
			return err;
		j->names.find = find_name;
		j->names.code = bp_foreign_has_code(j->foreign) ? read_code : NULL;
	}
	return NULL;
}

static BP_MUST_CHECK struct bp_err *host_names(struct job *j)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf said = BP_STRBUF_INIT;
	struct bp_err *err = bp_import_host_names(j->sched, j->builder, j->o->maps, j->o->qemu, &said);

	if (said.len)
		note(j, "%s", bp_strbuf_str(&said));
	return err ? err : bp_sched_flush(j->sched);
}

static BP_MUST_CHECK struct bp_err *convert(struct job *j, const char *const *paths, size_t n)
{
	struct bp_err *err = NULL;

	for (size_t i = 0, done; i < n && !err && !j->stopped; i += done) {
		size_t dats = 0;

		while (n > 1 && i + dats < n && is_trace_dat(j, paths[i + dats]) && !j->apart)
			dats++;
		done = 1;
		err = import_some(j, paths + i, dats ? dats : 1, &done);
		j->apart = done < dats;
	}
	if (err)
		return err;
	if (j->foreign)
		bp_foreign_settle(j->foreign, &j->fit);
	note_names(j);
	err = host_names(j);
	if (!err)
		err = write_infos(j);
	if (!err)
		err = bp_builder_finish(j->builder, j->stopped ? "interrupt" : "end of trace");
	if (!err)
		err = bp_trace_writer_close(bp_steal(j->writer));
	return err;
}

/* Begins a recording that has no name any more when this returns; @fd reads it. */
static BP_MUST_CHECK struct bp_err *create_unnamed(struct bp_trace_writer **ret, int *fd)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf dir = BP_STRBUF_INIT, out = BP_STRBUF_INIT;
	const char *tmp = getenv("TMPDIR");
	struct bp_err *err;

	bp_strbuf_addf(&dir, "%s/bootprof-import.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	err = bp_strbuf_ok(&dir);
	if (err)
		return err;
	if (!mkdtemp(dir.data))
		return bp_err_os(errno, "%s: cannot create", dir.data);
	bp_strbuf_addf(&out, "%s/recording", dir.data);
	err = bp_strbuf_ok(&out);
	if (!err)
		err = bp_trace_writer_create(out.data, 0, ret);
	if (!err) {
		*fd = open(out.data, O_RDONLY | O_CLOEXEC);
		if (*fd < 0)
			err = bp_err_os(errno, "%s: cannot open", out.data);
		unlink(out.data);
	}
	rmdir(dir.data);
	return err;
}

struct bp_err *bp_import_open(const char *path, const struct bp_import_options *o, struct bp_trace **ret)
{
	bp_cleanup(job_deinit) struct job j = {.o = o};
	bp_autoclose int fd = -1;
	struct bp_trace *t = NULL;
	struct bp_err *err;
	char self[64];

	err = prepare(&j);
	if (!err)
		err = create_unnamed(&j.writer, &fd);
	if (!err)
		err = convert(&j, &path, 1);
	if (err)
		return err;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	err = bp_trace_open(self, &t);
	if (!err)
		err = bp_trace_set_path(t, strcmp(path, "-") ? path : "(standard input)");
	if (err) {
		bp_trace_destroy(t);
		return err;
	}
	*ret = t;
	return NULL;
}

/* ---- the command ---- */

static void print_help(void)
{
	fputs(help, stdout);
	for (size_t i = 0; bp_importers[i]; i++)
		printf("  %-15s %s\n", bp_importers[i]->name, bp_importers[i]->summary);
}

static BP_MUST_CHECK struct bp_err *set_slide(struct bp_foreign_options *n, const char *arg)
{
	char *end;

	n->slide_given = strcmp(arg, "auto") != 0;
	if (!n->slide_given)
		return NULL;
	errno = 0;
	n->slide = strtoull(arg, &end, 0);
	if (*arg < '0' || *arg > '9' || *end || errno || n->slide % 0x1000 || n->slide >= 1u << 31)
		return bp_err_new(BP_EUSAGE, "--kaslr: '%s' is neither auto nor an offset such as 0x1e000000",
				  arg);
	return NULL;
}

static BP_MUST_CHECK struct bp_err *set_format(struct bp_import_options *o, const char *option,
					       const char *arg)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;

	o->format = NULL;
	if (!strcmp(arg, "auto"))
		return NULL;
	for (size_t i = 0; bp_importers[i]; i++)
		if (!strcmp(arg, bp_importers[i]->name))
			o->format = bp_importers[i]->name;
	if (o->format)
		return NULL;
	list_formats(&sb);
	return bp_err_new(BP_EUSAGE, "--%s: '%s' is none of auto, %s", option, arg, bp_strbuf_str(&sb));
}

struct bp_err *bp_foreign_option(struct bp_import_options *o, int c, const char *arg, bool *taken)
{
	*taken = true;
	switch (c) {
	case BP_OPT_VMLINUX:
		o->names.vmlinux = arg;
		return NULL;
	case BP_OPT_KALLSYMS:
		o->names.kallsyms = arg;
		return NULL;
	case BP_OPT_MODULES:
		o->names.modules = arg;
		return NULL;
	case BP_OPT_MODULE_DIR:
		o->names.module_dir = arg;
		return NULL;
	case BP_OPT_KASLR:
		return set_slide(&o->names, arg);
	case BP_OPT_INPUT_FORMAT:
		return set_format(o, "input-format", arg);
	default:
		*taken = false;
		return NULL;
	}
}

/* The output must not take the place of what is read. */
static BP_MUST_CHECK struct bp_err *check_files(const char *out, char **paths, int n)
{
	struct stat a, b;

	for (int i = 0; i < n; i++)
		if (strcmp(paths[i], "-") != 0 && bp_trace_is_recording(paths[i]))
			return bp_err_new(BP_EUSAGE, "%s is a recording of bootprof already", paths[i]);
	if (stat(out, &a))
		return NULL;
	for (int i = 0; i < n; i++)
		if (strcmp(paths[i], "-") != 0 && !stat(paths[i], &b) && a.st_dev == b.st_dev &&
		    a.st_ino == b.st_ino)
			return bp_err_new(BP_EUSAGE, "%s is both read and written", out);
	return NULL;
}

static void summary(const struct job *j, uint64_t bytes)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	double s = since(&j->begun);

	bp_strbuf_add_term(&sb, j->out, strlen(j->out));
	fprintf(stderr, "bootprof import: %s: %s, %" PRIu64 " records, %" PRIu64 " calls, %.1f MB, %.2f s",
		bp_strbuf_str(&sb), bp_strbuf_str(&j->formats), j->stats.records,
		bp_builder_calls(j->builder), (double)bytes / 1e6, s);
	if (j->stats.stacks[0])
		fprintf(stderr, "; stacks %.*s", (int)sizeof(j->stats.stacks), j->stats.stacks);
	if (j->fit.known)
		fprintf(stderr, "; KASLR slide 0x%" PRIx64 "%s", j->fit.slide,
			j->fit.sure     ? ""
			: j->fit.sample ? " (not sure)"
					: " (not checked)");
	fputc('\n', stderr);
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	struct bp_import_options o = {.command = "import"};
	bp_cleanup(job_deinit) struct job j = {.o = &o, .out = BP_DEFAULT_FILE};
	struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
	struct bp_err *err = NULL;
	struct stat st;
	bool taken;
	int c;

	(void)status;
	optind = 0;
	while (!err && (c = getopt_long(argc, argv, "o:qh", options, NULL)) != -1) {
		switch (c) {
		case 'o':
			j.out = optarg;
			break;
		case OPT_FORMAT:
			err = set_format(&o, "format", optarg);
			break;
		case OPT_MAPS:
			o.maps = optarg;
			break;
		case OPT_QEMU:
			o.qemu = optarg;
			break;
		case 'q':
			o.command = NULL;
			break;
		case 'h':
			print_help();
			return NULL;
		default:
			err = bp_foreign_option(&o, c, optarg, &taken);
			if (!err && !taken)
				err = bp_err_new(BP_EUSAGE, "see bootprof import --help");
		}
	}
	if (!err && o.qemu && !o.maps)
		err = bp_err_new(BP_EUSAGE, "--qemu needs --maps: where the binary was when it was traced");
	if (!err && optind == argc)
		err = bp_err_new(BP_EUSAGE, "no file to import; - is standard input");
	if (!err)
		err = check_files(j.out, argv + optind, argc - optind);
	if (!err)
		err = prepare(&j);
	if (err)
		return err;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	err = convert(&j, (const char *const *)argv + optind, (size_t)(argc - optind));
	if (err) {
		/* Nothing of use in it, and an earlier one may have been moved away for it. */
		if (j.writer)
			unlink(j.out);
		return err;
	}
	if (o.command)
		summary(&j, stat(j.out, &st) ? 0 : (uint64_t)st.st_size);
	return NULL;
}

const struct bp_cmd bp_cmd_import = {
    .name = "import",
    .summary = "make a recording from a trace of QEMU or ftrace",
    .run = run,
};
