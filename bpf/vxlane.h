/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The whole contract between the programs and user space. Python reads this
 * file itself (loader/vxlane/datapath/abi.py), so it holds only enums and structs of
 * fixed-width integers and arrays of them, with every byte of padding named.
 *
 * Addresses of either family are 16 bytes: IPv4 is mapped (::ffff:a.b.c.d), so
 * that the family is a matter of data. Change a layout or the meaning of a
 * value: raise VXLANE_ABI, which names the directory of the pins.
 */
#ifndef VXLANE_H
#define VXLANE_H

#include <linux/types.h>

enum contract {
	VXLANE_ABI = 13,
};

/* Numbers that the loader writes into the instructions; see node.h. */
enum node {
	NODE_VNI, /* as in the VXLAN header, which is big-endian and has eight bits behind it */
	NODE_PORT, /* the VXLAN port, big-endian */
	NODE_STRICT, /* 1: what fails an identity check is dropped */
	NODE_DECAP_L4_UDP, /* 1: bpf_skb_adjust_room() knows BPF_F_ADJ_ROOM_DECAP_L4_UDP */
	NODE_PEER_TAKES_AS_HOST, /* 1: bpf_redirect_peer() makes PACKET_HOST of any packet */
	NODE_COUNT,
};

/* Stands where an instruction that loads such a number has its source register. The kernel knows
 * no such register (BPF_PSEUDO_...), so nothing that was left as it is can be loaded. */
enum mark {
	MARK_OF_NODE = 15,
};

enum program {
	PROGRAM_FROM_POD,
	PROGRAM_TO_POD,
	PROGRAM_FROM_NIC,
	PROGRAM_TO_NIC,
	PROGRAM_COUNT,
};

/* What became of a packet: a program's outcome, the counter's index, the
 * metric's label and what a test asserts. The first five are bypassed. All others
 * leave the packet to the kernel path; with --strict those of the identity checks
 * drop it. */
enum verdict {
	VERDICT_ENCAPSULATED, /* bypassed: pod -> NIC */
	VERDICT_DECAPSULATED, /* bypassed: NIC -> pod */
	VERDICT_SWITCHED, /* bypassed: pod -> pod of this node */
	VERDICT_ROUTED, /* bypassed: pod -> NIC or NIC -> pod, for a peer that needs no tunnel */
	VERDICT_NAT, /* bypassed: any of these ways, translated as netfilter does, e.g. a Service's
		      */
	VERDICT_LEARNED, /* came out of the kernel path: its half of the flow is approved */

	VERDICT_NOT_IP, /* ARP, IPv6, VLAN tag, any other ethertype */
	VERDICT_NOT_OVERLAY, /* on the NIC, and not UDP to the VXLAN port */
	VERDICT_NO_PEER, /* the remote address is in no peer's CIDR */
	VERDICT_NO_POD, /* the local address is no pod of ours (any more) */

	VERDICT_NO_AGENT, /* the agent's lease has run out: its maps may be stale */
	VERDICT_NO_NEXT_HOP, /* left by a neighbour that the FIB does not name for this NIC */
	VERDICT_GUARDED, /* the pod has a shaper, a filter or isolation in this direction */
	VERDICT_JUDGED, /* a rule or device on the way acts on every packet, not on connections */
	VERDICT_MARKED, /* the packet carries a firewall mark, or left with a priority of a rule's
			 */

	VERDICT_MALFORMED, /* lengths, version or header checksum do not agree */
	VERDICT_BIG_TCP, /* a super-packet so long that no IP header can tell its length, where the
			    kernel cuts, translates or has not yet let through such a flow's */
	VERDICT_IP_OPTIONS, /* the IP header has options */
	VERDICT_FRAGMENT, /* a part of a packet */
	VERDICT_TTL, /* would expire here */
	VERDICT_PROTOCOL, /* neither TCP, UDP nor ICMP echo */
	VERDICT_TOO_BIG, /* the kernel path answers with ICMP */
	VERDICT_GSO, /* a UDP super-packet on its way in */
	VERDICT_NO_CHECKSUM, /* UDP without one, whose outer checksum the kernel path verifies */
	VERDICT_ECN, /* an outer ECN mark that the inner header cannot take */
	VERDICT_OTHER_INTERFACE, /* a container sent from the address of another interface of its
				    own */
	VERDICT_OTHER_MAC, /* the frame is for another next hop than the one bypassed to */
	VERDICT_VXLAN_HEADER, /* flags or reserved bits other than plain VXLAN's */
	VERDICT_FOREIGN_VNI, /* of another overlay on the same port */
	VERDICT_REFUSED, /* the kernel would not make room, e.g. for a pod's own tunnel */

	/* Identity checks: with --strict the packet is dropped. */
	VERDICT_SPOOFED_ADDRESS, /* a pod sent from an address that is not its own */
	VERDICT_SPOOFED_MAC, /* a pod sent from a MAC that is not its own */
	VERDICT_NOT_OUR_VTEP, /* VXLAN for an underlay address that is not ours */
	VERDICT_UNKNOWN_VTEP, /* VXLAN from an underlay address that is no peer */
	VERDICT_WRONG_VTEP, /* the inner source belongs to another peer than the outer */
	VERDICT_FORGED_TUNNEL, /* a pod sent UDP to the VXLAN port: a tunnel made by hand */
	VERDICT_TAGS, /* more VLAN tags than the identity checks look behind */

	VERDICT_TCP_CONTROL, /* SYN, RST, no ACK, or what opens or closes a connection and conntrack
				can't be shown a copy of: it must see it */
	VERDICT_NO_STAMP, /* came out of the kernel path and was not seen to go in */
	VERDICT_STALE_EPOCH, /* went in before the last withdrawal, came out after it */
	VERDICT_TRANSLATED, /* went in for an address that is no pod's, came out for a pod: a
			       Service's flow that its entrance did not know yet, or that is left
			       alone */
	VERDICT_CHANGED, /* came out with other headers than forwarding and NAT make, or for the pod
			    that had sent it */
	VERDICT_OTHER_OUTER, /* left in another outer packet than the bypass would send */
	VERDICT_FLOW_UNKNOWN, /* neither half has come out of the kernel path */
	VERDICT_FLOW_HALF, /* one half has, this packet needs both or the other */
	VERDICT_FLOW_AGED, /* approved too long ago: once more through netfilter */
	VERDICT_FLOW_REHASHED, /* its hash is another: the kernel would choose another way */
	VERDICT_FLOW_WITHDRAWN, /* approved in an earlier epoch, or for an earlier pod */
	VERDICT_MAP_FULL, /* the flow could not be recorded */

	VERDICT_COUNT,
};

/* The octets of the MAC that the copies for conntrack have as their destination: a group that
 * nobody is in, "xlane", locally administered. */
enum nobody {
	NOBODY_0 = 3,
	NOBODY_1 = 120,
	NOBODY_2 = 108,
	NOBODY_3 = 97,
	NOBODY_4 = 110,
	NOBODY_5 = 101,
};

/* What a pod's packets must not skip: in one direction, or in both. */
enum guard {
	GUARD_FROM_POD = 1 << 0,
	GUARD_TO_POD = 1 << 1,
	GUARD_JUDGED = 1 << 2, /* something on this pod's way acts on every packet */
};

/* How packets go to the other end, and come from it. */
enum way {
	WAY_TUNNEL, /* VXLAN */
	WAY_DIRECT, /* as they are: the peer is on our link (DirectRouting, host-gw) */
	WAY_LOCAL, /* through the bridge: the other end is a pod of this node */
};

/* What netfilter makes another of in a flow. */
enum translated {
	TRANSLATED_NOT,
	TRANSLATED_REMOTE, /* the other end: a Service's address is a pod's */
	TRANSLATED_LOCAL, /* the pod goes by another address, its node's, and maybe the other end
			     too */
};

/* peers: LPM key */
struct cidr {
	__u32 prefix_len; /* of the mapped address: 96 + n for IPv4 */
	__be32 address[4];
};

struct peer {
	__be32 address[4]; /* underlay address of the peer's VTEP */
	__be32 next_hop[4]; /* for people: on-link neighbour towards it */
	__u32 ifindex; /* for people: NIC towards it; 0 = no usable way. A flow has its own */
	__u32 mtu; /* largest inner IP packet, bytes */
	__u32 slot; /* index in peer_counters */
	__u8 vtep_mac[6];
	__u8 way; /* enum way */
	__u8 pad;
};

/* vteps: underlay address of every peer -> slot */
struct address {
	__be32 word[4];
};

struct pod {
	__u32 ifindex; /* host end of its veth */
	__u32 bridge; /* ifindex of the bridge it is a port of */
	__u32 mtu; /* largest IP packet towards it, bytes */
	__u32 gso_size; /* super-packets of so many bytes or more the kernel cuts for its veth */
	__u32 gso_segs; /* and those of more segments; only BIG TCP is held against both */
	__u32 owner; /* the same for all interfaces of one container, and for no other's */
	__u8 mac[6]; /* of the pod's interface */
	__u8 gateway_mac[6]; /* of the bridge */
	__u8 guard; /* enum guard */
	__u8 bridge_netfilter; /* 1: what the bridge hands over passes netfilter */
	__u8 pad[2];
};

/* A flow, whichever of its ends sends. The end with the lower address stands first. Any order will
 * do: the words are compared from the last one on, as numbers of this machine. */
struct flow_key {
	__be32 low[4];
	__be32 high[4];
	__be16 low_port; /* ICMP echo: identifier */
	__be16 high_port; /* ICMP echo: the type that the low end sends */
	__u8 protocol;
	__u8 pad[3];
};

enum side {
	SIDE_LOW,
	SIDE_HIGH,
};

/* The ends of a flow. */
enum end {
	END_POD = 1,
	END_REMOTE = 2,
};

/* In flow.opener, beside whose SYN was learned: the SYN-ACK has come out too. */
enum answer {
	ANSWERED = 4,
};

/* What the kernel path was seen to do with a flow. The key is the flow as its pod has it; between
 * two pods of this node, as that one has it which was seen to send first, and the other one is the
 * remote end. A record is replaced as a whole when that changes; only times, sequence numbers,
 * `open`, `closing`, `opener` and `confirmed` are written in place. Times: ns, CLOCK_MONOTONIC,
 * 0 = never. */
struct flow {
	/* What packets change stands together: with the ends on two CPUs both write it in turn, and
	 * each cache line has to travel. */
	__u64 seen_out; /* when each half last came out of the kernel path */
	__u64 seen_in;
	__u64 used; /* when it was last bypassed, give or take a second */
	__u32 sent; /* TCP: sequence number behind what the pod sent last */
	__u32 received; /* the same of the other end */
	__u8 open; /* TCP: the ACK of the handshake has come out, or conntrack was shown a copy */
	__u8 closing; /* TCP: whose FIN has passed since the SYN, bits of enum end; two bits higher,
			 whose FIN the other end has acknowledged */
	__u8 confirmed; /* more than one packet was seen to take this way */
	__u8 opener; /* TCP: whose SYN was learned, enum end; 0: nobody's. And enum answer */
	/* What stays. */
	__u32 epoch;
	__u32 ifindex; /* of the pod it was approved for: addresses are given away again */
	__u32 nic; /* the device it left by; WAY_LOCAL: of the other pod's veth */
	__u8 way; /* enum way */
	__u8 side; /* enum side: which end of the key the pod is */
	__u8 translated; /* enum translated */
	__u8 routed; /* WAY_LOCAL: whose packets are forwarded, bits of enum end; two bits higher,
			whose are for the bridge's MAC */
	__u8 mac[6]; /* of the peer's VTEP */
	__be16 source_port; /* of the outer UDP header */
	__u32 mtu; /* largest inner IP packet, bytes */
	__u32 slot; /* of the peer, index in peer_counters */
	__u32 hash; /* the skb's when it left: the kernel takes port and path from it */
	__be32 next_hop[4]; /* on-link neighbour that it left to */
	__be32 peer[4]; /* underlay address of the peer's VTEP */
	__be32 nat_local[4]; /* a translated flow as it is behind netfilter, else zeros */
	__be32 nat_remote[4];
	__be16 nat_local_port;
	__be16 nat_remote_port;
	__u8 macs[12]; /* destination and source of the frame that left; WAY_LOCAL: with which
			  sources frames come out, those of the pod and those of the other one */
};

/* resets */
struct reset {
	__u64 when; /* ns, CLOCK_MONOTONIC */
	__u8 side; /* as in the record */
	__u8 pad[7];
};

/* notes: what a packet was when it went into the kernel path, by its stamp */
struct note {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port; /* ICMP echo: identifier */
	__be16 destination_port; /* ICMP echo: type */
	__u8 protocol;
	__u8 ttl;
	__u8 tos;
	__u8 unfinished; /* the transport checksum was left to the device */
	__u32 epoch;
	__u32 content; /* what NAT leaves alone, see content_of() in note.h */
	__u32 ifindex; /* host end of the veth that it came by, 0 = the NIC */
	__u8 outside; /* the entrance knew no pod behind the address that it was for */
	__u8 by_gateway; /* the pod sent it to the bridge's MAC */
	__u8 pad[2];
};

/* One entry, written by the agent. Times in ns, CLOCK_MONOTONIC. */
struct settings {
	__u64 lease_until;
	__u64 revalidate; /* longest age of a TCP flow's approval */
	__u64 revalidate_datagram; /* of UDP and ICMP, which conntrack forgets sooner */
	__be32 address[4]; /* our VTEP's underlay address */
	__u32 epoch;
	__u32 vtep; /* ifindex of the VXLAN device, 0 = there is none */
	__u8 vtep_mac[6];
	__u8 has_direct; /* some peer is WAY_DIRECT: plain IP at the NIC may be for a pod */
	__u8 judged; /* something acts on every packet of every pod: VERDICT_JUDGED */
	__u8 judged_nat; /* something acts on every packet of a translated flow */
	__u8 heard; /* somebody listens to what conntrack tells of changes: see conntrack.h */
	__u8 may_drop; /* a rule may drop what belongs to an established connection */
	__u8 pad[5];
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* What the bypass carried for one peer. */
struct peer_counter {
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 rx_packets;
	__u64 rx_bytes;
};

/* What is asked of the tracer: one entry, written by who looks. Zeros: any. A packet must be as all
 * of it says. Addresses and ports are those of either end. */
struct trace_filter {
	__u64 until; /* ns, CLOCK_MONOTONIC: from then on nothing is told, for nobody listens */
	__u64 verdicts; /* a bit for each that is wanted */
	__be32 pod[4];
	__be32 host[4];
	__be32 peer[4]; /* a network */
	__be32 peer_mask[4];
	__be32 flow_local[4]; /* a flow as its pod has it, and as it is behind netfilter */
	__be32 flow_remote[4];
	__be32 nat_local[4];
	__be32 nat_remote[4];
	__be16 flow_local_port;
	__be16 flow_remote_port;
	__be16 nat_local_port;
	__be16 nat_remote_port;
	__be16 port; /* of TCP or UDP */
	__u8 protocol;
	__u8 outer; /* packets are captured with the headers of their tunnel */
	__u32 capture; /* bytes of each packet that are captured at most */
	__u32 wake; /* bytes told after which the reader is woken, see waking() in trace.c */
	__u32 pad;
};

/* A packet as it was at the end of a program. Its bytes follow, if they are captured. */
struct trace_event {
	__u64 time; /* ns, CLOCK_MONOTONIC */
	__be32 source[4]; /* of the inner packet; zeros if it is not IP */
	__be32 destination[4];
	__u32 ifindex;
	__u32 length; /* bytes of the frame without its tunnel's headers */
	__u32 tunnel; /* bytes of these before it, 0 = it is in none */
	__u32 captured; /* bytes that follow */
	__u32 gso_size; /* 0 = no super-packet */
	__u32 gso_segments;
	__be16 ethertype;
	__be16 source_port; /* ICMP: identifier */
	__be16 destination_port; /* ICMP: type */
	__be16 tag_protocol; /* of a VLAN tag that the skb has beside the frame, 0 = it has none */
	__be16 tag_control;
	__u8 program; /* enum program */
	__u8 verdict; /* enum verdict */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 has_ports; /* 0: another protocol, a later fragment, or cut short */
	__u8 pad;
};

#endif
