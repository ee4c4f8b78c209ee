# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# For tests written in bash: source it first. Results are TAP on standard output; the plan comes at the end, so
# that a script which dies half-way is a failure.
#
#   requires qemu-system-x86_64 gdb   skip everything when a program is missing
#   requires_kernel                   skip everything without $BOOTPROF_TEST_KERNEL and $BOOTPROF_TEST_INITRD
#   requires_report                   skip everything while there is no bootprof report
#   ok NAME COMMAND...                the command succeeds
#   status N NAME COMMAND...          the command ends with status N; its outputs are in $T/out and $T/err
#   is NAME GOT WANTED                two texts are the same
#   like NAME REGEX FILE              a line of the file matches the extended regular expression
#   between NAME VALUE LOW HIGH       a number lies within bounds (both included)
#   lacks NAME REGEX FILE             none does
#   within SECONDS COMMAND...         runs it, kills it after SECONDS
#   one_line NAME [REGEX]             $T/err is one line, "bootprof...", and matches
#
#   linux INITRD APPEND [OPTION...]   sets the array $qemu to a command line that boots the test kernel
#   bare [OPTION...]                  sets it to one that boots the bare-metal guest
#   initrd OUT OPTION...              scripts/make-initrd.sh
#   record [OPTION...] -- QEMU...     bootprof record without input, killed after two minutes
#   facts FILE                        $T/facts: the facts of a recording, one a line
#   last FILE                         $last_ns: the time of its last event, $last_name: the function entered last
#   json FILE EXPRESSION              a Python expression over the JSON document d
#   note TEXT                         a comment
#
# $T is a directory of the test's own, removed at the end. $BOOTPROF is the program, $BOOTPROF_TOP the root of the tree,
# $BOOTPROF_GUEST the directory with the built test guests.
set -u
export LC_ALL=C

bp_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${BOOTPROF_TOP:=$bp_top}" "${BOOTPROF:=$bp_top/build/bootprof}" "${BOOTPROF_GUEST:=$bp_top/build/guest}"
export BOOTPROF BOOTPROF_TOP BOOTPROF_GUEST

T=$(mktemp -d "${TMPDIR:-/tmp}/bootprof-e2e.XXXXXX") || exit 1
bp_count=0 bp_failed=0 bp_finished=0
# Set by linux and bare, and by last.
qemu=() last_ns='' last_name=''

bp_end()
{
	local status=$?

	trap - EXIT
	if [ $bp_finished -eq 0 ]; then
		if [ $status -ne 0 ] && [ $bp_failed -eq 0 ]; then
			fail "the script ended with status $status"
		fi
		echo "1..$bp_count"
	fi
	# Whatever was started and is still there.
	jobs -p | xargs -r kill 2> /dev/null
	rm -rf "$T"
	[ $bp_failed -eq 0 ] || exit 1
	exit $status
}
trap bp_end EXIT
trap 'exit 130' INT TERM

pass()
{
	bp_count=$((bp_count + 1))
	echo "ok $bp_count - $1"
}

# fail NAME [DETAIL...]
fail()
{
	bp_count=$((bp_count + 1)) bp_failed=$((bp_failed + 1))
	echo "not ok $bp_count - $1"
	shift
	[ $# -eq 0 ] || printf '%s\n' "$@" | sed 's/^/# /'
}

# skip NAME REASON
skip()
{
	bp_count=$((bp_count + 1))
	echo "ok $bp_count - $1 # SKIP $2"
}

skip_all()
{
	bp_finished=1
	echo "1..1"
	echo "ok 1 - ${0##*/} # SKIP $1"
	exit 77
}

note()
{
	printf '%s\n' "$*" | sed 's/^/# /'
}

requires()
{
	local program

	for program; do
		command -v "$program" > /dev/null || skip_all "$program is not installed"
	done
}

requires_kernel()
{
	[ -n "${BOOTPROF_TEST_KERNEL:-}" ] || skip_all 'no kernel (BOOTPROF_TEST_KERNEL)'
	[ -n "${BOOTPROF_TEST_INITRD:-}" ] || skip_all 'no initrd (BOOTPROF_TEST_INITRD)'
}

requires_bootprof()
{
	[ -x "$BOOTPROF" ] || skip_all "$BOOTPROF is not built"
}

requires_report()
{
	requires_bootprof
	"$BOOTPROF" report --help > /dev/null 2>&1 || skip_all 'there is no bootprof report'
}

within()
{
	local seconds=$1

	shift
	timeout -k 5 "$seconds" "$@"
}

ok()
{
	local name=$1

	shift
	if "$@" > "$T/out" 2> "$T/err"; then
		pass "$name"
	else
		fail "$name" "status $?: $*" "$(tail -n 20 "$T/out" "$T/err")"
		return 1
	fi
}

status()
{
	local want=$1 name=$2 got

	shift 2
	"$@" > "$T/out" 2> "$T/err"
	got=$?
	if [ $got -eq "$want" ]; then
		pass "$name"
	else
		fail "$name" "status $got, not $want: $*" "$(tail -n 20 "$T/out" "$T/err")"
		return 1
	fi
}

is()
{
	if [ "$2" = "$3" ]; then
		pass "$1"
	else
		fail "$1" "got:    $2" "wanted: $3"
		return 1
	fi
}

like()
{
	if grep -qE -- "$2" "$3"; then
		pass "$1"
	else
		fail "$1" "no line matches $2 in:" "$(tail -n 20 "$3" | cut -c 1-300)"
		return 1
	fi
}

between()
{
	if awk -v v="$2" -v low="$3" -v high="$4" 'BEGIN { exit !(v + 0 == v && v >= low && v <= high) }'; then
		pass "$1"
	else
		fail "$1" "$2 is not between $3 and $4"
		return 1
	fi
}

lacks()
{
	if grep -qE -- "$2" "$3"; then
		fail "$1" "a line matches $2:" "$(grep -aE -- "$2" "$3" | head -n 5 | cat -v)"
		return 1
	else
		pass "$1"
	fi
}

one_line()
{
	# QEMU itself says when it was asked to end.
	grep -v ': terminating on signal' "$T/err" > "$T/line"
	if [ "$(wc -l < "$T/line")" -eq 1 ] && grep -q '^bootprof' "$T/line" && grep -qE -- "${2:-.}" "$T/line"; then
		pass "$1"
	else
		fail "$1" "not one line of bootprof's that matches ${2:-.}:" "$(tail -n 20 "$T/line")"
		return 1
	fi
}

linux()
{
	# No network card: its option ROM costs time and tells nothing.
	qemu=(qemu-system-x86_64 -M pc -m 256 -kernel "$BOOTPROF_TEST_KERNEL" -initrd "$1" -append "console=ttyS0 $2"
		-nographic -nic none -no-reboot "${@:3}")
}

bare()
{
	qemu=(qemu-system-x86_64 -M pc -m 64 -kernel "$BOOTPROF_GUEST/guest.elf" -display none -serial stdio
		-monitor none -nic none -no-reboot "$@")
}

initrd()
{
	"$BOOTPROF_TOP/scripts/make-initrd.sh" "$@"
}

record()
{
	within 120 "$BOOTPROF" record "$@" < /dev/null
}

# Facts come first in a dump; a whole boot has ten million lines of events behind them.
facts()
{
	"$BOOTPROF" dump -i "$1" 2> /dev/null | sed -n '/^block/q; s/^fact //p' > "$T/facts"
}

last()
{
	# shellcheck disable=SC2034 # for the scripts
	read -r last_ns last_name < <("$BOOTPROF" dump -i "$1" | awk '
		/^ (call|jump)/ { t += $3; id = $2; next }
		/^ (ret|tick|irq|syscall)/ { t += $3; next }
		/^func / { name[$2] = $5 }
		/^(run|end)/ {
			if (t > last) last = t
			t = 0
			for (i = 2; i <= NF; i++)
				if (substr($i, 1, 5) == "time=") t = substr($i, 6)
		}
		END { printf "%.0f %s\n", last, name[id] }')
}

json()
{
	python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
r = eval(sys.argv[2])
print(r if isinstance(r, str) else json.dumps(r))' "$1" "$2"
}
