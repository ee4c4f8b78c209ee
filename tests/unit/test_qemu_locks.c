// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "symbols/qemu_locks.h"

static void expect_ok(struct bp_err *err)
{
	if (err)
		fail_msg("%s", bp_err_text(err));
}

static void expect_err(struct bp_err *err, enum bp_err_code code, const char *part)
{
	assert_non_null(err);
	if (bp_err_code(err) != code || !strstr(bp_err_text(err), part))
		fail_msg("code %d: %s; expected code %d with: %s", bp_err_code(err), bp_err_text(err), code,
			 part);
	bp_err_free(err);
}

/* ---- a stripped binary, built here ---- */

#define TEXT_OFFSET 0x1000
#define TEXT_ADDR 0x2000
#define TEXT_BYTES 0x400
#define RODATA_AT 0x300 /* in the text segment */
#define BSS_ADDR 0x8000
#define BSS_BYTES 0x1000
#define BIAS 0x555500000000ull
#define FILE_BYTES 0x3000

struct image {
	uint8_t data[FILE_BYTES];
	Elf64_Sym syms[16];
	size_t n_syms;
	char strs[512];
	size_t strs_len;
	uint64_t code_len;
};

static void add_sym(struct image *im, const char *name, unsigned type, uint64_t value, uint64_t size)
{
	im->syms[im->n_syms++] = (Elf64_Sym){
	    .st_name = (Elf64_Word)im->strs_len,
	    .st_info = ELF64_ST_INFO(STB_GLOBAL, type),
	    .st_shndx = type == STT_FUNC ? 1 : 2,
	    .st_value = value,
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

/* A function: @prologue, then LEAs of the targets into %rdi, and ret. Returns its address. */
static uint64_t add_function(struct image *im, const char *name, const char *prologue, size_t prologue_len,
			     const uint64_t *targets, size_t n)
{
	uint64_t start = TEXT_ADDR + im->code_len;
	uint8_t *p = im->data + TEXT_OFFSET + im->code_len;

	memcpy(p, prologue, prologue_len);
	im->code_len += prologue_len;
	for (size_t i = 0; i < n; i++) {
		int32_t d = (int32_t)(targets[i] - (TEXT_ADDR + im->code_len + 7));

		p = im->data + TEXT_OFFSET + im->code_len;
		memcpy(p, "\x48\x8d\x3d", 3);
		memcpy(p + 3, &d, 4);
		im->code_len += 7;
	}
	im->data[TEXT_OFFSET + im->code_len++] = 0xc3;
	add_sym(im, name, STT_FUNC, start, TEXT_ADDR + im->code_len - start);
	assert_true(im->code_len <= RODATA_AT);
	return start;
}

static void finish_image(struct image *im)
{
	static const char names[] = "\0.text\0.bss\0.dynsym\0.dynstr\0.shstrtab";
	Elf64_Ehdr eh = {
	    .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
	    .e_type = ET_DYN,
	    .e_machine = EM_X86_64,
	    .e_version = EV_CURRENT,
	    .e_ehsize = sizeof(eh),
	    .e_phoff = sizeof(eh),
	    .e_phentsize = sizeof(Elf64_Phdr),
	    .e_phnum = 3,
	    .e_shoff = 0x2000,
	    .e_shentsize = sizeof(Elf64_Shdr),
	    .e_shnum = 6,
	    .e_shstrndx = 5,
	};
	Elf64_Phdr ph[3] = {
	    {.p_type = PT_LOAD, .p_flags = PF_R, .p_filesz = 0x1000, .p_memsz = 0x1000, .p_align = 0x1000},
	    {.p_type = PT_LOAD,
	     .p_flags = PF_R | PF_X,
	     .p_offset = TEXT_OFFSET,
	     .p_vaddr = TEXT_ADDR,
	     .p_filesz = TEXT_BYTES,
	     .p_memsz = TEXT_BYTES,
	     .p_align = 0x1000},
	    {.p_type = PT_LOAD,
	     .p_flags = PF_R | PF_W,
	     .p_offset = 0x2000,
	     .p_vaddr = BSS_ADDR,
	     .p_memsz = BSS_BYTES,
	     .p_align = 0x1000},
	};
	Elf64_Shdr sh[6] = {
	    [1] = {.sh_name = 1,
		   .sh_type = SHT_PROGBITS,
		   .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
		   .sh_addr = TEXT_ADDR,
		   .sh_offset = TEXT_OFFSET,
		   .sh_size = TEXT_BYTES},
	    [2] = {.sh_name = 7,
		   .sh_type = SHT_NOBITS,
		   .sh_flags = SHF_ALLOC | SHF_WRITE,
		   .sh_addr = BSS_ADDR,
		   .sh_offset = 0x2000,
		   .sh_size = BSS_BYTES},
	    [3] = {.sh_name = 12,
		   .sh_type = SHT_DYNSYM,
		   .sh_offset = 0x2400,
		   .sh_link = 4,
		   .sh_size = im->n_syms * sizeof(Elf64_Sym),
		   .sh_entsize = sizeof(Elf64_Sym)},
	    [4] = {.sh_name = 20, .sh_type = SHT_STRTAB, .sh_offset = 0x2800, .sh_size = im->strs_len},
	    [5] = {.sh_name = 28, .sh_type = SHT_STRTAB, .sh_offset = 0x2c00, .sh_size = sizeof(names)},
	};

	memcpy(im->data, &eh, sizeof(eh));
	memcpy(im->data + sizeof(eh), ph, sizeof(ph));
	memcpy(im->data + 0x2000, sh, sizeof(sh));
	memcpy(im->data + 0x2400, im->syms, im->n_syms * sizeof(im->syms[0]));
	memcpy(im->data + 0x2800, im->strs, im->strs_len);
	memcpy(im->data + 0x2c00, names, sizeof(names));
}

static const char maps_of_image[] =
    "555500000000-555500001000 r--p 00000000 fe:00 1 /opt/qemu system x86\n"
    "555500002000-555500003000 r-xp 00001000 fe:00 1 /opt/qemu system x86\n"
    "555500008000-555500009000 rw-p 00000000 00:00 0 \n"
    "555501000000-555501100000 rw-p 00000000 00:00 0                          [heap]\n"
    "7f0000000000-7f0000021000 rw-p 00000000 00:00 0 \n"
    "7f0005000000-7f0005021000 rw-p 00000000 00:00 0 \n"
    "7f0100000000-7f0100100000 r-xp 00002000 fe:00 2                          /usr/lib/libfoo.so.1\n"
    "7f0100100000-7f0100101000 rw-p 00102000 fe:00 2                          /usr/lib/libfoo.so.1\n"
    "7f0100101000-7f0100103000 rw-p 00000000 00:00 0 \n"
    "7f0100103000-7f0100104000 rw-p 00000000 00:00 0 \n"
    "7f0200000000-7f0200001000 rw-p 00000000 00:00 0 \n"
    "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n";

static struct bp_err *open_image(struct image *im, const char *maps, struct bp_qemu_locks **ret)
{
	char path[] = "/tmp/bootprof-locks.XXXXXX";
	int fd = mkstemp(path);
	struct bp_err *err;

	assert_true(fd >= 0);
	finish_image(im);
	assert_int_equal(write(fd, im->data, sizeof(im->data)), sizeof(im->data));
	close(fd);
	err = bp_qemu_locks_create(path, NULL, maps, strlen(maps), NULL, ret);
	unlink(path);
	return err;
}

static struct bp_qemu_locks *image_locks(struct image *im)
{
	struct bp_qemu_locks *l = NULL;

	expect_ok(open_image(im, maps_of_image, &l));
	return l;
}

static void expect_name(const struct bp_qemu_locks *l, uint64_t addr, const char *name, const char *how)
{
	struct bp_qemu_lock lock;

	if (!bp_qemu_locks_find(l, addr, &lock)) {
		if (name)
			fail_msg("nothing at %#llx, expected %s", (unsigned long long)addr, name);
		return;
	}
	if (!name)
		fail_msg("%s at %#llx, expected nothing", lock.name, (unsigned long long)addr);
	assert_string_equal(lock.name, name);
	assert_string_equal(lock.how, how);
	assert_true(lock.addr <= addr);
}

static const char push[] = "\x41\x55\x53";

static void test_code(void **state)
{
	const uint64_t lock[] = {0x2300, BSS_ADDR + 0x140}, all[] = {BSS_ADDR + 0x140, BSS_ADDR + 0x800};
	struct image im;
	struct bp_qemu_locks *l;
	struct bp_qemu_lock found;
	const char *how;

	(void)state;
	start_image(&im);
	/* The nearest symbol does not cover the lock. */
	add_sym(&im, "smbios_tables", STT_OBJECT, BSS_ADDR + 0x100, 0x40);
	add_function(&im, "qemu_mutex_lock_iothread_impl", push, 3, lock, 2);
	add_function(&im, "qemu_mutex_unlock_iothread", push, 3, all, 2);
	add_function(&im, "qemu_cond_wait_iothread", push, 3, lock, 2);
	l = image_locks(&im);
	assert_int_equal(bp_qemu_locks_bql(l, &how), BIAS + BSS_ADDR + 0x140);
	assert_string_equal(how, "code of lock functions");
	expect_name(l, BIAS + BSS_ADDR + 0x140, "qemu_global_mutex", "code of lock functions");
	assert_true(bp_qemu_locks_find(l, BIAS + BSS_ADDR + 0x140, &found));
	assert_true(found.is_bql);
	expect_name(l, BIAS + BSS_ADDR + 0x13c, "smbios_tables+0x3c", "symbol table");
	expect_name(l, BIAS + BSS_ADDR + 0x148, NULL, NULL);
	expect_name(l, BIAS + BSS_ADDR + 0x800, NULL, NULL);
	expect_name(l, BSS_ADDR + 0x140, NULL, NULL);
	bp_qemu_locks_destroy(l);
	bp_qemu_locks_destroy(NULL);
}

/* One function alone, or functions that do not agree, are no proof. */
static void test_disagree(void **state)
{
	const uint64_t a[] = {BSS_ADDR + 0x140}, b[] = {BSS_ADDR + 0x240}, both[] = {a[0], b[0]};
	struct image im;
	struct bp_qemu_locks *l;
	const char *how;

	(void)state;
	start_image(&im);
	add_function(&im, "bql_unlock", push, 3, a, 1);
	l = image_locks(&im);
	assert_int_equal(bp_qemu_locks_bql(l, &how), 0);
	assert_null(how);
	bp_qemu_locks_destroy(l);

	add_function(&im, "bql_lock_impl", push, 3, b, 1);
	l = image_locks(&im);
	assert_int_equal(bp_qemu_locks_bql(l, &how), 0);
	bp_qemu_locks_destroy(l);

	start_image(&im);
	add_function(&im, "bql_unlock", push, 3, both, 2);
	add_function(&im, "bql_lock_impl", push, 3, both, 2);
	l = image_locks(&im);
	assert_int_equal(bp_qemu_locks_bql(l, &how), 0);
	bp_qemu_locks_destroy(l);

	/* A third one decides. */
	add_function(&im, "qemu_cond_wait_bql", push, 3, b, 1);
	l = image_locks(&im);
	assert_int_equal(bp_qemu_locks_bql(l, &how), BIAS + b[0]);
	expect_name(l, BIAS + b[0], "bql", "code of lock functions");
	bp_qemu_locks_destroy(l);
}

static void test_symbols(void **state)
{
	const uint64_t lock[] = {BSS_ADDR + 0x140};
	struct image im;
	struct bp_qemu_locks *l;
	const char *how;
	char text[BP_LOCK_NAME_MAX];

	(void)state;
	start_image(&im);
	add_function(&im, "bql_unlock", push, 3, lock, 1);
	add_function(&im, "bql_lock_impl", push, 3, lock, 1);
	/* What the symbol table says is not asked of the code. */
	add_sym(&im, "bql", STT_OBJECT, BSS_ADDR + 0x300, 0x30);
	add_sym(&im, "ram_list", STT_OBJECT, BSS_ADDR + 0x400, 0x100);
	add_sym(&im, "empty", STT_OBJECT, BSS_ADDR + 0x600, 0);
	memcpy(im.data + TEXT_OFFSET + RODATA_AT, "../system/cpus.c\0\001bad", 22);
	l = image_locks(&im);
	assert_int_equal(bp_qemu_locks_bql(l, &how), BIAS + BSS_ADDR + 0x300);
	assert_string_equal(how, "symbol table");
	expect_name(l, BIAS + BSS_ADDR + 0x300, "bql", "symbol table");
	expect_name(l, BIAS + BSS_ADDR + 0x428, "ram_list+0x28", "symbol table");
	expect_name(l, BIAS + BSS_ADDR + 0x500, NULL, NULL);
	expect_name(l, BIAS + BSS_ADDR + 0x600, NULL, NULL);

	/* Arenas: at the start of 64 MiB only. */
	expect_name(l, 0x7f0000000030, "malloc arena 0x7f0000000000", "malloc arena");
	expect_name(l, 0x7f0000000020, "malloc arena 0x7f0000000000", "malloc arena");
	expect_name(l, 0x7f0000000028, NULL, NULL);
	expect_name(l, 0x7f0005000030, NULL, NULL);
	expect_name(l, 0x7f0100000030, NULL, NULL);
	bp_qemu_locks_place(l, 0x7f0000000028, text);
	assert_string_equal(text, "anonymous memory");
	bp_qemu_locks_place(l, 0x555501000040, text);
	assert_string_equal(text, "heap");
	bp_qemu_locks_place(l, 0x7ffc00000040, text);
	assert_string_equal(text, "stack");
	bp_qemu_locks_place(l, 0x7f0100000030, text);
	assert_string_equal(text, "libfoo.so.1+0x2030");
	/* Its zeroed data, from where it is loaded; what comes behind that, or elsewhere, is not its. */
	bp_qemu_locks_place(l, 0x7f0100101010, text);
	assert_string_equal(text, "libfoo.so.1+0x101010");
	bp_qemu_locks_place(l, 0x7f0100103010, text);
	assert_string_equal(text, "anonymous memory");
	bp_qemu_locks_place(l, 0x7f0200000010, text);
	assert_string_equal(text, "anonymous memory");
	bp_qemu_locks_place(l, 0x10, text);
	assert_string_equal(text, "unmapped");

	assert_true(bp_qemu_locks_text(l, BIAS + TEXT_ADDR + RODATA_AT, text, sizeof(text)));
	assert_string_equal(text, "../system/cpus.c");
	assert_false(bp_qemu_locks_text(l, BIAS + TEXT_ADDR + RODATA_AT + 17, text, sizeof(text)));
	assert_false(bp_qemu_locks_text(l, BIAS + TEXT_ADDR + RODATA_AT, text, 8));
	assert_false(bp_qemu_locks_text(l, 0, text, sizeof(text)));

	/* A thread more. */
	expect_ok(bp_qemu_locks_update(l, "7f0008000000-7f0008021000 rw-p 00000000 00:00 0 \n", 48));
	expect_name(l, 0x7f0008000030, "malloc arena 0x7f0008000000", "malloc arena");
	expect_name(l, 0x7f0000000030, NULL, NULL);
	expect_name(l, BIAS + BSS_ADDR + 0x300, "bql", "symbol table");
	expect_err(bp_qemu_locks_update(l, "nonsense\n", 9), BP_EDATA,
		   "offset 0: not a line of /proc/PID/maps");
	bp_qemu_locks_destroy(l);
}

static void expect_probe(const char *prologue, size_t len, size_t at, bool emulated)
{
	uint8_t code[32];
	bool got;

	memset(code, 0xcc, sizeof(code));
	memcpy(code, prologue, len);
	assert_int_equal(bp_probe_offset(code, sizeof(code), &got), at);
	assert_int_equal(got, emulated);
}

static void test_probe(void **state)
{
	struct image im;
	struct bp_qemu_locks *l;
	struct bp_qemu_probe p;

	(void)state;
	expect_probe("\x41\x55", 2, 0, true);
	expect_probe("\x53", 1, 0, true);
	/* endbr64; push %rbp */
	expect_probe("\xf3\x0f\x1e\xfa\x55", 5, 4, true);
	/* sub $8,%rsp; mov X(%rip),%rcx; call: QEMU 7.2 */
	expect_probe("\x48\x83\xec\x08\x48\x8b\x0d\x6d\x57\xbb\x00\xe8\x00\xf5\xff\xff", 16, 11, true);
	/* ... into %rdi or %rsi: the arguments are gone */
	expect_probe("\x48\x8b\x3d\x6d\x57\xbb\x00\xe8\x00\xf5\xff\xff", 12, 0, false);
	expect_probe("\x48\x8b\x35\x6d\x57\xbb\x00\xe8\x00\xf5\xff\xff", 12, 0, false);
	expect_probe("\x89\xf8", 2, 0, false);
	expect_probe("", 0, 0, false);

	start_image(&im);
	l = image_locks(&im);
	assert_false(bp_qemu_locks_probe(l, false, &p));
	assert_false(bp_qemu_locks_probe(l, true, &p));
	bp_qemu_locks_destroy(l);
	add_function(&im, "other", push, 3, NULL, 0);
	add_function(&im, "bql_lock_impl", "\xf3\x0f\x1e\xfa\x55", 5, NULL, 0);
	add_function(&im, "qemu_mutex_lock_impl", "\x89\xf8\x90\x90\x90\x90\x90", 7, NULL, 0);
	l = image_locks(&im);
	assert_true(bp_qemu_locks_probe(l, false, &p));
	assert_string_equal(p.function, "bql_lock_impl");
	assert_int_equal(p.file_offset, TEXT_OFFSET + 4 + 4);
	assert_true(p.emulated && !p.any_mutex);
	assert_true(bp_qemu_locks_probe(l, true, &p));
	assert_int_equal(p.file_offset, TEXT_OFFSET + 4 + 6);
	assert_true(!p.emulated && p.any_mutex);
	bp_qemu_locks_destroy(l);
}

static void test_lea(void **state)
{
	/* lea 0x10(%rip),%rdi; add $8,%rsp; jmp +0; lea 0x10(%rip),%r9; 4 bytes of a cut one */
	static const uint8_t code[] = {0x48, 0x8d, 0x3d, 0x10, 0, 0,    0,    0x48, 0x83,
				       0xc4, 8,    0xe9, 0,    0, 0,    0,    0x4c, 0x8d,
				       0x0d, 0x10, 0,    0,    0, 0x48, 0x8d, 0x3d, 0x10};
	uint64_t ret[BP_LEA_MAX];

	(void)state;
	assert_int_equal(bp_lea_targets(code, sizeof(code), 0x1000, 0, UINT64_MAX, 0, ret), 2);
	assert_int_equal(ret[0], 0x1017);
	assert_int_equal(ret[1], 0x1027);
	assert_int_equal(bp_lea_targets(code, sizeof(code), 0x1000, 0x1018, 0x1028, 0, ret), 1);
	assert_int_equal(ret[0], 0x1027);
	assert_int_equal(bp_lea_targets(code, sizeof(code), 0x1000, 0, UINT64_MAX, 0x1010, ret), 1);
	assert_int_equal(ret[0], 0x1017);
	assert_int_equal(bp_lea_targets(code, sizeof(code), 0x1000, 0, UINT64_MAX, 0x1011, ret), 0);
	assert_int_equal(bp_lea_targets(code, 6, 0x1000, 0, UINT64_MAX, 0, ret), 0);
}

static void test_refused(void **state)
{
	struct image im;
	struct bp_qemu_locks *l = NULL;
	const char *maps = "555500000000-555500001000 r--p 00000000 fe:00 1 /opt/other\n"
			   "555500002000-555500003000 r-xp 00003000 fe:00 1 /opt/other\n";

	(void)state;
	start_image(&im);
	expect_err(open_image(&im, maps, &l), BP_EUNSUPPORTED, "not those of this binary");
	expect_err(open_image(&im, "", &l), BP_EUNSUPPORTED, "not those of this binary");
	expect_err(open_image(&im, "555500002000-555500003000 r-xp 0 0 0\n", &l), BP_EUNSUPPORTED,
		   "not those");
	expect_err(open_image(&im, "555500002000-555500003000 r-xp\n", &l), BP_EDATA, "offset 0");
	expect_err(open_image(&im, "1-2 r--p 0 0 0 /a\nboo", &l), BP_EDATA, "offset 18");
	expect_err(bp_qemu_locks_create("/nonexistent", NULL, maps, strlen(maps), NULL, &l), BP_EOS,
		   "/nonexistent");
	expect_err(bp_qemu_locks_create("/dev/null", NULL, maps, strlen(maps), NULL, &l), BP_EDATA, "ELF");
	expect_err(bp_qemu_locks_create("/dev/null", "/opt/none", maps, strlen(maps), NULL, &l),
		   BP_EUNSUPPORTED, "/opt/none is not among them");
	assert_null(l);
}

/* ---- this program, and the installed QEMU ---- */

static char *read_text(const char *path, size_t *len)
{
	FILE *f = fopen(path, "re");
	size_t cap = 1 << 20;
	char *text;

	if (!f)
		return NULL;
	text = malloc(cap);
	assert_non_null(text);
	*len = fread(text, 1, cap - 1, f);
	text[*len] = '\0';
	fclose(f);
	return text;
}

pthread_mutex_t bp_test_lock = PTHREAD_MUTEX_INITIALIZER;

static void *allocate(void *arg)
{
	*(void **)arg = malloc(100);
	return NULL;
}

/* A real linker's work; the C library's own arenas. */
static void test_self(void **state)
{
	struct bp_qemu_locks *l = NULL;
	struct bp_qemu_lock lock;
	bp_autofree char *maps = NULL;
	void *p = NULL;
	pthread_t t;
	size_t len = 0;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, allocate, &p), 0);
	pthread_join(t, NULL);
	maps = read_text("/proc/self/maps", &len);
	assert_non_null(maps);
	expect_ok(bp_qemu_locks_create("/proc/self/exe", NULL, maps, len, "", &l));
	expect_name(l, (uint64_t)(uintptr_t)&bp_test_lock, "bp_test_lock", "symbol table");
	expect_name(l, (uint64_t)(uintptr_t)&bp_test_lock + 4, "bp_test_lock+0x4", "symbol table");
	/* The sanitizers' malloc() has no arenas. */
	if (bp_qemu_locks_find(l, ((uint64_t)(uintptr_t)p & ~((64ull << 20) - 1)) + 0x30, &lock))
		assert_string_equal(lock.how, "malloc arena");
	bp_qemu_locks_destroy(l);
	free(p);
}

#define QEMU "/usr/bin/qemu-system-x86_64"
#define DEBIAN_BUILD_ID "\xd9\x54\x1f\xd6\x7c\x4e\xa3\x7f\x9c\xa7\xfc\xa0\xf5\x09\x6f\x32\xb3\xb7\xe7\xe0"
#define DEBIAN_BQL 0x118db40 /* as gdb finds it with the debug package installed */

/* Mappings as the kernel would make them. */
static size_t map_qemu(char *text, size_t cap, uint64_t bias, bool *is_debian)
{
	int fd = open(QEMU, O_RDONLY | O_CLOEXEC);
	static uint8_t head[65536];
	const Elf64_Ehdr *eh = (const void *)head;
	const Elf64_Phdr *ph = (const void *)(head + sizeof(*eh));
	size_t n = 0;

	*is_debian = false;
	if (fd < 0)
		return 0;
	assert_true(read(fd, head, sizeof(head)) > 4096);
	close(fd);
	*is_debian = memmem(head, 4096, DEBIAN_BUILD_ID, 20) != NULL;
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		uint64_t low = bias + (ph[i].p_vaddr & ~0xfffull);
		uint64_t high = (bias + ph[i].p_vaddr + ph[i].p_filesz + 0xfff) & ~0xfffull;

		if (ph[i].p_type != PT_LOAD)
			continue;
		n += (size_t)snprintf(text + n, cap - n, "%llx-%llx r%c%cp %08llx fe:00 7  " QEMU "\n",
				      (unsigned long long)low, (unsigned long long)high,
				      ph[i].p_flags & PF_W ? 'w' : '-', ph[i].p_flags & PF_X ? 'x' : '-',
				      (unsigned long long)(ph[i].p_offset & ~0xfffull));
	}
	return n;
}

static void test_qemu(void **state)
{
	struct bp_qemu_locks *l = NULL;
	struct bp_qemu_lock lock;
	struct bp_qemu_probe probe;
	const char *how;
	char maps[4096];
	bool is_debian;
	uint64_t bql;
	size_t len = map_qemu(maps, sizeof(maps), BIAS, &is_debian);

	(void)state;
	if (!len) {
		print_message(QEMU " is not installed\n");
		skip();
	}
	expect_ok(bp_qemu_locks_create(QEMU, NULL, maps, len, NULL, &l));
	bql = bp_qemu_locks_bql(l, &how);
	assert_int_not_equal(bql, 0);
	assert_true(bp_qemu_locks_find(l, bql, &lock));
	assert_true(lock.is_bql);
	assert_true(bp_qemu_locks_probe(l, false, &probe));
	assert_true(bp_qemu_locks_probe(l, true, &probe));
	assert_string_equal(probe.function, "qemu_mutex_lock_impl");
	if (is_debian) {
		assert_int_equal(bql, BIAS + DEBIAN_BQL);
		assert_string_equal(lock.name, "qemu_global_mutex");
		assert_int_equal(probe.file_offset, 0x96d4e0);
		assert_true(probe.emulated);
		/* From the same disassembly as the big lock's. */
		expect_name(l, BIAS + 0x11bf820, "rcu_registry_lock", "code of lock functions");
		expect_name(l, BIAS + 0x11bf7a8, "rcu_call_ready_event", "code of lock functions");
		expect_name(l, BIAS + 0x11bf7a0, "rcu_gp_event", "symbol table");
		expect_name(l, BIAS + DEBIAN_BQL - 0x530 + 8, NULL, NULL);
	}
	bp_qemu_locks_destroy(l);
}

/* Processes of which the address was found in another way (facts.json). */
static void test_corpus(void **state)
{
	static const struct {
		const char *dir;
		uint64_t bql;
	} known[] = {
	    {"tcg-blk-read", 0x55e9654ecb40},
	    {"tcg-blk-read-iothread", 0x558233d60b40},
	    {"kvm-pci", 0x55a7a91eab40},
	    {"tcg-blk-read-uprobe", 0x5622a1d35b40},
	};
	const char *env = getenv("BOOTPROF_CORPUS"), *corpus = env && *env ? env : "../shared/corpus";
	char text[4096];
	bool is_debian;

	(void)state;
	map_qemu(text, sizeof(text), 0, &is_debian);
	if (!is_debian) {
		print_message("the QEMU of the corpus is not the one installed\n");
		skip();
	}
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct bp_qemu_locks *l = NULL;
		bp_autofree char *maps = NULL;
		char path[512];
		const char *how;
		size_t len;

		snprintf(path, sizeof(path), "%s/futex/%s/maps.txt", corpus, known[i].dir);
		maps = read_text(path, &len);
		if (!maps) {
			print_message("%s is not there\n", path);
			skip();
		}
		expect_ok(bp_qemu_locks_create(QEMU, NULL, maps, len, NULL, &l));
		assert_int_equal(bp_qemu_locks_bql(l, &how), known[i].bql);
		bp_qemu_locks_destroy(l);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_code),  cmocka_unit_test(test_disagree), cmocka_unit_test(test_symbols),
	    cmocka_unit_test(test_probe), cmocka_unit_test(test_lea),      cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_self),  cmocka_unit_test(test_qemu),     cmocka_unit_test(test_corpus),
	};

	return cmocka_run_group_tests_name("qemu_locks", tests, NULL, NULL);
}
