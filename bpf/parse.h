/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Parsing: one cursor that moves over the packet. Each parse_x() reads its
 * header into `struct packet`, checks it, moves on and returns CONTINUE or the
 * verdict that leaves the packet alone.
 *
 * Headers are read where they lie. What is not in the linear part of the skb
 * (some drivers and GRO leave little there) is read by bpf_skb_load_bytes(),
 * which takes 15 to 20 ns each time. Nothing is written this way: a program that
 * does has an unclone prologue, which every packet would pay, the kernel path's too.
 */
#ifndef VXLANE_PARSE_H
#define VXLANE_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#ifndef BPF_F_TABLE
#include "editor.h"
#endif

#include "vxlane.h"

/* Nothing against a bypass so far. It is no verdict and has no counter. */
#define CONTINUE VERDICT_COUNT

#define be16(x) ((__be16)__builtin_bswap16(x))
#define be32(x) ((__be32)__builtin_bswap32(x))
#define cpu16(x) __builtin_bswap16(x)
#define cpu32(x) __builtin_bswap32(x)

#define VLAN_ID 0x0fff
#define IP_FRAGMENT be16(0x3fff) /* more-fragments bit and offset */
#define IP_OFFSET be16(0x1fff)
#define ECN_MASK 0x03
#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO_REQUEST 8
#define TCP_FIN_FLAG 0x01
#define TCP_SYN_FLAG 0x02
#define TCP_RST_FLAG 0x04
#define TCP_CONTROL_FLAGS (TCP_SYN_FLAG | TCP_RST_FLAG)
#define TCP_ACK_FLAG 0x10

struct cursor {
	struct __sk_buff *skb;
	__u32 offset;
};

struct packet {
	struct ethhdr eth;
	struct iphdr ip;
	__be32 source[4]; /* mapped, see vxlane.h */
	__be32 destination[4];
	__be16 source_port; /* ICMP echo: identifier */
	__be16 destination_port; /* ICMP echo: type */
	__be16 check; /* of TCP or UDP */
	__u16 headers; /* bytes of IP and transport header */
	__u32 payload; /* bytes behind them; with BIG TCP more than 65,535 */
	__u32 sequence; /* TCP's */
	__u32 acknowledged; /* TCP's */
	__u8 tcp_flags;
	__u8 tagged; /* priority tags were before the IP header */
};

struct icmp_echo {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

struct tag {
	__be16 tci;
	__be16 protocol;
};

static __always_inline int is_tag(__be16 protocol)
{
	return protocol == be16(ETH_P_8021Q) || protocol == be16(ETH_P_8021AD);
}

static __always_inline int take(struct cursor *at, void *header, __u32 size)
{
	const __u8 *from = (const __u8 *)(long)at->skb->data + at->offset;

	/* x86 and arm64 read words at any address; untold, the compiler reads single bytes. What it
	 * is told here it must not apply to `data` itself, behind which headers stand at any
	 * offset.
	 */
	asm volatile("" : "+r"(from));
	if (from + size <= (const __u8 *)(long)at->skb->data_end)
		__builtin_memcpy(header, __builtin_assume_aligned(from, 4), size);
	else if (bpf_skb_load_bytes(at->skb, at->offset, header, size))
		return -1;
	at->offset += size;
	return 0;
}

/* Of a header without options; 0 over a header whose checksum is right. */
static __always_inline __u16 ip_checksum(const struct iphdr *ip)
{
	const __u16 *word = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < (int)sizeof(*ip) / 2; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

static __always_inline void map_address(__be32 mapped[4], __be32 address)
{
	mapped[0] = 0;
	mapped[1] = 0;
	mapped[2] = be32(0xffff);
	mapped[3] = address;
}

static __always_inline int is_mapped(const __be32 address[4])
{
	return !address[0] && !address[1] && address[2] == be32(0xffff);
}

static __always_inline int same_address(const __be32 a[4], const __be32 b[4])
{
	return a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0];
}

/* By halfwords: a MAC is aligned to two bytes, in frames and in records. */
static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;

	return x[2] == y[2] && x[1] == y[1] && x[0] == y[0];
}

/* A tag of VLAN 0 is a mere priority: the kernel takes any number of them off and
 * goes on with what is behind, so the identity checks must look there too. */
static __always_inline enum verdict parse_tags(struct cursor *at, struct packet *packet)
{
	struct tag tag;

#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (!is_tag(packet->eth.h_proto))
			return CONTINUE;
		if (take(at, &tag, sizeof(tag)))
			return VERDICT_MALFORMED;
		if (tag.tci & be16(VLAN_ID))
			return VERDICT_NOT_IP;
		packet->eth.h_proto = tag.protocol;
		packet->tagged = 1;
	}
	return is_tag(packet->eth.h_proto) ? VERDICT_TAGS : CONTINUE;
}

/* Enough of a frame to know who sent it; the rest of the checks come after the
 * sender is known, so that no malformed packet slips past an identity check. */
static __always_inline enum verdict parse_addresses(struct cursor *at, struct packet *packet)
{
	enum verdict verdict;

	if (take(at, &packet->eth, sizeof(packet->eth)))
		return VERDICT_MALFORMED;
	verdict = parse_tags(at, packet);
	if (verdict != CONTINUE)
		return verdict;
	/* A tag may have been moved from the frame into the skb. */
	if (packet->eth.h_proto != be16(ETH_P_IP) || (at->skb->vlan_tci & VLAN_ID))
		return VERDICT_NOT_IP;
	if (take(at, &packet->ip, sizeof(packet->ip)) || packet->ip.version != 4 ||
	    packet->ip.ihl < 5)
		return VERDICT_MALFORMED;
	map_address(packet->source, packet->ip.saddr);
	map_address(packet->destination, packet->ip.daddr);
	return CONTINUE;
}

/* `room` is what the layer below leaves for the packet. Equality, not "at
 * most": the kernel trims trailing bytes, a bypass would carry them along. */
static __always_inline enum verdict check_ip(const struct iphdr *ip, __u32 room)
{
	/* Its header has no room for its length: the layer below tells it, as in iph_totlen(). */
	int is_big = !ip->tot_len && room > 0xffff && ip->protocol == IPPROTO_TCP;

	if (ip->ihl > 5)
		return VERDICT_IP_OPTIONS;
	if ((cpu16(ip->tot_len) != room && !is_big) || ip_checksum(ip))
		return VERDICT_MALFORMED;
	if (ip->frag_off & IP_FRAGMENT)
		return VERDICT_FRAGMENT;
	return is_big ? VERDICT_BIG_TCP : CONTINUE;
}

static __always_inline enum verdict parse_tcp(struct cursor *at, struct packet *packet)
{
	struct tcphdr tcp;

	if (take(at, &tcp, sizeof(tcp)) || tcp.doff < 5)
		return VERDICT_MALFORMED;
	packet->source_port = tcp.source;
	packet->destination_port = tcp.dest;
	packet->check = tcp.check;
	packet->sequence = cpu32(tcp.seq);
	packet->acknowledged = cpu32(tcp.ack_seq);
	packet->tcp_flags = ((__u8 *)&tcp)[13];
	packet->headers = sizeof(struct iphdr) + tcp.doff * 4;
	return CONTINUE;
}

static __always_inline enum verdict parse_udp(struct cursor *at, struct packet *packet)
{
	struct udphdr udp;

	if (take(at, &udp, sizeof(udp)))
		return VERDICT_MALFORMED;
	packet->source_port = udp.source;
	packet->destination_port = udp.dest;
	packet->check = udp.check;
	packet->headers = sizeof(struct iphdr) + sizeof(udp);
	/* Of these conntrack makes no flow: they are invalid, and not translated. */
	if (cpu16(udp.len) < sizeof(udp) ||
	    cpu16(udp.len) > cpu16(packet->ip.tot_len) - sizeof(struct iphdr))
		return VERDICT_MALFORMED;
	return CONTINUE;
}

static __always_inline enum verdict parse_icmp(struct cursor *at, struct packet *packet)
{
	struct icmp_echo icmp;

	if (take(at, &icmp, sizeof(icmp)))
		return VERDICT_MALFORMED;
	/* To conntrack an echo with another code is another flow. */
	if ((icmp.type != ICMP_ECHO_REQUEST && icmp.type != ICMP_ECHO_REPLY) || icmp.code)
		return VERDICT_PROTOCOL;
	packet->source_port = icmp.id;
	packet->destination_port = be16(icmp.type);
	packet->headers = sizeof(struct iphdr) + sizeof(icmp);
	return CONTINUE;
}

/* The rest of a packet whose addresses are parsed; `room` as in check_ip(). With VERDICT_BIG_TCP
 * the packet is parsed to its end, for a caller that can take it. */
static __always_inline enum verdict parse_transport(struct cursor *at, struct packet *packet,
						    __u32 room)
{
	enum verdict verdict, length = check_ip(&packet->ip, room);

	/* The kernel path takes priority tags off; the bypass would carry them along. */
	if (at->skb->vlan_present || packet->tagged)
		return VERDICT_NOT_IP;
	if (length != CONTINUE && length != VERDICT_BIG_TCP)
		return length;
	if (packet->ip.protocol == IPPROTO_TCP)
		verdict = parse_tcp(at, packet);
	else if (packet->ip.protocol == IPPROTO_UDP)
		verdict = parse_udp(at, packet);
	else if (packet->ip.protocol == IPPROTO_ICMP)
		verdict = parse_icmp(at, packet);
	else
		return VERDICT_PROTOCOL;
	if (verdict == CONTINUE && packet->headers > room)
		return VERDICT_MALFORMED;
	packet->payload = room - packet->headers;
	return verdict == CONTINUE ? length : verdict;
}

/* Would the kernel path forward it whole? A super-packet is judged by the
 * segments it will be cut into, as the kernel's skb_gso_validate_network_len. */
static __always_inline int fits(const struct __sk_buff *skb, const struct packet *packet, __u32 mtu)
{
	if (skb->gso_size)
		return packet->headers + skb->gso_size <= mtu;
	return packet->headers + packet->payload <= mtu;
}

#endif
