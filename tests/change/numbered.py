# SPDX-License-Identifier: Apache-2.0
"""Numbered traffic between pods: what was lost, who answered, how long there was silence.

All sockets are the test's own, made inside the pods' namespaces, and one thread serves them: a busy
machine slows all of the traffic down together, and a test waits for what comes, not for times.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol, TypeVar

from taps import inside

from vxlane.errors import LabError
from vxlane.lab.waiting import wait_for

PORT = 7200
PATIENCE = 30.0
"""Seconds for which a test waits for traffic to go on before it fails."""

_SO_RCVBUFFORCE, _BUFFER = 33, 16 << 20
_ETH_P_IP, _PACKET_HOST = 0x0800, 0
_SIZE = 200
_PIECE = 16 << 10
_PATTERN = random.Random(1).randbytes(1 << 20)


class Speaker(Protocol):
    """Whatever sends when there is traffic."""

    def speak(self) -> None:
        """Send once."""

    @property
    def progress(self) -> int:
        """How often that was answered or arrived."""

    @property
    def owed(self) -> int:
        """What was sent and is not answered, or did not arrive, yet."""

    def sockets(self) -> dict[socket.socket, selectors.SelectorKey]:
        """Each of its sockets -> what to call when it is readable."""


class Listener:
    """Answers each datagram that its pod gets with the pod's secret."""

    def __init__(self, namespace: str, secret: str, *, port: int = PORT) -> None:
        self._secret = secret.encode()
        self._socket = _datagrams(namespace, port)

    def sockets(self):
        """See `Speaker`."""
        return {self._socket: self._answer}

    def _answer(self) -> None:
        for data, sender in _received(self._socket):
            number = data.partition(b" ")[0]
            with contextlib.suppress(OSError):
                self._socket.sendto(b"%b %b " % (number, self._secret) + data, sender)


class Watch:
    """Sees the IP packets that a pod's stack takes for its own, and keeps those that are not.

    A bridge floods what it knows no port for: such a frame, with another's MAC, is not taken.
    """

    def __init__(self, namespace: str, address: str) -> None:
        self.wrong: list[bytes] = []
        self._own = IPv4Address(address).packed
        self._socket = inside(namespace, _packets)

    def sockets(self):
        """See `Speaker`."""
        return {self._socket: self._look}

    def _look(self) -> None:
        for packet, (_, _, kind, *_) in _received(self._socket):
            if kind == _PACKET_HOST and packet[16:20] != self._own:
                self.wrong.append(packet)


class Talk:
    """Datagrams from a pod to an address, always from the same port: one flow.

    `answers` are by number the secrets of who answered; `silence` is the longest time without one,
    in seconds.
    """

    def __init__(self, namespace: str, address: str, *, local: int = 0, port: int = PORT) -> None:
        self.address = address
        self.sent = 0
        self.answers: dict[int, str] = {}
        self._port = port
        self._socket = _datagrams(namespace, local)
        self._begin = self._answered = 0
        """The last number before the beginning, and how many since then were answered."""
        self._silence = 0.0
        self._answered_at = time.monotonic()

    @property
    def owed(self) -> int:
        """See `Speaker`; of what was sent since the beginning."""
        return self.sent - self._begin - self._answered

    @property
    def progress(self) -> int:
        """See `Speaker`."""
        return len(self.answers)

    @property
    def silence(self) -> float:
        """The longest time without an answer, the one that lasts counted too."""
        return max(self._silence, time.monotonic() - self._answered_at)

    def begin(self) -> None:
        """Measure what is owed, and silence, anew from here on."""
        self._begin, self._answered = self.sent, 0
        self._silence, self._answered_at = 0.0, time.monotonic()

    def sockets(self):
        """See `Speaker`."""
        return {self._socket: self._note}

    def speak(self) -> None:
        """Send the next one; where there is no way at all it is lost."""
        self.sent += 1
        with contextlib.suppress(OSError):
            self._socket.sendto((b"%d " % self.sent).ljust(_SIZE), (self.address, self._port))

    def _note(self) -> None:
        now = time.monotonic()
        for data, _ in _received(self._socket):
            number, secret, _ = data.split(b" ", 2)
            self.answers[int(number)] = secret.decode()
            self._answered += int(number) > self._begin
            self._silence = max(self._silence, now - self._answered_at)
            self._answered_at = now


class Stream:
    """A TCP connection between two pods, with data both ways; each byte is checked."""

    def __init__(self, client: str, server: str, address: str, *, port: int = PORT) -> None:
        with inside(server, lambda: socket.create_server(("", port))) as listening:
            near = inside(client, lambda: socket.create_connection((address, port), timeout=10))
            self._ends = End(near), End(listening.accept()[0])

    @property
    def fault(self) -> str:
        """What went wrong: a reset, an end, data that was not sent; else empty."""
        return next((end.fault for end in self._ends if end.fault), "")

    @property
    def owed(self) -> int:
        """See `Speaker`."""
        return sum(end.sent - end.received for end in self._ends)

    @property
    def progress(self) -> int:
        """See `Speaker`."""
        return min(end.received for end in self._ends) // _PIECE

    def begin(self) -> None:
        """Nothing: every byte of a stream counts."""

    def sockets(self):
        """See `Speaker`."""
        return {end.socket: end.read for end in self._ends}

    def speak(self) -> None:
        """Send a piece each way, or as much of it as there is room for."""
        for end in self._ends:
            end.write()


class End:
    """One end of a stream."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.setblocking(False)  # noqa: FBT003 (socket's own signature)
        self.sent = self.received = 0
        self.fault = ""

    def write(self) -> None:
        """Send a piece, or as much of it as there is room for."""
        begin = self.sent % len(_PATTERN)
        try:
            self.sent += self.socket.send(_PATTERN[begin : begin + _PIECE])
        except BlockingIOError:
            pass
        except OSError as error:
            self.fault = str(error)

    def read(self) -> None:
        """Check what has come."""
        begin = self.received % len(_PATTERN)
        try:
            piece = self.socket.recv(len(_PATTERN) - begin)
        except OSError as error:
            self.fault = str(error)
            return
        if piece != _PATTERN[begin : begin + len(piece)] or not piece:
            self.fault = f"after {self.received} bytes: {'other data' if piece else 'the end'}"
        self.received += len(piece)


Anyone = TypeVar("Anyone", Listener, Watch, Talk, Stream)


class Traffic:
    """Serves listeners and lets all others speak, in a thread of its own, until it is closed."""

    def __init__(self, pause: float) -> None:
        self.speakers: list[Talk | Stream] = []
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._pause = pause
        self._rounds: float = 0
        """How often each may still speak."""
        self._is_over = False
        self._dropped_before = machine_drops()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End it, and close all sockets."""
        self._is_over = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def join(self, someone: Anyone) -> Anyone:
        """Let a listener, a talk or a stream take part."""
        with self._lock:
            for made, action in someone.sockets().items():
                self._selector.register(made, selectors.EVENT_READ, action)
            if isinstance(someone, Talk | Stream):
                self.speakers.append(someone)
        return someone

    def leave(self, someone: Anyone) -> None:
        """Close someone's sockets, without another word."""
        with self._lock:
            for made in someone.sockets():
                self._selector.unregister(made)
                made.close()
            if someone in self.speakers:
                self.speakers.remove(someone)

    def begin(self) -> None:
        """Let everyone speak until each was answered: that all know each other's MACs costs some
        first packets on any network, and those don't count.
        """
        self.start()
        self.go_on(10)
        for one in self.speakers:
            one.begin()
        self._dropped_before = machine_drops()
        self.stop()
        # What was sent before the beginning is owed by nobody. It has arrived when this has.
        self.exchange(1)

    def start(self) -> None:
        """Let everyone speak again and again, from now on."""
        self._rounds = float("inf")

    def stop(self) -> None:
        """Return when nobody speaks, and all was answered or nothing comes any more."""
        with self._lock:
            self._rounds = 0
        with contextlib.suppress(LabError):
            while owed := self.owed:
                wait_for(lambda owed=owed: self.owed < owed, "what is owed", seconds=2.0)

    def exchange(self, rounds: int) -> None:
        """Let everyone speak exactly so often; return as from `stop`."""
        with self._lock:
            self._rounds = rounds
        wait_for(lambda: not self._rounds, f"{rounds} rounds", seconds=PATIENCE)
        self.stop()

    def go_on(self, more: int = 100, *whose: Talk | Stream) -> None:
        """Return when `whose` (all) progress has gone on by so much."""
        goals = [(one, one.progress + more) for one in whose or self.speakers]

        def are_met() -> bool:
            return all(one.progress >= goal for one, goal in goals)

        wait_for(are_met, f"{more} more answers to {len(goals)} speakers", seconds=PATIENCE)

    @property
    def owed(self) -> int:
        """See `Speaker`: of all."""
        return sum(one.owed for one in self.speakers)

    @property
    def lost(self) -> int:
        """After `stop`: what did not arrive, but for what the machine itself has dropped."""
        return max(0, self.owed - (machine_drops() - self._dropped_before))

    @property
    def faults(self) -> list[str]:
        """Of the streams."""
        return [one.fault for one in self.speakers if isinstance(one, Stream) and one.fault]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_over:
            ready = self._selector.select(max(0.0, due - time.monotonic()))
            with self._lock:
                for key, _ in ready:
                    if key.fileobj.fileno() >= 0:  # else it has left meanwhile
                        key.data()
                if self._rounds and time.monotonic() >= due:
                    due = time.monotonic() + self._pause
                    self._rounds -= 1
                    for speaker in self.speakers:
                        speaker.speak()
                elif not self._rounds:
                    due = time.monotonic() + self._pause


@contextlib.contextmanager
def traffic(*, pause: float = 0.002) -> Iterator[Traffic]:
    """Traffic for a block; everyone pauses so many seconds before speaking again."""
    made = Traffic(pause)
    try:
        yield made
    finally:
        made.close()


def machine_drops() -> int:
    """Packets that this machine's CPUs have dropped because their backlog was full.

    It is one queue for all namespaces, and other work can fill it.
    """
    lines = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def _datagrams(namespace: str, port: int) -> socket.socket:
    """A UDP socket of a pod, with much room."""
    made = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    made.setblocking(False)  # noqa: FBT003 (socket's own signature)
    made.bind(("", port))
    return made


def _packets() -> socket.socket:
    """All IPv4 packets of this thread's namespace, without Ethernet headers."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
    made.setblocking(False)  # noqa: FBT003 (socket's own signature)
    return made


def _received(source: socket.socket) -> Iterator[tuple[bytes, Any]]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield source.recvfrom(1 << 16)
