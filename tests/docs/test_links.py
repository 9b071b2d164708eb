# SPDX-License-Identifier: Apache-2.0
"""What documents point at: files, headings, and the names of files in prose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_files import DOCUMENTS, FILES, ROOT, Document

_FILE = re.compile(r"(?:[\w.{}*-]+/)*[\w*-]+\.(?:py|c|h|md|8|sh)")
_ROOM = re.compile(r"/loader/vxlane/(?!bpf)\w+/README.md$")
_PATH = re.compile(r"(?:bpf|cni|docs|loader|scripts|tests|\.ci)/[\w./-]*")

_SOURCES = {".py", ".c", ".h"}

ROOMS = [ROOT / "bpf", ROOT / "cni", *(path.parent for path in FILES if _ROOM.search(str(path)))]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=str)


@every_document
def test_links_lead_somewhere(document):
    """A link within the repository leads to a file, and to a heading of it."""
    for target in document.links():
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.path.parent / name).resolve() if name else document.path
        assert path.exists(), target
        assert not anchor or anchor in Document(path, path.read_text()).anchors(), target


@every_document
def test_named_files_are_there(document):
    """A file that is named in prose is in the repository; in a room's README, in that room."""
    room = document.path.parent if document.path.name == "README.md" else ROOT
    missing = [
        span
        for span in document.spans()
        if (_FILE.fullmatch(span) or _PATH.fullmatch(span)) and not _is_there(room, span)
    ]
    assert not missing


def _is_there(room: Path, name: str) -> bool:
    """Whether `name` is a path's end: below the root if it has a folder in it, else in `room`."""
    if (room / name).exists() or (ROOT / name).exists():
        return True
    below = ROOT if "/" in name else room
    return any(path.match(name) and path.is_relative_to(below) for path in FILES)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_a_room_names_its_files(room):
    """A room's README has a word on each of its source files."""
    text = (room / "README.md").read_text()
    files = (path for path in FILES if path.is_relative_to(room) and path.suffix in _SOURCES)
    missing = {path.name for path in files if not re.search(rf"\b{path.stem}\b", text)}
    assert missing <= {"__init__.py"}
