# SPDX-License-Identifier: Apache-2.0
"""Chains of all devices whose names begin alike, which nft of most distributions can't make."""

from __future__ import annotations

import contextlib
import errno
import struct
from dataclasses import replace
from ipaddress import IPv4Address

import machinecan
import pytest
from reading import VIEW, found, sh

from vxlane.mechanisms.concern import Judged, judged
from vxlane.mechanisms.nft_reader import NftReader
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink.socket import Intent, NetlinkSocket, Request, attribute, nested

NAME, PREFIX = 1, 2  # NFTA_DEVICE_*
NETDEV = 5
PODS = {
    "veth5": (IPv4Address("10.42.1.5"),),
    "veth6": (IPv4Address("10.42.1.6"),),
    "port7": (IPv4Address("10.42.1.7"),),
}
ALL = Judged(all=True)
LIMIT = "limit rate over 1/second drop"


def chain(*devices):
    """What makes, and what tells of, a chain of these devices."""
    hook = nested(
        nf.NFTA_CHAIN_HOOK,
        attribute(nf.NFTA_HOOK_HOOKNUM, struct.pack(">I", 0)),
        attribute(nf.NFTA_HOOK_PRIORITY, struct.pack(">i", 0)),
        nested(nf.NFTA_HOOK_DEVS, *(attribute(kind, name) for kind, name in devices)),
    )
    return (
        nf.NFGENMSG.pack(NETDEV, 0, 0)
        + attribute(nf.NFTA_CHAIN_TABLE, b"t\0")
        + attribute(nf.NFTA_CHAIN_NAME, b"c\0")
        + hook
        + attribute(nf.NFTA_CHAIN_TYPE, b"filter\0")
    )


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(
    ("prefix", "rule", "expected"),
    [
        ("veth", LIMIT, Judged(ports=frozenset({"veth5", "veth6"}))),
        ("veth5", LIMIT, Judged(ports=frozenset({"veth5"}))),
        ("port", LIMIT, Judged(ports=frozenset({"port7"}))),
        ("cni", LIMIT, ALL),
        ("flannel.", LIMIT, ALL),
        ("eth", LIMIT, ALL),
        ("eth", "udp dport 8472 " + LIMIT, ALL),
        ("eth", "tcp dport 80 " + LIMIT, Judged()),
        ("docker", LIMIT, Judged()),
        ("eth0.", LIMIT, Judged()),
    ],
)
def test_a_chain_of_a_prefix_is_one_of_each_device(prefix, rule, expected):
    """A chain of all devices with a prefix concerns what a chain of each of these would."""
    sh("nft", "add table netdev t")
    made = chain((PREFIX, prefix.encode() + b"\0"))
    request = Request(nf.NFT_MSG_NEWCHAIN, made, Intent.ADD)
    with contextlib.closing(NetlinkSocket(nf.NETLINK_NETFILTER)) as netlink:
        code = netlink.transact([request], nf.NFNL_SUBSYS_NFTABLES)
    if code == errno.EINVAL:
        machinecan.lacks("chains of a prefix of devices (Linux 6.17)")
    assert code == 0
    sh("nft", f"add rule netdev t c {rule}")
    outcome = judged(found(), PODS, VIEW.local, frozenset())
    assert replace(outcome, may_drop=True) == expected


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([(NAME, b"veth5\0")], {"veth5"}),
        ([(PREFIX, b"veth\0")], {"veth*"}),
        ([(NAME, b"veth")], {"veth*"}),
        ([(NAME, b"eth0\0"), (PREFIX, b"veth\0"), (PREFIX, b"cni\0")], {"eth0", "veth*", "cni*"}),
    ],
)
def test_a_prefix_is_told_from_a_name(monkeypatch, devices, expected):
    """Linux 6.17 and later give a prefix another type, 6.16 gives it no NUL."""
    with contextlib.closing(NftReader()) as reader:
        monkeypatch.setattr(reader, "_dump", lambda *_: [chain(*devices)])
        assert [base.devices for base in reader.bases()] == [expected]
