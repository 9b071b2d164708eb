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

#define USED_PRECISION 1000000000 /* ns: how exact flow.used is */

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
		__u8 type = cpu16(packet->destination_port);
		__u8 sent = direction == DIRECTION_OUT ? type : ICMP_ECHO_REQUEST - type;
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

/* A deletion takes the bucket's lock whether anything is there or not: 250 ns for each SYN and FIN
 * of a short connection, which has no record. A look-up takes none. */
static __always_inline void forget(struct flow_key *key)
{
	if (flows.lookup(key))
		flows.delete(key);
}

static __always_inline void forget_reset(struct flow_key *key)
{
	if (resets.lookup(key))
		resets.delete(key);
}

/* The beginning or the end of a connection: from here on conntrack must see
 * every packet until both halves are learned again. Two pods of one node share
 * a conntrack entry, so both their records go. A RST may yet be refused by its
 * receiver: it counts once it has come out of the kernel path, see flow_reset(). */
static __always_inline void flow_forget(const struct packet *packet)
{
	struct flow_key out = key_of(packet, DIRECTION_OUT);
	struct flow_key in = key_of(packet, DIRECTION_IN);

	forget(&out);
	forget(&in);
	if (is_tcp(packet, TCP_SYN_FLAG)) {
		forget_reset(&out);
		forget_reset(&in);
	}
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

	if (!is_current(flow, settings, pod))
		return VERDICT_FLOW_WITHDRAWN;
	this = direction == DIRECTION_OUT ? flow->seen_out : flow->seen_in;
	other = direction == DIRECTION_OUT ? flow->seen_in : flow->seen_out;
	if (!this || (!other && packet->ip.protocol != IPPROTO_UDP))
		return VERDICT_FLOW_HALF;
	if (packet->ip.protocol == IPPROTO_TCP && !flow->open)
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

/* How far each side has got: what tells a RST of the connection from a forged one. `before`: when
 * this half was seen before, 0 = never. */
static __always_inline void track(struct flow *flow, const struct packet *packet,
				  enum direction direction, __u64 before)
{
	__u32 *reached = direction == DIRECTION_OUT ? &flow->sent : &flow->received;
	/* A SYN takes a number of its own. */
	__u32 end = packet->sequence + packet->payload + !!is_tcp(packet, TCP_SYN_FLAG);

	if (!before || (__s32)(end - *reached) > 0)
		*reached = end;
}

/* A packet of the flow is bypassed. */
static __always_inline void flow_use(struct flow *flow, const struct packet *packet,
				     enum direction direction, __u64 now)
{
	if (packet->ip.protocol == IPPROTO_TCP)
		track(flow, packet, direction, now);
	/* A line that two CPUs write travels between them: not for every packet. */
	if (now - flow->used >= USED_PRECISION)
		flow->used = now;
}

/* A RST has come out of the kernel path. conntrack closes an entry on a RST only
 * if its sequence number fits what it saw last, and of a bypassed connection it
 * saw little: the entry would stay ESTABLISHED for days. The agent closes it, if
 * the RST is the connection's: its sequence number is the one behind the last byte
 * of its sender, which is what the receiver demands too (RFC 5961, 3.2). Others,
 * whoever sent them, end nothing; conntrack sees what follows and judges it. */
static __always_inline void flow_reset(struct flow_key *key, const struct packet *packet,
				       enum direction direction, __u64 now)
{
	const struct flow *flow = flows.lookup(key);
	__u32 expected;

	if (!flow)
		return;
	expected = direction == DIRECTION_OUT ? flow->sent : flow->received;
	if (flow->seen_out && flow->seen_in && packet->sequence == expected)
		resets.update(key, &now);
	flows.delete(key);
}

static __always_inline int leaves_alike(const struct flow *a, const struct flow *b)
{
	return a->nic == b->nic && a->mtu == b->mtu && a->hash == b->hash &&
	       a->source_port == b->source_port && same_address(a->next_hop, b->next_hop);
}

/* On the way out of the kernel path: `seen` is what happened there, with no times yet. A record
 * that says the same gets a new time, any other is replaced: one that is half old and half new
 * would send a packet where none was seen to go. */
static __always_inline enum verdict flow_learn(struct flow *seen, const struct packet *packet,
					       enum direction direction, __u64 now)
{
	struct flow_key key = key_of(packet, direction);
	int is_syn = is_tcp(packet, TCP_SYN_FLAG);
	struct flow *known = 0;
	__u64 *when;

	if (is_tcp(packet, TCP_RST_FLAG))
		flow_reset(&key, packet, direction, now);
	if (is_tcp_control(packet) && (!is_syn || is_tcp(packet, TCP_RST_FLAG | TCP_FIN_FLAG)))
		return VERDICT_TCP_CONTROL;
	/* A SYN begins anew, a SYN-ACK is the other half of what a SYN began. */
	if (!is_syn || is_tcp(packet, TCP_ACK_FLAG))
		known = flows.lookup(&key);
	seen->open = !is_syn;
	if (known && known->epoch == seen->epoch && known->ifindex == seen->ifindex) {
		if (direction == DIRECTION_IN || (known->seen_out && leaves_alike(known, seen))) {
			when = direction == DIRECTION_OUT ? &known->seen_out : &known->seen_in;
			track(known, packet, direction, *when);
			*when = now;
			if (!is_syn)
				known->open = 1;
			return is_syn ? VERDICT_TCP_CONTROL : VERDICT_LEARNED;
		}
		seen->seen_in = known->seen_in;
		seen->open |= known->open;
	}
	if (known) {
		seen->used = known->used;
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
	if (flows.update(&key, seen))
		return VERDICT_MAP_FULL;
	return is_syn ? VERDICT_TCP_CONTROL : VERDICT_LEARNED;
}

#endif
