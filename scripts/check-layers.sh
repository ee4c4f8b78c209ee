#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Who may include and call what (docs/architecture.md). TAP; run from the root of the tree.
set -u
export LC_ALL=C
count=0 failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Sources without comments, and without the contents of strings for the search for calls.
mapfile -t files < <(find core symbols analyzers collectors cmd tui bootprof.c -name '*.[ch]' 2> /dev/null | sort)
for file in "${files[@]}"; do
	mkdir -p "$work/code/$(dirname "$file")" "$work/calls/$(dirname "$file")"
	gcc -fpreprocessed -dD -E -P -x c "$file" > "$work/code/$file" 2> /dev/null
	sed -E 's/"([^"\\]|\\.)*"/""/g' "$work/code/$file" > "$work/calls/$file"
done

# verdict NAME: fails when $work/found has lines
verdict()
{
	count=$((count + 1))
	if [ -s "$work/found" ]; then
		failures=$((failures + 1))
		echo "not ok $count - $1"
		sed 's/^/# /' "$work/found"
	else
		echo "ok $count - $1"
	fi
}

# includes NAME FOLDER ALLOWED [EXCEPTION]: "..." includes of a folder, as extended regular expressions
includes()
{
	(cd "$work/code" && [ -d "$2" ] && grep -rnE '^#include "' "$2" |
		grep -vE "#include \"($3)/" | grep -vE "^(${4:-nothing}$)") > "$work/found"
	verdict "$1"
}

# only NAME REGEX ALLOWED_FILES WHERE: the text occurs only in those files
only()
{
	(cd "$work/$4" && grep -rnE "$2" . | sed 's|^\./||' | grep -vE "^($3)([:/]|\$)" |
		grep -v '__attribute__((format') > "$work/found"
	verdict "$1"
}

includes 'core includes nothing but core' core 'core'
includes 'symbols include core' symbols 'core|symbols'
includes 'collectors do not resolve names, but for the recorder' collectors 'core|collectors' \
	'collectors/tcg/record[a-z_]*\.[ch]:[0-9]+:#include "symbols/[a-z_]*\.h"'
includes 'analyzers do not know collectors' analyzers 'core|symbols|analyzers'
includes 'the terminal user interface sees reports' tui 'core|analyzers|tui'
only 'libelf and libdw stay in symbols' '#include <(libelf|gelf|elfutils/[a-z]*|dwarf)\.h>' 'symbols' code
only 'compression libraries stay in symbols, in recordings and in what reads traces' \
	'#include <(zstd|lzma|lz4|lz4frame|zlib)\.h>' \
	'symbols|core/(trace[a-z_]*|source)\.c|collectors/ftrace/tracedat_unpack\.c' code
only 'jansson stays where baselines and answers of QEMU are read' '#include <jansson\.h>' \
	'analyzers/summary_file\.c|collectors/qemu/qmp\.c' code
only 'libyaml stays where budgets are read' '#include <yaml\.h>' 'analyzers/budget\.c' code
only 'libtracefs and libtraceevent stay in collectors/vcpu' \
	'#include <(tracefs|kbuffer|event-parse|trace-seq|event-utils)\.h>' 'collectors/vcpu' code
only 'libbpf stays in collectors/vcpu/sched_bpf.c' '#include <bpf/[a-z]*\.h>' 'collectors/vcpu/sched_bpf\.c' code
only 'QEMU plugin functions stay in the plugin' '\bqemu_plugin_[a-z0-9_]*\(' \
	'collectors/tcg/(plugin|qemu_abi)\.[ch]' calls
only 'curses stays in tui/term.c' '#include <(n?curses|ncursesw/[a-z]*|term)\.h>' 'tui/term\.c' code
only 'only main and the commands exit' '\b(exit|abort|quick_exit)[ ]*\(' 'bootprof\.c|cmd' calls
only 'the library does not print' '\b(printf|vprintf|puts|putchar|perror|fprintf[ ]*\([ ]*std(out|err))\b[ ]*[(,]' \
	'bootprof\.c|cmd|collectors/tcg/plugin\.c' calls
only 'no unbounded string functions' '\b(v?sprintf|strcpy|strcat|gets|strtok|alloca)[ ]*\(' 'nothing' calls

grep -rnE '\b(TO''DO|FIX''ME|XX''X|HA''CK)\b' "${files[@]}" > "$work/found" 2> /dev/null
verdict 'nothing is left for later'
find core symbols analyzers collectors cmd tui tests scripts \( -name '*.[chS]' -o -name '*.sh' \) -print0 2> /dev/null |
	xargs -0 grep -L 'SPDX-License-Identifier: GPL-2.0-or-later' > "$work/found"
verdict 'every file names its licence'

echo "1..$count"
[ $failures -eq 0 ]
