// SPDX-License-Identifier: GPL-2.0-or-later
/* The input, cut at NUL bytes, as a QEMU command line. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "collectors/tcg/qemu_args.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_ARGS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[MAX_ARGS + 1], *copy = malloc(size + 1);
	struct bp_qemu_args a;
	size_t n = 0;

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	copy[size] = '\0';
	for (size_t at = 0; at < size && n < MAX_ARGS; at += strlen(copy + at) + 1)
		argv[n++] = copy + at;
	argv[n] = NULL;
	bp_qemu_args_parse(argv, &a);
	if (!a.smp || !a.ram_bytes || strlen(a.accel) >= sizeof(a.accel) ||
	    (a.kernel && strlen(a.kernel) > size) || (a.machine && strlen(a.machine) > size))
		abort();
	free(copy);
	return 0;
}
