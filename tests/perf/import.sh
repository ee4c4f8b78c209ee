#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What `bootprof import` costs, against the simplest that can be done with the same file: wc -l, cat, and for
# trace.dat trace-cmd report. The whole command counts, with opening the kernel and writing the recording.
#
# The exec log is a real one, which QEMU writes for a few seconds in the middle of a kernel's boot, repeated until
# it has RECORDS (52 million) of them: 4 GB in TMPDIR. The others are traces of the corpus, repeated. Runs alternate,
# the best of RUNS (5) counts, and files are in the page cache: they are read once before.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-5}
RECORDS=${RECORDS:-52000000}
MEGABYTES=${MEGABYTES:-1000}
bootprof=$(realpath "${BOOTPROF:-build/bootprof}")
corpus=${BOOTPROF_CORPUS:-../shared/corpus}
T=$(mktemp -d "${TMPDIR:-/var/tmp}/bootprof-bench.XXXXXX")
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM

# measure COMMAND...: "SECONDS CPU_SECONDS MAX_RSS_MB", its output thrown away
measure()
{
	python3 - "$@" <<'END'
import os, sys, time
start = time.monotonic()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ,
                      file_actions=[(os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print('%.3f %.3f %.0f' % (time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
sys.exit(status != 0)
END
}

# compare NAME FILE LIMIT IMPORT_OPTIONS -- COMMAND...: LIMIT is "<= 3" for times as long, ">= 20" for times as fast
compare()
{
	local name=$1 file=$2 limit=$3 options=() i

	shift 3
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	cat "$file" > /dev/null
	: > "$T/theirs"
	: > "$T/ours"
	for ((i = 0; i < RUNS; i++)); do
		measure "$@" "$file" >> "$T/theirs" 2> /dev/null
		rm -f "$T/out"
		measure "$bootprof" import -q "$file" -o "$T/out" "${options[@]}" >> "$T/ours"
	done
	paste -d ' ' <(sort -n "$T/ours" | sed -n 1p) <(sort -n "$T/theirs" | sed -n 1p) |
		awk -v n="$name" -v c="$*" -v limit="$limit" -v bytes="$(stat -c %s "$file")" '{
			split(limit, l, " ")
			ratio = l[1] == "<=" ? $1 / $4 : $4 / $1
			met = l[1] == "<=" ? ratio <= l[2] : ratio >= l[2]
			printf "%-28s %6.0f %8.2f %8.2f %6.2f %5d  %-18s %8.2f %7.1f  %s %s\n",
				n, bytes / 1e6, $1, $2, $2 / $1, $3, c, $4, ratio, limit, met ? "" : "MISSED"
		}'
}

# repeat FROM TO TIMES
repeat()
{
	local i

	for ((i = 0; i < $3; i++)); do
		cat "$1"
	done > "$2"
}

printf '%-28s %6s %8s %8s %6s %5s  %-18s %8s %7s  %s\n' import MB seconds CPU CPUs MB against seconds times aim
kernel=${BOOTPROF_TEST_KERNEL:-$(scripts/fetch-kernel.sh)}
(sleep 2; echo "logfile $T/part.log"; echo 'log exec,nochain'; sleep 4; echo quit) |
	timeout 60 qemu-system-x86_64 -accel tcg -M pc -m 512 -kernel "$kernel" -append 'nokaslr quiet panic=-1' \
		-display none -nic none -serial none -monitor stdio -no-reboot -d nochain > /dev/null 2>&1
[ -s "$T/part.log" ] || { echo "bench: QEMU wrote no log" >&2; exit 1; }
# The last line is cut.
sed -i '$d' "$T/part.log"
lines=$(grep -c '^Trace ' "$T/part.log")
repeat "$T/part.log" "$T/exec.log" $((RECORDS / lines + 1))
compare "exec log, $((lines * (RECORDS / lines + 1) / 1000000)) M records" "$T/exec.log" '<= 3' \
	--vmlinux "$kernel" -- wc -l
rm -f "$T/exec.log" "$T/part.log"

[ -d "$corpus/fgraph" ] || {
	echo "bench: $corpus is not there (BOOTPROF_CORPUS): the other formats are left out"
	exit 0
}
# The names end at 170098, the last whole record at 204754.
head -c 204754 "$corpus/qemu/boot-tiny.simpletrace" > "$T/simple"
tail -c +170099 "$T/simple" > "$T/body"
# Read so fast that a gigabyte would measure the start.
repeat "$T/body" "$T/more" $((MEGABYTES * 4000000 / $(stat -c %s "$T/body") + 1))
cat "$T/more" >> "$T/simple"
rm -f "$T/more"
compare simpletrace "$T/simple" '<= 2' --vmlinux "$kernel" -- cat
rm -f "$T/simple"

for name in scsi-default blk-abs-proc-tail; do
	zstd -dqc "$corpus/fgraph/$name.txt.zst" > "$T/one"
	repeat "$T/one" "$T/graph" $((MEGABYTES * 1000000 / $(stat -c %s "$T/one") + 1))
	compare "function_graph, ${name#*-}" "$T/graph" '<= 5' -- wc -l
	rm -f "$T/graph"
done

if command -v trace-cmd > /dev/null; then
	zstd -dqc "$corpus/tracedat/guest-fgraph-v6.dat.zst" > "$T/one"
	python3 tests/perf/repeat_dat.py "$T/one" "$T/dat" $((MEGABYTES * 1000000 / 4 / 110592 + 1))
	RUNS=$(((RUNS + 1) / 2)) compare 'trace.dat, function_graph' "$T/dat" '>= 20' -- trace-cmd report -i
else
	echo 'bench: trace-cmd is not installed: trace.dat is left out'
fi
