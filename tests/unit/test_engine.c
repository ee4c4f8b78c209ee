// SPDX-License-Identifier: GPL-2.0-or-later
/* From raw records to events: what the engine writes for what a guest does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/engine_rig.h"

static struct rig rig;
static struct rig_reader reader;

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static int setup(void **state)
{
	(void)state;
	memset(&reader, 0, sizeof(reader));
	return rig_map(&rig) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	rig_unmap(&rig);
	return 0;
}

static uint64_t seed, time_scale = 1;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 20) % n;
}

static uint64_t kpc(unsigned func, unsigned off)
{
	return RIG_LINK + RIG_SLIDE + func * RIG_FUNC_BYTES + off;
}

/* ---- what a guest does, step by step: each step takes one tick of 16 ns and 10 instructions ---- */

/* Stacks: one of each task, the interrupt stack, user space. */
enum { SP = 0x100000, SP2 = 0x200000, SP_IRQ = 0x300000, SP_USER = 0x7fff0000 };

static void step(unsigned v)
{
	rig.now += 16;
	rig.insns[v] += 10;
}

static void site(unsigned v, uint64_t pc, uint32_t flags, uint32_t sp)
{
	step(v);
	rig_rec(&rig, v, rig_site(&rig, pc, flags, 4), sp, true);
}

static void entry(unsigned v, unsigned func, uint32_t sp)
{
	site(v, kpc(func, 0), BP_SITE_ENTRY, sp);
}

static void landing(unsigned v, unsigned func, uint32_t sp)
{
	site(v, kpc(func, 0x20), BP_SITE_LANDING, sp);
}

static void iret(unsigned v, unsigned func, uint32_t sp)
{
	site(v, kpc(func, 0x40), BP_SITE_IRET, sp);
}

static void ctl(unsigned v, uint32_t code, const void *data, size_t len)
{
	step(v);
	rig_ctl(&rig, v, code, data, len);
}

static uint64_t task_addr(unsigned task)
{
	return 0xffff888000010000ull + task * 0x2000;
}

static void switch_to(unsigned v, unsigned from, unsigned to, const char *comm, uint32_t pid, uint64_t mm)
{
	struct bp_ctl_switch s = {
	    .prev = task_addr(from),
	    .next = task_addr(to),
	    .pid = pid,
	    .tgid = pid,
	    .mm = mm,
	    .known = 1,
	    .flags = mm || !pid ? 0 : 0x00200000,
	};

	memcpy(s.comm, comm, strnlen(comm, sizeof(s.comm)));
	/* Inside the block that switches: its instructions are not counted yet. */
	rig.now += 16;
	rig_ctl(&rig, v, BP_CTL_SWITCH, &s, sizeof(s));
}

static void with_path(unsigned v, uint32_t code, const void *head, size_t len, const char *path)
{
	char buf[512];

	assert_true(len + strlen(path) <= sizeof(buf));
	memcpy(buf, head, len);
	memcpy(buf + len, path, strlen(path));
	ctl(v, code, buf, len + strlen(path));
}

static void exec_file(unsigned v, uint64_t mm, const char *path)
{
	struct bp_ctl_exec x = {.mm = mm, .path_len = strlen(path)};

	with_path(v, BP_CTL_EXEC, &x, sizeof(x), path);
}

static void map_file(unsigned v, uint64_t mm, uint64_t start, uint64_t end, uint64_t pgoff, const char *path)
{
	struct bp_ctl_mmap m = {
	    .mm = mm, .start = start, .end = end, .pgoff = pgoff, .path_len = strlen(path)};

	with_path(v, BP_CTL_MMAP, &m, sizeof(m), path);
}

static void fork_task(unsigned v, unsigned task, uint32_t pid, uint64_t mm)
{
	struct bp_ctl_fork f = {.task = task_addr(task), .mm = mm, .pid = pid, .tgid = pid};

	ctl(v, BP_CTL_FORK, &f, sizeof(f));
}

static void module(unsigned v, uint32_t code, const char *name, uint64_t base, const char *const *syms)
{
	struct {
		struct bp_ctl_module m;
		char syms[512];
	} x = {.m = {.base = base, .size = 0x1000, .init_base = base + 0x100000, .init_size = 0x1000}};

	memcpy(x.m.name, name, strnlen(name, sizeof(x.m.name)));
	for (unsigned i = 0; syms && syms[i]; i++) {
		uint64_t addr = base + i * 0x100;

		memcpy(x.syms + x.m.syms_len, &addr, 8);
		memcpy(x.syms + x.m.syms_len + 8, syms[i], strlen(syms[i]) + 1);
		x.m.syms_len += 8 + strlen(syms[i]) + 1;
		x.m.n_syms++;
	}
	ctl(v, code, &x, sizeof(x.m) + x.m.syms_len);
}

static void console(unsigned v, const char *text)
{
	uint64_t len = strlen(text);

	with_path(v, BP_CTL_CONSOLE, &len, sizeof(len), text);
}

static void start(unsigned vcpus)
{
	memset(rig.names, 0, sizeof(rig.names));
	memset(rig.marks, 0, sizeof(rig.marks));
	memset(&rig.o, 0, sizeof(rig.o));
	rig.o.until_hook = -1;
	rig.shm->n_hooks = 0;
	rig.shm->n_sites = 0;
	rig.names[100] = "asm_common_interrupt";
	rig.names[101] = "entry_SYSCALL_64";
	rig.names[102] = "asm_exc_page_fault";
	rig.names[103] = "do_one_initcall";
	rig.names[104] = "ret_from_fork";
	ok(rig_start(&rig, vcpus));
}

static void drain(void)
{
	uint64_t n;

	ok(bp_engine_drain(rig.e, &n));
}

static char text[8192];
static struct bp_trace *trace;

struct show {
	bool times;
};

static const char *func_name(uint32_t id, char buf[64])
{
	size_t n;
	const struct bp_func *f = bp_trace_funcs(trace, &n);

	if (f[id].name[0])
		snprintf(buf, 64, "%s", f[id].name);
	else
		snprintf(buf, 64, "%s:%llx", f[id].module, (unsigned long long)f[id].addr);
	return buf;
}

/* |v0 t1{k1 k2} +call >jump !irq -pops #syscall . (time only); with times: @ns/insns behind it. */
static void show_event(void *ctx, struct rig_reader *rr, const struct bp_block *b, const struct bp_event *ev)
{
	static const char sign[] = {
	    [BP_EV_TICK] = '.', [BP_EV_CALL] = '+',    [BP_EV_JUMP] = '>', [BP_EV_IRQ] = '!',
	    [BP_EV_RET] = '-',  [BP_EV_SYSCALL] = '#', [BP_EV_LOST] = '?'};
	const struct show *show = ctx;
	size_t n = strlen(text);
	char buf[64];

	(void)rr;
	if (n)
		text[n++] = ' ';
	if (ev->kind == BP_EV_RUN) {
		const struct bp_run *r = &b->runs[ev->arg];

		n += (size_t)snprintf(text + n, sizeof(text) - n, "|v%u t%u", r->vcpu, r->task);
		if (r->n_frames == BP_RUN_NO_STACK)
			return;
		n += (size_t)snprintf(text + n, sizeof(text) - n, "{");
		for (uint32_t i = 0; i < r->n_frames; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? " " : "",
					      func_name(b->frames[r->first_frame + i].func, buf));
		snprintf(text + n, sizeof(text) - n, "}");
		return;
	}
	n += (size_t)snprintf(text + n, sizeof(text) - n, "%c", sign[ev->kind]);
	if (ev->kind == BP_EV_CALL || ev->kind == BP_EV_JUMP || ev->kind == BP_EV_IRQ)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", func_name(ev->arg, buf));
	else if (ev->kind != BP_EV_TICK)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%u", ev->arg);
	if (show->times)
		snprintf(text + n, sizeof(text) - n, "@%u/%u", ev->dt, ev->di);
}

static void done(void)
{
	bp_trace_destroy(trace);
	trace = NULL;
	rig_reader_free(&reader);
	memset(&reader, 0, sizeof(reader));
}

/* Take what is in the rings, end the recording and compare its events; then done(). */
static void expect_shown(const char *events, struct show show)
{
	drain();
	ok(rig_end(&rig, false));
	ok(bp_trace_open(rig.path, &trace));
	text[0] = '\0';
	reader.in_order = true;
	assert_string_equal(rig_read(&reader, trace, show_event, &show), "");
	assert_string_equal(text, events);
}

static void expect(const char *events)
{
	expect_shown(events, (struct show){false});
}

static void expect_times(const char *events)
{
	expect_shown(events, (struct show){true});
}

/* All facts of a kind, in order: v0,v1,v2,v3,s1,s2 */
static void expect_facts(enum bp_fact_kind kind, const char *facts)
{
	size_t n, len = 0;
	const struct bp_fact *f = bp_trace_facts(trace, &n);

	text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		if (f[i].kind == kind)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%llu,%llu,%llu,%llu,%s,%s",
						len ? " | " : "", (unsigned long long)f[i].v[0],
						(unsigned long long)f[i].v[1], (unsigned long long)f[i].v[2],
						(unsigned long long)f[i].v[3], f[i].s1, f[i].s2);
	assert_string_equal(text, facts);
}

static void expect_marks(const char *marks)
{
	size_t n, len = 0;
	const struct bp_fact *f = bp_trace_facts(trace, &n);

	text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		if (f[i].kind == BP_FACT_MARK)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s%s%s", len ? " " : "",
						f[i].s1, f[i].s2[0] ? ":" : "", f[i].s2);
	assert_string_equal(text, marks);
}

static uint64_t calls_of(const char *name)
{
	size_t n;
	const struct bp_func *f = bp_trace_funcs(trace, &n);

	for (size_t i = 0; i < n; i++)
		if (!strcmp(f[i].name, name))
			return reader.totals[i].calls;
	return 0;
}

/* ---- calls on one stack ---- */

static void test_call_return(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	landing(0, 0, SP - 24);
	entry(0, 2, SP - 32);
	entry(0, 3, SP - 64);
	landing(0, 2, SP - 56);
	landing(0, 0, SP - 24);
	expect_times("|v0 t0{} +k0@16/10 +k1@16/10 -1@16/10 +k2@16/10 +k3@16/10 -1@16/10 -1@16/10");
	expect_marks("qemu-start first-instruction kernel");
	done();
}

static void test_tail_calls(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	/* Entered by a jump: the same return address. */
	entry(0, 2, SP - 32);
	entry(0, 3, SP - 32);
	landing(0, 0, SP - 24);
	/* A return that was not seen: the next call says so. */
	entry(0, 4, SP - 32);
	entry(0, 5, SP - 64);
	entry(0, 6, SP - 24);
	expect("|v0 t0{} +k0 +k1 >k2 >k3 -3 +k4 +k5 -2 +k6");
	done();
}

static void test_recursion(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	entry(0, 1, SP - 64);
	entry(0, 1, SP - 96);
	landing(0, 1, SP - 88);
	landing(0, 1, SP - 56);
	/* Called again from the same place, its return unseen: not a jump. */
	entry(0, 1, SP - 64);
	entry(0, 1, SP - 64);
	landing(0, 0, SP - 24);
	expect("|v0 t0{} +k0 +k1 +k1 +k1 -1 -1 +k1 -1 +k1 -2");
	assert_int_equal(reader.totals[3 + 1].calls, 5);
	/* Totals of a recursive function count its outermost call. */
	assert_int_equal(reader.totals[3 + 1].total_ns, 7 * 16);
	done();
}

static void test_loop_to_start(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	for (int i = 0; i < 3; i++)
		site(0, kpc(1, 0), BP_SITE_ENTRY | BP_SITE_LOOP, SP - 32);
	landing(0, 0, SP - 24);
	expect("|v0 t0{} +k0 +k1 -1");
	done();
}

/* A function right behind a call: which of the two it is shows in the stack pointer. */
static void test_entry_and_landing(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	site(0, kpc(2, 0), BP_SITE_ENTRY | BP_SITE_LANDING, SP - 24);
	site(0, kpc(2, 0), BP_SITE_ENTRY | BP_SITE_LANDING, SP - 32);
	landing(0, 0, SP - 24);
	expect("|v0 t0{} +k0 +k1 -1 +k2 -1");
	done();
}

static void test_unmatched_landing(void **state)
{
	(void)state;
	start(1);
	landing(0, 7, SP);
	entry(0, 1, SP - 32);
	landing(0, 7, SP - 24);
	assert_int_equal(bp_engine_status(rig.e)->unmatched, 0);
	drain();
	assert_int_equal(bp_engine_status(rig.e)->unmatched, 1);
	expect("|v0 t0{} +k7 +k1 -1");
	done();
}

/* Code that runs elsewhere than where it was translated. */
static void test_other_pc(void **state)
{
	const uint64_t pc[2] = {kpc(5, 0), 0};

	(void)state;
	start(1);
	entry(0, 0, SP);
	ctl(0, BP_CTL_PC, pc, sizeof(pc));
	entry(0, 1, SP - 32);
	entry(0, 1, SP - 64);
	expect("|v0 t0{} +k0 +k5 +k1");
	done();
}

/* ---- interrupts ---- */

static void test_interrupt(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	/* On the same stack, below what is in use. */
	entry(0, 100, SP - 96);
	entry(0, 2, SP - 128);
	landing(0, 100, SP - 120);
	iret(0, 100, SP - 96);
	landing(0, 0, SP - 24);
	/* The last block of the handler, 4 instructions, is the handler's. */
	expect_times(
	    "|v0 t0{} +k0@16/10 +k1@16/10 !asm_common_interrupt@16/10 +k2@16/10 -1@16/10 -1@16/14 -1@16/6");
	done();
}

static void test_interrupt_stack(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	entry(0, 100, SP - 96);
	/* The handler runs on the interrupt stack; another one comes on top of it. */
	entry(0, 2, SP_IRQ - 8);
	entry(0, 3, SP_IRQ - 40);
	entry(0, 100, SP_IRQ - 100);
	entry(0, 4, SP_IRQ - 132);
	landing(0, 100, SP_IRQ - 124);
	iret(0, 100, SP_IRQ - 100);
	landing(0, 2, SP_IRQ - 32);
	/* Back on the task's stack. */
	landing(0, 100, SP - 104);
	iret(0, 100, SP - 96);
	landing(0, 0, SP - 24);
	expect("|v0 t0{} +k0 +k1 !asm_common_interrupt +k2 +k3 !asm_common_interrupt +k4 -1 -1 -1 -1 -1 -1");
	done();
}

/* ---- user space ---- */

static void test_user(void **state)
{
	const uint64_t mm = 0xffff888001000000ull;

	(void)state;
	start(1);
	entry(0, 0, SP);
	switch_to(0, 0, 1, "init", 1, mm);
	map_file(0, mm, 0x400000, 0x500000, 0x1000, "/bin/init");
	entry(0, 104, SP2);
	iret(0, 104, SP2);
	site(0, 0x401000, BP_SITE_ENTRY, SP_USER);
	site(0, 0x401040, BP_SITE_ENTRY, SP_USER - 32);
	/* A system call, its number in place of the stack pointer. */
	entry(0, 101, 39);
	entry(0, 1, SP2 - 64);
	landing(0, 101, SP2 - 56);
	site(0, kpc(101, 0x60), BP_SITE_IRET, SP2 - 56);
	site(0, 0x401010, BP_SITE_LANDING, SP_USER - 24);
	/* A page fault: first on the entry stack, then on the task's. */
	entry(0, 102, SP_IRQ);
	entry(0, 2, SP2 - 200);
	landing(0, 102, SP2 - 192);
	iret(0, 102, SP_IRQ);
	/* Code of no file. */
	site(0, 0x7f0000001234, BP_SITE_ENTRY, SP_USER - 32);
	expect("|v0 t0{} +k0 . |v0 t1{} +ret_from_fork -1 +[user] +u128 +u129 #39 +entry_SYSCALL_64 +k1 -1 "
	       "-1 -1 "
	       "!asm_exc_page_fault +k2 -1 -1 +[anon]:7f0000001000");
	expect_marks("qemu-start first-instruction kernel user:init");
	done();
}

static void test_exec(void **state)
{
	const uint64_t mm = 0xffff888001000000ull, mm2 = mm + 0x1000;

	(void)state;
	start(1);
	entry(0, 0, SP);
	switch_to(0, 0, 1, "sh", 1, mm);
	map_file(0, mm, 0x400000, 0x500000, 0, "/bin/sh");
	site(0, 0x400000, BP_SITE_ENTRY, SP_USER);
	entry(0, 101, 59);
	entry(0, 1, SP2 - 64);
	exec_file(0, mm2, "/bin/prog");
	map_file(0, mm2, 0x400000, 0x500000, 0, "/bin/prog");
	entry(0, 2, SP2 - 96);
	landing(0, 1, SP2 - 88);
	landing(0, 101, SP2 - 56);
	site(0, kpc(101, 0x60), BP_SITE_IRET, SP2 - 56);
	site(0, 0x400080, BP_SITE_ENTRY, SP_USER);
	expect("|v0 t0{} +k0 . |v0 t1{} +[user] +u0 #59 +entry_SYSCALL_64 +k1 . |v0 t2{entry_SYSCALL_64 k1} "
	       "+k2 -1 -1 -1 "
	       "+[user] +u2");
	/* The system call was entered once, by the old program. */
	assert_int_equal(calls_of("entry_SYSCALL_64"), 1);
	assert_int_equal(calls_of("k1"), 1);
	assert_int_equal(calls_of("[user]"), 2);
	assert_int_equal(reader.tasks[2].cpu_ns, 6 * 16);
	expect_facts(BP_FACT_TASK, "0,0,0,6,swapper/0, | 1,1,1,0,sh, | 2,1,1,0,prog,/bin/prog");
	expect_facts(BP_FACT_TASK_PARENT, "2,1,0,0,exec,");
	expect_marks("qemu-start first-instruction kernel user:sh init-exec:/bin/prog");
	done();
}

static void test_fork(void **state)
{
	const uint64_t mm = 0xffff888001000000ull, mm2 = mm + 0x1000;

	(void)state;
	start(1);
	entry(0, 0, SP);
	switch_to(0, 0, 1, "sh", 7, mm);
	map_file(0, mm, 0x400000, 0x500000, 0, "/bin/sh");
	site(0, 0x400000, BP_SITE_ENTRY, SP_USER);
	entry(0, 101, 57);
	entry(0, 1, SP2 - 64);
	fork_task(0, 2, 8, mm2);
	switch_to(0, 1, 2, "sh", 8, mm2);
	entry(0, 104, SP);
	iret(0, 104, SP);
	site(0, 0x400040, BP_SITE_ENTRY, SP_USER - 32);
	expect("|v0 t0{} +k0 . |v0 t1{} +[user] +u0 #57 +entry_SYSCALL_64 +k1 . |v0 t2{} +ret_from_fork -1 "
	       "+[user] +u1");
	expect_facts(BP_FACT_TASK_PARENT, "2,1,0,0,fork,");
	expect_facts(BP_FACT_TASK, "0,0,0,6,swapper/0, | 1,7,7,0,sh, | 2,8,8,0,sh,");
	done();
}

/* ---- tasks ---- */

static void test_switch(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 9, SP - 32);
	switch_to(0, 0, 1, "kthreadd", 2, 0);
	/* On the other stack: jumps to k10, which returns into ret_from_fork. */
	entry(0, 10, SP2 - 8);
	entry(0, 104, SP2);
	entry(0, 1, SP2 - 32);
	entry(0, 9, SP2 - 64);
	switch_to(0, 1, 0, "swapper/0", 0, 0);
	/* Both go on in the function that switches, where they were. */
	entry(0, 10, SP - 32);
	landing(0, 0, SP - 24);
	entry(0, 9, SP - 32);
	switch_to(0, 0, 1, "kthreadd", 2, 0);
	entry(0, 10, SP2 - 64);
	landing(0, 1, SP2 - 56);
	expect_times("|v0 t0{} +k0@16/10 +k9@16/10 .@16/4 |v0 t1{} +k10@16/6 -1@16/10 +ret_from_fork@0/0 "
		     "+k1@16/10 +k9@16/10 "
		     ".@16/4 |v0 t0 >k10@16/6 -2@16/10 +k9@16/10 .@16/4 |v0 t1 >k10@16/6 -2@16/10");
	expect_facts(BP_FACT_TASK, "0,0,0,6,swapper/0, | 1,2,2,1,kthreadd,");
	done();
}

/* A task that goes on elsewhere than where it was left is another one. */
static void test_switch_elsewhere(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 9, SP - 32);
	switch_to(0, 0, 1, "kthreadd", 2, 0);
	entry(0, 10, SP2 - 8);
	switch_to(0, 1, 0, "swapper/0", 0, 0);
	entry(0, 10, SP - 72);
	expect("|v0 t0{} +k0 +k9 . |v0 t1{} +k10 . |v0 t0 -2 +k10");
	done();
}

/* A task_struct that is used again is another task. */
static void test_task_reused(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	switch_to(0, 0, 1, "first", 50, 0);
	entry(0, 104, SP2);
	entry(0, 1, SP2 - 32);
	ctl(0, BP_CTL_EXIT, (uint64_t[2]){256, 0}, 16);
	switch_to(0, 1, 0, "swapper/0", 0, 0);
	switch_to(0, 0, 1, "second", 51, 0);
	entry(0, 104, SP2);
	expect("|v0 t0{} +k0 . |v0 t1{} +ret_from_fork +k1 . |v0 t0 . |v0 t2{} +ret_from_fork");
	expect_facts(BP_FACT_TASK, "0,0,0,6,swapper/0, | 1,50,50,1,first, | 2,51,51,1,second,");
	expect_facts(BP_FACT_TASK_END, "1,256,0,0,,");
	done();
}

/* Two vCPUs whose rings are read one after the other: controls go by time. */
static void test_migration(void **state)
{
	(void)state;
	for (int chunks = 0; chunks < 2; chunks++) {
		start(2);
		entry(0, 0, SP);
		entry(1, 0, SP_IRQ);
		switch_to(1, 8, 1, "a", 10, 0);
		entry(1, 104, SP2);
		entry(1, 1, SP2 - 32);
		if (chunks)
			drain();
		switch_to(1, 1, 8, "swapper/1", 0, 0);
		switch_to(0, 9, 1, "a", 10, 0);
		landing(0, 104, SP2 - 24);
		entry(0, 2, SP2 - 32);
		if (chunks)
			drain();
		switch_to(0, 1, 9, "swapper/0", 0, 0);
		landing(1, 0, SP_IRQ);
		switch_to(1, 8, 1, "a", 10, 0);
		landing(1, 104, SP2 - 24);
		drain();
		assert_int_equal(bp_engine_status(rig.e)->stolen, 0);
		expect(chunks ? "|v0 t0{} +k0 |v1 t1{} +k0 . |v1 t2{} +ret_from_fork +k1 . |v0 t0 . |v0 t2 "
				"-1 +k2 . |v1 t1 . |v1 t2 -1"
			      : "|v0 t0{} +k0 |v1 t1{} +k0 . |v1 t2{} +ret_from_fork +k1 . |v0 t0 . |v0 t2 "
				"-1 +k2 . |v1 t1 . |v1 t2 -1");
		expect_facts(BP_FACT_TASK, "0,0,0,6,swapper/0, | 1,0,0,6,swapper/1, | 2,10,10,1,a,");
		done();
	}
}

static void test_idle(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	ctl(0, BP_CTL_IDLE, NULL, 0);
	rig.now += 1600;
	ctl(0, BP_CTL_RESUME, NULL, 0);
	entry(0, 100, SP - 64);
	iret(0, 100, SP - 64);
	ctl(0, BP_CTL_IDLE, NULL, 0);
	rig.now += 320;
	expect_times("|v0 t0{} +k0@16/10 +[halted]@16/10 -1@1616/10 !asm_common_interrupt@16/10 -1@16/14 "
		     "+[halted]@16/6 .@320/0");
	/* Instructions, ns halted, events. */
	expect_facts(BP_FACT_VCPU, "60,1936,7,0,,");
	done();
}

/* ---- modules ---- */

static void test_modules(void **state)
{
	static const char *const one[] = {"mod_init", "mod_work", NULL}, *const two[] = {"other", NULL};
	const uint64_t base = 0xffffffffc0000000ull;

	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	module(0, BP_CTL_MODULE, "one", base, one);
	site(0, base, BP_SITE_ENTRY, SP - 64);
	site(0, base + 0x100, BP_SITE_ENTRY, SP - 96);
	site(0, base + 0x20, BP_SITE_LANDING, SP - 88);
	landing(0, 1, SP - 56);
	landing(0, 0, SP - 24);
	module(0, BP_CTL_MODULE_FREE, "one", base, NULL);
	module(0, BP_CTL_MODULE, "two", base, two);
	site(0, base, BP_SITE_ENTRY, SP - 32);
	expect("|v0 t0{} +k0 +k1 +mod_init +mod_work -1 -1 -1 +other");
	expect_facts(BP_FACT_MODULE_LOAD,
		     "18446744072635809792,4096,0,2,one, | 18446744072635809792,4096,0,1,two,");
	expect_facts(BP_FACT_MODULE_UNLOAD, "0,0,0,0,one,");
	/* From the fact that it is loaded, at 1600 + 3 * 16, to the return of the function that inits it. */
	expect_facts(BP_FACT_MODULE_INIT, "1648,1728,50,0,one,");
	done();
}

/* A module that comes where one is whose unloading was not seen takes its place. */
static void test_module_replaced(void **state)
{
	static const char *const one[] = {"a", "b", NULL}, *const two[] = {"c", NULL};
	const uint64_t base = 0xffffffffc0000000ull;

	(void)state;
	start(1);
	entry(0, 0, SP);
	module(0, BP_CTL_MODULE, "one", base, one);
	site(0, base + 0x100, BP_SITE_ENTRY, SP - 32);
	landing(0, 0, SP - 24);
	module(0, BP_CTL_MODULE, "two", base, two);
	site(0, base + 0x100, BP_SITE_ENTRY, SP - 32);
	landing(0, 0, SP - 24);
	module(0, BP_CTL_MODULE_FREE, "two", base, NULL);
	site(0, base + 0x100, BP_SITE_ENTRY, SP - 32);
	expect("|v0 t0{} +k0 +b -1 +c -1 +[kernel, no symbol]:ffffffffa4000000");
	done();
}

/* ---- clocks ---- */

static void test_unstamped(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	/* 10 records of 10 instructions in 1600 ns, of which only the last one says so. */
	for (unsigned i = 1; i <= 10; i++) {
		rig.insns[0] += 10;
		if (i == 10)
			rig.now += 1600;
		rig_rec(&rig, 0, rig_site(&rig, kpc(i, 0), BP_SITE_ENTRY, 4), SP - 32 * i, i == 10);
	}
	expect_times(
	    "|v0 t0{} +k0@16/10 +k1@160/10 +k2@160/10 +k3@160/10 +k4@160/10 +k5@160/10 +k6@160/10 +k7@160/10 "
	    "+k8@160/10 +k9@160/10 +k10@160/10");
	done();
}

static void test_time_never_back(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	rig.now -= 160;
	entry(0, 2, SP - 64);
	rig.now += 320;
	entry(0, 3, SP - 96);
	expect_times("|v0 t0{} +k0@16/10 +k1@16/10 +k2@0/10 +k3@192/10");
	done();
}

static void test_counter_wraps(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	rig.insns[0] = UINT32_MAX / 2;
	entry(0, 1, SP - 32);
	rig.insns[0] = UINT32_MAX - 4;
	entry(0, 2, SP - 64);
	rig.insns[0] += 20;
	entry(0, 3, SP - 96);
	/* A long way without a record: the plugin sends the clocks in full. */
	rig.insns[0] = 20ull << 32;
	ctl(0, BP_CTL_SYNC, (uint64_t[2]){rig.now + 16, rig.insns[0] + 10}, 16);
	entry(0, 4, SP - 128);
	expect_times(
	    "|v0 t0{} +k0@16/10 +k1@16/2147483647 +k2@16/2147483644 +k3@16/30 .@32/4294967295 .@0/4294967295 "
	    ".@0/4294967295 .@0/4294967295 .@0/4294967295 .@0/4294967295 .@0/4294967295 .@0/4294967295 "
	    ".@0/4294967295 "
	    ".@0/4294967295 .@0/4294967295 .@0/4294967295 .@0/4294967295 .@0/4294967295 .@0/4294967295 "
	    ".@0/4294967295 "
	    ".@0/4294967295 .@0/4294967295 .@0/4294967295 +k4@0/4");
	done();
}

/* ---- phases ---- */

static void test_firmware(void **state)
{
	(void)state;
	start(1);
	site(0, 0xfffffff0, BP_SITE_ENTRY, 0);
	site(0, 0xf1000, BP_SITE_ENTRY, 0x6000);
	site(0, 0x10000, BP_SITE_LANDING, 0x6000);
	entry(0, 0, SP);
	entry(0, 1, SP - 32);
	/* The machine is reset. */
	site(0, 0xfffffff0, BP_SITE_ENTRY, 0);
	site(0, 0x10000, BP_SITE_ENTRY, 0);
	entry(0, 0, SP);
	expect("|v0 t0{} +SeaBIOS -1 +decompressor -1 +k0 +k1 -2 +SeaBIOS -1 +decompressor -1 +k0");
	expect_marks("qemu-start first-instruction firmware:SeaBIOS decompressor:decompressor kernel kernel");
	done();
}

static void test_initcalls(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	/* Called by somebody else it is a function like others. */
	entry(0, 201, SP - 32);
	landing(0, 0, SP - 24);
	entry(0, 103, SP - 32);
	entry(0, 200, SP - 64);
	entry(0, 201, SP - 64);
	entry(0, 210, SP - 64);
	expect("|v0 t0{} +k0 +k201 -1 +do_one_initcall +k200 >k201 >k210");
	expect_marks("qemu-start first-instruction kernel initcalls initcall-level:pure");
	done();
	start(1);
	entry(0, 0, SP);
	entry(0, 103, SP - 32);
	entry(0, 200, SP - 64);
	landing(0, 103, SP - 56);
	entry(0, 210, SP - 64);
	landing(0, 103, SP - 56);
	entry(0, 202, SP - 64);
	expect("|v0 t0{} +k0 +do_one_initcall +k200 -1 +k210 -1 +k202");
	expect_marks("qemu-start first-instruction kernel initcalls initcall-level:pure initcall-level:core");
	done();
}

static bool is_login(void *self, const char *line)
{
	(void)self;
	return !strcmp(line, "login:");
}

static void test_console(void **state)
{
	(void)state;
	start(1);
	rig.o.until_console = is_login;
	ok(rig_end(&rig, true));
	ok(rig_start(&rig, 1));
	entry(0, 0, SP);
	console(0, "Linux ver");
	console(0, "sion 6\r\n\nlast");
	console(0, "\nKernel panic - not syncing: no init\nlogin:\n");
	entry(0, 1, SP - 32);
	drain();
	assert_string_equal(bp_engine_status(rig.e)->panic_text, "Kernel panic - not syncing: no init");
	assert_true(bp_engine_status(rig.e)->ready);
	expect("|v0 t0{} +k0 .");
	expect_facts(BP_FACT_CONSOLE,
		     "0,0,0,0,Linux version 6,printk | 0,0,0,0,last,printk | "
		     "0,0,0,0,Kernel panic - not syncing: no init,printk | 0,0,0,0,login:,printk");
	done();
}

/* Nothing after the ready marker is recorded, and the clocks stop there. */
static void test_ready(void **state)
{
	(void)state;
	start(1);
	rig.shm->n_hooks = 2;
	rig.marks[0] = "panic";
	rig.o.until_hook = 1;
	rig.o.until_function = "k5";
	ok(rig_end(&rig, true));
	ok(rig_start(&rig, 1));
	entry(0, 0, SP);
	ctl(0, BP_CTL_MARK, (uint64_t[2]){0, 0}, 16);
	ctl(0, BP_CTL_MARK, (uint64_t[2]){1, 0}, 16);
	entry(0, 1, SP - 32);
	entry(0, 2, SP - 64);
	switch_to(0, 0, 1, "late", 3, 0);
	entry(0, 2, SP2);
	drain();
	assert_true(bp_engine_status(rig.e)->panic);
	assert_string_equal(bp_engine_status(rig.e)->ready_by, "k5");
	assert_int_equal(bp_engine_status(rig.e)->ready_ns, 1600 + 3 * 16);
	assert_int_equal(bp_engine_status(rig.e)->insns, 30);
	expect_times("|v0 t0{} +k0@16/10 .@32/20");
	expect_marks("qemu-start first-instruction kernel panic ready:k5");
	done();
}

static void test_until_exec(void **state)
{
	(void)state;
	start(1);
	rig.o.until_exec = "/sbin/init";
	ok(rig_end(&rig, true));
	ok(rig_start(&rig, 1));
	entry(0, 0, SP);
	exec_file(0, 0, "/sbin/initd");
	exec_file(0, 0, "/sbin/init");
	entry(0, 1, SP - 32);
	expect("|v0 t0{} +k0 . |v0 t1{k0} .");
	done();
}

/* ---- what must not be ---- */

static void refused(const char *what)
{
	uint64_t n;
	struct bp_err *err = bp_engine_drain(rig.e, &n);

	assert_non_null(err);
	assert_int_equal(bp_err_code(err), BP_EDATA);
	if (!strstr(bp_err_text(err), what))
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_non_null(strstr(bp_err_text(err), what));
	bp_err_free(err);
	ok(rig_end(&rig, true));
}

static void test_nonsense(void **state)
{
	(void)state;
	start(1);
	entry(0, 0, SP);
	rig_rec(&rig, 0, BP_CTL_SWITCH, 1, true);
	refused("longer than what was sent");
	start(1);
	rig_rec(&rig, 0, BP_CTL_SWITCH, 1, true);
	rig_put(&rig, 0, 0, 0);
	refused("makes no sense (5, 1)");
	start(1);
	rig_rec(&rig, 0, 0, 0, true);
	refused("makes no sense (0, 0)");
	start(1);
	rig_rec(&rig, 0, BP_REC_ID_MASK, 0, true);
	refused("a place that cannot exist");
	start(1);
	rig_ctl(&rig, 0, BP_CTL_SYNC, (uint64_t[2]){UINT64_MAX, 1}, 16);
	refused("makes no sense");
	start(1);
	rig.shm->vcpu[0].head = BP_RING_RECORDS + 1;
	refused("overrun");
	start(1);
	rig.shm->smp_vcpus = BP_MAX_VCPUS;
	drain();
	ok(rig_end(&rig, true));
}

/* Deeper than is kept: counted, and the stack stays right. */
static void test_too_deep(void **state)
{
	(void)state;
	start(1);
	for (uint32_t i = 0; i < BP_MAX_DEPTH + 10; i++)
		entry(0, 1, 0x800000 - i * 16 / 16 * 8);
	drain();
	assert_int_equal(bp_engine_status(rig.e)->too_deep, 0 + 10);
	landing(0, 1, 0x800000 + 8);
	entry(0, 2, 0x800000 + 8);
	drain();
	ok(rig_end(&rig, false));
	ok(bp_trace_open(rig.path, &trace));
	assert_string_equal(rig_read(&reader, trace, NULL, NULL), "");
	assert_int_equal(reader.totals[3].calls, BP_MAX_DEPTH);
	done();
}

/* A guest that runs code in more places than are told apart: the rest shares one row. */
static void test_too_many_functions(void **state)
{
	enum { PLACES = (1 << 20) + 1000 };
	size_t n;

	(void)state;
	start(1);
	entry(0, 0, SP);
	switch_to(0, 0, 1, "jit", 1, 0xffff888001000000ull);
	for (unsigned i = 0; i < PLACES; i++) {
		rig.sites[100 + i] = (struct bp_site){
		    .pc = 0x200000000ull + i * 4096ull, .flags = BP_SITE_ENTRY, .n_insns = 4};
		step(0);
		rig_rec(&rig, 0, BP_CTL_N + 100 + i, SP_USER + i * 8, true);
		if (i % 100000 == 0)
			drain();
	}
	rig.shm->n_sites = 100 + PLACES;
	entry(0, 1, SP2);
	entry(0, 2, SP2 - 32);
	drain();
	ok(rig_end(&rig, false));
	ok(bp_trace_open(rig.path, &trace));
	assert_string_equal(rig_read(&reader, trace, NULL, NULL), "");
	bp_trace_funcs(trace, &n);
	assert_int_equal(n, (1 << 20) + 2);
	assert_true(calls_of("[too many functions]") >= 1000);
	done();
	rig.shm->n_sites = 0;
}

/* ---- --max-size ---- */

#define STORM_TASKS 6
#define STORM_FUNCS 150

/* Entries of interrupts, of system calls, and the function after them. */
enum { K_IRQ = 190, K_SYSCALL, K_DO_SYSCALL };

struct storm_task {
	uint32_t base, slots[400], func[400], n;
};

static void storm_step(uint64_t ticks, unsigned v)
{
	rig.now += ticks * 16 * time_scale;
	rig.insns[v] += 1 + rnd(90);
}

static void storm_entry(struct storm_task *t, unsigned v, unsigned func, uint32_t slot)
{
	uint32_t id = rig_site(&rig, kpc(func, 0), BP_SITE_ENTRY, 4);

	rig_rec(&rig, v, id, slot, true);
	if (t->n < 400) {
		t->slots[t->n] = slot;
		t->func[t->n++] = func;
	}
}

/* The same calls, returns, interrupts, system calls and switches for the same @seed_value. */
static void storm(uint64_t seed_value, unsigned n_ops, unsigned vcpus)
{
	static struct storm_task tasks[STORM_TASKS];
	unsigned running[2] = {0, 1};
	bool stopped[STORM_TASKS] = {false};
	uint64_t n;

	seed = seed_value;
	memset(tasks, 0, sizeof(tasks));
	for (unsigned i = 0; i < STORM_TASKS; i++)
		tasks[i].base = 0x100000u * (i + 1);
	for (unsigned i = 0; i < n_ops; i++) {
		unsigned v = rnd(vcpus), what = rnd(1000), func = rnd(4) ? rnd(12) : rnd(STORM_FUNCS);
		struct storm_task *t = &tasks[running[v]];
		uint32_t sp = t->n ? t->slots[t->n - 1] : t->base;

		storm_step(rnd(20) ? rnd(6) : rnd(2000), v);
		if (what < 480 && t->n < 300) {
			/* A call; now and then to itself, or by a jump. */
			if (t->n && what < 30)
				func = t->func[t->n - 1];
			if (t->n && what >= 30 && what < 60)
				storm_entry(t, v, func, sp);
			else
				storm_entry(t, v, func, sp - 16 - 8 * rnd(4));
		} else if (what < 960 && t->n) {
			/* A return, of one or more. */
			uint32_t k = rnd(8) ? 1 : 1 + rnd(t->n), to;

			if (k > t->n)
				k = t->n;
			to = t->slots[t->n - k] + 8;
			while (t->n && t->slots[t->n - 1] < to)
				t->n--;
			rig_rec(&rig, v,
				rig_site(&rig, kpc(t->n ? t->func[t->n - 1] : 0, 0x40), BP_SITE_LANDING, 5),
				to, true);
		} else if (what < 975 && t->n && t->n < 300) {
			storm_entry(t, v, K_IRQ, sp - 64);
		} else if (what < 990) {
			unsigned to = rnd(STORM_TASKS);

			if (to != running[0] && to != running[1] && t->n < 300) {
				struct bp_ctl_switch s = {
				    .prev = 0xffff888000000000ull + running[v] * 0x1000,
				    .next = 0xffff888000000000ull + to * 0x1000,
				    .pid = to + 1,
				    .tgid = to + 1,
				    .known = 1,
				    .comm = "task",
				};

				/* Never two at the same time. */
				storm_step(1, v);
				rig_ctl(&rig, v, BP_CTL_SWITCH, &s, sizeof(s));
				running[v] = to;
				/* Where it was when it stopped: in the function that switches. */
				if (stopped[to] && tasks[to].n) {
					storm_step(1, v);
					rig_rec(&rig, v,
						rig_site(&rig, kpc(tasks[to].func[tasks[to].n - 1], 0),
							 BP_SITE_ENTRY, 4),
						tasks[to].slots[tasks[to].n - 1], true);
				}
				for (unsigned j = 0; j < STORM_TASKS; j++)
					stopped[j] = true;
			}
		} else if (what < 995) {
			rig_ctl(&rig, v, BP_CTL_IDLE, NULL, 0);
			storm_step(rnd(3000), v);
			rig_ctl(&rig, v, BP_CTL_RESUME, NULL, 0);
		}
		if (i % 5000 == 4999)
			ok(bp_engine_drain(rig.e, &n));
	}
	ok(bp_engine_drain(rig.e, &n));
}

struct outcome {
	struct rig_total *totals;
	size_t n_funcs;
	uint64_t bytes, folded, events, fold_chunks;
	bool events_ended;
};

static struct outcome storm_outcome(uint64_t seed_value, unsigned n_ops, unsigned vcpus, uint64_t max_bytes)
{
	struct rig_reader rr = {.in_order = true};
	struct outcome o = {0};
	struct bp_trace *t = NULL;

	rig.o.max_bytes = max_bytes;
	ok(rig_start(&rig, vcpus));
	storm(seed_value, n_ops, vcpus);
	o.folded = bp_engine_status(rig.e)->folded_calls;
	ok(rig_end(&rig, false));
	rig.o.max_bytes = 0;
	ok(bp_trace_open(rig.path, &t));
	assert_string_equal(rig_read(&rr, t, NULL, NULL), "");
	bp_trace_funcs(t, &o.n_funcs);
	o.totals = rr.totals;
	rr.totals = NULL;
	o.bytes = bp_trace_bytes(t);
	o.events = rr.events;
	o.events_ended = bp_trace_info(t, "events_end_ns") != NULL;
	rig_reader_free(&rr);
	bp_trace_destroy(t);
	return o;
}

static void compare_totals(const struct outcome *a, const struct outcome *b)
{
	assert_int_equal(a->n_funcs, b->n_funcs);
	for (size_t i = 0; i < a->n_funcs; i++) {
		const struct rig_total *x = &a->totals[i], *y = &b->totals[i];

		if (memcmp(x, y, sizeof(*x)))
			print_message("function %zu: calls %llu %llu, self %llu %llu ns, %llu %llu insns, "
				      "total %llu %llu ns, %llu %llu insns\n",
				      i, (unsigned long long)x->calls, (unsigned long long)y->calls,
				      (unsigned long long)x->self_ns, (unsigned long long)y->self_ns,
				      (unsigned long long)x->self_insns, (unsigned long long)y->self_insns,
				      (unsigned long long)x->total_ns, (unsigned long long)y->total_ns,
				      (unsigned long long)x->total_insns, (unsigned long long)y->total_insns);
		assert_memory_equal(x, y, sizeof(*x));
	}
}

/* Whatever is left out of the events is in the totals: they are those of a recording without a bound. */
static void test_fold_totals(void **state)
{
	static const uint64_t bounds[] = {20000, 100000, 300000, 1000000};
	enum { OPS = 300000 };

	(void)state;
	rig.names[K_IRQ] = "asm_common_interrupt";
	for (uint64_t s = 1; s <= 3; s++) {
		unsigned vcpus = s == 1 ? 1 : 2;
		struct outcome all = storm_outcome(s * 77777, OPS, vcpus, 0);

		for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
			struct outcome o = storm_outcome(s * 77777, OPS, vcpus, bounds[i]);

			print_message("# bound %llu: %llu bytes, %llu events (of %llu), %llu folded%s\n",
				      (unsigned long long)bounds[i], (unsigned long long)o.bytes,
				      (unsigned long long)o.events, (unsigned long long)all.events,
				      (unsigned long long)o.folded, o.events_ended ? ", events ended" : "");
			compare_totals(&all, &o);
			/* The smallest one has no room for the first block. */
			if (i)
				assert_true(o.bytes <= bounds[i] + bounds[i] / 50);
			free(o.totals);
		}
		free(all.totals);
	}
}

/* A recorder that is killed loses what came after the last chunk of totals, and adds nothing up wrongly. */
static void test_fold_killed(void **state)
{
	enum { OPS = 400000 };
	struct rig_reader rr = {.in_order = true};
	struct outcome all;
	struct bp_trace *t = NULL;
	uint64_t calls = 0, all_calls = 0;
	size_t n_funcs;

	(void)state;
	rig.names[K_IRQ] = "asm_common_interrupt";
	/* So that it takes seconds. */
	time_scale = 20;
	all = storm_outcome(4242, OPS, 2, 0);
	rig.o.max_bytes = 200000;
	ok(rig_start(&rig, 2));
	storm(4242, OPS, 2);
	time_scale = 1;
	ok(rig_end(&rig, true));
	rig.o.max_bytes = 0;
	ok(bp_trace_open(rig.path, &t));
	assert_true(bp_trace_damage(t)->unfinished);
	assert_int_equal(bp_trace_damage(t)->bad_chunks + bp_trace_damage(t)->missing_chunks, 0);
	assert_string_equal(rig_read(&rr, t, NULL, NULL), "");
	bp_trace_funcs(t, &n_funcs);
	for (size_t i = 0; i < n_funcs; i++) {
		calls += rr.totals[i].calls;
		all_calls += all.totals[i].calls;
		assert_true(rr.totals[i].calls <= all.totals[i].calls);
		assert_true((int64_t)rr.totals[i].self_ns >= 0);
		assert_true((int64_t)rr.totals[i].self_insns >= 0);
	}
	print_message("# %llu of %llu calls left\n", (unsigned long long)calls,
		      (unsigned long long)all_calls);
	assert_true(calls > all_calls / 2);
	rig_reader_free(&rr);
	free(all.totals);
	bp_trace_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_call_return, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_tail_calls, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_recursion, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_loop_to_start, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_entry_and_landing, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unmatched_landing, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_other_pc, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_interrupt, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_interrupt_stack, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_user, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_exec, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_fork, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_switch, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_switch_elsewhere, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_task_reused, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_migration, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_idle, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_modules, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_module_replaced, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unstamped, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_time_never_back, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_counter_wraps, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_firmware, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_initcalls, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_console, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_until_exec, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_too_deep, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_too_many_functions, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_fold_totals, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_fold_killed, setup, teardown),
	};

	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
