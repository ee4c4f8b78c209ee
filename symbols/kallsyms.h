/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's own symbol table, as it lies in the read-only data of an image or of a running guest. It is
 * found by its structure, as nothing in a stripped image points at it. Internal to symbols/.
 */
#ifndef BP_SYMBOLS_KALLSYMS_H
#define BP_SYMBOLS_KALLSYMS_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "symbols/kimage.h"

struct bp_kallsyms {
	struct bp_ksym *syms; /* owned; in the kernel's order: by address, preferred alias first; sizes 0 */
	size_t count;
	char *names; /* owned; what the names point into */
};

/**
 * bp_kallsyms_decode() - find and expand kallsyms in a block of memory
 * @data: at an address that is a multiple of 8, holding all tables; not needed afterwards
 * @path, @base: for error texts: the file, and the offset of @data in it
 * @ret: count 0 when the block has no kallsyms
 * Errors: BP_EUNSUPPORTED when there is a token table but names or addresses are not where 4.20 to 6.15
 * have them; BP_ENOMEM.
 * Source: scripts/kallsyms.c and kernel/kallsyms.c. From 4.20 the order is offsets, relative_base,
 * num_syms, names, markers, [seqs_of_names,] token_table, token_index; from 6.4 it is num_syms, names,
 * markers, token_table, token_index, offsets, relative_base, seqs_of_names. Every table starts at a
 * multiple of 8, the gaps are zero.
 */
struct bp_err *bp_kallsyms_decode(const void *data, size_t len, const char *path, uint64_t base,
				  struct bp_kallsyms *ret) BP_MUST_CHECK;
void bp_kallsyms_deinit(struct bp_kallsyms *ks);

#endif
