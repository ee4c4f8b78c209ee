// SPDX-License-Identifier: GPL-2.0-or-later
/* A hostile kernel image, ELF or bzImage, and all that is asked of it. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "symbols/kimage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_kimage *k = NULL;
	const struct bp_initcall *calls;
	const struct bp_ksym *syms;
	uint64_t start, end;
	char buf[64];
	size_t n;

	bp_err_ignore(bp_kimage_open_memory(data, size, "fuzz", &k));
	if (!k)
		return 0;
	syms = bp_kimage_syms(k, &n);
	for (size_t i = 0; i < n; i++) {
		if (!bp_kimage_lookup(k, syms[i].name) || (i && syms[i].addr < syms[i - 1].addr))
			abort();
		bp_kimage_find(k, syms[i].addr);
		bp_kimage_read(k, syms[i].addr, buf, sizeof(buf));
	}
	calls = bp_kimage_initcalls(k, &n);
	for (size_t i = 0; i < n; i++)
		if (!bp_kimage_find(k, calls[i].addr))
			abort();
	bp_kimage_text(k, &start, &end);
	bp_kimage_find(k, end);
	bp_kimage_syscall_name(k, 500);
	bp_btf_offset(bp_kimage_btf(k), "outer", "arr[1].b");
	bp_kimage_destroy(k);
	return 0;
}
