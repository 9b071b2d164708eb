// SPDX-License-Identifier: Apache-2.0
/* The path `device`: what Cilium does in tunnel mode, without its policy and its own conntrack. No
 * helper used here asks for a GPL program.
 *
 * from_pod    ingress of a pod's host veth: to another node by a tunnel key and the vxlan device
 *             that collects metadata, to a pod of this node straight into it.
 * from_tunnel ingress of that device: into the pod.
 */
#include "device.h"

#define BPF_LICENSE Apache - 2.0

/* All pods of the cluster by address: its nodes share this map. */
BPF_HASH(pods, __be32, struct pod, 1024);

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
