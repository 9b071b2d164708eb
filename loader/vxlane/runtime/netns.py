# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that a file holds, and a thread's visit to one.

A socket belongs for good to the namespace in which it was made. So a thread enters one for the
time of making its sockets, and no process has to run there. Imports errors only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vxlane.errors import KernelError

DIRECTORY = Path("/run/netns")
"""Where iproute2 keeps named namespaces."""

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 0x1000, 2
_THIS = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def path(namespace: str) -> Path:
    """The file of `namespace`."""
    return DIRECTORY / namespace


def inside(namespace: str | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in `namespace`; None means here."""
    return [*argv] if namespace is None else ["nsenter", f"--net={path(namespace)}", "--", *argv]


def make(where: Path) -> None:
    """Make a namespace whose file is `where`, with its loopback down, as runtimes do.

    The file holds the namespace, and no process does. KernelError: it can't be made.
    """
    where.touch(exist_ok=False)
    with _back_home():
        _check(_libc.unshare(_CLONE_NEWNET), "make a network namespace")
        bound = _libc.mount(_THIS.encode(), bytes(where), None, _MS_BIND, None)
        _check(bound, f"mount a network namespace on {where}")


def remove(where: Path) -> None:
    """Let go of the namespace of that file, and with it of its devices, if it is there."""
    if where.exists():
        _libc.umount2(bytes(where), _MNT_DETACH)  # fails where none was mounted yet
        where.unlink()


@contextlib.contextmanager
def entered(where: Path) -> Iterator[None]:
    """Put the calling thread into a namespace within the block. KernelError: it can't get there.

    os.setns is of Python 3.12.
    """
    with _back_home():
        _enter(where)
        yield


@contextlib.contextmanager
def _back_home() -> Iterator[None]:
    """Whatever namespace the thread changes to in the block, it is back in its own after it."""
    home = os.open(_THIS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        back = _libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        _check(back, "return to the own network namespace")


def _enter(where: Path) -> None:
    # Whoever names the file may have put a FIFO there, which must not block.
    there = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(_libc.setns(there, _CLONE_NEWNET), f"enter {where}")
    finally:
        os.close(there)


def _check(result: int, operation: str) -> None:
    if result:
        raise KernelError(operation, ctypes.get_errno())
