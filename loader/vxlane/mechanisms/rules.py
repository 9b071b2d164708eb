# SPDX-License-Identifier: Apache-2.0
"""Rules of nftables and iptables in one form: tests, actions and verdicts. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import Field, Test


class Code(enum.Enum):
    """What a verdict does to a packet."""

    ACCEPT = enum.auto()
    """No later rule of this base chain sees it."""
    DROP = enum.auto()
    """Dropped or rejected. No later rule sees it at all."""
    RETURN = enum.auto()
    JUMP = enum.auto()
    GOTO = enum.auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule does with the packets that it fits."""

    code: Code
    chain: str = ""
    """For JUMP and GOTO."""


class Unknown(enum.Enum):
    """A test that is not decoded. It may fit some packets."""

    TEST = enum.auto()
    CONNECTION = enum.auto()
    """A test of conntrack's entry. An untracked packet has none."""
    MARKED = enum.auto()
    """A test for a mark that other rules set. A packet without a mark does not fit."""


class Action(enum.Enum):
    """What a rule does that is not a mechanism, because it acts on a connection's first packet."""

    TRANSLATE = enum.auto()
    """NAT."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A verdict map: the verdict of each test. None: the test is not decoded."""

    branches: tuple[tuple[Test | None, Verdict], ...]


Step = Test | Field | Unknown | Action | Kind | Choice | Verdict
"""A bare Field is a test of that field that is not decoded. It may fit some packets."""
Rule = tuple[Step, ...]
"""In the kernel's order. The first test that does not fit ends the rule."""


class Family(enum.IntEnum):
    """NFPROTO_* of the tables whose chains may see packets of pods."""

    INET = 1
    IP = 2
    NETDEV = 5
    BRIDGE = 7


class Hook(enum.IntEnum):
    """NF_INET_* and, with the same numbers, NF_BR_*."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4
    INGRESS = 5


@dataclass(frozen=True, slots=True)
class ChainKey:
    """The name of one chain."""

    family: Family
    table: str
    chain: str
    is_legacy: bool = False
    """iptables-legacy's tables have the same names as those of iptables-nft."""

    def __str__(self) -> str:
        tool = "iptables-legacy" if self.is_legacy else "nft"
        return f"{tool} {self.family.name.lower()} {self.table} {self.chain}"


@dataclass(frozen=True, slots=True)
class Base:
    """A base chain: one that the kernel calls."""

    key: ChainKey
    hook: int
    """NF_NETDEV_* in family NETDEV, a `Hook` in all others."""
    priority: int
    """Chains of one hook are called in ascending order of priority."""
    is_nat: bool = False
    """Whether it sees only a connection's first packet."""
    drops: bool = False
    """Whether its policy is to drop what reaches its end."""
    devices: frozenset[str] = frozenset()
    """The devices it is attached to, if it is a chain of devices; prefixes if they end in *."""
