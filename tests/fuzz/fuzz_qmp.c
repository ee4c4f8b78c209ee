// SPDX-License-Identifier: GPL-2.0-or-later
/* An answer of QMP, and the same bytes as a command line that names a socket. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "collectors/qemu/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_qmp_vcpu *list = NULL;
	char path[32];
	size_t n;
	struct bp_err *err = bp_qmp_vcpus_parse((const char *)data, size, &list, &n);

	if (!err && (!n || !list[n - 1].tid))
		abort();
	if (err)
		n = 0;
	bp_err_ignore(err);
	bp_err_ignore(bp_qmp_iothreads_parse((const char *)data, size, &list, &n));
	free(list);
	if (bp_qmp_socket((const char *)data, size, path, sizeof(path)) &&
	    (!*path || !memchr(path, '\0', sizeof(path))))
		abort();
	return 0;
}
