// SPDX-License-Identifier: GPL-2.0-or-later
/* Kernel logs made of hostile bytes. */
#define _GNU_SOURCE /* memfd_create() */
#include "tests/fuzz/fuzz_qemu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_import(&bp_import_dmesg, "dmesg", data, size);
}
