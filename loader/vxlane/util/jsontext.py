# SPDX-License-Identifier: Apache-2.0
"""JSON that others wrote: whatever is wrong with it is one exception. Imports nothing of vxlane."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What `text` says; ValueError also where it is no text, or nests deeper than Python reads."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
