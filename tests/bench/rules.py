# SPDX-License-Identifier: Apache-2.0
"""`scripts/bench rules [--json]`: the agent beside a busy kube-proxy.

On a lab of two nodes, with the rules of 3,000 Services in both of kube-proxy's forms, one change of
them a second for half a minute: the agent's CPU, the share of datagrams between two pods that is
bypassed, and how long a change of a node takes to be in the programs' map. Exit status 1 if a
budget is missed: 5 % of a CPU, 95 % of the packets, 50 ms for 99 of 100 changes of a node.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import threading
import time
from ipaddress import IPv4Address, IPv4Network

import leftovers
from labundertest import LabUnderTest
from paths import BYPASSES
from services import Iptables, Nftables
from test_change import cpu, talking

from vxlane.lab import agents
from vxlane.lab import lab as labs

SERVICES, SECONDS, CHANGES = 3000, 30, 100
MOST_CPU, LEAST_SHARE, MOST_MS = 0.05, 0.95, 50.0
POLL = 0.001


def change_nodes(lab, took):
    """Change a third node of the list, CHANGES times, and note how long each took, ms."""
    nodes = list(lab.lab.nodes)
    cidr = IPv4Network("10.42.77.0/24")
    third = dataclasses.replace(
        nodes[1], name="third", address=IPv4Address("192.168.77.77"), pod_cidr=cidr
    )
    with lab.maps("node1") as maps:
        for number in range(CHANGES):
            third = dataclasses.replace(third, vtep_mac=f"02:00:00:00:77:{number:02x}")
            began = time.monotonic()
            agents.write_nodes(lab.lab.nodes_file, [*nodes, third])
            while getattr(maps.peers().get(cidr), "vtep_mac", "") != third.vtep_mac:
                time.sleep(POLL)
            took.append((time.monotonic() - began) * 1000)
            time.sleep(max(0.0, SECONDS / CHANGES - took[-1] / 1000))


def measure(lab, mode):
    """One form of kube-proxy's rules."""
    services, took = mode(SERVICES), []
    lab.exec("node1", "nft", "-f", "-", stdin=services.rules())
    time.sleep(3)
    pid = lab.agent_pid("node1")
    changer = threading.Thread(target=change_nodes, args=(lab, took))
    with talking(lab), lab.verdicts("node1") as seen:
        began, used = time.monotonic(), cpu(pid)
        changer.start()
        for turn in range(1, SECONDS + 1):
            lab.exec("node1", "nft", "-f", "-", stdin=services.change(turn * 7, turn))
            time.sleep(max(0.0, began + turn - time.monotonic()))
        share_of_cpu = (cpu(pid) - used) / (time.monotonic() - began)
    changer.join()
    lab.exec("node1", "nft", "flush", "ruleset")
    foreign = {"not_ip", "not_overlay"}
    counted = {
        key: count
        for key, count in seen.items()
        if key[0] in {"from_pod", "from_nic"} and key[1] not in foreign
    }
    bypassed = sum(count for key, count in counted.items() if key[1] in BYPASSES)
    took.sort()
    return {
        "agent_cpu": round(share_of_cpu, 4),
        "share": round(bypassed / sum(counted.values()), 4),
        "node_change_ms": {
            "p50": round(took[len(took) // 2], 1),
            "p99": round(took[len(took) * 99 // 100 - 1], 1),
            "max": round(took[-1], 1),
        },
    }


def is_met(found):
    """Whether a measurement keeps all budgets."""
    return (
        found["agent_cpu"] <= MOST_CPU
        and found["share"] >= LEAST_SHARE
        and found["node_change_ms"]["p99"] <= MOST_MS
    )


def main():
    """Measure both forms, print, and say whether the budgets are met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    leftovers.remove("bench")
    name = f"bench-{os.getpid()}"
    lab = LabUnderTest(labs.up(name, nodes=2, pods_per_node=1, kernel_only=0))
    try:
        found = {mode.__name__.lower(): measure(lab, mode) for mode in (Iptables, Nftables)}
    finally:
        labs.down(name)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for form, figures in found.items():
            change = figures["node_change_ms"]
            print(
                f"{form}: agent {figures['agent_cpu']:.1%} of a CPU,"
                f" {figures['share']:.1%} bypassed, a node's change p50 {change['p50']}"
                f" p99 {change['p99']} max {change['max']} ms"
            )
    sys.exit(0 if all(map(is_met, found.values())) else 1)


if __name__ == "__main__":
    main()
