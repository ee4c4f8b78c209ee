// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/vcpu/run_stacks.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"

#define CPUS_MAX 256
#define STACK_BYTES 8192 /* QEMU's stacks are mostly less deep than this */
#define RING_BYTES ((size_t)64 << 10)
#define RECORD_MAX ((size_t)64 << 10) /* its size is 16 bits */
/* The kernel's numbers (asm/perf_regs.h of x86): ax to ip, and r8 to r15. */
#define KERNEL_REGS UINT64_C(0xff01ff)

struct cpu {
	int fd;
	struct perf_event_mmap_page *map; /* and the ring, from the next page on */
};

struct bp_run_stacks {
	pid_t pid;
	size_t page_bytes;
	struct cpu cpus[CPUS_MAX];
	size_t n;
	uint8_t record[RECORD_MAX];
};

/* ---- records ---- */

static uint64_t word(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

/* @rec: a record of type SAMPLE with the fields that open_cpu() asks for, in the order of their bits; false:
 * something is missing, or it is another process's */
static bool parse_sample(pid_t pid, const uint8_t *rec, size_t len, struct bp_run_sample *ret)
{
	/* From the kernel's order. */
	static const uint8_t dwarf[BP_RUN_REGS] = {0, 3, 2, 1, 4, 5, 6, 7, 16, 8, 9, 10, 11, 12, 13, 14, 15};
	size_t at = sizeof(struct perf_event_header);
	uint32_t ids[2], cpu;
	uint64_t dumped;

	/* pid and tid, time, CPU, what the registers are. */
	if (len < at + 4 * 8)
		return false;
	memcpy(ids, rec + at, sizeof(ids));
	if (ids[0] != (uint32_t)pid)
		return false;
	ret->tid = ids[1];
	ret->time_ns = word(rec + at + 8);
	memcpy(&cpu, rec + at + 16, sizeof(cpu));
	ret->cpu = cpu;
	if (word(rec + at + 24) != PERF_SAMPLE_REGS_ABI_64)
		return false;
	at += 4 * 8;
	if (len < at + 8 * BP_RUN_REGS + 8)
		return false;
	for (size_t i = 0; i < BP_RUN_REGS; i++)
		ret->regs[dwarf[i]] = word(rec + at + 8 * i);
	at += 8 * BP_RUN_REGS;
	/* The size of the copy, the copy, and how much of it could be read. */
	dumped = word(rec + at);
	at += 8;
	ret->stack = rec + at;
	ret->stack_bytes = 0;
	if (!dumped)
		return true;
	if (dumped > len - at || len - at - dumped < 8)
		return false;
	ret->stack_bytes = (size_t)word(rec + at + dumped);
	return ret->stack_bytes <= dumped;
}

struct bp_err *bp_run_stacks_parse(pid_t pid, const uint8_t *ring, uint64_t size, uint64_t tail,
				   uint64_t head, uint8_t *record, bp_run_seen *seen, void *self)
{
	struct bp_err *err = NULL;

	/* More than there is room for: that is no ring. */
	if (head - tail > size)
		return NULL;
	while (!err && head - tail >= sizeof(struct perf_event_header)) {
		struct perf_event_header h;
		struct bp_run_sample sample;
		size_t at = (size_t)(tail & (size - 1)), first;

		/* Records are in steps of 8 bytes, as their head is: that is in one piece. */
		if (size - at < sizeof(h))
			break;
		memcpy(&h, ring + at, sizeof(h));
		if (h.size < sizeof(h) || h.size % 8 || h.size > head - tail)
			break;
		first = h.size < size - at ? h.size : (size_t)(size - at);
		memcpy(record, ring + at, first);
		memcpy(record + first, ring, h.size - first);
		tail += h.size;
		if (h.type == PERF_RECORD_SAMPLE && parse_sample(pid, record, h.size, &sample))
			err = seen(self, &sample);
	}
	return err;
}

/* ---- CPUs ---- */

/* Returns 0 or an errno. */
static int open_cpu(const struct bp_run_stacks *s, unsigned hz, int nr, struct cpu *ret)
{
	struct perf_event_attr attr = {
	    .type = PERF_TYPE_SOFTWARE,
	    .size = sizeof(attr),
	    .config = PERF_COUNT_SW_CPU_CLOCK,
	    .freq = 1,
	    .sample_freq = hz,
	    .sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_REGS_USER |
			   PERF_SAMPLE_STACK_USER,
	    .sample_regs_user = KERNEL_REGS,
	    .sample_stack_user = STACK_BYTES,
	    .exclude_hv = 1,
	    .exclude_idle = 1,
	    .use_clockid = 1,
	    .clockid = CLOCK_MONOTONIC,
	    /* Nobody is to be woken: it is read now and then. */
	    .watermark = 1,
	    .wakeup_watermark = RING_BYTES,
	};
	bp_autoclose int fd =
	    (int)syscall(SYS_perf_event_open, &attr, -1, nr, -1, (unsigned long)PERF_FLAG_FD_CLOEXEC);
	void *map;

	if (fd < 0)
		return errno;
	map = mmap(NULL, s->page_bytes + RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return errno;
	*ret = (struct cpu){.fd = fd, .map = map};
	fd = -1;
	return 0;
}

struct bp_err *bp_run_stacks_create(pid_t pid, unsigned hz, struct bp_run_stacks **ret)
{
	long n = sysconf(_SC_NPROCESSORS_CONF);
	struct bp_run_stacks *s;
	int why = ENODEV;

#ifndef __x86_64__
	return bp_err_new(BP_EUNSUPPORTED, "stacks of running threads: on x86-64 only");
#endif
	s = calloc(1, sizeof(*s));
	if (!s)
		return bp_err_nomem();
	s->pid = pid;
	s->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	for (int i = 0; i < n && s->n < CPUS_MAX; i++) {
		int rc = open_cpu(s, hz, i, &s->cpus[s->n]);

		s->n += !rc;
		/* One that is not online has no clock. */
		why = rc && rc != ENODEV ? rc : why;
	}
	if (s->n) {
		*ret = s;
		return NULL;
	}
	free(s);
	return bp_err_new(BP_EUNSUPPORTED, "perf_event_open: %s", strerror(why));
}

void bp_run_stacks_destroy(struct bp_run_stacks *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++) {
		munmap(s->cpus[i].map, s->page_bytes + RING_BYTES);
		close(s->cpus[i].fd);
	}
	free(s);
}

struct bp_err *bp_run_stacks_read(struct bp_run_stacks *s, bp_run_seen *seen, void *self)
{
	struct bp_err *err = NULL;

	for (size_t i = 0; i < s->n && !err; i++) {
		struct perf_event_mmap_page *map = s->cpus[i].map;
		uint64_t head = __atomic_load_n(&map->data_head, __ATOMIC_ACQUIRE);

		err = bp_run_stacks_parse(s->pid, (const uint8_t *)map + s->page_bytes, RING_BYTES,
					  map->data_tail, head, s->record, seen, self);
		/* What was in it has been read by now. */
		__atomic_store_n(&map->data_tail, head, __ATOMIC_RELEASE);
	}
	return err;
}
