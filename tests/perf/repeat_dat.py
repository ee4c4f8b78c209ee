#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a long trace.dat of a short one: repeat_dat.py IN OUT TIMES

IN is of version 6, not packed. The pages of each CPU are repeated, each round with later time stamps; nothing else
changes.
"""
import struct
import sys

PAGE = 4096
SECOND = 10 ** 9


def main():
    source, target, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(source, 'rb') as f:
        data = f.read()
    table = data.rindex(b'flyrecord\0') + 10
    # The table ends where the first CPU's pages can begin at the earliest; CPUs without pages count as well.
    cpus = []
    while not cpus or table + 16 * len(cpus) < min(o for o, n in cpus):
        offset, size = struct.unpack_from('<QQ', data, table + 16 * len(cpus))
        if offset < table or offset + size > len(data) or offset % PAGE:
            break
        cpus.append((offset, size))
    pages = [[data[o + i:o + i + PAGE] for i in range(0, n, PAGE)] for o, n in cpus]
    stamps = [struct.unpack_from('<Q', p)[0] for c in pages for p in c]
    span = max(stamps) - min(stamps) + SECOND
    first = min(o for o, n in cpus)
    with open(target, 'wb') as f:
        f.write(data[:table])
        at = first
        for _, size in cpus:
            f.write(struct.pack('<QQ', at, size * times))
            at += size * times
        f.write(data[table + 16 * len(cpus):first])
        for cpu in pages:
            for i in range(times):
                for page in cpu:
                    f.write(struct.pack('<Q', struct.unpack_from('<Q', page)[0] + i * span) + page[8:])


main()
