// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tui/tui.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/phases.h"
#include "core/cleanup.h"
#include "core/units.h"
#include "core/waits.h"
#include "tui/frame.h"

#define MIN_SPAN 16 /* of the window, ns or instructions */
#define MIN_W 40
#define MIN_H 10
#define FIND_BLOCKS 4000 /* that are read for one search, about a second */

/* ---- positions ---- */

double bp_tui_pos(const struct bp_tui *tui, uint64_t ns)
{
	return tui->clock == BP_CLOCK_TIME ? (double)ns : bp_index_insns_at(tui->index, ns);
}

static uint64_t end_ns(const struct bp_tui *tui)
{
	return tui->a->end_ns ? tui->a->end_ns : 1;
}

uint64_t bp_tui_ns(const struct bp_tui *tui, double pos)
{
	if (!(pos > 0))
		return 0;
	if (tui->clock == BP_CLOCK_INSNS)
		return bp_index_ns_at(tui->index, pos);
	return pos >= 1.8e19 ? UINT64_MAX : (uint64_t)pos;
}

double bp_tui_end(const struct bp_tui *tui)
{
	double end = bp_tui_pos(tui, end_ns(tui));

	return end > MIN_SPAN ? end : MIN_SPAN;
}

double bp_tui_start(const struct bp_tui *tui)
{
	double start = bp_tui_pos(tui, tui->start_ns);

	return start + MIN_SPAN <= bp_tui_end(tui) ? start : 0;
}

/* Traces have clocks of their own: an hour in which nothing was recorded is not shown. */
static uint64_t find_start(const struct bp_tui *tui)
{
	uint64_t start = UINT64_MAX, first, last;
	size_t n;
	const struct bp_fact *facts = bp_trace_facts(tui->trace, &n);

	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind == BP_FACT_MARK || facts[i].kind == BP_FACT_CONSOLE)
			start = facts[i].time_ns < start ? facts[i].time_ns : start;
	}
	for (size_t i = 0; i < bp_trace_n_blocks(tui->trace); i++) {
		bp_trace_block_range(tui->trace, i, &first, &last);
		start = first < start ? first : start;
	}
	for (size_t i = 0; i < bp_trace_n_waits(tui->trace); i++) {
		bp_trace_waits_range(tui->trace, i, &first, &last);
		start = first < start ? first : start;
	}
	return start < end_ns(tui) && start > end_ns(tui) / 2 ? start : 0;
}

const char *bp_tui_pos_text(const struct bp_tui *tui, double pos, double step, char buf[BP_POS_MAX])
{
	const char *unit = tui->clock == BP_CLOCK_TIME ? "s" : "M";
	double scale = tui->clock == BP_CLOCK_TIME ? 1e9 : 1e6;
	int digits = step > 0 ? (int)ceil(log10(scale / step) - 1e-9) : 3;
	int most = tui->clock == BP_CLOCK_TIME ? 9 : 6;

	digits = digits < 0 ? 0 : digits > most ? most : digits;
	snprintf(buf, BP_POS_MAX, "%.*f %s", digits, pos / scale, unit);
	return buf;
}

bool bp_tui_range(const struct bp_tui *tui, uint64_t *from_ns, uint64_t *to_ns)
{
	bool set = tui->range_a != BP_TUI_NO_TIME || tui->range_b != BP_TUI_NO_TIME;
	uint64_t a = tui->range_a == BP_TUI_NO_TIME ? 0 : tui->range_a;
	uint64_t b = tui->range_b == BP_TUI_NO_TIME ? end_ns(tui) : tui->range_b;

	*from_ns = a < b ? a : b;
	*to_ns = a < b ? b : a;
	return set;
}

/* ---- the window ---- */

void bp_tui_set_window(struct bp_tui *tui, double from, double to, bool remember)
{
	double end = bp_tui_end(tui), span = to - from;
	struct bp_tui_window old = tui->window;

	if (!(span >= MIN_SPAN)) {
		from -= (MIN_SPAN - span) / 2;
		span = MIN_SPAN;
	}
	if (span > end)
		span = end;
	if (!(from >= 0))
		from = 0;
	if (from + span > end)
		from = end - span;
	tui->window.from = from;
	tui->window.to = from + span;
	if (remember && (old.from != tui->window.from || old.to != tui->window.to)) {
		old.cursor_ns = tui->cursor_ns;
		if (tui->history_at == BP_TUI_HISTORY) {
			memmove(tui->history, tui->history + 1,
				sizeof(tui->history) - sizeof(tui->history[0]));
			tui->history_at--;
		}
		tui->history[tui->history_at++] = old;
		tui->n_history = tui->history_at;
	}
}

void bp_tui_look_at(struct bp_tui *tui, uint64_t ns)
{
	double pos = bp_tui_pos(tui, ns), span = tui->window.to - tui->window.from;

	tui->cursor_ns = ns;
	if (pos < tui->window.from || pos >= tui->window.to)
		bp_tui_set_window(tui, pos - span / 2, pos + span / 2, true);
}

/* u and Ctrl-R: the window of now takes the place of the one that comes back. */
static void history_step(struct bp_tui *tui, bool back)
{
	struct bp_tui_window now = tui->window, *slot;

	if (back ? !tui->history_at : tui->history_at >= tui->n_history) {
		bp_tui_say(tui, back ? "nothing to undo" : "nothing to redo");
		return;
	}
	slot = &tui->history[back ? --tui->history_at : tui->history_at++];
	now.cursor_ns = tui->cursor_ns;
	tui->cursor_ns = slot->cursor_ns;
	bp_tui_set_window(tui, slot->from, slot->to, false);
	*slot = now;
	bp_tui_changed(tui);
}

static void change_clock(struct bp_tui *tui)
{
	uint64_t from = bp_tui_ns(tui, tui->window.from), to = bp_tui_ns(tui, tui->window.to);

	if (tui->clock == BP_CLOCK_TIME && !tui->a->end_insns &&
	    bp_index_insns_at(tui->index, UINT64_MAX / 2) <= 0) {
		bp_tui_warn(tui, "this recording has no instruction counts");
		return;
	}
	tui->clock = tui->clock == BP_CLOCK_TIME ? BP_CLOCK_INSNS : BP_CLOCK_TIME;
	bp_tui_set_window(tui, bp_tui_pos(tui, from), bp_tui_pos(tui, to), false);
	tui->n_history = tui->history_at = 0;
	bp_tui_say(tui, "clock: %s", tui->clock == BP_CLOCK_TIME ? "host time" : "instructions of all vCPUs");
	bp_tui_changed(tui);
}

/* ---- messages, prompts ---- */

static void say(struct bp_tui *tui, bool warns, const char *fmt, va_list ap)
{
	vsnprintf(tui->message, sizeof(tui->message), fmt, ap);
	tui->message_warns = warns;
}

void bp_tui_say(struct bp_tui *tui, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(tui, false, fmt, ap);
	va_end(ap);
}

void bp_tui_warn(struct bp_tui *tui, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(tui, true, fmt, ap);
	va_end(ap);
}

static void ask(struct bp_tui *tui, enum bp_tui_prompt prompt, const char *label, const char *text)
{
	size_t n = text ? strlen(text) : 0;

	tui->prompt = prompt;
	tui->prompt_label = label;
	tui->palette_at = 0;
	tui->input_len = n < sizeof(tui->input) - 8 ? n : 0;
	if (tui->input_len)
		memcpy(tui->input, text, tui->input_len);
	tui->input[tui->input_len] = 0;
}

void bp_tui_ask(struct bp_tui *tui, const char *label, const char *text)
{
	ask(tui, BP_PROMPT_VIEW, label, text);
}

void bp_tui_changed(struct bp_tui *tui)
{
	const struct bp_tui_view *v = bp_tui_views[tui->view];

	tui->seen++;
	if (tui->opened[tui->view] && v->sync)
		v->sync(tui, tui->selfs[tui->view]);
}

struct bp_err *bp_tui_show(struct bp_tui *tui, const struct bp_tui_view *view)
{
	unsigned i = 0;

	while (i + 1 < bp_tui_n_views && bp_tui_views[i] != view)
		i++;
	if (!tui->opened[i]) {
		if (view->open) {
			struct bp_err *err = view->open(tui, &tui->selfs[i]);

			if (err)
				return err;
		}
		tui->opened[i] = true;
	}
	if (i)
		tui->last_table = i;
	tui->view = i;
	if (view->sync)
		view->sync(tui, tui->selfs[i]);
	return NULL;
}

/* ---- functions ---- */

uint32_t bp_tui_function(const struct bp_tui *tui, const char *name, const char *module, uint64_t addr)
{
	const struct bp_rows *rows = &tui->a->rows;
	char buf[BP_ROW_NAME_MAX];

	for (size_t i = 0; i < rows->n; i++) {
		if ((addr && rows->rows[i].addr != addr) || (module && strcmp(rows->rows[i].module, module)))
			continue;
		if (!strcmp(bp_row_name(rows, (uint32_t)i, buf), name))
			return (uint32_t)i;
	}
	return BP_NO_ROW;
}

unsigned bp_tui_style_of(const struct bp_tui *tui, uint32_t row)
{
	static const uint8_t styles[BP_MODES] = {
	    [BP_MODE_UNKNOWN] = BP_STYLE_OTHER, [BP_MODE_FIRMWARE] = BP_STYLE_FIRMWARE,
	    [BP_MODE_KERNEL] = BP_STYLE_KERNEL, [BP_MODE_MODULE] = BP_STYLE_MODULE,
	    [BP_MODE_USER] = BP_STYLE_USER,     [BP_MODE_IDLE] = BP_STYLE_IDLE,
	};

	return styles[bp_index_mode(tui->index, row)];
}

static void hit_taken(struct bp_tui *tui, const struct bp_index_hit *hit)
{
	tui->selected = hit->row;
	tui->cursor_vcpu = (int)hit->vcpu;
	tui->cursor_depth = hit->depth;
	bp_tui_look_at(tui, hit->ns);
	bp_tui_changed(tui);
}

static void say_hit(struct bp_tui *tui, const struct bp_index_hit *hit, const char *note)
{
	char buf[BP_ROW_NAME_MAX], pos[BP_POS_MAX];

	bp_tui_say(tui, "%s at %s on vCPU %" PRIu32 "%s", bp_row_name(&tui->a->rows, hit->row, buf),
		   bp_tui_pos_text(tui, bp_tui_pos(tui, hit->ns), 1e3, pos), hit->vcpu, note);
}

struct bp_err *bp_tui_find(struct bp_tui *tui, bool back)
{
	struct bp_index_query q = {.rows = tui->search.rows,
				   .vcpu = -1,
				   .ns = tui->cursor_ns,
				   .back = back,
				   .max_blocks = FIND_BLOCKS};
	struct bp_index_hit hit;
	struct bp_err *err;
	char note[64];
	bool around = false;

	if (!tui->search.text) {
		bp_tui_warn(tui, "nothing to look for yet: / asks");
		return NULL;
	}
	if (!tui->search.n_rows) {
		bp_tui_warn(tui, "no function matches %s", tui->search.text);
		return NULL;
	}
	err = bp_index_find(tui->index, &q, &hit);
	if (!err && !hit.found && !hit.gave_up) {
		around = true;
		q.ns = back ? UINT64_MAX : 0;
		err = bp_index_find(tui->index, &q, &hit);
	}
	if (err)
		return err;
	if (!hit.found) {
		bp_tui_warn(tui,
			    hit.gave_up ? "not found nearby, and the index is not complete yet: try again"
					: "%s is never entered",
			    tui->search.text);
		return NULL;
	}
	hit_taken(tui, &hit);
	snprintf(note, sizeof(note), "  (%zu function%s match%s)%s", tui->search.n_rows,
		 tui->search.n_rows == 1 ? "" : "s", tui->search.n_rows == 1 ? "es" : "",
		 !around ? ""
		 : back  ? ", from the end again"
			 : ", from the start again");
	say_hit(tui, &hit, note);
	return NULL;
}

/* First entry of @row at or after @ns. */
static struct bp_err *find_row(struct bp_tui *tui, uint32_t row, uint64_t ns, struct bp_index_hit *hit)
{
	bp_autofree uint8_t *rows = calloc(tui->a->rows.n + 1, 1);
	struct bp_index_query q = {.rows = rows, .vcpu = -1, .ns = ns, .max_blocks = FIND_BLOCKS};
	struct bp_err *err;

	if (!rows)
		return bp_err_nomem();
	rows[row] = 1;
	err = bp_index_find(tui->index, &q, hit);
	if (!err && !hit->found && ns) {
		q.ns = 0;
		err = bp_index_find(tui->index, &q, hit);
	}
	return err;
}

struct bp_err *bp_tui_jump_to(struct bp_tui *tui, uint32_t row)
{
	struct bp_index_hit hit;
	struct bp_err *err;

	if (row >= tui->a->rows.n) {
		bp_tui_warn(tui, "there is no place in time for this row");
		return NULL;
	}
	tui->selected = row;
	err = find_row(tui, row, tui->cursor_ns ? tui->cursor_ns - 1 : 0, &hit);
	if (err)
		return err;
	if (!hit.found) {
		bp_tui_warn(tui, "no entry of this function in the events");
		return NULL;
	}
	hit_taken(tui, &hit);
	say_hit(tui, &hit, "");
	return bp_tui_show(tui, &bp_tui_timeline);
}

struct bp_err *bp_tui_jump_at(struct bp_tui *tui, uint32_t row, uint64_t ns)
{
	if (row < tui->a->rows.n) {
		struct bp_index_hit hit;
		struct bp_err *err = find_row(tui, row, ns ? ns - 1 : 0, &hit);

		if (err)
			return err;
		tui->selected = row;
		if (hit.found && hit.ns == ns) {
			hit_taken(tui, &hit);
			say_hit(tui, &hit, "");
			return bp_tui_show(tui, &bp_tui_timeline);
		}
	}
	bp_tui_look_at(tui, ns);
	bp_tui_changed(tui);
	return bp_tui_show(tui, &bp_tui_timeline);
}

/* Which functions match; *ok false when it is no regular expression. */
static struct bp_err *compile_search(struct bp_tui *tui, const char *text, bool back, bool *ok)
{
	struct bp_tui_search *s = &tui->search;
	const struct bp_rows *rows = &tui->a->rows;
	char buf[BP_ROW_NAME_MAX], *copy;
	bool upper = false;
	regex_t re;

	for (const char *p = text; *p; p++)
		upper |= isupper((unsigned char)*p) != 0;
	if (regcomp(&re, text, REG_EXTENDED | REG_NOSUB | (upper ? 0 : REG_ICASE))) {
		*ok = false;
		return NULL;
	}
	copy = strdup(text);
	free(s->rows);
	s->rows = calloc(rows->n + 1, 1);
	s->n_rows = 0;
	for (size_t i = 0; s->rows && i < rows->n; i++) {
		s->rows[i] = !regexec(&re, bp_row_name(rows, (uint32_t)i, buf), 0, NULL, 0);
		s->n_rows += s->rows[i];
	}
	regfree(&re);
	free(s->text);
	s->text = copy;
	s->back = back;
	if (!copy || !s->rows) {
		free(s->rows);
		free(s->text);
		memset(s, 0, sizeof(*s));
		return bp_err_nomem();
	}
	*ok = true;
	return NULL;
}

static struct bp_err *set_search(struct bp_tui *tui, const char *text, bool back)
{
	bool ok;
	struct bp_err *err = compile_search(tui, text, back, &ok);

	if (err)
		return err;
	if (!ok) {
		bp_tui_warn(tui, "not a regular expression: %s", text);
		return NULL;
	}
	return bp_tui_find(tui, back);
}

/* ---- go to, filter ---- */

/* "12.5M", "300k", "1G": instructions. */
static bool parse_insns(const char *text, double *ret)
{
	char *end;
	double v = strtod(text, &end), scale = 1;

	if (end == text || !(v >= 0) || v > 1e18)
		return false;
	switch (*end) {
	case 'k':
	case 'K':
		scale = 1e3;
		end++;
		break;
	case 'M':
		scale = 1e6;
		end++;
		break;
	case 'G':
		scale = 1e9;
		end++;
		break;
	default:
		break;
	}
	*ret = v * scale;
	return !*end;
}

static struct bp_err *go_to(struct bp_tui *tui, const char *text)
{
	uint64_t ns, last;
	double insns;
	uint32_t row;
	struct bp_index_hit hit;
	struct bp_err *err;

	if (bp_phases_find(tui->a, text, &ns, &last)) {
		tui->cursor_ns = ns;
		bp_tui_set_window(tui, bp_tui_pos(tui, ns), bp_tui_pos(tui, last), true);
		bp_tui_changed(tui);
		return bp_tui_show(tui, &bp_tui_timeline);
	}
	if (tui->clock == BP_CLOCK_INSNS && parse_insns(text, &insns)) {
		ns = bp_tui_ns(tui, insns);
	} else if (!bp_parse_time(text, 1e9, &ns) && !bp_phases_mark(tui->a, text, &ns)) {
		row = bp_tui_function(tui, text, NULL, 0);
		if (row == BP_NO_ROW) {
			bp_tui_warn(tui, "no time (1.5s, 200ms), phase, mark or function: %s", text);
			return NULL;
		}
		err = find_row(tui, row, 0, &hit);
		if (err)
			return err;
		if (!hit.found) {
			bp_tui_warn(tui, "%s is never entered", text);
			return NULL;
		}
		hit_taken(tui, &hit);
		say_hit(tui, &hit, ", its first call");
		return bp_tui_show(tui, &bp_tui_timeline);
	}
	if (ns > end_ns(tui)) {
		bp_tui_warn(tui, "the recording ends before %s", text);
		return NULL;
	}
	bp_tui_look_at(tui, ns);
	bp_tui_changed(tui);
	return bp_tui_show(tui, &bp_tui_timeline);
}

static void clear_filter(struct bp_tui *tui)
{
	bp_query_deinit(&tui->filter);
	memset(&tui->filter, 0, sizeof(tui->filter));
	free(tui->filter_text);
	tui->filter_text = NULL;
}

struct bp_err *bp_tui_parse_filter(const char *text, struct bp_query *q)
{
	bp_autofree char *copy = strdup(text);
	char *save = NULL;
	struct bp_err *err = NULL;

	if (!copy)
		return bp_err_nomem();
	for (char *word = strtok_r(copy, " ", &save); word && !err; word = strtok_r(NULL, " ", &save)) {
		if (!strncmp(word, "vcpu=", 5))
			err = bp_query_vcpus(q, word + 5);
		else if (!strncmp(word, "module=", 7))
			err = bp_patterns_add(&q->modules, word + 7);
		else
			err = bp_patterns_add(&q->processes, strncmp(word, "process=", 8) ? word : word + 8);
	}
	return err;
}

static struct bp_err *set_filter(struct bp_tui *tui, const char *text)
{
	struct bp_err *err;

	clear_filter(tui);
	err = bp_tui_parse_filter(text, &tui->filter);
	if (err && bp_err_code(err) != BP_ENOMEM) {
		bp_tui_warn(tui, "%s", bp_err_text(err));
		bp_err_ignore(err);
		err = NULL;
		clear_filter(tui);
	} else if (!err && text[strspn(text, " ")]) {
		tui->filter_text = strdup(text);
		if (!tui->filter_text)
			err = bp_err_nomem();
	}
	bp_tui_changed(tui);
	return err;
}

/* ---- keys ---- */

static struct bp_err *view_prompt(struct bp_tui *tui, bool done)
{
	const struct bp_tui_view *v = bp_tui_views[tui->view];

	return v->prompt ? v->prompt(tui, tui->selfs[tui->view], tui->input, done) : NULL;
}

static struct bp_err *prompt_done(struct bp_tui *tui)
{
	enum bp_tui_prompt prompt = tui->prompt;
	struct bp_key key;

	tui->prompt = BP_PROMPT_NONE;
	switch (prompt) {
	case BP_PROMPT_SEARCH:
		if (!tui->input_len)
			return NULL;
		return set_search(tui, tui->input, tui->prompt_label[0] == '?');
	case BP_PROMPT_GOTO:
		return tui->input_len ? go_to(tui, tui->input) : NULL;
	case BP_PROMPT_FILTER:
		return set_filter(tui, tui->input);
	case BP_PROMPT_COMMAND:
		if (!bp_frame_command(tui, &key))
			return NULL;
		return bp_tui_key(tui, &key);
	case BP_PROMPT_VIEW:
		return view_prompt(tui, true);
	default:
		return NULL;
	}
}

static void input_add(struct bp_tui *tui, uint32_t c)
{
	char buf[4];
	size_t n = 0;

	if (c < 0x80) {
		buf[n++] = (char)c;
	} else if (c < 0x800) {
		buf[n++] = (char)(0xc0 | c >> 6);
		buf[n++] = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		buf[n++] = (char)(0xe0 | c >> 12);
		buf[n++] = (char)(0x80 | (c >> 6 & 0x3f));
		buf[n++] = (char)(0x80 | (c & 0x3f));
	} else {
		return;
	}
	if (tui->input_len + n >= sizeof(tui->input))
		return;
	memcpy(tui->input + tui->input_len, buf, n);
	tui->input_len += n;
	tui->input[tui->input_len] = 0;
}

static struct bp_err *prompt_key(struct bp_tui *tui, const struct bp_key *key)
{
	switch (key->code) {
	case BP_KEY_ENTER:
		return prompt_done(tui);
	case BP_KEY_ESCAPE:
		tui->input_len = 0;
		tui->input[0] = 0;
		if (tui->prompt == BP_PROMPT_VIEW) {
			tui->prompt = BP_PROMPT_NONE;
			return view_prompt(tui, true);
		}
		tui->prompt = BP_PROMPT_NONE;
		return NULL;
	case 21: /* Ctrl-U */
		tui->input_len = 0;
		break;
	case BP_KEY_BACKSPACE:
	case 8:
		while (tui->input_len && (tui->input[--tui->input_len] & 0xc0) == 0x80)
			;
		break;
	case BP_KEY_UP:
	case BP_KEY_DOWN:
		tui->palette_at += key->code == BP_KEY_UP ? -1 : 1;
		return NULL;
	default:
		if (key->code < 0x20 || key->code >= 0x110000 || (key->code >= 0x7f && key->code < 0xa0))
			return NULL;
		input_add(tui, key->code);
		break;
	}
	tui->input[tui->input_len] = 0;
	tui->palette_at = 0;
	return tui->prompt == BP_PROMPT_VIEW ? view_prompt(tui, false) : NULL;
}

static void mark_key(struct bp_tui *tui, uint32_t prefix, uint32_t c)
{
	char pos[BP_POS_MAX];

	if (c < 'a' || c > 'z') {
		bp_tui_warn(tui, "marks are the letters a to z");
		return;
	}
	if (prefix == 'm') {
		tui->marks[c - 'a'] = tui->cursor_ns;
		bp_tui_say(tui, "mark %c at %s", (char)c,
			   bp_tui_pos_text(tui, bp_tui_pos(tui, tui->cursor_ns), 1e3, pos));
	} else if (tui->marks[c - 'a'] == BP_TUI_NO_TIME) {
		bp_tui_warn(tui, "there is no mark %c", (char)c);
	} else {
		bp_tui_look_at(tui, tui->marks[c - 'a']);
		bp_tui_changed(tui);
	}
}

static void say_range(struct bp_tui *tui)
{
	uint64_t from, to;
	char ns[BP_UNITS_MAX], insns[BP_UNITS_MAX];

	if (!bp_tui_range(tui, &from, &to))
		return;
	bp_tui_say(tui, "A..B: %s, %s instructions", bp_units_ns(ns, (int64_t)(to - from)),
		   bp_units_count(insns, (uint64_t)bp_tui_i64(bp_index_insns_at(tui->index, to) -
							      bp_index_insns_at(tui->index, from))));
}

static struct bp_err *frame_key(struct bp_tui *tui, const struct bp_key *key)
{
	switch (key->code) {
	case 'q':
	case 3:
		tui->quit = true;
		return NULL;
	case BP_KEY_F1:
	case 'H':
		tui->help = true;
		tui->help_top = 0;
		return NULL;
	case '/':
		ask(tui, BP_PROMPT_SEARCH, "/", NULL);
		return NULL;
	case '?':
		ask(tui, BP_PROMPT_SEARCH, "?", NULL);
		return NULL;
	case 'n':
	case 'N':
		return bp_tui_find(tui, tui->search.back != (key->code == 'N'));
	case 'g':
		ask(tui, BP_PROMPT_GOTO, "go to (time, phase, mark, function): ", NULL);
		return NULL;
	case 't':
		ask(tui, BP_PROMPT_FILTER,
		    "filter (process, module=NAME, vcpu=LIST; empty: none): ", tui->filter_text);
		return NULL;
	case ':':
		ask(tui, BP_PROMPT_COMMAND, ":", NULL);
		return NULL;
	case 'c':
		change_clock(tui);
		return NULL;
	case 'm':
	case '\'':
		tui->prefix = key->code;
		bp_tui_say(tui, key->code == 'm' ? "mark: a letter" : "jump to mark: its letter");
		return NULL;
	case 'A':
		tui->range_a = tui->cursor_ns;
		say_range(tui);
		bp_tui_changed(tui);
		return NULL;
	case 'B':
		tui->range_b = tui->cursor_ns;
		say_range(tui);
		bp_tui_changed(tui);
		return NULL;
	case 'X':
		tui->range_a = tui->range_b = BP_TUI_NO_TIME;
		bp_tui_say(tui, "the range is the whole recording");
		bp_tui_changed(tui);
		return NULL;
	case 'u':
		history_step(tui, true);
		return NULL;
	case 18: /* Ctrl-R */
		history_step(tui, false);
		return NULL;
	default:
		break;
	}
	for (unsigned i = 0; i < bp_tui_n_views; i++) {
		if (key->code == (uint32_t)bp_tui_views[i]->digit)
			return bp_tui_show(tui, bp_tui_views[i]);
	}
	return NULL;
}

struct bp_err *bp_tui_key(struct bp_tui *tui, const struct bp_key *key)
{
	const struct bp_tui_view *v = bp_tui_views[tui->view];
	bool used = false;

	tui->dirty = true;
	if (key->code == BP_KEY_NONE || key->code == BP_KEY_RESIZE)
		return NULL;
	tui->message[0] = 0;
	if (tui->prompt)
		return prompt_key(tui, key);
	if (tui->prefix) {
		uint32_t prefix = tui->prefix;

		tui->prefix = 0;
		if (key->code != BP_KEY_ESCAPE)
			mark_key(tui, prefix, key->code);
		return NULL;
	}
	if (tui->help) {
		tui->help = bp_frame_help_key(tui, key);
		return NULL;
	}
	if (key->code >= BP_KEY_PRESS && key->y == 0) {
		int i = key->code == BP_KEY_PRESS ? bp_frame_tab_at(tui, key->x) : -1;

		return i >= 0 ? bp_tui_show(tui, bp_tui_views[i]) : NULL;
	}
	if (v->key) {
		struct bp_err *err = v->key(tui, tui->selfs[tui->view], key, &used);

		if (err || used)
			return err;
	}
	return frame_key(tui, key);
}

/* ---- keys from a text ---- */

static bool key_named(const char *word, size_t len, struct bp_key *key)
{
	static const struct {
		const char *name;
		uint32_t code;
	} names[] = {
	    {"Enter", BP_KEY_ENTER},
	    {"Tab", BP_KEY_TAB},
	    {"Esc", BP_KEY_ESCAPE},
	    {"Space", ' '},
	    {"Up", BP_KEY_UP},
	    {"Down", BP_KEY_DOWN},
	    {"Left", BP_KEY_LEFT},
	    {"Right", BP_KEY_RIGHT},
	    {"Home", BP_KEY_HOME},
	    {"End", BP_KEY_END},
	    {"PgUp", BP_KEY_PAGE_UP},
	    {"PgDn", BP_KEY_PAGE_DOWN},
	    {"F1", BP_KEY_F1},
	    {"BS", BP_KEY_BACKSPACE},
	    {"Del", BP_KEY_DELETE},
	    {"BackTab", BP_KEY_BACKTAB},
	    {"WheelUp", BP_KEY_WHEEL_UP},
	    {"WheelDown", BP_KEY_WHEEL_DOWN},
	};
	unsigned x, y;
	char what;
	int used = 0;

	for (size_t i = 0; i < BP_ARRAY_SIZE(names); i++) {
		if (len == strlen(names[i].name) && !strncmp(word, names[i].name, len)) {
			key->code = names[i].code;
			return true;
		}
	}
	if (len == 3 && !strncmp(word, "C-", 2) && word[2] >= 'a' && word[2] <= 'z') {
		key->code = (uint32_t)(word[2] - 'a' + 1);
		return true;
	}
	/* press@X,Y drag@X,Y release@X,Y: their first letters */
	if (sscanf(word, "%c@%u,%u%n", &what, &x, &y, &used) == 3 && (size_t)used == len && x < 4096 &&
	    y < 4096) {
		key->code = what == 'p'   ? BP_KEY_PRESS
			    : what == 'd' ? BP_KEY_DRAG
			    : what == 'r' ? BP_KEY_RELEASE
			    : what == '2' ? BP_KEY_DOUBLE
			    : what == '+' ? BP_KEY_CTRL_WHEEL_UP
			    : what == '-' ? BP_KEY_CTRL_WHEEL_DOWN
					  : BP_KEY_NONE;
		key->x = (int)x;
		key->y = (int)y;
		return key->code != BP_KEY_NONE;
	}
	if (len == 1 && (unsigned char)word[0] > ' ' && (unsigned char)word[0] < 0x7f) {
		key->code = (unsigned char)word[0];
		return true;
	}
	return false;
}

static struct bp_err *keys_quoted(struct bp_tui *tui, const char **at)
{
	const char *p = *at + 1;

	for (; *p && *p != '"'; p++) {
		struct bp_key key = {.code = (unsigned char)*p};
		struct bp_err *err = bp_tui_key(tui, &key);

		if (err)
			return err;
	}
	*at = *p ? p + 1 : p;
	return NULL;
}

struct bp_err *bp_tui_keys(struct bp_tui *tui, const char *text)
{
	while (*text) {
		struct bp_key key = {0};
		unsigned long count = 1;
		size_t len = strcspn(text, " \n");
		char *end;
		struct bp_err *err = NULL;

		if (!len) {
			text++;
			continue;
		}
		if (*text == '"') {
			err = keys_quoted(tui, &text);
			if (err)
				return err;
			continue;
		}
		count = strtoul(text, &end, 10);
		if (end > text && *end == '*' && end[1] && end[1] != ' ' && count && count <= 1000) {
			len -= (size_t)(end + 1 - text);
			text = end + 1;
		} else {
			count = 1;
		}
		if (!key_named(text, len, &key))
			return bp_err_new(BP_EUSAGE, "'%.*s' is not a key", (int)(len > 40 ? 40 : len), text);
		while (count-- && !err)
			err = bp_tui_key(tui, &key);
		if (err)
			return err;
		text += len;
	}
	return NULL;
}

/* ---- threads ---- */

bool bp_tui_stale(struct bp_tui *tui)
{
	return tui->dirty || tui->pending || tui->drawn_changes != bp_index_changes(tui->index);
}

bool bp_tui_busy(struct bp_tui *tui)
{
	size_t done, total;
	bool busy = tui->dirty || tui->pending;

	for (unsigned i = 0; i < bp_tui_n_views; i++) {
		if (tui->opened[i] && bp_tui_views[i]->busy)
			busy |= bp_tui_views[i]->busy(tui, tui->selfs[i], false);
	}
	bp_index_progress(tui->index, &done, &total);
	return busy || done < total || !bp_index_fine(tui->index);
}

struct bp_err *bp_tui_settle(struct bp_tui *tui)
{
	for (unsigned i = 0; i < bp_tui_n_views; i++) {
		if (tui->opened[i] && bp_tui_views[i]->busy)
			bp_tui_views[i]->busy(tui, tui->selfs[i], true);
	}
	tui->dirty = true;
	return bp_index_wait(tui->index);
}

/* ---- the console ---- */

const struct bp_fact *bp_tui_console_line(const struct bp_tui *tui, size_t i)
{
	size_t n;

	return &bp_trace_facts(tui->trace, &n)[tui->console[i]];
}

size_t bp_tui_console_until(const struct bp_tui *tui, uint64_t ns)
{
	size_t low = 0, high = tui->n_console;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (bp_tui_console_line(tui, mid)->time_ns <= ns)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_facts(const void *a, const void *b, void *arg)
{
	const struct bp_fact *facts = arg;
	size_t x = *(const size_t *)a, y = *(const size_t *)b;

	if (facts[x].time_ns != facts[y].time_ns)
		return facts[x].time_ns < facts[y].time_ns ? -1 : 1;
	return x < y ? -1 : x > y;
}

/*
 * What the kernel printed is there twice: as it was written by the guest, with its exact time, and as QEMU
 * passed it on, later. The first one is kept.
 */
static struct bp_err *load_console(struct bp_tui *tui)
{
	size_t n, n_printk = 0;
	const struct bp_fact *facts = bp_trace_facts(tui->trace, &n);
	bp_autofree const char **printk = calloc(n + 1, sizeof(const char *));

	tui->console = calloc(n + 1, sizeof(*tui->console));
	if (!printk || !tui->console)
		return bp_err_nomem();
	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind == BP_FACT_CONSOLE && !strcmp(facts[i].s2, "printk"))
			printk[n_printk++] = facts[i].s1;
	}
	qsort(printk, n_printk, sizeof(const char *), compare_strings);
	for (size_t i = 0; i < n; i++) {
		if (facts[i].kind != BP_FACT_CONSOLE ||
		    (strcmp(facts[i].s2, "printk") &&
		     bsearch(&facts[i].s1, printk, n_printk, sizeof(const char *), compare_strings)))
			continue;
		tui->console[tui->n_console++] = i;
	}
	qsort_r(tui->console, tui->n_console, sizeof(*tui->console), compare_facts, (void *)facts);
	return NULL;
}

/* ---- life ---- */

struct bp_err *bp_tui_create(const struct bp_tui_options *opt, struct bp_tui **ret)
{
	bp_cleanup(bp_tui_destroyp) struct bp_tui *tui = calloc(1, sizeof(*tui));
	struct bp_err *err;

	if (!tui)
		return bp_err_nomem();
	tui->trace = opt->trace;
	tui->ascii = opt->ascii;
	tui->plain = opt->plain;
	tui->threads = opt->threads;
	tui->range_a = tui->range_b = BP_TUI_NO_TIME;
	tui->selected = BP_NO_ROW;
	for (size_t i = 0; i < BP_ARRAY_SIZE(tui->marks); i++)
		tui->marks[i] = BP_TUI_NO_TIME;
	tui->selfs = calloc(bp_tui_n_views, sizeof(*tui->selfs));
	tui->opened = calloc(bp_tui_n_views, sizeof(*tui->opened));
	if (!tui->selfs || !tui->opened)
		return bp_err_nomem();
	err = bp_analysis_create(opt->trace, &tui->query, &tui->a);
	if (!err)
		err = bp_index_create(tui->a, opt->threads, &tui->index);
	if (!err && !opt->threads)
		err = bp_index_step(tui->index, SIZE_MAX);
	if (!err)
		err = load_console(tui);
	if (!err && (opt->baseline || opt->baseline_boot))
		err = bp_compare_create(opt->baseline, opt->baseline_boot, opt->trace, &tui->compare);
	if (err)
		return err;
	tui->start_ns = find_start(tui);
	tui->window.from = bp_tui_start(tui);
	tui->window.to = bp_tui_end(tui);
	tui->cursor_ns = tui->untouched_ns = tui->start_ns + (end_ns(tui) - tui->start_ns) / 2;
	err = bp_tui_show(tui, &bp_tui_timeline);
	if (err)
		return err;
	if (opt->clock == BP_CLOCK_INSNS)
		change_clock(tui);
	tui->message[0] = 0;
	tui->dirty = true;
	*ret = bp_steal(tui);
	return NULL;
}

struct bp_err *bp_tui_adopt(struct bp_tui *tui, struct bp_tui *old)
{
	bool everything = old->window.from <= bp_tui_start(old) && old->window.to >= bp_tui_end(old), ok;
	struct bp_err *err = NULL;

	tui->clock = old->clock;
	if (old->cursor_ns == old->untouched_ns)
		tui->cursor_ns = tui->untouched_ns = end_ns(tui) - 1;
	else
		tui->cursor_ns = old->cursor_ns;
	tui->cursor_vcpu = old->cursor_vcpu;
	tui->cursor_depth = old->cursor_depth;
	tui->selected = old->selected;
	tui->range_a = old->range_a;
	tui->range_b = old->range_b;
	memcpy(tui->marks, old->marks, sizeof(tui->marks));
	memcpy(tui->history, old->history, sizeof(tui->history));
	tui->n_history = old->n_history;
	tui->history_at = old->history_at;
	tui->prompt = old->prompt;
	tui->prompt_label = old->prompt_label;
	memcpy(tui->input, old->input, sizeof(tui->input));
	tui->input_len = old->input_len;
	tui->palette_at = old->palette_at;
	tui->prefix = old->prefix;
	tui->help = old->help;
	tui->help_top = old->help_top;
	memcpy(tui->message, old->message, sizeof(tui->message));
	tui->message_warns = old->message_warns;
	if (old->filter_text)
		err = set_filter(tui, old->filter_text);
	if (!err && old->search.text)
		err = compile_search(tui, old->search.text, old->search.back, &ok);
	if (everything)
		bp_tui_set_window(tui, bp_tui_start(tui), bp_tui_end(tui), false);
	else
		bp_tui_set_window(tui, old->window.from, old->window.to, false);
	for (unsigned i = 0; i < bp_tui_n_views && !err; i++) {
		const struct bp_tui_view *v = bp_tui_views[i];

		if (!old->opened[i])
			continue;
		/* Opening is what showing it does. */
		err = bp_tui_show(tui, v);
		if (!err && v->adopt)
			v->adopt(tui, tui->selfs[i], old->selfs[i]);
	}
	tui->view = old->view;
	tui->last_table = old->last_table;
	tui->dirty = true;
	return err;
}

void bp_tui_destroy(struct bp_tui *tui)
{
	if (!tui)
		return;
	for (unsigned i = 0; i < bp_tui_n_views; i++) {
		if (tui->opened && tui->opened[i] && bp_tui_views[i]->close)
			bp_tui_views[i]->close(tui, tui->selfs[i]);
	}
	bp_compare_destroy(tui->compare);
	bp_index_destroy(tui->index);
	bp_analysis_destroy(tui->a);
	clear_filter(tui);
	free(tui->search.text);
	free(tui->search.rows);
	free(tui->console);
	free(tui->selfs);
	free(tui->opened);
	free(tui);
}

struct bp_err *bp_tui_draw(struct bp_tui *tui, struct bp_grid *g)
{
	const struct bp_tui_view *v = bp_tui_views[tui->view];
	struct bp_err *err = NULL;

	tui->w = g->w;
	tui->h = g->h;
	tui->dirty = tui->pending = false;
	tui->drawn_changes = bp_index_changes(tui->index);
	g->ascii = tui->ascii;
	g->plain = tui->plain;
	bp_grid_clear(g);
	if (g->w < MIN_W || g->h < MIN_H) {
		bp_grid_printf(g, 0, 0, (int)g->w, BP_STYLE_TEXT, "bootprof needs at least %dx%d", MIN_W,
			       MIN_H);
		return NULL;
	}
	tui->rect = (struct bp_rect){.y = 1, .w = (int)g->w, .h = (int)g->h - 3};
	err = v->draw(tui, tui->selfs[tui->view], g, tui->rect);
	if (!err)
		bp_frame_draw(tui, g);
	return err;
}
