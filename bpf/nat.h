/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What netfilter makes of a translated flow's packets, made again. */
#ifndef VXLANE_NAT_H
#define VXLANE_NAT_H

#include "flow.h"

/* How a packet's transport header is to be changed. */
struct nat {
	__u32 addresses; /* by how much the sum over the addresses grows, one's complement */
	__be16 source_port;
	__be16 destination_port;
};

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

/* Gives the packet the addresses that it gets, for whoever writes its IP header. */
static __always_inline struct nat nat_begin(struct packet *packet, __be32 source,
					    __be32 destination, __be16 source_port,
					    __be16 destination_port)
{
	struct nat nat = {.source_port = source_port, .destination_port = destination_port};

	nat.addresses = fold((__u64)(__u32)~packet->ip.saddr + (__u32)~packet->ip.daddr + source +
			     destination);
	packet->ip.saddr = source;
	packet->ip.daddr = destination;
	return nat;
}

/* What a pod's packet is behind netfilter. */
static __always_inline struct nat nat_out(struct packet *packet, const struct flow *flow)
{
	return nat_begin(packet, flow->nat_local[3], flow->nat_remote[3], flow->nat_local_port,
			 flow->nat_remote_port);
}

/* What a packet is for the pod; `key`: of the flow's record. */
static __always_inline struct nat nat_in(struct packet *packet, const struct flow_key *key,
					 enum side side)
{
	if (side == SIDE_LOW)
		return nat_begin(packet, key->high[3], key->low[3], key->high_port, key->low_port);
	return nat_begin(packet, key->low[3], key->high[3], key->low_port, key->high_port);
}

/* Writes the ports and the checksum, once the packet is sure to be bypassed; `offset`: of the
 * transport header. The sum of the addresses is in a checksum that the device is to finish, too,
 * and the ports are not: the kernel's helper knows both kinds. UDP may have none. */
static __always_inline void nat_finish(struct __sk_buff *skb, const struct packet *packet,
				       const struct nat *nat, __u32 offset)
{
	__be16 ports[2] = {nat->source_port, nat->destination_port};
	__u32 check = offset + (packet->ip.protocol == IPPROTO_TCP ? 16 : 6);
	__u64 flags = packet->ip.protocol == IPPROTO_TCP ? 0 : BPF_F_MARK_MANGLED_0;
	__u64 grown = (__u64)(__u16)~packet->source_port + (__u16)~packet->destination_port +
		      nat->source_port + nat->destination_port;

	bpf_l4_csum_replace(skb, check, 0, nat->addresses, flags | BPF_F_PSEUDO_HDR);
	bpf_l4_csum_replace(skb, check, 0, fold(grown), flags);
	bpf_skb_store_bytes(skb, offset, ports, sizeof(ports), 0);
}

#endif
