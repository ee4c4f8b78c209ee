// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * trace.dat: files made here (both byte orders, packings, truncation at every byte, hostile descriptions),
 * and every file of the corpus against totals counted by other means.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/cmd.h"
#include "collectors/ftrace/tracedat.h"
#include "collectors/ftrace/tracedat_file.h"
#include "core/trace.h"
#include "tests/unit/tracedat_make.h"

static char dir[] = "/tmp/bp-tracedat-XXXXXX";
static char out[64], old[80];
static char *facts;
static const char *corpus;

static void ok(struct bp_err *err)
{
	if (err) {
		print_error("%s\n", bp_err_text(err));
		bp_err_free(err);
		fail();
	}
}

/* ---- importing ---- */

static int as_file(const struct bytes *b)
{
	int fd = memfd_create("trace.dat", 0);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, b->data, b->len), (ssize_t)b->len);
	return fd;
}

static struct bp_source *open_fd(int fd)
{
	struct bp_source *s = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ok(bp_source_open(path, &s));
	return s;
}

/* Imports into `out`; NULL or the error of the importer. */
static struct bp_err *import(struct bp_source *const *src, size_t n, struct bp_import_stats *stats)
{
	struct bp_trace_writer *w = NULL;
	struct bp_builder *b = NULL;
	struct bp_import im;
	struct bp_err *err;

	memset(stats, 0, sizeof(*stats));
	unlink(out);
	ok(bp_trace_writer_create(out, 0, &w));
	ok(bp_builder_create(w, &b));
	im = (struct bp_import){.source = src[0], .builder = b, .stats = stats};
	err = n > 1 ? bp_trace_dat_join(&im, src + 1, n - 1) : bp_import_trace_dat.run(&im);
	ok(bp_builder_finish(b, "exit"));
	bp_builder_destroy(b);
	ok(bp_trace_writer_close(w));
	return err;
}

static struct bp_err *import_bytes(const struct bytes *b, struct bp_import_stats *stats)
{
	int fd = as_file(b);
	struct bp_source *s = open_fd(fd);
	struct bp_err *err = import(&s, 1, stats);

	bp_source_close(s);
	close(fd);
	return err;
}

/* What is in the recording, as text: one line for each event, "NAME" or "-N" for returns, with the time of
 * the CPU. */
struct told {
	char text[8192];
	size_t len;
	uint64_t calls, losses, syscalls;
};

static void tell(struct told *t, const char *fmt, ...) BP_PRINTF(2, 3);

static void tell(struct told *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->text + t->len, sizeof(t->text) - t->len, fmt, ap);
	va_end(ap);
	if (n > 0 && t->len + (size_t)n < sizeof(t->text))
		t->len += (size_t)n;
}

static struct told recording(void)
{
	struct bp_trace *trace = NULL;
	struct bp_decoder *d = NULL;
	struct told t = {.len = 0};
	const struct bp_func *funcs;
	size_t n_funcs;

	ok(bp_trace_open(out, &trace));
	ok(bp_decoder_create(&d));
	funcs = bp_trace_funcs(trace, &n_funcs);
	for (size_t i = 0; i < bp_trace_n_blocks(trace); i++) {
		struct bp_block b;
		uint64_t now = 0;

		ok(bp_decoder_read(d, trace, i, &b));
		for (size_t k = 0; k < b.n_events; k++) {
			const struct bp_event *e = &b.events[k];

			now += e->dt;
			switch (e->kind) {
			case BP_EV_RUN:
				now = b.runs[e->arg].time_ns;
				tell(&t, "cpu%u:%u@%llu ", b.runs[e->arg].vcpu, b.runs[e->arg].task,
				     (unsigned long long)now);
				break;
			case BP_EV_CALL:
			case BP_EV_IRQ:
				t.calls++;
				assert_true(e->arg < n_funcs);
				tell(&t, "%s%s@%llu ", e->kind == BP_EV_IRQ ? "!" : "", funcs[e->arg].name,
				     (unsigned long long)now);
				break;
			case BP_EV_RET:
				tell(&t, "-%u@%llu ", e->arg, (unsigned long long)now);
				break;
			case BP_EV_SYSCALL:
				t.syscalls++;
				tell(&t, "sys%u ", e->arg);
				break;
			case BP_EV_LOST:
				t.losses++;
				tell(&t, "lost%u ", e->arg);
				break;
			}
		}
	}
	bp_decoder_destroy(d);
	bp_trace_destroy(trace);
	return t;
}

static void mark_is(const char *s1, const char *s2)
{
	struct bp_trace *trace = NULL;
	const struct bp_fact *f;
	size_t n;
	bool found = false;

	ok(bp_trace_open(out, &trace));
	f = bp_trace_facts(trace, &n);
	for (size_t i = 0; i < n; i++)
		found |= f[i].kind == BP_FACT_MARK && !strcmp(f[i].s1, s1) && !strcmp(f[i].s2, s2);
	bp_trace_destroy(trace);
	assert_true(found);
}

static bool task_at(const struct bp_trace *trace, const char *comm, uint64_t time_ns)
{
	size_t n;
	const struct bp_fact *f = bp_trace_facts(trace, &n);

	for (size_t i = 0; i < n; i++)
		if (f[i].kind == BP_FACT_TASK && !strcmp(f[i].s1, comm) && f[i].time_ns == time_ns)
			return true;
	return false;
}

/* ---- files made here ---- */

static struct pages pages_of(const struct make *m)
{
	return (struct pages){.b = {.be = m->be}, .long_bytes = m->long_bytes};
}

/* A little of everything on two CPUs. */
static struct bytes sample(const struct make *m)
{
	struct pages p[2] = {pages_of(m), pages_of(m)};
	struct bytes b;

	page_open(&p[0], 1000);
	rec_switch(&p[0], 1000, 0, 7, "seven");
	rec_entry(&p[0], 1100, 7, OUTER, 0);
	rec_entry(&p[0], 1200, 7, PROBE, 1);
	rec_exit(&p[0], 1300, 7, PROBE, 1, 1200);
	rec_note(&p[0], 1350, 7, "hello");
	page_commit(&p[0], 0);
	page_open(&p[0], 2000);
	rec_exit(&p[0], 2100, 7, OUTER, 0, 1100);
	/* More than a record's delta holds. */
	rec_switch(&p[0], 3000000000, 7, 8, "eight");
	page_commit(&p[0], 0);
	page_open(&p[1], 1500);
	rec_entry(&p[1], 1500, 9, INNER, 0);
	rec_exit(&p[1], 1600, 9, INNER, 0, 1500);
	page_commit(&p[1], 0);
	b = make_file(m, p, 2);
	free(p[0].b.data);
	free(p[1].b.data);
	return b;
}

static const char sample_told[] =
    "cpu0:1@1000 outer@1100 probe@1200 -1@1300 cpu1:2@1500 inner@1500 -1@1600 cpu0:1@1300 -1@2100 ";

static void test_made(void **state)
{
	static const struct make variants[] = {
	    {.version = 6, .long_bytes = 8},
	    {.version = 6, .long_bytes = 4},
	    {.version = 6, .long_bytes = 8, .be = true},
	    {.version = 7, .long_bytes = 8},
	    {.version = 7, .long_bytes = 8, .packing = MAKE_ZLIB},
	    {.version = 7, .long_bytes = 8, .packing = MAKE_ZSTD},
	    {.version = 7, .long_bytes = 4, .packing = MAKE_ZSTD, .be = true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(variants); i++) {
		struct bytes b = sample(&variants[i]);
		struct bp_import_stats stats;
		struct told t;
		struct bp_trace *trace;
		size_t n;
		const struct bp_func *f;

		assert_true(bp_import_trace_dat.probe(b.data, b.len) == 100);
		ok(import_bytes(&b, &stats));
		assert_int_equal(stats.records, 9);
		assert_int_equal(stats.calls, 3);
		assert_int_equal(stats.skipped, 0);
		assert_int_equal(stats.unnamed, 0);
		assert_false(stats.truncated);
		assert_int_equal(stats.first_bad_offset, UINT64_MAX);
		assert_string_equal(stats.stacks, "from the trace");
		t = recording();
		if (!strstr(t.text, "outer@1100 probe@1200 -1@1300"))
			print_error("%s\nnot like %s\n", t.text, sample_told);
		assert_non_null(strstr(t.text, "outer@1100 probe@1200 -1@1300"));
		assert_non_null(strstr(t.text, "inner@1500 -1@1600"));
		assert_non_null(strstr(t.text, "-1@2100"));
		mark_is("test:note", "text=hello level=7");
		ok(bp_trace_open(out, &trace));
		f = bp_trace_funcs(trace, &n);
		for (size_t k = 0; k < n; k++) {
			if (!strcmp(f[k].name, "outer")) {
				assert_int_equal(f[k].space, BP_SPACE_KERNEL);
				assert_int_equal(f[k].addr, OUTER - MAKE_SLIDE);
			} else if (!strcmp(f[k].name, "probe")) {
				assert_int_equal(f[k].space, BP_SPACE_MODULE);
				assert_string_equal(f[k].module, "some_mod");
			}
		}
		assert_true(task_at(trace, "eight", 3000000000));
		assert_string_equal(bp_trace_info(trace, "clock_time"), "ftrace clock local");
		assert_string_equal(bp_trace_info(trace, "kernel_release"), "6.1.0-test");
		assert_string_equal(bp_trace_info(trace, "kaslr_slide"), "0x2000000");
		bp_trace_destroy(trace);
		free(b.data);
	}
}

static void test_cut_everywhere(void **state)
{
	static const struct make variants[] = {
	    {.version = 6, .long_bytes = 8},
	    {.version = 7, .long_bytes = 8},
	    {.version = 7, .long_bytes = 8, .packing = MAKE_ZSTD},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(variants); i++) {
		struct bytes b = sample(&variants[i]), cut = b;
		uint64_t most = 0;

		/* At every byte where something is; the padding of pages is skipped over. */
		for (cut.len = 0; cut.len <= b.len;
		     cut.len +=
		     cut.len > 64 && cut.len + 61 < b.len && !b.data[cut.len] && !b.data[cut.len - 1] ? 61
												      : 1) {
			struct bp_import_stats stats;
			struct bp_err *err = import_bytes(&cut, &stats);

			if (err)
				assert_true(cut.len < 24 && (bp_err_code(err) == BP_EDATA ||
							     bp_err_code(err) == BP_EUNSUPPORTED));
			bp_err_free(err);
			assert_true(stats.records <= 9);
			/* Only the options behind the events may be missing unnoticed. */
			assert_true(stats.truncated || stats.records == 9 || err || stats.records >= most);
			if (stats.records > most)
				most = stats.records;
		}
		assert_int_equal(most, 9);
		free(b.data);
	}
}

/* The index of a version 7 file is at its end: without it the CPUs are told apart by the time. */
static void test_recovered(void **state)
{
	static const struct make variants[] = {
	    {.version = 7, .long_bytes = 8},
	    {.version = 7, .long_bytes = 8, .packing = MAKE_ZLIB},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(variants); i++) {
		struct bytes b = sample(&variants[i]);
		struct bp_import_stats stats;
		struct told t;

		b.len -= 60;
		ok(import_bytes(&b, &stats));
		assert_true(stats.truncated);
		assert_int_equal(stats.records, 9);
		t = recording();
		assert_non_null(strstr(t.text, "cpu1:"));
		assert_non_null(strstr(t.text, "inner@1500 -1@1600"));
		free(b.data);
	}
}

static void test_losses(void **state)
{
	static const struct make m = {.version = 6, .long_bytes = 8};
	struct pages p = pages_of(&m);
	struct bp_import_stats stats;
	struct bytes b;
	struct told t;

	(void)state;
	page_open(&p, 1000);
	rec_entry(&p, 1100, 7, OUTER, 0);
	page_commit(&p, 0);
	page_open(&p, 2000);
	rec_entry(&p, 2100, 7, INNER, 0);
	page_commit(&p, 3u << 30);
	put_number(&p.b, 42, 8);
	page_open(&p, 3000);
	rec_exit(&p, 3100, 7, OUTER, 0, 1100);
	page_commit(&p, 1u << 31);
	b = make_file(&m, &p, 1);
	ok(import_bytes(&b, &stats));
	assert_int_equal(stats.lost, 42);
	t = recording();
	assert_int_equal(t.losses, 2);
	assert_non_null(strstr(t.text, "outer@1100 lost42 inner@2100 lost0 "));
	free(b.data);
	free(p.b.data);
}

static void test_function_tracer(void **state)
{
	static const struct make m = {.version = 6, .long_bytes = 8};
	struct pages p = pages_of(&m);
	struct bp_import_stats stats;
	struct bytes b;
	struct told t;

	(void)state;
	page_open(&p, 1000);
	rec_function(&p, 1100, 7, 0, OUTER, 0x10);
	rec_function(&p, 1200, 7, 0, INNER, OUTER + 8);
	rec_function(&p, 1300, 7, 8, PROBE, 0x20);
	rec_function(&p, 1400, 7, 0, INNER, OUTER + 16);
	page_commit(&p, 0);
	b = make_file(&m, &p, 1);
	ok(import_bytes(&b, &stats));
	assert_string_equal(stats.stacks, "from the callers in the trace; returns are guessed");
	t = recording();
	assert_non_null(strstr(t.text, "outer@1100 inner@1200 !probe@1300 -1@1400 -1@1400 inner@1400 "));
	free(b.data);
	free(p.b.data);
}

static void test_syscalls(void **state)
{
	static const struct make m = {.version = 6, .long_bytes = 8};
	struct pages p = pages_of(&m);
	struct bp_import_stats stats;
	struct bytes b;
	struct told t;

	(void)state;
	page_open(&p, 1000);
	rec_syscall(&p, 1100, 7, true, 5);
	rec_syscall(&p, 1200, 7, false, 5);
	rec_syscall(&p, 1300, 7, true, 231);
	rec_syscall(&p, 1400, 7, true, 1);
	page_commit(&p, 0);
	b = make_file(&m, &p, 1);
	ok(import_bytes(&b, &stats));
	t = recording();
	assert_int_equal(t.syscalls, 3);
	assert_non_null(strstr(t.text, "sys5 [system call 5]@1100 -1@1200 sys231 [system call 231]@1300 "
				       "-1@1400 sys1 [system call 1]@1400 "));
	free(b.data);
	free(p.b.data);
}

/* The exit of a function that calls no other says when it began. */
static void test_leaf(void **state)
{
	static const struct make m = {.version = 6, .long_bytes = 8};
	struct pages p = pages_of(&m);
	struct bp_import_stats stats;
	struct bytes b;
	struct told t;

	(void)state;
	page_open(&p, 1000);
	rec_entry(&p, 1000, 7, OUTER, 0);
	rec_entry(&p, 1100, 7, INNER, 1);
	rec_exit(&p, 1200, 7, INNER, 1, 1040);
	rec_entry(&p, 1300, 7, INNER, 1);
	rec_exit(&p, 1400, 7, INNER, 1, 900);
	rec_exit(&p, 1500, 7, OUTER, 0, 950);
	page_commit(&p, 0);
	b = make_file(&m, &p, 1);
	ok(import_bytes(&b, &stats));
	t = recording();
	assert_non_null(strstr(t.text, "outer@1000 inner@1040 -1@1200 inner@1300 -1@1400 -1@1500 "));
	free(b.data);
	free(p.b.data);
}

/* What the task that is switched away from does afterwards takes no time of the next one. */
static void test_switch_tail(void **state)
{
	static const struct make m = {.version = 6, .long_bytes = 8};
	struct pages p = pages_of(&m);
	struct bp_import_stats stats;
	struct bytes b;
	struct told t;

	(void)state;
	page_open(&p, 1000);
	rec_entry(&p, 1000, 7, OUTER, 0);
	rec_switch(&p, 1100, 7, 8, "eight");
	rec_entry(&p, 1150, 7, INNER, 1);
	rec_exit(&p, 1160, 7, INNER, 1, 1150);
	rec_switch(&p, 1300, 8, 7, "seven");
	rec_exit(&p, 1400, 7, OUTER, 0, 1000);
	page_commit(&p, 0);
	b = make_file(&m, &p, 1);
	ok(import_bytes(&b, &stats));
	t = recording();
	assert_non_null(strstr(t.text,
			       "cpu0:0@1000 outer@1000 cpu0:1@1100 cpu0:0@1150 inner@1150 cpu0:1@1150 "
			       "cpu0:0@1160 -1@1160 cpu0:1@1160 cpu0:0@1300 -1@1400 "));
	free(b.data);
	free(p.b.data);
}

static void test_join(void **state)
{
	const struct make guest = {
	    .version = 7, .long_bytes = 8, .trace_id = 11, .peer_id = 22, .shift_ns = 50000};
	const struct make host = {
	    .version = 7, .long_bytes = 8, .packing = MAKE_ZSTD, .trace_id = 22, .guest_id = 11};
	const struct make stranger = {.version = 7, .long_bytes = 8, .trace_id = 33};
	struct bytes g = sample(&guest), h = sample(&host), s = sample(&stranger);
	int fds[3] = {as_file(&g), as_file(&h), as_file(&s)};
	struct bp_source *src[3] = {open_fd(fds[0]), open_fd(fds[1]), open_fd(fds[2])};
	struct bp_import_stats stats;
	struct bp_err *err;
	struct bp_trace *trace;
	struct told t;

	(void)state;
	ok(import(src, 2, &stats));
	assert_int_equal(stats.records, 18);
	t = recording();
	assert_non_null(strstr(t.text, "outer@51100 probe@51200 -1@51300"));
	assert_non_null(strstr(t.text, "cpu3:"));
	ok(bp_trace_open(out, &trace));
	assert_non_null(strstr(bp_trace_info(trace, "joined_1"), "CPUs 2 to 3, the host"));
	bp_trace_destroy(trace);
	err = import(src, 3, &stats);
	assert_int_equal(bp_err_code(err), BP_EUSAGE);
	bp_err_free(err);
	for (int i = 0; i < 3; i++) {
		bp_source_close(src[i]);
		close(fds[i]);
	}
	free(g.data);
	free(h.data);
	free(s.data);
}

/* bootprof import FILE FILE */
static void import_command(const int *fds, int n)
{
	char paths[3][32], *argv[8] = {"bootprof import", "-q", "-o", out};
	int status = 0;

	unlink(out);
	for (int i = 0; i < n; i++) {
		snprintf(paths[i], sizeof(paths[i]), "/proc/self/fd/%d", fds[i]);
		argv[4 + i] = paths[i];
	}
	ok(bp_cmd_import.run(4 + n, argv, &status));
	assert_int_equal(status, 0);
}

static void test_join_command(void **state)
{
	const struct make guest = {
	    .version = 7, .long_bytes = 8, .trace_id = 11, .peer_id = 22, .shift_ns = 50000};
	const struct make host = {.version = 7, .long_bytes = 8, .trace_id = 22, .guest_id = 11};
	const struct make stranger = {.version = 7, .long_bytes = 8, .trace_id = 33};
	struct bytes g = sample(&guest), h = sample(&host), s = sample(&stranger);
	int fds[3] = {as_file(&g), as_file(&h), as_file(&s)};
	struct bp_trace *trace;

	(void)state;
	/* Together: the guest's times are the host's. */
	import_command(fds, 2);
	assert_non_null(strstr(recording().text, "outer@51100"));
	ok(bp_trace_open(out, &trace));
	assert_non_null(strstr(bp_trace_info(trace, "joined_1"), "the host"));
	assert_non_null(strstr(bp_trace_info(trace, "import_files"), ", "));
	assert_string_equal(bp_trace_info(trace, "import_records"), "18");
	bp_trace_destroy(trace);
	/* One of them is from elsewhere: side by side, and it is said. */
	import_command(fds, 3);
	assert_null(strstr(recording().text, "outer@51100"));
	ok(bp_trace_open(out, &trace));
	assert_null(bp_trace_info(trace, "joined_1"));
	assert_non_null(strstr(bp_trace_info(trace, "import_notes"), "cannot be compared"));
	assert_string_equal(bp_trace_info(trace, "import_records"), "27");
	bp_trace_destroy(trace);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	free(g.data);
	free(h.data);
	free(s.data);
}

static void test_hostile_formats(void **state)
{
	static const char *const formats[] = {
	    "",
	    "name:",
	    "name: x\nID: 70000\nformat:\n",
	    "name: x\nID: -1\nformat:\n",
	    "name: x\nID: 314\nformat:\n\tfield:long id;\toffset:0;\tsize:8;\tsigned:1;\n",
	    "name: x\nID: 998\nformat:\n\tfield:;\toffset:0;\tsize:8;\tsigned:1;\n",
	    "name: x\nID: 998\nformat:\n\tfield:int a[4294967297];\toffset:0;\tsize:99999999999;\n",
	    "name: x\nID: 998\nformat:\n\tfield:__data_loc char[] a;\toffset:65535;\tsize:4;\n",
	    "name: x\nID: 998\nformat:\n\tfield:int a;\toffset:0\n\tfield\n\tfield:\n",
	    "name: x\nID: 998\nformat:\n\tfield:int ((((((((((;\toffset:1;\tsize:1;\tsigned:1;\n",
	    "name: x\nID: 998\nprint fmt: \"%s\", ((((((((((((((((((((((((((((((((((\n",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(formats); i++) {
		const struct make m = {.version = 6, .long_bytes = 8, .extra_format = formats[i]};
		struct bytes b = sample(&m);
		struct bp_import_stats stats;

		ok(import_bytes(&b, &stats));
		assert_int_equal(stats.records, 9);
		free(b.data);
	}
}

/* Absolute time stamps, records taken back, and records that end behind their page. */
static void test_record_types(void **state)
{
	static const struct make m = {.version = 6, .long_bytes = 8};
	struct pages p = pages_of(&m);
	struct bp_import_stats stats;
	struct bytes b;
	struct told t;

	(void)state;
	page_open(&p, UINT64_C(3) << 59);
	record_head(&p, 31, 5000);
	put_number(&p.b, 0, 4);
	p.ts = (UINT64_C(3) << 59) + 5000;
	record_head(&p, 29, 10);
	put_number(&p.b, 8, 4);
	put_number(&p.b, 0xdeadbeef, 4);
	p.ts += 10;
	rec_entry(&p, p.ts + 90, 7, OUTER, 0);
	record_head(&p, 29, 0);
	page_commit(&p, 0);
	page_open(&p, p.ts);
	record_head(&p, 28, 1);
	page_commit(&p, 0);
	b = make_file(&m, &p, 1);
	ok(import_bytes(&b, &stats));
	assert_int_equal(stats.records, 1);
	assert_non_null(strstr(stats.first_bad, "does not end on its page"));
	assert_true(stats.first_bad_offset >= b.len - MAKE_PAGE);
	t = recording();
	assert_non_null(strstr(t.text, "outer@1729382256910275564 "));
	free(b.data);
	free(p.b.data);
}

/* ---- the corpus ---- */

static bool corpus_path(const char *name, char *path, size_t len)
{
	snprintf(path, len, "%s/%s", corpus, name);
	if (!access(path, R_OK))
		return true;
	snprintf(path, len, "%s/%s.zst", corpus, name);
	return !access(path, R_OK);
}

/* The number behind "key": at or after @p, before @end. */
static uint64_t value(const char *p, const char *end, const char *key)
{
	char quoted[64];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\":", key);
	at = strstr(p, quoted);
	assert_true(at && at < end);
	return strtoull(at + strlen(quoted), NULL, 10);
}

struct counted {
	struct bp_td_stats stats;
	uint32_t by_id[65536];
};

static void count_cpu(struct bp_td_file *f, uint32_t cpu, struct counted *c)
{
	memset(c, 0, sizeof(*c));
	for (uint32_t i = 0; i < f->n_ranges; i++) {
		struct bp_td_stream s;
		bool more = true;

		if (f->ranges[i].cpu != cpu || *f->buffers[f->ranges[i].buffer].name)
			continue;
		ok(bp_td_stream_init(&s, f, &f->ranges[i], 1 << 20, NULL));
		for (;;) {
			ok(bp_td_stream_next(&s, &more));
			if (!more)
				break;
			c->by_id[bp_tep_number(s.data, 2, false, f->big_endian)]++;
		}
		assert_int_equal(s.stats.bad_pages, 0);
		c->stats = s.stats;
		bp_td_stream_deinit(&s);
	}
}

static void check_file(const char *name, const char *entry, const char *entry_end, struct counted *c)
{
	const char *cpus = strstr(entry, "\"raw_events_top_buffer\":"), *p, *end;
	uint64_t events = 0, calls = 0, lost = 0;
	struct bp_source *src = NULL;
	struct bp_td_file *f = NULL;
	struct bp_import_stats stats;
	struct told t;
	char path[512];

	if (!cpus || cpus > entry_end)
		return;
	assert_true(corpus_path(name, path, sizeof(path)));
	ok(bp_source_open(path, &src));
	ok(bp_td_open(src, &f));
	/* One object for each CPU, in each the object of the ids. */
	for (p = strchr(cpus, '{'); p && p < entry_end; p = strchr(end, '{')) {
		const char *ids = strstr(p, "\"by_event_id\":"), *q;
		uint64_t all = 0;

		end = ids ? strchr(ids, '}') : NULL;
		assert_non_null(end);
		count_cpu(f, (uint32_t)value(p, end, "cpu"), c);
		assert_int_equal(c->stats.events, value(p, end, "events"));
		assert_int_equal(c->stats.pages, value(p, end, "pages"));
		assert_int_equal(c->stats.loss_pages, value(p, end, "pages_after_loss"));
		assert_int_equal(c->stats.lost_stored, value(p, end, "lost_stored"));
		assert_int_equal(c->stats.first_ts, value(p, end, "first_ns"));
		assert_int_equal(c->stats.last_ts, value(p, end, "last_ns"));
		events += c->stats.events;
		lost += c->stats.lost_stored;
		for (q = strchr(ids, '{') + 1; q < end;) {
			unsigned long id;
			uint64_t n;

			q = strchr(q, '"');
			if (!q || q > end)
				break;
			id = strtoul(q + 1, NULL, 10);
			q = strchr(q + 1, '"');
			n = strtoull(q + 2, NULL, 10);
			assert_true(id < 65536);
			assert_int_equal(c->by_id[id], n);
			if (id == 11)
				calls += n;
			all += n;
			q++;
		}
		assert_int_equal(all, c->stats.events);
		end++;
		if (strcspn(end, "{]") < strcspn(end, "]"))
			continue;
		break;
	}
	assert_int_equal(f->problem_offset, UINT64_MAX);
	bp_td_close(f);
	bp_source_close(src);

	ok(bp_source_open(path, &src));
	ok(import(&src, 1, &stats));
	bp_source_close(src);
	assert_true(stats.records >= events);
	if (!strstr(name, "instances"))
		assert_int_equal(stats.records, events);
	assert_int_equal(stats.skipped, 0);
	assert_int_equal(stats.lost, lost);
	assert_false(stats.truncated);
	if (calls) {
		assert_int_equal(stats.calls, calls);
		assert_int_equal(stats.unnamed, 0);
	}
	t = recording();
	assert_int_equal(t.calls, stats.calls);
	if (!calls)
		assert_true(stats.calls == t.calls);
}

static void test_corpus(void **state)
{
	const char *p = facts;
	struct counted *c;
	unsigned files = 0;

	(void)state;
	if (!facts) {
		print_message("the corpus is not here (BOOTPROF_CORPUS): skipped\n");
		skip();
	}
	c = malloc(sizeof(*c));
	assert_non_null(c);
	while ((p = strstr(p, "\"tracedat/")) != NULL) {
		const char *end = strchr(p + 1, '"'), *next = strstr(end, "\"tracedat/");
		char name[256];

		snprintf(name, sizeof(name), "%.*s", (int)(end - p - 1), p + 1);
		p = end;
		if (!strstr(name, ".dat"))
			continue;
		check_file(name, end, next ? next : end + strlen(end), c);
		files++;
	}
	free(c);
	assert_true(files >= 11);
}

/* All of the file that is there; the totals are those of the whole file up to the cut. */
static void test_corpus_truncated(void **state)
{
	struct bp_import_stats stats;
	struct bp_source *src = NULL;
	char path[512];

	(void)state;
	if (!facts || !corpus_path("tracedat/truncated-v6.dat", path, sizeof(path)))
		skip();
	ok(bp_source_open(path, &src));
	ok(import(&src, 1, &stats));
	bp_source_close(src);
	assert_true(stats.truncated);
	assert_int_equal(stats.first_bad_offset, 189952);
	/* CPU 0 is whole (452 events); of CPU 1 the first six pages and a half are there. */
	assert_true(stats.records > 452 + 400);
	assert_true(stats.records < 452 + 998);
	assert_int_equal(stats.skipped, 0);
}

/* Version 7, cut at several places (the last: in the index): events, wherever the events begin before the
 * cut. */
static void test_corpus_cut(void **state)
{
	static const char *const names[] = {"tracedat/guest-events-v7-none.dat",
					    "tracedat/guest-events-v7-zstd.dat"};
	static const unsigned whole[] = {610, 1493};

	(void)state;
	if (!facts)
		skip();
	for (size_t i = 0; i < COUNT(names); i++) {
		struct bytes b = {.be = false};
		char path[512];
		uint64_t before = 0;
		FILE *f;

		if (!corpus_path(names[i], path, sizeof(path)))
			skip();
		f = fopen(path, "rb");
		assert_non_null(f);
		b.cap = 1 << 20;
		b.data = malloc(b.cap);
		assert_non_null(b.data);
		b.len = fread(b.data, 1, b.cap, f);
		fclose(f);
		for (unsigned eighths = 1; eighths <= 8; eighths++) {
			struct bytes cut = {.data = b.data, .len = b.len / 8 * eighths - 200};
			struct bp_import_stats stats;

			ok(import_bytes(&cut, &stats));
			if (!stats.truncated)
				print_error("%s cut at %zu of %zu: %llu records, %s\n", names[i], cut.len,
					    b.len, (unsigned long long)stats.records, stats.first_bad);
			assert_true(stats.truncated);
			assert_true(stats.records >= before && stats.records <= whole[i]);
			before = stats.records;
		}
		assert_true(before > whole[i] * 9 / 10);
		free(b.data);
	}
}

static int setup(void **state)
{
	char path[512];
	FILE *f;
	long n;

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(out, sizeof(out), "%s/out", dir);
	snprintf(old, sizeof(old), "%s/out.old", dir);
	corpus = getenv("BOOTPROF_CORPUS");
	if (!corpus || !*corpus)
		corpus = "../shared/corpus";
	snprintf(path, sizeof(path), "%s/facts.json", corpus);
	f = fopen(path, "r");
	if (!f)
		return 0;
	fseek(f, 0, SEEK_END);
	n = ftell(f);
	rewind(f);
	facts = calloc(1, (size_t)n + 1);
	if (!facts || fread(facts, 1, (size_t)n, f) != (size_t)n)
		return -1;
	fclose(f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(out);
	unlink(old);
	rmdir(dir);
	free(facts);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_made),
	    cmocka_unit_test(test_recovered),
	    cmocka_unit_test(test_losses),
	    cmocka_unit_test(test_function_tracer),
	    cmocka_unit_test(test_syscalls),
	    cmocka_unit_test(test_switch_tail),
	    cmocka_unit_test(test_leaf),
	    cmocka_unit_test(test_join),
	    cmocka_unit_test(test_join_command),
	    cmocka_unit_test(test_hostile_formats),
	    cmocka_unit_test(test_record_types),
	    cmocka_unit_test(test_cut_everywhere),
	    cmocka_unit_test(test_corpus),
	    cmocka_unit_test(test_corpus_truncated),
	    cmocka_unit_test(test_corpus_cut),
	};

	return cmocka_run_group_tests_name("tracedat", tests, setup, teardown);
}
