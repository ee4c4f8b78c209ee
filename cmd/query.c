// SPDX-License-Identifier: GPL-2.0-or-later
#include "cmd/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct bp_err *bp_option_number(const char *option, const char *text, unsigned long max, unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || *ret > max)
		return bp_err_new(BP_EUSAGE, "%s: '%s' is not a number from 0 to %lu", option, text, max);
	return NULL;
}

static struct bp_err *set_clock(struct bp_query *q, const char *text)
{
	if (!strcmp(text, "time"))
		q->clock = BP_CLOCK_TIME;
	else if (!strcmp(text, "insns"))
		q->clock = BP_CLOCK_INSNS;
	else
		return bp_err_new(BP_EUSAGE, "--clock: '%s' is neither time nor insns", text);
	return NULL;
}

bool bp_query_is_option(int code)
{
	return (code > 0 && code < 256 && strchr("CsfFNtD", code)) ||
	       (code >= BP_OPT_MODULE && code <= BP_OPT_MIN_PERCENT);
}

struct bp_err *bp_query_option(struct bp_query *q, int code, const char *arg)
{
	struct bp_err *err;
	unsigned long n;
	uint64_t scaled;

	switch (code) {
	case 'C':
		return set_clock(q, arg);
	case 's':
		q->sort = arg;
		break;
	case 'f':
		q->fields = arg;
		break;
	case 'F':
		return bp_patterns_add(&q->in, arg);
	case 'N':
		return bp_patterns_add(&q->out, arg);
	case BP_OPT_MODULE:
		return bp_patterns_add(&q->modules, arg);
	case BP_OPT_PROCESS:
		return bp_patterns_add(&q->processes, arg);
	case BP_OPT_VCPU:
		return bp_query_vcpus(q, arg);
	case BP_OPT_FROM:
		q->from = arg;
		break;
	case BP_OPT_TO:
		q->to = arg;
		break;
	case BP_OPT_PHASE:
		q->from = q->to = arg;
		break;
	case 't':
		if (!bp_parse_time(arg, 1, &q->min_ns))
			return bp_err_new(BP_EUSAGE, "-t: '%s' is not a time such as 5us or 1.5ms", arg);
		break;
	case 'D':
		err = bp_option_number("-D", arg, 4096, &n);
		if (!err)
			q->depth = (unsigned)n;
		return err;
	case BP_OPT_MIN_PERCENT:
		/* a decimal number, read as a time in millionths */
		if (!bp_parse_time(arg, 1e6, &scaled) || strpbrk(arg, "nums") || scaled > 100000000)
			return bp_err_new(BP_EUSAGE, "--min-percent: '%s' is not a number from 0 to 100",
					  arg);
		q->min_percent = (double)scaled / 1e6;
		break;
	default:
		break;
	}
	return NULL;
}

bool bp_query_filters(const struct bp_query *q)
{
	return q->in || q->out || q->modules || q->processes || q->has_vcpus || q->depth || q->from || q->to;
}
