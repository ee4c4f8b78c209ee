// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/kallsyms.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "symbols/vmlinux.h"

#define TOKENS 256
#define TOKEN_INDEX_BYTES (TOKENS * 2)
#define TOKEN_MAX_BYTES 512
#define NAMES_PER_MARKER 256

#define SYMS_MAX ((uint64_t)4 << 20)
#define NAMES_MAX_BYTES ((size_t)256 << 20)
#define MAX_STEPS ((uint64_t)64 << 20) /* of guessing where the names start; bounds the time for any input \
					*/

/* Where the tables are, as offsets into @data. */
struct tables {
	const uint8_t *data;
	size_t len;
	size_t token_table, token_index;
	uint16_t token_off[TOKENS];
	uint16_t token_len[TOKENS];
	size_t num_syms, names; /* num_syms is right in front of the names in all layouts */
	uint32_t count;
	size_t names_bytes; /* of all names expanded, with their NULs, without the types */
	size_t offsets;
	uint64_t relative_base;
	bool percpu_absolute; /* CONFIG_KALLSYMS_ABSOLUTE_PERCPU: offsets >= 0 are addresses */
	uint64_t steps_left;
};

static uint16_t get16(const struct tables *t, size_t pos)
{
	uint16_t v;

	memcpy(&v, t->data + pos, sizeof(v));
	return v;
}

static uint32_t get32(const struct tables *t, size_t pos)
{
	uint32_t v;

	memcpy(&v, t->data + pos, sizeof(v));
	return v;
}

static uint64_t get64(const struct tables *t, size_t pos)
{
	uint64_t v;

	memcpy(&v, t->data + pos, sizeof(v));
	return v;
}

static size_t align8(size_t v)
{
	return (v + 7) & ~(size_t)7;
}

static bool is_zero(const struct tables *t, size_t from, size_t to)
{
	for (; from < to; from++)
		if (t->data[from])
			return false;
	return true;
}

/* Are the 256 numbers at @pos offsets of strings that follow one another? */
static bool read_token_index(struct tables *t, size_t pos)
{
	for (unsigned i = 0; i < TOKENS; i++) {
		t->token_off[i] = get16(t, pos + 2 * (size_t)i);
		if (i ? t->token_off[i] <= t->token_off[i - 1] : t->token_off[i] != 0)
			return false;
		if (i && t->token_off[i] - t->token_off[i - 1] > TOKEN_MAX_BYTES)
			return false;
	}
	t->token_index = pos;
	return true;
}

/* Do the strings of that index start at @pos, and end right before the index? */
static bool read_token_table(struct tables *t, size_t pos)
{
	size_t last = pos + t->token_off[TOKENS - 1];
	const uint8_t *nul = memchr(t->data + last, 0, t->token_index - last);
	size_t end;

	if (!nul)
		return false;
	end = (size_t)(nul - t->data) + 1;
	if (align8(end) != t->token_index || !is_zero(t, end, t->token_index))
		return false;
	for (unsigned i = 0; i < TOKENS; i++) {
		size_t from = pos + t->token_off[i];
		size_t next = i + 1 < TOKENS ? pos + t->token_off[i + 1] : end;

		if (t->data[next - 1])
			return false;
		for (size_t p = from; p < next - 1; p++)
			if (t->data[p] <= ' ' || t->data[p] == 0x7f)
				return false;
		t->token_len[i] = (uint16_t)(next - 1 - from);
	}
	t->token_table = pos;
	return true;
}

/* Finds the next token table at or after *@pos. */
static bool find_tokens(struct tables *t, size_t *pos)
{
	for (; t->len >= TOKEN_INDEX_BYTES && *pos <= t->len - TOKEN_INDEX_BYTES; *pos += 8) {
		uint64_t v = get64(t, *pos);
		size_t last, start;

		/* Most of memory is told apart by the first two numbers. */
		if ((v & 0xffff) || !(v >> 16 & 0xffff) || (v >> 32 & 0xffff) <= (v >> 16 & 0xffff))
			continue;
		if (!read_token_index(t, *pos))
			continue;
		last = t->token_off[TOKENS - 1];
		if (last >= *pos)
			continue;
		start = (*pos - last - 1) & ~(size_t)7;
		for (size_t tries = 0; tries <= TOKEN_MAX_BYTES / 8; tries++, start -= 8) {
			if (read_token_table(t, start))
				return true;
			if (start < 8)
				break;
		}
	}
	return false;
}

/*
 * Reads the head of the name at *@pos: its length in tokens. Up to 127 that is one byte; since 6.1 the high
 * bit says that a second one follows.
 */
static bool name_head(const struct tables *t, size_t *pos, size_t end, size_t *len)
{
	if (*pos >= end)
		return false;
	*len = t->data[(*pos)++];
	if (*len & 0x80) {
		if (*pos >= end)
			return false;
		*len = (*len & 0x7f) | (size_t)t->data[(*pos)++] << 7;
	}
	return *len && *len <= end - *pos;
}

static bool take_steps(struct tables *t, size_t n)
{
	if (n > t->steps_left) {
		t->steps_left = 0;
		return false;
	}
	t->steps_left -= n;
	return true;
}

/* Is @pos the number of names, with that many names and their markers behind it? */
static bool try_names(struct tables *t, size_t pos)
{
	uint64_t count = get64(t, pos);
	size_t end = t->token_table, names = pos + 8, p = names, marker_count, markers, len;

	/* The shortest name is three bytes: length, type, one character. Types and characters are tokens. */
	if (!count || count > SYMS_MAX || count > (end - names) / 2)
		return false;
	for (uint64_t i = 0; i < count; i++) {
		if (!take_steps(t, 1) || !name_head(t, &p, end, &len))
			return false;
		p += len;
	}
	marker_count = (count + NAMES_PER_MARKER - 1) / NAMES_PER_MARKER;
	markers = align8(p);
	if (markers > end || marker_count > (end - markers) / 4 || !is_zero(t, p, markers))
		return false;
	p = names;
	t->names_bytes = 0;
	for (uint64_t i = 0; i < count; i++) {
		size_t expanded = 0;

		if (i % NAMES_PER_MARKER == 0 && get32(t, markers + 4 * (i / NAMES_PER_MARKER)) != p - names)
			return false;
		if (!name_head(t, &p, end, &len) || !take_steps(t, len))
			return false;
		for (size_t j = 0; j < len; j++)
			expanded += t->token_len[t->data[p + j]];
		if (expanded < 2 || expanded > BP_KSYM_NAME_BYTES)
			return false;
		t->names_bytes += expanded; /* the type goes, a NUL comes */
		if (t->names_bytes > NAMES_MAX_BYTES)
			return false;
		p += len;
	}
	t->num_syms = pos;
	t->names = names;
	t->count = (uint32_t)count;
	return true;
}

/* The names are somewhere in front of the tokens, with only markers and up to 3 bytes a name in between. */
static bool find_names(struct tables *t)
{
	for (size_t pos = t->token_table; pos >= 16 && take_steps(t, 1);) {
		pos -= 8;
		if (get64(t, pos - 8) <= SYMS_MAX && try_names(t, pos - 8))
			return true;
	}
	return false;
}

static uint64_t sym_addr(const struct tables *t, uint32_t i)
{
	uint32_t off = get32(t, t->offsets + 4 * (size_t)i);

	if (!t->percpu_absolute)
		return t->relative_base + off;
	if (off < 0x80000000u)
		return off;
	return t->relative_base - 1 - (uint64_t)(int64_t)(int32_t)off;
}

/* Are there @count sorted addresses at @offsets, relative to the address at @base? */
static bool try_offsets(struct tables *t, size_t offsets, size_t base)
{
	uint64_t prev = 0;

	t->offsets = offsets;
	t->relative_base = get64(t, base);
	if (t->relative_base < BP_KERNEL_BASE_ADDR || !is_zero(t, offsets + 4 * (size_t)t->count, base))
		return false;
	t->percpu_absolute = false;
	for (uint32_t i = 0; i < t->count && !t->percpu_absolute; i++)
		t->percpu_absolute = get32(t, offsets + 4 * (size_t)i) >= 0x80000000u;
	for (uint32_t i = 0; i < t->count; i++) {
		uint64_t addr = sym_addr(t, i);

		if (addr < prev || (addr < BP_KERNEL_BASE_ADDR && addr >= 0x80000000u))
			return false;
		prev = addr;
	}
	return true;
}

static bool find_offsets(struct tables *t)
{
	size_t bytes = align8(4 * (size_t)t->count);
	size_t after = t->token_index + TOKEN_INDEX_BYTES;

	if (t->len - after >= 8 && bytes <= t->len - after - 8 && try_offsets(t, after, after + bytes))
		return true;
	return t->num_syms >= 8 && bytes <= t->num_syms - 8 &&
	       try_offsets(t, t->num_syms - 8 - bytes, t->num_syms - 8);
}

static struct bp_err *expand(const struct tables *t, struct bp_kallsyms *ret)
{
	bp_autofree struct bp_ksym *syms = malloc(t->count * sizeof(*syms));
	bp_autofree char *names = malloc(t->names_bytes);
	size_t pos = t->names, len = 0;
	char *out = names;

	if (!syms || !names)
		return bp_err_nomem();
	for (uint32_t i = 0; i < t->count; i++) {
		bool first = true;

		syms[i] = (struct bp_ksym){.addr = sym_addr(t, i), .name = out};
		/* try_names() has walked here with success, and counted what is written. */
		(void)name_head(t, &pos, t->token_table, &len);
		for (; len; len--, pos++) {
			uint8_t code = t->data[pos];
			const uint8_t *token = t->data + t->token_table + t->token_off[code];

			for (unsigned n = t->token_len[code]; n; n--, token++) {
				if (first)
					syms[i].type = (char)*token;
				else
					*out++ = (char)*token;
				first = false;
			}
		}
		*out++ = '\0';
	}
	ret->count = t->count;
	ret->syms = bp_steal(syms);
	ret->names = bp_steal(names);
	return NULL;
}

struct bp_err *bp_kallsyms_decode(const void *data, size_t len, const char *path, uint64_t base,
				  struct bp_kallsyms *ret)
{
	struct tables t = {.data = data, .len = len, .steps_left = MAX_STEPS};
	size_t seen = SIZE_MAX;

	for (size_t pos = 0; t.steps_left && find_tokens(&t, &pos); pos += 8) {
		seen = t.token_table;
		if (find_names(&t) && find_offsets(&t))
			return expand(&t, ret);
	}
	if (seen != SIZE_MAX)
		return bp_err_new(
		    BP_EUNSUPPORTED,
		    "%s: offset %llu: kallsyms tokens, but no names and addresses as we know them", path,
		    (unsigned long long)(base + seen));
	*ret = (struct bp_kallsyms){0};
	return NULL;
}

void bp_kallsyms_deinit(struct bp_kallsyms *ks)
{
	free(ks->syms);
	free(ks->names);
	*ks = (struct bp_kallsyms){0};
}
