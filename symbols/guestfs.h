/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of the guest's user space, as a source of names: an initrd (one or more cpio archives, plain
 * or compressed) and/or a directory holding the guest's root file system.
 *
 * Everything in them is untrusted: paths with "..", symlinks that leave the tree, archives that
 * expand without end (bounded by @max_bytes) do no harm. One thread at a time.
 */
#ifndef BP_SYMBOLS_GUESTFS_H
#define BP_SYMBOLS_GUESTFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct bp_guestfs;
struct bp_elfsyms;

struct bp_err *bp_guestfs_create(struct bp_guestfs **ret) BP_MUST_CHECK;
void bp_guestfs_destroy(struct bp_guestfs *fs);

/**
 * bp_guestfs_add_initrd() - read all archives of an initrd file into memory
 * Concatenated archives, zero padding between them, each plain (newc) or compressed with gzip, xz,
 * zstd, lz4 or lzma, as the kernel accepts them. Later members replace earlier ones. Files are
 * kept, device nodes are not.
 * Errors: BP_EOS, BP_EDATA with path and offset; BP_EUNSUPPORTED for an archive compressed with something
 * else that the kernel knows. What was read before the damage stays usable.
 *
 * Source: Documentation/driver-api/early-userspace/buffer-format.rst.
 */
struct bp_err *bp_guestfs_add_initrd(struct bp_guestfs *fs, const char *path,
				     uint64_t max_bytes) BP_MUST_CHECK;

/** bp_guestfs_add_dir() - use a directory as the guest's /; searched before the initrds */
struct bp_err *bp_guestfs_add_dir(struct bp_guestfs *fs, const char *path) BP_MUST_CHECK;

/**
 * bp_guestfs_read() - contents of a regular file, symlinks resolved inside the guest's tree
 * @guest_path: absolute guest path
 * @data, @len: owned by @fs, valid until it dies; *data NULL when there is no such file
 */
struct bp_err *bp_guestfs_read(struct bp_guestfs *fs, const char *guest_path, const uint8_t **data,
			       size_t *len) BP_MUST_CHECK;

/**
 * bp_guestfs_find_name() - paths of files with that last component ("libc.so.6"), best guess first
 * For mappings of which only the file's own name is known. Returns the first match, NULL if none;
 * symlink names match too and yield the path of their target. Borrowed until
 * an initrd is added.
 */
const char *bp_guestfs_find_name(struct bp_guestfs *fs, const char *name);

/**
 * bp_guestfs_elf() - function symbols of a guest file, parsed once and cached
 * @ret: borrowed from @fs; NULL when the file is not there or not an ELF file we can read
 */
struct bp_err *bp_guestfs_elf(struct bp_guestfs *fs, const char *guest_path, const struct bp_elfsyms **ret)
	BP_MUST_CHECK;

/**
 * bp_elfsyms_open() - function symbols of an ELF image in memory (.symtab and .dynsym; names of PLT
 * stubs as "name@plt" where relocations tell them; .gnu_debugdata (xz) when there is no .symtab)
 * @path: for error texts. @data is only read during the call.
 * Errors: BP_EDATA with path and offset, BP_EUNSUPPORTED when not ELF64 little endian.
 */
struct bp_err *bp_elfsyms_open(const void *data, size_t len, const char *path,
			       struct bp_elfsyms **ret) BP_MUST_CHECK;
void bp_elfsyms_destroy(struct bp_elfsyms *e);

/**
 * bp_elfsyms_find() - function covering a byte offset in the file
 * (mappings are known by file offset: vaddr - map start + map file offset)
 * @name: borrowed; @start: file offset where the function starts
 * Returns false if no symbol covers it; a symbol without size covers up to the next one.
 */
bool bp_elfsyms_find(const struct bp_elfsyms *e, uint64_t file_offset, const char **name, uint64_t *start);

/**
 * bp_elfsyms_fde_find() - start of the function-like piece of code covering a byte offset
 * From the tables for unwinding, for code without a symbol (stripped files): one piece is one row, though it
 * has no name. Compilers emit one entry per function, and one for each part split off it (the "cold" part), so
 * a piece can be less than a function. Pieces exist for code with symbols too: ask bp_elfsyms_find() first.
 * @start: file offset where it starts
 * Returns false where the file has no .eh_frame_hdr and no .eh_frame, or no entry covers @file_offset.
 * Source: Linux Standard Base, "Exception Frames".
 */
bool bp_elfsyms_fde_find(const struct bp_elfsyms *e, uint64_t file_offset, uint64_t *start);

/** bp_elfsyms_starts() - sorted file offsets where named functions start; borrowed */
const uint64_t *bp_elfsyms_starts(const struct bp_elfsyms *e, size_t *count);

/** bp_elfsyms_build_id() - lower-case hex, "" if none; borrowed */
const char *bp_elfsyms_build_id(const struct bp_elfsyms *e);

#endif
