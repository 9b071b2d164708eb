# SPDX-License-Identifier: Apache-2.0
"""Which rules need conntrack to see the tunnel's packets: real ones, read back from the kernel."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from reading import hindering, sh

RULESETS = Path(__file__).parent / "rulesets"
TABLE = """\
table inet t {{
	set states {{
		type ct_state;
	}}
	set pairs {{
		type inet_service . ct_state;
	}}
	set seen {{
		type ipv4_addr; flags dynamic;
	}}
	chain opened {{
		accept
	}}
	chain logged {{
		log
	}}
	chain c {{
		type filter hook {hook} priority 0; policy {policy}; {rule}
	}}
}}
"""
HOOKS = ("input", "output")

NEED_NOT = (
    ("drop", "ct state { new, untracked } udp dport 8472 accept"),
    ("drop", "ct state established,related accept; udp dport 8472 accept; ct state new drop"),
    ("drop", "ct state new tcp dport 22 accept; udp dport 8472 accept"),
    ("drop", "ct state vmap { established : accept, invalid : drop }; udp dport 8472 accept"),
    ("drop", "ct status dnat accept; jump opened"),
    ("drop", "ct state != established drop"),
    ("drop", "udp dport 8472 accept; ct state new accept"),
    ("accept", "udp dport 53 ct state new accept"),
    ("accept", "ct state new jump logged; ct state invalid drop"),
    ("accept", "ct mark 1 accept"),
    ("drop", "meta mark 1 drop; ip saddr 10.0.0.0/8 drop; udp dport 8472 accept"),
)
NEED = (
    ("accept", "udp dport 8472 ct state new accept"),
    ("accept", "ct state new udp dport 8472 drop"),
    ("drop", "udp dport 8472 ct state new accept"),
    ("drop", "ct state new accept"),
    ("drop", "ct state new jump opened"),
    ("drop", "ct state vmap { new : accept, established : accept }"),
    ("drop", "ct state != untracked accept"),
    ("accept", "udp dport 8472 ct state new accept; udp dport 8472 drop"),
    ("accept", "ct state { invalid, untracked } drop"),
    ("accept", "ct state new accept; meta mark 1 drop"),
    ("drop", "ct status dnat accept"),
    ("drop", "ct mark 1 accept"),
    ("drop", "ct direction original accept"),
    ("drop", "ct zone 1 accept"),
    ("accept", "ct state new meta mark set 1"),
    ("accept", "meta mark set ct mark"),
    ("drop", "udp dport . ct state { 8472 . new } accept"),
    ("drop", "ct state . udp dport { new . 8472 } accept"),
    ("drop", "udp dport . ct state vmap { 8472 . new : accept }"),
    ("drop", "ct state @states accept"),
    ("drop", "udp dport . ct state @pairs accept"),
    ("drop", "ct state new add @seen { ip saddr }; ip saddr @seen accept"),
)


def of_nft(rulesets):
    """What is found in each, in the chains of either hook."""
    seen = {}
    for policy, rule in rulesets:
        for hook in HOOKS:
            sh("nft", "-f", "-", stdin=TABLE.format(hook=hook, policy=policy, rule=rule))
            seen[policy, rule, hook] = hindering()
            sh("nft", "delete", "table", "inet", "t")
    return seen


def test_no_sane_rule_needs_it(netns):
    """Rules that accept or drop new and untracked packets alike, or neither, make no difference."""
    assert netns
    assert {rule: chains for rule, chains in of_nft(NEED_NOT).items() if chains} == {}


def test_what_tells_new_from_untracked_needs_it(netns):
    """Where an untracked packet may be dropped, each test of conntrack's state or entry counts."""
    assert netns
    seen = of_nft(NEED)
    assert {rule: chains for rule, chains in seen.items() if chains != {"nft inet t c"}} == {}


IPTABLES = {
    "-A INPUT -p udp --dport 8472 -m conntrack --ctstate NEW -j ACCEPT; -P INPUT DROP": (
        "filter INPUT"
    ),
    "-A INPUT -p udp --dport 8472 -m state --state NEW -j ACCEPT; -A INPUT -j REJECT": (
        "filter INPUT"
    ),
    "-A OUTPUT -m conntrack --ctstate NEW -j ACCEPT; -P OUTPUT DROP": "filter OUTPUT",
    "-A INPUT -m connmark --mark 1 -j DROP": "filter INPUT",
    "-A INPUT -p udp -m connlimit --connlimit-above 5 -j DROP": "filter INPUT",
    "-A INPUT -m conntrack --ctstate NEW --ctproto udp -j ACCEPT; -P INPUT DROP": "filter INPUT",
    "-t mangle -A PREROUTING -j CONNMARK --restore-mark": "mangle PREROUTING",
    "-t nat -A POSTROUTING -o eth0 -j MASQUERADE": "nat POSTROUTING",
    "-t nat -A OUTPUT -d 192.168.7.2 -j DNAT --to 192.168.9.2": "nat OUTPUT",
    "-t nat -A PREROUTING -p udp --dport 8472 -j REDIRECT --to-ports 4789": "nat PREROUTING",
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; -A INPUT -p udp --dport 8472 "
    "-j ACCEPT; -P INPUT DROP": "",
    "-A OUTPUT -p udp -m conntrack --ctstate NEW -j ACCEPT": "",
    "-N KUBE; -A KUBE ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate "
    "RELATED,ESTABLISHED,DNAT -j DROP; -A INPUT -j KUBE; -A INPUT -m conntrack --ctstate NEW "
    "-j KUBE": "",
    "-t nat -A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE": "",
    "-t nat -A POSTROUTING -m mark --mark 0x2000/0x2000 -j MASQUERADE": "",
    "-t nat -A POSTROUTING -m mark ! --mark 0x2000/0x2000 -j MASQUERADE": "nat POSTROUTING",
    "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE": "",
}
BACK = ("-P INPUT ACCEPT", "-P OUTPUT ACCEPT", "-F", "-X", "-t mangle -F", "-t nat -F")


def test_rules_of_iptables(netns):
    """The same in iptables' form; what translates the tunnel's packets needs conntrack too."""
    assert netns
    seen = {}
    for rules in IPTABLES:
        for rule in rules.split("; "):
            sh("iptables-nft", *shlex.split(rule))
        seen[rules] = hindering()
        for rule in BACK:
            sh("iptables-nft", *shlex.split(rule))
    expected = {rules: {f"nft ip {where}"} if where else set() for rules, where in IPTABLES.items()}
    assert seen == expected


@pytest.mark.parametrize("name", sorted(path.name for path in RULESETS.iterdir()))
def test_usual_rules_do_not_need_it(netns, name):
    """What other programs write on every node makes no difference to untracked packets."""
    assert netns
    tool = ("nft", "-f", "-") if name.endswith(".nft") else ("iptables-nft-restore",)
    sh(*tool, stdin=(RULESETS / name).read_text())
    assert hindering() == set()
