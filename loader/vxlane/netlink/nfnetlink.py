# SPDX-License-Identifier: Apache-2.0
"""nfnetlink's numbers under the kernel's own names, of nftables and of conntrack.

Sources: linux/netfilter/nfnetlink.h, nf_tables.h, nfnetlink_conntrack.h, nf_conntrack_tcp.h. Only
what vxlane uses. Pure.
"""

from __future__ import annotations

import struct

NETLINK_NETFILTER = 12
NFGENMSG = struct.Struct(">BBH")  # family, version, resource

_CTNETLINK, _NFTABLES = 1 << 8, 10 << 8  # NFNL_SUBSYS_*, the high byte of a message's type

IPCTNL_MSG_CT_NEW = _CTNETLINK | 0
"""Also changes an entry that is there."""
CTA_TUPLE_ORIG, CTA_PROTOINFO, CTA_TIMEOUT = 1, 4, 7
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_PROTOINFO_TCP = 1
CTA_PROTOINFO_TCP_STATE = 1
CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY = 4, 5
TCP_CONNTRACK_CLOSE = 8
IP_CT_TCP_FLAG_BE_LIBERAL = 0x08

NFNLGRP_NFTABLES = 7
NFT_MSG_NEWGEN = _NFTABLES | 15
"""The end of every transaction, of nft and iptables-nft alike."""
NFT_MSG_GETGEN = _NFTABLES | 16
NFT_MSG_GETRULE, NFT_MSG_GETSETELEM = _NFTABLES | 7, _NFTABLES | 13
NFPROTO_BRIDGE = 7
NFTA_RULE_TABLE, NFTA_RULE_EXPRESSIONS = 1, 4
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_META_DREG, NFTA_META_KEY = 1, 2
NFT_META_IIF, NFT_META_OIF, NFT_META_IIFNAME, NFT_META_OIFNAME = 4, 5, 6, 7
NFTA_CMP_SREG, NFTA_CMP_DATA = 1, 3
NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG = 1, 2
NFTA_DATA_VALUE = 1
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_FLAGS = 1, 3
NFT_SET_ELEM_INTERVAL_END = 1
