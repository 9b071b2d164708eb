/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the programs of device.c and encap.c share. No map is used here: bcc finds none in a header.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/bpf.h>

enum {
	VNI = 1,
	HOPS = 64
};

struct pod {
	__be32 node; /* the underlay address of its node */
	__u32 ifindex; /* the host end of its veth */
	__u8 mac[ETH_ALEN];
	__u8 gateway_mac[ETH_ALEN];
};

static inline struct iphdr *header(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);

	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ttl < 2)
		return 0;
	return ip;
}

/* As a router: one hop less, and the MACs of the last link. */
static inline int deliver(struct __sk_buff *skb, struct pod *pod, __u8 ttl)
{
	__u8 less = ttl - 1;
	__be16 before = bpf_htons(ttl << 8), after = bpf_htons(less << 8);

	bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check), before, after,
			    sizeof(before));
	bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, ttl), &less, 1, 0);
	bpf_skb_store_bytes(skb, 0, pod->mac, 2 * ETH_ALEN, 0);
	/* Before Linux 6.15 a packet for another MAC stays PACKET_OTHERHOST on its way. */
	bpf_skb_change_type(skb, 0);
	return bpf_redirect_peer(pod->ifindex, 0);
}

#endif
