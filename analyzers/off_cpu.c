// SPDX-License-Identifier: GPL-2.0-or-later
/* Times off the CPU, by thread, reason and stack; the rule that found the reason. */
#include <stdlib.h>
#include <string.h>

#include "analyzers/parts.h"
#include "analyzers/tally.h"
#include "core/cleanup.h"

struct off_cpu {
	struct bp_analysis *a;
	struct bp_waits *w;
	struct bp_tally sums; /* thread, class, rule, futex word, kernel stack, user stack; extra: delay ns */
	struct bp_off_verdict *rules; /* each different one */
	size_t n_rules, cap_rules;
	struct bp_strbuf text;
	uint64_t total_ns;
	bool stacks; /* apart by stacks */
};

/* There are few different ones. */
static size_t rule_of(struct off_cpu *x, const struct bp_off_verdict *v)
{
	for (size_t i = 0; i < x->n_rules; i++) {
		const struct bp_off_verdict *r = &x->rules[i];

		if (r->cls == v->cls && r->rule == v->rule &&
		    (r->frame == v->frame || (r->frame && v->frame && !strcmp(r->frame, v->frame))))
			return i;
	}
	if (x->n_rules == x->cap_rules) {
		size_t cap = x->cap_rules * 2 + 16;
		struct bp_off_verdict *p = realloc(x->rules, cap * sizeof(*p));

		if (!p) {
			x->sums.failed = true;
			return 0;
		}
		x->rules = p;
		x->cap_rules = cap;
	}
	x->rules[x->n_rules] = *v;
	return x->n_rules++;
}

static void on_off(void *ctx, const struct bp_waits *w, const struct bp_off *off)
{
	struct off_cpu *x = ctx;
	uint64_t ns = off->in_ns - off->out.time_ns;
	const uint64_t key[6] = {w->threads[off->thread].pool,    rule_of(x, &off->why),           off->addr,
				 x->stacks ? off->out.kstack : 0, x->stacks ? off->out.ustack : 0, 0};
	struct bp_tally_row *row;

	if (!bp_waits_shown(w, off->thread) || x->sums.failed)
		return;
	row = bp_tally_add(&x->sums, key, ns);
	if (row && off->woken_ns)
		row->extra += off->in_ns - off->woken_ns;
}

enum {
	O_COUNT,
	O_TOTAL,
	O_PCT,
	O_AVG,
	O_MAX,
	O_DELAY,
	O_THREAD,
	O_ROLE,
	O_CLASS,
	O_RULE,
	O_WHERE,
	O_LOCK,
	O_STACK,
	O_USER,
	O_FUNCTION
};

static const struct bp_field fields[] = {
    [O_COUNT] = {"count", "COUNT", BP_COL_COUNT, false},
    [O_TOTAL] = {"total_ns", "TOTAL", BP_COL_NS, false},
    [O_PCT] = {"total_pct", "OFF%", BP_COL_PERCENT, false},
    [O_AVG] = {"avg_ns", "AVG", BP_COL_NS, false},
    [O_MAX] = {"max_ns", "MAX", BP_COL_NS, false},
    [O_DELAY] = {"sched_delay_ns", "SCH DELAY", BP_COL_NS, false},
    [O_THREAD] = {"thread", "THREAD", BP_COL_STR, false},
    [O_ROLE] = {"role", "ROLE", BP_COL_STR, false},
    [O_CLASS] = {"class", "CLASS", BP_COL_STR, false},
    [O_RULE] = {"rule", "RULE", BP_COL_STR, false},
    [O_WHERE] = {"where", "WHERE", BP_COL_STR, false},
    [O_LOCK] = {"lock", "FUTEX", BP_COL_STR, false},
    [O_STACK] = {"stack", "KERNEL STACK", BP_COL_STR, false},
    [O_USER] = {"user_stack", "USER STACK", BP_COL_STR, false},
    [O_FUNCTION] = {"user_function", "IN", BP_COL_STR, false},
};

static void time_cell(const struct off_cpu *x, const struct bp_tally_row *row, size_t field,
		      struct bp_cell *c)
{
	if (field == O_PCT)
		bp_cell_pct(c, (double)row->ns, (double)x->total_ns);
	else
		bp_cell_int(c, field == O_TOTAL ? row->ns
			       : field == O_AVG ? row->ns / row->n
			       : field == O_MAX ? row->max_ns
						: row->extra);
}

static void cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	struct off_cpu *x = ctx;
	const struct bp_tally_row *row = &x->sums.rows[i];
	const struct bp_off_verdict *why = &x->rules[row->key[1]];
	const char *how;

	bp_strbuf_clear(&x->text);
	switch (field) {
	case O_COUNT:
		bp_cell_int(c, row->n);
		return;
	case O_TOTAL:
	case O_PCT:
	case O_AVG:
	case O_MAX:
	case O_DELAY:
		if (x->w->timed)
			time_cell(x, row, field, c);
		return;
	case O_THREAD:
		bp_waits_thread_name(x->w, (uint32_t)row->key[0], &x->text);
		break;
	case O_ROLE:
		bp_cell_str(c, x->w->threads[row->key[0]].role);
		break;
	case O_CLASS:
		bp_cell_str(c, bp_off_class_name(why->cls));
		break;
	case O_RULE:
		bp_cell_str(c, why->rule);
		break;
	case O_WHERE:
		if (why->frame)
			bp_cell_str(c, why->frame);
		break;
	case O_LOCK:
		if (row->key[2])
			bp_waits_lock_name(x->w, row->key[2], &x->text, &how);
		break;
	case O_STACK:
		bp_waits_stack_text(x->a->trace, (uint32_t)row->key[3], 12, false, &x->text);
		break;
	case O_USER:
		bp_waits_stack_text(x->a->trace, (uint32_t)row->key[4], 12, false, &x->text);
		break;
	case O_FUNCTION:
		bp_waits_user_function(x->a->trace, (uint32_t)row->key[4], &x->text);
		break;
	default:
		break;
	}
	if (x->text.len)
		bp_cell_str(c, bp_strbuf_str(&x->text));
}

static void deinit(struct off_cpu *x)
{
	bp_waits_destroy(x->w);
	bp_tally_deinit(&x->sums);
	bp_strbuf_deinit(&x->text);
	free(x->rules);
}

static struct bp_err *sum(struct off_cpu *x)
{
	static const struct bp_waits_ops ops = {.on_off = on_off};
	struct bp_err *err = bp_waits_run(x->a->trace, x->a->walk.from_ns, x->a->walk.to_ns, &ops, x, &x->w);
	size_t n = 0;

	if (err)
		return err;
	if (x->sums.failed)
		return bp_err_nomem();
	for (size_t i = 0; i < x->sums.n; i++) {
		if (x->sums.rows[i].key[0] >= x->w->n_threads ||
		    !bp_waits_listed(x->a->query, x->w, (uint32_t)x->sums.rows[i].key[0]) ||
		    x->sums.rows[i].ns < x->a->query->min_ns)
			continue;
		x->total_ns += x->sums.rows[i].ns;
		x->sums.rows[n++] = x->sums.rows[i];
	}
	x->sums.n = n;
	return NULL;
}

static struct bp_err *table(struct off_cpu *x, struct bp_report *r, bool main, size_t limit)
{
	bool user = false;
	struct bp_view_table v;

	for (size_t i = 0; i < x->sums.n; i++)
		user |= x->sums.rows[i].key[4] != 0;
	v = (struct bp_view_table){
	    .id = "off_cpu",
	    .title = "Off the CPU, by thread, reason and stack",
	    .fields = fields,
	    .n_fields = BP_ARRAY_SIZE(fields),
	    .text_time = user ? "count,total_ns,max_ns,thread,class,where,lock,user_function,rule"
			      : "count,total_ns,max_ns,thread,class,where,lock,rule",
	    .sort_time = x->w->timed ? "total_ns" : "count",
	    .n_rows = x->sums.n,
	    .cell = cell,
	    .ctx = x,
	    .main = main,
	    .limit = limit,
	};

	return bp_view_add(x->a, r, &v);
}

struct bp_err *bp_off_cpu_table(struct bp_analysis *a, struct bp_report *r, size_t limit)
{
	bp_cleanup(deinit) struct off_cpu x = {.a = a};
	struct bp_err *err = sum(&x);

	return err ? err : table(&x, r, false, limit);
}

static struct bp_err *off_cpu_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(deinit) struct off_cpu x = {.a = a, .stacks = true};
	struct bp_err *err = sum(&x);

	if (err)
		return err;
	bp_waits_title(a, x.w, r, "Off the CPU");
	err = table(&x, r, true, 0);
	if (err)
		return err;
	bp_waits_notes(x.w, r);
	return NULL;
}

const struct bp_view bp_view_off_cpu = {
    .name = "off-cpu",
    .summary = "why threads of QEMU left the CPU, for how long, and with which stacks",
    .waits = true,
    .run = off_cpu_run,
};
