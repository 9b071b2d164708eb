# SPDX-License-Identifier: Apache-2.0
"""Chamber: a thread that lives in a network and a mount namespace of its own.

What a test makes there (devices, filters, a bpffs with its pins) has no name outside, and the
kernel removes it with the thread, however the test run ends: there is nothing to sweep.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import machinecan

_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_GSO_UDP_L4 = 5  # linux/virtio_net.h

_libc = ctypes.CDLL(None, use_errno=True)
P = ParamSpec("P")
T = TypeVar("T")


def _leave() -> None:
    """Leave the namespaces of the test run; unshare(2) is per thread."""
    if _libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    # Else the mounts made here would spread to the namespace we came from.
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount")


class Chamber:
    """Runs functions inside; processes that they start are inside too."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chamber", initializer=_leave)
        self.tid = self.run(threading.get_native_id)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call inside, and answer or raise what the function does."""
        return self._thread.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """End the thread and with it all that is inside."""
        self._thread.shutdown()


def ip(*commands: str) -> None:
    """Run `ip` commands in the calling thread's namespace."""
    _tool(["ip", "-force", "-batch", "-"], commands)


def bridge(*commands: str) -> None:
    """Run `bridge` commands in the calling thread's namespace."""
    _tool(["bridge", "-force", "-batch", "-"], commands)


def _tool(argv: list[str], commands: tuple[str, ...]) -> None:
    done = subprocess.run(
        argv, input="\n".join(commands), capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr


class Port:
    """Raw frames into and out of a device of the namespace that it was opened in."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.bind((device, _ETH_P_ALL))
        os.set_blocking(self._socket.fileno(), False)

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire."""
        self._socket.send(frame)

    def send_super(self, frame: bytes) -> None:
        """Put a frame on the wire that holds a device's work, behind its struct virtio_net_hdr."""
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        try:
            self._socket.send(frame)
        except OSError as error:
            if error.errno == errno.EINVAL and frame[1] == _GSO_UDP_L4:
                machinecan.lacks("UDP super-packets from packet sockets (Linux 6.2)")
            raise
        finally:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 0)

    def drain(self) -> list[bytes]:
        """What has arrived and was not read yet."""
        arrived: list[bytes] = []
        while True:
            try:
                frame, address = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                return arrived
            if address[2] != _PACKET_OUTGOING:
                arrived.append(frame)

    def receive(self, wanted: Callable[[bytes], bool]) -> bytes:
        """The next frame that is wanted; others on the way are dropped."""
        return self.until(wanted)[-1]

    def until(self, wanted: Callable[[bytes], bool], *, seconds: float = 10.0) -> list[bytes]:
        """All that arrives up to a frame that is wanted; what came with it is lost."""
        seen: list[bytes] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for frame in self.drain():
                seen.append(frame)
                if wanted(frame):
                    return seen
            time.sleep(0.002)
        raise AssertionError(f"no such frame within {seconds} s among {len(seen)}")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
