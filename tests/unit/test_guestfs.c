// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>

#include "core/cleanup.h"
#include "core/strbuf.h"
#include "symbols/cpio.h"
#include "symbols/guestfs.h"

#define LIMIT (16u << 20)

static void expect_ok(struct bp_err *err)
{
	if (err)
		fail_msg("%s", bp_err_text(err));
}

static void expect_err(struct bp_err *err, enum bp_err_code code, const char *part)
{
	assert_non_null(err);
	if (bp_err_code(err) != code || !strstr(bp_err_text(err), part))
		fail_msg("code %d: %s; expected code %d with: %s", bp_err_code(err), bp_err_text(err), code,
			 part);
	bp_err_free(err);
}

static void pad(struct bp_strbuf *sb, size_t multiple)
{
	while (sb->len % multiple)
		bp_strbuf_addc(sb, '\0');
}

/* One newc entry. */
static void put(struct bp_strbuf *sb, const char *name, unsigned mode, unsigned ino, unsigned nlink,
		const char *data)
{
	bp_strbuf_addf(sb, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", ino, mode, 0, 0,
		       nlink, 0, strlen(data), 0, 0, 0, 0, strlen(name) + 1, 0);
	bp_strbuf_add(sb, name, strlen(name) + 1);
	pad(sb, 4);
	bp_strbuf_adds(sb, data);
	pad(sb, 4);
}

static void put_file(struct bp_strbuf *sb, const char *name, const char *data)
{
	put(sb, name, S_IFREG | 0755, 0, 1, data);
}

static void put_link(struct bp_strbuf *sb, const char *name, const char *target)
{
	put(sb, name, S_IFLNK | 0777, 0, 1, target);
}

static void put_end(struct bp_strbuf *sb)
{
	put(sb, "TRAILER!!!", 0, 0, 1, "");
}

static void put_gzip(struct bp_strbuf *sb, const struct bp_strbuf *plain)
{
	z_stream z = {0};
	char out[8192];

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (unsigned char *)plain->data;
	z.avail_in = (unsigned)plain->len;
	z.next_out = (unsigned char *)out;
	z.avail_out = sizeof(out);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	bp_strbuf_add(sb, out, sizeof(out) - z.avail_out);
	deflateEnd(&z);
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* Adds an initrd of these bytes. */
static struct bp_err *add(struct bp_guestfs *fs, const struct bp_strbuf *sb, uint64_t limit)
{
	char path[] = "/tmp/test_guestfs.XXXXXX";
	int fd = mkstemp(path);
	struct bp_err *err;

	assert_true(fd >= 0);
	close(fd);
	write_file(path, sb->data ? sb->data : "", sb->len);
	err = bp_guestfs_add_initrd(fs, path, limit);
	unlink(path);
	return err;
}

/* @want NULL: no such file. */
static void expect_file(struct bp_guestfs *fs, const char *path, const char *want)
{
	const uint8_t *data = (const uint8_t *)"untouched";
	size_t len = 0;

	expect_ok(bp_guestfs_read(fs, path, &data, &len));
	if (!want != !data)
		fail_msg("%s: %s", path, data ? "is there" : "is not there");
	if (want && (len != strlen(want) || memcmp(data, want, len)))
		fail_msg("%s: '%.*s', expected '%s'", path, (int)len, (const char *)data, want);
}

static struct bp_guestfs *make_fs(void)
{
	struct bp_guestfs *fs = NULL;

	expect_ok(bp_guestfs_create(&fs));
	return fs;
}

static void test_files(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_guestfs *fs = make_fs();

	(void)state;
	put(&sb, ".", S_IFDIR | 0755, 1, 2, "");
	put_file(&sb, "init", "#!/bin/sh");
	put_file(&sb, "./usr/bin/a", "A");
	put_file(&sb, "/usr/bin/b", "B");
	put_file(&sb, "usr/bin/empty", "");
	put(&sb, "dev/console", S_IFCHR | 0600, 0, 1, "");
	put(&sb, "usr/lib", S_IFDIR | 0755, 0, 1, "");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	expect_file(fs, "/init", "#!/bin/sh");
	expect_file(fs, "init", "#!/bin/sh");
	expect_file(fs, "/usr/bin/a", "A");
	expect_file(fs, "//usr/./bin/../bin/b", "B");
	expect_file(fs, "/../../usr/bin/b", "B");
	expect_file(fs, "/usr/bin/empty", "");
	expect_file(fs, "/usr/bin/none", NULL);
	expect_file(fs, "/usr/bin/a/b", NULL);
	expect_file(fs, "/usr/lib", NULL);
	expect_file(fs, "/usr/bin", NULL);
	expect_file(fs, "/dev/console", NULL);
	expect_file(fs, "/", NULL);
	expect_file(fs, "", NULL);
	bp_guestfs_destroy(fs);
	bp_strbuf_deinit(&sb);
	bp_guestfs_destroy(NULL);
}

static void test_symlinks(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_guestfs *fs = make_fs();
	char deep[4200] = "";

	(void)state;
	put_link(&sb, "bin", "usr/bin");
	put_file(&sb, "bin/busybox", "BB"); /* goes to usr/bin, as it would in the kernel */
	put_link(&sb, "bin/sh", "busybox");
	put_link(&sb, "usr/bin/abs", "/bin/sh");
	put_link(&sb, "up", "../../../../bin/busybox");
	put_link(&sb, "loop1", "loop2");
	put_link(&sb, "loop2", "loop1");
	put_link(&sb, "self", "self/self");
	put_link(&sb, "dangling", "/nowhere");
	put_link(&sb, "dir", ".");
	put_file(&sb, "loop1/x", "never");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	expect_file(fs, "/usr/bin/busybox", "BB");
	expect_file(fs, "/bin/busybox", "BB");
	expect_file(fs, "/bin/sh", "BB");
	expect_file(fs, "/bin/abs", "BB");
	expect_file(fs, "/up", "BB");
	expect_file(fs, "/dir/dir/dir/bin/sh", "BB");
	expect_file(fs, "/bin/../bin/sh", "BB"); /* usr, which has one */
	expect_file(fs, "/loop1", NULL);
	expect_file(fs, "/loop1/x", NULL);
	expect_file(fs, "/self", NULL);
	expect_file(fs, "/dangling", NULL);
	for (int i = 0; i < 200; i++)
		strcat(deep, "/dir");
	expect_file(fs, strcat(deep, "/bin/sh"), NULL);
	memset(deep, 'x', sizeof(deep) - 1);
	expect_file(fs, deep, NULL);
	bp_guestfs_destroy(fs);
	bp_strbuf_deinit(&sb);
}

static void test_hard_links(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_guestfs *fs = make_fs();

	(void)state;
	put(&sb, "a", S_IFREG | 0644, 7, 2, "");
	put(&sb, "c", S_IFREG | 0644, 8, 2, "other");
	put(&sb, "b", S_IFREG | 0644, 7, 2, "shared");
	put_end(&sb);
	/* Numbers mean nothing across archives. */
	put(&sb, "d", S_IFREG | 0644, 7, 2, "");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	expect_file(fs, "/a", "shared");
	expect_file(fs, "/b", "shared");
	expect_file(fs, "/c", "other");
	expect_file(fs, "/d", "");
	bp_guestfs_destroy(fs);
	bp_strbuf_deinit(&sb);
}

static void test_several_archives(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT, inner = BP_STRBUF_INIT;
	struct bp_guestfs *fs = make_fs();

	(void)state;
	put_file(&sb, "kernel/x86/microcode", "M");
	put_file(&sb, "etc/conf", "old");
	put_link(&sb, "was/link", "/etc/conf");
	put_end(&sb);
	pad(&sb, 512);
	put_file(&inner, "etc/conf", "new");
	put_file(&inner, "was/link", "file");
	put_end(&inner);
	pad(&inner, 512);
	put_file(&inner, "second", "2");
	put_end(&inner);
	put_gzip(&sb, &inner);
	pad(&sb, 4);
	put_file(&sb, "last", "L");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	expect_file(fs, "/kernel/x86/microcode", "M");
	expect_file(fs, "/etc/conf", "new");
	expect_file(fs, "/was/link", "file");
	expect_file(fs, "/second", "2");
	expect_file(fs, "/last", "L");

	/* A further initrd replaces too. */
	bp_strbuf_clear(&sb);
	put_file(&sb, "last", "L2");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	expect_file(fs, "/last", "L2");
	expect_file(fs, "/second", "2");
	bp_guestfs_destroy(fs);
	bp_strbuf_deinit(&sb);
	bp_strbuf_deinit(&inner);
}

static void test_damage(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT, cut, inner = BP_STRBUF_INIT;
	struct bp_guestfs *fs = make_fs();
	size_t whole;

	(void)state;
	put_file(&sb, "good", "G");
	put_end(&sb);
	whole = sb.len;
	put_file(&sb, "more", "0123456789");

	cut = sb;
	cut.len = whole + 119; /* in the contents of "more" */
	expect_err(add(fs, &cut, LIMIT), BP_EDATA, "cpio entry claims 10 bytes");
	expect_file(fs, "/good", "G");
	expect_file(fs, "/more", NULL);
	cut.len = whole + 60;
	expect_err(add(fs, &cut, LIMIT), BP_EDATA, "header cut off");

	sb.data[whole + 20] = 'x';
	expect_err(add(fs, &sb, LIMIT), BP_EDATA, "not a number");
	bp_strbuf_clear(&sb);
	bp_strbuf_adds(&sb, "this is no archive at all");
	expect_err(add(fs, &sb, LIMIT), BP_EDATA, "offset 0: neither");
	bp_strbuf_clear(&sb);
	bp_strbuf_adds(&sb, "BZh91AY&SY");
	expect_err(add(fs, &sb, LIMIT), BP_EUNSUPPORTED, "bzip2");

	/* Far more inside than outside. */
	bp_strbuf_clear(&sb);
	for (int i = 0; i < 1000; i++)
		put_file(&inner, "bomb", "");
	put_end(&inner);
	put_gzip(&sb, &inner);
	expect_err(add(fs, &sb, 64 * 1024), BP_EDATA, "");
	expect_err(add(fs, &inner, 64 * 1024), BP_EDATA, "limit");
	expect_ok(add(fs, &sb, LIMIT));

	bp_strbuf_clear(&sb);
	expect_ok(add(fs, &sb, LIMIT)); /* empty */
	expect_err(bp_guestfs_add_initrd(fs, "/tmp", LIMIT), BP_EOS, "/tmp");
	expect_err(bp_guestfs_add_initrd(fs, "/nonexistent", LIMIT), BP_EOS, "/nonexistent");
	expect_err(bp_guestfs_add_dir(fs, "/dev/null"), BP_EOS, "/dev/null");
	bp_guestfs_destroy(fs);
	bp_strbuf_deinit(&sb);
	bp_strbuf_deinit(&inner);
}

static void test_names(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_guestfs *fs = make_fs();

	(void)state;
	put_file(&sb, "opt/x/libc.so.6", "1");
	put_file(&sb, "usr/lib/x86_64-linux-gnu/libc.so.6", "2");
	put_file(&sb, "libc.so.6", "3");
	put_link(&sb, "usr/bin/sh", "../../bin2/busybox");
	put_file(&sb, "bin2/busybox", "4");
	put_link(&sb, "usr/bin/gone", "nowhere");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	assert_string_equal(bp_guestfs_find_name(fs, "libc.so.6"), "/usr/lib/x86_64-linux-gnu/libc.so.6");
	assert_string_equal(bp_guestfs_find_name(fs, "sh"), "/bin2/busybox");
	assert_string_equal(bp_guestfs_find_name(fs, "some/where/sh"), "/bin2/busybox");
	assert_null(bp_guestfs_find_name(fs, "gone"));
	assert_null(bp_guestfs_find_name(fs, "libc.so"));
	assert_null(bp_guestfs_find_name(fs, ""));
	bp_strbuf_clear(&sb);
	put_file(&sb, "later", "5");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	assert_string_equal(bp_guestfs_find_name(fs, "later"), "/later");
	assert_string_equal(bp_guestfs_find_name(fs, "sh"), "/bin2/busybox");
	bp_guestfs_destroy(fs);
	bp_strbuf_deinit(&sb);
}

static void test_directory(void **state)
{
	char root[] = "/tmp/test_guestfs_dir.XXXXXX", cwd[4096], command[4096];
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_guestfs *fs = make_fs();
	const struct bp_elfsyms *elf;

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	assert_int_equal(chdir(root), 0);
	assert_int_equal(mkdir("guest", 0755), 0);
	write_file("secret", "outside", 7);
	assert_int_equal(chdir("guest"), 0);
	assert_int_equal(mkdir("usr", 0755) | mkdir("usr/bin", 0755), 0);
	write_file("usr/bin/tool", "T", 1);
	write_file("both", "dir", 3);
	assert_int_equal(symlink("usr/bin", "bin"), 0);
	assert_int_equal(symlink("/usr/bin/tool", "absolute"), 0);
	assert_int_equal(symlink("../secret", "escape"), 0);
	assert_int_equal(symlink("../../../../../../../../../etc/passwd", "passwd"), 0);
	assert_int_equal(symlink("..", "usr/parent"), 0);
	assert_int_equal(symlink("round", "round"), 0);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(chdir("/"), 0);

	put_file(&sb, "both", "initrd");
	put_file(&sb, "only", "initrd");
	put_end(&sb);
	expect_ok(add(fs, &sb, LIMIT));
	snprintf(command, sizeof(command), "%s/guest", root);
	expect_ok(bp_guestfs_add_dir(fs, command));
	for (int again = 0; again < 2; again++) {
		expect_file(fs, "/bin/tool", "T");
		expect_file(fs, "/absolute", "T");
		expect_file(fs, "/usr/parent/usr/parent/absolute", "T");
		expect_file(fs, "/both", "dir");
		expect_file(fs, "/only", "initrd");
		expect_file(fs, "/escape", NULL);
		expect_file(fs, "/passwd", NULL);
		expect_file(fs, "/../secret", NULL);
		expect_file(fs, "/usr/parent/../secret", NULL);
		expect_file(fs, "/round", NULL);
		expect_file(fs, "/fifo", NULL);
		expect_file(fs, "/usr", NULL);
	}
	assert_string_equal(bp_guestfs_find_name(fs, "tool"), "/usr/bin/tool");
	assert_string_equal(bp_guestfs_find_name(fs, "absolute"), "/usr/bin/tool");
	assert_null(bp_guestfs_find_name(fs, "escape"));
	assert_string_equal(bp_guestfs_find_name(fs, "only"), "/only");
	expect_ok(bp_guestfs_elf(fs, "/bin/tool", &elf));
	assert_null(elf);
	expect_ok(bp_guestfs_elf(fs, "/bin/nothing", &elf));
	assert_null(elf);
	bp_guestfs_destroy(fs);
	bp_strbuf_deinit(&sb);
	assert_int_equal(chdir(cwd), 0);
	snprintf(command, sizeof(command), "rm -r %s", root);
	assert_int_equal(system(command), 0);
}

static void test_elf_is_cached(void **state)
{
	struct bp_guestfs *fs = make_fs();
	const struct bp_elfsyms *one, *two;
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	(void)state;
	assert_true(n > 0);
	exe[n] = '\0';
	expect_ok(bp_guestfs_add_dir(fs, "/"));
	expect_ok(bp_guestfs_elf(fs, exe, &one));
	expect_ok(bp_guestfs_elf(fs, exe, &two));
	assert_non_null(one);
	assert_ptr_equal(one, two);
	bp_guestfs_destroy(fs);
}

static void test_cpio_positions(void **state)
{
	struct bp_strbuf sb = BP_STRBUF_INIT;
	struct bp_cpio_entry e;
	struct bp_cpio c;
	bool more;

	(void)state;
	put_file(&sb, "abc", "12345");
	put_end(&sb);
	bp_cpio_init(&c, sb.data, sb.len, "x", 1000);
	assert_true(bp_cpio_is(sb.data, sb.len));
	assert_false(bp_cpio_is(sb.data, 5));
	expect_ok(bp_cpio_next(&c, &e, &more));
	assert_true(more);
	assert_string_equal(e.name, "abc");
	assert_int_equal(e.offset, 1000);
	assert_int_equal(e.len, 5);
	assert_memory_equal(e.data, "12345", 5);
	expect_ok(bp_cpio_next(&c, &e, &more));
	assert_false(more);
	assert_int_equal(c.buf.pos, sb.len);

	/* A name without end, one too long, none. */
	sb.data[110 + 3] = 'd';
	bp_cpio_init(&c, sb.data, sb.len, "x", 1000);
	expect_err(bp_cpio_next(&c, &e, &more), BP_EDATA, "offset 1110");
	memcpy(sb.data + 6 + 8 * 11, "00010000", 8);
	bp_cpio_init(&c, sb.data, sb.len, "x", 1000);
	expect_err(bp_cpio_next(&c, &e, &more), BP_EDATA, "65536");
	memcpy(sb.data + 6 + 8 * 11, "00000000", 8);
	bp_cpio_init(&c, sb.data, sb.len, "x", 1000);
	expect_err(bp_cpio_next(&c, &e, &more), BP_EDATA, "name of 0 bytes");
	bp_strbuf_deinit(&sb);
}

static void test_real_initrd(void **state)
{
	const char *initrd = getenv("BOOTPROF_TEST_INITRD");
	struct bp_guestfs *fs;
	const uint8_t *data;
	size_t len;

	(void)state;
	if (!initrd || !*initrd) {
		print_message("BOOTPROF_TEST_INITRD is not set\n");
		skip();
	}
	fs = make_fs();
	expect_ok(bp_guestfs_add_initrd(fs, initrd, 1u << 30));
	expect_ok(bp_guestfs_read(fs, "/init", &data, &len));
	assert_non_null(data);
	bp_guestfs_destroy(fs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_files),          cmocka_unit_test(test_symlinks),
	    cmocka_unit_test(test_hard_links),     cmocka_unit_test(test_several_archives),
	    cmocka_unit_test(test_damage),         cmocka_unit_test(test_names),
	    cmocka_unit_test(test_directory),      cmocka_unit_test(test_elf_is_cached),
	    cmocka_unit_test(test_cpio_positions), cmocka_unit_test(test_real_initrd),
	};

	return cmocka_run_group_tests_name("guestfs", tests, NULL, NULL);
}
