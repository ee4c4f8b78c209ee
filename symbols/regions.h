/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names for the code that a PC-type guest runs before the kernel's own text: firmware, option ROMs, boot
 * loader, the kernel's real-mode setup and decompressor, all told by physical address. SeaBIOS machines
 * ("pc", "q35").
 *
 * The answer is a region, not a function, and depends on the address only. Ask for addresses that no kernel
 * symbol and no process explains: a user-space address would be taken for a physical one. Paging is off or
 * identity-mapped in all of this code, so linear and physical addresses are equal.
 *
 * Known to be wrong: the one jump with which SeaBIOS starts further CPUs stands at 0x10000 and counts as
 * setup; a boot loader's own code at 0x38000 or 0xd4000 is not told apart from SeaBIOS; UEFI firmware is not
 * looked into.
 */
#ifndef BP_SYMBOLS_REGIONS_H
#define BP_SYMBOLS_REGIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

/* The values are stored in files: never renumber, append. */
enum bp_region {
	BP_REGION_NONE = 0,       /* nothing known to run there */
	BP_REGION_SEABIOS = 1,    /* firmware, its copy high in RAM and its SMM code included */
	BP_REGION_OPTION_ROM = 2, /* VGA BIOS, network boot ROM, QEMU's own linuxboot */
	BP_REGION_BOOT_SECTOR = 3,
	BP_REGION_LOW_MEMORY = 4,   /* below 640 KiB and none of the others: boot loader stages */
	BP_REGION_SETUP = 5,        /* the kernel's real-mode setup code */
	BP_REGION_DECOMPRESSOR = 6, /* in front of the compressed kernel, and its copy behind the target */
	BP_REGION_KERNEL_ENTRY = 7, /* the kernel's first code, run at its physical address */
	BP_REGION_TRAMPOLINE = 8,   /* where the kernel lets further CPUs start in real mode */
	BP_REGION_BOOT_LOADER = 9,  /* above 1 MiB when no kernel was given to QEMU itself */
	BP_REGION_FIRMWARE = 10,    /* flash below 4 GiB outside of SeaBIOS's last MiB */
	BP_REGION_N
};

struct bp_region_span {
	uint64_t start, end; /* physical, [start, end); empty when equal */
};

struct bp_region_map {
	uint64_t ram_bytes;
	struct bp_region_span bios_high[2]; /* where SeaBIOS moves to: one per possible machine type */
	bool direct_boot;                   /* kernel given to QEMU; the three below are known then */
	struct bp_region_span setup;
	struct bp_region_span decompressor;      /* as loaded */
	struct bp_region_span decompressor_copy; /* after it moved itself out of its target's way */
};

/**
 * bp_region_map_init() - what is known about a guest before it runs
 * @m: usable whatever is returned; needs no deinit
 * @ram_bytes: guest RAM (-m); 0 when unknown: the relocated SeaBIOS is not recognised then
 * @bzimage: the kernel of a direct kernel boot (-kernel), or NULL
 * Errors: BP_EOS when @bzimage cannot be read, BP_EUNSUPPORTED when it is not a bzImage (boot protocol 2.02
 * or later, loaded high); the map is then that of a guest without -kernel.
 *
 * Sources: Documentation/arch/x86/boot.rst (header fields); SeaBIOS docs/Memory_Model.md; QEMU places setup
 * at 0x10000 and the rest at 1 MiB; page histograms of executed code, QEMU 7.2 and 10.0, Linux 6.1 and 6.12.
 */
struct bp_err *bp_region_map_init(struct bp_region_map *m, uint64_t ram_bytes,
				  const char *bzimage) BP_MUST_CHECK;

/** bp_region_find() - the region of a linear address, BP_REGION_NONE if none */
enum bp_region bp_region_find(const struct bp_region_map *m, uint64_t linear_addr);

/** bp_region_name() - for people: "SeaBIOS"; "?" for BP_REGION_NONE and values unknown; static text */
const char *bp_region_name(enum bp_region r);

/** bp_region_id() - stable, for files and scripts: "seabios"; "none" for BP_REGION_NONE and values unknown */
const char *bp_region_id(enum bp_region r);

#endif
