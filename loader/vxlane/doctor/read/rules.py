# SPDX-License-Identifier: Apache-2.0
"""Reads netfilter's rules: nftables', iptables-legacy's, and ipsets.

Chains are walked from those that the kernel calls. What only nat chains lead to is not read:
kube-proxy has ten thousand of these, and they see a connection's first packet only.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence

from vxlane.doctor.facts import Rules
from vxlane.errors import KernelError
from vxlane.mechanisms.legacy_reader import LegacyReader
from vxlane.mechanisms.nft_reader import NftReader
from vxlane.mechanisms.packet import ESTABLISHED, INVALID, Field, NumberTest
from vxlane.mechanisms.rules import Base, ChainKey, Code, Family, Hook, Rule, Verdict
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes, text_of

_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_OF_PODS = (Family.IP, Family.INET)
_HOOKS = (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING)


def rules() -> Rules:
    """The rules of this thread's network namespace."""
    with (
        contextlib.closing(NftReader()) as nft,
        contextlib.closing(LegacyReader()) as legacy,
        contextlib.closing(NetlinkSocket(nf.NETLINK_NETFILTER)) as netlink,
    ):
        try:
            legacy.refresh()
            dropping = {
                *_dropping(nft.bases(), nft.rules),
                *_dropping(legacy.bases(), legacy.rules),
            }
            return Rules(
                chains=frozenset(_chains(netlink)),
                invalid=tuple(sorted(dropping)),
                legacy=_counted(legacy),
                sets=tuple(_sets(netlink)),
                flowtables=tuple(_flowtables(netlink)),
            )
        except KernelError as error:
            return Rules(legacy={}, error=f"not all rules could be read: {error}")


def _dropping(bases: Sequence[Base], rules: Callable[[ChainKey], Sequence[Rule]]) -> Iterator[str]:
    """Chains with a rule that drops what is INVALID of forwarded packets."""
    waiting = [
        base.key
        for base in bases
        if not base.is_nat and base.key.family in _OF_PODS and base.hook in _HOOKS
    ]
    seen: set[ChainKey] = set()
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        for rule in rules(key):
            verdicts = [step for step in rule if isinstance(step, Verdict)]
            waiting += [
                ChainKey(key.family, key.table, verdict.chain, key.is_legacy)
                for verdict in verdicts
                if verdict.code in {Code.JUMP, Code.GOTO}
            ]
            if any(verdict.code is Code.DROP for verdict in verdicts) and _is_of_invalid(rule):
                yield str(key)


def _is_of_invalid(rule: Rule) -> bool:
    """Whether a test of it fits INVALID packets and not those of a known connection."""
    states = [s for s in rule if isinstance(s, NumberTest) and s.field is Field.STATE]
    return any(_fits(test, INVALID) and not _fits(test, ESTABLISHED) for test in states)


def _fits(test: NumberTest, state: int) -> bool:
    value = state if test.mask is None else state & test.mask
    return any(low <= value <= high for low, high in test.ranges) is not test.is_negated


def _counted(legacy: LegacyReader) -> dict[str, int]:
    """How many rules the chains have that the kernel calls, by table."""
    counts: dict[str, int] = {}
    for base in legacy.bases():
        counts[base.key.table] = counts.get(base.key.table, 0) + len(legacy.rules(base.key))
    return counts


def _chains(netlink: NetlinkSocket) -> Iterator[str]:
    for body in _dump(netlink, nf.NFT_MSG_GETCHAIN, b""):
        yield text_of(attributes(body, nf.NFGENMSG.size)[nf.NFTA_CHAIN_NAME])


def _flowtables(netlink: NetlinkSocket) -> Iterator[str]:
    for body in _dump(netlink, nf.NFT_MSG_GETFLOWTABLE, b""):
        found = attributes(body, nf.NFGENMSG.size)
        names = (text_of(found[nf.NFTA_FLOWTABLE_TABLE]), text_of(found[nf.NFTA_FLOWTABLE_NAME]))
        yield " ".join((_FAMILIES.get(body[0], str(body[0])), *names))


def _sets(netlink: NetlinkSocket) -> Iterator[str]:
    """The ipsets that some rule refers to."""
    wanted = attribute(nf.IPSET_ATTR_PROTOCOL, bytes([nf.IPSET_PROTOCOL]))
    # Without their members, which may be many thousands.
    wanted += attribute(nf.IPSET_ATTR_FLAGS | _NET_ORDER, rt.BE32.pack(nf.IPSET_FLAG_LIST_HEADER))
    for body in _dump(netlink, nf.IPSET_CMD_LIST, wanted):
        found = attributes(body, nf.NFGENMSG.size)
        data = attributes(found.get(nf.IPSET_ATTR_DATA, b""), 0)
        references = data.get(nf.IPSET_ATTR_REFERENCES, bytes(4))
        if any(references):
            yield text_of(found[nf.IPSET_ATTR_SETNAME])


_NET_ORDER = 1 << 14  # NLA_F_NET_BYTEORDER, on which ipset insists


def _dump(netlink: NetlinkSocket, kind: int, wanted: bytes) -> list[bytes]:
    try:
        return netlink.dump(Request(kind, nf.NFGENMSG.pack(socket.AF_UNSPEC, 0, 0) + wanted))
    except KernelError:
        return []  # this kernel has none of them
