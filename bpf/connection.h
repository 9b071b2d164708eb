/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A TCP connection begins and ends: what SYN, FIN and the ACKs behind them do to its record. */
#ifndef VXLANE_CONNECTION_H
#define VXLANE_CONNECTION_H

#include "flow.h"

/* In flow.closing: the other end has acknowledged the FIN of this one. */
#define HEARD(end) ((end) << 2)

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
		flow->opener = 0;
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

/* A SYN with ACK answers a SYN that has been seen. */
static __always_inline int is_turning(const struct packet *packet, const struct flow *flow)
{
	return is_opening(packet) || is_tcp(packet, TCP_FIN_FLAG) ||
	       (flow->closing && !is_tcp(packet, TCP_SYN_FLAG));
}

/* Is it the ACK behind both FINs? A FIN that only one end has heard of may have overtaken data, or
 * is lost: what is sent again would make a record that knows of no end. */
static __always_inline int is_last_ack(const struct packet *packet, const struct flow *flow)
{
	return flow->closing == (END_POD | END_REMOTE | HEARD(END_POD | END_REMOTE)) &&
	       !packet->payload && !is_tcp_control(packet) && !is_tcp(packet, TCP_FIN_FLAG);
}

/* The other pod's record, if the ACK of a handshake on this node may open it: the SYN-ACK has come
 * out of the kernel path for it. */
static __always_inline struct flow *flow_beyond(const struct flow *flow, const struct pod *receiver)
{
	struct flow_key beyond = key_beyond(flow, IPPROTO_TCP);
	struct flow *other = flows.lookup(&beyond);

	if (!other || !other->seen_out || other->epoch != flow->epoch ||
	    other->ifindex != receiver->ifindex)
		return 0;
	return other;
}

/* What the SYN has shown of the sender's half is as true of the receiver's. */
static __always_inline void open_beyond(struct flow *other, const struct flow *flow)
{
	other->seen_in = flow->seen_out;
	other->received = flow->sent;
	other->open = 1;
}

/* At an entrance: what the beginning and the end of a connection do to its record. Two pods of one
 * node share a conntrack entry, so both their records are told, but of the last ACK: behind it the
 * caller ends both. 1: it is that one. A RST may yet be refused by its receiver: it counts once it
 * has come out of the kernel path, see flow_reset(). */
static __always_inline int flow_turn(const struct packet *packet, struct flow_key *key,
				     struct flow *flow, enum direction direction)
{
	struct flow_key beyond;
	struct flow *other;

	if (!flow || !is_turning(packet, flow))
		return 0;
	turn(key, flow, packet, direction);
	if (is_last_ack(packet, flow))
		return 1;
	if (flow->way == WAY_LOCAL) {
		beyond = key_beyond(flow, key->protocol);
		other = flows.lookup(&beyond);
		if (other)
			turn(&beyond, other, packet, DIRECTION_IN - direction);
	}
	return 0;
}

#endif
