# SPDX-License-Identifier: Apache-2.0
"""One agent for each state directory: its lock, and the process that holds it.

The lock is a flock(2) of the directory itself. It needs no file, so a file system that is full or
read-only does not end an agent. The kernel gives the holder's pid in the numbers of the reader's
PID namespace: an agent in a container may be process 1 in its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from vxlane.errors import ConfigError, VxlaneError

log = logging.getLogger(__name__)

_LOCKS = Path("/proc/locks")
NEXT = "next.lock"
"""This file is locked by an agent that stands by."""
_END_TIMEOUT = 5.0
"""Seconds that an agent gets to end."""


def make_directory(state: Path) -> None:
    """Make `state` unless it is there; ConfigError where others could put files in it."""
    advice = "give another --state-dir"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = state.stat()
    except OSError as error:
        raise ConfigError(f"make {state}: {error.strerror}; {advice}") from None
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"others may write to {state}: make it root's, mode 0700, or {advice}")


@contextlib.contextmanager
def sole_agent(
    state: Path, *, standing_by: AbstractContextManager[None] | None = None
) -> Iterator[None]:
    """Hold the lock of `state` within the block.

    If another agent holds it, wait within `standing_by` until that one ends; None: ConfigError.
    """
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = holder(state) or "of another PID namespace"
            if standing_by is None:
                advice = "stop it, or give another --state-dir"
                raise ConfigError(f"agent {who} runs with {state} already; {advice}") from None
            log.info("agent %s runs with %s: this one stands by until it ends", who, state)
            with standing_by, _announced(state):
                # A signal's handler raises, and so ends the wait.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _announced(state: Path) -> Iterator[None]:
    """Make `is_awaited` true within the block, unless the file system is full or read-only."""
    try:
        descriptor = os.open(state / NEXT, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_awaited(state: Path) -> bool:
    """Whether another agent stands by for `state`, also one in another container."""
    try:
        descriptor = os.open(state / NEXT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(state: Path) -> int | None:
    """The pid of the process that holds the lock of `state`. None: none that is visible here.

    proc_locks(5): `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`. The device there
    is the file system's own, which stat(2) does not tell on btrfs and overlayfs.
    """
    try:
        inode = str(state.stat().st_ino)
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        _, kind, _, access, pid, file, *_ = line.split()
        is_ours = (kind, access, file.rpartition(":")[2]) == ("FLOCK", "WRITE", inode)
        if is_ours and _has_open(int(pid), state):
            return int(pid)
    return None


def stop(state: Path) -> None:
    """End the agent that holds the lock of `state`, and return when it is gone."""
    pid = holder(state)
    if pid is None:
        return
    if pid == 1:
        raise VxlaneError("the agent is process 1 here; end its container, then run this again")
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            # The number may be another process's by now. The pidfd stays what it is from here on.
            if _has_open(pid, state):
                signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], _END_TIMEOUT)[0]:
                raise VxlaneError(f"agent {pid} does not stop; end it and run this again")
        finally:
            os.close(process)


def _has_open(pid: int, directory: Path) -> bool:
    """Whether a process has `directory` open, as an agent has its state directory."""
    wanted = directory.stat()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(descriptor.stat(), wanted):
                    return True
    except (FileNotFoundError, ProcessLookupError):
        pass  # It has ended.
    return False
