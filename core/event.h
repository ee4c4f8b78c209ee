/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event model: what collectors produce and analyzers read.
 *
 * A recording is a sequence of *blocks*. A block is a sequence of *runs*; a run is what one vCPU did
 * for one task, as a sequence of events that push and pop functions on that task's call stack.
 * Runs of one vCPU are in time order, and so are runs of one task (also across vCPUs), so a reader
 * that keeps one stack per task and goes through the blocks in file order is always right. Runs of
 * different vCPUs are not ordered against each other.
 *
 * One stack per task: user functions at the bottom, kernel functions of a system call above
 * them, interrupt handlers on top. What a vCPU does before it runs any task (firmware, early boot)
 * is a task of its own.
 *
 * Time: the time between two events belongs to the function on top of the stack after the first.
 * Two clocks: host nanoseconds since QEMU was started, and instructions executed by that vCPU.
 */
#ifndef BP_CORE_EVENT_H
#define BP_CORE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bp_ev_kind {
	BP_EV_TICK,     /* nothing happened: carries time that does not fit into one event */
	BP_EV_CALL,     /* push function `arg`, entered by a call */
	BP_EV_JUMP,     /* push function `arg`, entered by a jump out of the function on top (tail call) */
	BP_EV_IRQ,      /* push function `arg`, entered by an interrupt or exception */
	BP_EV_RET,      /* pop `arg` functions (at least 1, at most the depth) */
	BP_EV_SYSCALL,  /* system call number `arg`; the entry function's CALL follows at once. The system
			 * call ends when that function is popped. */
	BP_EV_RUN,      /* another run begins: `arg` indexes the block's runs; dt and di are 0 */
	BP_EV_LOST,     /* `arg` raw records were lost here on this vCPU (saturating); the task's stack
			 * restarts empty */
	BP_EV_KINDS
};

/* Deltas to the previous event of the same run (of the first event: to the run's own clocks). */
struct bp_event {
	uint32_t arg;      /* see the kind */
	uint32_t dt;       /* host ns */
	uint32_t di;       /* instructions */
	uint32_t kind;     /* enum bp_ev_kind */
};

/* A function that is on a stack when a run begins. */
struct bp_frame {
	uint32_t func;     /* function id */
	uint8_t kind;      /* BP_EV_CALL, BP_EV_JUMP or BP_EV_IRQ: how it was entered */
	uint64_t wall_ns;  /* host time of its entry */
	uint64_t cpu_ns;   /* the task's own clocks at its entry: time and instructions */
	uint64_t insns;    /*   that the task had executed by then (switched-out time not counted) */
};

#define BP_RUN_NO_STACK UINT32_MAX

struct bp_run {
	uint32_t vcpu;
	uint32_t task;        /* task id, see BP_FACT_TASK */
	uint64_t time_ns;     /* vCPU clocks at the start of the run */
	uint64_t insns;
	uint64_t cpu_ns;      /* the task's clocks at the start of the run */
	uint64_t cpu_insns;
	/*
	 * The task's stack at the start of the run, outermost first. Given in the first run of each task in each
	 * block, so that any block can be read alone; n_frames is BP_RUN_NO_STACK in the later runs of the task in
	 * that block, whose stack is as the earlier one left it.
	 */
	uint32_t n_frames;
	uint32_t first_frame; /* index into the block's frames */
};

/* Borrowed views; the owner is whoever filled the block. */
struct bp_block {
	const struct bp_event *events;
	size_t n_events;      /* events[0] is a BP_EV_RUN */
	const struct bp_run *runs;
	size_t n_runs;
	const struct bp_frame *frames;
	size_t n_frames;
};

/* Deepest stack that is kept; deeper calls are counted as lost by the collector. */
#define BP_MAX_DEPTH 4096

/* Where a function lives. */
enum bp_space {
	BP_SPACE_PSEUDO,   /* not code: "[halted]", "[unknown]"; addr is a number of ours */
	BP_SPACE_FIRMWARE, /* firmware and boot code; addr is a region number */
	BP_SPACE_KERNEL,   /* kernel image: addr as linked, without the KASLR slide */
	BP_SPACE_MODULE,   /* kernel module: addr as it ran */
	BP_SPACE_USER,     /* user space file: addr is the byte offset in the file */
	BP_SPACE_ANON,     /* user space, no file known: virtual address */
	BP_SPACE_N
};

struct bp_func {
	uint32_t id;          /* dense, from 0 */
	uint8_t space;        /* enum bp_space */
	uint64_t addr;        /* entry (or the first address seen, when its entry was not seen) */
	uint64_t sym_addr;    /* start of the symbol covering addr; addr itself when there is no name */
	const char *name;     /* guest's word, untrusted; "" when no symbol covers it */
	const char *module;   /* "vmlinux", module name, file path, firmware region; untrusted */
};

/*
 * Facts: everything that is not a call. One struct for all kinds; the fields that a kind uses are
 * named beside it, the others are zero or "".
 */
enum bp_fact_kind {
	BP_FACT_INFO = 1,       /* s1 = key, s2 = value; keys in bootprof-trace(5) */
	BP_FACT_TASK,           /* v0 = task id, v1 = pid (thread), v2 = tgid, v3 = flags BP_TASK_*; s1 = comm,
				 * s2 = exec'd file. An exec makes a new task id with the same pid. A second
				 * fact for an id corrects the first. time_ns = when first seen running. */
	BP_FACT_TASK_PARENT,    /* v0 = task id, v1 = parent's task id (UINT64_MAX unknown) */
	BP_FACT_TASK_END,       /* v0 = task id, v1 = exit code as do_exit() got it */
	BP_FACT_MODULE_LOAD,    /* s1 = name, v0 = text base, v1 = text bytes, v2 = task id that loads it */
	BP_FACT_MODULE_INIT,    /* s1 = name, v0 = start ns of its init, v1 = end ns, v2 = insns, v3 = task id */
	BP_FACT_MODULE_UNLOAD,  /* s1 = name */
	BP_FACT_MAP,            /* user mapping: v0 = start, v1 = end, v2 = file offset, v3 = task id; s1 = file */
	BP_FACT_CONSOLE,        /* s1 = a line, s2 = "stdio" or "printk" */
	BP_FACT_MARK,           /* s1 = what happened (list in bootprof-trace(5)), s2 = detail;
				 * v0 = instructions of all vCPUs by then; phases are cut at marks */
	BP_FACT_INITCALL,       /* v0 = address of the initcall as linked, v1 = level number; s1 = level name */
	BP_FACT_LOST,           /* v0 = records lost, s1 = why */
	BP_FACT_END,            /* last fact of a complete recording; s1 = how the guest ended
				 * ("poweroff", "reboot", "panic", "marker", "timeout", "interrupt", "killed",
				 * "exit"), v0 = QEMU's exit status, v1 = instructions of all vCPUs, v2 = calls */
	BP_FACT_VCPU,           /* vcpu = index, v0 = instructions executed, v1 = halted ns, v2 = events */

	/* Of the host, see core/waits.h: */
	BP_FACT_THREAD,         /* v0 = thread id, v1 = process id (0 unknown), v2 = 1 when it belongs to the QEMU looked at;
				 * s1 = comm, s2 = role ("vCPU", "main loop", "iothread", "worker", ""); vcpu = index of a
				 * vCPU thread. A later fact for a thread id corrects the earlier one. */
	BP_FACT_LOCK,           /* v0 = address as it ran, v1 = bytes that belong to it; s1 = name, s2 = how that was found */
	BP_FACT_HOST_MAP,       /* mapping of a process: v0 = start, v1 = end, v2 = offset in the file, v3 = process id
				 * (0 unknown); s1 = file */
	BP_FACT_KINDS
};

#define BP_TASK_KERNEL 1u   /* kernel thread */
#define BP_TASK_IDLE 2u     /* swapper/N */
#define BP_TASK_BOOT 4u     /* not a task: firmware and early boot on one vCPU */

struct bp_fact {
	uint16_t kind;        /* enum bp_fact_kind */
	uint16_t vcpu;        /* where it was observed, UINT16_MAX if nowhere */
	uint64_t time_ns;
	uint64_t insns;       /* vCPU clock, 0 if vcpu is UINT16_MAX */
	uint64_t v[4];
	const char *s1, *s2;  /* guest's words, untrusted */
};

/*
 * Short calls that --max-size left out of the events: totals per function that must be added to
 * what the events say. Self figures are negative for a caller, whose events include the time of
 * the calls left out. A row may have totals and no calls: of functions that were already open when events ended.
 */
struct bp_fold {
	uint32_t func;
	uint64_t calls;
	int64_t self_ns, self_insns;
	uint64_t total_ns, total_insns;
	uint64_t min_ns, max_ns;  /* of one folded call, total; 0 when calls is 0 */
};

#endif
