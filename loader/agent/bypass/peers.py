"""Keeps the programs' map of peers equal to the overlay's paths."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from vxlane.loader.agent.overlay.desired import Path, peer_of
from vxlane.loader.agent.overlay.overlay import Overlay
from vxlane.loader.agent.topics import Topic
from vxlane.loader.datapath.maps import Maps
from vxlane.loader.datapath.records import IPNetwork, Peer
from vxlane.loader.nodes.model import Problem

log = logging.getLogger(__name__)

_MOST_LINES = 50
"""Changes logged one by one in one go."""


_AT_A_TIME = 250
"""Peers compared in one go; 5 ms."""


class Slots:
    """Which counter belongs to which peer: the longest free one is taken first."""

    def __init__(self, taken: Iterable[int], capacity: int) -> None:
        used = set(taken)
        self._free = deque(slot for slot in range(capacity) if slot not in used)

    def take(self) -> int | None:
        """A free slot; None: the map is full."""
        return self._free.popleft() if self._free else None

    def give_back(self, slot: int) -> None:
        """Nobody uses it any more."""
        self._free.append(slot)


@dataclass(frozen=True, slots=True)
class _Made:
    """A map entry and what it was made of."""

    peer: Peer
    path: Path
    mtus: tuple[int, int]
    """Of flannel.<VNI> and of the NIC."""


class PeerKeeper:
    """Writes what differs from what the map holds, one log line for each change.

    After a look at the map everything is compared, otherwise only what was made anew.
    """

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._made: dict[str, _Made] = {}
        """By peer's name."""
        self.look()

    def look(self) -> None:
        """Read the map."""
        self._actual = self._maps.peers()
        slots = (peer.slot for peer in self._actual.values())
        self._slots = Slots(slots, self._maps.capacity("peer_counters"))
        self._must_compare = True

    def patrol(self) -> Iterator[Topic]:
        """Compare some peers at a time with what the map has."""
        known = list(self._actual)
        for start in range(0, len(known), _AT_A_TIME):
            peers = map(self._actual.get, known[start : start + _AT_A_TIME])
            is_so = all(self._maps.has_peer(peer) for peer in peers if peer)
            yield Topic(0) if is_so else Topic.MAPS

    def keep(self, overlay: Overlay, mtus: Mapping[int, int]) -> list[Problem]:
        """Make the map so; `mtus`: of each NIC by ifindex. Peers that did not fit are Problems."""
        before, made, left_out = self._made, {}, []
        for path in overlay.paths:
            if path.way is None:
                continue
            name = path.node.name
            entry = self._entry(path, overlay.device_mtu, mtus.get(path.hop.ifindex, 0))
            if entry is None:
                reason = "the map of peers is full; its packets take the kernel path"
                left_out.append(Problem(name, reason))
            else:
                made[name] = entry
        self._made = made
        if self._must_compare:
            self._write(list(made.values()), set(self._actual))
        else:
            gone = {m.peer.cidr for m in _without(before, made)}
            self._write(_without(made, before), gone)
        self._must_compare = False
        return left_out

    def _entry(self, path: Path, device_mtu: int, nic_mtu: int) -> _Made | None:
        known = self._made.get(path.node.name)
        if known and known.path is path and known.mtus == (device_mtu, nic_mtu):
            return known
        slot = self._slot(path.node.pod_cidr)
        if slot is None:
            return None
        peer = peer_of(path, slot, device_mtu=device_mtu, nic_mtu=nic_mtu)
        return _Made(peer, path, (device_mtu, nic_mtu))

    def _slot(self, cidr: IPv4Network) -> int | None:
        """The slot that counts for `cidr`; a new one is zeroed before it is used."""
        if actual := self._actual.get(cidr):
            return actual.slot
        slot = self._slots.take()
        if slot is not None:
            self._maps.clear_peer_count(slot)
        return slot

    def _write(self, wanted: list[_Made], doubtful: set[IPNetwork]) -> None:
        """Put `wanted`; then remove of the CIDRs in `doubtful` those that none of `wanted` has."""
        lines = []
        for made in wanted:
            peer, was = made.peer, self._actual.get(made.peer.cidr)
            if was != peer:
                self._maps.put_peer(peer)
                self._actual[peer.cidr] = peer
                lines.append(f"put {_shown(peer)}: " + (f"was {_shown(was)}" if was else "missing"))
        for cidr in doubtful - {made.peer.cidr for made in wanted}:
            gone = self._actual.pop(cidr)
            self._maps.delete_peer(cidr)
            self._slots.give_back(gone.slot)
            lines.append(f"remove {_shown(gone)}: stale")
        _log(lines)


def _without(made: Mapping[str, _Made], others: Mapping[str, _Made]) -> list[_Made]:
    """Those that are not the same objects in `others`."""
    return [entry for name, entry in made.items() if others.get(name) is not entry]


def _log(lines: list[str]) -> None:
    for line in lines[:_MOST_LINES]:
        log.info("%s", line)
    if len(lines) > _MOST_LINES:
        log.info("... and %d more changes of peers", len(lines) - _MOST_LINES)


def _shown(peer: Peer) -> str:
    way = f"{peer.way.name.lower()} to {peer.address} via {peer.next_hop} #{peer.ifindex}"
    return f"peer {peer.cidr} {way} MAC {peer.vtep_mac} MTU {peer.mtu}"
