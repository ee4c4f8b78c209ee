// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/waits.h"

#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "symbols/qemu_locks.h"

#define NO_THREAD UINT32_MAX
#define IDLE 0x80000000u /* key of a CPU's idle thread, with the CPU */
/* From being woken to leaving the CPU all the same, at most: the kernel had decided already. */
#define EARLY_NS 50000
#define HOLDERS 4        /* of a wait, that are told apart */
#define TIMES_OFF 8      /* of a thread, that are remembered; a power of two */
#define WAITERS_MAX 1000 /* of a lock, who are told who had it: those who came last */
#define HELD_MAX 256     /* locks that are known to have a holder, at a time */

enum run_state { UNKNOWN, RUNNING, OFF };

/* Who had a lock until some moment. */
struct had {
	uint32_t by; /* index into live */
	enum bp_holder_how how;
	uint32_t stack, site;
};

/* The same, of all the times that it had it during a wait. */
struct held {
	struct had had;
	uint64_t ns;
	uint64_t by_how[BP_HOLDER_EVENTS + 1]; /* of these, known in that way */
	uint64_t did[BP_OFF_RUNNING + 1];      /* and what it did then, as far as that is known, */
	uint64_t off_ns;                       /* the longest of these off the CPU that has a stack */
	uint32_t off_stack, run_stack;         /* of user space, sampled; 0: none */
};

/* A time off the CPU that is over. */
struct time_off {
	uint64_t out_ns, in_ns;
	uint64_t addr;   /* for which futex; 0: none */
	uint32_t ustack; /* 0 unknown */
	enum bp_off_class cls;
};

/* What is going on with a thread, by its number; its name may change. */
struct live {
	uint32_t key;
	uint32_t thread; /* index of what it is called now */
	uint32_t fact;   /* next of its names, in priv->names; NO_THREAD: none */
	enum run_state state;
	uint64_t since;    /* in `state`; UINT64_MAX: nothing is known of it */
	uint64_t known_ns; /* since when its states are known; UINT64_MAX as above */
	struct bp_off off; /* while OFF */
	uint32_t woken_by; /* key index of the last waker since it last left the CPU; NO_THREAD: none */
	bool woken_irq;
	uint64_t early_ns; /* when it was woken while it was RUNNING, on its way to sleep; */
	uint32_t early_by; /* by whom, key index */
	bool early_irq, early;
	bool in_futex;
	bool from_start; /* OFF in `call`, which began before recording did */
	bool calls;      /* its futex calls are traced */
	bool kvm;        /* has run a guest of KVM */
	struct bp_futex_wait call;
	uint32_t site; /* of the lock function that it is in */
	uint64_t want; /* lock of that function */
	bool wants;
	bool let_go; /* waits on a condition variable, so has released a lock: */
	uint64_t let_go_of;
	uint32_t held_site;               /* where it took a lock last, */
	uint64_t held_lock;               /* which one that was */
	bool active;                      /* is in priv->active */
	uint64_t blind;                   /* priv->blind when it was heard of last */
	uint32_t n_held;                  /* locks that it is the holder of */
	struct time_off times[TIMES_OFF]; /* the last ones: number i is at i % TIMES_OFF, */
	uint32_t n_times;                 /* of as many */
	uint64_t got, got_ns;             /* mutex that it last waited for, until when */
	uint32_t ustack;                  /* of its last futex call */
	uint32_t run_stack;               /* of its last sample while it ran, */
	uint64_t run_ns;                  /* from when */
	struct held *held;                /* who had the lock while it waited for it: HOLDERS, or NULL, */
	size_t n_held_by;                 /* as many */
	uint32_t lock;                    /* that it waits for: index + 1; 0: none */
	uint32_t next, prev;              /* of those who wait for the same lock; NO_THREAD: none */
};

/* A name of a thread, from a time on. */
struct name {
	const struct bp_fact *fact;
	uint32_t next; /* later name of the same thread */
};

/* A mutex, with indices into live. */
struct lock {
	uint64_t addr;
	uint32_t holder;        /* NO_THREAD: free or not known */
	uint32_t before;        /* who had it before that, */
	uint64_t before_ns;     /* until when */
	enum bp_holder_how how; /* the last of both is known */
	bool big;               /* QEMU's big lock */
	bool owned;             /* the holder is what the mutex says, or that as well */
	uint32_t seen;          /* who the mutex said has it, last; NO_THREAD: never, */
	uint64_t seen_ns;       /* and when */
	uint32_t site;          /* where the holder took it */
	uint32_t waiter;        /* last of those who wait for it */
	uint32_t held_at;       /* in the list of those with a holder */
	uint64_t since_ns;      /* the holder has it, or it has changed hands in a way not known */
	uint64_t forgot, blind; /* as many times this was so when it was looked at last */
};

/* Of the first pass. */
struct word {
	uint64_t addr;     /* 0 free */
	uint32_t vcpu_key; /* a vCPU's thread that waits on it */
	bool shared;       /* more than one does */
	bool condvar;      /* waited on as the word of a condition variable */
	uint64_t big;      /* waits inside of the big lock's function */
	uint32_t ustack;   /* of one who waited, 0 none */
	uint32_t lock;     /* of the second pass: index + 1 */
};

/* A time from which events were lost. */
struct gap {
	uint64_t from_ns, to_ns;
};

struct bp_waits_private {
	const struct bp_waits_ops *ops;
	void *ctx;
	struct live *live;
	size_t n_live, cap_live;
	uint32_t *active; /* those that something was heard of since nothing was known any more */
	size_t n_active, cap_active;
	uint32_t *slots; /* open hash: key to index + 1 */
	size_t n_slots;
	struct name *names;
	size_t n_names;
	uint32_t *first_name; /* open hash by thread id: index + 1; as many slots as name_slots */
	size_t name_slots;
	struct word *words; /* open hash */
	size_t n_words, word_slots;
	struct lock *locks;
	size_t n_locks, cap_locks;
	uint32_t held[HELD_MAX]; /* those with a holder */
	size_t n_held;
	uint64_t forgot, forgot_ns;   /* times that nothing was known any more, and when last */
	uint64_t blind;               /* times that who has locks was not known any more */
	struct gap *gaps;             /* after the first pass in order and apart */
	size_t n_gaps, cap_gaps, gap; /* the next one, */
	bool in_gap;                  /* or the one that it is in */
	struct bp_off_rules *rules;
	struct vcpu_thread {
		uint32_t tid;
		uint16_t vcpu;
	} * vcpus; /* threads without a name that run guests of KVM, in order */
	size_t n_vcpus;
	bool any_ours; /* the recorder knew which threads are of the QEMU looked at */
	bool any_in;   /* threads are seen to get a CPU, so times off it have an end */
	bool failed;
};

static size_t hash(uint64_t v)
{
	v *= 0x9e3779b97f4a7c15ull;
	return (size_t)(v ^ v >> 31);
}

void bp_waits_destroy(struct bp_waits *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n_threads; i++)
		free(w->threads[i].slices);
	free(w->threads);
	free(w->places);
	if (w->priv) {
		for (size_t i = 0; i < w->priv->n_live; i++)
			free(w->priv->live[i].held);
		free(w->priv->live);
		free(w->priv->active);
		free(w->priv->gaps);
		free(w->priv->slots);
		free(w->priv->names);
		free(w->priv->first_name);
		free(w->priv->words);
		free(w->priv->locks);
		free(w->priv->vcpus);
		bp_off_rules_destroy(w->priv->rules);
	}
	free(w->priv);
	free(w);
}

static bool grow(struct bp_waits *w, void *array, size_t *cap, size_t count, size_t item_bytes)
{
	size_t want = *cap * 2 + 16;
	void *p;

	if (count < *cap)
		return true;
	p = realloc(*(void **)array, want * item_bytes);
	if (!p) {
		w->priv->failed = true;
		return false;
	}
	*(void **)array = p;
	*cap = want;
	return true;
}

/* ---- names ---- */

static struct bp_err *load_names(struct bp_waits *w)
{
	struct bp_waits_private *p = w->priv;
	size_t n, at = 0;
	const struct bp_fact *facts = bp_trace_facts(w->trace, &n);

	for (size_t i = 0; i < n; i++) {
		p->n_names += facts[i].kind == BP_FACT_THREAD;
		p->any_ours |= facts[i].kind == BP_FACT_THREAD && facts[i].v[2];
		w->n_places += facts[i].kind == BP_FACT_LOCK || facts[i].kind == BP_FACT_HOST_MAP;
	}
	w->places = malloc((w->n_places + 1) * sizeof(struct bp_fact *));
	for (p->name_slots = 64; p->name_slots < p->n_names * 2; p->name_slots *= 2)
		;
	p->names = calloc(p->n_names + 1, sizeof(*p->names));
	p->first_name = calloc(p->name_slots, sizeof(*p->first_name));
	if (!p->names || !p->first_name || !w->places)
		return bp_err_nomem();
	w->n_places = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t *slot;
		size_t h;

		if (facts[i].kind == BP_FACT_LOCK || facts[i].kind == BP_FACT_HOST_MAP)
			w->places[w->n_places++] = &facts[i];
		if (facts[i].kind != BP_FACT_THREAD)
			continue;
		p->names[at] = (struct name){&facts[i], NO_THREAD};
		h = hash(facts[i].v[0]) & (p->name_slots - 1);
		while (p->first_name[h] && p->names[p->first_name[h] - 1].fact->v[0] != facts[i].v[0])
			h = (h + 1) & (p->name_slots - 1);
		slot = &p->first_name[h];
		if (!*slot) {
			*slot = (uint32_t)at + 1;
		} else {
			uint32_t last = *slot - 1;

			/* The list is walked once for each name; threads have few. */
			for (unsigned k = 0; p->names[last].next != NO_THREAD && k < 1000; k++)
				last = p->names[last].next;
			if (p->names[last].next == NO_THREAD)
				p->names[last].next = (uint32_t)at;
		}
		at++;
	}
	return NULL;
}

static uint32_t first_name(const struct bp_waits_private *p, uint32_t tid)
{
	size_t h = hash(tid) & (p->name_slots - 1);

	for (; p->first_name[h]; h = (h + 1) & (p->name_slots - 1)) {
		if (p->names[p->first_name[h] - 1].fact->v[0] == tid)
			return p->first_name[h] - 1;
	}
	return NO_THREAD;
}

static uint32_t add_thread(struct bp_waits *w, uint32_t tid, const struct bp_fact *fact)
{
	struct bp_wait_thread *t;

	if (!grow(w, &w->threads, &w->cap_threads, w->n_threads, sizeof(*w->threads)))
		return NO_THREAD;
	t = &w->threads[w->n_threads];
	*t = (struct bp_wait_thread){.tid = tid, .comm = "", .role = "", .vcpu = UINT16_MAX};
	if (fact) {
		t->tgid = (uint32_t)fact->v[1];
		t->comm = fact->s1;
		t->role = *fact->s2 ? fact->s2 : bp_thread_role(fact->s1, &t->vcpu);
		if (!strcmp(t->role, "vCPU") && fact->vcpu != UINT16_MAX)
			t->vcpu = fact->vcpu;
		/* Other QEMUs of the host, that wake this one, look the same. */
		t->qemu = fact->v[2] || (*t->role && !w->priv->any_ours);
		w->any_qemu |= t->qemu;
	}
	for (size_t i = 0; i < w->priv->n_vcpus && t->vcpu == UINT16_MAX; i++) {
		if (w->priv->vcpus[i].tid != tid)
			continue;
		t->role = "vCPU";
		t->vcpu = w->priv->vcpus[i].vcpu;
		t->qemu = w->any_qemu = true;
	}
	t->pool = (uint32_t)w->n_threads;
	for (uint32_t i = 0; !strcmp(t->role, "worker") && i < w->n_threads; i++) {
		if (!strcmp(w->threads[i].role, "worker")) {
			t->pool = i;
			break;
		}
	}
	return (uint32_t)w->n_threads++;
}

/* Takes the name that the thread has by now. */
static void rename_live(struct bp_waits *w, struct live *l, uint64_t time_ns)
{
	struct bp_waits_private *p = w->priv;

	while (l->fact != NO_THREAD && p->names[l->fact].fact->time_ns <= time_ns) {
		const struct bp_fact *fact = p->names[l->fact].fact;
		struct bp_wait_thread *t = &w->threads[l->thread];

		l->fact = p->names[l->fact].next;
		if (!strcmp(t->comm, fact->s1)) {
			if (fact->v[1])
				t->tgid = (uint32_t)fact->v[1];
			if (fact->vcpu != UINT16_MAX)
				t->vcpu = fact->vcpu;
			if (*fact->s2)
				t->role = fact->s2;
			t->qemu |= fact->v[2] != 0;
			w->any_qemu |= t->qemu;
			continue;
		}
		l->thread = add_thread(w, t->tid, fact);
		if (p->failed) {
			l->thread = 0;
			return;
		}
	}
}

/* Something is heard of it. NULL only when memory is short. */
static struct live *heard_of(struct bp_waits *w, struct live *l)
{
	struct bp_waits_private *p = w->priv;

	if (l->blind != p->blind) {
		l->blind = p->blind;
		l->wants = l->let_go = false;
		l->held_site = l->site = 0;
	}
	if (l->active)
		return l;
	if (!grow(w, &p->active, &p->cap_active, p->n_active, sizeof(*p->active)))
		return NULL;
	p->active[p->n_active++] = (uint32_t)(l - p->live);
	l->active = true;
	return l;
}

/* NULL only when memory is short. */
static struct live *live_of(struct bp_waits *w, uint32_t tid, uint16_t cpu, uint64_t time_ns)
{
	struct bp_waits_private *p = w->priv;
	uint32_t key = tid ? tid : IDLE | cpu, name;
	struct live *l;
	size_t h;

	if (p->n_live * 2 >= p->n_slots) {
		size_t n = p->n_slots ? p->n_slots * 2 : 256;
		uint32_t *slots = calloc(n, sizeof(*slots));

		if (!slots) {
			p->failed = true;
			return NULL;
		}
		for (size_t i = 0; i < p->n_live; i++) {
			h = hash(p->live[i].key) & (n - 1);
			while (slots[h])
				h = (h + 1) & (n - 1);
			slots[h] = (uint32_t)i + 1;
		}
		free(p->slots);
		p->slots = slots;
		p->n_slots = n;
	}
	for (h = hash(key) & (p->n_slots - 1); p->slots[h]; h = (h + 1) & (p->n_slots - 1)) {
		l = &p->live[p->slots[h] - 1];
		if (l->key == key) {
			rename_live(w, l, time_ns);
			return p->failed ? NULL : heard_of(w, l);
		}
	}
	if (!grow(w, &p->live, &p->cap_live, p->n_live, sizeof(*p->live)))
		return NULL;
	l = &p->live[p->n_live];
	*l = (struct live){
	    .key = key, .fact = NO_THREAD, .since = time_ns, .known_ns = time_ns, .woken_by = NO_THREAD};
	name = tid ? first_name(p, tid) : NO_THREAD;
	/* What it is called first also holds before the moment that it was heard of. */
	l->thread = add_thread(w, tid, name == NO_THREAD ? NULL : p->names[name].fact);
	if (p->failed)
		return NULL;
	if (name != NO_THREAD)
		l->fact = p->names[name].next;
	p->slots[h] = (uint32_t)++p->n_live;
	rename_live(w, l, time_ns);
	return p->failed ? NULL : heard_of(w, l);
}

/* The same of one that something else is heard of, which says nothing of what it does; *@ret is its index. */
static struct live *mentioned(struct bp_waits *w, uint32_t tid, uint16_t cpu, uint64_t time_ns, uint32_t *ret)
{
	size_t n = w->priv->n_live;
	struct live *l = live_of(w, tid, cpu, time_ns);

	if (l && w->priv->n_live > n)
		l->since = l->known_ns = UINT64_MAX;
	if (l)
		*ret = (uint32_t)(l - w->priv->live);
	return l;
}

/* ---- first pass: which words are waited on by several vCPUs, and which is the big lock's ---- */

static struct word *word_of(struct bp_waits *w, uint64_t addr, bool add)
{
	struct bp_waits_private *p = w->priv;
	size_t h;

	if (add && p->n_words * 2 >= p->word_slots) {
		size_t n = p->word_slots ? p->word_slots * 2 : 256;
		struct word *words = calloc(n, sizeof(*words));

		if (!words) {
			p->failed = true;
			return NULL;
		}
		for (size_t i = 0; i < p->word_slots; i++) {
			if (!p->words[i].addr)
				continue;
			h = hash(p->words[i].addr) & (n - 1);
			while (words[h].addr)
				h = (h + 1) & (n - 1);
			words[h] = p->words[i];
		}
		free(p->words);
		p->words = words;
		p->word_slots = n;
	}
	if (!p->word_slots || !addr)
		return NULL;
	for (h = hash(addr) & (p->word_slots - 1); p->words[h].addr; h = (h + 1) & (p->word_slots - 1)) {
		if (p->words[h].addr == addr)
			return &p->words[h];
	}
	if (!add)
		return NULL;
	p->n_words++;
	p->words[h] = (struct word){.addr = addr, .vcpu_key = NO_THREAD};
	return &p->words[h];
}

static bool is_condvar(uint32_t op)
{
	return (op & 0x7f) == 9 || (op & 0x7f) == 11;
}

static bool is_kvm(enum bp_stack_kind kind)
{
	return kind == BP_STACK_KVM_RUN || kind == BP_STACK_KVM_HALT;
}

static void add_gap(struct bp_waits *w, const struct bp_wait *r)
{
	struct bp_waits_private *p = w->priv;

	if (grow(w, &p->gaps, &p->cap_gaps, p->n_gaps, sizeof(*p->gaps)))
		p->gaps[p->n_gaps++] =
		    (struct gap){r->time_ns > r->addr ? r->time_ns - r->addr : 0, r->time_ns};
}

static void look(struct bp_waits *w, const struct bp_wait *r)
{
	struct live *l;
	struct word *word;

	switch (r->kind) {
	case BP_WAIT_IN:
		w->priv->any_in = true;
		break;
	case BP_WAIT_LOCK_WANT:
		w->lock_events = true;
		l = live_of(w, r->thread, r->cpu, r->time_ns);
		if (l) {
			l->wants = true;
			l->want = r->addr;
		}
		break;
	case BP_WAIT_LOCK_HELD:
		w->lock_events = true;
		l = live_of(w, r->thread, r->cpu, r->time_ns);
		if (l)
			l->wants = false;
		break;
	case BP_WAIT_FUTEX:
		if (!bp_futex_waits(r->other))
			break;
		l = live_of(w, r->thread, r->cpu, r->time_ns);
		word = l ? word_of(w, bp_waits_word(r->addr, r->other), true) : NULL;
		if (!word)
			break;
		if (l->wants && !l->want && bp_waits_is_mutex(r->other))
			word->big++;
		word->condvar |= is_condvar(r->other);
		if (r->ustack)
			word->ustack = r->ustack;
		l->in_futex = true;
		l->call.addr = word->addr;
		if (w->threads[l->thread].vcpu != UINT16_MAX) {
			word->shared |= word->vcpu_key != NO_THREAD && word->vcpu_key != l->key;
			word->vcpu_key = l->key;
		}
		break;
	case BP_WAIT_FUTEX_RET:
		l = live_of(w, r->thread, r->cpu, r->time_ns);
		if (l)
			l->in_futex = false;
		break;
	case BP_WAIT_OUT:
		l = r->ustack || r->kstack ? live_of(w, r->thread, r->cpu, r->time_ns) : NULL;
		word = l && r->ustack && l->in_futex ? word_of(w, l->call.addr, false) : NULL;
		if (word)
			word->ustack = r->ustack;
		if (l && r->kstack)
			l->kvm |= is_kvm(bp_stack_kind(w->priv->rules, r->kstack));
		break;
	case BP_WAIT_SAMPLE:
		if (w->priv->any_in && r->state == 'R')
			return;
		word = bp_futex_waits(r->other) ? word_of(w, bp_waits_word(r->addr, r->other), true) : NULL;
		if (word && r->ustack)
			word->ustack = r->ustack;
		if (word)
			word->condvar |= is_condvar(r->other);
		break;
	case BP_WAIT_LOST:
		if (r->addr && !(r->flags & BP_WAIT_BLIND))
			add_gap(w, r);
		break;
	default:
		break;
	}
}

/*
 * The condition variable of the C library (2.25 and later) that a futex word is inside of: who signals waits
 * on the counts of those who wait (24 bytes before the word that these wait on), or for a lock of two bits (8
 * before). 0: of none.
 */
static uint64_t condvar_around(struct bp_waits *w, uint64_t addr)
{
	for (uint64_t at = (addr & ~UINT64_C(7)) + 8; at <= addr + 24; at += 8) {
		const struct word *word = word_of(w, at, false);

		if (word && word->condvar)
			return at;
	}
	return 0;
}

static int compare_tids(const void *a, const void *b)
{
	const struct vcpu_thread *x = a, *y = b;

	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

static bool has_vcpu(const struct bp_waits *w, uint16_t vcpu)
{
	for (size_t i = 0; i < w->n_threads; i++) {
		if (w->threads[i].vcpu == vcpu)
			return true;
	}
	return false;
}

/* QEMU starts the threads of vCPUs in their order: the lowest numbers that no thread has by its name. A stack
 * without a task may be of any of them. */
static void number_vcpus(struct bp_waits *w)
{
	struct bp_waits_private *p = w->priv;
	uint16_t next = 0;

	p->vcpus = malloc((p->n_live + 1) * sizeof(*p->vcpus));
	if (!p->vcpus) {
		p->failed = true;
		return;
	}
	for (size_t i = 0; i < p->n_live; i++) {
		if (p->live[i].kvm && w->threads[p->live[i].thread].vcpu == UINT16_MAX)
			p->vcpus[p->n_vcpus++].tid = p->live[i].key;
	}
	qsort(p->vcpus, p->n_vcpus, sizeof(*p->vcpus), compare_tids);
	for (size_t i = 0; i < p->n_vcpus; i++) {
		while (has_vcpu(w, next))
			next++;
		p->vcpus[i].vcpu = p->vcpus[i].tid == UINT32_MAX ? UINT16_MAX : next++;
	}
}

static int compare_gaps(const void *a, const void *b)
{
	const struct gap *x = a, *y = b;

	return x->from_ns < y->from_ns ? -1 : x->from_ns > y->from_ns;
}

/* CPUs lose events each for itself. */
static void join_gaps(struct bp_waits *w)
{
	struct bp_waits_private *p = w->priv;
	size_t n = 0;

	if (p->n_gaps)
		qsort(p->gaps, p->n_gaps, sizeof(*p->gaps), compare_gaps);
	for (size_t i = 0; i < p->n_gaps; i++) {
		if (n && p->gaps[i].from_ns <= p->gaps[n - 1].to_ns) {
			if (p->gaps[i].to_ns > p->gaps[n - 1].to_ns)
				p->gaps[n - 1].to_ns = p->gaps[i].to_ns;
		} else {
			p->gaps[n++] = p->gaps[i];
		}
	}
	p->n_gaps = n;
}

static void looked(struct bp_waits *w)
{
	struct bp_waits_private *p = w->priv;
	uint64_t best = 0;

	join_gaps(w);

	/* The one that has its name, unless what vCPUs do in its function says otherwise. */
	for (size_t i = 0; i < w->n_places && !w->big_lock; i++) {
		if (w->places[i]->kind == BP_FACT_LOCK && bp_qemu_is_bql(w->places[i]->s1))
			w->big_lock = w->places[i]->v[0];
	}
	for (size_t i = 0; i < p->word_slots; i++) {
		if (p->words[i].big > best) {
			best = p->words[i].big;
			w->big_lock = p->words[i].addr;
		}
	}
	number_vcpus(w);
	for (size_t i = 0; i < w->n_threads; i++)
		free(w->threads[i].slices);
	p->n_live = p->n_active = w->n_threads = 0;
	if (p->n_slots)
		memset(p->slots, 0, p->n_slots * sizeof(*p->slots));
}

/* ---- second pass ---- */

/* NULL: nobody ever waits there. */
static struct lock *lock_of(struct bp_waits *w, uint64_t addr)
{
	struct bp_waits_private *p = w->priv;
	struct word *word = word_of(w, addr ? addr : w->big_lock, false);
	struct lock *k;

	if (!word)
		return NULL;
	if (!word->lock) {
		if (!grow(w, &p->locks, &p->cap_locks, p->n_locks, sizeof(*p->locks)))
			return NULL;
		p->locks[p->n_locks] =
		    (struct lock){.addr = word->addr, .forgot = UINT64_MAX, .big = word->addr == w->big_lock};
		word->lock = (uint32_t)++p->n_locks;
	}
	k = &p->locks[word->lock - 1];
	if (k->forgot != p->forgot) {
		k->holder = k->waiter = k->before = k->seen = NO_THREAD;
		k->owned = false;
		k->since_ns = p->forgot_ns;
		k->forgot = p->forgot;
	}
	if (k->blind != p->blind)
		k->before = NO_THREAD;
	k->blind = p->blind;
	return k;
}

static void set_free(struct bp_waits *w, struct lock *k, uint64_t time_ns)
{
	struct bp_waits_private *p = w->priv;

	k->site = 0;
	k->owned = false;
	if (k->holder == NO_THREAD)
		return;
	p->live[k->holder].n_held--;
	p->held[k->held_at] = p->held[--p->n_held];
	p->locks[p->held[k->held_at]].held_at = k->held_at;
	k->before = k->holder;
	k->before_ns = time_ns;
	k->holder = NO_THREAD;
}

static void set_holder(struct bp_waits *w, struct lock *k, uint32_t holder, enum bp_holder_how how,
		       uint32_t site, uint64_t time_ns)
{
	struct bp_waits_private *p = w->priv;

	set_free(w, k, time_ns);
	/* Few locks are held at a time, unless somebody made them up. */
	if (p->n_held == HELD_MAX)
		return;
	k->holder = holder;
	k->how = how;
	k->site = site;
	k->held_at = (uint32_t)p->n_held;
	p->held[p->n_held++] = (uint32_t)(k - p->locks);
	p->live[holder].n_held++;
}

/*
 * Whether thread @at had let go of the lock for a time off the CPU: QEMU does with its big lock in
 * os_host_main_loop_wait(), qemu_wait_io_event() and KVM. It keeps it in other loops (aio_poll() of
 * AIO_WAIT_WHILE()): then the mutex says so to whoever goes to sleep on it.
 */
static bool idle_without(const struct lock *k, uint32_t at, enum bp_off_class cls, uint64_t out_ns,
			 uint64_t in_ns)
{
	return k->big && (cls == BP_OFF_POLL || cls == BP_OFF_HALT) &&
	       !(k->seen == at && k->seen_ns >= out_ns && k->seen_ns <= in_ns);
}

/* Adds to @h what a thread did from @from_ns to @until_ns, by class, as far as that is known, and where. */
static void add_did(const struct live *l, uint64_t from_ns, uint64_t until_ns, struct held *h)
{
	const struct time_off *oldest = &l->times[l->n_times % TIMES_OFF];
	uint32_t n = l->n_times < TIMES_OFF ? l->n_times : TIMES_OFF;
	uint64_t off_ns = 0;

	if (l->run_stack && l->run_ns >= from_ns && l->run_ns <= until_ns)
		h->run_stack = l->run_stack;
	if (l->known_ns > from_ns)
		from_ns = l->known_ns;
	if (l->n_times > TIMES_OFF && oldest->out_ns > from_ns)
		from_ns = oldest->out_ns;
	if (from_ns >= until_ns)
		return;
	for (uint32_t i = 0; i <= n; i++) {
		struct time_off one = {l->off.out.time_ns, until_ns, 0, l->off.out.ustack, l->off.why.cls};
		uint64_t begin, end;

		if (i < n)
			one = l->times[i];
		else if (l->state != OFF)
			break;
		begin = one.out_ns > from_ns ? one.out_ns : from_ns;
		end = one.in_ns < until_ns ? one.in_ns : until_ns;
		if (end <= begin)
			continue;
		h->did[one.cls] += end - begin;
		off_ns += end - begin;
		if (!one.ustack || end - begin < h->off_ns)
			continue;
		h->off_ns = end - begin;
		h->off_stack = one.ustack;
	}
	if (until_ns - from_ns > off_ns)
		h->did[BP_OFF_RUNNING] += until_ns - from_ns - off_ns;
}

/* What it did most, when at least half of what it did in all @ns is known. */
static enum bp_off_class mostly(const uint64_t did[BP_OFF_RUNNING + 1], uint64_t ns)
{
	enum bp_off_class best = BP_OFF_UNKNOWN;
	uint64_t most_ns = 0, known_ns = 0;

	for (enum bp_off_class i = 0; i <= BP_OFF_RUNNING; i++) {
		known_ns += did[i];
		if (did[i] <= most_ns)
			continue;
		most_ns = did[i];
		best = i;
	}
	return known_ns >= ns / 2 ? best : BP_OFF_UNKNOWN;
}

/* The stack that says most of where the holder was, given what it did most. */
static uint32_t where_it_was(const struct held *h, enum bp_off_class was)
{
	bool ran = was >= BP_OFF_RUNNING || was == BP_OFF_PREEMPTED;
	uint32_t first = ran ? h->run_stack : h->off_stack, last = ran ? h->off_stack : h->run_stack;

	return first ? first : h->had.stack ? h->had.stack : last;
}

/* Of those who had the lock while it waited, of which there is one. */
static struct held *longest(struct live *l)
{
	struct held *best = l->held;

	for (size_t i = 1; i < l->n_held_by; i++)
		best = l->held[i].ns > best->ns ? &l->held[i] : best;
	return best;
}

/* What is known of @by's times with the lock while @l waits; NULL: it would have the least of more than can
 * be told apart. */
static struct held *held_by(struct live *l, const struct had *h, uint64_t ns)
{
	struct held *least = l->held;

	for (size_t i = 0; i < l->n_held_by; i++) {
		if (l->held[i].had.by == h->by)
			return &l->held[i];
		least = l->held[i].ns < least->ns ? &l->held[i] : least;
	}
	if (l->n_held_by < HOLDERS)
		least = &l->held[l->n_held_by++];
	else if (ns <= least->ns)
		return NULL;
	*least = (struct held){.had = *h};
	return least;
}

/*
 * The holder of a wait is who had the lock for the longest part of it: a lock that several wait for goes from
 * one to the next, and whoever lets go of it at the end may have had it for a moment only.
 */
static void held_meanwhile(struct bp_waits *w, const struct lock *k, struct live *l, uint64_t until_ns,
			   const struct had *h)
{
	const struct live *by = &w->priv->live[h->by];
	uint64_t from_ns = k->since_ns > l->call.enter_ns ? k->since_ns : l->call.enter_ns, ns;
	struct held *one;

	if (by == l)
		return;
	/* Not while it waited for it itself, and the big lock not while it had nothing to do. */
	if (by->got == k->addr && by->got_ns > from_ns)
		from_ns = by->got_ns;
	for (uint32_t i = 0; i < TIMES_OFF && i < by->n_times; i++) {
		const struct time_off *t = &by->times[i];

		if (t->in_ns > from_ns &&
		    (t->addr == k->addr || idle_without(k, h->by, t->cls, t->out_ns, t->in_ns)))
			from_ns = t->in_ns;
	}
	if (by->state == OFF && by->off.out.time_ns <= until_ns &&
	    idle_without(k, h->by, by->off.why.cls, by->off.out.time_ns, UINT64_MAX))
		until_ns = by->off.out.time_ns;
	ns = until_ns > from_ns ? until_ns - from_ns : 0;
	one = held_by(l, h, ns);
	if (!one)
		return;
	if (h->stack)
		one->had.stack = h->stack;
	if (h->site && ns >= one->ns)
		one->had.site = h->site;
	one->ns += ns;
	one->by_how[h->how] += ns;
	if (one->by_how[h->how] > one->by_how[one->had.how] ||
	    (one->by_how[h->how] == one->by_how[one->had.how] && h->how > one->had.how))
		one->had.how = h->how;
	add_did(by, from_ns, until_ns, one);
	one = longest(l);
	l->call.how = one->had.how;
	l->call.holder = w->priv->live[one->had.by].thread;
	l->call.holder_site = one->had.site;
	l->call.holder_was = mostly(one->did, one->ns);
	l->call.holder_preempted_ns = one->did[BP_OFF_PREEMPTED];
	l->call.holder_stack = where_it_was(one, l->call.holder_was);
}

/* The same for all who wait for it; from then on somebody else may have it. */
static void had_lock(struct bp_waits *w, struct lock *k, uint64_t until_ns, const struct had *h)
{
	struct bp_waits_private *p = w->priv;
	size_t n = 0;

	for (uint32_t i = k->waiter; i != NO_THREAD && n < WAITERS_MAX; i = p->live[i].next, n++)
		held_meanwhile(w, k, &p->live[i], until_ns, h);
	k->since_ns = until_ns;
}

/* The one that is known to have it. */
static void holder_had(struct bp_waits *w, struct lock *k, uint64_t until_ns, uint32_t stack)
{
	struct had h = {.by = k->holder, .how = k->how, .stack = stack, .site = k->site};

	if (k->holder != NO_THREAD)
		had_lock(w, k, until_ns, &h);
}

/* Where @l took @k; 0: not known. */
static uint32_t site_of(const struct live *l, const struct lock *k)
{
	return l->held_lock == k->addr ? l->held_site : 0;
}

/* Thread @at lets go of a lock and tells the kernel to wake who waits for it. */
static void let_go(struct bp_waits *w, struct lock *k, uint32_t at, uint64_t time_ns, uint32_t stack)
{
	struct had h = {
	    .by = at, .how = BP_HOLDER_WAKER, .stack = stack, .site = site_of(&w->priv->live[at], k)};

	if (k->holder == at) {
		holder_had(w, k, time_ns, stack);
		set_free(w, k, time_ns);
	} else if (k->holder == NO_THREAD) {
		/* It had let go just before, by an event, or seen by one who went to sleep then. */
		if (k->before == at && time_ns - k->before_ns <= EARLY_NS)
			h.how = k->how;
		had_lock(w, k, time_ns, &h);
	}
	/* Else somebody took it in between. */
}

/* A thread goes to sleep on a mutex, or is asleep, and the mutex says who has it, or does not. */
static void see_owner(struct bp_waits *w, struct lock *k, const struct bp_wait *r)
{
	uint32_t owner = bp_wait_owner(r), by = NO_THREAD;
	/* It may be the thread itself, which then waits for ever. */
	struct live *l = owner ? mentioned(w, owner, BP_WAIT_NO_CPU, r->time_ns, &by) : NULL;

	w->owners |= by != NO_THREAD;
	if (k->holder != by && (by != NO_THREAD || k->owned)) {
		holder_had(w, k, r->time_ns, 0);
		set_free(w, k, r->time_ns);
		if (l && by != NO_THREAD)
			set_holder(w, k, by, BP_HOLDER_OWNER, site_of(l, k), r->time_ns);
	}
	k->owned = by != NO_THREAD && k->holder == by;
	if (by != NO_THREAD) {
		k->seen = by;
		k->seen_ns = r->time_ns;
	}
}

static void remove_waiter(struct bp_waits *w, struct live *l)
{
	struct bp_waits_private *p = w->priv;

	if (!l->lock)
		return;
	if (l->next != NO_THREAD)
		p->live[l->next].prev = l->prev;
	if (l->prev != NO_THREAD)
		p->live[l->prev].next = l->next;
	else
		p->locks[l->lock - 1].waiter = l->next;
	l->lock = 0;
}

static void add_waiter(struct bp_waits *w, struct lock *k, struct live *l)
{
	struct bp_waits_private *p = w->priv;
	uint32_t at = (uint32_t)(l - p->live);

	if (!l->held)
		l->held = calloc(HOLDERS, sizeof(*l->held));
	if (!l->held) {
		p->failed = true;
		return;
	}
	remove_waiter(w, l);
	l->n_held_by = 0;
	l->lock = (uint32_t)(k - p->locks) + 1;
	l->prev = NO_THREAD;
	l->next = k->waiter;
	if (k->waiter != NO_THREAD)
		p->live[k->waiter].prev = at;
	k->waiter = at;
}

static void add_slice(struct bp_waits *w, struct bp_wait_thread *t, uint64_t ns)
{
	if (grow(w, &t->slices, &t->cap_slices, t->n_slices, sizeof(*t->slices)))
		t->slices[t->n_slices++] = ns;
}

static struct bp_off_verdict why(struct bp_waits *w, const struct live *l, const struct bp_wait *r)
{
	const struct bp_wait_thread *t = &w->threads[l->thread];
	const struct word *word =
	    l->in_futex ? word_of(w, bp_waits_word(l->call.addr, l->call.op), false) : NULL;
	struct bp_off_facts f = {
	    .state = r->state,
	    .preempted = r->flags & BP_WAIT_PREEMPTED,
	    .kstack = r->kstack,
	    .ustack = r->ustack     ? r->ustack
		      : l->in_futex ? l->call.ustack
				    : 0,
	    .named = *t->comm,
	    .vcpu = bp_waits_is_vcpu(t),
	    .futex = l->in_futex,
	    .op = l->call.op,
	    .shared = word && word->shared,
	};

	return bp_off_classify(w->priv->rules, &f);
}

static void end_off(struct bp_waits *w, struct live *l, uint64_t time_ns, bool open)
{
	struct bp_waits_private *p = w->priv;
	struct bp_wait_thread *t = &w->threads[l->off.thread];
	uint64_t ns = time_ns > l->off.out.time_ns ? time_ns - l->off.out.time_ns : 0;

	l->off.in_ns = time_ns > l->off.out.time_ns ? time_ns : l->off.out.time_ns;
	l->off.open = open;
	t->ns[l->off.why.cls] += ns;
	/* Of a time without an end only the beginning is known. */
	if (l->off.woken_ns > l->off.in_ns)
		l->off.woken_ns = 0;
	if (l->off.woken_ns)
		t->delay_ns += l->off.in_ns - l->off.woken_ns;
	if (p->ops && p->ops->on_off)
		p->ops->on_off(p->ctx, w, &l->off);
}

/* It has got a CPU again. */
static void note_back(struct live *l, uint64_t time_ns)
{
	l->times[l->n_times++ % TIMES_OFF] =
	    (struct time_off){l->off.out.time_ns, time_ns, l->off.addr, l->off.out.ustack, l->off.why.cls};
}

/* It was blocked since before recording began, and is not any more. */
static void end_from_start(struct bp_waits *w, struct live *l)
{
	if (l->from_start)
		remove_waiter(w, l);
	l->from_start = false;
}

/*
 * A thread that is off the CPU does something: it must have got one again, but that was not recorded.
 * Switches from an idle task are seen to be missing (Linux 6.18 in a virtual machine), and an idle CPU runs a
 * thread as soon as it is woken.
 */
static void unseen(struct bp_waits *w, struct live *l, uint64_t time_ns)
{
	bool woken =
	    w->priv->any_in && l->off.woken_ns && l->off.woken_ns >= l->since && l->off.woken_ns <= time_ns;

	end_from_start(w, l);
	w->unseen += w->priv->any_in;
	end_off(w, l, woken ? l->off.woken_ns : l->since, !woken);
	l->state = UNKNOWN;
	l->since = time_ns;
	if (!woken) {
		l->known_ns = time_ns;
		return;
	}
	note_back(l, l->off.woken_ns);
	l->state = RUNNING;
	l->since = l->off.woken_ns;
}

/* It does something, so it has a CPU. */
static void acts(struct bp_waits *w, struct live *l, uint64_t time_ns)
{
	if (l->state == OFF)
		unseen(w, l, time_ns);
}

/* It is off the CPU, since @since_ns, as @r says. */
static void begin_off(struct bp_waits *w, struct live *l, const struct bp_wait *r, uint64_t since_ns)
{
	l->state = OFF;
	l->since = since_ns;
	if (l->known_ns > since_ns)
		l->known_ns = since_ns;
	l->woken_by = NO_THREAD;
	l->off = (struct bp_off){
	    .thread = l->thread,
	    .out = *r,
	    .waker = NO_THREAD,
	    .why = why(w, l, r),
	    .futex = l->in_futex,
	    .addr = l->in_futex ? bp_waits_word(l->call.addr, l->call.op) : 0,
	};
	l->off.out.time_ns = since_ns;
}

static void set_woken(struct live *l, uint32_t waker, bool irq, uint64_t time_ns)
{
	l->off.woken_ns = time_ns;
	l->off.waker = waker;
	l->off.irq = irq;
}

/*
 * Who wakes a thread that is about to leave the CPU may come before the switch: the kernel writes the one at
 * the beginning of its work, the other at the end. With contention that is one sleep in five.
 */
static void woken_early(struct bp_waits *w, struct live *l, uint64_t time_ns)
{
	const struct live *waker = &w->priv->live[l->early_by];
	struct lock *k;

	if (!l->early_ns || l->off.why.cls == BP_OFF_PREEMPTED || time_ns - l->early_ns > EARLY_NS)
		return;
	l->early = true;
	set_woken(l, waker->thread, l->early_irq, time_ns);
	if (!l->in_futex || !bp_waits_is_mutex(l->call.op) || l->early_irq ||
	    waker->call.addr != l->call.addr || l->call.holder != NO_THREAD)
		return;
	k = lock_of(w, l->call.addr);
	if (k)
		let_go(w, k, l->early_by, time_ns, waker->ustack);
}

static void take_out(struct bp_waits *w, const struct bp_wait *r)
{
	struct live *l = live_of(w, r->thread, r->cpu, r->time_ns);
	struct bp_wait_thread *t;

	if (!l)
		return;
	acts(w, l, r->time_ns);
	t = &w->threads[l->thread];
	t->switches++;
	t->stacks[bp_stack_kind(w->priv->rules, r->kstack)]++;
	if (l->state == RUNNING && r->time_ns >= l->since) {
		t->running_ns += r->time_ns - l->since;
		add_slice(w, t, r->time_ns - l->since);
	} else if (l->state == UNKNOWN && r->time_ns >= l->since) {
		/* It was running since it was first heard of, but for how long before that is not known. */
		t->running_ns += r->time_ns - l->since;
	}
	begin_off(w, l, r, r->time_ns);
	t->n[l->off.why.cls]++;
	if (l->in_futex && r->kstack)
		l->call.kstack = r->kstack;
	l->early = false;
	woken_early(w, l, r->time_ns);
	l->early_ns = 0;
}

static void take_in(struct bp_waits *w, const struct bp_wait *r)
{
	struct live *l = live_of(w, r->thread, r->cpu, r->time_ns);

	if (!l)
		return;
	end_from_start(w, l);
	if (l->state == OFF) {
		end_off(w, l, r->time_ns, false);
		note_back(l, r->time_ns);
	}
	l->state = RUNNING;
	l->since = r->time_ns;
	if (l->known_ns > r->time_ns)
		l->known_ns = r->time_ns;
	l->early_ns = 0;
}

static void take_wake(struct bp_waits *w, const struct bp_wait *r)
{
	struct bp_waits_private *p = w->priv;
	uint32_t chain[BP_WAKE_CHAIN], at, target_index = 0;
	struct live *target = mentioned(w, r->other, r->cpu, r->time_ns, &target_index), *waker;
	size_t n = 0;
	/* The idle task wakes nobody; not every source of traces tells of interrupts. */
	bool irq = (r->flags & BP_WAIT_IRQ) || !r->thread;
	uint64_t slept_ns = 0;

	if (!target)
		return;
	waker = live_of(w, r->thread, r->cpu, r->time_ns);
	if (!waker)
		return;
	acts(w, waker, r->time_ns);
	target = &p->live[target_index];
	at = (uint32_t)(waker - p->live);
	/* Who was woken already may be back, and on its way to sleep again. */
	if (target->state == RUNNING || (target->state == OFF && target->off.woken_ns)) {
		target->early_ns = r->time_ns;
		target->early_by = at;
		target->early_irq = irq;
	}
	if (target->state == OFF && (!target->off.woken_ns || target->early)) {
		target->early = false;
		if (r->time_ns > target->off.out.time_ns)
			slept_ns = r->time_ns - target->off.out.time_ns;
		set_woken(target, waker->thread, irq, r->time_ns);
	}
	/*
	 * Who lets go of the lock is in futex(2) on it; others interrupt the wait (signals). Of threads whose
	 * calls were not traced nothing is known.
	 */
	if (target->in_futex && !irq && bp_waits_is_mutex(target->call.op) &&
	    (!waker->calls || (waker->in_futex && waker->call.addr == target->call.addr &&
			       target->call.holder == NO_THREAD))) {
		struct lock *k = lock_of(w, target->call.addr);

		if (k)
			let_go(w, k, at, r->time_ns, r->ustack ? r->ustack : waker->ustack);
	}
	target->woken_by = at;
	target->woken_irq = irq;
	if (!p->ops || !p->ops->on_wake)
		return;
	/* Outermost first: who woke the waker, and so on. */
	chain[n++] = target->thread;
	for (; n < BP_WAKE_CHAIN && at != NO_THREAD && at != target_index; at = p->live[at].woken_by) {
		bool seen = false;

		for (size_t i = 0; i < n; i++)
			seen |= chain[i] == p->live[at].thread;
		if (seen)
			break;
		chain[n++] = p->live[at].thread;
		if (n == 2 && irq)
			break;
		if (p->live[at].woken_irq)
			break;
	}
	for (size_t i = 0; i < n / 2; i++) {
		uint32_t x = chain[i];

		chain[i] = chain[n - 1 - i];
		chain[n - 1 - i] = x;
	}
	p->ops->on_wake(p->ctx, w, chain, n, irq, slept_ns);
}

/* Of an open call: who has the lock now, and where that is. */
static void where_holder_is(const struct bp_waits *w, const struct lock *k, struct bp_futex_wait *f)
{
	const struct live *by = k->holder != NO_THREAD ? &w->priv->live[k->holder] : NULL;

	if (by && by->state == OFF &&
	    idle_without(k, k->holder, by->off.why.cls, by->off.out.time_ns, UINT64_MAX))
		by = NULL;
	f->how = by ? k->how : BP_HOLDER_UNKNOWN;
	f->holder = by ? by->thread : NO_THREAD;
	f->holder_site = by ? k->site : 0;
	f->holder_stack = 0;
	f->holder_preempted_ns = 0;
	f->holder_was = BP_OFF_UNKNOWN;
	if (!by || by->state == UNKNOWN)
		return;
	f->holder_was = by->state == OFF ? by->off.why.cls : BP_OFF_RUNNING;
	if (by->state != OFF)
		return;
	f->holder_stack = by->off.out.ustack;
	f->holder_where = by->off.why.frame;
}

static void end_call(struct bp_waits *w, struct live *l, uint64_t time_ns, bool open)
{
	struct bp_waits_private *p = w->priv;
	struct lock *k = bp_waits_is_mutex(l->call.op) ? lock_of(w, l->call.addr) : NULL;

	l->in_futex = false;
	if (!bp_futex_waits(l->call.op))
		return;
	l->call.exit_ns = time_ns > l->call.enter_ns ? time_ns : l->call.enter_ns;
	l->call.open = open;
	if (k) {
		struct had h = {.by = k->holder, .how = k->how, .site = k->site};

		if (open) {
			where_holder_is(w, k, &l->call);
		} else {
			l->got = k->addr;
			l->got_ns = l->call.exit_ns;
			if (k->holder != NO_THREAD && l->lock)
				held_meanwhile(w, k, l, time_ns, &h);
		}
	}
	remove_waiter(w, l);
	if (p->ops && p->ops->on_futex)
		p->ops->on_futex(p->ctx, w, &l->call);
}

/* @condvar: that the word of a call is inside of; 0: none */
static void set_condvar(struct bp_futex_wait *call, uint64_t condvar)
{
	if (!condvar)
		return;
	call->addr = condvar;
	call->op = 0x89; /* FUTEX_WAIT_BITSET_PRIVATE, as those who wait on it */
}

static void take_futex(struct bp_waits *w, const struct bp_wait *r)
{
	struct bp_waits_private *p = w->priv;
	struct live *l = live_of(w, r->thread, r->cpu, r->time_ns);
	struct lock *k;
	uint64_t condvar;
	uint32_t at;

	if (!l)
		return;
	acts(w, l, r->time_ns);
	/* How the one before ended was not seen. */
	remove_waiter(w, l);
	if (r->ustack)
		l->ustack = r->ustack;
	l->in_futex = l->calls = true;
	l->call = (struct bp_futex_wait){
	    .thread = l->thread,
	    .addr = r->addr,
	    .op = r->other,
	    .enter_ns = r->time_ns,
	    .ustack = r->ustack,
	    .site = l->wants ? l->site : 0,
	    .holder = NO_THREAD,
	    .holder_was = BP_OFF_UNKNOWN,
	};
	condvar = bp_waits_is_mutex(r->other) ? condvar_around(w, r->addr) : 0;
	set_condvar(&l->call, condvar);
	if (condvar)
		return;
	at = (uint32_t)(l - p->live);
	if (bp_waits_is_mutex(r->other)) {
		k = lock_of(w, r->addr);
		if (k && k->holder == at)
			set_free(w, k, r->time_ns);
		if (k)
			see_owner(w, k, r);
		if (k)
			add_waiter(w, k, &p->live[at]);
	} else if (!bp_futex_waits(r->other)) {
		/* Nobody but who had the lock wakes those who wait for it. */
		k = lock_of(w, r->addr);
		if (k)
			let_go(w, k, at, r->time_ns, l->ustack);
	} else {
		/* A condition variable: its mutex is free meanwhile. */
		for (size_t i = p->n_held; i-- && l->n_held;) {
			k = &p->locks[p->held[i]];
			if (k->holder != at)
				continue;
			holder_had(w, k, r->time_ns, 0);
			/* Of what a mutex said it may have let go since. */
			if (k->how == BP_HOLDER_EVENTS) {
				l->let_go = true;
				l->let_go_of = k->addr;
			}
			set_free(w, k, r->time_ns);
		}
	}
}

static void take_futex_ret(struct bp_waits *w, const struct bp_wait *r)
{
	struct live *l = live_of(w, r->thread, r->cpu, r->time_ns);
	struct lock *k;

	if (!l)
		return;
	acts(w, l, r->time_ns);
	if (!l->in_futex)
		return;
	if (l->let_go && !bp_waits_is_mutex(l->call.op)) {
		l->let_go = false;
		k = lock_of(w, l->let_go_of);
		if (k && k->holder == NO_THREAD) {
			set_holder(w, k, (uint32_t)(l - w->priv->live), BP_HOLDER_EVENTS, 0, r->time_ns);
			k->since_ns = r->time_ns;
		}
	}
	end_call(w, l, r->time_ns, false);
}

/* Who has taken a lock, or wants one, and where, is not known any more, since @time_ns. */
static void forget_locks(struct bp_waits *w, uint64_t time_ns)
{
	for (size_t i = w->priv->n_held; i--;) {
		struct lock *k = &w->priv->locks[w->priv->held[i]];

		/* One that others have waited for since does not let go unseen. */
		if (k->owned)
			continue;
		holder_had(w, k, time_ns > k->since_ns ? time_ns : k->since_ns, 0);
		set_free(w, k, time_ns);
	}
	w->priv->blind++;
}

static void take_lock(struct bp_waits *w, const struct bp_wait *r)
{
	struct live *l;
	struct lock *k;
	uint32_t at;

	if (r->flags & BP_WAIT_BLIND) {
		forget_locks(w, r->time_ns);
		return;
	}
	l = live_of(w, r->thread, r->cpu, r->time_ns);
	if (!l)
		return;
	acts(w, l, r->time_ns);
	if (r->kind == BP_WAIT_LOCK_WANT) {
		l->wants = true;
		l->want = r->addr;
		l->site = r->other;
		return;
	}
	at = (uint32_t)(l - w->priv->live);
	/* The probe at a function's return does not have its arguments. */
	k = lock_of(w, r->kind == BP_WAIT_LOCK_HELD && !r->addr && l->wants ? l->want : r->addr);
	if (r->kind == BP_WAIT_LOCK_HELD) {
		l->held_site = l->wants ? l->site : 0;
		l->held_lock = k ? k->addr : 0;
		l->wants = false;
	}
	if (!k)
		return;
	if (r->kind == BP_WAIT_LOCK_HELD) {
		holder_had(w, k, r->time_ns, 0);
		set_holder(w, k, at, BP_HOLDER_EVENTS, l->held_site, r->time_ns);
		k->since_ns = r->time_ns;
	} else if (k->holder == at) {
		holder_had(w, k, r->time_ns, 0);
		set_free(w, k, r->time_ns);
	} else if (k->holder == NO_THREAD) {
		k->before = at;
		k->before_ns = r->time_ns;
		k->how = BP_HOLDER_EVENTS;
	}
}

/* Blocked, and nothing was heard of it before: so it has been since recording began. Returns where it is now.
 */
static struct live *off_from_the_start(struct bp_waits *w, struct live *l, const struct bp_wait *r)
{
	uint32_t at = (uint32_t)(l - w->priv->live);
	uint64_t since_ns = w->priv->forgot ? r->time_ns : w->first_ns;
	uint64_t condvar = bp_waits_is_mutex(r->other) ? condvar_around(w, r->addr) : 0;
	struct lock *k;

	remove_waiter(w, l);
	l->in_futex = r->addr != 0;
	l->call = (struct bp_futex_wait){
	    .thread = l->thread,
	    .addr = r->addr,
	    .op = r->other,
	    .enter_ns = since_ns,
	    .before = true,
	    .ustack = r->ustack,
	    .kstack = r->kstack,
	    .holder = NO_THREAD,
	    .holder_was = BP_OFF_UNKNOWN,
	};
	set_condvar(&l->call, condvar);
	begin_off(w, l, r, since_ns);
	/* How long the wait was is not known, unless it does not end. */
	l->from_start = l->in_futex;
	l->in_futex = false;
	k = l->from_start && bp_waits_is_mutex(l->call.op) ? lock_of(w, r->addr) : NULL;
	if (k) {
		see_owner(w, k, r);
		add_waiter(w, k, &w->priv->live[at]);
	}
	return &w->priv->live[at];
}

static void take_sample(struct bp_waits *w, const struct bp_wait *r)
{
	struct live *l = live_of(w, r->thread, r->cpu, r->time_ns);
	struct bp_waits_private *p = w->priv;
	struct bp_wait_thread *t;
	struct lock *k;
	struct bp_off off = {.out = *r, .in_ns = r->time_ns, .waker = NO_THREAD, .open = true};

	if (!l)
		return;
	/* One that came late has a later time, at which the thread may be off the CPU. */
	if (p->any_in && r->state == 'R') {
		if (l->state != OFF) {
			l->run_stack = r->ustack;
			l->run_ns = r->time_ns;
		}
		return;
	}
	/* Of one whose switches are recorded: where it is while it is off the CPU. */
	if (p->any_in) {
		if (l->state == UNKNOWN && (l->since == r->time_ns || l->since == UINT64_MAX))
			l = off_from_the_start(w, l, r);
		if (l->state == OFF && !l->off.out.ustack)
			l->off.out.ustack = r->ustack;
		if (l->state == OFF && l->in_futex && !l->call.ustack)
			l->call.ustack = r->ustack;
		k = (l->from_start || l->in_futex) && l->lock && bp_wait_owner(r) ? &p->locks[l->lock - 1]
										  : NULL;
		if (k && k->addr == r->addr)
			see_owner(w, k, r);
		return;
	}
	t = &w->threads[l->thread];
	off.thread = l->thread;
	if (r->addr) {
		l->in_futex = true;
		remove_waiter(w, l);
		l->call = (struct bp_futex_wait){.addr = r->addr, .op = r->other};
		off.futex = true;
		off.addr = bp_waits_word(r->addr, r->other);
	}
	off.why = why(w, l, r);
	l->in_futex &= !r->addr;
	t->n[off.why.cls]++;
	t->stacks[bp_stack_kind(w->priv->rules, r->kstack)]++;
	if (p->ops && p->ops->on_off)
		p->ops->on_off(p->ctx, w, &off);
}

/* What was going on on a CPU, or in a thread, is not known any more. */
static void forget(struct bp_waits *w, uint64_t time_ns)
{
	for (size_t i = 0; i < w->priv->n_active; i++) {
		struct live *l = &w->priv->live[w->priv->active[i]];

		l->active = false;
		if (l->state == OFF)
			end_off(w, l, l->since, true);
		else if (l->state == RUNNING && time_ns > l->since)
			w->threads[l->thread].running_ns += time_ns - l->since;
		l->since = l->known_ns = UINT64_MAX;
		l->in_futex = l->wants = l->let_go = l->from_start = false;
		l->state = UNKNOWN;
		l->n_held = l->lock = 0;
	}
	w->priv->n_held = w->priv->n_active = 0;
	w->priv->forgot++;
	w->priv->forgot_ns = time_ns;
}

/* Whether events around that time were lost: those that were not say little. */
static bool in_gap(struct bp_waits *w, uint64_t time_ns)
{
	struct bp_waits_private *p = w->priv;

	while (p->gap < p->n_gaps && time_ns > p->gaps[p->gap].from_ns) {
		const struct gap *g = &p->gaps[p->gap];
		uint64_t from_ns = g->from_ns > w->first_ns ? g->from_ns : w->first_ns;

		/* Nothing is known from its beginning on. */
		if (!p->in_gap) {
			forget(w, from_ns);
			w->lost_ns += g->to_ns > from_ns ? g->to_ns - from_ns : 0;
		}
		p->in_gap = time_ns < g->to_ns;
		if (p->in_gap)
			return true;
		p->gap++;
	}
	return false;
}

static void take(struct bp_waits *w, const struct bp_wait *r)
{
	struct live *l;

	if (!w->records++)
		w->first_ns = r->time_ns;
	if (r->time_ns > w->last_ns)
		w->last_ns = r->time_ns;
	if (in_gap(w, r->time_ns) && r->kind != BP_WAIT_LOST)
		return;
	switch (r->kind) {
	case BP_WAIT_OUT:
		take_out(w, r);
		break;
	case BP_WAIT_IN:
		take_in(w, r);
		break;
	case BP_WAIT_WAKE:
		take_wake(w, r);
		break;
	case BP_WAIT_FUTEX:
		take_futex(w, r);
		break;
	case BP_WAIT_FUTEX_RET:
		take_futex_ret(w, r);
		break;
	case BP_WAIT_LOCK_WANT:
	case BP_WAIT_LOCK_HELD:
	case BP_WAIT_LOCK_FREE:
		take_lock(w, r);
		break;
	case BP_WAIT_SAMPLE:
		take_sample(w, r);
		break;
	case BP_WAIT_LOST:
		w->lost += (uint64_t)r->value;
		if (r->flags & BP_WAIT_BLIND)
			forget_locks(w, r->time_ns > r->addr ? r->time_ns - r->addr : 0);
		else if (!r->addr)
			forget(w, r->time_ns);
		break;
	default:
		l = live_of(w, r->thread, r->cpu, r->time_ns);
		if (l)
			acts(w, l, r->time_ns);
		break;
	}
}

static void decoder_destroyp(struct bp_wait_decoder **d)
{
	bp_wait_decoder_destroy(*d);
}

static struct bp_err *pass(struct bp_waits *w, struct bp_wait_decoder *d, uint64_t from_ns, uint64_t to_ns,
			   bool second)
{
	uint64_t first, last;

	for (size_t i = 0; i < bp_trace_n_waits(w->trace) && !w->priv->failed; i++) {
		const struct bp_wait *recs;
		struct bp_err *err;
		size_t n;

		bp_trace_waits_range(w->trace, i, &first, &last);
		if (last < from_ns || (to_ns && first > to_ns))
			continue;
		err = bp_wait_decoder_read(d, w->trace, i, &recs, &n);
		if (err && bp_err_code(err) == BP_EDATA) {
			bp_err_ignore(err);
			w->damaged += second;
			if (second)
				forget(w, w->last_ns);
			continue;
		}
		if (err)
			return err;
		if (second && bp_trace_waits_gap(w->trace, i))
			forget(w, w->last_ns);
		for (size_t k = 0; k < n && !w->priv->failed; k++) {
			if (recs[k].time_ns < from_ns || (to_ns && recs[k].time_ns > to_ns))
				continue;
			if (second)
				take(w, &recs[k]);
			else
				look(w, &recs[k]);
		}
	}
	return w->priv->failed ? bp_err_nomem() : NULL;
}

struct bp_err *bp_waits_run(const struct bp_trace *t, uint64_t from_ns, uint64_t to_ns,
			    const struct bp_waits_ops *ops, void *ctx, struct bp_waits **ret)
{
	bp_cleanup(bp_waits_destroyp) struct bp_waits *w = calloc(1, sizeof(*w));
	bp_cleanup(decoder_destroyp) struct bp_wait_decoder *d = NULL;
	struct bp_err *err;

	if (!w)
		return bp_err_nomem();
	w->trace = t;
	w->priv = calloc(1, sizeof(*w->priv));
	if (!w->priv)
		return bp_err_nomem();
	w->priv->ops = ops;
	w->priv->ctx = ctx;
	/* Our own recordings have every switch, even when there was none. */
	w->priv->any_in = bp_trace_info(t, "waits_source");
	err = load_names(w);
	if (!err)
		err = bp_off_rules_create(t, &w->priv->rules);
	if (!err)
		err = bp_wait_decoder_create(&d);
	if (!err)
		err = pass(w, d, from_ns, to_ns, false);
	if (err)
		return err;
	looked(w);
	err = pass(w, d, from_ns, to_ns, true);
	if (err)
		return err;
	for (size_t i = 0; i < w->priv->n_live; i++) {
		struct live *l = &w->priv->live[i];

		if (l->state == OFF)
			end_off(w, l, w->priv->any_in ? w->last_ns : l->since, true);
		else if (l->state == RUNNING && w->last_ns > l->since)
			w->threads[l->thread].running_ns += w->last_ns - l->since;
		if (l->in_futex || l->from_start)
			end_call(w, l, w->last_ns, true);
	}
	if (w->priv->failed)
		return bp_err_nomem();
	w->timed = w->priv->any_in;
	*ret = bp_steal(w);
	return NULL;
}

uint32_t bp_waits_waiter_stack(const struct bp_waits *w, uint64_t addr)
{
	const struct word *word = word_of((struct bp_waits *)w, addr, false);

	return word ? word->ustack : 0;
}
