"""Network namespaces that a test enters itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator

import pytest

from vxlane.loader.lab import namespaces

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def _entered(name: str) -> Iterator[str]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespaces.path(name), os.O_RDONLY)
    try:
        assert _libc.setns(there, _CLONE_NEWNET) == 0
        yield name
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0
        os.close(home)
        os.close(there)


@pytest.fixture
def netns(make_netns: Callable[[str], str]) -> Iterator[str]:
    """A bare namespace, in which the test's own thread is; its name."""
    with _entered(make_netns("kernel")) as name:
        yield name
