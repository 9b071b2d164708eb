# SPDX-License-Identifier: Apache-2.0
"""Parses JSON that others wrote; every fault in it is a ValueError. Imports nothing of vxlane.

As Go does it, and so the programs that read the same files: Python alone would take UTF-16 and NaN.
"""

from __future__ import annotations

import json
from typing import Any


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is no value of JSON's")


_DECODER = json.JSONDecoder(parse_constant=_refused)


def parse_json(text: str | bytes) -> Any:
    """The value in `text`. ValueError: it is not JSON, not UTF-8, or too deeply nested."""
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
