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
/* In flow.closing: the other end has acknowledged the FIN of this one. */
#define HEARD(end) ((end) << 2)

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

/* The sequence number behind a segment. A SYN takes one of its own, and so does a FIN. */
static __always_inline __u32 sequence_behind(const struct packet *packet)
{
	return packet->sequence + packet->payload + !!is_tcp(packet, TCP_SYN_FLAG) +
	       !!is_tcp(packet, TCP_FIN_FLAG);
}

static __always_inline void forget_halves(struct flow *flow)
{
	flow->seen_out = 0;
	flow->seen_in = 0;
	flow->used = 0;
	flow->open = 0;
}

/* Who sends what goes this way. */
static __always_inline enum end end_of(enum direction direction)
{
	return direction == DIRECTION_OUT ? END_POD : END_REMOTE;
}

/* The record is still there, see flow_reset(). To look among the resets for each new connection
 * would take a cold line of the cache. */
static __always_inline void forget_reset(struct flow_key *key)
{
	if (resets.lookup(key))
		resets.delete(key);
}

/* Has the packet's sender heard of the other end's FIN? */
static __always_inline int acknowledges_fin(const struct flow *flow, const struct packet *packet,
					    enum direction direction)
{
	return (flow->closing & end_of(DIRECTION_IN - direction)) && !is_tcp_control(packet) &&
	       packet->acknowledged == (direction == DIRECTION_OUT ? flow->received : flow->sent);
}

/* A SYN of the flow is seen, or a FIN or what comes behind one. */
static __always_inline void turn(struct flow_key *key, struct flow *flow,
				 const struct packet *packet, enum direction direction)
{
	if (is_tcp(packet, TCP_SYN_FLAG)) {
		forget_reset(key);
		forget_halves(flow);
		flow->closing = 0;
		return;
	}
	if (is_tcp(packet, TCP_FIN_FLAG)) {
		flow->used = 0;
		flow->closing |= end_of(direction);
		if (direction == DIRECTION_OUT)
			flow->sent = sequence_behind(packet);
		else
			flow->received = sequence_behind(packet);
	}
	if (acknowledges_fin(flow, packet, direction))
		flow->closing |= HEARD(end_of(DIRECTION_IN - direction));
}

/* The key by which the other end's record stands, where that is a pod of this node. */
static __always_inline struct flow_key key_beyond(const struct flow *flow, __u8 protocol)
{
	return make_key(flow->nat_local, flow->nat_remote, flow->nat_local_port,
			flow->nat_remote_port, protocol, DIRECTION_IN);
}

/* Both sides have closed: no record serves the connection any more. Its element is the first that
 * the CPU gives away that made it, and so in the cache when the next connection begins there. */
static __always_inline void flow_end(struct flow_key *key, const struct flow *flow)
{
	const struct flow_key *found;
	struct flow_key behind = make_key(flow->nat_local, flow->nat_remote, flow->nat_local_port,
					  flow->nat_remote_port, key->protocol, DIRECTION_OUT);
	struct flow_key beyond = key_beyond(flow, key->protocol);

	found = flow->translated ? translations.lookup(&behind) : 0;
	/* conntrack may have given the 5-tuple to another flow since. */
	if (found && same_key(found, key))
		translations.delete(&behind);
	if (flow->way == WAY_LOCAL)
		flows.delete(&beyond);
	flows.delete(key);
}

/* The beginning or the end of a connection: of one that begins conntrack must see every packet
 * until both halves are learned, of one that ends it is shown copies (conntrack.h). Two pods
 * of one node share a conntrack entry, so both their records are told. A RST may yet be refused by
 * its receiver: it counts once it has come out of the kernel path, see flow_reset(). */
static __always_inline void flow_open_or_close(const struct packet *packet, struct flow_key *key,
					       struct flow *flow, enum direction direction)
{
	struct flow_key beyond;
	struct flow *other;

	if (flow->way == WAY_LOCAL) {
		beyond = key_beyond(flow, key->protocol);
		other = flows.lookup(&beyond);
		if (other)
			turn(&beyond, other, packet, DIRECTION_IN - direction);
	}
	turn(key, flow, packet, direction);
}

/* Is it the ACK behind both FINs? A FIN that only one end has heard of may have overtaken data, or
 * is lost: what is sent again would make a record that knows of no end. */
static __always_inline int is_last_ack(const struct packet *packet, const struct flow *flow)
{
	return flow->closing == (END_POD | END_REMOTE | HEARD(END_POD | END_REMOTE)) &&
	       !packet->payload && !is_tcp_control(packet) && !is_tcp(packet, TCP_FIN_FLAG);
}

/* At an entrance: what the beginning and the end of a connection do to its record. 1: it was the
 * last ACK, and there is no record any more. It takes the kernel path, for conntrack tells its
 * listeners of a change only when a packet comes out of it, and nobody waits for this one. */
static __always_inline int flow_turn(const struct packet *packet, struct flow_key *key,
				     struct flow *flow, enum direction direction)
{
	/* A SYN with ACK answers one that has been seen. */
	if (!flow || (!is_opening(packet) && !is_tcp(packet, TCP_FIN_FLAG) &&
		      (!flow->closing || is_tcp(packet, TCP_SYN_FLAG))))
		return 0;
	flow_open_or_close(packet, key, flow, direction);
	if (!is_last_ack(packet, flow))
		return 0;
	flow_end(key, flow);
	return 1;
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
	if (packet->ip.protocol == IPPROTO_TCP ? !flow->open : flow->translated && !flow->confirmed)
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
	if (packet->ip.protocol == IPPROTO_TCP)
		track(flow, packet, direction, now);
	/* A line that two CPUs write travels between them: not for every packet. What is half
	 * closed keeps the timeout that conntrack gave it. */
	if (!flow->closing && now - flow->used >= USED_PRECISION)
		flow->used = now;
}

#endif
