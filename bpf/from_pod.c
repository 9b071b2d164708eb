/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of the host end of a pod's veth: all that the pod sends.
 * Leaves by the NIC towards a peer, encapsulated unless the peer is on our link;
 * or straight into another pod of this node; or, when in doubt, by the kernel path.
 */
#include "carried.h"
#include "connection.h"
#include "conntrack.h"
#include "flow.h"
#include "helpers.h"
#include "nat.h"
#include "note.h"
#include "pod.h"
#include "route.h"
#include "settings.h"
#include "verdict.h"
#include "vxlan.h"

/* A container with several interfaces may answer by another one than it was asked by. */
static __always_inline enum verdict
check_owner(const struct __sk_buff *skb, const struct packet *packet, const struct pod *sender)
{
	__u32 ifindex = skb->ifindex;
	const struct address *address = interfaces.lookup(&ifindex);
	const struct pod *pod = address ? pods.lookup((struct address *)address) : 0;

	if (!pod || pod->ifindex != ifindex || pod->owner != sender->owner)
		return VERDICT_SPOOFED_ADDRESS;
	if (!same_mac(pod->mac, packet->eth.h_source))
		return VERDICT_SPOOFED_MAC;
	return VERDICT_OTHER_INTERFACE;
}

static __always_inline enum verdict
check_sender(const struct __sk_buff *skb, const struct packet *packet, const struct pod *sender)
{
	if (!sender)
		return VERDICT_SPOOFED_ADDRESS;
	if (sender->ifindex != skb->ifindex)
		return check_owner(skb, packet, sender);
	if (!same_mac(sender->mac, packet->eth.h_source))
		return VERDICT_SPOOFED_MAC;
	return CONTINUE;
}

/* A tunnel that a pod makes by hand has the node's own outer address once it is masqueraded, and
 * no receiver can tell it from the node's. `at` stands behind an IP header without options;
 * `otherwise` is what holds of any other packet. */
static __always_inline enum verdict
check_forgery(const struct cursor *at, const struct packet *packet, enum verdict otherwise)
{
	struct cursor transport = *at;
	struct udphdr udp;

	if (packet->ip.protocol != IPPROTO_UDP || (packet->ip.frag_off & IP_OFFSET))
		return otherwise;
	transport.offset += (packet->ip.ihl - 5) * 4;
	if (take(&transport, &udp, sizeof(udp)) || udp.dest != VXLAN_PORT)
		return otherwise;
	return VERDICT_FORGED_TUNNEL;
}

/* Netfilter hears what a pod sends as what its bridge receives, whether that routes or bridges it.
 */
static __always_inline long show_as_sent(struct __sk_buff *skb, struct packet *packet,
					 const struct pod *sender)
{
	long refused = show_conntrack(skb, sender->bridge);

	/* bpf_redirect_neigh() drops a frame for a group, and a frame that is handed to a neighbour
	 * untranslated is written no more. */
	bpf_skb_store_bytes(skb, 0, packet->eth.h_dest, ETH_ALEN, 0);
	return refused;
}

/* The frame as it comes out of bridge and netfilter for a pod of this node. */
static __always_inline void rewrite_local(struct __sk_buff *skb, struct packet *packet,
					  const struct pod *receiver, const struct match *match)
{
	enum end sender = sender_of(match->direction);
	struct flow *flow = match->flow;
	struct nat nat =
		sender == END_POD ? nat_out(packet, flow) : nat_in(packet, &match->key, flow->side);
	struct ethhdr eth = packet->eth;

	__builtin_memcpy(eth.h_dest, receiver->mac, ETH_ALEN);
	__builtin_memcpy(eth.h_source, source_of(flow, sender), ETH_ALEN);
	write_frame(skb, &eth, &packet->ip, !!(flow->routed & sender));
	nat_finish(skb, packet, &nat, sizeof(eth) + sizeof(packet->ip));
}

/* Would the receiver's veth take a BIG TCP packet whole? As gso_features_check() of the kernel. */
static __always_inline int takes_whole(const struct pod *receiver, const struct __sk_buff *skb)
{
	return skb->len < receiver->gso_size && skb->gso_segs <= receiver->gso_segs;
}

/* The bridge would hand a frame over unchanged, if it is not translated, and so do we. */
static __always_inline enum verdict to_local_pod(struct __sk_buff *skb, struct packet *packet,
						 const struct pod *sender,
						 const struct settings *settings,
						 const struct match *match)
{
	const struct pod *receiver = pod_of(receiver_address(packet, match));
	enum end from = sender_of(match->direction);
	const struct flow *flow = match->flow;

	if (!receiver || receiver->bridge != sender->bridge || !is_there(receiver))
		return VERDICT_NO_POD;
	if (!is_current(flow, settings, receiver, receiver_of(match->direction)))
		return VERDICT_FLOW_WITHDRAWN;
	/* Routed rather than bridged, or the other way round, or hairpin to itself. */
	if (!same_mac(packet->eth.h_dest,
		      flow->routed & TO_GATEWAY(from) ? sender->gateway_mac : receiver->mac) ||
	    receiver == sender)
		return VERDICT_OTHER_MAC;
	/* The bridge alone does not look at it. */
	if ((flow->routed & from) && packet->ip.ttl <= 1)
		return VERDICT_TTL;
	if (is_judged(settings, receiver))
		return VERDICT_JUDGED;
	if (is_guarded(receiver, packet, GUARD_TO_POD))
		return VERDICT_GUARDED;
	if (!fits(skb, packet, receiver->mtu))
		return VERDICT_TOO_BIG;
	if (!packet->ip.tot_len && !takes_whole(receiver, skb))
		return VERDICT_BIG_TCP;
	/* What is translated was routed, so netfilter has it in any case. */
	if (is_to_be_shown(packet, flow) && (sender->bridge_netfilter || flow->translated) &&
	    show_as_sent(skb, packet, sender))
		return VERDICT_TCP_CONTROL;
	if (flow->translated)
		rewrite_local(skb, packet, receiver, match);
	enter_pod(skb, receiver);
	return VERDICT_SWITCHED;
}

static __always_inline enum verdict to_peer(struct __sk_buff *skb, struct packet *packet,
					    const struct pod *sender,
					    const struct settings *settings,
					    const struct flow *flow)
{
	/* An IPv4 address is the first word of the union. Named ipv4_nh, the other words may stay
	 * as they are on the stack, which clang 18 does and 5.15 refuses to read. */
	struct bpf_redir_neigh hop = {.nh_family = AF_INET, .ipv6_nh = {flow->next_hop[3]}};
	__u32 transport = sizeof(packet->eth) + sizeof(packet->ip);
	enum verdict verdict = VERDICT_ROUTED;
	__u32 bytes = skb->len;
	struct nat nat = {};

	/* Any other destination is a router that the pod chose, not the node. */
	if (!same_mac(packet->eth.h_dest, sender->gateway_mac))
		return VERDICT_OTHER_MAC;
	if (packet->ip.ttl <= 1)
		return VERDICT_TTL;
	if (!fits(skb, packet, flow->mtu))
		return VERDICT_TOO_BIG;
	/* The kernel computes skb->hash from the 5-tuple where the socket set none; until then it
	 * is 0. A socket sets another after a timeout, to try another path (sk_rethink_txhash()).
	 */
	if (skb->hash && skb->hash != flow->hash)
		return VERDICT_FLOW_REHASHED;
	if (is_to_be_shown(packet, flow) && show_as_sent(skb, packet, sender))
		return VERDICT_TCP_CONTROL;
	if (flow->translated)
		nat = nat_out(packet, flow);
	if (flow->way == WAY_TUNNEL) {
		verdict = vxlan_push(skb, packet, settings, flow);
		transport += ENCAPSULATION;
	} else {
		write_frame(skb, &packet->eth, &packet->ip, 1);
	}
	if (!is_bypassed(verdict))
		return verdict;
	if (flow->translated)
		nat_finish(skb, packet, &nat, transport);
	if (!is_mapped(flow->next_hop)) {
		hop.nh_family = AF_INET6;
		__builtin_memcpy(hop.ipv6_nh, flow->next_hop, sizeof(hop.ipv6_nh));
	}
	leave_node(skb, packet->ip.tos, flow->hash);
	redirect_neigh(flow->nic, &hop, sizeof(hop), 0);
	count_sent(flow, bytes);
	return verdict;
}

/* What keeps a packet that has no record from ever getting one, if anything does. */
static __always_inline enum verdict without_record(const struct packet *packet,
						   const struct pod *sender)
{
	const struct pod *receiver;

	if (peer_of(packet->destination))
		return VERDICT_FLOW_UNKNOWN;
	receiver = pod_of(packet->destination);
	return receiver && receiver->bridge == sender->bridge ? VERDICT_FLOW_UNKNOWN
							      : VERDICT_NO_PEER;
}

static __always_inline enum verdict send_by_record(struct __sk_buff *skb, struct packet *packet,
						   const struct pod *sender,
						   const struct settings *settings,
						   const struct match *match, __u64 now)
{
	struct flow *flow = match->flow;
	enum verdict verdict;

	if (!flow)
		return without_record(packet, sender);
	if (!is_current(flow, settings, sender, sender_of(match->direction)))
		return VERDICT_FLOW_WITHDRAWN;
	verdict = flow_admit(settings, packet, match, now);
	if (verdict != CONTINUE)
		return verdict;
	if (flow->way == WAY_LOCAL)
		verdict = to_local_pod(skb, packet, sender, settings, match);
	else
		verdict = to_peer(skb, packet, sender, settings, flow);
	if (!is_bypassed(verdict))
		return verdict;
	flow_use(settings, flow, packet, match->direction, now);
	return flow->translated ? VERDICT_NAT : verdict;
}

static __always_inline enum verdict send_or_note(struct __sk_buff *skb, struct packet *packet,
						 const struct pod *sender,
						 const struct settings *settings,
						 const struct match *match, __u64 now)
{
	enum verdict verdict;

	if (is_judged(settings, sender))
		return VERDICT_JUDGED;
	if (is_guarded(sender, packet, GUARD_FROM_POD))
		return VERDICT_GUARDED;
	if (is_tcp_control(packet))
		verdict = VERDICT_TCP_CONTROL;
	else
		verdict = send_by_record(skb, packet, sender, settings, match, now);
	if (!is_bypassed(verdict) && is_teaching(packet, match->flow, DIRECTION_OUT))
		note_down(skb, settings, packet, skb->ifindex, verdict == VERDICT_NO_PEER,
			  same_mac(packet->eth.h_dest, sender->gateway_mac));
	return verdict;
}

static __always_inline enum verdict from_pod_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_now();
	struct cursor at = {.skb = skb};
	struct packet packet = {};
	const struct pod *sender;
	struct match match;
	enum verdict verdict;
	int is_last;

	take_stamp(skb);
	if (!settings || !has_identities(settings, now))
		return VERDICT_NO_AGENT;
	verdict = parse_addresses(&at, &packet);
	if (verdict != CONTINUE)
		return verdict;
	sender = pod_of(packet.source);
	verdict = check_sender(skb, &packet, sender);
	/* Also what a container sends by another interface of its own may be a tunnel. */
	if (verdict == CONTINUE || verdict == VERDICT_OTHER_INTERFACE)
		verdict = check_forgery(&at, &packet, verdict);
	if (verdict != CONTINUE || !sender)
		return verdict;
	if (!is_served(settings, now))
		return VERDICT_NO_AGENT;
	if (skb->mark)
		return VERDICT_MARKED;
	verdict = parse_transport(&at, &packet, skb->len - sizeof(packet.eth));
	if (verdict != CONTINUE && verdict != VERDICT_BIG_TCP)
		return verdict;
	find_flow(&packet, &match);
	/* What a record says of who sends from elsewhere is not true of a pod of ours. */
	if (match.flow && match.direction == DIRECTION_IN && match.flow->way != WAY_LOCAL)
		match.flow = 0;
	is_last = flow_turn(&packet, &match);
	if (verdict == VERDICT_BIG_TCP && !takes_big(match.flow))
		return verdict;
	verdict = VERDICT_TCP_CONTROL;
	if (!is_last || !settings->heard)
		verdict = send_or_note(skb, &packet, sender, settings, &match, now);
	if (is_last)
		flow_end(&match);
	return verdict;
}

int from_pod(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;

	return conclude(skb, PROGRAM_FROM_POD, from_pod_verdict(skb), bytes);
}
