# SPDX-License-Identifier: Apache-2.0
"""An overlay's state as a backend reports it, of a node that has no peers yet."""

from __future__ import annotations

from ipaddress import IPv4Address

from vxlane.datapath.abi import Way
from vxlane.overlay.backend import OverlayState

OVERLAY = OverlayState(
    device=9,
    device_mtu=1450,
    address=IPv4Address("192.168.77.1"),
    vtep_mac="02:00:00:00:00:01",
    vni=1,
    port=8472,
    underlay=3,
    paths=(),
    exits=frozenset({(Way.TUNNEL, 3)}),
)
