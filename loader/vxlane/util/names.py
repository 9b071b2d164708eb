# SPDX-License-Identifier: Apache-2.0
"""Converts names of devices, MACs and addresses between what people and the kernel use."""

from __future__ import annotations

import socket
import sys
from ipaddress import IPv4Address


def device_name(ifindex: int) -> str:
    """The device of that number in this network namespace; "#7" where number 7 is gone."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"#{ifindex}"


def be32(address: str) -> int:
    """An IPv4 address as this machine reads the kernel's __be32, for tables of bcc's."""
    return int.from_bytes(IPv4Address(address).packed, sys.byteorder)


def mac_octets(mac: str) -> bytes:
    """The six octets of a MAC in colon notation."""
    return bytes.fromhex(mac.replace(":", ""))
