// SPDX-License-Identifier: GPL-2.0-or-later
/* How views of waits call threads, locks and stacks. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "analyzers/query.h"
#include "analyzers/view.h"
#include "analyzers/waits.h"
#include "core/cleanup.h"
#include "core/report.h"
#include "core/units.h"

void bp_waits_title(struct bp_analysis *a, const struct bp_waits *w, struct bp_report *r, const char *what)
{
	char t[BP_UNITS_MAX], n[BP_UNITS_MAX];

	/* Of a recording with the guest's events there is more to say. */
	if (bp_trace_n_blocks(w->trace) && !bp_trace_info(w->trace, "import_format"))
		bp_view_title(a, r, what);
	bp_report_title(r, "%s: %s records of the host's scheduler over %s", what,
			bp_units_count(n, w->records),
			bp_units_ns(t, w->last_ns > w->first_ns ? (int64_t)(w->last_ns - w->first_ns) : 0));
}

void bp_waits_notes(const struct bp_waits *w, struct bp_report *r)
{
	char t[BP_UNITS_MAX];
	uint64_t switches = 0;

	for (size_t i = 0; i < w->n_threads; i++)
		switches += w->threads[i].switches;
	/* What was lost says it already. */
	if (!w->lost && w->unseen > switches / 200)
		bp_report_note(
		    r,
		    "the host's kernel did not trace %" PRIu64 " of %" PRIu64
		    " times that a thread got a CPU: it is taken to have had one when it was woken",
		    w->unseen, switches);
	if (!w->records)
		bp_report_note(r, "no waits of host threads are in this recording");
	if (w->lost && w->lost_ns)
		bp_report_note(
		    r,
		    "%" PRIu64
		    " events of the host were lost while recording, in %s; what threads did then is "
		    "left out",
		    w->lost, bp_units_ns(t, (int64_t)w->lost_ns));
	else if (w->lost)
		bp_report_note(
		    r,
		    "%" PRIu64
		    " events of the host were lost while recording; what threads did then is left out",
		    w->lost);
	if (w->damaged)
		bp_report_note(r, "%" PRIu64 " damaged blocks of waits were left out", w->damaged);
	if (w->records && !w->any_qemu)
		bp_report_note(r, "no thread is named as those of QEMU are (-name guest,debug-threads=on); "
				  "all threads are shown");
}

bool bp_waits_shown(const struct bp_waits *w, uint32_t thread)
{
	return !w->any_qemu || w->threads[thread].qemu;
}

bool bp_waits_listed(const struct bp_query *q, const struct bp_waits *w, uint32_t thread)
{
	const struct bp_wait_thread *t = &w->threads[thread];
	char number[16];

	if (!bp_waits_shown(w, thread))
		return false;
	if (q->has_vcpus &&
	    (t->vcpu >= 64 * BP_ARRAY_SIZE(q->vcpus) || !(q->vcpus[t->vcpu / 64] >> t->vcpu % 64 & 1)))
		return false;
	snprintf(number, sizeof(number), "%u", t->tid);
	return !q->processes || bp_patterns_match(q->processes, t->comm, NULL) ||
	       bp_patterns_match(q->processes, number, NULL);
}

/* QEMU does not name its threads: all have the name of the program. */
static bool is_main_loops_name(const struct bp_waits *w, const char *comm)
{
	for (size_t i = 0; i < w->n_threads; i++) {
		if (!strcmp(w->threads[i].role, "main loop") && !strcmp(w->threads[i].comm, comm))
			return true;
	}
	return false;
}

void bp_waits_thread_name(const struct bp_waits *w, uint32_t thread, struct bp_strbuf *sb)
{
	const struct bp_wait_thread *t = thread < w->n_threads ? &w->threads[thread] : NULL;

	if (!t)
		bp_strbuf_adds(sb, "[unknown]");
	else if (w->any_qemu && !t->qemu && *t->role)
		bp_strbuf_addf(sb, "%s [%u]", t->comm, t->tid); /* of another QEMU */
	else if (t->vcpu != UINT16_MAX && strncmp(t->comm, "CPU ", 4))
		bp_strbuf_addf(sb, "CPU %u [%u]", t->vcpu, t->tid);
	else if (strcmp(t->role, "main loop") != 0 && is_main_loops_name(w, t->comm))
		bp_strbuf_addf(sb, "%s [%u]", t->comm, t->tid);
	else if (*t->comm)
		bp_strbuf_adds(sb, t->comm);
	else if (t->tid == UINT32_MAX)
		bp_strbuf_adds(sb, "[unknown]");
	else if (t->tid)
		bp_strbuf_addf(sb, "[%u]", t->tid);
	else
		bp_strbuf_adds(sb, "[idle]");
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* In what mapping an address lies, as "file+0x10": of a file, or of the memory right behind its data. */
static bool mapping_name(const struct bp_waits *w, uint64_t addr, struct bp_strbuf *sb)
{
	const struct bp_fact *last = NULL;
	uint64_t base = 0, end = 0;

	for (size_t i = 0; i < w->n_places; i++) {
		const struct bp_fact *f = w->places[i];

		if (f->kind != BP_FACT_HOST_MAP)
			continue;
		/* The first mapping of a file is where it was loaded. */
		if (*f->s1 && (!last || strcmp(last->s1, f->s1) != 0) && f->s1[0] == '/') {
			last = f;
			base = f->v[0];
		} else if (*f->s1 && f->s1[0] != '/') {
			last = NULL;
		} else if (!*f->s1 && f->v[0] != end) {
			last = NULL;
		}
		end = f->v[1];
		if (addr < f->v[0] || addr >= f->v[1])
			continue;
		if (last)
			bp_strbuf_addf(sb, "%s+0x%" PRIx64, base_name(last->s1), addr - base);
		else if (*f->s1)
			bp_strbuf_addf(sb, "%s 0x%" PRIx64, f->s1, addr);
		else
			return false;
		return true;
	}
	return false;
}

/* Functions that only wait or lock, and those of the C library: who called them says more. */
static bool is_primitive(const struct bp_host_frame *f)
{
	static const char *const beginnings[] = {"pthread_",    "__pthread_", "___pthread_",     "__lll_",
						 "__GI_",       "lll_",       "futex_",          "__futex_",
						 "qemu_mutex_", "qemu_cond_", "qemu_rec_mutex_", "qemu_sem_",
						 "qemu_event_", "bql_lock",   "syscall"};

	if (f->space != BP_HOST_USER)
		return false;
	for (size_t i = 0; i < BP_ARRAY_SIZE(beginnings); i++) {
		if (!strncmp(f->name, beginnings[i], strlen(beginnings[i])))
			return true;
	}
	return !strncmp(base_name(f->module), "libc.so", 7) || !strncmp(base_name(f->module), "libc-2", 6) ||
	       !strncmp(base_name(f->module), "libpthread", 10);
}

static bool is_thread_start(const char *name)
{
	return !strcmp(name, "start_thread") || !strcmp(name, "clone") || !strncmp(name, "__clone", 7);
}

/* How many of the innermost frames only wait or lock: with those without a name in between. */
static size_t skip_primitives(const struct bp_trace *t, const uint32_t *ids, size_t n)
{
	size_t skip = 0;

	for (size_t i = 0; i < n && i <= skip + 1; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, ids[i]);

		if (f && is_primitive(f) && !is_thread_start(f->name))
			skip = i + 1;
	}
	return skip < n ? skip : 0;
}

void bp_waits_user_function(const struct bp_trace *t, uint32_t stack, struct bp_strbuf *sb)
{
	uint32_t best = 0;
	size_t n = 0;
	const uint32_t *ids = bp_trace_host_stack(t, stack, &n);

	for (size_t i = skip_primitives(t, ids, n); i < n; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, ids[i]);

		if (!f || f->space != BP_HOST_USER || is_thread_start(f->name))
			continue;
		if (!best || *f->name)
			best = ids[i];
		if (*f->name)
			break;
	}
	if (best)
		bp_waits_frame_name(t, best, sb);
}

/* " in f": of those who waited. */
static bool waiters_name(const struct bp_waits *w, uint64_t addr, struct bp_strbuf *sb)
{
	uint32_t stack = bp_waits_waiter_stack(w, addr);

	if (!stack)
		return false;
	bp_strbuf_adds(sb, " in ");
	bp_waits_user_function(w->trace, stack, sb);
	return true;
}

void bp_waits_lock_name(const struct bp_waits *w, uint64_t addr, struct bp_strbuf *sb, const char **how)
{
	const struct bp_fact *best = NULL;

	*how = "";
	for (size_t i = 0; i < w->n_places; i++) {
		const struct bp_fact *f = w->places[i];

		if (f->kind == BP_FACT_LOCK && addr >= f->v[0] && addr - f->v[0] < (f->v[1] ? f->v[1] : 1))
			best = f;
	}
	if (best) {
		bp_strbuf_adds(sb, best->s1);
		*how = best->s2;
		if (!strcmp(best->s2, "mapping"))
			waiters_name(w, addr, sb);
	} else if (addr && addr == w->big_lock) {
		bp_strbuf_adds(sb, "big lock");
		*how = "waited on in the lock function";
	} else if (mapping_name(w, addr, sb)) {
		*how = "mapping";
		waiters_name(w, addr, sb);
	} else {
		bp_strbuf_addf(sb, "0x%" PRIx64, addr);
		if (waiters_name(w, addr, sb))
			*how = "stack of a waiter";
	}
}

void bp_waits_frame_name(const struct bp_trace *t, uint32_t frame, struct bp_strbuf *sb)
{
	const struct bp_host_frame *f = bp_trace_host_frame(t, frame);

	if (!f)
		bp_strbuf_adds(sb, "[unknown]");
	else if (*f->name)
		bp_strbuf_adds(sb, f->name);
	else if (*f->module)
		bp_strbuf_addf(sb, "[%s+0x%" PRIx64 "]", base_name(f->module), f->offset);
	else
		bp_strbuf_addf(sb, "0x%" PRIx64, f->addr);
}

void bp_waits_stack_text(const struct bp_trace *t, uint32_t stack, size_t n, bool callers,
			 struct bp_strbuf *sb)
{
	static const char *const plain[] = {"dump_stack", "__schedule", "schedule", "dump_stack_lvl"};
	size_t len = 0, shown = 0;
	const uint32_t *ids = bp_trace_host_stack(t, stack, &len);

	for (size_t i = callers ? skip_primitives(t, ids, len) : 0; i < len && shown < n; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, ids[i]);
		bool says = true;

		for (size_t k = 0; f && k < BP_ARRAY_SIZE(plain); k++)
			says &= strcmp(f->name, plain[k]) != 0;
		if (!says)
			continue;
		if (shown++)
			bp_strbuf_adds(sb, " <- ");
		bp_waits_frame_name(t, ids[i], sb);
	}
}
