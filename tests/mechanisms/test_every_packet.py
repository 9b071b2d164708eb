# SPDX-License-Identifier: Apache-2.0
"""What acts on every packet acts on every packet, as it does on the kernel path of the same lab.

Each case is measured twice, with the bypass on and switched off. Limits are bursts that are filled
again within an hour, so that outcomes are equal to the packet.
"""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

import pytest
from flow import COUNT, Arrived, flow, status
from paths import BYPASSES, ruleset
from standing import entered

from vxlane.lab.waiting import wait_for

RULESETS = Path(__file__).parent / "rulesets"
BURST = 30
"""Packets that a limit lets pass; those of the warm-up too."""
CLIENT, SERVER, NEIGHBOUR = "node1-pod1", "node2-pod1", "node1-pod2"
SLOW = f"limit rate over 1/hour burst {BURST} packets drop"


def iptables(chain, rule):
    """A rule of iptables-nft's, put and taken back."""
    return f"iptables -w -I {chain} {rule}", f"iptables -w -D {chain} {rule}"


def legacy(chain, rule):
    """The same of iptables-legacy's."""
    return f"iptables-legacy -w -I {chain} {rule}", f"iptables-legacy -w -D {chain} {rule}"


def nft(family, chain, rule, more=""):
    """A table with one rule, put and taken back."""
    put = f"add table {family} judge; {more} add chain {family} judge c {{ {chain}; }};"
    return (
        f"nft '{put} add rule {family} judge c {rule}'",
        f"nft delete table {family} judge",
    )


FORWARD = "type filter hook forward priority -5"
BRIDGED = "type filter hook {} priority -5"
DEVICE = "type filter hook {} device {} priority 0"
UDP = "-p udp -d 10.42.2.0/24"
RULES = {
    "limit": iptables("FORWARD", f"{UDP} -j DROP")
    + iptables("FORWARD", f"{UDP} -m limit --limit 1/hour --limit-burst 30 -j ACCEPT"),
    "limit-nft": nft("ip", FORWARD, f"ip daddr 10.42.2.0/24 {SLOW}"),
    "limit-of-one-pod": nft("ip", FORWARD, f"ip saddr {{client}} meta l4proto udp {SLOW}"),
    "hashlimit": iptables(
        "FORWARD",
        f"{UDP} -m hashlimit --hashlimit-above 1/hour --hashlimit-burst 30"
        " --hashlimit-name judge -j DROP",
    ),
    "connbytes": iptables(
        "FORWARD",
        f"{UDP} -m connbytes --connbytes 30: --connbytes-dir original"
        " --connbytes-mode packets -j DROP",
    ),
    "quota": nft("ip", FORWARD, "ip daddr 10.42.2.0/24 quota over 20 kbytes drop"),
    "string": iptables("FORWARD", f"{UDP} -m string --algo bm --string secret -j DROP"),
    "string-legacy": legacy("FORWARD", f"{UDP} -m string --algo bm --string secret -j DROP"),
    "u32": iptables("FORWARD", f'{UDP} -m u32 --u32 "0x0>>22&0x3C@8=0x73656372" -j DROP'),
    "raw-payload": nft("ip", FORWARD, "ip daddr 10.42.2.0/24 @th,64,32 0x73656372 drop"),
    "bpf": iptables(
        "FORWARD",
        f"{UDP} -m bpf --bytecode '4,32 0 0 28,21 0 1 1936024434,6 0 0 1,6 0 0 0' -j DROP",
    ),
    "statistic": iptables(
        "FORWARD", f"{UDP} -m statistic --mode nth --every 20 --packet 10 -j DROP"
    ),
    "length": iptables("FORWARD", f"{UDP} -m length --length 500:1500 -j DROP"),
    "header": nft("ip", FORWARD, "ip daddr 10.42.2.0/24 ip dscp 10 drop"),
    "recent": iptables("FORWARD", f"{UDP} -m recent --name judge --rcheck --hitcount 15 -j DROP")
    + iptables("FORWARD", f"{UDP} -m recent --name judge --set"),
    "set": nft(
        "ip",
        FORWARD,
        f"ip daddr 10.42.2.0/24 update @s {{ ip saddr {SLOW[:-5]} }} drop",
        "add set ip judge s { type ipv4_addr; size 99; flags dynamic; };",
    ),
    "dscp": iptables("FORWARD -t mangle", f"{UDP} -j DSCP --set-dscp 0x20"),
    "tos": iptables("FORWARD -t mangle", f"{UDP} -j TOS --set-tos 0x10/0xff"),
    "ttl": iptables("FORWARD -t mangle", f"{UDP} -j TTL --ttl-set 33"),
    "ttl-nft": nft("ip", FORWARD, "ip daddr 10.42.2.0/24 ip ttl set 33"),
    "bridge": nft("bridge", BRIDGED.format("prerouting"), f"ip protocol udp {SLOW}"),
    "veth": nft("netdev", DEVICE.format("ingress", "{veth}"), f"udp dport != 53 {SLOW}"),
    "bridge-device": nft("netdev", DEVICE.format("ingress", "cni0"), f"udp dport != 53 {SLOW}"),
    "overlay-device": nft(
        "netdev", DEVICE.format("egress", "flannel.1"), f"udp dport != 53 {SLOW}"
    ),
    "nic": nft("netdev", DEVICE.format("egress", "eth0"), f"udp dport 8472 {SLOW}"),
    "tunnel-out": nft("ip", "type filter hook output priority 0", f"udp dport 8472 {SLOW}"),
}
RULES_OF_RECEIVER = {
    "tunnel-in": nft("ip", "type filter hook input priority 0", f"udp dport 8472 {SLOW}"),
    "received-forward": nft("inet", FORWARD, f"ip saddr 10.42.1.0/24 {SLOW}"),
    "received-bridge": nft("bridge", BRIDGED.format("output"), f"ip protocol udp {SLOW}"),
    "received-veth": nft("netdev", DEVICE.format("egress", "{veth}"), f"udp dport != 53 {SLOW}"),
    "received-overlay": nft("netdev", DEVICE.format("ingress", "flannel.1"), SLOW),
    "received-nic": nft("netdev", DEVICE.format("ingress", "eth0"), f"udp dport 8472 {SLOW}"),
}
HTB = """\
tc qdisc add dev flannel.1 root handle 1: htb default 1
tc class add dev flannel.1 parent 1: classid 1:1 htb rate 8kbit burst 9k cburst 9k
tc qdisc add dev flannel.1 parent 1:1 pfifo limit 3
"""
SHAPERS = {
    "tbf-on-overlay": (
        "node1",
        "tc qdisc add dev flannel.1 root tbf rate 8kbit burst 9k limit 3k",
        "tc qdisc del dev flannel.1 root",
    ),
    "htb-on-overlay": ("node1", HTB, "tc qdisc del dev flannel.1 root"),
    "tbf-on-the-receivers-bridge": (
        "node2",
        "tc qdisc add dev cni0 root tbf rate 8kbit burst 9k limit 3k",
        "tc qdisc del dev cni0 root",
    ),
}


@contextlib.contextmanager
def mechanism(lab, node, pod, steps):
    """Put what acts on packets while the block runs, and return when the agent has read it."""
    words = {"client": lab.address(CLIENT), "veth": veth(lab, node, pod)}
    put, take = [
        [re.sub(r"\{(client|veth)\}", lambda found: words[found[1]], step) for step in steps[at::2]]
        for at in (0, 1)
    ]
    for step in put:
        lab.exec(node, "sh", "-ec", step)
    try:
        wait_for(lambda: status(lab, node)["mechanisms"], "the mechanism", seconds=3)
        wait_for(lambda: not status(lab, node)["rules_unread"], "the rules")
        yield
    finally:
        for step in take:
            lab.exec(node, "sh", "-ec", step)
        wait_for(lambda: not status(lab, node)["mechanisms"], "an end", seconds=3)


def veth(lab, node, pod):
    """The name of a pod's veth on its node."""
    with lab.maps(node) as maps, entered(lab.netns(node)):
        return socket.if_indextoname(maps.pods()[lab.pod(pod).address].ifindex)


def measured(lab, node, steps, *, enabled, source=CLIENT, target=SERVER):
    """What arrives of a flow while something acts on it; and what was counted."""
    for each in ("node1", "node2"):
        lab.ask(each, op="bypass", enabled=enabled)
    pod = target if target.startswith(node) else source
    with mechanism(lab, node, pod, steps), lab.verdicts(node) as seen:
        arrived = flow(lab, source, target)
    return arrived, seen


def compare(lab, node, steps, **more):
    """The outcome of both paths is the same, and not all that a bypassed flow would have."""
    kernel, _ = measured(lab, node, steps, enabled=False, **more)
    ours, seen = measured(lab, node, steps, enabled=True, **more)
    assert ours == kernel
    assert {key for key in seen if key[1] in BYPASSES} == set()
    assert any(key[1] == "judged" for key in seen)
    return ours


def test_without_any_a_flow_is_bypassed(pair):
    """Where nothing acts on packets all of a flow arrives, and takes the bypass."""
    for node in ("node1", "node2"):
        pair.ask(node, op="bypass", enabled=True)
    with pair.verdicts("node1", "node2") as seen:
        arrived = flow(pair, CLIENT, SERVER)
    assert arrived.count == COUNT
    assert arrived.tos == {0, 0x28}
    assert seen["from_pod", "encapsulated"] >= COUNT
    assert seen["from_nic", "decapsulated"] >= COUNT


@pytest.mark.parametrize("name", RULES)
def test_rules_where_packets_leave(pair, name):
    """A rule or a chain of the sender's node acts on each packet of a flow to another node."""
    arrived = compare(pair, "node1", RULES[name])
    assert arrived != EVERYTHING


@pytest.mark.parametrize("name", RULES_OF_RECEIVER)
def test_rules_where_packets_arrive(pair, name):
    """A rule or a chain of the receiver's node acts on each packet of a flow from another node."""
    arrived = compare(pair, "node2", RULES_OF_RECEIVER[name])
    assert arrived.count < COUNT


def test_rules_between_pods_of_a_node(pair):
    """A limit of a bridge's chain acts on each packet that the bridge switches."""
    steps = nft("bridge", BRIDGED.format("forward"), f"ip protocol udp {SLOW}")
    arrived = compare(pair, "node1", steps, target=NEIGHBOUR)
    assert arrived.count < COUNT


def test_what_tells_a_copy_leaves_nothing_to_the_bypass(pair):
    """A rule that would drop the copies that conntrack is shown is listed, and stops the bypass."""
    steps = iptables("PREROUTING -t raw", "-m pkttype --pkt-type multicast -j DROP")
    with mechanism(pair, "node1", CLIENT, steps):
        assert [each["kind"] for each in status(pair, "node1")["mechanisms"]] == ["header"]
    arrived, seen = measured(pair, "node1", steps, enabled=True)
    assert arrived == EVERYTHING
    assert {key for key in seen if key[1] in BYPASSES} == set()


EVERYTHING = Arrived(
    COUNT, COUNT // 2, COUNT // 2, COUNT // 5, frozenset({0, 0x28}), frozenset({62})
)
"""A flow that nothing acts on."""


@pytest.mark.parametrize("name", SHAPERS)
def test_shapers_on_the_way(pair, name):
    """A shaper on flannel.1, or on cni0, holds a flow back on both paths alike."""
    node, *steps = SHAPERS[name]
    kernel, _ = measured(pair, node, steps, enabled=False)
    ours, seen = measured(pair, node, steps, enabled=True)
    assert kernel.count < COUNT / 2
    assert ours.count < COUNT / 2
    assert {key for key in seen if key[1] in BYPASSES} == set()


@pytest.mark.parametrize("name", sorted(path.name for path in RULESETS.iterdir()))
def test_usual_rules_leave_the_bypass_on(pair, name):
    """With what other programs write on every node all of a flow arrives, and takes the bypass."""
    for node in ("node1", "node2"):
        pair.ask(node, op="bypass", enabled=True)
    rules = (RULESETS / name).read_text()
    with contextlib.ExitStack() as stack:
        for node in ("node1", "node2"):
            stack.enter_context(usual(pair, node, rules))
        with pair.verdicts("node1", "node2") as seen:
            assert flow(pair, CLIENT, SERVER) == EVERYTHING
        assert [status(pair, node)["mechanisms"] for node in ("node1", "node2")] == [[], []]
    # While the agent puts flannel's own rules back, packets take the kernel path for a moment.
    assert seen["from_pod", "encapsulated"] >= 0.8 * COUNT
    assert seen["from_nic", "decapsulated"] >= 0.8 * COUNT


@contextlib.contextmanager
def usual(lab, node, rules):
    """Put a whole rule set on a node while the block runs."""
    is_nft = rules.startswith("table")
    before = lab.exec(node, "iptables-save").stdout
    with ruleset(lab, node):
        lab.exec(node, *(["nft", "-f", "-"] if is_nft else ["iptables-restore"]), stdin=rules)
    jump = "-j FLANNEL-FWD"
    wait_for(lambda: jump in lab.exec(node, "iptables", "-S").stdout, "a repair", seconds=10)
    wait_for(lambda: not status(lab, node)["rules_unread"], "the rules")
    yield
    with ruleset(lab, node):
        for table in re.findall(r"^table (.*) {", rules, re.MULTILINE):
            lab.exec(node, "nft", "delete", "table", *table.split())
        lab.exec(node, "iptables-restore", stdin=before)
