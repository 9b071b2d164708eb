# SPDX-License-Identifier: Apache-2.0
"""Which rules may drop a packet of an established connection: real ones, read back from the kernel.

Where there are such, the ACK of a handshake must come out of netfilter: its SYN may have been let
through.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from reading import may_drop, sh

RULESETS = sorted((Path(__file__).parent / "rulesets").iterdir())
FLANNEL = Path(__file__).parent / "rulesets" / "flannel.iptables"
A_TO_B = "ip saddr 10.42.1.5 ip daddr 10.42.2.5"
FOLLOWS = "ct state established,related accept"
TABLE = """\
table inet t {{
	chain c {{
		type filter hook {hook} priority 0; policy {policy}; {rule}
	}}
}}
"""

DROPS = (
    ("accept", f"{A_TO_B} ct state established drop"),
    ("accept", f"{A_TO_B} ct state new accept; {A_TO_B} drop"),
    ("accept", f"{A_TO_B} ct direction original ct state established drop"),
    ("accept", f"{A_TO_B} tcp flags & syn == 0 drop"),
    ("accept", f"ct state related accept; {A_TO_B} drop"),
    ("drop", f"{A_TO_B} ct state new accept; ip saddr 10.42.2.5 {FOLLOWS}"),
    ("accept", "ct state vmap { new : accept, established : drop }"),
    ("accept", "meta mark 7 drop"),
)
PASS = (
    ("accept", ""),
    ("accept", "ct state invalid drop; ct state new tcp dport 22 drop"),
    ("drop", f"{FOLLOWS}; {A_TO_B} ct state new accept"),
    ("accept", f"{FOLLOWS}; {A_TO_B} drop"),
    ("accept", "ct state vmap { established : accept, invalid : drop }; drop"),
    ("accept", "ip saddr 172.17.0.0/16 drop; iifname docker0 drop"),
    ("drop", "ip saddr 10.42.0.0/16 accept"),
)


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("hook", ["prerouting", "forward", "postrouting"])
@pytest.mark.parametrize(
    ("policy", "rule", "drops"),
    [*((*one, True) for one in DROPS), *((*one, False) for one in PASS)],
)
def test_rules(hook: str, policy: str, rule: str, drops: bool) -> None:  # noqa: FBT001
    """A drop counts that such a packet may come to, and so does a policy."""
    sh("nft", "-f", "-", stdin=TABLE.format(hook=hook, policy=policy, rule=rule))
    assert may_drop() is drops


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(
    ("family", "hook", "priority", "drops"),
    [
        ("inet", "prerouting", -201, False),
        ("inet", "prerouting", -200, True),
        ("bridge", "prerouting", -300, False),
        ("bridge", "output", -300, True),
    ],
)
def test_before_conntrack(family: str, hook: str, priority: int, drops: bool) -> None:  # noqa: FBT001
    """Nobody knows a state there. Which comes first of a chain with conntrack's own priority and
    conntrack depends on which came last. What a bridge sends has a state from FORWARD.
    """
    chain = f"type filter hook {hook} priority {priority}; {A_TO_B} drop"
    sh("nft", "-f", "-", stdin=f"table {family} t {{\nchain c {{\n{chain}\n}}\n}}\n")
    assert may_drop() is drops


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
@pytest.mark.parametrize("policy", ["ACCEPT", "DROP"])
def test_a_policy_of_iptables(tool: str, policy: str) -> None:
    """Without a rule for ESTABLISHED the policy is what an ACK comes to."""
    sh(tool, "-w", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
    sh(tool, "-w", "-P", "FORWARD", policy)
    assert may_drop() is (policy == "DROP")


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("ruleset", RULESETS, ids=lambda path: path.name)
def test_what_people_run_drops_none(ruleset: Path) -> None:
    """Beside flannel's rules, those of kube-proxy, kube-router, Docker, firewalld and ufw let each
    one through. Docker's policy alone would drop it.
    """
    load(ruleset)
    load(FLANNEL)
    assert not may_drop()


def load(ruleset: Path) -> None:
    """Put a set of rules beside those that are there."""
    tool = ["nft", "-f", "-"] if ruleset.suffix == ".nft" else ["iptables-restore", "--noflush"]
    sh(*tool, stdin=ruleset.read_text())
