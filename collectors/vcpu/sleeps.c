// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/vcpu/sleeps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"

#define RING_LEAST ((size_t)256 << 10)
#define STACKS_MAX 16384
#define FUTEX_STACKS 16 /* a power of two: of so many sleeps in futex(2) one has its stack taken */
#define TASK_RUNNING_MASK 0xff

/* struct pt_regs of x86-64: what a program entered the kernel with. */
#define PT_AX 80
#define PT_DX 96
#define PT_SI 104
#define PT_DI 112
#define PT_ORIG_AX 120

/* Where the record is built, from the frame pointer. */
#define REC (-(int)sizeof(struct bp_sleep))
#define REC_AT(field) (REC + (int)offsetof(struct bp_sleep, field))

/* Switches of one CPU that are not yet asked for, in order. */
struct queue {
	struct bp_sleep *items;
	size_t at, n, cap;
	size_t known; /* as many have been told of */
};

struct bp_sleeps {
	int ring_fd, lost_fd, stacks_fd, prog_fd, link_fd;
	bool all_stacks;
	struct ring_buffer *ring;
	struct queue *queues;
	size_t n_queues;
	uint64_t lost; /* in all, as of the last read */
	bool short_of_memory;
};

/* ---- the program ---- */

#define INSN(c, d, s, o, i) \
	((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
#define MOV(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define MOV_IMM(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define LOAD(d, s, o) INSN(BPF_LDX | BPF_MEM | BPF_DW, d, s, o, 0)
#define STORE(size, o, s) INSN(BPF_STX | BPF_MEM | (size), BPF_REG_10, s, o, 0)
#define CALL(f) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, f)
#define MAP(d, fd) INSN(BPF_LD | BPF_DW | BPF_IMM, d, BPF_PSEUDO_MAP_FD, 0, fd), INSN(0, 0, 0, 0, 0)
#define JUMP(op, d, i, to) INSN(BPF_JMP | (op) | BPF_K, d, 0, to, i)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* Where jumps go, until it is known how far that is. */
enum { TO_END = 1, TO_TAKE, TO_STORE };

/* At sched_switch(preempt, prev, next, prev_state) the thread that leaves the CPU is still the current one.
 */
static int load(const struct bp_sleeps *s, pid_t pid)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	const int16_t asleep = s->all_stacks ? TO_TAKE : 0;
	struct bpf_insn p[] = {
	    MOV(BPF_REG_9, BPF_REG_1),
	    CALL(BPF_FUNC_get_current_pid_tgid),
	    MOV(BPF_REG_6, BPF_REG_0),
	    INSN(BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_0, 0, 0, 32),
	    JUMP(BPF_JNE, BPF_REG_0, pid, TO_END),
	    CALL(BPF_FUNC_get_current_task_btf),
	    MOV(BPF_REG_1, BPF_REG_0),
	    CALL(BPF_FUNC_task_pt_regs),
	    MOV(BPF_REG_7, BPF_REG_0),
	    LOAD(BPF_REG_1, BPF_REG_7, PT_AX),
	    STORE(BPF_W, REC_AT(result), BPF_REG_1),
	    LOAD(BPF_REG_1, BPF_REG_7, PT_DI),
	    STORE(BPF_DW, REC_AT(addr), BPF_REG_1),
	    STORE(BPF_W, REC_AT(tid), BPF_REG_6),
	    LOAD(BPF_REG_1, BPF_REG_7, PT_SI),
	    STORE(BPF_W, REC_AT(op), BPF_REG_1),
	    LOAD(BPF_REG_1, BPF_REG_7, PT_DX),
	    STORE(BPF_W, REC_AT(val), BPF_REG_1),
	    CALL(BPF_FUNC_get_smp_processor_id),
	    STORE(BPF_W, REC_AT(cpu), BPF_REG_0),
	    CALL(BPF_FUNC_ktime_get_ns),
	    STORE(BPF_DW, REC_AT(time_ns), BPF_REG_0),
	    LOAD(BPF_REG_6, BPF_REG_7, PT_ORIG_AX),
	    STORE(BPF_W, REC_AT(call), BPF_REG_6),
	    MOV_IMM(BPF_REG_8, -1),
	    STORE(BPF_W, REC_AT(unused), BPF_REG_8),
	    /* Which stacks to take. With all of them the first jump is always taken. */
	    JUMP(BPF_JNE, BPF_REG_8, 0, asleep),
	    LOAD(BPF_REG_1, BPF_REG_9, 0),
	    JUMP(BPF_JNE, BPF_REG_1, 0, TO_STORE),
	    LOAD(BPF_REG_1, BPF_REG_9, 24),
	    INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_1, 0, 0, TASK_RUNNING_MASK),
	    JUMP(BPF_JEQ, BPF_REG_1, 0, TO_STORE),
	    JUMP(BPF_JNE, BPF_REG_6, SYS_futex, TO_TAKE),
	    CALL(BPF_FUNC_get_prandom_u32),
	    INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_0, 0, 0, FUTEX_STACKS - 1),
	    JUMP(BPF_JNE, BPF_REG_0, 0, TO_STORE),
	    /* TO_TAKE */
	    MOV(BPF_REG_1, BPF_REG_9),
	    MAP(BPF_REG_2, s->stacks_fd),
	    MOV_IMM(BPF_REG_3, 0),
	    CALL(BPF_FUNC_get_stackid),
	    MOV(BPF_REG_8, BPF_REG_0),
	    /* TO_STORE */
	    STORE(BPF_W, REC_AT(stack), BPF_REG_8),
	    MAP(BPF_REG_1, s->ring_fd),
	    MOV(BPF_REG_2, BPF_REG_10),
	    INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, REC),
	    MOV_IMM(BPF_REG_3, sizeof(struct bp_sleep)),
	    /* Nobody is to be woken: it is read now and then. */
	    MOV_IMM(BPF_REG_4, BPF_RB_NO_WAKEUP),
	    CALL(BPF_FUNC_ringbuf_output),
	    JUMP(BPF_JEQ, BPF_REG_0, 0, TO_END),
	    /* No room: count it. */
	    INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, REC, 0),
	    MAP(BPF_REG_1, s->lost_fd),
	    MOV(BPF_REG_2, BPF_REG_10),
	    INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, REC),
	    CALL(BPF_FUNC_map_lookup_elem),
	    JUMP(BPF_JEQ, BPF_REG_0, 0, TO_END),
	    MOV_IMM(BPF_REG_1, 1),
	    INSN(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD),
	    /* TO_END */
	    MOV_IMM(BPF_REG_0, 0),
	    EXIT,
	};
	const size_t n = sizeof(p) / sizeof(*p);
	size_t at[] = {[TO_END] = n - 2, [TO_TAKE] = 0, [TO_STORE] = 0};

	for (size_t i = 0; i < n; i++) {
		if (p[i].code == (BPF_JMP | BPF_CALL) && p[i].imm == BPF_FUNC_get_stackid) {
			at[TO_TAKE] = i - 4;
			at[TO_STORE] = i + 2;
		}
	}
	for (size_t i = 0; i < n; i++) {
		uint8_t op = BPF_OP(p[i].code);

		if (BPF_CLASS(p[i].code) == BPF_JMP && (op == BPF_JNE || op == BPF_JEQ) && p[i].off)
			p[i].off = (int16_t)(at[p[i].off] - i - 1);
	}
	return bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "bootprof_sleeps", "GPL", p, n, &opts);
}

/* ---- setting up ---- */

/* @rc: of libbpf, a negative errno */
static struct bp_err *refused(int rc, const char *what)
{
	if (rc == -EACCES || rc == -EPERM)
		return bp_err_new(BP_EUNSUPPORTED, "no permission for BPF programs; run bootprof as root");
	return bp_err_new(BP_EUNSUPPORTED, "BPF: %s: %s", what, strerror(-rc));
}

static void bp_sleeps_destroyp(struct bp_sleeps **s)
{
	bp_sleeps_destroy(*s);
}

static int on_record(void *self, void *data, size_t size)
{
	struct bp_sleeps *s = self;
	struct bp_sleep sleep;
	struct queue *q;

	if (size < sizeof(sleep))
		return 0;
	memcpy(&sleep, data, sizeof(sleep));
	if (sleep.cpu >= s->n_queues)
		return 0;
	q = &s->queues[sleep.cpu];
	if (q->n == q->cap) {
		size_t cap = q->cap ? 2 * q->cap : 1024;
		struct bp_sleep *more = realloc(q->items, cap * sizeof(*more));

		if (!more) {
			s->short_of_memory = true;
			return -ENOMEM;
		}
		q->items = more;
		q->cap = cap;
	}
	q->items[q->n++] = sleep;
	return 0;
}

struct bp_err *bp_sleeps_create(size_t bytes, bool all_stacks, struct bp_sleeps **ret)
{
	bp_cleanup(bp_sleeps_destroyp) struct bp_sleeps *s = calloc(1, sizeof(*s));
	long cpus = sysconf(_SC_NPROCESSORS_CONF);
	size_t ring = RING_LEAST;

	if (!s)
		return bp_err_nomem();
	s->ring_fd = s->lost_fd = s->stacks_fd = s->prog_fd = s->link_fd = -1;
	s->all_stacks = all_stacks;
	s->n_queues = (size_t)(cpus > 0 ? cpus : 1);
	s->queues = calloc(s->n_queues, sizeof(*s->queues));
	if (!s->queues)
		return bp_err_nomem();
	/* Errors come as numbers; nobody wants the library's own lines. */
	libbpf_set_print(NULL);
	while (ring * 2 <= bytes)
		ring *= 2;
	s->ring_fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "bootprof_sleeps", 0, 0, (uint32_t)ring, NULL);
	if (s->ring_fd < 0)
		return refused(s->ring_fd, "a ring buffer");
	s->lost_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "bootprof_lost", 4, 8, 1, NULL);
	if (s->lost_fd < 0)
		return refused(s->lost_fd, "an array");
	s->stacks_fd = bpf_map_create(BPF_MAP_TYPE_STACK_TRACE, "bootprof_stacks", 4,
				      BP_SLEEPS_FRAMES * sizeof(uint64_t), STACKS_MAX, NULL);
	if (s->stacks_fd < 0)
		return refused(s->stacks_fd, "a map of stacks");
	s->prog_fd = load(s, 0);
	if (s->prog_fd < 0)
		return refused(s->prog_fd, "the program");
	s->ring = ring_buffer__new(s->ring_fd, on_record, s, NULL);
	if (!s->ring)
		return refused(-errno, "mapping the ring buffer");
	*ret = bp_steal(s);
	return NULL;
}

void bp_sleeps_destroy(struct bp_sleeps *s)
{
	if (!s)
		return;
	bp_closep(&s->link_fd);
	bp_closep(&s->prog_fd);
	ring_buffer__free(s->ring);
	bp_closep(&s->ring_fd);
	bp_closep(&s->lost_fd);
	bp_closep(&s->stacks_fd);
	for (size_t i = 0; s->queues && i < s->n_queues; i++)
		free(s->queues[i].items);
	free(s->queues);
	free(s);
}

struct bp_err *bp_sleeps_follow(struct bp_sleeps *s, pid_t pid)
{
	int fd = load(s, pid);

	if (fd < 0)
		return refused(fd, "the program");
	bp_closep(&s->prog_fd);
	s->prog_fd = fd;
	s->link_fd = bpf_raw_tracepoint_open("sched_switch", fd);
	return s->link_fd < 0 ? refused(s->link_fd, "sched_switch") : NULL;
}

/* ---- what it has seen ---- */

struct bp_err *bp_sleeps_read(struct bp_sleeps *s, struct bp_err *(*seen)(void *self, uint32_t tid),
			      void *self, uint64_t *lost)
{
	struct bp_err *err = NULL;
	uint64_t all = 0;
	uint32_t key = 0;

	for (size_t i = 0; i < s->n_queues; i++) {
		struct queue *q = &s->queues[i];

		if (q->at)
			memmove(q->items, q->items + q->at, (q->n - q->at) * sizeof(*q->items));
		q->n -= q->at;
		q->at = 0;
		q->known = q->n;
	}
	ring_buffer__consume(s->ring);
	if (s->short_of_memory)
		return bp_err_nomem();
	*lost = 0;
	if (!bpf_map_lookup_elem(s->lost_fd, &key, &all)) {
		*lost = all - s->lost;
		s->lost = all;
	}
	for (size_t i = 0; i < s->n_queues; i++) {
		const struct queue *q = &s->queues[i];

		for (size_t k = q->known; k < q->n && !err; k++)
			err = seen(self, q->items[k].tid);
	}
	return err;
}

const struct bp_sleep *bp_sleeps_match(struct bp_sleeps *s, unsigned cpu, uint32_t tid, uint64_t time_ns)
{
	struct queue *q = cpu < s->n_queues ? &s->queues[cpu] : NULL;
	const struct bp_sleep *one;

	if (!q)
		return NULL;
	/* The program runs within the same switch, after the kernel's event of it, and reads the same clock.
	 */
	while (q->at < q->n && q->items[q->at].time_ns < time_ns)
		q->at++;
	one = q->at < q->n ? &q->items[q->at] : NULL;
	return one && one->tid == tid ? one : NULL;
}

bool bp_sleeps_in_futex(const struct bp_sleep *one)
{
	/* The result of a call that has not returned is that of no call at all. */
	return one->call == SYS_futex && one->result == -ENOSYS;
}

size_t bp_sleeps_stack(const struct bp_sleeps *s, int32_t stack, uint64_t *frames)
{
	uint32_t id = (uint32_t)stack;
	size_t n = 0;

	if (stack < 0 || bpf_map_lookup_elem(s->stacks_fd, &id, frames))
		return 0;
	while (n < BP_SLEEPS_FRAMES && frames[n])
		n++;
	return n;
}
