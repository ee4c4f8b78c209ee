// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/query.h"

#include <errno.h>
#include <fnmatch.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

enum how { EXACT, GLOB, REGEX };

struct pattern {
	enum how how;
	char *text;
	char *module; /* glob, NULL: any */
	regex_t regex;
};

struct bp_patterns {
	struct pattern *list;
	size_t n;
};

static enum how how_of(const char *text)
{
	if (strpbrk(text, "^$|()+\\") || strstr(text, ".*"))
		return REGEX;
	return strpbrk(text, "*?[") ? GLOB : EXACT;
}

struct bp_err *bp_patterns_add(struct bp_patterns **p, const char *text)
{
	struct pattern *list, *new;
	bp_autofree char *copy = strdup(text), *module = NULL;
	char *at;

	if (!*text)
		return bp_err_new(BP_EUSAGE, "an empty pattern matches nothing");
	if (!copy)
		return bp_err_nomem();
	at = strrchr(copy, '@');
	if (at && at != copy && at[1]) {
		*at = '\0';
		module = strdup(at + 1);
		if (!module)
			return bp_err_nomem();
	}
	if (!*p) {
		*p = calloc(1, sizeof(**p));
		if (!*p)
			return bp_err_nomem();
	}
	list = realloc((*p)->list, ((*p)->n + 1) * sizeof(*list));
	if (!list)
		return bp_err_nomem();
	(*p)->list = list;
	new = &list[(*p)->n];
	memset(new, 0, sizeof(*new));
	new->how = how_of(copy);
	if (new->how == REGEX) {
		int rc = regcomp(&new->regex, copy, REG_EXTENDED | REG_NOSUB);

		if (rc) {
			char why[128];

			regerror(rc, &new->regex, why, sizeof(why));
			return bp_err_new(BP_EUSAGE, "bad regular expression '%s': %s", copy, why);
		}
	}
	new->text = bp_steal(copy);
	new->module = bp_steal(module);
	(*p)->n++;
	return NULL;
}

void bp_patterns_destroy(struct bp_patterns *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n; i++) {
		if (p->list[i].how == REGEX)
			regfree(&p->list[i].regex);
		free(p->list[i].text);
		free(p->list[i].module);
	}
	free(p->list);
	free(p);
}

static bool one_matches(const struct pattern *p, const char *name)
{
	switch (p->how) {
	case EXACT:
		return !strcmp(p->text, name);
	case GLOB:
		return !fnmatch(p->text, name, 0);
	case REGEX:
		return !regexec(&p->regex, name, 0, NULL, 0);
	}
	return false;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

bool bp_patterns_match(const struct bp_patterns *p, const char *name, const char *module)
{
	for (size_t i = 0; p && i < p->n; i++) {
		const struct pattern *one = &p->list[i];

		if (!one_matches(one, name))
			continue;
		if (!one->module || !module)
			return true;
		if (!fnmatch(one->module, module, 0) || !fnmatch(one->module, base_name(module), 0))
			return true;
	}
	return false;
}

bool bp_patterns_match_module(const struct bp_patterns *p, const char *module)
{
	return bp_patterns_match(p, module, NULL) || bp_patterns_match(p, base_name(module), NULL);
}

void bp_query_deinit(struct bp_query *q)
{
	bp_patterns_destroy(q->in);
	bp_patterns_destroy(q->out);
	bp_patterns_destroy(q->modules);
	bp_patterns_destroy(q->processes);
	memset(q, 0, sizeof(*q));
}

struct bp_err *bp_query_vcpus(struct bp_query *q, const char *text)
{
	const char *s = text;

	for (;;) {
		unsigned long a, b;
		char *end;

		if (*s < '0' || *s > '9')
			break;
		errno = 0;
		a = b = strtoul(s, &end, 10);
		if (*end == '-' && end[1] >= '0' && end[1] <= '9')
			b = strtoul(end + 1, &end, 10);
		if (errno || a > b || b >= sizeof(q->vcpus) * 8)
			break;
		for (; a <= b; a++)
			q->vcpus[a / 64] |= 1ull << a % 64;
		q->has_vcpus = true;
		if (!*end)
			return NULL;
		if (*end != ',')
			break;
		s = end + 1;
	}
	return bp_err_new(BP_EUSAGE, "'%s' is not a list of vCPUs such as 0,2-3", text);
}

/* A decimal number without the locale's influence; *@end is behind it. */
static bool decimal(const char *s, const char **end, double *ret)
{
	double v = 0, unit = 1;
	bool any = false;

	for (; *s >= '0' && *s <= '9'; s++, any = true)
		v = v * 10 + (*s - '0');
	if (*s == '.') {
		for (s++; *s >= '0' && *s <= '9'; s++, any = true) {
			unit /= 10;
			v += (*s - '0') * unit;
		}
	}
	*end = s;
	*ret = v;
	return any;
}

bool bp_parse_time(const char *text, double unit_ns, uint64_t *ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"min", 60e9}};
	const char *end;
	double v;

	if (!decimal(text, &end, &v))
		return false;
	if (*end) {
		unit_ns = 0;
		for (size_t i = 0; i < BP_ARRAY_SIZE(units); i++) {
			if (!strcmp(units[i].name, end))
				unit_ns = units[i].ns;
		}
		if (unit_ns == 0)
			return false;
	}
	v *= unit_ns;
	if (v > 1e18)
		return false;
	*ns = (uint64_t)(v + 0.5);
	return true;
}
