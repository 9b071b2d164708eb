# SPDX-License-Identifier: Apache-2.0
"""flannel's masquerade and forward rules, independent of the tool that writes them."""

from __future__ import annotations

import enum
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Protocol

from vxlane.errors import ToolError, ToolTimeoutError
from vxlane.host.events import RulesetChange

_IP = 2  # NFPROTO_IPV4
KUBE_MARK = 0x4000
"""kube-proxy's mark for packets that its own rule masquerades, so that flannel's must not."""


TIMEOUT = 30.0
"""Seconds for one tool. nft and iptables-nft load all rules first: 1.6 s beside 3,000 Services."""


class Masquerade(enum.Enum):
    """What happens to packets from pods to the world outside."""

    OFF = "off"
    ON = "on"
    FULLY_RANDOM = "fully-random"
    """With a random source port, so that two connections do not race for one."""


class Forward(enum.Enum):
    """Whether pods' packets are accepted before a FORWARD policy of DROP."""

    OFF = "off"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one node."""

    network: IPv4Network
    """Of all pods."""
    pod_cidr: IPv4Network
    """Of this node's pods."""
    masquerade: Masquerade
    forward: Forward


class Firewall(Protocol):
    """A tool that writes the rules."""

    def ensure(self, policy: Policy) -> list[str]:
        """Make the rules as `policy` says. Returns a line for each change. ToolError: it failed.

        Rules are replaced in one step, so that they are never missing.
        """

    def remove(self) -> list[str]:
        """Remove all of flannel's rules. Returns a line for each change."""


_PARENTS = frozenset({(_IP, "nat", "POSTROUTING"), (_IP, "filter", "FORWARD")})


def is_about(change: RulesetChange) -> bool:
    """Whether flannel's rules, or the chains that lead to them, may have changed."""
    names = change.names
    return change.lost or not _PARENTS.isdisjoint(names) or any(_is_flannels(*n) for n in names)


def _is_flannels(family: int, table: str, name: str) -> bool:
    return family == _IP and (
        name.startswith("FLANNEL-") or table.startswith("flannel-") or not name
    )


def run(*command: str, script: str = "") -> str:
    """The output of a command. ToolError: it failed, with its own words, or it took too long."""
    try:
        # Others' comments may hold bytes of any encoding.
        process = subprocess.run(
            command,
            input=script,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        advice = "it was killed; is the machine overloaded, or another tool holding the lock?"
        what = f"{' '.join(command)}: no end after {TIMEOUT:g} s"
        raise ToolTimeoutError(f"{what}; {advice}") from None
    except FileNotFoundError:
        raise ToolError(f"{command[0]} is not installed; install it") from None
    if process.returncode:
        words = " ".join(process.stderr.split()) or f"exit status {process.returncode}"
        raise ToolError(f"{' '.join(command)}: {words}")
    return process.stdout
