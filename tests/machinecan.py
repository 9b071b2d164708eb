# SPDX-License-Identifier: Apache-2.0
"""What a test needs that not every supported machine has, asked of the one that runs it.

A test that is skipped for that is skipped in CI too: nothing could prove it there.
"""

from __future__ import annotations

from typing import NoReturn

import pytest

from vxlane.datapath import syscall
from vxlane.datapath.attach import Method

_LACKS = "this machine has no "

TCX = pytest.param(Method.TCX, id="tcx", marks=pytest.mark.tcx)
CLSACT = pytest.param(Method.CLSACT, id="clsact")
BOTH = (TCX, CLSACT)
"""Parameters of a test that attaches by either method."""
BOTH_OPTIONS = (pytest.param("tcx", marks=pytest.mark.tcx), "clsact")
"""The same as words of `--attach`."""


def lacks(what: str) -> NoReturn:
    """Skip the calling test."""
    pytest.skip(f"{_LACKS}{what}")


def check(item: pytest.Item) -> None:
    """Skip a test by its marks."""
    if item.get_closest_marker("tcx") and not syscall.has_tcx():
        lacks("TCX (Linux 6.6)")


def is_lack(report: pytest.TestReport | pytest.CollectReport) -> bool:
    """Whether a test was skipped for what the kernel lacks."""
    return isinstance(report.longrepr, tuple) and _LACKS in report.longrepr[2]
