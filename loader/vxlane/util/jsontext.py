# SPDX-License-Identifier: Apache-2.0
"""JSON that others wrote: any fault in it is one exception. Imports no other module of vxlane."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value in `text`. ValueError: it is no JSON, no text, or nested too deeply for Python."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
