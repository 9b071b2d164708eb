/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every program asks first: does an agent keep the maps true? */
#ifndef VXLANE_SETTINGS_H
#define VXLANE_SETTINGS_H

#include "maps.h"
#include "node.h"

static __always_inline const struct settings *settings_now(void)
{
	__u32 only = 0;

	return settings.lookup(&only);
}

/* The maps of a dead agent go stale, and the kernel path does not. */
static __always_inline int is_served(const struct settings *settings, __u64 now)
{
	return now < settings->lease_until;
}

/* With --strict a forged packet is dropped whether an agent lives or not: the identity checks go
 * by the last maps. Without, there is nothing to ask once the lease is over. Before the first
 * agent has written its address there is nothing to go by either. */
static __always_inline int has_identities(const struct settings *settings, __u64 now)
{
	return STRICT ? settings->address[3] != 0 : is_served(settings, now);
}

#endif
