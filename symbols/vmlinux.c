// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/vmlinux.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

/*
 * Far above what linked kernels have (82 sections with debug information). Sections of a crafted file may
 * overlap, so that the work done for each is not bounded by the size of the file.
 */
#define SECTIONS_MAX 4096
#define NOTES_MAX_BYTES ((size_t)64 << 10)

static struct bp_err *vm_err(const struct bp_vmlinux *v, uint64_t off, const char *what)
{
	return bp_err_data(v->path, v->base + off, "%s", what);
}

static bool inside(const struct bp_vmlinux *v, uint64_t off, uint64_t len)
{
	return off <= v->len && len <= v->len - off;
}

static Elf64_Shdr shdr_get(const struct bp_vmlinux *v, size_t i)
{
	Elf64_Shdr sh;

	memcpy(&sh, v->data + v->shdr_off + i * sizeof(sh), sizeof(sh));
	return sh;
}

static int sec_cmp(const void *a, const void *b)
{
	const struct bp_vmsec *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Remembers a loaded range; what is wrong about it was checked by the caller. */
static void sec_add(struct bp_vmlinux *v, const struct bp_vmsec *sec)
{
	v->secs[v->sec_count++] = *sec;
	if (!sec->exec || sec->addr < BP_KERNEL_BASE_ADDR)
		return;
	if (!v->text_end || sec->addr < v->text_start)
		v->text_start = sec->addr;
	if (sec->addr + sec->size > v->text_end)
		v->text_end = sec->addr + sec->size;
}

static void note_end(struct bp_vmlinux *v, uint64_t addr, uint64_t size)
{
	if (addr >= BP_KERNEL_BASE_ADDR && size <= UINT64_MAX - addr && addr + size > v->end)
		v->end = addr + size;
}

/* A GNU build-id among the notes at [off, off + len); a damaged note ends the search. */
static void find_build_id(struct bp_vmlinux *v, size_t off, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	size_t pos = 0;

	if (len > NOTES_MAX_BYTES)
		len = NOTES_MAX_BYTES;
	while (!v->build_id[0] && len - pos >= sizeof(Elf64_Nhdr)) {
		const uint8_t *desc;
		uint64_t name_len, desc_len;
		Elf64_Nhdr nh;

		memcpy(&nh, v->data + off + pos, sizeof(nh));
		pos += sizeof(nh);
		name_len = ((uint64_t)nh.n_namesz + 3) & ~3ull;
		desc_len = ((uint64_t)nh.n_descsz + 3) & ~3ull;
		if (name_len > len - pos || nh.n_descsz > len - pos - name_len)
			return;
		desc = v->data + off + pos + name_len;
		if (nh.n_type == NT_GNU_BUILD_ID && nh.n_namesz == 4 && nh.n_descsz &&
		    nh.n_descsz <= BP_BUILD_ID_MAX && !memcmp(desc - name_len, "GNU", 4)) {
			for (size_t i = 0; i < nh.n_descsz; i++) {
				v->build_id[2 * i] = hex[desc[i] >> 4];
				v->build_id[2 * i + 1] = hex[desc[i] & 15];
			}
			return;
		}
		if (desc_len > len - pos - name_len)
			return;
		pos += name_len + desc_len;
	}
}

/* The string at @off of a string table that was checked to end with a NUL; "" when outside. */
static const char *str_at(const struct bp_vmlinux *v, size_t tab, size_t tab_len, uint64_t off)
{
	return off < tab_len ? (const char *)v->data + tab + off : "";
}

static bool is_string_table(const struct bp_vmlinux *v, const Elf64_Shdr *sh)
{
	return sh->sh_type == SHT_STRTAB && inside(v, sh->sh_offset, sh->sh_size) && sh->sh_size &&
	       !v->data[sh->sh_offset + sh->sh_size - 1];
}

static struct bp_err *add_symtab(struct bp_vmlinux *v, const Elf64_Shdr *sh, size_t hdr)
{
	Elf64_Shdr str;

	if (!inside(v, sh->sh_offset, sh->sh_size))
		return vm_err(v, hdr, "symbol table lies outside the file");
	if (sh->sh_link >= v->shdr_count)
		return vm_err(v, hdr, "symbol table has no string table");
	str = shdr_get(v, sh->sh_link);
	if (!is_string_table(v, &str))
		return vm_err(v, v->shdr_off + sh->sh_link * sizeof(str), "string table is corrupt");
	v->symtab_off = sh->sh_offset;
	v->symtab_len = sh->sh_size;
	v->strtab_off = str.sh_offset;
	v->strtab_len = str.sh_size;
	return NULL;
}

static struct bp_err *add_sections(struct bp_vmlinux *v, size_t names_index)
{
	size_t names = 0, names_len = 0;

	if (names_index < v->shdr_count) {
		Elf64_Shdr sh = shdr_get(v, names_index);

		if (is_string_table(v, &sh)) {
			names = sh.sh_offset;
			names_len = sh.sh_size;
		}
	}
	for (size_t i = 1; i < v->shdr_count; i++) {
		Elf64_Shdr sh = shdr_get(v, i);
		size_t hdr = v->shdr_off + i * sizeof(sh);
		const char *name = str_at(v, names, names_len, sh.sh_name);
		struct bp_err *err;

		if (sh.sh_type == SHT_SYMTAB) {
			err = add_symtab(v, &sh, hdr);
			if (err)
				return err;
			continue;
		}
		if (!strcmp(name, ".debug_info") || !strcmp(name, ".zdebug_info"))
			v->has_dwarf = true;
		if (!(sh.sh_flags & SHF_ALLOC))
			continue;
		note_end(v, sh.sh_addr, sh.sh_size);
		if (sh.sh_type == SHT_NOBITS || !sh.sh_size)
			continue;
		if (!inside(v, sh.sh_offset, sh.sh_size))
			return vm_err(v, hdr, "section lies outside the file");
		if (sh.sh_size > UINT64_MAX - sh.sh_addr)
			return vm_err(v, hdr, "section wraps around the address space");
		if (sh.sh_type == SHT_NOTE)
			find_build_id(v, sh.sh_offset, sh.sh_size);
		if (!strcmp(name, ".BTF")) {
			v->btf_off = sh.sh_offset;
			v->btf_len = sh.sh_size;
		}
		sec_add(v, &(struct bp_vmsec){
			       .name = name,
			       .addr = sh.sh_addr,
			       .size = sh.sh_size,
			       .off = sh.sh_offset,
			       .exec = sh.sh_flags & SHF_EXECINSTR,
			       .write = sh.sh_flags & SHF_WRITE,
			   });
	}
	return NULL;
}

/* Section headers may have been cut off: then the program headers say what is loaded where. */
static struct bp_err *add_segments(struct bp_vmlinux *v, size_t off, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t hdr = off + i * sizeof(Elf64_Phdr);
		Elf64_Phdr ph;

		memcpy(&ph, v->data + hdr, sizeof(ph));
		if (ph.p_type != PT_LOAD && ph.p_type != PT_NOTE)
			continue;
		if (!inside(v, ph.p_offset, ph.p_filesz))
			return vm_err(v, hdr, "segment lies outside the file");
		if (ph.p_type == PT_NOTE) {
			find_build_id(v, ph.p_offset, ph.p_filesz);
			continue;
		}
		if (ph.p_filesz > UINT64_MAX - ph.p_vaddr)
			return vm_err(v, hdr, "segment wraps around the address space");
		note_end(v, ph.p_vaddr, ph.p_memsz);
		if (ph.p_filesz)
			sec_add(v, &(struct bp_vmsec){
				       .name = "",
				       .addr = ph.p_vaddr,
				       .size = ph.p_filesz,
				       .off = ph.p_offset,
				       .exec = ph.p_flags & PF_X,
				       .write = ph.p_flags & PF_W,
				   });
	}
	return NULL;
}

static struct bp_err *read_headers(struct bp_vmlinux *v)
{
	struct bp_err *err;
	Elf64_Ehdr eh;

	if (v->len < sizeof(eh))
		return vm_err(v, v->len, "ELF header ends early");
	memcpy(&eh, v->data, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0)
		return vm_err(v, 0, "not an ELF file");
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB ||
	    eh.e_machine != EM_X86_64)
		return bp_err_new(BP_EUNSUPPORTED, "%s: a kernel for another machine than x86-64", v->path);
	if (eh.e_type != ET_EXEC && eh.e_type != ET_DYN)
		return vm_err(v, offsetof(Elf64_Ehdr, e_type), "not a linked ELF file");
	if (eh.e_shoff && eh.e_shnum) {
		if (eh.e_shentsize != sizeof(Elf64_Shdr) ||
		    !inside(v, eh.e_shoff, (uint64_t)eh.e_shnum * sizeof(Elf64_Shdr)))
			return vm_err(v, eh.e_shoff < v->len ? eh.e_shoff : v->len,
				      "section headers are corrupt or cut off");
		v->shdr_off = eh.e_shoff;
		v->shdr_count = eh.e_shnum;
	}
	if (eh.e_phnum && (eh.e_phentsize != sizeof(Elf64_Phdr) ||
			   !inside(v, eh.e_phoff, (uint64_t)eh.e_phnum * sizeof(Elf64_Phdr))))
		return vm_err(v, eh.e_phoff < v->len ? eh.e_phoff : v->len,
			      "program headers are corrupt or cut off");
	if (eh.e_shnum > SECTIONS_MAX || eh.e_phnum > SECTIONS_MAX)
		return vm_err(v, offsetof(Elf64_Ehdr, e_phnum),
			      "ELF file with too many sections for a kernel");
	v->secs = calloc(v->shdr_count + (size_t)eh.e_phnum + 1, sizeof(*v->secs));
	if (!v->secs)
		return bp_err_nomem();
	err = add_sections(v, eh.e_shstrndx);
	if (!err && !v->sec_count)
		err = add_segments(v, eh.e_phoff, eh.e_phnum);
	if (err)
		return err;
	if (!v->sec_count)
		return vm_err(v, 0, "ELF file with nothing to load");
	qsort(v->secs, v->sec_count, sizeof(*v->secs), sec_cmp);
	return NULL;
}

struct bp_err *bp_vmlinux_init(struct bp_vmlinux *v, const void *data, size_t len, const char *path)
{
	struct bp_err *err;

	*v = (struct bp_vmlinux){.data = data, .len = len, .path = path};
	err = read_headers(v);
	if (err)
		bp_vmlinux_deinit(v);
	return err;
}

void bp_vmlinux_deinit(struct bp_vmlinux *v)
{
	free(v->secs);
	v->secs = NULL;
	v->sec_count = 0;
}

const uint8_t *bp_vmlinux_at(const struct bp_vmlinux *v, uint64_t addr, uint64_t len)
{
	size_t lo = 0, hi = v->sec_count;
	const struct bp_vmsec *s;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v->secs[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	s = &v->secs[lo - 1];
	if (addr - s->addr > s->size || len > s->size - (addr - s->addr))
		return NULL;
	return v->data + s->off + (addr - s->addr);
}

/* The letter that nm(1) prints; kallsyms has the same ones, as it is made from the output of nm. */
static char sym_type(const struct bp_vmlinux *v, const Elf64_Sym *sym)
{
	unsigned bind = ELF64_ST_BIND(sym->st_info);
	Elf64_Shdr sh;
	char c;

	if (bind == STB_WEAK)
		return ELF64_ST_TYPE(sym->st_info) == STT_OBJECT ? 'V' : 'W';
	if (sym->st_shndx == SHN_ABS) {
		c = 'A';
	} else if (sym->st_shndx >= v->shdr_count) {
		c = '?';
	} else {
		sh = shdr_get(v, sym->st_shndx);
		if (sh.sh_flags & SHF_EXECINSTR)
			c = 'T';
		else if (sh.sh_type == SHT_NOBITS)
			c = 'B';
		else if (sh.sh_flags & SHF_WRITE)
			c = 'D';
		else
			c = 'R';
	}
	return bind == STB_LOCAL && c != '?' ? (char)(c - 'A' + 'a') : c;
}

struct bp_err *bp_vmlinux_symtab(const struct bp_vmlinux *v, struct bp_ksym **ret, size_t *count)
{
	size_t n = v->symtab_len / sizeof(Elf64_Sym), used = 0;
	struct bp_ksym *syms = malloc((n ? n : 1) * sizeof(*syms));

	if (!syms)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		const char *name;
		Elf64_Sym sym;

		memcpy(&sym, v->data + v->symtab_off + i * sizeof(sym), sizeof(sym));
		name = str_at(v, v->strtab_off, v->strtab_len, sym.st_name);
		if (!*name || strnlen(name, BP_KSYM_NAME_BYTES) == BP_KSYM_NAME_BYTES ||
		    sym.st_shndx == SHN_UNDEF || ELF64_ST_TYPE(sym.st_info) == STT_FILE ||
		    ELF64_ST_TYPE(sym.st_info) == STT_SECTION)
			continue;
		syms[used++] = (struct bp_ksym){
		    .addr = sym.st_value, .size = sym.st_size, .name = name, .type = sym_type(v, &sym)};
	}
	*ret = syms;
	*count = used;
	return NULL;
}
