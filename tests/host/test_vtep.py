# SPDX-License-Identifier: Apache-2.0
"""Whether a device that is there can become the tunnel that is wanted."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import pytest
from plaindevice import device

from vxlane.host.vtep import OVERHEAD, Wiring, mismatch, name_of

DEVICE = device(9, "flannel.1", "vxlan")
WIRING = Wiring(vni=1, port=8472, local=IPv4Address("192.168.77.1"), underlay=3)


def test_a_device_of_the_same_wiring_is_kept() -> None:
    """MAC and MTU can be changed in place, and are no reason to make it anew."""
    device = dataclasses.replace(DEVICE, mac="02:00:00:00:00:01", mtu=1400, is_up=False)
    assert mismatch(device, WIRING, WIRING) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vni": 7}, "its VNI is 7, not 1"),
        ({"port": 4789}, "its port is 4789, not 8472"),
        (
            {"local": IPv4Address("192.168.77.9")},
            "its local address is 192.168.77.9, not 192.168.77.1",
        ),
        ({"underlay": 4}, "its underlay interface # is 4, not 3"),
        ({"learns": True}, "its learning is True, not False"),
        ({"is_gbp": True}, "its group policy extension is True, not False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cant_be_changed_is_the_reason(change: dict[str, object], reason: str) -> None:
    """The first difference is told, with what it is and what it should be."""
    assert mismatch(DEVICE, dataclasses.replace(WIRING, **change), WIRING) == reason


@pytest.mark.parametrize(
    ("kind", "wiring", "found"),
    [("dummy", WIRING, "dummy"), ("", None, "hardware"), ("vxlan", None, "vxlan")],
)
def test_a_device_that_is_no_tunnel_of_ours(kind: str, wiring: Wiring | None, found: str) -> None:
    """Another kind of device, or a VXLAN device without a local address, is named by its kind."""
    reason = mismatch(dataclasses.replace(DEVICE, kind=kind), wiring, WIRING)
    assert reason == f"it is a {found} device, not a VXLAN tunnel with a local address"


def test_the_name_and_the_overhead_are_flannels() -> None:
    """flannel.<VNI>, and 50 bytes: Ethernet, VXLAN, UDP and IP."""
    assert (name_of(7), OVERHEAD) == ("flannel.7", 50)
