// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Baseline files. Small enough to be committed: functions in the order of their first calls, times in
 * microseconds with the rounding carried from one to the next, so that sums stay right.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analyzers/summary.h"
#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/version.h"

#define SCHEMA "bootprof-summary/"
#define SCHEMA_VERSION 1
#define MAX_BYTES (64u << 20)

/* ---- writing ---- */

static void add_str(struct bp_strbuf *sb, const char *s)
{
	bp_strbuf_addc(sb, '"');
	bp_strbuf_add_json(sb, s, strlen(s));
	bp_strbuf_addc(sb, '"');
}

static void add_member(struct bp_strbuf *sb, const char *name, const char *value)
{
	bp_strbuf_addf(sb, ",\n\"%s\":", name);
	add_str(sb, value);
}

/* Nanoseconds as microseconds; what is rounded away goes on to the next value. */
static int64_t to_us(int64_t *carry, int64_t ns)
{
	int64_t v = ns + *carry, us = (v + (v < 0 ? -500 : 500)) / 1000;

	*carry = v - us * 1000;
	return us;
}

struct order {
	uint32_t func, order;
};

static int compare_order(const void *x, const void *y)
{
	const struct order *a = x, *b = y;
	uint32_t ka = a->order ? a->order : UINT32_MAX, kb = b->order ? b->order : UINT32_MAX;

	if (ka != kb)
		return ka < kb ? -1 : 1;
	return a->func < b->func ? -1 : a->func > b->func;
}

static void add_index(struct bp_strbuf *sb, const uint32_t *to, uint32_t i)
{
	if (i == BP_SUM_NONE)
		bp_strbuf_adds(sb, "-1");
	else
		bp_strbuf_addf(sb, "%" PRIu32, to ? to[i] : i);
}

/* Numbers of modules, in the order in which the functions name them; their list. */
static struct bp_err *add_modules(struct bp_strbuf *sb, const struct bp_summary *s, const struct order *order,
				  uint32_t *module_of)
{
	bp_autofree uint32_t *first = malloc((s->n_funcs + 1) * sizeof(*first));
	size_t n = 0;

	if (!first)
		return bp_err_nomem();
	bp_strbuf_adds(sb, ",\n\"modules\":[");
	for (size_t i = 0; i < s->n_funcs; i++) {
		const struct bp_sum_func *f = &s->funcs[order[i].func];
		size_t k;

		for (k = 0; k < n; k++) {
			if (s->funcs[first[k]].module == f->module && s->funcs[first[k]].space == f->space)
				break;
		}
		if (k == n) {
			first[n++] = order[i].func;
			bp_strbuf_addf(sb, "%s[%d,", k ? "," : "", f->space);
			add_str(sb, f->module);
			bp_strbuf_addc(sb, ']');
		}
		module_of[order[i].func] = (uint32_t)k;
	}
	bp_strbuf_adds(sb, "]");
	return NULL;
}

static struct bp_err *add_functions(struct bp_strbuf *sb, const struct bp_summary *s, uint32_t *to)
{
	bp_autofree struct order *order = malloc((s->n_funcs + 1) * sizeof(*order));
	bp_autofree uint32_t *module_of = malloc((s->n_funcs + 1) * sizeof(*module_of));
	int64_t carry = 0, total_carry = 0, first_carry = 0;
	uint64_t before = 0;
	struct bp_err *err;

	if (!order || !module_of)
		return bp_err_nomem();
	for (size_t i = 0; i < s->n_funcs; i++)
		order[i] = (struct order){(uint32_t)i, s->funcs[i].order};
	qsort(order, s->n_funcs, sizeof(*order), compare_order);
	for (size_t i = 0; i < s->n_funcs; i++)
		to[order[i].func] = (uint32_t)i;
	err = add_modules(sb, s, order, module_of);
	if (err)
		return err;
	bp_strbuf_adds(sb, ",\n\"functions\":[");
	for (size_t i = 0; i < s->n_funcs; i++) {
		const struct bp_sum_func *f = &s->funcs[order[i].func];
		int64_t first = f->order ? to_us(&first_carry, (int64_t)(f->first_ns - before)) : -1;
		int64_t self = to_us(&carry, f->self_ns);

		if (f->order)
			before = f->first_ns;
		total_carry = 0;
		bp_strbuf_addf(sb, "%s[%" PRIu32 ",", i ? ",\n" : "\n", module_of[order[i].func]);
		add_str(sb, f->name);
		bp_strbuf_addf(sb,
			       ",%" PRIu64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",",
			       f->calls, f->self_insns, self, f->total_insns - f->self_insns,
			       to_us(&total_carry, f->total_ns - f->self_ns), first);
		add_index(sb, NULL, f->phase);
		bp_strbuf_addc(sb, ',');
		/* Only what has a number by now can be named: mostly true, as who calls was called before. */
		add_index(sb, to, f->caller);
		bp_strbuf_addc(sb, ']');
	}
	bp_strbuf_adds(sb, "]");
	return NULL;
}

static void add_nodes(struct bp_strbuf *sb, const struct bp_summary *s, const uint32_t *to)
{
	int64_t carry = 0;

	bp_strbuf_addf(sb,
		       ",\n\"pruned\":%s,\"least_us\":%" PRId64 ",\"least_insns\":%" PRId64 ",\n\"paths\":[",
		       s->pruned ? "true" : "false", s->least_ns / 1000, s->least_insns);
	for (size_t i = 0; i < s->n_nodes; i++) {
		const struct bp_sum_node *x = &s->nodes[i];
		int64_t self = to_us(&carry, x->self_ns), rest = to_us(&carry, x->rest_ns);

		bp_strbuf_addf(sb, "%s[%" PRIu32 ",", i ? ",\n" : "\n", x->parent);
		add_index(sb, to, x->func);
		bp_strbuf_addf(sb, ",%" PRIu64 ",%" PRId64 ",%" PRId64, x->calls, x->self_insns, self);
		if (x->rest_insns || rest)
			bp_strbuf_addf(sb, ",%" PRId64 ",%" PRId64, x->rest_insns, rest);
		bp_strbuf_addc(sb, ']');
	}
	bp_strbuf_adds(sb, "]");
}

static void add_floor(struct bp_strbuf *sb, const struct bp_summary *s, const uint32_t *to)
{
	const char *sep = "";

	bp_strbuf_addf(sb,
		       ",\n\"floor\":{\"runs\":%u,\"insns\":%" PRId64 ",\"kernel_insns\":%" PRId64
		       ",\"sudden_insns\":%" PRId64 ",\n\"phases\":[",
		       s->floor_runs, s->floor_insns, s->floor_kernel_insns, s->floor_sudden_insns);
	for (size_t i = 0; i < s->n_phases; i++)
		bp_strbuf_addf(sb, "%s%" PRId64, i ? "," : "", s->phases[i].floor);
	bp_strbuf_adds(sb, "],\n\"functions\":[");
	for (size_t i = 0; i < s->n_funcs; i++) {
		if (!s->funcs[i].floor)
			continue;
		bp_strbuf_addf(sb, "%s[%" PRIu32 ",%" PRId64 "]", sep, to[i], s->funcs[i].floor);
		sep = ",";
	}
	bp_strbuf_adds(sb, "]}");
}

static struct bp_err *add_all(struct bp_strbuf *sb, const struct bp_summary *s)
{
	bp_autofree uint32_t *to = malloc((s->n_funcs + 1) * sizeof(*to));
	struct bp_err *err;

	if (!to)
		return bp_err_nomem();
	bp_strbuf_addf(sb, "{\"schema\":\"" SCHEMA "%d\",\n\"bootprof\":\"" BOOTPROF_VERSION "\"",
		       SCHEMA_VERSION);
	add_member(sb, "kernel", s->kernel);
	add_member(sb, "build_id", s->build_id);
	add_member(sb, "qemu", s->qemu);
	add_member(sb, "machine", s->machine);
	add_member(sb, "accel", s->accel);
	add_member(sb, "cpu", s->cpu);
	add_member(sb, "memory", s->memory);
	add_member(sb, "append", s->append);
	add_member(sb, "ended", s->ended);
	bp_strbuf_addf(sb, ",\n\"smp\":%u,\n\"command\":[", s->smp);
	for (char **p = s->argv; p && *p; p++) {
		bp_strbuf_adds(sb, p == s->argv ? "" : ",");
		add_str(sb, *p);
	}
	bp_strbuf_adds(sb, "],\n\"inputs\":[");
	for (size_t i = 0; i < s->n_inputs; i++) {
		bp_strbuf_adds(sb, i ? ",[" : "[");
		add_str(sb, s->inputs[i].path);
		bp_strbuf_addf(sb, ",%" PRIu64 ",%" PRIu32 "]", s->inputs[i].bytes, s->inputs[i].crc);
	}
	bp_strbuf_addf(sb,
		       "],\n\"deterministic\":%s,\"imported\":%s,\"damaged\":%s,\"lost\":%" PRIu64
		       ",\"start\":%" PRIu64 ",\n\"ns\":%" PRIu64 ",\"insns\":%" PRIu64
		       ",\"kernel_ns\":%" PRIu64 ",\"kernel_insns\":%" PRIu64 ",\n\"phases\":[",
		       s->deterministic ? "true" : "false", s->imported ? "true" : "false",
		       s->damaged ? "true" : "false", s->lost, s->start, s->ns, s->insns, s->kernel_ns,
		       s->kernel_insns);
	for (size_t i = 0; i < s->n_phases; i++) {
		const struct bp_sum_phase *p = &s->phases[i];

		bp_strbuf_adds(sb, i ? ",\n[" : "\n[");
		add_str(sb, p->name);
		bp_strbuf_addf(sb, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]", p->ns, p->insns, p->halted_ns);
	}
	bp_strbuf_adds(sb, "]");
	err = add_functions(sb, s, to);
	if (err)
		return err;
	add_nodes(sb, s, to);
	bp_strbuf_adds(sb, ",\n\"kernel_modules\":[");
	for (size_t i = 0; i < s->n_modules; i++) {
		bp_strbuf_adds(sb, i ? ",\n[" : "\n[");
		add_str(sb, s->modules[i].name);
		bp_strbuf_addf(sb, ",%" PRIu64 ",", s->modules[i].loads);
		add_index(sb, NULL, s->modules[i].phase);
		bp_strbuf_addf(sb, ",%" PRIu64 ",%" PRIu64 "]", s->modules[i].init_ns,
			       s->modules[i].init_insns);
	}
	bp_strbuf_adds(sb, "],\n\"initcalls\":[");
	for (size_t i = 0; i < s->n_initcalls; i++) {
		bp_strbuf_adds(sb, i ? ",\n[" : "\n[");
		add_index(sb, to, s->initcalls[i].func);
		bp_strbuf_addc(sb, ',');
		add_str(sb, s->initcalls[i].level);
		bp_strbuf_addf(sb, ",%" PRIu64 ",%" PRIu64 "]", s->initcalls[i].ns, s->initcalls[i].insns);
	}
	bp_strbuf_adds(sb, "],\n\"syscalls\":[");
	for (size_t i = 0; i < s->n_syscalls; i++) {
		const struct bp_sum_syscall *x = &s->syscalls[i];

		bp_strbuf_adds(sb, i ? ",\n[" : "\n[");
		add_str(sb, x->name);
		bp_strbuf_addf(sb, ",%" PRIu64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]", x->calls, x->ns,
			       x->insns, x->wall_ns);
	}
	bp_strbuf_adds(sb, "],\n\"runs\":[");
	for (size_t i = 0; i < s->n_runs; i++) {
		const struct bp_sum_run *r = &s->runs[i];

		bp_strbuf_addf(sb, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",[", i ? ",\n" : "\n", r->start,
			       r->ns, r->insns);
		for (size_t k = 0; k < s->n_phases; k++)
			bp_strbuf_addf(sb, "%s%" PRIu64, k ? "," : "", r->phase_ns[k]);
		bp_strbuf_adds(sb, "]]");
	}
	bp_strbuf_adds(sb, "]");
	if (s->floor_runs)
		add_floor(sb, s, to);
	bp_strbuf_adds(sb, "}\n");
	return bp_strbuf_ok(sb);
}

static void unlinkp(char **path)
{
	if (*path)
		unlink(*path);
	free(*path);
}

struct bp_err *bp_summary_write(const struct bp_summary *s, const char *path)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	bp_cleanup(unlinkp) char *tmp = NULL;
	bp_autoclose int fd = -1;
	char *name = NULL;
	struct bp_err *err = add_all(&sb, s);

	if (err)
		return err;
	if (asprintf(&name, "%s.%d.tmp", path, (int)getpid()) < 0)
		return bp_err_nomem();
	fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0) {
		err = bp_err_os(errno, "%s", path);
		free(name);
		return err;
	}
	tmp = name;
	for (size_t done = 0; done < sb.len;) {
		ssize_t n = write(fd, sb.data + done, sb.len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bp_err_os(errno, "%s", path);
		done += (size_t)n;
	}
	if (fchmod(fd, 0644) || rename(tmp, path))
		return bp_err_os(errno, "%s", path);
	free(bp_steal(tmp));
	return NULL;
}

/* ---- reading ---- */

struct reader {
	const char *path;
	struct bp_summary *s;
	struct bp_err *err; /* the first */
};

static BP_PRINTF(2, 3) void bad(struct reader *r, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	if (r->err)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->err = bp_err_data(r->path, BP_NO_OFFSET, "%s", text);
}

/* Element @i of an array of the member @what; complains when it is no number from @least to @most. */
static int64_t num(struct reader *r, const json_t *row, size_t i, int64_t least, int64_t most,
		   const char *what, size_t at)
{
	const json_t *v = json_array_get(row, i);
	int64_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < least || n > most) {
		bad(r, "%s[%zu][%zu] is not a number from %" PRId64 " to %" PRId64, what, at, i, least, most);
		return least;
	}
	return n;
}

static const char *text(struct reader *r, const json_t *v, const char *what, size_t at)
{
	const char *s;

	if (!json_is_string(v)) {
		bad(r, "%s[%zu] has no text where one belongs", what, at);
		return "";
	}
	s = bp_summary_str(r->s, json_string_value(v));
	if (!s && !r->err)
		r->err = bp_err_nomem();
	return s ? s : "";
}

static const char *member_text(struct reader *r, const json_t *root, const char *name)
{
	const json_t *v = json_object_get(root, name);

	if (!v)
		return bp_summary_str(r->s, "");
	if (!json_is_string(v)) {
		bad(r, "\"%s\" is not a text", name);
		return "";
	}
	return text(r, v, name, 0);
}

static int64_t member_num(struct reader *r, const json_t *root, const char *name, int64_t most)
{
	const json_t *v = json_object_get(root, name);
	int64_t n = json_integer_value(v);

	if (v && (!json_is_integer(v) || n < 0 || n > most)) {
		bad(r, "\"%s\" is not a number from 0 to %" PRId64, name, most);
		return 0;
	}
	return n;
}

static bool member_bool(struct reader *r, const json_t *root, const char *name)
{
	const json_t *v = json_object_get(root, name);

	if (v && !json_is_boolean(v))
		bad(r, "\"%s\" is neither true nor false", name);
	return json_is_true(v);
}

/* An array of rows of at least @columns elements; its length, and zeroed memory for it. */
static const json_t *rows(struct reader *r, const json_t *root, const char *name, size_t columns, size_t size,
			  void **mem, size_t *n)
{
	const json_t *v = json_object_get(root, name);

	*n = 0;
	if (v && !json_is_array(v))
		bad(r, "\"%s\" is not a list", name);
	for (size_t i = 0; i < json_array_size(v) && !r->err; i++) {
		if (columns &&
		    (!json_is_array(json_array_get(v, i)) || json_array_size(json_array_get(v, i)) < columns))
			bad(r, "%s[%zu] is not a list of %zu values", name, i, columns);
	}
	if (r->err)
		return NULL;
	if (mem) {
		free(*mem);
		*mem = calloc(json_array_size(v) + 1, size);
		if (!*mem)
			r->err = bp_err_nomem();
	}
	if (!r->err)
		*n = json_array_size(v);
	return v;
}

static uint32_t index_or_none(struct reader *r, const json_t *row, size_t i, size_t n, const char *what,
			      size_t at)
{
	int64_t v = num(r, row, i, -1, (int64_t)n - 1, what, at);

	return v < 0 ? BP_SUM_NONE : (uint32_t)v;
}

/* Sums of times must not overflow. */
#define MAX_NS (INT64_MAX / (1 << 20))
#define MAX_US (MAX_NS / 1000)
#define MAX_INSNS MAX_NS

static void read_command(struct reader *r, const json_t *root)
{
	const json_t *v;
	size_t n;

	v = rows(r, root, "command", 0, 0, NULL, &n);
	if (n) {
		bp_autofree const char **argv = calloc(n + 1, sizeof(*argv));

		if (!argv) {
			r->err = bp_err_nomem();
			return;
		}
		for (size_t i = 0; i < n; i++)
			argv[i] = text(r, json_array_get(v, i), "command", i);
		if (!r->err)
			r->err = bp_summary_set_command(r->s, argv);
	}
	v = rows(r, root, "inputs", 3, sizeof(*r->s->inputs), (void **)&r->s->inputs, &n);
	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i);

		r->s->inputs[r->s->n_inputs++] = (struct bp_sum_input){
		    .path = text(r, json_array_get(row, 0), "inputs", i),
		    .bytes = (uint64_t)num(r, row, 1, 0, INT64_MAX, "inputs", i),
		    .crc = (uint32_t)num(r, row, 2, 0, UINT32_MAX, "inputs", i),
		};
	}
}

static void read_meta(struct reader *r, const json_t *root)
{
	struct bp_summary *s = r->s;

	read_command(r, root);
	s->kernel = member_text(r, root, "kernel");
	s->build_id = member_text(r, root, "build_id");
	s->qemu = member_text(r, root, "qemu");
	s->machine = member_text(r, root, "machine");
	s->accel = member_text(r, root, "accel");
	s->cpu = member_text(r, root, "cpu");
	s->memory = member_text(r, root, "memory");
	s->append = member_text(r, root, "append");
	s->ended = member_text(r, root, "ended");
	s->smp = (unsigned)member_num(r, root, "smp", 4096);
	s->deterministic = member_bool(r, root, "deterministic");
	s->imported = member_bool(r, root, "imported");
	s->damaged = member_bool(r, root, "damaged");
	s->lost = (uint64_t)member_num(r, root, "lost", INT64_MAX);
	s->start = (uint64_t)member_num(r, root, "start", INT64_MAX);
	s->ns = (uint64_t)member_num(r, root, "ns", MAX_NS);
	s->insns = (uint64_t)member_num(r, root, "insns", MAX_INSNS);
	s->kernel_ns = (uint64_t)member_num(r, root, "kernel_ns", MAX_NS);
	s->kernel_insns = (uint64_t)member_num(r, root, "kernel_insns", MAX_INSNS);
}

static void read_functions(struct reader *r, const json_t *root)
{
	struct bp_summary *s = r->s;
	const json_t *modules, *v;
	size_t n_modules, n, funcs;
	uint64_t at_ns = 0;
	uint32_t order = 0;

	modules = rows(r, root, "modules", 2, 0, NULL, &n_modules);
	v = rows(r, root, "functions", 10, sizeof(*s->funcs), (void **)&s->funcs, &funcs);
	for (n = 0; n < funcs && !r->err; n++) {
		const json_t *row = json_array_get(v, n);
		const json_t *module = json_array_get(
		    modules, (size_t)num(r, row, 0, 0, (int64_t)n_modules - 1, "functions", n));
		struct bp_sum_func *f = &s->funcs[n];
		int64_t first = num(r, row, 7, -1, MAX_US, "functions", n);

		if (r->err)
			return;
		f->space = (uint8_t)num(r, module, 0, 0, BP_SPACE_N - 1, "modules", n);
		f->module = text(r, json_array_get(module, 1), "modules", n);
		f->name = text(r, json_array_get(row, 1), "functions", n);
		f->calls = (uint64_t)num(r, row, 2, 0, MAX_INSNS, "functions", n);
		f->self_insns = num(r, row, 3, -MAX_INSNS, MAX_INSNS, "functions", n);
		f->self_ns = num(r, row, 4, -MAX_US, MAX_US, "functions", n) * 1000;
		f->total_insns = f->self_insns + num(r, row, 5, -MAX_INSNS, MAX_INSNS, "functions", n);
		f->total_ns = f->self_ns + num(r, row, 6, -MAX_US, MAX_US, "functions", n) * 1000;
		if (first >= 0) {
			at_ns += (uint64_t)first * 1000;
			f->first_ns = at_ns;
			f->order = ++order;
		}
		f->phase = index_or_none(r, row, 8, s->n_phases, "functions", n);
		f->caller = index_or_none(r, row, 9, funcs, "functions", n);
		s->self_ns += f->self_ns;
		s->self_insns += f->self_insns;
		s->calls += f->calls;
	}
	s->n_funcs = n;
}

static void read_nodes(struct reader *r, const json_t *root)
{
	struct bp_summary *s = r->s;
	size_t n;
	const json_t *v;

	if (!json_object_get(root, "paths"))
		return;
	v = rows(r, root, "paths", 5, sizeof(*s->nodes), (void **)&s->nodes, &n);
	s->n_nodes = n ? n : 1;
	if (!n && s->nodes)
		s->nodes[0].func = BP_SUM_NONE;
	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i);
		struct bp_sum_node *x = &s->nodes[i];

		x->parent = (uint32_t)num(r, row, 0, 0, i ? (int64_t)i - 1 : 0, "paths", i);
		x->func = i ? (uint32_t)num(r, row, 1, 0, (int64_t)s->n_funcs - 1, "paths", i) : BP_SUM_NONE;
		x->calls = (uint64_t)num(r, row, 2, 0, MAX_INSNS, "paths", i);
		x->self_insns = num(r, row, 3, -MAX_INSNS, MAX_INSNS, "paths", i);
		x->self_ns = num(r, row, 4, -MAX_US, MAX_US, "paths", i) * 1000;
		if (json_array_size(row) >= 7) {
			x->rest_insns = num(r, row, 5, -MAX_INSNS, MAX_INSNS, "paths", i);
			x->rest_ns = num(r, row, 6, -MAX_US, MAX_US, "paths", i) * 1000;
		}
	}
	s->pruned = member_bool(r, root, "pruned");
	s->least_ns = member_num(r, root, "least_us", MAX_US) * 1000;
	s->least_insns = member_num(r, root, "least_insns", MAX_INSNS);
}

static void read_lists(struct reader *r, const json_t *root)
{
	struct bp_summary *s = r->s;
	const json_t *v;
	size_t n;

	v = rows(r, root, "kernel_modules", 5, sizeof(*s->modules), (void **)&s->modules, &n);
	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i);

		s->modules[s->n_modules++] = (struct bp_sum_module){
		    .name = text(r, json_array_get(row, 0), "kernel_modules", i),
		    .loads = (uint64_t)num(r, row, 1, 0, UINT32_MAX, "kernel_modules", i),
		    .phase = index_or_none(r, row, 2, s->n_phases, "kernel_modules", i),
		    .init_ns = (uint64_t)num(r, row, 3, 0, MAX_NS, "kernel_modules", i),
		    .init_insns = (uint64_t)num(r, row, 4, 0, MAX_INSNS, "kernel_modules", i),
		};
	}
	v = rows(r, root, "initcalls", 4, sizeof(*s->initcalls), (void **)&s->initcalls, &n);
	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i);

		s->initcalls[s->n_initcalls++] = (struct bp_sum_initcall){
		    .func = (uint32_t)num(r, row, 0, 0, (int64_t)s->n_funcs - 1, "initcalls", i),
		    .level = text(r, json_array_get(row, 1), "initcalls", i),
		    .ns = (uint64_t)num(r, row, 2, 0, MAX_NS, "initcalls", i),
		    .insns = (uint64_t)num(r, row, 3, 0, MAX_INSNS, "initcalls", i),
		};
	}
	v = rows(r, root, "syscalls", 5, sizeof(*s->syscalls), (void **)&s->syscalls, &n);
	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i);

		s->syscalls[s->n_syscalls++] = (struct bp_sum_syscall){
		    .name = text(r, json_array_get(row, 0), "syscalls", i),
		    .calls = (uint64_t)num(r, row, 1, 0, MAX_INSNS, "syscalls", i),
		    .ns = num(r, row, 2, -MAX_NS, MAX_NS, "syscalls", i),
		    .insns = num(r, row, 3, -MAX_INSNS, MAX_INSNS, "syscalls", i),
		    .wall_ns = num(r, row, 4, -MAX_NS, MAX_NS, "syscalls", i),
		};
	}
}

static void read_runs(struct reader *r, const json_t *root)
{
	struct bp_summary *s = r->s;
	size_t n;
	const json_t *v = rows(r, root, "runs", 4, sizeof(*s->runs), (void **)&s->runs, &n);

	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i), *phases = json_array_get(row, 3);
		struct bp_sum_run *run = &s->runs[s->n_runs];

		run->phase_ns = calloc(s->n_phases + 1, sizeof(*run->phase_ns));
		if (!run->phase_ns) {
			r->err = bp_err_nomem();
			return;
		}
		s->n_runs++;
		run->start = (uint64_t)num(r, row, 0, 0, INT64_MAX, "runs", i);
		run->ns = (uint64_t)num(r, row, 1, 0, MAX_NS, "runs", i);
		run->insns = (uint64_t)num(r, row, 2, 0, MAX_INSNS, "runs", i);
		if (json_array_size(phases) != s->n_phases)
			bad(r, "runs[%zu] has %zu phases, not %zu", i, json_array_size(phases), s->n_phases);
		for (size_t k = 0; k < s->n_phases && !r->err; k++)
			run->phase_ns[k] = (uint64_t)num(r, phases, k, 0, MAX_NS, "runs[][3]", i);
	}
}

static void read_floor(struct reader *r, const json_t *root)
{
	struct bp_summary *s = r->s;
	const json_t *floor = json_object_get(root, "floor"), *v;
	size_t n;

	if (!floor)
		return;
	if (!json_is_object(floor)) {
		bad(r, "\"floor\" is not an object");
		return;
	}
	s->floor_runs = (unsigned)member_num(r, floor, "runs", 100000);
	s->floor_insns = member_num(r, floor, "insns", MAX_INSNS);
	s->floor_kernel_insns = member_num(r, floor, "kernel_insns", MAX_INSNS);
	s->floor_sudden_insns = member_num(r, floor, "sudden_insns", MAX_INSNS);
	v = json_object_get(floor, "phases");
	for (size_t i = 0; i < s->n_phases && i < json_array_size(v); i++)
		s->phases[i].floor = num(r, v, i, 0, MAX_INSNS, "floor.phases", 0);
	v = rows(r, floor, "functions", 2, 0, NULL, &n);
	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i);
		size_t f = (size_t)num(r, row, 0, 0, (int64_t)s->n_funcs - 1, "floor.functions", i);
		int64_t value = num(r, row, 1, 0, MAX_INSNS, "floor.functions", i);

		if (!r->err)
			s->funcs[f].floor = value;
	}
}

static void read_phases(struct reader *r, const json_t *root)
{
	struct bp_summary *s = r->s;
	size_t n;
	const json_t *v = rows(r, root, "phases", 4, sizeof(*s->phases), (void **)&s->phases, &n);

	for (size_t i = 0; i < n && !r->err; i++) {
		const json_t *row = json_array_get(v, i);

		s->phases[s->n_phases++] = (struct bp_sum_phase){
		    .name = text(r, json_array_get(row, 0), "phases", i),
		    .ns = (uint64_t)num(r, row, 1, 0, MAX_NS, "phases", i),
		    .insns = (uint64_t)num(r, row, 2, 0, MAX_INSNS, "phases", i),
		    .halted_ns = (uint64_t)num(r, row, 3, 0, MAX_NS, "phases", i),
		};
	}
}

static void json_freep(json_t **v)
{
	json_decref(*v);
}

static struct bp_err *check_schema(const char *path, const json_t *root)
{
	const char *schema = json_string_value(json_object_get(root, "schema"));
	char *end;
	long version;

	if (!json_is_object(root) || !schema || strncmp(schema, SCHEMA, strlen(SCHEMA)))
		return bp_err_data(path, 0, "not a baseline file (no \"schema\":\"" SCHEMA "N\")");
	version = strtol(schema + strlen(SCHEMA), &end, 10);
	if (*end || version < 1)
		return bp_err_data(path, 0, "the schema \"%s\" is not known", schema);
	if (version > SCHEMA_VERSION)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s: written by a newer bootprof: version %ld of baseline files, this one "
				  "reads up to %d",
				  path, version, SCHEMA_VERSION);
	return NULL;
}

struct bp_err *bp_summary_parse(const char *path, const char *data, size_t len, struct bp_summary **ret)
{
	bp_cleanup(bp_summary_destroyp) struct bp_summary *s = NULL;
	bp_cleanup(json_freep) json_t *root = NULL;
	struct reader r = {.path = path};
	json_error_t e;

	root = json_loadb(data, len, JSON_REJECT_DUPLICATES, &e);
	if (!root && json_error_code(&e) == json_error_out_of_memory)
		return bp_err_nomem();
	if (!root)
		return bp_err_data(path, e.position < 0 ? 0 : (uint64_t)e.position, "line %d: %s", e.line,
				   e.text);
	r.err = check_schema(path, root);
	if (!r.err)
		r.err = bp_summary_new(path, &s);
	if (r.err)
		return r.err;
	r.s = s;
	s->baseline = true;
	read_meta(&r, root);
	read_phases(&r, root);
	if (!r.err)
		read_functions(&r, root);
	if (!r.err)
		read_nodes(&r, root);
	if (!r.err)
		read_lists(&r, root);
	if (!r.err)
		read_runs(&r, root);
	if (!r.err)
		read_floor(&r, root);
	if (r.err)
		return r.err;
	*ret = bp_steal(s);
	return NULL;
}

bool bp_summary_is_file(const char *path)
{
	static const char start[] = "{\"schema\":\"" SCHEMA;
	char buf[sizeof(start)] = "";
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	       read(fd, buf, sizeof(start) - 1) == (ssize_t)sizeof(start) - 1 &&
	       !memcmp(buf, start, sizeof(start) - 1);
}

struct bp_err *bp_summary_read(const char *path, struct bp_summary **ret)
{
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	bp_autofree char *buf = NULL;
	size_t len = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return bp_err_os(errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return bp_err_data(path, BP_NO_OFFSET, "not a regular file");
	if (st.st_size > MAX_BYTES)
		return bp_err_data(path, BP_NO_OFFSET, "too large for a baseline file (%lld bytes)",
				   (long long)st.st_size);
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return bp_err_nomem();
	while (len < (size_t)st.st_size) {
		ssize_t n = read(fd, buf + len, (size_t)st.st_size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bp_err_os(errno, "%s", path);
		if (!n)
			break;
		len += (size_t)n;
	}
	return bp_summary_parse(path, buf, len, ret);
}
