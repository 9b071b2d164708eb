# SPDX-License-Identifier: Apache-2.0
"""Which rules tell the packets that close a connection, and their copies, from all others."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from reading import VIEW
from test_structures import FORWARD, IS_TCP, expression, rule

from vxlane.mechanisms import xtables
from vxlane.mechanisms.concern import Judged, judged
from vxlane.mechanisms.findings import findings
from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import Field, NumberTest
from vxlane.mechanisms.rules import Base, ChainKey, Code, Family, Hook, Verdict
from vxlane.netlink import nftables as nft
from vxlane.netlink.socket import attribute, nested

FIN, SYN, RST, PSH, ACK, URG = (1 << bit for bit in range(6))
ALL = 0x3F
DROP = Verdict(Code.DROP)
OF_TCP = NumberTest(Field.PROTOCOL, ((6, 6),))
"""The tunnel's packets are none."""
NEW = xtables.match_steps("state", struct.pack("=I", 8))
HOST, BROADCAST, MULTICAST, OTHER_HOST = range(4)
RAW = Base(ChainKey(Family.IP, "raw", "PREROUTING"), Hook.PREROUTING, -300)


def word(key, value):
    """An attribute of an expression that is a number."""
    return attribute(key, struct.pack(">I", value))


def by_xtables(mask, wanted, *, is_negated=False):
    """`-p tcp [!] --tcp-flags mask wanted`."""
    ports = (0, 0xFFFF, 0, 0xFFFF)
    return xtables.match_steps(
        "tcp", struct.pack("=HHHHBBBB", *ports, 0, mask, wanted, 4 * is_negated)
    )


def by_nft(mask, wanted, *, is_negated=False, flipped=0):
    """`tcp flags & mask ^ flipped == wanted`, or !=."""

    def data(key, value):
        return nested(key, attribute(nft.NFTA_DATA_VALUE, bytes([value])))

    load = expression(
        "payload",
        word(nft.NFTA_PAYLOAD_DREG, 1),
        word(nft.NFTA_PAYLOAD_BASE, nft.NFT_PAYLOAD_TRANSPORT_HEADER),
        word(nft.NFTA_PAYLOAD_OFFSET, 13),
        word(nft.NFTA_PAYLOAD_LEN, 1),
    )
    masked = expression(
        "bitwise",
        word(nft.NFTA_BITWISE_SREG, 1),
        word(nft.NFTA_BITWISE_DREG, 1),
        data(nft.NFTA_BITWISE_MASK, mask),
        data(nft.NFTA_BITWISE_XOR, flipped),
    )
    compared = expression(
        "cmp",
        word(nft.NFTA_CMP_SREG, 1),
        word(nft.NFTA_CMP_OP, nft.NFT_CMP_NEQ if is_negated else nft.NFT_CMP_EQ),
        data(nft.NFTA_CMP_DATA, wanted),
    )
    return rule(IS_TCP, load, masked, compared)


def found(base, *steps):
    """What packets of pods meet in a chain of one rule."""
    return findings([base], lambda _: [tuple(steps)], VIEW)


@pytest.mark.parametrize("test", [by_xtables, by_nft])
@pytest.mark.parametrize(
    ("mask", "wanted"),
    [(FIN, FIN), (ACK | FIN, ACK | FIN), (FIN | SYN | RST | ACK, FIN | ACK), (FIN, 0)],
)
def test_what_tells_a_fin_is_found(test, mask, wanted):
    """A rule for packets with FIN, or for those without, fits some packets of a connection."""
    assert {each.kind for each in found(FORWARD, *test(mask, wanted), DROP)} == {Kind.HEADER}


@pytest.mark.parametrize("test", [by_xtables, by_nft])
@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        (FIN | SYN | RST | ACK, SYN),
        (SYN, SYN),
        (ALL, FIN | PSH | URG),
        (ALL, 0),
        (ALL, ALL),
        (SYN | FIN, SYN | FIN),
        (SYN | RST, SYN | RST),
        (FIN | RST, FIN | RST),
        (ACK | FIN, FIN),
        (ACK | PSH, PSH),
        (ACK | URG, URG),
    ],
)
def test_scans_are_no_packets_of_a_connection(test, mask, wanted):
    """The usual rules against scans, and those for SYN, fit no packet that is bypassed."""
    assert found(FORWARD, *test(mask, wanted), DROP) == ()


@pytest.mark.parametrize("test", [by_xtables, by_nft])
def test_a_new_connection_that_has_no_syn_is_none_of_ours(test):
    """`! --syn -m state --state NEW -j DROP` is met by no packet of a connection."""
    assert found(FORWARD, *test(FIN | SYN | RST | ACK, SYN, is_negated=True), *NEW, DROP) == ()


def test_flags_in_what_is_not_decoded_are_found():
    """A bitwise operation that is not followed, on flags, may tell a FIN."""
    steps = by_nft(FIN, 0, flipped=FIN)
    assert {each.kind for each in found(FORWARD, *steps, DROP)} == {Kind.HEADER}


def pkttype(kind, *, is_negated=False):
    """`-m pkttype [!] --pkt-type kind`."""
    return xtables.match_steps("pkttype", struct.pack("=II", kind, is_negated))


def physdev(port="", *, is_in=False):
    """`-m physdev --physdev-in port`, or `--physdev-is-in`."""
    name, mask = port.encode(), bytes([0xFF] * (len(port) + 1) if port else [])
    return xtables.match_steps(
        "physdev", struct.pack("=16s16s16s16sBB", name, mask, b"", b"", 0, 8 if is_in else 1)
    )


@pytest.mark.parametrize(
    ("steps", "is_found"),
    [
        (pkttype(MULTICAST), True),
        (pkttype(HOST), True),
        (pkttype(MULTICAST, is_negated=True), True),
        (pkttype(BROADCAST), False),
        (pkttype(OTHER_HOST), False),
        (pkttype(BROADCAST, is_negated=True), False),
        (physdev("veth5"), True),
        (physdev(is_in=True), True),
    ],
)
def test_what_tells_a_copy_before_conntrack_is_found(steps, is_found):
    """Before conntrack a test that a copy fits and its packet does not, or the reverse, matters."""
    assert {each.kind for each in found(RAW, *steps, DROP)} == (
        {Kind.HEADER} if is_found else set()
    )


@pytest.mark.parametrize(
    "base",
    [
        Base(ChainKey(Family.IP, "mangle", "PREROUTING"), Hook.PREROUTING, -150),
        FORWARD,
        Base(ChainKey(Family.IP, "filter", "INPUT"), Hook.INPUT, 0),
        Base(ChainKey(Family.IP, "raw", "OUTPUT"), Hook.OUTPUT, -300),
        Base(ChainKey(Family.BRIDGE, "t", "c"), Hook.PREROUTING, -300),
    ],
)
@pytest.mark.parametrize("steps", [pkttype(MULTICAST), physdev("veth5")])
def test_no_copy_is_told_elsewhere(base, steps):
    """Behind conntrack, and where no copy comes, tests of the type and of the port are none."""
    assert found(base, *steps, DROP) == ()


@pytest.mark.parametrize(
    ("device", "is_found"),
    [("cni0", True), ("flannel.1", True), ("eth0", False), ("veth5", False)],
)
def test_a_copy_is_told_where_it_is_received(device, is_found):
    """Chains of the pods' bridge and of flannel.1 meet copies, those of NICs and veths do not."""
    base = Base(ChainKey(Family.NETDEV, "t", "c"), 0, 0, devices=frozenset({device}))
    kinds = {each.kind for each in found(base, *pkttype(MULTICAST), DROP)}
    assert kinds == ({Kind.HEADER} if is_found else set())


def test_what_comes_behind_a_test_of_a_copy_is_met():
    """A log of broadcasts is not met, one of all else is, and so is one behind a test of ports."""
    assert found(RAW, OF_TCP, *pkttype(BROADCAST), Kind.LOG) == ()
    seen = found(RAW, OF_TCP, *pkttype(BROADCAST, is_negated=True), Kind.LOG)
    assert [each.kind for each in seen] == [Kind.LOG]
    rules = [(*physdev(is_in=True), Verdict(Code.ACCEPT)), (OF_TCP, Kind.LOG)]
    assert Kind.LOG in {each.kind for each in findings([RAW], lambda _: rules, VIEW)}


def test_a_nic_meets_bare_packets_and_no_copies():
    """A chain of a NIC that reaches pods without a tunnel meets their packets, and no copies."""
    view = replace(VIEW, direct=frozenset({"eth0"}))
    base = Base(ChainKey(Family.NETDEV, "t", "c"), 0, 0, devices=frozenset({"eth0"}))
    rules = [(*pkttype(MULTICAST), DROP), (OF_TCP, *by_xtables(FIN, FIN), DROP)]
    assert [each.kind for each in findings([base], lambda _: rules[:1], view)] == []
    assert [each.kind for each in findings([base], lambda _: rules, view)] == [Kind.HEADER]


def test_a_port_before_conntrack_concerns_its_pod():
    """`-t raw -A PREROUTING -m physdev --physdev-in veth5 -j DROP` leaves the other pods alone."""
    pods = {"veth5": (IPv4Address("10.42.1.5"),), "veth6": (IPv4Address("10.42.1.6"),)}
    seen = found(RAW, *physdev("veth5"), DROP)
    assert judged(seen, pods, VIEW.local, frozenset()) == Judged(ports=frozenset({"veth5"}))
