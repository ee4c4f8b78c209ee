// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "cmd/record_run.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <x86intrin.h>

#include "cmd/record_waits.h"
#include "collectors/tcg/engine.h"
#include "collectors/tcg/qemu_args.h"
#include "collectors/tcg/record_names.h"
#include "collectors/tcg/ring.h"
#include "core/cleanup.h"
#include "core/strbuf.h"
#include "core/trace.h"
#include "core/units.h"
#include "core/version.h"

#define NS_PER_S 1000000000ull

/* How long the recorder sleeps between two looks at the rings: they hold 50 ms of the busiest guest. */
#define DRAIN_MS 5
/* Base for comparing the two host clocks. */
#define CALIBRATE_NS (NS_PER_S / 50)
#define STATUS_NS (NS_PER_S / 4)
#define FLUSH_NS (NS_PER_S / 10)
/* After asking QEMU to end, this long until it is killed. */
#define KILL_NS (5 * NS_PER_S)

struct recorder {
	const struct bp_record_options *opts;
	struct bp_qemu_args args;
	struct bp_ring_shm *shm;
	int shm_fd;
	struct bp_record_names *names;
	struct bp_trace_writer *writer;
	struct bp_engine *engine;      /* NULL: the guest is not recorded */
	struct bp_engine_status alone; /* then: what is known without it */
	struct bp_record_waits *waits;
	bool tcg;
	const char *mark_names[BP_MAX_HOOKS];
	regex_t console_re;
	bool has_console_re;

	uint64_t start_ns, start_ticks; /* when QEMU was started: time 0 */
	double ns_per_tick;

	pid_t qemu;
	int console;   /* our side of QEMU's terminal or standard output, -1: inherited */
	int port_fd;   /* bytes written to the marker port, -1: none */
	bool terminal; /* our own terminal is in raw mode and belongs to the guest */
	struct termios saved;
	int rows, columns;
	bool status_shown;

	char line[1024]; /* console text up to the next newline */
	size_t line_len;
	uint64_t ended_ns; /* when we asked QEMU to end, 0: not */
	bool killed, timed_out, interrupted;
};

/* Signals only note what happened; the loop acts. */
static volatile sig_atomic_t got_end_signal, got_winch;

static void on_signal(int sig)
{
	if (sig == SIGWINCH)
		got_winch = 1;
	else
		got_end_signal++;
}

/* Only there to end poll() when QEMU does. */
static void on_child(int sig)
{
	(void)sig;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t since_start(const struct recorder *r)
{
	return now_ns() - r->start_ns;
}

static void warn_line(const char *line)
{
	fprintf(stderr, "bootprof record: warning: %s\n", line);
}

static const struct bp_engine_status *status_of(const struct recorder *r)
{
	return r->engine ? bp_engine_status(r->engine) : &r->alone;
}

static BP_MUST_CHECK struct bp_err *info(struct recorder *r, const char *key, const char *value)
{
	struct bp_fact f = {.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = key, .s2 = value};

	return bp_trace_writer_fact(r->writer, &f);
}

static BP_MUST_CHECK struct bp_err *mark(struct recorder *r, const char *name, const char *detail,
					 uint64_t ns)
{
	struct bp_fact f = {
	    .kind = BP_FACT_MARK, .vcpu = UINT16_MAX, .time_ns = ns, .s1 = name, .s2 = detail};

	return r->engine ? bp_engine_mark(r->engine, name, detail, ns) : bp_trace_writer_fact(r->writer, &f);
}

/* The ready marker was seen. */
static BP_MUST_CHECK struct bp_err *ready(struct recorder *r, const char *by, uint64_t ns)
{
	if (r->engine)
		return bp_engine_ready(r->engine, by, ns);
	if (r->alone.ready)
		return NULL;
	r->alone.ready = true;
	r->alone.ready_ns = ns;
	snprintf(r->alone.ready_by, sizeof(r->alone.ready_by), "%s", by);
	return mark(r, "ready", by, ns);
}

/* ---- clocks ---- */

/* A time stamp counter that the kernel itself does not trust is not used. */
static bool tsc_usable(void)
{
	unsigned a, b, c, d;
	char buf[32] = "";
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");

	/* Without /sys the processor is asked: CPUID 80000007h, EDX bit 8, invariant TSC. */
	if (!f)
		return __get_cpuid(0x80000007, &a, &b, &c, &d) && d & 1u << 8;
	if (!fgets(buf, sizeof(buf), f))
		buf[0] = '\0';
	fclose(f);
	return !strncmp(buf, "tsc", 3) || !strncmp(buf, "kvm-clock", 9) || !strncmp(buf, "hyperv", 6);
}

/* One (clock, ticks) pair; the tightest of several tries. */
static void clock_pair(const struct bp_ring_shm *shm, uint64_t *ns, uint64_t *ticks)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 16; i++) {
		uint64_t a = __rdtsc(), t = now_ns(), b = __rdtsc();

		if (b - a < best) {
			best = b - a;
			*ns = t;
			*ticks = !shm || shm->use_clock ? t : a + (b - a) / 2;
		}
	}
}

/* ---- the terminal ---- */

static void terminal_size(struct recorder *r)
{
	struct winsize ws;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) || !ws.ws_row || !ws.ws_col)
		ws = (struct winsize){.ws_row = 24, .ws_col = 80};
	r->rows = ws.ws_row;
	r->columns = ws.ws_col;
	if (r->terminal && r->console >= 0) {
		/* The last row is ours. */
		if (!r->opts->quiet && ws.ws_row > 4)
			ws.ws_row--;
		ioctl(r->console, TIOCSWINSZ, &ws);
	}
}

static void status_area(struct recorder *r, bool on)
{
	if (r->opts->quiet || !isatty(STDERR_FILENO))
		return;
	if (!r->terminal) {
		if (!on && r->status_shown)
			fputs("\r\033[K", stderr);
	} else if (on && r->rows > 4) {
		/* Scroll what is there up by one line, then keep the guest out of the last row. */
		fprintf(stderr, "\n\0337\033[1;%dr\0338\033[A", r->rows - 1);
	} else if (r->rows > 4) {
		fprintf(stderr, "\0337\033[r\033[%d;1H\033[K\0338", r->rows);
	}
	r->status_shown = on;
	fflush(stderr);
}

/* The guest reset the terminal (SeaBIOS does): the last row is ours again. The cursor is at home then. */
static void restore_area(const struct recorder *r, const char *output, size_t len)
{
	if (!r->terminal || r->opts->quiet || r->rows <= 4)
		return;
	if (memmem(output, len, "\033c", 2) || memmem(output, len, "\033[r", 3) ||
	    memmem(output, len, "\033[!p", 4)) {
		fprintf(stderr, "\0337\033[1;%dr\0338", r->rows - 1);
		fflush(stderr);
	}
}

static void show_status(struct recorder *r)
{
	const struct bp_engine_status *s = status_of(r);
	struct bp_strbuf sb = BP_STRBUF_INIT;
	char insns[BP_UNITS_MAX], rate[BP_UNITS_MAX], bytes[BP_UNITS_MAX];
	uint64_t t = since_start(r);
	size_t head;

	if (r->opts->quiet || !isatty(STDERR_FILENO))
		return;
	bp_units_count(insns, s->insns);
	bp_units_count(rate, (uint64_t)((double)s->calls * 1e9 / (double)(t ? t : 1)));
	bp_units_bytes(bytes, bp_trace_writer_bytes(r->writer));
	if (r->engine) {
		bp_strbuf_addf(&sb, "%.1f s  %s insns  %s calls/s  %s  %s  ", (double)t / 1e9, insns, rate,
			       bytes, s->phase);
	} else {
		uint64_t lost;

		bp_units_count(rate, bp_record_waits_records(r->waits, &lost));
		bp_strbuf_addf(&sb, "%.1f s  %s waits  %s  ", (double)t / 1e9, rate, bytes);
	}
	head = sb.len;
	if (s->last_line[0])
		bp_strbuf_add_term(&sb, s->last_line, strlen(s->last_line));
	/* One column is left free: writing the last one may scroll. */
	if (sb.len >= (size_t)r->columns && r->columns > 0) {
		size_t cut = (size_t)r->columns - 1;

		/* Never cut inside a multi-byte character. */
		while (cut > head && ((unsigned char)sb.data[cut] & 0xc0) == 0x80)
			cut--;
		sb.data[cut] = '\0';
	}
	if (r->terminal && r->rows > 4)
		fprintf(stderr, "\0337\033[%d;1H\033[K\033[7m%s\033[0m\0338", r->rows, bp_strbuf_str(&sb));
	else if (!r->terminal)
		fprintf(stderr, "\r\033[K%s", bp_strbuf_str(&sb));
	fflush(stderr);
	r->status_shown = true;
	bp_strbuf_deinit(&sb);
}

/* ---- console ---- */

static bool console_matches(void *self, const char *line)
{
	struct recorder *r = self;

	return r->has_console_re && !regexec(&r->console_re, line, 0, NULL, 0);
}

static BP_MUST_CHECK struct bp_err *console_line(struct recorder *r)
{
	struct bp_fact f = {
	    .kind = BP_FACT_CONSOLE,
	    .vcpu = UINT16_MAX,
	    .time_ns = since_start(r),
	    .s1 = r->line,
	    .s2 = "stdio",
	};
	struct bp_err *err;

	r->line[r->line_len] = '\0';
	r->line_len = 0;
	err = bp_trace_writer_fact(r->writer, &f);
	if (!err && console_matches(r, r->line))
		err = ready(r, r->line, f.time_ns);
	return err;
}

static void write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return;
		}
		data += n;
		len -= (size_t)n;
	}
}

/* Pass on what the guest wrote, as it is: it is the user's own console. Lines also go to the recording. */
static BP_MUST_CHECK struct bp_err *console_output(struct recorder *r, bool *end)
{
	struct bp_err *err = NULL;
	char buf[4096];
	ssize_t n = read(r->console, buf, sizeof(buf));

	if (n <= 0) {
		*end = n == 0 || (errno != EINTR && errno != EAGAIN);
		return NULL;
	}
	if (r->status_shown && !r->terminal && isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	write_all(STDOUT_FILENO, buf, (size_t)n);
	restore_area(r, buf, (size_t)n);
	for (ssize_t i = 0; i < n && !err; i++) {
		if (buf[i] == '\r')
			continue;
		if (buf[i] != '\n') {
			if (r->line_len + 1 < sizeof(r->line))
				r->line[r->line_len++] = buf[i];
			/* A prompt has no newline. */
			if (r->has_console_re && i + 1 == n) {
				r->line[r->line_len] = '\0';
				if (console_matches(r, r->line))
					err = console_line(r);
			}
			continue;
		}
		if (r->line_len)
			err = console_line(r);
	}
	return err;
}

static void console_input(struct recorder *r)
{
	char buf[1024];
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

	if (n > 0)
		write_all(r->console, buf, (size_t)n);
}

/* ---- QEMU ---- */

/*
 * Run a QEMU with one argument and keep what it says. Not done with anything but QEMU itself: a script around
 * it may start a machine whatever it is asked.
 */
static bool qemu_says(const char *qemu, const char *arg, struct bp_strbuf *out)
{
	const char *base = strrchr(qemu, '/');
	int fds[2], status;
	char buf[4096];
	ssize_t n;
	pid_t pid;

	if (strncmp(base ? base + 1 : qemu, "qemu", 4))
		return false;
	if (pipe2(fds, O_CLOEXEC))
		return false;
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, STDIN_FILENO);
		dup2(fds[1], STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execlp(qemu, qemu, arg, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	if (pid < 0) {
		close(fds[0]);
		return false;
	}
	while ((n = read(fds[0], buf, sizeof(buf))) > 0 && out->len < 1 << 20)
		bp_strbuf_add(out, buf, (size_t)n);
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static BP_MUST_CHECK struct bp_err *make_shm(struct recorder *r)
{
	void *p;

	r->shm_fd = memfd_create("bootprof-rings", 0);
	if (r->shm_fd < 0)
		return bp_err_os(errno, "memory shared with QEMU");
	if (ftruncate(r->shm_fd, (off_t)bp_shm_bytes()))
		return bp_err_os(errno, "memory shared with QEMU");
	p = mmap(NULL, bp_shm_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r->shm_fd, 0);
	if (p == MAP_FAILED)
		return bp_err_os(errno, "memory shared with QEMU");
	r->shm = p;
	r->shm->magic = BP_RING_MAGIC;
	r->shm->bytes = bp_shm_bytes();
	r->shm->use_clock = !tsc_usable();
	r->shm->no_user = r->opts->no_user;
	return NULL;
}

static BP_MUST_CHECK struct bp_err *find_plugin(const struct recorder *r, char **ret)
{
	static const char *const beside[] = {"bootprof-tcg.so", "../lib/bootprof/bootprof-tcg.so",
					     "build/bootprof-tcg.so"};
	char exe[4096];
	ssize_t n;
	char *slash;

	if (r->opts->plugin) {
		*ret = realpath(r->opts->plugin, NULL);
		return *ret ? NULL : bp_err_os(errno, "%s", r->opts->plugin);
	}
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n < 0)
		return bp_err_os(errno, "/proc/self/exe");
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; i < BP_ARRAY_SIZE(beside); i++) {
		char path[4200];

		snprintf(path, sizeof(path), "%s/%s", exe, beside[i]);
		*ret = realpath(path, NULL);
		if (*ret)
			return NULL;
	}
	return bp_err_new(
	    BP_EOS, "the QEMU plugin bootprof-tcg.so is not beside %s; say where it is with --plugin", exe);
}

struct arg_list {
	char **v;
	size_t n;
	bool failed;
};

static void add_arg(struct arg_list *a, const char *s)
{
	char **p = realloc(a->v, (a->n + 2) * sizeof(*p));

	if (p)
		a->v = p;
	if (!p || !(a->v[a->n] = strdup(s))) {
		a->failed = true;
		return;
	}
	a->v[++a->n] = NULL;
}

static void free_args(struct arg_list *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->v[i]);
	free(a->v);
}

/* Whether the user says himself what threads are called. */
static bool names_threads(char *const *argv)
{
	for (; *argv; argv++) {
		if (strstr(*argv, "debug-threads="))
			return true;
	}
	return false;
}

/* The user's command line, and what we add to it. */
static BP_MUST_CHECK struct bp_err *build_args(struct recorder *r, const char *plugin, int port_fd,
					       struct arg_list *a)
{
	char buf[5000];

	for (char **p = r->opts->qemu_argv; *p; p++)
		add_arg(a, *p);
	if (r->tcg) {
		snprintf(buf, sizeof(buf), "%s,fd=%d", plugin, r->shm_fd);
		if (strchr(plugin, ','))
			return bp_err_new(BP_EUNSUPPORTED, "%s: QEMU takes no plugin path with a comma in it",
					  plugin);
		add_arg(a, "-plugin");
		add_arg(a, buf);
	}
	/* Threads then have names: CPU 0/TCG. What the user says himself of -name is kept. */
	if (r->waits && !names_threads(r->opts->qemu_argv)) {
		add_arg(a, "-name");
		add_arg(a, "debug-threads=on");
	}
	if (r->opts->deterministic) {
		if (!r->args.has_icount) {
			add_arg(a, "-icount");
			add_arg(a, "shift=4,sleep=off");
		}
		if (!r->args.has_rtc) {
			add_arg(a, "-rtc");
			add_arg(a, "base=2024-01-01,clock=vm");
		}
		if (!r->args.has_seed) {
			add_arg(a, "-seed");
			add_arg(a, "1");
		}
	}
	if (port_fd >= 0) {
		snprintf(buf, sizeof(buf), "file,id=bootprof-port,path=/dev/fd/%d", port_fd);
		add_arg(a, "-chardev");
		add_arg(a, buf);
		snprintf(buf, sizeof(buf), "isa-debugcon,iobase=0x%x,chardev=bootprof-port",
			 (unsigned)r->opts->until_port);
		add_arg(a, "-device");
		add_arg(a, buf);
	}
	return a->failed ? bp_err_nomem() : NULL;
}

/* Runs in the child: only calls that are safe there. @report gets errno when QEMU cannot be started. */
static void child_exec(struct recorder *r, char **argv, int slave, int out, int report, int go)
{
	int null;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	signal(SIGWINCH, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	if (slave >= 0) {
		setsid();
		ioctl(slave, TIOCSCTTY, 0);
		dup2(slave, STDIN_FILENO);
		dup2(slave, STDOUT_FILENO);
	} else if (out >= 0) {
		dup2(out, STDOUT_FILENO);
	}
	if (r->opts->deterministic) {
		null = open("/dev/null", O_RDONLY);
		if (null >= 0)
			dup2(null, STDIN_FILENO);
	}
	/* Not before it is traced. */
	if (go >= 0 && read(go, &c, 1) != 1)
		_exit(126);
	execvp(argv[0], argv);
	null = errno;
	if (write(report, &null, sizeof(null)) < 0)
		_exit(126);
	_exit(127);
}

static BP_MUST_CHECK struct bp_err *start_qemu(struct recorder *r)
{
	int report[2], go[2] = {-1, -1}, pipe_fds[2] = {-1, -1}, port[2] = {-1, -1}, slave = -1, failed = 0;
	bp_autofree char *plugin = NULL;
	struct arg_list args = {0};
	struct bp_err *err = NULL;
	ssize_t n;

	if (r->tcg)
		err = find_plugin(r, &plugin);
	if (err)
		return err;
	if (pipe2(report, O_CLOEXEC) || (r->waits && pipe2(go, O_CLOEXEC)))
		return bp_err_os(errno, "pipe");
	if (r->opts->until_port >= 0 && r->args.debug_exit_port != (unsigned)r->opts->until_port) {
		if (pipe(port))
			return bp_err_os(errno, "pipe");
		r->port_fd = port[0];
		fcntl(port[0], F_SETFD, FD_CLOEXEC);
		fcntl(port[0], F_SETFL, O_NONBLOCK);
	}
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !r->opts->deterministic) {
		struct termios raw;

		if (tcgetattr(STDIN_FILENO, &r->saved) || openpty(&r->console, &slave, NULL, &r->saved, NULL))
			return bp_err_os(errno, "terminal for the guest");
		fcntl(r->console, F_SETFD, FD_CLOEXEC);
		r->terminal = true;
		terminal_size(r);
		status_area(r, true);
		raw = r->saved;
		cfmakeraw(&raw);
		/* Lines of ours still end in a carriage return. */
		raw.c_oflag |= OPOST | ONLCR;
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	} else {
		if (pipe2(pipe_fds, O_CLOEXEC))
			return bp_err_os(errno, "pipe");
		r->console = pipe_fds[0];
		terminal_size(r);
	}
	err = build_args(r, plugin, port[1], &args);
	if (err) {
		free_args(&args);
		return err;
	}
	clock_pair(r->shm, &r->start_ns, &r->start_ticks);
	r->qemu = fork();
	if (r->qemu == 0)
		child_exec(r, args.v, slave, pipe_fds[1], report[1], go[0]);
	free_args(&args);
	if (r->waits) {
		close(go[0]);
		if (r->qemu > 0)
			err = bp_record_waits_attach(r->waits, r->qemu, r->writer);
		/* What that took is no time of QEMU's. */
		clock_pair(r->shm, &r->start_ns, &r->start_ticks);
		if (!err)
			err = bp_record_waits_start(r->waits, r->start_ns);
		if (!err && write(go[1], "", 1) != 1)
			err = bp_err_os(errno, "pipe");
		close(go[1]);
	}
	close(report[1]);
	if (slave >= 0)
		close(slave);
	if (pipe_fds[1] >= 0)
		close(pipe_fds[1]);
	if (port[1] >= 0)
		close(port[1]);
	if (r->qemu < 0) {
		close(report[0]);
		return bp_err_os(errno, "fork");
	}
	n = err ? 0 : read(report[0], &failed, sizeof(failed));
	close(report[0]);
	if (err)
		return err;
	if (n == (ssize_t)sizeof(failed)) {
		waitpid(r->qemu, NULL, 0);
		r->qemu = 0;
		return bp_err_os(failed, "%s", r->opts->qemu_argv[0]);
	}
	return NULL;
}

static void end_qemu(struct recorder *r)
{
	if (r->ended_ns || r->qemu <= 0)
		return;
	r->ended_ns = since_start(r);
	kill(r->qemu, SIGTERM);
}

/* ---- facts about the recording ---- */

void bp_record_quote(struct bp_strbuf *line, const char *arg)
{
	if (line->len)
		bp_strbuf_addc(line, ' ');
	if (*arg && !strpbrk(arg, " \t\n\"'\\$`;&|<>()*?[]#~!")) {
		bp_strbuf_adds(line, arg);
		return;
	}
	bp_strbuf_addc(line, '\'');
	for (const char *c = arg; *c; c++) {
		if (*c == '\'')
			bp_strbuf_adds(line, "'\\''");
		else
			bp_strbuf_addc(line, *c);
	}
	bp_strbuf_addc(line, '\'');
}

struct bp_err *bp_record_host_info(struct bp_trace_writer *w)
{
	struct bp_fact f = {
	    .kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = "bootprof_version", .s2 = BOOTPROF_VERSION};
	struct bp_err *err = bp_trace_writer_fact(w, &f);
	time_t t = time(NULL);
	struct utsname un;
	char buf[64];
	struct tm tm;

	f.s1 = "host_release";
	f.s2 = un.release;
	if (!err && !uname(&un))
		err = bp_trace_writer_fact(w, &f);
	f.s1 = "host_cpus";
	f.s2 = buf;
	snprintf(buf, sizeof(buf), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	if (!err)
		err = bp_trace_writer_fact(w, &f);
	f.s1 = "start_time";
	if (!err && gmtime_r(&t, &tm) && strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm))
		err = bp_trace_writer_fact(w, &f);
	return err;
}

struct bp_err *bp_record_clock_base(struct bp_trace_writer *w, uint64_t ns)
{
	char buf[24];
	struct bp_fact f = {.kind = BP_FACT_INFO, .vcpu = UINT16_MAX, .s1 = "clock_base_ns", .s2 = buf};

	snprintf(buf, sizeof(buf), "%llu", (unsigned long long)ns);
	return bp_trace_writer_fact(w, &f);
}

static BP_MUST_CHECK struct bp_err *write_info(struct recorder *r, const char *qemu_version)
{
	struct bp_strbuf line = BP_STRBUF_INIT;
	struct bp_err *err;

	for (char **p = r->opts->qemu_argv; *p; p++)
		bp_record_quote(&line, *p);
	err = bp_record_host_info(r->writer);
	if (!err)
		err = info(r, "command_line", bp_strbuf_str(&line));
	bp_strbuf_deinit(&line);
	if (!err)
		err = info(r, "qemu_version", qemu_version);
	if (!err)
		err = info(r, "deterministic", r->opts->deterministic ? "yes" : "no");
	if (!err)
		err = info(r, "clock_time",
			   !r->tcg || r->shm->use_clock ? "CLOCK_MONOTONIC" : "host time stamp counter");
	if (!err && r->tcg)
		err = info(r, "clock_insns", "instructions executed by each vCPU, as TCG counts them");
	if (!err && r->tcg)
		err = bp_record_names_facts(r->names, r->writer);
	return err ? err : bp_trace_writer_flush(r->writer);
}

static BP_MUST_CHECK struct bp_err *late_info(struct recorder *r)
{
	char buf[32];
	struct bp_err *err;

	snprintf(buf, sizeof(buf), "%u", r->shm->api);
	err = info(r, "plugin_api", buf);
	if (!err && r->shm->slide_known) {
		snprintf(buf, sizeof(buf), "0x%llx", (unsigned long long)r->shm->slide);
		err = info(r, "kaslr_slide", buf);
	}
	if (!err && r->opts->max_bytes) {
		snprintf(buf, sizeof(buf), "%llu", (unsigned long long)r->opts->max_bytes);
		err = info(r, "max_bytes", buf);
	}
	return err;
}

/* ---- the loop ---- */

static BP_MUST_CHECK struct bp_err *read_port(struct recorder *r)
{
	uint8_t buf[64];
	ssize_t n = read(r->port_fd, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == r->opts->until_value) {
			char by[48];

			snprintf(by, sizeof(by), "port 0x%x=%u", (unsigned)r->opts->until_port,
				 r->opts->until_value);
			return ready(r, by, since_start(r));
		}
	}
	if (n == 0) {
		close(r->port_fd);
		r->port_fd = -1;
	}
	return NULL;
}

static BP_MUST_CHECK struct bp_err *loop(struct recorder *r, int *qemu_status)
{
	uint64_t last_status = 0, last_flush = 0, n = 0;
	bool running = true, console_open = true;
	struct bp_err *err = NULL;

	while (running || n) {
		struct pollfd fds[3] = {
		    {.fd = console_open ? r->console : -1, .events = POLLIN},
		    {.fd = r->terminal && console_open ? STDIN_FILENO : -1, .events = POLLIN},
		    {.fd = r->port_fd, .events = POLLIN},
		};
		uint64_t t = since_start(r);
		bool end = false;

		if (poll(fds, 3, running ? DRAIN_MS : 0) < 0 && errno != EINTR)
			return bp_err_os(errno, "poll");
		if (fds[0].revents) {
			err = console_output(r, &end);
			if (end)
				console_open = false;
		}
		if (fds[1].revents & POLLIN)
			console_input(r);
		if (!err && fds[2].revents)
			err = read_port(r);
		if (err)
			return err;
		if (running && waitpid(r->qemu, qemu_status, WNOHANG) == r->qemu) {
			running = false;
			r->qemu = 0;
		}
		if (r->engine)
			err = bp_engine_drain(r->engine, &n);
		if (!err && r->waits)
			err = bp_record_waits_poll(r->waits, since_start(r));
		if (err)
			return err;
		if (r->tcg && r->shm->no_registers && !r->ended_ns) {
			end_qemu(r);
			return bp_err_new(BP_EUNSUPPORTED, "the CPU state could not be found in this QEMU, "
							   "so no call stacks can be recorded");
		}
		if (status_of(r)->ready)
			end_qemu(r);
		if (got_end_signal && !r->interrupted) {
			r->interrupted = true;
			end_qemu(r);
		}
		if (r->opts->timeout_ns && t > r->opts->timeout_ns && !r->ended_ns) {
			r->timed_out = true;
			end_qemu(r);
		}
		if (running && r->ended_ns && !r->killed &&
		    (t > r->ended_ns + KILL_NS || got_end_signal > 1)) {
			r->killed = true;
			kill(r->qemu, SIGKILL);
		}
		if (got_winch) {
			got_winch = 0;
			terminal_size(r);
			status_area(r, true);
		}
		if (t - last_flush > FLUSH_NS) {
			last_flush = t;
			err = bp_trace_writer_flush(r->writer);
			if (err)
				return err;
		}
		if (t - last_status > STATUS_NS) {
			last_status = t;
			show_status(r);
		}
	}
	while (console_open) {
		bool end = false;

		struct pollfd fd = {.fd = r->console, .events = POLLIN};

		if (poll(&fd, 1, 0) <= 0 || !fd.revents)
			break;
		err = console_output(r, &end);
		if (err)
			return err;
		if (end)
			break;
	}
	return NULL;
}

static const char *ending(const struct recorder *r, int qemu_status)
{
	const struct bp_engine_status *s = status_of(r);

	if (s->ready)
		return "marker";
	if (r->timed_out)
		return "timeout";
	if (r->interrupted)
		return "interrupt";
	if (s->panic)
		return "panic";
	if (WIFSIGNALED(qemu_status))
		return "killed";
	if (s->reboot)
		return "reboot";
	if (s->poweroff)
		return "poweroff";
	if (s->halt)
		return "halt";
	return "exit";
}

static void summary(const struct recorder *r, const char *how, int qemu_status)
{
	const struct bp_engine_status *s = status_of(r);
	struct bp_strbuf sb = BP_STRBUF_INIT;
	bp_autofree char *waits = NULL;
	char insns[BP_UNITS_MAX], calls[BP_UNITS_MAX], bytes[BP_UNITS_MAX];

	bp_units_count(insns, s->insns);
	bp_units_count(calls, s->calls);
	bp_units_bytes(bytes, bp_trace_writer_bytes(r->writer));
	bp_strbuf_adds(&sb, "bootprof: ");
	bp_strbuf_add_term(&sb, r->opts->output, strlen(r->opts->output));
	if (r->waits)
		bp_err_ignore(bp_record_waits_summary(r->waits, &waits));
	if (r->tcg)
		bp_strbuf_addf(
		    &sb, ": %s instructions, %s calls in %.3f s, %s (%.1f bytes a call)%s%s; ended by %s",
		    insns, calls, (double)(s->ready ? s->ready_ns : s->now_ns) / 1e9, bytes,
		    s->calls ? (double)bp_trace_writer_bytes(r->writer) / (double)s->calls : 0.0,
		    waits ? "; " : "", waits ? waits : "", how);
	else
		bp_strbuf_addf(
		    &sb,
		    ": %.3f s, %s; %s; the guest runs on the real CPU: its calls are not recorded; "
		    "ended by %s",
		    (double)since_start(r) / 1e9, bytes, waits ? waits : "", how);
	if (s->ready) {
		bp_strbuf_adds(&sb, " (");
		bp_strbuf_add_term(&sb, s->ready_by, strlen(s->ready_by));
		bp_strbuf_adds(&sb, ")");
	} else if (s->panic && s->panic_text[0]) {
		bp_strbuf_adds(&sb, " (");
		bp_strbuf_add_term(&sb, s->panic_text, strlen(s->panic_text));
		bp_strbuf_adds(&sb, ")");
	}
	if (WIFSIGNALED(qemu_status))
		bp_strbuf_addf(&sb, ", QEMU killed by signal %d", WTERMSIG(qemu_status));
	else if (WEXITSTATUS(qemu_status))
		bp_strbuf_addf(&sb, ", QEMU's exit status %d", WEXITSTATUS(qemu_status));
	if (s->lost)
		bp_strbuf_addf(&sb, ", %llu records lost", (unsigned long long)s->lost);
	if (s->folded_calls)
		bp_strbuf_addf(&sb, ", %llu short calls folded into totals",
			       (unsigned long long)s->folded_calls);
	fprintf(stderr, "%s\n", bp_strbuf_str(&sb));
	bp_strbuf_deinit(&sb);
}

static BP_MUST_CHECK struct bp_err *check_request(struct recorder *r)
{
	bp_qemu_args_parse(r->opts->qemu_argv, &r->args);
	r->tcg = !strcmp(r->args.accel, "tcg");
	if (!r->tcg && !r->opts->waits)
		return bp_err_new(
		    BP_EUNSUPPORTED,
		    "-accel %s: the guest then runs on the real CPU and QEMU does not see its functions, so "
		    "neither calls nor instructions can be recorded; use -accel tcg, or --waits",
		    r->args.accel);
	if (!r->tcg &&
	    (r->opts->until_function || r->opts->until_exec || r->opts->deterministic || r->opts->max_bytes))
		return bp_err_new(BP_EUSAGE,
				  "%s needs -accel tcg: under %s the guest's functions are not seen",
				  r->opts->until_function  ? "--until-function"
				  : r->opts->until_exec    ? "--until-exec"
				  : r->opts->deterministic ? "--deterministic"
							   : "--max-size",
				  r->args.accel);
	if (r->args.daemonize)
		return bp_err_new(
		    BP_EUSAGE, "-daemonize: the recording ends with QEMU, which must stay in the foreground");
	if (r->opts->until_console) {
		int rc = regcomp(&r->console_re, r->opts->until_console, REG_EXTENDED | REG_NOSUB);

		if (rc) {
			char msg[128];

			regerror(rc, &r->console_re, msg, sizeof(msg));
			return bp_err_new(BP_EUSAGE, "--until-console '%s': %s", r->opts->until_console, msg);
		}
		r->has_console_re = true;
	}
	return NULL;
}

/* "QEMU emulator version 7.2.22 (...)"; empty when what was started is a script around QEMU. */
static void qemu_version(const struct recorder *r, struct bp_strbuf *version)
{
	char *nl;

	if (!qemu_says(r->opts->qemu_argv[0], "-version", version) || !strstr(bp_strbuf_str(version), "QEMU"))
		bp_strbuf_clear(version);
	nl = version->data ? strchr(version->data, '\n') : NULL;
	if (nl) {
		*nl = '\0';
		version->len = (size_t)(nl - version->data);
	}
}

/* Why did no guest instruction come? */
static BP_MUST_CHECK struct bp_err *nothing_executed(const struct recorder *r, int qemu_status)
{
	int code = WIFEXITED(qemu_status) ? WEXITSTATUS(qemu_status) : 128 + WTERMSIG(qemu_status);
	const char *qemu = r->opts->qemu_argv[0];
	struct bp_strbuf help = BP_STRBUF_INIT;
	bool no_plugins;

	if (r->shm->api)
		return bp_err_new(BP_EUNSUPPORTED,
				  "QEMU ended with status %d without executing a guest instruction under TCG",
				  code);
	no_plugins = qemu_says(qemu, "-help", &help) && help.len && !strstr(help.data, "\n-plugin ");
	bp_strbuf_deinit(&help);
	if (no_plugins)
		return bp_err_new(BP_EUNSUPPORTED,
				  "%s was built without TCG plugins (it has no -plugin option)", qemu);
	return bp_err_new(BP_EOS, "%s ended with status %d before it loaded the plugin", qemu, code);
}

/*
 * Open everything names come from, while QEMU builds its machine: the plugin waits for it in front of the
 * first kernel instruction.
 */
static BP_MUST_CHECK struct bp_err *load_names(struct recorder *r, int *until_hook)
{
	const char *kernel = r->opts->kernel_image ? r->opts->kernel_image : r->args.kernel;
	struct bp_err *err;

	err = bp_record_names_create(kernel, r->opts->vmlinux, r->opts->guest_root, &r->args, warn_line,
				     &r->names);
	if (!err)
		err = bp_record_names_prepare(r->names, r->shm, r->mark_names, r->opts->until_function,
					      until_hook);
	__atomic_store_n(&r->shm->prepared, 1, __ATOMIC_RELEASE);
	/* Now rather than when QEMU has ended and somebody waits for us. */
	if (r->names)
		bp_record_names_trim(r->names);
	return err;
}

static BP_MUST_CHECK struct bp_err *start_engine(struct recorder *r, int until_hook)
{
	struct bp_engine_options eo = {0};
	uint64_t ns, ticks;

	/* The longer the base, the better the ratio of the two clocks. */
	while (since_start(r) < CALIBRATE_NS)
		usleep(2000);
	clock_pair(r->shm, &ns, &ticks);
	r->ns_per_tick = (double)(ns - r->start_ns) / (double)(ticks - r->start_ticks);
	eo.until_hook = until_hook;
	eo.mark_names = r->mark_names;
	eo.until_function = r->opts->until_function;
	eo.until_exec = r->opts->until_exec;
	eo.until_console = r->has_console_re ? console_matches : NULL;
	eo.until_console_self = r;
	eo.max_bytes = r->opts->max_bytes;
	eo.end_at_poweroff = r->opts->deterministic;
	eo.start_ticks = r->start_ticks;
	eo.ns_per_tick = r->ns_per_tick;
	return bp_engine_create(r->shm, r->writer, bp_record_names_get(r->names), &eo, &r->engine);
}

static BP_MUST_CHECK struct bp_err *run(struct recorder *r, int *status)
{
	struct bp_strbuf version bp_cleanup(bp_strbuf_deinit) = BP_STRBUF_INIT;
	struct sigaction sa = {.sa_handler = on_signal},
			 child = {.sa_handler = on_child, .sa_flags = SA_RESTART};
	uint64_t end_ns, n;
	const char *how;
	struct bp_err *err;
	struct bp_fact f;
	int qemu_status = 0, until_hook = -1;

	err = check_request(r);
	if (!err && r->tcg)
		err = make_shm(r);
	if (!err && r->opts->waits)
		err = bp_record_waits_create(r->opts, !r->tcg, &r->waits);
	if (!err)
		err = bp_trace_writer_create(r->opts->output, 4, &r->writer);
	if (err)
		return err;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	sigaction(SIGWINCH, &sa, NULL);
	sigaction(SIGCHLD, &child, NULL);
	signal(SIGPIPE, SIG_IGN);
	err = start_qemu(r);
	if (!err && r->tcg)
		err = load_names(r, &until_hook);
	if (err)
		return err;
	qemu_version(r, &version);
	err = write_info(r, bp_strbuf_str(&version));
	if (err)
		return err;
	err = r->tcg ? start_engine(r, until_hook) : NULL;
	if (err)
		return err;
	err = loop(r, &qemu_status);
	if (err)
		return err;
	end_ns = since_start(r);
	if (r->engine)
		err = bp_engine_drain(r->engine, &n);
	if (err)
		return err;
	if (r->tcg && r->shm->not_tcg_target)
		return bp_err_new(BP_EUNSUPPORTED,
				  "only system emulation of x86_64 with at most %d vCPUs can be recorded",
				  BP_MAX_VCPUS);
	if (r->tcg && !r->shm->first_exec_ticks)
		return nothing_executed(r, qemu_status);
	if (r->opts->until_port >= 0 && r->args.debug_exit_port == (unsigned)r->opts->until_port &&
	    WIFEXITED(qemu_status) && WEXITSTATUS(qemu_status) == (int)(r->opts->until_value << 1 | 1)) {
		char by[48];

		snprintf(by, sizeof(by), "port 0x%x=%u", (unsigned)r->opts->until_port, r->opts->until_value);
		err = ready(r, by, r->engine ? bp_engine_status(r->engine)->now_ns : end_ns);
		qemu_status = 0;
	}
	how = ending(r, qemu_status);
	if (!err && r->engine)
		err = bp_engine_finish(r->engine, end_ns);
	if (!err && r->engine && !bp_engine_status(r->engine)->ready)
		err = bp_engine_mark(r->engine, "last-instruction", "", bp_engine_status(r->engine)->now_ns);
	if (!err)
		err = mark(r, "qemu-exit", how, end_ns);
	if (!err && r->waits)
		err = bp_record_waits_finish(r->waits, end_ns);
	if (!err && r->tcg)
		err = late_info(r);
	f = (struct bp_fact){
	    .kind = BP_FACT_END,
	    .vcpu = UINT16_MAX,
	    .time_ns = end_ns,
	    .s1 = how,
	    .s2 = "",
	    .v = {(uint64_t)(WIFEXITED(qemu_status) ? WEXITSTATUS(qemu_status) : 128 + WTERMSIG(qemu_status)),
		  status_of(r)->insns, status_of(r)->calls},
	};
	if (!err && status_of(r)->lost) {
		struct bp_fact lost = {
		    .kind = BP_FACT_LOST,
		    .vcpu = UINT16_MAX,
		    .time_ns = end_ns,
		    .v = {status_of(r)->lost},
		    .s1 = "records that the plugin could not hand over",
		    .s2 = "",
		};

		err = bp_trace_writer_fact(r->writer, &lost);
	}
	if (!err)
		err = bp_trace_writer_fact(r->writer, &f);
	status_area(r, false);
	if (!err && !r->opts->quiet)
		summary(r, how, qemu_status);
	if (!err)
		err = bp_trace_writer_close(bp_steal(r->writer));
	if (status_of(r)->ready || r->interrupted)
		*status = 0;
	else if (r->timed_out)
		*status = r->opts->until_console || r->opts->until_function || r->opts->until_exec ||
				  r->opts->until_port >= 0
			      ? 124
			      : 0;
	else
		*status = (int)f.v[0];
	return err;
}

struct bp_err *bp_record_run(const struct bp_record_options *opts, int *status)
{
	struct recorder r = {.opts = opts, .shm_fd = -1, .alone.phase = "", .console = -1, .port_fd = -1};
	struct bp_err *err = run(&r, status);
	uint64_t lost;

	/* Nobody reads the rings any more: a vCPU that waits for room in one would not let QEMU end. */
	if (r.shm)
		__atomic_store_n(&r.shm->stop, 1, __ATOMIC_RELAXED);
	if (r.qemu > 0) {
		/* The recording failed: the guest is not left behind. */
		kill(r.qemu, SIGTERM);
		for (int i = 0; i < 200 && waitpid(r.qemu, NULL, WNOHANG) == 0; i++)
			usleep(10000);
		kill(r.qemu, SIGKILL);
		waitpid(r.qemu, NULL, WNOHANG);
	}
	if (r.terminal) {
		status_area(&r, false);
		tcsetattr(STDIN_FILENO, TCSADRAIN, &r.saved);
	}
	/* Nothing was recorded: an earlier recording of that name stays what it is. */
	if (err &&
	    (r.engine ? !r.shm->first_exec_ticks : !r.waits || !bp_record_waits_records(r.waits, &lost)))
		bp_trace_writer_discard(bp_steal(r.writer));
	bp_engine_destroy(r.engine);
	bp_trace_writer_destroy(r.writer);
	bp_record_waits_destroy(r.waits);
	bp_record_names_destroy(r.names);
	if (r.has_console_re)
		regfree(&r.console_re);
	if (r.shm)
		munmap(r.shm, bp_shm_bytes());
	if (r.shm_fd >= 0)
		close(r.shm_fd);
	if (r.console >= 0)
		close(r.console);
	if (r.port_fd >= 0)
		close(r.port_fd);
	return err;
}
