// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/kimage.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "symbols/btf.h"
#include "symbols/bzimage.h"
#include "symbols/kallsyms.h"
#include "symbols/syscalls.h"
#include "symbols/vmlinux.h"

#define BZIMAGE_MAX_BYTES ((size_t)256 << 20)
#define IMAGE_MAX_BYTES ((uint64_t)1 << 30)

struct text_range {
	uint64_t addr, end;
	uint32_t sym; /* index: the preferred one of the symbols at addr */
};

struct bp_kimage {
	char *path;
	void *map; /* file that is an ELF image */
	size_t map_len;
	uint8_t *expanded; /* file that is a bzImage */
	struct bp_vmlinux elf;
	struct bp_ksym *syms;
	size_t sym_count;
	char *names; /* owned when from kallsyms */
	struct text_range *text;
	size_t text_count;
	uint32_t *by_name; /* hash table of index + 1 into syms, 0 free; a power of two */
	size_t name_mask;
	struct bp_initcall *initcalls;
	size_t initcall_count;
	struct bp_btf *btf;
	char release[128];
};

static bool starts_with(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

static bool ends_with(const char *s, size_t len, const char *suffix)
{
	size_t n = strlen(suffix);

	return len >= n && !memcmp(s + len - n, suffix, n);
}

/* A name that the kernel's build takes for one that the linker script defined. */
static bool is_script_symbol(const char *name)
{
	size_t len = strlen(name);

	return len >= 8 && starts_with(name, "__") &&
	       (starts_with(name + 2, "start_") || starts_with(name + 2, "stop_") ||
		starts_with(name + 2, "end_") || ends_with(name, len, "_start") ||
		ends_with(name, len, "_end"));
}

/* A name for a place in the text, not for a function. */
static bool is_mark(const char *name)
{
	static const char *const marks[] = {"_text", "_stext", "_etext", "_sinittext", "_einittext"};

	for (size_t i = 0; i < BP_ARRAY_SIZE(marks); i++)
		if (!strcmp(name, marks[i]))
			return true;
	return starts_with(name, "__pfx_") || starts_with(name, "__cfi_") || is_script_symbol(name);
}

static bool is_weak(const struct bp_ksym *s)
{
	return s->type == 'w' || s->type == 'W';
}

/* The order of kallsyms: what comes first of one address is what the kernel prints for it. */
static int sym_cmp(const void *a, const void *b)
{
	const struct bp_ksym *x = a, *y = b;
	size_t ux, uy;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	if (is_weak(x) != is_weak(y))
		return is_weak(x) - is_weak(y);
	if (is_script_symbol(x->name) != is_script_symbol(y->name))
		return is_script_symbol(x->name) - is_script_symbol(y->name);
	ux = strspn(x->name, "_");
	uy = strspn(y->name, "_");
	if (ux != uy)
		return ux < uy ? -1 : 1;
	/* The rest is in the order of "nm -n", which sorts by name. */
	return strcmp(x->name, y->name);
}

/* Gives symbols without a size the room up to the next higher address, at most to the end of the section. */
static void fill_sizes(struct bp_kimage *k)
{
	const struct bp_vmlinux *v = &k->elf;
	uint64_t next = UINT64_MAX, cur = UINT64_MAX;
	size_t sec = v->sec_count;

	for (size_t i = k->sym_count; i-- > 0;) {
		struct bp_ksym *s = &k->syms[i];
		const struct bp_vmsec *in;
		uint64_t end = next;

		if (s->addr != cur)
			next = cur;
		cur = s->addr;
		end = next;
		if (s->size)
			continue;
		while (sec && v->secs[sec - 1].addr > s->addr)
			sec--;
		in = sec ? &v->secs[sec - 1] : NULL;
		if (in && s->addr - in->addr < in->size) {
			if (in->addr + in->size < end)
				end = in->addr + in->size;
		} else if (s->addr < BP_KERNEL_BASE_ADDR) {
			end = s->addr; /* absolute values are no places */
		} else if (v->end < end) {
			end = v->end > s->addr ? v->end : s->addr;
		}
		s->size = end - s->addr;
	}
}

/* The executable section with @addr in it. */
static const struct bp_vmsec *exec_section(const struct bp_vmlinux *v, uint64_t addr)
{
	size_t lo = 0, hi = v->sec_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v->secs[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || addr - v->secs[lo - 1].addr >= v->secs[lo - 1].size || !v->secs[lo - 1].exec)
		return NULL;
	return &v->secs[lo - 1];
}

static bool is_text_type(char type)
{
	return type == 't' || type == 'T' || type == 'w' || type == 'W';
}

/* Lists the addresses at which a function starts, each with the name to show. Symbols are in kernel order. */
static struct bp_err *index_text(struct bp_kimage *k)
{
	const struct bp_vmsec *sec = NULL;
	size_t n = 0;

	k->text = malloc((k->sym_count ? k->sym_count : 1) * sizeof(*k->text));
	if (!k->text)
		return bp_err_nomem();
	for (size_t i = 0; i < k->sym_count; i++) {
		const struct bp_ksym *s = &k->syms[i];
		struct text_range *prev = n ? &k->text[n - 1] : NULL;

		if (!is_text_type(s->type) || s->addr < BP_KERNEL_BASE_ADDR)
			continue;
		if (prev && prev->addr == s->addr) {
			if (is_mark(k->syms[prev->sym].name) && !is_mark(s->name))
				prev->sym = (uint32_t)i;
			continue;
		}
		if (!sec || s->addr - sec->addr >= sec->size)
			sec = exec_section(&k->elf, s->addr);
		if (!sec)
			continue;
		if (prev && s->addr < prev->end)
			prev->end = s->addr;
		k->text[n++] = (struct text_range){
		    .addr = s->addr,
		    .end = sec->addr + sec->size,
		    .sym = (uint32_t)i,
		};
	}
	k->text_count = n;
	if (n) {
		struct text_range *fit = realloc(k->text, n * sizeof(*fit));

		if (fit)
			k->text = fit;
	}
	return NULL;
}

/* FNV-1a */
static uint32_t name_hash(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619u;
	return h ^ h >> 15;
}

/* The slot of @name, or the free one where it belongs. */
static size_t name_slot(const struct bp_kimage *k, const char *name)
{
	size_t i = name_hash(name) & k->name_mask;

	while (k->by_name[i] && strcmp(k->syms[k->by_name[i] - 1].name, name) != 0)
		i = (i + 1) & k->name_mask;
	return i;
}

static struct bp_err *index_names(struct bp_kimage *k)
{
	size_t slots = 16;

	while (slots < k->sym_count * 2)
		slots *= 2;
	k->by_name = calloc(slots, sizeof(*k->by_name));
	if (!k->by_name)
		return bp_err_nomem();
	k->name_mask = slots - 1;
	for (size_t i = 0; i < k->sym_count; i++) {
		size_t slot = name_slot(k, k->syms[i].name);

		if (!k->by_name[slot])
			k->by_name[slot] = (uint32_t)i + 1;
	}
	return NULL;
}

/* Looks for kallsyms where it is in every known kernel, then in all other data. */
static struct bp_err *find_kallsyms(const struct bp_vmlinux *v, struct bp_kallsyms *ret)
{
	/* Sections of a crafted file may overlap: visit no more than twice its size. */
	uint64_t left = 2 * (uint64_t)v->len;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < v->sec_count; i++) {
			const struct bp_vmsec *s = &v->secs[i];
			bool is_rodata = !strcmp(s->name, ".rodata");
			uint64_t skip = -s->addr & 7;
			struct bp_err *err;

			if (is_rodata != !pass || (s->exec && *s->name) || s->size <= skip || s->size > left)
				continue;
			left -= s->size;
			err = bp_kallsyms_decode(v->data + s->off + skip, s->size - skip, v->path,
						 v->base + s->off + skip, ret);
			if (err || ret->count)
				return err;
		}
	}
	*ret = (struct bp_kallsyms){0};
	return NULL;
}

static struct bp_err *load_symbols(struct bp_kimage *k)
{
	struct bp_kallsyms ks = {0};
	struct bp_err *err;

	err = bp_vmlinux_symtab(&k->elf, &k->syms, &k->sym_count);
	if (err)
		return err;
	if (k->sym_count) {
		qsort(k->syms, k->sym_count, sizeof(*k->syms), sym_cmp);
	} else {
		err = find_kallsyms(&k->elf, &ks);
		if (err)
			return err;
		if (!ks.count)
			return bp_err_new(BP_EUNSUPPORTED,
					  "%s: kernel without symbols (no symbol table, no kallsyms)",
					  k->path);
		free(k->syms);
		k->syms = ks.syms;
		k->sym_count = ks.count;
		k->names = ks.names;
	}
	fill_sizes(k);
	err = index_text(k);
	return err ? err : index_names(k);
}

/* Marks between which the linker script puts the entries of each level. */
static const char *const initcall_marks[BP_INITCALL_N + 1] = {
    [BP_INITCALL_EARLY] = "__initcall_start",   [BP_INITCALL_PURE] = "__initcall0_start",
    [BP_INITCALL_CORE] = "__initcall1_start",   [BP_INITCALL_POSTCORE] = "__initcall2_start",
    [BP_INITCALL_ARCH] = "__initcall3_start",   [BP_INITCALL_SUBSYS] = "__initcall4_start",
    [BP_INITCALL_FS] = "__initcall5_start",     [BP_INITCALL_ROOTFS] = "__initcallrootfs_start",
    [BP_INITCALL_DEVICE] = "__initcall6_start", [BP_INITCALL_LATE] = "__initcall7_start",
    [BP_INITCALL_N] = "__initcall_end",
};

/*
 * Entries are 32-bit distances from the entry to the function (HAVE_ARCH_PREL32_RELOCATIONS). A kernel where
 * marks are missing or entries lead nowhere has no list: it is better to say nothing than something wrong.
 */
static struct bp_err *load_initcalls(struct bp_kimage *k)
{
	uint64_t mark[BP_INITCALL_N + 1];
	const uint8_t *table;
	size_t count, level = 0;

	for (size_t i = 0; i <= BP_INITCALL_N; i++) {
		const struct bp_ksym *s = bp_kimage_lookup(k, initcall_marks[i]);

		if (!s || (i && s->addr < mark[i - 1]))
			return NULL;
		mark[i] = s->addr;
	}
	count = (size_t)(mark[BP_INITCALL_N] - mark[0]) / 4;
	table = bp_vmlinux_at(&k->elf, mark[0], 4 * (uint64_t)count);
	if (!count || !table)
		return NULL;
	k->initcalls = malloc(count * sizeof(*k->initcalls));
	if (!k->initcalls)
		return bp_err_nomem();
	for (size_t i = 0; i < count; i++) {
		uint64_t entry = mark[0] + 4 * (uint64_t)i, addr;
		int32_t distance;

		while (level + 1 < BP_INITCALL_N && entry >= mark[level + 1])
			level++;
		memcpy(&distance, table + 4 * i, sizeof(distance));
		addr = entry + (uint64_t)(int64_t)distance;
		if (!bp_kimage_find(k, addr)) {
			free(k->initcalls);
			k->initcalls = NULL;
			return NULL;
		}
		k->initcalls[i] = (struct bp_initcall){.addr = addr, .level = (uint8_t)level};
	}
	k->initcall_count = count;
	return NULL;
}

/* Types are an extra: a kernel whose BTF we cannot read is a kernel without. */
static void load_btf(struct bp_kimage *k)
{
	const struct bp_vmlinux *v = &k->elf;
	const struct bp_ksym *start = bp_kimage_lookup(k, "__start_BTF");
	const struct bp_ksym *stop = bp_kimage_lookup(k, "__stop_BTF");
	const uint8_t *data = v->data + v->btf_off;
	size_t len = v->btf_len;

	if (!len && start && stop && stop->addr > start->addr) {
		len = (size_t)(stop->addr - start->addr);
		data = bp_vmlinux_at(v, start->addr, len);
	}
	if (len && data)
		bp_err_ignore(bp_btf_open(data, len, k->path, v->base + (size_t)(data - v->data), &k->btf));
}

/* linux_banner is "Linux version 6.1.0-56-cloud-amd64 (user@host) (compiler) #1 ..." */
static void load_release(struct bp_kimage *k)
{
	static const char lead[] = "Linux version ";
	const struct bp_ksym *s = bp_kimage_lookup(k, "linux_banner");
	char banner[sizeof(lead) - 1 + sizeof(k->release)];
	size_t n;

	if (!s || !bp_kimage_read(k, s->addr, banner, sizeof(banner)) ||
	    memcmp(banner, lead, sizeof(lead) - 1) != 0)
		return;
	banner[sizeof(banner) - 1] = '\0';
	for (n = 0; banner[sizeof(lead) - 1 + n] > ' ' && banner[sizeof(lead) - 1 + n] < 0x7f; n++)
		k->release[n] = banner[sizeof(lead) - 1 + n];
	k->release[n] = '\0';
}

static void bp_kimage_destroyp(struct bp_kimage **k)
{
	bp_kimage_destroy(*k);
}

/* Fills @k from the bytes of a file, of which only those of an ELF file are used later. */
static struct bp_err *load(struct bp_kimage *k, const void *data, size_t len)
{
	struct bp_err *err;

	if (bp_bzimage_is(data, len)) {
		size_t expanded_len;

		err = bp_bzimage_expand(data, len, k->path, IMAGE_MAX_BYTES, &k->expanded, &expanded_len);
		if (err)
			return err;
		bp_bzimage_release(data, len, k->release, sizeof(k->release));
		err = bp_vmlinux_init(&k->elf, k->expanded, expanded_len, k->path);
		if (err)
			return bp_err_wrap(err, "kernel inside the bzImage");
	} else if (len >= SELFMAG && !memcmp(data, ELFMAG, SELFMAG)) {
		err = bp_vmlinux_init(&k->elf, data, len, k->path);
		if (err)
			return err;
	} else {
		return bp_err_data(k->path, 0, "neither a bzImage nor an ELF vmlinux");
	}
	err = load_symbols(k);
	if (err)
		return err;
	load_release(k);
	load_btf(k);
	return load_initcalls(k);
}

static struct bp_err *kimage_alloc(const char *path, struct bp_kimage **ret)
{
	struct bp_kimage *k = calloc(1, sizeof(*k));

	if (k)
		k->path = strdup(path);
	if (!k || !k->path) {
		free(k);
		return bp_err_nomem();
	}
	*ret = k;
	return NULL;
}

struct bp_err *bp_kimage_open_memory(const void *data, size_t len, const char *path, struct bp_kimage **ret)
{
	bp_cleanup(bp_kimage_destroyp) struct bp_kimage *k = NULL;
	struct bp_err *err = kimage_alloc(path, &k);

	if (!err)
		err = load(k, data, len);
	if (err)
		return err;
	*ret = bp_steal(k);
	return NULL;
}

/* Reads a whole file that is small enough; less if it became shorter meanwhile. */
static struct bp_err *read_file(int fd, const char *path, size_t size, uint8_t **ret, size_t *len)
{
	bp_autofree uint8_t *data = malloc(size ? size : 1);
	size_t got = 0;

	if (!data)
		return bp_err_nomem();
	while (got < size) {
		ssize_t n = pread(fd, data + got, size - got, (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bp_err_os(errno, "%s", path);
		if (!n)
			break;
		got += (size_t)n;
	}
	*ret = bp_steal(data);
	*len = got;
	return NULL;
}

struct bp_err *bp_kimage_open(const char *path, struct bp_kimage **ret)
{
	bp_cleanup(bp_kimage_destroyp) struct bp_kimage *k = NULL;
	bp_autofree uint8_t *data = NULL;
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char magic[SELFMAG] = {0};
	struct bp_err *err;
	struct stat st;
	size_t len = 0;

	if (fd < 0 || fstat(fd, &st))
		return bp_err_os(errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		return bp_err_os(EISDIR, "%s", path);
	if (!S_ISREG(st.st_mode))
		return bp_err_new(BP_EUSAGE, "%s: not a regular file", path);
	err = kimage_alloc(path, &k);
	if (err)
		return err;
	/* A vmlinux with debug information has 600 MB, of which little is needed: map that. */
	if (pread(fd, magic, sizeof(magic), 0) == sizeof(magic) && !memcmp(magic, ELFMAG, SELFMAG)) {
		k->map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (k->map == MAP_FAILED) {
			k->map = NULL;
			return bp_err_os(errno, "%s", path);
		}
		k->map_len = (size_t)st.st_size;
		err = load(k, k->map, k->map_len);
	} else {
		if ((uint64_t)st.st_size > BZIMAGE_MAX_BYTES)
			return bp_err_data(path, BP_NO_OFFSET, "too large for a bzImage");
		err = read_file(fd, path, (size_t)st.st_size, &data, &len);
		if (!err)
			err = load(k, data, len);
	}
	if (err)
		return err;
	*ret = bp_steal(k);
	return NULL;
}

void bp_kimage_destroy(struct bp_kimage *k)
{
	if (!k)
		return;
	bp_btf_destroy(k->btf);
	bp_vmlinux_deinit(&k->elf);
	free(k->initcalls);
	free(k->by_name);
	free(k->text);
	free(k->syms);
	free(k->names);
	free(k->expanded);
	if (k->map)
		munmap(k->map, k->map_len);
	free(k->path);
	free(k);
}

void bp_kimage_trim(struct bp_kimage *k)
{
	/* Names from an ELF symbol table lie in the image. */
	if (!k->expanded || !k->names)
		return;
	bp_btf_destroy(k->btf);
	k->btf = NULL;
	bp_vmlinux_deinit(&k->elf);
	free(k->expanded);
	k->expanded = NULL;
}

const struct bp_ksym *bp_kimage_syms(const struct bp_kimage *k, size_t *count)
{
	*count = k->sym_count;
	return k->syms;
}

const struct bp_ksym *bp_kimage_lookup(const struct bp_kimage *k, const char *name)
{
	uint32_t i = k->by_name[name_slot(k, name)];

	return i ? &k->syms[i - 1] : NULL;
}

const struct bp_ksym *bp_kimage_find(const struct bp_kimage *k, uint64_t addr)
{
	size_t lo = 0, hi = k->text_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (k->text[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || addr >= k->text[lo - 1].end)
		return NULL;
	return &k->syms[k->text[lo - 1].sym];
}

void bp_kimage_text(const struct bp_kimage *k, uint64_t *start, uint64_t *end)
{
	*start = k->elf.text_start;
	*end = k->elf.text_end;
}

const char *bp_kimage_release(const struct bp_kimage *k)
{
	return k->release;
}

const char *bp_kimage_build_id(const struct bp_kimage *k)
{
	return k->elf.build_id;
}

bool bp_kimage_is_debug(const struct bp_kimage *k)
{
	return k->elf.has_dwarf;
}

bool bp_kimage_read(const struct bp_kimage *k, uint64_t addr, void *dst, size_t len)
{
	const uint8_t *p = bp_vmlinux_at(&k->elf, addr, len);

	if (p)
		memcpy(dst, p, len);
	return p;
}

const struct bp_initcall *bp_kimage_initcalls(const struct bp_kimage *k, size_t *count)
{
	*count = k->initcall_count;
	return k->initcalls;
}

const char *bp_initcall_level_name(enum bp_initcall_level level)
{
	static const char *const names[BP_INITCALL_N] = {
	    [BP_INITCALL_EARLY] = "early",   [BP_INITCALL_PURE] = "pure",
	    [BP_INITCALL_CORE] = "core",     [BP_INITCALL_POSTCORE] = "postcore",
	    [BP_INITCALL_ARCH] = "arch",     [BP_INITCALL_SUBSYS] = "subsys",
	    [BP_INITCALL_FS] = "fs",         [BP_INITCALL_ROOTFS] = "rootfs",
	    [BP_INITCALL_DEVICE] = "device", [BP_INITCALL_LATE] = "late",
	};

	return (unsigned)level < BP_INITCALL_N ? names[level] : "unknown";
}

const char *bp_kimage_syscall_name(const struct bp_kimage *k, unsigned nr)
{
	static const char lead[] = "__x64_sys_";
	const struct bp_ksym *table = bp_kimage_lookup(k, "sys_call_table"), *s;
	const char *name = bp_syscall_x86_64_name(nr);
	uint64_t addr;

	if (name || !table || nr >= table->size / sizeof(addr) ||
	    !bp_kimage_read(k, table->addr + sizeof(addr) * (uint64_t)nr, &addr, sizeof(addr)))
		return name;
	s = bp_kimage_find(k, addr);
	if (!s || s->addr != addr || !starts_with(s->name, lead) || !strcmp(s->name, "__x64_sys_ni_syscall"))
		return NULL;
	return s->name + sizeof(lead) - 1;
}

const struct bp_btf *bp_kimage_btf(const struct bp_kimage *k)
{
	return k->btf;
}
