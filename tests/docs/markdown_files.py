# SPDX-License-Identifier: Apache-2.0
"""The repository's documents, and what of their text a program can check."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCED = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)((?: {4}.*\n|\n)+)")
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_NOT_OURS = re.compile(r"\..*|build|dist|__pycache__|.*\.egg-info")


@dataclass(frozen=True)
class Document:
    """One Markdown file."""

    path: Path
    text: str

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """The text without its blocks of code."""
        return _INDENTED.sub("\n", _FENCED.sub("", self.text))

    def blocks(self) -> list[str]:
        """The blocks of code: fenced, or four blanks from the margin."""
        return _FENCED.findall(self.text) + _INDENTED.findall(_FENCED.sub("", self.text))

    def spans(self) -> list[str]:
        """What stands between backquotes, each on one line."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.prose)]

    def links(self) -> list[str]:
        """The targets of the links."""
        return _LINK.findall(self.prose)

    def anchors(self) -> set[str]:
        """What a link may name behind #: the headings, as forges spell them."""
        words = (re.sub(r"[^\w\- ]", "", found.lower()) for found in _HEADING.findall(self.prose))
        return {heading.strip().replace(" ", "-") for heading in words}


def _files() -> Iterator[Path]:
    for directory, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".ci" or not _NOT_OURS.fullmatch(name)]
        yield from (Path(directory, name) for name in names)


FILES = list(_files())
"""Every file of the repository."""
DOCUMENTS = [Document(path, path.read_text()) for path in sorted(FILES) if path.suffix == ".md"]
