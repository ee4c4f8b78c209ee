// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Folded stacks: "task;caller;function count" for each different stack, as flame graph tools read them. The
 * count is what the function at the end spent itself. Kept in memory is one node for each different call
 * path.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "analyzers/walk.h"
#include "cmd/export.h"
#include "core/cleanup.h"

/* Call paths beyond this many are counted with their callers; about 500 MB. */
#define MAX_NODES (8u << 20)

struct node {
	uint32_t parent; /* 0: a root */
	uint32_t key;    /* function; of a root: index of a task with its name */
	uint32_t next;   /* in its hash chain; 0: the last */
	uint32_t recent; /* child entered last; 0: none */
	uint64_t self;
};

/* Nodes: number 0 is not used, the roots follow, one for each different task name and one for nameless tasks.
 */
struct folded {
	struct bp_export *x;
	struct node *nodes;
	size_t n, cap, n_roots;
	uint32_t *heads; /* hash table of n_heads chains, a power of two */
	size_t n_heads;
	uint32_t *root_of; /* of each task in x->tasks, and one more */
	bool failed;
};

static size_t hash(const struct folded *fd, uint32_t parent, uint32_t key)
{
	uint64_t h = ((uint64_t)parent << 32 | key) * 0x9e3779b97f4a7c15u;

	return (size_t)(h >> 32) & (fd->n_heads - 1);
}

static bool rehash(struct folded *fd)
{
	size_t n = fd->n_heads ? fd->n_heads * 2 : 4096;
	uint32_t *heads = calloc(n, sizeof(*heads));

	if (!heads)
		return false;
	free(fd->heads);
	fd->heads = heads;
	fd->n_heads = n;
	for (uint32_t i = (uint32_t)fd->n_roots + 1; i < fd->n; i++) {
		size_t h = hash(fd, fd->nodes[i].parent, fd->nodes[i].key);

		fd->nodes[i].next = heads[h];
		heads[h] = i;
	}
	return true;
}

/* A new node; 0 when out of memory. */
static uint32_t add_node(struct folded *fd, uint32_t parent, uint32_t key)
{
	if (fd->n >= fd->cap) {
		size_t cap = fd->cap ? fd->cap * 2 : 4096;
		struct node *nodes = reallocarray(fd->nodes, cap, sizeof(*nodes));

		if (!nodes) {
			fd->failed = true;
			return 0;
		}
		fd->nodes = nodes;
		fd->cap = cap;
	}
	if (!fd->n)
		fd->nodes[fd->n++] = (struct node){0};
	fd->nodes[fd->n] = (struct node){.parent = parent, .key = key};
	return (uint32_t)fd->n++;
}

/* The node of a function called from @parent; @parent itself when there is no room for it. */
static uint32_t child(struct folded *fd, uint32_t parent, uint32_t func)
{
	uint32_t i = fd->nodes[parent].recent;
	size_t h;

	if (i && fd->nodes[i].key == func)
		return i;
	if (fd->n >= fd->n_heads && !rehash(fd)) {
		fd->failed = true;
		return parent;
	}
	h = hash(fd, parent, func);
	for (i = fd->heads[h]; i; i = fd->nodes[i].next)
		if (fd->nodes[i].parent == parent && fd->nodes[i].key == func)
			break;
	if (!i) {
		if (fd->n < MAX_NODES)
			i = add_node(fd, parent, func);
		if (!i) {
			fd->x->merged_paths++;
			return parent;
		}
		fd->nodes[i].next = fd->heads[h];
		fd->heads[h] = i;
	}
	fd->nodes[parent].recent = i;
	return i;
}

struct named {
	const char *name;
	size_t task;
};

static int compare_names(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->task > y->task) - (x->task < y->task);
}

/* Tasks with the same name share a root. */
static BP_MUST_CHECK struct bp_err *make_roots(struct folded *fd)
{
	const struct bp_export *x = fd->x;
	bp_autofree struct named *names = calloc(x->n_tasks + 1, sizeof(*names));

	fd->root_of = calloc(x->n_tasks + 1, sizeof(*fd->root_of));
	if (!names || !fd->root_of)
		return bp_err_nomem();
	for (size_t i = 0; i < x->n_tasks; i++)
		names[i] = (struct named){x->facts[x->tasks[i].fact].s1, i};
	qsort(names, x->n_tasks, sizeof(*names), compare_names);
	for (size_t i = 0; i < x->n_tasks; i++) {
		bool same = i && !strcmp(names[i].name, names[i - 1].name);
		uint32_t root = same ? (uint32_t)fd->n_roots : add_node(fd, 0, (uint32_t)names[i].task);

		if (!root)
			return bp_err_nomem();
		fd->n_roots += !same;
		fd->root_of[names[i].task] = root;
	}
	fd->root_of[x->n_tasks] = add_node(fd, 0, (uint32_t)x->n_tasks);
	fd->n_roots++;
	return fd->failed ? bp_err_nomem() : NULL;
}

static uint64_t self_of(const struct folded *fd, const struct bp_walk_frame *f)
{
	return fd->x->clock == BP_CLOCK_INSNS ? f->self_insns : f->self_ns;
}

/* task->user is the task's root. */
static void on_run(void *ctx, const struct bp_walk_now *now)
{
	struct folded *fd = ctx;

	if (!now->task->user)
		now->task->user = fd->root_of[bp_export_task_index(fd->x, now->task->id)];
	if (fd->failed)
		now->walk->stop = true;
}

static void on_enter(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now)
{
	struct folded *fd = ctx;
	uint32_t parent = (uint32_t)(f[-1].func == BP_WALK_NO_FUNC ? now->task->user : f[-1].user);

	f->user = child(fd, parent, f->func);
}

static void on_leave(void *ctx, struct bp_walk_frame *f, const struct bp_walk_now *now,
		     enum bp_walk_leave how)
{
	struct folded *fd = ctx;

	(void)now;
	(void)how;
	fd->nodes[f->user].self += self_of(fd, f);
}

static const struct bp_walk_ops folded_walk = {
    .on_run = on_run,
    .on_enter = on_enter,
    .on_resume = on_enter,
    .on_leave = on_leave,
};

/* One name of a stack. Semicolons part the names of a stack, and a line ends at a newline. */
static void add_name(struct folded *fd, uint32_t i, struct bp_strbuf *name)
{
	struct bp_export *x = fd->x;
	const struct node *node = &fd->nodes[i];
	size_t start;

	bp_strbuf_clear(name);
	if (node->parent)
		bp_export_func(x, node->key, name);
	else
		bp_export_task(x, node->key < x->n_tasks ? x->tasks[node->key].id : UINT32_MAX, false, name);
	start = x->out.len;
	bp_strbuf_add_term(&x->out, bp_strbuf_str(name), name->len);
	x->out.failed |= name->failed;
	for (size_t k = start; k < x->out.len; k++)
		if (x->out.data[k] == ';')
			x->out.data[k] = ':';
}

static void write_stacks(struct folded *fd)
{
	struct bp_strbuf name = BP_STRBUF_INIT;
	uint32_t path[BP_MAX_DEPTH + 2];

	for (uint32_t i = 1; i < fd->n && bp_export_drain(fd->x); i++) {
		size_t depth = 0;

		if (!fd->nodes[i].self)
			continue;
		for (uint32_t k = i; k && depth < BP_ARRAY_SIZE(path); k = fd->nodes[k].parent)
			path[depth++] = k;
		while (depth--) {
			add_name(fd, path[depth], &name);
			bp_strbuf_addc(&fd->x->out, depth ? ';' : ' ');
		}
		bp_strbuf_addf(&fd->x->out, "%" PRIu64 "\n", fd->nodes[i].self);
		fd->x->slices++;
	}
	bp_strbuf_deinit(&name);
}

struct bp_err *bp_export_folded(struct bp_export *x)
{
	bp_cleanup(bp_walk_destroyp) struct bp_walk *walk = NULL;
	struct folded fd = {.x = x};
	struct bp_err *err = make_roots(&fd);

	if (!err)
		err = bp_walk_create(x->trace, NULL, &walk);
	if (!err)
		err = bp_walk_inline(walk, &folded_walk, &fd);
	if (!err && fd.failed)
		err = bp_err_nomem();
	if (!err) {
		/* What ran with no function on the stack is the task's own. */
		for (size_t i = 0; i < walk->n_tasks; i++) {
			const struct bp_walk_task *task = walk->tasks[i];

			if (task->user)
				fd.nodes[task->user].self += self_of(&fd, &task->stack[0]);
		}
		x->damaged_blocks = walk->stats.damaged_blocks;
		x->lost_records = walk->stats.lost_records;
		write_stacks(&fd);
	}
	free(fd.nodes);
	free(fd.heads);
	free(fd.root_of);
	return err;
}
