# SPDX-License-Identifier: Apache-2.0
"""Rules, whoever's: what they test, what they do, where they lead. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import Field, Test


class Code(enum.Enum):
    """What becomes of a packet that a rule fits."""

    ACCEPT = enum.auto()
    """No later rule of this base chain sees it."""
    DROP = enum.auto()
    """Dropped or refused: neither does one."""
    RETURN = enum.auto()
    JUMP = enum.auto()
    GOTO = enum.auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule's end."""

    code: Code
    chain: str = ""
    """For JUMP and GOTO."""


class Unknown(enum.Enum):
    """A test that fits some packets, as far as we know."""

    TEST = enum.auto()
    CONNECTION = enum.auto()
    """Of conntrack's entry, which an untracked packet does not have."""
    MARKED = enum.auto()
    """For a mark that rules put on packets; an unmarked one does not fit."""


class Action(enum.Enum):
    """What a rule does that is no mechanism, for it concerns a connection's first packet."""

    TRANSLATE = enum.auto()
    """NAT."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A verdict map: what each test leads to, None where the test is not known."""

    branches: tuple[tuple[Test | None, Verdict], ...]


Step = Test | Field | Unknown | Action | Kind | Choice | Verdict
"""A bare Field is a test of it that is not decoded, and fits some packets as far as we know."""
Rule = tuple[Step, ...]
"""In the order in which the kernel takes them: the first test that does not fit ends it."""


class Family(enum.IntEnum):
    """NFPROTO_* of tables whose chains packets of pods meet."""

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
    """Names one chain."""

    family: Family
    table: str
    chain: str
    is_legacy: bool = False
    """Of iptables-legacy, whose tables have the same names as those of iptables-nft."""

    def __str__(self) -> str:
        tool = "iptables-legacy" if self.is_legacy else "nft"
        return f"{tool} {self.family.name.lower()} {self.table} {self.chain}"


@dataclass(frozen=True, slots=True)
class Base:
    """A chain that the kernel calls."""

    key: ChainKey
    hook: int
    """Of NETDEV NF_NETDEV_*, of others `Hook`."""
    priority: int
    """Of the chains of one hook those with lower ones come first."""
    is_nat: bool = False
    """Sees a connection's first packet only."""
    drops: bool = False
    """Its policy: what comes to its end is dropped."""
    devices: frozenset[str] = frozenset()
    """Of a chain of devices."""
