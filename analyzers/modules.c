// SPDX-License-Identifier: GPL-2.0-or-later
/* Kernel modules in the order of loading, and time by module (of the kernel, firmware, user files too). */
#include <stdlib.h>
#include <string.h>

#include "analyzers/functions.h"
#include "core/cleanup.h"

struct load {
	const char *name;
	uint64_t load_ns, base, bytes, task;
	uint64_t init_start, init_end, init_insns;
	uint64_t unload_ns;
	bool has_init, unloaded;
	size_t sum; /* index into sums, SIZE_MAX: none */
};

/* Figures of all functions with one module name. */
struct sum {
	const char *name;
	uint8_t space;
	uint64_t functions, calls, self_ns, self_insns;
};

struct modules {
	struct bp_analysis *a;
	struct load *loads;
	size_t n_loads;
	struct sum *sums;
	size_t n_sums;
	double all_ns, all_insns;
};

static void deinit(struct modules *m)
{
	free(m->loads);
	free(m->sums);
}

/* The load of @name that is the latest by now; a module can be loaded again. */
static struct load *latest(struct modules *m, const char *name)
{
	for (size_t i = m->n_loads; i-- > 0;) {
		if (!strcmp(m->loads[i].name, name))
			return &m->loads[i];
	}
	return NULL;
}

static struct bp_err *read_facts(struct modules *m)
{
	size_t n, count = 0;
	const struct bp_fact *facts = bp_trace_facts(m->a->trace, &n);

	for (size_t i = 0; i < n; i++)
		count += facts[i].kind == BP_FACT_MODULE_LOAD || facts[i].kind == BP_FACT_MODULE_INIT;
	m->loads = calloc(count + 1, sizeof(*m->loads));
	if (!m->loads)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		const struct bp_fact *f = &facts[i];
		struct load *l;

		switch (f->kind) {
		case BP_FACT_MODULE_LOAD:
			m->loads[m->n_loads++] = (struct load){
			    .name = f->s1,
			    .load_ns = f->time_ns,
			    .base = f->v[0],
			    .bytes = f->v[1],
			    .task = f->v[2],
			    .sum = SIZE_MAX,
			};
			break;
		case BP_FACT_MODULE_INIT:
			l = latest(m, f->s1);
			if (!l || l->has_init) {
				l = &m->loads[m->n_loads++];
				*l = (struct load){
				    .name = f->s1, .load_ns = f->v[0], .task = f->v[3], .sum = SIZE_MAX};
			}
			l->has_init = true;
			l->init_start = f->v[0];
			l->init_end = f->v[1];
			l->init_insns = f->v[2];
			break;
		case BP_FACT_MODULE_UNLOAD:
			l = latest(m, f->s1);
			if (l) {
				l->unloaded = true;
				l->unload_ns = f->time_ns;
			}
			break;
		default:
			break;
		}
	}
	return NULL;
}

struct by_module {
	const struct bp_row *row;
	const struct bp_func_total *total;
};

static int compare_module(const void *x, const void *y)
{
	const struct by_module *a = x, *b = y;
	int c = strcmp(a->row->module, b->row->module);

	return c ? c : (int)a->row->space - (int)b->row->space;
}

static struct bp_err *sum_functions(struct modules *m, const struct bp_functions *f)
{
	bp_autofree struct by_module *list = malloc((f->n_rows + 1) * sizeof(*list));
	size_t n = 0;

	m->sums = calloc(f->n_rows + 1, sizeof(*m->sums));
	if (!list || !m->sums)
		return bp_err_nomem();
	for (size_t i = 0; i < f->n_rows; i++) {
		const struct bp_func_total *t = &f->totals[i];

		if (t->calls || t->self_ns || t->self_insns)
			list[n++] = (struct by_module){&m->a->rows.rows[i], t};
	}
	qsort(list, n, sizeof(*list), compare_module);
	for (size_t i = 0; i < n; i++) {
		struct sum *s;

		if (!i || compare_module(&list[i], &list[i - 1]))
			m->sums[m->n_sums++] =
			    (struct sum){.name = list[i].row->module, .space = list[i].row->space};
		s = &m->sums[m->n_sums - 1];
		s->functions++;
		s->calls += list[i].total->calls;
		s->self_ns += list[i].total->self_ns;
		s->self_insns += list[i].total->self_insns;
		m->all_ns += (double)(int64_t)list[i].total->self_ns;
		m->all_insns += (double)(int64_t)list[i].total->self_insns;
	}
	for (size_t i = 0; i < m->n_loads; i++) {
		for (size_t k = 0; k < m->n_sums; k++) {
			if (m->sums[k].space == BP_SPACE_MODULE && !strcmp(m->sums[k].name, m->loads[i].name))
				m->loads[i].sum = k;
		}
	}
	return NULL;
}

enum {
	M_LOAD,
	M_NAME,
	M_INIT,
	M_INIT_INSNS,
	M_INIT_START,
	M_INIT_END,
	M_SELF,
	M_SELF_INSNS,
	M_CALLS,
	M_BYTES,
	M_BASE,
	M_PROCESS,
	M_PID,
	M_PARENT,
	M_UNLOAD,
};

static const struct bp_field load_fields[] = {
    [M_LOAD] = {"time_ns", "LOADED", BP_COL_NS, false},
    [M_NAME] = {"name", "MODULE", BP_COL_STR, false},
    [M_INIT] = {"init_ns", "INIT", BP_COL_NS, false},
    [M_INIT_INSNS] = {"init_insns", "INIT INSNS", BP_COL_INSNS, false},
    [M_INIT_START] = {"init_start_ns", "INIT AT", BP_COL_NS, false},
    [M_INIT_END] = {"init_end_ns", "INIT END", BP_COL_NS, false},
    [M_SELF] = {"self_ns", "SELF", BP_COL_NS, false},
    [M_SELF_INSNS] = {"self_insns", "SELF INSNS", BP_COL_INSNS, false},
    [M_CALLS] = {"calls", "CALLS", BP_COL_COUNT, false},
    [M_BYTES] = {"text_bytes", "BYTES", BP_COL_COUNT, false},
    [M_BASE] = {"base", "ADDRESS", BP_COL_HEX, false},
    [M_PROCESS] = {"process", "LOADED BY", BP_COL_STR, false},
    [M_PID] = {"pid", "PID", BP_COL_COUNT, false},
    [M_PARENT] = {"parent", "PARENT", BP_COL_STR, false},
    [M_UNLOAD] = {"unload_ns", "UNLOADED", BP_COL_NS, false},
};

static void load_cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct modules *m = ctx;
	const struct load *l = &m->loads[row];
	const struct sum *s = l->sum != SIZE_MAX ? &m->sums[l->sum] : NULL;
	const struct bp_task_info *t = bp_analysis_task(m->a, l->task);

	switch (field) {
	case M_LOAD:
		bp_cell_int(c, l->load_ns);
		break;
	case M_NAME:
		bp_cell_str(c, l->name);
		break;
	case M_INIT:
		if (l->has_init)
			bp_cell_int(c, l->init_end - l->init_start);
		break;
	case M_INIT_INSNS:
		if (l->has_init)
			bp_cell_int(c, l->init_insns);
		break;
	case M_INIT_START:
		if (l->has_init)
			bp_cell_int(c, l->init_start);
		break;
	case M_INIT_END:
		if (l->has_init)
			bp_cell_int(c, l->init_end);
		break;
	case M_SELF:
		bp_cell_int(c, s ? s->self_ns : 0);
		break;
	case M_SELF_INSNS:
		bp_cell_int(c, s ? s->self_insns : 0);
		break;
	case M_CALLS:
		bp_cell_int(c, s ? s->calls : 0);
		break;
	case M_BYTES:
		if (l->bytes)
			bp_cell_int(c, l->bytes);
		break;
	case M_BASE:
		if (l->base)
			bp_cell_int(c, l->base);
		break;
	case M_PROCESS:
		if (t->known)
			bp_cell_str(c, bp_analysis_task_name(m->a, l->task, c->buf));
		break;
	case M_PID:
		if (bp_task_has_pid(t))
			bp_cell_int(c, t->pid);
		break;
	case M_PARENT:
		if (t->parent != UINT64_MAX && bp_analysis_task(m->a, t->parent)->known)
			bp_cell_str(c, bp_analysis_task_name(m->a, t->parent, c->buf));
		break;
	case M_UNLOAD:
		if (l->unloaded)
			bp_cell_int(c, l->unload_ns);
		break;
	default:
		break;
	}
}

enum { S_NAME, S_SPACE, S_SELF, S_SELF_PCT, S_SELF_INSNS, S_SELF_INSNS_PCT, S_CALLS, S_FUNCTIONS };

static const struct bp_field sum_fields[] = {
    [S_NAME] = {"name", "MODULE", BP_COL_STR, false},
    [S_SPACE] = {"space", "SPACE", BP_COL_STR, false},
    [S_SELF] = {"self_ns", "SELF", BP_COL_NS, false},
    [S_SELF_PCT] = {"self_pct", "SELF%", BP_COL_PERCENT, false},
    [S_SELF_INSNS] = {"self_insns", "SELF INSNS", BP_COL_INSNS, false},
    [S_SELF_INSNS_PCT] = {"self_insns_pct", "SELF%", BP_COL_PERCENT, false},
    [S_CALLS] = {"calls", "CALLS", BP_COL_COUNT, false},
    [S_FUNCTIONS] = {"functions", "FUNCTIONS", BP_COL_COUNT, false},
};

static void sum_cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct modules *m = ctx;
	const struct sum *s = &m->sums[row];

	switch (field) {
	case S_NAME:
		bp_cell_str(c, *s->name ? s->name : "[none]");
		break;
	case S_SPACE:
		bp_cell_str(c, bp_space_name(s->space));
		break;
	case S_SELF:
		bp_cell_int(c, s->self_ns);
		break;
	case S_SELF_PCT:
		bp_cell_pct(c, (double)(int64_t)s->self_ns, m->all_ns);
		break;
	case S_SELF_INSNS:
		bp_cell_int(c, s->self_insns);
		break;
	case S_SELF_INSNS_PCT:
		bp_cell_pct(c, (double)(int64_t)s->self_insns, m->all_insns);
		break;
	case S_CALLS:
		bp_cell_int(c, s->calls);
		break;
	case S_FUNCTIONS:
		bp_cell_int(c, s->functions);
		break;
	default:
		break;
	}
}

static struct bp_err *modules_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(bp_functions_deinitp) struct bp_functions f = {0};
	bp_cleanup(deinit) struct modules m = {.a = a};
	struct bp_view_table loads = {
	    .id = "modules",
	    .title = "Kernel modules in the order of loading",
	    .fields = load_fields,
	    .n_fields = BP_ARRAY_SIZE(load_fields),
	    .text_time =
		"time_ns,init_ns,init_insns,self_ns,self_insns,calls,text_bytes,name,process,pid,parent",
	    .text_insns =
		"time_ns,init_insns,init_ns,self_insns,self_ns,calls,text_bytes,name,process,pid,parent",
	    .cell = load_cell,
	    .ctx = &m,
	    .main = true,
	};
	struct bp_view_table sums = {
	    .id = "code",
	    .title = "Time by file: kernel, modules, firmware, programs",
	    .fields = sum_fields,
	    .n_fields = BP_ARRAY_SIZE(sum_fields),
	    .text_time = "self_ns,self_pct,self_insns,calls,functions,space,name",
	    .text_insns = "self_insns,self_insns_pct,self_ns,calls,functions,space,name",
	    .sort_time = "self_ns",
	    .sort_insns = "self_insns",
	    .cell = sum_cell,
	    .ctx = &m,
	};
	struct bp_err *err = bp_functions_init(&f, a, false);

	if (!err)
		err = bp_functions_walk(&f);
	if (!err)
		err = read_facts(&m);
	if (!err)
		err = sum_functions(&m, &f);
	if (err)
		return err;
	if (a->query->modules) {
		size_t n = 0;

		for (size_t i = 0; i < m.n_loads; i++) {
			if (bp_patterns_match_module(a->query->modules, m.loads[i].name))
				m.loads[n++] = m.loads[i];
		}
		m.n_loads = n;
		n = 0;
		for (size_t i = 0; i < m.n_sums; i++) {
			if (bp_patterns_match_module(a->query->modules, m.sums[i].name))
				m.sums[n++] = m.sums[i];
		}
		for (size_t i = 0; i < m.n_loads; i++)
			m.loads[i].sum = SIZE_MAX;
		for (size_t i = 0; i < m.n_loads; i++) {
			for (size_t k = 0; k < n; k++) {
				if (m.sums[k].space == BP_SPACE_MODULE &&
				    !strcmp(m.sums[k].name, m.loads[i].name))
					m.loads[i].sum = k;
			}
		}
		m.n_sums = n;
	}
	loads.n_rows = m.n_loads;
	sums.n_rows = m.n_sums;
	bp_view_title(a, r, "Modules");
	if (!m.n_loads)
		bp_report_note(r, "no kernel module was seen loading");
	err = bp_view_add(a, r, &loads);
	if (err)
		return err;
	return bp_view_add(a, r, &sums);
}

const struct bp_view bp_view_modules = {
    .name = "modules",
    .summary = "kernel modules in load order: init time, who loaded them; time by file",
    .run = modules_run,
};
