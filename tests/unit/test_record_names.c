// SPDX-License-Identifier: GPL-2.0-or-later
/* What the recorder tells the plugin about a kernel, and the names it gives the engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "collectors/tcg/record_names.h"

static struct bp_ring_shm *shm;
static const char *marks[BP_MAX_HOOKS];
static unsigned warnings;

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static void fails(struct bp_err *err, enum bp_err_code code, const char *text)
{
	assert_non_null(err);
	if (bp_err_code(err) != code || !strstr(bp_err_text(err), text))
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_int_equal(bp_err_code(err), code);
	assert_non_null(strstr(bp_err_text(err), text));
	bp_err_free(err);
}

static void warn(const char *line)
{
	assert_true(line[0]);
	warnings++;
}

static int setup(void **state)
{
	(void)state;
	warnings = 0;
	memset(marks, 0, sizeof(marks));
	shm = mmap(NULL, bp_shm_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		   0);
	return shm == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	return munmap(shm, bp_shm_bytes());
}

/* As before the first prepare. */
static void forget(void)
{
	shm->n_hooks = 0;
	memset(marks, 0, sizeof(marks));
}

static struct bp_record_names *names_of(const char *kernel)
{
	const struct bp_qemu_args args = {.ram_bytes = 512 << 20, .smp = 1, .kernel = kernel};
	struct bp_record_names *n = NULL;

	ok(bp_record_names_create(kernel, NULL, NULL, &args, warn, &n));
	return n;
}

/* Without a kernel image everything goes on nameless, but for what needs a name. */
static void test_no_kernel(void **state)
{
	struct bp_record_names *n = names_of(NULL);
	const struct bp_names *names = bp_record_names_get(n);
	const char *name = "untouched", *mark = NULL;
	uint64_t start = 7;
	int hook = 0;

	(void)state;
	ok(bp_record_names_prepare(n, shm, marks, NULL, &hook));
	assert_int_equal(hook, -1);
	assert_int_equal(shm->n_hooks, 0);
	assert_int_equal(shm->text_bytes, 0);
	assert_int_equal(shm->layout.task_pid, -1);
	assert_false(names->kernel(names->self, 0xffffffff81000000ull, &name, &start));
	assert_string_equal(name, "untouched");
	assert_int_equal(start, 7);
	assert_int_equal(names->initcall_level(names->self, 0xffffffff81000000ull, &name), -1);
	assert_false(names->user(names->self, "/bin/sh", 0x1000, &name, &start));
	names->region(names->self, 0xf1000, &name, &mark);
	assert_string_equal(mark, "firmware");
	fails(bp_record_names_prepare(n, shm, marks, "start_kernel", &hook), BP_EUSAGE, "--kernel-image");
	bp_record_names_destroy(n);
	bp_record_names_destroy(NULL);
}

static void test_bad_files(void **state)
{
	const struct bp_qemu_args args = {.ram_bytes = 512 << 20, .smp = 1, .initrd = "tests/no-such-initrd"};
	struct bp_record_names *n = NULL;

	(void)state;
	fails(bp_record_names_create("tests/no-such-kernel", NULL, NULL, &args, warn, &n), BP_EOS, "no-such-kernel");
	assert_null(n);
	/* An initrd is for names only: it can do without. */
	ok(bp_record_names_create(NULL, NULL, NULL, &args, warn, &n));
	assert_int_equal(warnings, 1);
	bp_record_names_destroy(n);
}

static bool starts(uint64_t addr)
{
	const uint8_t *bitmap = (const uint8_t *)shm + bp_shm_bitmap_offset();
	uint64_t at = addr - shm->text_base;

	return at < shm->text_bytes && bitmap[at / 8] >> (at & 7) & 1;
}

static void test_kernel(void **state)
{
	const char *kernel = getenv("BOOTPROF_TEST_KERNEL"), *name = NULL;
	const struct bp_names *names;
	struct bp_record_names *n;
	unsigned kinds = 0;
	uint64_t start;
	int hook;

	(void)state;
	if (!kernel) {
		print_message("# skip: BOOTPROF_TEST_KERNEL is not set\n");
		skip();
	}
	n = names_of(kernel);
	names = bp_record_names_get(n);
	ok(bp_record_names_prepare(n, shm, marks, NULL, &hook));
	assert_int_equal(hook, -1);
	assert_true(shm->text_bytes > 1 << 20 && shm->text_bytes <= BP_MAX_TEXT_BYTES);
	assert_true(shm->probe_bytes > 0);
	assert_true(shm->n_hooks > 0 && shm->n_hooks < BP_MAX_HOOKS);
	for (uint64_t i = 0; i < shm->n_hooks; i++) {
		const struct bp_hook *h = &shm->hooks[i];

		kinds |= 1u << h->kind;
		/* The plugin looks at hooks where functions start, and only there. */
		assert_true(starts(h->addr));
		assert_true(names->kernel(names->self, h->addr, &name, &start));
		assert_int_equal(start, h->addr);
		assert_true((marks[i] != NULL) == (h->kind == BP_HOOK_MARK));
	}
	for (unsigned k = BP_HOOK_SWITCH; k <= BP_HOOK_EXIT; k++)
		assert_true(kinds & 1u << k);
	assert_true(shm->layout.task_pid >= 0 && shm->layout.task_comm >= 0 && shm->layout.task_mm >= 0);
	assert_true(shm->layout.mod_base >= 0 && shm->layout.mod_kallsyms >= 0 && shm->layout.vma_file >= 0);
	/* An address inside of a function has its name and start. */
	assert_true(names->kernel(names->self, shm->hooks[0].addr + 1, &name, &start));
	assert_int_equal(start, shm->hooks[0].addr);
	assert_false(names->kernel(names->self, shm->text_base - (1ull << 30), &name, &start));
	bp_record_names_destroy(n);
}

static void test_until_function(void **state)
{
	const char *kernel = getenv("BOOTPROF_TEST_KERNEL"), *name = NULL;
	const struct bp_names *names;
	struct bp_record_names *n;
	uint64_t start, n_hooks;
	int hook;

	(void)state;
	if (!kernel) {
		print_message("# skip: BOOTPROF_TEST_KERNEL is not set\n");
		skip();
	}
	n = names_of(kernel);
	names = bp_record_names_get(n);
	fails(bp_record_names_prepare(n, shm, marks, "no_such_function_here", &hook), BP_EUSAGE,
	      "no_such_function_here");
	forget();
	ok(bp_record_names_prepare(n, shm, marks, NULL, &hook));
	n_hooks = shm->n_hooks;
	/* One that is looked at anyway. */
	forget();
	ok(bp_record_names_prepare(n, shm, marks, "panic", &hook));
	assert_int_equal(shm->n_hooks, n_hooks);
	assert_in_range(hook, 0, n_hooks - 1);
	assert_string_equal(marks[hook], "panic");
	/* One that is not, and one that something else is read at: both come first. */
	for (int i = 0; i < 2; i++) {
		forget();
		ok(bp_record_names_prepare(n, shm, marks, i ? "do_exit" : "kernel_init", &hook));
		assert_int_equal(shm->n_hooks, n_hooks + 1);
		assert_int_equal(hook, 0);
		assert_int_equal(shm->hooks[0].kind, BP_HOOK_MARK);
		assert_null(marks[0]);
		assert_true(names->kernel(names->self, shm->hooks[0].addr, &name, &start));
		assert_string_equal(name, i ? "do_exit" : "kernel_init");
		/* The marks of the others moved with them. */
		for (uint64_t k = 1; k < shm->n_hooks; k++)
			assert_true((marks[k] != NULL) == (shm->hooks[k].kind == BP_HOOK_MARK));
	}
	bp_record_names_destroy(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_no_kernel, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_kernel, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_until_function, setup, teardown),
	};

	return cmocka_run_group_tests_name("record_names", tests, NULL, NULL);
}
