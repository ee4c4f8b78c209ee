// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Exports read back: a small reader of the protobuf wire format for Perfetto's traces, sums of folded stacks,
 * and damaged recordings.
 */
#include <getopt.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/cmd.h"
#include "core/cleanup.h"
#include "core/trace.h"

static char dir[64];

static const char trace_text[] = "bootprof-text 1\n"
				 "tick 0\n"
				 "func 0 kernel 0xffffffff81000000 \"start_kernel\" \"vmlinux\"\n"
				 "func 1 kernel 0xffffffff81000100 \"vfs_read\" \"vmlinux\"\n"
				 "func 2 module 0xffffffffc0000010 \"bad\\xff;name\" \"ext4\"\n"
				 "fact task v0=0 v3=4 \"[boot]\" \"\"\n"
				 "fact task v0=1 v1=1 v2=1 \"init\" \"/init\"\n"
				 "fact console time=1500 \"Linux version\" \"printk\"\n"
				 "block\n"
				 /* vCPU 0 boots, starts a task and comes back to its stack */
				 "run vcpu=0 task=0 time=100 insns=0 cpu_ns=0 cpu_insns=0\n"
				 " call 0 0 0\n"
				 " call 1 0 10\n"
				 " call 2 2000 10\n"
				 " ret 1 10 5\n"
				 "run vcpu=0 task=1 time=2110 insns=25 cpu_ns=0 cpu_insns=0\n"
				 " call 1 5 5\n"
				 " ret 1 5 5\n"
				 "run vcpu=0 task=0 time=2120 insns=35 cpu_ns=2010 cpu_insns=25\n"
				 " ret 1 30 5\n"
				 " lost 7 50 5\n"
				 " call 1 20 5\n"
				 /* vCPU 1 goes on with what vCPU 0 left */
				 "run vcpu=1 task=1 time=3000 insns=0 cpu_ns=10 cpu_insns=10\n"
				 " call 2 100 10\n"
				 "end\n";

/* Name of a file in the test's directory; valid until the next call but one. */
static char *in_dir(const char *name)
{
	static char paths[2][128];
	static unsigned turn;

	turn ^= 1;
	snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", dir, name);
	return paths[turn];
}

static void put(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(in_dir(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* Owned by the caller; NUL-terminated. */
static char *get(const char *name, size_t *len)
{
	FILE *f = fopen(in_dir(name), "r");
	char *data;
	long size;

	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	size = ftell(f);
	assert_true(size >= 0);
	rewind(f);
	data = calloc(1, (size_t)size + 1);
	assert_non_null(data);
	assert_int_equal(fread(data, 1, (size_t)size, f), (size_t)size);
	fclose(f);
	*len = (size_t)size;
	return data;
}

static struct bp_err *export(const char *input, const char *output, const char *format, const char *option)
{
	char in[128], out[128], form[64], opt[64];
	char *argv[] = {(char *)"bootprof export", form, (char *)"-i", in, (char *)"-o", out,
			option ? opt : NULL,       NULL};
	int status = 0;

	snprintf(in, sizeof(in), "%s/%s", dir, input);
	snprintf(out, sizeof(out), "%s/%s", dir, output);
	snprintf(form, sizeof(form), "--format=%s", format);
	snprintf(opt, sizeof(opt), "%s", option ? option : "");
	optind = 0;
	return bp_cmd_export.run(option ? 7 : 6, argv, &status);
}

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static void make_trace(void)
{
	char recording[128];

	put("t.txt", trace_text, sizeof(trace_text) - 1);
	snprintf(recording, sizeof(recording), "%s", in_dir("t.bootprof"));
	unlink(recording);
	ok(bp_trace_text_read(in_dir("t.txt"), recording));
}

/* A field of a protobuf message. */
struct field {
	uint64_t number, value;
	const uint8_t *data;
	size_t len;
};

static uint64_t varint(const uint8_t **p, const uint8_t *end)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		assert_true(*p < end);
		v |= (uint64_t)(**p & 0x7f) << shift;
		if (!(*(*p)++ & 0x80))
			return v;
	}
	fail();
	return 0;
}

/* The next field at *p, false at the end. */
static bool next(const uint8_t **p, const uint8_t *end, struct field *f)
{
	uint64_t key;

	if (*p == end)
		return false;
	key = varint(p, end);
	*f = (struct field){.number = key >> 3, .value = varint(p, end)};
	assert_true((key & 7) == 0 || (key & 7) == 2);
	if ((key & 7) == 2) {
		assert_true(f->value <= (uint64_t)(end - *p));
		f->data = *p;
		f->len = (size_t)f->value;
		*p += f->len;
	}
	return true;
}

static struct field find(const uint8_t *data, size_t len, uint64_t number)
{
	const uint8_t *p = data;
	struct field f;

	while (next(&p, data + len, &f))
		if (f.number == number)
			return f;
	return (struct field){0};
}

struct slices {
	char text[4096];     /* "time track B name" or "time track E", one a line */
	char names[8][64];   /* interned, by iid */
	char tracks[32][64]; /* names of tracks, by uuid */
	uint64_t last[32];   /* times on a track do not go back */
	int depth[32];
};

static void add(struct slices *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct slices *s, const char *fmt, ...)
{
	size_t n = strlen(s->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->text + n, sizeof(s->text) - n, fmt, ap);
	va_end(ap);
}

static void read_packet(struct slices *s, const struct field *packet)
{
	struct field track = find(packet->data, packet->len, 60), event = find(packet->data, packet->len, 11);
	struct field interned = find(packet->data, packet->len, 12);

	assert_int_equal(find(packet->data, packet->len, 10).value, 1);
	if (track.data) {
		struct field name = find(track.data, track.len, 2);
		uint64_t uuid = find(track.data, track.len, 1).value;

		assert_true(uuid > 0 && uuid < BP_ARRAY_SIZE(s->tracks));
		snprintf(s->tracks[uuid], sizeof(s->tracks[uuid]), "%.*s", (int)name.len,
			 (const char *)name.data);
		assert_int_equal(find(track.data, track.len, 5).value, uuid != 1);
	}
	if (interned.data) {
		struct field entry = find(interned.data, interned.len, 2);
		struct field name = find(entry.data, entry.len, 2);
		uint64_t iid = find(entry.data, entry.len, 1).value;

		assert_true(iid > 0 && iid < BP_ARRAY_SIZE(s->names));
		assert_int_equal(s->names[iid][0], 0);
		snprintf(s->names[iid], sizeof(s->names[iid]), "%.*s", (int)name.len,
			 (const char *)name.data);
	}
	if (event.data) {
		uint64_t uuid = find(event.data, event.len, 11).value,
			 type = find(event.data, event.len, 9).value;
		uint64_t time = find(packet->data, packet->len, 8).value,
			 iid = find(event.data, event.len, 10).value;
		struct field name = find(event.data, event.len, 23);

		assert_true(uuid < BP_ARRAY_SIZE(s->tracks) && s->tracks[uuid][0]);
		assert_true(time >= s->last[uuid]);
		s->last[uuid] = time;
		s->depth[uuid] += type == 1 ? 1 : type == 2 ? -1 : 0;
		assert_true(s->depth[uuid] >= 0);
		if (iid) {
			assert_true(iid < BP_ARRAY_SIZE(s->names) && s->names[iid][0]);
			assert_true(find(packet->data, packet->len, 13).value & 2);
		}
		add(s, "%" PRIu64 " %s %s", time, s->tracks[uuid], type == 1 ? "B" : type == 2 ? "E" : "i");
		if (name.data)
			add(s, " %.*s", (int)name.len, (const char *)name.data);
		else if (iid)
			add(s, " %s", s->names[iid]);
		add(s, "\n");
	}
}

static void read_perfetto(const char *name, struct slices *s)
{
	size_t len;
	char *data = get(name, &len);
	const uint8_t *p = (const uint8_t *)data, *end = p + len;
	struct field f;

	memset(s, 0, sizeof(*s));
	while (next(&p, end, &f)) {
		assert_int_equal(f.number, 1);
		read_packet(s, &f);
	}
	for (size_t i = 0; i < BP_ARRAY_SIZE(s->depth); i++)
		assert_int_equal(s->depth[i], 0);
	free(data);
}

static void test_perfetto(void **state)
{
	struct slices s;

	(void)state;
	ok(export("t.bootprof", "t.pftrace", "perfetto", NULL));
	read_perfetto("t.pftrace", &s);
	assert_string_equal(s.text, "1500 console i Linux version\n"
				    "100 tasks on vCPU 0 B [boot]\n"
				    "100 vCPU 0 B start_kernel\n"
				    "100 vCPU 0 B vfs_read\n"
				    "2100 vCPU 0 B bad\\xff;name [ext4]\n"
				    "2110 vCPU 0 E\n"
				    "2110 vCPU 0 E\n"
				    "2110 vCPU 0 E\n"
				    "2110 tasks on vCPU 0 E\n"
				    "2110 tasks on vCPU 0 B init/1\n"
				    "2115 vCPU 0 B vfs_read\n"
				    "2120 vCPU 0 E\n"
				    "2120 tasks on vCPU 0 E\n"
				    "2120 tasks on vCPU 0 B [boot]\n"
				    "2120 vCPU 0 B start_kernel\n"
				    "2120 vCPU 0 B vfs_read\n"
				    "2150 vCPU 0 E\n"
				    "2200 vCPU 0 E\n"
				    "3000 tasks on vCPU 1 B init/1\n"
				    "2220 vCPU 0 B vfs_read\n"
				    "2220 vCPU 0 E\n"
				    "3100 vCPU 1 B bad\\xff;name [ext4]\n"
				    "3100 vCPU 1 E\n"
				    "2220 tasks on vCPU 0 E\n"
				    "3100 tasks on vCPU 1 E\n");
}

static void test_short_left_out(void **state)
{
	struct slices s;

	(void)state;
	ok(export("t.bootprof", "t.pftrace", "perfetto", "--min-us=1"));
	read_perfetto("t.pftrace", &s);
	assert_string_equal(s.text, "1500 console i Linux version\n"
				    "100 tasks on vCPU 0 B [boot]\n"
				    "100 vCPU 0 B start_kernel\n"
				    "100 vCPU 0 B vfs_read\n"
				    "2110 vCPU 0 E\n"
				    "2110 vCPU 0 E\n"
				    "2110 tasks on vCPU 0 E\n"
				    "2110 tasks on vCPU 0 B init/1\n"
				    "2120 tasks on vCPU 0 E\n"
				    "2120 tasks on vCPU 0 B [boot]\n"
				    "3000 tasks on vCPU 1 B init/1\n"
				    "2220 tasks on vCPU 0 E\n"
				    "3100 tasks on vCPU 1 E\n");
}

static void test_insns(void **state)
{
	struct slices s;

	(void)state;
	ok(export("t.bootprof", "t.pftrace", "perfetto", "--clock=insns"));
	read_perfetto("t.pftrace", &s);
	assert_null(strstr(s.text, "console i"));
	assert_non_null(strstr(s.text, "10 vCPU 0 B vfs_read\n20 vCPU 0 B bad"));
}

static void test_folded(void **state)
{
	size_t len;
	char *text;

	(void)state;
	ok(export("t.bootprof", "t.folded", "folded", NULL));
	text = get("t.folded", &len);
	assert_string_equal(text, "[boot] 20\n"
				  "init 105\n"
				  "[boot];start_kernel 50\n"
				  "[boot];start_kernel;vfs_read 2030\n"
				  "[boot];start_kernel;vfs_read;bad\\xff:name [ext4] 10\n"
				  "init;vfs_read 5\n");
	free(text);
}

/* Whatever happens to the file, an export ends, with a result or with an error. */
static void test_damaged(void **state)
{
	static const char *const formats[] = {"folded", "perfetto", "chrome", "speedscope"};
	size_t len;
	char *data = get("t.bootprof", &len);
	int saved = dup(STDERR_FILENO);

	(void)state;
	/* Warnings about each of them say nothing here. */
	assert_non_null(freopen("/dev/null", "w", stderr));
	for (size_t i = 0; i < len; i++) {
		data[i] ^= 0x10;
		put("bad.bootprof", data, len);
		data[i] ^= 0x10;
		bp_err_ignore(export("bad.bootprof", "bad.out", formats[i % BP_ARRAY_SIZE(formats)], NULL));
		put("bad.bootprof", data, i);
		bp_err_ignore(export("bad.bootprof", "bad.out", formats[i % BP_ARRAY_SIZE(formats)], NULL));
	}
	fflush(stderr);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
	free(data);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/bootprof-export.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	make_trace();
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"t.txt",    "t.bootprof",   "t.pftrace",
					    "t.folded", "bad.bootprof", "bad.out"};

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(names); i++)
		unlink(in_dir(names[i]));
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_perfetto), cmocka_unit_test(test_short_left_out),
	    cmocka_unit_test(test_insns),    cmocka_unit_test(test_folded),
	    cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests_name("export", tests, setup, teardown);
}
