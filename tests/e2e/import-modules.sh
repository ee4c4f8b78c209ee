#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Names of modules in a foreign trace, from .ko files and /proc/modules: the same that the guest's own kallsyms has.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64
requires_kernel

cat > "$T/init" <<'END'
#!/bin/sh
export PATH=/bin:/usr/bin
mount -t proc proc /proc
while read -r module; do
	insmod "/lib/modules/$module.ko"
done < /etc/modules
echo "begin-modules"
cat /proc/modules
echo "begin-kallsyms"
grep '\[' /proc/kallsyms
echo "bootprof-guest: ready"
poweroff -f
END
initrd "$T/initrd" --modules --init "$T/init" 2> "$T/err" || skip_all "no initrd: $(cat "$T/err")"
linux "$T/initrd" 'quiet'
within 60 "${qemu[@]}" < /dev/null > "$T/console" 2>&1
tr -d '\r' < "$T/console" > "$T/text"
sed -n '/begin-modules/,/begin-kallsyms/p' "$T/text" | grep -aE ' Live 0xf' > "$T/modules"
sed -n '/begin-kallsyms/,$p' "$T/text" | grep -aE '^f[0-9a-f]{15} [tTwW] ' > "$T/kallsyms"
ok 'the guest has modules' [ "$(wc -l < "$T/modules")" -ge 4 ]
ok 'and their functions' [ "$(wc -l < "$T/kallsyms")" -ge 100 ]

# A block at each function of a module that stays in memory (init parts are gone). Newer kernels have padding with a
# name of its own in front of each, in which nothing runs.
awk 'NR == FNR { base[$1] = $6; size[$1] = $2; next }
	$3 ~ /^__pfx_/ { next }
	{ m = $4; gsub(/[][]/, "", m); if (m in base) print $1, $3, m, substr(base[m], 3), size[m] }' \
	"$T/modules" "$T/kallsyms" |
	python3 -c '
import sys
for line in sys.stdin:
    addr, name, module, base, size = line.split()
    if int(base, 16) <= int(addr, 16) < int(base, 16) + int(size):
        print(addr, name, module)' > "$T/wanted"
awk '{ printf "Trace 0: 0x7f0000000000 [0000000000000000/%s/0040c2b0/ff000200] \n", $1 }' "$T/wanted" > "$T/exec.log"
modules=$("$BOOTPROF_TOP/scripts/fetch-kernel.sh" --modules 2> "$T/err")
[ -d "$modules" ] || modules=$(dirname "$BOOTPROF_TEST_KERNEL")/../lib/modules/${BOOTPROF_TEST_KERNEL##*/vmlinuz-}
ok 'import with --module-dir' "$BOOTPROF" import "$T/exec.log" --vmlinux "$BOOTPROF_TEST_KERNEL" --kaslr=0x0 \
	--modules "$T/modules" --module-dir "$modules" -o "$T/rec"
"$BOOTPROF" report functions --format=csv -n 0 -i "$T/rec" > "$T/functions" 2> "$T/err"
# Names at one address may differ (aliases); everything else may not.
python3 - "$T/wanted" "$T/functions" > "$T/result" <<'END'
import csv, sys
names = {}
for line in open(sys.argv[1]):
    addr, name, module = line.split()
    names.setdefault((int(addr, 16), module), set()).add(name)
right = wrong = 0
for row in csv.DictReader(open(sys.argv[2])):
    if row['module'] == 'vmlinux' or not row['module']:
        continue
    if row['name'] in names.get((int(row['addr'], 16), row['module']), set()):
        right += 1
    else:
        wrong += 1
        print('not so in the guest:', row['addr'], row['module'], row['name'])
print('right', right, 'wrong', wrong, 'of', len(names))
END
like 'all names are those that the guest has' '^right [0-9]{3,} wrong 0 of' "$T/result"
note "$(tail -n 1 "$T/result")"
"$BOOTPROF" report functions "$T/exec.log" --vmlinux "$BOOTPROF_TEST_KERNEL" --kaslr=0x0 --modules "$T/modules" \
	--module-dir "$modules" --format=csv -n 0 > "$T/direct" 2> "$T/err"
ok 'report takes the same options' cmp "$T/functions" "$T/direct"
status 2 'which are not for recordings' "$BOOTPROF" report functions -i "$T/rec" --modules "$T/modules"
status 2 'a folder of modules needs to know where they were' "$BOOTPROF" report "$T/exec.log" --module-dir "$modules"
