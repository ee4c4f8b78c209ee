// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "collectors/qemu/qmp.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/strbuf.h"

#define VCPUS_MAX 4096
#define ANSWER_MAX (4u << 20)

/* ---- the command line ---- */

/* The next word behind @at (NULL: the first), NULL at the end. */
static const char *next_word(const char *args, size_t len, const char *at)
{
	size_t from = at ? (size_t)(at - args) + strlen(at) + 1 : 0;

	return from < len && memchr(args + from, '\0', len - from) ? args + from : NULL;
}

/* The value of a key in "socket,id=x,path=/a,,b": commas are doubled in values. @key NULL: the first word. */
static bool value_of(const char *opt, const char *key, char *dst, size_t cap)
{
	for (bool first = true; *opt; first = false) {
		size_t n = 0, klen = key ? strlen(key) : 0;
		bool wanted = key ? !strncmp(opt, key, klen) && opt[klen] == '=' : first;

		if (key && wanted)
			opt += klen + 1;
		for (; *opt && (*opt != ',' || opt[1] == ','); opt++) {
			opt += *opt == ',';
			if (wanted && n + 1 >= cap)
				return false;
			if (wanted)
				dst[n++] = *opt;
		}
		opt += *opt == ',';
		if (wanted) {
			dst[n] = '\0';
			return n > 0;
		}
	}
	return false;
}

/* "-mon" and "--mon" are the same to QEMU. */
static bool is_option(const char *word, const char *name)
{
	if (*word != '-')
		return false;
	word += word[1] == '-' ? 2 : 1;
	return !strcmp(word, name);
}

bool bp_qmp_socket(const char *args, size_t len, char *path, size_t cap)
{
	char id[256], mode[16], other[256], kind[256];

	for (const char *w = next_word(args, len, NULL), *v; w; w = next_word(args, len, w)) {
		if (!is_option(w, "qmp") && !is_option(w, "qmp-pretty") && !is_option(w, "mon"))
			continue;
		v = next_word(args, len, w);
		if (!v)
			return false;
		if (!is_option(w, "mon")) {
			if (!strncmp(v, "unix:", 5) && value_of(v + 5, NULL, path, cap))
				return true;
			continue;
		}
		if (!value_of(v, "mode", mode, sizeof(mode)) || strcmp(mode, "control") != 0 ||
		    (!value_of(v, "chardev", id, sizeof(id)) && !value_of(v, NULL, id, sizeof(id))))
			continue;
		for (const char *c = next_word(args, len, NULL), *o; c; c = next_word(args, len, c)) {
			o = is_option(c, "chardev") ? next_word(args, len, c) : NULL;
			if (o && value_of(o, NULL, kind, sizeof(kind)) && !strcmp(kind, "socket") &&
			    value_of(o, "id", other, sizeof(other)) && !strcmp(other, id) &&
			    value_of(o, "path", path, cap))
				return true;
		}
	}
	return false;
}

/* ---- the answer ---- */

struct bp_err *bp_qmp_vcpus_parse(const char *text, size_t len, struct bp_qmp_vcpu **ret, size_t *n_ret)
{
	bp_cleanup(json_decrefp) json_t *top = NULL;
	bp_autofree struct bp_qmp_vcpu *list = NULL;
	const json_t *array, *one;
	json_error_t why;
	size_t n, i;

	top = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (!top)
		return bp_err_data("QMP", why.position > 0 ? (uint64_t)why.position : 0, "not JSON: %s",
				   why.text);
	array = json_object_get(top, "return");
	n = json_array_size(array);
	if (!json_is_array(array) || !n || n > VCPUS_MAX)
		return bp_err_data("QMP", BP_NO_OFFSET, "no list of vCPUs in the answer");
	list = calloc(n, sizeof(*list));
	if (!list)
		return bp_err_nomem();
	json_array_foreach((json_t *)array, i, one)
	{
		json_int_t tid = json_integer_value(json_object_get(one, "thread-id"));
		const json_t *index = json_object_get(one, "cpu-index");

		if (tid <= 0 || tid > INT32_MAX || !json_is_integer(index) || json_integer_value(index) < 0 ||
		    json_integer_value(index) >= VCPUS_MAX)
			return bp_err_data("QMP", BP_NO_OFFSET, "vCPU %zu has no thread-id or cpu-index", i);
		list[i] = (struct bp_qmp_vcpu){(uint32_t)tid, (uint32_t)json_integer_value(index)};
	}
	*ret = bp_steal(list);
	*n_ret = n;
	return NULL;
}

struct bp_err *bp_qmp_iothreads_parse(const char *text, size_t len, struct bp_qmp_vcpu **list, size_t *n)
{
	bp_cleanup(json_decrefp) json_t *top = NULL;
	struct bp_qmp_vcpu *more;
	const json_t *array, *one;
	json_error_t why;
	size_t i;

	top = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	array = json_object_get(top, "return");
	if (!json_is_array(array) || json_array_size(array) > VCPUS_MAX)
		return bp_err_data("QMP", BP_NO_OFFSET, "no list of iothreads in the answer");
	json_array_foreach((json_t *)array, i, one)
	{
		json_int_t tid = json_integer_value(json_object_get(one, "thread-id"));

		if (tid <= 0 || tid > INT32_MAX)
			return bp_err_data("QMP", BP_NO_OFFSET, "iothread %zu has no thread-id", i);
	}
	more = realloc(*list, (*n + json_array_size(array) + 1) * sizeof(*more));
	if (!more)
		return bp_err_nomem();
	*list = more;
	json_array_foreach((json_t *)array, i, one)
	{
		json_int_t tid = json_integer_value(json_object_get(one, "thread-id"));

		more[(*n)++] = (struct bp_qmp_vcpu){(uint32_t)tid, BP_QMP_IOTHREAD};
	}
	return NULL;
}

/* ---- the conversation ---- */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* One line, which is one object; events may come in between. What follows it stays in @in. */
static BP_MUST_CHECK struct bp_err *read_line(int fd, uint64_t end_ms, struct bp_strbuf *in,
					      struct bp_strbuf *line)
{
	for (;;) {
		char *end = in->len ? memchr(in->data, '\n', in->len) : NULL;
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t now = now_ms();
		char buf[4096];
		ssize_t n;

		if (end) {
			size_t used = (size_t)(end - in->data) + 1;

			bp_strbuf_clear(line);
			bp_strbuf_add(line, in->data, used);
			memmove(in->data, in->data + used, in->len - used);
			in->len -= used;
			return bp_strbuf_ok(line);
		}
		if (in->len > ANSWER_MAX)
			return bp_err_data("QMP", in->len, "a line without an end");
		if (now >= end_ms || poll(&pfd, 1, (int)(end_ms - now)) <= 0)
			return bp_err_new(BP_EUNSUPPORTED, "QMP: no answer: somebody else may be connected");
		n = read(fd, buf, sizeof(buf));
		if (n <= 0)
			return n ? bp_err_os(errno, "QMP") : bp_err_data("QMP", in->len, "hung up");
		bp_strbuf_add(in, buf, (size_t)n);
	}
}

static bool has_key(const struct bp_strbuf *line, const char *key)
{
	bp_cleanup(json_decrefp) json_t *j = json_loadb(line->data, line->len, 0, NULL);

	return json_object_get(j, key) != NULL;
}

/* Send a command, if any, and wait for a line with @key. */
static BP_MUST_CHECK struct bp_err *talk(int fd, uint64_t end_ms, const char *command, const char *key,
					 struct bp_strbuf *in, struct bp_strbuf *line)
{
	struct bp_err *err = NULL;

	if (command && send(fd, command, strlen(command), MSG_NOSIGNAL) != (ssize_t)strlen(command))
		return bp_err_os(errno, "QMP");
	do {
		err = read_line(fd, end_ms, in, line);
	} while (!err && !has_key(line, key) && !has_key(line, "error"));
	if (!err && !has_key(line, key))
		err = bp_err_data("QMP", BP_NO_OFFSET, "QEMU refuses");
	return err;
}

struct bp_err *bp_qmp_vcpus(const char *path, int timeout_ms, struct bp_qmp_vcpu **ret, size_t *n)
{
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf in = BP_STRBUF_INIT;
	bp_cleanup(bp_strbuf_deinit) struct bp_strbuf line = BP_STRBUF_INIT;
	bp_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	uint64_t end_ms = now_ms() + (uint64_t)timeout_ms;
	struct bp_err *err;

	if (strlen(path) >= sizeof(addr.sun_path))
		return bp_err_new(BP_EUNSUPPORTED, "QMP: the path of the socket is too long");
	memcpy(addr.sun_path, path, strlen(path));
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return bp_err_os(errno, "%s", path);
	err = talk(fd, end_ms, NULL, "QMP", &in, &line);
	if (!err)
		err = talk(fd, end_ms, "{\"execute\":\"qmp_capabilities\"}\n", "return", &in, &line);
	if (!err)
		err = talk(fd, end_ms, "{\"execute\":\"query-cpus-fast\"}\n", "return", &in, &line);
	if (!err)
		err = bp_qmp_vcpus_parse(line.data, line.len, ret, n);
	if (err)
		return err;
	/* There are none, or QEMU does not say. */
	err = talk(fd, end_ms, "{\"execute\":\"query-iothreads\"}\n", "return", &in, &line);
	if (!err)
		err = bp_qmp_iothreads_parse(line.data, line.len, ret, n);
	bp_err_ignore(err);
	return NULL;
}
