// SPDX-License-Identifier: GPL-2.0-or-later
/* The text form: text to recording to text is the same text; bad text is refused with its line. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/trace.h"

static char dir[64], text_path[96], path[96];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static void put_file(const char *text, size_t len)
{
	FILE *f = fopen(text_path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* Owned by the caller. */
static char *dump(const struct bp_trace *t)
{
	char name[96], *text;
	int fd;
	off_t size;

	snprintf(name, sizeof(name), "%s/dump", dir);
	fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	ok(bp_trace_text_write(t, fd));
	size = lseek(fd, 0, SEEK_END);
	text = calloc(1, (size_t)size + 1);
	assert_int_equal(pread(fd, text, (size_t)size, 0), size);
	close(fd);
	return text;
}

static struct bp_trace *make(const char *text)
{
	struct bp_trace *t;

	put_file(text, strlen(text));
	ok(bp_trace_text_read(text_path, path));
	ok(bp_trace_open(path, &t));
	return t;
}

static const char whole[] =
    "bootprof-text 1\n"
    "tick 4\n"
    "func 0 kernel 0xffffffff81000000 \"start_kernel\" \"vmlinux\"\n"
    "func 1 module 0xffffffffc0000012 sym=0xffffffffc0000010 \"f \\\"\\\\\\x0a\\xff\" \"ext4\"\n"
    "func 2 pseudo 0x1 \"[halted]\" \"\"\n"
    "func 3 user 0x1040 \"\" \"/bin/busybox\"\n"
    "fact info \"kernel.version\" \"6.1.0 # not a comment\"\n"
    "fact task time=12 vcpu=1 insns=4 v1=1 v2=1 v3=7 \"init\" \"/init\"\n"
    "fact map time=5 v0=0x7ffff7dd0000 v1=0x7ffff7dd8000 v2=0x1000 v3=3 \"/lib/ld.so\"\n"
    "fact task-parent v0=1 v1=18446744073709551615\n"
    "fact console time=99 \"\" \"stdio\"\n"
    "fact end time=100 v0=1 v1=2 v2=3 \"poweroff\"\n"
    "fold 1 calls=10 self_ns=-9223372036854775808 self_insns=5 total_ns=10 total_insns=11 min_ns=1 max_ns=2\n"
    "block\n"
    "run vcpu=0 task=0 time=1000 insns=0 cpu_ns=0 cpu_insns=0\n"
    " call 0 0 0\n"
    " jump 1 160 20\n"
    " syscall 59 0 0\n"
    " irq 0 32 4294967295\n"
    " tick 0 4294967280 1\n"
    " ret 3 16 9\n"
    " lost 4294967295 0 0\n"
    "run vcpu=1 task=4294967295 time=18446744073709551000 insns=7 cpu_ns=8 cpu_insns=9\n"
    " frame call 0 wall=5 cpu=6 insns=7\n"
    " frame irq 1 wall=6 cpu=7 insns=8\n"
    " ret 2 0 0\n"
    "run vcpu=0 task=0 time=1 insns=2 cpu_ns=3 cpu_insns=4\n"
    " call 3 16 1\n"
    "gap\n"
    "block\n"
    "run vcpu=0 task=0 time=5000 insns=0 cpu_ns=0 cpu_insns=0\n"
    " frame jump 2 wall=1 cpu=2 insns=3\n"
    " ret 1 0 0\n"
    "end\n";

static void test_same_text(void **state)
{
	struct bp_trace *t = make(whole);
	char *text = dump(t);

	(void)state;
	assert_non_null(strstr(text, "# damaged: 0 bad and 1 missing chunks, 0 bytes lost\n"));
	/* That one line is the reader's word, not the file's. */
	{
		char *from = strstr(text, "# damaged"), *to = strchr(from, '\n') + 1;

		memmove(from, to, strlen(to) + 1);
	}
	assert_string_equal(text, whole);
	assert_false(bp_trace_block_gap(t, 0));
	assert_true(bp_trace_block_gap(t, 1));
	assert_false(bp_trace_damage(t)->unfinished);
	assert_string_equal(bp_trace_info(t, "kernel.version"), "6.1.0 # not a comment");
	assert_null(bp_trace_info(t, "nothing"));
	free(text);
	bp_trace_destroy(t);
}

/* What a person writes: defaults, comments, blank lines, no end. */
static void test_short_forms(void **state)
{
	struct bp_trace *t = make("bootprof-text 1 # comment\n\n  # another\n"
				  "func 0 kernel 16 \"a\"   # no module\n"
				  "fact info \"k\" \"1\"\nfact info \"k\" \"2\"\n"
				  "block\nrun\n\tcall 0\n\tret\n\ttick 0 5\r\n");
	char *text = dump(t);

	(void)state;
	assert_string_equal(text, "bootprof-text 1\ntick 0\nfunc 0 kernel 0x10 \"a\" \"\"\n"
				  "fact info \"k\" \"1\"\nfact info \"k\" \"2\"\n"
				  "block\nrun vcpu=0 task=0 time=0 insns=0 cpu_ns=0 cpu_insns=0\n"
				  " call 0 0 0\n ret 1 0 0\n tick 0 5 0\n");
	assert_string_equal(bp_trace_info(t, "k"), "2");
	assert_true(bp_trace_damage(t)->unfinished);
	assert_int_equal(bp_trace_damage(t)->bad_chunks, 0);
	free(text);
	bp_trace_destroy(t);
}

/* Times are rounded down from the start of the run: no error adds up. */
static void test_ticks(void **state)
{
	struct bp_trace *t =
	    make("bootprof-text 1\ntick 4\nfunc 0 kernel 1 \"a\"\nblock\nrun time=1003\n"
		 "call 0 15 1\ncall 0 15 1\ncall 0 15 1\ntick 0 4294967295\ntick 0 4294967295\n"
		 "ret 1 1\nrun time=5\ncall 0 31\nend\n");
	static const uint32_t want[] = {0, 0, 16, 16, 4294967280u, 4294967280u, 32, 0, 16};
	struct bp_decoder *d;
	struct bp_block b;
	uint64_t first, last;

	(void)state;
	ok(bp_decoder_create(&d));
	ok(bp_decoder_read(d, t, 0, &b));
	assert_int_equal(b.n_events, 9);
	for (size_t i = 0; i < 9; i++)
		assert_int_equal(b.events[i].dt, want[i]);
	assert_int_equal(b.runs[0].time_ns, 1003);
	bp_trace_block_range(t, 0, &first, &last);
	assert_int_equal(first, 5);
	assert_int_equal(last, 1003 + 45 + 2 * 4294967295ull + 1);
	bp_decoder_destroy(d);
	bp_trace_destroy(t);
}

static void test_bad_text(void **state)
{
#define FUNC "bootprof-text 1\nfunc 0 kernel 1 \"a\" \"b\"\n"
#define RUN FUNC "block\nrun\n"
	static const struct {
		const char *text, *want;
	} bad[] = {
	    {"", "the file is empty"},
	    {"\x89"
	     "bootprf",
	     "line 1: not the text"},
	    {"bootprof-text 2\n", "version 2"},
	    {"bootprof-text 1\ntick 11\n", "line 2: bad tick"},
	    {"bootprof-text 1\nfunc 1 kernel 1\n", "line 2: function ids"},
	    {"bootprof-text 1\nfunc 0 moon 1\n", "line 2: unknown space"},
	    {"bootprof-text 1\nfunc 0 kernel x\n", "line 2: bad address"},
	    {"bootprof-text 1\nfunc 0 kernel 0x\n", "line 2: bad address"},
	    {"bootprof-text 1\nfunc 0 kernel 18446744073709551616\n", "line 2: bad address"},
	    {"bootprof-text 1\nfunc 0 kernel 1 \"a\n", "string without end"},
	    {"bootprof-text 1\nfunc 0 kernel 1 \"a\\n\"\n", "unknown escape"},
	    {"bootprof-text 1\nfunc 0 kernel 1 \"a\\x00\"\n", "two hexadecimal"},
	    {"bootprof-text 1\nfunc 0 kernel 1 \"a\\x1", "two hexadecimal"},
	    {"bootprof-text 1\nfunc 0 kernel 1 \"a\\", "unknown escape"},
	    {"bootprof-text 1\nfunc 0 kernel 1 \"a\" \"b\" c\n", "something behind"},
	    {"bootprof-text 1\nfact moon\n", "unknown kind of fact"},
	    {"bootprof-text 1\nfact info vcpu=65536\n", "bad number"},
	    {"bootprof-text 1\nfact info moon=1\n", "unknown name"},
	    {"bootprof-text 1\nfact info 1\n", "expected NAME=NUMBER"},
	    {"bootprof-text 1\nfold 0\n", "not defined"},
	    {FUNC "fold 0 self_ns=--1\n", "bad number"},
	    {FUNC "fold 0 self_ns=9223372036854775808\n", "bad number"},
	    {FUNC "call 0\n", "behind a block line"},
	    {FUNC "block\ncall 0\n", "no run"},
	    {FUNC "block\nframe call 0\n", "right behind"},
	    {FUNC "block\n", "is empty"},
	    {FUNC "block\nblock\n", "line 4: the block before this line is empty"},
	    {RUN "call 1\n", "not defined"},
	    {RUN "ret 1\n", "below the stack"},
	    {RUN "call 0\nret 0\n", "below the stack"},
	    {RUN "call 0\nlost 1\nret 1\n", "below the stack"},
	    {RUN "call 0 1 2 3\n", "something behind"},
	    {RUN "call 0 4294967296\n", "bad number"},
	    {RUN "frame ret 0\n", "a frame is"},
	    {RUN "frame call 1\n", "not defined"},
	    {RUN "call 0\nframe call 0\n", "right behind"},
	    {RUN "run\nframe call 0\n", "right behind"},
	    {RUN "end\nblock\n", "behind the end"},
	    {"bootprof-text 1\nmoon\n", "unknown word"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct bp_err *err;

		unlink(path);
		put_file(bad[i].text, strlen(bad[i].text));
		err = bp_trace_text_read(text_path, path);
		if (!err || !strstr(bp_err_text(err), bad[i].want))
			print_message("%s -> %s\n", bad[i].text, err ? bp_err_text(err) : "no error");
		assert_non_null(err);
		assert_non_null(strstr(bp_err_text(err), bad[i].want));
		assert_non_null(strstr(bp_err_text(err), text_path));
		assert_int_not_equal(access(path, F_OK), 0);
		bp_err_free(err);
	}
	put_file("bootprof-text 1\0\n", 17);
	{
		struct bp_err *err = bp_trace_text_read(text_path, path);

		assert_non_null(err);
		assert_non_null(strstr(bp_err_text(err), "NUL"));
		bp_err_free(err);
	}
}

static void test_too_many(void **state)
{
	FILE *f = fopen(text_path, "w");
	struct bp_err *err;

	(void)state;
	fputs("bootprof-text 1\nfunc 0 kernel 1\nblock\nrun\n", f);
	for (unsigned i = 0; i < BP_MAX_DEPTH + 1; i++)
		fputs("call 0\n", f);
	fclose(f);
	err = bp_trace_text_read(text_path, path);
	assert_non_null(err);
	assert_non_null(strstr(bp_err_text(err), "line 4101: the stack is too deep"));
	bp_err_free(err);
	f = fopen(text_path, "w");
	fputs("bootprof-text 1\nblock\nrun\n", f);
	for (unsigned i = 0; i < BP_BLOCK_EVENTS; i++)
		fputs("tick\n", f);
	fclose(f);
	err = bp_trace_text_read(text_path, path);
	assert_non_null(err);
	assert_non_null(strstr(bp_err_text(err), "more than 65536 events"));
	bp_err_free(err);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/bootprof-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(text_path, sizeof(text_path), "%s/a.txt", dir);
	snprintf(path, sizeof(path), "%s/a.bootprof", dir);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_same_text), cmocka_unit_test(test_short_forms),
	    cmocka_unit_test(test_ticks),     cmocka_unit_test(test_bad_text),
	    cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests_name("trace_text", tests, setup, teardown);
}
