/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every program asks first: is somebody keeping the maps true? */
#ifndef VXLANE_SETTINGS_H
#define VXLANE_SETTINGS_H

#include "maps.h"

/* The settings while the agent's lease holds, else none: the maps of a dead
 * agent go stale, and the kernel path does not. */
static __always_inline const struct settings *settings_at(__u64 now)
{
	__u32 only = 0;
	const struct settings *current = settings.lookup(&only);

	return current && now < current->lease_until ? current : 0;
}

#endif
