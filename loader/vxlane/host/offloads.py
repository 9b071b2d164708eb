# SPDX-License-Identifier: Apache-2.0
"""Reads a device's offloads: checksums, segmentation (TSO, GSO) and receive offloads (GRO, LRO)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pyroute2.ethtool.ioctl import IoctlEthtool, NotSupportedError


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature, under the name that `ethtool -k` and `ethtool -K` know."""

    is_on: bool
    is_changeable: bool
    """Whether a person can change it: the driver does not fix it."""


def features(device: str) -> dict[str, Feature]:
    """The features of `device` in this thread's network namespace. Empty: they can't be read."""
    with contextlib.closing(IoctlEthtool(device)) as ethtool:
        try:
            found = ethtool.get_features()
        except (NotSupportedError, OSError):
            return {}
        return {
            name: Feature(
                found.is_active(name),
                found.is_available(name) and not found.is_never_changed(name),
            )
            for name in found.keys()  # noqa: SIM118 (it iterates over something else)
        }
