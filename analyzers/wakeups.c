// SPDX-License-Identifier: GPL-2.0-or-later
/* Who wakes whom, and the chains of wake-ups behind it. */
#include <stdlib.h>
#include <string.h>

#include "analyzers/view.h"
#include "analyzers/tally.h"
#include "analyzers/waits.h"
#include "core/cleanup.h"

_Static_assert(BP_WAKE_CHAIN < 6, "a chain fits into a key");

struct wakeups {
	struct bp_analysis *a;
	struct bp_waits *w;
	struct bp_tally pairs;  /* waker, woken, interrupt; time: slept */
	struct bp_tally chains; /* threads, plus 1, outermost first */
	struct bp_strbuf text;
};

static void on_wake(void *ctx, const struct bp_waits *w, const uint32_t *chain, size_t n, bool irq,
		    uint64_t slept_ns)
{
	struct wakeups *x = ctx;
	uint64_t key[6] = {0};

	if (n < 2 || !bp_waits_shown(w, chain[n - 1]))
		return;
	bp_tally_add(&x->pairs,
		     (uint64_t[6]){w->threads[chain[n - 2]].pool, w->threads[chain[n - 1]].pool, irq},
		     slept_ns);
	for (size_t i = 0; i < n; i++)
		key[i] = w->threads[chain[i]].pool + 1u;
	key[5] = irq;
	if (n > 2)
		bp_tally_add(&x->chains, key, slept_ns);
}

enum { W_COUNT, W_TOTAL, W_AVG, W_MAX, W_WAKER, W_WOKEN, W_IRQ, W_CHAIN };

static const struct bp_field fields[] = {
    [W_COUNT] = {"count", "COUNT", BP_COL_COUNT, false}, [W_TOTAL] = {"slept_ns", "SLEPT", BP_COL_NS, false},
    [W_AVG] = {"slept_avg_ns", "AVG", BP_COL_NS, false}, [W_MAX] = {"slept_max_ns", "MAX", BP_COL_NS, false},
    [W_WAKER] = {"waker", "WAKER", BP_COL_STR, false},   [W_WOKEN] = {"woken", "WOKEN", BP_COL_STR, false},
    [W_IRQ] = {"interrupt", "BY", BP_COL_STR, false},    [W_CHAIN] = {"chain", "CHAIN", BP_COL_STR, false},
};

struct table {
	struct wakeups *x;
	const struct bp_tally *sums;
	bool chains;
};

static void cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	const struct table *t = ctx;
	struct wakeups *x = t->x;
	const struct bp_tally_row *row = &t->sums->rows[i];

	bp_strbuf_clear(&x->text);
	switch (field) {
	case W_COUNT:
		bp_cell_int(c, row->n);
		break;
	case W_TOTAL:
	case W_AVG:
	case W_MAX:
		/* Since when it was off the CPU may not be known. */
		if (row->ns)
			bp_cell_int(c, field == W_TOTAL ? row->ns
				       : field == W_AVG ? row->ns / row->n
							: row->max_ns);
		break;
	case W_WAKER:
	case W_WOKEN:
		if (!t->chains)
			bp_waits_thread_name(x->w, (uint32_t)row->key[field == W_WOKEN], &x->text);
		break;
	case W_IRQ:
		bp_cell_str(c, row->key[t->chains ? 5 : 2] ? "interrupt" : "thread");
		break;
	case W_CHAIN:
		for (size_t k = 0; t->chains && k < 5 && row->key[k]; k++) {
			if (k)
				bp_strbuf_adds(&x->text, " > ");
			bp_waits_thread_name(x->w, (uint32_t)row->key[k] - 1, &x->text);
		}
		break;
	default:
		break;
	}
	if (x->text.len)
		bp_cell_str(c, bp_strbuf_str(&x->text));
}

static void deinit(struct wakeups *x)
{
	bp_waits_destroy(x->w);
	bp_tally_deinit(&x->pairs);
	bp_tally_deinit(&x->chains);
	bp_strbuf_deinit(&x->text);
}

static struct bp_err *wakeups_run(struct bp_analysis *a, struct bp_report *r)
{
	static const struct bp_waits_ops ops = {.on_wake = on_wake};
	bp_cleanup(deinit) struct wakeups x = {.a = a};
	struct table pairs = {&x, &x.pairs, false}, chains = {&x, &x.chains, true};
	struct bp_view_table v = {
	    .id = "wakeups",
	    .title = "Who wakes whom",
	    .fields = fields,
	    .n_fields = W_CHAIN,
	    .text_time = "count,slept_ns,slept_avg_ns,slept_max_ns,waker,woken,interrupt",
	    .sort_time = "count",
	    .cell = cell,
	    .ctx = &pairs,
	    .main = true,
	};
	struct bp_err *err = bp_waits_run(a->trace, a->walk.from_ns, a->walk.to_ns, &ops, &x, &x.w);

	if (err)
		return err;
	if (x.pairs.failed || x.chains.failed)
		return bp_err_nomem();
	bp_waits_title(a, x.w, r, "Wake-ups");
	v.n_rows = x.pairs.n < BP_TALLY_MAX ? x.pairs.n : BP_TALLY_MAX;
	err = bp_view_add(a, r, &v);
	if (err)
		return err;
	v.id = "chains";
	v.title = "Chains: each was woken by the one before it, since it last left the CPU";
	v.n_fields = BP_ARRAY_SIZE(fields);
	v.text_time = "count,slept_ns,slept_avg_ns,slept_max_ns,chain,interrupt";
	v.ctx = &chains;
	v.main = false;
	v.n_rows = x.chains.n < BP_TALLY_MAX ? x.chains.n : BP_TALLY_MAX;
	if (v.n_rows)
		err = bp_view_add(a, r, &v);
	if (err)
		return err;
	bp_waits_notes(x.w, r);
	bp_report_note(r, "SLEPT is from leaving the CPU to being woken; woken by an interrupt: the waker is "
			  "the thread that it "
			  "happened to interrupt");
	return NULL;
}

const struct bp_view bp_view_wakeups = {
    .name = "wakeups",
    .summary = "who wakes whom, and chains of wake-ups",
    .waits = true,
    .run = wakeups_run,
};
