// SPDX-License-Identifier: GPL-2.0-or-later
#include "analyzers/findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

struct bp_finding {
	char *text, *command;
	double share;
};

void bp_findings_deinit(struct bp_findings *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->list[i].text);
		free(f->list[i].command);
	}
	free(f->list);
}

/* Add @s as one word of a shell command. */
static void add_word(struct bp_strbuf *sb, const char *s)
{
	if (*s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,:/@%+-") ==
		      strlen(s)) {
		bp_strbuf_adds(sb, s);
		return;
	}
	bp_strbuf_addc(sb, '\'');
	for (; *s; s++) {
		if (*s == '\'')
			bp_strbuf_adds(sb, "'\\''");
		else
			bp_strbuf_addc(sb, *s);
	}
	bp_strbuf_addc(sb, '\'');
}

void bp_find(struct bp_findings *o, double share, const char *command, const char *word, const char *fmt, ...)
{
	const char *path = bp_trace_path(o->a->trace);
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_finding *list = realloc(o->list, (o->n + 1) * sizeof(*list)), *f;
	char text[512];
	va_list ap;

	if (!list) {
		o->failed = true;
		return;
	}
	o->list = list;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	bp_strbuf_addf(&sb, "bootprof %s", command);
	if (word) {
		bp_strbuf_addc(&sb, ' ');
		add_word(&sb, word);
	}
	if (path && strcmp(path, "bootprof.data")) {
		bp_strbuf_adds(&sb, " -i ");
		add_word(&sb, path);
	}
	if (o->a->query->clock == BP_CLOCK_INSNS && strncmp(command, "info", 4))
		bp_strbuf_adds(&sb, " --clock=insns");
	f = &list[o->n];
	f->text = strdup(text);
	f->command = strdup(bp_strbuf_str(&sb));
	f->share = share;
	o->n++;
	o->failed |= !f->text || !f->command;
}

enum { W_SHARE, W_FINDING, W_COMMAND };

static const struct bp_field finding_fields[] = {
    [W_SHARE] = {"percent", "SHARE", BP_COL_PERCENT, false},
    [W_FINDING] = {"finding", "FINDING", BP_COL_STR, false},
    [W_COMMAND] = {"command", "SEE", BP_COL_STR, false},
};

static void finding_cell(void *ctx, size_t row, size_t field, struct bp_cell *c)
{
	const struct bp_findings *o = ctx;
	const struct bp_finding *f = &o->list[row];

	if (field == W_FINDING)
		bp_cell_str(c, f->text);
	else if (field == W_COMMAND)
		bp_cell_str(c, f->command);
	else if (f->share >= 0)
		bp_cell_pct(c, f->share, 100);
}

static int compare_findings(const void *x, const void *y)
{
	const struct bp_finding *a = x, *b = y;
	/* Losses first: they put all other figures in question. */
	double p = a->share < 0 ? 1e9 : a->share, q = b->share < 0 ? 1e9 : b->share;

	return p < q ? 1 : p > q ? -1 : strcmp(a->text, b->text);
}

struct bp_err *bp_findings_table(struct bp_findings *f, struct bp_report *r)
{
	struct bp_view_table v = {
	    .id = "next",
	    .title = "What to look at next",
	    .fields = finding_fields,
	    .n_fields = BP_ARRAY_SIZE(finding_fields),
	    .text_time = "percent,finding,command",
	    .n_rows = f->n,
	    .cell = finding_cell,
	    .ctx = f,
	    .limit = 12,
	};

	if (f->failed)
		return bp_err_nomem();
	if (f->n)
		qsort(f->list, f->n, sizeof(*f->list), compare_findings);
	return bp_view_add(f->a, r, &v);
}
