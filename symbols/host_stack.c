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
#include <unistd.h>

#include "core/cleanup.h"

/* Numbers of DWARF for x86-64. */
#define REG_SP 7

/* A thread's stack is read in one piece; what is further out is read word by word. */
#define STACK_BYTES 4096

struct bp_host_stacks {
	Dwfl *dwfl;
	Dwfl_Callbacks callbacks;
	pid_t pid;
	bool attached;
	/* Of the stack that is being taken: */
	pid_t tid;
	const struct bp_blocked *blocked;
	uint64_t copy_at;
	size_t copy_bytes;
	uint8_t copy[STACK_BYTES];
	uint64_t *pc;
	size_t n;
	char name[256]; /* of the last place asked for */
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

	(void)dwfl;
	if (addr - s->copy_at < s->copy_bytes && s->copy_bytes - (addr - s->copy_at) >= sizeof(*word)) {
		memcpy(word, s->copy + (addr - s->copy_at), sizeof(*word));
		return true;
	}
	return process_vm_readv(s->pid, &to, 1, &from, 1, 0) == (ssize_t)sizeof(*word);
}

static bool set_registers(Dwfl_Thread *thread, void *thread_arg)
{
	struct bp_host_stacks *s = thread_arg;
	Dwarf_Word sp = s->blocked->sp;

	dwfl_thread_state_register_pc(thread, s->blocked->pc);
	return dwfl_thread_state_registers(thread, REG_SP, 1, &sp);
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
	bool exact;
	Dwarf_Addr pc;

	if (!dwfl_frame_pc(frame, &pc, &exact) || !pc)
		return DWARF_CB_ABORT;
	s->pc[s->n++] = exact ? pc : pc - 1;
	return s->n < BP_HOST_STACK_FRAMES ? DWARF_CB_OK : DWARF_CB_ABORT;
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

void bp_host_stacks_destroy(struct bp_host_stacks *s)
{
	if (!s)
		return;
	dwfl_end(s->dwfl);
	free(s);
}

static int own_module(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, void *arg)
{
	const struct bp_host_stacks *s = arg;

	(void)mod;
	(void)name;
	(void)base;
	*userdata = (void *)(intptr_t)s->pid;
	return DWARF_CB_OK;
}

/* The files that are mapped by now. Those that still are keep what was read of them. */
static bool report(struct bp_host_stacks *s)
{
	bool ok;

	dwfl_report_begin(s->dwfl);
	ok = !dwfl_linux_proc_report(s->dwfl, s->pid);
	ok = !dwfl_report_end(s->dwfl, NULL, NULL) && ok;
	dwfl_getmodules(s->dwfl, own_module, s, 0);
	if (ok && !s->attached)
		s->attached = dwfl_attach_state(s->dwfl, NULL, s->pid, &thread_callbacks, s);
	return ok && s->attached;
}

size_t bp_host_stacks_take(struct bp_host_stacks *s, pid_t tid, const struct bp_blocked *b,
			   uint64_t pc[BP_HOST_STACK_FRAMES])
{
	struct iovec to = {s->copy, sizeof(s->copy)}, from = {(void *)(uintptr_t)b->sp, sizeof(s->copy)};
	struct bp_blocked again;
	ssize_t n;

	if ((!s->attached || !dwfl_addrmodule(s->dwfl, b->pc)) && !report(s))
		return 0;
	s->tid = tid;
	s->blocked = b;
	s->pc = pc;
	s->n = 0;
	/* A stack may end before that. */
	n = process_vm_readv(s->pid, &to, 1, &from, 1, 0);
	s->copy_at = b->sp;
	s->copy_bytes = n > 0 ? (size_t)n : 0;
	dwfl_getthread_frames(s->dwfl, tid, on_frame, s);
	if (!bp_blocked_read(s->pid, tid, &again) || memcmp(b, &again, sizeof(again)) != 0)
		return 0;
	return s->n;
}

/* "pthread_cond_wait@@GLIBC_2.3.2": the version is no part of the name. */
static const char *plain_name(struct bp_host_stacks *s, const char *name)
{
	snprintf(s->name, sizeof(s->name), "%.*s", (int)strcspn(name, "@"), name);
	return s->name;
}

/* libdw takes what lies between two mappings of a file, or behind the last, for a part of it. */
static bool in_file(Dwfl_Module *mod, uint64_t pc)
{
	GElf_Addr bias;
	size_t n = 0;
	Elf *elf = dwfl_module_getelf(mod, &bias);

	if (!elf || elf_getphdrnum(elf, &n))
		return true;
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr ph;

		if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_LOAD &&
		    pc - bias - ph.p_vaddr < ph.p_memsz)
			return true;
	}
	return false;
}

struct bp_host_place bp_host_stacks_place(struct bp_host_stacks *s, uint64_t pc)
{
	struct bp_host_place place = {.function = "", .file = ""};
	Dwfl_Module *mod = dwfl_addrmodule(s->dwfl, pc);
	const char *name;
	GElf_Addr bias;
	GElf_Off into;
	GElf_Sym sym;
	size_t n = 0;
	Elf *elf;

	if (!mod || !in_file(mod, pc))
		return place;
	name = dwfl_module_info(mod, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
	place.file = name ? name : "";
	name = dwfl_module_addrinfo(mod, pc, &into, &sym, NULL, NULL, NULL);
	if (name && into < sym.st_size &&
	    (GELF_ST_TYPE(sym.st_info) == STT_FUNC || GELF_ST_TYPE(sym.st_info) == STT_GNU_IFUNC)) {
		place.function = plain_name(s, name);
		place.offset = into;
		return place;
	}
	elf = dwfl_module_getelf(mod, &bias);
	if (!elf || elf_getphdrnum(elf, &n))
		return place;
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr ph;

		if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_LOAD &&
		    pc - bias - ph.p_vaddr < ph.p_filesz)
			place.offset = pc - bias - ph.p_vaddr + ph.p_offset;
	}
	return place;
}
