/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an exit learns of a packet that has come out of the kernel path: the flow's record. */
#ifndef VXLANE_LEARN_H
#define VXLANE_LEARN_H

#include "connection.h"
#include "flow.h"

/* Notes in `seen` what netfilter makes of the flow, if it makes another of it. */
static __always_inline void set_translation(struct flow *seen, const struct note *note,
					    const struct packet *packet, enum direction direction)
{
	int same_source = same_address(note->source, packet->source);
	int same_destination = same_address(note->destination, packet->destination);

	if (same_source && same_destination && note->source_port == packet->source_port &&
	    note->destination_port == packet->destination_port)
		return;
	if (direction == DIRECTION_OUT) {
		__builtin_memcpy(seen->nat_local, packet->source, sizeof(seen->nat_local));
		__builtin_memcpy(seen->nat_remote, packet->destination, sizeof(seen->nat_remote));
		seen->nat_local_port = packet->source_port;
		seen->nat_remote_port = packet->destination_port;
		seen->translated = same_source ? TRANSLATED_REMOTE : TRANSLATED_LOCAL;
	} else {
		__builtin_memcpy(seen->nat_local, note->destination, sizeof(seen->nat_local));
		__builtin_memcpy(seen->nat_remote, note->source, sizeof(seen->nat_remote));
		seen->nat_local_port = note->destination_port;
		seen->nat_remote_port = note->source_port;
		seen->translated = same_destination ? TRANSLATED_REMOTE : TRANSLATED_LOCAL;
	}
}

/* Has find_flow() find a translated flow by what its other end sends. */
static __always_inline void remember_translation(const struct flow_key *key,
						 struct flow_key *behind)
{
	const struct flow_key *found = translations.lookup(behind);
	const struct flow *other = flows.lookup(behind);

	/* conntrack gave the 5-tuple away: what had it before is over. */
	if (other && !other->translated)
		flows.delete(behind);
	if (!found || !same_key(found, key))
		translations.update(behind, (struct flow_key *)key);
}

/* A RST has come out of the kernel path. conntrack closes an entry on a RST only
 * if its sequence number fits what it saw last, and of a bypassed connection it
 * saw little: the entry would stay ESTABLISHED for days. The agent closes it, if
 * the RST is the connection's: its sequence number is the one behind the last byte
 * of its sender, which is what the receiver demands too (RFC 5961, 3.2). Others,
 * whoever sent them, end nothing; conntrack sees what follows and judges it. The record stays, for
 * the next connection of its ports to tell that there was a RST. */
static __always_inline enum verdict flow_reset(struct match *match, const struct packet *packet,
					       __u64 now)
{
	struct flow *flow = match->flow;
	enum verdict verdict = VERDICT_TCP_CONTROL;
	struct reset reset = {.when = now};

	if (!flow)
		return verdict;
	reset.side = flow->side;
	if (flow->seen_out && flow->seen_in &&
	    packet->sequence == sent_by(flow, sender_of(match->direction)) &&
	    resets.update(&match->key, &reset))
		verdict = VERDICT_MAP_FULL;
	forget_halves(flow);
	return verdict;
}

/* A record for what an exit sees now of the pod behind the veth `ifindex`, at that end of the key.
 * No other packet of this CPU is at an exit meanwhile. */
static __always_inline struct flow *draft(const struct settings *settings, __u32 ifindex,
					  enum side side)
{
	__u32 only = 0;
	struct flow *seen = drafts.lookup(&only);

	if (seen) {
		__builtin_memset(seen, 0, sizeof(*seen));
		seen->epoch = settings->epoch;
		seen->ifindex = ifindex;
		seen->side = side;
	}
	return seen;
}

/* Do packets of the pod leave the node as they did? */
static __always_inline int leaves_alike(const struct flow *a, const struct flow *b)
{
	return a->nic == b->nic && a->mtu == b->mtu && a->hash == b->hash &&
	       a->source_port == b->source_port && same_mac(a->mac, b->mac) &&
	       same_mac(a->macs, b->macs) && same_mac(a->macs + ETH_ALEN, b->macs + ETH_ALEN) &&
	       same_address(a->next_hop, b->next_hop);
}

static __always_inline int is_switched_alike(struct flow *a, struct flow *b, enum end sender)
{
	return (sender == END_POD ? a->seen_out : a->seen_in) &&
	       !((a->routed ^ b->routed) & (sender | TO_GATEWAY(sender))) &&
	       same_mac(source_of(a, sender), source_of(b, sender));
}

/* Does the record hold what a packet that goes this way is sent by? To replace an element of an LRU
 * takes 1 us. But what is written in place may reach another CPU in any order (arm64's does), so
 * only times are. A flow that the bridge hands over as it is needs no more. */
static __always_inline int holds(struct flow *known, struct flow *seen, enum direction direction)
{
	if (seen->way == WAY_LOCAL)
		return !seen->translated || is_switched_alike(known, seen, sender_of(direction));
	return direction == DIRECTION_IN || (known->seen_out && leaves_alike(known, seen));
}

/* A new record of a flow that has the same ends: what is known of the other way stays. */
static __always_inline void keep_other_half(struct flow *seen, struct flow *known,
					    enum direction direction)
{
	enum end other = receiver_of(direction);

	if (direction == DIRECTION_OUT)
		seen->seen_in = known->seen_in;
	else
		seen->seen_out = known->seen_out;
	if (seen->way == WAY_LOCAL) {
		seen->routed |= known->routed & (other | TO_GATEWAY(other));
		__builtin_memcpy(source_of(seen, other), source_of(known, other), ETH_ALEN);
	}
}

static __always_inline int has_same_end(const struct flow *a, const struct flow *b)
{
	return a->way == b->way && same_address(a->peer, b->peer);
}

static __always_inline int translates_alike(const struct flow *a, const struct flow *b)
{
	return a->nat_local_port == b->nat_local_port && a->nat_remote_port == b->nat_remote_port &&
	       same_address(a->nat_local, b->nat_local) &&
	       same_address(a->nat_remote, b->nat_remote);
}

static __always_inline int is_known_translation(const struct flow *known, const struct flow *seen)
{
	return known && known->seen_out && known->epoch == seen->epoch &&
	       known->ifindex == seen->ifindex && translates_alike(known, seen);
}

/* Does a packet that has come out show that conntrack has its connection ESTABLISHED? Where the SYN
 * was learned, the ACK of who sent it does, once the other end has answered: with TCP Fast Open its
 * data may come before. Where none was, any packet does, for the half of who opened it is not
 * learned before its ACK. `known`: the record so far. */
static __always_inline int shows_open(const struct flow *known, const struct packet *packet,
				      enum direction direction)
{
	__u64 answered;

	if (is_tcp(packet, TCP_SYN_FLAG))
		return 0;
	if (!known || !known->opener)
		return 1;
	answered = direction == DIRECTION_OUT ? known->seen_in : known->seen_out;
	return answered && (known->opener & sender_of(direction));
}

/* Is the record that was found another flow's by now? Another CPU may have ended or replaced it,
 * and its element is the first that is given away: no packet must approve what it is not of. */
static __always_inline int is_given_away(struct match *match)
{
	return flows.lookup(&match->key) != match->flow;
}

/* The record says already what is seen: it gets a new time. */
static __always_inline void renew(struct match *match, const struct flow *seen,
				  const struct packet *packet, __u64 now)
{
	enum direction direction = match->direction;
	struct flow *known = match->flow;
	__u64 *when = direction == DIRECTION_OUT ? &known->seen_out : &known->seen_in;
	int is_syn = is_tcp(packet, TCP_SYN_FLAG);

	if ((!*when || is_syn || (seen->open && !known->open)) && is_given_away(match))
		return;
	track(known, packet, direction, *when);
	*when = now;
	known->confirmed = 1;
	if (seen->open)
		known->open = 1;
	if (is_syn)
		known->opener = seen->opener;
}

/* On the way out of the kernel path: `seen` is what happened there, with no times yet. A record
 * that says the same gets a new time, any other is replaced: one that is half old and half new
 * would send a packet where none was seen to go. */
static __always_inline enum verdict flow_learn(struct match *match, struct flow *seen,
					       const struct packet *packet, __u64 now)
{
	enum direction direction = match->direction;
	struct flow *known = match->flow;
	int is_syn = is_tcp(packet, TCP_SYN_FLAG), alike;

	if (is_tcp(packet, TCP_RST_FLAG))
		return flow_reset(match, packet, now);
	if (is_tcp(packet, TCP_FIN_FLAG) || (is_tcp_control(packet) && !is_syn))
		return VERDICT_TCP_CONTROL;
	alike = known && known->epoch == seen->epoch && known->ifindex == seen->ifindex &&
		(seen->way != WAY_LOCAL || known->nic == seen->nic) &&
		translates_alike(known, seen) && has_same_end(known, seen);
	/* A connection begins anew. */
	if (is_opening(packet)) {
		known = 0;
		seen->opener = sender_of(direction);
	} else if (known) {
		seen->opener = known->opener;
		if (is_syn && seen->opener == receiver_of(direction))
			seen->opener |= ANSWERED;
	}
	seen->open = shows_open(known, packet, direction);
	if (known && alike) {
		if (holds(known, seen, direction)) {
			renew(match, seen, packet, now);
			return is_syn ? VERDICT_TCP_CONTROL : VERDICT_LEARNED;
		}
		keep_other_half(seen, known, direction);
		seen->open |= known->open;
		seen->confirmed = 1;
	}
	if (known) {
		seen->used = known->used;
		seen->closing = known->closing;
		seen->sent = known->sent;
		seen->received = known->received;
	}
	if (direction == DIRECTION_OUT) {
		track(seen, packet, direction, known ? known->seen_out : 0);
		seen->seen_out = now;
	} else {
		track(seen, packet, direction, known ? known->seen_in : 0);
		seen->seen_in = now;
	}
	if (!(known && is_given_away(match)) && flows.update(&match->key, seen))
		return VERDICT_MAP_FULL;
	return is_syn ? VERDICT_TCP_CONTROL : VERDICT_LEARNED;
}

#endif
