// SPDX-License-Identifier: GPL-2.0-or-later
/* The screens in their order, and those that are nothing but tables. */
#include "core/cleanup.h"
#include "tui/table.h"
#include "tui/tui.h"

#define TABLES(variable, number, label, word, ...)                                       \
	static const struct bp_table_tab variable##_tabs[] = {__VA_ARGS__};              \
	static struct bp_err *variable##_open(struct bp_tui *tui, void **ret)            \
	{                                                                                \
		(void)tui;                                                               \
		return bp_tables_create(variable##_tabs, BP_ARRAY_SIZE(variable##_tabs), \
					(struct bp_tables **)ret);                       \
	}                                                                                \
	const struct bp_tui_view bp_tui_##variable = {                                   \
	    .digit = number,                                                             \
	    .name = label,                                                               \
	    .command = word,                                                             \
	    .hints = BP_TABLES_HINTS,                                                    \
	    .help = bp_tables_help,                                                      \
	    .open = variable##_open,                                                     \
	    .close = bp_tables_close,                                                    \
	    .draw = bp_tables_draw,                                                      \
	    .key = bp_tables_key,                                                        \
	    .prompt = bp_tables_prompt,                                                  \
	    .sync = bp_tables_sync,                                                      \
	    .adopt = bp_tables_adopt,                                                    \
	    .busy = bp_tables_busy,                                                      \
	}

TABLES(functions, '3', "Functions", "functions", {.title = "Functions", .view = "functions"},
       {.title = "First calls", .view = "first-calls"}, {.title = "Modules", .view = "modules"},
       {.title = "By file", .view = "modules", .table = "code"}, {.title = "Processes", .view = "processes"},
       {.title = "Interrupts", .view = "interrupts"},
       {.title = "Handlers", .view = "interrupts", .table = "handlers"});

TABLES(tree, '4', "Tree", "tree", {.title = "Callees", .view = "tree", .min_percent = 0.5},
       {.title = "Callers of the selected function", .view = "tree", .callers = true, .min_percent = 0.5});

TABLES(phases, '5', "Phases", "phases", {.title = "Phases", .view = "phases"},
       {.title = "Initcalls", .view = "phases", .table = "initcalls"});

TABLES(syscalls, '6', "Syscalls", "syscalls", {.title = "By process", .view = "syscalls", .table = "summary"},
       {.title = "In order of time", .view = "syscalls"});

TABLES(waits, '7', "Waits", "waits", {.title = "Locks", .view = "locks"}, {.title = "vCPUs", .view = "vcpus"},
       {.title = "Off CPU", .view = "off-cpu"}, {.title = "Wakeups", .view = "wakeups"});

TABLES(io, '8', "I/O", "io", {.title = "Requests", .view = "io"});

TABLES(diff, '0', "Diff", "diff", {.title = "Phases", .view = "diff:phases"},
       {.title = "Functions", .view = "diff:functions"}, {.title = "Paths", .view = "diff:tree"},
       {.title = "First calls", .view = "diff:first-calls"}, {.title = "Modules", .view = "diff:modules"},
       {.title = "Initcalls", .view = "diff:initcalls"}, {.title = "Syscalls", .view = "diff:syscalls"});

const struct bp_tui_view *const bp_tui_views[] = {
    &bp_tui_timeline, &bp_tui_flame, &bp_tui_functions, &bp_tui_tree,    &bp_tui_phases,
    &bp_tui_syscalls, &bp_tui_waits, &bp_tui_io,        &bp_tui_console, &bp_tui_diff,
};

const unsigned bp_tui_n_views = BP_ARRAY_SIZE(bp_tui_views);
