/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Look-ups that more than one program makes on pods and peers. */
#ifndef VXLANE_POD_H
#define VXLANE_POD_H

#include "maps.h"
#include "parse.h"

static __always_inline int is_judged(const struct settings *settings, const struct pod *pod)
{
	return settings->judged || (pod->guard & GUARD_JUDGED);
}

/* TCP goes both ways or not at all, so for it a guard on the way back counts too. */
static __always_inline int is_guarded(const struct pod *pod, const struct packet *packet,
				      enum guard direction)
{
	return packet->ip.protocol == IPPROTO_TCP ? pod->guard : pod->guard & direction;
}

static __always_inline const struct peer *peer_of(const __be32 address[4])
{
	struct cidr host = {.prefix_len = 128};

	__builtin_memcpy(host.address, address, sizeof(host.address));
	return peers.lookup(&host);
}

static __always_inline const struct pod *pod_of(const __be32 address[4])
{
	struct address key;

	__builtin_memcpy(key.word, address, sizeof(key.word));
	return pods.lookup(&key);
}

/* What a record says of the other end. */
static __always_inline void describe_peer(struct flow *flow, const struct peer *peer)
{
	__builtin_memcpy(flow->peer, peer->address, sizeof(flow->peer));
	__builtin_memcpy(flow->mac, peer->vtep_mac, ETH_ALEN);
	flow->mtu = peer->mtu;
	flow->slot = peer->slot;
	flow->way = peer->way;
}

/* Can packets be put into the pod? Of one whose veth is gone the agent may not know yet, or never
 * learn if it is dead: bpf_redirect_peer() would free the packet, though the kernel path may lead
 * to the address's next pod, or put it into whose veth has the ifindex now. */
static __always_inline int is_there(const struct pod *pod)
{
	__u32 ifindex = pod->ifindex;

	return !!veths.lookup(&ifindex);
}

#endif
