// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE 1 /* memmem() */
#include "collectors/ftrace/tracedat_wait.h"

#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"

enum {
	NONE,
	SWITCH,
	WAKING,
	FUTEX,
	FUTEX_RET,
	KVM_ENTRY,
	KVM_EXIT,
	KVM_USER,
	FAULT,
	LOCK_WANT,
	LOCK_HELD,
	LOCK_FREE
};

static const struct {
	const char *system, *name;
	uint8_t what;
	const char *fields[5];
} known[] = {
    {"sched", "sched_switch", SWITCH, {"prev_pid", "prev_comm", "prev_state", "next_pid", "next_comm"}},
    {"sched", "sched_waking", WAKING, {"pid", "comm"}},
    {"syscalls", "sys_enter_futex", FUTEX, {"uaddr", "op", "val"}},
    {"syscalls", "sys_exit_futex", FUTEX_RET, {"ret"}},
    {"kvm", "kvm_entry", KVM_ENTRY, {NULL}},
    {"kvm", "kvm_exit", KVM_EXIT, {"exit_reason"}},
    {"kvm", "kvm_userspace_exit", KVM_USER, {"reason"}},
    {"exceptions", "page_fault_user", FAULT, {"address", "ip"}},
    {"exceptions", "page_fault_kernel", FAULT, {"address", "ip"}},
};

static bool ends(const struct bp_tep_event *te, const char *with)
{
	size_t len = strlen(with);

	return te->name_len > len && !memcmp(te->name + te->name_len - len, with, len);
}

/* A probe on a function that locks; as in the text, see take_lock() there. */
static void find_probe(const struct bp_tep *tep, const struct bp_tep_event *te, struct bp_td_wait *ret)
{
	const bool big = te->name_len >= 3 &&
			 (!memcmp(te->name, "bql", 3) || memmem(te->name, te->name_len, "iothread", 8));
	uint8_t what = ends(te, "_unlock")   ? LOCK_FREE
		       : ends(te, "_locked") ? LOCK_HELD
		       : ends(te, "_lock")   ? LOCK_WANT
					     : NONE;

	if (!what || !(bp_tep_find(tep, te, "__probe_ip") || bp_tep_find(tep, te, "__probe_func")))
		return;
	ret->f[0] = bp_tep_find(tep, te, "mutex");
	if (!ret->f[0])
		ret->f[0] = bp_tep_find(tep, te, "lock");
	if (!ret->f[0] && !big && what != LOCK_HELD)
		return;
	ret->f[1] = bp_tep_find(tep, te, "file");
	ret->f[2] = bp_tep_find(tep, te, "line");
	ret->what = what;
}

void bp_td_wait_find(const struct bp_tep *tep, const struct bp_tep_event *te, struct bp_td_wait *ret)
{
	*ret = (struct bp_td_wait){0};
	for (size_t i = 0; i < BP_ARRAY_SIZE(known); i++) {
		if (!bp_tep_is(te->system, te->system_len, known[i].system) ||
		    !bp_tep_is(te->name, te->name_len, known[i].name))
			continue;
		ret->what = known[i].what;
		for (size_t k = 0; k < 5 && known[i].fields[k]; k++)
			ret->f[k] = bp_tep_find(tep, te, known[i].fields[k]);
		return;
	}
	find_probe(tep, te, ret);
}

/* As the kernel's print format of sched_switch has it. */
static size_t state_text(uint64_t state, char text[3])
{
	static const char letters[] = "SDTtXZPI";
	size_t n = 0;

	text[n] = 'R';
	for (unsigned i = 0; i < 8; i++) {
		if (state >> i & 1) {
			text[n] = letters[i];
			break;
		}
	}
	n++;
	if (state & 0x100)
		text[n++] = '+';
	return n;
}

struct bp_err *bp_td_wait_record(struct bp_sched *s, const struct bp_tep *tep, const struct bp_td_wait *w,
				 const uint8_t *data, size_t len, uint32_t pid, uint16_t cpu,
				 uint64_t time_ns)
{
	struct bp_wait rec = {.thread = pid, .cpu = cpu, .time_ns = time_ns};
	char comm[16], state[3], file[256];
	struct bp_err *err = NULL;
	uint64_t v[5] = {0};

	for (size_t i = 0; i < 5; i++)
		bp_tep_get(tep, w->f[i], data, len, &v[i]);
	switch (w->what) {
	case SWITCH:
		bp_tep_text(tep, w->f[1], data, len, comm, sizeof(comm));
		err = bp_sched_thread(s, (uint32_t)v[0], 0, comm, strlen(comm), true, time_ns);
		bp_tep_text(tep, w->f[4], data, len, comm, sizeof(comm));
		if (!err)
			err = bp_sched_thread(s, (uint32_t)v[3], 0, comm, strlen(comm), true, time_ns);
		return err ? err
			   : bp_sched_switch(s, cpu, time_ns, (uint32_t)v[0], state, state_text(v[2], state),
					     (uint32_t)v[3]);
	case WAKING:
		bp_tep_text(tep, w->f[1], data, len, comm, sizeof(comm));
		err = bp_sched_thread(s, (uint32_t)v[0], 0, comm, strlen(comm), true, time_ns);
		rec.kind = BP_WAIT_WAKE;
		rec.other = (uint32_t)v[0];
		break;
	case FUTEX:
		rec.kind = BP_WAIT_FUTEX;
		rec.addr = v[0];
		rec.other = (uint32_t)v[1];
		rec.value = (int64_t)v[2];
		break;
	case FUTEX_RET:
		rec.kind = BP_WAIT_FUTEX_RET;
		rec.value = (int64_t)v[0];
		break;
	case KVM_ENTRY:
		rec.kind = BP_WAIT_KVM_ENTRY;
		break;
	case KVM_EXIT:
	case KVM_USER:
		rec.kind = BP_WAIT_KVM_EXIT;
		rec.value = (int64_t)v[0];
		rec.flags = w->what == KVM_USER ? BP_WAIT_USERSPACE : 0;
		break;
	case FAULT:
		rec.kind = BP_WAIT_FAULT;
		rec.addr = v[0];
		rec.value = (int64_t)v[1];
		break;
	case LOCK_WANT:
	case LOCK_HELD:
	case LOCK_FREE:
		rec.kind = w->what == LOCK_WANT   ? BP_WAIT_LOCK_WANT
			   : w->what == LOCK_HELD ? BP_WAIT_LOCK_HELD
						  : BP_WAIT_LOCK_FREE;
		rec.addr = v[0];
		if (bp_tep_text(tep, w->f[1], data, len, file, sizeof(file))) {
			char site[320];
			int n = snprintf(site, sizeof(site), "%s:%u", file, (unsigned)v[2]);

			err = bp_sched_frame(s, BP_HOST_SITE, 0, site, (size_t)n, 0, "", 0, &rec.other);
		}
		break;
	default:
		return NULL;
	}
	return err ? err : bp_sched_add(s, &rec);
}
