// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * speedscope's own JSON: an evented profile for each vCPU, tasks at the bottom of its stacks.
 * Source: https://www.speedscope.app/file-format-schema.json: EventedProfile, OpenFrameEvent,
 * CloseFrameEvent, Frame.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/export.h"
#include "core/cleanup.h"
#include "core/version.h"

/*
 * Functions are frames 0 to n_funcs - 1, tasks follow. One profile after the other is written, each on a walk
 * of its own: events of several vCPUs come interleaved, and memory is not to grow with their number.
 */
struct speedscope {
	struct bp_export x; /* first: callbacks get its address */
	bool any_profile, any_event;
	uint64_t start, end;
};

static struct speedscope *of(struct bp_export *x)
{
	return (struct speedscope *)x;
}

/* The last frame of all stands for tasks of which nothing is known. */
static uint64_t task_frame(const struct bp_export *x, uint32_t task)
{
	return x->n_funcs + bp_export_task_index(x, task);
}

static void add_event(struct bp_export *x, uint32_t vcpu, char type, uint64_t frame, uint64_t at)
{
	struct speedscope *s = of(x);

	if (!s->any_event) {
		bp_strbuf_addf(&x->out,
			       "%s\n{\"type\":\"evented\",\"name\":\"vCPU %" PRIu32 "\",\"unit\":\"%s\","
			       "\"startValue\":%" PRIu64 ",\"events\":[\n",
			       s->any_profile ? "," : "", vcpu,
			       x->clock == BP_CLOCK_INSNS ? "none" : "nanoseconds", at);
		s->any_profile = true;
	} else {
		bp_strbuf_adds(&x->out, ",\n");
	}
	s->any_event = true;
	s->end = at;
	bp_strbuf_addf(&x->out, "{\"type\":\"%c\",\"frame\":%" PRIu64 ",\"at\":%" PRIu64 "}", type, frame,
		       at);
}

static void begin(struct bp_export *x, uint32_t vcpu, uint32_t func, uint64_t time)
{
	add_event(x, vcpu, 'O', func, time);
}

static void end(struct bp_export *x, uint32_t vcpu, uint32_t func, uint64_t start, uint64_t time)
{
	(void)start;
	add_event(x, vcpu, 'C', func, time);
}

static void task_begin(struct bp_export *x, uint32_t vcpu, uint32_t task, uint64_t time)
{
	add_event(x, vcpu, 'O', task_frame(x, task), time);
}

static void task_end(struct bp_export *x, uint32_t vcpu, uint32_t task, uint64_t start, uint64_t time)
{
	(void)start;
	add_event(x, vcpu, 'C', task_frame(x, task), time);
}

static BP_MUST_CHECK struct bp_err *add_profile(struct speedscope *s, uint32_t vcpu, bool **seen,
						size_t *n_seen)
{
	static const struct bp_slice_ops ops = {
	    .begin = begin,
	    .end = end,
	    .task_begin = task_begin,
	    .task_end = task_end,
	};
	struct bp_err *err;

	s->any_event = false;
	err = bp_slices_run(&s->x, &ops, vcpu, seen, n_seen);
	if (!err && s->any_event)
		bp_strbuf_addf(&s->x.out, "],\"endValue\":%" PRIu64 "}", s->end);
	return err;
}

static void add_frames(struct bp_export *x)
{
	struct bp_strbuf name = BP_STRBUF_INIT;

	bp_strbuf_adds(&x->out, ",\n\"shared\":{\"frames\":[\n");
	for (size_t i = 0; i < x->n_funcs && bp_export_drain(x); i++) {
		bp_strbuf_clear(&name);
		bp_export_func(x, (uint32_t)i, &name);
		bp_strbuf_adds(&x->out, "{\"name\":");
		bp_export_json(&x->out, &name);
		bp_strbuf_clear(&name);
		bp_strbuf_adds(&name, x->funcs[i].module);
		if (name.len) {
			bp_strbuf_adds(&x->out, ",\"file\":");
			bp_export_json(&x->out, &name);
		}
		bp_strbuf_adds(&x->out, "},\n");
	}
	for (size_t i = 0; i < x->n_tasks && bp_export_drain(x); i++) {
		bp_strbuf_clear(&name);
		bp_export_task(x, x->tasks[i].id, true, &name);
		bp_strbuf_adds(&x->out, "{\"name\":");
		bp_export_json(&x->out, &name);
		bp_strbuf_adds(&x->out, "},\n");
	}
	bp_strbuf_adds(&x->out, "{\"name\":\"[task]\"}\n]}");
	x->out.failed |= name.failed;
	bp_strbuf_deinit(&name);
}

struct bp_err *bp_export_speedscope(struct bp_export *x)
{
	struct speedscope s = {.x = *x};
	bp_autofree bool *seen = NULL;
	struct bp_strbuf name = BP_STRBUF_INIT;
	size_t n_seen = 0;
	struct bp_err *err;

	bp_strbuf_adds(&s.x.out,
		       "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\n\"name\":");
	bp_strbuf_adds(&name, bp_trace_path(x->trace));
	bp_export_json(&s.x.out, &name);
	bp_strbuf_deinit(&name);
	bp_strbuf_addf(&s.x.out,
		       ",\n\"exporter\":\"bootprof %s\",\n\"activeProfileIndex\":0,\n\"profiles\":[",
		       BOOTPROF_VERSION);
	err = add_profile(&s, 0, &seen, &n_seen);
	for (uint32_t i = 1; i < n_seen && !err; i++)
		if (seen[i] && bp_export_drain(&s.x))
			err = add_profile(&s, i, NULL, NULL);
	if (!err) {
		bp_strbuf_adds(&s.x.out, "]");
		add_frames(&s.x);
		bp_strbuf_adds(&s.x.out, "}\n");
	}
	*x = s.x;
	return err;
}
