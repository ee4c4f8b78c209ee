// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "analyzers/phases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

/* Marks that begin a phase. The detail of the mark is added where a phase has parts. */
static const struct {
	const char *mark, *phase;
	bool with_detail;
	bool final; /* only another such phase, or a new start of the machine, ends it */
} starts[] = {
    {"qemu-start", "qemu-setup", false, false},     {"first-instruction", "firmware", false, false},
    {"firmware", "firmware", false, false},         {"option-rom", "option-rom", false, false},
    {"boot-loader", "boot-loader", false, false},   {"decompressor", "decompressor", false, false},
    {"kernel", "kernel-start", false, false},       {"initcalls", "initcalls", false, false},
    {"initcall-level", "initcalls", true, false},   {"kernel-init-done", "kernel-end", false, false},
    {"init-exec", "exec-init", false, false},       {"user", "user", false, false},
    {"ready", "after-ready", false, false},         {"panic", "panic", false, true},
    {"shutdown", "shutdown", false, true},          {"reboot", "shutdown", false, true},
    {"poweroff", "shutdown", false, true},          {"halt", "shutdown", false, true},
    {"last-instruction", "qemu-exit", false, true}, {"qemu-exit", "", false, true},
};

static int start_index(const char *mark)
{
	for (size_t i = 0; i < BP_ARRAY_SIZE(starts); i++) {
		if (!strcmp(starts[i].mark, mark))
			return (int)i;
	}
	return -1;
}

struct ordered {
	const struct bp_fact *fact;
	size_t index;
};

static int compare_marks(const void *x, const void *y)
{
	const struct ordered *a = x, *b = y;

	if (a->fact->time_ns != b->fact->time_ns)
		return a->fact->time_ns < b->fact->time_ns ? -1 : 1;
	return (a->index > b->index) - (a->index < b->index);
}

static void find_end(struct bp_analysis *a, const struct bp_fact *facts, size_t n)
{
	uint64_t exit_ns = 0, last_ns = 0, exact_insns = 0;
	size_t n_blocks = bp_trace_n_blocks(a->trace);

	for (size_t i = 0; i < n; i++) {
		const struct bp_fact *f = &facts[i];

		if (f->kind == BP_FACT_MARK && !strcmp(f->s1, "qemu-exit"))
			exit_ns = f->time_ns;
		if (f->kind == BP_FACT_END && f->v[1])
			exact_insns = f->v[1];
		if (f->kind == BP_FACT_MARK && f->v[0] > a->end_insns)
			a->end_insns = f->v[0];
		if (f->time_ns > last_ns)
			last_ns = f->time_ns;
	}
	for (size_t i = 0; i < n_blocks; i++) {
		uint64_t first, last;

		bp_trace_block_range(a->trace, i, &first, &last);
		if (last > last_ns)
			last_ns = last;
	}
	a->end_ns = exit_ns ? exit_ns : last_ns;
	if (exact_insns)
		a->end_insns = exact_insns;
}

/* A mark of an ended system that cannot begin anything but a shutdown; a new start of the machine can. */
static bool starts_machine(const char *mark)
{
	return !strcmp(mark, "first-instruction") || !strcmp(mark, "firmware");
}

struct bp_err *bp_phases_build(struct bp_analysis *a)
{
	size_t n, n_marks = 0;
	const struct bp_fact *facts = bp_trace_facts(a->trace, &n);
	bp_autofree struct ordered *marks = malloc((n + 1) * sizeof(*marks));
	bool final = false, was_user = false;
	uint64_t covered = 0;

	if (!marks)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind == BP_FACT_MARK && start_index(facts[i].s1) >= 0)
			marks[n_marks++] = (struct ordered){&facts[i], i};
	}
	qsort(marks, n_marks, sizeof(*marks), compare_marks);
	find_end(a, facts, n);
	a->phases = calloc(n_marks + 1, sizeof(*a->phases));
	if (!a->phases)
		return bp_err_nomem();
	for (size_t i = 0; i < n_marks; i++) {
		const struct bp_fact *f = marks[i].fact;
		int s = start_index(f->s1);
		struct bp_phase *last = a->n_phases ? &a->phases[a->n_phases - 1] : NULL;
		char name[BP_PHASE_NAME_MAX];
		uint64_t at = f->time_ns < a->end_ns ? f->time_ns : a->end_ns;

		if (starts_machine(f->s1))
			final = was_user = false;
		if (final && !starts[s].final)
			continue;
		/* Programs that are executed later, and marks repeated in user space, are not phases. */
		if (was_user && (!strcmp(f->s1, "init-exec") || !strcmp(f->s1, "user")))
			continue;
		was_user |= !strcmp(f->s1, "user") || !strcmp(f->s1, "ready");
		final |= starts[s].final;
		if (starts[s].with_detail && *f->s2)
			snprintf(name, sizeof(name), "%s-%s", starts[s].phase, f->s2);
		else
			snprintf(name, sizeof(name), "%s", starts[s].phase);
		if (last && !strcmp(last->name, name))
			continue;
		if (last) {
			last->end_ns = at;
			last->end_insns = f->v[0];
			if (last->end_ns == last->start_ns && last->end_insns == last->start_insns)
				a->n_phases--;
		}
		if (!*name)
			break; /* qemu-exit: nothing begins */
		a->phases[a->n_phases] = (struct bp_phase){.start_ns = at, .start_insns = f->v[0]};
		memcpy(a->phases[a->n_phases++].name, name, sizeof(name));
	}
	if (a->n_phases) {
		struct bp_phase *last = &a->phases[a->n_phases - 1];

		if (last->end_ns < last->start_ns || !last->end_ns) {
			last->end_ns = a->end_ns;
			last->end_insns = a->end_insns > last->start_insns ? a->end_insns : last->start_insns;
		}
	}
	for (size_t i = 0; i < a->n_phases; i++) {
		struct bp_phase *p = &a->phases[i];

		if (p->end_insns < p->start_insns)
			p->end_insns = p->start_insns;
		covered += p->end_ns - p->start_ns;
	}
	a->unaccounted_ns = a->end_ns > covered ? a->end_ns - covered : 0;
	return NULL;
}

bool bp_phases_find(const struct bp_analysis *a, const char *name, uint64_t *start_ns, uint64_t *end_ns)
{
	bool found = false;

	for (size_t i = 0; i < a->n_phases; i++) {
		if (strcmp(a->phases[i].name, name))
			continue;
		if (!found)
			*start_ns = a->phases[i].start_ns;
		*end_ns = a->phases[i].end_ns;
		found = true;
	}
	return found;
}

bool bp_phases_mark(const struct bp_analysis *a, const char *name, uint64_t *ns)
{
	size_t n;
	const struct bp_fact *facts = bp_trace_facts(a->trace, &n);
	const struct bp_fact *found = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct bp_fact *f = &facts[i];
		size_t len;

		if (f->kind != BP_FACT_MARK)
			continue;
		len = strlen(f->s1);
		if (strncmp(f->s1, name, len) ||
		    !(name[len] == '\0' || (name[len] == ':' && !strcmp(name + len + 1, f->s2))))
			continue;
		if (!found || f->time_ns < found->time_ns)
			found = f;
	}
	if (found)
		*ns = found->time_ns;
	return found != NULL;
}

/* ---- the walk ---- */

/* Spread an interval over the phases that it overlaps. */
static void add_halted(struct bp_phase_walk *p, uint64_t start, uint64_t end)
{
	struct bp_analysis *a = p->a;
	size_t lo = 0, hi = a->n_phases;

	p->halted_ns += end - start;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (a->phases[mid].end_ns <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < a->n_phases && a->phases[lo].start_ns < end; lo++) {
		struct bp_phase *ph = &a->phases[lo];
		uint64_t from = start > ph->start_ns ? start : ph->start_ns;
		uint64_t to = end < ph->end_ns ? end : ph->end_ns;

		if (to > from)
			ph->halted_ns += to - from;
	}
}

static const char *level_of(const struct bp_phase_walk *p, uint32_t row)
{
	size_t n;
	const struct bp_fact *facts = bp_trace_facts(p->a->trace, &n);
	const struct bp_row *r = &p->a->rows.rows[row];

	if (r->space == BP_SPACE_MODULE)
		return "module";
	if (r->space != BP_SPACE_KERNEL)
		return "";
	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind == BP_FACT_INITCALL && facts[i].v[0] == r->addr)
			return facts[i].s1;
	}
	return "";
}

static void add_initcall(struct bp_phase_walk *p, const struct bp_walk_frame *f,
			 const struct bp_walk_now *now)
{
	if (p->n_initcalls == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 256;
		struct bp_initcall_time *list = realloc(p->initcalls, cap * sizeof(*list));

		if (!list) {
			p->failed = true;
			return;
		}
		p->initcalls = list;
		p->cap = cap;
	}
	p->initcalls[p->n_initcalls++] = (struct bp_initcall_time){
	    .row = f->row,
	    .level = level_of(p, f->row),
	    .start_ns = f->wall_ns,
	    .ns = bp_walk_total_ns(f, now),
	    .wall_ns = now->wall_ns - f->wall_ns,
	    .insns = bp_walk_total_insns(f, now),
	    .task = now->task->id,
	};
}

static void phase_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
			enum bp_walk_leave how)
{
	struct bp_phase_walk *p = ctx;

	(void)how;
	if (p->halted[f->row] && now->wall_ns > f->wall_ns)
		add_halted(p, f->wall_ns, now->wall_ns);
	if (f[-1].row == p->initcall_row && p->initcall_row != BP_NO_ROW && f->kind != BP_EV_IRQ) {
		const struct bp_row *r = &p->a->rows.rows[f->row];

		/* do_one_initcall() also calls helpers of the tracer; initcalls are the ones in the tables.
		 */
		if (r->space == BP_SPACE_MODULE || *level_of(p, f->row))
			add_initcall(p, f, now);
	}
}

static void phase_run(void *ctx, const struct bp_walk_now *now)
{
	struct bp_phase_walk *p = ctx;

	if (now->vcpu)
		return;
	if (p->vcpu0_seen && now->wall_ns > p->vcpu0_end)
		p->uncovered_ns += now->wall_ns - p->vcpu0_end;
	p->vcpu0_seen = true;
}

static void phase_run_end(void *ctx, const struct bp_walk_now *now)
{
	struct bp_phase_walk *p = ctx;

	if (!now->vcpu)
		p->vcpu0_end = now->wall_ns;
}

const struct bp_walk_ops bp_phase_walk_ops = {
    .on_run = phase_run,
    .on_run_end = phase_run_end,
    .on_leave = phase_leave,
};

struct bp_err *bp_phase_walk_init(struct bp_phase_walk *p, struct bp_analysis *a)
{
	memset(p, 0, sizeof(*p));
	p->a = a;
	p->initcall_row = bp_rows_find(&a->rows, "do_one_initcall");
	p->halted = calloc(a->rows.n + 1, sizeof(*p->halted));
	if (!p->halted)
		return bp_err_nomem();
	for (size_t i = 0; i < a->rows.n; i++)
		p->halted[i] = bp_row_is_halted(&a->rows.rows[i]);
	return NULL;
}

void bp_phase_walk_deinit(struct bp_phase_walk *p)
{
	free(p->halted);
	free(p->initcalls);
	memset(p, 0, sizeof(*p));
}

/* ---- tables ---- */

enum { P_NAME, P_START, P_END, P_TIME, P_PCT, P_INSNS, P_INSNS_PCT, P_HALTED, P_START_INSNS, P_END_INSNS };

static const struct bp_field phase_fields[] = {
    [P_NAME] = {"name", "PHASE", BP_COL_STR, false},
    [P_START] = {"start_ns", "START", BP_COL_NS, false},
    [P_END] = {"end_ns", "END", BP_COL_NS, false},
    [P_TIME] = {"duration_ns", "TIME", BP_COL_NS, false},
    [P_PCT] = {"percent", "TIME%", BP_COL_PERCENT, false},
    [P_INSNS] = {"insns", "INSNS", BP_COL_INSNS, false},
    [P_INSNS_PCT] = {"insns_percent", "INSNS%", BP_COL_PERCENT, false},
    [P_HALTED] = {"halted_ns", "HALTED", BP_COL_NS, false},
    [P_START_INSNS] = {"start_insns", "FROM INSN", BP_COL_INSNS, false},
    [P_END_INSNS] = {"end_insns", "TO INSN", BP_COL_INSNS, false},
};

static void phase_cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct bp_analysis *a = ctx;
	static const struct bp_phase unaccounted = {.name = "unaccounted"};
	const struct bp_phase *p = row < a->n_phases ? &a->phases[row] : &unaccounted;
	uint64_t ns = row < a->n_phases ? p->end_ns - p->start_ns : a->unaccounted_ns;

	switch (field) {
	case P_NAME:
		bp_cell_str(c, p->name);
		break;
	case P_START:
		bp_cell_int(c, p->start_ns);
		break;
	case P_END:
		bp_cell_int(c, p->end_ns);
		break;
	case P_TIME:
		bp_cell_int(c, ns);
		break;
	case P_PCT:
		bp_cell_pct(c, (double)ns, (double)a->end_ns);
		break;
	case P_INSNS:
		bp_cell_int(c, p->end_insns - p->start_insns);
		break;
	case P_INSNS_PCT:
		bp_cell_pct(c, (double)(p->end_insns - p->start_insns), (double)a->end_insns);
		break;
	case P_HALTED:
		bp_cell_int(c, p->halted_ns);
		break;
	case P_START_INSNS:
		bp_cell_int(c, p->start_insns);
		break;
	case P_END_INSNS:
		bp_cell_int(c, p->end_insns);
		break;
	default:
		break;
	}
}

struct bp_err *bp_phases_table(struct bp_analysis *a, struct bp_report *r, const struct bp_phase_walk *p,
			       bool main)
{
	struct bp_view_table t = {
	    .id = "phases",
	    .title = "Phases",
	    .fields = phase_fields,
	    .n_fields = BP_ARRAY_SIZE(phase_fields),
	    .text_time = "name,start_ns,end_ns,duration_ns,percent,insns,halted_ns",
	    .text_insns = "name,insns,insns_percent,start_ns,end_ns,duration_ns,halted_ns",
	    .n_rows = a->n_phases,
	    .cell = phase_cell,
	    .ctx = a,
	    .fixed_order = true,
	    .whole = true,
	    .main = main,
	};

	bp_report_scalar(r, "unaccounted_ns", (int64_t)a->unaccounted_ns);
	bp_report_scalar(r, "uncovered_ns", (int64_t)p->uncovered_ns);
	bp_report_scalar(r, "halted_ns", (int64_t)p->halted_ns);
	return bp_view_add(a, r, &t);
}

enum { I_NAME, I_LEVEL, I_TIME, I_PCT, I_INSNS, I_WALL, I_START, I_MODULE, I_TASK, I_LINE };

static const struct bp_field initcall_fields[] = {
    [I_NAME] = {"name", "INITCALL", BP_COL_STR, false},
    [I_LEVEL] = {"level", "LEVEL", BP_COL_STR, false},
    [I_TIME] = {"time_ns", "TIME", BP_COL_NS, false},
    [I_PCT] = {"percent", "TIME%", BP_COL_PERCENT, false},
    [I_INSNS] = {"insns", "INSNS", BP_COL_INSNS, false},
    [I_WALL] = {"duration_ns", "ELAPSED", BP_COL_NS, false},
    [I_START] = {"start_ns", "START", BP_COL_NS, false},
    [I_MODULE] = {"module", "MODULE", BP_COL_STR, false},
    [I_TASK] = {"process", "PROCESS", BP_COL_STR, false},
    [I_LINE] = {"line", "SOURCE", BP_COL_STR, false},
};

static void initcall_cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct bp_phase_walk *p = ctx;
	const struct bp_initcall_time *i = &p->initcalls[row];

	switch (field) {
	case I_NAME:
		bp_cell_str(c, bp_row_name(&p->a->rows, i->row, c->buf));
		break;
	case I_LEVEL:
		bp_cell_str(c, i->level);
		break;
	case I_TIME:
		bp_cell_int(c, i->ns);
		break;
	case I_PCT:
		bp_cell_pct(c, (double)i->ns, (double)p->a->end_ns);
		break;
	case I_INSNS:
		bp_cell_int(c, i->insns);
		break;
	case I_WALL:
		bp_cell_int(c, i->wall_ns);
		break;
	case I_START:
		bp_cell_int(c, i->start_ns);
		break;
	case I_MODULE:
		bp_cell_str(c, bp_row_module(&p->a->rows, i->row));
		break;
	case I_TASK:
		bp_cell_str(c, bp_analysis_task_name(p->a, i->task, c->buf));
		break;
	case I_LINE: {
		const char *line = bp_analysis_line(p->a, i->row);

		if (line)
			bp_cell_str(c, line);
		break;
	}
	default:
		break;
	}
}

struct bp_err *bp_initcalls_table(struct bp_analysis *a, struct bp_report *r, const struct bp_phase_walk *p,
				  size_t limit)
{
	struct bp_view_table t = {
	    .id = "initcalls",
	    .title = "Initcalls, slowest first (time on a vCPU)",
	    .fields = initcall_fields,
	    .n_fields = BP_ARRAY_SIZE(initcall_fields),
	    .text_time = a->query->lines ? "time_ns,percent,insns,duration_ns,start_ns,level,name,module,line"
					 : "time_ns,percent,insns,duration_ns,start_ns,level,name,module",
	    .text_insns = a->query->lines
			      ? "insns,time_ns,percent,duration_ns,start_ns,level,name,module,line"
			      : "insns,time_ns,percent,duration_ns,start_ns,level,name,module",
	    .sort_time = "time_ns",
	    .sort_insns = "insns",
	    .n_rows = p->n_initcalls,
	    .cell = initcall_cell,
	    .ctx = (void *)p,
	    .limit = limit,
	};

	return bp_view_add(a, r, &t);
}

static void phase_walk_deinitp(struct bp_phase_walk *p)
{
	bp_phase_walk_deinit(p);
}

static struct bp_err *phases_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(phase_walk_deinitp) struct bp_phase_walk p = {0};
	bp_cleanup(bp_walk_destroyp) struct bp_walk *w = NULL;
	size_t n = 0;
	struct bp_err *err = bp_phase_walk_init(&p, a);

	if (!err)
		err = bp_analysis_walk(a, &w);
	if (!err)
		err = bp_walk_inline(w, &bp_phase_walk_ops, &p);
	if (err)
		return err;
	if (p.failed)
		return bp_err_nomem();
	bp_analysis_walked(a, w);
	for (size_t i = 0; i < p.n_initcalls; i++) {
		if (p.initcalls[i].ns >= a->query->min_ns)
			p.initcalls[n++] = p.initcalls[i];
	}
	p.n_initcalls = n;
	a->folds_left_out = true;
	bp_view_title(a, r, "Where the time of the boot went");
	err = bp_phases_table(a, r, &p, true);
	if (err)
		return err;
	if (!a->n_phases)
		bp_report_note(r, "the recording has no marks: all time is unaccounted");
	bp_view_note_unaccounted(a, r);
	if (p.uncovered_ns)
		bp_view_note_ns(r, "vCPU 0 has gaps in its events of ", p.uncovered_ns, " in total");
	return bp_initcalls_table(a, r, &p, a->query->text && !a->query->listed ? 20 : a->query->listed);
}

const struct bp_view bp_view_phases = {
    .name = "phases",
    .summary = "the run from QEMU's start to its end as a ledger that balances; slowest initcalls",
    .run = phases_run,
};
