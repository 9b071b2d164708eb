# SPDX-License-Identifier: Apache-2.0
"""What stands on a pod's own interface acts on what comes to it, as it does on the kernel path."""

from __future__ import annotations

import contextlib

import pytest
from flow import PUBLIC, SHORT, WARM, datagram
from paths import BYPASSES
from programs import tc_drop, xdp_drop

from vxlane.lab.waiting import wait_for

CLIENT, SERVER, NEIGHBOUR = "node1-pod1", "node2-pod1", "node2-pod2"
COUNT = 50
NATIVE = 4  # XDP_FLAGS_DRV_MODE


def native(lab, pod):
    """The same by native XDP."""
    return xdp_drop(lab, pod, NATIVE)


def arrived(server):
    """How many datagrams wait."""
    count = 0
    with contextlib.suppress(TimeoutError):
        while server.recv(2048):
            count += 1
    return count


@pytest.mark.parametrize("drop", [xdp_drop, native, pytest.param(tc_drop, marks=pytest.mark.tcx)])
@pytest.mark.parametrize("client", [CLIENT, NEIGHBOUR])
def test_a_program_in_the_pod(pair, drop, client):
    """XDP and tc programs that come onto a pod's interface are heeded when the agent has read it.

    That is at each resync, or when something asks for it, as another pod does here; and the flow
    was bypassed before.
    """
    with (
        contextlib.closing(datagram(pair, client)) as source,
        contextlib.closing(datagram(pair, SERVER)) as server,
    ):
        source.connect(server.getsockname())
        for _ in range(WARM):
            source.send(PUBLIC.ljust(SHORT))
            server.sendto(PUBLIC, server.recvfrom(2048)[1])
            source.recv(2048)
        with drop(pair, SERVER):
            pair.exec("node2", "ip", "link", "set", "cni0", "alias", "read")
            wait_for(lambda: mechanisms(pair), "the program")
            with pair.verdicts("node1", "node2") as seen:
                for _ in range(COUNT):
                    source.send(PUBLIC.ljust(SHORT))
                assert arrived(server) == 0
            at = ("from_pod" if client == NEIGHBOUR else "from_nic", "judged")
            assert seen[at] == COUNT
        pair.exec("node2", "ip", "link", "set", "cni0", "alias", "again")
        wait_for(lambda: not mechanisms(pair), "an end")
        with pair.verdicts("node2") as seen:
            for _ in range(COUNT):
                source.send(PUBLIC.ljust(SHORT))
            assert arrived(server) == COUNT
        assert sum(seen[key] for key in seen if key[1] in BYPASSES) >= COUNT - 2


def mechanisms(lab):
    """What node2's agent has found."""
    return lab.ask("node2", op="status")["status"]["mechanisms"]
