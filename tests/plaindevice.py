# SPDX-License-Identifier: Apache-2.0
"""Network devices as the kernel reports them, with nothing unusual about them."""

from __future__ import annotations

from typing import Any

from vxlane.host.devices import Device


def device(index: int, name: str, kind: str = "", **changes: Any) -> Device:
    """A device that is up, with a MAC that ends in its ifindex; `changes` are other fields."""
    fields = {
        "mac": f"02:00:00:00:00:{index:02x}",
        "mtu": 1450,
        "master": 0,
        "is_up": True,
        "qdisc": "noqueue",
        "is_restricted": False,
        "filters_vlans": False,
    }
    return Device(index, name, kind, **{**fields, **changes})
