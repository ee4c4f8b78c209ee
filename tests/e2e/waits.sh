#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Views of waits against awk over the same traces: time running and off the CPU of each thread, and the time of all waits for
# mutexes. Traces of real hosts come from $BOOTPROF_CORPUS (or ../shared/corpus); one is made here.
. "$(dirname "$0")/../lib.sh"

requires awk zstd
corpus=${BOOTPROF_CORPUS:-$BOOTPROF_TOP/../shared/corpus}

# What the text says, from its sched_switch and sys_futex lines alone. Stacks are printed behind their event, so that the last line may
# be later than the last event.
sums()
{
	awk '
	function us(t) { split(t, part, "."); return part[1] * 1000000 + part[2] }
	function heard(tid) { if (!(tid in first)) first[tid] = now }
	/^#/ || / => / || /stack trace>$/ { next }
	match($0, /[0-9]+\.[0-9][0-9][0-9][0-9][0-9][0-9]: /) {
		now = us(substr($0, RSTART, RLENGTH - 2))
		head = substr($0, 1, RSTART - 1)
		sub(/ *\[[0-9][0-9][0-9]\].*/, "", head)
		tid = head
		sub(/.*-/, "", tid)
		heard(tid)
	}
	/ sched_waking: / {
		t = $0; sub(/.* pid=/, "", t); heard(t += 0)
		if ((t in state) && state[t] != "run" && !(t in woken)) woken[t] = now
	}
	/ sched_switch: / {
		p = $0; sub(/.*prev_pid=/, "", p); p += 0
		n = $0; sub(/.*next_pid=/, "", n); n += 0
		s = $0; sub(/.*prev_state=/, "", s); s = substr(s, 1, 1)
		heard(p); heard(n)
		switches[p]++
		if (!(p in state)) run[p] += now - first[p]
		else if (state[p] == "run") run[p] += now - since[p]
		# Switches from the idle task that are missing: it ran from when it was woken.
		else if (p in woken) {
			if (state[p] == "R") ready[p] += woken[p] - since[p]; else off[p] += woken[p] - since[p]
			run[p] += now - woken[p]
		}
		delete woken[p]
		state[p] = s; since[p] = now
		if ((n in state) && state[n] != "run") {
			if (state[n] == "R") ready[n] += now - since[n]; else off[n] += now - since[n]
		}
		state[n] = "run"; since[n] = now
		delete woken[n]
	}
	# The last 8 digits of an address as a number.
	function low(s,  i, v) {
		for (i = length(s) > 8 ? length(s) - 7 : 1; i <= length(s); i++)
			v = v * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1
		return v
	}
	/ sys_futex\(/ { delete wait[tid]; addr = $0; sub(/.*uaddr: 0x/, "", addr); sub(/,.*/, "", addr) }
	/ sys_futex\(/ && / op: 0x[13]?89,/ { word = low(addr); condvar[word - word % 8] = 1 }
	/ sys_futex\(/ && / op: 0x80,/ { wait[tid] = now; at[tid] = low(addr) }
	/ sys_futex -> / && (tid in wait) { waits[at[tid]]++; waited[at[tid]] += now - wait[tid]; delete wait[tid] }
	END {
		# Who signals a condition variable waits for counts 24 bytes before its word: that is no mutex.
		for (a in waits) {
			word = a - a % 8
			if ((word + 8) in condvar || (word + 16) in condvar || (word + 24) in condvar)
				continue
			count += waits[a]
			sum += waited[a]
		}
		for (t in state) if (t) {
			if (state[t] == "run") run[t] += now - since[t]
			else if (state[t] == "R") ready[t] += now - since[t]
			else off[t] += now - since[t]
			printf "%d %d %d %d %d\n", t, switches[t], run[t], ready[t], off[t]
		}
		printf "mutexes %d %d\n", count, sum
	}'
}

# compare NAME TEXT
compare()
{
	sums < "$2" | sort > "$T/awk"
	ok "$1: is imported" timeout 60 "$BOOTPROF" import -q "$2" -o "$T/waits.bp"
	"$BOOTPROF" report vcpus -i "$T/waits.bp" --format=json > "$T/vcpus.json"
	"$BOOTPROF" report locks -i "$T/waits.bp" --format=json > "$T/locks.json"
	python3 - "$T" > "$T/differ" << 'END'
import json, sys, collections
top = sys.argv[1]
want = {w[0]: [int(x) for x in w[1:]] for w in map(str.split, open(top + "/awk"))}
have = collections.defaultdict(lambda: [0, 0, 0, 0])
for r in json.load(open(top + "/vcpus.json"))["rows"]:
    t = have[str(r["tid"])]
    t[0] += r["switches"]
    t[1] += r["running_ns"] / 1000
    t[2] += r["preempted_ns"] / 1000
    t[3] += sum(r[k] for k in ("lock_wait_ns", "halted_ns", "io_wait_ns", "other_ns")) / 1000
rows = json.load(open(top + "/locks.json"))["rows"]
have["mutexes"] = [sum(r["waits"] for r in rows), sum(r["wait_total_ns"] for r in rows) / 1000]
for t, got in have.items():
    for a, b in zip(got, want[t]):
        if abs(a - b) > 1:
            print(t, got, want[t])
            break
print(len(have) - 1, "threads")
END
	is "$1: threads and locks agree with awk" "$(sed '$d' "$T/differ")" ''
	like "$1: there are threads" '^[1-9][0-9]* threads' "$T/differ"
}

# Four vCPUs take turns with one mutex.
awk 'BEGIN {
	for (i = 0; i < 4000; i++) {
		t += 5 + i % 7
		c = i % 4
		n = (i + 1) % 4
		time = sprintf("%d.%06d", 100 + int(t / 1000000), t % 1000000)
		printf "  CPU %d/KVM-%d [000] .....  %s: sys_futex(uaddr: 0x1000, op: 0x80, val: 2)\n", c, 10 + c, time
		printf "  CPU %d/KVM-%d [000] d..2.  %s: sched_switch: prev_comm=CPU %d/KVM prev_pid=%d prev_prio=120 prev_state=%s ==> next_comm=CPU %d/KVM next_pid=%d next_prio=120\n", \
			c, 10 + c, time, c, 10 + c, i % 5 ? "S" : "R", n, 10 + n
		if (i > 3)
			printf "  CPU %d/KVM-%d [000] .....  %s: sys_futex -> 0x0\n", n, 10 + n, time
	}
}' > "$T/made.txt"
compare 'made here' "$T/made.txt"

if [ -d "$corpus/futex" ]; then
	for name in tcg-blk-read tcg-blk-read-iothread tcg-blk-read-uprobe kvm-pci; do
		zstd -dc "$corpus/futex/$name/ftrace.txt.zst" > "$T/host.txt"
		compare "$name" "$T/host.txt"
	done
	binary=$(command -v qemu-system-x86_64)
	maps=$corpus/futex/tcg-blk-read/maps.txt
	# The captures are of one build of a distribution; another one is refused.
	if "$BOOTPROF" report locks "$corpus/futex/tcg-blk-read/ftrace.txt.zst" --maps "$maps" --qemu "$binary" \
		--format=csv > "$T/out" 2> "$T/err"; then
		like 'the big lock has its name' '"qemu_global_mutex"' "$T/out"
	else
		one_line 'another binary is refused' 'qemu-system-x86_64'
	fi
else
	note "no corpus in $corpus: real traces are not tried"
fi
