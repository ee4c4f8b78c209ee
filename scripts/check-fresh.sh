#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# `make demo` and `make check` of HEAD in new chroots of Debian 12 and 13, as somebody who has just cloned it.
#
#   scripts/check-fresh.sh [bookworm] [trixie]      needs root, debootstrap and a network
#
# DEBIAN_MIRROR (http://deb.debian.org/debian) is used inside too. Logs stay in O/fresh-SUITE.log.
# KEEP=1 leaves the chroots. FRESH_DIR: where they are made (a temporary directory).
set -euo pipefail
cd "$(dirname "$0")/.."
top=$(pwd)
O=${O:-build}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)

die()
{
	echo "scripts/check-fresh.sh: $*" >&2
	exit 1
}

[ "$(id -u)" -eq 0 ] || die 'needs root (chroot, mount)'
for tool in debootstrap git chroot; do
	command -v $tool > /dev/null || die "$tool is not installed"
done
[ -z "$(git status --porcelain --untracked-files=no)" ] ||
	echo 'check-fresh: there are changes that are not committed; they are not tested'

work=$(mktemp -d "${FRESH_DIR:-${TMPDIR:-/var/tmp}}/bootprof-fresh.XXXXXX")

# Only what is mounted below the chroots, deepest first; then nothing of the host's can be removed.
unmount()
{
	evict
	awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | sort -r |
		while read -r point; do
			umount "$point" 2> /dev/null || umount -l "$point" || true
		done
}
finish()
{
	local status=$?

	trap - EXIT
	unmount
	if awk -v dir="$work/" 'index($2, dir) == 1 { found = 1 } END { exit !found }' /proc/self/mounts; then
		echo "check-fresh: something is still mounted below $work; not removed" >&2
	elif [ "${KEEP:-0}" = 1 ]; then
		echo "check-fresh: left in $work"
	else
		rm -rf --one-file-system "$work"
	fi
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Called where a failure does not end the script by itself, hence the &&.
mount_all()
{
	# A mount point of its own, without which no mount namespaces can be made inside.
	mount --bind "$1" "$1" &&
	mount -t proc proc "$1/proc" &&
	mount -t sysfs -o ro sysfs "$1/sys" &&
	mount -t tmpfs -o mode=755,size=1m tmpfs "$1/dev" &&
	mkdir "$1/dev/shm" "$1/dev/pts" &&
	mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm" &&
	mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$1/dev/pts" &&
	mknod -m 666 "$1/dev/null" c 1 3 &&
	mknod -m 666 "$1/dev/zero" c 1 5 &&
	mknod -m 666 "$1/dev/full" c 1 7 &&
	mknod -m 666 "$1/dev/random" c 1 8 &&
	mknod -m 666 "$1/dev/urandom" c 1 9 &&
	mknod -m 666 "$1/dev/tty" c 5 0 &&
	ln -s pts/ptmx "$1/dev/ptmx" &&
	ln -s /proc/self/fd "$1/dev/fd" &&
	ln -s /proc/self/fd/0 "$1/dev/stdin" &&
	ln -s /proc/self/fd/1 "$1/dev/stdout" &&
	ln -s /proc/self/fd/2 "$1/dev/stderr"
}

# inside ROOT COMMAND. Not in a PID namespace of its own: `record --waits` does not work in one.
inside()
{
	chroot "$1" /usr/bin/env -i HOME=/root TERM=dumb \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
		/bin/bash -c "$2"
}

# Nothing that was started in a chroot outlives it.
evict()
{
	local link

	for link in /proc/[0-9]*/root; do
		case $(readlink "$link" 2> /dev/null) in "$work"/*) kill -9 "${link//[!0-9]/}" 2> /dev/null || true ;; esac
	done
}

one()
{
	local suite=$1 root=$work/$1 log=$2 proxy

	mkdir -p "$root"
	echo "== $suite: debootstrap"
	debootstrap --variant=minbase --include=make,git,ca-certificates "$suite" "$root" "$mirror" >> "$log" 2>&1 ||
		return 1
	# The host's own way to the network.
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/" 2> /dev/null || true
	proxy=$(apt-config dump 2> /dev/null | grep -iE '^Acquire::https?::Proxy' || true)
	[ -z "$proxy" ] || echo "$proxy" > "$root/etc/apt/apt.conf.d/90proxy"
	mount_all "$root" || return 1
	git clone -q --no-hardlinks "$top" "$root/root/bootprof" >> "$log" 2>&1 || return 1
	echo "== $suite: make demo"
	SECONDS=0
	inside "$root" 'cd /root/bootprof && make demo' >> "$log" 2>&1 || return 1
	echo "== $suite: make demo done in $SECONDS s; make check"
	SECONDS=0
	inside "$root" 'cd /root/bootprof && make check' >> "$log" 2>&1 || return 1
	echo "== $suite: make check done in $SECONDS s"
}

mkdir -p "$O"
result=0
summary=()
for suite in "${suites[@]}"; do
	log=$top/$O/fresh-$suite.log
	case $O in /*) log=$O/fresh-$suite.log ;; esac
	: > "$log"
	if one "$suite" "$log"; then
		summary+=("$suite: demo and check pass: $(tail -n 1 "$log")")
	else
		result=1
		tail -n 25 "$log" | sed 's/^/    /'
		summary+=("$suite: FAILED, see $log")
	fi
	unmount
	[ "${KEEP:-0}" = 1 ] || rm -rf --one-file-system "${work:?}/$suite"
done
printf '%s\n' "${summary[@]}"
exit $result
