/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What forwarding changes in a packet. */
#ifndef VXLANE_ROUTE_H
#define VXLANE_ROUTE_H

#include "maps.h"
#include "parse.h"

static __always_inline void forward(struct iphdr *ip, __u8 hops)
{
	ip->ttl -= hops;
	ip->check = 0;
	ip->check = ip_checksum(ip);
}

/* The frame as the node forwards it. */
static __always_inline void write_frame(struct __sk_buff *skb, const struct ethhdr *eth,
					const struct iphdr *ip, __u8 hops)
{
	struct iphdr hopped = *ip;
	struct {
		struct ethhdr eth;
		struct iphdr ip;
	} __attribute__((packed)) headers = {.eth = *eth};

	forward(&hopped, hops);
	headers.ip = hopped;
	bpf_skb_store_bytes(skb, 0, &headers, sizeof(headers), 0);
}

/* As the gateway would send it to the pod; the caller redirects. */
static __always_inline void hand_to_pod(struct __sk_buff *skb, const struct packet *packet,
					const struct pod *pod)
{
	struct ethhdr eth = packet->eth;

	__builtin_memcpy(eth.h_dest, pod->mac, ETH_ALEN);
	__builtin_memcpy(eth.h_source, pod->gateway_mac, ETH_ALEN);
	write_frame(skb, &eth, &packet->ip, 1);
}

#endif
