#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Function entries against the guest's own ftrace: docs/truth.md says how. The guest's function tracer lists
# every call of every function while a workload runs; bootprof's entries between the moments when tracing was
# switched on and off must be as many for every function, with one vCPU and with two.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 busybox cpio gzip
requires_bootprof
kernel=${BOOTPROF_TEST_KERNEL:-$("$BOOTPROF_TOP/scripts/fetch-kernel.sh")} || skip_all 'no kernel'
qemu=${QEMU:-qemu-system-x86_64}

cat > "$T/init" <<'END_INIT'
#!/bin/sh
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2> /dev/null
mount -t tracefs tracefs /sys/kernel/tracing
out=/dev/ttyS1
t=/sys/kernel/tracing
cd $t
echo 0 > tracing_on
echo 65536 > buffer_size_kb
echo 1 > options/sym-offset
echo 1 > options/sym-addr
echo 0 > options/irq-info
echo 0 > options/print-parent
echo function > current_tracer
cd /tmp

work()
{
	i=0
	while [ $i -lt 8 ]; do
		/bin/busybox true
		i=$((i + 1))
	done
	dd if=/dev/zero of=/tmp/a bs=4096 count=64 2> /dev/null
	dd if=/tmp/a of=/tmp/b bs=512 count=100 2> /dev/null
	mkdir /tmp/d
	echo one > /tmp/d/one
	cat /tmp/d/one /proc/meminfo /proc/interrupts > /dev/null
	busybox rm -r /tmp/d
	sleep 0.05
	(
		i=0
		while [ $i -lt 300 ]; do
			i=$((i + 1))
		done
	) &
	busybox seq 1 50 | sort -r | wc -l > /tmp/count
	wait
	sleep 0.1
}

# Once before, so that the window does not have all first times; then a pause, so that the other vCPU is idle
# when tracing is switched.
work
sleep 0.2
echo 1 > $t/tracing_on
work
echo 0 > $t/tracing_on

for c in $t/per_cpu/cpu*; do
	while read -r key value rest; do
		echo "stat ${c##*/} $key $value $rest"
	done < $c/stats
done > $out
busybox awk '/^#/ { next } { c[$(NF-1) " " $NF]++ } END { for (k in c) print "hit", c[k], k }' \
	$t/trace > /tmp/hits
cat /tmp/hits > $out
sed 's/^/traceable /' $t/available_filter_functions > $out
echo "end" > $out
poweroff -f
END_INIT

# Guest and bootprof, joined by address. Prints what differs, then "compared N equal N calls N tracer N".
cat > "$T/compare.awk" <<'END_AWK'
# The low 28 bits are enough, the kernel's text is smaller; some awks lose digits of array indices above 2^31.
function hex(s,    i, v) {
	s = substr(s, length(s) > 7 ? length(s) - 6 : 1)
	v = 0
	for (i = 1; i <= length(s); i++)
		v = v * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1
	return v
}
FNR == NR && $1 == "traceable" { traceable[$2] = 1; next }
FNR == NR && $1 == "hit" {
	# name+0x4/0x80 <ffffffff81000004>: the traced instruction need not be the first one.
	split($3, part, /[+\/]/)
	gsub(/[<>]/, "", $4)
	at = hex($4) - hex(substr(part[2], 3))
	guest[at] += $2
	name[at] = part[1]
	next
}
FNR == NR || /^#/ { next }
{
	at = hex($4)
	ours[at] = $1 - $2
	own[at] = $2
	fentry[at] = $3
	if (!(at in name))
		name[at] = $5
}
END {
	for (at in guest) {
		compared++
		calls += guest[at]
		if (guest[at] == ours[at])
			equal++
		else
			printf "%s: ftrace %d, bootprof %d, by the tracer itself %d\n", name[at], guest[at],
				ours[at], own[at]
	}
	for (at in ours) {
		if (!fentry[at] || !(name[at] in traceable))
			continue
		tracer += own[at]
		if ((at in guest) || !ours[at])
			continue
		compared++
		printf "%s: ftrace 0, bootprof %d, by the tracer itself %d\n", name[at], ours[at], own[at]
	}
	printf "compared %d equal %d calls %d tracer %d\n", compared, equal, calls, tracer
}
END_AWK

build_tool()
{
	local lib=${BOOTPROF_LIB:-$(dirname "$(readlink -f "$BOOTPROF")")/libbootprof.a}

	(cd "$BOOTPROF_TOP" && "${CC:-gcc}" -std=gnu11 -O2 -g -Wall -Wextra -Werror -I. -o "$T/$1" \
		"tests/truth/$1.c" "$lib" \
		$(pkg-config --cflags --libs libelf libdw libzstd liblzma liblz4 zlib) -lm -pthread)
}

# window NAME VCPUS
window()
{
	local name=$1 vcpus=$2 compared equal calls tracer entries

	rm -f "$T"/ft.bp* "$T/guest"
	ok "$name: record" within 400 "$BOOTPROF" record -q -o "$T/ft.bp" --no-user -- "$qemu" -M pc -m 640 \
		-smp "$vcpus" -kernel "$kernel" -initrd "$T/initrd" -append 'console=ttyS0 nokaslr panic=-1' \
		-display none -monitor none -serial "file:$T/console" -serial "file:$T/guest.raw" \
		-nic none -no-reboot || return
	tr -d '\r' < "$T/guest.raw" > "$T/guest"
	like "$name: the guest came to its end" '^end$' "$T/guest" || return
	is "$name: ftrace lost nothing" \
		"$(awk '$1 == "stat" && /overrun|dropped/ && $NF != 0' "$T/guest")" '' || return
	ok "$name: bootprof's entries in the window" within 300 "$T/window_counts" "$T/ft.bp" "$kernel" \
		ring_buffer_record_on,ring_buffer_record_enable ring_buffer_record_off \
		function_trace_call || return
	cp "$T/out" "$T/ours"
	note "$(sed -n 1p "$T/ours")"
	awk -f "$T/compare.awk" "$T/guest" "$T/ours" > "$T/result"
	read -r _ compared _ equal _ calls _ tracer < <(tail -n 1 "$T/result")
	entries=$(awk '$1 == "stat" && $3 == "entries:" { n += $4 } END { print n }' "$T/guest")
	note "$name: $compared functions compared, $equal equal, $((compared - equal)) differ;" \
		"$calls calls in the guest's trace," \
		"$tracer entries of traceable functions by the tracer itself"
	is "$name: every entry in the guest's buffer was counted" "$calls" "$entries"
	between "$name: enough was called" "$calls" 50000 100000000
	between "$name: enough functions" "$compared" 500 100000
	is "$name: bootprof counts as ftrace does" "$(sed '$d' "$T/result" | head -n 40)" ''
}

ok 'build window_counts' build_tool window_counts || exit
ok 'build the initrd' "$BOOTPROF_TOP/scripts/make-initrd.sh" "$T/initrd" --init "$T/init" || exit
window 'one vCPU' 1
window 'two vCPUs' 2
