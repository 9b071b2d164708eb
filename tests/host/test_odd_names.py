# SPDX-License-Identifier: Apache-2.0
"""Names of devices are bytes to the kernel, and need not be UTF-8."""

from __future__ import annotations

import contextlib
import socket
import subprocess

from vxlane.host.devices import Devices
from vxlane.host.veths import far_end

SHOWN = "d\N{REPLACEMENT CHARACTER}"
SETUP = r"""
odd=$(printf 'd\377')
ip link add "$odd" type bridge
ip link add near type veth peer name "$odd" netns "$1"
"""


def test_a_name_that_is_not_utf8_is_read(netns, make_netns):
    """Devices with such a name are read, here and at a veth's other end, which is a pod's own."""
    assert netns
    pod = make_netns("pod")
    subprocess.run(["sh", "-ec", SETUP, "setup", pod], check=True)
    with contextlib.closing(Devices()) as devices:
        assert SHOWN in {device.name for device in devices.all().values()}
        end = far_end(devices.socket, socket.if_nametoindex("near"))
    assert end
    assert end.name == SHOWN
