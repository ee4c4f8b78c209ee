// SPDX-License-Identifier: GPL-2.0-or-later
/* The summary of a boot, from a recording: one walk for functions, call paths, first calls, system calls. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "analyzers/summary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "analyzers/functions.h"
#include "analyzers/parts.h"
#include "analyzers/phases.h"
#include "analyzers/tree.h"
#include "core/cleanup.h"
#include "core/strbuf.h"

/* ---- strings ---- */

struct bp_sum_strings {
	char **list; /* by hash, open addressing */
	size_t n, size;
};

static uint64_t hash_str(const char *s)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	return h ^ h >> 32;
}

static char **slot(char **list, size_t size, const char *text)
{
	size_t h = hash_str(text) & (size - 1);

	while (list[h] && strcmp(list[h], text))
		h = (h + 1) & (size - 1);
	return &list[h];
}

const char *bp_summary_str(struct bp_summary *s, const char *text)
{
	struct bp_sum_strings *st = s->strings;
	char **at;

	if (!text)
		text = "";
	if (st->n * 2 >= st->size) {
		size_t size = st->size ? st->size * 2 : 1024;
		char **list = calloc(size, sizeof(*list));

		if (!list)
			return NULL;
		for (size_t i = 0; i < st->size; i++) {
			if (st->list[i])
				*slot(list, size, st->list[i]) = st->list[i];
		}
		free(st->list);
		st->list = list;
		st->size = size;
	}
	at = slot(st->list, st->size, text);
	if (!*at) {
		*at = strdup(text);
		st->n += *at != NULL;
	}
	return *at;
}

/* ---- life ---- */

struct bp_err *bp_summary_new(const char *path, struct bp_summary **ret)
{
	bp_cleanup(bp_summary_destroyp) struct bp_summary *s = calloc(1, sizeof(*s));

	if (!s)
		return bp_err_nomem();
	s->strings = calloc(1, sizeof(*s->strings));
	s->nodes = calloc(1, sizeof(*s->nodes));
	if (!s->strings || !s->nodes)
		return bp_err_nomem();
	s->nodes[0].func = BP_SUM_NONE;
	s->n_nodes = 1;
	s->path = bp_summary_str(s, path);
	s->kernel = s->build_id = s->qemu = s->machine = s->accel = s->cpu = s->memory = s->append =
	    s->ended = bp_summary_str(s, "");
	if (!s->path || !s->kernel)
		return bp_err_nomem();
	*ret = bp_steal(s);
	return NULL;
}

static void free_argv(char **argv)
{
	for (char **p = argv; p && *p; p++)
		free(*p);
	free(argv);
}

void bp_summary_destroy(struct bp_summary *s)
{
	if (!s)
		return;
	for (size_t i = 0; s->strings && i < s->strings->size; i++)
		free(s->strings->list[i]);
	if (s->strings)
		free(s->strings->list);
	free(s->strings);
	free_argv(s->argv);
	free(s->inputs);
	free(s->funcs);
	free(s->nodes);
	free(s->phases);
	free(s->modules);
	free(s->initcalls);
	free(s->syscalls);
	for (size_t i = 0; i < s->n_runs; i++)
		free(s->runs[i].phase_ns);
	free(s->runs);
	free(s);
}

struct bp_err *bp_summary_add_run(struct bp_summary *s, const struct bp_summary *boot)
{
	struct bp_sum_run *runs = realloc(s->runs, (s->n_runs + 1) * sizeof(*runs));
	uint64_t *phase_ns = calloc(s->n_phases + 1, sizeof(*phase_ns));

	if (runs)
		s->runs = runs;
	if (!runs || !phase_ns) {
		free(phase_ns);
		return bp_err_nomem();
	}
	for (size_t i = 0; i < s->n_phases; i++) {
		uint32_t p = bp_summary_phase(boot, s->phases[i].name);

		phase_ns[i] = p == BP_SUM_NONE ? 0 : boot->phases[p].ns;
	}
	runs[s->n_runs++] = (struct bp_sum_run){boot->start, boot->ns, boot->insns, phase_ns};
	return NULL;
}

uint32_t bp_summary_find(const struct bp_summary *s, const char *name, const char *module)
{
	for (size_t i = 0; i < s->n_funcs; i++) {
		if (!strcmp(s->funcs[i].name, name) && (!module || !strcmp(s->funcs[i].module, module)))
			return (uint32_t)i;
	}
	return BP_SUM_NONE;
}

uint32_t bp_summary_phase(const struct bp_summary *s, const char *name)
{
	for (size_t i = 0; i < s->n_phases; i++) {
		if (!strcmp(s->phases[i].name, name))
			return (uint32_t)i;
	}
	return BP_SUM_NONE;
}

/* ---- the command line ---- */

/* "-machine" and "--machine" are the same to QEMU. */
static bool is_option(const char *arg, const char *a, const char *b)
{
	if (*arg++ != '-')
		return false;
	arg += *arg == '-';
	return !strcmp(arg, a) || (b && !strcmp(arg, b));
}

/* Member NAME=... of an option's value, or its first member when that has no name. */
static const char *member(struct bp_summary *s, const char *value, const char *name)
{
	size_t len = strlen(name);
	bool first = true;

	for (const char *p = value; *p; first = false) {
		size_t n = strcspn(p, ",");
		char buf[256];

		if (!strncmp(p, name, len) && p[len] == '=')
			snprintf(buf, sizeof(buf), "%.*s", (int)(n - len - 1), p + len + 1);
		else if (first && !memchr(p, '=', n))
			snprintf(buf, sizeof(buf), "%.*s", (int)n, p);
		else
			buf[0] = '\0';
		if (*buf)
			return bp_summary_str(s, buf);
		p += n;
		p += *p == ',';
	}
	return NULL;
}

static bool set(const char **field, const char *value)
{
	if (value)
		*field = value;
	return value != NULL;
}

struct bp_err *bp_summary_set_command(struct bp_summary *s, const char *const *argv)
{
	size_t n = 0;

	while (argv[n])
		n++;
	free_argv(s->argv);
	s->argv = calloc(n + 1, sizeof(*s->argv));
	if (!s->argv)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		s->argv[i] = strdup(argv[i]);
		if (!s->argv[i])
			return bp_err_nomem();
	}
	for (size_t i = 1; i < n; i++) {
		const char *v = argv[i + 1], *cpus;

		if (is_option(argv[i], "enable-kvm", NULL)) {
			set(&s->accel, bp_summary_str(s, "kvm"));
			continue;
		}
		if (!v)
			break;
		if (is_option(argv[i], "M", "machine")) {
			set(&s->machine, member(s, v, "type"));
			if (strstr(v, "accel="))
				set(&s->accel, member(s, strstr(v, "accel="), "accel"));
		} else if (is_option(argv[i], "accel", NULL)) {
			set(&s->accel, member(s, v, "accel"));
		} else if (is_option(argv[i], "cpu", NULL)) {
			set(&s->cpu, bp_summary_str(s, v));
		} else if (is_option(argv[i], "m", NULL)) {
			set(&s->memory, member(s, v, "size"));
		} else if (is_option(argv[i], "append", NULL)) {
			set(&s->append, bp_summary_str(s, v));
		} else if (is_option(argv[i], "smp", NULL)) {
			cpus = member(s, v, "cpus");
			if (cpus && atoi(cpus) > 0 && !s->smp)
				s->smp = (unsigned)atoi(cpus);
		} else {
			continue;
		}
		i++;
	}
	if (!s->smp)
		s->smp = 1;
	if (!*s->machine)
		set(&s->machine, bp_summary_str(s, "(default)"));
	return NULL;
}

/* The quoting of a recording's command line: words, '...', and \' between them. */
static struct bp_err *split_command(struct bp_summary *s, const char *line)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf word = BP_STRBUF_INIT;
	size_t n = 0, cap = strlen(line) / 2 + 2;
	bp_autofree const char **argv = calloc(cap, sizeof(*argv));
	struct bp_err *err = NULL;
	bool quoted = false;

	if (!argv)
		return bp_err_nomem();
	for (const char *p = line; *line; p++) {
		if (!*p || (*p == ' ' && !quoted)) {
			argv[n++] = bp_summary_str(s, bp_strbuf_str(&word));
			if (word.failed || !argv[n - 1])
				return bp_err_nomem();
			bp_strbuf_clear(&word);
			if (!*p)
				break;
		} else if (*p == '\'') {
			quoted = !quoted;
		} else {
			if (*p == '\\' && !quoted && p[1])
				p++;
			bp_strbuf_addc(&word, *p);
		}
	}
	if (n)
		err = bp_summary_set_command(s, argv);
	return err;
}

/* ---- from a recording ---- */

struct maker {
	struct bp_summary *s;
	struct bp_analysis *a;
	struct bp_tree tree;
	struct bp_functions functions;
	struct bp_first_calls first;
	struct bp_syscalls syscalls;
	struct bp_phase_walk phases;
	uint32_t *func_of; /* by row: index of the summary's function */
};

static void maker_deinit(struct maker *m)
{
	bp_tree_deinit(&m->tree);
	bp_functions_deinit(&m->functions);
	bp_first_calls_deinit(&m->first);
	bp_syscalls_deinit(&m->syscalls);
	bp_phase_walk_deinit(&m->phases);
	free(m->func_of);
}

/* A name for code without a symbol: an address only where it is the same in each boot. */
static const char *stable_name(const struct bp_row *r, char buf[BP_ROW_NAME_MAX])
{
	if (*r->name)
		return r->name;
	if (r->space == BP_SPACE_KERNEL || r->space == BP_SPACE_USER) {
		snprintf(buf, BP_ROW_NAME_MAX, "0x%" PRIx64, r->addr);
		return buf;
	}
	return "[unknown]";
}

struct by_name {
	const char *name, *module;
	uint8_t space;
	uint32_t row;
};

static int compare_names(const void *x, const void *y)
{
	const struct by_name *a = x, *b = y;

	/* Equal strings are the same pointer. */
	if (a->name != b->name)
		return a->name < b->name ? -1 : 1;
	if (a->module != b->module)
		return a->module < b->module ? -1 : 1;
	if (a->space != b->space)
		return a->space < b->space ? -1 : 1;
	return a->row < b->row ? -1 : a->row > b->row;
}

static bool has_figures(const struct bp_func_total *t)
{
	return t->calls || t->self_ns || t->self_insns || t->total_ns || t->total_insns;
}

/* Rows of one name become one function; func_of in the order of the rows. */
static struct bp_err *make_funcs(struct maker *m)
{
	const struct bp_rows *rows = &m->a->rows;
	struct bp_summary *s = m->s;
	bp_autofree struct by_name *names = calloc(rows->n + 1, sizeof(*names));
	size_t n = 0;

	m->func_of = malloc((rows->n + 1) * sizeof(*m->func_of));
	s->funcs = calloc(rows->n + 1, sizeof(*s->funcs));
	if (!names || !m->func_of || !s->funcs)
		return bp_err_nomem();
	memset(m->func_of, 0xff, (rows->n + 1) * sizeof(*m->func_of));
	for (size_t i = 0; i < rows->n; i++) {
		const struct bp_row *r = &rows->rows[i];
		char buf[BP_ROW_NAME_MAX];

		if (!has_figures(&m->functions.totals[i]) || !bp_row_shown(m->a, (uint32_t)i))
			continue;
		names[n] = (struct by_name){
		    .name = bp_summary_str(s, stable_name(r, buf)),
		    .module = bp_summary_str(s, r->module),
		    .space = r->space,
		    .row = (uint32_t)i,
		};
		if (!names[n].name || !names[n].module)
			return bp_err_nomem();
		n++;
	}
	qsort(names, n, sizeof(*names), compare_names);
	/* The lowest row of a name stands for it until all are known. */
	for (size_t i = 0, first = 0; i < n; i++) {
		if (i && (names[i].name != names[first].name || names[i].module != names[first].module ||
			  names[i].space != names[first].space))
			first = i;
		m->func_of[names[i].row] = names[first].row;
	}
	for (size_t i = 0; i < rows->n; i++) {
		const struct bp_func_total *t = &m->functions.totals[i];
		uint32_t to = m->func_of[i];
		struct bp_sum_func *f;

		if (to == BP_SUM_NONE)
			continue;
		if (to == i) {
			char buf[BP_ROW_NAME_MAX];

			m->func_of[i] = (uint32_t)s->n_funcs;
			s->funcs[s->n_funcs++] = (struct bp_sum_func){
			    .name = bp_summary_str(s, stable_name(&rows->rows[i], buf)),
			    .module = bp_summary_str(s, rows->rows[i].module),
			    .space = rows->rows[i].space,
			    .phase = BP_SUM_NONE,
			    .caller = BP_SUM_NONE,
			};
		} else {
			m->func_of[i] = m->func_of[to];
		}
		f = &s->funcs[m->func_of[i]];
		f->calls += t->calls;
		f->self_ns += (int64_t)t->self_ns;
		f->self_insns += (int64_t)t->self_insns;
		f->total_ns += (int64_t)t->total_ns;
		f->total_insns += (int64_t)t->total_insns;
		s->calls += t->calls;
		s->self_ns += (int64_t)t->self_ns;
		s->self_insns += (int64_t)t->self_insns;
	}
	return NULL;
}

static struct bp_err *make_nodes(struct maker *m)
{
	const struct bp_tree *from = &m->tree;
	struct bp_summary *s = m->s;
	bp_cleanup(bp_tree_deinit) struct bp_tree to = {0};
	bp_autofree uint32_t *node_of = malloc(from->n * sizeof(*node_of));
	struct bp_err *err = bp_tree_init(&to);

	if (err)
		return err;
	if (!node_of)
		return bp_err_nomem();
	node_of[0] = 0;
	for (uint32_t i = 1; i < from->n; i++) {
		const struct bp_tree_node *x = &from->nodes[i];
		uint32_t f = m->func_of[x->row], node = node_of[x->parent];

		/* A function that --module hides: its callees belong to its caller, its own time to nobody.
		 */
		node_of[i] = f == BP_SUM_NONE ? node : bp_tree_child(&to, node, f);
		if (f == BP_SUM_NONE)
			continue;
		to.nodes[node_of[i]].calls += x->calls;
		to.nodes[node_of[i]].self_ns += x->self_ns;
		to.nodes[node_of[i]].self_insns += x->self_insns;
	}
	if (to.failed)
		return bp_err_nomem();
	free(s->nodes);
	s->nodes = calloc(to.n, sizeof(*s->nodes));
	if (!s->nodes)
		return bp_err_nomem();
	s->n_nodes = to.n;
	for (uint32_t i = 0; i < to.n; i++)
		s->nodes[i] = (struct bp_sum_node){
		    .parent = to.nodes[i].parent,
		    .func = i ? to.nodes[i].row : BP_SUM_NONE,
		    .calls = to.nodes[i].calls,
		    .self_ns = (int64_t)to.nodes[i].self_ns,
		    .self_insns = (int64_t)to.nodes[i].self_insns,
		};
	return NULL;
}

static struct bp_err *make_phases(struct maker *m)
{
	const struct bp_analysis *a = m->a;
	struct bp_summary *s = m->s;

	s->phases = calloc(a->n_phases + 1, sizeof(*s->phases));
	if (!s->phases)
		return bp_err_nomem();
	for (size_t i = 0; i < a->n_phases; i++) {
		const struct bp_phase *from = &a->phases[i];
		const char *name = bp_summary_str(s, from->name);
		uint32_t at;

		if (!name)
			return bp_err_nomem();
		/* What QEMU does between the marker and its end is nobody's boot. */
		if (from->start_ns >= s->ns && i)
			break;
		at = bp_summary_phase(s, name);
		if (at == BP_SUM_NONE) {
			at = (uint32_t)s->n_phases++;
			s->phases[at].name = name;
		}
		s->phases[at].ns += from->end_ns - from->start_ns;
		s->phases[at].insns += from->end_insns - from->start_insns;
		s->phases[at].halted_ns += from->halted_ns;
	}
	return NULL;
}

/* Index of the summary's phase at a time. */
static uint32_t phase_at(const struct maker *m, uint64_t ns)
{
	const struct bp_analysis *a = m->a;

	for (size_t i = 0; i < a->n_phases; i++) {
		if (ns >= a->phases[i].start_ns && (ns < a->phases[i].end_ns || i + 1 == a->n_phases))
			return bp_summary_phase(m->s, a->phases[i].name);
	}
	return BP_SUM_NONE;
}

struct entry {
	uint64_t ns;
	uint32_t func, caller;
};

static int compare_entries(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;

	if (a->ns != b->ns)
		return a->ns < b->ns ? -1 : 1;
	return a->func < b->func ? -1 : a->func > b->func;
}

static struct bp_err *make_first(struct maker *m)
{
	struct bp_summary *s = m->s;
	size_t n_rows = m->a->rows.n, n = 0;
	bp_autofree struct entry *list = calloc(n_rows + 1, sizeof(*list));
	uint32_t order = 0;

	if (!list)
		return bp_err_nomem();
	for (size_t i = 0; i < n_rows; i++) {
		const struct bp_first_call *c = &m->first.first[i];

		if (m->func_of[i] == BP_SUM_NONE || c->wall_ns == UINT64_MAX)
			continue;
		list[n++] = (struct entry){
		    .ns = c->wall_ns,
		    .func = m->func_of[i],
		    .caller = c->caller < n_rows ? m->func_of[c->caller] : BP_SUM_NONE,
		};
	}
	qsort(list, n, sizeof(*list), compare_entries);
	for (size_t i = 0; i < n; i++) {
		struct bp_sum_func *f = &s->funcs[list[i].func];

		if (f->order)
			continue;
		f->order = ++order;
		f->first_ns = list[i].ns;
		f->caller = list[i].caller;
		f->phase = phase_at(m, list[i].ns);
	}
	return NULL;
}

static struct bp_err *make_modules(struct maker *m)
{
	struct bp_summary *s = m->s;
	size_t n, count = 0;
	const struct bp_fact *facts = bp_trace_facts(m->a->trace, &n);

	for (size_t i = 0; i < n; i++)
		count += facts[i].kind == BP_FACT_MODULE_LOAD || facts[i].kind == BP_FACT_MODULE_INIT;
	s->modules = calloc(count + 1, sizeof(*s->modules));
	if (!s->modules)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		const struct bp_fact *f = &facts[i];
		struct bp_sum_module *mod = NULL;

		if (f->kind != BP_FACT_MODULE_LOAD && f->kind != BP_FACT_MODULE_INIT)
			continue;
		for (size_t k = 0; k < s->n_modules && !mod; k++) {
			if (!strcmp(s->modules[k].name, f->s1))
				mod = &s->modules[k];
		}
		if (!mod) {
			mod = &s->modules[s->n_modules++];
			mod->name = bp_summary_str(s, f->s1);
			if (!mod->name)
				return bp_err_nomem();
			mod->phase = phase_at(m, f->time_ns);
		}
		if (f->kind == BP_FACT_MODULE_LOAD) {
			mod->loads++;
		} else {
			mod->init_ns += f->v[1] > f->v[0] ? f->v[1] - f->v[0] : 0;
			mod->init_insns += f->v[2];
		}
	}
	return NULL;
}

static struct bp_err *make_initcalls(struct maker *m)
{
	struct bp_summary *s = m->s;

	s->initcalls = calloc(m->phases.n_initcalls + 1, sizeof(*s->initcalls));
	if (!s->initcalls)
		return bp_err_nomem();
	for (size_t i = 0; i < m->phases.n_initcalls; i++) {
		const struct bp_initcall_time *x = &m->phases.initcalls[i];
		uint32_t f = x->row < m->a->rows.n ? m->func_of[x->row] : BP_SUM_NONE;

		if (f == BP_SUM_NONE)
			continue;
		s->initcalls[s->n_initcalls] = (struct bp_sum_initcall){
		    .func = f,
		    .level = bp_summary_str(s, x->level),
		    .ns = x->ns,
		    .insns = x->insns,
		};
		if (!s->initcalls[s->n_initcalls++].level)
			return bp_err_nomem();
	}
	return NULL;
}

static struct bp_err *make_syscalls(struct maker *m)
{
	struct bp_summary *s = m->s;

	s->syscalls = calloc(m->syscalls.n_sums + 1, sizeof(*s->syscalls));
	if (!s->syscalls)
		return bp_err_nomem();
	for (size_t i = 0; i < m->syscalls.n_sums; i++) {
		const struct bp_syscall_sum *x = &m->syscalls.sums[i];
		struct bp_sum_syscall *sys = NULL;
		char buf[32];
		const char *name = bp_summary_str(s, bp_syscall_name(x->nr, buf, sizeof(buf)));

		if (!name)
			return bp_err_nomem();
		for (size_t k = 0; k < s->n_syscalls && !sys; k++) {
			if (s->syscalls[k].name == name)
				sys = &s->syscalls[k];
		}
		if (!sys) {
			sys = &s->syscalls[s->n_syscalls++];
			sys->name = name;
		}
		sys->calls += x->calls;
		sys->ns += (int64_t)x->cpu_ns;
		sys->wall_ns += (int64_t)x->wall_ns;
		sys->insns += (int64_t)x->insns;
	}
	return NULL;
}

static uint64_t parse_start(const char *text)
{
	struct tm tm = {0};
	time_t t;

	if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm))
		return 0;
	t = timegm(&tm);
	return t > 0 ? (uint64_t)t : 0;
}

static struct bp_err *make_meta(struct maker *m)
{
	struct bp_summary *s = m->s;
	const struct bp_trace *t = m->a->trace;
	const struct bp_trace_damage *d = bp_trace_damage(t);
	const struct bp_query *q = m->a->query;
	const char *command = bp_trace_info(t, "command_line"), *det = bp_trace_info(t, "deterministic");
	const struct bp_fact *facts;
	struct bp_err *err;
	size_t n;

	s->kernel = bp_summary_str(s, bp_trace_info(t, "kernel_release"));
	s->build_id = bp_summary_str(s, bp_trace_info(t, "kernel_build_id"));
	s->qemu = bp_summary_str(s, bp_trace_info(t, "qemu_version"));
	s->deterministic = det && !strcmp(det, "yes");
	s->imported = bp_trace_info(t, "import_format") != NULL;
	s->start = parse_start(bp_trace_info(t, "start_time"));
	s->damaged = d->unfinished || d->bad_chunks || d->missing_chunks || d->lost_bytes;
	s->filtered =
	    q->in || q->out || q->modules || q->processes || q->has_vcpus || q->depth || q->from || q->to;
	facts = bp_trace_facts(t, &n);
	s->ns = m->a->end_ns;
	s->insns = m->a->end_insns;
	for (size_t i = 0; i < n; i++) {
		const struct bp_fact *f = &facts[i];

		if (f->kind == BP_FACT_VCPU && f->vcpu != UINT16_MAX && f->vcpu >= s->smp)
			s->smp = f->vcpu + 1u;
		else if (f->kind == BP_FACT_END)
			s->ended = bp_summary_str(s, f->s1);
		else if (f->kind == BP_FACT_LOST)
			s->lost += f->v[0];
		else if (f->kind == BP_FACT_MARK && !strcmp(f->s1, "ready") && f->time_ns < s->ns) {
			s->ns = f->time_ns;
			s->insns = f->v[0];
		}
	}
	if (!s->kernel || !s->build_id || !s->qemu || !s->ended)
		return bp_err_nomem();
	err = command ? split_command(s, command) : NULL;
	if (err)
		return err;
	s->kernel_ns = s->ns;
	s->kernel_insns = s->insns;
	for (size_t i = 0; i < m->a->n_phases; i++) {
		const struct bp_phase *p = &m->a->phases[i];

		if (strcmp(p->name, "kernel-start") || p->start_ns > s->ns || p->start_insns > s->insns)
			continue;
		s->kernel_ns = s->ns - p->start_ns;
		s->kernel_insns = s->insns - p->start_insns;
		break;
	}
	return NULL;
}

static struct bp_err *walk(struct maker *m)
{
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	const struct bp_walk_part parts[] = {
	    {&bp_tree_ops, &m->tree},         {&bp_functions_ops, &m->functions},
	    {&bp_first_calls_ops, &m->first}, {&bp_syscalls_ops, &m->syscalls},
	    {&bp_phase_walk_ops, &m->phases},
	};
	struct bp_err *err = bp_tree_init(&m->tree);

	if (!err)
		err = bp_functions_init(&m->functions, m->a, false);
	if (!err)
		err = bp_first_calls_init(&m->first, m->a);
	if (!err)
		err = bp_syscalls_init(&m->syscalls, m->a, false);
	if (!err)
		err = bp_phase_walk_init(&m->phases, m->a);
	if (!err)
		err = bp_analysis_walk(m->a, &w);
	if (!err)
		err = bp_walk_run_all(w, parts, BP_ARRAY_SIZE(parts));
	if (err)
		return err;
	if (m->tree.failed || m->syscalls.failed || m->phases.failed)
		return bp_err_nomem();
	bp_analysis_walked(m->a, w);
	return bp_functions_finish(&m->functions);
}

struct bp_err *bp_summary_create(const struct bp_trace *trace, const struct bp_query *query,
				 struct bp_summary **ret)
{
	static const struct bp_query none;
	bp_cleanup(maker_deinit) struct maker m = {0};
	bp_cleanup(bp_summary_destroyp) struct bp_summary *s = NULL;
	bp_cleanup(bp_analysis_destroyp) struct bp_analysis *a = NULL;
	struct bp_err *err = bp_summary_new(bp_trace_path(trace), &s);

	if (!err)
		err = bp_analysis_create(trace, query ? query : &none, &a);
	if (err)
		return err;
	m.s = s;
	m.a = a;
	err = walk(&m);
	if (!err)
		err = make_meta(&m);
	if (!err)
		err = make_phases(&m);
	if (!err)
		err = make_funcs(&m);
	if (!err)
		err = make_nodes(&m);
	if (!err)
		err = make_first(&m);
	if (!err)
		err = make_modules(&m);
	if (!err)
		err = make_initcalls(&m);
	if (!err)
		err = make_syscalls(&m);
	if (err)
		return err;
	s->lost = s->lost ? s->lost : a->stats.lost_records;
	s->damaged |= a->stats.damaged_blocks != 0;
	*ret = bp_steal(s);
	return NULL;
}

/* ---- pruning ---- */

struct share {
	double share;
	uint32_t node;
};

static int compare_shares(const void *x, const void *y)
{
	const struct share *a = x, *b = y;

	if (a->share != b->share)
		return a->share > b->share ? -1 : 1;
	return a->node < b->node ? -1 : a->node > b->node;
}

struct bp_err *bp_summary_prune(struct bp_summary *s, size_t max)
{
	size_t n = s->n_nodes, kept = 1;
	bp_autofree int64_t *ns = malloc(n * sizeof(*ns)), *insns = malloc(n * sizeof(*insns));
	bp_autofree struct share *order = malloc(n * sizeof(*order));
	bp_autofree uint32_t *to = malloc(n * sizeof(*to));

	if (n <= max + 1)
		return NULL;
	if (!ns || !insns || !order || !to)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		ns[i] = s->nodes[i].self_ns + s->nodes[i].rest_ns;
		insns[i] = s->nodes[i].self_insns + s->nodes[i].rest_insns;
	}
	for (size_t i = n - 1; i > 0; i--) {
		ns[s->nodes[i].parent] += ns[i];
		insns[s->nodes[i].parent] += insns[i];
	}
	for (size_t i = 0; i < n; i++) {
		double a = ns[0] > 0 ? (double)ns[i] / (double)ns[0] : 0;
		double b = insns[0] > 0 ? (double)insns[i] / (double)insns[0] : 0;

		/* The root before all. */
		order[i] = (struct share){i ? (a > b ? a : b) : 1e9, (uint32_t)i};
	}
	qsort(order, n, sizeof(*order), compare_shares);
	memset(to, 0xff, n * sizeof(*to));
	for (size_t i = 0; i <= max; i++)
		to[order[i].node] = 0;
	if (order[max + 1].share * (double)ns[0] > (double)s->least_ns)
		s->least_ns = (int64_t)(order[max + 1].share * (double)ns[0]);
	if (order[max + 1].share * (double)insns[0] > (double)s->least_insns)
		s->least_insns = (int64_t)(order[max + 1].share * (double)insns[0]);
	/* A child of what is left out is left out, also when both have the same share. */
	for (size_t i = 1; i < n; i++) {
		struct bp_sum_node x = s->nodes[i];
		uint32_t parent = to[x.parent];

		if (to[i] == BP_SUM_NONE || parent == BP_SUM_NONE) {
			to[i] = BP_SUM_NONE;
			if (parent != BP_SUM_NONE) {
				s->nodes[parent].rest_ns += ns[i];
				s->nodes[parent].rest_insns += insns[i];
			}
			continue;
		}
		x.parent = parent;
		to[i] = (uint32_t)kept;
		s->nodes[kept++] = x;
	}
	s->n_nodes = kept;
	s->pruned = true;
	return NULL;
}
