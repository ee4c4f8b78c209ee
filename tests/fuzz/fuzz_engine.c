// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The TCG engine on any contents of the rings: the input says how many vCPUs there are, which places the
 * plugin knows, and what they send in portions. What comes out must be a recording that reads back whole,
 * with stacks that agree from block to block; with a bound on its size, and without one, the totals must be
 * the same.
 */
#include "tests/unit/engine_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_RECORDS 20000

struct input {
	const uint8_t *p, *end;
};

static uint8_t byte(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

static uint16_t word(struct input *in)
{
	uint16_t lo = byte(in);

	return (uint16_t)(lo | byte(in) << 8);
}

/* Some addresses near each other, so that they meet. */
static uint64_t address(struct input *in)
{
	uint8_t b = byte(in);

	switch (b >> 5) {
	case 0:
		return 0x1000u * (b & 31);
	case 1:
		return 0xffff888000000000ull + 0x1000u * (b & 31);
	case 2:
		return RIG_LINK + RIG_SLIDE + RIG_FUNC_BYTES * (b & 31u);
	case 3:
		return 0xffffffffc0000000ull + 0x100u * (b & 31);
	case 4:
		return 0x400000u + 0x40u * (b & 31);
	case 5:
		return 0xffffffe0u + (b & 31);
	case 6:
		return 0x7c00u * (b & 31u);
	default:
		return (uint64_t)word(in) << 48 | (uint64_t)word(in) << 8 | word(in);
	}
}

/* Mostly near the last one. */
static uint32_t stack_pointer(struct input *in, uint32_t *sp)
{
	uint8_t b = byte(in);

	if (b < 240)
		*sp += ((b & 15u) - 8u) * ((b & 0x30) == 0x30 ? 0x1000 : 8);
	else
		*sp = 0x10000u * (b & 7) + 0x100u * byte(in);
	return *sp;
}

static void control(struct rig *r, unsigned v, struct input *in)
{
	uint8_t what = byte(in);
	char buf[512];
	size_t len = 0;
	union {
		struct bp_ctl_switch sw;
		struct bp_ctl_exec exec;
		struct bp_ctl_fork fork;
		struct bp_ctl_mmap map;
		struct bp_ctl_module mod;
		uint64_t pair[2];
	} u;

	memset(&u, 0, sizeof(u));
	switch (what % 14) {
	case BP_CTL_PC:
		u.pair[0] = address(in);
		len = 16;
		break;
	case BP_CTL_SWITCH:
		u.sw = (struct bp_ctl_switch){
		    .prev = address(in), .next = address(in), .pid = byte(in) & 7, .mm = address(in)};
		u.sw.tgid = u.sw.pid;
		u.sw.known = byte(in) & 1;
		u.sw.flags = (uint32_t)byte(in) << 16;
		memset(u.sw.comm, 'a' + (u.sw.pid & 7), 16);
		len = sizeof(u.sw);
		break;
	case BP_CTL_EXEC:
		u.exec.mm = address(in);
		len = sizeof(u.exec);
		break;
	case BP_CTL_FORK:
		u.fork = (struct bp_ctl_fork){.task = address(in), .mm = address(in), .pid = byte(in) & 7};
		len = sizeof(u.fork);
		break;
	case BP_CTL_MMAP:
		u.map = (struct bp_ctl_mmap){
		    .mm = address(in), .start = address(in), .end = address(in), .pgoff = byte(in)};
		len = sizeof(u.map);
		break;
	case BP_CTL_MODULE:
	case BP_CTL_MODULE_FREE:
		u.mod.name[0] = (char)('a' + (byte(in) & 3));
		u.mod.base = address(in);
		u.mod.size = 0x10u * word(in);
		u.mod.init_base = address(in);
		u.mod.init_size = 0x10u * byte(in);
		u.mod.syms_len = word(in);
		len = sizeof(u.mod);
		break;
	case BP_CTL_EXIT:
	case BP_CTL_MARK:
		u.pair[0] = byte(in);
		len = 16;
		break;
	case BP_CTL_CONSOLE:
		u.pair[0] = byte(in);
		len = 8;
		break;
	case BP_CTL_SYNC:
		u.pair[0] = r->now + ((uint64_t)byte(in) << (byte(in) & 31));
		u.pair[1] = r->insns[v] + ((uint64_t)byte(in) << (byte(in) & 31));
		len = 16;
		break;
	default:
		break;
	}
	memcpy(buf, &u, len);
	/* Then paths, symbols, text. */
	if (what % 14 >= BP_CTL_EXEC && what % 14 != BP_CTL_FORK && len && len != 16) {
		size_t more = byte(in);

		while (more-- && len < sizeof(buf) && in->p < in->end)
			buf[len++] = (char)byte(in);
	}
	/* One in eight is cut short. */
	if (what >= 224 && len)
		len -= byte(in) % len;
	rig_ctl(r, v, what % 14, buf, len);
}

static bool is_ready(void *self, const char *line)
{
	(void)self;
	return line[0] == 'R';
}

/* Feed the input; false when the engine refused it. */
static bool feed(struct rig *r, const uint8_t *data, size_t size, uint64_t max_bytes)
{
	struct input in = {data, data + size};
	unsigned vcpus, n_sites, n_records = 0;
	uint32_t sp[3] = {0x10000, 0x20000, 0x30000};
	struct bp_err *err;
	uint64_t n;
	uint8_t mode;

	r->shm->n_sites = 0;
	r->shm->n_hooks = 3;
	r->marks[0] = "panic";
	r->marks[2] = NULL;
	r->names[0] = "asm_common_interrupt";
	r->names[1] = "entry_SYSCALL_64";
	r->names[2] = "do_one_initcall";
	mode = byte(&in);
	vcpus = 1 + mode % 3;
	r->o = (struct bp_engine_options){
	    .max_bytes = max_bytes,
	    .until_hook = mode & 16 ? 1 : -1,
	    .until_console = mode & 32 ? is_ready : NULL,
	};
	if (mode & 64)
		r->o.until_exec = "/i";
	err = rig_start(r, vcpus);
	if (err)
		goto refused;
	n_sites = 1 + byte(&in) % 48;
	for (unsigned i = 0; i < n_sites; i++) {
		uint8_t flags = byte(&in);

		r->sites[i] =
		    (struct bp_site){.pc = address(&in), .flags = flags & 31, .n_insns = flags >> 5};
	}
	r->shm->n_sites = n_sites;
	while (in.p < in.end && n_records < MAX_RECORDS) {
		uint8_t b = byte(&in), step = byte(&in);
		unsigned v = (b >> 6) % vcpus;

		/* Jumps of hours, but not for ever: each takes many events. */
		if (r->now > 1ull << 45)
			step &= 0x7f;
		r->now += step < 0xf0 ? (step & 15) * 16u : (uint64_t)byte(&in) << (step & 15) << 20;
		r->insns[v] += step < 0xf0 ? step >> 4 : (uint64_t)byte(&in) << ((step & 15) * 2);
		switch (b & 15) {
		case 0:
			err = bp_engine_drain(r->e, &n);
			break;
		case 1:
		case 2:
			control(r, v, &in);
			n_records += 6;
			break;
		case 3:
			/* Anything. */
			rig_put(r, v, (uint64_t)word(&in) << 32 | word(&in),
				(uint64_t)word(&in) << 32 | byte(&in));
			break;
		default: {
			/* The same place several times, on its way up or down. */
			unsigned times = 1 + (b >> 4 & 3) * (b & 8);
			uint32_t id = BP_CTL_N + byte(&in) % n_sites, low;

			for (unsigned i = 0; i < times; i++) {
				low = stack_pointer(&in, &sp[v]);
				rig_rec(r, v, id, low, b & 4);
				r->insns[v] += 3;
			}
			n_records += times;
		}
		}
		if (err)
			goto refused;
	}
	err = bp_engine_drain(r->e, &n);
	if (!err)
		err = rig_end(r, false);
	if (!err)
		return true;
refused:
	bp_err_ignore(err);
	err = rig_end(r, true);
	bp_err_ignore(err);
	return false;
}

/* What was written reads back; totals by function in @rr. */
static void check(struct rig *r, struct rig_reader *rr, struct bp_trace **t, bool whole)
{
	struct bp_err *err = bp_trace_open(r->path, t);

	if (err || bp_trace_damage(*t)->bad_chunks || bp_trace_damage(*t)->missing_chunks ||
	    (whole && bp_trace_damage(*t)->unfinished) || rig_read(rr, *t, NULL, NULL)[0]) {
		fprintf(stderr, "%s\n", err ? bp_err_text(err) : rr->why[0] ? rr->why : "damaged");
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rig rig;
	struct rig_reader a = {0}, b = {0};
	struct bp_trace *ta = NULL, *tb = NULL;
	size_t n_a, n_b;
	bool whole;

	if (!rig.shm && !rig_map(&rig))
		return 0;
	whole = feed(&rig, data, size, 0);
	if (access(rig.path, R_OK) == 0)
		check(&rig, &a, &ta, whole);
	if (whole && size) {
		/* The smallest bounds fold at once. */
		if (!feed(&rig, data, size, 1000u << (data[size - 1] & 7)))
			abort();
		check(&rig, &b, &tb, true);
		bp_trace_funcs(ta, &n_a);
		bp_trace_funcs(tb, &n_b);
		if (n_a != n_b || memcmp(a.totals, b.totals, n_a * sizeof(*a.totals))) {
			fprintf(stderr, "totals differ\n");
			abort();
		}
	}
	rig_reader_free(&a);
	rig_reader_free(&b);
	bp_trace_destroy(ta);
	bp_trace_destroy(tb);
	unlink(rig.path);
	return 0;
}
