/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Format descriptions of trace events, as the kernel prints them under events/SYSTEM/NAME/format.
 *
 * Only names, offsets and sizes of fields are taken; the print format, which is a program in C, is not looked
 * at. Nothing in the text is trusted: every field is checked against each record when it is read.
 * Source of the format: the kernel's Documentation/trace/events.rst.
 */
#ifndef BP_COLLECTORS_FTRACE_TEP_H
#define BP_COLLECTORS_FTRACE_TEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/err.h"

enum bp_tep_kind {
	BP_TEP_PLAIN,    /* a number */
	BP_TEP_ARRAY,    /* elements of `elem` bytes; size 0: up to the end of the record */
	BP_TEP_DATA_LOC, /* u32: length << 16 | offset in the record */
	BP_TEP_REL_LOC,  /* the same, offset from the end of the field */
};

struct bp_tep_field {
	const char *name; /* not terminated, within the text */
	uint32_t name_len;
	uint16_t offset, size; /* bytes */
	uint16_t elem;         /* bytes of an element of an array */
	uint8_t kind;          /* enum bp_tep_kind */
	bool is_signed;
	bool is_text; /* array of char */
};

struct bp_tep_event {
	const char *system, *name; /* not terminated, within the text */
	uint32_t system_len, name_len;
	uint32_t first_field, n_fields; /* those after the common ones */
	uint16_t id;
};

#define BP_TEP_NO_EVENT UINT32_MAX

struct bp_tep {
	struct bp_tep_event *events;
	size_t n_events, cap_events;
	struct bp_tep_field *fields;
	size_t n_fields, cap_fields;
	uint32_t *by_id; /* 65536 indices into events, BP_TEP_NO_EVENT where none */
	/* The common fields; those of the first description that has them. */
	struct bp_tep_field type, flags, pid;
	bool have_common;
	bool big_endian;
};

struct bp_err *bp_tep_init(struct bp_tep *tep) BP_MUST_CHECK;
void bp_tep_deinit(struct bp_tep *tep);

/**
 * bp_tep_add() - take one description
 * @system: name of the events' folder; like @text borrowed until deinit
 * Returns success also for text that makes no sense, which is then not taken (*@ret false).
 */
struct bp_err *bp_tep_add(struct bp_tep *tep, const char *system, size_t system_len, const char *text,
			  size_t len, bool *ret) BP_MUST_CHECK;

/**
 * bp_tep_parse_fields() - the "field:" lines of any description
 * Calls @each for every field, common ones included. Returns what @each returned last; an error stops.
 */
struct bp_err *bp_tep_parse_fields(const char *text, size_t len,
				   struct bp_err *(*each)(void *self, const struct bp_tep_field *f),
				   void *self) BP_MUST_CHECK;

/** bp_tep_find() - the event's field of that name, NULL if none; borrowed until the next bp_tep_add() */
const struct bp_tep_field *bp_tep_find(const struct bp_tep *tep, const struct bp_tep_event *ev,
				       const char *name);

static inline bool bp_tep_is(const char *s, uint32_t len, const char *name)
{
	return strlen(name) == len && !memcmp(s, name, len);
}

/** bp_tep_number() - @size bytes (1, 2, 4 or 8, else 0 comes back) in the file's byte order */
static inline uint64_t bp_tep_number(const uint8_t *p, unsigned size, bool is_signed, bool big_endian)
{
	uint16_t h;
	uint32_t w;
	uint64_t q;

	switch (size) {
	case 1:
		return is_signed ? (uint64_t)(int64_t)(int8_t)*p : *p;
	case 2:
		memcpy(&h, p, 2);
		if (big_endian)
			h = __builtin_bswap16(h);
		return is_signed ? (uint64_t)(int64_t)(int16_t)h : h;
	case 4:
		memcpy(&w, p, 4);
		if (big_endian)
			w = __builtin_bswap32(w);
		return is_signed ? (uint64_t)(int64_t)(int32_t)w : w;
	case 8:
		memcpy(&q, p, 8);
		return big_endian ? __builtin_bswap64(q) : q;
	default:
		return 0;
	}
}

/** bp_tep_get() - a field of a record of @len bytes; false when the record is too short for it or it is no
 * number */
static inline bool bp_tep_get(const struct bp_tep *tep, const struct bp_tep_field *f, const uint8_t *rec,
			      size_t len, uint64_t *ret)
{
	if (!f || !f->size || (size_t)f->offset + f->size > len)
		return false;
	*ret = bp_tep_number(rec + f->offset, f->size, f->is_signed, tep->big_endian);
	return true;
}

/**
 * bp_tep_bytes() - the bytes of an array or of a variable-length field; false when they do not lie in the
 * record
 * @data, @n: borrowed from @rec
 */
bool bp_tep_bytes(const struct bp_tep *tep, const struct bp_tep_field *f, const uint8_t *rec, size_t len,
		  const uint8_t **data, size_t *n);

/** bp_tep_text() - a text field up to its NUL, cut to @cap - 1 bytes; false (and "") when there is none */
bool bp_tep_text(const struct bp_tep *tep, const struct bp_tep_field *f, const uint8_t *rec, size_t len,
		 char *dst, size_t cap);

#endif
