// SPDX-License-Identifier: GPL-2.0-or-later
#include "collectors/tcg/qemu_args.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_RAM_BYTES (128ull << 20)
#define MAX_CPUS 4096

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

/* "512", "512M", "1.5G", "size=1G,slots=2": MiB is the default unit. */
static uint64_t parse_ram(const char *s)
{
	size_t len;
	const char *size = sub_option(s, "size", &len);
	double unit = 1024.0 * 1024, n;
	char *end;

	if (!size && strchr(s, '=') && !(strcspn(s, ",") < strcspn(s, "=")))
		return DEFAULT_RAM_BYTES;
	/* Takes 0x200, too. */
	n = strtod(size ? size : s, &end);
	switch (*end) {
	case 'k':
	case 'K':
		unit = 1024;
		break;
	case 'g':
	case 'G':
		unit = 1024.0 * 1024 * 1024;
		break;
	case 't':
	case 'T':
		unit = 1024.0 * 1024 * 1024 * 1024;
		break;
	case 'b':
	case 'B':
		unit = 1;
		break;
	default:
		break;
	}
	n *= unit;
	return n >= 1 && n < 0x1p60 ? (uint64_t)n : DEFAULT_RAM_BYTES;
}

/* "4", "cpus=4,maxcpus=8", "sockets=2,cores=2": what is left out is 1, or as many as there may be. */
static unsigned parse_smp(const char *s)
{
	static const char *const parts[] = {"drawers",  "books",   "sockets", "dies",
					    "clusters", "modules", "cores",   "threads"};
	unsigned long n = 1;
	bool seen = false;
	const char *sub;
	size_t len;

	sub = sub_option(s, "cpus", &len);
	if (sub || strcspn(s, ",") < strcspn(s, "=") || !strchr(s, '=')) {
		n = strtoul(sub ? sub : s, NULL, 0);
		return n > 0 && n < MAX_CPUS ? (unsigned)n : 1;
	}
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		unsigned long k;

		sub = sub_option(s, parts[i], &len);
		k = sub ? strtoul(sub, NULL, 0) : 1;
		if (!k || k >= MAX_CPUS || n * k >= MAX_CPUS)
			return 1;
		n *= k;
		seen |= sub != NULL;
	}
	sub = sub_option(s, "maxcpus", &len);
	if (!seen && sub)
		n = strtoul(sub, NULL, 0);
	return n > 0 && n < MAX_CPUS ? (unsigned)n : 1;
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
	a->ram_bytes = DEFAULT_RAM_BYTES;
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
			a->smp = parse_smp(val);
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
			const char *driver = sub_option(val, "driver", &len);

			if (!driver) {
				driver = val;
				len = strcspn(val, ",");
			}
			if (len == strlen("isa-debug-exit") && !memcmp(driver, "isa-debug-exit", len)) {
				sub = sub_option(val, "iobase", &len);
				a->debug_exit_port = sub ? (unsigned)strtoul(sub, NULL, 0) : 0x501;
			}
		} else {
			continue;
		}
		i++;
	}
}
