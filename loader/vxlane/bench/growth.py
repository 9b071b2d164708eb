# SPDX-License-Identifier: Apache-2.0
"""What a bypassed packet costs the programs among more and more peers, and beside more flows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vxlane.bench import plan, programs
from vxlane.bench.document import Json
from vxlane.bench.setting import Setting, new_port
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.errors import LabError
from vxlane.lab import agents
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LabNode
from vxlane.lab.waiting import wait_for
from vxlane.sources.model import derived_mac

PEERS = (10, 100, 1_000, 10_000)
FLOWS = (1_000, 10_000, 60_000)
"""The most is what one client's ports allow towards one port of a server."""
_SECONDS = READY_SECONDS = 60.0
_FIRST_CIDR, _FIRST_ADDRESS = IPv4Network("10.42.64.0/30"), IPv4Address("192.168.128.1")
"""10,000 networks of four addresses from here on are the lab's, and no node of it has them."""


def costs(
    lab: Lab, setting: Setting, ready: Callable[[], str], progress: Callable[[str], None]
) -> Iterator[Json]:
    """The programs' costs at each size, as `programs.under_load` has them.

    `ready` returns when packets are bypassed, or what keeps them from it: while an agent writes
    10,000 peers they are not. LabError: they never were. The lab keeps the last size.
    """
    pinned = programs.of_bypass(lab)
    for count in PEERS:
        progress(f"what the programs cost among {count:,} peers")
        agents.write_nodes(lab.nodes_file, [*lab.nodes, *_strangers(count - len(lab.nodes) + 1)])
        for node in lab.accelerated():
            wait_for(partial(_has_peers, node, count), f"{count} peers", seconds=_SECONDS)
        _need(ready())
        yield from programs.under_load(pinned, _named(f"among {count:,} peers"), setting)
    for count in FLOWS:
        progress(f"what the programs cost beside {count:,} flows")
        _fill(setting, count)
        _need(ready())
        yield from programs.under_load(pinned, _named(f"beside {count:,} flows"), setting)


def _need(complaint: str) -> None:
    """What the kernel path's packets cost is no answer."""
    if complaint:
        raise LabError(f"no packet was bypassed to measure: {complaint}")


def _named(where: str) -> Mapping[str, str]:
    return {plan.UDP64: f"UDP, 64 B, {where}"}


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


def _has_peers(node: LabNode, count: int) -> bool:
    with Maps.open(pin_directory(node.directory)) as maps:
        return len(maps.peers()) >= count


def _fill(setting: Setting, count: int) -> None:
    """Have `count` flows approved, each by two datagrams each way."""
    port = str(new_port())
    filling = replace(setting, seconds=_SECONDS)
    client = setting.client(str(setting.talk), "flows", setting.ends.address, port, "0", str(count))
    with setting.serving(int(port), setting.server(str(setting.talk), "serve", port)):
        filling.run(client)
