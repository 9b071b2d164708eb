// SPDX-License-Identifier: Apache-2.0
/* The path `device`: what Cilium does in tunnel mode, without its policy and its own conntrack. No
 * helper used here asks for a GPL program.
 *
 * from_pod    ingress of a pod's host veth: to another node by a tunnel key and the vxlan device
 *             that collects metadata, to a pod of this node straight into it.
 * from_tunnel ingress of that device: into the pod.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/bpf.h>

#define BPF_LICENSE Apache - 2.0

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

/* All pods of the cluster by address: its nodes share this map. */
BPF_HASH(pods, __be32, struct pod, 1024);

static struct iphdr *header(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);

	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ttl < 2)
		return 0;
	return ip;
}

/* As a router: one hop less, and the MACs of the last link. */
static int deliver(struct __sk_buff *skb, struct pod *pod, __u8 ttl)
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

int from_pod(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {.tunnel_id = VNI, .tunnel_ttl = HOPS};
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
	key.remote_ipv4 = bpf_ntohl(target->node);
	bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX);
	return bpf_redirect(TUNNEL_IFINDEX, 0);
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
