# SPDX-License-Identifier: Apache-2.0
"""The kernel's entries, kept as the paths have them."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv4Network

import pytest
from entrykernel import EntryKernel, told

from vxlane.errors import KernelError
from vxlane.host import sysctls
from vxlane.host.entries import Neighbour, Route
from vxlane.host.firewall import Forward, Masquerade, Policy
from vxlane.host.nexthops import NextHop
from vxlane.host.undo import UndoFile
from vxlane.overlay import keepers
from vxlane.overlay.desired import OwnRouting, Path
from vxlane.overlay.keepers import EntryKeeper, RuleKeeper, apply_sysctls
from vxlane.sources.model import Backend, Node
from vxlane.util.dirty import Dirty

DEVICE = 9
NETWORK = IPv4Network("10.42.0.0/16")
ROUTING = OwnRouting(Backend.VXLAN, DEVICE, routes_directly=False)


def path(number: int, *, mac: int = 0) -> Path:
    """The way to node `number`."""
    address = IPv4Address(f"192.168.77.{number}")
    cidr = IPv4Network(f"10.42.{number}.0/24")
    peer = Node(f"node{number}", address, cidr, f"02:00:00:00:00:{mac or number:02x}")
    return ROUTING.path(peer, NextHop(3, address))


@pytest.fixture
def kernel() -> EntryKernel:
    """A kernel without entries."""
    return EntryKernel(DEVICE)


@pytest.fixture
def keeper(kernel: EntryKernel) -> EntryKeeper:
    """Its keeper."""
    return EntryKeeper(kernel)


def test_entries_are_written_in_order_and_once(kernel: EntryKernel, keeper: EntryKeeper) -> None:
    """Neighbour, forwarding, route; the same paths again cost nothing."""
    paths = (path(2), path(3))
    keeper.apply(paths, NETWORK)
    assert kernel.written == [entry.key for one in paths for entry in one.entries]
    kernel.written.clear()
    keeper.apply(paths, NETWORK)
    assert kernel.written == []


def test_a_start_keeps_what_is_right_and_removes_what_is_stale(
    kernel: EntryKernel, keeper: EntryKeeper
) -> None:
    """Entries of peers that left meanwhile go; a route to elsewhere is left alone."""
    two, three = path(2), path(3)
    elsewhere = Route(int(IPv4Address("10.99.0.0")), 16, 1, 3, 0)
    kernel.have(*two.entries, *three.entries, elsewhere)
    assert len(keeper.read(DEVICE)) == 7
    keeper.apply((two,), NETWORK)
    assert set(kernel.written) == {entry.key for entry in three.entries}
    assert set(kernel.bodies) == {*(entry.key for entry in two.entries), elsewhere.key}


def test_after_the_first_only_what_changed_is_compared(
    kernel: EntryKernel, keeper: EntryKeeper
) -> None:
    """A peer that comes or goes costs its own entries; damage elsewhere waits for a read."""
    two, three = path(2), path(3)
    keeper.apply((two,), NETWORK)
    kernel.written.clear()
    kernel.bodies.clear()
    keeper.apply((two, three), NETWORK)
    assert kernel.written == [entry.key for entry in three.entries]
    keeper.apply((two,), NETWORK)
    assert kernel.bodies == {}
    assert len(keeper.read(DEVICE)) == 3
    keeper.apply((two,), NETWORK)
    assert set(kernel.bodies) == {entry.key for entry in two.entries}


def test_a_changed_mac_leaves_nothing_behind(kernel: EntryKernel, keeper: EntryKeeper) -> None:
    """The FDB entry of the old MAC goes, the route stays."""
    keeper.apply((path(2),), NETWORK)
    kernel.written.clear()
    keeper.apply((path(2, mac=7),), NETWORK)
    neighbour, forwarding, route = path(2, mac=7).entries
    assert set(kernel.bodies) == {neighbour.key, forwarding.key, route.key}
    assert kernel.written == [neighbour.key, forwarding.key, path(2).entries[1].key]


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_refused_is_told_and_tried_again(
    kernel: EntryKernel, keeper: EntryKeeper, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """The first refusal and the number of the others; the next time all is compared. The log has
    what was done.
    """
    caplog.set_level("INFO")
    two, three = path(2), path(3)
    kernel.refused = {two.entries[2].key, *([three.entries[2].key] if count == 2 else [])}
    more = r" \(and 1 more\)" if count == 2 else ""
    with pytest.raises(KernelError, match=rf"put route 10.42.2.0/24 .*missing{more}: ") as raised:
        keeper.apply((two, three), NETWORK)
    assert raised.value.errno == errno.ENETDOWN
    assert "is the device down?" in str(raised.value)
    assert len(caplog.messages) == len(kernel.written) == 6 - count
    kernel.refused.clear()
    kernel.written.clear()
    keeper.apply((two, three), NETWORK)
    assert two.entries[2].key in kernel.written
    assert len(kernel.written) == count


def test_ones_own_changes_are_no_news(kernel: EntryKernel, keeper: EntryKeeper) -> None:
    """An event contradicts only if an entry is other than it was left."""
    two = path(2)
    keeper.apply((two,), NETWORK)
    neighbour, forwarding, route = two.entries
    assert not keeper.contradicts(told(neighbour, forwarding, route))
    assert not keeper.contradicts(told(gone=path(3).entries))
    assert keeper.contradicts(told(gone=[route]))
    assert isinstance(neighbour, Neighbour)
    assert keeper.contradicts(told(neighbour._replace(mac="02:00:00:00:00:99")))
    assert isinstance(route, Route)
    assert keeper.contradicts(told(doubtful=[route]))
    assert not keeper.doubts(told(doubtful=[route._replace(prefix_len=25)]))
    assert kernel.bodies


def test_events_are_followed(keeper: EntryKeeper) -> None:
    """What came, changed or went is remembered; the answer is what was not so before."""
    neighbour, forwarding, route = path(2).entries
    assert keeper.follow(told(neighbour, forwarding)) == {neighbour.key, forwarding.key}
    assert keeper.follow(told(neighbour, route, gone=[forwarding])) == {route.key, forwarding.key}
    assert keeper.actual == {neighbour.key: neighbour, route.key: route}


def test_a_resync_finds_what_no_event_told_of(kernel: EntryKernel, keeper: EntryKeeper) -> None:
    """An entry of any kind that was lost or changed is found; the rest costs nothing."""
    keeper.apply((path(2), path(3)), NETWORK)
    assert set(keeper.resync(DEVICE)) == {Dirty(0)}
    for entry in path(3).entries:
        kept = kernel.bodies.pop(entry.key)
        assert Dirty.ENTRIES in set(keeper.resync(DEVICE))
        kernel.bodies[entry.key] = kept
    kernel.have(*path(4).entries[:1])
    assert Dirty.ENTRIES in set(keeper.resync(DEVICE))


def test_an_entry_that_changes_during_a_resync_is_no_contradiction(
    kernel: EntryKernel, keeper: EntryKeeper
) -> None:
    """Its event came meanwhile, and what is remembered is what the listing has."""
    keeper.apply((path(2),), NETWORK)
    kernel.have(path(3).entries[2])
    steps = keeper.resync(DEVICE)
    assert next(steps) == Dirty(0)
    keeper.follow(told(path(3).entries[2]))
    assert set(steps) == {Dirty(0)}


def test_more_than_fifty_changes_are_counted(
    keeper: EntryKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    """Fifty lines and one; 18 peers are 54 entries."""
    caplog.set_level("INFO")
    keeper.apply(tuple(map(path, range(2, 20))), NETWORK)
    assert len(caplog.messages) == 51
    assert caplog.messages[-1] == "... and 4 more changes of entries"


class Rules:
    """Stands in for a firewall."""

    def __init__(self, name: str, done: list[str]) -> None:
        self._name = name
        self._done = done

    def ensure(self, _: Policy) -> list[str]:
        """See `Firewall`."""
        self._done.append(f"{self._name} ensure")
        return [f"{self._name}: put"]

    def remove(self) -> list[str]:
        """See `Firewall`."""
        self._done.append(f"{self._name} remove")
        return []


@pytest.mark.parametrize(
    ("uses_nftables", "chosen", "other"), [(False, "iptables", "nft"), (True, "nft", "iptables")]
)
def test_the_other_tools_rules_go_once(
    monkeypatch: pytest.MonkeyPatch, uses_nftables: object, chosen: str, other: str
) -> None:
    """After ours are there; a node that changed from one to the other has both for no moment."""
    done: list[str] = []
    monkeypatch.setattr(keepers, "Iptables", lambda: Rules("iptables", done))
    monkeypatch.setattr(keepers, "Nftables", lambda: Rules("nft", done))
    keeper = RuleKeeper(uses_nftables=bool(uses_nftables))
    policy = Policy(NETWORK, IPv4Network("10.42.1.0/24"), Masquerade.ON, Forward.ACCEPT)
    keeper.apply(policy)
    keeper.apply(policy)
    assert done == [f"{chosen} ensure", f"{other} remove", f"{chosen} ensure"]


def test_sysctls_are_noted_before_they_are_set(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """What differs is set, its old value noted first; what is right or absent is left alone. In a
    container it is set where the host's settings are.
    """
    undo = UndoFile(tmp_path / "state")
    values = tmp_path / "sys"
    (values / "net").mkdir(parents=True)
    (values / "net/a").write_text("0\n")
    (values / "net/b").write_text("1\n")
    monkeypatch.setattr(sysctls, "_ROOT", values)
    apply_sysctls({"net.a": "1", "net.b": "1", "net.c": "1"}, undo)
    assert (values / "net/a").read_text() == "1"
    assert undo.known.sysctls == {"net.a": "0"}
    assert not (values / "net/c").exists()
    host = tmp_path / "host"
    (host / "net").mkdir(parents=True)
    monkeypatch.setattr(sysctls, "_OF_THE_HOST", host)
    sysctls.write({"net.a": "7"})
    assert ((host / "net/a").read_text(), (values / "net/a").read_text()) == ("7", "1")
    monkeypatch.setattr(sysctls, "_OF_THE_HOST", tmp_path / "none")
    (values / "net/a").unlink()
    (values / "net/a").mkdir()
    with pytest.raises(KernelError, match=r"set sysctl net.a=1"):
        sysctls.write({"net.a": "1"})
