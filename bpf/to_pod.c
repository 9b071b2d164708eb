/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of the host end of a pod's veth: only the kernel path comes here,
 * after NAT was undone and policy has spoken. Learns the inbound half of the
 * pod's flow, or what a pod of this node has sent to it.
 */
#include "learn.h"
#include "note.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"

/* The record of a packet that one pod of this node sent to another: of the flow as its sender has
 * it, or, where it is an answer, as its receiver does. */
static __always_inline struct match find_switched(const struct note *note,
						  const struct packet *packet)
{
	struct match match = {.key = key_before(note), .direction = DIRECTION_OUT};
	struct flow_key after = key_of(packet);
	struct flow *flow = flows.lookup(&match.key);

	if (flow && flow->side == side_of(note->source, note->destination)) {
		match.flow = flow;
		return match;
	}
	if (!same_key(&match.key, &after))
		flow = flows.lookup(&after);
	if (!flow || flow->way != WAY_LOCAL ||
	    flow->side != side_of(packet->destination, packet->source))
		return match;
	match.key = after;
	match.flow = flow;
	match.direction = DIRECTION_IN;
	return match;
}

static __always_inline enum verdict from_neighbour(const struct note *note,
						   const struct settings *settings,
						   const struct packet *packet,
						   const struct pod *receiver, __u64 now)
{
	struct match match = find_switched(note, packet);
	enum end sender = sender_of(match.direction);
	struct flow_key behind;
	enum verdict verdict;
	struct flow *seen;
	__u8 hops;

	if (sender == END_POD)
		seen = draft(settings, note->ifindex, side_of(note->source, note->destination));
	else
		seen = draft(settings, receiver->ifindex,
			     side_of(packet->destination, packet->source));
	if (!seen)
		return VERDICT_MAP_FULL;
	seen->way = WAY_LOCAL;
	seen->nic = sender == END_POD ? receiver->ifindex : note->ifindex;
	set_translation(seen, note, packet, match.direction);
	/* The bridge forwards no hop. To a Service a pod sends by way of the gateway, and whether
	 * that routes or bridges is br_netfilter's choice. */
	hops = seen->translated && note->ttl != packet->ip.ttl;
	verdict = compare(note, settings, packet, seen->translated, hops);
	if (verdict != CONTINUE)
		return verdict;
	/* A pod that is its own neighbour needs the bridge's hairpin. */
	if (note->ifindex == receiver->ifindex || !same_mac(packet->eth.h_dest, receiver->mac))
		return VERDICT_CHANGED;
	if (seen->translated) {
		seen->routed = (hops ? sender : 0) | (note->by_gateway ? TO_GATEWAY(sender) : 0);
		__builtin_memcpy(source_of(seen, sender), packet->eth.h_source, ETH_ALEN);
		behind = sender == END_POD ? key_of(packet) : key_before(note);
		remember_translation(&match.key, &behind);
	}
	return flow_learn(&match, seen, packet, now);
}

static __always_inline enum verdict from_peer(const struct note *note,
					      const struct settings *settings,
					      const struct packet *packet,
					      const struct pod *receiver, __u64 now)
{
	struct match match = {.key = key_of(packet), .direction = DIRECTION_IN};
	enum side side = side_of(packet->destination, packet->source);
	struct flow *seen = draft(settings, receiver->ifindex, side);
	const struct peer *peer = peer_of(note->source);
	struct flow_key behind = key_before(note);
	enum verdict verdict;

	if (!peer)
		return VERDICT_NO_PEER;
	if (!seen)
		return VERDICT_MAP_FULL;
	match.flow = flow_of(&match.key, side);
	set_translation(seen, note, packet, DIRECTION_IN);
	verdict = compare(note, settings, packet, seen->translated, 1);
	if (verdict != CONTINUE)
		return verdict;
	/* What the pod sent has shown the translation first. Whoever sends to the pod can't bring
	 * one about, by notes that overwrite those of others. */
	if (seen->translated && !is_known_translation(match.flow, seen))
		return VERDICT_CHANGED;
	describe_peer(seen, peer);
	if (seen->translated)
		remember_translation(&match.key, &behind);
	return flow_learn(&match, seen, packet, now);
}

static __always_inline enum verdict to_pod_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_now();
	const struct note *note = note_of(take_stamp(skb));
	struct cursor at = {.skb = skb};
	struct packet packet = {};
	const struct pod *receiver;
	enum verdict verdict;

	if (!settings || !is_served(settings, now))
		return VERDICT_NO_AGENT;
	if (!note)
		return VERDICT_NO_STAMP;
	verdict = parse_addresses(&at, &packet);
	if (verdict != CONTINUE)
		return verdict;
	receiver = pod_of(packet.destination);
	if (!receiver || receiver->ifindex != skb->ifindex)
		return VERDICT_NO_POD;
	verdict = parse_transport(&at, &packet, skb->len - sizeof(packet.eth));
	/* A pod's flow may consist of BIG TCP alone, and its approval is to be renewed. */
	if (verdict != CONTINUE && verdict != VERDICT_BIG_TCP)
		return verdict;
	if (note->ifindex)
		verdict = from_neighbour(note, settings, &packet, receiver, now);
	else
		verdict = from_peer(note, settings, &packet, receiver, now);
	return count_outside(note, verdict);
}

int to_pod(struct __sk_buff *skb)
{
	return conclude(skb, PROGRAM_TO_POD, to_pod_verdict(skb), skb->len);
}
