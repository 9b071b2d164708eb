# SPDX-License-Identifier: Apache-2.0
"""What mode own decides: what is announced, made anew, planned and applied, and in which order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path as File
from typing import Any

import pytest
from entrykernel import EntryKernel, told
from plaindevice import device

from vxlane.config import Config
from vxlane.datapath.abi import Way
from vxlane.errors import ConfigError
from vxlane.host.devices import Device
from vxlane.host.nexthops import NextHop, Query
from vxlane.host.undo import UndoFile
from vxlane.host.vtep import Vtep
from vxlane.overlay import owned
from vxlane.overlay.backend import OverlayState
from vxlane.overlay.owned import OwnedOverlay
from vxlane.sources.model import Backend, Node, derived_mac
from vxlane.sources.snapshot import Snapshot
from vxlane.util.dirty import ALL, Dirty

NETWORK = IPv4Network("10.42.0.0/16")
LOCAL = IPv4Address("192.168.77.1")
OWN = Node("node1", LOCAL, IPv4Network("10.42.1.0/24"), "02:00:00:00:00:01")
NIC = device(3, "eth0", mtu=1500)
DEVICE = device(9, "flannel.1", "vxlan")


def node(number: int, **changes: Any) -> Node:
    """Node `number`."""
    address = IPv4Address(f"192.168.77.{number}")
    cidr = IPv4Network(f"10.42.{number}.0/24")
    made = Node(f"node{number}", address, cidr, f"02:00:00:00:00:{number:02x}")
    return dataclasses.replace(made, **changes)


class Host:
    """A node with one NIC, on which all that is made is written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: File, **config: Any) -> None:
        self.socket = EntryKernel(DEVICE.index)
        self.devices = [NIC]
        self.made: list[Vtep] = []
        self.needed = ["add device"]
        """What `ensure` will have to do next."""
        self.done: list[str] = []
        self.asked_for: list[tuple[IPv4Address, Query]] = []
        self.asked: IPv4Address | None = None
        self.bridge_problem = ""
        state.mkdir()
        self.undo = UndoFile(state)
        self.config = Config("node1", state, subnet_file=state / "subnet.env", **config)
        monkeypatch.setattr(owned.vtep, "ensure", self._ensure)
        monkeypatch.setattr(owned.blackhole, "add", self._blackhole)
        monkeypatch.setattr(owned.bridge, "remove_stale_addresses", lambda *_: self.bridge_problem)
        monkeypatch.setattr(owned, "apply_sysctls", lambda wanted, _: self.done.extend(wanted))
        monkeypatch.setattr(owned, "resolve", self._resolve)
        monkeypatch.setattr(owned, "RuleKeeper", lambda **_: self)
        self.backend = OwnedOverlay(self.config, self, undo=self.undo, source=self)

    def by_name(self, name: str) -> Device | None:
        """See `Devices`."""
        return next((device for device in self.devices if device.name == name), None)

    def by_index(self, index: int) -> Device | None:
        """See `Devices`."""
        return next((device for device in self.devices if device.index == index), None)

    def holder(self, address: IPv4Address, *, before: int = 0) -> Device | None:  # noqa: ARG002
        """See `Devices`."""
        return NIC if address == LOCAL else None

    def chosen_address(self) -> IPv4Address | None:
        """See `NodeSource`."""
        return self.asked

    def reconcile(self, *peers: Node, dirty: Dirty = ALL, own: Node = OWN) -> OverlayState:
        """What is made of these nodes."""
        return self.backend.reconcile(Snapshot(own, peers, network=NETWORK, read_at=1.0), dirty)

    def apply(self, arg: Any, attempt: Any = None) -> None:
        """See `RuleKeeper`."""
        assert attempt is None
        self.done.append(f"rules of {arg.pod_cidr}")

    def _ensure(self, _: object, wanted: Vtep) -> tuple[Device, list[str]]:
        self.made.append(wanted)
        done, self.needed = self.needed, []
        return DEVICE, done

    def _blackhole(self, _: object, cidr: IPv4Network) -> bool:
        self.done.append(f"blackhole {cidr}")
        return True

    def _resolve(
        self, _: object, addresses: Iterable[IPv4Address], query: Query
    ) -> dict[IPv4Address, NextHop]:
        found = {address: NextHop(NIC.index, address) for address in addresses}
        self.asked_for += [(address, query) for address in found]
        return found


class Attempts:
    """The parts that were attempted, in order."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """See `Attempt`."""
        self.tried.append(what)
        yield


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> Host:
    """A node that was never touched, with a blackhole wanted."""
    return Host(monkeypatch, tmp_path / "state", has_blackhole=True)


def test_a_new_node_announces_its_underlay_and_a_mac_of_its_name(host: Host) -> None:
    """A device that is there keeps its MAC; what peers know already stays."""
    host.asked = LOCAL
    found = host.backend.announcement(None)
    assert (found.address, found.backend, found.vni) == (LOCAL, Backend.VXLAN, 1)
    assert found.vtep_mac == derived_mac("node1")
    host.devices.append(DEVICE)
    assert host.backend.announcement(None).vtep_mac == DEVICE.mac
    assert host.backend.announcement(OWN).vtep_mac == OWN.vtep_mac


def test_the_device_is_as_flannels(host: Host) -> None:
    """VNI, port, local address and NIC; our MAC, the NIC's MTU less 50, the first pod address."""
    state = host.reconcile(node(2))
    [made] = host.made
    assert (made.name, made.mac, made.mtu) == ("flannel.1", OWN.vtep_mac, 1450)
    assert (made.wiring.vni, made.wiring.port, made.wiring.local) == (1, 8472, LOCAL)
    assert (made.wiring.underlay, made.wiring.learns) == (3, False)
    assert (made.address, made.network) == (IPv4Address("10.42.1.0"), NETWORK)
    assert (state.device, state.device_mtu, state.underlay) == (9, 1450, 3)
    assert [path.way for path in state.paths] == [Way.TUNNEL]
    assert host.asked_for == [(node(2).address, Query(LOCAL, 8472))]
    assert "net.ipv4.ip_forward" in host.done


def test_a_change_of_nodes_touches_no_device(host: Host) -> None:
    """The device is made so when the host or our own entry changed."""
    host.reconcile(node(2))
    host.reconcile(node(2), node(3), dirty=Dirty.NODES)
    assert len(host.made) == 1
    host.reconcile(node(2), dirty=Dirty.HOST)
    assert len(host.made) == 2
    moved = dataclasses.replace(OWN, pod_cidr=IPv4Network("10.42.99.0/24"))
    plan = host.reconcile(node(2), dirty=Dirty.NODES, own=moved).plan
    assert host.made[-1].address == IPv4Address("10.42.99.0")
    assert plan
    assert plan.policy
    assert plan.policy.pod_cidr == moved.pod_cidr


def test_a_device_that_was_made_anew_has_no_entries(host: Host) -> None:
    """They are read again: what is remembered went with the old one."""
    attempts = Attempts()
    state = host.reconcile(node(2))
    host.backend.apply(state, attempts)
    host.socket.bodies.clear()
    host.backend.apply(host.reconcile(node(2), dirty=Dirty.HOST), attempts)
    assert host.socket.bodies == {}
    host.needed = ["remove device", "add device"]
    host.backend.apply(host.reconcile(node(2), dirty=Dirty.HOST), attempts)
    assert len(host.socket.bodies) == 3


def test_parts_are_applied_in_order_and_subnet_env_is_last(host: Host) -> None:
    """It lets pods come; a change of nodes alone compares no rules."""
    attempts = Attempts()
    host.backend.apply(host.reconcile(node(2)), attempts)
    assert attempts.tried == ["entries", "rules", "blackhole", "subnet.env"]
    assert host.done[-2:] == ["rules of 10.42.1.0/24", "blackhole 10.42.1.0/24"]
    assert len(host.socket.bodies) == 3
    assert "FLANNEL_SUBNET=10.42.1.1/24" in host.config.subnet_file.read_text()
    attempts.tried.clear()
    host.backend.apply(host.reconcile(node(2), dirty=Dirty.NODES), attempts)
    assert attempts.tried == ["entries", "subnet.env"]


def test_a_blackhole_is_noted_before_it_is_made(host: Host) -> None:
    """What `vxlane detach` has to take away is on disk first."""
    host.backend.apply(host.reconcile(), Attempts())
    assert host.undo.known.blackhole == "10.42.1.0/24"


def test_a_path_that_we_make_is_noted_as_ours(host: Host) -> None:
    """And stays ours when an agent comes later that finds it there."""
    host.reconcile()
    known = host.undo.known
    assert (known.device, known.network) == ("flannel.1", str(NETWORK))
    assert known.subnet_file == str(host.config.subnet_file)
    host.devices.append(DEVICE)
    host.undo = UndoFile(host.config.state)
    host.backend = OwnedOverlay(host.config, host, undo=host.undo, source=host)
    host.reconcile()
    assert host.undo.known == known


@pytest.mark.parametrize("before", ["device", "subnet.env"])
def test_a_path_that_was_there_is_flannelds(host: Host, before: str) -> None:
    """It is not noted, so that detach leaves it, even if we must make it anew."""
    if before == "device":
        host.devices.append(DEVICE)
    else:
        host.config.subnet_file.touch()
    host.reconcile()
    host.devices.remove(DEVICE) if before == "device" else host.config.subnet_file.unlink()
    host.reconcile()
    assert (host.undo.known.device, host.undo.known.network) == ("", "")


def test_without_a_network_of_all_pods_nothing_is_made(host: Host) -> None:
    """The sentence says where it is to be named."""
    with pytest.raises(ConfigError, match="the network of all pods is not known; name it beside"):
        host.backend.reconcile(Snapshot(OWN, (), read_at=1.0), ALL)
    assert host.made == []


def test_host_gw_makes_no_device(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> None:
    """Peers are reached by plain routes, and pods may use the NIC's whole MTU."""
    network = dataclasses.replace(Config("x", tmp_path).network, backend=Backend.HOST_GW)
    host = Host(monkeypatch, tmp_path / "state", network=network)
    own = dataclasses.replace(OWN, backend=Backend.HOST_GW)
    state = host.reconcile(node(2, backend=Backend.HOST_GW), own=own)
    assert (host.made, state.device, state.device_mtu) == ([], 0, 1500)
    assert [path.way for path in state.paths] == [Way.DIRECT]


def test_an_mtu_of_the_configuration_is_the_underlays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: File
) -> None:
    """The tunnel's 50 bytes come off it, as flannel does. A NIC that is narrower is a problem, and
    the kernel lets no tunnel be wider.
    """
    network = dataclasses.replace(Config("x", tmp_path).network, mtu=1400)
    host = Host(monkeypatch, tmp_path / "state", network=network)
    assert not host.reconcile().problems
    assert host.made[0].mtu == 1350
    wide = dataclasses.replace(network, mtu=9000)
    host = Host(monkeypatch, tmp_path / "wide", network=wide)
    [problem] = host.reconcile().problems
    assert problem.reason.startswith("eth0 has MTU 1500, and the network's is 9000; ")
    assert host.made[0].mtu == 1450


def test_what_peers_can_not_know_is_a_problem(host: Host) -> None:
    """An address that is not our packets' source, and a bridge that keeps new pods out."""
    host.asked = LOCAL
    host.bridge_problem = "new pods fail"
    other = dataclasses.replace(OWN, address=IPv4Address("203.0.113.9"))
    reasons = [problem.reason for problem in host.reconcile(own=other).problems]
    assert reasons == [
        "new pods fail",
        "peers send to 203.0.113.9, its packets come from 192.168.77.1",
    ]


def test_events_that_contradict_mean_a_read(host: Host) -> None:
    """Our own entries' events do not."""
    host.backend.apply(host.reconcile(node(2)), Attempts())
    [path] = host.reconcile(node(2), dirty=Dirty.NODES).paths
    assert host.backend.on_event(told(*path.entries)) == Dirty(0)
    assert host.backend.on_event(told(gone=path.entries[:1])) == Dirty.ENTRIES


def test_next_hops_are_asked_for_again_when_routes_changed(host: Host) -> None:
    """And not for a change of nodes."""
    host.reconcile(node(2))
    host.reconcile(node(2), dirty=Dirty.NODES)
    assert len(host.asked_for) == 1
    host.reconcile(node(2), dirty=Dirty.NODES | Dirty.ROUTES)
    assert len(host.asked_for) == 2


def test_a_resync_compares_entries_of_the_device(host: Host) -> None:
    """What was lost without an event is found."""
    host.backend.apply(host.reconcile(node(2)), Attempts())
    assert set(host.backend.resync()) == {Dirty(0)}
    host.socket.bodies.clear()
    assert Dirty.ENTRIES in set(host.backend.resync())
