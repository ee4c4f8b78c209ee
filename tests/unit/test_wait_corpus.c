// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Waits of every capture in the corpus against totals that were counted by other means: switches of each
 * thread, what their kernel stacks say, and the futex waits for QEMU's big lock.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "analyzers/waits.h"
#include "cmd/import.h"
#include "core/cleanup.h"
#include "tests/unit/json.h"

static const char *corpus;
static struct json *facts_json;
static unsigned wrong;
static const char *current;

static void ok(struct bp_err *err)
{
	if (err)
		print_message("unexpected: %s\n", bp_err_text(err));
	assert_null(err);
}

static void check(const char *what, double have, double want, double tolerance)
{
	if (fabs(have - want) <= tolerance)
		return;
	print_error("%s: %s is %.6f, not %.6f\n", current, what, have, want);
	wrong++;
}

static const char *const kinds[] = {
    [BP_STACK_NONE] = "none",
    [BP_STACK_FUTEX] = "futex",
    [BP_STACK_KVM_HALT] = "kvm_halt",
    [BP_STACK_KVM_RUN] = "kvm_run_preempt",
    [BP_STACK_POLL] = "poll",
    [BP_STACK_IRQ] = "irq_preempt",
    [BP_STACK_EXIT] = "syscall_exit_preempt",
    [BP_STACK_OTHER] = "other",
};

struct bql {
	uint64_t addr;
	struct {
		uint64_t n, ns;
	} of[4096];
};

static void on_futex(void *ctx, const struct bp_waits *w, const struct bp_futex_wait *f)
{
	struct bql *b = ctx;

	(void)w;
	if (f->addr != b->addr || f->open || f->op & 0x7f || f->thread >= 4096)
		return;
	b->of[f->thread].n++;
	b->of[f->thread].ns += f->exit_ns - f->enter_ns;
}

/* The idle threads of all CPUs are one here. */
static bool is_comm(const struct bp_wait_thread *t, const char *comm, size_t len)
{
	if (!t->tid)
		return !strncmp(comm, "swapper/", 8);
	return strlen(t->comm) == len && !memcmp(t->comm, comm, len);
}

static double switches(const struct bp_waits *w, const char *comm, size_t len)
{
	uint64_t n = 0;

	for (size_t i = 0; i < w->n_threads; i++)
		n += is_comm(&w->threads[i], comm, len) ? w->threads[i].switches : 0;
	return (double)n;
}

static double total(const struct json *j, const char *prefix)
{
	double n = 0;

	for (j = j ? j->child : NULL; j; j = j->next)
		n += !strncmp(j->key, prefix, strlen(prefix)) ? j->number : 0;
	return n;
}

static void check_stacks(const struct bp_waits *w, const struct json *want)
{
	double have = 0, all = 0, with = 0;

	for (const struct json *c = want ? want->child : NULL; c; c = c->next) {
		const char *colon = strstr(c->key, ": ");
		uint64_t n = 0;

		assert_non_null(colon);
		all += c->number;
		if (!strncmp(c->key, "swapper/", 8))
			continue;
		for (size_t i = 0; i < w->n_threads; i++) {
			for (unsigned k = BP_STACK_FUTEX; k <= BP_STACK_OTHER; k++) {
				if (!strcmp(kinds[k], colon + 2) &&
				    is_comm(&w->threads[i], c->key, (size_t)(colon - c->key)))
					n += w->threads[i].stacks[k];
			}
		}
		check(c->key, (double)n, c->number, 0);
		have += (double)n;
	}
	for (size_t i = 0; i < w->n_threads; i++) {
		for (unsigned k = BP_STACK_FUTEX; k <= BP_STACK_OTHER; k++)
			with += (double)w->threads[i].stacks[k];
	}
	check("switches with a stack", with, all, 0);
	check("of those not idle", have, all - total(want, "swapper/"), 0);
}

static struct bp_trace *import(const char *name)
{
	struct bp_import_options o = {0};
	struct bp_trace *t;
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", corpus, name);
	if (access(path, R_OK))
		snprintf(path, sizeof(path), "%s/%s.zst", corpus, name);
	ok(bp_import_open(path, &o, &t));
	return t;
}

static void test_ftrace(void **state)
{
	static const struct bp_waits_ops ops = {.on_futex = on_futex};
	static struct bql bql;
	unsigned files = 0;

	(void)state;
	if (!facts_json) {
		print_message("# SKIP no corpus at %s\n", corpus);
		skip();
	}
	for (const struct json *e = facts_json->child; e; e = e->next) {
		const struct json *by_comm = json_get(e, "switches_out_by_prev_comm");
		const struct json *waits = json_get(e, "bql_waits"), *addr = json_get(e, "bql_uaddr");
		struct bp_waits *w;
		struct bp_trace *t;
		double n = 0, ns = 0;

		if (!by_comm)
			continue;
		current = e->key;
		files++;
		memset(&bql, 0, sizeof(bql));
		bql.addr = addr ? strtoull(addr->text, NULL, 16) : 0;
		t = import(e->key);
		ok(bp_waits_run(t, 0, 0, &ops, &bql, &w));
		for (const struct json *c = by_comm->child; c; c = c->next) {
			if (strncmp(c->key, "swapper/", 8) != 0)
				check(c->key, switches(w, c->key, strlen(c->key)), c->number, 0);
		}
		check("idle", switches(w, "swapper/", 8), total(by_comm, "swapper/"), 0);
		check_stacks(w, json_get(e, "stack_class_by_thread"));
		for (const struct json *c = waits ? waits->child : NULL; c; c = c->next) {
			for (size_t i = 0; i < w->n_threads; i++) {
				char key[64];

				snprintf(key, sizeof(key), "%s-%u", w->threads[i].comm, w->threads[i].tid);
				if (strcmp(key, c->key) != 0)
					continue;
				check(c->key, (double)bql.of[i].n, json_number(c, "n"), 0);
				check(c->key, (double)bql.of[i].ns / 1e9, json_number(c, "seconds"), 1.1e-6);
				n += (double)bql.of[i].n;
				ns += (double)bql.of[i].ns;
			}
		}
		if (waits) {
			const struct json *all = json_get(e, "bql_waits_total");

			check("waits for the big lock", n, json_number(all, "n"), 0);
			check("their time", ns / 1e9, json_number(all, "seconds"), 1.1e-6);
		}
		bp_waits_destroy(w);
		bp_trace_destroy(t);
	}
	assert_int_equal(files, 5);
	assert_int_equal(wrong, 0);
}

static int setup(void **state)
{
	const char *env = getenv("BOOTPROF_CORPUS");
	char path[512];

	(void)state;
	corpus = env && *env ? env : "../shared/corpus";
	snprintf(path, sizeof(path), "%s/facts.json", corpus);
	facts_json = json_load(path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	json_free(facts_json);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ftrace),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
