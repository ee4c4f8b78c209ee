// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/ftrace/tracedat_names.h"

#include <stdlib.h>
#include <string.h>

/* A symbol covers at most this much: what lies farther behind the last one has no name. */
#define SYM_SPAN (16u << 20)

static struct bp_err *grow(void **array, size_t *cap, size_t n, size_t size)
{
	size_t want = *cap ? 2 * *cap : 256;
	void *grown;

	if (n < *cap)
		return NULL;
	grown = realloc(*array, want * size);
	if (!grown)
		return bp_err_nomem();
	*array = grown;
	*cap = want;
	return NULL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static int compare_syms(const void *a, const void *b)
{
	const struct bp_td_sym *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	return (x->name > y->name) - (x->name < y->name);
}

/* "ffffffff810000ba T name" and perhaps "\t[module]" */
static struct bp_err *take_symbol(struct bp_td_syms *s, const char *p, const char *end)
{
	const char *name, *name_end, *open, *close;
	struct bp_td_sym sym = {0};
	unsigned digits = 0;
	struct bp_err *err;
	char type;
	int d;

	while (p < end && (d = hex_digit(*p)) >= 0) {
		if (++digits > 16)
			return NULL;
		sym.addr = sym.addr << 4 | (unsigned)d;
		p++;
	}
	if (!digits || end - p < 4 || p[0] != ' ' || p[2] != ' ')
		return NULL;
	type = p[1];
	name = p + 3;
	name_end = name;
	while (name_end < end && *name_end != '\t' && *name_end != ' ')
		name_end++;
	if (name_end == name || name_end - name > 1023 || !sym.addr)
		return NULL;
	if (type != 't' && type != 'T' && type != 'w' && type != 'W')
		return NULL;
	if (name_end - name == 5 && !memcmp(name, "_text", 5)) {
		s->have_text_start = true;
		s->text_start = sym.addr;
		return NULL;
	}
	sym.name = (uint32_t)(name - s->text);
	sym.name_len = (uint16_t)(name_end - name);
	open = memchr(name_end, '[', (size_t)(end - name_end));
	close = open ? memchr(open, ']', (size_t)(end - open)) : NULL;
	if (close && close - open > 1 && close - open <= 65 && open - name_end < 200) {
		sym.module_at = (uint8_t)(open + 1 - name_end);
		sym.module_len = (uint8_t)(close - open - 1);
	}
	err = grow((void **)&s->syms, &s->cap, s->n, sizeof(*s->syms));
	if (err)
		return err;
	s->syms[s->n++] = sym;
	return NULL;
}

struct bp_err *bp_td_syms_init(struct bp_td_syms *s, const char *text, size_t len)
{
	const char *p = text, *end = text + len;
	bool sorted = true;

	*s = (struct bp_td_syms){.text = text};
	if (len > UINT32_MAX)
		len = UINT32_MAX;
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t before = s->n;
		struct bp_err *err = take_symbol(s, p, nl ? nl : end);

		if (err) {
			bp_td_syms_deinit(s);
			return err;
		}
		if (s->n > before && before && s->syms[before].addr < s->syms[before - 1].addr)
			sorted = false;
		if (!nl)
			break;
		p = nl + 1;
	}
	if (!sorted)
		qsort(s->syms, s->n, sizeof(*s->syms), compare_syms);
	return NULL;
}

void bp_td_syms_deinit(struct bp_td_syms *s)
{
	free(s->syms);
	memset(s, 0, sizeof(*s));
}

const struct bp_td_sym *bp_td_syms_find(const struct bp_td_syms *s, uint64_t addr)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (s->syms[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || addr - s->syms[lo - 1].addr > SYM_SPAN)
		return NULL;
	lo--;
	/* Of several names for one address the first in the text. */
	while (lo && s->syms[lo - 1].addr == s->syms[lo].addr)
		lo--;
	return &s->syms[lo];
}

static int compare_comms(const void *a, const void *b)
{
	const struct bp_td_comm *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return (x->name > y->name) - (x->name < y->name);
}

struct bp_err *bp_td_comms_init(struct bp_td_comms *c, const char *text, size_t len)
{
	const char *p = text, *end = text + len;

	*c = (struct bp_td_comms){.text = text};
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p)), *e = nl ? nl : end;
		const char *name = p;
		uint32_t pid = 0;
		unsigned digits = 0;

		while (name < e && *name >= '0' && *name <= '9' && digits < 9) {
			pid = pid * 10 + (uint32_t)(*name++ - '0');
			digits++;
		}
		if (digits && e - name > 1 && *name == ' ') {
			struct bp_err *err = grow((void **)&c->comms, &c->cap, c->n, sizeof(*c->comms));

			if (err) {
				bp_td_comms_deinit(c);
				return err;
			}
			c->comms[c->n++] = (struct bp_td_comm){.pid = (int32_t)pid,
							       .name = (uint32_t)(name + 1 - text),
							       .len = (uint32_t)(e - name - 1)};
		}
		if (!nl)
			break;
		p = nl + 1;
	}
	if (c->n)
		qsort(c->comms, c->n, sizeof(*c->comms), compare_comms);
	return NULL;
}

void bp_td_comms_deinit(struct bp_td_comms *c)
{
	free(c->comms);
	memset(c, 0, sizeof(*c));
}

bool bp_td_comms_find(const struct bp_td_comms *c, int32_t pid, char dst[16])
{
	size_t lo = 0, hi = c->n;

	dst[0] = '\0';
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (c->comms[mid].pid < pid)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == c->n || c->comms[lo].pid != pid)
		return false;
	hi = c->comms[lo].len < 15 ? c->comms[lo].len : 15;
	memcpy(dst, c->text + c->comms[lo].name, hi);
	dst[hi] = '\0';
	return dst[0] && strcmp(dst, "<...>");
}
