/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of the node's NIC: all that leaves the node, after policy, NAT, encapsulation, routing
 * and IPsec. Learns the outbound half of a pod's flow, if what leaves is what the bypass would
 * send. What the bypass itself sends carries no stamp and is dismissed by that.
 */
#include "carried.h"
#include "helpers.h"
#include "learn.h"
#include "note.h"
#include "outer.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"

#define HOP_AGE 1000000000 /* ns */

/* Every field that vxlan_push() writes, but for the two that the kernel draws by chance. */
static __always_inline int is_our_outer(const struct outer *outer, const struct packet *inner,
					const struct settings *settings, const struct peer *peer)
{
	return outer->ip.ihl == 5 && !outer->ip.frag_off && outer->ip.ttl == OUTER_TTL &&
	       outer->ip.tos == outer_tos(inner->ip.tos) &&
	       outer->ip.saddr == settings->address[3] && outer->ip.daddr == peer->address[3] &&
	       cpu16(outer->ip.tot_len) == cpu16(inner->ip.tot_len) + ENCAPSULATION &&
	       same_mac(inner->eth.h_dest, peer->vtep_mac) &&
	       same_mac(inner->eth.h_source, settings->vtep_mac);
}

/* Asks the FIB which neighbour `ip` goes to when it leaves by this device, and whether the frame
 * went there. Policy routing by mark, a tunnel of the route's own (RTA_ENCAP) or a second gateway
 * on the same device answer otherwise, and nothing is learned. */
static __always_inline enum verdict find_next_hop(struct __sk_buff *skb, const struct iphdr *ip,
						  __be16 source_port, __be16 destination_port,
						  struct flow *seen)
{
	struct bpf_fib_lookup route = {.family = AF_INET, .l4_protocol = ip->protocol};
	__u32 overhead;

	route.sport = source_port;
	route.dport = destination_port;
	/* Any length that fits: in exchange the kernel tells the route's MTU. */
	route.tot_len = sizeof(*ip);
	route.tos = ip->tos;
	route.ipv4_src = ip->saddr;
	route.ipv4_dst = ip->daddr;
	route.ifindex = skb->ifindex;
	if (bpf_fib_lookup(skb, &route, sizeof(route), BPF_FIB_LOOKUP_OUTPUT) ||
	    route.ifindex != skb->ifindex || !same_mac(route.dmac, seen->macs) ||
	    !same_mac(route.smac, seen->macs + ETH_ALEN))
		return VERDICT_NO_NEXT_HOP;
	if (route.family == AF_INET)
		map_address(seen->next_hop, route.ipv4_dst);
	else
		__builtin_memcpy(seen->next_hop, route.ipv6_dst, sizeof(seen->next_hop));
	overhead = seen->way == WAY_TUNNEL ? ENCAPSULATION : 0;
	if (route.tot_len < seen->mtu + overhead)
		seen->mtu = route.tot_len - overhead;
	return CONTINUE;
}

/* The last packet of the flow left for the same neighbour, and no route has changed since. That the
 * path's MTU has, nothing tells: after a second it is looked up again. */
static __always_inline int went_alike(const struct flow *known, const struct flow *seen, __u64 now)
{
	return now - known->seen_out < HOP_AGE && known->epoch == seen->epoch &&
	       known->ifindex == seen->ifindex && known->nic == seen->nic &&
	       known->hash == seen->hash && known->way == seen->way &&
	       known->source_port == seen->source_port && same_address(known->peer, seen->peer) &&
	       same_mac(known->macs, seen->macs) &&
	       same_mac(known->macs + ETH_ALEN, seen->macs + ETH_ALEN);
}

/* Spares a look-up in the FIB, which takes longer than all else here. */
static __always_inline void take_next_hop(struct flow *seen, const struct flow *known)
{
	__builtin_memcpy(seen->next_hop, known->next_hop, sizeof(seen->next_hop));
	seen->mtu = known->mtu;
}

static __always_inline enum verdict learn(struct __sk_buff *skb, const struct note *note,
					  const struct settings *settings,
					  const struct packet *packet, const struct outer *outer,
					  __u64 now)
{
	const struct peer *peer = peer_of(packet->destination);
	struct match match = {.key = key_before(note), .direction = DIRECTION_OUT};
	enum side side = side_of(note->source, note->destination);
	struct flow *seen;
	enum verdict verdict;

	if (!note->ifindex)
		return VERDICT_NO_POD;
	if (!peer)
		return VERDICT_NO_PEER;
	seen = draft(settings, note->ifindex, side);
	if (!seen)
		return VERDICT_MAP_FULL;
	match.flow = flow_of(&match.key, side);
	set_translation(seen, note, packet, DIRECTION_OUT);
	verdict = compare(note, settings, packet, seen->translated, 1);
	if (verdict != CONTINUE)
		return verdict;
	if (skb->mark || skb->priority != priority_of(packet->ip.tos))
		return VERDICT_MARKED;
	if (peer->way == WAY_TUNNEL ? !outer || !is_our_outer(outer, packet, settings, peer)
				    : !!outer)
		return VERDICT_OTHER_OUTER;
	describe_peer(seen, peer);
	seen->nic = skb->ifindex;
	seen->hash = skb->hash;
	bpf_skb_load_bytes(skb, 0, seen->macs, sizeof(seen->macs));
	if (outer)
		seen->source_port = outer->udp.source;
	if (match.flow && went_alike(match.flow, seen, now)) {
		take_next_hop(seen, match.flow);
	} else {
		verdict = outer ? find_next_hop(skb, &outer->ip, outer->udp.source, outer->udp.dest,
						seen)
				: find_next_hop(skb, &packet->ip, packet->source_port,
						packet->destination_port, seen);
		/* The LRU may have given the record away while the FIB was asked. */
		match.flow = match.flow ? flow_of(&match.key, side) : 0;
	}
	/* A RST ends a flow wherever it goes. */
	if (verdict != CONTINUE && !is_tcp(packet, TCP_RST_FLAG))
		return verdict;
	return flow_learn(&match, seen, packet, now);
}

static __always_inline enum verdict to_nic_verdict(struct __sk_buff *skb, __u32 stamp)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_now();
	struct cursor at = {.skb = skb};
	const struct note *note = note_of(stamp);
	struct packet packet = {};
	struct outer outer = {};
	__u32 room = skb->len - sizeof(struct ethhdr);
	int is_tunnel;
	enum verdict verdict;

	if (!settings || !is_served(settings, now))
		return VERDICT_NO_AGENT;
	verdict = parse_outer(&at, &outer);
	is_tunnel = verdict == CONTINUE;
	if (is_tunnel) {
		verdict = check_outer(skb, &outer);
		room -= ENCAPSULATION;
	} else if (verdict == VERDICT_NOT_OVERLAY) {
		at.offset = 0;
		verdict = CONTINUE;
	}
	if (verdict == CONTINUE)
		verdict = parse_addresses(&at, &packet);
	if (verdict == CONTINUE)
		verdict = parse_transport(&at, &packet, room);
	if (verdict != CONTINUE)
		return verdict;
	if (!note)
		return VERDICT_NO_STAMP;
	verdict = learn(skb, note, settings, &packet, is_tunnel ? &outer : 0, now);
	return count_outside(note, verdict);
}

int to_nic(struct __sk_buff *skb)
{
	__u32 stamp = take_stamp(skb);

	/* Most of what leaves is not the kernel path's work for a pod: no counter, no clock. */
	if (!stamp)
		return TC_ACT_UNSPEC;
	return conclude(skb, PROGRAM_TO_NIC, to_nic_verdict(skb, stamp), skb->len);
}
