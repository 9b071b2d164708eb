# SPDX-License-Identifier: Apache-2.0
"""How a measurement of `scripts/bench` ends: its figures, what was missed, and its status."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


def end(figures: dict[str, Any], missed: Sequence[str], *, as_json: bool) -> NoReturn:
    """Print the figures and a sentence for each budget that was missed; status 1 if any was."""
    if as_json:
        print(json.dumps({**figures, "missed": missed}, indent=2))
    else:
        width = max(map(len, figures), default=0)
        for key, value in figures.items():
            print(f"{key:{width}} {value}")
    for sentence in missed:
        print(f"bench: {sentence}", file=sys.stderr)
    sys.exit(bool(missed))
