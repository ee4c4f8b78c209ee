// SPDX-License-Identifier: GPL-2.0-or-later
/* Kernel modules: where functions are loaded, and files that are cut at any byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "symbols/modfile.h"

/* Two functions in .text, one in .init.text and one in .text.unlikely. */
#define SMALL "tests/fuzz/corpus/modfile/small.ko"

static const struct bp_modfile_sym *find(const struct bp_modfile *m, const char *name)
{
	for (size_t i = 0; i < m->n_syms; i++)
		if (!strcmp(m->syms[i].name, name))
			return &m->syms[i];
	return NULL;
}

static void test_small(void **state)
{
	struct bp_modfile m;

	(void)state;
	assert_null(bp_modfile_read(SMALL, &m));
	assert_string_equal(m.release, "6.1.0-test");
	assert_non_null(find(&m, "one"));
	assert_int_equal(find(&m, "one")->type, 'T');
	assert_int_equal(find(&m, "two")->type, 't');
	assert_int_equal(find(&m, "three")->type, 'W');
	/* Sections with code follow each other. */
	assert_true(find(&m, "three")->offset > find(&m, "one")->offset);
	assert_true(find(&m, "three")->offset < m.text_bytes);
	/* What is loaded elsewhere is not there. */
	assert_null(find(&m, "start"));
	bp_modfile_deinit(&m);
}

static void test_cut(void **state)
{
	uint8_t all[8192];
	FILE *f = fopen(SMALL, "re");
	size_t len;

	(void)state;
	assert_non_null(f);
	len = fread(all, 1, sizeof(all), f);
	fclose(f);
	for (size_t n = 0; n < len; n++) {
		uint8_t *copy = malloc(n ? n : 1);
		struct bp_modfile m;
		struct bp_err *err;

		memcpy(copy, all, n);
		/* The section table is at the end: nothing is left without it. */
		err = bp_modfile_parse("cut", copy, n, &m);
		assert_non_null(err);
		assert_int_equal(bp_err_code(err), BP_EDATA);
		assert_non_null(strstr(bp_err_text(err), "cut: offset "));
		bp_err_free(err);
		bp_modfile_deinit(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_small),
	    cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests_name("modfile", tests, NULL, NULL);
}
