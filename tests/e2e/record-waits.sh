#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# record --waits on real QEMUs: what it counts against the kernel's own text of the same events, a holder that is
# planted, an iothread that makes the difference, KVM, and every way it may end.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3 setpriv
requires_bootprof
requires_report
requires_kernel
tracing=/sys/kernel/tracing
[ "$(id -u)" -eq 0 ] || skip_all 'not root: only root may make instances in tracefs'
[ -d $tracing/instances ] || mount -t tracefs nodev $tracing 2> /dev/null
[ -d $tracing/instances ] || skip_all "no tracefs at $tracing"
[ -d $tracing/events/syscalls/sys_enter_futex ] || skip_all 'no events of system calls in this kernel'
[ "$(stat -L -c %i /proc/self/ns/pid)" = 4026531836 ] || skip_all 'not in the initial PID namespace'

sleep 300 &
asleep=$!
"$BOOTPROF" record -q --waits --futex=sleeping --pid $asleep --duration 100ms -o "$T/none" 2> "$T/err" ||
	skip_all "no BPF programs: $(cat "$T/err")"
# Without the right to load them, all futex calls are traced instead, and the recording says so.
without=(setpriv --bounding-set=-sys_admin,-bpf,-perfmon "$BOOTPROF" record --waits --pid $asleep --duration 100ms)
status 0 'without BPF: status 0' "${without[@]}" -o "$T/a"
one_line 'without BPF: so does the summary' 'all futex calls.*no permission'
"$BOOTPROF" info -i "$T/a" > "$T/info"
like 'without BPF: the recording says so' 'waits_futex +all calls of futex\(2\): BPF: .*no permission' "$T/info"
status 1 'without BPF: --futex=sleeping is refused' "${without[@]}" --futex=sleeping -o "$T/none"
one_line 'without BPF: one line' 'BPF.*no permission.*CAP_BPF'
kill $asleep
rm -f "$T/none"

# Without permission: one line that says what to do.
cp "$BOOTPROF" "$T/bp"
chmod 755 "$T"
status 1 'no permission' setpriv --reuid=65534 --regid=65534 --clear-groups "$T/bp" record --waits -o /dev/null/x --pid $$
one_line 'no permission: one line that says what to do' 'no permission for tracefs.*root'
chmod 700 "$T"
status 1 'in a container' unshare --pid --fork "$BOOTPROF" record --waits -o "$T/none" --pid 1
one_line 'in a container: one line that says what to do' 'PID namespace.*outside'
status 2 'wrong usage: --pid alone' "$BOOTPROF" record --pid $$
status 2 'wrong usage: --pid and a command' "$BOOTPROF" record --waits --pid $$ -- true
status 2 'wrong usage: --futex alone' "$BOOTPROF" record --futex=all -- true
status 2 'wrong usage: --futex of nothing known' "$BOOTPROF" record --waits --futex=most --pid $$
status 2 'wrong usage: not a pid' "$BOOTPROF" record --waits --pid 0
cat > "$T/threads.py" << 'END'
import threading, time
t = threading.Thread(target=time.sleep, args=(100,), daemon=True)
t.start()
print(t.native_id, flush=True)
time.sleep(100)
END
python3 "$T/threads.py" > "$T/tid" &
asleep=$!
for ((i = 0; i < 100; i++)); do
	[ ! -s "$T/tid" ] || break
	sleep 0.1
done
status 1 'the number of a thread' "$BOOTPROF" record --waits -o "$T/none" --pid "$(cat "$T/tid")"
one_line 'the number of a thread: one line that names the process' "a thread of process $asleep;"
kill $asleep
status 2 'wrong usage: --pid and --tui' "$BOOTPROF" record --waits --pid $$ --tui
status 1 'no such process' "$BOOTPROF" record --waits -o "$T/none" --pid 4194300
one_line 'no such process: one line' 'No such process'
ok 'no such process: no recording' test ! -e "$T/none"

cat > "$T/init" <<'END'
#!/bin/sh
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2> /dev/null
while read -r module; do
	insmod "/lib/modules/$module.ko"
done < /etc/modules
for disk in vda vdb vdc vdd; do
	(while :; do dd if=/dev/$disk of=/dev/null bs=4096 count=3000 iflag=direct 2> /dev/null; done) &
done
echo "bootprof-guest: ready"
sleep 3600
END
initrd "$T/i.img" --modules --init "$T/init"
truncate -s 16M "$T/disk"
mkfifo "$T/mon" "$T/block"
exec 3<> "$T/mon"

# guest IOTHREAD: four dd loops on four disks; $guest is QEMU once they run.
guest()
{
	local i disks=() io=

	[ "$1" -eq 0 ] || disks=(-object iothread,id=io0) io=,iothread=io0
	for i in 0 1 2 3; do
		disks+=(-drive "if=none,id=d$i,file=$T/disk,format=raw,file.locking=off,readonly=on"
			-device "virtio-blk-pci,drive=d$i$io")
	done
	: > "$T/con"
	timeout -k 5 200 qemu-system-x86_64 -name guest,debug-threads=on -accel tcg,thread=multi -M pc -m 256 -smp 4 \
		-kernel "$BOOTPROF_TEST_KERNEL" -initrd "$T/i.img" -append 'console=ttyS0 quiet' -display none -nic none \
		-serial "file:$T/con" -monitor stdio "${disks[@]}" < "$T/mon" > "$T/monitor" 2>&1 &
	limit=$!
	for ((i = 0; i < 600; i++)); do
		grep -aq 'bootprof-guest: ready' "$T/con" && break
		sleep 0.1
	done
	guest=$(cat "/proc/$limit/task/$limit/children")
	guest=${guest%% *}
	sleep 1
}

# leftovers: what of ours is in tracefs; recorders that others run at the same time are none of our business
leftovers()
{
	local name pid parent

	{
		find $tracing/instances -maxdepth 1 -name 'bootprof_*' -printf '%f\n'
		grep -o 'bootprof_[0-9_]*' $tracing/uprobe_events
	} | while read -r name; do
		pid=${name#bootprof_}
		parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/${pid%%_*}/status" 2> /dev/null)
		[ -n "$parent" ] && [ "$parent" -ne $$ ] || echo "$name"
	done
}

# recording PID [never]: waits until that recorder gets events, and has looked at QEMU's binary
recording()
{
	local i

	for ((i = 0; i < 200; i++)); do
		grep -qs 1 $tracing/instances/bootprof_"$1"_*/tracing_on &&
			{ [ "${2:-}" = never ] || grep -q "bootprof_$1_" $tracing/uprobe_events; } && break
		sleep 0.05
	done
	sleep 0.2
}

# rows FILE VIEW TABLE: rows of a table as JSON lists of objects
rows()
{
	"$BOOTPROF" report "$2" -i "$1" -n 0 --format=json "${@:4}" | python3 -c '
import json, sys
print(json.dumps(json.load(sys.stdin)[sys.argv[1]]))' "$3"
}

guest 0
own=$tracing/instances/bpe2e_$$
trap 'status=$?; kill $limit 2> /dev/null; [ ! -d $own ] || rmdir $own; [ ! -d $own.2 ] || rmdir $own.2; (exit $status); bp_end' EXIT

# ---- the kernel's own text of the same events ----

# text_of DIR: that of an instance, from when it is turned on
text_of()
{
	mkdir "$1"
	echo 0 > "$1/tracing_on"
	echo 65536 > "$1/buffer_size_kb"
	echo mono > "$1/trace_clock"
	for event in sched/sched_switch sched/sched_waking syscalls/sys_enter_futex syscalls/sys_exit_futex; do
		echo 1 > "$1/events/$event/enable"
	done
	for task in /proc/"$guest"/task/*; do
		echo "${task##*/}" >> "$1/set_event_pid"
	done
}

# Who traces an event first has the earlier time for it, by what the work of each takes: an instance comes before the first
# recorder, another between the two.
text_of "$own"
"$BOOTPROF" record -q --waits --futex=all --lock-sites=never --pid "$guest" --duration 60 -o "$T/all" &
all=$!
recording $all never
text_of "$own.2"
"$BOOTPROF" record --waits --futex=sleeping --pid "$guest" --duration 60 -o "$T/a" 2> "$T/err" &
recording $!
echo 1 > "$own.2/tracing_on"
echo 1 > "$own/tracing_on"
sleep 1
echo 0 > "$own/tracing_on"
echo 0 > "$own.2/tracing_on"
kill -INT $! $all
wait $!
is 'a running QEMU: status 0' $? 0
wait $all
is 'all futex calls: status 0' $? 0
one_line 'a running QEMU: the summary is one line' 'waits: .* records of [0-9]+ threads; ended by interrupt'
cat "$own/trace" > "$T/text"
cat "$own.2/trace" > "$T/text.2"
like 'the text is complete' 'entries-in-buffer/entries-written: ([0-9]+)/\1 ' "$T/text"
like 'the second text is complete' 'entries-in-buffer/entries-written: ([0-9]+)/\1 ' "$T/text.2"
"$BOOTPROF" info --format=json -i "$T/a" > "$T/info"
facts "$T/a"
base=$(sed -n 's/^info "clock_base_ns" "\(.*\)"$/\1/p' "$T/facts")
lock=$(sed -n 's/^lock .*v0=\(0x[0-9a-f]*\).* "\(qemu_global_mutex\|bql\)".*/\1/p' "$T/facts")
ok "the big lock has a name ($lock)" test -n "$lock"
# A window well inside of both, in microseconds of the clock; what begins and ends in it. A wait is from leaving the CPU in a
# call on the lock to getting one again. Kernels do not trace every switch from an idle task: who does something without one
# has had a CPU since some moment between being woken and that.
cat > "$T/count.awk" <<'END'
function back(tid, from, to)
{
	if (out[tid] >= lo && to <= hi) {
		waits++
		least += from > out[tid] ? from - out[tid] : 0
		most += to - out[tid]
		unseen += from < to
	}
	delete out[tid]
}
{
	if (!match($0, /-[0-9]+ +\[[0-9]+\]/))
		next
	split(substr($0, RSTART + 1, RLENGTH), part, " ")
	pid = part[1]
	if (!match($0, / [0-9]+\.[0-9]+: /))
		next
	us = substr($0, RSTART + 1, RLENGTH - 3) * 1e6
	if (!lo) {
		lo = int(us / 1000 + 50) * 1000
		hi = lo + 800000
	}
	inside = us >= lo && us <= hi
	rest = substr($0, RSTART + RLENGTH)
	if (pid in out)
		back(pid, woken[pid], us)
	if (rest ~ /^sys_futex\(/) {
		calls[pid] = index(rest, "uaddr: " lock ",") && rest ~ /op: (0x80|0),/
		entered[pid] = us
	} else if (rest ~ /^sys_futex ->/) {
		if (calls[pid] && entered[pid] >= lo && inside) {
			returned++
			whole += us - entered[pid]
		}
		calls[pid] = 0
	} else if (rest ~ /^sched_switch:/) {
		match(rest, /prev_pid=[0-9]+/)
		prev = substr(rest, RSTART + 9, RLENGTH - 9)
		match(rest, /next_pid=[0-9]+/)
		next_pid = substr(rest, RSTART + 9, RLENGTH - 9)
		switches[prev] += inside
		if (calls[prev] && rest ~ /prev_state=S /) {
			out[prev] = us
		}
		if (next_pid in out)
			back(next_pid, us, us)
	} else if (rest ~ /^sched_waking:/) {
		match(rest, / pid=[0-9]+/)
		woken[substr(rest, RSTART + 5, RLENGTH - 5)] = us
	}
}
END {
	printf "window %.0f %.0f\nlock %d %.0f %.0f %d\n", lo, hi, waits, least * 1000, most * 1000, unseen
	printf "calls %d %.0f\n", returned, whole * 1000
	for (pid in switches)
		print "switches", pid, switches[pid]
}
END
awk -v lock="$lock" -f "$T/count.awk" "$T/text" > "$T/count"
read -r _ lo hi < <(grep window "$T/count")
read -r _ waits least most _ < <(grep ^lock "$T/count")
read -r _ calls whole < <(grep ^calls "$T/count")
awk -v lock="$lock" -v lo="$lo" -v hi="$hi" -f "$T/count.awk" "$T/text.2" > "$T/count.2"
note "in 0.8 s: $waits waits for the big lock, $least to $most ns by the first text"
read -r _ waits least most unseen < <(grep ^lock "$T/count.2")
read -r _ _ whole2 < <(grep ^calls "$T/count.2")
note "$waits, $least to $most ns, $unseen without a switch back, by the second; $calls calls, $whole and $whole2 ns from entry to return"
range=("--from=$((lo * 1000 - base))ns" "--to=$((hi * 1000 - base))ns")
"$BOOTPROF" report locks -i "$T/a" -n 0 --format=json "${range[@]}" > "$T/locks"
"$BOOTPROF" report vcpus -i "$T/a" -n 0 --format=json "${range[@]}" > "$T/vcpus"
of_lock='[r for r in d["rows"] if r["address"] == "'$lock'" and r["type"] == "mutex"][0]'
between 'there is contention to be counted' "$waits" 100 1000000000
between "waits for the big lock are the kernel's, to 0.1 %" "$(json "$T/locks" "$of_lock[\"waits\"]")" \
	"$((waits - waits / 1000 - 1))" "$((waits + waits / 1000 + 1))"
recorded=$(json "$T/locks" "$of_lock[\"wait_total_ns\"]")
note "$recorded ns recorded"
between 'their time is, to 0.1 %' "$recorded" \
	"$((least - least / 1000))" "$((most + most / 1000))"
facts "$T/all"
base=$(sed -n 's/^info "clock_base_ns" "\(.*\)"$/\1/p' "$T/facts")
"$BOOTPROF" report locks -i "$T/all" -n 0 --format=json "--from=$((lo * 1000 - base))ns" "--to=$((hi * 1000 - base))ns" > "$T/locks"
between "all calls that wait for the big lock are the kernel's, to 0.1 %" "$(json "$T/locks" "$of_lock[\"waits\"]")" \
	"$((calls - calls / 1000 - 1))" "$((calls + calls / 1000 + 1))"
least=$((whole < whole2 ? whole : whole2)) most=$((whole > whole2 ? whole : whole2))
recorded=$(json "$T/locks" "$of_lock[\"wait_total_ns\"]")
note "$recorded ns recorded"
between 'their time is, from entry to return, to 0.1 %' "$recorded" \
	"$((least - least / 1000))" "$((most + most / 1000))"
is 'four vCPUs have their role' "$(json "$T/vcpus" 'sorted(r["vcpu"] for r in d["rows"] if r["role"] == "vCPU")')" '[0, 1, 2, 3]'
is 'one main loop' "$(json "$T/vcpus" '[r["tid"] for r in d["rows"] if r["role"] == "main loop"]')" "[$guest]"
json "$T/vcpus" '"\n".join("%d %d" % (r["tid"], r["switches"]) for r in d["rows"] if r["role"] in ("vCPU", "main loop"))' > "$T/tids"
while read -r tid n; do
	want=$(sed -n "s/^switches $tid //p" "$T/count")
	between "switches of thread $tid are the kernel's, to 0.1 %" "$n" "$((want - want / 1000 - 1))" "$((want + want / 1000 + 1))"
done < "$T/tids"
rmdir "$own" "$own.2"

is 'nothing is left in tracefs' "$(leftovers)" ''

# ---- a planted holder: the main loop sits in open(2) of a FIFO, with the big lock ----

# plant: returns when it does
plant()
{
	local i nr

	echo "pmemsave 0 4096 \"$T/block\"" >&3
	for ((i = 0; i < 600; i++)); do
		read -r nr _ < "/proc/$guest/syscall"
		[ "$nr" != 257 ] || return
		sleep 0.05
	done
	note 'the main loop does not open the FIFO'
}

for round in 1 2 3 4; do
	sites=sampled
	[ $round -lt 3 ] || sites=never
	[ $round -lt 4 ] || sites=always
	"$BOOTPROF" record -q --waits --lock-sites=$sites --pid "$guest" --duration 60 -o "$T/p" &
	recording $! $sites
	begins=$(date +%s%N)
	plant
	held=$(date +%s%N)
	sleep 1
	freed=$(date +%s%N)
	cat "$T/block" > /dev/null
	ends=$(date +%s%N)
	sleep 0.3
	kill -INT $!
	wait $!
	"$BOOTPROF" report locks -i "$T/p" -n 0 --format=json > "$T/locks"
	is "planted $round: the main loop is named for every long wait" "$(json "$T/locks" \
		'sorted(set(r["role"] for r in d["tables"]["holders"] if r["wait_max_ns"] > 700e6))')" '["main loop"]'
	is "planted $round: with its stack" "$(json "$T/locks" 'all("pmemsave" in (r["stack"] or "")
		for r in d["tables"]["holders"] if r["wait_max_ns"] > 700e6)')" true
	# How long a vCPU waits depends on when it wants the lock, and on when the main loop gets a CPU to let it go.
	between "planted $round: for as long as it was held" "$(json "$T/locks" \
		'max(r["wait_max_ns"] for r in d["tables"]["holders"] if r["role"] == "main loop")')" \
		"$(((freed - held) * 85 / 100))" "$((ends - begins + 600000000))"
	[ $sites != never ] || is "planted $round: by what the mutex says" "$(json "$T/locks" \
		'sorted(set(r["known_from"] for r in d["tables"]["holders"] if r["wait_max_ns"] > 700e6))')" '["mutex owner"]'
done

# One that is not let go: seen by who was there before, and by who comes when nothing moves any more.
"$BOOTPROF" record -q --waits --lock-sites=never --pid "$guest" --duration 60 -o "$T/p2" &
recording $! never
plant
sleep 1
kill -INT $!
wait $!
"$BOOTPROF" record -q --waits --pid "$guest" --duration 1 -o "$T/hung"
cat "$T/block" > /dev/null
vcpus='[r for r in d["tables"]["open"] if r["role"] == "vCPU" and r["waited_ns"] > 400e6]'
for file in p2 hung; do
	"$BOOTPROF" report locks -i "$T/$file" -n 0 --format=json > "$T/locks"
	between "$file: vCPUs that wait to the end" "$(json "$T/locks" "len($vcpus)")" 1 4
	is "$file: for the big lock" "$(json "$T/locks" "sorted(set(r[\"address\"] for r in $vcpus))")" "[\"$lock\"]"
	is "$file: held by the main loop" "$(json "$T/locks" "sorted(set(r[\"holder_role\"] for r in $vcpus))")" '["main loop"]'
	is "$file: as the mutex says" "$(json "$T/locks" "sorted(set(r[\"known_from\"] for r in $vcpus))")" '["mutex owner"]'
	is "$file: which is in pmemsave" "$(json "$T/locks" "all(\"pmemsave\" in r[\"holder_stack\"] for r in $vcpus)")" true
	"$BOOTPROF" report -i "$T/$file" > "$T/overview"
	like "$file: the overview says so" 'vCPUs? still waited for .* at the end, .*held by the main loop' "$T/overview"
done
facts "$T/hung"
between 'before: locks that only samples know have names' "$(grep -c '^lock ' "$T/facts")" 2 100
is 'before: since when' "$(json "$T/locks" "set(r[\"since_ns\"] for r in $vcpus) == {None}")" true

# Call sites are lines of QEMU's source, and holders are known by lock events.
"$BOOTPROF" report locks -i "$T/p" -n 0 > "$T/locks.txt"
like 'a call site in the TCG accelerator' 'accel/tcg/[a-z-]*\.c:[0-9]+' "$T/locks.txt"
like 'a call site in the main loop' 'util/main-loop\.c:[0-9]+' "$T/locks.txt"
# What the stack of a waiter says, of a binary without symbols of its own and without frame pointers.
like 'a condition variable goes by the function that waits for it' '0x[0-9a-f]+ in qemu_wait_io_event +CPU [0-3]/TCG' "$T/locks.txt"
"$BOOTPROF" export --format=folded --off-cpu -i "$T/p" > "$T/folded"
like 'stacks of QEMU from its main function to the wait' 'main_loop_wait;qemu_poll_ns;' "$T/folded"
like 'holders known from lock events' 'main loop|lock events' "$T/locks.txt"
between 'stacks of threads that ran' "$("$BOOTPROF" dump -i "$T/p" 2> /dev/null | grep -c '^ sample .*state=82 .*ustack=')" 10 100000

# ---- endings ----

# ran: thread ids of QEMU and for how many ns they have had a CPU, by the kernel's account
ran()
{
	local task

	for task in "/proc/$guest"/task/*; do
		echo "${task##*/} $(cut -d ' ' -f 1 "$task/schedstat")"
	done | sort
}

for how in sleeping all; do
	ran > "$T/ran"
	"$BOOTPROF" record --waits --futex=$how --lock-sites=always --pid "$guest" --duration 60 -o "$T/k" 2> "$T/err" &
	recorder=$!
	recording $recorder
	kill -STOP $recorder
	sleep 6
	kill -CONT $recorder
	sleep 0.5
	kill -INT $recorder
	wait $recorder
	is "could not keep up ($how): status 0" $? 0
	ran | join "$T/ran" - > "$T/ran.both"
	one_line "could not keep up ($how): the summary counts what was lost" '[0-9]+ events lost; ended by interrupt'
	lost=$(sed -n 's/.* \([0-9]*\) events lost.*/\1/p' "$T/err")
	facts "$T/k"
	is "could not keep up ($how): so does the recording" "$(sed -n 's/^lost .*v0=\([0-9]*\) .*/\1/p' "$T/facts")" "$lost"
	"$BOOTPROF" report locks -i "$T/k" > "$T/locks.txt"
	like "could not keep up ($how): and the report" 'events of the host were lost' "$T/locks.txt"
	"$BOOTPROF" report vcpus -n 0 -i "$T/k" --format=json > "$T/vcpus"
	json "$T/vcpus" '"\n".join("%d %d" % (r["tid"], r["running_ns"]) for r in d["rows"] if r["role"] in ("vCPU", "main loop"))' |
		sort > "$T/tids"
	# What is not known is not charged to whoever ran last.
	while read -r tid before after ns; do
		between "could not keep up ($how): thread $tid ran no longer than the kernel says" "$ns" 0 "$((after - before + 50000000))"
	done < <(join "$T/ran.both" "$T/tids")
done

"$BOOTPROF" record --waits --pid "$guest" -o "$T/k" 2> "$T/err" &
recorder=$!
recording $recorder
sleep 1
is 'an instance of its own' "$(leftovers | grep -c "^bootprof_${recorder}_")" 2
kill -9 $recorder
wait $recorder 2> /dev/null
ok 'kill -9 of bootprof: QEMU goes on' kill -0 "$guest"
ok 'kill -9 of bootprof: the recording can be read' "$BOOTPROF" report vcpus -i "$T/k"
like 'kill -9 of bootprof: with threads' 'CPU 0/TCG' "$T/out"
like 'kill -9 of bootprof: its instance is still there' "^bootprof_${recorder}_" <(leftovers)
"$BOOTPROF" record --waits --pid "$guest" --duration 20 -o "$T/k" 2> "$T/err" &
recorder=$!
recording $recorder
is 'the next one removes what is left' "$(leftovers | grep -v "^bootprof_${recorder}_")" ''
kill -9 "$guest"
wait $recorder
is 'QEMU killed: status 0' $? 0
one_line 'QEMU killed: the summary says so' 'ended by exit'
ok 'QEMU killed: the recording can be read' "$BOOTPROF" report locks -i "$T/k"
like 'QEMU killed: with the lock' 'qemu_global_mutex|bql' "$T/out"
is 'QEMU killed: nothing is left in tracefs' "$(leftovers)" ''
wait $limit 2> /dev/null || :

# ---- what an iothread changes: the work moves to it. How much less the main loop makes others wait is only noted: turns at
# the lock differ from run to run. ----

share='round(100 * sum(r["wait_total_ns"] for r in d["tables"]["holders"] if r["role"] == "main loop") /
	max(1, sum(r["wait_total_ns"] for r in d["tables"]["holders"])))'
for iothread in 0 1; do
	guest $iothread
	ok "iothread $iothread: recorded" "$BOOTPROF" record -q --waits --pid "$guest" --duration 2 -o "$T/i$iothread"
	kill -9 "$guest"
	wait $limit 2> /dev/null || :
	"$BOOTPROF" report vcpus -i "$T/i$iothread" -n 0 --format=json > "$T/vcpus"
	"$BOOTPROF" report locks -i "$T/i$iothread" -n 0 --format=json > "$T/locks$iothread"
	is "iothread $iothread: there is one, or none" \
		"$(json "$T/vcpus" 'sum(r["role"] == "iothread" and r["running_ns"] > 1e6 for r in d["rows"])')" $iothread
	note "iothread $iothread: the main loop is held to $(json "$T/locks$iothread" "$share") % of the time waited for locks"
done

# ---- with the guest's calls, on one clock ----

linux "$T/i.img" quiet -smp 2 -accel tcg,thread=multi
for i in 0 1 2 3; do
	qemu+=(-drive "if=none,id=d$i,file=$T/disk,format=raw,file.locking=off,readonly=on" -device "virtio-blk-pci,drive=d$i")
done
status 0 'with the calls: status 0' record --waits --timeout 10 -o "$T/r" -- "${qemu[@]}"
one_line 'with the calls: the summary has both' 'calls in .* waits: .* records of [0-9]+ threads; ended by timeout'
"$BOOTPROF" info --format=json -i "$T/r" > "$T/info"
is 'with the calls: they are there' "$(json "$T/info" 'd["calls"] > 100000')" true
"$BOOTPROF" report vcpus -i "$T/r" -n 0 --format=json > "$T/vcpus"
is 'with the calls: QEMU was told to name its threads' \
	"$(json "$T/vcpus" 'sorted(r["thread"] for r in d["rows"] if r["role"] == "vCPU")')" '["CPU 0/TCG", "CPU 1/TCG"]'
"$BOOTPROF" report locks -i "$T/r" -n 0 --format=json > "$T/locks"
is 'with the calls: what the guest executed while a vCPU waited' "$(json "$T/locks" \
	'any(r["guest_function"] for r in d["tables"]["waiters"] if r["role"] == "vCPU")')" true
is 'with the calls: nothing is left in tracefs' "$(leftovers)" ''

# cli; l: mov $10,%al; out %al,$0x70; in $0x71,%al; jmp l; 0x55aa at its end
printf '\xfa\xb0\x0a\xe6\x70\xe4\x71\xeb\xf8%*s\x55\xaa' 501 '' > "$T/boot"
sector=(qemu-system-x86_64 -M pc -m 64 -display none -nic none -drive "file=$T/boot,format=raw,if=floppy" -boot a -serial none)

# ---- a QEMU in a container: its mutexes and QMP have thread ids of another PID namespace ----

timeout -k 5 60 unshare --pid --fork --kill-child "${sector[@]}" -accel tcg -object iothread,id=io0 -monitor stdio \
	-qmp "unix:$T/qmp,server=on,wait=off" < "$T/mon" > "$T/monitor" 2>&1 &
limit=$!
for ((i = 0; i < 200; i++)); do
	[ ! -S "$T/qmp" ] || break
	sleep 0.05
done
guest=$(cat "/proc/$limit/task/$limit/children")
guest=$(cat "/proc/${guest%% *}/task/${guest%% *}/children")
guest=${guest%% *}
"$BOOTPROF" record -q --waits --lock-sites=never --pid "$guest" --duration 60 -o "$T/c" &
recording $! never
sleep 0.5
plant
sleep 1
kill -INT $!
wait $!
"$BOOTPROF" report locks -i "$T/c" -n 0 --format=json > "$T/locks"
is 'a container: it is one' "$(sed -n 's/^NSpid:.*\t//p' "/proc/$guest/status")" 1
is 'a container: the vCPU waits for the main loop, as QMP and the mutex say' "$(json "$T/locks" \
	'[[r["role"], r["holder_role"], r["known_from"]] for r in d["tables"]["open"] if r["waited_ns"] > 700e6]')" \
	'[["vCPU", "main loop", "mutex owner"]]'
"$BOOTPROF" report vcpus -i "$T/c" -n 0 --format=json > "$T/vcpus"
is 'a container: QMP knows the iothread' "$(json "$T/vcpus" '[r["thread"] for r in d["rows"] if r["role"] == "iothread"] != []')" true
is 'a container: roles are from QMP' "$("$BOOTPROF" info -i "$T/c" | sed -n 's/^waits_roles *//p')" 'QMP (query-cpus-fast)'
kill -9 "$guest"
wait $limit 2> /dev/null || :

# ---- KVM: a boot sector that reads the clock's registers on and on; each read is an exit to QEMU ----

if [ ! -w /dev/kvm ]; then
	skip 'KVM' 'no /dev/kvm'
else
	qemu=("${sector[@]}" -accel kvm -smp 4 -cpu 'host,-arch-capabilities' -monitor none)
	status 1 'KVM without --waits: refused' record -o "$T/r" -- "${qemu[@]}"
	status 0 'KVM: status 0' record --waits --timeout 3 -o "$T/r" -- "${qemu[@]}"
	grep '^bootprof' "$T/err" > "$T/line"
	like 'KVM: the summary says what is not recorded' 'calls are not recorded; ended by timeout' "$T/line"
	"$BOOTPROF" report vcpus -i "$T/r" -n 0 --format=json > "$T/vcpus"
	is 'KVM: four vCPUs' "$(json "$T/vcpus" 'sorted(r["thread"] for r in d["rows"] if r["role"] == "vCPU")')" \
		'["CPU 0/KVM", "CPU 1/KVM", "CPU 2/KVM", "CPU 3/KVM"]'
	is 'KVM: vCPUs without work are halted' "$(json "$T/vcpus" 'max(r["halted_ns"] for r in d["rows"]) > 1e9')" true
	all='[r[k + "_ns"] for k in ("running", "preempted", "lock_wait", "halted", "io_wait", "other")]'
	is 'KVM: each vCPU has all of the time' "$(json "$T/vcpus" \
		"min(sum($all) for r in d[\"rows\"] if r[\"role\"] == \"vCPU\") > 0.8 * max(sum($all) for r in d[\"rows\"])")" true
	"$BOOTPROF" dump -i "$T/r" > "$T/dump" 2> /dev/null
	between 'KVM: exits to QEMU' "$(grep -c '^ kvm-exit .*flags=4' "$T/dump")" 1000 100000000
	like 'KVM: the line that takes the lock for port I/O' '^host-frame .* site "softmmu/physmem.c:[0-9]*|site "system/physmem.c:' "$T/dump"
	# One that is none of KVM's when it is looked at first.
	timeout -k 5 60 sh -c 'sleep 1.5; exec "$@"' sh "${qemu[@]}" &
	limit=$!
	sleep 0.5
	guest=$(cat "/proc/$limit/task/$limit/children")
	"$BOOTPROF" record -q --waits --pid "${guest%% *}" --duration 6 -o "$T/r"
	kill $limit
	"$BOOTPROF" dump -i "$T/r" > "$T/dump" 2> /dev/null
	between 'KVM later: exits to QEMU' "$(grep -c '^ kvm-exit .*flags=4' "$T/dump")" 1000 100000000
	"$BOOTPROF" report vcpus -i "$T/r" -n 0 --format=json > "$T/vcpus"
	is 'KVM later: stacks tell what halts' "$(json "$T/vcpus" 'max(r["halted_ns"] for r in d["rows"]) > 1e9')" true
	between 'KVM later: and where a guest does not go on that could' "$(grep -c '^ out .*state=82.*kstack=' "$T/dump")" 1 100000000
fi
