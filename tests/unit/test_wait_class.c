// SPDX-License-Identifier: GPL-2.0-or-later
/* Why a thread left the CPU, from stacks as kernels from 3.10 to 6.18 have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "analyzers/waits.h"
#include "core/trace.h"

static char dir[64], path[96];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

#define MUTEX 0x80
#define COND 0x189
#define NO_OP UINT32_MAX

static const struct {
	const char *kernel; /* innermost first, with blanks in between */
	const char *user;
	uint8_t state; /* 0: not known */
	bool preempted, vcpu, named, shared;
	uint32_t op;
	enum bp_off_class cls;
	const char *frame;
} cases[] = {
    /* The end of a time slice in KVM_RUN, 3.10, 5.4, 5.15, 6.1. */
    {"__schedule _cond_resched kvm_arch_vcpu_ioctl_run kvm_vcpu_ioctl do_vfs_ioctl", "", 0,
     .cls = BP_OFF_PREEMPTED, .op = NO_OP, .frame = "_cond_resched"},
    {"__schedule schedule xfer_to_guest_mode_handle_work kvm_arch_vcpu_ioctl_run kvm_vcpu_ioctl", "", 'R',
     .cls = BP_OFF_PREEMPTED, .op = NO_OP, .vcpu = true, .frame = "xfer_to_guest_mode_handle_work"},
    {"__schedule __cond_resched kvm_arch_vcpu_ioctl_run", "", 0, .cls = BP_OFF_PREEMPTED, .op = NO_OP,
     .frame = "__cond_resched"},
    {"__schedule preempt_schedule_irq irqentry_exit asm_sysvec_apic_timer_interrupt kvm_arch_vcpu_ioctl_run",
     "", 'R', .preempted = true, .cls = BP_OFF_PREEMPTED, .op = NO_OP, .frame = "preempt_schedule_irq"},
    {"__schedule schedule exit_to_usermode_loop do_syscall_64", "", 'R', .cls = BP_OFF_PREEMPTED, .op = NO_OP,
     .frame = "exit_to_usermode_loop"},
    /* Runnable although it is on its way to sleep: somebody was faster. */
    {"__schedule schedule futex_do_wait __futex_wait", "", 'R', .cls = BP_OFF_PREEMPTED, .op = MUTEX,
     .frame = "futex_do_wait"},
    {"", "", 'R', .cls = BP_OFF_PREEMPTED, .op = NO_OP},
    /* Locks: 3.10 without anything else known, 6.1, 6.18. */
    {"__schedule schedule futex_wait_queue_me futex_wait do_futex SyS_futex", "", 0, .cls = BP_OFF_LOCK,
     .op = NO_OP, .frame = "futex_wait_queue_me"},
    {"__schedule schedule futex_wait_queue futex_wait do_futex", "", 'S', .cls = BP_OFF_LOCK, .op = MUTEX,
     .named = true, .frame = "futex_wait_queue"},
    {"__schedule schedule futex_do_wait __futex_wait futex_wait", "", 'S', .cls = BP_OFF_LOCK, .op = MUTEX,
     .vcpu = true, .named = true, .shared = true, .frame = "futex_do_wait"},
    {"__schedule schedule __futex_wait futex_wait",
     "__GI___lll_lock_wait ___pthread_mutex_lock qemu_mutex_lock_impl", 'S', .cls = BP_OFF_LOCK, .op = NO_OP,
     .named = true, .frame = "__futex_wait"},
    {"", "", 'S', .cls = BP_OFF_LOCK, .op = MUTEX, .named = true},
    /* Other futexes. */
    {"schedule futex_do_wait", "", 'S', .cls = BP_OFF_FUTEX, .op = COND, .named = true,
     .frame = "futex_do_wait"},
    {"schedule futex_do_wait", "", 'S', .cls = BP_OFF_FUTEX, .op = COND, .named = true, .vcpu = true,
     .shared = true, .frame = "futex_do_wait"},
    {"schedule futex_do_wait", "", 'S', .cls = BP_OFF_FUTEX, .op = 0, .named = true,
     .frame = "futex_do_wait"},
    {"schedule futex_do_wait", "pthread_cond_wait@@GLIBC_2.3.2 qemu_cond_wait_impl worker_thread", 'S',
     .cls = BP_OFF_FUTEX, .op = NO_OP, .named = true, .frame = "futex_do_wait"},
    {"schedule futex_do_wait", "pthread_cond_wait start_exclusive", 'S', .cls = BP_OFF_FUTEX, .op = COND,
     .named = true, .vcpu = true, .frame = "futex_do_wait"},
    {"schedule futex_do_wait", "", 'S', .cls = BP_OFF_FUTEX, .op = NO_OP, .named = true,
     .frame = "futex_do_wait"},
    /* Halts: KVM of 3.10 and of today, TCG. */
    {"__schedule schedule kvm_vcpu_block kvm_arch_vcpu_ioctl_run", "", 'S', .cls = BP_OFF_HALT, .op = NO_OP,
     .frame = "kvm_vcpu_block"},
    {"schedule kvm_vcpu_block kvm_vcpu_halt vcpu_run kvm_arch_vcpu_ioctl_run", "", 'S', .cls = BP_OFF_HALT,
     .op = NO_OP, .vcpu = true, .frame = "kvm_vcpu_block"},
    {"schedule futex_do_wait", "", 'S', .cls = BP_OFF_HALT, .op = COND, .named = true, .vcpu = true,
     .frame = "futex_do_wait"},
    {"schedule futex_do_wait", "pthread_cond_wait qemu_cond_wait_impl qemu_wait_io_event mttcg_cpu_thread_fn",
     'S', .cls = BP_OFF_HALT, .op = NO_OP, .named = true, .vcpu = true, .frame = "futex_do_wait"},
    /* In the kernel. */
    {"schedule_timeout wait_for_completion __synchronize_srcu.part.0 kvm_swap_active_memslots "
     "kvm_set_memslot",
     "", 'D', .cls = BP_OFF_KERNEL, .op = NO_OP, .vcpu = true, .frame = "kvm_swap_active_memslots"},
    {"schedule rwsem_down_read_slowpath down_read", "", 'D', .cls = BP_OFF_KERNEL, .op = NO_OP,
     .frame = "rwsem_down_read_slowpath"},
    {"schedule something_new", "", 'D', .cls = BP_OFF_KERNEL, .op = NO_OP, .frame = "something_new"},
    {"schedule io_schedule folio_wait_bit_common filemap_fault __do_fault handle_mm_fault exc_page_fault", "",
     'D', .cls = BP_OFF_FAULT, .op = NO_OP, .frame = "handle_mm_fault"},
    {"schedule io_schedule blk_mq_get_tag", "", 'D', .cls = BP_OFF_IO, .op = NO_OP, .frame = "io_schedule"},
    {"schedule schedule_hrtimeout_range_clock poll_schedule_timeout.constprop.0 do_sys_poll __x64_sys_ppoll",
     "", 'S', .cls = BP_OFF_POLL, .op = NO_OP, .frame = "do_sys_poll"},
    {"schedule ep_poll do_epoll_wait", "", 'S', .cls = BP_OFF_POLL, .op = NO_OP, .frame = "ep_poll"},
    /* No rule. */
    {"schedule pipe_read vfs_read", "", 'S', .cls = BP_OFF_OTHER, .op = NO_OP, .frame = "pipe_read"},
    {"", "", 'S', .cls = BP_OFF_OTHER, .op = NO_OP},
    {"schedule do_nanosleep hrtimer_nanosleep", "", 'S', .cls = BP_OFF_OTHER, .op = NO_OP,
     .frame = "do_nanosleep"},
    /* Names that only begin like one of the list are others. */
    {"schedule ep_pollute do_selection", "", 'S', .cls = BP_OFF_OTHER, .op = NO_OP, .frame = "ep_pollute"},
};

#define N_CASES (sizeof(cases) / sizeof(cases[0]))

static uint32_t stack(struct bp_wait_log *log, enum bp_host_space space, const char *names)
{
	uint32_t frames[32], id;
	char text[512], *save = NULL;
	size_t n = 0;

	snprintf(text, sizeof(text), "%s", names);
	for (char *name = strtok_r(text, " ", &save); name; name = strtok_r(NULL, " ", &save))
		ok(bp_wait_log_frame(log, space, 0, name, 0, "", &frames[n++]));
	ok(bp_wait_log_stack(log, frames, n, &id));
	return id;
}

static void test_classes(void **state)
{
	uint32_t kernel[N_CASES], user[N_CASES];
	struct bp_off_rules *rules;
	struct bp_trace_writer *w;
	struct bp_wait_log *log;
	struct bp_trace *t;

	(void)state;
	ok(bp_trace_writer_create(path, 0, &w));
	ok(bp_wait_log_create(w, &log));
	for (size_t i = 0; i < N_CASES; i++) {
		kernel[i] = stack(log, BP_HOST_KERNEL, cases[i].kernel);
		user[i] = stack(log, BP_HOST_USER, cases[i].user);
	}
	ok(bp_wait_log_close(log));
	ok(bp_trace_writer_close(w));
	ok(bp_trace_open(path, &t));
	ok(bp_off_rules_create(t, &rules));
	/* Twice: what is remembered of a stack says the same. */
	for (size_t i = 0; i < 2 * N_CASES; i++) {
		const size_t k = i % N_CASES;
		const struct bp_off_facts f = {
		    .state = cases[k].state,
		    .preempted = cases[k].preempted,
		    .kstack = kernel[k],
		    .ustack = user[k],
		    .named = cases[k].named,
		    .vcpu = cases[k].vcpu,
		    .futex = cases[k].op != NO_OP,
		    .op = cases[k].op == NO_OP ? 0 : cases[k].op,
		    .shared = cases[k].shared,
		};
		struct bp_off_verdict v = bp_off_classify(rules, &f);

		if (v.cls != cases[k].cls ||
		    strcmp(v.frame ? v.frame : "", cases[k].frame ? cases[k].frame : ""))
			print_error("case %zu (%s): %s by %s, %s\n", k, cases[k].kernel,
				    bp_off_class_name(v.cls), v.frame ? v.frame : "nothing", v.rule);
		assert_int_equal(v.cls, cases[k].cls);
		assert_string_equal(v.frame ? v.frame : "", cases[k].frame ? cases[k].frame : "");
		assert_true(*v.rule);
	}
	bp_off_rules_destroy(rules);
	bp_trace_destroy(t);
}

static void test_roles(void **state)
{
	static const struct {
		const char *comm, *role;
		uint16_t vcpu;
	} of[] = {
	    {"CPU 0/KVM", "vCPU", 0},
	    {"CPU 12/TCG", "vCPU", 12},
	    {"CPU 3", "vCPU", 3},
	    {"ALL CPUs/TCG", "vCPU", 0},
	    {"CPU x/KVM", "", UINT16_MAX},
	    {"CPU 1x", "", UINT16_MAX},
	    {"CPU 99999/KVM", "", UINT16_MAX},
	    {"IO io1", "iothread", UINT16_MAX},
	    {"worker", "worker", UINT16_MAX},
	    {"call_rcu", "RCU", UINT16_MAX},
	    {"workers", "", UINT16_MAX},
	    {"qemu-system-x86", "main loop", UINT16_MAX},
	    {"qemu-kvm", "main loop", UINT16_MAX},
	    {"bash", "", UINT16_MAX},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		uint16_t vcpu;

		assert_string_equal(bp_thread_role(of[i].comm, &vcpu), of[i].role);
		assert_int_equal(vcpu, of[i].vcpu);
	}
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/bootprof-class-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/a.data", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_classes),
	    cmocka_unit_test(test_roles),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
