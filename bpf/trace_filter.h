/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which packets the tracer was asked for.
 *
 * While somebody looks, every packet is compared, and nearly all of them are others'. So is_other()
 * looks first: it reads the few fields that tell them apart where they lie. What it can't tell is
 * described whole, and is_wanted() decides.
 */
#ifndef VXLANE_TRACE_FILTER_H
#define VXLANE_TRACE_FILTER_H

#include "outer.h"

static __always_inline int is_zero(const __be32 address[4])
{
	return !(address[0] | address[1] | address[2] | address[3]);
}

static __always_inline int is_within(const __be32 address[4], const __be32 network[4],
				     const __be32 mask[4])
{
	return (address[0] & mask[0]) == network[0] && (address[1] & mask[1]) == network[1] &&
	       (address[2] & mask[2]) == network[2] && (address[3] & mask[3]) == network[3];
}

static __always_inline int is_end(const struct trace_event *event, const __be32 address[4])
{
	return same_address(event->source, address) || same_address(event->destination, address);
}

static __always_inline int has_port(const struct trace_event *event, __be16 port)
{
	return event->has_ports && event->protocol != IPPROTO_ICMP &&
	       (event->source_port == port || event->destination_port == port);
}

/* From the one end to the other. Of an echo the type differs by direction, and the identifier,
 * which stands first, does not. */
static __always_inline int goes(const struct trace_event *event, const __be32 from[4],
				const __be32 to[4], __be16 from_port, __be16 to_port)
{
	return same_address(event->source, from) && same_address(event->destination, to) &&
	       event->source_port == from_port && event->destination_port == to_port;
}

static __always_inline int is_of_flow(const struct trace_event *event, const __be32 local[4],
				      const __be32 remote[4], __be16 local_port, __be16 remote_port)
{
	if (!event->has_ports)
		return 0;
	if (event->protocol == IPPROTO_ICMP)
		return is_end(event, local) && is_end(event, remote) &&
		       event->source_port == local_port;
	return goes(event, local, remote, local_port, remote_port) ||
	       goes(event, remote, local, remote_port, local_port);
}

static __always_inline int is_wanted(const struct trace_filter *asked,
				     const struct trace_event *event)
{
	if (asked->protocol && asked->protocol != event->protocol)
		return 0;
	if (asked->port && !has_port(event, asked->port))
		return 0;
	if (!is_zero(asked->pod) && !is_end(event, asked->pod))
		return 0;
	if (!is_zero(asked->host) && !is_end(event, asked->host))
		return 0;
	if (!is_zero(asked->peer_mask) &&
	    !is_within(event->source, asked->peer, asked->peer_mask) &&
	    !is_within(event->destination, asked->peer, asked->peer_mask))
		return 0;
	return is_zero(asked->flow_local) ||
	       is_of_flow(event, asked->flow_local, asked->flow_remote, asked->flow_local_port,
			  asked->flow_remote_port) ||
	       is_of_flow(event, asked->nat_local, asked->nat_remote, asked->nat_local_port,
			  asked->nat_remote_port);
}

struct ports {
	__be16 source;
	__be16 destination;
};

/* `word` is the last of an address, 0 = any. */
static __always_inline int lacks(const struct iphdr *ip, __be32 word)
{
	return word && ip->saddr != word && ip->daddr != word;
}

static __always_inline int has_either(const struct ports *ports, __be16 port)
{
	return ports->source == port || ports->destination == port;
}

/* Surely not asked for: the frame at `from` is of IPv4 without options, and of another protocol,
 * address or port. 0 says nothing. */
static __always_inline int is_other(const struct __sk_buff *skb, const struct trace_filter *asked,
				    __u32 from)
{
	const struct ethhdr *eth = (const void *)((const __u8 *)(long)skb->data + from);
	const struct iphdr *ip = (const void *)(eth + 1);
	const struct ports *ports = (const void *)(ip + 1);

	if ((const __u8 *)(ports + 1) > (const __u8 *)(long)skb->data_end ||
	    eth->h_proto != be16(ETH_P_IP) || ip->version != 4 || ip->ihl != 5)
		return 0;
	if (asked->protocol && ip->protocol != asked->protocol)
		return 1;
	if (lacks(ip, asked->pod[3]) || lacks(ip, asked->host[3]))
		return 1;
	if ((ip->saddr & asked->peer_mask[3]) != asked->peer[3] &&
	    (ip->daddr & asked->peer_mask[3]) != asked->peer[3])
		return 1;
	if ((ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP) ||
	    (ip->frag_off & IP_OFFSET))
		return 0;
	if (asked->port && !has_either(ports, asked->port))
		return 1;
	return !is_zero(asked->flow_local) && !has_either(ports, asked->flow_local_port) &&
	       !has_either(ports, asked->nat_local_port);
}

#endif
