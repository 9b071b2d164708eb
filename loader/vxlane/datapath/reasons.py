# SPDX-License-Identifier: Apache-2.0
"""Explains why programs were not compiled or loaded: what is missing, and where the log is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vxlane.util import files
from vxlane.util.capabilities import missing
from vxlane.util.release import OLDEST, is_supported


def too_old() -> str:
    """A sentence if the kernel is too old. It is only used after a failure, since an older kernel
    may have all that is needed. Empty: it is new enough.
    """
    release = os.uname().release
    if is_supported(release):
        return ""
    return f"the programs need Linux {OLDEST} or later, this is {release}"


def lacking(capabilities: Iterable[str]) -> str:
    """A sentence with the capabilities that this process lacks. Empty: it has all of them."""
    lacks = missing(capabilities)
    return f"this process lacks {lacks}" if lacks else ""


def kept(log_file: Path, said: str, what: str) -> str:
    """Write `said` to the file, which only root can read. Returns the end of an error's sentence.

    Empty: the file could not be written.
    """
    try:
        files.replace(log_file, said, mode=0o600)
    except OSError:
        return ""
    return f"; all of {what} in {log_file}"
