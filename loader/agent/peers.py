"""Keeps the programs' map of peers equal to the overlay's paths."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network

from vxlane.loader.agent.desired import Path, peer_of
from vxlane.loader.agent.overlay import Overlay
from vxlane.loader.datapath.maps import IPNetwork, Maps, Peer
from vxlane.loader.nodes.model import Problem

log = logging.getLogger(__name__)

_MOST_LINES = 50
"""Changes logged one by one in one go."""


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


class PeerKeeper:
    """Writes what differs from what the map holds, one log line for each change."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._actual: dict[IPNetwork, Peer] = {}
        self._made: dict[IPv4Network, tuple[Path, int, int, Peer]] = {}
        """What each peer was made of: its path, the device's and the NIC's MTU."""
        self.look()

    def look(self) -> None:
        """Read the map."""
        self._actual = self._maps.peers()
        slots = (peer.slot for peer in self._actual.values())
        self._slots = Slots(slots, self._maps.capacity("peer_counters"))

    def keep(self, overlay: Overlay, mtus: Mapping[int, int]) -> list[Problem]:
        """Make the map so; `mtus`: of each NIC by ifindex. Peers that did not fit are Problems."""
        made, left_out = {}, []
        for path in overlay.paths:
            if path.way is None:
                continue
            entry = self._entry(path, overlay.device_mtu, mtus.get(path.hop.ifindex, 0))
            if entry is None:
                reason = "the map of peers is full; its packets take the kernel path"
                left_out.append(Problem(path.node.name, reason))
            else:
                made[path.node.pod_cidr] = entry
        self._made = made
        self._write({cidr: entry[3] for cidr, entry in made.items()})
        return left_out

    def _entry(
        self, path: Path, device_mtu: int, nic_mtu: int
    ) -> tuple[Path, int, int, Peer] | None:
        cidr = path.node.pod_cidr
        known = self._made.get(cidr)
        if known and known[0] is path and known[1:3] == (device_mtu, nic_mtu):
            return known
        slot = known[3].slot if known else self._slot(cidr)
        if slot is None:
            return None
        peer = peer_of(path, slot, device_mtu=device_mtu, nic_mtu=nic_mtu)
        return path, device_mtu, nic_mtu, peer

    def _slot(self, cidr: IPv4Network) -> int | None:
        if actual := self._actual.get(cidr):
            return actual.slot
        slot = self._slots.take()
        if slot is not None:
            self._maps.clear_peer_count(slot)
        return slot

    def _write(self, wanted: Mapping[IPNetwork, Peer]) -> None:
        lines = []
        for cidr, peer in wanted.items():
            was = self._actual.get(cidr)
            if was is peer or was == peer:
                continue
            self._maps.put_peer(peer)
            lines.append(f"put {_shown(peer)}: " + (f"was {_shown(was)}" if was else "missing"))
            self._actual[cidr] = peer
        for cidr in self._actual.keys() - wanted.keys():
            gone = self._actual.pop(cidr)
            self._maps.delete_peer(cidr)
            self._slots.give_back(gone.slot)
            lines.append(f"remove {_shown(gone)}: stale")
        for line in lines[:_MOST_LINES]:
            log.info("%s", line)
        if len(lines) > _MOST_LINES:
            log.info("... and %d more changes of peers", len(lines) - _MOST_LINES)


def _shown(peer: Peer) -> str:
    way = f"{peer.way.name.lower()} to {peer.address} via {peer.next_hop} #{peer.ifindex}"
    return f"peer {peer.cidr} {way} MAC {peer.vtep_mac} MTU {peer.mtu}"
