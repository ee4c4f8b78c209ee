/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What bootprof must know of a QEMU command line. Borrowed strings; unknown options are passed over. */
#ifndef BP_COLLECTORS_TCG_QEMU_ARGS_H
#define BP_COLLECTORS_TCG_QEMU_ARGS_H

#include <stdbool.h>
#include <stdint.h>

struct bp_qemu_args {
	const char *kernel, *initrd, *append, *machine;
	uint64_t ram_bytes;        /* of -m; QEMU's default of 128 MiB when not given */
	unsigned smp;              /* of -smp; 1 when not given */
	char accel[32];            /* accelerator asked for first: "tcg" when none is */
	bool has_icount, has_rtc, has_seed;
	bool daemonize;            /* QEMU would leave its parent */
	unsigned debug_exit_port;  /* I/O port of an isa-debug-exit device, 0: none */
};

/** bp_qemu_args_parse() - @argv: NULL-terminated, argv[0] is QEMU; never fails */
void bp_qemu_args_parse(char *const *argv, struct bp_qemu_args *ret);

#endif
