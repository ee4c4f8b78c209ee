// SPDX-License-Identifier: GPL-2.0-or-later
/* A hostile trace.dat file, imported into a recording. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "collectors/import.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void import(const char *path, struct bp_trace_writer *w)
{
	struct bp_import_stats stats = {.first_bad_offset = UINT64_MAX};
	struct bp_import im = {.stats = &stats};

	bp_err_ignore(bp_source_open(path, &im.source));
	if (!im.source)
		return;
	bp_err_ignore(bp_builder_create(w, &im.builder));
	if (im.builder) {
		bp_err_ignore(bp_import_trace_dat.run(&im));
		bp_err_ignore(bp_builder_finish(im.builder, "exit"));
		bp_builder_destroy(im.builder);
	}
	bp_source_close(im.source);
	if (memchr(stats.stacks, 0, sizeof(stats.stacks)) == NULL ||
	    memchr(stats.first_bad, 0, sizeof(stats.first_bad)) == NULL)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_trace_writer *w = NULL;
	char path[64], out[64];
	int fd = memfd_create("input", MFD_CLOEXEC);

	if (fd < 0)
		return 0;
	if (size && write(fd, data, size) != (ssize_t)size) {
		close(fd);
		return 0;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	snprintf(out, sizeof(out), "/tmp/bp-fuzz-trace-dat-%d", (int)getpid());
	unlink(out);
	bp_err_ignore(bp_trace_writer_create(out, 0, &w));
	if (w) {
		import(path, w);
		bp_err_ignore(bp_trace_writer_close(w));
	}
	unlink(out);
	close(fd);
	return 0;
}
