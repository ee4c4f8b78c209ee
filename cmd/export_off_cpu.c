// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Times off the CPU as folded stacks: "thread;user frames;kernel frames;[class] ns". The class stands at the
 * top, with the lock where it is known, so that a flame graph shows what was waited for.
 */
#include <inttypes.h>
#include <string.h>

#include "analyzers/tally.h"
#include "analyzers/waits.h"
#include "cmd/export.h"
#include "core/cleanup.h"

struct off_cpu {
	struct bp_tally sums; /* thread, class, lock, kernel stack, user stack */
};

static void on_off(void *ctx, const struct bp_waits *w, const struct bp_off *off)
{
	struct off_cpu *x = ctx;
	const bool lock = off->why.cls == BP_OFF_LOCK;

	if (bp_waits_shown(w, off->thread))
		bp_tally_add(&x->sums,
			     (uint64_t[6]){w->threads[off->thread].pool, off->why.cls, lock ? off->addr : 0,
					   off->out.kstack, off->out.ustack},
			     off->in_ns - off->out.time_ns);
}

/* One name of a stack; see export_folded.c. */
static void add_name(struct bp_export *x, const struct bp_strbuf *name)
{
	size_t start = x->out.len;

	bp_strbuf_add_term(&x->out, bp_strbuf_str(name), name->len);
	x->out.failed |= name->failed;
	for (size_t k = start; k < x->out.len; k++)
		if (x->out.data[k] == ';')
			x->out.data[k] = ':';
}

static void add_stack(struct bp_export *x, uint32_t stack, struct bp_strbuf *name)
{
	size_t n;
	const uint32_t *ids = bp_trace_host_stack(x->trace, stack, &n);

	while (n--) {
		bp_strbuf_clear(name);
		bp_waits_frame_name(x->trace, ids[n], name);
		add_name(x, name);
		bp_strbuf_addc(&x->out, ';');
	}
}

struct bp_err *bp_export_off_cpu(struct bp_export *x)
{
	static const struct bp_waits_ops ops = {.on_off = on_off};
	bp_cleanup(bp_waits_destroyp) struct bp_waits *w = NULL;
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf name = BP_STRBUF_INIT;
	struct off_cpu o = {0};
	struct bp_err *err = bp_waits_run(x->trace, 0, 0, &ops, &o, &w);

	if (!err && o.sums.failed)
		err = bp_err_nomem();
	for (size_t i = 0; !err && i < o.sums.n && bp_export_drain(x); i++) {
		const struct bp_tally_row *row = &o.sums.rows[i];
		const char *how;

		if (!row->ns || row->key[0] >= w->n_threads)
			continue;
		bp_strbuf_clear(&name);
		bp_waits_thread_name(w, (uint32_t)row->key[0], &name);
		add_name(x, &name);
		bp_strbuf_addc(&x->out, ';');
		add_stack(x, (uint32_t)row->key[4], &name);
		add_stack(x, (uint32_t)row->key[3], &name);
		bp_strbuf_clear(&name);
		bp_strbuf_addf(&name, "[%s", bp_off_class_name((enum bp_off_class)row->key[1]));
		if (row->key[2]) {
			bp_strbuf_addc(&name, ' ');
			bp_waits_lock_name(w, row->key[2], &name, &how);
		}
		bp_strbuf_addc(&name, ']');
		add_name(x, &name);
		bp_strbuf_addf(&x->out, " %" PRIu64 "\n", row->ns);
		x->slices++;
	}
	bp_tally_deinit(&o.sums);
	return err;
}
