// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/input.h"
#include "core/cleanup.h"

static const char help[] =
    "Usage: bootprof dump [OPTION]...\n"
    "Print a recording as text, one item a line, or turn such text back into a recording.\n"
    "\n"
    "  -i, --input FILE       the recording (default " BP_DEFAULT_FILE ")\n"
    "  -o, --output FILE      write to FILE, not to standard output\n"
    "      --from-text FILE   read the text form in FILE and write the recording to "
    "--output\n" BP_FOREIGN_HELP "  -h, --help             show this help\n";

enum { OPT_FROM_TEXT = 256 };

static const struct option options[] = {
    {"input", required_argument, NULL, 'i'},
    {"output", required_argument, NULL, 'o'},
    {"from-text", required_argument, NULL, OPT_FROM_TEXT},
    BP_FOREIGN_OPTIONS,
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static struct bp_err *to_text(const char *input, const struct bp_import_options *foreign, const char *output)
{
	bp_cleanup(bp_input_closep) struct bp_trace *trace = NULL;
	bp_autoclose int file = -1;
	struct bp_err *err = bp_input_open_with(input, foreign, &trace);

	if (err)
		return err;
	bp_input_warn("dump", trace);
	if (output) {
		file = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (file < 0)
			return bp_err_os(errno, "%s", output);
	}
	/* A reader that went away is not an error: the writer stops by itself. */
	signal(SIGPIPE, SIG_IGN);
	return bp_trace_text_write(trace, output ? file : STDOUT_FILENO);
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	const char *input = NULL, *output = NULL, *text = NULL;
	struct bp_import_options foreign = {0};
	struct bp_err *err;
	bool taken;
	int c;

	(void)status;
	while ((c = getopt_long(argc, argv, "i:o:h", options, NULL)) != -1) {
		switch (c) {
		case 'i':
			input = optarg;
			break;
		case 'o':
			output = optarg;
			break;
		case OPT_FROM_TEXT:
			text = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return NULL;
		default:
			err = bp_foreign_option(&foreign, c, optarg, &taken);
			if (err || !taken)
				return err ? err
					   : bp_err_new(BP_EUSAGE, "wrong usage; --help lists the options");
		}
	}
	if (optind < argc)
		return bp_err_new(BP_EUSAGE, "unexpected argument \"%s\"; a recording is named with -i",
				  argv[optind]);
	if (!text)
		return to_text(input, &foreign, output);
	if (input || !output)
		return bp_err_new(BP_EUSAGE, "--from-text needs --output, and no --input");
	return bp_trace_text_read(text, output);
}

const struct bp_cmd bp_cmd_dump = {
    .name = "dump",
    .summary = "print a recording as text, one item a line",
    .run = run,
};
