/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The outer headers of a tunnel packet, as they stand on the wire. */
#ifndef VXLANE_OUTER_H
#define VXLANE_OUTER_H

#include "node.h"
#include "parse.h"

#define VXLAN_FLAGS be32(0x08000000) /* VNI present, nothing else */
#define OUTER_TTL 64
#define ECN_ECT0 2
#define ECN_CE 3

struct vxlan {
	__be32 flags;
	__be32 vni;
};

struct outer {
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan vxlan;
};

/* What is put before the inner IP packet, in wire order. */
struct encapsulation {
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan vxlan;
	struct ethhdr inner;
} __attribute__((packed));

#define ENCAPSULATION sizeof(struct encapsulation)

/* ip_tunnel_ecn_encap() with tos 0: no DSCP, ECN copied, CE becomes ECT(0). */
static __always_inline __u8 outer_tos(__u8 inner)
{
	__u8 ecn = inner & ECN_MASK;

	return ecn == ECN_CE ? ECN_ECT0 : ecn;
}

/* Most of what a NIC carries is no VXLAN: say so after the fewest reads. What the
 * kernel may yet make a tunnel of passes: see check_outer(). */
static __always_inline enum verdict parse_outer(struct cursor *at, struct outer *outer)
{
	struct packet tags = {};
	enum verdict verdict;

	tags.eth.h_proto = at->skb->protocol;
	at->offset = sizeof(struct ethhdr);
	verdict = parse_tags(at, &tags);
	if (verdict != CONTINUE)
		return verdict;
	if (tags.eth.h_proto != be16(ETH_P_IP) || (at->skb->vlan_tci & VLAN_ID))
		return VERDICT_NOT_IP;
	if (take(at, &outer->ip, sizeof(outer->ip)) || outer->ip.protocol != IPPROTO_UDP)
		return VERDICT_NOT_OVERLAY;
	if (outer->ip.version != 4 || outer->ip.ihl < 5)
		return VERDICT_MALFORMED;
	if (outer->ip.frag_off & IP_OFFSET)
		return VERDICT_FRAGMENT;
	at->offset += (outer->ip.ihl - 5) * 4;
	if (take(at, &outer->udp, sizeof(outer->udp)) || outer->udp.dest != VXLAN_PORT)
		return VERDICT_NOT_OVERLAY;
	/* A first fragment without a whole VXLAN header is suspicious: the identity checks
	 * must see it. */
	if (take(at, &outer->vxlan, sizeof(outer->vxlan)))
		return outer->ip.frag_off & IP_FRAGMENT ? CONTINUE : VERDICT_MALFORMED;
	if (outer->vxlan.flags != VXLAN_FLAGS || (outer->vxlan.vni & be32(0xff)))
		return VERDICT_VXLAN_HEADER;
	return outer->vxlan.vni == VXLAN_VNI ? CONTINUE : VERDICT_FOREIGN_VNI;
}

/* What is the kernel path's, whoever sent it. It is asked after who sent it: options, a first
 * fragment or a byte of padding must not carry a false name past --strict. */
static __always_inline enum verdict check_outer(const struct __sk_buff *skb,
						const struct outer *outer)
{
	enum verdict verdict = check_ip(&outer->ip, skb->len - sizeof(struct ethhdr));

	if (verdict != CONTINUE)
		return verdict;
	if (cpu16(outer->udp.len) != cpu16(outer->ip.tot_len) - sizeof(outer->ip))
		return VERDICT_MALFORMED;
	return CONTINUE;
}

#endif
