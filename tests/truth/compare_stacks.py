# SPDX-License-Identifier: GPL-2.0-or-later
"""Are gdb's stacks and bootprof's the same?

compare_stacks.py --moments STOPS    what stacks_at wants to know of the stops that stops.py wrote
compare_stacks.py STOPS STACKS       compares them with what stacks_at printed

Rules, all decided by program counters, instructions and names:

- thunk: a thunk is no function of a profile, nor are the stubs that every interrupt vector begins in, nor
  what asm_* handlers call to save the registers: gdb's frames in one are left out.
- returned: in a return thunk, or where an interrupt came in front of the instruction behind a call, the
  function that was called is gone for gdb, and still on bootprof's stack, to which it returns when the code
  behind the call begins. (That instruction may also have been reached by a jump around the call: then there
  is no such function.)
- jumped: in front of the first instruction of a function that was entered by a tail call, or in the thunk
  on the way there, the function that jumped is gone for gdb, and still on bootprof's stack. The call in
  front of the return address names another function than the one that is there. (An indirect call names
  none: such a stack counts as unequal.)
- not entered: a function that an interrupt stopped in front of its first instruction has not been entered:
  gdb's frame for it is left out. (An exception comes out of an instruction, so there the function has been
  entered.)
- registers saved: what saves the registers hides its caller, the handler, from gdb as soon as they are
  saved.
- handler's end: handlers end by a jump to common code, whose inner labels count as functions for bootprof;
  gdb takes it for the handler.
- new task: the stack of a new task is made up so that its first switch returns to the first instruction of
  ret_from_fork. That has not been entered, and neither has __switch_to_asm on this stack.
- cold: NAME.cold is a part of NAME.
- Two symbols cover an address: __put_user_4 runs on into __put_user_nocheck_4, which others call by that
  name, and entry_SYSCALL_64 ends in syscall_return_via_sysret; gdb names only the one that begins first.
- boot: secondary_startup_64 (common_startup_64 inside it) is entered at its physical address, before the
  kernel's own mapping is used: for bootprof it is boot code, and not on the kernel's stack. It is left out at
  the outermost end.
"""
import collections
import json
import re
import sys

THUNKS = re.compile(r'(__x86_return_thunk|__x86_indirect_|__fentry__|srso_|retbleed_|its_return_thunk|__pfx_|'
                    r'zen_untrain|native_irq_return_iret|irq_entries_start|spurious_entries_start|'
                    r'early_idt_handler_array|error_entry|paranoid_entry|xen_error_entry)')
STUBS = ('irq_entries_start', 'spurious_entries_start', 'early_idt_handler_array')
BOOT = re.compile(r'(secondary|common)_startup_64')
SAVES_REGISTERS = ('error_entry', 'paranoid_entry', 'xen_error_entry')
INTERRUPT = re.compile(r'(asm_sysvec_|asm_common_interrupt|asm_spurious_interrupt|irq_entries_start|'
                       r'spurious_entries_start)')
EXITS = re.compile(r'(error_return|common_interrupt_return|swapgs_restore_regs_and_return_to_usermode|'
                   r'restore_regs_and_return_to_kernel|paranoid_exit)')

# What gdb's frame is compared with: a function, one that only bootprof still has, or may have, or a
# handler of interrupts.
FUNCTION, OURS, MAYBE, HANDLER = range(4)


def base(name):
    return re.sub(r'\.cold(\.\d+)?$', '', name)


def calls_thunk(call, pc):
    """Does a call go to the thunk of 32 bytes that an address is in? There is one for each register."""
    match = re.search(r'\bcall +0x([0-9a-f]+) <__x86_indirect', call)
    return bool(match) and 0 <= pc - int(match.group(1), 16) < 32


def target(call):
    """The address that a direct call goes to, None for an indirect one"""
    if 'indirect_thunk' in call:
        return None
    match = re.search(r'\bcall +0x([0-9a-f]+)', call)
    return int(match.group(1), 16) if match else None


def expected(frames):
    """gdb's frames as (kind, address or None, name), innermost first; and the rules that were needed"""
    out = []
    rules = []

    def rule(name, *want):
        rules.append(name)
        out.extend(want)

    handler = ''
    for i, (pc, start, name, how, call) in enumerate(frames):
        following = frames[i + 1][3] if len(frames) > i + 1 else ''
        older = next((f for f in frames[i + 1:] if not f[2].startswith('__x86_')), (0, 0, '', '', ''))
        interrupted = how == 'interrupted' and INTERRUPT.match(handler)
        handler = name
        if THUNKS.match(name):
            rule('thunk')
            if name in SAVES_REGISTERS and following == 'interrupted':
                rule('registers saved', (HANDLER, None, name))
                handler = 'asm_sysvec_'
            elif how != 'call' and 'return_thunk' in name and '__fentry__' not in older[4]:
                rule('returned', (OURS, None, name))
            elif how != 'call' and 'indirect_thunk' in name and not calls_thunk(older[4], pc):
                rule('jumped', (OURS, None, name))
        elif EXITS.match(name) and following == 'interrupted':
            rule("handler's end", (MAYBE, None, name), (HANDLER, None, name))
            handler = 'asm_sysvec_'
        elif how == 'pushed' or (name == '__switch_to_asm' and following == 'pushed'):
            rule('new task')
        elif interrupted and pc == start:
            rule('not entered')
            if target(older[4]) not in (None, start):
                rule('jumped', (OURS, None, name))
        else:
            if interrupted and call:
                rule('returned', (MAYBE, None, name))
            if name == 'entry_SYSCALL_64':
                out.append((MAYBE, None, name))
            if name != base(name):
                rule('cold', (FUNCTION, None, base(name)))
            else:
                out.append((FUNCTION, start, name))
    if out and BOOT.match(out[-1][2]):
        rule('boot')
        out.pop()
    return out, rules


def same(want, got):
    kind, start, name = want
    if kind == HANDLER:
        return got[1].startswith(('asm_', 'early_idt_handler'))
    if re.fullmatch(r'__put_user_[1248]', name) and got[1] == name.replace('user_', 'user_nocheck_'):
        return True
    return kind != FUNCTION or (got[0] == start if start is not None else got[1] == name)


def match(theirs, ours):
    """Are the frames of bootprof those that are expected? How many there are, -1 for no."""
    reached = {0}
    for want in theirs:
        after = {n + 1 for n in reached if n < len(ours) and same(want, ours[n])}
        reached = after | reached if want[0] == MAYBE else after
    return max(reached, default=-1)


def moments(path):
    with open(path, encoding='utf-8') as f:
        for line in f:
            stop = json.loads(line)
            pc, _, name, _, _ = stop['frames'][0]
            print(stop['stop'], stop['vcpu'], stop['insns'], pc, int(name in STUBS), stop['stub'])


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
            if ours and BOOT.match(ours[-1][1]):
                ours.pop()
            total += 1
            compared += len(theirs)
            n = match(theirs, ours)
            if n >= 0:
                equal += 1
                complete += n == len(ours)
                used.update(set(rules))
            else:
                unequal.append((stop, ours))
    for stop, ours in unequal[:40]:
        print('unequal: stop %d, vCPU %d, %d instructions, pc %#x (%s)' %
              (stop['stop'], stop['vcpu'], stop['insns'], stop['frames'][0][0], stop['why']))
        print('   gdb:      ' + ' < '.join(
            name + ('+0' if pc == start else '') + (' [%s]' % call if call else '')
            for pc, start, name, _, call in stop['frames']))
        print('   bootprof: ' + ' < '.join(x[1] for x in ours))
    for rule, n in used.most_common():
        print('rule: %s: %d stops' % (rule, n))
    print('stops %d equal %d complete %d frames %d' % (total, equal, complete, compared))


main()
