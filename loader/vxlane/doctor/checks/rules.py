# SPDX-License-Identifier: Apache-2.0
"""Netfilter's rules, and who writes them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding, ok, warn

_SECOND = 1_000_000_000
_SHORT = 10 * _SECOND
_ENGINES = {
    "calico": (("cali-",), ("cali_",)),
    "cilium": (("CILIUM_",), ("cil_", "tail_handle")),
    "kube-router": (("KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-"), ()),
}
"""Policy engine -> how its chains, and how its programs' names begin."""
_TOLD_APART = frozenset({"shaper", "tc", "xdp", "flowtable"})
"""Mechanisms that have checks of their own."""


def readable(facts: Facts) -> Iterator[Finding]:
    """All rules could be read."""
    if facts.rules.error:
        meaning = "what the rules do to pods' packets is not known"
        yield warn("rules", facts.rules.error, meaning, "nft list ruleset")


def silent(facts: Facts) -> Iterator[Finding]:
    """The kernel announces each change of a rule, or approvals are short enough."""
    found = {table: count for table, count in facts.rules.legacy.items() if count}
    for table, count in found.items():
        meaning = (
            "the kernel announces no changes of them, so the agent compares them once a second;"
            " until then a flow that they forbid may be bypassed; move them to nftables"
        )
        yield warn(
            "silent-rules",
            f"{count} rules of iptables-legacy in table {table}",
            meaning,
            f"iptables-legacy-save -t {table} | iptables-nft-restore --noflush",
            f"iptables-legacy -w -t {table} -F",
        )
    settings = facts.agent.settings
    is_short = settings is not None and 0 < settings.revalidate <= _SHORT
    if facts.rules.sets and not is_short:
        meaning = (
            "the kernel announces no changes of a set: a flow that one forbids is bypassed for up"
            " to --revalidate more seconds; give the agent a shorter one"
        )
        says = f"rules use ipset {', '.join(facts.rules.sets)}"
        yield warn("silent-rules", says, meaning, "vxlane agent --revalidate 10")
    elif not found:
        yield ok("silent-rules", "the kernel announces each change of a rule")


def flowtables(facts: Facts) -> Iterator[Finding]:
    """No flowtable hides connections from conntrack."""
    for name in facts.rules.flowtables:
        meaning = (
            "it is a bypass of its own with timers of its own: flows that its rules concern are"
            " left to the kernel path"
        )
        yield warn("flowtables", f"flowtable {name}", meaning, f"nft delete flowtable {name}")
    if not facts.rules.flowtables:
        yield ok("flowtables", "none")


def engines(facts: Facts) -> Iterator[Finding]:
    """Which policy engine there is, and whether it judges each packet by a program."""
    found: list[str] = []
    for engine, (chains, programs) in _ENGINES.items():
        names = [p.name for link in facts.links.all for p in link.programs]
        seen = [name for name in names if programs and name.startswith(programs)]
        has_devices = engine == "cilium" and any(n.startswith("cilium_") for n in facts.links.names)
        if seen or has_devices:
            meaning = (
                "it judges each packet in programs that bypassed packets don't meet; packets of"
                " these pods are left to the kernel path, so vxlane speeds nothing up here"
            )
            says = f"{engine} with eBPF ({', '.join(sorted(set(seen))) or 'by its devices'})"
            yield warn("policy-engine", says, meaning, "vxlane detach")
            return
        if any(chain.startswith(chains) for chain in facts.rules.chains):
            found.append(engine)
    says = f"{', '.join(found)} in netfilter, which vxlane heeds" if found else "none"
    yield ok("policy-engine", says)


def mechanisms(facts: Facts) -> Iterator[Finding]:
    """No rule acts on every packet, as far as the agent has found."""
    status = facts.agent.status
    if "mechanisms" not in status:
        return
    found = [
        each
        for each in status["mechanisms"]
        if each["kind"] not in _TOLD_APART and not each["ignored"]
    ]
    for each in found:
        whose = "flows of Services" if each["flows"] == "translated" else f"pods: {each['pods']}"
        meaning = f"these packets are left to the kernel path ({whose}); see docs/mechanisms.md"
        fix = f"vxlane agent --ignore-mechanism {each['kind']}    # or take the rule away"
        yield warn("mechanisms", f"{each['meaning']} in {each['where']}", meaning, fix)
    if not found:
        yield ok("mechanisms", "no rule acts on every packet")
