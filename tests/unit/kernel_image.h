/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small kernels made in memory, for the tests of symbols/: kallsyms tables in both orders, BTF, an ELF
 * vmlinux stripped or not, a bzImage. Addresses and names are fixed, see ki_syms().
 */
#ifndef BP_TESTS_KERNEL_IMAGE_H
#define BP_TESTS_KERNEL_IMAGE_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

#define KI_TEXT 0xffffffff81000000ull
#define KI_TEXT_BYTES 0x200
#define KI_RODATA 0xffffffff81200000ull
#define KI_INIT_TEXT 0xffffffff81400000ull
#define KI_INIT_TEXT_BYTES 0x40
#define KI_INIT_DATA 0xffffffff81500000ull
#define KI_INITCALLS 5
#define KI_NEW_SYSCALL 500
#define KI_RELEASE "6.99.0-1-test-amd64"
#define KI_BUILD_ID "0123456789abcdef0123456789abcdef01234567"
#define KI_FILLERS 300

/* A name of more than 127 tokens, as its characters are not part of longer tokens. */
#define KI_X10 "QZQZQZQZQZ"
#define KI_LONG_NAME \
	"L" KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10 KI_X10

struct ki_sym {
	uint64_t addr;
	char type;
	const char *name;
};

enum ki_layout {
	KI_LAYOUT_OLD, /* addresses in front: 4.20 to 6.3 */
	KI_LAYOUT_NEW, /* addresses behind: from 6.4 */
};

static inline void ki_put16(struct bp_strbuf *sb, uint16_t v)
{
	bp_strbuf_add(sb, &v, sizeof(v));
}

static inline void ki_put32(struct bp_strbuf *sb, uint32_t v)
{
	bp_strbuf_add(sb, &v, sizeof(v));
}

static inline void ki_put64(struct bp_strbuf *sb, uint64_t v)
{
	bp_strbuf_add(sb, &v, sizeof(v));
}

static inline void ki_pad(struct bp_strbuf *sb, size_t multiple)
{
	while (sb->len % multiple)
		bp_strbuf_addc(sb, '\0');
}

/* The text of each token: characters stand for themselves, some of the others for a few of them. */
static inline void ki_token(unsigned code, char out[8])
{
	static const char *const words[] = {"sys_", "init", "__", "_start", "filler_"};

	out[0] = '\0';
	if (code >= 0xf0 && code - 0xf0 < BP_ARRAY_SIZE(words))
		strcpy(out, words[code - 0xf0]);
	else if (code > ' ' && code < 0x7f)
		snprintf(out, 8, "%c", (char)code);
}

/* @type and @name as token codes, at most @max; returns how many. */
static inline size_t ki_encode(char type, const char *name, uint8_t *out, size_t max)
{
	size_t n = 0;

	out[n++] = (uint8_t)type;
	while (*name && n < max) {
		unsigned code = (uint8_t)*name;
		size_t len = 1;

		for (unsigned c = 0xf0; c <= 0xff; c++) {
			char token[8];

			ki_token(c, token);
			if (*token && !strncmp(name, token, strlen(token))) {
				code = c;
				len = strlen(token);
				break;
			}
		}
		out[n++] = (uint8_t)code;
		name += len;
	}
	return n;
}

static inline void ki_put_offsets(struct bp_strbuf *sb, const struct ki_sym *syms, size_t n,
				  bool percpu_absolute)
{
	for (size_t i = 0; i < n; i++) {
		if (!percpu_absolute)
			ki_put32(sb, (uint32_t)(syms[i].addr - KI_TEXT));
		else if (syms[i].addr < KI_TEXT)
			ki_put32(sb, (uint32_t)syms[i].addr);
		else
			ki_put32(sb, (uint32_t)(KI_TEXT - 1 - syms[i].addr));
	}
	ki_pad(sb, 8);
	ki_put64(sb, KI_TEXT);
}

/* The tables as scripts/kallsyms writes them. Symbols must be sorted by address. */
static inline void ki_put_kallsyms(struct bp_strbuf *sb, const struct ki_sym *syms, size_t n,
				   enum ki_layout layout, bool percpu_absolute)
{
	bp_autofree uint32_t *markers = calloc(n / 256 + 1, sizeof(*markers));
	uint16_t index[256];
	size_t start;

	ki_pad(sb, 8);
	if (layout == KI_LAYOUT_OLD)
		ki_put_offsets(sb, syms, n, percpu_absolute);
	ki_put32(sb, (uint32_t)n);
	ki_pad(sb, 8);
	start = sb->len;
	for (size_t i = 0; i < n; i++) {
		uint8_t codes[512];
		size_t len = ki_encode(syms[i].type, syms[i].name, codes, sizeof(codes));

		if (i % 256 == 0 && markers)
			markers[i / 256] = (uint32_t)(sb->len - start);
		if (len > 0x7f) {
			bp_strbuf_addc(sb, (char)(0x80 | (len & 0x7f)));
			bp_strbuf_addc(sb, (char)(len >> 7));
		} else {
			bp_strbuf_addc(sb, (char)len);
		}
		bp_strbuf_add(sb, codes, len);
	}
	ki_pad(sb, 8);
	bp_strbuf_add(sb, markers, (n + 255) / 256 * 4);
	ki_pad(sb, 8);
	if (layout == KI_LAYOUT_OLD) {
		for (size_t i = 0; i < n; i++) /* seqs_of_names */
			bp_strbuf_add(sb, (uint8_t[]){0, (uint8_t)(i >> 8), (uint8_t)i}, 3);
		ki_pad(sb, 8);
	}
	start = sb->len;
	for (unsigned i = 0; i < 256; i++) {
		char token[8];

		ki_token(i, token);
		index[i] = (uint16_t)(sb->len - start);
		bp_strbuf_add(sb, token, strlen(token) + 1);
	}
	ki_pad(sb, 8);
	bp_strbuf_add(sb, index, sizeof(index));
	if (layout == KI_LAYOUT_NEW)
		ki_put_offsets(sb, syms, n, percpu_absolute);
}

/* struct btf_type */
static inline void ki_put_type(struct bp_strbuf *sb, uint32_t name, unsigned kind, unsigned vlen,
			       uint32_t size_or_type)
{
	ki_put32(sb, name);
	ki_put32(sb, kind << 24 | vlen);
	ki_put32(sb, size_or_type);
}

static inline void ki_put_member(struct bp_strbuf *sb, uint32_t name, uint32_t type, uint32_t offset)
{
	ki_put32(sb, name);
	ki_put32(sb, type);
	ki_put32(sb, offset);
}

static inline uint32_t ki_string(struct bp_strbuf *strings, const char *s)
{
	uint32_t off = (uint32_t)strings->len;

	bp_strbuf_add(strings, s, strlen(s) + 1);
	return off;
}

/*
 * struct inner { u32 a; u32 b; }; (8 bytes)
 * struct outer { u32 first; inner_t const arr[3]; union { u32 x; struct { u32 y, z; }; }; struct outer *next;
 *                u32 low:4 (bit-field), flex[]; }; (56 bytes)
 */
static inline void ki_put_btf(struct bp_strbuf *sb)
{
	enum { INT = 1, PTR = 2, ARRAY = 3, STRUCT = 4, UNION = 5, TYPEDEF = 8, CONST = 10, ENUM64 = 19 };
	struct bp_strbuf types = BP_STRBUF_INIT, strings = BP_STRBUF_INIT;

	ki_string(&strings, "");
	ki_put_type(&types, ki_string(&strings, "u32"), INT, 0, 4); /* 1 */
	ki_put32(&types, 32);
	ki_put_type(&types, ki_string(&strings, "inner"), STRUCT, 2, 8); /* 2 */
	ki_put_member(&types, ki_string(&strings, "a"), 1, 0);
	ki_put_member(&types, ki_string(&strings, "b"), 1, 32);
	ki_put_type(&types, ki_string(&strings, "inner_t"), TYPEDEF, 0, 2); /* 3 */
	ki_put_type(&types, 0, CONST, 0, 3);                                /* 4 */
	ki_put_type(&types, 0, ARRAY, 0, 0);                                /* 5 */
	ki_put32(&types, 4);
	ki_put32(&types, 1);
	ki_put32(&types, 3);
	ki_put_type(&types, 0, STRUCT, 2, 8); /* 6 */
	ki_put_member(&types, ki_string(&strings, "y"), 1, 0);
	ki_put_member(&types, ki_string(&strings, "z"), 1, 32);
	ki_put_type(&types, 0, UNION, 2, 8); /* 7 */
	ki_put_member(&types, ki_string(&strings, "x"), 1, 0);
	ki_put_member(&types, 0, 6, 0);
	ki_put_type(&types, ki_string(&strings, "numbers"), ENUM64, 1, 8); /* 8 */
	ki_put_member(&types, ki_string(&strings, "ONE"), 1, 0);
	ki_put_type(&types, 0, PTR, 0, 11);  /* 9 */
	ki_put_type(&types, 0, ARRAY, 0, 0); /* 10: flexible */
	ki_put32(&types, 9);
	ki_put32(&types, 1);
	ki_put32(&types, 0);
	ki_put_type(&types, ki_string(&strings, "outer"), STRUCT | 0x80, 6, 56); /* 11 */
	ki_put_member(&types, ki_string(&strings, "first"), 1, 0);
	ki_put_member(&types, ki_string(&strings, "arr"), 5, 32);
	ki_put_member(&types, 0, 7, 28 * 8);
	ki_put_member(&types, ki_string(&strings, "next"), 9, 40 * 8);
	ki_put_member(&types, ki_string(&strings, "low"), 1, 4u << 24 | 48 * 8);
	ki_put_member(&types, ki_string(&strings, "flex"), 10, 56 * 8);
	ki_put16(sb, 0xeb9f);
	ki_put16(sb, 1);
	ki_put32(sb, 24);
	ki_put32(sb, 0);
	ki_put32(sb, (uint32_t)types.len);
	ki_put32(sb, (uint32_t)types.len);
	ki_put32(sb, (uint32_t)strings.len);
	bp_strbuf_add(sb, types.data, types.len);
	bp_strbuf_add(sb, strings.data, strings.len);
	bp_strbuf_deinit(&types);
	bp_strbuf_deinit(&strings);
}

/* The symbols of the test kernel in kallsyms order, *n of them; the caller frees the array. */
static inline struct ki_sym *ki_syms(size_t *n)
{
	static const struct ki_sym head[] = {
	    {0, 'A', "fixed_percpu_data"},
	    {0x1000, 'A', "cpu_info"},
	    {KI_TEXT, 'T', "startup_64"},
	    {KI_TEXT, 'T', "_stext"},
	    {KI_TEXT, 'T', "_text"},
	    {KI_TEXT + 0x40, 't', "helper"},
	    {KI_TEXT + 0x60, 't', "helper.cold"},
	    {KI_TEXT + 0x80, 'T', "do_one"},
	    {KI_TEXT + 0x80, 'T', "__do_one"},
	    {KI_TEXT + 0x80, 'W', "arch_do_one"},
	    {KI_TEXT + 0xb0, 't', "__pfx_entry"},
	    {KI_TEXT + 0xc0, 'T', "__entry_text_start"},
	    {KI_TEXT + 0xc0, 'W', "entry"},
	    {KI_TEXT + 0x100, 'T', "__x64_sys_ni_syscall"},
	    {KI_TEXT + 0x140, 'T', "__x64_sys_brandnew"},
	    {KI_TEXT + 0x180, 'T', KI_LONG_NAME},
	    {KI_TEXT + 0x200, 'T', "_etext"},
	    {KI_RODATA, 'R', "linux_banner"},
	    {KI_RODATA + 0x100, 'R', "sys_call_table"},
	    {KI_RODATA + 0x100 + 8 * (KI_NEW_SYSCALL + 1), 'R', "rodata_rest"},
	};
	static const struct ki_sym tail[] = {
	    {KI_INIT_TEXT, 't', "first_init"},
	    {KI_INIT_TEXT + 0x10, 't', "second_init"},
	    {KI_INIT_DATA, 'D', "__initcall_start"},
	    {KI_INIT_DATA + 4, 'D', "__initcall0_start"},
	    {KI_INIT_DATA + 4, 'D', "__initcall1_start"},
	    {KI_INIT_DATA + 8, 'D', "__initcall2_start"},
	    {KI_INIT_DATA + 8, 'D', "__initcall3_start"},
	    {KI_INIT_DATA + 8, 'D', "__initcall4_start"},
	    {KI_INIT_DATA + 8, 'D', "__initcall5_start"},
	    {KI_INIT_DATA + 8, 'D', "__initcallrootfs_start"},
	    {KI_INIT_DATA + 12, 'D', "__initcall6_start"},
	    {KI_INIT_DATA + 12, 'D', "__initcall7_start"},
	    {KI_INIT_DATA + 20, 'D', "__initcall_end"},
	};
	static char fillers[KI_FILLERS][16];
	size_t count = 0;
	struct ki_sym *syms =
	    malloc((BP_ARRAY_SIZE(head) + BP_ARRAY_SIZE(tail) + KI_FILLERS) * sizeof(*syms));

	if (!syms)
		abort();
	for (size_t i = 0; i < BP_ARRAY_SIZE(head); i++)
		syms[count++] = head[i];
	for (size_t i = 0; i < KI_FILLERS; i++) {
		snprintf(fillers[i], sizeof(fillers[i]), "filler_%zu", i);
		syms[count++] = (struct ki_sym){KI_RODATA + 0x2000 + 4 * i, 'r', fillers[i]};
	}
	for (size_t i = 0; i < BP_ARRAY_SIZE(tail); i++)
		syms[count++] = tail[i];
	*n = count;
	return syms;
}

struct ki_section {
	const char *name;
	uint32_t type;
	uint64_t flags, addr;
	struct bp_strbuf data;
	uint32_t link;
};

/* An ELF file with these sections and a section name table; sections keep their data. */
static inline void ki_put_elf(struct bp_strbuf *sb, struct ki_section *secs, size_t n)
{
	struct bp_strbuf names = BP_STRBUF_INIT, hdrs = BP_STRBUF_INIT;
	Elf64_Ehdr eh = {
	    .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
	    .e_type = ET_EXEC,
	    .e_machine = EM_X86_64,
	    .e_version = 1,
	    .e_ehsize = sizeof(eh),
	    .e_phentsize = sizeof(Elf64_Phdr),
	    .e_shentsize = sizeof(Elf64_Shdr),
	    .e_shnum = (uint16_t)(n + 2),
	    .e_shstrndx = (uint16_t)(n + 1),
	};
	Elf64_Shdr sh = {0};
	size_t start = sb->len;

	bp_strbuf_add(sb, &eh, sizeof(eh));
	bp_strbuf_addc(&names, '\0');
	bp_strbuf_add(&hdrs, &sh, sizeof(sh));
	for (size_t i = 0; i < n; i++) {
		ki_pad(sb, 16);
		sh = (Elf64_Shdr){
		    .sh_name = (uint32_t)names.len,
		    .sh_type = secs[i].type,
		    .sh_flags = secs[i].flags,
		    .sh_addr = secs[i].addr,
		    .sh_offset = sb->len - start,
		    .sh_size = secs[i].data.len,
		    .sh_link = secs[i].link,
		};
		bp_strbuf_add(&names, secs[i].name, strlen(secs[i].name) + 1);
		bp_strbuf_add(&hdrs, &sh, sizeof(sh));
		bp_strbuf_add(sb, secs[i].data.data, secs[i].data.len);
	}
	sh = (Elf64_Shdr){.sh_name = (uint32_t)names.len, .sh_type = SHT_STRTAB};
	bp_strbuf_adds(&names, ".shstrtab");
	bp_strbuf_addc(&names, '\0');
	sh.sh_offset = sb->len - start;
	sh.sh_size = names.len;
	bp_strbuf_add(sb, names.data, names.len);
	bp_strbuf_add(&hdrs, &sh, sizeof(sh));
	ki_pad(sb, 16);
	eh.e_shoff = sb->len - start;
	bp_strbuf_add(sb, hdrs.data, hdrs.len);
	if (!sb->failed)
		memcpy(sb->data + start, &eh, sizeof(eh));
	bp_strbuf_deinit(&names);
	bp_strbuf_deinit(&hdrs);
}

/* Places data at an offset in a section, filling up with zeros. */
static inline void ki_seek(struct bp_strbuf *sb, size_t off)
{
	while (sb->len < off && !sb->failed)
		bp_strbuf_addc(sb, '\0');
}

/* Section of an address of the test kernel, as an index of the array in ki_put_vmlinux(). */
static inline uint16_t ki_section_of(uint64_t addr)
{
	if (addr < KI_TEXT)
		return SHN_ABS;
	return addr < KI_RODATA ? 1 : addr < KI_INIT_TEXT ? 2 : addr < KI_INIT_DATA ? 3 : 4;
}

/* The test kernel: stripped and with kallsyms, or with a symbol table in an order of its own and without. */
static inline void ki_put_vmlinux(struct bp_strbuf *sb, bool stripped, enum ki_layout layout)
{
	enum { TEXT, RODATA, INIT_TEXT, INIT_DATA, NOTES, BTF, STRTAB, SYMTAB, SECTIONS };
	struct ki_section secs[SECTIONS] = {
	    [TEXT] = {".text", SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, KI_TEXT, BP_STRBUF_INIT, 0},
	    [RODATA] = {".rodata", SHT_PROGBITS, SHF_ALLOC, KI_RODATA, BP_STRBUF_INIT, 0},
	    [INIT_TEXT] = {".init.text", SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, KI_INIT_TEXT,
			   BP_STRBUF_INIT, 0},
	    [INIT_DATA] = {".init.data", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, KI_INIT_DATA, BP_STRBUF_INIT,
			   0},
	    [NOTES] = {".notes", SHT_NOTE, SHF_ALLOC, KI_RODATA + 0x100000, BP_STRBUF_INIT, 0},
	    [BTF] = {".BTF", SHT_PROGBITS, SHF_ALLOC, KI_RODATA + 0x110000, BP_STRBUF_INIT, 0},
	    [STRTAB] = {".strtab", SHT_STRTAB, 0, 0, BP_STRBUF_INIT, 0},
	    [SYMTAB] = {".symtab", SHT_SYMTAB, 0, 0, BP_STRBUF_INIT, STRTAB + 1},
	};
	static const uint64_t initcalls[KI_INITCALLS] = {
	    KI_INIT_TEXT, KI_INIT_TEXT + 0x10, KI_INIT_TEXT, KI_TEXT + 0x40, KI_TEXT + 0x80,
	};
	struct bp_strbuf *b = &secs[TEXT].data;
	size_t n;
	bp_autofree struct ki_sym *syms = ki_syms(&n);

	ki_seek(b, KI_TEXT_BYTES);
	ki_seek(&secs[INIT_TEXT].data, KI_INIT_TEXT_BYTES);
	b = &secs[RODATA].data;
	bp_strbuf_adds(b, "Linux version " KI_RELEASE " (user@host) (gcc) #1 SMP");
	ki_seek(b, 0x100);
	for (unsigned i = 0; i <= KI_NEW_SYSCALL; i++)
		ki_put64(b, KI_TEXT + (i == KI_NEW_SYSCALL ? 0x140 : 0x100));
	ki_seek(b, 0x2000 + 4 * KI_FILLERS);
	if (stripped)
		ki_put_kallsyms(b, syms, n, layout, true);
	bp_strbuf_adds(b, "the end");
	b = &secs[INIT_DATA].data;
	for (unsigned i = 0; i < KI_INITCALLS; i++)
		ki_put32(b, (uint32_t)(initcalls[i] - (KI_INIT_DATA + 4 * i)));
	b = &secs[NOTES].data;
	for (int xen = 1; xen >= 0; xen--) {
		ki_put32(b, 4);
		ki_put32(b, xen ? 3 : 20);
		ki_put32(b, xen ? 7 : NT_GNU_BUILD_ID);
		bp_strbuf_add(b, xen ? "Xen" : "GNU", 4);
		for (unsigned i = 0; i < (xen ? 4u : 20u); i++)
			bp_strbuf_addc(b, (char)(0x01 + 0x22 * (i % 8)));
	}
	ki_put_btf(&secs[BTF].data);
	bp_strbuf_addc(&secs[STRTAB].data, '\0');
	bp_strbuf_add(&secs[SYMTAB].data, &(Elf64_Sym){0}, sizeof(Elf64_Sym));
	for (size_t i = n; i-- > 0;) {
		Elf64_Sym sym = {
		    .st_name = ki_string(&secs[STRTAB].data, syms[i].name),
		    .st_info = ELF64_ST_INFO(syms[i].type == 'W'   ? STB_WEAK
					     : syms[i].type >= 'a' ? STB_LOCAL
								   : STB_GLOBAL,
					     STT_NOTYPE),
		    .st_shndx = ki_section_of(syms[i].addr),
		    .st_value = syms[i].addr,
		};

		bp_strbuf_add(&secs[SYMTAB].data, &sym, sizeof(sym));
	}
	ki_put_elf(sb, secs, stripped ? STRTAB : SECTIONS);
	for (size_t i = 0; i < SECTIONS; i++)
		bp_strbuf_deinit(&secs[i].data);
}

/* A bzImage around @image, LZ4 in the legacy frame that kernels use; as large as @image at most. */
static inline void ki_put_bzimage(struct bp_strbuf *sb, const struct bp_strbuf *image)
{
	size_t start = sb->len, max = (size_t)LZ4_compressBound((int)image->len);
	bp_autofree char *packed = malloc(max);
	int size = packed ? LZ4_compress_default(image->data, packed, (int)image->len, (int)max) : 0;
	uint8_t head[0x400] = {0};

	head[0x1f1] = 1;                         /* setup sectors, with the boot sector 0x400 bytes */
	memcpy(head + 0x202, "HdrS\x0f\x02", 6); /* protocol 2.15 */
	memcpy(head + 0x20e, "\x00\x01", 2);     /* version string at 0x300 */
	memcpy(head + 0x300, "7.0-from-header (x) #1", 22);
	memcpy(head + 0x248, "\x10\0\0", 4); /* payload 0x10 behind the setup */
	memcpy(head + 0x24c, &(uint32_t){(uint32_t)size + 12}, 4);
	bp_strbuf_add(sb, head, sizeof(head));
	ki_seek(sb, start + sizeof(head) + 0x10);
	ki_put32(sb, 0x184c2102);
	ki_put32(sb, (uint32_t)size);
	bp_strbuf_add(sb, packed, (size_t)size);
	ki_put32(sb, (uint32_t)image->len);
}

#endif
