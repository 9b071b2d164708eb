# SPDX-License-Identifier: Apache-2.0
"""What is read of an overlay that flanneld keeps: device and entries in, paths out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path as File

import pytest
from entrykernel import EntryKernel, told
from plaindevice import device

from vxlane.config import Config, Mode
from vxlane.datapath.abi import Way
from vxlane.errors import ConfigError
from vxlane.host.entries import Entry, direct, overlay
from vxlane.host.nexthops import NextHop, Query
from vxlane.host.vtep import Wiring
from vxlane.overlay import adopted
from vxlane.overlay.adopted import AdoptedOverlay
from vxlane.overlay.backend import OverlayState
from vxlane.overlay.local_end import LocalEnd
from vxlane.sources.model import Node
from vxlane.sources.snapshot import Snapshot
from vxlane.util.dirty import ALL, Dirty

NETWORK = IPv4Network("10.42.0.0/16")
DEVICE = device(9, "flannel.1", "vxlan", mac="02:00:00:00:00:01")
LOCAL = IPv4Address("192.168.77.1")
END = LocalEnd(DEVICE, Wiring(1, 8472, LOCAL, 3), is_tunnel=True)
OWN = Node("node1", LOCAL, IPv4Network("10.42.1.0/24"), DEVICE.mac)


def node(number: int) -> Node:
    """Node `number`, as the source lists it."""
    address = IPv4Address(f"192.168.77.{number}")
    cidr = IPv4Network(f"10.42.{number}.0/24")
    return Node(f"node{number}", address, cidr, f"02:00:00:00:00:{number:02x}")


def written(number: int, device: int = DEVICE.index) -> tuple[Entry, ...]:
    """What flanneld writes of it."""
    peer = node(number)
    return overlay(peer.pod_cidr, peer.vtep_mac, int(peer.address), device)


class Host:
    """A node whose overlay is `end`; None: there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: File) -> None:
        self.socket = EntryKernel(DEVICE.index)
        self.end: LocalEnd | None = END
        self.finds: list[IPv4Network | None] = []
        self.asked: list[tuple[IPv4Address, Query]] = []
        monkeypatch.setattr(adopted, "find", self._find)
        monkeypatch.setattr(adopted, "resolve", self._resolve)
        self.subnet_file = state / "subnet.env"
        self.config = Config("node1", state, mode=Mode.ADOPT, subnet_file=self.subnet_file)
        self.backend = AdoptedOverlay(self.config, self)

    def reconcile(self, *peers: Node, dirty: Dirty = ALL, own: Node | None = OWN) -> OverlayState:
        """What is made of it, beside the source's list."""
        return self.backend.reconcile(Snapshot(own, peers, read_at=1.0), dirty)

    def _find(self, _: object, __: Config, *, network: IPv4Network | None) -> LocalEnd:
        self.finds.append(network)
        if self.end is None:
            raise ConfigError("there is no VXLAN device")
        return self.end

    def _resolve(
        self, _: object, addresses: Iterable[IPv4Address], query: Query
    ) -> dict[IPv4Address, NextHop]:
        found = {address: NextHop(3, address) for address in addresses}
        self.asked += [(address, query) for address in found]
        return found


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> Host:
    """A node with a device and no entries."""
    return Host(monkeypatch, tmp_path)


def reached(state: OverlayState) -> dict[str, Way | None]:
    """The way to each peer by its name."""
    return {path.node.name: path.way for path in state.paths}


def test_the_kernels_entries_are_the_peers(host: Host) -> None:
    """By the source's names where it has them; the device says the rest."""
    host.socket.have(*written(2), *written(3))
    state = host.reconcile(node(2), node(4))
    assert reached(state) == {"node2": Way.TUNNEL, "10.42.3.0/24": Way.TUNNEL}
    assert (state.device, state.device_mtu, state.vtep_mac) == (9, 1450, DEVICE.mac)
    assert (state.address, state.vni, state.port, state.underlay) == (LOCAL, 1, 8472, 3)
    assert (state.exits, state.plan) == (frozenset({(Way.TUNNEL, 3)}), None)
    assert {query for _, query in host.asked} == {Query(LOCAL, 8472)}


def test_nothing_is_written_and_nothing_announced(host: Host) -> None:
    """Flanneld does both."""
    host.socket.have(*written(2))
    host.reconcile(node(2), node(3))
    assert host.socket.written == []
    assert host.backend.announcement(OWN) is None


def test_events_are_enough_to_follow(host: Host) -> None:
    """A peer that flanneld adds or removes is known without a read of all entries."""
    host.reconcile()
    assert host.backend.on_event(told(*written(2))) == Dirty.NODES
    assert reached(host.reconcile(node(2), dirty=Dirty.NODES)) == {"node2": Way.TUNNEL}
    assert host.backend.on_event(told(*written(2))) == Dirty(0)
    assert host.backend.on_event(told(gone=written(2))) == Dirty.NODES
    assert reached(host.reconcile(node(2), dirty=Dirty.NODES)) == {}


def test_a_doubtful_event_means_a_read(host: Host) -> None:
    """Where a route of another kind may have taken the place of one that is known."""
    host.socket.have(*written(2))
    host.reconcile()
    route = written(2)[2]
    del host.socket.bodies[route.key]
    assert host.backend.on_event(told(doubtful=[route])) == Dirty.ENTRIES
    assert reached(host.reconcile(dirty=Dirty.ENTRIES)) == {}


def test_a_direct_route_is_a_direct_way(host: Host) -> None:
    """Flanneld with DirectRouting: a plain route to a node that is listed with that address."""
    host.socket.have(*direct(node(2).pod_cidr, int(node(2).address), 3))
    state = host.reconcile(node(2))
    assert reached(state) == {"node2": Way.DIRECT}
    assert state.direct_nics == {3}


def test_an_overlay_that_is_not_there_is_an_error_until_it_is(host: Host) -> None:
    """It is looked for again with every reconcile."""
    host.end = None
    with pytest.raises(ConfigError):
        host.reconcile()
    host.end = END
    host.socket.have(*written(2))
    assert reached(host.reconcile(node(2), dirty=Dirty.NODES)) == {"node2": Way.TUNNEL}


def test_the_device_is_looked_for_when_the_host_changed(host: Host) -> None:
    """And not for a change of nodes; the same device again costs no read of entries."""
    host.socket.have(*written(2))
    host.reconcile(node(2))
    host.socket.bodies.clear()
    assert len(host.finds) == 1
    host.reconcile(node(2), dirty=Dirty.NODES)
    assert len(host.finds) == 1
    assert reached(host.reconcile(node(2), dirty=Dirty.HOST)) == {"node2": Way.TUNNEL}
    assert len(host.finds) == 2


def test_peers_that_a_new_device_lacks_are_missed(host: Host) -> None:
    """Flanneld makes its device anew without the routes: who is told, until they are there."""
    host.socket.have(*written(2), *written(3))
    host.reconcile(node(2), node(3))
    host.end = dataclasses.replace(END, device=dataclasses.replace(DEVICE, index=11))
    host.socket = host.backend._devices.socket = EntryKernel(11)
    state = host.reconcile(node(2), node(3), dirty=Dirty.HOST)
    assert (state.device, reached(state)) == (11, {})
    [lack] = [problem.reason for problem in state.problems if "is new" in problem.reason]
    assert lack.startswith("flannel.1 is new and lacks the routes to 2 peers of the one before")
    assert lack.endswith("restart flanneld on this node")
    host.socket.have(*written(2, 11))
    state = host.reconcile(node(2), dirty=Dirty.ENTRIES)
    assert reached(state) == {"node2": Way.TUNNEL}
    assert not any("lacks" in problem.reason for problem in state.problems)


@pytest.mark.parametrize(("mac", "is_wrong"), [(DEVICE.mac, False), ("02:00:00:00:00:99", True)])
def test_a_mac_that_was_published_and_is_not_the_devices_is_told(
    host: Host, mac: str, *, is_wrong: bool
) -> None:
    """Peers send to the other one, and this node hears nothing."""
    state = host.reconcile(own=dataclasses.replace(OWN, vtep_mac=mac))
    reasons = [problem.reason for problem in state.problems]
    assert bool(reasons) is is_wrong
    assert all(reason.startswith("flannel.1 has the MAC 02:00:00:00:00:01") for reason in reasons)


@pytest.mark.parametrize(
    ("said", "network"),
    [
        ("FLANNEL_NETWORK=10.42.0.0/16\n", NETWORK),
        ("FLANNEL_NETWORK=10.42.0.0/16,10.43.0.0/16\n", NETWORK),
        ("FLANNEL_NETWORK=nonsense\n", None),
        ("", None),
    ],
)
def test_the_network_is_flannelds_where_the_source_does_not_tell(
    host: Host, said: str, network: IPv4Network | None
) -> None:
    """Its subnet.env says; of several networks the first."""
    host.subnet_file.write_text(said)
    host.reconcile()
    assert host.finds == [network]


def test_the_network_of_the_configuration_is_the_last_resort(host: Host) -> None:
    """Where neither the source nor flanneld tells; what the source tells comes first."""
    network = dataclasses.replace(host.config.network, cidr=IPv4Network("10.99.0.0/16"))
    host.backend = AdoptedOverlay(dataclasses.replace(host.config, network=network), host)
    host.reconcile()
    host.backend.reconcile(Snapshot(OWN, (), network=NETWORK, read_at=1.0), ALL)
    assert host.finds == [network.cidr, NETWORK]


def test_a_host_gw_node_has_no_device(host: Host) -> None:
    """Peers are reached by plain routes over the NIC, and nothing is said of a MAC."""
    nic = dataclasses.replace(DEVICE, index=3, name="eth0", kind="", mac="02:00:00:00:00:77")
    host.end = LocalEnd(nic, Wiring(1, 8472, LOCAL, 3), is_tunnel=False)
    host.socket.have(*direct(node(2).pod_cidr, int(node(2).address), 3))
    state = host.reconcile(node(2))
    assert (state.device, reached(state), state.problems) == (0, {"node2": Way.DIRECT}, ())


def test_a_resync_compares_next_hops_and_entries(host: Host) -> None:
    """What was lost without an event is found; before there is a device only next hops count."""
    assert list(host.backend.resync()) == []
    host.socket.have(*written(2))
    host.reconcile(node(2))
    assert set(host.backend.resync()) == {Dirty(0)}
    host.socket.bodies.clear()
    assert Dirty.ENTRIES in set(host.backend.resync())


def test_routes_that_changed_are_asked_for_again(host: Host) -> None:
    """Next hops are remembered until routes may be others."""
    host.socket.have(*written(2))
    host.reconcile(node(2))
    assert [address for address, _ in host.asked] == [node(2).address]
    host.reconcile(node(2), dirty=Dirty.NODES)
    assert len(host.asked) == 1
    host.reconcile(node(2), dirty=Dirty.NODES | Dirty.ROUTES)
    assert len(host.asked) == 2
