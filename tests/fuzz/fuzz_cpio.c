// SPDX-License-Identifier: GPL-2.0-or-later
/* An initrd of hostile bytes: archives, compressed or not, and the paths and symlinks in them. */
#define _GNU_SOURCE 1 /* memfd_create() */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "symbols/guestfs.h"

#define LIMIT (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const paths[] = {"/init", "/bin/sh", "/a/b/../c", "/usr/lib/libc.so.6", "x"};
	bp_autoclose int fd = memfd_create("initrd", MFD_CLOEXEC);
	struct bp_guestfs *fs = NULL;
	char path[64];

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || size > LIMIT)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	bp_err_ignore(bp_guestfs_create(&fs));
	if (!fs)
		return 0;
	bp_err_ignore(bp_guestfs_add_initrd(fs, path, LIMIT));
	for (size_t i = 0; i < BP_ARRAY_SIZE(paths); i++) {
		const struct bp_elfsyms *elf;
		const uint8_t *contents;
		size_t len;

		bp_err_ignore(bp_guestfs_read(fs, paths[i], &contents, &len));
		bp_err_ignore(bp_guestfs_elf(fs, paths[i], &elf));
		bp_guestfs_find_name(fs, paths[i]);
	}
	bp_guestfs_destroy(fs);
	return 0;
}
