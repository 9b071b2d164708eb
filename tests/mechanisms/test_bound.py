# SPDX-License-Identifier: Apache-2.0
"""Whose connections conntrack has bound to a helper."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import IPv4Address

import pytest
from reading import VIEW

from vxlane.mechanisms.conntrack import ConntrackReader
from vxlane.mechanisms.kinds import Kind, Scope
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Intent, NetlinkSocket, Request, attribute, nested

_TIMEOUT, _HELP, _HELP_NAME = 7, 5, 1  # CTA_TIMEOUT, CTA_HELP, CTA_HELP_NAME
LOCAL, REMOTE, SERVICE, NODE = "10.42.1.5", "10.42.2.9", "10.96.0.10", "10.42.1.0"


def bind(asked, answering):
    """Have conntrack follow an FTP connection; both are (source, destination)."""
    body = nf.NFGENMSG.pack(socket.AF_INET, 0, 0)
    for of, ends, ports in (
        (nf.CTA_TUPLE_ORIG, asked, (40000, 21)),
        (nf.CTA_TUPLE_REPLY, answering, (21, 40000)),
    ):
        source, destination = (IPv4Address(end).packed for end in ends)
        addresses = attribute(nf.CTA_IP_V4_SRC, source) + attribute(nf.CTA_IP_V4_DST, destination)
        transport = [attribute(nf.CTA_PROTO_NUM, bytes([socket.IPPROTO_TCP]))]
        for kind, port in zip((nf.CTA_PROTO_SRC_PORT, nf.CTA_PROTO_DST_PORT), ports, strict=True):
            transport.append(attribute(kind, port.to_bytes(2, "big")))
        parts = nested(nf.CTA_TUPLE_IP, addresses), nested(nf.CTA_TUPLE_PROTO, *transport)
        body += nested(of, *parts)
    body += attribute(_TIMEOUT, rt.BE32.pack(100)) + nested(_HELP, attribute(_HELP_NAME, b"ftp\0"))
    with contextlib.closing(NetlinkSocket(nf.NETLINK_NETFILTER)) as netlink:
        assert netlink.write([Request(nf.IPCTNL_MSG_CT_NEW, body, Intent.ADD)]) == [0]


@pytest.mark.parametrize(
    ("asked", "answering", "ends"),
    [
        ((LOCAL, REMOTE), (REMOTE, LOCAL), "sources"),
        ((REMOTE, LOCAL), (LOCAL, REMOTE), "destinations"),
        ((LOCAL, SERVICE), (REMOTE, LOCAL), "sources"),
        ((REMOTE, NODE), (LOCAL, REMOTE), "destinations"),
    ],
    ids=["to-a-pod", "from-a-pod", "to-a-service", "from-a-pod-by-hostport"],
)
def test_a_connection_concerns_the_local_pod(netns, asked, answering, ends):
    """The one that asks or the one that answers, whatever address was asked."""
    assert netns
    bind(asked, answering)
    with contextlib.closing(ConntrackReader()) as reader:
        (found,) = reader.findings(VIEW)
    local = int(IPv4Address(LOCAL))
    assert (found.kind, found.scope) == (Kind.HELPER, Scope(**{ends: ((local, local),)}))
