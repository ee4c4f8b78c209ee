#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Makes an initrd of one static program, whose planted_loop() goes round so many times, and which then says
# "bootprof-guest: ready" and powers off: scripts/make-loop-initrd.sh OUT LOOPS
# It sleeps for a second in between: newer kernels test their ciphers in the background, and how far they have got
# when a boot is cut off is not the same each time.
set -euo pipefail
export LC_ALL=C
[ $# -eq 2 ] || {
	echo "usage: scripts/make-loop-initrd.sh OUT LOOPS" >&2
	exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
cat > "$work/init.c" <<'END'
static long syscall4(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}

__attribute__((noinline)) void planted_loop(long n)
{
	for (volatile long i = 0; i < n; i++)
		;
}

void _start(void)
{
	long second[2] = {1, 0};

	planted_loop(LOOPS);
	syscall4(35, (long)second, 0, 0, 0); /* nanosleep */
	syscall4(1, 1, (long)"bootprof-guest: ready\n", 22, 0); /* write */
	syscall4(169, 0xfee1dead, 672274793, 0x4321fedc, 0);   /* reboot: power off */
	for (;;)
		;
}
END
gcc -O1 -static -nostdlib -fno-stack-protector -fcf-protection=none -DLOOPS="$2L" -o "$work/root/init" "$work/init.c"
touch -d @0 "$work/root/init"
(cd "$work/root" && echo init | cpio -o -H newc -R +0:+0 --reproducible --quiet) | gzip -n -9 > "$1"
