# SPDX-License-Identifier: Apache-2.0
"""Why programs were not compiled or loaded: what this machine lacks, and where all words are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vxlane.util import files
from vxlane.util.capabilities import missing
from vxlane.util.release import OLDEST, is_supported


def too_old() -> str:
    """Empty: the kernel is new enough. An older one may have all that is needed, and then loads."""
    release = os.uname().release
    if is_supported(release):
        return ""
    return f"the programs need Linux {OLDEST} or later, this is {release}"


def lacking(capabilities: Iterable[str]) -> str:
    """Which of them this process has not in effect; empty: it has all."""
    lacks = missing(capabilities)
    return f"this process lacks {lacks}" if lacks else ""


def kept(log_file: Path, said: str, what: str) -> str:
    """Put `said` into the file, which only root reads; what tells of it behind an error's sentence.

    Empty: there was no room for it.
    """
    try:
        files.replace(log_file, said, mode=0o600)
    except OSError:
        return ""
    return f"; all of {what} in {log_file}"
