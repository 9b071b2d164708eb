# SPDX-License-Identifier: Apache-2.0
"""Requests that name a pod."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from vxlane.errors import ConfigError
from vxlane.pods.interfaces import PodStore, parse_interface


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


def test_names_of_what_is_stored(tmp_path: Path) -> None:
    """A pod goes by its runtime's name with the namespace and without; a bad file is left alone."""
    store = PodStore(tmp_path)
    request: dict[str, object] = {
        "ifname": "eth0",
        "host_ifname": "veth7",
        "mac": "02:00:00:00:01:02",
    }
    for number, name in enumerate(["shop/web-0", ""]):
        told = {"container_id": f"c{number}", "addresses": [f"10.42.1.{number}"], "name": name}
        store.save(parse_interface(request | told))
    (tmp_path / "bad,eth0.json").write_text("{")
    address = IPv4Address("10.42.1.0")
    assert store.names() == {"shop/web-0": address, "web-0": address}
    assert (tmp_path / "bad,eth0.json").exists()
