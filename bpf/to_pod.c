/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of the host end of a pod's veth: only the kernel path comes here,
 * after NAT was undone and policy has spoken. Learns the inbound half of the
 * pod's flow, and for a sender on this node the outbound half of the sender's.
 */
#include "learn.h"
#include "note.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"

/* Two records learn of one packet: its sender's and its receiver's. */
static __always_inline enum verdict from_neighbour(const struct note *note,
						   const struct settings *settings,
						   const struct packet *packet,
						   const struct pod *receiver, __u64 now)
{
	struct flow_key out = key_before(note, DIRECTION_OUT), in = key_of(packet, DIRECTION_IN);
	struct flow_key behind = key_of(packet, DIRECTION_OUT);
	struct flow *seen = draft(settings, note->ifindex), *known;
	enum verdict verdict;

	if (!seen)
		return VERDICT_MAP_FULL;
	set_behind(seen, &out, &behind);
	/* The bridge forwards no hop. To a Service a pod sends by way of the gateway, and whether
	 * that routes or bridges is br_netfilter's choice. */
	seen->hops = seen->translated && note->ttl != packet->ip.ttl;
	verdict = compare(note, settings, packet, seen->translated, seen->hops);
	if (verdict != CONTINUE)
		return verdict;
	/* A pod that is its own neighbour needs the bridge's hairpin. */
	if (note->ifindex == receiver->ifindex || !same_mac(packet->eth.h_dest, receiver->mac))
		return VERDICT_CHANGED;
	seen->way = WAY_LOCAL;
	seen->by_gateway = note->by_gateway;
	__builtin_memcpy(seen->mac, packet->eth.h_source, ETH_ALEN);
	verdict = flow_learn(&out, flows.lookup(&out), seen, packet, DIRECTION_OUT, now);
	known = flows.lookup(&in);
	/* The ACK behind a SYN tells the receiver's record as much, see open_beyond(). */
	if (is_opening(packet)) {
		if (known)
			turn(&in, known, packet, DIRECTION_IN);
		return verdict;
	}
	behind = key_before(note, DIRECTION_IN);
	seen = draft(settings, receiver->ifindex);
	if (!seen)
		return VERDICT_MAP_FULL;
	set_behind(seen, &in, &behind);
	seen->way = WAY_LOCAL;
	return flow_learn(&in, known, seen, packet, DIRECTION_IN, now);
}

static __always_inline enum verdict from_peer(const struct note *note,
					      const struct settings *settings,
					      const struct packet *packet,
					      const struct pod *receiver, __u64 now)
{
	struct flow_key behind = key_before(note, DIRECTION_IN), key = key_of(packet, DIRECTION_IN);
	struct flow *seen = draft(settings, receiver->ifindex), *known = flows.lookup(&key);
	const struct peer *peer = peer_of(note->source);
	enum verdict verdict;

	if (!peer)
		return VERDICT_NO_PEER;
	if (!seen)
		return VERDICT_MAP_FULL;
	set_behind(seen, &key, &behind);
	verdict = compare(note, settings, packet, seen->translated, 1);
	if (verdict != CONTINUE)
		return verdict;
	/* What the pod sent has shown the translation first. Whoever sends to the pod can't bring
	 * one about, by notes that overwrite those of others. */
	if (seen->translated && !is_known_translation(known, seen))
		return VERDICT_CHANGED;
	describe_peer(seen, peer);
	if (seen->translated)
		remember_translation(&key, &behind);
	return flow_learn(&key, known, seen, packet, DIRECTION_IN, now);
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
