#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Names out of the kernel image against the debug vmlinux of the same kernel: every symbol, its address, and the name
# shown for every address.
. "$(dirname "$0")/../lib.sh"
kernel=${BOOTPROF_TEST_KERNEL:-$("$BOOTPROF_TOP/scripts/fetch-kernel.sh")} || skip_all 'no kernel'
vmlinux=${BOOTPROF_TEST_VMLINUX:-$("$BOOTPROF_TOP/scripts/fetch-kernel.sh" --debug)} ||
	skip_all 'no debug symbols'
test=$(dirname "$(readlink -f "$BOOTPROF")")/unit/test_kimage
[ -x "$test" ] || skip_all "$test is not built"

symbols()
{
	BOOTPROF_TEST_KERNEL=$kernel BOOTPROF_TEST_VMLINUX=$vmlinux within 60 "$test" 2>&1
}

ok 'kallsyms of the image is the symbol table of the vmlinux' symbols
like 'and that was compared' 'test_real_vmlinux' "$T/out"
