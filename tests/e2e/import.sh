#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# bootprof import: traces of QEMU as it runs, packed ones, many files, interrupts; real ones from $BOOTPROF_CORPUS
# (or ../shared/corpus), cut anywhere and damaged, never bring it down.
. "$(dirname "$0")/../lib.sh"

corpus=${BOOTPROF_CORPUS:-$BOOTPROF_TOP/../shared/corpus}
import() { timeout 60 "$BOOTPROF" import "$@" 2> "$T/err"; }

# A log to play with: function_graph of a CPU, long enough for several blocks.
awk 'BEGIN {
	print "# tracer: function_graph\n#\n# CPU  DURATION                  FUNCTION CALLS\n# |     |   |                     |   |   |   |"
	for (i = 0; i < 60000; i++) {
		r = (r * 75 + 74) % 65537
		print " 0)               |  outer() {"
		printf " 0)   %d.%03d us    |    inner%d();\n", r % 9, r % 1000, r % 300
		print " 0)   9.000 us    |  }"
	}
}' > "$T/big.txt"

ok 'a trace of several blocks is read' import "$T/big.txt" -o "$T/big.bp"
like 'the summary counts its calls' '120000 calls' "$T/err"
"$BOOTPROF" report functions --format=csv -i "$T/big.bp" > "$T/plain.csv"
like 'so does the report' 'outer' "$T/plain.csv"
for pack in gzip xz zstd; do
	command -v $pack > /dev/null || continue
	$pack -c < "$T/big.txt" > "$T/big.packed"
	"$BOOTPROF" report functions --format=csv "$T/big.packed" > "$T/packed.csv"
	ok "$pack: the same report" cmp "$T/plain.csv" "$T/packed.csv"
	head -c $(($(stat -c %s "$T/big.packed") / 2)) "$T/big.packed" > "$T/half"
	status 0 "$pack: half of it is read" import "$T/half" -o "$T/half.bp"
	like "$pack: and it says so" 'offset [0-9]+: compressed data ends early' "$T/err"
done
# shellcheck disable=SC2002 # a pipe it must be
cat "$T/big.txt" | import - -o "$T/pipe.bp"
"$BOOTPROF" report functions --format=csv -i "$T/pipe.bp" > "$T/pipe.csv"
ok 'standard input: the same report' cmp "$T/plain.csv" "$T/pipe.csv"
TMPDIR=$T/tmp
mkdir "$TMPDIR"
export TMPDIR
"$BOOTPROF" report functions --format=csv "$T/big.txt" > "$T/direct.csv"
ok 'directly: the same report' cmp "$T/plain.csv" "$T/direct.csv"
is 'nothing is left in TMPDIR' "$(ls "$TMPDIR")" ''
TMPDIR=$T/none status 1 'a TMPDIR that is not there' "$BOOTPROF" report "$T/big.txt"
unset TMPDIR

# Interrupted: what was read is kept.
(while cat "$T/big.txt" 2> /dev/null; do :; done) | "$BOOTPROF" import - -o "$T/stopped.bp" 2> "$T/err" &
pid=$!
sleep 2
kill -INT $pid 2> /dev/null
wait $pid
is 'interrupted: it ends well' $? 0
like 'interrupted: it says so' 'only the beginning was read' "$T/err"
ok 'interrupted: what was read can be shown' "$BOOTPROF" info -i "$T/stopped.bp" --quick

if command -v qemu-system-x86_64 > /dev/null && [ -n "${BOOTPROF_TEST_KERNEL:-}" ]; then
	timeout 40 qemu-system-x86_64 -accel tcg -M pc -m 512 -kernel "$BOOTPROF_TEST_KERNEL" -display none -nic none \
		-no-reboot -serial null -append 'console=ttyS0 panic=-1' -d exec -D "$T/exec.log" < /dev/null
	if grep -q '/ffffffff[89ab]' "$T/exec.log"; then
		ok 'a log of QEMU, with the kernel' import "$T/exec.log" --vmlinux "$BOOTPROF_TEST_KERNEL" -o "$T/exec.bp"
		"$BOOTPROF" info -i "$T/exec.bp" --quick > "$T/info"
		like 'its KASLR slide is sure' 'KASLR slide is +sure' "$T/info"
		"$BOOTPROF" report functions -n 0 -i "$T/exec.bp" > "$T/functions"
		like 'functions have names' 'start_kernel|setup_arch|mm_init' "$T/functions"
	fi
	rm -f "$T/exec.log"
else
	note 'no QEMU or no kernel to test with: its logs are not tried'
fi

if [ -d "$corpus" ]; then
	bad=0 tried=0
	for f in "$corpus"/fgraph/*.txt "$corpus"/function/*.txt "$corpus"/tracedat/guest-i*.dat \
		"$corpus"/tracedat/*lost.dat "$corpus"/qemu/*.simpletrace; do
		import "$f" -o "$T/whole.bp" || { bad=$((bad + 1)); note "$f: $(head -c 300 "$T/err")"; }
		size=$(stat -c %s "$f")
		for _ in 1 2 3; do
			head -c $((size * (RANDOM % 1000) / 1000)) "$f" > "$T/cut"
			cp "$f" "$T/bent"
			chmod u+w "$T/bent"
			for k in 1 2 3 4; do
				printf '%b' "\\x$(printf %02x $((RANDOM % 256)))" |
					dd of="$T/bent" bs=1 seek=$(((RANDOM * 32768 + RANDOM) % size / k)) conv=notrunc status=none
			done
			for g in cut bent; do
				import "$T/$g" -o "$T/$g.bp"
				s=$?
				tried=$((tried + 1))
				if [ $s -gt 1 ]; then
					bad=$((bad + 1))
					note "$f, $g: status $s: $(head -c 300 "$T/err")"
				elif [ $s -eq 0 ] && ! timeout 60 "$BOOTPROF" report functions -i "$T/$g.bp" > /dev/null; then
					bad=$((bad + 1))
					note "$f, $g: cannot be reported"
				fi
			done
		done
	done
	is "$tried damaged traces" $bad 0
else
	note "no corpus in $corpus: real traces are not tried"
fi
