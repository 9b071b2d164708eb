# SPDX-License-Identifier: Apache-2.0
"""`vxlane top` on a living node under traffic: for scripts, and in a terminal of 80x24."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from unittest.mock import Mock

import pytest

from vxlane.datapath.maps import Maps
from vxlane.errors import VxlaneError
from vxlane.lab import namespaces
from vxlane.lab.agents import program
from vxlane.netlink.socket import NetlinkSocket
from vxlane.show.top import Sampler


def pinging(lab):
    """A hundred pings a second, from a pod of node1 to one of node2."""
    command = ["ping", "-q", "-i", "0.01", lab.address("node2-pod1")]
    return lab.spawn("node1-pod1", *command, stdout=subprocess.DEVNULL)


def named(rows, name):
    """The one row of that name."""
    (row,) = [row for row in rows if row["name"] == name]
    return row


def test_rates_under_traffic(lab):
    """Share, pods and peers have what is sent, both ways: bypassed packets too."""
    with pinging(lab):
        shown = lab.vxlane("node1", "top", "--once", "--interval", "1")
    assert shown["bypassing"] is True
    assert shown["share"] > 0.5
    veth = lab.pod("node1-pod1").veth
    (pod,) = [row for row in shown["pods"] if row["veth"] == veth]
    peer = named(shown["peers"], "10.42.2.0/24")
    for row in (pod, peer):
        assert row["tx_packets_per_second"] > 20
        assert row["rx_packets_per_second"] > 20
        assert row["tx_bytes_per_second"] > 64 * 20
    assert named(shown["peers"], "10.42.3.0/24")["tx_packets_per_second"] == 0
    assert "encapsulated" in {row["verdict"] for row in shown["verdicts"]}


def test_programs_that_are_gone(tmp_path):
    """A sampler of maps that are not the node's any more refuses, for what it showed would stay."""
    maps = Mock(spec=Maps)
    maps.are_pinned.return_value = False
    source = Sampler(maps, Mock(spec=NetlinkSocket), tmp_path)
    with pytest.raises(VxlaneError, match="programs were replaced or removed meanwhile; run it"):
        source.sample()


class Terminal:
    """A terminal of 80x24 with a program in it."""

    def __init__(self, command, env):
        self.near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, env=env)
        os.close(far)

    def wait_for(self, text, seconds=15.0):
        """Read until the program has written `text`."""
        seen, until = "", time.monotonic() + seconds
        while text not in seen:
            left = until - time.monotonic()
            assert left > 0, seen
            if select.select([self.near], [], [], left)[0]:
                seen += os.read(self.near, 1 << 16).decode(errors="replace")

    def press(self, key):
        """Press a key."""
        os.write(self.near, key.encode())

    def close(self):
        """End the program."""
        self.process.kill()
        self.process.wait()
        os.close(self.near)


def test_the_live_view_follows_keys(lab):
    """Drawn again at each interval; n sorts by name and / filters at once, and q ends it."""
    state = str(lab.node("node1").directory)
    command = [program("vxlane"), "top", "--interval", "0.3"]
    env = os.environ | {"VXLANE_STATE_DIR": state, "TERM": "xterm"}
    terminal = Terminal(namespaces.inside(lab.netns("node1"), command), env)
    try:
        with pinging(lab):
            terminal.wait_for("% bypassed")
            terminal.press("n")
            terminal.wait_for("sorted by name")
            terminal.press("/10.42.2\n")
            terminal.wait_for("only '10.42.2'")
        terminal.press("q")
        assert terminal.process.wait(timeout=10) == 0
    finally:
        terminal.close()
