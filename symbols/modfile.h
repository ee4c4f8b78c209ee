/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Functions of a kernel module from its .ko file, relative to where the kernel loads the module's code.
 *
 * The file is not trusted. Packed ones (.ko.xz, .ko.gz, .ko.zst) are expanded.
 * Source of the layout: kernel/module/main.c, layout_sections(): sections with code come first, in the order
 * of the file, each at its own alignment; those of the init part are loaded elsewhere.
 */
#ifndef BP_SYMBOLS_MODFILE_H
#define BP_SYMBOLS_MODFILE_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_modfile_sym {
	uint64_t offset;  /* from the module's base, as /proc/modules says it */
	const char *name; /* untrusted; lives as long as the file's struct */
	char type;        /* 'T', 't' or 'W', as in kallsyms */
};

struct bp_modfile {
	struct bp_modfile_sym *syms; /* in no order */
	size_t n_syms;
	uint64_t text_bytes;
	char release[96]; /* of the kernel that it is for; "" when it does not say */
	uint8_t *data;    /* the file */
};

/** bp_modfile_read() - errors: BP_EOS; BP_EDATA (not a module of x86-64, damaged); BP_ENOMEM */
struct bp_err *bp_modfile_read(const char *path, struct bp_modfile *ret) BP_MUST_CHECK;

/** bp_modfile_parse() - the same for @len bytes in memory, which become @ret's, also on errors */
struct bp_err *bp_modfile_parse(const char *path, uint8_t *data, size_t len,
				struct bp_modfile *ret) BP_MUST_CHECK;

void bp_modfile_deinit(struct bp_modfile *m);

#endif
