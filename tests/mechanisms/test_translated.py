# SPDX-License-Identifier: Apache-2.0
"""What acts on packets of flows that netfilter translates, and on no others."""

from __future__ import annotations

import shlex
from ipaddress import IPv4Address

import pytest
from reading import VIEW, found, sh

from vxlane.mechanisms.concern import Judged, judged
from vxlane.mechanisms.findings import findings
from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import Field, NumberTest
from vxlane.mechanisms.rules import Base, ChainKey, Code, Family, Hook, Verdict

PODS = {"veth5": (IPv4Address("10.42.1.5"),)}
VIRTUAL = 0x0A60000A
LIMIT = "-m limit --limit 10/s"
NONE, SERVICES, ALL = Judged(), Judged(translated=True), Judged(all=True)
POD, POD_AND_SERVICES = (
    Judged(ports=frozenset({"veth5"}), translated=also) for also in (False, True)
)
IPTABLES = {
    "-t raw -A PREROUTING -d 10.96.0.10 -m hashlimit --hashlimit-above 9/s --hashlimit-name x"
    " -j DROP": SERVICES,
    "-t mangle -A PREROUTING -d 10.96.0.0/12 -j DSCP --set-dscp 10": SERVICES,
    "-t mangle -A PREROUTING -s 10.42.1.5 -d 10.96.0.10 -j DSCP --set-dscp 10": SERVICES,
    f"-t raw -A PREROUTING -i cni0 -m addrtype --dst-type LOCAL {LIMIT}": SERVICES,
    "-t raw -A PREROUTING -p tcp -d 10.96.0.10 --dport 21 -j CT --helper ftp": SERVICES,
    "-t raw -A PREROUTING -d 10.96.0.10 -j CT --zone 7": SERVICES,
    # To a Service from a local address that no pod has; from a pod to the node's own.
    f"-t raw -A PREROUTING -s 10.42.1.9 -d 10.96.0.10 {LIMIT}": NONE,
    f"-t raw -A PREROUTING -d 10.42.1.0 {LIMIT}": SERVICES,
    f"-t raw -A PREROUTING -d 10.42.1.5 {LIMIT}": POD_AND_SERVICES,
    f"-t raw -A PREROUTING -s 10.42.1.5 {LIMIT}": POD,
    f"-t raw -A PREROUTING {LIMIT}": ALL,
    "-t raw -A PREROUTING -d 10.96.0.10 -j CT --notrack": NONE,
    f"-t raw -A PREROUTING -i docker0 -d 10.96.0.10 {LIMIT}": NONE,
    f"-t raw -A PREROUTING -s 192.168.0.0/16 -d 10.96.0.10 {LIMIT}": NONE,
    "-t mangle -A PREROUTING -d 224.0.0.0/4 -j TTL --ttl-inc 1": NONE,
    f"-t mangle -A PREROUTING -m addrtype --dst-type MULTICAST {LIMIT}": NONE,
    f"-t mangle -A PREROUTING -p tcp -d 10.96.0.10 --syn {LIMIT}": NONE,
    f"-t mangle -A FORWARD -d 10.96.0.10 {LIMIT}": NONE,
    f"-t mangle -A POSTROUTING -s 10.96.0.10 {LIMIT}": NONE,
    "-t nat -A PREROUTING -d 10.96.0.10 -m statistic --mode nth --every 2 --packet 0 -j ACCEPT": (
        NONE
    ),
}
NFT = {
    "ip before ip daddr 10.96.0.10 limit rate over 9/second drop": SERVICES,
    "ip behind ip saddr 10.96.0.10 limit rate over 9/second drop": SERVICES,
    "ip behind ip saddr 192.168.7.1 ip daddr 10.42.1.5 log": SERVICES,
    "ip after ip daddr 10.96.0.10 limit rate over 9/second drop": NONE,
    "ip until ip saddr 10.96.0.10 limit rate over 9/second drop": NONE,
    "ip nat ip daddr 10.96.0.10 limit rate over 9/second drop": NONE,
    "ip before iifname cni0 fib daddr type local log": SERVICES,
    "ip before fib daddr type { broadcast, multicast } log": NONE,
    "bridge prerouting ip daddr 10.96.0.10 limit rate 9/second accept": SERVICES,
    "bridge output ip saddr 10.96.0.10 log": SERVICES,
    "bridge output ip saddr 10.96.0.10 ip daddr 10.96.0.11 log": NONE,
    "netdev pod ip daddr 10.96.0.10 log": SERVICES,
    "netdev other ip daddr 10.96.0.10 log": NONE,
    "netdev overlay ip saddr 10.96.0.10 log": SERVICES,
    "netdev nic ip daddr 10.96.0.10 log": NONE,
}
TABLES = """
add table ip t
add chain ip t before { type filter hook prerouting priority -150; }
add chain ip t after { type filter hook prerouting priority -90; }
add chain ip t until { type filter hook postrouting priority 90; }
add chain ip t behind { type filter hook postrouting priority 110; }
add chain ip t nat { type nat hook prerouting priority -110; }
add table bridge t
add chain bridge t prerouting { type filter hook prerouting priority -300; }
add chain bridge t output { type filter hook output priority 0; }
add table netdev t
add chain netdev t overlay { type filter hook egress device flannel.1 priority 0; }
add chain netdev t nic { type filter hook ingress device eth0 priority 0; }
add chain netdev t pod { type filter hook ingress device veth5 priority 0; }
add chain netdev t other { type filter hook ingress device docker0 priority 0; }
"""


def outcome():
    """Whom the rules of the namespace concern."""
    return judged(found(), PODS, VIEW.local, frozenset())


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_rules_of_iptables(netns, tool):
    """Before packets to a Service are translated, and only there, rules meet its address."""
    assert netns
    seen = {}
    for rule in IPTABLES:
        sh(tool, *shlex.split(rule))
        seen[rule] = outcome()
        sh(tool, *shlex.split(rule.replace("-A ", "-D ", 1)))
    assert seen == IPTABLES


def test_rules_of_nft(netns):
    """So it is by nft, where a chain's priority says whether packets are translated yet."""
    assert netns
    for one, other in (("flannel.1", "docker0"), ("eth0", "veth5")):
        sh("ip", "link", "add", one, "type", "veth", "peer", "name", other)
    sh("nft", "-f", "-", stdin=TABLES)
    seen = {}
    for rule in NFT:
        family, chain, what = rule.split(maxsplit=2)
        sh("nft", f"add rule {family} t {chain} {what}")
        seen[rule] = outcome()
        sh("nft", f"flush chain {family} t {chain}")
    assert seen == NFT


def test_what_is_hidden_from_plain_flows_only(netns):
    """What accepts packets to pods hides the next rule from plain flows, and from no others."""
    assert netns
    sh("iptables-nft", *shlex.split("-t raw -A PREROUTING -d 10.42.0.0/16 -j ACCEPT"))
    sh("iptables-nft", *shlex.split("-t raw -A PREROUTING -p tcp -j LOG"))
    (finding,) = found()
    assert (finding.kind, finding.is_translated) == (Kind.LOG, True)
    assert judged([finding], PODS, VIEW.local, {Kind.LOG}) == NONE


@pytest.mark.parametrize(
    ("hook", "priority", "field", "is_met"),
    [
        (Hook.PREROUTING, -300, Field.DESTINATION, True),
        (Hook.PREROUTING, -100, Field.DESTINATION, True),
        (Hook.PREROUTING, -99, Field.DESTINATION, False),
        (Hook.PREROUTING, -300, Field.SOURCE, False),
        (Hook.FORWARD, 0, Field.DESTINATION, False),
        (Hook.POSTROUTING, 99, Field.SOURCE, False),
        (Hook.POSTROUTING, 100, Field.SOURCE, True),
        (Hook.POSTROUTING, 300, Field.DESTINATION, False),
        (Hook.INPUT, 0, Field.DESTINATION, False),
        (Hook.OUTPUT, -300, Field.SOURCE, False),
    ],
)
def test_where_packets_have_the_address_of_a_service(hook, priority, field, is_met):
    """Destinations until they are translated, sources from when they are translated back on."""
    base = Base(ChainKey(Family.IP, "t", "c"), hook, priority)
    test = NumberTest(field, ((VIRTUAL, VIRTUAL),))
    rule = (test, Kind.LIMIT, Verdict(Code.DROP))
    found = findings([base], lambda _: (rule,), VIEW)
    assert [finding.is_translated for finding in found] == [True] * is_met


def test_a_second_walk_reads_nothing_anew():
    """Both walks ask for the same chains, each of which its reader has read once."""
    base = Base(ChainKey(Family.IP, "raw", "PREROUTING"), Hook.PREROUTING, -300)
    other = Base(ChainKey(Family.IP, "nat", "PREROUTING"), Hook.PREROUTING, -100, is_nat=True)
    chains = {"PREROUTING": ((Verdict(Code.JUMP, "deep"),),), "deep": ()}
    asked = set()
    findings([base, other], lambda key: asked.add(key) or chains[key.chain], VIEW)
    assert {(key.table, key.chain) for key in asked} == {("raw", "PREROUTING"), ("raw", "deep")}
