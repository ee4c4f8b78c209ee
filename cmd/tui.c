// SPDX-License-Identifier: GPL-2.0-or-later
/* `bootprof tui`: a recording in the terminal. */
#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/input.h"
#include "cmd/tui.h"
#include "core/cleanup.h"
#include "tui/term.h"
#include "tui/tui.h"

static const char help[] =
    "Usage: bootprof tui [FILE] [OPTION]...\n"
    "Look at a recording in the terminal: a timeline that can be zoomed from the whole boot to single\n"
    "calls, and beside it functions, call trees, phases, system calls, waits and the console.\n"
    "FILE is a recording (default " BP_DEFAULT_FILE "), or any trace that bootprof import reads.\n"
    "\n"
    "  -i, --input FILE       the recording, as FILE\n"
    "      --baseline FILE    an earlier recording, or a baseline file of it, to compare with\n"
    "  -C, --clock=CLOCK      time (the default: host time) or insns (instructions)\n"
    "      --ascii            draw with ASCII characters only\n"
    "      --color=WHEN       yes, no or auto (the default: if the terminal can, unless NO_COLOR is set)\n"
    "      --print=WxH        print the screen as text, of that size, and end; needs no terminal\n"
    "      --keys=KEYS        press these keys first: \"3 Down Enter\"; see bootprof-tui(1)\n"
    "  -h, --help             show this help\n"
    "\n"
    "Keys: F1 shows those of each screen, q ends.\n";

enum { OPT_BASELINE = 256, OPT_ASCII, OPT_COLOR, OPT_PRINT, OPT_KEYS };

static const struct option options[] = {
    {"input", required_argument, NULL, 'i'},
    {"baseline", required_argument, NULL, OPT_BASELINE},
    {"clock", required_argument, NULL, 'C'},
    {"ascii", no_argument, NULL, OPT_ASCII},
    {"color", required_argument, NULL, OPT_COLOR},
    {"print", required_argument, NULL, OPT_PRINT},
    {"keys", required_argument, NULL, OPT_KEYS},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct request {
	const char *input, *baseline, *keys;
	enum bp_clock clock;
	enum bp_term_color color;
	bool ascii, print, help;
	unsigned w, h;
};

static struct bp_err *parse(struct request *rq, int argc, char **argv)
{
	char end;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "i:C:h", options, NULL)) != -1) {
		switch (c) {
		case 'i':
			rq->input = optarg;
			break;
		case OPT_BASELINE:
			rq->baseline = optarg;
			break;
		case 'C':
			if (!strcmp(optarg, "insns"))
				rq->clock = BP_CLOCK_INSNS;
			else if (strcmp(optarg, "time"))
				return bp_err_new(BP_EUSAGE, "--clock: '%s' is neither time nor insns",
						  optarg);
			break;
		case OPT_ASCII:
			rq->ascii = true;
			break;
		case OPT_COLOR:
			if (!strcmp(optarg, "yes"))
				rq->color = BP_TERM_COLOR_YES;
			else if (!strcmp(optarg, "no"))
				rq->color = BP_TERM_COLOR_NO;
			else if (strcmp(optarg, "auto"))
				return bp_err_new(BP_EUSAGE, "--color: '%s' is none of yes, no, auto",
						  optarg);
			break;
		case OPT_PRINT:
			if (sscanf(optarg, "%4ux%4u%c", &rq->w, &rq->h, &end) != 2 || !rq->w || !rq->h ||
			    rq->w > 2000 || rq->h > 1000)
				return bp_err_new(BP_EUSAGE, "--print: '%s' is not a size such as 100x30",
						  optarg);
			rq->print = true;
			break;
		case OPT_KEYS:
			rq->keys = optarg;
			break;
		case 'h':
			rq->help = true;
			return NULL;
		default:
			return bp_err_new(BP_EUSAGE, "wrong usage; --help lists the options");
		}
	}
	if (optind < argc && rq->input)
		return bp_err_new(BP_EUSAGE, "one recording at a time, not also '%s'", argv[optind]);
	if (optind < argc)
		rq->input = argv[optind++];
	if (optind < argc)
		return bp_err_new(BP_EUSAGE,
				  "one recording at a time, not also '%s'; --baseline is for a second",
				  argv[optind]);
	return NULL;
}

static struct bp_err *print_screen(struct bp_tui *tui, struct bp_grid *g)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_err *err = bp_tui_draw(tui, g);

	if (err)
		return err;
	bp_grid_dump(g, &sb);
	err = bp_strbuf_ok(&sb);
	if (!err)
		fwrite(sb.data, 1, sb.len, stdout);
	return err;
}

/* Keys are pressed on a screen that has been drawn, as a person would. */
static struct bp_err *press(struct bp_tui *tui, struct bp_grid *g, const char *keys)
{
	struct bp_err *err = bp_tui_draw(tui, g);

	while (!err && keys && *keys) {
		size_t n = strcspn(keys, " "), quoted;
		char word[512];

		if (*keys == '"') {
			const char *close = strchr(keys + 1, '"');

			quoted = close ? (size_t)(close - keys) + 1 : strlen(keys);
			n = quoted;
		}
		if (n >= sizeof(word))
			return bp_err_new(BP_EUSAGE, "--keys: a word is too long");
		memcpy(word, keys, n);
		word[n] = 0;
		keys += n;
		keys += strspn(keys, " ");
		err = bp_tui_keys(tui, word);
		if (!err)
			err = bp_tui_draw(tui, g);
	}
	return err;
}

static struct bp_err *print(const struct request *rq, struct bp_tui *tui)
{
	bp_cleanup(bp_grid_deinitp) struct bp_grid g = {0};
	struct bp_err *err = bp_grid_resize(&g, rq->w, rq->h);

	if (!err)
		err = press(tui, &g, rq->keys);
	return err ? err : print_screen(tui, &g);
}

struct bp_tui_options bp_tui_options_for(const struct bp_trace *trace, const struct bp_term *term)
{
	return (struct bp_tui_options){
	    .trace = trace,
	    .threads = true,
	    .ascii = !bp_term_utf8(term),
	    .plain = !bp_term_colors(term),
	};
}

struct bp_err *bp_tui_show_on(struct bp_tui *tui, struct bp_term *term, struct bp_grid *g)
{
	struct bp_err *err = NULL;
	unsigned w, h;

	bp_term_size(term, &w, &h);
	if (w != g->w || h != g->h) {
		err = bp_grid_resize(g, w, h);
		tui->dirty = true;
	}
	if (!err && bp_tui_stale(tui)) {
		err = bp_tui_draw(tui, g);
		if (!err)
			bp_term_show(term, g);
	}
	return err;
}

struct bp_err *bp_tui_step(struct bp_tui *tui, struct bp_term *term, struct bp_grid *g, int ms, bool *gone)
{
	struct bp_key key;
	/* What was done before drawing is seen; what drawing begins makes it busy again. */
	bool busy = bp_tui_busy(tui);
	struct bp_err *err = bp_tui_show_on(tui, term, g);

	if (err)
		return err;
	busy |= bp_tui_busy(tui);
	/* While something is being made, it is shown ten times a second. */
	*gone = !bp_term_key(term, busy && (ms < 0 || ms > 100) ? 100 : ms, &key);
	/* Keys that came faster than screens are drawn are taken together. */
	while (!err && !*gone && key.code != BP_KEY_NONE) {
		err = bp_tui_key(tui, &key);
		if (tui->quit || !bp_term_key(term, 0, &key))
			break;
	}
	return err;
}

static struct bp_err *interact(const struct request *rq, struct bp_tui *tui, struct bp_term *term)
{
	bp_cleanup(bp_grid_deinitp) struct bp_grid g = {0};
	struct bp_err *err = bp_tui_show_on(tui, term, &g);
	bool gone = false;

	if (!err && rq->keys)
		err = press(tui, &g, rq->keys);
	while (!err && !tui->quit && !gone)
		err = bp_tui_step(tui, term, &g, -1, &gone);
	return err;
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	struct request rq = {0};
	bp_cleanup(bp_input_closep) struct bp_trace *trace = NULL, *baseline = NULL;
	bp_cleanup(bp_summary_destroyp) struct bp_summary *baseline_boot = NULL;
	bp_cleanup(bp_tui_destroyp) struct bp_tui *tui = NULL;
	bp_cleanup(bp_term_closep) struct bp_term *term = NULL;
	struct bp_tui_options opt;
	struct bp_err *err = parse(&rq, argc, argv);

	(void)status;
	if (err)
		return err;
	if (rq.help) {
		fputs(help, stdout);
		return NULL;
	}
	err = bp_input_open(rq.input, &trace);
	if (!err && rq.baseline && bp_summary_is_file(rq.baseline))
		err = bp_summary_read(rq.baseline, &baseline_boot);
	else if (!err && rq.baseline)
		err = bp_input_open(rq.baseline, &baseline);
	if (!err && !rq.print)
		err = bp_term_open(rq.color, &term);
	if (err)
		return err;
	if (term)
		opt = bp_tui_options_for(trace, term);
	else
		opt = (struct bp_tui_options){.trace = trace,
					      .ascii = strcmp(nl_langinfo(CODESET), "UTF-8") != 0,
					      .plain = rq.color != BP_TERM_COLOR_YES};
	opt.baseline = baseline;
	opt.baseline_boot = baseline_boot;
	opt.clock = rq.clock;
	opt.ascii |= rq.ascii;
	err = bp_tui_create(&opt, &tui);
	if (!err)
		err = rq.print ? print(&rq, tui) : interact(&rq, tui, term);
	/* The terminal first: an error is printed by who called. */
	bp_term_close(term);
	term = NULL;
	return err;
}

const struct bp_cmd bp_cmd_tui = {
    .name = "tui",
    .summary = "look at a recording in the terminal, along time",
    .run = run,
};
