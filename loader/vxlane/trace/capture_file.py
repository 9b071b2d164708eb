# SPDX-License-Identifier: Apache-2.0
"""Where a capture goes: a file, several that follow each other, or standard output.

A file that is full gets the name FILE.1, the one before it FILE.2 and so on; the oldest is
overwritten. Those of an earlier capture go at the start, as its FILE does. Each is whole by itself,
also where the disk is full: it ends with the last packet that found room.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate, count
from pathlib import Path

from vxlane.errors import OptionError, VxlaneError

_MODE = 0o600
"""Whoever reads a capture reads what pods say."""
_IS_A_LINK = "it is a link, as a shell's >(...) is; name the file, or put a pipe behind -w -"


@dataclass(frozen=True, slots=True)
class Rotation:
    """`size`: bytes from which on a file is full; `keep`: how many there are at most."""

    size: int
    keep: int


class CaptureFile:
    """The open file. `head` begins each, `tail` ends each."""

    def __init__(
        self,
        name: str,
        rotation: Rotation | None,
        *,
        head: Callable[[], bytes],
        tail: Callable[[], bytes],
    ) -> None:
        """OptionError: the file can't be made. VxlaneError: its head finds no room."""
        self._path, self._rotation = None if name == "-" else Path(name), rotation
        self._head, self._tail = head, tail
        if not self._path and rotation:
            raise OptionError("--rotate needs a file: standard output has no second one")
        if not self._path and sys.stdout.isatty():
            raise OptionError("a terminal can't show packets; give -w FILE, or a pipe behind -w -")
        if self._path and rotation and self._path.exists() and not self._path.is_file():
            raise OptionError(f"--rotate needs a plain file, and {name} is none")
        try:
            self._file = self._open()
            if self._path and rotation:
                _remove_earlier(self._path)
        except OSError as error:
            why = _IS_A_LINK if error.errno == errno.ELOOP else error.strerror
            raise OptionError(f"-w {name}: {why}") from None
        self._pending: list[bytes] = []
        self.packets = 0
        """What was written, without what a failure has left out."""
        self._begin()

    def write(self, data: bytes) -> None:
        """Add a packet; into the next file if this one is full."""
        size = self._written + len(data)
        # A packet that no file has room for is in one by itself.
        if self._rotation and self._path and self._written and size > self._rotation.size:
            self.close()
            try:
                _shift(self._path, self._rotation.keep)
                self._file = self._open()
            except OSError as error:
                raise self._failure(error) from None
            self._begin()
        self._pending.append(data)
        self._written += len(data)

    def flush(self) -> None:
        """Let readers see what was written. VxlaneError: not all of it found room."""
        pending, self._pending = self._pending, []
        self._put(pending)
        self.packets += len(pending)

    def close(self) -> None:
        """End the file. VxlaneError as of `flush`."""
        try:
            self.flush()
            self._put([self._tail()])
        finally:
            self._file.close()

    def _begin(self) -> None:
        self._put([self._head()])
        self._written = 0

    def _put(self, parts: list[bytes]) -> None:
        """Write `parts`, each whole or not at all."""
        data, written = memoryview(b"".join(parts)), 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            ends = [end for end in accumulate(map(len, parts)) if end <= written]
            self.packets += len(ends)
            self._give_up(written - max(ends, default=0))
            raise self._failure(error) from None

    def _give_up(self, surplus: int) -> None:
        """End the file without its last `surplus` bytes; one of which nothing is left goes away."""
        # A pipe or a device keeps what it has.
        with contextlib.suppress(OSError), self._file:
            left = self._file.truncate(self._file.tell() - surplus)
            if self._path and not left:
                self._path.unlink()

    def _failure(self, error: OSError) -> VxlaneError:
        return VxlaneError(f"write {self._path or 'to standard output'}: {error.strerror}")

    def _open(self) -> FileIO:
        if not self._path:
            return FileIO(sys.stdout.fileno(), "wb", closefd=False)
        return FileIO(self._path, "wb", opener=_private)


def _private(name: str, flags: int) -> int:
    """Open a file that nobody else may read, one that is there already too. OSError: it is a link,
    or another user's. A device or a pipe stays what it is.
    """
    descriptor = os.open(name, flags & ~os.O_TRUNC | os.O_NOFOLLOW, _MODE)
    found = os.fstat(descriptor)
    is_plain = stat.S_ISREG(found.st_mode)
    if (is_plain or stat.S_ISFIFO(found.st_mode)) and found.st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "it is another user's; name another file", name)
    if is_plain:
        os.fchmod(descriptor, _MODE)
        os.ftruncate(descriptor, 0)
    return descriptor


def _numbered(path: Path, number: int) -> Path:
    """The file so many before `path`."""
    return path.with_name(f"{path.name}.{number}") if number else path


def _remove_earlier(path: Path) -> None:
    """Remove what an earlier capture has numbered, which would pass for this one's."""
    for number in count(1):
        earlier = _numbered(path, number)
        if not earlier.is_file():
            return
        earlier.unlink()


def _shift(path: Path, keep: int) -> None:
    """Give each file the next number."""
    for number in range(keep - 1, 0, -1):
        newer = _numbered(path, number - 1)
        if newer.exists():
            newer.replace(_numbered(path, number))
