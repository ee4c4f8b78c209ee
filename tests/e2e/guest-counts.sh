#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The bare-metal guest with known counts: bootprof's figures are exact, with one vCPU and with a second one that
# does nothing, with a thread for each vCPU and with one for all.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3
requires_bootprof
guest=$BOOTPROF_GUEST/guest.elf
[ -e "$guest" ] || skip_all 'the test guest is not built'
"$BOOTPROF" report --help > /dev/null 2>&1 || skip_all 'there is no bootprof report'

run()
{
	within 60 "$BOOTPROF" record -o "$T/guest.bootprof" -- qemu-system-x86_64 -M pc -m 64 -kernel "$guest" \
		-display none -serial stdio -monitor none -nic none -no-reboot "$@" < /dev/null
}

# counts NAME QEMU-OPTION...
counts()
{
	local name=$1

	shift
	rm -f "$T/guest.bootprof"
	# isa-debug-exit ends QEMU with 2 * value + 1.
	status 1 "$name: record passes on QEMU's status" run -device isa-debug-exit,iobase=0xf4,iosize=4 "$@" || return
	like "$name: the guest's console comes through" '^bootprof-guest: ready' "$T/out"
	ok "$name: report" within 60 "$BOOTPROF" report functions -i "$T/guest.bootprof" --format=json || return
	cp "$T/out" "$T/functions.json"
	python3 "$BOOTPROF_TOP/tests/guest/compare.py" "$T/functions.json" > "$T/compare" 2>&1
	is "$name: calls and instructions are exact" "$(grep -v '^ok ' "$T/compare" | grep -v '^1\.\.')" ''
}

counts 'one vCPU'
counts 'two vCPUs' -smp 2
counts 'one thread' -smp 2 -accel tcg,thread=single
counts 'icount' -icount shift=1,sleep=off

rm -f "$T/guest.bootprof"
status 0 'a triple fault with -no-reboot ends with 0' run
