#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The first thing to try: records the boot of the distribution's cloud kernel, and reports. `make demo` builds first.
set -euo pipefail
cd "$(dirname "$0")/.."
O=${O:-build}
output=${1:-demo.bootprof}

kernel=${BOOTPROF_TEST_KERNEL:-$(scripts/fetch-kernel.sh)}
export BOOTPROF_TEST_KERNEL=$kernel
initrd=$O/demo-initrd.img
scripts/make-initrd.sh "$initrd" --modules

run()
{
	printf '\n$ %s\n' "$*"
	"$@"
}

# --foreground: Ctrl-C reaches the recorder.
run timeout --foreground -k 10 300 "$O/bootprof" record -o "$output" -- qemu-system-x86_64 -M pc -m 512 -smp 1 \
	-kernel "$kernel" -initrd "$initrd" -append "console=ttyS0" -nographic -no-reboot
run "$O/bootprof" report -i "$output" | cat
