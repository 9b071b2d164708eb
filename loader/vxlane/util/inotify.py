# SPDX-License-Identifier: Apache-2.0
"""Follows directories by inotify(7), also directories that are made later or made again.

As long as a directory is missing, its nearest parent is watched. Owns the descriptor, which is
non-blocking and meant for a selector. Imports no other module of vxlane.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

# <sys/inotify.h>
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x40000000
_MASK = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_ENTRY = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _DELETE
"""A file is complete, or has lost its name. The creation of a file, still empty, does not count."""
_EVENT = struct.Struct("=iIII")  # watch descriptor, mask, cookie, length of the name
_BUFFER = 1 << 16

Changes = dict[Path, set[str] | None]
"""Directory (absolute) -> names of changed entries. None: anything in it may have changed."""


class DirectoryWatch:
    """Follows some directories. OSError: the kernel gives no more inotify instances or watches."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._descriptor < 0:
            raise _error("inotify")
        self._at: dict[int, set[Path]] = {}
        """Watch -> the directories that it is for: its own one, or missing ones below it."""
        self._own: dict[Path, int] = {}
        """Directory that exists -> its own watch."""
        try:
            for directory in directories:
                self._follow(directory.absolute())
        except OSError:
            self.close()
            raise

    def follow(self, directory: Path) -> None:
        """Follow one more directory, unless it is followed already. OSError: that is impossible."""
        if directory not in self._directories():
            self._follow(directory)

    def fileno(self) -> int:
        """For a selector."""
        return self._descriptor

    def close(self) -> None:
        """Stop following."""
        os.close(self._descriptor)

    def read(self) -> Changes:
        """What has changed since the last call. OSError: a directory can't be followed any more."""
        changes: Changes = {}
        while True:
            try:
                events = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                return changes
            offset = 0
            while offset < len(events):
                watch, mask, _, length = _EVENT.unpack_from(events, offset)
                offset += _EVENT.size + length
                name = os.fsdecode(events[offset - length : offset].rstrip(b"\0"))
                self._note(watch, mask, name, changes)

    def _note(self, watch: int, mask: int, name: str, changes: Changes) -> None:
        if mask & _OVERFLOW:
            changes.update(dict.fromkeys(self._directories()))
            return
        for directory in list(self._at.get(watch, ())):
            is_own = self._own.get(directory) == watch
            if mask & (_DELETE_SELF | _MOVE_SELF | _IGNORED) or not is_own:
                if self._follow(directory):
                    changes[directory] = None
            elif mask & _ENTRY and not mask & _ISDIR:
                names = changes.setdefault(directory, set())
                if names is not None:
                    names.add(name)

    def _directories(self) -> set[Path]:
        return {directory for those in self._at.values() for directory in those}

    def _follow(self, directory: Path) -> bool:
        """Watch `directory` or its nearest parent. True: its content may have changed."""
        before = self._own.pop(directory, None)
        for those in self._at.values():
            those.discard(directory)
        place, watch = self._nearest(directory)
        self._at.setdefault(watch, set()).add(directory)
        if place != directory:
            return before is not None
        self._own[directory] = watch
        return watch != before

    def _nearest(self, directory: Path) -> tuple[Path, int]:
        """The directory or parent that is watched for `directory`, and the watch."""
        place = directory
        while True:
            if (watch := self._add(place)) < 0:
                place = place.parent
            elif place != directory and (place / directory.relative_to(place).parts[0]).is_dir():
                place = directory  # It came while the parent was not watched yet.
            else:
                return place, watch

    def _add(self, place: Path) -> int:
        """The watch of a directory; -1: it does not exist."""
        watch = int(self._libc.inotify_add_watch(self._descriptor, os.fsencode(place), _MASK))
        if watch < 0 and ctypes.get_errno() not in {errno.ENOENT, errno.ENOTDIR}:
            raise _error(str(place))
        return watch


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)
