// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/tcg/qemu_args.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of key=value in a comma-separated option, or NULL; *len gets its length. */
static const char *sub_option(const char *s, const char *key, size_t *len)
{
	size_t n = strlen(key);

	while (s && *s) {
		if (!strncmp(s, key, n) && s[n] == '=') {
			*len = strcspn(s + n + 1, ",");
			return s + n + 1;
		}
		s = strchr(s, ',');
		if (s)
			s++;
	}
	return NULL;
}

/* "512", "512M", "2G", "size=1G,slots=2": MiB is the default unit. */
static uint64_t parse_ram(const char *s)
{
	size_t len;
	const char *size = sub_option(s, "size", &len);
	char *end;
	uint64_t n = strtoull(size ? size : s, &end, 10);

	switch (*end) {
	case 'k': case 'K':
		return n << 10;
	case 'g': case 'G':
		return n << 30;
	case 't': case 'T':
		return n << 40;
	case 'b': case 'B':
		return n;
	default:
		return n << 20;
	}
}

static void set_accel(struct bp_qemu_args *a, const char *s, size_t len)
{
	if (len >= sizeof(a->accel))
		len = sizeof(a->accel) - 1;
	memcpy(a->accel, s, len);
	a->accel[len] = '\0';
	/* "kvm:tcg" tries the first one first. */
	a->accel[strcspn(a->accel, ":,")] = '\0';
}

void bp_qemu_args_parse(char *const *argv, struct bp_qemu_args *a)
{
	bool accel_seen = false;

	memset(a, 0, sizeof(*a));
	a->ram_bytes = 128u << 20;
	a->smp = 1;
	snprintf(a->accel, sizeof(a->accel), "tcg");
	for (int i = 1; argv[0] && argv[i]; i++) {
		const char *opt = argv[i], *val = argv[i + 1], *sub;
		size_t len;

		if (opt[0] != '-')
			continue;
		opt += opt[1] == '-' ? 2 : 1;
		if (!strcmp(opt, "enable-kvm")) {
			if (!accel_seen)
				set_accel(a, "kvm", 3);
			accel_seen = true;
			continue;
		}
		if (!strcmp(opt, "daemonize"))
			a->daemonize = true;
		if (!val)
			break;
		if (!strcmp(opt, "kernel")) {
			a->kernel = val;
		} else if (!strcmp(opt, "initrd")) {
			a->initrd = val;
		} else if (!strcmp(opt, "append")) {
			a->append = val;
		} else if (!strcmp(opt, "m")) {
			a->ram_bytes = parse_ram(val);
		} else if (!strcmp(opt, "smp")) {
			sub = sub_option(val, "cpus", &len);
			a->smp = (unsigned)strtoul(sub ? sub : val, NULL, 10);
			if (!a->smp)
				a->smp = 1;
		} else if (!strcmp(opt, "accel")) {
			sub = sub_option(val, "accel", &len);
			/* Several -accel options are tried in their order. */
			if (!accel_seen)
				set_accel(a, sub ? sub : val, sub ? len : strcspn(val, ","));
			accel_seen = true;
		} else if (!strcmp(opt, "M") || !strcmp(opt, "machine")) {
			a->machine = val;
			sub = sub_option(val, "accel", &len);
			if (sub && !accel_seen) {
				set_accel(a, sub, len);
				accel_seen = true;
			}
		} else if (!strcmp(opt, "icount")) {
			a->has_icount = true;
		} else if (!strcmp(opt, "rtc")) {
			a->has_rtc = true;
		} else if (!strcmp(opt, "seed")) {
			a->has_seed = true;
		} else if (!strcmp(opt, "device")) {
			if (!strncmp(val, "isa-debug-exit", 14)) {
				sub = sub_option(val, "iobase", &len);
				a->debug_exit_port = sub ? (unsigned)strtoul(sub, NULL, 0) : 0x501;
			}
		} else {
			continue;
		}
		i++;
	}
}
