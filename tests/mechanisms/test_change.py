# SPDX-License-Identifier: Apache-2.0
"""Rules that change: what it costs, what it withdraws, and how soon it counts."""

from __future__ import annotations

import contextlib
import os
import select
import statistics
import threading
import time
from pathlib import Path

import pytest
from flow import datagram, status
from paths import BYPASSES, ruleset
from services import Iptables, Nftables
from standing import entered

from vxlane.host.events import RulesetEvents
from vxlane.lab.waiting import wait_for

SERVICES, SECONDS = 3000, 8
MOST_CPU = 0.05
LEAST_SHARE = 0.95
AT_ONCE = 0.05
"""Seconds; the median, for the machine is a busy one."""
NAT = "type nat hook prerouting priority -101"
FORWARD = "type filter hook forward priority -5"


def cpu(pid):
    """Seconds of CPU that a process and the children that it waited for have had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def talking(lab):
    """Exchange datagrams between two pods while the block runs."""
    ends = threading.Event()

    def talk(client, server):
        while not ends.wait(0.005):
            with contextlib.suppress(TimeoutError):
                client.send(b"question")
                server.sendto(b"answer", server.recvfrom(100)[1])
                client.recv(100)

    with (
        contextlib.closing(datagram(lab, "node1-pod1")) as client,
        contextlib.closing(datagram(lab, "node2-pod1")) as server,
    ):
        client.connect(server.getsockname())
        thread = threading.Thread(target=talk, args=(client, server))
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()


@pytest.mark.parametrize("mode", [Iptables, Nftables])
def test_many_services(pair, mode):
    """Beside 3,000 Services a change a second costs the agent and the flows next to nothing."""
    services = mode(SERVICES)
    with ruleset(pair, "node1"):
        pair.exec("node1", "nft", "-f", "-", stdin=services.rules())
    pid = pair.agent_pid("node1")
    with talking(pair), pair.verdicts("node1") as seen:
        began, used = time.monotonic(), cpu(pid)
        for turn in range(1, SECONDS + 1):
            change = services.change(turn * 7, turn)
            pair.exec("node1", "nft", "-f", "-", stdin=change)
            time.sleep(max(0.0, began + turn - time.monotonic()))
        share_of_cpu = (cpu(pid) - used) / (time.monotonic() - began)
    assert status(pair, "node1")["mechanisms"] == []
    with ruleset(pair, "node1"):
        pair.exec("node1", "nft", "flush", "ruleset")
    assert share_of_cpu < MOST_CPU
    counted = {
        key: count
        for key, count in seen.items()
        if key[0] in {"from_pod", "from_nic"} and key[1] not in {"not_ip", "not_overlay"}
    }
    bypassed = sum(count for key, count in counted.items() if key[1] in BYPASSES)
    assert bypassed > LEAST_SHARE * sum(counted.values())


def test_rules_that_can_not_be_met_withdraw_nothing(pair):
    """A change of a nat chain, of another family or of a device's chain elsewhere is no matter."""
    nat, other = "ip nat-test", "ip6 other-test"
    for table, hook in ((nat, NAT), (other, FORWARD)):
        pair.exec("node1", "nft", f"add table {table}; add chain {table} c {{ {hook}; }}")
    wait_for(lambda: not status(pair, "node1")["rules_unread"], "the rules")
    epoch = status(pair, "node1")["epoch"]
    for table in (nat, other):
        pair.exec("node1", "nft", f"add rule {table} c tcp dport 80 counter")
        pair.exec("node1", "nft", f"flush chain {table} c")
    # As knftables writes: what is there already comes again in each transaction.
    again = (
        f"add table {nat}; add chain {nat} c {{ {NAT}; }}; add rule {nat} c tcp dport 81 counter"
    )
    pair.exec("node1", "nft", again)
    after = status(pair, "node1")
    assert (after["epoch"], after["rules_unread"]) == (epoch, False)
    for table in (nat, other):
        pair.exec("node1", "nft", "delete", "table", *table.split())


def test_a_table_that_is_switched_on_withdraws_all(pair):
    """No chain of it changes, and yet packets meet other rules than before."""
    table = "ip t"
    pair.exec("node1", "nft", f"add table {table}; add chain {table} c {{ {FORWARD}; }}")
    for flags in ("flags dormant;", ""):
        wait_for(lambda: not status(pair, "node1")["rules_unread"], "the rules")
        epoch = status(pair, "node1")["epoch"]
        pair.exec("node1", "nft", f"add table {table} {{ {flags} }}")
        wait_for(lambda: status(pair, "node1")["epoch"] != epoch, "a withdrawal")  # noqa: B023
    pair.exec("node1", "nft", "delete", "table", *table.split())


@pytest.mark.parametrize("tool", ["nft", "iptables-legacy"])
def test_rules_that_can_be_met_withdraw_all(pair, tool):
    """A rule of the FORWARD hook ends every approval, iptables-legacy's within some seconds."""
    put = {
        "nft": f"add table ip t; add chain ip t c {{ {FORWARD}; }}; add rule ip t c ct state new",
        "iptables-legacy": "-w -A FORWARD -p tcp --dport 9 -j DROP",
    }
    take = {"nft": "delete table ip t", "iptables-legacy": "-w -F FORWARD"}
    pair.exec("node1", "iptables-legacy", "-w", "-L")
    time.sleep(1.5)  # a table that comes to be is a change as well, and has no event
    epoch = status(pair, "node1")["epoch"]
    pair.exec("node1", tool, *put[tool].split())
    wait_for(lambda: status(pair, "node1")["epoch"] != epoch, "a withdrawal")
    pair.exec("node1", tool, *take[tool].split())


def test_a_rule_counts_at_once(pair):
    """No packet is bypassed from the event of a new rule on until it has been read."""
    delays = []
    with entered(pair.netns("node1")), contextlib.closing(RulesetEvents()) as events:
        pair.exec("node1", "nft", f"add table ip t; add chain ip t c {{ {FORWARD}; }}")
        wait_for(lambda: not status(pair, "node1")["rules_unread"], "the rules")
        events.read()
        with pair.maps("node1") as maps:
            for number in range(20):
                epoch = maps.settings().epoch
                rule = f"add rule ip t c tcp dport {number + 1} limit rate 1/second drop"
                writer = threading.Thread(target=pair.exec, args=("node1", "nft", rule))
                writer.start()
                select.select([events.fileno()], [], [])
                began = time.monotonic()
                wait_for(lambda: maps.settings().epoch != epoch, "a withdrawal")  # noqa: B023
                delays.append(time.monotonic() - began)
                assert maps.settings().judged
                writer.join()
                events.read()
    wait_for(lambda: not status(pair, "node1")["rules_unread"], "the rules")
    assert {each["kind"] for each in status(pair, "node1")["mechanisms"]} == {"limit"}
    pair.exec("node1", "nft", "delete", "table", "ip", "t")
    assert statistics.median(delays) < AT_ONCE
