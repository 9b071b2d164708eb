/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flow admission: a direction may be bypassed when the very same 5-tuple that
 * the program looks up has come out of the kernel path on this node.
 *
 * A NATed packet goes into netfilter with one tuple and comes out with another,
 * so its look-up never meets the half that its own passage wrote, and it stays
 * on the kernel path. A packet that a NetworkPolicy drops never comes out.
 */
#ifndef VXLANE_FLOW_H
#define VXLANE_FLOW_H

#include "maps.h"
#include "parse.h"

enum direction {
	DIRECTION_OUT, /* from the local pod */
	DIRECTION_IN,
};

static __always_inline struct flow_key key_of(const struct packet *packet, enum direction direction)
{
	const __be32 *local = direction == DIRECTION_OUT ? packet->source : packet->destination;
	const __be32 *remote = direction == DIRECTION_OUT ? packet->destination : packet->source;
	struct flow_key key = {.protocol = packet->ip.protocol};

	__builtin_memcpy(key.local, local, sizeof(key.local));
	__builtin_memcpy(key.remote, remote, sizeof(key.remote));
	if (packet->ip.protocol == IPPROTO_ICMP) {
		/* Who asks is part of the key: a policy may let A ping B, not B ping A. */
		__u8 sent = direction == DIRECTION_OUT ? packet->icmp_type
						       : ICMP_ECHO_REQUEST - packet->icmp_type;
		key.local_port = packet->source_port;
		key.remote_port = be16(sent);
	} else if (direction == DIRECTION_OUT) {
		key.local_port = packet->source_port;
		key.remote_port = packet->destination_port;
	} else {
		key.local_port = packet->destination_port;
		key.remote_port = packet->source_port;
	}
	return key;
}

static __always_inline int is_tcp(const struct packet *packet, __u8 flags)
{
	return packet->ip.protocol == IPPROTO_TCP && (packet->tcp_flags & flags);
}

/* Connection control is conntrack's to see, and so is what carries no ACK. */
static __always_inline int is_tcp_control(const struct packet *packet)
{
	return packet->ip.protocol == IPPROTO_TCP &&
	       ((packet->tcp_flags & TCP_CONTROL_FLAGS) || !(packet->tcp_flags & TCP_ACK_FLAG));
}

/* The beginning or the end of a connection: from here on conntrack must see
 * every packet until both halves are learned again. Two pods of one node share
 * a conntrack entry, so both their records go. A RST may yet be refused by its
 * receiver: it counts once it has come out of the kernel path, see flow_reset(). */
static __always_inline void flow_forget(const struct packet *packet)
{
	struct flow_key out = key_of(packet, DIRECTION_OUT);
	struct flow_key in = key_of(packet, DIRECTION_IN);

	flows.delete(&out);
	flows.delete(&in);
	if (is_tcp(packet, TCP_SYN_FLAG)) {
		resets.delete(&out);
		resets.delete(&in);
	}
}

/* The epoch, addresses and ports in 16 bits, never 0. */
static __always_inline __u16 digest_of(const struct settings *settings, const struct packet *packet)
{
	__u32 sum = settings->epoch << 8 ^ packet->ip.protocol;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		sum = (sum ^ packet->source[i]) * 0x9e3779b1;
		sum = (sum ^ sum >> 15 ^ packet->destination[i]) * 0x85ebca6b;
		sum ^= sum >> 13;
	}
	sum ^= (__u32)packet->source_port << 16 | packet->destination_port;
	sum = (sum * 0x9e3779b1) >> 16;
	return sum ? sum : 1;
}

/* Halves alone don't tell whose they are: a pod may send from one port to a
 * Service and to the backend behind it. netfilter moves one of the two to
 * another port, and what both leave behind would make up a flow that nobody
 * sent. So a packet takes along what it was when it came in, in the one field of
 * an skb that the kernel path keeps and makes no use of. And in which epoch: what
 * the rules let through before they changed must not be approved after that. */
static __always_inline void stamp(struct __sk_buff *skb, const struct settings *settings,
				  const struct packet *packet)
{
	skb->tc_index = digest_of(settings, packet);
}

/* On the way out of the kernel path: has netfilter made another flow of it, or
 * did it come in under other rules?
 * Without a stamp (the filter of someone else has overwritten it, or the packet
 * came by a device that is not ours) the halves alone decide. The field goes on
 * empty: behind a device sch_gred reads it. */
static __always_inline int is_translated(struct __sk_buff *skb, const struct settings *settings,
					 const struct packet *packet)
{
	__u16 stamped = skb->tc_index;

	skb->tc_index = 0;
	return stamped && stamped != digest_of(settings, packet);
}

/* On the way in to the bypass. CONTINUE: the flow is approved. */
static __always_inline enum verdict flow_admit(const struct settings *settings,
					       const struct packet *packet, const struct pod *pod,
					       enum direction direction, __u64 now)
{
	struct flow_key key = key_of(packet, direction);
	const struct flow *flow;
	__u64 this, other, longest;

	if (is_tcp_control(packet)) {
		if (is_tcp(packet, TCP_SYN_FLAG | TCP_FIN_FLAG))
			flow_forget(packet);
		return VERDICT_TCP_CONTROL;
	}
	flow = flows.lookup(&key);
	if (!flow)
		return VERDICT_FLOW_UNKNOWN;
	if (flow->epoch != settings->epoch || flow->ifindex != pod->ifindex)
		return VERDICT_FLOW_WITHDRAWN;
	this = direction == DIRECTION_OUT ? flow->seen_out : flow->seen_in;
	other = direction == DIRECTION_OUT ? flow->seen_in : flow->seen_out;
	if (!this || (!other && packet->ip.protocol != IPPROTO_UDP))
		return VERDICT_FLOW_HALF;
	/* Older than its conntrack entry an approval must not be: netfilter would
	 * take the next packet for the first one of a new flow. */
	longest = packet->ip.protocol == IPPROTO_TCP ? settings->revalidate
						     : settings->revalidate_datagram;
	if (now - this >= longest)
		return VERDICT_FLOW_AGED;
	/* UDP is approved each way by itself. */
	if (packet->ip.protocol != IPPROTO_UDP && now - other >= longest)
		return VERDICT_FLOW_AGED;
	return CONTINUE;
}

/* A RST has come out of the kernel path. conntrack closes an entry on a RST only
 * if its sequence number fits what it saw last, and of a bypassed connection it
 * saw little: the entry would stay ESTABLISHED for days. The agent closes it. */
static __always_inline void flow_reset(struct flow_key *key, __u64 now)
{
	const struct flow *flow = flows.lookup(key);

	if (flow && flow->seen_out && flow->seen_in)
		resets.update(key, &now);
	flows.delete(key);
}

/* On the way out of the kernel path. */
static __always_inline enum verdict flow_learn(const struct settings *settings,
					       const struct packet *packet, const struct pod *pod,
					       enum direction direction, __u64 now)
{
	struct flow_key key = key_of(packet, direction);
	struct flow *flow;

	if (is_tcp(packet, TCP_RST_FLAG))
		flow_reset(&key, now);
	if (is_tcp_control(packet))
		return VERDICT_TCP_CONTROL;
	flow = flows.lookup(&key);
	if (flow && flow->epoch == settings->epoch && flow->ifindex == pod->ifindex) {
		if (direction == DIRECTION_OUT)
			flow->seen_out = now;
		else
			flow->seen_in = now;
		return VERDICT_LEARNED;
	}

	struct flow fresh = {.epoch = settings->epoch, .ifindex = pod->ifindex};

	if (direction == DIRECTION_OUT)
		fresh.seen_out = now;
	else
		fresh.seen_in = now;
	return flows.update(&key, &fresh) ? VERDICT_MAP_FULL : VERDICT_LEARNED;
}

#endif
