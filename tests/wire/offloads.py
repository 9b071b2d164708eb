# SPDX-License-Identifier: Apache-2.0
"""Offloads of a lab's devices: switch them by ethtool, and put back what was there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

FEATURES = {
    "tx": "tx-checksumming",
    "gso": "generic-segmentation-offload",
    "tso": "tcp-segmentation-offload",
    "gro": "generic-receive-offload",
    "tx-udp_tnl-segmentation": "tx-udp_tnl-segmentation",
}
"""What `ethtool -K` takes -> what `ethtool -k` shows; TSO after what it depends on."""

Setting = Sequence[bool]
"""One switch for each of FEATURES."""


def covering(width: int) -> list[tuple[bool, ...]]:
    """Rows of switches in which any two stand in all four positions; up to ten in six rows.

    The columns are the ways to take three rows of five, and one row is all off (Kleitman and
    Spencer): two such columns share a row, and each has one that the other has not.
    """
    columns = list(combinations(range(5), 3))[:width]
    rows = [tuple(row in column for column in columns) for row in range(5)]
    return [(False,) * width, *rows]


def nics(lab: Any) -> list[tuple[str, str]]:
    """(place, device) of both ends of every node's cable.

    Both, because a veth aggregates (GRO) only what comes from one without TSO.
    """
    names = [node.name.removeprefix(f"{lab.lab.name}-") for node in lab.lab.nodes]
    return [end for name in names for end in ((name, "eth0"), ("switch", name))]


def veths(lab: Any) -> list[tuple[str, str]]:
    """(place, device) of both ends of every pod's veth."""
    found = []
    for pod in lab.lab.pods:
        found.append((pod.name.removeprefix(f"{lab.lab.name}-"), "eth0"))
        found.append((pod.node.removeprefix(f"{lab.lab.name}-"), pod.veth))
    return found


@contextlib.contextmanager
def switched(lab: Any, devices: list[tuple[str, str]], setting: Setting) -> Iterator[None]:
    """Have `devices` so inside the block."""
    before = {device: _read(lab, *device) for device in devices}
    try:
        for device in devices:
            _write(lab, *device, setting)
        _settle(lab)
        yield
    finally:
        for device, was in before.items():
            _write(lab, *device, was)
        _settle(lab)


def _settle(lab: Any) -> None:
    """Wait until no agent has still to withdraw approvals because a NIC is another.

    The kernel tells of a switched feature before ethtool ends, and the agent, which has one
    thread, answers nothing before it has read that.
    """
    for node in lab.lab.accelerated():
        lab.ask(node.name.removeprefix(f"{lab.lab.name}-"), op="status")


def _read(lab: Any, place: str, device: str) -> list[bool]:
    shown = lab.exec(place, "ethtool", "-k", device).stdout
    states = dict(re.findall(r"^\s*([\w-]+): (on|off)", shown, re.MULTILINE))
    return [states[name] == "on" for name in FEATURES.values()]


def _write(lab: Any, place: str, device: str, setting: Setting) -> None:
    """Switch, and see that it was done; TSO waits for TX checksums where they are off."""
    wanted = dict(zip(FEATURES, setting, strict=True))
    words = [word for name, on in wanted.items() for word in (name, "on" if on else "off")]
    lab.exec(place, "ethtool", "-K", device, *words, check=False)
    now = dict(zip(FEATURES, _read(lab, place, device), strict=True))
    if not wanted["tx"]:
        wanted["tso"] = now["tso"]
    assert now == wanted, f"{place}: {device} did not take {words}"
