// SPDX-License-Identifier: GPL-2.0-or-later
/* A hostile kernel module. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "symbols/modfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct bp_modfile m;

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	bp_err_ignore(bp_modfile_parse("fuzz", copy, size, &m));
	for (size_t i = 0; i < m.n_syms; i++)
		if (!*m.syms[i].name || m.syms[i].offset > 2 * (uint64_t)m.text_bytes)
			abort();
	bp_modfile_deinit(&m);
	return 0;
}
