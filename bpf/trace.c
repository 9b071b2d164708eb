/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tracer: tells user space of packets at the end of the four programs, which tail-call it.
 *
 * It is loaded by `vxlane trace` and `vxlane capture`, stands in the map `tracer` while one of them
 * runs, and shares no map with the programs but that. conclude() in verdict.h has counted the
 * packet and left index and action in cb. The action is the tracer's only answer. It must call no
 * helper that redirects: bpf_redirect_peer() and its like keep their target per CPU until the
 * program returns, so a second call would send the packet elsewhere. Nothing is written to the
 * packet either.
 *
 * The packet is the one that leaves the hook: encapsulated, decapsulated or translated already.
 */
#include <linux/pkt_cls.h>

#include "trace_filter.h"

/* A record of the ring buffer has a size that is known when it is compiled. So there are some. */
#define FEW_BYTES 256
#define SOME_BYTES 2048
#define ALL_BYTES 65536
#define NOWHERE 0xffffffff

BPF_ARRAY(filter, struct trace_filter, 1);
BPF_ARRAY(lost, __u64, 1);
BPF_ARRAY(untold, __u64, 1);
BPF_RINGBUF_OUTPUT(events, RING_PAGES);

struct few {
	struct trace_event event;
	__u8 bytes[FEW_BYTES];
};

struct some {
	struct trace_event event;
	__u8 bytes[SOME_BYTES];
};

struct all {
	struct trace_event event;
	__u8 bytes[ALL_BYTES];
};

/* Of linux/ipv6.h, which in a kernel's source brings half of the kernel along. */
struct ipv6 {
	__be32 version;
	__be16 length;
	__u8 next;
	__u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

/* Where the inner frame begins, by the packet. */
static __always_inline __u32 tunnel_of(struct __sk_buff *skb)
{
	struct cursor at = {.skb = skb};
	struct outer outer = {};
	enum verdict verdict = parse_outer(&at, &outer);

	return verdict == CONTINUE || verdict == VERDICT_FOREIGN_VNI ? at.offset : 0;
}

static __always_inline void describe_ports(struct cursor *at, struct trace_event *event)
{
	struct ports ports;
	struct icmp_echo icmp;
	struct cursor flags = {.skb = at->skb, .offset = at->offset + 13};

	if (event->protocol == IPPROTO_ICMP) {
		if (take(at, &icmp, sizeof(icmp)))
			return;
		event->source_port = icmp.id;
		event->destination_port = be16(icmp.type);
	} else if (event->protocol == IPPROTO_TCP || event->protocol == IPPROTO_UDP ||
		   event->protocol == IPPROTO_SCTP) {
		if (take(at, &ports, sizeof(ports)))
			return;
		event->source_port = ports.source;
		event->destination_port = ports.destination;
		if (event->protocol == IPPROTO_TCP)
			take(&flags, &event->tcp_flags, sizeof(event->tcp_flags));
	} else {
		return;
	}
	event->has_ports = 1;
}

static __always_inline void describe_ipv4(struct cursor *at, struct trace_event *event)
{
	struct iphdr ip;

	if (take(at, &ip, sizeof(ip)))
		return;
	map_address(event->source, ip.saddr);
	map_address(event->destination, ip.daddr);
	event->protocol = ip.protocol;
	at->offset += (ip.ihl - 5) * 4;
	if (ip.ihl >= 5 && !(ip.frag_off & IP_OFFSET))
		describe_ports(at, event);
}

static __always_inline void describe_ipv6(struct cursor *at, struct trace_event *event)
{
	struct ipv6 ip;

	if (take(at, &ip, sizeof(ip)))
		return;
	__builtin_memcpy(event->source, ip.source, sizeof(event->source));
	__builtin_memcpy(event->destination, ip.destination, sizeof(event->destination));
	event->protocol = ip.next;
	describe_ports(at, event);
}

/* How many segments a super-packet has that was put into a tunnel or taken out of one: the kernel
 * counts them anew behind the program (SKB_GSO_DODGY in bpf_skb_net_grow() of net/core/filter.c).
 * `at` is behind the ports. */
static __always_inline __u32 segments_of(const struct cursor *at, const struct trace_event *event)
{
	struct cursor offset = {.skb = at->skb, .offset = at->offset + 8};
	__u32 payload = at->offset + 4;
	__u8 words;

	if (event->protocol == IPPROTO_TCP && !take(&offset, &words, sizeof(words)))
		payload = at->offset - sizeof(struct ports) + (words >> 4) * 4;
	return (at->skb->len - payload + event->gso_size - 1) / event->gso_size;
}

static __always_inline void describe(struct __sk_buff *skb, struct trace_event *event)
{
	struct cursor at = {.skb = skb, .offset = event->tunnel};
	struct packet packet = {};

	event->ifindex = skb->ifindex;
	event->length = skb->len - event->tunnel;
	event->gso_size = skb->gso_size;
	event->gso_segments = skb->gso_segs;
	if (skb->vlan_present) {
		event->tag_protocol = skb->vlan_proto;
		event->tag_control = be16(skb->vlan_tci);
	}
	if (take(&at, &packet.eth, sizeof(packet.eth)))
		return;
	parse_tags(&at, &packet);
	event->ethertype = packet.eth.h_proto;
	if (event->ethertype == be16(ETH_P_IP))
		describe_ipv4(&at, event);
	else if (event->ethertype == be16(ETH_P_IPV6))
		describe_ipv6(&at, event);
	if (event->gso_size && !event->gso_segments)
		event->gso_segments = segments_of(&at, event);
}

/* The reader looks by the clock. To wake it for each packet took more of the CPU than all else
 * here, so it is woken only when a part of the buffer may be full. Two CPUs may add at once, and
 * one sum be lost: then the clock comes first. */
static __always_inline __u64 waking(__u32 size)
{
	int only = 0;
	const struct trace_filter *asked = filter.lookup(&only);
	__u64 *bytes = untold.lookup(&only);

	if (!bytes || !asked)
		return BPF_RB_FORCE_WAKEUP;
	*bytes += size;
	if (*bytes < asked->wake)
		return BPF_RB_NO_WAKEUP;
	*bytes = 0;
	return BPF_RB_FORCE_WAKEUP;
}

/* A record with room for `room` bytes of the packet, and as many of them as were asked for. */
static __always_inline void tell(struct __sk_buff *skb, const struct trace_event *event, __u32 from,
				 __u32 length, void *record, __u8 *bytes, __u32 room)
{
	struct trace_event *told = record;

	if (!record) {
		lost.atomic_increment(0);
		return;
	}
	*told = *event;
	told->captured = length;
	/* For the verifier, which has not seen that it is one of 1 to `room`. */
	length = (length - 1) & (room - 1);
	if (bpf_skb_load_bytes(skb, from, bytes, length + 1))
		told->captured = 0;
	events.ringbuf_submit(record, waking(sizeof(*event) + room));
}

static __always_inline void tell_bytes(struct __sk_buff *skb, const struct trace_event *event,
				       __u32 from, __u32 length)
{
	struct few *few;
	struct some *some;
	struct all *all;

	if (length <= FEW_BYTES) {
		few = events.ringbuf_reserve(sizeof(*few));
		tell(skb, event, from, length, few, few->bytes, FEW_BYTES);
	} else if (length <= SOME_BYTES) {
		some = events.ringbuf_reserve(sizeof(*some));
		tell(skb, event, from, length, some, some->bytes, SOME_BYTES);
	} else {
		all = events.ringbuf_reserve(sizeof(*all));
		tell(skb, event, from, length, all, all->bytes, ALL_BYTES);
	}
}

static __always_inline void tell_event(const struct trace_event *event)
{
	struct trace_event *told = events.ringbuf_reserve(sizeof(*told));

	if (!told) {
		lost.atomic_increment(0);
		return;
	}
	*told = *event;
	events.ringbuf_submit(told, waking(sizeof(*told)));
}

/* Where the inner frame begins, by the verdict alone; NOWHERE: the packet must tell. Elsewhere than
 * there a packet to the VXLAN port is no tunnel of ours any more, or not yet. */
static __always_inline __u32 known_place(enum program program, enum verdict verdict, int action)
{
	if (verdict == VERDICT_ENCAPSULATED)
		return sizeof(struct ethhdr) + sizeof(struct outer);
	if (program == PROGRAM_TO_POD || verdict == VERDICT_NOT_OVERLAY ||
	    (action == TC_ACT_REDIRECT) != (program == PROGRAM_FROM_POD))
		return 0;
	return NOWHERE;
}

/* The packet that somebody may want. */
static __always_inline void tell_of(struct __sk_buff *skb, const struct trace_filter *asked,
				    enum program program, enum verdict verdict, __u32 place)
{
	struct trace_event event = {.program = program, .verdict = verdict};
	__u32 from, length;

	event.time = bpf_ktime_get_ns();
	/* Whoever asked may have been killed. */
	if (event.time >= asked->until)
		return;
	event.tunnel = place == NOWHERE ? tunnel_of(skb) : place;
	describe(skb, &event);
	if (!is_wanted(asked, &event))
		return;
	from = asked->outer ? 0 : event.tunnel;
	length = skb->len - from;
	if (length > asked->capture)
		length = asked->capture;
	if (length > ALL_BYTES)
		length = ALL_BYTES;
	if (length)
		tell_bytes(skb, &event, from, length);
	else
		tell_event(&event);
}

int trace(struct __sk_buff *skb)
{
	int only = 0, action = skb->cb[1];
	const struct trace_filter *asked = filter.lookup(&only);
	__u32 verdict = skb->cb[0], program = 0, place;

	/* A division would take longer than all that follows. */
#pragma unroll
	for (int i = 1; i < PROGRAM_COUNT; i++) {
		if (verdict >= VERDICT_COUNT) {
			verdict -= VERDICT_COUNT;
			program++;
		}
	}
	if (!asked || !(asked->verdicts >> (verdict & 63) & 1))
		return action;
	place = known_place(program, verdict, action);
	if (place == NOWHERE || !is_other(skb, asked, place))
		tell_of(skb, asked, program, verdict, place);
	return action;
}
