/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The key of a flow: the same for what either end sends. So a flow between two pods of this node
 * has one record, and one look-up finds it.
 */
#ifndef VXLANE_FLOW_KEY_H
#define VXLANE_FLOW_KEY_H

#include "maps.h"
#include "parse.h"

/* Which end of its flow's key a sender is. */
static __always_inline enum side side_of(const __be32 sender[4], const __be32 receiver[4])
{
	if (sender[3] != receiver[3])
		return sender[3] > receiver[3] ? SIDE_HIGH : SIDE_LOW;
	if (sender[2] != receiver[2])
		return sender[2] > receiver[2] ? SIDE_HIGH : SIDE_LOW;
	if (sender[1] != receiver[1])
		return sender[1] > receiver[1] ? SIDE_HIGH : SIDE_LOW;
	return sender[0] > receiver[0] ? SIDE_HIGH : SIDE_LOW;
}

static __always_inline struct flow_key make_key(const __be32 source[4], const __be32 destination[4],
						__be16 source_port, __be16 destination_port,
						__u8 protocol)
{
	struct flow_key key = {.protocol = protocol};

	if (side_of(source, destination) == SIDE_LOW) {
		__builtin_memcpy(key.low, source, sizeof(key.low));
		__builtin_memcpy(key.high, destination, sizeof(key.high));
		key.low_port = source_port;
		key.high_port = destination_port;
		return key;
	}
	__builtin_memcpy(key.low, destination, sizeof(key.low));
	__builtin_memcpy(key.high, source, sizeof(key.high));
	key.low_port = destination_port;
	key.high_port = source_port;
	if (protocol == IPPROTO_ICMP) {
		/* Who asks is part of the key: a policy may let A ping B, not B ping A. */
		key.low_port = source_port;
		key.high_port = be16(ICMP_ECHO_REQUEST - cpu16(destination_port));
	}
	return key;
}

static __always_inline struct flow_key key_of(const struct packet *packet)
{
	return make_key(packet->source, packet->destination, packet->source_port,
			packet->destination_port, packet->ip.protocol);
}

static __always_inline int same_key(const struct flow_key *a, const struct flow_key *b)
{
	return a->low_port == b->low_port && a->high_port == b->high_port &&
	       a->protocol == b->protocol && same_address(a->low, b->low) &&
	       same_address(a->high, b->high);
}

static __always_inline const __be32 *address_at(const struct flow_key *key, enum side side)
{
	return side == SIDE_LOW ? key->low : key->high;
}

#endif
