# SPDX-License-Identifier: Apache-2.0
"""More datagrams than a limit lets through, and the rate of those that arrive.

The kernel notes when each one does, so that what a busy machine does with the test itself is no
part of the figure.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from dataclasses import dataclass

from taps import inside

_SIZE = 1400
_FRAME = 14 + 20 + 8 + _SIZE
"""What a shaper counts of each, bytes."""
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_TIMESPEC = struct.Struct("=qq")
_PAUSE = 0.002
_PORT = 7600


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of a flood."""

    sent: int
    """Datagrams."""
    times: list[float]
    """When each one arrived, seconds."""

    def rate(self, *, skip: int) -> float:
        """Bits per second, without the first `skip` bytes, which a bucket lets through at once."""
        times = self.times[-(-skip // _FRAME) :]
        return 8 * _FRAME * (len(times) - 1) / (times[-1] - times[0])


def flood(source: str, target: str, address: str, *, rate: float, seconds: float) -> Arrival:
    """Send at `rate` bit/s from a namespace to an address in another, whatever arrives."""
    sender = inside(source, _datagrams)
    receiver = inside(target, _datagrams)
    receiver.bind(("", _PORT))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    began, sent, times = time.monotonic(), 0, []
    with sender, receiver:
        while (elapsed := time.monotonic() - began) < seconds:
            # Where a shaper lets the sender wait, its socket is full at some time.
            with contextlib.suppress(BlockingIOError):
                while sent * 8 * _FRAME < rate * elapsed:
                    sender.sendto(bytes(_SIZE), (address, _PORT))
                    sent += 1
            times += _arrived(receiver)
            time.sleep(_PAUSE)
        while select.select([receiver], [], [], 0.5)[0]:
            times += _arrived(receiver)
    return Arrival(sent, times)


def _datagrams() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    made.setblocking(False)  # noqa: FBT003 (socket's own signature)
    return made


def _arrived(receiver: socket.socket) -> list[float]:
    times = []
    while True:
        try:
            _, ((_, _, stamp),), _, _ = receiver.recvmsg(_SIZE, 64)
        except BlockingIOError:
            return times
        seconds, nanoseconds = _TIMESPEC.unpack(stamp)
        times.append(seconds + nanoseconds / 1e9)
