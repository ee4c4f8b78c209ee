/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory shared between the plugin inside QEMU (one producer per vCPU) and the recorder (one
 * consumer): a header, a table of sites, and one ring of fixed 16-byte records per vCPU.
 *
 * The plugin writes a record and then publishes `head`; the recorder reads up to `head` and
 * publishes `tail`. A full ring makes the vCPU wait, so nothing is dropped while the recorder lives; when
 * the recorder is gone, recording stops and the guest runs on. Because the memory belongs to both
 * processes, everything published before QEMU was killed can still be read.
 *
 * The file behind it is sparse: only what is used takes memory.
 */
#ifndef BP_COLLECTORS_TCG_RING_H
#define BP_COLLECTORS_TCG_RING_H

#include <stdint.h>

#define BP_RING_MAGIC 0x3130474e52425042ull /* "BPBRNG01" */
#define BP_RING_RECORDS (1u << 19)          /* per vCPU: 8 MiB */
#define BP_MAX_VCPUS 64
#define BP_MAX_SITES (1u << 22)
#define BP_MAX_HOOKS 256
#define BP_MAX_TEXT_BYTES (64u << 20)       /* largest kernel text: one bit a byte says "a function starts here" */
#define BP_HEAD_BYTES 64                    /* code bytes compared at a hook to prove the slide */

/* One record. `a`: bits 0-23 the site or control code, bits 24-63 host ticks / 2^BP_TICK_SHIFT, 0: not
 * taken; the time is then between the stamped records around it, divided by instructions.
 * `b`: bits 0-31 low half of the stack pointer (for a system call entry: its number; for a control record:
 * how many records of payload follow), bits 32-63 low half of the instruction count. */
struct bp_ring_rec {
	uint64_t a, b;
};

#define BP_REC_ID_BITS 24
#define BP_REC_ID_MASK ((1u << BP_REC_ID_BITS) - 1)
#define BP_TICK_SHIFT 4
/* Records at least this many instructions apart are stamped, and those around what takes long by itself: a
 * translation, an access to a device's port. */
#define BP_STAMP_INSNS 128

/* Control codes: ids below BP_CTL_N. Payload layouts below. */
enum bp_ctl {
	BP_CTL_SYNC = 1,   /* one record: { host ticks, instructions }, in full */
	BP_CTL_PC,         /* one record: { pc, 0 }: the next record's site runs at this address */
	BP_CTL_IDLE,       /* the vCPU halts */
	BP_CTL_RESUME,     /* it goes on; a SYNC comes first */
	BP_CTL_SWITCH,     /* struct bp_ctl_switch */
	BP_CTL_EXEC,       /* struct bp_ctl_exec, path */
	BP_CTL_FORK,       /* struct bp_ctl_fork */
	BP_CTL_MMAP,       /* struct bp_ctl_mmap, path */
	BP_CTL_MODULE,     /* struct bp_ctl_module, then symbols: u64 addr, NUL-terminated name, ... */
	BP_CTL_MODULE_FREE,/* struct bp_ctl_module, no symbols */
	BP_CTL_EXIT,       /* one record: { exit code, 0 } */
	BP_CTL_CONSOLE,    /* u64 length, text */
	BP_CTL_MARK,       /* one record: { hook index, 0 }: a hooked function was entered */
	BP_CTL_N = 64,     /* first site id */
};

struct bp_ctl_switch {
	uint64_t prev, next;  /* task_struct addresses */
	uint32_t pid, tgid;   /* of next */
	uint64_t mm;
	char comm[16];
	uint32_t flags, known; /* task->flags; 1 when the fields above could be read */
	uint64_t parent;
};

struct bp_ctl_exec {
	uint64_t mm;
	uint64_t path_len;
};

struct bp_ctl_fork {
	uint64_t task, mm;    /* the child's */
	uint32_t pid, tgid;
	uint64_t pad;
};

struct bp_ctl_mmap {
	uint64_t mm, start, end, pgoff; /* pgoff in bytes */
	uint64_t flags, path_len;
};

struct bp_ctl_module {
	char name[64];
	uint64_t base, size;            /* text */
	uint64_t init_base, init_size;
	uint64_t syms_len, n_syms;
};

/* What a site is; several flags may be set. */
enum {
	BP_SITE_ENTRY = 1,     /* a function starts here */
	BP_SITE_LANDING = 2,   /* the instruction after a call */
	BP_SITE_IRET = 4,      /* the block ends with iret or sysret */
	BP_SITE_KERNEL = 8,    /* upper half of the address space */
	BP_SITE_LOOP = 16,     /* a function that jumps back to its own first instruction */
};

struct bp_site {
	uint64_t pc;
	uint32_t flags;
	uint32_t n_insns;
};

/* Places where the plugin looks at registers and guest memory. */
enum bp_hook_kind {
	BP_HOOK_NONE,
	BP_HOOK_SWITCH,        /* __switch_to_asm(prev, next) */
	BP_HOOK_SYSCALL,       /* entry_SYSCALL_64: rax is the number */
	BP_HOOK_EXEC,          /* begin_new_exec(bprm) */
	BP_HOOK_FORK,          /* wake_up_new_task(task) */
	BP_HOOK_MMAP,          /* perf_event_mmap(vma) */
	BP_HOOK_MODULE,        /* do_init_module(mod) */
	BP_HOOK_MODULE_FREE,   /* free_module(mod) */
	BP_HOOK_EXIT,          /* do_exit(code) */
	BP_HOOK_CONSOLE,       /* console write(con, text, len) */
	BP_HOOK_MARK,          /* entry is reported, nothing is read */
	BP_HOOK_STAMP,         /* interrupts and exceptions: QEMU itself takes host time before they are entered, so
				* the record is always stamped */
};

struct bp_hook {
	uint64_t addr;         /* as linked */
	uint32_t kind;
	uint32_t pad;
};

/* Member offsets in guest structures, from the kernel's BTF; -1 when not known. */
struct bp_guest_layout {
	int32_t task_comm, task_pid, task_tgid, task_mm, task_flags, task_parent;
	int32_t bprm_filename, bprm_mm;
	int32_t vma_start, vma_end, vma_pgoff, vma_flags, vma_file, vma_mm;
	int32_t file_dentry, dentry_name, dentry_parent;
	int32_t mod_name, mod_base, mod_size, mod_init_base, mod_init_size, mod_kallsyms;
	int32_t ks_symtab, ks_num, ks_strtab;
};

struct bp_ring_vcpu {
	_Alignas(128) uint64_t head;     /* records written, by the plugin */
	uint64_t insns;                  /* instruction count, refreshed now and then, by the plugin */
	uint64_t lost;                   /* records not written because the recorder was gone */
	uint64_t waits;                  /* times the vCPU waited for room */
	_Alignas(128) uint64_t tail;     /* records read, by the recorder */
};

struct bp_ring_shm {
	uint64_t magic;
	uint64_t bytes;                  /* of the whole mapping */

	/* Set by the recorder before `prepared`, except the last two: before QEMU starts. */
	uint32_t prepared;               /* 1: names are loaded; the plugin waits for it at the first kernel code */
	uint64_t text_base, text_bytes;  /* kernel text as linked; 0 bytes: no kernel image known */
	uint64_t n_hooks;
	struct bp_hook hooks[BP_MAX_HOOKS];
	struct bp_guest_layout layout;
	uint64_t head_addr;              /* link address of the first text page ... */
	uint64_t probe_bytes;            /* ... and how many of its bytes are in probe[] */
	uint8_t probe[4096];
	uint32_t use_clock;              /* 0: rdtsc, 1: clock_gettime(CLOCK_MONOTONIC) */
	uint32_t no_user;                /* 1: user space is not traced */

	/* Set by the plugin. */
	uint32_t api;                    /* plugin API version chosen; 0 until installed */
	uint32_t smp_vcpus;
	uint32_t not_tcg_target;         /* installed for a target that is not x86_64 system emulation */
	uint32_t no_registers;           /* 1: the CPU state could not be found in this QEMU */
	uint64_t slide_known;
	uint64_t slide;                  /* virtual address minus link address */
	uint64_t n_sites;
	uint64_t first_exec_ticks;       /* first instruction of the guest */
	uint64_t atexit_ticks;           /* orderly end of QEMU */
	uint64_t n_tbs;                  /* translations */

	/* Set by the recorder at any time. */
	uint32_t stop;                   /* 1: write no more records */

	struct bp_ring_vcpu vcpu[BP_MAX_VCPUS];
};

/* Layout of the mapping behind the header. */
static inline uint64_t bp_shm_sites_offset(void)
{
	return (sizeof(struct bp_ring_shm) + 4095) & ~4095ull;
}

static inline uint64_t bp_shm_bitmap_offset(void)
{
	return bp_shm_sites_offset() + (uint64_t)BP_MAX_SITES * sizeof(struct bp_site);
}

static inline uint64_t bp_shm_ring_offset(unsigned vcpu)
{
	return bp_shm_bitmap_offset() + BP_MAX_TEXT_BYTES / 8 +
	       (uint64_t)vcpu * BP_RING_RECORDS * sizeof(struct bp_ring_rec);
}

static inline uint64_t bp_shm_bytes(void)
{
	return bp_shm_ring_offset(BP_MAX_VCPUS);
}

#endif
