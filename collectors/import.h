/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Importers: each turns one kind of foreign trace into the events of a recording.
 *
 * An importer reads from a source, names addresses through the names it is given, and writes through a builder. What
 * is broken in the middle of a trace is counted and skipped; what was valid is kept. Nothing in the input is trusted.
 */
#ifndef BP_COLLECTORS_IMPORT_H
#define BP_COLLECTORS_IMPORT_H

#include "core/builder.h"
#include "core/err.h"
#include "core/source.h"

struct bp_sched;

/* Names for the addresses of a foreign trace. @self is passed through. */
struct bp_import_names {
	void *self;
	/*
	 * Kernel or module function covering a run-time address. Returns false when there is none. @name, @module: valid
	 * until the import ends; @start: run-time address where it begins.
	 */
	bool (*find)(void *self, uint64_t addr, const char **name, const char **module, uint64_t *start);
	/* Code bytes as linked at a run-time address of the kernel, for telling calls from returns; may be NULL. */
	bool (*code)(void *self, uint64_t addr, void *dst, size_t len);
	/* Number of the system call that a function of that name carries out ("__x64_sys_openat"); -1: none. May be NULL. */
	int (*syscall)(const char *function);
};

struct bp_import_stats {
	uint64_t records;     /* lines or binary records that were understood */
	uint64_t calls;
	uint64_t skipped;     /* lines or records that were not */
	uint64_t lost;        /* events the trace itself says it lost */
	uint64_t unnamed;     /* addresses without a name, occurrences */
	uint64_t addresses;   /* occurrences of addresses in all */
	uint64_t first_bad_offset; /* of what was skipped; UINT64_MAX if nothing */
	char first_bad[120];  /* why */
	char stacks[80];      /* how call stacks were obtained, for the report: "from the trace", "from code bytes", "none" */
	bool truncated;       /* the input ended in the middle of something */
};

struct bp_import {
	struct bp_source *source;
	struct bp_builder *builder;
	struct bp_sched *sched; /* takes what the trace says of threads that wait; NULL: not wanted */
	const struct bp_import_names *names;
	struct bp_import_stats *stats;
	/* Called now and then on long work; false: stop, what was read so far is kept. */
	bool (*progress)(void *self);
	void *progress_self;
};

struct bp_importer {
	const char *name;      /* "qemu-exec", as --format= takes it */
	const char *summary;
	/* How sure it is that this is its format, from the first bytes (up to 64 KiB): 0 not at all, 100 certain. */
	int (*probe)(const uint8_t *head, size_t len);
	struct bp_err *(*run)(struct bp_import *im);
};

/**
 * bp_import_lines() - hand over all lines of the source, in order, until the end, an error, or progress() says stop
 * @take: gets @self and a line without its newline; *@ok is false when it makes no sense
 * @what: such lines are counted as skipped, this is why, and a last line without an end is noted; NULL: they are not
 */
struct bp_err *bp_import_lines(struct bp_import *im, void *self,
			       struct bp_err *(*take)(void *self, const char *line, const char *end, bool *ok),
			       const char *what) BP_MUST_CHECK;

/* All importers, NULL-terminated: collectors/importers.c */
extern const struct bp_importer *const bp_importers[];

extern const struct bp_importer bp_import_qemu_exec, bp_import_qemu_trace_log, bp_import_simpletrace,
	bp_import_symbolised, bp_import_ftrace_text, bp_import_trace_dat,
	bp_import_perf_script, bp_import_dmesg;

#endif
