// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/input.h"
#include "cmd/output.h"
#include "core/cleanup.h"
#include "core/units.h"
#include "core/waits.h"

static const char help[] =
    "Usage: bootprof info [OPTION]...\n"
    "Show what a recording is: the machine, the guest, how it ended, its size, and what it lost.\n"
    "\n"
    "  -i, --input FILE         the recording (default " BP_DEFAULT_FILE ")\n"
    "      --quick              do not read the events: faster, but damage in them is not seen\n"
    "      --format=FORMAT      text (the default) or json\n" BP_OUTPUT_HELP BP_FOREIGN_HELP
    "  -h, --help               show this help\n";

enum { OPT_QUICK = 256 };

static const struct option options[] = {
    {"input", required_argument, NULL, 'i'},
    {"quick", no_argument, NULL, OPT_QUICK},
    BP_FOREIGN_OPTIONS,
    BP_OUTPUT_OPTIONS,
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* Headings of the keys that the recorder writes, in the order in which people want them. */
static const struct key {
	const char *key, *label;
} keys[] = {
    {"start_time", "Recorded"},
    {"qemu_version", "QEMU"},
    {"qemu_path", "QEMU program"},
    {"plugin_api", "Plugin API"},
    {"command_line", "Command line"},
    {"kernel_release", "Guest kernel"},
    {"kernel_build_id", "Kernel build-id"},
    {"kernel_image", "Kernel image"},
    {"kaslr_slide", "KASLR slide"},
    {"names_from", "Names from"},
    {"host_release", "Host kernel"},
    {"host_cpu", "Host CPU"},
    {"host_cpus", "Host CPUs"},
    {"clock_time", "Clock, time"},
    {"clock_insns", "Clock, insns"},
    {"deterministic", "Deterministic"},
    {"record_options", "Record options"},
    {"import_files", "Imported from"},
    {"import_format", "Format"},
    {"import_stacks", "Call stacks"},
    {"kaslr_fit", "KASLR slide is"},
    {"import_notes", "Notes"},
    {"bootprof_version", "Written by bootprof"},
};

struct vcpu {
	bool seen;
	uint64_t insns, halted_ns, events;
};

struct info {
	const struct bp_trace *trace;
	const struct bp_fact *end; /* NULL: none */
	uint64_t duration_ns, insns, calls, folded_calls;
	uint64_t events; /* as read; 0 with --quick */
	uint64_t blocks, bad_blocks;
	uint64_t lost_places, lost_events;
	bool calls_known, events_read;
	struct vcpu *vcpus; /* by number */
	size_t n_vcpus;
	const struct bp_fact **infos; /* INFO facts, the last of each key, in order of the file */
	size_t n_infos;
	char *first_bad; /* error text of the first block that could not be read */
};

static void decoder_destroyp(struct bp_decoder **d)
{
	bp_decoder_destroy(*d);
}

static void count_block(struct info *in, const struct bp_block *block)
{
	for (size_t i = 0; i < block->n_events; i++) {
		const struct bp_event *ev = &block->events[i];

		switch (ev->kind) {
		case BP_EV_RUN:
			continue;
		case BP_EV_CALL:
		case BP_EV_JUMP:
		case BP_EV_IRQ:
			in->calls++;
			break;
		case BP_EV_LOST:
			in->lost_places++;
			in->lost_events += ev->arg;
			break;
		default:
			break;
		}
		in->events++;
	}
}

/* Read all events: what they are, and whether all can be read. */
static BP_MUST_CHECK struct bp_err *read_blocks(struct info *in)
{
	bp_cleanup(decoder_destroyp) struct bp_decoder *decoder = NULL;
	struct bp_err *err = bp_decoder_create(&decoder);

	if (err)
		return err;
	for (size_t i = 0; i < bp_trace_n_blocks(in->trace); i++) {
		struct bp_block block;

		err = bp_decoder_read(decoder, in->trace, i, &block);
		if (!err) {
			count_block(in, &block);
			continue;
		}
		if (bp_err_code(err) != BP_EDATA)
			return err;
		if (!in->bad_blocks++) {
			in->first_bad = strdup(bp_err_text(err));
		}
		bp_err_free(err);
	}
	in->calls_known = in->events_read = true;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *add_vcpu(struct info *in, const struct bp_fact *f)
{
	if (f->vcpu >= in->n_vcpus) {
		size_t n = (size_t)f->vcpu + 1;
		struct vcpu *v = reallocarray(in->vcpus, n, sizeof(*v));

		if (!v)
			return bp_err_nomem();
		memset(v + in->n_vcpus, 0, (n - in->n_vcpus) * sizeof(*v));
		in->vcpus = v;
		in->n_vcpus = n;
	}
	in->vcpus[f->vcpu] = (struct vcpu){true, f->v[0], f->v[1], f->v[2]};
	return NULL;
}

/* By key; facts are neighbours in memory, so that addresses tell their order. */
static int compare_key(const void *a, const void *b)
{
	const struct bp_fact *x = *(const struct bp_fact *const *)a, *y = *(const struct bp_fact *const *)b;
	int order = strcmp(x->s1, y->s1);

	return order ? order : (x > y) - (x < y);
}

static int compare_position(const void *a, const void *b)
{
	const struct bp_fact *x = *(const struct bp_fact *const *)a, *y = *(const struct bp_fact *const *)b;

	return (x > y) - (x < y);
}

/* A later fact with the same key corrects an earlier one. */
static BP_MUST_CHECK struct bp_err *collect_infos(struct info *in, const struct bp_fact *facts,
						  size_t n_facts)
{
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < n_facts; i++)
		n += facts[i].kind == BP_FACT_INFO;
	if (!n)
		return NULL;
	in->infos = calloc(n, sizeof(const struct bp_fact *));
	if (!in->infos)
		return bp_err_nomem();
	n = 0;
	for (size_t i = 0; i < n_facts; i++)
		if (facts[i].kind == BP_FACT_INFO)
			in->infos[n++] = &facts[i];
	qsort(in->infos, n, sizeof(*in->infos), compare_key);
	for (size_t i = 0; i < n; i++)
		if (i + 1 == n || strcmp(in->infos[i]->s1, in->infos[i + 1]->s1))
			in->infos[kept++] = in->infos[i];
	qsort(in->infos, kept, sizeof(*in->infos), compare_position);
	in->n_infos = kept;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *collect(struct info *in, bool quick)
{
	size_t n_facts, n_folds;
	const struct bp_fact *facts = bp_trace_facts(in->trace, &n_facts);
	const struct bp_fold *folds = bp_trace_folds(in->trace, &n_folds);
	struct bp_err *err = collect_infos(in, facts, n_facts);

	for (size_t i = 0; i < n_facts && !err; i++) {
		const struct bp_fact *f = &facts[i];

		if (f->time_ns > in->duration_ns)
			in->duration_ns = f->time_ns;
		if (f->kind == BP_FACT_END)
			in->end = f;
		else if (f->kind == BP_FACT_VCPU)
			err = add_vcpu(in, f);
	}
	if (err)
		return err;
	in->blocks = bp_trace_n_blocks(in->trace);
	for (size_t i = 0; i < in->blocks; i++) {
		uint64_t first, last;

		bp_trace_block_range(in->trace, i, &first, &last);
		if (last > in->duration_ns)
			in->duration_ns = last;
	}
	if (!quick) {
		err = read_blocks(in);
		if (err)
			return err;
	}
	for (size_t i = 0; i < n_folds; i++)
		in->folded_calls += folds[i].calls;
	in->calls += in->folded_calls;
	for (size_t i = 0; i < in->n_vcpus; i++)
		in->insns += in->vcpus[i].insns;
	if (in->end) {
		in->duration_ns = in->end->time_ns ? in->end->time_ns : in->duration_ns;
		in->insns = in->end->v[1] ? in->end->v[1] : in->insns;
		if (quick) {
			in->calls = in->end->v[2];
			in->calls_known = true;
		}
	}
	return NULL;
}

static bool is_known(const char *key)
{
	for (size_t i = 0; i < BP_ARRAY_SIZE(keys); i++)
		if (!strcmp(keys[i].key, key))
			return true;
	return false;
}

/* Text */

struct text {
	struct bp_strbuf *sb;
	const struct bp_render *how;
};

static void add_safe(const struct text *tx, const char *s)
{
	struct bp_strbuf safe = BP_STRBUF_INIT;

	bp_strbuf_add_term(&safe, s, strlen(s));
	for (size_t i = 0; i < safe.len; i++) {
		unsigned char c = (unsigned char)safe.data[i];

		if (c < 0x80 || tx->how->utf8)
			bp_strbuf_addc(tx->sb, (char)c);
		else
			bp_strbuf_addf(tx->sb, "\\x%02x", c);
	}
	tx->sb->failed |= safe.failed;
	bp_strbuf_deinit(&safe);
}

static void add_label(const struct text *tx, const char *label)
{
	size_t start;

	if (tx->how->color)
		bp_strbuf_adds(tx->sb, "\033[1m");
	start = tx->sb->len;
	add_safe(tx, label);
	if (tx->how->color)
		bp_strbuf_adds(tx->sb, "\033[0m");
	for (size_t n = tx->sb->len - start - (tx->how->color ? 4 : 0); n < 20; n++)
		bp_strbuf_addc(tx->sb, ' ');
	bp_strbuf_addc(tx->sb, ' ');
}

static void add_line(const struct text *tx, const char *label, const char *value)
{
	add_label(tx, label);
	add_safe(tx, value);
	bp_strbuf_addc(tx->sb, '\n');
}

static const char *end_words(const char *how)
{
	static const struct {
		const char *how, *words;
	} table[] = {
	    {"poweroff", "the guest powered off"},
	    {"reboot", "the guest rebooted"},
	    {"panic", "the guest's kernel panicked"},
	    {"marker", "the ready marker was reached"},
	    {"timeout", "the time limit was reached"},
	    {"interrupt", "interrupted by the user"},
	    {"killed", "QEMU was killed"},
	    {"exit", "QEMU ended"},
	    {"end of trace", "end of the imported trace"},
	};

	for (size_t i = 0; i < BP_ARRAY_SIZE(table); i++)
		if (!strcmp(table[i].how, how))
			return table[i].words;
	return how;
}

/* The recorder has only that of a QEMU which it started itself. */
static bool has_status(const struct info *in)
{
	return !bp_trace_info(in->trace, "import_format") && !bp_trace_info(in->trace, "pid");
}

static void text_size(const struct info *in, const struct text *tx)
{
	char a[BP_UNITS_MAX], b[BP_UNITS_MAX];
	uint64_t bytes = bp_trace_bytes(in->trace);
	struct bp_strbuf line = BP_STRBUF_INIT;

	bp_strbuf_addf(&line, "%s", bp_units_bytes(a, bytes));
	if (in->calls_known && in->calls)
		bp_strbuf_addf(&line, ", %s bytes per call", bp_units_ratio(b, bytes, in->calls));
	add_line(tx, "Size", bp_strbuf_str(&line));
	if (in->calls_known) {
		bp_strbuf_clear(&line);
		bp_strbuf_addf(&line, "%" PRIu64, in->calls);
		if (in->folded_calls)
			bp_strbuf_addf(&line, ", %" PRIu64 " of them as totals only (--max-size)",
				       in->folded_calls);
		add_line(tx, "Calls", bp_strbuf_str(&line));
	}
	bp_strbuf_clear(&line);
	if (in->events_read)
		bp_strbuf_addf(&line, "%" PRIu64 " in ", in->events);
	bp_strbuf_addf(&line, "%" PRIu64 " block%s", in->blocks, in->blocks == 1 ? "" : "s");
	add_line(tx, "Events", bp_strbuf_str(&line));
	if (bp_trace_n_waits(in->trace)) {
		bp_strbuf_clear(&line);
		bp_strbuf_addf(&line, "%" PRIu64 " records of host threads",
			       bp_trace_n_wait_records(in->trace));
		add_line(tx, "Waits", bp_strbuf_str(&line));
	}
	tx->sb->failed |= line.failed;
	bp_strbuf_deinit(&line);
}

static void text_loss(const struct info *in, const struct text *tx)
{
	struct bp_strbuf line = BP_STRBUF_INIT;
	bool any = false;
	size_t n;
	const struct bp_fact *facts = bp_trace_facts(in->trace, &n);

	bp_input_damage_text(in->trace, &line);
	if (line.len) {
		add_line(tx, "Damage", bp_strbuf_str(&line));
		any = true;
	}
	if (in->bad_blocks) {
		bp_strbuf_clear(&line);
		bp_strbuf_addf(&line,
			       "%" PRIu64 " of %" PRIu64 " blocks of events cannot be read; the first: %s",
			       in->bad_blocks, in->blocks, in->first_bad ? in->first_bad : "?");
		add_line(tx, "Damage", bp_strbuf_str(&line));
		any = true;
	}
	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind != BP_FACT_LOST)
			continue;
		bp_strbuf_clear(&line);
		bp_strbuf_addf(&line, "%" PRIu64 " records: %s", facts[i].v[0], facts[i].s1);
		add_line(tx, "Lost", bp_strbuf_str(&line));
		any = true;
	}
	if (in->lost_places) {
		bp_strbuf_clear(&line);
		bp_strbuf_addf(&line, "%" PRIu64 " records at %" PRIu64 " places among the events",
			       in->lost_events, in->lost_places);
		add_line(tx, "Lost", bp_strbuf_str(&line));
		any = true;
	}
	if (!any)
		add_line(tx, "Damage and loss",
			 in->events_read ? "none" : "none seen (the events were not read)");
	tx->sb->failed |= line.failed;
	bp_strbuf_deinit(&line);
}

static void add_text(const struct info *in, const struct text *tx)
{
	char a[BP_UNITS_MAX], b[BP_UNITS_MAX], c[BP_UNITS_MAX];
	struct bp_strbuf line = BP_STRBUF_INIT;

	add_line(tx, "Recording", bp_trace_path(in->trace));
	for (size_t i = 0; i < BP_ARRAY_SIZE(keys); i++) {
		const char *value = bp_trace_info(in->trace, keys[i].key);

		if (value)
			add_line(tx, keys[i].label, value);
	}
	for (size_t i = 0; i < in->n_infos; i++)
		if (!is_known(in->infos[i]->s1))
			add_line(tx, in->infos[i]->s1, in->infos[i]->s2);
	add_line(tx, "Duration", bp_units_ns(a, (int64_t)in->duration_ns));
	if (in->end) {
		bp_strbuf_adds(&line, end_words(in->end->s1));
		if (has_status(in))
			bp_strbuf_addf(&line, "; QEMU's exit status %" PRIu64, in->end->v[0]);
		add_line(tx, "Ended", bp_strbuf_str(&line));
	} else {
		add_line(tx, "Ended", "not known: the end of the recording is missing");
	}
	if (in->insns) {
		bp_strbuf_clear(&line);
		bp_strbuf_addf(&line, "%" PRIu64, in->insns);
		add_line(tx, "Instructions", bp_strbuf_str(&line));
	}
	for (size_t i = 0; i < in->n_vcpus; i++) {
		const struct vcpu *v = &in->vcpus[i];

		if (!v->seen)
			continue;
		bp_strbuf_clear(&line);
		bp_strbuf_addf(&line, "vCPU %zu", i);
		add_label(tx, bp_strbuf_str(&line));
		bp_strbuf_addf(tx->sb, "%s instructions, halted %s, %s events\n", bp_units_count(a, v->insns),
			       bp_units_ns(b, (int64_t)v->halted_ns), bp_units_count(c, v->events));
	}
	text_size(in, tx);
	text_loss(in, tx);
	tx->sb->failed |= line.failed;
	bp_strbuf_deinit(&line);
}

/* JSON */

static void json_str(struct bp_strbuf *sb, const char *s)
{
	bp_strbuf_addc(sb, '"');
	bp_strbuf_add_json(sb, s, strlen(s));
	bp_strbuf_addc(sb, '"');
}

static void json_u64(struct bp_strbuf *sb, const char *key, uint64_t v)
{
	bp_strbuf_addf(sb, ",\n\"%s\":%" PRIu64, key, v);
}

static void json_known(struct bp_strbuf *sb, const char *key, bool known, uint64_t v)
{
	if (known)
		json_u64(sb, key, v);
	else
		bp_strbuf_addf(sb, ",\n\"%s\":null", key);
}

static void json_facts(struct bp_strbuf *sb, const struct info *in)
{
	const char *sep = "\n";
	size_t n;
	const struct bp_fact *facts = bp_trace_facts(in->trace, &n);

	bp_strbuf_adds(sb, ",\n\"lost\":[");
	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind != BP_FACT_LOST)
			continue;
		bp_strbuf_addf(sb, "%s{\"records\":%" PRIu64 ",\"why\":", sep, facts[i].v[0]);
		json_str(sb, facts[i].s1);
		bp_strbuf_addc(sb, '}');
		sep = ",\n";
	}
	bp_strbuf_adds(sb, "],\n\"info\":{");
	for (size_t i = 0; i < in->n_infos; i++) {
		bp_strbuf_adds(sb, i ? ",\n" : "\n");
		json_str(sb, in->infos[i]->s1);
		bp_strbuf_addc(sb, ':');
		json_str(sb, in->infos[i]->s2);
	}
	bp_strbuf_adds(sb, "}");
}

static void add_json(const struct info *in, struct bp_strbuf *sb)
{
	const struct bp_trace_damage *d = bp_trace_damage(in->trace);
	uint64_t bytes = bp_trace_bytes(in->trace);
	char ratio[BP_UNITS_MAX];
	const char *sep = "\n";

	bp_strbuf_adds(sb, "{\"schema\":\"bootprof-info/1\",\n\"file\":");
	json_str(sb, bp_trace_path(in->trace));
	json_u64(sb, "bytes", bytes);
	json_known(sb, "calls", in->calls_known, in->calls);
	json_u64(sb, "folded_calls", in->folded_calls);
	bp_strbuf_addf(sb, ",\n\"bytes_per_call\":%s",
		       in->calls_known && in->calls ? bp_units_ratio(ratio, bytes, in->calls) : "null");
	json_known(sb, "events", in->events_read, in->events);
	json_u64(sb, "blocks", in->blocks);
	json_u64(sb, "wait_records", bp_trace_n_wait_records(in->trace));
	json_u64(sb, "duration_ns", in->duration_ns);
	json_u64(sb, "insns", in->insns);
	bp_strbuf_adds(sb, ",\n\"vcpus\":[");
	for (size_t i = 0; i < in->n_vcpus; i++) {
		const struct vcpu *v = &in->vcpus[i];

		if (!v->seen)
			continue;
		bp_strbuf_addf(sb,
			       "%s{\"vcpu\":%zu,\"insns\":%" PRIu64 ",\"halted_ns\":%" PRIu64
			       ",\"events\":%" PRIu64 "}",
			       sep, i, v->insns, v->halted_ns, v->events);
		sep = ",\n";
	}
	bp_strbuf_adds(sb, "],\n\"end\":");
	if (in->end) {
		bp_strbuf_adds(sb, "{\"how\":");
		json_str(sb, in->end->s1);
		if (has_status(in))
			bp_strbuf_addf(sb, ",\"status\":%" PRIu64 "}", in->end->v[0]);
		else
			bp_strbuf_adds(sb, ",\"status\":null}");
	} else {
		bp_strbuf_adds(sb, "null");
	}
	bp_strbuf_addf(sb,
		       ",\n\"damage\":{\"unfinished\":%s,\"bad_chunks\":%" PRIu64
		       ",\"missing_chunks\":%" PRIu64 ",\"lost_bytes\":%" PRIu64 ",\"bad_blocks\":%" PRIu64
		       "}",
		       d->unfinished ? "true" : "false", d->bad_chunks, d->missing_chunks, d->lost_bytes,
		       in->bad_blocks);
	json_u64(sb, "lost_places", in->lost_places);
	json_u64(sb, "lost_records", in->lost_events);
	json_facts(sb, in);
	bp_strbuf_adds(sb, "}\n");
}

static BP_MUST_CHECK struct bp_err *show(const struct info *in, const struct bp_output_how *how)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_output *out;
	struct bp_err *err = bp_output_open(how, &out);

	if (err)
		return err;
	if (how->format == BP_FORMAT_JSON)
		add_json(in, &sb);
	else
		add_text(in, &(struct text){.sb = &sb, .how = bp_output_render(out)});
	err = bp_strbuf_ok(&sb);
	if (!err)
		fwrite(sb.data, 1, sb.len, bp_output_file(out));
	bp_strbuf_deinit(&sb);
	if (err) {
		bp_err_ignore(bp_output_close(out));
		return err;
	}
	return bp_output_close(out);
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	bp_cleanup(bp_input_closep) struct bp_trace *trace = NULL;
	struct bp_output_how how = {0};
	struct info in = {0};
	const char *input = NULL;
	struct bp_import_options foreign = {0};
	bool quick = false, taken;
	struct bp_err *err;
	int c;

	(void)status;
	while ((c = getopt_long(argc, argv, "i:h", options, NULL)) != -1) {
		switch (c) {
		case 'i':
			input = optarg;
			break;
		case OPT_QUICK:
			quick = true;
			break;
		case 'h':
			fputs(help, stdout);
			return NULL;
		default:
			err = bp_foreign_option(&foreign, c, optarg, &taken);
			if (!err && !taken)
				err = bp_output_option(&how, c, optarg, "text|json");
			if (err)
				return err;
		}
	}
	if (optind < argc)
		return bp_err_new(BP_EUSAGE, "unexpected argument \"%s\"; a recording is named with -i",
				  argv[optind]);
	err = bp_input_open_with(input, &foreign, &trace);
	if (err)
		return err;
	in.trace = trace;
	err = collect(&in, quick);
	if (!err)
		err = show(&in, &how);
	free(in.vcpus);
	free(in.infos);
	free(in.first_bad);
	return err;
}

const struct bp_cmd bp_cmd_info = {
    .name = "info",
    .summary = "what a recording is: machine, guest, size, what it lost",
    .run = run,
};
