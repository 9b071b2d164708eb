/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an exit learns of a packet that has come out of the kernel path: the flow's record. */
#ifndef VXLANE_LEARN_H
#define VXLANE_LEARN_H

#include "connection.h"
#include "flow.h"

/* `flow` is `behind` when netfilter has seen to it. */
static __always_inline void set_behind(struct flow *flow, const struct flow_key *key,
				       const struct flow_key *behind)
{
	__builtin_memcpy(flow->nat_local, behind->local, sizeof(flow->nat_local));
	__builtin_memcpy(flow->nat_remote, behind->remote, sizeof(flow->nat_remote));
	flow->nat_local_port = behind->local_port;
	flow->nat_remote_port = behind->remote_port;
	flow->translated = same_key(key, behind)		     ? TRANSLATED_NOT
			   : same_address(key->local, behind->local) ? TRANSLATED_REMOTE
								     : TRANSLATED_LOCAL;
}

/* Has flow_entering() find a translated flow by what a peer sends. */
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
static __always_inline enum verdict flow_reset(struct flow_key *key, struct flow *flow,
					       const struct packet *packet,
					       enum direction direction, __u64 now)
{
	enum verdict verdict = VERDICT_TCP_CONTROL;
	__u32 expected;

	if (!flow)
		return verdict;
	expected = direction == DIRECTION_OUT ? flow->sent : flow->received;
	if (flow->seen_out && flow->seen_in && packet->sequence == expected &&
	    resets.update(key, &now))
		verdict = VERDICT_MAP_FULL;
	forget_halves(flow);
	return verdict;
}

/* A record for what an exit sees now of the pod behind the veth `ifindex`. No other packet of this
 * CPU is at an exit meanwhile. */
static __always_inline struct flow *draft(const struct settings *settings, __u32 ifindex)
{
	__u32 only = 0;
	struct flow *seen = drafts.lookup(&only);

	if (seen) {
		__builtin_memset(seen, 0, sizeof(*seen));
		seen->epoch = settings->epoch;
		seen->ifindex = ifindex;
	}
	return seen;
}

static __always_inline int leaves_alike(const struct flow *a, const struct flow *b)
{
	return a->nic == b->nic && a->mtu == b->mtu && a->hash == b->hash &&
	       a->source_port == b->source_port && a->hops == b->hops &&
	       a->by_gateway == b->by_gateway && same_mac(a->mac, b->mac) &&
	       same_mac(a->macs, b->macs) && same_mac(a->macs + ETH_ALEN, b->macs + ETH_ALEN) &&
	       same_address(a->next_hop, b->next_hop);
}

/* May the outbound half be written into a record that only knows how the flow comes in? To replace
 * an element of an LRU takes 1 us. But what is written in place may reach another CPU in any order
 * (arm64's does), so nothing may be that a packet is sent by: of a flow that the bridge hands over
 * as it is, all of that is known. */
static __always_inline int completes(const struct flow *known, const struct flow *seen,
				     enum direction direction)
{
	return direction == DIRECTION_OUT && !known->seen_out && !known->open &&
	       seen->way == WAY_LOCAL && !seen->translated;
}

static __always_inline void complete(struct flow *known, const struct flow *seen)
{
	known->by_gateway = seen->by_gateway;
	__builtin_memcpy(known->mac, seen->mac, sizeof(known->mac));
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
 * was learned, the ACK of who sent it does: with TCP Fast Open the other end's data may come
 * before. Where none was, any packet does, for the half of who opened it is not learned before its
 * ACK. */
static __always_inline int shows_open(const struct flow *flow, const struct packet *packet,
				      enum direction direction)
{
	return !is_tcp(packet, TCP_SYN_FLAG) &&
	       (!flow->opener || (flow->opener & end_of(direction)));
}

/* On the way out of the kernel path: `seen` is what happened there, with no times yet. A record
 * that says the same gets a new time, any other is replaced: one that is half old and half new
 * would send a packet where none was seen to go. */
static __always_inline enum verdict flow_learn(struct flow_key *key, struct flow *known,
					       struct flow *seen, const struct packet *packet,
					       enum direction direction, __u64 now)
{
	int is_syn = is_tcp(packet, TCP_SYN_FLAG), alike, is_completed;
	__u64 *when;

	if (is_tcp(packet, TCP_RST_FLAG))
		return flow_reset(key, known, packet, direction, now);
	if (is_tcp(packet, TCP_FIN_FLAG) || (is_tcp_control(packet) && !is_syn))
		return VERDICT_TCP_CONTROL;
	alike = known && known->epoch == seen->epoch && known->ifindex == seen->ifindex &&
		translates_alike(known, seen) && has_same_end(known, seen);
	/* A connection begins anew. */
	if (is_opening(packet)) {
		known = 0;
		seen->opener = end_of(direction);
	} else if (known) {
		seen->opener = known->opener;
		if (is_syn && direction == DIRECTION_IN && seen->opener == END_POD)
			seen->opener |= ANSWERED;
	}
	seen->open = shows_open(seen, packet, direction);
	if (known && alike) {
		is_completed = completes(known, seen, direction);
		if (is_completed)
			complete(known, seen);
		if (direction == DIRECTION_IN || is_completed ||
		    (known->seen_out && leaves_alike(known, seen))) {
			when = direction == DIRECTION_OUT ? &known->seen_out : &known->seen_in;
			track(known, packet, direction, *when);
			*when = now;
			known->confirmed = 1;
			if (seen->open)
				known->open = 1;
			if (is_syn)
				known->opener = seen->opener;
			return is_syn ? VERDICT_TCP_CONTROL : VERDICT_LEARNED;
		}
		seen->seen_in = known->seen_in;
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
	if (flows.update(key, seen))
		return VERDICT_MAP_FULL;
	return is_syn ? VERDICT_TCP_CONTROL : VERDICT_LEARNED;
}

#endif
