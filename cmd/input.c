// SPDX-License-Identifier: GPL-2.0-or-later
#include "cmd/input.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/import.h"
#include "cmd/query.h"
#include "core/cleanup.h"

/* Whether @path can only be read once, from its beginning: no recording. */
static bool is_stream(const char *path)
{
	struct stat st;

	return !strcmp(path, "-") || (!stat(path, &st) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode));
}

static bool says_how(const struct bp_import_options *o)
{
	const struct bp_foreign_options *n = &o->names;

	return o->format || (n->vmlinux && !o->vmlinux_for_more) || n->kallsyms || n->modules ||
	       n->module_dir || n->slide_given;
}

struct bp_err *bp_input_open_with(const char *path, const struct bp_import_options *how,
				  struct bp_trace **ret)
{
	struct bp_import_options foreign = *how;
	struct bp_err *err;

	foreign.command = "";
	if (path && is_stream(path))
		return bp_import_open(path, &foreign, ret);
	err = bp_trace_open(path ? path : BP_DEFAULT_FILE, ret);
	if (err && path && bp_err_code(err) == BP_EDATA && !bp_trace_is_recording(path)) {
		bp_err_free(err);
		return bp_import_open(path, &foreign, ret);
	}
	if (!err && says_how(how)) {
		bp_trace_destroy(*ret);
		*ret = NULL;
		return bp_err_new(BP_EUSAGE,
				  "%s is a recording, which has its names: --kallsyms and the like are for "
				  "the traces of others",
				  path ? path : BP_DEFAULT_FILE);
	}
	if (err && !path && access(BP_DEFAULT_FILE, F_OK))
		return bp_err_wrap(
		    err, "no recording here: make one with \"bootprof record\", or name one with -i");
	return err;
}

struct bp_err *bp_input_open(const char *path, struct bp_trace **ret)
{
	return bp_input_open_with(path, &(struct bp_import_options){0}, ret);
}

struct bp_err *bp_input_summary(const char *command, const char *path, const struct bp_query *query,
				struct bp_summary **ret)
{
	bp_cleanup(bp_input_closep) struct bp_trace *trace = NULL;
	struct bp_err *err;

	if (bp_summary_is_file(path)) {
		if (query && bp_query_filters(query))
			return bp_err_new(
			    BP_EUSAGE, "%s is a baseline file, which knows the whole boot only: no filters",
			    path);
		return bp_summary_read(path, ret);
	}
	err = bp_input_open(path, &trace);
	if (err)
		return err;
	bp_input_warn(command, trace);
	return bp_summary_create(trace, query, ret);
}

static void add_part(struct bp_strbuf *sb, size_t start, const char *text)
{
	if (sb->len > start)
		bp_strbuf_adds(sb, ", ");
	bp_strbuf_adds(sb, text);
}

void bp_input_damage_text(const struct bp_trace *t, struct bp_strbuf *sb)
{
	const struct bp_trace_damage *d = bp_trace_damage(t);
	size_t start = sb->len;

	if (d->unfinished)
		add_part(sb, start, "not finished (the recorder was killed or ran out of space)");
	if (d->bad_chunks) {
		add_part(sb, start, "");
		bp_strbuf_addf(sb, "%" PRIu64 " damaged chunk%s", d->bad_chunks,
			       d->bad_chunks == 1 ? "" : "s");
	}
	if (d->missing_chunks) {
		add_part(sb, start, "");
		bp_strbuf_addf(sb, "%" PRIu64 " missing chunk%s", d->missing_chunks,
			       d->missing_chunks == 1 ? "" : "s");
	}
	if (d->lost_bytes) {
		add_part(sb, start, "");
		bp_strbuf_addf(sb, "%" PRIu64 " byte%s not readable", d->lost_bytes,
			       d->lost_bytes == 1 ? "" : "s");
	}
	if (d->bad_chunks || d->lost_bytes)
		bp_strbuf_addf(sb, " (from offset %" PRIu64 ")", d->first_bad_offset);
}

void bp_input_warn(const char *command, const struct bp_trace *t)
{
	struct bp_strbuf text = BP_STRBUF_INIT, path = BP_STRBUF_INIT;

	bp_input_damage_text(t, &text);
	if (text.len) {
		const char *name = bp_trace_path(t);

		bp_strbuf_add_term(&path, name, strlen(name));
		fprintf(stderr, "bootprof %s: warning: %s: %s\n", command, bp_strbuf_str(&path),
			bp_strbuf_str(&text));
	}
	bp_strbuf_deinit(&text);
	bp_strbuf_deinit(&path);
}
