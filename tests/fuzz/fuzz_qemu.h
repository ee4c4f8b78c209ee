/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For the fuzz targets of QEMU's execution traces: runs one importer into a recording that is thrown away. */
#ifndef BP_FUZZ_QEMU_H
#define BP_FUZZ_QEMU_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create() */
#endif

#define FUZZ_LIMIT (1u << 20)

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "collectors/import.h"
#include "collectors/sched.h"
#include "core/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Functions of 64 bytes, some with names that matter, and some code in them. */
static inline bool fuzz_find(void *self, uint64_t addr, const char **name, const char **module,
			     uint64_t *start)
{
	static const char *const names[] = {"a",
					    "b",
					    "entry_SYSCALL_64",
					    "asm_exc_page_fault",
					    "__switch_to_asm",
					    "__x86_return_thunk",
					    "__x86_indirect_thunk_rax",
					    "__fentry__"};

	(void)self;
	if (addr < UINT64_MAX / 2)
		return false;
	*name = names[addr >> 6 & 7];
	*module = addr >> 9 & 1 ? "vmlinux" : "virtio";
	*start = addr & ~63ull;
	return true;
}

static inline bool fuzz_code(void *self, uint64_t addr, void *dst, size_t len)
{
	static const uint8_t bytes[] = {0xe8, 0x3b, 0,    0,    0,    0xc3, 0x74, 0x10, 0x90, 0xff, 0xd0,
					0x48, 0xcf, 0xff, 0xe0, 0xe9, 0x80, 0,    0,    0,    0x0f, 0x05};

	(void)self;
	if (addr < UINT64_MAX / 2 || len > 64)
		return false;
	for (size_t i = 0; i < len; i++)
		((uint8_t *)dst)[i] = bytes[(addr + i) % sizeof(bytes)];
	return true;
}

static inline int fuzz_import(const struct bp_importer *with, const char *name, const uint8_t *data,
			      size_t size)
{
	const struct bp_import_names names = {.find = fuzz_find, .code = fuzz_code};
	struct bp_import_stats stats = {0};
	struct bp_import im = {.stats = &stats, .names = &names};
	struct bp_trace_writer *w = NULL;
	char path[64], out[96];
	int in = memfd_create("in", MFD_CLOEXEC);

	if (in < 0 || size > FUZZ_LIMIT || write(in, data, size) != (ssize_t)size) {
		if (in >= 0)
			close(in);
		return 0;
	}
	with->probe(data, size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", in);
	snprintf(out, sizeof(out), "/tmp/bp-fuzz-%s-%d", name, (int)getpid());
	unlink(out);
	bp_err_ignore(bp_source_open(path, &im.source));
	bp_err_ignore(bp_trace_writer_create(out, 0, &w));
	if (w)
		bp_err_ignore(bp_builder_create(w, &im.builder));
	if (im.source && im.builder) {
		bp_err_ignore(bp_sched_create(im.builder, &im.sched));
		bp_err_ignore(with->run(&im));
		if (im.sched)
			bp_err_ignore(bp_sched_flush(im.sched));
		bp_err_ignore(bp_builder_finish(im.builder, "import"));
	}
	bp_sched_destroy(im.sched);
	bp_builder_destroy(im.builder);
	bp_source_close(im.source);
	if (w)
		bp_err_ignore(bp_trace_writer_close(w));
	unlink(out);
	close(in);
	return 0;
}

#endif
