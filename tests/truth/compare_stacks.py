# SPDX-License-Identifier: GPL-2.0-or-later
"""Are gdb's stacks and bootprof's the same?

compare_stacks.py --moments STOPS    what stacks_at wants to know of the stops that stops.py wrote
compare_stacks.py STOPS STACKS       compares them with what stacks_at printed

Rules, all decided by program counters and names:

- A thunk is no function of a profile, nor are the stubs that every interrupt vector begins in, nor what asm_* handlers
  call to save the registers: gdb's frames in one are left out. In a return thunk the function that is about to return is
  gone for gdb, and still on bootprof's stack, to which it returns when the code behind the call begins.
  The same goes for a function that left by a tail call through an indirect thunk: what lies in front of its return address is
  not a call of the thunk.
- NAME.cold is a part of NAME.
- A function that an interrupt stopped in front of its first instruction has not been entered: gdb's frame for it is left
  out. (An exception comes out of an instruction, so there the function has been entered.)
- A function that an interrupt stopped in front of the instruction behind a call: that call has not returned yet for
  bootprof.
- A new task's stack is made up so that its first switch returns to the first instruction of ret_from_fork: it has not
  been entered.
- __put_user_4 runs on into __put_user_nocheck_4, which others call by that name: where both symbols cover an address, gdb
  names the one that begins first.
- secondary_startup_64 is entered at its physical address, before the kernel's own mapping is used: for bootprof it is boot
  code, and not on the kernel's stack. It is left out at the outermost end.
"""
import collections
import json
import re
import sys

THUNKS = re.compile(r'(__x86_return_thunk|__x86_indirect_|__fentry__|srso_|retbleed_|its_return_thunk|__pfx_|zen_untrain|'
                    r'native_irq_return_iret|irq_entries_start|spurious_entries_start|'
                    r'error_entry|paranoid_entry|xen_error_entry)')
INTERRUPT = re.compile(r'(asm_sysvec_|asm_common_interrupt|asm_spurious_interrupt|irq_entries_start|spurious_entries_start)')

# What gdb's frame is compared with: a function, or one that only bootprof still has.
FUNCTION, RETURNED = range(2)


def base(name):
    return re.sub(r'\.cold(\.\d+)?$', '', name)


def in_thunk_after_function(name, older):
    """Did a function jump to this thunk, and is it gone? What was called by the older frame tells."""
    called = older[0][4] if older else ''
    if 'return_thunk' in name:
        return '__fentry__' not in called
    return 'indirect_thunk' in name and 'indirect_thunk' not in called


def expected(frames):
    """gdb's frames as (kind, address or None, name), innermost first; and the rules that were needed"""
    out = []
    rules = []
    handler = ''
    for i, (pc, start, name, how, call) in enumerate(frames):
        interrupted = how == 'interrupted' and INTERRUPT.match(handler)
        handler = name
        if THUNKS.match(name):
            rules.append(name)
            if how in ('stop', 'interrupted') and in_thunk_after_function(name, frames[i + 1:]):
                out.append((RETURNED, None, name))
        elif how == 'pushed':
            rules.append('made up return address')
        elif interrupted and pc == start:
            rules.append('interrupted before entry')
        else:
            if interrupted and call:
                rules.append('interrupted before return')
                out.append((RETURNED, None, name))
            if name != base(name):
                rules.append('.cold')
                out.append((FUNCTION, None, base(name)))
            else:
                out.append((FUNCTION, start, name))
    if out and out[-1][2].startswith('secondary_startup_64'):
        rules.append('secondary_startup_64')
        out.pop()
    return out, rules


def same(want, got):
    kind, start, name = want
    if re.fullmatch(r'__put_user_[1248]', name) and got[1] == name.replace('user_', 'user_nocheck_'):
        return True
    return kind != FUNCTION or (got[0] == start if start is not None else got[1] == name)


def moments(path):
    with open(path, encoding='utf-8') as f:
        for line in f:
            stop = json.loads(line)
            print(stop['stop'], stop['vcpu'], stop['insns'], stop['frames'][0][0])


def main():
    if sys.argv[1] == '--moments':
        moments(sys.argv[2])
        return
    stacks = {}
    with open(sys.argv[2], encoding='utf-8') as f:
        for line in f:
            number, *rest = line.split()
            stacks[int(number)] = [(int(x[:16], 16), x[17:]) for x in rest]
    equal = complete = compared = total = 0
    unequal, used = [], collections.Counter()
    with open(sys.argv[1], encoding='utf-8') as f:
        for line in f:
            stop = json.loads(line)
            theirs, rules = expected(stop['frames'])
            ours = stacks.get(stop['stop'], [])
            total += 1
            compared += len(theirs)
            if len(ours) >= len(theirs) and all(map(same, theirs, ours)):
                equal += 1
                complete += len(ours) == len(theirs)
                used.update(set(rules))
            else:
                unequal.append((stop, ours))
    for stop, ours in unequal[:40]:
        print('unequal: stop %d, vCPU %d, %d instructions, pc %#x (%s)' %
              (stop['stop'], stop['vcpu'], stop['insns'], stop['frames'][0][0], stop['why']))
        print('   gdb:      ' + ' < '.join('%s%s' % (f[2], '+0' if f[0] == f[1] else '') for f in stop['frames']))
        print('   bootprof: ' + ' < '.join(x[1] for x in ours))
    for rule, n in used.most_common():
        print('rule: %s: %d stops' % (rule, n))
    print('stops %d equal %d complete %d frames %d' % (total, equal, complete, compared))


main()
