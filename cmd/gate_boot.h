/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Boots for `bootprof gate`: records or times a guest, and gives the summary. */
#ifndef BP_CMD_GATE_BOOT_H
#define BP_CMD_GATE_BOOT_H

#include <stdbool.h>

#include "analyzers/summary.h"
#include "cmd/record_run.h"
#include "core/err.h"

struct bp_boot_how {
	struct bp_record_options record; /* output and qemu_argv are set here */
	bool only_time;   /* run the command without recording: what it takes from start to end */
	const char *keep; /* directory for the recordings; NULL: they are not kept */
};

/**
 * bp_boot_run() - one boot, with neither input nor output
 * @argv: QEMU's command line, NULL-terminated
 * @number: for the name of the recording that is kept
 * @failed: owned; why the guest did not boot, NULL when it did; then *ret is set
 * Errors: what is no fault of the guest's; BP_ESTOPPED when a signal came.
 */
struct bp_err *bp_boot_run(const struct bp_boot_how *how, char **argv, unsigned number,
			   struct bp_summary **ret, char **failed) BP_MUST_CHECK;

/** bp_boot_inputs() - note the kernel and the initrd of the summary's command line with their checksums */
struct bp_err *bp_boot_inputs(struct bp_summary *s) BP_MUST_CHECK;

/** bp_boot_inputs_same() - are they still what they were? */
bool bp_boot_inputs_same(const struct bp_summary *s);

/**
 * bp_boot_perturb() - a command line that differs in something harmless: a few bytes more at the end of the
 * initrd (a copy, in TMPDIR), or without one a word more on the kernel's command line
 * @number: from 1, each another change
 * @ret: owned, NULL-terminated, with owned strings; NULL when there is nothing to change
 * @copy: owned; a file to be removed, or NULL
 */
struct bp_err *bp_boot_perturb(char *const *argv, unsigned number, char ***ret, char **copy) BP_MUST_CHECK;

/** bp_boot_free_argv() - free the strings and the list */
void bp_boot_free_argv(char **argv);

#endif
