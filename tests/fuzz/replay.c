/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a fuzz target without libFuzzer: on the empty input, on each file given, on every file cut at up to
 * CUTS places, and with up to FLIPS single bits turned. The choice depends on nothing but the file, so that a
 * failure repeats. An input that takes longer than INPUT_SECONDS counts as a hang.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CUTS 64
#define FLIPS 256
#define INPUT_SECONDS 20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Which input is running, for the handler. */
static char what[512];

static void on_signal(int sig)
{
	const char *text = sig == SIGALRM ? "hang on " : "crash on ";
	ssize_t ignored;

	ignored = write(STDERR_FILENO, text, strlen(text));
	ignored = write(STDERR_FILENO, what, strlen(what));
	ignored = write(STDERR_FILENO, "\n", 1);
	(void)ignored;
	signal(sig, SIG_DFL);
	raise(sig);
}

/* The target gets a heap copy of exactly that size, so that a sanitizer sees the first byte read past it. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy) {
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	if (size)
		memcpy(copy, data, size);
	alarm(INPUT_SECONDS);
	LLVMFuzzerTestOneInput(copy, size);
	alarm(0);
	free(copy);
}

static void replay(const char *path, uint8_t *data, size_t size)
{
	uint64_t random = 0x9e3779b97f4a7c15ull ^ size;

	snprintf(what, sizeof(what), "%s", path);
	run(data, size);
	for (size_t i = 0; i < CUTS && i < size; i++) {
		size_t cut = size <= CUTS ? i : size / CUTS * i + i % 7;

		snprintf(what, sizeof(what), "%s cut at %zu", path, cut);
		run(data, cut);
	}
	for (size_t i = 0; i < FLIPS && size; i++) {
		size_t byte;
		unsigned bit;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		/* Every other flip falls into the first 256 bytes, where headers are. */
		byte = (size_t)(random >> 3) % (i % 2 && size > 256 ? 256 : size);
		bit = random & 7;
		snprintf(what, sizeof(what), "%s byte %zu bit %u", path, byte, bit);
		data[byte] ^= (uint8_t)(1u << bit);
		run(data, size);
		data[byte] ^= (uint8_t)(1u << bit);
	}
}

static uint8_t *read_file(const char *path, size_t *size)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	size_t room = 0;

	*size = 0;
	if (!f)
		return NULL;
	do {
		uint8_t *more;

		room = room ? 2 * room : 65536;
		more = realloc(data, room);
		if (!more)
			break;
		data = more;
		*size += fread(data + *size, 1, room - *size, f);
	} while (*size == room);
	if (ferror(f)) {
		free(data);
		data = NULL;
	}
	fclose(f);
	return data;
}

int main(int argc, char **argv)
{
	signal(SIGALRM, on_signal);
#if !defined(__SANITIZE_ADDRESS__)
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
	signal(SIGFPE, on_signal);
#endif
	signal(SIGABRT, on_signal);
	snprintf(what, sizeof(what), "the empty input");
	run((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++) {
		size_t size;
		uint8_t *data = read_file(argv[i], &size);

		if (!data) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
			return 1;
		}
		replay(argv[i], data, size);
		free(data);
	}
	return 0;
}
