# SPDX-License-Identifier: Apache-2.0
"""Keeps the programs' map of peers equal to the overlay's paths."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from vxlane.datapath.maps import Maps
from vxlane.datapath.records import IPNetwork, Peer
from vxlane.overlay.backend import OverlayState
from vxlane.overlay.desired import Path, peer_of
from vxlane.sources.model import Problem
from vxlane.util.difference import difference
from vxlane.util.dirty import Dirty
from vxlane.util.log_lines import log_lines

log = logging.getLogger(__name__)

_AT_A_TIME = 250
"""Peers compared in one go; 5 ms."""


class Slots:
    """Assigns counters to peers. The counter that was free for the longest time is taken first."""

    def __init__(self, taken: Iterable[int], capacity: int) -> None:
        used = set(taken)
        self._free = deque(slot for slot in range(capacity) if slot not in used)

    def take(self) -> int | None:
        """A free slot; None: the map is full."""
        return self._free.popleft() if self._free else None

    def give_back(self, slot: int) -> None:
        """The peer of this slot is gone."""
        self._free.append(slot)


class PeerKeeper:
    """Writes the peers that differ from the map's entries, and logs each change.

    After a read of the map all peers are compared, otherwise only those whose paths have changed.
    """

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._applied: Sequence[Path] = ()
        """The paths that are in the map. Empty: everything is to be compared."""
        self._mtus: tuple[int, Mapping[int, int]] = 0, {}
        """Of flannel.<VNI>, and of each NIC by ifindex."""
        self._has_changed = False
        self.read()

    def take_changed(self) -> bool:
        """Whether entries were replaced or removed since the last call. Flow records are made from
        them, and are wrong then.
        """
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def read(self) -> None:
        """Read the map."""
        self._actual = self._maps.peers()
        slots = (peer.slot for peer in self._actual.values())
        # One place stays free, see Maps.put_peer().
        self._slots = Slots(slots, self._maps.capacity("peer_counters") - 1)
        self._applied = ()

    def resync(self) -> Iterator[Dirty]:
        """Compare the peers with the map's entries, some at a time."""
        known = list(self._actual)
        for start in range(0, len(known), _AT_A_TIME):
            peers = map(self._actual.get, known[start : start + _AT_A_TIME])
            is_so = all(self._maps.has_peer(peer) for peer in peers if peer)
            yield Dirty(0) if is_so else Dirty.MAPS

    def apply(self, overlay: OverlayState, mtus: Mapping[int, int]) -> list[Problem]:
        """Make the map agree with `overlay`. `mtus` are those of the NICs in bytes, by ifindex.

        Returns a Problem for each peer that did not fit.
        """
        if self._mtus != (overlay.device_mtu, mtus):
            self._mtus, self._applied = (overlay.device_mtu, mtus), ()
        gone, come = difference(self._applied, overlay.paths)
        doubtful: set[IPNetwork] = {path.node.pod_cidr for path in gone}
        if not self._applied:
            doubtful = set(self._actual)
        wanted, left_out = [], []
        for path in come:
            if path.way is None:
                continue
            slot = self._slot(path.node.pod_cidr)
            if slot is None:
                reason = "the map of peers is full; its packets take the kernel path"
                left_out.append(Problem(path.node.name, reason))
            else:
                nic_mtu = mtus.get(path.hop.ifindex, 0)
                wanted.append(peer_of(path, slot, device_mtu=overlay.device_mtu, nic_mtu=nic_mtu))
        self._write(wanted, doubtful)
        # There may be room next time for those that were left out.
        self._applied = () if left_out else overlay.paths
        return left_out

    def _slot(self, cidr: IPv4Network) -> int | None:
        """The counter of `cidr`. A new one is set to zero first. None: all are taken."""
        if actual := self._actual.get(cidr):
            return actual.slot
        slot = self._slots.take()
        if slot is not None:
            self._maps.clear_peer_count(slot)
        return slot

    def _write(self, wanted: list[Peer], doubtful: set[IPNetwork]) -> None:
        """Write the `wanted` peers, then remove the `doubtful` CIDRs that are not among them."""
        lines = []
        for peer in wanted:
            was = self._actual.get(peer.cidr)
            if was != peer:
                self._maps.put_peer(peer)
                self._actual[peer.cidr] = peer
                self._has_changed |= was is not None
                lines.append(f"put {_shown(peer)}: " + (f"was {_shown(was)}" if was else "missing"))
        for cidr in doubtful - {peer.cidr for peer in wanted}:
            if gone := self._actual.pop(cidr, None):
                self._maps.delete_peer(cidr)
                self._has_changed = True
                self._slots.give_back(gone.slot)
                lines.append(f"remove {_shown(gone)}: stale")
        log_lines(log, lines, "changes of peers")


def _shown(peer: Peer) -> str:
    way = f"{peer.way.name.lower()} to {peer.address} via {peer.next_hop} #{peer.ifindex}"
    return f"peer {peer.cidr} {way} MAC {peer.vtep_mac} MTU {peer.mtu}"
