/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a piece of straight x86-64 code ends: lengths of instructions, and what the first one that leaves the
 * straight line does. For telling calls from returns in logs that only name the blocks that were executed.
 * Internal to collectors/qemu/.
 */
#ifndef BP_COLLECTORS_QEMU_X86FLOW_H
#define BP_COLLECTORS_QEMU_X86FLOW_H

#include <stddef.h>
#include <stdint.h>

enum bp_x86_flow {
	BP_X86_UNKNOWN,  /* no code, or bytes that are no instruction */
	BP_X86_STRAIGHT, /* goes on behind the bytes that were given */
	BP_X86_BRANCH,   /* conditional */
	BP_X86_JUMP,
	BP_X86_JUMP_INDIRECT,
	BP_X86_CALL,
	BP_X86_CALL_INDIRECT,
	BP_X86_RET,
	BP_X86_IRET, /* iret, sysret, sysexit */
	BP_X86_TRAP, /* syscall, int, ud2 */
};

struct bp_x86_end {
	enum bp_x86_flow flow;
	size_t bytes;    /* from the start up to behind the instruction that decides */
	uint64_t target; /* of BRANCH, JUMP and CALL */
};

/**
 * bp_x86_insn_len() - bytes of the instruction at @p in 64-bit mode
 * Returns 0 when it is not valid or not all inside @n bytes.
 * Source: Intel SDM volume 2, chapter 2 and appendix A (opcode maps).
 */
size_t bp_x86_insn_len(const uint8_t *p, size_t n);

/** bp_x86_end() - how the straight code in @p, which runs at @addr, ends */
void bp_x86_end(const uint8_t *p, size_t n, uint64_t addr, struct bp_x86_end *ret);

#endif
