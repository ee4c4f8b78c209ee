// SPDX-License-Identifier: GPL-2.0-or-later
/* The text form of a recording. Grammar: bootprof-trace(5), "TEXT FORM". */
#include "core/trace_format.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

#define TEXT_VERSION 1

/* Output is handed on in pieces of this size. */
#define PIECE_BYTES (64u << 10)

static const char *const event_names[BP_EV_KINDS] = {
    [BP_EV_TICK] = "tick", [BP_EV_CALL] = "call",       [BP_EV_JUMP] = "jump", [BP_EV_IRQ] = "irq",
    [BP_EV_RET] = "ret",   [BP_EV_SYSCALL] = "syscall", [BP_EV_RUN] = "run",   [BP_EV_LOST] = "lost",
};

static const char *const space_names[BP_SPACE_N] = {
    [BP_SPACE_PSEUDO] = "pseudo", [BP_SPACE_FIRMWARE] = "firmware", [BP_SPACE_KERNEL] = "kernel",
    [BP_SPACE_MODULE] = "module", [BP_SPACE_USER] = "user",         [BP_SPACE_ANON] = "anon",
};

/* @hex: bit i is set where v[i] is an address. */
static const struct {
	const char *name;
	unsigned hex;
} fact_kinds[] = {
    [BP_FACT_INFO] = {"info", 0},
    [BP_FACT_TASK] = {"task", 0},
    [BP_FACT_TASK_PARENT] = {"task-parent", 0},
    [BP_FACT_TASK_END] = {"task-end", 0},
    [BP_FACT_MODULE_LOAD] = {"module-load", 1},
    [BP_FACT_MODULE_INIT] = {"module-init", 0},
    [BP_FACT_MODULE_UNLOAD] = {"module-unload", 0},
    [BP_FACT_MAP] = {"map", 7},
    [BP_FACT_CONSOLE] = {"console", 0},
    [BP_FACT_MARK] = {"mark", 0},
    [BP_FACT_INITCALL] = {"initcall", 1},
    [BP_FACT_LOST] = {"lost", 0},
    [BP_FACT_END] = {"end", 0},
    [BP_FACT_VCPU] = {"vcpu", 0},
    [BP_FACT_THREAD] = {"thread", 0},
    [BP_FACT_LOCK] = {"lock", 1},
    [BP_FACT_HOST_MAP] = {"host-map", 7},
};

static const char *const wait_names[BP_WAIT_KINDS] = {
    [BP_WAIT_OUT] = "out",
    [BP_WAIT_IN] = "in",
    [BP_WAIT_WAKE] = "wake",
    [BP_WAIT_FUTEX] = "futex",
    [BP_WAIT_FUTEX_RET] = "futex-ret",
    [BP_WAIT_LOCK_WANT] = "lock-want",
    [BP_WAIT_LOCK_HELD] = "lock-held",
    [BP_WAIT_LOCK_FREE] = "lock-free",
    [BP_WAIT_KVM_ENTRY] = "kvm-entry",
    [BP_WAIT_KVM_EXIT] = "kvm-exit",
    [BP_WAIT_FAULT] = "fault",
    [BP_WAIT_SAMPLE] = "sample",
    [BP_WAIT_LOST] = "lost",
};

static const char *const host_space_names[BP_HOST_SPACES] = {
    [BP_HOST_KERNEL] = "kernel",
    [BP_HOST_USER] = "user",
    [BP_HOST_SITE] = "site",
};

/* ---- writing ---- */

struct sink {
	struct bp_strbuf sb;
	int fd;
	bool closed; /* the reader of a pipe went away: say nothing, write nothing */
};

static struct bp_err *sink_flush(struct sink *s)
{
	struct bp_err *err = bp_strbuf_ok(&s->sb);
	size_t done = 0;

	while (!err && !s->closed && done < s->sb.len) {
		ssize_t n = write(s->fd, s->sb.data + done, s->sb.len - done);

		if (n >= 0)
			done += (size_t)n;
		else if (errno == EPIPE)
			s->closed = true;
		else if (errno != EINTR)
			err = bp_err_os(errno, "cannot write the text of a recording");
	}
	bp_strbuf_clear(&s->sb);
	return err;
}

static struct bp_err *sink_line(struct sink *s)
{
	bp_strbuf_addc(&s->sb, '\n');
	return s->sb.len < PIECE_BYTES ? NULL : sink_flush(s);
}

/* ' "s"': printable ASCII as it is, all else as \xNN. */
static void put_string(struct bp_strbuf *sb, const char *s)
{
	bp_strbuf_adds(sb, " \"");
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			bp_strbuf_addc(sb, '\\');
		if (c < 0x20 || c >= 0x7f)
			bp_strbuf_addf(sb, "\\x%02x", c);
		else
			bp_strbuf_addc(sb, (char)c);
	}
	bp_strbuf_addc(sb, '"');
}

static void put_key(struct bp_strbuf *sb, const char *key, uint64_t v)
{
	bp_strbuf_addf(sb, " %s=%" PRIu64, key, v);
}

static struct bp_err *write_funcs(struct sink *s, const struct bp_trace *t)
{
	size_t n;
	const struct bp_func *f = bp_trace_funcs(t, &n);
	struct bp_err *err = NULL;

	for (; n-- > 0 && !err; f++) {
		bp_strbuf_addf(&s->sb, "func %u %s 0x%" PRIx64, f->id, space_names[f->space], f->addr);
		if (f->sym_addr != f->addr)
			bp_strbuf_addf(&s->sb, " sym=0x%" PRIx64, f->sym_addr);
		put_string(&s->sb, f->name);
		put_string(&s->sb, f->module);
		err = sink_line(s);
	}
	return err;
}

static struct bp_err *write_facts(struct sink *s, const struct bp_trace *t)
{
	size_t n;
	const struct bp_fact *f = bp_trace_facts(t, &n);
	struct bp_err *err = NULL;

	for (; n-- > 0 && !err; f++) {
		bp_strbuf_addf(&s->sb, "fact %s", fact_kinds[f->kind].name);
		if (f->time_ns)
			put_key(&s->sb, "time", f->time_ns);
		if (f->vcpu != UINT16_MAX)
			put_key(&s->sb, "vcpu", f->vcpu);
		if (f->insns)
			put_key(&s->sb, "insns", f->insns);
		for (unsigned i = 0; i < BP_ARRAY_SIZE(f->v); i++) {
			if (!f->v[i])
				continue;
			if (fact_kinds[f->kind].hex >> i & 1)
				bp_strbuf_addf(&s->sb, " v%u=0x%" PRIx64, i, f->v[i]);
			else
				bp_strbuf_addf(&s->sb, " v%u=%" PRIu64, i, f->v[i]);
		}
		if (*f->s1 || *f->s2)
			put_string(&s->sb, f->s1);
		if (*f->s2)
			put_string(&s->sb, f->s2);
		err = sink_line(s);
	}
	return err;
}

static struct bp_err *write_folds(struct sink *s, const struct bp_trace *t)
{
	size_t n;
	const struct bp_fold *f = bp_trace_folds(t, &n);
	struct bp_err *err = NULL;

	for (; n-- > 0 && !err; f++) {
		bp_strbuf_addf(&s->sb, "fold %u calls=%" PRIu64 " self_ns=%" PRId64 " self_insns=%" PRId64,
			       f->func, f->calls, f->self_ns, f->self_insns);
		put_key(&s->sb, "total_ns", f->total_ns);
		put_key(&s->sb, "total_insns", f->total_insns);
		put_key(&s->sb, "min_ns", f->min_ns);
		put_key(&s->sb, "max_ns", f->max_ns);
		err = sink_line(s);
	}
	return err;
}

static struct bp_err *write_run(struct sink *s, const struct bp_block *block, const struct bp_run *run)
{
	struct bp_err *err;

	bp_strbuf_addf(&s->sb, "run vcpu=%u task=%u", run->vcpu, run->task);
	put_key(&s->sb, "time", run->time_ns);
	put_key(&s->sb, "insns", run->insns);
	put_key(&s->sb, "cpu_ns", run->cpu_ns);
	put_key(&s->sb, "cpu_insns", run->cpu_insns);
	err = sink_line(s);
	if (run->n_frames == BP_RUN_NO_STACK)
		return err;
	for (uint32_t i = 0; i < run->n_frames && !err; i++) {
		const struct bp_frame *f = &block->frames[run->first_frame + i];

		bp_strbuf_addf(&s->sb, " frame %s %u", event_names[f->kind], f->func);
		put_key(&s->sb, "wall", f->wall_ns);
		put_key(&s->sb, "cpu", f->cpu_ns);
		put_key(&s->sb, "insns", f->insns);
		err = sink_line(s);
	}
	return err;
}

static struct bp_err *write_blocks(struct sink *s, const struct bp_trace *t, struct bp_decoder *d)
{
	struct bp_err *err = NULL;
	bool gap = false;

	for (size_t i = 0; i < bp_trace_n_blocks(t) && !err && !s->closed; i++) {
		struct bp_block b;

		gap |= bp_trace_block_gap(t, i);
		err = bp_decoder_read(d, t, i, &b);
		if (err && bp_err_code(err) == BP_EDATA) {
			bp_strbuf_addf(&s->sb, "# block %zu is lost: %s", i, bp_err_text(err));
			bp_err_ignore(err);
			gap = true;
			err = sink_line(s);
			continue;
		}
		if (err)
			return err;
		bp_strbuf_adds(&s->sb, gap ? "gap\nblock" : "block");
		gap = false;
		err = sink_line(s);
		for (size_t k = 0; k < b.n_events && !err; k++) {
			const struct bp_event *ev = &b.events[k];

			if (ev->kind == BP_EV_RUN) {
				err = write_run(s, &b, &b.runs[ev->arg]);
				continue;
			}
			bp_strbuf_addf(&s->sb, " %s %u %u %u", event_names[ev->kind], ev->arg, ev->dt,
				       ev->di);
			err = sink_line(s);
		}
	}
	return err;
}

static struct bp_err *write_host(struct sink *s, const struct bp_trace *t)
{
	struct bp_err *err = NULL;
	uint32_t frames, stacks;

	bp_trace_host_ids(t, &frames, &stacks);
	for (uint32_t i = 0; i < frames && !err; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, i);

		if (!f)
			continue;
		bp_strbuf_addf(&s->sb, "host-frame %u %s", i, host_space_names[f->space]);
		if (f->addr)
			bp_strbuf_addf(&s->sb, " addr=0x%" PRIx64, f->addr);
		if (f->offset)
			bp_strbuf_addf(&s->sb, " off=0x%" PRIx64, f->offset);
		put_string(&s->sb, f->name);
		if (*f->module)
			put_string(&s->sb, f->module);
		err = sink_line(s);
	}
	for (uint32_t i = 0; i < stacks && !err; i++) {
		size_t n;
		const uint32_t *ids = bp_trace_host_stack(t, i, &n);

		if (!n)
			continue;
		bp_strbuf_addf(&s->sb, "host-stack %u", i);
		for (size_t k = 0; k < n; k++)
			bp_strbuf_addf(&s->sb, " %u", ids[k]);
		err = sink_line(s);
	}
	return err;
}

static struct bp_err *write_wait(struct sink *s, const struct bp_wait *r)
{
	bp_strbuf_addf(&s->sb, " %s %u", wait_names[r->kind], r->thread);
	if (r->state)
		bp_strbuf_addf(&s->sb, " state=%u", r->state);
	if (r->cpu != BP_WAIT_NO_CPU)
		put_key(&s->sb, "cpu", r->cpu);
	put_key(&s->sb, "time", r->time_ns);
	if (r->other)
		put_key(&s->sb, "other", r->other);
	if (r->addr)
		bp_strbuf_addf(&s->sb, " addr=0x%" PRIx64, r->addr);
	if (r->value)
		bp_strbuf_addf(&s->sb, " value=%" PRId64, r->value);
	if (r->flags)
		put_key(&s->sb, "flags", r->flags);
	if (r->kstack)
		put_key(&s->sb, "kstack", r->kstack);
	if (r->ustack)
		put_key(&s->sb, "ustack", r->ustack);
	return sink_line(s);
}

static void wait_decoder_destroyp(struct bp_wait_decoder **d)
{
	bp_wait_decoder_destroy(*d);
}

static struct bp_err *write_waits(struct sink *s, const struct bp_trace *t)
{
	bp_cleanup(wait_decoder_destroyp) struct bp_wait_decoder *d = NULL;
	struct bp_err *err = NULL;

	if (bp_trace_n_waits(t))
		err = bp_wait_decoder_create(&d);
	for (size_t i = 0; i < bp_trace_n_waits(t) && !err && !s->closed; i++) {
		const struct bp_wait *recs;
		size_t n;

		err = bp_wait_decoder_read(d, t, i, &recs, &n);
		if (err && bp_err_code(err) == BP_EDATA) {
			bp_strbuf_addf(&s->sb, "# block of waits %zu is lost: %s", i, bp_err_text(err));
			bp_err_ignore(err);
			err = sink_line(s);
			continue;
		}
		if (err)
			return err;
		bp_strbuf_adds(&s->sb, "waits");
		err = sink_line(s);
		for (size_t k = 0; k < n && !err; k++)
			err = write_wait(s, &recs[k]);
	}
	return err;
}

static void decoder_destroyp(struct bp_decoder **d)
{
	bp_decoder_destroy(*d);
}

static void sink_deinit(struct sink *s)
{
	bp_strbuf_deinit(&s->sb);
}

struct bp_err *bp_trace_text_write(const struct bp_trace *t, int fd)
{
	bp_cleanup(decoder_destroyp) struct bp_decoder *d = NULL;
	bp_cleanup(sink_deinit) struct sink s = {.fd = fd};
	const struct bp_trace_damage *damage = bp_trace_damage(t);
	struct bp_err *err = bp_decoder_create(&d);

	if (err)
		return err;
	bp_strbuf_addf(&s.sb, "bootprof-text %d\ntick %u\n", TEXT_VERSION, bp_trace_tick_shift(t));
	if (damage->bad_chunks || damage->missing_chunks)
		bp_strbuf_addf(&s.sb,
			       "# damaged: %" PRIu64 " bad and %" PRIu64 " missing chunks, %" PRIu64
			       " bytes lost\n",
			       damage->bad_chunks, damage->missing_chunks, damage->lost_bytes);
	err = write_funcs(&s, t);
	if (!err)
		err = write_facts(&s, t);
	if (!err)
		err = write_folds(&s, t);
	if (!err)
		err = write_blocks(&s, t, d);
	if (!err)
		err = write_host(&s, t);
	if (!err)
		err = write_waits(&s, t);
	if (err)
		return err;
	if (!damage->unfinished)
		bp_strbuf_adds(&s.sb, "end\n");
	return sink_flush(&s);
}

/* ---- reading ---- */

/* Slots of the table of tasks in one block; more than there can be runs. */
#define TASK_SLOTS (2 * BP_BLOCK_EVENTS)

struct task_slot {
	uint32_t task;
	uint32_t block; /* number of the block that it was used in, from 1 */
	uint32_t depth;
};

struct text {
	const char *path;
	const char *out_path;
	unsigned long line;
	char *p; /* rest of the line */
	unsigned tick_shift;
	struct bp_trace_writer *w; /* made at the first line that needs it */
	uint32_t n_funcs;
	bool ended;

	/* The block being read. */
	bool in_block;
	uint32_t block_number;
	struct bp_event *events;
	size_t n_events, events_cap;
	struct bp_run *runs;
	size_t n_runs, runs_cap;
	struct bp_frame *frames;
	size_t n_frames, frames_cap;
	bool frames_allowed; /* no event since the run line, and the task's first run */
	struct task_slot *tasks, *task;

	/* The block of waits being read. */
	bool in_waits;
	struct bp_wait *waits; /* BP_WAIT_BLOCK */
	size_t n_waits;
};

static struct bp_err *bad_line(const struct text *x, const char *what)
{
	return bp_err_data(x->path, BP_NO_OFFSET, "line %lu: %s", x->line, what);
}

static struct bp_err *grow(void *array, size_t *cap, size_t count, size_t item_bytes)
{
	size_t want = *cap + *cap / 2 + 64;
	void *p;

	if (count < *cap)
		return NULL;
	p = realloc(*(void **)array, want * item_bytes);
	if (!p)
		return bp_err_nomem();
	*(void **)array = p;
	*cap = want;
	return NULL;
}

static void skip_blanks(struct text *x)
{
	while (*x->p == ' ' || *x->p == '\t')
		x->p++;
}

static bool at_end(struct text *x)
{
	skip_blanks(x);
	return !*x->p;
}

/* The next word, NUL-terminated, or NULL at the end of the line. */
static char *take_word(struct text *x)
{
	char *word;

	if (at_end(x))
		return NULL;
	word = x->p;
	while (*x->p && *x->p != ' ' && *x->p != '\t')
		x->p++;
	if (*x->p)
		*x->p++ = '\0';
	return word;
}

static int find_name(const char *const *names, size_t n, const char *word)
{
	for (size_t i = 0; word && i < n; i++) {
		if (names[i] && !strcmp(names[i], word))
			return (int)i;
	}
	return -1;
}

/* Decimal or 0x hexadecimal, nothing else. */
static bool parse_u64(const char *s, uint64_t max, uint64_t *ret)
{
	unsigned base = 10;
	uint64_t v = 0;

	if (!s)
		return false;
	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	if (!*s)
		return false;
	for (; *s; s++) {
		unsigned d = *s >= '0' && *s <= '9'                 ? (unsigned)(*s - '0')
			     : base == 16 && *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a') + 10
								    : 99;

		if (d >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
			return false;
	}
	if (v > max)
		return false;
	*ret = v;
	return true;
}

static bool parse_i64(const char *s, int64_t *ret)
{
	bool negative = s && *s == '-';
	uint64_t v;

	if (!parse_u64(negative ? s + 1 : s, negative ? (uint64_t)1 << 63 : INT64_MAX, &v))
		return false;
	*ret = (int64_t)(negative ? -v : v);
	return true;
}

static bool take_u32(struct text *x, uint32_t *ret)
{
	uint64_t v;

	if (!parse_u64(take_word(x), UINT32_MAX, &v))
		return false;
	*ret = (uint32_t)v;
	return true;
}

struct key {
	const char *name;
	uint64_t max;
	uint64_t *u; /* or */
	int64_t *i;
};

/* NAME=NUMBER words, in any order, up to a string or the end of the line. */
static struct bp_err *take_keys(struct text *x, const struct key *keys, size_t n)
{
	while (!at_end(x) && *x->p != '"') {
		char *word = take_word(x), *value = strchr(word, '=');
		const struct key *k = keys;

		if (!value)
			return bad_line(x, "expected NAME=NUMBER");
		*value++ = '\0';
		while (k < keys + n && strcmp(k->name, word))
			k++;
		if (k == keys + n)
			return bad_line(x, "unknown name before =");
		if (k->u ? !parse_u64(value, k->max, k->u) : !parse_i64(value, k->i))
			return bad_line(x, "bad number");
	}
	return NULL;
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A quoted string, unescaped in place; "" at the end of the line. */
static struct bp_err *take_string(struct text *x, const char **ret)
{
	char *to, *start;

	*ret = "";
	if (at_end(x))
		return NULL;
	if (*x->p++ != '"')
		return bad_line(x, "expected a string in double quotes");
	for (start = to = x->p; *x->p != '"'; x->p++) {
		char c = *x->p;

		if (!c)
			return bad_line(x, "string without end");
		if (c == '\\') {
			c = *++x->p;
			if (c == 'x') {
				int hi = hex_digit(x->p[1]), lo = hi < 0 ? -1 : hex_digit(x->p[2]);

				if (lo < 0 || !(hi | lo))
					return bad_line(x,
							"expected two hexadecimal digits after \\x, not 00");
				c = (char)(hi << 4 | lo);
				x->p += 2;
			} else if (c != '"' && c != '\\') {
				return bad_line(x, "unknown escape");
			}
		}
		*to++ = c;
	}
	x->p++;
	*to = '\0';
	if (to - start > (ptrdiff_t)BP_STRING_MAX)
		return bad_line(x, "string is too long");
	*ret = start;
	return NULL;
}

static struct bp_err *need_writer(struct text *x)
{
	return x->w ? NULL : bp_trace_writer_create(x->out_path, x->tick_shift, &x->w);
}

static struct bp_err *finish_block(struct text *x)
{
	struct bp_block b = {x->events, x->n_events, x->runs, x->n_runs, x->frames, x->n_frames};

	if (x->in_waits) {
		x->in_waits = false;
		return bp_trace_writer_waits(x->w, x->waits, x->n_waits);
	}
	if (!x->in_block)
		return NULL;
	x->in_block = false;
	if (!x->n_events)
		return bad_line(x, "the block before this line is empty");
	return bp_trace_writer_block(x->w, &b);
}

static struct bp_err *read_func(struct text *x)
{
	struct bp_func f = {0};
	const struct key keys[] = {{.name = "sym", .max = UINT64_MAX, .u = &f.sym_addr}};
	struct bp_err *err;
	int space;

	if (!take_u32(x, &f.id) || f.id != x->n_funcs)
		return bad_line(x, "function ids must count from 0");
	space = find_name(space_names, BP_SPACE_N, take_word(x));
	if (space < 0)
		return bad_line(x, "unknown space of a function");
	f.space = (uint8_t)space;
	if (!parse_u64(take_word(x), UINT64_MAX, &f.addr))
		return bad_line(x, "bad address");
	f.sym_addr = f.addr;
	err = take_keys(x, keys, 1);
	if (!err)
		err = take_string(x, &f.name);
	if (!err)
		err = take_string(x, &f.module);
	if (!err)
		err = bp_trace_writer_func(x->w, &f);
	if (!err)
		x->n_funcs++;
	return err;
}

static struct bp_err *read_fact(struct text *x)
{
	struct bp_fact f = {0};
	uint64_t vcpu = UINT16_MAX;
	const struct key keys[] = {
	    {.name = "time", .max = UINT64_MAX, .u = &f.time_ns},
	    {.name = "vcpu", .max = UINT16_MAX, .u = &vcpu},
	    {.name = "insns", .max = UINT64_MAX, .u = &f.insns},
	    {.name = "v0", .max = UINT64_MAX, .u = &f.v[0]},
	    {.name = "v1", .max = UINT64_MAX, .u = &f.v[1]},
	    {.name = "v2", .max = UINT64_MAX, .u = &f.v[2]},
	    {.name = "v3", .max = UINT64_MAX, .u = &f.v[3]},
	};
	const char *word = take_word(x);
	struct bp_err *err;

	for (size_t i = 1; word && i < BP_ARRAY_SIZE(fact_kinds); i++) {
		if (!strcmp(word, fact_kinds[i].name))
			f.kind = (uint16_t)i;
	}
	if (!f.kind)
		return bad_line(x, "unknown kind of fact");
	err = take_keys(x, keys, BP_ARRAY_SIZE(keys));
	f.vcpu = (uint16_t)vcpu;
	if (!err)
		err = take_string(x, &f.s1);
	if (!err)
		err = take_string(x, &f.s2);
	return err ? err : bp_trace_writer_fact(x->w, &f);
}

static struct bp_err *read_fold(struct text *x)
{
	struct bp_fold f = {0};
	const struct key keys[] = {
	    {.name = "calls", .max = UINT64_MAX, .u = &f.calls},
	    {.name = "self_ns", .i = &f.self_ns},
	    {.name = "self_insns", .i = &f.self_insns},
	    {.name = "total_ns", .max = UINT64_MAX, .u = &f.total_ns},
	    {.name = "total_insns", .max = UINT64_MAX, .u = &f.total_insns},
	    {.name = "min_ns", .max = UINT64_MAX, .u = &f.min_ns},
	    {.name = "max_ns", .max = UINT64_MAX, .u = &f.max_ns},
	};
	struct bp_err *err;

	if (!take_u32(x, &f.func) || f.func >= x->n_funcs)
		return bad_line(x, "function is not defined");
	err = take_keys(x, keys, BP_ARRAY_SIZE(keys));
	return err ? err : bp_trace_writer_fold(x->w, &f, 1);
}

static struct bp_err *read_host_frame(struct text *x)
{
	struct bp_host_frame f = {0};
	const struct key keys[] = {
	    {.name = "addr", .max = UINT64_MAX, .u = &f.addr},
	    {.name = "off", .max = UINT64_MAX, .u = &f.offset},
	};
	struct bp_err *err;
	int space;

	if (!take_u32(x, &f.id) || !f.id || f.id >= BP_HOST_IDS_MAX)
		return bad_line(x, "ids of host frames are numbers from 1");
	space = find_name(host_space_names, BP_HOST_SPACES, take_word(x));
	if (space < 0)
		return bad_line(x, "unknown space of a host frame");
	f.space = (uint8_t)space;
	err = take_keys(x, keys, BP_ARRAY_SIZE(keys));
	if (!err)
		err = take_string(x, &f.name);
	if (!err)
		err = take_string(x, &f.module);
	return err ? err : bp_trace_writer_host_frame(x->w, &f);
}

static struct bp_err *read_host_stack(struct text *x)
{
	uint32_t id, frames[BP_HOST_STACK_MAX];
	size_t n = 0;

	if (!take_u32(x, &id) || !id || id >= BP_HOST_IDS_MAX)
		return bad_line(x, "ids of host stacks are numbers from 1");
	while (!at_end(x)) {
		if (n == BP_HOST_STACK_MAX)
			return bad_line(x, "too many frames");
		if (!take_u32(x, &frames[n]) || frames[n] >= BP_HOST_IDS_MAX)
			return bad_line(x, "bad id of a host frame");
		n++;
	}
	return bp_trace_writer_host_stack(x->w, id, frames, n);
}

static struct bp_err *begin_waits(struct text *x)
{
	if (!x->waits) {
		x->waits = malloc(BP_WAIT_BLOCK * sizeof(*x->waits));
		if (!x->waits)
			return bp_err_nomem();
	}
	x->in_waits = true;
	x->n_waits = 0;
	return NULL;
}

static struct bp_err *read_wait(struct text *x, const char *word)
{
	uint64_t state = 0, cpu = BP_WAIT_NO_CPU, other = 0, flags = 0, kstack = 0, ustack = 0;
	struct bp_wait r = {0};
	const struct key keys[] = {
	    {.name = "state", .max = UINT8_MAX, .u = &state},
	    {.name = "cpu", .max = BP_WAIT_NO_CPU, .u = &cpu},
	    {.name = "time", .max = UINT64_MAX, .u = &r.time_ns},
	    {.name = "other", .max = UINT32_MAX, .u = &other},
	    {.name = "addr", .max = UINT64_MAX, .u = &r.addr},
	    {.name = "value", .i = &r.value},
	    {.name = "flags", .max = UINT32_MAX, .u = &flags},
	    {.name = "kstack", .max = UINT32_MAX, .u = &kstack},
	    {.name = "ustack", .max = UINT32_MAX, .u = &ustack},
	};
	int kind = find_name(wait_names, BP_WAIT_KINDS, word);
	struct bp_err *err;

	if (!take_u32(x, &r.thread))
		return bad_line(x, "expected the number of a thread");
	if (x->n_waits == BP_WAIT_BLOCK)
		return bad_line(x, "too many waits in one block");
	err = take_keys(x, keys, BP_ARRAY_SIZE(keys));
	if (err)
		return err;
	r.kind = (uint8_t)kind;
	r.state = (uint8_t)state;
	r.cpu = (uint16_t)cpu;
	r.other = (uint32_t)other;
	r.flags = (uint32_t)flags;
	r.kstack = (uint32_t)kstack;
	r.ustack = (uint32_t)ustack;
	x->waits[x->n_waits++] = r;
	return NULL;
}

static struct bp_err *begin_block(struct text *x)
{
	if (!x->tasks) {
		x->tasks = calloc(TASK_SLOTS, sizeof(*x->tasks));
		if (!x->tasks)
			return bp_err_nomem();
	}
	x->in_block = true;
	x->block_number++;
	x->n_events = x->n_runs = x->n_frames = 0;
	x->frames_allowed = false;
	x->task = NULL;
	return NULL;
}

static struct bp_err *add_event(struct text *x, struct bp_event ev)
{
	struct bp_err *err;

	if (x->n_events == BP_BLOCK_EVENTS)
		return bp_err_data(x->path, BP_NO_OFFSET, "line %lu: more than %d events in one block",
				   x->line, BP_BLOCK_EVENTS);
	err = grow(&x->events, &x->events_cap, x->n_events, sizeof(*x->events));
	if (!err)
		x->events[x->n_events++] = ev;
	return err;
}

static struct bp_err *read_run(struct text *x)
{
	struct bp_run run = {.n_frames = BP_RUN_NO_STACK, .first_frame = (uint32_t)x->n_frames};
	uint64_t vcpu = 0, task = 0;
	const struct key keys[] = {
	    {.name = "vcpu", .max = UINT32_MAX, .u = &vcpu},
	    {.name = "task", .max = UINT32_MAX, .u = &task},
	    {.name = "time", .max = UINT64_MAX, .u = &run.time_ns},
	    {.name = "insns", .max = UINT64_MAX, .u = &run.insns},
	    {.name = "cpu_ns", .max = UINT64_MAX, .u = &run.cpu_ns},
	    {.name = "cpu_insns", .max = UINT64_MAX, .u = &run.cpu_insns},
	};
	struct bp_err *err = take_keys(x, keys, BP_ARRAY_SIZE(keys));
	size_t h;

	if (!err)
		err = grow(&x->runs, &x->runs_cap, x->n_runs, sizeof(*x->runs));
	if (!err)
		err = add_event(x, (struct bp_event){.kind = BP_EV_RUN, .arg = (uint32_t)x->n_runs});
	if (err)
		return err;
	run.vcpu = (uint32_t)vcpu;
	run.task = (uint32_t)task;
	h = run.task * 0x9e3779b9u >> 7 & (TASK_SLOTS - 1);
	while (x->tasks[h].block == x->block_number && x->tasks[h].task != run.task)
		h = (h + 1) & (TASK_SLOTS - 1);
	x->task = &x->tasks[h];
	x->frames_allowed = x->task->block != x->block_number;
	if (x->frames_allowed) {
		*x->task = (struct task_slot){.task = run.task, .block = x->block_number};
		run.n_frames = 0;
	}
	x->runs[x->n_runs++] = run;
	return NULL;
}

static struct bp_err *read_frame(struct text *x)
{
	struct bp_frame f = {0};
	const struct key keys[] = {
	    {.name = "wall", .max = UINT64_MAX, .u = &f.wall_ns},
	    {.name = "cpu", .max = UINT64_MAX, .u = &f.cpu_ns},
	    {.name = "insns", .max = UINT64_MAX, .u = &f.insns},
	};
	int kind = find_name(event_names, BP_EV_KINDS, take_word(x));
	struct bp_err *err;

	if (!x->frames_allowed)
		return bad_line(x, "frames belong right behind the first run of a task in a block");
	if (kind < BP_EV_CALL || kind > BP_EV_IRQ)
		return bad_line(x, "a frame is a call, jump or irq");
	f.kind = (uint8_t)kind;
	if (!take_u32(x, &f.func) || f.func >= x->n_funcs)
		return bad_line(x, "function is not defined");
	err = take_keys(x, keys, BP_ARRAY_SIZE(keys));
	if (err)
		return err;
	if (x->task->depth == BP_MAX_DEPTH || x->n_frames == BP_BLOCK_FRAMES)
		return bad_line(x, "too many frames");
	err = grow(&x->frames, &x->frames_cap, x->n_frames, sizeof(*x->frames));
	if (err)
		return err;
	x->frames[x->n_frames++] = f;
	x->runs[x->n_runs - 1].n_frames++;
	x->task->depth++;
	return NULL;
}

static struct bp_err *read_event(struct text *x, int kind)
{
	struct bp_event ev = {.kind = (uint32_t)kind, .arg = kind == BP_EV_RET};

	if (!x->task)
		return bad_line(x, "no run before the first event of the block");
	if ((!at_end(x) && !take_u32(x, &ev.arg)) || (!at_end(x) && !take_u32(x, &ev.dt)) ||
	    (!at_end(x) && !take_u32(x, &ev.di)))
		return bad_line(x, "bad number");
	switch (kind) {
	case BP_EV_CALL:
	case BP_EV_JUMP:
	case BP_EV_IRQ:
		if (ev.arg >= x->n_funcs)
			return bad_line(x, "function is not defined");
		if (x->task->depth == BP_MAX_DEPTH)
			return bad_line(x, "the stack is too deep");
		x->task->depth++;
		break;
	case BP_EV_RET:
		if (!ev.arg || ev.arg > x->task->depth)
			return bad_line(x, "return below the stack");
		x->task->depth -= ev.arg;
		break;
	case BP_EV_LOST:
		x->task->depth = 0;
		break;
	default:
		break;
	}
	x->frames_allowed = false;
	return add_event(x, ev);
}

static struct bp_err *read_block_line(struct text *x, const char *word)
{
	int kind = find_name(event_names, BP_EV_KINDS, word);

	if (!x->in_block)
		return bad_line(x, "events belong behind a block line");
	if (!strcmp(word, "frame"))
		return read_frame(x);
	return kind == BP_EV_RUN ? read_run(x) : read_event(x, kind);
}

static struct bp_err *read_line(struct text *x)
{
	const char *word;
	struct bp_err *err;
	uint32_t v = 0;

	if (at_end(x))
		return NULL;
	if (x->ended)
		return bad_line(x, "text behind the end");
	word = take_word(x);
	if (!strcmp(word, "tick")) {
		/* The unit of time before the first item; an event after. */
		if (!x->w) {
			if (!take_u32(x, &v) || v > BP_MAX_TICK_SHIFT)
				return bad_line(x, "bad tick");
			x->tick_shift = v;
			return NULL;
		}
	}
	err = need_writer(x);
	if (err)
		return err;
	if (x->in_waits && find_name(wait_names, BP_WAIT_KINDS, word) >= 0)
		return read_wait(x, word);
	if (!strcmp(word, "frame") || find_name(event_names, BP_EV_KINDS, word) >= 0)
		return read_block_line(x, word);
	err = finish_block(x);
	if (err)
		return err;
	if (!strcmp(word, "func"))
		return read_func(x);
	if (!strcmp(word, "fact"))
		return read_fact(x);
	if (!strcmp(word, "fold"))
		return read_fold(x);
	if (!strcmp(word, "block"))
		return begin_block(x);
	if (!strcmp(word, "waits"))
		return begin_waits(x);
	if (!strcmp(word, "host-frame"))
		return read_host_frame(x);
	if (!strcmp(word, "host-stack"))
		return read_host_stack(x);
	if (!strcmp(word, "gap")) {
		bp_trace_writer_skip(x->w);
		return NULL;
	}
	if (!strcmp(word, "end")) {
		x->ended = true;
		return NULL;
	}
	return bad_line(x, "unknown word");
}

static struct bp_err *read_first_line(struct text *x)
{
	const char *word = take_word(x);
	uint32_t version;

	if (!word || strcmp(word, "bootprof-text") || !take_u32(x, &version))
		return bad_line(x, "not the text of a recording: it starts with \"bootprof-text 1\"");
	if (version != TEXT_VERSION)
		return bp_err_new(BP_EUNSUPPORTED, "%s: text of version %u, this bootprof reads version %d",
				  x->path, version, TEXT_VERSION);
	return NULL;
}

/* Ends the line before a comment. */
static void cut_comment(char *s)
{
	bool quoted = false;

	for (; *s; s++) {
		if (*s == '"')
			quoted = !quoted;
		else if (quoted && *s == '\\' && s[1])
			s++;
		else if (!quoted && *s == '#')
			break;
	}
	*s = '\0';
}

static struct bp_err *read_lines(struct text *x, FILE *f)
{
	bp_autofree char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, f)) >= 0) {
		struct bp_err *err;

		x->line++;
		while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
			line[--n] = '\0';
		if (strlen(line) != (size_t)n)
			return bad_line(x, "NUL byte");
		cut_comment(line);
		x->p = line;
		err = x->line == 1 ? read_first_line(x) : read_line(x);
		if (!err && !at_end(x))
			err = bad_line(x, "something behind the end of the line's contents");
		if (err)
			return err;
	}
	if (ferror(f))
		return bp_err_os(errno, "%s: cannot read", x->path);
	if (!x->line)
		return bp_err_data(x->path, BP_NO_OFFSET, "the file is empty");
	return NULL;
}

static void text_deinit(struct text *x)
{
	bp_trace_writer_destroy(x->w);
	free(x->events);
	free(x->runs);
	free(x->frames);
	free(x->tasks);
	free(x->waits);
}

static void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

struct bp_err *bp_trace_text_read(const char *text_path, const char *out_path)
{
	bp_cleanup(text_deinit) struct text x = {.path = text_path, .out_path = out_path};
	bp_cleanup(fclosep) FILE *f = fopen(text_path, "re");
	struct bp_err *err;

	if (!f)
		return bp_err_os(errno, "%s: cannot open", text_path);
	err = read_lines(&x, f);
	if (!err)
		err = finish_block(&x);
	if (!err)
		err = need_writer(&x);
	if (!err && x.ended) {
		struct bp_trace_writer *w = bp_steal(x.w);

		err = bp_trace_writer_close(w);
	} else if (!err) {
		err = bp_trace_writer_flush(x.w);
	}
	/* Half a recording would pass for a whole one that was cut short. */
	if (err && (x.w || x.ended))
		unlink(out_path);
	return err;
}
