# SPDX-License-Identifier: Apache-2.0
"""What nftables' expressions, keys and header fields mean for a packet of a bypassed flow. Pure."""

from __future__ import annotations

from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import Field
from vxlane.mechanisms.rules import Unknown
from vxlane.netlink import nftables as nft

ACTIONS = {
    "limit": Kind.LIMIT,
    "connlimit": Kind.LIMIT,
    "quota": Kind.QUOTA,
    "numgen": Kind.STATISTIC,
    "inner": Kind.PAYLOAD,
    "dynset": Kind.SET,
    "log": Kind.LOG,
    "queue": Kind.QUEUE,
    "dup": Kind.COPY,
    "fwd": Kind.COPY,
    "synproxy": Kind.SYNPROXY,
    "tproxy": Kind.TPROXY,
    "flow_offload": Kind.FLOWTABLE,
    "notrack": Kind.NOTRACK,
}
"""Expressions that are a mechanism by themselves, by name."""
HARMLESS = frozenset({"counter", "last"})
TRANSLATIONS = frozenset({"nat", "masq", "redir"})
OF_CONNECTION = frozenset({"hash", "socket", "osf", "rt", "xfrm", "tunnel", "secmark"})
"""Expressions whose outcome is the same for all packets of a flow."""
DESTINATIONS = {
    "byteorder": nft.NFTA_BYTEORDER_DREG,
    "hash": nft.NFTA_HASH_DREG,
    "numgen": nft.NFTA_NG_DREG,
    "osf": nft.NFTA_OSF_DREG,
    "rt": nft.NFTA_RT_DREG,
    "socket": nft.NFTA_SOCKET_DREG,
    "tunnel": nft.NFTA_TUNNEL_DREG,
    "xfrm": nft.NFTA_XFRM_DREG,
}
"""Expressions that write a value that is not decoded: the attribute that names the register."""
SOURCES = {
    "byteorder": (nft.NFTA_BYTEORDER_SREG, nft.NFTA_BYTEORDER_LEN),
    "hash": (nft.NFTA_HASH_SREG, nft.NFTA_HASH_LEN),
}
"""Those that work it out from registers: the attributes of the first one and of the length."""
OF_ONE_REGISTER = frozenset(
    {nft.NFT_BITWISE_MASK_XOR, nft.NFT_BITWISE_LSHIFT, nft.NFT_BITWISE_RSHIFT}
)
"""Operations of bitwise that a constant takes part in. Since Linux 6.13 there are others."""

OBJECTS = {
    nft.NFT_OBJECT_COUNTER: Kind.ACCOUNT,
    nft.NFT_OBJECT_QUOTA: Kind.QUOTA,
    nft.NFT_OBJECT_CT_HELPER: Kind.HELPER,
    nft.NFT_OBJECT_LIMIT: Kind.LIMIT,
    nft.NFT_OBJECT_CONNLIMIT: Kind.LIMIT,
    nft.NFT_OBJECT_CT_TIMEOUT: Kind.TIMEOUT,
    nft.NFT_OBJECT_SECMARK: Kind.MARK,
    nft.NFT_OBJECT_CT_EXPECT: Kind.HELPER,
    nft.NFT_OBJECT_SYNPROXY: Kind.SYNPROXY,
}

META_KINDS = {
    nft.NFT_META_LEN: Kind.LENGTH,
    nft.NFT_META_PRIORITY: Kind.HEADER,  # ip_forward() sets it from each packet's TOS
    nft.NFT_META_CPU: Kind.STATISTIC,
    nft.NFT_META_PRANDOM: Kind.STATISTIC,
    nft.NFT_META_TIME_NS: Kind.TIME,
    nft.NFT_META_TIME_DAY: Kind.TIME,
    nft.NFT_META_TIME_HOUR: Kind.TIME,
}
"""Keys that are read."""
META_SETS = {
    nft.NFT_META_MARK: Kind.MARK,
    nft.NFT_META_PRIORITY: Kind.MARK,
    nft.NFT_META_SECMARK: Kind.MARK,
    nft.NFT_META_NFTRACE: Kind.LOG,
}
"""Keys that are written; the others rewrite the packet."""
META_NUMBERS = {
    nft.NFT_META_PROTOCOL: Field.ETHERTYPE,
    nft.NFT_META_NFPROTO: Field.FAMILY,
    nft.NFT_META_L4PROTO: Field.PROTOCOL,
    nft.NFT_META_PKTTYPE: Field.PACKET_TYPE,
}
META_NAMES = {
    nft.NFT_META_IIFNAME: Field.IN,
    nft.NFT_META_OIFNAME: Field.OUT,
    nft.NFT_META_BRI_IIFNAME: Field.IN,
    nft.NFT_META_BRI_OIFNAME: Field.OUT,
}
META_INDEXES = {nft.NFT_META_IIF: Field.IN, nft.NFT_META_OIF: Field.OUT}
META_PORTS = frozenset(
    {nft.NFT_META_IIF, nft.NFT_META_OIF, nft.NFT_META_IIFNAME, nft.NFT_META_OIFNAME}
)
"""Keys that mean a bridge's port in the bridge family."""

CT_KINDS = {
    nft.NFT_CT_EXPIRATION: Kind.CONNBYTES,
    nft.NFT_CT_PKTS: Kind.CONNBYTES,
    nft.NFT_CT_BYTES: Kind.CONNBYTES,
    nft.NFT_CT_AVGPKT: Kind.CONNBYTES,
}

LAYOUT: dict[int, tuple[tuple[int, int, Field | Kind | Unknown], ...]] = {
    nft.NFT_PAYLOAD_LL_HEADER: (
        (0, 6, Kind.HEADER),
        (6, 6, Kind.HEADER),
        (12, 2, Field.ETHERTYPE),
    ),
    nft.NFT_PAYLOAD_NETWORK_HEADER: (
        (0, 1, Unknown.TEST),  # version and length: options are not bypassed
        (1, 1, Kind.HEADER),
        (2, 2, Kind.LENGTH),
        (4, 2, Kind.HEADER),
        (6, 2, Field.FRAGMENT),
        (8, 1, Kind.HEADER),
        (9, 1, Field.PROTOCOL),
        (10, 2, Kind.HEADER),
        (12, 4, Field.SOURCE),
        (16, 4, Field.DESTINATION),
    ),
    # The first bytes are an ICMP message's type and code too: of one flow they stay the same. The
    # next two are its checksum (see Decoder._beside_tcp).
    nft.NFT_PAYLOAD_TRANSPORT_HEADER: (
        (0, 2, Field.SOURCE_PORT),
        (2, 2, Field.DESTINATION_PORT),
        (13, 1, Field.TCP_FLAGS),
    ),
}
"""Of each header: offset, bytes and meaning. All else is content."""
