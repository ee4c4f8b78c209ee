#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# bootprof tui as a person uses it: in tmux, keys in, screens out. What the terminal shows must be what --print
# says (tests/golden/tui has those screens), in every view, at several sizes, on several kinds of terminals.
# shellcheck source=tests/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
requires tmux
requires_bootprof
export LC_ALL=C.UTF-8 TMUX_TMPDIR=$T
unset NO_COLOR TMUX

"$BOOTPROF" dump --from-text "$BOOTPROF_TOP/tests/golden/tui/trace.txt" -o "$T/boot.bootprof" || exit 1

# A server for each terminal: one that ends may still be there for a moment.
servers=0
tm()
{
	tmux -L "bootprof$servers" -f /dev/null "$@"
}
trap 'tm kill-server 2> /dev/null; bp_end' EXIT

# start TERM SIZE [VARIABLE=VALUE...] [-- OPTION...]: the program in a new terminal of that size
start()
{
	local term=$1 size=$2 env=()

	shift 2
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		env+=("$1")
		shift
	done
	[ $# -eq 0 ] || shift
	tm kill-server 2> /dev/null
	servers=$((servers + 1))
	# A shell that stays: what the program leaves behind can be seen.
	tm new-session -d -x "${size%x*}" -y "${size#*x}" \
		"env TERM=$term ${env[*]} $BOOTPROF tui $T/boot.bootprof $*; echo status \$?; sleep 60"
	tm set-option -g window-size manual
}

screen()
{
	tm capture-pane -p | sed 's/ *$//'
}

# shows NAME SIZE KEYS [OPTION...]: within ten seconds the screen is that of --print
shows()
{
	local name=$1 size=$2 keys=$3 i

	shift 3
	"$BOOTPROF" tui "$T/boot.bootprof" --print="$size" --keys="$keys" "$@" | sed 's/ *$//' > "$T/want"
	for ((i = 0; i < 100; i++)); do
		screen > "$T/got"
		if cmp -s "$T/want" "$T/got"; then
			pass "$name"
			return
		fi
		sleep 0.1
	done
	fail "$name" "$(diff "$T/want" "$T/got" | head -20)"
}

# appears NAME REGEX: within ten seconds a line of the screen matches
appears()
{
	local i

	for ((i = 0; i < 100; i++)); do
		screen > "$T/got"
		if grep -qE -- "$2" "$T/got"; then
			pass "$1"
			return
		fi
		sleep 0.1
	done
	fail "$1" "no line matches $2:" "$(cat "$T/got")"
}

ok 'the session in docs/ can be written' "$BOOTPROF_TOP/scripts/tui-session.sh" "$T/session.md"
ok 'docs/tui-session.md is what the program shows' diff "$BOOTPROF_TOP/docs/tui-session.md" "$T/session.md"

for size in 80x24 100x30 200x60; do
	for term in xterm-256color vt100; do
		color=no
		[ $term = vt100 ] || color=yes
		start $term $size
		for key in 1 2 3 4 5 6 7 8 9 0; do
			tm send-keys "$key"
			shows "$term, $size, screen $key" $size "$(echo 1234567890 | sed "s/$key.*/$key/; s/./& /g")" --color=$color
		done
		tm send-keys q
		appears "$term, $size: the terminal is given back" '^status 0'
	done
done
for term in screen linux tmux-256color; do
	start $term 100x30
	color=yes
	tm send-keys w w
	shows "$term: zoomed" 100x30 'w w' --color=$color
done
start xterm-256color 40x10
shows 'as small as it gets' 40x10 '' --color=yes
tm resize-window -x 39 -y 10
appears 'too small: it says so' '^bootprof needs at least 40x10'
tm resize-window -x 100 -y 30
shows 'and grows again' 100x30 '' --color=yes
tm send-keys 'w' 'd'
tm resize-window -x 80 -y 24
appears 'resized: the timeline goes on' 'time .*0\.0'

start xterm-256color 100x30 -- --ascii
shows 'ASCII' 100x30 '' --color=yes --ascii
start xterm-256color 100x30 LC_ALL=C
shows 'a locale without UTF-8' 100x30 '' --color=yes --ascii
start xterm-256color 100x30 NO_COLOR=1
shows 'NO_COLOR' 100x30 ''
tm capture-pane -p -e > "$T/colors"
lacks 'NO_COLOR: no colours' $'\033\\[[0-9;]*[34][0-8]' "$T/colors"
start xterm-256color 100x30 NO_COLOR=1 -- --color=yes
shows '--color=yes is stronger' 100x30 '' --color=yes
tm capture-pane -p -e > "$T/colors"
like '--color=yes: colours' $'\033\\[[0-9;]*[34]8' "$T/colors"

# A way through it: search, next match, the table and back, the range.
start xterm-256color 100x30
tm send-keys / ; tm send-keys -l 'fact' ; tm send-keys Enter
appears 'search: the first call' 'fact at 0\.04.* on vCPU 0'
tm send-keys n n n
appears 'search: around the end' 'from the start again'
tm send-keys Enter
appears 'to the table, at the function' '^ 8\.000 ms'
tm send-keys Enter
appears 'and back' '^\[1 Timeline\]'
tm send-keys g ; tm send-keys -l 'user' ; tm send-keys Enter A
tm send-keys End B 3
appears 'figures of a range' 'A\.\.B 38\.00 ms|A\.\.B 37\.99 ms'
tm send-keys : ; tm send-keys -l 'range-cl' ; tm send-keys Enter 1
appears 'a command by name' '^\[1 Timeline\]'
tm send-keys c
appears 'the other clock' 'insns'
tm send-keys F1
appears 'help' 'Keys: arrows scroll'
tm send-keys Escape
tm send-keys 9
appears 'what the guest wrote is harmless' 'plain, \\x1b\[31mred\\x07, \\xe2\\x80\\xaereversed\\xe2\\x80\\xac, 漢字, broken \\xff'
tm send-keys q
appears 'ends' '^status 0'

# The mouse: a click on a tab, on a track; the wheel; a drag. As xterm reports them (SGR).
mouse()
{
	tm send-keys -H $(printf '\033[<%d;%d;%d%s' "$1" "$2" "$3" "${4:-M}" | od -An -tx1 -v)
}
# click X Y: press and release reach the program in one read
click()
{
	tm send-keys -H $(printf '\033[<0;%d;%dM\033[<0;%d;%dm' "$1" "$2" "$1" "$2" | od -An -tx1 -v)
}
start xterm-256color 100x30
appears 'started' '^\[1 Timeline\]'
mouse 0 27 1 ; mouse 0 27 1 m
appears 'a click on a tab' '\[3 Functions\]'
click 5 1
appears 'press and release at once' '^\[1 Timeline\]'
mouse 0 40 9 ; mouse 0 40 9 m
appears 'a click selects the track' '^> stack  1'
mouse 16 40 9
mouse 80 40 9
mouse 65 40 9
mouse 0 30 9 ; mouse 32 40 9 ; mouse 32 60 9 ; mouse 0 60 9 m
appears 'a drag is a range' 'A\.\.B'
tm send-keys F
appears 'everything is shown' '^ all [^[]*$'
mouse 0 25 10 ; mouse 0 25 10 m ; mouse 0 25 10 ; mouse 0 25 10 m
appears 'a double click makes the slice fill the screen' '^ all .*\['
tm send-keys q
appears 'ends' '^status 0'

# While it runs: the guest of the tests boots, the screen follows.
if command -v qemu-system-x86_64 > /dev/null && [ -e "$BOOTPROF_GUEST/guest.elf" ]; then
	tm kill-server 2> /dev/null
	servers=$((servers + 1))
	bare
	tm new-session -d -x 100 -y 30 "env TERM=screen-256color $BOOTPROF record --tui --timeout 60 -o $T/live.bootprof \
		-- ${qemu[*]}; echo status \$?; sleep 60"
	appears 'live: the boot is shown' '^-vCPU 0'
	appears 'live: to its end' ' qemu-exit|phases .*qe'
	for ((i = 0; i < 300; i++)); do
		screen | grep -q ' recording ' || break
		sleep 0.1
	done
	screen > "$T/got"
	lacks 'live: it says when it is over' ' recording ' "$T/got"
	tm send-keys q
	appears 'live: what the recorder said' 'live.bootprof: .* instructions'
	appears 'live: the status is the recorder'"'"'s' '^status'
	ok 'live: the recording is whole' "$BOOTPROF" report phases -i "$T/live.bootprof"
else
	skip 'live' 'no QEMU, or no test guest'
fi
status 2 'live without a terminal' "$BOOTPROF" record --tui -o "$T/x" -- qemu-system-x86_64

status 1 'not a terminal' "$BOOTPROF" tui "$T/boot.bootprof" < /dev/null
one_line 'not a terminal: one line' 'not a terminal'
status 1 'no such file' "$BOOTPROF" tui "$T/none"
one_line 'no such file: one line' 'none'
status 2 'no such size' "$BOOTPROF" tui "$T/boot.bootprof" --print=0x0
status 2 'two recordings' "$BOOTPROF" tui "$T/boot.bootprof" "$T/boot.bootprof"
start nonsense 100x30
appears 'an unknown terminal: one line' 'bootprof tui: the terminal "nonsense" is not known'
bp_finished=0
exit 0
