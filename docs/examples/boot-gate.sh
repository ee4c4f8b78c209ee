#!/bin/sh
# Judges a boot in CI: boot-gate.sh OPTION..., from the top of the source, with options for `bootprof gate`. Kept beside
# it: boot-baseline.json and boot-budget.yaml. boot-gate.sh new-baseline OPTION... makes both anew; they are committed
# with the change that is meant to make the boot slower.
#
#   KERNEL, INITRD   what is booted
set -eu
boot()
{
	bootprof gate "$@" -- qemu-system-x86_64 -M microvm -m 128 -kernel "$KERNEL" -initrd "$INITRD" \
		-append "console=ttyS0 nokaslr cryptomgr.notests panic=-1 reboot=t" -nographic -nic none -no-reboot
}
if [ "${1:-}" = new-baseline ]; then
	shift
	boot --save-baseline boot-baseline.json --write-budget boot-budget.yaml "$@"
else
	boot --baseline boot-baseline.json --budget boot-budget.yaml "$@"
fi
