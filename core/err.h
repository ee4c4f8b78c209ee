/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors: a fallible function returns `struct bp_err *`, NULL on success.
 *
 * Threads: an error belongs to the thread that holds it. Limits: the text of one
 * error is at most 1 KiB; running out of memory yields one static object.
 */
#ifndef BP_CORE_ERR_H
#define BP_CORE_ERR_H

#include <stdint.h>

enum bp_err_code {
	BP_ENOMEM = 1,     /* out of memory */
	BP_EOS,            /* a system call failed: errno and path are in the text */
	BP_EDATA,          /* bad input data: path and byte offset are in the text */
	BP_EUSAGE,         /* the user asked for something that makes no sense: exit code 2 */
	BP_EUNSUPPORTED,   /* valid, but not something we can do; callers may carry on */
	BP_ESTOPPED,       /* interrupted on request */
};

struct bp_err;

#define BP_MUST_CHECK __attribute__((warn_unused_result))
#define BP_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* No file offset known, for bp_err_data(). */
#define BP_NO_OFFSET UINT64_MAX

/** bp_err_new() - an error with a code and a printf-formatted text; owned by the caller */
struct bp_err *bp_err_new(enum bp_err_code code, const char *fmt, ...) BP_PRINTF(2, 3) BP_MUST_CHECK;

/** bp_err_os() - BP_EOS: "text: strerror(errnum)" */
struct bp_err *bp_err_os(int errnum, const char *fmt, ...) BP_PRINTF(2, 3) BP_MUST_CHECK;

/**
 * bp_err_data() - BP_EDATA: "path: offset N: text"
 * @path: file the bytes came from (copied)
 * @offset: byte offset in that file, or BP_NO_OFFSET
 */
struct bp_err *bp_err_data(const char *path, uint64_t offset, const char *fmt, ...)
	BP_PRINTF(3, 4) BP_MUST_CHECK;

/** bp_err_nomem() - the static out-of-memory error; freeing it is a no-op */
struct bp_err *bp_err_nomem(void) BP_MUST_CHECK;

/** bp_err_wrap() - put "text: " in front of an error; takes and returns ownership */
struct bp_err *bp_err_wrap(struct bp_err *err, const char *fmt, ...) BP_PRINTF(2, 3) BP_MUST_CHECK;

enum bp_err_code bp_err_code(const struct bp_err *err);

/** bp_err_text() - one line, no newline, control characters escaped; borrowed until @err is freed */
const char *bp_err_text(const struct bp_err *err);

/** bp_err_free() - free an error; NULL is fine */
void bp_err_free(struct bp_err *err);

/* Frees an error that the caller has decided to live with; says so at the call. */
static inline void bp_err_ignore(struct bp_err *err)
{
	bp_err_free(err);
}

#endif
