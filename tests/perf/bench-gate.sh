#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the two judges of `bootprof gate` miss and cry for nothing, on real boots: `make bench-gate`, or
# tests/perf/bench-gate.sh from the root of the tree. Ten to twenty minutes.
#
#   exact        RUNS (30) boots of the same guest against its baseline, and CAUGHT (10) with an initrd of other sizes:
#                no alarm may come. A loop of +0.1 % and of +1 % of the boot's instructions planted in /init, CAUGHT
#                (10) boots each: each must be caught, and the loop's function named first. With KASLR.
#   statistical  PAIRS (60) pairs of boots A and A, and A and B, run in turn, where B has a loop of +10 % of A's time.
#                The 30 A/A boots in turn as the gate sees them; 1,000 resamplings of the A/A pairs: at most 1 % false
#                alarms; 10 trials of 30 A/B pairs: at least 9 caught.
#
# Guests are as small as one with a distribution kernel can be: one static program.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-30}
CAUGHT=${CAUGHT:-10}
PAIRS=${PAIRS:-60}
PARTS=${PARTS:-exact statistical}
bootprof=$(realpath "${BOOTPROF:-build/bootprof}")
judge=$(realpath "${JUDGE:-build/perf/perf_gate}")
for program in "$bootprof" "$judge"; do
	[ -x "$program" ] || {
		echo "bench-gate: $program is not built" >&2
		exit 1
	}
done
kernel=${BOOTPROF_TEST_KERNEL:-$(scripts/fetch-kernel.sh)}
T=$(mktemp -d "${TMPDIR:-/var/tmp}/bootprof-bench.XXXXXX")
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM
failed=0

verdict()
{
	if [ "$2" = yes ]; then
		echo "ok: $1"
	else
		echo "FAILED: $1"
		failed=1
	fi
}

# guest NAME LOOPS [PAD]: an initrd whose /init has a loop in planted_loop()
guest()
{
	scripts/make-loop-initrd.sh "$T/$1.img" "$2"
	truncate -s "+${3:-0}" "$T/$1.img"
}

qemu()
{
	echo "qemu-system-x86_64 -M microvm -m 128 -kernel $kernel -initrd $T/$1.img -append console=ttyS0 -nographic" \
		"-nic none -no-reboot"
}

# gate NAME OPTION...: judges a guest; $status, $T/gate.json
gate()
{
	local name=$1

	shift
	status=0
	# shellcheck disable=SC2046
	timeout 1200 "$bootprof" gate "$@" --format=json -- $(qemu "$name") > "$T/gate.json" 2> "$T/err" || status=$?
}

show()
{
	python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$T/gate.json" "$1"
}

exact()
{
	local insns alarms changes share loops caught named growth

	echo "== exact judge, QEMU $(qemu-system-x86_64 --version | sed -n '1s/.*version //p')"
	# shellcheck disable=SC2046
	gate base --save-baseline "$T/base.json"
	[ $status -eq 0 ] || {
		cat "$T/err" >&2
		exit 1
	}
	insns=$(show 'd["new"]["insns"]')
	echo "baseline: $(stat -c %s "$T/base.json") bytes, $insns instructions," \
		"floor $(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["floor"]["kernel_insns"])' "$T/base.json")"

	alarms=0
	gate base --baseline "$T/base.json" --runs "$RUNS" --max-runs "$RUNS"
	[ $status -eq 0 ] || alarms=1
	echo "$RUNS boots of the same guest: $(show 'd["verdict"]') $(show 'd["notes"]')"
	verdict "no alarm in $RUNS boots of the same guest" "$([ $alarms -eq 0 ] && echo yes)"

	alarms=0 changes=
	for ((i = 1; i <= CAUGHT; i++)); do
		guest other 1000 $((i * 52))
		gate other --baseline "$T/base.json" --runs 1
		[ $status -eq 0 ] || alarms=$((alarms + 1))
		changes="$changes $(show 'd["delta_insns"]')"
	done
	echo "harmless changes, $CAUGHT other sizes of the initrd: $alarms alarms; measured:$changes"
	verdict 'no alarm for a guest with a harmless change' "$([ $alarms -eq 0 ] && echo yes)"

	# Six instructions a turn.
	for share in 1000 100; do
		loops=$((insns / share / 6 + 1000))
		caught=0 named=0 growth=
		for ((i = 0; i < CAUGHT; i++)); do
			guest planted $((loops)) $((i * 4))
			gate planted --baseline "$T/base.json" --runs 1
			[ $status -eq 3 ] && caught=$((caught + 1))
			[ "$(show 'd["blame"][0]["name"] if d["blame"] else ""')" = planted_loop ] && named=$((named + 1))
			growth="$growth $(show 'd["delta_insns"]')"
		done
		echo "+1/$share of the instructions: caught $caught of $CAUGHT, named $named; measured:$growth"
		verdict "a loop of +1/$share is caught and named each time" "$([ $caught -eq "$CAUGHT" ] && [ $named -eq "$CAUGHT" ] && echo yes)"
	done
}

# pc: under TCG on a busy host, microvm may not find out how fast its clock is, and hangs.
seconds()
{
	local from=$EPOCHREALTIME

	timeout 60 qemu-system-x86_64 -M pc -m 128 -kernel "$kernel" -initrd "$T/$1.img" -append console=ttyS0 \
		-nographic -nic none -no-reboot > /dev/null < /dev/null || {
		echo "bench-gate: the guest did not end" >&2
		exit 1
	}
	awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.4f\n", b - a }'
}
# Processor time of a boot, which other load of the host changes least.
cpu()
{
	local TIMEFORMAT=%U

	{ time seconds "$1" > /dev/null; } 2>&1
}
median()
{
	sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}
statistical()
{
	local a b loops order who noise alarms first caught

	echo "== statistical judge"
	# A loop of +10 % of the time: how long a turn takes is up to the host.
	guest big 400000000
	a=$(for _ in 1 2 3 4 5; do cpu base; done | sort -n | sed -n 1p)
	b=$(for _ in 1 2 3; do cpu big; done | sort -n | sed -n 1p)
	loops=$(awk -v a="$a" -v b="$b" 'BEGIN { printf "%d", 0.1 * a / ((b - a) / 4e8) }')
	guest slower $((loops + 1000))
	for ((i = 0; i < PAIRS; i++)); do
		# In turn, and each pair the other way round.
		if [ $((i % 2)) -eq 0 ]; then
			order='a1 a2 b'
		else
			order='b a2 a1'
		fi
		for who in $order; do
			case $who in
			b) seconds slower >> "$T/times.b" ;;
			*) seconds base >> "$T/times.$who" ;;
			esac
		done
	done
	echo "bare boots of $(median < "$T/times.a1") s ($a s of processor time); +10 %: a loop of $loops turns, $(median < "$T/times.b") s"
	paste "$T/times.a1" "$T/times.a2" > "$T/aa"
	paste "$T/times.a1" "$T/times.b" > "$T/ab"
	for noise in 0.02 0.05; do
		"$judge" "$T/aa" "$T/ab" "$noise" | tee "$T/judged" | sed 's/^/  /'
		[ $noise = 0.05 ] || cp "$T/judged" "$T/strict"
	done
	alarms=$(sed -n 's/^A.A resamplings: \([0-9]*\) .*/\1/p' "$T/strict")
	first=$(sed -n 's/^A.A in turn: //p' "$T/strict")
	caught=$(sed -n 's/^A.B trials: \([0-9]*\) .*/\1/p' "$T/strict")
	verdict "noise 2 %: no alarm for 30 boots in turn" "$([ "$first" != slower ] && echo yes)"
	verdict "noise 2 %: at most 1 % false alarms in 1,000 resamplings" "$([ "$alarms" -le 10 ] && echo yes)"
	verdict "noise 2 %: +10 % of time caught in at least 9 of 10 trials" "$([ "$caught" -ge 9 ] && echo yes)"
}

guest base 1000
for part in $PARTS; do
	$part
done
exit $failed
