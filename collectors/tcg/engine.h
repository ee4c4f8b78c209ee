/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the plugin's raw records to events: keeps one call stack per guest task, follows context
 * switches, interrupts and system calls, and writes blocks and facts to the recording.
 *
 * One thread. Everything that comes out of the rings is untrusted (a guest can put anything into its
 * memory): names are bounded, tables grow only with what was really received.
 */
#ifndef BP_COLLECTORS_TCG_ENGINE_H
#define BP_COLLECTORS_TCG_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "collectors/tcg/ring.h"
#include "core/err.h"
#include "core/trace.h"

/* Where names come from; the engine never looks into symbol tables itself. @self is passed through. */
struct bp_names {
	void *self;
	/* Kernel function covering a link-time address. @name, @start: untouched when false is returned. */
	bool (*kernel)(void *self, uint64_t link_addr, const char **name, uint64_t *start);
	/* User function at a byte offset in a guest file. */
	bool (*user)(void *self, const char *guest_path, uint64_t offset, const char **name, uint64_t *start);
	/* Firmware or boot code at a linear address: a small number, its name and its phase mark (or NULL).
	 */
	unsigned (*region)(void *self, uint64_t linear, const char **name, const char **mark);
	/* Initcall level of a function as linked, -1 if it is none. */
	int (*initcall_level)(void *self, uint64_t link_addr, const char **level_name);
};

/* What happened that the recorder must act on; kept until read. */
struct bp_engine_status {
	uint64_t now_ns; /* host time of the newest event */
	uint64_t insns;  /* of all vCPUs */
	uint64_t calls;
	uint64_t events;
	uint64_t records; /* raw records taken from the rings */
	uint64_t lost;
	uint64_t unmatched; /* landings on a stack that had no frame for them */
	uint64_t stolen;    /* tasks that two vCPUs claimed: clocks of the host not in step */
	uint64_t too_deep;
	uint64_t folded_calls;
	const char *phase;   /* last mark */
	char last_line[160]; /* last console line from the guest kernel */
	bool panic, reboot, poweroff, halt, ready;
	char panic_text[160];
	char ready_by[160];
	uint64_t ready_ns;
};

struct bp_engine_options {
	const char *const *mark_names; /* per hook: name of its mark, NULL for none */
	const char
	    *until_function;    /* mark name "ready" when the hook of that index is entered: see until_hook */
	int until_hook;         /* -1: none */
	const char *until_exec; /* ready when this path is exec'd */
	bool (*until_console)(void *self, const char *line); /* ready when it returns true; NULL: none */
	void *until_console_self;
	uint64_t max_bytes; /* 0: unbounded */
	/* End at the guest's request to be switched off: how long it waits for that differs from run to run.
	 */
	bool end_at_poweroff;
	uint64_t start_ticks; /* host ticks at time 0 */
	double ns_per_tick;   /* of one unscaled host tick */
};

struct bp_engine;

/** bp_engine_create() - @shm, @writer, @names and everything in @opts are borrowed until destroy */
struct bp_err *bp_engine_create(struct bp_ring_shm *shm, struct bp_trace_writer *writer,
				const struct bp_names *names, const struct bp_engine_options *opts,
				struct bp_engine **ret) BP_MUST_CHECK;
void bp_engine_destroy(struct bp_engine *e);

/**
 * bp_engine_drain() - take everything that is in the rings now
 * @n: number of raw records taken
 * Errors: BP_EDATA when the rings make no sense, errors of the writer, BP_ENOMEM.
 */
struct bp_err *bp_engine_drain(struct bp_engine *e, uint64_t *n) BP_MUST_CHECK;

/** bp_engine_finish() - write what is still open: the last block, the vCPUs' facts, folded totals */
struct bp_err *bp_engine_finish(struct bp_engine *e, uint64_t end_ns) BP_MUST_CHECK;

/** bp_engine_mark() - add a mark from outside ("ready" by port, "qemu-exit") at a host time */
struct bp_err *bp_engine_mark(struct bp_engine *e, const char *name, const char *detail,
			      uint64_t ns) BP_MUST_CHECK;

/** bp_engine_ready() - the ready marker was seen outside (console, port) at @ns: nothing later is recorded */
struct bp_err *bp_engine_ready(struct bp_engine *e, const char *by, uint64_t ns) BP_MUST_CHECK;

/** bp_engine_ns() - host ticks to nanoseconds since time 0 */
uint64_t bp_engine_ns(const struct bp_engine *e, uint64_t ticks);

const struct bp_engine_status *bp_engine_status(struct bp_engine *e);

#endif
