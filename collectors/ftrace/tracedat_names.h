/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names that a trace.dat file brings with it: kernel symbols (as in /proc/kallsyms) and commands of tasks (as
 * in tracefs' saved_cmdlines). Both are texts that are not trusted.
 */
#ifndef BP_COLLECTORS_FTRACE_TRACEDAT_NAMES_H
#define BP_COLLECTORS_FTRACE_TRACEDAT_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_td_sym {
	uint64_t addr;
	uint32_t name; /* offset in the text */
	uint16_t name_len;
	uint8_t module_len; /* 0: the kernel itself */
	uint8_t module_at;  /* from the end of the name to the module's */
};

struct bp_td_syms {
	struct bp_td_sym *syms; /* code only, by address */
	size_t n, cap;
	const char *text;
	bool have_text_start; /* _text or _stext */
	uint64_t text_start;
};

/** bp_td_syms_init() - @text is borrowed until deinit; lines that are no symbols are skipped */
struct bp_err *bp_td_syms_init(struct bp_td_syms *s, const char *text, size_t len) BP_MUST_CHECK;
void bp_td_syms_deinit(struct bp_td_syms *s);

/** bp_td_syms_find() - the symbol covering @addr, NULL if none */
const struct bp_td_sym *bp_td_syms_find(const struct bp_td_syms *s, uint64_t addr);

struct bp_td_comm {
	int32_t pid;
	uint32_t name, len; /* in the text */
};

struct bp_td_comms {
	struct bp_td_comm *comms; /* by pid */
	size_t n, cap;
	const char *text;
};

/** bp_td_comms_init() - lines "PID COMMAND"; @text is borrowed until deinit */
struct bp_err *bp_td_comms_init(struct bp_td_comms *c, const char *text, size_t len) BP_MUST_CHECK;
void bp_td_comms_deinit(struct bp_td_comms *c);

/** bp_td_comms_find() - copies the command of @pid to @dst (16 bytes), "" and false when it has none */
bool bp_td_comms_find(const struct bp_td_comms *c, int32_t pid, char dst[16]);

#endif
