/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands of bootprof. Each parses its own options (getopt_long) and prints its own --help. */
#ifndef BP_CMD_CMD_H
#define BP_CMD_CMD_H

#include "core/err.h"

/**
 * struct bp_cmd - one command
 * @run: @argv[0] is "bootprof NAME". Returns an error (BP_EUSAGE: exit code 2, others 1; printed by
 *       main as "bootprof NAME: text"), or NULL with the exit code in *status (0 when untouched).
 */
struct bp_cmd {
	const char *name;
	const char *summary;  /* one line for `bootprof --help` */
	struct bp_err *(*run)(int argc, char **argv, int *status);
};

extern const struct bp_cmd bp_cmd_record, bp_cmd_report, bp_cmd_info, bp_cmd_dump, bp_cmd_export,
	bp_cmd_import, bp_cmd_diff, bp_cmd_gate, bp_cmd_tui;

/* Default name of a recording, as perf's -i and -o default to perf.data. */
#define BP_DEFAULT_FILE "bootprof.data"

#endif
