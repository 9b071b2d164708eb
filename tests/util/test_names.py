# SPDX-License-Identifier: Apache-2.0
"""Names and numbers of the same device or address."""

from __future__ import annotations

import ctypes
import socket

from vxlane.util.names import be32, device_name, mac_octets


def test_be32() -> None:
    """The number lies in memory as the address goes over the wire."""
    assert bytes(ctypes.c_uint32(be32("10.42.1.2"))) == socket.inet_aton("10.42.1.2")


def test_device_name() -> None:
    """A device that is gone goes by its number."""
    assert (device_name(1), device_name(1 << 30)) == ("lo", f"#{1 << 30}")


def test_mac_octets() -> None:
    """A MAC in colon notation is six octets."""
    assert mac_octets("02:00:0a:ff:00:01") == b"\x02\x00\x0a\xff\x00\x01"
