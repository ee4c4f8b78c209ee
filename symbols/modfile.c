// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/modfile.h"

#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/source.h"

#define FILE_MAX (256u << 20)
#define SYMS_MAX (1u << 20)
#define SECTIONS_MAX 65536u
#define NOWHERE UINT64_MAX

struct file {
	const char *path;
	const uint8_t *data;
	size_t len;
};

static struct bp_err *bad(const struct file *f, uint64_t offset, const char *what)
{
	return bp_err_data(f->path, offset, "%s", what);
}

static bool get(const struct file *f, uint64_t offset, void *dst, size_t n)
{
	if (offset > f->len || f->len - offset < n)
		return false;
	memcpy(dst, f->data + offset, n);
	return true;
}

/* A string of a table; "" when it does not end in the file. */
static const char *text(const struct file *f, const Elf64_Shdr *table, uint64_t at)
{
	uint64_t start = table->sh_offset + at;

	if (at >= table->sh_size || start < at || start >= f->len ||
	    !memchr(f->data + start, '\0', f->len - start))
		return "";
	return (const char *)f->data + start;
}

static bool in_core_text(const Elf64_Shdr *s, const char *name)
{
	const uint64_t want = SHF_ALLOC | SHF_EXECINSTR;

	return (s->sh_flags & want) == want && strncmp(name, ".init", 5) != 0;
}

/* "vermagic=6.1.0-28-amd64 SMP preempt ..." among the strings of .modinfo */
static void find_release(const struct file *f, const Elf64_Shdr *s, struct bp_modfile *m)
{
	uint64_t at = 0;

	while (at < s->sh_size) {
		const char *p = text(f, s, at);

		if (!strncmp(p, "vermagic=", 9)) {
			snprintf(m->release, sizeof(m->release), "%.*s", (int)strcspn(p + 9, " "), p + 9);
			return;
		}
		at += strlen(p) + 1;
	}
}

static struct bp_err *take_symbols(const struct file *f, const Elf64_Shdr *tab, const Elf64_Shdr *names,
				   const uint64_t *where, size_t n_where, struct bp_modfile *m)
{
	size_t n = tab->sh_size / sizeof(Elf64_Sym);

	if (n > SYMS_MAX || tab->sh_offset > f->len || f->len - tab->sh_offset < n * sizeof(Elf64_Sym))
		return bad(f, tab->sh_offset, "the symbol table is damaged");
	m->syms = calloc(n + 1, sizeof(*m->syms));
	if (!m->syms)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		Elf64_Sym s;
		unsigned bind, type;
		const char *name;

		memcpy(&s, f->data + tab->sh_offset + i * sizeof(s), sizeof(s));
		bind = ELF64_ST_BIND(s.st_info);
		type = ELF64_ST_TYPE(s.st_info);
		if (s.st_shndx >= n_where || where[s.st_shndx] == NOWHERE || s.st_value >= m->text_bytes ||
		    (type != STT_FUNC && type != STT_NOTYPE))
			continue;
		name = text(f, names, s.st_name);
		if (!*name)
			continue;
		m->syms[m->n_syms++] = (struct bp_modfile_sym){where[s.st_shndx] + s.st_value, name,
							       bind == STB_WEAK     ? 'W'
							       : bind == STB_GLOBAL ? 'T'
										    : 't'};
	}
	return NULL;
}

struct bp_err *bp_modfile_parse(const char *path, uint8_t *data, size_t len, struct bp_modfile *ret)
{
	const struct file f = {path, data, len};
	bp_autofree Elf64_Shdr *sections = NULL;
	bp_autofree uint64_t *where = NULL;
	Elf64_Shdr names;
	Elf64_Ehdr e;
	size_t n;

	*ret = (struct bp_modfile){.data = data};
	if (!get(&f, 0, &e, sizeof(e)) || memcmp(e.e_ident, ELFMAG, SELFMAG) != 0 || e.e_type != ET_REL ||
	    e.e_machine != EM_X86_64 || e.e_ident[EI_CLASS] != ELFCLASS64)
		return bad(&f, 0, "not a kernel module for x86-64");
	n = e.e_shnum;
	if (!n || n > SECTIONS_MAX || e.e_shentsize != sizeof(Elf64_Shdr) || e.e_shstrndx >= n ||
	    e.e_shoff > len || len - e.e_shoff < n * sizeof(Elf64_Shdr))
		return bad(&f, e.e_shoff, "the section table is damaged");
	sections = malloc(n * sizeof(*sections));
	where = malloc(n * sizeof(*where));
	if (!sections || !where)
		return bp_err_nomem();
	memcpy(sections, data + e.e_shoff, n * sizeof(*sections));
	names = sections[e.e_shstrndx];
	for (size_t i = 0; i < n; i++) {
		const Elf64_Shdr *s = &sections[i];
		uint64_t align = s->sh_addralign ? s->sh_addralign : 1;

		where[i] = NOWHERE;
		if (!strcmp(text(&f, &names, s->sh_name), ".modinfo"))
			find_release(&f, s, ret);
		if (!in_core_text(s, text(&f, &names, s->sh_name)))
			continue;
		if ((align & (align - 1)) || align > len || s->sh_size > len)
			return bad(&f, e.e_shoff + i * sizeof(*s), "a section with code is damaged");
		where[i] = (ret->text_bytes + align - 1) & ~(align - 1);
		ret->text_bytes = where[i] + s->sh_size;
	}
	for (size_t i = 0; i < n; i++)
		if (sections[i].sh_type == SHT_SYMTAB && sections[i].sh_link < n)
			return take_symbols(&f, &sections[i], &sections[sections[i].sh_link], where, n, ret);
	return bad(&f, e.e_shoff, "no symbols in it");
}

static void source_closep(struct bp_source **s)
{
	bp_source_close(*s);
}

struct bp_err *bp_modfile_read(const char *path, struct bp_modfile *ret)
{
	bp_cleanup(source_closep) struct bp_source *s = NULL;
	bp_autofree uint8_t *data = NULL;
	size_t len = 0, cap = 0, n = 1;
	struct bp_err *err;

	*ret = (struct bp_modfile){0};
	err = bp_source_open(path, &s);
	while (!err && n) {
		if (len == cap) {
			uint8_t *p;

			if (cap >= FILE_MAX)
				return bp_err_data(path, len, "too long for a kernel module");
			cap = cap ? cap * 2 : 256 << 10;
			p = realloc(data, cap);
			if (!p)
				return bp_err_nomem();
			data = p;
		}
		err = bp_source_read(s, data + len, cap - len, &n);
		if (!err)
			len += n;
	}
	return err ? err : bp_modfile_parse(path, bp_steal(data), len, ret);
}

void bp_modfile_deinit(struct bp_modfile *m)
{
	free(m->syms);
	free(m->data);
	*m = (struct bp_modfile){0};
}
