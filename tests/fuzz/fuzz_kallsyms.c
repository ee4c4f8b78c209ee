// SPDX-License-Identifier: GPL-2.0-or-later
/* Read-only data of a hostile kernel, searched for its symbol table. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "symbols/kallsyms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_kallsyms ks = {0};

	bp_err_ignore(bp_kallsyms_decode(data, size, "fuzz", 0, &ks));
	for (size_t i = 0; i < ks.count; i++)
		if (strlen(ks.syms[i].name) > 1024 || (i && ks.syms[i].addr < ks.syms[i - 1].addr))
			abort();
	bp_kallsyms_deinit(&ks);
	return 0;
}
