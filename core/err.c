// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"

#define ERR_TEXT_BYTES 1024

struct bp_err {
	enum bp_err_code code;
	bool is_static;
	char text[ERR_TEXT_BYTES];
};

static struct bp_err nomem = { .code = BP_ENOMEM, .is_static = true, .text = "out of memory" };

struct bp_err *bp_err_nomem(void)
{
	return &nomem;
}

/* File names and guest strings end up in error texts: one line that does nothing to a terminal. */
static void make_printable(char text[ERR_TEXT_BYTES])
{
	struct bp_strbuf sb = BP_STRBUF_INIT;

	bp_strbuf_add_term(&sb, text, strlen(text));
	if (!sb.failed)
		snprintf(text, ERR_TEXT_BYTES, "%s", bp_strbuf_str(&sb));
	else
		text[0] = '\0';
	bp_strbuf_deinit(&sb);
}

static struct bp_err *err_alloc(enum bp_err_code code)
{
	struct bp_err *err = malloc(sizeof(*err));

	if (!err)
		return &nomem;
	err->code = code;
	err->is_static = false;
	err->text[0] = '\0';
	return err;
}

static void err_vappend(struct bp_err *err, const char *fmt, va_list ap)
{
	size_t used = strlen(err->text);

	vsnprintf(err->text + used, sizeof(err->text) - used, fmt, ap);
}

static BP_PRINTF(2, 3) void err_append(struct bp_err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vappend(err, fmt, ap);
	va_end(ap);
}

struct bp_err *bp_err_new(enum bp_err_code code, const char *fmt, ...)
{
	struct bp_err *err = err_alloc(code);
	va_list ap;

	if (err->is_static)
		return err;
	va_start(ap, fmt);
	err_vappend(err, fmt, ap);
	va_end(ap);
	make_printable(err->text);
	return err;
}

struct bp_err *bp_err_os(int errnum, const char *fmt, ...)
{
	struct bp_err *err = err_alloc(BP_EOS);
	va_list ap;

	if (err->is_static)
		return err;
	va_start(ap, fmt);
	err_vappend(err, fmt, ap);
	va_end(ap);
	err_append(err, ": %s", strerror(errnum));
	make_printable(err->text);
	return err;
}

struct bp_err *bp_err_data(const char *path, uint64_t offset, const char *fmt, ...)
{
	struct bp_err *err = err_alloc(BP_EDATA);
	va_list ap;

	if (err->is_static)
		return err;
	if (offset == BP_NO_OFFSET)
		err_append(err, "%s: ", path);
	else
		err_append(err, "%s: offset %llu: ", path, (unsigned long long)offset);
	va_start(ap, fmt);
	err_vappend(err, fmt, ap);
	va_end(ap);
	make_printable(err->text);
	return err;
}

struct bp_err *bp_err_wrap(struct bp_err *err, const char *fmt, ...)
{
	char prefix[ERR_TEXT_BYTES], inner[ERR_TEXT_BYTES];
	va_list ap;

	if (err->is_static)
		return err;
	va_start(ap, fmt);
	vsnprintf(prefix, sizeof(prefix), fmt, ap);
	va_end(ap);
	memcpy(inner, err->text, sizeof(inner));
	err->text[0] = '\0';
	err_append(err, "%s: %s", prefix, inner);
	make_printable(err->text);
	return err;
}

enum bp_err_code bp_err_code(const struct bp_err *err)
{
	return err->code;
}

const char *bp_err_text(const struct bp_err *err)
{
	return err->text;
}

void bp_err_free(struct bp_err *err)
{
	if (err && !err->is_static)
		free(err);
}
