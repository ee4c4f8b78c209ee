// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bootprof-tcg.so: the part of the TCG collector that lives inside QEMU.
 *
 * Call stacks are recovered without any help from the guest from two kinds of places, both of them
 * starts of translation blocks: the first instruction of a function (an *entry*, by call or by jump),
 * and the instruction after a call (a *landing*). Each time such a block starts, one record goes
 * out: which place, the stack pointer, host time and instructions executed so far. From the
 * stack pointer the recorder (engine.c) knows exactly which calls have returned, whatever way was taken
 * between two records: tail calls, thunks, unwinding, stack switches.
 *
 * Why block starts and not call and return instructions: TCG keeps guest registers in host
 * registers inside a block, but at a block's start all of them are in QEMU's CPU state in memory. One
 * load gives the stack pointer there, with no register access by the plugin API (7.2 has none,
 * later versions take 20 ns for it) and no memory callbacks (unreliable on RET in 7.2). Where the CPU
 * state lies in this QEMU is found by comparing its memory with what QEMU's own gdb interface
 * returns, see find_registers(); it depends on no structure layout of a QEMU version except that an
 * x86 CPU state begins with the 16 general registers followed by the instruction pointer.
 *
 * Hot path: on_entry() and on_landing(). They neither allocate nor fail nor make system calls; a full ring
 * makes them wait.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "collectors/tcg/qemu_abi.h"
#include "collectors/tcg/ring.h"

#define EXPORT __attribute__((visibility("default")))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

EXPORT int qemu_plugin_version = 1;

enum {
	REG_RAX = 0,
	REG_RCX,
	REG_RDX,
	REG_RBX,
	REG_RSP,
	REG_RBP,
	REG_RSI,
	REG_RDI,
	REG_RIP = 16,
	N_REGS = 17
};

#define KERNEL_HALF 0xffff800000000000ull
/* Landings this far below the last record's stack pointer are on the same stack. */
#define SAME_STACK_BYTES 0x4000
#define KERNEL_IMAGE_AREA 0xffffffff80000000ull

#define ANY_SP UINT64_MAX

/* What the plugin alone knows of a site. */
struct site_private {
	uint32_t next; /* id of the next site in the hash chain, 0: none */
	int32_t hook;  /* index into the hooks, -1 for none */
};

enum pending {
	PENDING_NONE,
	PENDING_CALL,   /* the next block to be translated is a function */
	PENDING_UNWIND, /* ... is where code goes on after the stack was cut back, as longjmp() does */
};

struct vcpu {
	_Alignas(128) uint64_t insns; /* instructions started, without the current block */
	uint64_t *insns_ptr;          /* where blocks add to: &insns, or the scoreboard's slot */
	const uint64_t *regs;         /* QEMU's registers of this vCPU; unknown_regs until found */
	struct bp_ring_rec *ring;
	uint64_t head;
	uint64_t limit; /* there was room up to here when last looked */
	struct bp_ring_vcpu *shm;
	uint64_t stamp_insns; /* instructions at the last record that carried the host's clock */
	uint64_t last_sp;     /* stack pointer of the last record, 0: it says nothing about the next */
	uint32_t pending;   /* enum pending: the last thing seen was a jump to an address nobody knows yet */
	uint64_t stub_sp;   /* user space jumped through a stub with this stack pointer, ANY_SP; 0: no */
	uint64_t stub_next; /* ... and this is the address behind the jump */
	uint32_t find_tries;
	bool idle;
	void *cpu; /* QEMU's CPUState */
};

static struct bp_ring_shm *shm;
static struct bp_site *shm_sites;
static const uint8_t *text_bitmap;
/* In low memory, see make_vcpus(). */
static struct vcpu *vcpus;
static bool inline_global, inline_per_vcpu;
/* Stands for registers not found yet: no code runs at this address. */
static const uint64_t unknown_regs[N_REGS] = {[REG_RIP] = 1};
static pid_t recorder_pid;

/* Looked up in QEMU at load time. */
static struct {
	const void *(*insn_data_v1)(const struct qemu_plugin_insn *insn);
	size_t (*insn_data_v3)(const struct qemu_plugin_insn *insn, void *dest, size_t len);
	void (*tb_inline_v1)(struct qemu_plugin_tb *tb, int op, void *ptr, uint64_t imm);
	void (*tb_inline_per_vcpu)(struct qemu_plugin_tb *tb, int op, struct qemu_plugin_u64 entry,
				   uint64_t imm);
	struct qemu_plugin_scoreboard *(*scoreboard_new)(size_t bytes);
	void *(*scoreboard_find)(struct qemu_plugin_scoreboard *sb, unsigned vcpu);
	void *(*get_cpu)(int index);
	int (*memory_rw)(void *cpu, uint64_t addr, void *ptr, uint64_t len, bool is_write);
	int (*gdb_read)(void *cpu, void *byte_array, int n);
	void *(*byte_array_new)(void);
	void *(*byte_array_free)(void *array, int free_segment);
} q;

static struct qemu_plugin_scoreboard *scoreboard;

/* The version must be right before QEMU reads it, which it does after the constructors ran. */
__attribute__((constructor)) static void choose_api_version(void)
{
	if (!dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_new"))
		qemu_plugin_version = 1;
	else if (dlsym(RTLD_DEFAULT, "qemu_plugin_translate_vaddr"))
		qemu_plugin_version = 5;
	else if (dlsym(RTLD_DEFAULT, "qemu_plugin_read_memory_vaddr"))
		qemu_plugin_version = 4;
	else
		qemu_plugin_version = 3;
}

/* ---- sets of addresses, all under `lock`, used at translation only ---- */

struct addr_set {
	uint64_t *slots; /* 0 is empty */
	size_t cap, used;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct addr_set call_targets, return_sites, module_starts;

static size_t hash_addr(uint64_t a, size_t cap)
{
	return (a * 0x9e3779b97f4a7c15ull >> 20) & (cap - 1);
}

static bool set_has(const struct addr_set *s, uint64_t a)
{
	if (!s->cap)
		return false;
	for (size_t i = hash_addr(a, s->cap);; i = (i + 1) & (s->cap - 1)) {
		if (s->slots[i] == a)
			return true;
		if (!s->slots[i])
			return false;
	}
}

/* Out of memory leaves the set as it is: the places are then not traced. */
static void set_add(struct addr_set *s, uint64_t a)
{
	if (!a || set_has(s, a))
		return;
	if ((s->used + 1) * 2 > s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 1 << 14;
		uint64_t *slots = calloc(cap, sizeof(*slots));

		if (!slots)
			return;
		for (size_t i = 0; i < s->cap; i++) {
			if (!s->slots[i])
				continue;
			size_t j = hash_addr(s->slots[i], cap);

			while (slots[j])
				j = (j + 1) & (cap - 1);
			slots[j] = s->slots[i];
		}
		free(s->slots);
		s->slots = slots;
		s->cap = cap;
	}
	size_t i = hash_addr(a, s->cap);

	while (s->slots[i])
		i = (i + 1) & (s->cap - 1);
	s->slots[i] = a;
	s->used++;
}

static void set_remove_range(struct addr_set *s, uint64_t start, uint64_t end)
{
	struct addr_set kept = {0};

	for (size_t i = 0; i < s->cap; i++)
		if (s->slots[i] && (s->slots[i] < start || s->slots[i] >= end))
			set_add(&kept, s->slots[i]);
	free(s->slots);
	*s = kept;
}

/* ---- records ---- */

static inline uint64_t host_ticks(void)
{
	struct timespec ts;

	if (likely(!shm->use_clock))
		return __rdtsc();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Wait for room for @n records. False: the recorder is gone, or wants no more. */
static __attribute__((noinline)) bool wait_room(struct vcpu *v, uint64_t n)
{
	for (unsigned spins = 0;; spins++) {
		v->limit = __atomic_load_n(&v->shm->tail, __ATOMIC_ACQUIRE) + BP_RING_RECORDS;
		if (v->head + n <= v->limit)
			return true;
		if (__atomic_load_n(&shm->stop, __ATOMIC_RELAXED)) {
			v->shm->lost += n;
			return false;
		}
		if (spins == 0)
			v->shm->waits++;
		if (spins % 1024 == 1023 && getppid() != recorder_pid) {
			__atomic_store_n(&shm->stop, 1, __ATOMIC_RELAXED);
			continue;
		}
		usleep(100);
	}
}

static inline bool room(struct vcpu *v, uint64_t n)
{
	return likely(v->head + n <= v->limit) || wait_room(v, n);
}

static inline void put(struct vcpu *v, uint64_t a, uint64_t b)
{
	struct bp_ring_rec *r = &v->ring[v->head & (BP_RING_RECORDS - 1)];

	r->a = a;
	r->b = b;
	v->head++;
}

static inline void publish(struct vcpu *v)
{
	__atomic_store_n(&v->shm->head, v->head, __ATOMIC_RELEASE);
}

static inline uint64_t insns_of(const struct vcpu *v)
{
	return *v->insns_ptr;
}

/* A control record at @insns instructions, with a payload of one or two pieces. */
static void put_ctl_at(struct vcpu *v, uint64_t insns, enum bp_ctl code, const void *p1, size_t len1,
		       const void *p2, size_t len2)
{
	uint64_t n = (len1 + len2 + sizeof(struct bp_ring_rec) - 1) / sizeof(struct bp_ring_rec);
	uint64_t ticks = host_ticks();
	uint8_t chunk[sizeof(struct bp_ring_rec)];
	const uint8_t *a = p1, *b = p2;
	size_t at = 0;

	if (n + 4 > BP_RING_RECORDS / 2 || !room(v, n + 3))
		return;
	/* The clocks in full come first, so that a long pause before this one cannot wrap. */
	put(v, ticks >> BP_TICK_SHIFT << BP_REC_ID_BITS | BP_CTL_SYNC, insns << 32 | 1);
	put(v, ticks, insns);
	v->stamp_insns = insns;
	/* What follows may run on another stack: the next landing counts. */
	v->last_sp = 0;
	put(v, ticks >> BP_TICK_SHIFT << BP_REC_ID_BITS | (uint64_t)code, insns << 32 | n);
	while (at < len1 + len2) {
		struct bp_ring_rec r;
		size_t fill = 0;

		memset(chunk, 0, sizeof(chunk));
		for (; fill < sizeof(chunk) && at < len1 + len2; fill++, at++)
			chunk[fill] = at < len1 ? a[at] : b[at - len1];
		memcpy(&r, chunk, sizeof(r));
		put(v, r.a, r.b);
	}
	v->shm->insns = insns;
	publish(v);
}

static void put_ctl(struct vcpu *v, enum bp_ctl code, const void *p1, size_t len1, const void *p2,
		    size_t len2)
{
	put_ctl_at(v, insns_of(v), code, p1, len1, p2, len2);
}

/* ---- QEMU's registers ---- */

static int read_by_gdb(void *cpu, uint64_t regs[N_REGS])
{
	/* gdb's order of the general registers, as indices into QEMU's own order. */
	static const uint8_t order[16] = {0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15};

	for (int i = 0; i < N_REGS; i++) {
		/* struct _GByteArray { guint8 *data; guint len; } is public ABI of glib. */
		struct {
			uint8_t *data;
			unsigned len;
		} *array = q.byte_array_new();
		uint64_t v = 0;
		int n = q.gdb_read(cpu, array, i);

		if (n == 8)
			memcpy(&v, array->data, 8);
		q.byte_array_free(array, 1);
		if (n != 8)
			return -1;
		regs[i < 16 ? order[i] : REG_RIP] = v;
	}
	return 0;
}

/*
 * Find the registers of this vCPU in QEMU's memory. Called at the start of a block in the vCPU's own
 * thread, when the registers in memory are current. The object is read through /proc/self/mem, so that
 * running past its end is an error and not a crash.
 */
static __attribute__((noinline)) bool find_registers(struct vcpu *v)
{
	enum { SCAN_BYTES = 256 * 1024 };
	uint64_t want[N_REGS];
	uint64_t *copy;
	size_t found = 0, n_found = 0;
	ssize_t got;
	int fd;

	if (!v->cpu)
		v->cpu = q.get_cpu((int)(v - vcpus));
	if (!v->cpu || read_by_gdb(v->cpu, want))
		return false;
	copy = malloc(SCAN_BYTES);
	fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (!copy || fd < 0) {
		free(copy);
		if (fd >= 0)
			close(fd);
		return false;
	}
	got = pread(fd, copy, SCAN_BYTES, (off_t)(uintptr_t)v->cpu);
	close(fd);
	for (size_t i = 0; got > 0 && i + N_REGS <= (size_t)got / 8; i++) {
		if (!memcmp(copy + i, want, sizeof(want))) {
			found = i;
			n_found++;
		}
	}
	free(copy);
	if (n_found != 1)
		return false;
	v->regs = (const uint64_t *)v->cpu + found;
	return true;
}

/* ---- the hot path ---- */

/*
 * All that a callback must know of its site, in the word that QEMU hands it: no memory is looked at. The
 * address is whole for code in the lowest and in the highest 2 GiB, where kernels and firmware run.
 */
#define PACK_INSNS_SHIFT 22
#define PACK_INSNS_MAX 1023 /* QEMU ends a block after 512 */
#define PACK_PC_SHIFT 32
_Static_assert(BP_MAX_SITES <= 1u << PACK_INSNS_SHIFT, "a packed site has room for its id");

static inline uintptr_t pack_site(uint32_t id)
{
	const struct bp_site *s = &shm_sites[id - BP_CTL_N];

	return s->pc << PACK_PC_SHIFT | (uint64_t)s->n_insns << PACK_INSNS_SHIFT | id;
}

static inline uint32_t packed_id(uintptr_t packed)
{
	return packed & ((1u << PACK_INSNS_SHIFT) - 1);
}

static inline uint32_t packed_insns(uintptr_t packed)
{
	return (uint32_t)packed >> PACK_INSNS_SHIFT;
}

static inline uint64_t packed_pc(uintptr_t packed)
{
	return (uint64_t)((int64_t)packed >> PACK_PC_SHIFT);
}

/* Does the block that starts run where its site was translated? @far: the site's address does not fit. */
static inline bool in_place(const struct vcpu *v, uintptr_t packed, bool far)
{
	return v->regs[REG_RIP] == (far ? shm_sites[packed_id(packed) - BP_CTL_N].pc : packed_pc(packed));
}

static __attribute__((noinline)) void slow_site(struct vcpu *v, uint32_t id, uint64_t insns);

/*
 * The second half of a record that is stamped, @since instructions after the last one that was. Not inlined:
 * without it the usual way through site_record() saves no registers.
 */
static __attribute__((noinline)) void stamp_record(struct vcpu *v, struct bp_ring_rec *r, uint32_t id,
						   uint64_t insns)
{
	if (unlikely(insns - v->stamp_insns > UINT32_MAX / 2)) {
		v->head--;
		slow_site(v, id, insns);
		return;
	}
	v->stamp_insns = insns;
	r->a = host_ticks() >> BP_TICK_SHIFT << BP_REC_ID_BITS | id;
	publish(v);
}

/*
 * One record of a block that runs where it was translated. Reading the host's clock costs more than
 * everything else here, so a record less than BP_STAMP_INSNS instructions after the last stamped one goes
 * without; the recorder divides the time between two stamps by instructions. Only stamped records are
 * published: what is visible always ends with one. Everything unusual goes to slow_site() in a tail call.
 */
static inline __attribute__((always_inline)) void site_record(struct vcpu *v, uintptr_t packed,
							      uint64_t insns, uint64_t sp)
{
	uint64_t head = v->head;
	struct bp_ring_rec *r = &v->ring[head & (BP_RING_RECORDS - 1)];

	if (unlikely(head == v->limit)) {
		slow_site(v, packed_id(packed), insns);
		return;
	}
	/* The recorder has had the next lines in its cache. */
	__asm__ volatile("prefetchw %0" : : "m"(r[12]));
	r->b = insns << 32 | (uint32_t)sp;
	v->head = head + 1;
	if (likely(insns - v->stamp_insns < BP_STAMP_INSNS))
		r->a = packed_id(packed);
	else
		stamp_record(v, r, packed_id(packed), insns);
}

/* A stamped record, whatever the registers say. */
static void put_site(struct vcpu *v, uint32_t id, uint64_t insns, uint64_t low)
{
	if (!room(v, 1))
		return;
	v->stamp_insns = insns;
	put(v, host_ticks() >> BP_TICK_SHIFT << BP_REC_ID_BITS | id, insns << 32 | (uint32_t)low);
	publish(v);
}

static __attribute__((noinline)) void slow_site(struct vcpu *v, uint32_t id, uint64_t insns)
{
	const struct bp_site *s = &shm_sites[id - BP_CTL_N];

	if (v->regs == unknown_regs) {
		/* Early on the registers may be too alike to tell: try again, but not for ever. */
		if (v->find_tries < 1000) {
			v->find_tries++;
			find_registers(v);
		}
		if (v->regs == unknown_regs) {
			if (v->find_tries == 1000)
				shm->no_registers = 1;
			put_site(v, id, insns, 0);
			return;
		}
	}
	if (insns - v->stamp_insns > UINT32_MAX / 2)
		put_ctl_at(v, insns, BP_CTL_SYNC, &(uint64_t[2]){host_ticks(), insns}, 16, NULL, 0);
	if (v->regs[REG_RIP] != s->pc &&
	    /* 16-bit code: the instruction pointer lacks the segment base */
	    (s->flags & BP_SITE_KERNEL || v->regs[REG_RIP] > 0xffff))
		put_ctl_at(v, insns, BP_CTL_PC, &(uint64_t[2]){v->regs[REG_RIP], 0}, 16, NULL, 0);
	put_site(v, id, insns, v->regs[REG_RSP]);
}

/* The current block's @n instructions are counted, its first one has not run yet: returns the count before.
 */
static inline uint64_t count_block(struct vcpu *v, uint32_t n)
{
	uint64_t insns = *v->insns_ptr;

	*v->insns_ptr = insns + n;
	v->pending = PENDING_NONE;
	return insns;
}

static inline __attribute__((always_inline)) void entry(struct vcpu *v, uintptr_t packed, bool far)
{
	uint64_t insns = count_block(v, packed_insns(packed)), sp = v->regs[REG_RSP];

	v->last_sp = sp;
	if (likely(in_place(v, packed, far)))
		site_record(v, packed, insns, sp);
	else
		slow_site(v, packed_id(packed), insns);
}

/*
 * A landing says that everything below the stack pointer has returned. When the record before it was for
 * the same stack pointer or a higher one on this stack, nothing can have returned: a loop that begins behind
 * a call.
 */
static inline __attribute__((always_inline)) void landing(struct vcpu *v, uintptr_t packed, bool far)
{
	uint64_t insns = count_block(v, packed_insns(packed)), sp = v->regs[REG_RSP];

	bool here = in_place(v, packed, far);

	if (here && v->last_sp - sp < SAME_STACK_BYTES)
		return;
	v->last_sp = sp;
	if (likely(here))
		site_record(v, packed, insns, sp);
	else
		slow_site(v, packed_id(packed), insns);
}

/* @udata: the packed site */
static void on_entry(unsigned cpu, void *udata)
{
	entry(&vcpus[cpu], (uintptr_t)udata, false);
}

static void on_landing(unsigned cpu, void *udata)
{
	landing(&vcpus[cpu], (uintptr_t)udata, false);
}

/* Outside the kernel. The function that a stub jumped to is known, the next new block is not one. */
static void on_far_entry(unsigned cpu, void *udata)
{
	vcpus[cpu].stub_sp = 0;
	entry(&vcpus[cpu], (uintptr_t)udata, true);
}

static void on_far_landing(unsigned cpu, void *udata)
{
	landing(&vcpus[cpu], (uintptr_t)udata, true);
}

/* The next record is stamped, however near. More than once before it only makes it look further away. */
static inline void stamp_next(struct vcpu *v)
{
	v->stamp_insns -= BP_STAMP_INSNS;
}

/*
 * Kernel blocks that access ports: what a device takes for it must not be divided among the instructions
 * around it.
 */
static void on_io_entry(unsigned cpu, void *udata)
{
	stamp_next(&vcpus[cpu]);
	entry(&vcpus[cpu], (uintptr_t)udata, false);
	stamp_next(&vcpus[cpu]);
}

static void on_io_landing(unsigned cpu, void *udata)
{
	stamp_next(&vcpus[cpu]);
	landing(&vcpus[cpu], (uintptr_t)udata, false);
	stamp_next(&vcpus[cpu]);
}

static void on_io_count(unsigned cpu, void *udata)
{
	*vcpus[cpu].insns_ptr += (uintptr_t)udata;
	stamp_next(&vcpus[cpu]);
}

/* Blocks that are only counted, where QEMU cannot do it inline. */
static void on_count(unsigned cpu, void *udata)
{
	vcpus[cpu].insns += (uintptr_t)udata;
}

/* @udata: enum pending */
static void on_indirect(unsigned cpu, void *udata)
{
	vcpus[cpu].pending = (uint32_t)(uintptr_t)udata;
}

/* @udata: the address behind the jump, NULL when the stack pointer at the target is not known */
static void on_stub(unsigned cpu, void *udata)
{
	vcpus[cpu].stub_sp = udata ? vcpus[cpu].regs[REG_RSP] : ANY_SP;
	vcpus[cpu].stub_next = (uintptr_t)udata;
}

/* ---- hooks: guest memory is read here, nothing in it is trusted ---- */

static bool guest_read(const struct vcpu *v, uint64_t addr, void *dst, size_t len)
{
	return addr && v->cpu && q.memory_rw(v->cpu, addr, dst, len, false) == 0;
}

static uint64_t guest_u64(const struct vcpu *v, uint64_t base, int32_t off)
{
	uint64_t x = 0;

	if (off < 0 || !guest_read(v, base + (uint64_t)off, &x, 8))
		return 0;
	return x;
}

static uint32_t guest_u32(const struct vcpu *v, uint64_t base, int32_t off)
{
	uint32_t x = 0;

	if (off < 0 || !guest_read(v, base + (uint64_t)off, &x, 4))
		return 0;
	return x;
}

/* A NUL-terminated guest string, cut at @cap - 1; page by page, so a string at the end of memory reads. */
static size_t guest_string(const struct vcpu *v, uint64_t addr, char *dst, size_t cap)
{
	size_t len = 0;

	while (addr && len + 1 < cap) {
		size_t n = 4096 - (addr & 4095);
		char *nul;

		if (n > cap - 1 - len)
			n = cap - 1 - len;
		if (n > 256)
			n = 256;
		if (!guest_read(v, addr, dst + len, n))
			break;
		nul = memchr(dst + len, 0, n);
		if (nul)
			return (size_t)(nul - dst);
		len += n;
		addr += n;
	}
	dst[len] = '\0';
	return len;
}

/* The path of a file inside its file system, "/lib/libc.so.6"; components from the end of @dst. */
static const char *guest_path(const struct vcpu *v, uint64_t file, char *dst, size_t cap)
{
	const struct bp_guest_layout *l = &shm->layout;
	uint64_t dentry = guest_u64(v, file, l->file_dentry);
	char *p = dst + cap - 1;

	*p = '\0';
	for (unsigned depth = 0; dentry && depth < 40; depth++) {
		uint64_t parent = guest_u64(v, dentry, l->dentry_parent);
		char name[256];
		size_t len;

		if (parent == dentry)
			break;
		len = guest_string(v, guest_u64(v, dentry, l->dentry_name), name, sizeof(name));
		if ((size_t)(p - dst) < len + 1)
			break;
		p -= len;
		memcpy(p, name, len);
		*--p = '/';
		dentry = parent;
	}
	return p;
}

static void hook_switch(struct vcpu *v)
{
	const struct bp_guest_layout *l = &shm->layout;
	struct bp_ctl_switch c = {.prev = v->regs[REG_RDI], .next = v->regs[REG_RSI]};

	if (l->task_pid >= 0 && l->task_comm >= 0) {
		c.known = guest_read(v, c.next + (uint64_t)l->task_pid, &c.pid, 4);
		c.tgid = guest_u32(v, c.next, l->task_tgid);
		c.mm = guest_u64(v, c.next, l->task_mm);
		c.flags = guest_u32(v, c.next, l->task_flags);
		c.parent = guest_u64(v, c.next, l->task_parent);
		guest_read(v, c.next + (uint64_t)l->task_comm, c.comm, sizeof(c.comm));
	}
	put_ctl(v, BP_CTL_SWITCH, &c, sizeof(c), NULL, 0);
}

static void hook_exec(struct vcpu *v)
{
	const struct bp_guest_layout *l = &shm->layout;
	uint64_t bprm = v->regs[REG_RDI];
	struct bp_ctl_exec c = {.mm = guest_u64(v, bprm, l->bprm_mm)};
	char path[1024];

	c.path_len = guest_string(v, guest_u64(v, bprm, l->bprm_filename), path, sizeof(path));
	put_ctl(v, BP_CTL_EXEC, &c, sizeof(c), path, c.path_len);
}

static void hook_fork(struct vcpu *v)
{
	const struct bp_guest_layout *l = &shm->layout;
	struct bp_ctl_fork c = {.task = v->regs[REG_RDI]};

	c.mm = guest_u64(v, c.task, l->task_mm);
	c.pid = guest_u32(v, c.task, l->task_pid);
	c.tgid = guest_u32(v, c.task, l->task_tgid);
	put_ctl(v, BP_CTL_FORK, &c, sizeof(c), NULL, 0);
}

static void hook_mmap(struct vcpu *v)
{
	const struct bp_guest_layout *l = &shm->layout;
	uint64_t vma = v->regs[REG_RDI], file = guest_u64(v, vma, l->vma_file);
	struct bp_ctl_mmap c = {.mm = guest_u64(v, vma, l->vma_mm)};
	char path[1024];
	const char *p;

	if (!file || l->file_dentry < 0)
		return;
	c.start = guest_u64(v, vma, l->vma_start);
	c.end = guest_u64(v, vma, l->vma_end);
	c.pgoff = guest_u64(v, vma, l->vma_pgoff) << 12;
	c.flags = guest_u64(v, vma, l->vma_flags);
	p = guest_path(v, file, path, sizeof(path));
	c.path_len = strlen(p);
	put_ctl(v, BP_CTL_MMAP, &c, sizeof(c), p, c.path_len);
}

/* One module's function symbols, while its whole symbol table is still in memory. */
static void module_symbols(struct vcpu *v, uint64_t mod, struct bp_ctl_module *c, char **out)
{
	enum { MAX_SYMS = 200000, SYM_BYTES = 24, MAX_NAMES = 2 << 20 };
	const struct bp_guest_layout *l = &shm->layout;
	uint64_t ks = guest_u64(v, mod, l->mod_kallsyms);
	uint64_t symtab = guest_u64(v, ks, l->ks_symtab), strtab = guest_u64(v, ks, l->ks_strtab);
	uint32_t n = guest_u32(v, ks, l->ks_num);
	uint8_t *syms;
	char *names;
	size_t len = 0;

	if (!ks || !symtab || !strtab || !n || n > MAX_SYMS)
		return;
	syms = malloc((size_t)n * SYM_BYTES);
	names = malloc(MAX_NAMES);
	if (!syms || !names || !guest_read(v, symtab, syms, (size_t)n * SYM_BYTES)) {
		free(syms);
		free(names);
		return;
	}
	/* Elf64_Sym: name u32, info u8, other u8, shndx u16, value u64, size u64. */
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t name;
		uint64_t value;
		uint8_t info = syms[(size_t)i * SYM_BYTES + 4];

		memcpy(&name, syms + (size_t)i * SYM_BYTES, 4);
		memcpy(&value, syms + (size_t)i * SYM_BYTES + 8, 8);
		/* STT_FUNC; the kernel may have replaced info by an nm letter: then names decide. */
		if ((info & 15) != 2 && info != 't' && info != 'T')
			continue;
		if (value - c->base >= c->size && value - c->init_base >= c->init_size)
			continue;
		if (len + 8 + 256 > MAX_NAMES)
			break;
		set_add(&module_starts, value);
		memcpy(names + len, &value, 8);
		len += 8;
		len += guest_string(v, strtab + name, names + len, 256) + 1;
		c->n_syms++;
	}
	pthread_mutex_unlock(&lock);
	free(syms);
	c->syms_len = len;
	*out = names;
}

static void hook_module(struct vcpu *v, bool load)
{
	const struct bp_guest_layout *l = &shm->layout;
	uint64_t mod = v->regs[REG_RDI];
	struct bp_ctl_module c = {0};
	char *syms = NULL;

	if (l->mod_name < 0 || l->mod_base < 0)
		return;
	guest_string(v, mod + (uint64_t)l->mod_name, c.name, sizeof(c.name));
	c.base = guest_u64(v, mod, l->mod_base);
	c.size = guest_u32(v, mod, l->mod_size);
	c.init_base = guest_u64(v, mod, l->mod_init_base);
	c.init_size = guest_u32(v, mod, l->mod_init_size);
	if (load) {
		module_symbols(v, mod, &c, &syms);
	} else {
		pthread_mutex_lock(&lock);
		set_remove_range(&module_starts, c.base, c.base + c.size);
		pthread_mutex_unlock(&lock);
	}
	put_ctl(v, load ? BP_CTL_MODULE : BP_CTL_MODULE_FREE, &c, sizeof(c), syms, c.syms_len);
	free(syms);
}

static void hook_console(struct vcpu *v)
{
	uint64_t text = v->regs[REG_RSI], len = (uint32_t)v->regs[REG_RDX];
	char buf[1024];

	if (len > sizeof(buf))
		len = sizeof(buf);
	if (len && guest_read(v, text, buf, len))
		put_ctl(v, BP_CTL_CONSOLE, &len, sizeof(len), buf, len);
}

/* @udata: site in the lower half, hook in the upper one */
static void on_hook(unsigned cpu, void *udata)
{
	uint32_t id = (uint32_t)(uintptr_t)udata, hook = (uint32_t)((uintptr_t)udata >> 32);
	uint32_t n_insns = shm_sites[id - BP_CTL_N].n_insns, kind = shm->hooks[hook].kind;
	struct vcpu *v = &vcpus[cpu];
	uint64_t insns;

	if (v->regs == unknown_regs) {
		entry(v, pack_site(id), true);
		return;
	}
	insns = *v->insns_ptr;
	v->pending = PENDING_NONE;
	v->last_sp = 0;
	if (kind == BP_HOOK_SYSCALL || kind == BP_HOOK_STAMP) {
		put_site(v, id, insns, v->regs[kind == BP_HOOK_SYSCALL ? REG_RAX : REG_RSP]);
		*v->insns_ptr += n_insns;
		return;
	}
	slow_site(v, id, insns);
	switch (kind) {
	case BP_HOOK_SWITCH:
		hook_switch(v);
		break;
	case BP_HOOK_EXEC:
		hook_exec(v);
		break;
	case BP_HOOK_FORK:
		hook_fork(v);
		break;
	case BP_HOOK_MMAP:
		hook_mmap(v);
		break;
	case BP_HOOK_MODULE:
		hook_module(v, true);
		break;
	case BP_HOOK_MODULE_FREE:
		hook_module(v, false);
		break;
	case BP_HOOK_EXIT:
		put_ctl(v, BP_CTL_EXIT, &(uint64_t[2]){v->regs[REG_RDI], 0}, 16, NULL, 0);
		break;
	case BP_HOOK_CONSOLE:
		hook_console(v);
		break;
	case BP_HOOK_MARK:
		put_ctl(v, BP_CTL_MARK, &(uint64_t[2]){hook, v->regs[REG_RDI]}, 16, NULL, 0);
		break;
	default:
		break;
	}
	*v->insns_ptr += n_insns;
}

/* ---- translation ---- */

static size_t insn_bytes(const struct qemu_plugin_insn *insn, uint8_t buf[16])
{
	size_t n = qemu_plugin_insn_size(insn);

	if (n > 15)
		n = 15;
	if (q.insn_data_v3)
		return q.insn_data_v3(insn, buf, n);
	memcpy(buf, q.insn_data_v1(insn), n);
	return n;
}

enum flow { FLOW_OTHER, FLOW_CALL, FLOW_CALL_INDIRECT, FLOW_JUMP, FLOW_JUMP_INDIRECT, FLOW_IRET };

/*
 * What the last instruction of a block does; @target for direct calls and jumps. Only the
 * instruction's own bytes are looked at, and prefixes are skipped only as far as they go. Source: Intel SDM
 * volume 2, CALL, Jcc, JMP, IRET, SYSRET.
 */
static enum flow decode_flow(const uint8_t *b, size_t n, uint64_t next, uint64_t *target)
{
	size_t i = 0;
	int32_t rel;

	while (i < n && (b[i] == 0xf2 || b[i] == 0xf3 || b[i] == 0x66 || b[i] == 0x2e || b[i] == 0x3e))
		i++;
	/* REX exists in 64-bit mode only, where a bare 0x4x is never the last instruction of a block by
	 * itself. */
	if (i + 1 < n && (b[i] & 0xf0) == 0x40)
		i++;
	if (i >= n)
		return FLOW_OTHER;
	if ((b[i] == 0xe8 || b[i] == 0xe9) && n - i == 5) {
		memcpy(&rel, b + i + 1, 4);
		*target = next + (uint64_t)(int64_t)rel;
		return b[i] == 0xe8 ? FLOW_CALL : FLOW_JUMP;
	}
	if (b[i] == 0xe8 && n - i == 3) {
		*target = 0;
		return FLOW_CALL_INDIRECT;
	}
	if (b[i] == 0xeb && n - i == 2) {
		*target = next + (uint64_t)(int64_t)(int8_t)b[i + 1];
		return FLOW_JUMP;
	}
	if (b[i] >= 0x70 && b[i] <= 0x7f && n - i == 2) {
		*target = next + (uint64_t)(int64_t)(int8_t)b[i + 1];
		return FLOW_JUMP;
	}
	if (n - i == 6 && b[i] == 0x0f && (b[i + 1] & 0xf0) == 0x80) {
		memcpy(&rel, b + i + 2, 4);
		*target = next + (uint64_t)(int64_t)rel;
		return FLOW_JUMP;
	}
	if (b[i] == 0xff && i + 1 < n && ((b[i + 1] >> 3 & 7) == 2 || (b[i + 1] >> 3 & 7) == 3))
		return FLOW_CALL_INDIRECT;
	if (b[i] == 0xff && i + 1 < n && (b[i + 1] >> 3 & 7) == 4)
		return FLOW_JUMP_INDIRECT;
	if (b[i] == 0x9a)
		return FLOW_CALL_INDIRECT;
	if (b[i] == 0xcf || (b[i] == 0x0f && i + 1 < n && b[i + 1] == 0x07))
		return FLOW_IRET;
	return FLOW_OTHER;
}

/* Does a block access ports? Source: Intel SDM volume 2, IN, INS, OUT, OUTS. */
static bool accesses_ports(const struct qemu_plugin_tb *tb, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		size_t len = qemu_plugin_insn_size(insn), at = 0;
		uint8_t b[16];

		if (len > 3)
			continue;
		insn_bytes(insn, b);
		while (at + 1 < len && (b[at] == 0x66 || b[at] == 0xf2 || b[at] == 0xf3))
			at++;
		if ((len - at == 1 && ((b[at] & 0xfc) == 0xec || (b[at] & 0xfc) == 0x6c)) ||
		    (len - at == 2 && (b[at] & 0xfc) == 0xe4))
			return true;
	}
	return false;
}

enum stub { STUB_NONE, STUB_PLT, STUB_RESOLVER };

/*
 * Jumps from a program's procedure linkage table into a library: through an address in memory relative
 * to the instruction pointer, which compilers use for nothing but tail calls to other files; or, at the
 * first call, through r11 at the end of the dynamic linker's resolver. Source: System V ABI for AMD64,
 * "Procedure Linkage Table".
 */
static enum stub decode_stub(const uint8_t *b, size_t n)
{
	size_t i = n && (b[0] == 0xf2 || b[0] == 0x3e);

	if (n - i == 6 && b[i] == 0xff && b[i + 1] == 0x25)
		return STUB_PLT;
	if (n - i == 3 && b[i] == 0x41 && b[i + 1] == 0xff && b[i + 2] == 0xe3)
		return STUB_RESOLVER;
	return STUB_NONE;
}

/* Does a 64-bit block load the stack pointer: mov to rsp from a register or memory, pop rsp? */
static bool loads_stack_pointer(const struct qemu_plugin_tb *tb, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t b[16];
		size_t len = insn_bytes(qemu_plugin_tb_get_insn(tb, i), b);

		if (len == 1 && b[0] == 0x5c)
			return true;
		if (len >= 3 && (b[0] & 0xf9) == 0x48 && b[1] == 0x89 && (b[2] & 0xc7) == 0xc4)
			return !(b[0] & 1);
		if (len >= 3 && (b[0] & 0xfc) == 0x48 && b[1] == 0x8b && (b[2] & 0x38) == 0x20)
			return true;
	}
	return false;
}

/* Do the bytes in front of @insn look like a call? Seen only inside the same page. */
static bool after_call(const struct qemu_plugin_insn *insn, uint64_t vaddr)
{
	const uint8_t *p = qemu_plugin_insn_haddr(insn);
	size_t room_before = vaddr & 4095;

	if (!p)
		return false;
	if (room_before >= 5 && p[-5] == 0xe8)
		return true;
	if (room_before >= 2 && p[-2] == 0xff && (p[-1] & 0xf8) == 0xd0)
		return true;
	if (room_before >= 3 && p[-3] == 0xff && (p[-2] & 0xf8) == 0x50 && (p[-2] & 7) != 4)
		return true;
	if (room_before >= 4 && p[-4] == 0xff && p[-3] == 0x54)
		return true;
	if (room_before >= 6 && p[-6] == 0xff && ((p[-5] & 0xf8) == 0x90 || p[-5] == 0x15))
		return true;
	if (room_before >= 7 && p[-7] == 0xff && (p[-6] == 0x14 || p[-6] == 0x94))
		return true;
	return room_before >= 2 && p[-2] == 0xff && (p[-1] & 0xf8) == 0x10;
}

/* The recorder reads the kernel's symbols while QEMU and the firmware start. */
static __attribute__((noinline)) void wait_prepared(void)
{
	while (!__atomic_load_n(&shm->prepared, __ATOMIC_ACQUIRE) &&
	       !__atomic_load_n(&shm->stop, __ATOMIC_RELAXED) && getppid() == recorder_pid)
		usleep(500);
}

/* The kernel runs where it was linked plus a slide: known when its first page's code shows up there. */
static void find_slide(const struct qemu_plugin_tb *tb, uint64_t vaddr)
{
	uint64_t off = vaddr & (2 * 1024 * 1024 - 1);
	size_t n = qemu_plugin_tb_n_insns(tb), same = 0, all = 0;

	if (!shm->probe_bytes || off >= shm->probe_bytes)
		return;
	for (size_t i = 0; i < n; i++) {
		uint8_t b[16];
		size_t len = insn_bytes(qemu_plugin_tb_get_insn(tb, i), b);

		for (size_t j = 0; j < len && off + all < shm->probe_bytes; j++, all++)
			same += b[j] == shm->probe[off + all];
	}
	/* Relocated addresses differ under KASLR, everything else is as linked. */
	if (same * 2 < all || !all)
		return;
	shm->slide = vaddr - off - shm->head_addr;
	__atomic_store_n(&shm->slide_known, 1, __ATOMIC_RELEASE);
}

#define SITE_HASH (1u << 17)
static uint32_t site_hash[SITE_HASH];
static struct site_private sites[BP_MAX_SITES];

/* One site for each (address, flags, length): a block translated again keeps its id. 0: none is left. Under
 * `lock`. */
static uint32_t site_get(uint64_t pc, uint32_t flags, uint32_t n_insns, int hook)
{
	size_t h = hash_addr(pc ^ flags ^ (uint64_t)n_insns << 32, SITE_HASH);
	uint32_t i;

	for (uint32_t id = site_hash[h]; id; id = sites[i].next) {
		i = id - BP_CTL_N;
		if (shm_sites[i].pc == pc && shm_sites[i].flags == flags && shm_sites[i].n_insns == n_insns &&
		    sites[i].hook == hook)
			return id;
	}
	if (shm->n_sites >= BP_MAX_SITES - BP_CTL_N || n_insns > PACK_INSNS_MAX)
		return 0;
	i = (uint32_t)shm->n_sites;
	shm_sites[i] = (struct bp_site){.pc = pc, .flags = flags, .n_insns = n_insns};
	sites[i] = (struct site_private){.next = site_hash[h], .hook = hook};
	shm->n_sites++;
	return site_hash[h] = i + BP_CTL_N;
}

static struct vcpu *translating_vcpu(void)
{
	/* QEMU's own thread-local variable: its address is another one in each thread. */
	static __thread void **current;

	if (!current)
		current = dlsym(RTLD_DEFAULT, "current_cpu");
	if (current && *current)
		for (unsigned i = 0; i < shm->smp_vcpus && i < BP_MAX_VCPUS; i++)
			if (vcpus[i].cpu == *current)
				return &vcpus[i];
	return NULL;
}

static bool is_function_start(const struct vcpu *v, uint64_t vaddr, const uint8_t *first, size_t first_len)
{
	uint64_t link;

	if (vaddr >= KERNEL_HALF) {
		if (shm->slide_known) {
			link = vaddr - shm->slide;
			if (link - shm->text_base < shm->text_bytes) {
				uint64_t bit = link - shm->text_base;

				return text_bitmap[bit / 8] >> (bit & 7) & 1;
			}
			if (set_has(&module_starts, vaddr))
				return true;
			if (module_starts.used && vaddr >= KERNEL_IMAGE_AREA)
				return false;
		}
		/* Kernel code without symbols: the padding of the function tracer, or endbr64, or a call to
		 * it. */
		if (first_len == 5 && !memcmp(first, "\x0f\x1f\x44\x00\x00", 5))
			return true;
	}
	if (first_len == 4 && !memcmp(first, "\xf3\x0f\x1e\xfa", 4))
		return true;
	if (set_has(&call_targets, vaddr))
		return true;
	/* Not the rest of a stub whose function is not bound yet; pages may be shared at several addresses.
	 */
	if (vaddr < KERNEL_HALF && v && v->stub_sp && (v->stub_next ^ vaddr) & 4095)
		return v->stub_sp == ANY_SP || v->stub_sp == v->regs[REG_RSP];
	return v && v->pending == PENDING_CALL;
}

static int find_hook(uint64_t vaddr)
{
	if (shm->slide_known && vaddr >= KERNEL_HALF)
		for (uint64_t i = 0; i < shm->n_hooks && i < BP_MAX_HOOKS; i++)
			if (shm->hooks[i].addr + shm->slide == vaddr)
				return (int)i;
	return -1;
}

static void count_inline(struct qemu_plugin_tb *tb, size_t n, bool io)
{
	if (io)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_io_count, QEMU_PLUGIN_CB_NO_REGS, (void *)n);
	else if (inline_per_vcpu)
		q.tb_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64,
				     (struct qemu_plugin_u64){.score = scoreboard, .offset = 0}, n);
	else if (inline_global)
		q.tb_inline_v1(tb, QEMU_PLUGIN_INLINE_ADD_U64, &vcpus[0].insns, n);
	else
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_count, QEMU_PLUGIN_CB_NO_REGS, (void *)n);
}

static qemu_vcpu_udata_cb site_callback(uint32_t id, bool io)
{
	const struct bp_site *s = &shm_sites[id - BP_CTL_N];
	bool far = !(s->flags & BP_SITE_KERNEL) || packed_pc(pack_site(id)) != s->pc;

	if (!(s->flags & ~BP_SITE_KERNEL & ~BP_SITE_LANDING))
		return far ? on_far_landing : io ? on_io_landing : on_landing;
	return far ? on_far_entry : io ? on_io_entry : on_entry;
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t vaddr = qemu_plugin_tb_vaddr(tb), target = 0, next;
	size_t n = qemu_plugin_tb_n_insns(tb), first_len, last_len;
	struct qemu_plugin_insn *first, *last;
	uint8_t fb[16], lb[16];
	enum stub stub = STUB_NONE;
	uint32_t flags = 0, site = 0;
	enum flow flow;
	struct vcpu *v;
	int hook = -1;
	bool io;

	(void)id;
	if (!n)
		return;
	first = qemu_plugin_tb_get_insn(tb, 0);
	last = qemu_plugin_tb_get_insn(tb, n - 1);
	first_len = insn_bytes(first, fb);
	last_len = insn_bytes(last, lb);
	next = qemu_plugin_insn_vaddr(last) + last_len;

	if (unlikely(!__atomic_load_n(&shm->prepared, __ATOMIC_ACQUIRE)) && vaddr >= KERNEL_HALF)
		wait_prepared();
	pthread_mutex_lock(&lock);
	shm->n_tbs++;
	if (!shm->first_exec_ticks)
		shm->first_exec_ticks = host_ticks();
	if (!shm->slide_known && vaddr >= KERNEL_IMAGE_AREA)
		find_slide(tb, vaddr);
	flow = decode_flow(lb, last_len, next, &target);
	if (flow == FLOW_CALL && target != next)
		set_add(&call_targets, target);
	if (flow == FLOW_CALL || flow == FLOW_CALL_INDIRECT)
		set_add(&return_sites, next);
	if (flow == FLOW_CALL_INDIRECT)
		qemu_plugin_register_vcpu_insn_exec_cb(last, on_indirect, QEMU_PLUGIN_CB_NO_REGS,
						       (void *)PENDING_CALL);
	if (flow == FLOW_JUMP_INDIRECT && loads_stack_pointer(tb, n))
		qemu_plugin_register_vcpu_insn_exec_cb(last, on_indirect, QEMU_PLUGIN_CB_NO_REGS,
						       (void *)PENDING_UNWIND);
	if (vaddr < KERNEL_HALF && flow == FLOW_JUMP_INDIRECT && !shm->no_user && shm->slide_known)
		stub = decode_stub(lb, last_len);
	if (stub)
		qemu_plugin_register_vcpu_insn_exec_cb(last, on_stub, QEMU_PLUGIN_CB_NO_REGS,
						       stub == STUB_PLT ? (void *)(uintptr_t)next : NULL);
	v = translating_vcpu();
	if (v && v->pending == PENDING_UNWIND)
		set_add(&return_sites, vaddr);
	if (vaddr >= KERNEL_HALF)
		flags |= BP_SITE_KERNEL;
	if (flags & BP_SITE_KERNEL || !shm->no_user || !shm->slide_known) {
		if (is_function_start(v, vaddr, fb, first_len)) {
			flags |= BP_SITE_ENTRY;
			hook = find_hook(vaddr);
			if (flow == FLOW_JUMP && target == vaddr)
				flags |= BP_SITE_LOOP;
		}
		if (after_call(first, vaddr) || set_has(&return_sites, vaddr))
			flags |= BP_SITE_LANDING;
	}
	if (flow == FLOW_IRET) {
		bool to_self = false;

		/* sync_core() returns to its own next instruction: it saves the flags itself. */
		for (size_t i = 0; i < n && !to_self; i++) {
			uint8_t b[16];
			size_t len = insn_bytes(qemu_plugin_tb_get_insn(tb, i), b);

			to_self = len == 1 && b[0] == 0x9c;
		}
		if (!to_self)
			flags |= BP_SITE_IRET;
	}
	if (flags & (BP_SITE_ENTRY | BP_SITE_LANDING | BP_SITE_IRET))
		site = site_get(vaddr, flags, (uint32_t)n, hook);
	if (v && vaddr < KERNEL_HALF)
		v->stub_sp = 0;
	if (v)
		stamp_next(v);
	pthread_mutex_unlock(&lock);

	io = vaddr >= KERNEL_HALF && accesses_ports(tb, n);
	if (!site)
		count_inline(tb, n, io);
	else if (hook >= 0)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_hook, QEMU_PLUGIN_CB_NO_REGS,
						     (void *)((uintptr_t)hook << 32 | site));
	else
		qemu_plugin_register_vcpu_tb_exec_cb(tb, site_callback(site, io), QEMU_PLUGIN_CB_NO_REGS,
						     (void *)pack_site(site));
}

/* ---- life of a vCPU and of QEMU ---- */

static void on_idle(qemu_plugin_id_t id, unsigned cpu)
{
	struct vcpu *v = &vcpus[cpu];

	(void)id;
	if (cpu >= BP_MAX_VCPUS || v->idle)
		return;
	v->idle = true;
	put_ctl(v, BP_CTL_IDLE, NULL, 0, NULL, 0);
}

static void on_resume(qemu_plugin_id_t id, unsigned cpu)
{
	struct vcpu *v = &vcpus[cpu];

	(void)id;
	if (cpu >= BP_MAX_VCPUS || !v->idle)
		return;
	v->idle = false;
	put_ctl(v, BP_CTL_RESUME, NULL, 0, NULL, 0);
}

static void on_vcpu_init(qemu_plugin_id_t id, unsigned cpu)
{
	(void)id;
	if (cpu >= BP_MAX_VCPUS)
		return;
	vcpus[cpu].cpu = q.get_cpu((int)cpu);
	if (inline_per_vcpu)
		vcpus[cpu].insns_ptr = q.scoreboard_find(scoreboard, cpu);
}

static void on_exit_qemu(qemu_plugin_id_t id, void *udata)
{
	(void)id;
	(void)udata;
	shm->atexit_ticks = host_ticks();
	for (unsigned i = 0; i < shm->smp_vcpus && i < BP_MAX_VCPUS; i++) {
		vcpus[i].shm->insns = insns_of(&vcpus[i]);
		/* The rings may be used by vCPU threads still running (7.2's isa-debug-exit): only publish.
		 */
	}
}

static void lookup(void)
{
	*(void **)&q.insn_data_v1 = dlsym(RTLD_DEFAULT, "qemu_plugin_insn_data");
	if (qemu_plugin_version >= 3) {
		*(void **)&q.insn_data_v3 = dlsym(RTLD_DEFAULT, "qemu_plugin_insn_data");
		q.insn_data_v1 = NULL;
	}
	*(void **)&q.tb_inline_v1 = dlsym(RTLD_DEFAULT, "qemu_plugin_register_vcpu_tb_exec_inline");
	*(void **)&q.tb_inline_per_vcpu =
	    dlsym(RTLD_DEFAULT, "qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu");
	*(void **)&q.scoreboard_new = dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_new");
	*(void **)&q.scoreboard_find = dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_find");
	*(void **)&q.get_cpu = dlsym(RTLD_DEFAULT, "qemu_get_cpu");
	*(void **)&q.memory_rw = dlsym(RTLD_DEFAULT, "cpu_memory_rw_debug");
	*(void **)&q.gdb_read = dlsym(RTLD_DEFAULT, "x86_cpu_gdb_read_register");
	*(void **)&q.byte_array_new = dlsym(RTLD_DEFAULT, "g_byte_array_new");
	*(void **)&q.byte_array_free = dlsym(RTLD_DEFAULT, "g_byte_array_free");
}

/*
 * The address of a vCPU's count stands in each block that adds to it, once for each time the block is
 * translated. In low memory it takes 5 bytes of code there, elsewhere 7 or 10.
 */
static int make_vcpus(void)
{
	size_t bytes = BP_MAX_VCPUS * sizeof(*vcpus);
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (p == MAP_FAILED)
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -1;
	vcpus = p;
	return 0;
}

static int map_shm(int fd)
{
	uint8_t *base;
	struct stat st;

	if (fstat(fd, &st) || (uint64_t)st.st_size != bp_shm_bytes())
		return -1;
	base = mmap(NULL, bp_shm_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (base == MAP_FAILED)
		return -1;
	shm = (struct bp_ring_shm *)(void *)base;
	if (shm->magic != BP_RING_MAGIC || shm->bytes != bp_shm_bytes() || make_vcpus())
		return -1;
	shm_sites = (struct bp_site *)(void *)(base + bp_shm_sites_offset());
	text_bitmap = base + bp_shm_bitmap_offset();
	for (unsigned i = 0; i < BP_MAX_VCPUS; i++) {
		vcpus[i].ring = (struct bp_ring_rec *)(void *)(base + bp_shm_ring_offset(i));
		vcpus[i].shm = &shm->vcpu[i];
		vcpus[i].insns_ptr = &vcpus[i].insns;
		vcpus[i].regs = unknown_regs;
	}
	return 0;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv);

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
	int fd = -1;

	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "fd=", 3))
			fd = atoi(argv[i] + 3);
	if (fd < 0 || map_shm(fd)) {
		fprintf(stderr, "bootprof-tcg: this plugin is loaded by `bootprof record`, not by hand\n");
		return -1;
	}
	recorder_pid = getppid();
	shm->smp_vcpus = (uint32_t)info->system.smp_vcpus;
	lookup();
	if (!info->system_emulation || strcmp(info->target_name, "x86_64") ||
	    info->system.max_vcpus > BP_MAX_VCPUS) {
		shm->not_tcg_target = 1;
		shm->api = (uint32_t)qemu_plugin_version;
		return 0;
	}
	if (!q.get_cpu || !q.gdb_read || !q.byte_array_new || !q.byte_array_free || !q.memory_rw ||
	    (!q.insn_data_v1 && !q.insn_data_v3)) {
		shm->no_registers = 1;
		shm->api = (uint32_t)qemu_plugin_version;
		return 0;
	}
	if (q.tb_inline_per_vcpu && info->system.max_vcpus <= 16) {
		/* Up to 16 vCPUs a scoreboard is never moved, so its slots can be used directly. */
		scoreboard = q.scoreboard_new(sizeof(uint64_t));
		inline_per_vcpu = true;
	} else if (q.tb_inline_v1 && info->system.max_vcpus == 1) {
		inline_global = true;
	}
	__atomic_store_n(&shm->api, (uint32_t)qemu_plugin_version, __ATOMIC_RELEASE);
	qemu_plugin_register_vcpu_init_cb(id, on_vcpu_init);
	qemu_plugin_register_vcpu_idle_cb(id, on_idle);
	qemu_plugin_register_vcpu_resume_cb(id, on_resume);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
	qemu_plugin_register_atexit_cb(id, on_exit_qemu, NULL);
	return 0;
}
