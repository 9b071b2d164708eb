# SPDX-License-Identifier: Apache-2.0
"""Many log lines of one kind. Imports no other module of vxlane."""

from __future__ import annotations

import logging
from collections.abc import Sequence

_MOST = 50
"""A first reconcile of 10,000 peers must not fill the log, nor must a NIC that goes down."""


def log_lines(
    log: logging.Logger, lines: Sequence[object], what: str, level: int = logging.INFO
) -> None:
    """Log the first lines one by one; if there are more, log how many `what` are left out."""
    for line in lines[:_MOST]:
        log.log(level, "%s", line)
    if len(lines) > _MOST:
        log.log(level, "... and %d more %s", len(lines) - _MOST, what)
