# SPDX-License-Identifier: Apache-2.0
"""Requests that name a pod."""

from __future__ import annotations

import pytest

from vxlane.errors import ConfigError
from vxlane.pods.interfaces import parse_interface


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"container_id": ""}, "container_id"),
        ({"ifname": "x" * 16}, "ifname"),
        ({"host_ifname": None}, "host_ifname"),
        ({"mac": "01:00:5e:00:00:01"}, "MAC '01:00"),
        ({"addresses": "10.42.1.7"}, "addresses"),
        ({"addresses": ["10.42.1"]}, "10.42.1"),
    ],
)
def test_a_wrong_attachment_names_its_field(change: dict[str, object], field: str) -> None:
    """A request that can't be an interface is refused by the field that is wrong."""
    good: dict[str, object] = {
        "container_id": "c1",
        "ifname": "eth0",
        "host_ifname": "veth7",
        "mac": "02:00:00:00:01:02",
        "addresses": ["10.42.1.7"],
    }
    assert parse_interface(good).addresses == ("10.42.1.7",)
    with pytest.raises(ConfigError, match=field):
        parse_interface(good | change)
