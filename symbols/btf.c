// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/btf.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/cleanup.h"

#define BTF_MAGIC_NUMBER 0xeb9f
#define BTF_TYPE_BYTES 12   /* struct btf_type */
#define BTF_MEMBER_BYTES 12 /* struct btf_member */

/* Chains of typedefs, and unnamed members within unnamed members, are longer only in crafted data. */
#define CHAIN_MAX 32
#define PENDING_MAX 64

enum kind {
	KIND_INT = 1,
	KIND_PTR,
	KIND_ARRAY,
	KIND_STRUCT,
	KIND_UNION,
	KIND_ENUM,
	KIND_FWD,
	KIND_TYPEDEF,
	KIND_VOLATILE,
	KIND_CONST,
	KIND_RESTRICT,
	KIND_FUNC,
	KIND_FUNC_PROTO,
	KIND_VAR,
	KIND_DATASEC,
	KIND_FLOAT,
	KIND_DECL_TAG,
	KIND_TYPE_TAG,
	KIND_ENUM64,
	KIND_N
};

/* Bytes behind struct btf_type: once, and for each of its vlen entries. */
static const struct {
	uint8_t fixed, each;
} kind_bytes[KIND_N] = {
    [KIND_INT] = {.fixed = 4},    [KIND_ARRAY] = {.fixed = 12},  [KIND_STRUCT] = {.each = 12},
    [KIND_UNION] = {.each = 12},  [KIND_ENUM] = {.each = 8},     [KIND_FUNC_PROTO] = {.each = 8},
    [KIND_VAR] = {.fixed = 4},    [KIND_DATASEC] = {.each = 12}, [KIND_DECL_TAG] = {.fixed = 4},
    [KIND_ENUM64] = {.each = 12},
};

struct bp_btf {
	const uint8_t *types; /* borrowed */
	const char *strings;  /* borrowed; ends with a NUL */
	uint32_t strings_len;
	uint32_t *offsets; /* of each type in @types; entry 0 (void) is not used */
	uint32_t count;    /* types, with void */
};

struct type {
	const uint8_t *data; /* what follows struct btf_type */
	const char *name;
	enum kind kind;
	uint32_t vlen;
	bool kflag;
	uint32_t size_or_type;
};

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static const char *string_at(const struct bp_btf *b, uint32_t off)
{
	return off < b->strings_len ? b->strings + off : "";
}

/* Type @id, whose bytes were checked at open; false for void and for ids that do not exist. */
static bool type_get(const struct bp_btf *b, uint32_t id, struct type *t)
{
	const uint8_t *p;
	uint32_t info;

	if (!id || id >= b->count)
		return false;
	p = b->types + b->offsets[id];
	info = get32(p + 4);
	*t = (struct type){
	    .data = p + BTF_TYPE_BYTES,
	    .name = string_at(b, get32(p)),
	    .kind = info >> 24 & 0x1f,
	    .vlen = info & 0xffff,
	    .kflag = info >> 31,
	    .size_or_type = get32(p + 8),
	};
	return true;
}

static bool is_struct(const struct type *t)
{
	return t->kind == KIND_STRUCT || t->kind == KIND_UNION;
}

/* Looks through typedefs and qualifiers, starting with type @id. */
static bool type_strip(const struct bp_btf *b, uint32_t id, struct type *t)
{
	for (int i = 0; i < CHAIN_MAX; i++) {
		if (!type_get(b, id, t))
			return false;
		if (t->kind != KIND_TYPEDEF && t->kind != KIND_VOLATILE && t->kind != KIND_CONST &&
		    t->kind != KIND_RESTRICT && t->kind != KIND_TYPE_TAG)
			return true;
		id = t->size_or_type;
	}
	return false;
}

/* Size in bytes, or -1. */
static int64_t type_size(const struct bp_btf *b, struct type t)
{
	int64_t count = 1;

	for (int i = 0; i < CHAIN_MAX; i++) {
		switch (t.kind) {
		case KIND_INT:
		case KIND_STRUCT:
		case KIND_UNION:
		case KIND_ENUM:
		case KIND_ENUM64:
		case KIND_FLOAT:
			return count <= INT_MAX ? count * t.size_or_type : -1;
		case KIND_PTR:
			return count <= INT_MAX ? count * 8 : -1;
		case KIND_ARRAY:
			if (count > INT_MAX)
				return -1;
			count *= get32(t.data + 8);
			if (!type_strip(b, get32(t.data), &t))
				return -1;
			break;
		default:
			return -1;
		}
	}
	return -1;
}

static bool find_struct(const struct bp_btf *b, const char *name, struct type *t)
{
	for (uint32_t id = 1; id < b->count; id++)
		if (type_get(b, id, t) && is_struct(t) && !strcmp(t->name, name))
			return true;
	return false;
}

/* Bit offset of member @i of a struct, or -1 for a bit-field; its type and name in @type and @name. */
static int64_t member_get(const struct bp_btf *b, const struct type *t, uint32_t i, uint32_t *type,
			  const char **name)
{
	const uint8_t *m = t->data + (size_t)i * BTF_MEMBER_BYTES;
	uint32_t off = get32(m + 8);

	*name = string_at(b, get32(m));
	*type = get32(m + 4);
	if (!t->kflag)
		return off;
	return off >> 24 ? -1 : (int64_t)(off & 0xffffff);
}

/*
 * Byte offset of a member in @t, or -1; members of unnamed structs and unions in it count as its own.
 * On success @t is the member's type.
 */
static int64_t find_member(const struct bp_btf *b, struct type *t, const char *want, size_t want_len)
{
	struct {
		struct type type;
		int64_t bits;
	} pending[PENDING_MAX];
	unsigned head = 0, tail = 0;

	pending[tail].type = *t;
	pending[tail++].bits = 0;
	for (; head < tail; head++) {
		for (uint32_t i = 0; i < pending[head].type.vlen; i++) {
			const char *name;
			uint32_t type;
			int64_t bits = member_get(b, &pending[head].type, i, &type, &name);
			struct type mt;

			if (!*name) {
				if (bits >= 0 && tail < PENDING_MAX && type_strip(b, type, &mt) &&
				    is_struct(&mt)) {
					pending[tail].type = mt;
					pending[tail++].bits = pending[head].bits + bits;
				}
				continue;
			}
			if (strncmp(name, want, want_len) != 0 || name[want_len])
				continue;
			if (bits < 0 || (bits + pending[head].bits) % 8 || !type_strip(b, type, &mt))
				return -1;
			*t = mt;
			return (bits + pending[head].bits) / 8;
		}
	}
	return -1;
}

/* Steps into "[n]" at *@path; the offset of that element, or -1. */
static int64_t index_array(const struct bp_btf *b, struct type *t, const char **path)
{
	uint32_t count, element;
	unsigned long n;
	int64_t size;
	char *end;

	if ((*path)[1] < '0' || (*path)[1] > '9')
		return -1;
	n = strtoul(*path + 1, &end, 10);
	if (*end != ']' || t->kind != KIND_ARRAY)
		return -1;
	count = get32(t->data + 8);
	element = get32(t->data);
	/* A flexible array member has 0 elements; its first one has an offset all the same. */
	if (n >= count && n != 0)
		return -1;
	if (!type_strip(b, element, t))
		return -1;
	size = type_size(b, *t);
	if (size < 0 || (n && size > INT_MAX))
		return -1;
	*path = end + 1;
	return (int64_t)n * size;
}

int64_t bp_btf_offset(const struct bp_btf *btf, const char *type, const char *path)
{
	int64_t offset = 0;
	struct type t;

	if (!btf || !find_struct(btf, type, &t))
		return -1;
	for (;;) {
		size_t len = strcspn(path, ".[");
		int64_t step;

		if (!len || !is_struct(&t))
			return -1;
		step = find_member(btf, &t, path, len);
		if (step < 0)
			return -1;
		offset += step;
		path += len;
		while (*path == '[') {
			step = index_array(btf, &t, &path);
			if (step < 0)
				return -1;
			offset += step;
		}
		if (!*path)
			return offset;
		if (*path++ != '.')
			return -1;
	}
}

int64_t bp_btf_sizeof(const struct bp_btf *btf, const char *type)
{
	struct type t;

	if (!btf || !find_struct(btf, type, &t))
		return -1;
	return t.size_or_type;
}

/* Fills @b->offsets from the type section. Allocates by what is there, not by what is claimed. */
static struct bp_err *index_types(struct bp_btf *b, struct bp_buf types)
{
	size_t cap = types.len / BTF_TYPE_BYTES + 1;

	b->offsets = malloc(cap * sizeof(*b->offsets));
	if (!b->offsets)
		return bp_err_nomem();
	b->offsets[0] = 0;
	b->count = 1;
	while (bp_buf_left(&types)) {
		size_t start = types.pos;
		const uint8_t *p = bp_buf_take(&types, BTF_TYPE_BYTES);
		uint32_t info, kind;

		if (!p)
			break;
		info = get32(p + 4);
		kind = info >> 24 & 0x1f;
		if (!kind || kind >= KIND_N)
			return NULL;
		bp_buf_take(&types, kind_bytes[kind].fixed + (size_t)kind_bytes[kind].each * (info & 0xffff));
		if (types.bad)
			break;
		b->offsets[b->count++] = (uint32_t)start;
	}
	return bp_buf_err(&types, "BTF type section");
}

static void bp_btf_destroyp(struct bp_btf **b)
{
	bp_btf_destroy(*b);
}

struct bp_err *bp_btf_open(const void *data, size_t len, const char *path, uint64_t base, struct bp_btf **ret)
{
	struct bp_buf in = bp_buf_make(data, len, path, base);
	bp_cleanup(bp_btf_destroyp) struct bp_btf *b = NULL;
	uint32_t hdr_len, type_off, type_len, str_off, str_len;
	uint16_t magic = bp_buf_u16(&in);
	uint8_t version = bp_buf_u8(&in);
	struct bp_err *err;
	uint32_t *fit;
	size_t rest;

	bp_buf_u8(&in); /* flags */
	hdr_len = bp_buf_u32(&in);
	type_off = bp_buf_u32(&in);
	type_len = bp_buf_u32(&in);
	str_off = bp_buf_u32(&in);
	str_len = bp_buf_u32(&in);
	err = bp_buf_err(&in, "BTF header");
	if (err)
		return err;
	if (magic != BTF_MAGIC_NUMBER)
		return bp_err_data(path, base, "no BTF magic");
	if (version != 1)
		return bp_err_new(BP_EUNSUPPORTED, "%s: BTF version %u", path, version);
	if (hdr_len < in.pos || hdr_len > len)
		return bp_err_data(path, base + 4, "BTF header length is corrupt");
	rest = len - hdr_len;
	if (type_off > rest || type_len > rest - type_off || str_off > rest || str_len > rest - str_off)
		return bp_err_data(path, base + 8, "BTF sections lie outside the data");
	b = calloc(1, sizeof(*b));
	if (!b)
		return bp_err_nomem();
	b->types = (const uint8_t *)data + hdr_len + type_off;
	b->strings = (const char *)data + hdr_len + str_off;
	b->strings_len = str_len;
	if (!str_len || b->strings[str_len - 1])
		return bp_err_data(path, base + hdr_len + str_off, "BTF strings are not terminated");
	err = index_types(b, bp_buf_make(b->types, type_len, path, base + hdr_len + type_off));
	if (err)
		return err;
	fit = realloc(b->offsets, b->count * sizeof(*fit));
	if (fit)
		b->offsets = fit;
	*ret = bp_steal(b);
	return NULL;
}

void bp_btf_destroy(struct bp_btf *btf)
{
	if (!btf)
		return;
	free(btf->offsets);
	free(btf);
}
