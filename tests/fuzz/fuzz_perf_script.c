// SPDX-License-Identifier: GPL-2.0-or-later
/* Text of perf script made of hostile bytes. */
#define _GNU_SOURCE /* memfd_create() */
#include "tests/fuzz/fuzz_qemu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_import(&bp_import_perf_script, "perf_script", data, size);
}
