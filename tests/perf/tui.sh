#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the terminal user interface costs on made-up recordings: of 21 million calls, and of TUI_LONG times as many
# when it is given (50 writes 5 GB to TMPDIR).
set -euo pipefail
cd "$(dirname "$0")/../.."
perf=$(dirname "${BOOTPROF:-build/bootprof}")/perf/perf_tui
"$perf" 21
[ "${TUI_LONG:-0}" -eq 0 ] || "$perf" $((21 * TUI_LONG))
