#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares what bootprof reports about the test guest with tests/guest/expected.txt, exactly.

Usage: tests/guest/compare.py FILE, with the output of `bootprof report functions --format=json`; TAP on
standard output. Columns with `-` are not compared.

Return thunks and retpolines belong to whoever uses them: ftrace does not see them either, and a profile
in which a third of all returns stood under __x86_return_thunk would hide what it is asked for. Their
instructions are expected with the callers.
"""
import json
import os
import sys

THUNKS = {'__x86_return_thunk': 'thunked', '__x86_indirect_thunk_rax': 'retpoline_call'}
COLUMNS = ('calls', 'self_insns', 'total_insns')


def read_expected(path):
    rows = {}
    with open(path) as f:
        for line in f:
            fields = line.split('#')[0].split()
            if fields:
                rows[fields[0]] = [None if x == '-' else int(x) for x in fields[1:4]]
    for thunk, user in THUNKS.items():
        rows[user][1] += rows.pop(thunk)[1]
    return rows


def main():
    with open(sys.argv[1]) as f:
        report = json.load(f)
    got = {}
    for row in report['rows']:
        if row.get('module') == 'vmlinux':
            known = got.setdefault(row['name'], dict.fromkeys(COLUMNS, 0))
            for column in COLUMNS:
                known[column] += row[column] or 0
    expected = read_expected(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'expected.txt'))
    failed = 0
    print('1..%d' % (len(expected) + 1))
    for number, (name, want) in enumerate(expected.items(), 1):
        have = got.get(name, dict.fromkeys(COLUMNS, 0))
        wrong = ['%s %d, not %d' % (column, have[column], value)
                 for column, value in zip(COLUMNS, want) if value is not None and have[column] != value]
        failed += bool(wrong)
        print('%s %d - %s%s%s' % ('not ok' if wrong else 'ok', number, name, ': ' if wrong else '', ', '.join(wrong)))
    thunks = sorted(THUNKS.keys() & got.keys())
    failed += bool(thunks)
    print('%s %d - thunks are not functions of their own%s' % ('not ok' if thunks else 'ok', len(expected) + 1,
          ': ' + ', '.join(thunks) if thunks else ''))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
