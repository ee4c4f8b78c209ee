/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names for the kernel addresses of a trace that somebody else made: from a kernel image, a System.map, a
 * /proc/kallsyms, a /proc/modules, and the KASLR slide between them and the trace.
 *
 * All files are untrusted. One thread. Memory: the kernel image, and about 24 bytes a symbol.
 */
#ifndef BP_SYMBOLS_FOREIGN_H
#define BP_SYMBOLS_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_foreign;

struct bp_foreign_options {
	const char *vmlinux;    /* ELF or bzImage; NULL: none */
	const char *kallsyms;   /* /proc/kallsyms or System.map as text; NULL: none */
	const char *modules;    /* /proc/modules as text; NULL: none */
	const char *module_dir; /* .ko files of the modules, in folders at any depth; NULL: none */
	bool slide_given;
	uint64_t slide; /* what the kernel image was moved by, as given */
};

/**
 * bp_foreign_create() - read the files
 * With none of them the result knows no names; functions of both @vmlinux and @kallsyms come from @vmlinux
 * (its addresses are as linked), those of modules from @kallsyms. Errors: BP_EOS; BP_EDATA (path, offset;
 * also a kallsyms whose addresses are all 0); BP_EUNSUPPORTED. Source: proc(5) for /proc/modules; nm(1) for
 * the letters of symbols; kernel/kallsyms.c for [module].
 */
struct bp_err *bp_foreign_create(const struct bp_foreign_options *o, struct bp_foreign **ret) BP_MUST_CHECK;
void bp_foreign_destroy(struct bp_foreign *f);

/** bp_foreign_has_names() - whether there is a single symbol to find */
bool bp_foreign_has_names(const struct bp_foreign *f);

/* Addresses that bp_foreign_sample() keeps; a few dozen are enough when they are blocks of a running kernel.
 */
#define BP_FOREIGN_SAMPLE 4096

/**
 * bp_foreign_sample() - addresses of the trace as they ran, to find or to check the slide with
 * Anything may be among them; those outside of the kernel's region are passed over, repetitions count once.
 * Those beyond BP_FOREIGN_SAMPLE are not taken.
 */
void bp_foreign_sample(struct bp_foreign *f, const uint64_t *addrs, size_t n);

/* How the slide was come by, and how well it fits the sample. */
struct bp_foreign_fit {
	bool known;      /* there is a slide: names are found */
	bool sure;       /* no other one fits nearly as well, or it was given and fits best */
	uint64_t slide;  /* of run-time addresses against addresses as linked */
	size_t sample;   /* different kernel addresses looked at */
	size_t in_text;  /* of them, inside the kernel's text with this slide */
	size_t on_start; /*   and on the first byte of a function */
	uint64_t second; /* the second best slide, and what fits with that one */
	size_t second_on_start, second_in_text;
};

/**
 * bp_foreign_settle() - decide about the slide with what was sampled so far
 * Slides are tried in steps of 2 MiB, the kernel's alignment: the one with which most of the sampled
 * addresses are starts of functions. Wrong ones hit few, as most blocks begin in the middle of functions. A
 * slide that was given is kept, whatever fits. Without enough to tell, the slide stays unknown, and
 * bp_foreign_find() goes on sampling and deciding by itself.
 * @fit: may be NULL
 */
void bp_foreign_settle(struct bp_foreign *f, struct bp_foreign_fit *fit);

/** bp_foreign_slide() - false: not known yet */
bool bp_foreign_slide(const struct bp_foreign *f, uint64_t *slide);

/**
 * bp_foreign_find() - the function covering a run-time address, as in struct bp_import_names
 * @self: struct bp_foreign. Strings live as long as it. @module: "vmlinux" for the kernel itself; in modules
 * that have no symbols, @name is "[no symbol]" and @start the module's base.
 */
bool bp_foreign_find(void *self, uint64_t addr, const char **name, const char **module, uint64_t *start);

/** bp_foreign_code() - code as linked at a run-time address, as in struct bp_import_names */
bool bp_foreign_code(void *self, uint64_t addr, void *dst, size_t len);

/** bp_foreign_has_code() - whether there is code to read: an image was given */
bool bp_foreign_has_code(const struct bp_foreign *f);

/** bp_foreign_other_modules() - modules whose file in the folder is of another kernel, and was not taken */
uint64_t bp_foreign_other_modules(const struct bp_foreign *f);

/* Look-ups that found nothing, by the reason. Callers that remember answers ask once for an address. */
struct bp_foreign_misses {
	uint64_t low;     /* not in the kernel's half: user space, firmware, early boot */
	uint64_t early;   /* the slide was not known yet */
	uint64_t modules; /* where modules are, and none is known there */
	uint64_t other;   /* nothing there */
};
const struct bp_foreign_misses *bp_foreign_misses(const struct bp_foreign *f);

/** bp_foreign_names_from() - "vmlinuz-6.1 (kernel 6.1.0-56, build-id 0123)", "" if nothing; borrowed */
const char *bp_foreign_names_from(const struct bp_foreign *f);
const char *bp_foreign_release(const struct bp_foreign *f);
const char *bp_foreign_build_id(const struct bp_foreign *f);

#endif
