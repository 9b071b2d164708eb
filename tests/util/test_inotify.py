# SPDX-License-Identifier: Apache-2.0
"""Following directories that come, go and are made anew."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vxlane.util.inotify import DirectoryWatch


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory two levels below one that is there."""
    return tmp_path / "cni" / "results"


@pytest.fixture
def watch(place: Path) -> Iterator[DirectoryWatch]:
    """Follows `place`, which is not there yet."""
    watch = DirectoryWatch([place])
    yield watch
    watch.close()


def test_a_directory_that_comes_later(watch: DirectoryWatch, place: Path) -> None:
    """It is to be read whole when it comes, by whichever parent, and then tells names."""
    assert watch.read() == {}
    place.parent.mkdir()
    assert watch.read() == {}
    place.mkdir()
    (place / "early").touch()
    assert watch.read() == {place: None}
    (place / "late").touch()
    assert watch.read() == {place: {"late"}}


def test_a_tree_that_comes_at_once(watch: DirectoryWatch, place: Path) -> None:
    """A parent that is moved into place with all below it is found."""
    made = place.parent.with_name("made")
    (made / "results").mkdir(parents=True)
    made.rename(place.parent)
    assert watch.read() == {place: None}


def test_a_directory_that_is_made_anew(watch: DirectoryWatch, place: Path) -> None:
    """After it was removed, or renamed, the one of its name is followed."""
    place.mkdir(parents=True)
    assert watch.read() == {place: None}
    shutil.rmtree(place.parent)
    place.mkdir(parents=True)
    assert watch.read() == {place: None}
    place.rename(place.with_name("old"))
    place.mkdir()
    assert watch.read() == {place: None}
    (place.with_name("old") / "file").touch()
    assert watch.read() == {}
    (place / "file").touch()
    assert watch.read() == {place: {"file"}}


def test_a_file_counts_when_it_is_written(watch: DirectoryWatch, place: Path) -> None:
    """Not when it is made; and when it is moved here, moved away or removed."""
    place.mkdir(parents=True)
    watch.read()
    with (place / "a").open("w") as file:
        assert watch.read() == {}
        file.write("text")
    assert watch.read() == {place: {"a"}}
    (place / "a").rename(place / "b")
    assert watch.read() == {place: {"a", "b"}}
    (place / "b").unlink()
    assert watch.read() == {place: {"b"}}


def test_two_directories_of_one_parent(tmp_path: Path) -> None:
    """A directory and one below it that is not there share a watch, and are told apart."""
    below = tmp_path / "cbr0"
    watch = DirectoryWatch([tmp_path, below])
    (tmp_path / "list").touch()
    assert watch.read() == {tmp_path: {"list"}}
    below.mkdir()
    assert watch.read() == {below: None}
    (below / "drop-in").touch()
    assert watch.read() == {below: {"drop-in"}}
    watch.close()


def test_events_that_were_lost(watch: DirectoryWatch, place: Path) -> None:
    """When the kernel's queue ran over, the directory is to be read whole."""
    place.mkdir(parents=True)
    watch.read()
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    names = [os.fspath(place / name) for name in "ab"]
    for number in range(most + 2):  # Equal events in a row would be one.
        os.close(os.open(names[number % 2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    assert watch.read() == {place: None}
