# SPDX-License-Identifier: Apache-2.0
"""Takes a profile of this node: begins everything, waits, reads everything, and ends it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import IPAddress, IPNetwork
from vxlane.errors import OptionError
from vxlane.host import machine
from vxlane.pods.names import PodNames, read_pod_names
from vxlane.profile import document
from vxlane.profile.costs import Costs
from vxlane.profile.document import Json
from vxlane.profile.nics import with_lower
from vxlane.profile.tracer import Subject, Tracer
from vxlane.show import node


def take(state: Path, pod: str | None, wait: Callable[[], None]) -> Json:
    """The document of one profile, which lasts as long as `wait` does.

    `state`: the agent's state directory; `pod`: name, address or veth of the only pod to follow,
    None: all. VxlaneError: there are no programs. OptionError: there is no such pod.
    """
    with node.open_maps(state) as maps, contextlib.ExitStack() as stack:
        peers = list(maps.peers())
        tracer, costs = Tracer(), Costs(pin_directory(state))
        stack.callback(tracer.close)
        stack.callback(costs.close)
        tracer.begin(subject(maps, read_pod_names(state), pod))
        costs.begin()
        before, began = machine.read(), time.monotonic()
        wait()
        seconds = time.monotonic() - began
        after, runs = machine.read(), costs.end()
        seen = tracer.end()
    return {
        "seconds": round(seconds, 3),
        "pod": pod,
        "latency": document.latency(seen.legs),
        "programs": document.programs(runs, seconds),
        "machine": document.machine(before, after),
        "losses": document.losses(seen.retransmits, lambda remote: peer_of(peers, remote)),
        "missing": tracer.missing + costs.missing,
    }


def subject(maps: Maps, names: PodNames, pod: str | None) -> Subject:
    """Whose packets are followed: of one pod or all, to and from the NICs that lead to peers."""
    pods = maps.pods()
    if pod is not None:
        chosen = names.find(pod, pods)
        if chosen not in pods:
            raise OptionError(f"this node has no pod {pod!r}; 'vxlane pods' lists those it has")
        veth = pods[chosen].ifindex
        pods = {address: found for address, found in pods.items() if found.ifindex == veth}
    return Subject(
        {found.ifindex for found in pods.values()},
        with_lower(peer.ifindex for peer in maps.peers().values() if peer.ifindex),
        {address for address in pods if isinstance(address, IPv4Address)},
    )


def peer_of(peers: Iterable[IPNetwork], remote: str) -> str | None:
    """The CIDR of the peer that has this address."""
    address: IPAddress = ip_address(remote)
    holding = [cidr for cidr in peers if address in cidr]
    return str(max(holding, key=lambda cidr: cidr.prefixlen)) if holding else None
