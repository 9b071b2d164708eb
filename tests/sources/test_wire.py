# SPDX-License-Identifier: Apache-2.0
"""Backend data, in the bytes that flannel writes and in all that it reads."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from vxlane.errors import ConfigError
from vxlane.sources.model import Announcement, Backend, derived_mac
from vxlane.sources.wire import backend_data, folded, vtep_mac

ADDRESS = IPv4Address("192.168.1.10")
MAC = "12:c6:65:89:b4:e3"


def test_a_tunnel_is_announced_in_flannels_bytes() -> None:
    """VNI first, VtepMAC last, no space: flannel cuts the text and does not parse it."""
    own = Announcement(ADDRESS, Backend.VXLAN, 1, MAC)
    assert backend_data(own) == '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}'


def test_host_gw_has_no_data() -> None:
    """As Go's encoder writes what is not there."""
    assert backend_data(Announcement(ADDRESS, Backend.HOST_GW, 1, MAC)) == "null"


@pytest.mark.parametrize("key", ["VtepMAC", "vtepmac", "VTEPMAC"])
def test_a_mac_is_found_under_any_case(key: str) -> None:
    """Go's decoder does not mind the case of a key; the MAC comes in ours."""
    data = {"VNI": 1, key: MAC.upper()}
    assert vtep_mac(data, Backend.VXLAN, name="node1") == MAC


@pytest.mark.parametrize("data", [None, [], "x", {}, {"VtepMAC": None}, {"VtepMAC": 1}])
def test_data_without_a_mac_says_so(data: Any) -> None:
    """What is missing is named, with a likely cause."""
    with pytest.raises(ConfigError, match="has flannel there not started yet"):
        vtep_mac(data, Backend.VXLAN, name="node1")


def test_a_mac_that_is_none_is_refused() -> None:
    """Garbage in the right place is a ConfigError, too."""
    with pytest.raises(ConfigError):
        vtep_mac({"VtepMAC": "12:c6"}, Backend.VXLAN, name="node1")


def test_a_backend_without_a_tunnel_gets_the_mac_of_its_name() -> None:
    """Its data are not read."""
    assert vtep_mac(None, Backend.HOST_GW, name="node1") == derived_mac("node1")


def test_folding_keeps_values() -> None:
    """Keys become lower-case, whatever they are; values stay."""
    assert folded({"Network": "N", 1: "one"}) == {"network": "N", "1": "one"}
