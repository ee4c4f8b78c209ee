// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Why a thread left the CPU.
 *
 * The marks are names of kernel functions, of Linux 3.10 to 6.18, and of functions of QEMU and the C library
 * on user stacks. Names of futex waits: futex_wait_queue_me (to 5.15), futex_wait_queue (to 6.16),
 * futex_do_wait; of halts: kvm_vcpu_block (to 5.15), kvm_vcpu_halt; of the end of a time slice in KVM_RUN:
 * _cond_resched, __cond_resched, xfer_to_guest_mode_*.
 */
#include <stdlib.h>
#include <string.h>

#include "analyzers/waits.h"
#include "core/cleanup.h"

enum {
	FUTEX = 1 << 0,
	KVM_HALT = 1 << 1,
	KVM_RUN = 1 << 2,
	POLL = 1 << 3,
	IRQ = 1 << 4,
	EXIT = 1 << 5,
	RESCHED = 1 << 6,
	FAULT = 1 << 7,
	IO = 1 << 8,
	SLOT = 1 << 9,
	KLOCK = 1 << 10,
	SLEEP = 1 << 11,
	N_MARKS = 12,
};

/* Names, or beginnings of names with * behind them. */
static const struct {
	const char *name;
	unsigned mark;
} kernel_marks[] = {
    {"futex_*", FUTEX},
    {"__futex_*", FUTEX},
    {"kvm_vcpu_halt*", KVM_HALT},
    {"kvm_vcpu_block*", KVM_HALT},
    {"kvm_emulate_halt*", KVM_HALT},
    {"kvm_arch_vcpu_ioctl_run", KVM_RUN},
    {"do_sys_poll", POLL},
    {"do_poll*", POLL},
    {"do_select", POLL},
    {"ep_poll", POLL},
    {"do_epoll_wait", POLL},
    {"asm_sysvec_*", IRQ},
    {"irqentry_*", IRQ},
    {"retint_*", IRQ},
    {"preempt_schedule_irq", IRQ},
    {"exit_to_user_mode_*", EXIT},
    {"syscall_exit_*", EXIT},
    {"exit_to_usermode_loop", EXIT},
    {"_cond_resched", RESCHED},
    {"__cond_resched", RESCHED},
    {"xfer_to_guest_mode_*", RESCHED},
    {"preempt_schedule*", RESCHED},
    {"do_user_addr_fault", FAULT},
    {"exc_page_fault", FAULT},
    {"do_page_fault", FAULT},
    {"__do_page_fault", FAULT},
    {"handle_mm_fault", FAULT},
    {"faultin_page*", FAULT},
    {"kvm_mmu_page_fault", FAULT},
    {"kvm_tdp_page_fault", FAULT},
    {"kvm_async_pf_task_wait*", FAULT},
    {"io_schedule*", IO},
    {"blk_mq_get_tag", IO},
    {"submit_bio_wait", IO},
    {"folio_wait_*", IO},
    {"wait_on_page_*", IO},
    {"wait_on_buffer", IO},
    {"inode_dio_wait", IO},
    {"read_events", IO},
    {"io_cqring_wait", IO},
    {"kvm_swap_active_memslots", SLOT},
    {"install_new_memslots", SLOT},
    {"kvm_set_memslot", SLOT},
    {"kvm_set_memory_region", SLOT},
    {"__kvm_set_memory_region", SLOT},
    {"rwsem_down_*", KLOCK},
    {"__mutex_lock*", KLOCK},
    {"__down*", KLOCK},
    {"__synchronize_srcu", KLOCK},
    {"synchronize_rcu*", KLOCK},
    {"do_nanosleep", SLEEP},
    {"hrtimer_nanosleep", SLEEP},
};

enum {
	U_HALT = 1 << 0,
	U_MUTEX = 1 << 1,
	U_COND = 1 << 2,
	U_EXCLUSIVE = 1 << 3,
	U_EVENT = 1 << 4,
};

static const struct {
	const char *name;
	unsigned mark;
} user_marks[] = {
    {"qemu_wait_io_event", U_HALT},
    {"qemu_tcg_wait_io_event", U_HALT},
    {"qemu_kvm_wait_io_event", U_HALT},
    {"pthread_mutex_lock*", U_MUTEX},
    {"__pthread_mutex_lock*", U_MUTEX},
    {"___pthread_mutex_lock*", U_MUTEX},
    {"__GI___pthread_mutex_lock*", U_MUTEX},
    {"__lll_lock_wait*", U_MUTEX},
    {"__GI___lll_lock_wait*", U_MUTEX},
    {"futex_wait", U_MUTEX},
    {"qemu_mutex_lock*", U_MUTEX},
    {"bql_lock_impl", U_MUTEX},
    {"pthread_cond_*", U_COND},
    {"__pthread_cond_*", U_COND},
    {"___pthread_cond_*", U_COND},
    {"qemu_cond_*", U_COND},
    {"start_exclusive", U_EXCLUSIVE},
    {"cpu_exec_start", U_EXCLUSIVE},
    {"cpu_exec_end", U_EXCLUSIVE},
    {"qemu_event_wait", U_EVENT},
};

/* @mark matches a name up to a compiler's suffix (".constprop.0", "@@GLIBC_2.3.2"). */
static bool matches(const char *mark, const char *name)
{
	size_t len = strlen(mark);

	if (mark[len - 1] == '*')
		return !strncmp(mark, name, len - 1);
	return !strncmp(mark, name, len) && (!name[len] || name[len] == '.' || name[len] == '@');
}

struct marks {
	unsigned set;
	const char *frame[N_MARKS]; /* innermost one with each */
	const char *first;          /* innermost one of all that is not the scheduler */
	bool any, known;
};

/* What each stack says is found out once. */
struct bp_off_rules {
	const struct bp_trace *trace;
	struct marks *kernel; /* by stack id */
	uint8_t *user;        /* U_*, and U_KNOWN */
	uint32_t n;
	bool calls; /* the guest's calls were recorded at the same time */
};

#define U_KNOWN 0x80u

void bp_off_rules_destroy(struct bp_off_rules *r)
{
	if (!r)
		return;
	free(r->kernel);
	free(r->user);
	free(r);
}

struct bp_err *bp_off_rules_create(const struct bp_trace *t, struct bp_off_rules **ret)
{
	struct bp_off_rules *r = calloc(1, sizeof(*r));
	uint32_t frames;

	if (!r)
		return bp_err_nomem();
	r->trace = t;
	r->calls = bp_trace_n_blocks(t) && !bp_trace_info(t, "import_format");
	bp_trace_host_ids(t, &frames, &r->n);
	r->kernel = calloc(r->n + 1, sizeof(*r->kernel));
	r->user = calloc(r->n + 1, 1);
	if (!r->kernel || !r->user) {
		bp_off_rules_destroy(r);
		return bp_err_nomem();
	}
	*ret = r;
	return NULL;
}

static bool is_scheduler(const char *name)
{
	return !strncmp(name, "__schedule", 10) || !strncmp(name, "schedule", 8) ||
	       !strncmp(name, "dump_stack", 10);
}

static struct marks kernel_stack(const struct bp_trace *t, uint32_t id)
{
	struct marks m = {0};
	size_t n;
	const uint32_t *ids = bp_trace_host_stack(t, id, &n);

	for (size_t i = 0; i < n; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, ids[i]);

		if (!f || f->space != BP_HOST_KERNEL || !*f->name)
			continue;
		m.any = true;
		if (!m.first && !is_scheduler(f->name))
			m.first = f->name;
		for (size_t k = 0; k < BP_ARRAY_SIZE(kernel_marks); k++) {
			unsigned mark = kernel_marks[k].mark;

			if (m.set & mark || !matches(kernel_marks[k].name, f->name))
				continue;
			m.set |= mark;
			m.frame[__builtin_ctz(mark)] = f->name;
		}
	}
	return m;
}

static unsigned user_stack(const struct bp_trace *t, uint32_t id)
{
	unsigned set = 0;
	size_t n;
	const uint32_t *ids = bp_trace_host_stack(t, id, &n);

	for (size_t i = 0; i < n; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, ids[i]);

		for (size_t k = 0; f && k < BP_ARRAY_SIZE(user_marks); k++) {
			if (matches(user_marks[k].name, f->name))
				set |= user_marks[k].mark;
		}
	}
	return set;
}

static const struct marks *kernel_marks_of(struct bp_off_rules *r, uint32_t id)
{
	struct marks *m = &r->kernel[id < r->n ? id : r->n];

	if (!m->known) {
		*m = kernel_stack(r->trace, id < r->n ? id : 0);
		m->known = true;
	}
	return m;
}

static unsigned user_marks_of(struct bp_off_rules *r, uint32_t id)
{
	uint8_t *m = &r->user[id < r->n ? id : r->n];

	if (!(*m & U_KNOWN))
		*m = (uint8_t)(user_stack(r->trace, id < r->n ? id : 0) | U_KNOWN);
	return *m;
}

enum bp_stack_kind bp_stack_kind(struct bp_off_rules *r, uint32_t id)
{
	const struct marks m = *kernel_marks_of(r, id);

	if (!m.any)
		return BP_STACK_NONE;
	if (m.set & FUTEX)
		return BP_STACK_FUTEX;
	if (m.set & KVM_HALT)
		return BP_STACK_KVM_HALT;
	if (m.set & KVM_RUN)
		return BP_STACK_KVM_RUN;
	if (m.set & POLL)
		return BP_STACK_POLL;
	if (m.set & IRQ)
		return BP_STACK_IRQ;
	return m.set & EXIT ? BP_STACK_EXIT : BP_STACK_OTHER;
}

const char *bp_off_class_name(enum bp_off_class cls)
{
	static const char *const names[] = {
	    [BP_OFF_PREEMPTED] = "preempted",
	    [BP_OFF_LOCK] = "lock",
	    [BP_OFF_HALT] = "halt",
	    [BP_OFF_IO] = "io",
	    [BP_OFF_FAULT] = "fault",
	    [BP_OFF_KERNEL] = "kernel",
	    [BP_OFF_FUTEX] = "futex",
	    [BP_OFF_POLL] = "poll",
	    [BP_OFF_OTHER] = "other",
	    [BP_OFF_RUNNING] = "running",
	    [BP_OFF_UNKNOWN] = "",
	};

	return names[cls];
}

bool bp_waits_is_mutex(uint32_t op)
{
	/* The C library's mutexes wait with FUTEX_WAIT_PRIVATE; QemuEvent without PRIVATE. */
	return op == 0x80 || (op & 0x7f) == 6 || (op & 0x7f) == 13;
}

static struct bp_off_verdict say(enum bp_off_class cls, const struct marks *m, unsigned mark,
				 const char *rule)
{
	return (struct bp_off_verdict){cls, mark ? m->frame[__builtin_ctz(mark)] : m->first, rule};
}

static struct bp_off_verdict preempted(const struct marks *m)
{
	if (m->set & FUTEX)
		return say(BP_OFF_PREEMPTED, m, FUTEX, "runnable, woken before it slept");
	if (m->set & KVM_RUN)
		return say(BP_OFF_PREEMPTED, m, m->set & RESCHED ? RESCHED : KVM_RUN,
			   "time slice over in KVM_RUN");
	if (m->set & IRQ)
		return say(BP_OFF_PREEMPTED, m, IRQ, "preempted at the end of an interrupt");
	if (m->set & EXIT)
		return say(BP_OFF_PREEMPTED, m, EXIT, "preempted at the end of a system call");
	if (m->set & RESCHED)
		return say(BP_OFF_PREEMPTED, m, RESCHED, "gave way in the kernel");
	return say(BP_OFF_PREEMPTED, m, 0, "runnable");
}

static struct bp_off_verdict futex(const struct marks *m, const struct bp_off_facts *f, unsigned user)
{
	const unsigned mark = m->set & FUTEX;

	if (f->futex) {
		if (bp_waits_is_mutex(f->op))
			return say(BP_OFF_LOCK, m, mark, "mutex (FUTEX_WAIT_PRIVATE)");
		if (f->op == 0)
			return say(BP_OFF_FUTEX, m, mark, "event (FUTEX_WAIT without PRIVATE)");
		if (user & U_EXCLUSIVE)
			return say(BP_OFF_FUTEX, m, mark, "condition variable, exclusive section");
		if (f->vcpu && user & U_HALT)
			return say(BP_OFF_HALT, m, mark, "condition variable in qemu_wait_io_event");
		if (f->vcpu && !f->shared)
			return say(BP_OFF_HALT, m, mark, "condition variable of this vCPU alone");
		return say(BP_OFF_FUTEX, m, mark, "condition variable (FUTEX_WAIT_BITSET)");
	}
	/* The operation is not known. */
	if (user & U_EXCLUSIVE)
		return say(BP_OFF_FUTEX, m, mark, "condition variable, exclusive section");
	if (f->vcpu && user & U_HALT)
		return say(BP_OFF_HALT, m, mark, "condition variable in qemu_wait_io_event");
	if (user & U_COND)
		return say(BP_OFF_FUTEX, m, mark, "condition variable, by the user stack");
	if (user & U_EVENT)
		return say(BP_OFF_FUTEX, m, mark, "event, by the user stack");
	if (user & U_MUTEX)
		return say(BP_OFF_LOCK, m, mark, "mutex, by the user stack");
	if (f->vcpu || !f->named)
		return say(BP_OFF_LOCK, m, mark, "futex of a vCPU, operation not recorded");
	return say(BP_OFF_FUTEX, m, mark, "futex, operation not recorded");
}

struct bp_off_verdict bp_off_classify(struct bp_off_rules *r, const struct bp_off_facts *f)
{
	const struct marks m = *kernel_marks_of(r, f->kstack);
	bool runnable = f->state == 'R' || f->preempted;

	/* Without a state the stack has to say it: what is about to wait is not at one of these ends. */
	if (!f->state && m.set & (RESCHED | IRQ | EXIT) && !(m.set & (FUTEX | KVM_HALT | POLL)))
		runnable = true;
	if (runnable)
		return preempted(&m);
	if (m.set & KVM_HALT)
		return say(BP_OFF_HALT, &m, KVM_HALT, "the guest halted");
	if (m.set & FUTEX || (!m.any && f->futex && bp_futex_waits(f->op)))
		return futex(&m, f, user_marks_of(r, f->ustack));
	if (m.set & FAULT)
		return say(BP_OFF_FAULT, &m, FAULT, m.set & IO ? "page fault that reads" : "page fault");
	if (m.set & SLOT)
		return say(BP_OFF_KERNEL, &m, SLOT, "update of memory slots");
	if (m.set & IO)
		return say(BP_OFF_IO, &m, IO, "I/O in the kernel");
	if (m.set & KLOCK)
		return say(BP_OFF_KERNEL, &m, KLOCK, "lock of the kernel");
	if (m.set & POLL)
		return say(BP_OFF_POLL, &m, POLL, "event loop");
	if (f->state == 'D')
		return say(BP_OFF_KERNEL, &m, 0, "state D");
	if (m.set & SLEEP && f->vcpu && r->calls)
		return say(BP_OFF_OTHER, &m, SLEEP, "waits for the recorder: its ring is full");
	if (m.set & SLEEP)
		return say(BP_OFF_OTHER, &m, SLEEP, "sleeps for a time");
	return say(BP_OFF_OTHER, &m, 0, m.any ? "no rule for this stack" : "no stack recorded");
}
