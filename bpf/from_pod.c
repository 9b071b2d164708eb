/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of the host end of a pod's veth: all that the pod sends.
 * Leaves by the NIC towards a peer, encapsulated unless the peer is on our link;
 * or straight into another pod of this node; or, when in doubt, by the kernel path.
 */
#include "flow.h"
#include "helpers.h"
#include "pod.h"
#include "route.h"
#include "settings.h"
#include "verdict.h"
#include "vxlan.h"

static __always_inline enum verdict
check_sender(const struct __sk_buff *skb, const struct packet *packet, const struct pod *sender)
{
	if (!sender || sender->ifindex != skb->ifindex)
		return VERDICT_SPOOFED_ADDRESS;
	if (!same_mac(sender->mac, packet->eth.h_source))
		return VERDICT_SPOOFED_MAC;
	return CONTINUE;
}

/* The bridge would hand the frame over unchanged, and so do we. */
static __always_inline enum verdict to_local_pod(struct __sk_buff *skb, struct packet *packet,
						 const struct pod *sender,
						 const struct settings *settings, __u64 now)
{
	const struct pod *receiver = receiver_of(packet->destination);
	enum verdict verdict;

	if (!receiver || receiver->bridge != sender->bridge)
		return VERDICT_NO_PEER;
	/* Routed rather than bridged, or hairpin to itself. */
	if (!same_mac(packet->eth.h_dest, receiver->mac) || receiver == sender)
		return VERDICT_OTHER_MAC;
	if (is_judged(settings, receiver))
		return VERDICT_JUDGED;
	if (is_guarded(receiver, packet, GUARD_TO_POD))
		return VERDICT_GUARDED;
	verdict = flow_admit(settings, packet, sender, DIRECTION_OUT, now);
	if (verdict != CONTINUE)
		return verdict;
	if (!fits(skb, packet, receiver->mtu))
		return VERDICT_TOO_BIG;
	bpf_redirect_peer(receiver->ifindex, 0);
	return VERDICT_SWITCHED;
}

static __always_inline enum verdict to_peer(struct __sk_buff *skb, struct packet *packet,
					    const struct pod *sender,
					    const struct settings *settings,
					    const struct peer *peer, __u64 now)
{
	struct bpf_redir_neigh hop = {.nh_family = 2 /* AF_INET */};
	__u32 bytes = skb->len;
	enum verdict verdict;

	/* Any other destination is a router that the pod chose, not the node. */
	if (!same_mac(packet->eth.h_dest, sender->gateway_mac))
		return VERDICT_OTHER_MAC;
	if (packet->ip.ttl <= 1)
		return VERDICT_TTL;
	verdict = flow_admit(settings, packet, sender, DIRECTION_OUT, now);
	if (verdict != CONTINUE)
		return verdict;
	if (!peer->ifindex)
		return VERDICT_NO_NEXT_HOP;
	if (!fits(skb, packet, peer->mtu))
		return VERDICT_TOO_BIG;
	if (peer->way == WAY_DIRECT) {
		write_frame(skb, &packet->eth, &packet->ip);
		/* Or to_overlay, at the NIC's egress, would take it for the kernel
		 * path's and approve the flow for ever. */
		skb->mark = MARK;
		verdict = VERDICT_ROUTED;
	} else {
		verdict = vxlan_push(skb, packet, settings, peer);
		if (verdict != VERDICT_ENCAPSULATED)
			return verdict;
	}
	hop.ipv4_nh = peer->next_hop[3];
	redirect_neigh(peer->ifindex, &hop, sizeof(hop), 0);
	count_sent(peer, bytes);
	return verdict;
}

static __always_inline enum verdict from_pod_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_at(now);
	struct cursor at = {.skb = skb};
	struct packet packet = {};
	const struct pod *sender;
	const struct peer *peer;
	enum verdict verdict;

	if (!settings)
		return VERDICT_NO_AGENT;
	verdict = parse_addresses(&at, &packet);
	if (verdict != CONTINUE)
		return verdict;
	sender = pod_of(packet.source);
	verdict = check_sender(skb, &packet, sender);
	if (verdict != CONTINUE || !sender)
		return verdict;
	if (skb->mark)
		return VERDICT_MARKED;
	verdict = parse_transport(&at, &packet, skb->len - sizeof(packet.eth));
	if (verdict != CONTINUE)
		return verdict;
	peer = peer_of(packet.destination);
	if (is_judged(settings, sender))
		verdict = VERDICT_JUDGED;
	else if (is_guarded(sender, &packet, GUARD_FROM_POD))
		verdict = VERDICT_GUARDED;
	else if (peer)
		verdict = to_peer(skb, &packet, sender, settings, peer, now);
	else
		verdict = to_local_pod(skb, &packet, sender, settings, now);
	if (!is_bypassed(verdict))
		stamp(skb, settings, &packet);
	return verdict;
}

int from_pod(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;

	return conclude(PROGRAM_FROM_POD, from_pod_verdict(skb), bytes);
}
