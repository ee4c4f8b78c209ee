// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Function symbols of ELF files, for the names of guest user space. The file is read with bounded accesses
 * only: every offset and count in it is checked against the bytes that are there, and nothing is allocated by
 * a claimed size.
 *
 * Sources: ELF gABI; System V ABI AMD64 (relocations, PLT); LSB "Exception Frames" (.eh_frame_hdr).
 */
#include "symbols/guestfs.h"

#include <elf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "symbols/decompress.h"

#define DEBUGDATA_MAX (64u << 20) /* .gnu_debugdata expanded */
#define BUILD_ID_MAX 64           /* bytes */
#define PLT_NAME_MAX 512
#define PLT_TEXT_MAX (16u << 20) /* all names of PLT stubs of one file */
#define UP_STEPS_MAX 64          /* nested functions looked through by one look-up */
#define SEGMENTS_MAX 128         /* linkers make four to ten */

/* Where a range of virtual addresses is in the file. */
struct segment {
	uint64_t vaddr, offset, len;
	bool exec;
};

struct sym {
	uint64_t off, end; /* file offsets; end == off until settled when the size is unknown */
	uint64_t limit;    /* where the mapped bytes around it end */
	const char *name;  /* in one of the text blocks */
	uint32_t up;       /* index + 1 of the symbol around this one, 0 if none */
	uint8_t rank;      /* lower is better among names of one start */
	bool is_label;     /* a label without type: only counts outside of real functions */
};

struct piece {
	uint64_t off, end;
};

/* Text that symbol names point into: copies of string tables, or names made up here. */
struct block {
	struct block *next;
	size_t len, used;
	char text[];
};

struct bp_elfsyms {
	struct sym *syms;
	size_t n_syms, cap_syms;
	uint64_t *starts;
	size_t n_starts;
	struct piece *pieces;
	size_t n_pieces;
	struct block *blocks;
	char build_id[2 * BUILD_ID_MAX + 1];
};

/* The file while it is being read. */
struct elf {
	const uint8_t *data;
	size_t len;
	const char *path;
	Elf64_Ehdr eh;
	uint64_t n_sections, n_phdrs;
	struct segment segs[SEGMENTS_MAX];
	size_t n_segs;
	uint64_t note_budget; /* bytes of notes still looked at: headers can name the same ones many times */
	struct bp_elfsyms *out;
};

void bp_elfsyms_destroy(struct bp_elfsyms *e)
{
	if (!e)
		return;
	for (struct block *b = e->blocks, *next; b; b = next) {
		next = b->next;
		free(b);
	}
	free(e->syms);
	free(e->starts);
	free(e->pieces);
	free(e);
}

static void elfsyms_destroyp(struct bp_elfsyms **e)
{
	bp_elfsyms_destroy(*e);
}

/* Copies a structure out of the file (no alignment is promised); false if it is not all there. */
static bool get(const struct elf *f, uint64_t offset, void *to, size_t bytes)
{
	if (offset > f->len || bytes > f->len - offset)
		return false;
	memcpy(to, f->data + offset, bytes);
	return true;
}

static bool in_file(const struct elf *f, uint64_t offset, uint64_t bytes)
{
	return offset <= f->len && bytes <= f->len - offset;
}

static bool get_section(const struct elf *f, uint64_t i, Elf64_Shdr *sh)
{
	return i < f->n_sections && get(f, f->eh.e_shoff + i * sizeof(*sh), sh, sizeof(*sh));
}

/* A section's bytes; NULL when it has none or they are not in the file. */
static const uint8_t *section_data(const struct elf *f, const Elf64_Shdr *sh)
{
	if (sh->sh_type == SHT_NOBITS || !sh->sh_size || !in_file(f, sh->sh_offset, sh->sh_size))
		return NULL;
	return f->data + sh->sh_offset;
}

static bool section_is_named(const struct elf *f, const Elf64_Shdr *sh, const char *name)
{
	size_t n = strlen(name) + 1;
	Elf64_Shdr strs;

	return get_section(f, f->eh.e_shstrndx, &strs) && section_data(f, &strs) &&
	       sh->sh_name < strs.sh_size && n <= strs.sh_size - sh->sh_name &&
	       !memcmp(f->data + strs.sh_offset + sh->sh_name, name, n);
}

static bool find_section(const struct elf *f, const char *name, Elf64_Shdr *sh)
{
	for (uint64_t i = 1; i < f->n_sections; i++) {
		if (get_section(f, i, sh) && section_is_named(f, sh, name))
			return true;
	}
	return false;
}

/* Adds an empty block; NULL without memory. */
static struct block *block_add(struct bp_elfsyms *e, size_t len)
{
	struct block *b = malloc(sizeof(*b) + len);

	if (!b)
		return NULL;
	b->len = len;
	b->used = 0;
	b->next = e->blocks;
	e->blocks = b;
	return b;
}

static struct bp_err *sym_add(struct bp_elfsyms *e, struct sym s)
{
	if (e->n_syms == e->cap_syms) {
		size_t cap = e->cap_syms ? e->cap_syms + e->cap_syms / 2 : 256;
		struct sym *syms;

		if (e->n_syms >= UINT32_MAX - 1)
			return bp_err_new(BP_EUNSUPPORTED, "too many symbols");
		syms = realloc(e->syms, cap * sizeof(*syms));
		if (!syms)
			return bp_err_nomem();
		e->syms = syms;
		e->cap_syms = cap;
	}
	e->syms[e->n_syms++] = s;
	return NULL;
}

/* The segment covering @vaddr, NULL if none. */
static const struct segment *segment_find(const struct elf *f, uint64_t vaddr)
{
	for (size_t i = 0; i < f->n_segs; i++) {
		if (vaddr >= f->segs[i].vaddr && vaddr - f->segs[i].vaddr < f->segs[i].len)
			return &f->segs[i];
	}
	return NULL;
}

static bool vaddr_to_offset(const struct elf *f, uint64_t vaddr, uint64_t *offset)
{
	const struct segment *s = segment_find(f, vaddr);

	if (!s)
		return false;
	*offset = s->offset + (vaddr - s->vaddr);
	return true;
}

static struct bp_err *read_header(struct elf *f)
{
	Elf64_Shdr first;

	if (f->len < EI_NIDENT || memcmp(f->data, ELFMAG, SELFMAG))
		return bp_err_new(BP_EUNSUPPORTED, "%s: not an ELF file", f->path);
	if (f->data[EI_CLASS] != ELFCLASS64 || f->data[EI_DATA] != ELFDATA2LSB)
		return bp_err_new(BP_EUNSUPPORTED, "%s: not a 64-bit little-endian ELF file", f->path);
	if (!get(f, 0, &f->eh, sizeof(f->eh)))
		return bp_err_data(f->path, f->len, "ELF header cut off");
	if (f->eh.e_phnum && f->eh.e_phentsize != sizeof(Elf64_Phdr))
		return bp_err_data(f->path, offsetof(Elf64_Ehdr, e_phentsize),
				   "ELF program headers of %u bytes", f->eh.e_phentsize);
	if (f->eh.e_shoff && f->eh.e_shentsize != sizeof(Elf64_Shdr))
		return bp_err_data(f->path, offsetof(Elf64_Ehdr, e_shentsize),
				   "ELF section headers of %u bytes", f->eh.e_shentsize);
	f->n_phdrs = f->eh.e_phnum;
	if (!in_file(f, f->eh.e_phoff, f->n_phdrs * sizeof(Elf64_Phdr)))
		return bp_err_data(f->path, f->eh.e_phoff,
				   "ELF program headers run past the end of the file");
	if (!f->eh.e_shoff)
		return NULL;
	f->n_sections = f->eh.e_shnum;
	/* More sections than 16 bits hold: the count is in the first one, as are other numbers. */
	if (!f->n_sections || f->eh.e_shstrndx == SHN_XINDEX) {
		if (!get(f, f->eh.e_shoff, &first, sizeof(first)))
			return bp_err_data(f->path, f->eh.e_shoff,
					   "ELF section headers past the end of the file");
		if (!f->n_sections)
			f->n_sections = first.sh_size;
	}
	if (f->eh.e_shoff > f->len || f->n_sections > (f->len - f->eh.e_shoff) / sizeof(Elf64_Shdr))
		return bp_err_data(f->path, f->eh.e_shoff,
				   "ELF section headers run past the end of the file");
	return NULL;
}

/* What is mapped from the file; a relocatable file has no program headers and yields nothing. */
static void read_segments(struct elf *f)
{
	for (uint64_t i = 0; i < f->n_phdrs && f->n_segs < SEGMENTS_MAX; i++) {
		Elf64_Phdr ph;

		if (!get(f, f->eh.e_phoff + i * sizeof(ph), &ph, sizeof(ph)) || ph.p_type != PT_LOAD)
			continue;
		if (ph.p_offset > f->len || ph.p_vaddr > UINT64_MAX - ph.p_filesz)
			continue;
		f->segs[f->n_segs++] = (struct segment){
		    .vaddr = ph.p_vaddr,
		    .offset = ph.p_offset,
		    .len = ph.p_filesz < f->len - ph.p_offset ? ph.p_filesz : f->len - ph.p_offset,
		    .exec = ph.p_flags & PF_X,
		};
	}
}

static void scan_notes(struct elf *f, uint64_t offset, uint64_t bytes, uint64_t align)
{
	static const char hex[] = "0123456789abcdef";
	uint64_t pos = 0;

	if (!in_file(f, offset, bytes) || bytes > f->note_budget)
		return;
	f->note_budget -= bytes;
	align = align == 8 ? 8 : 4;
	while (!f->out->build_id[0] && bytes - pos >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr nh;
		uint64_t desc, end;

		if (!get(f, offset + pos, &nh, sizeof(nh)))
			return;
		pos += sizeof(nh);
		desc = pos + (((uint64_t)nh.n_namesz + align - 1) & -align);
		end = desc + (((uint64_t)nh.n_descsz + align - 1) & -align);
		if (desc > bytes || nh.n_descsz > bytes - desc)
			return;
		if (nh.n_type == NT_GNU_BUILD_ID && nh.n_namesz == 4 &&
		    !memcmp(f->data + offset + pos, "GNU", 4) && nh.n_descsz <= BUILD_ID_MAX) {
			for (size_t i = 0; i < nh.n_descsz; i++) {
				uint8_t byte = f->data[offset + desc + i];

				f->out->build_id[2 * i] = hex[byte >> 4];
				f->out->build_id[2 * i + 1] = hex[byte & 15];
			}
			return;
		}
		if (end > bytes)
			return;
		pos = end;
	}
}

static void read_build_id(struct elf *f)
{
	for (uint64_t i = 0; i < f->n_phdrs && !f->out->build_id[0]; i++) {
		Elf64_Phdr ph;

		if (get(f, f->eh.e_phoff + i * sizeof(ph), &ph, sizeof(ph)) && ph.p_type == PT_NOTE)
			scan_notes(f, ph.p_offset, ph.p_filesz, ph.p_align);
	}
	for (uint64_t i = 1; i < f->n_sections && !f->out->build_id[0]; i++) {
		Elf64_Shdr sh;

		if (get_section(f, i, &sh) && sh.sh_type == SHT_NOTE)
			scan_notes(f, sh.sh_offset, sh.sh_size, sh.sh_addralign);
	}
}

/* One name out of several for a start: public ones first, then the one with the least decoration. */
static uint8_t rank_of(const Elf64_Sym *s, const char *name)
{
	unsigned rank = 0;

	if (ELF64_ST_TYPE(s->st_info) == STT_NOTYPE)
		rank += 128;
	while (rank % 16 < 12 && *name == '_') {
		rank += 4;
		name++;
	}
	if (ELF64_ST_BIND(s->st_info) == STB_WEAK)
		rank += 1;
	else if (ELF64_ST_BIND(s->st_info) != STB_GLOBAL)
		rank += 2;
	return (uint8_t)rank;
}

/*
 * @f: the file with the table; @map: the file that is mapped in the guest, which has the addresses (the same
 * one unless the table comes from .gnu_debugdata).
 */
static struct bp_err *read_symtab(const struct elf *f, const struct elf *map, const Elf64_Shdr *sh)
{
	struct bp_elfsyms *e = map->out;
	const uint8_t *data = section_data(f, sh);
	const uint8_t *str_data;
	Elf64_Shdr strs;
	struct block *text;

	if (!sh->sh_size)
		return NULL;
	if (!data || sh->sh_entsize != sizeof(Elf64_Sym))
		return bp_err_data(f->path, sh->sh_offset, "ELF symbol table is cut off or of unknown form");
	if (!get_section(f, sh->sh_link, &strs) || !(str_data = section_data(f, &strs)))
		return bp_err_data(f->path, sh->sh_offset, "ELF symbol table without names");
	text = block_add(e, strs.sh_size + 1);
	if (!text)
		return bp_err_nomem();
	memcpy(text->text, str_data, strs.sh_size);
	text->text[strs.sh_size] = '\0';
	text->used = text->len;

	for (uint64_t i = 1; i < sh->sh_size / sizeof(Elf64_Sym); i++) {
		Elf64_Sym s;
		unsigned type;
		uint64_t off, limit;
		struct bp_err *err;

		memcpy(&s, data + i * sizeof(s), sizeof(s));
		type = ELF64_ST_TYPE(s.st_info);
		if (s.st_shndx == SHN_UNDEF || s.st_shndx == SHN_ABS || s.st_name >= strs.sh_size)
			continue;
		if (type != STT_FUNC && type != STT_GNU_IFUNC && type != STT_NOTYPE)
			continue;
		if (!text->text[s.st_name] || (type == STT_NOTYPE && strchr(".$", text->text[s.st_name])))
			continue;
		if (f->eh.e_type == ET_REL) {
			Elf64_Shdr in;

			if (!get_section(f, s.st_shndx, &in) || !section_data(f, &in) ||
			    !(in.sh_flags & SHF_EXECINSTR) || s.st_value >= in.sh_size)
				continue;
			off = in.sh_offset + s.st_value;
			limit = in.sh_size - s.st_value;
		} else {
			const struct segment *seg = segment_find(map, s.st_value);
			Elf64_Shdr in;

			if (!seg || !seg->exec)
				continue;
			/* A label among data that shares a segment with code says nothing about code. */
			if (type == STT_NOTYPE &&
			    (!get_section(f, s.st_shndx, &in) || !(in.sh_flags & SHF_EXECINSTR)))
				continue;
			off = seg->offset + (s.st_value - seg->vaddr);
			limit = seg->len - (s.st_value - seg->vaddr);
		}
		err = sym_add(e, (struct sym){
				     .off = off,
				     .end = off + (s.st_size < limit ? s.st_size : limit),
				     .limit = off + limit,
				     .name = text->text + s.st_name,
				     .rank = rank_of(&s, text->text + s.st_name),
				     .is_label = type == STT_NOTYPE,
				 });
		if (err)
			return bp_err_wrap(err, "%s", f->path);
	}
	return NULL;
}

/* The gABI allows one table of each kind; a file with thousands would have its strings copied as often. */
static struct bp_err *read_symtabs(const struct elf *f, const struct elf *map, bool *has_symtab)
{
	bool has_dynsym = false;

	for (uint64_t i = 1; i < f->n_sections; i++) {
		bool *has;
		struct bp_err *err;
		Elf64_Shdr sh;

		if (!get_section(f, i, &sh) || (sh.sh_type != SHT_SYMTAB && sh.sh_type != SHT_DYNSYM))
			continue;
		has = sh.sh_type == SHT_SYMTAB ? has_symtab : &has_dynsym;
		/* Files of separate debug info keep a .dynsym without contents. */
		if (*has)
			continue;
		*has = true;
		err = read_symtab(f, map, &sh);
		if (err)
			return err;
	}
	return NULL;
}

static int compare_syms(const void *a, const void *b)
{
	const struct sym *x = a, *y = b;

	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	/* Equally good: the one with a size, the shorter name, and then any order that is always the same. */
	if ((x->end > x->off) != (y->end > y->off))
		return x->end > x->off ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Sorts, keeps one symbol per start, drops labels inside of functions. May be called again after additions.
 */
static void sort_syms(struct bp_elfsyms *e)
{
	uint64_t covered = 0;
	size_t n = 0;

	if (!e->n_syms)
		return;
	qsort(e->syms, e->n_syms, sizeof(*e->syms), compare_syms);
	for (size_t i = 0; i < e->n_syms; i++) {
		const struct sym *s = &e->syms[i];

		if (n && e->syms[n - 1].off == s->off) {
			if (e->syms[n - 1].end == s->off)
				e->syms[n - 1].end = s->end;
			continue;
		}
		if (s->is_label && s->off < covered)
			continue;
		if (!s->is_label && s->end > covered)
			covered = s->end;
		e->syms[n++] = *s;
	}
	e->n_syms = n;
}

/* Gives symbols without a size their end, links nested ones, and fills the table of starts. */
static struct bp_err *finish_syms(struct bp_elfsyms *e)
{
	if (!e->n_syms)
		return NULL;
	e->starts = malloc(e->n_syms * sizeof(*e->starts));
	if (!e->starts)
		return bp_err_nomem();
	for (size_t i = 0; i < e->n_syms; i++) {
		struct sym *s = &e->syms[i];
		uint32_t up = (uint32_t)i;

		e->starts[e->n_starts++] = s->off;
		if (s->end == s->off) {
			s->end = s->limit;
			if (i + 1 < e->n_syms && e->syms[i + 1].off < s->end)
				s->end = e->syms[i + 1].off;
		}
		while (up && e->syms[up - 1].end <= s->off)
			up = e->syms[up - 1].up;
		s->up = up;
	}
	return NULL;
}

/* Index + 1 of the symbol covering @off, 0 if none. Needs sorted symbols; their ends as far as known. */
static size_t find_sym(const struct bp_elfsyms *e, uint64_t off)
{
	size_t lo = 0, hi = e->n_syms;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (e->syms[mid].off <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (unsigned steps = 0; lo && e->syms[lo - 1].end <= off; steps++)
		lo = steps < UP_STEPS_MAX ? e->syms[lo - 1].up : 0;
	return lo;
}

/*
 * PLT stubs. Their code is decoded rather than counted, since there are several forms (lazy, with IBT in
 * .plt.sec, bound at start in .plt.got): each jumps through one GOT slot, and the relocation of that slot has
 * the name.
 */
struct slot {
	uint64_t got_addr;
	uint32_t sym;    /* in the table that @rela links to */
	uint64_t target; /* R_X86_64_IRELATIVE: address of the resolver; else 0 */
};

struct slots {
	struct slot *v;
	size_t n, n_lazy; /* the first n_lazy ones are those of .rela.plt, in order */
	Elf64_Shdr syms, strs;
	bool has_names;
};

static struct bp_err *read_slots(const struct elf *f, const char *section, struct slots *ret)
{
	const uint8_t *data;
	Elf64_Shdr sh;
	size_t n;
	struct slot *v;

	if (!find_section(f, section, &sh) || sh.sh_type != SHT_RELA || !(data = section_data(f, &sh)))
		return NULL;
	if (!ret->has_names && get_section(f, sh.sh_link, &ret->syms) && section_data(f, &ret->syms) &&
	    get_section(f, ret->syms.sh_link, &ret->strs) && section_data(f, &ret->strs))
		ret->has_names = true;
	n = sh.sh_size / sizeof(Elf64_Rela);
	v = realloc(ret->v, (ret->n + n + 1) * sizeof(*v));
	if (!v)
		return bp_err_nomem();
	ret->v = v;
	for (size_t i = 0; i < n; i++) {
		Elf64_Rela r;
		uint32_t type;

		memcpy(&r, data + i * sizeof(r), sizeof(r));
		type = (uint32_t)ELF64_R_TYPE(r.r_info);
		if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && type != R_X86_64_IRELATIVE)
			continue;
		v[ret->n++] = (struct slot){
		    .got_addr = r.r_offset,
		    .sym = (uint32_t)ELF64_R_SYM(r.r_info),
		    .target = type == R_X86_64_IRELATIVE ? (uint64_t)r.r_addend : 0,
		};
	}
	return NULL;
}

static int compare_slots(const void *a, const void *b)
{
	const struct slot *x = a, *y = b;

	return (x->got_addr > y->got_addr) - (x->got_addr < y->got_addr);
}

static const struct slot *find_slot(const struct slots *s, uint64_t got_addr)
{
	struct slot key = {.got_addr = got_addr};

	return s->n ? bsearch(&key, s->v, s->n, sizeof(*s->v), compare_slots) : NULL;
}

/* The function that a GOT slot leads to, with its length; NULL if the file does not tell. */
static const char *slot_name(const struct elf *f, const struct slots *slots, const struct slot *s,
			     size_t *len)
{
	Elf64_Sym sym;
	const char *name, *end;
	uint64_t off;
	size_t max;

	if (s->target) {
		size_t i = vaddr_to_offset(f, s->target, &off) ? find_sym(f->out, off) : 0;

		if (!i || f->out->syms[i - 1].off != off)
			return NULL;
		name = f->out->syms[i - 1].name;
		*len = strnlen(name, PLT_NAME_MAX);
		return name;
	}
	if (!slots->has_names || !s->sym || s->sym >= slots->syms.sh_size / sizeof(sym) ||
	    !get(f, slots->syms.sh_offset + s->sym * sizeof(sym), &sym, sizeof(sym)) ||
	    sym.st_name >= slots->strs.sh_size)
		return NULL;
	name = (const char *)f->data + slots->strs.sh_offset + sym.st_name;
	max = slots->strs.sh_size - sym.st_name;
	if (max > PLT_NAME_MAX)
		max = PLT_NAME_MAX;
	end = memchr(name, '\0', max);
	if (!end || end == name)
		return NULL;
	*len = (size_t)(end - name);
	return name;
}

/* Room for a text in the newest block, or in a new one; NULL without memory or when there is too much
 * already. */
static char *text_add(struct bp_elfsyms *e, size_t len, size_t *budget)
{
	struct block *b = e->blocks;
	char *text;

	if (len > *budget)
		return NULL;
	if (!b || b->len - b->used < len) {
		b = block_add(e, len > 16384 ? len : 16384);
		if (!b)
			return NULL;
	}
	text = b->text + b->used;
	b->used += len;
	*budget -= len;
	return text;
}

/*
 * The GOT slot that the stub at @p jumps through: [endbr64] [bnd] jmp *disp32(%rip). Returns the bytes of
 * code up to the end of the jump, 0 if this is no such stub.
 */
static size_t decode_stub(const uint8_t *p, size_t len, uint64_t addr, uint64_t *got_addr)
{
	size_t at = 0;
	int32_t disp;

	if (len >= 4 && !memcmp(p, "\xf3\x0f\x1e\xfa", 4))
		at = 4;
	if (at < len && p[at] == 0xf2)
		at++;
	if (len - at < 6 || p[at] != 0xff || p[at + 1] != 0x25)
		return 0;
	memcpy(&disp, p + at + 2, sizeof(disp));
	*got_addr = addr + at + 6 + (uint64_t)(int64_t)disp;
	return at + 6;
}

/* Stubs of a lazy .plt whose jump is in .plt.sec only push their relocation's number: [endbr64] push $n. */
static bool decode_push(const uint8_t *p, size_t len, uint32_t *number)
{
	if (len < 9 || memcmp(p, "\xf3\x0f\x1e\xfa\x68", 5))
		return false;
	memcpy(number, p + 5, sizeof(*number));
	return true;
}

static struct bp_err *read_plt(const struct elf *f, const char *section, const struct slots *slots,
			       const uint64_t *lazy, size_t *budget)
{
	const uint8_t *data;
	Elf64_Shdr sh;
	size_t step;

	if (!find_section(f, section, &sh) || !(data = section_data(f, &sh)))
		return NULL;
	step = sh.sh_entsize == 8 ? 8 : 16;
	for (uint64_t pos = 0; pos < sh.sh_size; pos += step) {
		const struct slot *s = NULL;
		const char *name;
		char *text;
		size_t len;
		uint64_t got_addr, bytes = sh.sh_size - pos < step ? sh.sh_size - pos : step;
		uint32_t number;
		struct bp_err *err;

		if (decode_stub(data + pos, bytes, sh.sh_addr + pos, &got_addr))
			s = find_slot(slots, got_addr);
		else if (decode_push(data + pos, bytes, &number) && number < slots->n_lazy)
			s = find_slot(slots, lazy[number]);
		name = s ? slot_name(f, slots, s, &len) : NULL;
		if (!name)
			continue;
		text = text_add(f->out, len + sizeof("@plt"), budget);
		if (!text)
			return NULL;
		memcpy(text, name, len);
		memcpy(text + len, "@plt", sizeof("@plt"));
		err = sym_add(f->out, (struct sym){
					  .off = sh.sh_offset + pos,
					  .end = sh.sh_offset + pos + bytes,
					  .limit = sh.sh_offset + pos + bytes,
					  .name = text,
				      });
		if (err)
			return err;
	}
	return NULL;
}

static struct bp_err *read_plts(const struct elf *f)
{
	static const char *const sections[] = {".plt", ".plt.sec", ".plt.got", ".iplt"};
	struct slots slots = {0};
	bp_autofree uint64_t *lazy = NULL;
	size_t budget = PLT_TEXT_MAX, n_before = f->out->n_syms;
	struct bp_err *err;

	if (f->eh.e_type == ET_REL || f->eh.e_machine != EM_X86_64)
		return NULL;
	err = read_slots(f, ".rela.plt", &slots);
	slots.n_lazy = slots.n;
	if (!err)
		err = read_slots(f, ".rela.dyn", &slots);
	if (!err && slots.n) {
		lazy = malloc(slots.n * sizeof(*lazy));
		if (!lazy)
			err = bp_err_nomem();
		for (size_t i = 0; lazy && i < slots.n; i++)
			lazy[i] = slots.v[i].got_addr;
		qsort(slots.v, slots.n, sizeof(*slots.v), compare_slots);
	}
	for (size_t i = 0; !err && slots.n && i < BP_ARRAY_SIZE(sections); i++)
		err = read_plt(f, sections[i], &slots, lazy, &budget);
	free(slots.v);
	if (!err && f->out->n_syms != n_before)
		sort_syms(f->out);
	return err;
}

/*
 * .eh_frame_hdr: pairs of function start and address of its frame description (FDE), which has the length.
 * Pointer forms: bits 0-3 the size, bits 4-6 what it is relative to.
 */
#define EH_OMIT 0xff
#define EH_SDATA4 0x0b
#define EH_RELATIVE 0x70
#define EH_PCREL 0x10
#define EH_DATAREL_SDATA4 0x3b

static size_t eh_bytes(uint8_t form)
{
	switch (form & 0x0f) {
	case 0x02: /* udata2 */
	case 0x0a: /* sdata2 */
		return 2;
	case 0x03: /* udata4 */
	case 0x0b: /* sdata4 */
		return 4;
	case 0x00: /* absptr */
	case 0x04: /* udata8 */
	case 0x0c: /* sdata8 */
		return 8;
	}
	return 0; /* LEB128: no linker uses it where it matters here */
}

static bool eh_unsigned(const struct elf *f, uint64_t offset, uint8_t form, uint64_t *ret)
{
	uint64_t v = 0;
	size_t n = eh_bytes(form);

	if (!n || !get(f, offset, &v, n))
		return false;
	*ret = v;
	return true;
}

static bool skip_leb128(const struct elf *f, uint64_t *offset)
{
	for (int i = 0; i < 10; i++) {
		uint8_t byte;

		if (!get(f, *offset, &byte, 1))
			return false;
		++*offset;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

/* The form of the addresses in the FDEs of the CIE (what they have in common) at @cie. */
static bool cie_form(const struct elf *f, uint64_t cie, uint8_t *form)
{
	struct {
		uint32_t len, id;
	} head;
	char augmentation[8];
	uint64_t pos = cie + sizeof(head) + 1;
	uint8_t version;
	size_t n;

	if (!get(f, cie, &head, sizeof(head)) || head.len == UINT32_MAX || head.id ||
	    !get(f, pos - 1, &version, 1) || (version != 1 && version != 3))
		return false;
	for (n = 0; n < sizeof(augmentation); n++) {
		if (!get(f, pos++, &augmentation[n], 1))
			return false;
		if (!augmentation[n])
			break;
	}
	if (n == sizeof(augmentation))
		return false;
	*form = 0; /* absolute, unless the augmentation says otherwise */
	if (!n)
		return true;
	if (augmentation[0] != 'z' || !skip_leb128(f, &pos) || !skip_leb128(f, &pos))
		return false;
	if (version == 1)
		pos++;
	else if (!skip_leb128(f, &pos))
		return false;
	if (!skip_leb128(f, &pos))
		return false;
	for (size_t i = 1; i < n; i++) {
		uint8_t byte;

		switch (augmentation[i]) {
		case 'R':
			return get(f, pos, form, 1);
		case 'L':
			pos++;
			break;
		case 'P':
			if (!get(f, pos, &byte, 1) || !eh_bytes(byte))
				return false;
			pos += 1 + eh_bytes(byte);
			break;
		case 'S':
		case 'B':
			break;
		default:
			return false;
		}
	}
	return true;
}

/* Bytes of code that the FDE at file offset @fde describes; 0 when it cannot be told. */
static uint64_t fde_length(const struct elf *f, uint64_t fde, uint64_t *last_cie, uint8_t *last_form)
{
	struct {
		uint32_t len, delta;
	} head;
	uint64_t cie, bytes;

	if (!get(f, fde, &head, sizeof(head)) || head.len == UINT32_MAX || !head.delta ||
	    head.delta > fde + 4)
		return 0;
	cie = fde + 4 - head.delta;
	if (cie != *last_cie) {
		if (!cie_form(f, cie, last_form))
			return 0;
		*last_cie = cie;
	}
	if (!eh_bytes(*last_form) ||
	    !eh_unsigned(f, fde + sizeof(head) + eh_bytes(*last_form), *last_form, &bytes))
		return 0;
	return bytes;
}

static int compare_pieces(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

static bool find_eh_hdr(const struct elf *f, Elf64_Phdr *ph)
{
	for (uint64_t i = 0; i < f->n_phdrs; i++) {
		if (get(f, f->eh.e_phoff + i * sizeof(*ph), ph, sizeof(*ph)) && ph->p_type == PT_GNU_EH_FRAME)
			return in_file(f, ph->p_offset, ph->p_filesz);
	}
	return false;
}

/* Notes the code from address @addr on, @bytes long (0: unknown), if it is code mapped from the file. */
static struct bp_err *piece_add(const struct elf *f, size_t *cap, uint64_t addr, uint64_t bytes)
{
	struct bp_elfsyms *e = f->out;
	const struct segment *seg = segment_find(f, addr);
	uint64_t limit;

	if (!seg || !seg->exec)
		return NULL;
	if (e->n_pieces == *cap) {
		size_t new_cap = *cap ? *cap + *cap / 2 : 256;
		struct piece *v = realloc(e->pieces, new_cap * sizeof(*v));

		if (!v)
			return bp_err_nomem();
		e->pieces = v;
		*cap = new_cap;
	}
	limit = seg->len - (addr - seg->vaddr);
	e->pieces[e->n_pieces].off = seg->offset + (addr - seg->vaddr);
	e->pieces[e->n_pieces].end = e->pieces[e->n_pieces].off + (bytes && bytes < limit ? bytes : limit);
	e->n_pieces++;
	return NULL;
}

static struct bp_err *read_eh_hdr(const struct elf *f, const Elf64_Phdr *ph, size_t *cap)
{
	uint64_t count, pos, end = ph->p_offset + ph->p_filesz, last_cie = UINT64_MAX;
	uint8_t forms[4], last_form = 0;

	if (!get(f, ph->p_offset, forms, sizeof(forms)) || forms[0] != 1 || forms[2] == EH_OMIT ||
	    forms[3] != EH_DATAREL_SDATA4)
		return NULL;
	pos = ph->p_offset + sizeof(forms) + (forms[1] == EH_OMIT ? 0 : eh_bytes(forms[1]));
	if (!eh_unsigned(f, pos, forms[2], &count))
		return NULL;
	pos += eh_bytes(forms[2]);
	if (pos > end || count > (end - pos) / 8)
		return NULL;
	for (uint64_t i = 0; i < count; i++) {
		int32_t entry[2];
		uint64_t fde, bytes = 0;
		struct bp_err *err;

		if (!get(f, pos + 8 * i, entry, sizeof(entry)))
			break;
		if (vaddr_to_offset(f, ph->p_vaddr + (uint64_t)(int64_t)entry[1], &fde))
			bytes = fde_length(f, fde, &last_cie, &last_form);
		err = piece_add(f, cap, ph->p_vaddr + (uint64_t)(int64_t)entry[0], bytes);
		if (err)
			return err;
	}
	return NULL;
}

/* Static programs can come without the search table: read the frame descriptions themselves, one by one. */
static struct bp_err *walk_eh_frame(const struct elf *f, const Elf64_Shdr *sh, size_t *cap)
{
	uint64_t pos = 0, last_cie = UINT64_MAX;
	uint8_t last_form = 0;

	while (sh->sh_size - pos >= 8) {
		uint64_t fde = sh->sh_offset + pos, at = fde + 8, bytes, addr;
		uint32_t head[2];
		struct bp_err *err;

		if (!get(f, fde, head, sizeof(head)) || head[0] == UINT32_MAX ||
		    head[0] > sh->sh_size - pos - 4)
			break;
		pos += 4 + (uint64_t)head[0];
		/* A zero ends the part of one object file: in a linked file, the last one or a stray one. */
		if (head[0] < 4 || !head[1])
			continue;
		bytes = fde_length(f, fde, &last_cie, &last_form);
		if (!bytes || !eh_unsigned(f, at, last_form, &addr))
			continue;
		if ((last_form & 0x0f) == EH_SDATA4)
			addr = (uint64_t)(int64_t)(int32_t)addr;
		if ((last_form & EH_RELATIVE) == EH_PCREL)
			addr += sh->sh_addr + (at - sh->sh_offset);
		else if (last_form & EH_RELATIVE)
			continue;
		err = piece_add(f, cap, addr, bytes);
		if (err)
			return err;
	}
	return NULL;
}

/* What is wrong with these tables costs nameless functions their rows, nothing else: it is never an error. */
static struct bp_err *read_pieces(const struct elf *f)
{
	struct bp_elfsyms *e = f->out;
	struct bp_err *err = NULL;
	size_t cap = 0;
	Elf64_Shdr sh;
	Elf64_Phdr ph;

	if (find_eh_hdr(f, &ph))
		err = read_eh_hdr(f, &ph, &cap);
	if (!err && !e->n_pieces && f->eh.e_type != ET_REL && find_section(f, ".eh_frame", &sh) &&
	    section_data(f, &sh))
		err = walk_eh_frame(f, &sh, &cap);
	if (e->n_pieces)
		qsort(e->pieces, e->n_pieces, sizeof(*e->pieces), compare_pieces);
	return err;
}

/* The .symtab that some distributions leave, compressed, in files stripped otherwise. */
static struct bp_err *read_debugdata(const struct elf *f, bool *has_symtab)
{
	bp_autofree struct elf *inner = NULL;
	bp_autofree uint8_t *out = NULL;
	const uint8_t *data;
	size_t out_len, consumed;
	struct bp_err *err;
	Elf64_Shdr sh;

	if (!find_section(f, ".gnu_debugdata", &sh) || !(data = section_data(f, &sh)))
		return NULL;
	err =
	    bp_decompress(data, sh.sh_size, f->path, sh.sh_offset, DEBUGDATA_MAX, &out, &out_len, &consumed);
	if (err)
		return err;
	inner = calloc(1, sizeof(*inner));
	if (!inner)
		return bp_err_nomem();
	inner->data = out;
	inner->len = out_len;
	inner->path = f->path;
	err = read_header(inner);
	if (!err && inner->eh.e_type == ET_REL)
		err = bp_err_new(BP_EUNSUPPORTED, "%s: .gnu_debugdata is a relocatable file", f->path);
	return err ? err : read_symtabs(inner, f, has_symtab);
}

struct bp_err *bp_elfsyms_open(const void *data, size_t len, const char *path, struct bp_elfsyms **ret)
{
	bp_cleanup(elfsyms_destroyp) struct bp_elfsyms *e = calloc(1, sizeof(*e));
	bp_autofree struct elf *f = calloc(1, sizeof(*f));
	bool has_symtab = false;
	struct bp_err *err;

	if (!e || !f)
		return bp_err_nomem();
	*f = (struct elf){.data = data, .len = len, .path = path, .note_budget = len, .out = e};
	err = read_header(f);
	if (err)
		return err;
	read_segments(f);
	read_build_id(f);
	err = read_symtabs(f, f, &has_symtab);
	if (err)
		return err;
	if (!has_symtab) {
		/* Extra names only: whatever is wrong with them, the file is as good as one without. */
		err = read_debugdata(f, &has_symtab);
		if (err && bp_err_code(err) == BP_ENOMEM)
			return err;
		bp_err_ignore(err);
	}
	sort_syms(e);
	err = read_plts(f);
	if (!err)
		err = finish_syms(e);
	if (!err)
		err = read_pieces(f);
	if (err)
		return err;
	*ret = bp_steal(e);
	return NULL;
}

bool bp_elfsyms_find(const struct bp_elfsyms *e, uint64_t file_offset, const char **name, uint64_t *start)
{
	size_t i = find_sym(e, file_offset);

	if (!i)
		return false;
	*name = e->syms[i - 1].name;
	*start = e->syms[i - 1].off;
	return true;
}

bool bp_elfsyms_fde_find(const struct bp_elfsyms *e, uint64_t file_offset, uint64_t *start)
{
	size_t lo = 0, hi = e->n_pieces;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (e->pieces[mid].off <= file_offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || e->pieces[lo - 1].end <= file_offset)
		return false;
	*start = e->pieces[lo - 1].off;
	return true;
}

const uint64_t *bp_elfsyms_starts(const struct bp_elfsyms *e, size_t *count)
{
	*count = e->n_starts;
	return e->starts;
}

const char *bp_elfsyms_build_id(const struct bp_elfsyms *e)
{
	return e->build_id;
}
