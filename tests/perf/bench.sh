#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What recording costs, as a table: `make bench`, or tests/perf/bench.sh from the root of the tree.
#
#   wall time of a boot under record over bare TCG, alternating runs, median of RUNS (7), for each SMP in "1 2"
#   bytes of recording per call
#   time and memory of `report functions`
#   memory of record and report on a boot that is LONG (20) times as long; LONG=0 leaves it out
#
# Quiet the machine first: load shows in the spread, which is printed too.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-7}
SMP=${SMP:-1 2}
LONG=${LONG:-20}
bootprof=${BOOTPROF:-build/bootprof}
[ -x "$bootprof" ] || {
	echo "bench: $bootprof is not built" >&2
	exit 1
}
bootprof=$(realpath "$bootprof")

kernel=${BOOTPROF_TEST_KERNEL:-$(scripts/fetch-kernel.sh)}
export BOOTPROF_TEST_KERNEL=$kernel
T=$(mktemp -d "${TMPDIR:-/var/tmp}/bootprof-bench.XXXXXX")
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM
scripts/make-initrd.sh "$T/initrd.img"

qemu_command()
{
	echo "qemu-system-x86_64 -accel tcg -M pc -m 512 -smp $1 -kernel $kernel -initrd $2 -append console=ttyS0" \
		"-display none -serial stdio -monitor none -no-reboot"
}

# timed FILE COMMAND...: appends the seconds that it took to FILE; the guest must have got to its end
timed()
{
	local file=$1 from

	shift
	from=$EPOCHREALTIME
	timeout -k 10 900 "$@" < /dev/null > "$T/console" 2> "$T/err" || {
		echo "bench: $* failed:" >&2
		tail -n 5 "$T/err" >&2
		exit 1
	}
	awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }' >> "$file"
	grep -aq 'bootprof-guest: ready' "$T/console" || {
		echo "bench: the guest did not get to its end: $*" >&2
		exit 1
	}
}

median()
{
	sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

spread()
{
	sort -n "$1" | awk 'NR == 1 { low = $1 } { high = $1 } END { printf "%.2f-%.2f", low, high }'
}

# measure COMMAND...: "SECONDS MAX_RSS_MB" of a command, its own memory without that of QEMU
measure()
{
	python3 - "$@" <<'END'
import os, sys, time
start = time.monotonic()
pid = os.fork()
if pid == 0:
    null = os.open('/dev/null', os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.execvp(sys.argv[1], sys.argv[1:])
peak = 0
while True:
    done, status, usage = os.wait4(pid, os.WNOHANG)
    if done:
        break
    try:
        with open('/proc/%d/status' % pid) as f:
            for line in f:
                if line.startswith('VmHWM:'):
                    peak = max(peak, int(line.split()[1]))
    except OSError:
        pass
    time.sleep(0.005 if time.monotonic() - start < 2 else 0.1)
print('%.3f %.0f' % (time.monotonic() - start, peak / 1024))
sys.exit(os.waitstatus_to_exitcode(status) != 0)
END
}

# number FILE KEY: the first "KEY": number in a JSON text
number()
{
	grep -oE "\"$2\": *[0-9]+" "$1" | sed -n '1s/.*: *//p'
}

row()
{
	printf '%-44s %12s %12s %10s  %s\n' "$@"
}

echo "$("$bootprof" --version 2> /dev/null | sed -n 1p), $(qemu-system-x86_64 --version | sed -n 1p)"
echo "kernel ${kernel##*/}, $(nproc) CPUs ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p)), median of $RUNS"
echo
row '' bare recorded ratio 'fastest-slowest'
for smp in $SMP; do
	read -ra command <<< "$(qemu_command "$smp" "$T/initrd.img")"
	timed "$T/warm-up" "${command[@]}"
	for ((i = 0; i < RUNS; i++)); do
		timed "$T/bare-$smp" "${command[@]}"
		rm -f "$T/rec-$smp.bootprof"
		timed "$T/recorded-$smp" "$bootprof" record -o "$T/rec-$smp.bootprof" -- "${command[@]}"
	done
	bare=$(median "$T/bare-$smp") recorded=$(median "$T/recorded-$smp")
	row "boot, -smp $smp, seconds" "$bare" "$recorded" \
		"$(awk -v a="$recorded" -v b="$bare" 'BEGIN { printf "%.3f", a / b }')" \
		"$(spread "$T/bare-$smp") $(spread "$T/recorded-$smp")"
done

# sizes NAME FILE: bytes per call, report functions
sizes()
{
	local calls bytes seconds memory

	"$bootprof" info --format=json -i "$2" > "$T/info.json"
	calls=$(number "$T/info.json" calls)
	bytes=$(stat -c %s "$2")
	row "$1: calls, bytes, bytes per call" "${calls:-?}" "$bytes" \
		"$(awk -v a="$bytes" -v b="${calls:-0}" 'BEGIN { if (b) printf "%.2f", a / b; else print "?" }')" ''
	read -r seconds memory < <(measure "$bootprof" report functions -i "$2")
	row "$1: report functions, seconds and MB" "$seconds" "$memory" '' ''
}

echo
for smp in $SMP; do
	sizes "-smp $smp" "$T/rec-$smp.bootprof"
done

[ "$LONG" -gt 0 ] || exit 0
# The same boot, then work in user space until LONG times as many calls have been made.
cat > "$T/init" <<END
#!/bin/sh
export PATH=/bin:/usr/bin
mount -t proc proc /proc
i=0
while [ \$i -lt $((LONG * 80)) ]; do
	/usr/bin/env A=\$i /bin/true
	dd if=/dev/zero of=/tmp/zero bs=4096 count=256 2> /dev/null
	dd if=/tmp/zero of=/dev/null bs=512 2> /dev/null
	i=\$((i + 1))
done
echo "bootprof-guest: ready"
poweroff -f
END
scripts/make-initrd.sh "$T/long.img" --init "$T/init"
echo
read -ra command <<< "$(qemu_command 1 "$T/initrd.img")"
rm -f "$T"/*.bootprof
read -r seconds memory < <(measure "$bootprof" record -o "$T/short.bootprof" -- "${command[@]}")
row 'short boot: record, seconds and MB' "$seconds" "$memory" '' ''
read -ra command <<< "$(qemu_command 1 "$T/long.img")"
read -r seconds memory < <(measure "$bootprof" record -o "$T/long.bootprof" -- "${command[@]}")
row 'long boot: record, seconds and MB' "$seconds" "$memory" '' ''
sizes 'short boot' "$T/short.bootprof"
sizes 'long boot' "$T/long.bootprof"
