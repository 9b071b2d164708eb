/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What conntrack must see of a bypassed connection it is shown a copy of: the ACK of the handshake,
 * and all from the first FIN on.
 *
 * The copy goes into the device by which netfilter would have received the packet. It passes
 * PREROUTING, where conntrack follows connections, and no further: it is a multicast frame with
 * the address of one host, and ip_forward() drops what is not for this host (PACKET_HOST), as TCP
 * does with what is for an address of the node's. So a copy reaches nobody, whatever rules there
 * are. Where it can, the agent has a rule that ends its way behind conntrack
 * (loader/vxlane/host/copies.py): so it costs half as much.
 *
 * conntrack tells its listeners of a change when a packet comes out of it, and no copy does. While
 * there are some (settings.heard), the ACK of the handshake and the one behind both FINs take the
 * kernel path, so that they hear of both in time. Nobody waits for these two.
 */
#ifndef VXLANE_CONNTRACK_H
#define VXLANE_CONNTRACK_H

#include "maps.h"
#include "parse.h"

static __always_inline int is_to_be_shown(const struct packet *packet, const struct flow *flow)
{
	return packet->ip.protocol == IPPROTO_TCP && (!flow->open || flow->closing);
}

/* Writes the copy's destination into the frame, which its caller writes anew. Not 0: conntrack has
 * not been shown it. */
static __always_inline long show_conntrack(struct __sk_buff *skb, __u32 device)
{
	__u8 nobody[ETH_ALEN] = {NOBODY_0, NOBODY_1, NOBODY_2, NOBODY_3, NOBODY_4, NOBODY_5};

	/* With the address that it has, the copy would be forwarded. */
	if (bpf_skb_store_bytes(skb, 0, nobody, sizeof(nobody), 0))
		return -1;
	return bpf_clone_redirect(skb, device, BPF_F_INGRESS);
}

#endif
