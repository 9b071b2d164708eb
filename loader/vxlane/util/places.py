# SPDX-License-Identifier: Apache-2.0
"""Where a node has vxlane's files, unless a person says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path("/run/vxlane")
"""The agent's state directory. The CNI plugin, which imports nothing of vxlane, knows it too."""

KERNEL = STATE / "kernel.json"
"""What was tried on this kernel, for all state directories."""

STATE_VARIABLE = "VXLANE_STATE_DIR"


def state_directory() -> Path:
    """The state directory that commands speak of: $VXLANE_STATE_DIR, or `STATE`."""
    return Path(os.environ.get(STATE_VARIABLE) or STATE)
