#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Call stacks against gdb's: docs/truth.md says how. A guest is stopped again and again while it boots and
# bootprof records it; at each stop gdb unwinds the stack with the debug symbols. At least 99 % of the stacks
# must be the same.
#
# Environment: SEED (of the times between stops), STOP_MS (the longest of them), QEMU.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 gdb python3 busybox cpio gzip
requires_bootprof
kernel=${BOOTPROF_TEST_KERNEL:-$("$BOOTPROF_TOP/scripts/fetch-kernel.sh")} || skip_all 'no kernel'
vmlinux=${BOOTPROF_TEST_VMLINUX:-$("$BOOTPROF_TOP/scripts/fetch-kernel.sh" --debug)} ||
	skip_all 'no debug symbols'
[ "${kernel##*/vmlinuz-}" = "${vmlinux##*/vmlinux-}" ] || skip_all "$vmlinux is not for $kernel"
gdb -nx -batch -ex 'python import gdb.unwinder' > "$T/out" 2>&1 || skip_all 'this gdb has no python'
qemu=${QEMU:-qemu-system-x86_64}
truth=$BOOTPROF_TOP/tests/truth
build=$(dirname "$(readlink -f "$BOOTPROF")")

build_tool()
{
	(cd "$BOOTPROF_TOP" && "${CC:-gcc}" -std=gnu11 -O2 -g -Wall -Wextra -Werror -I. -o "$T/$1" \
		"tests/truth/$1.c" "${BOOTPROF_LIB:-$build/libbootprof.a}" \
		$(pkg-config --cflags --libs libelf libdw libzstd liblzma liblz4 zlib) -lm -pthread)
}

# stacks NAME VCPUS
stacks()
{
	local name=$1 vcpus=$2 i pid total equal complete frames

	rm -f "$T"/gdb.bp* "$T/socket" "$T/monitor" "$T/pid" "$T/stops"
	# The guest waits for gdb; the recording ends with it.
	within 900 "$BOOTPROF" record -q -o "$T/gdb.bp" -- "$qemu" -M pc -m 512 -smp "$vcpus" \
		-kernel "$kernel" -initrd "$T/initrd" -append 'console=ttyS0 nokaslr panic=-1' \
		-display none -serial "file:$T/console" \
		-nic none -no-reboot -S -gdb "unix:$T/socket,server=on,wait=off" -pidfile "$T/pid" \
		-monitor "unix:$T/monitor,server=on,wait=off" \
		< /dev/null > "$T/record" 2>&1 &
	pid=$!
	for ((i = 0; i < 100; i++)); do
		[ -s "$T/pid" ] && [ -S "$T/socket" ] && [ -S "$T/monitor" ] && break
		sleep 0.2
	done
	STOPS_SOCKET=$T/socket STOPS_MONITOR=$T/monitor STOPS_PID=$T/pid STOPS_PLUGIN=$build/bootprof-tcg.so \
		STOPS_SEED=${SEED:-1} STOPS_MS=${STOP_MS:-12} STOPS_OUT=$T/stops \
		within 800 gdb -nx -batch -x "$truth/stops.py" "$vmlinux" > "$T/gdb.log" 2>&1
	wait $pid
	is "$name: the recording ended well" "$?" 0 || note "$(tail -n 5 "$T/record" "$T/gdb.log")"
	like "$name: the guest came to its end" 'bootprof-guest: ready' "$T/console"
	ok "$name: when the stops were" python3 "$truth/compare_stacks.py" --moments "$T/stops" || return
	cp "$T/out" "$T/moments"
	ok "$name: bootprof's stacks" "$T/stacks_at" "$T/gdb.bp" < "$T/moments" || return
	cp "$T/out" "$T/stacks"
	ok "$name: compare" python3 "$truth/compare_stacks.py" "$T/stops" "$T/stacks" || return
	cut -c 1-1000 "$T/out" > "$T/result"
	note "$(sed '$d' "$T/result")"
	read -r _ total _ equal _ complete _ frames < <(tail -n 1 "$T/result")
	note "$name: $total stops in the kernel with $frames frames, $equal stacks are equal," \
		"$complete of them to the outermost function"
	between "$name: at least 200 stops" "$total" 200 1000000
	between "$name: percent of the stacks that are equal" \
		"$(awk -v e="$equal" -v t="$total" 'BEGIN { printf "%.2f", t ? 100 * e / t : 0 }')" 99 100
}

ok 'build stacks_at' build_tool stacks_at || exit
ok 'build the initrd' "$BOOTPROF_TOP/scripts/make-initrd.sh" "$T/initrd" || exit
stacks 'one vCPU' 1
stacks 'two vCPUs' 2
