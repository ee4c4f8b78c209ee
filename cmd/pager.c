// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cmd/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

extern char **environ;

/* Exit status of a shell that found no such command. */
#define SHELL_NOT_FOUND 127

static bool in_path(const char *program)
{
	const char *dir = getenv("PATH");
	struct bp_strbuf file = BP_STRBUF_INIT;
	bool found = false;

	while (dir && *dir && !found) {
		size_t len = strcspn(dir, ":");

		bp_strbuf_clear(&file);
		bp_strbuf_add(&file, dir, len);
		bp_strbuf_addf(&file, "/%s", program);
		found = !file.failed && !access(bp_strbuf_str(&file), X_OK);
		dir += len + (dir[len] == ':');
	}
	bp_strbuf_deinit(&file);
	return found;
}

const char *bp_pager_command(void)
{
	const char *pager = getenv("PAGER");

	if (!pager)
		return in_path("less") ? "less -FRX" : NULL;
	if (!*pager || !strcmp(pager, "cat"))
		return NULL;
	/* Colours need -R; the other two leave short output and the screen alone. */
	return strcmp(pager, "less") ? pager : "less -FRX";
}

static int spawn(const char *command, int input, pid_t *pid)
{
	char *const argv[] = {(char *)"sh", (char *)"-c", (char *)command, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t defaults;
	int ret;

	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGINT);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	ret = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	if (!ret)
		ret = posix_spawnattr_setsigdefault(&attr, &defaults);
	if (!ret)
		ret = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	if (!ret)
		ret = posix_spawn(pid, "/bin/sh", &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return ret;
}

struct bp_err *bp_pager_show(const char *command, const char *text, size_t len, bool *shown)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN}, old_int, old_pipe;
	int fds[2], status = 0, errnum;
	pid_t pid;

	*shown = false;
	if (pipe2(fds, O_CLOEXEC))
		return bp_err_os(errno, "cannot start the pager");
	/* Ctrl-C is for the pager, which stays: so do we. */
	sigaction(SIGINT, &ignore, &old_int);
	sigaction(SIGPIPE, &ignore, &old_pipe);
	errnum = spawn(command, fds[0], &pid);
	close(fds[0]);
	if (!errnum) {
		while (len) {
			ssize_t n = write(fds[1], text, len);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				break;
			text += n;
			len -= (size_t)n;
		}
	}
	close(fds[1]);
	if (!errnum) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		*shown = !(WIFEXITED(status) && WEXITSTATUS(status) == SHELL_NOT_FOUND);
	}
	sigaction(SIGINT, &old_int, NULL);
	sigaction(SIGPIPE, &old_pipe, NULL);
	return NULL;
}
