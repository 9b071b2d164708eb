# SPDX-License-Identifier: Apache-2.0
"""The far end of `vxlane bench --between`: servers in two probe pods, and what these count.

`talk` and, where it is installed, iperf3 answer on fixed ports of both pods until the block ends.
The pod of the kernel path has one more port, which tells whoever connects what has arrived: the
sender can't know that. The other pod has none: questions to it would count as its packets.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vxlane.bench import live_paths
from vxlane.bench.live_paths import Pods
from vxlane.bench.plan import KERNEL
from vxlane.bench.setting import PORTS
from vxlane.bench.snmp import socket_drops
from vxlane.errors import VxlaneError
from vxlane.lab import traffic
from vxlane.runtime import netns
from vxlane.util.jsontext import parse_json

COUNTS, IPERF3 = 5200, 5201
"""Ports in the pods, where nothing else listens."""
TALK = range(5210, 5210 + 20 * PORTS)
"""Ports of talk. Each measurement takes the next PORTS. Behind thousands of connections in
TIME_WAIT the client's kernel would search long for a free port of its own."""

_PATIENCE = 3.0
"""Seconds for a connection and its one line."""
_LONGEST = 1000
"""Bytes of that line."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one pod of the far end has counted."""

    address: str
    is_accelerated: bool
    """Whether the programs of its node know it."""
    has_iperf3: bool
    arrived: int
    """Packets that its interface has received."""
    dropped: int
    """Datagrams that its sockets had no room for."""
    passed_in: int
    """Packets that came to it by the kernel path of its node."""


@dataclass(frozen=True, slots=True)
class FarEnd:
    """Servers that run."""

    listener: socket.socket
    pods: Pods
    talks: Mapping[str, subprocess.Popen[bytes]]
    """By path."""
    has_iperf3: bool

    def run(self) -> None:
        """Tell counts until an exception, such as Ctrl-C's. VxlaneError: a server has ended."""
        while True:
            connection, _ = self.listener.accept()
            for talk in self.talks.values():
                if talk.poll() is not None:
                    raise VxlaneError(f"talk, the server, ended with status {talk.returncode}")
            told = {path: asdict(self._counts(path)) for path in self.talks}
            with connection, contextlib.suppress(OSError):  # whoever asked may be gone
                connection.settimeout(_PATIENCE)
                connection.sendall(json.dumps(told).encode() + b"\n")

    def _counts(self, path: str) -> Counts:
        talk, end = self.talks[path], self.pods[path]
        return Counts(
            str(end.pod.address),
            end.is_accelerated,
            self.has_iperf3,
            traffic.arrived(talk),
            socket_drops(Path(f"/proc/{talk.pid}/net/snmp").read_text(encoding="ascii")),
            live_paths.passed_in(end),
        )


@contextlib.contextmanager
def serving(pods: Pods, talk: Path) -> Iterator[FarEnd]:
    """Servers in both pods within the block, which begins when they listen."""
    has_iperf3 = shutil.which("iperf3") is not None
    with contextlib.ExitStack() as stack:
        talks = {}
        for path, end in pods.items():
            namespace = str(end.pod.netns)
            talk_command = (str(talk), "serve", str(TALK[0]), str(len(TALK)))
            talks[path] = stack.enter_context(traffic.serving(namespace, TALK[-1], *talk_command))
            if has_iperf3:
                command = ("iperf3", "--server", "--port", str(IPERF3))
                stack.enter_context(traffic.serving(namespace, IPERF3, *command))
        with netns.entered(pods[KERNEL].pod.netns):
            listener = stack.enter_context(socket.create_server(("", COUNTS)))
        yield FarEnd(listener, pods, talks, has_iperf3)


def ask(pod: Path, address: str) -> dict[str, Counts]:
    """What the far end at `address` has counted, by path, asked from the network namespace `pod`.

    VxlaneError: nothing answers there, or something else does.
    """
    with netns.entered(pod):
        connection = socket.socket()
    try:
        with connection:
            connection.settimeout(_PATIENCE)
            connection.connect((address, COUNTS))
            said = parse_json(connection.makefile("rb").readline(_LONGEST))
        return {path: Counts(**said[path]) for path in live_paths.PATHS}
    except OSError as error:
        why = error.strerror or f"no answer within {_PATIENCE:g} s"
    except (ValueError, KeyError, TypeError):
        why = "what answers is not vxlane bench, or another version of it"
    raise VxlaneError(
        f"{address}, port {COUNTS}: {why}; run vxlane bench --serve on the other node, and give"
        " the address that it prints"
    )
