# SPDX-License-Identifier: Apache-2.0
"""Reads what pods' interfaces are now, in their own namespaces. Enters none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vxlane.datapath.records import Pod
from vxlane.doctor.facts import Link, PodEnd
from vxlane.host.veths import far_end
from vxlane.netlink.socket import NetlinkSocket
from vxlane.pods.interfaces import noted


def pods(
    netlink: NetlinkSocket, veths: Iterable[Link], state: Path, pinned: Iterable[Pod]
) -> tuple[PodEnd, ...]:
    """The interfaces that the programs know, as far as an agent has noted where they are."""
    told = {pod.ifindex: pod.mac for pod in pinned}
    indexes = {link.name: link.device.index for link in veths}
    found = []
    for interface in noted(state):
        index = indexes.get(interface.host_ifname, 0)
        end = far_end(netlink, index) if index in told else None
        # A pod that bridges (KubeVirt) names it anew, and sends from the old MAC all the same.
        if end and end.name == interface.ifname:
            name = interface.name or interface.container_id
            known = {"pod": name, "ifname": end.name, "namespace": interface.netns}
            found.append(PodEnd(**known, told=told[index], mac=end.mac))
    return tuple(found)
