# SPDX-License-Identifier: Apache-2.0
"""Both paths on a node that runs: a pair of probe pods for each, and which path packets took.

One pod is made as the node makes all pods. For the other the plugins don't reach the agent, so no
program knows it, and its packets take the kernel path. No other pod's packets change their path.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from vxlane.bench import witness
from vxlane.bench.plan import BYPASS, KERNEL
from vxlane.connectivity.pod import ProbePod
from vxlane.datapath.maps import Maps
from vxlane.errors import VxlaneError
from vxlane.lab import namespaces

PATHS = (KERNEL, BYPASS)
_FEW = 20
"""Packets that open, teach and close connections: in a short measurement they are more than 1 %."""


@dataclass(frozen=True, slots=True)
class End:
    """A probe pod of this node."""

    pod: ProbePod
    veth: str
    """The host end of its interface."""
    is_accelerated: bool
    """Whether the programs of this node know it."""


Pods = Mapping[str, End]
"""By the path that the pod is for."""


def ends(pods: Mapping[str, ProbePod], maps: Maps | None) -> dict[str, End]:
    """The pods of this node; `maps` are its programs', None: it has none.

    VxlaneError: the pod of the kernel path is one that programs know.
    """
    known = maps.pods() if maps else {}
    found = {path: End(pod, _veth(pod), pod.address in known) for path, pod in pods.items()}
    if found[KERNEL].is_accelerated:
        raise VxlaneError(
            "every pod of this node is accelerated, so none has the kernel path; does an older"
            " plugin make them? See: vxlane install"
        )
    return found


def _veth(pod: ProbePod) -> str:
    said = namespaces.run(str(pod.netns), "ip", "-j", "link", "show", "dev", "eth0").stdout
    return socket.if_indextoname(json.loads(said)[0]["link_index"])


def passed_in(end: End) -> int:
    """Packets that came to the pod by the kernel path. A redirect into it goes past its veth's host
    end.
    """
    return witness.sent_packets(Path("/proc/net/dev").read_text(encoding="ascii"))[end.veth]


@dataclass(frozen=True, slots=True)
class Reading:
    """Packets, each counted since its device or program was made."""

    sent: int
    """By the client's pod."""
    tunnelled: int
    """By the bypass of this node to the other one, of all pods."""
    passed_in: int
    """To the client's pod by the kernel path of this node."""
    passed_there: int
    """To the server's pod by the kernel path of its node; always 0 if that has no other."""


def slot_of(address: str, maps: Maps) -> int:
    """The number by which the peer of that pod is counted. VxlaneError: it is no peer's."""
    peer = maps.peer_of(IPv4Address(address))
    if peer is None:
        raise VxlaneError(
            f"{address} is no pod of another node that the bypass knows; see: vxlane peers"
        )
    return peer.slot


def read(end: End, maps: Maps, slot: int, passed_there: int) -> Reading:
    """The counters as they are now."""
    pod = witness.sent_packets(namespaces.run(str(end.pod.netns), "cat", "/proc/net/dev").stdout)
    tunnelled = maps.peer_counts()[slot].tx_packets
    return Reading(pod["eth0"], tunnelled, passed_in(end), passed_there)


def complaint(path: str, before: Reading, after: Reading, *, is_long: bool) -> str:
    """Which packets took the wrong path between two readings; empty: none did.

    Nothing can be said of a work that is not long: few of its packets can be bypassed. Pure.
    """
    sent = after.sent - before.sent
    there = after.passed_there - before.passed_there
    if path == KERNEL:
        return "" if there else "no packet came in by the kernel path of the other node"
    if not is_long:
        return ""
    past = {
        "did not leave by the bypass of this node": sent - (after.tunnelled - before.tunnelled),
        "came in by the kernel path of this node": after.passed_in - before.passed_in,
        "came in by the kernel path of the other node": there,
    }
    for what, count in past.items():
        if count > witness.MOST_PAST * sent + _FEW:
            return f"{count:,} packets {what}, while {sent:,} were sent; see: vxlane why"
    return ""
