# SPDX-License-Identifier: Apache-2.0
"""One measurement's surroundings, and how its programs are run: where, and on which CPU."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vxlane.lab import namespaces, traffic
from vxlane.lab.traffic import Ends

_PORTS = itertools.cycle(range(10000, 30000))
"""A new one for each measurement: a flow that is known, or in TIME_WAIT, would be another work."""
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Who talks, for how many seconds, and on which CPUs."""

    ends: Ends
    cpus: tuple[int, int]
    """The client's and the server's."""
    seconds: float
    talk: Path
    """The compiled program."""
    beside: Ends | None = None
    """Another pod of each of the two nodes."""

    def client(self, *argv: str) -> list[str]:
        """The command line of a client."""
        return ["taskset", "-c", str(self.cpus[0]), *argv]

    def server(self, *argv: str) -> list[str]:
        """The command line of a server."""
        return ["taskset", "-c", str(self.cpus[1]), *argv]

    def run(self, argv: list[str]) -> str:
        """Run a client to its end; what it printed. LabError: it failed."""
        return namespaces.run(self.ends.source, *argv, timeout=self.seconds + _PATIENCE).stdout

    @contextlib.contextmanager
    def serving(self, port: int, argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server during the block, which begins when it listens on `port`."""
        with traffic.serving(self.ends, port, *argv) as process:
            yield process

    def shown(self, *commands: list[str]) -> tuple[str, ...]:
        """Command lines as one would type them, server first."""
        places = (self.ends.target, self.ends.source)
        return tuple(
            shlex.join(namespaces.inside(place, command))
            for place, command in zip(places, commands, strict=True)
        )


def new_port() -> int:
    """A port that no recent measurement had."""
    return next(_PORTS)
