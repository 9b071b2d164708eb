# SPDX-License-Identifier: Apache-2.0
"""Where the paths are measured: labs that are made for a run, or ends that somebody gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vxlane.bench import device, flowtable, plan, services
from vxlane.bench.ends import End, Ends, Namespace, in_namespaces
from vxlane.bench.model import Missing
from vxlane.bench.plan import Cell, Place
from vxlane.bench.witness import Check, checks
from vxlane.errors import LabError
from vxlane.lab import kernel_node, service
from vxlane.lab import lab as labs
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LabPod

_WIRE_MTU = kernel_node.MTU + 50
_BACKEND = 2, 2
"""The Service's: node and pod. Not the pod that is called by its own address: where two connections
would be the same behind NAT, conntrack moves the port of one."""


@dataclass(frozen=True, slots=True)
class Stand:
    """One path at one place."""

    ends: Ends
    ping: str
    """The address that answers a ping: a Service's does not."""
    mtu: int
    """The largest IP packet, bytes."""
    checks: Sequence[Check] = ()
    """Empty: no device between the ends is known."""
    beside: Ends | None = None
    cutting: Sequence[End] = ()
    """Where fragments are counted."""
    nodes: Sequence[str] = ()
    """Namespaces of the lab's nodes; empty: the nodes are not ours."""


class Grounds(Protocol):
    """Where paths can be measured."""

    def stand(self, path: str, place: Place) -> Stand:
        """Where `path` is measured at `place`."""


class Labs:
    """A lab for each path; `host` and `stock` share one."""

    def __init__(
        self, name: str, progress: Callable[[str], None], agent_options: Sequence[str] = ()
    ) -> None:
        self._name = name
        self._progress = progress
        self._agent_options = agent_options
        self.labs: dict[tuple[str, int], Lab] = {}
        self._named: list[str] = []

    def make(self, cells: Sequence[Cell]) -> list[Missing]:
        """Make the labs that `cells` need; what this kernel can't have."""
        needed = {self._key(path, cell.place): cell.place for cell in cells for path in cell.paths}
        has_stock_node = any(cell.place in (plan.TO_STOCK, plan.FROM_STOCK) for cell in cells)
        missing = []
        for path, count in needed:
            self._progress(f"making the lab of {path}" + (f", {count} Services" if count else ""))
            name = _lab_name(self._name, path, count)
            stock_nodes = 1 if path == plan.BYPASS and has_stock_node else 0
            made = labs.up(
                name,
                nodes=2 + stock_nodes,
                pods_per_node=2,
                kernel_only=stock_nodes if path == plan.BYPASS else 2,
                agent_options=self._agent_options,
            )
            self._named.append(name)
            for node in made.nodes if count else ():
                services.load(node.name, count)
            self._provide_service(made)
            if path in plan.OTHER_PROGRAMS:
                device.install(made, path)
            if path == "flowtable" and not flowtable.install(made):
                why = "this kernel has no nftables flowtables (CONFIG_NF_FLOW_TABLE)"
                missing.append(Missing("path flowtable", why))
                continue
            self.labs[path, count] = made
        return missing

    def has(self, path: str) -> bool:
        """Whether this kernel could make a lab of `path`."""
        return any(self._key(path, plan.BETWEEN)[0] == made for made, _ in self.labs)

    def _provide_service(self, made: Lab) -> None:
        backend = _pod(made, *_BACKEND).address
        service.provide(made.nodes[0].name, backend)

    def down(self) -> None:
        """Remove all that were made; one that could not be made has removed itself."""
        for name in self._named:
            labs.down(name)

    def stand(self, path: str, place: Place) -> Stand:
        """Where `path` is measured at `place`."""
        lab = self.labs[self._key(path, place)]
        if path == "host":
            client, server = lab.nodes[:2]
            ends = in_namespaces(client.name, server.name, str(server.address))
            return Stand(
                ends,
                ends.address,
                _WIRE_MTU,
                cutting=(ends.source, ends.target),
                nodes=(client.name, server.name),
            )
        source, target = _pods(lab, place)
        address = service.VIRTUAL if place == plan.SERVICE else target.address
        nodes = {node.name: node for node in lab.nodes}
        return Stand(
            in_namespaces(source.name, target.name, str(address)),
            str(target.address),
            kernel_node.MTU,
            checks(path, source, target, nodes),
            _neighbours(lab),
            [Namespace(node) for node in nodes],
            tuple(nodes),
        )

    def _key(self, path: str, place: Place) -> tuple[str, int]:
        return ("stock" if path == "host" else path), place.services


def _lab_name(prefix: str, path: str, services: int) -> str:
    return f"{prefix}-{path}{services or ''}"


def lab_names(prefix: str) -> set[str]:
    """Of all labs that a run may make whose names begin with `prefix`."""
    cells = plan.cells(plan.Depth.FULL)
    return {_lab_name(prefix, path, cell.place.services) for cell in cells for path in cell.paths}


def _pods(lab: Lab, place: Place) -> tuple[LabPod, LabPod]:
    """Client and server. A lab without a stock node is one of stock nodes."""
    stock = min(3, len(lab.nodes))
    if place == plan.ONE_NODE:
        return _pod(lab, 1, 1), _pod(lab, 1, 2)
    if place == plan.TO_STOCK:
        return _pod(lab, 1, 1), _pod(lab, stock, 1)
    if place == plan.FROM_STOCK:
        return _pod(lab, stock, 1), _pod(lab, 1, 1)
    return _pod(lab, 1, 1), _pod(lab, *(_BACKEND if place == plan.SERVICE else (2, 1)))


def _neighbours(lab: Lab) -> Ends:
    source, target = _pod(lab, 1, 2), _pod(lab, 2, 2)
    return in_namespaces(source.name, target.name, str(target.address))


def _pod(lab: Lab, node: int, number: int) -> LabPod:
    return lab.pod(f"{lab.name}-node{node}-pod{number}")


class Given:
    """Ends that a person made, and the server's address, for each path."""

    def __init__(self, ends: Mapping[str, Ends]) -> None:
        self._stands = {path: _stand(two) for path, two in ends.items()}

    def stand(self, path: str, place: Place) -> Stand:  # noqa: ARG002 (the protocol's)
        """Where `path` is measured."""
        return self._stands[path]


def _stand(ends: Ends) -> Stand:
    size = mtu(ends.source, ends.address)
    return Stand(ends, ends.address, size, cutting=(ends.source, ends.target))


def mtu(end: End, address: str) -> int:
    """Of the device by which `end` reaches `address`, bytes."""
    route = end.run("ip", "-j", "route", "get", address, check=False)
    if route.returncode:
        raise LabError(f"{end.name} has no route to {address}; its pings would not arrive either")
    name = json.loads(route.stdout)[0]["dev"]
    link = end.run("ip", "-j", "link", "show", "dev", name).stdout
    return int(json.loads(link)[0]["mtu"])
