/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Kernel helpers that bcc does not declare, or declares wrongly. */
#ifndef VXLANE_HELPERS_H
#define VXLANE_HELPERS_H

#ifndef BPF_F_TABLE
#include "editor.h"
#endif

#define AF_INET 2
#define AF_INET6 10

/* bcc 0.26 leaves out `size`. The kernel resolves and writes the outer Ethernet
 * header, so a neighbour that moves is followed at once and none can go stale. */
static long (*redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *next_hop, int size,
			      __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

#endif
