/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of the node's NIC, before IP reassembly and the host's firewall: all
 * that reaches the node. A packet of an approved flow from the right peer, in
 * VXLAN or plain where the peer is on our link, goes straight into the pod; all
 * else is the kernel path's.
 */
#include "carried.h"
#include "connection.h"
#include "conntrack.h"
#include "flow.h"
#include "nat.h"
#include "note.h"
#include "outer.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"
#include "vxlan.h"

/* Who sent it is known by the record, if the record is of the packet's flow and no peer has changed
 * since: then the outer source was this peer's. It spares the look-up of the peer. */
static __always_inline int is_vouched_for(const struct outer *outer, const struct flow *flow,
					  const struct settings *settings)
{
	return flow && flow->epoch == settings->epoch && flow->way == WAY_TUNNEL &&
	       flow->peer[3] == outer->ip.saddr;
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

/* What the tunnel asks of a packet that may enter the pod. */
static __always_inline enum verdict decapsulate(struct __sk_buff *skb, struct packet *packet,
						const struct outer *outer)
{
	enum verdict verdict;

	/* Without DECAP_L4_UDP popping leaves the skb marked as a tunnel's; the stack re-segments a
	 * UDP super-packet by that mark and loses every datagram of it. */
	if (!DECAP_L4_UDP && skb->gso_size && packet->ip.protocol != IPPROTO_TCP)
		return VERDICT_GSO;
	/* Behind us only the pod would verify the packet, and without an inner checksum it
	 * can't. The kernel path verifies the outer one. */
	if (outer->udp.check && packet->ip.protocol == IPPROTO_UDP && !packet->check)
		return VERDICT_NO_CHECKSUM;
	verdict = merge_ecn(outer->ip.tos, &packet->ip);
	return verdict == CONTINUE ? vxlan_pop(skb) : verdict;
}

static __always_inline enum verdict enter_by_record(struct __sk_buff *skb, struct packet *packet,
						    const struct outer *outer,
						    const struct pod *receiver,
						    const struct settings *settings,
						    const struct match *match, __u64 now)
{
	struct flow *flow = match->flow;
	enum verdict verdict;
	struct nat nat = {};

	if (!flow)
		return VERDICT_FLOW_UNKNOWN;
	if (!is_current(flow, settings, receiver, END_POD))
		return VERDICT_FLOW_WITHDRAWN;
	verdict = flow_admit(settings, packet, match, now);
	if (verdict != CONTINUE)
		return verdict;
	if (!is_there(receiver))
		return VERDICT_NO_POD;
	if (packet->ip.ttl <= 1)
		return VERDICT_TTL;
	if (!fits(skb, packet, receiver->mtu))
		return VERDICT_TOO_BIG;
	/* A NIC may be a bridge's port, and a copy would go to all others. */
	if (flow->closing && (!outer || !settings->vtep))
		return VERDICT_TCP_CONTROL;
	verdict = outer ? decapsulate(skb, packet, outer) : VERDICT_ROUTED;
	if (!is_bypassed(verdict))
		return verdict;
	/* Without a copy the pod has it all the same. The tunnel is gone: what is left would come
	 * in by the NIC, where a strict rp_filter drops it, and a bridge floods it. The next FIN
	 * moves conntrack's state on; behind the last ACK there is none, and the entry is LAST_ACK
	 * for 30 s. */
	if (flow->closing)
		show_conntrack(skb, settings->vtep);
	if (flow->translated)
		nat = nat_in(packet, &match->key, flow->side);
	hand_to_pod(skb, packet, receiver);
	if (flow->translated) {
		nat_finish(skb, packet, &nat, sizeof(packet->eth) + sizeof(packet->ip));
		verdict = VERDICT_NAT;
	}
	enter_pod(skb, receiver);
	flow_use(settings, flow, packet, DIRECTION_IN, now);
	count_received(flow, sizeof(struct ethhdr) + cpu16(packet->ip.tot_len));
	return verdict;
}

static __always_inline enum verdict enter_or_note(struct __sk_buff *skb, struct packet *packet,
						  const struct outer *outer,
						  const struct settings *settings,
						  const struct match *match, __u64 now)
{
	const struct pod *receiver = pod_of(receiver_address(packet, match));
	enum verdict verdict;

	if (!receiver) {
		/* The node's own address may be what netfilter gave a pod. */
		verdict = VERDICT_NO_POD;
	} else if (is_judged(settings, receiver)) {
		return VERDICT_JUDGED;
	} else if (is_guarded(receiver, packet, GUARD_TO_POD)) {
		return VERDICT_GUARDED;
	} else if (is_tcp_control(packet)) {
		verdict = VERDICT_TCP_CONTROL;
	} else {
		verdict = enter_by_record(skb, packet, outer, receiver, settings, match, now);
	}
	if (!is_bypassed(verdict) && is_teaching(packet, match->flow, DIRECTION_IN))
		note_down(skb, settings, packet, 0, 0, 0);
	return verdict;
}

/* An identified packet; `outer`: the tunnel's headers, if it came in one. */
static __always_inline enum verdict enter(struct __sk_buff *skb, struct packet *packet,
					  const struct outer *outer,
					  const struct settings *settings, struct match *match,
					  __u64 now)
{
	int is_last = flow_turn(packet, match);
	enum verdict verdict = VERDICT_TCP_CONTROL;

	if (!is_last || !settings->heard)
		verdict = enter_or_note(skb, packet, outer, settings, match, now);
	if (is_last)
		flow_end(match);
	return verdict;
}

/* The record of a packet that comes from elsewhere to its pod. */
static __always_inline void find_entering(const struct packet *packet, struct match *match)
{
	find_flow(packet, match);
	/* As if a pod of ours had sent it, or to one. */
	if (match->flow && (match->direction == DIRECTION_OUT || match->flow->way == WAY_LOCAL))
		match->flow = 0;
}

/* Not for our VTEP: a stranger's, or a pod's own VXLAN from a peer on our link. */
static __always_inline enum verdict not_ours(const struct outer *outer)
{
	__be32 destination[4];

	map_address(destination, outer->ip.daddr);
	return pod_of(destination) ? VERDICT_NOT_OVERLAY : VERDICT_NOT_OUR_VTEP;
}

/* Who sent it, by the headers alone, before anything else is judged: the right peer in an intact
 * packet, or the verdict. `intact` and `addresses`: how far both headers are sound. */
static __always_inline enum verdict identify(const struct outer *outer, const struct packet *packet,
					     const struct settings *settings, enum verdict intact,
					     enum verdict addresses, const struct flow *flow)
{
	if (intact == CONTINUE && is_vouched_for(outer, flow, settings))
		return CONTINUE;
	return check_tunnel(outer, addresses == CONTINUE ? peer_of(packet->source) : 0,
			    intact == CONTINUE ? addresses : intact);
}

static __always_inline enum verdict from_tunnel(struct cursor *at, const struct outer *outer,
						const struct settings *settings, __u64 now)
{
	enum verdict verdict, addresses, transport = VERDICT_MALFORMED;
	struct __sk_buff *skb = at->skb;
	struct packet packet = {};
	struct match match = {};

	if (skb->pkt_type != 0 /* PACKET_HOST */ || outer->ip.daddr != settings->address[3])
		return not_ours(outer);
	addresses = parse_addresses(at, &packet);
	if (addresses == VERDICT_TAGS)
		return addresses;
	if (addresses == CONTINUE)
		transport = parse_transport(at, &packet,
					    skb->len - sizeof(struct ethhdr) - ENCAPSULATION);
	if (transport == CONTINUE)
		find_entering(&packet, &match);
	verdict =
		identify(outer, &packet, settings, check_outer(skb, outer), addresses, match.flow);
	if (verdict != CONTINUE)
		return verdict;
	if (!is_served(settings, now))
		return VERDICT_NO_AGENT;
	if (skb->mark)
		return VERDICT_MARKED;
	/* The kernel takes a frame for another MAC as not its own, and one from
	 * its own MAC as a loop. */
	if (!same_mac(packet.eth.h_dest, settings->vtep_mac) ||
	    same_mac(packet.eth.h_source, settings->vtep_mac))
		return VERDICT_OTHER_MAC;
	if (transport != CONTINUE)
		return transport;
	return enter(skb, &packet, outer, settings, &match, now);
}

/* Plain IP for a pod from a peer on our link; all else is NOT_OVERLAY. */
static __always_inline enum verdict from_link(struct __sk_buff *skb,
					      const struct settings *settings, __u64 now)
{
	struct cursor at = {.skb = skb};
	struct packet packet = {};
	const struct peer *peer;
	enum verdict verdict;
	struct match match;

	if (skb->pkt_type != 0 /* PACKET_HOST */ || parse_addresses(&at, &packet) != CONTINUE)
		return VERDICT_NOT_OVERLAY;
	peer = peer_of(packet.source);
	if (!peer || peer->way != WAY_DIRECT)
		return VERDICT_NOT_OVERLAY;
	if (skb->mark)
		return VERDICT_MARKED;
	verdict = parse_transport(&at, &packet, skb->len - sizeof(packet.eth));
	if (verdict == CONTINUE) {
		find_entering(&packet, &match);
		verdict = enter(skb, &packet, 0, settings, &match, now);
	}
	/* A flow of a pod's that has the node's address by NAT is bypassed all the same. */
	return is_bypassed(verdict) || pod_of(packet.destination) ? verdict : VERDICT_NOT_OVERLAY;
}

static __always_inline enum verdict from_nic_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_now();
	struct cursor at = {.skb = skb};
	struct outer outer = {};
	enum verdict verdict = parse_outer(&at, &outer);

	take_stamp(skb);
	if (!settings || !has_identities(settings, now))
		return verdict == CONTINUE ? VERDICT_NO_AGENT : verdict;
	if (verdict == VERDICT_NOT_OVERLAY && settings->has_direct && is_served(settings, now))
		return from_link(skb, settings, now);
	return verdict == CONTINUE ? from_tunnel(&at, &outer, settings, now) : verdict;
}

int from_nic(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;

	return conclude(skb, PROGRAM_FROM_NIC, from_nic_verdict(skb), bytes);
}
