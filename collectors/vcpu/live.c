// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/vcpu/live.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kbuffer.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <tracefs.h>
#include <unistd.h>

#include "collectors/ftrace/tep.h"
#include "collectors/vcpu/sched_bpf.h"
#include "core/cleanup.h"
#include "core/strbuf.h"

#define NS_PER_S UINT64_C(1000000000)
#define PREFIX "bootprof_"
#define NAME_MAX_BYTES 80

/*
 * An event is in the buffer before it can be read: between its time stamp and that only a nested interrupt,
 * or the host of this machine, can come. What is younger than this waits for the next round.
 */
#define SETTLE_NS (10 * UINT64_C(1000000))
/*
 * A uprobe costs QEMU about 1 us each time, and it takes its big lock 10^5 times a second: it is armed for
 * windows of this length, as often as the hits allow.
 */
#define WINDOW_NS (25 * UINT64_C(1000000))
#define HITS_PER_S 4000 /* on average over a window and the pause behind it */
#define PAUSE_MAX_NS (4 * NS_PER_S)
#define TAKE_NS UINT64_C(1000000) /* from asking for a lock to waiting for it, at most */
#define NOT_HERE SIZE_MAX
#define MUTEX_WAITED_FOR 2 /* what the word of a mutex is then (sysdeps/nptl/lowlevellock.h of glibc) */
#define BUFFER_BYTES ((size_t)8 << 20)
#define BUFFERS_BYTES ((size_t)512 << 20) /* all together */
#define BUFFER_LEAST ((size_t)1 << 20)
#define PAGE_MAX ((size_t)64 << 10) /* sub-buffers have 4 KiB, unless somebody changed that */
#define STACK_FRAMES 128
#define THREADS_MAX (1u << 16)
#define ADDRESSES_MAX (1u << 16)
#define SITES_MAX 4096

enum ev_kind {
	EV_NONE,
	EV_SWITCH,
	EV_WAKING,
	EV_FUTEX,
	EV_FUTEX_RET,
	EV_KVM_ENTRY,
	EV_KVM_EXIT,
	EV_KVM_USER,
	EV_LOCK,
	EV_STACK,
	EV_KINDS
};

static const struct {
	const char *system, *name;
	enum ev_kind kind;
	bool needed;
	const char *fields[6]; /* what is read of it */
} events[] = {
    {"sched",
     "sched_switch",
     EV_SWITCH,
     true,
     {"prev_comm", "prev_pid", "prev_state", "next_comm", "next_pid"}},
    {"sched", "sched_waking", EV_WAKING, true, {"comm", "pid"}},
    {"syscalls", "sys_enter_futex", EV_FUTEX, true, {"uaddr", "op", "val"}},
    {"syscalls", "sys_exit_futex", EV_FUTEX_RET, true, {"ret"}},
    {"kvm", "kvm_entry", EV_KVM_ENTRY, false, {0}},
    {"kvm", "kvm_exit", EV_KVM_EXIT, false, {"exit_reason"}},
    {"kvm", "kvm_userspace_exit", EV_KVM_USER, false, {"reason"}},
};

enum { F_PREV_COMM, F_PREV, F_STATE, F_NEXT_COMM, F_NEXT };
enum { F_ARG0, F_ARG1, F_ARG2 };

#define FIELDS_MAX 6

/* An event's fields, to be found without a search. */
struct decoder {
	enum ev_kind kind;
	struct bp_tep_field fields[FIELDS_MAX];
	bool have[FIELDS_MAX];
};

/* Open addressing, powers of two, at most half full: key 0 is free. */
struct table {
	uint64_t *keys;
	uint32_t *values;
	size_t slots, n;
};

/* A host CPU: its buffer, and records that are not yet in order with the others'. */
struct cpu {
	unsigned nr;
	int fd;
	struct kbuffer *kbuf;
	struct bp_wait *queue;
	size_t n, cap, at;
	uint64_t seen_ns; /* its last event */
	bool stack_due;   /* queue[n - 1] or the one before is the switch that a stack belongs to */
	size_t stack_at;
};

/* A time in which the probe was armed, in CLOCK_MONOTONIC; off_ns is UINT64_MAX until it ends. */
struct window {
	uint64_t on_ns, off_ns;
};

/* The thread that arms the probe and takes it away: each takes the kernel milliseconds. */
struct armer {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	bool running, stop;
	int fd; /* the event's "enable" */
	const char *name;
	struct window *windows; /* those not yet passed, in order */
	size_t n, cap;
};

struct bp_live {
	char name[NAME_MAX_BYTES], event[NAME_MAX_BYTES + 8]; /* of the instance, and of the probe */
	struct tracefs_instance *instance;
	struct bp_live_options opts;
	bool made, probe_made;
	size_t page_bytes, page_filled;
	void *page;
	struct bp_tep tep;
	char **texts; /* descriptions, which `tep` points into */
	size_t n_texts;
	struct decoder *by_id[65536];
	struct decoder decoders[EV_KINDS];
	struct tep_handle *kallsyms;
	struct bp_sched_bpf *bpf; /* NULL: the scheduler and all futex calls are traced instead */
	struct cpu
	    *cpus; /* and behind the last one a queue for samples, and one for `bpf` of each CPU number */
	size_t n_cpus, n_queues;

	pid_t pid;
	uint64_t start_ns;
	struct bp_trace_writer *writer;
	struct bp_wait_log *log;
	struct bp_live_thread *threads;
	size_t n_threads, cap_threads;
	struct table by_tid;
	bool other_ids;          /* it has a PID namespace of its own, */
	struct table by_own_tid; /* where its threads have these numbers */
	uint64_t *addresses;
	size_t n_addresses, cap_addresses;
	struct table by_address, frames, stacks, sites;
	struct table bpf_stacks; /* numbers of sched_bpf.h, plus 1 */
	uint32_t futex_stack;    /* of a sleep in futex(2), 0: none yet */
	uint64_t last_ns;        /* of the newest record written */
	struct armer armer;
	struct bp_wait *batch;               /* in order, being worked on */
	bool *takes;                         /* of each in it: the big lock is the thread's from there on */
	size_t n_batch, cap_batch, n_looked; /* at the first of it find_takes() has looked */
	struct window window;                /* that the records are in; on_ns 0: in none */
	struct bp_live_stats stats;
};

/* ---- tables ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	return x ^ x >> 32;
}

static size_t slot_of(const struct table *t, uint64_t key)
{
	size_t i = mix(key) & (t->slots - 1);

	while (t->keys[i] && t->keys[i] != key)
		i = (i + 1) & (t->slots - 1);
	return i;
}

/* The value of @key, which is not 0; NULL if it has none. */
static uint32_t *table_find(const struct table *t, uint64_t key)
{
	size_t i;

	if (!t->n)
		return NULL;
	i = slot_of(t, key);
	return t->keys[i] ? &t->values[i] : NULL;
}

static BP_MUST_CHECK struct bp_err *table_add(struct table *t, uint64_t key, uint32_t value)
{
	size_t i;

	if (2 * (t->n + 1) > t->slots) {
		struct table more = {.slots = t->slots ? 2 * t->slots : 1024};

		more.keys = calloc(more.slots, sizeof(*more.keys));
		more.values = calloc(more.slots, sizeof(*more.values));
		if (!more.keys || !more.values) {
			free(more.keys);
			free(more.values);
			return bp_err_nomem();
		}
		for (size_t k = 0; k < t->slots; k++) {
			if (!t->keys[k])
				continue;
			i = slot_of(&more, t->keys[k]);
			more.keys[i] = t->keys[k];
			more.values[i] = t->values[k];
		}
		more.n = t->n;
		free(t->keys);
		free(t->values);
		*t = more;
	}
	i = slot_of(t, key);
	t->n += !t->keys[i];
	t->keys[i] = key;
	t->values[i] = value;
	return NULL;
}

static void table_deinit(struct table *t)
{
	free(t->keys);
	free(t->values);
}

/* ---- names of instances, and what dead processes left ---- */

/* Start time of a process in clock ticks since boot: with its number, that tells it from all others. */
static bool start_time(pid_t pid, unsigned long long *ret)
{
	char path[64], buf[1024];
	const char *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	/* The name in brackets may hold anything; the 22nd field is the 20th after it. */
	p = strrchr(buf, ')');
	for (int i = 0; p && i < 20; i++)
		p = strchr(p + 1, ' ');
	return p && sscanf(p, " %llu", ret) == 1;
}

/* Inode of the namespace that the system starts in: PROC_PID_INIT_INO of the kernel's linux/proc_ns.h. */
#define INITIAL_PID_NAMESPACE 0xeffffffcull

/* Process numbers mean nothing in another name space. @pid: 0 is this process */
static unsigned long long pid_namespace(pid_t pid)
{
	struct stat st;
	char path[64] = "/proc/self/ns/pid";

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)pid);
	return stat(path, &st) ? 0 : (unsigned long long)st.st_ino;
}

/* Whether something of that name is ours to remove: its process is gone. */
static bool is_stale(const char *name)
{
	unsigned long long start, ns, now;
	int pid, end = 0;

	if (sscanf(name, PREFIX "%d_%llu_%llu%n", &pid, &start, &ns, &end) != 3 || name[end] ||
	    ns != pid_namespace(0))
		return false;
	return !start_time(pid, &now) || now != start;
}

/* Errors of libtracefs come as errno; nobody wants its own lines. */
static struct bp_err *no_tracefs(int errnum, const char *what)
{
	if (errnum == EACCES || errnum == EPERM)
		return bp_err_new(
		    BP_EUNSUPPORTED,
		    "--waits: no permission for tracefs (%s); run bootprof as root, for example with "
		    "sudo, or have root give you access: mount -o remount,mode=770,gid=$(id -g) "
		    "/sys/kernel/tracing",
		    what);
	return bp_err_new(BP_EUNSUPPORTED, "--waits: tracefs: %s: %s", what, strerror(errnum));
}

static int remove_instance(const char *name)
{
	struct tracefs_instance *in;
	int rc;

	if (!tracefs_instance_exists(name))
		return 0;
	in = tracefs_instance_create(name);
	if (!in)
		return -1;
	tracefs_trace_off(in);
	tracefs_event_disable(in, NULL, NULL);
	rc = tracefs_instance_destroy(in);
	tracefs_instance_free(in);
	return rc;
}

/* "p:GROUP/lock FILE:0x..." lines of uprobe_events whose group is ours or stale. */
static void remove_probes(bool (*unwanted)(const char *group, const char *own), const char *own)
{
	bp_autofree char *text = tracefs_instance_file_read(NULL, "uprobe_events", NULL);

	for (char *line = text, *next; line && *line; line = next) {
		char group[NAME_MAX_BYTES], event[NAME_MAX_BYTES], command[2 * NAME_MAX_BYTES + 8];

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (sscanf(line, "%*c:%79[^/]/%79s", group, event) != 2 || !unwanted(group, own))
			continue;
		snprintf(command, sizeof(command), "-:%s/%s", group, event);
		tracefs_instance_file_append(NULL, "uprobe_events", command);
	}
}

static bool group_is(const char *group, const char *own)
{
	return !strcmp(group, own);
}

static bool group_is_stale(const char *group, const char *own)
{
	(void)own;
	return is_stale(group);
}

static void remove_stale(void)
{
	char **list = tracefs_instances(NULL);

	for (size_t i = 0; list && list[i]; i++) {
		if (is_stale(list[i]))
			remove_instance(list[i]);
	}
	tracefs_list_free(list);
	remove_probes(group_is_stale, NULL);
}

/* ---- setting up ---- */

/* The format of an event; @fields of it are looked up. */
static BP_MUST_CHECK struct bp_err *add_decoder(struct bp_live *l, const char *system, const char *name,
						enum ev_kind kind, const char *const fields[FIELDS_MAX],
						bool *ret)
{
	struct decoder *d = &l->decoders[kind];
	const struct bp_tep_event *ev;
	bp_autofree char *text = NULL;
	struct bp_err *err;
	char **more;
	int len = 0;

	*ret = false;
	text = tracefs_event_file_read(NULL, system, name, "format", &len);
	if (!text || len <= 0)
		return NULL;
	more = realloc(l->texts, (l->n_texts + 1) * sizeof(*more));
	if (!more)
		return bp_err_nomem();
	l->texts = more;
	err = bp_tep_add(&l->tep, system, strlen(system), text, (size_t)len, ret);
	if (err || !*ret)
		return err;
	l->texts[l->n_texts++] = bp_steal(text);
	ev = &l->tep.events[l->tep.n_events - 1];
	d->kind = kind;
	for (size_t i = 0; i < FIELDS_MAX && fields[i]; i++) {
		const struct bp_tep_field *f = bp_tep_find(&l->tep, ev, fields[i]);

		if (!f)
			return bp_err_new(BP_EUNSUPPORTED, "--waits: the kernel's event %s has no field %s",
					  name, fields[i]);
		d->fields[i] = *f;
		d->have[i] = true;
	}
	l->by_id[ev->id] = d;
	return NULL;
}

/* @needed: those of the scheduler and of futex(2), else those of KVM, which not every kernel has */
static BP_MUST_CHECK struct bp_err *enable(struct bp_live *l, bool needed)
{
	for (size_t i = 0; i < BP_ARRAY_SIZE(events); i++) {
		struct bp_err *err;
		bool there;

		if (events[i].needed != needed)
			continue;
		err = add_decoder(l, events[i].system, events[i].name, events[i].kind, events[i].fields,
				  &there);
		if (err && (needed || bp_err_code(err) == BP_ENOMEM))
			return err;
		bp_err_ignore(err);
		if (!there && needed)
			return bp_err_new(BP_EUNSUPPORTED, "--waits: this kernel has no event %s:%s",
					  events[i].system, events[i].name);
		if (there && tracefs_event_enable(l->instance, events[i].system, events[i].name) < 0 &&
		    needed)
			return no_tracefs(errno, events[i].name);
	}
	return NULL;
}

static BP_MUST_CHECK struct bp_err *set_events(struct bp_live *l)
{
	static const char *const stack_fields[FIELDS_MAX] = {"size", "caller"};
	struct bp_err *err = l->opts.kvm ? enable(l, false) : NULL;
	bool there;

	if (err || l->bpf)
		return err;
	err = enable(l, true);
	if (err)
		return err;
	err = add_decoder(l, "ftrace", "kernel_stack", EV_STACK, stack_fields, &there);
	if (!err && (!there || tracefs_event_file_write(
				   l->instance, "sched", "sched_switch", "trigger",
				   l->opts.kvm ? "stacktrace if prev_pid != 0"
					       : "stacktrace if prev_pid != 0 && prev_state & 0xff") < 0))
		err = bp_err_new(BP_EUNSUPPORTED, "--waits: this kernel has no stack traces of events");
	return err;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* How often the probe was hit, by anybody who runs that binary. */
static uint64_t probe_hits(const char *group)
{
	bp_autofree char *text = tracefs_instance_file_read(NULL, "uprobe_profile", NULL);
	unsigned long long hits = 0;
	char event[NAME_MAX_BYTES + 8], *at;

	/* "  FILE EVENT HITS": the event has no group, and may be anybody's; the file is ours alone. */
	snprintf(event, sizeof(event), "lock_%.70s ", group + strlen(PREFIX));
	at = text ? strstr(text, event) : NULL;
	if (at)
		sscanf(at + strlen(event), "%llu", &hits);
	return hits;
}

/* Returns when @until_ns has come, or it is time to end; the mutex is held. */
static void sleep_until(struct armer *a, uint64_t until_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(until_ns / NS_PER_S),
			      .tv_nsec = (long)(until_ns % NS_PER_S)};

	while (!a->stop && now_ns() < until_ns)
		pthread_cond_timedwait(&a->wake, &a->mutex, &ts);
}

static bool window_open(struct armer *a)
{
	if (a->n == a->cap) {
		size_t cap = a->cap ? 2 * a->cap : 16;
		struct window *more = realloc(a->windows, cap * sizeof(*more));

		if (!more)
			return false;
		a->windows = more;
		a->cap = cap;
	}
	a->windows[a->n++] = (struct window){now_ns(), UINT64_MAX};
	return true;
}

static void *arm(void *self)
{
	struct armer *a = self;

	pthread_mutex_lock(&a->mutex);
	while (!a->stop) {
		uint64_t hits = probe_hits(a->name), from, pause_ns;
		bool armed;

		pthread_mutex_unlock(&a->mutex);
		armed = write(a->fd, "1", 1) == 1;
		pthread_mutex_lock(&a->mutex);
		if (!armed || !window_open(a))
			break;
		from = now_ns();
		/* As long as it is cheap, it stays. */
		for (;;) {
			sleep_until(a, now_ns() + WINDOW_NS);
			hits = probe_hits(a->name) - hits;
			if (a->stop || hits * NS_PER_S > HITS_PER_S * (now_ns() - from))
				break;
			hits = probe_hits(a->name);
			from = now_ns();
		}
		a->windows[a->n - 1].off_ns = now_ns();
		pthread_mutex_unlock(&a->mutex);
		if (write(a->fd, "0", 1) != 1)
			a->stop = true;
		pthread_mutex_lock(&a->mutex);
		pause_ns = hits * NS_PER_S / HITS_PER_S;
		sleep_until(a, now_ns() + (pause_ns < PAUSE_MAX_NS ? pause_ns : PAUSE_MAX_NS));
	}
	pthread_mutex_unlock(&a->mutex);
	return NULL;
}

/* Always, or now and then; false with errno. */
static bool start_arming(struct bp_live *l)
{
	struct armer *a = &l->armer;
	char file[2 * NAME_MAX_BYTES + 40];
	pthread_condattr_t attr;

	snprintf(file, sizeof(file), "events/%s/%s/enable", l->name, l->event);
	a->fd = tracefs_instance_file_open(l->instance, file, O_WRONLY | O_CLOEXEC);
	if (a->fd < 0)
		return false;
	if (l->opts.probe_always)
		return write(a->fd, "1", 1) == 1 && window_open(a);
	a->name = l->name;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&a->mutex, NULL);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
	errno = pthread_create(&a->thread, NULL, arm, a);
	a->running = !errno;
	return a->running;
}

static void stop_arming(struct bp_live *l)
{
	struct armer *a = &l->armer;

	if (a->running) {
		pthread_mutex_lock(&a->mutex);
		a->stop = true;
		pthread_cond_signal(&a->wake);
		pthread_mutex_unlock(&a->mutex);
		pthread_join(a->thread, NULL);
		a->running = false;
	}
	if (a->fd >= 0 && l->opts.probe_always && write(a->fd, "0", 1) != 1)
		l->stats.probes = false;
	bp_closep(&a->fd);
	a->fd = -1;
}

void bp_live_probe(struct bp_live *l, const struct bp_live_options *o)
{
	static const char *const fields[2][FIELDS_MAX] = {{"file", "line"}, {"file", "line", "mutex"}};
	struct bp_strbuf sb bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	bool there = false, kvm = l->opts.kvm;
	struct bp_err *err;

	l->opts = *o;
	l->opts.kvm = kvm;
	if (!o->probe_file || l->probe_made)
		return;
	/* In uprobe_profile events have no group. */
	snprintf(l->event, sizeof(l->event), "lock_%.70s", l->name + strlen(PREFIX));
	bp_strbuf_addf(&sb, "p:%s/%s %s:0x%llx ", l->name, l->event, o->probe_file,
		       (unsigned long long)o->probe_offset);
	/* %si and so on, as the kernel names the registers. */
	if (o->probe_any_mutex)
		bp_strbuf_adds(&sb, "mutex=%di:u64 file=%si:u64 line=%dx:s32");
	else
		bp_strbuf_adds(&sb, "file=%di:u64 line=%si:s32");
	if (tracefs_instance_file_append(NULL, "uprobe_events", bp_strbuf_str(&sb)) < 0) {
		snprintf(l->stats.no_probes, sizeof(l->stats.no_probes), "uprobe on %s: %s", o->probe_file,
			 strerror(errno));
		return;
	}
	l->probe_made = true;
	err = add_decoder(l, l->name, l->event, EV_LOCK, fields[o->probe_any_mutex], &there);
	if (!err && there && start_arming(l))
		l->stats.probes = true;
	else
		snprintf(l->stats.no_probes, sizeof(l->stats.no_probes), "%s",
			 err ? bp_err_text(err) : "the kernel does not take a uprobe");
	bp_err_ignore(err);
}

static BP_MUST_CHECK struct bp_err *open_cpus(struct bp_live *l)
{
	long n = sysconf(_SC_NPROCESSORS_CONF);

	l->cpus = calloc(2 * (size_t)(n > 0 ? n : 0) + 1, sizeof(*l->cpus));
	if (!l->cpus)
		return bp_err_nomem();
	for (long i = 0; i < n; i++) {
		struct cpu *c = &l->cpus[l->n_cpus];
		char file[64];

		snprintf(file, sizeof(file), "per_cpu/cpu%ld/trace_pipe_raw", i);
		c->fd = tracefs_instance_file_open(l->instance, file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		/* A CPU that is not there has no buffer. */
		if (c->fd < 0 && errno != ENOENT && errno != ENODEV)
			return no_tracefs(errno, file);
		if (c->fd < 0)
			continue;
		l->n_cpus++;
		c->nr = (unsigned)i;
		c->kbuf = kbuffer_alloc(KBUFFER_LSIZE_8, KBUFFER_ENDIAN_LITTLE);
		if (!c->kbuf)
			return bp_err_nomem();
	}
	l->n_queues = l->n_cpus + 1 + (size_t)(n > 0 ? n : 0);
	for (size_t i = l->n_cpus; i < l->n_queues; i++)
		l->cpus[i] = (struct cpu){.fd = -1};
	return l->n_cpus ? NULL : bp_err_new(BP_EUNSUPPORTED, "--waits: tracefs has no buffers");
}

/* All function addresses of the kernel. Without the right to see them, frames have no names. */
static void read_kallsyms(struct bp_live *l)
{
	struct bp_strbuf sb bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	int fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
	static const char hidden[] = "0000000000000000 ";
	const char *middle;
	char buf[65536];
	ssize_t n;

	if (fd < 0)
		return;
	while ((n = read(fd, buf, sizeof(buf))) > 0 && !sb.failed)
		bp_strbuf_add(&sb, buf, (size_t)n);
	close(fd);
	/* Hidden addresses are 0, all of them: a line in the middle tells. */
	middle = sb.data ? strchr(sb.data + sb.len / 2, '\n') : NULL;
	if (sb.failed || !middle || !strncmp(middle + 1, hidden, strlen(hidden)))
		return;
	l->kallsyms = tep_alloc();
	if (l->kallsyms && !tep_parse_kallsyms(l->kallsyms, bp_strbuf_str(&sb)))
		l->stats.kernel_names = true;
}

static void bp_live_destroyp(struct bp_live **l)
{
	bp_live_destroy(*l);
}

struct bp_err *bp_live_create(const struct bp_live_options *opts, struct bp_live **ret)
{
	bp_cleanup(bp_live_destroyp) struct bp_live *l = calloc(1, sizeof(*l));
	unsigned long long start = 0;
	size_t bytes = opts->buffer_bytes;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct bp_err *err = NULL;

	if (!l)
		return bp_err_nomem();
	l->armer.fd = -1;
	l->page_bytes = PAGE_MAX;
	l->page = calloc(1, PAGE_MAX);
	if (!l->page)
		return bp_err_nomem();
	err = bp_tep_init(&l->tep);
	if (err)
		return err;
	tracefs_set_loglevel(TEP_LOG_NONE);
	if (!tracefs_tracing_dir())
		return bp_err_new(BP_EUNSUPPORTED,
				  "--waits: tracefs is not mounted; as root: mount -t tracefs nodev "
				  "/sys/kernel/tracing");
	l->opts = *opts;
	remove_stale();
	start_time(getpid(), &start);
	snprintf(l->name, sizeof(l->name), PREFIX "%d_%llu_%llu", (int)getpid(), start, pid_namespace(0));
	errno = 0;
	l->instance = tracefs_instance_create(l->name);
	if (!l->instance)
		return no_tracefs(errno ? errno : EACCES, tracefs_tracing_dir());
	l->made = true;
	if (pid_namespace(0) != INITIAL_PID_NAMESPACE)
		return bp_err_new(
		    BP_EUNSUPPORTED,
		    "--waits: this is a PID namespace of its own, and the kernel's trace has the "
		    "thread ids of the first one; record outside of the container");
	tracefs_trace_off(l->instance);
	if (!bytes) {
		bytes = BUFFERS_BYTES / (size_t)(cpus > 0 ? cpus : 1);
		bytes = bytes > BUFFER_BYTES ? BUFFER_BYTES : bytes < BUFFER_LEAST ? BUFFER_LEAST : bytes;
	}
	if (tracefs_instance_set_buffer_size(l->instance, bytes >> 10, -1) < 0)
		return no_tracefs(errno, "buffer_size_kb");
	if (tracefs_instance_file_write(l->instance, "trace_clock", "mono") < 0)
		return no_tracefs(errno, "trace_clock");
	tracefs_option_enable(l->instance, TRACEFS_OPTION_EVENT_FORK);
	if (opts->futex != BP_FUTEX_ALL)
		err = bp_sched_bpf_create(bytes * (size_t)(cpus > 0 ? cpus : 1), &l->bpf);
	if (err && (bp_err_code(err) != BP_EUNSUPPORTED || opts->futex == BP_FUTEX_SLEEPING))
		return bp_err_wrap(err, "--futex=sleeping");
	if (err)
		snprintf(l->stats.no_bpf, sizeof(l->stats.no_bpf), "%s", bp_err_text(err));
	bp_err_ignore(err);
	err = set_events(l);
	if (!err)
		err = open_cpus(l);
	if (err)
		return err;
	read_kallsyms(l);
	bp_live_probe(l, opts);
	*ret = bp_steal(l);
	return NULL;
}

void bp_live_stop(struct bp_live *l)
{
	if (l->bpf)
		bp_sched_bpf_stop(l->bpf);
	stop_arming(l);
	tracefs_trace_off(l->instance);
}

void bp_live_destroy(struct bp_live *l)
{
	if (!l)
		return;
	stop_arming(l);
	for (size_t i = 0; l->cpus && i < l->n_queues; i++) {
		bp_closep(&l->cpus[i].fd);
		kbuffer_free(l->cpus[i].kbuf);
		free(l->cpus[i].queue);
	}
	if (l->instance) {
		tracefs_trace_off(l->instance);
		if (l->made)
			tracefs_instance_destroy(l->instance);
		tracefs_instance_free(l->instance);
	}
	if (l->probe_made)
		remove_probes(group_is, l->name);
	bp_sched_bpf_destroy(l->bpf);
	tep_free(l->kallsyms);
	bp_tep_deinit(&l->tep);
	for (size_t i = 0; i < l->n_texts; i++)
		free(l->texts[i]);
	free(l->texts);
	table_deinit(&l->by_tid);
	table_deinit(&l->by_own_tid);
	table_deinit(&l->by_address);
	table_deinit(&l->frames);
	table_deinit(&l->stacks);
	table_deinit(&l->sites);
	table_deinit(&l->bpf_stacks);
	free(l->addresses);
	free(l->threads);
	free(l->batch);
	free(l->takes);
	free(l->armer.windows);
	free(l->cpus);
	free(l->page);
	free(l);
}

/* Adds the process's threads to those traced, all in one write: each waits for the kernel. Returns how many
 * there are. */
static size_t add_threads(struct bp_live *l)
{
	struct bp_strbuf sb bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	struct dirent *e;
	char path[64];
	size_t n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)l->pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		bp_strbuf_addf(&sb, "%s ", e->d_name);
		n++;
	}
	if (d)
		closedir(d);
	/* That has a price at every switch, and BPF does without. */
	if (n && (!l->bpf || l->opts.kvm))
		tracefs_instance_file_append(l->instance, "set_event_pid", bp_strbuf_str(&sb));
	return n;
}

/* Threads that are started meanwhile follow their parents (event-fork), once those are in. */
static size_t add_all_threads(struct bp_live *l)
{
	size_t before = add_threads(l), n;

	for (int i = 0; i < 100 && (n = add_threads(l)) != before; i++)
		before = n;
	return before;
}

struct bp_err *bp_live_kvm(struct bp_live *l)
{
	if (l->opts.kvm)
		return NULL;
	l->opts.kvm = true;
	add_all_threads(l);
	/* Stacks of who could go on would need another trigger, and there are none for 0.1 s while one goes.
	 */
	return enable(l, false);
}

static BP_MUST_CHECK struct bp_err *thread_of(struct bp_live *l, uint32_t tid, size_t *ret);

struct bp_err *bp_live_attach(struct bp_live *l, pid_t pid, struct bp_trace_writer *w,
			      struct bp_wait_log *log)
{
	char path[64];
	struct dirent *e;
	struct bp_err *err = NULL;
	DIR *d;

	l->pid = pid;
	l->other_ids = pid_namespace(pid) != pid_namespace(0);
	l->writer = w;
	l->log = log;
	if (!add_all_threads(l))
		return bp_err_os(ESRCH, "process %d", (int)pid);
	if (l->bpf)
		err = bp_sched_bpf_attach(l->bpf, pid);
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && !err && (e = readdir(d))) {
		size_t t;

		if (e->d_name[0] >= '0' && e->d_name[0] <= '9')
			err = thread_of(l, (uint32_t)strtoul(e->d_name, NULL, 10), &t);
	}
	if (d)
		closedir(d);
	return err;
}

struct bp_err *bp_live_start(struct bp_live *l, uint64_t start_ns)
{
	l->start_ns = start_ns;
	return tracefs_trace_on(l->instance) < 0 ? no_tracefs(errno, "tracing_on") : NULL;
}

/* ---- threads ---- */

const char *bp_live_role(const struct bp_live *l, const struct bp_live_thread *t, uint16_t *vcpu)
{
	const char *role;

	*vcpu = UINT16_MAX;
	if (!t->ours)
		return "";
	if (t->tid == (uint32_t)l->pid)
		return "main loop";
	role = bp_thread_role(t->comm, vcpu);
	return strcmp(role, "main loop") ? role : "other";
}

static BP_MUST_CHECK struct bp_err *announce(struct bp_live *l, const struct bp_live_thread *t)
{
	struct bp_fact f = {
	    .kind = BP_FACT_THREAD,
	    .vcpu = UINT16_MAX,
	    .time_ns = l->last_ns,
	    .v = {t->tid, t->ours ? (uint64_t)l->pid : 0, t->ours},
	    .s1 = t->comm,
	};

	f.s2 = bp_live_role(l, t, &f.vcpu);
	return bp_trace_writer_fact(l->writer, &f);
}

static bool task_path(const struct bp_live *l, uint32_t tid, const char *file, char *path, size_t cap)
{
	return (size_t)snprintf(path, cap, "/proc/%d/task/%u%s", (int)l->pid, tid, file) < cap;
}

/* Number of a thread in the innermost PID namespace that it is in; 0: it is gone. */
static uint32_t own_tid(const struct bp_live *l, uint32_t tid)
{
	char path[64], line[512];
	uint32_t own = 0;
	FILE *f;

	task_path(l, tid, "/status", path, sizeof(path));
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *last = !strncmp(line, "NSpid:", 6) ? strrchr(line, '\t') : NULL;

		if (last)
			own = (uint32_t)strtoul(last, NULL, 10);
	}
	if (f)
		fclose(f);
	return own;
}

/* Where mutexes and QMP have other numbers of one of ours, that is noted. */
static BP_MUST_CHECK struct bp_err *note_own_tid(struct bp_live *l, size_t at)
{
	struct bp_live_thread *t = &l->threads[at];

	if (!l->other_ids)
		return NULL;
	t->own_tid = own_tid(l, t->tid);
	return t->own_tid ? table_add(&l->by_own_tid, (uint64_t)t->own_tid + 1, (uint32_t)at) : NULL;
}

/* Index of a thread; a new one is announced when its name is known. */
static struct bp_err *thread_of(struct bp_live *l, uint32_t tid, size_t *ret)
{
	uint32_t *known = table_find(&l->by_tid, (uint64_t)tid + 1);
	struct bp_live_thread *t;
	struct bp_err *err;
	char path[64];
	int fd;

	if (known) {
		*ret = *known;
		return NULL;
	}
	if (l->n_threads == l->cap_threads) {
		size_t cap = l->cap_threads ? 2 * l->cap_threads : 64;
		struct bp_live_thread *more = realloc(l->threads, cap * sizeof(*more));

		if (!more)
			return bp_err_nomem();
		l->threads = more;
		l->cap_threads = cap;
	}
	err = table_add(&l->by_tid, (uint64_t)tid + 1, (uint32_t)l->n_threads);
	if (err)
		return err;
	*ret = l->n_threads++;
	t = &l->threads[*ret];
	*t = (struct bp_live_thread){.tid = tid, .own_tid = l->other_ids ? 0 : tid, .asked = NOT_HERE};
	task_path(l, tid, "/comm", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = read(fd, t->comm, sizeof(t->comm) - 1);

		t->ours = true;
		t->comm[n > 0 ? n : 0] = '\0';
		t->comm[strcspn(t->comm, "\n")] = '\0';
		close(fd);
	}
	if (t->ours)
		err = note_own_tid(l, *ret);
	return !err && t->comm[0] ? announce(l, t) : err;
}

/* Buffers of CPUs are read one after the other: an older name may come later. */
static BP_MUST_CHECK struct bp_err *set_comm(struct bp_live *l, uint32_t tid, const uint8_t *comm,
					     uint64_t ts, size_t *ret)
{
	struct bp_live_thread *t;
	struct bp_err *err = thread_of(l, tid, ret);
	size_t n;

	if (err)
		return err;
	t = &l->threads[*ret];
	if (ts < t->comm_ts)
		return NULL;
	t->comm_ts = ts;
	n = strnlen((const char *)comm, sizeof(t->comm) - 1);
	if (!n || (!memcmp(t->comm, comm, n) && !t->comm[n]))
		return NULL;
	memcpy(t->comm, comm, n);
	t->comm[n] = '\0';
	return announce(l, t);
}

static BP_MUST_CHECK struct bp_err *is_ours(struct bp_live *l, size_t t)
{
	struct bp_err *err;

	if (l->threads[t].ours)
		return NULL;
	l->threads[t].ours = true;
	err = note_own_tid(l, t);
	return err ? err : announce(l, &l->threads[t]);
}

/* ---- stacks ---- */

static BP_MUST_CHECK struct bp_err *frame_of(struct bp_live *l, uint64_t addr, uint32_t *ret)
{
	uint32_t *known = table_find(&l->frames, addr + 1);
	const char *name = NULL;
	uint64_t start = 0;
	struct bp_err *err;

	if (known) {
		*ret = *known;
		return NULL;
	}
	if (l->kallsyms)
		name = tep_find_function(l->kallsyms, addr);
	if (name)
		start = tep_find_function_address(l->kallsyms, addr);
	err = bp_wait_log_frame(l->log, BP_HOST_KERNEL, addr, name ? name : "", name ? addr - start : 0, "",
				ret);
	return err ? err : table_add(&l->frames, addr + 1, *ret);
}

/* Stacks are told apart by a hash of 64 bits: of a million stacks, two in 30 million recordings are the same.
 */
static BP_MUST_CHECK struct bp_err *stack_of(struct bp_live *l, const uint8_t *callers, size_t n,
					     uint32_t *ret)
{
	uint32_t ids[STACK_FRAMES];
	uint64_t hash = n;
	uint32_t *known;
	struct bp_err *err = NULL;

	for (size_t i = 0; i < n; i++)
		hash = mix(hash ^ bp_tep_number(callers + 8 * i, 8, false, false)) + i;
	hash |= !hash;
	known = table_find(&l->stacks, hash);
	if (known) {
		*ret = *known;
		return NULL;
	}
	for (size_t i = 0; i < n && !err; i++)
		err = frame_of(l, bp_tep_number(callers + 8 * i, 8, false, false), &ids[i]);
	if (!err)
		err = bp_wait_log_stack(l->log, ids, n, ret);
	return err ? err : table_add(&l->stacks, hash, *ret);
}

/* "../../accel/tcg/cputlb.c", 1371: the frame of a call site, as "accel/tcg/cputlb.c:1371". */
static BP_MUST_CHECK struct bp_err *site_of(struct bp_live *l, uint64_t file, uint32_t line, size_t thread,
					    uint32_t *frame)
{
	uint64_t key = mix(mix(file) + line);
	char path[256], text[320];
	const char *shown = path;
	struct bp_err *err;
	uint32_t *known;

	key |= !key;
	known = table_find(&l->sites, key);
	if (known) {
		*frame = *known >> 1;
		l->threads[thread].guest_lock |= *known & 1;
		return NULL;
	}
	if (!l->opts.text || !l->opts.text(l->opts.text_self, file, path, sizeof(path)))
		snprintf(path, sizeof(path), "0x%llx", (unsigned long long)file);
	while (!strncmp(shown, "../", 3))
		shown += 3;
	snprintf(text, sizeof(text), "%s:%u", shown, line);
	err = bp_wait_log_frame(l->log, BP_HOST_SITE, 0, text, 0, "", frame);
	if (err || l->sites.n >= SITES_MAX)
		return err;
	/* Accelerators run in the threads of vCPUs. */
	l->threads[thread].guest_lock |= !strncmp(shown, "accel/", 6);
	return table_add(&l->sites, key, *frame << 1 | !strncmp(shown, "accel/", 6));
}

/* ---- from the buffer to records ---- */

static BP_MUST_CHECK struct bp_err *push(struct cpu *c, const struct bp_wait *rec)
{
	if (c->n == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 4096;
		struct bp_wait *more = realloc(c->queue, cap * sizeof(*more));

		if (!more)
			return bp_err_nomem();
		c->queue = more;
		c->cap = cap;
	}
	c->queue[c->n++] = *rec;
	return NULL;
}

/* The same of one that may be older than those that are queued. */
static BP_MUST_CHECK struct bp_err *push_in_order(struct cpu *c, const struct bp_wait *rec)
{
	struct bp_err *err = push(c, rec);

	for (size_t i = c->n - 1; !err && i > c->at && c->queue[i - 1].time_ns > rec->time_ns; i--) {
		c->queue[i] = c->queue[i - 1];
		c->queue[i - 1] = *rec;
	}
	return err;
}

static uint64_t field(const struct bp_live *l, const struct decoder *d, unsigned i, const uint8_t *rec,
		      size_t len)
{
	uint64_t v = 0;

	if (d->have[i] && bp_tep_get(&l->tep, &d->fields[i], rec, len, &v))
		return v;
	return 0;
}

/* sched_switch's prev_state: one bit for each letter; one above them all says preempted (Linux 4.14 and
 * later). */
static void set_state(struct bp_wait *out, uint64_t state)
{
	static const char letters[] = "SDTtXZPI";

	out->state = 'R';
	for (unsigned i = 0; i < sizeof(letters) - 1; i++) {
		if (state & UINT64_C(1) << i) {
			out->state = (uint8_t)letters[i];
			break;
		}
	}
	if (state & UINT64_C(1) << (sizeof(letters) - 1))
		out->flags |= BP_WAIT_PREEMPTED;
}

static BP_MUST_CHECK struct bp_err *on_switch(struct bp_live *l, struct cpu *c, const struct decoder *d,
					      struct bp_wait *w, const uint8_t *rec, size_t len)
{
	const uint8_t *prev_comm, *next_comm;
	uint32_t prev = (uint32_t)field(l, d, F_PREV, rec, len);
	uint32_t next = (uint32_t)field(l, d, F_NEXT, rec, len);
	struct bp_err *err = NULL;
	size_t n, p_at, n_at;

	c->stack_due = false;
	if (!bp_tep_bytes(&l->tep, &d->fields[F_PREV_COMM], rec, len, &prev_comm, &n) || n < 16 ||
	    !bp_tep_bytes(&l->tep, &d->fields[F_NEXT_COMM], rec, len, &next_comm, &n) || n < 16)
		return NULL;
	if (prev)
		err = set_comm(l, prev, prev_comm, w->time_ns, &p_at);
	if (!err && next)
		err = set_comm(l, next, next_comm, w->time_ns, &n_at);
	if (!err && prev && l->threads[p_at].ours) {
		w->kind = BP_WAIT_OUT;
		w->thread = prev;
		w->other = next;
		set_state(w, field(l, d, F_STATE, rec, len));
		c->stack_due = true;
		c->stack_at = c->n;
		err = push(c, w);
	}
	if (!err && next && l->threads[n_at].ours) {
		*w = (struct bp_wait){.time_ns = w->time_ns, .cpu = w->cpu, .kind = BP_WAIT_IN};
		w->thread = next;
		w->other = prev;
		err = push(c, w);
	}
	return err;
}

static BP_MUST_CHECK struct bp_err *on_stack(struct bp_live *l, struct cpu *c, const struct decoder *d,
					     uint32_t pid, const uint8_t *rec, size_t len)
{
	const struct bp_tep_field *callers = &d->fields[1];
	uint64_t n = field(l, d, 0, rec, len);

	if (!c->stack_due || c->queue[c->stack_at].thread != pid || callers->offset > len)
		return NULL;
	c->stack_due = false;
	/* The number given may be larger than what is there. */
	if (n > (len - callers->offset) / 8)
		n = (len - callers->offset) / 8;
	if (n > STACK_FRAMES)
		n = STACK_FRAMES;
	return n ? stack_of(l, rec + callers->offset, n, &c->queue[c->stack_at].kstack) : NULL;
}

static BP_MUST_CHECK struct bp_err *on_event(struct bp_live *l, struct cpu *c, const uint8_t *rec, size_t len,
					     uint64_t ts)
{
	struct bp_wait w = {.time_ns = ts, .cpu = (uint16_t)c->nr};
	uint64_t id = 0, pid = 0, flags = 0;
	const struct decoder *d;
	struct bp_err *err;
	size_t t;

	if (!bp_tep_get(&l->tep, &l->tep.type, rec, len, &id) || id >= BP_ARRAY_SIZE(l->by_id) ||
	    !(d = l->by_id[id]) || !bp_tep_get(&l->tep, &l->tep.pid, rec, len, &pid))
		return NULL;
	l->stats.events++;
	if (d->kind == EV_SWITCH)
		return on_switch(l, c, d, &w, rec, len);
	if (d->kind == EV_STACK)
		return on_stack(l, c, d, (uint32_t)pid, rec, len);
	w.thread = (uint32_t)pid;
	err = pid ? thread_of(l, w.thread, &t) : NULL;
	if (err)
		return err;
	switch (d->kind) {
	case EV_WAKING: {
		size_t woken;

		w.kind = BP_WAIT_WAKE;
		w.other = (uint32_t)field(l, d, 1, rec, len);
		bp_tep_get(&l->tep, &l->tep.flags, rec, len, &flags);
		/* In a hard or soft interrupt. */
		if (flags & 0x18)
			w.flags |= BP_WAIT_IRQ;
		err = w.other ? thread_of(l, w.other, &woken) : NULL;
		break;
	}
	case EV_FUTEX:
		w.kind = BP_WAIT_FUTEX;
		w.addr = field(l, d, F_ARG0, rec, len);
		w.other = (uint32_t)field(l, d, F_ARG1, rec, len);
		w.value = (int64_t)field(l, d, F_ARG2, rec, len);
		err = pid ? is_ours(l, t) : NULL;
		break;
	case EV_FUTEX_RET:
		w.kind = BP_WAIT_FUTEX_RET;
		w.value = (int64_t)field(l, d, F_ARG0, rec, len);
		break;
	case EV_KVM_ENTRY:
		w.kind = BP_WAIT_KVM_ENTRY;
		break;
	case EV_KVM_EXIT:
	case EV_KVM_USER:
		w.kind = BP_WAIT_KVM_EXIT;
		w.value = (int64_t)field(l, d, F_ARG0, rec, len);
		if (d->kind == EV_KVM_USER)
			w.flags |= BP_WAIT_USERSPACE;
		if (pid)
			l->threads[t].kvm = true;
		break;
	case EV_LOCK:
		/* The probe is on the binary, which others may run as well. */
		if (!pid || !l->threads[t].ours)
			return NULL;
		w.kind = BP_WAIT_LOCK_WANT;
		w.addr = l->opts.probe_any_mutex ? field(l, d, F_ARG2, rec, len) : l->opts.bql;
		err = site_of(l, field(l, d, F_ARG0, rec, len), (uint32_t)field(l, d, F_ARG1, rec, len), t,
			      &w.other);
		break;
	default:
		return NULL;
	}
	return err ? err : push(c, &w);
}

static BP_MUST_CHECK struct bp_err *read_page(struct bp_live *l, struct cpu *c)
{
	struct bp_err *err = NULL;
	unsigned long long ts;
	void *rec;
	int missed;

	if (kbuffer_load_subbuffer(c->kbuf, l->page))
		return bp_err_data(l->name, BP_NO_OFFSET, "cpu %u: a page of the trace buffer makes no sense",
				   c->nr);
	missed = kbuffer_missed_events(c->kbuf);
	rec = kbuffer_read_event(c->kbuf, &ts);
	if (missed && rec) {
		struct bp_wait w = {.time_ns = ts, .cpu = (uint16_t)c->nr, .kind = BP_WAIT_LOST, .value = 1};
		uint64_t since_ns = c->seen_ns ? c->seen_ns : l->start_ns;

		w.addr = ts > since_ns ? ts - since_ns : 0;
		/* The scheduler is not in there. */
		if (l->bpf)
			w.flags = BP_WAIT_BLIND;

		if (missed > 0) {
			w.value = missed;
			l->stats.lost += (uint64_t)missed;
		} else {
			l->stats.lost_unknown++;
		}
		c->stack_due = false;
		err = push(c, &w);
	}
	while (rec && !err) {
		int len = kbuffer_event_size(c->kbuf);

		if (len > 0)
			err = on_event(l, c, rec, (size_t)len, ts);
		c->seen_ns = ts;
		rec = kbuffer_next_event(c->kbuf, &ts);
	}
	return err;
}

static BP_MUST_CHECK struct bp_err *read_cpu(struct bp_live *l, struct cpu *c)
{
	for (;;) {
		ssize_t n = read(c->fd, l->page, l->page_bytes);
		struct bp_err *err;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return bp_err_os(errno, "%s: cpu %u: trace_pipe_raw", l->name, c->nr);
		if (n <= 0)
			return NULL;
		/* Of a longer one before. */
		if ((size_t)n < l->page_filled)
			memset((char *)l->page + n, 0, l->page_filled - (size_t)n);
		l->page_filled = (size_t)n;
		err = read_page(l, c);
		if (err)
			return err;
	}
}

static BP_MUST_CHECK struct bp_err *note_address(struct bp_live *l, uint64_t addr)
{
	if (!addr || l->n_addresses >= ADDRESSES_MAX || table_find(&l->by_address, addr))
		return NULL;
	if (l->n_addresses == l->cap_addresses) {
		size_t cap = l->cap_addresses ? 2 * l->cap_addresses : 256;
		uint64_t *more = realloc(l->addresses, cap * sizeof(*more));

		if (!more)
			return bp_err_nomem();
		l->addresses = more;
		l->cap_addresses = cap;
	}
	l->addresses[l->n_addresses++] = addr;
	return table_add(&l->by_address, addr, 1);
}

/* ---- who has the big lock ---- */

/* To the window that @ns is in; whoever took the lock in one that has passed may have let it go unseen. */
static BP_MUST_CHECK struct bp_err *enter_window(struct bp_live *l, uint64_t ns)
{
	struct armer *a = &l->armer;
	struct bp_err *err = NULL;
	bool passed = l->window.on_ns && ns >= l->window.off_ns;
	size_t gone = 0;

	if (!l->stats.probes || (l->window.on_ns && !passed && l->window.off_ns != UINT64_MAX))
		return NULL;
	if (a->running)
		pthread_mutex_lock(&a->mutex);
	/* The current one may have got its end meanwhile. */
	for (size_t i = 0; i < a->n && l->window.on_ns; i++) {
		if (a->windows[i].on_ns == l->window.on_ns)
			l->window = a->windows[i];
	}
	while (gone < a->n && a->windows[gone].off_ns <= ns)
		gone++;
	passed = l->window.on_ns && ns >= l->window.off_ns;
	if (passed || !l->window.on_ns) {
		l->window = (struct window){0};
		if (gone < a->n && a->windows[gone].on_ns <= ns)
			l->window = a->windows[gone];
	}
	if (gone)
		memmove(a->windows, a->windows + gone, (a->n - gone) * sizeof(*a->windows));
	a->n -= gone;
	if (a->running)
		pthread_mutex_unlock(&a->mutex);
	if (passed) {
		struct bp_wait w = {.kind = BP_WAIT_LOCK_FREE,
				    .cpu = BP_WAIT_NO_CPU,
				    .time_ns = l->last_ns,
				    .flags = BP_WAIT_BLIND,
				    .addr = l->opts.bql};

		err = bp_wait_log_add(l->log, &w);
		for (size_t i = 0; i < l->n_threads; i++)
			l->threads[i].wants = false;
	}
	return err;
}

static bool waits_for_big_lock(const struct bp_live *l, const struct bp_wait *w)
{
	return w->kind == BP_WAIT_FUTEX && w->other == FUTEX_WAIT_PRIVATE && w->addr == l->opts.bql;
}

/*
 * Where in the batch the lock becomes a thread's. What it does next tells: when that is not to wait for it,
 * it got it where it last asked, in the lock function or when it came back from waiting.
 * @horizon: until when everything is in the batch
 */
static void find_takes(struct bp_live *l, uint64_t horizon)
{
	for (size_t i = l->n_looked; i < l->n_batch; i++) {
		const struct bp_wait *w = &l->batch[i];
		uint32_t *at = w->thread && w->kind != BP_WAIT_WAKE && w->kind != BP_WAIT_LOST
				   ? table_find(&l->by_tid, (uint64_t)w->thread + 1)
				   : NULL;
		struct bp_live_thread *t = at ? &l->threads[*at] : NULL;

		/* Scheduling says nothing: it happens anywhere. */
		if (!t || w->kind == BP_WAIT_OUT || w->kind == BP_WAIT_IN || w->kind == BP_WAIT_SAMPLE)
			continue;
		if (t->wants && !t->waiting && !waits_for_big_lock(l, w)) {
			if (t->asked != NOT_HERE)
				l->takes[t->asked] = true;
			t->wants = false;
		}
		if (t->waiting && w->kind == BP_WAIT_FUTEX_RET)
			t->waiting = false;
		else if (t->wants && waits_for_big_lock(l, w))
			t->waiting = true;
		if (w->kind == BP_WAIT_LOCK_WANT)
			t->wants = true;
		t->asked = i;
	}
	l->n_looked = l->n_batch;
	/* Who has done nothing since for long enough has it, too. */
	for (size_t i = 0; i < l->n_threads; i++) {
		struct bp_live_thread *t = &l->threads[i];

		if (t->wants && !t->waiting && t->asked != NOT_HERE &&
		    l->batch[t->asked].time_ns + TAKE_NS <= horizon) {
			l->takes[t->asked] = true;
			t->wants = false;
		}
	}
}

/* The first @n of the batch are written. */
static void forget_batch(struct bp_live *l, size_t n)
{
	if (!n)
		return;
	memmove(l->batch, l->batch + n, (l->n_batch - n) * sizeof(*l->batch));
	memmove(l->takes, l->takes + n, (l->n_batch - n) * sizeof(*l->takes));
	l->n_batch -= n;
	l->n_looked -= l->n_looked < n ? l->n_looked : n;
	for (size_t i = 0; i < l->n_threads; i++) {
		struct bp_live_thread *t = &l->threads[i];

		t->asked = t->asked == NOT_HERE || t->asked < n ? NOT_HERE : t->asked - n;
	}
}

/* A record whose turn it is. */
static BP_MUST_CHECK struct bp_err *emit(struct bp_live *l, struct bp_wait *w, bool takes)
{
	struct bp_err *err = enter_window(l, w->time_ns);
	struct bp_wait held = {
	    .kind = BP_WAIT_LOCK_HELD, .thread = w->thread, .cpu = w->cpu, .addr = l->opts.bql};

	if (err)
		return err;
	/* Armed on some CPUs only. */
	if (w->kind == BP_WAIT_LOCK_WANT && !l->window.on_ns)
		return NULL;
	w->time_ns = w->time_ns > l->start_ns ? w->time_ns - l->start_ns : 0;
	if (w->time_ns < l->last_ns)
		w->time_ns = l->last_ns;
	l->last_ns = w->time_ns;
	/* What sleeps from the start on is known by samples alone; their address is 0 outside of futex(2). */
	if (w->kind == BP_WAIT_FUTEX || w->kind == BP_WAIT_LOCK_WANT || w->kind == BP_WAIT_SAMPLE)
		err = note_address(l, w->addr);
	l->stats.by_kind[w->kind]++;
	if (!err)
		err = bp_wait_log_add(l->log, w);
	if (err || !takes || !l->window.on_ns)
		return err;
	held.time_ns = w->time_ns;
	l->stats.by_kind[held.kind]++;
	return bp_wait_log_add(l->log, &held);
}

struct bp_err *bp_live_sample(struct bp_live *l, const struct bp_wait *w)
{
	/* Those of running threads come CPU by CPU. */
	return push_in_order(&l->cpus[l->n_cpus], w);
}

static BP_MUST_CHECK struct bp_err *put(struct bp_live *l, const struct bp_wait *w)
{
	if (l->n_batch == l->cap_batch) {
		size_t cap = l->cap_batch ? 2 * l->cap_batch : 4096;
		struct bp_wait *more = realloc(l->batch, cap * sizeof(*more));
		bool *takes;

		if (more)
			l->batch = more;
		takes = realloc(l->takes, cap * sizeof(*takes));
		if (takes)
			l->takes = takes;
		if (!more || !takes)
			return bp_err_nomem();
		l->cap_batch = cap;
	}
	l->takes[l->n_batch] = false;
	l->batch[l->n_batch++] = *w;
	return NULL;
}

static struct bp_live_thread *numbered(const struct bp_live *l, const struct table *by, uint32_t tid)
{
	uint32_t *at = tid ? table_find(by, (uint64_t)tid + 1) : NULL;

	return at ? &l->threads[*at] : NULL;
}

static struct bp_live_thread *known(const struct bp_live *l, uint32_t tid)
{
	return numbered(l, &l->by_tid, tid);
}

uint32_t bp_live_owner(const struct bp_live *l, uint32_t op, uint32_t val, const uint32_t behind[2])
{
	bool mutex = (op & ~(uint32_t)FUTEX_PRIVATE_FLAG) == FUTEX_WAIT && val == MUTEX_WAITED_FOR;
	const struct bp_live_thread *t =
	    mutex && behind[1] ? numbered(l, l->other_ids ? &l->by_own_tid : &l->by_tid, behind[0]) : NULL;

	return t && t->ours ? t->tid : 0;
}

/* @ret: id of a stack of the BPF programs, from where the scheduler was called; 0: not to be had */
static BP_MUST_CHECK struct bp_err *bpf_stack(struct bp_live *l, int32_t stack, uint32_t *ret)
{
	uint64_t frames[BP_SCHED_FRAMES];
	uint32_t *have = table_find(&l->bpf_stacks, (uint64_t)stack + 1);
	struct bp_err *err = NULL;
	size_t n, skip = 0;

	if (have) {
		*ret = *have;
		return NULL;
	}
	n = bp_sched_bpf_stack(l->bpf, stack, frames);
	/* First come the program and what calls it. */
	for (size_t i = 0; l->kallsyms && i < n; i++) {
		const char *name = tep_find_function(l->kallsyms, frames[i]);

		if (name && !strcmp(name, "__schedule")) {
			skip = i;
			break;
		}
	}
	*ret = 0;
	if (n)
		err = stack_of(l, (const uint8_t *)(frames + skip), n - skip, ret);
	return err ? err : table_add(&l->bpf_stacks, (uint64_t)stack + 1, *ret);
}

/* The bits of a task's state as sched_switch's event has them: only parked and dead are others. */
static uint64_t reported_state(uint32_t state)
{
	if (state & BP_SCHED_PREEMPTED)
		return 0x100;
	if (state & 0x80) /* TASK_DEAD */
		return 0x10;
	/* TASK_IDLE: uninterruptible, and no load. */
	return (state & 0x402) == 0x402 ? 0x80 : state & 0x7f;
}

/* The call of futex(2) that the thread of @w is in then. */
static struct bp_wait futex_call(const struct bp_wait *w, const struct bp_sched_event *e)
{
	return (struct bp_wait){.kind = BP_WAIT_FUTEX,
				.time_ns = w->time_ns,
				.thread = w->thread,
				.cpu = w->cpu,
				.addr = e->addr,
				.other = e->op,
				.value = e->val};
}

/*
 * A thread leaves the CPU. A sleep in futex(2) is a call, from here until the thread has a CPU again; where
 * its stack was not taken, it is that of another one.
 */
static BP_MUST_CHECK struct bp_err *bpf_out(struct bp_live *l, struct cpu *c, struct bp_live_thread *t,
					    const struct bp_sched_event *e)
{
	struct bp_wait w = {.kind = BP_WAIT_OUT,
			    .time_ns = e->time_ns,
			    .thread = e->tid,
			    .cpu = (uint16_t)e->cpu,
			    .other = e->other};
	struct bp_wait call = futex_call(&w, e);
	struct bp_err *err = NULL;
	bool sleeps;

	bp_wait_set_owner(&call, bp_live_owner(l, e->op, e->val, e->mutex));
	set_state(&w, reported_state(e->state));
	sleeps = w.state == 'S' && bp_sched_bpf_in_futex(e);
	if (e->stack >= 0)
		err = bpf_stack(l, e->stack, &w.kstack);
	if (sleeps && w.kstack)
		l->futex_stack = t->futex_stack = w.kstack;
	else if (sleeps)
		w.kstack = t->futex_stack ? t->futex_stack : l->futex_stack;
	if (!err && sleeps && bp_futex_waits(e->op))
		err = push(c, &call);
	return err ? err : push(c, &w);
}

/* A wake-up, with the futex call of who does it: that is all that is known of the call. */
static BP_MUST_CHECK struct bp_err *bpf_wake(struct cpu *c, const struct bp_sched_event *e)
{
	struct bp_wait w = {.kind = BP_WAIT_WAKE,
			    .time_ns = e->time_ns,
			    .thread = e->tid,
			    .cpu = (uint16_t)e->cpu,
			    .other = e->other,
			    .flags = e->what & BP_SCHED_IRQ ? BP_WAIT_IRQ : 0};
	bool in_futex = !w.flags && bp_sched_bpf_in_futex(e) && !bp_futex_waits(e->op);
	struct bp_wait call = futex_call(&w, e);
	struct bp_err *err = NULL;

	if (in_futex)
		err = push(c, &call);
	if (!err)
		err = push(c, &w);
	if (err || !in_futex)
		return err;
	call = (struct bp_wait){
	    .kind = BP_WAIT_FUTEX_RET, .time_ns = w.time_ns, .thread = w.thread, .cpu = w.cpu, .value = 1};
	return push(c, &call);
}

static BP_MUST_CHECK struct bp_err *on_bpf(void *self, const struct bp_sched_event *e)
{
	struct bp_live *l = self;
	struct bp_wait w = {
	    .time_ns = e->time_ns, .cpu = (uint16_t)e->cpu, .thread = e->tid, .other = e->other};
	struct bp_err *err = NULL;
	size_t at = 0, other = 0;
	struct cpu *c;

	/* The programs run since bp_live_attach(). */
	if (e->cpu >= l->n_queues - l->n_cpus - 1 || e->time_ns < l->start_ns)
		return NULL;
	c = &l->cpus[l->n_cpus + 1 + e->cpu];
	l->stats.events++;
	if (e->tid)
		err = set_comm(l, e->tid, (const uint8_t *)e->comm, e->time_ns, &at);
	if (!err && e->other)
		err = thread_of(l, e->other, &other);
	/* One that is gone before anybody looks is known by the process that the programs are for. */
	if (!err && e->what & BP_SCHED_OUT)
		err = is_ours(l, at);
	if (!err && e->what & BP_SCHED_IN)
		err = is_ours(l, other);
	if (!err && e->what & BP_SCHED_OUT)
		err = bpf_out(l, c, &l->threads[at], e);
	if (!err && e->what & BP_SCHED_IN) {
		w.kind = BP_WAIT_IN;
		w.thread = e->other;
		w.other = e->tid;
		err = push(c, &w);
	}
	if (!err && e->what & BP_SCHED_WAKE)
		err = bpf_wake(c, e);
	return err;
}

/* A record of one that was asleep in futex(2) ends that call, but for the switch right behind the call
 * itself. */
static BP_MUST_CHECK struct bp_err *take_turn(struct bp_live *l, const struct bp_wait *w)
{
	bool own = w->kind != BP_WAIT_SAMPLE && w->kind != BP_WAIT_LOST;
	struct bp_live_thread *t = own ? known(l, w->thread) : NULL;
	struct bp_wait ret = {
	    .kind = BP_WAIT_FUTEX_RET, .time_ns = w->time_ns, .thread = w->thread, .cpu = w->cpu};
	bool goes = t && t->sleeps == SLEEP_BEGINS && w->kind == BP_WAIT_OUT;
	bool returns = t && t->sleeps && !goes;
	struct bp_err *err = NULL;

	for (size_t i = 0; w->kind == BP_WAIT_LOST && i < l->n_threads; i++) {
		if (!(w->flags & BP_WAIT_BLIND))
			l->threads[i].sleeps = SLEEP_NONE;
		l->threads[i].wants = l->threads[i].waiting = false;
	}
	if (goes)
		t->sleeps = SLEEP_GOES_ON;
	else if (returns)
		t->sleeps = SLEEP_NONE;
	if (returns && w->kind != BP_WAIT_IN)
		err = put(l, &ret);
	if (!err)
		err = put(l, w);
	if (t && w->kind == BP_WAIT_FUTEX && bp_futex_waits(w->other))
		t->sleeps = SLEEP_BEGINS;
	if (!err && returns && w->kind == BP_WAIT_IN)
		err = put(l, &ret);
	return err;
}

/* What is old enough, of all CPUs, in order. */
static BP_MUST_CHECK struct bp_err *merge(struct bp_live *l, uint64_t horizon)
{
	struct bp_err *err;

	for (;;) {
		struct cpu *first = NULL;

		for (size_t i = 0; i < l->n_queues; i++) {
			struct cpu *c = &l->cpus[i];

			if (c->at < c->n && c->queue[c->at].time_ns <= horizon &&
			    (!first || c->queue[c->at].time_ns < first->queue[first->at].time_ns))
				first = c;
		}
		if (!first)
			return NULL;
		if (l->bpf)
			err = take_turn(l, &first->queue[first->at++]);
		else
			err = put(l, &first->queue[first->at++]);
		if (err)
			return err;
	}
}

/* What did not fit: from the first to the last of it, not much is known. */
static BP_MUST_CHECK struct bp_err *read_bpf(struct bp_live *l)
{
	struct bp_wait w = {.kind = BP_WAIT_LOST, .cpu = BP_WAIT_NO_CPU};
	struct bp_sched_lost lost;
	struct bp_err *err = bp_sched_bpf_read(l->bpf, on_bpf, l, &lost);

	if (err || !lost.n)
		return err;
	l->stats.lost += lost.n;
	w.value = (int64_t)lost.n;
	w.time_ns = lost.last_ns;
	w.addr = lost.last_ns - lost.first_ns + 1;
	/* Any queue will do. */
	return push_in_order(&l->cpus[l->n_cpus + 1], &w);
}

struct bp_err *bp_live_drain(struct bp_live *l, bool all)
{
	uint64_t horizon = all ? UINT64_MAX : now_ns() - SETTLE_NS;
	struct bp_err *err = l->bpf ? read_bpf(l) : NULL;
	size_t n = 0;

	for (size_t i = 0; i < l->n_cpus && !err; i++)
		err = read_cpu(l, &l->cpus[i]);
	if (!err)
		err = merge(l, horizon);
	if (!err && l->stats.probes)
		find_takes(l, all && l->n_batch ? l->batch[l->n_batch - 1].time_ns : horizon);
	/* What a thread does next may be for the next round to see. */
	for (; n < l->n_batch && !err && (all || l->batch[n].time_ns + TAKE_NS <= horizon); n++)
		err = emit(l, &l->batch[n], l->takes[n]);
	forget_batch(l, n);
	for (size_t i = 0; i < l->n_queues; i++) {
		struct cpu *c = &l->cpus[i];

		if (!c->at)
			continue;
		memmove(c->queue, c->queue + c->at, (c->n - c->at) * sizeof(*c->queue));
		c->n -= c->at;
		c->stack_due = c->stack_due && c->stack_at >= c->at;
		c->stack_at -= c->stack_due ? c->at : 0;
		c->at = 0;
	}
	return err;
}

/* ---- answers ---- */

const struct bp_live_stats *bp_live_stats(const struct bp_live *l)
{
	return &l->stats;
}

const char *bp_live_name(const struct bp_live *l)
{
	return l->name;
}

const uint64_t *bp_live_addresses(const struct bp_live *l, size_t *n)
{
	*n = l->n_addresses;
	return l->addresses;
}

const struct bp_live_thread *bp_live_threads(const struct bp_live *l, size_t *n)
{
	*n = l->n_threads;
	return l->threads;
}
