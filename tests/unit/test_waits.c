// SPDX-License-Identifier: GPL-2.0-or-later
/* Waits in a recording: what is written is read, same things get the same ids, damage costs one block. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/trace.h"
#include "core/waits.h"

static char dir[64], path[96], text_path[96];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Field by field: structs have padding. */
static bool same(const struct bp_wait *a, const struct bp_wait *b)
{
	return a->time_ns == b->time_ns && a->addr == b->addr && a->value == b->value &&
	       a->thread == b->thread && a->other == b->other && a->kstack == b->kstack &&
	       a->ustack == b->ustack && a->cpu == b->cpu && a->kind == b->kind && a->state == b->state &&
	       a->flags == b->flags;
}

static struct bp_wait random_wait(bool wild)
{
	struct bp_wait w = {
	    .time_ns = wild ? rnd() : 1000 + rnd() % 1000,
	    .addr = wild ? rnd() : 0,
	    .value = wild ? (int64_t)rnd() : 0,
	    .thread = (uint32_t)(wild ? rnd() : rnd() % 8),
	    .other = (uint32_t)(wild ? rnd() : rnd() % 8),
	    .kstack = (uint32_t)(wild ? rnd() : 0),
	    .ustack = (uint32_t)(wild ? rnd() : 0),
	    .cpu = (uint16_t)rnd(),
	    .kind = (uint8_t)(1 + rnd() % (BP_WAIT_KINDS - 1)),
	    .state = (uint8_t)rnd(),
	    .flags = (uint32_t)(wild ? rnd() : 0),
	};

	return w;
}

static void test_round_trip(void **state)
{
	static struct bp_wait recs[3 * BP_WAIT_BLOCK + 17];
	const size_t n = sizeof(recs) / sizeof(*recs);
	struct bp_wait_decoder *d;
	struct bp_trace_writer *w;
	struct bp_wait_log *log;
	struct bp_trace *t;
	size_t at = 0;

	(void)state;
	ok(bp_trace_writer_create(path, 0, &w));
	ok(bp_wait_log_create(w, &log));
	for (size_t i = 0; i < n; i++) {
		/* The first block is as wild as can be: it fills a chunk. */
		recs[i] = random_wait(i < BP_WAIT_BLOCK || i % 100 == 0);
		ok(bp_wait_log_add(log, &recs[i]));
	}
	ok(bp_wait_log_close(log));
	ok(bp_trace_writer_close(w));

	ok(bp_trace_open(path, &t));
	assert_int_equal(bp_trace_n_waits(t), 4);
	assert_int_equal(bp_trace_n_wait_records(t), n);
	assert_int_equal(bp_trace_n_blocks(t), 0);
	ok(bp_wait_decoder_create(&d));
	for (size_t i = 0; i < 4; i++) {
		const struct bp_wait *got;
		uint64_t first, last;
		size_t got_n;

		ok(bp_wait_decoder_read(d, t, i, &got, &got_n));
		bp_trace_waits_range(t, i, &first, &last);
		assert_false(bp_trace_waits_gap(t, i));
		for (size_t k = 0; k < got_n; k++, at++) {
			assert_true(same(&got[k], &recs[at]));
			assert_true(got[k].time_ns >= first && got[k].time_ns <= last);
		}
	}
	assert_int_equal(at, n);
	bp_wait_decoder_destroy(d);
	bp_trace_destroy(t);
}

static void test_ids(void **state)
{
	struct bp_trace_writer *w;
	struct bp_wait_log *log;
	struct bp_trace *t;
	const struct bp_host_frame *f;
	const uint32_t *ids;
	uint32_t a, b, c, s, again, other;
	size_t n;

	(void)state;
	ok(bp_trace_writer_create(path, 0, &w));
	ok(bp_wait_log_create(w, &log));
	ok(bp_wait_log_frame(log, BP_HOST_KERNEL, 0, "futex_wait", 0x10, "", &a));
	ok(bp_wait_log_frame(log, BP_HOST_USER, 0x5555, "", 0, "", &b));
	ok(bp_wait_log_frame(log, BP_HOST_KERNEL, 0, "futex_wait", 0x11, "", &c));
	assert_int_equal(a, 1);
	assert_int_equal(b, 2);
	assert_int_equal(c, 3);
	ok(bp_wait_log_frame(log, BP_HOST_USER, 0x5555, "", 0, "", &again));
	assert_int_equal(again, b);
	ok(bp_wait_log_stack(log, (uint32_t[]){a, b}, 2, &s));
	ok(bp_wait_log_stack(log, (uint32_t[]){b, a}, 2, &other));
	ok(bp_wait_log_stack(log, (uint32_t[]){a, b}, 2, &again));
	assert_int_equal(s, 1);
	assert_int_equal(other, 2);
	assert_int_equal(again, s);
	ok(bp_wait_log_stack(log, NULL, 0, &again));
	assert_int_equal(again, 0);
	ok(bp_wait_log_flush(log));
	/* The name comes at the end; the frame is still found by what it was. */
	ok(bp_wait_log_name(log, b, "main_loop_wait", 0x20, "/usr/bin/qemu"));
	ok(bp_wait_log_frame(log, BP_HOST_USER, 0x5555, "", 0, "", &again));
	assert_int_equal(again, b);
	assert_int_equal(bp_wait_log_n_frames(log), 3);
	assert_string_equal(bp_wait_log_get_frame(log, b).name, "main_loop_wait");
	/* Many, so that the tables grow. */
	for (unsigned i = 0; i < 2000; i++) {
		uint32_t id, stack;

		ok(bp_wait_log_frame(log, BP_HOST_USER, 0x10000 + i, "", 0, "", &id));
		assert_int_equal(id, 4 + i);
		ok(bp_wait_log_stack(log, (uint32_t[]){id, a}, 2, &stack));
		assert_int_equal(stack, 3 + i);
	}
	ok(bp_wait_log_close(log));
	ok(bp_trace_writer_close(w));

	ok(bp_trace_open(path, &t));
	assert_null(bp_trace_host_frame(t, 0));
	assert_null(bp_trace_host_frame(t, 5000));
	f = bp_trace_host_frame(t, b);
	assert_string_equal(f->name, "main_loop_wait");
	assert_string_equal(f->module, "/usr/bin/qemu");
	assert_int_equal(f->addr, 0x5555);
	assert_int_equal(f->offset, 0x20);
	assert_int_equal(f->space, BP_HOST_USER);
	ids = bp_trace_host_stack(t, s, &n);
	assert_int_equal(n, 2);
	assert_int_equal(ids[0], a);
	assert_int_equal(ids[1], b);
	assert_null(bp_trace_host_stack(t, 0, &n));
	assert_null(bp_trace_host_stack(t, 99999, &n));
	bp_trace_destroy(t);
}

static const char whole[] = "bootprof-text 1\n"
			    "tick 0\n"
			    "fact thread vcpu=2 v0=1234 v1=1000 v2=1 \"CPU 2/KVM\" \"vCPU\"\n"
			    "fact lock v0=0x5580 v1=40 \"qemu_global_mutex\" \"symbol\"\n"
			    "fact host-map v0=0x5000 v1=0x6000 v2=0x1000 v3=1000 \"/usr/bin/qemu\"\n"
			    "host-frame 1 kernel addr=0xffffffff81000000 off=0x10 \"futex_wait_queue\"\n"
			    "host-frame 7 user addr=0x5555 \"\" \"/bin/q \\\" \\xff\"\n"
			    "host-frame 8 site \"cputlb.c:1371\"\n"
			    "host-stack 1 1 7\n"
			    "host-stack 3 9\n"
			    "waits\n"
			    " out 1234 state=83 cpu=0 time=100 other=7 kstack=1 ustack=3\n"
			    " in 7 cpu=0 time=100 other=1234\n"
			    " out 7 state=82 cpu=0 time=18446744073709551615 flags=1\n"
			    " lost 0 cpu=3 time=5 value=12\n"
			    "waits\n"
			    " futex 7 time=5 other=393 addr=0xffffffffffffffff value=-9223372036854775808\n"
			    " futex-ret 7 time=5 value=-110\n"
			    "end\n";

static void test_text(void **state)
{
	FILE *f = fopen(text_path, "w");
	char got[sizeof(whole) + 100];
	struct bp_trace *t;
	ssize_t n;
	int fd;

	(void)state;
	assert_non_null(f);
	fputs(whole, f);
	fclose(f);
	ok(bp_trace_text_read(text_path, path));
	ok(bp_trace_open(path, &t));
	assert_int_equal(bp_trace_n_waits(t), 2);
	fd = open(text_path, O_RDWR | O_TRUNC);
	assert_true(fd >= 0);
	ok(bp_trace_text_write(t, fd));
	n = pread(fd, got, sizeof(got) - 1, 0);
	assert_true(n >= 0);
	got[n] = '\0';
	close(fd);
	assert_string_equal(got, whole);
	bp_trace_destroy(t);
}

/* Every byte of a small file, turned over: whatever is read is what was written, or is said to be damaged. */
static void test_damage(void **state)
{
	struct bp_wait recs[300];
	struct bp_trace_writer *w;
	struct bp_wait_log *log;
	struct bp_wait_decoder *d;
	size_t len, damaged = 0;
	uint8_t *bytes;
	FILE *f;

	(void)state;
	ok(bp_trace_writer_create(path, 0, &w));
	ok(bp_wait_log_create(w, &log));
	for (size_t i = 0; i < 300; i++) {
		recs[i] = random_wait(false);
		ok(bp_wait_log_add(log, &recs[i]));
		if (i % 100 == 99)
			ok(bp_wait_log_flush(log));
	}
	ok(bp_wait_log_close(log));
	ok(bp_trace_writer_close(w));
	f = fopen(path, "r");
	assert_non_null(f);
	bytes = malloc(1 << 20);
	len = fread(bytes, 1, 1 << 20, f);
	fclose(f);
	ok(bp_wait_decoder_create(&d));
	for (size_t at = 64; at < len; at += 1) {
		struct bp_trace *t;
		size_t good = 0;

		f = fopen(path, "w");
		bytes[at] ^= 0xff;
		fwrite(bytes, 1, len, f);
		bytes[at] ^= 0xff;
		fclose(f);
		ok(bp_trace_open(path, &t));
		for (size_t i = 0; i < bp_trace_n_waits(t); i++) {
			const struct bp_wait *got;
			size_t n, first;
			struct bp_err *err = bp_wait_decoder_read(d, t, i, &got, &n);

			if (err) {
				assert_int_equal(bp_err_code(err), BP_EDATA);
				bp_err_ignore(err);
				continue;
			}
			assert_int_equal(n, 100);
			for (first = 0; first < 300 && !same(&got[0], &recs[first]); first += 100)
				;
			assert_true(first < 300);
			for (size_t k = 0; k < n; k++)
				assert_true(same(&got[k], &recs[first + k]));
			good++;
			if (first && i == 0)
				assert_true(bp_trace_waits_gap(t, i));
		}
		assert_true(good >= 2);
		damaged += good == 2;
		bp_trace_destroy(t);
	}
	/* All but the END chunk belongs to one of the three. */
	assert_int_equal(damaged, len - 64 - 64);
	bp_wait_decoder_destroy(d);
	free(bytes);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/bootprof-waits-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/a.data", dir);
	snprintf(text_path, sizeof(text_path), "%s/a.txt", dir);
	return 0;
}

static int teardown(void **state)
{
	char old[128];

	(void)state;
	snprintf(old, sizeof(old), "%s.old", path);
	unlink(old);
	unlink(path);
	unlink(text_path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_ids),
	    cmocka_unit_test(test_text),
	    cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
