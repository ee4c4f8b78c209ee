/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recording a guest: runs the user's QEMU command line with the plugin added, keeps its console usable, and
 * writes the recording until QEMU ends or the ready marker is seen.
 *
 * One recording at a time in a process: it handles SIGINT, SIGTERM, SIGHUP and SIGWINCH.
 */
#ifndef BP_CMD_RECORD_RUN_H
#define BP_CMD_RECORD_RUN_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "collectors/vcpu/live.h"
#include "core/err.h"
#include "core/strbuf.h"
#include "core/trace.h"

enum bp_lock_sites { BP_SITES_SAMPLED, BP_SITES_ALWAYS, BP_SITES_NEVER };

struct bp_record_options {
	const char *output;       /* path of the recording */
	char **qemu_argv;         /* NULL-terminated, the user's own command line */
	const char *plugin;       /* path of bootprof-tcg.so, NULL: beside the program or installed */
	const char *kernel_image; /* NULL: the one given to QEMU by -kernel */
	const char *vmlinux;      /* NULL: looked for by build-id */
	const char *guest_root;   /* directory with the guest's files, NULL: the initrd only */
	bool deterministic;
	bool no_user;              /* do not trace user space */
	bool quiet;                /* no progress, no summary */
	uint64_t timeout_ns;       /* 0: none */
	uint64_t max_bytes;        /* 0: unbounded */
	const char *until_console; /* extended regular expression */
	const char *until_function;
	const char *until_exec;
	int until_port;                /* -1: none; I/O port, written with ... */
	unsigned until_value;          /* ... this byte */
	bool waits;                    /* what the host does with QEMU's threads, too */
	enum bp_lock_sites lock_sites; /* when a uprobe is on QEMU's lock function */
	enum bp_futex_calls futex;     /* which calls of futex(2) */
	bool tui;                      /* show it while it runs: bp_tui_live() */
	int pid;                       /* with waits: a QEMU that runs already, 0: start qemu_argv */
};

/**
 * bp_record_run() - record until the end
 * @status: exit code for the program: QEMU's own, 0 when recording ended it, 124 when the time ran out before
 *          the marker that was asked for
 * Errors: BP_EUSAGE (options that contradict each other, a pattern that does not compile); BP_EUNSUPPORTED
 * (not TCG, a QEMU without plugins, a kernel without symbols); BP_EOS; BP_EDATA (the kernel image, a vmlinux
 * that does not match). What had been recorded by then is in the file.
 */
struct bp_err *bp_record_run(const struct bp_record_options *opts, int *status) BP_MUST_CHECK;

/* getopt_long() table of `bootprof record`, for commands that record as well; ends with an empty entry. */
extern const struct option bp_record_options_table[];

/** bp_record_option() - handle one of them; @arg is borrowed. Errors: BP_EUSAGE */
struct bp_err *bp_record_option(int opt, const char *arg, struct bp_record_options *o) BP_MUST_CHECK;

/** bp_record_quote() - append an argument of a command line so that it can be pasted into a shell */
void bp_record_quote(struct bp_strbuf *line, const char *arg);

/** bp_record_clock_base() - the INFO fact that says what CLOCK_MONOTONIC was at time 0 */
struct bp_err *bp_record_clock_base(struct bp_trace_writer *w, uint64_t ns) BP_MUST_CHECK;

/** bp_record_host_info() - INFO facts about this program and this machine */
struct bp_err *bp_record_host_info(struct bp_trace_writer *w) BP_MUST_CHECK;

#endif
