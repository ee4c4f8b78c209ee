// SPDX-License-Identifier: GPL-2.0-or-later
/* Compressed data of all kinds, alone or in a bzImage; the limit keeps bombs small. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "symbols/bzimage.h"
#include "symbols/decompress.h"

#define LIMIT ((uint64_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = 0, used = 0;
	uint8_t *out = NULL;
	char release[32];

	bp_bzimage_release(data, size, release, sizeof(release));
	if (bp_bzimage_is(data, size))
		bp_err_ignore(bp_bzimage_expand(data, size, "fuzz", LIMIT, &out, &len));
	else
		bp_err_ignore(bp_decompress(data, size, "fuzz", 0, LIMIT, &out, &len, &used));
	if (len > LIMIT || used > size)
		abort();
	free(out);
	return 0;
}
