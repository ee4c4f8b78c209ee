#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What record --waits costs a QEMU under an I/O load: `make bench`, or tests/perf/waits.sh from the root of the tree (root).
#
# Four dd loops read from four virtio-blk disks, -smp 4, MTTCG. How the vCPUs take turns at the big lock differs much from boot to
# boot, so recorders come and go within one: ROUNDS (10) times, SECONDS_EACH (2) without one and with each, in BOOTS (2) guests. Printed
# is what QEMU reads in a second, the geometric mean of the ratios of each round with its standard error, and the CPU time that
# QEMU takes for a megabyte.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
BOOTS=${BOOTS:-2}
ROUNDS=${ROUNDS:-10}
SECONDS_EACH=${SECONDS_EACH:-2}
MODES=${MODES:-"sampled never always all"}
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

cat > "$T/init" <<'END'
#!/bin/sh
export PATH=/bin:/usr/bin
mount -t devtmpfs dev /dev 2> /dev/null
while read -r module; do
	insmod "/lib/modules/$module.ko"
done < /etc/modules
for disk in vda vdb vdc vdd; do
	(while :; do dd if=/dev/$disk of=/dev/null bs=4096 count=3000 iflag=direct 2> /dev/null; done) &
done
echo "bootprof-guest: ready"
sleep 3600
END
scripts/make-initrd.sh "$T/initrd.img" --modules --init "$T/init"
truncate -s 64M "$T/disk"

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

boot()
{
	local i disks=()

	for i in 0 1 2 3; do
		disks+=(-drive "if=none,id=d$i,file=$T/disk,format=raw,file.locking=off,readonly=on"
			-device "virtio-blk-pci,drive=d$i")
	done
	: > "$T/console"
	qemu-system-x86_64 -name guest,debug-threads=on -accel tcg,thread=multi -M pc -m 256 -smp 4 \
		-kernel "$BOOTPROF_TEST_KERNEL" -initrd "$T/initrd.img" -append 'console=ttyS0 quiet' -display none \
		-nic none -monitor none -serial "file:$T/console" "${disks[@]}" 2> "$T/err" &
	qemu=$!
	# A boot in many hangs: QEMU's own affair.
	until_console ready || {
		kill -9 $qemu
		wait $qemu 2> /dev/null || :
		boot
		return
	}
	sleep 1
}

# interval MODE [OPTION...]: a line "MODE bytes/s CPU-seconds/MB" for $T/rates
interval()
{
	local mode=$1 recorder= i read from before

	shift
	if [ "$mode" != bare ]; then
		"$bootprof" record -q --waits --pid $qemu -o "$T/r" "$@" &
		recorder=$!
		for ((i = 0; i < 200; i++)); do
			! grep -qs 1 /sys/kernel/tracing/instances/bootprof_"$recorder"_*/tracing_on || break
			sleep 0.05
		done
		sleep 0.5
	fi
	read=$(sed -n 's/^rchar: //p' "/proc/$qemu/io") from=$EPOCHREALTIME before=$(cpu)
	sleep "$SECONDS_EACH"
	awk -v mode="$mode" -v a="$read" -v b="$(sed -n 's/^rchar: //p' "/proc/$qemu/io")" -v from="$from" -v to="$EPOCHREALTIME" \
		-v before="$before" -v after="$(cpu)" \
		'BEGIN { printf "%s %.0f %.4f\n", mode, (b - a) / (to - from), (after - before) * 1e6 / (b - a) }' >> "$T/rates"
	[ -z "$recorder" ] || {
		kill -INT $recorder
		wait $recorder
	}
}

for ((i = 0; i < BOOTS; i++)); do
	boot
	for ((round = 0; round < ROUNDS; round++)); do
		interval bare
		for mode in $MODES; do
			case $mode in
			all) interval all --futex=all ;;
			*) interval "$mode" --lock-sites="$mode" ;;
			esac
		done
	done
	kill -9 $qemu
	wait $qemu 2> /dev/null || :
	qemu=
done
awk '
	$1 == "bare" { bare = $2; cpu = $3 }
	!($1 in n) { order[++modes] = $1 }
	{
		n[$1]++
		rate[$1] += $2
		x = log(bare / $2)
		sum[$1] += x
		squares[$1] += x * x
		seconds[$1] += log($3 / cpu)
	}
	END {
		printf "%-22s %8s %7s %9s %9s\n", "dd x 4, virtio-blk", "MB/s", "ratio", "+-", "CPU ratio"
		for (i = 1; i <= modes; i++) {
			m = order[i]
			mean = sum[m] / n[m]
			error = n[m] > 1 ? sqrt((squares[m] / n[m] - mean * mean) / (n[m] - 1)) : 0
			printf "%-22s %8.2f %7.3f %9.3f %9.3f\n", m, rate[m] / n[m] / 1e6, exp(mean), error, exp(seconds[m] / n[m])
		}
	}' "$T/rates"
