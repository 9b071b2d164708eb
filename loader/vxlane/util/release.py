# SPDX-License-Identifier: Apache-2.0
"""Which kernels vxlane is made for. Pure."""

from __future__ import annotations

import re

OLDEST = "5.15"
"""Ubuntu 22.04's, the oldest that was tried. The programs call helpers of 5.11 and use a flag
of 5.13."""


def is_supported(release: str) -> bool:
    """Whether a kernel that calls itself so (uname -r) is OLDEST or later."""
    return numbers(release) >= numbers(OLDEST)


def is_too_old(release: str) -> bool:
    """Whether it is surely older than OLDEST. False for a release that can't be parsed."""
    return numbers(release) != () and not is_supported(release)


def numbers(release: str) -> tuple[int, ...]:
    """Major and minor version. Empty if the release has none; that sorts before all others."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return tuple(map(int, found.groups())) if found else ()
