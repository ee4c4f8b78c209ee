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

/* Names of the threads, which do not change in these captures. */
static const char *comm_of(const struct bp_trace *t, uint32_t tid)
{
	size_t n;
	const struct bp_fact *f = bp_trace_facts(t, &n);

	for (size_t i = 0; i < n; i++) {
		if (f[i].kind == BP_FACT_THREAD && f[i].v[0] == tid)
			return f[i].s1;
	}
	return "";
}

struct sample {
	const char *comm;
	enum bp_stack_kind kind;
	struct bp_wait rec;
};

/* The totals of perf's samples took functions of user space of these names for the kernel's. */
static bool user_futex(const struct bp_trace *t, uint32_t stack)
{
	size_t n;
	const uint32_t *ids = bp_trace_host_stack(t, stack, &n);

	for (size_t i = 0; i < n; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, ids[i]);

		if (f && !strncmp(f->name, "futex_", 6))
			return true;
	}
	return false;
}

/* Records that have a stack. Owned by the caller. */
static struct sample *samples(const struct bp_trace *t, size_t *n)
{
	struct sample *s = calloc(bp_trace_n_wait_records(t) + 1, sizeof(*s));
	struct bp_wait_decoder *d;
	struct bp_off_rules *rules;

	assert_non_null(s);
	*n = 0;
	ok(bp_wait_decoder_create(&d));
	ok(bp_off_rules_create(t, &rules));
	for (size_t i = 0; i < bp_trace_n_waits(t); i++) {
		const struct bp_wait *recs;
		size_t len;

		ok(bp_wait_decoder_read(d, t, i, &recs, &len));
		for (size_t k = 0; k < len; k++) {
			if (recs[k].kstack && user_futex(t, recs[k].ustack))
				s[(*n)++] =
				    (struct sample){comm_of(t, recs[k].thread), BP_STACK_FUTEX, recs[k]};
			else if (recs[k].kstack || recs[k].kind == BP_WAIT_SAMPLE)
				s[(*n)++] = (struct sample){comm_of(t, recs[k].thread),
							    bp_stack_kind(rules, recs[k].kstack), recs[k]};
		}
	}
	bp_wait_decoder_destroy(d);
	bp_off_rules_destroy(rules);
	return s;
}

static void test_perf(void **state)
{
	unsigned files = 0;

	(void)state;
	if (!facts_json)
		skip();
	for (const struct json *e = facts_json->child; e; e = e->next) {
		const struct json *classes = json_get(e, "class_by_comm");
		struct bp_trace *t;
		struct sample *s;
		size_t n;

		if (!classes)
			continue;
		current = e->key;
		files++;
		t = import(e->key);
		s = samples(t, &n);
		check("samples", (double)n, json_number(e, "samples"), 0);
		for (const struct json *c = classes->child; c; c = c->next) {
			const char *colon = strstr(c->key, ": ");
			unsigned have = 0;

			assert_non_null(colon);
			for (size_t i = 0; i < n; i++)
				have += !strcmp(kinds[s[i].kind], colon + 2) &&
					strlen(s[i].comm) == (size_t)(colon - c->key) &&
					!memcmp(s[i].comm, c->key, (size_t)(colon - c->key));
			check(c->key, have, c->number, 0);
		}
		free(s);
		bp_trace_destroy(t);
	}
	assert_int_equal(files, 4);
	assert_int_equal(wrong, 0);
}

static unsigned count(struct sample *s, size_t n, const char *comm, enum bp_stack_kind kind)
{
	unsigned have = 0;

	for (size_t i = 0; i < n; i++)
		have += s[i].kind == kind && (!comm || !strcmp(s[i].comm, comm));
	return have;
}

static void test_dmesg(void **state)
{
	const struct json *e, *by;
	struct bp_trace *t;
	struct sample *s;
	size_t n;

	(void)state;
	if (!facts_json)
		skip();
	current = "futex/dmesg/synthetic-printk.txt";
	e = json_get(facts_json, current);
	t = import(current);
	s = samples(t, &n);
	check("stacks", (double)n, json_number(e, "stacks"), 0);
	check("futex", count(s, n, NULL, BP_STACK_FUTEX), json_number(e, "futex"), 0);
	check("time slices", count(s, n, NULL, BP_STACK_KVM_RUN), json_number(e, "timeslice"), 0);
	by = json_get(e, "by_thread");
	assert_non_null(by);
	for (by = by->child; by; by = by->next) {
		char comm[16];

		snprintf(comm, sizeof(comm), "%.9s", by->key);
		check(by->key,
		      count(s, n, comm, strstr(by->key, "futex") ? BP_STACK_FUTEX : BP_STACK_KVM_RUN),
		      by->number, 0);
	}
	free(s);
	bp_trace_destroy(t);

	/* As their author said: the first had used its time slice, the second waited for the lock. */
	current = "futex/dmesg/published-stacks.txt";
	t = import(current);
	s = samples(t, &n);
	check("stacks", (double)n, 2, 0);
	if (n == 2) {
		struct bp_off_facts f = {0};
		struct bp_off_rules *rules;

		ok(bp_off_rules_create(t, &rules));
		f.kstack = s[0].rec.kstack;
		check("time slice", bp_off_classify(rules, &f).cls, BP_OFF_PREEMPTED, 0);
		f.kstack = s[1].rec.kstack;
		check("contention", bp_off_classify(rules, &f).cls, BP_OFF_LOCK, 0);
		bp_off_rules_destroy(rules);
	}
	free(s);
	bp_trace_destroy(t);

	current = "futex/dmesg/guest-sysrq-t.txt";
	e = json_get(facts_json, current);
	t = import(current);
	s = samples(t, &n);
	/* All but the one that runs. */
	check("tasks", (double)n, json_number(e, "tasks") - 1, 0);
	check("in futex", count(s, n, NULL, BP_STACK_FUTEX), json_number(e, "tasks_in_futex_wait"), 0);
	free(s);
	bp_trace_destroy(t);
	assert_int_equal(wrong, 0);
}

/* Samples of /proc: who was in a futex call on the big lock. */
static void test_proc(void **state)
{
	unsigned files = 0;

	(void)state;
	if (!facts_json)
		skip();
	for (const struct json *e = facts_json->child; e; e = e->next) {
		const struct json *in = json_get(e, "in_futex_on_bql"), *addr = json_get(e, "bql_uaddr");
		struct bp_trace *t;
		struct sample *s;
		size_t n;

		if (!in || !addr)
			continue;
		current = e->key;
		files++;
		t = import(e->key);
		s = samples(t, &n);
		for (const struct json *c = in->child; c; c = c->next) {
			unsigned have = 0;

			for (size_t i = 0; i < n; i++) {
				char key[64];

				snprintf(key, sizeof(key), "%s-%u", s[i].comm, s[i].rec.thread);
				have +=
				    !strcmp(key, c->key) && s[i].rec.addr == strtoull(addr->text, NULL, 16);
			}
			check(c->key, have, c->number, 0);
		}
		free(s);
		bp_trace_destroy(t);
	}
	assert_int_equal(files, 3);
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
	    cmocka_unit_test(test_perf),
	    cmocka_unit_test(test_dmesg),
	    cmocka_unit_test(test_proc),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
