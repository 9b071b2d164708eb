# SPDX-License-Identifier: Apache-2.0
"""Which capabilities this process lacks: in a container the error alone does not tell.

Imports nothing of vxlane.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

# Bits of linux/capability.h.
_BITS = {
    "DAC_OVERRIDE": 1,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_ADMIN": 21,
    "PERFMON": 38,
    "BPF": 39,
}


def missing(wanted: Iterable[str]) -> str:
    """Those of `wanted` that are not in effect, as "CAP_BPF, CAP_SYS_ADMIN"; empty: none."""
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else -1
    return ", ".join(f"CAP_{name}" for name in sorted(wanted) if not effective >> _BITS[name] & 1)


def in_words(error: OSError) -> str:
    """The file and what is wrong with it; where root is refused, what root lacks."""
    said = error.strerror or str(error)
    if error.filename is not None:
        said = f"{error.filename}: {said}"
    # Another user's directory, as Kubespray's of CNI.
    if error.errno == errno.EACCES and os.geteuid() == 0 and (lacks := missing(["DAC_OVERRIDE"])):
        said += f"; this process lacks {lacks}"
    return said
