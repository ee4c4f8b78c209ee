/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening of the type information; what can be asked of it is in symbols/kimage.h. Internal to symbols/. */
#ifndef BP_SYMBOLS_BTF_H
#define BP_SYMBOLS_BTF_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "symbols/kimage.h"

/**
 * bp_btf_open() - index the types of a BTF blob
 * @data: must outlive the result
 * @path, @base: for error texts: the file, and the offset of @data in it
 * Types behind one of a kind that we do not know are left out, as its length cannot be told.
 * Errors: BP_EDATA, BP_EUNSUPPORTED (another version).
 * Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
 */
struct bp_err *bp_btf_open(const void *data, size_t len, const char *path, uint64_t base,
			   struct bp_btf **ret) BP_MUST_CHECK;
void bp_btf_destroy(struct bp_btf *btf);

#endif
