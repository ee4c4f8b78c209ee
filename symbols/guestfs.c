// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's files. Every source (a directory, the initrds together) keeps its files in a search tree by
 * canonical path: all files of an initrd, only those read so far of a directory. One resolver walks paths for
 * both; it never leaves a source's root, and never lets the host's kernel follow a symlink.
 *
 * Search trees (tsearch(3)) rather than hashes: an archive made to collide must not cost quadratic time.
 */
#define _GNU_SOURCE 1 /* O_PATH, tdestroy() */
#include "symbols/guestfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "symbols/cpio.h"
#include "symbols/decompress.h"

#define LINKS_MAX 40                /* symlinks followed by one look-up, as in the kernel */
#define STEPS_MAX 128               /* components walked by one look-up, those of symlinks included */
#define FILE_MAX_BYTES (1ull << 30) /* larger files of a directory are not read */
#define DIR_ENTRIES_MAX (4u << 20)  /* names indexed of one directory */

enum kind {
	KIND_NONE,
	KIND_DIR,
	KIND_FILE,
	KIND_LINK,
	KIND_OTHER, /* device nodes, sockets */
};

/* Contents; hard links share one. */
struct content {
	struct content *next; /* in fs->contents */
	const uint8_t *data;  /* never NULL, so that an empty file differs from none */
	size_t len;
	uint8_t *owned; /* @data, when it belongs to this file alone */
	struct bp_elfsyms *elf;
	bool elf_tried;
};

struct node {
	struct node *next; /* in fs->nodes */
	enum kind kind;
	struct content *content; /* KIND_FILE */
	const uint8_t *target;   /* KIND_LINK; not NUL-terminated */
	size_t target_len;
	char path[]; /* absolute, canonical in the directories above; search key */
};

/* A name in the index for bp_guestfs_find_name(). */
struct name {
	const char *base; /* last component of path */
	char *path;       /* owned */
	struct source *src;
	bool is_link;
	char *resolved; /* owned; where a symlink leads, once looked up; "" nowhere */
};

struct source {
	struct source *next;
	int root;   /* a directory; -1 for the initrds */
	void *tree; /* of struct node */
	bool indexed;
};

/* Memory that contents point into: archives, expanded or not. */
struct blob {
	struct blob *next;
	uint8_t *data;
};

struct bp_guestfs {
	struct source *dirs; /* in the order they were added */
	struct source initrd;
	struct node *nodes;
	struct content *contents;
	struct blob *blobs;
	struct name *names;
	size_t n_names, cap_names;
};

static const uint8_t nothing[1];

struct bp_err *bp_guestfs_create(struct bp_guestfs **ret)
{
	struct bp_guestfs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return bp_err_nomem();
	fs->initrd.root = -1;
	*ret = fs;
	return NULL;
}

static void free_nothing(void *p)
{
	(void)p; /* nodes are freed by their list */
}

static void index_clear(struct bp_guestfs *fs)
{
	for (struct source *s = fs->dirs; s; s = s->next)
		s->indexed = false;
	fs->initrd.indexed = false;
	for (size_t i = 0; i < fs->n_names; i++) {
		free(fs->names[i].path);
		free(fs->names[i].resolved);
	}
	free(fs->names);
	fs->names = NULL;
	fs->n_names = fs->cap_names = 0;
}

void bp_guestfs_destroy(struct bp_guestfs *fs)
{
	if (!fs)
		return;
	index_clear(fs);
	tdestroy(fs->initrd.tree, free_nothing);
	for (struct source *s = fs->dirs, *next; s; s = next) {
		next = s->next;
		tdestroy(s->tree, free_nothing);
		close(s->root);
		free(s);
	}
	for (struct node *n = fs->nodes, *next; n; n = next) {
		next = n->next;
		free(n);
	}
	for (struct content *c = fs->contents, *next; c; c = next) {
		next = c->next;
		bp_elfsyms_destroy(c->elf);
		free(c->owned);
		free(c);
	}
	for (struct blob *b = fs->blobs, *next; b; b = next) {
		next = b->next;
		free(b->data);
		free(b);
	}
	free(fs);
}

/* Keeps @data for the life of @fs. Takes ownership, on failure too. */
static struct bp_err *blob_keep(struct bp_guestfs *fs, uint8_t *data)
{
	struct blob *b = malloc(sizeof(*b));

	if (!b) {
		free(data);
		return bp_err_nomem();
	}
	b->data = data;
	b->next = fs->blobs;
	fs->blobs = b;
	return NULL;
}

static struct content *content_add(struct bp_guestfs *fs)
{
	struct content *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->data = nothing;
	c->next = fs->contents;
	fs->contents = c;
	return c;
}

/* Tree order: by path. The key that is looked up is a path, what is in the tree are nodes: see node_find().
 */
static int compare_nodes(const void *a, const void *b)
{
	return strcmp(((const struct node *)a)->path, ((const struct node *)b)->path);
}

/* A key with room for any path. */
union node_key {
	struct node node;
	char bytes[sizeof(struct node) + PATH_MAX];
};

static struct node *node_find(const struct source *src, const char *path)
{
	union node_key key;
	size_t len = strlen(path);
	void *found;

	if (len >= PATH_MAX)
		return NULL;
	memcpy(key.bytes + offsetof(struct node, path), path, len + 1);
	found = tfind(&key.node, &src->tree, compare_nodes);
	return found ? *(struct node **)found : NULL;
}

/* The node of a path, made if need be. */
static struct bp_err *node_get(struct bp_guestfs *fs, struct source *src, const char *path, struct node **ret)
{
	struct node *n = node_find(src, path);
	size_t len = strlen(path);

	if (!n) {
		n = calloc(1, sizeof(*n) + len + 1);
		if (!n)
			return bp_err_nomem();
		memcpy(n->path, path, len + 1);
		if (!tsearch(n, &src->tree, compare_nodes)) {
			free(n);
			return bp_err_nomem();
		}
		n->next = fs->nodes;
		fs->nodes = n;
	}
	*ret = n;
	return NULL;
}

/*
 * Opens a canonical path below a directory without following any symlink, component by component.
 * Returns -1 with errno.
 */
static int open_beneath(int root, const char *path, int flags)
{
	char part[NAME_MAX + 1];
	int fd = -1;

	for (;;) {
		int next = -1, error;
		size_t n;
		bool last;

		path += strspn(path, "/");
		n = strcspn(path, "/");
		last = !path[n];
		if (n <= NAME_MAX) {
			memcpy(part, n ? path : ".", n ? n : 1);
			part[n ? n : 1] = '\0';
			next = openat(fd < 0 ? root : fd, part,
				      O_NOFOLLOW | O_CLOEXEC | (last ? flags : O_PATH | O_DIRECTORY));
			error = errno;
		} else {
			error = ENAMETOOLONG;
		}
		if (fd >= 0)
			close(fd);
		errno = error;
		if (next < 0 || last)
			return next;
		fd = next;
		path += n;
	}
}

static enum kind kind_of_mode(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return KIND_FILE;
	case S_IFDIR:
		return KIND_DIR;
	case S_IFLNK:
		return KIND_LINK;
	}
	return KIND_OTHER;
}

/* What is at a canonical path; the target of a symlink, cut to @size - 1 bytes and terminated, in @target. */
static enum kind source_lookup(const struct source *src, const char *path, char *target, size_t size)
{
	enum kind kind = KIND_NONE;
	size_t len = 0;

	if (src->root < 0) {
		const struct node *n = node_find(src, path);

		/* Archives may leave out the entries of directories. */
		kind = n ? n->kind : KIND_DIR;
		if (kind == KIND_LINK) {
			len = n->target_len < size - 1 ? n->target_len : size - 1;
			memcpy(target, n->target, len);
		}
	} else {
		bp_autoclose int fd = open_beneath(src->root, path, O_PATH);
		struct stat st;

		if (fd < 0 || fstat(fd, &st))
			return KIND_NONE;
		kind = kind_of_mode(st.st_mode);
		if (kind == KIND_LINK) {
			ssize_t n = readlinkat(fd, "", target, size - 1);

			if (n <= 0)
				return KIND_NONE;
			len = (size_t)n;
		}
	}
	target[kind == KIND_LINK ? len : 0] = '\0';
	return kind;
}

/* Removes the last component of a canonical path; the root stays the root. */
static void strip_last(char *path, size_t *len)
{
	while (*len && path[*len - 1] != '/')
		--*len;
	if (*len)
		--*len;
	path[*len] = '\0';
}

/*
 * Resolves @path inside of the source: symlinks followed (the last one only if @follow_last), "." and ".."
 * gone.
 * @out: PATH_MAX bytes, the canonical path. Returns what is there; for an initrd KIND_DIR may mean that
 * nothing is.
 */
static enum kind resolve(const struct source *src, const char *path, bool follow_last, char *out)
{
	char rest[2 * PATH_MAX], target[PATH_MAX];
	const char *p = rest;
	size_t len = 0, left;
	unsigned links = 0, steps = 0;
	enum kind kind = KIND_DIR;

	left = strlen(path);
	if (left >= PATH_MAX)
		return KIND_NONE;
	memcpy(rest, path, left + 1);
	out[0] = '\0';
	for (;;) {
		size_t n, target_len;
		bool last;

		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (!n)
			break;
		if (kind != KIND_DIR || ++steps > STEPS_MAX)
			return KIND_NONE;
		last = !p[n + strspn(p + n, "/")];
		if (n == 1 && p[0] == '.') {
			p += n;
			continue;
		}
		if (n == 2 && p[0] == '.' && p[1] == '.') {
			strip_last(out, &len);
			p += n;
			continue;
		}
		if (len + 1 + n >= PATH_MAX)
			return KIND_NONE;
		out[len] = '/';
		memcpy(out + len + 1, p, n);
		len += 1 + n;
		out[len] = '\0';
		p += n;
		kind = source_lookup(src, out, target, sizeof(target));
		if (kind == KIND_NONE)
			return KIND_NONE;
		if (kind != KIND_LINK || (last && !follow_last))
			continue;
		target_len = strlen(target);
		left = strlen(p);
		if (++links > LINKS_MAX || target_len + 1 + left >= sizeof(rest))
			return KIND_NONE;
		memmove(rest + target_len + 1, p, left + 1);
		memcpy(rest, target, target_len);
		rest[target_len] = '/';
		p = rest;
		kind = KIND_DIR;
		if (target[0] == '/') {
			len = 0;
			out[0] = '\0';
		} else {
			strip_last(out, &len);
		}
	}
	if (!len)
		memcpy(out, "/", 2);
	return kind;
}

/*
 * Hard links of one archive: newc gives the contents with any one of the entries, as a rule the last.
 */
struct link {
	uint32_t major, minor, ino;
	struct content *content;
};

struct links {
	void *tree;
};

static int compare_links(const void *a, const void *b)
{
	const struct link *x = a, *y = b;

	if (x->major != y->major)
		return x->major < y->major ? -1 : 1;
	if (x->minor != y->minor)
		return x->minor < y->minor ? -1 : 1;
	return (x->ino > y->ino) - (x->ino < y->ino);
}

static void links_deinit(struct links *l)
{
	tdestroy(l->tree, free);
}

static struct bp_err *link_content(struct bp_guestfs *fs, struct links *links, const struct bp_cpio_entry *e,
				   struct content **ret)
{
	struct link key = {.major = e->major, .minor = e->minor, .ino = e->ino};
	void *found = tfind(&key, &links->tree, compare_links);
	struct link *l;

	if (found) {
		*ret = (*(struct link **)found)->content;
		return NULL;
	}
	l = malloc(sizeof(*l));
	if (!l)
		return bp_err_nomem();
	*l = key;
	l->content = content_add(fs);
	if (!l->content || !tsearch(l, &links->tree, compare_links)) {
		free(l);
		return bp_err_nomem();
	}
	*ret = l->content;
	return NULL;
}

static struct bp_err *add_entry(struct bp_guestfs *fs, struct links *links, const struct bp_cpio_entry *e)
{
	enum kind kind = kind_of_mode((mode_t)e->mode);
	struct content *content = NULL;
	char path[PATH_MAX];
	struct node *n;
	struct bp_err *err;

	/* A name that leads through a file or in circles is one that the kernel could not create either. */
	if (kind == KIND_OTHER || resolve(&fs->initrd, e->name, false, path) == KIND_NONE ||
	    !strcmp(path, "/"))
		return NULL;
	if (kind == KIND_LINK && (!e->len || e->len >= PATH_MAX || memchr(e->data, '\0', e->len)))
		return NULL;
	if (kind == KIND_FILE) {
		if (e->nlink > 1) {
			err = link_content(fs, links, e, &content);
			if (err)
				return err;
		} else {
			content = content_add(fs);
			if (!content)
				return bp_err_nomem();
		}
		if (e->len) {
			content->data = e->data;
			content->len = e->len;
		}
	}
	err = node_get(fs, &fs->initrd, path, &n);
	if (err)
		return err;
	n->kind = kind;
	n->content = content;
	n->target = kind == KIND_LINK ? e->data : NULL;
	n->target_len = kind == KIND_LINK ? e->len : 0;
	return NULL;
}

/* Reads one plain archive at @data; @consumed: its bytes, also on errors those that were read. */
static struct bp_err *add_cpio(struct bp_guestfs *fs, const uint8_t *data, size_t len, const char *path,
			       uint64_t base, size_t *consumed)
{
	bp_cleanup(links_deinit) struct links links = {NULL};
	struct bp_cpio c;

	bp_cpio_init(&c, data, len, path, base);
	for (;;) {
		struct bp_cpio_entry e;
		bool more = false;
		struct bp_err *err = bp_cpio_next(&c, &e, &more);

		*consumed = c.buf.pos;
		if (err || !more)
			return err;
		err = add_entry(fs, &links, &e);
		if (err)
			return err;
	}
}

static size_t skip_zeros(const uint8_t *data, size_t len, size_t pos)
{
	while (pos < len && !data[pos])
		pos++;
	return pos;
}

/* An expanded archive: plain ones only, one after the other. */
static struct bp_err *add_expanded(struct bp_guestfs *fs, const uint8_t *data, size_t len, const char *path)
{
	size_t pos = 0, consumed;

	while ((pos = skip_zeros(data, len, pos)) < len) {
		struct bp_err *err = add_cpio(fs, data + pos, len - pos, path, pos, &consumed);

		if (err)
			return err;
		pos += consumed;
	}
	return NULL;
}

static struct bp_err *add_compressed(struct bp_guestfs *fs, const uint8_t *data, size_t len, const char *path,
				     uint64_t base, uint64_t *budget, size_t *consumed)
{
	bp_autofree char *inner = NULL;
	const uint8_t *kept;
	uint8_t *out = NULL;
	size_t out_len = 0;
	struct bp_err *err;

	if (!bp_decompress_name(data, len))
		return bp_err_data(path, base, "neither a cpio archive nor a compressed one");
	err = bp_decompress(data, len, path, base, *budget, &out, &out_len, consumed);
	if (err)
		return err;
	*budget -= out_len < *budget ? out_len : *budget;
	kept = out;
	err = blob_keep(fs, out);
	if (err)
		return err;
	if (asprintf(&inner, "%s, archive at %llu, expanded", path, (unsigned long long)base) < 0) {
		inner = NULL;
		return bp_err_nomem();
	}
	return add_expanded(fs, kept, out_len, inner);
}

/* The whole of an open regular file, NUL bytes not added; @ret never NULL. */
static struct bp_err *read_all(int fd, const char *path, uint64_t max_bytes, uint8_t **ret, size_t *ret_len)
{
	bp_autofree uint8_t *data = NULL;
	size_t len = 0, size;
	struct stat st;

	if (fstat(fd, &st))
		return bp_err_os(errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return bp_err_os(S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "%s: not a regular file", path);
	if ((uint64_t)st.st_size > max_bytes)
		return bp_err_data(path, BP_NO_OFFSET, "%lld bytes, the limit is %llu", (long long)st.st_size,
				   (unsigned long long)max_bytes);
	size = (size_t)st.st_size;
	data = malloc(size + 1);
	if (!data)
		return bp_err_nomem();
	while (len < size) {
		ssize_t n = pread(fd, data + len, size - len, (off_t)len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bp_err_os(errno, "%s", path);
		if (!n)
			break; /* it shrank meanwhile */
		len += (size_t)n;
	}
	*ret = bp_steal(data);
	*ret_len = len;
	return NULL;
}

struct bp_err *bp_guestfs_add_initrd(struct bp_guestfs *fs, const char *path, uint64_t max_bytes)
{
	bp_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint8_t *data = NULL;
	uint64_t budget = max_bytes;
	size_t len = 0, pos = 0, consumed;
	struct bp_err *err;

	if (fd < 0)
		return bp_err_os(errno, "%s", path);
	err = read_all(fd, path, max_bytes, &data, &len);
	if (err)
		return err;
	/* Kept although compressed parts of it are not needed any more: plain ones are used in place. */
	err = blob_keep(fs, data);
	if (err)
		return err;
	index_clear(fs);

	while ((pos = skip_zeros(data, len, pos)) < len) {
		consumed = 0;
		if (bp_cpio_is(data + pos, len - pos) || data[pos] == '0')
			err = add_cpio(fs, data + pos, len - pos, path, pos, &consumed);
		else
			err = add_compressed(fs, data + pos, len - pos, path, pos, &budget, &consumed);
		if (err)
			return err;
		if (!consumed)
			return bp_err_data(path, pos, "archive without contents");
		pos += consumed;
	}
	return NULL;
}

struct bp_err *bp_guestfs_add_dir(struct bp_guestfs *fs, const char *path)
{
	bp_autoclose int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct source **tail = &fs->dirs;
	struct source *s;

	if (root < 0)
		return bp_err_os(errno, "%s", path);
	s = calloc(1, sizeof(*s));
	if (!s)
		return bp_err_nomem();
	s->root = root;
	root = -1;
	while (*tail)
		tail = &(*tail)->next;
	*tail = s;
	return NULL;
}

/* Reads a file of a directory at its canonical path into a node; @ret NULL when it cannot be had. */
static struct bp_err *load_from_dir(struct bp_guestfs *fs, struct source *src, const char *path,
				    struct node **ret)
{
	struct node *n = node_find(src, path);
	struct bp_err *err;
	struct stat st;
	int fd;

	if (n) {
		*ret = n;
		return NULL;
	}
	*ret = NULL;
	fd = open_beneath(src->root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		if (errno == ENOENT || errno == ELOOP || errno == ENOTDIR || errno == ENXIO)
			return NULL;
		return bp_err_os(errno, "%s in the guest's directory", path);
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return NULL;
	}
	err = node_get(fs, src, path, &n);
	if (!err) {
		n->kind = KIND_OTHER; /* until it has contents */
		n->content = content_add(fs);
		err = n->content ? read_all(fd, path, FILE_MAX_BYTES, &n->content->owned, &n->content->len)
				 : bp_err_nomem();
	}
	close(fd);
	if (err)
		return err;
	n->content->data = n->content->owned;
	n->kind = KIND_FILE;
	*ret = n;
	return NULL;
}

/* The regular file at @guest_path, NULL if there is none in any source. */
static struct bp_err *find_file(struct bp_guestfs *fs, const char *guest_path, struct node **ret)
{
	char path[PATH_MAX];

	*ret = NULL;
	for (struct source *s = fs->dirs; s; s = s->next) {
		struct bp_err *err;

		if (resolve(s, guest_path, true, path) != KIND_FILE)
			continue;
		err = load_from_dir(fs, s, path, ret);
		if (err)
			return err;
		if (*ret && (*ret)->kind == KIND_FILE)
			return NULL;
		*ret = NULL;
	}
	if (resolve(&fs->initrd, guest_path, true, path) == KIND_FILE)
		*ret = node_find(&fs->initrd, path);
	return NULL;
}

struct bp_err *bp_guestfs_read(struct bp_guestfs *fs, const char *guest_path, const uint8_t **data,
			       size_t *len)
{
	struct node *n;
	struct bp_err *err = find_file(fs, guest_path, &n);

	if (err)
		return err;
	*data = n ? n->content->data : NULL;
	*len = n ? n->content->len : 0;
	return NULL;
}

struct bp_err *bp_guestfs_elf(struct bp_guestfs *fs, const char *guest_path, const struct bp_elfsyms **ret)
{
	struct node *n;
	struct content *c;
	struct bp_err *err = find_file(fs, guest_path, &n);

	if (err)
		return err;
	c = n ? n->content : NULL;
	if (c && !c->elf_tried) {
		err = bp_elfsyms_open(c->data, c->len, guest_path, &c->elf);
		if (err && bp_err_code(err) != BP_EDATA && bp_err_code(err) != BP_EUNSUPPORTED)
			return err;
		bp_err_ignore(err);
		c->elf_tried = true;
	}
	*ret = c ? c->elf : NULL;
	return NULL;
}

/* The index by last component. Running out of memory only makes it smaller. */
static void name_add(struct bp_guestfs *fs, struct source *src, const char *path, bool is_link)
{
	struct name *names;
	char *copy;

	if (fs->n_names == fs->cap_names) {
		size_t cap = fs->cap_names ? 2 * fs->cap_names : 256;

		names = realloc(fs->names, cap * sizeof(*names));
		if (!names)
			return;
		fs->names = names;
		fs->cap_names = cap;
	}
	copy = strdup(path);
	if (!copy)
		return;
	fs->names[fs->n_names++] =
	    (struct name){.base = strrchr(copy, '/') + 1, .path = copy, .src = src, .is_link = is_link};
}

struct paths {
	char **v;
	size_t n, cap;
};

static void paths_push(struct paths *p, const char *path)
{
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 64;
		char **v = realloc(p->v, cap * sizeof(*v));

		if (!v)
			return;
		p->v = v;
		p->cap = cap;
	}
	p->v[p->n] = strdup(path);
	if (p->v[p->n])
		p->n++;
}

/* One directory's names; directories in it are left for later. Returns entries seen. */
static size_t index_one(struct bp_guestfs *fs, struct source *src, const char *path, dev_t dev,
			struct paths *todo)
{
	int fd = open_beneath(src->root, path, O_RDONLY | O_DIRECTORY);
	size_t seen = 0;
	struct dirent *d;
	struct stat st;
	DIR *dir;

	if (fd < 0)
		return 0;
	/* Not into /proc and the like, should the guest's root be a live one. */
	if (fstat(fd, &st) || st.st_dev != dev || !(dir = fdopendir(fd))) {
		close(fd);
		return 0;
	}
	while ((d = readdir(dir))) {
		enum kind kind = d->d_type == DT_REG   ? KIND_FILE
				 : d->d_type == DT_DIR ? KIND_DIR
				 : d->d_type == DT_LNK ? KIND_LINK
						       : KIND_OTHER;
		char child[PATH_MAX];

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		seen++;
		if ((size_t)snprintf(child, sizeof(child), "%s/%s", path, d->d_name) >= sizeof(child))
			continue;
		if (d->d_type == DT_UNKNOWN && !fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			kind = kind_of_mode(st.st_mode);
		if (kind == KIND_DIR)
			paths_push(todo, child);
		else if (kind != KIND_OTHER)
			name_add(fs, src, child, kind == KIND_LINK);
	}
	closedir(dir);
	return seen;
}

static void index_dir(struct bp_guestfs *fs, struct source *src)
{
	struct paths todo = {0};
	size_t seen = 0;
	struct stat st;

	if (fstat(src->root, &st))
		return;
	paths_push(&todo, "");
	while (todo.n) {
		char *path = todo.v[--todo.n];

		if (seen < DIR_ENTRIES_MAX)
			seen += index_one(fs, src, path, st.st_dev, &todo);
		free(path);
	}
	free(todo.v);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->base, ((const struct name *)b)->base);
}

static void index_all(struct bp_guestfs *fs)
{
	size_t before = fs->n_names;

	for (struct source *s = fs->dirs; s; s = s->next) {
		if (!s->indexed)
			index_dir(fs, s);
		s->indexed = true;
	}
	if (!fs->initrd.indexed) {
		for (struct node *n = fs->nodes; n; n = n->next) {
			/* The list has the nodes of all sources. */
			if ((n->kind == KIND_FILE || n->kind == KIND_LINK) &&
			    node_find(&fs->initrd, n->path) == n)
				name_add(fs, &fs->initrd, n->path, n->kind == KIND_LINK);
		}
		fs->initrd.indexed = true;
	}
	if (fs->n_names != before)
		qsort(fs->names, fs->n_names, sizeof(*fs->names), compare_names);
}

/* Lower is more likely to be the file that a process has mapped: where programs and libraries live. */
static unsigned place_rank(const char *path)
{
	static const char *const places[] = {"/usr/lib/x86_64-linux-gnu/",
					     "/lib/x86_64-linux-gnu/",
					     "/usr/lib64/",
					     "/lib64/",
					     "/usr/lib/",
					     "/lib/",
					     "/usr/bin/",
					     "/bin/",
					     "/usr/sbin/",
					     "/sbin/",
					     "/usr/",
					     "/opt/"};
	const char *base = strrchr(path, '/') + 1;

	for (unsigned i = 0; i < BP_ARRAY_SIZE(places); i++) {
		size_t n = strlen(places[i]);

		if (!strncmp(path, places[i], n))
			return 2 * i + (path + n != base);
	}
	return 2 * BP_ARRAY_SIZE(places);
}

/* Where an index entry leads, "" if not to a regular file. */
static const char *name_target(struct name *n)
{
	char path[PATH_MAX];

	if (!n->is_link)
		return n->path;
	if (!n->resolved)
		n->resolved = strdup(resolve(n->src, n->path, true, path) == KIND_FILE ? path : "");
	return n->resolved ? n->resolved : "";
}

static bool is_better(const struct name *a, const char *a_path, const struct name *b, const char *b_path)
{
	unsigned x = place_rank(a_path), y = place_rank(b_path);

	/* Directories come first; of those the order in which they were added is not worth keeping. */
	if ((a->src->root >= 0) != (b->src->root >= 0))
		return a->src->root >= 0;
	if (x != y)
		return x < y;
	if (strlen(a_path) != strlen(b_path))
		return strlen(a_path) < strlen(b_path);
	return strcmp(a_path, b_path) < 0;
}

const char *bp_guestfs_find_name(struct bp_guestfs *fs, const char *name)
{
	const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
	const char *best_path = NULL;
	struct name *best = NULL;
	size_t lo = 0, hi;

	index_all(fs);
	for (hi = fs->n_names; lo < hi;) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(fs->names[mid].base, base) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < fs->n_names && !strcmp(fs->names[lo].base, base); lo++) {
		struct name *n = &fs->names[lo];
		const char *path = name_target(n);

		if (*path && (!best || is_better(n, path, best, best_path))) {
			best = n;
			best_path = path;
		}
	}
	return best_path;
}
