/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A bzImage: real-mode setup code with a header, then the compressed vmlinux. Internal to symbols/. */
#ifndef BP_SYMBOLS_BZIMAGE_H
#define BP_SYMBOLS_BZIMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

/** bp_bzimage_is() - true when the bytes start with a Linux/x86 setup header */
bool bp_bzimage_is(const void *data, size_t len);

/**
 * bp_bzimage_expand() - decompress the kernel inside
 * @max_bytes: limit of the output
 * @out: owned by the caller, free(); @out_len bytes: an ELF vmlinux, with relocations behind it
 * Errors: BP_EDATA with offset; BP_EUNSUPPORTED for a boot protocol before 2.08 (2.6.26) and for a
 * compression that we cannot expand.
 * Source: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
 */
struct bp_err *bp_bzimage_expand(const void *data, size_t len, const char *path, uint64_t max_bytes,
				 uint8_t **out, size_t *out_len) BP_MUST_CHECK;

/** bp_bzimage_release() - copy the release out of the header ("6.1.0-56-cloud-amd64"), "" if it has none */
void bp_bzimage_release(const void *data, size_t len, char *dst, size_t dst_len);

#endif
