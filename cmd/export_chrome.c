// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Chrome's trace-event JSON: one complete ("X") event for each slice, for chrome://tracing, Perfetto and
 * others. Source: "Trace Event Format" of the Chromium project: events, metadata events, displayTimeUnit; ts
 * and dur in us.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/export.h"
#include "core/cleanup.h"
#include "core/version.h"

enum { PID_VCPUS = 1, PID_GUEST = 2 };
enum { TID_MARKS = 1, TID_CONSOLE = 2 };

static uint32_t task_tid(uint32_t vcpu)
{
	return 2 * vcpu + 1;
}

static uint32_t func_tid(uint32_t vcpu)
{
	return 2 * vcpu + 2;
}

/* Nanoseconds (or instructions) as microseconds (or thousands). */
static void add_us(struct bp_strbuf *sb, uint64_t v)
{
	bp_strbuf_addf(sb, "%" PRIu64 ".%03" PRIu64, v / 1000, v % 1000);
}

static void add_complete(struct bp_export *x, uint32_t tid, uint64_t start, uint64_t time)
{
	bp_strbuf_addf(&x->out, "{\"ph\":\"X\",\"pid\":%d,\"tid\":%" PRIu32 ",\"ts\":", PID_VCPUS, tid);
	add_us(&x->out, start);
	bp_strbuf_adds(&x->out, ",\"dur\":");
	add_us(&x->out, time - start);
}

/*
 * Viewers sort by start, then by length, then by place in the file, and take the first for the outer one.
 * Slices that start and end together are therefore kept back until the outermost of them has ended, and go
 * out in reverse.
 */
struct held {
	uint64_t start, time; /* of all of them */
	uint32_t funcs[256];
	size_t n;
};

struct chrome {
	struct bp_export x; /* first: callbacks get its address */
	struct held **held; /* by vCPU; NULL until it is needed */
	size_t n_held;
};

static void release(struct bp_export *x, uint32_t vcpu, struct held *h)
{
	struct bp_strbuf name = BP_STRBUF_INIT;

	while (h->n) {
		uint32_t func = h->funcs[--h->n];

		bp_strbuf_clear(&name);
		bp_export_func(x, func, &name);
		add_complete(x, func_tid(vcpu), h->start, h->time);
		bp_strbuf_addf(&x->out, ",\"cat\":\"%s\",\"name\":", bp_export_space(x, func));
		bp_export_json(&x->out, &name);
		bp_strbuf_adds(&x->out, "},\n");
	}
	bp_strbuf_deinit(&name);
}

static struct held *held_of(struct chrome *c, uint32_t vcpu)
{
	if (vcpu >= c->n_held) {
		size_t n = (size_t)vcpu + 1;
		struct held **held = reallocarray(c->held, n, sizeof(*held));

		if (!held)
			return NULL;
		memset(held + c->n_held, 0, (n - c->n_held) * sizeof(*held));
		c->held = held;
		c->n_held = n;
	}
	if (!c->held[vcpu])
		c->held[vcpu] = calloc(1, sizeof(struct held));
	return c->held[vcpu];
}

static void end(struct bp_export *x, uint32_t vcpu, uint32_t func, uint64_t start, uint64_t time)
{
	struct held *h = held_of((struct chrome *)x, vcpu);

	if (!h) {
		x->out.failed = true;
		return;
	}
	if (h->start != start || h->time != time || h->n == BP_ARRAY_SIZE(h->funcs))
		release(x, vcpu, h);
	h->start = start;
	h->time = time;
	h->funcs[h->n++] = func;
}

static void task_end(struct bp_export *x, uint32_t vcpu, uint32_t task, uint64_t start, uint64_t time)
{
	struct bp_strbuf name = BP_STRBUF_INIT;

	add_complete(x, task_tid(vcpu), start, time);
	bp_export_task(x, task, true, &name);
	bp_strbuf_adds(&x->out, ",\"cat\":\"task\",\"name\":");
	bp_export_json(&x->out, &name);
	bp_strbuf_adds(&x->out, "},\n");
	bp_strbuf_deinit(&name);
}

static void add_name(struct bp_export *x, const char *what, int pid, uint32_t tid, const char *name,
		     uint32_t number)
{
	bp_strbuf_addf(&x->out,
		       "{\"ph\":\"M\",\"pid\":%d,\"tid\":%" PRIu32 ",\"name\":\"%s\",\"args\":{\"name\":\"",
		       pid, tid, what);
	bp_strbuf_adds(&x->out, name);
	if (number != UINT32_MAX)
		bp_strbuf_addf(&x->out, " %" PRIu32, number);
	bp_strbuf_adds(&x->out, "\"}},\n");
}

static void add_order(struct bp_export *x, int pid, uint32_t tid, uint32_t order)
{
	bp_strbuf_addf(&x->out,
		       "{\"ph\":\"M\",\"pid\":%d,\"tid\":%" PRIu32
		       ",\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":%" PRIu32 "}},\n",
		       pid, tid, order);
}

static void add_instants(struct bp_export *x)
{
	struct bp_strbuf text = BP_STRBUF_INIT;

	for (size_t i = 0; i < x->n_facts && bp_export_drain(x); i++) {
		const struct bp_fact *f = &x->facts[i];
		bool mark = f->kind == BP_FACT_MARK;
		uint64_t time;

		bp_strbuf_clear(&text);
		if (!bp_export_instant(x, f, &time, &text))
			continue;
		bp_strbuf_addf(&x->out,
			       "{\"ph\":\"i\",\"s\":\"%s\",\"pid\":%d,\"tid\":%d,\"ts\":", mark ? "g" : "t",
			       PID_GUEST, mark ? TID_MARKS : TID_CONSOLE);
		add_us(&x->out, time);
		bp_strbuf_addf(&x->out, ",\"cat\":\"%s\",\"name\":", mark ? "mark" : "console");
		bp_export_json(&x->out, &text);
		bp_strbuf_adds(&x->out, "},\n");
	}
	x->out.failed |= text.failed;
	bp_strbuf_deinit(&text);
}

static void add_names(struct bp_export *x, const bool *seen, size_t n_seen)
{
	for (uint32_t i = 0; i < n_seen; i++) {
		if (!seen[i])
			continue;
		add_name(x, "thread_name", PID_VCPUS, task_tid(i), "tasks on vCPU", i);
		add_order(x, PID_VCPUS, task_tid(i), task_tid(i));
		add_name(x, "thread_name", PID_VCPUS, func_tid(i), "vCPU", i);
		add_order(x, PID_VCPUS, func_tid(i), func_tid(i));
	}
	add_name(x, "thread_name", PID_GUEST, TID_MARKS, "marks", UINT32_MAX);
	add_name(x, "thread_name", PID_GUEST, TID_CONSOLE, "console", UINT32_MAX);
	add_name(x, "process_name", PID_GUEST, 0, "guest", UINT32_MAX);
	add_name(x, "process_name", PID_VCPUS, 0, "vCPUs", UINT32_MAX);
	/* No comma after the last one. */
	if (x->out.len >= 2 && !x->out.failed)
		x->out.len -= 2;
	bp_strbuf_adds(&x->out, "\n]}\n");
}

struct bp_err *bp_export_chrome(struct bp_export *x)
{
	static const struct bp_slice_ops ops = {.end = end, .task_end = task_end};
	struct chrome c = {.x = *x};
	bp_autofree bool *seen = NULL;
	size_t n_seen = 0;
	struct bp_err *err;

	bp_strbuf_addf(&c.x.out,
		       "{\"displayTimeUnit\":\"ns\",\n"
		       "\"otherData\":{\"exporter\":\"bootprof %s\",\"clock\":\"%s\"},\n"
		       "\"traceEvents\":[\n",
		       BOOTPROF_VERSION, x->clock == BP_CLOCK_INSNS ? "insns" : "time");
	add_instants(&c.x);
	err = bp_slices_run(&c.x, &ops, BP_SLICES_ALL, &seen, &n_seen);
	for (uint32_t i = 0; i < c.n_held; i++) {
		if (c.held[i])
			release(&c.x, i, c.held[i]);
		free(c.held[i]);
	}
	free(c.held);
	if (!err)
		add_names(&c.x, seen, n_seen);
	*x = c.x;
	return err;
}
