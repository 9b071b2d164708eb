# SPDX-License-Identifier: Apache-2.0
"""Reads nftables' rules from the kernel, chain by chain, and only those that are asked for.

The kernel selects a dump's rules by table and chain. So what nobody walks, such as the ten
thousand nat chains of kube-proxy, costs nothing.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from vxlane.errors import KernelError
from vxlane.host.events import ObjectName, RulesetChange
from vxlane.mechanisms.nft import ACTIONS, OBJECTS, Decoder, SetContent, verdict_of
from vxlane.mechanisms.rules import Base, ChainKey, Family, Rule, Verdict
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attribute_list, attributes

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = 4, 7, 10, 13
_HEADER = struct.Struct("=BBH")  # nfgenmsg: family, version, resource
_BE32 = struct.Struct(">I")
_ANONYMOUS, _CONSTANT = 1, 2
_INTERVAL_END, _CATCH_ALL = 1, 2


class NftReader:
    """The rules of this thread's network namespace, remembered until they are forgotten."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(_NETLINK_NETFILTER)
        self._bases: tuple[Base, ...] | None = None
        self._rules: dict[ChainKey, tuple[Rule, ...]] = {}
        self._sets: set[ObjectName] = set()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    @property
    def known(self) -> frozenset[ObjectName]:
        """The chains and sets that were asked for."""
        chains = {(int(key.family), key.table, key.chain) for key in self._rules}
        return frozenset(chains | self._sets)

    def forget(self, change: RulesetChange) -> None:
        """Read anew what is asked for of what changed."""
        if change.lost or change.bases:
            self._bases = None
        tables = {(family, table) for family, table, _ in change.names & self._sets}
        self._rules = {
            key: rules
            for key, rules in self._rules.items()
            if not change.lost
            and (key.family, key.table, key.chain) not in change.names
            and (key.family, key.table) not in tables
        }

    def bases(self) -> tuple[Base, ...]:
        """The chains that the kernel calls, of the families that packets of pods meet."""
        if self._bases is None:
            bodies = self._dump(_GETCHAIN, socket.AF_UNSPEC, b"")
            self._bases = tuple(base for body in bodies if (base := _base(body)))
        return self._bases

    def rules(self, key: ChainKey) -> tuple[Rule, ...]:
        """The rules of one chain; none where there is no such chain."""
        if key not in self._rules:
            wanted = _string(1, key.table) + _string(2, key.chain)
            decoder = Decoder(key.family, lambda name: self._set(key, name), _device)
            bodies = self._dump(_GETRULE, key.family, wanted)
            # Expressions are missing from a rule that has none.
            found = (attributes(body, _HEADER.size).get(4, b"") for body in bodies)
            self._rules[key] = tuple(decoder.rule(expressions) for expressions in found)
        return self._rules[key]

    def _set(self, key: ChainKey, name: str) -> SetContent:
        """What a set holds, as far as a rule can be judged by it."""
        self._sets.add((int(key.family), key.table, name))
        header = _HEADER.pack(key.family, 0, 0)
        which = _string(1, key.table) + _string(2, name)
        (answer,) = self._netlink.request([Request(_SUBSYSTEM | _GETSET, header + which)])
        if isinstance(answer, int):
            return SetContent((), is_whole=False)
        found = attributes(answer, _HEADER.size)
        flags = _be32(found, 3)
        is_fixed = bool(flags & (_ANONYMOUS | _CONSTANT))
        kinds = tuple(kind for name in _expressions(found) if (kind := ACTIONS.get(name)))
        objects = OBJECTS.get(_be32(found, 15))
        is_verdicts = _be32(found, 6) == _DATA_VERDICT
        if not is_fixed and not is_verdicts:
            return SetContent((), is_whole=False, kinds=kinds, objects=objects)
        bodies = self._dump(_GETSETELEM, key.family, which)
        elements = tuple(_intervals(element for body in bodies for element in _elements(body)))
        return SetContent(elements, is_fixed, kinds, objects)

    def _dump(self, kind: int, family: int, wanted: bytes) -> list[bytes]:
        body = _HEADER.pack(family, 0, 0) + wanted
        try:
            return self._netlink.dump(Request(_SUBSYSTEM | kind, body))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return []  # it went meanwhile, and an event says so
            raise


_DATA_VERDICT = 0xFFFFFF00
_Element = tuple[bytes, bytes, int, Verdict | None]
"""Key, last key (empty: not told), flags and, of a map to verdicts, the verdict."""


def _base(body: bytes) -> Base | None:
    """The chain of an NFT_MSG_NEWCHAIN, if the kernel calls it for packets of pods."""
    family = body[0]
    found = attributes(body, _HEADER.size)
    if 4 not in found or family not in set(Family):
        return None
    hook = attributes(found[4], 0)
    devices = {_text(value) for _, value in attribute_list(hook.get(4, b""))}
    if 3 in hook:
        devices.add(_text(hook[3]))
    return Base(
        ChainKey(Family(family), _text(found[1]), _text(found[3])),
        _be32(hook, 1),
        is_nat=_text(found.get(7, b"")) == "nat",
        devices=frozenset(devices),
    )


def _elements(body: bytes) -> Iterator[_Element]:
    """The elements of one message of a dump."""
    for _, element in attribute_list(attributes(body, _HEADER.size).get(3, b"")):
        found = attributes(element, 0)
        key = attributes(found.get(1, b""), 0).get(1, b"")
        last = attributes(found.get(10, b""), 0).get(1, b"")
        yield key, last, _be32(found, 3), verdict_of(found.get(2, b""))


def _intervals(elements: Iterator[_Element]) -> Iterator[tuple[bytes, bytes, Verdict | None]]:
    """First and last key of each element.

    The last key of an interval is one below an element of its own that carries a flag; of a
    concatenation it is told (NFTA_SET_ELEM_KEY_END).
    """
    found = list(elements)
    ends = sorted(key for key, _, flags, _ in found if flags & _INTERVAL_END)
    for key, last, flags, verdict in found:
        if flags & _CATCH_ALL:
            yield bytes(16), b"\xff" * 16, verdict
        elif not flags & _INTERVAL_END:
            end = next((end for end in ends if end > key), None) if ends else key
            yield key, last or _before(end, key), verdict


def _before(end: bytes | None, key: bytes) -> bytes:
    if end is None:
        return b"\xff" * len(key)  # to the end of all keys
    if end == key:
        return key
    return (int.from_bytes(end, "big") - 1).to_bytes(len(end), "big")


def _expressions(found: dict[int, bytes]) -> Iterator[str]:
    """Names of what a set does for each element (NFTA_SET_EXPR, NFTA_SET_EXPRESSIONS)."""
    alone = [found[17]] if 17 in found else []
    listed = [value for _, value in attribute_list(found.get(18, b""))]
    for expression in alone + listed:
        yield _text(attributes(expression, 0).get(1, b""))


def _device(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return ""


def _string(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _be32(found: dict[int, bytes], key: int) -> int:
    return int(_BE32.unpack(found[key])[0]) if key in found else 0


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
