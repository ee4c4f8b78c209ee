/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ELF side of a kernel image: which bytes sit at which link-time address, the symbol table if it was not
 * stripped, notes. Internal to symbols/. All offsets and counts are checked when it is opened, so what the
 * structs point at can be read without further checks.
 */
#ifndef BP_SYMBOLS_VMLINUX_H
#define BP_SYMBOLS_VMLINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "symbols/kimage.h"

#define BP_BUILD_ID_MAX 64 /* bytes; the longest that ld makes is 20 */

/* Bytes of a symbol name with its NUL; twice KSYM_NAME_LEN of Linux. Longer ones are taken for damage. */
#define BP_KSYM_NAME_BYTES 1024

/* The kernel is linked into the top 2 GiB of the address space. */
#define BP_KERNEL_BASE_ADDR 0xffffffff80000000ull

/* Part of the image that is loaded into memory and whose bytes are in the file. */
struct bp_vmsec {
	const char *name;    /* "" when there are no section headers */
	uint64_t addr, size; /* bytes; addr + size does not wrap */
	size_t off;          /* in the image; off + size is inside */
	bool exec, write;
};

struct bp_vmlinux {
	const uint8_t *data; /* borrowed */
	size_t len;
	const char *path;      /* borrowed, for error texts */
	uint64_t base;         /* file offset of data[0], for error texts; 0 for a decompressed one */
	struct bp_vmsec *secs; /* sorted by address */
	size_t sec_count;
	uint64_t text_start, text_end; /* hull of the executable sections; 0, 0 if none */
	uint64_t end;            /* end of the last section, with those that have no bytes in the file */
	size_t btf_off, btf_len; /* section .BTF, 0 if none */
	size_t symtab_off, symtab_len; /* 0 if stripped */
	size_t strtab_off, strtab_len; /* ends with a NUL when not empty */
	size_t shdr_off, shdr_count;   /* to classify symbols */
	bool has_dwarf;
	char build_id[2 * BP_BUILD_ID_MAX + 1];
};

/**
 * bp_vmlinux_init() - check and index an ELF image
 * @data: must outlive @v
 * Errors: BP_EDATA; BP_EUNSUPPORTED when it is ELF but not x86-64. @v needs no deinit after an error.
 * Source: ELF gABI; AMD64 psABI.
 */
struct bp_err *bp_vmlinux_init(struct bp_vmlinux *v, const void *data, size_t len,
			       const char *path) BP_MUST_CHECK;
void bp_vmlinux_deinit(struct bp_vmlinux *v);

/** bp_vmlinux_at() - the bytes at [addr, addr + len), all in one section; NULL if there are none. Borrowed */
const uint8_t *bp_vmlinux_at(const struct bp_vmlinux *v, uint64_t addr, uint64_t len);

/**
 * bp_vmlinux_symtab() - the symbols of .symtab in file order, without sections, files, undefined ones and
 * names of BP_KSYM_NAME_BYTES or more
 * @ret: owned array, names borrowed from the image; a size of 0 means unknown. *count 0 when stripped.
 */
struct bp_err *bp_vmlinux_symtab(const struct bp_vmlinux *v, struct bp_ksym **ret,
				 size_t *count) BP_MUST_CHECK;

#endif
