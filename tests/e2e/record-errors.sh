#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What goes wrong before, while and after recording: one clear line each, and the exit status.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3 objcopy
requires_bootprof
[ -e "$BOOTPROF_GUEST/guest.elf" ] || skip_all 'the test guest is not built'

# refused STATUS NAME REGEX COMMAND...: one line that matches, nothing on standard output
refused()
{
	local want=$1 name=$2 regex=$3

	shift 3
	status "$want" "$name: exit status $want" "$@" && one_line "$name: one clear line" "$regex"
	[ ! -s "$T/out" ] || fail "$name: nothing on standard output" "$(head -n 5 "$T/out")"
}

rec()
{
	record -o "$T/r" "$@"
}

# An earlier recording that no failure may take away.
bare -device isa-debug-exit,iobase=0xf4,iosize=4
status 1 'a recording' rec -- "${qemu[@]}"
cp "$T/r" "$T/good"
bare

# QEMU.
refused 1 'a wrong path to QEMU' '/nonexistent/qemu: No such file' rec -- /nonexistent/qemu -M pc
refused 1 'a QEMU that is not installed' 'qemu-system-none: No such file' rec -- qemu-system-none -M pc
refused 1 'a directory as QEMU' "$T: Permission denied" rec -- "$T" -M pc
cat > "$T/qemu-without-plugins" <<'END'
#!/bin/sh
case "$*" in
-version | --version) echo 'QEMU emulator version 8.2.0' ;;
-help | --help) printf 'usage: qemu-system-x86_64 [options] [disk_image]\n-kernel bzImage use this\n-plot x\n' ;;
*-plugin*) echo 'qemu-system-x86_64: -plugin: invalid option' >&2 && exit 1 ;;
esac
END
printf '#!/bin/sh\nexit 3\n' > "$T/broken"
chmod +x "$T/qemu-without-plugins" "$T/broken"
status 1 'a QEMU without plugins: exit status 1' rec -- "$T/qemu-without-plugins" -M pc
grep -v '^qemu-system-x86_64: ' "$T/err" > "$T/own" && cp "$T/own" "$T/err"
one_line 'a QEMU without plugins: one clear line' 'qemu-without-plugins was built without TCG plugins'
refused 1 'a QEMU that fails' 'broken ended with status 3' rec -- "$T/broken" -M pc
for accel in '-accel kvm' '-enable-kvm' '-M pc,accel=kvm' '-accel kvm:tcg'; do
	# shellcheck disable=SC2086 # two words
	refused 1 "$accel" '-accel kvm: .*neither calls nor instructions can be recorded' \
		rec -- qemu-system-x86_64 -m 64 $accel -kernel "$BOOTPROF_GUEST/guest.elf" -display none
done
status 1 'a QEMU option that does not exist' rec -- "${qemu[@]}" -no-such-option
like 'a QEMU option that does not exist: QEMU says so' 'no-such-option: invalid option' "$T/err"
refused 2 '-daemonize' 'must stay in the foreground' rec -- "${qemu[@]}" -daemonize
refused 1 'no plugin' '/nonexistent.so: No such file' rec --plugin /nonexistent.so -- "${qemu[@]}"

# The kernel.
kernel()
{
	qemu=(qemu-system-x86_64 -M pc -m 256 -kernel "$1" -display none -serial null -monitor none -nic none -no-reboot)
}
objcopy --strip-all "$BOOTPROF_GUEST/guest.elf" "$T/stripped.elf"
head -c 100000 /dev/zero > "$T/zeros"
kernel "$T/stripped.elf"
refused 1 'a kernel without symbols' 'stripped.elf: kernel without symbols' rec -- "${qemu[@]}"
kernel "$T/zeros"
status 1 'a file that is no kernel' rec -- "${qemu[@]}"
like 'a file that is no kernel: it is named' '^bootprof record: .*zeros: .*neither a bzImage nor an ELF' "$T/err"
kernel "$T/nothing"
status 1 'a kernel that does not exist' rec -- "${qemu[@]}"
like 'a kernel that does not exist: it is named' '^bootprof record: .*nothing: No such file' "$T/err"

# The same guest with another build-id.
build_id()
{
	readelf -n "$1" | sed -n 's/.*Build ID: //p'
}
python3 - "$BOOTPROF_GUEST/guest.elf" "$T/other.elf" "$(build_id "$BOOTPROF_GUEST/guest.elf")" <<'END'
import sys
image, old = open(sys.argv[1], 'rb').read(), bytes.fromhex(sys.argv[3])
assert image.count(old) == 1
open(sys.argv[2], 'wb').write(image.replace(old, old[::-1]))
END
bare
refused 2 'a vmlinux that does not match' 'other.elf does not belong to this kernel' \
	rec --vmlinux "$T/other.elf" -- "${qemu[@]}"
for file in "$BOOTPROF_GUEST/guest.elf" "$T/other.elf"; do
	like "a vmlinux that does not match: the build-id of ${file##*/} is shown" "$(build_id "$file")" "$T/err"
done
status 0 'a vmlinux that matches' record -o "$T/match" --vmlinux "$BOOTPROF_GUEST/guest.elf" -- "${qemu[@]}"
refused 1 'a vmlinux that is none' 'zeros: .*neither a bzImage nor an ELF' rec --vmlinux "$T/zeros" -- "${qemu[@]}"

# Options.
refused 2 'no QEMU at all' 'no QEMU command line' rec
refused 2 'an option that does not exist' 'bootprof record --help' rec --nonsense -- "${qemu[@]}"
refused 2 'an option without its value' 'bootprof record --help' record --timeout
for option in '--timeout=soon' '--timeout=-1' '--timeout=0' '--until-port=0xf4' '--until-port=0x10000=1' \
	'--until-port=0xf4=256' '--until-console=[' '--max-size=small' '--max-size=1'; do
	refused 2 "$option" "${option%%=*} '" rec "$option" -- "${qemu[@]}"
done
refused 2 'a function that the kernel does not have' 'no function no_such_function' \
	rec --until-function no_such_function -- "${qemu[@]}"
refused 1 'a guest root that does not exist' '/nonexistent: No such file' rec --guest-root /nonexistent -- "${qemu[@]}"

ok 'no failure has touched the earlier recording' cmp "$T/r" "$T/good"
ok 'and none has left another file' test ! -e "$T/r.old"

# The output.
mkdir "$T/dir"
refused 1 'the output is a directory' 'dir: .*Is a directory' record -o "$T/dir" -- "${qemu[@]}"
refused 1 'the output is a device' '/dev/full: .*not a regular file' record -o /dev/full -- "${qemu[@]}"
refused 1 'the output is in no directory' 'none/r: .*No such file' record -o "$T/none/r" -- "${qemu[@]}"
for i in 1 2; do
	status 0 "recording number $i over an earlier one" rec -- "${qemu[@]}"
done
ok 'the last but one is kept' "$BOOTPROF" info -i "$T/r.old"

# A full disk: what was written reads back.
full()
{
	# shellcheck disable=SC2016 # for the inner shell
	unshare "$@" -m sh -c 'mount -t tmpfs -o size=400k none "$1" || exit 99
		shift
		"$BOOTPROF" record "$@" < /dev/null
		echo $? > "$T/status"
		cp "$T/dir/r" "$T/full"' sh "$T/dir" -o "$T/dir/r" -- "${qemu[@]}"
}
export T
if [ -z "${BOOTPROF_TEST_KERNEL:-}" ]; then
	skip 'no space' 'no kernel'
elif ! unshare -m true 2> /dev/null && ! unshare -rm true 2> /dev/null; then
	skip 'no space' 'no small file system can be made here'
else
	linux "$BOOTPROF_TEST_INITRD" ''
	root=
	[ "$(id -u)" -eq 0 ] || root=-r
	# shellcheck disable=SC2086 # an option or nothing
	full $root > "$T/out" 2> "$T/err"
	is 'no space: exit status 1' "$(cat "$T/status")" 1
	one_line 'no space: one clear line' 'dir/r: .*No space left on device'
	ok 'no space: what was written reads back' "$BOOTPROF" info --format=json -i "$T/full"
	is 'no space: and is said to be unfinished, not damaged' \
		"$(json "$T/out" '[d["damage"]["unfinished"], d["damage"]["bad_chunks"], d["calls"] > 1000]')" '[true, 0, true]'
fi

# Reading. A recording of a newer format has a right checksum.
python3 - "$T/good" "$T" <<'END'
import struct
import sys

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff

good = open(sys.argv[1], 'rb').read()
assert struct.unpack_from('<I', good, 60)[0] == crc32c(good[:60])

def write(name, data):
    open(sys.argv[2] + '/' + name, 'wb').write(data)

def header(name, offset, form, value):
    head = bytearray(good[:60])
    struct.pack_into(form, head, offset, value)
    write(name, bytes(head) + struct.pack('<I', crc32c(head)) + good[64:])

header('newer', 8, '<H', struct.unpack_from('<H', good, 8)[0] + 1)
header('feature', 24, '<Q', 1 << 40)
write('truncated', good[:len(good) * 2 // 3])
write('header-only', good[:64])
write('short', good[:40])
write('flipped', good[:len(good) // 2] + bytes([good[len(good) // 2] ^ 0x40]) + good[len(good) // 2 + 1:])
END
: > "$T/empty"
for command in info dump 'report functions' 'export --format=folded'; do
	# shellcheck disable=SC2086 # words
	reading()
	{
		refused 1 "$command: $1" "$2" "$BOOTPROF" $command -i "$3"
	}
	reading 'a recording of a newer format' 'newer' "$T/newer"
	reading 'a recording with an unknown feature' 'feature' "$T/feature"
	reading 'an empty file' 'empty: .*' "$T/empty"
	reading 'a part of a header' 'short: .*' "$T/short"
	reading 'a file that is no recording' 'zeros: .*' "$T/zeros"
	reading 'a directory' 'dir: .*[Ii]s a directory' "$T/dir"
	reading 'no file' 'nothing: .*No such file' "$T/nothing"
	for file in truncated flipped header-only; do
		# shellcheck disable=SC2086
		status 0 "$command: $file: what is there is read" "$BOOTPROF" $command -i "$T/$file"
		cat "$T/err" >> "$T/out"
		like "$command: $file: and what is not is said" \
			'not finished|damaged|is lost|(could not|cannot) be read' "$T/out"
	done
done
