/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names for the locks of a QEMU process: the address that a thread waits on in futex(2), as a symbol of the
 * QEMU binary or as an arena of the C library's allocator.
 *
 * Distributions strip QEMU, and its big lock is static: it has no symbol. Its address is then taken from the
 * code of exported functions that lock and unlock it, several of which must agree. Nothing is guessed: a
 * symbol next to the address whose size does not cover it is no name for it.
 *
 * One thread. The binary is read by libelf; the text of the mappings is not trusted.
 */
#ifndef BP_SYMBOLS_QEMU_LOCKS_H
#define BP_SYMBOLS_QEMU_LOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_qemu_locks;

#define BP_LOCK_NAME_MAX 128

struct bp_qemu_lock {
	char name[BP_LOCK_NAME_MAX]; /* "qemu_global_mutex"; "ram_list+0x28" inside a larger object */
	const char *how; /* "symbol table", "debug symbols", "code of lock functions", "malloc arena";
			  * static */
	uint64_t size;   /* bytes of it, at least those of the futex */
	uint64_t addr;   /* where the object begins, at run time */
	bool is_bql;     /* QEMU's big lock, whatever this version calls it */
};

/** bp_qemu_is_bql() - whether a lock of this name is QEMU's big lock, in whatever version */
bool bp_qemu_is_bql(const char *name);

/**
 * bp_qemu_locks_create() - read the symbols and lock functions of a QEMU binary
 * @binary: path of the binary, or /proc/PID/exe; symbols come from its own tables, and from the separate
 *          debug file of the same build-id in /usr/lib/debug when there is one
 * @mapped: its path as it is in @maps; NULL: the path or last component of @binary, else the first
 *          file mapped
 * @maps, @maps_len: text of /proc/PID/maps (copied); the binary must be mapped as its program headers say
 * @root: where the process's libraries are found, "" for the host's own, /proc/PID/root; NULL: they are not
 *        looked at, which is right for mappings from another machine
 * Errors: BP_EOS, BP_EDATA (no ELF file; no sense in the mappings: with the line's offset); BP_EUNSUPPORTED
 * (the mappings are of another binary).
 */
struct bp_err *bp_qemu_locks_create(const char *binary, const char *mapped, const char *maps, size_t maps_len,
				    const char *root, struct bp_qemu_locks **ret) BP_MUST_CHECK;
void bp_qemu_locks_destroy(struct bp_qemu_locks *l);

/** bp_qemu_locks_update() - later mappings of the same process: threads get their arenas as they start */
struct bp_err *bp_qemu_locks_update(struct bp_qemu_locks *l, const char *maps, size_t maps_len) BP_MUST_CHECK;

/** bp_qemu_locks_bql() - run-time address of the big lock; 0 and *@how NULL when it is not known */
uint64_t bp_qemu_locks_bql(const struct bp_qemu_locks *l, const char **how);

/** bp_qemu_locks_find() - name the object covering a run-time address; false when there is none */
bool bp_qemu_locks_find(const struct bp_qemu_locks *l, uint64_t addr, struct bp_qemu_lock *ret);

/**
 * bp_qemu_locks_place() - in what kind of memory an address without a name lies
 * @dst: "heap", "stack", "anonymous memory", "libfoo.so.1+0x40", "unmapped"; at least BP_LOCK_NAME_MAX bytes.
 *       Of a file its offset; of the zeroed data behind it, from where it is loaded
 */
void bp_qemu_locks_place(const struct bp_qemu_locks *l, uint64_t addr, char *dst);

/** bp_qemu_locks_text() - a string constant of the binary at a run-time address: source file names, as QEMU's
 * lock functions get them. Printable characters only; false when there is none. */
bool bp_qemu_locks_text(const struct bp_qemu_locks *l, uint64_t addr, char *dst, size_t cap);

/* Where to put a uprobe that sees a lock being taken. */
struct bp_qemu_probe {
	const char *function; /* exported; static */
	uint64_t file_offset; /* of the instruction */
	bool emulated;  /* the kernel emulates the instruction: a tenth of the cost of single-stepping it */
	bool any_mutex; /* arguments (mutex, file, line); else (file, line) and the lock is the big one */
};

/**
 * bp_qemu_locks_probe() - @any_mutex: of every QemuMutex, else of the big lock only
 * The probe lies where the function's arguments are still in their registers. False when the binary exports
 * no such function.
 */
bool bp_qemu_locks_probe(const struct bp_qemu_locks *l, bool any_mutex, struct bp_qemu_probe *ret);

/* ---- the code scanner, for tests ---- */

#define BP_LEA_MAX 32

/**
 * bp_lea_targets() - addresses that the LEA instructions relative to RIP in x86-64 code compute
 * @vaddr: of code[0]; @low, @high: only targets in [low, high)
 * @next_to: only where the instruction after it is a call or jump to this address; 0: anywhere
 * Instructions are recognised at any byte, so that a result may be chance; whoever asks compares several
 * functions. @ret: distinct, in order of appearance; returns how many, at most BP_LEA_MAX.
 */
size_t bp_lea_targets(const uint8_t *code, size_t len, uint64_t vaddr, uint64_t low, uint64_t high,
		      uint64_t next_to, uint64_t ret[BP_LEA_MAX]);

/**
 * bp_probe_offset() - the first instruction of a function that the kernel can emulate for a uprobe
 * Looks over a prologue that leaves the argument registers alone. Returns 0 and *@emulated false when the
 * first one is as good as any.
 * Source: arch/x86/kernel/uprobes.c (push, near call, nop).
 */
size_t bp_probe_offset(const uint8_t *code, size_t len, bool *emulated);

#endif
