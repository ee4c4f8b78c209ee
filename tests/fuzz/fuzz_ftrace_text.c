// SPDX-License-Identifier: GPL-2.0-or-later
/* Text of ftrace made of hostile bytes, into a recording that is thrown away. */
#define _GNU_SOURCE 1 /* memfd_create() */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "collectors/import.h"
#include "collectors/sched.h"
#include "core/cleanup.h"
#include "core/trace.h"

#define LIMIT (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(const char *path, struct bp_trace_writer *w)
{
	struct bp_import_stats stats = {.first_bad_offset = UINT64_MAX};
	struct bp_source *source = NULL;
	struct bp_builder *b = NULL;
	struct bp_import im = {.stats = &stats};

	bp_err_ignore(bp_source_open(path, &source));
	bp_err_ignore(bp_builder_create(w, &b));
	if (source && b) {
		im.source = source;
		im.builder = b;
		bp_err_ignore(bp_sched_create(b, &im.sched));
		bp_err_ignore(bp_import_ftrace_text.run(&im));
		if (im.sched)
			bp_err_ignore(bp_sched_flush(im.sched));
		bp_err_ignore(bp_builder_finish(b, "import"));
	}
	bp_sched_destroy(im.sched);
	bp_builder_destroy(b);
	bp_source_close(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bp_autoclose int in = memfd_create("in", MFD_CLOEXEC);
	struct bp_trace_writer *w = NULL;
	char path[64], out[64];

	if (in < 0 || size > LIMIT || write(in, data, size) != (ssize_t)size)
		return 0;
	bp_import_ftrace_text.probe(data, size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", in);
	snprintf(out, sizeof(out), "/tmp/bp-fuzz-ftrace-%d", (int)getpid());
	unlink(out);
	bp_err_ignore(bp_trace_writer_create(out, 0, &w));
	if (w) {
		run(path, w);
		bp_err_ignore(bp_trace_writer_close(w));
	}
	unlink(out);
	return 0;
}
