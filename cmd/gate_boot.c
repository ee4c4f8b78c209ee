// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cmd/gate_boot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "cmd/input.h"
#include "collectors/tcg/qemu_args.h"
#include "core/cleanup.h"
#include "core/crc32c.h"

#define NS_PER_S 1000000000ull

void bp_boot_free_argv(char **argv)
{
	for (char **p = argv; p && *p; p++)
		free(*p);
	free(argv);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static const char *tmp_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/tmp";
}

/* ---- recording ---- */

/* The guest's console is not the gate's output, and the gate's input not the guest's. */
static struct bp_err *record_silently(const struct bp_record_options *o, int *status)
{
	bp_autoclose int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	bp_autoclose int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	bp_autoclose int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	struct bp_err *err;

	if (null < 0 || out < 0)
		return bp_err_os(errno, "/dev/null");
	fflush(stdout);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	err = bp_record_run(o, status);
	dup2(out, STDOUT_FILENO);
	if (in >= 0)
		dup2(in, STDIN_FILENO);
	else
		close(STDIN_FILENO);
	return err;
}

static void unlinkp(char **path)
{
	if (*path)
		unlink(*path);
	free(*path);
}

static struct bp_err *record(const struct bp_boot_how *how, char **argv, unsigned number,
			     struct bp_summary **ret, char **failed)
{
	struct bp_record_options o = how->record;
	bp_cleanup(bp_input_closep) struct bp_trace *trace = NULL;
	bp_cleanup(bp_summary_destroyp) struct bp_summary *s = NULL;
	bp_cleanup(unlinkp) char *tmp = NULL;
	char *path = NULL;
	struct bp_err *err;
	int status = 0;

	if (asprintf(&path, how->keep ? "%s/%u.bootprof" : "%s/bootprof-gate.%u.%d",
		     how->keep ? how->keep : tmp_dir(), number, (int)getpid()) < 0)
		return bp_err_nomem();
	o.output = path;
	o.qemu_argv = argv;
	o.quiet = true;
	err = record_silently(&o, &status);
	if (!how->keep || err)
		tmp = path;
	if (!err)
		err = bp_trace_open(path, &trace);
	if (!err)
		err = bp_summary_create(trace, NULL, &s);
	if (how->keep && !tmp)
		free(path);
	if (err)
		return err;
	if (!how->keep)
		s->path = bp_summary_str(s, "the boot recorded now");
	if (!s->path)
		return bp_err_nomem();
	if (!strcmp(s->ended, "interrupt"))
		return bp_err_new(BP_ESTOPPED, "interrupted");
	if (status || !strcmp(s->ended, "timeout") || !strcmp(s->ended, "panic") ||
	    !strcmp(s->ended, "killed")) {
		if (asprintf(failed,
			     status == 124 ? "the marker was not seen in time (%s, QEMU's status %d)"
					   : "ended by %s, QEMU's status %d",
			     s->ended, status) < 0)
			return bp_err_nomem();
	}
	*ret = bp_steal(s);
	return NULL;
}

/* ---- timing ---- */

static struct bp_err *run_command(const struct bp_boot_how *how, char **argv, uint64_t *ns, int *status)
{
	uint64_t start = now_ns(), limit = how->record.timeout_ns;
	pid_t pid = fork();

	if (pid < 0)
		return bp_err_os(errno, "fork");
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		execvp(argv[0], argv);
		_exit(127);
	}
	for (useconds_t nap = 200;; nap = nap < 2000 ? nap * 2 : nap) {
		pid_t got = waitpid(pid, status, limit ? WNOHANG : 0);

		if (got == pid)
			break;
		if (got < 0 && errno != EINTR)
			return bp_err_os(errno, "%s", argv[0]);
		if (limit && now_ns() - start > limit) {
			kill(pid, SIGKILL);
			limit = 0;
			continue;
		}
		if (limit)
			usleep(nap);
	}
	*ns = now_ns() - start;
	return NULL;
}

static struct bp_err *time_boot(const struct bp_boot_how *how, char **argv, struct bp_summary **ret,
				char **failed)
{
	bp_cleanup(bp_summary_destroyp) struct bp_summary *s = NULL;
	struct bp_err *err = bp_summary_new(argv[0], &s);
	uint64_t ns = 0;
	int status = 0;

	if (!err)
		err = bp_summary_set_command(s, (const char *const *)argv);
	if (err)
		return err;
	s->start = (uint64_t)time(NULL);
	err = run_command(how, argv, &ns, &status);
	if (err)
		return err;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return bp_err_new(BP_EOS, "%s cannot be run", argv[0]);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		if (asprintf(failed, "ended with status %d",
			     WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)) < 0)
			return bp_err_nomem();
	}
	s->ns = s->kernel_ns = ns;
	*ret = bp_steal(s);
	return NULL;
}

struct bp_err *bp_boot_run(const struct bp_boot_how *how, char **argv, unsigned number,
			   struct bp_summary **ret, char **failed)
{
	*failed = NULL;
	return how->only_time ? time_boot(how, argv, ret, failed) : record(how, argv, number, ret, failed);
}

/* ---- the files that QEMU is given ---- */

static bool checksum(const char *path, uint64_t *bytes, uint32_t *crc)
{
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	static const size_t size = 1 << 20;
	bp_autofree char *buf = malloc(size);
	struct stat st;
	ssize_t n = 0;

	if (!buf || fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	*bytes = 0;
	*crc = 0;
	while ((n = read(fd, buf, size)) > 0) {
		*crc = bp_crc32c(*crc, buf, (size_t)n);
		*bytes += (uint64_t)n;
	}
	return n == 0;
}

struct bp_err *bp_boot_inputs(struct bp_summary *s)
{
	struct bp_qemu_args args;
	const char *files[2];

	if (!s->argv)
		return NULL;
	bp_qemu_args_parse(s->argv, &args);
	files[0] = args.kernel;
	files[1] = args.initrd;
	free(s->inputs);
	s->n_inputs = 0;
	s->inputs = calloc(2, sizeof(*s->inputs));
	if (!s->inputs)
		return bp_err_nomem();
	for (size_t i = 0; i < 2; i++) {
		struct bp_sum_input in = {0};

		if (!files[i] || !checksum(files[i], &in.bytes, &in.crc))
			continue;
		in.path = bp_summary_str(s, files[i]);
		if (!in.path)
			return bp_err_nomem();
		s->inputs[s->n_inputs++] = in;
	}
	return NULL;
}

bool bp_boot_inputs_same(const struct bp_summary *s)
{
	for (size_t i = 0; i < s->n_inputs; i++) {
		uint64_t bytes;
		uint32_t crc;

		if (!checksum(s->inputs[i].path, &bytes, &crc) || bytes != s->inputs[i].bytes ||
		    crc != s->inputs[i].crc)
			return false;
	}
	return s->n_inputs > 0;
}

/* ---- harmless changes ---- */

/* A copy of @from with @pad zero bytes more: between and behind archives, zeros mean nothing. */
static struct bp_err *padded_copy(const char *from, size_t pad, char **ret)
{
	bp_autoclose int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
	bp_cleanup(unlinkp) char *path = NULL;
	char *name = NULL;
	char buf[65536];
	ssize_t n;

	if (in < 0)
		return bp_err_os(errno, "%s", from);
	if (asprintf(&name, "%s/bootprof-initrd.XXXXXX", tmp_dir()) < 0)
		return bp_err_nomem();
	out = mkostemp(name, O_CLOEXEC);
	if (out < 0) {
		free(name);
		return bp_err_os(errno, "a copy of %s", from);
	}
	path = name;
	while ((n = read(in, buf, sizeof(buf))) > 0) {
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(out, buf + done, (size_t)(n - done));

			if (w < 0)
				return bp_err_os(errno, "%s", path);
			done += w;
		}
	}
	memset(buf, 0, sizeof(buf));
	if (n < 0 || write(out, buf, pad) != (ssize_t)pad)
		return bp_err_os(errno, "%s", n < 0 ? from : path);
	*ret = bp_steal(path);
	return NULL;
}

struct bp_err *bp_boot_perturb(char *const *argv, unsigned number, char ***ret, char **copy)
{
	struct bp_qemu_args args;
	const char *from;
	size_t n = 0;
	char **out;

	*ret = NULL;
	*copy = NULL;
	bp_qemu_args_parse(argv, &args);
	from = args.initrd ? args.initrd : args.append;
	if (!from)
		return NULL;
	if (args.initrd) {
		struct bp_err *err = padded_copy(args.initrd, 4 * number * number, copy);

		if (err)
			return err;
	}
	while (argv[n])
		n++;
	out = calloc(n + 1, sizeof(*out));
	for (size_t i = 0; out && i < n; i++) {
		/* The parsed strings are those of argv. */
		if (argv[i] != from)
			out[i] = strdup(argv[i]);
		else if (args.initrd)
			out[i] = strdup(*copy);
		else if (asprintf(&out[i], "%s bootprof.pad=%u", from, 10000 + number) < 0)
			out[i] = NULL;
		if (!out[i]) {
			bp_boot_free_argv(out);
			out = NULL;
		}
	}
	if (!out) {
		unlinkp(copy);
		*copy = NULL;
		return bp_err_nomem();
	}
	*ret = out;
	return NULL;
}
