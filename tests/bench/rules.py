# SPDX-License-Identifier: Apache-2.0
"""`scripts/bench rules [--json]`: the agent and traffic beside a busy kube-proxy.

On a lab of two nodes, with the rules of 3,000 Services in both forms of kube-proxy, one change of
them a second and with each a rule as portmap writes it: the agent's CPU; of 1,000 flows of 10
datagrams a second the share that is bypassed; request and response against the same without
changes; how long a change of a node takes to be in the programs' map; how long after a deny's
commit its flow still arrives. Exit
status 1 if a budget is missed, see BUDGETS.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import select
import statistics
import sys
import threading
import time
from ipaddress import IPv4Address, IPv4Network

import leftovers
from flow import datagram
from labundertest import LabUnderTest
from paths import BYPASSES
from services import Iptables, Nftables
from standing import entered
from test_change import cpu

from vxlane.host.events import RulesetEvents
from vxlane.lab import agents, traffic
from vxlane.lab import lab as labs
from vxlane.lab.traffic import Ends

SERVICES, SECONDS, CHANGES, FLOWS, PER_SECOND, DENIES, ROUNDS = 3000, 30, 100, 1000, 10, 40, 5
POLL, GAP, SILENCE = 0.001, 0.001, 0.3
PORTMAP = """\
add table ip portmap
add chain ip portmap hostports {{ type nat hook prerouting priority -100; }}
add rule ip portmap hostports tcp dport {port} dnat to 10.42.1.2:80
"""
DENY = "ip filter-deny"
BUDGETS = {
    "agent_cpu": lambda found: found <= 0.05,
    "share": lambda found: found >= 0.95,
    "request_response": lambda found: found >= 0.95,
    "node_change_p99_ms": lambda found: found <= 50,
    "deny_p99_ms": lambda found: found <= 50,
}


class Changes:
    """A transaction a second while `go` is set, until the block ends."""

    def __init__(self, lab, services):
        self._lab, self._services = lab, services
        self.go, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _run(self):
        for turn in itertools.count(1):
            if self._end.wait(1):
                return
            if self.go.is_set():
                rules = self._services.change(turn * 7 % SERVICES, turn)
                rules += PORTMAP.format(port=20000 + turn)
                self._lab.exec("node1", "nft", "-f", "-", stdin=rules)


@contextlib.contextmanager
def flows(lab):
    """FLOWS flows, of PER_SECOND datagrams a second each, while the block runs."""
    end = threading.Event()
    with contextlib.ExitStack() as stack:
        opened = (contextlib.closing(datagram(lab, "node1-pod1")) for _ in range(FLOWS))
        sockets = [stack.enter_context(one) for one in opened]
        server = stack.enter_context(contextlib.closing(datagram(lab, "node2-pod1")))
        for one in sockets:
            one.connect(server.getsockname())

        def send():
            began = time.monotonic()
            for number in itertools.count():
                sockets[number % FLOWS].send(b"reading")
                if number % 50 == 0:
                    due = began + number / (FLOWS * PER_SECOND)
                    if end.wait(max(0.0, due - time.monotonic())):
                        return

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


def change_nodes(lab):
    """Milliseconds that each of CHANGES changes of a third node takes."""
    nodes, took = list(lab.lab.nodes), []
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
    return took


def share(lab):
    """Of the datagrams of 1,000 slow flows, those that are bypassed on the sender's node."""
    with flows(lab):
        time.sleep(2)
        with lab.verdicts("node1") as seen:
            time.sleep(SECONDS)
    out = {key: count for key, count in seen.items() if key[0] == "from_pod"}
    out = {key: count for key, count in out.items() if key[1] != "not_ip"}
    return sum(count for key, count in out.items() if key[1] in BYPASSES) / sum(out.values())


def request_response(lab, changes):
    """Transactions a second with changes, against those without; median of rounds in turns."""
    ends = Ends(lab.netns("node1-pod1"), lab.netns("node2-pod1"), lab.address("node2-pod1"))
    ratios = []
    for number in range(ROUNDS):
        found = {}
        for is_busy in (True, False) if number % 2 else (False, True):
            (changes.go.set if is_busy else changes.go.clear)()
            found[is_busy] = traffic.latency(ends, seconds=2)
        ratios.append(found[False] / found[True])
    changes.go.set()
    return statistics.median(ratios)


def denies(lab):
    """Milliseconds for which a flow still arrives after the commit of a rule that denies it."""
    took, last = [], [0.0]
    lab.exec("node1", "nft", f"add table {DENY}")
    chain = f"chain {DENY} c {{ type filter hook forward priority -5; }}"
    lab.exec("node1", "nft", f"add {chain}")
    end = threading.Event()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(datagram(lab, "node1-pod1")))
        server = stack.enter_context(contextlib.closing(datagram(lab, "node2-pod1")))
        client.connect(server.getsockname())
        port = server.getsockname()[1]

        def receive():
            while not end.is_set():
                with contextlib.suppress(TimeoutError):
                    server.recv(100)
                    last[0] = time.monotonic()

        def send():
            while not end.wait(GAP):
                client.send(b"secret")

        threads = [threading.Thread(target=one) for one in (receive, send)]
        for thread in threads:
            thread.start()
        with entered(lab.netns("node1")):
            events = stack.enter_context(contextlib.closing(RulesetEvents()))
        for _ in range(DENIES):
            time.sleep(SILENCE)
            took.append(_deny(lab, port, events, last))
        end.set()
        for thread in threads:
            thread.join()
    lab.exec("node1", "nft", f"delete table {DENY}")
    return took


def _deny(lab, port, events, last):
    """One of them; the rule is gone at the end."""
    rule = f"add rule {DENY} c udp dport {port} drop"
    writer = threading.Thread(target=lambda: lab.exec("node1", "nft", rule))
    events.read()
    writer.start()
    committed = 0.0
    while not committed:  # until the event is this rule's, and not one of kube-proxy's
        select.select([events.fileno()], [], [], 1.0)
        now, change = time.monotonic(), events.read()
        if change and any("filter-deny" in name for name in change.names):
            committed = now
    writer.join()
    while time.monotonic() - max(last[0], committed) < SILENCE:
        time.sleep(POLL)
    took = max(0.0, last[0] - committed)
    lab.exec("node1", "nft", f"flush chain {DENY} c")
    return took * 1000


def measure(lab, mode):
    """One form of kube-proxy's rules."""
    services = mode(SERVICES)
    lab.exec("node1", "nft", "-f", "-", stdin=services.rules())
    time.sleep(3)
    pid = lab.agent_pid("node1")
    with Changes(lab, services) as changes:
        changes.go.set()
        began, used = time.monotonic(), cpu(pid)
        bypassed = share(lab)
        share_of_cpu = (cpu(pid) - used) / (time.monotonic() - began)
        ratio = request_response(lab, changes)
        nodes, after_deny = sorted(change_nodes(lab)), sorted(denies(lab))
    lab.exec("node1", "nft", "flush ruleset")
    return {
        "agent_cpu": round(share_of_cpu, 4),
        "share": round(bypassed, 4),
        "request_response": round(ratio, 3),
        "node_change_p50_ms": round(statistics.median(nodes), 1),
        "node_change_p99_ms": round(nodes[CHANGES * 99 // 100 - 1], 1),
        "deny_p50_ms": round(statistics.median(after_deny), 1),
        "deny_p99_ms": round(after_deny[-1], 1),
    }


def main():
    """Measure both forms, print, and say whether the budgets are met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    leftovers.remove("vxbench")
    name = f"vxbench-{os.getpid()}"
    lab = LabUnderTest(labs.up(name, nodes=2, pods_per_node=1, kernel_only=0))
    try:
        found = {mode.__name__.lower(): measure(lab, mode) for mode in (Iptables, Nftables)}
    finally:
        labs.down(name)
    missed = [
        f"{form}: {quantity} {figures[quantity]}"
        for form, figures in found.items()
        for quantity, is_met in BUDGETS.items()
        if not is_met(figures[quantity])
    ]
    if as_json:
        print(json.dumps({"found": found, "missed": missed}, indent=2))
    else:
        for form, figures in found.items():
            print(form, *(f"{name} {figure}" for name, figure in figures.items()), sep=", ")
        print(*(f"missed: {line}" for line in missed), sep="\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
