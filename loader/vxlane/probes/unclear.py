# SPDX-License-Identifier: Apache-2.0
"""What a probe raises that has seen something which is neither a yes nor a no."""

from __future__ import annotations


class Unclear(Exception):  # noqa: N818 (not an error of the user's or of vxlane's)
    """The kernel did what nobody foresaw; the text says what."""
