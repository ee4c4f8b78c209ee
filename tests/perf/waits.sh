#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What record --waits costs a QEMU under an I/O load: `make bench`, or tests/perf/waits.sh from the root of the tree (root).
#
# Four dd loops read COUNT (4000) blocks each, on four virtio-blk disks, -smp 4, MTTCG; without and with --waits, alternating,
# RUNS (9) of each; median of the wall time of the load and of QEMU's CPU time in it. How the vCPUs take turns at the big
# lock differs much from run to run: the spread is printed, too.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-9}
COUNT=${COUNT:-4000}
MODES=${MODES:-"sampled never always"}
bootprof=$(realpath "${BOOTPROF:-build/bootprof}")
[ "$(id -u)" -eq 0 ] && [ -d /sys/kernel/tracing/instances ] || {
	echo 'waits: left out: needs root and tracefs'
	exit 0
}
BOOTPROF_TEST_KERNEL=${BOOTPROF_TEST_KERNEL:-$(scripts/fetch-kernel.sh)}
export BOOTPROF_TEST_KERNEL
T=$(mktemp -d "${TMPDIR:-/var/tmp}/bootprof-bench.XXXXXX")
qemu=
trap '[ -z "$qemu" ] || kill -9 $qemu 2> /dev/null; rm -rf "$T"' EXIT
trap 'exit 130' INT TERM

cat > "$T/init" <<END
#!/bin/sh
export PATH=/bin:/usr/bin
mount -t devtmpfs dev /dev 2> /dev/null
while read -r module; do
	insmod "/lib/modules/\$module.ko"
done < /etc/modules
echo "bootprof-guest: ready"
read -r go < /dev/ttyS0
for disk in vda vdb vdc vdd; do
	dd if=/dev/\$disk of=/dev/null bs=4096 count=$COUNT iflag=direct 2> /dev/null &
done
wait
echo "bootprof-guest: end"
sleep 3600
END
scripts/make-initrd.sh "$T/initrd.img" --modules --init "$T/init"
truncate -s 64M "$T/disk"
mkfifo "$T/in"
exec 3<> "$T/in"

until_console()
{
	local i

	for ((i = 0; i < 3000; i++)); do
		! grep -aq "bootprof-guest: $1" "$T/console" 2> /dev/null || return 0
		sleep 0.02
	done
	echo "waits: the guest did not get to its $1" >&2
	return 1
}

cpu()
{
	awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / hz }' "/proc/$qemu/stat"
}

# one NAME [OPTION...]: a run; adds its wall and CPU seconds to $T/NAME.wall and .cpu
one()
{
	local name=$1 i disks=() from before recorder=

	shift
	for i in 0 1 2 3; do
		disks+=(-drive "if=none,id=d$i,file=$T/disk,format=raw,file.locking=off,readonly=on"
			-device "virtio-blk-pci,drive=d$i")
	done
	: > "$T/console"
	qemu-system-x86_64 -name guest,debug-threads=on -accel tcg,thread=multi -M pc -m 256 -smp 4 \
		-kernel "$BOOTPROF_TEST_KERNEL" -initrd "$T/initrd.img" -append 'console=ttyS0 quiet' -display none \
		-nic none -monitor none -serial stdio "${disks[@]}" < "$T/in" > "$T/console" 2> "$T/err" &
	qemu=$!
	# A boot in many hangs: QEMU's own affair.
	until_console ready || {
		kill -9 $qemu
		wait $qemu 2> /dev/null || :
		one "$name" "$@"
		return
	}
	if [ $# -gt 0 ]; then
		"$bootprof" record -q --pid $qemu -o "$T/r" "$@" &
		recorder=$!
	fi
	sleep 1.5
	before=$(cpu) from=$EPOCHREALTIME
	echo go >&3
	until_console end || exit 1
	awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }' >> "$T/$name.wall"
	awk -v a="$before" -v b="$(cpu)" 'BEGIN { printf "%.2f\n", b - a }' >> "$T/$name.cpu"
	kill -9 $qemu
	wait $qemu 2> /dev/null || :
	qemu=
	[ -z "$recorder" ] || wait $recorder
}

median()
{
	sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

for ((run = 0; run < RUNS; run++)); do
	one bare
	for mode in $MODES; do
		one "$mode" --waits --lock-sites="$mode"
	done
done
printf '%-22s %8s %7s %8s %7s   %s\n' 'dd x 4, virtio-blk' 'wall s' 'ratio' 'CPU s' 'ratio' 'wall, fastest to slowest'
for name in bare $MODES; do
	printf '%-22s %8.2f %7.2f %8.2f %7.2f   %s\n' "$name" "$(median "$T/$name.wall")" \
		"$(awk -v a="$(median "$T/$name.wall")" -v b="$(median "$T/bare.wall")" 'BEGIN { print a / b }')" \
		"$(median "$T/$name.cpu")" \
		"$(awk -v a="$(median "$T/$name.cpu")" -v b="$(median "$T/bare.cpu")" 'BEGIN { print a / b }')" \
		"$(sort -n "$T/$name.wall" | sed -n '1p;$p' | paste -sd-)"
done
