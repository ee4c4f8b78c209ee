// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE 1 /* memrchr() */
#include "collectors/sched.h"

#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

#define WORDS 16384u /* half of them are used at most */
#define HELD 4096u   /* records kept back at least; twice that are at most */
#define THREADS_MAX 65536u
#define SLOTS (2 * THREADS_MAX)

struct thread {
	uint32_t tid;
	uint32_t tgid;
	bool used, named, any; /* `any`: it has a record: */
	uint64_t last;         /* number of its last one */
	char comm[16];
};

struct bp_sched {
	struct bp_builder *b;
	struct bp_wait_log *log;
	struct bp_wait *held; /* 2 * HELD */
	size_t n_held;
	uint64_t first;         /* number of held[0] */
	struct thread *threads; /* open hash, SLOTS */
	uint32_t n_threads;
	char text[2][512]; /* names made to end */
	uint64_t *words;   /* open hash of futex addresses, WORDS */
	size_t n_words;
	uint64_t *seen; /* time of each CPU's last record, NULL: of none */
	uint64_t early; /* events lost before the first record */
};

void bp_sched_destroy(struct bp_sched *s)
{
	if (!s)
		return;
	bp_wait_log_destroy(s->log);
	free(s->held);
	free(s->threads);
	free(s->words);
	free(s->seen);
	free(s);
}

struct bp_err *bp_sched_create(struct bp_builder *b, struct bp_sched **ret)
{
	struct bp_sched *s = calloc(1, sizeof(*s));

	if (!s)
		return bp_err_nomem();
	s->b = b;
	*ret = s;
	return NULL;
}

uint64_t bp_sched_n(const struct bp_sched *s)
{
	return s->first + s->n_held;
}

/* The log, with nobody else at the writer. */
static BP_MUST_CHECK struct bp_err *use_log(struct bp_sched *s)
{
	struct bp_trace_writer *w;
	struct bp_err *err = bp_builder_writer(s->b, &w);

	if (!err && !s->log)
		err = bp_wait_log_create(w, &s->log);
	return err;
}

/* NULL: there are too many. */
static struct thread *thread_of(struct bp_sched *s, uint32_t tid)
{
	uint32_t h = tid * 0x9e3779b9u >> 7 & (SLOTS - 1);

	if (!s->threads)
		s->threads = calloc(SLOTS, sizeof(*s->threads));
	if (!s->threads)
		return NULL;
	while (s->threads[h].used && s->threads[h].tid != tid)
		h = (h + 1) & (SLOTS - 1);
	if (!s->threads[h].used) {
		if (s->n_threads == THREADS_MAX)
			return NULL;
		s->n_threads++;
		s->threads[h] = (struct thread){.tid = tid, .used = true};
	}
	return &s->threads[h];
}

struct bp_err *bp_sched_thread(struct bp_sched *s, uint32_t tid, uint32_t tgid, const char *comm, size_t len,
			       bool sure, uint64_t time_ns)
{
	struct thread *t = tid ? thread_of(s, tid) : NULL;
	struct bp_fact f = {.kind = BP_FACT_THREAD, .vcpu = UINT16_MAX, .time_ns = time_ns, .s2 = ""};

	if (!t || !len)
		return NULL;
	if (len > sizeof(t->comm) - 1)
		len = sizeof(t->comm) - 1;
	if (t->named && (!tgid || tgid == t->tgid) &&
	    (!sure || (!memcmp(t->comm, comm, len) && !t->comm[len])))
		return NULL;
	memcpy(t->comm, comm, len);
	t->comm[len] = '\0';
	t->named = true;
	if (tgid)
		t->tgid = tgid;
	f.v[0] = tid;
	f.v[1] = t->tgid;
	f.s1 = t->comm;
	f.s2 = bp_thread_role(t->comm, &f.vcpu);
	f.v[2] = *f.s2 != '\0';
	return bp_builder_fact(s->b, &f);
}

static BP_MUST_CHECK struct bp_err *let_go(struct bp_sched *s, size_t n)
{
	struct bp_err *err;

	if (!n)
		return NULL;
	err = use_log(s);

	for (size_t i = 0; i < n && !err; i++)
		err = bp_wait_log_add(s->log, &s->held[i]);
	memmove(s->held, s->held + n, (s->n_held - n) * sizeof(*s->held));
	s->n_held -= n;
	s->first += n;
	return err;
}

static BP_MUST_CHECK struct bp_err *add_word(struct bp_sched *s, uint64_t addr)
{
	size_t h = (size_t)(addr * 0x9e3779b97f4a7c15ull >> 40) & (WORDS - 1);

	if (!s->words)
		s->words = calloc(WORDS, sizeof(*s->words));
	if (!s->words)
		return bp_err_nomem();
	while (s->words[h] && s->words[h] != addr)
		h = (h + 1) & (WORDS - 1);
	if (!s->words[h] && s->n_words < WORDS / 2) {
		s->words[h] = addr;
		s->n_words++;
	}
	return NULL;
}

const uint64_t *bp_sched_words(const struct bp_sched *s, size_t *n)
{
	*n = s->words ? WORDS : 0;
	return s->words;
}

uint32_t bp_sched_n_frames(const struct bp_sched *s)
{
	return s->log ? bp_wait_log_n_frames(s->log) : 0;
}

struct bp_host_frame bp_sched_get_frame(const struct bp_sched *s, uint32_t id)
{
	return bp_wait_log_get_frame(s->log, id);
}

struct bp_err *bp_sched_name(struct bp_sched *s, uint32_t id, const char *name, uint64_t offset,
			     const char *module)
{
	struct bp_err *err = use_log(s);

	return err ? err : bp_wait_log_name(s->log, id, name, offset, module);
}

struct bp_err *bp_sched_lost(struct bp_sched *s, uint16_t cpu, uint64_t time_ns, uint64_t count)
{
	struct bp_wait w = {.kind = BP_WAIT_LOST, .cpu = cpu, .time_ns = time_ns};
	uint64_t since_ns = s->seen ? s->seen[cpu] : 0;

	count += !count;
	if (!bp_sched_n(s)) {
		s->early = count > INT64_MAX - s->early ? INT64_MAX : s->early + count;
		return NULL;
	}
	w.value = count > INT64_MAX ? INT64_MAX : (int64_t)count;
	w.addr = time_ns > since_ns ? time_ns - since_ns : 0;
	return bp_sched_add(s, &w);
}

struct bp_err *bp_sched_add(struct bp_sched *s, const struct bp_wait *rec)
{
	struct bp_err *err = NULL;
	struct thread *t;

	if (!s->held) {
		s->held = malloc(2 * HELD * sizeof(*s->held));
		s->seen = calloc(UINT16_MAX + 1, sizeof(*s->seen));
		if (!s->held || !s->seen)
			return bp_err_nomem();
	}
	if (s->early) {
		s->held[s->n_held++] = (struct bp_wait){.kind = BP_WAIT_LOST,
							.cpu = BP_WAIT_NO_CPU,
							.time_ns = rec->time_ns,
							.value = (int64_t)s->early};
		s->early = 0;
	}
	s->seen[rec->cpu] = rec->time_ns;
	if (s->n_held == 2 * HELD)
		err = let_go(s, HELD);
	if (!err && rec->kind == BP_WAIT_FUTEX && rec->addr)
		err = add_word(s, rec->addr);
	if (err)
		return err;
	t = rec->kind == BP_WAIT_IN ? NULL : thread_of(s, rec->thread);
	if (t) {
		t->any = true;
		t->last = s->first + s->n_held;
	}
	s->held[s->n_held++] = *rec;
	return NULL;
}

struct bp_err *bp_sched_switch(struct bp_sched *s, uint16_t cpu, uint64_t time_ns, uint32_t prev,
			       const char *state, size_t state_len, uint32_t next)
{
	struct bp_wait out = {
	    .kind = BP_WAIT_OUT, .thread = prev, .other = next, .cpu = cpu, .time_ns = time_ns};
	struct bp_wait in = {
	    .kind = BP_WAIT_IN, .thread = next, .other = prev, .cpu = cpu, .time_ns = time_ns};
	struct bp_err *err;

	if (state_len)
		out.state = (uint8_t)state[0];
	if (state_len > 1 && state[state_len - 1] == '+')
		out.flags |= BP_WAIT_PREEMPTED;
	err = bp_sched_add(s, &out);
	return err ? err : bp_sched_add(s, &in);
}

static const char *ended(char *to, const char *s, size_t len)
{
	if (len > sizeof(((struct bp_sched *)NULL)->text[0]) - 1)
		len = sizeof(((struct bp_sched *)NULL)->text[0]) - 1;
	memcpy(to, s, len);
	to[len] = '\0';
	return to;
}

struct bp_err *bp_sched_frame(struct bp_sched *s, enum bp_host_space space, uint64_t addr, const char *name,
			      size_t name_len, uint64_t offset, const char *module, size_t module_len,
			      uint32_t *ret)
{
	struct bp_err *err = use_log(s);

	*ret = 0;
	return err ? err
		   : bp_wait_log_frame(s->log, space, addr, ended(s->text[0], name, name_len), offset,
				       ended(s->text[1], module, module_len), ret);
}

static bool hex(const char *p, const char *e, uint64_t *ret)
{
	uint64_t v = 0;

	if (e - p < 3 || p[0] != '0' || p[1] != 'x' || e - p > 18)
		return false;
	for (p += 2; p < e; p++) {
		int d = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : -1;

		if (d < 0)
			return false;
		v = v << 4 | (uint64_t)d;
	}
	*ret = v;
	return true;
}

struct bp_err *bp_sched_kernel_frame(struct bp_sched *s, uint64_t addr, const char *text, size_t len,
				     uint32_t *ret)
{
	const char *p = text, *e = text + len, *name_end, *module = "", *open, *plus;
	size_t module_len = 0;
	uint64_t offset = 0;

	name_end = memchr(p, ' ', len);
	if (!name_end)
		name_end = e;
	open = memchr(name_end, '[', (size_t)(e - name_end));
	if (open && e[-1] == ']') {
		module = open + 1;
		module_len = (size_t)(e - 1 - module);
	}
	plus = memrchr(p, '+', (size_t)(name_end - p));
	if (plus) {
		const char *slash = memchr(plus, '/', (size_t)(name_end - plus));

		if (hex(plus + 1, slash ? slash : name_end, &offset))
			name_end = plus;
	}
	return bp_sched_frame(s, BP_HOST_KERNEL, addr, p, (size_t)(name_end - p), offset, module, module_len,
			      ret);
}

struct bp_err *bp_sched_stack(struct bp_sched *s, uint32_t tid, bool user, const uint32_t *frames, size_t n)
{
	struct thread *t = thread_of(s, tid);
	struct bp_wait *rec;
	struct bp_err *err;
	uint32_t id;

	if (!n || !t || !t->any || t->last < s->first)
		return NULL;
	rec = &s->held[t->last - s->first];
	err = use_log(s);
	if (!err)
		err = bp_wait_log_stack(s->log, frames, n, &id);
	if (err)
		return err;
	if (user)
		rec->ustack = id;
	else
		rec->kstack = id;
	return NULL;
}

struct bp_err *bp_sched_flush(struct bp_sched *s)
{
	struct bp_err *err = let_go(s, s->n_held);

	if (err || !s->log)
		return err;
	err = use_log(s);
	return err ? err : bp_wait_log_flush(s->log);
}
