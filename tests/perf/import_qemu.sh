#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Reading execution traces of QEMU against wc -l and cat on the same file. The log is a real one, written by QEMU for
# a few seconds in the middle of a kernel's boot and repeated; the binary trace is the corpus' one, repeated.
set -u
export LC_ALL=C
program=${O:-build}/perf/perf_qemu
kernel=${BOOTPROF_TEST_KERNEL:-}
corpus=${BOOTPROF_CORPUS:-../shared/corpus}
megabytes=${BENCH_MEGABYTES:-1000}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/bootprof-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT

[ -x "$program" ] || { echo "import_qemu: $program is not built"; exit 0; }

# repeat FROM TO: until TO has that many megabytes
repeat()
{
	while [ "$(stat -c %s "$2")" -lt $((megabytes * 1000000)) ]; do
		cat "$1" >> "$2"
	done
}

# seconds COMMAND...: the best of three
seconds()
{
	local best= i t
	for i in 1 2 3; do
		t=$( { TIMEFORMAT=%R; time "$@" > /dev/null 2>&1; } 2>&1)
		best=$(printf '%s\n' "$best" "$t" | grep . | sort -n | head -n 1)
	done
	echo "$best"
}

# compare NAME FILE LIMIT COMMAND...
compare()
{
	local name=$1 file=$2 limit=$3 ours theirs i
	shift 3
	theirs=$(seconds "$@" "$file")
	# perf_qemu opens the kernel and reads the file beforehand: its own figure is the import alone.
	for i in 1 2 3; do
		"$program" "$file" ${kernel:+"$kernel" "$work/out"} > "$work/said$i"
	done
	ours=$(sed -n 's/.* records, \([0-9.]*\) s,.*/\1/p' "$work"/said? | sort -n | head -n 1)
	cat "$work/said3"
	awk -v n="$name" -v a="$ours" -v b="$theirs" -v l="$limit" -v c="$*" \
		'BEGIN { printf "%s: %.2f s, %s %.2f s: %.1f times (at most %s)\n", n, a, c, b, a / (b > 0 ? b : 0.001), l }'
}

if [ -r "$kernel" ] && command -v qemu-system-x86_64 > /dev/null; then
	(sleep 2; echo "logfile $work/part.log"; echo 'log exec,nochain'; sleep 4; echo quit) |
		timeout 30 qemu-system-x86_64 -accel tcg -M pc -m 512 -kernel "$kernel" -append 'nokaslr quiet panic=-1' \
			-display none -nic none -serial none -monitor stdio -no-reboot -d nochain > /dev/null 2>&1
	if [ -s "$work/part.log" ]; then
		sed -i '$d' "$work/part.log"
		: > "$work/exec.log"
		repeat "$work/part.log" "$work/exec.log"
		compare 'exec log' "$work/exec.log" 3 wc -l
		rm -f "$work/exec.log" "$work/part.log"
	fi
else
	echo 'import_qemu: no QEMU, or BOOTPROF_TEST_KERNEL is not set: no exec log'
fi
if [ -r "$corpus/qemu/boot-tiny.simpletrace" ]; then
	# The names end at 170098, the last whole record at 204754.
	head -c 204754 "$corpus/qemu/boot-tiny.simpletrace" > "$work/simple"
	for i in $(seq 500); do tail -c +170099 "$work/simple" | head -c 34656; done > "$work/body"
	repeat "$work/body" "$work/simple"
	compare simpletrace "$work/simple" 2 cat
else
	echo "import_qemu: $corpus/qemu is not there (BOOTPROF_CORPUS): no binary trace"
fi
