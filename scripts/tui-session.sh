#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Writes docs/tui-session.md: a session of bootprof tui as screens of text. With an argument: to that file, for the
# test that compares them.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${BOOTPROF:=build/bootprof}"
export LC_ALL=C.UTF-8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$BOOTPROF" dump --from-text tests/golden/tui/trace.txt -o "$work/boot.bootprof"
"$BOOTPROF" dump --from-text tests/golden/tui-waits/trace.txt -o "$work/waits.bootprof"

# step TEXT KEYS [RECORDING]: what one does, and the screen after all keys so far
keys=
step()
{
	keys="$keys $2"
	printf '%s\n\n' "$1"
	"$BOOTPROF" tui "$work/${3:-boot.bootprof}" --print=100x26 --keys="$keys" | sed 's/^/    /; s/ *$//'
	printf '\n'
}

{
	cat <<'END'
# A session of bootprof tui

Screens of `bootprof tui`, of the small made-up recording of the tests, written by scripts/tui-session.sh; a test
compares them with what the program shows. A terminal with colours fills the bars with the colour of their kind instead
of lines.

END
	step 'The whole boot. One function name is one stretch of time; a single character is a column, the fuller the
busier.' ''
	step 'Where is `acpi_init` called first? `g`, its name, Enter. The cursor is on its slice, its callers are below.' \
		'g "acpi_init" Enter'
	step '`f`: that slice fills the screen. An interrupt is in it.' 'f'
	step '`}`: its longest call; twice more: what the interrupt did.' '} } }'
	step '`{` goes back to the caller, `r` makes the range A to B of it, `2` shows where the time of that range went.' \
		'{ { r 2'
	step '`3`: the same range as a table. `>` sorts by the next column.' '3 > >'
	step '`X`: the whole recording again. `/` shows only rows with a text.' 'X / "sys" Enter'
	step 'Down, and Enter: the next call of that function on the timeline.' 'Down Enter'
	step '`c`: against instructions instead of time.' 'F c'
	step '`5`: the phases. Enter on one shows it on the timeline.' 'c 5'
	keys=
	step 'A recording with waits (`bootprof record --waits`): below a vCPU stands why its thread in QEMU did not run. The
lock that it waited for was held by the main loop, which was preempted.' '2*Down' waits.bootprof
	step '`7`: the lock, and who held it.' 'Left 7' waits.bootprof
	step '`F1`: the keys of a screen.' '1 F1' waits.bootprof
} > "${1:-docs/tui-session.md}"
