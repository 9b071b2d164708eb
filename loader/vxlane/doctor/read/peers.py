# SPDX-License-Identifier: Apache-2.0
"""Reads the entries of the other nodes, and the ways to them. Sends nothing."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

from vxlane.datapath.abi import Way
from vxlane.datapath.records import IPAddress
from vxlane.doctor.facts import Expected, Links, Peers
from vxlane.doctor.read.agent import Pinned
from vxlane.host import nexthops
from vxlane.host.entries import FdbEntry, Neighbour, Route, read
from vxlane.host.nexthops import Query
from vxlane.host.vtep import Wiring
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attributes
from vxlane.overlay.node_cache import saved_peers
from vxlane.sources.model import Backend

_ADDRESS_BYTES = (4, 16)
_FEW = 100
"""So many packets without an answer are no sign yet."""


def peers(
    netlink: NetlinkSocket, links: Links, wiring: Wiring | None, state: Path, pinned: Pinned
) -> Peers:
    """The peers' entries in the kernel, and what they should be."""
    device = links.vtep.device.index if links.vtep else 0
    entries = read(netlink, device).values()
    expected = _expected(state, pinned)
    neighbours = {each.address: each for each in entries if isinstance(each, Neighbour)}
    forwarding = {each.mac: each for each in entries if isinstance(each, FdbEntry)}
    addresses = {node.address for node in expected.values()}
    if not expected:
        used = {each.mac for each in neighbours.values()} & forwarding.keys()
        addresses = {IPv4Address(forwarding[mac].address) for mac in used}
    query = Query(wiring.local, wiring.port) if wiring else None
    return Peers(
        vtep=links.vtep.name if links.vtep else "",
        port=wiring.port if wiring else 0,
        expected=expected,
        routes=tuple(e for e in entries if isinstance(e, Route) and e.device == device),
        direct=frozenset(
            (e.network, e.prefix_len)
            for e in entries
            if isinstance(e, Route) and e.device != device
        ),
        neighbours=neighbours,
        forwarding=forwarding,
        ways=nexthops.resolve(netlink, sorted(addresses), query) if query else {},
        states=states_of(netlink),
        silent=_silent(pinned),
    )


def _expected(state: Path, pinned: Pinned) -> dict[IPv4Network, Expected]:
    """As the source of nodes has them; where no agent has saved these, as the maps have them."""
    saved = [node for node in saved_peers(state) if node.backend is Backend.VXLAN]
    if saved:
        return {
            node.pod_cidr: Expected(
                name=node.name, cidr=node.pod_cidr, address=node.address, vtep_mac=node.vtep_mac
            )
            for node in saved
        }
    found = {}
    for peer in pinned.peers:
        cidr, address = peer.cidr, peer.address
        if (
            isinstance(cidr, IPv4Network)
            and isinstance(address, IPv4Address)
            and peer.way is Way.TUNNEL
        ):
            found[cidr] = Expected(
                name=str(address), cidr=cidr, address=address, vtep_mac=peer.vtep_mac
            )
    return found


def _silent(pinned: Pinned) -> frozenset[IPv4Address]:
    return frozenset(
        peer.address
        for peer, count in zip(pinned.peers, pinned.counts, strict=True)
        if count.tx_packets > _FEW
        and not count.rx_packets
        and isinstance(peer.address, IPv4Address)
    )


def states_of(netlink: NetlinkSocket) -> dict[tuple[int, IPAddress], int]:
    """What the kernel knows of each neighbour on a link, by ARP or NDP."""
    found = {}
    everything = rt.NDMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for body in netlink.dump(Request(rt.RTM_GETNEIGH, everything)):
        _, ifindex, state, _, _ = rt.NDMSG.unpack_from(body)
        address = attributes(body, rt.NDMSG.size).get(rt.NDA_DST, b"")
        if len(address) in _ADDRESS_BYTES:
            found[ifindex, ip_address(address)] = state
    return found
