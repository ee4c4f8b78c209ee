#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Compares `bootprof COMMAND --help` with docs/bootprof-COMMAND.1, both ways. TAP; run from the root of the tree.
set -u
export LC_ALL=C
program=${BOOTPROF:-build/bootprof}
count=0 failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

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

if [ ! -x "$program" ]; then
	echo "1..1"
	echo "ok 1 - documentation # SKIP $program is not built"
	exit 0
fi

# Options in a help text: on lines that begin with one, what stands before the description.
help_options()
{
	sed -nE 's/^ +(-.*)$/\1/p' | sed -E 's/  +.*//' | grep -oE '(^|[ ,|])--?[A-Za-z0-9][A-Za-z0-9-]*' |
		sed -E 's/^[ ,|]//' | sort -u
}

# Options that a page lists: .It Fl o Ar FILE , Fl \-output, or Fl Fl output.
page_options()
{
	sed -nE 's/^\.It +(Fl .*)/\1/p' "$1" | sed -E 's/\\-/-/g; s/Fl +Fl +/Fl -/g' |
		grep -oE 'Fl +-?[A-Za-z0-9][A-Za-z0-9-]*' | sed -E 's/^Fl +/-/' | sort -u
}

commands=$("$program" --help 2>&1 | sed -nE 's/^ +([a-z][a-z-]+) {2,}[^ ].*/\1/p')
[ -n "$commands" ] && : > "$work/found" || echo "no commands found in $program --help" > "$work/found"
verdict 'the help lists commands'
for command in $commands; do
	page=docs/bootprof-$command.1
	if [ ! -f "$page" ]; then
		echo "$page does not exist" > "$work/found"
		verdict "$command has a page"
		continue
	fi
	if ! "$program" "$command" --help > "$work/help" 2>&1; then
		cp "$work/help" "$work/found"
		verdict "$command --help succeeds"
		continue
	fi
	help_options < "$work/help" | grep -vxE -- '--help|-h' > "$work/a"
	page_options "$page" | grep -vxE -- '--help|-h' > "$work/b"
	comm -23 "$work/a" "$work/b" | sed "s|\$|: in --help, not in $page|" > "$work/found"
	comm -13 "$work/a" "$work/b" | sed "s|\$|: in $page, not in --help|" >> "$work/found"
	verdict "$command: --help and $page list the same options"
done
for page in docs/*.[1-8]; do
	[ -e "$page" ] || continue
	: > "$work/found"
	for section in NAME DESCRIPTION; do
		grep -qx "\.Sh $section" "$page" || echo "$page has no section $section" >> "$work/found"
	done
	if command -v mandoc > /dev/null; then
		mandoc -Tlint -Werror "$page" >> "$work/found" 2>&1
	fi
	verdict "$page is well-formed"
done
echo "1..$count"
[ $failures -eq 0 ]
