#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what building and testing bootprof needs on Debian 12 and 13. Does nothing, quickly, when
# nothing is missing. Everywhere else it names what is needed and leaves the rest to the user.
set -euo pipefail

# Compiler and libraries; QEMU; what the test guests and the scripts are made with.
packages=(
	gcc libc6-dev binutils make pkg-config
	libelf-dev libdw-dev libzstd-dev liblzma-dev liblz4-dev zlib1g-dev libjansson-dev libyaml-dev libncurses-dev
	libtracefs-dev libtraceevent-dev libbpf-dev libcmocka-dev
	qemu-system-x86
	busybox-static cpio gzip xz-utils zstd python3 tmux
)

complain()
{
	cat >&2 <<END
scripts/deps.sh: $1
bootprof needs: gcc (or clang), make, pkg-config, and the development files of libelf and libdw (elfutils), libzstd,
liblzma, liblz4, zlib, jansson, libyaml, ncursesw, libtracefs and libbpf; qemu-system-x86_64 7.2 or newer with TCG
plugins; for the tests cmocka, a static busybox, cpio, gzip, xz, zstd, python3 and tmux. On Debian these are:
  ${packages[*]}
END
	exit 1
}

if ! command -v dpkg-query > /dev/null; then
	# Not Debian: good enough if the tools are there. The Makefile looks for the libraries itself.
	for tool in gcc pkg-config qemu-system-x86_64; do
		command -v "$tool" > /dev/null || complain "$tool is missing and this is not Debian"
	done
	exit 0
fi

missing=()
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2> /dev/null |
	sed -n 's/ installed$//p') || true
for package in "${packages[@]}"; do
	grep -qxF "$package" <<< "$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get > /dev/null || complain "missing: ${missing[*]}; there is no apt-get"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo > /dev/null || complain "missing: ${missing[*]}; run this as root, or install sudo"
	as_root=(sudo)
fi

echo "installing: ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)
install()
{
	"${apt[@]}" install --no-install-recommends "${missing[@]}"
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${apt[@]}" update && install; } > "$log" 2>&1; then
	tail -n 30 "$log" >&2
	complain "could not install: ${missing[*]}"
fi
