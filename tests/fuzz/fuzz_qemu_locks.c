// SPDX-License-Identifier: GPL-2.0-or-later
/* Code that is searched for the addresses of locks, and the text of mappings. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "symbols/qemu_locks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_qemu_locks *l = NULL;
	struct bp_qemu_lock lock;
	uint64_t targets[BP_LEA_MAX];
	char text[BP_LOCK_NAME_MAX];
	bool emulated;
	size_t n;

	n = bp_lea_targets(data, size, 0x1000, 0x800, 0x4000, 0, targets);
	if (n > BP_LEA_MAX)
		abort();
	for (size_t i = 0; i < n; i++) {
		if (targets[i] < 0x800 || targets[i] >= 0x4000)
			abort();
	}
	n = bp_lea_targets(data, size, 0x1000, 0, UINT64_MAX, 0x1010, targets);
	if (n > BP_LEA_MAX || bp_probe_offset(data, size, &emulated) > size)
		abort();
	/* This program's own symbols at wherever the text says that the program is. */
	bp_err_ignore(
	    bp_qemu_locks_create("/proc/self/exe", "/bin/qemu", (const char *)data, size, NULL, &l));
	if (!l)
		return 0;
	for (uint64_t addr = 0x30; addr < 1ull << 48; addr = addr * 5 + 3) {
		if (bp_qemu_locks_find(l, addr, &lock) && (!lock.name[0] || !lock.how || lock.addr > addr))
			abort();
		bp_qemu_locks_place(l, addr, text);
		if (!text[0] || strlen(text) >= sizeof(text))
			abort();
		if (bp_qemu_locks_text(l, addr, text, sizeof(text)) && !text[0])
			abort();
	}
	bp_qemu_locks_destroy(l);
	return 0;
}
