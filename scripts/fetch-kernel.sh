#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Prints the path of the distribution's cloud kernel (a bzImage), fetched but not installed:
#
#   scripts/fetch-kernel.sh            CACHE/CODENAME/PACKAGE_VERSION/boot/vmlinuz-RELEASE
#   scripts/fetch-kernel.sh --modules  the directory with its modules (.../modules/RELEASE)
#   scripts/fetch-kernel.sh --debug    the vmlinux with debug information of that same kernel (about 300 MB to fetch)
#   scripts/fetch-kernel.sh --update   the newest one, even when an older one is there
#
# CACHE is $BOOTPROF_CACHE, by default ${XDG_CACHE_HOME:-~/.cache}/bootprof. Needs apt and dpkg-deb, no root.
set -euo pipefail

die()
{
	echo "scripts/fetch-kernel.sh: $*" >&2
	exit 1
}

want=image update=0
for arg; do
	case $arg in
	--modules) want=modules ;;
	--debug) want=debug ;;
	--update) update=1 ;;
	*) die "usage: scripts/fetch-kernel.sh [--modules|--debug] [--update]" ;;
	esac
done

codename=unknown
[ -r /etc/os-release ] && codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-$ID}")
base=${BOOTPROF_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/bootprof}
cache=$base/$codename
mkdir -p "$cache"

# The newest kernel in the cache, nothing when there is none.
newest()
{
	find "$cache" -mindepth 3 -maxdepth 3 -path '*/boot/vmlinuz-*' -type f 2> /dev/null | sort -V | tail -n 1
}

apt_options=(-q -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::http::Timeout=30)

# Package lists of our own, for when the system has none or has old ones; fetching these needs no root.
private_lists()
{
	mkdir -p "$base/apt/lists/partial" "$base/apt/archives/partial"
	apt_options+=(-o "Dir::State::Lists=$base/apt/lists" -o "Dir::Cache=$base/apt"
		-o "Dir::Cache::archives=$base/apt/archives")
	apt-get "${apt_options[@]}" update > "$base/apt/log" 2>&1
}

# "PACKAGE VERSION" of the image that linux-image-cloud-amd64 stands for.
resolve()
{
	local name version

	name=$(apt-cache "${apt_options[@]}" depends linux-image-cloud-amd64 2> /dev/null |
		sed -nE 's/^ *Depends: (linux-image-[0-9][^ ]*-cloud-amd64).*/\1/p' | sed -n 1p)
	[ -n "$name" ] || return 1
	version=$(apt-cache "${apt_options[@]}" policy "$name" | sed -nE 's/^ *Candidate: //p')
	[ -n "$version" ] && [ "$version" != '(none)' ] || return 1
	echo "$name $version"
}

# download PACKAGE VERSION DIR: leaves the only .deb in DIR.
download()
{
	(cd "$3" && apt-get "${apt_options[@]}" download "$1=$2") > "$3/log" 2>&1
}

work=
cleanup()
{
	[ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fetch_image()
{
	local name version dir

	command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null ||
		die "needs apt-get and dpkg-deb; elsewhere set BOOTPROF_TEST_KERNEL to a bzImage"
	read -r name version < <(resolve) || { private_lists && read -r name version < <(resolve); } ||
		die "cannot find out which kernel linux-image-cloud-amd64 is (no network?)"
	dir=$cache/${name}_${version//[^A-Za-z0-9.+~-]/_}
	[ ! -d "$dir" ] || return 0
	work=$(mktemp -d "$cache/.tmp.XXXXXX")
	mkdir "$work/deb" "$work/root"
	if ! download "$name" "$version" "$work/deb"; then
		# The lists are older than the mirror.
		private_lists && read -r name version < <(resolve) && download "$name" "$version" "$work/deb" ||
			die "cannot download $name: $(tail -n 1 "$work/deb/log")"
		dir=$cache/${name}_${version//[^A-Za-z0-9.+~-]/_}
	fi
	dpkg-deb -x "$work"/deb/*.deb "$work/root"
	printf '%s %s\n' "$name" "$version" > "$work/root/package"
	chmod -R u+rwX,go+rX "$work/root"
	# Another process may have been faster: then its copy is as good.
	mv -T "$work/root" "$dir" 2> /dev/null || [ -d "$dir" ]
	cleanup
	work=
}

fetch_debug()
{
	local dir=$1 name version vmlinux release

	release=$(basename "$(echo "$dir"/boot/vmlinuz-*)")
	release=${release#vmlinuz-}
	vmlinux=$dir/debug/vmlinux-$release
	if [ ! -f "$vmlinux" ]; then
		read -r name version < "$dir/package"
		work=$(mktemp -d "$cache/.tmp.XXXXXX")
		mkdir "$work/deb" "$work/root"
		download "$name-dbg" "$version" "$work/deb" ||
			{ private_lists && download "$name-dbg" "$version" "$work/deb"; } ||
			die "cannot download $name-dbg: $(tail -n 1 "$work/deb/log")"
		dpkg-deb --fsys-tarfile "$work"/deb/*.deb |
			tar -x -C "$work/root" --wildcards '*/boot/vmlinux-*' || die "no vmlinux in $name-dbg"
		mkdir -p "$dir/debug"
		mv "$(find "$work/root" -name "vmlinux-$release" -type f | sed -n 1p)" "$vmlinux"
		cleanup
		work=
	fi
	echo "$vmlinux"
}

image=$(newest)
if [ -z "$image" ] || [ $update -eq 1 ]; then
	fetch_image
	image=$(newest)
fi
[ -n "$image" ] || die "the package has no boot/vmlinuz"
root=${image%/boot/*}
case $want in
image) echo "$image" ;;
modules)
	for modules in "$root"/lib/modules/* "$root"/usr/lib/modules/*; do
		[ ! -d "$modules/kernel" ] || break
	done
	[ -d "$modules/kernel" ] || die "no modules beside $image"
	echo "$modules"
	;;
debug) fetch_debug "$root" ;;
esac
