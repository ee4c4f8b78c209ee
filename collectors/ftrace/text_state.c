// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE 1 /* memmem(), memrchr() */
#include "collectors/ftrace/text.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/cleanup.h"

#define PIECE_BYTES (64u << 10)
#define COMM_SLOTS 8192u

struct bp_ftext_piece {
	struct bp_ftext_piece *next;
	char data[];
};

struct bp_err *bp_ftext_init(struct bp_ftext *r, struct bp_import *im)
{
	*r = (struct bp_ftext){.im = im, .b = im->builder};
	r->counts.first_ns = UINT64_MAX;
	r->n_slots = 1024;
	r->slots = calloc(r->n_slots, sizeof(*r->slots));
	r->cap_tasks = 256;
	r->tasks = calloc(r->cap_tasks, sizeof(*r->tasks));
	r->cpus = calloc(BP_BUILDER_CPUS, sizeof(*r->cpus));
	r->comms = calloc(COMM_SLOTS, sizeof(*r->comms));
	r->expect = calloc(1u << BP_FTEXT_EXPECT_BITS, sizeof(*r->expect));
	r->seen = calloc(BP_BUILDER_CPUS, sizeof(*r->seen));
	if (r->slots && r->tasks && r->cpus && r->comms && r->expect && r->seen)
		return NULL;
	bp_ftext_deinit(r);
	return bp_err_nomem();
}

static void free_task(struct bp_ftext_task *t)
{
	if (!t)
		return;
	free(t->key);
	free(t->frames);
	free(t);
}

void bp_ftext_deinit(struct bp_ftext *r)
{
	bp_ftext_queue_stop(r);
	bp_err_free(r->err);
	while (r->pieces) {
		struct bp_ftext_piece *next = r->pieces->next;

		free(r->pieces);
		r->pieces = next;
	}
	for (uint32_t i = 0; r->tasks && i < r->cap_tasks; i++)
		free_task(r->tasks[i]);
	for (uint32_t i = 0; i < r->n_extra; i++)
		free_task(r->extra[i]);
	for (uint32_t i = 0; r->cpus && i < r->n_cpus; i++) {
		if (r->cpus[i])
			free(r->cpus[i]->held);
		free(r->cpus[i]);
	}
	free(r->funcs);
	free(r->tails);
	free(r->expect);
	free(r->seen);
	free(r->slots);
	free(r->tasks);
	free(r->extra);
	free(r->cpus);
	free(r->comms);
	*r = (struct bp_ftext){0};
}

/* ---- functions ---- */

static const char *keep_text(struct bp_ftext *r, const char *s, size_t len)
{
	char *p;

	if (!r->pieces || r->piece_used + len + 1 > PIECE_BYTES) {
		struct bp_ftext_piece *t = malloc(sizeof(*t) + PIECE_BYTES);

		if (!t)
			return NULL;
		t->next = r->pieces;
		r->pieces = t;
		r->piece_used = 0;
	}
	p = r->pieces->data + r->piece_used;
	memcpy(p, s, len);
	p[len] = '\0';
	r->piece_used += len + 1;
	return p;
}

static bool grow_slots(struct bp_ftext *r)
{
	uint32_t n = r->n_slots * 2;
	struct bp_ftext_slot *slots = calloc(n, sizeof(*slots));

	if (!slots)
		return false;
	for (uint32_t i = 0; i < r->n_slots; i++) {
		uint32_t at = r->slots[i].hash & (n - 1);

		if (!r->slots[i].func)
			continue;
		while (slots[at].func)
			at = (at + 1) & (n - 1);
		slots[at] = r->slots[i];
	}
	free(r->slots);
	r->slots = slots;
	r->n_slots = n;
	return true;
}

/* The same for the same name in every trace: there are no addresses in the text. */
static uint64_t name_number(const char *s, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)s[i]) * 0x100000001b3ull;
	return h >> 1;
}

/* Splits the key, finds the name of a bare address, and defines the function in the recording. */
static BP_MUST_CHECK struct bp_err *define(struct bp_ftext *r, struct bp_ftext_func *f)
{
	enum bp_space space = BP_SPACE_KERNEL;
	const char *key = f->key, *open = NULL;
	size_t len = f->key_len, name_len = len;
	char text[BP_FTEXT_NAME_MAX + 1];
	const char *name, *module;
	uint64_t addr = name_number(key, len), start;

	if (len > 2 && key[len - 1] == ']' && key[0] != '[')
		open = memrchr(key, '[', len);
	if (open && open > key + 1 && open[-1] == ' ')
		name_len = (size_t)(open - 1 - key);
	else
		open = NULL;
	f->name = keep_text(r, key, name_len);
	f->module = open ? keep_text(r, open + 1, (size_t)(key + len - 1 - (open + 1))) : "vmlinux";
	if (!f->name || !f->module)
		return bp_err_nomem();
	if (open)
		space = BP_SPACE_MODULE;
	else if (key[0] == '[') {
		space = BP_SPACE_PSEUDO;
		f->module = "";
	} else if (len > 2 && key[0] == '0' && key[1] == 'x') {
		const struct bp_import_names *names = r->im->names;

		r->im->stats->addresses++;
		snprintf(text, sizeof(text), "%.*s", (int)len, key);
		if (names && names->find &&
		    names->find(names->self, strtoull(text, NULL, 16), &name, &module, &start)) {
			f->name = keep_text(r, name, strnlen(name, BP_FTEXT_NAME_MAX));
			f->module = keep_text(r, module, strnlen(module, BP_FTEXT_NAME_MAX));
			if (!f->name || !f->module)
				return bp_err_nomem();
			if (strcmp(f->module, "vmlinux") != 0)
				space = BP_SPACE_MODULE;
		} else {
			r->im->stats->unnamed++;
		}
	}
	return bp_builder_func(r->b, space, addr, addr, f->name, f->module, &f->id);
}

static bool grow_tails(struct bp_ftext *r, uint32_t cap)
{
	struct bp_ftext_tail *p = realloc(r->tails, (size_t)cap * 2 * sizeof(*p));

	if (!p)
		return false;
	r->tails = p;
	return true;
}

static void add_tails(struct bp_ftext *r, uint32_t func, const struct bp_ftext_func *f)
{
	static const char *const ends[2] = {"();\n", "() {\n"};

	for (uint32_t i = 0; i < 2; i++) {
		struct bp_ftext_tail *t = &r->tails[func * 2 + i];
		size_t len = f->key_len + strlen(ends[i]);

		*t = (struct bp_ftext_tail){.plain = bp_ftext_plain(f->key, f->key_len)};
		if (len > sizeof(t->text) || !t->plain)
			continue;
		memcpy(t->text, f->key, f->key_len);
		memcpy(t->text + f->key_len, ends[i], len - f->key_len);
		t->len = (uint16_t)len;
	}
}

static __attribute__((noinline)) uint32_t add_func(struct bp_ftext *r, uint32_t hash, const char *key,
						   size_t len)
{
	uint32_t at = 0, found;
	struct bp_ftext_func *f;
	struct bp_err *err;

	if (r->n_funcs >= BP_FTEXT_FUNCS_MAX) {
		/* The last one stands for all that are too many. */
		found = bp_ftext_find(r, bp_ftext_hash("[more functions]", 16), "[more functions]", 16, &at);
		if (found != BP_FTEXT_NONE || r->n_funcs > BP_FTEXT_FUNCS_MAX)
			return found;
		key = "[more functions]";
		len = 16;
		hash = bp_ftext_hash(key, len);
	}
	if (r->n_funcs == r->cap_funcs) {
		uint32_t cap = r->cap_funcs ? r->cap_funcs * 2 : 256;
		struct bp_ftext_func *p = realloc(r->funcs, cap * sizeof(*p));

		if (!p) {
			bp_ftext_fail(r, bp_err_nomem());
			return BP_FTEXT_NONE;
		}
		r->funcs = p;
		if (!grow_tails(r, cap)) {
			bp_ftext_fail(r, bp_err_nomem());
			return BP_FTEXT_NONE;
		}
		r->cap_funcs = cap;
	}
	if (r->n_funcs * 2 >= r->n_slots && !grow_slots(r)) {
		bp_ftext_fail(r, bp_err_nomem());
		return BP_FTEXT_NONE;
	}
	f = &r->funcs[r->n_funcs];
	*f = (struct bp_ftext_func){.key = keep_text(r, key, len), .key_len = (uint32_t)len};
	err = f->key ? define(r, f) : bp_err_nomem();
	if (err) {
		bp_ftext_fail(r, err);
		return BP_FTEXT_NONE;
	}
	bp_ftext_find(r, hash, key, len, &at);
	r->slots[at] = (struct bp_ftext_slot){f->key, f->key_len, hash, ++r->n_funcs};
	add_tails(r, r->n_funcs - 1, f);
	return r->n_funcs - 1;
}

uint32_t bp_ftext_intern(struct bp_ftext *r, const char *key, size_t len)
{
	uint32_t hash, at, found;

	if (len > BP_FTEXT_NAME_MAX)
		len = BP_FTEXT_NAME_MAX;
	hash = bp_ftext_hash(key, len);
	found = bp_ftext_find(r, hash, key, len, &at);
	return found != BP_FTEXT_NONE ? found : add_func(r, hash, key, len);
}

uint32_t bp_ftext_lookup(const struct bp_ftext *r, const char *key, size_t len)
{
	uint32_t at;

	if (len > BP_FTEXT_NAME_MAX)
		len = BP_FTEXT_NAME_MAX;
	return bp_ftext_find(r, bp_ftext_hash(key, len), key, len, &at);
}

/* ---- CPUs ---- */

struct bp_ftext_cpu *bp_ftext_cpu(struct bp_ftext *r, uint32_t cpu)
{
	if (cpu >= BP_BUILDER_CPUS)
		return NULL;
	if (!r->cpus[cpu]) {
		r->cpus[cpu] = calloc(1, sizeof(**r->cpus));
		if (!r->cpus[cpu])
			bp_ftext_fail(r, bp_err_nomem());
		else if (cpu >= r->n_cpus)
			r->n_cpus = cpu + 1;
	}
	return r->cpus[cpu];
}

/* ---- tasks ---- */

bool bp_ftext_pid(const char *p, const char *e, int64_t *pid, size_t *comm_len)
{
	const char *q = e;
	uint64_t v;

	while (q > p && (unsigned char)(q[-1] - '0') < 10)
		q--;
	if (q == e || q == p || q[-1] != '-' || e - q > 10)
		return false;
	*comm_len = (size_t)(q - 1 - p);
	if (!bp_ftext_number(&q, e, &v))
		return false;
	*pid = (int64_t)v;
	return true;
}

static struct bp_ftext_comm *comm_slot(struct bp_ftext *r, int64_t pid)
{
	return &r->comms[(uint64_t)pid % COMM_SLOTS];
}

/* Whether the column's name is the full one, cut. */
static bool cut_of(const char *cut, size_t len, const char *comm)
{
	return len >= 7 && len < strlen(comm) && !memcmp(cut, comm, len);
}

/* The recording hears of a task when it first runs. */
static struct bp_ftext_task *new_task(struct bp_ftext *r, int64_t pid, const char *key, size_t len,
				      size_t comm_len)
{
	struct bp_ftext_task *t = calloc(1, sizeof(*t));

	if (t)
		t->key = malloc(len + 1);
	if (!t || !t->key) {
		free_task(t);
		bp_ftext_fail(r, bp_err_nomem());
		return NULL;
	}
	memcpy(t->key, key, len);
	t->key[len] = '\0';
	t->key_len = (uint32_t)len;
	t->comm_len = (uint32_t)comm_len;
	t->pid = pid;
	t->id = BP_FTEXT_NONE;
	t->cpu = BP_FTEXT_NONE;
	return t;
}

static void announce(struct bp_ftext *r, struct bp_ftext_task *t, uint64_t time_ns)
{
	char name[BP_FTEXT_NAME_MAX + 1];

	memcpy(name, t->key, t->comm_len);
	name[t->comm_len] = '\0';
	if (t->pid > 0) {
		struct bp_ftext_comm *c = comm_slot(r, t->pid);

		if (c->pid == t->pid && cut_of(name, t->comm_len, c->comm)) {
			snprintf(name, sizeof(name), "%s", c->comm);
			t->named = true;
		}
		if (c->pid == t->pid || !c->pid) {
			c->pid = t->pid;
			c->task = t;
		}
	}
	t->id = 0;
	bp_ftext_fail(r, bp_builder_task(r->b, t->pid, -1, name, t->pid ? 0 : BP_TASK_IDLE, time_ns, &t->id));
}

static bool keep_extra(struct bp_ftext *r, struct bp_ftext_task *t)
{
	if (r->n_extra == r->cap_extra) {
		uint32_t cap = r->cap_extra ? r->cap_extra * 2 : 16;
		struct bp_ftext_task **p = realloc(r->extra, cap * sizeof(*p));

		if (!p) {
			bp_ftext_fail(r, bp_err_nomem());
			free_task(t);
			return false;
		}
		r->extra = p;
		r->cap_extra = cap;
	}
	r->extra[r->n_extra++] = t;
	return true;
}

struct bp_ftext_task *bp_ftext_unnamed(struct bp_ftext *r, uint32_t cpu, bool timed)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];
	char name[32];
	struct bp_ftext_task *t, *counter = NULL;
	size_t len;

	if (c->unnamed)
		return c->unnamed;
	len = (size_t)snprintf(name, sizeof(name), "[CPU %u]", cpu);
	if (timed) {
		counter = new_task(r, -1, name, len, len);
		if (!counter || !keep_extra(r, counter))
			return NULL;
	}
	t = new_task(r, -1, name, len, len);
	if (t && keep_extra(r, t)) {
		t->counter = counter;
		c->unnamed = t;
	}
	return c->unnamed;
}

static struct bp_ftext_task *idle_of(struct bp_ftext *r, uint32_t cpu, struct bp_ftext_task *counter)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];
	char name[32];
	struct bp_ftext_task *t;
	size_t len;

	if (c->idle)
		return c->idle;
	len = (size_t)snprintf(name, sizeof(name), "swapper/%u", cpu);
	t = new_task(r, 0, name, len, len);
	if (t && keep_extra(r, t)) {
		t->counter = counter;
		c->idle = t;
	}
	return c->idle;
}

static bool grow_tasks(struct bp_ftext *r)
{
	uint32_t cap = r->cap_tasks * 2;
	struct bp_ftext_task **p = calloc(cap, sizeof(*p));

	if (!p)
		return false;
	for (uint32_t i = 0; i < r->cap_tasks; i++) {
		uint32_t at;

		if (!r->tasks[i])
			continue;
		at = r->tasks[i]->hash & (cap - 1);
		while (p[at])
			at = (at + 1) & (cap - 1);
		p[at] = r->tasks[i];
	}
	free(r->tasks);
	r->tasks = p;
	r->cap_tasks = cap;
	return true;
}

struct bp_ftext_task *bp_ftext_known_task(const struct bp_ftext *r, uint32_t cpu, const char *key, size_t len)
{
	uint32_t hash;

	if (len > BP_FTEXT_NAME_MAX)
		len = BP_FTEXT_NAME_MAX;
	hash = bp_ftext_hash(key, len);
	for (uint32_t at = hash & (r->cap_tasks - 1); r->tasks[at]; at = (at + 1) & (r->cap_tasks - 1)) {
		struct bp_ftext_task *t = r->tasks[at];

		if (t->hash == hash && t->key_len == len && !memcmp(t->key, key, len))
			return t->pid ? t : r->cpus[cpu]->idle;
	}
	return NULL;
}

struct bp_ftext_task *bp_ftext_task_of(struct bp_ftext *r, uint32_t cpu, const char *key, size_t len)
{
	uint32_t hash, at;
	struct bp_ftext_task *t = NULL;
	size_t comm_len;
	int64_t pid = -1;

	if (len > BP_FTEXT_NAME_MAX)
		len = BP_FTEXT_NAME_MAX;
	hash = bp_ftext_hash(key, len);
	for (at = hash & (r->cap_tasks - 1); r->tasks[at]; at = (at + 1) & (r->cap_tasks - 1)) {
		t = r->tasks[at];
		if (t->hash == hash && t->key_len == len && !memcmp(t->key, key, len))
			return t->pid ? t : idle_of(r, cpu, t);
	}
	/* Too many tasks: the CPU stands for the rest. */
	if (r->n_tasks >= BP_FTEXT_TASKS_MAX)
		return bp_ftext_unnamed(r, cpu, false);
	if (!bp_ftext_pid(key, key + len, &pid, &comm_len))
		comm_len = len;
	t = new_task(r, pid, key, len, comm_len);
	if (!t)
		return NULL;
	if (r->n_tasks * 2 >= r->cap_tasks && !grow_tasks(r)) {
		free_task(t);
		bp_ftext_fail(r, bp_err_nomem());
		return NULL;
	}
	t->hash = hash;
	for (at = hash & (r->cap_tasks - 1); r->tasks[at]; at = (at + 1) & (r->cap_tasks - 1))
		;
	r->tasks[at] = t;
	r->n_tasks++;
	return t->pid ? t : idle_of(r, cpu, t);
}

static void learn_comm(struct bp_ftext *r, int64_t pid, const char *comm, size_t len, uint64_t time_ns)
{
	struct bp_ftext_comm *c = comm_slot(r, pid);

	if (pid <= 0 || !len || len >= sizeof(c->comm))
		return;
	if (c->pid == pid && strlen(c->comm) == len && !memcmp(c->comm, comm, len))
		return;
	if (c->pid != pid)
		*c = (struct bp_ftext_comm){.pid = pid};
	memcpy(c->comm, comm, len);
	c->comm[len] = '\0';
	if (c->task && !c->task->named && cut_of(c->task->key, c->task->comm_len, c->comm)) {
		c->task->named = true;
		bp_ftext_fail(r, bp_builder_rename(r->b, c->task->id, c->comm, time_ns));
	}
}

/* "WHO_comm=... WHO_pid=N"; @from: where to look on */
static const char *comm_field(const char *p, const char *e, const char *who, const char **comm, size_t *len,
			      int64_t *pid)
{
	char name[16], pid_name[16];
	const char *q, *z;
	uint64_t v;

	snprintf(name, sizeof(name), "%s_comm=", who);
	snprintf(pid_name, sizeof(pid_name), " %s_pid=", who);
	q = memmem(p, (size_t)(e - p), name, strlen(name));
	if (!q)
		return NULL;
	q += strlen(name);
	z = memmem(q, (size_t)(e - q), pid_name, strlen(pid_name));
	if (!z)
		return NULL;
	*comm = q;
	*len = (size_t)(z - q);
	q = z + strlen(pid_name);
	if (!bp_ftext_number(&q, e, &v))
		return NULL;
	*pid = (int64_t)v;
	return q;
}

const char *bp_ftext_next_comm(const char *p, const char *e, const char **comm, size_t *len, int64_t *pid)
{
	return comm_field(p, e, "next", comm, len, pid);
}

void bp_ftext_comms(struct bp_ftext *r, const char *p, const char *e, uint64_t time_ns)
{
	const char *comm, *q;
	size_t len;
	int64_t pid;

	q = comm_field(p, e, "prev", &comm, &len, &pid);
	if (q)
		learn_comm(r, pid, comm, len, time_ns);
	q = comm_field(q ? q : p, e, "next", &comm, &len, &pid);
	if (q)
		learn_comm(r, pid, comm, len, time_ns);
}

/* ---- stacks and runs ---- */

struct bp_ftext_frame *bp_ftext_push(struct bp_ftext *r, struct bp_ftext_task *t)
{
	if (t->n == t->cap) {
		uint32_t cap = t->cap ? t->cap * 2 : 16;
		struct bp_ftext_frame *p = NULL;

		if (cap > BP_MAX_DEPTH)
			cap = BP_MAX_DEPTH;
		if (cap > t->cap && r->n_frames + cap - t->cap <= BP_FTEXT_FRAMES_MAX)
			p = realloc(t->frames, cap * sizeof(*p));
		if (!p) {
			t->over++;
			return NULL;
		}
		r->n_frames += cap - t->cap;
		t->frames = p;
		t->cap = cap;
	}
	return &t->frames[t->n++];
}

void bp_ftext_unlive(struct bp_ftext_task *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		t->frames[i].live = false;
}

void bp_ftext_release(struct bp_ftext *r, uint32_t cpu, uint64_t shift_ns)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];
	struct bp_ftext_task *t = c->running;

	c->holding = false;
	for (uint32_t i = 0; i < c->n_held; i++) {
		const struct bp_ftext_held *h = &c->held[i];
		struct bp_err *err;

		if (h->kind == BP_EV_RET)
			err = bp_builder_leave(r->b, cpu, h->arg, h->time_ns + shift_ns, 0);
		else
			err = bp_builder_enter(r->b, cpu, h->kind, r->funcs[h->arg].id, h->time_ns + shift_ns,
					       0);
		bp_ftext_fail(r, err);
	}
	c->n_held = 0;
	if (!shift_ns)
		return;
	c->newest_ns += shift_ns;
	for (uint32_t i = c->hold_n; t && i < t->n; i++)
		t->frames[i].enter_ns += shift_ns;
}

static __attribute__((noinline)) bool hold(struct bp_ftext *r, uint32_t cpu, uint32_t arg,
					   enum bp_ev_kind kind)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];

	if (c->n_held == c->cap_held) {
		uint32_t cap = c->cap_held ? c->cap_held * 2 : 64;
		struct bp_ftext_held *p = cap > BP_FTEXT_HELD_MAX ? NULL : realloc(c->held, cap * sizeof(*p));

		if (!p) {
			bp_ftext_release(r, cpu, 0);
			return false;
		}
		c->held = p;
		c->cap_held = cap;
	}
	c->held[c->n_held++] = (struct bp_ftext_held){.time_ns = c->newest_ns, .arg = arg, .kind = kind};
	return true;
}

void bp_ftext_enter(struct bp_ftext *r, uint32_t cpu, uint32_t func, enum bp_ev_kind kind)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];

	if (__builtin_expect(c->holding, 0) && hold(r, cpu, func, kind))
		return;
	bp_ftext_fail(r, bp_builder_enter(r->b, cpu, kind, r->funcs[func].id, c->newest_ns, 0));
}

void bp_ftext_leave(struct bp_ftext *r, uint32_t cpu, uint32_t n)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];

	if (__builtin_expect(c->holding, 0) && hold(r, cpu, n, BP_EV_RET))
		return;
	bp_ftext_fail(r, bp_builder_leave(r->b, cpu, n, c->newest_ns, 0));
}

void bp_ftext_leaf(struct bp_ftext *r, uint32_t cpu, uint32_t func, enum bp_ev_kind kind,
		   uint64_t duration_ns)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];
	uint64_t start = c->newest_ns;

	if (__builtin_expect(c->holding, 0)) {
		bp_ftext_enter(r, cpu, func, kind);
		c->newest_ns += duration_ns;
		bp_ftext_leave(r, cpu, 1);
		return;
	}
	c->newest_ns += duration_ns;
	bp_ftext_fail(r, bp_builder_leaf(r->b, cpu, kind, r->funcs[func].id, start, c->newest_ns));
}

void bp_ftext_run_task(struct bp_ftext *r, uint32_t cpu, struct bp_ftext_task *t, uint64_t time_ns)
{
	struct bp_ftext_cpu *c = r->cpus[cpu];

	if (time_ns > c->newest_ns)
		c->newest_ns = time_ns;
	if (c->running == t)
		return;
	if (c->holding)
		bp_ftext_release(r, cpu, 0);
	if (t->id == BP_FTEXT_NONE)
		announce(r, t, c->newest_ns);
	if (r->err)
		return;
	if (t->cpu != BP_FTEXT_NONE && t->cpu != cpu && r->cpus[t->cpu]->running == t) {
		if (r->cpus[t->cpu]->holding)
			bp_ftext_release(r, t->cpu, 0);
		t->last_ns = r->cpus[t->cpu]->newest_ns;
		r->cpus[t->cpu]->running = NULL;
	}
	if (t->last_ns > c->newest_ns)
		c->newest_ns = t->last_ns;
	if (c->running)
		c->running->last_ns = c->newest_ns;
	t->cpu = cpu;
	c->running = t;
	bp_ftext_fail(r, bp_builder_switch(r->b, cpu, t->id, c->newest_ns, 0));
	if (c->lost_pending) {
		c->lost_pending = false;
		bp_ftext_fail(r, bp_builder_lost(r->b, cpu, c->lost, c->newest_ns, "the trace says so"));
		c->lost = 0;
	}
}

void bp_ftext_lost(struct bp_ftext *r, uint32_t cpu, uint64_t count)
{
	struct bp_ftext_cpu *c = bp_ftext_cpu(r, cpu);

	if (!c)
		return;
	if (!c->running) {
		c->lost_pending = true;
		c->lost = count > UINT64_MAX - c->lost ? UINT64_MAX : c->lost + count;
		return;
	}
	if (c->holding)
		bp_ftext_release(r, cpu, 0);
	bp_ftext_unlive(c->running);
	bp_ftext_fail(r, bp_builder_lost(r->b, cpu, count, c->newest_ns, "the trace says so"));
}
