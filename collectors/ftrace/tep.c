// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "collectors/ftrace/tep.h"

#include <stdlib.h>

#define MAX_FIELDS (1u << 20)

struct bp_err *bp_tep_init(struct bp_tep *tep)
{
	memset(tep, 0, sizeof(*tep));
	tep->by_id = malloc(65536 * sizeof(*tep->by_id));
	if (!tep->by_id)
		return bp_err_nomem();
	memset(tep->by_id, 0xff, 65536 * sizeof(*tep->by_id));
	/* What every kernel has had; a description replaces it. */
	tep->type = (struct bp_tep_field){.offset = 0, .size = 2};
	tep->flags = (struct bp_tep_field){.offset = 2, .size = 1};
	tep->pid = (struct bp_tep_field){.offset = 4, .size = 4, .is_signed = true};
	return NULL;
}

void bp_tep_deinit(struct bp_tep *tep)
{
	free(tep->events);
	free(tep->fields);
	free(tep->by_id);
	memset(tep, 0, sizeof(*tep));
}

/* ---- text ---- */

struct text {
	const char *p, *end;
};

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool next_line(struct text *t, struct text *line)
{
	const char *nl;

	if (t->p >= t->end)
		return false;
	nl = memchr(t->p, '\n', (size_t)(t->end - t->p));
	line->p = t->p;
	line->end = nl ? nl : t->end;
	t->p = nl ? nl + 1 : t->end;
	return true;
}

static void skip_blanks(struct text *t)
{
	while (t->p < t->end && (*t->p == ' ' || *t->p == '\t'))
		t->p++;
}

static bool take(struct text *t, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n))
		return false;
	t->p += n;
	return true;
}

/* A decimal number of at most 9 digits; false if there is none. */
static bool take_number(struct text *t, uint32_t *ret)
{
	uint32_t v = 0;
	unsigned digits = 0;

	while (t->p < t->end && *t->p >= '0' && *t->p <= '9') {
		if (++digits > 9)
			return false;
		v = v * 10 + (uint32_t)(*t->p++ - '0');
	}
	*ret = v;
	return digits > 0;
}

static bool contains(const char *p, const char *end, const char *word)
{
	return memmem(p, (size_t)(end - p), word, strlen(word)) != NULL;
}

/* "field:TYPE NAME[N];" up to and without the semicolon, then "offset:N; size:N; signed:N;" */
static bool parse_field(struct text *t, struct bp_tep_field *f)
{
	const char *decl, *end, *open;
	uint32_t offset, size, value = 0, count = 0;

	memset(f, 0, sizeof(*f));
	skip_blanks(t);
	if (!take(t, "field"))
		return false;
	if (!take(t, ":") && !take(t, " special:"))
		return false;
	decl = t->p;
	end = memchr(decl, ';', (size_t)(t->end - decl));
	if (!end)
		return false;
	t->p = end + 1;
	open = memrchr(decl, '[', (size_t)(end - decl));
	f->kind = BP_TEP_PLAIN;
	f->is_text = contains(decl, end, "char");
	if (contains(decl, end, "__data_loc")) {
		f->kind = BP_TEP_DATA_LOC;
	} else if (contains(decl, end, "__rel_loc")) {
		f->kind = BP_TEP_REL_LOC;
	} else if (open) {
		struct text n = {open + 1, end};

		f->kind = BP_TEP_ARRAY;
		take_number(&n, &count);
		end = open;
	}
	while (end > decl && !is_word(end[-1]))
		end--;
	f->name = end;
	while (f->name > decl && is_word(f->name[-1]))
		f->name--;
	f->name_len = (uint32_t)(end - f->name);
	if (!f->name_len)
		return false;
	skip_blanks(t);
	if (!take(t, "offset:") || !take_number(t, &offset) || !take(t, ";"))
		return false;
	skip_blanks(t);
	if (!take(t, "size:") || !take_number(t, &size) || !take(t, ";"))
		return false;
	skip_blanks(t);
	if (take(t, "signed:") && take_number(t, &value))
		f->is_signed = value != 0;
	if (offset > UINT16_MAX || size > UINT16_MAX)
		return false;
	f->offset = (uint16_t)offset;
	f->size = (uint16_t)size;
	if (f->kind == BP_TEP_ARRAY) {
		f->elem = count && size ? (uint16_t)(size / count) : f->is_text ? 1 : 0;
	} else if (f->kind != BP_TEP_PLAIN && size != 4) {
		return false;
	}
	return true;
}

struct bp_err *bp_tep_parse_fields(const char *text, size_t len,
				   struct bp_err *(*each)(void *self, const struct bp_tep_field *f),
				   void *self)
{
	struct text t = {text, text + len}, line;

	while (next_line(&t, &line)) {
		struct bp_tep_field f;

		skip_blanks(&line);
		/* What follows is not fields, and may be long. */
		if (take(&line, "print fmt"))
			break;
		if (parse_field(&line, &f)) {
			struct bp_err *err = each(self, &f);

			if (err)
				return err;
		}
	}
	return NULL;
}

static struct bp_err *add_field(void *self, const struct bp_tep_field *f)
{
	struct bp_tep *tep = self;

	if (f->name_len > 7 && !memcmp(f->name, "common_", 7)) {
		if (tep->have_common || f->kind != BP_TEP_PLAIN)
			return NULL;
		if (bp_tep_is(f->name, f->name_len, "common_type") && f->size <= 2)
			tep->type = *f;
		else if (bp_tep_is(f->name, f->name_len, "common_flags") && f->size <= 4)
			tep->flags = *f;
		else if (bp_tep_is(f->name, f->name_len, "common_pid") && f->size == 4)
			tep->pid = *f;
		return NULL;
	}
	if (tep->n_fields == MAX_FIELDS)
		return NULL;
	if (tep->n_fields == tep->cap_fields) {
		size_t cap = tep->cap_fields ? 2 * tep->cap_fields : 256;
		struct bp_tep_field *grown = realloc(tep->fields, cap * sizeof(*grown));

		if (!grown)
			return bp_err_nomem();
		tep->fields = grown;
		tep->cap_fields = cap;
	}
	tep->fields[tep->n_fields++] = *f;
	return NULL;
}

struct bp_err *bp_tep_add(struct bp_tep *tep, const char *system, size_t system_len, const char *text,
			  size_t len, bool *ret)
{
	struct text t = {text, text + len}, line;
	struct bp_tep_event ev = {.system = system, .system_len = (uint32_t)system_len};
	struct bp_err *err;
	uint32_t id = 0;
	bool have_id = false;

	*ret = false;
	while (next_line(&t, &line)) {
		if (take(&line, "name:")) {
			skip_blanks(&line);
			ev.name = line.p;
			ev.name_len = (uint32_t)(line.end - line.p);
		} else if (take(&line, "ID:")) {
			skip_blanks(&line);
			have_id = take_number(&line, &id);
		} else if (take(&line, "format:")) {
			break;
		}
	}
	if (!ev.name_len || !have_id || id > UINT16_MAX || tep->by_id[id] != BP_TEP_NO_EVENT)
		return NULL;
	if (tep->n_events == tep->cap_events) {
		size_t cap = tep->cap_events ? 2 * tep->cap_events : 64;
		struct bp_tep_event *grown = realloc(tep->events, cap * sizeof(*grown));

		if (!grown)
			return bp_err_nomem();
		tep->events = grown;
		tep->cap_events = cap;
	}
	ev.id = (uint16_t)id;
	ev.first_field = (uint32_t)tep->n_fields;
	err = bp_tep_parse_fields(t.p, (size_t)(t.end - t.p), add_field, tep);
	if (err)
		return err;
	ev.n_fields = (uint32_t)(tep->n_fields - ev.first_field);
	tep->have_common = true;
	tep->by_id[id] = (uint32_t)tep->n_events;
	tep->events[tep->n_events++] = ev;
	*ret = true;
	return NULL;
}

const struct bp_tep_field *bp_tep_find(const struct bp_tep *tep, const struct bp_tep_event *ev,
				       const char *name)
{
	for (uint32_t i = 0; i < ev->n_fields; i++) {
		const struct bp_tep_field *f = &tep->fields[ev->first_field + i];

		if (bp_tep_is(f->name, f->name_len, name))
			return f;
	}
	return NULL;
}

/* ---- records ---- */

bool bp_tep_bytes(const struct bp_tep *tep, const struct bp_tep_field *f, const uint8_t *rec, size_t len,
		  const uint8_t **data, size_t *n)
{
	size_t offset, size;
	uint32_t loc;

	if (!f || f->offset > len)
		return false;
	offset = f->offset;
	size = f->size;
	switch (f->kind) {
	case BP_TEP_ARRAY:
		if (!size)
			size = len - offset;
		break;
	case BP_TEP_DATA_LOC:
	case BP_TEP_REL_LOC:
		if (len - offset < 4)
			return false;
		loc = (uint32_t)bp_tep_number(rec + offset, 4, false, tep->big_endian);
		size = loc >> 16;
		offset = (loc & 0xffff) + (f->kind == BP_TEP_REL_LOC ? offset + 4 : 0);
		break;
	default:
		return false;
	}
	if (offset > len || size > len - offset)
		return false;
	*data = rec + offset;
	*n = size;
	return true;
}

bool bp_tep_text(const struct bp_tep *tep, const struct bp_tep_field *f, const uint8_t *rec, size_t len,
		 char *dst, size_t cap)
{
	const uint8_t *data;
	size_t n;

	dst[0] = '\0';
	if (!f || !f->is_text || !bp_tep_bytes(tep, f, rec, len, &data, &n))
		return false;
	n = strnlen((const char *)data, n);
	if (n >= cap)
		n = cap - 1;
	memcpy(dst, data, n);
	dst[n] = '\0';
	return true;
}
