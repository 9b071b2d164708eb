# SPDX-License-Identifier: Apache-2.0
"""Flattening: one text of all programs in which every line knows where it comes from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources

from vxlane.datapath.source import Part, flatten


def located() -> Iterator[tuple[str, int, str]]:
    """File, line number and text of every line, as a compiler would count them."""
    name, number = "", 0
    for line in flatten().splitlines():
        marker = re.fullmatch(r'#line (\d+) "bpf/(\w+\.[ch])"', line)
        if marker:
            number, name = int(marker[1]), marker[2]
        else:
            yield name, number, line
            number += 1


def source(name: str) -> list[str]:
    """The lines of a file of bpf/."""
    return resources.files("vxlane").joinpath("bpf").joinpath(name).read_text().splitlines()


def test_every_line_knows_its_place() -> None:
    """A line stands where its file and number say, or is blank for an include met before."""
    for name, number, line in located():
        original = source(name)[number - 1]
        assert line == original or (not line and re.match(r'#include "', original))


def test_nothing_is_lost() -> None:
    """Every line of every file but local includes is there, once."""
    seen = Counter((name, number) for name, number, line in located() if line)
    files = {name for name, _ in seen}
    expected = {
        (name, number)
        for name in files
        for number, line in enumerate(source(name), start=1)
        if line and not line.startswith('#include "')
    }
    assert set(seen) == expected
    assert set(seen.values()) == {1}


def test_all_files_are_in() -> None:
    """All programs and all headers of bpf/ are part of the text; the tracer has one of its own."""
    there = {
        entry.name
        for entry in resources.files("vxlane").joinpath("bpf").iterdir()
        if entry.name.endswith((".c", ".h"))
    }
    tracers = {"trace.c", "trace_filter.h"}
    assert {name for name, _, _ in located()} == there - tracers
    assert set(Part.PROGRAMS.value) <= there


def test_headers_come_before_their_users() -> None:
    """A header's text stands before the line that includes it is over."""
    text = flatten()
    assert text.index('"bpf/vxlane.h"') < text.index("#define PINNED")
    assert '#include "' not in text
