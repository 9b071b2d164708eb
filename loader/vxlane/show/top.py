# SPDX-License-Identifier: Apache-2.0
"""Takes the samples of `vxlane top`: from maps, programs, devices, and what agents note of pods."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vxlane.datapath.abi import Guard
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import IPAddress, PeerCount, Pod
from vxlane.datapath.runtime import run_times
from vxlane.errors import VxlaneError
from vxlane.host.traffic import PodTraffic
from vxlane.netlink.socket import NetlinkSocket
from vxlane.pods.names import read_pod_names
from vxlane.show.node import open_maps
from vxlane.show.rates import PodSample, Sample
from vxlane.util.names import device_name
from vxlane.util.release import numbers

_COUNTS_PEERS = (6, 7)
"""Linux from which on bpf_redirect_peer() counts at the pod's end; see host/traffic.py."""

_Described = tuple[str, tuple[str, ...], str, tuple[str, ...]]
"""What a PodSample begins with: name, addresses, veth, guarded."""


class Sampler:
    """Reads this node again and again; what it opens it keeps open."""

    def __init__(self, maps: Maps, netlink: NetlinkSocket, state: Path) -> None:
        self._maps = maps
        self._traffic = PodTraffic(netlink)
        self._state = state
        self._notes = tuple(notes(os.uname().release))
        self._read: Mapping[IPAddress, Pod] = {}
        """The map of pods, as `_described` was made of it."""
        self._described: dict[int, _Described] = {}

    def sample(self) -> Sample:
        """The node now. VxlaneError: others stand where its programs were, or none."""
        if not self._maps.are_pinned(pin_directory(self._state)):
            raise VxlaneError(
                "this node's programs were replaced or removed meanwhile; run it again when an"
                " agent runs"
            )
        peers, counts = self._maps.peers().values(), self._maps.peer_counts()
        nothing = PeerCount(0, 0, 0, 0)
        return Sample(
            at=time.monotonic(),
            is_bypassing=self._maps.settings().lease_until > time.monotonic_ns(),
            counters=self._maps.counters(),
            peers={peer.slot: (peer, counts.get(peer.slot, nothing)) for peer in peers},
            pods=self._pods(),
            run_times=run_times(pin_directory(self._state)),
            notes=self._notes,
        )

    def _pods(self) -> Mapping[int, PodSample]:
        pods = self._maps.pods()
        if pods != self._read:
            self._read, self._described = pods, self._describe(pods.values())
        traffic = self._traffic.read(self._described)
        return {each: PodSample(*self._described[each], traffic[each]) for each in traffic}

    def _describe(self, pods: Iterable[Pod]) -> dict[int, _Described]:
        """By veth; a pod seldom changes, and to name 250 of them takes 5 ms."""
        named = read_pod_names(self._state).by_address()
        by_veth: dict[int, list[Pod]] = {}
        for pod in pods:
            by_veth.setdefault(pod.ifindex, []).append(pod)
        return {ifindex: _described(ifindex, found, named) for ifindex, found in by_veth.items()}


def _described(ifindex: int, pods: Iterable[Pod], named: Mapping[IPAddress, str]) -> _Described:
    addresses = tuple(sorted(str(pod.address) for pod in pods))
    names = [named[pod.address] for pod in pods if pod.address in named]
    guards = [guard for guard in Guard if any(guard & pod.guard for pod in pods)]
    guarded = tuple((guard.name or "").lower() for guard in guards)
    return (names or addresses)[0], addresses, device_name(ifindex), guarded


def notes(release: str) -> list[str]:
    """What rates lack on a kernel of that release, a sentence each. Distributions may have it in an
    older one, so it is only what may be.
    """
    found = numbers(release)
    if found >= _COUNTS_PEERS:
        return []
    shown = ".".join(map(str, found))
    return [f"Linux {shown} may not count what pods receive by the bypass; 6.7 does"]


@contextlib.contextmanager
def sampler(state: Path) -> Iterator[Sampler]:
    """A sampler of this node. VxlaneError: there are no maps."""
    with open_maps(state) as maps, contextlib.closing(NetlinkSocket()) as netlink:
        yield Sampler(maps, netlink, state)
