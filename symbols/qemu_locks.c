// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/qemu_locks.h"

#include <elfutils/libdwelf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"

#define MAPS_MAX 262144 /* the kernel's own default limit is 65530 a process */
#define CODE_MAX 4096   /* of one function */
#define FUNCTIONS_MAX 6 /* of one rule */
#define ARENA_BYTES (UINT64_C(64) << 20)

enum place { IN_BSS, IN_DATA };

/* A lock whose address the code of exported functions gives away. */
static const struct rule {
	const char *name;
	const char *library; /* NULL: QEMU itself; else how its file name begins */
	enum place place;
	const char *functions[FUNCTIONS_MAX]; /* two of them must say the same, and nobody else */
	const char *passed_to;                /* the address is handed to this function: then one is enough */
	bool is_bql;
} rules[] = {
    {.name = "qemu_global_mutex",
     .functions = {"qemu_mutex_lock_iothread_impl", "qemu_mutex_lock_iothread", "qemu_mutex_unlock_iothread",
		   "qemu_cond_wait_iothread", "qemu_cond_timedwait_iothread"},
     .is_bql = true},
    {.name = "bql",
     .functions = {"bql_lock_impl", "bql_unlock", "qemu_cond_wait_bql", "qemu_cond_timedwait_bql"},
     .is_bql = true},
    {.name = "rcu_registry_lock", .functions = {"rcu_register_thread", "rcu_unregister_thread"}},
    {.name = "rcu_call_ready_event", .functions = {"call_rcu1", "call_rcu"}, .passed_to = "qemu_event_set"},
    {.name = "main_arena",
     .library = "libc.so",
     .place = IN_DATA,
     .functions = {"malloc_trim", "mallinfo2", "mallopt", "malloc_stats", "realloc", "calloc"}},
};

#define N_RULES BP_ARRAY_SIZE(rules)

static const char *const bql_probes[] = {"qemu_mutex_lock_iothread_impl", "bql_lock_impl"};
static const char *const mutex_probes[] = {"qemu_mutex_lock_impl"};

static const char from_symbols[] = "symbol table", from_debug[] = "debug symbols",
		  from_code[] = "code of lock functions", from_arena[] = "malloc arena";

bool bp_qemu_is_bql(const char *name)
{
	return !strcmp(name, "qemu_global_mutex") || !strcmp(name, "bql");
}

struct map {
	uint64_t start, end, offset;
	bool exec, file;
	const char *path; /* in the text */
};

struct object {
	uint64_t addr, size; /* as linked */
	const char *name;    /* libelf's */
	const char *how;
};

/* A file, and where it was mapped. */
struct image {
	Elf *elf, *debug;
	int fd, debug_fd;
	uint64_t bias;
	struct object *objects; /* sorted by address */
	size_t n_objects, cap_objects;
};

struct found {
	uint64_t addr; /* run time; 0: not found */
	uint64_t size;
};

struct bp_qemu_locks {
	char *maps_text;
	struct map *maps;
	size_t n_maps;
	struct image qemu;
	struct found found[N_RULES];
	char *root; /* NULL: libraries are not looked at */
	bool libc_seen;
};

/* ---- code ---- */

static uint64_t rip_target(const uint8_t *disp, uint64_t next)
{
	int32_t d;

	memcpy(&d, disp, 4);
	return next + (uint64_t)(int64_t)d;
}

size_t bp_lea_targets(const uint8_t *code, size_t len, uint64_t vaddr, uint64_t low, uint64_t high,
		      uint64_t next_to, uint64_t ret[BP_LEA_MAX])
{
	size_t n = 0;

	/* REX.W (with or without R), 8d, ModRM with mod 0 and r/m 5, 32-bit displacement. */
	for (size_t i = 0; i + 7 <= len; i++) {
		uint64_t target;
		bool known = false;

		if ((code[i] & 0xfb) != 0x48 || code[i + 1] != 0x8d || (code[i + 2] & 0xc7) != 5)
			continue;
		target = rip_target(code + i + 3, vaddr + i + 7);
		if (target < low || target >= high)
			continue;
		if (next_to) {
			const uint8_t *p = code + i + 7;
			size_t left = len - i - 7, skip = 0;

			/* What gcc puts between: the stack back as it was. */
			if (left >= 4 && p[0] == 0x48 && p[1] == 0x83 && p[2] == 0xc4)
				skip = 4;
			if (left < skip + 5 || (p[skip] & 0xfe) != 0xe8 ||
			    rip_target(p + skip + 1, vaddr + i + 7 + skip + 5) != next_to)
				continue;
		}
		for (size_t k = 0; k < n; k++)
			known |= ret[k] == target;
		if (!known && n < BP_LEA_MAX)
			ret[n++] = target;
	}
	return n;
}

size_t bp_probe_offset(const uint8_t *code, size_t len, bool *emulated)
{
	uint8_t start[32 + 8] = {0}; /* padded, so that any instruction can be looked at whole */
	size_t at = 0;

	memcpy(start, code, len < 32 ? len : 32);
	*emulated = true;
	while (at < 32) {
		const uint8_t *p = start + at;

		/* push, of the upper registers too; nop; call near */
		if ((p[0] & 0xf8) == 0x50 || (p[0] == 0x41 && (p[1] & 0xf8) == 0x50) || p[0] == 0x90 ||
		    p[0] == 0xe8)
			return at;
		if (p[0] == 0xf3 && p[1] == 0x0f && p[2] == 0x1e && p[3] == 0xfa) /* endbr64 */
			at += 4;
		else if (p[0] == 0x48 && p[1] == 0x83 && p[2] == 0xec) /* sub $N,%rsp */
			at += 4;
		/* mov X(%rip) to one of rax, rcx, rbx, r8 and up: not to rdx, rsi, rdi */
		else if ((p[0] & 0xfb) == 0x48 && p[1] == 0x8b && (p[2] & 0xc7) == 5 &&
			 ((p[0] & 4) || p[2] == 0x05 || p[2] == 0x0d || p[2] == 0x1d))
			at += 7;
		else
			break;
	}
	*emulated = false;
	return 0;
}

/* ---- mappings ---- */

static bool parse_map(char *line, struct map *m)
{
	char *p = line;

	m->start = strtoull(p, &p, 16);
	if (p == line || *p++ != '-')
		return false;
	m->end = strtoull(p, &p, 16);
	if (*p++ != ' ' || m->end <= m->start || strnlen(p, 5) < 5 || p[4] != ' ')
		return false;
	m->exec = p[2] == 'x';
	p += 5;
	m->offset = strtoull(p, &p, 16);
	/* Device and inode. */
	for (int i = 0; i < 2; i++) {
		p += strspn(p, " ");
		p += strcspn(p, " ");
	}
	p += strspn(p, " ");
	m->path = p;
	m->file = *p == '/';
	return true;
}

static struct bp_err *read_maps(const char *text, size_t len, char **text_ret, struct map **ret,
				size_t *n_ret)
{
	bp_autofree char *copy = malloc(len + 1);
	bp_autofree struct map *maps = NULL;
	size_t n = 0, cap = 0, next;

	if (!copy)
		return bp_err_nomem();
	memcpy(copy, text, len);
	copy[len] = '\0';
	for (size_t at = 0; at < len && n < MAPS_MAX; at = next) {
		char *end = memchr(copy + at, '\n', len - at);

		next = end ? (size_t)(end - copy) + 1 : len;
		if (end)
			*end = '\0';
		if (!copy[at])
			continue;
		if (n == cap) {
			struct map *more;

			cap = cap ? 2 * cap : 256;
			more = realloc(maps, cap * sizeof(*maps));
			if (!more)
				return bp_err_nomem();
			maps = more;
		}
		if (!parse_map(copy + at, &maps[n]))
			return bp_err_data("mappings", at, "not a line of /proc/PID/maps");
		n++;
	}
	*text_ret = bp_steal(copy);
	*ret = bp_steal(maps);
	*n_ret = n;
	return NULL;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static const struct map *map_of(const struct bp_qemu_locks *l, uint64_t addr)
{
	for (size_t i = 0; i < l->n_maps; i++) {
		if (addr >= l->maps[i].start && addr < l->maps[i].end)
			return &l->maps[i];
	}
	return NULL;
}

/* The path of the binary as the mappings have it. */
static const char *mapped_path(const struct bp_qemu_locks *l, const char *binary, const char *mapped)
{
	const char *want = mapped ? mapped : binary, *first = NULL, *like = NULL;

	for (size_t i = 0; i < l->n_maps; i++) {
		const struct map *m = &l->maps[i];

		if (!m->file)
			continue;
		if (!strcmp(m->path, want))
			return m->path;
		if (!first)
			first = m->path;
		if (!like && !strcmp(base_name(m->path), base_name(want)))
			like = m->path;
	}
	return mapped ? NULL : like ? like : first;
}

/* ---- files ---- */

static struct bp_err *open_elf(const char *path, int *fd, Elf **elf)
{
	struct stat st;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0 || fstat(*fd, &st))
		return bp_err_os(errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return bp_err_data(path, 0, "not an ELF file");
	if (elf_version(EV_CURRENT) == EV_NONE)
		return bp_err_new(BP_EUNSUPPORTED, "libelf is too old");
	*elf = elf_begin(*fd, ELF_C_READ_MMAP, NULL);
	if (!*elf || elf_kind(*elf) != ELF_K_ELF || gelf_getclass(*elf) != ELFCLASS64)
		return bp_err_data(path, 0, "not a 64-bit ELF file");
	return NULL;
}

static void image_deinit(struct image *im)
{
	elf_end(im->elf);
	elf_end(im->debug);
	bp_closep(&im->fd);
	bp_closep(&im->debug_fd);
	free(im->objects);
}

/* The load bias: from the mapping of the file's first byte; a mapping of its code must agree. */
static struct bp_err *find_bias(const struct bp_qemu_locks *l, struct image *im, const char *path)
{
	bool have_bias = false;
	size_t n;

	if (elf_getphdrnum(im->elf, &n))
		return bp_err_data(path, 0, "no program headers");
	for (size_t i = 0; i < n && !have_bias; i++) {
		GElf_Phdr ph;

		if (!gelf_getphdr(im->elf, (int)i, &ph) || ph.p_type != PT_LOAD || ph.p_offset)
			continue;
		for (size_t k = 0; k < l->n_maps && !have_bias; k++) {
			const struct map *m = &l->maps[k];

			if (!m->offset && m->file && !strcmp(m->path, path)) {
				im->bias = m->start - ph.p_vaddr;
				have_bias = true;
			}
		}
	}
	for (size_t i = 0; i < n && have_bias; i++) {
		GElf_Phdr ph;
		const struct map *m;

		if (!gelf_getphdr(im->elf, (int)i, &ph) || ph.p_type != PT_LOAD || !(ph.p_flags & PF_X))
			continue;
		m = map_of(l, im->bias + ph.p_vaddr);
		if (m && m->exec && m->file && !strcmp(m->path, path) &&
		    m->offset + (im->bias + ph.p_vaddr - m->start) == ph.p_offset)
			return NULL;
	}
	return bp_err_new(BP_EUNSUPPORTED,
			  "the mappings are not those of this binary: %s is not mapped as it should be",
			  path);
}

static bool find_section(Elf *elf, GElf_Word type, Elf_Scn **scn, GElf_Shdr *sh)
{
	while ((*scn = elf_nextscn(elf, *scn))) {
		if (gelf_getshdr(*scn, sh) && sh->sh_type == type)
			return true;
	}
	return false;
}

static bool is_object(const GElf_Sym *s)
{
	return GELF_ST_TYPE(s->st_info) == STT_OBJECT && s->st_size && s->st_shndx != SHN_UNDEF &&
	       s->st_shndx < SHN_LORESERVE;
}

static struct bp_err *add_objects(struct image *im, Elf *elf, GElf_Word type, const char *how)
{
	Elf_Scn *scn = NULL;
	GElf_Shdr sh;

	while (find_section(elf, type, &scn, &sh)) {
		Elf_Data *data = elf_getdata(scn, NULL);
		size_t n = data && sh.sh_entsize ? data->d_size / sh.sh_entsize : 0;

		for (size_t i = 0; i < n; i++) {
			const char *name;
			GElf_Sym s;

			if (!gelf_getsym(data, (int)i, &s) || !is_object(&s))
				continue;
			name = elf_strptr(elf, sh.sh_link, s.st_name);
			if (!name || !*name)
				continue;
			if (im->n_objects == im->cap_objects) {
				size_t cap = im->cap_objects ? 2 * im->cap_objects : 1024;
				struct object *more = realloc(im->objects, cap * sizeof(*more));

				if (!more)
					return bp_err_nomem();
				im->objects = more;
				im->cap_objects = cap;
			}
			im->objects[im->n_objects++] = (struct object){s.st_value, s.st_size, name, how};
		}
	}
	return NULL;
}

static int by_address(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	/* The smaller one says more. */
	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	return strcmp(y->name, x->name);
}

/* The separate debug file of a stripped binary, when it is installed: only its symbols are of use here. */
static void open_debug(struct image *im)
{
	char path[256] = "/usr/lib/debug/.build-id/";
	size_t at = strlen(path);
	const void *id, *other;
	ssize_t n = dwelf_elf_gnu_build_id(im->elf, &id);
	struct bp_err *err;

	if (n < 2 || n > 64)
		return;
	for (ssize_t i = 0; i < n; i++)
		at += (size_t)snprintf(path + at, sizeof(path) - at, i ? "%02x" : "%02x/",
				       ((const uint8_t *)id)[i]);
	snprintf(path + at, sizeof(path) - at, ".debug");
	err = open_elf(path, &im->debug_fd, &im->debug);
	if (!err && dwelf_elf_gnu_build_id(im->debug, &other) == n && !memcmp(id, other, (size_t)n))
		return;
	bp_err_ignore(err);
	elf_end(bp_steal(im->debug));
	bp_closep(&im->debug_fd);
	im->debug_fd = -1;
}

static struct bp_err *open_image(const struct bp_qemu_locks *l, struct image *im, const char *path,
				 const char *mapped)
{
	struct bp_err *err = open_elf(path, &im->fd, &im->elf);

	if (!err)
		err = find_bias(l, im, mapped);
	if (err)
		return err;
	open_debug(im);
	err = add_objects(im, im->elf, SHT_DYNSYM, from_symbols);
	if (!err)
		err = add_objects(im, im->elf, SHT_SYMTAB, from_symbols);
	if (!err && im->debug)
		err = add_objects(im, im->debug, SHT_SYMTAB, from_debug);
	if (!err && im->n_objects)
		qsort(im->objects, im->n_objects, sizeof(*im->objects), by_address);
	return err;
}

/* The smallest object covering @addr (as linked). Objects overlap only where one is another name of the
 * other. */
static const struct object *object_at(const struct image *im, uint64_t addr)
{
	size_t lo = 0, hi = im->n_objects;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (im->objects[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (size_t back = 0; lo && back < 8; lo--, back++) {
		if (addr - im->objects[lo - 1].addr < im->objects[lo - 1].size)
			return &im->objects[lo - 1];
	}
	return NULL;
}

/* Bytes of the file at an address as linked; NULL when there are not @len, or less than one with @len 0. */
static const uint8_t *bytes_at(const struct image *im, uint64_t addr, size_t *len, uint64_t *offset)
{
	size_t n, file_len;
	const char *file = elf_rawfile(im->elf, &file_len);

	if (!file || elf_getphdrnum(im->elf, &n))
		return NULL;
	for (size_t i = 0; i < n; i++) {
		uint64_t at, left;
		GElf_Phdr ph;

		if (!gelf_getphdr(im->elf, (int)i, &ph) || ph.p_type != PT_LOAD || addr < ph.p_vaddr ||
		    addr - ph.p_vaddr >= ph.p_filesz)
			continue;
		at = ph.p_offset + (addr - ph.p_vaddr);
		left = ph.p_filesz - (addr - ph.p_vaddr);
		if (at < ph.p_offset || at >= file_len)
			return NULL;
		if (left > file_len - at)
			left = file_len - at;
		if (*len > left)
			*len = left;
		if (offset)
			*offset = at;
		return (const uint8_t *)file + at;
	}
	return NULL;
}

/* Code of an exported function. */
static const uint8_t *function_code(const struct image *im, const char *want, uint64_t *addr, size_t *len,
				    uint64_t *offset)
{
	static const GElf_Word types[] = {SHT_DYNSYM, SHT_SYMTAB};

	for (size_t t = 0; t < BP_ARRAY_SIZE(types); t++) {
		Elf_Scn *scn = NULL;
		GElf_Shdr sh;

		while (find_section(im->elf, types[t], &scn, &sh)) {
			Elf_Data *data = elf_getdata(scn, NULL);
			size_t n = data && sh.sh_entsize ? data->d_size / sh.sh_entsize : 0;

			for (size_t i = 0; i < n; i++) {
				const char *name;
				GElf_Sym s;

				if (!gelf_getsym(data, (int)i, &s) || GELF_ST_TYPE(s.st_info) != STT_FUNC ||
				    s.st_shndx == SHN_UNDEF || !s.st_size)
					continue;
				name = elf_strptr(im->elf, sh.sh_link, s.st_name);
				if (!name || strcmp(name, want))
					continue;
				*addr = s.st_value;
				*len = s.st_size < CODE_MAX ? s.st_size : CODE_MAX;
				return bytes_at(im, s.st_value, len, offset);
			}
		}
	}
	return NULL;
}

static bool section_range(const struct image *im, enum place place, uint64_t *low, uint64_t *high)
{
	Elf_Scn *scn = NULL;
	GElf_Shdr sh;
	size_t strs;

	if (elf_getshdrstrndx(im->elf, &strs))
		return false;
	while (find_section(im->elf, place == IN_BSS ? SHT_NOBITS : SHT_PROGBITS, &scn, &sh)) {
		const char *name = elf_strptr(im->elf, strs, sh.sh_name);

		if (!name || strcmp(name, place == IN_BSS ? ".bss" : ".data"))
			continue;
		*low = sh.sh_addr;
		*high = sh.sh_addr + sh.sh_size;
		return *high > *low;
	}
	return false;
}

/* What all functions of a rule have in common; 0 when they do not agree on exactly one address. */
static uint64_t apply_rule(const struct image *im, const struct rule *r)
{
	uint64_t low, high, next_to = 0, common[BP_LEA_MAX];
	size_t n = 0, agreed = 0, len;

	if (!section_range(im, r->place, &low, &high))
		return 0;
	if (r->passed_to && !function_code(im, r->passed_to, &next_to, &len, NULL))
		return 0;
	for (size_t i = 0; i < FUNCTIONS_MAX && r->functions[i]; i++) {
		uint64_t addr, targets[BP_LEA_MAX];
		const uint8_t *code = function_code(im, r->functions[i], &addr, &len, NULL);
		size_t k, kept = 0;

		k = code ? bp_lea_targets(code, len, addr, low, high, next_to, targets) : 0;
		if (!k)
			continue;
		if (!agreed++) {
			memcpy(common, targets, k * sizeof(*common));
			n = k;
			continue;
		}
		for (size_t a = 0; a < n; a++) {
			for (size_t b = 0; b < k; b++) {
				if (common[a] == targets[b]) {
					common[kept++] = common[a];
					break;
				}
			}
		}
		n = kept;
	}
	return n == 1 && agreed >= (r->passed_to ? 1 : 2) ? common[0] : 0;
}

static void apply_rules(struct bp_qemu_locks *l, const struct image *im, const char *library)
{
	for (size_t i = 0; i < N_RULES; i++) {
		uint64_t addr;

		if (library ? !rules[i].library ||
				  strncmp(base_name(library), rules[i].library, strlen(rules[i].library))
			    : rules[i].library != NULL)
			continue;
		addr = apply_rule(im, &rules[i]);
		if (addr) {
			l->found[i].addr = im->bias + addr;
			/* The futex of a mutex or an event is its first word. */
			l->found[i].size = 4;
		}
	}
}

/* The C library, for its main arena. That it cannot be read costs one name. */
static void look_at_libc(struct bp_qemu_locks *l)
{
	if (!l->root || l->libc_seen)
		return;
	for (size_t i = 0; i < l->n_maps; i++) {
		struct image im = {.fd = -1, .debug_fd = -1};
		const struct map *m = &l->maps[i];
		char path[4096];
		struct bp_err *err;

		if (!m->file || !m->exec || strncmp(base_name(m->path), "libc.so", 7))
			continue;
		l->libc_seen = true;
		if ((size_t)snprintf(path, sizeof(path), "%s%s", l->root, m->path) >= sizeof(path))
			return;
		err = open_elf(path, &im.fd, &im.elf);
		if (!err)
			err = find_bias(l, &im, m->path);
		if (!err)
			apply_rules(l, &im, m->path);
		bp_err_ignore(err);
		image_deinit(&im);
		return;
	}
}

static void bp_qemu_locks_destroyp(struct bp_qemu_locks **l)
{
	bp_qemu_locks_destroy(*l);
}

struct bp_err *bp_qemu_locks_create(const char *binary, const char *mapped, const char *maps, size_t maps_len,
				    const char *root, struct bp_qemu_locks **ret)
{
	bp_cleanup(bp_qemu_locks_destroyp) struct bp_qemu_locks *l = calloc(1, sizeof(*l));
	const char *path;
	struct bp_err *err;

	if (!l)
		return bp_err_nomem();
	l->qemu.fd = l->qemu.debug_fd = -1;
	err = read_maps(maps, maps_len, &l->maps_text, &l->maps, &l->n_maps);
	if (err)
		return err;
	path = mapped_path(l, binary, mapped);
	if (!path)
		return bp_err_new(BP_EUNSUPPORTED,
				  "the mappings are not those of this binary: %s is not among them",
				  mapped ? mapped : binary);
	err = open_image(l, &l->qemu, binary, path);
	if (err)
		return err;
	apply_rules(l, &l->qemu, NULL);
	if (root && !(l->root = strdup(root)))
		return bp_err_nomem();
	look_at_libc(l);
	*ret = bp_steal(l);
	return NULL;
}

void bp_qemu_locks_destroy(struct bp_qemu_locks *l)
{
	if (!l)
		return;
	image_deinit(&l->qemu);
	free(l->maps);
	free(l->maps_text);
	free(l->root);
	free(l);
}

struct bp_err *bp_qemu_locks_update(struct bp_qemu_locks *l, const char *maps, size_t maps_len)
{
	char *text;
	struct map *list;
	size_t n;
	struct bp_err *err = read_maps(maps, maps_len, &text, &list, &n);

	if (err)
		return err;
	free(l->maps_text);
	free(l->maps);
	l->maps_text = text;
	l->maps = list;
	l->n_maps = n;
	look_at_libc(l);
	return NULL;
}

/* ---- questions ---- */

uint64_t bp_qemu_locks_bql(const struct bp_qemu_locks *l, const char **how)
{
	*how = NULL;
	for (size_t i = 0; i < l->qemu.n_objects; i++) {
		if (bp_qemu_is_bql(l->qemu.objects[i].name)) {
			*how = l->qemu.objects[i].how;
			return l->qemu.bias + l->qemu.objects[i].addr;
		}
	}
	for (size_t i = 0; i < N_RULES; i++) {
		if (rules[i].is_bql && l->found[i].addr) {
			*how = from_code;
			return l->found[i].addr;
		}
	}
	return 0;
}

/*
 * Arenas other than the main one lie at the start of 64 MiB of their own, behind a header of four words, or
 * six since glibc 2.35; their lock is their first member.
 */
static bool find_arena(const struct bp_qemu_locks *l, uint64_t addr, struct bp_qemu_lock *ret)
{
	uint64_t heap = addr & ~(ARENA_BYTES - 1), in = addr - heap;
	const struct map *m = map_of(l, addr);

	if (!m || m->start != heap || m->path[0] || (in != 0x20 && in != 0x30))
		return false;
	snprintf(ret->name, sizeof(ret->name), "malloc arena 0x%llx", (unsigned long long)heap);
	ret->how = from_arena;
	ret->addr = addr;
	ret->size = 4;
	return true;
}

bool bp_qemu_locks_find(const struct bp_qemu_locks *l, uint64_t addr, struct bp_qemu_lock *ret)
{
	const struct object *o = object_at(&l->qemu, addr - l->qemu.bias);

	*ret = (struct bp_qemu_lock){0};
	if (o) {
		uint64_t in = addr - l->qemu.bias - o->addr;

		if (in)
			snprintf(ret->name, sizeof(ret->name), "%.100s+0x%llx", o->name,
				 (unsigned long long)in);
		else
			snprintf(ret->name, sizeof(ret->name), "%.127s", o->name);
		ret->how = o->how;
		ret->addr = l->qemu.bias + o->addr;
		ret->size = o->size;
		ret->is_bql = !in && bp_qemu_is_bql(o->name);
		return true;
	}
	for (size_t i = 0; i < N_RULES; i++) {
		if (l->found[i].addr && addr - l->found[i].addr < l->found[i].size) {
			snprintf(ret->name, sizeof(ret->name), "%s", rules[i].name);
			ret->how = from_code;
			ret->addr = l->found[i].addr;
			ret->size = l->found[i].size;
			ret->is_bql = rules[i].is_bql;
			return true;
		}
	}
	return find_arena(l, addr, ret);
}

/* The file whose zeroed data a mapping without a file is: it follows at once. NULL: none; @base where it is
 * loaded. */
static const char *zeroed_data_of(const struct bp_qemu_locks *l, const struct map *m, uint64_t *base)
{
	const struct map *before = m > l->maps ? m - 1 : NULL;

	if (!before || m->path[0] || !before->file || before->end != m->start)
		return NULL;
	for (*base = before->start; before > l->maps && !strcmp(before[-1].path, before->path); before--)
		*base = before[-1].start;
	return before->path;
}

void bp_qemu_locks_place(const struct bp_qemu_locks *l, uint64_t addr, char *dst)
{
	const struct map *m = map_of(l, addr);
	const char *file;
	uint64_t base;

	if (!m)
		snprintf(dst, BP_LOCK_NAME_MAX, "unmapped");
	else if (!strcmp(m->path, "[heap]"))
		snprintf(dst, BP_LOCK_NAME_MAX, "heap");
	else if (!strncmp(m->path, "[stack", 6))
		snprintf(dst, BP_LOCK_NAME_MAX, "stack");
	else if (m->file)
		snprintf(dst, BP_LOCK_NAME_MAX, "%.90s+0x%llx", base_name(m->path),
			 (unsigned long long)(m->offset + (addr - m->start)));
	else if ((file = zeroed_data_of(l, m, &base)))
		snprintf(dst, BP_LOCK_NAME_MAX, "%.90s+0x%llx", base_name(file),
			 (unsigned long long)(addr - base));
	else
		snprintf(dst, BP_LOCK_NAME_MAX, "anonymous memory");
}

bool bp_qemu_locks_text(const struct bp_qemu_locks *l, uint64_t addr, char *dst, size_t cap)
{
	size_t len = cap, n = 0;
	const uint8_t *p = bytes_at(&l->qemu, addr - l->qemu.bias, &len, NULL);

	if (!p || !cap)
		return false;
	while (n < len && n + 1 < cap && p[n] >= ' ' && p[n] < 0x7f) {
		dst[n] = (char)p[n];
		n++;
	}
	dst[n] = '\0';
	return n && n < len && !p[n];
}

bool bp_qemu_locks_probe(const struct bp_qemu_locks *l, bool any_mutex, struct bp_qemu_probe *ret)
{
	const char *const *names = any_mutex ? mutex_probes : bql_probes;
	size_t n = any_mutex ? BP_ARRAY_SIZE(mutex_probes) : BP_ARRAY_SIZE(bql_probes);

	for (size_t i = 0; i < n; i++) {
		uint64_t addr, offset;
		size_t len;
		const uint8_t *code = function_code(&l->qemu, names[i], &addr, &len, &offset);

		if (!code)
			continue;
		*ret = (struct bp_qemu_probe){.function = names[i], .any_mutex = any_mutex};
		ret->file_offset = offset + bp_probe_offset(code, len, &ret->emulated);
		return true;
	}
	return false;
}
