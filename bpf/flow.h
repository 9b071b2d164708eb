/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flow admission: a direction may be bypassed when the very same 5-tuple that
 * the program looks up has come out of the kernel path on this node, and only
 * as what it came out as.
 *
 * A packet that a NetworkPolicy drops never comes out. One that netfilter translates comes out as
 * another flow. Its record holds both: the key is the flow as its pod has it, nat_... is the same
 * flow behind netfilter.
 */
#ifndef VXLANE_FLOW_H
#define VXLANE_FLOW_H

#include "maps.h"
#include "parse.h"

#define USED_PRECISION 1000000000 /* ns: how exact flow.used is */
/* ns. kube-proxy deletes the conntrack entries of a backend that goes, of which nothing tells: so a
 * translated datagram goes by the kernel path about once a second. TCP's entries are left alone. */
#define BACKEND_AGE 900000000

enum direction {
	DIRECTION_OUT, /* from the local pod */
	DIRECTION_IN,
};

static __always_inline struct flow_key make_key(const __be32 source[4], const __be32 destination[4],
						__be16 source_port, __be16 destination_port,
						__u8 protocol, enum direction direction)
{
	struct flow_key key = {.protocol = protocol};
	const __be32 *local = direction == DIRECTION_OUT ? source : destination;
	const __be32 *remote = direction == DIRECTION_OUT ? destination : source;

	__builtin_memcpy(key.local, local, sizeof(key.local));
	__builtin_memcpy(key.remote, remote, sizeof(key.remote));
	if (protocol == IPPROTO_ICMP) {
		/* Who asks is part of the key: a policy may let A ping B, not B ping A. */
		__u8 type = cpu16(destination_port);
		__u8 sent = direction == DIRECTION_OUT ? type : ICMP_ECHO_REQUEST - type;
		key.local_port = source_port;
		key.remote_port = be16(sent);
	} else if (direction == DIRECTION_OUT) {
		key.local_port = source_port;
		key.remote_port = destination_port;
	} else {
		key.local_port = destination_port;
		key.remote_port = source_port;
	}
	return key;
}

static __always_inline struct flow_key key_of(const struct packet *packet, enum direction direction)
{
	return make_key(packet->source, packet->destination, packet->source_port,
			packet->destination_port, packet->ip.protocol, direction);
}

static __always_inline int same_key(const struct flow_key *a, const struct flow_key *b)
{
	return a->local_port == b->local_port && a->remote_port == b->remote_port &&
	       a->protocol == b->protocol && same_address(a->local, b->local) &&
	       same_address(a->remote, b->remote);
}

static __always_inline int is_behind(const struct flow *flow, const struct flow_key *key)
{
	return flow->nat_local_port == key->local_port &&
	       flow->nat_remote_port == key->remote_port &&
	       same_address(flow->nat_local, key->local) &&
	       same_address(flow->nat_remote, key->remote);
}

static __always_inline int is_tcp(const struct packet *packet, __u8 flags)
{
	return packet->ip.protocol == IPPROTO_TCP && (packet->tcp_flags & flags);
}

/* What opens or breaks off a connection is the kernel path's, and so is what carries no ACK. */
static __always_inline int is_tcp_control(const struct packet *packet)
{
	return packet->ip.protocol == IPPROTO_TCP &&
	       ((packet->tcp_flags & TCP_CONTROL_FLAGS) || !(packet->tcp_flags & TCP_ACK_FLAG));
}

/* Does it open a connection? */
static __always_inline int is_opening(const struct packet *packet)
{
	return is_tcp(packet, TCP_SYN_FLAG) && !is_tcp(packet, TCP_ACK_FLAG);
}

/* The record of a packet that comes in from a peer, and its `key`. A peer sends a flow as it is
 * behind netfilter. The same 5-tuple may be another flow of the pod's, which netfilter has moved to
 * another port because of this one. */
static __always_inline struct flow *flow_entering(const struct packet *packet, struct flow_key *key)
{
	struct flow_key behind = key_of(packet, DIRECTION_IN);
	struct flow *flow = flows.lookup(&behind);
	const struct flow_key *found;

	*key = behind;
	if (flow && !flow->translated)
		return flow;
	/* What a peer opens has no translation: that is learned of what the pod sends. */
	if (is_opening(packet))
		return 0;
	found = translations.lookup(&behind);
	if (!found)
		return 0;
	*key = *found;
	flow = flows.lookup(key);
	/* The pod may have used the port for another flow since. */
	if (flow && is_behind(flow, &behind))
		return flow;
	*key = behind;
	return 0;
}

/* May a BIG TCP packet take the flow's way? Only the bridge hands one on as it is: a tunnel's
 * headers can't tell its length, and a routed one leaves by a device with limits of its own. */
static __always_inline int takes_big(const struct flow *flow)
{
	return flow && flow->way == WAY_LOCAL && !flow->translated;
}

static __always_inline int is_current(const struct flow *flow, const struct settings *settings,
				      const struct pod *pod)
{
	return flow->epoch == settings->epoch && flow->ifindex == pod->ifindex;
}

/* Is it the ACK of a handshake whose SYN and SYN-ACK have come out of the kernel path, and which no
 * rule drops? One may let a SYN pass and drop what follows. */
static __always_inline int is_handshake_ack(const struct settings *settings,
					    const struct packet *packet, const struct flow *flow,
					    enum direction direction)
{
	return direction == DIRECTION_OUT && flow->opener == (END_POD | ANSWERED) &&
	       !settings->heard && !settings->may_drop && !packet->payload &&
	       !is_tcp(packet, TCP_FIN_FLAG) && packet->sequence == flow->sent &&
	       packet->acknowledged == flow->received;
}

static __always_inline int is_open(const struct settings *settings, const struct packet *packet,
				   const struct flow *flow, enum direction direction)
{
	if (packet->ip.protocol == IPPROTO_TCP)
		return flow->open || is_handshake_ack(settings, packet, flow, direction);
	return flow->confirmed || !flow->translated;
}

/* On the way in to the bypass, for a packet that is no connection control. */
static __always_inline enum verdict flow_admit(const struct settings *settings,
					       const struct packet *packet, const struct pod *pod,
					       const struct flow *flow, enum direction direction,
					       __u64 now)
{
	__u64 this, other, longest;
	int needs_both = packet->ip.protocol != IPPROTO_UDP || flow->translated == TRANSLATED_LOCAL;

	if (flow->translated && settings->judged_nat)
		return VERDICT_JUDGED;
	if (!is_current(flow, settings, pod))
		return VERDICT_FLOW_WITHDRAWN;
	this = direction == DIRECTION_OUT ? flow->seen_out : flow->seen_in;
	other = direction == DIRECTION_OUT ? flow->seen_in : flow->seen_out;
	if (!this || (!other && needs_both))
		return VERDICT_FLOW_HALF;
	if (!is_open(settings, packet, flow, direction))
		return VERDICT_FLOW_HALF;
	/* Older than its conntrack entry an approval must not be: netfilter would
	 * take the next packet for the first one of a new flow. */
	longest = packet->ip.protocol == IPPROTO_TCP ? settings->revalidate
						     : settings->revalidate_datagram;
	if (packet->ip.protocol == IPPROTO_UDP && flow->translated && longest > BACKEND_AGE)
		longest = BACKEND_AGE;
	if (now - this >= longest)
		return VERDICT_FLOW_AGED;
	/* UDP is approved each way by itself, unless the pod goes by another name: what comes back
	 * to the pod tells that the name is its own. */
	if (needs_both && now - other >= longest)
		return VERDICT_FLOW_AGED;
	return CONTINUE;
}

/* The sequence number behind a segment. A SYN takes one of its own, and so does a FIN. */
static __always_inline __u32 sequence_behind(const struct packet *packet)
{
	return packet->sequence + packet->payload + !!is_tcp(packet, TCP_SYN_FLAG) +
	       !!is_tcp(packet, TCP_FIN_FLAG);
}

/* How far each side has got: what tells a RST of the connection from a forged one. `before`: when
 * this half was seen before, 0 = never. */
static __always_inline void track(struct flow *flow, const struct packet *packet,
				  enum direction direction, __u64 before)
{
	__u32 *reached = direction == DIRECTION_OUT ? &flow->sent : &flow->received;
	__u32 end = sequence_behind(packet);

	if (!before || (__s32)(end - *reached) > 0)
		*reached = end;
}

/* A packet of the flow is bypassed. */
static __always_inline void flow_use(struct flow *flow, const struct packet *packet,
				     enum direction direction, __u64 now)
{
	if (packet->ip.protocol == IPPROTO_TCP) {
		track(flow, packet, direction, now);
		if (!flow->open)
			flow->open = 1;
	}
	/* A line that two CPUs write travels between them: not for every packet. What is half
	 * closed keeps the timeout that conntrack gave it. */
	if (!flow->closing && now - flow->used >= USED_PRECISION)
		flow->used = now;
}

#endif
