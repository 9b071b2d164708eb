# SPDX-License-Identifier: Apache-2.0
"""Which ports of bridges nftables checks by name: the bridge plugin's macspoofchk, or the like.

Asked for with every pod, so rules are read only after nftables has another generation, which each
transaction makes. They are read by a netlink dump of the bridge family alone. `nft list ruleset
bridge` would load the tables of all families first: 0.2 to 1.6 s beside thousands of Services.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from vxlane.netlink import nfnetlink as nf
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import (
    NetlinkSocket,
    Request,
    attribute,
    attribute_list,
    attributes,
)
from vxlane.util.names import device_name

_INDEXES = {nf.NFT_META_IIF, nf.NFT_META_OIF}
_NAMES = {nf.NFT_META_IIFNAME, nf.NFT_META_OIFNAME}
_IFNAMSIZ = 16
_REGISTER_BYTES, _OLD_REGISTER_BYTES = 4, 16
_FIRST_REGISTER, _FIRST_OLD_REGISTER = 8, 1  # NFT_REG32_00, NFT_REG_1


@dataclass(frozen=True, slots=True)
class PortNames:
    """Names of devices; `name in ports` is how they are asked."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    """What stands before the asterisk in names such as "veth*"."""

    def __contains__(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.prefixes)


class CheckedPorts:
    """Names of the devices that some rule of a bridge table matches on.

    A packet that is bypassed does not meet those rules, whatever they check.
    """

    def __init__(self) -> None:
        self._generation: bytes | int | None = None
        self._names = PortNames()

    def names(self) -> PortNames:
        """The names, as of now."""
        netlink = NetlinkSocket(nf.NETLINK_NETFILTER)
        try:
            # Before the rules: should they change in between, the next call reads them again.
            (generation,) = netlink.request([_request(nf.NFT_MSG_GETGEN, socket.AF_UNSPEC)])
            if isinstance(generation, int):
                return PortNames()  # this kernel has no nftables
            if generation != self._generation:
                self._names = _read(netlink)
                self._generation = generation
        finally:
            netlink.close()
        return self._names


def _request(kind: int, family: int, *selection: bytes) -> Request:
    return Request(kind, nf.NFGENMSG.pack(family, 0, 0) + b"".join(selection))


def _read(netlink: NetlinkSocket) -> PortNames:
    exact: set[str] = set()
    prefixes: set[str] = set()
    for body in netlink.dump(_request(nf.NFT_MSG_GETRULE, nf.NFPROTO_BRIDGE)):
        rule = attributes(body, nf.NFGENMSG.size)
        table = rule[nf.NFTA_RULE_TABLE]
        for value, is_prefix in _compared(netlink, table, rule.get(nf.NFTA_RULE_EXPRESSIONS, b"")):
            (prefixes if is_prefix else exact).add(value)
    return PortNames(frozenset(exact), tuple(sorted(prefixes)))


def _compared(netlink: NetlinkSocket, table: bytes, rule: bytes) -> Iterator[tuple[str, bool]]:
    """The names that one rule compares a packet's ports with, and whether each is a prefix.

    Registers are not followed beyond the ports that they were loaded with. A value that is
    compared with such a register after something else was loaded is taken for a name too; no
    device has that name.
    """
    loaded: dict[int, int] = {}  # place of a register in bytes -> NFT_META_*
    for _, element in attribute_list(rule):
        expression = attributes(element, 0)
        name = expression[nf.NFTA_EXPR_NAME].rstrip(b"\0")
        data = attributes(expression.get(nf.NFTA_EXPR_DATA, b""), 0)
        if name == b"meta" and nf.NFTA_META_DREG in data:
            loaded[_place(data[nf.NFTA_META_DREG])] = _number(data[nf.NFTA_META_KEY])
        elif name == b"cmp":
            value = attributes(data[nf.NFTA_CMP_DATA], 0)[nf.NFTA_DATA_VALUE]
            yield from _ports(loaded, _place(data[nf.NFTA_CMP_SREG]), value, is_interval=False)
        elif name == b"lookup":
            start, named = _place(data[nf.NFTA_LOOKUP_SREG]), data[nf.NFTA_LOOKUP_SET]
            elements = _elements(netlink, table, named) if loaded else []
            # The end of an interval of names, such as "veth*", is an element of its own.
            is_interval = any(is_end for _, is_end in elements)
            for value, is_end in elements:
                if not is_end:
                    yield from _ports(loaded, start, value, is_interval=is_interval)


def _ports(
    loaded: dict[int, int], start: int, value: bytes, *, is_interval: bool
) -> Iterator[tuple[str, bool]]:
    """The ports' names in `value`, which is compared with the registers from `start` on."""
    for place, key in loaded.items():
        part = value[place - start :][:_IFNAMSIZ] if place >= start else b""
        if key in _INDEXES and len(part) >= rt.U32.size:
            yield device_name(rt.U32.unpack_from(part)[0]), False
        elif key in _NAMES and part:
            # "veth*" is compared as four bytes without the NUL that ends a whole name.
            is_prefix = is_interval or (b"\0" not in part and len(part) < _IFNAMSIZ)
            yield part.partition(b"\0")[0].decode(errors="replace"), is_prefix


def _elements(netlink: NetlinkSocket, table: bytes, named: bytes) -> list[tuple[bytes, bool]]:
    """Keys of a set's elements, and whether each is the end of an interval."""
    selection = attribute(nf.NFTA_SET_ELEM_LIST_TABLE, table)
    selection += attribute(nf.NFTA_SET_ELEM_LIST_SET, named)
    found = []
    for body in netlink.dump(_request(nf.NFT_MSG_GETSETELEM, nf.NFPROTO_BRIDGE, selection)):
        listed = attributes(body, nf.NFGENMSG.size).get(nf.NFTA_SET_ELEM_LIST_ELEMENTS, b"")
        for _, octets in attribute_list(listed):
            element = attributes(octets, 0)
            key = attributes(element.get(nf.NFTA_SET_ELEM_KEY, b""), 0)
            flags = _number(element.get(nf.NFTA_SET_ELEM_FLAGS, bytes(4)))
            is_end = bool(flags & nf.NFT_SET_ELEM_INTERVAL_END)
            found.append((key.get(nf.NFTA_DATA_VALUE, b""), is_end))
    return found


def _place(register: bytes) -> int:
    """Where a register begins among all registers, bytes: old ones are four of today's."""
    number = _number(register)
    if number < _FIRST_REGISTER:
        return (number - _FIRST_OLD_REGISTER) * _OLD_REGISTER_BYTES
    return (number - _FIRST_REGISTER) * _REGISTER_BYTES


def _number(value: bytes) -> int:
    """A number of nftables', big-endian."""
    return int(rt.BE32.unpack(value)[0])
