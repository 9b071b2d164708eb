# SPDX-License-Identifier: Apache-2.0
"""The devices at which what comes in by a NIC is seen first."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

from vxlane.util.names import device_name

SYSFS = Path("/sys/class/net")


def with_lower(nics: Iterable[int]) -> set[int]:
    """These ifindexes and those of all devices below: a bond's ports, a VLAN's device.

    The kernel hands a packet from such a device to the one above within one function, so only the
    lowest device has a tracepoint on the way in (__netif_receive_skb_core() in net/core/dev.c).
    """
    found: set[int] = set()
    waiting = list(nics)
    while waiting:
        ifindex = waiting.pop()
        if ifindex not in found:
            found.add(ifindex)
            waiting += _directly_below(device_name(ifindex))
    return found


def _directly_below(name: str) -> Iterable[int]:
    for link in (SYSFS / name).glob("lower_*"):
        with contextlib.suppress(OSError):  # gone, or of another namespace's sysfs
            yield socket.if_nametoindex(link.name.removeprefix("lower_"))
