# SPDX-License-Identifier: Apache-2.0
"""One examination of this node: facts are read, then every check looks at them.

Kernel probes wait for the kernel most of the time, so they run beside the reading.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vxlane.doctor.checks.all import findings
from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding
from vxlane.doctor.read import kernel
from vxlane.doctor.read.agent import agent
from vxlane.doctor.read.links import LinkReader
from vxlane.doctor.read.peers import peers
from vxlane.doctor.read.rules import rules
from vxlane.host.devices import Devices
from vxlane.probes import helpers


def examine(state: Path) -> list[Finding]:
    """What is found on this node, whose agent's state directory is `state`. Changes nothing."""
    return findings(read(state))


def read(state: Path) -> Facts:
    """All facts of this node."""
    with ThreadPoolExecutor(1) as beside, contextlib.closing(Devices()) as devices:
        probes = beside.submit(helpers.results)
        found, pinned = agent(state)
        reader = LinkReader(devices)
        links = reader.links(found.settings, {pod.ifindex for pod in pinned.pods})
        ends = [link.name for link in (links.vtep, links.nic) if link]
        return Facts(
            agent=found,
            links=links,
            sysctls=kernel.settings(ends),
            conntrack=kernel.conntrack(),
            reverse_path_drops=kernel.reverse_path_drops(),
            rules=rules(),
            peers=peers(devices.socket, links, reader.wiring, state, pinned),
            kernel=kernel.kernel(probes.result()),
        )
