# SPDX-License-Identifier: Apache-2.0
"""JSON that others wrote."""

from __future__ import annotations

import pytest

from vxlane.util.jsontext import parse_json


def test_text_and_bytes_are_read() -> None:
    """Bytes are UTF-8."""
    assert parse_json(' {"a": [1, "ä"]} ') == parse_json(' {"a": [1, "ä"]} '.encode())


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1] 2", "NaN", "[-Infinity]", "[" * 100_000, b"\xff"),
        *('{"a": 1}'.encode(encoding) for encoding in ("utf-16", "utf-32-le", "utf-8-sig")),
    ],
    ids=lambda text: repr(text[:9]),
)
def test_what_go_does_not_read_is_refused(text: str | bytes) -> None:
    """Python alone reads some of it, and what would be made of it no runtime can read."""
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
