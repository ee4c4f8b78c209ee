#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Makes a small initrd to try bootprof with: scripts/make-initrd.sh OUT [--modules] [--init FILE] [--file FILE=PATH]...
#
#   --modules    with modules of the kernel that scripts/fetch-kernel.sh finds, or of $BOOTPROF_TEST_KERNEL,
#                inserted and one of them removed again
#   --init FILE  FILE as /init instead of our own
#   --file FILE=PATH  also FILE, as PATH in the guest
#
# The same inputs give the same bytes: sorted, owner 0, times from SOURCE_DATE_EPOCH (0). In it: a static busybox, a
# dynamically linked env and ls with their libraries, and an /init that works a little, says
# "bootprof-guest: ready" on the console, and powers off.
set -euo pipefail
export LC_ALL=C

die()
{
	echo "scripts/make-initrd.sh: $*" >&2
	exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
out= init= modules=0 files=()
while [ $# -gt 0 ]; do
	case $1 in
	--modules) modules=1 ;;
	--init)
		init=${2:?--init needs a file}
		shift
		;;
	--file)
		[[ ${2:-} == *=/* ]] || die "--file needs FILE=PATH"
		files+=("$2")
		shift
		;;
	-*) die "unknown option $1" ;;
	*) out=$1 ;;
	esac
	shift
done
[ -n "$out" ] || die "usage: scripts/make-initrd.sh OUT [--modules] [--init FILE] [--file FILE=PATH]..."

for tool in cpio gzip ldd; do
	command -v "$tool" > /dev/null || die "$tool is not installed"
done
busybox=$(command -v busybox) || die "busybox is not installed (Debian: busybox-static)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,usr/bin,lib/modules}

cp "$busybox" "$root/bin/busybox"
if ldd "$busybox" > /dev/null 2>&1; then
	die "$busybox is not statically linked (Debian: busybox-static)"
fi
for applet in sh mount umount cat echo dd ls grep sed sort wc sleep true mkdir insmod rmmod poweroff reboot; do
	ln -s busybox "$root/bin/$applet"
done

# Programs with an interpreter and shared libraries, at the paths that they expect.
for program in /usr/bin/env /usr/bin/ls; do
	[ -x "$program" ] || continue
	cp -L "$program" "$root$program"
	ldd "$program" | sed -nE 's|^[^/]*(/[^ ]+) \(0x.*|\1|p' | while read -r library; do
		mkdir -p "$root${library%/*}"
		cp -L "$library" "$root$library"
	done
done

# add_module NAME: the module and what it depends on, in the order of insertion, into etc/modules.
add_module()
{
	local name=$1 file needed one target

	# The same module is spelled with - or _.
	file=$(find "$tree/kernel" -name "${name//[-_]/[-_]}.ko*" -type f | sort | sed -n 1p)
	[ -n "$file" ] || return 0 # built in
	target=$root/lib/modules/$name.ko
	[ ! -e "$target" ] || return 0
	case $file in
	*.xz) xz -dc "$file" > "$target" ;;
	*.zst) zstd -qdc "$file" > "$target" ;;
	*.gz) gzip -dc "$file" > "$target" ;;
	*) cp "$file" "$target" ;;
	esac
	needed=$(tr '\0' '\n' < "$target" | sed -n 's/^depends=//p' | sed -n 1p)
	for one in ${needed//,/ }; do
		add_module "${one//-/_}"
	done
	echo "$name" >> "$root/etc/modules"
}

if [ $modules -eq 1 ]; then
	if [ -n "${BOOTPROF_TEST_KERNEL:-}" ]; then
		top=$(dirname "$(dirname "$(readlink -f "$BOOTPROF_TEST_KERNEL")")")
		release=${BOOTPROF_TEST_KERNEL##*/vmlinuz-}
		for tree in "$top/lib/modules/$release" "$top/usr/lib/modules/$release"; do
			[ -d "$tree/kernel" ] && break
		done
	else
		tree=$("$here/fetch-kernel.sh" --modules)
	fi
	[ -d "$tree/kernel" ] || die "no modules beside the kernel ${BOOTPROF_TEST_KERNEL:-}"
	: > "$root/etc/modules"
	for module in virtio virtio_ring virtio_pci virtio_blk virtio_net dm_mod; do
		add_module $module
	done
	[ -s "$root/etc/modules" ] || die "none of the wanted modules is in $tree"
fi

if [ -n "$init" ]; then
	cp -L "$init" "$root/init"
else
	cat > "$root/init" <<'END'
#!/bin/sh
export PATH=/bin:/usr/bin
/bin/mount -t proc proc /proc
/bin/mount -t sysfs sysfs /sys
/bin/mount -t devtmpfs dev /dev 2> /dev/null

if [ -e /etc/modules ]; then
	while read -r module; do
		/bin/insmod "/lib/modules/$module.ko" || echo "bootprof-guest: insmod $module failed"
	done < /etc/modules
	/bin/rmmod dm_mod || echo "bootprof-guest: rmmod failed"
fi

# Processes: static and dynamic ones, a pipe, a loop in the shell itself.
i=0
while [ $i -lt 5 ]; do
	/bin/busybox true
	/usr/bin/env A=$i /bin/true
	i=$((i + 1))
done
/usr/bin/ls -l /bin > /tmp/listing
/bin/grep -c busybox /tmp/listing | /bin/sort > /tmp/count
i=0
while [ $i -lt 2000 ]; do
	i=$((i + 1))
done

# Files.
/bin/dd if=/dev/zero of=/tmp/zero bs=4096 count=256 2> /dev/null
/bin/dd if=/tmp/zero of=/dev/null bs=512 2> /dev/null

echo "bootprof-guest: ready"
/bin/poweroff -f
END
fi
chmod 755 "$root/init"
for file in "${files[@]}"; do
	mkdir -p "$root$(dirname "${file#*=}")"
	cp -L "${file%%=*}" "$root${file#*=}"
done

find "$root" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
chmod -R u=rwX,go=rX "$root"
mkdir -p "$(dirname "$out")"
(cd "$root" && find . -mindepth 1 -print0 | sort -z |
	cpio -0 -o -H newc -R +0:+0 --reproducible --quiet) > "$work/initrd.cpio"
gzip -n -1 < "$work/initrd.cpio" > "$work/initrd.gz"
cp "$work/initrd.gz" "$out.tmp.$$"
mv "$out.tmp.$$" "$out"
