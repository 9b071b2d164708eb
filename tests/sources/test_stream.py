# SPDX-License-Identifier: Apache-2.0
"""JSON that arrives in pieces."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from vxlane.errors import SourceError
from vxlane.sources.stream import lines, members

ITEMS: list[Any] = [{"name": "é\u20ac\U0001f600", "n": [1, 2]}, "]},", {}, 12.5, None]


def pieces(body: bytes, seed: int) -> Iterator[bytes]:
    """`body` cut at random places, also inside of characters and numbers."""
    at, dice = 0, random.Random(seed)
    while at < len(body):
        size = dice.randint(1, 9)
        yield body[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(20))
def test_a_list_is_walked_wherever_it_is_cut(seed: int) -> None:
    """Elements and other members come in order, whole, for any boundaries and any order of keys."""
    before = {"meta": {"a": 1}, "items": ITEMS, "kind": "L"}
    body = json.dumps(before, ensure_ascii=False, indent=seed % 3 or None).encode()
    found = list(members(pieces(body, seed), "items"))
    assert found == [("meta", {"a": 1}), *(("items", i) for i in ITEMS), ("kind", "L")]


@pytest.mark.parametrize("seed", range(20))
def test_lines_are_found_wherever_they_are_cut(seed: int) -> None:
    """Each line is one value, for any boundaries, blank lines apart."""
    body = b"".join(json.dumps(item).encode() + b"\n" for item in ITEMS) + b"\n"
    assert list(lines(pieces(body, seed))) == ITEMS
    assert list(lines(pieces(body.rstrip(), seed))) == ITEMS


def test_an_empty_array_has_no_elements() -> None:
    """A list of nothing gives its other members only."""
    assert list(members([b'{"items":[],"m":1}'], "items")) == [("m", 1)]
    assert list(members([b'{"items":null}'], "items")) == [("items", None)]


def test_json_without_end_raises() -> None:
    """A value that nests deeper than Python can read is an error of the source, not a fault."""
    deep = b"[" * 100_000
    with pytest.raises(SourceError, match="nested too deeply"):
        list(members([b'{"items":[', deep], "items"))
    with pytest.raises(SourceError, match="not JSON"):
        list(lines([deep, b"\n"]))


def test_what_is_cut_off_or_garbage_raises() -> None:
    """No prefix of a list is taken for a list, and no prefix of a line for a line."""
    body = json.dumps({"items": ITEMS, "n": {"a": 1}}).encode()
    for end in range(len(body) - 1):
        with pytest.raises(SourceError):
            list(members([body[:end]], "items"))
    with pytest.raises(SourceError, match="cut off"):
        list(lines([b'{"a":1}\n{"b"']))
    with pytest.raises(SourceError, match="not JSON"):
        list(lines([b"<html>\n"]))
    with pytest.raises(SourceError, match="belongs"):
        list(members([b"<html>"], "items"))
