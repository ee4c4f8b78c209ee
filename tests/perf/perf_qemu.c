// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How fast execution traces of QEMU are read, end to end: parsing, naming, stacks, events, writing.
 *
 * perf_qemu FILE [KERNEL [OUT]]    KERNEL: bzImage or vmlinux of the guest, which ran without KASLR
 *
 * Prints records a second and the time that only reading the file takes. `make bench` builds it.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "collectors/import.h"
#include "symbols/kimage.h"

static const struct bp_importer *const importers[] = {&bp_import_qemu_exec, &bp_import_qemu_trace_log,
						      &bp_import_simpletrace, &bp_import_symbolised};

static void must(struct bp_err *err)
{
	if (!err)
		return;
	fprintf(stderr, "perf_qemu: %s\n", bp_err_text(err));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static bool find(void *self, uint64_t addr, const char **name, const char **module, uint64_t *start)
{
	const struct bp_ksym *sym = bp_kimage_find(self, addr);

	if (!sym)
		return false;
	*name = sym->name;
	*module = "vmlinux";
	*start = sym->addr;
	return true;
}

static bool code(void *self, uint64_t addr, void *dst, size_t len)
{
	return bp_kimage_read(self, addr, dst, len);
}

static double read_only(const char *path)
{
	static char buf[128 << 10];
	double start = now();
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && read(fd, buf, sizeof(buf)) > 0)
		;
	if (fd >= 0)
		close(fd);
	return now() - start;
}

int main(int argc, char **argv)
{
	struct bp_import_stats st = {0};
	struct bp_import_names names = {0};
	struct bp_import im = {.stats = &st};
	const struct bp_importer *best = NULL;
	struct bp_kimage *kernel = NULL;
	struct bp_trace_writer *w;
	struct rusage ru;
	const char *out = argc > 3 ? argv[3] : "/tmp/perf_qemu.bootprof";
	const uint8_t *head;
	double base, start, took;
	size_t len;
	int sure = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: perf_qemu FILE [KERNEL [OUT]]\n");
		return 2;
	}
	if (argc > 2) {
		must(bp_kimage_open(argv[2], &kernel));
		names = (struct bp_import_names){.self = kernel, .find = find, .code = code};
		im.names = &names;
	}
	read_only(argv[1]);
	base = read_only(argv[1]);
	start = now();
	must(bp_source_open(argv[1], &im.source));
	must(bp_source_peek(im.source, 65536, &head, &len));
	for (size_t i = 0; i < sizeof(importers) / sizeof(importers[0]); i++)
		if (importers[i]->probe(head, len) > sure) {
			sure = importers[i]->probe(head, len);
			best = importers[i];
		}
	if (!best) {
		fprintf(stderr, "perf_qemu: not a trace of QEMU\n");
		return 1;
	}
	unlink(out);
	must(bp_trace_writer_create(out, 0, &w));
	must(bp_builder_create(w, &im.builder));
	must(best->run(&im));
	must(bp_builder_finish(im.builder, "import"));
	must(bp_trace_writer_close(w));
	took = now() - start;
	getrusage(RUSAGE_SELF, &ru);
	printf("%s: %" PRIu64
	       " records, %.3f s, %.1f M records/s, %.2f times reading (%.3f s), CPU %.2f s, %ld MiB\n",
	       best->name, st.records, took, (double)st.records / took * 1e-6, took / base, base,
	       (double)ru.ru_utime.tv_sec + (double)ru.ru_utime.tv_usec * 1e-6 + (double)ru.ru_stime.tv_sec +
		   (double)ru.ru_stime.tv_usec * 1e-6,
	       ru.ru_maxrss / 1024);
	printf("calls %" PRIu64 " (builder %" PRIu64 "), skipped %" PRIu64 " (%s), lost %" PRIu64
	       ", unnamed %" PRIu64 " of %" PRIu64 ", clamped %" PRIu64 ", stacks: %s%s\n",
	       st.calls, bp_builder_calls(im.builder), st.skipped, st.first_bad, st.lost, st.unnamed,
	       st.addresses, bp_builder_clamped(im.builder), st.stacks, st.truncated ? ", truncated" : "");
	bp_builder_destroy(im.builder);
	bp_source_close(im.source);
	bp_kimage_destroy(kernel);
	return 0;
}
