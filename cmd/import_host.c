// SPDX-License-Identifier: GPL-2.0-or-later
#include "cmd/import_host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "symbols/guestfs.h"
#include "symbols/qemu_locks.h"

#define MAPS_MAX (16u << 20)

/* A line of /proc/PID/maps. */
struct map {
	uint64_t start, end, offset;
	bool exec;
	const char *path; /* "" none; not terminated: */
	size_t path_len;
};

struct host {
	struct bp_strbuf text; /* of the mappings */
	struct map *maps;
	size_t n, cap;
	struct bp_qemu_locks *locks;
	struct bp_elfsyms *syms; /* of the binary */
	char binary[4096];       /* its path in the mappings */
};

static void deinit(struct host *h)
{
	bp_strbuf_deinit(&h->text);
	free(h->maps);
	bp_qemu_locks_destroy(h->locks);
	bp_elfsyms_destroy(h->syms);
}

static void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static BP_MUST_CHECK struct bp_err *read_maps(struct host *h, const char *path)
{
	bp_cleanup(fclosep) FILE *f = fopen(path, "re");
	char buf[8192];
	size_t n;

	if (!f)
		return bp_err_os(errno, "%s: cannot open", path);
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0) {
		bp_strbuf_add(&h->text, buf, n);
		if (h->text.len > MAPS_MAX)
			return bp_err_data(path, MAPS_MAX, "too long for a copy of /proc/PID/maps");
	}
	if (ferror(f))
		return bp_err_os(errno, "%s: cannot read", path);
	return bp_strbuf_ok(&h->text);
}

/* "55e96435f000-55e964766000 r--p 00000000 fe:00 10977297   /usr/bin/qemu-system-x86_64" */
static bool parse_map(const char *line, struct map *m)
{
	unsigned long long start, end, offset;
	char perms[5];
	int at = 0;

	if (sscanf(line, "%llx-%llx %4s %llx %*s %*s %n", &start, &end, perms, &offset, &at) < 4 || !at ||
	    end <= start)
		return false;
	*m = (struct map){start, end, offset, perms[2] == 'x', line + at, strlen(line + at)};
	return true;
}

static BP_MUST_CHECK struct bp_err *parse_maps(struct host *h, const char *path)
{
	char *line = h->text.data, *end;

	for (size_t number = 1; line && *line; line = end, number++) {
		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		else
			end = line + strlen(line);
		if (!*line)
			continue;
		if (h->n == h->cap) {
			size_t cap = h->cap * 2 + 64;
			struct map *p = realloc(h->maps, cap * sizeof(*p));

			if (!p)
				return bp_err_nomem();
			h->maps = p;
			h->cap = cap;
		}
		if (!parse_map(line, &h->maps[h->n]))
			return bp_err_data(path, BP_NO_OFFSET, "line %zu: not a line of /proc/PID/maps",
					   number);
		h->n++;
	}
	return h->n ? NULL : bp_err_data(path, 0, "no mapping in it; it should be a copy of /proc/PID/maps");
}

static BP_MUST_CHECK struct bp_err *write_maps(const struct host *h, struct bp_builder *b)
{
	struct bp_err *err = NULL;

	for (size_t i = 0; i < h->n && !err; i++) {
		const struct map *m = &h->maps[i];
		struct bp_fact f = {.kind = BP_FACT_HOST_MAP,
				    .vcpu = UINT16_MAX,
				    .v = {m->start, m->end, m->offset},
				    .s1 = m->path,
				    .s2 = ""};

		err = bp_builder_fact(b, &f);
	}
	return err;
}

static void find_binary(struct host *h)
{
	for (size_t i = 0; i < h->n && !h->binary[0]; i++) {
		const char *slash = strrchr(h->maps[i].path, '/');

		if (slash && !strncmp(slash + 1, "qemu-", 5))
			snprintf(h->binary, sizeof(h->binary), "%s", h->maps[i].path);
	}
	for (size_t i = 0; i < h->n && !h->binary[0]; i++) {
		if (h->maps[i].path[0] == '/')
			snprintf(h->binary, sizeof(h->binary), "%s", h->maps[i].path);
	}
}

static BP_MUST_CHECK struct bp_err *read_symbols(struct host *h, const char *path)
{
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct bp_err *err;
	struct stat st;
	void *data;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || !st.st_size)
		return NULL;
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return NULL;
	err = bp_elfsyms_open(data, (size_t)st.st_size, path, &h->syms);
	munmap(data, (size_t)st.st_size);
	return err;
}

static BP_MUST_CHECK struct bp_err *name_locks(const struct host *h, const struct bp_sched *s,
					       struct bp_builder *b)
{
	struct bp_err *err = NULL;
	size_t n;
	const uint64_t *words = bp_sched_words(s, &n);

	for (size_t i = 0; i < n && !err; i++) {
		struct bp_fact f = {.kind = BP_FACT_LOCK, .vcpu = UINT16_MAX, .v = {words[i], 4}};
		struct bp_qemu_lock lock;

		if (!words[i] || !bp_qemu_locks_find(h->locks, words[i], &lock))
			continue;
		f.s1 = lock.name;
		f.s2 = lock.how;
		err = bp_builder_fact(b, &f);
	}
	return err;
}

/* Where in a file a frame is; ftrace prints offsets into the mapping of the code. */
static bool place(const struct host *h, const struct bp_host_frame *f, const struct map **ret,
		  uint64_t *offset)
{
	for (size_t i = 0; i < h->n; i++) {
		const struct map *m = &h->maps[i];

		if (f->addr ? f->addr >= m->start && f->addr < m->end
			    : m->exec && !strcmp(m->path, f->module) && f->offset < m->end - m->start) {
			*ret = m;
			*offset = m->offset + (f->addr ? f->addr - m->start : f->offset);
			return m->path[0] == '/';
		}
	}
	return false;
}

static BP_MUST_CHECK struct bp_err *name_frames(const struct host *h, struct bp_sched *s)
{
	struct bp_err *err = NULL;

	for (uint32_t id = 1; id <= bp_sched_n_frames(s) && !err; id++) {
		struct bp_host_frame f = bp_sched_get_frame(s, id);
		const struct map *m;
		uint64_t offset, start;
		const char *name;

		if (f.space != BP_HOST_USER || *f.name || !place(h, &f, &m, &offset))
			continue;
		if (h->syms && !strcmp(m->path, h->binary) && bp_elfsyms_find(h->syms, offset, &name, &start))
			err = bp_sched_name(s, id, name, offset - start, m->path);
		else
			err = bp_sched_name(s, id, "", offset, m->path);
	}
	return err;
}

struct bp_err *bp_import_host_names(struct bp_sched *s, struct bp_builder *b, const char *maps,
				    const char *qemu, struct bp_strbuf *said)
{
	bp_cleanup(deinit) struct host h = {0};
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf copy = BP_STRBUF_INIT;
	struct bp_err *err;

	if (!maps)
		return NULL;
	err = read_maps(&h, maps);
	if (err)
		return err;
	bp_strbuf_add(&copy, bp_strbuf_str(&h.text), h.text.len);
	err = bp_strbuf_ok(&copy);
	if (!err)
		err = parse_maps(&h, maps);
	if (!err)
		err = write_maps(&h, b);
	if (err)
		return err;
	find_binary(&h);
	err = bp_qemu_locks_create(qemu ? qemu : h.binary, h.binary, bp_strbuf_str(&copy), copy.len, NULL,
				   &h.locks);
	if (err && !qemu) {
		/* Nobody said that this machine has it. */
		bp_strbuf_addf(said, "locks of QEMU have no names: %s (--qemu names the binary)",
			       bp_err_text(err));
		bp_err_ignore(err);
		return name_frames(&h, s);
	}
	if (!err)
		err = name_locks(&h, s, b);
	if (!err)
		err = read_symbols(&h, qemu ? qemu : h.binary);
	return err ? err : name_frames(&h, s);
}
