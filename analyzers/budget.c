// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "analyzers/budget.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#include "core/cleanup.h"
#include "core/units.h"

#define MAX_BYTES (4u << 20)

enum section { PHASES, FUNCTIONS, MODULES, SYSCALLS, METRICS };

static const char *const sections[] = {"phases", "functions", "modules", "syscalls", "metrics"};

enum key {
	TIME,
	INSNS,
	CALLS,
	SELF_TIME,
	SELF_INSNS,
	TIME_GROWTH,
	INSNS_GROWTH,
	CALLS_GROWTH,
	NOT_BEFORE,
	N_KEYS
};

static const char *const keys[] = {"time",        "insns",        "calls",        "self-time", "self-insns",
				   "time-growth", "insns-growth", "calls-growth", "not-before"};

/* Which keys make sense where. */
#define K(k) (1u << (k))
static const unsigned allowed[] = {
    [PHASES] = K(TIME) | K(INSNS) | K(TIME_GROWTH) | K(INSNS_GROWTH),
    [FUNCTIONS] = K(TIME) | K(INSNS) | K(CALLS) | K(SELF_TIME) | K(SELF_INSNS) | K(TIME_GROWTH) |
		  K(INSNS_GROWTH) | K(CALLS_GROWTH) | K(NOT_BEFORE),
    [MODULES] = K(TIME) | K(INSNS) | K(CALLS) | K(TIME_GROWTH) | K(INSNS_GROWTH) | K(NOT_BEFORE),
    [SYSCALLS] = K(TIME) | K(INSNS) | K(CALLS) | K(TIME_GROWTH) | K(INSNS_GROWTH) | K(CALLS_GROWTH),
    [METRICS] = K(TIME) | K(INSNS) | K(CALLS) | K(TIME_GROWTH) | K(INSNS_GROWTH) | K(CALLS_GROWTH),
};

struct limit {
	enum section section;
	enum key key;
	char *name;   /* of the phase, function ...; "" for metrics */
	char *phase;  /* of not-before */
	double value; /* ns, instructions, calls; of growth: a share, 0.05 */
};

struct bp_budget {
	struct limit *limits;
	size_t n;
};

size_t bp_budget_limits(const struct bp_budget *b)
{
	return b->n;
}

void bp_budget_destroy(struct bp_budget *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->n; i++) {
		free(b->limits[i].name);
		free(b->limits[i].phase);
	}
	free(b->limits);
	free(b);
}

/* ---- reading ---- */

struct reader {
	const char *path;
	yaml_document_t *doc;
	struct bp_budget *b;
};

static BP_PRINTF(3, 4) struct bp_err *bad(const struct reader *r, const yaml_node_t *node, const char *fmt,
					  ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return bp_err_new(BP_EDATA, "%s:%zu: %s", r->path, node ? node->start_mark.line + 1 : 1, text);
}

static const char *scalar(const yaml_node_t *node)
{
	const char *s = node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;

	return s && strlen(s) == node->data.scalar.length ? s : NULL;
}

static int index_of(const char *const *list, size_t n, const char *name)
{
	for (size_t i = 0; name && i < n; i++) {
		if (!strcmp(list[i], name))
			return (int)i;
	}
	return -1;
}

/* "1.4G", "500k", "12": a number with a decimal prefix. */
static bool parse_count(const char *text, double *ret)
{
	static const char prefixes[] = "kMGT";
	char *end;
	double v = strtod(text, &end), unit = 1;

	if (end == text || !isfinite(v) || v < 0)
		return false;
	if (*end) {
		const char *p = strchr(prefixes, *end);

		if (!p)
			return false;
		for (; p >= prefixes; p--)
			unit *= 1000;
		end++;
	}
	*ret = v * unit;
	return !*end && *ret < 1e18;
}

static bool parse_percent(const char *text, double *ret)
{
	char *end;
	double v = strtod(text, &end);

	*ret = v / 100;
	return end != text && isfinite(v) && v >= 0 && v < 1e6 && !strcmp(end, "%");
}

static struct bp_err *parse_value(const struct reader *r, const yaml_node_t *node, struct limit *l)
{
	const char *text = scalar(node);
	uint64_t ns;

	if (!text)
		return bad(r, node, "%s wants one value", keys[l->key]);
	switch (l->key) {
	case TIME:
	case SELF_TIME:
		if (!bp_parse_time(text, 0, &ns) || !strpbrk(text, "nums"))
			return bad(r, node, "%s: '%s' is not a time such as 250ms or 1.5s", keys[l->key],
				   text);
		l->value = (double)ns;
		return NULL;
	case INSNS:
	case SELF_INSNS:
	case CALLS:
		if (!parse_count(text, &l->value))
			return bad(r, node, "%s: '%s' is not a number such as 1200, 350k or 1.5G",
				   keys[l->key], text);
		return NULL;
	case NOT_BEFORE:
		l->phase = strdup(text);
		return l->phase ? NULL : bp_err_nomem();
	default:
		if (!parse_percent(text, &l->value))
			return bad(r, node, "%s: '%s' is not a percentage such as 5%%", keys[l->key], text);
		return NULL;
	}
}

static struct bp_err *add_limit(const struct reader *r, enum section section, const char *name,
				const yaml_node_t *key, const yaml_node_t *value)
{
	struct bp_budget *b = r->b;
	int k = index_of(keys, N_KEYS, scalar(key));
	struct limit *l;

	if (k < 0 || !(allowed[section] & K(k)))
		return bad(r, key, "%s have no limit '%s'", sections[section],
			   scalar(key) ? scalar(key) : "");
	for (size_t i = 0; i < b->n; i++) {
		if (b->limits[i].section == section && (int)b->limits[i].key == k &&
		    !strcmp(b->limits[i].name, name))
			return bad(r, key, "a second limit '%s' for '%s'", keys[k], name);
	}
	l = realloc(b->limits, (b->n + 1) * sizeof(*l));
	if (!l)
		return bp_err_nomem();
	b->limits = l;
	l = &b->limits[b->n];
	*l = (struct limit){.section = section, .key = (enum key)k, .name = strdup(name)};
	b->n++;
	return l->name ? parse_value(r, value, l) : bp_err_nomem();
}

/* The limits of one phase, function ...: a mapping, or a mapping of none. */
static struct bp_err *read_limits(const struct reader *r, enum section section, const char *name,
				  const yaml_node_t *node)
{
	struct bp_err *err = NULL;

	if (!node || node->type != YAML_MAPPING_NODE)
		return bad(r, node, "'%s' wants limits, such as {insns: 5M}", name);
	for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
	     p < node->data.mapping.pairs.top && !err; p++)
		err = add_limit(r, section, name, yaml_document_get_node(r->doc, p->key),
				yaml_document_get_node(r->doc, p->value));
	return err;
}

static struct bp_err *read_section(const struct reader *r, enum section section, const yaml_node_t *node)
{
	struct bp_err *err = NULL;

	if (section == METRICS)
		return read_limits(r, section, "", node);
	if (!node || node->type != YAML_MAPPING_NODE)
		return bad(r, node, "'%s' wants names and their limits", sections[section]);
	for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
	     p < node->data.mapping.pairs.top && !err; p++) {
		const yaml_node_t *key = yaml_document_get_node(r->doc, p->key);

		if (!scalar(key) || !*scalar(key))
			return bad(r, key, "a name is wanted here");
		err = read_limits(r, section, scalar(key), yaml_document_get_node(r->doc, p->value));
	}
	return err;
}

static struct bp_err *read_root(const struct reader *r)
{
	const yaml_node_t *root = yaml_document_get_root_node(r->doc);
	struct bp_err *err = NULL;
	bool version = false;

	if (!root || root->type != YAML_MAPPING_NODE)
		return bad(r, root, "not a budget: it begins with \"bootprof-budget: 1\"");
	for (const yaml_node_pair_t *p = root->data.mapping.pairs.start;
	     p < root->data.mapping.pairs.top && !err; p++) {
		const yaml_node_t *key = yaml_document_get_node(r->doc, p->key);
		const yaml_node_t *value = yaml_document_get_node(r->doc, p->value);
		int section = index_of(sections, BP_ARRAY_SIZE(sections), scalar(key));

		if (scalar(key) && !strcmp(scalar(key), "bootprof-budget")) {
			if (!scalar(value) || strcmp(scalar(value), "1"))
				return bad(r, value, "version '%s' of budgets is not known, only 1",
					   scalar(value) ? scalar(value) : "");
			version = true;
			continue;
		}
		if (section < 0)
			return bad(r, key,
				   "there is no '%s' in a budget; there are phases, functions, modules, "
				   "syscalls, metrics",
				   scalar(key) ? scalar(key) : "");
		err = read_section(r, (enum section)section, value);
	}
	if (!err && !version)
		return bad(r, root, "not a budget: \"bootprof-budget: 1\" is missing");
	return err;
}

struct bp_err *bp_budget_parse(const char *path, const char *text, size_t len, struct bp_budget **ret)
{
	bp_cleanup(bp_budget_destroyp) struct bp_budget *b = calloc(1, sizeof(*b));
	struct bp_err *err = NULL;
	yaml_document_t doc;
	yaml_parser_t parser;

	if (!b || !yaml_parser_initialize(&parser))
		return bp_err_nomem();
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	if (!yaml_parser_load(&parser, &doc)) {
		size_t line = parser.problem_mark.line;

		/* Bytes that are no text at all have an offset only. */
		if (parser.error == YAML_MEMORY_ERROR)
			err = bp_err_nomem();
		else if (parser.error == YAML_READER_ERROR)
			err = bp_err_data(path, parser.problem_offset, "%s",
					  parser.problem ? parser.problem : "no YAML");
		else
			err = bp_err_new(BP_EDATA, "%s:%zu: %s%s%s", path, line + 1,
					 parser.problem ? parser.problem : "no YAML",
					 parser.context ? ", " : "", parser.context ? parser.context : "");
		yaml_parser_delete(&parser);
		return err;
	}
	err = read_root(&(struct reader){path, &doc, b});
	yaml_document_delete(&doc);
	yaml_parser_delete(&parser);
	if (err)
		return err;
	*ret = bp_steal(b);
	return NULL;
}

static void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

struct bp_err *bp_budget_read(const char *path, struct bp_budget **ret)
{
	bp_cleanup(fclosep) FILE *f = fopen(path, "re");
	bp_autofree char *buf = malloc(MAX_BYTES + 1);
	size_t len;

	if (!f)
		return bp_err_os(errno, "%s", path);
	if (!buf)
		return bp_err_nomem();
	len = fread(buf, 1, MAX_BYTES + 1, f);
	if (ferror(f))
		return bp_err_os(errno, "%s", path);
	if (len > MAX_BYTES)
		return bp_err_data(path, MAX_BYTES, "too large for a budget");
	return bp_budget_parse(path, buf, len, ret);
}

/* ---- judging ---- */

/* What a limit is about, in one boot. */
struct figures {
	bool has;
	double time, insns, calls, self_time, self_insns;
	uint32_t phase; /* of the first call, or load */
};

static struct figures figures_of(const struct bp_summary *s, const struct limit *l)
{
	struct figures f = {.phase = BP_SUM_NONE};

	switch (l->section) {
	case METRICS:
		return (struct figures){true, (double)s->ns, (double)s->insns, (double)s->calls, 0,
					0,    BP_SUM_NONE};
	case PHASES:
		for (size_t i = 0; i < s->n_phases; i++) {
			if (strcmp(s->phases[i].name, l->name))
				continue;
			f.has = true;
			f.time += (double)s->phases[i].ns;
			f.insns += (double)s->phases[i].insns;
		}
		break;
	case FUNCTIONS:
		for (size_t i = 0; i < s->n_funcs; i++) {
			const struct bp_sum_func *x = &s->funcs[i];

			if (strcmp(x->name, l->name))
				continue;
			if (!f.has ||
			    (x->phase != BP_SUM_NONE && (f.phase == BP_SUM_NONE || x->phase < f.phase)))
				f.phase = x->phase;
			f.has = true;
			f.time += (double)x->total_ns;
			f.insns += (double)x->total_insns;
			f.self_time += (double)x->self_ns;
			f.self_insns += (double)x->self_insns;
			f.calls += (double)x->calls;
		}
		break;
	case MODULES:
		for (size_t i = 0; i < s->n_modules; i++) {
			if (strcmp(s->modules[i].name, l->name))
				continue;
			f.has = true;
			f.phase = s->modules[i].phase;
			f.calls += (double)s->modules[i].loads;
			f.time += (double)s->modules[i].init_ns;
			f.insns += (double)s->modules[i].init_insns;
		}
		break;
	case SYSCALLS:
		for (size_t i = 0; i < s->n_syscalls; i++) {
			if (strcmp(s->syscalls[i].name, l->name))
				continue;
			f.has = true;
			f.calls += (double)s->syscalls[i].calls;
			f.time += (double)s->syscalls[i].ns;
			f.insns += (double)s->syscalls[i].insns;
		}
		break;
	}
	return f;
}

static double figure(const struct figures *f, enum key key)
{
	switch (key) {
	case TIME:
	case TIME_GROWTH:
		return f->time;
	case INSNS:
	case INSNS_GROWTH:
		return f->insns;
	case SELF_TIME:
		return f->self_time;
	case SELF_INSNS:
		return f->self_insns;
	default:
		return f->calls;
	}
}

static bool is_growth(enum key k)
{
	return k == TIME_GROWTH || k == INSNS_GROWTH || k == CALLS_GROWTH;
}

static const char *unit_of(enum key k)
{
	return k == TIME || k == SELF_TIME || k == TIME_GROWTH      ? "ns"
	       : k == INSNS || k == SELF_INSNS || k == INSNS_GROWTH ? "insns"
	       : k == NOT_BEFORE                                    ? "phase"
								    : "calls";
}

static const char *show(char buf[BP_UNITS_MAX], const char *unit, double v)
{
	return !strcmp(unit, "ns") ? bp_units_ns(buf, (int64_t)v)
				   : bp_units_count(buf, (uint64_t)(v > 0 ? v : 0));
}

static struct bp_err *judge_phase(struct bp_gate_metric *m, const struct limit *l, const struct bp_summary *s,
				  const struct figures *f)
{
	uint32_t from = bp_summary_phase(s, l->phase);

	if (from == BP_SUM_NONE) {
		m->verdict = BP_GATE_INCONCLUSIVE;
		if (asprintf(&m->text, "the boot has no phase %s", l->phase) < 0)
			m->text = NULL;
		return NULL;
	}
	m->limit = (double)from;
	if (!f->has || f->phase == BP_SUM_NONE)
		return NULL;
	m->new_value = (double)f->phase;
	if (f->phase >= from)
		return NULL;
	m->verdict = BP_GATE_REGRESSION;
	if (asprintf(&m->text, "%s in %s, which is before %s", l->section == MODULES ? "loaded" : "called",
		     s->phases[f->phase].name, l->phase) < 0)
		m->text = NULL;
	return NULL;
}

static struct bp_err *judge_limit(const struct limit *l, struct bp_gate *g, const struct bp_summary *old_boot,
				  const struct bp_summary *new_boot)
{
	struct figures f = figures_of(new_boot, l), before = {0};
	const char *unit = unit_of(l->key);
	char a[BP_UNITS_MAX], b[BP_UNITS_MAX];
	bp_autofree char *name = NULL;
	struct bp_gate_metric *m;

	if (is_growth(l->key) && !old_boot) {
		bp_gate_note(g, "budget: %s %s: no baseline to grow from, not judged", l->name, keys[l->key]);
		return NULL;
	}
	if (asprintf(&name, "budget:%s%s%s:%s", sections[l->section], *l->name ? ":" : "", l->name,
		     keys[l->key]) < 0)
		return bp_err_nomem();
	m = bp_gate_metric(g, name, unit);
	if (!m)
		return bp_err_nomem();
	if (old_boot)
		before = figures_of(old_boot, l);
	if (l->key == NOT_BEFORE) {
		struct bp_err *err = judge_phase(m, l, new_boot, &f);

		bp_gate_worse(g, m->verdict);
		return err;
	}
	if (before.has)
		m->old_value = figure(&before, l->key);
	m->new_value = figure(&f, l->key);
	m->limit = is_growth(l->key) ? figure(&before, l->key) * (1 + l->value) : l->value;
	if (m->new_value <= m->limit)
		return NULL;
	m->verdict = BP_GATE_REGRESSION;
	bp_gate_worse(g, BP_GATE_REGRESSION);
	if (asprintf(&m->text, "%s%s, the budget is %s%s", show(a, unit, m->new_value),
		     !strcmp(unit, "ns")      ? ""
		     : !strcmp(unit, "insns") ? " instructions"
					      : " calls",
		     show(b, unit, m->limit), f.has ? "" : " (not in this boot)") < 0)
		m->text = NULL;
	return NULL;
}

struct bp_err *bp_budget_judge(const struct bp_budget *b, struct bp_gate *g,
			       const struct bp_summary *old_boot, const struct bp_summary *new_boot)
{
	struct bp_err *err = NULL;

	for (size_t i = 0; i < b->n && !err; i++)
		err = judge_limit(&b->limits[i], g, old_boot, new_boot);
	return err;
}

/* ---- writing ---- */

/* A double-quoted scalar; JSON's escapes are YAML's. */
static void add_name(struct bp_strbuf *sb, const char *name)
{
	bp_strbuf_addc(sb, '"');
	bp_strbuf_add_json(sb, name, strlen(name));
	bp_strbuf_addc(sb, '"');
}

/* Twice the floor, where that is more than 2 %. */
static void add_insns(struct bp_strbuf *sb, double insns, double floor)
{
	bp_strbuf_addf(sb, "insns: %.0f",
		       ceil(insns + (2 * floor > insns * 0.02 ? 2 * floor : insns * 0.02)));
}

static void add_time(struct bp_strbuf *sb, double ns)
{
	bp_strbuf_addf(sb, "time: %.0fms", ceil(ns * 1.25 / 1e6));
}

struct bp_err *bp_budget_write(const struct bp_summary *s, struct bp_strbuf *sb)
{
	bool exact = s->deterministic;

	bp_strbuf_adds(sb,
		       "# Limits for a boot, checked by `bootprof gate --budget`; see bootprof-budget(5).\n");
	bp_strbuf_addf(sb, "# %s were measured, and this much room was added: %s.\n",
		       exact ? "Instructions" : "Times", exact ? "2 %, or twice the floor" : "25 %");
	bp_strbuf_adds(sb, "bootprof-budget: 1\n\nmetrics:\n  ");
	if (exact)
		add_insns(sb, (double)s->insns, (double)s->floor_insns);
	else
		add_time(sb, (double)s->ns);
	bp_strbuf_adds(sb, "\n\nphases:\n");
	for (size_t i = 0; i < s->n_phases; i++) {
		/* The smallest ones only move. */
		if (exact ? s->phases[i].insns * 1000 < s->insns : s->phases[i].ns * 50 < s->ns)
			continue;
		bp_strbuf_adds(sb, "  ");
		add_name(sb, s->phases[i].name);
		bp_strbuf_adds(sb, ": {");
		if (exact)
			add_insns(sb, (double)s->phases[i].insns, (double)s->phases[i].floor);
		else
			add_time(sb, (double)s->phases[i].ns);
		bp_strbuf_adds(sb, "}\n");
	}
	if (s->n_modules)
		bp_strbuf_adds(sb, "\nmodules:\n");
	for (size_t i = 0; i < s->n_modules; i++) {
		const struct bp_sum_module *m = &s->modules[i];

		bp_strbuf_adds(sb, "  ");
		add_name(sb, m->name);
		bp_strbuf_addf(sb, ": {calls: %" PRIu64, m->loads);
		if (m->phase != BP_SUM_NONE) {
			bp_strbuf_adds(sb, ", not-before: ");
			add_name(sb, s->phases[m->phase].name);
		}
		if (exact && m->init_insns) {
			bp_strbuf_adds(sb, ", ");
			add_insns(sb, (double)m->init_insns, 0);
		}
		bp_strbuf_adds(sb, "}\n");
	}
	return bp_strbuf_ok(sb);
}
