#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks tests/guest/expected.txt against QEMU's own log, without bootprof.

Runs the guest with one instruction per translation block and every execution logged (-d exec,nochain), and counts.
Usage: tests/guest/verify.py [guest.elf]; TAP on standard output.
"""
import bisect
import os
import re
import subprocess
import sys


def tool(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def read_expected(path):
    rows = {}
    with open(path) as f:
        for line in f:
            fields = line.split('#')[0].split()
            if fields:
                rows[fields[0]] = [None if x == '-' else int(x) for x in fields[1:4]]
    return rows


def functions(elf):
    """Start addresses, sorted, and (name, end) of each, from the symbol table."""
    found = {}
    for line in tool('nm', '-S', elf).splitlines():
        m = re.match(r'([0-9a-f]{16}) ([0-9a-f]{16}) [Tt] (\S+)$', line)
        if m:
            found[int(m[1], 16)] = (m[3], int(m[1], 16) + int(m[2], 16))
    return sorted(found), found


def jumps(elf):
    """Addresses of jump instructions."""
    found = set()
    for line in tool('objdump', '-d', '--no-show-raw-insn', elf).splitlines():
        m = re.match(r'\s*([0-9a-f]+):\s+(?:notrack |bnd )?(j\w+)', line)
        if m:
            found.add(int(m[1], 16))
    return found


def executed(log):
    """Addresses of the instructions that ran, in order.

    "Stopped execution ... before" takes the last line back: somebody wanted the vCPU, it will come again.
    """
    pending = None
    for line in log:
        m = re.match(r'Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/', line)
        if m:
            if pending is not None:
                yield pending
            pending = int(m[1], 16)
        elif line.startswith('Stopped execution'):
            pending = None
    if pending is not None:
        yield pending


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    guest = os.environ.get('BOOTPROF_GUEST', os.path.join(here, '../../build/guest'))
    elf = sys.argv[1] if len(sys.argv) > 1 else os.path.join(guest, 'guest.elf')
    qemu = os.environ.get('QEMU', 'qemu-system-x86_64')
    version = re.search(r'version (\d+)\.(\d+)', tool(qemu, '--version'))
    single = ['-singlestep', '-accel', 'tcg'] if (int(version[1]), int(version[2])) < (8, 1) \
        else ['-accel', 'tcg,one-insn-per-tb=on']

    starts, info = functions(elf)
    is_jump = jumps(elf)
    command = [qemu, *single, '-M', 'pc', '-m', '64', '-kernel', elf, '-display', 'none', '-serial', 'null',
               '-monitor', 'none', '-nic', 'none', '-no-reboot', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
               '-d', 'exec,nochain', '-dfilter', '0xffffffff81000000+0x100000', '-D', '/dev/stdout']
    entries, own = {}, {}
    previous = previous_name = None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as run:
        for pc in executed(run.stdout):
            at = bisect.bisect_right(starts, pc) - 1
            name, end = info[starts[at]] if at >= 0 else ('', 0)
            if pc >= end:
                name = ''
            own[name] = own.get(name, 0) + 1
            if name and pc == starts[at] and not (previous_name == name and previous in is_jump):
                entries[name] = entries.get(name, 0) + 1
            previous, previous_name = pc, name
    failed = 0
    rows = read_expected(os.path.join(here, 'expected.txt'))
    print('1..%d' % (len(rows) + 1))
    for number, (name, (want_entries, want_own, _)) in enumerate(rows.items(), 1):
        got = entries.get(name, 0), own.get(name, 0)
        good = want_entries in (None, got[0]) and want_own in (None, got[1])
        failed += not good
        print('%s %d - %s: %d entries, %d instructions%s' % ('ok' if good else 'not ok', number, name, *got,
              '' if good else ' (expected %s, %s)' % (want_entries, want_own)))
    status = run.returncode
    failed += status != 1
    print('%s %d - QEMU ended through the debug exit device (status %d)'
          % ('ok' if status == 1 else 'not ok', len(rows) + 1, status))
    print('# %d instructions in all' % sum(own.values()))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
