# SPDX-License-Identifier: Apache-2.0
"""Converts names of devices and MACs between what people and the kernel use."""

from __future__ import annotations

import socket


def device_name(ifindex: int) -> str:
    """The device of that number in this network namespace; "#7" where number 7 is gone."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"#{ifindex}"


def mac_octets(mac: str) -> bytes:
    """The six octets of a MAC in colon notation."""
    return bytes.fromhex(mac.replace(":", ""))
