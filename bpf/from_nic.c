/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of the node's NIC, before IP reassembly and the host's firewall: all
 * that reaches the node. VXLAN from the right peer for a pod of ours, of an
 * approved flow, goes straight into the pod; all else is the kernel path's.
 */
#include "flow.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"
#include "vxlan.h"

struct outer {
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan vxlan;
};

/* Most of what a NIC receives is no VXLAN: say so after the fewest reads. What the
 * kernel may yet make a tunnel of passes: see check_outer(). */
static __always_inline enum verdict parse_outer(struct cursor *at, struct outer *outer)
{
	if (at->skb->protocol != be16(ETH_P_IP) || (at->skb->vlan_tci & VLAN_ID))
		return VERDICT_NOT_IP;
	at->offset = sizeof(struct ethhdr);
	if (take(at, &outer->ip, sizeof(outer->ip)) || outer->ip.protocol != IPPROTO_UDP)
		return VERDICT_NOT_OVERLAY;
	if (outer->ip.version != 4 || outer->ip.ihl < 5)
		return VERDICT_MALFORMED;
	if (outer->ip.frag_off & IP_OFFSET)
		return VERDICT_FRAGMENT;
	at->offset += (outer->ip.ihl - 5) * 4;
	if (take(at, &outer->udp, sizeof(outer->udp)) || outer->udp.dest != be16(PORT))
		return VERDICT_NOT_OVERLAY;
	/* Nobody makes a fragment too short to tell in good faith: who is it? */
	if (take(at, &outer->vxlan, sizeof(outer->vxlan)))
		return outer->ip.frag_off & IP_FRAGMENT ? CONTINUE : VERDICT_MALFORMED;
	if (outer->vxlan.flags != VXLAN_FLAGS || (outer->vxlan.vni & be32(0xff)))
		return VERDICT_VXLAN_HEADER;
	return outer->vxlan.vni == VXLAN_VNI ? CONTINUE : VERDICT_FOREIGN_VNI;
}

/* What is the kernel path's, whoever sent it. Not asked before who it was: options,
 * a first fragment or a byte of padding must not carry a false name past --strict. */
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

/* The outer source must be the VTEP of the peer that owns the inner source. */
static __always_inline enum verdict check_tunnel(const struct outer *outer, const struct peer *peer,
						 enum verdict parsed)
{
	struct address vtep;

	if (peer && peer->address[3] == outer->ip.saddr)
		return parsed;
	map_address(vtep.word, outer->ip.saddr);
	if (!vteps.lookup(&vtep))
		return VERDICT_UNKNOWN_VTEP;
	if (peer)
		return VERDICT_WRONG_VTEP;
	return parsed == CONTINUE ? VERDICT_NO_PEER : parsed;
}

/* What every way into a pod asks. */
static __always_inline enum verdict may_enter(struct __sk_buff *skb, const struct packet *packet,
					      const struct pod *receiver,
					      const struct settings *settings, __u64 now)
{
	enum verdict verdict;

	if (is_judged(settings, receiver))
		return VERDICT_JUDGED;
	if (is_guarded(receiver, packet, GUARD_TO_POD))
		return VERDICT_GUARDED;
	verdict = flow_admit(settings, packet, receiver, DIRECTION_IN, now);
	if (verdict != CONTINUE)
		return verdict;
	if (packet->ip.ttl <= 1)
		return VERDICT_TTL;
	return fits(skb, packet, receiver->mtu) ? CONTINUE : VERDICT_TOO_BIG;
}

static __always_inline enum verdict decapsulate(struct __sk_buff *skb, struct packet *packet,
						const struct settings *settings,
						const struct outer *outer, __u64 now)
{
	const struct pod *receiver = receiver_of(packet->destination);
	enum verdict verdict;

	if (!receiver)
		return VERDICT_NO_POD;
	verdict = may_enter(skb, packet, receiver, settings, now);
	if (verdict != CONTINUE)
		return verdict;
	/* Popping leaves the skb marked as a tunnel's; the stack re-segments a UDP
	 * super-packet by that mark and loses every datagram of it. */
	if (skb->gso_size && packet->ip.protocol != IPPROTO_TCP)
		return VERDICT_GSO;
	/* Of an inner packet without a checksum nobody behind us would see the damage. */
	if (outer->udp.check && packet->ip.protocol == IPPROTO_UDP && !packet->udp_check)
		return VERDICT_NO_CHECKSUM;
	verdict = merge_ecn(outer->ip.tos, &packet->ip);
	if (verdict != CONTINUE)
		return verdict;
	verdict = vxlan_pop(skb, packet, receiver);
	if (verdict == VERDICT_DECAPSULATED)
		bpf_redirect_peer(receiver->ifindex, 0);
	return verdict;
}

/* Not for our VTEP: a stranger's, or a pod's own VXLAN from a peer on our link. */
static __always_inline enum verdict not_ours(const struct outer *outer)
{
	__be32 destination[4];

	map_address(destination, outer->ip.daddr);
	return pod_of(destination) ? VERDICT_NOT_OVERLAY : VERDICT_NOT_OUR_VTEP;
}

static __always_inline enum verdict from_tunnel(struct cursor *at, const struct outer *outer,
						const struct settings *settings, __u64 now)
{
	struct __sk_buff *skb = at->skb;
	__u32 room = skb->len - sizeof(struct ethhdr) - ENCAPSULATION;
	const struct peer *peer = 0;
	struct packet packet = {};
	enum verdict verdict, inner;

	if (skb->pkt_type != 0 /* PACKET_HOST */ || outer->ip.daddr != settings->address[3])
		return not_ours(outer);
	verdict = check_outer(skb, outer);
	inner = parse_addresses(at, &packet);
	if (inner == CONTINUE)
		peer = peer_of(packet.source);
	verdict = check_tunnel(outer, peer, verdict == CONTINUE ? inner : verdict);
	if (verdict != CONTINUE || !peer)
		return verdict;
	if (skb->mark)
		return VERDICT_MARKED;
	/* The kernel takes a frame for another MAC as not its own, and one from
	 * its own MAC as a loop. */
	if (!same_mac(packet.eth.h_dest, settings->vtep_mac) ||
	    same_mac(packet.eth.h_source, settings->vtep_mac))
		return VERDICT_OTHER_MAC;
	verdict = parse_transport(at, &packet, room);
	if (verdict != CONTINUE)
		return verdict;
	verdict = decapsulate(skb, &packet, settings, outer, now);
	if (is_bypassed(verdict))
		count_received(peer, room + sizeof(struct ethhdr));
	else
		stamp(skb, settings, &packet);
	return verdict;
}

/* Plain IP for a pod from a peer on our link; all else is NOT_OVERLAY. */
static __always_inline enum verdict from_link(struct __sk_buff *skb,
					      const struct settings *settings, __u64 now)
{
	struct cursor at = {.skb = skb};
	struct packet packet = {};
	const struct pod *receiver;
	const struct peer *peer;
	enum verdict verdict;

	if (skb->pkt_type != 0 /* PACKET_HOST */ || parse_addresses(&at, &packet) != CONTINUE)
		return VERDICT_NOT_OVERLAY;
	receiver = receiver_of(packet.destination);
	peer = peer_of(packet.source);
	if (!receiver || !peer || peer->way != WAY_DIRECT)
		return VERDICT_NOT_OVERLAY;
	if (skb->mark)
		return VERDICT_MARKED;
	verdict = parse_transport(&at, &packet, skb->len - sizeof(packet.eth));
	if (verdict != CONTINUE)
		return verdict;
	verdict = may_enter(skb, &packet, receiver, settings, now);
	if (verdict != CONTINUE) {
		stamp(skb, settings, &packet);
		return verdict;
	}
	hand_to_pod(skb, &packet, receiver);
	bpf_redirect_peer(receiver->ifindex, 0);
	count_received(peer, skb->len);
	return VERDICT_ROUTED;
}

static __always_inline enum verdict from_nic_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_at(now);
	struct cursor at = {.skb = skb};
	struct outer outer = {};
	enum verdict verdict = parse_outer(&at, &outer);

	if (verdict == VERDICT_NOT_OVERLAY && settings && settings->has_direct)
		return from_link(skb, settings, now);
	if (verdict != CONTINUE)
		return verdict;
	return settings ? from_tunnel(&at, &outer, settings, now) : VERDICT_NO_AGENT;
}

int from_nic(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;

	return conclude(PROGRAM_FROM_NIC, from_nic_verdict(skb), bytes);
}
