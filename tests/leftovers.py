# SPDX-License-Identifier: Apache-2.0
"""What runs that were killed left behind: labs and namespaces whose names hold a dead run's pid."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from vxlane.lab import lab as labs
from vxlane.lab import namespaces
from vxlane.lab.plan import LABS


def remove(kind: str) -> None:
    """Remove all that is named `kind`-PID or begins so, unless that process lives.

    `kind` is a word of vxlane's own: a namespace of another program may well be called test-1.
    Namespaces first: what runs in them may keep a lab's mounts busy. The processes of one run
    take turns.
    """

    def is_stale(name: str) -> bool:
        found = re.match(rf"{kind}-(\d+)(-|$)", name)
        return bool(found) and not Path(f"/proc/{found[1]}").exists()

    turn = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        namespaces.remove([name for name in namespaces.existing() if is_stale(name)])
        for left in filter(lambda path: is_stale(path.name), LABS.glob(f"{kind}-*")):
            if left.is_dir():
                labs.down(left.name)
            else:
                left.unlink(missing_ok=True)  # The log of an agent that failed.
    finally:
        os.close(turn)
