#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Whole boots of the distribution's kernel without any debug package, with one, two and eight vCPUs: every view is valid
# JSON and CSV and says what a boot is. boot.py has the checks; among them the promises that at most 1 % of the
# time is unaccounted, and that at least 99 % of the kernel's instructions are in a named function.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3
requires_kernel
requires_report
[ -n "${BOOTPROF_TEST_INITRD_MODULES:-}" ] || skip_all 'no initrd with modules (BOOTPROF_TEST_INITRD_MODULES)'

for vcpus in 1 2 8; do
	linux "$BOOTPROF_TEST_INITRD_MODULES" ''
	rm -rf "$T/views"
	mkdir "$T/views"
	status 0 "$vcpus vCPUs: recorded" record -o "$T/r" -- "${qemu[@]}" -m 512 -smp $vcpus || continue
	"$BOOTPROF" info --format=json -i "$T/r" > "$T/views/info.json"
	for view in overview functions tree first-calls syscalls phases modules processes interrupts; do
		for format in json csv; do
			within 60 "$BOOTPROF" report $view --format=$format --limit 0 -i "$T/r" \
				> "$T/views/$view.$format" 2> "$T/err" || fail "$vcpus vCPUs: $view as $format" "$(cat "$T/err")"
		done
	done
	within 60 "$BOOTPROF" export --format=folded --clock=insns -i "$T/r" > "$T/views/folded" 2> "$T/err" ||
		fail "$vcpus vCPUs: export" "$(cat "$T/err")"
	for format in chrome speedscope perfetto; do
		within 60 "$BOOTPROF" export --format=$format --min-us 100 -i "$T/r" > "$T/views/$format" 2> "$T/err" ||
			fail "$vcpus vCPUs: export to $format" "$(cat "$T/err")"
	done
	python3 "$BOOTPROF_TOP/tests/e2e/boot.py" "$vcpus vCPUs" "$T/views" $vcpus > "$T/tap" 2>&1
	status=$?
	while IFS= read -r line; do
		case $line in
		'ok - '*) pass "${line#ok - }" ;;
		'not ok - '*) fail "${line#not ok - }" ;;
		*) printf '%s\n' "# ${line#\# }" | cut -c1-400 ;;
		esac
	done < "$T/tap"
	is "$vcpus vCPUs: all was judged" $status 0
done

# The text form of every view.
for view in overview functions tree first-calls syscalls phases modules processes interrupts; do
	ok "$view as text" "$BOOTPROF" report $view --no-pager -i "$T/r"
	like "$view as text: it says which kernel" 'Linux [0-9]+\.[0-9]+' "$T/out"
done
