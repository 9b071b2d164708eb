# SPDX-License-Identifier: Apache-2.0
"""flannel's masquerade and forward rules in iptables, as flannel v0.28 writes them.

A chain is replaced in one transaction of iptables-restore, so its rules are never missing. flannel
empties it first; a connection that starts at that moment is masqueraded wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vxlane.errors import ToolError, ToolTimeoutError
from vxlane.host.firewall import KUBE_MARK, Forward, Masquerade, Policy, run

_WAIT = "--wait=5"  # for the lock that kube-proxy and CNI plugins take too, seconds


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of flannel's and the built-in chain that jumps to it. Rules are as in iptables -S."""

    table: str
    name: str
    parent: str
    comment: str
    rules: tuple[str, ...] = ()

    @property
    def jump(self) -> str:
        """The rule of the parent."""
        return f'-A {self.parent} -m comment --comment "{self.comment}" -j {self.name}'

    def with_rules(self, *rules: tuple[str, str]) -> Chain:
        """The chain filled with rules of (match, target)."""
        comment = f'-m comment --comment "{self.comment}"'
        lines = tuple(f"-A {self.name} {match} {comment} -j {target}" for match, target in rules)
        return Chain(self.table, self.name, self.parent, self.comment, lines)


_POSTROUTING = Chain("nat", "FLANNEL-POSTRTG", "POSTROUTING", "flanneld masq")
_FORWARD = Chain("filter", "FLANNEL-FWD", "FORWARD", "flanneld forward")


def chains(policy: Policy) -> tuple[Chain, ...]:
    """Both chains as `policy` wants them; a chain without rules is to be removed."""
    return _postrouting(policy), _forward(policy)


def _postrouting(policy: Policy) -> Chain:
    if policy.masquerade is Masquerade.OFF:
        return _POSTROUTING
    network, pods = policy.network, policy.pod_cidr
    random = " --random-fully" if policy.masquerade is Masquerade.FULLY_RANDOM else ""
    return _POSTROUTING.with_rules(
        (f"-m mark --mark {KUBE_MARK:#x}/{KUBE_MARK:#x}", "RETURN"),
        (f"-s {pods} -d {network}", "RETURN"),
        (f"-s {network} -d {pods}", "RETURN"),
        (f"! -s {network} -d {pods}", "RETURN"),
        (f"-s {network} ! -d 224.0.0.0/4", f"MASQUERADE{random}"),
        (f"! -s {network} -d {network}", f"MASQUERADE{random}"),
    )


def _forward(policy: Policy) -> Chain:
    if policy.forward is Forward.OFF:
        return _FORWARD
    return _FORWARD.with_rules(
        (f"-s {policy.network}", "ACCEPT"), (f"-d {policy.network}", "ACCEPT")
    )


class Iptables:
    """Writes the rules with the iptables that the host has, nft or legacy."""

    def ensure(self, policy: Policy) -> list[str]:
        """See `Firewall`."""
        return [line for chain in chains(policy) for line in _ensure(chain)]

    def remove(self) -> list[str]:
        """See `Firewall`."""
        return [line for chain in (_POSTROUTING, _FORWARD) for line in _ensure(chain)]


def _ensure(chain: Chain) -> Iterator[str]:
    """Write one chain and its jump, or remove both if the chain has no rules."""
    present = _list(chain.table, chain.name)
    jumps = _list(chain.table, chain.parent).count(chain.jump)
    if not chain.rules:
        if present or jumps:
            _restore(chain.table, _unjump(chain, jumps), f":{chain.name} -", f"-X {chain.name}")
            yield f"remove iptables chain {chain.name} of table {chain.table}: not wanted"
        return
    lines = [f":{chain.name} -", *chain.rules]
    if jumps != 1:
        lines += [_unjump(chain, jumps), chain.jump]
    if jumps != 1 or present[1:] != list(chain.rules):
        _restore(chain.table, *lines)
        yield f"put iptables chain {chain.name} of table {chain.table}: {_reason(present, jumps)}"


def _reason(present: list[str], jumps: int) -> str:
    if not present:
        return "missing"
    return "its rules differed" if jumps == 1 else f"{jumps} jumps to it"


def _unjump(chain: Chain, times: int) -> str:
    return "\n".join([chain.jump.replace("-A", "-D", 1)] * times)


def _list(table: str, chain: str) -> list[str]:
    """The chain's own line and its rules; empty if it can't be listed.

    iptables' versions have three messages for a missing chain ("No chain", "does not exist", "is
    incompatible"). Any other cause shows when the rules are written.
    """
    try:
        return run("iptables", _WAIT, "-t", table, "-S", chain).splitlines()
    except ToolTimeoutError:
        raise
    except ToolError:
        return []


def _restore(table: str, *lines: str) -> None:
    script = "\n".join([f"*{table}", *filter(None, lines), "COMMIT", ""])
    run("iptables-restore", _WAIT, "--noflush", script=script)
