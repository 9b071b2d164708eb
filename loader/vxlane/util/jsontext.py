# SPDX-License-Identifier: Apache-2.0
"""Parses JSON that others wrote; every fault in it is a ValueError. Imports nothing of vxlane."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value in `text`. ValueError: it is not JSON, not UTF-8, or too deeply nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
