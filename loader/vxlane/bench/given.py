# SPDX-License-Identifier: Apache-2.0
"""Ends that a person gives: CLIENT,SERVER,ADDRESS for each path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from vxlane.bench import environment, hosts, plan
from vxlane.bench.ends import End, Ends, Namespace
from vxlane.bench.hosts import Host
from vxlane.bench.model import Missing
from vxlane.bench.plan import Cell
from vxlane.errors import OptionError
from vxlane.lab import namespaces


@dataclass(frozen=True, slots=True)
class Names:
    """One path's ends, as they were given."""

    client: str
    server: str
    address: str

    @property
    def hosts(self) -> list[str]:
        """Those that are hosts."""
        return [name for name in (self.client, self.server) if name.startswith(hosts.PREFIX)]

    @property
    def are_hosts(self) -> bool:
        """Whether both are."""
        return self.hosts == [self.client, self.server]


def parse(text: str) -> Names:
    """Read CLIENT,SERVER,ADDRESS. OptionError: it is none, or a namespace is not there."""
    words = text.split(",")
    try:
        client, server, address = words
        IPv4Address(address)
    except ValueError:
        raise OptionError(
            f'"{text}" is not CLIENT,SERVER,ADDRESS: two network namespaces, or hosts as'
            " ssh:[USER@]HOST, and an IPv4 address"
        ) from None
    names = Names(client, server, address)
    for name in (client, server):
        if name not in names.hosts and name not in namespaces.existing():
            raise OptionError(f'there is no network namespace "{name}"; see: ip netns list')
    return names


@contextlib.contextmanager
def reached(given: Mapping[str, Names], talk: Path) -> Iterator[dict[str, Ends]]:
    """The ends of each path within the block, with what its hosts need. Each host is reached once.

    OptionError or ToolError: one can't be reached, or talk does not run there.
    """
    ends: dict[str, End] = {}
    with contextlib.ExitStack() as stack:
        for names in given.values():
            for name in (names.client, names.server):
                if name not in names.hosts:
                    ends[name] = Namespace(name)
                elif name not in ends:
                    ends[name] = stack.enter_context(hosts.reached(name, talk, talk.parent))
        yield {
            path: Ends(ends[names.client], ends[names.server], names.address)
            for path, names in given.items()
        }


def described(ends: Mapping[str, Ends]) -> dict[str, str]:
    """Each path's ends, for people."""
    return {
        f"ends of {path}": " and ".join(map(_described, (two.source, two.target)))
        for path, two in ends.items()
    }


def _described(end: End) -> str:
    kernel = f", Linux {end.kernel}" if isinstance(end, Host) else ""
    return f"{end.name}{kernel}, TCP by {end.read(environment.CONGESTION_CONTROL).strip()}"


def possible(cells: Sequence[Cell], ends: Mapping[str, Ends]) -> tuple[list[Cell], list[Missing]]:
    """The cells that hosts among these ends can measure, and what they lack for the others."""
    both = [end for two in ends.values() for end in (two.source, two.target)]
    reached = [end for end in both if isinstance(end, Host)]
    lacking = [end.name for end in reached if "iperf3" not in end.tools]
    missing = []
    if lacking:
        why = f"iperf3 is not installed on {' and '.join(dict.fromkeys(lacking))}"
        missing += [Missing(work, why) for work in plan.WITH_IPERF3]
    if reached:
        why = "it needs files of its own at the server's end, and nothing but talk is put on a host"
        missing += [Missing(work, why) for work in plan.WITH_FILES]
    names = {one.what for one in missing}
    asked = {cell.work for cell in cells}
    kept = [cell for cell in cells if cell.work not in names]
    return kept, [one for one in missing if one.what in asked]
