// SPDX-License-Identifier: GPL-2.0-or-later
/* `bootprof record --tui`: the boot while it runs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd/tui.h"
#include "core/cleanup.h"

#define TURN_MS 100
#define RELOAD_NS 500000000ull /* between two looks at the file, and ... */
#define RELOAD_SHARE 3         /* so many times as long as it took to read it last */

/* The recording as it was when it was opened, and the interface to it. */
struct shot {
	struct bp_trace *trace;
	struct bp_tui *tui;
};

struct live {
	const char *path;
	pid_t recorder;
	bool ended;
	int status;
	dev_t old_dev; /* of a file of that name from before */
	ino_t old_ino;
	struct bp_term *term;
	struct bp_grid grid;
	struct shot now, next; /* shown; being indexed */
	uint64_t bytes;        /* of the file when it was read last */
	uint64_t began_ns, due_ns;
	bool last; /* the recorder had ended when `next` was opened */
};

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void drop(struct shot *s)
{
	bp_tui_destroy(s->tui);
	bp_trace_destroy(s->trace);
	memset(s, 0, sizeof(*s));
}

/* The child: no terminal, what it says goes to @log. Does not return. */
static void record(const struct bp_record_options *opts, int log)
{
	struct bp_record_options o = *opts;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), status = 0;
	struct bp_err *err;

	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	err = bp_record_run(&o, &status);
	if (err) {
		status = bp_err_code(err) == BP_EUSAGE ? 2 : 1;
		fprintf(stderr, "bootprof record: %s\n", bp_err_text(err));
	}
	fflush(stderr);
	_exit(status);
}

static void look_at_recorder(struct live *l)
{
	int wait;

	if (!l->ended && waitpid(l->recorder, &wait, WNOHANG) == l->recorder) {
		l->ended = true;
		l->status = WIFEXITED(wait) ? WEXITSTATUS(wait) : 1;
	}
}

/* A new look at the file, when it has grown and it is time. */
static struct bp_err *begin(struct live *l)
{
	struct stat st;
	struct bp_tui_options opt;
	struct bp_err *err;

	if (l->next.tui || l->last || (!l->ended && clock_ns() < l->due_ns) || stat(l->path, &st) ||
	    (st.st_dev == l->old_dev && st.st_ino == l->old_ino))
		return NULL;
	if (!l->ended && (uint64_t)st.st_size == l->bytes)
		return NULL;
	l->bytes = (uint64_t)st.st_size;
	l->began_ns = clock_ns();
	err = bp_trace_open(l->path, &l->next.trace);
	if (err && bp_err_code(err) != BP_ENOMEM) {
		/* Its header is not written yet. */
		bp_err_ignore(err);
		l->due_ns = clock_ns() + RELOAD_NS;
		return NULL;
	}
	if (err)
		return err;
	opt = bp_tui_options_for(l->next.trace, l->term);
	err = bp_tui_create(&opt, &l->next.tui);
	l->last = l->ended;
	return err;
}

/* What was begun becomes what is shown, once all of it is read. */
static struct bp_err *finish(struct live *l)
{
	struct bp_err *err;

	if (!l->next.tui || bp_index_building(l->next.tui->index))
		return NULL;
	err = l->now.tui ? bp_tui_adopt(l->next.tui, l->now.tui) : NULL;
	drop(&l->now);
	l->now = l->next;
	memset(&l->next, 0, sizeof(l->next));
	l->now.tui->live = !l->last;
	l->due_ns = clock_ns() + RELOAD_NS + RELOAD_SHARE * (clock_ns() - l->began_ns);
	return err;
}

static struct bp_err *waiting(struct live *l, bool *quit)
{
	struct bp_key key;
	unsigned w, h;
	struct bp_err *err;

	bp_term_size(l->term, &w, &h);
	err = bp_grid_resize(&l->grid, w, h);
	if (err)
		return err;
	bp_grid_text(&l->grid, 1, 0, (int)w - 1, BP_STYLE_DIM, "QEMU is being started; q ends");
	bp_term_show(l->term, &l->grid);
	*quit = !bp_term_key(l->term, TURN_MS, &key) || key.code == 'q' || key.code == 3;
	return NULL;
}

static struct bp_err *watch(struct live *l)
{
	struct bp_err *err = NULL;
	bool quit = false;

	while (!err && !quit) {
		look_at_recorder(l);
		err = begin(l);
		if (!err)
			err = finish(l);
		if (err)
			break;
		if (!l->now.tui) {
			/* Nothing to show, and nothing will come. */
			if (l->ended && !l->next.tui)
				break;
			err = waiting(l, &quit);
			continue;
		}
		err = bp_tui_step(l->now.tui, l->term, &l->grid,
				  l->now.tui->live || l->next.tui ? TURN_MS : -1, &quit);
		quit |= l->now.tui->quit;
	}
	return err;
}

static void print_log(int log)
{
	char buf[4096];
	ssize_t n;

	lseek(log, 0, SEEK_SET);
	while ((n = read(log, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, (size_t)n, stderr);
}

struct bp_err *bp_tui_live(const struct bp_record_options *opts, int *status)
{
	struct live l = {.path = opts->output};
	bp_autoclose int log = memfd_create("recorder", MFD_CLOEXEC);
	struct stat st;
	struct bp_err *err;
	int wait;

	if (log < 0)
		return bp_err_os(errno, "cannot make room for what the recorder says");
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return bp_err_new(BP_EUSAGE, "--tui needs a terminal");
	if (!stat(l.path, &st)) {
		l.old_dev = st.st_dev;
		l.old_ino = st.st_ino;
	}
	l.recorder = fork();
	if (l.recorder < 0)
		return bp_err_os(errno, "fork");
	if (!l.recorder)
		record(opts, log);
	err = bp_term_open(BP_TERM_COLOR_AUTO, &l.term);
	if (!err)
		err = watch(&l);
	drop(&l.next);
	drop(&l.now);
	bp_term_close(l.term);
	bp_grid_deinit(&l.grid);
	if (!l.ended) {
		kill(l.recorder, SIGINT);
		while (waitpid(l.recorder, &wait, 0) < 0 && errno == EINTR)
			;
		l.status = WIFEXITED(wait) ? WEXITSTATUS(wait) : 1;
	}
	print_log(log);
	*status = l.status;
	return err;
}
