// SPDX-License-Identifier: GPL-2.0-or-later
/* Locks of QEMU: who waited for which, for how long, and who held it; condition variables and events beside
 * them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/guest_at.h"
#include "analyzers/parts.h"
#include "analyzers/tally.h"
#include "core/cleanup.h"

#define NOT_RECORDED 0 /* address of locks that the trace does not give one for */

struct bp_locks {
	struct bp_analysis *a;
	struct bp_waits *w;
	struct bp_guest_at *guest; /* NULL: nobody asks for it */
	struct bp_tally locks;     /* address, type; extra: ns that holders were preempted */
	struct bp_tally waiters;   /* address, thread, call site, guest function, its caller */
	struct bp_tally holders;   /* address, thread, how and what it did, site, guest function, its caller;
				      extra: stack */
	struct bp_tally others;    /* word, type */
	struct bp_tally others_by; /* word, thread */
	struct bp_futex_wait *waits; /* with mutexes; kept until what the guest did is known */
	size_t n_waits, cap_waits;
	size_t *asked; /* per wait: questions about the waiter, about the holder; plus 1 */
	struct bp_strbuf text;
	bool failed;
};

/* For each wait two questions: what did the guest on the waiter's vCPU, and on the holder's? */
static void on_futex(void *ctx, const struct bp_waits *w, const struct bp_futex_wait *f)
{
	struct bp_locks *x = ctx;

	if (!bp_waits_listed(x->a->query, w, f->thread))
		return;
	if (!bp_waits_is_mutex(f->op)) {
		if (f->before)
			return;
		bp_tally_add(&x->others, (uint64_t[6]){bp_waits_word(f->addr, f->op), f->op & 0x7f},
			     f->exit_ns - f->enter_ns);
		bp_tally_add(&x->others_by,
			     (uint64_t[6]){bp_waits_word(f->addr, f->op), w->threads[f->thread].pool},
			     f->exit_ns - f->enter_ns);
		return;
	}
	if (x->n_waits == x->cap_waits) {
		size_t cap = x->cap_waits * 2 + 1024;
		struct bp_futex_wait *p = realloc(x->waits, cap * sizeof(*p));

		if (!p) {
			x->failed = true;
			return;
		}
		x->waits = p;
		x->cap_waits = cap;
	}
	x->waits[x->n_waits++] = *f;
}

/* Where the futex calls themselves were not traced. */
static void on_off(void *ctx, const struct bp_waits *w, const struct bp_off *off)
{
	struct bp_locks *x = ctx;
	struct bp_futex_wait f = {
	    .thread = off->thread,
	    .op = 0x80,
	    .addr = NOT_RECORDED,
	    .enter_ns = off->out.time_ns,
	    .exit_ns = off->in_ns,
	    .ustack = off->out.ustack,
	    .holder = off->waker,
	    .holder_was = BP_OFF_UNKNOWN,
	    .how = off->waker != UINT32_MAX && !off->irq ? BP_HOLDER_WAKER : BP_HOLDER_UNKNOWN,
	};

	if (off->why.cls == BP_OFF_LOCK && !off->futex)
		on_futex(ctx, w, &f);
	(void)x;
}

static struct bp_err *ask_guest(struct bp_locks *x)
{
	struct bp_err *err = bp_guest_at_create(x->a, &x->guest);

	x->asked = calloc(x->n_waits * 2 + 1, sizeof(*x->asked));
	if (!err && !x->asked)
		err = bp_err_nomem();
	for (size_t i = 0; i < x->n_waits && !err; i++) {
		const struct bp_futex_wait *f = &x->waits[i];
		uint16_t vcpu = x->w->threads[f->thread].vcpu;

		if (vcpu != UINT16_MAX)
			err = bp_guest_at_ask(x->guest, vcpu, f->enter_ns, &x->asked[2 * i]);
		vcpu = f->how != BP_HOLDER_UNKNOWN ? x->w->threads[f->holder].vcpu : UINT16_MAX;
		if (!err && vcpu != UINT16_MAX)
			err = bp_guest_at_ask(x->guest, vcpu, f->enter_ns, &x->asked[2 * i + 1]);
	}
	return err ? err : bp_guest_at_answer(x->guest);
}

static void guest_of(const struct bp_locks *x, size_t question, uint32_t *row, uint32_t *caller)
{
	*row = *caller = BP_WALK_NO_FUNC;
	if (x->guest)
		bp_guest_at_get(x->guest, x->asked[question], row, caller);
}

static void sum(struct bp_locks *x)
{
	for (size_t i = 0; i < x->n_waits; i++) {
		const struct bp_futex_wait *f = &x->waits[i];
		const uint64_t ns = f->exit_ns - f->enter_ns;
		uint32_t row, caller;
		struct bp_tally_row *t;

		/* A wait that does not end is one that did not finish: it has no length. */
		if (f->open && f->addr != NOT_RECORDED)
			continue;
		t = bp_tally_add(&x->locks, (uint64_t[6]){f->addr, f->op & 0x7f}, ns);
		if (t)
			t->extra += f->holder_preempted_ns;
		guest_of(x, 2 * i, &row, &caller);
		t = bp_tally_add(&x->waiters,
				 (uint64_t[6]){f->addr, x->w->threads[f->thread].pool, f->site, row, caller},
				 ns);
		/* Of the longest wait that has one. */
		if (t && f->ustack && (!t->extra || ns == t->max_ns))
			t->extra = f->ustack;
		guest_of(x, 2 * i + 1, &row, &caller);
		t = bp_tally_add(
		    &x->holders,
		    (uint64_t[6]){f->addr,
				  f->how == BP_HOLDER_UNKNOWN ? UINT64_MAX : x->w->threads[f->holder].pool,
				  f->how | (uint64_t)f->holder_was << 8, f->holder_site, row, caller},
		    ns);
		if (t && f->holder_stack && (!t->extra || ns == t->max_ns))
			t->extra = f->holder_stack;
	}
}

static const char *type_name(uint64_t op)
{
	switch (op) {
	case 0:
		return "mutex";
	case 9:
		return "condvar";
	case 11:
		return "condvar (PI)";
	default:
		return "mutex (PI)";
	}
}

enum {
	L_LOCK,
	L_ADDRESS,
	L_TYPE,
	L_WAITS,
	L_TOTAL,
	L_MAX,
	L_AVG,
	L_HOLDERS,
	L_NAMED,
	L_THREAD,
	L_ROLE,
	L_HOW,
	L_WAS,
	L_SITE,
	L_GUEST,
	L_STACK
};

#define LOCK                                      \
	{                                         \
		"lock", "LOCK", BP_COL_STR, false \
	}
#define ADDRESS                                        \
	{                                              \
		"address", "OBJECT", BP_COL_HEX, false \
	}
#define TYPE                                      \
	{                                         \
		"type", "TYPE", BP_COL_STR, false \
	}
#define WAITS                                             \
	{                                                 \
		"waits", "CONTENDED", BP_COL_COUNT, false \
	}
#define TOTAL                                                   \
	{                                                       \
		"wait_total_ns", "TOTAL WAIT", BP_COL_NS, false \
	}
#define MAX                                                 \
	{                                                   \
		"wait_max_ns", "MAX WAIT", BP_COL_NS, false \
	}
#define AVG                                                 \
	{                                                   \
		"wait_avg_ns", "AVG WAIT", BP_COL_NS, false \
	}
#define NAMED                                             \
	{                                                 \
		"named_by", "NAMED BY", BP_COL_STR, false \
	}
#define THREAD                                        \
	{                                             \
		"thread", "THREAD", BP_COL_STR, false \
	}
#define ROLE                                      \
	{                                         \
		"role", "ROLE", BP_COL_STR, false \
	}
#define SITE                                                \
	{                                                   \
		"call_site", "CALL SITE", BP_COL_STR, false \
	}
#define GUEST                                                         \
	{                                                             \
		"guest_function", "GUEST FUNCTION", BP_COL_STR, false \
	}
#define STACK                                       \
	{                                           \
		"stack", "STACK", BP_COL_STR, false \
	}

static const struct bp_field lock_fields[] = {
    LOCK, ADDRESS, TYPE, WAITS, TOTAL, MAX, AVG, {"holders", "HELD BY", BP_COL_STR, false}, NAMED};
static const uint8_t lock_cols[] = {L_LOCK, L_ADDRESS, L_TYPE,    L_WAITS, L_TOTAL,
				    L_MAX,  L_AVG,     L_HOLDERS, L_NAMED};

static const struct bp_field holder_fields[] = {LOCK,
						ADDRESS,
						THREAD,
						ROLE,
						WAITS,
						TOTAL,
						MAX,
						AVG,
						{"holder_was", "WAS", BP_COL_STR, false},
						{"known_from", "KNOWN FROM", BP_COL_STR, false},
						SITE,
						GUEST,
						STACK};
static const uint8_t holder_cols[] = {L_LOCK, L_ADDRESS, L_THREAD, L_ROLE, L_WAITS, L_TOTAL, L_MAX,
				      L_AVG,  L_WAS,     L_HOW,    L_SITE, L_GUEST, L_STACK};

static const struct bp_field waiter_fields[] = {LOCK, ADDRESS, THREAD, ROLE,  WAITS, TOTAL,
						MAX,  AVG,     SITE,   GUEST, STACK};
static const uint8_t waiter_cols[] = {L_LOCK, L_ADDRESS, L_THREAD, L_ROLE,  L_WAITS, L_TOTAL,
				      L_MAX,  L_AVG,     L_SITE,   L_GUEST, L_STACK};

static const struct bp_field other_fields[] = {
    {"object", "NAME", BP_COL_STR, false},      ADDRESS, TYPE, WAITS, TOTAL, MAX, AVG, NAMED,
    {"waiters", "WAITED BY", BP_COL_STR, false}};
static const uint8_t other_cols[] = {L_LOCK, L_ADDRESS, L_TYPE,  L_WAITS,  L_TOTAL,
				     L_MAX,  L_AVG,     L_NAMED, L_HOLDERS};

enum which { LOCKS, HOLDERS, WAITERS, OTHERS };

struct table {
	struct bp_locks *x;
	const struct bp_tally *sums;
	enum which which;
	const uint8_t *cols;
	size_t *index;
};

/* Those with most of the time: "main loop 196, CPU 3/TCG 90". @of: by address and thread. */
static void list_threads(struct bp_locks *x, const struct bp_tally *of, uint64_t addr)
{
	enum { MOST = 6 };
	struct {
		uint64_t thread, n, ns;
	} top[64];
	size_t n = 0, more = 0;

	for (size_t i = 0; i < of->n; i++) {
		const struct bp_tally_row *row = &of->rows[i];
		size_t k = 0;

		if (row->key[0] != addr || row->key[1] >= x->w->n_threads)
			continue;
		while (k < n && top[k].thread != row->key[1])
			k++;
		if (k == BP_ARRAY_SIZE(top)) {
			more++;
			continue;
		}
		if (k == n) {
			top[n].thread = row->key[1];
			top[n].n = top[n].ns = 0;
			n++;
		}
		top[k].n += row->n;
		top[k].ns += row->ns;
	}
	more += n > MOST ? n - MOST : 0;
	for (size_t i = 0; i < n && i < MOST; i++) {
		size_t best = i;

		for (size_t k = i + 1; k < n; k++) {
			if (top[k].ns > top[best].ns)
				best = k;
		}
		if (i)
			bp_strbuf_adds(&x->text, ", ");
		bp_waits_thread_name(x->w, (uint32_t)top[best].thread, &x->text);
		bp_strbuf_addf(&x->text, " %" PRIu64, top[best].n);
		top[best] = top[i];
	}
	if (more)
		bp_strbuf_addf(&x->text, ", %zu more", more);
}

static void guest_function(struct bp_locks *x, uint64_t row, uint64_t caller)
{
	char buf[64];

	if (row == BP_WALK_NO_FUNC)
		return;
	bp_strbuf_adds(&x->text, bp_row_name(&x->a->rows, (uint32_t)row, buf));
	if (caller != BP_WALK_NO_FUNC) {
		bp_strbuf_adds(&x->text, " <- ");
		bp_strbuf_adds(&x->text, bp_row_name(&x->a->rows, (uint32_t)caller, buf));
	}
}

static const char *how_name(enum bp_holder_how how)
{
	static const char *const names[] = {
	    [BP_HOLDER_UNKNOWN] = "",
	    [BP_HOLDER_WAKER] = "last waker",
	    [BP_HOLDER_OWNER] = "mutex owner",
	    [BP_HOLDER_EVENTS] = "lock events",
	};

	return names[how];
}

static void lock_name(struct bp_locks *x, uint64_t addr, struct bp_cell *c)
{
	const char *how;

	if (addr == NOT_RECORDED)
		bp_cell_str(c, "(address not recorded)");
	else
		bp_waits_lock_name(x->w, addr, &x->text, &how);
}

static void cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	const struct table *t = ctx;
	struct bp_locks *x = t->x;
	const struct bp_tally_row *row = &t->sums->rows[t->index[i]];
	const uint64_t *key = row->key;
	const char *how;

	bp_strbuf_clear(&x->text);
	switch (t->cols[field]) {
	case L_LOCK:
		lock_name(x, key[0], c);
		break;
	case L_ADDRESS:
		if (key[0] != NOT_RECORDED)
			bp_cell_int(c, key[0]);
		break;
	case L_TYPE:
		if (t->which == OTHERS)
			bp_cell_str(c, key[1] ? type_name(key[1]) : "event");
		else
			bp_cell_str(c, type_name(key[1]));
		break;
	case L_WAITS:
		bp_cell_int(c, row->n);
		break;
	case L_TOTAL:
		bp_cell_int(c, row->ns);
		break;
	case L_MAX:
		bp_cell_int(c, row->max_ns);
		break;
	case L_AVG:
		bp_cell_int(c, row->ns / row->n);
		break;
	case L_HOLDERS:
		list_threads(x, t->which == OTHERS ? &x->others_by : &x->holders, key[0]);
		break;
	case L_NAMED:
		bp_waits_lock_name(x->w, key[0], &x->text, &how);
		bp_strbuf_clear(&x->text);
		if (*how)
			bp_cell_str(c, how);
		break;
	case L_THREAD:
		if (key[1] < x->w->n_threads)
			bp_waits_thread_name(x->w, (uint32_t)key[1], &x->text);
		break;
	case L_ROLE:
		if (key[1] < x->w->n_threads)
			bp_cell_str(c, x->w->threads[key[1]].role);
		break;
	case L_HOW:
		bp_cell_str(c, how_name((enum bp_holder_how)(key[2] & 0xff)));
		break;
	case L_WAS:
		if (key[2] & 0xff && key[2] >> 8 != BP_OFF_UNKNOWN)
			bp_cell_str(c, bp_off_class_name((enum bp_off_class)(key[2] >> 8)));
		break;
	case L_SITE:
		if (t->which == HOLDERS && key[3])
			bp_waits_frame_name(x->a->trace, (uint32_t)key[3], &x->text);
		else if (t->which == WAITERS && key[2])
			bp_waits_frame_name(x->a->trace, (uint32_t)key[2], &x->text);
		break;
	case L_GUEST:
		if (t->which == HOLDERS)
			guest_function(x, key[4], key[5]);
		else if (t->which == WAITERS)
			guest_function(x, key[3], key[4]);
		break;
	case L_STACK:
		bp_waits_stack_text(x->a->trace, (uint32_t)row->extra, 8, true, &x->text);
		break;
	default:
		break;
	}
	if (x->text.len)
		bp_cell_str(c, bp_strbuf_str(&x->text));
}

/* Of what says where in the program, text has columns that have something in them. */
static const char *shown_columns(const struct table *t, size_t n, char *text, size_t cap)
{
	bool site = false, guest = false, stack = false;

	for (size_t i = 0; i < n; i++) {
		const struct bp_tally_row *row = &t->sums->rows[t->index[i]];

		site |= row->key[t->which == HOLDERS ? 3 : 2] != 0;
		guest |= row->key[t->which == HOLDERS ? 4 : 3] != BP_WALK_NO_FUNC;
		stack |= row->extra != 0;
	}
	snprintf(text, cap, "waits,wait_total_ns,wait_max_ns,lock,thread%s%s%s%s",
		 t->which == HOLDERS ? ",holder_was,known_from" : "", site ? ",call_site" : "",
		 guest ? ",guest_function" : "", stack ? ",stack" : "");
	return text;
}

static struct bp_err *table(struct bp_locks *x, struct bp_report *r, enum which which, bool main,
			    size_t limit)
{
	static const struct {
		const char *id, *title, *text;
		const struct bp_field *fields;
		const uint8_t *cols;
		size_t n;
	} of[] = {
	    [LOCKS] = {"locks", "Contended locks",
		       "waits,wait_total_ns,wait_max_ns,wait_avg_ns,type,address,lock,holders", lock_fields,
		       lock_cols, BP_ARRAY_SIZE(lock_cols)},
	    [HOLDERS] = {"holders", "Holders: who made others wait",
			 "waits,wait_total_ns,wait_max_ns,lock,thread,holder_was,known_from,call_site,guest_"
			 "function,stack",
			 holder_fields, holder_cols, BP_ARRAY_SIZE(holder_cols)},
	    [WAITERS] = {"waiters", "Waiters", NULL, waiter_fields, waiter_cols, BP_ARRAY_SIZE(waiter_cols)},
	    [OTHERS] = {"conditions", "Condition variables and events, which are no locks",
			"waits,wait_total_ns,wait_max_ns,wait_avg_ns,type,address,object,waiters",
			other_fields, other_cols, BP_ARRAY_SIZE(other_cols)},
	};
	struct table t = {
	    .x = x,
	    .sums = which == LOCKS     ? &x->locks
		    : which == HOLDERS ? &x->holders
		    : which == WAITERS ? &x->waiters
				       : &x->others,
	    .which = which,
	    .cols = of[which].cols,
	};
	struct bp_view_table v = {
	    .id = of[which].id,
	    .title = of[which].title,
	    .fields = of[which].fields,
	    .n_fields = of[which].n,
	    .text_time = of[which].text,
	    .sort_time = "wait_total_ns",
	    .cell = cell,
	    .ctx = &t,
	    .main = main,
	    .limit = limit,
	};
	bp_autofree size_t *index = malloc((t.sums->n + 1) * sizeof(*index));
	char text[160];

	if (!index)
		return bp_err_nomem();
	t.index = index;
	for (size_t i = 0; i < t.sums->n; i++) {
		if (t.sums->rows[i].ns >= x->a->query->min_ns && i < BP_TALLY_MAX)
			index[v.n_rows++] = i;
	}
	if (!v.n_rows && which != LOCKS)
		return NULL;
	if (which == HOLDERS || which == WAITERS)
		v.text_time = shown_columns(&t, v.n_rows, text, sizeof(text));
	return bp_view_add(x->a, r, &v);
}

/* ---- waits that are not over ---- */

enum {
	O_LOCK,
	O_ADDRESS,
	O_THREAD,
	O_ROLE,
	O_SINCE,
	O_WAITED,
	O_HOLDER,
	O_HOLDER_ROLE,
	O_HOLDER_IS,
	O_HOLDER_WHERE,
	O_HOW,
	O_GUEST,
	O_STACK,
	O_HOLDER_STACK
};

static const struct bp_field open_fields[] = {
    LOCK,
    ADDRESS,
    THREAD,
    ROLE,
    {"since_ns", "SINCE", BP_COL_NS, false},
    {"waited_ns", "WAITED", BP_COL_NS, false},
    {"holder", "HELD BY", BP_COL_STR, false},
    {"holder_role", "ITS ROLE", BP_COL_STR, false},
    {"holder_is", "HOLDER IS", BP_COL_STR, false},
    {"holder_where", "WHERE", BP_COL_STR, false},
    {"known_from", "KNOWN FROM", BP_COL_STR, false},
    GUEST,
    STACK,
    {"holder_stack", "HOLDER'S STACK", BP_COL_STR, false},
};

struct open_table {
	struct bp_locks *x;
	size_t *index; /* of waits */
};

static void open_cell(void *ctx, size_t i, size_t field, struct bp_cell *c)
{
	const struct open_table *t = ctx;
	struct bp_locks *x = t->x;
	const struct bp_futex_wait *f = &x->waits[t->index[i]];
	const bool held = f->how != BP_HOLDER_UNKNOWN && f->holder < x->w->n_threads;
	uint32_t row, caller;

	bp_strbuf_clear(&x->text);
	switch (field) {
	case O_LOCK:
		lock_name(x, f->addr, c);
		break;
	case O_ADDRESS:
		if (f->addr != NOT_RECORDED)
			bp_cell_int(c, f->addr);
		break;
	case O_THREAD:
		bp_waits_thread_name(x->w, f->thread, &x->text);
		break;
	case O_ROLE:
		bp_cell_str(c, x->w->threads[f->thread].role);
		break;
	case O_SINCE:
		if (!f->before)
			bp_cell_int(c, f->enter_ns);
		break;
	case O_WAITED:
		bp_cell_int(c, f->exit_ns - f->enter_ns);
		break;
	case O_HOLDER:
		if (held)
			bp_waits_thread_name(x->w, f->holder, &x->text);
		break;
	case O_HOLDER_ROLE:
		if (held)
			bp_cell_str(c, x->w->threads[f->holder].role);
		break;
	case O_HOLDER_IS:
		if (held && f->holder_was != BP_OFF_UNKNOWN)
			bp_cell_str(c, bp_off_class_name(f->holder_was));
		break;
	case O_HOLDER_WHERE:
		if (held && f->holder_where)
			bp_cell_str(c, f->holder_where);
		break;
	case O_HOW:
		bp_cell_str(c, how_name(f->how));
		break;
	case O_GUEST:
		guest_of(x, 2 * t->index[i], &row, &caller);
		guest_function(x, row, caller);
		break;
	case O_STACK:
		bp_waits_stack_text(x->a->trace, f->ustack, 8, true, &x->text);
		break;
	case O_HOLDER_STACK:
		bp_waits_stack_text(x->a->trace, f->holder_stack, 8, true, &x->text);
		break;
	default:
		break;
	}
	if (x->text.len)
		bp_cell_str(c, bp_strbuf_str(&x->text));
}

/* Who still waits at the end of what is looked at: after a hang that is all there is to see. */
static struct bp_err *open_table(struct bp_locks *x, struct bp_report *r)
{
	bp_autofree size_t *index = malloc((x->n_waits + 1) * sizeof(*index));
	struct open_table t = {.x = x, .index = index};
	struct bp_view_table v = {
	    .id = "open",
	    .title = "Waits that were not over at the end",
	    .fields = open_fields,
	    .n_fields = BP_ARRAY_SIZE(open_fields),
	    .text_time = "waited_ns,lock,thread,holder,holder_is,holder_where,known_from,holder_stack",
	    .sort_time = "waited_ns",
	    .cell = open_cell,
	    .ctx = &t,
	};

	if (!index)
		return bp_err_nomem();
	for (size_t i = 0; i < x->n_waits; i++) {
		const struct bp_futex_wait *f = &x->waits[i];

		if (f->open && f->exit_ns - f->enter_ns >= x->a->query->min_ns)
			index[v.n_rows++] = i;
	}
	return v.n_rows ? bp_view_add(x->a, r, &v) : NULL;
}

bool bp_locks_open(const struct bp_locks *x, size_t *at, const struct bp_futex_wait **ret)
{
	while (*at < x->n_waits && !x->waits[*at].open)
		++*at;
	if (*at >= x->n_waits)
		return false;
	*ret = &x->waits[(*at)++];
	return true;
}

struct bp_err *bp_locks_table(struct bp_locks *x, struct bp_report *r, bool main, size_t limit)
{
	return table(x, r, LOCKS, main, limit);
}

/* The threads of a role together, but those without one. */
static const char *share_name(const struct bp_wait_thread *t)
{
	if (bp_waits_is_vcpu(t))
		return "vCPUs";
	return !*t->role || !strcmp(t->role, "other") ? t->comm : t->role;
}

static void add_share(struct bp_lock_sum *s, const char *who, uint64_t ns)
{
	size_t n = 0;

	while (n < BP_ARRAY_SIZE(s->by) && s->by[n].ns && strcmp(s->by[n].who, who) != 0)
		n++;
	if (n == BP_ARRAY_SIZE(s->by))
		return;
	s->by[n].who = who;
	s->by[n].ns += ns;
	for (; n && s->by[n - 1].ns < s->by[n].ns; n--) {
		struct bp_lock_share x = s->by[n];

		s->by[n] = s->by[n - 1];
		s->by[n - 1] = x;
	}
}

bool bp_locks_sum(const struct bp_locks *x, size_t i, struct bp_lock_sum *ret)
{
	if (i >= x->locks.n)
		return false;
	*ret = (struct bp_lock_sum){
	    .addr = x->locks.rows[i].key[0],
	    .all_ns = x->locks.rows[i].ns,
	    .preempted_ns = x->locks.rows[i].extra,
	};
	for (size_t k = 0; k < x->waiters.n; k++) {
		const struct bp_tally_row *row = &x->waiters.rows[k];

		if (row->key[0] == ret->addr && row->key[1] < x->w->n_threads &&
		    bp_waits_is_vcpu(&x->w->threads[row->key[1]]))
			ret->ns += row->ns;
	}
	for (size_t k = 0; k < x->holders.n; k++) {
		const struct bp_tally_row *row = &x->holders.rows[k];

		if (row->key[0] != ret->addr || row->key[1] >= x->w->n_threads)
			continue;
		add_share(ret, share_name(&x->w->threads[row->key[1]]), row->ns);
		if (!strcmp(x->w->threads[row->key[1]].role, "main loop"))
			ret->main_loop_ns += row->ns;
	}
	return true;
}

struct bp_waits *bp_locks_waits(struct bp_locks *x)
{
	return x->w;
}

void bp_locks_destroy(struct bp_locks *x)
{
	if (!x)
		return;
	bp_waits_destroy(x->w);
	bp_guest_at_destroy(x->guest);
	bp_tally_deinit(&x->locks);
	bp_tally_deinit(&x->waiters);
	bp_tally_deinit(&x->holders);
	bp_tally_deinit(&x->others);
	bp_tally_deinit(&x->others_by);
	bp_strbuf_deinit(&x->text);
	free(x->waits);
	free(x->asked);
	free(x);
}

struct bp_err *bp_locks_create(struct bp_analysis *a, bool guest, struct bp_locks **ret)
{
	static const struct bp_waits_ops ops = {.on_futex = on_futex, .on_off = on_off};
	bp_cleanup(bp_locks_destroyp) struct bp_locks *x = calloc(1, sizeof(*x));
	struct bp_err *err;

	if (!x)
		return bp_err_nomem();
	x->a = a;
	err = bp_waits_run(a->trace, a->walk.from_ns, a->walk.to_ns, &ops, x, &x->w);
	if (!err && guest)
		err = ask_guest(x);
	if (err)
		return err;
	sum(x);
	if (x->failed || x->locks.failed || x->waiters.failed || x->holders.failed || x->others.failed ||
	    x->others_by.failed)
		return bp_err_nomem();
	*ret = bp_steal(x);
	return NULL;
}

static bool has_stacks(const struct bp_tally *t)
{
	for (size_t i = 0; i < t->n; i++) {
		if (t->rows[i].extra)
			return true;
	}
	return false;
}

static struct bp_err *locks_run(struct bp_analysis *a, struct bp_report *r)
{
	bp_cleanup(bp_locks_destroyp) struct bp_locks *x = NULL;
	struct bp_err *err = bp_locks_create(a, true, &x);
	const struct bp_futex_wait *open;
	size_t at = 0;

	if (err)
		return err;
	bp_waits_title(a, x->w, r, "Locks");
	err = table(x, r, LOCKS, true, 0);
	if (!err)
		err = open_table(x, r);
	for (enum which which = HOLDERS; which <= OTHERS && !err; which++)
		err = table(x, r, which, false, 0);
	if (err)
		return err;
	bp_waits_notes(x->w, r);
	if (x->n_waits)
		bp_report_note(
		    r,
		    "held by: who had the lock for the longest part of the wait, by%s%s who let go of it "
		    "(last waker)%s",
		    x->w->lock_events ? " the probes on the lock functions (lock events), else by" : "",
		    x->w->owners ? " what the mutex said of its owner when somebody went to sleep on it "
				   "(mutex owner), "
				   "else by"
				 : "",
		    x->w->lock_events || x->w->owners
			? ""
			: "; taking a free lock never enters the kernel, so that only probes on the lock "
			  "functions could tell when");
	if (bp_locks_open(x, &at, &open))
		bp_report_note(
		    r, "of a wait that was not over, held by: who had the lock at the end; nobody when "
		       "that is not known");
	if (has_stacks(&x->waiters) || has_stacks(&x->holders))
		bp_report_note(r, "STACK: of the longest wait that has one");
	if (x->locks.n)
		bp_report_note(r, "WAS: what the holder did most while it had the lock");
	return NULL;
}

const struct bp_view bp_view_locks = {
    .name = "locks",
    .summary = "contended locks of QEMU: waits, who waited, who held them",
    .waits = true,
    .run = locks_run,
};
