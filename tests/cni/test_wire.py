# SPDX-License-Identifier: Apache-2.0
"""The plugin's JSON is the standard library's."""

import json

import pytest

from vxlane_cni import wire

VALUES = [
    {"a": [1, -2.5, 1e300, True, False, None], "é": '\u2028\U0001f600\\"/\b\f\n\r\t\x00'},
    [],
    {},
    "",
    0,
    10**300,
    {"nested": {"deep": [[[[{}]]]]}},
    "\ud800",
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_round_trip(value):
    """What is written is read back the same, by it and by the standard library."""
    assert wire.loads(wire.dumps(value)) == value
    assert json.loads(wire.dumps(value)) == value
    assert wire.loads(json.dumps(value, indent=3).encode()) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", '{"a"', '{"a":', '{"a":1', "[1,", "[1 2]", '"', '"\\x"', "01", "tru", "1 2"],
)
def test_what_json_refuses(text):
    """What the standard library refuses is a ValueError here too."""
    with pytest.raises(ValueError, match=r"\S"):
        json.loads(text)
    with pytest.raises(ValueError, match=r"\S"):
        wire.loads(text.encode())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x"])
def test_what_has_no_json_form(value):
    """What JSON can't say is not written."""
    with pytest.raises((TypeError, ValueError)):
        wire.dumps([value])
