# SPDX-License-Identifier: Apache-2.0
"""rtnetlink's numbers and headers under the kernel's own names; what they mean is rtnetlink(7).

Sources: linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h, linux/pkt_sched.h, linux/pkt_cls.h
and linux/net_namespace.h. Only what vxlane uses. Pure.
"""

from __future__ import annotations

import struct

# Message types; each object has NEW, DEL and GET.
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE = 32, 33
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
RTM_GETNSID = 90
RTM_NEWNEXTHOP, RTM_DELNEXTHOP = 104, 105

# Multicast groups (RTNLGRP_*).
RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_TC = 1, 3, 4
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE = 5, 7, 8
RTNLGRP_NEXTHOP = 32

# Headers of messages.
IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
RTMSG = struct.Struct("=8BI")  # family, dst_len, src_len, tos, table, protocol, scope, type; flags
RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, ifindex; attributes follow
NDMSG = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type
RTGENMSG = struct.Struct("=Bxxx")  # family
TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, ifindex
IFINDEX = struct.Struct("=xxxxi")  # of ifinfomsg, ifaddrmsg, ndmsg and tcmsg alike

# Values of attributes.
U32 = struct.Struct("=I")
S32 = struct.Struct("=i")
BE32 = struct.Struct("!I")

IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_QDISC = 1, 3, 4, 5, 6
IFLA_MASTER, IFLA_LINKINFO, IFLA_EXT_MASK = 10, 18, 29
IFLA_STATS64, IFLA_NET_NS_FD = 23, 28
IFLA_GSO_MAX_SEGS, IFLA_GSO_IPV4_MAX_SIZE = 40, 63
IFLA_LINK_NETNSID, IFLA_XDP, IFLA_TARGET_NETNSID = 37, 43, 46
IFLA_XDP_ATTACHED = 2
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_BR_VLAN_FILTERING, IFLA_BR_NF_CALL_IPTABLES = 7, 36
IFLA_BRPORT_LEARNING, IFLA_BRPORT_ISOLATED, IFLA_BRPORT_LOCKED = 8, 33, 39
IFLA_VXLAN_ID, IFLA_VXLAN_GROUP, IFLA_VXLAN_LOCAL = 1, 2, 4
IFLA_VXLAN_PORT_RANGE, IFLA_VXLAN_PORT = 10, 15
IFA_LOCAL = 2
RTEXT_FILTER_SKIP_STATS = 1 << 3

NETNSA_NSID, NETNSA_FD = 1, 3

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_METRICS = 1, 2, 4, 5, 6, 8
RTA_MULTIPATH, RTA_VIA = 9, 18
RTA_IP_PROTO, RTA_DPORT = 27, 29
RTM_F_FIB_MATCH = 0x2000
"""Answer the route that was found, not the one way of it that would be taken (Linux 4.13)."""
RTAX_MTU = 2
RTN_UNICAST, RTN_LOCAL = 1, 2
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE, RT_SCOPE_NOWHERE = 0, 255
RTNH_F_ONLINK = 4

NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_PERMANENT = 0x80
NTF_SELF = 0x02

TC_H_CLSACT = 0xFFFFFFF1
"""Also TC_H_INGRESS: a device's one qdisc of either kind has this parent."""
CLSACT_HANDLE = 0xFFFF0000
CLSACT_INGRESS, CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
"""Parents of its filters: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS or TC_H_MIN_EGRESS)."""
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS = 6, 7, 8
TCA_BPF_FLAG_ACT_DIRECT = 1
