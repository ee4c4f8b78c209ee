#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# One boot seen twice: recorded, and by the guest's own function_graph tracer, whose text is imported. While the tracer
# was on, every function was called as often in both.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3 busybox cpio gzip
BOOTPROF_TEST_KERNEL=${BOOTPROF_TEST_KERNEL:-$("$BOOTPROF_TOP/scripts/fetch-kernel.sh")} || skip_all 'no kernel'
export BOOTPROF_TEST_KERNEL

functions='vfs_read vfs_write do_sys_openat2 do_filp_open kernel_clone wake_up_new_task begin_new_exec '
functions+='load_elf_binary do_mmap handle_mm_fault filp_close pipe_read pipe_write'
cat > "$T/init" <<END
#!/bin/sh
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2> /dev/null
mount -t tracefs tracefs /sys/kernel/tracing
cd /sys/kernel/tracing
echo 0 > tracing_on
echo 8192 > buffer_size_kb
echo $functions > set_ftrace_filter
echo function_graph > current_tracer
echo 1 > tracing_on
dd if=/dev/zero of=/tmp/a bs=4096 count=32 2> /dev/null
grep -c . /proc/meminfo | sort > /tmp/b
/bin/busybox true
/usr/bin/env A=1 /bin/true
echo 0 > tracing_on
cat trace > /dev/ttyS1
poweroff -f
END
initrd "$T/initrd" --init "$T/init" 2> "$T/err" || skip_all "no initrd: $(cat "$T/err")"
linux "$T/initrd" 'quiet'
ok 'the boot is recorded' record -o "$T/rec" -- "${qemu[@]}" -serial "file:$T/console" -serial "file:$T/serial"
tr -d '\r' < "$T/serial" > "$T/trace.txt"
like 'the guest has traced' 'tracer: function_graph' "$T/trace.txt"
lacks 'and lost nothing' 'LOST' "$T/trace.txt"

# Tracing was on between the last two calls of the function that switches it.
"$BOOTPROF" dump -i "$T/rec" 2> "$T/err" > "$T/dump"
"$BOOTPROF" dump -i "$T/trace.txt" 2> "$T/err" > "$T/dump-trace"
"$BOOTPROF" report functions "$T/trace.txt" --format=csv -n 0 2> "$T/err" > "$T/view"
# shellcheck disable=SC2086 # a list
python3 - "$T/dump" "$T/dump-trace" "$T/view" $functions > "$T/result" <<'END'
import collections, csv, sys

wanted = set(sys.argv[4:])

def calls(path, switch):
    """How often each wanted function was called: in all, or between the last two calls of @switch."""
    ids, found, windows = {}, collections.Counter(), []
    for line in open(path, errors='replace'):
        w = line.split()
        if not w:
            continue
        if w[0] == 'func':
            ids[w[1]] = w[4].strip('"')
        elif w[0] in ('call', 'jump', 'irq'):
            name = ids[w[1]]
            if name == switch:
                windows.append(found)
                found = collections.Counter()
            if name in wanted:
                found[name] += 1
    return windows[-1] if switch else found

recorded, traced = calls(sys.argv[1], 'rb_simple_write'), calls(sys.argv[2], None)
view = {row['name']: int(row['calls']) for row in csv.DictReader(open(sys.argv[3])) if row['name'] in wanted}
for name in sorted(wanted):
    same = recorded[name] == traced[name] == view.get(name, 0)
    print('same' if same else 'differs', name, recorded[name], traced[name], view.get(name, 0))
print('functions', sum(1 for n in wanted if traced[n]), 'calls', sum(traced.values()))
END
lacks 'every function was called as often in both' '^differs' "$T/result"
like 'and there were some' '^functions 1[0-9] calls [0-9]{3,}' "$T/result"
note "$(tail -n 1 "$T/result")"
