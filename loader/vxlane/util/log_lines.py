# SPDX-License-Identifier: Apache-2.0
"""Many log lines of one kind. Imports no other module of vxlane."""

from __future__ import annotations

import logging
from collections.abc import Sequence

_MOST = 50
"""A first reconcile of 10,000 peers must not fill the log."""


def log_lines(log: logging.Logger, lines: Sequence[object], what: str) -> None:
    """Log the first lines one by one; if there are more, log how many `what` are left out."""
    for line in lines[:_MOST]:
        log.info("%s", line)
    if len(lines) > _MOST:
        log.info("... and %d more %s", len(lines) - _MOST, what)
