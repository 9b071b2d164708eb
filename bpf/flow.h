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

/* Connection control is conntrack's to see, and so is what carries no ACK. */
static __always_inline int is_tcp_control(const struct packet *packet)
{
	return packet->ip.protocol == IPPROTO_TCP &&
	       ((packet->tcp_flags & TCP_CONTROL_FLAGS) || !(packet->tcp_flags & TCP_ACK_FLAG));
}

/* On the way in to the bypass. Answers VERDICT_LEARNED: the flow is approved. */
static __always_inline enum verdict flow_admit(const struct settings *settings,
					       const struct packet *packet,
					       enum direction direction, __u64 now)
{
	struct flow_key key = key_of(packet, direction);
	const struct flow *flow;
	__u64 this, other;

	if (is_tcp_control(packet)) {
		/* The end or the beginning of a connection: from here on conntrack
		 * must see every packet until both halves are learned again. Two pods
		 * of one node share a conntrack entry, so both their records go. */
		struct flow_key mirror = key_of(packet, !direction);

		flows.delete(&key);
		flows.delete(&mirror);
		return VERDICT_TCP_CONTROL;
	}
	flow = flows.lookup(&key);
	if (!flow)
		return VERDICT_FLOW_UNKNOWN;
	if (flow->epoch != settings->epoch)
		return VERDICT_FLOW_WITHDRAWN;
	this = direction == DIRECTION_OUT ? flow->seen_out : flow->seen_in;
	other = direction == DIRECTION_OUT ? flow->seen_in : flow->seen_out;
	if (!this || (!other && packet->ip.protocol != IPPROTO_UDP))
		return VERDICT_FLOW_HALF;
	if (packet->ip.protocol != IPPROTO_UDP && now - other >= settings->revalidate)
		return VERDICT_FLOW_AGED;
	/* One-way UDP and ICMP live in conntrack for 30 s only, whatever `revalidate` is. */
	if (now - this >= settings->revalidate ||
	    ((!other || packet->ip.protocol == IPPROTO_ICMP) &&
	     now - this >= settings->revalidate_half))
		return VERDICT_FLOW_AGED;
	return VERDICT_LEARNED;
}

/* On the way out of the kernel path. */
static __always_inline enum verdict flow_learn(const struct settings *settings,
					       const struct packet *packet,
					       enum direction direction, __u64 now)
{
	struct flow_key key = key_of(packet, direction);
	struct flow *flow;

	if (is_tcp_control(packet))
		return VERDICT_TCP_CONTROL;
	flow = flows.lookup(&key);
	if (flow && flow->epoch == settings->epoch) {
		if (direction == DIRECTION_OUT)
			flow->seen_out = now;
		else
			flow->seen_in = now;
		return VERDICT_LEARNED;
	}

	struct flow fresh = {.epoch = settings->epoch};

	if (direction == DIRECTION_OUT)
		fresh.seen_out = now;
	else
		fresh.seen_in = now;
	return flows.update(&key, &fresh) ? VERDICT_MAP_FULL : VERDICT_LEARNED;
}

#endif
