# SPDX-License-Identifier: Apache-2.0
"""What a device does for the kernel: checksums, cutting of super-packets, joining of packets."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pyroute2.ethtool.ioctl import IoctlEthtool, NotSupportedError


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature, under the name that `ethtool -k` and `ethtool -K` know."""

    is_on: bool
    is_changeable: bool
    """By a person: not fixed by the driver."""


def features(device: str) -> dict[str, Feature]:
    """The features of `device` in this thread's network namespace; empty where none are told."""
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
