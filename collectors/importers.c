// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/import.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

const struct bp_importer *const bp_importers[] = {
    &bp_import_qemu_exec,
    &bp_import_qemu_trace_log,
    &bp_import_simpletrace,
    &bp_import_symbolised,
    &bp_import_ftrace_text,
    &bp_import_trace_dat,
    &bp_import_perf_script,
    &bp_import_dmesg,
    NULL,
};

struct bp_err *bp_import_lines(struct bp_import *im, void *self,
			       struct bp_err *(*take)(void *self, const char *line, const char *end,
						      bool *ok),
			       const char *what)
{
	struct bp_import_stats *s = im->stats;

	for (;;) {
		uint64_t offset = bp_source_offset(im->source);
		const char *data, *p, *end;
		size_t len;
		struct bp_err *err = bp_source_next_lines(im->source, &data, &len);

		if (err || !len || (im->progress && !im->progress(im->progress_self)))
			return err;
		for (p = data, end = data + len; p < end;) {
			const char *e = memchr(p, '\n', (size_t)(end - p));
			bool ok;

			if (what)
				s->truncated = !e;
			e = e ? e : end;
			err = take(self, p, e, &ok);
			if (err)
				return err;
			if (!ok && what) {
				s->skipped++;
				if (s->first_bad_offset == UINT64_MAX) {
					s->first_bad_offset = offset + (uint64_t)(p - data);
					snprintf(s->first_bad, sizeof(s->first_bad), "%s", what);
				}
			}
			p = e < end ? e + 1 : end;
		}
	}
}
