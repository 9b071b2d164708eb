# SPDX-License-Identifier: Apache-2.0
"""The iptables rules of flannel 0.28, in its order (pkg/trafficmngr/iptables)."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass
from ipaddress import IPv4Network


@dataclass(frozen=True)
class Rule:
    """One rule; `chain` may be a built-in one that jumps to flannel's."""

    table: str
    chain: str
    spec: tuple[str, ...]


def masq_rules(network: IPv4Network, subnet: IPv4Network) -> list[Rule]:
    """What --ip-masq makes (masqRules)."""
    comment = ("-m", "comment", "--comment", "flanneld masq", "-j")
    net, pods, chain = str(network), str(subnet), "FLANNEL-POSTRTG"
    masquerade = ("MASQUERADE", "--random-fully")
    return [
        Rule("nat", "POSTROUTING", (*comment, chain)),
        Rule("nat", chain, ("-m", "mark", "--mark", "0x4000/0x4000", *comment, "RETURN")),
        Rule("nat", chain, ("-s", pods, "-d", net, *comment, "RETURN")),
        Rule("nat", chain, ("-s", net, "-d", pods, *comment, "RETURN")),
        Rule("nat", chain, ("!", "-s", net, "-d", pods, *comment, "RETURN")),
        Rule("nat", chain, ("-s", net, "!", "-d", "224.0.0.0/4", *comment, *masquerade)),
        Rule("nat", chain, ("!", "-s", net, "-d", net, *comment, *masquerade)),
    ]


def forward_rules(network: IPv4Network) -> list[Rule]:
    """What --iptables-forward-rules makes (forwardRules)."""
    comment = ("-m", "comment", "--comment", "flanneld forward", "-j")
    return [
        Rule("filter", "FORWARD", (*comment, "FLANNEL-FWD")),
        Rule("filter", "FLANNEL-FWD", ("-s", str(network), *comment, "ACCEPT")),
        Rule("filter", "FLANNEL-FWD", ("-d", str(network), *comment, "ACCEPT")),
    ]


def recycle(old: list[Rule]) -> None:
    """Take the rules of a network or subnet that is no longer ours (teardownIPTables)."""
    _restore("nat", [f"-D {_line(rule)}" for rule in old if _exists(rule)])


def setup(rules: list[Rule], *, resync: float) -> None:
    """Empty the chain, write all rules, and see to it for ever that they are there."""
    table, chain = rules[-1].table, rules[-1].chain
    # ClearChain: the chain is empty until the rules are written.
    if _run("iptables", "--wait", "-t", table, "-N", chain).returncode:
        _run("iptables", "--wait", "-t", table, "-F", chain)
    _bootstrap(rules)
    threading.Thread(target=_ensure, args=(rules, resync), daemon=True).start()


def clean_nftables() -> None:
    """What the other traffic manager left (trafficmngr/nftables CleanUp)."""
    for family, table in ("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6"):
        _run("nft", "delete", "table", family, table)


def _ensure(rules: list[Rule], resync: float) -> None:
    while True:
        threading.Event().wait(resync)
        if not all(map(_exists, rules)):
            _bootstrap(rules)


def _bootstrap(rules: list[Rule]) -> None:
    """Each rule that is there goes, and comes again at the end: the order is right then."""
    table, chain = rules[-1].table, rules[-1].chain
    _run("iptables", "--wait", "-t", table, "-N", chain)
    lines = []
    for rule in rules:
        if _exists(rule):
            lines.append(f"-D {_line(rule)}")
        lines.append(f"-A {_line(rule)}")
    _restore(table, lines)


def _exists(rule: Rule) -> bool:
    command = ["iptables", "--wait", "-t", rule.table, "-C", rule.chain, *rule.spec]
    return _run(*command).returncode == 0


def _restore(table: str, lines: list[str]) -> None:
    script = "\n".join([f"*{table}", *lines, "COMMIT", ""])
    subprocess.run(["iptables-restore", "--noflush", "--wait"], input=script, text=True, check=True)


def _line(rule: Rule) -> str:
    spec = (f'"{word}"' if " " in word else word for word in rule.spec)
    return f"{rule.chain} {' '.join(spec)}"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
