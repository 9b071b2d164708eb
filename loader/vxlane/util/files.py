# SPDX-License-Identifier: Apache-2.0
"""Replacing a file as a whole: a reader finds the old content or the new one.

Two strengths, because fsync may wait for seconds on a busy disk:

- `replace` outlives a killed process. That is enough for notes about kernel state, which is gone
  after a power failure too.
- `replace_durably` outlives a power failure. Without fsync some file systems then have the new
  name and no content.

Imports no other module of vxlane.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_FILE = 0o644
"""Mode of a new file. Its directory decides who may read it."""


def replace(path: Path, content: bytes | str, *, mode: int = _FILE) -> None:
    """Give `path` this content and mode. OSError: the file is unchanged."""
    with _placed(path, content, mode):
        pass


def replace_durably(path: Path, content: bytes | str, *, mode: int = _FILE) -> None:
    """As `replace`, and wait until content and name are on disk."""
    with _placed(path, content, mode) as file:
        os.fsync(file)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_if_changed(path: Path, content: bytes | str, *, mode: int = _FILE) -> bool:
    """Replace durably unless `path` has this content and mode. True: it was written.

    An unchanged file keeps its time stamp, and programs that watch it are not woken.
    """
    octets = content.encode() if isinstance(content, str) else content
    try:
        if path.read_bytes() == octets and path.stat().st_mode & 0o7777 == mode:
            return False
    except OSError:
        pass  # not there, or not readable: replacing it says why
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, octets, mode=mode)
    return True


def remove(path: Path) -> bool:
    """Remove `path`; False when it was not there."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextlib.contextmanager
def alone(directory: Path, *, waits: bool = True) -> Iterator[None]:
    """Wait until no other process is in such a block for `directory`, if that is there.
    BlockingIOError: one is, and is not to be waited for.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _placed(path: Path, content: bytes | str, mode: int) -> Iterator[int]:
    """A descriptor of the new file, which gets its name when the block ends without an error.

    The file is written under one fixed name beside `path`, so a killed process leaves at most one,
    and the next one overwrites it. The name begins with a dot and has a suffix that no container
    runtime reads as configuration.
    """
    fresh = path.with_name(f".{path.name}.new")
    octets = content.encode() if isinstance(content, str) else content
    try:
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(octets)
            file.flush()
            yield file.fileno()
        fresh.replace(path)
    except BaseException as error:
        # A full disk stays full with half a file on it.
        with contextlib.suppress(OSError):
            fresh.unlink()
        if isinstance(error, OSError):
            # A write's error names no file, and the new one's name tells nobody anything.
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
