// SPDX-License-Identifier: GPL-2.0-or-later
/* The text form: what is accepted must open without damage, and its own dump must be accepted again. */
#define _GNU_SOURCE /* memfd_create */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The recording made of the text in @fd, or NULL when the text was refused. */
static struct bp_trace *read_text(int fd, const char *out)
{
	char path[40];
	struct bp_trace *t = NULL;
	struct bp_err *err;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	err = bp_trace_text_read(path, out);
	if (err) {
		bp_err_ignore(err);
		return NULL;
	}
	err = bp_trace_open(out, &t);
	if (err || bp_trace_damage(t)->bad_chunks)
		abort();
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("text", MFD_CLOEXEC), again = memfd_create("again", MFD_CLOEXEC);
	struct bp_trace *t, *t2;
	char dir[] = "/tmp/bootprof-fuzz-XXXXXX", out[64];

	if (!mkdtemp(dir))
		abort();
	if (fd < 0 || again < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(out, sizeof(out), "%s/out", dir);
	t = read_text(fd, out);
	if (t) {
		struct bp_err *err = bp_trace_text_write(t, again);

		unlink(out);
		if (err)
			abort();
		t2 = read_text(again, out);
		if (!t2 || bp_trace_n_blocks(t2) != bp_trace_n_blocks(t))
			abort();
		bp_trace_destroy(t);
		bp_trace_destroy(t2);
	}
	unlink(out);
	rmdir(dir);
	close(fd);
	close(again);
	return 0;
}
