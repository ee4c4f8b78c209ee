// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Perfetto's trace: a sequence of TracePacket messages in the protobuf wire format, written by hand. Field
 * numbers are those of trace_packet.proto, track_descriptor.proto, track_event.proto and interned_data.proto
 * of the Perfetto project; timestamps are nanoseconds, which is the default clock's unit. Wire format:
 * protobuf.dev, "Encoding": a field is a varint of number << 3 | type; type 0 is a varint, 2 is bytes.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/export.h"
#include "core/cleanup.h"

enum { TRACE_PACKET = 1 };
enum {
	PACKET_TIMESTAMP = 8,
	PACKET_SEQUENCE_ID = 10,
	PACKET_TRACK_EVENT = 11,
	PACKET_INTERNED_DATA = 12,
	PACKET_SEQUENCE_FLAGS = 13,
	PACKET_TRACK_DESCRIPTOR = 60,
};
enum { STATE_CLEARED = 1, NEEDS_STATE = 2 }; /* of PACKET_SEQUENCE_FLAGS */
enum {
	TRACK_UUID = 1,
	TRACK_NAME = 2,
	TRACK_PARENT = 5,
	TRACK_CHILD_ORDERING = 11,
	TRACK_RANK = 12,
};
enum { ORDER_EXPLICIT = 3 }; /* of TRACK_CHILD_ORDERING */
enum {
	EVENT_TYPE = 9,
	EVENT_NAME_IID = 10,
	EVENT_TRACK = 11,
	EVENT_NAME = 23,
};
enum { SLICE_BEGIN = 1, SLICE_END = 2, INSTANT = 3 };
enum { INTERNED_EVENT_NAMES = 2, NAME_IID = 1, NAME_NAME = 2 };

#define SEQUENCE 1

/* Tracks. All hang on one without a process: only then is their order the one that we ask for. */
enum { UUID_ROOT = 1, UUID_MARKS = 2, UUID_CONSOLE = 3, UUID_VCPUS = 16 };

struct perfetto {
	struct bp_export x;             /* first: callbacks get its address */
	struct bp_strbuf packet, inner; /* being built */
	uint8_t *named;                 /* set of functions whose names have been given */
	bool *known;                    /* vCPUs whose tracks have been described */
	size_t n_known;
};

static struct perfetto *of(struct bp_export *x)
{
	return (struct perfetto *)x;
}

static void add_varint(struct bp_strbuf *sb, uint64_t v)
{
	char bytes[10];
	size_t n = 0;

	while (v >= 0x80) {
		bytes[n++] = (char)(v | 0x80);
		v >>= 7;
	}
	bytes[n++] = (char)v;
	bp_strbuf_add(sb, bytes, n);
}

static void add_u64(struct bp_strbuf *sb, unsigned field, uint64_t v)
{
	add_varint(sb, (uint64_t)field << 3);
	add_varint(sb, v);
}

static void add_bytes(struct bp_strbuf *sb, unsigned field, const char *data, size_t len)
{
	add_varint(sb, (uint64_t)field << 3 | 2);
	add_varint(sb, len);
	bp_strbuf_add(sb, data, len);
}

static void add_sb(struct bp_strbuf *sb, unsigned field, const struct bp_strbuf *bytes)
{
	add_bytes(sb, field, bp_strbuf_str(bytes), bytes->len);
	sb->failed |= bytes->failed;
}

static void end_packet(struct perfetto *p, unsigned flags)
{
	add_u64(&p->packet, PACKET_SEQUENCE_ID, SEQUENCE);
	if (flags)
		add_u64(&p->packet, PACKET_SEQUENCE_FLAGS, flags);
	add_sb(&p->x.out, TRACE_PACKET, &p->packet);
	bp_strbuf_clear(&p->packet);
	bp_strbuf_clear(&p->inner);
}

static void add_track(struct perfetto *p, uint64_t uuid, const char *name, uint64_t rank, unsigned flags)
{
	add_u64(&p->inner, TRACK_UUID, uuid);
	add_bytes(&p->inner, TRACK_NAME, name, strlen(name));
	if (uuid == UUID_ROOT)
		add_u64(&p->inner, TRACK_CHILD_ORDERING, ORDER_EXPLICIT);
	else
		add_u64(&p->inner, TRACK_PARENT, UUID_ROOT);
	add_u64(&p->inner, TRACK_RANK, rank);
	add_sb(&p->packet, PACKET_TRACK_DESCRIPTOR, &p->inner);
	end_packet(p, flags);
}

static uint64_t task_track(uint32_t vcpu)
{
	return UUID_VCPUS + 2 * (uint64_t)vcpu;
}

static uint64_t func_track(uint32_t vcpu)
{
	return UUID_VCPUS + 2 * (uint64_t)vcpu + 1;
}

static void need_vcpu(struct perfetto *p, uint32_t vcpu)
{
	char name[32];

	if (vcpu >= p->n_known) {
		size_t n = (size_t)vcpu + 1;
		bool *known = realloc(p->known, n);

		if (!known) {
			p->x.out.failed = true;
			return;
		}
		memset(known + p->n_known, 0, n - p->n_known);
		p->known = known;
		p->n_known = n;
	}
	if (p->known[vcpu])
		return;
	p->known[vcpu] = true;
	snprintf(name, sizeof(name), "tasks on vCPU %" PRIu32, vcpu);
	add_track(p, task_track(vcpu), name, task_track(vcpu), 0);
	snprintf(name, sizeof(name), "vCPU %" PRIu32, vcpu);
	add_track(p, func_track(vcpu), name, func_track(vcpu), 0);
}

/* An event's packet up to its name, in p->packet and p->inner. */
static void start_event(struct perfetto *p, uint64_t track, unsigned type, uint64_t time)
{
	add_u64(&p->packet, PACKET_TIMESTAMP, time);
	add_u64(&p->inner, EVENT_TYPE, type);
	add_u64(&p->inner, EVENT_TRACK, track);
}

static void end_event(struct perfetto *p, unsigned flags)
{
	add_sb(&p->packet, PACKET_TRACK_EVENT, &p->inner);
	end_packet(p, flags);
}

/* A protobuf string is UTF-8; names pass the sink for terminals, which leaves nothing else. */
static void add_safe(struct bp_strbuf *sb, unsigned field, const struct bp_strbuf *text)
{
	struct bp_strbuf safe = BP_STRBUF_INIT;

	bp_strbuf_add_term(&safe, bp_strbuf_str(text), text->len);
	safe.failed |= text->failed;
	add_sb(sb, field, &safe);
	bp_strbuf_deinit(&safe);
}

/* Functions are named by number; the packet that uses one first also tells its name. */
static void intern(struct perfetto *p, uint32_t func)
{
	struct bp_strbuf name = BP_STRBUF_INIT, entry = BP_STRBUF_INIT, data = BP_STRBUF_INIT;

	if (p->named[func / 8] & 1u << func % 8)
		return;
	p->named[func / 8] |= (uint8_t)(1u << func % 8);
	bp_export_func(&p->x, func, &name);
	add_u64(&entry, NAME_IID, (uint64_t)func + 1);
	add_safe(&entry, NAME_NAME, &name);
	add_sb(&data, INTERNED_EVENT_NAMES, &entry);
	add_sb(&p->packet, PACKET_INTERNED_DATA, &data);
	bp_strbuf_deinit(&name);
	bp_strbuf_deinit(&entry);
	bp_strbuf_deinit(&data);
}

static void begin(struct bp_export *x, uint32_t vcpu, uint32_t func, uint64_t time)
{
	struct perfetto *p = of(x);

	start_event(p, func_track(vcpu), SLICE_BEGIN, time);
	intern(p, func);
	add_u64(&p->inner, EVENT_NAME_IID, (uint64_t)func + 1);
	end_event(p, NEEDS_STATE);
}

static void end(struct bp_export *x, uint32_t vcpu, uint32_t func, uint64_t start, uint64_t time)
{
	(void)func;
	(void)start;
	start_event(of(x), func_track(vcpu), SLICE_END, time);
	end_event(of(x), 0);
}

static void task_begin(struct bp_export *x, uint32_t vcpu, uint32_t task, uint64_t time)
{
	struct perfetto *p = of(x);
	struct bp_strbuf name = BP_STRBUF_INIT;

	need_vcpu(p, vcpu);
	bp_export_task(x, task, true, &name);
	start_event(p, task_track(vcpu), SLICE_BEGIN, time);
	add_safe(&p->inner, EVENT_NAME, &name);
	end_event(p, 0);
	bp_strbuf_deinit(&name);
}

static void task_end(struct bp_export *x, uint32_t vcpu, uint32_t task, uint64_t start, uint64_t time)
{
	(void)task;
	(void)start;
	start_event(of(x), task_track(vcpu), SLICE_END, time);
	end_event(of(x), 0);
}

static void add_instants(struct perfetto *p)
{
	struct bp_strbuf text = BP_STRBUF_INIT;

	for (size_t i = 0; i < p->x.n_facts && bp_export_drain(&p->x); i++) {
		const struct bp_fact *f = &p->x.facts[i];
		uint64_t time;

		bp_strbuf_clear(&text);
		if (!bp_export_instant(&p->x, f, &time, &text))
			continue;
		start_event(p, f->kind == BP_FACT_MARK ? UUID_MARKS : UUID_CONSOLE, INSTANT, time);
		add_safe(&p->inner, EVENT_NAME, &text);
		end_event(p, 0);
	}
	bp_strbuf_deinit(&text);
}

struct bp_err *bp_export_perfetto(struct bp_export *x)
{
	static const struct bp_slice_ops ops = {
	    .begin = begin,
	    .end = end,
	    .task_begin = task_begin,
	    .task_end = task_end,
	};
	struct perfetto p = {.x = *x};
	struct bp_err *err;

	p.named = calloc(x->n_funcs / 8 + 1, 1);
	if (!p.named)
		return bp_err_nomem();
	add_track(&p, UUID_ROOT, "guest", 0, STATE_CLEARED);
	add_track(&p, UUID_MARKS, "marks", 0, 0);
	add_track(&p, UUID_CONSOLE, "console", 1, 0);
	add_instants(&p);
	err = bp_slices_run(&p.x, &ops, BP_SLICES_ALL, NULL, NULL);
	free(p.named);
	free(p.known);
	bp_strbuf_deinit(&p.packet);
	bp_strbuf_deinit(&p.inner);
	*x = p.x;
	return err;
}
