// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "symbols/host_stack.h"

#include <dirent.h>
#include <elfutils/libdwfl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"

/* Numbers of DWARF for x86-64. */
#define REG_SP 7
#define REG_PC 16

/* A thread's stack is read in one piece; what is further out is read word by word. */
#define STACK_BYTES 4096
/* Of a thread that has run on, memory so near to the stack pointer is its stack's, and may have changed: the
 * 128 bytes below it that functions may use, and what is above. */
#define BELOW 128
#define ABOVE (UINT64_C(1) << 20)
#define REPORT_NS UINT64_C(1000000000) /* between looks at what is mapped, because of code in no file */

/* Which addresses of a module lie in functions of its symbol tables: libdw goes through all symbols each
 * time. */
struct covered {
	Dwfl_Module *mod;
	struct span {
		uint64_t start;
		uint64_t end; /* the highest of this one and those before it */
	} * spans;            /* by start */
	size_t n;
};

struct named {
	uint64_t start, size;
	const char *name; /* the module's */
};

struct bp_host_stacks {
	Dwfl *dwfl;
	Dwfl_Callbacks callbacks;
	pid_t pid;
	bool attached;
	bool outside; /* code was in no file that is known: one may be mapped by now */
	uint64_t reported_ns;
	/* Of the stack that is being taken: */
	pid_t tid;
	const uint64_t *regs; /* from 0 on, without the instruction; NULL: only the stack pointer is known */
	uint64_t start_sp, start_pc;
	const uint8_t *copy; /* of the memory at start_sp */
	size_t copy_bytes;
	uint8_t buffer[STACK_BYTES];
	uint64_t *pc;
	size_t n;
	char name[256];   /* of the last place asked for */
	uint64_t modules; /* which there are, as a hash; as long as that stays: */
	struct covered *covered;
	size_t n_covered;
	struct named named[256]; /* functions that were found, a ring */
	size_t n_named;
};

bool bp_blocked_parse(const char *text, struct bp_blocked *ret)
{
	char *end;

	*ret = (struct bp_blocked){.nr = strtol(text, &end, 10)};
	if (end == text)
		return false;
	for (int i = 0; i < 8; i++) {
		uint64_t *to = i < 6 ? &ret->args[i] : i == 6 ? &ret->sp : &ret->pc;

		if (i < 6 && ret->nr == -1)
			continue;
		if (strncmp(end, " 0x", 3))
			return false;
		*to = strtoull(end + 1, &end, 16);
	}
	return ret->sp && ret->pc;
}

bool bp_blocked_read(pid_t pid, pid_t tid, struct bp_blocked *ret)
{
	char path[64], text[256];
	bp_autoclose int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", (int)pid, (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return bp_blocked_parse(text, ret);
}

/* ---- what libdwfl asks ---- */

/* The file that is mapped at @start: by /proc/PID/map_files, which no chroot or container leads astray. */
static int open_mapped(pid_t pid, uint64_t start)
{
	char path[64], want[32];
	size_t len = (size_t)snprintf(want, sizeof(want), "%llx-", (unsigned long long)start);
	struct dirent *e;
	int fd = -1;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/map_files", (int)pid);
	d = opendir(path);
	while (d && fd < 0 && (e = readdir(d))) {
		if (!strncmp(e->d_name, want, len))
			fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	}
	if (d)
		closedir(d);
	return fd;
}

/* Files as they are mapped. Debug files: of the same build-id, installed; nothing is downloaded. */
static int find_elf(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, char **file,
		    Elf **elf)
{
	void **owner;
	int fd;

	if (*name != '/')
		return dwfl_linux_proc_find_elf(mod, userdata, name, base, file, elf);
	dwfl_module_info(mod, &owner, NULL, NULL, NULL, NULL, NULL, NULL);
	fd = open_mapped((pid_t)(intptr_t)*owner, base);
	/* Only root may do that; others see their own files by name. */
	if (fd < 0)
		fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		*file = strdup(name);
	return fd;
}

static pid_t next_thread(Dwfl *dwfl, void *arg, void **thread_arg)
{
	struct bp_host_stacks *s = arg;
	pid_t tid = *thread_arg ? 0 : s->tid;

	(void)dwfl;
	*thread_arg = s;
	return tid;
}

static bool get_thread(Dwfl *dwfl, pid_t tid, void *arg, void **thread_arg)
{
	(void)dwfl;
	(void)tid;
	*thread_arg = arg;
	return true;
}

static bool memory_read(Dwfl *dwfl, Dwarf_Addr addr, Dwarf_Word *word, void *arg)
{
	struct bp_host_stacks *s = arg;
	struct iovec to = {word, sizeof(*word)}, from = {(void *)(uintptr_t)addr, sizeof(*word)};
	uint64_t at = addr - s->start_sp;

	(void)dwfl;
	if (at < s->copy_bytes && s->copy_bytes - at >= sizeof(*word)) {
		memcpy(word, s->copy + at, sizeof(*word));
		return true;
	}
	if (s->regs && at + BELOW < ABOVE + BELOW)
		return false;
	return process_vm_readv(s->pid, &to, 1, &from, 1, 0) == (ssize_t)sizeof(*word);
}

static bool set_registers(Dwfl_Thread *thread, void *thread_arg)
{
	struct bp_host_stacks *s = thread_arg;
	Dwarf_Word sp = s->start_sp;

	dwfl_thread_state_register_pc(thread, s->start_pc);
	return s->regs ? dwfl_thread_state_registers(thread, 0, REG_PC, s->regs)
		       : dwfl_thread_state_registers(thread, REG_SP, 1, &sp);
}

static const Dwfl_Thread_Callbacks thread_callbacks = {
    .next_thread = next_thread,
    .get_thread = get_thread,
    .memory_read = memory_read,
    .set_initial_registers = set_registers,
};

static int on_frame(Dwfl_Frame *frame, void *arg)
{
	struct bp_host_stacks *s = arg;
	bool exact, outside;
	Dwarf_Addr pc;

	if (!dwfl_frame_pc(frame, &pc, &exact) || !pc)
		return DWARF_CB_ABORT;
	pc -= !exact;
	/* There libdw would guess that there is a frame pointer. */
	outside = !dwfl_addrmodule(s->dwfl, pc);
	s->outside |= outside;
	if (!outside || !s->n)
		s->pc[s->n++] = pc;
	return !outside && s->n < BP_HOST_STACK_FRAMES ? DWARF_CB_OK : DWARF_CB_ABORT;
}

/* ---- ours ---- */

struct bp_err *bp_host_stacks_create(pid_t pid, struct bp_host_stacks **ret)
{
	struct bp_host_stacks *s = calloc(1, sizeof(*s));

	if (!s)
		return bp_err_nomem();
	s->pid = pid;
	s->callbacks = (Dwfl_Callbacks){.find_elf = find_elf, .find_debuginfo = dwfl_build_id_find_debuginfo};
	s->dwfl = dwfl_begin(&s->callbacks);
	if (!s->dwfl) {
		free(s);
		return bp_err_new(BP_EUNSUPPORTED, "libdw: %s", dwfl_errmsg(-1));
	}
	*ret = s;
	return NULL;
}

static void forget_symbols(struct bp_host_stacks *s)
{
	for (size_t i = 0; i < s->n_covered; i++)
		free(s->covered[i].spans);
	free(s->covered);
	s->covered = NULL;
	s->n_covered = s->n_named = 0;
}

void bp_host_stacks_destroy(struct bp_host_stacks *s)
{
	if (!s)
		return;
	forget_symbols(s);
	dwfl_end(s->dwfl);
	free(s);
}

static int own_module(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, void *arg)
{
	struct bp_host_stacks *s = arg;

	s->modules = s->modules * 31 + (uintptr_t)mod;
	(void)name;
	(void)base;
	*userdata = (void *)(intptr_t)s->pid;
	return DWARF_CB_OK;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* The files that are mapped by now. Those that still are keep what was read of them. */
static bool report(struct bp_host_stacks *s)
{
	uint64_t before = s->modules;
	bool ok;

	dwfl_report_begin(s->dwfl);
	ok = !dwfl_linux_proc_report(s->dwfl, s->pid);
	ok = !dwfl_report_end(s->dwfl, NULL, NULL) && ok;
	s->modules = 0;
	dwfl_getmodules(s->dwfl, own_module, s, 0);
	/* One that is gone goes at the end of a report: no other can have its address yet. */
	if (s->modules != before)
		forget_symbols(s);
	if (ok && !s->attached)
		s->attached = dwfl_attach_state(s->dwfl, NULL, s->pid, &thread_callbacks, s);
	s->outside = false;
	s->reported_ns = now_ns();
	return ok && s->attached;
}

/* Translated code is in no file either, all the time: that is no reason to look each time. */
static bool ready(struct bp_host_stacks *s)
{
	if (s->attached && (!s->outside || now_ns() - s->reported_ns < REPORT_NS))
		return true;
	return report(s);
}

/* From the registers and the copy that @s has. Returns how many frames. */
static size_t walk(struct bp_host_stacks *s, pid_t tid, uint64_t *pc)
{
	s->tid = tid;
	s->pc = pc;
	s->n = 0;
	dwfl_getthread_frames(s->dwfl, tid, on_frame, s);
	return s->n;
}

size_t bp_host_stacks_take(struct bp_host_stacks *s, pid_t tid, const struct bp_blocked *b,
			   uint64_t pc[BP_HOST_STACK_FRAMES])
{
	struct iovec to = {s->buffer, sizeof(s->buffer)},
		     from = {(void *)(uintptr_t)b->sp, sizeof(s->buffer)};
	struct bp_blocked again;
	ssize_t got;
	size_t n;

	if (!ready(s) || (!dwfl_addrmodule(s->dwfl, b->pc) && !report(s)))
		return 0;
	/* A stack may end before that. */
	got = process_vm_readv(s->pid, &to, 1, &from, 1, 0);
	s->copy = s->buffer;
	s->copy_bytes = got > 0 ? (size_t)got : 0;
	s->regs = NULL;
	s->start_sp = b->sp;
	s->start_pc = b->pc;
	n = walk(s, tid, pc);
	if (!bp_blocked_read(s->pid, tid, &again) || memcmp(b, &again, sizeof(again)) != 0)
		return 0;
	return n;
}

size_t bp_host_stacks_unwind(struct bp_host_stacks *s, pid_t tid, const struct bp_running *r,
			     uint64_t pc[BP_HOST_STACK_FRAMES])
{
	if (!ready(s))
		return 0;
	s->copy = r->stack;
	s->copy_bytes = r->stack_bytes;
	s->regs = r->regs;
	s->start_sp = r->regs[REG_SP];
	s->start_pc = r->regs[REG_PC];
	return walk(s, tid, pc);
}

static bool is_function(const GElf_Sym *sym)
{
	return GELF_ST_TYPE(sym->st_info) == STT_FUNC || GELF_ST_TYPE(sym->st_info) == STT_GNU_IFUNC;
}

static int by_start(const void *a, const void *b)
{
	uint64_t x = ((const struct span *)a)->start, y = ((const struct span *)b)->start;

	return x < y ? -1 : x > y;
}

/* NULL: no memory, or no symbols. */
static const struct covered *covered_of(struct bp_host_stacks *s, Dwfl_Module *mod)
{
	struct covered *more, *c;
	int n;

	for (size_t i = 0; i < s->n_covered; i++) {
		if (s->covered[i].mod == mod)
			return &s->covered[i];
	}
	n = dwfl_module_getsymtab(mod);
	more = realloc(s->covered, (s->n_covered + 1) * sizeof(*more));
	if (!more)
		return NULL;
	s->covered = more;
	c = &more[s->n_covered];
	*c = (struct covered){.mod = mod, .spans = n > 0 ? calloc((size_t)n, sizeof(*c->spans)) : NULL};
	if (!c->spans)
		return NULL;
	s->n_covered++;
	for (int i = 0; i < n; i++) {
		GElf_Addr addr;
		GElf_Sym sym;

		if (dwfl_module_getsym_info(mod, i, &sym, &addr, NULL, NULL, NULL) && is_function(&sym))
			c->spans[c->n++] = (struct span){addr, addr + sym.st_size};
	}
	qsort(c->spans, c->n, sizeof(*c->spans), by_start);
	for (size_t i = 1; i < c->n; i++) {
		if (c->spans[i].end < c->spans[i - 1].end)
			c->spans[i].end = c->spans[i - 1].end;
	}
	return c;
}

/* Whether it is worth asking libdw which function @pc is in. */
static bool in_function(struct bp_host_stacks *s, Dwfl_Module *mod, uint64_t pc)
{
	const struct covered *c = covered_of(s, mod);
	size_t low = 0, high = c ? c->n : 0;

	if (!c)
		return true;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->spans[mid].start <= pc)
			low = mid + 1;
		else
			high = mid;
	}
	return low && c->spans[low - 1].end > pc;
}

/* The function that @pc is in; NULL: it has no name. */
static const struct named *function_at(struct bp_host_stacks *s, Dwfl_Module *mod, uint64_t pc)
{
	size_t n = s->n_named < BP_ARRAY_SIZE(s->named) ? s->n_named : BP_ARRAY_SIZE(s->named);
	struct named *to;
	const char *name;
	GElf_Off into;
	GElf_Sym sym;

	for (size_t i = 0; i < n; i++) {
		if (pc - s->named[i].start < s->named[i].size)
			return &s->named[i];
	}
	if (!in_function(s, mod, pc))
		return NULL;
	name = dwfl_module_addrinfo(mod, pc, &into, &sym, NULL, NULL, NULL);
	if (!name || into >= sym.st_size || !is_function(&sym))
		return NULL;
	to = &s->named[s->n_named++ % BP_ARRAY_SIZE(s->named)];
	*to = (struct named){pc - into, sym.st_size, name};
	return to;
}

/* "pthread_cond_wait@@GLIBC_2.3.2": the version is no part of the name. */
static const char *plain_name(struct bp_host_stacks *s, const char *name)
{
	snprintf(s->name, sizeof(s->name), "%.*s", (int)strcspn(name, "@"), name);
	return s->name;
}

/* The part of the file that an address lies in, as loaded at 0; false: libdw takes what lies between two
 * mappings of a file, or behind the last, for a part of it. */
static bool segment_of(Elf *elf, uint64_t at, GElf_Phdr *ret)
{
	size_t n = 0;

	if (elf_getphdrnum(elf, &n))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (gelf_getphdr(elf, (int)i, ret) && ret->p_type == PT_LOAD &&
		    at - ret->p_vaddr < ret->p_memsz)
			return true;
	}
	return false;
}

struct bp_host_place bp_host_stacks_place(struct bp_host_stacks *s, uint64_t pc)
{
	struct bp_host_place place = {.function = "", .file = ""};
	Dwfl_Module *mod = dwfl_addrmodule(s->dwfl, pc);
	const struct named *f;
	const char *name;
	GElf_Addr bias;
	GElf_Phdr ph;
	Elf *elf;

	if (!mod)
		return place;
	elf = dwfl_module_getelf(mod, &bias);
	if (elf && !segment_of(elf, pc - bias, &ph))
		return place;
	name = dwfl_module_info(mod, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
	place.file = name ? name : "";
	f = function_at(s, mod, pc);
	if (f) {
		place.function = plain_name(s, f->name);
		place.offset = pc - f->start;
		return place;
	}
	if (elf && pc - bias - ph.p_vaddr < ph.p_filesz)
		place.offset = pc - bias - ph.p_vaddr + ph.p_offset;
	return place;
}
