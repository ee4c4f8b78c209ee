// SPDX-License-Identifier: GPL-2.0-or-later
/* The program: finds the command, prints its error, and is the only one to leave. */
#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "core/cleanup.h"
#include "core/version.h"

static const struct bp_cmd *const commands[] = {
    &bp_cmd_record,
    &bp_cmd_report,
    &bp_cmd_tui,
    &bp_cmd_diff,
    &bp_cmd_gate,
    &bp_cmd_info,
    &bp_cmd_dump,
    &bp_cmd_export,
    &bp_cmd_import,
};

enum { EXIT_ERROR = 1, EXIT_USAGE = 2 };

static void print_help(FILE *out)
{
	fputs("Usage: bootprof COMMAND [OPTION]...\n"
	      "Show where the time of a guest's boot under QEMU goes.\n"
	      "\n"
	      "Commands:\n",
	      out);
	for (size_t i = 0; i < BP_ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-8s  %s\n", commands[i]->name, commands[i]->summary);
	fputs("\n"
	      "  bootprof COMMAND --help   the options of a command\n"
	      "  bootprof --version        the version\n"
	      "\n"
	      "To begin with:\n"
	      "  bootprof record -- qemu-system-x86_64 -kernel VMLINUZ -initrd INITRD -append console=ttyS0 "
	      "-nographic\n"
	      "  bootprof report\n",
	      out);
}

static const struct bp_cmd *find(const char *name)
{
	for (size_t i = 0; i < BP_ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

/* Letters to add, drop or replace to make one word of the other; words longer than the table count as far
 * apart. */
static size_t distance(const char *a, const char *b)
{
	size_t row[32], n = strlen(b);

	if (n >= BP_ARRAY_SIZE(row))
		return n;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; *a; a++, i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[n];
}

/* BP_EUSAGE: there is no such command; names the one that was probably meant. */
static struct bp_err *unknown(const char *name)
{
	const struct bp_cmd *nearest = NULL;
	size_t best = 3;

	for (size_t i = 0; i < BP_ARRAY_SIZE(commands); i++) {
		size_t d = distance(name, commands[i]->name);

		if (d < best) {
			best = d;
			nearest = commands[i];
		}
	}
	if (nearest)
		return bp_err_new(BP_EUSAGE, "no command \"%s\"; did you mean \"%s\"?", name, nearest->name);
	return bp_err_new(BP_EUSAGE, "no command \"%s\"; bootprof --help lists them", name);
}

/* Print and free an error; the exit status. */
static int fail(const char *command, struct bp_err *err)
{
	int status = bp_err_code(err) == BP_EUSAGE ? EXIT_USAGE : EXIT_ERROR;

	fflush(stdout);
	fprintf(stderr, "bootprof%s%s: %s\n", command ? " " : "", command ? command : "", bp_err_text(err));
	bp_err_free(err);
	return status;
}

/* What was printed must have arrived; a reader that went away has seen enough. */
static struct bp_err *check_stdout(void)
{
	errno = 0;
	if (fflush(stdout) || ferror(stdout)) {
		if (errno != EPIPE)
			return bp_err_os(errno ? errno : EIO, "cannot write the output");
	}
	return NULL;
}

static struct bp_err *run(int argc, char **argv, const char **command, int *status)
{
	static char full_name[64];
	const struct bp_cmd *cmd;
	const char *name = argc > 1 ? argv[1] : NULL;
	char *help_argv[] = {NULL, (char *)"--help", NULL};

	if (!name) {
		print_help(stderr);
		*status = EXIT_USAGE;
		return NULL;
	}
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("bootprof %s\n", BOOTPROF_VERSION);
		return NULL;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || (!strcmp(name, "help") && argc == 2)) {
		print_help(stdout);
		return NULL;
	}
	if (!strcmp(name, "help")) {
		help_argv[0] = argv[2];
		argc = 2;
		argv = help_argv;
		name = argv[0];
	} else {
		if (name[0] == '-')
			return bp_err_new(BP_EUSAGE,
					  "no option \"%s\" before the command; see bootprof --help", name);
		argc--;
		argv++;
	}
	cmd = find(name);
	if (!cmd)
		return unknown(name);
	*command = cmd->name;
	/* getopt_long() puts it in front of what it says. */
	snprintf(full_name, sizeof(full_name), "bootprof %s", cmd->name);
	argv[0] = full_name;
	return cmd->run(argc, argv, status);
}

int main(int argc, char **argv)
{
	const char *command = NULL;
	struct bp_err *err;
	int status = 0;

	/* Only the character set: numbers keep their point. */
	setlocale(LC_CTYPE, "");
	err = run(argc, argv, &command, &status);
	if (!err)
		err = check_stdout();
	return err ? fail(command, err) : status;
}
