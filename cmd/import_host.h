/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names for what a trace of the host says of QEMU: its locks, and the frames on its user stacks. */
#ifndef BP_CMD_IMPORT_HOST_H
#define BP_CMD_IMPORT_HOST_H

#include "collectors/sched.h"
#include "core/builder.h"
#include "core/err.h"
#include "core/strbuf.h"

/**
 * bp_import_host_names() - put mappings, names of locks and names of frames into the recording
 * @maps: a copy of /proc/PID/maps of the QEMU that was traced; NULL: addresses stay as they are
 * @qemu: its binary; NULL: the one in @maps, if this machine has it
 * @said: what could not be found out, empty when there is nothing to say
 * Errors: BP_EOS, BP_EDATA for files that were named and cannot be used.
 */
struct bp_err *bp_import_host_names(struct bp_sched *s, struct bp_builder *b, const char *maps,
				    const char *qemu, struct bp_strbuf *said) BP_MUST_CHECK;

#endif
