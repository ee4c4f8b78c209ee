/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asks a running QEMU which of its threads are vCPUs, over a QMP socket that its command line names.
 * Source of the protocol: docs/interop/qmp-spec of QEMU; query-cpus-fast since 2.12.
 */
#ifndef BP_COLLECTORS_QEMU_QMP_H
#define BP_COLLECTORS_QEMU_QMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define BP_QMP_IOTHREAD UINT32_MAX

struct bp_qmp_vcpu {
	uint32_t tid;   /* thread of the host */
	uint32_t index; /* cpu-index; BP_QMP_IOTHREAD: no vCPU's, but an iothread's */
};

/**
 * bp_qmp_socket() - where QEMU listens for QMP: -qmp unix:PATH, or -mon mode=control with its -chardev socket
 * @args, @len: /proc/PID/cmdline, words that end with NUL
 * Returns false when there is no such socket, or its path has no room in @path.
 */
bool bp_qmp_socket(const char *args, size_t len, char *path, size_t cap);

/**
 * bp_qmp_vcpus_parse() - the answer to query-cpus-fast
 * @text: one JSON object, not trusted
 * @ret: owned, in order of the answer. Errors: BP_EDATA (what it is is said), BP_ENOMEM.
 */
struct bp_err *bp_qmp_vcpus_parse(const char *text, size_t len, struct bp_qmp_vcpu **ret,
				  size_t *n) BP_MUST_CHECK;

/**
 * bp_qmp_iothreads_parse() - the answer to query-iothreads
 * @text: one JSON object, not trusted
 * @list, @n: what is in it is added; owned. Errors: BP_EDATA, BP_ENOMEM; the list is as it was.
 */
struct bp_err *bp_qmp_iothreads_parse(const char *text, size_t len, struct bp_qmp_vcpu **list,
				      size_t *n) BP_MUST_CHECK;

/**
 * bp_qmp_vcpus() - connect, ask for the vCPUs and, which QEMU may refuse, for the iothreads, and hang up
 * A monitor serves one client at a time: when somebody else is connected, no greeting comes.
 * @timeout_ms: for all of it
 * Errors: BP_EOS, BP_EDATA, BP_EUNSUPPORTED (no answer in time).
 */
struct bp_err *bp_qmp_vcpus(const char *path, int timeout_ms, struct bp_qmp_vcpu **ret,
			    size_t *n) BP_MUST_CHECK;

#endif
