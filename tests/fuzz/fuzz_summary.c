// SPDX-License-Identifier: GPL-2.0-or-later
/* Baseline files: read, compare with itself, show, write again. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "analyzers/diff.h"
#include "analyzers/summary.h"
#include "analyzers/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *null;
	const struct bp_render how = {.format = BP_FORMAT_TEXT, .width = 100};
	const struct bp_query q = {.clock = BP_CLOCK_INSNS, .min_percent = 1};
	struct bp_summary *a = NULL, *b = NULL;
	struct bp_diff *d = NULL;
	struct bp_err *err = bp_summary_parse("fuzz", (const char *)data, size, &a);
	char path[64];

	if (!null)
		null = fopen("/dev/null", "w");
	if (!err)
		err = bp_summary_parse("fuzz", (const char *)data, size, &b);
	if (!err)
		err = bp_summary_prune(b, 3);
	if (!err)
		err = bp_diff_create(a, b, BP_CLOCK_INSNS, &d);
	for (size_t i = 0; i < bp_n_diff_views && !err && null; i++) {
		struct bp_analysis *keep = NULL;
		struct bp_report *r = NULL;

		err = bp_diff_report(d, &bp_diff_views[i], &q, &keep, &r);
		if (!err)
			err = bp_report_render(r, &how, null);
		bp_report_destroy(r);
		bp_analysis_destroy(keep);
	}
	if (!err) {
		snprintf(path, sizeof(path), "/tmp/bootprof-fuzz-summary.%d", (int)getpid());
		err = bp_summary_write(b, path);
		unlink(path);
	}
	bp_diff_destroy(d);
	bp_summary_destroy(a);
	bp_summary_destroy(b);
	bp_err_ignore(err);
	return 0;
}
