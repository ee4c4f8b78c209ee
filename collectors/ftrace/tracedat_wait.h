/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What records of trace.dat say of threads that wait: switches, wake-ups, futex calls, exits of KVM. */
#ifndef BP_COLLECTORS_FTRACE_TRACEDAT_WAIT_H
#define BP_COLLECTORS_FTRACE_TRACEDAT_WAIT_H

#include "collectors/ftrace/tep.h"
#include "collectors/sched.h"

/* Which of these an event is, and its fields. */
struct bp_td_wait {
	uint8_t what; /* 0: none of them */
	const struct bp_tep_field *f[5];
};

/** bp_td_wait_find() - look an event up; @ret->what is 0 when it is none of them */
void bp_td_wait_find(const struct bp_tep *tep, const struct bp_tep_event *te, struct bp_td_wait *ret);

/**
 * bp_td_wait_record() - take a record of such an event
 * @data, @len: the record; @pid: its thread
 */
struct bp_err *bp_td_wait_record(struct bp_sched *s, const struct bp_tep *tep, const struct bp_td_wait *w,
				 const uint8_t *data, size_t len, uint32_t pid, uint16_t cpu,
				 uint64_t time_ns) BP_MUST_CHECK;

#endif
