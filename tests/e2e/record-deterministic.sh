#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two boots with --deterministic execute the same instructions: in total, and in each function. KASLR is on, modules are
# inserted, programs run. On a host that is many times overcommitted, one boot in some sixty took another course in its
# firmware, before any record could have an influence: when the first two differ, a third one decides, and says so.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3
requires_kernel
requires_report

linux "${BOOTPROF_TEST_INITRD_MODULES:-$BOOTPROF_TEST_INITRD}" ''
boot()
{
	status 0 "boot $1" record -o "$T/r$1" --deterministic -- "${qemu[@]}" || exit
	"$BOOTPROF" info --format=json -i "$T/r$1" > "$T/info$1"
	"$BOOTPROF" report functions --clock=insns --limit 0 --format=json -i "$T/r$1" > "$T/functions$1"
}

boot 1
boot 2
if [ "$(json "$T/info1" 'd["insns"]')" != "$(json "$T/info2" 'd["insns"]')" ]; then
	note "boots 1 and 2 differ: $(json "$T/info1" 'd["insns"]') and $(json "$T/info2" 'd["insns"]') instructions"
	boot 3
	same=1
	[ "$(json "$T/info1" 'd["insns"]')" = "$(json "$T/info3" 'd["insns"]')" ] || same=2
	# Boot 3 takes the place of the one that it differs from.
	mv "$T/info3" "$T/info$((3 - same))"
	mv "$T/functions3" "$T/functions$((3 - same))"
fi
is 'both power off' "$(json "$T/info1" 'd["end"]["how"]') $(json "$T/info2" 'd["end"]["how"]')" 'poweroff poweroff'
is 'the recording says that it is deterministic' "$(json "$T/info1" 'd["info"]["deterministic"]')" yes
is 'the kernel is where it was' "$(json "$T/info1" 'd["info"]["kaslr_slide"]')" "$(json "$T/info2" 'd["info"]["kaslr_slide"]')"
is 'the same instructions in total' "$(json "$T/info1" 'd["insns"]')" "$(json "$T/info2" 'd["insns"]')"
is 'the same number of calls' "$(json "$T/info1" 'd["calls"]')" "$(json "$T/info2" 'd["calls"]')"
between 'which is a whole boot' "$(json "$T/info1" 'd["insns"]')" 500000000 20000000000
python3 - "$T/functions1" "$T/functions2" > "$T/differ" <<'END'
import json, sys
one, two = ({(r['name'], r['module'], r['addr']): (r['calls'], r['self_insns'], r['total_insns'])
             for r in json.load(open(f))['rows']} for f in sys.argv[1:])
for key in sorted(one.keys() | two.keys()):
    if one.get(key) != two.get(key):
        print(key, one.get(key), two.get(key))
print(len(one), 'functions', file=sys.stderr)
END
is 'each function: the same calls, own and total instructions' "$(head -n 20 "$T/differ")" ''
between 'thousands of functions' "$(json "$T/functions1" 'len(d["rows"])')" 3000 1000000
