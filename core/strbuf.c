// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bp_strbuf_deinit(struct bp_strbuf *sb)
{
	free(sb->data);
	*sb = (struct bp_strbuf)BP_STRBUF_INIT;
}

void bp_strbuf_clear(struct bp_strbuf *sb)
{
	sb->len = 0;
	sb->failed = false;
	if (sb->data)
		sb->data[0] = '\0';
}

/* Make room for @extra bytes and the NUL. */
static bool reserve(struct bp_strbuf *sb, size_t extra)
{
	size_t want, cap;
	char *data;

	if (sb->failed)
		return false;
	if (__builtin_add_overflow(sb->len, extra, &want) || want > SIZE_MAX / 2) {
		sb->failed = true;
		return false;
	}
	want++;
	if (want <= sb->cap)
		return true;
	cap = sb->cap ? sb->cap : 64;
	while (cap < want)
		cap *= 2;
	data = realloc(sb->data, cap);
	if (!data) {
		sb->failed = true;
		return false;
	}
	sb->data = data;
	sb->cap = cap;
	return true;
}

void bp_strbuf_add(struct bp_strbuf *sb, const void *data, size_t len)
{
	if (!reserve(sb, len))
		return;
	if (len)
		memcpy(sb->data + sb->len, data, len);
	sb->len += len;
	sb->data[sb->len] = '\0';
}

void bp_strbuf_adds(struct bp_strbuf *sb, const char *s)
{
	bp_strbuf_add(sb, s, strlen(s));
}

void bp_strbuf_addc(struct bp_strbuf *sb, char c)
{
	bp_strbuf_add(sb, &c, 1);
}

void bp_strbuf_addf(struct bp_strbuf *sb, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !reserve(sb, (size_t)n)) {
		sb->failed = true;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(sb->data + sb->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	sb->len += (size_t)n;
}

struct bp_err *bp_strbuf_ok(const struct bp_strbuf *sb)
{
	return sb->failed ? bp_err_nomem() : NULL;
}

const char *bp_strbuf_str(const struct bp_strbuf *sb)
{
	return sb->data ? sb->data : "";
}

/*
 * Length of the valid UTF-8 sequence at @s, 0 if there is none; @cp gets the code point.
 * Source: RFC 3629, section 4 (no overlong forms, no surrogates, at most U+10FFFF).
 */
static size_t utf8_decode(const unsigned char *s, size_t len, uint32_t *cp)
{
	static const uint32_t min[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n;
	uint32_t c;

	if (s[0] < 0x80) {
		*cp = s[0];
		return 1;
	}
	if ((s[0] & 0xe0) == 0xc0) {
		n = 2;
		c = s[0] & 0x1f;
	} else if ((s[0] & 0xf0) == 0xe0) {
		n = 3;
		c = s[0] & 0x0f;
	} else if ((s[0] & 0xf8) == 0xf0) {
		n = 4;
		c = s[0] & 0x07;
	} else {
		return 0;
	}
	if (n > len)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < min[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*cp = c;
	return n;
}

/* Characters that change how a terminal shows what follows. */
static bool is_hostile(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

void bp_strbuf_add_term(struct bp_strbuf *sb, const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;

	while (len) {
		uint32_t c;
		size_t n = utf8_decode(p, len, &c);

		if (n && !is_hostile(c)) {
			bp_strbuf_add(sb, p, n);
		} else {
			if (!n)
				n = 1;
			for (size_t i = 0; i < n; i++)
				bp_strbuf_addf(sb, "\\x%02x", p[i]);
		}
		p += n;
		len -= n;
	}
}

void bp_strbuf_add_json(struct bp_strbuf *sb, const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;

	while (len) {
		uint32_t c;
		size_t n = utf8_decode(p, len, &c);

		if (!n) {
			bp_strbuf_adds(sb, "\\ufffd");
			n = 1;
		} else if (c == '"' || c == '\\') {
			bp_strbuf_addc(sb, '\\');
			bp_strbuf_addc(sb, (char)c);
		} else if (is_hostile(c)) {
			bp_strbuf_addf(sb, "\\u%04x", c);
		} else {
			bp_strbuf_add(sb, p, n);
		}
		p += n;
		len -= n;
	}
}

void bp_strbuf_add_csv(struct bp_strbuf *sb, const char *s, size_t len)
{
	struct bp_strbuf safe = BP_STRBUF_INIT;

	bp_strbuf_add_term(&safe, s, len);
	bp_strbuf_addc(sb, '"');
	if (safe.len && memchr("=+-@", safe.data[0], 4))
		bp_strbuf_addc(sb, '\'');
	for (size_t i = 0; i < safe.len; i++) {
		if (safe.data[i] == '"')
			bp_strbuf_addc(sb, '"');
		bp_strbuf_addc(sb, safe.data[i]);
	}
	bp_strbuf_addc(sb, '"');
	sb->failed |= safe.failed;
	bp_strbuf_deinit(&safe);
}

/* Text that a terminal can show, with the ASCII characters in @special as character references. */
static void add_references(struct bp_strbuf *sb, const char *s, size_t len, const char *special)
{
	struct bp_strbuf safe = BP_STRBUF_INIT;

	bp_strbuf_add_term(&safe, s, len);
	for (size_t i = 0; i < safe.len; i++) {
		unsigned char c = (unsigned char)safe.data[i];

		if (memchr(special, c, strlen(special)))
			bp_strbuf_addf(sb, "&#%u;", c);
		else if (c == 0xef && safe.len - i >= 3 && (unsigned char)safe.data[i + 1] == 0xbf &&
			 (unsigned char)safe.data[i + 2] >= 0xbe) {
			/* U+FFFE and U+FFFF are no characters of XML. */
			bp_strbuf_addf(sb, "\\xef\\xbf\\x%02x", (unsigned char)safe.data[i + 2]);
			i += 2;
		} else {
			bp_strbuf_addc(sb, (char)c);
		}
	}
	sb->failed |= safe.failed;
	bp_strbuf_deinit(&safe);
}

void bp_strbuf_add_xml(struct bp_strbuf *sb, const char *s, size_t len)
{
	add_references(sb, s, len, "<>&\"'");
}

void bp_strbuf_add_markdown(struct bp_strbuf *sb, const char *s, size_t len)
{
	add_references(sb, s, len, "!\"#$%&'()*+,./:;<=>?@[\\]^_`{|}~-");
}
