/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The summary of one boot: what is compared with another boot. Made from a recording, or read from a
 * baseline file that was written from one. Functions are known by name, not by address, so that boots with
 * other slides and other kernels compare.
 *
 * Strings are the guest's words, untrusted, and owned by the summary. Times in ns, instructions of all vCPUs.
 */
#ifndef BP_ANALYZERS_SUMMARY_H
#define BP_ANALYZERS_SUMMARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analyzers/query.h"
#include "core/err.h"
#include "core/trace.h"

#define BP_SUM_NONE UINT32_MAX

/* Functions of one space, module and name; static functions of the same name count together. */
struct bp_sum_func {
	const char
	    *name; /* code without a symbol: "0x..." where that is the same in each boot, or "[unknown]" */
	const char *module;
	uint8_t space; /* enum bp_space */
	uint64_t calls;
	int64_t self_ns, self_insns; /* as in functions.h; may be negative with folded calls */
	int64_t total_ns, total_insns;
	uint32_t order;    /* of its first call among all functions, from 1; 0: no entry was seen */
	uint32_t phase;    /* of its first call, BP_SUM_NONE unknown */
	uint32_t caller;   /* of its first call: index of a function, BP_SUM_NONE: none */
	uint64_t first_ns; /* host time of its first call */
	int64_t floor;     /* how far harmless changes move self_insns; see floor_runs */
};

/* One call path. Parents come before their children; [0] is the root, without a function. */
struct bp_sum_node {
	uint32_t parent, func;
	uint64_t calls;
	int64_t self_ns, self_insns;
	int64_t rest_ns, rest_insns; /* all of what it calls on paths that were left out (pruned) */
};

struct bp_sum_phase {
	const char *name; /* parts of one name are one phase */
	uint64_t ns, insns, halted_ns;
	int64_t floor;
};

struct bp_sum_module {
	const char *name;
	uint64_t loads;
	uint32_t phase; /* of its first load */
	uint64_t init_ns, init_insns;
};

struct bp_sum_initcall {
	uint32_t func;
	const char *level;
	uint64_t ns, insns;
};

struct bp_sum_syscall {
	const char *name;
	uint64_t calls;
	int64_t ns, insns; /* on a vCPU */
	int64_t wall_ns;
};

/* One boot of a series, for the statistical judge. */
struct bp_sum_run {
	uint64_t start;     /* when it began, seconds since 1970; 0 not known */
	uint64_t ns, insns; /* of the whole boot */
	uint64_t *phase_ns; /* by phase of the summary */
};

/* A file that QEMU was given. */
struct bp_sum_input {
	const char *path;
	uint64_t bytes;
	uint32_t crc; /* CRC-32C */
};

struct bp_summary {
	const char *path; /* of the file it was made from */
	bool baseline;    /* read from a baseline file */
	/* the machine; "" not known */
	const char *kernel, *build_id, *qemu, *machine, *accel, *cpu, *memory, *append;
	unsigned smp;                /* 0 not known */
	char **argv;                 /* QEMU's command line, NULL-terminated; NULL not known */
	struct bp_sum_input *inputs; /* kernel and initrd, when they could be read */
	size_t n_inputs;
	bool deterministic;
	bool imported;     /* a foreign trace: no instructions but those that its clock counts */
	const char *ended; /* "poweroff", "marker" ...; "" not known */
	uint64_t lost;     /* events */
	bool damaged;      /* parts of the recording are missing */
	bool filtered;     /* a query with filters was applied */
	uint64_t start;    /* seconds since 1970, 0 not known */

	uint64_t ns, insns; /* of the boot: to the ready marker, or to the end */
	uint64_t kernel_ns,
	    kernel_insns;            /* from the kernel's first instruction on; all, when it is not known */
	int64_t self_ns, self_insns; /* sums of functions: what vCPUs are known to have run or halted */
	uint64_t calls;

	struct bp_sum_func *funcs;
	size_t n_funcs;
	struct bp_sum_node *nodes;
	size_t n_nodes;
	bool pruned;                   /* nodes have rests */
	int64_t least_ns, least_insns; /* paths with less of both were left out */
	struct bp_sum_phase *phases;
	size_t n_phases;
	struct bp_sum_module *modules;
	size_t n_modules;
	struct bp_sum_initcall *initcalls;
	size_t n_initcalls;
	struct bp_sum_syscall *syscalls;
	size_t n_syscalls;

	/* a series of the same boot; empty: this one only */
	struct bp_sum_run *runs;
	size_t n_runs;
	/* the floor of exact comparisons, measured with harmless changes (0 runs: not measured) */
	unsigned floor_runs;
	int64_t floor_insns, floor_kernel_insns;
	int64_t
	    floor_sudden_insns; /* the most that one of them moved a function that the others hardly moved */

	struct bp_sum_strings *strings;
};

/**
 * bp_summary_create() - of a recording
 * @query: filters; NULL: none
 * Errors: as bp_analysis_create().
 */
struct bp_err *bp_summary_create(const struct bp_trace *trace, const struct bp_query *query,
				 struct bp_summary **ret) BP_MUST_CHECK;
void bp_summary_destroy(struct bp_summary *s);

static inline void bp_summary_destroyp(struct bp_summary **s)
{
	bp_summary_destroy(*s);
}

/** bp_summary_str() - a copy of a string, the summary's own; equal strings are the same pointer; NULL: no
 * memory */
const char *bp_summary_str(struct bp_summary *s, const char *text);

/** bp_summary_new() - an empty one, for those who fill it; its root node is there */
struct bp_err *bp_summary_new(const char *path, struct bp_summary **ret) BP_MUST_CHECK;

/** bp_summary_set_command() - fill machine, smp and the like from QEMU's command line (copied) */
struct bp_err *bp_summary_set_command(struct bp_summary *s, const char *const *argv) BP_MUST_CHECK;

/** bp_summary_prune() - keep the @max paths with the highest share of the boot; the others go into rests */
struct bp_err *bp_summary_prune(struct bp_summary *s, size_t max) BP_MUST_CHECK;

/** bp_summary_add_run() - add the times of @boot (which may be @s) to the series of @s */
struct bp_err *bp_summary_add_run(struct bp_summary *s, const struct bp_summary *boot) BP_MUST_CHECK;

/** bp_summary_find() - function by name, and by module unless @module is NULL; BP_SUM_NONE if none */
uint32_t bp_summary_find(const struct bp_summary *s, const char *name, const char *module);

/** bp_summary_phase() - phase by name, BP_SUM_NONE if none */
uint32_t bp_summary_phase(const struct bp_summary *s, const char *name);

/*
 * Baseline files: "bootprof-summary/1", JSON; docs/bootprof-report-schema.md has its members.
 */

/* Paths that a baseline keeps. */
#define BP_SUMMARY_PATHS 2000

/** bp_summary_write() - a new file (O_EXCL), renamed to @path. Errors: BP_EOS */
struct bp_err *bp_summary_write(const struct bp_summary *s, const char *path) BP_MUST_CHECK;

/** bp_summary_is_file() - does the file begin as baselines do? False also when it cannot be read */
bool bp_summary_is_file(const char *path);

/**
 * bp_summary_read() - Errors: BP_EOS; BP_EDATA with the offset of what is no JSON, or the name of what is
 * wrong; BP_EUNSUPPORTED for one of a newer version
 */
struct bp_err *bp_summary_read(const char *path, struct bp_summary **ret) BP_MUST_CHECK;

/** bp_summary_parse() - the same for text in memory; @path: for errors */
struct bp_err *bp_summary_parse(const char *path, const char *text, size_t len,
				struct bp_summary **ret) BP_MUST_CHECK;

#endif
