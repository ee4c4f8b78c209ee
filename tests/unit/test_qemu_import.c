// SPDX-License-Identifier: GPL-2.0-or-later
/* Execution traces of QEMU: all spellings, calls from code bytes, binary versions, damage, the corpus'
 * totals. */
#define _GNU_SOURCE /* asprintf() */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "symbols/syscalls.h"
#include "collectors/import.h"
#include "collectors/qemu/simpletrace.h"
#include "collectors/qemu/x86flow.h"
#include "core/cleanup.h"

#define BASE ((uint64_t)0xffffffff81000000ull)

static char dir[] = "/tmp/bootprof-test-qemu-XXXXXX";

static void must(struct bp_err *err)
{
	if (err) {
		print_error("%s\n", bp_err_text(err));
		fail();
	}
}

/* ---- a kernel of a few functions ---- */

static const struct {
	uint64_t at;
	const char *name;
	uint8_t code[16];
	size_t len;
} kernel[] = {
    {0x000, "a", {0xe8, 0x3b, 0, 0, 0, 0xe9, 0x76, 0, 0, 0}, 10}, /* call b; jmp c */
    {0x040, "b", {0xc3}, 1},
    {0x080, "c", {0x90, 0xc3}, 2},
    {0x0c0, "asm_exc_page_fault", {0x48, 0xcf}, 2},
    {0x100, "entry_SYSCALL_64", {0xe8, 0xfb, 0xfe, 0xff, 0xff, 0x48, 0x0f, 0x07}, 8}, /* call a; sysret */
    {0x140, "d", {0xff, 0xd0, 0xe8, 0x39, 0, 0, 0, 0xc3}, 8}, /* call *rax; call thunk; ret */
    {0x180, "__x86_indirect_thunk_rax", {0xff, 0xe0}, 2},
    {0x1c0, "e", {0xe9, 0x3b, 0, 0, 0}, 5}, /* jmp __x86_return_thunk */
    {0x200, "__x86_return_thunk", {0xc3}, 1},
    {0x240, "end", {0}, 1},
};

static bool find(void *self, uint64_t addr, const char **name, const char **module, uint64_t *start)
{
	(void)self;
	for (size_t i = 0; i + 1 < BP_ARRAY_SIZE(kernel); i++)
		if (addr >= BASE + kernel[i].at && addr < BASE + kernel[i + 1].at) {
			*name = kernel[i].name;
			*module = "vmlinux";
			*start = BASE + kernel[i].at;
			return true;
		}
	return false;
}

static bool code(void *self, uint64_t addr, void *dst, size_t len)
{
	(void)self;
	if (addr < BASE || addr + len > BASE + 0x1000)
		return false;
	memset(dst, 0xcc, len);
	for (size_t i = 0; i < BP_ARRAY_SIZE(kernel); i++)
		for (size_t k = 0; k < kernel[i].len; k++)
			if (BASE + kernel[i].at + k - addr < len)
				((uint8_t *)dst)[BASE + kernel[i].at + k - addr] = kernel[i].code[k];
	return true;
}

static const struct bp_import_names with_code = {.find = find, .code = code};
static const struct bp_import_names without_code = {.find = find};

/* ---- running an importer ---- */

static char *path_of(const char *name)
{
	char *p;

	assert_true(asprintf(&p, "%s/%s", dir, name) > 0);
	return p;
}

static void put_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

/* Events as text: ">name@time" a call, "J" a tail call, "I" an interrupt, "S" a system call, "<n" a return.
 */
static char *events_of(const char *path)
{
	struct bp_trace *t;
	struct bp_decoder *d;
	const struct bp_func *funcs;
	size_t n_funcs, size;
	char *text = NULL;
	FILE *f = open_memstream(&text, &size);

	must(bp_trace_open(path, &t));
	must(bp_decoder_create(&d));
	funcs = bp_trace_funcs(t, &n_funcs);
	for (size_t i = 0; i < bp_trace_n_blocks(t); i++) {
		struct bp_block b;
		uint64_t now = 0;

		must(bp_decoder_read(d, t, i, &b));
		for (size_t k = 0; k < b.n_events; k++) {
			const struct bp_event *e = &b.events[k];

			now = e->kind == BP_EV_RUN ? b.runs[e->arg].time_ns : now + e->dt;
			switch (e->kind) {
			case BP_EV_RUN:
				if (b.runs[e->arg].vcpu)
					fprintf(f, "cpu%u ", b.runs[e->arg].vcpu);
				break;
			case BP_EV_CALL:
			case BP_EV_JUMP:
			case BP_EV_IRQ:
				fprintf(f, "%c%s@%" PRIu64 " ", ">JI"[e->kind - BP_EV_CALL],
					funcs[e->arg].name, now);
				break;
			case BP_EV_RET:
				fprintf(f, "<%u@%" PRIu64 " ", e->arg, now);
				break;
			case BP_EV_SYSCALL:
				fprintf(f, e->arg == UINT32_MAX - 1 ? "S " : "S%u ", e->arg);
				break;
			case BP_EV_LOST:
				fprintf(f, "lost%u@%" PRIu64 " ", e->arg, now);
				break;
			default:
				fprintf(f, ".@%" PRIu64 " ", now);
				break;
			}
		}
	}
	bp_decoder_destroy(d);
	bp_trace_destroy(t);
	fclose(f);
	return text;
}

static char *import_path(const char *path, const struct bp_importer *with,
			 const struct bp_import_names *names, struct bp_import_stats *st)
{
	struct bp_import im = {.names = names, .stats = st};
	bp_autofree char *out = path_of("out");
	struct bp_trace_writer *w;
	char *text;

	*st = (struct bp_import_stats){0};
	unlink(out);
	must(bp_source_open(path, &im.source));
	must(bp_trace_writer_create(out, 0, &w));
	must(bp_builder_create(w, &im.builder));
	must(with->run(&im));
	must(bp_builder_finish(im.builder, "import"));
	bp_builder_destroy(im.builder);
	must(bp_trace_writer_close(w));
	bp_source_close(im.source);
	text = events_of(out);
	unlink(out);
	return text;
}

static char *import_bytes(const void *data, size_t len, const struct bp_importer *with,
			  const struct bp_import_names *names, struct bp_import_stats *st)
{
	bp_autofree char *path = path_of("in");

	put_file(path, data, len);
	return import_path(path, with, names, st);
}

static char *import_text(const char *text, const struct bp_importer *with,
			 const struct bp_import_names *names, struct bp_import_stats *st)
{
	return import_bytes(text, strlen(text), with, names, st);
}

/* ---- -d exec ---- */

#define NOCHAIN(cpu, pc, flags) \
	"Trace " #cpu ": 0x7f5c04000100 [0000000000000000/" #pc "/0000c2b" #flags "/ff080200] \n"

static void calls_from_code(void **state)
{
	static const char log[] = NOCHAIN(0, 0000000000401000, 3) NOCHAIN(0, ffffffff81000100, 0)
	    NOCHAIN(0, ffffffff81000000, 0) NOCHAIN(0, ffffffff81000040, 0) NOCHAIN(0, ffffffff81000005, 0)
		NOCHAIN(0, ffffffff81000080, 0) NOCHAIN(0, ffffffff810000c0, 0)
		    NOCHAIN(0, ffffffff81000080, 0) NOCHAIN(0, ffffffff81000105, 0)
			NOCHAIN(0, 0000000000401002, 3);
	struct bp_import_stats st;
	bp_autofree char *got = import_text(log, &bp_import_qemu_exec, &with_code, &st);

	(void)state;
	/* user; call of entry, a, b; return; tail call; interrupt; iret; return out of c and a; sysret */
	assert_string_equal(
	    got, ">[user]@0 S >entry_SYSCALL_64@1 >a@2 >b@3 <1@4 Jc@5 Iasm_exc_page_fault@6 <1@7 <2@8 "
		 "<1@9 .@10 ");
	assert_int_equal(st.records, 10);
	assert_int_equal(st.skipped, 0);
	assert_int_equal(st.calls, 5);
	assert_int_equal(st.unnamed, 2);
	assert_non_null(strstr(st.stacks, "from code bytes"));
}

/* In this kernel, a and b carry out system calls. */
static int handler(const char *function)
{
	return !strcmp(function, "a") ? 3 : !strcmp(function, "b") ? 4 : -1;
}

static void system_calls(void **state)
{
	/* entry, a, which calls b; back to the user; a without an entry */
	static const char log[] = NOCHAIN(0, 0000000000401000, 3) NOCHAIN(0, ffffffff81000100, 0)
	    NOCHAIN(0, ffffffff81000000, 0) NOCHAIN(0, ffffffff81000040, 0) NOCHAIN(0, ffffffff81000005, 0)
		NOCHAIN(0, ffffffff81000080, 0) NOCHAIN(0, ffffffff81000105, 0)
		    NOCHAIN(0, 0000000000401002, 3);
	static const char lone[] = NOCHAIN(0, ffffffff81000000, 0) NOCHAIN(0, ffffffff81000040, 0);
	const struct bp_import_names names = {.find = find, .code = code, .syscall = handler};
	const struct bp_import_names flat = {.find = find, .syscall = handler};
	struct bp_import_stats st;
	bp_autofree char *got = import_text(log, &bp_import_qemu_exec, &names, &st);

	(void)state;
	/* It begins with the function that says which one it is; what that calls is none. */
	assert_string_equal(got, ">[user]@0 >entry_SYSCALL_64@1 S3 >a@2 >b@3 <1@4 Jc@5 <2@6 <1@7 .@8 ");
	free(got);
	got = import_text(lone, &bp_import_qemu_exec, &names, &st);
	assert_string_equal(got, ">a@0 >b@1 .@2 ");
	/* Without stacks the name is all there is. */
	free(got);
	got = import_text(lone, &bp_import_qemu_exec, &flat, &st);
	assert_string_equal(got, "S3 >a@0 <1@1 S4 >b@1 .@2 ");
}

static void handlers_by_name(void **state)
{
	(void)state;
	assert_int_equal(bp_syscall_x86_64_handler("__x64_sys_openat"), 257);
	assert_int_equal(bp_syscall_x86_64_handler("__x64_sys_newfstat"), 5);
	assert_int_equal(bp_syscall_x86_64_handler("__ia32_compat_sys_openat"), 257);
	assert_int_equal(bp_syscall_x86_64_handler("SyS_read"), 0);
	assert_int_equal(bp_syscall_x86_64_handler("sys_read"), 0);
	assert_int_equal(bp_syscall_x86_64_handler("__x64_sys_ni_syscall"), -1);
	assert_int_equal(bp_syscall_x86_64_handler("vfs_read"), -1);
	assert_int_equal(bp_syscall_x86_64_handler(""), -1);
}

static void thunks(void **state)
{
	/* d calls e, then through a thunk that is still there; e returns first by a patched return, then by a
	 * thunk. */
	static const char log[] = NOCHAIN(0, ffffffff81000140, 0) NOCHAIN(0, ffffffff810001c0, 0)
	    NOCHAIN(0, ffffffff81000142, 0) NOCHAIN(0, ffffffff81000180, 0) NOCHAIN(0, ffffffff810001c0, 0)
		NOCHAIN(0, ffffffff81000200, 0) NOCHAIN(0, ffffffff81000147, 0);
	struct bp_import_stats st;
	bp_autofree char *got = import_text(log, &bp_import_qemu_exec, &with_code, &st);

	(void)state;
	assert_string_equal(got, ">d@0 >e@1 <1@2 >e@4 <1@6 .@7 ");
}

static void without_names_of_code(void **state)
{
	static const char log[] =
	    NOCHAIN(0, ffffffff81000000, 0) NOCHAIN(0, ffffffff81000040, 0) NOCHAIN(0, ffffffff81000005, 0);
	struct bp_import_stats st;
	bp_autofree char *got = import_text(log, &bp_import_qemu_exec, &without_code, &st);

	(void)state;
	assert_string_equal(got, ">a@0 <1@1 >b@1 <1@2 Ja@2 .@3 ");
	assert_int_equal(st.calls, 2);
	assert_non_null(strstr(st.stacks, "none"));
}

static void stopped_and_rewound(void **state)
{
	static const char log[] = NOCHAIN(0, ffffffff81000000, 0)
	    NOCHAIN(0, ffffffff81000040,
		    0) "Stopped execution of TB chain before 0x7f5c04000100 [ffffffff81000040] "
		       "\n" NOCHAIN(0, ffffffff81000040,
				    0) "cpu_io_recompile: rewound execution of TB to "
				       "ffffffff81000040\n" NOCHAIN(0, ffffffff81000040, 0)
					   NOCHAIN(0, ffffffff81000005,
						   0) "Stopped execution of TB chain before "
						      "0x7f5c04000100 [ffffffff81000100] \n"
						      "RAX=0000000000000000 RBX=0000000000000000\nwhat\n";
	struct bp_import_stats st;
	bp_autofree char *got = import_text(log, &bp_import_qemu_exec, &with_code, &st);

	(void)state;
	assert_string_equal(got, ">a@0 >b@1 <1@2 .@3 ");
	assert_int_equal(st.skipped, 1);
	assert_int_equal(st.first_bad_offset, strlen(log) - 5);
}

static void spellings(void **state)
{
	static const char *const logs[] = {
	    "Trace 0x7f5c04000100 [ffffffff81000000] \nTrace 0x7f5c04000200 [ffffffff81000040] \n",
	    "Trace 0x7f5c04000100 [0: ffffffff81000000] x\nTrace 0x7f5c04000200 [0: ffffffff81000040] y\n",
	    "Trace 0: 0x7f5c04000100 [0000000000000000/ffffffff81000000/0x40] \n"
	    "Trace 0: 0x7f5c04000100 [0000000000000000/ffffffff81000040/0x40] a b\n",
	    "Trace 0: 0x7f5c04000100 [00000000/ffffffff81000000/00000040/ff000200] \n"
	    "Trace 0: 0x7f5c04000100 [00000000/ffffffff81000040/00000040/ff000200] \n",
	    NOCHAIN(0, ffffffff81000000, 0) NOCHAIN(0, ffffffff81000040, 0),
	    "Trace 0: 0x7f5c04000100 [0000000000000000/ffffffff81000000/0000c2b0/ff080200] \r\n"
	    "Trace 0: 0x7f5c04000100 [0000000000000000/ffffffff81000040/0000c2b0/ff080200] \r\n",
	};
	struct bp_import_stats st;

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(logs); i++) {
		bp_autofree char *got = import_text(logs[i], &bp_import_qemu_exec, &with_code, &st);

		assert_string_equal(got, ">a@0 >b@1 .@2 ");
		assert_int_equal(st.records, 2);
		assert_int_equal(st.skipped, 0);
		assert_true(bp_import_qemu_exec.probe((const uint8_t *)logs[i], strlen(logs[i])) > 50);
	}
	{
		static const char timed[] = "2025-01-31T23:59:59.999999Z Trace 0: 0x7f5c04000100 "
					    "[00000000/ffffffff81000000/00000040/ff000200] \n"
					    "2025-02-01T00:00:00.000001Z Trace 0: 0x7f5c04000100 "
					    "[00000000/ffffffff81000040/00000040/ff000200] \n";
		bp_autofree char *got = import_text(timed, &bp_import_qemu_exec, &with_code, &st);

		assert_string_equal(got, ">a@0 >b@2000 ");
	}
	{
		static const char chained[] =
		    "Trace 0: 0x7f5c04000100 [00000000/ffffffff81000000/00000040/ff000000] \n"
		    "Linking TBs 0x7f5c04000100 index 0 -> 0x7f5c04000200\n"
		    "Trace 0: 0x7f5c04000100 [00000000/ffffffff81000040/00000040/ff000000] \n";
		bp_autofree char *got = import_text(chained, &bp_import_qemu_exec, &with_code, &st);

		assert_string_equal(got, ">a@0 <1@1 >b@1 .@2 ");
		assert_non_null(strstr(st.stacks, "nochain"));
	}
}

/* Thousands of lines of two CPUs, so that batches and the thread are used: every block is counted once. */
static void many_lines(void **state)
{
	struct bp_import_stats st;
	char *text = NULL, *got, *last0, *last1;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	for (unsigned i = 0; i < 100000; i++)
		fprintf(f, "Trace %u: 0x7f5c04000100 [%016x/%016" PRIx64 "/0000c2b0/ff080200] \n", i % 3 == 2,
			0, BASE + (i / 3 % 2 ? 0x40 : 0x5));
	fclose(f);
	got = import_text(text, &bp_import_qemu_exec, &without_code, &st);
	assert_int_equal(st.records, 100000);
	assert_int_equal(st.addresses, 100000);
	last0 = strstr(got, ".@66667 ");
	last1 = strstr(got, "cpu1 ");
	assert_non_null(last0);
	assert_non_null(last1);
	free(got);
	free(text);
}

/* ---- -trace exec_tb, log backend ---- */

static void trace_logs(void **state)
{
	static const char plain[] = "fw_cfg_add_bytes key 0x0000 'signature', 4 bytes\n"
				    "exec_tb tb:0x7f7dac000040 pc=0xffffffff81000000\n"
				    "exec_tb tb:0x7f7dac000040 pc=0xffffffff81000040\n"
				    "exec_tb_exit tb:(nil) flags=0x0\n";
	static const char timed[] = "77@1795247620.999999:exec_tb tb:0x7f7dac000040 pc=0xfffffff0\n"
				    "77@1795247621.000001:exec_tb tb:0x7f7dac000040 pc=0xffffffff81000040\n"
				    "78@1795247621.000002:exec_tb tb:0x7f7dac000040 pc=0xffffffff81000000\n"
				    "77@1795247621.000003:exec_tb tb:0x7f7dac000040 pc=0xfff";
	static const char iso[] =
	    "2025-01-31T12:34:56.123456Z exec_tb tb:0x7f7dac000040 pc=0xffffffff81000000\n"
	    "2025-01-31T12:34:56.123458Z exec_tb tb:0x7f7dac000040 pc=0xffffffff81000040\n";
	struct bp_import_stats st;
	char *got;

	(void)state;
	got = import_text(plain, &bp_import_qemu_trace_log, &without_code, &st);
	assert_string_equal(got, ">a@0 <1@1 >b@1 .@2 ");
	assert_int_equal(st.records, 4);
	assert_int_equal(st.skipped, 0);
	free(got);
	got = import_text(timed, &bp_import_qemu_trace_log, &without_code, &st);
	assert_string_equal(got, "Jfirmware and boot code@0 <1@2000 >b@2000 cpu1 >a@3000 ");
	assert_int_equal(st.records, 3);
	assert_true(st.truncated);
	free(got);
	got = import_text(iso, &bp_import_qemu_trace_log, &without_code, &st);
	assert_string_equal(got, ">a@0 <1@2000 >b@2000 ");
	free(got);
	assert_true(bp_import_qemu_trace_log.probe((const uint8_t *)timed, strlen(timed)) > 50);
	assert_int_equal(
	    bp_import_qemu_trace_log.probe((const uint8_t *)NOCHAIN(0, 0, 0), strlen(NOCHAIN(0, 0, 0))), 0);
}

/* ---- simpletrace ---- */

struct bytes {
	uint8_t data[65536];
	size_t n;
	bool swap;
};

static void put(struct bytes *b, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		b->data[b->n++] = (uint8_t)(v >> 8 * (b->swap ? n - 1 - i : i));
}

static void put_name(struct bytes *b, uint64_t id, const char *name)
{
	put(b, 0, 8);
	put(b, id, 8);
	put(b, strlen(name), 4);
	memcpy(b->data + b->n, name, strlen(name));
	b->n += strlen(name);
}

static void put_record(struct bytes *b, bool typed, uint64_t id, uint64_t ns, const uint64_t *args, size_t n)
{
	if (typed)
		put(b, 1, 8);
	put(b, id, 8);
	put(b, ns, 8);
	put(b, 24 + 8 * n, 4);
	put(b, 4711, 4);
	for (size_t i = 0; i < n; i++)
		put(b, args[i], 8);
}

static void put_header(struct bytes *b, uint64_t version)
{
	b->n = 0;
	put(b, UINT64_MAX, 8);
	put(b, 0xf2b177cb0aa429b4ull, 8);
	put(b, version, 8);
}

static void simpletraces(void **state)
{
	static struct bytes b;
	bp_autofree char *events = path_of("trace-events-all");
	struct bp_import_stats st;

	(void)state;
	put_file(events, "# c\ndisable other(int x) \"%d\"\nvcpu exec_tb(void *tb, uintptr_t pc) \"x\"\n",
		 72);
	for (uint64_t version = 2; version <= 4; version++)
		for (int swap = 0; swap < 2; swap++) {
			bool typed = version == 4;
			char *got;

			b.swap = swap;
			put_header(&b, version);
			if (typed) {
				put_name(&b, 0, "other");
				put_name(&b, 1, "exec_tb");
			}
			put_record(&b, typed, 1, 1000, (uint64_t[]){1, BASE}, 2);
			put_record(&b, typed, 0, 1001, (uint64_t[]){1, 2, 3}, 3);
			put_record(&b, typed, 1, 1005, (uint64_t[]){1, BASE + 0x40}, 2);
			put_record(&b, typed, 1, 1007, (uint64_t[]){1, BASE + 0x5}, 2);
			put(&b, 1, 5);
			assert_int_equal(bp_import_simpletrace.probe(b.data, b.n), 100);
			got = import_bytes(b.data, b.n, &bp_import_simpletrace, &with_code, &st);
			assert_string_equal(got, ">a@0 <1@5 >b@5 <1@7 Ja@7 ");
			assert_int_equal(st.records, typed ? 6 : 4);
			assert_int_equal(st.skipped, 0);
			assert_true(st.truncated);
			free(got);
		}
	unlink(events);
}

/* The number of dropped records stands before the records that filled the ring; the gap is behind them. */
static void dropped_records(void **state)
{
	static struct bytes b;
	static uint64_t filler[8000];
	struct bp_import_stats st;
	char *got;

	(void)state;
	b.swap = false;
	put_header(&b, 4);
	put_name(&b, 0, "filler");
	put_name(&b, 7, "exec_tb");
	put_record(&b, true, 7, 1000, (uint64_t[]){1, BASE}, 2);
	put_record(&b, true, UINT64_MAX - 1, 9000, (uint64_t[]){55}, 1);
	put_record(&b, true, 7, 1005, (uint64_t[]){1, BASE + 0x40}, 2);
	got = import_bytes(b.data, b.n, &bp_import_simpletrace, &without_code, &st);
	assert_string_equal(got, ">a@0 <1@5 >b@5 lost55@5 ");
	assert_int_equal(st.lost, 55);
	free(got);

	/* 40 + 5 * 52000 bytes are in the ring; the next does not fit. */
	b.n -= 48;
	put_record(&b, true, 7, 1005, (uint64_t[]){1, BASE + 0x40}, 2);
	{
		size_t len = b.n, one = 8 + 24 + 6497 * 8;
		uint8_t *big = calloc(1, len + 5 * one + 48);
		struct bytes r = {.n = 0};

		memcpy(big, b.data, len);
		put_record(&r, true, 0, 1006, filler, 6497);
		for (size_t i = 0; i < 5; i++, len += one)
			memcpy(big + len, r.data, one);
		r.n = 0;
		put_record(&r, true, 7, 2000, (uint64_t[]){1, BASE}, 2);
		memcpy(big + len, r.data, 48);
		got = import_bytes(big, len + 48, &bp_import_simpletrace, &without_code, &st);
		free(big);
	}
	/* 5 * 52000 + 40 = 260040 fit, and so does one more of 40. */
	assert_string_equal(got, ">a@0 <1@5 >b@5 <1@1000 >a@1000 lost55@1000 ");
	free(got);
}

static void broken_record(void **state)
{
	static struct bytes b;
	struct bp_import_stats st;
	size_t at;
	char *got;

	(void)state;
	b.swap = false;
	put_header(&b, 4);
	put_name(&b, 7, "exec_tb");
	put_record(&b, true, 7, 1000, (uint64_t[]){1, BASE}, 2);
	at = b.n;
	for (size_t i = 0; i < 100; i++)
		put(&b, 0xaa, 1);
	put_record(&b, true, 7, 1005, (uint64_t[]){1, BASE + 0x40}, 2);
	got = import_bytes(b.data, b.n, &bp_import_simpletrace, &without_code, &st);
	assert_string_equal(got, ">a@0 lost0@0 >b@5 ");
	assert_int_equal(st.skipped, 1);
	assert_int_equal(st.first_bad_offset, at);
	free(got);
}

/* ---- the article's own text ---- */

static void article(void **state)
{
	static const char text[] = "7806760.57896065 40087d\n"
				   "7806765.09696065 4442b0\n"
				   "7806765.65396065 entry_SYSCALL_64 in section .text\n"
				   "7806766.14496065 entry_SYSCALL_64 + 32 in section .text\n"
				   "7806788.75296065 sys_init_module in section .text\n"
				   "7806800.64896065 sys_init_module + 65 in section .text\n"
				   "7806801.94496065 capable in section .text\n"
				   "7806810.46796065 sys_init_module + 75 in section .text\n"
				   "no symbol\n";
	struct bp_import_stats st;
	bp_autofree char *got = import_text(text, &bp_import_symbolised, NULL, &st);

	(void)state;
	assert_string_equal(got,
			    "J[user]@7806760578 <1@7806765653 S >entry_SYSCALL_64@7806765653 <1@7806788752 "
			    ">sys_init_module@7806788752 <1@7806801944 >capable@7806801944 <1@7806810467 "
			    "Jsys_init_module@7806810467 ");
	assert_int_equal(st.records, 8);
	assert_int_equal(st.calls, 3);
	assert_int_equal(st.skipped, 1);
	assert_true(bp_import_symbolised.probe((const uint8_t *)text, strlen(text)) > 50);
}

/* ---- lengths of instructions ---- */

static void instructions(void **state)
{
	static const struct {
		uint8_t b[15];
		size_t len;
	} all[] = {
	    {{0x90}, 1},
	    {{0x48, 0x89, 0xe5}, 3},
	    {{0x48, 0x8b, 0x44, 0x24, 0x08}, 5},
	    {{0x48, 0x8d, 0x05, 1, 2, 3, 4}, 7},
	    {{0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, 10},
	    {{0x66, 0xb8, 1, 2}, 4},
	    {{0xf6, 0xc0, 1}, 3},
	    {{0xf6, 0xd0}, 2},
	    {{0xf7, 0x04, 0x25, 1, 2, 3, 4, 5, 6, 7, 8}, 11},
	    {{0x0f, 0x1f, 0x44, 0, 0}, 5},
	    {{0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}, 10},
	    {{0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, 9},
	    {{0xc5, 0xf8, 0x77}, 3},
	    {{0xc4, 0xe3, 0x7d, 0x19, 0xc1, 1}, 6},
	    {{0x62, 0xf1, 0x7c, 0x48, 0x28, 0x07}, 6},
	    {{0x66, 0x0f, 0x3a, 0x0f, 0xc1, 8}, 6},
	    {{0xf3, 0x0f, 0x1e, 0xfa}, 4},
	    {{0xc8, 1, 2, 3}, 4},
	    {{0xff, 0x15, 1, 2, 3, 4}, 6},
	    {{0x06}, 0},
	};
	struct bp_x86_end end;

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(all); i++) {
		assert_int_equal(bp_x86_insn_len(all[i].b, sizeof(all[i].b)), all[i].len);
		for (size_t n = 0; n < all[i].len; n++)
			assert_int_equal(bp_x86_insn_len(all[i].b, n), 0);
	}
	bp_x86_end((const uint8_t[]){0x90, 0x74, 0xfd}, 3, 0x1000, &end);
	assert_int_equal(end.flow, BP_X86_BRANCH);
	assert_int_equal(end.target, 0x1000);
	assert_int_equal(end.bytes, 3);
	bp_x86_end((const uint8_t[]){0x48, 0xcf}, 2, 0x1000, &end);
	assert_int_equal(end.flow, BP_X86_IRET);
	bp_x86_end((const uint8_t[]){0x41, 0xff, 0xe3}, 3, 0x1000, &end);
	assert_int_equal(end.flow, BP_X86_JUMP_INDIRECT);
}

/* ---- every cut of small samples ---- */

static void cuts(void **state)
{
	static const char log[] = NOCHAIN(0, 0000000000401000, 3)
	    NOCHAIN(1, ffffffff81000100,
		    0) "Stopped execution of TB chain before 0x7f5c04000100 [ffffffff81000100] \n"
		       "77@1795247620.999999:exec_tb tb:0x7f7dac000040 pc=0xfffffff0\n"
		       "7806765.65396065 entry_SYSCALL_64 + 32 in section .text\n";
	static const struct bp_importer *const all[] = {&bp_import_qemu_exec, &bp_import_qemu_trace_log,
							&bp_import_symbolised};
	struct bp_import_stats st;

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(all); i++)
		for (size_t n = 0; n < sizeof(log); n += 3)
			free(import_bytes(log, n, all[i], &with_code, &st));
}

/* ---- real traces ---- */

static char *corpus(const char *name)
{
	const char *root = getenv("BOOTPROF_CORPUS");
	char *path;

	assert_true(asprintf(&path, "%s/qemu/%s", root ? root : "../shared/corpus", name) > 0);
	if (access(path, R_OK)) {
		print_message("%s is not there (BOOTPROF_CORPUS)\n", path);
		free(path);
		return NULL;
	}
	return path;
}

static void real_traces(void **state)
{
	static const struct {
		const char *name;
		uint64_t blocks, lost;
		bool truncated;
	} files[] = {
	    {"boot-tiny.simpletrace", 722, 0, true},
	    {"boot-head.simpletrace.zst", 163117, 106273, true},
	    {"mixed-strings.simpletrace", 0, 0, false},
	};

	(void)state;
	for (size_t i = 0; i < BP_ARRAY_SIZE(files); i++) {
		bp_autofree char *path = corpus(files[i].name);
		struct bp_import_stats st;

		if (!path)
			skip();
		free(import_path(path, &bp_import_simpletrace, NULL, &st));
		assert_int_equal(st.addresses, files[i].blocks);
		assert_int_equal(st.lost, files[i].lost);
		assert_int_equal(st.truncated, files[i].truncated);
		assert_int_equal(st.skipped, 0);
	}
}

static int set_up(void **state)
{
	(void)state;
	return !mkdtemp(dir);
}

static int tear_down(void **state)
{
	bp_autofree char *in = path_of("in");

	(void)state;
	unlink(in);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(calls_from_code),
	    cmocka_unit_test(thunks),
	    cmocka_unit_test(without_names_of_code),
	    cmocka_unit_test(system_calls),
	    cmocka_unit_test(handlers_by_name),
	    cmocka_unit_test(stopped_and_rewound),
	    cmocka_unit_test(spellings),
	    cmocka_unit_test(many_lines),
	    cmocka_unit_test(trace_logs),
	    cmocka_unit_test(simpletraces),
	    cmocka_unit_test(dropped_records),
	    cmocka_unit_test(broken_record),
	    cmocka_unit_test(article),
	    cmocka_unit_test(instructions),
	    cmocka_unit_test(cuts),
	    cmocka_unit_test(real_traces),
	};

	return cmocka_run_group_tests_name("qemu import", tests, set_up, tear_down);
}
