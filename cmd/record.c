// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/record_run.h"
#include "cmd/tui.h"
#include "cmd/record_waits.h"

static const char help[] =
    "Usage: bootprof record [OPTION]... [--] QEMU [QEMU-OPTION]...\n"
    "       bootprof record --waits --pid PID [OPTION]...\n"
    "Run a QEMU command line under TCG and record every function its guest calls, or how its threads wait.\n"
    "\n"
    "  -o, --output FILE        the recording (default " BP_DEFAULT_FILE
    "); an earlier one is kept as FILE.old\n"
    "      --waits              also record from the host what QEMU's threads wait for: CPUs, locks, I/O; "
    "alone\n"
    "                           when the guest does not run under TCG; needs tracefs (root)\n"
    "      --pid PID            with --waits: a QEMU that runs already, its threads only\n"
    "      --duration TIME      the same as --timeout\n"
    "      --lock-sites=WHEN    with --waits: when a uprobe on QEMU's lock function tells who takes the big "
    "lock\n"
    "                           and where: sampled (default; for moments, as often as is cheap), always, "
    "never\n"
    "      --futex=WHICH        with --waits: calls of futex(2) to record: sleeping (default, where the "
    "kernel "
    "takes a\n"
    "                           BPF program), or all, which costs QEMU more\n"
    "      --timeout TIME       end after TIME of host time: 90, 90s, 2m, 500ms\n"
    "      --until-console REGEX\n"
    "                           end when a line on the guest's console matches\n"
    "      --until-function NAME\n"
    "                           end when this kernel function is entered\n"
    "      --until-exec PATH    end when this file is exec'd in the guest\n"
    "      --until-port PORT=N  end when byte N is written to this I/O port: 0xf4=1\n"
    "      --deterministic      pin everything that makes two boots differ (-icount, -rtc, -seed, no "
    "input),\n"
    "                           so that instruction counts repeat exactly with -smp 1\n"
    "      --max-size SIZE      bound the recording: 64M, 1G; short calls are then kept as totals only\n"
    "      --kernel-image FILE  the guest's kernel, when it is not given to QEMU with -kernel\n"
    "      --vmlinux FILE       debug vmlinux with the kernel's names; must match the kernel's build-id\n"
    "      --guest-root DIR     directory with the guest's files, for names in user space\n"
    "      --no-user            do not trace the guest's user space\n"
    "      --plugin FILE        the QEMU plugin bootprof-tcg.so, when it is not beside the program\n"
    "      --tui                show the boot in the terminal while it runs, as bootprof tui does\n"
    "  -q, --quiet              no progress, no summary\n"
    "  -h, --help               show this help\n"
    "\n"
    "Exit status: QEMU's own; 0 when a marker, --timeout or Ctrl-C ended the recording; 124 when the marker "
    "was\n"
    "not seen in time; 1 when the recording failed; 2 on wrong usage.\n";

enum {
	OPT_TIMEOUT = 256,
	OPT_CONSOLE,
	OPT_FUNCTION,
	OPT_EXEC,
	OPT_PORT,
	OPT_DETERMINISTIC,
	OPT_MAX_SIZE,
	OPT_KERNEL,
	OPT_VMLINUX,
	OPT_ROOT,
	OPT_NO_USER,
	OPT_PLUGIN,
	OPT_WAITS,
	OPT_PID,
	OPT_DURATION,
	OPT_SITES,
	OPT_FUTEX,
	OPT_TUI
};

const struct option bp_record_options_table[] = {
    {"output", required_argument, NULL, 'o'},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"until-console", required_argument, NULL, OPT_CONSOLE},
    {"until-function", required_argument, NULL, OPT_FUNCTION},
    {"until-exec", required_argument, NULL, OPT_EXEC},
    {"until-port", required_argument, NULL, OPT_PORT},
    {"deterministic", no_argument, NULL, OPT_DETERMINISTIC},
    {"max-size", required_argument, NULL, OPT_MAX_SIZE},
    {"kernel-image", required_argument, NULL, OPT_KERNEL},
    {"vmlinux", required_argument, NULL, OPT_VMLINUX},
    {"guest-root", required_argument, NULL, OPT_ROOT},
    {"no-user", no_argument, NULL, OPT_NO_USER},
    {"plugin", required_argument, NULL, OPT_PLUGIN},
    {"waits", no_argument, NULL, OPT_WAITS},
    {"pid", required_argument, NULL, OPT_PID},
    {"duration", required_argument, NULL, OPT_DURATION},
    {"lock-sites", required_argument, NULL, OPT_SITES},
    {"futex", required_argument, NULL, OPT_FUTEX},
    {"tui", no_argument, NULL, OPT_TUI},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static bool parse_time(const char *s, uint64_t *ns)
{
	char *end;
	double v = strtod(s, &end), unit = 1e9;

	if (!strcmp(end, "ms"))
		unit = 1e6;
	else if (!strcmp(end, "m"))
		unit = 60e9;
	else if (!strcmp(end, "h"))
		unit = 3600e9;
	else if (*end && strcmp(end, "s"))
		return false;
	if (end == s || !isfinite(v) || v <= 0 || v * unit > 1e18)
		return false;
	*ns = (uint64_t)(v * unit);
	return true;
}

static bool parse_size(const char *s, uint64_t *bytes)
{
	char *end;
	double v = strtod(s, &end), unit = 1;

	switch (*end) {
	case 'k':
	case 'K':
		unit = 1024.0;
		break;
	case 'm':
	case 'M':
		unit = 1024.0 * 1024;
		break;
	case 'g':
	case 'G':
		unit = 1024.0 * 1024 * 1024;
		break;
	case '\0':
		break;
	default:
		return false;
	}
	if (end == s || !isfinite(v) || v * unit < 1 || v * unit > 1e18 || (*end && end[1]))
		return false;
	*bytes = (uint64_t)(v * unit);
	return true;
}

static bool parse_pid(const char *s, int *pid)
{
	char *end;
	long v = strtol(s, &end, 10);

	if (end == s || *end || v <= 0 || v > INT_MAX)
		return false;
	*pid = (int)v;
	return true;
}

static bool parse_port(const char *s, struct bp_record_options *o)
{
	char *end;
	unsigned long port, value;

	errno = 0;
	port = strtoul(s, &end, 0);
	if (end == s || *end != '=' || port > 0xffff)
		return false;
	s = end + 1;
	value = strtoul(s, &end, 0);
	if (end == s || *end || value > 0xff || errno)
		return false;
	o->until_port = (int)port;
	o->until_value = (unsigned)value;
	return true;
}

struct bp_err *bp_record_option(int opt, const char *arg, struct bp_record_options *o)
{
	static const char *const sites[] = {
	    [BP_SITES_SAMPLED] = "sampled", [BP_SITES_ALWAYS] = "always", [BP_SITES_NEVER] = "never"};

	switch (opt) {
	case 'o':
		o->output = arg;
		return NULL;
	case OPT_TIMEOUT:
	case OPT_DURATION:
		if (!parse_time(arg, &o->timeout_ns))
			return bp_err_new(BP_EUSAGE, "--%s '%s' is not a time such as 90s, 2m or 500ms",
					  opt == OPT_TIMEOUT ? "timeout" : "duration", arg);
		return NULL;
	case OPT_WAITS:
		o->waits = true;
		return NULL;
	case OPT_SITES:
		for (int i = 0; i < 3; i++) {
			if (!strcmp(arg, sites[i])) {
				o->lock_sites = (enum bp_lock_sites)i;
				return NULL;
			}
		}
		return bp_err_new(BP_EUSAGE, "--lock-sites '%s' is not sampled, always or never", arg);
	case OPT_FUTEX:
		if (strcmp(arg, "sleeping") && strcmp(arg, "all"))
			return bp_err_new(BP_EUSAGE, "--futex '%s' is not sleeping or all", arg);
		o->futex = *arg == 'a' ? BP_FUTEX_ALL : BP_FUTEX_SLEEPING;
		return NULL;
	case OPT_PID:
		if (!parse_pid(arg, &o->pid))
			return bp_err_new(BP_EUSAGE, "--pid '%s' is not a process id", arg);
		return NULL;
	case OPT_CONSOLE:
		o->until_console = arg;
		return NULL;
	case OPT_FUNCTION:
		o->until_function = arg;
		return NULL;
	case OPT_EXEC:
		o->until_exec = arg;
		return NULL;
	case OPT_PORT:
		if (!parse_port(arg, o))
			return bp_err_new(
			    BP_EUSAGE, "--until-port '%s' is not of the form PORT=BYTE, such as 0xf4=1", arg);
		return NULL;
	case OPT_DETERMINISTIC:
		o->deterministic = true;
		return NULL;
	case OPT_MAX_SIZE:
		if (!parse_size(arg, &o->max_bytes) || o->max_bytes < 1 << 20)
			return bp_err_new(BP_EUSAGE,
					  "--max-size '%s' is not a size of at least 1M, such as 64M or 1G",
					  arg);
		return NULL;
	case OPT_KERNEL:
		o->kernel_image = arg;
		return NULL;
	case OPT_VMLINUX:
		o->vmlinux = arg;
		return NULL;
	case OPT_ROOT:
		o->guest_root = arg;
		return NULL;
	case OPT_NO_USER:
		o->no_user = true;
		return NULL;
	case OPT_PLUGIN:
		o->plugin = arg;
		return NULL;
	case OPT_TUI:
		o->tui = true;
		return NULL;
	case 'q':
		o->quiet = true;
		return NULL;
	default:
		return bp_err_new(BP_EUSAGE, "unknown option or missing value; see bootprof record --help");
	}
}

static struct bp_err *run(int argc, char **argv, int *status)
{
	struct bp_record_options o = {.output = BP_DEFAULT_FILE, .until_port = -1};
	int opt;

	opterr = 0;
	optind = 1;
	/* "+": QEMU's own options follow its name and are not ours. */
	while ((opt = getopt_long(argc, argv, "+o:qh", bp_record_options_table, NULL)) != -1) {
		struct bp_err *err;

		if (opt == 'h') {
			fputs(help, stdout);
			return NULL;
		}
		err = bp_record_option(opt, optarg, &o);
		if (err)
			return err;
	}
	if ((o.pid || o.lock_sites || o.futex) && !o.waits)
		return bp_err_new(BP_EUSAGE, "%s goes with --waits",
				  o.pid          ? "--pid"
				  : o.lock_sites ? "--lock-sites"
						 : "--futex");
	if (o.pid && optind < argc)
		return bp_err_new(BP_EUSAGE,
				  "--pid is for a QEMU that runs already: no command line goes with it");
	if (o.pid &&
	    (o.until_console || o.until_function || o.until_exec || o.until_port >= 0 || o.deterministic ||
	     o.max_bytes || o.kernel_image || o.vmlinux || o.guest_root || o.no_user || o.plugin || o.tui))
		return bp_err_new(BP_EUSAGE,
				  "--pid records waits only: of the other options, -o, -q, --duration, "
				  "--futex and --lock-sites go with it");
	if (o.pid)
		return bp_record_pid(&o, status);
	if (optind >= argc)
		return bp_err_new(
		    BP_EUSAGE,
		    "no QEMU command line; try: bootprof record -- qemu-system-x86_64 -kernel ...");
	o.qemu_argv = argv + optind;
	return o.tui ? bp_tui_live(&o, status) : bp_record_run(&o, status);
}

const struct bp_cmd bp_cmd_record = {
    .name = "record",
    .summary = "run a QEMU command line and record its guest's calls",
    .run = run,
};
