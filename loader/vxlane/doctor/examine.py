# SPDX-License-Identifier: Apache-2.0
"""One examination of this node: facts are read, then every check looks at them. And a trial.

Kernel probes wait for the kernel most of the time, so they run beside the reading.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vxlane.doctor import trial
from vxlane.doctor.checks.all import findings
from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding, Json, Level
from vxlane.doctor.read import kernel
from vxlane.doctor.read.agent import agent
from vxlane.doctor.read.links import LinkReader
from vxlane.doctor.read.load import reading
from vxlane.doctor.read.peers import peers
from vxlane.doctor.read.plugin import plugin
from vxlane.doctor.read.pods import pods
from vxlane.doctor.read.rules import rules
from vxlane.errors import OptionError
from vxlane.host.devices import Devices
from vxlane.netlink.socket import NetlinkSocket
from vxlane.probes import helpers


def examine(state: Path) -> list[Finding]:
    """What is found on this node, whose agent's state directory is `state`. Changes nothing."""
    return findings(read(state))


def try_fix(state: Path, check: str) -> Json | None:
    """Try what mends the findings of `check`, as `trial` does it; None: there are none.

    OptionError: there are, and no command that mends them can be taken back.
    """
    facts = read(state)
    found = findings(facts)
    complaints = [each for each in found if each.check == check and each.level is not Level.OK]
    if not complaints:
        return None
    if not trial.changes(found, check):
        by_hand = "; ".join(command for each in complaints for command in each.fix)
        raise OptionError(f"what mends {check} can't be taken back, so run it yourself: {by_hand}")
    nic = facts.links.nic.device.index if facts.links.nic else 0
    with contextlib.closing(NetlinkSocket()) as netlink:
        return trial.attempt(check, found, lambda: examine(state), lambda: reading(netlink, nic))


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
            pods=pods(devices.socket, links.veths, state, pinned.pods),
            sysctls=kernel.settings(ends),
            conntrack=kernel.conntrack(),
            reverse_path_drops=kernel.reverse_path_drops(),
            rules=rules(),
            peers=peers(devices.socket, links, reader.wiring, state, pinned),
            kernel=kernel.kernel(probes.result()),
            plugin=plugin(),
        )
