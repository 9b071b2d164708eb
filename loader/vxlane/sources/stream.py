# SPDX-License-Identifier: Apache-2.0
"""Parses JSON values from a body that arrives in blocks. The body is never in memory as a whole.

Pure: no sockets, no knowledge of what the values mean.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from json.decoder import JSONDecodeError
from typing import Any

from vxlane.errors import SourceError
from vxlane.util.jsontext import parse_json

_decode = json.JSONDecoder().raw_decode
_AFTER = frozenset(",]} \t\r\n")


def lines(blocks: Iterable[bytes]) -> Iterator[Any]:
    """Parse one JSON value per line. etcd's last line before it stops has no newline."""
    rest = b""
    for block in blocks:
        head, newline, tail = block.rpartition(b"\n")
        if not newline:
            rest += block
            continue
        for line in (rest + head).split(b"\n"):
            if line.strip():
                yield _parsed(line)
        rest = tail
    if rest.strip():
        yield _parsed(rest)


def members(blocks: Iterable[bytes], name: str) -> Iterator[tuple[str, Any]]:
    """Walk one JSON object in the order sent: each element of its array `name` as (name, element),
    each other member as (key, value). Servers send them in different orders.
    """
    text = _Text(blocks)
    text.expect("{")
    while text.peek() != "}":
        key = text.value()
        text.expect(":")
        if key == name and text.peek() == "[":
            yield from ((name, element) for element in _elements(text))
        else:
            yield key, text.value()
        if text.peek() == ",":
            text.expect(",")


def _elements(text: _Text) -> Iterator[Any]:
    text.expect("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() == ",":
            text.expect(",")
    text.expect("]")


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        words = f"a line that is cut off or not JSON: {line[:60]!r}"
        raise SourceError(f"a stream holds {words}") from error


class _Text:
    """The part of a body that has arrived, and a position in it."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        # Incremental: a block may end inside a character.
        self._source = codecs.iterdecode(blocks, "utf-8")
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in " \t\r\n":
                    return character
                self._at += 1
            if not self._refill():
                raise SourceError("a list was cut off before its end")

    def expect(self, character: str) -> None:
        if self.peek() != character:
            found = self._text[self._at : self._at + 40]
            raise SourceError(f"a list holds {found!r} where {character!r} belongs")
        self._at += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except RecursionError:
                raise SourceError("a list is nested too deeply") from None
            except JSONDecodeError as error:
                # Perhaps the rest has not arrived. Doubling the text before the next attempt
                # parses an object of any size a few times, and not once per block.
                if not self._refill(len(self._text) - self._at):
                    raise SourceError(f"a list was cut off or is not JSON: {error}") from error
                continue
            # "12" and "12." at the end may be the beginning of 12.5.
            whole = not isinstance(value, int | float) or self._text[end : end + 1] in _AFTER
            if whole or not self._refill():
                self._at = end
                return value

    def _refill(self, more: int = 1) -> bool:
        """Get at least `more` characters. False: the body has no more."""
        pieces = []
        for piece in self._source:
            pieces.append(piece)
            more -= len(piece)
            if more <= 0:
                break
        if pieces:
            self._text, self._at = self._text[self._at :] + "".join(pieces), 0
        return bool(pieces)
