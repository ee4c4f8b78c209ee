// SPDX-License-Identifier: GPL-2.0-or-later
/* All views of a recording whose every number can be wrong: the bytes are its text form. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "analyzers/view.h"
#include "core/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void views(const struct bp_trace *trace, FILE *out)
{
	const struct bp_render how = {.format = BP_FORMAT_TEXT, .width = 100};

	for (size_t i = 0; i < bp_n_views; i++) {
		for (int filtered = 0; filtered < 2; filtered++) {
			struct bp_query q = {
			    .clock = filtered ? BP_CLOCK_INSNS : BP_CLOCK_TIME,
			    .from = filtered ? "10us" : NULL,
			    .to = filtered ? "1s" : NULL,
			    .per_vcpu = filtered,
			    .depth = filtered ? 4 : 0,
			};
			struct bp_analysis *a = NULL;
			struct bp_report *r = NULL;
			struct bp_err *err = bp_analysis_create(trace, &q, &a);

			if (!err)
				err = bp_view_run(bp_views[i], a, &r);
			if (!err)
				err = bp_report_render(r, &how, out);
			bp_err_ignore(err);
			bp_report_destroy(r);
			bp_analysis_destroy(a);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *null;
	static char recording[64];
	char text[64];
	struct bp_trace *trace;
	struct bp_err *err;
	int fd;

	if (!null) {
		null = fopen("/dev/null", "w");
		snprintf(recording, sizeof(recording), "/tmp/bootprof-fuzz-report.%d", (int)getpid());
	}
	fd = memfd_create("text", 0);
	if (!null || fd < 0)
		return 0;
	if (write(fd, data, size) == (ssize_t)size) {
		snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
		unlink(recording);
		err = bp_trace_text_read(text, recording);
		if (!err)
			err = bp_trace_open(recording, &trace);
		if (!err) {
			views(trace, null);
			bp_trace_destroy(trace);
		}
		bp_err_ignore(err);
		unlink(recording);
	}
	close(fd);
	return 0;
}
