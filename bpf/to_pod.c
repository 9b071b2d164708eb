/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of the host end of a pod's veth: only the kernel path comes here,
 * after NAT was undone and policy has spoken. Learns the inbound half of the
 * pod's flow, and for a sender on this node the outbound half of the sender's.
 */
#include "flow.h"
#include "note.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"

static __always_inline enum verdict from_neighbour(__u32 stamp, const struct settings *settings,
						   const struct packet *packet,
						   const struct pod *sender,
						   const struct pod *receiver, __u64 now)
{
	struct flow out = {.epoch = settings->epoch, .ifindex = sender->ifindex, .way = WAY_LOCAL};
	struct flow in = out;
	/* The bridge forwards no hop. */
	enum verdict verdict = compare(stamp, settings, packet, 0);

	if (verdict != CONTINUE)
		return verdict;
	in.ifindex = receiver->ifindex;
	flow_learn(&out, packet, DIRECTION_OUT, now);
	return flow_learn(&in, packet, DIRECTION_IN, now);
}

static __always_inline enum verdict from_peer(__u32 stamp, const struct settings *settings,
					      const struct packet *packet,
					      const struct pod *receiver, __u64 now)
{
	struct flow seen = {.epoch = settings->epoch, .ifindex = receiver->ifindex};
	const struct peer *peer = peer_of(packet->source);
	enum verdict verdict = compare(stamp, settings, packet, 1);

	if (!peer && verdict != VERDICT_TRANSLATED)
		return VERDICT_NO_PEER;
	if (verdict != CONTINUE || !peer)
		return verdict;
	describe_peer(&seen, peer);
	return flow_learn(&seen, packet, DIRECTION_IN, now);
}

static __always_inline enum verdict to_pod_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_now();
	struct cursor at = {.skb = skb};
	__u32 stamp = take_stamp(skb);
	struct packet packet = {};
	const struct pod *receiver, *sender;
	enum verdict verdict;

	if (!settings || !is_served(settings, now))
		return VERDICT_NO_AGENT;
	verdict = parse_addresses(&at, &packet);
	if (verdict != CONTINUE)
		return verdict;
	receiver = pod_of(packet.destination);
	if (!receiver || receiver->ifindex != skb->ifindex)
		return VERDICT_NO_POD;
	verdict = parse_transport(&at, &packet, skb->len - sizeof(packet.eth));
	if (verdict != CONTINUE)
		return verdict;
	sender = pod_of(packet.source);
	if (sender)
		return from_neighbour(stamp, settings, &packet, sender, receiver, now);
	return from_peer(stamp, settings, &packet, receiver, now);
}

int to_pod(struct __sk_buff *skb)
{
	return conclude(PROGRAM_TO_POD, to_pod_verdict(skb), skb->len);
}
