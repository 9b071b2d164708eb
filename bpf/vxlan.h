/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* VXLAN push and pop: the bytes are those of flannel.1 (vxlan_xmit_one() and
 * iptunnel_xmit() in the kernel), so that a stock peer sees no difference. */
#ifndef VXLANE_VXLAN_H
#define VXLANE_VXLAN_H

#include "outer.h"
#include "route.h"

/* ENCAP_L2 takes the bytes between the VXLAN header and the inner IP header:
 * GSO finds the inner frame by it. 14, not the 22 of the kernel's self-test,
 * which makes every super-packet vanish in the NIC's transmit path. */
#define ROOM_FLAGS                                                                               \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | \
	 BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(sizeof(struct ethhdr)))

/* FIXED_GSO: without it gso_size grows by what was removed, and a pod that forwards sends segments
 * larger than its MTU. NO_CSUM_RESET: what the NIC or GRO has verified of the inner packet stays
 * verified. BPF_F_ADJ_ROOM_DECAP_L4_UDP is in no header before Linux 7.2. */
#define POP_FLAGS \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | (DECAP_L4_UDP ? 1ULL << 10 : 0))

/* The packet behind its Ethernet header becomes the payload of a VXLAN frame to the flow's peer.
 * The outer Ethernet header is left: the neighbour layer writes it. The source port is the one that
 * the kernel gave the flow, so ECMP and receive queues do not see it move. */
static __always_inline enum verdict vxlan_push(struct __sk_buff *skb, struct packet *packet,
					       const struct settings *settings,
					       const struct flow *flow)
{
	__u16 inner = cpu16(packet->ip.tot_len);
	struct iphdr ip = packet->ip;
	struct iphdr outer = {.version = 4, .ihl = 5, .ttl = OUTER_TTL, .protocol = IPPROTO_UDP};
	struct {
		struct encapsulation outer;
		struct iphdr ip;
	} __attribute__((packed)) headers = {};

	if (inner > 0xffff - ENCAPSULATION)
		return VERDICT_TOO_BIG;
	outer.tos = outer_tos(packet->ip.tos);
	outer.tot_len = be16(inner + ENCAPSULATION);
	/* DF is not set, so fragments may arise on the way: the ID must vary. */
	outer.id = bpf_get_prandom_u32();
	outer.saddr = settings->address[3];
	outer.daddr = flow->peer[3];
	outer.check = ip_checksum(&outer);
	headers.outer.ip = outer;
	headers.outer.udp.source = flow->source_port;
	headers.outer.udp.dest = VXLAN_PORT;
	headers.outer.udp.len = be16(inner + ENCAPSULATION - sizeof(struct iphdr));
	headers.outer.vxlan.flags = VXLAN_FLAGS;
	headers.outer.vxlan.vni = VXLAN_VNI;
	__builtin_memcpy(headers.outer.inner.h_dest, flow->mac, ETH_ALEN);
	__builtin_memcpy(headers.outer.inner.h_source, settings->vtep_mac, ETH_ALEN);
	headers.outer.inner.h_proto = packet->eth.h_proto;
	forward(&ip, 1);
	headers.ip = ip;

	/* -EALREADY: the pod has a tunnel of its own. -ENOTSUPP: GSO of a kind
	 * that can't be nested. The kernel path can do both. */
	if (bpf_skb_adjust_room(skb, ENCAPSULATION, BPF_ADJ_ROOM_MAC, ROOM_FLAGS))
		return VERDICT_REFUSED;
	bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &headers, sizeof(headers), 0);
	return VERDICT_ENCAPSULATED;
}

/* IP_ECN_decapsulate(): a mark set on the way reaches the inner header. What
 * the kernel logs, drops or treats as L4S is left to it. */
static __always_inline enum verdict merge_ecn(__u8 outer, struct iphdr *inner)
{
	__u8 mark = outer & ECN_MASK;
	__u8 ecn = inner->tos & ECN_MASK;

	if (!mark || mark == ecn || (mark == ECN_ECT0 && ecn))
		return CONTINUE;
	if (mark != ECN_CE || !ecn)
		return VERDICT_ECN;
	inner->tos |= ECN_CE;
	return CONTINUE;
}

/* The outer headers go, but for that of Ethernet. */
static __always_inline enum verdict vxlan_pop(struct __sk_buff *skb)
{
	if (bpf_skb_adjust_room(skb, -(__s32)ENCAPSULATION, BPF_ADJ_ROOM_MAC, POP_FLAGS))
		return VERDICT_REFUSED;
	/* One layer of checksums was the outer UDP header's. */
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return VERDICT_DECAPSULATED;
}

#endif
