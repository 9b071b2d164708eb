# SPDX-License-Identifier: Apache-2.0
"""The other nodes: the three entries of each, and the way to it. Pure.

Nothing is sent. Whether a firewall on the way drops UDP can't be told from here for sure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from vxlane.doctor.facts import Expected, Facts, Peers
from vxlane.doctor.findings import Finding, fail, ok, warn
from vxlane.host.entries import FdbEntry, Neighbour
from vxlane.util.names import device_name

_FAILED, _INCOMPLETE = 0x20, 0x01  # NUD_*


def reachable(facts: Facts) -> Iterator[Finding]:
    """There is a way to each peer, its next hop answers ARP, and the peer answers at all."""
    peers = facts.peers
    bad = [finding for address in peers.ways if (finding := _way(peers, address))]
    yield from bad
    if peers.ways and not bad:
        says = f"{len(peers.ways)} have a route, and a next hop that has not failed to answer"
        meaning = "no packet was sent, so a firewall on the path that drops UDP does not show here"
        yield ok("peers", says, meaning)


def _way(peers: Peers, address: IPv4Address) -> Finding | None:
    way = peers.ways[address]
    if not way.ifindex:
        meaning = "no packet can be sent to that node"
        return fail("peers", way.reason, meaning, f"ip route get {address}")
    state = peers.states.get((way.ifindex, way.neighbour), 0)
    if state & (_FAILED | _INCOMPLETE):
        asked_by = "ARP" if isinstance(way.neighbour, IPv4Address) else "NDP"
        says = f"{way.neighbour}, the next hop to {address}, does not answer {asked_by}"
        meaning = "no packet reaches that node: it is down, or not on this link"
        # The kernel asks again for whoever sends.
        ask = f"ping -c 1 -W 2 -I {device_name(way.ifindex)} {way.neighbour}"
        return fail("peers", says, meaning, ask)
    if address in peers.silent:
        says = f"packets were bypassed to {address}, and none came back by the bypass"
        meaning = (
            "that is so with one-way traffic; else something on the way drops UDP port"
            f" {peers.port}, or the answers to it"
        )
        look = (
            f"tcpdump -c 5 -ni {device_name(way.ifindex)} udp port {peers.port} and host {address}"
        )
        return warn("peers", says, meaning, look)
    return None


def entries(facts: Facts) -> Iterator[Finding]:
    """Route, neighbour and FDB entry of each peer are there, and lead to it."""
    peers = facts.peers
    if not peers.vtep:
        return
    # In mode adopt flanneld writes the entries, and its annotations may be older than these
    # (flannel issue 1795): a difference alone loses no packet.
    is_adopted = facts.agent.mode == "adopt"
    bad = list(_alone(peers) if is_adopted or not peers.expected else _expected_entries(peers))
    if is_adopted and not bad:
        meaning = "packets go by the entries; the node or flanneld there may have to be restarted"
        bad = [warn("entries", each.says, meaning, *each.fix) for each in _expected_entries(peers)]
    yield from _dated(facts, bad)
    if not bad:
        yield ok("entries", f"route, neighbour and FDB entry of {len(peers.routes)} peers agree")


def _dated(facts: Facts, bad: Iterable[Finding]) -> Iterator[Finding]:
    """The findings; beside a dead agent with a word on how old that may be which they go by."""
    note = "; the list of nodes is that of a dead agent, and may be old"
    is_old = facts.agent.pid is None and facts.peers.expected
    for each in bad:
        yield replace(each, meaning=each.meaning + note) if is_old else each


def _expected_entries(peers: Peers) -> Iterator[Finding]:
    """Compared with what the source of nodes says."""
    routed = {(route.network, route.prefix_len): route.gateway for route in peers.routes}
    strays: dict[int, list[str]] = {}
    for stray in _strays(peers):
        strays.setdefault(stray.address, []).append(stray.mac)
    for node in peers.expected.values():
        key = int(node.cidr.network_address), node.cidr.prefixlen
        if key in routed:
            yield from _neighbour(peers, node, routed[key])
            yield from _forwarding(peers, node, strays.get(int(node.address), []))
        elif key not in peers.direct:
            gateway = node.cidr.network_address
            fix = f"ip route replace {node.cidr} via {gateway} dev {peers.vtep} onlink"
            says = f"there is no route to {node.cidr} of node {node.name}"
            meaning = "packets to that node's pods leave by the default route, and are lost"
            yield fail("entries", says, meaning, fix)


def _neighbour(peers: Peers, node: Expected, gateway: int) -> Iterator[Finding]:
    found = peers.neighbours.get(gateway)
    if found and found.mac == node.vtep_mac:
        return
    has = f"has MAC {found.mac}" if found else "is missing"
    says = f"neighbour {IPv4Address(gateway)} of node {node.name} {has}, not {node.vtep_mac}"
    where = f"{IPv4Address(gateway)} lladdr {node.vtep_mac} dev {peers.vtep}"
    meaning = "the kernel path's packets to that node's pods are lost"
    yield fail("entries", says, meaning, f"ip neigh replace {where} nud permanent")


def _forwarding(peers: Peers, node: Expected, wrong: Sequence[str]) -> Iterator[Finding]:
    """`wrong` are MACs of stray entries that lead to the node's address."""
    if not _lacks_forwarding(peers, node):
        return
    found = peers.forwarding.get(node.vtep_mac)
    if found:
        has = f"leads to {IPv4Address(found.address)}"
    else:
        has = f"is missing, and one has {wrong[0]} instead" if wrong else "is missing"
    says = f"FDB entry {node.vtep_mac} dst {node.address} of node {node.name} {has}"
    put = f"bridge fdb replace {node.vtep_mac} dev {peers.vtep} dst {node.address} self permanent"
    remove = (f"bridge fdb del {mac} dev {peers.vtep} dst {node.address} self" for mac in wrong)
    meaning = "the kernel path's packets to that node's pods are lost"
    yield fail("entries", says, meaning, put, *remove)


def _alone(peers: Peers) -> Iterator[Finding]:
    """Compared with each other, where nobody says which peers there are."""
    meaning = "the kernel path's packets to these pods are lost"
    strays = list(_strays(peers))
    for route in peers.routes:
        gateway = IPv4Address(route.gateway)
        neighbour = peers.neighbours.get(route.gateway)
        if neighbour is None:
            says = f"{route} has no neighbour entry for {gateway}"
            yield fail("entries", says, meaning, f"ip neigh show dev {peers.vtep}")
        elif neighbour.mac not in peers.forwarding:
            says = f"{neighbour} has no FDB entry"
            fix = [f"bridge fdb show dev {peers.vtep}"]
            if len(strays) == 1:
                to = IPv4Address(strays[0].address)
                fix = [
                    f"bridge fdb replace {neighbour.mac} dev {peers.vtep} dst {to} self permanent",
                    f"bridge fdb del {strays[0].mac} dev {peers.vtep} dst {to} self",
                ]
            yield fail("entries", says, meaning, *fix)


def stale(facts: Facts) -> Iterator[Finding]:
    """No entry is left of a node that is gone."""
    peers = facts.peers
    if not peers.vtep:
        return
    bad = [*_stale_routes(peers), *_stale_neighbours(peers), *_stale_forwarding(peers)]
    yield from _dated(facts, bad)
    if not bad:
        yield ok("stale-entries", "none")


def _stale_routes(peers: Peers) -> Iterator[Finding]:
    known = {(int(cidr.network_address), cidr.prefixlen) for cidr in peers.expected}
    meaning = "it leads to pods of a node that is gone from the list; packets to them are lost"
    for route in peers.routes:
        if known and (route.network, route.prefix_len) not in known:
            to = f"{IPv4Address(route.network)}/{route.prefix_len}"
            yield warn("stale-entries", str(route), meaning, f"ip route del {to} dev {peers.vtep}")


def _stale_neighbours(peers: Peers) -> Iterator[Finding]:
    gateways = {route.gateway for route in peers.routes}
    # One whose route is missing is told by `entries`.
    gateways |= {int(cidr.network_address) for cidr in peers.expected}
    meaning = "no route needs it; a node that gets this address again may be taken for an old one"
    for address, each in peers.neighbours.items():
        if address not in gateways:
            fix = f"ip neigh del {IPv4Address(address)} dev {peers.vtep}"
            yield warn("stale-entries", str(each), meaning, fix)


def _stale_forwarding(peers: Peers) -> Iterator[Finding]:
    meaning = "no neighbour has this MAC; it is left of a node that is gone or has another one now"
    lacking = {
        int(node.address) for node in peers.expected.values() if _lacks_forwarding(peers, node)
    }
    strays = list(_strays(peers))
    is_told = not peers.expected and len(strays) == 1 and any(_unforwarded(peers))
    for each in strays:
        # What is wrong about a living peer is told by `entries`.
        if not is_told and each.address not in lacking:
            to = IPv4Address(each.address)
            fix = f"bridge fdb del {each.mac} dev {peers.vtep} dst {to} self"
            yield warn("stale-entries", str(each), meaning, fix)


def _lacks_forwarding(peers: Peers, node: Expected) -> bool:
    found = peers.forwarding.get(node.vtep_mac)
    return found is None or found.address != int(node.address)


def _unforwarded(peers: Peers) -> Iterator[Neighbour]:
    """Neighbours that a route needs and that no FDB entry leads to."""
    needed = (peers.neighbours.get(route.gateway) for route in peers.routes)
    return (each for each in needed if each and each.mac not in peers.forwarding)


def _strays(peers: Peers) -> Iterator[FdbEntry]:
    """FDB entries whose MAC no neighbour and no peer has."""
    known = {each.mac for each in peers.neighbours.values()}
    known |= {node.vtep_mac for node in peers.expected.values()}
    return (each for mac, each in peers.forwarding.items() if mac not in known)
