#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs tests and counts: tests/run.sh KIND ARGUMENTS..., called by the Makefile from the root of the tree.
#
#   checks MAKE TARGET...      each target, then the closing line "N passed, N failed, N skipped"
#   programs GROUP FILE...     programs or scripts: TAP on standard output, or just an exit status (77: skipped)
#   fuzz FILE...               fuzz targets linked with tests/fuzz/replay.c, each on its seeds
#   libfuzzer SECONDS FILE...  fuzz targets linked with libFuzzer
#   golden DIR...              DIR/cmd run in a copy of DIR, its output compared with DIR/expect
#   headers COMPILER HEADER... each header compiled alone
#
# Environment: O (build directory), V=1 (all output), STRICT=1 (a skip is a failure), TEST_SECONDS (limit for
# each program), BP_TALLY (file to add the counts to), UPDATE=1 (golden: accept what comes).
set -u
export LC_ALL=C
top=$(pwd)
O=${O:-build}
case $O in /*) out=$O ;; *) out=$top/$O ;; esac
export BOOTPROF=$out/bootprof BOOTPROF_TOP=$top BOOTPROF_GUEST=$out/guest PATH="$out:$PATH"
export CMOCKA_MESSAGE_OUTPUT=TAP
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/bootprof-test.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

passed=0 failed=0 skipped=0

# report GROUP/NAME OK NOTOK SKIPPED FILE: counts and says what one program did.
report()
{
	local name=$1 ok=$2 notok=$3 skip=$4 file=$5 word=ok

	if [ "${STRICT:-0}" = 1 ] && [ "$skip" -gt 0 ]; then
		notok=$((notok + skip)) skip=0
	fi
	passed=$((passed + ok)) failed=$((failed + notok)) skipped=$((skipped + skip))
	[ "$ok" -eq 0 ] && [ "$skip" -gt 0 ] && word=skip
	[ "$notok" -gt 0 ] && word='NOT OK'
	printf '%-7s%s' "$word" "${BP_PREFIX:-}$name"
	[ $((ok + notok + skip)) -gt 1 ] && printf ' (%d passed, %d failed, %d skipped)' "$ok" "$notok" "$skip"
	[ "$SECONDS" -ge 5 ] && printf ' [%d s]' "$SECONDS"
	printf '\n'
	if [ "$notok" -gt 0 ] || [ "${V:-0}" = 1 ]; then
		sed 's/^/    /' "$file"
	elif [ "$skip" -gt 0 ]; then
		grep -iE '# SKIP|^skip' "$file" | sed 's/^/    /' | head -5
	fi
}

# judge GROUP/NAME STATUS FILE: reads the TAP in FILE, if there is any, and the exit status.
judge()
{
	local name=$1 status=$2 file=$3 ok notok skip plan

	skip=$(grep -ciE '^(not )?ok.*# *skip' "$file")
	ok=$(grep -iE '^ok' "$file" | grep -viEc '# *skip')
	notok=$(grep -iE '^not ok' "$file" | grep -viEc '# *skip')
	plan=$(sed -nE 's/^1\.\.([0-9]+).*/\1/p' "$file" | awk '{ n += $1 } END { if (NR) print n }')
	if [ $((ok + notok + skip)) -eq 0 ] && [ -z "$plan" ]; then
		case $status in
		0) ok=1 ;;
		77) skip=1 ;;
		*) notok=1 ;;
		esac
	elif [ "${plan:-none}" != $((ok + notok + skip)) ]; then
		echo "# $((ok + notok + skip)) results, ${plan:-none} announced" >> "$file"
		notok=$((notok + 1))
	elif [ "$status" -ne 0 ] && [ "$status" -ne 77 ] && [ "$notok" -eq 0 ]; then
		notok=1
	fi
	case $status in
	0 | 77) ;;
	124 | 137) echo "# killed after $limit s" >> "$file" ;;
	*) echo "# exit status $status" >> "$file" ;;
	esac
	report "$name" "$ok" "$notok" "$skip" "$file"
}

# The kernel and the initial file systems that several tests boot. Without a network they are not there, and
# the tests that need them are skipped.
test_guest()
{
	[ -z "${BOOTPROF_TEST_READY:-}" ] || return 0
	export BOOTPROF_TEST_READY=1
	if [ -z "${BOOTPROF_TEST_KERNEL:-}" ]; then
		BOOTPROF_TEST_KERNEL=$(scripts/fetch-kernel.sh 2> "$scratch/fetch.err") || {
			echo "# no kernel to test with: $(tail -n 1 "$scratch/fetch.err")"
			unset BOOTPROF_TEST_KERNEL
			return 0
		}
	fi
	export BOOTPROF_TEST_KERNEL
	[ -z "${BOOTPROF_TEST_INITRD:-}" ] || return 0
	mkdir -p "$out/guest"
	if scripts/make-initrd.sh "$out/guest/initrd.img" > "$scratch/initrd.err" 2>&1; then
		export BOOTPROF_TEST_INITRD=$out/guest/initrd.img
	else
		echo "# no initrd to test with: $(tail -n 1 "$scratch/initrd.err")"
	fi
	if scripts/make-initrd.sh "$out/guest/initrd-modules.img" --modules > "$scratch/initrd.err" 2>&1; then
		export BOOTPROF_TEST_INITRD_MODULES=$out/guest/initrd-modules.img
	else
		echo "# no initrd with modules to test with: $(tail -n 1 "$scratch/initrd.err")"
	fi
}

run_checks()
{
	local make=$1 target before after

	shift
	export BP_TALLY=$scratch/tally
	: > "$BP_TALLY"
	test_guest
	for target; do
		echo "== $target"
		before=$(awk '{ n += $2 } END { print n + 0 }' "$BP_TALLY")
		if ! $make "$target"; then
			after=$(awk '{ n += $2 } END { print n + 0 }' "$BP_TALLY")
			# It failed before any test could run.
			[ "$before" != "$after" ] || echo '0 1 0' >> "$BP_TALLY"
		fi
	done
	awk '{ p += $1; f += $2; s += $3 }
	     END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' "$BP_TALLY"
	exit
}

run_programs()
{
	local group=$1 file name status

	shift
	case $group in
	unit) limit=${TEST_SECONDS:-200} && test_guest ;;
	e2e) limit=${TEST_SECONDS:-300} && test_guest ;;
	truth) limit=${TEST_SECONDS:-3600} && test_guest ;;
	*) limit=${TEST_SECONDS:-120} ;;
	esac
	for file; do
		name=${file##*/}
		mkdir -p "$scratch/tmp"
		SECONDS=0
		TMPDIR=$scratch/tmp timeout -k 10 "$limit" "$file" < /dev/null > "$scratch/out" 2>&1
		status=$?
		judge "$group/${name%.sh}" $status "$scratch/out"
		rm -rf "$scratch/tmp"
	done
}

run_fuzz()
{
	local file name status

	limit=${TEST_SECONDS:-200}
	for file; do
		name=${file##*/fuzz_}
		SECONDS=0
		find "tests/fuzz/corpus/$name" -type f -print0 2> /dev/null | sort -z > "$scratch/seeds"
		xargs -0 timeout -k 10 "$limit" "$file" < "$scratch/seeds" > "$scratch/out" 2>&1
		status=$?
		judge "fuzz/$name" $status "$scratch/out"
	done
}

run_libfuzzer()
{
	local seconds=$1 file name status dir

	shift
	limit=$((seconds + 60))
	for file; do
		name=${file##*/fuzz_}
		dir=${file%/live/*}/found/$name
		mkdir -p "$dir/corpus" "tests/fuzz/corpus/$name"
		SECONDS=0
		timeout -k 10 "$limit" "$file" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
			-artifact_prefix="$dir/" "$dir/corpus" "tests/fuzz/corpus/$name" < /dev/null > "$scratch/out" 2>&1
		status=$?
		grep -E 'ERROR|SUMMARY|Test unit written|Done' "$scratch/out" > "$scratch/short"
		# libFuzzer says 77 when it has found something.
		judge "libfuzzer/$name" $((status > 0)) "$scratch/short"
	done
}

# cmd runs under sh in a fresh copy of its directory with bootprof on the PATH; what it prints on both
# outputs is compared, with a last line "[exit N]" when it ends with another status than 0.
run_golden()
{
	local dir name status

	limit=${TEST_SECONDS:-60}
	for dir; do
		name=${dir##*/}
		rm -rf "$scratch/golden" && mkdir -p "$scratch/golden" && cp -r "$dir/." "$scratch/golden/" || exit 1
		SECONDS=0
		(cd "$scratch/golden" && COLUMNS=100 TERM=dumb timeout -k 10 "$limit" sh ./cmd) \
			< /dev/null > "$scratch/raw" 2>&1
		status=$?
		sed "s|$scratch/golden|@DIR@|g; s|$top|@TOP@|g" "$scratch/raw" > "$scratch/got"
		[ $status -eq 0 ] || echo "[exit $status]" >> "$scratch/got"
		if [ "${UPDATE:-0}" = 1 ]; then
			[ -e "$dir/expect" ] || : > "$dir/expect"
			diff -u "$dir/expect" "$scratch/got"
			cp "$scratch/got" "$dir/expect"
		fi
		if diff -u "$dir/expect" "$scratch/got" > "$scratch/out" 2>&1; then
			report "golden/$name" 1 0 0 "$scratch/out"
		else
			report "golden/$name" 0 1 0 "$scratch/out"
		fi
	done
}

run_headers()
{
	local compiler=$1 header

	shift
	for header; do
		SECONDS=0
		printf '#include "%s"\n#include "%s"\n' "$header" "$header" > "$scratch/header.c"
		# shellcheck disable=SC2086 # the compiler and its options
		if $compiler -fsyntax-only "$scratch/header.c" > "$scratch/out" 2>&1; then
			report "headers/$header" 1 0 0 "$scratch/out"
		else
			report "headers/$header" 0 1 0 "$scratch/out"
		fi
	done
}

kind=${1:?usage: tests/run.sh KIND ARGUMENTS...}
shift
limit=120
case $kind in
checks | programs | fuzz | libfuzzer | golden | headers) "run_$kind" "$@" ;;
*)
	echo "tests/run.sh: no such kind: $kind" >&2
	exit 2
	;;
esac
if [ -n "${BP_TALLY:-}" ]; then
	echo "$passed $failed $skipped" >> "$BP_TALLY"
else
	echo "$passed passed, $failed failed, $skipped skipped"
fi
[ "$failed" -eq 0 ]
