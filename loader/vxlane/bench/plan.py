# SPDX-License-Identifier: Apache-2.0
"""What a run measures: paths, places, and how much of it. Pure.

A work is named here and described in `works.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vxlane.bench.model import Placement

BYPASS, KERNEL = "bypass", "kernel"
PATHS = {
    "host": "from node to node: the NICs' own addresses, no overlay",
    "stock": "flannel's path with its rules: bridge, netfilter, flannel.1; no program of vxlane's",
    "flowtable": "stock, with an nftables flowtable on veths, flannel.1 and NIC",
    "device": "a tunnel key and a redirect to a vxlan device that collects metadata, as Cilium's"
    " tunnel mode, without its policy and conntrack",
    "encap": "the next step from device: its programs write and remove the outer headers, with a"
    " look-up in the FIB for each packet; TCP that GRO has merged is left to the vxlan device",
    KERNEL: "the kernel path of the same two nodes: pods that no agent was told of; the programs on"
    " the NICs stay attached",
    BYPASS: "vxlane",
}

OTHER_PROGRAMS = ("device", "encap")
"""The paths with programs that are not vxlane's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Who talks to whom."""

    name: str
    services: int = 0
    """How many Services kube-proxy has rules for on each node."""


BETWEEN = Place("between nodes")
ONE_NODE = Place("on one node")
TO_STOCK = Place("to a stock node")
FROM_STOCK = Place("from a stock node")
SERVICE = Place("through a ClusterIP")
FEW_SERVICES = Place("between nodes, 200 Services", services=200)
MANY_SERVICES = Place("between nodes, 5,000 Services", services=5000)
GIVEN = Place("between the given ends")
LIVE = Place("between probe pods")


class Depth(enum.Enum):
    """How much is measured."""

    QUICK = "quick"
    DEFAULT = "default"
    FULL = "full"


SECONDS = {Depth.QUICK: 0.4, Depth.DEFAULT: 1.0, Depth.FULL: 2.0}
"""Length of one measurement."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One work at one place, measured on these paths in turns."""

    place: Place
    work: str
    placement: Placement
    paths: tuple[str, ...]


TCP1, TCP8 = "TCP, 1 flow", "TCP, 8 flows"
UDP64, UDP512, UDP1380 = "UDP, 64 B", "UDP, 512 B", "UDP, 1,380 B"
TCP_RR, UDP_RR, CRR = "TCP request-response", "UDP request-response", "connect-request-response"
SLOW, FIXED = "1,000 slow flows", "UDP at a fixed rate"
TCP1_CUT, TCP8_CUT = f"{TCP1}, tso and gso off", f"{TCP8}, tso and gso off"
NGINX, REDIS = "nginx and wrk", "redis and redis-benchmark"
FLOODED = "request-response beside a flood"
GROWTH = "growth of peers, pods and flows"
"""No cell: it has labs of its own."""

_ONE, _TWO, _AWAKE = (Placement.ONE,), (Placement.TWO,), (Placement.AWAKE,)
_BOTH = (Placement.ONE, Placement.TWO)
_ALL_PATHS = tuple(path for path in PATHS if path != KERNEL)
_IN_ONE_NODE = ("stock", "flowtable", "device", "bypass")
_PAIR = ("stock", "bypass")

_Works = Mapping[str, tuple[Placement, ...]]
_Plan = tuple[Place, tuple[str, ...], _Works]

_QUICK: tuple[_Plan, ...] = (
    (
        BETWEEN,
        ("host", "stock", "device", "bypass"),
        {TCP1: _TWO, UDP64: _TWO, TCP_RR: _ONE, CRR: _ONE},
    ),
    (ONE_NODE, _PAIR, {TCP1: _TWO, UDP64: _TWO, TCP_RR: _ONE}),
    (SERVICE, _PAIR, {TCP_RR: _ONE, CRR: _ONE}),
)
_CORE: _Works = {TCP1: _TWO, UDP64: _TWO, TCP_RR: _ONE, CRR: _ONE}
_DEFAULT: tuple[_Plan, ...] = (
    (
        BETWEEN,
        _ALL_PATHS,
        {
            **dict.fromkeys((TCP1, TCP8, TCP1_CUT, UDP64, UDP512, UDP1380), _TWO),
            **dict.fromkeys((TCP_RR, UDP_RR, CRR), _BOTH),
            **dict.fromkeys((SLOW, FIXED), _TWO),
        },
    ),
    (ONE_NODE, _IN_ONE_NODE, {TCP1: _TWO, TCP8: _TWO, UDP64: _TWO, TCP_RR: _BOTH, CRR: _ONE}),
    (TO_STOCK, _PAIR, _CORE),
    (FROM_STOCK, _PAIR, _CORE),
    (SERVICE, _PAIR, _CORE),
)
_MORE: _Works = {TCP8: _TWO, UDP1380: _TWO, UDP_RR: _ONE}
_EVERY_WORK: _Works = {
    **dict.fromkeys((TCP1, TCP8, TCP1_CUT, TCP8_CUT, UDP64, UDP512, UDP1380), _BOTH),
    **dict.fromkeys((TCP_RR, UDP_RR, CRR, SLOW, FIXED, NGINX, REDIS), _BOTH),
}
_WOKEN: _Works = dict.fromkeys((TCP_RR, UDP_RR, CRR), _AWAKE)
"""What waits for the other end each time."""
_FULL: tuple[_Plan, ...] = (
    (BETWEEN, _ALL_PATHS, _EVERY_WORK),
    (BETWEEN, _PAIR, {FLOODED: _TWO, **_WOKEN}),
    (ONE_NODE, _IN_ONE_NODE, _EVERY_WORK),
    (ONE_NODE, _PAIR, _WOKEN),
    (TO_STOCK, _PAIR, {**_CORE, **_MORE}),
    (FROM_STOCK, _PAIR, {**_CORE, **_MORE}),
    (SERVICE, _PAIR, {**_CORE, TCP8: _TWO, NGINX: _TWO, REDIS: _TWO}),
    (FEW_SERVICES, _PAIR, _CORE),
    (MANY_SERVICES, _PAIR, _CORE),
)
_PLANS = {Depth.QUICK: _QUICK, Depth.DEFAULT: _DEFAULT, Depth.FULL: _FULL}

_LIVE = (TCP1, TCP8, UDP64, UDP512, UDP1380, TCP_RR, UDP_RR, CRR)
"""What needs no more than a pod on each of two nodes."""

WITH_IPERF3, WITH_FILES = (TCP1, TCP8, TCP1_CUT, TCP8_CUT), (NGINX, REDIS)
_LEFT_AS_THEY_ARE = (TCP1_CUT, TCP8_CUT, FLOODED)
"""Not for ends that are given: they change a device's settings, or need two pods more."""


def cells(depth: Depth) -> list[Cell]:
    """What a run in labs measures."""
    return [
        Cell(place, work, placement, paths)
        for place, paths, works in _PLANS[depth]
        for work, placements in works.items()
        for placement in placements
    ]


def given_cells(depth: Depth, paths: Sequence[str], *, on_hosts: bool) -> list[Cell]:
    """The same between ends that somebody else made. Hosts place the ends on CPUs themselves."""
    return list(
        dict.fromkeys(
            Cell(GIVEN, cell.work, Placement.NODES if on_hosts else cell.placement, tuple(paths))
            for cell in cells(depth)
            if cell.place == BETWEEN and cell.work not in _LEFT_AS_THEY_ARE
        )
    )


def live_cells(depth: Depth) -> list[Cell]:
    """What is measured between probe pods of two nodes that run."""
    works = [work for work in _LIVE if depth is not Depth.QUICK or work in _CORE]
    return [Cell(LIVE, work, Placement.NODES, (KERNEL, BYPASS)) for work in works]


def chosen(planned: Sequence[Cell], works: Sequence[str]) -> list[Cell]:
    """The cells whose work has one of these words in its name; all if there are no words."""
    words = [word.lower() for word in works]
    return [
        cell for cell in planned if not words or any(word in cell.work.lower() for word in words)
    ]


def grows(depth: Depth, works: Sequence[str]) -> bool:
    """Whether the growth is measured too."""
    return depth is Depth.FULL and (not works or any(word.lower() in GROWTH for word in works))


def without(planned: Sequence[Cell], paths: Sequence[str]) -> Iterator[Cell]:
    """The cells without these paths; a cell needs one at least."""
    for cell in planned:
        left = tuple(path for path in cell.paths if path not in paths)
        if left:
            yield Cell(cell.place, cell.work, cell.placement, left)


def order(paths: Sequence[str], turn: int) -> list[str]:
    """The paths as they take turns in round `turn`, from 0: each is first, second, ... once."""
    first = turn % len(paths)
    return [*paths[first:], *paths[:first]]
