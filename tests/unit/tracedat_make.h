/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes small trace.dat files in memory, in either byte order and with everything that real ones may have. */
#ifndef BP_TESTS_TRACEDAT_MAKE_H
#define BP_TESTS_TRACEDAT_MAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define MAKE_PAGE 4096u

struct bytes {
	uint8_t *data;
	size_t len, cap;
	bool be;
};

static inline void put(struct bytes *b, const void *p, size_t n)
{
	if (b->len + n > b->cap) {
		b->cap = 2 * (b->len + n);
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
}

static inline void put_number(struct bytes *b, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		uint8_t c = (uint8_t)(v >> 8 * (b->be ? size - 1 - i : i));

		put(b, &c, 1);
	}
}

static inline void put_text(struct bytes *b, const char *s)
{
	put(b, s, strlen(s) + 1);
}

static inline void put_sized(struct bytes *b, const char *s, unsigned size)
{
	put_number(b, strlen(s), size);
	put(b, s, strlen(s));
}

static inline void pad_to(struct bytes *b, size_t n)
{
	static const uint8_t zero[64];

	while (b->len < n)
		put(b, zero, n - b->len < 64 ? n - b->len : 64);
}

static inline void set_number(struct bytes *b, size_t at, uint64_t v, unsigned size)
{
	struct bytes s = {.be = b->be};

	put_number(&s, v, size);
	memcpy(b->data + at, s.data, size);
	free(s.data);
}

/* ---- pages ---- */

struct pages {
	struct bytes b;
	size_t start; /* of the open page */
	uint64_t ts;
	unsigned long_bytes;
};

static inline void page_open(struct pages *p, uint64_t ts)
{
	pad_to(&p->b, (p->b.len + MAKE_PAGE - 1) / MAKE_PAGE * MAKE_PAGE);
	p->start = p->b.len;
	p->ts = ts;
	put_number(&p->b, ts, 8);
	put_number(&p->b, 0, p->long_bytes);
}

static inline void page_commit(struct pages *p, uint64_t flags)
{
	set_number(&p->b, p->start + 8, (p->b.len - p->start - 8 - p->long_bytes) | flags, p->long_bytes);
}

static inline void record_head(struct pages *p, unsigned type, uint32_t delta)
{
	put_number(&p->b, p->b.be ? (uint32_t)type << 27 | delta : delta << 5 | type, 4);
}

/* A record at @ts (not earlier than the one before). */
static inline void page_record(struct pages *p, uint64_t ts, const struct bytes *payload)
{
	uint64_t delta = ts - p->ts;
	size_t n = (payload->len + 3) & ~(size_t)3;

	if (delta >> 27) {
		record_head(p, 30, delta & ((1u << 27) - 1));
		put_number(&p->b, delta >> 27, 4);
		delta = 0;
	}
	if (n <= 112) {
		record_head(p, (unsigned)(n / 4), (uint32_t)delta);
	} else {
		record_head(p, 0, (uint32_t)delta);
		put_number(&p->b, n + 4, 4);
	}
	put(&p->b, payload->data, payload->len);
	pad_to(&p->b, p->b.len + n - payload->len);
	p->ts = ts;
}

static inline struct bytes payload(const struct pages *p, unsigned id, unsigned flags, int pid)
{
	struct bytes b = {.be = p->b.be};

	put_number(&b, id, 2);
	put_number(&b, flags, 1);
	put_number(&b, 0, 1);
	put_number(&b, (uint32_t)pid, 4);
	return b;
}

static inline void rec_entry(struct pages *p, uint64_t ts, int pid, uint64_t func, unsigned depth)
{
	struct bytes b = payload(p, 11, 0, pid);

	put_number(&b, func, 8);
	put_number(&b, depth, 4);
	page_record(p, ts, &b);
	free(b.data);
}

/* With a return value, as newer kernels have it. */
static inline void rec_exit(struct pages *p, uint64_t ts, int pid, uint64_t func, unsigned depth,
			    uint64_t called)
{
	struct bytes b = payload(p, 10, 0, pid);

	put_number(&b, func, 8);
	put_number(&b, 0, 8);
	put_number(&b, depth, 4);
	put_number(&b, 0, 4);
	put_number(&b, called, 8);
	put_number(&b, ts, 8);
	page_record(p, ts, &b);
	free(b.data);
}

static inline void rec_function(struct pages *p, uint64_t ts, int pid, unsigned flags, uint64_t ip,
				uint64_t parent)
{
	struct bytes b = payload(p, 1, flags, pid);

	put_number(&b, ip, 8);
	put_number(&b, parent, 8);
	page_record(p, ts, &b);
	free(b.data);
}

static inline void rec_switch(struct pages *p, uint64_t ts, int prev, int next, const char *next_comm)
{
	struct bytes b = payload(p, 314, 0, prev);
	char comm[16] = "";

	put(&b, comm, 16);
	put_number(&b, (uint32_t)prev, 4);
	snprintf(comm, sizeof(comm), "%s", next_comm);
	put(&b, comm, 16);
	put_number(&b, (uint32_t)next, 4);
	page_record(p, ts, &b);
	free(b.data);
}

static inline void rec_syscall(struct pages *p, uint64_t ts, int pid, bool enter, uint64_t nr)
{
	struct bytes b = payload(p, enter ? 346 : 345, 0, pid);

	put_number(&b, nr, 8);
	page_record(p, ts, &b);
	free(b.data);
}

static inline void rec_note(struct pages *p, uint64_t ts, int pid, const char *text)
{
	struct bytes b = payload(p, 999, 0, pid);
	size_t n = strlen(text) + 1;

	put_number(&b, n << 16 | 16, 4);
	put_number(&b, 7, 4);
	put(&b, text, n);
	page_record(p, ts, &b);
	free(b.data);
}

/* ---- descriptions ---- */

#define COMMON                                                                         \
	"format:\n"                                                                    \
	"\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"         \
	"\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"         \
	"\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n" \
	"\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"

static const char *const make_ftrace[] = {
    "name: function\nID: 1\n" COMMON "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned long parent_ip;\toffset:16;\tsize:8;\tsigned:0;\n\nprint fmt: \" %ps <-- %ps\"\n",
    "name: funcgraph_entry\nID: 11\n" COMMON "\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:int depth;\toffset:16;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n",
    "name: funcgraph_exit\nID: 10\n" COMMON "\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned long retval;\toffset:16;\tsize:8;\tsigned:0;\n"
    "\tfield:int depth;\toffset:24;\tsize:4;\tsigned:1;\n"
    "\tfield:unsigned int overrun;\toffset:28;\tsize:4;\tsigned:0;\n"
    "\tfield:unsigned long long calltime;\toffset:32;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned long long rettime;\toffset:40;\tsize:8;\tsigned:0;\n\nprint fmt: \"\"\n",
};

static const char *const make_sched[] = {
    "name: sched_switch\nID: 314\n" COMMON "\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:1;\n"
    "\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n"
    "\tfield:char next_comm[16];\toffset:28;\tsize:16;\tsigned:1;\n"
    "\tfield:pid_t next_pid;\toffset:44;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n",
};

static const char *const make_raw_syscalls[] = {
    "name: sys_enter\nID: 346\n" COMMON
    "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n\nprint fmt: \"\"\n",
    "name: sys_exit\nID: 345\n" COMMON "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n\nprint fmt: \"\"\n",
};

static const char *const make_test[] = {
    "name: note\nID: 999\n" COMMON "\tfield:__data_loc char[] text;\toffset:8;\tsize:4;\tsigned:1;\n"
    "\tfield:unsigned int level;\toffset:12;\tsize:4;\tsigned:0;\n\nprint fmt: \"%s\", __get_str(text)\n",
};

static const char make_kallsyms[] =
    "ffffffff83000000 T _text\nffffffff83001000 T outer\nffffffff83001100 t inner\n"
    "ffffffff83001200 D not_code\nffffffff83001300 T outer_alias\n"
    "ffffffffc0001000 t probe\t[some_mod]\n";
#define OUTER UINT64_C(0xffffffff83001000)
#define INNER UINT64_C(0xffffffff83001100)
#define PROBE UINT64_C(0xffffffffc0001000)
#define MAKE_SLIDE UINT64_C(0x2000000)

/* ---- files ---- */

enum make_packing { MAKE_NONE, MAKE_ZLIB, MAKE_ZSTD };

struct make {
	unsigned version;
	bool be;
	unsigned long_bytes;
	enum make_packing packing;
	uint64_t trace_id;
	/* A TIME_SHIFT option, when peer_id is not 0. */
	uint64_t peer_id;
	int64_t shift_ns;
	/* A GUEST option, when not 0. */
	uint64_t guest_id;
	const char *extra_format; /* one more description, of system "test" */
	const char *kallsyms;     /* NULL: make_kallsyms */
};

static inline void put_packed(struct bytes *b, enum make_packing how, const uint8_t *p, size_t n)
{
	size_t cap = how == MAKE_ZLIB ? compressBound(n) : ZSTD_compressBound(n), len = 0;
	uint8_t *out = malloc(cap);
	uLongf zlen = cap;

	if (!out)
		abort();
	if (how == MAKE_ZLIB) {
		if (compress(out, &zlen, p, n) != Z_OK)
			abort();
		len = zlen;
	} else {
		len = ZSTD_compress(out, cap, p, n, 3);
	}
	put_number(b, len, 4);
	put_number(b, n, 4);
	put(b, out, len);
	free(out);
}

/* Appends a section; returns its offset. */
static inline size_t put_section(struct bytes *b, unsigned id, enum make_packing how, const struct bytes *s)
{
	size_t at = b->len, size_at;

	put_number(b, id, 2);
	put_number(b, how != MAKE_NONE, 2);
	put_number(b, 0, 4);
	size_at = b->len;
	put_number(b, 0, 8);
	if (how == MAKE_NONE)
		put(b, s->data, s->len);
	else
		put_packed(b, how, s->data, s->len);
	set_number(b, size_at, b->len - size_at - 8, 8);
	return at;
}

static inline void put_formats(struct bytes *b, const char *system, const char *const *list, size_t n,
			       const char *extra)
{
	if (system)
		put_text(b, system);
	put_number(b, n + (extra != NULL), 4);
	for (size_t i = 0; i < n; i++)
		put_sized(b, list[i], 8);
	if (extra)
		put_sized(b, extra, 8);
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static inline void put_part(struct bytes *b, const struct make *m, unsigned id)
{
	char page[256];

	switch (id) {
	case 16:
		snprintf(page, sizeof(page),
			 "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
			 "\tfield: local_t commit;\toffset:8;\tsize:%u;\tsigned:1;\n"
			 "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
			 "\tfield: char data;\toffset:%u;\tsize:%u;\tsigned:1;\n",
			 m->long_bytes, 8 + m->long_bytes, MAKE_PAGE - 8 - m->long_bytes);
		put_text(b, "header_page");
		put_sized(b, page, 8);
		put_text(b, "header_event");
		put_sized(b, "# compressed entry header\n", 8);
		break;
	case 17:
		put_formats(b, NULL, make_ftrace, COUNT(make_ftrace), NULL);
		break;
	case 18:
		put_number(b, 3, 4);
		put_formats(b, "sched", make_sched, COUNT(make_sched), NULL);
		put_formats(b, "raw_syscalls", make_raw_syscalls, COUNT(make_raw_syscalls), NULL);
		put_formats(b, "test", make_test, COUNT(make_test), m->extra_format);
		break;
	case 19:
		put_sized(b, m->kallsyms ? m->kallsyms : make_kallsyms, 4);
		break;
	case 20:
		put_sized(b, "", 4);
		break;
	case 21:
		put_sized(b, "7 seven\n8 eight\n", 8);
		break;
	}
}

static inline void put_option(struct bytes *b, unsigned id, const struct bytes *o)
{
	put_number(b, id, 2);
	put_number(b, o->len, 4);
	put(b, o->data, o->len);
}

static inline void put_options(struct bytes *b, const struct make *m)
{
	struct bytes o = {.be = m->be};

	put_text(&o, "[local] global counter");
	put_option(b, 4, &o);
	o.len = 0;
	put_text(&o, "Linux host 6.1.0-test x86_64");
	put_option(b, 5, &o);
	if (m->trace_id) {
		o.len = 0;
		put_number(&o, m->trace_id, 8);
		put_option(b, 11, &o);
	}
	if (m->peer_id) {
		o.len = 0;
		put_number(&o, m->peer_id, 8);
		put_number(&o, 0, 4);
		put_number(&o, 2, 4);
		for (unsigned cpu = 0; cpu < 2; cpu++) {
			put_number(&o, 1, 4);
			put_number(&o, 1000, 8);
			put_number(&o, (uint64_t)m->shift_ns, 8);
			put_number(&o, 1, 8);
		}
		put_option(b, 12, &o);
	}
	if (m->guest_id) {
		o.len = 0;
		put_text(&o, "guest");
		put_number(&o, m->guest_id, 8);
		put_number(&o, 1, 4);
		put_number(&o, 0, 4);
		put_number(&o, 4321, 4);
		put_option(b, 13, &o);
	}
	free(o.data);
}

static inline void page_align(struct bytes *b)
{
	pad_to(b, (b->len + MAKE_PAGE - 1) / MAKE_PAGE * MAKE_PAGE);
}

/* The whole file; the caller frees its data. The pages are those of CPUs 0, 1, ... */
static inline struct bytes make_file(const struct make *m, const struct pages *cpus, unsigned n)
{
	struct bytes b = {.be = m->be}, o = {.be = m->be}, part = {.be = m->be};
	uint64_t at[8] = {0}, size[8] = {0};
	size_t where, table;
	char version[2] = {(char)('0' + m->version), '\0'};

	put(&b, "\x17\x08\x44tracing", 10);
	put_text(&b, version);
	put_number(&b, m->be, 1);
	put_number(&b, m->long_bytes, 1);
	put_number(&b, MAKE_PAGE, 4);
	if (m->version == 6) {
		for (unsigned id = 16; id <= 21; id++)
			put_part(&b, m, id);
		put_number(&b, n, 4);
		put_text(&b, "options  ");
		put_options(&b, m);
		put_number(&b, 0, 2);
		put_text(&b, "flyrecord");
		table = b.len;
		for (unsigned i = 0; i < 2 * n; i++)
			put_number(&b, 0, 8);
		for (unsigned i = 0; i < n; i++) {
			page_align(&b);
			set_number(&b, table + 16 * i, b.len, 8);
			set_number(&b, table + 16 * i + 8, cpus[i].b.len, 8);
			put(&b, cpus[i].b.data, cpus[i].b.len);
		}
		return b;
	}
	put_text(&b, m->packing == MAKE_NONE ? "none" : m->packing == MAKE_ZLIB ? "zlib" : "zstd");
	put_text(&b, "1");
	where = b.len;
	put_number(&b, 0, 8);
	for (unsigned id = 16; id <= 21; id++) {
		part.len = 0;
		put_part(&part, m, id);
		table = put_section(&b, id, m->packing, &part);
		put_number(&o, id, 2);
		put_number(&o, 8, 4);
		put_number(&o, table, 8);
	}
	put_options(&o, m);
	put_number(&o, 0, 2);
	put_number(&o, 8, 4);
	put_number(&o, 0, 8);
	set_number(&b, where, b.len, 8);
	put_section(&b, 0, MAKE_NONE, &o);
	where = b.len - 8;
	/* The events. */
	table = b.len;
	put_number(&b, 3, 2);
	put_number(&b, m->packing != MAKE_NONE, 2);
	put_number(&b, 0, 4);
	put_number(&b, 0, 8);
	for (unsigned i = 0; i < n; i++) {
		page_align(&b);
		at[i] = b.len;
		if (m->packing == MAKE_NONE) {
			struct bytes all = {.be = m->be};

			put(&all, cpus[i].b.data, cpus[i].b.len);
			page_align(&all);
			put(&b, all.data, all.len);
			free(all.data);
			size[i] = b.len - at[i];
		} else {
			put_number(&b, (cpus[i].b.len + MAKE_PAGE - 1) / MAKE_PAGE, 4);
			for (size_t k = 0; k < cpus[i].b.len; k += MAKE_PAGE)
				put_packed(&b, m->packing, cpus[i].b.data + k,
					   cpus[i].b.len - k < MAKE_PAGE ? cpus[i].b.len - k : MAKE_PAGE);
			size[i] = b.len - at[i] - 4;
		}
	}
	set_number(&b, table + 8, b.len - table - 16, 8);
	set_number(&b, where, b.len, 8);
	o.len = part.len = 0;
	put_number(&part, table, 8);
	put_text(&part, "");
	put_text(&part, "local");
	put_number(&part, MAKE_PAGE, 4);
	put_number(&part, n, 4);
	for (unsigned i = 0; i < n; i++) {
		put_number(&part, i, 4);
		put_number(&part, at[i], 8);
		put_number(&part, size[i], 8);
	}
	put_option(&o, 3, &part);
	put_number(&o, 0, 2);
	put_number(&o, 8, 4);
	put_number(&o, 0, 8);
	put_section(&b, 0, m->packing, &o);
	free(o.data);
	free(part.data);
	return b;
}

#endif
