/* Ingress of the node's NIC, before IP reassembly and the host's firewall: all
 * that reaches the node. VXLAN from the right peer for a pod of ours, of an
 * approved flow, goes straight into the pod; all else is the kernel path's.
 */
#include "flow.h"
#include "pod.h"
#include "settings.h"
#include "verdict.h"
#include "vxlan.h"

struct outer {
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan vxlan;
};

/* Most of what a NIC receives is no VXLAN: say so after the fewest reads. */
static __always_inline enum verdict parse_outer(struct cursor *at, struct outer *outer)
{
	struct __sk_buff *skb = at->skb;
	enum verdict verdict;

	if (skb->protocol != be16(ETH_P_IP) || skb->vlan_present)
		return VERDICT_NOT_IP;
	at->offset = sizeof(struct ethhdr);
	if (take(at, &outer->ip, sizeof(outer->ip)) || outer->ip.protocol != IPPROTO_UDP)
		return VERDICT_NOT_OVERLAY;
	if (outer->ip.version != 4 || outer->ip.ihl < 5)
		return VERDICT_MALFORMED;
	verdict = check_ip(&outer->ip, skb->len - sizeof(struct ethhdr));
	if (verdict == VERDICT_IP_OPTIONS || verdict == VERDICT_FRAGMENT)
		return verdict;
	if (take(at, &outer->udp, sizeof(outer->udp)) || outer->udp.dest != be16(PORT))
		return VERDICT_NOT_OVERLAY;
	if (verdict != VERDICT_LEARNED ||
	    cpu16(outer->udp.len) != cpu16(outer->ip.tot_len) - sizeof(outer->ip) ||
	    take(at, &outer->vxlan, sizeof(outer->vxlan)))
		return VERDICT_MALFORMED;
	if (outer->vxlan.flags != VXLAN_FLAGS || (outer->vxlan.vni & be32(0xff)))
		return VERDICT_VXLAN_HEADER;
	return outer->vxlan.vni == VXLAN_VNI ? VERDICT_LEARNED : VERDICT_FOREIGN_VNI;
}

/* The outer source must be the VTEP of the peer that owns the inner source. */
static __always_inline enum verdict check_tunnel(const struct outer *outer, const struct peer *peer,
						 enum verdict parsed)
{
	struct address vtep;

	if (peer && peer->address[3] == outer->ip.saddr)
		return parsed;
	map_address(vtep.word, outer->ip.saddr);
	if (!vteps.lookup(&vtep))
		return VERDICT_UNKNOWN_VTEP;
	if (parsed != VERDICT_LEARNED)
		return parsed;
	return peer ? VERDICT_WRONG_VTEP : VERDICT_NO_PEER;
}

static __always_inline enum verdict to_pod_of(struct __sk_buff *skb, struct packet *packet,
					      const struct settings *settings,
					      const struct outer *outer, __u64 now)
{
	const struct pod *receiver = pod_of(packet->destination);
	enum verdict verdict;

	if (!receiver)
		return VERDICT_NO_POD;
	if (is_guarded(receiver, packet, GUARD_TO_POD))
		return VERDICT_GUARDED;
	verdict = flow_admit(settings, packet, receiver, DIRECTION_IN, now);
	if (verdict != VERDICT_LEARNED)
		return verdict;
	if (packet->ip.ttl <= 1)
		return VERDICT_TTL;
	/* Popping leaves the skb marked as a tunnel's; the stack re-segments a UDP
	 * super-packet by that mark and loses every datagram of it. */
	if (skb->gso_size && packet->ip.protocol != IPPROTO_TCP)
		return VERDICT_GSO;
	if (!fits(skb, packet, receiver->mtu))
		return VERDICT_TOO_BIG;
	verdict = merge_ecn(outer->ip.tos, &packet->ip);
	if (verdict != VERDICT_LEARNED)
		return verdict;
	verdict = vxlan_pop(skb, packet, receiver);
	if (verdict == VERDICT_DECAPSULATED)
		bpf_redirect_peer(receiver->ifindex, 0);
	return verdict;
}

static __always_inline enum verdict from_nic_verdict(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct settings *settings = settings_at(now);
	__u32 room = skb->len - sizeof(struct ethhdr) - ENCAPSULATION;
	struct cursor at = {.skb = skb};
	const struct peer *peer = 0;
	struct packet packet = {};
	struct outer outer = {};
	enum verdict verdict = parse_outer(&at, &outer);

	if (verdict != VERDICT_LEARNED)
		return verdict;
	if (!settings)
		return VERDICT_NO_AGENT;
	if (skb->pkt_type != 0 /* PACKET_HOST */ || outer.ip.daddr != settings->address[3])
		return VERDICT_NOT_OUR_VTEP;
	verdict = parse_addresses(&at, &packet);
	if (verdict == VERDICT_LEARNED)
		peer = peer_of(packet.source);
	verdict = check_tunnel(&outer, peer, verdict);
	if (verdict != VERDICT_LEARNED || !peer)
		return verdict;
	if (skb->mark)
		return VERDICT_MARKED;
	/* The kernel takes a frame for another MAC as not its own, and one from
	 * its own MAC as a loop. */
	if (!same_mac(packet.eth.h_dest, settings->vtep_mac) ||
	    same_mac(packet.eth.h_source, settings->vtep_mac))
		return VERDICT_OTHER_MAC;
	verdict = parse_transport(&at, &packet, room);
	if (verdict != VERDICT_LEARNED)
		return verdict;
	verdict = to_pod_of(skb, &packet, settings, &outer, now);
	if (verdict == VERDICT_DECAPSULATED)
		count_received(peer, room + sizeof(struct ethhdr));
	return verdict;
}

int from_nic(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;

	return conclude(PROGRAM_FROM_NIC, from_nic_verdict(skb), bytes);
}
