#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A recording ends at a ready marker or after --timeout: exit status, summary, the mark in the recording, and
# nothing recorded after it.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3 gcc
requires_kernel
requires_bootprof

# marker NAME MARK OPTION...: a recording of ${qemu[@]} that ends at MARK (extended regular expression).
marker()
{
	local name=$1 mark=$2 ready insns

	shift 2
	rm -f "$T/r"
	status 0 "$name: exit status 0" record -o "$T/r" "$@" -- "${qemu[@]}" || return
	like "$name: the summary says so" "ended by marker \\($mark" "$T/err"
	facts "$T/r"
	like "$name: the recording ends so" '^end .*"marker"$' "$T/facts"
	like "$name: the ready mark is in the recording" "^mark .* \"ready\" \"$mark" "$T/facts"
	ready=$(sed -nE 's/^mark time=([0-9]+) .*"ready".*/\1/p' "$T/facts")
	last "$T/r"
	between "$name: nothing is recorded after the mark" "$last_ns" 1 "$ready"
	"$BOOTPROF" info --format=json -i "$T/r" > "$T/info"
	insns=$(json "$T/info" 'd["insns"]')
	# A port is looked at every few milliseconds, from outside of the vCPU.
	between "$name: the mark has the instructions of all that is recorded" \
		"$(sed -nE 's/^mark .* v0=([0-9]+) "ready".*/\1/p' "$T/facts")" $((insns - insns / 100)) "$insns"
	is "$name: the recording is complete" "$(json "$T/info" '[d["end"]["how"], d["damage"]["unfinished"]]')" \
		'["marker", false]'
}

# The console of the guest: at the first line that it prints, long before the end.
linux "$BOOTPROF_TEST_INITRD" ''
marker '--until-console' '.*\[ +0\.0+\] Linux version' --until-console 'Linux version [0-9]+'
lacks '--until-console: the console ends there, too' 'bootprof-guest: ready' "$T/out"

marker '--until-function' 'start_kernel' --until-function start_kernel
is '--until-function: its entry is the last event' "$last_name" '"start_kernel"'
status 2 '--until-function: a function that the kernel does not have is an error' \
	record -o "$T/none" --until-function no_such_function -- "${qemu[@]}"
one_line '--until-function: which is named' 'no_such_function'

marker '--until-exec' '/usr/bin/env' --until-exec /usr/bin/env

# A port: an init that writes 1 and 7 to port 0xf4, then ends (panic).
cat > "$T/port.S" <<'END'
	.globl _start
_start:	movl $173, %eax		/* ioperm(0xf4, 1, 1) */
	movl $0xf4, %edi
	movl $1, %esi
	movl $1, %edx
	syscall
	movb $1, %al
	outb %al, $0xf4
	movb $7, %al
	outb %al, $0xf4
	movl $60, %eax
	xorl %edi, %edi
	syscall
	.section .note.GNU-stack, "", @progbits
END
gcc -nostdlib -static -o "$T/port" "$T/port.S" || fail 'the init that writes to a port compiles'
initrd "$T/port.img" --init "$T/port"
linux "$T/port.img" 'panic=-1'
marker '--until-port' 'port 0xf4=7' --until-port 0xf4=7

# The same port with the device that ends QEMU: its status is the marker, and is not passed on.
bare -device isa-debug-exit,iobase=0xf4,iosize=4
marker '--until-port with isa-debug-exit' 'port 0xf4=0' --until-port 0xf4=0
status 1 'another value of isa-debug-exit is no marker' record -o "$T/r" --until-port 0xf4=3 -- "${qemu[@]}"
like 'and QEMU ends with its status' "ended by exit, QEMU's exit status 1" "$T/err"

# Time: this guest stops, and QEMU does not end by itself.
bare -no-shutdown
status 0 '--timeout: exit status 0' record -o "$T/r" --timeout 700ms -- "${qemu[@]}"
like '--timeout: the summary says so' 'ended by timeout' "$T/err"
facts "$T/r"
like '--timeout: the recording ends so' '^end .*"timeout"$' "$T/facts"
between '--timeout: it ends when it should' "$(sed -nE 's/^end time=([0-9]+) .*/\1/p' "$T/facts")" 700000000 5000000000
status 124 '--timeout before the marker: exit status 124' \
	record -o "$T/r" --timeout 700ms --until-console 'no such line' -- "${qemu[@]}"
facts "$T/r"
like '--timeout before the marker: the recording ends so' '^end .*"timeout"$' "$T/facts"
lacks '--timeout before the marker: no ready mark' '"ready"' "$T/facts"
