/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What QEMU's threads waited for, as lines of the timeline. Read once, by a thread; each time off the CPU is
 * kept, so that columns of any width are exact; at most BP_HOST_MAX of them, what is more is not shown.
 */
#ifndef BP_TUI_HOST_H
#define BP_TUI_HOST_H

#include "analyzers/lod.h"
#include "analyzers/waits.h"

#define BP_HOST_MAX (4u << 20)

struct bp_host;

/** bp_host_create() - begin; *ret is NULL when @trace has no waits. Errors: BP_ENOMEM */
struct bp_err *bp_host_create(const struct bp_trace *trace, bool thread, struct bp_host **ret) BP_MUST_CHECK;
void bp_host_destroy(struct bp_host *h);

/** bp_host_done() - whether all is read (@wait: true, later); before that there are no threads */
bool bp_host_done(struct bp_host *h, bool wait);

/** bp_host_threads() - how many have a line */
uint32_t bp_host_threads(struct bp_host *h);
/** bp_host_name() - "CPU 0/KVM"; borrowed. *vcpu: which one's thread it is, UINT32_MAX: none */
const char *bp_host_name(struct bp_host *h, uint32_t thread, uint32_t *vcpu);
/** bp_host_cut() - there were more times off the CPU than are kept */
bool bp_host_cut(struct bp_host *h);

/** bp_host_columns() - as bp_lod_columns(); values are enum bp_off_class */
void bp_host_columns(struct bp_host *h, uint32_t thread, const uint64_t *edges, size_t n,
		     struct bp_lod_col *out);

/** bp_host_next() - the next time that it leaves the CPU after @ns, or the last one before it; false: none */
bool bp_host_next(struct bp_host *h, uint32_t thread, uint64_t ns, bool back, uint64_t *ret);

#endif
