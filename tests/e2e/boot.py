#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges the reports of one recorded boot: tests/e2e/boot.py NAME DIRECTORY VCPUS.

DIRECTORY has VIEW.json and VIEW.csv of every view without a limit of rows, info.json, and the exports folded
(instructions), chrome, speedscope and perfetto. One line "ok - ..." or "not ok - ..." for each check, for boot.sh.
"""
import csv
import json
import os
import re
import sys

VIEWS = {
    'overview': 'name start_ns end_ns insns',
    'functions': 'name module self_ns total_ns self_insns total_insns calls',
    'tree': 'name module depth total_ns calls',
    'first-calls': 'name module time_ns insns vcpu process caller',
    'syscalls': 'name process pid time_ns duration_ns',
    'phases': 'name start_ns end_ns insns',
    'modules': 'name process time_ns',
    'processes': 'process pid insns',
    'interrupts': 'name count total_ns',
}
# Where call stacks begin: firmware and boot code, a CPU that starts, a kernel thread, user space, and what user space
# calls in the kernel when its own functions are not known.
ROOTS = re.compile(r'\[user\]|\[halted\]|SeaBIOS|option ROM|boot loader|real-mode setup|decompressor|kernel entry.*|'
                   r'startup_64.*|(secondary|common)_startup_64.*|early_setup_idt|x86_64_start_kernel|ret_from_fork.*|entry_SYSCALL_64.*|'
                   r'asm_(exc|sysvec|common_interrupt).*|.* \[user\]')
UNNAMED = re.compile(r'0x[0-9a-f]+|\[unknown.*|$')

name, directory, vcpus = sys.argv[1], sys.argv[2], int(sys.argv[3])


def check(ok, what, *detail):
    print('%s - %s: %s' % ('ok' if ok else 'not ok', name, what))
    if not ok:
        for line in detail:
            print('# %s' % (line,))


def load(file):
    with open(os.path.join(directory, file)) as f:
        return json.load(f)


def ascending(rows, key):
    return all(a[key] <= b[key] for a, b in zip(rows, rows[1:]))


def documents():
    views = {}
    for view, columns in VIEWS.items():
        d = views[view] = load(view + '.json')
        head = {key: d.get(key) for key in ('schema', 'view', 'clock')}
        check(head == {'schema': 'bootprof-report/1', 'view': view, 'clock': 'time'}, '%s: JSON with the schema' % view,
              head)
        missing = [(i, c) for i, row in enumerate(d['rows']) for c in columns.split() if c not in row]
        check(d['rows'] and not missing, '%s: %d rows with the columns promised' % (view, len(d['rows'])), missing[:5])
        with open(os.path.join(directory, view + '.csv'), newline='') as f:
            table = list(csv.reader(f, strict=True))
        check(len(table) == len(d['rows']) + 1 and all(len(row) == len(table[0]) for row in table)
              and set(columns.split()) <= set(table[0]), '%s: CSV with the same rows' % view,
              '%d lines' % len(table), table[0])
    return views


def phases(views, info):
    d = views['phases']
    rows = d['rows']
    run = info['duration_ns']
    check(0 <= d['unaccounted_ns'] <= run / 100, 'phases: at most 1 %% unaccounted (%.3f %%)' %
          (d['unaccounted_ns'] * 100 / run), d['unaccounted_ns'])
    gaps = [(a['name'], b['name']) for a, b in zip(rows, rows[1:]) if a['end_ns'] != b['start_ns']]
    check(rows[0]['start_ns'] == 0 and not gaps, 'phases: each begins where the last one ended', gaps)
    check(abs(rows[-1]['end_ns'] - run) <= run / 1000, 'phases: to the end of the run', rows[-1], run)
    total = sum(r['end_ns'] - r['start_ns'] for r in rows) + d['unaccounted_ns']
    check(abs(total - run) <= run / 1000, 'phases: the ledger balances', total, run)
    check(sum(r['insns'] for r in rows) == info['insns'], 'phases: all instructions are in one',
          sum(r['insns'] for r in rows), info['insns'])
    have = [r['name'] for r in rows]
    want = ['qemu-setup', 'firmware', 'decompressor', 'kernel-start', 'initcalls-core', 'initcalls-device', 'initcalls-late',
            'user', 'shutdown']
    check([n for n in have if n in want] == want, 'phases: from QEMU to the end of the guest', have)
    check([r['name'] for r in views['overview']['rows']] == have, 'phases: the overview has the same')


def functions(views, info):
    d = views['functions']
    kernel = [r for r in d['rows'] if r['space'] in ('kernel', 'module') or r['name'] == '[unknown]']
    total = sum(r['self_insns'] for r in kernel)
    named = sum(r['self_insns'] for r in kernel if not UNNAMED.match(r['name']))
    check(total > 5e8 and named >= 0.99 * total,
          'functions: at least 99 %% of %d kernel and module instructions have a name (%.4f %%)' %
          (total, named * 100 / total), [(r['name'], r['addr'], r['self_insns']) for r in kernel if
                                         UNNAMED.match(r['name'])][:10])
    everything = sum(r['self_insns'] for r in d['rows'])
    check(abs(everything - info['insns']) <= info['insns'] / 1000, 'functions: all instructions are in one',
          everything, info['insns'])
    by_name = {r['name']: r for r in d['rows'] if r['module'] == 'vmlinux'}
    check(by_name['start_kernel']['calls'] == 1, 'functions: start_kernel is called once', by_name['start_kernel'])
    check('__x86_return_thunk' not in by_name, 'functions: return thunks are none')
    bad = [r for r in d['rows'] if r['self_ns'] > r['total_ns'] or r['self_insns'] > r['total_insns'] or r['self_ns'] < 0]
    check(not bad, 'functions: own figures are within the totals', bad[:3])


def first_calls(views):
    rows = views['first-calls']['rows']
    check(ascending(rows, 'time_ns'), 'first-calls: in time order')
    names = {}
    for row in rows:
        names.setdefault(row['name'], row)
    check('start_kernel' in names and names['start_kernel']['caller'] in ('x86_64_start_reservations',
          'x86_64_start_kernel'), 'first-calls: start_kernel, called by the start of the kernel',
          names.get('start_kernel'))
    order = ['SeaBIOS', 'decompressor', 'x86_64_start_kernel', 'start_kernel', 'rest_init', 'kernel_init', 'do_initcalls',
             'run_init_process', 'kernel_power_off']
    order = [n for n in order if n in names]
    times = [names[n]['time_ns'] for n in order]
    check(len(order) >= 7 and times == sorted(times), 'first-calls: a boot in its order', list(zip(order, times)))
    check(all(0 <= row['vcpu'] < vcpus for row in rows), 'first-calls: on vCPUs that there are')


def processes(views):
    rows = views['processes']['rows']
    have = {r['process'] for r in rows}
    want = {'init', 'kthreadd', 'insmod', 'ls', 'env', 'poweroff'} | {'swapper/%d' % n for n in range(vcpus)}
    check(want <= have, 'processes: those that the guest ran, with names', sorted(want - have), sorted(have))
    check(all(r['process'] for r in rows), 'processes: none without a name')
    calls = views['syscalls']['rows']
    check(len(calls) > 500 and ascending(calls, 'time_ns'), 'syscalls: %d in time order' % len(calls))
    seen = {(c['process'], c['name']) for c in calls}
    want = {('mount', 'mount'), ('ls', 'getdents64'), ('dd', 'write'), ('poweroff', 'reboot')}
    check(want <= seen, 'syscalls: by name and process', sorted(want - seen))
    check(any(c['name'] in ('finit_module', 'init_module') for c in calls), 'syscalls: modules are inserted')


def modules(views):
    rows = views['modules']['rows']
    have = [r['name'] for r in rows]
    check({'dm_mod', 'virtio_net', 'virtio_blk'} <= set(have) and ascending(rows, 'time_ns'),
          'modules: %d in the order of loading' % len(have), have)
    dm = next((r for r in rows if r['name'] == 'dm_mod'), {})
    check(dm.get('unload_ns') is not None and dm['unload_ns'] > dm['time_ns'], 'modules: dm_mod is removed again', dm)
    check(all(r['unload_ns'] is None for r in rows if r['name'] != 'dm_mod'), 'modules: the others are not')
    check(all(r['init_ns'] is not None and r['init_ns'] > 0 for r in rows), 'modules: each has a time of its init',
          [r for r in rows if not r['init_ns']])
    check({r['process'] for r in rows} == {'insmod'}, 'modules: by insmod', {r['name']: r['process'] for r in rows})


def interrupts(views):
    rows = {r['name']: r for r in views['interrupts']['rows']}
    check(rows.get('asm_sysvec_apic_timer_interrupt', {}).get('count', 0) > 10
          and rows.get('asm_exc_page_fault', {}).get('count', 0) > 100, 'interrupts: the timer and page faults', list(rows))


def stacks():
    """Every stack begins where stacks begin, and is one that a kernel can have."""
    total = odd = 0
    worst, wrong, deepest = {}, [], 0
    with open(os.path.join(directory, 'folded'), errors='surrogateescape') as f:
        for line in f:
            stack, weight = line.rstrip('\n').rsplit(' ', 1)
            frames, weight = stack.split(';'), int(weight)
            total += weight
            deepest = max(deepest, len(frames))
            # The first is the process; a thread's first instructions belong to no function.
            if len(frames) < 2:
                continue
            if not ROOTS.fullmatch(frames[1]) and not is_user(frames[1]):
                odd += weight
                worst[frames[1]] = worst.get(frames[1], 0) + weight
            # Newer kernels begin a thread with ret_from_fork_asm, which calls ret_from_fork.
            inner = frames[3:] if frames[1] == 'ret_from_fork_asm' else frames[2:]
            if any(x.startswith(('ret_from_fork', 'secondary_startup')) for x in inner):
                wrong.append(stack)
            elif frames.count('start_kernel') and frames[0] != 'swapper/0':
                wrong.append(stack)
            elif sum(x.startswith('entry_SYSCALL_64') for x in frames) > 1:
                wrong.append(stack)
    check(total > 5e8 and odd <= total / 1000, 'stacks: at least 99.9 %% begin where stacks begin (%.4f %%)' %
          (100 - odd * 100 / total), sorted(worst.items(), key=lambda x: -x[1])[:10])
    check(not wrong, 'stacks: none that cannot be', len(wrong), *wrong[:5])
    check(20 < deepest < 300, 'stacks: the deepest has %d functions' % deepest)


USER = set()


def is_user(function):
    return function in USER


def exports():
    d = load('chrome')
    check(isinstance(d, (dict, list)) and len(d['traceEvents'] if isinstance(d, dict) else d) > 1000,
          'export: chrome is JSON with events')
    d = load('speedscope')
    check('speedscope' in d['$schema'] and d['profiles'] and d['shared']['frames'], 'export: speedscope is JSON with profiles')
    with open(os.path.join(directory, 'perfetto'), 'rb') as f:
        data = f.read()
    # A Trace is nothing but field 1, packets with their length.
    at = packets = 0
    while at < len(data) and data[at] == 0x0a:
        length = shift = 0
        at += 1
        while True:
            length |= (data[at] & 0x7f) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                break
        at += length
        packets += 1
    check(at == len(data) and packets > 1000, 'export: perfetto is %d packets' % packets, at, len(data))


def main():
    info = load('info.json')
    check(info['end'] == {'how': 'poweroff', 'status': 0} and info['lost_records'] == 0
          and not any(info['damage'].values()), 'info: complete', info['end'], info['damage'])
    check(len(info['vcpus']) == vcpus and all(v['insns'] > 1000000 for v in info['vcpus']),
          'info: %d vCPUs that worked' % vcpus, info['vcpus'])
    views = documents()
    USER.update(r['name'] for r in views['functions']['rows'] if r['space'] in ('user', 'anon'))
    phases(views, info)
    functions(views, info)
    first_calls(views)
    processes(views)
    modules(views)
    interrupts(views)
    stacks()
    exports()


main()
