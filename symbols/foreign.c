// SPDX-License-Identifier: GPL-2.0-or-later
#include "symbols/foreign.h"

#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/source.h"
#include "core/strbuf.h"
#include "symbols/kimage.h"
#include "symbols/modfile.h"
#include "symbols/vmlinux.h"

#define KERNEL_HALF 0xffff800000000000ull
#define KERNEL_START BP_KERNEL_BASE_ADDR
#define KERNEL_END 0xffffffffc0000000ull /* modules begin here */

#define SLIDE_STEP 0x200000ull
#define SLIDE_MAX 0x40000000ull

/* Bounds for what a text file can make us keep. */
#define SYMS_MAX (4u << 20)
#define TEXT_MAX (256u << 20)
#define RANGES_MAX 4096

/* The last function of a module ends here at the latest: there is no mark behind it. */
#define LAST_FUNCTION_BYTES (16u << 10)

#define CACHE_BITS 14
#define SET_BITS 14

/* Least that must fit before a slide is believed. */
#define FIT_MIN 4

/* A function, or (name NULL) the end of the one before. Sorted by address. */
struct sym {
	uint64_t addr;
	const char *name, *module;
};

struct raw_sym {
	struct sym s;
	uint32_t order;
	char type;
};

struct range {
	uint64_t start, end;
	const char *name;
};

struct table {
	struct sym *syms;
	size_t n;
};

struct cached {
	uint64_t addr; /* 0: free */
	const struct sym *sym;
};

struct bp_foreign {
	struct bp_kimage *image;
	char *texts[2];           /* kallsyms and modules, cut into strings */
	struct bp_modfile *files; /* whose functions are among those of modules */
	size_t n_files;
	uint64_t other_release; /* modules whose file is of another kernel */
	struct table linked;    /* the kernel's own functions, the slide not applied */
	struct table fixed;     /* of modules, at run-time addresses */
	struct range *ranges;   /* modules, sorted */
	size_t n_ranges, cap_ranges;
	uint64_t text_start, text_end; /* of the kernel as in `linked` */
	uint8_t *starts;               /* a bit for each byte of the text: a function begins */

	bool given, known;
	uint64_t slide;
	uint64_t kallsyms_slide; /* kallsyms against vmlinux */
	bool have_kallsyms_slide;
	uint64_t sample[BP_FOREIGN_SAMPLE], sampled[1u << SET_BITS]; /* in order; as a hash */
	size_t n_sample, settled_at;
	struct bp_foreign_fit fit;

	struct cached cache[1u << CACHE_BITS];
	struct bp_foreign_misses misses;
	struct bp_strbuf from;
	char release[128], build_id[160];
};

/* ---- reading text ---- */

static void source_closep(struct bp_source **s)
{
	bp_source_close(*s);
}

/* A whole text file with a NUL behind it; @data is the caller's, also after an error. */
static BP_MUST_CHECK struct bp_err *read_text(const char *path, char **data, size_t *len)
{
	bp_cleanup(source_closep) struct bp_source *s = NULL;
	struct bp_err *err = bp_source_open(path, &s);
	size_t cap = 0;

	*len = 0;
	while (!err) {
		const char *piece;
		size_t n;

		err = bp_source_next_lines(s, &piece, &n);
		if (err)
			break;
		if (*len + n > TEXT_MAX)
			return bp_err_data(path, bp_source_offset(s), "too long for a list of symbols");
		if (*len + n + 1 > cap) {
			char *p;

			cap = cap * 2 > *len + n + 1 ? cap * 2 : *len + n + 1;
			p = realloc(*data, cap);
			if (!p)
				return bp_err_nomem();
			*data = p;
		}
		memcpy(*data + *len, piece, n);
		*len += n;
		(*data)[*len] = '\0';
		if (!n)
			break;
	}
	return err;
}

static bool hex(const char **p, uint64_t *ret)
{
	const char *s = *p;
	uint64_t v = 0;
	int n = 0;

	for (;; s++, n++) {
		int d = *s >= '0' && *s <= '9'   ? *s - '0'
			: *s >= 'a' && *s <= 'f' ? *s - 'a' + 10
			: *s >= 'A' && *s <= 'F' ? *s - 'A' + 10
						 : -1;

		if (d < 0)
			break;
		v = v << 4 | (uint64_t)d;
	}
	if (n < 1 || n > 16)
		return false;
	*p = s;
	*ret = v;
	return true;
}

static char *word(char **p)
{
	char *s = *p, *e;

	s += strspn(s, " \t");
	e = s + strcspn(s, " \t\r");
	*p = *e ? e + 1 : e;
	*e = '\0';
	return s;
}

/* ---- kallsyms ---- */

static bool is_mark(const char *name)
{
	static const char *const marks[] = {"_text", "_stext", "_etext", "_sinittext", "_einittext"};
	size_t len = strlen(name);

	for (size_t i = 0; i < BP_ARRAY_SIZE(marks); i++)
		if (!strcmp(name, marks[i]))
			return true;
	if (!strncmp(name, "__pfx_", 6) || !strncmp(name, "__cfi_", 6) || !strncmp(name, "__pi_", 5))
		return true;
	return !strncmp(name, "__", 2) && len >= 8 &&
	       (!strncmp(name + 2, "start_", 6) || !strncmp(name + 2, "stop_", 5) ||
		!strncmp(name + 2, "end_", 4) || !strcmp(name + len - 6, "_start") ||
		!strcmp(name + len - 4, "_end"));
}

static bool is_text(char type)
{
	return type == 't' || type == 'T' || type == 'w' || type == 'W';
}

/* By address; of one address the name that bp_kimage_find() would give comes first. */
static int raw_cmp(const void *a, const void *b)
{
	const struct raw_sym *x = a, *y = b;
	size_t ux, uy;
	int d;

	if (x->s.addr != y->s.addr)
		return x->s.addr < y->s.addr ? -1 : 1;
	d = !is_text(x->type) - !is_text(y->type);
	if (!d)
		d = is_mark(x->s.name) - is_mark(y->s.name);
	if (!d)
		d = (x->type == 'w' || x->type == 'W') - (y->type == 'w' || y->type == 'W');
	if (d)
		return d;
	ux = strspn(x->s.name, "_");
	uy = strspn(y->s.name, "_");
	if (ux != uy)
		return ux < uy ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* Sorted, one for each address, ends only where a function ends. */
static size_t squeeze(struct raw_sym *raw, size_t n, struct sym *out)
{
	size_t m = 0;

	qsort(raw, n, sizeof(*raw), raw_cmp);
	for (size_t i = 0; i < n; i++) {
		bool text = is_text(raw[i].type);

		if (i && raw[i].s.addr == raw[i - 1].s.addr)
			continue;
		if (text && is_mark(raw[i].s.name)) {
			/* A mark alone at the end of the text: nothing follows it. */
			if (strcmp(raw[i].s.name, "_etext") != 0 && strcmp(raw[i].s.name, "_einittext") != 0)
				continue;
			text = false;
		}
		if (!text && (!m || !out[m - 1].name))
			continue;
		out[m++] =
		    (struct sym){raw[i].s.addr, text ? raw[i].s.name : NULL, text ? raw[i].s.module : NULL};
	}
	return m;
}

/* One line: "ffffffff81000000 T name" and perhaps "\t[module]". False: not such a line. */
static bool parse_symbol(char *line, struct raw_sym *ret)
{
	const char *p = line;
	char *q, *module;

	if (!hex(&p, &ret->s.addr) || p[0] != ' ' || !p[1] || p[2] != ' ')
		return false;
	ret->type = p[1];
	q = line + (p + 3 - line);
	ret->s.name = word(&q);
	module = word(&q);
	ret->s.module = "vmlinux";
	if (module[0] == '[') {
		size_t len = strlen(module);

		if (len > 2 && module[len - 1] == ']')
			module[len - 1] = '\0';
		ret->s.module = module + 1;
	}
	return ret->s.name[0] != '\0';
}

static BP_MUST_CHECK struct bp_err *parse_kallsyms(const char *path, char *text, size_t text_len,
						   struct raw_sym **ret, size_t *ret_n)
{
	bp_autofree struct raw_sym *raw = NULL;
	size_t n = 0, cap = 0, bad = 0;
	uint64_t any = 0;

	for (size_t at = 0; at < text_len;) {
		char *line = text + at, *nl = memchr(line, '\n', text_len - at);
		size_t len = nl ? (size_t)(nl - line) : text_len - at;

		line[len] = '\0';
		if (n == cap) {
			struct raw_sym *p;

			if (n >= SYMS_MAX)
				return bp_err_data(path, at, "more than %u symbols", SYMS_MAX);
			cap = cap ? cap * 2 : 65536;
			p = realloc(raw, cap * sizeof(*raw));
			if (!p)
				return bp_err_nomem();
			raw = p;
		}
		if (parse_symbol(line, &raw[n])) {
			raw[n].order = (uint32_t)n;
			any |= raw[n].s.addr;
			n++;
		} else if (len && !bad++ && !n) {
			return bp_err_data(path, at, "not a list of kernel symbols (kallsyms, System.map)");
		}
		at += len + 1;
	}
	if (!n)
		return bp_err_data(path, 0, "no symbols in it");
	if (!any)
		return bp_err_data(path, 0,
				   "all addresses are 0: the kernel shows them to root only (kptr_restrict)");
	if (any == UINT64_MAX && n == 1)
		return bp_err_data(path, 0,
				   "has one symbol only: Debian's System.map is in the package of debug "
				   "symbols; --vmlinux takes the kernel image instead");
	*ret = bp_steal(raw);
	*ret_n = n;
	return NULL;
}

static bool in_kernel(const struct raw_sym *r)
{
	return !strcmp(r->s.module, "vmlinux");
}

/*
 * Splits kallsyms into the kernel's functions (unless the image has them) and those of modules, and finds how
 * far the kernel of that list was moved against the image.
 */
static BP_MUST_CHECK struct bp_err *take_kallsyms(struct bp_foreign *f, const char *path)
{
	bp_autofree struct raw_sym *raw = NULL;
	bp_autofree struct sym *linked = NULL, *fixed = NULL;
	size_t text_len, n = 0, n_kernel = 0, n_low = 0;
	struct bp_err *err = read_text(path, &f->texts[0], &text_len);

	if (!err)
		err = parse_kallsyms(path, f->texts[0], text_len, &raw, &n);
	if (err)
		return err;
	for (size_t i = 0; i < n; i++) {
		if (f->image && !strcmp(raw[i].s.name, "_text") && in_kernel(&raw[i])) {
			const struct bp_ksym *s = bp_kimage_lookup(f->image, "_text");

			if (s && !((raw[i].s.addr - s->addr) % SLIDE_STEP)) {
				f->kallsyms_slide = raw[i].s.addr - s->addr;
				f->have_kallsyms_slide = true;
			}
		}
		if (in_kernel(&raw[i])) {
			struct raw_sym t = raw[n_kernel];

			raw[n_kernel++] = raw[i];
			raw[i] = t;
		}
	}
	linked = malloc((n_kernel + 1) * sizeof(*linked));
	fixed = malloc((n - n_kernel + 1) * sizeof(*fixed));
	if (!linked || !fixed)
		return bp_err_nomem();
	f->fixed.n = squeeze(raw + n_kernel, n - n_kernel, fixed);
	f->fixed.syms = bp_steal(fixed);
	if (!f->image) {
		f->linked.n = squeeze(raw, n_kernel, linked);
		f->linked.syms = bp_steal(linked);
		/* Per-CPU symbols and the like, below the kernel. */
		while (n_low < f->linked.n && f->linked.syms[n_low].addr < KERNEL_START)
			n_low++;
		f->linked.n -= n_low;
		memmove(f->linked.syms, f->linked.syms + n_low, f->linked.n * sizeof(*f->linked.syms));
	}
	bp_strbuf_addf(&f->from, "%s%s", f->from.len ? ", " : "", path);
	return NULL;
}

/* ---- modules ---- */

static int range_cmp(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Lines of /proc/modules: "virtio_blk 28672 0 - Live 0xffffffffc03a2000". */
static BP_MUST_CHECK struct bp_err *take_modules(struct bp_foreign *f, const char *path)
{
	size_t text_len, good = 0;
	struct bp_err *err = read_text(path, &f->texts[1], &text_len);
	uint64_t any = 0;

	if (err)
		return err;
	for (size_t at = 0; at < text_len;) {
		char *line = f->texts[1] + at, *nl = memchr(line, '\n', text_len - at), *p = line, *name;
		size_t len = nl ? (size_t)(nl - line) : text_len - at;
		const char *base;
		uint64_t addr, size;

		line[len] = '\0';
		name = word(&p);
		size = strtoull(word(&p), NULL, 10);
		for (int i = 0; i < 3; i++)
			word(&p);
		base = word(&p);
		if (!strncmp(base, "0x", 2)) {
			base += 2;
			if (hex(&base, &addr)) {
				good++;
				any |= addr;
				if (addr >= KERNEL_HALF && size && size < 1u << 30 && addr + size > addr &&
				    f->n_ranges < RANGES_MAX) {
					if (f->n_ranges == f->cap_ranges) {
						size_t cap = f->cap_ranges ? f->cap_ranges * 2 : 64;
						struct range *r = realloc(f->ranges, cap * sizeof(*r));

						if (!r)
							return bp_err_nomem();
						f->ranges = r;
						f->cap_ranges = cap;
					}
					f->ranges[f->n_ranges++] = (struct range){addr, addr + size, name};
				}
			}
		}
		at += len + 1;
	}
	if (text_len && !good)
		return bp_err_data(path, 0, "not a /proc/modules");
	if (good && !any)
		return bp_err_data(path, 0,
				   "all addresses are 0: the kernel shows them to root only (kptr_restrict)");
	qsort(f->ranges, f->n_ranges, sizeof(*f->ranges), range_cmp);
	bp_strbuf_addf(&f->from, "%s%s", f->from.len ? ", " : "", path);
	return NULL;
}

/* The module's name in @name, if it is one of a module's file; '-' and '_' are the same in those. */
static bool module_of_file(const char *file, char *name, size_t cap)
{
	const char *end = strstr(file, ".ko");

	if (!end || (size_t)(end - file) >= cap || (end[3] && end[3] != '.'))
		return false;
	snprintf(name, cap, "%.*s", (int)(end - file), file);
	for (char *p = name; *p; p++)
		if (*p == '-')
			*p = '_';
	return true;
}

static const struct range *range_of(const struct bp_foreign *f, const char *name)
{
	for (size_t i = 0; i < f->n_ranges; i++)
		if (!strcmp(f->ranges[i].name, name))
			return &f->ranges[i];
	return NULL;
}

/* Functions of the module at @r from its file, if the file is the right one. */
static BP_MUST_CHECK struct bp_err *take_module(struct bp_foreign *f, const char *path, const struct range *r)
{
	struct bp_modfile *files = realloc(f->files, (f->n_files + 1) * sizeof(*files)), *m;
	bp_autofree struct raw_sym *raw = NULL;
	bp_autofree struct sym *all = NULL;
	struct bp_err *err;
	size_t n = 0;

	if (!files)
		return bp_err_nomem();
	f->files = files;
	m = &files[f->n_files];
	err = bp_modfile_read(path, m);
	f->n_files++;
	if (err)
		return err;
	if ((f->release[0] && m->release[0] && strcmp(f->release, m->release) != 0) ||
	    m->text_bytes > r->end - r->start) {
		f->other_release++;
		return NULL;
	}
	raw = malloc((f->fixed.n + m->n_syms + 2) * sizeof(*raw));
	all = malloc((f->fixed.n + m->n_syms + 2) * sizeof(*all));
	if (!raw || !all)
		return bp_err_nomem();
	for (size_t i = 0; i < m->n_syms; i++, n++)
		raw[n] = (struct raw_sym){
		    {r->start + m->syms[i].offset, m->syms[i].name, r->name}, (uint32_t)n, m->syms[i].type};
	/* Where it ends. */
	raw[n] = (struct raw_sym){{r->start + m->text_bytes, "", r->name}, (uint32_t)n, 'd'};
	n = squeeze(raw, n + 1, all);
	/* Modules do not overlap: all of the others are before or behind. */
	if (n) {
		size_t before = 0;
		struct sym *grown = realloc(f->fixed.syms, (f->fixed.n + n) * sizeof(*grown));

		if (!grown)
			return bp_err_nomem();
		f->fixed.syms = grown;
		while (before < f->fixed.n && grown[before].addr < r->start)
			before++;
		memmove(grown + before + n, grown + before, (f->fixed.n - before) * sizeof(*grown));
		memcpy(grown + before, all, n * sizeof(*grown));
		f->fixed.n += n;
	}
	return NULL;
}

static bool has_functions(const struct bp_foreign *f, const struct range *r)
{
	for (size_t i = 0; i < f->fixed.n; i++)
		if (f->fixed.syms[i].name && f->fixed.syms[i].addr >= r->start &&
		    f->fixed.syms[i].addr < r->end)
			return true;
	return false;
}

static void fts_closep(FTS **fts)
{
	if (*fts)
		fts_close(*fts);
}

/* Files of the modules that are loaded, of which kallsyms says nothing. */
static BP_MUST_CHECK struct bp_err *take_module_dir(struct bp_foreign *f, const char *dir)
{
	char *const dirs[] = {(char *)dir, NULL};
	bp_cleanup(fts_closep) FTS *fts = fts_open(dirs, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	size_t seen = 0, taken = 0;
	FTSENT *e;

	if (!f->n_ranges)
		return bp_err_new(BP_EUSAGE,
				  "--module-dir needs --modules: only /proc/modules says where modules were");
	if (!fts)
		return bp_err_os(errno, "%s: cannot read", dir);
	while ((e = fts_read(fts))) {
		const struct range *r;
		struct bp_err *err;
		char name[64];

		if (e->fts_level == 0 && (e->fts_info == FTS_NS || e->fts_info == FTS_DNR))
			return bp_err_os(e->fts_errno, "%s: cannot read", dir);
		if (e->fts_info != FTS_F || !module_of_file(e->fts_name, name, sizeof(name)))
			continue;
		seen++;
		r = range_of(f, name);
		if (!r || has_functions(f, r))
			continue;
		err = take_module(f, e->fts_path, r);
		if (err)
			return err;
		taken++;
	}
	if (!seen)
		return bp_err_data(dir, 0, "no modules (.ko files) in it");
	if (taken > f->other_release)
		bp_strbuf_addf(&f->from, "%s%s (%zu modules)", f->from.len ? ", " : "", dir,
			       taken - (size_t)f->other_release);
	return NULL;
}

uint64_t bp_foreign_other_modules(const struct bp_foreign *f)
{
	return f->other_release;
}

/* ---- the kernel image ---- */

static BP_MUST_CHECK struct bp_err *take_image(struct bp_foreign *f, const char *path)
{
	struct bp_err *err = bp_kimage_open(path, &f->image);
	const struct bp_ksym *all;
	uint64_t start, end, done = 0;
	size_t count, n = 0;

	if (err)
		return err;
	all = bp_kimage_syms(f->image, &count);
	bp_kimage_text(f->image, &start, &end);
	f->linked.syms = malloc((count * 2 + 1) * sizeof(*f->linked.syms));
	if (!f->linked.syms)
		return bp_err_nomem();
	for (size_t i = 0; i < count; i++) {
		const struct bp_ksym *s;

		if (all[i].addr < start || all[i].addr >= end || (done && all[i].addr <= done))
			continue;
		done = all[i].addr;
		s = bp_kimage_find(f->image, done);
		if (s && s->addr == done)
			f->linked.syms[n++] = (struct sym){done, s->name, "vmlinux"};
		else if (!s && n && f->linked.syms[n - 1].name)
			f->linked.syms[n++] = (struct sym){done, NULL, NULL};
	}
	f->linked.syms[n++] = (struct sym){end, NULL, NULL};
	f->linked.n = n;
	snprintf(f->release, sizeof(f->release), "%s", bp_kimage_release(f->image));
	snprintf(f->build_id, sizeof(f->build_id), "%s", bp_kimage_build_id(f->image));
	bp_strbuf_adds(&f->from, path);
	if (f->release[0])
		bp_strbuf_addf(&f->from, " (kernel %s)", f->release);
	return NULL;
}

/* Where functions of the kernel begin, for judging slides. */
static BP_MUST_CHECK struct bp_err *map_starts(struct bp_foreign *f)
{
	uint64_t len;

	if (!f->linked.n)
		return NULL;
	f->text_start = f->linked.syms[0].addr;
	f->text_end = f->linked.syms[f->linked.n - 1].addr + 1;
	len = f->text_end - f->text_start;
	if (len > SLIDE_MAX)
		return bp_err_new(BP_EUNSUPPORTED, "the symbols span more than %llu MB: not one kernel",
				  SLIDE_MAX >> 20);
	f->starts = calloc(1, len / 8 + 1);
	if (!f->starts)
		return bp_err_nomem();
	for (size_t i = 0; i < f->linked.n; i++) {
		uint64_t at = f->linked.syms[i].addr - f->text_start;

		if (f->linked.syms[i].name)
			f->starts[at / 8] |= (uint8_t)(1u << at % 8);
	}
	return NULL;
}

/* ---- creation ---- */

void bp_foreign_destroy(struct bp_foreign *f)
{
	if (!f)
		return;
	bp_kimage_destroy(f->image);
	free(f->texts[0]);
	free(f->texts[1]);
	free(f->linked.syms);
	free(f->fixed.syms);
	for (size_t i = 0; i < f->n_files; i++)
		bp_modfile_deinit(&f->files[i]);
	free(f->files);
	free(f->ranges);
	free(f->starts);
	bp_strbuf_deinit(&f->from);
	free(f);
}

static void foreign_destroyp(struct bp_foreign **f)
{
	bp_foreign_destroy(*f);
}

struct bp_err *bp_foreign_create(const struct bp_foreign_options *o, struct bp_foreign **ret)
{
	bp_cleanup(foreign_destroyp) struct bp_foreign *f = calloc(1, sizeof(*f));
	struct bp_err *err = NULL;

	if (!f)
		return bp_err_nomem();
	if (o->vmlinux)
		err = take_image(f, o->vmlinux);
	if (!err && o->kallsyms)
		err = take_kallsyms(f, o->kallsyms);
	if (!err && o->modules)
		err = take_modules(f, o->modules);
	if (!err && o->module_dir)
		err = take_module_dir(f, o->module_dir);
	if (!err)
		err = map_starts(f);
	if (err)
		return err;
	f->given = o->slide_given;
	f->slide = o->slide;
	if (!f->given && f->have_kallsyms_slide && f->kallsyms_slide) {
		/* A kallsyms of a kernel that was moved says by how much; a System.map does not. */
		f->given = true;
		f->slide = f->kallsyms_slide;
	}
	f->known = f->given;
	*ret = bp_steal(f);
	return NULL;
}

bool bp_foreign_has_names(const struct bp_foreign *f)
{
	return f->linked.n || f->fixed.n || f->n_ranges;
}

bool bp_foreign_has_code(const struct bp_foreign *f)
{
	return f->image;
}

const struct bp_foreign_misses *bp_foreign_misses(const struct bp_foreign *f)
{
	return &f->misses;
}

const char *bp_foreign_names_from(const struct bp_foreign *f)
{
	return bp_strbuf_str(&f->from);
}

const char *bp_foreign_release(const struct bp_foreign *f)
{
	return f->release;
}

const char *bp_foreign_build_id(const struct bp_foreign *f)
{
	return f->build_id;
}

/* ---- the slide ---- */

void bp_foreign_sample(struct bp_foreign *f, const uint64_t *addrs, size_t n)
{
	for (size_t i = 0; i < n && f->n_sample < BP_FOREIGN_SAMPLE; i++) {
		uint64_t a = addrs[i], at = a * 0x9e3779b97f4a7c15ull >> (64 - SET_BITS);

		if (a < KERNEL_START || a >= KERNEL_END)
			continue;
		while (f->sampled[at] && f->sampled[at] != a)
			at = (at + 1) & ((1u << SET_BITS) - 1);
		if (f->sampled[at])
			continue;
		f->sampled[at] = a;
		f->sample[f->n_sample++] = a;
	}
}

struct score {
	uint64_t slide;
	size_t on_start, in_text;
};

static struct score score(const struct bp_foreign *f, uint64_t slide)
{
	struct score s = {.slide = slide};
	uint64_t len = f->text_end - f->text_start;

	for (size_t i = 0; i < f->n_sample; i++) {
		uint64_t at = f->sample[i] - slide - f->text_start;

		if (at >= len)
			continue;
		s.in_text++;
		s.on_start += f->starts[at / 8] >> at % 8 & 1;
	}
	return s;
}

static bool better(const struct score *a, const struct score *b)
{
	return a->on_start != b->on_start ? a->on_start > b->on_start : a->in_text > b->in_text;
}

void bp_foreign_settle(struct bp_foreign *f, struct bp_foreign_fit *fit)
{
	struct bp_foreign_fit *r = &f->fit;
	struct score best = {0}, second = {0};

	if (f->linked.n) {
		/* Down as well: a kallsyms may have been moved itself. */
		for (uint64_t s = -SLIDE_MAX; s != SLIDE_MAX; s += SLIDE_STEP) {
			struct score c = score(f, s);

			if (f->given && s == f->slide)
				continue;
			if (better(&c, &best)) {
				second = best;
				best = c;
			} else if (better(&c, &second)) {
				second = c;
			}
		}
		if (f->given) {
			second = best;
			best = score(f, f->slide);
		}
	}
	*r = (struct bp_foreign_fit){
	    .known = f->known,
	    .slide = best.slide,
	    .sample = f->n_sample,
	    .in_text = best.in_text,
	    .on_start = best.on_start,
	    .second = second.slide,
	    .second_on_start = second.on_start,
	    .second_in_text = second.in_text,
	};
	r->sure = best.on_start >= FIT_MIN && best.on_start > second.on_start * 3 &&
		  best.in_text >= f->n_sample - f->n_sample / 4;
	if (!f->known && (r->sure || (best.on_start >= 4 * FIT_MIN && best.on_start > second.on_start * 2))) {
		f->known = true;
		f->slide = best.slide;
		memset(f->cache, 0, sizeof(f->cache));
	}
	r->known = f->known;
	f->settled_at = f->n_sample;
	if (fit)
		*fit = *r;
}

/* ---- look-ups ---- */

static const struct sym *search(const struct table *t, uint64_t addr)
{
	const struct sym *s = t->syms;
	size_t n = t->n;

	if (!n || addr < s->addr)
		return NULL;
	/* The last one that is not above; no branch that depends on the data. */
	while (n > 1) {
		size_t half = n / 2;

		s += s[half].addr <= addr ? half : 0;
		n -= half;
	}
	return s->name ? s : NULL;
}

static const struct range *search_range(const struct bp_foreign *f, uint64_t addr)
{
	size_t a = 0, b = f->n_ranges;

	while (a < b) {
		size_t mid = (a + b) / 2;

		if (f->ranges[mid].start <= addr)
			a = mid + 1;
		else
			b = mid;
	}
	return a && addr < f->ranges[a - 1].end ? &f->ranges[a - 1] : NULL;
}

/* More to judge by: decides at growing numbers of addresses, so that it costs little if nothing ever fits. */
static void learn(struct bp_foreign *f, uint64_t addr)
{
	if (!f->linked.n || f->n_sample == BP_FOREIGN_SAMPLE)
		return;
	bp_foreign_sample(f, &addr, 1);
	if (f->n_sample >= f->settled_at + 16 + f->settled_at / 2)
		bp_foreign_settle(f, NULL);
}

static bool find_module(struct bp_foreign *f, uint64_t addr, const char **name, const char **module,
			uint64_t *start)
{
	const struct sym *s = search(&f->fixed, addr);
	const struct range *r = search_range(f, addr);

	if (s && s + 1 == f->fixed.syms + f->fixed.n && addr - s->addr >= LAST_FUNCTION_BYTES)
		s = NULL;
	if (s && r && strcmp(r->name, s->module) != 0)
		s = NULL;
	if (s) {
		*name = s->name;
		*module = s->module;
		*start = s->addr;
		return true;
	}
	if (r) {
		*name = "[no symbol]";
		*module = r->name;
		*start = r->start;
		return true;
	}
	return false;
}

bool bp_foreign_find(void *self, uint64_t addr, const char **name, const char **module, uint64_t *start)
{
	struct bp_foreign *f = self;
	struct cached *c;
	const struct sym *s;

	if (addr < KERNEL_HALF) {
		f->misses.low++;
		return false;
	}
	if (addr < KERNEL_START || addr >= KERNEL_END) {
		if (find_module(f, addr, name, module, start))
			return true;
		f->misses.modules++;
		return false;
	}
	if (!f->known) {
		learn(f, addr);
		if (!f->known) {
			f->misses.early++;
			return false;
		}
	}
	c = &f->cache[addr * 0x9e3779b97f4a7c15ull >> (64 - CACHE_BITS)];
	if (c->addr == addr) {
		s = c->sym;
	} else {
		s = search(&f->linked, addr - f->slide);
		c->addr = addr;
		c->sym = s;
	}
	if (!s) {
		/* Loaded where the image would be: trampolines, programs of BPF. */
		if (find_module(f, addr, name, module, start))
			return true;
		f->misses.other++;
		return false;
	}
	*name = s->name;
	*module = s->module;
	*start = s->addr + f->slide;
	return true;
}

bool bp_foreign_code(void *self, uint64_t addr, void *dst, size_t len)
{
	struct bp_foreign *f = self;

	return f->image && f->known && addr >= KERNEL_START &&
	       bp_kimage_read(f->image, addr - f->slide, dst, len);
}

bool bp_foreign_slide(const struct bp_foreign *f, uint64_t *slide)
{
	*slide = f->slide;
	return f->known;
}
