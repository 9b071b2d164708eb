# SPDX-License-Identifier: Apache-2.0
"""What a bypassed packet costs the programs among more and more peers, pods and flows.

Peers and pods are real: agents write them, plugins make them. Flows are records in the maps. The
packets that are measured are real too, of one flow.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vxlane.bench import flatness, many_flows, plan, programs
from vxlane.bench.document import Json
from vxlane.bench.flatness import Pair, Size
from vxlane.bench.grounds import Labs
from vxlane.bench.model import Missing, Placement
from vxlane.bench.rounds import Rounds
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import Constants, pin_directory
from vxlane.datapath.records import SHAPES
from vxlane.errors import LabError
from vxlane.lab import agents
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LabNode
from vxlane.lab.waiting import wait_for
from vxlane.sources.model import derived_mac

PEERS = (10, 100, 1_000, 10_000)
PODS = (10, 50, 250)
"""On each node. A node's network has addresses for 253."""
FLOWS = (1_000, 10_000, 100_000, 1_000_000)
_MOST_FLOWS = 1 << 20
"""An LRU map evicts old entries before it is quite full."""
_SECONDS = 60.0
_FIRST_CIDR, _FIRST_ADDRESS = IPv4Network("10.42.64.0/30"), IPv4Address("192.168.128.1")
"""10,000 networks of four addresses from here on are the lab's, and no node of it has them."""
_CELL = plan.Cell(plan.BETWEEN, plan.UDP64, Placement.ONE, (plan.BYPASS,))
_KEPT_FREE = 512 << 20
"""Bytes of memory that the largest map leaves to the rest of the machine."""
_OF_AN_ENTRY = 80
"""Bytes that the kernel adds to each entry of an LRU: struct htab_elem, and its bucket."""


@dataclass(frozen=True, slots=True)
class Side:
    """A lab, and how it is measured."""

    lab: Lab
    rounds: Rounds

    def costs(self) -> dict[str, float]:
        """What a datagram costs each program, ns."""
        setting = self.rounds.setting(plan.BYPASS, plan.BETWEEN, Placement.ONE)
        found = programs.costs_of(programs.of_bypass(self.lab), plan.UDP64, setting)
        return {name: ns for name, (ns, _) in found.items()}

    def need_bypass(self) -> None:
        """Wait until packets are bypassed: while an agent writes 10,000 peers none is.

        LabError: they never were.
        """
        if said := self.rounds.await_parity(plan.BYPASS, plan.BETWEEN, seconds=_SECONDS):
            raise LabError(f"no packet was bypassed to measure: {said}")


@dataclass(frozen=True, slots=True)
class Growth:
    """Two labs: one that grows, and one beside it that stays as it is."""

    growing: Side
    staying: Side

    @property
    def lab(self) -> Lab:
        """The one that grows."""
        return self.growing.lab

    def peers(self, counts: Sequence[int]) -> Iterator[Size]:
        """The costs among more and more peers. The lab has its own alone after it."""
        for count in counts:
            strangers = _strangers(count - len(self.lab.nodes) + 1)
            agents.write_nodes(self.lab.nodes_file, [*self.lab.nodes, *strangers])
            yield self._size("peers", count, _peers)
        agents.write_nodes(self.lab.nodes_file, self.lab.nodes)

    def pods(self, counts: Sequence[int]) -> Iterator[Size]:
        """The costs among more and more pods on each node, which stay."""
        for count in counts:
            for node in self.lab.accelerated():
                there = sum(pod.node == node.name for pod in self.lab.pods)
                for _ in range(count - there):
                    self.lab.add_pod(node)
            yield self._size("pods", count, _pods)

    def flows(self, counts: Sequence[int]) -> Iterator[Size]:
        """The costs beside more and more flows."""
        ends = self.growing.rounds.grounds.stand(plan.BYPASS, plan.BETWEEN).ends
        client, server = self.lab.pod(ends.source.name), self.lab.pod(ends.target.name)
        for count in counts:
            self.growing.costs()  # there is a flow to be copied then
            for local, remote in ((client, server), (server, client)):
                pins = pin_directory(self.lab.node(local.node).directory)
                many_flows.fill(pins, local.address, remote.address, count)
            yield self._size("flows", count, many_flows.known)

    def _size(self, of: str, wanted: int, known: Callable[[Path], int]) -> Size:
        """LabError: there never were so many, or no packet was bypassed among them."""
        self.growing.rounds.progress(f"what the programs cost among {wanted:,} {of}")
        pins = [pin_directory(node.directory) for node in self.lab.accelerated()]

        def fewest() -> int:
            return min(map(known, pins))

        wait_for(lambda: fewest() >= wanted, f"{wanted:,} {of}", seconds=_SECONDS)
        for side in (self.growing, self.staying):
            side.need_bypass()
        costs = self._costs()
        return Size(of, wanted, fewest(), costs)

    def _costs(self) -> dict[str, list[Pair]]:
        """Of each program that ran often enough in every round: both labs, in turns."""
        rounds = []
        for turn in range(self.growing.rounds.count):
            if turn % 2:
                there, here = self.staying.costs(), self.growing.costs()
            else:
                here, there = self.growing.costs(), self.staying.costs()
            rounds.append((here, there))
        names = [
            name for name in rounds[0][0] if all(name in one for both in rounds for one in both)
        ]
        return {name: [Pair(here[name], there[name]) for here, there in rounds] for name in names}


def _prefixes(name: str) -> tuple[str, str]:
    return f"{name}-grow", f"{name}-stay"


def names(name: str) -> list[str]:
    """Of the two labs: the one that grows, and the other."""
    return [f"{prefix}-{plan.BYPASS}" for prefix in _prefixes(name)]


def measure(
    name: str, make_rounds: Callable[..., Rounds], progress: Callable[[str], None]
) -> tuple[list[Json], list[Missing]]:
    """Make two labs whose names begin with `name`, measure, and remove them.

    What was found is in the form of `flatness.documents`. LabError: it could not be measured.
    """
    flows, missing = fitting(_available())
    most = _MOST_FLOWS if flows == FLOWS else Constants().max_flows
    growing, staying = _prefixes(name)
    grounds = (
        Labs(growing, progress, ("--max-flows", str(most))),
        Labs(staying, progress),
    )
    found: list[Json] = []
    with contextlib.ExitStack() as stack:
        for ground in grounds:
            stack.callback(ground.down)
            ground.make([_CELL])
        sides = [Side(one.labs[plan.BYPASS, 0], make_rounds(grounds=one)) for one in grounds]
        growth = Growth(*sides)
        for sizes in (growth.peers(PEERS), growth.pods(PODS), growth.flows(flows)):
            found += flatness.documents(list(sizes))
        progress("removing the labs of the growth")
    return found, missing


def fitting(available: int) -> tuple[tuple[int, ...], list[Missing]]:
    """Numbers of flows whose records fit into `available` bytes, and why others are left out."""
    key, value = (ctypes.sizeof(kind) for kind in SHAPES["flows"])
    flows, translations = key + value + _OF_AN_ENTRY, (2 * key + _OF_AN_ENTRY) // 4
    needed = 2 * _MOST_FLOWS * (flows + translations) + _KEPT_FREE
    if available >= needed:
        return FLOWS, []
    default = Constants().max_flows
    why = f"it takes {needed / 1e9:.1f} GB of free memory, and {available / 1e9:.1f} GB are free"
    left_out = [Missing(f"{count:,} flows", why) for count in FLOWS if count >= default]
    return tuple(count for count in FLOWS if count < default), left_out


def _available() -> int:
    """Bytes of memory that programs could have (MemAvailable, proc(5))."""
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _strangers(count: int) -> Iterator[LabNode]:
    """Nodes that nobody has made, and nobody talks to."""
    for number in range(count):
        name = f"stranger{number}"
        yield LabNode(
            name=name,
            address=_FIRST_ADDRESS + number,
            pod_cidr=IPv4Network((int(_FIRST_CIDR[0]) + 4 * number, 30)),
            vtep_mac=derived_mac(name),
            kernel_only=True,
            directory=Path("/nonexistent"),
        )


def _peers(pins: Path) -> int:
    with Maps.open(pins) as maps:
        return len(maps.peers())


def _pods(pins: Path) -> int:
    with Maps.open(pins) as maps:
        return len(maps.pods())
