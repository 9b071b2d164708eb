# SPDX-License-Identifier: Apache-2.0
"""Replacing a file as a whole."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vxlane.util import files

Replace = Callable[..., None]
BOTH = pytest.mark.parametrize("replace", [files.replace, files.replace_durably])


@BOTH
def test_content_and_mode_are_replaced(replace: Replace, tmp_path: Path) -> None:
    """A file gets new content and mode, and nothing else is left in its directory."""
    path = tmp_path / "file"
    replace(path, "old")
    replace(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@BOTH
def test_a_reader_keeps_what_it_opened(replace: Replace, tmp_path: Path) -> None:
    """Whoever has the old file open reads it to its end: it is replaced, not overwritten."""
    path = tmp_path / "file"
    replace(path, "old")
    with path.open() as reader:
        replace(path, "new")
        assert reader.read() == "old"


@BOTH
def test_a_failure_leaves_the_old_file(
    replace: Replace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the new file can't be completed the old one stays, and no half of a new one."""
    path = tmp_path / "file"
    replace(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(OSError, match=f"no space: '{path}'$"):
        replace(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_durable_one_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`replace` never calls fsync; `replace_durably` does so for the file, then its directory."""
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    files.replace(tmp_path / "file", "one")
    assert synced == []
    files.replace_durably(tmp_path / "file", "two")
    assert synced == [tmp_path / ".file.new", tmp_path]


@BOTH
def test_a_reader_sees_one_content_whole(replace: Replace, tmp_path: Path) -> None:
    """Who reads while a file is replaced sees one content or the other, whole."""
    path = tmp_path / "file"
    contents = [letter * 100_000 for letter in (b"a", b"b")]
    replace(path, contents[0])
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        replace(path, contents[number % 2])
    done.set()
    reader.join()
    assert seen <= set(contents)


def test_what_is_so_already_is_left_alone(tmp_path: Path) -> None:
    """A file that has content and mode keeps its inode; one that differs in either is replaced."""
    path = tmp_path / "new" / "file"
    assert files.write_if_changed(path, "text")
    before = path.stat().st_ino
    assert not files.write_if_changed(path, b"text")
    assert path.stat().st_ino == before
    assert files.write_if_changed(path, "text", mode=0o755)
    assert files.write_if_changed(path, "other", mode=0o755)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("other", 0o755)


def test_removing_says_whether_it_was_there(tmp_path: Path) -> None:
    """What is not there needs no removal."""
    (tmp_path / "file").touch()
    assert files.remove(tmp_path / "file")
    assert not files.remove(tmp_path / "file")
