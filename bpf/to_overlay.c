/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of the VXLAN device (flannel.1), and of the NIC where peers are reached
 * without a tunnel. What the kernel path sends comes here, after NAT and policy.
 * Learns the outbound half of a pod's flow.
 */
#include "flow.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"

static __always_inline enum verdict to_overlay_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_at(now);
	struct cursor at = {.skb = skb};
	struct packet packet = {};
	const struct pod *sender;
	enum verdict verdict;

	if (!settings)
		return VERDICT_NO_AGENT;
	if (skb->mark == MARK) {
		skb->mark = 0;
		return VERDICT_MARKED;
	}
	verdict = parse_addresses(&at, &packet);
	if (verdict != CONTINUE)
		return verdict;
	sender = pod_of(packet.source);
	if (!sender)
		return VERDICT_NO_POD;
	if (!peer_of(packet.destination))
		return VERDICT_NO_PEER;
	verdict = parse_transport(&at, &packet, skb->len - sizeof(packet.eth));
	if (verdict != CONTINUE)
		return verdict;
	if (is_translated(skb, settings, &packet))
		return VERDICT_TRANSLATED;
	return flow_learn(settings, &packet, sender, DIRECTION_OUT, now);
}

int to_overlay(struct __sk_buff *skb)
{
	return conclude(PROGRAM_TO_OVERLAY, to_overlay_verdict(skb), skb->len);
}
