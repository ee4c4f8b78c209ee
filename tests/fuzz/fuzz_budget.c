// SPDX-License-Identifier: GPL-2.0-or-later
/* Budget files: read, and judged. */
#include <stdlib.h>

#include "analyzers/budget.h"
#include "analyzers/gate.h"
#include "analyzers/summary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_budget *b = NULL;
	struct bp_summary *s = NULL;
	struct bp_gate *g = NULL;
	struct bp_err *err = bp_budget_parse("fuzz", (const char *)data, size, &b);

	if (!err)
		err = bp_summary_new("fuzz", &s);
	if (!err)
		err = bp_gate_new("budget", &g);
	if (!err)
		err = bp_budget_judge(b, g, s, s);
	bp_err_ignore(err);
	bp_gate_destroy(g);
	bp_summary_destroy(s);
	bp_budget_destroy(b);
	return 0;
}
