/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The forms in which `bootprof gate` gives its verdict. */
#ifndef BP_CMD_GATE_OUTPUT_H
#define BP_CMD_GATE_OUTPUT_H

#include "analyzers/gate.h"
#include "analyzers/summary.h"
#include "cmd/output.h"
#include "core/err.h"

enum bp_gate_format {
	BP_GATE_TEXT,
	BP_GATE_MARKDOWN,  /* for a comment on a pull request */
	BP_GATE_JUNIT,     /* XML */
	BP_GATE_JSON,      /* bootprof-gate/1 */
	BP_GATE_GITHUB,    /* annotations of GitHub Actions */
	BP_GATE_BENCHMARK, /* of github-action-benchmark */
};

/** bp_gate_format_parse() - by name. Errors: BP_EUSAGE */
struct bp_err *bp_gate_format_parse(const char *name, enum bp_gate_format *ret) BP_MUST_CHECK;

/**
 * bp_gate_output() - print the verdict
 * @file: where; NULL: on standard output
 * @old_boot, @new_boot: what was compared, either may be NULL
 */
struct bp_err *bp_gate_output(const struct bp_gate *g, enum bp_gate_format format, const char *file,
			      const struct bp_output_how *how, const struct bp_summary *old_boot,
			      const struct bp_summary *new_boot) BP_MUST_CHECK;

#endif
