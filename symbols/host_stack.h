/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stacks of threads of a running process of the host: programs are built without frame pointers, so frames
 * are found by the unwind tables of the files that are mapped.
 *
 * Nothing is stopped. Of a thread that runs, somebody else has taken the registers and a copy of the stack at
 * one moment. Of one that is blocked in a system call: what a thread is blocked in, its stack pointer and
 * instruction are in /proc/PID/task/TID/syscall; its stack is read from the process's memory; a stack counts
 * when the same is said again afterwards. A thread that blocked twice in the same call at the same place
 * meanwhile gives a stack of one of the two.
 *
 * Reading needs the permission to trace the process (ptrace(2)). One thread at a time.
 */
#ifndef BP_SYMBOLS_HOST_STACK_H
#define BP_SYMBOLS_HOST_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

/* What a thread is blocked in. */
struct bp_blocked {
	long nr; /* of the system call; -1: none */
	uint64_t args[6];
	uint64_t sp, pc;
};

/** bp_blocked_parse() - the text of /proc/PID/task/TID/syscall; false: it runs, or the text is something else
 */
bool bp_blocked_parse(const char *text, struct bp_blocked *ret);

/** bp_blocked_read() - what thread @tid of @pid is blocked in; false: in nothing, or it cannot be read */
bool bp_blocked_read(pid_t pid, pid_t tid, struct bp_blocked *ret);

struct bp_host_stacks;

#define BP_HOST_STACK_FRAMES 48

/**
 * bp_host_stacks_create() - for the process @pid, which need not have mapped all of its files yet
 * Errors: BP_ENOMEM, BP_EUNSUPPORTED.
 */
struct bp_err *bp_host_stacks_create(pid_t pid, struct bp_host_stacks **ret) BP_MUST_CHECK;
void bp_host_stacks_destroy(struct bp_host_stacks *s);

/**
 * bp_host_stacks_take() - the stack of a blocked thread
 * @b: as read a moment ago
 * @pc: instructions, innermost first; those of callers are return addresses less 1
 * Returns how many, at least 1; 0: the thread has gone on, or the files that are mapped cannot be read.
 * A stack ends early where the unwind tables do, or where they want a register that is not known: only the
 * stack pointer and the instruction are, until a frame has saved others. Code with frame pointers wants one
 * at once. Code that lies in no file, as QEMU's translated code does, ends it as well, and is in it only as
 * innermost.
 */
size_t bp_host_stacks_take(struct bp_host_stacks *s, pid_t tid, const struct bp_blocked *b,
			   uint64_t pc[BP_HOST_STACK_FRAMES]);

/* What was taken of a thread while it ran. */
struct bp_running {
	uint64_t regs[17];    /* of user space; as DWARF numbers them for x86-64, 16 is the instruction */
	const uint8_t *stack; /* copy of the memory from the stack pointer on; borrowed */
	size_t stack_bytes;
};

/**
 * bp_host_stacks_unwind() - the stack of a thread at the moment at which @r was taken
 * @pc: as of bp_host_stacks_take()
 * Returns how many, 0: the files that are mapped cannot be read. What is on the stack behind the copy may
 * have changed since: a stack ends there. It also ends where the unwind tables do.
 */
size_t bp_host_stacks_unwind(struct bp_host_stacks *s, pid_t tid, const struct bp_running *r,
			     uint64_t pc[BP_HOST_STACK_FRAMES]);

/* Where an instruction lies. */
struct bp_host_place {
	const char *function; /* "": no symbol's size covers it */
	const char *file;     /* as mapped; "" unknown */
	uint64_t offset;      /* into the function, or into the file */
};

/**
 * bp_host_stacks_place() - by the symbols of the file, or of its debug file in /usr/lib/debug
 * The texts are borrowed until the next call of _place(), _take(), _unwind() or _destroy(), and not trusted.
 */
struct bp_host_place bp_host_stacks_place(struct bp_host_stacks *s, uint64_t pc);

#endif
