/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Source lines from DWARF, by libdw. A look-up costs about half a millisecond for the first address of a
 * source file, and the first of all 0.1 s more (list of compilation units): ask only for what is
 * shown.
 *
 * One thread at a time. Debug files are trusted as far as libdw stands damaged ones.
 */
#ifndef BP_SYMBOLS_LINES_H
#define BP_SYMBOLS_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

struct bp_lines;

/**
 * bp_lines_open() - @path: linked ELF file with .debug_line (a debug vmlinux)
 * @want_build_id: lower-case hex that the file must have, or NULL
 * Errors: BP_EOS, BP_EDATA; BP_EUNSUPPORTED when it has no DWARF, or is a relocatable file
 * (a .ko.debug), in which addresses mean nothing before it is loaded; BP_EUSAGE when the build-id
 * differs, with both build-ids in the text.
 */
struct bp_err *bp_lines_open(const char *path, const char *want_build_id,
			     struct bp_lines **ret) BP_MUST_CHECK;
void bp_lines_destroy(struct bp_lines *l);

/**
 * bp_lines_find() - source position of a link-time address
 * @file: borrowed until @l dies, without the build directory where that can be told: "kernel/fork.c"
 * Returns false if the DWARF has no line for it.
 */
bool bp_lines_find(struct bp_lines *l, uint64_t addr, const char **file, int *line);

/**
 * bp_debug_vmlinux_find() - where distributions put the debug vmlinux of a kernel
 * Looks for /usr/lib/debug/.build-id/xx/yyy.debug, /usr/lib/debug/boot/vmlinux-RELEASE,
 * /usr/lib/debug/lib/modules/RELEASE/vmlinux, /boot/vmlinux-RELEASE; accepts a file only when its
 * build-id is @build_id (lower-case hex; "" finds nothing). @ret: owned path, NULL if none is there.
 */
struct bp_err *bp_debug_vmlinux_find(const char *build_id, const char *release, char **ret) BP_MUST_CHECK;

/** bp_debug_vmlinux_find_under() - the same below another root directory ("" is the host's own) */
struct bp_err *bp_debug_vmlinux_find_under(const char *root, const char *build_id, const char *release,
					   char **ret) BP_MUST_CHECK;

#endif
