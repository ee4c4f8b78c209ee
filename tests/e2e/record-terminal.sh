#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# On a terminal: the guest's console can be used, there is a line of progress, and the terminal is afterwards what it
# was before, however the recording ended.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3
requires_kernel
requires_bootprof

cat > "$T/init" <<'END'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
echo "bootprof-guest: shell"
/bin/busybox setsid -c /bin/sh < /dev/ttyS0 > /dev/ttyS0 2>&1
poweroff -f
END
initrd "$T/i.img" --init "$T/init"
linux "$T/i.img" 'quiet'

# A terminal with 30 rows and 100 columns and the recorder on it; says what it saw as TAP.
cat > "$T/terminal.py" <<'END'
import fcntl, os, pty, re, select, signal, struct, sys, termios, time

mode, command = sys.argv[1], sys.argv[2:]
seen = b''


def check(ok, name):
    print('%s - %s: %s' % ('ok' if ok else 'not ok', mode, name), flush=True)
    if not ok:
        for line in seen[-400:].split(b'\n'):
            print('# %r' % line, flush=True)


def settings(fd):
    s = termios.tcgetattr(fd)
    return s[:6] + [[bytes(c) if isinstance(c, bytes) else c for c in s[6]]]


def read_until(pattern, seconds):
    """Reads until the output from now on matches, with or without the progress, which may come in the middle of a word."""
    global seen
    start, end = len(seen), time.monotonic() + seconds
    while not any(re.search(pattern, s) for s in (
            seen[start:], re.sub(rb'\x1b7.*?\x1b8', b'', seen[start:], flags=re.DOTALL))):
        if time.monotonic() > end:
            return False
        if select.select([master], [], [], 0.1)[0]:
            try:
                data = os.read(master, 4096)
            except OSError:
                data = b''
            if not data:
                return False
            seen += data
    return True


def screen_row_left(data):
    """Whether the last thing said about the scroll region is that it is the whole screen."""
    regions = re.findall(rb'\x1b\[(\d*;?\d*)r', data)
    return bool(regions) and regions[-1] == b''


master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 30, 100, 0, 0))
before = settings(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(slave, fd)
    os.close(master)
    os.execv(command[0], command)

check(read_until(rb'bootprof-guest: shell', 60), 'the guest boots')
during = settings(slave)
check(not during[3] & (termios.ICANON | termios.ECHO), 'keys go to the guest one by one')
check(re.search(rb'\d+\.\d s  [0-9.]+[kMG]? insns  [0-9.]+[kMG]? calls/s', seen), 'progress is shown')
check(re.search(rb'\x1b\[30;1H', seen), 'in the last row')
read_until(rb'# $', 5)
os.write(master, b'echo $((6 * 7))x\r')
check(read_until(rb'42x', 10), 'the shell in the guest answers')
if mode == 'keys':
    # Ctrl-C is the guest's.
    os.write(master, b'sleep 1000\r')
    read_until(rb'sleep 1000', 5)
    time.sleep(0.5)
    os.write(master, b'\x03')
    os.write(master, b'\recho still $((1 + 1)) here\r')
    check(os.waitpid(pid, os.WNOHANG)[0] == 0, 'Ctrl-C does not end the recording')
    os.write(master, b'\rpoweroff -f\r')
elif mode == 'resize':
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 20, 60, 0, 0))
    os.kill(pid, signal.SIGWINCH)
    check(read_until(rb'\x1b\[20;1H', 5), 'progress moves to the new last row')
    # QEMU's own way out.
    os.write(master, b'\x01x')
else:
    os.kill(pid, signal.SIGTERM)
done, status, end = 0, 0, time.monotonic() + 60
while not done and time.monotonic() < end:
    read_until(rb'nothing matches this', 0.2)
    done, status = os.waitpid(pid, os.WNOHANG)
check(done, 'the recording ends')
if not done:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
read_until(rb'nothing matches this', 0.2)
check(os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, 'exit status 0')
check(settings(slave) == before, 'the terminal has its settings back')
check(screen_row_left(seen), 'and its last row')
check(re.search(rb'bootprof: .*ended by', seen), 'the summary comes last')
END

for mode in keys resize sigterm; do
	export TERM=xterm
	within 150 python3 "$T/terminal.py" $mode "$BOOTPROF" record -o "$T/r" -- "${qemu[@]}" > "$T/tap" 2>&1
	status=$?
	while IFS= read -r line; do
		case $line in
		'ok - '*) pass "${line#ok - }" ;;
		'not ok - '*) fail "${line#not ok - }" ;;
		*) echo "$line" ;;
		esac
	done < "$T/tap"
	is "$mode: the test of the terminal ended" $status 0
	ok "$mode: the recording is complete" "$BOOTPROF" info --format=json --quick -i "$T/r"
	want=interrupt
	[ $mode = keys ] && want=poweroff
	[ $mode = resize ] && want=exit
	is "$mode: and says how it ended" "$(json "$T/out" 'd["end"]["how"]')" $want
done
