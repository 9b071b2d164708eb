/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of the host end of a pod's veth: only the kernel path comes here,
 * after NAT was undone and policy has spoken. Learns the inbound half of the
 * pod's flow, and for a sender on this node the outbound half of the sender's.
 */
#include "flow.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"

static __always_inline enum verdict to_pod_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_at(now);
	struct cursor at = {.skb = skb};
	struct packet packet = {};
	const struct pod *receiver, *sender;
	enum verdict verdict;

	if (!settings)
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
	if (is_translated(skb, settings, &packet))
		return VERDICT_TRANSLATED;
	sender = pod_of(packet.source);
	if (sender)
		flow_learn(settings, &packet, sender, DIRECTION_OUT, now);
	else if (!peer_of(packet.source))
		return VERDICT_NO_PEER;
	return flow_learn(settings, &packet, receiver, DIRECTION_IN, now);
}

int to_pod(struct __sk_buff *skb)
{
	return conclude(PROGRAM_TO_POD, to_pod_verdict(skb), skb->len);
}
