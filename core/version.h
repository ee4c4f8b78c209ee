/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BP_CORE_VERSION_H
#define BP_CORE_VERSION_H

#define BOOTPROF_VERSION "0.1.0"

#endif
