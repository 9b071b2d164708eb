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
	return (flow->closing & receiver_of(direction)) && !is_tcp_control(packet) &&
	       packet->acknowledged == sent_by(flow, receiver_of(direction));
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
		flow->closing |= sender_of(direction);
		if (direction == DIRECTION_OUT)
			flow->sent = sequence_behind(packet);
		else
			flow->received = sequence_behind(packet);
	}
	if (acknowledges_fin(flow, packet, direction))
		flow->closing |= HEARD(receiver_of(direction));
}

/* Both sides have closed: no record serves the connection any more. Its element is the first that
 * the CPU gives away that made it, and so in the cache when the next connection begins there. */
static __always_inline void flow_end(struct match *match)
{
	const struct flow *flow = match->flow;
	const struct flow_key *found;
	struct flow_key behind;

	/* A RST has ended it before. The next connection of its ports has to find that. */
	if (!flow->seen_out && !flow->seen_in)
		return;
	if (flow->translated) {
		behind = make_key(flow->nat_local, flow->nat_remote, flow->nat_local_port,
				  flow->nat_remote_port, match->key.protocol);
		found = translations.lookup(&behind);
		/* conntrack may have given the 5-tuple to another flow since. */
		if (found && same_key(found, &match->key))
			translations.delete(&behind);
	}
	flows.delete(&match->key);
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

/* At an entrance: what the beginning and the end of a connection do to its record. 1: it is the
 * last ACK, behind which the caller ends the record. A RST may yet be refused by its receiver: it
 * counts once it has come out of the kernel path, see flow_reset(). */
static __always_inline int flow_turn(const struct packet *packet, struct match *match)
{
	struct flow *flow = match->flow;

	if (!flow || !is_turning(packet, flow))
		return 0;
	turn(&match->key, flow, packet, match->direction);
	return is_last_ack(packet, flow);
}

#endif
