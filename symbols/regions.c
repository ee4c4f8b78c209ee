// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/regions.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/cleanup.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define SECTOR_BYTES 512
#define HEADER_BYTES 0x264 /* up to and with init_size */

/* QEMU's linuxboot ROM puts the setup code here and the protected-mode part at 1 MiB. */
#define SETUP_ADDR 0x10000
#define SETUP_MAX 0x10000
#define CODE32_ADDR MIB

/*
 * SeaBIOS copies its start-up code near the top of RAM below 4 GiB, under the 16 MiB that it keeps for tables
 * (measured: 16.1 MiB below the top with 512 and 2048 MiB).
 */
#define BIOS_HIGH_BYTES (20 * MIB)

/* The lowest code of the 256 KiB SeaBIOS image, shadowed below 1 MiB until it has relocated itself
 * (measured). */
#define BIOS_SHADOW_ADDR 0xd4000

static bool in_span(const struct bp_region_span *s, uint64_t addr)
{
	return addr >= s->start && addr < s->end;
}

static struct bp_region_span bios_high_below(uint64_t top)
{
	return (struct bp_region_span){.start = top > BIOS_HIGH_BYTES + MIB ? top - BIOS_HIGH_BYTES : MIB,
				       .end = top > MIB ? top : MIB};
}

/*
 * Top of the RAM below 4 GiB: all RAM unless it reaches the machine's PCI hole: then it is cut at 3 GiB
 * ("pc", from 3.5 GiB on) or 2 GiB ("q35", from 2.75 GiB on). The machine type is not known here, so take
 * both.
 */
static void set_bios_high(struct bp_region_map *m)
{
	uint64_t pc_top = m->ram_bytes >= 3584 * MIB ? 3 * GIB : m->ram_bytes;
	uint64_t q35_top = m->ram_bytes >= 2816 * MIB ? 2 * GIB : m->ram_bytes;

	m->bios_high[0] = bios_high_below(pc_top);
	if (q35_top != pc_top)
		m->bios_high[1] = bios_high_below(q35_top);
}

static struct bp_err *read_header(const char *path, uint8_t *header, size_t *len)
{
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t got = 0;

	if (fd < 0)
		return bp_err_os(errno, "%s", path);
	while (got < HEADER_BYTES) {
		ssize_t n = pread(fd, header + got, HEADER_BYTES - got, (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bp_err_os(errno, "%s", path);
		if (!n)
			break;
		got += (size_t)n;
	}
	*len = got;
	return NULL;
}

static struct bp_err *add_kernel(struct bp_region_map *m, const char *path)
{
	uint8_t header[HEADER_BYTES];
	size_t len = 0;
	struct bp_err *err = read_header(path, header, &len);
	struct bp_buf b;
	uint64_t setup_bytes, image_bytes, pref_addr, init_bytes;
	uint16_t version;

	if (err)
		return err;
	if (len < HEADER_BYTES || memcmp(header + 0x202, "HdrS", 4))
		return bp_err_new(BP_EUNSUPPORTED, "%s: not a bzImage", path);
	b = bp_buf_make(header, len, path, 0);
	b.pos = 0x1f1;
	setup_bytes = bp_buf_u8(&b);
	setup_bytes = ((setup_bytes ? setup_bytes : 4) + 1) * SECTOR_BYTES;
	b.pos = 0x1f4;
	image_bytes = bp_buf_u32(&b) * 16ull;
	b.pos = 0x206;
	version = bp_buf_u16(&b);
	if (version < 0x202 || !(header[0x211] & 1))
		return bp_err_new(BP_EUNSUPPORTED, "%s: kernel with boot protocol %u.%02u, not loaded high",
				  path, version >> 8, version & 0xff);
	b.pos = 0x258;
	pref_addr = version >= 0x20a ? bp_buf_u64(&b) : 0;
	b.pos = 0x260;
	init_bytes = version >= 0x20a ? bp_buf_u32(&b) : 0;

	m->direct_boot = true;
	/* Stack and heap follow the code in the same 64 KiB segment. */
	m->setup = (struct bp_region_span){SETUP_ADDR,
					   SETUP_ADDR + (setup_bytes > SETUP_MAX ? setup_bytes : SETUP_MAX)};
	m->decompressor = (struct bp_region_span){CODE32_ADDR, CODE32_ADDR + image_bytes};
	/* It moves to the end of the room that unpacking in place needs; a bad header must not claim all
	 * memory. */
	if (pref_addr >= CODE32_ADDR && pref_addr < 4 * GIB && init_bytes >= image_bytes) {
		uint64_t end = pref_addr + init_bytes;

		m->decompressor_copy = (struct bp_region_span){end - image_bytes, end};
	}
	return NULL;
}

struct bp_err *bp_region_map_init(struct bp_region_map *m, uint64_t ram_bytes, const char *bzimage)
{
	*m = (struct bp_region_map){.ram_bytes = ram_bytes};
	if (ram_bytes)
		set_bios_high(m);
	return bzimage ? add_kernel(m, bzimage) : NULL;
}

/* Below 1 MiB. */
static enum bp_region find_low(const struct bp_region_map *m, uint64_t addr)
{
	if (addr >= BIOS_SHADOW_ADDR)
		return BP_REGION_SEABIOS;
	if (addr >= 0xc0000)
		return BP_REGION_OPTION_ROM;
	if (addr >= 0xa0000) /* not the frame buffer: SMM sees RAM here, with SeaBIOS's handler in it */
		return BP_REGION_SEABIOS;
	if (in_span(&m->setup, addr))
		return BP_REGION_SETUP;
	if (addr >= 0x90000)
		return m->direct_boot ? BP_REGION_TRAMPOLINE : BP_REGION_SETUP;
	if (addr >= 0x80000 && m->direct_boot)
		return BP_REGION_TRAMPOLINE;
	if (addr >= 0x7c00 && addr < 0x7c00 + SECTOR_BYTES)
		return BP_REGION_BOOT_SECTOR;
	/* SeaBIOS enters SMM once at the processor's default place, to move the handler above. */
	if (m->direct_boot && addr >= 0x38000 && addr < 0x39000)
		return BP_REGION_SEABIOS;
	return BP_REGION_LOW_MEMORY;
}

enum bp_region bp_region_find(const struct bp_region_map *m, uint64_t linear_addr)
{
	uint64_t addr = linear_addr;

	if (addr < MIB)
		return find_low(m, addr);
	if (addr >= 4 * GIB - MIB && addr < 4 * GIB)
		return BP_REGION_SEABIOS;
	if (addr >= 4 * GIB - 16 * MIB && addr < 4 * GIB)
		return BP_REGION_FIRMWARE;
	/* RAM ends below @ram_bytes, or goes on above 4 GiB with what the hole took away. */
	if (m->ram_bytes && addr >= m->ram_bytes && (addr < 4 * GIB || addr - 4 * GIB >= m->ram_bytes))
		return BP_REGION_NONE;
	if (!m->ram_bytes && addr >= 1ull << 47)
		return BP_REGION_NONE;
	if (in_span(&m->decompressor, addr) || in_span(&m->decompressor_copy, addr))
		return BP_REGION_DECOMPRESSOR;
	if (in_span(&m->bios_high[0], addr) || in_span(&m->bios_high[1], addr))
		return BP_REGION_SEABIOS;
	return m->direct_boot ? BP_REGION_KERNEL_ENTRY : BP_REGION_BOOT_LOADER;
}

static const struct {
	const char *id, *name;
} regions[BP_REGION_N] = {
    [BP_REGION_NONE] = {"none", "?"},
    [BP_REGION_SEABIOS] = {"seabios", "SeaBIOS"},
    [BP_REGION_OPTION_ROM] = {"option-rom", "option ROM"},
    [BP_REGION_BOOT_SECTOR] = {"boot-sector", "boot sector"},
    [BP_REGION_LOW_MEMORY] = {"low-memory", "low memory"},
    [BP_REGION_SETUP] = {"setup", "real-mode setup"},
    [BP_REGION_DECOMPRESSOR] = {"decompressor", "decompressor"},
    [BP_REGION_KERNEL_ENTRY] = {"kernel-entry", "kernel entry (physical address)"},
    [BP_REGION_TRAMPOLINE] = {"trampoline", "real-mode trampoline"},
    [BP_REGION_BOOT_LOADER] = {"boot-loader", "boot loader"},
    [BP_REGION_FIRMWARE] = {"firmware", "firmware flash"},
};

const char *bp_region_name(enum bp_region r)
{
	return regions[(unsigned)r < BP_REGION_N ? r : BP_REGION_NONE].name;
}

const char *bp_region_id(enum bp_region r)
{
	return regions[(unsigned)r < BP_REGION_N ? r : BP_REGION_NONE].id;
}
