#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# How a recording may end, by the guest and by force: told apart, and what was finished reads back.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3
requires_kernel
requires_bootprof

# ended NAME HOW [FILE]: the summary in FILE ($T/err), the facts and info of $T/r agree.
ended()
{
	like "$1: the summary says $2" "ended by $2" "${3:-$T/err}"
	facts "$T/r"
	like "$1: the last fact says $2" "^end .*\"$2\"$" "$T/facts"
	"$BOOTPROF" info --format=json -i "$T/r" > "$T/info"
	is "$1: info says $2" "$(json "$T/info" 'd["end"]["how"]')" "$2"
	is "$1: nothing is lost" "$(json "$T/info" 'list(d["damage"].values()) + [d["lost_records"]]')" '[false, 0, 0, 0, 0, 0]'
}

# The guest's own endings. An init that does one thing; no init at all is a panic.
for end in 'poweroff -f' 'reboot -f'; do
	printf '#!/bin/sh\n/bin/%s\n' "$end" > "$T/init"
	initrd "$T/i.img" --init "$T/init"
	linux "$T/i.img" ''
	status 0 "${end% -f}: QEMU's status 0" record -o "$T/r" -- "${qemu[@]}"
	ended "${end% -f}" "${end% -f}"
done
linux "$BOOTPROF_TEST_INITRD" 'rdinit=/nosuch panic=-1'
status 0 "panic: QEMU's status 0" record -o "$T/r" -- "${qemu[@]}"
ended panic panic
like 'panic: the summary says why' 'panic \(.*(No working init|Unable to mount root|VFS)' "$T/err"

# QEMU's status is passed on: isa-debug-exit ends QEMU with 2 * value + 1.
bare -device isa-debug-exit,iobase=0xf4,iosize=4
status 1 'isa-debug-exit: its status' record -o "$T/r" -- "${qemu[@]}"
ended isa-debug-exit exit
like "isa-debug-exit: the summary has QEMU's status" "QEMU's exit status 1" "$T/err"
is "isa-debug-exit: the recording has QEMU's status" "$(json "$T/info" 'd["end"]["status"]')" 1

# child PID: its first child. /proc is always there, procps is not.
child()
{
	local stat pid rest

	for stat in /proc/[0-9]*/stat; do
		# "12 (name of any form) S 11 ...": what follows the last bracket is the state and the parent.
		rest=$(cat "$stat" 2> /dev/null) || continue
		pid=${rest%% *} rest=${rest##*) }
		[ "$(echo "$rest" | cut -d ' ' -f 2)" != "$1" ] || { echo "$pid" && return; }
	done
	echo "no child of $1" >&2
	return 1
}

# start [OPTION...]: records a guest in the background that does not end, waits until it has booted.
# $recorder and $guest are the processes.
start()
{
	local i

	# The console of the guest before this one would be taken for its own.
	rm -f "$T/r" "$T/rec.out"
	: > "$T/rec.out"
	# A shell's background children ignore SIGINT, unlike those of a terminal.
	python3 -c '
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$BOOTPROF" record -o "$T/r" "$@" -- "${qemu[@]}" \
		< /dev/null > "$T/rec.out" 2> "$T/rec.err" &
	recorder=$!
	for ((i = 0; i < 600; i++)); do
		grep -q 'bootprof-guest: ready' "$T/rec.out" && break
		sleep 0.1
	done
	# What has been flushed by then: all up to here.
	sleep 0.5
	guest=$(child $recorder) || exit 1
}

# gone PID: within five seconds
gone()
{
	local i

	for ((i = 0; i < 50; i++)); do
		kill -0 "$1" 2> /dev/null || return 0
		[ "$(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status" 2> /dev/null)" != Z ] || return 0
		sleep 0.1
	done
	kill -9 "$1"
	return 1
}

bare -no-shutdown
for signal in INT TERM; do
	start
	kill -$signal "$recorder"
	wait "$recorder"
	is "SIG$signal: exit status 0" $? 0
	ok "SIG$signal: QEMU has ended" gone "$guest"
	ended "SIG$signal" interrupt "$T/rec.err"
done

start
kill -9 "$guest"
wait "$recorder"
is 'kill -9 of QEMU: exit status 137' $? 137
like 'kill -9 of QEMU: the summary says so' 'ended by killed, QEMU killed by signal 9' "$T/rec.err"
ended 'kill -9 of QEMU' killed "$T/rec.err"
is 'kill -9 of QEMU: the guest is in the recording' "$(json "$T/info" 'd["calls"] > 2000')" true

# Nobody is left to say how it ended. The guest is a kernel at work.
cat > "$T/init" <<'END'
#!/bin/sh
echo "bootprof-guest: ready"
while :; do
	/bin/busybox true
done
END
initrd "$T/i.img" --init "$T/init"
linux "$T/i.img" ''
start
kill -9 "$recorder"
wait "$recorder" 2> /dev/null
ok 'kill -9 of bootprof: QEMU does not survive' gone "$guest"
ok 'kill -9 of bootprof: info' "$BOOTPROF" info -i "$T/r"
like 'kill -9 of bootprof: info says that the recording is not finished' 'not finished|unfinished|never finished' "$T/out"
"$BOOTPROF" info --format=json -i "$T/r" > "$T/info"
is 'kill -9 of bootprof: no end, and nothing wrong with what is there' \
	"$(json "$T/info" '[d["end"], d["damage"]["unfinished"], d["damage"]["bad_chunks"], d["damage"]["bad_blocks"]]')" \
	'[null, true, 0, 0]'
facts "$T/r"
like 'kill -9 of bootprof: the boot is there, up to init' '^mark .*"init-exec" "/init"' "$T/facts"
like 'kill -9 of bootprof: and its console' 'console .*"bootprof-guest: ready"' "$T/facts"
ok 'kill -9 of bootprof: it can be exported' "$BOOTPROF" export --format=folded -i "$T/r"
like 'kill -9 of bootprof: with names' 'start_kernel;' "$T/out"
