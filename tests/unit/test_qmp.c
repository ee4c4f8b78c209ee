// SPDX-License-Identifier: GPL-2.0-or-later
/* Where QEMU listens for QMP, what it answers, and a conversation with a server that is not QEMU. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "collectors/qemu/qmp.h"

/* The socket of a command line whose words are separated by spaces; "" none. */
static const char *socket_of(const char *line)
{
	static char args[512], path[64];
	size_t len = strlen(line) + 1;

	memcpy(args, line, len);
	for (size_t i = 0; i < len; i++)
		args[i] = args[i] == ' ' ? '\0' : args[i];
	return bp_qmp_socket(args, len, path, sizeof(path)) ? path : "";
}

static void test_socket(void **state)
{
	(void)state;
	assert_string_equal(socket_of("qemu -qmp unix:/run/q,server=on,wait=off"), "/run/q");
	assert_string_equal(socket_of("qemu --qmp unix:/run/q -m 64"), "/run/q");
	assert_string_equal(socket_of("qemu -qmp unix:/run/a,,b,server"), "/run/a,b");
	assert_string_equal(socket_of("qemu -qmp tcp:localhost:4444 -qmp-pretty unix:q"), "q");
	assert_string_equal(
	    socket_of("qemu -chardev socket,id=c,path=/run/c,server=on -mon chardev=c,mode=control"),
	    "/run/c");
	assert_string_equal(socket_of("qemu -mon mode=control,chardev=c -chardev socket,path=/run/c,id=c"),
			    "/run/c");
	assert_string_equal(
	    socket_of("qemu -mon c,mode=control -chardev pty,id=c -chardev socket,id=c,path=p"), "p");
	assert_string_equal(socket_of("qemu -chardev socket,id=c,path=/run/c -mon chardev=c,mode=readline"),
			    "");
	assert_string_equal(socket_of("qemu -chardev socket,id=d,path=/run/c -mon chardev=c,mode=control"),
			    "");
	assert_string_equal(socket_of("qemu -qmp"), "");
	assert_string_equal(socket_of("qemu -qmp unix:"), "");
	assert_string_equal(socket_of("qemu -monitor unix:/run/m"), "");
	assert_string_equal(socket_of(""), "");
	/* No room. */
	assert_string_equal(
	    socket_of("qemu -qmp unix:/run/0123456789012345678901234567890123456789012345678901234567890"),
	    "");
	/* A word that has no end is none. */
	assert_false(bp_qmp_socket("-qmp\0unix:/q", 12, (char[64]){0}, 64));
}

static void test_parse(void **state)
{
	static const char good[] =
	    "{\"return\": [{\"thread-id\": 4712, \"props\": {\"core-id\": 1}, \"cpu-index\": 1, \"target\": "
	    "\"x86_64\"}, {\"thread-id\": 4711, \"cpu-index\": 0}]}\r\n";
	static const char *const bad[] = {"",
					  "{",
					  "[]",
					  "{}",
					  "{\"return\": {}}",
					  "{\"return\": []}",
					  "{\"return\": [1]}",
					  "{\"return\": [{\"thread-id\": 1}]}",
					  "{\"return\": [{\"cpu-index\": 1}]}",
					  "{\"return\": [{\"thread-id\": -1, \"cpu-index\": 0}]}",
					  "{\"return\": [{\"thread-id\": 1, \"cpu-index\": -1}]}",
					  "{\"return\": [{\"thread-id\": 99999999999, \"cpu-index\": 0}]}",
					  "{\"return\": [{\"thread-id\": \"1\", \"cpu-index\": 0}]}"};
	struct bp_qmp_vcpu *list;
	size_t n;

	(void)state;
	assert_null(bp_qmp_vcpus_parse(good, strlen(good), &list, &n));
	assert_int_equal(n, 2);
	assert_int_equal(list[0].tid, 4712);
	assert_int_equal(list[0].index, 1);
	assert_int_equal(list[1].tid, 4711);
	assert_int_equal(list[1].index, 0);
	free(list);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct bp_err *err = bp_qmp_vcpus_parse(bad[i], strlen(bad[i]), &list, &n);

		assert_int_equal(bp_err_code(err), BP_EDATA);
		bp_err_ignore(err);
	}
}

static void test_iothreads(void **state)
{
	static const char good[] = "{\"return\": [{\"id\": \"a\", \"thread-id\": 12}, {\"thread-id\": 13}]}";
	static const char *const bad[] = {"", "[]", "{\"return\": {}}", "{\"return\": [{}]}",
					  "{\"return\": [{\"thread-id\": 12}, {\"thread-id\": 0}]}"};
	struct bp_qmp_vcpu *list = NULL;
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct bp_err *err = bp_qmp_iothreads_parse(bad[i], strlen(bad[i]), &list, &n);

		assert_int_equal(bp_err_code(err), BP_EDATA);
		assert_int_equal(n, 0);
		bp_err_ignore(err);
	}
	assert_null(bp_qmp_iothreads_parse(good, strlen(good), &list, &n));
	assert_int_equal(n, 2);
	assert_int_equal(list[1].tid, 13);
	assert_int_equal(list[1].index, BP_QMP_IOTHREAD);
	free(list);
}

/* A server that says @lines, each after it has read something but for the first. */
static struct bp_err *ask(const char *const *lines, int timeout_ms, struct bp_qmp_vcpu **list, size_t *n)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/bootprof-qmp-XXXXXX", buf[256];
	struct bp_err *err;
	pid_t child;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/q", dir);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_return_code(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_return_code(listen(fd, 1), 0);
	child = fork();
	if (!child) {
		int c = accept(fd, NULL, NULL);

		for (size_t i = 0; lines[i]; i++) {
			if (i && read(c, buf, sizeof(buf)) <= 0)
				_exit(1);
			if (write(c, lines[i], strlen(lines[i])) < 0)
				_exit(1);
		}
		_exit(read(c, buf, sizeof(buf)) != 0);
	}
	close(fd);
	err = bp_qmp_vcpus(addr.sun_path, timeout_ms, list, n);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	unlink(addr.sun_path);
	rmdir(dir);
	return err;
}

static void test_talk(void **state)
{
	static const char *const good[] = {
	    "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n", "{\"return\": {}}\r\n",
	    "{\"event\": \"RTC_CHANGE\"}\r\n{\"return\": [{\"thread-id\": 5, \"cpu-index\": 3}]}\r\n",
	    "{\"return\": [{\"id\": \"io0\", \"thread-id\": 7}]}\r\n", NULL};
	static const char *const no_iothreads[] = {"{\"QMP\": {}}\n", "{\"return\": {}}\n",
						   "{\"return\": [{\"thread-id\": 5, \"cpu-index\": 3}]}\n",
						   "{\"error\": {\"class\": \"CommandNotFound\"}}\n", NULL};
	static const char *const refuses[] = {"{\"QMP\": {}}\n",
					      "{\"error\": {\"class\": \"CommandNotFound\"}}\n", NULL};
	static const char *const silent[] = {NULL};
	struct bp_qmp_vcpu *list;
	struct bp_err *err;
	size_t n;

	(void)state;
	assert_null(ask(good, 10000, &list, &n));
	assert_int_equal(n, 2);
	assert_int_equal(list[0].tid, 5);
	assert_int_equal(list[0].index, 3);
	assert_int_equal(list[1].tid, 7);
	assert_int_equal(list[1].index, BP_QMP_IOTHREAD);
	free(list);
	assert_null(ask(no_iothreads, 10000, &list, &n));
	assert_int_equal(n, 1);
	free(list);
	err = ask(refuses, 10000, &list, &n);
	assert_int_equal(bp_err_code(err), BP_EDATA);
	bp_err_ignore(err);
	/* Somebody else is connected: no greeting. */
	err = ask(silent, 50, &list, &n);
	assert_int_equal(bp_err_code(err), BP_EUNSUPPORTED);
	bp_err_ignore(err);
	err = bp_qmp_vcpus("/nonexistent/q", 50, &list, &n);
	assert_int_equal(bp_err_code(err), BP_EOS);
	bp_err_ignore(err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_socket),
	    cmocka_unit_test(test_iothreads),
	    cmocka_unit_test(test_parse),
	    cmocka_unit_test(test_talk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
