/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the reader of ftrace's text (the tracefs files trace and trace_pipe), shared by text*.c and their
 * tests.
 *
 * text.c goes through the lines and tells their kinds apart, text_graph.c reads those of the function_graph
 * tracer, text_event.c those of the function tracer and of events, text_state.c keeps functions, tasks and
 * CPUs.
 *
 * One thread for the caller; text_queue.c has a second one. Memory: functions, tasks and stacks are bounded
 * (BP_FTEXT_*_MAX); nothing else grows with the input. Source of the formats: Documentation/trace/ftrace.rst
 * of Linux, and traces of Linux 6.1 and 6.18.
 */
#ifndef BP_COLLECTORS_FTRACE_TEXT_H
#define BP_COLLECTORS_FTRACE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "collectors/import.h"
#include "collectors/sched.h"

#define BP_FTEXT_FUNCS_MAX (1u << 18)
#define BP_FTEXT_TASKS_MAX (1u << 16)
#define BP_FTEXT_FRAMES_MAX (1u << 21) /* of all tasks together */
#define BP_FTEXT_NAME_MAX 512          /* longer names are cut */
#define BP_FTEXT_MARKS_MAX (1u << 16)

#define BP_FTEXT_NONE UINT32_MAX

/* What a line is; every line is of one class. */
enum bp_ftext_class {
	BP_FTEXT_HEADER,       /* "# ..." */
	BP_FTEXT_OPEN,         /* "f() {" */
	BP_FTEXT_LEAF,         /* "f();" */
	BP_FTEXT_CLOSE,        /* "}" */
	BP_FTEXT_COMMENT,      /* an event or a mark among the calls */
	BP_FTEXT_IRQ,          /* "==========>": an interrupt begins; "<==========": it ends */
	BP_FTEXT_SWITCH,       /* "0) a-1 => b-2" */
	BP_FTEXT_SWITCH_RULER, /* the dashes around it */
	BP_FTEXT_BLANK,
	BP_FTEXT_LOST,     /* "CPU:0 [LOST 5 EVENTS]" */
	BP_FTEXT_FUNCTION, /* a record of the function tracer */
	BP_FTEXT_EVENT,    /* any other record */
	BP_FTEXT_STACK,    /* begins a stack trace */
	BP_FTEXT_FRAME,    /* " => f" of a stack trace */
	BP_FTEXT_OTHER,    /* not understood */
	BP_FTEXT_CLASSES
};

/* A function, with what the text says about it; ns are sums of printed durations. */
struct bp_ftext_func {
	/* What each call touches. */
	uint32_t id; /* the builder's */
	uint32_t key_len;
	uint64_t opens, leaves;
	uint64_t incl_ns;     /* of leaves, and of closes with their open */
	uint64_t recorded_ns; /* printed durations of the calls in the recording ... */
	uint64_t excess_ns;   /* ... and how much longer they are there, as the text says other things too */
	uint64_t outer, outer_ns; /* of those in incl_ns, at the bottom of their task's stack */

	const char *key;      /* as in the text: "name" or "name [module]" */
	uint64_t uncertain;   /* calls whose time in the recording is not the printed one */
	uint64_t lone_closes; /* closes without their open */
	uint64_t lone_ns;
	uint64_t inserted;  /* of which as many were entered as calls */
	uint64_t functions; /* records of the function tracer */
	const char *name;
	const char *module; /* "vmlinux" for the kernel itself */
};

struct bp_ftext_counts {
	uint64_t lines;
	uint64_t of_class[BP_FTEXT_CLASSES];
	uint64_t close_named, close_without_open, open_without_close;
	uint64_t flags;       /* lines with the flags of latency-format */
	uint64_t overhead[7]; /* lines marked, see BP_FTEXT_MARKS */
	uint64_t lost_events;
	uint64_t marks;     /* comments and events that are somebody's text */
	uint64_t max_stack; /* open calls of one task */
	uint64_t tasks;
	uint64_t first_ns, last_ns; /* printed times; first_ns UINT64_MAX if there are none */
	bool cut;                   /* the last line has no end */
};

#define BP_FTEXT_MARKS "+!#*@$-"

/*
 * Where the bars (and the bracket after the CPU) of a line stand, 0: none. All lines of a file are alike but
 * for a few, so the next line is first taken to be like the last.
 */
struct bp_ftext_columns {
	uint16_t time, cpu, task, flags;
	uint16_t bar; /* the last one; 0: not known */
};

/* What one line of a graph says. */
struct bp_ftext_line {
	struct bp_ftext_columns columns;
	const char *name; /* "name" or "name [module]"; NULL: none */
	uint32_t name_len;
	enum bp_ftext_class cls;
	bool has_cpu, has_time, has_duration, flags;
	char mark;      /* 0: none */
	uint32_t depth; /* indentation; BP_FTEXT_IRQ: 1 if one begins, else 0 */
	uint32_t cpu;
	uint64_t time_ns, duration_ns;
	const char *task; /* "comm-pid"; NULL: not printed */
	uint32_t task_len;
	struct bp_ftext_task *known; /* instead: the task that the column is known to mean */
};

/* A line that begins or ends a call, without its text. */
struct bp_ftext_call {
	uint64_t time_ns, duration_ns;
	struct bp_ftext_task *task; /* by the column; NULL: there is none */
	uint32_t func;              /* index, or BP_FTEXT_NONE */
	uint32_t depth;
	uint16_t cpu;
	uint8_t cls; /* OPEN, LEAF, CLOSE or IRQ */
	uint8_t has; /* BP_FTEXT_HAS_* */
};

enum {
	BP_FTEXT_HAS_TIME = 1,
	BP_FTEXT_HAS_DURATION = 2,
	BP_FTEXT_HAS_NAME = 4, /* a CLOSE that says of what */
	BP_FTEXT_HAS_TASK = 8,
};

/*
 * The same on the way between two threads, where bytes are what it costs. Differs from the last call that was
 * not packed by little time, and on this CPU not in the task; see bp_ftext_take().
 */
struct bp_ftext_packed {
	int32_t time_ns; /* later than that one */
	uint32_t duration_ns;
	uint32_t what; /* function, class, BP_FTEXT_HAS_* */
	uint16_t cpu, depth;
};

#define BP_FTEXT_BATCH 8192 /* packed calls that go to the other thread at once */

struct bp_ftext_frame {
	uint64_t enter_ns;
	uint32_t func; /* index, or BP_FTEXT_NONE */
	uint32_t depth;
	uint32_t cpu;
	bool live;    /* also on the builder's stack */
	bool clamped; /* time of the call is not as printed */
};

struct bp_ftext_task {
	char *key; /* "comm-pid" as printed */
	uint32_t key_len, comm_len;
	uint32_t hash;
	uint32_t id; /* the builder's; BP_FTEXT_NONE: it has not run yet */
	int64_t pid; /* -1: not known */
	uint64_t last_ns;
	uint32_t cpu;                  /* where it ran last */
	bool named;                    /* by its full name */
	struct bp_ftext_task *counter; /* where its calls are counted; NULL: here. See bp_ftext_task_of() */
	struct bp_ftext_frame *frames;
	uint32_t n, cap;
	uint32_t over;        /* opens that are not kept */
	uint32_t irq_base[3]; /* function tracer: stack below a softirq, hardirq, NMI */
	uint8_t level;
};

/*
 * What follows the indentation of a line that calls a function, with the end of the line; one for "name();"
 * and one for "name() {". Which one came after the last few lines when they were seen before is what is
 * looked for first: most of a trace is the same calls in the same order.
 */
#define BP_FTEXT_TAIL 60
#define BP_FTEXT_EXPECT_BITS 13

struct bp_ftext_tail {
	char text[BP_FTEXT_TAIL];
	uint16_t len; /* 0: longer than there is room for */
	bool plain;   /* the name reads the same wherever it is in a line */
};

/* A call or return that waits, see bp_ftext_release(). */
struct bp_ftext_held {
	uint64_t time_ns;
	uint32_t arg;  /* function index, or how many return */
	uint32_t kind; /* enum bp_ev_kind */
};

#define BP_FTEXT_HELD_MAX 1024

struct bp_ftext_cpu {
	uint64_t newest_ns;
	struct bp_ftext_task *running; /* what the builder knows */
	struct bp_ftext_task *block;   /* said by the last switch block */
	struct bp_ftext_task *unnamed; /* stands for the CPU */
	struct bp_ftext_task *idle;
	struct bp_ftext_task *last;   /* that an event named */
	struct bp_ftext_task *column; /* that the last call that was not packed has */
	uint64_t lost;                /* before anything ran */
	bool lost_pending;
	bool irq;  /* an interrupt begins: the next call */
	bool used; /* something was recorded */
	bool holding;
	uint64_t stamp_ns; /* of the last line that began a call; what is held has it */
	uint32_t hold_n;   /* frames of the task that began before are not held */
	struct bp_ftext_held *held;
	uint32_t n_held, cap_held;
};

/* The names that sched_switch gives; the columns cut them. */
struct bp_ftext_comm {
	int64_t pid;
	char comm[16];
	struct bp_ftext_task *task;
};

enum bp_ftext_mode { BP_FTEXT_MODE_NONE, BP_FTEXT_MODE_GRAPH, BP_FTEXT_MODE_EVENTS };

/* What the reader of lines knows of a CPU: what the task column of its last line means. */
struct bp_ftext_seen {
	uint64_t lines; /* that say they are of it */
	struct bp_ftext_task *task;
	uint64_t layout;            /* of the lines for which this is so; 0: it is not known */
	char text[40];              /* up to the bar */
	struct bp_ftext_task *told; /* what the other thread takes it to be */
};

/* What is written all the time stands apart by who writes it: two threads can be at work, see text_queue.c.
 */
struct bp_ftext {
	struct bp_import *im;
	struct bp_builder *b;
	struct bp_err *err; /* the first that stops the import */

	struct bp_ftext_func *funcs;
	uint32_t n_funcs, cap_funcs;
	struct bp_ftext_tail *tails; /* two for each function */
	struct bp_ftext_slot *slots; /* by name; a power of two */
	uint32_t n_slots;
	struct bp_ftext_piece *pieces; /* text of names */
	size_t piece_used;

	struct bp_ftext_task **tasks; /* by key; a power of two */
	uint32_t n_tasks, cap_tasks;
	struct bp_ftext_task **extra; /* those that stand for a CPU or are idle */
	uint32_t n_extra, cap_extra;
	uint64_t n_frames;

	struct bp_ftext_cpu **cpus; /* BP_BUILDER_CPUS */
	uint32_t n_cpus;
	struct bp_ftext_comm *comms; /* hash without collisions: the later one wins */

	/* The stack being read, for the waits. */
	bool in_stack, user_stack;
	uint32_t stack_tid;
	uint32_t stack_frames[BP_HOST_STACK_MAX];
	size_t n_stack_frames;
	bool waking_seen; /* sched_waking: sched_wakeup says the same again */

	bool clock_said;
	bool task_column; /* lines say their task: switch blocks add nothing */
	uint64_t noted_marks;

	/* The reader of lines. */
	enum bp_ftext_mode mode __attribute__((aligned(64)));
	struct bp_ftext_columns columns;
	uint64_t layout;                  /* how often they have changed */
	uint64_t time_text, time_seconds; /* the first bytes of the last line, up to the point */
	uint32_t time_len;                /* 1 to 8; 0: not known */
	uint64_t cpu_text,
	    cpu_mask; /* the first bytes of the last line, if they are its CPU and nothing else */
	uint32_t cpu_number;
	struct bp_ftext_counts counts;
	struct bp_ftext_seen *seen;    /* BP_BUILDER_CPUS */
	uint32_t *expect;              /* tails by what came before them */
	uint32_t before;               /* the last few lines as a number */
	uint32_t opened[64];           /* functions by their depth */
	struct bp_ftext_queue *queue;  /* NULL: there is no second thread (yet) */
	struct bp_ftext_packed *calls; /* to be given to it; NULL: taken one by one */
	size_t n_calls;
	uint64_t base_ns;      /* time of the last one that was not packed */
	uint64_t drains;       /* calls of bp_ftext_drain() */
	bool no_queue, failed; /* failed: there is an error */

	/* Who takes calls. */
	struct {
		uint64_t close_without_open, open_without_close, max_stack; /* until they are in counts */
		uint64_t base_ns;                                           /* as above, of what was taken */
	} stacks __attribute__((aligned(64)));
};

/** bp_ftext_init() - @im is borrowed until deinit */
struct bp_err *bp_ftext_init(struct bp_ftext *r, struct bp_import *im) BP_MUST_CHECK;
void bp_ftext_deinit(struct bp_ftext *r);

/** bp_ftext_run() - read it all; @r has the counts then */
struct bp_err *bp_ftext_run(struct bp_ftext *r) BP_MUST_CHECK;

/** bp_ftext_probe() - as bp_importer.probe */
int bp_ftext_probe(const uint8_t *head, size_t len);

/* ---- names ---- */

struct bp_ftext_slot {
	const char *key; /* of the function */
	uint32_t key_len;
	uint32_t hash;
	uint32_t func; /* index + 1; 0: free */
};

/** bp_ftext_hash() - sixteen bytes at a time; short ones by loads that overlap */
static inline uint32_t bp_ftext_hash(const char *s, size_t len)
{
	uint64_t h = len * 0x9e3779b97f4a7c15ull, a, b;

	while (len > 16) {
		memcpy(&a, s, 8);
		memcpy(&b, s + 8, 8);
		h = (h ^ a) * 0xff51afd7ed558ccdull;
		h = (h ^ h >> 32 ^ b) * 0xc4ceb9fe1a85ec53ull;
		s += 16;
		len -= 16;
	}
	if (len >= 8) {
		memcpy(&a, s, 8);
		memcpy(&b, s + len - 8, 8);
	} else if (len >= 4) {
		uint32_t x, y;

		memcpy(&x, s, 4);
		memcpy(&y, s + len - 4, 4);
		a = x;
		b = y;
	} else {
		a = len ? (uint64_t)(unsigned char)s[0] << 16 | (uint64_t)(unsigned char)s[len / 2] << 8 |
			      (unsigned char)s[len - 1]
			: 0;
		b = 0;
	}
	h = (h ^ a) * 0xff51afd7ed558ccdull;
	h = (h ^ h >> 32 ^ b) * 0xc4ceb9fe1a85ec53ull;
	return (uint32_t)(h ^ h >> 32);
}

/** bp_ftext_same() - as !memcmp(), without a call for what is short */
static inline bool bp_ftext_same(const char *a, const char *b, size_t len)
{
	uint64_t x, y;

	if (len < 8)
		return !memcmp(a, b, len);
	for (; len > 8; a += 8, b += 8, len -= 8) {
		memcpy(&x, a, 8);
		memcpy(&y, b, 8);
		if (x != y)
			return false;
	}
	memcpy(&x, a + len - 8, 8);
	memcpy(&y, b + len - 8, 8);
	return x == y;
}

/** bp_ftext_find() - index of a function, or BP_FTEXT_NONE and the slot where it belongs */
static inline uint32_t bp_ftext_find(const struct bp_ftext *r, uint32_t hash, const char *key, size_t len,
				     uint32_t *at)
{
	uint32_t mask = r->n_slots - 1, i = hash & mask;

	for (;; i = (i + 1) & mask) {
		const struct bp_ftext_slot *s = &r->slots[i];

		if (!s->func)
			break;
		if (s->hash == hash && s->key_len == len && bp_ftext_same(s->key, key, len))
			return s->func - 1;
	}
	*at = i;
	return BP_FTEXT_NONE;
}

/* ---- text_graph.c ---- */

/** bp_ftext_parse_graph() - what the line [@p, @e) says, without its end; false: not such a line */
bool bp_ftext_parse_graph(const char *p, const char *e, struct bp_ftext_line *l);

/** bp_ftext_plain() - whether a name is read as this, and as nothing else, in all lines that may have one */
bool bp_ftext_plain(const char *p, size_t len);

/** bp_ftext_graph() - take such a line, which begins at @line, into the recording */
void bp_ftext_graph(struct bp_ftext *r, const char *line, const struct bp_ftext_line *l);

/**
 * bp_ftext_graph_fast() - both at once for a line that is like the one before, and where the next one begins
 * @end: the byte before is the end of a line; behind it BP_SOURCE_BEHIND bytes can be read
 * Returns NULL when nothing was done.
 */
const char *bp_ftext_graph_fast(struct bp_ftext *r, const char *p, const char *end);

/** bp_ftext_take() - calls that were taken apart before; an error is noted */
void bp_ftext_take(struct bp_ftext *r, const struct bp_ftext_packed *p, size_t n);

/** bp_ftext_switch() - a switch block's line; false: it is none */
bool bp_ftext_switch(struct bp_ftext *r, const char *p, const char *e);

/* ---- text_queue.c ---- */

/** bp_ftext_queue_start() - calls are taken by a second thread from now on, if there can be one */
void bp_ftext_queue_start(struct bp_ftext *r);

/** bp_ftext_queue_pause() - and no more */
void bp_ftext_queue_pause(struct bp_ftext *r);

/** bp_ftext_hand_over() - the calls go to it, and there is room for BP_FTEXT_BATCH others */
void bp_ftext_hand_over(struct bp_ftext *r);

/** bp_ftext_drain() - it has nothing more to do: all of @r is the caller's until the next call is put */
void bp_ftext_drain(struct bp_ftext *r);

/** bp_ftext_queue_stop() - end it; after bp_ftext_queue_pause(), or what is on its way is lost */
void bp_ftext_queue_stop(struct bp_ftext *r);

/* ---- text_event.c ---- */

/** bp_ftext_event() - a record of events or of the function tracer; its class, BP_FTEXT_OTHER if it is none
 */
enum bp_ftext_class bp_ftext_event(struct bp_ftext *r, const char *p, const char *e);

/** bp_ftext_is_event() - the same question, but nothing is done */
bool bp_ftext_is_event(const char *p, const char *e);

/** bp_ftext_mark() - somebody's own text, as a MARK */
void bp_ftext_mark(struct bp_ftext *r, uint32_t cpu, uint64_t time_ns, const char *p, const char *e);

/* ---- text_wait.c ---- */

/* A record of events, as text_event.c took it apart. */
struct bp_ftext_record {
	const char *task; /* "comm-pid" */
	size_t task_len;
	int64_t tgid; /* -1: not printed */
	uint32_t cpu;
	const char *flags;
	size_t flags_len;
	uint64_t time_ns;
	const char *body, *end;
};

/**
 * bp_ftext_take_wait() - takes what a record says of threads that wait; also for others who print records so
 * @rec: body is "sched_switch: prev_comm=...", task "comm-pid"
 * @waking_seen: false at first
 */
struct bp_err *bp_ftext_take_wait(struct bp_sched *s, bool *waking_seen,
				  const struct bp_ftext_record *rec) BP_MUST_CHECK;

/** bp_ftext_wait() - takes what a record says of threads that wait */
void bp_ftext_wait(struct bp_ftext *r, const struct bp_ftext_record *rec);

/** bp_ftext_wait_lost() - @count records of @cpu are missing here; 0: it is not known how many */
void bp_ftext_wait_lost(struct bp_ftext *r, uint32_t cpu, uint64_t count);

/** bp_ftext_stack_begin() - a stack of the record's task follows; _frame() - a line of it, "f+0x1/0x2";
 * _end() - no more */
void bp_ftext_stack_begin(struct bp_ftext *r, const struct bp_ftext_record *rec, bool user);
void bp_ftext_stack_frame(struct bp_ftext *r, const char *p, const char *e);
void bp_ftext_stack_end(struct bp_ftext *r);

/* ---- text_state.c ---- */

/** bp_ftext_fail() - keeps the first error; NULL is fine */
static inline void bp_ftext_fail(struct bp_ftext *r, struct bp_err *err)
{
	if (__builtin_expect(!err, 1))
		return;
	if (r->err)
		bp_err_free(err);
	else
		r->err = err;
}

/** bp_ftext_intern() - index of the function of that name, BP_FTEXT_NONE when there is no room */
uint32_t bp_ftext_intern(struct bp_ftext *r, const char *key, size_t len);

/** bp_ftext_lookup() - the same, only if it is known */
uint32_t bp_ftext_lookup(const struct bp_ftext *r, const char *key, size_t len);

/** bp_ftext_cpu() - NULL (and nothing else) when there is no such CPU */
struct bp_ftext_cpu *bp_ftext_cpu(struct bp_ftext *r, uint32_t cpu);

/**
 * bp_ftext_task_of() - the task "comm-pid" on a CPU
 * The text calls the idle tasks of all CPUs the same, so each CPU has its own; their calls are counted
 * together.
 */
struct bp_ftext_task *bp_ftext_task_of(struct bp_ftext *r, uint32_t cpu, const char *key, size_t len);

/** bp_ftext_known_task() - the same without changing anything; NULL when it is not known yet */
struct bp_ftext_task *bp_ftext_known_task(const struct bp_ftext *r, uint32_t cpu, const char *key,
					  size_t len);

/** bp_ftext_comms() - take the names that the text of a sched_switch gives */
void bp_ftext_comms(struct bp_ftext *r, const char *p, const char *e, uint64_t time_ns);

/** bp_ftext_next_comm() - who a sched_switch says is next; NULL: it does not */
const char *bp_ftext_next_comm(const char *p, const char *e, const char **comm, size_t *len, int64_t *pid);

/**
 * bp_ftext_unnamed() - the task that stands for a CPU
 * @timed: its lines have time stamps, which tell when the task behind it moves to another CPU: its calls are
 * then counted by CPU, but recorded as they really were
 */
struct bp_ftext_task *bp_ftext_unnamed(struct bp_ftext *r, uint32_t cpu, bool timed);

/** bp_ftext_run_task() - the builder's CPU runs @t from now on */
void bp_ftext_run_task(struct bp_ftext *r, uint32_t cpu, struct bp_ftext_task *t, uint64_t time_ns);

/** bp_ftext_enter(), bp_ftext_leave() - to the builder, or held; at the CPU's newest time */
void bp_ftext_enter(struct bp_ftext *r, uint32_t cpu, uint32_t func, enum bp_ev_kind kind);
void bp_ftext_leave(struct bp_ftext *r, uint32_t cpu, uint32_t n);

/** bp_ftext_leaf() - both, with @duration_ns in between, which the CPU's time goes on by */
void bp_ftext_leaf(struct bp_ftext *r, uint32_t cpu, uint32_t func, enum bp_ev_kind kind,
		   uint64_t duration_ns);

/**
 * bp_ftext_release() - give what is held to the builder, @shift_ns later than it was taken to be
 * The records of an interrupt that comes while the tracer writes another have the time stamp of that other
 * one. When time stamps stand still although the durations say that time goes on, calls are held until they
 * move again: all of them were shortly before that.
 */
void bp_ftext_release(struct bp_ftext *r, uint32_t cpu, uint64_t shift_ns);

/** bp_ftext_push() - a frame on the stack; NULL: no room, then t->over was counted */
struct bp_ftext_frame *bp_ftext_push(struct bp_ftext *r, struct bp_ftext_task *t);

/** bp_ftext_lost() - the text says so */
void bp_ftext_lost(struct bp_ftext *r, uint32_t cpu, uint64_t count);

/** bp_ftext_unlive() - the builder's stack of the task is empty */
void bp_ftext_unlive(struct bp_ftext_task *t);

/** bp_ftext_number() - decimal digits at *@p; false: there are none, or too many */
static inline bool bp_ftext_number(const char **p, const char *e, uint64_t *ret)
{
	const char *q = *p;
	uint64_t v = 0;

	while (q < e && (unsigned char)(*q - '0') < 10) {
		if (q - *p >= 18)
			return false;
		v = v * 10 + (unsigned)(*q++ - '0');
	}
	if (q == *p)
		return false;
	*p = q;
	*ret = v;
	return true;
}

/** bp_ftext_fraction() - digits after the point at *@p, taken as @digits of them */
static inline uint64_t bp_ftext_fraction(const char **p, const char *e, unsigned digits)
{
	const char *q = *p;
	uint64_t v = 0;

	while (q < e && (unsigned char)(*q - '0') < 10) {
		if (digits) {
			v = v * 10 + (unsigned)(*q - '0');
			digits--;
		}
		q++;
	}
	while (digits--)
		v *= 10;
	*p = q;
	return v;
}

static inline const char *bp_ftext_spaces(const char *p, const char *e)
{
	while (p < e && *p == ' ')
		p++;
	return p;
}

/** bp_ftext_pid() - the number after the last '-' of "comm-pid"; false: there is none */
bool bp_ftext_pid(const char *p, const char *e, int64_t *pid, size_t *comm_len);

#endif
