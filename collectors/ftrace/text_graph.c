// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lines of the function_graph tracer. Columns, each of which an option turns off:
 *
 *     8.640064 |   0)   insmod-106   |  ...1. | + 42.257 us   |    vp_get_status [virtio_pci]() {
 *     time         CPU  task            flags     duration          call
 *
 * The time is when the call began, on closing lines when it ended. Durations have fewer decimals the longer
 * they are. Where the time is missing, each CPU's clock advances by the durations.
 */
#define _GNU_SOURCE 1 /* memmem() */
#include "collectors/ftrace/text.h"

#include <stdio.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* ---- reading ---- */

/* "42.257 us   " up to and with the bar that ends the column; *@p is behind it then */
static inline bool parse_duration(const char **p, const char *e, uint64_t *ns)
{
	const char *q = *p;
	uint64_t us, frac = 0;

	if (!bp_ftext_number(&q, e, &us))
		return false;
	if (q < e && *q == '.') {
		q++;
		frac = bp_ftext_fraction(&q, e, 3);
	}
	if (e - q < 4 || q[0] != ' ' || q[1] != 'u' || q[2] != 's')
		return false;
	q = bp_ftext_spaces(q + 3, e);
	if (q == e || *q != '|' || us > UINT64_MAX / 2000)
		return false;
	*ns = us * 1000 + frac;
	*p = q + 1;
	return true;
}

/* Index in BP_FTEXT_MARKS, or 7 */
static inline unsigned mark_index(char c)
{
	switch (c) {
	case '+':
		return 0;
	case '!':
		return 1;
	case '#':
		return 2;
	case '*':
		return 3;
	case '@':
		return 4;
	case '$':
		return 5;
	case '-':
		return 6;
	default:
		return 7;
	}
}

static inline bool is_mark(char c)
{
	return mark_index(c) < 7;
}

static uint16_t column(const char *line, const char *at)
{
	return at - line < 256 ? (uint16_t)(at - line) : 0;
}

/* A field that ends with a bar: the task, the flags of latency-format, or neither. */
static bool parse_field(const char *line, const char **p, const char *e, struct bp_ftext_line *l)
{
	const char *q = *p, *bar = memchr(q, '|', (size_t)(e - q)), *z = bar;
	size_t comm_len;
	int64_t pid;

	if (!bar)
		return false;
	while (z > q && z[-1] == ' ')
		z--;
	if (!l->task && bp_ftext_pid(q, z, &pid, &comm_len)) {
		l->task = q;
		l->task_len = (uint32_t)(z - q);
		l->columns.task = column(line, bar);
	} else if (!l->flags && z - q >= 4 && z - q <= 8 && !memchr(q, ' ', (size_t)(z - q))) {
		l->flags = true;
		l->columns.flags = column(line, bar);
	} else {
		return false;
	}
	*p = bar + 1;
	return true;
}

/* "name [module]" of "name = 0x1", "name [module] <-caller", "name ret=0" ... in a comment or before
 * arguments */
static const char *name_end(const char *p, const char *e)
{
	const char *q = p;

	while (q < e && *q != ' ' && *q != '(')
		q++;
	if (e - q > 3 && q[0] == ' ' && q[1] == '[') {
		const char *z = memchr(q, ']', (size_t)(e - q));

		if (z)
			return z + 1;
	}
	return q;
}

/* The call, without indentation. */
static inline bool parse_body(const char *p, const char *e, struct bp_ftext_line *l)
{
	size_t len = (size_t)(e - p);
	const char *q;

	if (!len)
		return false;
	if (len > 4 && e[-1] == '{' && e[-2] == ' ' && e[-3] == ')' && e[-4] == '(') {
		l->cls = BP_FTEXT_OPEN;
		l->name_len = (uint32_t)(len - 4);
	} else if (len > 3 && e[-1] == ';' && e[-2] == ')' && e[-3] == '(') {
		l->cls = BP_FTEXT_LEAF;
		l->name_len = (uint32_t)(len - 3);
	} else if (*p == '}') {
		l->cls = BP_FTEXT_CLOSE;
		if (len == 1)
			return true;
		if (len < 8 || memcmp(p, "} /* ", 5) != 0 || memcmp(e - 3, " */", 3) != 0)
			return false;
		p += 5;
		q = name_end(p, e - 3);
		/* Only what it returned: "= 0x0", "ret=0" */
		if (q == p || *p == '=' || memchr(p, '=', (size_t)(q - p)))
			return true;
		l->name_len = (uint32_t)(q - p);
	} else if (*p == '/') {
		if (len < 4 || p[1] != '*' || e[-1] != '/')
			return false;
		l->cls = BP_FTEXT_COMMENT;
		p = bp_ftext_spaces(p + 2, e - 2);
		q = e - 2;
		while (q > p && q[-1] == ' ')
			q--;
		l->name_len = (uint32_t)(q - p);
	} else {
		/* With arguments, return values, or callers: "f(a=1) {", "f(); /" "* = 0x0 *" "/" */
		const char *paren = memchr(p, '(', len);

		if (!paren || paren == p)
			return false;
		q = name_end(p, e);
		if (q != paren)
			return false;
		if (e[-1] == '/' && len > 6 && e[-2] == '*') {
			const char *c = memmem(paren, (size_t)(e - paren), " /*", 3);

			if (!c)
				return false;
			e = c;
			while (e > paren && e[-1] == ' ')
				e--;
		}
		if (e - paren < 3)
			return false;
		if (e[-1] == ';' && e[-2] == ')')
			l->cls = BP_FTEXT_LEAF;
		else if (e[-1] == '{' && e[-2] == ' ' && e[-3] == ')')
			l->cls = BP_FTEXT_OPEN;
		else
			return false;
		l->name_len = (uint32_t)(q - p);
	}
	l->name = p;
	/* A name is not a sentence. */
	if (l->cls == BP_FTEXT_COMMENT)
		return true;
	return l->name_len && *p != ' ' && name_end(p, p + l->name_len) == p + l->name_len;
}

bool bp_ftext_plain(const char *p, size_t len)
{
	return len && *p != ' ' && name_end(p, p + len) == p + len && !memchr(p, '=', len);
}

bool bp_ftext_parse_graph(const char *p, const char *e, struct bp_ftext_line *l)
{
	const char *q = bp_ftext_spaces(p, e), *start = p, *z;
	uint64_t v;

	*l = (struct bp_ftext_line){0};
	/* Time and CPU */
	z = q;
	if (bp_ftext_number(&z, e, &v)) {
		if (z < e && *z == '.' && v < UINT64_MAX / 2000000000) {
			uint64_t ns;

			z++;
			ns = bp_ftext_fraction(&z, e, 9);
			z = bp_ftext_spaces(z, e);
			if (z < e && *z == '|') {
				l->has_time = true;
				l->columns.time = column(p, z);
				l->time_ns = v * 1000000000 + ns;
				start = z + 1;
				q = z = bp_ftext_spaces(start, e);
				if (!bp_ftext_number(&z, e, &v))
					z = q;
			} else {
				z = q;
			}
		}
		if (z > q && z < e && *z == ')') {
			if (v >= BP_BUILDER_CPUS)
				return false;
			l->has_cpu = true;
			l->columns.cpu = column(p, z);
			l->cpu = (uint32_t)v;
			start = z + 1;
		}
	}
	/* Task, flags, duration; the call is what no bar follows. */
	for (;;) {
		q = bp_ftext_spaces(start, e);
		if (q == e)
			return false;
		if (*q == '|') {
			start = q + 1;
			l->columns.bar = column(p, q);
			break;
		}
		z = q;
		if (is_mark(*z) && e - z > 2 && z[1] == ' ') {
			z = bp_ftext_spaces(z + 2, e);
			if (parse_duration(&z, e, &l->duration_ns)) {
				l->mark = *q;
				l->has_duration = true;
				start = z;
				l->columns.bar = column(p, z - 1);
				break;
			}
		} else if (parse_duration(&z, e, &l->duration_ns)) {
			l->has_duration = true;
			start = z;
			l->columns.bar = column(p, z - 1);
			break;
		}
		if (e - q >= 11 && (!memcmp(q, "==========>", 11) || !memcmp(q, "<==========", 11))) {
			l->cls = BP_FTEXT_IRQ;
			l->depth = *q == '=';
			return true;
		}
		z = q;
		if (*q == '}' || (*q == '/' && e - q > 1 && q[1] == '*') || !parse_field(p, &z, e, l))
			break;
		start = z;
	}
	q = bp_ftext_spaces(start, e);
	l->depth = (uint32_t)(q - start);
	return parse_body(q, e, l);
}

/* ---- recording ---- */

static inline void call_done(struct bp_ftext_func *f, uint64_t ns, bool outermost)
{
	f->incl_ns += ns;
	if (outermost) {
		f->outer++;
		f->outer_ns += ns;
	}
}

/* Calls at this depth or deeper cannot be running any more when another begins: their end was not seen. */
static __attribute__((noinline)) void end_stale(struct bp_ftext *r, uint32_t cpu, struct bp_ftext_task *t,
						uint32_t depth)
{
	uint32_t n = 0;

	for (uint32_t i = t->n; i-- && t->frames[i].depth >= depth;) {
		struct bp_ftext_frame *f = &t->frames[i];

		if (!f->live)
			continue;
		f->live = false;
		n++;
		if (f->func != BP_FTEXT_NONE)
			r->funcs[f->func].uncertain++;
	}
	if (n)
		bp_ftext_leave(r, cpu, n);
}

/* Time stamps are cut to microseconds: one that is older than the newest time by more stands still. */
#define STALE_NS 1100

static __attribute__((noinline)) void stale_time(struct bp_ftext *r, uint32_t cpu, struct bp_ftext_task *t,
						 uint64_t time_ns)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];

	if (c->holding && time_ns != c->stamp_ns) {
		bp_ftext_release(r, cpu, time_ns > c->newest_ns ? time_ns - c->newest_ns : 0);
	} else if (!c->holding && time_ns == c->stamp_ns && c->running == t) {
		c->holding = true;
		c->hold_n = t->n;
	}
}

/* bp_ftext_run_task(), which as a rule runs already */
static inline void run_task(struct bp_ftext *r, struct bp_ftext_cpu *c, uint32_t cpu, struct bp_ftext_task *t,
			    uint64_t time_ns)
{
	if (__builtin_expect(c->running != t, 0))
		bp_ftext_run_task(r, cpu, t, time_ns);
	else if (time_ns > c->newest_ns)
		c->newest_ns = time_ns;
}

static inline void begin_call(struct bp_ftext *r, struct bp_ftext_cpu *c, struct bp_ftext_task *t,
			      const struct bp_ftext_call *l)
{
	if ((l->has & BP_FTEXT_HAS_TIME) && (c->holding || l->time_ns + STALE_NS < c->newest_ns))
		stale_time(r, l->cpu, t, l->time_ns);
	run_task(r, c, l->cpu, t, l->time_ns);
	c->stamp_ns = l->time_ns;
	if (t->n && t->frames[t->n - 1].depth >= l->depth)
		end_stale(r, l->cpu, t, l->depth);
	c->used = true;
}

static inline void take_open(struct bp_ftext *r, struct bp_ftext_cpu *c, struct bp_ftext_task *t,
			     uint32_t func, const struct bp_ftext_call *l, bool count, bool record)
{
	struct bp_ftext_frame *f;

	if (record)
		begin_call(r, c, t, l);
	f = bp_ftext_push(r, t);
	if (!f)
		return;
	*f =
	    (struct bp_ftext_frame){.enter_ns = c->newest_ns, .func = func, .depth = l->depth, .cpu = l->cpu};
	if (count && t->n > r->stacks.max_stack)
		r->stacks.max_stack = t->n;
	if (!record || func == BP_FTEXT_NONE)
		return;
	f->live = true;
	bp_ftext_enter(r, l->cpu, func, c->irq ? BP_EV_IRQ : BP_EV_CALL);
	c->irq = false;
}

static inline void take_leaf(struct bp_ftext *r, struct bp_ftext_cpu *c, struct bp_ftext_task *t,
			     uint32_t func, const struct bp_ftext_call *l, bool count, bool record)
{
	if (count && func != BP_FTEXT_NONE)
		call_done(&r->funcs[func], l->duration_ns, !t->n);
	if (!record)
		return;
	begin_call(r, c, t, l);
	if (func == BP_FTEXT_NONE)
		return;
	r->funcs[func].recorded_ns += l->duration_ns;
	bp_ftext_leaf(r, l->cpu, func, c->irq ? BP_EV_IRQ : BP_EV_CALL, l->duration_ns);
	c->irq = false;
}

/*
 * The call ended here but did not begin here. Without a task column it may have begun on another CPU, whose
 * clock then tells its end. Otherwise its beginning was not recorded: it is entered when that was after all
 * that is known of this CPU.
 */
static __attribute__((noinline)) void lone_close(struct bp_ftext *r, struct bp_ftext_cpu *c,
						 struct bp_ftext_task *t, uint32_t func,
						 const struct bp_ftext_call *l)
{
	uint64_t start = c->newest_ns;

	if (func == BP_FTEXT_NONE)
		return;
	if (t == c->unnamed) {
		for (uint32_t i = 0; i < r->n_cpus; i++) {
			struct bp_ftext_cpu *o = r->cpus[i];
			struct bp_ftext_task *u = o ? o->unnamed : NULL;
			struct bp_ftext_frame *f = u && u->n ? &u->frames[u->n - 1] : NULL;
			uint64_t end;

			if (!f || u == t || !f->live || f->func != func || f->depth != l->depth ||
			    o->running != u)
				continue;
			f->live = false;
			if (o->holding)
				bp_ftext_release(r, i, 0);
			end = f->enter_ns + l->duration_ns;
			if (end < o->newest_ns)
				end = o->newest_ns;
			o->newest_ns = end;
			r->funcs[func].recorded_ns += l->duration_ns;
			r->funcs[func].excess_ns += end - f->enter_ns - l->duration_ns;
			bp_ftext_fail(r, bp_builder_leave(r->b, i, 1, end, 0));
			return;
		}
	}
	if (!(l->has & BP_FTEXT_HAS_DURATION))
		return;
	if (c->holding)
		bp_ftext_release(r, l->cpu, 0);
	if (l->has & BP_FTEXT_HAS_TIME) {
		if (l->time_ns < l->duration_ns || (c->used && l->time_ns - l->duration_ns < c->newest_ns))
			return;
		start = l->time_ns - l->duration_ns;
	} else if (c->used) {
		return;
	}
	bp_ftext_run_task(r, l->cpu, t, start);
	start = c->newest_ns;
	r->funcs[func].inserted++;
	r->funcs[func].recorded_ns += l->duration_ns;
	c->used = true;
	bp_ftext_enter(r, l->cpu, func, BP_EV_CALL);
	c->newest_ns = start + l->duration_ns;
	bp_ftext_leave(r, l->cpu, 1);
}

/* The end of a call says when what is held was: before it, when the call itself is not held, else with the
 * call. */
static __attribute__((noinline)) void release_at_close(struct bp_ftext *r, const struct bp_ftext_call *l,
						       const struct bp_ftext_frame *f, bool before)
{
	struct bp_ftext_cpu *c = r->cpus[l->cpu];
	uint64_t end = f->enter_ns + l->duration_ns, shift = 0;

	if (before) {
		if (end > c->newest_ns)
			shift = end - c->newest_ns;
	} else if ((l->has & BP_FTEXT_HAS_TIME) && l->time_ns != c->stamp_ns) {
		if (l->time_ns > end)
			shift = l->time_ns - end;
	} else {
		return;
	}
	bp_ftext_release(r, l->cpu, shift);
}

static inline void take_close(struct bp_ftext *r, struct bp_ftext_cpu *c, struct bp_ftext_task *t,
			      uint32_t func, const struct bp_ftext_call *l, bool count, bool record)
{
	uint32_t left = 0, n = t->n;

	/* Deeper calls must have ended. */
	while (n && t->frames[n - 1].depth > l->depth) {
		struct bp_ftext_frame *f = &t->frames[--n];

		if (f->live) {
			left++;
			if (f->func != BP_FTEXT_NONE)
				r->funcs[f->func].uncertain++;
		}
		if (count)
			r->stacks.open_without_close++;
	}
	t->n = n;
	if (left) {
		bp_ftext_run_task(r, l->cpu, t, 0);
		if (c->holding && n < c->hold_n)
			bp_ftext_release(r, l->cpu, 0);
		bp_ftext_leave(r, l->cpu, left);
	}
	if (n && t->frames[n - 1].depth == l->depth &&
	    (!(l->has & BP_FTEXT_HAS_NAME) || func == t->frames[n - 1].func)) {
		const struct bp_ftext_frame *f = &t->frames[n - 1];
		struct bp_ftext_func *fn = f->func == BP_FTEXT_NONE ? NULL : &r->funcs[f->func];

		t->n = n - 1;
		if (count && fn)
			call_done(fn, l->duration_ns, n == 1);
		if (record && f->live) {
			uint64_t end;

			if (c->holding && (l->has & BP_FTEXT_HAS_DURATION))
				release_at_close(r, l, f, n <= c->hold_n);
			end = f->enter_ns + l->duration_ns;
			if (!(l->has & BP_FTEXT_HAS_DURATION))
				end = (l->has & BP_FTEXT_HAS_TIME) ? l->time_ns : c->newest_ns;
			run_task(r, c, l->cpu, t, end);
			if (fn && f->cpu != l->cpu)
				fn->uncertain++;
			if (fn) {
				fn->recorded_ns += l->duration_ns;
				fn->excess_ns += c->newest_ns - (f->enter_ns + l->duration_ns);
			}
			bp_ftext_leave(r, l->cpu, 1);
		} else if (record && fn) {
			fn->uncertain++;
		}
		return;
	}
	if (count) {
		r->stacks.close_without_open++;
		if (func != BP_FTEXT_NONE) {
			r->funcs[func].lone_closes++;
			r->funcs[func].lone_ns += l->duration_ns;
		}
	}
	if (record)
		lone_close(r, c, t, func, l);
}

static inline void take(struct bp_ftext *r, struct bp_ftext_cpu *c, struct bp_ftext_task *t, uint32_t func,
			const struct bp_ftext_call *l, bool count, bool record)
{
	if (l->cls == BP_FTEXT_LEAF)
		take_leaf(r, c, t, func, l, count, record);
	else if (l->cls == BP_FTEXT_OPEN)
		take_open(r, c, t, func, l, count, record);
	else
		take_close(r, c, t, func, l, count, record);
}

/* Whether the line goes on with the calls that the task has open. */
static bool fits(const struct bp_ftext_task *t, const struct bp_ftext_call *l, uint32_t func)
{
	const bool close = l->cls == BP_FTEXT_CLOSE;
	const struct bp_ftext_frame *f = NULL;
	uint64_t end, apart;

	for (uint32_t i = t->n; i-- && !f;) {
		if (t->frames[i].live && t->frames[i].depth < l->depth + close)
			f = &t->frames[i];
	}
	if (!close)
		return f ? f->depth + 2 == l->depth : l->depth <= 2;
	if (!f || f->depth != l->depth || ((l->has & BP_FTEXT_HAS_NAME) && f->func != func))
		return false;
	if (!(l->has & BP_FTEXT_HAS_DURATION))
		return true;
	end = f->enter_ns + l->duration_ns;
	apart = end > l->time_ns ? end - l->time_ns : l->time_ns - end;
	return apart < 2000000 + l->duration_ns / 16;
}

/*
 * Only the CPU is known, but what the line goes on with was begun on another one: the task has moved. The two
 * that stand for the CPUs change places.
 */
static struct bp_ftext_task *follow(struct bp_ftext *r, struct bp_ftext_cpu *c, struct bp_ftext_task *t,
				    uint32_t func, const struct bp_ftext_call *l)
{
	if (fits(t, l, func))
		return t;
	for (uint32_t i = 0; i < r->n_cpus; i++) {
		struct bp_ftext_cpu *o = r->cpus[i];
		struct bp_ftext_task *u = o && o != c && !o->block ? o->unnamed : NULL;
		struct bp_ftext_task *counter;

		if (!u || !u->counter || !u->n || !fits(u, l, func))
			continue;
		counter = u->counter;
		u->counter = t->counter;
		t->counter = counter;
		o->unnamed = t;
		c->unnamed = u;
		return u;
	}
	return t;
}

/* Calls that are counted by another rule than the one they are recorded by. */
static __attribute__((noinline)) void take_twice(struct bp_ftext *r, struct bp_ftext_cpu *c,
						 struct bp_ftext_task *t, uint32_t func,
						 const struct bp_ftext_call *l)
{
	take(r, c, t->counter, func, l, true, false);
	if (t == c->unnamed && (l->has & BP_FTEXT_HAS_TIME))
		t = follow(r, c, t, func, l);
	take(r, c, t, func, l, false, true);
}

static void comment(struct bp_ftext *r, struct bp_ftext_cpu *c, const struct bp_ftext_line *l)
{
	const char *p = l->name, *e = p + l->name_len, *q = p;
	uint64_t now = c->newest_ns;

	if (l->has_time && l->time_ns > now)
		now = l->time_ns;
	while (q < e &&
	       (*q == '_' || (unsigned char)((*q | 32) - 'a') < 26 || (unsigned char)(*q - '0') < 10))
		q++;
	if (q > p && e - q > 1 && q[0] == ':' && q[1] == ' ') {
		if (q - p == 12 && !memcmp(p, "sched_switch", 12))
			bp_ftext_comms(r, q, e, now);
		return;
	}
	bp_ftext_mark(r, l->cpu, now, p, e);
}

static inline void count_line(struct bp_ftext *r, const struct bp_ftext_line *l)
{
	r->counts.of_class[l->cls]++;
	r->seen[l->cpu].lines += l->has_cpu;
	r->counts.flags += l->flags;
	if (l->mark)
		r->counts.overhead[mark_index(l->mark)]++;
	if (l->has_time) {
		if (r->counts.first_ns == UINT64_MAX)
			r->counts.first_ns = l->time_ns;
		r->counts.last_ns = l->time_ns;
	}
}

/* A line goes by: its number, and those of the few lines before. */
static inline void before(struct bp_ftext *r, uint32_t line)
{
	r->before = r->before * 0x1000 + line;
}

/* The task that the line says it is of. */
static struct bp_ftext_task *task_of_column(struct bp_ftext *r, uint32_t cpu, const char *key, uint32_t len)
{
	struct bp_ftext_task *t = bp_ftext_known_task(r, cpu, key, len);

	r->task_column = true;
	if (t)
		return t;
	bp_ftext_drain(r);
	return bp_ftext_task_of(r, cpu, key, len);
}

/* The column of @l is text that means task @t from now on, for bp_ftext_graph_fast(). @line: where it begins.
 */
static void learn_column(struct bp_ftext *r, const char *line, const struct bp_ftext_line *l,
			 struct bp_ftext_task *t)
{
	struct bp_ftext_seen *seen = &r->seen[l->cpu];
	const uint32_t from = l->columns.cpu    ? l->columns.cpu + 1u
			      : l->columns.time ? l->columns.time + 1u
						: 0;
	const uint32_t len = l->columns.task - from;

	seen->layout = 0;
	/* Not what stands for tasks that are too many. */
	if (!t || !l->columns.task || !l->columns.bar || l->columns.task < from || len > sizeof(seen->text) ||
	    (t->pid && (t->key_len != l->task_len || memcmp(t->key, l->task, l->task_len) != 0)))
		return;
	memcpy(seen->text, line + from, len);
	seen->layout = r->layout;
	seen->task = t;
}

static inline void take_call(struct bp_ftext *r, const struct bp_ftext_call *l)
{
	struct bp_ftext_cpu *c = r->cpus[l->cpu];
	struct bp_ftext_task *t = l->task;

	if (l->cls == BP_FTEXT_IRQ) {
		c->irq = l->depth;
		return;
	}
	/* By the column, the last switch block, or nothing but the CPU. */
	if (!t)
		t = c->block ? c->block : c->unnamed;
	if (!t)
		t = bp_ftext_unnamed(r, l->cpu, l->has & BP_FTEXT_HAS_TIME);
	if (!t)
		return;
	if (l->func != BP_FTEXT_NONE) {
		r->funcs[l->func].leaves += l->cls == BP_FTEXT_LEAF;
		r->funcs[l->func].opens += l->cls == BP_FTEXT_OPEN;
	}
	if (__builtin_expect(t->counter != NULL, 0))
		take_twice(r, c, t, l->func, l);
	else
		take(r, c, t, l->func, l, true, true);
}

/* What a packed call is: BP_FTEXT_OPEN, _LEAF or _CLOSE; 0: it follows as it is. */
#define PACKED_CLASS 20
#define PACKED_HAS 22
#define PACKED_FUNC ((1u << PACKED_CLASS) - 1)
#define WIDE_RECORDS                                                               \
	(1 + (sizeof(struct bp_ftext_call) + sizeof(struct bp_ftext_packed) - 1) / \
		 sizeof(struct bp_ftext_packed))

_Static_assert(BP_FTEXT_FUNCS_MAX < PACKED_FUNC && BP_FTEXT_OPEN && BP_FTEXT_CLOSE < 4, "fits");

void bp_ftext_take(struct bp_ftext *r, const struct bp_ftext_packed *p, size_t n)
{
	const struct bp_ftext_packed *end = p + n;

	while (p < end && !r->err) {
		struct bp_ftext_call call = {
		    .duration_ns = p->duration_ns,
		    .func = p->what & PACKED_FUNC,
		    .depth = p->depth,
		    .cpu = p->cpu,
		    .cls = p->what >> PACKED_CLASS & 3,
		    .has = (uint8_t)(p->what >> PACKED_HAS),
		};

		if (__builtin_expect(!call.cls, 0)) {
			memcpy(&call, p + 1, sizeof(call));
			p += WIDE_RECORDS;
			r->stacks.base_ns = call.time_ns;
			r->cpus[call.cpu]->column = call.task;
		} else {
			if (call.func == PACKED_FUNC)
				call.func = BP_FTEXT_NONE;
			if (call.has & BP_FTEXT_HAS_TIME)
				call.time_ns = r->stacks.base_ns + (uint64_t)(int64_t)p->time_ns;
			if (call.has & BP_FTEXT_HAS_TASK)
				call.task = r->cpus[call.cpu]->column;
			p++;
		}
		take_call(r, &call);
	}
}

/* The call goes to the other thread as it is; those that follow are told by their difference from it. */
static __attribute__((noinline)) void put_wide(struct bp_ftext *r, const struct bp_ftext_call *call)
{
	struct bp_ftext_packed *p = &r->calls[r->n_calls];

	p->what = 0;
	memcpy(p + 1, call, sizeof(*call));
	r->n_calls += WIDE_RECORDS;
	r->base_ns = call->time_ns;
	r->seen[call->cpu].told = call->task;
}

/* The call goes to the other thread, or is taken here. */
static inline __attribute__((always_inline)) void put_call(struct bp_ftext *r, const struct bp_ftext_line *l,
							   uint32_t func, struct bp_ftext_task *t)
{
	const uint8_t has =
	    (uint8_t)((l->has_time ? BP_FTEXT_HAS_TIME : 0) | (l->has_duration ? BP_FTEXT_HAS_DURATION : 0) |
		      (l->name ? BP_FTEXT_HAS_NAME : 0) | (t ? BP_FTEXT_HAS_TASK : 0));
	const int64_t ns = (int64_t)(l->time_ns - r->base_ns);
	struct bp_ftext_packed *p;

	if (r->n_calls > BP_FTEXT_BATCH - WIDE_RECORDS)
		bp_ftext_hand_over(r);
	if (!r->calls || (l->has_time && ns != (int32_t)ns) || l->duration_ns > UINT32_MAX ||
	    l->depth > UINT16_MAX || l->cls == BP_FTEXT_IRQ || (t && t != r->seen[l->cpu].told)) {
		struct bp_ftext_call call = {
		    .time_ns = l->time_ns,
		    .duration_ns = l->duration_ns,
		    .task = t,
		    .func = func,
		    .depth = l->depth,
		    .cpu = (uint16_t)l->cpu,
		    .cls = (uint8_t)l->cls,
		    .has = has,
		};

		if (r->calls)
			put_wide(r, &call);
		else
			take_call(r, &call);
		return;
	}
	p = &r->calls[r->n_calls];
#ifdef __x86_64__
	/* The other thread has had the next lines in its cache. */
	__asm__ volatile("prefetchw %0" : : "m"(p[24]));
#endif
	p->time_ns = (int32_t)ns;
	p->duration_ns = (uint32_t)l->duration_ns;
	p->what = (func & PACKED_FUNC) | (uint32_t)l->cls << PACKED_CLASS | (uint32_t)has << PACKED_HAS;
	p->cpu = (uint16_t)l->cpu;
	p->depth = (uint16_t)l->depth;
	r->n_calls++;
}

void bp_ftext_graph(struct bp_ftext *r, const char *line, const struct bp_ftext_line *l)
{
	struct bp_ftext_task *t = NULL;
	struct bp_ftext_cpu *c = r->cpus[l->cpu];
	uint32_t func = BP_FTEXT_NONE;

	if (!c) {
		bp_ftext_drain(r);
		c = bp_ftext_cpu(r, l->cpu);
	}
	if (!c)
		return;
	count_line(r, l);
	if (l->columns.bar && memcmp(&r->columns, &l->columns, sizeof(l->columns)) != 0) {
		r->columns = l->columns;
		r->cpu_mask = 0;
		r->time_len = 0;
		r->layout++;
	}
	if (l->cls == BP_FTEXT_COMMENT) {
		bp_ftext_drain(r);
		comment(r, c, l);
		return;
	}
	if (l->cls == BP_FTEXT_IRQ) {
		struct bp_ftext_line irq = *l;

		/* Of the CPU, whatever it runs */
		irq.task = NULL;
		put_call(r, &irq, func, NULL);
		return;
	}
	if (l->task) {
		t = task_of_column(r, l->cpu, l->task, l->task_len);
		learn_column(r, line, l, t);
		if (!t)
			return;
	}
	if (l->name) {
		func = bp_ftext_lookup(r, l->name, l->name_len);
		if (func == BP_FTEXT_NONE) {
			bp_ftext_drain(r);
			func = bp_ftext_intern(r, l->name, l->name_len);
		}
	}
	if (l->cls == BP_FTEXT_CLOSE && l->name)
		r->counts.close_named++;
	put_call(r, l, func, t);
}

#define BYTES(x) (0x0101010101010101ull * (x))

/* Eight bytes at a time, the first in the lowest bits: this code runs on little-endian machines, as
 * recordings do. */
static inline uint64_t load8(const char *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

/* What eight digits say, each a byte of 0 to 9. Pairs of digits, then pairs of those, then of those. */
static inline uint64_t number8(uint64_t v)
{
	v = v * 10 + (v >> 8);
	return ((v & 0x000000ff000000ffull) * 0x000f424000000064ull +
		((v >> 16) & 0x000000ff000000ffull) * 0x0000271000000001ull) >>
	       32;
}

/* Up to seven digits at *@p, of which @at_most count; how many there are, 0 if none or more. */
static inline unsigned digits7(const char *p, unsigned at_most, uint64_t *ret)
{
	uint64_t v = load8(p) ^ BYTES('0'), other = ((v + BYTES(0x76)) | v) & BYTES(0x80);
	unsigned n, take;

	if (!other)
		return 0;
	n = (unsigned)__builtin_ctzll(other) >> 3;
	if (!n)
		return 0;
	take = n < at_most ? n : at_most;
	*ret = number8(v << (64 - 8 * take));
	return n;
}

/* Eight bytes of which the last six are digits. */
static inline bool digits6(const char *p, uint64_t *ret)
{
	uint64_t v = (load8(p) ^ BYTES('0')) >> 16 << 16;

	if (((v + BYTES(0x76)) | v) & BYTES(0x80))
		return false;
	*ret = number8(v);
	return true;
}

/* The duration column, whose bar is at @bar. */
static inline bool fast_duration(const char *q, const char *bar, struct bp_ftext_line *l)
{
	static const uint16_t scale[4] = {0, 100, 10, 1};
	uint64_t us, frac = 0;
	unsigned n;

	if (bar - q == 15 && q[0] == ' ' && q[2] == ' ' && q[3] != ' ') {
		if (q[1] != ' ') {
			if (!is_mark(q[1]))
				return false;
			l->mark = q[1];
		}
		q += 3;
	} else {
		q = bp_ftext_spaces(q, bar);
		if (q == bar)
			return true;
		if (is_mark(*q)) {
			if (bar - q < 8 || q[1] != ' ')
				return false;
			l->mark = *q;
			q = bp_ftext_spaces(q + 2, bar);
		}
	}
	n = digits7(q, 7, &us);
	if (!n)
		return false;
	q += n;
	if (*q == '.') {
		n = digits7(q + 1, 3, &frac);
		frac *= scale[n < 3 ? n : 3];
		q += 1 + n;
	}
	/* What ended before the bar and is followed by nothing but the blanks that fill the column */
	if (bar - q < 3 || bar - q > 10 || q[0] != ' ' || q[1] != 'u' || q[2] != 's' ||
	    ((load8(bar - 8) ^ BYTES(' ')) >> 8 >> (8 * (10 - (bar - q)))))
		return false;
	l->duration_ns = us * 1000 + frac;
	l->has_duration = true;
	return true;
}

/* Whole seconds before the point at @point; most often the same as in the line before. */
static inline bool fast_seconds(struct bp_ftext *r, const char *p, const char *point, uint64_t *ret)
{
	const size_t len = (size_t)(point - p);
	const char *q;
	unsigned n;

	if (r->time_len == len && !((load8(p) ^ r->time_text) << (64 - 8 * len))) {
		*ret = r->time_seconds;
		return true;
	}
	q = bp_ftext_spaces(p, point);
	n = digits7(q, 7, ret);
	if (!n || q + n != point)
		return false;
	if (len <= 8) {
		r->time_len = (uint32_t)len;
		r->time_text = load8(p);
		r->time_seconds = *ret;
	}
	return true;
}

/* The task column from @q to its bar at @z: the same as in a line before of the same CPU. */
static inline bool fast_task(const struct bp_ftext *r, const char *q, const char *z, struct bp_ftext_line *l)
{
	const struct bp_ftext_seen *seen = &r->seen[l->cpu];

	if (seen->layout != r->layout || !bp_ftext_same(seen->text, q, (size_t)(z - q)))
		return false;
	l->known = seen->task;
	return true;
}

/* The flags of latency-format before the bar at @z, as parse_field() takes them. */
static bool fast_flags(const struct bp_ftext_columns *k, const char *q, const char *z)
{
	const char *e = z;
	size_t comm_len;
	int64_t pid;

	q = bp_ftext_spaces(q, z);
	while (e > q && e[-1] == ' ')
		e--;
	if (e - q < 4 || e - q > 8 || *q == '}' || *q == '/' ||
	    (!k->task && bp_ftext_pid(q, e, &pid, &comm_len)))
		return false;
	for (; q < e; q++) {
		if (*q == ' ' || *q == '|' || *q == '\n')
			return false;
	}
	return true;
}

/* The columns that may differ between lines; false: this is not such a line. */
static inline bool fast_columns(struct bp_ftext *r, const char *p, struct bp_ftext_line *l)
{
	const struct bp_ftext_columns *k = &r->columns;
	const char *q = p, *bar = p + k->bar, *z;
	uint64_t v = 0, frac = 0;
	unsigned n;

	if (k->time) {
		z = p + k->time;
		if (k->time < 9 || z[0] != '|' || z[-1] != ' ' || z[-8] != '.' || !digits6(z - 9, &frac) ||
		    !fast_seconds(r, p, z - 8, &v))
			return false;
		l->has_time = true;
		l->time_ns = v * 1000000000 + frac * 1000;
		q = z + 1;
	}
	if (k->cpu && r->cpu_mask && !((load8(p) ^ r->cpu_text) & r->cpu_mask)) {
		l->has_cpu = true;
		l->cpu = r->cpu_number;
		q = p + k->cpu + 1;
	} else if (k->cpu) {
		z = p + k->cpu;
		q = bp_ftext_spaces(q, z);
		n = digits7(q, 7, &v);
		if (*z != ')' || !n || q + n != z || v >= BP_BUILDER_CPUS)
			return false;
		l->has_cpu = true;
		l->cpu = (uint32_t)v;
		q = z + 1;
		/* " 0)" and nothing before it: the next line is likely to begin with the same bytes. */
		r->cpu_mask = !k->time && k->cpu < 7 ? ~0ull >> (56 - 8 * k->cpu) : 0;
		r->cpu_text = load8(p);
		r->cpu_number = l->cpu;
	}
	if (k->task) {
		z = p + k->task;
		if (*z != '|' || !fast_task(r, q, z, l))
			return false;
		q = z + 1;
	}
	if (k->flags) {
		z = p + k->flags;
		if (*z != '|' || !fast_flags(k, q, z))
			return false;
		l->flags = true;
		q = z + 1;
	}
	if (bar - q == 15 && load8(q) == BYTES(' ') && load8(bar - 8) == BYTES(' '))
		return true;
	return fast_duration(q, bar, l);
}

static inline const char *fast_spaces(const char *p, const char *e)
{
#ifdef __SSE2__
	/* Nearly all calls are less deep than this. */
	const __m128i blank = _mm_set1_epi8(' ');
	uint64_t m0 = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p), blank));
	uint64_t m1 =
	    (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(p + 16)), blank));
	uint64_t m2 =
	    (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(p + 32)), blank));
	uint64_t m3 =
	    (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(p + 48)), blank));
	uint64_t other = ~(m0 | m1 << 16 | m2 << 32 | m3 << 48);

	if (other)
		return p + __builtin_ctzll(other);
#endif
	return bp_ftext_spaces(p, e);
}

/*
 * Whether what is at @p begins with @len bytes of the tail's text; as many as a tail has can be looked at. 0
 * is no text.
 */
static inline bool is_tail(const struct bp_ftext_tail *t, uint32_t len, const char *p)
{
#ifdef __SSE2__
	const __m128i *a = (const __m128i *)p, *b = (const __m128i *)t;
	uint64_t m[4];

#pragma GCC unroll 4
	for (unsigned i = 0; i < 4; i++)
		m[i] = (uint32_t)_mm_movemask_epi8(
		    _mm_cmpeq_epi8(_mm_loadu_si128(a + i), _mm_loadu_si128(b + i)));
	return len && !(~(m[0] | m[1] << 16 | m[2] << 32 | m[3] << 48) << (64 - len));
#else
	return len && !memcmp(p, t->text, len);
#endif
}

/* The end, with its name, of the call that was open at this depth; else NULL. */
static inline const char *fast_named_close(struct bp_ftext *r, const char *q, struct bp_ftext_line *l,
					   uint32_t *func)
{
	const uint32_t f = r->opened[l->depth / 2 % 64];
	const struct bp_ftext_tail *t;
	uint32_t len;
	const char *e;

	if (f >= r->n_funcs || !r->tails[f * 2].len)
		return NULL;
	t = &r->tails[f * 2];
	len = t->len - (uint32_t)strlen("();\n");
	e = q + 5 + len;
	if (!is_tail(t, len, q + 5) || e[0] != ' ' || e[1] != '*' || e[2] != '/' || e[3] != '\n')
		return NULL;
	l->cls = BP_FTEXT_CLOSE;
	l->name = q + 5;
	*func = f;
	r->counts.close_named++;
	before(r, f | 0x80000000);
	return e + 4;
}

/*
 * The call at @q, by its text as a whole or else by its name; returns where the next line begins, NULL for
 * what needs a closer look.
 */
static inline const char *fast_call(struct bp_ftext *r, const char *q, const char *end,
				    struct bp_ftext_line *l, uint32_t *func)
{
	uint32_t *expect = &r->expect[r->before * 0x9e3779b1u >> (32 - BP_FTEXT_EXPECT_BITS)], at = *expect;
	const char *nl, *e, *next;
	size_t len;

	if (at < 2 * r->n_funcs && is_tail(&r->tails[at], r->tails[at].len, q)) {
		l->cls = at & 1 ? BP_FTEXT_OPEN : BP_FTEXT_LEAF;
		*func = at >> 1;
		l->name = q;
		before(r, at);
		return q + r->tails[at].len;
	}
	if (q[0] == '}' && q[1] == ' ' && q[2] == '/' && q[3] == '*' && q[4] == ' ') {
		next = fast_named_close(r, q, l, func);
		if (next)
			return next;
	}
	nl = memchr(q, '\n', (size_t)(end - q));
	if (!nl)
		return NULL;
	e = nl;
	while (e > q && e[-1] == '\r')
		e--;
	l->name = q;
	if (e - q > 3 && e[-1] == ';' && e[-2] == ')' && e[-3] == '(') {
		l->cls = BP_FTEXT_LEAF;
		e -= 3;
	} else if (e - q > 4 && e[-1] == '{' && e[-2] == ' ' && e[-3] == ')' && e[-4] == '(') {
		l->cls = BP_FTEXT_OPEN;
		e -= 4;
	} else if (e - q > 8 && q[0] == '}' && q[1] == ' ' && q[2] == '/' && q[3] == '*' && q[4] == ' ' &&
		   e[-1] == '/' && e[-2] == '*' && e[-3] == ' ') {
		l->cls = BP_FTEXT_CLOSE;
		l->name = q + 5;
		e -= 3;
	} else {
		return NULL;
	}
	/* A name that was seen before; the others are looked at more closely. */
	len = (size_t)(e - l->name);
	if (len > BP_FTEXT_NAME_MAX)
		return NULL;
	*func = bp_ftext_find(r, bp_ftext_hash(l->name, len), l->name, len, &at);
	if (*func == BP_FTEXT_NONE || !r->tails[*func * 2].plain)
		return NULL;
	if (l->cls == BP_FTEXT_CLOSE) {
		r->counts.close_named++;
		return nl + 1;
	}
	at = *func << 1 | (l->cls == BP_FTEXT_OPEN);
	*expect = at;
	before(r, at);
	return nl + 1;
}

const char *bp_ftext_graph_fast(struct bp_ftext *r, const char *p, const char *end)
{
	const struct bp_ftext_columns *k = &r->columns;
	struct bp_ftext_line l = {0};
	uint32_t func = BP_FTEXT_NONE;
	const char *q, *next;

	/* The text was written by another CPU. */
	__builtin_prefetch(p + 1024);
	/* The columns are digits, marks and blanks, but for these. */
	if (!k->bar || end - p <= k->bar || p[k->bar] != '|' || *p == '#' || !fast_columns(r, p, &l))
		return NULL;
	if (!r->cpus[l.cpu])
		return NULL;
	q = fast_spaces(p + k->bar + 1, end);
	l.depth = (uint32_t)(q - (p + k->bar + 1));
	if (q[0] == '}' && q[1] == '\n') {
		l.cls = BP_FTEXT_CLOSE;
		before(r, r->opened[l.depth / 2 % 64] | 0x80000000);
		next = q + 2;
	} else {
		next = fast_call(r, q, end, &l, &func);
		if (!next)
			return NULL;
		if (l.cls == BP_FTEXT_OPEN)
			r->opened[l.depth / 2 % 64] = func;
	}
	count_line(r, &l);
	put_call(r, &l, func, l.known);
	return next;
}

bool bp_ftext_switch(struct bp_ftext *r, const char *p, const char *e)
{
	const char *q = bp_ftext_spaces(p, e), *arrow, *from, *from_end, *to;
	struct bp_ftext_cpu *c;
	size_t comm_len;
	uint64_t cpu;
	int64_t pid;

	if (!bp_ftext_number(&q, e, &cpu) || cpu >= BP_BUILDER_CPUS || q == e || *q != ')')
		return false;
	arrow = memmem(q, (size_t)(e - q), " => ", 4);
	if (!arrow)
		return false;
	from = bp_ftext_spaces(q + 1, arrow);
	from_end = arrow;
	while (from_end > from && from_end[-1] == ' ')
		from_end--;
	to = bp_ftext_spaces(arrow + 4, e);
	while (e > to && e[-1] == ' ')
		e--;
	if (!bp_ftext_pid(from, from_end, &pid, &comm_len) || !bp_ftext_pid(to, e, &pid, &comm_len))
		return false;
	bp_ftext_drain(r);
	c = bp_ftext_cpu(r, (uint32_t)cpu);
	if (!c || r->task_column)
		return true;
	/* Up to here the CPU stood for the task that now is named. */
	if (c->unnamed && !c->block && c->unnamed->id != BP_FTEXT_NONE &&
	    bp_ftext_pid(from, from_end, &pid, &comm_len) && comm_len < 16) {
		char name[16];

		memcpy(name, from, comm_len);
		name[comm_len] = '\0';
		bp_ftext_fail(r, bp_builder_rename(r->b, c->unnamed->id, name, c->newest_ns));
	}
	bp_ftext_task_of(r, (uint32_t)cpu, from, (size_t)(from_end - from));
	c->block = bp_ftext_task_of(r, (uint32_t)cpu, to, (size_t)(e - to));
	return true;
}
