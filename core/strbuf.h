/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A growing byte string. Running out of memory sets `failed` and drops what follows, so
 * callers append freely and check once at the end with bp_strbuf_ok().
 */
#ifndef BP_CORE_STRBUF_H
#define BP_CORE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_strbuf {
	char *data;     /* NUL-terminated when data is not NULL */
	size_t len;     /* bytes, without the NUL */
	size_t cap;
	bool failed;
};

#define BP_STRBUF_INIT { 0 }

void bp_strbuf_deinit(struct bp_strbuf *sb);
void bp_strbuf_clear(struct bp_strbuf *sb);
void bp_strbuf_add(struct bp_strbuf *sb, const void *data, size_t len);
void bp_strbuf_adds(struct bp_strbuf *sb, const char *s);
void bp_strbuf_addc(struct bp_strbuf *sb, char c);
void bp_strbuf_addf(struct bp_strbuf *sb, const char *fmt, ...) BP_PRINTF(2, 3);

/** bp_strbuf_ok() - NULL, or the out-of-memory error if anything was dropped */
struct bp_err *bp_strbuf_ok(const struct bp_strbuf *sb) BP_MUST_CHECK;

/** bp_strbuf_str() - the text, "" when empty; borrowed until the next change */
const char *bp_strbuf_str(const struct bp_strbuf *sb);

/*
 * Sinks for untrusted text, one per output form. @s is @len bytes of anything.
 * term: C0, C1, DEL, bidirectional controls and invalid UTF-8 become \xNN.
 * json: the inside of a JSON string, always valid UTF-8 (invalid bytes become U+FFFD).
 * csv:  one quoted cell; a leading = + - @ gets an apostrophe in front.
 * xml:  text or the inside of a quoted attribute; what XML 1.0 cannot hold becomes \xNN.
 * markdown: text without a meaning: all punctuation as character references, so that nothing in it is markup,
 *       HTML, a table cell's end, a link or somebody's @name.
 */
void bp_strbuf_add_term(struct bp_strbuf *sb, const char *s, size_t len);
void bp_strbuf_add_json(struct bp_strbuf *sb, const char *s, size_t len);
void bp_strbuf_add_csv(struct bp_strbuf *sb, const char *s, size_t len);
void bp_strbuf_add_xml(struct bp_strbuf *sb, const char *s, size_t len);
void bp_strbuf_add_markdown(struct bp_strbuf *sb, const char *s, size_t len);

#endif
