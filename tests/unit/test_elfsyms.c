// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE 1 /* dl_iterate_phdr() */
#include <elf.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "symbols/guestfs.h"

static void expect_ok(struct bp_err *err)
{
	if (err)
		fail_msg("%s", bp_err_text(err));
}

/*
 * A small file, built here: one executable segment at file offset 0x200, virtual address 0x401200, with .text
 * from its start to 0x400, then the tables.
 */
#define TEXT_OFFSET 0x200
#define TEXT_BYTES 0x200
#define TEXT_ADDR 0x401200
#define FILE_BYTES 0x1000

struct image {
	uint8_t data[FILE_BYTES];
	size_t len;
	Elf64_Sym syms[16];
	size_t n_syms;
	char strs[512];
	size_t strs_len;
	bool drop_symtab, relocatable;
};

static void add_sym(struct image *im, const char *name, unsigned type, unsigned bind, uint64_t value,
		    uint64_t size)
{
	im->syms[im->n_syms++] = (Elf64_Sym){
	    .st_name = (Elf64_Word)im->strs_len,
	    .st_info = (unsigned char)ELF64_ST_INFO(bind, type),
	    .st_shndx = 1,
	    .st_value = (im->relocatable ? 0 : TEXT_ADDR) + value,
	    .st_size = size,
	};
	strcpy(im->strs + im->strs_len, name);
	im->strs_len += strlen(name) + 1;
}

static void start_image(struct image *im)
{
	memset(im, 0, sizeof(*im));
	im->n_syms = 1;
	im->strs_len = 1;
}

static uint64_t put(struct image *im, const void *data, size_t len)
{
	uint64_t at = im->len;

	assert_true(at + len <= FILE_BYTES);
	memcpy(im->data + at, data, len);
	im->len = (at + len + 7) & ~(size_t)7;
	return at;
}

static void finish_image(struct image *im)
{
	static const uint8_t note[] = {4, 0, 0,   0,   4,   0, 0,    0,    3,    0,
				       0, 0, 'G', 'N', 'U', 0, 0xde, 0xad, 0xbe, 0xef};
	static const char names[] = "\0.text\0.symtab\0.strtab\0.shstrtab";
	Elf64_Ehdr eh = {
	    .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
	    .e_type = im->relocatable ? ET_REL : ET_EXEC,
	    .e_machine = EM_X86_64,
	    .e_ehsize = sizeof(Elf64_Ehdr),
	    .e_phoff = sizeof(Elf64_Ehdr),
	    .e_phentsize = sizeof(Elf64_Phdr),
	    .e_phnum = im->relocatable ? 0 : 2,
	    .e_shentsize = sizeof(Elf64_Shdr),
	    .e_shnum = 5,
	    .e_shstrndx = 4,
	};
	Elf64_Phdr ph[2] = {
	    {.p_type = PT_LOAD,
	     .p_flags = PF_R | PF_X,
	     .p_offset = TEXT_OFFSET,
	     .p_vaddr = TEXT_ADDR,
	     .p_filesz = TEXT_BYTES,
	     .p_memsz = TEXT_BYTES},
	    {.p_type = PT_NOTE, .p_filesz = sizeof(note), .p_align = 4},
	};
	Elf64_Shdr sh[5] = {
	    [1] = {.sh_name = 1,
		   .sh_type = SHT_PROGBITS,
		   .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
		   .sh_addr = TEXT_ADDR,
		   .sh_offset = TEXT_OFFSET,
		   .sh_size = TEXT_BYTES},
	    [2] = {.sh_name = 7,
		   .sh_type = im->drop_symtab ? SHT_NULL : SHT_SYMTAB,
		   .sh_link = 3,
		   .sh_size = im->n_syms * sizeof(Elf64_Sym),
		   .sh_entsize = sizeof(Elf64_Sym)},
	    [3] = {.sh_name = 15, .sh_type = SHT_STRTAB, .sh_size = im->strs_len},
	    [4] = {.sh_name = 23, .sh_type = SHT_STRTAB, .sh_size = sizeof(names)},
	};

	im->len = TEXT_OFFSET + TEXT_BYTES;
	ph[1].p_offset = put(im, note, sizeof(note));
	sh[2].sh_offset = put(im, im->syms, im->n_syms * sizeof(im->syms[0]));
	sh[3].sh_offset = put(im, im->strs, im->strs_len);
	sh[4].sh_offset = put(im, names, sizeof(names));
	eh.e_shoff = put(im, sh, sizeof(sh));
	memcpy(im->data, &eh, sizeof(eh));
	if (!im->relocatable)
		memcpy(im->data + sizeof(eh), ph, sizeof(ph));
}

static struct bp_elfsyms *open_image(struct image *im)
{
	struct bp_elfsyms *e = NULL;

	finish_image(im);
	expect_ok(bp_elfsyms_open(im->data, im->len, "image", &e));
	return e;
}

/* Offsets in .text; @want NULL: nothing there. */
static void expect_name(const struct bp_elfsyms *e, uint64_t at, const char *want, uint64_t want_start)
{
	const char *name = NULL;
	uint64_t start = 0;

	if (!bp_elfsyms_find(e, TEXT_OFFSET + at, &name, &start)) {
		if (want)
			fail_msg("nothing at %#llx, expected %s", (unsigned long long)at, want);
		return;
	}
	if (!want)
		fail_msg("%s at %#llx, expected nothing", name, (unsigned long long)at);
	assert_string_equal(name, want);
	assert_int_equal(start, TEXT_OFFSET + want_start);
}

static void fill_image(struct image *im)
{
	add_sym(im, "sized", STT_FUNC, STB_GLOBAL, 0x00, 0x18);
	add_sym(im, "open_ended", STT_FUNC, STB_LOCAL, 0x20, 0);
	add_sym(im, "__alias", STT_FUNC, STB_GLOBAL, 0x40, 0x40);
	add_sym(im, "alias", STT_FUNC, STB_WEAK, 0x40, 0x40);
	add_sym(im, "inner", STT_FUNC, STB_LOCAL, 0x50, 0x08);
	add_sym(im, "label_inside", STT_NOTYPE, STB_LOCAL, 0x60, 0);
	add_sym(im, "asm_label", STT_NOTYPE, STB_GLOBAL, 0x80, 0);
	add_sym(im, ".Llocal", STT_NOTYPE, STB_LOCAL, 0x88, 0);
	add_sym(im, "data", STT_OBJECT, STB_GLOBAL, 0x90, 8);
	add_sym(im, "too_long", STT_FUNC, STB_GLOBAL, 0x100, UINT64_MAX);
	add_sym(im, "elsewhere", STT_FUNC, STB_GLOBAL, 0x7000, 8);
}

static void expect_filled(const struct bp_elfsyms *e)
{
	const uint64_t *starts;
	size_t n;

	expect_name(e, 0x00, "sized", 0);
	expect_name(e, 0x17, "sized", 0);
	expect_name(e, 0x18, NULL, 0);
	expect_name(e, 0x20, "open_ended", 0x20);
	expect_name(e, 0x3f, "open_ended", 0x20);
	expect_name(e, 0x40, "alias", 0x40);
	expect_name(e, 0x50, "inner", 0x50);
	expect_name(e, 0x58, "alias", 0x40);
	expect_name(e, 0x60, "alias", 0x40);
	expect_name(e, 0x80, "asm_label", 0x80);
	expect_name(e, 0xff, "asm_label", 0x80);
	expect_name(e, 0x1ff, "too_long", 0x100);
	expect_name(e, 0x200, NULL, 0);
	expect_name(e, UINT64_MAX - TEXT_OFFSET, NULL, 0);
	starts = bp_elfsyms_starts(e, &n);
	assert_int_equal(n, 6);
	for (size_t i = 1; i < n; i++)
		assert_true(starts[i - 1] < starts[i]);
}

static void test_symbols(void **state)
{
	struct image im;
	struct bp_elfsyms *e;

	(void)state;
	start_image(&im);
	fill_image(&im);
	e = open_image(&im);
	expect_filled(e);
	assert_string_equal(bp_elfsyms_build_id(e), "deadbeef");
	bp_elfsyms_destroy(e);
	bp_elfsyms_destroy(NULL);
}

static void test_relocatable(void **state)
{
	struct image im;
	struct bp_elfsyms *e;

	(void)state;
	start_image(&im);
	im.relocatable = true;
	fill_image(&im);
	e = open_image(&im);
	expect_filled(e);
	assert_string_equal(bp_elfsyms_build_id(e), "");
	bp_elfsyms_destroy(e);
}

static void test_no_symbols(void **state)
{
	struct image im;
	struct bp_elfsyms *e;
	uint64_t start;
	size_t n;

	(void)state;
	start_image(&im);
	fill_image(&im);
	im.drop_symtab = true;
	e = open_image(&im);
	expect_name(e, 0, NULL, 0);
	assert_false(bp_elfsyms_fde_find(e, TEXT_OFFSET, &start));
	bp_elfsyms_starts(e, &n);
	assert_int_equal(n, 0);
	assert_string_equal(bp_elfsyms_build_id(e), "deadbeef");
	bp_elfsyms_destroy(e);
}

static void expect_refused(const void *data, size_t len, enum bp_err_code code)
{
	struct bp_elfsyms *e = NULL;
	struct bp_err *err = bp_elfsyms_open(data, len, "image", &e);

	assert_non_null(err);
	if (bp_err_code(err) != code)
		fail_msg("code %d: %s", bp_err_code(err), bp_err_text(err));
	assert_non_null(strstr(bp_err_text(err), "image"));
	assert_null(e);
	bp_err_free(err);
}

static void test_refused(void **state)
{
	struct image im;
	Elf64_Ehdr eh;
	Elf64_Shdr sh;

	(void)state;
	start_image(&im);
	fill_image(&im);
	finish_image(&im);
	expect_refused(im.data, 0, BP_EUNSUPPORTED);
	expect_refused("#!/bin/sh\n# some script\n", 24, BP_EUNSUPPORTED);
	expect_refused(im.data, 40, BP_EDATA);
	expect_refused(im.data, im.len - sizeof(sh), BP_EDATA);
	memcpy(&eh, im.data, sizeof(eh));

	im.data[EI_CLASS] = ELFCLASS32;
	expect_refused(im.data, im.len, BP_EUNSUPPORTED);
	im.data[EI_CLASS] = ELFCLASS64;
	im.data[EI_DATA] = ELFDATA2MSB;
	expect_refused(im.data, im.len, BP_EUNSUPPORTED);
	im.data[EI_DATA] = ELFDATA2LSB;

	memcpy(&sh, im.data + eh.e_shoff + 2 * sizeof(sh), sizeof(sh));
	sh.sh_size = UINT64_MAX;
	memcpy(im.data + eh.e_shoff + 2 * sizeof(sh), &sh, sizeof(sh));
	expect_refused(im.data, im.len, BP_EDATA);
}

/* Whatever is cut or flipped: an error or a table, never a crash. The sanitizers watch. */
static void test_damage(void **state)
{
	struct image im;
	struct bp_elfsyms *e;

	(void)state;
	start_image(&im);
	fill_image(&im);
	finish_image(&im);
	for (size_t i = 0; i < im.len * 8; i += i < 0x200 * 8 ? 1 : 7) {
		uint8_t *copy = malloc(im.len);

		assert_non_null(copy);
		memcpy(copy, im.data, im.len);
		copy[i / 8] ^= (uint8_t)(1u << i % 8);
		e = NULL;
		bp_err_ignore(bp_elfsyms_open(copy, i % 3 ? im.len : i / 8, "image", &e));
		free(copy);
		if (e) {
			const char *name;
			uint64_t start;

			for (uint64_t at = 0; at < FILE_BYTES; at += 16) {
				if (bp_elfsyms_find(e, at, &name, &start))
					assert_true(start <= at && strlen(name) < FILE_BYTES);
			}
		}
		bp_elfsyms_destroy(e);
	}
}

static uint8_t *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "r");
	uint8_t *data = NULL;
	long size;

	if (!f)
		return NULL;
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	size = ftell(f);
	rewind(f);
	data = malloc((size_t)size + 1);
	assert_non_null(data);
	*len = fread(data, 1, (size_t)size, f);
	fclose(f);
	return data;
}

/* Not static and not inlined, so that this program has a symbol to look for. */
int bp_test_marker(int x);
__attribute__((noinline)) int bp_test_marker(int x)
{
	return x * 3 + 1;
}

struct where {
	uint64_t addr, offset;
	bool found;
};

static int find_offset(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct where *w = arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uint64_t start = info->dlpi_addr + ph->p_vaddr;

		if (ph->p_type == PT_LOAD && w->addr >= start && w->addr - start < ph->p_filesz) {
			w->offset = w->addr - start + ph->p_offset;
			w->found = true;
			return 1;
		}
	}
	return 0;
}

/* Each function of an intact file (this program) is found by one of the names that it has there. */
static void expect_own_names(const struct bp_elfsyms *e, const uint8_t *data)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)data;
	const Elf64_Shdr *sh = (const Elf64_Shdr *)(data + eh->e_shoff);
	size_t checked = 0;

	for (unsigned t = 0; t < eh->e_shnum; t++) {
		const Elf64_Sym *syms = (const Elf64_Sym *)(data + sh[t].sh_offset);
		const char *strs = (const char *)data + sh[sh[t].sh_link].sh_offset;
		size_t n = sh[t].sh_size / sizeof(*syms);

		if (sh[t].sh_type != SHT_SYMTAB)
			continue;
		for (size_t i = 0; i < n; i++) {
			const Elf64_Shdr *in = &sh[syms[i].st_shndx];
			const char *name;
			uint64_t start, offset;
			bool same = false;

			if (ELF64_ST_TYPE(syms[i].st_info) != STT_FUNC || !syms[i].st_shndx)
				continue;
			offset = syms[i].st_value - in->sh_addr + in->sh_offset;
			assert_true(bp_elfsyms_find(e, offset, &name, &start));
			assert_int_equal(start, offset);
			for (size_t k = 0; k < n && !same; k++)
				same = syms[k].st_value == syms[i].st_value &&
				       !strcmp(strs + syms[k].st_name, name);
			if (!same)
				fail_msg("%s is called %s", strs + syms[i].st_name, name);
			checked++;
		}
	}
	assert_true(checked > 10);
}

/* This program itself: a real linker's work, checked against where the code runs. */
static void test_self(void **state)
{
	struct where w = {.addr = (uint64_t)(uintptr_t)bp_test_marker};
	struct bp_elfsyms *e;
	const uint64_t *starts;
	uint64_t start;
	const char *name;
	size_t len = 0, n, stubs = 0, in_pieces = 0;
	uint8_t *data = read_file("/proc/self/exe", &len);

	(void)state;
	assert_non_null(data);
	assert_int_equal(bp_test_marker(1), 4);
	dl_iterate_phdr(find_offset, &w);
	assert_true(w.found);
	expect_ok(bp_elfsyms_open(data, len, "self", &e));
	expect_own_names(e, data);
	free(data); /* only read during the call */
	assert_true(bp_elfsyms_find(e, w.offset, &name, &start));
	assert_string_equal(name, "bp_test_marker");
	assert_int_equal(start, w.offset);
	assert_true(bp_elfsyms_fde_find(e, w.offset + 1, &start));
	assert_int_equal(start, w.offset);
	starts = bp_elfsyms_starts(e, &n);
	for (size_t i = 0; i < n; i++) {
		uint64_t piece;

		assert_true(bp_elfsyms_find(e, starts[i], &name, &start));
		assert_int_equal(start, starts[i]);
		stubs += strlen(name) > 4 && !strcmp(name + strlen(name) - 4, "@plt");
		in_pieces += bp_elfsyms_fde_find(e, starts[i], &piece) && piece <= starts[i];
	}
	assert_true(stubs > 3);
	assert_true(in_pieces > n / 2);
	bp_elfsyms_destroy(e);
}

/* The C library: stripped, so what is exported, with the public name where there are several. */
static void test_libc(void **state)
{
	static const struct {
		const char *name;
		void *addr;
	} known[] = {{"malloc", malloc}, {"qsort", qsort}, {"puts", puts}, {"getpid", getpid}};
	char line[4096], path[4096] = "";
	FILE *maps = fopen("/proc/self/maps", "r");
	struct bp_elfsyms *e;
	uint8_t *data;
	size_t len = 0;

	(void)state;
	assert_non_null(maps);
	while (!path[0] && fgets(line, sizeof(line), maps)) {
		char *at = strchr(line, '/');

		if (at && strstr(at, "/libc.so.6"))
			sscanf(at, "%4095s", path);
	}
	fclose(maps);
	data = path[0] ? read_file(path, &len) : NULL;
	if (!data) {
		print_message("no C library found to read\n");
		skip();
	}
	expect_ok(bp_elfsyms_open(data, len, path, &e));
	free(data);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct where w = {.addr = (uint64_t)(uintptr_t)known[i].addr};
		const char *name;
		uint64_t start;

		/* A sanitizer puts its own malloc() in front. */
		dl_iterate_phdr(find_offset, &w);
		if (!w.found || !bp_elfsyms_find(e, w.offset, &name, &start) || strcmp(name, known[i].name))
			continue;
		assert_int_equal(start, w.offset);
		bp_elfsyms_destroy(e);
		return;
	}
	fail_msg("none of the names is where it should be");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_symbols),    cmocka_unit_test(test_relocatable),
	    cmocka_unit_test(test_no_symbols), cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_damage),     cmocka_unit_test(test_self),
	    cmocka_unit_test(test_libc),
	};

	return cmocka_run_group_tests_name("elfsyms", tests, NULL, NULL);
}
