// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/lines.h"

#include <dwarf.h>
#include <elf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwelf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

#define BUILD_ID_MAX_BYTES 64

/* One range of addresses of a compilation unit. */
struct cu_range {
	uint64_t start, end;
	Dwarf_Off die;
};

/* A source path as libdw knows it (by address: it keeps one copy for each unit), and as we show it. */
struct shown_path {
	const char *raw;
	char *shown;
};

struct bp_lines {
	int fd;
	Elf *elf;
	Dwarf *dw;
	char *path;
	bool indexed;
	struct cu_range *ranges; /* sorted by start */
	size_t range_count, range_cap;
	char *root; /* directory of all absolute source paths, with a '/' at its end; NULL if none */
	struct shown_path *paths; /* hash table, a power of two, at most half full */
	size_t path_count, path_slots;
};

static void elf_endp(Elf **elf)
{
	elf_end(*elf);
}

static void hex_build_id(Elf *elf, char out[2 * BUILD_ID_MAX_BYTES + 1])
{
	static const char hex[] = "0123456789abcdef";
	const void *id;
	ssize_t n = dwelf_elf_gnu_build_id(elf, &id);

	out[0] = '\0';
	if (n <= 0 || n > BUILD_ID_MAX_BYTES)
		return;
	for (ssize_t i = 0; i < n; i++) {
		out[2 * i] = hex[((const uint8_t *)id)[i] >> 4];
		out[2 * i + 1] = hex[((const uint8_t *)id)[i] & 15];
	}
	out[2 * n] = '\0';
}

static struct bp_err *open_elf(const char *path, int *fd, Elf **elf)
{
	struct stat st;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0 || fstat(*fd, &st))
		return bp_err_os(errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		return bp_err_os(EISDIR, "%s", path);
	if (elf_version(EV_CURRENT) == EV_NONE)
		return bp_err_new(BP_EUNSUPPORTED, "libelf is too old");
	*elf = elf_begin(*fd, ELF_C_READ_MMAP, NULL);
	if (!*elf || elf_kind(*elf) != ELF_K_ELF)
		return bp_err_data(path, 0, "not an ELF file");
	return NULL;
}

static void bp_lines_destroyp(struct bp_lines **l)
{
	bp_lines_destroy(*l);
}

struct bp_err *bp_lines_open(const char *path, const char *want_build_id, struct bp_lines **ret)
{
	bp_cleanup(bp_lines_destroyp) struct bp_lines *l = calloc(1, sizeof(*l));
	char build_id[2 * BUILD_ID_MAX_BYTES + 1];
	struct bp_err *err;
	GElf_Ehdr eh;

	if (!l)
		return bp_err_nomem();
	l->fd = -1;
	l->path = strdup(path);
	if (!l->path)
		return bp_err_nomem();
	err = open_elf(path, &l->fd, &l->elf);
	if (err)
		return err;
	if (!gelf_getehdr(l->elf, &eh))
		return bp_err_data(path, 0, "ELF header: %s", elf_errmsg(-1));
	if (eh.e_type == ET_REL)
		return bp_err_new(BP_EUNSUPPORTED, "%s: a relocatable file has no addresses yet", path);
	hex_build_id(l->elf, build_id);
	if (want_build_id && strcmp(build_id, want_build_id) != 0)
		return bp_err_new(BP_EUSAGE, "%s: build-id is %s, but %s is needed", path,
				  *build_id ? build_id : "missing", want_build_id);
	l->dw = dwarf_begin_elf(l->elf, DWARF_C_READ, NULL);
	if (!l->dw) {
		int code = dwarf_errno();

		return bp_err_new(BP_EUNSUPPORTED, "%s: no debug information (%s)", path, dwarf_errmsg(code));
	}
	*ret = bp_steal(l);
	return NULL;
}

void bp_lines_destroy(struct bp_lines *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->path_slots; i++)
		free(l->paths[i].shown);
	free(l->paths);
	free(l->ranges);
	free(l->root);
	if (l->dw)
		dwarf_end(l->dw);
	elf_end(l->elf);
	if (l->fd >= 0)
		close(l->fd);
	free(l->path);
	free(l);
}

/* Resolves "." and ".." and double slashes in place, as text. */
static void clean_path(char *path)
{
	bool absolute = *path == '/';
	char *out = path, *in = path;

	while (*in) {
		size_t len = strcspn(in, "/");
		bool above = out == path || (out - path >= 3 && !memcmp(out - 3, "../", 3));

		if (len == 2 && !memcmp(in, "..", 2) && !(above && !absolute)) {
			/* Drop the last part, and at the root nothing. */
			if (out > path + absolute)
				out--;
			while (out > path + absolute && out[-1] != '/')
				out--;
		} else if (len && !(len == 1 && *in == '.')) {
			memmove(out, in, len);
			out += len;
			if (in[len])
				*out++ = '/';
		} else if (!len && in == path) {
			*out++ = '/';
		}
		in += len + (in[len] == '/');
	}
	*out = '\0';
}

/* Makes @l->root the longest directory that also holds @path, which is absolute. */
static bool narrow_root(struct bp_lines *l, const char *path)
{
	size_t n = 0, keep = 0;

	if (!l->root) {
		l->root = strdup(path);
		if (!l->root)
			return false;
		clean_path(l->root);
		n = strlen(l->root);
		while (n && l->root[n - 1] != '/')
			n--;
		l->root[n] = '\0';
		return true;
	}
	for (; l->root[n] && l->root[n] == path[n]; n++)
		if (path[n] == '/')
			keep = n + 1;
	l->root[keep] = '\0';
	return true;
}

static void learn_root(struct bp_lines *l, Dwarf_Die *cu)
{
	Dwarf_Attribute attr;
	const char *name = dwarf_diename(cu);
	const char *dir = dwarf_formstring(dwarf_attr(cu, DW_AT_comp_dir, &attr));

	/* Both ends of a build outside the source tree: /src/linux/kernel/fork.c made in /src/linux/build. */
	if (name && *name == '/' && !strstr(name, "/../"))
		narrow_root(l, name);
	if (dir && *dir == '/' && !strstr(dir, "/../"))
		narrow_root(l, dir);
}

static bool add_range(struct bp_lines *l, uint64_t start, uint64_t end, Dwarf_Off die)
{
	if (!start || end <= start) /* 0: the linker threw the function away */
		return true;
	if (l->range_count == l->range_cap) {
		size_t cap = l->range_cap ? l->range_cap * 2 : 1024;
		struct cu_range *p = realloc(l->ranges, cap * sizeof(*p));

		if (!p)
			return false;
		l->ranges = p;
		l->range_cap = cap;
	}
	l->ranges[l->range_count++] = (struct cu_range){.start = start, .end = end, .die = die};
	return true;
}

static int range_cmp(const void *a, const void *b)
{
	const struct cu_range *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->die < y->die ? -1 : x->die > y->die;
}

/*
 * Lists which unit covers which addresses, from the units themselves: not all compilers write .debug_aranges,
 * and linkers may leave some out. What cannot be read has no lines.
 */
static void index_units(struct bp_lines *l)
{
	Dwarf_Off off = 0, next;
	size_t header;

	l->indexed = true;
	while (!dwarf_nextcu(l->dw, off, &next, &header, NULL, NULL, NULL)) {
		Dwarf_Die cu;
		Dwarf_Addr base, start, end;
		ptrdiff_t pos = 0;

		if (next <= off)
			break;
		if (dwarf_offdie(l->dw, off + header, &cu)) {
			learn_root(l, &cu);
			while ((pos = dwarf_ranges(&cu, pos, &base, &start, &end)) > 0)
				if (!add_range(l, start, end, off + header))
					break;
		}
		off = next;
	}
	qsort(l->ranges, l->range_count, sizeof(*l->ranges), range_cmp);
}

/*
 * The path to show. Builds that map their directory away leave relative paths, before which libdw puts the
 * (relative) directory of the compilation.
 */
static char *make_shown(const struct bp_lines *l, const char *raw, const char *comp_dir)
{
	size_t dir_len = comp_dir ? strlen(comp_dir) : 0, root_len = l->root ? strlen(l->root) : 0;
	char *shown;

	if (dir_len && !strncmp(raw, comp_dir, dir_len) && raw[dir_len] == '/' && raw[dir_len + 1])
		if (*comp_dir != '/' || strncmp(raw + dir_len, "/../", 4) != 0)
			raw += dir_len + 1;
	shown = strdup(raw);
	if (!shown)
		return NULL;
	clean_path(shown);
	if (*shown == '/' && root_len > 1 && !strncmp(shown, l->root, root_len) && shown[root_len])
		memmove(shown, shown + root_len, strlen(shown + root_len) + 1);
	return shown;
}

static size_t path_slot(const struct shown_path *paths, size_t slots, const char *raw)
{
	size_t i = (size_t)((uintptr_t)raw * 0x9e3779b97f4a7c15ull >> 40) & (slots - 1);

	while (paths[i].raw && paths[i].raw != raw)
		i = (i + 1) & (slots - 1);
	return i;
}

static bool paths_grow(struct bp_lines *l)
{
	size_t slots = l->path_slots ? l->path_slots * 2 : 256;
	struct shown_path *paths = calloc(slots, sizeof(*paths));

	if (!paths)
		return false;
	for (size_t i = 0; i < l->path_slots; i++)
		if (l->paths[i].raw)
			paths[path_slot(paths, slots, l->paths[i].raw)] = l->paths[i];
	free(l->paths);
	l->paths = paths;
	l->path_slots = slots;
	return true;
}

static const char *shown_path(struct bp_lines *l, const char *raw, Dwarf_Die *cu)
{
	Dwarf_Attribute attr;
	size_t i;

	if (l->path_count * 2 >= l->path_slots && !paths_grow(l))
		return NULL;
	i = path_slot(l->paths, l->path_slots, raw);
	if (!l->paths[i].raw) {
		char *shown = make_shown(l, raw, dwarf_formstring(dwarf_attr(cu, DW_AT_comp_dir, &attr)));

		if (!shown)
			return NULL;
		l->paths[i] = (struct shown_path){.raw = raw, .shown = shown};
		l->path_count++;
	}
	return l->paths[i].shown;
}

bool bp_lines_find(struct bp_lines *l, uint64_t addr, const char **file, int *line)
{
	const char *raw, *shown;
	size_t lo = 0, hi;
	Dwarf_Line *src;
	Dwarf_Die cu;
	int number;

	if (!l->indexed)
		index_units(l);
	hi = l->range_count;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (l->ranges[mid].start <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || addr >= l->ranges[lo - 1].end || !dwarf_offdie(l->dw, l->ranges[lo - 1].die, &cu))
		return false;
	src = dwarf_getsrc_die(&cu, addr);
	if (!src || dwarf_lineno(src, &number) || number <= 0)
		return false;
	raw = dwarf_linesrc(src, NULL, NULL);
	shown = raw ? shown_path(l, raw, &cu) : NULL;
	if (!shown)
		return false;
	*file = shown;
	*line = number;
	return true;
}

static bool is_hex(const char *s)
{
	return strspn(s, "0123456789abcdef") == strlen(s);
}

/* Is @path an ELF file of that build? Files that cannot be read are not. */
static bool has_build_id(const char *path, const char *build_id)
{
	bp_cleanup(elf_endp) Elf *elf = NULL;
	bp_autoclose int fd = -1;
	char found[2 * BUILD_ID_MAX_BYTES + 1];
	struct bp_err *err = open_elf(path, &fd, &elf);

	if (err) {
		bp_err_ignore(err);
		return false;
	}
	hex_build_id(elf, found);
	return !strcmp(found, build_id);
}

struct bp_err *bp_debug_vmlinux_find_under(const char *root, const char *build_id, const char *release,
					   char **ret)
{
	/* The release comes out of a kernel image: it must not lead elsewhere. */
	bool use_release = *release && !strchr(release, '/') && strcmp(release, "..") != 0;
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_err *err = NULL;
	char *found = NULL;

	for (int i = 0; i < 4 && strlen(build_id) > 2 && is_hex(build_id) && !err && !found; i++) {
		if (i && !use_release)
			break;
		bp_strbuf_clear(&sb);
		bp_strbuf_adds(&sb, root);
		switch (i) {
		case 0:
			bp_strbuf_addf(&sb, "/usr/lib/debug/.build-id/%.2s/%s.debug", build_id, build_id + 2);
			break;
		case 1:
			bp_strbuf_addf(&sb, "/usr/lib/debug/boot/vmlinux-%s", release);
			break;
		case 2:
			bp_strbuf_addf(&sb, "/usr/lib/debug/lib/modules/%s/vmlinux", release);
			break;
		default:
			bp_strbuf_addf(&sb, "/boot/vmlinux-%s", release);
			break;
		}
		err = bp_strbuf_ok(&sb);
		if (!err && has_build_id(bp_strbuf_str(&sb), build_id)) {
			found = strdup(bp_strbuf_str(&sb));
			if (!found)
				err = bp_err_nomem();
		}
	}
	bp_strbuf_deinit(&sb);
	if (!err)
		*ret = found;
	return err;
}

struct bp_err *bp_debug_vmlinux_find(const char *build_id, const char *release, char **ret)
{
	return bp_debug_vmlinux_find_under("", build_id, release, ret);
}
