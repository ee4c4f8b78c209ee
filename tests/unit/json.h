/* SPDX-License-Identifier: GPL-2.0-or-later */
/* As much of JSON as the totals of the corpus need. */
#ifndef BP_TESTS_UNIT_JSON_H
#define BP_TESTS_UNIT_JSON_H

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json {
	char type; /* '{' '[' '"' '0' or 'x' */
	char *key, *text;
	double number;
	struct json *child, *next;
};

static inline void json_free(struct json *j)
{
	while (j) {
		struct json *next = j->next;

		json_free(j->child);
		free(j->key);
		free(j->text);
		free(j);
		j = next;
	}
}

static char *json_string(const char **p)
{
	const char *q = ++*p;
	char *s;

	while (*q != '"')
		q += *q == '\\' ? 2 : 1;
	s = strndup(*p, (size_t)(q - *p));
	*p = q + 1;
	return s;
}

static void json_blank(const char **p)
{
	*p += strspn(*p, " \t\r\n,:");
}

static inline struct json *json_parse(const char **p)
{
	struct json *j = calloc(1, sizeof(*j)), **last = &j->child;

	json_blank(p);
	j->type = **p;
	if (**p == '"') {
		j->text = json_string(p);
	} else if (**p == '{' || **p == '[') {
		char end = *(*p)++ == '{' ? '}' : ']';

		for (json_blank(p); **p != end; json_blank(p)) {
			char *key = end == '}' ? json_string(p) : NULL;

			*last = json_parse(p);
			(*last)->key = key;
			last = &(*last)->next;
		}
		++*p;
	} else if (strspn(*p, "-0123456789")) {
		char *end;

		j->type = '0';
		j->number = strtod(*p, &end);
		*p = end;
	} else {
		j->type = 'x';
		*p += strcspn(*p, ",}] \n");
	}
	return j;
}

static inline const struct json *json_get(const struct json *j, const char *key)
{
	for (j = j ? j->child : NULL; j; j = j->next) {
		if (!strcmp(j->key, key))
			return j;
	}
	return NULL;
}

static inline double json_number(const struct json *j, const char *key)
{
	const struct json *v = json_get(j, key);

	return v ? v->number : 0;
}

/* The whole file, NULL when there is none. */
static inline struct json *json_load(const char *path)
{
	FILE *f = fopen(path, "r");
	struct json *j = NULL;
	const char *p;
	char *text;
	long n;

	if (!f)
		return NULL;
	fseek(f, 0, SEEK_END);
	n = ftell(f);
	rewind(f);
	text = calloc(1, (size_t)n + 1);
	if (text && fread(text, 1, (size_t)n, f) == (size_t)n) {
		p = text;
		j = json_parse(&p);
	}
	free(text);
	fclose(f);
	return j;
}

#endif
