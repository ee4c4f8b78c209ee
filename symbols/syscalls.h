/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of x86-64 system calls. The numbers are ABI: they never change, new ones are added at the end. */
#ifndef BP_SYMBOLS_SYSCALLS_H
#define BP_SYMBOLS_SYSCALLS_H

/** bp_syscall_x86_64_name() - "openat" for 257, NULL for a number that is not in use. Static text */
const char *bp_syscall_x86_64_name(unsigned nr);

/**
 * bp_syscall_x86_64_handler() - 257 for "__x64_sys_openat", the kernel's function; -1 when it is none
 * Also those of 32-bit programs, whose numbers differ, and the names of older kernels (sys_openat,
 * SyS_openat).
 */
int bp_syscall_x86_64_handler(const char *function);

#endif
