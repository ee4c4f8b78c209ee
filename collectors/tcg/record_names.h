/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names while recording: from the kernel image, the guest's files and the machine's memory map. */
#ifndef BP_COLLECTORS_TCG_RECORD_NAMES_H
#define BP_COLLECTORS_TCG_RECORD_NAMES_H

#include "collectors/tcg/engine.h"
#include "collectors/tcg/qemu_args.h"
#include "core/err.h"

struct bp_record_names;

/**
 * bp_record_names_create() - open everything names come from
 * @kernel: bzImage or ELF kernel, NULL if not known: the guest's kernel stays nameless
 * @vmlinux: debug vmlinux that must match @kernel's build-id, NULL: looked for in the usual places
 * @guest_root: directory, or NULL
 * @warn: called with one line for what could not be used but need not stop the recording (a damaged initrd)
 * Errors: as bp_kimage_open(); BP_EUSAGE with both build-ids when @vmlinux does not match.
 */
struct bp_err *bp_record_names_create(const char *kernel, const char *vmlinux, const char *guest_root,
				      const struct bp_qemu_args *args, void (*warn)(const char *line),
				      struct bp_record_names **ret) BP_MUST_CHECK;
void bp_record_names_destroy(struct bp_record_names *n);

/** bp_record_names_get() - the engine's view of it; valid until destroy */
const struct bp_names *bp_record_names_get(const struct bp_record_names *n);

/**
 * bp_record_names_prepare() - tell the plugin where functions start, what to look at and how guest structures
 * are laid out, before QEMU is started
 * @mark_names: BP_MAX_HOOKS entries, filled with the mark of each hook or NULL
 * @until_function: a function to hook for the ready marker, or NULL
 * @until_hook: its hook, -1 when none
 * Errors: BP_EUSAGE when there is no such function.
 */
struct bp_err *bp_record_names_prepare(struct bp_record_names *n, struct bp_ring_shm *shm,
				       const char *mark_names[BP_MAX_HOOKS], const char *until_function,
				       int *until_hook) BP_MUST_CHECK;

/** bp_record_names_trim() - after bp_record_names_prepare(): give back memory that no name needs */
void bp_record_names_trim(struct bp_record_names *n);

/** bp_record_names_facts() - INFO and INITCALL facts: kernel release, build-id, where names come from */
struct bp_err *bp_record_names_facts(const struct bp_record_names *n, struct bp_trace_writer *w) BP_MUST_CHECK;

#endif
