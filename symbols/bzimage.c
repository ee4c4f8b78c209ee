// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/bzimage.h"

#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "symbols/decompress.h"

#define SECTOR_BYTES 512

/* Offsets of boot.rst. */
#define HDR_SETUP_SECTS 0x1f1
#define HDR_MAGIC 0x202 /* "HdrS" */
#define HDR_VERSION 0x206
#define HDR_KERNEL_VERSION 0x20e /* of a string, less 0x200 */
#define HDR_PAYLOAD_OFFSET 0x248 /* from the end of the setup sectors */
#define HDR_PAYLOAD_LENGTH 0x24c
#define HDR_END 0x250

bool bp_bzimage_is(const void *data, size_t len)
{
	return len >= HDR_MAGIC + 4 && !memcmp((const uint8_t *)data + HDR_MAGIC, "HdrS", 4);
}

static uint32_t get(const uint8_t *data, size_t pos, size_t bytes)
{
	struct bp_buf b = bp_buf_make(data + pos, bytes, "", 0);

	return bytes == 1 ? bp_buf_u8(&b) : bytes == 2 ? bp_buf_u16(&b) : bp_buf_u32(&b);
}

struct bp_err *bp_bzimage_expand(const void *data, size_t len, const char *path, uint64_t max_bytes,
				 uint8_t **out, size_t *out_len)
{
	uint32_t version, payload_off, payload_len;
	uint64_t sectors, start;
	const uint8_t *p = data;
	size_t expanded_len, used;
	struct bp_err *err;
	uint8_t *expanded;

	if (!bp_bzimage_is(data, len))
		return bp_err_data(path, 0, "no Linux setup header");
	if (len < HDR_END)
		return bp_err_data(path, len, "Linux setup header ends early");
	version = get(p, HDR_VERSION, 2);
	if (version < 0x208)
		return bp_err_new(BP_EUNSUPPORTED, "%s: boot protocol %u.%02u says not where the kernel is",
				  path, version >> 8, version & 0xff);
	sectors = get(p, HDR_SETUP_SECTS, 1);
	payload_off = get(p, HDR_PAYLOAD_OFFSET, 4);
	payload_len = get(p, HDR_PAYLOAD_LENGTH, 4);
	/* 0 is 4, for the sake of very old boot loaders; the boot sector comes on top. */
	start = ((sectors ? sectors : 4) + 1) * SECTOR_BYTES + payload_off;
	if (start > len || payload_len > len - start)
		return bp_err_data(path, HDR_PAYLOAD_OFFSET,
				   "compressed kernel lies outside the file (file cut off?)");
	err = bp_decompress(p + start, payload_len, path, start, max_bytes, &expanded, &expanded_len, &used);
	if (err)
		return err;
	/* The build appends the expanded size where the format does not end with it, as gzip does. */
	if (payload_len - used == 4 && get(p, start + used, 4) != (uint32_t)expanded_len) {
		free(expanded);
		return bp_err_data(path, start + used, "expanded kernel has not the size that is noted");
	}
	*out = expanded;
	*out_len = expanded_len;
	return NULL;
}

void bp_bzimage_release(const void *data, size_t len, char *dst, size_t dst_len)
{
	const uint8_t *p = data;
	size_t pos, n = 0;

	dst[0] = '\0';
	if (!bp_bzimage_is(data, len) || len < HDR_END || !get(p, HDR_KERNEL_VERSION, 2))
		return;
	/* "6.1.0-56-cloud-amd64 (user@host) #1 ..." */
	for (pos = (size_t)get(p, HDR_KERNEL_VERSION, 2) + 0x200; pos < len && n + 1 < dst_len; pos++) {
		if (p[pos] <= ' ' || p[pos] >= 0x7f)
			break;
		dst[n++] = (char)p[pos];
	}
	dst[n] = '\0';
}
