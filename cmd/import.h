/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making a recording from the traces of others, for `bootprof import` and for commands that are given such a
 * trace. */
#ifndef BP_CMD_IMPORT_H
#define BP_CMD_IMPORT_H

#include <stdbool.h>

#include "core/err.h"
#include "core/trace.h"
#include "symbols/foreign.h"

struct bp_import_options {
	const char *format; /* of an importer; NULL: found out from the beginning of the file */
	struct bp_foreign_options names;
	const char *maps;      /* copy of /proc/PID/maps of the QEMU that was traced; NULL: none */
	const char *qemu;      /* its binary; NULL: as in the maps */
	bool vmlinux_for_more; /* a kernel has its use with recordings, too */
	const char *command;   /* whose progress and notes go to standard error; NULL: none of them */
};

/* What says how to read a foreign trace: of commands that take one in the place of a recording. */
enum {
	BP_OPT_VMLINUX = 1024,
	BP_OPT_KALLSYMS,
	BP_OPT_MODULES,
	BP_OPT_MODULE_DIR,
	BP_OPT_KASLR,
	BP_OPT_INPUT_FORMAT,
};

#define BP_FOREIGN_OPTIONS_BUT_VMLINUX                                       \
	{"kallsyms", required_argument, NULL, BP_OPT_KALLSYMS},              \
	    {"modules", required_argument, NULL, BP_OPT_MODULES},            \
	    {"module-dir", required_argument, NULL, BP_OPT_MODULE_DIR},      \
	    {"kaslr", required_argument, NULL, BP_OPT_KASLR},                \
	{                                                                    \
		"input-format", required_argument, NULL, BP_OPT_INPUT_FORMAT \
	}
#define BP_FOREIGN_OPTIONS \
	{"vmlinux", required_argument, NULL, BP_OPT_VMLINUX}, BP_FOREIGN_OPTIONS_BUT_VMLINUX

#define BP_FOREIGN_HELP_BUT_VMLINUX                                                              \
	"      --kallsyms FILE      of a foreign trace: names from a System.map or a copy of "   \
	"/proc/kallsyms\n"                                                                       \
	"      --modules FILE       where modules were: a copy of /proc/modules\n"               \
	"      --module-dir DIR     .ko files of the modules, as in /lib/modules/RELEASE\n"      \
	"      --kaslr=SLIDE        auto (the default), or by how much KASLR moved the kernel\n" \
	"      --input-format=FMT   format of the trace, as bootprof import --format\n"
#define BP_FOREIGN_HELP                                                           \
	"      --vmlinux FILE       of a foreign trace: the guest's kernel, for " \
	"names\n" BP_FOREIGN_HELP_BUT_VMLINUX

/**
 * bp_foreign_option() - take one of these options
 * @taken: false: it is none of them
 * Errors: BP_EUSAGE when the argument makes no sense. Strings are borrowed.
 */
struct bp_err *bp_foreign_option(struct bp_import_options *o, int c, const char *arg,
				 bool *taken) BP_MUST_CHECK;

/**
 * bp_import_open() - convert a foreign trace to a recording that exists only as long as it is open
 * @path: of the trace, "-" for standard input
 * The recording has no name in the file system (it was in TMPDIR); its path in texts is that of the trace.
 * Errors: BP_EDATA when no importer knows the format or nothing could be read; otherwise what was valid is in
 * the recording, and notes say what was not.
 */
struct bp_err *bp_import_open(const char *path, const struct bp_import_options *o,
			      struct bp_trace **ret) BP_MUST_CHECK;

#endif
