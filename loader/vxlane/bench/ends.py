# SPDX-License-Identifier: Apache-2.0
"""An end of a path: a place in which programs run and counters are read, whatever place it is."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vxlane.lab import namespaces, traffic


class End(Protocol):
    """A network namespace of this machine, or a host (`hosts.py`)."""

    @property
    def name(self) -> str:
        """As a person gives it."""

    @property
    def machine(self) -> str:
        """Ends of one machine share its CPUs. Empty: this one."""

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` there."""

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. LabError: it failed, unless `check` is off."""

    def serving(self, port: int, argv: Sequence[str]) -> AbstractContextManager[object]:
        """Run a server during the block, which begins when it listens on `port`."""

    def read(self, file: str) -> str:
        """The text of a file of /proc."""

    def arrived(self) -> int:
        """Packets or datagrams that have arrived; only the difference of two readings is of use."""

    def program(self, local: Path) -> str:
        """The path, at this end, of the program that is at `local` on this machine."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace of this machine."""

    name: str
    machine: str = ""

    def inside(self, argv: Sequence[str]) -> list[str]:
        """By nsenter."""
        return namespaces.inside(self.name, argv)

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return namespaces.run(self.name, *argv, check=check, timeout=timeout)

    def serving(self, port: int, argv: Sequence[str]) -> AbstractContextManager[object]:
        """Run a server."""
        return traffic.serving(self.name, port, *argv)

    def read(self, file: str) -> str:
        """The text of a file as it is for this network."""
        return self.run("cat", file).stdout

    def arrived(self) -> int:
        """Packets that have reached its interface."""
        return traffic.arrived_in(self.read("/proc/net/dev"))

    def program(self, local: Path) -> str:
        """The same file."""
        return str(local)


@dataclass(frozen=True, slots=True)
class Ends:
    """Two ends that talk, and the address of the second."""

    source: End
    target: End
    address: str

    @property
    def machines(self) -> list[End]:
        """An end on each machine, the client's first."""
        is_one = self.source.machine == self.target.machine
        return [self.source] if is_one else [self.source, self.target]


def in_namespaces(source: str, target: str, address: str) -> Ends:
    """Ends in two namespaces."""
    return Ends(Namespace(source), Namespace(target), address)
