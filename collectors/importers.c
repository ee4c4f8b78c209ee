// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/import.h"

#include <stddef.h>

const struct bp_importer *const bp_importers[] = {
    &bp_import_qemu_exec,
    &bp_import_qemu_trace_log,
    &bp_import_simpletrace,
    &bp_import_symbolised,
    &bp_import_ftrace_text,
    &bp_import_trace_dat,
    &bp_import_perf_script,
    &bp_import_dmesg,
    NULL,
};
