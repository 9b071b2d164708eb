# SPDX-License-Identifier: Apache-2.0
"""What may have changed, and so has to be compared with the kernel again. Pure."""

from __future__ import annotations

import enum


class Dirty(enum.Flag):
    """What may have changed."""

    NODES = enum.auto()
    HOST = enum.auto()
    """Interfaces and addresses; our device."""
    ROUTES = enum.auto()
    """Next hops may be others."""
    ENTRIES = enum.auto()
    """Our routes, neighbours or forwarding entries."""
    RULES = enum.auto()
    """Masquerade and forward rules."""
    PODS = enum.auto()
    """Some veths and bridges, their qdiscs and filters."""
    MAPS = enum.auto()
    """What the programs' maps hold and where programs stand."""


ALL = Dirty(sum(item.value for item in Dirty))
