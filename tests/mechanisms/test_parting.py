# SPDX-License-Identifier: Apache-2.0
"""Which rules let a SYN or a SYN-ACK pass by TCP's flags and drop what follows: real ones.

tests/netfilter/test_what_follows_a_syn.py shows what becomes of connections beside such rules.
"""

from __future__ import annotations

import shlex
from ipaddress import IPv4Address

import pytest
from reading import VIEW, found, kinds, may_drop, sh

from vxlane.mechanisms.concern import Judged, judged

TABLE = """\
table {family} t {{
	chain accepts {{ accept; }}
	chain drops {{ drop; }}
	chain nothing {{ }}
	chain tells {{ tcp flags & syn == syn return; drop; }}
	chain agrees {{ tcp flags & syn == syn return; }}
	chain admits {{ tcp flags & syn == 0 return; accept; }}
	chain returns {{ tcp flags & syn == 0 return; ip saddr 10.42.1.5 drop; }}
	chain c {{
		type filter hook {hook} priority {priority}; policy {policy}; {rules}
	}}
}}
"""
A_TO_B = "ip saddr 10.42.1.5 ip daddr 10.42.2.5"
PLACES = [
    ("ip", "prerouting", -300),
    ("inet", "prerouting", -201),
    ("ip", "prerouting", -150),
    ("inet", "forward", 0),
    ("ip", "postrouting", 300),
    ("bridge", "prerouting", -300),
]
PARTS = (
    # One rule with a verdict map.
    "tcp flags & syn != syn ip daddr vmap { 10.42.1.5 : drop }",
    "tcp flags & syn == 0 tcp dport vmap { 80 : accept, 81 : drop }",
    "tcp flags & (syn | ack) == ack ip saddr vmap { 10.42.1.0/24 : jump drops }",
    "tcp flags & (syn | rst) vmap { 0 : drop, syn : accept }",
    "tcp flags & syn vmap { 0x0 : drop }",
    "tcp flags & (syn | ack) vmap { ack : goto drops }",
    # A rule that lets one pass, and a drop behind it.
    "tcp flags & syn == syn accept; drop",
    "tcp flags syn accept; drop",
    f"{A_TO_B} tcp flags & syn == syn accept; {A_TO_B} drop",
    f"tcp flags & syn == syn {A_TO_B} accept; {A_TO_B} reject",
    "tcp flags { syn, syn | ack } accept; tcp dport 80 drop",
    "tcp flags & (syn | rst) == syn limit rate 9/second accept; meta l4proto tcp drop",
    "tcp flags & syn vmap { syn : accept }; drop",
    "tcp flags & syn == syn tcp dport vmap { 80 : accept }; drop",
    "tcp flags & syn == syn return; drop",
    "tcp flags & syn == syn accept; ip saddr vmap { 10.42.1.5 : drop }",
    # The same in chains that are jumped to.
    "jump tells",
    "tcp dport 80 jump tells",
    "jump admits; drop",
    "tcp flags & syn == syn jump accepts; drop",
    "tcp flags & syn == syn goto nothing; jump drops",
    "tcp dport 80 jump drops; tcp flags & syn == syn accept; tcp dport 81 jump drops",
)
DO_NOT = (
    "tcp flags & syn == syn accept",
    "drop",
    "tcp flags & syn == syn drop; ip saddr 10.42.1.5 drop",
    "tcp flags & syn == syn counter; drop",
    "tcp flags & syn == syn tcp option maxseg size set 1400; drop",
    "tcp flags & (fin | syn) == fin | syn accept; drop",
    "tcp flags & (syn | rst) vmap { 0 : accept, syn : drop }",
    "tcp flags & syn vmap { 0x0 : accept }; drop",
    "tcp flags & syn == syn ip saddr 127.0.0.0/8 accept; drop",
    "ip saddr 127.0.0.0/8 tcp flags & syn == syn accept; drop",
    "tcp flags & syn == syn accept; meta l4proto udp drop",
    "tcp flags & syn == syn accept; ip saddr 127.0.0.0/8 drop",
    "tcp flags & syn == syn accept; accept; drop",
    "tcp flags & syn == syn jump nothing; drop",
    "tcp flags & syn == syn jump returns; drop",
    "tcp flags & syn == syn goto drops; drop",
    "jump agrees; drop",
    "jump returns; ip saddr 10.42.1.5 drop",
)
SYN_ALONE = "tcp flags & (fin | syn | rst | ack) == syn accept; drop"
REJECTS = {"forward"}
"""Hooks that a kernel lets a rule reject in; of the others some do, by family."""


def table(family, hook, priority, rules, policy="accept"):
    """Put a chain of these rules."""
    if hook not in REJECTS:
        rules = rules.replace("reject", "drop")
    words = {"family": family, "hook": hook, "priority": priority, "policy": policy}
    sh("nft", "-f", "-", stdin=TABLE.format(rules=rules, **words))


def asked():
    """The kinds that are found, but for the limit that one rule has."""
    return kinds() - {"limit"}


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(("family", "hook", "priority"), PLACES)
def test_rules_of_nft(family, hook, priority):
    """Wherever packets of pods come, what their SYN and SYN-ACK pass and they do not is found."""
    seen = {}
    for rules in (*PARTS, *DO_NOT):
        table(family, hook, priority, rules)
        seen[rules] = asked()
        sh("nft", "delete", "table", family, "t")
    assert {rules for rules in PARTS if seen[rules] != {"header"}} == set()
    assert {rules for rules in DO_NOT if seen[rules]} == set()


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(("family", "hook", "priority"), PLACES)
def test_a_policy_is_a_drop(family, hook, priority):
    """A policy to drop is what all come to that no rule accepts."""
    for rules, expected in {
        "tcp flags & syn == syn accept": {"header"},
        "jump admits": {"header"},
        "tcp flags & syn == syn accept; meta l4proto { icmp, tcp, udp } accept": set(),
        "ip saddr 10.42.1.5 accept": set(),
    }.items():
        table(family, hook, priority, rules, policy="drop")
        assert kinds() == expected, rules
        sh("nft", "delete", "table", family, "t")


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(
    ("hook", "priority", "expected"),
    [("prerouting", -300, {"header"}), ("prerouting", -150, set()), ("forward", 0, set())],
)
def test_a_syn_without_ack(hook, priority, expected):
    """Behind conntrack it is as with a rule for NEW: the ACK behind the SYN is not bypassed."""
    table("ip", hook, priority, SYN_ALONE)
    assert kinds() == expected
    assert expected or may_drop()


@pytest.mark.usefixtures("netns")
def test_it_concerns_whom_the_drop_is_about():
    """A drop of what one pod sends leaves all other pods on the bypass."""
    pods = {"veth5": (IPv4Address("10.42.1.5"),), "veth6": (IPv4Address("10.42.1.6"),)}
    table("ip", "prerouting", -300, "tcp flags & syn == syn accept; ip saddr 10.42.1.5 drop")
    assert judged(found(), pods, VIEW.local, frozenset()) == Judged(ports=frozenset({"veth5"}))


@pytest.mark.usefixtures("netns")
def test_what_only_translated_flows_meet():
    """A drop of what goes to a Service leaves all flows on the bypass but the translated ones."""
    of_service = "ip daddr 10.96.0.10"
    rules = f"{of_service} tcp flags & syn == syn accept; {of_service} drop"
    table("ip", "prerouting", -300, rules)
    assert judged(found(), {}, VIEW.local, frozenset()) == Judged(translated=True)


SYN = "-p tcp --tcp-flags SYN SYN"
CHAINS = ("PREROUTING -t raw", "FORWARD -t mangle", "FORWARD")
IPTABLES_PART = (
    ("{c} -p tcp --syn -j ACCEPT", f"{{c}} {SYN} -j ACCEPT", "{c} -j DROP"),
    (f"{{c}} {SYN} -m multiport --dports 80,443 -j ACCEPT", "{c} -p tcp -j DROP"),
    ("{c} -j own", f"own {SYN} -j RETURN", "own -j DROP"),
    (f"{{c}} {SYN} -j NFQUEUE", "{c} -j DROP"),
    (f"{{c}} {SYN} -j own", "own -m mark --mark 0 -j NFQUEUE", "{c} -j DROP"),
    (f"{{c}} {SYN} -g own", "{c} -d 10.42.2.5 -j DROP"),
    (f"{{c}} {SYN} -j own", "own -s 10.42.1.0/24 -j ACCEPT", "{c} -s 10.42.1.5 -j DROP"),
    ("{c} -j own", f"own -p tcp ! {SYN[7:]} -j RETURN", "own -j ACCEPT", "{c} -j DROP"),
)
IPTABLES_DO_NOT = (
    (f"{{c}} {SYN} -j own", "own -m limit --limit 9/s -j RETURN", "own -j DROP", "{c} -j DROP"),
    (f"{{c}} -i docker0 {SYN} -j ACCEPT", "{c} -j DROP"),
    (f"{{c}} {SYN} -m set --match-set s src -j DROP", "{c} -m set --match-set s src -j DROP"),
    (f"{{c}} {SYN}", "{c} -s 10.42.1.5 -j DROP"),
    ("{c} -j own", f"own {SYN} -j RETURN", "{c} -s 10.42.1.5 -j DROP"),
    (f"{{c}} {SYN} -j ACCEPT", "{c} -p udp -j DROP", "{c} -s 172.17.0.2 -j DROP"),
)


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("rules", [*IPTABLES_PART, *IPTABLES_DO_NOT])
def test_rules_of_iptables(tool, chain, rules):
    """So it is with either iptables, in each table."""
    table_ = ["-t", chain.split()[2]] if "-t" in chain else []
    sh("ipset", "create", "s", "hash:ip")
    sh(tool, *table_, "-N", "own")
    for rule in rules:
        sh(tool, *table_, "-A", *shlex.split(rule.format(c=chain.split()[0])))
    assert kinds() == ({"header"} if rules in IPTABLES_PART else set())
