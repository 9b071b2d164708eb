# SPDX-License-Identifier: Apache-2.0
"""RCU's grace periods, made short while programs are attached and detached.

TCX waits for one whenever a device's programs change, under the lock of all network devices
(include/net/tcx.h, tcx_entry_sync): 16 ms measured on a kernel of 250 Hz, twice for each pod, and
a hundred pods that start together wait for one another. An expedited one takes 0.06 ms; the
kernel itself expedites whenever a device is removed. Imports nothing of vxlane.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_KNOB = Path("/sys/kernel/rcu_expedited")


@contextlib.contextmanager
def expedited() -> Iterator[None]:
    """Expedite every grace period that the block waits for, where this process may ask for that.

    The setting is the machine's, so it stands no longer than the block: microseconds. Where it
    is set already, or /sys is read-only, it is left alone.
    """
    try:
        is_ours = _KNOB.read_text(encoding="ascii").strip() == "0"
        if is_ours:
            _KNOB.write_text("1", encoding="ascii")
    except OSError:
        is_ours = False
    try:
        yield
    finally:
        if is_ours:
            _KNOB.write_text("0", encoding="ascii")
