// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The path `encap`: the next step from `device`. The programs write and remove the outer headers
 * themselves, so few packets pass a vxlan device.
 *
 * from_pod    ingress of a pod's host veth: to another node in headers that it writes, by the NIC
 *             and the MACs that the FIB has for this packet; to a pod of this node straight into
 * it. from_nic    ingress of the NIC: out of these headers and into the pod. Super-packets, which
 * GRO has merged, are left to the kernel: it knows how to take the tunnel off them. from_tunnel
 * ingress of the vxlan device: into the pod.
 *
 * bpf_fib_lookup() asks for a GPL program, which is what bcc calls a program that says nothing.
 */
#include "device.h"
#include <linux/in.h>
#include <linux/udp.h>

enum {
	IPV4 = 2, /* AF_INET */
	FRAGMENT_BITS = 0x3fff,
	VXLAN_FLAGS = 0x08000000,
	LONGEST = 0xffff
};

struct vxlan {
	__be32 flags;
	__be32 vni;
};

struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan vxlan;
	struct ethhdr inner;
} __attribute__((packed));

#define ROOM (sizeof(struct outer) - sizeof(struct ethhdr))
/* Of the inner packet's own Ethernet header: GSO finds the inner frame by it. */
#define ROOM_FLAGS                                                                               \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | \
	 BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(sizeof(struct ethhdr)))

/* All pods of the cluster by address: its nodes share this map. */
BPF_HASH(pods, __be32, struct pod, 1024);

static __be16 checksum(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*ip) / sizeof(*words)); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* `inner`: length of the IP packet. What has no way, or grows too long, is the kernel's. */
static int push(struct __sk_buff *skb, __be32 from, __be32 to, __u32 inner)
{
	struct bpf_fib_lookup way = {.family = IPV4, .ifindex = skb->ifindex};
	__u16 port = 0xc000 | (bpf_get_hash_recalc(skb) & 0x3fff);
	struct outer outer = {};

	way.ipv4_src = from;
	way.ipv4_dst = to;
	if (inner + ROOM > LONGEST || bpf_fib_lookup(skb, &way, sizeof(way), 0))
		return TC_ACT_OK;
	__builtin_memcpy(outer.eth.h_dest, way.dmac, ETH_ALEN);
	__builtin_memcpy(outer.eth.h_source, way.smac, ETH_ALEN);
	outer.eth.h_proto = bpf_htons(ETH_P_IP);
	outer.ip.version = 4;
	outer.ip.ihl = sizeof(outer.ip) / 4;
	outer.ip.tot_len = bpf_htons(inner + ROOM);
	outer.ip.id = bpf_get_prandom_u32();
	outer.ip.ttl = HOPS;
	outer.ip.protocol = IPPROTO_UDP;
	outer.ip.saddr = from;
	outer.ip.daddr = to;
	outer.ip.check = checksum(&outer.ip);
	outer.udp.source = bpf_htons(port);
	outer.udp.dest = bpf_htons(TUNNEL_PORT);
	outer.udp.len = bpf_htons(inner + ROOM - sizeof(outer.ip));
	outer.vxlan.flags = bpf_htonl(VXLAN_FLAGS);
	outer.vxlan.vni = bpf_htonl(VNI << 8);
	outer.inner.h_proto = bpf_htons(ETH_P_IP);
	if (bpf_skb_adjust_room(skb, ROOM, BPF_ADJ_ROOM_MAC, ROOM_FLAGS))
		return TC_ACT_OK;
	bpf_skb_store_bytes(skb, 0, &outer, sizeof(outer), 0);
	return bpf_redirect(way.ifindex, 0);
}

int from_pod(struct __sk_buff *skb)
{
	struct iphdr *ip = header(skb);
	struct pod *source, *target;
	__be32 from, to;

	if (!ip)
		return TC_ACT_OK;
	from = ip->saddr;
	to = ip->daddr;
	source = pods.lookup(&from);
	target = pods.lookup(&to);
	if (!source || !target)
		return TC_ACT_OK;
	if (source->node == target->node)
		return deliver(skb, target, ip->ttl);
	return push(skb, source->node, target->node, bpf_ntohs(ip->tot_len));
}

int from_nic(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct outer *outer = data;
	struct iphdr *ip = (void *)(outer + 1);
	struct pod *target;
	__be32 to;
	__u8 ttl;

	if ((void *)(ip + 1) > end || skb->gso_size)
		return TC_ACT_OK;
	if (outer->eth.h_proto != bpf_htons(ETH_P_IP) || outer->ip.protocol != IPPROTO_UDP ||
	    outer->ip.ihl != sizeof(outer->ip) / 4 ||
	    (outer->ip.frag_off & bpf_htons(FRAGMENT_BITS)) ||
	    outer->udp.dest != bpf_htons(TUNNEL_PORT))
		return TC_ACT_OK;
	to = ip->daddr;
	ttl = ip->ttl;
	target = pods.lookup(&to);
	if (!target || ttl < 2 ||
	    bpf_skb_adjust_room(skb, -(__s32)ROOM, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_ACT_OK;
	return deliver(skb, target, ttl);
}

int from_tunnel(struct __sk_buff *skb)
{
	struct iphdr *ip = header(skb);
	struct pod *target;
	__be32 to;

	if (!ip)
		return TC_ACT_OK;
	to = ip->daddr;
	target = pods.lookup(&to);
	return target ? deliver(skb, target, ip->ttl) : TC_ACT_SHOT;
}
