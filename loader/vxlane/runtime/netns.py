# SPDX-License-Identifier: Apache-2.0
"""Named network namespaces, as iproute2 keeps them; and a thread's visit to one.

A socket belongs for good to the namespace in which it was made. So a thread enters one for the
time of making its sockets, and no process has to run there. Imports errors only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from vxlane.errors import KernelError, ToolError

DIRECTORY = Path("/run/netns")
"""Where iproute2 keeps named namespaces."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def path(namespace: str) -> Path:
    """The file of `namespace`."""
    return DIRECTORY / namespace


def inside(namespace: str | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in `namespace`; None means here."""
    return [*argv] if namespace is None else ["nsenter", f"--net={path(namespace)}", "--", *argv]


def add(namespace: str) -> None:
    """Make `namespace`. ToolError: it is there already, or can't be made."""
    _ip("netns", "add", namespace)


def remove(namespace: str) -> None:
    """Delete `namespace` and the devices in it, if it is there."""
    if path(namespace).exists():
        _ip("netns", "del", namespace)


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Put the calling thread into `namespace` within the block. KernelError: it can't get there.

    os.setns is of Python 3.12.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path(namespace), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there, namespace)
            yield
        finally:
            os.close(there)
            _enter(home, "the former network namespace")
    finally:
        os.close(home)


def _enter(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise KernelError(f"enter {name}", ctypes.get_errno())


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ToolError("ip is not installed; install iproute2") from None
    except subprocess.CalledProcessError as error:
        raise ToolError(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from None
