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

/* At an entrance: what the beginning and the end of a connection do to its record. 1: it was the
 * last ACK, and there is no record any more. It takes the kernel path, for conntrack tells its
 * listeners of a change only when a packet comes out of it, and nobody waits for this one. */
static __always_inline int flow_turn(const struct packet *packet, struct flow_key *key,
				     struct flow *flow, enum direction direction)
{
	if (!flow || !is_turning(packet, flow))
		return 0;
	flow_open_or_close(packet, key, flow, direction);
	if (!is_last_ack(packet, flow))
		return 0;
	flow_end(key, flow);
	return 1;
}

#endif
