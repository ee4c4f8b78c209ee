// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "cmd/record_waits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "collectors/vcpu/live.h"
#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/units.h"
#include "symbols/qemu_locks.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
/* Buffers hold about a second of a busy QEMU. */
#define DRAIN_NS (50 * NS_PER_MS)
#define LOOK_NS (50 * NS_PER_MS) /* for QEMU's binary, while it is not found */
#define MAPS_NS NS_PER_S

struct bp_record_waits {
	const struct bp_record_options *opts;
	struct bp_live *live;
	struct bp_wait_log *log;
	struct bp_trace_writer *writer;
	struct bp_qemu_locks *locks;
	struct bp_qemu_probe probe;
	bool have_probe, no_qemu;
	pid_t pid;
	char exe[4096]; /* what was looked at */
	uint64_t last_drain, last_look, last_maps;
	size_t named;         /* of the live collector's addresses */
	uint64_t *lock_addrs; /* of those that a fact names */
	size_t n_locks;
	char roles[80];
	unsigned n_threads;
};

struct bp_err *bp_record_waits_create(const struct bp_record_options *opts, bool kvm,
				      struct bp_record_waits **ret)
{
	struct bp_record_waits *rw = calloc(1, sizeof(*rw));
	struct bp_live_options lo = {.preempted_stacks = kvm};
	struct bp_err *err;

	if (!rw)
		return bp_err_nomem();
	rw->opts = opts;
	err = bp_live_create(&lo, &rw->live);
	if (err) {
		free(rw);
		return err;
	}
	*ret = rw;
	return NULL;
}

void bp_record_waits_destroy(struct bp_record_waits *rw)
{
	if (!rw)
		return;
	bp_live_destroy(rw->live);
	bp_wait_log_destroy(rw->log);
	bp_qemu_locks_destroy(rw->locks);
	free(rw->lock_addrs);
	free(rw);
}

static BP_MUST_CHECK struct bp_err *info(struct bp_trace_writer *w, const char *key, const char *value)
{
	struct bp_fact f = {.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = key, .s2 = value};

	return bp_trace_writer_fact(w, &f);
}

struct bp_err *bp_record_waits_start(struct bp_record_waits *rw, uint64_t start_ns)
{
	struct bp_err *err = bp_record_clock_base(rw->writer, start_ns);

	return err ? err : bp_live_start(rw->live, start_ns);
}

struct bp_err *bp_record_waits_attach(struct bp_record_waits *rw, pid_t pid, struct bp_trace_writer *writer)
{
	struct bp_err *err = bp_wait_log_create(writer, &rw->log);

	rw->pid = pid;
	rw->writer = writer;
	if (!err)
		err = bp_live_attach(rw->live, pid, writer, rw->log);
	if (!err)
		err = info(writer, "waits_source", "tracefs, trace clock mono");
	return err;
}

/* ---- QEMU's locks ---- */

static BP_MUST_CHECK struct bp_err *read_proc(pid_t pid, const char *file, struct bp_strbuf *sb)
{
	char path[64], buf[16384];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return bp_err_os(errno, "%s", path);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		bp_strbuf_add(sb, buf, (size_t)n);
	close(fd);
	return bp_strbuf_ok(sb);
}

/* Names of source files: of the program itself from its file, of its modules (accel-tcg-x86_64.so) from
 * memory. */
static bool text_of(void *self, uint64_t addr, char *dst, size_t cap)
{
	const struct bp_record_waits *rw = self;
	struct iovec to = {dst, cap - 1}, from = {(void *)(uintptr_t)addr, cap - 1};
	size_t n = 0;
	ssize_t got;

	if (bp_qemu_locks_text(rw->locks, addr, dst, cap))
		return true;
	/* Not past the end of a page: what is behind it may not be there. */
	if (from.iov_len > 4096 - addr % 4096)
		from.iov_len = 4096 - addr % 4096;
	got = process_vm_readv(rw->pid, &to, 1, &from, 1, 0);
	while (got > 0 && n < (size_t)got && dst[n] >= ' ' && dst[n] < 0x7f)
		n++;
	if (got <= 0 || n == (size_t)got || !n || dst[n])
		return false;
	return true;
}

static BP_MUST_CHECK struct bp_err *host_maps(struct bp_record_waits *rw, const char *text, uint64_t ns)
{
	struct bp_err *err = NULL;

	for (const char *line = text, *next; line && *line && !err; line = next) {
		unsigned long long start, end, offset;
		char perms[5], path[4096];
		struct bp_fact f = {
		    .kind = BP_FACT_HOST_MAP, .vcpu = UINT16_MAX, .time_ns = ns, .s1 = path, .s2 = ""};

		next = strchr(line, '\n');
		next = next ? next + 1 : NULL;
		if (sscanf(line, "%llx-%llx %4s %llx %*s %*s %4095[^\n]", &start, &end, perms, &offset,
			   path) != 5 ||
		    perms[2] != 'x' || path[0] != '/')
			continue;
		f.v[0] = start;
		f.v[1] = end;
		f.v[2] = offset;
		f.v[3] = (uint64_t)rw->pid;
		err = bp_trace_writer_fact(rw->writer, &f);
	}
	return err;
}

static BP_MUST_CHECK struct bp_err *lock_fact(struct bp_record_waits *rw, const struct bp_qemu_lock *lock,
					      uint64_t ns)
{
	struct bp_fact f = {
	    .kind = BP_FACT_LOCK,
	    .vcpu = UINT16_MAX,
	    .time_ns = ns,
	    .v = {lock->addr, lock->size},
	    .s1 = lock->name,
	    .s2 = lock->how,
	};
	uint64_t *more;

	for (size_t i = 0; i < rw->n_locks; i++) {
		if (rw->lock_addrs[i] == lock->addr)
			return NULL;
	}
	more = realloc(rw->lock_addrs, (rw->n_locks + 1) * sizeof(*more));
	if (!more)
		return bp_err_nomem();
	rw->lock_addrs = more;
	rw->lock_addrs[rw->n_locks++] = lock->addr;
	return bp_trace_writer_fact(rw->writer, &f);
}

/* Names for the futexes that are new since the last time. */
static BP_MUST_CHECK struct bp_err *name_locks(struct bp_record_waits *rw, uint64_t ns)
{
	struct bp_strbuf maps bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	struct bp_err *err;
	const uint64_t *addr;
	size_t n;

	rw->last_maps = ns;
	addr = bp_live_addresses(rw->live, &n);
	if (!rw->locks || n == rw->named)
		return NULL;
	/* A process that is gone leaves what was known of it. */
	err = read_proc(rw->pid, "maps", &maps);
	if (!err && maps.len)
		err = bp_qemu_locks_update(rw->locks, maps.data, maps.len);
	bp_err_ignore(err);
	err = NULL;
	for (; rw->named < n && !err; rw->named++) {
		struct bp_qemu_lock lock;

		if (bp_qemu_locks_find(rw->locks, addr[rw->named], &lock))
			err = lock_fact(rw, &lock, ns);
	}
	return err;
}

/* The program is mapped, or another one than before (a shell that became QEMU): its locks, and the probe. */
static BP_MUST_CHECK struct bp_err *look_at_binary(struct bp_record_waits *rw, uint64_t ns)
{
	struct bp_strbuf maps bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	struct bp_live_options lo = {.text = text_of};
	struct bp_qemu_locks *locks = NULL;
	char link[64], exe[4096], root[64];
	struct bp_qemu_lock bql;
	const char *how;
	struct bp_err *err;
	ssize_t n;

	rw->last_look = ns;
	snprintf(link, sizeof(link), "/proc/%d/exe", (int)rw->pid);
	n = readlink(link, exe, sizeof(exe) - 1);
	if (n <= 0)
		return NULL;
	exe[n] = '\0';
	if (!strcmp(exe, rw->exe))
		return NULL;
	snprintf(rw->exe, sizeof(rw->exe), "%s", exe);
	snprintf(root, sizeof(root), "/proc/%d/root", (int)rw->pid);
	err = read_proc(rw->pid, "maps", &maps);
	if (!err)
		err = bp_qemu_locks_create(link, exe, bp_strbuf_str(&maps), maps.len, root, &locks);
	if (err) {
		/* Not mapped yet, or not for us to read: another look. */
		rw->exe[0] = '\0';
		bp_err_ignore(err);
		return NULL;
	}
	bp_qemu_locks_destroy(rw->locks);
	rw->locks = locks;
	rw->named = 0;
	lo.text_self = rw;
	lo.bql = bp_qemu_locks_bql(locks, &how);
	if (rw->opts->lock_sites != BP_SITES_NEVER) {
		rw->have_probe = bp_qemu_locks_probe(locks, false, &rw->probe);
		if (rw->have_probe) {
			lo.probe_file = link;
			lo.probe_offset = rw->probe.file_offset;
			lo.probe_always = rw->opts->lock_sites == BP_SITES_ALWAYS;
		}
	}
	bp_live_probe(rw->live, &lo);
	err = host_maps(rw, bp_strbuf_str(&maps), ns);
	if (!err && lo.bql && bp_qemu_locks_find(locks, lo.bql, &bql))
		err = lock_fact(rw, &bql, ns);
	return err;
}

struct bp_err *bp_record_waits_poll(struct bp_record_waits *rw, uint64_t ns)
{
	struct bp_err *err = NULL;

	if (!bp_live_stats(rw->live)->probes && (!rw->last_look || ns - rw->last_look >= LOOK_NS))
		err = look_at_binary(rw, ns);
	if (!err && ns - rw->last_drain >= DRAIN_NS) {
		rw->last_drain = ns;
		err = bp_live_drain(rw->live, false);
		if (!err)
			err = bp_wait_log_flush(rw->log);
	}
	if (!err && ns - rw->last_maps >= MAPS_NS)
		err = name_locks(rw, ns);
	return err;
}

/* ---- roles ---- */

static int by_tid(const void *a, const void *b)
{
	uint32_t x = ((const struct bp_live_thread *)a)->tid, y = ((const struct bp_live_thread *)b)->tid;

	return x < y ? -1 : x > y;
}

/*
 * Which thread is what. QEMU names its threads only with debug-threads=on, which we ask for when we start it;
 * of others, vCPU threads are those that enter KVM's guest or take the big lock in the code of an
 * accelerator. Those are started in the order of their numbers.
 */
static BP_MUST_CHECK struct bp_err *assign_roles(struct bp_record_waits *rw, uint64_t ns)
{
	size_t n;
	const struct bp_live_thread *list = bp_live_threads(rw->live, &n);
	bp_autofree struct bp_live_thread *t = malloc((n ? n : 1) * sizeof(*t));
	bool named = false, guessed = false;
	struct bp_err *err = NULL;
	uint16_t next = 0, vcpu;

	if (!t)
		return bp_err_nomem();
	if (n)
		memcpy(t, list, n * sizeof(*t));
	qsort(t, n, sizeof(*t), by_tid);
	for (size_t i = 0; i < n; i++)
		named |= !strcmp(bp_live_role(rw->live, &t[i], &vcpu), "vCPU");
	for (size_t i = 0; i < n && !err; i++) {
		struct bp_fact f = {
		    .kind = BP_FACT_THREAD,
		    .vcpu = UINT16_MAX,
		    .time_ns = ns,
		    .v = {t[i].tid, (uint64_t)rw->pid, 1},
		    .s1 = t[i].comm,
		};

		if (!t[i].ours)
			continue;
		rw->n_threads++;
		f.s2 = bp_live_role(rw->live, &t[i], &f.vcpu);
		if (named || (*f.s2 && strcmp(f.s2, "other")) || (!t[i].kvm && !t[i].guest_lock))
			continue;
		f.s2 = "vCPU";
		f.vcpu = next++;
		guessed = true;
		err = bp_trace_writer_fact(rw->writer, &f);
	}
	snprintf(rw->roles, sizeof(rw->roles), "%s",
		 named     ? "names of the threads"
		 : guessed ? "KVM exits and lock call sites, numbered in order of thread ids"
			   : "only the main loop is known: QEMU was started without debug-threads=on");
	return err;
}

/* ---- the end ---- */

static BP_MUST_CHECK struct bp_err *lost_fact(struct bp_record_waits *rw, uint64_t ns)
{
	const struct bp_live_stats *s = bp_live_stats(rw->live);
	struct bp_fact f = {
	    .kind = BP_FACT_LOST,
	    .vcpu = UINT16_MAX,
	    .time_ns = ns,
	    .v = {s->lost + s->lost_unknown},
	    .s1 = s->lost_unknown ? "waits: overwritten in the trace buffer (at least)"
				  : "waits: overwritten in the trace buffer",
	    .s2 = "",
	};

	return f.v[0] ? bp_trace_writer_fact(rw->writer, &f) : NULL;
}

struct bp_err *bp_record_waits_finish(struct bp_record_waits *rw, uint64_t ns)
{
	const struct bp_live_stats *s = bp_live_stats(rw->live);
	char text[256];
	struct bp_err *err;

	bp_live_stop(rw->live);
	err = bp_live_drain(rw->live, true);
	if (!err)
		err = name_locks(rw, ns);
	if (!err)
		err = assign_roles(rw, ns);
	if (!err)
		err = lost_fact(rw, ns);
	if (!err && s->probes)
		snprintf(text, sizeof(text), "uprobe on %s%s", rw->probe.function,
			 rw->opts->lock_sites == BP_SITES_ALWAYS ? "" : ", for moments now and then");
	else if (!err)
		snprintf(text, sizeof(text), "none: %s",
			 rw->opts->lock_sites == BP_SITES_NEVER ? "--lock-sites=never"
			 : !rw->locks                           ? "the binary could not be read"
			 : !rw->have_probe ? "the binary exports no lock function of QEMU"
					   : s->no_probes);
	if (!err)
		err = info(rw->writer, "waits_lock_sites", text);
	if (!err)
		err = info(rw->writer, "waits_user_stacks",
			   s->probes ? "none; call sites of the lock function stand for them" : "none");
	if (!err)
		err = info(rw->writer, "waits_roles", rw->roles);
	if (!err && !s->kernel_names)
		err = info(rw->writer, "waits_kernel_names", "none: /proc/kallsyms hides addresses");
	return err ? err : bp_wait_log_close(bp_steal(rw->log));
}

uint64_t bp_record_waits_records(const struct bp_record_waits *rw, uint64_t *lost)
{
	const struct bp_live_stats *s = bp_live_stats(rw->live);
	uint64_t n = 0;

	*lost = s->lost + s->lost_unknown;
	for (int i = 1; i < BP_WAIT_KINDS; i++)
		n += s->by_kind[i];
	return n;
}

struct bp_err *bp_record_waits_summary(const struct bp_record_waits *rw, char **ret)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	char n[BP_UNITS_MAX];
	uint64_t lost;
	struct bp_err *err;

	bp_units_count(n, bp_record_waits_records(rw, &lost));
	bp_strbuf_addf(&sb, "waits: %s records of %u threads", n, rw->n_threads);
	if (!bp_live_stats(rw->live)->probes)
		bp_strbuf_adds(&sb, ", lock holders from wake-ups only");
	if (lost)
		bp_strbuf_addf(&sb, ", %s%llu events lost",
			       bp_live_stats(rw->live)->lost_unknown ? "at least " : "",
			       (unsigned long long)lost);
	err = bp_strbuf_ok(&sb);
	if (err) {
		bp_strbuf_deinit(&sb);
		return err;
	}
	*ret = sb.data;
	return NULL;
}

/* ---- a process that runs already ---- */

static volatile sig_atomic_t got_signal;

static void on_signal(int sig)
{
	(void)sig;
	got_signal = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static BP_MUST_CHECK struct bp_err *write_info(const struct bp_record_options *o, struct bp_trace_writer *w)
{
	struct bp_strbuf args bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	struct bp_strbuf line bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	struct bp_err *err = read_proc(o->pid, "cmdline", &args);
	char pid[16];

	for (size_t i = 0; !err && i < args.len; i += strlen(args.data + i) + 1)
		bp_record_quote(&line, args.data + i);
	if (!err)
		err = info(w, "command_line", bp_strbuf_str(&line));
	snprintf(pid, sizeof(pid), "%d", (int)o->pid);
	if (!err)
		err = info(w, "pid", pid);
	if (!err)
		err = info(w, "clock_time", "CLOCK_MONOTONIC since recording began");
	return err ? err : bp_record_host_info(w);
}

/* @fd: readable when the process has ended, -1: not known. */
static BP_MUST_CHECK struct bp_err *watch(struct bp_record_waits *rw, const struct bp_record_options *o,
					  int fd, uint64_t start_ns, const char **how)
{
	*how = NULL;
	while (!*how) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t ns = now_ns() - start_ns;
		int n = poll(&pfd, 1, 20);
		struct bp_err *err = bp_record_waits_poll(rw, ns);

		if (err)
			return err;
		if (got_signal)
			*how = "interrupt";
		else if (o->timeout_ns && ns >= o->timeout_ns)
			*how = "timeout";
		else if (n > 0 || (kill(o->pid, 0) && errno == ESRCH))
			*how = "exit";
	}
	return NULL;
}

/* A process with a virtual machine of KVM has a descriptor that says so. */
static bool uses_kvm(pid_t pid)
{
	char path[64], link[64];
	struct dirent *e;
	bool kvm = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && !kvm && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = '\0';
		kvm = !strcmp(link, "anon_inode:kvm-vm");
	}
	if (d)
		closedir(d);
	return kvm;
}

static BP_MUST_CHECK struct bp_err *record_pid(const struct bp_record_options *o, struct bp_record_waits *rw,
					       struct bp_trace_writer *w)
{
	bp_autoclose int fd = (int)syscall(SYS_pidfd_open, o->pid, 0);
	bp_autofree char *text = NULL;
	struct sigaction sa = {.sa_handler = on_signal};
	struct bp_fact end = {.kind = BP_FACT_END, .vcpu = UINT16_MAX, .s2 = ""};
	uint64_t start_ns;
	struct bp_err *err;

	if (kill(o->pid, 0) && errno == ESRCH)
		return bp_err_os(ESRCH, "process %d", (int)o->pid);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	err = write_info(o, w);
	if (!err)
		err = bp_record_waits_attach(rw, o->pid, w);
	start_ns = now_ns();
	if (!err)
		err = bp_record_waits_start(rw, start_ns);
	if (!err)
		err = bp_trace_writer_flush(w);
	if (!err)
		err = watch(rw, o, fd, start_ns, &end.s1);
	end.time_ns = now_ns() - start_ns;
	if (!err)
		err = bp_record_waits_finish(rw, end.time_ns);
	if (!err)
		err = bp_trace_writer_fact(w, &end);
	if (!err)
		err = bp_record_waits_summary(rw, &text);
	if (!err && !o->quiet) {
		struct bp_strbuf sb bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;

		bp_strbuf_add_term(&sb, o->output, strlen(o->output));
		fprintf(stderr, "bootprof: %s: process %d for %.3f s, %s; ended by %s\n", bp_strbuf_str(&sb),
			(int)o->pid, (double)end.time_ns / 1e9, text, end.s1);
	}
	return err;
}

struct bp_err *bp_record_pid(const struct bp_record_options *opts, int *status)
{
	struct bp_trace_writer *w = NULL;
	struct bp_record_waits *rw = NULL;
	uint64_t lost;
	struct bp_err *err = bp_record_waits_create(opts, uses_kvm(opts->pid), &rw);

	*status = 0;
	if (!err)
		err = bp_trace_writer_create(opts->output, 0, &w);
	if (!err)
		err = record_pid(opts, rw, w);
	if (!err)
		err = bp_trace_writer_close(w);
	else if (w && !bp_record_waits_records(rw, &lost))
		bp_trace_writer_discard(w);
	else
		bp_trace_writer_destroy(w);
	bp_record_waits_destroy(rw);
	return err;
}
