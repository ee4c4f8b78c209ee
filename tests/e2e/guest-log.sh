#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The counts in tests/guest/expected.txt are what QEMU itself logs. bootprof has no part in this.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 python3 objdump
[ -e "$BOOTPROF_GUEST/guest.elf" ] || skip_all 'the test guest is not built'
bp_finished=1
within 120 python3 "$BOOTPROF_TOP/tests/guest/verify.py" "$BOOTPROF_GUEST/guest.elf"
