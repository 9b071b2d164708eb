# SPDX-License-Identifier: Apache-2.0
"""Logs on stderr: lines for people, or one JSON object per line."""

from __future__ import annotations

import enum
import json
import logging
import sys
from datetime import datetime, timezone


class LogFormat(enum.Enum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("vxlane."),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up(shape: LogFormat, level: int) -> None:
    """Log everything of vxlane's from `level` (logging's numbers) on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json()
        if shape is LogFormat.JSON
        else logging.Formatter("%(asctime)s %(levelname).1s %(message)s")
    )
    logger = logging.getLogger("vxlane")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
