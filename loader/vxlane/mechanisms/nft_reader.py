# SPDX-License-Identifier: Apache-2.0
"""Reads nftables' rules from the kernel, one chain at a time, when they are asked for.

The kernel can dump the rules of one chain. So chains that no walk reaches cost nothing, such as the
ten thousand nat chains of kube-proxy.
"""

from __future__ import annotations

import errno
import socket
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vxlane.errors import KernelError
from vxlane.host.events import ObjectName, RulesetChange
from vxlane.host.own_tables import OWN_TABLES
from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.nft import Decoder
from vxlane.mechanisms.nft_register import SetContent, data_of, verdict_of
from vxlane.mechanisms.nft_words import ACTIONS, HARMLESS, OBJECTS
from vxlane.mechanisms.rules import Base, ChainKey, Family, Rule, Verdict
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink import nftables as nft
from vxlane.netlink.socket import (
    NetlinkSocket,
    Request,
    attribute_list,
    attributes,
    be32_of,
    string_attribute,
    text_of,
)
from vxlane.util.names import device_name


class NftReader:
    """The rules of this thread's network namespace. They are kept until `forget` drops them."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(nf.NETLINK_NETFILTER)
        self._bases: tuple[Base, ...] | None = None
        self._rules: dict[ChainKey, tuple[Rule, ...]] = {}
        self._sets: set[ObjectName] = set()
        self._by_number: set[ChainKey] = set()
        """Chains with a rule that names a device by its number."""

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    @property
    def known(self) -> frozenset[ObjectName]:
        """The chains and sets that were asked for."""
        chains = {(int(key.family), key.table, key.chain) for key in self._rules}
        return frozenset(chains | self._sets)

    def forget(self, change: RulesetChange) -> None:
        """Drop what changed, so that it is read again when it is asked for."""
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
        self._by_number &= self._rules.keys()

    def forget_devices(self) -> None:
        """Drop what may be about another device by now. A device that is made, removed or renamed
        brings no event of nftables.
        """
        for key in self._by_number:
            self._rules.pop(key, None)
        self._by_number.clear()

    def bases(self) -> tuple[Base, ...]:
        """The base chains of the families that may see packets of pods."""
        if self._bases is None:
            bodies = self._dump(nf.NFT_MSG_GETCHAIN, socket.AF_UNSPEC, b"")
            self._bases = tuple(base for body in bodies if (base := _base(body)))
        return self._bases

    def rules(self, key: ChainKey) -> tuple[Rule, ...]:
        """The rules of one chain; none where there is no such chain."""
        if key not in self._rules:
            wanted = string_attribute(nf.NFTA_RULE_TABLE, key.table)
            wanted += string_attribute(nf.NFTA_RULE_CHAIN, key.chain)
            decoder = Decoder(
                key.family,
                lambda name: self._set(key, name),
                lambda ifindex: self._device(key, ifindex),
            )
            bodies = self._dump(nf.NFT_MSG_GETRULE, key.family, wanted)
            # Expressions are missing from a rule that has none.
            found = (attributes(body, nf.NFGENMSG.size) for body in bodies)
            expressions = (rule.get(nf.NFTA_RULE_EXPRESSIONS, b"") for rule in found)
            self._rules[key] = tuple(map(decoder.rule, expressions))
        return self._rules[key]

    def _device(self, key: ChainKey, ifindex: int) -> str:
        self._by_number.add(key)
        return device_name(ifindex)

    def _set(self, key: ChainKey, name: str) -> SetContent:
        """What a set holds. The elements are read only if the rules can be judged by them."""
        self._sets.add((int(key.family), key.table, name))
        header = nf.NFGENMSG.pack(key.family, 0, 0)
        which = string_attribute(nf.NFTA_SET_TABLE, key.table)
        which += string_attribute(nf.NFTA_SET_NAME, name)
        (answer,) = self._netlink.request([Request(nf.NFT_MSG_GETSET, header + which)])
        if isinstance(answer, int):
            return SetContent((), is_whole=False)
        found = attributes(answer, nf.NFGENMSG.size)
        size = be32_of(found, nf.NFTA_SET_KEY_LEN)
        flags = be32_of(found, nf.NFTA_SET_FLAGS)
        is_fixed = bool(flags & (nf.NFT_SET_ANONYMOUS | nf.NFT_SET_CONSTANT))
        is_read = is_fixed or be32_of(found, nf.NFTA_SET_DATA_TYPE) == nf.NFT_DATA_VERDICT
        is_fed = bool(flags & nf.NFT_SET_EVAL)
        objects = OBJECTS.get(be32_of(found, nf.NFTA_SET_OBJ_TYPE))
        kinds = _kinds(found, nf.NFTA_SET_EXPR, nf.NFTA_SET_EXPRESSIONS)
        listed: list[_Element] = []
        # nft lets elements have expressions of their own in sets that rules may add to, and where
        # they stand in a rule. All elements of a set that has expressions itself have the same.
        if is_read or (is_fed and not kinds):
            bodies = self._dump(nf.NFT_MSG_GETSETELEM, key.family, which)
            listed = [element for body in bodies for element in _elements(body)]
            kinds += [kind for element in listed for kind in element.kinds]
        if is_fed:
            kinds.append(Kind.SET)  # what rules add and what ages brings no event
        is_interval = bool(flags & nf.NFT_SET_INTERVAL)
        elements = tuple(_ranges(listed, is_interval=is_interval)) if is_read else ()
        return SetContent(elements, is_fixed, tuple(dict.fromkeys(kinds)), objects, size)

    def _dump(self, kind: int, family: int, wanted: bytes) -> list[bytes]:
        body = nf.NFGENMSG.pack(family, 0, 0) + wanted
        try:
            return self._netlink.dump(Request(kind, body))
        except KernelError as error:
            # It is gone, and an event says so; or this kernel has no nftables.
            if error.errno in {errno.ENOENT, errno.EINVAL}:
                return []
            raise


class _Element(NamedTuple):
    key: bytes
    last: bytes
    """Empty if the kernel gives none."""
    flags: int
    verdict: Verdict | None
    """Of a verdict map."""
    kinds: list[Kind]
    """What it does each time it is found."""


def _base(body: bytes) -> Base | None:
    """The chain of an NFT_MSG_NEWCHAIN, if it is a base chain that may see packets of pods."""
    family = body[0]
    found = attributes(body, nf.NFGENMSG.size)
    if nf.NFTA_CHAIN_HOOK not in found or family not in set(Family):
        return None
    hook = attributes(found[nf.NFTA_CHAIN_HOOK], 0)
    listed = attribute_list(hook.get(nf.NFTA_HOOK_DEVS, b""))
    devices = {_device(value, is_prefix=kind == nf.NFTA_DEVICE_PREFIX) for kind, value in listed}
    if nf.NFTA_HOOK_DEV in hook:
        devices.add(_device(hook[nf.NFTA_HOOK_DEV]))
    table, chain = text_of(found[nf.NFTA_CHAIN_TABLE]), text_of(found[nf.NFTA_CHAIN_NAME])
    if family == Family.IP and table in OWN_TABLES:
        return None
    return Base(
        ChainKey(Family(family), table, chain),
        be32_of(hook, nf.NFTA_HOOK_HOOKNUM),
        _signed(be32_of(hook, nf.NFTA_HOOK_PRIORITY)),
        is_nat=text_of(found.get(nf.NFTA_CHAIN_TYPE, b"")) == "nat",
        devices=frozenset(devices),
        drops=be32_of(found, nf.NFTA_CHAIN_POLICY) == nft.NF_DROP and nf.NFTA_CHAIN_POLICY in found,
    )


def _device(value: bytes, *, is_prefix: bool = False) -> str:
    """A device's name, or the beginning of names with a * behind it. Linux 6.16 tells the two apart
    by the NUL only, which a name has.
    """
    return text_of(value) + "*" * (is_prefix or not value.endswith(b"\0"))


def _elements(body: bytes) -> Iterator[_Element]:
    """The elements of one message of a dump."""
    listed = attributes(body, nf.NFGENMSG.size).get(nf.NFTA_SET_ELEM_LIST_ELEMENTS, b"")
    for _, element in attribute_list(listed):
        found = attributes(element, 0)
        key, last = (
            data_of(found.get(end, b"")) for end in (nf.NFTA_SET_ELEM_KEY, nf.NFTA_SET_ELEM_KEY_END)
        )
        verdict = verdict_of(found.get(nf.NFTA_SET_ELEM_DATA, b""))
        kinds = _kinds(found, nf.NFTA_SET_ELEM_EXPR, nf.NFTA_SET_ELEM_EXPRESSIONS)
        yield _Element(key, last, be32_of(found, nf.NFTA_SET_ELEM_FLAGS), verdict, kinds)


def _ranges(
    found: Sequence[_Element], *, is_interval: bool
) -> Iterator[tuple[bytes, bytes, Verdict | None]]:
    """First and last key of each element.

    The end of an interval is an element of its own with a flag, one above the last key. For a
    concatenation the kernel gives the last key itself (NFTA_SET_ELEM_KEY_END). What stands for all
    other keys (*) comes last.
    """
    ends = sorted(each.key for each in found if each.flags & nf.NFT_SET_ELEM_INTERVAL_END)
    for key, last, flags, verdict, _ in found:
        if flags & nf.NFT_SET_ELEM_CATCHALL:
            yield bytes(4), b"\xff" * 4, verdict
        elif not flags & nf.NFT_SET_ELEM_INTERVAL_END:
            yield key, last or (_last(key, ends) if is_interval else key), verdict


def _last(key: bytes, ends: Sequence[bytes]) -> bytes:
    """The last key of the interval that begins with `key`."""
    place = bisect_right(ends, key)
    if place == len(ends):
        return b"\xff" * len(key)  # to the end of all keys
    return (int.from_bytes(ends[place], "big") - 1).to_bytes(len(key), "big")


def _kinds(found: Mapping[int, bytes], alone: int, listed: int) -> list[Kind]:
    """What the expressions of a set or an element do, which run for each element that is found."""
    expressions = [found[alone]] if alone in found else []
    expressions += [value for _, value in attribute_list(found.get(listed, b""))]
    names = [text_of(attributes(each, 0).get(nft.NFTA_EXPR_NAME, b"")) for each in expressions]
    return [ACTIONS.get(name, Kind.UNKNOWN) for name in names if name not in HARMLESS]


def _signed(number: int) -> int:
    return number - ((number & 1 << 31) << 1)
