/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scoped ownership: bp_autofree, bp_cleanup(fn), bp_steal(ptr). */
#ifndef BP_CORE_CLEANUP_H
#define BP_CORE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define bp_cleanup(fn) __attribute__((cleanup(fn)))

static inline void bp_freep(void *p)
{
	free(*(void **)p);
}

static inline void bp_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define bp_autofree bp_cleanup(bp_freep)
#define bp_autoclose bp_cleanup(bp_closep)

/* Move a pointer out of a scoped variable. */
#define bp_steal(p)                    \
	({                             \
		__typeof__(p) _s = (p); \
		(p) = NULL;            \
		_s;                    \
	})

#define BP_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
