/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Source lines from DWARF, by libdw. A look-up costs about half a millisecond: ask only for what
 * is shown.
 */
#ifndef BP_SYMBOLS_LINES_H
#define BP_SYMBOLS_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

struct bp_lines;

/**
 * bp_lines_open() - @path: ELF file with .debug_line (a debug vmlinux, a .ko.debug)
 * @want_build_id: lower-case hex that the file must have, or NULL
 * Errors: BP_EOS, BP_EDATA; BP_EUNSUPPORTED when it has no DWARF; BP_EUSAGE when the build-id
 * differs, with both build-ids in the text.
 */
struct bp_err *bp_lines_open(const char *path, const char *want_build_id, struct bp_lines **ret) BP_MUST_CHECK;
void bp_lines_destroy(struct bp_lines *l);

/**
 * bp_lines_find() - source position of a link-time address
 * @file: borrowed until @l dies, without the build directory where that can be told
 * Returns false if the DWARF has no line for it.
 */
bool bp_lines_find(struct bp_lines *l, uint64_t addr, const char **file, int *line);

/**
 * bp_debug_vmlinux_find() - where distributions put the debug vmlinux of a kernel
 * Looks for /usr/lib/debug/.build-id/xx/yyy.debug, /usr/lib/debug/boot/vmlinux-RELEASE,
 * /usr/lib/debug/lib/modules/RELEASE/vmlinux, /boot/vmlinux-RELEASE; accepts a file only when its
 * build-id is @build_id. @ret: owned path, NULL if none is there.
 */
struct bp_err *bp_debug_vmlinux_find(const char *build_id, const char *release, char **ret) BP_MUST_CHECK;

#endif
