// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/qemu/blocks.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collectors/qemu/x86flow.h"
#include "core/cleanup.h"

#define N_BATCHES 4
#define PREFETCH 12

/* The table of blocks: grows up to this and is then forgotten. A few hundred thousand is what a long boot
 * has. */
#define FIRST_SLOTS (1u << 14)
#define MAX_SLOTS (1u << 21)
#define EMPTY UINT64_MAX

#define KERNEL_HALF ((uint64_t)1 << 63)
#define NO_FUNC UINT32_MAX
#define NO_ADDR UINT64_MAX

/* A system call's own function is at most so many calls away from the entry. */
#define HANDLER_DEPTH 6
#define MAX_HANDLERS 4096

/* How far down a stack is searched, and how many tail calls in a row are kept. */
#define SEARCH_DEPTH 64
#define MAX_TAIL 8

/* So many branches in a row that were patched out. */
#define MAX_PATCHED 4

/* Longest straight code that is looked at; a translated block is seldom longer. */
#define CODE_BYTES 256

#define MAX_NAMES (1u << 19)
#define MAX_NAME_TEXT (32u << 20)

enum {
	F_START = 1,        /* the block is where the function begins */
	F_THROUGH = 2,      /* not a function in the sense of a profile; the caller's time goes on */
	F_RETURN_THUNK = 4, /* of these: control returns from here */
	F_USER = 8,
	F_IRQ = 16, /* the kernel's entry for an interrupt or exception */
	F_SYSCALL = 32,
	F_SWITCH = 64, /* another stack from here on */
	F_UNNAMED = 128,
	F_LOCAL = 512,      /* the block ends in a jump to elsewhere in its own function */
	F_HANDLER = 1024,   /* carries out a system call: see `handlers` */
	F_ENTRY_HOOK = 256, /* called first thing in each function, patched out as a rule */
};

struct block {
	uint64_t addr; /* EMPTY: free slot */
	uint64_t next; /* behind its last instruction: where a call returns to */
	uint64_t target;
	uint32_t func;
	uint16_t flow; /* enum bp_x86_flow */
	uint16_t flags;
};

enum frame_kind { FRAME_CALL, FRAME_JUMP, FRAME_IRQ };

struct frame {
	uint64_t
	    ret; /* CALL: expected return address, NO_ADDR if unknown; IRQ: the block that was interrupted */
	uint32_t func;
	uint16_t flags; /* of the function's block */
	uint8_t kind;
	bool returning; /* IRQ: the interrupted block was about to return */
};

struct cpu {
	struct block last; /* newest block that counts; addr EMPTY: none */
	uint32_t func;     /* of the newest block that counts */
	bool returning;    /* through a return thunk */
	bool through;      /* through some other thunk */
	uint64_t now;      /* clock at the newest record */
	uint64_t first;    /* what is added to a clock of blocks */
	uint64_t blocks;
	struct frame *frames;
	uint32_t depth, cap;
};

struct bp_blocks_batch {
	struct bp_blocks_rec recs[BP_BLOCKS_BATCH];
	size_t n;
};

struct bp_blocks_state {
	struct bp_blocks b;
	struct bp_import *im;
	struct bp_blocks_options opt;
	bool calls; /* calls and returns are told apart */
	bool kernel_seen;
	bool threaded, stop, failed;
	uint64_t all_blocks;

	struct block *table;
	uint32_t slots, used;
	unsigned shift;
	struct cpu *cpus[BP_BUILDER_CPUS];
	uint32_t n_cpus;

	struct bp_blocks_rec *sorted; /* a batch of several CPUs, one after the other */
	uint32_t counts[BP_BUILDER_CPUS];

	uint64_t n_calls, n_addresses, n_unnamed, n_code, n_lost;

	/* Functions that carry out system calls. */
	struct handler {
		uint32_t func, nr;
	} * handlers;
	size_t n_handlers;

	/* Functions that the trace names: text by the reader, ids by whoever uses the builder. */
	char **names;
	uint32_t *name_func; /* id + 1, 0: not asked for yet */
	uint16_t *name_flags;
	uint32_t n_names, cap_names, name_slots;
	uint32_t *name_hash; /* index + 1 */
	size_t name_text;

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct bp_blocks_batch *batches[N_BATCHES];
	struct bp_blocks_batch *filling;
	uint64_t given, done; /* batches: number i is batches[i % N_BATCHES] */
	struct bp_err *err;
};

/* ---- what functions are ---- */

static bool starts_with(const char *s, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strncmp(s, list[i], strlen(list[i])))
			return true;
	return false;
}

static bool is_one_of(const char *s, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(s, list[i]))
			return true;
	return false;
}

/* Flags of a kernel function by its name: entry points of arch/x86/entry of Linux 2.6 to 6.x. */
static uint16_t flags_of_name(const char *name)
{
	static const char *const returns[] = {"__x86_return_thunk", "srso_return_thunk",
					      "srso_alias_return_thunk", "its_return_thunk",
					      "retbleed_return_thunk"};
	static const char *const through[] = {
	    "__x86_return_thunk",    "__x86_indirect_", "srso_",  "retbleed_",
	    "its_return_thunk",      "__pfx_",          "__cfi_", "zen_untrain",
	    "native_irq_return_iret"};
	static const char *const hooks[] = {"__fentry__", "mcount"};
	static const char *const irqs[] = {
	    "asm_exc_",  "asm_sysvec_",      "asm_common_interrupt", "asm_spurious_interrupt",
	    "asm_int80", "irq_entries_start"};
	static const char *const old_irqs[] = {"apic_timer_interrupt",
					       "common_interrupt",
					       "page_fault",
					       "async_page_fault",
					       "general_protection",
					       "device_not_available",
					       "invalid_op",
					       "divide_error",
					       "int3",
					       "debug",
					       "nmi",
					       "irq_work_interrupt",
					       "reschedule_interrupt",
					       "call_function_interrupt",
					       "call_function_single_interrupt",
					       "double_fault",
					       "hyperv_callback_vector",
					       "spurious_interrupt",
					       "error_interrupt",
					       "x86_platform_ipi",
					       "machine_check",
					       "entry_INT80_compat"};
	static const char *const syscalls[] = {"entry_SYSCALL_64",     "system_call",
					       "entry_SYSCALL_compat", "entry_SYSENTER_compat",
					       "ia32_sysenter_target", "ia32_cstar_target"};
	static const char *const switches[] = {"__switch_to_asm", "__switch_to"};

	if (is_one_of(name, returns, BP_ARRAY_SIZE(returns)))
		return F_THROUGH | F_RETURN_THUNK;
	if (is_one_of(name, hooks, BP_ARRAY_SIZE(hooks)))
		return F_THROUGH | F_ENTRY_HOOK;
	if (starts_with(name, through, BP_ARRAY_SIZE(through)) || strstr(name, ".cold"))
		return F_THROUGH;
	if (is_one_of(name, syscalls, BP_ARRAY_SIZE(syscalls)))
		return F_SYSCALL;
	if (starts_with(name, irqs, BP_ARRAY_SIZE(irqs)) ||
	    is_one_of(name, old_irqs, BP_ARRAY_SIZE(old_irqs)))
		return F_IRQ;
	return is_one_of(name, switches, BP_ARRAY_SIZE(switches)) ? F_SWITCH : 0;
}

/* ---- the table of blocks ---- */

static inline uint32_t slot_of(const struct bp_blocks_state *s, uint64_t addr)
{
	return (uint32_t)((addr * 0x9e3779b97f4a7c15ull) >> s->shift);
}

static struct block *find_block(const struct bp_blocks_state *s, uint64_t addr)
{
	uint32_t at = slot_of(s, addr);

	while (s->table[at].addr != addr && s->table[at].addr != EMPTY)
		at = (at + 1) & (s->slots - 1);
	return &s->table[at];
}

static BP_MUST_CHECK struct bp_err *new_table(struct bp_blocks_state *s, uint32_t slots)
{
	struct block *p = malloc(slots * sizeof(*p));

	if (!p)
		return bp_err_nomem();
	memset(p, 0xff, slots * sizeof(*p));
	free(s->table);
	s->table = p;
	s->slots = slots;
	s->shift = 64 - (unsigned)__builtin_ctz(slots);
	s->used = 0;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *grow_table(struct bp_blocks_state *s)
{
	struct block *old = s->table;
	uint32_t slots = s->slots;
	struct bp_err *err;

	if (slots == MAX_SLOTS)
		return new_table(s, FIRST_SLOTS);
	s->table = NULL;
	err = new_table(s, slots * 2);
	if (err) {
		s->table = old;
		return err;
	}
	for (uint32_t i = 0; i < slots; i++)
		if (old[i].addr != EMPTY) {
			*find_block(s, old[i].addr) = old[i];
			s->used++;
		}
	free(old);
	return NULL;
}

/* Flags of the function that begins at @target, or F_LOCAL when it lies in the same function as @addr. */
static uint16_t flags_at(const struct bp_blocks_state *s, uint64_t addr, uint64_t target)
{
	const struct bp_import_names *n = s->im->names;
	const char *name, *module;
	uint64_t start, own;

	if (!n->find || !n->find(n->self, target, &name, &module, &start))
		return 0;
	if (start == target)
		return flags_of_name(name);
	return n->find(n->self, addr, &name, &module, &own) && own == start ? F_LOCAL : 0;
}

/*
 * How the code of a block ends; only the kernel's is known, and only as it was linked. The kernel patches
 * calls of
 * __fentry__ into nothing, and calls and jumps of thunks into what the thunks do.
 */
static void look_at_code(struct bp_blocks_state *s, struct block *b)
{
	static const size_t sizes[] = {CODE_BYTES, 64, 16, 8, 4, 2, 1};
	uint8_t code[CODE_BYTES];
	struct bp_x86_end end;
	size_t n = 0, at = 0;
	uint16_t local = 0;

	b->flow = BP_X86_UNKNOWN;
	b->next = b->addr + 1;
	b->target = NO_ADDR;
	if (!s->im->names || !s->im->names->code)
		return;
	for (size_t i = 0; i < BP_ARRAY_SIZE(sizes) && !n; i++)
		if (s->im->names->code(s->im->names->self, b->addr, code, sizes[i]))
			n = sizes[i];
	if (!n)
		return;
	s->n_code++;
	do {
		uint16_t flags = 0;

		bp_x86_end(code + at, n - at, b->addr + at, &end);
		at += end.bytes;
		if (end.flow == BP_X86_CALL || end.flow == BP_X86_JUMP)
			flags = flags_at(s, b->addr, end.target);
		local = flags & F_LOCAL;
		if (flags & F_RETURN_THUNK)
			end.flow = BP_X86_RET;
		else if (flags & F_ENTRY_HOOK)
			continue;
		else if (flags & F_THROUGH)
			end.flow = end.flow == BP_X86_CALL ? BP_X86_CALL_INDIRECT : BP_X86_JUMP_INDIRECT;
		break;
	} while (at < n);
	b->flags = (uint16_t)((b->flags & ~F_LOCAL) | local);
	b->flow = (uint16_t)end.flow;
	b->next = b->addr + at;
	b->target = end.target;
}

/* The instruction that seemed to end a block was patched out: the block goes on. */
static struct block look_further(struct bp_blocks_state *s, const struct block *b)
{
	struct block *entry = find_block(s, b->addr), more = *b;

	more.addr = b->next;
	look_at_code(s, &more);
	more.addr = b->addr;
	if (entry->addr == b->addr)
		*entry = more;
	return more;
}

/* Whether the function carries out a system call; remembers which one. */
static BP_MUST_CHECK struct bp_err *look_at_handler(struct bp_blocks_state *s, const char *name,
						    uint32_t func, uint16_t *flags)
{
	const struct bp_import_names *n = s->im->names;
	int nr = n && n->syscall && !*flags ? n->syscall(name) : -1;

	if (nr < 0)
		return NULL;
	for (size_t i = 0; i < s->n_handlers; i++)
		if (s->handlers[i].func == func) {
			*flags |= F_HANDLER;
			return NULL;
		}
	if (s->n_handlers == MAX_HANDLERS)
		return NULL;
	if (!s->handlers) {
		s->handlers = calloc(MAX_HANDLERS, sizeof(*s->handlers));
		if (!s->handlers)
			return bp_err_nomem();
	}
	s->handlers[s->n_handlers++] = (struct handler){func, (uint32_t)nr};
	*flags |= F_HANDLER;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *name_block(struct bp_blocks_state *s, uint64_t addr, bool user,
					       struct block *b)
{
	const struct bp_import_names *n = s->im->names;
	struct bp_builder *to = s->im->builder;
	const char *name, *module;
	uint64_t start;

	if (user) {
		b->flags = F_USER | F_UNNAMED;
		return bp_builder_func(to, BP_SPACE_PSEUDO, 2, 2, "[user]", "", &b->func);
	}
	if (n && n->find && n->find(n->self, addr, &name, &module, &start)) {
		bool kernel = !module || !*module || !strcmp(module, "vmlinux");

		struct bp_err *err = bp_builder_func(to, kernel ? BP_SPACE_KERNEL : BP_SPACE_MODULE, start,
						     start, name, kernel ? "vmlinux" : module, &b->func);

		b->flags = flags_of_name(name);
		if (!err)
			err = look_at_handler(s, name, b->func, &b->flags);
		b->flags |= start == addr ? F_START : 0;
		return err;
	}
	b->flags = F_UNNAMED;
	if (!(addr & KERNEL_HALF))
		return bp_builder_func(to, BP_SPACE_FIRMWARE, 0, 0, "firmware and boot code", "[firmware]",
				       &b->func);
	/* A page at a time: a trace without names must not become a function for every block. */
	return bp_builder_func(to, BP_SPACE_KERNEL, addr & ~4095ull, addr & ~4095ull, "",
			       "[kernel, no symbol]", &b->func);
}

static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *new_block(struct bp_blocks_state *s,
									uint64_t key, struct block **ret)
{
	struct block b = {.addr = key, .flow = BP_X86_STRAIGHT, .next = key, .target = NO_ADDR};
	uint64_t addr = key;
	bool user = false;
	struct bp_err *err = NULL;

	if (s->opt.has_mode) {
		user = (key & (KERNEL_HALF | BP_BLOCKS_USER)) == BP_BLOCKS_USER;
		addr = user ? key & ~BP_BLOCKS_USER : key;
	} else if (!(key & KERNEL_HALF)) {
		/* Low addresses are firmware's and boot code's until the kernel runs, and then those of
		 * processes. */
		user = s->kernel_seen;
	} else if (!s->kernel_seen) {
		s->kernel_seen = true;
		err = new_table(s, s->slots);
	}
	if (!err && s->used >= s->slots / 2)
		err = grow_table(s);
	if (!err)
		err = name_block(s, addr, user, &b);
	if (err)
		return err;
	if (s->calls && !user)
		look_at_code(s, &b);
	*ret = find_block(s, key);
	**ret = b;
	s->used++;
	return NULL;
}

/* ---- stacks ---- */

static inline uint64_t insns_of(const struct bp_blocks_state *s, const struct cpu *c)
{
	return s->opt.count_clock ? c->blocks : 0;
}

/*
 * A system call begins with the function that carries it out: only that says which one it is. One that has
 * been called from elsewhere in the kernel is none.
 */
static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *
enter_handler(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c, const struct block *b)
{
	bool entered = !s->calls;

	for (uint32_t i = c->depth; i && c->depth - i < HANDLER_DEPTH && !entered; i--) {
		if (c->frames[i - 1].flags & F_HANDLER)
			return NULL;
		entered = c->frames[i - 1].flags & F_SYSCALL;
	}
	for (size_t i = 0; i < s->n_handlers && entered; i++)
		if (s->handlers[i].func == b->func)
			return bp_builder_syscall(s->im->builder, cpu, s->handlers[i].nr, c->now,
						  insns_of(s, c));
	return NULL;
}

static BP_MUST_CHECK struct bp_err *push(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					 const struct block *b, enum frame_kind kind, uint64_t ret)
{
	static const enum bp_ev_kind kinds[] = {
	    [FRAME_CALL] = BP_EV_CALL, [FRAME_JUMP] = BP_EV_JUMP, [FRAME_IRQ] = BP_EV_IRQ};

	if (c->depth == c->cap) {
		uint32_t cap = c->cap ? c->cap * 2 : 64;
		struct frame *p;

		if (cap > BP_MAX_DEPTH) {
			/* Deeper than any kernel goes: whatever this is, it is not a stack. */
			struct bp_err *err =
			    bp_builder_leave(s->im->builder, cpu, c->depth, c->now, insns_of(s, c));

			if (err)
				return err;
			c->depth = 0;
		} else {
			p = realloc(c->frames, cap * sizeof(*p));
			if (!p)
				return bp_err_nomem();
			c->frames = p;
			c->cap = cap;
		}
	}
	if ((b->flags & (F_HANDLER | F_START)) == (F_HANDLER | F_START)) {
		struct bp_err *err = enter_handler(s, cpu, c, b);

		if (err)
			return err;
	}
	c->frames[c->depth++] = (struct frame){.ret = ret, .func = b->func, .kind = kind, .flags = b->flags};
	s->n_calls += (b->flags & F_START) != 0;
	return bp_builder_enter(s->im->builder, cpu, kinds[kind], b->func, c->now, insns_of(s, c));
}

static BP_MUST_CHECK struct bp_err *pop_to(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					   uint32_t depth)
{
	uint32_t n = c->depth - depth;

	if (!n)
		return NULL;
	c->depth = depth;
	return bp_builder_leave(s->im->builder, cpu, n, c->now, insns_of(s, c));
}

/* The stack as it must be has @depth functions of what is there, and @b's on top. */
static BP_MUST_CHECK struct bp_err *settle(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					   const struct block *b, uint32_t depth, enum frame_kind kind)
{
	struct bp_err *err = pop_to(s, cpu, c, depth);

	if (err || (c->depth && c->frames[c->depth - 1].func == b->func))
		return err;
	return push(s, cpu, c, b, kind, NO_ADDR);
}

/* Depth up to and with the frame of @func among the @limit newest; 0: none. */
static uint32_t find_func(const struct cpu *c, uint32_t func, uint32_t limit)
{
	for (uint32_t i = c->depth; i && c->depth - i < limit; i--)
		if (c->frames[i - 1].func == func)
			return i;
	return 0;
}

/* Depth below the frame that a return to @addr ends; UINT32_MAX: none. */
static uint32_t find_return(const struct cpu *c, uint64_t addr)
{
	for (uint32_t i = c->depth; i && c->depth - i < SEARCH_DEPTH; i--)
		if (c->frames[i - 1].kind == FRAME_CALL && c->frames[i - 1].ret == addr)
			return i - 1;
	return UINT32_MAX;
}

/* A jump out of a function: into one that has jumped here before (then that goes on), or a tail call. */
static BP_MUST_CHECK struct bp_err *jump(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					 const struct block *b)
{
	uint32_t i = c->depth, n = 0;
	struct bp_err *err = NULL;

	for (; i && n <= MAX_TAIL; i--, n++) {
		if (c->frames[i - 1].func == b->func)
			return pop_to(s, cpu, c, i);
		if (c->frames[i - 1].kind != FRAME_JUMP)
			break;
	}
	if (n > MAX_TAIL)
		err = pop_to(s, cpu, c, c->depth - 1);
	return err ? err : push(s, cpu, c, b, FRAME_JUMP, NO_ADDR);
}

static BP_MUST_CHECK struct bp_err *enter_syscall(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
						  const struct block *b)
{
	bool user = c->depth && c->frames[0].flags & F_USER;
	struct bp_err *err = pop_to(s, cpu, c, user ? 1 : 0);

	if (!err && !(s->im->names && s->im->names->syscall))
		err = bp_builder_syscall(s->im->builder, cpu, UINT32_MAX - 1, c->now, insns_of(s, c));
	return err ? err : push(s, cpu, c, b, FRAME_CALL, NO_ADDR);
}

/* A return; the stack of another task when it goes where no call was, or comes out of a task switch. */
static BP_MUST_CHECK struct bp_err *do_return(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					      const struct block *b)
{
	uint32_t to = find_return(c, b->addr);

	if (to == UINT32_MAX && b->func == c->func)
		return NULL;
	/* A call that was patched into a shorter one returns elsewhere. */
	if (to == UINT32_MAX && !(b->flags & F_START))
		to = find_func(c, b->func, SEARCH_DEPTH);
	if (!to || to == UINT32_MAX)
		return settle(s, cpu, c, b, 0, FRAME_CALL);
	for (uint32_t i = to; i < c->depth; i++)
		if (c->frames[i].flags & F_SWITCH)
			return settle(s, cpu, c, b, 0, FRAME_CALL);
	return settle(s, cpu, c, b, to, FRAME_JUMP);
}

/* From a block whose code is not known (modules): whatever fits the stack. */
static BP_MUST_CHECK struct bp_err *guess(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					  const struct block *b)
{
	uint32_t to = find_return(c, b->addr);

	if (to != UINT32_MAX)
		return settle(s, cpu, c, b, to, FRAME_JUMP);
	if (b->func == c->func)
		return NULL;
	if (b->flags & F_START)
		return push(s, cpu, c, b, FRAME_CALL, NO_ADDR);
	to = find_func(c, b->func, SEARCH_DEPTH);
	return to ? pop_to(s, cpu, c, to) : jump(s, cpu, c, b);
}

/* What led from the CPU's last block to @b, in a trace that has all blocks. */
static BP_MUST_CHECK struct bp_err *follow(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					   const struct block *b)
{
	struct block from = c->last;
	bool returning = c->returning, through = c->through;
	struct bp_err *err;

	c->returning = c->through = false;
	c->last = *b;
	if (!c->depth)
		return push(s, cpu, c, b, FRAME_CALL, NO_ADDR);
	if (b->flags & F_USER)
		return settle(s, cpu, c, b, c->frames[0].flags & F_USER ? 1 : 0, FRAME_CALL);
	if ((b->flags & (F_SYSCALL | F_START)) == (F_SYSCALL | F_START))
		return enter_syscall(s, cpu, c, b);
	if ((b->flags & (F_IRQ | F_START)) == (F_IRQ | F_START)) {
		err = push(s, cpu, c, b, FRAME_IRQ, from.addr);
		if (!err)
			c->frames[c->depth - 1].returning = returning;
		return err;
	}
	/* An iret to what follows it is the kernel's way to serialize the processor. */
	while (from.flow == BP_X86_IRET && !returning && (b->addr != from.next || b->func != c->func)) {
		uint32_t i = c->depth;
		const struct block *resumed;

		while (i && c->frames[i - 1].kind != FRAME_IRQ)
			i--;
		if (!i)
			return settle(s, cpu, c, b, 0, FRAME_CALL);
		returning = c->frames[i - 1].returning;
		resumed = find_block(s, c->frames[i - 1].ret);
		err = pop_to(s, cpu, c, i - 1);
		if (err)
			return err;
		if (!c->depth)
			return push(s, cpu, c, b, FRAME_CALL, NO_ADDR);
		if (resumed->addr == EMPTY)
			return jump(s, cpu, c, b);
		from = *resumed;
	}
	c->func = c->frames[c->depth - 1].func;
	/* QEMU has cut the block in two, or runs it again. */
	if (b->func == from.func && b->func == c->func && b->addr >= from.addr && b->addr < from.next &&
	    !(from.flow == BP_X86_CALL && from.target == b->addr))
		return NULL;
	for (unsigned n = 0; n < MAX_PATCHED && !returning && b->func != c->func && from.target != b->addr &&
			     ((from.flow == BP_X86_JUMP && from.flags & F_LOCAL) ||
			      (from.flow == BP_X86_BRANCH && from.next != b->addr));
	     n++)
		from = look_further(s, &from);
	switch (returning ? BP_X86_RET : from.flow) {
	case BP_X86_CALL:
	case BP_X86_CALL_INDIRECT:
		if (b->flags & F_START || through || from.target == b->addr)
			return push(s, cpu, c, b, FRAME_CALL, from.next);
		/* The call was patched out (alternatives, paravirt), and the block went on behind it. */
		if (b->func == c->func) {
			if (b->addr != from.next)
				look_further(s, &from);
			return NULL;
		}
		if (find_return(c, b->addr) != UINT32_MAX)
			return do_return(s, cpu, c, b);
		if (from.flow == BP_X86_CALL || from.next == b->addr)
			return jump(s, cpu, c, b);
		return push(s, cpu, c, b, FRAME_CALL, from.next);
	case BP_X86_RET:
		return do_return(s, cpu, c, b);
	case BP_X86_UNKNOWN:
		return guess(s, cpu, c, b);
	default:
		if (b->func == c->func)
			return NULL;
		/* A jump that was patched into a return. */
		if (!(b->flags & F_START) && from.flow == BP_X86_JUMP && from.target != b->addr &&
		    find_return(c, b->addr) != UINT32_MAX)
			return do_return(s, cpu, c, b);
		return jump(s, cpu, c, b);
	}
}

/* A block in a trace that lacks some: all that is known is in which function it is. */
static BP_MUST_CHECK struct bp_err *flat(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c,
					 const struct block *b)
{
	struct bp_err *err = pop_to(s, cpu, c, 0);

	c->last = *b;
	if (!err && (b->flags & (F_SYSCALL | F_START)) == (F_SYSCALL | F_START))
		return enter_syscall(s, cpu, c, b);
	return err ? err : push(s, cpu, c, b, b->flags & F_START ? FRAME_CALL : FRAME_JUMP, NO_ADDR);
}

static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *
other_function(struct bp_blocks_state *s, uint32_t cpu, struct cpu *c, const struct block *b)
{
	struct bp_err *err;

	if (b->flags & F_THROUGH && c->depth) {
		/* The thunks of indirect calls end in a return, too. */
		if (b->flags & F_RETURN_THUNK && !c->through)
			c->returning = true;
		else if (b->flow == BP_X86_IRET)
			c->last = *b;
		else
			c->through = true;
		return NULL;
	}
	err = s->calls ? follow(s, cpu, c, b) : flat(s, cpu, c, b);
	c->func = c->depth ? c->frames[c->depth - 1].func : NO_FUNC;
	return err;
}

/* ---- records ---- */

static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *new_cpu(struct bp_blocks_state *s, uint32_t cpu,
								      uint64_t time_ns, struct cpu **ret)
{
	struct cpu *c = calloc(1, sizeof(*c));
	char name[32];
	uint32_t task;
	struct bp_err *err;

	if (!c)
		return bp_err_nomem();
	c->last.addr = EMPTY;
	c->func = NO_FUNC;
	c->now = c->first = s->opt.count_clock ? s->all_blocks : time_ns;
	s->cpus[cpu] = *ret = c;
	if (s->n_cpus <= cpu)
		s->n_cpus = cpu + 1;
	snprintf(name, sizeof(name), "vCPU %u", cpu);
	err = bp_builder_task(s->im->builder, -1, -1, name, 0, c->now, &task);
	return err ? err : bp_builder_switch(s->im->builder, cpu, task, c->now, 0);
}

static BP_MUST_CHECK struct bp_err *lost(struct bp_blocks_state *s, const struct bp_blocks_rec *r,
					 struct cpu *c)
{
	if (!s->opt.count_clock)
		c->now = r->time_ns;
	s->n_lost += r->addr;
	c->depth = 0;
	c->last.addr = EMPTY;
	c->last.flow = BP_X86_UNKNOWN;
	c->func = NO_FUNC;
	c->returning = c->through = false;
	return bp_builder_lost(s->im->builder, r->cpu, r->addr, c->now, "dropped by QEMU's trace buffer");
}

/* The id and the flags of a function that the trace names. */
static BP_MUST_CHECK struct bp_err *named_block(struct bp_blocks_state *s, uint64_t index, struct block *b)
{
	struct bp_err *err = NULL;

	pthread_mutex_lock(&s->lock);
	if (!s->name_func[index]) {
		const char *name = s->names[index];

		err = bp_builder_func(s->im->builder, BP_SPACE_KERNEL, 0, 0, name, "vmlinux", &b->func);
		if (!err) {
			s->name_func[index] = b->func + 1;
			s->name_flags[index] = flags_of_name(name);
			err = look_at_handler(s, name, b->func, &s->name_flags[index]);
		}
	}
	b->func = s->name_func[index] - 1;
	b->flags = s->name_flags[index];
	pthread_mutex_unlock(&s->lock);
	return err;
}

static __attribute__((noinline)) BP_MUST_CHECK struct bp_err *
odd_record(struct bp_blocks_state *s, const struct bp_blocks_rec *r, struct cpu *c)
{
	struct block b = {.addr = r->addr, .flow = BP_X86_STRAIGHT};
	struct bp_err *err;

	if (r->kind == BP_BLOCKS_LOST)
		return lost(s, r, c);
	err = named_block(s, r->addr, &b);
	if (err)
		return err;
	s->n_addresses++;
	if (r->kind == BP_BLOCKS_NAMED)
		b.flags |= F_START;
	if (!s->opt.count_clock)
		c->now = r->time_ns;
	if (b.func != c->func)
		err = other_function(s, r->cpu, c, &b);
	if (s->opt.count_clock)
		c->now = c->first + ++c->blocks;
	return err;
}

/* Records of one CPU. */
static BP_MUST_CHECK struct bp_err *take(struct bp_blocks_state *s, const struct bp_blocks_rec *recs,
					 size_t n)
{
	const bool count = s->opt.count_clock;
	struct cpu *c;
	struct bp_err *err = NULL;

	if (!n)
		return NULL;
	c = s->cpus[recs[0].cpu];
	if (!c) {
		err = new_cpu(s, recs[0].cpu, recs[0].time_ns, &c);
		if (err)
			return err;
	}
	for (size_t i = 0; i < n; i++) {
		const struct bp_blocks_rec *r = &recs[i];
		struct block *b;

		__builtin_prefetch(&s->table[slot_of(s, recs[i + PREFETCH < n ? i + PREFETCH : i].addr)]);
		if (__builtin_expect(r->kind > BP_BLOCKS_AGAIN, 0)) {
			err = odd_record(s, r, c);
			if (err)
				return err;
			continue;
		}
		b = find_block(s, r->addr);
		if (__builtin_expect(b->addr != r->addr || b->addr == EMPTY, 0)) {
			err = new_block(s, r->addr == EMPTY ? EMPTY - 1 : r->addr, &b);
			if (err)
				return err;
		}
		s->n_addresses++;
		s->n_unnamed += b->flags >> 7 & 1;
		if (!count)
			c->now = r->time_ns;
		if (b->func == c->func && c->last.flow < BP_X86_CALL && !c->returning) {
			c->last = *b;
		} else {
			err = other_function(s, r->cpu, c, b);
			if (err)
				return err;
		}
		if (count && r->kind == BP_BLOCKS_RUN)
			c->now = c->first + ++c->blocks;
	}
	return NULL;
}

static BP_MUST_CHECK struct bp_err *take_batch(struct bp_blocks_state *s, const struct bp_blocks_rec *recs,
					       size_t n)
{
	uint32_t first = n ? recs[0].cpu : 0, at = 0;
	size_t same = 1;
	struct bp_err *err = NULL;

	while (same < n && recs[same].cpu == first)
		same++;
	if (same >= n) {
		err = take(s, recs, n);
		s->all_blocks += n;
		return err;
	}
	/* A run for each switch between CPUs would cost more than all that is in it: CPU by CPU. */
	for (size_t i = 0; i < n; i++)
		s->counts[recs[i].cpu]++;
	for (uint32_t cpu = 0; cpu < BP_BUILDER_CPUS; cpu++) {
		uint32_t k = s->counts[cpu];

		s->counts[cpu] = at;
		at += k;
	}
	for (size_t i = 0; i < n; i++)
		s->sorted[s->counts[recs[i].cpu]++] = recs[i];
	memset(s->counts, 0, sizeof(s->counts));
	for (size_t i = 0; i < n && !err; i += same) {
		for (same = 1; i + same < n && s->sorted[i + same].cpu == s->sorted[i].cpu; same++)
			;
		err = take(s, s->sorted + i, same);
	}
	s->all_blocks += n;
	return err;
}

/* ---- the thread ---- */

static void *blocks_main(void *arg)
{
	struct bp_blocks_state *s = arg;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct bp_blocks_batch *t;
		struct bp_err *err;

		while (s->done == s->given && !s->stop)
			pthread_cond_wait(&s->changed, &s->lock);
		if (s->done == s->given)
			break;
		t = s->batches[s->done % N_BATCHES];
		if (!s->failed) {
			pthread_mutex_unlock(&s->lock);
			err = take_batch(s, t->recs, t->n);
			pthread_mutex_lock(&s->lock);
			if (err) {
				s->failed = true;
				s->err = err;
			}
		}
		s->done++;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void join(struct bp_blocks_state *s)
{
	if (!s->threaded)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	s->threaded = false;
}

void bp_blocks_destroy(struct bp_blocks *b)
{
	struct bp_blocks_state *s = b ? b->state : NULL;

	if (!s)
		return;
	join(s);
	for (size_t i = 0; i < N_BATCHES; i++)
		free(s->batches[i]);
	for (uint32_t i = 0; i < s->n_cpus; i++) {
		if (s->cpus[i])
			free(s->cpus[i]->frames);
		free(s->cpus[i]);
	}
	for (uint32_t i = 0; i < s->n_names; i++)
		free(s->names[i]);
	free(s->names);
	free(s->name_func);
	free(s->name_flags);
	free(s->name_hash);
	free(s->table);
	free(s->sorted);
	free(s->handlers);
	bp_err_free(s->err);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

static void blocks_destroyp(struct bp_blocks **b)
{
	bp_blocks_destroy(*b);
}

struct bp_err *bp_blocks_create(struct bp_import *im, const struct bp_blocks_options *opt,
				struct bp_blocks **ret)
{
	struct bp_blocks_state *s = calloc(1, sizeof(*s));
	bp_cleanup(blocks_destroyp) struct bp_blocks *b = NULL;
	struct bp_err *err;

	if (!s)
		return bp_err_nomem();
	b = &s->b;
	b->state = s;
	b->im = s->im = im;
	s->opt = *opt;
	s->kernel_seen = opt->user_first;
	s->calls = opt->complete && im->names && im->names->code;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	for (size_t i = 0; i < N_BATCHES; i++) {
		s->batches[i] = malloc(sizeof(*s->batches[i]));
		if (!s->batches[i])
			return bp_err_nomem();
	}
	s->sorted = malloc(sizeof(s->batches[0]->recs));
	if (!s->sorted)
		return bp_err_nomem();
	s->filling = s->batches[0];
	b->recs = s->filling->recs;
	err = new_table(s, FIRST_SLOTS);
	if (err)
		return err;
	if (opt->count_clock) {
		err = bp_blocks_info(im, "clock_time", "blocks executed, no host time in this trace");
		if (!err)
			err = bp_blocks_info(im, "clock_insns", "blocks executed");
		if (err)
			return err;
	}
	*ret = bp_steal(b);
	return NULL;
}

/* The batch that is being filled goes to the thread, but for the newest @keep. */
static BP_MUST_CHECK struct bp_err *give(struct bp_blocks_state *s, size_t keep)
{
	struct bp_blocks_batch *t = s->filling, *next = s->batches[(s->given + 1) % N_BATCHES];
	struct bp_err *err = NULL;

	t->n = s->b.n - keep;
	if (!s->threaded) {
		err = take_batch(s, t->recs, t->n);
		memmove(t->recs, t->recs + t->n, keep * sizeof(*t->recs));
		s->b.n = keep;
		return err;
	}
	pthread_mutex_lock(&s->lock);
	while (s->given + 1 - s->done >= N_BATCHES && !s->err)
		pthread_cond_wait(&s->changed, &s->lock);
	err = bp_steal(s->err);
	pthread_mutex_unlock(&s->lock);
	if (err)
		return err;
	memcpy(next->recs, t->recs + t->n, keep * sizeof(*t->recs));
	pthread_mutex_lock(&s->lock);
	s->given++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	s->filling = next;
	s->b.recs = next->recs;
	s->b.n = keep;
	return NULL;
}

struct bp_err *bp_blocks_hand_over(struct bp_blocks *b)
{
	struct bp_blocks_state *s = b->state;

	if (b->n <= BP_BLOCKS_KEEP)
		return NULL;
	/* A small trace is not worth a thread. */
	if (!s->threaded && !s->failed)
		s->threaded = !pthread_create(&s->thread, NULL, blocks_main, s);
	return give(s, BP_BLOCKS_KEEP);
}

bool bp_blocks_take_back(struct bp_blocks *b, uint64_t addr)
{
	size_t end = b->n > BP_BLOCKS_KEEP ? b->n - BP_BLOCKS_KEEP : 0;

	for (size_t i = b->n; i > end; i--) {
		if ((b->recs[i - 1].addr | BP_BLOCKS_USER) != (addr | BP_BLOCKS_USER) ||
		    b->recs[i - 1].kind > BP_BLOCKS_AGAIN)
			continue;
		memmove(&b->recs[i - 1], &b->recs[i], (b->n - i) * sizeof(*b->recs));
		b->n--;
		return true;
	}
	return false;
}

struct bp_err *bp_blocks_finish(struct bp_blocks *b)
{
	struct bp_blocks_state *s = b->state;
	struct bp_import_stats *st = s->im->stats;
	const char *how = "from code bytes; each task switch begins a new stack";
	struct bp_err *err = give(s, 0);

	join(s);
	if (!err)
		err = bp_steal(s->err);
	for (uint32_t i = 0; i < s->n_cpus && !err; i++) {
		struct cpu *c = s->cpus[i];

		if (c)
			err = bp_builder_tick(s->im->builder, i, c->now, insns_of(s, c));
	}
	st->calls += s->n_calls;
	st->addresses += s->n_addresses;
	st->unnamed += s->n_unnamed;
	st->lost += s->n_lost;
	if (!s->calls)
		how = !s->opt.complete ? s->opt.no_stacks : "none: the kernel's code is not known";
	else if (!s->n_code)
		how = "guessed from function starts: the kernel's code is not known";
	snprintf(st->stacks, sizeof(st->stacks), "%s", how ? how : "none");
	return err;
}

/* ---- names in the trace ---- */

static uint64_t hash_text(const char *s, size_t len)
{
	uint64_t h = len;

	for (; len >= 8; len -= 8, s += 8) {
		uint64_t v;

		memcpy(&v, s, 8);
		h = (h ^ v) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	for (; len; len--, s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	return h ^ h >> 32;
}

static BP_MUST_CHECK struct bp_err *grow_names(struct bp_blocks_state *s)
{
	uint32_t cap = s->cap_names ? s->cap_names * 2 : 1024, slots = cap * 2;
	char **names = realloc(s->names, cap * sizeof(*names));
	uint32_t *funcs, *hash;
	uint16_t *flags;

	if (names)
		s->names = names;
	funcs = realloc(s->name_func, cap * sizeof(*funcs));
	if (funcs)
		s->name_func = funcs;
	flags = realloc(s->name_flags, cap * sizeof(*flags));
	if (flags)
		s->name_flags = flags;
	hash = calloc(slots, sizeof(*hash));
	if (!names || !funcs || !flags || !hash) {
		free(hash);
		return bp_err_nomem();
	}
	memset(funcs + s->cap_names, 0, (cap - s->cap_names) * sizeof(*funcs));
	for (uint32_t i = 0; i < s->n_names; i++) {
		uint32_t at = (uint32_t)hash_text(s->names[i], strlen(s->names[i])) & (slots - 1);

		while (hash[at])
			at = (at + 1) & (slots - 1);
		hash[at] = i + 1;
	}
	free(s->name_hash);
	s->name_hash = hash;
	s->name_slots = slots;
	s->cap_names = cap;
	return NULL;
}

struct bp_err *bp_blocks_name(struct bp_blocks *b, const char *name, size_t len, uint64_t *ret)
{
	struct bp_blocks_state *s = b->state;
	uint64_t h = hash_text(name, len);
	struct bp_err *err = NULL;
	uint32_t at = 0;
	char *copy;

	if (s->name_slots)
		for (at = (uint32_t)h & (s->name_slots - 1); s->name_hash[at];
		     at = (at + 1) & (s->name_slots - 1)) {
			const char *old = s->names[s->name_hash[at] - 1];

			if (!strncmp(old, name, len) && !old[len]) {
				*ret = s->name_hash[at] - 1;
				return NULL;
			}
		}
	if (s->n_names >= MAX_NAMES || s->name_text + len > MAX_NAME_TEXT) {
		/* No trace of a kernel has that many. */
		*ret = 0;
		return NULL;
	}
	copy = strndup(name, len);
	if (!copy)
		return bp_err_nomem();
	pthread_mutex_lock(&s->lock);
	if (s->n_names == s->cap_names)
		err = grow_names(s);
	if (!err) {
		for (at = (uint32_t)h & (s->name_slots - 1); s->name_hash[at];
		     at = (at + 1) & (s->name_slots - 1))
			;
		s->name_hash[at] = s->n_names + 1;
		s->names[s->n_names] = copy;
		*ret = s->n_names++;
		s->name_text += len + 1;
	} else {
		free(copy);
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

/* ---- for the readers ---- */

void bp_blocks_bad(struct bp_import_stats *st, uint64_t offset, const char *why)
{
	if (!st->skipped++) {
		st->first_bad_offset = offset;
		snprintf(st->first_bad, sizeof(st->first_bad), "%s", why);
	}
}

struct bp_err *bp_blocks_info(struct bp_import *im, const char *key, const char *value)
{
	return bp_builder_fact(
	    im->builder, &(struct bp_fact){.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = key, .s2 = value});
}
