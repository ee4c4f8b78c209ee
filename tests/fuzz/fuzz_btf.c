// SPDX-License-Identifier: GPL-2.0-or-later
/* Type information of a hostile kernel, and members looked up in it. */
#include <stddef.h>
#include <stdint.h>

#include "core/cleanup.h"
#include "symbols/btf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const paths[] = {"first", "arr[2].b", "z", "next", "flex[0]", "low", "a", "none"};
	struct bp_btf *btf = NULL;

	bp_err_ignore(bp_btf_open(data, size, "fuzz", 0, &btf));
	if (!btf)
		return 0;
	for (size_t i = 0; i < BP_ARRAY_SIZE(paths); i++) {
		bp_btf_offset(btf, "outer", paths[i]);
		bp_btf_offset(btf, "inner", paths[i]);
	}
	bp_btf_sizeof(btf, "outer");
	bp_btf_destroy(btf);
	return 0;
}
