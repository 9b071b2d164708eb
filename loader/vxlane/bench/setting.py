# SPDX-License-Identifier: Apache-2.0
"""One measurement's surroundings, and how its programs are run: where, and on which CPU."""

from __future__ import annotations

import itertools
import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from vxlane.bench.ends import Ends

PORTS = 16
"""Of a server that is called anew for each request; see talk.c."""
_PORTS = itertools.cycle(range(10000, 30000, PORTS))
"""New ones for each measurement: a flow that is known, or in TIME_WAIT, costs something else."""
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Who talks, for how many seconds, and on which CPUs."""

    ends: Ends
    cpus: tuple[int, int] | None
    """The client's and the server's. None: their machines place them."""
    seconds: float
    talk: Path
    """The compiled program."""
    beside: Ends | None = None
    """Another pod of each of the two nodes."""
    congestion: str | None = None
    """The congestion control of TCP throughput. None: the ends' own."""

    def client(self, *argv: str) -> list[str]:
        """The command line of a client."""
        return [*self._on_cpu(0), *argv]

    def server(self, *argv: str) -> list[str]:
        """The command line of a server."""
        return [*self._on_cpu(1), *argv]

    def _on_cpu(self, side: int) -> list[str]:
        return ["taskset", "-c", str(self.cpus[side])] if self.cpus else []

    def talk_client(self, *argv: str) -> list[str]:
        """The command line of talk at the client's end."""
        return self.client(self.ends.source.program(self.talk), *argv)

    def talk_server(self, *argv: str) -> list[str]:
        """The command line of talk at the server's end."""
        return self.server(self.ends.target.program(self.talk), *argv)

    def run(self, argv: list[str]) -> str:
        """Run a client to its end; what it printed. LabError: it failed."""
        return self.ends.source.run(*argv, timeout=self.seconds + _PATIENCE).stdout

    def serving(self, port: int, argv: list[str]) -> AbstractContextManager[object]:
        """Run a server during the block, which begins when it listens on `port`."""
        return self.ends.target.serving(port, argv)

    def shown(self, *commands: list[str]) -> tuple[str, ...]:
        """Command lines as one would type them, server first."""
        places = (self.ends.target, self.ends.source)
        return tuple(
            shlex.join(place.inside(command))
            for place, command in zip(places, commands, strict=True)
        )


def new_port() -> int:
    """The first of PORTS ports in a row that no recent measurement had."""
    return next(_PORTS)
