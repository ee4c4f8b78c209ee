// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/tcg/record_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "symbols/guestfs.h"
#include "symbols/kimage.h"
#include "symbols/lines.h"
#include "symbols/regions.h"

#define INITRD_MAX_BYTES (2ull << 30)

struct bp_record_names {
	struct bp_names names;
	struct bp_kimage *kernel;
	char *kernel_path, *names_from;
	struct bp_guestfs *fs;
	struct bp_region_map regions;
	uint64_t text_start, text_end;
};

/* The phase of a boot that begins in a region, NULL if none does. */
static const char *region_mark(enum bp_region r)
{
	switch (r) {
	case BP_REGION_SEABIOS:
	case BP_REGION_FIRMWARE:
		return "firmware";
	case BP_REGION_OPTION_ROM:
		return "option-rom";
	case BP_REGION_BOOT_SECTOR:
	case BP_REGION_BOOT_LOADER:
	case BP_REGION_SETUP:
		return "boot-loader";
	case BP_REGION_DECOMPRESSOR:
		return "decompressor";
	default:
		return NULL;
	}
}

static bool name_kernel(void *self, uint64_t link_addr, const char **name, uint64_t *start)
{
	const struct bp_record_names *n = self;
	const struct bp_ksym *s = n->kernel ? bp_kimage_find(n->kernel, link_addr) : NULL;

	if (!s)
		return false;
	*name = s->name;
	*start = s->addr;
	return true;
}

static bool name_user(void *self, const char *guest_path, uint64_t offset, const char **name, uint64_t *start)
{
	struct bp_record_names *n = self;
	const struct bp_elfsyms *elf = NULL;
	struct bp_err *err = bp_guestfs_elf(n->fs, guest_path, &elf);

	bp_err_ignore(err);
	if (!elf) {
		/* Only the path inside its own file system is known of a mapping: the name must do. */
		const char *base = strrchr(guest_path, '/');
		const char *other = bp_guestfs_find_name(n->fs, base ? base + 1 : guest_path);

		if (!other)
			return false;
		err = bp_guestfs_elf(n->fs, other, &elf);
		bp_err_ignore(err);
		if (!elf)
			return false;
	}
	if (bp_elfsyms_find(elf, offset, name, start))
		return true;
	/* No name, but at least one row for each function. */
	bp_elfsyms_fde_find(elf, offset, start);
	return false;
}

static unsigned name_region(void *self, uint64_t linear, const char **name, const char **mark)
{
	const struct bp_record_names *n = self;
	enum bp_region r = bp_region_find(&n->regions, linear);

	*name = bp_region_name(r);
	*mark = region_mark(r);
	return (unsigned)r;
}

static int name_initcall(void *self, uint64_t link_addr, const char **level_name)
{
	const struct bp_record_names *n = self;
	const struct bp_initcall *calls;
	size_t count;

	if (!n->kernel)
		return -1;
	calls = bp_kimage_initcalls(n->kernel, &count);
	for (size_t i = 0; i < count; i++) {
		if (calls[i].addr == link_addr) {
			*level_name = bp_initcall_level_name(calls[i].level);
			return calls[i].level;
		}
	}
	return -1;
}

/* Use a debug vmlinux instead of the image's own symbols, if there is one that matches. */
static BP_MUST_CHECK struct bp_err *use_vmlinux(struct bp_record_names *n, const char *vmlinux)
{
	bp_autofree char *found = NULL;
	struct bp_kimage *k = NULL;
	struct bp_err *err;

	if (!vmlinux && !n->kernel)
		return NULL;
	if (!vmlinux) {
		err = bp_debug_vmlinux_find(bp_kimage_build_id(n->kernel), bp_kimage_release(n->kernel),
					    &found);
		if (err || !found) {
			bp_err_ignore(err);
			return NULL;
		}
	}
	err = bp_kimage_open(vmlinux ? vmlinux : found, &k);
	if (err && !vmlinux) {
		/* Found by ourselves: the image's own names do as well. */
		bp_err_ignore(err);
		return NULL;
	}
	if (err)
		return err;
	if (n->kernel && strcmp(bp_kimage_build_id(k), bp_kimage_build_id(n->kernel))) {
		err = bp_err_new(BP_EUSAGE, "%s does not belong to this kernel: build-id %s, but %s has %s",
				 vmlinux ? vmlinux : found, bp_kimage_build_id(k), n->kernel_path,
				 bp_kimage_build_id(n->kernel));
		bp_kimage_destroy(k);
		return err;
	}
	bp_kimage_destroy(n->kernel);
	n->kernel = k;
	free(n->names_from);
	n->names_from = strdup(vmlinux ? vmlinux : found);
	return n->names_from ? NULL : bp_err_nomem();
}

struct bp_err *bp_record_names_create(const char *kernel, const char *vmlinux, const char *guest_root,
				      const struct bp_qemu_args *args, void (*warn)(const char *line),
				      struct bp_record_names **ret)
{
	struct bp_record_names *n = calloc(1, sizeof(*n));
	struct bp_err *err;

	if (!n)
		return bp_err_nomem();
	n->names = (struct bp_names){
	    .self = n,
	    .kernel = name_kernel,
	    .user = name_user,
	    .region = name_region,
	    .initcall_level = name_initcall,
	};
	err = bp_guestfs_create(&n->fs);
	if (!err && kernel) {
		n->kernel_path = strdup(kernel);
		if (!n->kernel_path)
			err = bp_err_nomem();
		if (!err)
			err = bp_kimage_open(kernel, &n->kernel);
		if (err && vmlinux && bp_err_code(err) == BP_EUNSUPPORTED) {
			/* An image without symbols, but names were given: they cannot be verified. */
			warn(bp_err_text(err));
			bp_err_ignore(err);
			err = NULL;
		}
		if (!err && n->kernel) {
			n->names_from =
			    strdup(bp_kimage_is_debug(n->kernel) ? kernel : "kallsyms in the kernel image");
			if (!n->names_from)
				err = bp_err_nomem();
		}
	}
	if (!err)
		err = use_vmlinux(n, vmlinux);
	if (!err) {
		struct bp_err *soft = bp_region_map_init(&n->regions, args->ram_bytes, args->kernel);

		bp_err_ignore(soft);
	}
	if (!err && guest_root)
		err = bp_guestfs_add_dir(n->fs, guest_root);
	if (!err && args->initrd) {
		struct bp_err *soft = bp_guestfs_add_initrd(n->fs, args->initrd, INITRD_MAX_BYTES);

		if (soft)
			warn(bp_err_text(soft));
		bp_err_ignore(soft);
	}
	if (err) {
		bp_record_names_destroy(n);
		return err;
	}
	if (n->kernel)
		bp_kimage_text(n->kernel, &n->text_start, &n->text_end);
	*ret = n;
	return NULL;
}

void bp_record_names_destroy(struct bp_record_names *n)
{
	if (!n)
		return;
	bp_kimage_destroy(n->kernel);
	bp_guestfs_destroy(n->fs);
	free(n->kernel_path);
	free(n->names_from);
	free(n);
}

const struct bp_names *bp_record_names_get(const struct bp_record_names *n)
{
	return &n->names;
}

/*
 * Text symbols that are not functions in the sense of a profile: thunks that every call or return goes
 * through, the cold part of another function, and what stands for no code.
 */
static bool is_no_function(const char *name)
{
	static const char *const prefixes[] = {
	    "__x86_return_thunk",
	    "__x86_indirect_",
	    "__fentry__",
	    "srso_",
	    "retbleed_",
	    "its_return_thunk",
	    "__pfx_",
	    "__cfi_",
	    "zen_untrain",
	    "native_irq_return_iret",
	    /* These move their own return address while they build pt_regs: no stack pointer tells that they
	       returned. */
	    "error_entry",
	    "paranoid_entry",
	    "xen_error_entry",
	};

	for (size_t i = 0; i < BP_ARRAY_SIZE(prefixes); i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	return strstr(name, ".cold") != NULL;
}

static bool is_interrupt_entry(const char *name)
{
	return !strncmp(name, "asm_exc_", 8) || !strncmp(name, "asm_sysvec_", 11) ||
	       !strcmp(name, "asm_common_interrupt");
}

static const struct {
	const char *function;
	enum bp_hook_kind kind;
	const char *mark;
} hook_table[] = {
    {"__switch_to_asm", BP_HOOK_SWITCH, NULL},
    {"entry_SYSCALL_64", BP_HOOK_SYSCALL, NULL},
    {"begin_new_exec", BP_HOOK_EXEC, NULL},
    {"wake_up_new_task", BP_HOOK_FORK, NULL},
    {"perf_event_mmap", BP_HOOK_MMAP, NULL},
    {"do_init_module", BP_HOOK_MODULE, NULL},
    {"free_module", BP_HOOK_MODULE_FREE, NULL},
    {"do_exit", BP_HOOK_EXIT, NULL},
    {"univ8250_console_write", BP_HOOK_CONSOLE, NULL},
    {"hvc_console_print", BP_HOOK_CONSOLE, NULL},
    {"free_initmem", BP_HOOK_MARK, "kernel-init-done"},
    {"panic", BP_HOOK_MARK, "panic"},
    {"__x64_sys_reboot", BP_HOOK_MARK, "shutdown"},
    {"machine_restart", BP_HOOK_MARK, "reboot"},
    {"machine_emergency_restart", BP_HOOK_MARK, "reboot"},
    {"machine_power_off", BP_HOOK_MARK, "poweroff"},
    {"machine_halt", BP_HOOK_MARK, "halt"},
};

static void add_hook(struct bp_ring_shm *shm, uint64_t addr, enum bp_hook_kind kind)
{
	shm->hooks[shm->n_hooks++] = (struct bp_hook){.addr = addr, .kind = kind};
}

static int32_t offset(const struct bp_btf *btf, const char *type, const char *path)
{
	int64_t off = btf ? bp_btf_offset(btf, type, path) : -1;

	return off < 0 || off > INT32_MAX ? -1 : (int32_t)off;
}

static void fill_layout(const struct bp_btf *b, struct bp_guest_layout *l)
{
	*l = (struct bp_guest_layout){
	    .task_comm = offset(b, "task_struct", "comm"),
	    .task_pid = offset(b, "task_struct", "pid"),
	    .task_tgid = offset(b, "task_struct", "tgid"),
	    .task_mm = offset(b, "task_struct", "mm"),
	    .task_flags = offset(b, "task_struct", "flags"),
	    .task_parent = offset(b, "task_struct", "real_parent"),
	    .bprm_filename = offset(b, "linux_binprm", "filename"),
	    .bprm_mm = offset(b, "linux_binprm", "mm"),
	    .vma_start = offset(b, "vm_area_struct", "vm_start"),
	    .vma_end = offset(b, "vm_area_struct", "vm_end"),
	    .vma_pgoff = offset(b, "vm_area_struct", "vm_pgoff"),
	    .vma_flags = offset(b, "vm_area_struct", "vm_flags"),
	    .vma_file = offset(b, "vm_area_struct", "vm_file"),
	    .vma_mm = offset(b, "vm_area_struct", "vm_mm"),
	    .file_dentry = offset(b, "file", "f_path.dentry"),
	    .dentry_name = offset(b, "dentry", "d_name.name"),
	    .dentry_parent = offset(b, "dentry", "d_parent"),
	    .mod_name = offset(b, "module", "name"),
	    .mod_kallsyms = offset(b, "module", "kallsyms"),
	    .ks_symtab = offset(b, "mod_kallsyms", "symtab"),
	    .ks_num = offset(b, "mod_kallsyms", "num_symtab"),
	    .ks_strtab = offset(b, "mod_kallsyms", "strtab"),
	};
	/* Linux 6.4 replaced the two layouts of a module by an array of memory types. */
	if (offset(b, "module", "core_layout.base") >= 0) {
		l->mod_base = offset(b, "module", "core_layout.base");
		l->mod_size = offset(b, "module", "core_layout.text_size");
		l->mod_init_base = offset(b, "module", "init_layout.base");
		l->mod_init_size = offset(b, "module", "init_layout.text_size");
	} else {
		l->mod_base = offset(b, "module", "mem[0].base");
		l->mod_size = offset(b, "module", "mem[0].size");
		l->mod_init_base = offset(b, "module", "mem[4].base");
		l->mod_init_size = offset(b, "module", "mem[4].size");
	}
}

struct bp_err *bp_record_names_prepare(struct bp_record_names *n, struct bp_ring_shm *shm,
				       const char *mark_names[BP_MAX_HOOKS], const char *until_function,
				       int *until_hook)
{
	uint8_t *bitmap = (uint8_t *)shm + bp_shm_bitmap_offset();
	const struct bp_ksym *syms, *s;
	size_t count;

	*until_hook = -1;
	fill_layout(n->kernel ? bp_kimage_btf(n->kernel) : NULL, &shm->layout);
	if (!n->kernel)
		return until_function
			   ? bp_err_new(BP_EUSAGE,
					"--until-function needs a kernel image: give --kernel-image")
			   : NULL;
	shm->text_base = n->text_start;
	shm->text_bytes = n->text_end - n->text_start;
	if (shm->text_bytes > BP_MAX_TEXT_BYTES)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s: a kernel text of %llu bytes is larger than any we know",
				  n->kernel_path, (unsigned long long)shm->text_bytes);
	syms = bp_kimage_syms(n->kernel, &count);
	for (size_t i = 0; i < count; i++) {
		uint64_t at = syms[i].addr - shm->text_base;

		if (at < shm->text_bytes && strchr("tTwW", syms[i].type) && !is_no_function(syms[i].name))
			bitmap[at / 8] |= (uint8_t)(1u << (at & 7));
	}
	/* Thunks share their first byte with no function that must be kept. */
	for (size_t i = 0; i < count; i++) {
		uint64_t at = syms[i].addr - shm->text_base;

		if (at < shm->text_bytes && strncmp(syms[i].name, "__pfx_", 6) &&
		    is_no_function(syms[i].name))
			bitmap[at / 8] &= (uint8_t) ~(1u << (at & 7));
	}
	shm->head_addr = n->text_start & ~0x1fffffull;
	for (shm->probe_bytes = sizeof(shm->probe); shm->probe_bytes; shm->probe_bytes /= 2)
		if (bp_kimage_read(n->kernel, shm->head_addr, shm->probe, shm->probe_bytes))
			break;
	for (size_t i = 0; i < BP_ARRAY_SIZE(hook_table); i++) {
		s = bp_kimage_lookup(n->kernel, hook_table[i].function);
		if (!s)
			continue;
		mark_names[shm->n_hooks] = hook_table[i].mark;
		add_hook(shm, s->addr, hook_table[i].kind);
	}
	for (size_t i = 0; i < count && shm->n_hooks + 2 < BP_MAX_HOOKS; i++)
		if (is_interrupt_entry(syms[i].name))
			add_hook(shm, syms[i].addr, BP_HOOK_STAMP);
	if (until_function) {
		s = bp_kimage_lookup(n->kernel, until_function);
		if (!s)
			return bp_err_new(BP_EUSAGE, "the kernel has no function %s", until_function);
		for (uint64_t i = 0; i < shm->n_hooks && *until_hook < 0; i++)
			if (shm->hooks[i].addr == s->addr && shm->hooks[i].kind == BP_HOOK_MARK)
				*until_hook = (int)i;
		if (*until_hook < 0) {
			/* In front of the others: the first hook of an address is the one that is used. */
			memmove(shm->hooks + 1, shm->hooks, shm->n_hooks * sizeof(shm->hooks[0]));
			memmove(mark_names + 1, mark_names, shm->n_hooks * sizeof(mark_names[0]));
			shm->hooks[0] = (struct bp_hook){.addr = s->addr, .kind = BP_HOOK_MARK};
			mark_names[0] = NULL;
			shm->n_hooks++;
			*until_hook = 0;
		}
	}
	return NULL;
}

void bp_record_names_trim(struct bp_record_names *n)
{
	if (n->kernel)
		bp_kimage_trim(n->kernel);
}

static BP_MUST_CHECK struct bp_err *info(struct bp_trace_writer *w, const char *key, const char *value)
{
	struct bp_fact f = {.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = key, .s2 = value};

	return bp_trace_writer_fact(w, &f);
}

struct bp_err *bp_record_names_facts(const struct bp_record_names *n, struct bp_trace_writer *w)
{
	const struct bp_initcall *calls;
	struct bp_err *err;
	size_t count;

	if (!n->kernel)
		return info(w, "names_from", "no kernel image known");
	err = info(w, "kernel_image", n->kernel_path ? n->kernel_path : n->names_from);
	if (!err)
		err = info(w, "kernel_release", bp_kimage_release(n->kernel));
	if (!err)
		err = info(w, "kernel_build_id", bp_kimage_build_id(n->kernel));
	if (!err)
		err = info(w, "names_from", n->names_from ? n->names_from : "");
	calls = bp_kimage_initcalls(n->kernel, &count);
	for (size_t i = 0; i < count && !err; i++) {
		struct bp_fact f = {
		    .kind = BP_FACT_INITCALL,
		    .vcpu = UINT16_MAX,
		    .v = {calls[i].addr, calls[i].level},
		    .s1 = bp_initcall_level_name(calls[i].level),
		    .s2 = "",
		};

		err = bp_trace_writer_fact(w, &f);
	}
	return err;
}
