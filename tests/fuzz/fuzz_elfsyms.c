// SPDX-License-Identifier: GPL-2.0-or-later
/* An ELF file of hostile bytes: its symbols, PLT stubs, unwind tables and embedded debug data. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "symbols/guestfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_elfsyms *e = NULL;
	const uint64_t *starts;
	size_t n;

	bp_err_ignore(bp_elfsyms_open(data, size, "fuzz", &e));
	if (!e)
		return 0;
	starts = bp_elfsyms_starts(e, &n);
	for (uint64_t off = 0; off < size; off += 1 + size / 4096) {
		const char *name;
		uint64_t start;

		if (bp_elfsyms_find(e, off, &name, &start) && (start > off || !strlen(name)))
			abort();
		if (bp_elfsyms_fde_find(e, off, &start) && start > off)
			abort();
	}
	for (size_t i = 1; i < n; i++) {
		if (starts[i - 1] >= starts[i])
			abort();
	}
	if (strlen(bp_elfsyms_build_id(e)) % 2)
		abort();
	bp_elfsyms_destroy(e);
	return 0;
}
