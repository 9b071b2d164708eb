# SPDX-License-Identifier: Apache-2.0
"""Which path packets took, by what devices count, and not by what a program says of itself.

Only the kernel path sends through flannel.1, and only it sends out of the host end of the target's
veth: a redirect into the pod passes that by. Both are compared with what the client's pod has sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vxlane.bench import plan
from vxlane.lab import namespaces
from vxlane.lab.plan import LabNode, LabPod
from vxlane.lab.underlay import NIC

OVERLAY = "flannel.1"
_LEAST_OF_KERNEL = 0.5
"""A flooded backlog drops up to half of the packets before flannel.1."""
MOST_PAST = 0.01
"""Handshakes, ends, and a packet each time that an approval is renewed."""
MOST_OF_PINGS = 0.5
"""Of ten pings: the first two are the kernel path's, and are learned from."""

Device = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Check:
    """`passed` sends what the kernel path carries of what `sent` sends."""

    sent: Device
    passed: Device
    by_kernel: bool
    """Whether the packets are to take the kernel path there."""


def checks(path: str, source: LabPod, target: LabPod, nodes: Mapping[str, LabNode]) -> list[Check]:
    """What holds for packets from one pod of a lab to another."""
    sent = (source.name, NIC)
    sender, receiver = nodes[source.node], nodes[target.node]
    delivered = Check(sent, (receiver.name, target.veth), _by_kernel(path, receiver))
    if sender == receiver:
        return [delivered]
    found = [Check(sent, (sender.name, OVERLAY), _by_kernel(path, sender))]
    # A stock node's GRO makes few packets of many, so little can be said of how many are delivered.
    return found if delivered.by_kernel else [*found, delivered]


def _by_kernel(path: str, node: LabNode) -> bool:
    return node.kernel_only and path not in plan.OTHER_PROGRAMS


def read(watched: Iterable[Check]) -> dict[Device, int]:
    """Packets that each device has sent."""
    devices = {device for check in watched for device in (check.sent, check.passed)}
    texts = {name: _text(name) for name in {namespace for namespace, _ in devices}}
    return {device: sent_packets(texts[device[0]])[device[1]] for device in devices}


def _text(namespace: str) -> str:
    return namespaces.run(namespace, "cat", "/proc/net/dev").stdout


def sent_packets(text: str) -> dict[str, int]:
    """By device, from the text of /proc/net/dev (proc(5))."""
    rows = (line.split(":") for line in text.splitlines()[2:])
    return {name.strip(): int(counts.split()[9]) for name, counts in rows}


def complaint(
    watched: Iterable[Check], before: Mapping[Device, int], after: Mapping[Device, int], most: float
) -> str:
    """Which packets took the wrong path between two readings; empty: none did. `most` is the share
    that may take the kernel path where packets are to go past it.
    """
    for check in watched:
        sent = after[check.sent] - before[check.sent]
        share = (after[check.passed] - before[check.passed]) / sent if sent else 0.0
        where = f"{share:.1%} of the packets were sent by {check.passed[1]} of {check.passed[0]}"
        if check.by_kernel and share < _LEAST_OF_KERNEL:
            return f"{where}, and they are to take the kernel path"
        if not check.by_kernel and share > most:
            return f"{where}, and they are to go past it"
    return ""
