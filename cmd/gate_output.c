// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sources: the JUnit XML that CI systems read (testmoapp/junitxml on GitHub); workflow commands of GitHub
 * Actions; the "customSmallerIsBetter" input of github-action-benchmark.
 */
#include "cmd/gate_output.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/units.h"

static const char *const formats[] = {"text", "markdown", "junit", "json", "github", "benchmark"};

struct bp_err *bp_gate_format_parse(const char *name, enum bp_gate_format *ret)
{
	for (size_t i = 0; i < BP_ARRAY_SIZE(formats); i++) {
		if (!strcmp(formats[i], name)) {
			*ret = (enum bp_gate_format)i;
			return NULL;
		}
	}
	return bp_err_new(BP_EUSAGE, "--format=%s: must be one of text|markdown|junit|json|github|benchmark",
			  name);
}

/* A value with its unit, for people; phases are numbers of no interest. */
static const char *show(char buf[BP_UNITS_MAX], const char *unit, double v)
{
	if (isnan(v) || !strcmp(unit, "phase"))
		return "-";
	return !strcmp(unit, "ns") ? bp_units_ns(buf, (int64_t)v) : bp_units_icount(buf, (int64_t)v);
}

static const char *judge_text(const struct bp_gate *g)
{
	return !strcmp(g->judge, "exact")         ? "exact judge"
	       : !strcmp(g->judge, "statistical") ? "statistical judge"
	       : !strcmp(g->judge, "budget")      ? "budget only"
						  : "nothing to compare with";
}

static bool bad(const struct bp_gate_metric *m)
{
	return m->verdict == BP_GATE_REGRESSION || m->verdict == BP_GATE_INVALID;
}

static size_t count_bad(const struct bp_gate *g)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n_metrics; i++)
		n += bad(&g->metrics[i]);
	return n;
}

/* ---- text ---- */

static const struct bp_col metric_cols[] = {
    {"name", "METRIC", BP_COL_STR, BP_COL_BOTH, false},
    {"old", "OLD", BP_COL_STR, BP_COL_BOTH, false},
    {"new", "NEW", BP_COL_STR, BP_COL_BOTH, false},
    {"change", "CHANGE", BP_COL_PERCENT, BP_COL_BOTH, false},
    {"verdict", "VERDICT", BP_COL_STR, BP_COL_BOTH, false},
    {"text", "", BP_COL_STR, BP_COL_BOTH, false},
};

static const struct bp_col blame_cols[] = {
    {"delta_insns", "INSNS", BP_COL_INSNS, BP_COL_BOTH, false},
    {"delta_ns", "TIME", BP_COL_NS, BP_COL_BOTH, false},
    {"calls_old", "OLD CALLS", BP_COL_COUNT, BP_COL_BOTH, false},
    {"calls_new", "NEW CALLS", BP_COL_COUNT, BP_COL_BOTH, false},
    {"name", "WHAT", BP_COL_STR, BP_COL_BOTH, false},
    {"module", "MODULE", BP_COL_STR, BP_COL_BOTH, false},
    {"what", "", BP_COL_STR, BP_COL_BOTH, false},
    {"path", "CALLED FROM", BP_COL_STR, BP_COL_BOTH, false},
};

/* The last functions of a path; all of it is in the other forms. */
static const char *path_end(const char *path)
{
	const char *p = path + strlen(path);

	for (int n = 0; p > path; p--) {
		if (p[-1] == ';' && ++n == 3)
			break;
	}
	return p;
}

static void add_blame_row(struct bp_table *t, const struct bp_gate_blame *b)
{
	bool counted = strcmp(b->kind, "rest") != 0;

	bp_table_row(t);
	if (strcmp(b->kind, "first-call")) {
		bp_table_i64(t, b->delta_insns);
		bp_table_i64(t, b->delta_ns);
	} else {
		bp_table_none(t);
		bp_table_none(t);
	}
	if (counted) {
		bp_table_u64(t, b->calls_old);
		bp_table_u64(t, b->calls_new);
	} else {
		bp_table_none(t);
		bp_table_none(t);
	}
	bp_table_str(t, b->name);
	bp_table_str(t, b->module);
	bp_table_str(t, b->what);
	bp_table_str(t, b->path ? path_end(b->path) : NULL);
}

static void report_destroyp(struct bp_report **r)
{
	bp_report_destroy(*r);
}

static struct bp_err *text(const struct bp_gate *g, const struct bp_output_how *how, FILE *to,
			   const struct bp_summary *old_boot, const struct bp_summary *new_boot)
{
	bp_cleanup(report_destroyp) struct bp_report *r = NULL;
	struct bp_err *err = bp_report_create("gate", BP_CLOCK_INSNS, &r);
	struct bp_table *t;

	if (err)
		return err;
	bp_report_title(r, "%s (%s)", bp_gate_verdict_name(g->verdict), judge_text(g));
	if (old_boot && new_boot)
		bp_report_title(r, "%s against %s", new_boot->path, old_boot->path);
	else if (new_boot)
		bp_report_title(r, "%s", new_boot->path);
	if (g->n_metrics) {
		t = bp_report_table(r, "metrics", "Metrics", metric_cols, BP_ARRAY_SIZE(metric_cols));
		for (size_t i = 0; i < g->n_metrics; i++) {
			const struct bp_gate_metric *m = &g->metrics[i];
			char a[BP_UNITS_MAX], b[BP_UNITS_MAX];

			bp_table_row(t);
			bp_table_str(t, m->name);
			bp_table_str(t, show(a, m->unit, m->old_value));
			bp_table_str(t, show(b, m->unit, m->new_value));
			if (m->old_value > 0 && strcmp(m->unit, "phase"))
				bp_table_pct(t, 100 * (m->new_value / m->old_value - 1));
			else
				bp_table_none(t);
			bp_table_str(t, bp_gate_verdict_name(m->verdict));
			bp_table_str(t, m->text ? m->text : "");
		}
	}
	if (g->n_blame && g->verdict != BP_GATE_PASS) {
		char a[BP_UNITS_MAX], b[BP_UNITS_MAX], title[128];

		snprintf(title, sizeof(title), "What changed: %s instructions, %s of vCPU time",
			 bp_units_icount(a, g->delta_insns), bp_units_ns(b, g->delta_ns));
		t = bp_report_table(r, "blame", title, blame_cols, BP_ARRAY_SIZE(blame_cols));
		for (size_t i = 0; i < g->n_blame; i++)
			add_blame_row(t, &g->blame[i]);
	}
	for (size_t i = 0; i < g->n_notes; i++)
		bp_report_note(r, "%s", g->notes[i]);
	err = bp_report_finish(r);
	if (!err)
		err = to ? bp_report_render(r, &(struct bp_render){.utf8 = bp_output_utf8()}, to)
			 : bp_output_report(how, r);
	return err;
}

/* ---- JSON ---- */

static void json_str(struct bp_strbuf *sb, const char *name, const char *s)
{
	bp_strbuf_addf(sb, "\"%s\":", name);
	if (!s) {
		bp_strbuf_adds(sb, "null");
		return;
	}
	bp_strbuf_addc(sb, '"');
	bp_strbuf_add_json(sb, s, strlen(s));
	bp_strbuf_addc(sb, '"');
}

static void json_num(struct bp_strbuf *sb, const char *name, double v, const char *format)
{
	bp_strbuf_addf(sb, ",\"%s\":", name);
	if (isfinite(v))
		bp_strbuf_addf(sb, strcmp(format, "%.0f") ? "%.6g" : "%.0f", v);
	else
		bp_strbuf_adds(sb, "null");
}

static void json_boot(struct bp_strbuf *sb, const char *name, const struct bp_summary *s)
{
	bp_strbuf_addf(sb, ",\n\"%s\":", name);
	if (!s) {
		bp_strbuf_adds(sb, "null");
		return;
	}
	bp_strbuf_addc(sb, '{');
	json_str(sb, "file", s->path);
	bp_strbuf_addc(sb, ',');
	json_str(sb, "kernel", s->kernel);
	bp_strbuf_addc(sb, ',');
	json_str(sb, "qemu", s->qemu);
	bp_strbuf_addc(sb, ',');
	json_str(sb, "machine", s->machine);
	bp_strbuf_addf(sb,
		       ",\"smp\":%u,\"ns\":%" PRIu64 ",\"insns\":%" PRIu64 ",\"kernel_insns\":%" PRIu64 "}",
		       s->smp, s->ns, s->insns, s->kernel_insns);
}

static void json(const struct bp_gate *g, struct bp_strbuf *sb, const struct bp_summary *old_boot,
		 const struct bp_summary *new_boot)
{
	bp_strbuf_addf(sb, "{\"schema\":\"bootprof-gate/1\",\"verdict\":\"%s\",\"judge\":\"%s\"",
		       bp_gate_verdict_name(g->verdict), g->judge);
	json_boot(sb, "old", old_boot);
	json_boot(sb, "new", new_boot);
	bp_strbuf_addf(sb, ",\n\"delta_insns\":%" PRId64 ",\"delta_ns\":%" PRId64 ",\n\"metrics\":[",
		       g->delta_insns, g->delta_ns);
	for (size_t i = 0; i < g->n_metrics; i++) {
		const struct bp_gate_metric *m = &g->metrics[i];

		bp_strbuf_adds(sb, i ? ",\n{" : "\n{");
		json_str(sb, "name", m->name);
		bp_strbuf_addf(sb, ",\"unit\":\"%s\",\"verdict\":\"%s\"", m->unit,
			       bp_gate_verdict_name(m->verdict));
		json_num(sb, "old", m->old_value, "%.0f");
		json_num(sb, "new", m->new_value, "%.0f");
		json_num(sb, "limit", m->limit, "%.0f");
		bp_strbuf_addf(sb, ",\"pairs\":%zu", m->pairs);
		json_num(sb, "ratio", m->ratio, "%g");
		json_num(sb, "low", m->low, "%g");
		json_num(sb, "high", m->high, "%g");
		json_num(sb, "p", m->p, "%g");
		bp_strbuf_addc(sb, ',');
		json_str(sb, "text", m->text);
		bp_strbuf_addc(sb, '}');
	}
	bp_strbuf_adds(sb, "],\n\"blame\":[");
	for (size_t i = 0; i < g->n_blame; i++) {
		const struct bp_gate_blame *b = &g->blame[i];

		bp_strbuf_adds(sb, i ? ",\n{" : "\n{");
		json_str(sb, "name", b->name);
		bp_strbuf_addc(sb, ',');
		json_str(sb, "module", b->module);
		bp_strbuf_addc(sb, ',');
		json_str(sb, "kind", b->kind);
		bp_strbuf_addc(sb, ',');
		json_str(sb, "path", b->path);
		bp_strbuf_addc(sb, ',');
		json_str(sb, "what", b->what ? b->what : "");
		bp_strbuf_addf(sb,
			       ",\"delta_insns\":%" PRId64 ",\"delta_ns\":%" PRId64 ",\"calls_old\":%" PRIu64
			       ",\"calls_new\":%" PRIu64 "}",
			       b->delta_insns, b->delta_ns, b->calls_old, b->calls_new);
	}
	bp_strbuf_adds(sb, "],\n\"notes\":[");
	for (size_t i = 0; i < g->n_notes; i++) {
		bp_strbuf_adds(sb, i ? ",\n\"" : "\n\"");
		bp_strbuf_add_json(sb, g->notes[i], strlen(g->notes[i]));
		bp_strbuf_addc(sb, '"');
	}
	bp_strbuf_adds(sb, "]}\n");
}

static void benchmark(const struct bp_gate *g, struct bp_strbuf *sb)
{
	const char *sep = "";

	bp_strbuf_addc(sb, '[');
	for (size_t i = 0; i < g->n_metrics; i++) {
		const struct bp_gate_metric *m = &g->metrics[i];
		char range[64] = "";

		if (!isfinite(m->new_value) || !strcmp(m->unit, "phase"))
			continue;
		if (isfinite(m->low) && isfinite(m->high))
			snprintf(range, sizeof(range), "%.2f%%", 50 * (m->high - m->low));
		bp_strbuf_addf(sb, "%s\n{", sep);
		sep = ",";
		json_str(sb, "name", m->name);
		bp_strbuf_addf(sb, ",\"unit\":\"%s\",\"value\":%.0f", m->unit, m->new_value);
		if (*range) {
			bp_strbuf_addc(sb, ',');
			json_str(sb, "range", range);
		}
		bp_strbuf_addc(sb, ',');
		json_str(sb, "extra", m->text ? m->text : bp_gate_verdict_name(m->verdict));
		bp_strbuf_addc(sb, '}');
	}
	bp_strbuf_adds(sb, "\n]\n");
}

/* ---- XML ---- */

static void xml(struct bp_strbuf *sb, const char *s)
{
	bp_strbuf_add_xml(sb, s, strlen(s));
}

static void blame_lines(const struct bp_gate *g, struct bp_strbuf *sb)
{
	for (size_t i = 0; i < g->n_blame; i++) {
		const struct bp_gate_blame *b = &g->blame[i];

		bp_strbuf_addf(sb, "%+" PRId64 " instructions, %+" PRId64 " ns: ", b->delta_insns,
			       b->delta_ns);
		xml(sb, b->name);
		if (b->what && *b->what) {
			bp_strbuf_adds(sb, " (");
			xml(sb, b->what);
			bp_strbuf_addc(sb, ')');
		}
		if (b->path && *b->path) {
			bp_strbuf_adds(sb, " on ");
			xml(sb, b->path);
		}
		bp_strbuf_addc(sb, '\n');
	}
}

static void junit(const struct bp_gate *g, struct bp_strbuf *sb)
{
	/* What was not measured at all is a case of its own: CI systems show cases. */
	bool whole = g->verdict == BP_GATE_INVALID || !g->n_metrics;
	size_t skipped = 0;

	for (size_t i = 0; i < g->n_metrics; i++)
		skipped += g->metrics[i].verdict == BP_GATE_INCONCLUSIVE;
	bp_strbuf_addf(
	    sb,
	    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"bootprof gate\" "
	    "tests=\"%zu\" failures=\"%zu\" errors=\"%d\" skipped=\"%zu\">\n",
	    g->n_metrics + whole, count_bad(g), g->verdict == BP_GATE_INVALID, skipped);
	if (whole) {
		bp_strbuf_addf(sb, "<testcase classname=\"bootprof.%s\" name=\"measurement\">", g->judge);
		if (g->verdict == BP_GATE_INVALID) {
			bp_strbuf_adds(sb, "<error message=\"");
			xml(sb, g->n_notes ? g->notes[0] : "invalid");
			bp_strbuf_adds(sb, "\"/>");
		}
		bp_strbuf_adds(sb, "</testcase>\n");
	}
	for (size_t i = 0, explained = 0; i < g->n_metrics; i++) {
		const struct bp_gate_metric *m = &g->metrics[i];

		bp_strbuf_addf(sb, "<testcase classname=\"bootprof.%s\" name=\"", g->judge);
		xml(sb, m->name);
		bp_strbuf_adds(sb, "\">");
		if (bad(m)) {
			bp_strbuf_adds(sb, "<failure message=\"");
			xml(sb, m->text ? m->text : "");
			bp_strbuf_adds(sb, "\">");
			if (!explained++)
				blame_lines(g, sb);
			bp_strbuf_adds(sb, "</failure>");
		} else if (m->verdict == BP_GATE_INCONCLUSIVE) {
			bp_strbuf_adds(sb, "<skipped message=\"");
			xml(sb, m->text ? m->text : "");
			bp_strbuf_adds(sb, "\"/>");
		}
		bp_strbuf_adds(sb, "</testcase>\n");
	}
	if (g->n_notes) {
		bp_strbuf_adds(sb, "<system-out>");
		for (size_t i = 0; i < g->n_notes; i++) {
			xml(sb, g->notes[i]);
			bp_strbuf_addc(sb, '\n');
		}
		bp_strbuf_adds(sb, "</system-out>\n");
	}
	bp_strbuf_adds(sb, "</testsuite>\n</testsuites>\n");
}

/* ---- Markdown ---- */

static void md(struct bp_strbuf *sb, const char *s)
{
	bp_strbuf_add_markdown(sb, s, strlen(s));
}

static void markdown(const struct bp_gate *g, struct bp_strbuf *sb, const struct bp_summary *old_boot,
		     const struct bp_summary *new_boot)
{
	char a[BP_UNITS_MAX], b[BP_UNITS_MAX];

	bp_strbuf_addf(sb, "### Boot: %s (%s)\n\n", bp_gate_verdict_name(g->verdict), judge_text(g));
	if (old_boot && new_boot) {
		bp_strbuf_adds(sb, "Linux ");
		md(sb, old_boot->kernel);
		bp_strbuf_adds(sb, " to ");
		md(sb, new_boot->kernel);
		bp_strbuf_adds(sb, ", ");
		md(sb, new_boot->qemu);
		bp_strbuf_adds(sb, "\n\n");
	}
	if (g->n_metrics) {
		bp_strbuf_adds(sb, "| metric | old | new | verdict | |\n|---|--:|--:|---|---|\n");
		for (size_t i = 0; i < g->n_metrics; i++) {
			const struct bp_gate_metric *m = &g->metrics[i];

			bp_strbuf_adds(sb, "| ");
			md(sb, m->name);
			bp_strbuf_addf(sb, " | %s | %s | %s | ", show(a, m->unit, m->old_value),
				       show(b, m->unit, m->new_value), bp_gate_verdict_name(m->verdict));
			md(sb, m->text ? m->text : "");
			bp_strbuf_adds(sb, " |\n");
		}
	}
	if (g->n_blame && g->verdict != BP_GATE_PASS) {
		bp_strbuf_addf(sb, "\nWhat changed: %+" PRId64 " instructions, %s of vCPU time\n\n",
			       g->delta_insns, bp_units_ns(a, g->delta_ns));
		bp_strbuf_adds(
		    sb, "| instructions | time | calls | what | | path |\n|--:|--:|--:|---|---|---|\n");
		for (size_t i = 0; i < g->n_blame; i++) {
			const struct bp_gate_blame *x = &g->blame[i];

			bp_strbuf_addf(sb, "| %+" PRId64 " | %s | %" PRIu64 " to %" PRIu64 " | ",
				       x->delta_insns, bp_units_ns(a, x->delta_ns), x->calls_old,
				       x->calls_new);
			md(sb, x->name);
			bp_strbuf_adds(sb, " | ");
			md(sb, x->what ? x->what : "");
			bp_strbuf_adds(sb, " | ");
			md(sb, x->path ? x->path : "");
			bp_strbuf_adds(sb, " |\n");
		}
	}
	for (size_t i = 0; i < g->n_notes; i++) {
		bp_strbuf_adds(sb, i ? "- " : "\n- ");
		md(sb, g->notes[i]);
		bp_strbuf_adds(sb, "\n");
	}
}

/* ---- GitHub ---- */

/* Of a command's message; of a property also : and , */
static void github_text(struct bp_strbuf *sb, const char *s, bool property)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf safe = BP_STRBUF_INIT;

	bp_strbuf_add_term(&safe, s, strlen(s));
	for (const char *p = bp_strbuf_str(&safe); *p; p++) {
		if (*p == '%' || (property && (*p == ':' || *p == ',')))
			bp_strbuf_addf(sb, "%%%02X", (unsigned char)*p);
		else
			bp_strbuf_addc(sb, *p);
	}
}

static void github(const struct bp_gate *g, struct bp_strbuf *sb)
{
	for (size_t i = 0; i < g->n_metrics; i++) {
		const struct bp_gate_metric *m = &g->metrics[i];

		if (m->verdict == BP_GATE_PASS)
			continue;
		bp_strbuf_addf(sb, "::%s title=", bad(m) ? "error" : "warning");
		github_text(sb, m->name, true);
		bp_strbuf_adds(sb, "::");
		github_text(sb, m->text ? m->text : "", false);
		bp_strbuf_addc(sb, '\n');
	}
	for (size_t i = 0; i < g->n_blame && g->verdict == BP_GATE_REGRESSION; i++) {
		const struct bp_gate_blame *b = &g->blame[i];

		if (strcmp(b->kind, "function") || b->delta_insns <= 0)
			continue;
		bp_strbuf_adds(sb, "::notice title=");
		github_text(sb, b->name, true);
		bp_strbuf_addf(sb, "::%+" PRId64 " instructions, calls %" PRIu64 " to %" PRIu64 ", on ",
			       b->delta_insns, b->calls_old, b->calls_new);
		github_text(sb, b->path ? b->path : "", false);
		bp_strbuf_addc(sb, '\n');
		break;
	}
	for (size_t i = 0; i < g->n_notes; i++) {
		bp_strbuf_addf(sb,
			       "::%s title=bootprof::", g->verdict == BP_GATE_INVALID ? "error" : "notice");
		github_text(sb, g->notes[i], false);
		bp_strbuf_addc(sb, '\n');
	}
}

static struct bp_err *print(const struct bp_gate *g, enum bp_gate_format format, FILE *to,
			    const struct bp_output_how *how, const struct bp_summary *old_boot,
			    const struct bp_summary *new_boot)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_err *err;

	switch (format) {
	case BP_GATE_TEXT:
		return text(g, how, to, old_boot, new_boot);
	case BP_GATE_JSON:
		json(g, &sb, old_boot, new_boot);
		break;
	case BP_GATE_JUNIT:
		junit(g, &sb);
		break;
	case BP_GATE_MARKDOWN:
		markdown(g, &sb, old_boot, new_boot);
		break;
	case BP_GATE_GITHUB:
		github(g, &sb);
		break;
	case BP_GATE_BENCHMARK:
		benchmark(g, &sb);
		break;
	}
	err = bp_strbuf_ok(&sb);
	/* Whether it arrived is checked when the file is closed, or by main. */
	if (!err)
		fwrite(bp_strbuf_str(&sb), 1, sb.len, to ? to : stdout);
	return err;
}

struct bp_err *bp_gate_output(const struct bp_gate *g, enum bp_gate_format format, const char *file,
			      const struct bp_output_how *how, const struct bp_summary *old_boot,
			      const struct bp_summary *new_boot)
{
	FILE *to = file ? fopen(file, "we") : NULL;
	struct bp_err *err;
	bool failed;

	if (file && !to)
		return bp_err_os(errno, "%s", file);
	err = print(g, format, to, how, old_boot, new_boot);
	if (!to)
		return err;
	failed = ferror(to) != 0;
	errno = 0;
	if ((fclose(to) || failed) && !err)
		err = bp_err_os(errno ? errno : EIO, "%s", file);
	return err;
}
