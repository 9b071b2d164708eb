# SPDX-License-Identifier: Apache-2.0
"""Reads what pods' interfaces are now, in their own namespaces. Enters none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from vxlane.datapath.records import Pod
from vxlane.doctor.facts import Link, PodEnd
from vxlane.errors import ConfigError
from vxlane.host.veths import far_end
from vxlane.netlink.socket import NetlinkSocket
from vxlane.pods.interfaces import PodInterface, parse_interface
from vxlane.util.jsontext import parse_json


def pods(
    netlink: NetlinkSocket, veths: Iterable[Link], state: Path, pinned: Iterable[Pod]
) -> tuple[PodEnd, ...]:
    """The interfaces that the programs know, as far as an agent has noted where they are."""
    told = {pod.ifindex: pod.mac for pod in pinned}
    indexes = {link.name: link.device.index for link in veths}
    found = []
    for interface in _noted(state):
        index = indexes.get(interface.host_ifname, 0)
        end = far_end(netlink, index) if index in told else None
        # A pod that bridges (KubeVirt) names it anew, and sends from the old MAC all the same.
        if end and end.name == interface.ifname:
            name = interface.name or interface.container_id
            known = {"pod": name, "ifname": end.name, "namespace": interface.netns}
            found.append(PodEnd(**known, told=told[index], mac=end.mac))
    return tuple(found)


def _noted(state: Path) -> Iterator[PodInterface]:
    """The files in the agent's state directory. What can't be read is for the agent to remove."""
    for path in sorted((state / "pods").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError, ConfigError):
            yield parse_interface(parse_json(path.read_bytes()))
