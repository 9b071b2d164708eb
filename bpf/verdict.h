/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The only writer of counters, and the only place where a verdict becomes a TC
 * action. */
#ifndef VXLANE_VERDICT_H
#define VXLANE_VERDICT_H

#include <linux/pkt_cls.h>

#include "maps.h"
#include "node.h"

static __always_inline int is_bypassed(enum verdict verdict)
{
	return verdict <= VERDICT_NAT;
}

static __always_inline int action_of(enum verdict verdict)
{
	if (is_bypassed(verdict))
		return TC_ACT_REDIRECT;
	if (STRICT && verdict >= VERDICT_SPOOFED_ADDRESS && verdict <= VERDICT_TAGS)
		return TC_ACT_SHOT;
	/* Not OK: that would end the chain, and others have programs here too. */
	return TC_ACT_UNSPEC;
}

static __always_inline int conclude(struct __sk_buff *skb, enum program program,
				    enum verdict verdict, __u32 bytes)
{
	__u32 index = program * VERDICT_COUNT + verdict;
	struct counter *counter = counters.lookup(&index);
	int action = action_of(verdict);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
	/* Whoever looks takes over here and gives the action for us: trace.c. cb is free for all
	 * who have the packet in turn; none expects anything there. */
	skb->cb[0] = index;
	skb->cb[1] = action;
	tracer.call(skb, 0);
	return action;
}

static __always_inline void count_sent(const struct flow *flow, __u32 bytes)
{
	__u32 slot = flow->slot;
	struct peer_counter *counter = peer_counters.lookup(&slot);

	if (counter) {
		counter->tx_packets++;
		counter->tx_bytes += bytes;
	}
}

static __always_inline void count_received(const struct flow *flow, __u32 bytes)
{
	__u32 slot = flow->slot;
	struct peer_counter *counter = peer_counters.lookup(&slot);

	if (counter) {
		counter->rx_packets++;
		counter->rx_bytes += bytes;
	}
}

#endif
