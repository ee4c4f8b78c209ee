// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The reader of recordings, given the input as it is, with its checksums made right (so that what is behind
 * them is reached), and as the payload of one block.
 */
#define _GNU_SOURCE /* memfd_create */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/trace_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Uses everything that a reader may use, as an analyzer would. */
static void use_block(const struct bp_block *b, size_t n_funcs)
{
	uint64_t sum = 0;

	if (b->events[0].kind != BP_EV_RUN)
		abort();
	for (size_t i = 0; i < b->n_events; i++) {
		const struct bp_event *ev = &b->events[i];

		if (ev->kind >= BP_EV_KINDS || (ev->kind == BP_EV_RUN && ev->arg >= b->n_runs) ||
		    (ev->kind >= BP_EV_CALL && ev->kind <= BP_EV_IRQ && ev->arg >= n_funcs))
			abort();
		sum += ev->dt + ev->di;
	}
	for (size_t i = 0; i < b->n_runs; i++) {
		const struct bp_run *run = &b->runs[i];

		if (run->n_frames == BP_RUN_NO_STACK)
			continue;
		if (run->n_frames > BP_MAX_DEPTH || run->first_frame + (uint64_t)run->n_frames > b->n_frames)
			abort();
	}
	for (size_t i = 0; i < b->n_frames; i++) {
		if (b->frames[i].func >= n_funcs || b->frames[i].kind < BP_EV_CALL ||
		    b->frames[i].kind > BP_EV_IRQ)
			abort();
		sum += b->frames[i].insns;
	}
	__asm__ volatile("" : : "r"(sum));
}

static void use_trace(const struct bp_trace *t)
{
	struct bp_decoder *d;
	struct bp_err *err = bp_decoder_create(&d);
	const struct bp_func *funcs;
	const struct bp_fact *facts;
	const struct bp_fold *folds;
	size_t n_funcs, n;
	uint64_t sum = 0;

	if (err) {
		bp_err_ignore(err);
		return;
	}
	folds = bp_trace_folds(t, &n);
	funcs = bp_trace_funcs(t, &n_funcs);
	for (size_t i = 0; i < n; i++) {
		if (folds[i].func >= n_funcs || (i && folds[i].func <= folds[i - 1].func))
			abort();
	}
	for (size_t i = 0; i < n_funcs; i++)
		sum += strlen(funcs[i].name) + strlen(funcs[i].module);
	facts = bp_trace_facts(t, &n);
	for (size_t i = 0; i < n; i++)
		sum += strlen(facts[i].s1) + strlen(facts[i].s2);
	sum += bp_trace_info(t, "x") != NULL;
	for (size_t i = 0; i < bp_trace_n_blocks(t) && i < 64; i++) {
		struct bp_block b;

		err = bp_decoder_read(d, t, i, &b);
		if (err)
			bp_err_ignore(err);
		else
			use_block(&b, n_funcs);
	}
	bp_decoder_destroy(d);
	__asm__ volatile("" : : "r"(sum));
}

static void use_waits(const struct bp_trace *t)
{
	uint32_t frames, stacks;
	struct bp_wait_decoder *d;
	struct bp_err *err;
	uint64_t sum = 0;
	size_t n;

	bp_trace_host_ids(t, &frames, &stacks);
	for (uint32_t i = 0; i < frames; i++) {
		const struct bp_host_frame *f = bp_trace_host_frame(t, i);

		if (f && (f->id != i || f->space >= BP_HOST_SPACES))
			abort();
		sum += f ? strlen(f->name) + strlen(f->module) : 0;
	}
	for (uint32_t i = 0; i < stacks; i++) {
		const uint32_t *ids = bp_trace_host_stack(t, i, &n);

		for (size_t k = 0; k < n; k++)
			sum += ids[k];
	}
	if (!bp_trace_n_waits(t))
		return;
	err = bp_wait_decoder_create(&d);
	if (err) {
		bp_err_ignore(err);
		return;
	}
	for (size_t i = 0; i < bp_trace_n_waits(t) && i < 64; i++) {
		const struct bp_wait *recs;

		err = bp_wait_decoder_read(d, t, i, &recs, &n);
		bp_err_ignore(err);
		for (size_t k = 0; !err && k < n; k++) {
			if (!recs[k].kind || recs[k].kind >= BP_WAIT_KINDS)
				abort();
		}
	}
	bp_wait_decoder_destroy(d);
	__asm__ volatile("" : : "r"(sum));
}

static void use_file(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	char path[40];
	struct bp_trace *t;
	struct bp_err *err;

	if (fd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (write(fd, data, size) == (ssize_t)size) {
		err = bp_trace_open(path, &t);
		if (err) {
			bp_err_ignore(err);
		} else {
			use_trace(t);
			use_waits(t);
			bp_trace_destroy(t);
		}
	}
	close(fd);
}

static void repair(uint8_t *data, size_t size)
{
	uint32_t id;

	if (size < sizeof(struct bp_file_header))
		return;
	memcpy(&id, data + offsetof(struct bp_file_header, file_id), 4);
	*(uint32_t *)(data + 60) = bp_crc32c(0, data, 60);
	for (size_t at = sizeof(struct bp_file_header); size - at >= sizeof(struct bp_chunk_header);) {
		struct bp_chunk_header head;
		size_t left = size - at - sizeof(head);

		memcpy(&head, data + at, sizeof(head));
		head.magic = BP_CHUNK_MAGIC;
		head.file_id = id;
		if (head.stored_bytes > left)
			head.stored_bytes = (uint32_t)left;
		head.payload_crc = bp_crc32c(0, data + at + sizeof(head), head.stored_bytes);
		head.crc = bp_crc32c(0, &head, offsetof(struct bp_chunk_header, crc));
		memcpy(data + at, &head, sizeof(head));
		at += sizeof(head) + head.stored_bytes;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bp_buf b = bp_buf_make(data, size, "fuzz", 0);
	struct bp_events_decoder *dec;
	uint8_t *copy = malloc(size ? size : 1);
	struct bp_err *err = bp_events_decoder_create(&dec);
	struct bp_block block;

	if (err || !copy) {
		bp_err_ignore(err);
		free(copy);
		return 0;
	}
	err = bp_events_decode(dec, &b, 100, &block);
	if (err)
		bp_err_ignore(err);
	else
		use_block(&block, 100);
	bp_events_decoder_destroy(dec);
	use_file(data, size);
	if (size)
		memcpy(copy, data, size);
	repair(copy, size);
	use_file(copy, size);
	free(copy);
	return 0;
}
