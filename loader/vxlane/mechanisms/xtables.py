# SPDX-License-Identifier: Apache-2.0
"""Matches and targets of xtables, as iptables-legacy and iptables-nft both hold them.

Layouts are those of linux/netfilter/xt_*.h and linux/netfilter_ipv4/ip_tables.h. A match that gives
one answer for all packets of a connection (addresses, marks, sets) is a test, decoded or not. A
match that may differ from packet to packet is a Kind. A name in no list is Kind.UNKNOWN. Pure.
"""

from __future__ import annotations

import struct

from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import CHANGING_STATUS, Field, NameTest, NumberTest, Test
from vxlane.mechanisms.rules import Action, Code, Step, Unknown, Verdict

_TCP_INV_SOURCE, _TCP_INV_DESTINATION, _TCP_INV_FLAGS = 1, 2, 4
_CT_NOTRACK = 1
_STATE, _STATUS, _EXPIRES, _STATE_ALIAS = 1, 1 << 6, 1 << 7, 1 << 13  # XT_CONNTRACK_*
# Of xt_conntrack's states, whose other bits are those of nft's ct state.
_STATE_TRANSLATED, _STATE_UNTRACKED = 0xC0, 0x100
_UNTRACKED = 0x40
_LABEL_SET = 2  # XT_CONNLABEL_OP_SET
_PORT_MOST = 0xFFFF
_SET_SIZES, _SET_COUNTED_SIZE = {4, 8}, 48
"""Bytes of xt_set_info_match_v1, which revision 2 has too, bare and aligned; those of revisions 3
and 4."""
_SET_COUNTERS = slice(8, 40)

_OF_CONNECTION = frozenset(
    {
        *("cgroup", "devgroup", "geoip", "iprange", "ipvs", "osf", "owner", "policy"),
        *("realm", "rpfilter", "socket"),
        *("ah", "dccp", "esp", "icmp", "icmp6", "ipcomp", "l2tp", "sctp", "udplite"),
    }
)
"""Matches whose answer is the same for all packets of a bypassed flow."""
_OF_ENTRY = frozenset({"cluster", "connmark", "helper"})
"""Matches like these that test conntrack's entry."""

_MATCHES = {
    "limit": Kind.LIMIT,
    "hashlimit": Kind.LIMIT,
    "rateest": Kind.LIMIT,
    "connlimit": Kind.LIMIT,
    "quota": Kind.QUOTA,
    "connbytes": Kind.CONNBYTES,
    "statistic": Kind.STATISTIC,
    "cpu": Kind.STATISTIC,
    "string": Kind.PAYLOAD,
    "u32": Kind.PAYLOAD,
    "bpf": Kind.PAYLOAD,
    "length": Kind.LENGTH,
    "length2": Kind.LENGTH,
    "time": Kind.TIME,
    "recent": Kind.SET,
    "nfacct": Kind.ACCOUNT,
    "dscp": Kind.HEADER,
    "tos": Kind.HEADER,
    "ecn": Kind.HEADER,
    "ttl": Kind.HEADER,
    "hl": Kind.HEADER,
    "tcpmss": Kind.HEADER,
    "mac": Kind.HEADER,
}

_TRANSLATIONS = frozenset({"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "SAME"})
_HARMLESS = frozenset({"CLUSTERIP", "TCPMSS"})
"""Targets that act on a connection's first packet alone; TCPMSS takes packets with SYN only."""

_TARGETS = {
    "LOG": Kind.LOG,
    "NFLOG": Kind.LOG,
    "ULOG": Kind.LOG,
    "AUDIT": Kind.LOG,
    "TRACE": Kind.LOG,
    "NFQUEUE": Kind.QUEUE,
    "QUEUE": Kind.QUEUE,
    "TEE": Kind.COPY,
    "CONNMARK": Kind.MARK,
    "CLASSIFY": Kind.MARK,
    "HMARK": Kind.MARK,
    "SECMARK": Kind.MARK,
    "CONNSECMARK": Kind.MARK,
    "DSCP": Kind.REWRITE,
    "TOS": Kind.REWRITE,
    "TTL": Kind.REWRITE,
    "HL": Kind.REWRITE,
    "ECN": Kind.REWRITE,
    "CHECKSUM": Kind.REWRITE,
    "TCPOPTSTRIP": Kind.REWRITE,
    "SYNPROXY": Kind.SYNPROXY,
    "TPROXY": Kind.TPROXY,
    "NOTRACK": Kind.NOTRACK,
    "SET": Kind.SET,
    "IDLETIMER": Kind.ACCOUNT,
    "RATEEST": Kind.ACCOUNT,
    "LED": Kind.ACCOUNT,
}


def match_steps(name: str, data: bytes) -> list[Step]:
    """What a match tests. Empty: it fits every packet."""
    if name in _MATCHES:
        return [_MATCHES[name]]
    try:
        if name in _DECODED:
            return _DECODED[name](data)
    except struct.error:
        return [Unknown.CONNECTION]  # an older revision, which is shorter
    if name == "comment":
        return []
    if name in _OF_ENTRY:
        return [Unknown.CONNECTION]
    return [Unknown.TEST] if name in _OF_CONNECTION else [Kind.UNKNOWN]


def target_steps(name: str, data: bytes) -> list[Step]:
    """What a target does. The caller handles the standard target ("") and ERROR."""
    if name in {"DROP", "REJECT"}:
        return [Verdict(Code.DROP)]
    if name == "MARK":
        # Bits that are cleared change nothing: packets come unmarked.
        mark, _ = struct.unpack_from("=II", data)
        return [Kind.MARK] if mark else []
    if name == "CT":
        return list(_ct(data))
    if name in _TARGETS:
        return [_TARGETS[name]]
    if name in _TRANSLATIONS:
        return [Action.TRANSLATE]
    return [] if name in _HARMLESS else [Kind.UNKNOWN]


def _ct(data: bytes) -> list[Kind]:
    flags, zone, _, _, helper = struct.unpack_from("=HHII16s", data)
    found = [Kind.NOTRACK] if flags & _CT_NOTRACK else []
    if zone:
        found.append(Kind.ZONE)
    if helper.rstrip(b"\0"):
        found.append(Kind.HELPER)
    if data[28:60].rstrip(b"\0"):
        found.append(Kind.TIMEOUT)
    return found


def _mark(data: bytes) -> list[Step]:
    mark, _, is_negated = struct.unpack_from("=IIB", data)
    return [Unknown.MARKED if mark and not is_negated else Unknown.TEST]


def _conntrack(data: bytes) -> list[Step]:
    flags, inverted, state, status = struct.unpack_from("=HHHH", data, 146)
    steps: list[Step] = []
    if flags & _STATE and not state & _STATE_TRANSLATED:
        if state & _STATE_UNTRACKED:
            state ^= _STATE_UNTRACKED | _UNTRACKED
        steps.append(state_test(state, is_negated=bool(inverted & _STATE)))
        flags &= ~(_STATE | _STATE_ALIAS)
    if flags:
        steps.append(Unknown.CONNECTION)
    if flags & _EXPIRES or (flags & _STATUS and status & CHANGING_STATUS):
        steps.append(Kind.CONNBYTES)
    return steps


def _connlabel(data: bytes) -> list[Step]:
    _, options = struct.unpack_from("=HH", data)
    return [Kind.MARK if options & _LABEL_SET else Unknown.CONNECTION]


def _state(data: bytes) -> list[Step]:
    return [state_test(struct.unpack_from("=I", data)[0])]


def state_test(mask: int, *, is_negated: bool = False) -> Test:
    """Whether conntrack's state is one of those in `mask`."""
    return NumberTest(Field.STATE, ((0, 0),), is_negated=not is_negated, mask=mask)


def _tcp(data: bytes) -> list[Step]:
    first, last, first_to, last_to, option, mask, wanted, inverted = struct.unpack_from(
        "=HHHHBBBB", data
    )
    steps = _ports(Field.SOURCE_PORT, first, last, inverted & _TCP_INV_SOURCE)
    steps += _ports(Field.DESTINATION_PORT, first_to, last_to, inverted & _TCP_INV_DESTINATION)
    if mask:
        is_negated = bool(inverted & _TCP_INV_FLAGS)
        steps.append(NumberTest(Field.TCP_FLAGS, ((wanted, wanted),), is_negated, mask))
    return [*steps, Kind.HEADER] if option else steps


def _udp(data: bytes) -> list[Step]:
    first, last, first_to, last_to, inverted = struct.unpack_from("=HHHHB", data)
    steps = _ports(Field.SOURCE_PORT, first, last, inverted & _TCP_INV_SOURCE)
    return steps + _ports(
        Field.DESTINATION_PORT, first_to, last_to, inverted & _TCP_INV_DESTINATION
    )


def _ports(field: Field, first: int, last: int, inverted: int) -> list[Step]:
    if (first, last) == (0, _PORT_MOST):
        return []
    return [NumberTest(field, ((first, last),), is_negated=bool(inverted))]


def _multiport(data: bytes) -> list[Step]:
    which, count = data[:2]
    ports = struct.unpack_from("=15H", data, 2)[:count]
    flags, is_negated = data[32:47], bool(data[47:48].strip(b"\0"))
    if which not in _MULTIPORT_FIELDS:
        return [Unknown.TEST]
    ranges, numbers = [], iter(range(count))
    for number in numbers:
        last = next(numbers, number) if flags[number : number + 1] == b"\1" else number
        ranges.append((ports[number], ports[last]))
    return [NumberTest(_MULTIPORT_FIELDS[which], tuple(ranges), is_negated)]


_MULTIPORT_FIELDS = {0: Field.SOURCE_PORT, 1: Field.DESTINATION_PORT}


def _addrtype(data: bytes) -> list[Step]:
    if len(data) >= 12:  # revision 0: both inversions as numbers of their own
        source, destination, not_source, not_destination = struct.unpack_from("=HHII", data)
    else:
        source, destination, flags = struct.unpack_from("=HHI", data)
        not_source, not_destination = flags & 1, flags & 2
    steps: list[Step] = []
    for field, mask, inverted in (
        (Field.SOURCE_TYPE, source, not_source),
        (Field.DESTINATION_TYPE, destination, not_destination),
    ):
        if mask:
            types = tuple((bit, bit) for bit in range(12) if mask >> bit & 1)
            steps.append(NumberTest(field, types, bool(inverted)))
    return steps


def _set(data: bytes) -> list[Step]:
    """Revisions 3 and 4 can ask how much an element has counted. Their comparison and its value
    change places, and both are 0 where nothing is asked (IPSET_COUNTER_NONE).
    """
    if len(data) == _SET_COUNTED_SIZE:
        return [Kind.QUOTA] if any(data[_SET_COUNTERS]) else [Unknown.TEST]
    return [Unknown.TEST] if len(data) in _SET_SIZES else [Kind.UNKNOWN]


def _physdev(data: bytes) -> list[Step]:
    port, mask, out, out_mask, inverted, which = struct.unpack_from("=16s16s16s16sBB", data)
    steps: list[Step] = []
    if which & 1:
        steps.append(name_test(Field.IN_PORT, port, mask, is_negated=bool(inverted & 1)))
    if which & 2:
        steps.append(name_test(Field.OUT_PORT, out, out_mask, is_negated=bool(inverted & 2)))
    # --physdev-is-in and its like ask too whether the packet came from a port.
    return [*steps, Field.IN_PORT]


def _pkttype(data: bytes) -> list[Step]:
    kind, is_negated = struct.unpack_from("=II", data)
    return [NumberTest(Field.PACKET_TYPE, ((kind, kind),), bool(is_negated))]


def name_test(field: Field, name: bytes, mask: bytes, *, is_negated: bool = False) -> Test:
    """A device's name with a mask of 0xff for each byte that counts, the NUL of a whole one too.

    iptables-legacy leaves the + of a prefix in the name, behind the mask.
    """
    size = sum(map(bool, mask))
    text = name[:size].rstrip(b"\0").decode(errors="replace")
    return NameTest(field, frozenset({text if size > len(text) else f"{text}*"}), is_negated)


_DECODED = {
    "connlabel": _connlabel,
    "conntrack": _conntrack,
    "mark": _mark,
    "state": _state,
    "tcp": _tcp,
    "udp": _udp,
    "multiport": _multiport,
    "addrtype": _addrtype,
    "physdev": _physdev,
    "pkttype": _pkttype,
    "set": _set,
}
