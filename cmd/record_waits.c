// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "cmd/record_waits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "collectors/qemu/qmp.h"
#include "collectors/vcpu/live.h"
#include "collectors/vcpu/run_stacks.h"
#include "collectors/vcpu/sched_bpf.h"
#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/units.h"
#include "core/waits.h"
#include "symbols/host_stack.h"
#include "symbols/qemu_locks.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
/* Buffers hold about a second of a busy QEMU. */
#define DRAIN_NS (50 * NS_PER_MS)
#define SAMPLE_NS (20 * NS_PER_MS) /* between stacks of blocked threads */
#define RUN_HZ 29                  /* samples of running threads; not in step with timers of 50 or 100 Hz */
#define QMP_MS 500                 /* for QEMU to answer */
#define SAMPLES_MAX 32             /* threads looked at each time */
#define LOOK_NS (50 * NS_PER_MS)   /* for QEMU's binary, while it is not found */
#define MAPS_NS NS_PER_S
#define OWNER_NS UINT64_C(50000) /* from a sample's time to what its mutex says, at most */

struct bp_record_waits {
	const struct bp_record_options *opts;
	struct bp_live *live;
	struct bp_wait_log *log;
	struct bp_trace_writer *writer;
	struct bp_qemu_locks *locks;
	struct bp_qemu_probe probe;
	bool have_probe, no_qemu;
	bool kvm; /* its events are enabled */
	pid_t pid;
	char exe[4096]; /* what was looked at */
	uint64_t last_drain, last_look, last_maps, last_sample;
	uint64_t start_ns;             /* CLOCK_MONOTONIC */
	struct bp_host_stacks *stacks; /* NULL: not to be had */
	struct bp_run_stacks *running; /* NULL: not to be had ... */
	char no_running[120];          /* ... and why */
	size_t next_thread;            /* to look at */
	uint32_t *looked_at;           /* threads that were */
	size_t n_looked_at;
	uint64_t n_stacks;
	struct known_frame {
		uint64_t pc; /* 0: free */
		uint32_t frame;
	} * known; /* open hash; to name a frame takes long */
	size_t n_known, known_slots;
	size_t named;         /* of the live collector's addresses */
	uint64_t *lock_addrs; /* of those that a fact names */
	size_t n_locks;
	struct bp_qmp_vcpu *vcpus; /* as QEMU, or the descriptors of KVM say */
	size_t n_vcpus;
	bool by_qmp;
	char roles[120];
	unsigned n_threads;
};

struct bp_err *bp_record_waits_create(const struct bp_record_options *opts, bool kvm,
				      struct bp_record_waits **ret)
{
	struct bp_record_waits *rw = calloc(1, sizeof(*rw));
	struct bp_live_options lo = {.futex = opts->futex, .kvm = kvm};
	struct bp_err *err;

	if (!rw)
		return bp_err_nomem();
	rw->opts = opts;
	rw->kvm = kvm;
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
	bp_host_stacks_destroy(rw->stacks);
	bp_run_stacks_destroy(rw->running);
	free(rw->known);
	free(rw->vcpus);
	free(rw->looked_at);
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

	rw->start_ns = start_ns;
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
		bp_err_ignore(bp_host_stacks_create(pid, &rw->stacks));
	if (!err && rw->stacks) {
		struct bp_err *no = bp_run_stacks_create(pid, RUN_HZ, &rw->running);

		if (no)
			snprintf(rw->no_running, sizeof(rw->no_running), "%s", bp_err_text(no));
		bp_err_ignore(no);
	}
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

		if (!bp_qemu_locks_find(rw->locks, addr[rw->named], &lock)) {
			bp_qemu_locks_place(rw->locks, addr[rw->named], lock.name);
			if (!strchr(lock.name, '+'))
				continue; /* in no file */
			lock.addr = addr[rw->named];
			lock.size = 4;
			lock.how = "mapping";
		}
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

/* ---- stacks of threads ---- */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static struct known_frame *known_slot(struct known_frame *known, size_t slots, uint64_t pc)
{
	size_t h = (size_t)(pc * 0x9e3779b97f4a7c15ull >> 32) & (slots - 1);

	while (known[h].pc && known[h].pc != pc)
		h = (h + 1) & (slots - 1);
	return &known[h];
}

static BP_MUST_CHECK struct bp_err *frame_of(struct bp_record_waits *rw, uint64_t pc, uint32_t *ret)
{
	struct known_frame *slot;
	struct bp_host_place p;
	struct bp_err *err;

	if (rw->n_known * 2 >= rw->known_slots) {
		size_t slots = rw->known_slots ? rw->known_slots * 2 : 1024;
		struct known_frame *known = calloc(slots, sizeof(*known));

		if (!known)
			return bp_err_nomem();
		for (size_t i = 0; i < rw->known_slots; i++) {
			if (rw->known[i].pc)
				*known_slot(known, slots, rw->known[i].pc) = rw->known[i];
		}
		free(rw->known);
		rw->known = known;
		rw->known_slots = slots;
	}
	slot = known_slot(rw->known, rw->known_slots, pc);
	if (!slot->pc) {
		p = bp_host_stacks_place(rw->stacks, pc);
		err =
		    bp_wait_log_frame(rw->log, BP_HOST_USER, pc, p.function, p.offset, p.file, &slot->frame);
		if (err)
			return err;
		slot->pc = pc;
		rw->n_known++;
	}
	*ret = slot->frame;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *stack_of(struct bp_record_waits *rw, const uint64_t *pc, size_t n,
					     uint32_t *ret)
{
	uint32_t frames[BP_HOST_STACK_FRAMES];
	struct bp_err *err = NULL;

	for (size_t i = 0; i < n && !err; i++)
		err = frame_of(rw, pc[i], &frames[i]);
	return err || !n ? err : bp_wait_log_stack(rw->log, frames, n, ret);
}

/* Of a thread that runs a guest of KVM, the descriptor tells which vCPU: "anon_inode:kvm-vcpu:3". */
static BP_MUST_CHECK struct bp_err *note_kvm_vcpu(struct bp_record_waits *rw, uint32_t tid, uint64_t fd)
{
	char path[64], link[64];
	struct bp_qmp_vcpu *more;
	unsigned index;
	ssize_t n;

	for (size_t i = 0; i < rw->n_vcpus; i++) {
		if (rw->by_qmp || rw->vcpus[i].tid == tid)
			return NULL;
	}
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)rw->pid, (int)fd);
	n = readlink(path, link, sizeof(link) - 1);
	link[n > 0 ? n : 0] = '\0';
	if (sscanf(link, "anon_inode:kvm-vcpu:%u", &index) != 1 || index >= UINT16_MAX)
		return NULL;
	more = realloc(rw->vcpus, (rw->n_vcpus + 1) * sizeof(*more));
	if (!more)
		return bp_err_nomem();
	rw->vcpus = more;
	rw->vcpus[rw->n_vcpus++] = (struct bp_qmp_vcpu){tid, index};
	return NULL;
}

/*
 * Of threads that are blocked from before recording began, no switch tells with which stack of the kernel: so
 * that of each thread's first sample is read. @n: frames, 0 when it is not the first.
 */
static BP_MUST_CHECK struct bp_err *kernel_stack(struct bp_record_waits *rw, uint32_t tid,
						 uint32_t frames[BP_HOST_STACK_FRAMES], size_t *n)
{
	struct bp_strbuf text bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	uint32_t *more;
	char file[48];
	struct bp_err *err;

	*n = 0;
	for (size_t i = 0; i < rw->n_looked_at; i++) {
		if (rw->looked_at[i] == tid)
			return NULL;
	}
	more = realloc(rw->looked_at, (rw->n_looked_at + 1) * sizeof(*more));
	if (!more)
		return bp_err_nomem();
	rw->looked_at = more;
	rw->looked_at[rw->n_looked_at++] = tid;
	snprintf(file, sizeof(file), "task/%u/stack", tid);
	err = read_proc(rw->pid, file, &text);
	if (err) {
		/* It is gone, or the kernel does not show stacks. */
		bp_err_ignore(err);
		return NULL;
	}
	for (const char *line = bp_strbuf_str(&text); line && *n < BP_HOST_STACK_FRAMES && !err;) {
		char name[128], module[64] = "";
		unsigned offset;

		/* "[<0>] kvm_vcpu_block+0x35/0x80 [kvm]" */
		if (sscanf(line, "[<%*[^>]>] %127[^+ \n]+0x%x/%*x [%63[^]]]", name, &offset, module) >= 2) {
			err =
			    bp_wait_log_frame(rw->log, BP_HOST_KERNEL, 0, name, offset, module, &frames[*n]);
			++*n;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return err;
}

/* In futex(2): on what, and who has it if it is a mutex. */
static void set_futex(const struct bp_record_waits *rw, const struct bp_blocked *b, struct bp_wait *w)
{
	uint32_t behind[2];
	struct iovec to = {behind, sizeof(behind)};
	struct iovec from = {(void *)(uintptr_t)(b->args[0] + BP_MUTEX_OWNER), sizeof(behind)};

	w->addr = b->args[0];
	w->other = (uint32_t)b->args[1];
	/* The time of the sample is from before that. */
	if (process_vm_readv(rw->pid, &to, 1, &from, 1, 0) == (ssize_t)sizeof(behind) &&
	    now_ns() - w->time_ns < OWNER_NS)
		bp_wait_set_owner(w, bp_live_owner(rw->live, w->other, (uint32_t)b->args[2], behind));
}

static BP_MUST_CHECK struct bp_err *sample_thread(struct bp_record_waits *rw, uint32_t tid)
{
	uint64_t pc[BP_HOST_STACK_FRAMES];
	uint32_t frames[BP_HOST_STACK_FRAMES];
	struct bp_wait w = {.kind = BP_WAIT_SAMPLE, .thread = tid, .state = 'S', .cpu = BP_WAIT_NO_CPU};
	struct bp_blocked b;
	struct bp_err *err = NULL;
	size_t n;

	if (!bp_blocked_read(rw->pid, (pid_t)tid, &b) || b.nr < 0)
		return NULL;
	w.time_ns = now_ns();
	if (b.nr == SYS_futex)
		set_futex(rw, &b, &w);
	if (b.nr == SYS_ioctl && b.args[1] == KVM_RUN) {
		err = note_kvm_vcpu(rw, tid, b.args[0]);
		if (err)
			return err;
	}
	n = bp_host_stacks_take(rw->stacks, (pid_t)tid, &b, pc);
	err = stack_of(rw, pc, n, &w.ustack);
	if (err || (!w.ustack && !w.addr))
		return err;
	err = kernel_stack(rw, tid, frames, &n);
	if (!err && n)
		err = bp_wait_log_stack(rw->log, frames, n, &w.kstack);
	if (err)
		return err;
	rw->n_stacks += w.ustack != 0;
	return bp_live_sample(rw->live, &w);
}

/* Of all threads in turn, when there are many. */
static BP_MUST_CHECK struct bp_err *sample_threads(struct bp_record_waits *rw)
{
	size_t n, looked = 0;
	const struct bp_live_thread *t = bp_live_threads(rw->live, &n);
	struct bp_err *err = NULL;

	for (size_t i = 0; i < n && looked < SAMPLES_MAX && !err; i++, rw->next_thread++) {
		const struct bp_live_thread *one = &t[rw->next_thread % n];

		if (!one->ours)
			continue;
		looked++;
		err = sample_thread(rw, one->tid);
	}
	return err;
}

static BP_MUST_CHECK struct bp_err *on_running(void *self, const struct bp_run_sample *sample)
{
	struct bp_record_waits *rw = self;
	struct bp_running r = {.stack = sample->stack, .stack_bytes = sample->stack_bytes};
	struct bp_wait w = {.kind = BP_WAIT_SAMPLE,
			    .time_ns = sample->time_ns,
			    .thread = sample->tid,
			    .cpu = sample->cpu < BP_WAIT_NO_CPU ? (uint16_t)sample->cpu : BP_WAIT_NO_CPU,
			    .state = 'R'};
	uint64_t pc[BP_HOST_STACK_FRAMES];
	struct bp_err *err;
	size_t n;

	if (sample->time_ns < rw->start_ns)
		return NULL;
	memcpy(r.regs, sample->regs, sizeof(r.regs));
	n = bp_host_stacks_unwind(rw->stacks, (pid_t)sample->tid, &r, pc);
	/* Translated code has no unwind tables: where it runs says nothing. */
	if (n < 2)
		return NULL;
	err = stack_of(rw, pc, n, &w.ustack);
	if (err || !w.ustack)
		return err;
	rw->n_stacks++;
	return bp_live_sample(rw->live, &w);
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

struct bp_err *bp_record_waits_poll(struct bp_record_waits *rw, uint64_t ns)
{
	struct bp_err *err = NULL;

	if (!bp_live_stats(rw->live)->probes && (!rw->last_look || ns - rw->last_look >= LOOK_NS))
		err = look_at_binary(rw, ns);
	if (!err && rw->stacks && ns - rw->last_sample >= SAMPLE_NS) {
		rw->last_sample = ns;
		err = sample_threads(rw);
	}
	if (!err && ns - rw->last_drain >= DRAIN_NS) {
		rw->last_drain = ns;
		if (rw->running)
			err = bp_run_stacks_read(rw->running, on_running, rw);
		if (!err)
			err = bp_live_drain(rw->live, false);
		if (!err)
			err = bp_wait_log_flush(rw->log);
	}
	if (err || ns - rw->last_maps < MAPS_NS)
		return err;
	if (!rw->kvm && uses_kvm(rw->pid)) {
		rw->kvm = true;
		err = bp_live_kvm(rw->live);
	}
	if (!err)
		err = name_locks(rw, ns);
	return err;
}

/* ---- roles ---- */

static int by_tid(const void *a, const void *b)
{
	uint32_t x = ((const struct bp_live_thread *)a)->tid, y = ((const struct bp_live_thread *)b)->tid;

	return x < y ? -1 : x > y;
}

/* @index: UINT16_MAX: it is an iothread */
static bool has_role(const struct bp_record_waits *rw, const struct bp_live_thread *t, uint16_t *index)
{
	for (size_t i = 0; i < rw->n_vcpus; i++) {
		if (rw->vcpus[i].tid == (rw->by_qmp ? t->own_tid : t->tid)) {
			*index =
			    rw->vcpus[i].index == BP_QMP_IOTHREAD ? UINT16_MAX : (uint16_t)rw->vcpus[i].index;
			return true;
		}
	}
	return false;
}

/* The lowest number of a vCPU that no thread has, from @next on. */
static uint16_t free_index(const struct bp_record_waits *rw, uint16_t next)
{
	for (size_t i = 0; i < rw->n_vcpus; i++) {
		if (rw->vcpus[i].index == next) {
			next++;
			i = SIZE_MAX;
		}
	}
	return next;
}

/*
 * Which thread is what. QEMU names its threads only with debug-threads=on, which we ask for when we start it.
 * Of others, QMP says which are vCPUs, else KVM's descriptors do; without either, vCPU threads are those that
 * enter KVM's guest or take the big lock in the code of an accelerator. Those are started in the order of
 * their numbers.
 */
static BP_MUST_CHECK struct bp_err *assign_roles(struct bp_record_waits *rw)
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
		    .time_ns = 0, /* it was that all the time */
		    .v = {t[i].tid, (uint64_t)rw->pid, 1},
		    .s1 = t[i].comm,
		};

		if (!t[i].ours)
			continue;
		rw->n_threads++;
		f.s2 = bp_live_role(rw->live, &t[i], &f.vcpu);
		if (named || (*f.s2 && strcmp(f.s2, "other")))
			continue;
		if (!has_role(rw, &t[i], &f.vcpu)) {
			if (rw->by_qmp || (!t[i].kvm && !t[i].guest_lock))
				continue;
			f.vcpu = free_index(rw, next);
			next = (uint16_t)(f.vcpu + 1);
			guessed = true;
		}
		f.s2 = f.vcpu == UINT16_MAX ? "iothread" : "vCPU";
		err = bp_trace_writer_fact(rw->writer, &f);
	}
	snprintf(rw->roles, sizeof(rw->roles), "%s",
		 named                    ? "names of the threads"
		 : rw->by_qmp             ? "QMP (query-cpus-fast)"
		 : guessed && rw->n_vcpus ? "descriptors of KVM, else KVM exits"
		 : guessed                ? "KVM exits and lock call sites, numbered in order of thread ids"
		 : rw->n_vcpus            ? "descriptors of KVM"
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
	    .s1 = s->lost_unknown ? "waits: no room in the trace buffers (at least)"
				  : "waits: no room in the trace buffers",
	    .s2 = "",
	};

	return f.v[0] ? bp_trace_writer_fact(rw->writer, &f) : NULL;
}

struct bp_err *bp_record_waits_finish(struct bp_record_waits *rw, uint64_t ns)
{
	const struct bp_live_stats *s = bp_live_stats(rw->live);
	char text[256];
	struct bp_err *err = NULL;
	size_t n;

	bp_live_stop(rw->live);
	if (rw->running)
		err = bp_run_stacks_read(rw->running, on_running, rw);
	if (!err)
		err = bp_live_drain(rw->live, true);
	if (!err)
		err = name_locks(rw, ns);
	if (!err)
		err = assign_roles(rw);
	if (!err)
		err = lost_fact(rw, ns);
	if (!err && *s->no_bpf)
		snprintf(text, sizeof(text), "all calls of futex(2): %s", s->no_bpf);
	if (!err)
		err = info(rw->writer, "waits_futex",
			   *s->no_bpf                        ? text
			   : rw->opts->futex == BP_FUTEX_ALL ? "all calls of futex(2): --futex=all"
							     : "calls of futex(2) that sleep, by BPF");
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
	snprintf(text, sizeof(text), "of blocked threads, by unwind tables, %d times a second; ",
		 (int)(NS_PER_S / SAMPLE_NS));
	n = strlen(text);
	if (rw->running)
		snprintf(text + n, sizeof(text) - n, "of running ones %d times a second", RUN_HZ);
	else
		snprintf(text + n, sizeof(text) - n, "none of running ones: %s", rw->no_running);
	if (!err)
		err = info(rw->writer, "waits_user_stacks", rw->n_stacks ? text : "none");
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
		n += i != BP_WAIT_SAMPLE ? s->by_kind[i] : 0;
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
		bp_strbuf_adds(&sb, ", lock holders without call sites");
	if (*bp_live_stats(rw->live)->no_bpf)
		bp_strbuf_addf(&sb, ", all futex calls, which costs more (%s)",
			       bp_live_stats(rw->live)->no_bpf);
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

/* Whether the process names its threads; when it does not, those that are halted in KVM are noted. */
static bool names_threads(struct bp_record_waits *rw, pid_t pid)
{
	char path[64], comm[32];
	struct dirent *e;
	bool named = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && !named && (e = readdir(d))) {
		bp_autoclose int fd = -1;
		struct bp_blocked b;
		pid_t tid = atoi(e->d_name);
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", (int)pid, e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, comm, sizeof(comm) - 1);
		named = n > 4 && !memcmp(comm, "CPU ", 4);
		if (bp_blocked_read(pid, tid, &b) && b.nr == SYS_ioctl && b.args[1] == KVM_RUN)
			bp_err_ignore(note_kvm_vcpu(rw, (uint32_t)tid, b.args[0]));
	}
	if (d)
		closedir(d);
	return named;
}

/* Of a QEMU that does not name its threads, where it can be asked. That it cannot costs certainty, no more.
 */
static void ask_qemu(struct bp_record_waits *rw, pid_t pid)
{
	struct bp_strbuf args bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	char socket[256], path[320];
	struct bp_qmp_vcpu *list;
	struct bp_err *err;
	size_t n;

	rw->pid = pid;
	if (names_threads(rw, pid))
		return;
	err = read_proc(pid, "cmdline", &args);
	if (!err && bp_qmp_socket(args.data, args.len, socket, sizeof(socket))) {
		snprintf(path, sizeof(path), "/proc/%d/%s%s", (int)pid, *socket == '/' ? "root" : "cwd/",
			 socket);
		err = bp_qmp_vcpus(path, QMP_MS, &list, &n);
		if (!err) {
			free(rw->vcpus);
			rw->vcpus = list;
			rw->n_vcpus = n;
			rw->by_qmp = true;
		}
	}
	bp_err_ignore(err);
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
	ask_qemu(rw, o->pid);
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

/* A number of a thread is taken for that of its process easily: top(1) and debuggers show both. */
static BP_MUST_CHECK struct bp_err *check_pid(pid_t pid)
{
	struct bp_strbuf text bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	struct bp_err *err = read_proc(pid, "status", &text);
	const char *line = err ? NULL : strstr(bp_strbuf_str(&text), "\nTgid:");
	int tgid;

	/* What is not there is said later. */
	bp_err_ignore(err);
	if (line && sscanf(line, "\nTgid: %d", &tgid) == 1 && tgid != (int)pid)
		return bp_err_new(BP_EUNSUPPORTED,
				  "--pid %d: that is a thread of process %d; record that one", (int)pid,
				  tgid);
	return NULL;
}

struct bp_err *bp_record_pid(const struct bp_record_options *opts, int *status)
{
	struct bp_trace_writer *w = NULL;
	struct bp_record_waits *rw = NULL;
	uint64_t lost;
	struct bp_err *err = check_pid(opts->pid);

	*status = 0;
	if (!err)
		err = bp_record_waits_create(opts, uses_kvm(opts->pid), &rw);
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
