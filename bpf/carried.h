/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an skb carries beside its bytes, made as the kernel path makes it. */
#ifndef VXLANE_CARRIED_H
#define VXLANE_CARRIED_H

#include "maps.h"
#include "node.h"
#include "parse.h"

#define PACKET_HOST 0

/* ip_forward() takes the priority from the TOS (rt_tos2priority()), and a qdisc its class. Four
 * classes, by two bits: best effort 0, bulk 2, interactive 6, interactive bulk 4. */
static __always_inline __u32 priority_of(__u8 tos)
{
	return 0x4620 >> (tos >> 1 & 0xc) & 7;
}

/* To the NIC. A queue that the packet came by would choose the NIC's queue, and no hash would have
 * the kernel choose by the outer header: a flow would change its queue with its path. */
static __always_inline void leave_node(struct __sk_buff *skb, __u8 tos, __u32 hash)
{
	skb->queue_mapping = 0;
	skb->priority = priority_of(tos);
	if (!skb->hash && hash)
		bpf_set_hash(skb, hash);
}

/* Into a pod; TC_ACT_REDIRECT does the rest. tstamp stays: a pod's sockets tell it as the time of
 * receipt. On the kernel path the kernel takes the time anew, of the same clock. */
static __always_inline void enter_pod(struct __sk_buff *skb, const struct pod *receiver)
{
	skb->queue_mapping = 0;
	skb->priority = 0;
	/* A frame through the bridge is for another's MAC than the veth's, and the receiver's IP
	 * layer drops what is for another host. */
	if (!PEER_TAKES_AS_HOST && skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	bpf_redirect_peer(receiver->ifindex, 0);
}

#endif
