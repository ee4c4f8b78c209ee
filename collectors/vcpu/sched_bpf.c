// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/vcpu/sched_bpf.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"

#define RING_LEAST ((size_t)256 << 10)
#define RING_MOST ((size_t)64 << 20)
#define STACKS_MAX 16384
#define FUTEX_STACKS 16 /* a power of two: of so many sleeps in futex(2) one has its stack taken */
#define INSNS_MAX 128

/* struct pt_regs of x86-64: what a program entered the kernel with. */
#define PT_AX 80
#define PT_DX 96
#define PT_SI 104
#define PT_DI 112
#define PT_ORIG_AX 120

/* prev_state of sched_switch without the bits that only say how it was preempted (TASK_REPORT_MAX and above).
 */
#define STATE_ASLEEP 0xff
#define THREAD_SIZE 0x4000 /* of a kernel stack (arch/x86/include/asm/page_64_types.h), without KASAN */

/* What the programs have to know of this kernel. */
struct layout {
	int task_pid; /* offset of pid in struct task_struct; tgid follows */
	int task_stack;
};

struct bp_sched_bpf {
	int ring_fd, lost_fd, stacks_fd;
	int fds[4]; /* of the programs, and of their links */
	struct layout layout;
	struct ring_buffer *ring;
	struct bp_sched_lost
	    *losses;   /* in the map; what is lost there, in all, and since first_ns was taken */
	uint64_t lost; /* in all, as of the last read */
	struct bp_err *(*seen)(void *self, const struct bp_sched_event *e);
	void *self;
	struct bp_err *err; /* of seen */
};

/* ---- the programs ---- */

enum {
	L_NONE,
	L_END,
	L_NEXT,
	L_TAKE,
	L_STORE,
	L_WRITE,
	L_NOT_IN,
	L_IRQ,
	L_NO_MUTEX,
	L_NO_GUEST,
	L_BOTH,
	L_NOT_FIRST,
	LABELS
};

/* A program being made. Jumps have the number of a label for their distance until it is done. */
struct prog {
	struct bpf_insn insns[INSNS_MAX];
	size_t n;
	size_t labels[LABELS];
};

static void emit(struct prog *p, uint8_t code, uint8_t dst, uint8_t src, int16_t off, int32_t imm)
{
	if (p->n < INSNS_MAX)
		p->insns[p->n] = (struct bpf_insn){
		    .code = code, .dst_reg = dst & 15, .src_reg = src & 15, .off = off, .imm = imm};
	p->n++;
}

static void call(struct prog *p, int32_t function)
{
	emit(p, BPF_JMP | BPF_CALL, 0, 0, 0, function);
}

static void move(struct prog *p, uint8_t dst, uint8_t src)
{
	emit(p, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

static void set(struct prog *p, uint8_t dst, int32_t imm)
{
	emit(p, BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm);
}

static void alu(struct prog *p, uint8_t op, uint8_t dst, int32_t imm)
{
	emit(p, (uint8_t)(BPF_ALU64 | op | BPF_K), dst, 0, 0, imm);
}

static void load(struct prog *p, uint8_t size, uint8_t dst, uint8_t src, int off)
{
	emit(p, (uint8_t)(BPF_LDX | BPF_MEM | size), dst, src, (int16_t)off, 0);
}

static void jump(struct prog *p, uint8_t op, uint8_t reg, int32_t imm, int16_t label)
{
	emit(p, (uint8_t)(BPF_JMP | op | BPF_K), reg, 0, label, imm);
}

static void label(struct prog *p, int name)
{
	p->labels[name] = p->n;
}

static void map(struct prog *p, uint8_t dst, int fd)
{
	emit(p, BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_FD, 0, fd);
	emit(p, 0, 0, 0, 0, 0);
}

/* The record is built on the stack, at its end. */
#define REC (-(int)sizeof(struct bp_sched_event))
#define AT(field) (REC + (int)offsetof(struct bp_sched_event, field))
#define SIZE_OF(field) (sizeof(((struct bp_sched_event *)0)->field) == 8 ? BPF_DW : BPF_W)
#define STORE(p, field, reg) emit(p, BPF_STX | BPF_MEM | SIZE_OF(field), BPF_REG_10, reg, AT(field), 0)
#define LOSS(field) ((int16_t)offsetof(struct bp_sched_lost, field))
/* Below it, what is read of another thread: pid and tgid. */
#define OTHER (REC - 8)

/* @reg: gets the address of what is at an offset in the frame */
static void frame(struct prog *p, uint8_t reg, int off)
{
	move(p, reg, BPF_REG_10);
	alu(p, BPF_ADD, reg, off);
}

/* An empty record with who is on the CPU; r6 is its pid_tgid, r9 the context. */
static void begin(struct prog *p)
{
	move(p, BPF_REG_9, BPF_REG_1);
	for (int off = REC; off < 0; off += 8)
		emit(p, BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, (int16_t)off, 0);
	call(p, BPF_FUNC_get_current_pid_tgid);
	move(p, BPF_REG_6, BPF_REG_0);
	STORE(p, tid, BPF_REG_6);
}

/* The time, before anything that takes long. */
static void stamp(struct prog *p)
{
	call(p, BPF_FUNC_ktime_get_ns);
	STORE(p, time_ns, BPF_REG_0);
}

/* @arg: of the tracepoint, a task: its tgid comes into r1, its pid into the record */
static void look_at_other(struct prog *p, const struct layout *l, int arg)
{
	frame(p, BPF_REG_1, OTHER);
	set(p, BPF_REG_2, 8);
	load(p, BPF_DW, BPF_REG_3, BPF_REG_9, 8 * arg);
	alu(p, BPF_ADD, BPF_REG_3, l->task_pid);
	call(p, BPF_FUNC_probe_read_kernel);
	load(p, BPF_W, BPF_REG_1, BPF_REG_10, OTHER);
	STORE(p, other, BPF_REG_1);
	load(p, BPF_W, BPF_REG_1, BPF_REG_10, OTHER + 4);
}

/* r6: number of the system call that the current thread is in, its arguments go into the record; r8: the task
 */
static void look_at_call(struct prog *p)
{
	call(p, BPF_FUNC_get_current_task_btf);
	move(p, BPF_REG_8, BPF_REG_0);
	move(p, BPF_REG_1, BPF_REG_0);
	call(p, BPF_FUNC_task_pt_regs);
	load(p, BPF_DW, BPF_REG_1, BPF_REG_0, PT_AX);
	STORE(p, result, BPF_REG_1);
	load(p, BPF_DW, BPF_REG_1, BPF_REG_0, PT_DI);
	STORE(p, addr, BPF_REG_1);
	load(p, BPF_DW, BPF_REG_1, BPF_REG_0, PT_SI);
	STORE(p, op, BPF_REG_1);
	load(p, BPF_DW, BPF_REG_1, BPF_REG_0, PT_DX);
	STORE(p, val, BPF_REG_1);
	load(p, BPF_DW, BPF_REG_6, BPF_REG_0, PT_ORIG_AX);
	STORE(p, call, BPF_REG_6);
}

/* Writes the record, or counts it as lost; and the end. */
static void finish(struct prog *p, const struct bp_sched_bpf *s)
{
	call(p, BPF_FUNC_get_smp_processor_id);
	STORE(p, cpu, BPF_REG_0);
	frame(p, BPF_REG_1, AT(comm));
	set(p, BPF_REG_2, sizeof(((struct bp_sched_event *)0)->comm));
	call(p, BPF_FUNC_get_current_comm);
	map(p, BPF_REG_1, s->ring_fd);
	frame(p, BPF_REG_2, REC);
	set(p, BPF_REG_3, sizeof(struct bp_sched_event));
	/* Nobody is to be woken: it is read now and then. */
	set(p, BPF_REG_4, BPF_RB_NO_WAKEUP);
	call(p, BPF_FUNC_ringbuf_output);
	jump(p, BPF_JEQ, BPF_REG_0, 0, L_END);
	emit(p, BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, OTHER, 0);
	map(p, BPF_REG_1, s->lost_fd);
	frame(p, BPF_REG_2, OTHER);
	call(p, BPF_FUNC_map_lookup_elem);
	jump(p, BPF_JEQ, BPF_REG_0, 0, L_END);
	set(p, BPF_REG_1, 1);
	emit(p, BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, LOSS(n), BPF_ADD);
	load(p, BPF_DW, BPF_REG_1, BPF_REG_10, AT(time_ns));
	load(p, BPF_DW, BPF_REG_2, BPF_REG_0, LOSS(first_ns));
	jump(p, BPF_JNE, BPF_REG_2, 0, L_NOT_FIRST);
	emit(p, BPF_STX | BPF_MEM | BPF_DW, BPF_REG_0, BPF_REG_1, LOSS(first_ns), 0);
	label(p, L_NOT_FIRST);
	emit(p, BPF_STX | BPF_MEM | BPF_DW, BPF_REG_0, BPF_REG_1, LOSS(last_ns), 0);
	label(p, L_END);
	set(p, BPF_REG_0, 0);
	emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* Returns the program's descriptor, or a negative errno. */
static int make(struct prog *p)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);

	if (p->n > INSNS_MAX)
		return -E2BIG;
	for (size_t i = 0; i < p->n; i++) {
		uint8_t op = BPF_OP(p->insns[i].code);

		if (BPF_CLASS(p->insns[i].code) == BPF_JMP && op != BPF_CALL && op != BPF_EXIT)
			p->insns[i].off = (int16_t)(p->labels[p->insns[i].off] - i - 1);
	}
	return bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "bootprof_sched", "GPL", p->insns, p->n, &opts);
}

/* sched_switch(preempt, prev, next, prev_state): prev is still the current thread. r7: what is in the record
 */
static int make_switch(const struct bp_sched_bpf *s, pid_t pid)
{
	struct prog p = {0};

	begin(&p);
	set(&p, BPF_REG_7, 0);
	move(&p, BPF_REG_1, BPF_REG_6);
	alu(&p, BPF_RSH, BPF_REG_1, 32);
	jump(&p, BPF_JNE, BPF_REG_1, pid, L_NEXT);

	set(&p, BPF_REG_7, BP_SCHED_OUT);
	stamp(&p);
	look_at_call(&p);
	jump(&p, BPF_JNE, BPF_REG_6, SYS_futex, L_NO_MUTEX);
	/* The memory of the current thread; it is there, as the word has just been looked at. */
	frame(&p, BPF_REG_1, AT(mutex));
	set(&p, BPF_REG_2, sizeof(((struct bp_sched_event *)0)->mutex));
	load(&p, BPF_DW, BPF_REG_3, BPF_REG_10, AT(addr));
	alu(&p, BPF_ADD, BPF_REG_3, BP_MUTEX_OWNER);
	call(&p, BPF_FUNC_probe_read_user);
	label(&p, L_NO_MUTEX);
	/* Which stacks to take: of who could go on none, but of those in a guest's run, where they tell why
	 * it is not; of sleeps in futex(2) few. */
	set(&p, BPF_REG_8, -1);
	load(&p, BPF_DW, BPF_REG_2, BPF_REG_9, 24);
	load(&p, BPF_DW, BPF_REG_1, BPF_REG_9, 0);
	alu(&p, BPF_AND, BPF_REG_1, 1);
	alu(&p, BPF_LSH, BPF_REG_1, 31);
	emit(&p, BPF_ALU64 | BPF_OR | BPF_X, BPF_REG_2, BPF_REG_1, 0, 0);
	STORE(&p, state, BPF_REG_2);
	jump(&p, BPF_JNE, BPF_REG_6, SYS_ioctl, L_NO_GUEST);
	load(&p, BPF_W, BPF_REG_3, BPF_REG_10, AT(op));
	jump(&p, BPF_JEQ, BPF_REG_3, KVM_RUN, L_TAKE);
	label(&p, L_NO_GUEST);
	jump(&p, BPF_JNE, BPF_REG_1, 0, L_STORE);
	alu(&p, BPF_AND, BPF_REG_2, STATE_ASLEEP);
	jump(&p, BPF_JEQ, BPF_REG_2, 0, L_STORE);
	jump(&p, BPF_JNE, BPF_REG_6, SYS_futex, L_TAKE);
	call(&p, BPF_FUNC_get_prandom_u32);
	alu(&p, BPF_AND, BPF_REG_0, FUTEX_STACKS - 1);
	jump(&p, BPF_JNE, BPF_REG_0, 0, L_STORE);
	label(&p, L_TAKE);
	move(&p, BPF_REG_1, BPF_REG_9);
	map(&p, BPF_REG_2, s->stacks_fd);
	set(&p, BPF_REG_3, 0);
	call(&p, BPF_FUNC_get_stackid);
	move(&p, BPF_REG_8, BPF_REG_0);
	jump(&p, BPF_JSGE, BPF_REG_8, 0, L_STORE);
	/* Its place in the map is another's: without the innermost frame, which is the tracing's own, it has
	 * another one. */
	move(&p, BPF_REG_1, BPF_REG_9);
	map(&p, BPF_REG_2, s->stacks_fd);
	set(&p, BPF_REG_3, 1);
	call(&p, BPF_FUNC_get_stackid);
	move(&p, BPF_REG_8, BPF_REG_0);
	label(&p, L_STORE);
	STORE(&p, stack, BPF_REG_8);

	label(&p, L_NEXT);
	look_at_other(&p, &s->layout, 2);
	jump(&p, BPF_JNE, BPF_REG_1, pid, L_NOT_IN);
	jump(&p, BPF_JNE, BPF_REG_7, 0, L_BOTH);
	stamp(&p);
	label(&p, L_BOTH);
	alu(&p, BPF_OR, BPF_REG_7, BP_SCHED_IN);
	label(&p, L_NOT_IN);
	jump(&p, BPF_JEQ, BPF_REG_7, 0, L_END);
	STORE(&p, what, BPF_REG_7);
	finish(&p, s);
	return make(&p);
}

/*
 * sched_waking(task). An interrupt does not show in the thread that it hits, and preempt_count has another
 * place in every kernel. But an interrupt has a stack of its own, which the tracepoint's arguments are on;
 * unless it hits user mode: then it is on the thread's, and the user's registers are those of an interrupt.
 */
static int make_waking(const struct bp_sched_bpf *s, pid_t pid)
{
	struct prog p = {0};

	begin(&p);
	look_at_other(&p, &s->layout, 0);
	alu(&p, BPF_RSH, BPF_REG_6, 32);
	jump(&p, BPF_JEQ, BPF_REG_6, pid, L_WRITE);
	jump(&p, BPF_JNE, BPF_REG_1, pid, L_END);
	label(&p, L_WRITE);
	set(&p, BPF_REG_7, BP_SCHED_WAKE);
	stamp(&p);
	look_at_call(&p);
	jump(&p, BPF_JEQ, BPF_REG_6, -1, L_IRQ);
	/* The context as a number. */
	emit(&p, BPF_STX | BPF_MEM | BPF_DW, BPF_REG_10, BPF_REG_9, OTHER, 0);
	frame(&p, BPF_REG_1, OTHER - 8);
	set(&p, BPF_REG_2, 8);
	frame(&p, BPF_REG_3, OTHER);
	call(&p, BPF_FUNC_probe_read_kernel);
	load(&p, BPF_DW, BPF_REG_1, BPF_REG_10, OTHER - 8);
	load(&p, BPF_DW, BPF_REG_2, BPF_REG_8, s->layout.task_stack);
	emit(&p, BPF_ALU64 | BPF_SUB | BPF_X, BPF_REG_1, BPF_REG_2, 0, 0);
	jump(&p, BPF_JLT, BPF_REG_1, THREAD_SIZE, L_STORE);
	label(&p, L_IRQ);
	set(&p, BPF_REG_7, BP_SCHED_WAKE | BP_SCHED_IRQ);
	label(&p, L_STORE);
	STORE(&p, what, BPF_REG_7);
	finish(&p, s);
	return make(&p);
}

/* ---- setting up ---- */

/* @rc: of libbpf, a negative errno */
static struct bp_err *refused(int rc, const char *what)
{
	if (rc == -EPERM)
		return bp_err_new(
		    BP_EUNSUPPORTED,
		    "BPF: %s: no permission; run bootprof as root, or with CAP_BPF and CAP_PERFMON", what);
	if (rc == -EACCES || rc == -EINVAL)
		return bp_err_new(BP_EUNSUPPORTED, "BPF: %s: not with this kernel (%s)", what, strerror(-rc));
	return bp_err_new(BP_EUNSUPPORTED, "BPF: %s: %s", what, strerror(-rc));
}

static void bp_sched_bpf_destroyp(struct bp_sched_bpf **s)
{
	bp_sched_bpf_destroy(*s);
}

/* Byte offset of a member, also of one in a struct without a name; -1: there is none. */
static int member_at(const struct btf *btf, int type, const char *name, int depth)
{
	const struct btf_type *t = btf__type_by_id(btf, (uint32_t)type);
	const struct btf_member *m = t && btf_is_composite(t) ? btf_members(t) : NULL;

	for (uint32_t i = 0; m && i < btf_vlen(t) && depth < 8; i++) {
		const char *its = btf__name_by_offset(btf, m[i].name_off);
		int at = (int)(btf_member_bit_offset(t, i) / 8), in;

		if (its && !strcmp(its, name))
			return at;
		in = its && *its ? -1 : member_at(btf, (int)m[i].type, name, depth + 1);
		if (in >= 0)
			return at + in;
	}
	return -1;
}

static void free_btf(struct btf **btf)
{
	btf__free(*btf);
}

static BP_MUST_CHECK struct bp_err *find_layout(struct layout *l)
{
	bp_cleanup(free_btf) struct btf *btf = btf__load_vmlinux_btf();
	int task;

	if (!btf)
		return refused(-errno, "type information of the kernel (/sys/kernel/btf/vmlinux)");
	task = btf__find_by_name_kind(btf, "task_struct", BTF_KIND_STRUCT);
	l->task_pid = member_at(btf, task, "pid", 0);
	l->task_stack = member_at(btf, task, "stack", 0);
	if (l->task_pid < 0 || l->task_stack < 0 || member_at(btf, task, "tgid", 0) != l->task_pid + 4)
		return bp_err_new(BP_EUNSUPPORTED, "BPF: struct task_struct is not as expected");
	return NULL;
}

static int on_record(void *self, void *data, size_t size)
{
	struct bp_sched_bpf *s = self;
	struct bp_sched_event e;

	if (size < sizeof(e))
		return 0;
	memcpy(&e, data, sizeof(e));
	s->err = s->seen(s->self, &e);
	return s->err ? -ECANCELED : 0;
}

void bp_sched_bpf_stop(struct bp_sched_bpf *s)
{
	for (size_t i = 0; i < BP_ARRAY_SIZE(s->fds); i++) {
		bp_closep(&s->fds[i]);
		s->fds[i] = -1;
	}
}

struct bp_err *bp_sched_bpf_attach(struct bp_sched_bpf *s, pid_t pid)
{
	bp_sched_bpf_stop(s);
	s->fds[0] = make_switch(s, pid);
	s->fds[1] = make_waking(s, pid);
	if (s->fds[0] < 0 || s->fds[1] < 0)
		return refused(s->fds[0] < 0 ? s->fds[0] : s->fds[1], "a program");
	s->fds[2] = bpf_raw_tracepoint_open("sched_switch", s->fds[0]);
	if (s->fds[2] < 0)
		return refused(s->fds[2], "sched_switch");
	s->fds[3] = bpf_raw_tracepoint_open("sched_waking", s->fds[1]);
	return s->fds[3] < 0 ? refused(s->fds[3], "sched_waking") : NULL;
}

struct bp_err *bp_sched_bpf_create(size_t bytes, struct bp_sched_bpf **ret)
{
	bp_cleanup(bp_sched_bpf_destroyp) struct bp_sched_bpf *s = calloc(1, sizeof(*s));
	LIBBPF_OPTS(bpf_map_create_opts, shared, .map_flags = BPF_F_MMAPABLE);
	size_t ring = RING_LEAST;
	void *losses;
	struct bp_err *err;

	if (!s)
		return bp_err_nomem();
	s->ring_fd = s->lost_fd = s->stacks_fd = -1;
	for (size_t i = 0; i < BP_ARRAY_SIZE(s->fds); i++)
		s->fds[i] = -1;
	/* Errors come as numbers; nobody wants the library's own lines. */
	libbpf_set_print(NULL);
	err = find_layout(&s->layout);
	if (err)
		return err;
	while (ring * 2 <= bytes && ring < RING_MOST)
		ring *= 2;
	s->ring_fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "bootprof_sched", 0, 0, (uint32_t)ring, NULL);
	if (s->ring_fd < 0)
		return refused(s->ring_fd, "a ring buffer");
	s->lost_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "bootprof_lost", 4, sizeof(*s->losses), 1, &shared);
	if (s->lost_fd < 0)
		return refused(s->lost_fd, "an array");
	losses = mmap(NULL, sizeof(*s->losses), PROT_READ | PROT_WRITE, MAP_SHARED, s->lost_fd, 0);
	if (losses == MAP_FAILED)
		return refused(-errno, "mapping an array");
	s->losses = losses;
	s->stacks_fd = bpf_map_create(BPF_MAP_TYPE_STACK_TRACE, "bootprof_stacks", 4,
				      BP_SCHED_FRAMES * sizeof(uint64_t), STACKS_MAX, NULL);
	if (s->stacks_fd < 0)
		return refused(s->stacks_fd, "a map of stacks");
	/* How many arguments a tracepoint has is looked at when a program is attached. No process has this
	 * number. */
	err = bp_sched_bpf_attach(s, -1);
	if (err)
		return err;
	bp_sched_bpf_stop(s);
	s->ring = ring_buffer__new(s->ring_fd, on_record, s, NULL);
	if (!s->ring)
		return refused(-errno, "mapping the ring buffer");
	*ret = bp_steal(s);
	return NULL;
}

void bp_sched_bpf_destroy(struct bp_sched_bpf *s)
{
	if (!s)
		return;
	bp_sched_bpf_stop(s);
	ring_buffer__free(s->ring);
	if (s->losses)
		munmap(s->losses, sizeof(*s->losses));
	bp_closep(&s->ring_fd);
	bp_closep(&s->lost_fd);
	bp_closep(&s->stacks_fd);
	free(s);
}

/* ---- what they have seen ---- */

struct bp_err *bp_sched_bpf_read(struct bp_sched_bpf *s,
				 struct bp_err *(*seen)(void *self, const struct bp_sched_event *e),
				 void *self, struct bp_sched_lost *lost)
{
	uint64_t all;

	s->seen = seen;
	s->self = self;
	s->err = NULL;
	ring_buffer__consume(s->ring);
	/* Programs go on meanwhile: what they lose from here on is for the next time. */
	all = __atomic_load_n(&s->losses->n, __ATOMIC_ACQUIRE);
	*lost = (struct bp_sched_lost){.n = all - s->lost};
	s->lost = all;
	if (!lost->n)
		return s->err;
	lost->first_ns = __atomic_exchange_n(&s->losses->first_ns, 0, __ATOMIC_ACQ_REL);
	lost->last_ns = __atomic_load_n(&s->losses->last_ns, __ATOMIC_ACQUIRE);
	if (!lost->first_ns || lost->first_ns > lost->last_ns)
		lost->first_ns = lost->last_ns;
	return s->err;
}

bool bp_sched_bpf_in_futex(const struct bp_sched_event *e)
{
	/* The result of a call that has not returned is that of no call at all. */
	return e->call == SYS_futex && e->result == -ENOSYS;
}

size_t bp_sched_bpf_stack(const struct bp_sched_bpf *s, int32_t stack, uint64_t *frames)
{
	uint32_t id = (uint32_t)stack;
	size_t n = 0;

	if (stack < 0 || bpf_map_lookup_elem(s->stacks_fd, &id, frames))
		return 0;
	while (n < BP_SCHED_FRAMES && frames[n])
		n++;
	return n;
}
