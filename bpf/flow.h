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

#include "flow_key.h"
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

/* A packet's record, and how the packet goes in it. */
struct match {
	struct flow_key key;
	struct flow *flow; /* 0: there is none */
	enum direction direction;
};

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

/* Is it what the other end sends in a translated flow? */
static __always_inline int is_from_behind(const struct packet *packet, const struct flow *flow)
{
	return flow->nat_local_port == packet->destination_port &&
	       flow->nat_remote_port == packet->source_port &&
	       same_address(flow->nat_local, packet->destination) &&
	       same_address(flow->nat_remote, packet->source);
}

/* The record of a packet at an entrance. The other end sends a translated flow as it is behind
 * netfilter. The same 5-tuple may be another flow of the pod's, which netfilter has moved to
 * another port because of this one. */
static __always_inline void find_flow(const struct packet *packet, struct match *match)
{
	enum side sender = side_of(packet->source, packet->destination);
	const struct flow_key *found;
	struct flow *flow;

	match->key = key_of(packet);
	flow = flows.lookup(&match->key);
	match->flow = flow;
	match->direction = flow && flow->side == sender ? DIRECTION_OUT : DIRECTION_IN;
	if (flow && (!flow->translated || match->direction == DIRECTION_OUT))
		return;
	match->flow = 0;
	/* What the other end opens has no translation: that is learned of what the pod sends. */
	if (is_opening(packet))
		return;
	found = translations.lookup(&match->key);
	if (!found)
		return;
	flow = flows.lookup((struct flow_key *)found);
	/* The pod may have used the port for another flow since. */
	if (!flow || !is_from_behind(packet, flow))
		return;
	match->key = *found;
	match->flow = flow;
}

/* Whom the packet is for once netfilter has seen to it. */
static __always_inline const __be32 *receiver_address(const struct packet *packet,
						      const struct match *match)
{
	const struct flow *flow = match->flow;

	if (!flow || !flow->translated)
		return packet->destination;
	return match->direction == DIRECTION_OUT ? flow->nat_remote
						 : address_at(&match->key, flow->side);
}

/* The record by this key, if the pod is at that end of it. */
static __always_inline struct flow *flow_of(struct flow_key *key, enum side side)
{
	struct flow *flow = flows.lookup(key);

	return flow && flow->side == side ? flow : 0;
}

/* In flow.routed: what this end's pod sends is for the bridge's MAC. */
#define TO_GATEWAY(end) ((end) << 2)

/* With which source frames come out that this end's pod sends. */
static __always_inline __u8 *source_of(struct flow *flow, enum end sender)
{
	return sender == END_POD ? flow->macs : flow->macs + ETH_ALEN;
}

/* May a BIG TCP packet take the flow's way? Only the bridge hands one on as it is: a tunnel's
 * headers can't tell its length, and a routed one leaves by a device with limits of its own. */
static __always_inline int takes_big(const struct flow *flow)
{
	return flow && flow->way == WAY_LOCAL && !flow->translated;
}

/* Was it approved since the last withdrawal, and for the pod that is at this end now? */
static __always_inline int is_current(const struct flow *flow, const struct settings *settings,
				      const struct pod *pod, enum end end)
{
	return flow->epoch == settings->epoch &&
	       (end == END_POD ? flow->ifindex : flow->nic) == pod->ifindex;
}

/* Who sends what goes this way. */
static __always_inline enum end sender_of(enum direction direction)
{
	return direction == DIRECTION_OUT ? END_POD : END_REMOTE;
}

static __always_inline enum end receiver_of(enum direction direction)
{
	return direction == DIRECTION_OUT ? END_REMOTE : END_POD;
}

/* TCP: the sequence number behind what this end sent last. */
static __always_inline __u32 sent_by(const struct flow *flow, enum end end)
{
	return end == END_POD ? flow->sent : flow->received;
}

/* Is it the ACK of a handshake whose SYN and SYN-ACK have come out of the kernel path, and which no
 * rule drops? One may let a SYN pass and drop what follows. */
static __always_inline int is_handshake_ack(const struct settings *settings,
					    const struct packet *packet, const struct flow *flow,
					    enum direction direction)
{
	return flow->opener == (sender_of(direction) | ANSWERED) && !settings->heard &&
	       !settings->may_drop && !packet->payload && !is_tcp(packet, TCP_FIN_FLAG) &&
	       packet->sequence == sent_by(flow, sender_of(direction)) &&
	       packet->acknowledged == sent_by(flow, receiver_of(direction));
}

static __always_inline int is_open(const struct settings *settings, const struct packet *packet,
				   const struct flow *flow, enum direction direction)
{
	if (packet->ip.protocol == IPPROTO_TCP)
		return flow->open || is_handshake_ack(settings, packet, flow, direction);
	return flow->confirmed || !flow->translated;
}

/* Does netfilter give the pod that sends the packet, or gets it from elsewhere, another address? */
static __always_inline int is_renamed(const struct packet *packet, const struct match *match)
{
	const struct flow *flow = match->flow;

	if (match->direction == DIRECTION_OUT || flow->way != WAY_LOCAL)
		return flow->translated == TRANSLATED_LOCAL;
	return flow->translated &&
	       !same_address(packet->source, address_at(&match->key, SIDE_HIGH - flow->side));
}

/* On the way in to the bypass, for a packet that is no connection control. Whether the record is
 * of today's pods its caller asks: is_current(). */
static __always_inline enum verdict flow_admit(const struct settings *settings,
					       const struct packet *packet,
					       const struct match *match, __u64 now)
{
	int needs_both = packet->ip.protocol != IPPROTO_UDP || is_renamed(packet, match);
	enum direction direction = match->direction;
	const struct flow *flow = match->flow;
	__u64 this, other, longest;

	if (flow->translated && settings->judged_nat)
		return VERDICT_JUDGED;
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

/* A packet of the flow is bypassed. Since it was admitted another CPU may have ended the record,
 * and its element be another flow's: that one it must not open. */
static __always_inline void flow_use(const struct settings *settings, struct flow *flow,
				     const struct packet *packet, enum direction direction,
				     __u64 now)
{
	if (packet->ip.protocol == IPPROTO_TCP) {
		if (!flow->open && is_handshake_ack(settings, packet, flow, direction))
			flow->open = 1;
		track(flow, packet, direction, now);
	}
	/* A line that two CPUs write travels between them: not for every packet. What is half
	 * closed keeps the timeout that conntrack gave it. */
	if (!flow->closing && now - flow->used >= USED_PRECISION)
		flow->used = now;
}

#endif
