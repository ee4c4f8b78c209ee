// SPDX-License-Identifier: GPL-2.0-or-later
/* Names for addresses of traces: lists of symbols, modules, and the slide that is found by what fits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "symbols/foreign.h"
#include "symbols/kimage.h"

static char dir[64], file[96], file2[96];

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void finds(struct bp_foreign *f, uint64_t addr, const char *name, const char *module, uint64_t start)
{
	const char *n, *m;
	uint64_t s;

	assert_true(bp_foreign_find(f, addr, &n, &m, &s));
	assert_string_equal(n, name);
	assert_string_equal(m, module);
	assert_int_equal(s, start);
	/* again, from the cache */
	assert_true(bp_foreign_find(f, addr, &n, &m, &s));
	assert_string_equal(n, name);
}

static void finds_none(struct bp_foreign *f, uint64_t addr)
{
	const char *n, *m;
	uint64_t s;

	assert_false(bp_foreign_find(f, addr, &n, &m, &s));
}

static const char kallsyms[] = "0000000000000000 A fixed_percpu_data\n"
			       "ffffffff9a000000 T _stext\n"
			       "ffffffff9a000000 T _text\n"
			       "ffffffff9a000000 T startup_64\n"
			       "ffffffff9a000100 W weak_one\n"
			       "ffffffff9a000100 T __strong\n"
			       "ffffffff9a000100 T strong\n"
			       "ffffffff9a0001f0 t __pfx_third\n"
			       "ffffffff9a000200 t third\n"
			       "ffffffff9a000300 T _etext\n"
			       "ffffffff9a400000 r rodata\n"
			       "ffffffff9b000000 T init_one\n"
			       "ffffffff9b000040 T _einittext\n"
			       "ffffffffc0300000 t vb_init\t[virtio_blk]\n"
			       "ffffffffc0300080 t vb_exit\t[virtio_blk]\n"
			       "ffffffffc0300100 d vb_data\t[virtio_blk]\n"
			       "ffffffffc0200000 t net_poll\t[virtio_net]\n"
			       "ffffffffc0400000 t last\t[zlast]\n";

static void test_kallsyms(void **state)
{
	struct bp_foreign_options o = {.kallsyms = file, .modules = file2, .slide_given = true};
	struct bp_foreign *f;

	(void)state;
	put(file, kallsyms);
	put(file2, "virtio_blk 20480 0 - Live 0xffffffffc0300000\n"
		   "loop 40960 0 [permanent], Live 0xffffffffc0500000 (OE)\n");
	ok(bp_foreign_create(&o, &f));
	assert_true(bp_foreign_has_names(f));
	assert_false(bp_foreign_has_code(f));
	finds(f, 0xffffffff9a000000, "startup_64", "vmlinux", 0xffffffff9a000000);
	finds(f, 0xffffffff9a0000ff, "startup_64", "vmlinux", 0xffffffff9a000000);
	finds(f, 0xffffffff9a000100, "strong", "vmlinux", 0xffffffff9a000100);
	finds(f, 0xffffffff9a0001f0, "strong", "vmlinux", 0xffffffff9a000100);
	finds(f, 0xffffffff9a000210, "third", "vmlinux", 0xffffffff9a000200);
	finds_none(f, 0xffffffff9a000300);
	finds_none(f, 0xffffffff9a400010);
	finds(f, 0xffffffff9b000010, "init_one", "vmlinux", 0xffffffff9b000000);
	finds_none(f, 0xffffffff9b000040);
	finds_none(f, 0xffffffff99ffffff);
	finds(f, 0xffffffffc0300085, "vb_exit", "virtio_blk", 0xffffffffc0300080);
	/* behind its last function, but in the module */
	finds(f, 0xffffffffc0300200, "[no symbol]", "virtio_blk", 0xffffffffc0300000);
	finds(f, 0xffffffffc0200050, "net_poll", "virtio_net", 0xffffffffc0200000);
	finds(f, 0xffffffffc0400050, "last", "zlast", 0xffffffffc0400000);
	finds(f, 0xffffffffc0500123, "[no symbol]", "loop", 0xffffffffc0500000);
	finds_none(f, 0xffffffffc0600000);
	finds_none(f, 0x401000);
	assert_int_equal(bp_foreign_misses(f)->low, 1);
	assert_int_equal(bp_foreign_misses(f)->modules, 1);
	bp_foreign_destroy(f);
}

static void refused(const char *kall, const char *mods, const char *why)
{
	struct bp_foreign_options o = {.kallsyms = kall ? file : NULL, .modules = mods ? file2 : NULL};
	struct bp_foreign *f;
	struct bp_err *err;

	if (kall)
		put(file, kall);
	if (mods)
		put(file2, mods);
	err = bp_foreign_create(&o, &f);
	assert_non_null(err);
	assert_int_equal(bp_err_code(err), BP_EDATA);
	if (!strstr(bp_err_text(err), why))
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_non_null(strstr(bp_err_text(err), why));
	bp_err_free(err);
}

static void test_refused(void **state)
{
	(void)state;
	refused("", NULL, "no symbols");
	refused("hello\n", NULL, "not a list");
	refused("0000000000000000 T a\n0000000000000000 T b\n", NULL, "kptr_restrict");
	refused("ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n", NULL,
		"one symbol");
	refused(NULL, "hello\n", "modules");
	refused(NULL, "loop 4096 0 - Live 0x0000000000000000\n", "kptr_restrict");
}

/* Lists cut and bent anywhere: no crash, and no look-up outside. */
static void test_hostile(void **state)
{
	char text[sizeof(kallsyms)];
	uint64_t r = 88172645463325252ull;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		struct bp_foreign_options o = {.kallsyms = file, .slide_given = true};
		struct bp_foreign *f = NULL;
		struct bp_err *err;
		size_t at;

		r ^= r << 13;
		r ^= r >> 7;
		r ^= r << 17;
		memcpy(text, kallsyms, sizeof(text));
		at = r % (sizeof(text) - 1);
		if (i % 2)
			text[at] ^= (char)(1u << (r >> 32) % 8);
		else
			text[at] = '\0';
		put(file, text);
		err = bp_foreign_create(&o, &f);
		if (!err) {
			const char *n, *m;
			uint64_t s;

			for (uint64_t a = 0xffffffff99ffff00; a < 0xffffffff9a000400; a += 0x10)
				bp_foreign_find(f, a, &n, &m, &s);
			bp_foreign_find(f, UINT64_MAX, &n, &m, &s);
			bp_foreign_sample(f, &(uint64_t){0xffffffff9a000100}, 1);
			bp_foreign_settle(f, NULL);
		}
		bp_err_ignore(err);
		bp_foreign_destroy(f);
	}
}

/* A kernel of made-up functions at 2000 places, and blocks in it. */
static void make_kernel(void)
{
	FILE *f = fopen(file, "w");
	uint64_t addr = 0xffffffff81000000, r = 1;

	for (int i = 0; i < 2000; i++) {
		fprintf(f, "%016lx T f%d\n", (unsigned long)addr, i);
		r = r * 6364136223846793005ull + 1442695040888963407ull;
		addr += 16 + (r >> 33) % 200 * 16;
	}
	fclose(f);
}

static void add_blocks(uint64_t *addrs, size_t n, uint64_t slide)
{
	FILE *f = fopen(file, "r");
	unsigned long addr;
	size_t k = 0;

	while (k + 4 <= n && fscanf(f, "%lx T f%*d\n", &addr) == 1) {
		addrs[k++] = addr + slide;
		addrs[k++] = addr + slide + 5;
		addrs[k++] = addr + slide + 16;
		addrs[k++] = addr + slide + 0x2b;
	}
	fclose(f);
}

static void test_slide(void **state)
{
	static const uint64_t slides[] = {0, 0x200000, 0x1e000000, 0x3e000000};
	struct bp_foreign_options o = {.kallsyms = file};
	uint64_t addrs[400], got;

	(void)state;
	make_kernel();
	for (size_t i = 0; i < sizeof(slides) / sizeof(*slides); i++) {
		struct bp_foreign_fit fit;
		struct bp_foreign *f;

		ok(bp_foreign_create(&o, &f));
		bp_foreign_settle(f, &fit);
		assert_false(fit.known);
		finds_none(f, 0xffffffff81000000);
		add_blocks(addrs, 400, slides[i]);
		bp_foreign_sample(f, addrs, 400);
		bp_foreign_sample(f, addrs, 400);
		bp_foreign_settle(f, &fit);
		assert_true(fit.known && fit.sure);
		assert_int_equal(fit.slide, slides[i]);
		assert_true(fit.sample <= 400 && fit.on_start >= 100);
		assert_true(fit.second_on_start * 3 < fit.on_start);
		assert_true(bp_foreign_slide(f, &got));
		assert_int_equal(got, slides[i]);
		finds(f, 0xffffffff81000003 + slides[i], "f0", "vmlinux", 0xffffffff81000000 + slides[i]);
		bp_foreign_destroy(f);
	}
}

/* No sample at first, as from a pipe: it is found while names are asked for. */
static void test_learn(void **state)
{
	struct bp_foreign_options o = {.kallsyms = file};
	uint64_t addrs[400], got, start;
	struct bp_foreign *f;
	const char *n, *m;

	(void)state;
	make_kernel();
	ok(bp_foreign_create(&o, &f));
	add_blocks(addrs, 400, 0x5200000);
	for (size_t i = 0; i < 100; i++)
		bp_foreign_find(f, addrs[i], &n, &m, &start);
	assert_true(bp_foreign_slide(f, &got));
	assert_int_equal(got, 0x5200000);
	assert_true(bp_foreign_misses(f)->early > 0 && bp_foreign_misses(f)->early < 60);
	bp_foreign_destroy(f);
}

/* Another kernel: nothing fits, and no names are made up. */
static void test_wrong_kernel(void **state)
{
	struct bp_foreign_options o = {.kallsyms = file};
	struct bp_foreign_fit fit;
	struct bp_foreign *f;
	uint64_t r = 5, addr;

	(void)state;
	make_kernel();
	ok(bp_foreign_create(&o, &f));
	for (int i = 0; i < 6000; i++) {
		r = r * 6364136223846793005ull + 1442695040888963407ull;
		addr = 0xffffffff90000000 + (r >> 33) % 0x300000;
		bp_foreign_sample(f, &addr, 1);
	}
	bp_foreign_settle(f, &fit);
	assert_false(fit.known || fit.sure);
	assert_int_equal(fit.sample, BP_FOREIGN_SAMPLE);
	finds_none(f, 0xffffffff90000000);
	bp_foreign_destroy(f);

	/* A slide that was given is kept, and known not to fit. */
	o.slide_given = true;
	o.slide = 0x400000;
	ok(bp_foreign_create(&o, &f));
	bp_foreign_sample(f, &addr, 1);
	bp_foreign_settle(f, &fit);
	assert_true(fit.known && !fit.sure);
	finds(f, 0xffffffff81400000, "f0", "vmlinux", 0xffffffff81400000);
	bp_foreign_destroy(f);
}

static void test_image(void **state)
{
	const char *path = getenv("BOOTPROF_TEST_KERNEL");
	struct bp_foreign_options o = {.vmlinux = path};
	const uint64_t slide = 0x12600000;
	struct bp_foreign_fit fit;
	const struct bp_ksym *s;
	struct bp_kimage *image;
	struct bp_foreign *f;
	uint8_t code[8], linked[8];
	size_t n;

	(void)state;
	if (!path) {
		print_message("BOOTPROF_TEST_KERNEL is not set\n");
		skip();
	}
	ok(bp_foreign_create(&o, &f));
	ok(bp_kimage_open(path, &image));
	s = bp_kimage_syms(image, &n);
	for (size_t i = 0; i < n; i += 1 + n / 2000) {
		const struct bp_ksym *at = bp_kimage_find(image, s[i].addr);

		for (uint64_t k = 0; at && k < 4; k++)
			bp_foreign_sample(f, &(uint64_t){at->addr + slide + k * 7}, 1);
	}
	bp_foreign_settle(f, &fit);
	assert_true(fit.known && fit.sure);
	assert_int_equal(fit.slide, slide);
	/* every function is found under the name that the image gives it */
	for (size_t i = 0; i < n; i++) {
		const struct bp_ksym *at = bp_kimage_find(image, s[i].addr);

		if (at)
			finds(f, s[i].addr + slide, at->name, "vmlinux", at->addr + slide);
	}
	s = bp_kimage_lookup(image, "schedule");
	assert_non_null(s);
	assert_true(bp_foreign_has_code(f));
	assert_true(bp_foreign_code(f, s->addr + slide, code, sizeof(code)));
	assert_true(bp_kimage_read(image, s->addr, linked, sizeof(linked)));
	assert_memory_equal(code, linked, sizeof(code));
	assert_string_equal(bp_foreign_release(f), bp_kimage_release(image));
	bp_kimage_destroy(image);
	bp_foreign_destroy(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_kallsyms), cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_hostile),  cmocka_unit_test(test_slide),
	    cmocka_unit_test(test_learn),    cmocka_unit_test(test_wrong_kernel),
	    cmocka_unit_test(test_image),
	};
	int failed;

	snprintf(dir, sizeof(dir), "%s/bootprof-foreign.XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof(file), "%s/k", dir);
	snprintf(file2, sizeof(file2), "%s/m", dir);
	failed = cmocka_run_group_tests_name("foreign", tests, NULL, NULL);
	unlink(file);
	unlink(file2);
	rmdir(dir);
	return failed;
}
