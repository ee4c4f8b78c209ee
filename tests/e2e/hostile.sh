#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest that puts terminal commands, quotes and broken UTF-8 into whatever it can name: nothing of that reaches the
# terminal of whoever looks at the recording, and JSON stays JSON.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3
requires_kernel
requires_report

cat > "$T/init" <<'END'
#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for name in '\033]0;x\007' '\033[31mred' 'a"b\\c' 'semi;colon 7' '\377\376' '\302\233x' '</script>' 'line\nfeed' '\342\200\256bidi' '%%s%%n'; do
	file="/tmp/$(printf "$name.")"
	/bin/busybox cp /bin/busybox "$file"
	# An applet named by the first word: a program whose name, file and arguments are all of this kind.
	(exec -a true "$file" true) 2> /dev/null || "$file" true
	printf "console: $name\n"
	printf "kmsg: $name\n" > /dev/kmsg
done
/bin/busybox printf '\033]0;x\007\033[31m' > /proc/self/comm
/bin/busybox cat /proc/self/comm > /dev/null
echo "bootprof-guest: ready"
/bin/poweroff -f
END
initrd "$T/i.img" --init "$T/init"
linux "$T/i.img" ''
# The path of the recording may be hostile, too.
r=$T/$(printf 'r\033[31m.bootprof')
record -o "$r" -- "${qemu[@]}" > "$T/console" 2> "$T/rec.err"
is 'a boot' $? 0
like 'the guest did what it should' 'bootprof-guest: ready' "$T/console"
# The console is the guest's own and is passed on as it is.
ok 'the console comes as it is' grep -qF "$(printf '\033]0;x\007')" "$T/console"

# clean NAME FILE [JSON]: no control characters but newlines, and UTF-8; with JSON also valid as such
cat > "$T/clean.py" <<'END'
import json, re, sys
data = open(sys.argv[1], 'rb').read()
try:
    text = data.decode('utf-8')
except UnicodeDecodeError as e:
    sys.exit('not UTF-8: %r' % data[max(0, e.start - 60):e.start + 20])
# Control characters of both sets, and what changes the direction of writing or cannot be seen.
bad = re.search('[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]', text)
if bad:
    sys.exit('character %r in %r' % (bad.group(), text[max(0, bad.start() - 60):bad.end() + 20]))
if not text:
    sys.exit('empty')
if 'json' in sys.argv:
    json.loads(text)
END
clean()
{
	local name=$1

	shift
	if python3 "$T/clean.py" "$@" > "$T/why" 2>&1; then
		pass "$name"
	else
		fail "$name" "$(tail -n 1 "$T/why" | cut -c 1-300)"
	fi
}

clean 'the summary' "$T/rec.err"
ok info "$BOOTPROF" info -i "$r" && clean 'info as text' "$T/out"
ok 'info as JSON' "$BOOTPROF" info --format=json -i "$r" && clean 'info is JSON' "$T/out" json
for view in overview functions tree first-calls syscalls phases modules processes interrupts; do
	for format in text json csv; do
		"$BOOTPROF" report $view --format=$format --limit 0 --no-pager --color=never -i "$r" > "$T/out" 2> "$T/err" ||
			fail "$view as $format" "$(cat "$T/err")"
		json=$format
		[ $format = json ] || json=
		clean "$view as $format" "$T/out" $json
	done
done
"$BOOTPROF" report processes --format=json --limit 0 -i "$r" > "$T/p"
is 'the processes have the names that they gave themselves' \
	"$(json "$T/p" "[x in {r['process'] for r in d['rows']} for x in ('\\x1b]0;x\\x07.', '\\x1b[31mred.', 'a\"b\\\\c.', 'line\\nfeed.', '%s%n.')]")" \
	'[true, true, true, true, true]'
"$BOOTPROF" dump -i "$r" 2> "$T/err" | sed '/^block/q' > "$T/out"
clean 'dump' "$T/out"
like 'dump: the console is in it, escaped' 'console .*\\x1b\]0;x\\x07' "$T/out"
"$BOOTPROF" export --format=folded --clock=insns -i "$r" 2> "$T/err" | grep -vE '^(swapper|kworker|cryptomgr)' > "$T/out"
clean 'export: folded' "$T/out"
is 'export: folded: each line is a stack and a number' "$(grep -cvE '^[^;].* [0-9]+$' "$T/out")" 0
for format in chrome speedscope; do
	"$BOOTPROF" export --format=$format --min-us 50 -i "$r" > "$T/out" 2> "$T/err"
	clean "export: $format" "$T/out" json
done
status 1 'an error about a file with such a name' "$BOOTPROF" report -i "$(printf '/nonexistent/\033[31m')"
clean 'the error' "$T/err"
status 2 'a view with such a name' "$BOOTPROF" report "$(printf 'x\033]0;x\007')"
clean 'the view' "$T/err"
status 1 'a QEMU with such a name' record -o "$T/x" -- "$(printf '/nonexistent/\033[31m')"
clean 'the QEMU' "$T/err"
