# SPDX-License-Identifier: Apache-2.0
"""Properties of a bridge, as the kernel tells them."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from vxlane.host.devices import Devices


@pytest.mark.usefixtures("netns")
def test_a_bridge_may_call_iptables_by_itself() -> None:
    """nf_call_iptables is the bridge's own, whatever the node's setting is."""
    for name, value in (("calls", "1"), ("passes", "0")):
        line = f"ip link add {name} type bridge nf_call_iptables {value} nf_call_ip6tables 0"
        subprocess.run(line.split(), check=True)
    with contextlib.closing(Devices()) as devices:
        found = {device.name: device.calls_iptables for device in devices.of_kind("bridge")}
    assert found == {"calls": True, "passes": False}
