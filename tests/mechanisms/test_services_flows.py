# SPDX-License-Identifier: Apache-2.0
"""What acts on packets to a Service acts on each of them, as on the kernel path, and on no others.

Limits are bursts that are filled again within an hour, so that outcomes are equal to the packet.
"""

from __future__ import annotations

import contextlib

import pytest
from flow import COUNT, flow, status
from kubeproxy import MODES, KubeProxies
from kubeservice import PORT, VIRTUAL
from paths import BYPASSES

from vxlane.lab.waiting import wait_for

CLIENT, SERVER, NEIGHBOUR = "node1-pod1", "node2-pod1", "node1-pod2"
SLOW = "limit rate over 1/hour burst 30 packets drop"


def iptables(chain, rule):
    """A rule of iptables-nft's, put and taken back."""
    return f"iptables -w -I {chain} {rule}", f"iptables -w -D {chain} {rule}"


def nft(family, hook, rule):
    """A table with one rule, put and taken back."""
    chain = f"{{ type filter hook {hook}; }}"
    put = f"add table {family} judge; add chain {family} judge c {chain};"
    return f"nft '{put} add rule {family} judge c {rule}'", f"nft delete table {family} judge"


RULES = {
    "hashlimit": iptables(
        "PREROUTING -t raw",
        f"-d {VIRTUAL} -m hashlimit --hashlimit-above 1/hour --hashlimit-burst 30"
        " --hashlimit-name judge -j DROP",
    ),
    "dscp": iptables("PREROUTING -t mangle", "-d 10.96.0.0/12 -j DSCP --set-dscp 0x20"),
    "limit": nft("ip", "prerouting priority -150", f"ip daddr {VIRTUAL} {SLOW}"),
    "bridge": nft("bridge", "prerouting priority -300", f"ip daddr {VIRTUAL} {SLOW}"),
    "answers": nft("ip", "postrouting priority 110", f"ip saddr {VIRTUAL} {SLOW}"),
}


@pytest.fixture(params=sorted(MODES))
def proxied(pair, request):
    """The lab, with kube-proxy on the client's node."""
    proxies = KubeProxies(request.param, pair, PORT)

    def run(backend):
        proxies("node1", backends=[pair.address(backend)])
        return pair

    yield run
    proxies.end()


@contextlib.contextmanager
def rule(lab, put, take):
    """Put what acts on packets while the block runs, and return when the agent has read it."""
    lab.exec("node1", "sh", "-ec", put)
    try:
        wait_for(lambda: status(lab, "node1")["mechanisms"], "the mechanism", seconds=3)
        wait_for(lambda: not status(lab, "node1")["rules_unread"], "the rules")
        yield
    finally:
        lab.exec("node1", "sh", "-ec", take)
        wait_for(lambda: not status(lab, "node1")["mechanisms"], "an end", seconds=3)


def measured(lab, target, name, *, enabled):
    """What arrives of a Service's flow and of a direct one, and what was counted of each."""
    for node in ("node1", "node2"):
        lab.ask(node, op="bypass", enabled=enabled)
    is_answer = name == "answers"
    with rule(lab, *RULES[name]):
        assert {each["flows"] for each in status(lab, "node1")["mechanisms"]} == {"translated"}
        with lab.verdicts("node1") as by_service:
            arrived = flow(lab, CLIENT, target, (VIRTUAL, PORT), is_answer=is_answer)
        with lab.verdicts("node1") as directly:
            beside = flow(lab, CLIENT, target, is_answer=is_answer)
    return (arrived, beside), by_service, directly


def bypassed(seen):
    """How many packets were bypassed."""
    return sum(count for (_, what), count in seen.items() if what in BYPASSES)


@pytest.mark.parametrize("target", [SERVER, NEIGHBOUR])
def test_a_services_flow_is_bypassed(proxied, target):
    """Without such a rule it is, beside all that kube-proxy writes."""
    lab = proxied(target)
    for node in ("node1", "node2"):
        lab.ask(node, op="bypass", enabled=True)
    with lab.verdicts("node1") as seen:
        assert flow(lab, CLIENT, target, (VIRTUAL, PORT)).count == COUNT
    assert status(lab, "node1")["mechanisms"] == []
    assert seen["from_pod", "nat"] >= COUNT


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("target", [SERVER, NEIGHBOUR])
def test_a_rule_about_a_service(proxied, target, name):
    """It acts on each packet of the Service's flow; a direct flow beside is bypassed."""
    lab = proxied(target)
    kernel, *_ = measured(lab, target, name, enabled=False)
    ours, by_service, directly = measured(lab, target, name, enabled=True)
    assert ours == kernel
    assert ours[0] != ours[1]
    assert ours[1].count == COUNT
    assert bypassed(by_service) == 0
    # What a rule changes never makes a record, so it can't be told to be judged.
    left_alone = {"judged", "translated"}
    assert sum(count for (_, what), count in by_service.items() if what in left_alone) >= COUNT
    assert bypassed(directly) >= COUNT
