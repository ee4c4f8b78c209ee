/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A Linux kernel image as a source of names: a bzImage (payload decompressed, kallsyms decoded
 * from the image itself), or an ELF vmlinux (symbol table). x86-64 only.
 *
 * All addresses are link-time virtual addresses (KASLR slide not applied). Everything in the
 * file is untrusted. Immutable after open, so any thread may read. Memory: the expanded image (about
 * 55 MB) stays as long as the object; a vmlinux is mapped, and must not be cut short meanwhile.
 */
#ifndef BP_SYMBOLS_KIMAGE_H
#define BP_SYMBOLS_KIMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_btf;
struct bp_kimage;

struct bp_ksym {
	uint64_t addr;       /* link-time address; per-CPU symbols: offset in the per-CPU area */
	uint64_t size;       /* bytes; from the symbol table, or up to the next symbol */
	const char *name;    /* borrowed from the image */
	char type;           /* as in nm(1): t T w W text; d D b B r R A ... */
};

struct bp_initcall {
	uint64_t addr;       /* link-time address of the function */
	uint8_t level;       /* 0 early, 1 pure ("0") ... as enum below */
};

/* Initcall levels in execution order; names for people come from bp_initcall_level_name(). */
enum bp_initcall_level {
	BP_INITCALL_EARLY,    /* before SMP: __initcall_start .. __initcall0_start */
	BP_INITCALL_PURE,     /* 0 */
	BP_INITCALL_CORE,     /* 1, 1s */
	BP_INITCALL_POSTCORE, /* 2 */
	BP_INITCALL_ARCH,     /* 3 */
	BP_INITCALL_SUBSYS,   /* 4 */
	BP_INITCALL_FS,       /* 5 */
	BP_INITCALL_ROOTFS,   /* rootfs, between 5 and 6 */
	BP_INITCALL_DEVICE,   /* 6 */
	BP_INITCALL_LATE,     /* 7 */
	BP_INITCALL_N
};

/**
 * bp_kimage_open() - load a kernel image
 * @path: bzImage or ELF vmlinux
 * @ret: owned by the caller, bp_kimage_destroy()
 * An ELF file without a symbol table may have kallsyms instead.
 * Errors: BP_EOS; BP_EDATA (not a kernel, truncated, corrupt); BP_EUNSUPPORTED (a compression or
 * kallsyms layout that we cannot read, a kernel without symbols).
 * Sources: Documentation/arch/x86/boot.rst (setup header, payload_offset); kernel/kallsyms.c and
 * scripts/kallsyms.c (token table, offsets, order of the tables: see symbols/kallsyms.h).
 */
struct bp_err *bp_kimage_open(const char *path, struct bp_kimage **ret) BP_MUST_CHECK;
void bp_kimage_destroy(struct bp_kimage *k);

/**
 * bp_kimage_trim() - give back the memory of an expanded image (50 MB); its symbols stay
 * From then on bp_kimage_read() finds nothing and bp_kimage_btf() is NULL. Does nothing to an image that is a file of
 * its own or whose symbols need it.
 */
void bp_kimage_trim(struct bp_kimage *k);

/**
 * bp_kimage_open_memory() - the same for a file that is in memory
 * @data: must outlive the result when it is an ELF file; a bzImage is not needed any longer
 * @path: for error texts, copied
 */
struct bp_err *bp_kimage_open_memory(const void *data, size_t len, const char *path, struct bp_kimage **ret)
	BP_MUST_CHECK;

/** bp_kimage_syms() - all symbols sorted by address, absolute per-CPU ones first; borrowed */
const struct bp_ksym *bp_kimage_syms(const struct bp_kimage *k, size_t *count);

/** bp_kimage_lookup() - first symbol of that name, NULL if none; borrowed */
const struct bp_ksym *bp_kimage_lookup(const struct bp_kimage *k, const char *name);

/**
 * bp_kimage_find() - the text symbol covering @addr, NULL if none
 * As in the kernel, a function reaches up to the next one (or the end of its section), whatever its size.
 * Of several names for one address it is the one that the kernel itself prints (ftrace, stack dumps): not
 * weak before weak, fewer leading underscores before more; but section marks (_stext, __entry_text_start)
 * and the prefixes __pfx_ and __cfi_ only if there is nothing else. The same for bzImage and vmlinux.
 * Source: compare_symbols() of scripts/kallsyms.c.
 */
const struct bp_ksym *bp_kimage_find(const struct bp_kimage *k, uint64_t addr);

/** bp_kimage_text() - link-time range of the kernel's text, [start, end), .init.text included */
void bp_kimage_text(const struct bp_kimage *k, uint64_t *start, uint64_t *end);

/** bp_kimage_release() - "6.1.0-56-cloud-amd64", "" if unknown; borrowed */
const char *bp_kimage_release(const struct bp_kimage *k);

/** bp_kimage_build_id() - GNU build-id as lower-case hex, "" if none; borrowed */
const char *bp_kimage_build_id(const struct bp_kimage *k);

/** bp_kimage_is_debug() - true for an ELF vmlinux with DWARF */
bool bp_kimage_is_debug(const struct bp_kimage *k);

/**
 * bp_kimage_read() - bytes of the image as linked (before alternatives, relocations and patching)
 * Returns false if [addr, addr + len) is not all inside file-backed sections.
 */
bool bp_kimage_read(const struct bp_kimage *k, uint64_t addr, void *dst, size_t len);

/** bp_kimage_initcalls() - all built-in initcalls in execution order; *count may be 0; borrowed */
const struct bp_initcall *bp_kimage_initcalls(const struct bp_kimage *k, size_t *count);
const char *bp_initcall_level_name(enum bp_initcall_level level);

/**
 * bp_kimage_syscall_name() - "openat" for an x86-64 system call number, NULL if unknown
 * From a table of our own, as the numbers are ABI and the names of the functions differ from those of the
 * calls (newfstat); for newer calls from the image's sys_call_table and symbols (__x64_sys_openat).
 */
const char *bp_kimage_syscall_name(const struct bp_kimage *k, unsigned nr);

/** bp_kimage_btf() - type information, NULL if the kernel has none; borrowed */
const struct bp_btf *bp_kimage_btf(const struct bp_kimage *k);

/**
 * bp_btf_offset() - byte offset of a member
 * @type: struct name, "task_struct"
 * @path: member path, "mm" or "f_path.dentry"; anonymous members are looked through;
 *        "[n]" indexes an array: "mem[0].base"
 * Returns the byte offset, or -1 if there is no such member (or it is a bit-field).
 * Source: Documentation/bpf/btf.rst.
 */
int64_t bp_btf_offset(const struct bp_btf *btf, const char *type, const char *path);

/** bp_btf_sizeof() - size of a struct in bytes, or -1 */
int64_t bp_btf_sizeof(const struct bp_btf *btf, const char *type);

#endif
