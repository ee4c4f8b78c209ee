/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C (Castagnoli), as iSCSI and ext4 use it: RFC 3720, appendix B.4. Any thread. */
#ifndef BP_CORE_CRC32C_H
#define BP_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/**
 * bp_crc32c() - checksum of @len bytes, with the SSE4.2 instruction where the CPU has it
 * @crc: 0, or the checksum of the bytes before @data
 */
uint32_t bp_crc32c(uint32_t crc, const void *data, size_t len);

/** bp_crc32c_portable() - the same by table on every CPU, for comparison in tests */
uint32_t bp_crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif
