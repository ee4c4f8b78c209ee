// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/vcpu/regs.h"

#include <asm/perf_regs.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

/*
 * Both events of a switch are made with interrupts off, one right after the other; only the host of this
 * machine can come between.
 */
#define SLACK_NS (5 * UINT64_C(1000000))
#define RING_LEAST ((size_t)64 << 10)
#define FILTER_MAX 4000 /* the kernel takes less than a page */
#define REGS (1u << PERF_REG_X86_AX | 1u << PERF_REG_X86_DX | 1u << PERF_REG_X86_SI | 1u << PERF_REG_X86_DI)

/* One event on one CPU. The event whose buffer it is never runs: a filter can be set only once. */
struct ring {
	int fd, active;
	struct perf_event_mmap_page *map;
	struct bp_futex_args *queue;
	size_t at, n, cap;
};

struct bp_regs {
	uint64_t ids[BP_REGS_EVENTS];
	size_t bytes, n_cpus;
	struct ring (*rings)[BP_REGS_EVENTS];
	uint32_t *tids; /* sampled, and those above `last` */
	size_t n_tids, cap_tids;
	uint32_t last;
};

/* As the kernel writes it with TID, TIME and REGS_USER. */
struct sample {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t time, abi, ax, dx, si, di;
};

struct lost {
	struct perf_event_header header;
	uint64_t id, lost;
};

static struct bp_err *refused(void)
{
	if (errno == EACCES || errno == EPERM)
		return bp_err_new(BP_EUNSUPPORTED,
				  "--waits: no permission for perf events; run bootprof as root, for example "
				  "with sudo, or give it CAP_PERFMON and CAP_IPC_LOCK");
	return bp_err_new(BP_EUNSUPPORTED, "--waits: perf events: %s", strerror(errno));
}

static int open_event(const struct bp_regs *r, enum bp_regs_event event, size_t cpu)
{
	struct perf_event_attr attr = {
	    .type = PERF_TYPE_TRACEPOINT,
	    .size = sizeof(attr),
	    .config = r->ids[event],
	    .sample_period = 1,
	    .sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_REGS_USER,
	    .sample_regs_user = REGS,
	    .disabled = 1,
	    .use_clockid = 1,
	    .clockid = CLOCK_MONOTONIC,
	    /* Nobody is to be woken: it is read now and then. */
	    .watermark = 1,
	    .wakeup_watermark = UINT32_MAX,
	};

	return (int)syscall(SYS_perf_event_open, &attr, -1, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
}

static void bp_regs_destroyp(struct bp_regs **r)
{
	bp_regs_destroy(*r);
}

struct bp_err *bp_regs_create(const uint64_t ids[BP_REGS_EVENTS], size_t bytes, struct bp_regs **ret)
{
	bp_cleanup(bp_regs_destroyp) struct bp_regs *r = calloc(1, sizeof(*r));
	long n = sysconf(_SC_NPROCESSORS_CONF), page = sysconf(_SC_PAGESIZE);
	size_t online = 0;

	if (!r)
		return bp_err_nomem();
	r->rings = calloc((size_t)(n > 0 ? n : 1), sizeof(*r->rings));
	if (!r->rings)
		return bp_err_nomem();
	memcpy(r->ids, ids, sizeof(r->ids));
	for (r->bytes = RING_LEAST; r->bytes * 2 <= bytes; r->bytes *= 2)
		;
	for (; r->n_cpus < (size_t)n; r->n_cpus++) {
		for (int e = 0; e < BP_REGS_EVENTS; e++)
			r->rings[r->n_cpus][e] = (struct ring){.fd = -1, .active = -1};
	}
	for (size_t cpu = 0; cpu < r->n_cpus; cpu++) {
		for (int e = 0; e < BP_REGS_EVENTS; e++) {
			struct ring *g = &r->rings[cpu][e];
			void *map;

			g->fd = open_event(r, (enum bp_regs_event)e, cpu);
			/* A CPU that is not there. */
			if (g->fd < 0 && errno == ENODEV)
				break;
			if (g->fd < 0)
				return refused();
			map =
			    mmap(NULL, r->bytes + (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
			if (map == MAP_FAILED)
				return refused();
			g->map = map;
			online++;
		}
	}
	errno = ENODEV;
	if (!online)
		return refused();
	*ret = bp_steal(r);
	return NULL;
}

void bp_regs_destroy(struct bp_regs *r)
{
	if (!r)
		return;
	for (size_t cpu = 0; cpu < r->n_cpus; cpu++) {
		for (int e = 0; e < BP_REGS_EVENTS; e++) {
			struct ring *g = &r->rings[cpu][e];

			bp_closep(&g->active);
			if (g->map)
				munmap(g->map, r->bytes + (size_t)sysconf(_SC_PAGESIZE));
			bp_closep(&g->fd);
			free(g->queue);
		}
	}
	free(r->rings);
	free(r->tids);
	free(r);
}

/* ---- whom to sample ---- */

/* The number of the thread started last, of any process: "0.00 0.01 0.05 1/123 4567". */
static bool last_thread(uint32_t *ret)
{
	FILE *f = fopen("/proc/loadavg", "re");
	bool ok = f && fscanf(f, "%*s %*s %*s %*s %u", ret) == 1;

	if (f)
		fclose(f);
	return ok;
}

static BP_MUST_CHECK struct bp_err *list_threads(struct bp_regs *r, pid_t pid)
{
	char path[64];
	struct dirent *e;
	struct bp_err *err = NULL;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	r->n_tids = 0;
	while (d && !err && (e = readdir(d))) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		if (r->n_tids == r->cap_tids) {
			size_t cap = r->cap_tids ? 2 * r->cap_tids : 64;
			uint32_t *more = realloc(r->tids, cap * sizeof(*more));

			if (more) {
				r->tids = more;
				r->cap_tids = cap;
			} else {
				err = bp_err_nomem();
				break;
			}
		}
		r->tids[r->n_tids++] = (uint32_t)strtoul(e->d_name, NULL, 10);
	}
	if (d)
		closedir(d);
	return err;
}

static void add_filter(const struct bp_regs *r, enum bp_regs_event event, struct bp_strbuf *sb)
{
	const char *who = event == BP_REGS_SWITCH ? "prev_pid" : "common_pid";

	if (event == BP_REGS_SWITCH)
		bp_strbuf_adds(sb, "prev_state == 1 && ");
	bp_strbuf_addf(sb, "(%s > %u", who, r->last);
	for (size_t i = 0; i < r->n_tids; i++) {
		if (r->tids[i] <= r->last)
			bp_strbuf_addf(sb, " || %s == %u", who, r->tids[i]);
	}
	bp_strbuf_adds(sb, ")");
	/* Too many: everybody is sampled. */
	if (sb->len >= FILTER_MAX) {
		bp_strbuf_clear(sb);
		bp_strbuf_adds(sb, event == BP_REGS_SWITCH ? "prev_state == 1" : "common_pid > 0");
	}
}

/* The new event, before the old one ends: what both have seen is of no harm. */
static bool restart(const struct bp_regs *r, enum bp_regs_event event, size_t cpu, const char *filter)
{
	struct ring *g = &r->rings[cpu][event];
	int fd = open_event(r, event, cpu);

	if (fd < 0)
		return errno == ENODEV;
	if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, g->fd) || ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter) ||
	    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)) {
		int errnum = errno;

		close(fd);
		errno = errnum;
		return false;
	}
	bp_closep(&g->active);
	g->active = fd;
	return true;
}

struct bp_err *bp_regs_follow(struct bp_regs *r, pid_t pid)
{
	struct bp_err *err;

	/* First, so that a thread is listed or has a greater number. */
	if (!last_thread(&r->last))
		return bp_err_os(errno, "/proc/loadavg");
	err = list_threads(r, pid);
	for (int e = 0; e < BP_REGS_EVENTS && !err; e++) {
		struct bp_strbuf sb bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;

		add_filter(r, (enum bp_regs_event)e, &sb);
		err = bp_strbuf_ok(&sb);
		for (size_t cpu = 0; cpu < r->n_cpus && !err; cpu++) {
			if (r->rings[cpu][e].map &&
			    !restart(r, (enum bp_regs_event)e, cpu, bp_strbuf_str(&sb)))
				err = refused();
		}
	}
	return err;
}

bool bp_regs_covers(const struct bp_regs *r, uint32_t tid)
{
	for (size_t i = 0; i < r->n_tids && tid <= r->last; i++) {
		if (r->tids[i] == tid)
			return true;
	}
	return tid > r->last;
}

/* ---- samples ---- */

static BP_MUST_CHECK struct bp_err *add(struct ring *g, const struct bp_futex_args *a)
{
	if (g->n == g->cap) {
		size_t cap = g->cap ? 2 * g->cap : 1024;
		struct bp_futex_args *more = realloc(g->queue, cap * sizeof(*more));

		if (!more)
			return bp_err_nomem();
		g->queue = more;
		g->cap = cap;
	}
	g->queue[g->n++] = *a;
	return NULL;
}

/* What lies across the buffer's end is in two pieces. */
static void copy_out(const struct bp_regs *r, const struct ring *g, uint64_t at, void *dst, size_t n)
{
	const char *data = (const char *)g->map + g->map->data_offset;
	size_t from = (size_t)at & (r->bytes - 1), first = r->bytes - from < n ? r->bytes - from : n;

	memcpy(dst, data + from, first);
	memcpy((char *)dst + first, data, n - first);
}

/* In a system call of 64 bits, the user's rax is -ENOSYS until it returns. */
static struct bp_futex_args args_of(const struct sample *s)
{
	struct bp_futex_args a = {.time_ns = s->time, .pid = s->pid, .tid = s->tid};

	if (s->abi != PERF_SAMPLE_REGS_ABI_64 || s->ax != (uint64_t)-ENOSYS || s->di % 4)
		return a;
	a.addr = s->di;
	a.op = (uint32_t)s->si;
	a.val = (uint32_t)s->dx;
	return a;
}

static BP_MUST_CHECK struct bp_err *
read_ring(struct bp_regs *r, struct ring *g,
	  struct bp_err *(*seen)(void *self, const struct bp_futex_args *a), void *self)
{
	uint64_t head = __atomic_load_n(&g->map->data_head, __ATOMIC_ACQUIRE), tail = g->map->data_tail;
	struct bp_err *err = NULL;

	if (g->at)
		memmove(g->queue, g->queue + g->at, (g->n - g->at) * sizeof(*g->queue));
	g->n -= g->at;
	g->at = 0;
	while (tail < head && !err) {
		union {
			struct perf_event_header header;
			struct sample sample;
			struct lost lost;
		} u = {0};
		struct bp_futex_args a = {0};

		copy_out(r, g, tail, &u, sizeof(u.header));
		if (u.header.size < sizeof(u.header))
			break;
		copy_out(r, g, tail, &u, u.header.size < sizeof(u) ? u.header.size : sizeof(u));
		tail += u.header.size;
		if (u.header.type == PERF_RECORD_SAMPLE) {
			a = args_of(&u.sample);
			err = seen(self, &a);
		} else if (u.header.type == PERF_RECORD_LOST) {
			a.lost = u.lost.lost;
			a.time_ns = g->n ? g->queue[g->n - 1].time_ns : 0;
		} else {
			continue;
		}
		if (!err)
			err = add(g, &a);
	}
	__atomic_store_n(&g->map->data_tail, tail, __ATOMIC_RELEASE);
	return err;
}

struct bp_err *bp_regs_read(struct bp_regs *r,
			    struct bp_err *(*seen)(void *self, const struct bp_futex_args *a), void *self)
{
	struct bp_err *err = NULL;

	for (size_t cpu = 0; cpu < r->n_cpus; cpu++) {
		for (int e = 0; e < BP_REGS_EVENTS && !err; e++) {
			if (r->rings[cpu][e].map)
				err = read_ring(r, &r->rings[cpu][e], seen, self);
		}
	}
	return err;
}

const struct bp_futex_args *bp_regs_match(struct bp_regs *r, enum bp_regs_event event, unsigned cpu,
					  uint32_t tid, uint64_t time_ns, uint64_t *lost)
{
	struct ring *g = cpu < r->n_cpus ? &r->rings[cpu][event] : NULL;
	size_t best = SIZE_MAX;
	uint64_t nearest = SLACK_NS;

	if (!g)
		return NULL;
	while (g->at < g->n && g->queue[g->at].time_ns + SLACK_NS < time_ns)
		*lost += g->queue[g->at++].lost;
	/* The nearest one: after a loss there may be samples of switches that are not known. */
	for (size_t i = g->at; i < g->n && g->queue[i].time_ns < time_ns + SLACK_NS; i++) {
		const struct bp_futex_args *a = &g->queue[i];
		uint64_t off = a->time_ns < time_ns ? time_ns - a->time_ns : a->time_ns - time_ns;

		if (a->tid != tid || a->lost)
			continue;
		if (off <= nearest) {
			nearest = off;
			best = i;
		}
		if (a->time_ns >= time_ns)
			break;
	}
	if (best == SIZE_MAX)
		return NULL;
	while (g->at <= best)
		*lost += g->queue[g->at++].lost;
	return &g->queue[best];
}
