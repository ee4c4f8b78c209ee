#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Functions in user space: /usr/bin/ls of the distribution (without symbols of its own), its libraries and the dynamic
# linker, from the files in the initrd, wherever the kernel puts them.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3 gcc
requires_kernel
requires_report

# A program with symbols and known calls, dynamically linked and position-independent; run twice.
cat > "$T/known.c" <<'END'
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noinline)) int known_leaf(int n)
{
	__asm__ volatile("");
	return n + 1;
}

__attribute__((noinline)) int known_outer(int n)
{
	for (int i = 0; i < 10; i++)
		n = known_leaf(n);
	return n;
}

int main(void)
{
	char *p = NULL;
	int n = 0;

	for (int i = 0; i < 25; i++)
		n = known_outer(n);
	for (int i = 0; i < 7; i++) {
		p = strdup("text");
		free(p);
		n += getppid() > 0;
	}
	return n == 257 ? 0 : 1;
}
END
gcc -O1 -g0 -fno-builtin -fPIE -pie -o "$T/known" "$T/known.c" || fail 'the program compiles'
cat > "$T/init" <<'END'
#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/known && /bin/known && echo "known: right"
/usr/bin/ls -l /bin > /tmp/listing
read a < /proc/sys/kernel/randomize_va_space
echo "aslr: $a"
/bin/poweroff -f
END
initrd "$T/i.img" --init "$T/init" --file "$T/known=/bin/known"
linux "$T/i.img" ''
status 0 'a boot' record -o "$T/r" -- "${qemu[@]}"
tr -d '\r' < "$T/out" > "$T/console"
like 'ASLR is on in the guest' '^aslr: 2$' "$T/console"
like 'the program does what it should' '^known: right' "$T/console"
"$BOOTPROF" report functions --limit 0 --format=json -i "$T/r" > "$T/f" 2> "$T/err"

# calls NAME FILE: of a user function, from files whose path ends so
calls()
{
	json "$T/f" "sum(r['calls'] for r in d['rows'] if r['space'] == 'user' and r['name'] == '$1' and r['module'].endswith('$2'))"
}
is 'a function of the program: its calls' "$(calls known_outer /bin/known)" 50
is 'a function that it calls: its calls' "$(calls known_leaf /bin/known)" 500
is 'main' "$(calls main /bin/known)" 2
is 'the stub of a function of libc' "$(calls getppid@plt /bin/known)" 14
is 'the function itself, bound at its first call' "$(calls getppid /libc.so.6)" 14
cp "$T/f" "$T/all"
"$BOOTPROF" report functions --process known --limit 0 --format=json -i "$T/r" > "$T/f" 2> "$T/err"
is 'one that others call, too' "$(calls strdup /libc.so.6)" 14
cp "$T/all" "$T/f"
between 'libc: what starts a program' "$(calls __libc_start_main /libc.so.6)" 2 10
between 'libc: exit()' "$(calls exit /libc.so.6)" 2 10
between 'functions of libc by name' \
	"$(json "$T/f" "len({r['name'] for r in d['rows'] if r['module'].endswith('/libc.so.6') and r['name'].isidentifier()})")" 40 5000
between 'the dynamic linker: functions by name' \
	"$(json "$T/f" "len({r['name'] for r in d['rows'] if 'ld-linux' in r['module'] and r['name']})")" 5 5000
between 'functions of ls' "$(json "$T/f" "len([r for r in d['rows'] if r['module'] == '/usr/bin/ls'])")" 20 5000
is 'the files are those of the guest' \
	"$(json "$T/f" "sorted({r['module'] for r in d['rows'] if r['space'] == 'user'} & {'/bin/known', '/usr/bin/ls', '/bin/busybox'})")" \
	'["/bin/busybox", "/bin/known", "/usr/bin/ls"]'
share=$(json "$T/f" "sum(r['self_insns'] for r in d['rows'] if r['space'] == 'anon') * 100 / sum(r['self_insns'] for r in d['rows'] if r['space'] in ('user', 'anon'))")
between 'at most 1 % of the instructions of user space are in no file' "$share" 0 1
"$BOOTPROF" export --format=folded --clock=insns -i "$T/r" > "$T/folded" 2> "$T/err"
like 'stacks are those of the source' '^known;.*;main [^;]*;known_outer [^;]*;known_leaf ' "$T/folded"
like 'they go from user space into the kernel' '^ls;.*entry_SYSCALL_64' "$T/folded"
"$BOOTPROF" report syscalls --process known --limit 0 --format=json -i "$T/r" > "$T/s" 2> "$T/err"
like 'and from the program into libc' '^known;.*;main [^;]*;getppid@plt [^;]*;getppid [^;]*;entry_SYSCALL_64' "$T/folded"
is 'system calls by name' "$(json "$T/s" "sum(r['name'] == 'getppid' for r in d['rows'])")" 14

# Without user space: faster, and it is said.
status 0 '--no-user' record -o "$T/r" --no-user --until-exec /usr/bin/ls -- "${qemu[@]}"
"$BOOTPROF" report functions --limit 0 --format=json -i "$T/r" > "$T/f" 2> "$T/err"
is '--no-user: no functions of programs' "$(json "$T/f" "sum(r['space'] == 'user' for r in d['rows'])")" 0
between '--no-user: but their instructions' "$(json "$T/f" "sum(r['self_insns'] for r in d['rows'] if r['name'] == '[user]')")" 10000 1e9
"$BOOTPROF" report processes --limit 0 --format=json -i "$T/r" > "$T/p" 2> "$T/err"
is '--no-user: and their processes' "$(json "$T/p" "sum(r['process'] == 'known' for r in d['rows'])")" 2
