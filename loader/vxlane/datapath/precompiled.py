# SPDX-License-Identifier: Apache-2.0
"""Programs that were compiled when vxlane was packaged, in one file of the package.

A node that has the file needs no compiler. It is used only if it was made from the sources that are
here. `vxlane compile` makes it.
"""

from __future__ import annotations

import json
from pathlib import Path

from vxlane.datapath import source
from vxlane.datapath.compiled import Compiled
from vxlane.datapath.source import Part
from vxlane.errors import CompileError
from vxlane.util.jsontext import parse_json

FILE = Path(__file__).with_name("compiled.json")


def find(part: Part) -> Compiled | None:
    """The part from the package. None: it has no programs of these sources.

    CompileError: the file is damaged.
    """
    try:
        text = FILE.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = parse_json(text)
        if document["sources"] == source.digest():
            return Compiled.of(document[part.name])
    except (ValueError, KeyError, TypeError):
        raise CompileError(f"{FILE} is damaged; install vxlane again") from None
    return None


def text(parts: dict[Part, Compiled]) -> str:
    """The file's content."""
    made = {part.name: compiled.document() for part, compiled in parts.items()}
    return json.dumps({"sources": source.digest(), **made}, sort_keys=True, indent=1) + "\n"
