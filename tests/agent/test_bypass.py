# SPDX-License-Identifier: Apache-2.0
"""The programs' settings: lease, epoch and switch; and a node whose programs do not load."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from agentnode import AgentNode, eventually
from test_pods import make_pod, pods
from test_watched import fetch

from vxlane.datapath.programs import pin_directory

SECOND = 1_000_000_000
READY = "http://127.0.0.1:8081/readyz"


def lease(node: AgentNode) -> float:
    """Seconds that the lease still runs."""
    with node.maps() as maps:
        return (maps.settings().lease_until - time.monotonic_ns()) / SECOND


def epoch(node: AgentNode) -> int:
    """The epoch that the programs go by."""
    with node.maps() as maps:
        return maps.settings().epoch


def test_the_settings_are_this_nodes(running: AgentNode) -> None:
    """Address, MAC and revalidation are what the kernel and the options say.

    A third of conntrack's shortest timeouts is less than --revalidate: 60 s after a FIN, and 30 s
    for UDP without an answer.
    """
    with running.maps() as maps:
        settings = maps.settings()
    assert str(settings.address) == "192.168.77.1"
    assert settings.vtep_mac == running.link("flannel.1")["address"]
    assert settings.revalidate == 20 * SECOND
    assert settings.revalidate_datagram == 10 * SECOND


def test_the_lease_is_renewed(running: AgentNode) -> None:
    """The lease of 3 s never runs out while the agent lives."""
    for _ in range(20):
        assert 0 < lease(running) <= 3
        time.sleep(0.2)


def test_the_lease_ends_with_the_agent(node: AgentNode) -> None:
    """A stopped agent ends its lease, a killed one leaves at most 3 s; records of flows stay."""
    node.start()
    node.stop(signal.SIGKILL)
    assert 0 < lease(node) <= 3
    node.start()
    assert lease(node) > 1
    with node.maps() as maps:
        flows = list(maps.flows())
    node.stop()
    assert lease(node) < 0
    with node.maps() as maps:
        assert list(maps.flows()) == flows


HANGING = """#!/bin/sh
[ ! -e {directory}/hangs ] || cat {directory}/fifo
exec /usr/sbin/iptables "$@"
"""


def is_calm(node: AgentNode) -> bool:
    """Whether for two seconds only the timer has made the agent reconcile, and no event."""
    lines = [line for line in node.log().splitlines() if " reconciled " in line]
    return len(lines) > 10 and all(" reconciled Dirty.RULES in " in line for line in lines[-10:])


def test_a_stalled_loop_keeps_the_lease_while_nothing_changes(
    node: AgentNode, tmp_path: Path
) -> None:
    """While a tool hangs the lease holds until the kernel tells of a change; readiness says so."""
    iptables, fifo = tmp_path / "iptables", tmp_path / "fifo"
    iptables.write_text(HANGING.format(directory=tmp_path))
    iptables.chmod(0o755)
    os.mkfifo(fifo)
    node.start(
        "--healthz-port=8081",
        "--iptables-resync=0.2",
        "-v=1",
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    # The device's own IPv6 route comes when its address was found unique, and is a change.
    eventually(lambda: is_calm(node), "the end of what the device's start tells", seconds=20)
    (tmp_path / "hangs").touch()
    # Opened when the tool has opened its end: from here on the loop waits for it.
    release = os.open(fifo, os.O_WRONLY)
    (tmp_path / "hangs").unlink()
    ends = time.monotonic() + 4
    while time.monotonic() < ends:
        assert lease(node) > 1
        time.sleep(0.1)
    assert fetch(node, READY) == "200 flanneld is ready"
    node.sh("ip neigh replace 10.42.2.0 lladdr 02:00:00:00:00:42 dev flannel.1 nud permanent")
    told = time.monotonic_ns()
    eventually(lambda: lease(node) < 0, "end of the lease")
    with node.maps() as maps:
        assert maps.settings().lease_until <= told + 3 * SECOND
    assert fetch(node, READY) == "503 flanneld is not ready yet"
    os.close(release)
    eventually(lambda: lease(node) > 1, "the lease")
    assert fetch(node, READY) == "200 flanneld is ready"
    assert node.status()["bypass"] == "on"


@pytest.mark.parametrize(
    "change",
    [
        "nft add table inet mine; nft delete table inet mine",
        "iptables -A FORWARD -s 10.9.9.9 -j DROP; iptables -D FORWARD -s 10.9.9.9 -j DROP",
    ],
    ids=["nft", "iptables-nft"],
)
def test_a_ruleset_change_withdraws_approvals(running: AgentNode, change: str) -> None:
    """A change of the rules raises the epoch at once: every flow goes through them again."""
    before = epoch(running)
    running.sh(change)
    eventually(lambda: epoch(running) > before, "a new epoch")
    assert running.status()["epoch"] == epoch(running)


def test_flush_raises_the_epoch(running: AgentNode) -> None:
    """`vxlane flows flush` withdraws every approval and answers the new epoch."""
    before = epoch(running)
    assert running.ask(op="flush")["epoch"] == before + 1 == epoch(running)


def test_the_bypass_can_be_switched_off_and_on(running: AgentNode) -> None:
    """Switched off, the programs stand aside and stay aside; switched on, they go on."""
    assert running.ask(op="bypass", enabled=False)["bypass"] == "off"
    assert lease(running) < 0
    running.write_nodes(2, 3, 4)
    eventually(lambda: "10.42.4.0" in running.sh("ip route"), "a look")
    assert lease(running) < 0
    assert running.status()["bypass"] == "off"
    assert running.ask(op="bypass", enabled=True)["bypass"] == "on"
    assert lease(running) > 1
    running.write_nodes(2, 3)


def test_it_stays_off_when_it_is_loaded_again(node: AgentNode) -> None:
    """Somebody who looks for a fault has switched it off, and a pin that is lost is no reason."""
    node.start()
    node.ask(op="bypass", enabled=False)
    (pin_directory(node.state) / "to_pod").unlink()
    eventually((pin_directory(node.state) / "to_pod").exists, "programs loaded again", seconds=20)
    eventually(lambda: node.status()["bypass"] == "off", "the switch")
    assert lease(node) < 0
    assert node.ask(op="bypass", enabled=True)["bypass"] == "on"


def test_a_restart_withdraws_approvals_and_switches_on(node: AgentNode) -> None:
    """Nobody watched the rules while no agent ran: a new one begins a new epoch, switched on."""
    node.start()
    node.ask(op="bypass", enabled=False)
    before = epoch(node)
    node.stop(signal.SIGKILL)
    node.start()
    assert epoch(node) > before
    assert lease(node) > 1


def test_without_programs_the_node_still_has_its_network(node: AgentNode) -> None:
    """Programs that do not load cost the bypass and nothing else, and say so."""
    node.start(prefix=("setpriv", "--bounding-set", "-sys_admin"))
    assert node.status()["bypass"] == "unavailable"
    assert "CAP_SYS_ADMIN" in node.status()["failures"][0]
    assert "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink" in node.sh("ip route")
    answer = node.ask(**make_pod(node, 7))
    assert answer["accelerated"] is False
    assert "no bypass" in answer["reason"]
    node.stop()
    node.start()
    assert list(pods(node)) == ["10.42.1.7"]
