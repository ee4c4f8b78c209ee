// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The payload of an EVENTS chunk: a block of events as columns, each column a zstd frame of its own
 * where that is smaller. Layout: bootprof-trace(5), "Event blocks".
 *
 * Why this layout. Measured on the boot of a Debian 12 cloud kernel (20.2 million events, 10.1 million calls,
 * times in ticks of 16 ns), zstd level 1, bytes per call:
 *
 *   16-byte structs as they are                        2.28, expanded at 15 ns an event
 *   4-byte rows (function low, high, time, insns)      1.18, 4.2 ns
 *   the same four as planes in one frame               0.84, 2.2 ns
 *   the same four as planes, a frame each              0.82, 2.1 ns
 *   function: two planes 0.102, 16-bit words 0.075, kinds apart from functions 0.129,
 *             dictionary and tokens 0.061 (what is used here)
 *   time 0.59 of noise that nothing predicts; instructions 0.13
 *
 * A boot repeats itself, and zstd finds repetitions of tokens and of instruction distances by itself:
 * predicting them could save a tenth of a byte at most and would cost a table look-up per event. Level 3
 * saves 1 %, level -1 costs 20 %. A frame per column gives each its own entropy table. The dictionary also
 * makes checking cheap: function ids and return counts are looked at once per distinct event, not once per
 * event. tests/perf/perf_trace.c measures.
 */
#include "core/trace_format.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "core/cleanup.h"

enum column {
	COL_RUNS,     /* varints */
	COL_FRAMES,   /* varints */
	COL_DICT,     /* varints: the distinct (kind, arg) of the block */
	COL_TOKEN,    /* one byte an event: dictionary index, or the start of one */
	COL_TOKEN_LO, /* low byte of indices in a bank */
	COL_TOKEN_16, /* whole indices that no bank reaches, 2 bytes each */
	COL_DT,       /* one byte an event: ticks */
	COL_DT_WIDE,  /* varints: ticks that do not fit */
	COL_DI,       /* one byte an event: instructions */
	COL_DI_WIDE,  /* varints */
	N_COLUMNS
};

/*
 * Tokens below TOKEN_BANK0 are dictionary indices; TOKEN_BANK0 to 254 are the high part of an index
 * whose low byte is in COL_TOKEN_LO; 255 takes a whole index from COL_TOKEN_16.
 */
#define TOKEN_BANK0 192u
#define TOKEN_WIDE 255u
#define BANKS_END (TOKEN_BANK0 + (TOKEN_WIDE - TOKEN_BANK0) * 256u)

#define DELTA_WIDE 255u

#define PRELUDE_BYTES (4 * 4 + 4 + N_COLUMNS * 8)

/* Least and most bytes that one item can take in its column. */
#define RUN_BYTES_MIN 7
#define RUN_BYTES_MAX (5 + 5 + 4 * 10 + 5)
#define FRAME_BYTES_MIN 4
#define FRAME_BYTES_MAX (5 + 3 * 10)
#define DICT_BYTES_MAX 6
#define WIDE_BYTES_MAX 5

/* Columns smaller than this stay as they are: a frame has 9 bytes of its own. */
#define COMPRESS_MIN 48

#define HASH_BITS 17

struct slot {
	uint64_t key; /* code + 1, 0 when free */
	uint32_t entry;
};

struct entry {
	uint64_t code; /* arg * 8 + kind */
	uint32_t count;
	uint32_t slot;
};

struct bp_events_encoder {
	unsigned tick_shift;
	ZSTD_CCtx *cctx;
	struct slot *slots;
	struct entry *entries; /* in order of first sight */
	uint64_t *codes;       /* sorting */
	uint16_t *rank;        /* entry -> dictionary index */
	uint16_t *event_entry; /* event -> entry */
	uint8_t *token, *token_lo, *token_16, *dt, *dt_wide, *di, *di_wide, *dict;
	uint8_t *rows; /* runs and frames */
	size_t rows_cap;
};

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)v | 0x80;
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

static uint64_t zigzag(uint64_t delta)
{
	return delta << 1 ^ (uint64_t)((int64_t)delta >> 63);
}

static uint64_t unzigzag(uint64_t v)
{
	return v >> 1 ^ -(v & 1);
}

void bp_events_encoder_destroy(struct bp_events_encoder *enc)
{
	if (!enc)
		return;
	ZSTD_freeCCtx(enc->cctx);
	free(enc->slots);
	free(enc->entries);
	free(enc->codes);
	free(enc->rank);
	free(enc->event_entry);
	free(enc->token);
	free(enc->token_lo);
	free(enc->token_16);
	free(enc->dt);
	free(enc->dt_wide);
	free(enc->di);
	free(enc->di_wide);
	free(enc->dict);
	free(enc->rows);
	free(enc);
}

static void encoder_destroyp(struct bp_events_encoder **enc)
{
	bp_events_encoder_destroy(*enc);
}

struct bp_err *bp_events_encoder_create(unsigned tick_shift, struct bp_events_encoder **ret)
{
	bp_cleanup(encoder_destroyp) struct bp_events_encoder *enc = calloc(1, sizeof(*enc));
	const size_t n = BP_BLOCK_EVENTS;

	if (!enc)
		return bp_err_nomem();
	enc->tick_shift = tick_shift;
	enc->cctx = ZSTD_createCCtx();
	enc->slots = calloc((size_t)1 << HASH_BITS, sizeof(*enc->slots));
	enc->entries = malloc(n * sizeof(*enc->entries));
	enc->codes = malloc(n * sizeof(*enc->codes));
	enc->rank = malloc(n * sizeof(*enc->rank));
	enc->event_entry = malloc(n * sizeof(*enc->event_entry));
	enc->token = malloc(n);
	enc->token_lo = malloc(n);
	enc->token_16 = malloc(n * 2);
	enc->dt = malloc(n);
	enc->dt_wide = malloc(n * WIDE_BYTES_MAX);
	enc->di = malloc(n);
	enc->di_wide = malloc(n * WIDE_BYTES_MAX);
	enc->dict = malloc(n * DICT_BYTES_MAX);
	if (!enc->cctx || !enc->slots || !enc->entries || !enc->codes || !enc->rank || !enc->event_entry ||
	    !enc->token || !enc->token_lo || !enc->token_16 || !enc->dt || !enc->dt_wide || !enc->di ||
	    !enc->di_wide || !enc->dict)
		return bp_err_nomem();
	if (ZSTD_isError(ZSTD_CCtx_setParameter(enc->cctx, ZSTD_c_compressionLevel, 1)))
		return bp_err_nomem();
	*ret = bp_steal(enc);
	return NULL;
}

size_t bp_events_n_frames(const struct bp_block *block)
{
	size_t n = 0;

	for (size_t i = 0; i < block->n_runs; i++) {
		if (block->runs[i].n_frames != BP_RUN_NO_STACK)
			n += block->runs[i].n_frames;
	}
	return n;
}

size_t bp_events_bound(const struct bp_block *block)
{
	return PRELUDE_BYTES + block->n_runs * RUN_BYTES_MAX + bp_events_n_frames(block) * FRAME_BYTES_MAX +
	       block->n_events * (DICT_BYTES_MAX + 1 + 1 + 2 + 2 * (1 + WIDE_BYTES_MAX));
}

struct out {
	uint8_t *data;
	size_t len;
	uint8_t *lengths; /* next column's pair in the prelude */
};

static void put_u32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, 4);
}

static struct bp_err *put_column(struct bp_events_encoder *enc, struct out *out, const uint8_t *data,
				 size_t len)
{
	size_t stored = len;

	if (len >= COMPRESS_MIN) {
		size_t n = ZSTD_compress2(enc->cctx, out->data + out->len, len - 1, data, len);

		if (!ZSTD_isError(n))
			stored = n;
	}
	if (stored == len && len)
		memcpy(out->data + out->len, data, len);
	out->len += stored;
	put_u32(out->lengths, (uint32_t)stored);
	put_u32(out->lengths + 4, (uint32_t)len);
	out->lengths += 8;
	return NULL;
}

static struct bp_err *reserve_rows(struct bp_events_encoder *enc, size_t want)
{
	if (want > enc->rows_cap) {
		uint8_t *rows = realloc(enc->rows, want);

		if (!rows)
			return bp_err_nomem();
		enc->rows = rows;
		enc->rows_cap = want;
	}
	return NULL;
}

static struct bp_err *put_runs(struct bp_events_encoder *enc, const struct bp_block *block, struct out *out)
{
	struct bp_err *err = reserve_rows(enc, block->n_runs * RUN_BYTES_MAX + 1);
	struct bp_run prev = {0};
	uint8_t *p = enc->rows;

	if (err)
		return err;
	for (size_t i = 0; i < block->n_runs; i++) {
		const struct bp_run *run = &block->runs[i];

		p = put_varint(p, run->vcpu);
		p = put_varint(p, run->task);
		p = put_varint(p, zigzag(run->time_ns - prev.time_ns));
		p = put_varint(p, zigzag(run->insns - prev.insns));
		p = put_varint(p, run->cpu_ns);
		p = put_varint(p, run->cpu_insns);
		p = put_varint(p, run->n_frames == BP_RUN_NO_STACK ? 0 : (uint64_t)run->n_frames + 1);
		prev = *run;
	}
	return put_column(enc, out, enc->rows, (size_t)(p - enc->rows));
}

static struct bp_err *put_frames(struct bp_events_encoder *enc, const struct bp_block *block, size_t n_frames,
				 struct out *out)
{
	struct bp_err *err = reserve_rows(enc, n_frames * FRAME_BYTES_MAX + 1);
	uint8_t *p = enc->rows;

	if (err)
		return err;
	for (size_t i = 0; i < block->n_runs; i++) {
		const struct bp_run *run = &block->runs[i];
		struct bp_frame prev = {0};

		if (run->n_frames == BP_RUN_NO_STACK)
			continue;
		for (uint32_t k = 0; k < run->n_frames; k++) {
			const struct bp_frame *f = &block->frames[run->first_frame + k];

			assert(f->kind >= BP_EV_CALL && f->kind <= BP_EV_IRQ);
			p = put_varint(p, (uint64_t)f->func << 2 | (f->kind - BP_EV_CALL));
			p = put_varint(p, zigzag(f->wall_ns - prev.wall_ns));
			p = put_varint(p, zigzag(f->cpu_ns - prev.cpu_ns));
			p = put_varint(p, zigzag(f->insns - prev.insns));
			prev = *f;
		}
	}
	return put_column(enc, out, enc->rows, (size_t)(p - enc->rows));
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static struct slot *find_slot(struct slot *slots, uint64_t code)
{
	const size_t mask = ((size_t)1 << HASH_BITS) - 1;
	size_t h = (size_t)(code * 0x9e3779b97f4a7c15ull >> (64 - HASH_BITS));

	while (slots[h].key && slots[h].key != code + 1)
		h = (h + 1) & mask;
	return &slots[h];
}

/*
 * Gives the most frequent entries the one-byte tokens, and writes the dictionary: those first, then the
 * others, each part in ascending order so that the differences are small.
 */
static uint8_t *rank_entries(struct bp_events_encoder *enc, size_t n_entries)
{
	enum { CLIP = 4096 };
	uint32_t histogram[CLIP] = {0}, threshold = CLIP, above = 0, at_threshold = 0;
	size_t first = 0, end = n_entries, frequent;
	uint64_t prev = 0;
	uint8_t *p = enc->dict;

	for (size_t i = 0; i < n_entries; i++) {
		uint32_t c = enc->entries[i].count;

		histogram[c < CLIP ? c : CLIP - 1]++;
	}
	while (threshold && above + histogram[threshold - 1] <= TOKEN_BANK0)
		above += histogram[--threshold];
	/* Entries with a count of at least threshold fit; of those one below, as many as there is room for.
	 */
	at_threshold = TOKEN_BANK0 - above;
	frequent = 0;
	for (size_t i = 0; i < n_entries; i++) {
		uint32_t c = enc->entries[i].count;
		bool take;

		c = c < CLIP ? c : CLIP - 1;
		take = c >= threshold;
		if (!take && c + 1 == threshold && at_threshold) {
			at_threshold--;
			take = true;
		}
		if (take)
			enc->codes[first++] = enc->entries[i].code;
		else
			enc->codes[--end] = enc->entries[i].code;
	}
	frequent = first;
	qsort(enc->codes, frequent, sizeof(*enc->codes), compare_u64);
	qsort(enc->codes + frequent, n_entries - frequent, sizeof(*enc->codes), compare_u64);
	for (size_t i = 0; i < n_entries; i++) {
		struct slot *s = find_slot(enc->slots, enc->codes[i]);

		enc->rank[s->entry] = (uint16_t)i;
		if (i == TOKEN_BANK0)
			prev = 0;
		p = put_varint(p, enc->codes[i] - prev);
		prev = enc->codes[i];
	}
	for (size_t i = 0; i < n_entries; i++)
		enc->slots[enc->entries[i].slot].key = 0;
	return p;
}

struct bp_err *bp_events_encode(struct bp_events_encoder *enc, const struct bp_block *block, uint8_t *data,
				size_t *ret_len, uint64_t *first_ns, uint64_t *last_ns)
{
	const size_t n = block->n_events;
	const unsigned shift = enc->tick_shift;
	const uint64_t dt_max = UINT32_MAX >> shift;
	/* Bytes may be stored anywhere, so the compiler would read these again after each. */
	uint8_t *const dts = enc->dt, *const dis = enc->di, *const token = enc->token;
	uint16_t *const event_entry = enc->event_entry;
	struct entry *const entries = enc->entries;
	struct slot *const slots = enc->slots;
	const uint16_t *const rank = enc->rank;
	uint8_t *dt_wide = enc->dt_wide, *di_wide = enc->di_wide, *lo = enc->token_lo, *wide = enc->token_16;
	uint64_t elapsed = 0, ticks = 0, run_start = 0, first = UINT64_MAX, last = 0;
	const size_t n_frames = bp_events_n_frames(block);
	size_t n_entries = 0, n_runs = 0;
	struct out out = {.data = data, .len = PRELUDE_BYTES, .lengths = data + 20};
	uint8_t *dict_end;
	struct bp_err *err;

	assert(n && n <= BP_BLOCK_EVENTS && block->events[0].kind == BP_EV_RUN);
	for (size_t i = 0; i < n; i++) {
		const struct bp_event *ev = &block->events[i];
		uint64_t code = (uint64_t)ev->arg << 3 | ev->kind, d;
		struct slot *s;

		assert(ev->kind < BP_EV_KINDS);
		if (ev->kind == BP_EV_RUN) {
			const struct bp_run *run = &block->runs[n_runs];

			assert(ev->arg == n_runs && n_runs < block->n_runs && !ev->dt && !ev->di);
			if (n_runs && run_start + elapsed > last)
				last = run_start + elapsed;
			n_runs++;
			run_start = run->time_ns;
			if (run_start < first)
				first = run_start;
			elapsed = 0;
			ticks = 0;
			code = BP_EV_RUN;
		}
		s = find_slot(slots, code);
		if (!s->key) {
			s->key = code + 1;
			s->entry = (uint32_t)n_entries;
			entries[n_entries++] = (struct entry){.code = code, .slot = (uint32_t)(s - slots)};
		}
		entries[s->entry].count++;
		event_entry[i] = (uint16_t)s->entry;

		/*
		 * Times are rounded down from the start of the run, not from event to event: the error never
		 * exceeds one tick, and no event lands after the start of the run that follows it.
		 */
		elapsed += ev->dt;
		d = (elapsed >> shift) - ticks;
		if (d > dt_max)
			d = dt_max;
		ticks += d;
		if (d < DELTA_WIDE) {
			dts[i] = (uint8_t)d;
		} else {
			dts[i] = DELTA_WIDE;
			dt_wide = put_varint(dt_wide, d - DELTA_WIDE);
		}
		if (ev->di < DELTA_WIDE) {
			dis[i] = (uint8_t)ev->di;
		} else {
			dis[i] = DELTA_WIDE;
			di_wide = put_varint(di_wide, ev->di - DELTA_WIDE);
		}
	}
	if (run_start + elapsed > last)
		last = run_start + elapsed;
	assert(n_runs == block->n_runs && n_frames <= BP_BLOCK_FRAMES);

	dict_end = rank_entries(enc, n_entries);
	for (size_t i = 0; i < n; i++) {
		uint32_t r = rank[event_entry[i]];

		if (r < TOKEN_BANK0) {
			token[i] = (uint8_t)r;
		} else if (r < BANKS_END) {
			token[i] = (uint8_t)(TOKEN_BANK0 + ((r - TOKEN_BANK0) >> 8));
			*lo++ = (uint8_t)(r - TOKEN_BANK0);
		} else {
			token[i] = TOKEN_WIDE;
			*wide++ = (uint8_t)r;
			*wide++ = (uint8_t)(r >> 8);
		}
	}

	put_u32(data, (uint32_t)n);
	put_u32(data + 4, (uint32_t)n_runs);
	put_u32(data + 8, (uint32_t)n_frames);
	put_u32(data + 12, (uint32_t)n_entries);
	data[16] = (uint8_t)shift;
	data[17] = N_COLUMNS;
	data[18] = data[19] = 0;
	err = put_runs(enc, block, &out);
	if (!err)
		err = put_frames(enc, block, n_frames, &out);
	if (!err)
		err = put_column(enc, &out, enc->dict, (size_t)(dict_end - enc->dict));
	if (!err)
		err = put_column(enc, &out, enc->token, n);
	if (!err)
		err = put_column(enc, &out, enc->token_lo, (size_t)(lo - enc->token_lo));
	if (!err)
		err = put_column(enc, &out, enc->token_16, (size_t)(wide - enc->token_16));
	if (!err)
		err = put_column(enc, &out, enc->dt, n);
	if (!err)
		err = put_column(enc, &out, enc->dt_wide, (size_t)(dt_wide - enc->dt_wide));
	if (!err)
		err = put_column(enc, &out, enc->di, n);
	if (!err)
		err = put_column(enc, &out, enc->di_wide, (size_t)(di_wide - enc->di_wide));
	if (err)
		return err;
	*ret_len = out.len;
	*first_ns = first;
	*last_ns = last;
	return NULL;
}

/*
 * A dictionary entry as the decoder uses it: argument, kind, whether it needs more than adding, and what it
 * does to the depth, in one word.
 */
#define ENTRY_SPECIAL ((uint64_t)1 << 40)
#define ENTRY_BAD ((uint64_t)1 << 41)

struct task_depth {
	uint32_t task;
	int32_t depth; /* -1: free slot */
};

struct bp_events_decoder {
	ZSTD_DCtx *dctx;
	uint8_t *raw;
	size_t raw_cap;
	struct bp_event *events; /* BP_BLOCK_EVENTS */
	uint64_t *dict;          /* BP_BLOCK_EVENTS */
	struct bp_run *runs;
	size_t runs_cap;
	struct bp_frame *frames;
	size_t frames_cap;
	struct task_depth *tasks;     /* power of two */
	size_t tasks_cap, tasks_used; /* of tasks_cap slots, for the block at hand */
};

void bp_events_decoder_destroy(struct bp_events_decoder *dec)
{
	if (!dec)
		return;
	ZSTD_freeDCtx(dec->dctx);
	free(dec->raw);
	free(dec->events);
	free(dec->dict);
	free(dec->runs);
	free(dec->frames);
	free(dec->tasks);
	free(dec);
}

static void decoder_destroyp(struct bp_events_decoder **dec)
{
	bp_events_decoder_destroy(*dec);
}

struct bp_err *bp_events_decoder_create(struct bp_events_decoder **ret)
{
	bp_cleanup(decoder_destroyp) struct bp_events_decoder *dec = calloc(1, sizeof(*dec));

	if (!dec)
		return bp_err_nomem();
	dec->dctx = ZSTD_createDCtx();
	dec->events = malloc(BP_BLOCK_EVENTS * sizeof(*dec->events));
	dec->dict = malloc(BP_BLOCK_EVENTS * sizeof(*dec->dict));
	if (!dec->dctx || !dec->events || !dec->dict)
		return bp_err_nomem();
	*ret = bp_steal(dec);
	return NULL;
}

static struct bp_err *grow(void *array, size_t *cap, size_t want, size_t item_bytes)
{
	void *p;

	if (want <= *cap)
		return NULL;
	p = realloc(*(void **)array, want * item_bytes);
	if (!p)
		return bp_err_nomem();
	*(void **)array = p;
	*cap = want;
	return NULL;
}

struct prelude {
	uint32_t n_events, n_runs, n_frames, n_dict;
	unsigned tick_shift;
	uint32_t stored[N_COLUMNS], raw[N_COLUMNS];
};

static struct bp_err *bad_block(const struct bp_buf *b, const char *what)
{
	return bp_err_data(b->path, b->base, "event block: %s", what);
}

static struct bp_err *read_prelude(struct bp_buf *b, struct prelude *ret)
{
	struct prelude p = {0};
	uint64_t stored = 0, raw = 0;
	unsigned n_columns, reserved;
	struct bp_err *err;

	p.n_events = bp_buf_u32(b);
	p.n_runs = bp_buf_u32(b);
	p.n_frames = bp_buf_u32(b);
	p.n_dict = bp_buf_u32(b);
	p.tick_shift = bp_buf_u8(b);
	n_columns = bp_buf_u8(b);
	reserved = bp_buf_u16(b);
	for (unsigned i = 0; i < N_COLUMNS; i++) {
		p.stored[i] = bp_buf_u32(b);
		p.raw[i] = bp_buf_u32(b);
		if (p.stored[i] > p.raw[i])
			return bad_block(b, "column is larger than its contents");
		stored += p.stored[i];
		raw += p.raw[i];
	}
	err = bp_buf_err(b, "event block");
	if (err)
		return err;
	if (n_columns != N_COLUMNS || reserved || p.tick_shift > BP_MAX_TICK_SHIFT)
		return bad_block(b, "unknown layout");
	if (stored != bp_buf_left(b) || raw > BP_EVENTS_PAYLOAD_MAX)
		return bad_block(b, "column lengths do not add up");
	if (!p.n_events || p.n_events > BP_BLOCK_EVENTS || !p.n_runs || p.n_runs > p.n_events ||
	    p.n_frames > BP_BLOCK_FRAMES || !p.n_dict || p.n_dict > p.n_events)
		return bad_block(b, "counts out of range");
	if (p.raw[COL_TOKEN] != p.n_events || p.raw[COL_DT] != p.n_events || p.raw[COL_DI] != p.n_events ||
	    p.raw[COL_RUNS] < (uint64_t)p.n_runs * RUN_BYTES_MIN ||
	    p.raw[COL_FRAMES] < (uint64_t)p.n_frames * FRAME_BYTES_MIN || p.raw[COL_DICT] < p.n_dict ||
	    p.raw[COL_TOKEN_16] % 2)
		return bad_block(b, "counts and columns do not match");
	*ret = p;
	return NULL;
}

/* Expands the columns; @cols: borrowed from the decoder or from the payload. */
static struct bp_err *read_columns(struct bp_events_decoder *dec, struct bp_buf *b, const struct prelude *pre,
				   struct bp_buf cols[N_COLUMNS])
{
	uint64_t total = 0;
	struct bp_err *err;
	uint8_t *raw;

	for (unsigned i = 0; i < N_COLUMNS; i++)
		total += pre->raw[i];
	err = grow(&dec->raw, &dec->raw_cap, total, 1);
	if (err)
		return err;
	raw = dec->raw;
	for (unsigned i = 0; i < N_COLUMNS; i++) {
		uint64_t offset = b->base + b->pos;
		const uint8_t *data = bp_buf_take(b, pre->stored[i]);

		if (pre->stored[i] != pre->raw[i]) {
			size_t n = ZSTD_decompressDCtx(dec->dctx, raw, pre->raw[i], data, pre->stored[i]);

			if (ZSTD_isError(n) || n != pre->raw[i])
				return bp_err_data(b->path, offset, "event block: column %u does not expand",
						   i);
			data = raw;
			raw += n;
		}
		cols[i] = bp_buf_make(data, pre->raw[i], b->path, b->base);
	}
	return NULL;
}

static bool column_done(const struct bp_buf *col)
{
	return !col->bad && !bp_buf_left(col);
}

static struct bp_err *read_runs(struct bp_events_decoder *dec, const struct bp_buf *b,
				const struct prelude *pre, struct bp_buf *col)
{
	struct bp_err *err = grow(&dec->runs, &dec->runs_cap, pre->n_runs, sizeof(*dec->runs));
	uint64_t time = 0, insns = 0, frames = 0;

	if (err)
		return err;
	for (uint32_t i = 0; i < pre->n_runs; i++) {
		uint64_t vcpu = bp_buf_varint(col), task = bp_buf_varint(col), n;
		struct bp_run *run = &dec->runs[i];

		time += unzigzag(bp_buf_varint(col));
		insns += unzigzag(bp_buf_varint(col));
		run->vcpu = (uint32_t)vcpu;
		run->task = (uint32_t)task;
		run->time_ns = time;
		run->insns = insns;
		run->cpu_ns = bp_buf_varint(col);
		run->cpu_insns = bp_buf_varint(col);
		n = bp_buf_varint(col);
		if (col->bad || vcpu > UINT32_MAX || task > UINT32_MAX || n > BP_MAX_DEPTH + 1)
			return bad_block(b, "bad run");
		run->first_frame = (uint32_t)frames;
		run->n_frames = n ? (uint32_t)n - 1 : BP_RUN_NO_STACK;
		if (n)
			frames += n - 1;
	}
	if (!column_done(col) || frames != pre->n_frames)
		return bad_block(b, "runs and frames do not match");
	return NULL;
}

static struct bp_err *read_frames(struct bp_events_decoder *dec, const struct bp_buf *b,
				  const struct prelude *pre, struct bp_buf *col, uint64_t n_funcs)
{
	struct bp_err *err = grow(&dec->frames, &dec->frames_cap, pre->n_frames, sizeof(*dec->frames));
	struct bp_frame *f = dec->frames;

	if (err)
		return err;
	for (uint32_t i = 0; i < pre->n_runs; i++) {
		uint64_t wall = 0, cpu = 0, insns = 0;

		if (dec->runs[i].n_frames == BP_RUN_NO_STACK)
			continue;
		for (uint32_t k = 0; k < dec->runs[i].n_frames; k++, f++) {
			uint64_t code = bp_buf_varint(col);

			wall += unzigzag(bp_buf_varint(col));
			cpu += unzigzag(bp_buf_varint(col));
			insns += unzigzag(bp_buf_varint(col));
			if (col->bad || code >> 2 >= n_funcs || (code & 3) == 3)
				return bad_block(b, "bad frame");
			*f = (struct bp_frame){
			    .func = (uint32_t)(code >> 2),
			    .kind = (uint8_t)(BP_EV_CALL + (code & 3)),
			    .wall_ns = wall,
			    .cpu_ns = cpu,
			    .insns = insns,
			};
		}
	}
	return column_done(col) ? NULL : bad_block(b, "frames of odd length");
}

static struct bp_err *read_dict(struct bp_events_decoder *dec, const struct bp_buf *b,
				const struct prelude *pre, struct bp_buf *col, uint64_t n_funcs)
{
	uint64_t code = 0;

	for (uint32_t i = 0; i < pre->n_dict; i++) {
		uint64_t arg, entry;
		int16_t delta = 0;
		unsigned kind;

		if (i == TOKEN_BANK0)
			code = 0;
		code += bp_buf_varint(col);
		kind = code & 7;
		arg = code >> 3;
		if (col->bad || arg > UINT32_MAX || kind >= BP_EV_KINDS)
			return bad_block(b, "bad dictionary");
		entry = arg | (uint64_t)kind << 32;
		switch (kind) {
		case BP_EV_CALL:
		case BP_EV_JUMP:
		case BP_EV_IRQ:
			if (arg >= n_funcs)
				return bad_block(b, "function id out of range");
			delta = 1;
			break;
		case BP_EV_RET:
			if (!arg || arg > BP_MAX_DEPTH)
				return bad_block(b, "return out of range");
			delta = (int16_t) - (int)arg;
			break;
		case BP_EV_RUN:
		case BP_EV_LOST:
			entry |= ENTRY_SPECIAL;
			break;
		default:
			break;
		}
		dec->dict[i] = entry | (uint64_t)(uint16_t)delta << 48;
	}
	/* One-byte tokens are not compared with the size of the dictionary in the loop. */
	for (uint32_t i = pre->n_dict; i < TOKEN_BANK0; i++)
		dec->dict[i] = ENTRY_SPECIAL | ENTRY_BAD;
	return column_done(col) ? NULL : bad_block(b, "dictionary of odd length");
}

static struct bp_err *clear_tasks(struct bp_events_decoder *dec, uint32_t n_runs)
{
	size_t want = 16;
	struct bp_err *err;

	while (want < (size_t)n_runs * 2)
		want *= 2;
	err = grow(&dec->tasks, &dec->tasks_cap, want, sizeof(*dec->tasks));
	if (err)
		return err;
	dec->tasks_used = want;
	memset(dec->tasks, 0xff, want * sizeof(*dec->tasks));
	return NULL;
}

static struct task_depth *find_task(struct bp_events_decoder *dec, uint32_t task)
{
	size_t mask = dec->tasks_used - 1, h = (task * 0x9e3779b9u >> 7) & mask;

	while (dec->tasks[h].depth >= 0 && dec->tasks[h].task != task)
		h = (h + 1) & mask;
	return &dec->tasks[h];
}

static struct bp_err *read_events(struct bp_events_decoder *dec, const struct bp_buf *b,
				  const struct prelude *pre, struct bp_buf cols[N_COLUMNS])
{
	const uint8_t *token = cols[COL_TOKEN].data, *dt = cols[COL_DT].data, *di = cols[COL_DI].data;
	const uint64_t *dict = dec->dict;
	const unsigned shift = pre->tick_shift;
	const uint64_t dt_max = UINT32_MAX >> shift;
	const uint32_t n = pre->n_events;
	struct task_depth *task = NULL;
	struct bp_event *ev = dec->events;
	uint32_t n_runs = 0;
	int32_t depth = 0, low = 0, high = 0;

	for (uint32_t i = 0; i < n; i++, ev++) {
		uint32_t t = token[i], ticks = dt[i], insns = di[i];
		uint64_t entry;

		if (__builtin_expect(t >= TOKEN_BANK0, 0)) {
			if (t == TOKEN_WIDE)
				t = bp_buf_u16(&cols[COL_TOKEN_16]);
			else
				t = TOKEN_BANK0 + ((t - TOKEN_BANK0) << 8 | bp_buf_u8(&cols[COL_TOKEN_LO]));
			if (t >= pre->n_dict)
				return bad_block(b, "token out of range");
		}
		entry = dict[t];
		if (__builtin_expect(ticks == DELTA_WIDE, 0)) {
			uint64_t v = bp_buf_varint(&cols[COL_DT_WIDE]);

			if (v > dt_max || v + DELTA_WIDE > dt_max)
				return bad_block(b, "time out of range");
			ticks = (uint32_t)v + DELTA_WIDE;
		}
		if (__builtin_expect(insns == DELTA_WIDE, 0)) {
			uint64_t v = bp_buf_varint(&cols[COL_DI_WIDE]);

			if (v > UINT32_MAX - DELTA_WIDE)
				return bad_block(b, "instructions out of range");
			insns = (uint32_t)v + DELTA_WIDE;
		}
		ev->arg = (uint32_t)entry;
		ev->dt = ticks << shift;
		ev->di = insns;
		ev->kind = (uint8_t)(entry >> 32);
		/* Lowest and highest depth are looked at when the run ends. */
		depth += (int16_t)(entry >> 48);
		low = depth < low ? depth : low;
		high = depth > high ? depth : high;
		if (__builtin_expect(!!(entry & ENTRY_SPECIAL), 0)) {
			const struct bp_run *run = &dec->runs[n_runs];

			if (entry & ENTRY_BAD)
				return bad_block(b, "token out of range");
			if (ev->kind == BP_EV_LOST) {
				if (low < 0 || high > BP_MAX_DEPTH)
					return bad_block(b, "return below the stack");
				depth = low = high = 0;
				if (!task)
					return bad_block(b, "no run at its start");
				continue;
			}
			if (n_runs == pre->n_runs || ticks || insns)
				return bad_block(b, "bad run");
			if (task) {
				if (low < 0 || high > BP_MAX_DEPTH)
					return bad_block(b, "return below the stack");
				task->depth = depth;
			}
			ev->arg = n_runs++;
			task = find_task(dec, run->task);
			if ((task->depth < 0) != (run->n_frames != BP_RUN_NO_STACK))
				return bad_block(b, "stack not given where it must be");
			if (task->depth < 0)
				*task = (struct task_depth){run->task, (int32_t)run->n_frames};
			depth = low = high = task->depth;
		} else if (__builtin_expect(!task, 0)) {
			return bad_block(b, "no run at its start");
		}
	}
	if (low < 0 || high > BP_MAX_DEPTH)
		return bad_block(b, "return below the stack");
	if (n_runs != pre->n_runs)
		return bad_block(b, "fewer runs than said");
	for (unsigned i = COL_TOKEN_LO; i < N_COLUMNS; i++) {
		if (i != COL_DT && i != COL_DI && !column_done(&cols[i]))
			return bad_block(b, "column of odd length");
	}
	return NULL;
}

struct bp_err *bp_events_decode(struct bp_events_decoder *dec, struct bp_buf *b, uint64_t n_funcs,
				struct bp_block *block)
{
	struct bp_buf cols[N_COLUMNS];
	struct prelude pre = {0};
	struct bp_err *err;

	err = read_prelude(b, &pre);
	if (!err)
		err = read_columns(dec, b, &pre, cols);
	if (!err)
		err = read_runs(dec, b, &pre, &cols[COL_RUNS]);
	if (!err)
		err = read_frames(dec, b, &pre, &cols[COL_FRAMES], n_funcs);
	if (!err)
		err = read_dict(dec, b, &pre, &cols[COL_DICT], n_funcs);
	if (!err)
		err = clear_tasks(dec, pre.n_runs);
	if (!err)
		err = read_events(dec, b, &pre, cols);
	if (err)
		return err;
	*block = (struct bp_block){
	    .events = dec->events,
	    .n_events = pre.n_events,
	    .runs = dec->runs,
	    .n_runs = pre.n_runs,
	    .frames = dec->frames,
	    .n_frames = pre.n_frames,
	};
	return NULL;
}
