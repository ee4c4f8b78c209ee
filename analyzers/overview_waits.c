// SPDX-License-Identifier: GPL-2.0-or-later
/* The overview of waits: what QEMU's threads did, the locks they waited for, and what to look at next. */
#include <inttypes.h>

#include "analyzers/parts.h"
#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/units.h"

#define COMMAND_MAX 100  /* bytes of QEMU's command line */
#define SHARE_MIN 5      /* percent of the time of the vCPUs, or of a lock */
#define MAIN_LOOP_MIN 20 /* percent of a lock's time */

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* Sums over vCPU threads, or over all shown threads when there is none; @all_ns: of their time. */
static bool sum_threads(const struct bp_waits *w, const struct bp_query *q, uint64_t ns[BP_OFF_CLASSES],
			uint64_t *all_ns)
{
	uint64_t all = w->last_ns > w->first_ns ? w->last_ns - w->first_ns : 0;
	uint64_t span = all > w->lost_ns ? all - w->lost_ns : 0;
	bool vcpus = false;

	for (uint32_t i = 0; i < w->n_threads; i++)
		vcpus |= bp_waits_listed(q, w, i) && bp_waits_is_vcpu(&w->threads[i]);
	for (uint32_t i = 0; i < w->n_threads; i++) {
		const struct bp_wait_thread *t = &w->threads[i];

		uint64_t own_ns = t->running_ns;

		if (!bp_waits_listed(q, w, i) || (vcpus && !bp_waits_is_vcpu(t)))
			continue;
		for (int k = 0; k < BP_OFF_CLASSES; k++) {
			ns[k] += t->ns[k];
			own_ns += t->ns[k];
		}
		*all_ns += own_ns ? span : 0;
	}
	return vcpus;
}

/* Returns whether it is the main loop. */
static bool name_holder(const struct bp_waits *w, uint32_t thread, struct bp_strbuf *sb)
{
	bool main_loop = !strcmp(w->threads[thread].role, "main loop");

	if (main_loop)
		bp_strbuf_adds(sb, "the main loop");
	else
		bp_waits_thread_name(w, thread, sb);
	return main_loop;
}

static void find_locks(struct bp_findings *f, struct bp_locks *x, uint64_t all_ns)
{
	const struct bp_waits *w = bp_locks_waits(x);
	bool iothread = false, named = false;
	struct bp_lock_sum s;

	for (size_t i = 0; i < w->n_threads; i++) {
		iothread |= !strcmp(w->threads[i].role, "iothread");
		named |= !strncmp(w->threads[i].comm, "CPU ", 4);
	}
	for (size_t i = 0; bp_locks_sum(x, i, &s); i++) {
		bp_cleanup(bp_strbuf_deinit) struct bp_strbuf lock = BP_STRBUF_INIT;
		bp_cleanup(bp_strbuf_deinit) struct bp_strbuf who = BP_STRBUF_INIT;
		char t[BP_UNITS_MAX], p[BP_UNITS_MAX];
		const char *how;

		if (percent(s.ns, all_ns) < SHARE_MIN)
			continue;
		if (s.addr)
			bp_waits_lock_name(w, s.addr, &lock, &how);
		else
			bp_strbuf_adds(&lock, "locks");
		for (size_t k = 0; k < BP_ARRAY_SIZE(s.by) && percent(s.by[k].ns, s.all_ns) >= SHARE_MIN;
		     k++) {
			bp_strbuf_adds(&who, k ? ", " : ", held by ");
			bp_strbuf_addf(&who, "%s %s", s.by[k].who,
				       bp_units_pct(p, percent(s.by[k].ns, s.all_ns)));
		}
		/* For a part of it, there would be a cure. */
		if (percent(s.main_loop_ns, s.all_ns) >= MAIN_LOOP_MIN && named && !iothread)
			bp_strbuf_adds(&who, "; no iothread takes block devices off the main loop");
		bp_find(f, percent(s.ns, all_ns), "report locks", NULL, "vCPUs waited %s for %s%s",
			bp_units_ns(t, (int64_t)s.ns), bp_strbuf_str(&lock), bp_strbuf_str(&who));
		if (percent(s.preempted_ns, all_ns) >= SHARE_MIN)
			bp_find(f, percent(s.preempted_ns, all_ns), "report locks", NULL,
				"for %s of the waits for %s their holder was preempted: the host's CPUs are "
				"busy",
				bp_units_ns(t, (int64_t)s.preempted_ns), bp_strbuf_str(&lock));
	}
}

/* vCPUs that wait to the end for one lock: they hang, or something took longer than anybody looked. */
static void find_open(struct bp_findings *f, struct bp_locks *x, uint64_t all_ns)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf lock = BP_STRBUF_INIT;
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf who = BP_STRBUF_INIT;
	const struct bp_waits *w = bp_locks_waits(x);
	const struct bp_futex_wait *one, *longest = NULL;
	uint64_t ns = 0, longest_ns = 0;
	size_t at = 0, n = 0;
	char t[BP_UNITS_MAX];
	const char *how;

	while (bp_locks_open(x, &at, &one)) {
		if (!bp_waits_is_vcpu(&w->threads[one->thread]) || one->exit_ns - one->enter_ns <= longest_ns)
			continue;
		longest = one;
		longest_ns = one->exit_ns - one->enter_ns;
	}
	if (!longest)
		return;
	for (at = 0; bp_locks_open(x, &at, &one);) {
		if (bp_waits_is_vcpu(&w->threads[one->thread]) && one->addr == longest->addr) {
			ns += one->exit_ns - one->enter_ns;
			n++;
		}
	}
	if (percent(ns, all_ns) < SHARE_MIN)
		return;
	if (longest->addr)
		bp_waits_lock_name(w, longest->addr, &lock, &how);
	else
		bp_strbuf_adds(&lock, "a lock");
	if (longest->how != BP_HOLDER_UNKNOWN) {
		bp_strbuf_adds(&who, ", held by ");
		name_holder(w, longest->holder, &who);
		if (longest->holder_where)
			bp_strbuf_addf(&who, " (in %s)", longest->holder_where);
	}
	bp_find(f, percent(ns, all_ns), "report locks", NULL,
		"%zu vCPU%s still waited for %s at the end, %s%s%s", n, n == 1 ? "" : "s",
		bp_strbuf_str(&lock), longest->before ? "at least " : "", bp_units_ns(t, (int64_t)longest_ns),
		bp_strbuf_str(&who));
}

void bp_waits_find(struct bp_findings *f, struct bp_locks *x)
{
	static const char *const text[BP_OFF_CLASSES] = {
	    [BP_OFF_PREEMPTED] = "could run, but had no CPU of the host: it has too few, or other work",
	    [BP_OFF_HALT] = "were halted: the guest had nothing to do, or waited for a device or a timer",
	    [BP_OFF_IO] = "waited for a device of the host",
	    [BP_OFF_FAULT] = "waited for memory in page faults",
	    [BP_OFF_KERNEL] = "waited for the host's kernel",
	    [BP_OFF_FUTEX] = "waited for other threads of QEMU, on condition variables or events",
	    [BP_OFF_POLL] = "waited for file descriptors and timers",
	    [BP_OFF_OTHER] = "were off the CPU for another reason (waiting for the recorder is one)",
	};
	const struct bp_waits *w = bp_locks_waits(x);
	uint64_t ns[BP_OFF_CLASSES] = {0}, all_ns = 0;
	bool vcpus = sum_threads(w, f->a->query, ns, &all_ns);
	char t[BP_UNITS_MAX];

	if (w->lost && bp_view_waits_only(f->a))
		bp_find(f, -1, "info", NULL,
			"%" PRIu64 " events of the host's scheduler lost while recording", w->lost);
	if (!vcpus)
		return;
	find_open(f, x, all_ns);
	find_locks(f, x, all_ns);
	for (int k = 0; k < BP_OFF_CLASSES; k++) {
		/* What the guest says of that is closer to it. */
		if (k == BP_OFF_HALT && !bp_view_waits_only(f->a))
			continue;
		if (text[k] && percent(ns[k], all_ns) >= SHARE_MIN)
			bp_find(f, percent(ns[k], all_ns),
				k == BP_OFF_PREEMPTED || k == BP_OFF_HALT ? "report vcpus" : "report off-cpu",
				NULL, "vCPUs %s (%s)", text[k], bp_units_ns(t, (int64_t)ns[k]));
	}
}

struct bp_err *bp_waits_overview(struct bp_analysis *a, struct bp_report *r)
{
	static const struct {
		const char *key, *what;
	} known[] = {
	    {"waits_roles", "threads named by"},
	    {"waits_lock_sites", "lock probes"},
	    {"waits_user_stacks", "user stacks"},
	};
	bp_cleanup(bp_findings_deinit) struct bp_findings f = {.a = a};
	bp_cleanup(bp_locks_destroyp) struct bp_locks *x = NULL;
	struct bp_err *err = bp_locks_create(a, false, &x);
	const char *command = bp_trace_info(a->trace, "command_line");
	int shown = command ? (int)strnlen(command, COMMAND_MAX) : 0;

	if (err)
		return err;
	bp_waits_title(a, bp_locks_waits(x), r, "Waits");
	if (shown)
		bp_report_title(r, "of: %.*s%s", shown, command, command[shown] ? " ..." : "");
	err = bp_vcpus_table(a, bp_locks_waits(x), r, true);
	if (!err)
		err = bp_locks_table(x, r, false, 5);
	if (!err)
		err = bp_off_cpu_table(a, r, 10);
	bp_waits_find(&f, x);
	if (!err)
		err = bp_findings_table(&f, r);
	if (err)
		return err;
	bp_waits_notes(bp_locks_waits(x), r);
	bp_report_note(
	    r, "no events of the guest are in this recording; more: `report vcpus`, `locks`, `off-cpu`, "
	       "`wakeups`");
	for (size_t i = 0; i < BP_ARRAY_SIZE(known); i++) {
		const char *value = bp_trace_info(a->trace, known[i].key);

		if (value)
			bp_report_note(r, "%s: %s", known[i].what, value);
	}
	return NULL;
}
