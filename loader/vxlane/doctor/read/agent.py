# SPDX-License-Identifier: Apache-2.0
"""Reads the agent's word and what it has pinned."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vxlane.agent import sole
from vxlane.datapath.bpffs import is_bpffs
from vxlane.datapath.records import Peer, PeerCount, Pod
from vxlane.doctor.facts import Agent
from vxlane.errors import VxlaneError
from vxlane.show import node
from vxlane.util.jsontext import parse_json


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the maps hold of peers and pods."""

    peers: tuple[Peer, ...] = ()
    counts: tuple[PeerCount, ...] = ()
    """One for each of `peers`."""
    pods: tuple[Pod, ...] = ()


def agent(state: Path) -> tuple[Agent, Pinned]:
    """The agent of a state directory, alive or not."""
    settings, pinned, error = None, Pinned(), ""
    try:
        with node.open_maps(state) as maps:
            settings, peers = maps.settings(), tuple(maps.peers().values())
            counts, nothing = maps.peer_counts(), PeerCount(0, 0, 0, 0)
            counted = tuple(counts.get(peer.slot, nothing) for peer in peers)
            pinned = Pinned(peers, counted, tuple(maps.pods().values()))
    except VxlaneError as failure:
        error = str(failure)
    status = node.status(state)["agent"]
    found = Agent(
        state=str(state),
        pid=sole.holder(state),
        status=status,
        mode=str(status.get("mode") or _last_mode(state)),
        is_mounted=(state / "bpf").is_dir() and is_bpffs(state / "bpf"),
        maps_error=error,
        settings=settings,
        now=time.monotonic_ns(),
    )
    return found, pinned


def _last_mode(state: Path) -> str:
    """The mode of an agent that is dead, as it wrote it last."""
    try:
        return str(parse_json((state / "agent.json").read_bytes()).get("mode", ""))
    except (OSError, ValueError, AttributeError):
        return ""  # there was none, or it is not what an agent wrote
