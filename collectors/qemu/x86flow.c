// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/qemu/x86flow.h"

#include <stdbool.h>
#include <string.h>

/*
 * What follows an opcode: M a ModRM byte, 1 2 4 so many bytes, 3 three bytes (enter), z 4 bytes, or 2 with
 * prefix 66; v z, or 8 with REX.W; a an address of 8 bytes, or 4 with prefix 67; t, u as test in group 3 (1
 * or z bytes for /0 and /1); b ModRM and 1 byte, Z ModRM and z; '-' nothing, '!' not an instruction.
 */
/* clang-format off */
static const char one_byte[256 + 1] = "MMMM1z!!" "MMMM1z!!" "MMMM1z!!" "MMMM1z!!" /* 00 */
				      "MMMM1z!!" "MMMM1z!!" "MMMM1z!!" "MMMM1z!!" /* 20 */
				      "!!!!!!!!" "!!!!!!!!" "--------" "--------" /* 40: REX */
				      "!!!M!!!!" "zZ1b----" "11111111" "11111111" /* 60 */
				      "bZ!bMMMM" "MMMMMMMM" "--------" "--!-----" /* 80 */
				      "aaaa----" "1z------" "11111111" "vvvvvvvv" /* a0 */
				      "bb2-!!bZ" "3-2--1!-" "MMMM!!!-" "MMMMMMMM" /* c0 */
				      "11111111" "44!1----" "!-!!--tu" "------MM"; /* e0 */

static const char two_byte[256 + 1] = "MMMM!---" "--!-!M-b" "MMMMMMMM" "MMMMMMMM" /* 00 */
				      "MMMMMMMM" "MMMMMMMM" "--------" "!!!!!!!!" /* 20 */
				      "MMMMMMMM" "MMMMMMMM" "MMMMMMMM" "MMMMMMMM" /* 40 */
				      "MMMMMMMM" "MMMMMMMM" "bbbbMMM-" "MMMMMMMM" /* 60 */
				      "44444444" "44444444" "MMMMMMMM" "MMMMMMMM" /* 80 */
				      "---MbM!!" "---MbMMM" "MMMMMMMM" "MMbMMMMM" /* a0 */
				      "MMbMbbbM" "--------" "MMMMMMMM" "MMMMMMMM" /* c0 */
				      "MMMMMMMM" "MMMMMMMM" "MMMMMMMM" "MMMMMMMM"; /* e0 */
/* clang-format on */

struct insn {
	size_t op;    /* offset of the opcode byte behind 0f or VEX, too */
	unsigned map; /* 1: one byte; 2: 0f; 3: 0f 38, 0f 3a, VEX and EVEX */
	bool opsize, rex_w;
	size_t len;
};

/* Bytes of ModRM, SIB and displacement at @p; 0: not all inside. */
static size_t modrm_len(const uint8_t *p, size_t n)
{
	size_t len = 1;
	unsigned mod;

	if (!n)
		return 0;
	mod = p[0] >> 6;
	if (mod == 3)
		return 1;
	if ((p[0] & 7) == 4) {
		if (n < 2)
			return 0;
		len++;
		if (mod == 0 && (p[1] & 7) == 5)
			len += 4;
	} else if (mod == 0 && (p[0] & 7) == 5) {
		len += 4;
	}
	len += mod == 1 ? 1 : mod == 2 ? 4 : 0;
	return len <= n ? len : 0;
}

static size_t decode(const uint8_t *p, size_t n, struct insn *in)
{
	bool addrsize = false;
	size_t i = 0, tail = 0, m;
	char kind;

	if (n > 15)
		n = 15;
	*in = (struct insn){.map = 1};
	for (; i < n; i++) {
		if (p[i] == 0x66)
			in->opsize = true;
		else if (p[i] == 0x67)
			addrsize = true;
		else if (p[i] != 0xf0 && p[i] != 0xf2 && p[i] != 0xf3 && p[i] != 0x2e && p[i] != 0x36 &&
			 p[i] != 0x3e && p[i] != 0x26 && p[i] != 0x64 && p[i] != 0x65)
			break;
	}
	if (i < n && (p[i] & 0xf0) == 0x40)
		in->rex_w = p[i++] & 8;
	if (i >= n)
		return 0;
	if (p[i] == 0xc5 || p[i] == 0xc4 || p[i] == 0x62) {
		size_t head = p[i] == 0xc5 ? 2 : p[i] == 0xc4 ? 3 : 4;
		unsigned map = p[i] == 0xc5 || i + 1 >= n ? 1 : p[i + 1] & (p[i] == 0x62 ? 7 : 31);

		i += head;
		in->map = 3;
		if (i >= n)
			return 0;
		kind = map == 3 ? 'b' : map == 1 ? two_byte[p[i]] : 'M';
	} else if (p[i] == 0x0f) {
		if (++i >= n)
			return 0;
		in->map = 2;
		kind = two_byte[p[i]];
		if (p[i] == 0x38 || p[i] == 0x3a) {
			in->map = 3;
			kind = p[i] == 0x38 ? 'M' : 'b';
			if (++i >= n)
				return 0;
		}
	} else {
		kind = one_byte[p[i]];
	}
	in->op = i++;
	switch (kind) {
	case '!':
		return 0;
	case '1':
	case '2':
	case '3':
	case '4':
		tail = (size_t)(kind - '0');
		break;
	case 'z':
		tail = in->opsize ? 2 : 4;
		break;
	case 'v':
		tail = in->rex_w ? 8 : in->opsize ? 2 : 4;
		break;
	case 'a':
		tail = addrsize ? 4 : 8;
		break;
	case 'M':
	case 'b':
	case 'Z':
	case 't':
	case 'u':
		m = modrm_len(p + i, n - i);
		if (!m)
			return 0;
		if (kind == 'b' || (kind == 't' && !(p[i] & 0x30)))
			tail = 1;
		else if (kind == 'Z' || (kind == 'u' && !(p[i] & 0x30)))
			tail = in->opsize ? 2 : 4;
		i += m;
		break;
	default:
		break;
	}
	if (tail > n - i)
		return 0;
	in->len = i + tail;
	return in->len;
}

size_t bp_x86_insn_len(const uint8_t *p, size_t n)
{
	struct insn in;

	return decode(p, n, &in);
}

static enum bp_x86_flow flow_of(const uint8_t *p, const struct insn *in)
{
	uint8_t op = p[in->op], reg = in->op + 1 < in->len ? p[in->op + 1] >> 3 & 7 : 0;

	if (in->map == 2) {
		if ((op & 0xf0) == 0x80)
			return BP_X86_BRANCH;
		if (op == 0x07 || op == 0x35)
			return BP_X86_IRET;
		return op == 0x05 || op == 0x34 || op == 0x0b ? BP_X86_TRAP : BP_X86_STRAIGHT;
	}
	if (in->map != 1)
		return BP_X86_STRAIGHT;
	switch (op) {
	case 0xe8:
		return BP_X86_CALL;
	case 0xe9:
	case 0xeb:
		return BP_X86_JUMP;
	case 0xe0:
	case 0xe1:
	case 0xe2:
	case 0xe3:
		return BP_X86_BRANCH;
	case 0xc2:
	case 0xc3:
	case 0xca:
	case 0xcb:
		return BP_X86_RET;
	case 0xcf:
		return BP_X86_IRET;
	case 0xcc:
	case 0xcd:
	case 0xf1:
		return BP_X86_TRAP;
	case 0xff:
		return reg == 2 || reg == 3   ? BP_X86_CALL_INDIRECT
		       : reg == 4 || reg == 5 ? BP_X86_JUMP_INDIRECT
					      : BP_X86_STRAIGHT;
	default:
		return (op & 0xf0) == 0x70 ? BP_X86_BRANCH : BP_X86_STRAIGHT;
	}
}

void bp_x86_end(const uint8_t *p, size_t n, uint64_t addr, struct bp_x86_end *ret)
{
	size_t at = 0;

	*ret = (struct bp_x86_end){.flow = BP_X86_STRAIGHT};
	while (at < n) {
		struct insn in;
		enum bp_x86_flow flow;

		if (!decode(p + at, n - at, &in)) {
			/* Cut off by the end of the bytes, or nothing that can be understood. */
			if (n - at >= 15)
				ret->flow = BP_X86_UNKNOWN;
			break;
		}
		flow = flow_of(p + at, &in);
		at += in.len;
		if (flow == BP_X86_STRAIGHT)
			continue;
		ret->flow = flow;
		if (flow == BP_X86_BRANCH || flow == BP_X86_JUMP || flow == BP_X86_CALL) {
			/* The displacement is the last thing; branches of 2 bytes and loops have 1 byte of
			 * it. */
			uint8_t op = p[at - in.len + in.op];
			int32_t rel;

			if (in.map == 1 && op != 0xe8 && op != 0xe9)
				rel = (int8_t)p[at - 1];
			else
				memcpy(&rel, p + at - 4, 4);
			ret->target = addr + at + (uint64_t)(int64_t)rel;
		}
		break;
	}
	ret->bytes = at;
}
