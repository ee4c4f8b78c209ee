# SPDX-License-Identifier: GPL-2.0-or-later
"""Stops a guest again and again until it ends, and writes down the kernel's call stacks as gdb sees them.

Run by gdb itself: gdb -nx -batch -x tests/truth/stops.py VMLINUX, with these variables in the environment:

    STOPS_SOCKET    unix socket of QEMU's gdb stub; the guest waits in -S
    STOPS_MONITOR   unix socket of QEMU's monitor, which is told to stop the guest
    STOPS_PID       file with QEMU's process id
    STOPS_PLUGIN    bootprof-tcg.so, with debug information
    STOPS_SEED      for the time between two stops
    STOPS_MS        longest time between two stops
    STOPS_OUT       one JSON object a line

Where a stop lies in the recording is known exactly: while the guest stands still, the plugin's count of
executed instructions of each vCPU is read out of QEMU's memory. That number is only the page number, the
stack comes from gdb.

gdb unwinds C functions with their DWARF call frame information. Assembly has none, nor is there any for the
moment when C code calls a handler on the interrupt stack: there the kernel's own unwinding data (ORC,
sections .orc_unwind and .orc_unwind_ip of the vmlinux) is made known to gdb by an unwinder.
"""
import bisect
import json
import os
import random
import re
import socket
import struct
import subprocess
import threading

import gdb
from gdb.unwinder import Unwinder

KERNEL = 0xffffffff80000000
KERNEL_END = 0xffffffffc0000000
MAX_FRAMES = 200
# A new task's stack is made up so that its first switch returns to the first instruction of one of these.
NEW_TASK = ('ret_from_fork', 'ret_from_fork_asm')


# Of the vmlinux: name, address, bytes.
sections = []


class Orc:
    """The kernel's unwinding data. Source: arch/x86/include/asm/orc_types.h of Linux 6.1 and 6.12."""

    UNDEFINED, PREV_SP, DX, DI, BP, SP, R10, R13, BP_INDIRECT, SP_INDIRECT = range(10)

    def __init__(self, path):
        with open(path, 'rb') as f:
            head = f.read(64)
            shoff, = struct.unpack_from('<Q', head, 0x28)
            entsize, count, names = struct.unpack_from('<HHH', head, 0x3a)
            f.seek(shoff)
            raw = f.read(entsize * count)
            headers = [struct.unpack_from('<IIQQQQ', raw, i * entsize) for i in range(count)]
            f.seek(headers[names][4])
            strings = f.read(headers[names][5])
            data = {}
            for name, _, _, addr, offset, size in headers:
                name = strings[name:strings.index(b'\0', name)].decode()
                if addr:
                    sections.append((name, addr, size))
                if name in ('.orc_unwind', '.orc_unwind_ip'):
                    f.seek(offset)
                    data[name] = (addr, f.read(size))
        base, ips = data['.orc_unwind_ip']
        ips = [base + 4 * i + ip for i, (ip,) in enumerate(struct.iter_unpack('<i', ips))]
        rows = sorted(zip(ips, struct.iter_unpack('<hhH', data['.orc_unwind'][1])))
        self.ips = [r[0] for r in rows]
        self.rows = [r[1] for r in rows]
        # Until Linux 6.3 `type` has two bits and 0 is a call, then three bits and 2. Most rows are calls.
        kinds = [r[2] >> 8 & 7 for r in self.rows]
        self.kinds = ({2: 'call', 3: 'regs', 4: 'iret'} if kinds.count(2) > len(kinds) // 2 else
                      {0: 'call', 1: 'regs', 2: 'iret'})

    def find(self, pc):
        """(sp_offset, sp_reg, bp_offset, bp_reg, 'call' or 'regs' or 'iret'), None at the end of the stack"""
        i = bisect.bisect_right(self.ips, pc) - 1
        if i < 0:
            return None
        sp_offset, bp_offset, bits = self.rows[i]
        sp_reg, bp_reg, kind = bits & 15, bits >> 4 & 15, bits >> 8 & 7
        if sp_reg == self.UNDEFINED or kind not in self.kinds:
            return None
        return sp_offset, sp_reg, bp_offset, bp_reg, self.kinds[kind]


def is_kernel(pc):
    return KERNEL <= pc < KERNEL_END


def home(pc):
    """The address itself; for code in .altinstr_aux, a part of some function, where it jumps back to"""
    if section(pc) != '.altinstr_aux':
        return pc
    for insn in gdb.selected_inferior().architecture().disassemble(pc, count=4):
        match = re.match(r'jmp +0x([0-9a-f]+)', insn['asm'])
        if match:
            return int(match.group(1), 16)
    return pc


def section(pc):
    return next((name for name, addr, size in sections if addr <= pc < addr + size), '')


def symbol(pc):
    """(start address, name) of the function covering an address, from the symbol table"""
    pc = home(pc)
    # "NAME + 12 in section .text"; "NAME in section ..." at its start
    text = gdb.execute('info symbol 0x%x' % pc, to_string=True)
    match = re.match(r'(\S+)(?: \+ (\d+))? in section', text)
    if match:
        return pc - int(match.group(2) or 0), match.group(1)
    return pc, '?' + section(pc)


def u64(addr):
    return struct.unpack('<Q', bytes(gdb.selected_inferior().read_memory(addr, 8)))[0]


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class OrcUnwinder(Unwinder):
    """For assembly, and for calls on another stack; everything else is left to gdb."""

    # struct pt_regs, in this order
    REGS = ('r15', 'r14', 'r13', 'r12', 'rbp', 'rbx', 'r11', 'r10', 'r9', 'r8', 'rax', 'rcx', 'rdx', 'rsi',
            'rdi')
    KEPT = ('rbx', 'r12', 'r13', 'r14', 'r15')

    def __init__(self, orc):
        super().__init__('orc')
        self.orc = orc

    def __call__(self, frame):
        try:
            return self.unwind(frame)
        except (gdb.MemoryError, gdb.error):
            return None

    def unwind(self, frame):
        def reg(name):
            return int(frame.read_register(name)) & (1 << 64) - 1

        pc = reg('rip')
        if not is_kernel(pc):
            return None
        # A return address belongs to the call before it, an interrupted one to itself; see frames().
        row = self.orc.find(home(pc) if pc in exact_pcs else pc - 1)
        if not row:
            return None
        sp_offset, sp_reg, bp_offset, bp_reg, kind = row
        # gdb takes every frame but the innermost for a call, which an interrupted function is not.
        if is_c(pc) and sp_reg != Orc.SP_INDIRECT and (reg('rsp'), pc) not in interrupted:
            return None
        base = {Orc.DX: 'rdx', Orc.DI: 'rdi', Orc.BP: 'rbp', Orc.SP: 'rsp', Orc.R10: 'r10', Orc.R13: 'r13',
                Orc.BP_INDIRECT: 'rbp', Orc.SP_INDIRECT: 'rsp'}.get(sp_reg)
        if not base:
            return None
        if sp_reg == Orc.SP_INDIRECT:
            cfa = u64(reg('rsp')) + sp_offset
        elif sp_reg == Orc.BP_INDIRECT:
            cfa = u64(reg('rbp') + sp_offset)
        else:
            cfa = reg(base) + sp_offset
        old = {name: reg(name) for name in self.KEPT}
        old['rbp'] = reg('rbp')
        if kind == 'call':
            ip, sp = u64(cfa - 8), cfa
            if bp_reg == Orc.PREV_SP:
                old['rbp'] = u64(cfa + bp_offset)
            elif bp_reg == Orc.BP:
                old['rbp'] = u64(reg('rbp') + bp_offset)
        elif kind == 'regs':
            for i, name in enumerate(self.REGS):
                old[name] = u64(cfa + 8 * i)
            ip, sp = u64(cfa + 128), u64(cfa + 152)
        else:
            ip, sp = u64(cfa), u64(cfa + 24)
            for name in self.REGS:
                old.setdefault(name, reg(name))
        if kind != 'call':
            exact_pcs.add(ip)
            interrupted.add((sp, ip))
        info = frame.create_unwind_info(FrameId(gdb.Value(cfa), gdb.Value(pc)))
        kind64 = gdb.lookup_type('unsigned long')
        for name, value in old.items():
            info.add_saved_register(name, gdb.Value(value).cast(kind64))
        info.add_saved_register('rip', gdb.Value(ip).cast(kind64))
        info.add_saved_register('rsp', gdb.Value(sp).cast(kind64))
        return info


# Filled anew at each stop: program counters that are no return addresses.
exact_pcs = set()
interrupted = set()
c_cache = {}


def is_c(pc):
    """Is there debug information of a function here? Assembly has none."""
    if pc not in c_cache:
        block = section(pc) != '.altinstr_aux' and gdb.block_for_pc(pc if pc in exact_pcs else pc - 1)
        while block and not block.function:
            block = block.superblock
        c_cache[pc] = bool(block)
    return c_cache[pc]


def frames():
    """The stack of the selected thread, innermost first, and why it ends

    Each frame: [pc, start of the function, name, how, the call in front of pc where that matters]
    """
    out = []
    exact_pcs.clear()
    interrupted.clear()
    exact_pcs.add(int(gdb.parse_and_eval('(unsigned long)$rip')) & (1 << 64) - 1)
    gdb.execute('maintenance flush register-cache', to_string=True)
    frame = gdb.newest_frame()
    why = 'end'
    while frame is not None and len(out) < MAX_FRAMES:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            pc = frame.pc()
            if not is_kernel(pc):
                why = 'left the kernel'
                break
            sp = int(frame.read_register('rsp')) & (1 << 64) - 1
            how = 'stop' if not out else 'interrupted' if (sp, pc) in interrupted else 'call'
            start, name = symbol(pc if how != 'call' else pc - 1)
            if how == 'call' and symbol(pc)[0] == pc and symbol(pc)[1] in NEW_TASK:
                start, name = symbol(pc)
                how = 'pushed'
            # What was called: it matters where a function that has just begun may have been jumped to.
            newer = out[-1] if out else ('', '', '', 'call')
            matters = how == 'interrupted' or newer[3] != 'call' or newer[2].startswith('__x86_')
            out.append([pc, start, name, how, call_before(pc, start) if matters else ''])
        try:
            older = frame.older()
        except gdb.error as e:
            why = str(e)
            break
        if older is None:
            why = gdb.frame_stop_reason_string(frame.unwind_stop_reason())
        frame = older
    return out, why


def call_before(pc, start):
    """The instruction in front of pc if it is a call, else ''. Decoded from the function's start."""
    if pc == start or pc - start > 65536:
        return ''
    last = gdb.selected_inferior().architecture().disassemble(start, pc - 1)[-1]
    # A prefix may pad it: "cs call".
    return last['asm'] if last['addr'] + last['length'] == pc and re.search(r'\bcall\b', last['asm']) else ''


def stub_insns():
    """How many instructions the stub of an interrupt vector has: with endbr64 one more"""
    start = int(gdb.parse_and_eval('(unsigned long)&irq_entries_start'))
    insns = gdb.selected_inferior().architecture().disassemble(start, count=4)
    return 1 + next(i for i, insn in enumerate(insns) if 'jmp' in insn['asm'])


class Counters:
    """The plugin's instruction counts, read from QEMU's memory."""

    def __init__(self, pid, plugin):
        ask = ['&vcpus', 'sizeof(vcpus[0])', '&((struct vcpu *)0)->insns_ptr']
        command = ['gdb', '-nx', '-batch', plugin]
        for expression in ask:
            command += ['-ex', 'output/d (long)' + expression, '-ex', 'echo \\n']
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        pointer, self.stride, self.ptr = (int(x) for x in lines)
        self.mem = open('/proc/%d/mem' % pid, 'rb', buffering=0)
        with open('/proc/%d/maps' % pid, encoding='utf-8') as f:
            for line in f:
                fields = line.split()
                if fields[5:] and fields[5].endswith(os.path.basename(plugin)) and int(fields[2], 16) == 0:
                    self.vcpus = self.word(pointer + int(fields[0].split('-')[0], 16))
                    break
            else:
                raise RuntimeError('the plugin is not in QEMU')

    def word(self, addr):
        self.mem.seek(addr)
        return struct.unpack('<Q', self.mem.read(8))[0]

    def read(self, vcpu):
        return self.word(self.word(self.vcpus + vcpu * self.stride + self.ptr))


def monitor_says(monitor):
    """Take what has come, so that the monitor never waits for us."""
    try:
        while monitor.recv(65536):
            pass
    except OSError:
        # Nothing is there, or QEMU is gone.
        pass


def stop_guest(monitor, delay, stopped):
    """Stop it after a while; again, when the first time came before gdb had let it run."""
    while not stopped.wait(delay):
        try:
            monitor.sendall(b'stop\n')
        except OSError:
            return
        delay = 0.05


def main():
    env = os.environ
    longest = float(env['STOPS_MS'])
    dice = random.Random(int(env['STOPS_SEED']))
    vmlinux = gdb.current_progspace().filename
    for line in ('set pagination off', 'set confirm off', 'set height 0', 'set width 0',
                 'set backtrace limit 250', 'set backtrace past-main on', 'set tcp connect-timeout 30',
                 'set remotetimeout 60', 'set print demangle off', 'set demangle-style none'):
        gdb.execute(line)
    gdb.unwinder.register_unwinder(None, OrcUnwinder(Orc(vmlinux)), True)
    # From the file: the guest's memory has no kernel yet.
    stub = stub_insns()
    gdb.execute('target remote ' + env['STOPS_SOCKET'])
    with open(env['STOPS_PID'], encoding='utf-8') as f:
        counters = Counters(int(f.read()), env['STOPS_PLUGIN'])
    monitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    monitor.connect(env['STOPS_MONITOR'])
    monitor.setblocking(False)
    done = 0
    with open(env['STOPS_OUT'], 'w', encoding='utf-8') as out:
        while True:
            delay = dice.uniform(0.2, 1.0) * longest / 1000
            stopped = threading.Event()
            stopper = threading.Thread(target=stop_guest, args=(monitor, delay, stopped))
            stopper.start()
            try:
                gdb.execute('continue', to_string=True)
            except gdb.error as e:
                print('continue:', e)
                break
            finally:
                stopped.set()
                stopper.join()
            monitor_says(monitor)
            threads = sorted(gdb.selected_inferior().threads(), key=lambda t: t.num)
            if not threads:
                break
            for vcpu, thread in enumerate(threads):
                thread.switch()
                stack, why = frames()
                if not stack:
                    continue
                done += 1
                out.write(json.dumps({'stop': done, 'vcpu': vcpu, 'insns': counters.read(vcpu), 'stub': stub,
                                      'why': why, 'frames': stack}) + '\n')
            out.flush()


main()
