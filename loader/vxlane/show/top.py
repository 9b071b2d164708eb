# SPDX-License-Identifier: Apache-2.0
"""Takes the samples of `vxlane top`: from maps, programs, devices, and what agents note of pods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from vxlane.datapath.abi import Guard
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import PeerCount, Pod
from vxlane.datapath.runtime import run_times
from vxlane.host.traffic import PodTraffic
from vxlane.netlink.socket import NetlinkSocket
from vxlane.pods.interfaces import pod_names
from vxlane.show.node import open_maps
from vxlane.show.rates import PodSample, Sample
from vxlane.util.names import device_name


class Sampler:
    """Reads this node again and again; what it opens it keeps open."""

    def __init__(self, maps: Maps, netlink: NetlinkSocket, state: Path) -> None:
        self._maps = maps
        self._traffic = PodTraffic(netlink)
        self._state = state
        self._names: dict[str, str] = {}
        self._known: frozenset[int] = frozenset()
        """The veths whose names were read."""

    def sample(self) -> Sample:
        """The node now."""
        peers, counts = self._maps.peers().values(), self._maps.peer_counts()
        nothing = PeerCount(0, 0, 0, 0)
        return Sample(
            at=time.monotonic(),
            is_bypassing=self._maps.settings().lease_until > time.monotonic_ns(),
            counters=self._maps.counters(),
            peers={peer.slot: (peer, counts.get(peer.slot, nothing)) for peer in peers},
            pods=self._pods(),
            run_times=run_times(pin_directory(self._state)),
        )

    def _pods(self) -> Mapping[int, PodSample]:
        by_veth: dict[int, list[Pod]] = {}
        for pod in self._maps.pods().values():
            by_veth.setdefault(pod.ifindex, []).append(pod)
        if by_veth.keys() != self._known:
            self._names, self._known = pod_names(self._state / "pods"), frozenset(by_veth)
        found = {}
        for ifindex, traffic in self._traffic.read(by_veth).items():
            pods, veth = by_veth[ifindex], device_name(ifindex)
            addresses = tuple(sorted(str(pod.address) for pod in pods))
            guards = [guard for guard in Guard if any(guard & pod.guard for pod in pods)]
            guarded = tuple((guard.name or "").lower() for guard in guards)
            name = self._names.get(veth) or addresses[0]
            found[ifindex] = PodSample(name, addresses, veth, guarded, traffic)
        return found


@contextlib.contextmanager
def sampler(state: Path) -> Iterator[Sampler]:
    """A sampler of this node. VxlaneError: there are no maps."""
    netlink = NetlinkSocket()
    try:
        with open_maps(state) as maps:
            yield Sampler(maps, netlink, state)
    finally:
        netlink.close()
