// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "analyzers/view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/phases.h"
#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/units.h"
#include "core/waits.h"
#include "symbols/lines.h"

#define MAX_FIELDS 40

struct bp_analysis_private {
	struct bp_lines *lines;
	char *line; /* result of bp_analysis_line() */
	uint8_t *match;
	struct bp_col **cols; /* columns of tables, which reports borrow */
	size_t n_cols;
	char *vmlinux;
};

/* ---- tasks ---- */

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static struct bp_task_info *find_task(const struct bp_analysis *a, uint64_t id)
{
	uint32_t key = (uint32_t)id, *at;

	if (id > UINT32_MAX || !a->n_tasks)
		return NULL;
	at = bsearch(&key, a->task_ids, a->n_tasks, sizeof(key), compare_u32);
	return at ? &a->tasks[at - a->task_ids] : NULL;
}

static struct bp_err *load_tasks(struct bp_analysis *a)
{
	size_t n, count = 0;
	const struct bp_fact *facts = bp_trace_facts(a->trace, &n);

	for (size_t i = 0; i < n; i++)
		count += facts[i].kind == BP_FACT_TASK && facts[i].v[0] <= UINT32_MAX;
	a->task_ids = malloc((count + 1) * sizeof(*a->task_ids));
	a->tasks = calloc(count + 1, sizeof(*a->tasks));
	if (!a->task_ids || !a->tasks)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind == BP_FACT_TASK && facts[i].v[0] <= UINT32_MAX)
			a->task_ids[a->n_tasks++] = (uint32_t)facts[i].v[0];
	}
	qsort(a->task_ids, a->n_tasks, sizeof(*a->task_ids), compare_u32);
	count = 0;
	for (size_t i = 0; i < a->n_tasks; i++) {
		if (!i || a->task_ids[i] != a->task_ids[i - 1])
			a->task_ids[count++] = a->task_ids[i];
	}
	a->n_tasks = count;
	for (size_t i = 0; i < n; i++) {
		const struct bp_fact *f = &facts[i];
		struct bp_task_info *t;

		if (f->kind != BP_FACT_TASK && f->kind != BP_FACT_TASK_PARENT && f->kind != BP_FACT_TASK_END)
			continue;
		t = find_task(a, f->v[0]);
		if (!t)
			continue;
		switch (f->kind) {
		case BP_FACT_TASK:
			if (!t->known) {
				t->parent = UINT64_MAX;
				t->first_ns = f->time_ns;
			}
			t->known = true;
			t->pid = (uint32_t)f->v[1];
			t->tgid = (uint32_t)f->v[2];
			t->flags = (uint32_t)f->v[3];
			t->comm = f->s1;
			t->file = f->s2;
			break;
		case BP_FACT_TASK_PARENT:
			t->parent = f->v[1];
			break;
		default:
			t->ended = true;
			t->end_ns = f->time_ns;
			t->exit_code = f->v[1];
			break;
		}
	}
	return NULL;
}

const struct bp_task_info *bp_analysis_task(const struct bp_analysis *a, uint64_t id)
{
	static const struct bp_task_info unknown = {.comm = "", .file = "", .parent = UINT64_MAX};
	const struct bp_task_info *t = find_task(a, id);

	return t && t->known ? t : &unknown;
}

const char *bp_analysis_task_name(const struct bp_analysis *a, uint64_t id, char buf[BP_TASK_NAME_MAX])
{
	const struct bp_task_info *t = bp_analysis_task(a, id);

	if (*t->comm)
		return t->comm;
	if (t->flags & BP_TASK_BOOT)
		return "[boot]";
	snprintf(buf, BP_TASK_NAME_MAX, "task %" PRIu64, id);
	return buf;
}

static bool task_matches(const struct bp_analysis *a, const struct bp_patterns *p, uint64_t id)
{
	const struct bp_task_info *t = bp_analysis_task(a, id);
	char buf[BP_TASK_NAME_MAX], pid[16];

	if (bp_patterns_match(p, bp_analysis_task_name(a, id, buf), NULL))
		return true;
	if (*t->file && bp_patterns_match_module(p, t->file))
		return true;
	if (!t->known || t->flags & BP_TASK_BOOT)
		return false;
	snprintf(pid, sizeof(pid), "%" PRIu32, t->pid);
	if (bp_patterns_match(p, pid, NULL))
		return true;
	snprintf(pid, sizeof(pid), "%" PRIu32, t->tgid);
	return bp_patterns_match(p, pid, NULL);
}

static bool task_ok(void *arg, uint32_t id)
{
	const struct bp_analysis *a = arg;

	return task_matches(a, a->query->processes, id);
}

/* ---- filters ---- */

static struct bp_err *point_in_time(const struct bp_analysis *a, const char *text, const char *option,
				    bool end, uint64_t *ret)
{
	uint64_t first, last;

	if (bp_parse_time(text, 1e9, ret))
		return NULL;
	if (bp_phases_find(a, text, &first, &last)) {
		*ret = end ? last : first;
		return NULL;
	}
	if (bp_phases_mark(a, text, ret))
		return NULL;
	return bp_err_new(BP_EUSAGE, "%s: '%s' is no time (1.5s, 200ms), phase or mark of this recording",
			  option, text);
}

static struct bp_err *make_match(struct bp_analysis *a)
{
	const struct bp_query *q = a->query;
	size_t n_in = 0;
	uint8_t *match;

	if (!q->in && !q->out)
		return NULL;
	match = a->priv->match = calloc(a->rows.n + 1, 1);
	if (!match)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++) {
		const struct bp_row *row = &a->rows.rows[i];
		char buf[BP_ROW_NAME_MAX];
		const char *name = bp_row_name(&a->rows, (uint32_t)i, buf);

		if (bp_patterns_match(q->in, name, row->module)) {
			match[i] |= BP_MATCH_IN;
			n_in++;
		}
		if (bp_patterns_match(q->out, name, row->module))
			match[i] |= BP_MATCH_OUT;
	}
	if (q->in && !n_in)
		return bp_err_new(BP_EUSAGE, "no function of this recording matches -F");
	a->walk.match = match;
	a->walk.has_in = q->in != NULL;
	return NULL;
}

static struct bp_err *make_row_shown(struct bp_analysis *a)
{
	size_t n = 0;

	if (!a->query->modules)
		return NULL;
	a->row_shown = calloc(a->rows.n + 1, sizeof(*a->row_shown));
	if (!a->row_shown)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++) {
		a->row_shown[i] = bp_patterns_match_module(a->query->modules, a->rows.rows[i].module);
		n += a->row_shown[i];
	}
	if (!n)
		return bp_err_new(BP_EUSAGE, "no module of this recording matches --module");
	return NULL;
}

static bool thread_matches(const struct bp_trace *t, const struct bp_patterns *p)
{
	size_t n;
	const struct bp_fact *f = bp_trace_facts(t, &n);

	for (size_t i = 0; i < n; i++) {
		char number[24];

		if (f[i].kind != BP_FACT_THREAD)
			continue;
		snprintf(number, sizeof(number), "%" PRIu64, f[i].v[0]);
		if (bp_patterns_match(p, f[i].s1, NULL) || bp_patterns_match(p, number, NULL))
			return true;
	}
	return false;
}

static struct bp_err *make_filters(struct bp_analysis *a)
{
	const struct bp_query *q = a->query;
	struct bp_err *err = NULL;

	a->walk.row_of = a->rows.row_of;
	a->walk.max_depth = q->depth;
	if (q->has_vcpus)
		a->walk.vcpus = q->vcpus;
	if (q->from)
		err = point_in_time(a, q->from, "--from", false, &a->walk.from_ns);
	if (!err && q->to)
		err = point_in_time(a, q->to, "--to", true, &a->walk.to_ns);
	if (!err && q->to && !a->walk.to_ns)
		a->walk.to_ns = 1;
	if (!err && q->to && a->walk.to_ns < a->walk.from_ns)
		err = bp_err_new(BP_EUSAGE, "--to is before --from");
	if (!err)
		err = make_match(a);
	if (!err)
		err = make_row_shown(a);
	if (err || !q->processes)
		return err;
	for (size_t i = 0; i < a->n_tasks; i++) {
		if (task_matches(a, q->processes, a->task_ids[i])) {
			a->walk.task_ok = task_ok;
			a->walk.arg = a;
			return NULL;
		}
	}
	/* Threads of the host are for the views of waits to choose from; in others, nothing is left. */
	if (thread_matches(a->trace, q->processes)) {
		a->walk.task_ok = task_ok;
		a->walk.arg = a;
		return NULL;
	}
	return bp_err_new(BP_EUSAGE, "no process of this recording matches --process");
}

/* ---- source lines ---- */

static struct bp_err *open_lines(struct bp_analysis *a)
{
	const char *id = bp_trace_info(a->trace, "kernel_build_id");
	const char *release = bp_trace_info(a->trace, "kernel_release");
	const char *path = a->query->vmlinux;
	struct bp_err *err;

	if (!a->query->lines)
		return NULL;
	if (!path) {
		if (!id || !*id)
			return bp_err_new(BP_EUSAGE, "--lines: the recording does not say which kernel ran; "
						     "give its debug kernel with --vmlinux");
		err = bp_debug_vmlinux_find(id, release ? release : "", &a->priv->vmlinux);
		if (err)
			return err;
		path = a->priv->vmlinux;
		if (!path)
			return bp_err_new(BP_EUSAGE,
					  "--lines: no debug kernel with build-id %s is installed; "
					  "give one with --vmlinux",
					  id);
	}
	return bp_lines_open(path, id && *id ? id : NULL, &a->priv->lines);
}

const char *bp_analysis_line(struct bp_analysis *a, uint32_t row)
{
	struct bp_analysis_private *p = a->priv;
	const struct bp_row *r;
	const char *file;
	int line;

	if (!p->lines || row >= a->rows.n)
		return NULL;
	r = &a->rows.rows[row];
	if (r->space != BP_SPACE_KERNEL || !*r->name || !bp_lines_find(p->lines, r->addr, &file, &line))
		return NULL;
	free(p->line);
	if (asprintf(&p->line, "%s:%d", file, line) < 0)
		p->line = NULL;
	return p->line;
}

/* ---- life ---- */

struct bp_err *bp_analysis_create(const struct bp_trace *trace, const struct bp_query *query,
				  struct bp_analysis **ret)
{
	bp_cleanup(bp_analysis_destroyp) struct bp_analysis *a = calloc(1, sizeof(*a));
	struct bp_err *err;

	if (!a)
		return bp_err_nomem();
	a->trace = trace;
	a->query = query;
	a->priv = calloc(1, sizeof(*a->priv));
	if (!a->priv)
		return bp_err_nomem();
	err = bp_rows_init(&a->rows, trace);
	if (!err)
		err = load_tasks(a);
	if (!err)
		err = bp_phases_build(a);
	if (!err)
		err = make_filters(a);
	if (!err)
		err = open_lines(a);
	if (err)
		return err;
	*ret = bp_steal(a);
	return NULL;
}

struct bp_err *bp_analysis_create_bare(const struct bp_query *query, struct bp_analysis **ret)
{
	bp_cleanup(bp_analysis_destroyp) struct bp_analysis *a = calloc(1, sizeof(*a));

	if (!a)
		return bp_err_nomem();
	a->query = query;
	a->priv = calloc(1, sizeof(*a->priv));
	if (!a->priv)
		return bp_err_nomem();
	*ret = bp_steal(a);
	return NULL;
}

void bp_analysis_destroy(struct bp_analysis *a)
{
	if (!a)
		return;
	if (a->priv) {
		for (size_t i = 0; i < a->priv->n_cols; i++)
			free(a->priv->cols[i]);
		free(a->priv->cols);
		free(a->priv->match);
		free(a->priv->line);
		free(a->priv->vmlinux);
		bp_lines_destroy(a->priv->lines);
		free(a->priv);
	}
	bp_rows_deinit(&a->rows);
	free(a->row_shown);
	free(a->phases);
	free(a->tasks);
	free(a->task_ids);
	free(a->damage_text);
	free(a);
}

struct bp_err *bp_analysis_walk(struct bp_analysis *a, struct bp_walk **ret)
{
	return bp_walk_create(a->trace, &a->walk, ret);
}

void bp_analysis_walked(struct bp_analysis *a, const struct bp_walk *w)
{
	const char *text = bp_walk_damage_text(w);

	a->stats = w->stats;
	a->walked = true;
	free(a->damage_text);
	a->damage_text = text ? strdup(text) : NULL;
}

/* ---- tables ---- */

/* Number of the field called @name (of @len bytes), with the clock's ending if it has none; -1 if none. */
static int field_index(const struct bp_view_table *t, const char *name, size_t len, enum bp_clock clock)
{
	static const char *const endings[2][4] = {
	    [BP_CLOCK_TIME] = {"", "_ns", "_insns", "_pct"},
	    [BP_CLOCK_INSNS] = {"", "_insns", "_ns", "_pct"},
	};

	for (size_t e = 0; e < 4; e++) {
		const char *ending = endings[clock][e];

		for (size_t i = 0; i < t->n_fields; i++) {
			const char *id = t->fields[i].id;

			if (!strncmp(id, name, len) && !strcmp(id + len, ending))
				return (int)i;
		}
	}
	return -1;
}

static struct bp_err *no_field(const struct bp_view_table *t, const char *option, const char *name,
			       size_t len)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;

	for (size_t i = 0; i < t->n_fields; i++)
		bp_strbuf_addf(&sb, "%s%s", i ? ", " : "", t->fields[i].id);
	return bp_err_new(BP_EUSAGE, "%s: there is no column '%.*s'; there are %s", option, (int)len, name,
			  bp_strbuf_str(&sb));
}

/* Appends the fields named in @list to @order, which has @n of them. */
static struct bp_err *add_fields(const struct bp_view_table *t, const char *list, enum bp_clock clock,
				 int *order, size_t *n)
{
	while (*list) {
		size_t len = strcspn(list, ",");
		const char *name = list + (*list == '+');
		size_t name_len = len - (*list == '+');
		int f = field_index(t, name, name_len, clock);
		bool there = false;

		if (f < 0)
			return no_field(t, "-f", name, name_len);
		for (size_t i = 0; i < *n; i++)
			there |= order[i] == f;
		if (!there && *n < MAX_FIELDS)
			order[(*n)++] = f;
		list += len;
		list += *list == ',';
	}
	return NULL;
}

struct sort {
	const struct bp_view_table *t;
	size_t field;
	bool text;
	const double *keys;
};

static int compare_rows(const void *x, const void *y, void *arg)
{
	const struct sort *s = arg;
	size_t a = *(const size_t *)x, b = *(const size_t *)y;

	if (s->text) {
		struct bp_cell ca = {0}, cb = {0};
		int c;

		s->t->cell(s->t->ctx, a, s->field, &ca);
		s->t->cell(s->t->ctx, b, s->field, &cb);
		c = strcmp(ca.kind == BP_CELL_STR && ca.str ? ca.str : "",
			   cb.kind == BP_CELL_STR && cb.str ? cb.str : "");
		if (c)
			return c;
	} else if (s->keys[a] != s->keys[b]) {
		return s->keys[a] < s->keys[b] ? 1 : -1;
	}
	return (a > b) - (a < b);
}

static struct bp_err *sort_rows(struct bp_analysis *a, const struct bp_view_table *t, size_t *index)
{
	enum bp_clock clock = a->query->clock;
	const char *by = clock == BP_CLOCK_TIME ? t->sort_time : t->sort_insns;
	const char *asked = t->main && !t->fixed_order ? a->query->sort : NULL;
	struct sort s = {.t = t};
	bp_autofree double *keys = NULL;
	int field;

	if (asked)
		by = asked;
	for (size_t i = 0; i < t->n_rows; i++)
		index[i] = i;
	if (!by)
		return NULL;
	field = field_index(t, by, strlen(by), clock);
	if (field < 0)
		return no_field(t, "-s", by, strlen(by));
	s.field = (size_t)field;
	s.text = t->fields[field].type == BP_COL_STR;
	if (!s.text) {
		keys = malloc((t->n_rows + 1) * sizeof(*keys));
		if (!keys)
			return bp_err_nomem();
		for (size_t i = 0; i < t->n_rows; i++) {
			struct bp_cell c = {0};

			t->cell(t->ctx, i, s.field, &c);
			keys[i] = c.kind == BP_CELL_INT   ? (double)c.i
				  : c.kind == BP_CELL_PCT ? c.pct
							  : -1e300;
		}
		s.keys = keys;
	}
	qsort_r(index, t->n_rows, sizeof(*index), compare_rows, &s);
	return NULL;
}

static void emit(struct bp_table *out, enum bp_col_type type, const struct bp_cell *c)
{
	switch (c->kind) {
	case BP_CELL_NONE:
		bp_table_none(out);
		break;
	case BP_CELL_STR:
		bp_table_str(out, c->str);
		break;
	case BP_CELL_INT:
		if (type == BP_COL_COUNT || type == BP_COL_HEX)
			bp_table_u64(out, (uint64_t)c->i);
		else
			bp_table_i64(out, c->i);
		break;
	case BP_CELL_PCT:
		bp_table_pct(out, c->pct);
		break;
	}
}

/* Columns of the table: those of the text form in their order, then the others for JSON and CSV. */
static struct bp_err *make_columns(struct bp_analysis *a, const struct bp_view_table *t,
				   int order[MAX_FIELDS], const struct bp_col **ret)
{
	enum bp_clock clock = a->query->clock;
	const char *text = clock == BP_CLOCK_INSNS && t->text_insns ? t->text_insns : t->text_time;
	const char *fields = t->main ? a->query->fields : NULL;
	struct bp_col *cols, **all;
	size_t n = 0, n_text;
	struct bp_err *err = NULL;

	if (!fields || *fields == '+')
		err = add_fields(t, text, clock, order, &n);
	if (!err && fields)
		err = add_fields(t, fields, clock, order, &n);
	if (err)
		return err;
	n_text = n;
	for (size_t i = 0; i < t->n_fields && n < MAX_FIELDS; i++) {
		bool there = false;

		for (size_t k = 0; k < n; k++)
			there |= order[k] == (int)i;
		if (!there)
			order[n++] = (int)i;
	}
	cols = calloc(n + 1, sizeof(*cols));
	all = realloc(a->priv->cols, (a->priv->n_cols + 1) * sizeof(struct bp_col *));
	if (all)
		a->priv->cols = all;
	if (!cols || !all) {
		free(cols);
		return bp_err_nomem();
	}
	a->priv->cols[a->priv->n_cols++] = cols;
	for (size_t i = 0; i < n; i++) {
		const struct bp_field *f = &t->fields[order[i]];

		cols[i] = (struct bp_col){
		    .id = f->id,
		    .title = f->title,
		    .type = f->type,
		    .where = i < n_text ? BP_COL_BOTH : BP_COL_DATA,
		    .tree = f->tree,
		};
	}
	*ret = cols;
	return NULL;
}

struct bp_err *bp_view_add(struct bp_analysis *a, struct bp_report *r, const struct bp_view_table *t)
{
	bp_autofree size_t *index = malloc((t->n_rows + 1) * sizeof(*index));
	const struct bp_col *cols = NULL;
	int order[MAX_FIELDS];
	struct bp_table *out;
	size_t n = t->n_rows;
	struct bp_err *err;

	if (!index)
		return bp_err_nomem();
	err = make_columns(a, t, order, &cols);
	if (!err)
		err = sort_rows(a, t, index);
	if (err)
		return err;
	out = bp_report_table(r, t->id, t->title, cols, t->n_fields);
	if (a->query->cut && n > a->query->cut && !t->whole)
		n = a->query->cut;
	if (t->limit && n > t->limit)
		n = t->limit;
	for (size_t i = 0; i < n; i++) {
		bp_table_row(out);
		if (t->depth)
			bp_table_row_depth(out, t->depth(t->ctx, index[i]));
		for (size_t k = 0; k < t->n_fields; k++) {
			struct bp_cell c;

			c.kind = BP_CELL_NONE;
			/* Looking up source lines is slow: not for rows that will not be seen. */
			if (a->query->lines && a->query->listed && i >= a->query->listed &&
			    !strcmp(cols[k].id, "line")) {
				emit(out, cols[k].type, &c);
				continue;
			}
			t->cell(t->ctx, index[i], (size_t)order[k], &c);
			emit(out, cols[k].type, &c);
		}
	}
	return NULL;
}

/* ---- texts ---- */

void bp_view_title(struct bp_analysis *a, struct bp_report *r, const char *what)
{
	const char *release = bp_trace_info(a->trace, "kernel_release");
	const char *qemu = bp_trace_info(a->trace, "qemu_version");
	const struct bp_fact *facts, *end = NULL;
	size_t n, vcpus = 0;
	char t[BP_UNITS_MAX], i[BP_UNITS_MAX], cpus[48] = "";

	facts = bp_trace_facts(a->trace, &n);
	for (size_t k = 0; k < n; k++) {
		if (facts[k].kind == BP_FACT_END)
			end = &facts[k];
		if (facts[k].kind == BP_FACT_VCPU && facts[k].vcpu != UINT16_MAX && facts[k].vcpu >= vcpus)
			vcpus = facts[k].vcpu + 1u;
	}
	bp_report_title(r, "%s: %s%s", what, release && *release ? "Linux " : "",
			release && *release ? release : "unknown kernel");
	if (qemu && *qemu)
		bp_report_title(r, "%s%s", strstr(qemu, "QEMU") ? "" : "QEMU ", qemu);
	if (vcpus)
		snprintf(cpus, sizeof(cpus), "%zu vCPU%s, ", vcpus, vcpus == 1 ? "" : "s");
	bp_report_title(r, "%sran %s, %s instructions, %s%s", cpus, bp_units_ns(t, (int64_t)a->end_ns),
			bp_units_count(i, a->end_insns), end ? "ended by " : "end not recorded",
			end ? end->s1 : "");
}

void bp_view_note_ns(struct bp_report *r, const char *before, uint64_t ns, const char *after)
{
	char buf[BP_UNITS_MAX];

	bp_report_note(r, "%s%s%s", before, bp_units_ns(buf, (int64_t)ns), after);
}

void bp_view_note_unaccounted(struct bp_analysis *a, struct bp_report *r)
{
	char t[BP_UNITS_MAX], all[BP_UNITS_MAX], pct[BP_UNITS_MAX];

	bp_report_note(
	    r, "unaccounted: %s of %s (%s)", bp_units_ns(t, (int64_t)a->unaccounted_ns),
	    bp_units_ns(all, (int64_t)a->end_ns),
	    bp_units_pct(pct, a->end_ns ? 100.0 * (double)a->unaccounted_ns / (double)a->end_ns : 0));
}

static void note_filters(struct bp_analysis *a, struct bp_report *r)
{
	const struct bp_query *q = a->query;

	if (q->from || q->to) {
		char x[BP_UNITS_MAX], y[BP_UNITS_MAX];

		bp_report_note(r, "only from %s to %s", bp_units_ns(x, (int64_t)a->walk.from_ns),
			       a->walk.to_ns ? bp_units_ns(y, (int64_t)a->walk.to_ns) : "the end");
	}
	if (q->in || q->out || q->modules || q->processes || q->has_vcpus || q->depth)
		bp_report_note(
		    r, "filtered: what -F, -N, -D, --module, --process and --vcpu leave out is in no figure");
}

static void note_damage(struct bp_analysis *a, struct bp_report *r)
{
	const struct bp_trace_damage *d = bp_trace_damage(a->trace);
	const struct bp_walk_stats *s = &a->stats;

	if (d->unfinished)
		bp_report_note(
		    r, "the recording was not finished (the recorder was killed, or no space was left): "
		       "what was written until then is shown");
	if (d->bad_chunks || d->missing_chunks || d->lost_bytes)
		bp_report_note(r,
			       "the recording is damaged: %" PRIu64 " bad and %" PRIu64
			       " missing chunks, %" PRIu64 " bytes lost, first at offset %" PRIu64,
			       d->bad_chunks, d->missing_chunks, d->lost_bytes, d->first_bad_offset);
	if (s->damaged_blocks)
		bp_report_note(
		    r, "%" PRIu64 " block%s of events could not be read and %s missing from all figures: %s",
		    s->damaged_blocks, s->damaged_blocks == 1 ? "" : "s",
		    s->damaged_blocks == 1 ? "is" : "are", a->damage_text ? a->damage_text : "");
	if (s->resyncs)
		bp_report_note(r,
			       "%" PRIu64 " stacks did not agree with the recording's own and were corrected",
			       s->resyncs);
	if (s->overflows)
		bp_report_note(r, "%" PRIu64 " calls deeper than %d were counted as part of their callers",
			       s->overflows, BP_MAX_DEPTH);
}

static void note_lost(struct bp_analysis *a, struct bp_report *r)
{
	size_t n;
	const struct bp_fact *facts = bp_trace_facts(a->trace, &n);
	uint64_t lost = 0;
	const char *why = NULL;

	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind != BP_FACT_LOST)
			continue;
		lost += facts[i].v[0];
		if (*facts[i].s1)
			why = facts[i].s1;
	}
	if (lost)
		bp_report_note(r, "%" PRIu64 " events were lost while recording%s%s", lost,
			       why ? ", last: " : "", why ? why : "");
	else if (a->stats.lost_records)
		bp_report_note(r, "%" PRIu64 " events were lost while recording", a->stats.lost_records);
}

void bp_view_notes(struct bp_analysis *a, struct bp_report *r)
{
	size_t n_folds;
	const struct bp_fold *folds = bp_trace_folds(a->trace, &n_folds);
	const char *deterministic = bp_trace_info(a->trace, "deterministic");
	const char *imported = bp_trace_info(a->trace, "import_format");

	if (imported) {
		const char *clock_time = bp_trace_info(a->trace, "clock_time");
		const char *stacks = bp_trace_info(a->trace, "import_stacks");

		bp_report_note(r, "imported from %s; clock: %s; call stacks: %s", imported,
			       clock_time ? clock_time : "the trace's own",
			       stacks && *stacks ? stacks : "from the trace");
	} else if (bp_view_waits_only(a)) {
		const char *clock_time = bp_trace_info(a->trace, "clock_time");

		bp_report_note(r, "clock: %s", clock_time ? clock_time : "host time, from the start of QEMU");
	} else if (a->query->clock == BP_CLOCK_TIME) {
		bp_report_note(
		    r, "clock: host time, from the start of QEMU; under emulation it is not the guest's own "
		       "time; --clock=insns counts instructions");
	} else {
		bp_report_note(
		    r, "clock: instructions executed%s",
		    deterministic && !strcmp(deterministic, "yes") ? ", repeatable in this recording" : "");
	}
	note_filters(a, r);
	if (n_folds) {
		uint64_t calls = 0;

		for (size_t i = 0; i < n_folds; i++)
			calls += folds[i].calls;
		if (!calls)
			; /* the rows that count calls are lost */
		else if (a->folds_left_out)
			bp_report_note(r,
				       "%" PRIu64
				       " short calls were folded into totals by --max-size and are not in "
				       "this view (`functions` without filters has them)",
				       calls);
		else
			bp_report_note(r,
				       "%" PRIu64
				       " short calls were folded into totals by --max-size; they are in "
				       "these figures",
				       calls);
	}
	note_lost(a, r);
	note_damage(a, r);
}

/* ---- the list of views ---- */

const struct bp_view *const bp_views[] = {
    &bp_view_overview, &bp_view_functions, &bp_view_tree,      &bp_view_first_calls, &bp_view_syscalls,
    &bp_view_phases,   &bp_view_modules,   &bp_view_processes, &bp_view_interrupts,  &bp_view_vcpus,
    &bp_view_locks,    &bp_view_off_cpu,   &bp_view_wakeups,
};
const size_t bp_n_views = BP_ARRAY_SIZE(bp_views);

const struct bp_view *bp_view_find(const char *name)
{
	for (size_t i = 0; i < bp_n_views; i++) {
		if (!strcmp(bp_views[i]->name, name))
			return bp_views[i];
	}
	return NULL;
}

bool bp_view_waits_only(const struct bp_analysis *a)
{
	const struct bp_trace_damage *d = bp_trace_damage(a->trace);

	/* What is missing may have been the guest's. */
	return !bp_trace_n_blocks(a->trace) && bp_trace_n_waits(a->trace) && !d->bad_chunks &&
	       !d->missing_chunks;
}

static void report_destroyp(struct bp_report **r)
{
	bp_report_destroy(*r);
}

struct bp_err *bp_view_run(const struct bp_view *view, struct bp_analysis *a, struct bp_report **ret)
{
	bp_cleanup(report_destroyp) struct bp_report *r = NULL;
	struct bp_err *err = bp_report_create(view->name, a->query->clock, &r);

	if (!err && bp_view_waits_only(a) && !view->waits)
		bp_report_instead(r,
				  "%s: the recording has no events of the guest, only waits of QEMU's "
				  "threads: see `report`, "
				  "`report vcpus`, `locks`, `off-cpu` or `wakeups`",
				  view->name);
	if (!err)
		err = view->run(a, r);
	if (err)
		return err;
	bp_view_notes(a, r);
	err = bp_report_finish(r);
	if (err)
		return err;
	*ret = bp_steal(r);
	return NULL;
}
